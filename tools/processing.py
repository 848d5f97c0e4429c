"""What the processing alone does to the scores: python tools/processing.py PROFILES [--zero-control]

The same models (ten latent units, `recommended`) on one table, processed as the authors did, as we recommend, and with the split exchanged.
Writes nbs/results/processing.csv, which 00b_preprocessing's successor chapters read: a row for each processing, model and seed.
"""

import argparse
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from project import ROOT

from cpvae.data import read_profiles
from cpvae.lsa import lsa_table
from cpvae.pipeline import RunConfig, fit_model, prepare_profiles

SPLITS = {"rows": "chow2022", "compound": "recommended"}  # how profiles are split, and the preset that splits so


def scores(path: Path, zero_control: bool, processing: str, split: str, model: str, seed: int) -> dict:
    "Fit one model on one processing; what it leaves unexplained on held-out profiles, and its arithmetic."
    raw = read_profiles(path, zero_control=zero_control)
    config = RunConfig(seed=seed)
    profiles = prepare_profiles(raw, RunConfig(preset=processing, seed=seed), split=SPLITS[split])
    x, part = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    train, test = x[part == "train"], x[part == "test"]
    fitted = fit_model(model, False, train, x[part == "valid"], config)
    residual = test - fitted.inverse_transform(fitted.transform(test))
    per_feature = (residual**2).mean(0) / ((test - train.mean(0)) ** 2).mean(0)
    arithmetic = lsa_table({model: fitted}, profiles, n_permutations=100, seed=seed)[0].query("model == @model")
    return dict(
        source=path.name, processing=processing, split=split, model=model, seed=seed, profiles=profiles.n_obs, features=profiles.n_vars,
        test_profiles=len(test), fvu=(residual**2).sum() / ((test - train.mean(0)) ** 2).sum(), fvu_per_feature=per_feature.mean(),
        pairs=len(arithmetic), mismatch_r=arithmetic["mismatch_r"].mean(), delta_pearson=arithmetic["delta_pearson"].mean(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profiles", type=Path, help="table of profiles")
    parser.add_argument("--zero-control", action="store_true", help="the zero vector is the control")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ...")
    given = parser.parse_args()
    grid = product(("chow2022", "recommended"), SPLITS, ("pca", "beta"), range(given.seeds))
    table = pd.DataFrame(Parallel(n_jobs=-1)(delayed(scores)(given.profiles, given.zero_control, *cell) for cell in grid))
    table = table.assign(created=datetime.now(UTC).date().isoformat(), cpvae=version("cpvae"), torch=version("torch"))
    table.to_csv(ROOT / "nbs" / "results" / "processing.csv", index=False, float_format="%.5g", lineterminator="\n")
    table.groupby(["processing", "split", "model"])[["fvu", "fvu_per_feature", "mismatch_r", "delta_pearson"]].mean().to_string(sys.stdout)
