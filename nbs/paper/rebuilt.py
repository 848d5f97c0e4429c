"""Which features a model gives back: what the studies of Table 1 and of features draw and test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr, ttest_ind

from cpvae.errors import MeasureError
from cpvae.measure.distances import sliced_wasserstein
from cpvae.measure.reconstruction import reconstruction_table
from cpvae.model.plan import shuffle_columns
from cpvae.model.transformers import reconstruct
from cpvae.profiles.features import CHANNELS
from cpvae.profiles.schema import VAR_BLANKS, with_blanks
from cpvae.style import COLOURS, display_name, small_type, usual_order

_COMPARTMENTS = {"Cells": "#332288", "Cytoplasm": "#DDAA33", "Nuclei": "#44AA99"}


def feature_table(
    x: np.ndarray,  # `[N,G]` scaled profiles
    x_hat: np.ndarray,  # `[N,G]` their reconstructions
    var: pd.DataFrame,  # `[G]` by feature: compartment, channel, as `AnnData.var`
    # a row a feature: feature, compartment, channel, variance, mse, absolute (mean absolute error),
    # fvu (NaN for a constant feature)
) -> pd.DataFrame:
    "How well each feature is reconstructed. Raises MeasureError if shapes differ."
    if np.shape(x) != np.shape(x_hat) or np.shape(x)[1] != len(var):
        raise MeasureError(
            f"profiles are {np.shape(x)}, reconstructions {np.shape(x_hat)}, features {len(var)}:"
            " all must agree"
        )
    var = with_blanks(var, VAR_BLANKS)
    error, variance = np.subtract(x_hat, x, dtype=np.float64), np.var(x, axis=0, dtype=np.float64)
    mse = np.square(error).mean(axis=0)
    fvu = np.divide(mse, variance, out=np.full(len(mse), np.nan), where=variance > 0)
    return pd.DataFrame(
        dict(
            feature=var.index,
            compartment=var["compartment"].to_numpy(),
            channel=var["channel"].to_numpy(),
            variance=variance,
            mse=mse,
            absolute=np.abs(error).mean(axis=0),
            fvu=fvu,
        )
    )


def authors_channel(
    feature: str,  # a CellProfiler feature's name
) -> str:  # its channel, or ""
    """The channel as the authors read it: the fourth part of the name, so a correlation of two
    channels counts for the first.
    """
    parts = feature.split("_")
    return parts[3] if len(parts) > 3 and parts[3] in CHANNELS else ""


def feature_clusters(
    x: np.ndarray,  # `[N,G]` profiles
    least: float = 0.5,  # mean absolute correlation between two clusters from which they are one
) -> np.ndarray:  # `[G]` number of each feature's cluster, from 0
    "Clusters of correlated features, by average linkage."
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.nan_to_num(np.abs(np.corrcoef(np.asarray(x, np.float64), rowvar=False)))
    return fcluster(linkage(squareform(1 - r, checks=False), "average"), 1 - least, "distance") - 1


def _mean(values, weight):  # weighted mean of each row; NaN where nothing has weight
    total = weight.sum(axis=1)
    return np.divide(
        (values * weight).sum(axis=1), total, out=np.full(len(values), np.nan), where=total > 0
    )


def group_contrast(
    x: np.ndarray,  # `[N,G]` scaled profiles
    x_hat: np.ndarray,  # `[N,G]` their reconstructions
    a: np.ndarray,  # `[G]` bool, features of one group
    b: np.ndarray,  # `[G]` bool, features of the other
    groups: np.ndarray,  # `[N]` compound of each profile
    clusters: np.ndarray,  # `[G]` cluster of each feature
    n_draws: int = 1000,  # of the bootstrap
    seed: int = 0,  # of the bootstrap
    # by measure (absolute, fvu): difference of means a − b; t and p_half (two-sample, halved, the
    # authors'), p_less (one-sided); low, high (95 %, compounds drawn); low_both, high_both
    # (clusters drawn, too); n_a, n_b, clusters, compounds
) -> pd.DataFrame:
    """Is one group of features reconstructed better than another? Raises MeasureError unless each
    has a feature that varies, and there are two compounds or more.
    """
    code = pd.factorize(np.asarray(groups))[0]
    keep = np.flatnonzero((a | b) & (np.var(x, axis=0) > 0))
    if not (a[keep].any() and b[keep].any() and code.max(initial=0)):
        raise MeasureError(
            f"{a[keep].sum()} and {b[keep].sum()} features that vary, {len(set(code))} compounds: a"
            " contrast needs a feature on each side and two compounds"
        )
    x, error, a, b = (
        x[:, keep].astype(np.float64),
        np.subtract(x_hat, x, dtype=np.float64)[:, keep],
        a[keep],
        b[keep],
    )
    per = lambda values: pd.DataFrame(values).groupby(code).sum().to_numpy()
    size = np.bincount(code)[:, None]
    absolute = per(np.abs(error))
    squares = per(error**2)
    spread = per((x - x.mean(axis=0)) ** 2)
    rng, k = np.random.default_rng(seed), pd.factorize(clusters[keep])[0]
    compounds, drawn = (
        np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), n_draws)])
        for n in (len(size), k.max() + 1)
    )
    rows = []
    for measure, above, below in (("absolute", absolute, size), ("fvu", squares, spread)):
        values = (compounds @ above) / (compounds @ below)  # a row a draw, the sample itself first
        alone, both = (
            _mean(values, w * a) - _mean(values, w * b) for w in (np.ones((1, len(k))), drawn[:, k])
        )
        test = ttest_ind(values[0, a], values[0, b])
        ends = dict(
            zip(
                ("low", "high", "low_both", "high_both"),
                [
                    *np.quantile(alone[1:], [0.025, 0.975]),
                    *np.nanquantile(both[1:], [0.025, 0.975]),
                ],
            )
        )
        rows.append(
            dict(
                measure=measure,
                difference=alone[0],
                t=test.statistic,
                p_half=test.pvalue / 2,
                p_less=ttest_ind(values[0, a], values[0, b], alternative="less").pvalue,
                **ends,
            )
        )
    return pd.DataFrame(rows).assign(
        n_a=a.sum(), n_b=b.sum(), clusters=k.max() + 1, compounds=len(size)
    )


def feature_emd(
    x: np.ndarray,  # `[N,G]` profiles
    x_hat: np.ndarray,  # `[N,G]` their reconstructions
) -> float:  # mean over features, scaled feature value
    """Earth mover's distance between the values that a feature takes over profiles and those of its
    reconstruction. Raises MeasureError if shapes differ.
    """
    if np.shape(x) != np.shape(x_hat):
        raise MeasureError(
            f"profiles are {np.shape(x)}, reconstructions {np.shape(x_hat)}: rows and features must"
            " agree"
        )
    return float(np.abs(np.sort(x, axis=0) - np.sort(x_hat, axis=0)).mean(dtype=np.float64))


def distance_table(
    models: Mapping[tuple[str, bool], Any],  # (name, shuffled) -> fitted model
    profiles: AnnData,  # with `layers["scaled"]` and `obs["split"]`
    seed: int = 0,  # of the column shuffle, as in training
    # the test rows of `reconstruction_table`, with feature_emd and sliced_wasserstein (scaled
    # feature value)
) -> pd.DataFrame:
    """Table 1: every model, real and shuffled, and the mean.

    Raises ValueError if profiles are not scaled and split.
    """
    table = reconstruction_table(models, profiles, seed)
    table = table[table.split == "test"].reset_index(drop=True)
    x, split = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    mean, found = x[split == "train"].mean(axis=0, dtype=np.float64), []
    for name, shuffled in zip(table.model, table.shuffled):
        test = shuffle_columns(x[split == "test"], seed) if shuffled else x[split == "test"]
        x_hat = (
            np.broadcast_to(mean, test.shape)
            if name == "mean"
            else reconstruct(models[name, shuffled], test)
        )
        found.append(
            dict(
                feature_emd=feature_emd(test, x_hat),
                sliced_wasserstein=sliced_wasserstein(test, x_hat, seed=seed),
            )
        )
    return table.join(pd.DataFrame(found))


def plot_features(
    errors: pd.DataFrame,  # from `feature_table`, with a column model
) -> Figure:  # models across; above: squared error; below: FVU; both against variance
    "Reconstruction of every feature against its variance (figure S6)."
    models = list(errors.model.unique())
    fig = Figure(figsize=(1.7 * len(models) + 0.3, 3.6), layout="constrained")
    axes = fig.subplots(2, len(models), squeeze=False, sharex=True, sharey="row")
    for row, measure in zip(axes, ("mse", "fvu")):
        for ax, model in zip(row, models):
            own = errors[errors.model == model]
            for name, colour in _COMPARTMENTS.items():
                part = own[own.compartment == name]
                ax.scatter(
                    part.variance, part[measure], s=4, lw=0, alpha=0.7, color=colour, label=name
                )
            rho = f"{spearmanr(own.variance, own[measure]).statistic:.2f}".replace("-", "−")
            ax.set(xscale="log", yscale="log", title=f"{display_name(model)}: ρ = {rho}")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            ax.xaxis.set_minor_formatter("")
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter("{x:g}")
    for ax in axes[1]:
        ax.axhline(1, color="black", lw=0.6, ls="--").axes.set_xlabel("variance (scaled units²)")
    for ax, label in zip(axes[:, 0], ("squared error", "FVU")):
        ax.set_ylabel(label)
    fig.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=7,
        markerscale=2.5,
    )
    return small_type(fig)


def plot_groups(
    # from `feature_table`, of one model, `channel` as `authors_channel` reads it
    errors: pd.DataFrame,
) -> Figure:  # left: mean absolute error; right: FVU; channels, then compartments
    "Reconstruction by channel and compartment (figure S6)."
    groups = {name: errors.channel == name for name in CHANNELS} | {
        name: errors.compartment == name for name in _COMPARTMENTS
    }
    groups = {name: keep for name, keep in groups.items() if keep.any()}
    fig = Figure(figsize=(6.2, 2.7), layout="constrained")
    for ax, measure, label in zip(
        fig.subplots(1, 2, sharey=True),
        ("absolute", "fvu"),
        ("mean absolute error (scaled units)", "FVU"),
    ):
        for y, (name, keep) in enumerate(groups.items()):
            ax.boxplot(
                errors.loc[keep, measure].dropna(),
                positions=[y],
                widths=0.6,
                orientation="horizontal",
                patch_artist=True,
                manage_ticks=False,
                medianprops=dict(color="black"),
                boxprops=dict(facecolor=_COMPARTMENTS.get(name, "#DDDDDD"), alpha=0.7),
                flierprops=dict(ms=2),
            )
        ax.set(
            xlabel=label,
            yticks=range(len(groups)),
            yticklabels=[f"{name} ({keep.sum()})" for name, keep in groups.items()],
            ylim=(len(groups) - 0.5, -0.5),
        )
    return small_type(fig)


_LABELS = {
    "absolute": "difference in mean absolute error (scaled units)",
    "fvu": "difference in mean FVU",
}


def plot_contrasts(
    contrasts: pd.DataFrame,  # from `group_contrast`, with columns model and contrast; one measure
    # a panel a contrast, models down; thick: compounds drawn; thin: clusters of features drawn,
    # too; the t-test's p beside
) -> Figure:
    "Differences between groups of features, with intervals and the t-test's p."
    names, models = sorted(contrasts.contrast.unique()), usual_order(contrasts.model.unique())
    fig = Figure(figsize=(6.4, 0.35 * len(models) + 1), layout="constrained")
    for ax, name in zip(fig.subplots(1, len(names), sharey=True, squeeze=False)[0], names):
        own = contrasts[contrasts.contrast == name].set_index("model").loc[models]
        y, colours = np.arange(len(models)), [COLOURS.get(m, "#56B4E9") for m in models]
        ax.hlines(y, own.low_both, own.high_both, color=colours, lw=1)
        ax.hlines(y, own.low, own.high, color=colours, lw=4, alpha=0.5)
        ax.scatter(own.difference, y, s=18, color="black", zorder=3)
        for at, p in zip(y, own.p_less):
            ax.annotate(
                f"t-test:\np = {p:.2g}",
                (1.01, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=7,
            )
        ax.axvline(0, color="black", lw=0.8, ls="--")
        if own[["low_both", "high_both"]].abs().max().max() > 1:
            ax.set_xscale("symlog", linthresh=0.2)
            ax.xaxis.set_major_formatter("{x:g}")
        ax.set(
            title=(
                f"{name.replace('-', ' less ')}: {own.n_a.iloc[0]}, {own.n_b.iloc[0]} features,"
                f" {own.clusters.iloc[0]} clusters"
            ),
            xlabel=_LABELS[own.measure.iloc[0]],
            yticks=y,
            yticklabels=map(display_name, models),
            ylim=(len(models) - 0.5, -0.5),
        )
    return small_type(fig)
