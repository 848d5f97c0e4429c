"""Write README.md from nbs/index.ipynb, as the site shows it. With --check: fail if the file says
something else.

Figures go to README_files/. Links to notebooks and figures are whole addresses, so that they also
lead somewhere from the page of a package index.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
import yaml
from nbconvert import MarkdownExporter
from project import ROOT, settings

FIGURES = "README_files"


def processed(path: Path) -> nbformat.NotebookNode:
    """A notebook after the site's filter: exported and hidden cells gone, names linked, title in a
    raw cell.
    """
    from execnb.nbio import nb2str, read_nb
    from nbdev.processors import FilterDefaults

    os.environ["IN_TEST"] = "1"
    try:
        nb = read_nb(path)
        FilterDefaults()(nb)
    finally:
        del os.environ["IN_TEST"]
    nb = nbformat.reads(nb2str(nb), as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    return nb


def tidy(text: str, nbs: Path) -> str:
    "Markdown that reads well without Quarto, wherever it stands."
    home = settings()["git_url"]
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"^:::.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^#\| ?[\w-]+:.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(
        r"(!\[[^]]*\]\()([^)#:\s]+)",
        lambda m: f"{m[1]}{home}/raw/main/nbs/{m[2]}" if (nbs / m[2]).exists() else m[0],
        text,
    )
    text = re.sub(
        r"\]\(([^)#:\s]+)",
        lambda m: f"]({home}/blob/main/nbs/{m[1]}" if (nbs / m[1]).exists() else m[0],
        text,
    )
    text = text.replace(f"]({FIGURES}/", f"]({home}/raw/main/{FIGURES}/")
    text = re.sub(r"^[^\S\n]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def build(root: Path = ROOT) -> dict[str, bytes]:
    "What README.md and its figures should hold, by path from the top of the project."
    nb = processed(root / "nbs" / "index.ipynb")
    head = next(
        (yaml.safe_load(c.source.strip().strip("-")) for c in nb.cells if c.cell_type == "raw"), {}
    )
    nb.cells = [c for c in nb.cells if c.cell_type != "raw"]
    for cell in nb.cells:
        if "#| echo: false" in cell.source:
            cell.metadata["transient"] = {"remove_source": True}
    body, extra = MarkdownExporter().from_notebook_node(
        nb, resources={"unique_key": "index", "output_files_dir": FIGURES}
    )
    title = f"# {head.get('title', root.name)}\n\n" + (
        f"> {head['description']}\n\n" if "description" in head else ""
    )
    files = {"README.md": tidy(title + body, root / "nbs").encode()}
    return files | {name: content for name, content in extra.get("outputs", {}).items()}


def current(root: Path = ROOT) -> dict[str, bytes]:
    "What README.md and its figures hold now."
    paths = [root / "README.md", *sorted((root / FIGURES).glob("*"))]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths if p.is_file()}


def write(root: Path = ROOT) -> None:
    "Bring README.md and its figures in step with the notebook."
    wanted = build(root)
    for name in current(root).keys() - wanted.keys():
        (root / name).unlink()
    for name, content in wanted.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)


if __name__ == "__main__":
    os.chdir(ROOT)
    if "--check" not in sys.argv[1:]:
        write()
    elif build() != current():
        sys.exit("README.md is out of step with nbs/index.ipynb: make readme")
