"""Make the tables of performance that nbs/paper/07b_performance reads:
`python nbs/paper/tables/performance.py DATA [scored]`; with `scored`, without the third kind.

DATA is a folder that holds the U2OS and the L1000 table and the Repurposing Hub's map. Models are
the recommended ones, one seed; relabelled 10,000 times. Some twenty minutes on two cores.

nbs/results/lsa_TABLE.csv           a row a predictor and pair, `cpvae.lsa.table.COLUMNS` and where
    they come from
nbs/results/lsa_TABLE_left_out.csv  the same by models that saw no compound of any pair, 1,000
    relabellings
nbs/results/lsa_TABLE_apart.csv     a row a VAE and pair: scores by models that saw everything but
    this pair ("one"), or but its set of five pairs and their mechanisms ("five":
                                    L1000's five best and five middling pairs by the paper's z of
                                    the MMD-VAE, U2OS's five pairs)
nbs/results/lsa_TABLE_null.csv      L2 and cosine under the real labels (permutation 0) and under
    the first ten relabellings
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
from sources import MAP, TABLES, keep_fits
from provenance import write_table
from sklearn.decomposition import PCA

from cpvae.profiles.pairs import evaluable_pairs
from cpvae.profiles.read import read_profiles
from cpvae.model.fits import fit_many
from cpvae.lsa.predictors import Sum
from cpvae.lsa.space import average_wells, latent_spaces
from cpvae.model.presets import make_vae
from cpvae.lsa.nulls import shuffled_scores, zscore_10_shuffles
from cpvae.run.preset import RunConfig, prepare
from cpvae.lsa.left_out import leave_pairs_out, scale_without
from cpvae.preparation.clean import drop_copies
from cpvae.lsa.table import arithmetic, score_table

VAES = ("vanilla", "beta", "mmd")
PERMUTATIONS, FEWER, KEPT = 10_000, 1_000, 10  # models saw everything, or no pair; in the file


def scored(profiles, n_permutations: int):
    "Fit the three VAEs and PCA to the training part and score every pair."
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    asked = {v: make_vae(v, random_state=0) for v in VAES} | {"pca": PCA(10, random_state=0)}
    return arithmetic(
        fit_many(asked, x[split == "train"], x[split == "valid"], jobs=-1),
        profiles,
        n_permutations,
        jobs=-1,
    )


def apart(profiles, sets, strict: bool):
    "Score pairs by VAEs that saw none of the compounds of their set; `sets` of pair names."
    wanted = [name for some in sets for name in some]
    ready = scale_without(profiles, [tuple(name.split("|")) for name in wanted], strict)
    measured = average_wells(ready)
    of = {p.name: p for p in measured.pairs}
    measured = replace(measured, pairs=tuple(of[name] for name in wanted))
    groups = [[wanted.index(name) for name in some] for some in sets]
    asked, found = {v: make_vae(v, random_state=0) for v in VAES}, []
    fitted = leave_pairs_out(asked, ready, measured.pairs, groups, strict, jobs=-1)
    for name, own in fitted.items():
        spaces = latent_spaces({name: own}, measured)[name]
        scores = score_table([(name, name, Sum(), spaces)])
        for k, group in enumerate(groups):
            some = tuple(measured.pairs[i] for i in group)
            l2, _ = shuffled_scores(replace(spaces[group[0]], pairs=some))
            scores.loc[group, ["set", "z10"]] = [[k, z] for z in zscore_10_shuffles(l2)]
        found.append(scores)
    return pd.concat(found)[
        ["model", "pair", "set", "l2", "pearson", "delta_pearson", "mismatch_r", "z10"]
    ].astype({"set": int})


if __name__ == "__main__":
    keep_fits()
    folder, seen = Path(sys.argv[1]), {"models": (*VAES, "pca"), "preset": "recommended"}
    for name, (file, how) in TABLES.items():
        table = read_profiles(folder / file, **how)  # its mechanisms stay; the map gives targets
        table.obs["target"] = read_profiles(folder / file, moa_table=folder / MAP, **how).obs[
            "target"
        ]
        about = dict(sources=[folder / file, folder / MAP], seeds=[0], digits=4)
        full, null = scored(prepare(table, RunConfig()), PERMUTATIONS)
        most = seen | {"permutations": PERMUTATIONS}
        write_table(f"lsa_{name}", full, settings=most, **about)
        few = null[null["permutation"] <= KEPT]
        write_table(f"lsa_{name}_null", few, settings=most | {"permutations kept": KEPT}, **about)
        print(name, "scored", flush=True)
        pairs = tuple("|".join(p) for p in evaluable_pairs(table))
        lsa, _ = scored(prepare(table, RunConfig(leave_out=pairs)), FEWER)
        fewer = seen | {"permutations": FEWER, "left out": "all pairs"}
        write_table(f"lsa_{name}_left_out", lsa, settings=fewer, **about)
        print(name, "left out", flush=True)
        if "scored" in sys.argv[2:]:  # two thirds of the time are those of single pairs
            continue
        best = full[full["model"] == "mmd"].sort_values("z10")["pair"].tolist()
        plain = drop_copies(table)
        middle = len(best) // 2 - 2
        fives = [best] if len(best) == 5 else [best[:5], best[middle : middle + 5]]
        ways = {
            "one": apart(plain, [[pair] for pair in best], False),
            "five": apart(plain, fives, True),
        }
        every = pd.concat([t.assign(left_out=way) for way, t in ways.items()])
        left_out = {"models": VAES, "left out": [*ways]}
        write_table(f"lsa_{name}_apart", every, settings=seen | left_out, **about)
        print(name, "apart", flush=True)
