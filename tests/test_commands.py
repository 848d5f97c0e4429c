"""What the commands say: of a finished run, of tables that lack something, of how far they are; and
to whom.
"""

import contextlib
import html
import io
import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from sklearn.decomposition import PCA
from running import cli

from cpvae.errors import CpvaeError
from cpvae.io.write import write_profiles
from cpvae.profiles.pairs import describe_profiles
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from rebuilt import feature_table
from cpvae.model.fits import fit_many
from cpvae.latents.associate import association_table
from cpvae.latents.traverse import traversal_table
from cpvae.lsa.space import latent_space, average_wells
from cpvae.model.presets import make_vae
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig, prepare
from cpvae.preparation.normalise import consensus_profiles, normalize_profiles
from cpvae.run.record import write_record
from cpvae.run.report import choose_model, write_report
from cpvae.lsa.table import arithmetic
from cpvae.screening.predict import moved_features, predicted_state, summarize_moves
from cpvae.screening.screen import screen
from cpvae.tune.curves import weight_curve
from cpvae.tune.search import tune

A, B = "simulated mechanism 02", "simulated mechanism 04"


def little_world():
    "Simulated profiles with everything that a table may say, in columns of their own."
    world = simulate_profiles(seed=0, n_mechanisms=4, n_pairs=3, n_features=20, n_maps=2)
    treated = ~world.obs.is_control.to_numpy(bool)
    del world.uns["truth"]
    told = {
        "time": 24.0,
        "cell": "U2OS",
        "cell_count": np.linspace(1, 2, world.n_obs),
        "target": np.where(treated, "P1|P2", ""),
        "scaffold": np.where(treated, "ring", ""),
    }
    world.obs = world.obs.assign(**told)
    world.var = world.var.assign(symbol=[f"S{i}" for i in range(world.n_vars)])
    return world


@pytest.fixture(scope="module")
def finished(tmp_path_factory, no_figures):
    "A finished run of three models, and what was said meanwhile on stdout and stderr."
    config = RunConfig(
        models=("vanilla", "mmd", "pca"),
        n_permutations=100,
        vae=dict(steps=60, hidden_layer_sizes=(16,)),
    )
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        folder = run_pipeline(
            little_world(), tmp_path_factory.mktemp("little") / "run", config, jobs=1, progress=True
        )
    return folder, out.getvalue(), err.getvalue()


# ---- what a table may lack -----------------------------------------------------------------------

OBS = ["moa", "dose", "time", "plate", "well", "cell", "cell_count", "target", "scaffold"]
VAR = ["compartment", "channel", "feature_group", "symbol"]
EVERYTHING = [("obs", OBS[1:]), ("var", VAR)]


def without(profiles, lacking):
    "Profiles without some columns."
    profiles = profiles.copy()
    for where, columns in lacking:
        setattr(
            profiles,
            where,
            getattr(profiles, where).drop(
                columns=[c for c in columns if c in getattr(profiles, where)]
            ),
        )
    return profiles


def sealed(run):
    "The record of a run whose files were exchanged on purpose, made anew."
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    write_record(
        run, {key: value for key, value in record.items() if key not in ("files", "sha256")}
    )


@pytest.fixture(scope="module")
def stored(finished):
    return read_h5ad(finished[0] / "latents.h5ad")


@pytest.mark.parametrize(
    "lacking",
    [*([("obs", [c])] for c in OBS), *([("var", [c])] for c in VAR), EVERYTHING],
    ids=lambda lacking: "-".join(lacking[0][1]),
)
def test_each_annotation_may_be_absent(lacking, finished, stored, tmp_path):
    "Of profiles before a run, and of a run's own."
    raw = without(little_world(), lacking)
    run = tmp_path / "run"
    no_mechanism = lacking[0][1] == ["moa"]
    profiles = prepare(raw, RunConfig(models=("pca",)))
    assert (
        describe_profiles(raw)["compounds"] == 22
        and normalize_profiles(raw).shape[0] == raw.n_obs
        and len(consensus_profiles(raw, "mean"))
    )
    model = PCA(3).fit(profiles.layers["scaled"])
    assert (
        len(traversal_table({"pca": model}, profiles)) == 3 * profiles.n_vars
        and len(feature_table(profiles.X, profiles.X, profiles.var)) == profiles.n_vars
    )
    association_table(model.transform(profiles.layers["scaled"]), profiles, 19)
    shutil.copytree(finished[0], run)
    write_profiles(without(stored, lacking), run / "latents.h5ad")
    sealed(run)
    if no_mechanism:
        with pytest.raises(CpvaeError, match="no compound has a mechanism"):
            arithmetic({"pca": model}, profiles, 100)
        named = Run(run)
        for ask in (lambda: named.predict(A, B), named.screen, named.rank_pairs):
            with pytest.raises(CpvaeError, match="`moa_table=`"):
                ask()
    else:
        assert len(arithmetic({"pca": model}, profiles, 100)[0])
        code, out, err = cli("predict", run, "--a", A, "--b", B, "--model", "pca")
        assert (code, err) == (0, "") and "Nearest compounds" in out
        assert ("By compartment and channel" in out) == ("compartment" not in lacking[-1][1])
        assert screen(average_wells(profiles), n_draws=999).compound.nunique() == 22
    code, out, err = cli("info", run)
    assert (code, err) == (0, "") and (A in out.split("never alone")[0]) != no_mechanism


@pytest.mark.slow
def test_a_bare_table_goes_from_run_to_screen(tmp_path, no_figures):
    "Compounds, mechanisms, controls and features, and nothing else; and told to be quiet."
    write_profiles(without(little_world(), EVERYTHING), tmp_path / "bare.h5ad")
    run = tmp_path / "run"
    told = cli(
        "run",
        tmp_path / "bare.h5ad",
        "--models",
        "pca",
        "--permutations",
        100,
        "--jobs",
        1,
        "--out",
        run,
        "--quiet",
    )
    assert told == (0, f"report: {run / 'report.html'}\n", "")
    assert "Arithmetic: A − D + B" in write_report(run).read_text(encoding="utf-8")
    assert len(pd.read_csv(run / "tables" / "lsa.csv").pair.unique()) == 3
    for command in (
        ["predict", run, "--a", A, "--b", B],
        ["screen", run, "--quiet"],
        ["rank-pairs", run, "--quiet"],
        ["info", run],
    ):
        code, out, err = cli(*command)
        assert (code, err) == (0, "") and len(out.splitlines()) > 5, command


def test_stains_that_are_not_the_usual_five(tmp_path):
    "A plate stained for actin and tubulin: compartments are known, channels are not."
    world = little_world()
    world.var_names = [
        re.sub("_(DNA|ER|RNA|AGP|Mito)(?=_|$)", "_CorrActin", name) + f"_{i}"
        for i, name in enumerate(world.var_names)
    ]
    write_profiles(without(world, [("var", VAR)]), tmp_path / "actin.parquet")
    code, out, err = cli("info", tmp_path / "actin.parquet")
    assert (code, err) == (0, "") and "Cells: " in out
    profiles = prepare(read_profiles(tmp_path / "actin.parquet"), RunConfig(models=("pca",)))
    assert set(profiles.var.channel) == {""} and set(profiles.var.compartment) > {"Cells"}
    model, measured = PCA(3).fit(profiles.layers["scaled"]), average_wells(profiles)
    state = predicted_state(latent_space(model, measured), A, B)
    summary = summarize_moves(moved_features(measured, state, n=None))
    assert (
        set(summary.compartment) == set(profiles.var.compartment)
        and summary.features.sum() == profiles.n_vars
    )


# ---- why there is no pair ------------------------------------------------------------------------


def kept(world, rows):
    return world[np.asarray(rows)].copy()


def test_info_says_why_there_is_no_pair(tmp_path):
    world, moa = little_world(), little_world().obs.moa
    both = sorted(m for m in moa.unique() if "|" in m)
    partner = both[0].split("|")[0]
    cases = {
        "alone": (
            kept(world, ~moa.str.contains("|", regex=False)),
            "no compound has exactly two mechanisms",
        ),
        "partners": (
            kept(world, (moa == "") | moa.isin(both)),
            (
                f"{both[0]}: no compound has '{partner}' alone, none '{both[0].split('|')[1]}'"
                " alone (both: "
            ),
        ),
        "partner": (
            kept(world, moa != partner),
            f"{both[0]}: no compound has '{partner}' alone (both: ",
        ),
        "nobody": (
            without(world, [("obs", ["moa", "Metadata_moa"])]),
            "no compound has a mechanism; give a column of them (--moa-column) or a table (--moa)",
        ),
    }
    for name, (table, says) in cases.items():
        write_profiles(table, tmp_path / f"{name}.h5ad")
        code, out, err = cli("info", tmp_path / f"{name}.h5ad")
        assert (code, err) == (0, "") and says in out, (name, out)
        named = {
            c
            for line in out.splitlines()
            if "(both: " in line
            for c in line.split("(both: ")[1].rstrip(")").split(", ")
        }
        assert named <= set(table.obs.compound), "they are compounds with both"
    # the other pairs are whole
    assert "No evaluable pair" not in cli("info", tmp_path / "partner.h5ad")[1]


def test_a_pair_that_is_never_whole_at_one_time():
    world = little_world()
    single = [m for m in world.obs.moa.unique() if m and "|" not in m]
    world.obs["time"] = np.where(
        world.obs.moa.isin(single), 48.0, np.where(world.obs.moa == "", np.nan, 24.0)
    )
    profiles = prepare(world, RunConfig(models=("pca",)))
    assert len(describe_profiles(profiles)["evaluable pairs"]) == 3
    with pytest.raises(
        CpvaeError,
        match=(
            "No evaluable pair of mechanisms at 48 h, the time that covers most compounds: no"
            " compound has exactly two mechanisms"
        ),
    ):
        arithmetic({"pca": PCA(3).fit(profiles.layers["scaled"])}, profiles, 100)


def test_the_report_says_which_partner_is_missing(tmp_path, no_figures):
    world = little_world()
    lonely = kept(world, (world.obs.moa == "") | world.obs.moa.str.contains("|", regex=False))
    run = run_pipeline(lonely, tmp_path / "run", RunConfig(models=("pca",)), jobs=1)
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    section = lambda name: page.split(f'<section id="{name}"')[1].split("</section>")[0]
    assert not (run / "tables" / "lsa.csv").exists() and json.loads((run / "run.json").read_text())[
        "no_pair"
    ].startswith("No evaluable pair")
    assert (
        "No pair to test" in section("answer")
        and "no compound has 'simulated mechanism 0" in section("pairs")
        and "(both: simulated compound" in section("pairs")
    )
    code, out, err = cli("predict", run, "--a", A, "--b", B)
    assert (code, out, len(err.splitlines())) == (2, "", 1) and "--moa" in err
    assert "No evaluable pair" in cli("info", run)[1]


# ---- which model answers -------------------------------------------------------------------------


def asked(run, *more):
    "The line of `predict` that names its predictor."
    code, out, err = cli("predict", run, "--a", A, "--b", B, *more)
    assert (code, err) == (0, ""), err
    return out.splitlines()[0]


@pytest.mark.slow
def test_predict_asks_what_the_run_chose(finished, tmp_path):
    "The first row of choice.csv, whatever models the run has; without that table, the pairs."
    run = shutil.copytree(finished[0], tmp_path / "run")
    path = run / "tables" / "choice.csv"
    choice = pd.read_csv(path)
    assert choice[["predictor", "how", "n_pairs"]].to_numpy().tolist() == [
        ["calibrated_sum", "borrowed", 3]
    ]
    assert asked(run).startswith(f"{A} + {B}: calibrated sum, its length, 0.67 of the sum, is borr")
    as_told = Run(run).predict(A, B)
    row = choice.assign(predictor="regressed", how="chosen", evidence="measured", n_pairs=40)
    row = row.assign(skill=0.5, low=0.4, high=0.6, gain=0.2, gain_low=0.1, gain_high=0.3)
    row.to_csv(path, index=False)
    sealed(run)
    assert "ridge, chosen among 1 by 40 pairs" in asked(run) and "20 points more" in asked(run)
    other = Run(run).predict(A, B)
    assert other.state.name == "regressed" and not np.allclose(other.state, as_told.state)
    path.unlink()
    sealed(run)
    assert Run(run).predict(A, B).state.equals(as_told.state)
    for name, shown in {"vanilla": "vanilla VAE", "mmd": "MMD-VAE", "pca": "PCA"}.items():
        assert asked(run, "--model", name) == f"{A} + {B}: {shown}, as asked"
        both = asked(run, "--model", name, "--predictor", "calibrated_sum")
        assert both == f"{A} + {B}: calibrated sum, {shown}, as asked"


@pytest.mark.slow
def test_a_run_opens_the_model_that_came_nearest(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    path = run / "tables" / "lsa.csv"
    lsa = pd.read_csv(path)
    best = lsa[lsa.model.isin(["vanilla", "mmd", "pca"])].groupby("model").l2.mean().idxmin()
    assert choose_model(run)[0] == Run(run).open()[0] == best
    for name in ("vanilla", "mmd", "pca"):
        lsa.assign(l2=lsa.l2.where(lsa.model != name, 0.125)).to_csv(path, index=False)
        sealed(run)
        assert Run(run).open()[0] == name
        assert "nearest to the truth over 3 pairs of this run: mean L2 0.1" in choose_model(run)[1]
    path.unlink()
    sealed(run)
    held = (
        pd.read_csv(run / "tables" / "reconstruction.csv")
        .query("split == 'test' and not shuffled and model != 'mean'")
        .set_index("model")
        .fvu
    )
    name, why = choose_model(run)
    assert name == held.idxmin()
    assert "no pair was scored, and it rebuilds held-out profiles best: FVU" in why


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("MMD-VAE", "mmd"),
        ("mmd-vae", "mmd"),
        ("mmd", "mmd"),
        ("Vanilla VAE", "vanilla"),
        ("VANILLA", "vanilla"),
        ("PCA", "pca"),
    ],
)
def test_a_model_goes_by_the_names_that_are_shown(name, model, finished):
    assert Run(finished[0]).open(name)[0] == model


def test_a_model_that_is_not_there(finished):
    for name, says in {
        "mmd vea": "did you mean 'MMD-VAE'?",
        "beta": "there are vanilla, mmd, pca, vanilla VAE, MMD-VAE",
        "": "there are",
    }.items():
        code, out, err = cli("predict", finished[0], "--a", A, "--b", B, "--model", name)
        assert (code, out, len(err.splitlines())) == (2, "", 1) and says in err, err


def test_info_of_a_run(finished, stored):
    code, out, err = cli("info", finished[0])
    assert (code, err) == (0, "")
    alone = stored.obs[~stored.obs.is_control].groupby("moa", observed=True)["compound"].nunique()
    for moa in (m for m in alone.index if m and "|" not in m):
        others = sum(n for label, n in alone.items() if "|" in label and moa in label.split("|"))
        assert (
            re.search(
                rf"^ *(mechanisms for A and B.*\n)? *{moa}: {alone[moa]} compounds alone,"
                rf" {others} more with others$",
                out,
                re.MULTILINE,
            )
            or not others
        )
    for line in (
        "vanilla VAE: --model vanilla",
        "MMD-VAE: --model mmd",
        "PCA: --model pca",
        f"report {' ' * 20}{finished[0] / 'report.html'}".replace("report  ", "report"),
    ):
        assert re.sub(" +", " ", line) in re.sub(" +", " ", out), line
    assert "a pair is predicted by" in out and re.search(r"pairs scored +3\n", out)


# ---- new profiles through a finished run ---------------------------------------------------------


def as_table(profiles):
    "The CSV that a lab would send: raw features and what is known of each well."
    return pd.DataFrame(profiles.X, columns=profiles.var_names).assign(
        Metadata_compound=profiles.obs["compound"].to_numpy(),
        Metadata_Plate=profiles.obs["plate"].to_numpy(),
        Metadata_dose_uM=profiles.obs["dose"].to_numpy(),
    )


def test_transform_gives_the_codes_that_the_run_has(finished, stored, tmp_path):
    new = as_table(stored).sample(frac=1, axis=1, random_state=0).assign(Cells_Never_Seen=1.5)
    new.sample(frac=1, random_state=1).to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "deep" / "codes.csv"
    code, told, err = cli("transform", finished[0], tmp_path / "new.csv", "--out", out)
    assert (code, err) == (0, ""), err
    assert told.rstrip().endswith(f"codes of {stored.n_obs:,} profiles: {out}")
    codes = pd.read_csv(out).loc[new.sample(frac=1, random_state=1).index.argsort()]
    for name in ("vanilla", "mmd", "pca"):
        z = codes[[f"{name}_{i}" for i in range(stored.obsm[f"X_{name}"].shape[1])]]
        assert np.allclose(z, stored.obsm[f"X_{name}"], rtol=1e-4, atol=1e-4)
    assert codes["compound"].tolist() == stored.obs["compound"].tolist()
    _, pca, own = Run(finished[0]).open("pca")
    error = ((own.layers["scaled"] - pca.inverse_transform(own.obsm["X_pca"])) ** 2).mean(1)
    assert np.allclose(codes["error_pca"], error, rtol=1e-3)


def test_transform_takes_few_wells_in_which_a_feature_does_not_vary(finished, stored, tmp_path):
    order = (
        as_table(stored)
        .drop_duplicates("Metadata_compound")
        .sort_values("Metadata_compound", key=lambda c: c != "DMSO")
    )
    few = order[:3].assign(**{stored.var_names[0]: 0.25})
    few.to_csv(tmp_path / "few.csv", index=False)
    code, _, err = cli(
        "transform",
        finished[0],
        tmp_path / "few.csv",
        "--model",
        "PCA",
        "--out",
        tmp_path / "codes.csv",
    )
    assert (code, err) == (0, ""), err
    scaled = stored.layers["scaled"][few.index].copy()
    scaled[:, 0] = np.clip(
        (0.25 - stored.var["center"].iloc[0]) / stored.var["scale"].iloc[0], -10, 10
    )
    found = pd.read_csv(tmp_path / "codes.csv")
    assert np.allclose(
        found.filter(regex=r"^pca_\d"), Run(finished[0]).open("pca")[1].transform(scaled), atol=1e-4
    )
    assert not found.columns.str.startswith(("vanilla", "mmd")).any()


def test_transform_names_the_plate_that_is_unlike_the_others(finished, stored, tmp_path):
    new = as_table(stored)
    far = new["Metadata_Plate"] == new["Metadata_Plate"].iloc[0]
    new.loc[far, list(stored.var_names)] += 8 * stored.var["scale"].to_numpy(np.float32)
    new.to_csv(tmp_path / "new.csv", index=False)
    code, told, err = cli(
        "transform",
        finished[0],
        tmp_path / "new.csv",
        "--model",
        "pca",
        "--out",
        tmp_path / "codes.csv",
    )
    assert (code, err) == (0, ""), err
    plates, first = stored.obs["plate"].nunique(), new["Metadata_Plate"].iloc[0]
    assert told.count("badly") == 1
    assert f"PCA rebuilds 1 of {plates} plates badly: {first}; " in told
    assert pd.read_csv(tmp_path / "codes.csv")["far_pca"].tolist() == far.tolist()


def test_transform_refuses_what_it_cannot_encode(finished, stored, tmp_path):
    new, out = as_table(stored), tmp_path / "codes.csv"
    new.drop(columns=[*stored.var_names[:2]]).to_csv(tmp_path / "lacks.csv", index=False)
    new.to_csv(tmp_path / "new.csv", index=False)
    ask = lambda name, *more: cli("transform", finished[0], tmp_path / name, "--out", out, *more)
    code, told, err = ask("lacks.csv")
    assert (code, told, len(err.splitlines())) == (2, "", 1) and not out.exists()
    assert (
        f"lack 2 of the run's {stored.n_vars} features: {stored.var_names[0]},"
        f" {stored.var_names[1]}" in err
    )
    assert ask("new.csv", "--model", "gan")[0] == 2 and not out.exists()
    out.write_text("my notes")
    assert ask("new.csv")[:2] == (2, "") and out.read_text() == "my notes"


def test_predict_writes_the_predicted_profile(finished, stored, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    code, told, err = cli("predict", run, "--a", A, "--b", B, "--model", "pca")
    state = Path(told.splitlines()[-1].partition(": ")[2]) / "profile.csv"
    assert (code, err) == (0, "") and state.parent.parent == run / "predictions"
    table = pd.read_csv(state)
    assert list(table) == ["feature", "scaled", "raw"] and table["feature"].tolist() == list(
        stored.var_names
    )
    assert np.allclose(
        table["raw"],
        table["scaled"] * stored.var["scale"].to_numpy() + stored.var["center"].to_numpy(),
        rtol=1e-6,
    )
    measured, model = average_wells(stored), Run(finished[0]).open("pca")[1]
    by_hand = predicted_state(latent_space(model, measured), A, B)
    assert np.allclose(table["scaled"], by_hand, atol=1e-6)


def test_a_folder_that_is_no_run_is_told_in_one_way(tmp_path):
    (tmp_path / "thesis").mkdir()
    told = {
        cli(*command)
        for command in (
            ["predict", tmp_path / "thesis", "--a", A, "--b", B],
            ["screen", tmp_path / "thesis"],
            ["rank-pairs", tmp_path / "thesis"],
        )
    }
    with pytest.raises(CpvaeError) as caught:
        write_report(tmp_path / "thesis")
    assert told == {(2, "", f"cpvae: {caught.value}\n")}
    with pytest.raises(CpvaeError, match="not a run folder"):
        Run(tmp_path / "thesis").open()
    code, out, err = cli("info", tmp_path / "thesis")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


# ---- how far it is -------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    "A window in which no name is cut."
    monkeypatch.setenv("COLUMNS", "160")


def told(screen, work):
    "What some work says on stderr; nothing on stdout."
    with (
        contextlib.redirect_stderr(screen),
        contextlib.redirect_stdout(io.StringIO()) as out,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        work()
    assert out.getvalue() == ""
    return screen.getvalue()


def test_a_run_tells_its_stages_on_stderr(finished):
    _, out, err = finished
    assert out == ""
    stages = [
        "fitting 3 models and 3 shuffled controls (262 profiles)",
        "measuring reconstruction and arithmetic, drawing the map",
        "drawing figures and writing the report",
    ]
    assert [
        line for line in err.splitlines() if not re.fullmatch(r"done in \d+ (s|min \d+ s)", line)
    ] == stages
    assert len(err.splitlines()) == 6


X = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
SMALL = dict(hidden_layer_sizes=(4,), n_latent=2, steps=20)


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (
            lambda progress: fit_many(
                {k: make_vae("vanilla", random_state=k, **SMALL) for k in range(3)},
                X,
                X,
                shuffled=[2],
                jobs=1,
                progress=progress,
            ),
            "fitting 2 models and 1 shuffled control (60 profiles)",
        ),
        (
            lambda progress: weight_curve(
                X, X, [0.1, 1], preset="recommended", seeds=[0], jobs=1, progress=progress, **SMALL
            ),
            "fitting 2 models (60 profiles)",
        ),
        (
            lambda progress: tune(X, X, trials=2, jobs=1, progress=progress, **SMALL),
            "2 trials of settings (60 profiles)",
        ),
        (
            lambda progress: make_vae("vanilla", random_state=0, progress=progress, **SMALL).fit(X),
            "training for 20 epochs at most (60 profiles)",
        ),
    ],
    ids=["fits", "curve", "trials", "epochs"],
)
def test_long_work_says_how_far_it_is(work, says):
    assert told(io.StringIO(), lambda: work(False)) == told(Terminal(), lambda: work(False)) == ""
    assert re.fullmatch(
        re.escape(says) + r"\ndone in \d+ s\n", told(io.StringIO(), lambda: work(True))
    )
    assert re.search(
        re.escape(says) + r": +\d+%\|.*\| \d/\d+ \[\d\d:\d\d<", told(Terminal(), lambda: work(True))
    )


def test_one_fit_at_a_time_shows_its_epochs():
    models = {"one": make_vae("vanilla", random_state=0, **SMALL)}
    fitted = {}
    screen = told(Terminal(), lambda: fitted.update(fit_many(models, X, X, jobs=1, progress=True)))
    assert (
        "fitting 1 model (60 profiles)" in screen
        and "training for" in screen
        and "epoch/s" in screen
    )
    plain = fit_many(models, X, X, jobs=1)
    assert (
        fitted["one"].get_params() == plain["one"].get_params()
        and fitted["one"].transform(X).tobytes() == plain["one"].transform(X).tobytes()
    )


def test_permutations_and_the_screen_say_how_far_they_are(stored):
    model = PCA(3).fit(stored.layers["scaled"])
    for work, says in (
        (
            lambda progress: arithmetic({"pca": model}, stored, 100, progress=progress),
            "testing 3 pairs against 100 relabellings each",
        ),
        (
            lambda progress: screen(average_wells(stored), n_draws=999, progress=progress),
            "comparing 22 compounds with 4 mechanisms",
        ),
    ):
        assert says not in told(Terminal(), lambda work=work: work(False))
        assert re.search(
            re.escape(says) + r": +\d+%\|.*<", told(Terminal(), lambda work=work: work(True))
        )
        assert told(io.StringIO(), lambda work=work: work(True)).startswith(says + "\ndone in")


# ---- models of one's own -------------------------------------------------------------------------

MINE = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import FastICA


def ICA():
    return FastICA(4, whiten="unit-variance", max_iter=1000)


class Turned(TransformerMixin, BaseEstimator):
    "The features, turned at random: an exact inverse, so sums are sums of features."

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        rng = np.random.default_rng(self.random_state)
        self.turn_ = np.linalg.qr(rng.normal(size=(X.shape[1], X.shape[1])))[0]
        return self

    def transform(self, X):
        return X @ self.turn_

    def inverse_transform(self, Z):
        return Z @ self.turn_.T


class Half:
    "The mean of A and B, of compounds that carry one mechanism."

    def fit(self, space, without=()):
        self.space = space
        return self

    def predict(self, pairs):
        mean = lambda which: self.space.group_mean([getattr(p, which) for p in pairs])
        return (mean("in_a") + mean("in_b")) / 2


class Flat(Half):
    def predict(self, pairs):
        return super().predict(pairs)[0]
"""


@pytest.fixture(scope="module")
def of_ones_own(tmp_path_factory, no_figures):
    "A run of PCA and two transformers of one's own, by two processes; and their file."
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MINE)
    mine = f"{folder}/mine.py"
    models = ("pca", f"{mine}:ICA", f"{mine}:Turned")
    asked = (f"{mine}:Half", "regressed")
    config = RunConfig(models=models, predictors=asked, n_latent=4, n_permutations=100, seed=3)
    return run_pipeline(little_world(), folder / "run", config, jobs=2), mine


def test_a_transformer_of_ones_own_goes_through_a_run(of_ones_own):
    run = Run(of_ones_own[0])
    lsa, scores = run.table("lsa"), ["l2", "cosine", "p", "p_matched", "mismatch_r"]
    assert run.models == ("pca", "ICA", "Turned") and {*run.models} < {*lsa["model"]}
    rows = {name: lsa[lsa["model"] == name][scores] for name in lsa["model"].unique()}
    # ICA spans what PCA spans, and turned features add as features do
    for one, other in (("ICA", "pca"), ("Turned", "additive_input")):
        np.testing.assert_allclose(rows[one], rows[other], rtol=1e-3, atol=1e-4)
    assert not (of_ones_own[0] / "models" / "ICA").exists()
    assert "Turned" in (of_ones_own[0] / "report.html").read_text(encoding="utf-8")


def test_a_run_asks_a_model_of_ones_own_only_by_its_file(of_ones_own, tmp_path):
    folder, mine = of_ones_own
    run = Run(folder)
    assert choose_model(folder)[1] == "the only model that this run stores"
    told = run.predict(A, B, model=f"{mine}:Turned").state
    measured = average_wells(run.open()[2])
    alone = [measured.means[(measured.compounds["moa"] == m).to_numpy()].mean(0) for m in (A, B)]
    np.testing.assert_allclose(told, sum(alone) - measured.control, atol=1e-3)
    with pytest.raises(CpvaeError, match="name its file to have it fitted anew: .*mine.py:Turned"):
        run.predict(A, B, model="Turned")
    with pytest.raises(CpvaeError, match="pca of this run came from no file of yours; say pca"):
        run.predict(A, B, model=f"{mine}:pca")  # and not the run's own PCA, without a word
    (tmp_path / "mine.py").write_text(MINE + "\n")
    with pytest.raises(CpvaeError, match="not what the run was made with"):
        run.predict(A, B, model=f"{tmp_path}/mine.py:Turned")


def test_a_predictor_of_ones_own_stands_in_every_model(of_ones_own):
    run = Run(of_ones_own[0])
    lsa, scores = run.table("lsa"), ["l2", "cosine", "mismatch_r", "rank"]
    of = lambda name: lsa[lsa["model"] == name].set_index("pair")[scores[:1] + scores[2:]]
    spaces = (*run.models, "additive_input")
    for space in spaces:
        pd.testing.assert_frame_equal(of(f"Half/{space}"), of("mean_ab"))
    ridge = {space: of(f"regressed/{space}").to_numpy() for space in spaces}
    np.testing.assert_allclose(ridge["Turned"], ridge["additive_input"], rtol=1e-4, atol=1e-5)
    assert (abs(ridge["pca"] - ridge["Turned"]) > 1e-3).any()
    assert run.record["config"]["predictors"] == ["Half", "regressed"]
    assert len(run.record["config"]["own"]["Half"]["sha256"]) == 64
    page = (of_ones_own[0] / "report.html").read_text(encoding="utf-8")
    assert "Half, PCA" in page and "ridge, PCA" in page


def test_a_predictor_that_gives_another_shape_ends_the_run_in_a_line(of_ones_own, tmp_path):
    flat, half = (f"{of_ones_own[1]}:{name}" for name in ("Flat", "Half"))
    with pytest.raises(
        CpvaeError, match=r"Flat.predict gave \(\d+,\), expected \(3, \d+\): a pair"
    ):
        run_pipeline(
            little_world(), tmp_path / "run", RunConfig(models=("pca",), predictors=(flat,)), jobs=1
        )
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        CpvaeError, match="unknown predictor 'mean_ab'; .*there are calibrated_sum, proc"
    ):
        RunConfig(predictors=("mean_ab",))
    with pytest.raises(CpvaeError, match="Half names something else in tables"):
        RunConfig(models=("pca", half), predictors=(half,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def pca():\n    return 1", "pca names something else in tables"),
        ("def Own():\n    return 1", "int has no inverse_transform"),
        ("Own = 1", "unknown class or function in mine.py 'Own'"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_gives_no_model_is_refused_before_anything_else(tmp_path, text, said):
    (tmp_path / "mine.py").write_text(text)
    name = "pca" if "def pca" in text else "Own"
    with pytest.raises(CpvaeError, match=said):
        RunConfig(models=("pca", f"{tmp_path}/mine.py:{name}"))
    code, _, err = cli("run", "nowhere.csv", "--models", f"{tmp_path}/mine.py:{name}")
    assert code == 2 and "Traceback" not in err
