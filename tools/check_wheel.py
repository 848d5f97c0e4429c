"""Fail unless the package builds, installs and imports where nothing but its own requirements is
installed.

An isolated build makes the source distribution and, from that, the wheel. The wheel goes into an
empty environment, beside links to what it requires, and what that requires in turn, as installed
here. Every module is imported in an empty folder, where neither nbdev nor fastcore is to be had.
"""

import sys
import tarfile
import tempfile
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from project import ROOT, modules, room, run, settings

PROBE = """
import importlib, importlib.metadata, importlib.util, pathlib, sys
for name in ["nbdev", "fastcore", "execnb", "pytest"]:
    assert importlib.util.find_spec(name) is None, f"{name} is installed: this proves nothing"
for name in sys.argv[2:]:
    importlib.import_module(name)
import cpvae
assert cpvae.__version__ == importlib.metadata.version("cpvae") == sys.argv[1], cpvae.__version__
assert pathlib.Path(cpvae.__file__).is_relative_to(sys.prefix), cpvae.__file__
"""


def must(*command: str, cwd: Path = ROOT) -> str:
    "Run a command and give its output, or stop with the end of it."
    done = run(*command, cwd=cwd, quiet=True)
    if done.returncode:
        sys.exit(f"wheel: failed: {' '.join(command[:6])}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def required(
    name: str,
    extras: frozenset[str] = frozenset(),
    seen: dict[tuple[str, str], Distribution] | None = None,
) -> dict[tuple[str, str], Distribution]:
    "All that a distribution requires where it runs, and what that requires; by name and extra."
    seen = {} if seen is None else seen
    for requirement in map(Requirement, distribution(name).requires or []):
        if any(
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            for extra in extras | {""}
        ):
            wanted = [(requirement.name.lower(), extra) for extra in requirement.extras | {""}]
            if new := [each for each in wanted if each not in seen]:
                seen |= dict.fromkeys(new, distribution(requirement.name))
                required(requirement.name, frozenset(requirement.extras), seen)
    return seen


def link(found: Distribution, packages: Path) -> None:
    "Links to a distribution's folders and modules."
    for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(found.locate_file(top))


def wanted(path: Path) -> bool:
    "Whether a file belongs into the source distribution."
    parts = path.relative_to(ROOT).parts
    return (
        path.is_file()
        and not path.name.endswith((".pyc", ".part"))
        and not any(p[0] in "._" and p != "__init__.py" for p in parts if p[:2] != "__")
    )


def main() -> None:
    "Run the gate on this project."
    names = ["cpvae", *(room(p) for p in modules() if p.name != "_modidx.py")]
    if missing := {"cpvae.model.vae", "cpvae.lsa.space"} - set(names):
        sys.exit(f"wheel: the package lacks {', '.join(sorted(missing))}")
    version = settings()["version"]
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        must(sys.executable, "-m", "build", "--outdir", str(tmp / "dist"), str(ROOT))
        (source,) = list((tmp / "dist").glob("*.tar.gz")) or [
            sys.exit("wheel: no source distribution was built")
        ]
        with tarfile.open(source) as packed:
            there = {name.partition("/")[2] for name in packed.getnames()}
        needed = [
            p
            for folder in ("cpvae", "tests", "tools", "nbs")
            for p in sorted((ROOT / folder).rglob("*.*"))
            if wanted(p)
        ]
        if lost := [p for p in needed if p.relative_to(ROOT).as_posix() not in there]:
            sys.exit(
                f"wheel: the source distribution lacks {lost[0].relative_to(ROOT)} and"
                f" {len(lost) - 1} more"
            )
        (wheel,) = (tmp / "dist").glob("*.whl")
        venv.create(tmp / "venv")
        python = str(tmp / "venv" / "bin" / "python")
        must(
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "-q",
            "--no-compile",
            "--no-deps",
            str(wheel),
        )
        (packages,) = (tmp / "venv").glob("[lL]ib/**/site-packages")
        for found in {each.name: each for each in required("cpvae").values()}.values():
            link(found, packages)
        (tmp / "empty").mkdir()
        must(python, "-c", PROBE, version, *names, cwd=tmp / "empty")
        said = must(str(tmp / "venv" / "bin" / "cpvae"), "--version", cwd=tmp / "empty")
        if version not in said:
            sys.exit(f"wheel: cpvae --version says {said!r}, not {version}")
        print(
            f"wheel: {wheel.name} installs, and {len(names)} modules import without development"
            " tools"
        )


if __name__ == "__main__":
    main()
