"""Run the notebooks' tests against the exported package, for `make coverage`.

In a notebook the exported cells define everything anew, so its tests never touch the package
itself. Here the first exported cell takes the module's names instead, the other exported cells are
dropped, and all that remains runs as it stands.
"""

import os
import sys
import time
from pathlib import Path

from execnb.shell import CaptureShell
from nbdev.process import NBProcessor
from project import ROOT, notebooks, settings

TAKE = (
    "import cpvae.{0} as _module\nglobals().update({{k: v for k, v in vars(_module).items() if not"
    " k.startswith('__')}})"
)
EXPORTS = {"export", "exports", "exporti"}


def against_package(nb, flags: set[str]) -> int:
    """Replace exported cells by the module they became, and drop cells with a flag; how many cells
    remain.
    """
    module = next(
        (c.directives_["default_exp"][0] for c in nb.cells if "default_exp" in c.directives_), None
    )
    exported = [c for c in nb.cells if EXPORTS & c.directives_.keys()]
    for i, cell in enumerate(exported):
        cell.source = TAKE.format(module) if i == 0 else ""
    for cell in nb.cells:
        if flags & cell.directives_.keys() or cell.directives_.get("eval:") == ["false"]:
            cell.source = ""
    return sum(c.cell_type == "code" and bool(c.source) for c in nb.cells)


def run_notebook(path: Path) -> tuple[int, str]:  # cells; the first error, "" if there was none
    "Run the cells of a notebook in its own folder, against the package that is imported."
    os.environ["IN_TEST"] = "1"
    os.chdir(path.parent)
    nb = NBProcessor(path, process=True).nb
    cells = against_package(nb, set(settings()["tst_flags"].split()))
    shell = CaptureShell(path, mpl_format="png")
    try:
        shell.run_all(nb, exc_stop=True)
    except BaseException:
        return cells, shell.prettytb(fname=path)
    return cells, ""


def main() -> None:
    "Run every notebook, and stop at the first error."
    sys.path.insert(0, str(ROOT))
    for path in notebooks():
        start = time.monotonic()
        cells, error = run_notebook(path)
        if error:
            sys.exit(f"coverage: {path.name} fails against the package\n{error}")
        print(
            f"{path.relative_to(ROOT)}: {cells} cells, {time.monotonic() - start:.1f} s", flush=True
        )


if __name__ == "__main__":
    main()
