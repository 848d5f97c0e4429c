"""The same family of fits on this process, and on a cluster of two processes that know each other
only by network.
"""

import os
import warnings

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.decomposition import PCA

from cpvae.errors import CpvaeError
from cpvae.model.fits import TOGETHER, fit_many, fit_one, stacks_of
from cpvae.model.codes import posterior
from cpvae.model.presets import make_vae
from cpvae.model.settings import SettingError
from cpvae.model.vae import VAE, fit_together
from cpvae.model.plan import shuffle_columns
from cpvae.model.train import DivergedError


@pytest.fixture(scope="module")
def cluster():
    "Two workers, a process each."
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(cluster, tmp_path):
    x = np.random.default_rng(0).standard_normal((400, 30)).astype("float32")
    small = dict(hidden_layer_sizes=(32,), steps=60)
    family = {
        (variant, seed): make_vae(variant, random_state=seed, **small)
        for variant in ("vanilla", "mmd")
        for seed in (0, 1)
    } | {("pca", 0): PCA(5)}
    here = fit_many(family, x[:300], x[300:], shuffled=[("mmd", 1)])
    with joblib.parallel_config("dask"):
        there = fit_many(family, x[:300], x[300:], shuffled=[("mmd", 1)], checkpoints=tmp_path)
    assert list(there) == list(here)
    for key in family:
        assert there[key].transform(x).tobytes() == here[key].transform(x).tobytes(), key
    # a worker wrote the checkpoint of the four, which are small and alike
    assert len(list(tmp_path.iterdir())) == 1
    pids = cluster.run(os.getpid)
    assert len(set(pids.values()) | {os.getpid()}) == 3


def test_the_cluster_did_the_work(cluster):
    class Telling(PCA):  # a model that says where it was fitted
        def fit(self, X, y=None):
            self.pid_ = os.getpid()
            return super().fit(X)

    x = np.random.default_rng(0).standard_normal((50, 8)).astype("float32")
    with joblib.parallel_config("dask"):
        fitted = fit_many({i: Telling(2) for i in range(8)}, x)
    assert {model.pid_ for model in fitted.values()} <= set(cluster.run(os.getpid).values())


def test_an_array_at_an_odd_address_is_fitted_like_any_other():
    class Telling(PCA):  # a model that says where its data lay
        def fit(self, X, y=None):
            self.address_ = X.ctypes.data
            return super().fit(X)

    x = np.random.default_rng(0).standard_normal((300, 30)).astype("float32")
    odd = np.empty(x.nbytes + 1, np.uint8)[1:].view("float32").reshape(x.shape)
    odd[:] = x
    assert odd.ctypes.data % 16
    fitted = fit_one(Telling(5), odd)
    assert (
        fitted.address_ % 16 == 0
        and fitted.transform(x).tobytes() == fit_one(Telling(5), x).transform(x).tobytes()
    )


def curved(n=500, n_features=20, seed=0):
    "Profiles on a curve, with noise."
    rng = np.random.default_rng(seed)
    t, w = rng.uniform(-2, 2, (n, 2)), rng.normal(0, 1.5, (2, n_features))
    return (np.tanh(t @ w) + 0.2 * rng.standard_normal((n, n_features))).astype("float32")


def of_seeds(variants, seeds, **settings):
    "Small models, alike but for variant and seed."
    how = dict(hidden_layer_sizes=(16,), n_latent=3, steps=90) | settings
    return {(v, s): make_vae(v, random_state=s, **how) for v in variants for s in seeds}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(likelihood="gaussian"),
        dict(likelihood="squared_error"),
        dict(heads="chow2022"),
        dict(heads="leaky", clip=None),
        dict(schedule="constant", learning_rate=1e-3),
        dict(monitor="none"),
        dict(monitor="loss", kl_warmup=0.5),
        dict(kernel="chow2022", code="sample"),
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_together_each_is_what_it_is_alone(settings):
    x = curved()
    train, valid = x[:350], x[350:]
    models = of_seeds(("vanilla", "beta", "mmd"), (0, 1), **settings)
    shuffled = [("mmd", 1), ("vanilla", 0)]
    assert [len(stack) for stack in stacks_of(models, 20)] == [6]
    together = fit_many(models, train, valid, shuffled=shuffled, seed=5)
    for key, model in models.items():
        alone = fit_one(model, train, valid, shuffle=5 if key in shuffled else None)
        mine, theirs = together[key].history_, alone.history_
        assert list(mine) == list(theirs) and len(mine) == len(theirs)
        trained = [name for name in mine if name.startswith("train_")]
        # rounding is carried on, and grows
        for columns, epochs, near in ((trained, 2, 1e-4), (list(mine), len(mine), 0.1)):
            off, size = ((mine - theirs).abs()[columns].iloc[:epochs], theirs[columns].abs())
            assert (off <= near * (size + size.max()).iloc[:epochs]).all(axis=None), (
                key,
                off.max(),
            )
        a, b = (posterior(m, valid)[0].numpy() for m in (together[key], alone))
        assert np.abs(a - b).max() < 0.1 * b.std()
        assert together[key].seed_ == alone.seed_ and list(together[key].latent_units_) == list(
            alone.latent_units_
        )


@pytest.mark.slow
def test_stacking_moves_a_fit_less_than_half_the_spread_of_seeds():
    x = curved(700, 30)
    train, valid, test = x[:400], x[400:500], x[500:]
    models = of_seeds(("vanilla", "mmd"), range(4), steps=300)
    error = lambda model: float(
        np.square(test - model.inverse_transform(model.transform(test))).mean()
    )
    together = fit_many(models, train, valid)
    apart = {key: fit_one(model, train, valid) for key, model in models.items()}
    for variant in ("vanilla", "mmd"):
        of = [key for key in models if key[0] == variant]
        gaps = [error(together[key]) - error(apart[key]) for key in of]
        assert np.abs(gaps).max() < np.std([error(apart[key]) for key in of], ddof=1) / 2


@pytest.mark.slow
def test_who_is_trained_together_follows_from_the_plan_alone(tmp_path):
    x = curved(300)
    models = of_seeds(("vanilla", "beta"), range(6))
    assert [len(stack) for stack in stacks_of(models, 20)] == [6, 6] and 12 > TOGETHER[100_000]
    one, two = (fit_many(models, x[:200], x[200:], jobs=jobs) for jobs in (1, 2))
    assert [m.transform(x).tobytes() for m in one.values()] == [
        m.transform(x).tobytes() for m in two.values()
    ]

    class Killed(BaseException):
        "As if the process had been killed."

    def killed(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("cpvae.model.vae.latent_units", killed)  # after training, before the result
        fit_many(models, x[:200], x[200:], checkpoints=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    resumed = fit_many(models, x[:200], x[200:], checkpoints=tmp_path)
    assert [m.transform(x).tobytes() for m in one.values()] == [
        m.transform(x).tobytes() for m in resumed.values()
    ]
    assert all(m.history_.equals(resumed[key].history_) for key, m in one.items())


def test_large_models_and_those_of_ones_own_are_fitted_alone():
    class Mine(VAE):
        "A VAE of one's own."

    wide = of_seeds(("vanilla",), range(2), hidden_layer_sizes=(max(TOGETHER) // 40 + 1,))
    patient = of_seeds(("beta",), range(2), patience=3)
    own = {i: Mine(hidden_layer_sizes=(4,)) for i in range(2)}
    wrong = {f"wrong {i}": VAE(hidden_layer_sizes="wide", random_state=i) for i in range(2)}
    assert [len(stack) for stack in stacks_of(wide | patient | own | wrong, 20)] == [1] * 8
    with pytest.raises(SettingError, match="hidden_layer_sizes"):
        fit_many(wrong, curved(60))


def test_of_several_the_one_that_diverged_is_named():
    x = curved(200)
    x[3, 4] = 3e38
    models = of_seeds(("vanilla", "mmd"), (0, 1), clip=None)
    with (
        warnings.catch_warnings(),
        pytest.raises(
            DivergedError,
            match=(
                r"^model (vanilla|mmd)-[01]: the training loss became .* whose largest value is"
                r" 3e\+38"
            ),
        ),
    ):
        warnings.simplefilter("ignore")
        fit_many(models, x)
    calm = curved(200)
    pair = [models["vanilla", 0], models["vanilla", 1]]
    with pytest.raises(DivergedError) as caught:
        fit_together(pair, [calm, x])
    assert caught.value.model == 1 and str(caught.value).startswith("the training loss became")
    with pytest.raises(CpvaeError, match="may differ in beta"):
        fit_together([pair[0], make_vae("vanilla", n_latent=4)], [calm, calm])


def test_a_stack_sees_each_table_once_and_leaves_it_as_it_was():
    x = curved(200)
    before = x.copy()
    models = of_seeds(("vanilla",), range(3))
    real = fit_many(models, x)
    control = fit_many(models, x, shuffled=list(models), seed=9)
    by_hand = fit_many(models, shuffle_columns(x, 9))
    assert x.tobytes() == before.tobytes()
    for key in models:
        assert (
            control[key].transform(x).tobytes()
            == by_hand[key].transform(x).tobytes()
            != real[key].transform(x).tobytes()
        )
