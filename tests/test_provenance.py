"""Committed tables: what each came from is known, and nobody changed one by hand."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import provenance
import pytest
from sources import MAP, ROOT, TABLES
from provenance import KEYS, RESULTS, code_digest, command, digest, entries, wrong, write_table

BENCHMARKS = ROOT / "benchmarks"
TABLE = pd.DataFrame(
    {"pair": ["a|b", "ä|c"], "l2": [1 / 3, 2.0], "gap": [np.nan, 1.0], "n": [1, 2]},
)
KNOWN = [(folder, name) for folder in (RESULTS, BENCHMARKS) for name in entries(folder)]


@pytest.fixture
def data(tmp_path):
    "A data file in a folder of its own."
    path = tmp_path / "some data" / "cells.parquet"
    path.parent.mkdir()
    path.write_bytes(b"cells")
    return path


@pytest.fixture
def out(tmp_path):
    "A folder for tables."
    path = tmp_path / "out"
    path.mkdir()
    return path


def strings(value):
    "Every string in nested lists and dicts, keys included."
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.items():
            yield from strings([*item])
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def places(value):
    "The strings that name a place of one machine."
    return [s for s in strings(value) if re.search(r"(^|[\s='\"(])(~?[/\\]|[A-Za-z]:[/\\])\w", s)]


def test_every_result_table_is_as_its_tool_wrote_it():
    assert wrong(RESULTS) == [] and len(entries(RESULTS)) > 30


def test_every_table_of_the_benchmarks_is_as_it_was_written():
    assert wrong(BENCHMARKS) == []


@pytest.mark.parametrize("folder, name", KNOWN, ids=[name for _, name in KNOWN])
def test_an_entry_says_what_a_reader_needs(folder, name):
    entry = entries(folder)[name]
    assert tuple(entry) == KEYS and places(entry) == []
    script, *arguments = entry["command"].removeprefix("python ").split()
    assert (ROOT / script).is_file() and not any("shared" in word for word in arguments)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", entry["created"])
    assert set(entry["data"]) <= {MAP, *(file for file, _ in TABLES.values())}
    hashes = [entry["sha256"], *entry["data"].values()]
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for sha in hashes)
    assert re.fullmatch("([0-9a-f]{16})?", entry["code"]) and entry["versions"]["cpvae"]
    assert all(isinstance(seed, int) for seed in entry["seeds"])
    assert isinstance(entry["settings"], dict)


def test_no_table_says_again_what_its_entry_says():
    for path in RESULTS.glob("*.csv"):
        columns = set(path.read_text(encoding="utf-8").split("\n", 1)[0].split(","))
        assert not columns & {"created", "cpvae", "sha256", "source", "torch", "optuna"}, path.name


@pytest.mark.parametrize("folder", [RESULTS, BENCHMARKS], ids=["results", "benchmarks"])
def test_entries_are_kept_sorted_and_laid_out_in_one_way(folder):
    text = (folder / "provenance.json").read_bytes().decode()
    known = json.loads(text)
    assert [*known] == sorted(known)
    assert text == json.dumps(known, indent=1, ensure_ascii=False) + "\n"


def test_a_table_is_written_with_its_entry(out, data):
    settings = {"models": ("vanilla", "pca"), "seeds": {"strict": range(2)}}
    how = dict(settings=settings, seeds=range(3), packages=["optuna"])
    write_table("one", TABLE, sources=[data], folder=out, digits=3, **how)
    assert (out / "one.csv").read_bytes().decode() == "pair,l2,gap,n\na|b,0.333,,1\nä|c,2,1,2\n"
    (entry,) = entries(out).values()
    assert tuple(entry) == KEYS and entry["data"] == {"cells.parquet": digest(data)}
    assert entry["settings"] == {"models": ["vanilla", "pca"], "seeds": {"strict": [0, 1]}}
    assert entry["seeds"] == [0, 1, 2] and entry["code"] == code_digest()
    assert {"python", "cpvae", "torch", "optuna"} <= set(entry["versions"])
    assert wrong(out) == [] and {p.name for p in out.iterdir()} == {"one.csv", "provenance.json"}


def test_writing_twice_gives_the_same_bytes_but_for_the_date(out, data, monkeypatch):
    written = []
    for day in ("2001-02-03", "2004-05-06"):

        class Clock:
            @staticmethod
            def now(_, day=day):
                return pd.Timestamp(day)

        monkeypatch.setattr(provenance, "datetime", Clock)
        for name in ("b", "a"):
            write_table(name, TABLE, sources=[data], folder=out, settings={"x": 1.5}, seeds=[0])
        assert {entry["created"] for entry in entries(out).values()} == {day}
        written.append([(out / f).read_bytes() for f in ("a.csv", "b.csv", "provenance.json")])
    (*tables, first), (*again, second) = written
    assert tables == again and [*entries(out)] == ["a", "b"]
    assert first != second and first.replace(b"2001-02-03", b"2004-05-06") == second


def test_what_was_changed_by_hand_is_noticed(out):
    for name in ("a", "b"):
        write_table(name, TABLE, settings={}, folder=out)
    assert wrong(out) == []
    path, file = out / "a.csv", out / "provenance.json"
    whole, known = path.read_text(encoding="utf-8"), file.read_text(encoding="utf-8")
    provenance.replace(path, whole.replace("0.33333", "0.33334"))
    assert wrong(out) == ["a.csv is not what its tool wrote"]
    provenance.replace(path, whole)
    provenance.replace(out / "c.csv", whole)
    (out / "b.csv").unlink()
    assert wrong(out) == ["c.csv has no entry", "there is no b.csv"]
    (out / "c.csv").rename(out / "b.csv")
    provenance.replace(file, known.replace('"seeds"', '"seed"', 1))
    assert wrong(out) == ["a does not say its seeds"]


def test_tools_that_write_at_the_same_time_lose_nothing(out):
    names = [f"t{i:02d}" for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: write_table(name, TABLE, settings={}, folder=out), names))
    assert [*entries(out)] == names and wrong(out) == []


def test_the_code_is_known_by_every_line_and_name(tmp_path):
    module = tmp_path / "sub" / "data.py"
    module.parent.mkdir()
    (tmp_path / "__init__.py").write_text("")
    module.write_bytes(b"a = 1\nb = 2\n")
    first = code_digest(tmp_path)
    assert re.fullmatch("[0-9a-f]{16}", first)
    module.write_bytes(b"a = 1\r\nb = 2\r\n")
    assert code_digest(tmp_path) == first  # as git may check it out
    module.write_bytes(b"a = 1\nb = 3\n")
    assert code_digest(tmp_path) != first
    module.write_bytes(b"a = 1\nb = 2\n")
    module.rename(module.with_name("other.py"))
    assert code_digest(tmp_path) != first


def test_a_command_names_no_folder_of_this_machine(data, tmp_path, monkeypatch):
    script, folder = str(ROOT / "nbs/paper/tables/sizes.py"), data.parent
    said = lambda *words: command([data], [script, *map(str, words)])
    assert said(folder) == said(f"{folder}/") == "python nbs/paper/tables/sizes.py DATA"
    assert said(data) == "python nbs/paper/tables/sizes.py DATA/cells.parquet"
    assert said(folder, 3, tmp_path / "fits") == "python nbs/paper/tables/sizes.py DATA 3 fits"
    assert said("--out", tmp_path / "x.csv") == "python nbs/paper/tables/sizes.py --out x.csv"
    both = said(f"--out={tmp_path}/x.csv", f"{tmp_path}/")
    assert both == f"python nbs/paper/tables/sizes.py --out=x.csv {tmp_path.name}"
    assert command([], ["/home/me/try.py", "beta"]) == "python try.py beta"
    monkeypatch.chdir(tmp_path)
    assert said("some data") == "python nbs/paper/tables/sizes.py DATA"
    assert places([said(folder), said(data)]) == [] and places(["python /a/b", r"C:\data"]) != []


def test_a_notebook_shows_tables_of_one_origin_in_one_line(out, data, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "nbs")
    import measured

    how = dict(settings={"cores": 2, "grid": [1, 2]}, folder=out)
    write_table("a", TABLE, sources=[data], **how)
    write_table("b", TABLE, sources=[data], **how)
    write_table("c", TABLE, **how)
    first, second = measured.provenance("a", "b", "c", folder=out, settings=True).data.splitlines()
    assert first.startswith("- `a.csv`, `b.csv`: `python ") and second.startswith("- `c.csv`: ")
    assert f"from cells.parquet ({digest(data)[:16]})" in first and "from" not in second
    assert first.endswith("; cores: 2") and measured.entry("c", out)["data"] == {}
    assert measured.RESULTS == RESULTS and all(measured.entry(name) for name in entries())


@pytest.mark.parametrize("name", sorted({e["command"].split()[1] for e in entries().values()}))
def test_tools_write_tables_in_no_other_way(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "write_table(" in text and "to_csv" not in text
    assert not any(file in text for file, _ in TABLES.values()) and MAP not in text
