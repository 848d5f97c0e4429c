"""Make the result tables that the paper's studies read, and compare them with the committed ones: `python tools/paper.py DATA [TOOL ...]`.

DATA is a folder that holds the two public tables and the Repurposing Hub's map. Without TOOL, the tools below run one after another; the studies also read what `models`,
`selection`, `scoreboard`, `nulls`, `screening` and `processing` made, which take longer and can be named. A table agrees if rows and words are the same and numbers within one
part in a thousand of the largest of their column: on one kind of processor tables come out byte for byte, seconds aside; on another, matrix products round differently, and training carries that on.
Where a table comes from (dates, versions, code) stands in nbs/results/provenance.json, which the
tools write and nothing here compares.
"""

import io
import subprocess
import sys
import time

import numpy as np
import pandas as pd
from project import ROOT

TOOLS = ("sizes", "interpretation", "simulation", "performance")
UNSTEADY = ["seconds"]  # columns that differ from run to run
TOLERANCE = 1e-3


def difference(old: pd.DataFrame, new: pd.DataFrame) -> float:
    "Largest difference of a number, relative to the largest of its column; infinite where shape, words or gaps differ."
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
    shown = subprocess.run(["git", "show", f"HEAD:nbs/results/{name}"], cwd=ROOT, capture_output=True)
    return None if shown.returncode else pd.read_csv(io.BytesIO(shown.stdout))


if __name__ == "__main__":
    data, tools, wrong = sys.argv[1], sys.argv[2:] or TOOLS, []
    for tool in tools:
        started = time.time()
        subprocess.run([sys.executable, ROOT / "tools" / f"{tool}.py", data], check=True)
        print(f"{tool}: {time.time() - started:.0f} s")
        for path in sorted((ROOT / "nbs" / "results").glob("*.csv")):
            if path.stat().st_mtime >= started:
                old = committed(path.name)
                apart = 0.0 if old is None else difference(old, pd.read_csv(path))
                said = "new" if old is None else "rows, columns or words differ"
                if old is not None and apart < np.inf:
                    said = f"numbers differ by up to {apart:.2g}" if apart else "the same"
                print(f"  {path.name}: {said}", flush=True)
                wrong += [path.name] if apart > TOLERANCE else []
    if wrong:
        sys.exit(f"not reproduced within {TOLERANCE:g}: {', '.join(wrong)}")
