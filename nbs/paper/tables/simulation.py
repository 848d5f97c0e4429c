"""Make the tables that nbs/04d_fidelity and nbs/paper/06a_features_rebuilt read: `python
nbs/paper/tables/simulation.py DATA [SEEDS]`.

DATA is a folder that holds the U2OS and the L1000 table. Three data sets (U2OS wells, U2OS
consensus, L1000) are prepared and modelled as either preset does; seed 0 gives curves, maps and
features, and SEEDS (1) seeds of weights and draws the measures of fidelity.

nbs/results/simulation_fidelity.csv  how real simulated profiles are:
    `cpvae.measure.fidelity.fidelity_tables`, by data set, preset and seed
nbs/results/simulation_spread.csv    their variance along principal directions, seed 0
nbs/results/table1.csv               `rebuilt.distance_table`, and the regularisers'
    shares of the last validation loss
nbs/results/features_errors.csv      error and variance of every feature, U2OS consensus
nbs/results/features_contrasts.csv   DNA against AGP, cells against the rest
nbs/results/training_curves.csv      losses by epoch, some 80 epochs a curve
nbs/results/umap_DATASET.csv         the paper's map of test profiles, at most 300 points a cloud
"""

import copy
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sources import TABLES, keep_fits
from provenance import write_table

from cpvae.profiles.read import read_profiles
from cpvae.measure.maps import umap_table
from cpvae.model.transformers import reconstruct
from cpvae.model.fits import fit_many
from cpvae.model.vae import VAE
from cpvae.run.preset import RunConfig, fit_models, make_model, prepare, training_table
from cpvae.style import USUAL
from cpvae.tune.curves import loss_shares
from cpvae.measure.fidelity import fidelity_tables

sys.path.append(str(Path(__file__).resolve().parent.parent))
from rebuilt import authors_channel, distance_table, feature_clusters  # noqa: E402
from rebuilt import feature_table, group_contrast  # noqa: E402

# Name: table, settings of a run.
DATASETS = {
    "consensus": ("u2os", {"consensus": "modz"}),
    "l1000": ("l1000", {}),
    "u2os": ("u2os", {}),
}
PRESETS = ("recommended", "chow2022")
EPOCHS, POINTS = 80, 300  # of a training curve, about; of a cloud of a map


def table1(fitted, profiles) -> pd.DataFrame:
    "Table 1 with the shares of KL and MMD in the last validation loss."
    shares = [
        dict(model=n, shuffled=s) | loss_shares(m.history_, m.beta, m.mmd_weight)
        for (n, s), m in fitted.items()
        if isinstance(m, VAE)
    ]
    return distance_table(fitted, profiles).merge(
        pd.DataFrame(shares), how="left", on=["model", "shuffled"]
    )


def curves(fitted) -> pd.DataFrame:
    "Losses at evenly spaced epochs, the last among them."
    table = training_table(fitted)
    last = table.groupby(["model", "shuffled"]).epoch.transform("max")
    kept = (last - table.epoch) % np.maximum(1, np.ceil(last / EPOCHS)) == 0
    return table.loc[kept, ["model", "shuffled", "epoch", "train_loss", "valid_loss"]]


def features(models, profiles, rows) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Errors of every feature, and the contrasts of section 2.1, codes being posterior means."
    x, var = np.asarray(profiles.layers["scaled"])[rows], profiles.var
    control = profiles.obs["is_control"].to_numpy(bool)[rows]
    who = np.where(control, "control", profiles.obs["compound"].astype(str).to_numpy()[rows])
    channel, clusters = np.array([authors_channel(name) for name in var.index]), feature_clusters(x)
    known, cells = channel != "", (var["compartment"] == "Cells").to_numpy()
    sides = {
        "DNA-AGP": (channel == "DNA", channel == "AGP"),
        "Cells-others": (known & cells, known & ~cells),
    }
    errors, contrasts = [], []
    for name, model in models.items():
        x_hat = reconstruct(model, x)
        errors.append(feature_table(x, x_hat, var).assign(model=name))
        contrasts += [
            group_contrast(x, x_hat, a, b, who, clusters).assign(model=name, contrast=which)
            for which, (a, b) in sides.items()
        ]
    return pd.concat(errors), pd.concat(contrasts)


def with_means(model):
    "The model with posterior means for codes, whatever its preset says."
    return copy.copy(model).set_params(code="mean") if isinstance(model, VAE) else model


def seen_once(config, profiles, dataset: str, fitted):
    "Every table that takes one seed: name, rows."
    real = {name: model for (name, shuffled), model in fitted.items() if not shuffled}
    yield "table1", table1(fitted, profiles)
    yield "training_curves", curves(fitted)
    if dataset != "l1000":
        rows = (
            np.ones(profiles.n_obs, bool)
            if config.preset == "chow2022"
            else (profiles.obs["split"] == "test").to_numpy()
        )
        errors, contrasts = features({n: with_means(m) for n, m in real.items()}, profiles, rows)
        yield "features_contrasts", contrasts
        if dataset == "consensus":
            yield "features_errors", errors.drop(columns=["compartment", "channel"])
    embedded = umap_table(
        {(n, False): m for n, m in real.items() if n != "pca"}, profiles, max_points=800
    )
    mixed = embedded.sample(frac=1, random_state=0).groupby(["model", "kind"])
    yield f"umap_{dataset}", mixed.head(POINTS).drop(columns="shuffled")


def measured(dataset: str, preset: str, folder: Path, seed: int) -> list[tuple[str, pd.DataFrame]]:
    "The tables of one data set, preset and seed: name, rows."
    found = []
    name, settings = DATASETS[dataset]
    file, how = TABLES[name]
    config = RunConfig(preset=preset, models=USUAL["chow2022"], **settings)
    profiles = prepare(read_profiles(folder / file, **how), config)
    x, split = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    if seed == 0:
        fitted = fit_models(profiles, config)
        found += seen_once(config, profiles, dataset, fitted)
        models = {name: model for (name, shuffled), model in fitted.items() if not shuffled}
    else:
        asked = {
            name: make_model(name, profiles, RunConfig(preset=preset, seed=seed, **settings))
            for name in config.models
        }
        models = fit_many(asked, x[split == "train"], x[split == "valid"], jobs=1)
    fidelity, spread = fidelity_tables(models, profiles, seed)
    found.append(("simulation_fidelity", fidelity.assign(seed=seed)))
    return found + ([("simulation_spread", spread)] if seed == 0 else [])


def settings(name: str, datasets: list[str]) -> dict:
    "What a table's provenance says of how it was made."
    found = {"presets": PRESETS, "datasets": {d: DATASETS[d][1] for d in datasets}}
    more = {"training_curves": {"epochs, about": EPOCHS}}
    return found | more.get(name, {"points of a cloud": POINTS} if name.startswith("umap_") else {})


if __name__ == "__main__":
    keep_fits()
    folder, n_seeds, parts = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, {}
    tasks = [*product(range(n_seeds), DATASETS, PRESETS)]
    every = Parallel(n_jobs=-1, return_as="generator")(
        delayed(measured)(dataset, preset, folder, seed) for seed, dataset, preset in tasks
    )
    for (seed, dataset, preset), found in zip(tasks, every, strict=True):
        for name, table in found:
            parts.setdefault(name, []).append(table.assign(dataset=dataset, preset=preset))
        for name, each in parts.items():
            table = pd.concat(each)
            datasets = [*table["dataset"].unique()]
            read = [folder / TABLES[DATASETS[d][0]][0] for d in datasets]
            seeds = range(seed + 1 if name == "simulation_fidelity" else 1)
            how = dict(settings=settings(name, datasets), seeds=seeds, digits=4)
            write_table(name, table, sources=read, **how)
        print(
            datetime.now(UTC).time().isoformat("seconds"),
            dataset,
            preset,
            f"seed {seed} measured",
            flush=True,
        )
