"""Try the tests of pairs where nothing is to be found, and both parents of the pairs that are real:
`python nbs/paper/tables/levels.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table. Arithmetic in feature space, 999
relabellings of each test; ten minutes on one core.

nbs/results/levels.csv   a row a world, whether what its compounds share is recorded, and a test:
    pairs, how many are called at 0.05 and 0.01, whether p-values are uniform, and datasets in which
    any q is below 0.05. A world is simulated (`silent_world`), or one of the two tables with false
    pairs made of its own compounds (`false_pairs`).
nbs/results/parents.csv  a row a table, model and real pair: p of both labels, and of each parent's
    given the other's
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from provenance import write_table
from scipy.stats import false_discovery_control, kstest
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer
from sources import TABLES

from cpvae.lsa.levels import SCHEMES, false_pairs, matched_p, turned
from cpvae.lsa.nulls import permutation_tests
from cpvae.lsa.relabel import compound_blocks
from cpvae.lsa.space import Measured, average_wells, latent_spaces
from cpvae.profiles.read import read_profiles
from cpvae.profiles.worlds import WORLDS, silent_world
from cpvae.run.preset import RunConfig, prepare
from cpvae.threads import one_thread

NULLS = ("matched", "a_given_b", "b_given_a")
SEEDS = range(10)  # tables of each simulated world
PAIRS = 60  # of each of them
# Datasets of false pairs, each of as many as there are real ones.
DATASETS = {"u2os": range(200), "l1000": range(12)}
PERMUTATIONS = 999
# Records by the world in which they are plates: the same offsets under another name.
ALSO = {"cell lines": "cell", "batches": "Metadata_batch"}


def simulated(world: str, recorded: bool, seed: int) -> Measured:
    "One table without any effect; what its compounds share may be left unrecorded."
    made = silent_world("plates" if world in ALSO else world, seed, PAIRS)
    if world in ALSO:
        made.obs[ALSO[world]] = made.obs["plate"]
        made.obs["plate"] = ""
    if not recorded:
        hidden = [c for c in ("plate", "scaffold", "cell", "Metadata_batch") if c in made.obs]
        made.obs[hidden] = ""
    return average_wells(made)


def worlds(tables: dict[str, Measured]) -> Iterator[tuple[str, bool, int, Measured]]:
    "World, whether what is shared is recorded, number of the dataset, its compounds and pairs."
    shared = ("plates", "torn plates", "scaffold", *ALSO)
    for world in (*WORLDS, *ALSO):
        for recorded in (True, False) if world in shared else (True,):
            for seed in SEEDS:
                yield world, recorded, seed, simulated(world, recorded, seed)
    for name, measured in tables.items():
        for at, scheme in enumerate(SCHEMES):
            for recorded in (True, False) if scheme == "cell_count" else (True,):
                known = measured
                if not recorded:
                    blind = measured.compounds.assign(cell_count=np.nan)
                    known = type(measured)(**{**vars(measured), "compounds": blind})
                n, rng = len(measured.pairs), np.random.default_rng(at)
                for k in DATASETS[name]:
                    if pairs := false_pairs(measured, scheme, n, rng):
                        one = type(known)(**{**vars(known), "pairs": tuple(pairs)})
                        yield f"{name}, {scheme}", recorded, k, one


def tested(measured: Measured, blocks: np.ndarray, seed: int) -> pd.DataFrame:
    "A row a pair, a column a test."
    space, rng = turned(measured), np.random.default_rng(seed)
    with one_thread():
        return pd.DataFrame(
            [
                {null: matched_p(space, pair, blocks, PERMUTATIONS, rng, null) for null in NULLS}
                for pair in measured.pairs
            ]
        )


def rates(p: pd.DataFrame) -> dict[str, float]:
    "Of the p-values of one test, with the dataset of each."
    q = p.groupby("dataset")["p"].agg(lambda v: false_discovery_control(v).min())
    return {
        "pairs": len(p),
        "rate_05": (p["p"] <= 0.05).mean(),
        "rate_01": (p["p"] <= 0.01).mean(),
        "ks_p": kstest(p["p"], "uniform").pvalue,
        "datasets": len(q),
        "any_q": (q < 0.05).mean(),
    }


def parents(name: str, measured: Measured) -> pd.DataFrame:
    "Tests of the real pairs, in features and in a PCA of ten."
    obs, x = measured.profiles.obs, measured.profiles.layers["scaled"]
    pca = PCA(10, random_state=0).fit(x[(obs["split"] == "train").to_numpy()])
    spaces = latent_spaces({"pca": pca, "additive_input": FunctionTransformer()}, measured)
    tests, _ = permutation_tests(spaces)
    return tests.drop(columns=["effect", "p"]).assign(table=name)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tables = {
        name: average_wells(prepare(read_profiles(folder / file, **how), RunConfig()))
        for name, (file, how) in TABLES.items()
    }
    blocks = {name: compound_blocks(measured) for name, measured in tables.items()}
    found = []
    for world, recorded, dataset, measured in worlds(tables):
        own = blocks.get(world.partition(",")[0])
        own = compound_blocks(measured) if own is None else own
        p = tested(measured, own, dataset).melt(var_name="null", value_name="p")
        found.append(p.assign(world=world, recorded=recorded, dataset=dataset))
        if dataset == 0:
            print(world, recorded, flush=True)
    by = ["world", "recorded", "null"]
    rows = [dict(zip(by, key)) | rates(p) for key, p in pd.concat(found).groupby(by, sort=False)]
    settings = {"relabellings": PERMUTATIONS, "pairs of a simulated table": PAIRS}
    settings |= {"simulated tables of a world": len(SEEDS)}
    settings |= {"datasets of false pairs": {name: len(n) for name, n in DATASETS.items()}}
    files = [folder / file for file, _ in TABLES.values()]
    write_table("levels", pd.DataFrame(rows), settings=settings, sources=files, seeds=SEEDS)
    real = pd.concat([parents(name, measured) for name, measured in tables.items()])
    write_table("parents", real, settings={"relabellings": 10_000}, sources=files, seeds=[0])
    print(pd.DataFrame(rows).round(4).to_string())
