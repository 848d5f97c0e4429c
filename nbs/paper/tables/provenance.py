"""Where committed tables come from: a provenance.json beside them has an entry for each.

An entry says with which command its table was made, when (UTC), from which files, with which
settings, seeds, versions and code, and what the table's bytes are: `wrong` finds a table that was
changed by hand.
"""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from sources import ROOT

from cpvae.io.write import locked

RESULTS = ROOT / "nbs" / "results"
FILE = "provenance.json"  # beside the tables
PACKAGES = ("cpvae", "torch", "numpy", "pandas", "scipy", "scikit-learn")
KEYS = ("command", "created", "data", "settings", "seeds", "versions", "code", "sha256")


def digest(
    path: Path,  # of a file
) -> str:  # 64 hexadecimal digits
    "SHA-256 of a file."
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(
    package: Path = ROOT / "cpvae",  # folder of the sources
) -> str:  # 16 hexadecimal digits
    "The start of the SHA-256 of all modules, their names included; how lines end does not matter."
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.update(f"{path.relative_to(package).as_posix()} {len(text)}\n{text}".encode())
    return found.hexdigest()[:16]


CODE = code_digest()  # taken before the work, during which the sources may change


def command(
    sources: Iterable[Path] = (),  # files that were read
    typed: list[str] | None = None,  # script and arguments; None: those of this process
) -> str:  # for people: "python nbs/paper/tables/sizes.py DATA"
    "What was typed, without folders of this machine: that of the sources is DATA."
    script, *arguments = sys.argv if typed is None else typed
    path, files = Path(script).resolve(), {file.parent.resolve() / file.name for file in sources}
    inside = path.is_relative_to(ROOT)
    words = ["python", path.relative_to(ROOT).as_posix() if inside else path.name]
    for argument in arguments:
        given = Path(argument)
        if given.parent.resolve() / given.name in files:
            words.append(f"DATA/{given.name}")
        elif argument and given.resolve() in {file.parent for file in files}:
            words.append("DATA")
        else:
            words.append(re.sub(r"[^=]*[/\\](?=[^/\\])|[/\\]+$", "", argument))
    return " ".join(words)


def machine() -> dict[str, Any]:  # cores, system, load
    "What a benchmark's seconds depend on; the load is that of the last five minutes."
    load = round(os.getloadavg()[1], 1) if hasattr(os, "getloadavg") else None
    cores = f"{os.cpu_count()} ({platform.machine()})"
    return {"cores": cores, "system": platform.system(), "load at the end": load}


def entries(
    folder: Path = RESULTS,  # of tables
) -> dict[str, dict[str, Any]]:  # name of a table to its entry; empty without a file
    "All that is known of a folder's tables."
    path = folder / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def replace(
    path: Path,  # to write
    text: str,  # its new content
) -> None:
    "Write a file as a whole: who reads it meanwhile finds the old one."
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8", newline="\n")
    os.replace(draft, path)


def write_entry(
    name: str,  # of a table, without .csv
    entry: Mapping[str, Any],  # `KEYS` but for sha256, which is taken from the table as it stands
    folder: Path = RESULTS,  # of the table
) -> None:
    "Put a table's entry among the others, which stay; the folder's lock is held by the caller."
    known = entries(folder) | {name: {**entry, "sha256": digest(folder / f"{name}.csv")}}
    text = json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False, default=list)
    replace(folder / FILE, text + "\n")


def write_table(
    name: str,  # without .csv
    table: pd.DataFrame,  # its index is not written
    *,
    settings: Mapping[str, Any],  # JSON-able: what the tool's constants say
    sources: Iterable[Path] = (),  # files it was made from
    seeds: Iterable[int] = (),  # of divisions, weights and draws
    digits: int = 5,  # significant ones of each number
    packages: Iterable[str] = (),  # used beside `PACKAGES`
    folder: Path = RESULTS,  # of the table and of its provenance.json
) -> None:
    "Write a table and where it comes from."
    sources = [*sources]
    used = {"python": platform.python_version()} | {p: version(p) for p in (*PACKAGES, *packages)}
    entry = {
        "command": command(sources),
        "created": datetime.now(UTC).date().isoformat(),
        "data": {file.name: digest(file) for file in sorted({*sources})},
        "settings": settings,
        "seeds": [*seeds],
        "versions": used,
        "code": CODE,
    }
    text = table.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n")
    with locked(folder / ".provenance.lock"):
        replace(folder / f"{name}.csv", text)
        write_entry(name, entry, folder)


def wrong(
    folder: Path = RESULTS,  # of tables
) -> list[str]:  # a line for each fault
    "What tables and entries say of each other that is not so."
    known, tables = entries(folder), {path.stem: path for path in sorted(folder.glob("*.csv"))}
    found = [f"{name}.csv has no entry" for name in tables if name not in known]
    found += [f"there is no {name}.csv" for name in known if name not in tables]
    for name, entry in known.items():
        if missing := [key for key in KEYS if key not in entry]:
            found.append(f"{name} does not say its {', '.join(missing)}")
        if name in tables and entry.get("sha256") != digest(tables[name]):
            found.append(f"{name}.csv is not what its tool wrote")
    return found
