"""What the studies of the paper share: result tables, published numbers, and the table of verdicts
each ends with.
"""

import os
import sys
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from cpvae.datasets import cache_folder, known_datasets, load_dataset
from cpvae.style import COLOURS as COLOUR  # noqa: F401, the studies take it from here

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from measured import RESULTS, provenance  # noqa: E402, F401, the studies take it from here

# tables are shown whole
pd.set_option("display.width", 140, "display.max_columns", None, "display.max_colwidth", None)
CHECKLIST = pd.read_csv(HERE / "checklist.csv").set_index("id")  # what the paper shows or claims


def results(name: str) -> pd.DataFrame:
    "A table of nbs/results, made by a tool from real profiles; `provenance(name)` says from what."
    return pd.read_csv(RESULTS / f"{name}.csv")


def published(name: str) -> pd.DataFrame:
    "Numbers of the paper or of the authors' repository; published/README.md says which."
    return pd.read_csv(HERE / "published" / f"{name}.csv")


def lincs(name: str):
    "One of the paper's own datasets if it was fetched before; else None, and a line that says so."
    files = known_datasets()[name].files.values()
    if all(
        (cache_folder() / (f.name.removesuffix(".gz") if f.shape else f.name)).is_file()
        for f in files
    ):
        return load_dataset(name)
    print(
        f"{name} is not in the cache; `cpvae fetch {name}` gets it, and this study then runs on it"
        " too."
    )


def public(name: str) -> Path | None:
    """One of the public tables if it is in CPVAE_DATA, or in shared/data beside the project; else
    None, and a line that says so.
    """
    folders = (os.environ.get("CPVAE_DATA", ""), HERE.parents[2] / "shared" / "data")
    found = next(
        (Path(folder) / name for folder in folders if folder and (Path(folder) / name).is_file()),
        None,
    )
    if found is None:
        print(f"skipped: {name} is not in CPVAE_DATA")
    return found


def verdicts(*rows: tuple[str, str, str, str, str]) -> Markdown:
    "Rows of id, what the paper says, what the authors' repository shows, what we measure, verdict."
    unknown = {row[0] for row in rows} - set(CHECKLIST.index)
    assert not unknown, f"not in checklist.csv: {sorted(unknown)}"
    assert all(len(row) == 5 and all(row) for row in rows), "each row has five entries, none empty"
    lines = [
        "| id | paper says | authors' repository shows | we measure | verdict |",
        "|--|--|--|--|--|",
    ]
    return Markdown(
        "\n".join(
            lines
            + [
                "| " + " | ".join(str(entry).replace("|", "\\|") for entry in row) + " |"
                for row in rows
            ]
        )
    )
