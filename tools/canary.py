"""Prove that the notebook tests can fail.

In a copy of the project whose notebooks are replaced by one that is right, `make notebooks` must
pass and must really have run it; with one beside it that has a syntax error, or a false assertion,
it must fail and name the culprit.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from project import ROOT, run

GOOD = (
    "import cpvae\nfrom pathlib import Path\n"
    "assert cpvae.__version__\nPath('it_ran').write_text(cpvae.__file__)"
)
BAD = {"syntax_error": "def broken(:\n    pass", "false_assertion": "assert 1 + 1 == 3"}


def write(path: Path, *cells: str) -> None:
    "Write a notebook of code cells."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, path)


def tested(copy: Path) -> tuple[bool, str]:
    """Does `make notebooks` pass in the copy, run with the environment that runs this; and what it
    printed.
    """
    venv = Path(sys.executable).parent.parent
    done = run(
        "make", "-o", str(venv / ".ready"), "notebooks", f"VENV={venv}", cwd=copy, quiet=True
    )
    return done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    "Run the gate."
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        for name in ["cpvae", "Makefile", "settings.ini", "setup.py", "constraints.txt"]:
            take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            take(ROOT / name, copy / name)
        nbs = copy / "nbs"
        nbs.mkdir()
        write(nbs / "good.ipynb", GOOD)
        passed, output = tested(copy)
        proof = nbs / "it_ran"
        if not passed or not proof.exists():
            sys.exit(
                "canary: a notebook that is right"
                f" {'was not run' if passed else 'failed'}\n{output}"
            )
        if not Path(proof.read_text()).is_relative_to(copy.resolve()):
            sys.exit(f"canary: the copy tested another package, {proof.read_text()}")
        for name, source in BAD.items():
            write(nbs / f"{name}.ipynb", "x = 1", source, "y = 2")
            passed, output = tested(copy)
            if passed or f"{name}.ipynb" not in output:
                sys.exit(
                    f"canary: a notebook with a {name.replace('_', ' ')}"
                    f" {'passed' if passed else 'was not named'}\n{output}"
                )
            (nbs / f"{name}.ipynb").unlink()
        if not tested(copy)[0]:
            sys.exit("canary: the copy still fails without the broken notebooks")
    print(
        "canary: a right notebook passes; a syntax error and a false assertion each fail and are"
        " named"
    )


if __name__ == "__main__":
    main()
