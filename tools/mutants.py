"""Which small faults the tests let through: `make mutants`, with `OF="lsa model"` and `N=50`.

Of every floor N faults (see `faults`) are made, one at a time, in a copy of the package, and what
runs the faulty line is run with that copy: the notebooks that make the rooms of the floor, from the
first cell to the last, and the tests that import from it; the quickest first, up to the first
failure, and at most `BUDGET` seconds of them. A fault that all pass has survived, an equivalent one
too, and one that only a process sees which a test starts.

Verdicts are kept in results/mutants, a line each, and a second call goes on. A fault is tried again
when its module has changed, a survivor also when a notebook or test of the floor has. The order of
faults is a hash: N=15 are the first of N=50.
"""

import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from executed import digest, executed, run_with
from faults import Mutant, mutants_of
from project import ROOT, home, modules, notebooks
from scipy.stats import binomtest

FLOORS = ("model", "lsa", "measure", "preparation", "latents", "screening", "run")
BUDGET = 120  # seconds, as the package without a fault takes them
QUICK = 2  # seconds; slower tests come after the notebooks


def suites_of(floor: str, root: Path) -> list[Path]:
    "Notebooks that make a room of this floor, and test files that import from it."
    tests, uses = sorted((root / "tests").glob("test_*.py")), re.compile(rf"\bcpvae\.{floor}\b")
    return [path for path in notebooks(root) if home(path).split(".")[0] == floor] + [
        path for path in tests if uses.search(path.read_text(encoding="utf-8"))
    ]


def chosen_for(mutant: Mutant, runs: dict[str, list]) -> list[list[str]]:
    "What to run, in this order: quick tests at once, notebooks one by one, slower tests at once."
    quick, books, slow, spent = [], [], [], 0.0
    for test, (seconds, files) in sorted(runs.items(), key=lambda run: run[1][0]):
        ran = {*files.get(mutant.file, [])}
        if ran and (mutant.lines is None or ran.intersection(mutant.lines)):
            if spent and spent + seconds > BUDGET:
                break
            spent += seconds
            book = test.endswith(".ipynb")
            (books if book else quick if seconds < QUICK else slow).append(test)
    return [some for some in (quick, *([book] for book in books), slow) if some]


def judge(mutant: Mutant, runs: dict[str, list], root: Path) -> str:  # "" if it survived
    "What finds a fault."
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copytree(root / "cpvae", folder / "cpvae")
        (folder / "cpvae" / mutant.file).write_text(mutant.source(), encoding="utf-8")
        for n, some in enumerate(chosen_for(mutant, runs)):
            log = folder / f"{n}.log"
            limit = 60 + 10 * sum(runs[test][0] for test in some)
            status = run_with(folder, root, some, log, seconds=limit)
            if status is None:
                return f"{some[0]} did not end"
            if status:
                told = log.read_text(encoding="utf-8", errors="replace")
                failed = re.search(r"^(?:FAILED|ERROR) (\S+)", told, re.M)
                return failed[1] if failed else f"{some[0]} ended with {status}"
    return ""


def verdicts(floor: str, n: int, root: Path, out: Path) -> list[dict]:
    "Try N faults of a floor, but for those that were tried before; what became of each."
    suites, known, found, rows = suites_of(floor, root), {}, {}, []
    runs, tests, kept = (
        executed(suites, out / "runs", root),
        digest(*suites),
        out / f"{floor}.jsonl",
    )
    if kept.exists():
        lines = kept.read_text(encoding="utf-8").splitlines()
        known = {verdict["key"]: verdict for verdict in map(json.loads, lines)}
    for path in modules(root):
        name = path.relative_to(root / "cpvae").as_posix()
        if name.startswith(f"{floor}/"):
            found |= {m: digest(path) for m in mutants_of(path.read_text(encoding="utf-8"), name)}
    for mutant in sorted(found, key=lambda mutant: mutant.key)[:n]:
        row = known.get(mutant.key, {})
        if row.get("module") != found[mutant] or not (row["by"] or row["tests"] == tests):
            about = ("key", "file", "line", "function", "kind", "before", "after")
            row = {name: getattr(mutant, name) for name in about}
            begun, row["by"] = time.monotonic(), judge(mutant, runs, root)
            row |= {"seconds": time.monotonic() - begun, "module": found[mutant], "tests": tests}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print("killed" if row["by"] else "LEFT  ", told(row), row["by"], flush=True)
        rows.append(row)
    return rows


def told(row: dict) -> str:
    "A fault, in a line."
    what = f"{row['function'] or 'outside'}, {row['kind']}: {row['before']} → {row['after']}"
    return f"cpvae/{row['file']}:{row['line']} {what}"


def main(
    floors: list[str], n: int, root: Path = ROOT, out: Path | None = None
) -> pd.DataFrame:  # floor, tried, killed, left, survival, low, high
    "Try N faults of each floor; print, and write, how many survive, and which."
    out = out or root / "results" / "mutants"
    table, survivors = [], []
    for floor in floors:
        rows = verdicts(floor, n, root, out)
        left = [told(row) for row in rows if not row["by"]]
        ends = binomtest(len(left), len(rows)).proportion_ci(method="wilson")
        counts = {"tried": len(rows), "killed": len(rows) - len(left), "left": len(left)}
        share = {"survival": len(left) / len(rows), "low": ends.low, "high": ends.high}
        table.append({"floor": floor} | counts | share)
        survivors += left
    table = pd.DataFrame(table)
    table.to_csv(out / "mutants.csv", index=False, float_format="%.3g")
    (out / "survivors.txt").write_text("".join(f"{one}\n" for one in survivors), encoding="utf-8")
    print(*survivors, table.round(3).to_string(index=False), sep="\n")
    return table


if __name__ == "__main__":
    size = next((int(word) for word in sys.argv[1:] if word.isdigit()), 50)
    main([word for word in sys.argv[1:] if not word.isdigit()] or list(FLOORS), size)
