"""Score every predictor on two public tables, with models that saw the pairs and with models that
did not: `python nbs/paper/tables/scoreboard.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table. Models are fitted without the compounds
that carry any of the pairs (five seeds of division and weights, twenty minutes on two quiet cores),
on everything, and (`strict`) without those that carry any of their mechanisms (two seeds each).
Features are scaled by what carries no pair. The empirical-Bayes predictor was chosen on the first,
third, fifth ... pair of L1000 and on simulated profiles; its place on the other half of the pairs
was looked up once, here.

nbs/results/scoreboard.csv        a row a table, way of leaving out, predictor and pair: scores,
    mean over seeds; p by the matched null, of the first seed
nbs/results/scoreboard_pairs.csv  a row a pair: compounds, shared targets, agreement of replicates
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sources import ROOT, TABLES, keep_fits
from provenance import write_table
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler

from cpvae.profiles.pairs import evaluable_pairs
from cpvae.profiles.read import read_profiles
from cpvae.model.fits import fit_one
from cpvae.lsa.space import average_wells, latent_spaces
from cpvae.model.presets import make_vae
from cpvae.lsa.nulls import permutation_tests
from cpvae.lsa.left_out import leave_pairs_out, scale_without
from cpvae.preparation.clean import drop_copies
from cpvae.lsa.kinds import describe_pairs
from cpvae.lsa.learned import trust
from cpvae.lsa.predictors import MechanismBlind, Sum
from cpvae.lsa.table import score_table, usual_predictors

SEEDS = {"pairs": range(5), "nothing": range(2), "strict": range(2)}  # by what is left out
PERMUTATIONS = 10_000
SCORES = "l2 delta_pearson delta_pearson_mean mismatch_r rank ap scale beats_both_parents".split()
ABOUT = "n_compounds_a n_compounds_b n_compounds_ab target_overlap replicate_r split_half_r".split()


def models(table: str, seed: int) -> dict:
    """Everything that is fitted; the authors squeezed features of Cell Painting to [0, 1] and left
    genes as they were.
    """
    chow = lambda v: (
        make_vae(v, "chow2022-l1000", random_state=seed)
        if table == "L1000"
        else make_pipeline(MinMaxScaler(), make_vae(v, "chow2022", random_state=seed))
    )
    found = {v: make_vae(v, random_state=seed) for v in ("vanilla", "beta", "mmd")}
    found |= {f"{v}, chow2022": chow(v) for v in ("vanilla", "beta", "mmd")}
    return found | {"pca": PCA(10, random_state=0), "pca100": PCA(100, random_state=0)}


def pool(predictor: Sum) -> np.ndarray:  # `[C]` bool: compounds that may be learned from
    carriers = [p.carriers for p in predictor.without]
    return ~np.any([np.zeros(len(predictor.space.compounds), bool), *carriers], axis=0)


class EmpiricalBayes(Sum):
    "Sum of the effects of A and B on the common response, each shrunk by what it can be trusted."

    learns = True

    def predict(self, pairs):
        z, moa, some = self.space.z_compounds, self.space.compounds["moa"], pool(self)
        known = some & (moa != "").to_numpy()
        common, r = z[some].mean(axis=0), trust(z[known], moa[known])

        def effect(mask):
            n = mask.sum()
            return (z[mask].mean(axis=0) - common) * r * n / np.maximum(r * n + 1 - r, 1e-12)

        sums = [common + effect(p.in_a) + effect(p.in_b) for p in pairs]
        return self.space.decode(np.stack(sums)).astype(float)


class OneRidge(Sum):
    "Sum of the effects of A and B on the common response in a ridge of penalty 10."

    learns = True

    def predict(self, pairs):
        z, moa = self.space.z_compounds, self.space.compounds["moa"]
        terms = moa.map(lambda label: frozenset(label.split("|")) - {""})
        known = sorted(frozenset().union(*terms))
        x = np.array([[t in have for t in known] for have in terms], float)
        train = pool(self) & x.any(axis=1)
        common = z[train].mean(axis=0)
        ridge = Ridge(10, fit_intercept=False).fit(x[train], z[train] - common)
        asked = np.array([[t in (p.a, p.b) for t in known] for p in pairs], float)
        return self.space.decode(common + ridge.predict(asked)).astype(float)


class Ensemble(EmpiricalBayes):
    "The mean of shrunk predictions in several spaces."

    def __init__(self, spaces):
        self.spaces = spaces

    def predict(self, pairs):
        each = [EmpiricalBayes().fit(space, self.without).predict(pairs) for space in self.spaces]
        return sum(each) / len(each)


def both_ways(name: str, predictor, space) -> list:
    "A predictor, and what it says of any pair, whichever it is."
    return [
        (name, name, predictor, space),
        ("mechanism_blind", name, MechanismBlind(predictor), space),
    ]


def one(folder: Path, table: str, seed: int, way: str) -> pd.DataFrame:
    "Scores of every predictor and pair, and p-values of arithmetic."
    file, how = TABLES[table.lower()]
    profiles = drop_copies(read_profiles(folder / file, **how))
    ready = scale_without(profiles, evaluable_pairs(profiles), way == "strict", seed=seed)
    measured = average_wells(ready)
    asked = models(table, seed)
    if way == "nothing":  # divided as before, and everything left out goes to training
        ready.obs["split"] = ready.obs["split"].replace("test", "train")
        x, valid = ready.layers["scaled"], (ready.obs["split"] == "valid").to_numpy()
        fitted = dict(
            zip(
                asked,
                Parallel(n_jobs=-1)(
                    delayed(fit_one)(m, x[~valid], x[valid]) for m in asked.values()
                ),
                strict=True,
            )
        )
    else:
        P = len(measured.pairs)
        fitted = {
            name: own[0]
            for name, own in leave_pairs_out(
                asked, ready, measured.pairs, [range(P)], way == "strict", jobs=-1
            ).items()
        }
    fitted["additive_input"] = FunctionTransformer()
    spaces = latent_spaces(fitted, measured)
    asked = usual_predictors(spaces)
    for name in ("vanilla", "beta", "mmd", "pca100", "additive_input"):
        asked += both_ways(f"empirical_bayes, {name}", EmpiricalBayes(), spaces[name])
    asked += both_ways("ridge, pca100", OneRidge(), spaces["pca100"])
    several = [spaces[name] for name in ("vanilla", "beta", "mmd", "pca100")]
    asked += both_ways("ensemble", Ensemble(several), several[0])
    # models first, then what needs none, then the mechanism-blind
    asked.sort(key=lambda row: (row[0] == "mechanism_blind", row[1] == "input"))
    scores = score_table(asked)
    if way == "pairs" and seed == 0:
        some = {name: spaces[name] for name in ("vanilla", "beta", "mmd", "pca", "additive_input")}
        tests, _ = permutation_tests(some, PERMUTATIONS, seed, ("matched",), jobs=-1)
        scores = scores.merge(tests, on=["model", "pair"], how="left")
    print(table, seed, way, flush=True)
    about = describe_pairs(measured, seed)[["pair", *ABOUT]]
    return scores.merge(about, on="pair").assign(table=table, seed=seed, left_out=way)


if __name__ == "__main__":
    keep_fits()
    folder = Path(sys.argv[1])
    tasks = [(t.upper(), s, way) for t in TABLES for way, seeds in SEEDS.items() for s in seeds]
    every = pd.concat([one(folder, *task) for task in tasks], ignore_index=True)
    (ROOT / "results").mkdir(exist_ok=True)
    # every seed, for other questions
    every.to_parquet(ROOT / "results" / "scoreboard_seeds.parquet")
    keys = ["table", "left_out", "model", "space", "pair"]
    baseline = (every["space"] == "input") | (every["model"] == "mechanism_blind")
    about = every.drop_duplicates(["table", "pair"])[["table", "pair", *ABOUT]]
    read = dict(sources=[folder / file for file, _ in TABLES.values()])
    write_table("scoreboard_pairs", about, digits=4, settings={}, seeds=[0], **read)
    every = every[(every["left_out"] == "pairs") | ~baseline]
    by = every.astype({"beats_both_parents": float}).groupby(keys, sort=False)
    means = (
        by[[*SCORES, "cosine", "effect", "p_matched", "p_floor"]]
        .mean()
        .assign(mismatch_r_sd=by.mismatch_r.std())
        .reset_index()
    )
    means = means.assign(seeds=means.left_out.map({w: len(v) for w, v in SEEDS.items()}))
    settings = {"models": [*models("U2OS", 0)], "permutations": PERMUTATIONS}
    settings |= {"seeds by what is left out": SEEDS}
    write_table("scoreboard", means, digits=3, settings=settings, seeds=SEEDS["pairs"], **read)
    print(
        means.groupby(["table", "left_out", "model", "space"], sort=False)[
            ["l2", "delta_pearson", "mismatch_r", "ap"]
        ]
        .mean()
        .round(3)
        .to_string()
    )
