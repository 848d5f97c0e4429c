"""What a notebook says of the committed tables it reads: chapters and studies share it.

Chapters call `import_module("measured")` where they use it: the site runs their import statements
in another folder, where this file is not.
"""

import json
from pathlib import Path
from typing import Any

from IPython.display import Markdown

RESULTS = Path(__file__).parent / "results"


def entry(
    name: str,  # of a table, without .csv
    folder: str | Path = RESULTS,  # of tables and their provenance.json
) -> dict[str, Any]:  # command, created, data, settings, seeds, versions, code, sha256
    "Where a table comes from, as the tool that made it wrote."
    return json.loads((Path(folder) / "provenance.json").read_text(encoding="utf-8"))[name]


def said(
    values: dict[str, Any],  # by name
    between: str = " ",  # name and value
) -> str:  # "torch 2.13.0, numpy 2.4.6"
    "Names and values in a line; what is nested stays in provenance.json."
    plain = {k: v for k, v in values.items() if not isinstance(v, (dict, list))}
    return ", ".join(f"{k}{between}{v}" for k, v in plain.items())


def provenance(
    *names: str,  # of tables, without .csv
    folder: str | Path = RESULTS,  # of tables and their provenance.json
    settings: bool = False,  # say them too
) -> Markdown:  # a line for all tables of the same origin
    "When, how and from what tables were made."
    lines: dict[str, list[str]] = {}
    for name in names:
        about = entry(name, folder)
        facts = [f"`{about['command']}`, {about['created']}", said(about["versions"])]
        facts += [f"code {about['code']}"] if about["code"] else []
        if about["data"]:
            files = [f"{file} ({digest[:16]})" for file, digest in about["data"].items()]
            facts.append("from " + " and ".join(files))
        facts += [said(about["settings"], ": ")] if settings else []
        lines.setdefault("; ".join(facts), []).append(f"`{name}.csv`")
    return Markdown("\n".join(f"- {', '.join(files)}: {facts}" for facts, files in lines.items()))
