"""What the processing alone does to the scores: `python nbs/paper/tables/processing.py DATA`

The same two models (PCA and the recommended β-VAE, ten components each) on one Cell Painting table,
processed by either preset, or by the authors' and then centred, and split either way. Writes
nbs/results/processing.csv, which 25a_preset reads and draws, because the table itself is not in the
repository.
"""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sources import TABLES, keep_fits
from provenance import write_table

from cpvae.profiles.read import read_profiles
from cpvae.lsa.table import arithmetic
from cpvae.model.fits import fit_one
from cpvae.run.preset import RUN_PRESETS, RunConfig, make_model
from cpvae.preparation.clean import drop_copies, with_set_aside
from cpvae.preparation.scale import feature_fvu, scale_profiles, scale_values
from cpvae.preparation.select import select_features
from cpvae.preparation.split import split_profiles

SEEDS = range(5)
PROCESSING = ("chow2022", "chow2022, centred", "recommended")
SPLITS, MODELS, PERMUTATIONS = ("rows", "compound"), ("pca", "beta"), 100


def processed(path: Path, processing: str, by: str, seed: int):
    """Profiles selected and scaled as one preset does, split 70/10/20 by rows or by compound;
    `centred`: each feature then less its training median.
    """
    how = RUN_PRESETS[processing.partition(",")[0]].preparation()
    profiles = read_profiles(path)
    # as `prepare` does
    profiles = profiles if processing == "recommended" else with_set_aside(profiles)
    profiles = split_profiles(drop_copies(profiles), by=by, valid=0.1, test=0.2, seed=seed)
    profiles = scale_profiles(select_features(profiles, **how["select"]), **how["scale"])
    if processing.endswith("centred"):
        train = (profiles.obs["split"] == "train").to_numpy()
        profiles.var["center"] += (
            np.median(profiles.layers["scaled"][train].astype(float), axis=0)
            * profiles.var["scale"]
        )
        profiles.layers["scaled"] = scale_values(profiles.X, profiles)
    return profiles


def scores(path: Path, processing: str, by: str, seed: int) -> list[dict]:
    """What each model leaves unexplained of each feature, and how well arithmetic points.

    FVU: `feature_fvu` on treated test rows, mean over the features all keep.
    """
    profiles, rows = processed(path, processing, by, seed), []
    kept = [set(processed(path, preset, by, seed).var_names) for preset in RUN_PRESETS]
    shared = [name for name in profiles.var_names if all(name in names for names in kept)]
    x, part = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    test = (part == "test") & ~profiles.obs["is_control"].to_numpy(bool)
    for name in MODELS:
        model = fit_one(
            make_model(name, profiles, RunConfig(seed=seed)), x[part == "train"], x[part == "valid"]
        )
        fvu = feature_fvu(
            profiles, test, np.asarray(model.inverse_transform(model.transform(x[test])))
        )[shared]
        lsa, _ = arithmetic({name: model}, profiles, n_permutations=PERMUTATIONS, seed=seed)
        lsa = lsa.query("model == @name")
        rows.append(
            dict(
                processing=processing,
                split=by,
                model=name,
                seed=seed,
                features=len(shared),
                test_profiles=int(test.sum()),
                fvu=fvu.mean(),
                pairs=len(lsa),
                mismatch_r=lsa.mismatch_r.mean(),
                delta_pearson=lsa.delta_pearson.mean(),
            )
        )
    return rows


if __name__ == "__main__":
    keep_fits()
    path = Path(sys.argv[1]) / TABLES["u2os"][0]
    cells = product(PROCESSING, SPLITS, SEEDS)
    done = Parallel(n_jobs=-1)(delayed(scores)(path, *cell) for cell in cells)
    table = pd.DataFrame(sum(done, []))
    settings = {"processing": PROCESSING, "splits": SPLITS, "models": MODELS}
    settings |= {"permutations": PERMUTATIONS}
    write_table("processing", table, sources=[path], settings=settings, seeds=SEEDS)
    print(
        table.groupby(["model", "processing", "split"])[["fvu", "mismatch_r", "delta_pearson"]]
        .agg(["mean", "std"])
        .round(3)
        .to_string()
    )
