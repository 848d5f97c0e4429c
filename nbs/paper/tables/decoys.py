"""Does `screen` find what is not there? `python nbs/paper/tables/decoys.py DATA` writes
nbs/results/screening_decoys.csv and screening_worlds.csv, which nbs/11_screening reads.

DATA is a folder that holds the U2OS and the L1000 table. Decoys, which have no mechanism, stand
among their compounds: real ones reflected in the principal axes or turned within blocks of eight
axes of like variance, normal draws of the compounds' covariance and a compound's strength, and two
halves of compounds, axis by axis, whose own mechanisms do not count. Two rules are compared:
`screen`, and the rule before it, which dealt the labels of members anew among annotated compounds
of like strength. In simulated worlds, and where labels are hidden in the tables, it is known what
is there.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from provenance import write_table
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control
from sources import TABLES

from cpvae.lsa.relabel import draw_disjoint, strength_strata
from cpvae.lsa.space import Measured, average_wells
from cpvae.lsa.states import unit
from cpvae.profiles.read import read_profiles
from cpvae.run.preset import RunConfig, prepare
from cpvae.screening.decoys import KINDS, candidates_with_decoys, with_decoys
from cpvae.screening.screen import screen, screen_pairs
from cpvae.screening.votes import half_whiten, mechanism_members

SIZES = {"u2os": (20, 143), "l1000": (1, 500)}  # sets of decoys of a kind, decoys in a set
FOLDS = {"u2os": 10, "l1000": 1}  # tenths of the annotated compounds that lose their labels
SEEDS = 2  # of each simulated world
RELABELLINGS = 100_000  # behind a small p of the rule before
AT = 0.05  # found: q below this


def of_states(x: np.ndarray, compound, moa) -> Measured:
    "Compounds at these states, control at zero."
    about = pd.DataFrame({"compound": compound, "moa": moa, "strength": np.linalg.norm(x, axis=1)})
    return Measured(None, about, None, np.zeros(len(x)), x, np.zeros(x.shape[1]), ())


def relabelled(measured: Measured, seed: int) -> pd.DataFrame:
    """compound, mechanism and q of the candidates, by the rule before: votes against those of
    100,000 groups of annotated compounds of like strength.
    """
    about, rng = measured.compounds, np.random.default_rng(seed)
    members = mechanism_members(about["moa"])
    members = members.loc[:, members.sum() >= 3]
    u = unit(half_whiten(measured.means - measured.control), centre=False)
    vote = np.exp(12 * (u @ u.T - 1)).astype(np.float32)
    np.fill_diagonal(vote, -np.inf)
    strata = strength_strata(about["strength"].to_numpy(), (about["moa"] != "").to_numpy())
    p = np.full(members.shape, np.nan)
    for k, one in enumerate(members.to_numpy().T):
        group, rows = np.flatnonzero(one), np.flatnonzero(~one)
        for n in (999, RELABELLINGS):
            drawn = []
            for stratum, size in zip(*np.unique(strata[group], return_counts=True), strict=True):
                pool = np.flatnonzero(strata == stratum)
                drawn.append(pool[draw_disjoint(rng, len(pool), size, n)])
            chosen, at_least, speak = np.concatenate(drawn, axis=1), 1, 1
            heard, real = vote[:, rows], vote[group][:, rows].sum(0) * (1 - 1e-5)
            for some in np.array_split(chosen, -(-chosen.shape[0] // 4000)):
                ends = np.arange(0, some.size + 1, some.shape[1])
                total = csr_matrix(
                    (np.ones(some.size, np.float32), some.ravel(), ends), (len(some), len(u))
                )
                total = total @ heard
                at_least = at_least + (total >= real).sum(0)
                speak = speak + (total > -np.inf).sum(0)
            p[rows, k] = at_least / speak
            rows = rows[p[rows, k] <= 0.02]
            if not len(rows):
                break
    i, k = np.nonzero(np.isfinite(p))
    found = {"compound": about["compound"].to_numpy()[i], "mechanism": members.columns[k]}
    return pd.DataFrame(found | {"p": p[i, k], "q": false_discovery_control(p[i, k])})


def reflected(measured: Measured, seed: int) -> pd.DataFrame:
    "compound, mechanism, p and q of all, by `screen`."
    return screen(measured, barred=np.zeros((len(measured.means),) * 2, bool), seed=seed)


RULES = {"members relabelled": relabelled, "candidates reflected": reflected}


def decoys(measured: Measured, kind: str, sets: int, n: int) -> list[dict[str, object]]:
    "What either rule finds among compounds and decoys, a row a rule."
    rows = []
    for seed in range(sets):
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        mixed = with_decoys(measured, kind, n, rng)
        for rule, ask in RULES.items():
            table = ask(mixed, seed)
            new = candidates_with_decoys(table, mixed)
            found = new["q"] < AT
            flagged = int((found & new["decoy"]).sum())
            row = {"kind": kind, "rule": rule, "sets": 1, "decoys": n, "flagged": flagged}
            row |= {"others": int((found & ~new["decoy"]).sum()), "sets_flagged": int(flagged > 0)}
            row |= {
                "p05": (new.loc[new["decoy"], "p"] <= 0.05).mean(),
                "pairs": np.nan,
                "other_pairs": np.nan,
            }
            if rule == "candidates reflected" and kind != "halves":
                both = screen_pairs(table)
                both = both[both["q"] < AT]
                row["pairs"] = int(both["compound"].str.startswith("decoy ").sum())
                row["other_pairs"] = len(both) - row["pairs"]
            rows.append(row)
    return rows


def worlds(seed: int) -> dict[str, tuple[Measured, set]]:
    "Simulated compounds, and which candidates are right."
    rng, found = np.random.default_rng(seed), {}
    effect = 5 * rng.normal(size=(60, 100))
    of = [*np.repeat(np.arange(60), 10), *range(5)]
    names = [f"c{i}" for i in range(len(of))]
    x = effect[of] + 0.3 * rng.normal(size=(len(of), 100))
    moa = [f"m{k}" for k in of[:600]] + [""] * 5
    found["clusters"] = of_states(x, names, moa), {(f"c{600 + i}", f"m{i}") for i in range(5)}
    effect, of = rng.normal(size=(30, 100)), np.repeat(np.arange(30), 5)
    x = effect[of] + 0.3 * rng.normal(size=(150, 100)) + 0.35 * rng.normal(size=(150, 100))
    x = np.vstack([x, 0.3 * rng.normal(size=(300, 100))])
    names = [f"c{i}" for i in range(450)]
    found["noise"] = of_states(x, names, [f"m{k}" for k in of] + [""] * 300), set()
    of = np.repeat(np.arange(20), 5)
    for name, plate in (
        ("plates", rng.integers(8, size=200)),
        (
            "plates of mechanisms",
            np.append(rng.integers(8, size=20)[of], rng.integers(8, size=100)),
        ),
    ):
        x = rng.normal(size=(8, 60))[plate] + rng.normal(size=(200, 60))
        moa = [f"m{k}" for k in of] + [""] * 100
        found[name] = of_states(x, [f"c{i}" for i in range(200)], moa), set()
    return found


def hidden(measured: Measured, fold: int) -> tuple[Measured, set]:
    "Every tenth compound of one or two mechanisms loses its labels."
    about = measured.compounds
    few = np.flatnonzero((about["moa"] != "") & (about["moa"].str.count(r"\|") < 2))
    lost = np.random.default_rng(0).permutation(few)[fold::10]
    moa = about["moa"].to_numpy(object).copy()
    moa[lost] = ""
    names = mechanism_members(pd.Series(moa)).sum()
    right = {
        (about["compound"].iloc[i], term)
        for i in lost
        for term in about["moa"].iloc[i].split("|")
        if names.get(term, 0) >= 3
    }
    return of_states(measured.means - measured.control, about["compound"], moa), right


def judged(world: str, measured: Measured, right: set, seed: int) -> list[dict[str, object]]:
    "How much of what is there either rule finds, and what else."
    rows = []
    for rule, ask in RULES.items():
        table = ask(measured, seed)
        table = table[table["q"] < AT]
        hits = {*zip(table["compound"], table["mechanism"])} & right
        row = {"world": world, "rule": rule, "right": len(right), "found": len(hits)}
        rows.append(row | {"others": len(table) - len(hits)})
    return rows


def main(folder: Path, share: float = 1.0) -> None:
    "Both tables; with a share below one, fewer sets, folds and worlds."
    some = lambda n: max(1, round(share * n))
    flagged, seen = [], []
    for seed in range(some(SEEDS)):
        for world, (measured, right) in worlds(seed).items():
            seen += judged(world, measured, right, seed)
    for name, (file, how) in TABLES.items():
        measured = average_wells(prepare(read_profiles(folder / file, **how), RunConfig()))
        for kind in KINDS:
            rows = decoys(measured, kind, some(SIZES[name][0]), SIZES[name][1])
            flagged += [{"table": name} | row for row in rows]
        for fold in range(some(FOLDS[name])):
            seen += judged(f"{name}, labels hidden", *hidden(measured, fold), fold)
    how = {"sets": "sum", "decoys": "sum", "flagged": "sum", "others": "sum"}
    whole = lambda counts: counts.sum(skipna=False)
    how |= {"sets_flagged": "sum", "p05": "mean", "pairs": whole, "other_pairs": whole}
    by = ["table", "kind", "rule"]
    one = pd.DataFrame(flagged).groupby(by, sort=False).agg(how).reset_index()
    two = pd.DataFrame(seen).assign(runs=1).groupby(["world", "rule"], sort=False).sum()
    print(one.to_string(), two.to_string(), sep="\n")
    if share == 1:
        data = [folder / file for file, _ in TABLES.values()]
        settings = {"sets and decoys": SIZES, "relabellings": RELABELLINGS, "q below": AT}
        seeds = range(max(SEEDS, *(n for n, _ in SIZES.values())))
        write_table("screening_decoys", one, sources=data, settings=settings, seeds=seeds)
        settings = {"folds": FOLDS, "relabellings": RELABELLINGS, "q below": AT}
        seeds = range(max(SEEDS, *FOLDS.values()))
        write_table(
            "screening_worlds", two.reset_index(), sources=data, settings=settings, seeds=seeds
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
