"""Run notebooks from top to bottom in fresh kernels and keep their outputs: all of them, or those
named.

Old outputs are cleared first, and a notebook that stops with an error keeps the file it had.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from project import ROOT, notebooks, run, tool


def refresh(path: Path) -> float:
    "Give one notebook fresh outputs; the seconds that took."
    start = time.monotonic()
    draft = path.with_name(f".{path.name}")
    shutil.copy(path, draft)
    steps = [
        (tool("nbdev_clean"), "--clear_all", "--fname", str(draft)),
        (tool("exec_nb"), draft.name, "--exc_stop", "--dest", draft.name),
        (tool("nbdev_clean"), "--fname", str(draft)),
    ]
    try:
        for step in steps:
            if (done := run(*step, cwd=path.parent, quiet=True)).returncode:
                sys.exit(
                    f"refresh: {path.name} failed; it keeps its old outputs\n{done.stderr[-4000:]}"
                )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return time.monotonic() - start


if __name__ == "__main__":
    for path in [Path(name).resolve() for name in sys.argv[1:]] or notebooks():
        print(f"{path.relative_to(ROOT)} ", end="", flush=True)
        print(f"{refresh(path):.1f} s", flush=True)
