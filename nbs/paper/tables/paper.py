"""Make the result tables that the paper's studies read, and compare them with the committed ones:
`python nbs/paper/tables/paper.py DATA [TOOL ...]`.

DATA is a folder that holds the two public tables and the Repurposing Hub's map. Without TOOL, the
tools below run one after another; the studies also read what `models`, `selection`, `scoreboard`,
`nulls`, `screening`, `decoys` and `processing` made, which take longer and can be named. A table
agrees if rows and words are the same and numbers within one part in a thousand of the largest of
their column: on one kind of processor tables come out byte for byte, seconds aside; on another,
matrix products round differently, and training carries that on. Where a table comes from (dates,
versions, code) stands in nbs/results/provenance.json, which the tools write and nothing here
compares.

Fits are kept in results/fits, and results/paper.json says what each tool was made from: a tool
whose script, package, versions and data are as they were, and whose tables still stand, is not
run again.
"""

import hashlib
import io
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from sources import ROOT
from provenance import CODE, PACKAGES, RESULTS, digest, replace

TOOLS = ("sizes", "interpretation", "simulation", "performance")
UNSTEADY = ["seconds"]  # columns that differ from run to run
TOLERANCE = 1e-3
HERE = Path(__file__).resolve().parent
MADE = ROOT / "results" / "paper.json"  # tool to what it was made from and its tables' SHA-256


def difference(old: pd.DataFrame, new: pd.DataFrame) -> float:
    """Largest difference of a number, relative to the largest of its column; infinite where shape,
    words or gaps differ.
    """
    old, new = (t.drop(columns=UNSTEADY, errors="ignore") for t in (old, new))
    if list(old) != list(new) or len(old) != len(new):
        return float("inf")
    most = 0.0
    for column in old:
        a, b = old[column], new[column]
        if not pd.api.types.is_numeric_dtype(a) or a.dtype == bool:
            if not a.astype(str).equals(b.astype(str)):
                return float("inf")
            continue
        a, b = a.to_numpy(float), b.to_numpy(float)
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return float("inf")
        size = np.nanmax(np.abs(a), initial=0.0)
        apart = float(np.nanmax(np.abs(a - b), initial=0.0))
        most = max(most, apart / size if size else np.inf if apart else 0.0)
    return most


def committed(name: str) -> pd.DataFrame | None:
    "A result table as git has it; None for a new one."
    shown = subprocess.run(
        ["git", "show", f"HEAD:nbs/results/{name}"], cwd=ROOT, capture_output=True
    )
    return None if shown.returncode else pd.read_csv(io.BytesIO(shown.stdout))


def made_from(
    tool: str,  # a script of this folder, without .py
    data: Path,  # folder of the public tables
    package: str = CODE,  # digest of the package's sources
) -> str:  # 64 hexadecimal digits
    "What a tool's tables follow from: its script and what scripts share, package, versions, data."
    scripts = [HERE / f"{name}.py" for name in (tool, "sources", "provenance")]
    text = scripts[0].read_text(encoding="utf-8")
    beside = HERE.parent.glob("*.py")  # modules of the studies that it imports
    scripts += sorted(path for path in beside if f"from {path.stem} import" in text)
    files = [*scripts, *sorted(path for path in data.iterdir() if path.is_file())]
    said = [package, sys.version, *map(version, PACKAGES), *(digest(path) for path in files)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def stands(
    made: dict,  # of one tool: "from", and "tables", name of a file to SHA-256
    origin: str,  # see `made_from`
    folder: Path = RESULTS,  # of the tables
) -> bool:  # whether the tool need not run again
    "Whether a tool's tables are still those that it made from this very origin."
    same = made.get("from") == origin and bool(made["tables"])
    files = {folder / name: sha256 for name, sha256 in made["tables"].items()} if same else {}
    return same and all(path.is_file() and digest(path) == sha for path, sha in files.items())


if __name__ == "__main__":
    data, tools, wrong = Path(sys.argv[1]), sys.argv[2:] or TOOLS, []
    known = json.loads(MADE.read_text(encoding="utf-8")) if MADE.is_file() else {}
    for tool in tools:
        origin, started = made_from(tool, data), time.time()
        if stands(known.get(tool, {}), origin):
            names = known[tool]["tables"]
            print(f"{tool}: as made before")
        else:
            script = HERE / f"{tool}.py"
            subprocess.run([sys.executable, script, data], check=True)
            print(f"{tool}: {time.time() - started:.0f} s")
            written = [p for p in sorted(RESULTS.glob("*.csv")) if p.stat().st_mtime >= started]
            names = {path.name: digest(path) for path in written}
            known[tool] = {"from": origin, "tables": names}
            MADE.parent.mkdir(exist_ok=True)
            replace(MADE, json.dumps(known, indent=1) + "\n")
        for name in names:
            old = committed(name)
            apart = 0.0 if old is None else difference(old, pd.read_csv(RESULTS / name))
            said = "new" if old is None else "rows, columns or words differ"
            if old is not None and apart < np.inf:
                said = f"numbers differ by up to {apart:.2g}" if apart else "the same"
            print(f"  {name}: {said}", flush=True)
            wrong += [name] if apart > TOLERANCE else []
    if wrong:
        sys.exit(f"not reproduced within {TOLERANCE:g}: {', '.join(wrong)}")
