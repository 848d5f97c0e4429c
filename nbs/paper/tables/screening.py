"""Hide mechanisms and look whether they are found: `python nbs/paper/tables/screening.py DATA
[candidates]` writes nbs/results/screening.csv and screening_candidates.csv, which nbs/11_screening
reads; or the latter only.

DATA is a folder that holds the U2OS and the L1000 table. Each is prepared as a run prepares it; PCA
and a beta-VAE of ten latent units are fitted on its training part, which takes no labels. Compounds
are dealt at random to the half that the score is chosen on and the half that is held out. With
analogues removed, compounds of one skeleton do not speak for each other.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sources import TABLES, keep_fits
from provenance import write_table
from sklearn.decomposition import PCA

from cpvae.profiles.read import read_profiles
from cpvae.model.fits import fit_one
from cpvae.lsa.space import latent_space, average_wells
from cpvae.lsa.states import unit
from cpvae.model.presets import make_vae
from cpvae.lsa.nulls import common_path
from cpvae.run.preset import RunConfig, prepare
from cpvae.screening.screen import hidden_second_mechanism, screen, summarize_hidden
from cpvae.screening.votes import SCORES, analogues, half_whiten, mechanism_members, nearest

TOP = 15  # candidates kept of each table
SETTINGS = {
    "screening": {"models": ["PCA-10", "beta-VAE"], "methods": [*SCORES, "mean"]},
    "screening_candidates": {"candidates": TOP},
}


def spaces(profiles, measured) -> dict[str, np.ndarray]:
    "States of compounds less the control, in the spaces where they are compared."
    away = measured.means - measured.control
    x = np.asarray(profiles.layers["scaled"])
    part = profiles.obs["split"].to_numpy()
    path = common_path(measured.means, measured.control)
    apart = away - away.mean(0)
    latent = {}
    for name, model in (
        ("PCA-10", PCA(10, random_state=0).fit(x[part == "train"])),
        (
            "beta-VAE",
            fit_one(make_vae("beta", random_state=0), x[part == "train"], x[part == "valid"]),
        ),
    ):
        space = latent_space(model, measured)
        latent[name] = space.z_compounds - space.z_control
    return {
        "features": away,
        "common removed": apart - (apart @ path) @ path.T,
        "whitened": half_whiten(away, 1),
        "half-whitened": half_whiten(away),
    } | latent


def all_scores(profiles, measured, allowed, members, states) -> dict[tuple[str, str], np.ndarray]:
    """Scores by space and method; and what needs no profile: the size of a mechanism, and the
    nearest cell count.
    """
    found = {}
    for space, x in states.items():
        u = unit(x, centre=False)
        found |= {
            (space, method): score(u @ u.T, members, allowed) for method, score in SCORES.items()
        }
        cosine = np.where(allowed, u @ u.T, 0) @ members
        count = allowed.astype(float) @ members
        found[space, "mean"] = np.where(count > 0, cosine / np.maximum(count, 1), -np.inf)
    found["none", "size"] = np.where(count > 0, count, -np.inf)
    if "Metadata_rel_cell_count" in profiles.obs:
        cells = pd.to_numeric(profiles.obs["Metadata_rel_cell_count"])
        cells = measured.weights @ cells.fillna(cells.median()).to_numpy()
        found["none", "cell count"] = nearest(-np.abs(cells[:, None] - cells), members, allowed)
    return found


def pairs_found(
    measured, members: pd.DataFrame, states: dict[str, np.ndarray], least: int = 2
) -> list[tuple[str, str, pd.DataFrame]]:
    """Space, method, and where the right pair stands among all pairs of mechanisms with some
    compounds of their own.
    """
    m = members.to_numpy()
    own = m & (m.sum(1) == 1)[:, None]
    pairs = np.array(list(combinations(np.flatnonzero(own.sum(0) >= least), 2)))
    number = {tuple(pair): j for j, pair in enumerate(pairs)}
    rows = [
        (i, number[pair])
        for i in np.flatnonzero(m.sum(1) == 2)
        if (pair := tuple(np.flatnonzero(m[i]))) in number
    ]
    found = []
    for space, x in states.items():
        u = unit(x, centre=False)
        mean = np.stack([x[one].mean(0) if one.any() else 0 * x[0] for one in own.T])
        vote = SCORES["votes"](u @ u.T, m, ~np.eye(len(u), dtype=bool))
        at, right = [i for i, _ in rows], [j for _, j in rows]
        for method, score in (
            ("A - D + B", u[at] @ unit(mean[pairs].sum(1), centre=False).T),
            ("votes", vote[at][:, pairs].sum(2)),
        ):
            rank = 1 + (score > score[range(len(at)), right][:, None]).sum(1)
            found.append(
                (
                    space,
                    method,
                    pd.DataFrame(
                        {
                            "row": at,
                            "rank": rank,
                            "n_ranked": len(pairs),
                            "found": rank <= max(1, len(pairs) // 100),
                        }
                    ),
                )
            )
    return found


def ready(folder: Path, name: str):
    "One table as a run prepares it, its compounds, and which are analogues."
    file, how = TABLES[name]
    profiles = prepare(read_profiles(folder / file, **how), RunConfig())
    measured = average_wells(profiles)
    return profiles, measured, analogues(measured)


def candidates(folder: Path, name: str, top: int = TOP) -> pd.DataFrame:
    "The best candidates of a screen, and how many there are."
    _, measured, near = ready(folder, name)
    new = screen(measured, barred=near).query("not known")
    found = new[new["q"] < 0.05]
    counts = {"n_q05": len(found), "n_p05": int((new["p"] <= 0.05).sum())}
    counts["similarity_q05"] = found["similarity"].median()
    return new.head(top).assign(n_tests=len(new), **counts, table=name)


def measure(folder: Path, name: str) -> pd.DataFrame:
    "Every score of one table, on both halves and on all of its compounds."
    profiles, measured, near = ready(folder, name)
    members = mechanism_members(measured.compounds["moa"])
    states = spaces(profiles, measured)
    first = np.random.default_rng(0).random(len(near)) < 0.5
    rows = []
    for removed in (False, True):
        scores = all_scores(
            profiles,
            measured,
            ~np.eye(len(near), dtype=bool) & ~(near & removed),
            members.to_numpy(float),
            states,
        )
        for (space, method), score in scores.items():
            for n_terms, label in ((2, "second"), (1, "only")):
                mine, other = (
                    hidden_second_mechanism(s, members, n_terms)
                    for s in (score, scores["features", "nearest"])
                )
                total = int((members.sum(1) == n_terms).sum())
                for part, take in (
                    ("all", first | True),
                    ("chosen on", first),
                    ("held out", ~first),
                ):
                    if take[mine["row"]].any() and (part == "all" or not removed):
                        found = summarize_hidden(mine[take[mine["row"]]], other[take[other["row"]]])
                        rows.append(
                            {
                                "table": name,
                                "space": space,
                                "method": method,
                                "analogues": "removed" if removed else "kept",
                                "hidden": label,
                                "part": part,
                                "with_terms": total,
                            }
                            | found
                        )
    for space, method, ranked in pairs_found(measured, members, states):
        rows.append(
            {
                "table": name,
                "space": space,
                "method": method,
                "analogues": "kept",
                "hidden": "pair",
                "part": "all",
                "with_terms": int((members.sum(1) == 2).sum()),
            }
            | summarize_hidden(ranked)
        )
    return pd.DataFrame(rows).assign(analogue_pairs=int(near.sum()) // 2)


if __name__ == "__main__":
    keep_fits()
    folder, parts = Path(sys.argv[1]), {"screening": measure, "screening_candidates": candidates}
    if sys.argv[2:] == ["candidates"]:
        del parts["screening"]
    sources = [folder / file for file, _ in TABLES.values()]
    for name, part in parts.items():
        table = pd.concat(part(folder, of) for of in TABLES)
        write_table(name, table, sources=sources, settings=SETTINGS[name], seeds=[0])
        if name == "screening_candidates":
            continue
        shown = table[(table["part"] == "all") & (table["hidden"] == "second")]
        print(
            shown[
                [
                    "table",
                    "space",
                    "method",
                    "analogues",
                    "n",
                    "recall_1pct",
                    "low",
                    "high",
                    "mrr",
                    "gain",
                    "gain_low",
                    "gain_high",
                ]
            ]
            .round(3)
            .to_string(index=False)
        )
