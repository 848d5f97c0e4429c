"""Damage: files whose bytes were flipped, cut or inserted, runs whose parts do not go together, and
commands that are stopped.
"""

import faulthandler
import json
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import pytest
import test_refusals as good_input
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from test_pipeline import fingerprint

import cpvae.io.read
import cpvae.run.ask
import cpvae.run.pipeline
from cpvae.errors import CpvaeError
from cpvae.io.claims import check_claims
from cpvae.io.read import read_table
from cpvae.io.write import write_profiles
from cpvae.profiles.read import read_profiles
from cpvae.datasets import known_datasets
from cpvae.profiles.simulate import simulate_profiles
from cpvae.model.store import load_model
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig
from cpvae.run.record import write_record
from cpvae.run.report import read_run
from cpvae.tune.search import open_study

TINY = dict(
    models=("vanilla", "pca"), n_permutations=100, vae=dict(steps=30, hidden_layer_sizes=(16,))
)


@pytest.fixture(autouse=True)
def guard():
    "A library that goes in circles cannot be interrupted; this ends the tests."
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def damaged(data, rng):
    """Some bytes flipped, cut out, or inserted, anywhere or near an end, where formats keep what
    they know of themselves.
    """
    data, n = bytearray(data), len(data)
    place = lambda: rng.choice(
        [rng.randrange(n), rng.randrange(min(n, 4096)), n - 1 - rng.randrange(min(n, 4096))]
    )
    kind = rng.choice(["flip", "flip", "cut", "insert", "blank"])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 3, 30])):
            data[place()] ^= 1 << rng.randrange(8)
    elif kind == "blank":
        at, k = place(), rng.choice([4, 64])
        data[at : at + k] = rng.choice([b"\0", b"\xff"]) * min(k, n - at)
    elif kind == "cut":
        del data[(at := place()) : at + rng.choice([1, 8, 100, n])]
    else:
        data[(at := place()) : at] = rng.randbytes(rng.choice([1, 8, 64]))
    return bytes(data)


def one_line(error, name):
    "A refusal that names the file."
    assert isinstance(error, CpvaeError) and name in str(error) and "\n" not in str(error), error


def containers(folder):
    """Good profiles in files of every kind, and how many damaged copies of each are read;
    HDF5 costs a process a file.
    """
    list(good_input.all_formats(folder))
    table = good_input.good()
    good_input.h5ad(
        folder, good_input.adata(table, X=csr_matrix(good_input.adata(table).X)), "sparse.h5ad"
    )
    write_profiles(read_profiles(folder / "a.csv"), folder / "own.h5ad")
    table.to_parquet(folder / "plain.parquet", compression=None)
    text = dict.fromkeys(["a.csv", "a.csv.gz", "a.csv.bz2", "a.csv.zst", "a.tsv", "a.gct"], 20)
    return text | {
        "a.parquet": 25,
        "plain.parquet": 25,
        "a.h5ad": 9,
        "sparse.h5ad": 6,
        "own.h5ad": 6,
        "a.gctx": 9,
    }


@pytest.mark.slow
def test_whatever_a_file_holds_it_is_read_or_refused_in_a_line(
    tmp_path, monkeypatch, record_property
):
    monkeypatch.chdir(tmp_path)
    rng, refused, slowest = random.Random(19), 0, (0, "")
    how = dict(profile_info="sig_info.txt", feature_info="gene_info.txt", control="DMSO")
    counts = containers(tmp_path)
    for name, n in counts.items():
        whole = (tmp_path / name).read_bytes()
        for i in range(n):
            (bad := tmp_path / f"bad{i}.{name}").write_bytes(damaged(whole, rng))
            start = time.monotonic()
            try:
                with warnings.catch_warnings():
                    # a library's remarks are not for a user's terminal
                    warnings.simplefilter("error")
                    read_profiles(bad, **(how if name.endswith("gctx") else {}))
            except CpvaeError as error:
                one_line(error, bad.name)
                refused += 1
            slowest = max(slowest, (time.monotonic() - start, bad.name))
    tried = sum(counts.values())
    assert tried >= 200 and tried / 3 < refused < tried
    said = (
        f"{tried} files, {refused} refused, {tried - refused} read; slowest {slowest[1]},"
        f" {slowest[0]:.1f} s"
    )
    record_property("fuzz", said)
    print(said)


def test_tables_beside_the_profiles_are_read_or_refused_in_a_line(tmp_path):
    rng = random.Random(1)
    list(good_input.gctx(tmp_path))
    good_input.good().to_parquet(tmp_path / "t.parquet")
    for name in ("sig_info.txt", "gene_info.txt", "t.parquet"):
        for i in range(20):
            (bad := tmp_path / f"{i}.{name}").write_bytes(
                damaged((tmp_path / name).read_bytes(), rng)
            )
            try:
                read_table(bad)
            except CpvaeError as error:
                one_line(error, bad.name)


def in_circles(path):
    "Blank the head of a heap of strings, round which HDF5's library walks for ever."
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    path.write_bytes(whole[: heap + 16] + bytes(64) + whole[heap + 80 :])


def elsewhere(path, kind):
    "Move a part of an AnnData file into another file."
    shutil.copy(path, path.with_name("other.h5"))
    other, values = str(path.with_name("other.h5")), h5py.File(path)["X"][()]
    with h5py.File(path, "a") as file:
        if kind == "link":
            del file["var"]
            file["var"] = h5py.ExternalLink("other.h5", "var")
        elif kind == "raw":
            values.tofile(path.with_name("other.bin"))
            del file["X"]
            file.create_dataset(
                "X",
                values.shape,
                values.dtype,
                external=[(str(path.with_name("other.bin")), 0, values.nbytes)],
            )
        else:
            del file["X"]
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[:] = h5py.VirtualSource(other, "X", values.shape)
            file.create_virtual_dataset("X", layout)


@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "circles", "claims"])
def test_hdf5_that_leads_elsewhere_or_nowhere(kind, tmp_path):
    good_input.h5ad(tmp_path, good_input.adata())
    path = tmp_path / "bad.h5ad"
    if kind == "circles":
        in_circles(path)
    elif kind == "claims":
        with h5py.File(path, "a") as file:
            shape, attributes = (30, 8), dict(file["X"].attrs)
            del file["X"]
            # announced, never written: it would be read as zeros
            file.create_dataset("X", shape, "f4", chunks=(10, 8))
            file["X"].attrs.update(attributes)
    else:
        elsewhere(path, kind)
    with pytest.raises(CpvaeError) as caught:
        check_claims(path, seconds=1)
    one_line(caught.value, "bad.h5ad")
    says = {"circles": "does not come to an end", "claims": "not all of it is stored"}.get(
        kind, "other."
    )
    assert says in str(caught.value)
    if kind != "circles":
        with pytest.raises(CpvaeError, match="bad.h5ad"):
            read_profiles(path)


def test_defects_of_our_own_stay_defects(tmp_path, monkeypatch):
    "The same mistake in a line of ours, and in a library that we called."
    good_input.csv(tmp_path)
    theirs = lambda *_: None + 1
    monkeypatch.setitem(cpvae.io.read.READERS, ".csv", theirs)
    with pytest.raises(CpvaeError, match="bad.csv: is damaged") as caught:
        read_profiles(tmp_path / "bad.csv")
    assert isinstance(caught.value.__cause__, TypeError)  # for --debug
    monkeypatch.setitem(
        cpvae.io.read.READERS, ".csv", eval("lambda *_: None + 1", vars(cpvae.io.read))
    )
    with pytest.raises(TypeError):
        read_profiles(tmp_path / "bad.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, no_figures):
    "A small world and a finished run of it."
    world = simulate_profiles(seed=3, n_mechanisms=6, n_pairs=3, n_features=40, n_maps=2)
    return world, run_pipeline(
        world, tmp_path_factory.mktemp("finished") / "run", RunConfig(**TINY), jobs=1
    )


@pytest.fixture
def tiny(finished, tmp_path):
    "The world, and a copy of its run."
    return finished[0], shutil.copytree(finished[1], tmp_path / "run")


def test_no_file_of_a_run_can_change_unnoticed(tiny, monkeypatch, record_property):
    stored = cpvae.io.read.read_anndata(tiny[1] / "latents.h5ad")
    # digests come first, and reading takes long
    monkeypatch.setattr(cpvae.run.ask, "read_anndata", lambda path: stored)
    rng, tried, refused, harmless, run = random.Random(5), 0, 0, set(), tiny[1]
    record = json.loads((run / "run.json").read_text())
    files = sorted(path for path in run.rglob("*") if path.is_file())
    assert {path.relative_to(run).as_posix() for path in files} - {*record["files"]} == {
        "run.json",
        "report.html",
    } | {f"figures/{p.name}" for p in (run / "figures").iterdir()}
    for path in files:
        whole = path.read_bytes()
        drawn = path.suffix in (".html", ".svg")
        for spoil in [lambda data: damaged(data, rng)] * (1 if drawn else 4) + [
            lambda data: b"",
            lambda data: None,
        ] * (not drawn):
            content, tried = spoil(whole), tried + 1
            path.write_bytes(content) if content is not None else path.unlink()
            said = []
            for ask in (
                lambda: Run(run).open("vanilla"),
                lambda: Run(run).open("pca"),
                lambda: read_run(run),
            ):
                try:
                    ask()
                except CpvaeError as error:
                    one_line(error, path.name)
                    said.append(error)
            refused += bool(said)
            if not said and content != whole:
                harmless.add(path.relative_to(run).as_posix())
            path.write_bytes(whole)
    assert {name.split("/")[0] for name in harmless} <= {"report.html", "figures"}, harmless
    said = f"{tried} damaged files of a run, {refused} refused; the others are report and figures"
    record_property("fuzz", said)
    print(said)


@pytest.mark.parametrize(
    "key, value",
    [
        ("config", None),
        ("config", {}),
        ("config", {"models": [1]}),
        ("config", {"models": ["pca", "gan"]}),
        ("files", []),
    ],
)
def test_a_record_without_what_it_needs(key, value, tiny):
    path = tiny[1] / "run.json"
    whole = json.loads(path.read_text())
    record = {k: v for k, v in whole.items() if k not in ("files", "sha256")}
    path.write_text(json.dumps({k: v for k, v in (record | {key: value}).items() if v is not None}))
    with pytest.raises(CpvaeError, match=r"run\.json|gan") as caught:
        Run(tiny[1]).open("gan" if value == {"models": ["pca", "gan"]} else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", ["sha256", "files"])
def test_a_record_that_lost_one_of_its_digests_is_refused(gone, tiny):
    "A flipped letter in the name of the seal would else take the seal off."
    path = tiny[1] / "run.json"
    path.write_text(path.read_text().replace(f'"{gone}":', f'"{gone[:-1]}!":'))
    with pytest.raises(CpvaeError, match="it was changed after the run"):
        read_run(tiny[1])


def test_parts_of_a_run_that_do_not_go_together(tiny, tmp_path):
    "As of a run without digests, or whose record was written again by hand."
    from anndata import read_h5ad

    _, run = tiny
    stored = read_h5ad(run / "latents.h5ad")
    record = {
        k: v
        for k, v in json.loads((run / "run.json").read_text()).items()
        if k not in ("files", "sha256")
    }

    def asked(change):
        folder = shutil.copytree(run, tmp_path / "changed", dirs_exist_ok=True)
        change(folder)
        write_record(folder, record)
        try:
            Run(folder).open("vanilla")
        except CpvaeError as error:
            assert "\n" not in str(error)
            return str(error)

    def latents(change):
        def write(folder):
            table = stored.copy()
            (change(table) or table).write_h5ad(folder / "latents.h5ad")

        return write

    def weights(change):
        def write(folder):
            save_file(
                change(load_file(run / "models" / "vanilla" / "weights.safetensors")),
                folder / "models" / "vanilla" / "weights.safetensors",
            )

        return write

    def config(**changes):
        def write(folder):
            told = json.loads((run / "models" / "vanilla" / "config.json").read_text())
            (folder / "models" / "vanilla" / "config.json").write_text(json.dumps(told | changes))

        return write

    nan = lambda tensors: {k: v * float("nan") for k, v in tensors.items()}
    wrong = {
        "not those of model": latents(lambda t: t[:, ::-1].copy()),
        "first other, not": latents(lambda t: setattr(t, "var_names", ["other", *t.var_names[1:]])),
        "39, not 40": latents(lambda t: t[:, :-1].copy()),
        "lacks the latents": latents(lambda t: t.obsm.pop("X_vanilla")[:0].sum() or None),
        "lacks what a run keeps": latents(lambda t: t.obs.drop(columns="compound", inplace=True)),
        "not finite": weights(nan),
        "no usable model": weights(lambda t: {k: v[:1] for k, v in t.items()}),
        "belong together": config(n_features=10**9),
        "vanilla": config(params={"n_latent": "many"}),
    }
    for says, change in wrong.items():
        assert says in (asked(change) or "nothing"), says
        shutil.rmtree(tmp_path / "changed")
    assert asked(lambda folder: None) is None
    elsewhere_links = tmp_path / "changed" / "latents.h5ad"
    elsewhere(elsewhere_links, "link")
    assert "other.h5" in asked(lambda folder: elsewhere(folder / "latents.h5ad", "link"))


def test_a_run_that_may_not_be_written_to_can_be_asked(tiny):
    before = {path: path.stat().st_mtime_ns for path in tiny[1].rglob("*")}
    Run(tiny[1]).open("pca"), read_run(tiny[1]), load_model(tiny[1] / "models" / "pca")
    assert {path: path.stat().st_mtime_ns for path in tiny[1].rglob("*")} == before


def test_resuming_what_is_damaged_or_not_there(tiny, tmp_path, monkeypatch, capsys):
    world, run = tiny
    says = lambda *_, **how: (
        run_pipeline(world, tmp_path / "again", RunConfig(**TINY), jobs=1, progress=True, **how),
        capsys.readouterr().err,
    )[1]
    monkeypatch.setattr(
        cpvae.run.pipeline, "write_report", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        says(resume=True)
    assert "nothing is left of an earlier run to resume; starting anew" in capsys.readouterr().err
    part = tmp_path / ".again.part"
    # the model and its shuffled control are small, and trained together
    [checkpoint] = (part / "checkpoints").iterdir()
    assert (part / "tables").is_dir()
    # a weight, which no format notices
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9] + b"x" + checkpoint.read_bytes()[-8:])
    monkeypatch.setattr(cpvae.run.pipeline, "write_report", lambda folder: None)
    assert "vanilla-False+vanilla-True: its checkpoint is damaged; this fit starts anew" in says(
        resume=True
    )
    assert fingerprint(tmp_path / "again") == fingerprint(run) and not part.exists()
    assert "nothing to resume" in says(resume=True)
    (tmp_path / "again" / "latents.h5ad").write_bytes(b"lost")
    assert not cpvae.run.pipeline._is_finished(
        tmp_path / "again", json.loads((run / "run.json").read_text())["plan"]
    )
    part.mkdir()
    for plan in ("{", "[]", "", "[" * 50_000):
        (part / "plan.json").write_text(plan)
        assert cpvae.run.folder._left(tmp_path / "again") is None


def test_a_damaged_search_is_refused(tmp_path):
    rng, about = random.Random(2), {"data": "x"}
    open_study(tmp_path / "good.log", about)
    whole = (tmp_path / "good.log").read_bytes()
    for _ in range(40):
        (tmp_path / "bad.log").write_bytes(damaged(whole, rng))
        try:
            open_study(tmp_path / "bad.log", about)
        except ValueError as error:
            assert "bad.log" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"x": 1}', '{"x": {"files": []}}', "[" * 50_000, b"\xff\xfe"]
)
def test_a_damaged_registry_is_refused(text, tmp_path, monkeypatch):
    (tmp_path / "mine.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("CPVAE_REGISTRY", str(tmp_path / "mine.json"))
    with pytest.raises(CpvaeError, match=r"mine\.json"):
        known_datasets()


# ---- commands and where they are started ---------------------------------------------------------


def started(*arguments, python=(), **how):
    "The command in a process of its own, as a module."
    return subprocess.run(
        [sys.executable, *python, "-m", "cpvae", *map(str, arguments)],
        capture_output=True,
        text=True,
        **how,
    )


def test_the_package_is_a_command():
    done = started("--help")
    assert done.returncode == 0 and "Usage: cpvae [OPTIONS]" in done.stdout
    done = started("run", "simulated", python=["-OO"])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (
        2,
        "",
        1,
    ) and "-OO" in done.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_loses_nothing(tiny):
    run = tiny[1]
    with subprocess.Popen(
        [sys.executable, "-m", "cpvae", "screen", str(run), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)
    kept = run / "predictions" / "screen" / "screen.csv"
    assert len(kept.read_text(encoding="utf-8").splitlines()) > 30


@pytest.mark.skipif(sys.platform == "win32", reason="no shell to close streams with")
@pytest.mark.parametrize(
    "redirect, code, says",
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 2, "No space left"),
    ],
)
def test_streams_that_are_closed_or_full(redirect, code, says, tmp_path):
    if "full" in redirect and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    good_input.csv(tmp_path)
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m cpvae info bad.csv {redirect}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == code
        and says in done.stderr
        and len(done.stderr.splitlines()) == bool(says)
    ), done.stderr


def test_letters_that_a_terminal_lacks(tmp_path):
    good_input.csv(tmp_path, good_input.good().replace({"Metadata_moa": {"a": "β"}}))
    done = started(
        "info",
        "bad.csv",
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error", "COLUMNS": "20"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name",
    [
        "a b.csv",
        "new\nline.csv",
        "p%20[x]{y}.csv",
        "größe.csv",
        "x" * 240 + ".csv",
        "~.csv",
        "'q\".csv",
    ],
)
def test_names_of_files(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good_input.csv(tmp_path, name=name)
    good_input.h5ad(tmp_path, good_input.adata(), Path(name).with_suffix(".h5ad").name)
    for path in (name, Path(name).with_suffix(".h5ad")):
        done = good_input.cli("info", path)
        assert done.exit_code == 0, done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name is Unicode there")
def test_a_name_that_is_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"bad\xff.csv")
    good_input.csv(tmp_path, name=name)
    good_input.refused(good_input.cli("info", name), "not UTF-8")
    with pytest.raises(CpvaeError, match="not UTF-8"):
        cpvae.run.folder.check_destination(tmp_path / name)


def test_a_link_to_a_run_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert cpvae.run.folder.check_destination(tmp_path / "link") == (tmp_path / "there").resolve()


def test_a_home_that_may_not_be_written_to(tmp_path, monkeypatch):
    from cpvae.cli.commands import _somewhere_to_cache

    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with _somewhere_to_cache():
        assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    with _somewhere_to_cache():
        assert (
            os.access(os.environ["NUMBA_CACHE_DIR"], os.W_OK)
            and os.environ["MPLCONFIGDIR"] == os.environ["NUMBA_CACHE_DIR"]
        )
        folder = os.environ["NUMBA_CACHE_DIR"]
    assert not Path(folder).exists()
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "error, says",
    [
        (MemoryError("Unable to allocate 5 TiB"), "memory ran out"),
        (type("TerminatedWorkerError", (Exception,), {})("x"), "--jobs 1"),
    ],
)
def test_want_of_memory_is_no_defect(error, says, capsys):
    import typer

    from cpvae.cli.refusing import refusing

    with pytest.raises(typer.Exit) as ended, refusing():
        raise error
    assert ended.value.exit_code == 2 and says in capsys.readouterr().err


def test_an_interrupt_that_a_library_wraps_is_an_interrupt(capsys):
    import typer

    from cpvae.cli.refusing import refusing

    with pytest.raises(typer.Exit) as ended, refusing(interrupted="go on"):
        try:
            raise KeyboardInterrupt(15)
        except KeyboardInterrupt as error:
            raise ImportError("half imported") from error
    assert ended.value.exit_code == 143 and capsys.readouterr().err == "cpvae: interrupted; go on\n"


def test_an_end_that_takes_too_long_is_cut_short_with_the_same_line(capfd, monkeypatch):
    import typer

    from cpvae.cli import refusing as cli

    left = []
    monkeypatch.setattr(cli, "_leave", left.append)
    with cli.refusing(interrupted="go on"):
        cli._overdue(143)  # what the timer does
    assert left == [143] and capfd.readouterr().err == "cpvae: interrupted; go on\n"
    with pytest.raises(typer.Exit), cli.refusing(interrupted="go on"):
        raise KeyboardInterrupt(15)
    cli._overdue(143)  # the line has been said, and something else took long
    assert capfd.readouterr().err == "cpvae: interrupted; go on\n"
