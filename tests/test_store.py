"""Fits that are made once: what is read is what would have been made, and nothing stale is ever
read.
"""

import shutil
from inspect import getfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA

from cpvae.model import fits, vae
from cpvae.model.fits import STORE, fit_key, fit_many, fit_one, fitting_code
from cpvae.model.presets import make_vae
from cpvae.model.vae import VAE

X = np.random.default_rng(0).standard_normal((60, 8)).astype("float32")
TRAIN, VALID = X[:40], X[40:]
SMALL = VAE(n_latent=2, hidden_layer_sizes=(8,), steps=20, random_state=0)
OTHER = {  # a parameter of a VAE to another value
    "n_latent": 3,
    "hidden_layer_sizes": (9,),
    "beta": 1.5,
    "mmd_weight": 1.0,
    "likelihood": "gaussian",
    "heads": "leaky",
    "kernel": "chow2022",
    "kl_warmup": 0.5,
    "encoder": "point",
    "code": "mean",
    "steps": 21,
    "epochs": 3,
    "batch_size": 30,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "clip": None,
    "monitor": "loss",
    "patience": 4,
    "random_state": 1,
}


@pytest.fixture
def trained(monkeypatch, tmp_path):
    "How often a training began, with a store of its own."
    counted = []
    undisturbed = vae.train

    def train(*arguments, **named):
        counted.append(1)
        return undisturbed(*arguments, **named)

    monkeypatch.setattr(vae, "train", train)
    monkeypatch.setenv(STORE, str(tmp_path / "fits"))
    return counted


def codes(model):
    return model.transform(X).tobytes()


def test_a_fit_that_is_there_is_read(trained, monkeypatch):
    first = fit_one(SMALL, TRAIN, VALID)
    again = fit_one(clone(SMALL).set_params(progress=True), TRAIN.copy(), VALID.copy())
    assert len(trained) == 1 and again is not first and again.progress and not first.progress
    monkeypatch.delenv(STORE)
    made = fit_one(SMALL, TRAIN, VALID)
    assert len(trained) == 2
    assert codes(first) == codes(again) == codes(made)
    assert (
        again.history_.equals(made.history_)
        and again.latent_units_.equals(made.latent_units_)
        and again.seed_ == made.seed_
    )


@pytest.mark.parametrize("name", OTHER)
def test_another_setting_is_another_fit(name, trained):
    fit_one(SMALL, TRAIN, VALID)
    changed = clone(SMALL).set_params(**{name: OTHER[name]})
    assert codes(fit_one(changed, TRAIN, VALID)) == codes(clone(changed).fit(TRAIN, X_valid=VALID))
    assert len(trained) == 3


def test_every_setting_was_tried():
    # the device is tried below
    assert set(OTHER) == set(SMALL.get_params()) - {"device", "progress"}


@pytest.mark.parametrize(
    "change",
    [
        "a value",
        "a row less",
        "another order",
        "validation",
        "none to validate",
        "shuffled",
        "another shuffle",
        "double precision",
    ],
)
def test_other_profiles_are_another_fit(change, trained):
    fit_one(SMALL, TRAIN, VALID)
    train = TRAIN.copy()
    valid = VALID.copy()
    shuffle = {"shuffled": 0, "another shuffle": 1}.get(change)
    if change == "another shuffle":
        fit_one(SMALL, TRAIN, VALID, shuffle=0)
    before = len(trained)
    if change == "a value":
        train[3, 4] = np.nextafter(train[3, 4], np.float32(9))
    elif change == "validation":
        valid[0, 0] += 1
    train = {
        "a row less": train[1:],
        "another order": train[::-1].copy(),
        "double precision": train.astype(float),
    }.get(change, train)
    fit_one(SMALL, train, None if change == "none to validate" else valid, shuffle=shuffle)
    assert len(trained) == before + 1


@pytest.mark.parametrize("module", fits._MODULES)
def test_one_line_of_the_code_that_fits_makes_all_stale(module, trained, tmp_path, monkeypatch):
    fit_one(SMALL, TRAIN, VALID)
    package, known = tmp_path / "package", fitting_code()
    shutil.copytree(
        Path(getfile(fits)).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    assert fitting_code(package) == known
    source = package / f"{module}.py"
    lines = source.read_text(encoding="utf-8").splitlines()
    lines[len(lines) // 2] += "  "
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    changed = fits.fitting_code(package)
    assert changed != known
    monkeypatch.setattr(fits, "fitting_code", lambda: changed)
    fit_one(SMALL, TRAIN, VALID)
    assert len(trained) == 2


@pytest.mark.parametrize("library", ["torch", "numpy", "scikit-learn"])
def test_another_version_of_a_library_makes_all_stale(library, monkeypatch):
    known, real = fits.fitting_code(), fits.version
    monkeypatch.setattr(fits, "version", lambda name: "0.0" if name == library else real(name))
    assert fits.fitting_code() != known


def test_another_device_is_another_fit(monkeypatch):
    here = fit_key([SMALL], [(TRAIN, VALID)])
    monkeypatch.setattr(fits, "device_name", lambda name: "cuda (a card)")
    assert fit_key([SMALL], [(TRAIN, VALID)]) != here


def test_who_was_trained_together_is_part_of_it(trained, monkeypatch):
    asked = {i: clone(SMALL).set_params(random_state=i) for i in range(3)}
    alone = fit_one(asked[1], TRAIN, VALID)
    three = fit_many(asked, TRAIN, VALID)
    two = fit_many({i: asked[i] for i in (0, 1)}, TRAIN, VALID)
    assert len(trained) == 3
    again = fit_many(asked, TRAIN, VALID, jobs=2)  # in other processes, which count for themselves
    assert len(trained) == 3
    monkeypatch.delenv(STORE)
    made = fit_many(asked, TRAIN, VALID)
    assert (
        [codes(three[i]) for i in asked]
        == [codes(again[i]) for i in asked]
        == [codes(made[i]) for i in asked]
    )
    assert codes(alone) == codes(fit_one(asked[1], TRAIN, VALID))
    assert codes(two[0]) == codes(fit_many({i: asked[i] for i in (0, 1)}, TRAIN, VALID)[0])


def test_what_has_no_key_is_not_kept(trained, tmp_path):
    class Mine(VAE):
        "A VAE of one's own, whose code nobody knows."

    for model in (
        make_vae("vanilla", hidden_layer_sizes=(8,), steps=20),
        Mine(n_latent=2, hidden_layer_sizes=(8,), steps=20, random_state=0),
    ):
        before = len(trained)
        fit_one(model, TRAIN, VALID), fit_one(model, TRAIN, VALID)
        assert len(trained) == before + 2 and fit_key([model], [(TRAIN, VALID)]) == ""
    fit_one(PCA(2, random_state=0), TRAIN)
    fit_one(SMALL, TRAIN, VALID, after_epoch=lambda vae: None)
    assert not list(tmp_path.glob("fits/**/output.pkl"))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_entry_is_made_anew(trained, tmp_path):
    good = codes(fit_one(SMALL, TRAIN, VALID))
    [entry] = tmp_path.glob("fits/**/output.pkl")
    entry.write_bytes(entry.read_bytes()[:200])
    assert codes(fit_one(SMALL, TRAIN, VALID)) == good and len(trained) == 2
