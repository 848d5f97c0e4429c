"""What each notebook and each test of this project runs of the package, line by line, and running
some of them with another package in front; for `make mutants`.

Whatever runs has a process of its own, begun by a server that has loaded what is slow to load, and
is ended with all that it started.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import coverage
import pytest
from cover_notebooks import run_notebook
from project import ROOT, modules, room

HEAVY = ["torch", "anndata", "sklearn.decomposition", "scipy.stats", "matplotlib.pyplot", "nbdev"]


class Trace:
    "A pytest plugin: whose lines are counted, how long each test took, which fixtures it needs."

    def __init__(self, measured: coverage.Coverage):
        self.measured, self.seconds, self.needs, self.poor = measured, {}, {}, set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        begun, known = time.monotonic(), item._fixtureinfo.name2fixturedefs
        self.needs[item.nodeid] = [f"{known[name][-1].baseid} {name}" for name in known]
        self.now = item.nodeid
        self.measured.switch_context(self.now)
        done = yield
        self.seconds[item.nodeid] = round(time.monotonic() - begun, 2)
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        self.measured.switch_context(f"{fixturedef.baseid} {fixturedef.argname}")
        done = yield
        self.measured.switch_context(self.now)
        return done

    def pytest_runtest_logreport(self, report):
        if report.outcome != "passed":
            self.poor.add(report.nodeid)

    def executed(self, package: Path) -> dict[str, list]:  # {test: [seconds, {file: lines}]}
        "Of each test that passed the lines it ran, those of its fixtures included."
        data, by = self.measured.get_data(), {}
        for path in data.measured_files():
            file = Path(path).relative_to(package).as_posix()
            for line, contexts in data.contexts_by_lineno(path).items():
                for context in contexts:
                    by.setdefault(context, {}).setdefault(file, set()).add(line)
        found = {}
        for test in self.seconds.keys() - self.poor:
            lines = {}
            for context in (test, *self.needs.get(test, [])):
                for file, some in by.get(context, {}).items():
                    lines[file] = sorted({*lines.get(file, []), *some})
            found[test] = [self.seconds[test], lines]
        return found


def _run(folder, root, chosen, log, kept):
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    os.chdir(root)
    trace = Trace(coverage.Coverage(data_file=None, source=[str(folder)], config_file=False))
    if kept:
        trace.measured.start()
        trace.measured.switch_context("import")
        for path in modules(folder):
            __import__(room(path, folder))
        trace.measured.switch_context(chosen[0])
    begun = time.monotonic()
    if chosen[0].endswith(".ipynb"):
        error = run_notebook(root / chosen[0])[1]
        print(f"FAILED {chosen[0]}\n{error}" if error else "")
        status, trace.seconds = bool(error), {chosen[0]: round(time.monotonic() - begun, 2)}
        trace.poor = {chosen[0]} if error else set()
    else:
        options = ["-q", "-p", "no:cacheprovider", "-rfE", "--tb=line"]
        status = (
            pytest.main([*options, *chosen], [trace])
            if kept
            else pytest.main(["-x", *options, *chosen])
        )
    if kept:
        trace.measured.stop()
        kept.write_text(json.dumps(trace.executed(folder / "cpvae")), encoding="utf-8")
    sys.stdout.flush()
    os._exit(status)


def run_with(
    folder: Path,  # that holds the package
    root: Path,  # of the project
    chosen: list[str],  # one notebook, or tests
    log: Path,  # for what they print
    kept: Path | None = None,  # for what they run
    seconds: float = 3600,
) -> int | None:  # 0 if all passed; None: it took longer
    "Run a notebook, or tests up to the first that fails, with the package of a folder."
    multiprocessing.set_forkserver_preload(HEAVY)
    kind = multiprocessing.get_context("forkserver")
    process = kind.Process(target=_run, args=(folder.resolve(), root, chosen, log, kept))
    process.start()
    process.join(seconds)
    status = process.exitcode
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the group that it has made of itself
    process.join()
    return status


def digest(*paths: Path) -> str:
    "What files hold."
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def executed(
    suites: list[Path],  # notebooks and test files
    out: Path,  # where what they run is kept, until one of them or the package changes
    root: Path = ROOT,
) -> dict[str, list]:  # {test: [seconds, {file: lines}]}
    "What each notebook and test runs."
    found, package = {}, digest(*modules(root))
    out.mkdir(parents=True, exist_ok=True)
    for suite in suites:
        kept = out / f"{suite.stem}-{package}-{digest(suite)}.json"
        if not kept.exists():
            print(f"mutants: what {suite.name} runs", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                shutil.copytree(root / "cpvae", Path(folder) / "cpvae")
                chosen = [suite.relative_to(root).as_posix()]
                run_with(Path(folder), root, chosen, kept.with_suffix(".log"), kept)
        found |= json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    return found
