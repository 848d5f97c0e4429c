"""What noise and a price on the code buy: VAEs against a plain autoencoder, PCA with a learned
decoder, and PCA, for sums of pairs and for reconstruction: `python nbs/paper/tables/vae.py DATA`.

DATA is a folder that holds the U2OS and the L1000 table; three tables of measured pairs are in the
package. What is held out has no part in scaling, training, the choice of an epoch or of settings,
nor in the calibrated sum. Every network tries the same `GRID` of settings, once a table and split,
on the validation part of the first fold's training profiles; PCA has none to try. All models of a
fold are fitted to the same profiles. Some forty minutes on one core; fits are kept, so that a run
that was stopped goes on where it was.

nbs/results/vae_sums.csv     a row a table, model, size and predictor: skill S with its interval,
    the least and most of its seeds, and S less that of a rival with an interval
nbs/results/vae_rebuilt.csv  a row a table, split, model and size: FVU of what was held out, the
    least and most of its splits and seeds, and FVU less that of a rival with an interval
"""

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from models import processed, without_classes
from scipy.stats import t as student_t
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer
from sources import TABLES, keep_fits
from provenance import write_table

from cpvae.datasets import load_dataset
from cpvae.lsa.left_out import wells_of
from cpvae.lsa.learned import CalibratedSum
from cpvae.lsa.predictors import Sum
from cpvae.lsa.scores import dyadic_half_width
from cpvae.lsa.skill import centred_in_folds, frozen_folds, skill_of
from cpvae.lsa.space import Measured, average_wells, latent_space
from cpvae.model.codes import CollapseWarning
from cpvae.model.fits import fit_many
from cpvae.model.presets import RIVALS, make_vae
from cpvae.model.transformers import reconstruct
from cpvae.preparation.clean import drop_copies, sort_rows
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles
from cpvae.profiles.read import read_profiles
from cpvae.run.preset import RUN_PRESETS

NETWORKS = ("vanilla", "beta", "mmd", *RIVALS)
SIZES = (5, 20, 50)  # latent units; PCA has as many components, and twice as many
# units at which settings are chosen, for all sizes; the only size of U2OS and of L1000's pairs
TUNED = 20
WIDTHS = {"small": ((64,), (250,)), "large": ((250,), (500, 250))}  # of hidden layers
RATES = (1e-3, 3e-3)  # learning rates
STEPS = {"norman": 1_000, "korkut": 1_000, "ecoli": 1_000, "l1000": 1_000, "u2os": 1_000}
SEEDS = {"norman": range(3)}  # of weights on the same folds; one elsewhere
SPLITS = {"compound": range(3), "class": range(5), "plate": range(1)}  # of U2OS
RIVALRY = ("input", "pca", "pca_2k", "ae")  # whom a model is compared with
COMBINED = ("norman", "korkut", "ecoli")  # measured pairs


PREDICTORS = {"sum": Sum, "calibrated_sum": CalibratedSum, "mean_ab": lambda: CalibratedSum(0.5)}


@dataclass(frozen=True, eq=False)
class Part:
    "One fold of pairs, or one split: what is held out, and what models may learn from."

    ready: AnnData  # with `obs["split"]` and `layers["scaled"]`
    unit: np.ndarray  # `[n_test]` to what each held-out row belongs: pair, compound, plate, class
    fold: int  # number of the part
    seeds: range  # of weights

    def rows(self, which: str) -> np.ndarray:  # `[n,G]` scaled
        return np.asarray(self.ready.layers["scaled"])[(self.ready.obs["split"] == which)]


# --- what is held out -----------------------------------------------------------------------------


def folds(folder: Path, name: str) -> list[Part]:
    "A table of pairs, scaled by one standard deviation; a fold's carriers of pairs are held out."
    table = load_dataset(name) if name in COMBINED else read(folder, name)
    table, parts = drop_copies(sort_rows(table)), []
    plain = split_profiles(table, seed=0)
    pairs = average_wells(scale_profiles(plain, method="none")).pairs
    fold = frozen_folds([pair.name for pair in pairs])
    for one in np.unique(fold):
        out = wells_of(table, [(p.a, p.b) for p, f in zip(pairs, fold, strict=True) if f == one])
        split = np.full(len(out), "test", object)
        split[~out] = split_profiles(table[~out].copy(), test=0, seed=0).obs["split"]
        divided = table.copy()
        divided.obs["split"] = split
        ready = scale_profiles(divided, method="one_sd", fit_on="train")
        seeds = SEEDS.get(name, range(1))
        parts.append(Part(ready, ready.obs["moa"].to_numpy(str)[out], int(one), seeds))
    return parts


def read(folder: Path, name: str) -> AnnData:
    "A public table."
    file, how = TABLES[name]
    return read_profiles(folder / file, **how)


def splits(folder: Path, name: str, by: str) -> list[Part]:
    "A table as a run prepares it, by compound, plate, or class of injury."
    parts = []
    for seed in SPLITS[by] if name == "u2os" else range(1):
        if by == "class":
            ready = without_classes(folder, seed)
            unit = ready.obs["Metadata_injury_type"].astype(str)
        else:
            divided = split_profiles(drop_copies(sort_rows(read(folder, name))), by=by, seed=seed)
            ready = processed(divided, RUN_PRESETS["recommended"].preparation())
            obs = ready.obs
            treated = (by == "compound") & ~obs["is_control"].to_numpy(bool)
            unit = obs["plate"].astype(str).where(~treated, obs["compound"].astype(str))
        held = (ready.obs["split"] == "test").to_numpy()
        parts.append(Part(ready, unit.to_numpy(str)[held], seed, range(seed, seed + 1)))
    return parts


# --- models ---------------------------------------------------------------------------------------


def grid(table: str) -> list[dict]:
    "Settings that every network tries."
    widths = WIDTHS["small" if table in COMBINED else "large"]
    how = product(widths, RATES)
    return [dict(hidden_layer_sizes=w, learning_rate=r, steps=STEPS[table]) for w, r in how]


def chosen(part: Part, table: str) -> dict[str, dict]:
    "Each network's settings of the smallest squared error on the validation part."
    tried = {(v, i): how for v in NETWORKS for i, how in enumerate(grid(table))}
    size = min(TUNED, *part.rows("train").shape)
    asked = {
        (v, i): make_vae(v, n_latent=size, random_state=0, **how) for (v, i), how in tried.items()
    }
    valid = part.rows("valid")
    fitted = fit_many(asked, part.rows("train"), valid, jobs=1)
    error = {key: np.square(valid - reconstruct(m, valid)).sum() for key, m in fitted.items()}
    best = {v: min((error[v, i], i) for i in range(len(grid(table))))[1] for v in NETWORKS}
    return {v: tried[v, i] for v, i in best.items()}


def fitted_models(part: Part, size: int, settings: dict[str, dict]) -> dict[tuple, object]:
    "Models by name and seed; PCA has no more components than rows or features allow."
    train, found = part.rows("train"), {}
    most = min(len(train) - 1, train.shape[1])
    for name, k in (("pca", size), ("pca_2k", 2 * size)):
        found[name, 0] = PCA(min(k, most), random_state=0).fit(train)
    asked = {
        (v, seed): make_vae(v, n_latent=size, random_state=seed, **how)
        for v, how in settings.items()
        for seed in part.seeds
    }
    return found | fit_many(asked, train, part.rows("valid"), jobs=1)


# --- scores ---------------------------------------------------------------------------------------


def of_pairs(ready: AnnData) -> Measured:
    "What was measured of A, of B, of A|B and of the control: sums ask nothing else."
    pairs = average_wells(ready).pairs
    asked = {label for pair in pairs for label in (pair.a, pair.b, pair.moa)}
    return average_wells(ready[ready.obs["moa"].isin(asked) | ready.obs["is_control"]].copy())


def predictions(part: Part, models: dict[tuple, object]) -> dict[tuple, tuple]:
    "Of every predictor and model: numbers of the fold's pairs, and their states in raw values."
    measured = of_pairs(part.ready)
    center, scale = (part.ready.var[name].to_numpy() for name in ("center", "scale"))
    fold = frozen_folds([pair.name for pair in measured.pairs])
    at = np.flatnonzero(fold == part.fold)
    held, found = [measured.pairs[i] for i in at], {}
    for (name, seed), model in models.items():
        space = latent_space(model, measured)
        for predictor, kind in PREDICTORS.items():
            states = kind().fit(space, held).predict(held)
            found[predictor, name, seed] = at, states * scale + center
    return found


def known(part: Part) -> dict:
    "What `skill_of` is told of a table beside predictions, in raw values."
    measured = of_pairs(part.ready)
    center, scale = (part.ready.var[name].to_numpy() for name in ("center", "scale"))
    state = lambda group: (
        measured.group_mean([getattr(p, group) for p in measured.pairs]) * scale + center
    )
    return {
        "truths": state("in_ab"),
        "parents": np.stack([state("in_a"), state("in_b")], axis=1),
        "pairs": [(p.a, p.b) for p in measured.pairs],
    }


def half_width(influence: np.ndarray, members: list[tuple] | None) -> float:
    "Half of a 95 % interval over pairs, or over units that share nothing; NaN for fewer than ten."
    if members is not None:
        return dyadic_half_width(influence, members)
    n = len(influence)
    if n < 10:
        return np.nan
    return float(student_t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1) * np.square(influence).sum()))


def less(own, rival, total, members, sign: int = 1) -> tuple[float, float, float]:
    "Difference of two ratios with the same denominator, and its interval by linearisation."
    gap = sign * (own - rival)
    value = gap.sum() / total.sum()
    half = half_width((gap - value * total) / total.sum(), members)
    return value, value - half, value + half


def compared(errors: dict, key: tuple, at: int, total, members, sign: int = 1) -> dict:
    "Difference from every rival that is there; `at` is the place of the model's name in a key."
    found = {}
    for rival in RIVALRY[0 if at else 1 :]:  # a reconstruction has no rival in features
        other = (*key[:at], rival, *key[at + 1 :])
        other = ("calibrated_sum", "input", 0) if rival == "input" else other
        there = other in errors and other != key
        values = less(errors[key], errors[other], total, members, sign) if there else (np.nan,) * 3
        found |= dict(zip((f"over_{rival}", f"{rival}_low", f"{rival}_high"), values, strict=True))
    return found


def sums_of(told: dict[tuple, list], about: dict) -> list[dict]:
    "Rows of vae_sums.csv: `told` has by predictor, model, size and seed what its folds predicted."
    truths, pairs = about["truths"], about["pairs"]
    fold = frozen_folds(["|".join(pair) for pair in pairs])
    y = centred_in_folds(truths, fold)
    total, errors, skills = np.square(y).sum(axis=1), {}, {}
    for (predictor, name, size, _), parts in told.items():
        states = np.empty_like(truths, dtype=float)
        for at, some in parts:
            states[at] = some
        error = np.square(centred_in_folds(states, fold) - y).sum(axis=1)
        errors.setdefault((predictor, name, size), []).append(error)
        skills.setdefault((predictor, name, size), []).append(skill_of(states, **about).skill)
    mean, rows = {key: np.mean(each, axis=0) for key, each in errors.items()}, []
    for key, each in skills.items():
        predictor, name, size = key
        left, low, high = less(mean[key], 0, total, pairs)
        row = dict(model=name, n_latent=size, predictor=predictor, n_pairs=len(pairs))
        row |= dict(seeds=len(each), skill=1 - left, low=1 - high, high=1 - low)
        row |= dict(least=min(each), most=max(each))
        rows.append(row | compared(mean, key, 1, total, pairs, sign=-1))
    return rows


def rebuilt_of(seen: list[dict], members: bool) -> list[dict]:
    "Rows of vae_rebuilt.csv: `seen` has errors and totals of every unit, a model, fold and seed."
    table, rows = pd.DataFrame(seen), []
    whole = table.explode(["unit", "error", "total"]).astype({"error": float, "total": float})
    by = whole.groupby(["model", "n_latent", "unit"])[["error", "total"]].sum()
    share = whole.groupby(["model", "n_latent", "fold", "seed"])[["error", "total"]].sum()
    if members:  # seeds have all folds in common
        share = share.groupby(["model", "n_latent", "seed"]).sum()
    errors = {key: by.loc[key, "error"].to_numpy() for key in {k[:2] for k in by.index}}
    for key in dict.fromkeys(zip(table["model"], table["n_latent"], strict=True)):
        own = by.loc[key]
        total, own_rows = (
            own["total"].to_numpy(),
            table[(table[["model", "n_latent"]] == key).all(1)],
        )
        # seeds of the same folds count the same units again: all sums are means over them
        again = len(own_rows) / own_rows["fold"].nunique()
        scaled = {k: e * (total.sum() / by.loc[k, "total"].sum()) for k, e in errors.items()}
        pairs = [tuple(unit.split("|")) for unit in own.index] if members else None
        each = (share.loc[key]["error"] / share.loc[key]["total"]).to_numpy()
        row = dict(model=key[0], n_latent=key[1], n_units=len(own), parts=len(own_rows))
        row |= dict(seeds=int(again), components=int(own_rows["components"].max()))
        row |= dict(active=own_rows["active"].mean(), fvu=own["error"].sum() / total.sum())
        row |= dict(least=each.min(), most=each.max())
        rows.append(row | compared(scaled, key, 0, total, pairs))
    return rows


def rebuilt(part: Part, models: dict[tuple, object], size: int) -> list[dict]:
    "Squared error of every held-out unit by every model, and its spread around the training mean."
    test, mean, found = part.rows("test").astype(float), part.rows("train").mean(axis=0), []
    names, code = np.unique(part.unit, return_inverse=True)
    summed = lambda gap: np.bincount(code, np.square(gap).sum(axis=1))
    total = summed(test - mean)
    for (name, seed), model in models.items():
        error = summed(test - reconstruct(model, test.astype(np.float32)))
        units = getattr(model, "latent_units_", None)
        row = dict(model=name, n_latent=size, fold=part.fold, seed=seed, unit=names, error=error)
        row |= dict(total=total, active=np.nan if units is None else units["active"].sum())
        found.append(row | dict(components=getattr(model, "n_components_", size)))
    return found


# --- tables ---------------------------------------------------------------------------------------


def measured_on(table: str, by: str, parts: list[Part], sizes) -> Iterator[tuple[str, list[dict]]]:
    "Rows of both tables, by the name of the table; none for sums where no pairs were held out."
    settings, told, seen = chosen(parts[0], table), {}, []
    said = {
        v: dict(width="-".join(map(str, how["hidden_layer_sizes"])), rate=how["learning_rate"])
        for v, how in settings.items()
    }
    for size, part in product(sizes, parts):
        models = fitted_models(part, size, settings)
        seen += rebuilt(part, models, size)
        if by == "pair":
            asked = models | ({("input", 0): FunctionTransformer()} if size == sizes[0] else {})
            for (predictor, name, seed), states in predictions(part, asked).items():
                key = (predictor, name, 0 if name == "input" else size, seed)
                told.setdefault(key, []).append(states)
    tried = lambda row: dict(settings_tried=len(grid(table)) if row["model"] in said else 0)
    first = dict(table=table)
    label = lambda row: row | tried(row) | said.get(row["model"], dict(width="", rate=np.nan))
    if told:
        yield "vae_sums", [first | label(row) for row in sums_of(told, known(parts[0]))]
    if by != "pair" or table in COMBINED:
        rows = rebuilt_of(seen, by == "pair")
        yield "vae_rebuilt", [first | dict(split=by) | label(row) for row in rows]


def tasks(folder: Path) -> Iterator[tuple]:
    "Table, split, parts and sizes, one after another."
    for name in COMBINED:
        yield name, "pair", folds(folder, name), SIZES
    yield "l1000", "compound", splits(folder, "l1000", "compound"), SIZES
    yield "l1000", "pair", folds(folder, "l1000"), (TUNED,)
    for by in SPLITS:
        yield "u2os", by, splits(folder, "u2os", by), (TUNED,)


if __name__ == "__main__":
    keep_fits()
    warnings.simplefilter("ignore", CollapseWarning)
    folder, rows = Path(sys.argv[1]), {"vae_sums": [], "vae_rebuilt": []}
    for table, by, parts, sizes in tasks(folder):
        began = time.process_time()
        for name, some in measured_on(table, by, parts, sizes):
            rows[name] += some
            settings = {"widths": WIDTHS, "rates": RATES, "steps": STEPS, "chosen at": TUNED}
            settings |= {"sizes": SIZES, "seeds": SEEDS, "splits of u2os": SPLITS}
            write_table(
                name,
                pd.DataFrame(rows[name]),
                settings=settings,
                sources=[folder / file for file, _ in TABLES.values()],
                seeds=range(3),
            )
        print(table, by, f"{time.process_time() - began:.0f} s", flush=True)
