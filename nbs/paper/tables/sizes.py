"""Count what the data hold and what each split shares: `python nbs/paper/tables/sizes.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table and the Repurposing Hub's map. Writes
nbs/results/sizes.csv, a row a count, which nbs/paper/01_figure_1 reads: profiles, compounds,
mechanisms, features kept by either preset, and the parts of the paper's split and of ours over five
seeds. Half a minute.
"""

import sys
from pathlib import Path

import pandas as pd
from sources import MAP, TABLES
from provenance import write_table

from cpvae.io.read import read_table
from cpvae.profiles.mechanisms import mend_moa
from cpvae.profiles.pairs import describe_profiles, row_digests
from cpvae.profiles.read import read_profiles
from cpvae.run.preset import RunConfig, prepare
from cpvae.preparation.clean import with_set_aside
from cpvae.preparation.select import SELECTION
from cpvae.preparation.split import split_profiles

SPLITS = {"rows": (0.1, 0.1), "compound": (0.1, 0.2)}  # paper's, ours: shares of validation, test
SEEDS = range(5)


def by_number(moa: pd.Series) -> dict[str, int]:
    "Compounds by their number of mechanisms."
    n = moa.fillna("").map(lambda text: len([term for term in text.split("|") if term]))
    return {
        "no mechanism": (n == 0).sum(),
        "one mechanism": (n == 1).sum(),
        "exactly two mechanisms": (n == 2).sum(),
        "two or more mechanisms": (n >= 2).sum(),
    }


def of_map(path: Path) -> dict[str, int]:
    """What the map says of its compounds, as written and with mended names; and the pairs it would
    allow if all of them were measured.
    """
    table = read_table(path)
    mended = table.moa.map(mend_moa)
    known = set(mended)
    pairs = {moa for moa in known if moa.count("|") == 1 and set(moa.split("|")) <= known}
    found = {
        "compounds": len(table),
        "names": table.pert_iname.nunique(),
        "evaluable pairs, exactly two": len(pairs),
    }
    return (
        found
        | by_number(table.moa)
        | {f"{name}, mended": n for name, n in by_number(mended).items()}
    )


def of_table(profiles) -> dict[str, int]:
    "What a table holds, and the features that each preset keeps."
    holds = describe_profiles(profiles)
    found = {
        name: holds[name]
        for name in (
            "profiles",
            "exact copies",
            "features",
            "compounds",
            "annotated compounds",
            "plates",
            "control rows",
        )
    }
    treated = profiles.obs[~profiles.obs.is_control & (profiles.obs["compound"] != "")]
    found |= by_number(treated.groupby("compound").moa.first().astype(str)) | {
        "evaluable pairs": len(holds["evaluable pairs"])
    }
    found |= {"features, positions too": with_set_aside(profiles).n_vars}
    kept = {
        f"features kept, {preset}": prepare(profiles, RunConfig(preset=preset)).n_vars
        for preset in SELECTION
    }
    return found | kept


def of_split(profiles, by: str, valid: float, test: float) -> dict[str, float]:
    """Sizes of the parts, and what test shares with training, means over seeds; compounds count
    that have at least two wells.
    """
    rows = []
    for seed in SEEDS:
        obs = split_profiles(profiles, by=by, valid=valid, test=test, seed=seed).obs
        sizes = obs["split"].value_counts().to_dict()
        treated = obs[~obs.is_control & (obs["compound"] != "")]
        parts, seen = treated.groupby("compound")["split"].agg(set), treated["split"] == "train"
        tested = treated[treated["split"] == "test"]
        several = parts[treated["compound"].value_counts().reindex(parts.index) > 1]
        digests = pd.Series(row_digests(profiles.X).to_numpy(), obs.index)
        rows.append(
            sizes
            | {
                "compounds of two wells or more": len(several),
                "of these in test and training": several.map({"train", "test"}.issubset).sum(),
                "share of treated test profiles whose compound is in training": tested["compound"]
                .isin(treated["compound"][seen])
                .mean(),
                "share of treated test profiles with an exact copy in training": digests[
                    tested.index
                ]
                .isin(digests[treated.index[seen]])
                .mean(),
            }
        )
    return pd.DataFrame(rows).mean().add_prefix(f"split by {by}: ").to_dict()


if __name__ == "__main__":
    folder, rows = Path(sys.argv[1]), []
    for name, (file, how) in TABLES.items():
        profiles = read_profiles(folder / file, **how)
        found = of_table(profiles)
        for by, shares in SPLITS.items():
            found |= of_split(profiles, by, *shares)
        rows += [{"table": name.upper(), "quantity": k, "value": v} for k, v in found.items()]
    found = of_map(folder / MAP)
    rows += [{"table": "map", "quantity": k, "value": v} for k, v in found.items()]
    sources = [folder / file for file in (*(file for file, _ in TABLES.values()), MAP)]
    how = dict(settings={"splits": SPLITS}, seeds=SEEDS)
    write_table("sizes", pd.DataFrame(rows), sources=sources, **how)
