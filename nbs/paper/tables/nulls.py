"""Try every null in every silent world: `python nbs/paper/tables/nulls.py` writes
nbs/results/null_validity.csv, which nbs/07_nulls reads.

Three thousand six hundred pairs a world, in 24 tables (48 of the reference world, whose tables are
large), arithmetic in feature space, 399 permutations of each null.
"""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from provenance import write_table
from scipy.stats import kstest
from sklearn.preprocessing import FunctionTransformer

from cpvae.lsa.nulls import null_p_values
from cpvae.lsa.space import average_wells, latent_space
from cpvae.profiles.worlds import WORLDS, silent_world

# Tables of each world, pairs of a table, and seeds of the tables.
SEEDS = {world: range(100, 148 if world == "reference" else 124) for world in WORLDS}
PAIRS = {world: 75 if world == "reference" else 150 for world in WORLDS}


def one(world: str, seed: int) -> pd.DataFrame:
    "p-values of one table."
    found = null_p_values(
        latent_space(FunctionTransformer(), average_wells(silent_world(world, seed, PAIRS[world])))
    )
    return found.drop(columns="pair").melt(var_name="null", value_name="p").assign(world=world)


if __name__ == "__main__":
    tasks = [(world, seed) for world in WORLDS for seed in SEEDS[world]]
    p = pd.concat(Parallel(n_jobs=-1)(delayed(one)(*task) for task in tasks))
    rows = []
    for (world, null), v in p.groupby(["world", "null"], sort=False).p:
        counts = np.histogram(v, np.linspace(0, 1, 21) + 1e-9 * np.r_[-1, np.ones(20)])[0]
        rows.append(
            {
                "world": world,
                "null": null,
                "pairs": len(v),
                "rate": (v <= 0.05).mean(),
                "ks_p": kstest(v, "uniform").pvalue,
                "share_above_95": (v > 0.95).mean(),
            }
            | {f"bin_{i:02d}": n for i, n in enumerate(counts)}
        )
    table = pd.DataFrame(rows)
    worlds = {w: {"tables": len(SEEDS[w]), "pairs of each": PAIRS[w]} for w in WORLDS}
    every = sorted({seed for seeds in SEEDS.values() for seed in seeds})
    write_table("null_validity", table, settings={"worlds": worlds}, seeds=every)
    print(
        table.pivot(index="world", columns="null", values="rate").round(3),
        table.pivot(index="world", columns="null", values="ks_p").round(3),
        sep="\n",
    )
