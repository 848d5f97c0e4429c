"""Write nbs/gallery.qmd, every figure of the paper's studies on one page, and nbs/llms.txt, what
each page of the site is about.
"""

import json
import re
from pathlib import Path
from posixpath import normpath

from project import ROOT, notebooks, settings

NUMBER = re.compile(r"^\d+[a-z]?_")  # of a notebook that makes a module: its page goes without
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")  # of a study, seen from its folder


def head(path: Path) -> tuple[str, str]:
    "Title and description of a notebook, from its first cell."
    lines = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()
    said = [line.lstrip("> ") for line in lines if line.startswith(">")]
    return lines[0].lstrip("# "), " ".join(said)


def figures(path: Path) -> list[tuple[str, str]]:
    """Id and caption of each cell that shows a picture; the caption is the next cell's text, if
    that is in italics.
    """
    cells, found = json.loads(path.read_text(encoding="utf-8"))["cells"], []
    for cell, after in zip(cells, [*cells[1:], {"source": []}], strict=True):
        if any("image/png" in out.get("data", {}) for out in cell.get("outputs", [])):
            caption = "".join(after["source"]).strip().split("\n\n")[0]
            found.append(
                (
                    cell["id"],
                    caption if caption.startswith("*") and not caption.startswith("**") else "",
                )
            )
    return found


def gallery(root: Path = ROOT) -> str:
    "The page of figures."
    parts = [
        "---\ntitle: Gallery\n"
        "description: Every figure of the paper's studies, each with its caption\n---\n"
    ]
    for path in notebooks(root):
        if path.parent.name == "paper" and (shown := figures(path)):
            name = path.relative_to(root / "nbs").as_posix()
            parts.append(f"## [{head(path)[0]}]({name})\n")
            for cell, caption in shown:
                seen_from_here = LINK.sub(lambda m: "](" + normpath("paper/" + m[1]), caption)
                parts.append(f"{{{{< embed {name}#{cell} >}}}}\n\n{seen_from_here}\n")
    return "\n".join(parts)


def llms(root: Path = ROOT) -> str:
    "The site's pages in a list that a program can read."
    facts, groups = settings(root), {"Pieces": [], "The paper as notebooks": []}
    site = f"{facts['doc_host'].rstrip('/')}/{facts['doc_baseurl'].strip('/')}".rstrip("/")
    for path in notebooks(root):
        title, description = head(path)
        group = "The paper as notebooks" if path.parent.name == "paper" else "Pieces"
        page = NUMBER.sub("", path.relative_to(root / "nbs").with_suffix("").as_posix())
        groups[group].append(f"- [{title}]({site}/{page}.html): {description}")
    return (
        "\n\n".join(
            [
                f"# {facts['lib_name']}",
                f"> {facts['description']}",
                *(f"## {group}\n\n" + "\n".join(lines) for group, lines in groups.items() if lines),
            ]
        )
        + "\n"
    )


def write(root: Path = ROOT) -> None:
    "Bring both files in step with the notebooks."
    (root / "nbs" / "gallery.qmd").write_text(gallery(root), encoding="utf-8")
    (root / "nbs" / "llms.txt").write_text(llms(root), encoding="utf-8")


if __name__ == "__main__":
    write()
