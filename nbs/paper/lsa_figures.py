"""How well arithmetic predicts two mechanisms at once: the paper's figures of it, drawn from
lsa.csv, for the studies that show them.
"""

import re
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import bootstrap, kruskal, norm, pearsonr, rankdata, spearmanr

from cpvae.errors import CpvaeError, choose
from cpvae.lsa.scores import paired_difference
from cpvae.profiles.mechanisms import mend_moa
from cpvae.report.summary import arithmetic_models, score_matrix
from cpvae.style import COLOURS, MIN_PAIRS, TRIVIAL, display_name, number, small_type

_LOG_P = "−ln p (natural logarithm)"
_L2 = "L2 (scaled units)"


def _colour(method: str) -> str:
    return COLOURS.get(method, "#333333")


def _panels(
    n: int, width: float = 6.4, height: float = 2.5, rows: int = 1, **how
) -> tuple[Figure, np.ndarray]:
    "A figure of small panels."
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(rows, n, squeeze=False, **how)
    return fig, axes if rows > 1 else axes[0]


def _rows(lsa: pd.DataFrame, model: str) -> pd.DataFrame:
    "The rows of one model, by pair."
    return lsa[lsa.model == choose(model, tuple(lsa.model.unique()), "model")].set_index("pair")


def _mechanisms(lsa: pd.DataFrame, pairs: pd.Index) -> np.ndarray:
    return lsa.drop_duplicates("pair").set_index("pair").loc[pairs, ["a", "b"]].to_numpy()


def _said(found: dict[str, float], name: str = "Spearman") -> str:
    "A correlation as a title."
    r = lambda v: f"{v:.2f}".replace("-", "−")
    if np.isnan(found["r"]):
        return f"{name}: undefined, n = {found['n']}"
    interval = (
        f"[{r(found['low'])}, {r(found['high'])}]"
        if found["n"] >= MIN_PAIRS and np.isfinite(found["low"])
        else "(no interval)"
    )
    return f"{name} {r(found['r'])} {interval}, n = {found['n']}"


def minus_log_p(
    z: np.ndarray,  # `[P]` z of L2 (`z10`), negative is good
) -> np.ndarray:  # `[P]` -ln p, natural logarithm, one-sided; .69 at z = 0
    "The paper's measure of performance: z read off the lower tail of the normal."
    return -norm.logcdf(z)


def _r(x, y, axis=-1):  # Pearson correlation along an axis
    x, y = x - x.mean(axis, keepdims=True), y - y.mean(axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis) / np.sqrt((x * x).sum(axis) * (y * y).sum(axis))


def _rho(x, y, axis=-1):  # Spearman's
    return _r(rankdata(x, axis=axis), rankdata(y, axis=axis), axis)


def correlation(
    x: np.ndarray,  # `[P]` a number a pair; NaN is left out
    y: np.ndarray,  # `[P]` another
    kind: Literal["spearman", "pearson"] = "spearman",  # "spearman" or "pearson"
    n_draws: int = 2000,  # of the bootstrap over pairs
    seed: int = 0,  # of the bootstrap
    # n pairs; r; low and high (95 %, NaN below ten pairs); p of no correlation. All NaN for fewer
    # than three pairs or a constant
) -> dict[str, float]:
    "Correlation over pairs, with its bootstrap interval."
    test, statistic = choose(
        kind, {"spearman": (spearmanr, _rho), "pearson": (pearsonr, _r)}, "kind"
    )
    known = np.isfinite(np.asarray(x, float)) & np.isfinite(np.asarray(y, float))
    x, y = np.asarray(x, float)[known], np.asarray(y, float)[known]
    found = dict(n=len(x), r=np.nan, low=np.nan, high=np.nan, p=np.nan)
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return found
    tested = test(x, y)
    found |= dict(r=float(tested.statistic), p=float(tested.pvalue))
    if len(x) >= MIN_PAIRS:
        drawn = bootstrap(
            (x, y),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=n_draws,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
        found["low"], found["high"] = map(
            float, np.nanquantile(drawn.bootstrap_distribution, [0.025, 0.975])
        )
    return found


def mean_l2(
    lsa: pd.DataFrame,  # lsa.csv
    null: pd.DataFrame,  # lsa_null: model, pair, permutation (0 is the real labelling), l2
    # by method: real and relabelled mean L2 (scaled units); real_01 and relabelled_01 (of the range
    # of all arithmetic distances); difference from the global mean, low, high; n
) -> pd.DataFrame:
    """Mean distance of every predictor from the truth.

    Raises CpvaeError if a model was not relabelled.
    """
    matrix, models = score_matrix(lsa), arithmetic_models(lsa)
    if missing := set(models) - set(null.model.astype(str)):
        raise CpvaeError(
            f"No relabelled distance of {', '.join(sorted(missing))}: lsa_null must come from the"
            " same run as lsa."
        )
    dealt = (
        null[null.permutation > 0]
        .astype({"model": str, "pair": str})
        .groupby(["model", "pair"])
        .l2.mean()
        .unstack("model")
        .loc[matrix.index]
    )
    table = pd.DataFrame({"real": matrix.mean(), "relabelled": dealt.mean()}).loc[matrix.columns]
    low, high = null.l2.min(), null.l2.max()
    for name in ("real", "relabelled"):
        table[f"{name}_01"] = ((table[name] - low) / (high - low)).where(table.index.isin(models))
    away = {
        m: paired_difference(
            (matrix[m] - matrix["global_mean"]).to_numpy(), _mechanisms(lsa, matrix.index)
        )
        for m in matrix
    }
    table[["difference", "low", "high"]] = pd.DataFrame(away, index=["difference", "low", "high"]).T
    return table.assign(n=len(matrix))


def plot_mean_l2(
    lsa: pd.DataFrame,  # lsa.csv
    null: pd.DataFrame,  # lsa_null
) -> Figure:  # left: the paper's form; right: raw units, with baselines
    "Mean L2 of real and relabelled arithmetic (figure 4)."
    table, models = mean_l2(lsa, null), arithmetic_models(lsa)
    fig, (left, right) = _panels(2, height=3.1, width_ratios=[1, 1.25])
    for x, model in enumerate(models):
        left.bar(x - 0.2, table.real_01[model], 0.36, color=_colour(model))
        left.bar(
            x + 0.2,
            table.relabelled_01[model],
            0.36,
            facecolor="white",
            edgecolor=_colour(model),
            hatch="////",
        )
    left.set(
        xticks=range(len(models)),
        ylabel="mean L2, 0 to 1 over all distances",
        title="Filled: real; hatched: relabelled",
    )
    left.set_xticklabels(map(display_name, models), rotation=35, ha="right")
    methods = [m for m in (*models, *TRIVIAL) if m in table.index]
    base = table.real["global_mean"]
    blind = table.real.reindex([f"mechanism_blind/{m}" for m in methods]).to_numpy()
    y, colours, shown = np.arange(len(methods)), [*map(_colour, methods)], table.loc[methods]
    right.hlines(y, base + shown.low, base + shown.high, color=colours, lw=1.5)
    right.scatter(shown.real, y, s=20, color=colours, zorder=3)
    right.scatter(shown.relabelled, y, s=26, color=colours, marker="x", lw=1)
    right.scatter(blind, y, s=20, facecolor="none", edgecolor=colours)
    right.axvline(base, color="black", lw=0.8, ls="--")
    interval = (
        "line: 95 % interval of difference"
        if shown.n.iloc[0] >= MIN_PAIRS
        else "too few for an interval"
    )
    right.set(
        yticks=y,
        yticklabels=map(display_name, methods),
        ylim=(len(y) - 0.5, -0.5),
        xlabel=f"mean {_L2}",
        title=f"{shown.n.iloc[0]} pairs; {interval}\nx: relabelled; hollow: mechanism-blind",
    )
    return small_type(fig)


def plot_distances(
    lsa: pd.DataFrame,  # lsa.csv
    null: pd.DataFrame,  # lsa_null
) -> Figure:  # left: all distances; right: real less mean relabelled, pair by pair
    "Full distributions of L2 (figure S8)."
    models = arithmetic_models(lsa)
    n = lsa.pair.nunique()
    rows = null.astype({"model": str, "pair": str})
    fig, (left, right) = _panels(2, height=2.7, sharey=True)
    left.set_xscale("log")
    right.set_xscale("symlog", linthresh=3)
    right.xaxis.set_major_formatter("{x:g}")
    box = dict(
        widths=0.32,
        orientation="horizontal",
        patch_artist=True,
        medianprops=dict(color="black"),
        flierprops=dict(ms=2),
        manage_ticks=False,
    )
    for y, model in enumerate(models):
        own = rows[rows.model == model]
        real, dealt = own[own.permutation == 0].set_index("pair").l2, own[own.permutation > 0]
        left.boxplot([real], positions=[y - 0.19], boxprops=dict(facecolor=_colour(model)), **box)
        left.boxplot(
            [dealt.l2],
            positions=[y + 0.19],
            boxprops=dict(facecolor="white", edgecolor=_colour(model)),
            **box,
        )
        away = (real - dealt.groupby("pair").l2.mean()).reindex(lsa.pair.unique())
        mean, low, high = paired_difference(away.to_numpy(), _mechanisms(lsa, away.index))
        right.scatter(
            away, [y] * len(away), s=11, facecolor="none", edgecolor=_colour(model), lw=0.7
        )
        right.hlines(y, low, high, color="black", lw=1.5)
        right.scatter(mean, y, s=28, marker="D", color="black", zorder=3)
    right.axvline(0, color="black", lw=0.8, ls="--")
    left.set(
        yticks=range(len(models)),
        yticklabels=map(display_name, models),
        ylim=(len(models) - 0.5, -0.5),
        xlabel=_L2,
        title="Filled: real; white: relabelled",
    )
    right.set(
        xlabel="real less mean relabelled (scaled units, symlog)",
        title=f"{n} pairs; diamond: mean" + ("; line: 95 % interval" if n >= MIN_PAIRS else ""),
    )
    return small_type(fig)


def plot_pearson(
    lsa: pd.DataFrame,  # lsa.csv
) -> Figure:  # left: raw correlation, the paper's; right: correlation of changes from the control
    """Pearson correlation of prediction and truth, with predictions that know nothing beside it
    (figure S9).
    """
    methods = [
        *arithmetic_models(lsa),
        *(m for m in ("global_mean", "control", "mean_ab") if m in set(lsa.model)),
    ]
    fig, axes = _panels(2, height=2.7, sharey=True)
    for ax, metric, label in zip(
        axes,
        ("pearson", "delta_pearson"),
        ("Pearson r of states", "delta-Pearson: r of changes from control"),
    ):
        for y, values in enumerate(score_matrix(lsa, metric)[methods].to_numpy().T):
            colour = _colour(methods[y])
            ax.scatter(values, [y] * len(values), s=11, facecolor="none", edgecolor=colour, lw=0.7)
            if np.isfinite(values).any():
                ax.scatter(np.nanmean(values), y, s=28, marker="D", color="black", zorder=3)
            else:
                ax.annotate(
                    "undefined: no change",
                    (0.03, y),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=7,
                )
        ax.set(xlabel=label, title=f"{lsa.pair.nunique()} pairs; diamond: mean")
    axes[0].set(
        yticks=range(len(methods)),
        yticklabels=map(display_name, methods),
        ylim=(len(methods) - 0.5, -0.5),
    )
    return small_type(fig)


def strength_table(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
    # from where strength is measured: "global_mean", the paper's, or "control"
    to: Literal["global_mean", "control"] = "global_mean",
    # by pair: strength (L2 of A|B from there, scaled units), minus_log_p, gain (fraction of that
    # distance the arithmetic takes away), cell_count (a well), cells (in all A|B wells)
) -> pd.DataFrame:
    """How performance goes with the strength of a phenotype.

    Raises CpvaeError if the model is not in the table.
    """
    choose(to, ("global_mean", "control"), "to")
    own, strength = _rows(lsa, model), _rows(lsa, to).l2
    count = own["cell_count_ab"] if "cell_count_ab" in own else pd.Series(np.nan, own.index)
    found = {
        "strength": strength,
        "minus_log_p": pd.Series(minus_log_p(own.z10), own.index),
        "gain": 1 - own.l2 / strength,
    }
    return pd.DataFrame(found | {"cell_count": count, "cells": count * own.n_profiles}).loc[
        own.index
    ]


def plot_strength(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
    # from where strength is measured: "global_mean" or "control"
    to: Literal["global_mean", "control"] = "global_mean",
) -> Figure:  # left: the paper's -ln p; right: gain over predicting that point
    "Performance against strength, by p and by gain (figure S10)."
    table, (fig, axes) = strength_table(lsa, model, to), _panels(2)
    label = {"minus_log_p": _LOG_P, "gain": f"gain over {display_name(to).split(' (')[0]}"}
    axes[1].set_yscale("symlog", linthresh=1)
    axes[1].yaxis.set_major_formatter("{x:g}")
    for ax, name in zip(axes, label):
        ax.scatter(table.strength, table[name], s=14, color=_colour(model))
        ax.set(
            xlabel=f"L2 of A|B to the {display_name(to).split(' (')[0]} (scaled units)",
            ylabel=label[name],
            title=_said(correlation(table.strength, table[name])),
            xscale="log",
        )
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
    axes[0].axhline(minus_log_p(-(10**0.5)), color="black", lw=0.8, ls="--")
    axes[1].axhline(0, color="black", lw=0.8, ls="--")
    fig.suptitle(display_name(model), fontsize=8.5)
    return small_type(fig)


def without_counts(
    y: np.ndarray,  # `[P]` a score
    count: np.ndarray,  # `[P]` cell counts
) -> np.ndarray:  # `[P]` residual ranks; NaN where either is
    "What is left of the ranks of a score when ranks of the cell count are regressed out."
    left = np.full(len(y), np.nan)
    known = np.isfinite(np.asarray(y, float)) & np.isfinite(np.asarray(count, float))
    rank, x = rankdata(np.asarray(y)[known]), rankdata(np.asarray(count)[known])
    if known.sum() > 2 and np.ptp(x):
        left[known] = rank - np.polyval(np.polyfit(x, rank, 1), x)
    return left


def plot_cell_count(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
    # -ln p against cell count of a well, against all cells, and what is left against strength
) -> Figure:
    """Whether dead cells, and not mechanisms, are what is predicted.

    Raises CpvaeError if no cells were counted.
    """
    table = strength_table(lsa, model)
    if table.cell_count.isna().all():
        raise CpvaeError(
            "No cell counts: the table of profiles needs a column such as Metadata_cell_count."
        )
    fig, axes = _panels(3, width=6.8)
    left = pd.DataFrame(
        {"strength": table.strength, "rest": without_counts(table.minus_log_p, table.cell_count)}
    )
    rest = without_counts(table.strength, table.cell_count)
    for ax, x, y, label in zip(
        axes,
        (table.cell_count, table.cells, rest),
        (table.minus_log_p, table.minus_log_p, left.rest),
        (
            "cell count a well of A|B (table’s unit)",
            "cell count × wells of A|B",
            "strength, residual rank",
        ),
    ):
        ax.scatter(x, y, s=14, color=_colour(model))
        ax.set(
            xlabel=label,
            title=_said(
                correlation(x, y, "pearson" if label.startswith("strength") else "spearman"),
                "r" if label.startswith("strength") else "ρ",
            ),
        )
    axes[0].set_ylabel(_LOG_P)
    axes[2].set_ylabel("−ln p, residual rank")
    fig.suptitle(f"{display_name(model)}; right: after cell count", fontsize=8.5)
    return small_type(fig)


def plot_z(
    lsa: pd.DataFrame,  # lsa.csv
) -> Figure:  # rows: z of L2 and of Pearson; columns: spaces
    "Histograms of the paper's z in every space, with their means (figure S11)."
    models = arithmetic_models(lsa)
    fig, axes = _panels(len(models), width=6.8, height=3, rows=2, sharey="row", sharex=True)
    bins = np.linspace(-(10**0.5), 10**0.5, 15)
    for j, model in enumerate(models):
        rows = _rows(lsa, model)
        for ax, column in zip(axes[:, j], ("z10", "z10_pearson")):
            mean, low, high = paired_difference(
                rows[column].to_numpy(), rows[["a", "b"]].to_numpy()
            )
            ax.hist(rows[column].clip(bins[0], bins[-1]), bins, color=_colour(model))
            ax.axvspan(low, high, color="black", alpha=0.2, lw=0)
            ax.axvline(mean, color="black", lw=1.2)
            ax.axvline(0, color="black", lw=0.6, ls=":")
            ax.set_title(
                f"mean {mean:.2f}".replace("-", "−") if np.isfinite(mean) else "mean: undefined"
            )
        axes[0, j].set_title(f"{display_name(model)}\n{axes[0, j].get_title()}")
        axes[1, j].set_xlabel("z")
    axes[0, 0].set_ylabel("pairs, z of L2\n(negative is good)")
    axes[1, 0].set_ylabel("pairs, z of Pearson\n(positive is good)")
    return small_type(fig)


def compare_left_out(
    full: pd.DataFrame,  # lsa.csv of models that saw the pairs
    left_out: pd.DataFrame,  # lsa.csv of models that did not
    model: str,  # which
    # by pair, best of `full` first: full and left_out (-ln p), difference; only pairs that `full`
    # saw and `left_out` did not
) -> pd.DataFrame:
    """Performance with and without the pair in training.

    Raises CpvaeError if no pair was seen by one and left out by the other.
    """
    a, b = _rows(full, model), _rows(left_out, model)
    seen, unseen = a.in_sample.fillna(False).astype(bool), ~b.in_sample.fillna(True).astype(bool)
    pairs = [p for p in a.index[seen] if p in b.index and unseen[p]]
    if not pairs:
        raise CpvaeError(
            "No pair was in the training part of the first table and left out of the second: run"
            " once plainly and once with --leave-out."
        )
    table = pd.DataFrame(
        {"full": minus_log_p(a.z10[pairs]), "left_out": minus_log_p(b.z10[pairs])},
        index=pd.Index(pairs, name="pair"),
    )
    return table.assign(difference=table.full - table.left_out).sort_values(
        "full", ascending=False, kind="stable"
    )


def plot_left_out(
    full: pd.DataFrame,  # lsa.csv of models that saw the pairs
    left_out: pd.DataFrame,  # lsa.csv of models that did not
) -> Figure:  # a panel a model; triangles: the five best of `full`, squares: the five in the middle
    "Full against left-out performance (figure S12)."
    models = [
        m for m in arithmetic_models(full) if m in set(left_out.model) and m != "additive_input"
    ]
    fig, axes = _panels(len(models), width=6.8, sharex=True, sharey=True)
    for ax, model in zip(axes, models):
        table, middle = compare_left_out(full, left_out, model), None
        middle = len(table) // 2 - 2
        groups = {"o": np.ones(len(table), bool)}
        if len(table) >= 15:
            groups = {
                "^": np.arange(len(table)) < 5,
                "s": (np.arange(len(table)) >= middle) & (np.arange(len(table)) < middle + 5),
            }
            groups["o"] = ~groups["^"] & ~groups["s"]
        for marker, at in groups.items():
            ax.scatter(
                table.full[at],
                table.left_out[at],
                s=18 if marker == "o" else 24,
                marker=marker,
                facecolor="none" if marker == "o" else _colour(model),
                edgecolor=_colour(model),
                lw=0.8,
            )
        ax.axline((0, 0), slope=1, color="black", lw=0.8, ls="--")
        ax.set(
            xlabel="−ln p, pair seen",
            title=display_name(model)
            + "\n"
            + _said(correlation(table.full, table.left_out, "pearson"), "r").replace(", n", ",\nn"),
        )
    axes[0].set_ylabel("−ln p, pair left out")
    return small_type(fig)


def plot_reproducibility(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
) -> Figure:  # reconstruction of A|B wells against raw correlation, -ln p and delta-Pearson
    "Whether pairs that are rebuilt well are predicted well (figure S13)."
    rows = _rows(lsa, model)
    fig, axes = _panels(3, width=6.8)
    scores = {
        "Pearson r, predicted and true": rows.pearson,
        _LOG_P: minus_log_p(rows.z10),
        "delta-Pearson": rows.delta_pearson,
    }
    for ax, (label, y) in zip(axes, scores.items()):
        ax.scatter(rows.reconstruction_r, y, s=14, color=_colour(model))
        ax.set(
            xlabel="r, profile and rebuilt (median)",
            ylabel=label,
            title=_said(correlation(rows.reconstruction_r, y, "pearson"), "r"),
        )
    fig.suptitle(display_name(model), fontsize=8.5)
    return small_type(fig)


_CLASSES = ("inhibitor", "antagonist", "agonist")


def mechanism_class(
    name: str,  # a mechanism, as "dopamine receptor antagonist"
) -> str:  # "inhibitor", "antagonist", "agonist" or "other"
    "The class of a mechanism, from the last whole word of its name that tells one."
    words = [w for w in re.findall(r"[a-z]+", name.casefold()) if w.removesuffix("s") in _CLASSES]
    return words[-1].removesuffix("s") if words else "other"


def class_test(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
    score: str = "z10",  # a column
    # class to scores of its pairs; H of Kruskal and Wallis; p. NaN for fewer than two classes of
    # two
) -> tuple[dict[str, np.ndarray], float, float]:
    "Scores by class of mechanism: a pair whose two mechanisms differ in class is `mixed`."
    rows = _rows(lsa, model)
    choose(score, tuple(rows), "score")
    kinds = [
        x if x == y else "mixed"
        for x, y in zip(rows.a.map(mechanism_class), rows.b.map(mechanism_class))
    ]
    groups = {
        k: v.dropna().to_numpy(float) for k, v in rows[score].groupby(np.array(kinds, object))
    }
    groups = {k: groups[k] for k in (*_CLASSES, "other", "mixed") if k in groups}
    tested = [v for v in groups.values() if len(v) > 1]
    if len(tested) < 2 or not np.ptp(np.concatenate(tested)):
        return groups, np.nan, np.nan
    return groups, *map(float, kruskal(*tested))


def plot_classes(
    lsa: pd.DataFrame,  # lsa.csv
    model: str,  # whose arithmetic
) -> Figure:  # left: the paper's -ln p; right: delta-Pearson
    "Performance by class of mechanism (figure S14)."
    fig, axes = _panels(2)
    for ax, score in zip(axes, ("z10", "delta_pearson")):
        groups, H, p = class_test(lsa, model, score)
        for x, values in enumerate(groups.values()):
            shown = minus_log_p(values) if score == "z10" else values
            ax.scatter(
                x + np.linspace(-0.15, 0.15, len(shown)),
                shown,
                s=13,
                facecolor="none",
                edgecolor=_colour(model),
                lw=0.8,
            )
            ax.hlines(np.median(shown), x - 0.25, x + 0.25, color="black", lw=1.5)
        tested = (
            f"Kruskal–Wallis H = {H:.1f}, p = {number(p)}"
            if np.isfinite(p)
            else "too few classes to test"
        )
        ax.set(
            xticks=range(len(groups)),
            xticklabels=[f"{k}\nn = {len(v)}" for k, v in groups.items()],
            ylabel=_LOG_P if score == "z10" else "delta-Pearson",
            title=tested,
        )
    fig.suptitle(f"{display_name(model)}; line: median", fontsize=8.5)
    return small_type(fig)


def pair_key(
    name: str,  # "A|B"
) -> str:  # the same for "b|a"
    "The name of a pair without order and case."
    return "|".join(sorted(term.casefold() for term in mend_moa(name).split("|")))


def join_pairs(
    one: pd.Series,  # a score by name of the pair
    other: pd.Series,  # the same of another modality
    # by pair (as `one` writes it): first and second, best joint score (smallest sum) first
) -> pd.DataFrame:
    """Scores of the pairs that two tables share.

    Raises CpvaeError if there is none, or if a pair comes twice.
    """
    keys = [s.index.map(pair_key) for s in (one, other)]
    if twice := sorted({k for key in keys for k in key[key.duplicated()]}):
        raise CpvaeError(
            f"A pair comes twice in one table: {twice[0]}. Give the scores of one model."
        )
    left = pd.DataFrame({"pair": one.index, "first": one.to_numpy()}, keys[0])
    right = pd.DataFrame({"second": other.to_numpy()}, keys[1])
    joined = left.join(right, how="inner").dropna()
    if joined.empty:
        raise CpvaeError(
            f"None of the {len(one)} pairs of the first table is among the {len(other)} of the"
            " second: nothing can be compared."
        )
    return joined.iloc[(joined["first"] + joined["second"]).argsort(kind="stable")].set_index(
        "pair"
    )


def leverage(
    joined: pd.DataFrame,  # from `join_pairs`
    most: int = 6,  # leading pairs removed, at most
    kind: Literal["spearman", "pearson"] = "spearman",  # "spearman" or "pearson"
    seed: int = 0,  # of bootstrap and of the simulated scores
    # removed, n, r, low, high, p; expected, expected_low, expected_high: the same removal from
    # normal scores of the same Pearson correlation (middle 95 % of 500)
) -> pd.DataFrame:
    """How a correlation falls as the best joint pairs are removed, and how far it would fall if no
    pair were special.
    """
    statistic = choose(kind, {"spearman": _rho, "pearson": _r}, "kind")
    x, rng = joined[["first", "second"]].to_numpy(float), np.random.default_rng(seed)
    full = _r(*x.T) if len(x) > 2 else np.nan
    drawn = rng.standard_normal((500, len(x), 2))
    drawn[..., 1] = full * drawn[..., 0] + np.sqrt(1 - full**2) * drawn[..., 1]
    drawn = np.take_along_axis(drawn, drawn.sum(-1).argsort(axis=1)[..., None], axis=1)
    rows = []
    for k in range(min(most, len(x) - 3) + 1):
        quantiles = np.quantile(statistic(drawn[:, k:, 0], drawn[:, k:, 1]), [0.5, 0.025, 0.975])
        rows.append(
            {
                "removed": k,
                **correlation(*x[k:].T, kind, seed=seed),
                **dict(zip(("expected", "expected_low", "expected_high"), quantiles)),
            }
        )
    return pd.DataFrame(rows)


def plot_modalities(
    joined: pd.DataFrame,  # from `join_pairs`, of z of L2
    names: tuple[str, str],  # what the two tables are
) -> Figure:  # left: the paper's form, the five leading pairs numbered; right: leverage
    "One modality against another (figure 5)."
    fig, (left, right) = _panels(2, height=2.7)
    x, y = minus_log_p(joined["first"]), minus_log_p(joined["second"])
    left.scatter(x[5:], y[5:], s=13, facecolor="none", edgecolor="#0072B2", lw=0.8)
    left.scatter(x[:5], y[:5], s=16, color="#D55E00")
    for place, k in enumerate(np.argsort(x[:5], kind="stable")):
        left.annotate(
            str(k + 1),
            (x[k], y[k]),
            (4 + 0.85 * place, 8.7),
            fontsize=8,
            ha="center",
            color="#D55E00",
            arrowprops=dict(arrowstyle="-", lw=0.5, color="#D55E00"),
        )
    left.set(
        xlabel=f"−ln p, {names[0]}",
        ylabel=f"−ln p, {names[1]}",
        xlim=(-0.4, 7.9),
        ylim=(-0.4, 9.4),
        title=_said(correlation(x, y, "pearson"), "r"),
    )
    if len(joined) < 4:
        right.annotate(
            "too few shared pairs", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=8
        )
        right.set_axis_off()
        return small_type(fig)
    table = leverage(joined)
    right.fill_between(
        table.removed,
        table.expected_low,
        table.expected_high,
        color="#DDDDDD",
        lw=0,
        label="expected: middle 95 %",
    )
    right.errorbar(
        table.removed,
        table.r,
        [table.r - table.low, table.high - table.r],
        color="#0072B2",
        marker="o",
        ms=4,
        lw=1,
        label="measured, 95 % interval",
    )
    right.axhline(0, color="black", lw=0.8, ls="--")
    right.set(
        xlabel="leading joint pairs removed",
        ylabel="Spearman of z",
        title=_said(correlation(joined["first"], joined["second"])),
    )
    right.legend(frameon=False, fontsize=7, loc="upper right")
    right.set_ylim(top=1)
    return small_type(fig)


def with_and_without_synonyms(
    lsa: pd.DataFrame,  # lsa.csv
    # by pairs and method: n, overlap_unknown (pairs), and mean l2, pearson, delta_pearson,
    # mismatch_r, z10
) -> pd.DataFrame:
    """Mean scores of every predictor without pairs whose A and B share targets, and with two A|B
    compounds at least.
    """
    several, share = lsa.n_compounds_ab >= 2, lsa.target_overlap > 0
    subsets = {
        "all": share | ~share,
        "no shared target": ~share,
        "two A|B compounds": several,
        "both": ~share & several,
    }
    blind, tables = lsa.model == "mechanism_blind", {}
    named = lsa.assign(
        method=lsa.model.where(~blind, lsa.model + "/" + lsa.space),
        overlap_unknown=lsa.target_overlap.isna(),
    )
    for name, keep in subsets.items():
        groups = named[keep].groupby("method", sort=False)
        means = groups[
            [c for c in ("l2", "pearson", "delta_pearson", "mismatch_r", "z10") if c in lsa]
        ].mean()
        tables[name] = pd.concat(
            [groups.agg(n=("pair", "nunique"), overlap_unknown=("overlap_unknown", "sum")), means],
            axis=1,
        )
    return pd.concat(tables, names=["pairs", "method"])
