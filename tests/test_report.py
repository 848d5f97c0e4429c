"""The report as a file: nothing is loaded, nothing leaks, and opposite runs read as opposites."""

import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cpvae.report
from cpvae.errors import CpvaeError
from invented import example_run
from cpvae.report.figures import plot_null, plot_umap
from cpvae.report.words import findings
from cpvae.run.report import read_run, write_report

VOID = {"meta", "img", "br", "hr", "link", "input"}
FETCHES = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects addresses a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.ids, self.targets, self.tags = [], [], set(), set(), set()
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.add(value)
            if key == "href" and value.startswith("#"):
                self.targets.add(value[1:])
            elif key in FETCHES and not value.startswith("data:image/svg+xml;base64,"):
                self.fetched.append(value)
            assert not key.startswith("on"), f"script in {key}"

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def save(folder, run, tables):
    (folder / "tables").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    for name, table in tables.items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("works,n_pairs", [(True, 20), (False, 20), (True, 3), (True, 1)])
def test_page_is_whole_and_self_contained(tmp_path, works, n_pairs):
    folder = save(tmp_path / "run", *example_run(works, n_pairs))
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert not page.tags & {"link", "iframe", "object", "embed", "base"}
    shown, *scripts = text.split("\n<script")
    assert "@import" not in shown and "url(" not in shown
    assert len(scripts) == 3 and "default-src 'none'" in shown  # what the page may not load
    assert page.targets and page.targets <= page.ids
    assert str(tmp_path) not in text
    shown = re.sub(r"base64,[^\"]*", "", shown)
    assert not re.search(r"\b(nan|NaN|None|inf|<NA>)\b|&lt;NA&gt;", shown)
    assert len(list((folder / "figures").glob("*.svg"))) == text.count("<img ")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["training", "reconstruction", "umap", "lsa", "lsa_null"])
def test_each_table_may_be_missing(tmp_path, missing):
    run, tables = example_run(n_pairs=4)
    tables.pop(missing)
    Page(write_report(save(tmp_path / "run", run, tables)).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_same_tables_same_bytes_wherever_they_lie(tmp_path):
    run, tables = example_run(n_pairs=4)
    one, two = (save(tmp_path / name, run, tables) for name in ("one", "a longer name"))
    assert write_report(one).read_bytes() == write_report(two).read_bytes()
    for picture in (one / "figures").iterdir():
        assert picture.read_bytes() == (two / "figures" / picture.name).read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_opposite_runs_read_as_opposites(tmp_path):
    told = {}
    for works in (True, False):
        run, tables = read_run(save(tmp_path / str(works), *example_run(works)))
        told[works] = " ".join(findings(run, tables["reconstruction"], tables["lsa"]))
    for only_good in (
        "Every VAE reconstructs unseen profiles better than PCA",
        "as it should be",
        "beats all 8 trivial baselines",
        "Knowing the two mechanisms helps",
        "closer in 20 of 20",
    ):
        assert only_good in told[True] and only_good not in told[False], only_good
    for only_bad in (
        "PCA reconstructs unseen profiles better than every VAE",
        "is not clean for",
        "beats none of the 8",
        "For no model do both",
        "no pair of any model stands out",
    ):
        assert only_bad in told[False] and only_bad not in told[True], only_bad
    for both in ("in-sample", "mechanism-blind", "exchangeable"):
        assert both in told[True] and both in told[False]


def test_warning_comes_before_the_arithmetic():
    run, tables = example_run(n_pairs=5)
    leads = [p.split(".")[0] for p in findings(run, tables["reconstruction"], tables["lsa"])]
    assert [k for k, p in enumerate(leads) if p.startswith("Only 5 pairs")][0] < [
        k for k, p in enumerate(leads) if p.startswith("By mean")
    ][0]


def test_refusals_name_the_file(tmp_path):
    with pytest.raises(CpvaeError, match="no run.json"):
        write_report(tmp_path)
    folder = save(tmp_path / "run", *example_run(n_pairs=3))
    (folder / "tables" / "training.csv").write_bytes(b"")
    with pytest.raises(CpvaeError, match="training.csv cannot be read"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_libraries_are_what_they_are_said_to_be():
    "Minified files of others: origin, licence, version, and the bytes that were published."
    lib = Path(cpvae.report.__file__).parent / "templates" / "lib"
    told = json.loads((lib / "ORIGIN.json").read_text(encoding="utf-8"))
    assert {one["file"] for one in told} == {path.name for path in lib.glob("*.js")}
    for one in told:
        content = (lib / one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
        assert one["version"].encode() in content[:400] and one["licence"] == "MIT"
        assert "Permission is hereby granted" in (lib / one["licence_file"]).read_text()
        assert not re.search(rb"new Function\(|\beval\(", content)


def test_report_needs_no_model():
    code = (
        "import sys, cpvae.run.report; print([m for m in ('torch', 'umap', 'numba',"
        " 'matplotlib.pyplot') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_every_cloud_of_the_map_lies_where_its_profiles_do():
    "Each kind, of real and of shuffled profiles, has coordinates of its own."
    place = {(False, "original"): 0, (False, "reconstructed"): 1, (False, "simulated"): 2}
    place |= {(True, "original"): 3, (True, "reconstructed"): 4, (True, "simulated"): 5}
    own = lambda at: [[at + i / 10, -10 * at + i] for i in range(3)]
    table = pd.DataFrame(
        [
            ("data" if kind == "original" else "beta", shuffled, kind, *point)
            for (shuffled, kind), at in place.items()
            for point in own(at)
        ],
        columns=["model", "shuffled", "kind", "umap1", "umap2"],
    )
    panels = [ax for ax in plot_umap(table).axes if ax.collections]
    assert len(panels) == 2
    for shuffled, ax in zip((False, True), panels):
        found = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
        for kind, points in found.items():
            np.testing.assert_allclose(points, own(place[shuffled, kind]))
        assert found.keys() == {"original", "reconstructed", "simulated"}


def test_bars_hold_the_middle_of_the_permuted_and_marks_are_filled_below_one_in_twenty():
    "A hundred and one relabellings at 0, 1, ... 100 hundredths; two pairs either side of q = 0.05."
    lsa = pd.DataFrame({"model": "pca", "pair": ["a|b", "c|d"], "q": [0.049, 0.05]})
    null = pd.concat(
        pd.DataFrame({"cosine": [real, *np.arange(101) / 100], "permutation": range(102)}).assign(
            model="pca", pair=pair, l2=lambda t: 10 * t["cosine"]
        )
        for pair, real in (("a|b", 0.9), ("c|d", 0.8))
    )
    for ax, unit in zip(plot_null(lsa, null, "pca").axes, (1, 10)):
        thin, thick, filled, empty = ax.collections
        ends = [[part[:, 0] for part in bars.get_segments()] for bars in (thin, thick)]
        np.testing.assert_allclose(ends[0], [[0.05 * unit, 0.95 * unit]] * 2)
        np.testing.assert_allclose(ends[1], [[0.25 * unit, 0.75 * unit]] * 2)
        np.testing.assert_allclose(filled.get_offsets(), [[0.9 * unit, 0]])
        np.testing.assert_allclose(empty.get_offsets(), [[0.8 * unit, 1]])
