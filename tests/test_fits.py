"""The same family of fits on this process, and on a cluster of two processes that know each other only by network."""

import os

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.decomposition import PCA

from cpvae.fits import fit_many, fit_one
from cpvae.models import make_vae


@pytest.fixture(scope="module")
def cluster():
    "Two workers, a process each."
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None) as cluster, Client(cluster) as client:
        yield client


def test_a_cluster_gives_the_same_bytes(cluster, tmp_path):
    x = np.random.default_rng(0).standard_normal((400, 30)).astype("float32")
    small = dict(hidden_layer_sizes=(32,), steps=60)
    family = {(variant, seed): make_vae(variant, random_state=seed, **small) for variant in ("vanilla", "mmd") for seed in (0, 1)} | {("pca", 0): PCA(5)}
    here = fit_many(family, x[:300], x[300:], shuffled=[("mmd", 1)])
    with joblib.parallel_config("dask"):
        there = fit_many(family, x[:300], x[300:], shuffled=[("mmd", 1)], checkpoints=tmp_path)
    assert list(there) == list(here)
    for key in family:
        assert there[key].transform(x).tobytes() == here[key].transform(x).tobytes(), key
    assert len(list(tmp_path.iterdir())) == 4  # the workers wrote the checkpoints
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
    assert fitted.address_ % 16 == 0 and fitted.transform(x).tobytes() == fit_one(Telling(5), x).transform(x).tobytes()
