"""The gates themselves: each must fail on what it is there to catch."""

import ast
import csv
import inspect

import bounds
import export
import check_docs
import check_links
import checklist
import nbformat
import numpy as np
import pandas as pd
import paper
import pytest
import readme
import site_pages
import sync
from packaging.requirements import Requirement
from project import ROOT, modules, notebooks, settings

DOCUMENTED = """
LIMIT = 3  # most doses a compound can have


class Dose:
    "One concentration."

    value: float  # µM

    def times(
        self,
        factor: float,  # what to multiply by
        *,
        digits: int = 2,  # digits to keep
    ) -> float:  # µM
        "The dose times a factor."
        return round(self.value * factor, digits)


def report(
    # where to write
    path: str,
) -> None:
    "Write."
"""


def test_what_is_documented_passes():
    checker = check_docs.check(DOCUMENTED, "m")
    assert checker.missing == []
    assert checker.count == {"names": 4, "parameters and returns": 5}


@pytest.mark.parametrize(
    "gone, found",
    [
        ("  # most doses a compound can have", "constant without comment"),
        ('    "One concentration."\n', "Dose: no docstring"),
        ("  # µM\n\n", "field value"),
        ("  # what to multiply by", "parameter factor"),
        ("  # digits to keep", "parameter digits"),
        ('  # µM\n        "The', "return"),
        ('        "The dose times a factor."\n', "Dose.times: no docstring"),
        ("    # where to write\n", "parameter path"),
        (" -> None", "return"),
    ],
)
def test_what_is_undocumented_is_found(gone, found):
    kept = (
        '\n        "The'
        if '"The' in gone and gone.startswith("  #")
        else "\n\n"
        if gone.endswith("\n\n")
        else ""
    )
    assert gone in DOCUMENTED
    missing = check_docs.check(DOCUMENTED.replace(gone, kept, 1), "m").missing
    assert any(found in line for line in missing), missing


def test_parameters_that_share_a_line_are_found():
    missing = check_docs.check(
        'def f(\n    a: int, b: int,  # two numbers\n) -> None:\n    "F."\n', "m"
    ).missing
    assert missing == ["m.f: parameter a", "m.f: parameter b"]


def test_headers_written_by_nbdev_are_no_documentation():
    assert check_docs.check("# %% ../nbs/00_data.ipynb 4\nLIMIT = 3\n", "m").missing == [
        "m.LIMIT: constant without comment"
    ]


def test_a_return_without_annotation_needs_its_comment():
    source = 'def f(\n    a: int,  # a number\n):  # AnnData\n    "F."\n'
    assert check_docs.check(source, "m").missing == []
    assert check_docs.check(source.replace("  # AnnData", ""), "m").missing == ["m.f: return"]


def test_command_line_help_counts():
    source = (
        'def f(\n    a: Annotated[int, typer.Option(help="a number")] = 3,\n) -> None:\n    "F."\n'
    )
    assert check_docs.check(source, "m").missing == []


DOSED = """
from dataclasses import dataclass


@dataclass
class Dose:
    "A dose."
    value: float  # µM
    unit: str = "uM"  # as written


class Named(Dose):
    "One with a name."
    name: str = ""  # of the drug


class Shelf:
    "Where doses stand."

    def __init__(
        self,
        n: int,  # of places
    ):
        self.n = n


def times(
    dose,  # a `Dose`
    # how much more; the comment stands
    # above its line
    factor: float = 2.0,
    *more: int,  # and again
    digits: int = 3,  # kept: \\d
) -> Dose:  # the larger one
    "The dose times a factor. Raises ValueError for none."
    return dose


def _hidden(
    x: int,  # no business of a user
) -> None:
    "Private."
"""


def test_docments_become_docstrings():
    written = export.documented(
        DOSED, {"Dose": ["value : float", "    µM", "unit : str, default 'uM'", "    as written"]}
    )
    module = {}
    exec(written, module)
    assert inspect.getdoc(module["times"]).splitlines() == [
        "The dose times a factor. Raises ValueError for none.",
        "",
        "Parameters",
        "----------",
        "dose",
        "    a `Dose`",
        "factor : float, default 2.0",
        "    how much more; the comment stands above its line",
        "*more : int",
        "    and again",
        "digits : int, default 3",
        "    kept: \\d",
        "",
        "Returns",
        "-------",
        "Dose",
        "    the larger one",
    ]
    assert inspect.getdoc(module["Named"]).splitlines()[4:8] == [
        "value : float",
        "    µM",
        "unit : str, default 'uM'",
        "    as written",
    ]
    assert (
        inspect.getdoc(module["Named"]).endswith("name : str, default ''\n    of the drug")
        and inspect.getdoc(module["_hidden"]) == "Private."
    )
    assert inspect.getdoc(module["Shelf"]).endswith("n : int\n    of places")
    assert export.documented(written, {}) == written  # twice is once
    # and nothing else has changed
    assert ast.dump(without_docstrings(written)) == ast.dump(without_docstrings(DOSED))


def without_docstrings(source):
    "The tree of a source whose docstrings say nothing."
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body[0].value.value = ""
    return tree


def test_help_says_what_a_parameter_means():
    from cpvae.lsa.table import arithmetic
    from cpvae.model.vae import VAE

    assert "beta : float, default 1.0\n    weight of the KL divergence" in inspect.getdoc(VAE)
    assert "n_permutations : int, default 10000\n    relabellings of each pair" in inspect.getdoc(
        arithmetic
    )


def test_an_import_that_would_stop_the_site_is_found():
    head = [
        "#| export\nimport numpy as np",
        "#| hide\nfrom fastcore.test import test_eq\nCOLOUR = 'k'",
        "values = np.ones(3)",
    ]
    assert check_docs.unready([*head, "assert values.sum() == 3", "import math\nmath.pi"]) == []
    assert check_docs.unready([*head, "from math import sqrt\nsqrt(values[0])"]) == [
        "'from math import sqrt' needs values"
    ]
    assert check_docs.unready(
        [*head, "def f():\n    import math\n    return math.pi\nf() + values"]
    ) == ["'def f():' needs values"]


def broken(folder, *prose, output=""):
    """What the gate says of a notebook with this prose, beside a page with two headings, in a
    project that cites one paper.
    """
    (folder / "other.md").write_text("# Which one?\n\n## `wells`: 10 shuffles\n")
    cells = [nbformat.v4.new_markdown_cell(text) for text in prose]
    cells += (
        [
            nbformat.v4.new_code_cell(
                "x", outputs=[nbformat.v4.new_output("display_data", {"text/markdown": output})]
            )
        ]
        if output
        else []
    )
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "page.ipynb")
    return [
        what.split(": ", 1)[1].split(" ")[0].rstrip(":")
        for what in check_links.wrong(
            folder / "page.ipynb", {"chow2022"}, {"1312.6114", "10.1/s(3)a"}
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        (
            "# A b\n\n[up](#a-b) [there](other.md) [which](other.md#which-one)"
            " [w](other.md#wells-10-shuffles) [out](https://example.org/x)"
        ),
        "[@chow2022, p. 3] and @chow2022. Mail a@b.org, `file.py@1c91968`, `[no](link)`, \\@home",
        "[k](https://arxiv.org/abs/1312.6114) [l](https://doi.org/10.1/S(3)a)",
        "[whole](https://github.com/cpvae/cpvae/blob/main/CONTRIBUTING.md#where-things-are)",
        "```python\n@decorator\nx = [1](2)\n```",
    ],
)
def test_links_that_lead_somewhere_pass(tmp_path, text):
    assert broken(tmp_path, text) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("[a](gone.ipynb)", "gone.ipynb"),
        (
            "[a](https://github.com/cpvae/cpvae/blob/main/nbs/gone.ipynb)",
            "https://github.com/cpvae/cpvae/blob/main/nbs/gone.ipynb",
        ),
        ("[a](other.md#which)", "other.md#which"),
        ("[a](#gone)", "#gone"),
        ("[@chow2023]", "@chow2023"),
        ("[see @chow2022; @way2022]", "@way2022"),
        ("`file.py`@1c91968", "@1c91968"),
        ("[k](https://arxiv.org/abs/1312.6115)", "https://arxiv.org/abs/1312.6115"),
        ("[l](https://doi.org/10.1/S(3)b)", "https://doi.org/10.1/S(3)b"),
    ],
)
def test_links_that_lead_nowhere_are_found(tmp_path, text, found):
    assert broken(tmp_path, "good", text) == [found]
    assert broken(tmp_path, "good", output=f"| a | {text} |") == [found]


@pytest.mark.parametrize("mark", ["<" * 7 + " HEAD", ">" * 7 + " other"])
@pytest.mark.parametrize("line", ["{}\n", '    "`{}`"\n'])
def test_conflict_marks_are_found(tmp_path, mark, line):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    good.write_text('{\n "a < b << c <<<<<<<"\n}\n')
    bad.write_text("{\n" + line.format(mark) + "}\n")
    assert sync.conflicted([good, bad]) == [bad]


def test_modules_kept_by_hand_are_not_deleted(tmp_path):
    (tmp_path / "cpvae").mkdir()
    (tmp_path / "cpvae" / "__init__.py").write_text('__version__ = "1"\n')
    made = tmp_path / "cpvae" / "data.py"
    made.write_text(
        '"""Profiles."""\n\n# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/00_data.ipynb.\n'
    )
    assert modules(tmp_path) == [made]


def test_drafts_are_no_notebooks(tmp_path):
    for name in [
        "nbs/00_data.ipynb",
        "nbs/_draft.ipynb",
        "nbs/.00_data.ipynb",
        "nbs/paper/01_study.ipynb",
        "nbs/_old/a.ipynb",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [p.name for p in notebooks(tmp_path)] == ["00_data.ipynb", "01_study.ipynb"]


def index(tmp_path, *cells):
    "A project whose index holds these cells after the title."
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "00_data.ipynb").touch()
    (tmp_path / "nbs" / "map.png").touch()
    head = nbformat.v4.new_markdown_cell("# cpvae\n\n> One sentence.")
    nbformat.write(nbformat.v4.new_notebook(cells=[head, *cells]), tmp_path / "nbs" / "index.ipynb")
    return readme.build(tmp_path)


def test_readme_reads_without_the_site(tmp_path):
    text = nbformat.v4.new_markdown_cell(
        "::: {.callout-note}\nRead [data](00_data.ipynb), [more](https://example.org).\n:::\n"
        "![a map](map.png)"
    )
    hidden = nbformat.v4.new_code_cell("#| hide\nsecret = 1")
    figure = nbformat.v4.new_output(
        "display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "figure"}
    )
    files = index(tmp_path, text, hidden, nbformat.v4.new_code_cell("1 + 1", outputs=[figure]))
    said = files.pop("README.md").decode()
    assert said.startswith("# cpvae\n\n> One sentence.\n")
    assert (
        "[data](https://github.com/cpvae/cpvae/blob/main/nbs/00_data.ipynb),"
        " [more](https://example.org)" in said
    )
    assert "![a map](https://github.com/cpvae/cpvae/raw/main/nbs/map.png)" in said
    assert "```python\n1 + 1\n```" in said
    assert ":::" not in said and "secret" not in said and "---" not in said
    ((name, content),) = files.items()
    assert (
        name.startswith("README_files/index_")
        and f"(https://github.com/cpvae/cpvae/raw/main/{name})" in said
        and content.startswith(b"\x89PNG")
    )


def test_readme_out_of_step_is_noticed(tmp_path):
    files = index(tmp_path)
    readme.write(tmp_path)
    assert readme.current(tmp_path) == files
    (tmp_path / "README_files").mkdir()
    (tmp_path / "README_files" / "index_9_0.png").write_bytes(b"old")
    assert readme.current(tmp_path) != files
    readme.write(tmp_path)
    assert readme.current(tmp_path) == files


def test_the_site_has_its_settings():
    link = ROOT / "nbs" / "_quarto.yml"
    assert link.is_symlink() and link.resolve() == ROOT / "_quarto.yml"


def test_both_ends_of_the_bounds():
    required = {r.name: r for r in map(Requirement, settings()["requirements"].split())}
    newest, oldest = (
        dict(line.split("==") for line in bounds.bounds(which)) for which in ("newest", "oldest")
    )
    assert (
        list(newest) == ["torch"]
        and newest["torch"] == oldest["torch"]
        and f"torch=={newest['torch']}\n" in (ROOT / "constraints.txt").read_text()
    )
    for name, requirement in required.items():
        lowest = [part.version for part in requirement.specifier if part.operator == ">="]
        assert len(lowest) == 1 and oldest[name] in (
            lowest if name != "torch" else [newest["torch"]]
        ), name
    assert {"pytest", "nbdev"} <= set(oldest)


def test_a_table_made_anew_is_compared_by_numbers_and_words():
    old = pd.DataFrame(
        {
            "pair": ["a|b", "c|d"],
            "l2": [10.0, 5.0],
            "zero": [0.0, 0.0],
            "gap": [np.nan, 1.0],
            "seconds": 1.5,
        }
    )
    assert paper.difference(old, old.assign(seconds=2.5)) == 0
    assert np.isclose(paper.difference(old, old.assign(l2=[10.0, 5.01])), 0.001)
    for wrong in (
        old[::-1].reset_index(drop=True),
        old[:1],
        old.drop(columns="l2"),
        old.assign(gap=[1.0, 1.0]),
        old.assign(zero=[0.0, 0.1]),
        old.assign(pair=["a|b", "c|e"]),
    ):
        assert paper.difference(old, wrong) == np.inf


def test_a_tool_runs_again_if_anything_its_tables_follow_from_has_changed(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir(), out.mkdir()
    (data / "cells.csv").write_text("1")
    (out / "sizes.csv").write_text("a\n1\n")
    origin = paper.made_from("sizes", data)
    made = {"from": origin, "tables": {"sizes.csv": paper.digest(out / "sizes.csv")}}
    assert paper.made_from("sizes", data) == origin and paper.stands(made, origin, out)
    others = {
        paper.made_from("performance", data),
        paper.made_from("sizes", data, "another package"),
    }
    (data / "cells.csv").write_text("2")
    others |= {paper.made_from("sizes", data)}
    (data / "map.tsv").write_text("")
    others |= {paper.made_from("sizes", data)}
    assert len(others | {origin}) == 5 and not any(
        paper.stands(made, other, out) for other in others
    )
    assert not paper.stands({}, origin, out) and not paper.stands(
        {"from": origin, "tables": {}}, origin, out
    )
    (out / "sizes.csv").write_text("a\n2\n")
    assert not paper.stands(made, origin, out)
    (out / "sizes.csv").unlink()
    assert not paper.stands(made, origin, out)


def test_all_that_the_checklist_asks_is_answered():
    places = checklist.answers()
    with open(ROOT / "nbs" / "paper" / "checklist.csv", encoding="utf-8") as file:
        ids = {row["id"] for row in csv.DictReader(file)}
    assert set(places) == ids  # each claim has an answer, and nothing is answered that nobody asked


def test_the_gallery_shows_each_figure_of_a_study_with_its_caption(tmp_path):
    (tmp_path / "nbs" / "paper").mkdir(parents=True)
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells = [
        nbformat.v4.new_markdown_cell("# Figure 9\n> Nine."),
        nbformat.v4.new_code_cell("draw()", outputs=[picture], id="fig9"),
        nbformat.v4.new_markdown_cell(
            "*What to see, [here](08_figure.ipynb), [there](../06_lsa.ipynb).*\n\nMore."
        ),
        nbformat.v4.new_code_cell("bare()", outputs=[picture], id="bare"),
        nbformat.v4.new_code_cell("1", id="none"),
    ]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells), tmp_path / "nbs" / "paper" / "09_figure.ipynb"
    )
    page = site_pages.gallery(tmp_path)
    assert "## [Figure 9](paper/09_figure.ipynb)" in page
    says = "*What to see, [here](paper/08_figure.ipynb), [there](06_lsa.ipynb).*"
    assert f"{{{{< embed paper/09_figure.ipynb#fig9 >}}}}\n\n{says}\n" in page
    assert "#bare" in page and "#none" not in page and "More" not in page


def test_the_list_of_pages_names_every_notebook():
    said = site_pages.llms()
    assert (
        said.count("\n- [") == len(notebooks())
        and "/cpvae/nulls.html): " in said
        and "](https://cpvae.github.io/cpvae/index.html)" in said
    )
