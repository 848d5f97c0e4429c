"""Fail unless package, notebooks and README say the same, and what git has is what the notebooks
say.

The package is exported anew (`export.py`). Then notebooks are cleaned, and README.md and the site's
gallery and list of pages rebuilt. The gate fails if any of this changed a file, and, in a git
checkout, if something is neither committed nor staged.
"""

import hashlib
import re
import shutil
import sys
from pathlib import Path

import readme
import site_pages
from export import export
from project import ROOT, modules, notebooks, run, tool

# as git writes it, and as a cell of its own
CONFLICT = re.compile(r"^\W*(<{7} \S|>{7} \S)", re.MULTILINE)


def conflicted(paths: list[Path]) -> list[Path]:
    "Those of `paths` that still hold the marks of a merge conflict."
    return [p for p in paths if CONFLICT.search(p.read_text(encoding="utf-8"))]


def snapshot(root: Path = ROOT) -> dict[str, str]:
    "A digest of each file that the gate may write."
    watched = [
        *(root / "cpvae").rglob("*.py"),
        *notebooks(root),
        root / "pyproject.toml",
        root / "README.md",
        *(root / "README_files").rglob("*"),
        root / "nbs" / "gallery.qmd",
        root / "nbs" / "llms.txt",
    ]
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in watched
        if p.is_file()
    }


def unstaged(root: Path = ROOT) -> list[str]:
    """Lines of `git status --porcelain` for what is neither committed nor staged; none outside a
    git checkout.
    """
    if not shutil.which("git"):
        return []
    status = run("git", "-c", "safe.directory=*", "status", "--porcelain", cwd=root, quiet=True)
    return (
        [line for line in status.stdout.splitlines() if line[1] != " "]
        if status.returncode == 0
        else []
    )


def main() -> None:
    "Run the gate on this project."
    if bad := conflicted(notebooks()):
        sys.exit(
            "sync: merge conflicts left in " + ", ".join(str(p.relative_to(ROOT)) for p in bad)
        )
    before = snapshot()
    export()
    if run(tool("nbdev_clean")).returncode:
        sys.exit("sync: nbdev_clean failed")
    readme.write()
    site_pages.write()
    after = snapshot()
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    if changed:
        sys.exit(
            "sync: out of step until now, look at the difference and commit it:\n  "
            + "\n  ".join(changed)
        )
    if left := unstaged():
        sys.exit(
            "sync: neither committed nor staged (git status --porcelain):\n  " + "\n  ".join(left)
        )
    print(f"sync: {len(modules())} modules, {len(notebooks())} notebooks and README.md are in step")


if __name__ == "__main__":
    main()
