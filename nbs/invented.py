"""A run that no model and no cell stands behind, for notebooks and tests of what is said of runs.

Chapters call `import_module("invented")` where they use it, as they do with `measured`.
"""

from typing import Any

import numpy as np
import pandas as pd

_ARITHMETIC = {"vanilla": 0.74, "beta": 0.62, "mmd": 0.66, "pca": 0.80, "additive_input": 0.95}
_BASELINES = {
    "global_mean": 1.0,
    "global_mean_scaled": 1.02,
    "control": 1.06,
    "a": 1.04,
    "b": 1.02,
    "stronger": 0.97,
    "mean_ab": 0.93,
}


def _example_scores(
    rng: np.random.Generator, pairs: list[str], size: float, model: str, space: str
) -> pd.DataFrame:
    "Scores that follow the size of the error, a fraction of each pair's difficulty."
    error = np.maximum(size + rng.normal(0, 0.07, len(pairs)), 0.05)
    flat = np.nan if model == "control" else 1.0
    return pd.DataFrame(
        {
            "model": model,
            "space": space,
            "pair": pairs,
            "l2": error * np.linspace(6, 11, len(pairs)),
            "pearson": 0.95 - 0.08 * error,
            "delta_pearson": flat * (1 - 0.75 * error + rng.normal(0, 0.03, len(pairs))),
            "mismatch_r": flat * (0.9 - 0.85 * error),
            "rank": np.clip(0.55 * error - 0.2, 0, 1),
            "beats_both_parents": error < 0.9,
        }
    )


def _example_null(
    rng: np.random.Generator, pairs: list[str], works: bool, n: int = 200
) -> pd.DataFrame:
    "Scores of relabelled compounds; permutation 0 is the real labelling."
    frames = []
    for model, size in _ARITHMETIC.items():
        for k, pair in enumerate(pairs):
            cosine = np.clip(rng.normal(0.05, 0.2, n + 1), -1, 1)
            cosine[0] = 1.05 - 0.5 * size - 0.2 * k / len(pairs) if works else cosine[0]
            l2 = (6 + 5 * k / len(pairs)) * (1.15 - 0.5 * cosine)
            frames.append(
                pd.DataFrame(
                    {
                        "model": model,
                        "pair": pair,
                        "permutation": range(n + 1),
                        "l2": l2,
                        "cosine": cosine,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def _example_lsa(
    rng: np.random.Generator, pairs: list[str], works: bool, null: pd.DataFrame
) -> pd.DataFrame:
    "An lsa.csv whose p-values come from `null`."
    blocks = [
        _example_scores(rng, pairs, size * (1 if works else 1.9), model, model)
        for model, size in _ARITHMETIC.items()
    ]
    blocks += [
        _example_scores(rng, pairs, size, model, "input") for model, size in _BASELINES.items()
    ]
    blocks += [_example_scores(rng, pairs, 0.95, "mechanism_blind", model) for model in _ARITHMETIC]
    p = (
        null.groupby(["model", "pair"], sort=False)
        .cosine.agg(lambda c: float((c >= c.iloc[0]).mean()))
        .rename("p_matched")
        .reset_index()
    )
    p["q"] = p.groupby("model").p_matched.transform(
        lambda v: (v * len(v) / v.rank(method="max")).clip(upper=1)
    )
    k = np.arange(len(pairs))
    described = pd.DataFrame(
        {
            "pair": pairs,
            "a": [v.split("|")[0] for v in pairs],
            "b": [v.split("|")[1] for v in pairs],
            "n_profiles": 12,
            "in_sample": True,
            "n_compounds_a": 2,
            "n_compounds_b": 3,
        }
    )
    described = described.assign(
        n_compounds_ab=1 + k % 2,
        active_a=True,
        active_b=True,
        active_ab=k != 3,
        target_overlap=np.where(k % 10 == 0, 0.5, 0.0),
        replicate_r=np.where(k % 2, 0.6, np.nan),
        split_half_r=0.8,
    )
    return (
        pd.concat(blocks, ignore_index=True)
        .merge(described, on="pair")
        .merge(
            p.assign(
                p=p.p_matched,
                p_floor=1 / 201,
                p_a_given_b=p.p_matched,
                # in every other pair B adds nothing to A
                p_b_given_a=p.p_matched.where(p.groupby("model").cumcount() % 2 == 0, 0.5),
                p_both_floor=1 / 201,
                z10=-1.5,
                specificity=0.3 if works else 0.01,
                p_table=1e-4 if works else 0.4,
            ),
            on=["model", "pair"],
            how="left",
        )
    )


def _example_reconstruction(works: bool) -> pd.DataFrame:
    """A reconstruction.csv in which the VAEs are ahead of PCA, or behind it with a shuffled control
    that reconstructs.
    """
    real = (
        {"vanilla": 0.24, "beta": 0.21, "mmd": 0.22, "pca": 0.31, "mean": 1.0}
        if works
        else {"vanilla": 1.0, "beta": 0.41, "mmd": 0.44, "pca": 0.31, "mean": 1.0}
    )
    rows = []
    for model, value in real.items():
        for shuffled in (False, True):
            for split, n in (("train", 900), ("valid", 150), ("test", 300)):
                fvu = (
                    1.0
                    if model == "mean"
                    else (0.99 if works else 0.5)
                    if shuffled
                    else value * (0.85 if split == "train" else 1)
                )
                rows.append(
                    dict(
                        model=model,
                        split=split,
                        shuffled=shuffled,
                        n=n,
                        mse=fvu / 2,
                        fvu=fvu,
                        emd_mean=0.1 + fvu / 10,
                        emd_p05=0.05,
                        emd_p95=0.2 + fvu / 5,
                    )
                )
    return pd.DataFrame(rows)


def _example_training() -> pd.DataFrame:
    "A training.csv of 60 epochs."
    rows = [
        dict(
            model=model,
            shuffled=shuffled,
            epoch=e,
            train_loss=(60 if shuffled else 14) + 50 * k * np.exp(-e / 12),
            valid_loss=(64 if shuffled else 17) + 52 * k * np.exp(-e / 12),
        )
        for k, model in enumerate(["vanilla", "beta", "mmd"], 1)
        for shuffled in (False, True)
        for e in range(1, 61)
    ]
    return pd.DataFrame(rows)


def _example_umap(rng: np.random.Generator, n: int = 150) -> pd.DataFrame:
    "A umap.csv with three clouds."
    real, frames = rng.normal(size=(n, 2)) + rng.choice([-4, 0, 4], (n, 1)), []
    place = lambda model, shuffled, kind, at: frames.append(
        pd.DataFrame(
            {
                "model": model,
                "shuffled": shuffled,
                "kind": kind,
                "umap1": at[:, 0],
                "umap2": at[:, 1],
            }
        )
    )
    for shuffled in (False, True):
        place("data", shuffled, "original", rng.normal(size=(n, 2)) if shuffled else real)
        for model in ("vanilla", "beta", "mmd", "pca"):
            place(
                model,
                shuffled,
                "reconstructed",
                rng.normal(0, 0.3, (n, 2)) + (0 if shuffled else real),
            )
            if model != "pca":
                place(model, shuffled, "simulated", rng.normal(0, 0.4 if shuffled else 2.5, (n, 2)))
    return pd.concat(frames, ignore_index=True)


def example_run(
    works: bool = True,  # whether arithmetic and reconstruction succeed
    n_pairs: int = 20,  # pairs of mechanisms
    seed: int = 0,  # of the invention
    # run.json; tables training, reconstruction, umap, lsa, lsa_null
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    "An invented run: no model and no profile stands behind it."
    rng = np.random.default_rng(seed)
    pairs = [f"invented mechanism {k:02d}|invented mechanism {k + 1:02d}" for k in range(n_pairs)]
    null = _example_null(rng, pairs, works)
    run = {
        "format": 1,
        "command": "cpvae demo",
        "created": "2001-02-03T04:05:06",
        "seed": seed,
        "preset": "recommended",
        "config": {"latent_dim": 10},
        "data": {
            "source": "an invented table",
            "sha256": "0" * 64,
            "rows": 1350,
            "features": 300,
            "compounds": 118,
            "controls": 120,
            "plates": 6,
            "pairs": n_pairs,
        },
        "versions": {"cpvae": "0.0.0"},
        "seconds": {"train": 21.3, "arithmetic": 4.2},
        "stages": {"train": "done", "arithmetic": "done"},
    }
    lsa = _example_lsa(rng, pairs, works, null)
    return run, {
        "training": _example_training(),
        "reconstruction": _example_reconstruction(works),
        "umap": _example_umap(rng),
        "lsa": lsa,
        "lsa_null": null,
    }
