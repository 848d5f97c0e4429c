"""Whole runs: the demo as a user starts it, the same bytes whatever the jobs, and the rate of false
alarms where nothing is true.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from anndata import read_h5ad
from running import cli

from cpvae.errors import CpvaeError
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from cpvae.lsa.table import COLUMNS, arithmetic
from cpvae.io.write import write_profiles
from cpvae.model.fits import fit_one
from cpvae.run import folder as folder_module
from cpvae.run import preset
from cpvae.run.folder import into_place
from cpvae.run.answers import read_predictions
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig, make_model, prepare
from cpvae.run.tables import run_record

DATA = Path(os.environ.get("CPVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))
MODELS = ["vanilla", "pca"]
BASELINES = {
    "global_mean",
    "global_mean_scaled",
    "control",
    "a",
    "b",
    "stronger",
    "mean_ab",
    "additive_input",
    "mechanism_blind",
}


def cpvae(*arguments, cwd=None, **more):
    "The command as installed, in a process of its own."
    return subprocess.run(
        [Path(sys.executable).parent / "cpvae", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        **more,
    )


def fingerprint(run):
    "Hash of every table and weight of a run."
    files = sorted(p for d in ("tables", "models") for p in (run / d).rglob("*") if p.is_file())
    return {
        p.relative_to(run).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def make_demo(folder):
    "A finished demo, as a user starts it."
    # with UMAP itself
    whole = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = cpvae("demo", "--out", "results/demo", "--jobs", 1, cwd=folder, env=whole)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "report: results/demo/report.html\n"
    said = [line for line in done.stderr.splitlines() if not line.startswith("done in ")]
    assert [line.split()[0] for line in said] == ["fitting", "measuring", "drawing"], done.stderr


@pytest.fixture(scope="session")
def demo(once):
    return once("demo", make_demo) / "results" / "demo"


@pytest.mark.slow
def test_the_demo_leaves_a_whole_run_that_finds_the_truth(demo):
    assert {p.name for p in demo.iterdir()} == {
        "report.html",
        "run.json",
        "latents.h5ad",
        "models",
        "tables",
        "figures",
    }
    assert {p.name for p in (demo / "models").iterdir()} == set(MODELS)
    assert [p.name for p in demo.parent.iterdir()] == ["demo"]  # nothing temporary beside it
    reconstruction, lsa = (
        pd.read_csv(demo / "tables" / f"{t}.csv") for t in ("reconstruction", "lsa")
    )
    assert list(reconstruction) == [
        "model",
        "split",
        "shuffled",
        "n",
        "mse",
        "fvu",
        "emd_mean",
        "emd_p05",
        "emd_p95",
    ]
    assert set(reconstruction.model) == {*MODELS, "mean"}
    assert list(lsa) == list(COLUMNS) and set(lsa.model) == {*MODELS, *BASELINES}
    traversal = pd.read_csv(demo / "tables" / "traversal.csv")
    assert list(traversal) == [
        "model",
        "latent",
        "feature",
        "compartment",
        "channel",
        "contribution",
    ] and set(traversal.model) == {*MODELS}
    assert (
        traversal.contribution.notna().all()
        and not traversal.duplicated(["model", "latent", "feature"]).any()
    )

    # and it finds the truth that was simulated
    lsa = lsa.set_index("model")
    found = (lsa.q < 0.05).groupby("model").mean()
    assert found["vanilla"] >= 0.8
    held_out = (
        pd.read_csv(demo / "tables" / "reconstruction.csv")
        .query("split == 'test'")
        .set_index(["model", "shuffled"])
        .fvu
    )
    assert held_out["vanilla", False] < held_out["pca", False]
    assert all(held_out[m, True] > 0.9 for m in MODELS)
    means = lsa.groupby("model")[["l2", "delta_pearson", "mismatch_r"]].mean()
    # the state adds up where features do not
    assert means.l2["vanilla"] < means.l2["pca"] < means.l2["additive_input"]
    r = means.mismatch_r
    assert r["vanilla"] > r["pca"] > r["mechanism_blind"] + 0.5


@pytest.mark.slow
def test_jobs_change_no_byte(tmp_path, no_figures):
    world = simulate_profiles(seed=3, n_mechanisms=8, n_pairs=3, n_features=60, n_maps=3)
    small = dict(n_permutations=100, vae=dict(steps=60, hidden_layer_sizes=(32,)))
    one, two = (
        run_pipeline(world, tmp_path / str(jobs), RunConfig(seed=3, **small), jobs=jobs)
        for jobs in (1, 2)
    )
    assert fingerprint(one) == fingerprint(two) and len(fingerprint(one)) == 19
    assert (one / "latents.h5ad").read_bytes() == (two / "latents.h5ad").read_bytes()
    other = run_pipeline(world, tmp_path / "other", RunConfig(seed=4, **small), jobs=1)
    changed = {
        name for name, value in fingerprint(other).items() if value != fingerprint(one)[name]
    }
    # of three pairs no skill can be told, whatever the seed
    asked = {n for n in fingerprint(one) if n.endswith((".csv", ".safetensors"))}
    assert changed >= asked - {"tables/skill.csv", "tables/choice.csv", "tables/decoys.csv"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_false_alarms_where_nothing_is_true(seed):
    world = simulate_profiles(
        effect=0, seed=seed, n_mechanisms=40, n_pairs=250, per_mechanism=3, per_pair=1
    )
    config = RunConfig(seed=seed, vae=dict(steps=150, hidden_layer_sizes=(64,)))
    profiles = prepare(world, config)
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    models = {
        m: fit_one(make_model(m, profiles, config), x[split == "train"], x[split == "valid"])
        for m in ("beta", "pca")
    }
    lsa, _ = arithmetic(models, profiles, n_permutations=500, seed=seed)
    tested = lsa[lsa.p.notna()].groupby("model")
    assert set(tested.size()) == {250} and set(tested.groups) == {"beta", "pca", "additive_input"}
    for column in ("p", "p_matched"):
        rate = tested[column].agg(lambda p: (p < 0.05).mean())
        assert rate.between(0.02, 0.08).all(), f"{column}: {rate.to_dict()}"
    assert (tested.q.min() > 0.05).all()


AND_WHAT_IT_LOADED = """
import sys
from cpvae.cli.commands import main

try:
    main()
finally:
    heavy = {"torch", "anndata", "umap", "sklearn", "matplotlib", "pandas"}
    print(*sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("missing.csv", None, "no such file"),
        ("bare.csv", "Metadata_compound,Metadata_moa\nx,y\nz,w\n", "no feature"),
        ("hole.csv", "Metadata_compound,Cells_AreaShape_Area\nDMSO,1\nx,\ny,3\n", "--drop-na"),
        ("alone.csv", "Metadata_compound,Cells_AreaShape_Area\nx,1\ny,2\nz,3\n", "--zero-control"),
    ],
)
def test_a_refusal_is_one_line_loads_nothing_heavy_and_leaves_nothing(name, text, says, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", AND_WHAT_IT_LOADED, "run", name, "--out", "results/x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert says in done.stderr and name in done.stderr and "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    # it is quick because it loads nothing that takes seconds
    assert done.stdout.split() == ["pandas"] * (text is not None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--jobs", "0"], "1 or more"),
        (["--seed", "-1"], "--seed"),
        (["--models", "gan"], "gan"),
        (["--models", ","], "unknown model ','"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, says, tmp_path):
    done = cpvae("run", "simulated", "--out", "x", *options, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    done = cli("demo", "--out", tmp_path / "thesis")
    assert done.exit_code == 2 and "is not a run" in done.stderr
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "precious"


def test_a_lock_that_may_not_be_removed_while_it_is_held_ends_no_run(tmp_path, monkeypatch):
    "So it is on Windows."
    plain, refused = Path.unlink, []

    def unlink(path, missing_ok=False):
        if path.suffix == ".lock":
            refused.append(path)
            raise PermissionError(
                13,
                "The process cannot access the file because it is being used by another process",
                str(path),
            )
        plain(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in range(2):  # and the file that is left locks nobody out
        with into_place(tmp_path / "run", {}) as folder:
            (folder / "run.json").write_text("{}")
            with pytest.raises(CpvaeError, match="another run"), into_place(tmp_path / "run", {}):
                pass
    assert refused and (tmp_path / "run" / "run.json").is_file()


@pytest.mark.slow
def test_predict_lists_compounds_that_share_the_mechanisms(demo, tmp_path):
    pair = pd.read_csv(demo / "tables" / "lsa.csv").iloc[0]
    run = shutil.copytree(demo, tmp_path / "run")
    done = cli(
        "predict",
        run,
        "--a",
        pair.a,
        "--b",
        pair.b,
        "--model",
        "vanilla",
        "--top",
        5,
    )
    assert done.exit_code == 0, done.stderr
    near = read_predictions(run)[-1]["tables"]["nearest"]
    assert len(near) == 104 and near.cosine.is_monotonic_decreasing
    assert near.moa[0] == pair.pair  # the truth is nearest
    for heading in ("Nearest compounds", "Features that move most", "By compartment and channel"):
        assert heading in done.stdout
    top = (
        done.stdout.split("Nearest compounds")[1]
        .split("Features that move")[0]
        .strip()
        .splitlines()[2:]
    )
    assert len(top) == 5 and near.compound[0] in top[0] and (near.low <= near.high).all()
    wrong = cli("predict", demo, "--a", "simulated mechanism 1", "--b", pair.b)
    assert wrong.exit_code == 2 and "Did you mean" in wrong.stderr


@pytest.mark.slow
def test_screen_lists_candidates(demo, tmp_path):
    run = shutil.copytree(demo, tmp_path / "run")
    done = cli("screen", run, "--top", 3)
    assert done.exit_code == 0 and done.stderr.startswith("comparing 104 compounds with "), (
        done.stderr
    )
    found = read_predictions(run)[-1]["tables"]["screen"]
    assert (
        found.compound.nunique() == 104
        and found[found.known].q.isna().all()
        and found[~found.known].q.between(0, 1).all()
    )
    assert len(done.stdout.splitlines()) == 6 and "candidates" in done.stdout.splitlines()[0]


def test_a_pair_that_is_left_out_is_seen_by_nothing_that_is_fitted(tmp_path, no_figures):
    """Neither it nor its compounds train or validate, and models and scaling do not change if its
    profiles do.
    """
    world = simulate_profiles(seed=7, n_mechanisms=6, n_pairs=4, n_features=60, n_maps=2)
    pair = next(m for m in world.obs.moa.unique() if "|" in m)
    a, b = pair.split("|")
    changed = world.copy()
    changed.X[(world.obs.moa == pair).to_numpy()] += 3 * np.random.default_rng(0).normal(
        size=(int((world.obs.moa == pair).sum()), 60)
    ).astype("float32")
    small = dict(
        models=("vanilla", "pca"),
        n_permutations=200,
        vae=dict(steps=30, hidden_layer_sizes=(16,)),
        leave_out=(f"{b}|{a}",),
    )
    one, two = (
        run_pipeline(w, tmp_path / name, RunConfig(**small), jobs=1)
        for w, name in ((world, "one"), (changed, "two"))
    )
    for name in ("vanilla", "pca"):
        assert (one / "models" / name / "weights.safetensors").read_bytes() == (
            two / "models" / name / "weights.safetensors"
        ).read_bytes()
    obs = read_h5ad(one / "latents.h5ad").obs
    assert set(obs.split[obs.moa == pair]) == {"test"} and not set(
        obs.moa[(obs.split == "test") & ~obs.is_control]
    ) - {pair}
    lsa = pd.read_csv(one / "tables" / "lsa.csv").drop_duplicates("pair").set_index("pair")
    assert not lsa.in_sample[pair] and lsa.in_sample.drop(pair).all()
    strict = prepare(world, RunConfig(**small | dict(strict=True)))
    assert set(strict.obs.moa[(strict.obs.split == "test") & ~strict.obs.is_control]) >= {
        a,
        b,
        pair,
    }
    for wrong in ("mechanism 1", "a|a"):
        with pytest.raises(CpvaeError):
            prepare(world, RunConfig(leave_out=(wrong,)))


def test_the_papers_preset_runs_to_a_report(tmp_path, no_figures):
    world = simulate_profiles(seed=6, n_mechanisms=6, n_pairs=3, n_features=60, n_maps=2)
    run = run_pipeline(
        world,
        tmp_path / "run",
        RunConfig(preset="chow2022", n_permutations=200, vae=dict(epochs=5)),
        jobs=1,
    )
    config = json.loads((run / "models" / "mmd" / "config.json").read_text())["params"]
    assert (config["heads"], config["mmd_weight"], config["code"]) == ("chow2022", 1000.0, "sample")
    models = ("vanilla", "beta", "mmd", "pca")
    assert set(pd.read_csv(run / "tables" / "lsa.csv").model) == {*models, *BASELINES}


@pytest.mark.slow
@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no real profiles: set CPVAE_DATA (looked in {DATA.name}/)"
)
def test_real_morphology_is_rebuilt_better_than_by_pca():
    profiles = prepare(
        read_profiles(DATA / "cell_injury_u2os_8298x346.parquet"),
        config := RunConfig(vae=dict(steps=600)),
    )
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    train, test = x[split == "train"], x[split == "test"]
    fvu = {}
    for name in ("beta", "pca"):
        model = fit_one(make_model(name, profiles, config), train, x[split == "valid"])
        fvu[name] = ((test - model.inverse_transform(model.transform(test))) ** 2).sum() / (
            (test - train.mean(0)) ** 2
        ).sum()
    assert fvu["beta"] < 0.8 * fvu["pca"] < 0.25


@pytest.mark.slow
def test_a_killed_run_leaves_the_earlier_one(demo, tmp_path):
    earlier = tmp_path / "run"
    shutil.copytree(demo, earlier)
    process = subprocess.Popen(
        [
            Path(sys.executable).parent / "cpvae",
            "demo",
            "--out",
            earlier,
            "--jobs",
            "1",
            "--seed",
            "5",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: list(tmp_path.glob(".run.part/checkpoints/*.safetensors")), process)
    process.kill()
    process.wait()
    assert fingerprint(earlier) == fingerprint(demo)


def wait_for(happened, process, seconds=120):
    "Wait until something has happened in a running process."
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def write_small_world(path):
    "Simulated profiles as a user would have them: without the truth."
    world = simulate_profiles(seed=3, n_mechanisms=8, n_pairs=3, n_features=60, n_maps=3)
    del world.uns["truth"]
    write_profiles(world, path)
    path.with_name("settings.json").write_text(
        '{"models": {"vanilla": {"steps": 300, "hidden_layer_sizes": [64]}}}'
    )


SMALL = [
    "run",
    "small.h5ad",
    "--models",
    "vanilla,pca",
    "--params",
    "settings.json",
    "--permutations",
    100,
]
SMALL_RUN = [*SMALL, "--jobs", 2, "--quiet", "--out"]


def stopped(stop, folder, main_only=False):
    """Start a run, stop it when a checkpoint is there; its exit status, what it said, and which of
    its workers live on.
    """
    if sys.platform == "win32":
        pytest.skip("no such signals")
    # a test started in the background ignores it, and so would its children
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(folder / "stderr.txt", "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "cpvae", *map(str, SMALL_RUN), "cut"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, handler)
    wait_for(lambda: list(folder.glob(".cut.part/checkpoints/[!.]*")), process)
    workers = psutil.Process(process.pid).children(recursive=True)
    (os.kill if main_only else os.killpg)(process.pid, stop)
    status = process.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=0 if stop == signal.SIGKILL else 20)
    assert list(folder.glob(".cut.part/checkpoints/[!.]*")) and not (folder / "cut").exists()
    return status, (folder / "stderr.txt").read_text().strip(), alive


@pytest.mark.slow
def test_a_killed_run_that_is_resumed_ends_with_the_same_bytes(tmp_path, no_figures, monkeypatch):
    write_small_world(tmp_path / "small.h5ad")
    assert stopped(signal.SIGKILL, tmp_path)[0] == -9
    monkeypatch.chdir(tmp_path)
    assert cli(*SMALL_RUN, "whole", "--jobs", 1).exit_code == 0  # jobs change no byte
    other = cli(*SMALL_RUN, "cut", "--seed", 1, "--resume")
    assert other.exit_code == 2 and "seed was 0, is 1" in other.stderr
    done = cli(*SMALL_RUN, "cut", "--jobs", 1, "--resume")
    assert done.exit_code == 0, done.stderr
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir() if "cut" in p.name) == ["cut"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop, main_only", [(signal.SIGINT, False), (signal.SIGTERM, True)], ids=["ctrl-c", "kill"]
)
def test_an_interrupted_run_takes_its_workers_along_and_says_how_to_go_on(
    stop, main_only, tmp_path, no_figures
):
    "Ctrl-C goes to every process in the terminal, `kill` and `timeout` to the main one alone."
    write_small_world(tmp_path / "small.h5ad")
    assert stopped(stop, tmp_path, main_only) == (
        128 + stop,
        "cpvae: interrupted; the same command with --resume goes on where it stopped",
        [],
    )
    # no lock is left
    assert sorted(p.name for p in tmp_path.iterdir() if "cut" in p.name) == [".cut.part"]


@pytest.mark.slow
def test_two_runs_cannot_write_to_one_place(tmp_path, no_figures, monkeypatch):
    write_small_world(tmp_path / "small.h5ad")
    command = [*SMALL, "--out", "run", "--jobs", 1]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "cpvae", *map(str, command)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: (tmp_path / ".run.part").exists(), process)
    monkeypatch.chdir(tmp_path)
    second = cli(*command)
    assert second.exit_code == 2 and "another run is writing there" in second.stderr
    assert process.wait() == 0 and (tmp_path / "run" / "run.json").is_file()


def test_models_are_fitted_to_training_rows_and_judged_on_validation_rows(monkeypatch):
    config = RunConfig(models=("vanilla", "pca"))
    profiles = prepare(
        simulate_profiles(n_mechanisms=5, n_pairs=2, n_features=40, n_maps=1), config
    )
    given = {}
    keep = lambda models, x, x_valid, **how: given.update(models=models, x=x, valid=x_valid, **how)
    monkeypatch.setattr(preset, "fit_many", keep)
    preset.fit_models(profiles, config)
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    np.testing.assert_array_equal(given["x"], x[split == "train"])
    np.testing.assert_array_equal(given["valid"], x[split == "valid"])
    assert len(given["valid"]) and given["shuffled"] == [("vanilla", True), ("pca", True)]
    record = run_record(profiles, config, "by hand", {})
    assert set(record["config"]["parameters"]) == {"vanilla"}  # PCA has none of its own
    assert record["config"]["parameters"]["vanilla"]["random_state"] == config.seed


def test_an_earlier_run_comes_back_if_its_successor_cannot_stand(tmp_path, monkeypatch):
    out, part = tmp_path / "run", tmp_path / "run.part"
    for folder in (out, part):
        folder.mkdir()
        (folder / "plan.json").write_text(folder.name)
    rename = Path.rename

    def fails(path, target):
        if path == part:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no"):
        folder_module._swap(part, out)
    assert (out / "plan.json").read_text() == "run" and not (tmp_path / "run.part.old").exists()
