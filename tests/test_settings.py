"""Every parameter of a model, every setting of a run, every word a function takes and every option
of a command: tried with a wrong type, a value out of range and a near miss. What is tried follows
from the code, so that a parameter or an option without wrong values to try fails here."""

import dataclasses
import importlib
import inspect
import pkgutil
import shlex
import shutil
import typing
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA, FastICA
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from test_refusals import cli, contents, csv, good, refused

import cpvae
from cpvae.errors import CpvaeError
from cpvae.model.transformers import must_decode
from cpvae.cli.commands import app
from cpvae.model.transformers import reconstruct
from cpvae.model.fits import fit_many, fit_one
from cpvae.lsa.space import latent_space
from cpvae.model.presets import PRESETS, RIVALS, make_vae
from cpvae.model.settings import SettingError, VAESettings
from cpvae.model.store import save_model
from cpvae.model.vae import VAE, loss_parts
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import _SETTINGS, RunConfig, make_model, prepare
from cpvae.lsa.left_out import leave_pairs_out
from cpvae.tune.curves import elbo, weight_advice
from cpvae.measure.fidelity import simulate

X = np.random.default_rng(0).standard_normal((60, 6)).astype("float32")


# ---- what may be tried, from what scikit-learn calls constraints


def near_misses(words):
    "Each word without its last letter, in capitals, and with a letter twice."
    return [
        spelt
        for word in words
        for spelt in (word[:-1], word.upper(), word[0] + word)
        if spelt not in words
    ]


def wrong_values(kinds):
    "Values that no constraint of a list allows: another type, out of range, a near miss."
    found = [] if "boolean" in kinds else [True]
    found += [] if None in kinds or "random_state" in kinds else [None]
    for kind in kinds:
        if isinstance(kind, Interval):
            found += ["3", [3], float("nan"), float("inf")] + (
                [2.5] if kind.type is Integral else []
            )
            found += [kind.left - 1] + ([kind.left] if kind.closed in ("right", "neither") else [])
            found += [] if kind.right is None else [kind.right + 1]
        elif isinstance(kind, StrOptions):
            found += [3, "", ["x"], *near_misses(sorted(kind.options))]
        elif kind == "boolean":
            found += ["yes", 2, 0]
        elif kind == "random_state":
            found += ["seed", -1, 2.5, 2**32]
        elif kind in (tuple, list):
            found += ["text", 5, {"a": 1}, ()]
        elif kind is dict:
            found += ["text", 5, [1]]
        elif kind is str:
            found += [3, "", ["cpu"]]
        else:
            assert kind is None, f"no wrong values are known for {kind}"
    return [
        value for value in found if not (isinstance(value, tuple) and value == () and dict in kinds)
    ]


def right_values(kinds):
    "Values at the ends of what is allowed."
    for kind in kinds:
        if isinstance(kind, Interval):
            inside = kind.left if kind.closed in ("left", "both") else 1e-9
            yield from (
                [int(inside), np.int64(max(inside, 3))]
                if kind.type is Integral
                else [inside, int(max(inside, 1)), np.float32(1)]
            )
        elif isinstance(kind, StrOptions):
            yield from kind.options
        elif kind is None:
            yield None


VAE_KINDS = VAESettings._parameter_constraints
MORE_OF_VAE = {
    "hidden_layer_sizes": [(8, 0), (8, 2.5), (True,), ("8",), [-1]],
    "device": ["gpu", "cuda:0", "cpu:0"],
}


def one_line(error):
    "What an error says, checked for being one line that is not too long."
    text = str(error)
    assert text and "\n" not in text and len(text) < 400, text
    return text


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(VAESettings)])
def test_no_vae_is_trained_with_a_wrong_parameter(name):
    for value in wrong_values(VAE_KINDS[name]) + MORE_OF_VAE.get(name, []):
        vae = VAE(**{name: value})
        with pytest.raises(InvalidParameterError) as caught:  # a ValueError, as scikit-learn has it
            vae.fit(X)
        assert name in one_line(caught.value) and isinstance(caught.value, SettingError)
        assert not hasattr(vae, "network_") and not hasattr(vae, "n_features_in_")
        with pytest.raises(CpvaeError, match=name):
            make_vae("mmd", **{name: value})
        for own in (
            ({name: value}, {"beta": {name: value}})
            if not isinstance(value, dict)
            else [{"beta": {name: value}}]
        ):
            with pytest.raises(CpvaeError):
                RunConfig(vae=own)
    for value in right_values(VAE_KINDS[name]):
        VAE(**{name: value})._validate_params()


def test_the_constraints_are_those_of_the_fields():
    assert list(VAE_KINDS) == [f.name for f in dataclasses.fields(VAESettings)]
    assert list(_SETTINGS) == [f.name for f in dataclasses.fields(RunConfig)]
    for kinds, hints in (
        (VAE_KINDS, typing.get_type_hints(VAESettings)),
        (_SETTINGS, typing.get_type_hints(RunConfig)),
    ):
        for name, allowed in kinds.items():
            words = next(
                (set(kind.options) for kind in allowed if isinstance(kind, StrOptions)), None
            )
            literal = next(
                (
                    h
                    for h in (hints[name], *typing.get_args(hints[name]))
                    if typing.get_origin(h) is typing.Literal
                ),
                None,
            )
            assert words == (literal and set(typing.get_args(literal))), name
            numbers = {kind.type for kind in allowed if isinstance(kind, Interval)}
            assert not numbers or numbers == {
                Integral if int in (hints[name], *typing.get_args(hints[name])) else Real
            }, name


def test_a_near_miss_is_told_what_was_meant():
    for name, kinds in VAE_KINDS.items():
        for word in next(
            (sorted(kind.options) for kind in kinds if isinstance(kind, StrOptions)), ()
        ):
            with pytest.raises(SettingError, match=f"did you mean '{word}'"):
                VAE(**{name: word.upper()}).fit(X)
    with pytest.raises(
        CpvaeError, match="unknown parameter of VAE 'n_laten'; did you mean 'n_latent'"
    ):
        make_vae("vanilla", n_laten=3)
    for wrong, meant in (("mdm", "mmd"), ("Beta", "beta")):
        with pytest.raises(CpvaeError, match=f"unknown variant '{wrong}'; did you mean '{meant}'"):
            make_vae(wrong)
    with pytest.raises(CpvaeError, match="unknown preset 'chow2021'; did you mean 'chow2022'"):
        make_vae("mmd", "chow2021")


def test_parameters_that_contradict_each_other():
    with pytest.raises(SettingError, match="batch_size=2"):
        VAE(heads="chow2022", batch_size=2).fit(X[:5])
    # no batch of one profile
    VAE(heads="chow2022", batch_size=3, hidden_layer_sizes=(4,), epochs=1, n_latent=2).fit(X[:5])
    with pytest.raises(SettingError, match="patience=3"):
        VAE(patience=3, monitor="none").fit(X, X_valid=X)
    with pytest.raises(SettingError, match="patience=3 .* no validation profiles"):
        VAE(patience=3).fit(X)


# ---- a run


MORE_OF_RUN = {
    "models": [("gan",), ("vanila",), (3,), (["pca"],)],
    "predictors": [("shrank",), ("mean_ab",), ("sum",), (3,)],
    "leave_out": [("a",), ("a|",), ("a|a",), ("a|b|c",), (3,), ("a/b",)],
    "strict": [True],  # without a pair
    "vae": [
        {"n_laten": 3},
        {"beta": {"bet": 1.0}},
        {"gan": {"beta": 1.0}},
        {"beta": {"beta": "1"}},
        {"n_latent": np.int64(3)},
    ],
    "device": ["gpu", "cuad", 3],
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(RunConfig)])
def test_no_run_has_a_wrong_setting(name):
    # nothing left out, and no more predictors, are the defaults
    lists = [()] if name in ("leave_out", "predictors") else []
    for value in [v for v in wrong_values(_SETTINGS[name]) if v not in lists] + MORE_OF_RUN.get(
        name, []
    ):
        with pytest.raises(CpvaeError) as caught:
            RunConfig(**{name: value})
        one_line(caught.value)
    for value in right_values(_SETTINGS[name]):
        RunConfig(**{name: value})


def test_settings_of_one_variant_are_its_own():
    config = RunConfig(
        models=("vanilla", "beta", "pca"),
        vae=dict(steps=30, beta=dict(beta=3.0, n_latent=5)),
        seed=4,
    )
    profiles = prepare(cpvae_simulated(), config)
    vanilla, beta, pca = (make_model(name, profiles, config) for name in config.models)
    assert (vanilla.beta, vanilla.n_latent, vanilla.steps) == (1.0, 10, 30)
    assert (beta.beta, beta.n_latent, beta.steps, beta.random_state) == (3.0, 5, 30, 4)
    assert pca.n_components == 10  # as many as the largest has units
    assert (
        make_model(
            "pca", profiles, RunConfig(models=("beta", "pca"), vae=dict(beta=dict(n_latent=5)))
        ).n_components
        == 5
    )
    with pytest.raises(CpvaeError, match="unknown VAE of this run 'mmd'; there are vanilla, beta"):
        RunConfig(models=("vanilla", "beta"), vae=dict(mmd=dict(steps=3)))
    with pytest.raises(CpvaeError, match="n_latent is said twice"):
        RunConfig(n_latent=3, vae=dict(beta=dict(n_latent=5)))


def cpvae_simulated():
    from cpvae.profiles.simulate import simulate_profiles

    return simulate_profiles(seed=0, n_mechanisms=6, n_pairs=2, n_features=30, n_maps=2)


# ---- words that functions take


def public():
    "Every public class and function, by module."
    for module in pkgutil.walk_packages(cpvae.__path__, "cpvae."):
        if (
            module.ispkg
            or module.name.rpartition(".")[2].startswith("_")
            or module.name.startswith("cpvae.cli.")
        ):
            continue
        home = importlib.import_module(module.name)
        for name in home.__all__:
            thing = getattr(home, name)
            if callable(thing) and getattr(thing, "__module__", "") == home.__name__:
                yield f"{module.name}.{name}", thing


def words_of(thing):
    "Parameters that are one of a few words: name to the words."
    if inspect.isclass(thing) and issubclass(thing, (BaseEstimator, Exception)):
        return  # a constructor keeps what it is given; `fit` says what cannot be used
    hints = typing.get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    for name in inspect.signature(thing).parameters:
        hint = next(
            (
                h
                for h in (hints.get(name), *typing.get_args(hints.get(name)))
                if typing.get_origin(h) is typing.Literal
            ),
            None,
        )
        if hint and all(isinstance(word, str) for word in typing.get_args(hint)):
            yield name, typing.get_args(hint)


TAKERS = {
    f"{where} {name}": (thing, name, words)
    for where, thing in public()
    for name, words in words_of(thing)
    if where != "pipeline.RunConfig"
}


@pytest.mark.parametrize("where", TAKERS)
def test_a_function_refuses_a_near_miss_before_anything_else(where):
    thing, name, words = TAKERS[where]
    others = {n: allowed[0] for n, allowed in dict(words_of(thing)).items()}
    needed = {
        n: None
        for n, p in inspect.signature(thing).parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    }
    for word in near_misses(words)[:6]:
        with pytest.raises(CpvaeError, match="unknown") as caught:
            thing(**needed | others | {name: word})
        assert "did you mean" in one_line(caught.value), caught.value
    for wrong in (3, None, ["x"]):
        if not (wrong is None and inspect.signature(thing).parameters[name].default is None):
            with pytest.raises(CpvaeError, match="unknown"):
                thing(**needed | others | {name: wrong})


def test_there_are_words_to_try():
    assert len(TAKERS) >= 25 and {
        f"cpvae.{name}"
        for name in (
            "model.losses.bandwidth kernel",
            "lsa.nulls.null_strata null",
            "lsa.states.Protocol dose",
        )
    } <= set(TAKERS)


# ---- options of commands


@dataclasses.dataclass(frozen=True)
class Option:
    "An option of a command, as the command declares it."

    command: str
    name: str  # "--seed"
    kind: type  # what its value, or each of its values, is
    info: typer.models.OptionInfo
    default: object

    def __str__(self):
        return f"{self.command} {self.name}"


def options():
    "Every option of every command."
    for command in app.registered_commands:
        for parameter in inspect.signature(command.callback).parameters.values():
            kind, *about = typing.get_args(parameter.annotation) or [None]
            if about and isinstance(about[0], typer.models.OptionInfo):
                kind = next(
                    (
                        k
                        for k in (kind, *typing.get_args(kind))
                        if k in (bool, int, float, str, Path, list[Path], list[str])
                    ),
                    kind,
                )
                declared = [word for word in about[0].param_decls or () if word.startswith("--")]
                yield Option(
                    command.name or command.callback.__name__,
                    (declared or [f"--{parameter.name.replace('_', '-')}"])[0],
                    kind,
                    about[0],
                    parameter.default,
                )


OPTIONS = list(options())
HERE = {  # a command that is right, on a table and a run that are there
    "run": ["run", "good.csv", "--out", "results/run"],
    "info": ["info", "good.csv"],
    "demo": ["demo", "--out", "results/run"],
    "select-beta": ["select-beta", "good.csv"],
    "tune": ["tune", "good.csv"],
    "fetch": ["fetch", "moa-map"],
    "predict": ["predict", "RUN", "--a", "a", "--b", "b"],
    "screen": ["screen", "RUN"],
    "report": ["report", "RUN"],
    "rank-pairs": ["rank-pairs", "RUN"],
    "transform": ["transform", "RUN", "good.csv"],
    "score": ["score", "-ap", "good.csv", "-ar", "good.csv"],
    "benchmark": ["benchmark", "--tables", "korkut"],
}

COLUMN = [("Metadata_nowhere", "Metadata_nowhere"), ("Metadata_compuond", "Metadata_compuond")]
MISSING = [("nowhere.tsv", "no such file")]
WORDS = {  # option that takes text: wrong values, and what the line says besides the option's name
    "--preset": [
        ("3", "recommended"),
        ("recomended", "did you mean 'recommended'"),
        ("Chow2022", "did you mean 'chow2022'"),
    ],
    "--normalize": [("3", "mad_robustize"), ("standardise", "did you mean 'standardize'")],
    "--consensus": [("3", "median"), ("modzz", "did you mean 'modz'")],
    "--group-by": [("3", "moa"), ("targets", "did you mean 'target'")],
    "--weight": [("3", "lambda"), ("bta", "did you mean 'beta'")],
    "--variant": [("3", "vanilla"), ("vanila", "did you mean 'vanilla'")],
    "--models": [
        ("3", "vanilla"),
        ("pca,vanila", "did you mean 'vanilla'"),
        ("", "vanilla"),
        (",", "vanilla"),
    ],
    "--predictors": [("3", "shrunk"), ("shrunk,ridge", "regressed")],
    "--predictor": [("3", "shrunk"), ("proces", "did you mean 'process'")],
    "--device": [("3", "cpu"), ("cuad", "cuda")],
    "--grid": [
        ("many", "0.1,1,10"),
        ("-1,2", "0.1,1,10"),
        ("1;2", "0.1,1,10"),
        ("1,nan", "0.1,1,10"),
        ("1,inf", "0.1,1,10"),
    ],
    "--leave-out": [("a", "A|B"), ("a|", "A|B"), ("a|a", "A|B"), ("a|b|c", "A|B")],
    "--base-url": [("mirror", "https://"), ("htps://mirror.org", "https://")],
    "--dose-unit": [("mg/ml", "uM"), ("pM", "nM"), ("3", "uM")],
    "--moa": MISSING,
    "--profile-info": MISSING,
    "--feature-info": MISSING,
    "--predictions": MISSING,
    "--truth": [*MISSING, ("korkutt", "did you mean 'korkut'")],
    "--control-pert": [("", "a blank"), (" ", "a blank")],
    "--scale": [("3", "state"), ("efect", "did you mean 'effect'")],
    "--tables": [*MISSING, ("korkutt", "did you mean 'korkut'"), ("", "norman")],
    "score --out": [("taken.txt", "is a file"), ("scored", "is there already")],
    "benchmark --out": [("taken.txt", "is a file"), ("scored", "is there already")],
    "--params": [
        *MISSING,
        ("good.csv", "holds no settings"),
        ("typo.json", "did you mean 'n_latent'"),
        ("value.json", "[0.0, inf)"),
        ("other.json", "chow2022"),
    ],
    "run --out": [("taken.txt", "not a run"), ("thesis", "not a run"), ("demo", "cpvae demo")],
    "demo --out": [("taken.txt", "not a run"), ("thesis", "not a run"), ("run", "cpvae run")],
    "select-beta --out": [
        ("taken.txt", ".csv"),
        ("taken.csv", "is there already"),
        ("trials.csv", "is there already"),
        ("beside.csv", "beside.png"),
        ("odd.csv", "odd.json"),
    ],
    "tune --storage": [
        ("taken.csv", ".csv"),
        ("taken.txt", "is there already"),
        ("taken.log", "is there already"),
        ("curve.log", "curve.csv"),
    ],
    "transform --out": [
        ("taken.csv", "is there already"),
        ("curve.csv", "is there already"),
        ("taken.txt", ".csv"),
    ],
    "rank-pairs --out": [
        ("taken.csv", "is there already"),
        ("curve.csv", "is there already"),
        ("thesis", "is there already"),
    ],
}
# options whose value only the table, or the run, can tell: refused once that is read, and before
# anything is fitted
READ = {
    **{f"--{name}-column": COLUMN for name in ("compound", "dose", "time", "cell", "plate", "moa")},
    "--control": [("dmso2", "no row says"), ("Metadata_compound=dmso2", "no row says")],
    "--moa-separator": [("~", "no mechanism holds"), ("and", "no mechanism holds")],
    "--features": [("emb_*", "no feature is left"), ("Metadata_*", "no feature is left")],
    "--not-features": [("*", "no feature is left")],
    "--layer": [("counts", "is no AnnData")],
    "--obsm": [("X_pca", "is no AnnData")],
    "--a": [("aa", "annotated 'aa'")],
    "--b": [("nothing", "annotated 'nothing'")],
    "--pert-col": [("Metadata_nowhere", "has no column Metadata_nowhere")],
    "--model": [("vanilla", "vanilla"), ("pac", "pac")],
}


def wrong_of(option):
    "Wrong values of an option, and words of the line."
    if option.kind is bool:
        return [("3", "does not take a value")]
    if option.kind is int:
        least = option.info.min
        return (
            [("three", ""), ("1.5", ""), ("", "")]
            + ([] if least is None else [(str(least - 1), "")])
            + ([("0", "do nothing")] if option.name == "--jobs" else [])
        )
    found = WORDS.get(str(option)) or WORDS.get(option.name) or READ.get(option.name)
    assert found, f"no wrong values are known for {option}"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with a good table, a run of PCA, and files that others made."
    folder = tmp_path_factory.mktemp("options")
    table = pd.concat(
        [
            good(),
            good()
            .assign(**{c: good()[c] + 1 for c in good().columns[5:]})
            .query("Metadata_compound != 'DMSO'"),
        ],
        ignore_index=True,
    )
    csv(folder, table, "good.csv")
    (folder / "typo.json").write_text('{"models": {"vanilla": {"n_laten": 3}}}')
    (folder / "value.json").write_text('{"models": {"vanilla": {"beta": -3}}}')
    (folder / "other.json").write_text(
        '{"preset": "chow2022", "models": {"vanilla": {"beta": 3.0}}}'
    )
    for name, head in {
        "taken.txt": "precious\n",
        "taken.csv": "a,b\n1,2\n",
        "taken.log": "kept\n",
        "trials.csv": "number,state,value\n",
        "curve.csv": "weight,seed,diverged\n",
        "beside.png": "P",
        "odd.json": "{}",
    }.items():
        (folder / name).write_text(head)
    (folder / "scored").mkdir()
    for name in ("results.csv", "leaderboard.csv"):
        (folder / "scored" / name).write_text("precious")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("precious")
    for name in ("run", "demo"):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(f'{{"command": "cpvae {name} --seed 1"}}')
    return folder


@pytest.fixture(scope="module")
def pca_run(place):
    "A run of PCA on the good table, without a map."
    from cpvae.profiles.read import read_profiles

    patch = pytest.MonkeyPatch()
    patch.setattr(
        "cpvae.run.tables.umap_table",
        lambda *_: pd.DataFrame(
            {
                "model": ["data"],
                "kind": ["original"],
                "umap1": [0.0],
                "umap2": [0.0],
                "label": ["original"],
            }
        ),
    )
    patch.setattr("cpvae.run.pipeline.write_report", lambda folder: None)
    run_pipeline(
        read_profiles(place / "good.csv"),
        place / "RUN",
        RunConfig(models=("pca",), n_permutations=100),
        jobs=1,
    )
    patch.undo()
    return place


def unread(monkeypatch):
    "Whatever reads, fetches, simulates or fits is a mistake."

    def mistake(*_, **__):
        raise AssertionError("something was read, or fitted")

    for name in (
        "profiles.read.read_profiles",
        "profiles.simulate.simulate_profiles",
        "datasets.fetch_dataset",
        "run.ask.Run.open",
        "run.preset.prepare",
        "model.fits.fit_one",
    ):
        monkeypatch.setattr(f"cpvae.{name}", mistake)


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_no_command_takes_a_wrong_option(option, pca_run, monkeypatch):
    name, right = option.name, HERE[option.command]
    monkeypatch.chdir(pca_run)
    before = contents(pca_run)
    if name not in READ:
        unread(monkeypatch)
    monkeypatch.setattr("cpvae.run.pipeline.fit_models", None)
    without = [word for i, word in enumerate(right) if word != name and right[i - 1] != name]
    for value, says in wrong_of(option):
        refused(
            cli(*without, *([f"{name}={value}"] if option.kind is bool else [name, value])),
            *([] if name in ("--a", "--b", "--model") else [name]),
            says,
        )
    refused(cli(*right, f"{name[:-1]}x{name[-1:]}"), "no such option")
    assert contents(pca_run) == before


def test_strict_takes_a_pair(place, monkeypatch):
    monkeypatch.chdir(place)
    unread(monkeypatch)
    refused(cli("run", "good.csv", "--strict"), "--strict", "--leave-out")


def test_there_are_options_to_try():
    names = {option.name for option in OPTIONS} | set(map(str, OPTIONS))
    assert len({option.command for option in OPTIONS}) == len(HERE) and len(OPTIONS) >= 100
    assert {*WORDS, *READ} <= names


def test_words_of_the_command_line_are_those_of_the_package():
    "A list of words stands in the command line too, so that it need not load what it does not use."
    from cpvae.lsa.learned import PREDICTORS
    from cpvae.run.preset import MODELS
    from cpvae.style import TRIVIAL, USUAL

    hints, at = typing.get_type_hints(RunConfig), {str(option): option for option in OPTIONS}
    for name in ("preset", "normalize", "consensus", "group_by", "device"):
        literal = next(
            h
            for h in (hints[name], *typing.get_args(hints[name]))
            if typing.get_origin(h) is typing.Literal
        )
        assert at[f"run --{name.replace('_', '-')}"].info.metavar.split("|") == list(
            typing.get_args(literal)
        ), name
    assert at["tune --variant"].info.metavar.split("|") == [
        v for v in PRESETS["recommended"] if v not in RIVALS
    ]
    assert all(",".join(names) in at["run --models"].info.help for names in USUAL.values())
    assert RunConfig().models == USUAL["recommended"]
    assert RunConfig(preset="chow2022").models == USUAL["chow2022"]
    assert RunConfig(vae=dict(beta=dict(steps=3))).models == ("vanilla", "beta", "pca")
    for option, names in (("models", MODELS), ("predictors", {*PREDICTORS} - {"sum", *TRIVIAL})):
        assert [name for name in names if name not in at[f"run --{option}"].info.help] == []
        at[f"run --{option}"].info.callback(",".join(names))


# ---- searches: files of their own, advice, and what comes next


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What the searches leave and say, with small models and few fits: the folder, and what each
    command printed.
    """
    folder, patch = tmp_path_factory.mktemp("searched"), pytest.MonkeyPatch()
    for settings in PRESETS["recommended"].values():
        patch.setitem(settings, "steps", 20)
        patch.setitem(settings, "hidden_layer_sizes", (8,))
    patch.chdir(folder)
    rng = np.random.default_rng(0)
    many = pd.concat([good()] * 6, ignore_index=True).assign(
        Metadata_compound=lambda t: [
            c if c == "DMSO" else f"{c}-{i // 30}" for i, c in enumerate(t.Metadata_compound)
        ]
    )
    many[many.columns[5:]] = rng.standard_normal((180, 2)) @ rng.standard_normal(
        (2, 8)
    ) + 0.3 * rng.standard_normal((180, 8))
    many.to_csv(folder / "ta ble.csv", index=False)
    said = {}
    for command in (
        "select-beta ta_ble.csv --grid 0.3,1,3 --seeds 2",
        "select-beta ta_ble.csv --grid 1,10 --seeds 1 --weight lambda",
        "tune ta_ble.csv --trials 2 --variant beta --normalize standardize",
        "tune ta_ble.csv --trials 1",
    ):
        words = [w.replace("_", " ") for w in command.split()]
        done = cli(*words, "--jobs", 1, "--quiet")
        assert done.exit_code == 0, (done.stderr, done.exception)
        said[command] = done.stdout
    yield folder, said
    patch.undo()


def test_each_search_has_files_of_its_own(searched):
    folder, _ = searched
    names = {p.name for p in (folder / "results").iterdir()}
    assert names == {
        f"ta ble-{stem}"
        for stem in (
            *(f"select-{w}.{s}" for w in ("beta", "lambda") for s in ("csv", "png", "json")),
            *(f"tune-{v}.{s}" for v in ("vanilla", "beta") for s in ("log", "csv", "json")),
        )
    }


def test_each_search_ends_with_advice_and_a_command_that_works(searched, monkeypatch):
    folder, said = searched
    monkeypatch.chdir(folder)
    asked = {}

    def note(table, out, config, **_):
        asked.update(config=config, table=table)
        return out.absolute()

    monkeypatch.setattr("cpvae.run.pipeline.run_pipeline", note)
    for command, text in said.items():
        lines = text.strip().splitlines()
        last = lines[-1].removeprefix("or, with what was found: ").removeprefix("next: ")
        words = shlex.split(last)
        assert words[:3] == ["cpvae", "run", "ta ble.csv"] and words[-2] == "--params", last
        done = cli(*words[1:])
        assert done.exit_code == 0, (done.stderr, done.exception)
        config = asked["config"]
        if "tune" in command:
            assert (
                "Fitted again with 5 other seeds" in text
                and "the preset's own settings" in text
                and "95 % interval" in text
            )
            assert set(config.vae) == ({"beta"} if "--variant" in command else {"vanilla"})
            assert {"learning_rate", "hidden_layer_sizes", "n_latent"} <= set(
                next(iter(config.vae.values()))
            )
            assert config.normalize == ("standardize" if "--normalize" in command else None)
        elif "lambda" in command:
            assert (
                "Take λ" in text
                and "One seed cannot say" in text
                and "--grid" in text
                and set(config.vae) == {"mmd"}
            )
        else:
            assert (
                "Take β" in text
                and "of 2 seeds would pick it alone" in text
                and config.vae["beta"]["beta"] in (0.3, 1.0, 3.0)
            )


def test_a_search_does_not_write_over_anothers_files(searched, monkeypatch):
    folder, _ = searched
    monkeypatch.chdir(folder)
    unread(monkeypatch)
    before = contents(folder)
    for words in (
        ["tune", "ta ble.csv", "--storage", "results/ta ble-select-beta.log"],
        ["select-beta", "ta ble.csv", "--out", "results/ta ble-tune-beta.csv"],
        ["select-beta", "ta ble.csv", "--out", "ta ble.csv"],
        ["tune", "ta ble.csv", "--storage", "results/ta ble-select-beta.png"],
    ):
        refused(cli(*words), "is there already", words[-2])
    assert contents(folder) == before


def test_a_search_goes_on_where_it_was(searched, monkeypatch, tmp_path):
    folder, _ = searched
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    done = cli("tune", "ta ble.csv", "--trials", 1, "--jobs", 1, "--quiet")
    assert done.exit_code == 0 and "Best of 2 trials" in done.stdout, (done.stderr, done.exception)
    assert len(pd.read_csv("results/ta ble-tune-vanilla.csv")) == 2


def test_advice_says_what_it_does_not_know():
    def curve(scores):
        rows = [
            dict(weight=w, seed=s, diverged=False, elbo=e, fvu=0.5)
            for w, values in scores.items()
            for s, e in enumerate(values)
        ]
        return pd.DataFrame(rows)

    clear = weight_advice(curve({0.1: [0, 0.1, 0.2], 1.0: [10, 10.1, 10.2], 10.0: [1, 1.1, 1.2]}))
    assert (
        clear.params == {"beta": {"beta": 1.0}}
        and "3 of 3" in clear.lines[1]
        and "every other weight" in clear.lines[1]
        and len(clear.lines) == 3
    )
    level = weight_advice(curve({0.1: [0, 0, 0], 1.0: [10, 10, 10], 10.0: [12, 9, 9.9]}))
    assert (
        level.params == {"beta": {"beta": 10.0}}
        and "1 of 3" in level.lines[1]
        and "cannot tell it from β = 1 " in level.lines[1]
    )
    assert "largest weight tried" in level.lines[3]
    lost = curve({0.1: [0, 0], 1.0: [1, 1], 2.0: [99, np.nan]})
    lost.loc[lost.elbo.isna(), "diverged"] = True
    assert (
        weight_advice(lost).params == {"beta": {"beta": 1.0}}
        and "diverged at β = 2" in weight_advice(lost).lines[-1]
    )


# ---- a model's score, and models that are not ours


def test_a_score_is_minus_the_loss_of_the_kept_weights():
    vae = make_vae(
        "mmd",
        n_latent=2,
        hidden_layer_sizes=(8,),
        epochs=5,
        random_state=0,
        kl_warmup=0.5,
        beta=0.7,
    ).fit(X[:40], X_valid=X[40:])
    parts = loss_parts(vae, X[40:])
    assert vae.score(X[40:]) == -parts["loss"] == vae.score(X[40:])
    assert -vae.score(X[40:]) == pytest.approx(
        vae.history_.valid_loss[vae.history_.valid_sse.idxmin()], rel=1e-4
    )
    # no warm-up is left
    assert parts["loss"] == pytest.approx(
        parts["reconstruction"] + 0.7 * parts["kl"] + 100 * parts["mmd"], rel=1e-4
    )
    assert (
        elbo(vae, X[40:])
        == pytest.approx(elbo(vae), rel=1e-4)
        == -parts["reconstruction"] - parts["kl"]
    )


def test_searches_of_scikit_learn_need_no_scoring():
    small = VAE(n_latent=2, hidden_layer_sizes=(8,), epochs=3, random_state=0)
    folds = cross_val_score(small, X, cv=3)
    assert folds == pytest.approx(
        [clone(small).fit(X[a]).score(X[b]) for a, b in KFold(3).split(X)]
    )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), small), {"vae__beta": [0.1, 10.0]}, cv=3
    ).fit(X)
    assert (
        search.best_params_ == {"vae__beta": 0.1}
        and np.isfinite(search.cv_results_["mean_test_score"]).all()
    )
    with pytest.raises(ValueError, match="All the 6 fits failed") as caught:
        GridSearchCV(small, {"likelihood": ["gauss", "gausian"]}, cv=3).fit(X)
    assert "did you mean 'gaussian'" in str(caught.value)


class Mine:
    "A transformer of no library."

    def fit(self, x, y=None):
        self.mean_ = x.mean(0)
        return self

    def transform(self, x):
        return x - self.mean_


def test_any_transformer_can_be_fitted():
    asked = {
        "ica": FastICA(2, random_state=0),
        "pipe": make_pipeline(StandardScaler(), PCA(2)),
        "identity": FunctionTransformer(),
        "mine": Mine(),
        "pca": PCA(2),
    }
    fitted = fit_many(asked, X, X[:0], shuffled=["mine"])
    assert {name: model.transform(X).shape[1] for name, model in fitted.items()} == dict(
        ica=2, pipe=2, identity=6, mine=6, pca=2
    )
    assert not hasattr(asked["mine"], "mean_") and not hasattr(asked["pca"], "mean_")
    # nobody to validate on
    assert (
        fit_one(make_vae("beta", epochs=1, n_latent=2, hidden_layer_sizes=(4,)), X, X[:0])
        .history_.columns.str.startswith("valid")
        .sum()
        == 0
    )
    for no, lacks in (
        (dict(beta=1.0), "dict is no transformer: it has no fit and no transform"),
        (KFold(3), "it has no fit"),
    ):
        with pytest.raises(CpvaeError, match=f"model odd: .*{lacks}"):
            fit_many({"odd": no}, X)


@pytest.mark.parametrize(
    "model",
    [
        Mine(),
        Normalizer(),
        FunctionTransformer(np.abs),
        make_pipeline(StandardScaler(), Normalizer()),
        make_pipeline(FunctionTransformer(np.log1p), PCA(2)),
    ],
    ids=["own", "none", "half", "last", "first"],
)
def test_a_transformer_without_an_inverse_is_refused_by_name(model, tmp_path):
    name = {
        "Mine": "Mine",
        "Normalizer": "Normalizer",
        "FunctionTransformer": "FunctionTransformer",
    }.get(type(model).__name__) or next(
        type(s).__name__
        for _, s in model.steps
        if type(s).__name__ not in ("StandardScaler", "PCA")
    )
    at = [
        lambda: must_decode(model),
        lambda: latent_space(model, None),
        lambda: reconstruct(model, X),
        lambda: simulate(model, 3),
        lambda: leave_pairs_out({"m": model}, None, []),
    ]
    for call in at:
        with pytest.raises(CpvaeError, match=f"{name} has no inverse"):
            call()
    with pytest.raises(CpvaeError, match="cannot be saved"):
        save_model(model.fit(np.abs(X)), tmp_path)
    with pytest.raises(
        CpvaeError, match="PCA cannot be saved here; a VAE or an unwhitened PCA can"
    ):
        save_model(PCA(2, whiten=True).fit(X), tmp_path)
