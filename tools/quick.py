"""Test the part one is working on: `python tools/quick.py [PART ...]`.

A part is what notebook, module and test file are called: `lsa` is nbs/06_lsa.ipynb and tests/test_lsa.py. Without PART, all
that changed since the last commit. Tests marked slow are left out; `make test` runs everything.
"""

import re
import sys
from pathlib import Path

from project import ROOT, notebooks, run, tool


def part_of(path: Path) -> str:  # "lsa" of 06_lsa.ipynb, test_lsa.py and lsa.py
    "What a file belongs to."
    return re.sub(r"^(\d\d[a-z]?_|test_)", "", path.stem)


def changed() -> list[str]:
    "Parts with files that differ from the last commit, new ones included."
    status = run("git", "-c", "safe.directory=*", "status", "--porcelain", "--untracked-files=all", quiet=True).stdout
    paths = [Path(line[3:].split(" -> ")[-1]) for line in status.splitlines()]
    return sorted({part_of(p) for p in paths if p.suffix in (".ipynb", ".py") and p.name[0] != "_"})


def main(parts: list[str]) -> int:  # exit status
    "Run notebooks and quick tests of the parts that are named, or have changed."
    parts = parts or changed()
    of = [path.stem for path in notebooks() if part_of(path) in parts]
    tests = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py")) if part_of(path) in parts]
    if not of + tests:
        found = f"no notebook or test belongs to {' '.join(parts)}" if parts else "nothing has changed"
        print(f"quick: {found}; name a part: make test-quick OF=lsa")
        return 2
    print("quick:", *of, *tests, flush=True)
    steps = [(tool("nbdev_test"), "--file_re", rf"^({'|'.join(map(re.escape, of))})\.ipynb$", "--n_workers", "2", "--do_print", "--timing")] if of else []
    steps += [(tool("pytest"), "-q", "-n", "2", "-m", "not slow", *tests)] if tests else []
    return max(run(*step).returncode for step in steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
