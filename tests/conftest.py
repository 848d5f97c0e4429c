"""Set before anything heavy is imported: no windows, one thread a process, and OpenMP threads that sleep while they wait."""

import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SCIPY_ARRAY_API", "1")  # else scikit-learn skips one of its checks of an estimator
os.environ.pop("CPVAE_FITS", None)  # a test of fitting that reads a fit would test nothing


def stand_in_for_umap(patch):
    "Put a stand-in before UMAP in this process; the folder that holds it."
    folder = str(Path(__file__).parent / "quick")
    patch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "umap"]:
        patch.delitem(sys.modules, name)
    return folder


@pytest.fixture(scope="module")
def quick():
    "Replace UMAP by a stand-in in this process, while the tests of a module run."
    with pytest.MonkeyPatch.context() as patch:
        stand_in_for_umap(patch)
        yield
        sys.modules.pop("umap", None)


@pytest.fixture
def quick_umap(monkeypatch):
    "Replace UMAP by a stand-in, here and in processes started from here, and draw no figure here."
    from joblib.externals.loky import get_reusable_executor

    monkeypatch.setenv("PYTHONPATH", stand_in_for_umap(monkeypatch))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr("cpvae.report._png", lambda figure: b"")
    get_reusable_executor().shutdown()
    yield
    sys.modules.pop("umap", None)
    get_reusable_executor().shutdown()


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    "Call `once(name, make)`: a folder that `make` fills, made by the first test of any process that asks; it may only be read."
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared

    def folder(name, make):
        whole = shared / f"once-{name}"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                part = shared / f"part-{name}"
                part.mkdir(exist_ok=True)
                make(part)
                part.rename(whole)
        return whole

    return folder
