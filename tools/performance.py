"""Make the tables of performance that nbs/07b_performance reads: `python tools/performance.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table and the Repurposing Hub's map. Models are the recommended ones, one seed; relabelled 10,000 times.
Some twenty minutes on two cores.

nbs/results/lsa_TABLE.csv           a row a predictor and pair, `cpvae.scoreboard.COLUMNS` and where they come from
nbs/results/lsa_TABLE_left_out.csv  the same by models that saw no compound of any pair, 1,000 relabellings
nbs/results/lsa_TABLE_apart.csv     a row a VAE and pair: scores by models that saw everything but this pair ("one"), or but its set of five pairs and their mechanisms ("five":
                                    L1000's five best and five middling pairs by the paper's z of the MMD-VAE, U2OS's five pairs)
nbs/results/lsa_TABLE_null.csv      L2 and cosine under the real labels (permutation 0) and under the first ten relabellings
"""

import hashlib
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from project import ROOT
from sklearn.decomposition import PCA

from cpvae.data import evaluable_pairs, read_profiles
from cpvae.fits import fit_many
from cpvae.lsa import prepare
from cpvae.models import make_vae
from cpvae.nulls import shuffled_scores, zscore_10_shuffles
from cpvae.pipeline import RunConfig, prepare_profiles
from cpvae.prediction import leave_pairs_out, scale_without
from cpvae.preprocessing import drop_copies
from cpvae.scoreboard import lsa_table, predict_all, score_states

TABLES = {"u2os": ("cell_injury_u2os_8298x346.parquet", {}), "l1000": ("l1000_drugbank_1170x978.parquet", {"zero_control": True})}

MAP = "repurposing_info_external_moa_map_resolved.tsv"  # gives targets; mechanisms stay as the tables have them


def scored(profiles, n_permutations: int):
    "Fit the three VAEs and PCA to the training part and score every pair."
    x, split = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    asked = {v: make_vae(v, random_state=0) for v in ("vanilla", "beta", "mmd")} | {"pca": PCA(10, random_state=0)}
    return lsa_table(fit_many(asked, x[split == "train"], x[split == "valid"], jobs=1), profiles, n_permutations)


def apart(profiles, sets, strict: bool):
    "Score pairs by VAEs that saw none of the compounds of their set; `sets` of pair names."
    wanted = [name for some in sets for name in some]
    ready = scale_without(profiles, [tuple(name.split("|")) for name in wanted], strict)
    arithmetic = prepare(ready)
    of = {p.name: p for p in arithmetic.pairs}
    arithmetic = replace(arithmetic, pairs=tuple(of[name] for name in wanted))
    groups = [[wanted.index(name) for name in some] for some in sets]
    fitted, found = leave_pairs_out({v: make_vae(v, random_state=0) for v in ("vanilla", "beta", "mmd")}, ready, arithmetic.pairs, groups, strict, jobs=-1), []
    for name, own in fitted.items():
        states, _, latents = predict_all(own, arithmetic, ready)
        scores = score_states(states, arithmetic).rename_axis("pair").reset_index().assign(model=name)
        for k, group in enumerate(groups):
            l2, _ = shuffled_scores(own[group[0]], replace(arithmetic, pairs=tuple(arithmetic.pairs[i] for i in group)), latents[group[0]], ready)
            scores.loc[group, ["set", "z10"]] = [[k, z] for z in zscore_10_shuffles(l2)]
        found.append(scores)
    return pd.concat(found)[["model", "pair", "set", "l2", "pearson", "delta_pearson", "mismatch_r", "z10"]].astype({"set": int})


if __name__ == "__main__":
    folder, keep = Path(sys.argv[1]), dict(index=False, float_format="%.4g", lineterminator="\n")
    for name, (file, how) in TABLES.items():
        table, out = read_profiles(folder / file, **how), ROOT / "nbs" / "results"
        table.obs["target"] = read_profiles(folder / file, moa_table=folder / MAP, **how).obs["target"]
        source = dict(created=datetime.now(UTC).date().isoformat(), cpvae=version("cpvae"), sha256=hashlib.sha256((folder / file).read_bytes()).hexdigest()[:16])
        full, null = scored(prepare_profiles(table, RunConfig()), 10_000)
        full.assign(**source).to_csv(out / f"lsa_{name}.csv", **keep)
        null[null["permutation"] <= 10].assign(**source).to_csv(out / f"lsa_{name}_null.csv", **keep)
        print(name, "scored", flush=True)
        pairs = tuple("|".join(p) for p in evaluable_pairs(table))
        lsa, _ = scored(prepare_profiles(table, RunConfig(leave_out=pairs)), 1_000)
        lsa.assign(**source).to_csv(out / f"lsa_{name}_left_out.csv", **keep)
        print(name, "left out", flush=True)
        best, plain = full[full["model"] == "mmd"].sort_values("z10")["pair"].tolist(), drop_copies(table)
        middle = len(best) // 2 - 2
        fives = [best] if len(best) == 5 else [best[:5], best[middle : middle + 5]]
        ways = {"one": apart(plain, [[pair] for pair in best], False), "five": apart(plain, fives, True)}
        pd.concat([t.assign(left_out=way) for way, t in ways.items()]).assign(**source).to_csv(out / f"lsa_{name}_apart.csv", **keep)
        print(name, "apart", flush=True)
