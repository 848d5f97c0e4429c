"""Say where each figure, table and claim of the paper is answered: `python tools/checklist.py`
lists id, study and cell, and fails if one is missing.

The ids stand in nbs/paper/checklist.csv; a study answers one in a row of its table of verdicts, as
its committed output shows it.
"""

import csv
import json
import sys

from project import ROOT


def answers() -> dict[str, list[str]]:
    "Id to the places, `notebook, cell n: verdict`, where a row of verdicts begins with it."
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nbs" / "paper").glob("*.ipynb")):
        for n, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            for output in cell.get("outputs", []):
                for line in "".join(output.get("data", {}).get("text/markdown", "")).splitlines():
                    if line.startswith("| ") and not line.startswith("| id |"):
                        entries = line.strip("| ").replace("\\|", "¦").split(" | ")
                        found.setdefault(entries[0].strip(), []).append(
                            f"{path.stem}, cell {n}: {entries[-1].strip()}"
                        )
    return found


if __name__ == "__main__":
    with open(ROOT / "nbs" / "paper" / "checklist.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    places = answers()
    for row in rows:
        print(f"{row['id']:20} {'; '.join(places.get(row['id'], ['MISSING']))}")
    missing = [row["id"] for row in rows if row["id"] not in places]
    if missing:
        sys.exit(f"{len(missing)} of {len(rows)} not answered: {', '.join(missing)}")
    print(f"{len(rows)} rows, none missing")
