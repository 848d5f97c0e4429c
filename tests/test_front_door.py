"""`import cpvae as cp`: few names, loaded when they are used, and each with its help."""

import ast
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cpvae as cp

SOURCE = ast.parse(Path(cp.__file__).read_text(encoding="utf-8"))
NAMES = sorted({*cp.__all__} - {"datasets"})


def typed():
    "What a type checker sees: name to module."
    (block,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    return {alias.asname: node.module or "" for node in block.body for alias in node.names}


def test_a_type_checker_sees_what_is_loaded():
    assert typed() == {"datasets": "", **cp._HOMES} and cp.__all__ == ["datasets", *cp._HOMES]
    assert dir(cp) == sorted([*cp.__all__, "__version__"]) and len(cp.__all__) <= 26


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_thing_of_its_module(name):
    thing = getattr(cp, name)
    assert thing.__module__ == f"cpvae.{cp._HOMES[name]}" and thing.__name__ == name
    assert getattr(cp, name) is thing


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CpvaeError"])
def test_help_says_what_each_parameter_means(name):
    thing = getattr(cp, name)
    told = inspect.getdoc(thing)
    takes = [p for p in inspect.signature(thing).parameters if p not in ("args", "kwargs")]
    assert all(f"\n{p} : " in told or f"\n{p}\n" in told or f"**{p}" in told for p in takes), (
        name,
        told,
    )


def test_no_name_hides_a_sub_package():
    rooms = {module.name for module in pkgutil.iter_modules(cp.__path__)}
    assert rooms & {*cp.__all__} == {"datasets"} and rooms - {"_modidx", "__main__"} == {
        *cp._FLOORS
    }
    assert all(inspect.ismodule(getattr(cp, room)) for room in cp._FLOORS)


def test_what_is_not_there_is_said():
    with pytest.raises(
        AttributeError, match="no attribute 'read_profile'; did you mean 'read_profiles'"
    ):
        cp.read_profile  # noqa: B018


USER = Path(__file__).parent / "typed_user.py"


@pytest.mark.slow
def test_a_type_checker_knows_every_name_of_the_front_door(tmp_path):
    text = USER.read_text(encoding="utf-8")
    assert {name for name in cp.__all__ if f"cp.{name}" not in text} == set()
    lines = text.splitlines()  # the same, asked what each asserted expression is
    asked = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "assert_type"
    ]
    for call in asked:
        indent = " " * call.col_offset
        lines[call.lineno - 1] = f"{indent}reveal_type({ast.unparse(call.args[0])})"
    (tmp_path / "seen.py").write_text("\n".join(lines))
    (tmp_path / "sealed.py").write_text(text)
    # Types of these libraries are told; some come without the mark that they are typed. Others,
    # which would take mypy a minute to read, do not show at the front door.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nfollow_imports = skip\n"
        "[mypy-cpvae.*]\nfollow_imports = silent\n"
        "[mypy-anndata.*,numpy.*,pandas.*,scipy.*,sklearn.*]\n"
        "follow_imports = silent\nfollow_untyped_imports = True\n"
    )
    how = ["--config-file=mypy.ini", f"--cache-dir={tmp_path}/cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *how, "sealed.py", "seen.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(Path(cp.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(("sealed", "seen"))]
    assert [line for line in said if ": error:" in line] == []
    found = [re.search(r'Revealed type is "(.+)"', line)[1] for line in said if "Revealed" in line]
    assert len(found) == len(asked) > 20 and "Any" not in found, found
