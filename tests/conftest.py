"""Set before anything heavy is imported: no windows, one thread a process, OpenMP threads that
sleep while they wait, and no UMAP.
"""

import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# else scikit-learn skips one of its checks of an estimator
os.environ.setdefault("SCIPY_ARRAY_API", "1")
os.environ.pop("CPVAE_FITS", None)  # a test of fitting that reads a fit would test nothing


# Two coordinates stand in for UMAP, here and in every process started from here but the demo's.
QUICK = str(Path(__file__).parent / "quick")
sys.path.insert(0, QUICK)
os.environ["PYTHONPATH"] = os.pathsep.join([QUICK, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def no_figures():
    "Draw no figure in this process while the tests of a module run that look at something else."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpvae.run.report.draw_figures", lambda tables: {"training": b"<svg/>"})
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Call `once(name, make)`: a folder that `make` fills, made by the first test of any process
    that asks; it may only be read.
    """
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


def pytest_collection_modifyitems(items):
    """Slow tests first, in both halves: of two workers that take a half each and help each other
    out at the end, none is left with them. Those that ask for the demo stand together, so that
    nobody waits for another to make it.
    """
    alike = [item for item in items if "demo" in getattr(item, "fixturenames", ())]
    others = [item for item in items if item not in alike]
    slow = [item for item in others if item.get_closest_marker("slow")]
    rest = [item for item in others if not item.get_closest_marker("slow")]
    at = max(len(items) // 2 - len(alike) - len(slow[::2]), 0)
    items[:] = [*alike, *slow[::2], *rest[:at], *slow[1::2], *rest[at:]]
