"""How well unmeasured pairs are ranked, and how many measured pairs that takes, on the tables that
come with the package: `python nbs/paper/tables/ranked.py`.

Writes two tables, which 11c_rank_pairs reads. nbs/results/ranked.csv: half of the measured pairs
are hidden, `rank_pairs` ranks them from single treatments and the other half, and each column is
held against what was measured: Spearman's correlation, that of a trivial rank, and the partial one
given the trivial rank, means over twenty halves with intervals by jackknife over mechanisms. Table
"all": the mean over the three tables. nbs/results/pairs_needed.csv: the learning curve of each
table, and what twenty pairs are worth of which ten are drawn and ten are those of which a Gaussian
process is then least sure; in how many draws that won against twenty drawn, and lost. Two minutes.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from provenance import write_table
from scipy.stats import rankdata
from sklearn.preprocessing import FunctionTransformer

from cpvae.datasets import load_dataset
from cpvae.lsa.learned import PREDICTORS, CalibratedSum, Process
from cpvae.lsa.space import average_wells, latent_space
from cpvae.run.preset import RunConfig, prepare
from cpvae.screening.rank import RANKED_BY, effect_columns, learning_curve, mean_ranks, rank_pairs

TABLES = ("norman", "korkut", "ecoli")
ASKED = ("process", "calibrated_sum")
HALVES = DRAWS = 20
# columns, and the trivial rank of each: what is known without a model, or how strong it will be
TRIVIAL = {
    "strength": "parents",
    "non_additivity": "strength",
    "novelty": "strength",
    "mean_rank": "parents",
    "distance_from_sum": "strength",  # non-additivity, not as a share
}


def correlated(x: np.ndarray, y: np.ndarray, given: np.ndarray | None = None) -> float:
    "Spearman's correlation, or the partial one: of what a line in ranks of `given` leaves."
    x, y = rankdata(x) - (len(x) + 1) / 2, rankdata(y) - (len(y) + 1) / 2
    if given is not None:
        z = rankdata(given) - (len(x) + 1) / 2
        x, y = (v - z * (v @ z) / (z @ z) for v in (x, y))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else np.nan


def halves(ready, asked: str):
    "Predicted and measured columns of hidden pairs, half after half."
    whole = latent_space(FunctionTransformer(), average_wells(ready))
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(whole.pairs))
        hidden = [whole.pairs[i] for i in np.sort(order[: len(order) // 2])]
        kept = ~ready.obs["moa"].isin([p.moa for p in hidden]).to_numpy()
        space = latent_space(FunctionTransformer(), average_wells(ready[kept].copy()))
        told = rank_pairs(space, PREDICTORS[asked]())
        told.index = [frozenset(pair) for pair in zip(told["a"], told["b"])]
        told = told.loc[[frozenset((p.a, p.b)) for p in hidden]].reset_index(drop=True)
        masks = [[getattr(p, group) for p in hidden] for group in ("in_a", "in_b", "in_ab")]
        a, b, both = (whole.group_mean(group) - whole.control for group in masks)
        sums = CalibratedSum().fit(space).c_ * (a + b) + space.control
        true = effect_columns(space, both + space.control, sums)
        true[[c for c in RANKED_BY if told[c].isna().all()]] = np.nan
        for table in (told, true):  # ranks among these, not among all that are unmeasured
            table["mean_rank"] = mean_ranks(table)
            table["distance_from_sum"] = table["strength"] * table["non_additivity"]
        told["parents"] = np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1)
        yield told, true


NAMES = ("spearman", "trivial", "partial")


def validated(found: list, column: str) -> tuple[np.ndarray, np.ndarray]:
    """How a column's ranks agree with what was measured: Fisher's z of `NAMES`, `[3]`, and their
    standard errors.
    """

    def z(without: str | None) -> np.ndarray:
        each = []
        for told, true in found:
            keep = ((told["a"] != without) & (told["b"] != without)).to_numpy()
            x, y, t = (v.to_numpy()[keep] for v in (told[column], true[column], told[trivial]))
            each.append([correlated(x, y), correlated(t, y), correlated(x, y, t)])
        return np.arctanh(np.mean(each, axis=0))

    trivial = TRIVIAL[column]
    members = sorted({name for told, _ in found for name in {*told["a"], *told["b"]}})
    left = np.array([z(name) for name in members])
    n = len(members)
    return z(None), np.sqrt((n - 1) / n * np.square(left - left.mean(axis=0)).sum(axis=0))


def as_row(z: np.ndarray, se: np.ndarray) -> dict[str, float]:
    "Correlations and the ends of their 95 % intervals."
    row = {}
    for name, value, half in zip(NAMES, z, 1.96 * se):
        row |= {name: np.tanh(value)}
        row |= {f"{name}_low": np.tanh(value - half), f"{name}_high": np.tanh(value + half)}
    return row


def unsure(space, fitted: Process, pairs: list) -> np.ndarray:  # `[K]`
    "How unsure a fitted process is of what the sum leaves of each pair."
    seen = fitted._seen(pairs, fitted._sums(pairs))
    spread = fitted.process.predict(seen, return_std=True)[1]
    return spread.reshape(len(pairs), -1).mean(axis=1)


def chosen(space) -> pd.DataFrame:
    "Skill of a process on a quarter: ten pairs and ten more, at random or where it is least sure."
    rng, pairs, rows = np.random.default_rng(0), space.pairs, []
    for _ in range(DRAWS):
        order = rng.permutation(len(pairs))
        test, free = np.split(order, [len(order) // 4])
        truths = space.group_mean([pairs[i].in_ab for i in test])
        y = truths - truths.mean(axis=0)
        fit = lambda at: Process().fit(replace(space, pairs=tuple(pairs[i] for i in sorted(at))))
        doubt = unsure(space, fit(free[:10]), [pairs[i] for i in free[10:]])
        picks = {"random": free[:20]}
        picks["least sure"] = np.r_[free[:10], free[10:][np.argsort(-doubt, kind="stable")[:10]]]
        for how, at in picks.items():
            guess = fit(at).predict([pairs[i] for i in test])
            off = guess - guess.mean(axis=0) - y
            rows.append((how, np.square(off).sum(), np.square(y).sum()))
    found = pd.DataFrame(rows, columns=["chosen", "error", "length"]).set_index("chosen")
    each = {how: 1 - some["error"] / some["length"] for how, some in found.groupby(level=0)}
    won = (each["least sure"].to_numpy() > each["random"].to_numpy() + 1e-9).sum()
    lost = (each["least sure"].to_numpy() < each["random"].to_numpy() - 1e-9).sum()
    total = found.loc["least sure"].sum()
    about = {"chosen": "least sure", "predictor": "process", "n_pairs": 20}
    spread = dict(zip(("low", "high"), each["least sure"].quantile([0.1, 0.9])))
    skill = 1 - total["error"] / total["length"]
    return pd.DataFrame([{**about, "skill": skill, **spread, "won": won, "lost": lost}])


def rankings(ready: dict) -> pd.DataFrame:
    "The rows of ranked.csv."
    rows = []
    for asked in ASKED:
        found = {name: [*halves(profiles, asked)] for name, profiles in ready.items()}
        for column, trivial in TRIVIAL.items():
            if found[TABLES[0]][0][0][column].isna().all():
                continue
            about = {"predictor": asked, "column": column, "given": trivial}
            each = {name: validated(pairs, column) for name, pairs in found.items()}
            z, se = (np.array([one[k] for one in each.values()]) for k in (0, 1))
            all_of_them = (z.mean(axis=0), np.sqrt(np.square(se).sum(axis=0)) / len(se))
            for name, told in (each | {"all": all_of_them}).items():
                n = sum(len(f[0][0]) for k, f in found.items() if name in (k, "all"))
                rows.append({"table": name, **about, "n_hidden": n, **as_row(*told)})
                print(*[*rows[-1].values()][:5], rows[-1]["spearman"].round(2), flush=True)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    ready = {name: prepare(load_dataset(name), RunConfig()) for name in TABLES}
    settings = {"tables": TABLES, "halves": HALVES, "draws": DRAWS}
    table = rankings(ready)
    write_table("ranked", table, settings=settings, seeds=range(HALVES))
    rows = []
    for name, profiles in ready.items():
        space = latent_space(FunctionTransformer(), average_wells(profiles))
        curve = learning_curve(space, n_draws=DRAWS).drop(columns="borrowed")
        rows += [curve.assign(chosen="random", table=name), chosen(space).assign(table=name)]
    curves = pd.concat(rows, ignore_index=True)
    first = ["table", "chosen", "predictor", "n_pairs", "skill", "low", "high", "won", "lost"]
    write_table("pairs_needed", curves[first], settings=settings, seeds=[0])
