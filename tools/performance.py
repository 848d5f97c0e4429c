"""Make the tables of performance that nbs/07b_performance reads: `python tools/performance.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table and the Repurposing Hub's map. Models are the recommended ones, one seed; relabelled 10,000 times.
Some ten minutes on two cores.

nbs/results/lsa_TABLE.csv           a row a predictor and pair, `cpvae.scoreboard.COLUMNS` and where they come from
nbs/results/lsa_TABLE_left_out.csv  the same by models that saw no compound of any pair, 1,000 relabellings
nbs/results/lsa_TABLE_null.csv      L2 and cosine under the real labels (permutation 0) and under the first ten relabellings
"""

import hashlib
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from project import ROOT
from sklearn.decomposition import PCA

from cpvae.data import evaluable_pairs, read_profiles
from cpvae.fits import fit_many
from cpvae.models import make_vae
from cpvae.pipeline import RunConfig, prepare_profiles
from cpvae.scoreboard import lsa_table

TABLES = {"u2os": ("cell_injury_u2os_8298x346.parquet", {}), "l1000": ("l1000_drugbank_1170x978.parquet", {"zero_control": True})}

MAP = "repurposing_info_external_moa_map_resolved.tsv"  # gives targets; mechanisms stay as the tables have them


def scored(profiles, n_permutations: int):
    "Fit the three VAEs and PCA to the training part and score every pair."
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    asked = {v: make_vae(v, random_state=0) for v in ("vanilla", "beta", "mmd")} | {"pca": PCA(10, random_state=0)}
    return lsa_table(fit_many(asked, x[split == "train"], x[split == "valid"], jobs=1), profiles, n_permutations)


if __name__ == "__main__":
    folder, keep = Path(sys.argv[1]), dict(index=False, float_format="%.4g", lineterminator="\n")
    for name, (file, how) in TABLES.items():
        table, out = read_profiles(folder / file, **how), ROOT / "nbs" / "results"
        table.obs["target"] = read_profiles(folder / file, moa_table=folder / MAP, **how).obs["target"]
        source = dict(created=datetime.now(UTC).date().isoformat(), cpvae=version("cpvae"), sha256=hashlib.sha256((folder / file).read_bytes()).hexdigest()[:16])
        lsa, null = scored(prepare_profiles(table, RunConfig()), 10_000)
        lsa.assign(**source).to_csv(out / f"lsa_{name}.csv", **keep)
        null[null["permutation"] <= 10].assign(**source).to_csv(out / f"lsa_{name}_null.csv", **keep)
        print(name, "scored", flush=True)
        pairs = tuple("|".join(p) for p in evaluable_pairs(table))
        lsa, _ = scored(prepare_profiles(table, RunConfig(leave_out=pairs)), 1_000)
        lsa.assign(**source).to_csv(out / f"lsa_{name}_left_out.csv", **keep)
        print(name, "left out", flush=True)
