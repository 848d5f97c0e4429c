"""What must hold for the project as a whole: versions agree, notebooks keep to the rules, imports
stay light and one-way.
"""

import ast
import base64
import importlib.metadata
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import ROOT, modules, notebooks, room, settings

CFG = settings()
NBS = {p.relative_to(ROOT / "nbs").as_posix(): nbformat.read(p, as_version=4) for p in notebooks()}


def code(name):
    "The sources of a notebook's code cells."
    return [c.source for c in NBS[name].cells if c.cell_type == "code"]


def directives(source):
    "The nbdev directives at the head of a cell: name to arguments."
    return {
        m[1]: m[2].split() for m in re.finditer(r"^#\|\s*(\w+)[ \t]*(.*)$", source, re.MULTILINE)
    }


HOMES = {
    name: [d["default_exp"][0] for s in code(name) if "default_exp" in (d := directives(s))]
    for name in NBS
}
ORDER = [home for name in NBS for home in HOMES[name]]
each_notebook = pytest.mark.parametrize("name", NBS)
each_module = pytest.mark.parametrize(
    "path", [p for p in modules() if p.name != "_modidx.py"], ids=room
)


def python(script, *arguments):
    "Run a script in a fresh interpreter, in the project's folder."
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_version_everywhere():
    import cpvae

    changes = re.findall(
        r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert CFG["version"] == cpvae.__version__ == changes[0] and "version" not in citation
    assert importlib.metadata.version("cpvae") == CFG["version"]


def test_the_paper_is_cited():
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    assert paper["doi"] == "10.1371/journal.pcbi.1009888"
    assert [a["family-names"] for a in paper["authors"]] == ["Chow", "Singh", "Carpenter", "Way"]


def test_every_notebook_has_a_module_of_its_own():
    exporting = [
        name
        for name in NBS
        if any({"export", "exports", "exporti"} & directives(s).keys() for s in code(name))
    ]
    assert exporting, "no notebook exports anything"
    assert all(len(HOMES[name]) == 1 for name in exporting), HOMES
    twice = [m for m, n in Counter(ORDER).items() if n > 1]
    assert not twice, f"two notebooks export to {twice}"
    assert set(ORDER) == {
        room(p).removeprefix("cpvae.") for p in modules() if p.name != "_modidx.py"
    }


def test_no_two_pages_have_one_name():
    pages = Counter(re.sub(r"^\d+[a-z]?_", "", name) for name in NBS if "/" not in name)
    assert max(pages.values()) == 1, pages.most_common(3)


@each_notebook
def test_no_notebook_escapes_the_tests(name):
    head = "\n".join(c.source for c in NBS[name].cells if c.cell_type in ("raw", "markdown"))
    assert not re.search(r"^-?\s*skip_exec\s*:\s*true", head, re.MULTILINE | re.IGNORECASE)
    assert not any("eval" in directives(s) for s in code(name)), (
        "guard a cell with `if` and print why, instead of eval: false"
    )


def outside_signatures(source: str) -> list[str]:
    "Lines of a cell but for directives, empty ones, and documented parameters and fields."
    lines = source.splitlines()
    left = {i for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#|")}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            left -= set(range(node.lineno + 1, node.body[0].lineno))
        if isinstance(node, ast.ClassDef):
            for last, field in pairwise(node.body):
                if isinstance(field, ast.AnnAssign):
                    left -= set(range(last.end_lineno + 1, field.end_lineno + 1))
    return [lines[i - 1] for i in sorted(left)]


def test_a_signature_does_not_count_and_its_body_does():
    cell = "#| export\n@cache\ndef f(\n    a,  # one\n    # two,\n    b,\n) -> int:\n    # why\n\n"
    assert outside_signatures(cell + "    return a + b") == ["@cache", "def f(", "    return a + b"]


@each_notebook
def test_notebook_sizes(name):
    assert (ROOT / "nbs" / name).stat().st_size < 600_000
    for source in code(name):
        if {"export", "exports"} & directives(source).keys():
            lines = outside_signatures(source)
            assert len(lines) <= 40, f"{len(lines)} lines in one exported cell: {lines[0]}"
    for cell in NBS[name].cells:
        for output in cell.get("outputs", []):
            if image := output.get("data", {}).get("image/png"):
                assert len(base64.b64decode(image)) < 120_000, (
                    "a figure of 120 kB or more (is it retina?)"
                )


@each_notebook
def test_outputs_are_clean(name):
    for cell in NBS[name].cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            text = output.get("text", "")
            assert "Warning:" not in text and not re.search(r"\d+%\|", text), (
                f"a warning or a progress bar: {text[:200]}"
            )


@each_notebook
def test_workers_do_not_outlive_their_notebook(name):
    "Else the process that runs notebooks as tests waits five minutes for idle ones."
    used = [
        i for i, source in enumerate(code(name)) if re.search(r"jobs=(-1|[2-9])|jobs in ", source)
    ]
    ended = [
        i for i, source in enumerate(code(name)) if "get_reusable_executor().shutdown()" in source
    ]
    assert not used or max(ended, default=-1) >= max(used)


@each_module
def test_no_development_tool_at_run_time(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        (n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    names |= {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    assert not names & {"nbdev", "fastcore", "execnb", "IPython", "pytest"}


def test_each_floor_has_an_error_of_its_own():
    from cpvae import errors

    ours = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.CpvaeError)
    }
    raised = defaultdict(set)
    for path in (p for p in modules() if p.name != "_modidx.py"):
        floor = room(path).split(".")[1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and getattr(node.exc.func, "id", "") in ours
            ):
                raised[floor].add(node.exc.func.id)
    assert all(len(names) == 1 for names in raised.values()), raised
    own = Counter(
        name
        for floor, names in raised.items()
        for name in names
        if floor not in ("errors", "paper")
    )
    assert set(own.values()) == {1} and set(own) == ours - {"CpvaeError"}, own


@each_module
def test_what_begins_with_an_underscore_stays_on_its_floor(path):
    own = room(path).split(".")[1:]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("cpvae")
        ):
            above = own[: len(own) - node.level] if node.level else []
            home = [*above, *(node.module or "").removeprefix("cpvae").strip(".").split(".")]
            hidden = [
                alias.name
                for alias in node.names
                if alias.name.startswith("_") and alias.name != "__version__"
            ]
            assert not hidden or home[0] == own[0], (home, hidden)


@each_module
def test_nothing_is_pickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        a.name.split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, (ast.Import, ast.ImportFrom))
        for a in n.names
    }
    imported |= {
        (n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not imported & {"pickle", "cloudpickle", "dill"}
    assert not called & {"torch.save", "torch.load", "joblib.dump", "joblib.load", "pd.read_pickle"}
    assert not any(c.endswith(".to_pickle") for c in called)


@pytest.mark.parametrize("module", ["cpvae", "cpvae.profiles.read", "cpvae.cli.commands"])
def test_light_imports(module):
    heavy = {"torch", "anndata", "sklearn", "umap", "matplotlib"}
    done = python(f"import sys, {module}\nprint(*{heavy} & set(sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"{module} imports what takes seconds"


IMPORT_EACH = """
import importlib, sys
import numpy as np

for name in sys.argv[1:]:  # each by itself, as if nothing of the package had been imported before
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "cpvae"]:
        del sys.modules[loaded]
    np.random.seed(1)
    before = str(np.random.get_state())
    importlib.import_module(name)
    if before != str(np.random.get_state()):
        print("importing", name, "draws random numbers")
"""


@pytest.mark.slow
def test_importing_leaves_no_trace():
    names = [room(p) for p in modules() if p.name != "_modidx.py"]
    done = python(IMPORT_EACH, "cpvae", *names)
    assert len(names) > 8 and (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def installed(requirement, seen):
    "Walk what a requirement brings into this environment: canonical name to installed version."
    name = canonicalize_name(requirement.name)
    key = (name, frozenset(requirement.extras))
    if key in seen:
        return
    dist = importlib.metadata.distribution(name)
    seen[key] = dist.version
    for line in dist.requires or []:
        child = Requirement(line)
        if child.marker is None or any(
            child.marker.evaluate({"extra": e}) for e in requirement.extras or {""}
        ):
            installed(child, seen)


@pytest.mark.skipif(sys.platform != "linux", reason="constraints.txt is resolved on Linux")
def test_constraints_pin_all_that_is_used():
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    pins = {canonicalize_name(k): v for k, v in pins.items()}
    seen = {}
    for line in (CFG["requirements"] + " " + CFG["dev_requirements"]).split():
        installed(Requirement(line), seen)
    used = {name: version.split("+")[0] for (name, _), version in seen.items()}
    # torch pins these itself, where it wants them
    gpu = {n for n in used if n.startswith(("nvidia-", "cuda-")) or n == "triton"}
    assert {n: v for n, v in used.items() if n not in gpu and pins.get(n) != v} == {}
