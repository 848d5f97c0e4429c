"""Fail unless every link within the project leads somewhere and every reference is in
nbs/references.bib.

Looks at the prose of all notebooks, what their cells display as Markdown, and Markdown files:
relative links and their #headings; citations such as `[@chow2022]`; and links to arXiv or a DOI,
which must be in the bibliography too. A commit after a name in backticks would be a citation for
Quarto; inside the backticks it is none.
"""

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

from project import ROOT, notebooks, settings

LINK = re.compile(r"\]\(((?:[^()\s]|\([^()\s]*\))+)\)")
SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
OWN = re.compile(re.escape(settings()["git_url"]) + r"/(blob|raw)/main/")  # a file of this project
CITATION = re.compile(r"(?<![A-Za-z0-9\\])@(\w(?:[\w:.#$%&+?<>~/-]*\w)?)")
PUBLISHED = re.compile(r"arxiv\.org/abs/([\d.]+)|doi\.org/(10\.[^\s\"]+)", re.IGNORECASE)


def prose(path: Path) -> str:
    """The Markdown of a file, blocks of code left out: of a notebook, its prose and what its cells
    display as Markdown.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        parts = []
        for cell in json.loads(text)["cells"]:
            parts += ["".join(cell["source"])] * (cell["cell_type"] == "markdown")
            parts += [
                "".join(out["data"]["text/markdown"])
                for out in cell.get("outputs", [])
                if "text/markdown" in out.get("data", {})
            ]
        text = "\n\n".join(parts)
    return re.sub(r"^ *(```+|~~~+).*?^ *\1", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(path: Path) -> set[str]:
    "What a link to a heading of this file may end with."
    text = re.findall(r"^#+ +(.+?) *$", prose(path), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s.-]", "", heading.lower()) for heading in text]
    return {re.sub(r"^[\W\d_]+", "", re.sub(r"\s+", "-", heading)) for heading in plain}


def references(root: Path) -> tuple[set[str], set[str]]:
    "Keys of the bibliography, and the arXiv numbers and DOIs in it, in lower case."
    text = (root / "nbs" / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{(\S+),", text, flags=re.MULTILINE)
    if twice := {key for key in keys if keys.count(key) > 1}:
        sys.exit(f"links: more than once in references.bib: {', '.join(sorted(twice))}")
    return set(keys), {number.lower() for number in re.findall(r"(?:eprint|doi) = \{(.+?)\}", text)}


def wrong(path: Path, keys: set[str], published: set[str]) -> list[str]:
    "What is wrong with the links and citations of one file."
    text, found = SPAN.sub("`code`", prose(path)), []
    for target in LINK.findall(text):
        file, _, heading = unquote(target).partition("#")
        if own := OWN.match(file):
            file = (ROOT / file[own.end() :]).as_posix()
        if number := PUBLISHED.search(target):
            if (number[1] or number[2]).lower() not in published:
                found.append(f"{target} is not in references.bib")
        elif re.match(r"\w+:", file):
            continue
        elif not (there := path.parent / file if file else path).exists():
            found.append(f"{target} leads nowhere")
        elif heading and there.suffix in (".ipynb", ".md") and heading not in headings(there):
            found.append(f"{target}: no such heading")
    for key in CITATION.findall(LINK.sub("]", text)):
        if key not in keys:
            found.append(
                f"@{key} is not in references.bib"
                + (
                    "; put a commit inside the backticks"
                    if re.fullmatch("[0-9a-f]{7,}", key)
                    else ""
                )
            )
    return [f"{path.name}: {what}" for what in dict.fromkeys(found)]


def main() -> None:
    "Run the gate on this project."
    keys, published = references(ROOT)
    files = (
        notebooks()
        + sorted(ROOT.glob("*.md"))
        + [p for end in ("md", "qmd") for p in sorted((ROOT / "nbs").rglob(f"*.{end}"))]
    )
    files = [
        path
        for path in files
        if not any(part.startswith((".", "_")) for part in path.relative_to(ROOT).parts)
    ]
    if found := [what for path in files for what in wrong(path, keys, published)]:
        sys.exit("links: " + "\n  ".join(found))
    print(f"links: all lead somewhere; {len(keys)} references, {len(files)} files")


if __name__ == "__main__":
    main()
