"""How β, λ, the number of latent units and the other settings come out on two real tables: python
nbs/paper/tables/selection.py FOLDER [beta] [lambda] [latent] [trials] [rungs]

FOLDER holds the U2OS and the L1000 table. Each is prepared as either preset prepares it, the
settings are varied around that preset's, and every fit is scored. Writes
nbs/results/selection_*.csv, which 04_selection reads, checks and draws, because the tables
themselves are not in the repository.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from joblib import Parallel, delayed
from sources import TABLES, keep_fits
from provenance import write_table

from cpvae.tune import search
from cpvae.profiles.read import read_profiles
from cpvae.model.presets import make_vae
from cpvae.run.preset import RunConfig, prepare
from cpvae.tune.curves import latent_curve, weight_curve
from cpvae.tune.search import importances, space_of, trials_table, tune, vae_settings

PAPER = {"u2os": "chow2022", "l1000": "chow2022-l1000"}  # preset of the paper's settings
BETAS = {
    "chow2022": (0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
    "recommended": (0, 0.1, 0.3, 1, 3, 10, 30, 100),
}
LAMBDAS = {"chow2022": (0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7), "recommended": (0, 100, 1000)}
SEEDS = {
    "beta": {"chow2022": range(3), "recommended": range(2)},
    "mmd_weight": {"chow2022": range(2), "recommended": range(1)},
}
SIZES, SIZE_SEEDS = (5, 10, 50, 150), range(2)
TRIALS = 16
SHARES = (0.25, 0.5, 0.75)  # of a trial's epochs
# of a trial, and of a fit of the latent curve
BUDGET = {"chow2022": {"epochs": 30}, "recommended": {"steps": 1000}}
# By table: seeds, and what was varied.
MADE = {
    "beta": (range(3), {"weights": BETAS, "seeds": SEEDS["beta"]}),
    "lambda": (range(2), {"weights": LAMBDAS, "seeds": SEEDS["mmd_weight"]}),
    "latent": (SIZE_SEEDS, {"latent units": SIZES, "budget": BUDGET["recommended"]}),
    "trials": ([0], {"trials": TRIALS, "budget": BUDGET}),
    "importance": ([0], {"trials": TRIALS, "budget": BUDGET}),
    "rungs": ([0], {"trials": TRIALS, "budget": BUDGET, "shares": SHARES}),
}


def parts(folder: Path):
    """Each table prepared by each preset: what identifies it, training profiles, validation
    profiles, preset of the models.
    """
    for table, (name, how) in TABLES.items():
        for preparation in ("chow2022", "recommended"):
            profiles = prepare(read_profiles(folder / name, **how), RunConfig(preset=preparation))
            x, split = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
            about = {"table": table.upper(), "preparation": preparation}
            preset = PAPER[table] if preparation == "chow2022" else "recommended"
            yield about, x[split == "train"], x[split == "valid"], preset


def curves(prepared, which: str, grids: dict) -> pd.DataFrame:
    "The curve of one weight on every part."
    return pd.concat(
        [
            weight_curve(
                x,
                valid,
                grids[about["preparation"]],
                which,
                preset=preset,
                seeds=SEEDS[which][about["preparation"]],
                jobs=-1,
            ).assign(**about, n=len(x))
            for about, x, valid, preset in prepared
        ]
    )


def latent(prepared) -> pd.DataFrame:
    "FVU against latent units, recommended preset, half of its steps."
    how = dict(seeds=SIZE_SEEDS, jobs=-1, **BUDGET["recommended"])
    return pd.concat(
        [
            latent_curve(x, valid, SIZES, **how).assign(**about, n=len(x))
            for about, x, valid, preset in prepared
            if preset == "recommended"
        ]
    )


def trials(prepared) -> tuple[pd.DataFrame, pd.DataFrame]:
    "A search in the paper's space on both tables, and in ours on U2OS; and what mattered."
    tables, matter = [], []
    for about, x, valid, preset in prepared:
        if about != {"table": "L1000", "preparation": "recommended"}:
            study = tune(
                x,
                valid,
                variant="beta",
                preset=preset,
                trials=TRIALS,
                jobs=-1,
                **BUDGET[about["preparation"]],
            )
            tables.append(trials_table(study).assign(**about, n=len(x)))
            matter.append(importances(study).rename("importance").reset_index().assign(**about))
    return pd.concat(tables), pd.concat(matter)


def at_shares(vae, x, valid, by_elbo: bool) -> list[float]:
    "A trial's value after each of `SHARES` of its epochs, and at its end; nothing stops it."
    search.RUNGS = dict.fromkeys(search.RUNGS, SHARES)
    value, rungs, _ = search.trial_value(vae, x, valid, by_elbo)
    return [*rungs, value]


def rungs(prepared) -> pd.DataFrame:
    "How early a trial tells its end: random settings of either space on U2OS."
    tables = []
    for about, x, valid, preset in prepared:
        if about["table"] == "U2OS":
            space = space_of(preset, "beta")
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            drawn = [study.ask(fixed_distributions=space).params for _ in range(TRIALS)]
            models = [
                make_vae(
                    "beta",
                    preset,
                    **BUDGET[about["preparation"]],
                    **vae_settings(params),
                    random_state=i,
                )
                for i, params in enumerate(drawn)
            ]
            values = Parallel(n_jobs=-1)(
                delayed(at_shares)(m, x, valid, "beta" in space) for m in models
            )
            table = pd.DataFrame(drawn).join(pd.DataFrame(values, columns=[*map(str, SHARES), "1"]))
            tables.append(table.assign(**about, schedule=models[0].schedule, n=len(x)))
    return pd.concat(tables)


def write(name: str, table: pd.DataFrame, folder: Path) -> None:
    "One table with its origin."
    first, (seeds, settings) = ["table", "preparation"], MADE[name]
    table = table[first + [c for c in table if c not in first]]
    read = [folder / TABLES[t.lower()][0] for t in table["table"].unique()]
    how = dict(settings=settings, seeds=seeds, packages=["optuna"])
    write_table(f"selection_{name}", table, sources=read, **how)
    print(f"selection_{name}.csv: {len(table)} rows", flush=True)


if __name__ == "__main__":
    keep_fits()
    warnings.simplefilter("ignore")  # each model that collapsed would say so
    folder = Path(sys.argv[1])
    wanted = sys.argv[2:] or ["beta", "lambda", "latent", "trials", "rungs"]
    prepared = list(parts(folder))
    if "beta" in wanted:
        write("beta", curves(prepared, "beta", BETAS), folder)
    if "lambda" in wanted:
        write("lambda", curves(prepared, "mmd_weight", LAMBDAS), folder)
    if "latent" in wanted:
        write("latent", latent(prepared), folder)
    if "trials" in wanted:
        searched, matter = trials(prepared)
        write("trials", searched, folder)
        write("importance", matter, folder)
    if "rungs" in wanted:
        write("rungs", rungs(prepared), folder)
