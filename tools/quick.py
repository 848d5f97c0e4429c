"""Test the part one is working on: `python tools/quick.py [PART ...]`.

A part is a floor of the package, such as `lsa`: the notebooks that make its modules and
tests/test_lsa.py. It may also be one module, `lsa.space` or `space`, or a test file. Without PART,
all that changed since the last commit. Tests marked slow are left out; `make test` runs everything.
"""

import re
import sys
from pathlib import Path

from project import ROOT, home, notebooks, run, tool


# {"lsa", "lsa.space", "space", "06_space"} of 06_space.ipynb; {"lsa"} of test_lsa.py
def names_of(path: Path) -> set[str]:
    "What a notebook or a test file may be called."
    if path.suffix == ".py":
        return {path.stem.removeprefix("test_")}
    made = home(path)
    return {path.stem, made, made.partition(".")[0], made.rpartition(".")[2]} - {""}


def changed() -> list[str]:
    "Notebooks, test files and modules that differ from the last commit, new ones included."
    status = run(
        "git",
        "-c",
        "safe.directory=*",
        "status",
        "--porcelain",
        "--untracked-files=all",
        quiet=True,
    ).stdout
    paths = [Path(line[3:].split(" -> ")[-1]) for line in status.splitlines()]
    found = {
        p.stem.removeprefix("test_")
        for p in paths
        if p.suffix in (".ipynb", ".py") and p.name[0] != "_"
    }
    return sorted(found)


def main(parts: list[str]) -> int:  # exit status
    "Run notebooks and quick tests of the parts that are named, or have changed."
    parts = set(parts or changed())
    of = [path.stem for path in notebooks() if names_of(path) & parts]
    tests = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").glob("test_*.py"))
        if names_of(path) & parts
    ]
    if not of + tests:
        found = (
            f"no notebook or test belongs to {' '.join(sorted(parts))}"
            if parts
            else "nothing has changed"
        )
        print(f"quick: {found}; name a part: make test-quick OF=lsa")
        return 2
    print("quick:", *of, *tests, flush=True)
    files = rf"^({'|'.join(map(re.escape, of))})\.ipynb$"
    steps = (
        [(tool("nbdev_test"), "--file_re", files, "--n_workers", "2", "--do_print", "--timing")]
        if of
        else []
    )
    steps += [(tool("pytest"), "-q", "-n", "2", "-m", "not slow", *tests)] if tests else []
    return max(run(*step).returncode for step in steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
