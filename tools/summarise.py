"""Summarise finished runs into nbs/results/summary.csv: python tools/summarise.py RUN...

One row for each dataset and predictor: scores on held-out profiles, means over pairs of the arithmetic, and where they come from
(hash of the data, seed, versions). The index reads this table, because the data themselves are not in the repository.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from project import ROOT


def summarise(run: Path) -> pd.DataFrame:
    "Scores of one run, a row a predictor."
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    held_out = pd.read_csv(run / "tables" / "reconstruction.csv").query("split == 'test' and not shuffled").set_index("model")
    lsa = pd.read_csv(run / "tables" / "lsa.csv")
    scores = lsa.groupby(["model", "space"], sort=False)[["l2", "delta_pearson", "mismatch_r", "rank"]].mean()
    scores["pairs"], scores["p05"] = lsa.groupby(["model", "space"]).size(), lsa[lsa.p_matched < 0.05].groupby(["model", "space"]).size()
    scores["q05"] = lsa[lsa.q < 0.05].groupby(["model", "space"]).size()
    tested = lsa[lsa.p_matched.notna()].groupby(["model", "space"]).size()
    scores[["p05", "q05"]] = scores[["p05", "q05"]].fillna(0)
    scores.loc[~scores.index.isin(tested.index), ["p05", "q05"]] = float("nan")
    table = scores.reset_index().merge(held_out[["fvu", "emd_mean"]], how="outer", left_on="model", right_index=True, sort=False)
    source = {k: record["data"][k] for k in ("source", "sha256", "profiles")} | {k: record[k] for k in ("preset", "seed", "created")}
    return table.assign(test_profiles=int(held_out["n"].iloc[0]), **source, cpvae=record["versions"]["cpvae"], torch=record["versions"]["torch"])


if __name__ == "__main__":
    table = pd.concat([summarise(Path(run)) for run in sys.argv[1:]])
    (ROOT / "nbs" / "results").mkdir(exist_ok=True)
    table.round(4).to_csv(ROOT / "nbs" / "results" / "summary.csv", index=False, float_format="%g", lineterminator="\n")
    print(table.to_string(index=False))
