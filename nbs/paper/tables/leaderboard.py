"""Who predicts what two perturbations do together, on three tables of measured pairs and one of
annotated ones: `python nbs/paper/tables/leaderboard.py DATA`.

Every predictor that `cpvae benchmark` asks, by frozen folds of pairs whose profiles are out of
reach. Predictions are kept in results/benchmark and taken up again; five minutes.

nbs/results/leaderboard.csv        a row a table and method, as `cpvae benchmark` writes it
nbs/results/leaderboard_gains.csv  a row a table, method that learns, and rival: difference in S,
    with its 95 % interval
"""

import sys
from pathlib import Path

import pandas as pd
from provenance import write_table
from sources import ROOT, TABLES

from cpvae.judging.benchmark import TABLES as MEASURED
from cpvae.judging.benchmark import benchmark
from cpvae.judging.predictions import read_predictions, read_truth, truth_of
from cpvae.lsa.skill import skill_gain
from cpvae.profiles.read import read_profiles

LEARNERS = ("calibrated_sum", "regressed", "process", "additive_latent")


def gains(truth, folder: Path) -> pd.DataFrame:
    "Every method that learns against everyone else."
    states = {p.stem: read_predictions(p, truth).states for p in sorted(folder.glob("*.parquet"))}
    how = (truth.states, truth.members, truth.noise["noise"])
    rows = []
    for method in LEARNERS:
        for rival in (name for name in states if name != method):
            found = skill_gain(states[method], states[rival], *how)
            rows.append((truth.name, method, rival, *found))
    return pd.DataFrame(rows, columns=["table", "method", "rival", "gain", "low", "high"])


if __name__ == "__main__":
    data, kept = Path(sys.argv[1]), ROOT / "results" / "benchmark"
    file, how = TABLES["l1000"]
    profiles = {"l1000": read_profiles(data / file, **how)}
    boards = [benchmark(tables=MEASURED, folder=kept), benchmark(tables=profiles, folder=kept)]
    board = pd.concat([b.rows for b in boards], ignore_index=True)
    truths = [read_truth(name) for name in MEASURED]
    truths += [truth_of(profiles["l1000"])]
    named = zip([*MEASURED, "l1000"], truths, strict=True)
    found = [gains(t, kept / "predictions" / name).assign(table=name) for name, t in named]
    read = dict(settings={"methods": [*LEARNERS]}, sources=[data / file], seeds=[0])
    write_table("leaderboard", board.drop(columns=["code", "scorer"]), **read)
    write_table("leaderboard_gains", pd.concat(found, ignore_index=True), **read)
    print(board[["dataset", "method", "skill", "low", "high"]].round(2).to_string())
