"""Figures that chapters and studies draw and no run does: what models rebuild and simulate, what
latent features hold, how a search went.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from cpvae.errors import choose
from cpvae.style import COLOURS, display_name, small_type, usual_order

# kind of draws -> marker
_MARKS = {"prior": "o", "density": "s", "density_noise": "D", "reconstructed": "x"}
_MEASURES = {
    "sliced_wasserstein": "sliced Wasserstein\n(scaled units)",
    "auc": "AUC of a classifier",
    "mmd": "squared MMD",
}
_DRAWS = {
    "prior": "prior",
    "density": "fitted density",
    "density_noise": "fitted density + residuals",
    "reconstructed": "reconstructed test profiles",
}


def plot_clouds(
    # from `umap_table`: model ("data": originals), kind (original, reconstructed, simulated),
    # umap1, umap2
    umap_df: pd.DataFrame,
) -> Figure:  # models across; reconstructed above, simulated below; the originals first
    "Original, reconstructed and simulated profiles on a map of the originals (figures 2 and S4)."
    models = usual_order(m for m in umap_df.model.unique() if m != "data")
    original = umap_df[umap_df.model == "data"]
    fig = Figure(figsize=(1.75 * (len(models) + 1), 3.5), layout="constrained")
    axes = fig.subplots(2, len(models) + 1, sharex=True, sharey=True)
    axes[0, 0].scatter(original.umap1, original.umap2, s=4, lw=0, color="#555555")
    axes[0, 0].set(title=f"original test profiles, {len(original)}")
    axes[1, 0].set_axis_off()
    for row, kind in zip(axes, ("reconstructed", "simulated")):
        for ax, model in zip(row[1:], models):
            own = umap_df[(umap_df.model == model) & (umap_df.kind == kind)]
            ax.scatter(original.umap1, original.umap2, s=4, lw=0, color="#CCCCCC")
            ax.scatter(own.umap1, own.umap2, s=4, lw=0, color=COLOURS.get(model, "#56B4E9"))
            ax.set(title=f"{display_name(model)}, {kind}")
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
    for ax in (axes[0, 0], *axes[1, 1:]):
        ax.set_xlabel("UMAP 1")
    for ax in (axes[0, 0], axes[1, 1]):
        ax.set_ylabel("UMAP 2")
    return small_type(fig)


def plot_fidelity(
    # from `fidelity_tables`, of one data set and preset; several seeds below each other
    fidelity_df: pd.DataFrame,
    # columns, a panel each
    measures: Sequence[str] = ("precision", "recall", "coverage", "sliced_wasserstein", "auc"),
    # models down, a mark a kind of draws: mean over seeds, line from least to most; dashed and
    # grey: real training profiles
) -> Figure:
    "Measures of fidelity beside their values for real profiles."
    for measure in measures:
        choose(measure, tuple(fidelity_df), "measure")
    models = [m for m in fidelity_df.model.unique() if m != "real"]
    fig = Figure(figsize=(1.45 * len(measures) + 0.6, 2.7), layout="constrained")
    for ax, measure in zip(fig.subplots(1, len(measures), sharey=True), measures):
        real = fidelity_df.loc[fidelity_df.model == "real", measure]
        ax.axvspan(real.min(), real.max(), color="#DDDDDD", lw=0)
        ax.axvline(real.mean(), color="black", lw=0.8, ls="--")
        for y, model in enumerate(models):
            for k, (draws, mark) in enumerate(_MARKS.items()):
                values = fidelity_df.loc[
                    (fidelity_df.model == model) & (fidelity_df.draws == draws), measure
                ]
                at = y + (k - 1.5) * 0.19
                ax.hlines(at, values.min(), values.max(), color=COLOURS.get(model, "#56B4E9"), lw=1)
                ax.scatter(
                    values.mean(),
                    at,
                    s=20,
                    marker=mark,
                    color=COLOURS.get(model, "#56B4E9"),
                    label=_DRAWS[draws] if y == 0 else None,
                    zorder=3,
                )
        ax.set(
            xlabel=_MEASURES.get(measure, measure),
            yticks=range(len(models)),
            yticklabels=map(display_name, models),
            ylim=(len(models) - 0.5, -0.5),
        )
        ax.set_xlim(
            *(
                (-0.05, 1.05)
                if measure in ("precision", "recall", "coverage")
                else (0.4, 1.02)
                if measure == "auc"
                else (0, None)
            )
        )
    marks = fig.legend(
        *fig.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=7,
    )
    for handle in marks.legend_handles:
        handle.set_color("black")
    return small_type(fig)


def plot_spread(
    spread: pd.DataFrame,  # from `fidelity_tables`, of one data set and preset
    # kinds, a panel each
    draws: Sequence[str] = ("reconstructed", "prior", "density", "density_noise"),
    # log ratio against direction; left of the axis break all features together; dashed: real
    # training profiles
) -> Figure:
    "Variance of simulated profiles relative to real ones, along principal directions."
    fig = Figure(figsize=(1.75 * len(draws) + 0.2, 2.6), layout="constrained")
    real, models = spread[spread.model == "real"], [m for m in spread.model.unique() if m != "real"]
    for ax, kind in zip(fig.subplots(1, len(draws), sharey=True), draws):
        for name, rows in [
            ("real", real),
            *((m, spread[(spread.model == m) & (spread.draws == kind)]) for m in models),
        ]:
            along, total = rows[rows.direction > 0], rows[rows.direction == 0]
            style = dict(
                color=COLOURS.get(name, "#56B4E9"), ls="--" if name == "real" else "-", lw=1
            )
            ax.plot(
                along.direction,
                along.ratio,
                label="real training profiles" if name == "real" else display_name(name),
                **style,
            )
            ax.scatter(
                total.direction - 2,
                total.ratio,
                s=14,
                color=style["color"],
                marker="_" if name == "real" else "o",
                zorder=3,
            )
        ax.axhline(1, color="black", lw=0.5)
        ax.set(
            yscale="log",
            ylim=(3e-3, 4),
            title=choose(kind, _DRAWS, "kind of draws")
            .replace(" + ", "\n+ ")
            .replace("reconstructed test", "reconstructed\ntest"),
            xlabel="principal direction",
            xticks=[-2, 1, 10, 20],
            xticklabels=["all", 1, 10, 20],
        )
        ax.yaxis.set_major_formatter("{x:g}")
    fig.axes[0].set_ylabel("variance over that of test profiles")
    fig.legend(
        *fig.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=7,
    )
    return small_type(fig)


def plot_contributions(
    table: pd.DataFrame,  # from `contribution_table`
    # "paper": mean |change|, each latent's from 0 to 1; "ratio": to a random direction's, with a
    # dot where q < .05
    form: Literal["paper", "ratio"] = "ratio",
) -> Figure:  # groups x latents, clustered both ways
    "Heat map of contributions (figures 3 and S7). Raises ValueError for another form."
    choose(form, ("paper", "ratio"), "form")
    wide = lambda values: table.pivot(index="group", columns="latent", values=values)
    if form == "paper":
        shown = wide("contribution").dropna(axis=1)
        label = "mean |change|, 0 to 1 in each latent"
        return _clustered(shown, label, cmap="viridis", standard_scale=1)
    shown = np.log2(wide("ratio").dropna(axis=1))
    return _clustered(
        shown,
        "log2 ratio to a random direction",
        cmap="PuOr_r",
        center=0,
        vmin=-1,
        vmax=1,
        annot=(wide("q")[shown.columns] < 0.05).replace({True: "●", False: ""}),
        fmt="",
        annot_kws=dict(size=6, color="black"),
    )


def _clustered(wide: pd.DataFrame, label: str, **how: Any) -> Figure:
    "Groups by latents, clustered both ways, under a colour bar with its label; `how` is seaborn's."
    import seaborn  # takes a second
    from matplotlib import pyplot

    grid = seaborn.clustermap(
        wide,
        figsize=(5.2, 3.6),
        yticklabels=True,
        xticklabels=True,
        dendrogram_ratio=0.12,
        cbar_pos=(0.72, 0.93, 0.2, 0.025),
        cbar_kws=dict(label=label, orientation="horizontal"),
        **how,
    )
    grid.ax_heatmap.set(xlabel="latent unit", ylabel="")
    grid.ax_heatmap.tick_params(labelsize=7)
    grid.ax_cbar.tick_params(labelsize=6)
    grid.ax_cbar.xaxis.label.set_size(6)
    grid.ax_cbar.xaxis.set_label_position("top")
    pyplot.close(grid.figure)  # shown once, by whoever asked for it
    return grid.figure


def plot_associations(
    tables: Mapping[str, pd.DataFrame],  # title to a table from `association_table`
) -> Figure:  # a panel a table: factors x latents, adjusted R²; a cross where q is .05 or more
    "Heat maps of what latents follow."
    factors = [
        f
        for f in ("mechanism", "cell count", "dose", "time", "plate")
        if any(f in set(t["factor"]) for t in tables.values())
    ]
    fig = Figure(figsize=(6.4, 1.1 + 0.22 * len(factors)), layout="constrained")
    axes = np.atleast_1d(fig.subplots(1, len(tables), sharey=True))
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        r2, q = (
            table.pivot(index="factor", columns="latent", values=v).reindex(factors)
            for v in ("r2", "q")
        )
        image = ax.imshow(r2.clip(lower=0), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(r2):
            if np.isfinite(value) and q.iloc[y, x] >= 0.05:
                ax.text(x, y, "×", fontsize=8, ha="center", va="center", color="white")
        ax.set_title(title, fontsize=8)
        ax.set_xlabel("latent unit", fontsize=8)
        ax.set(yticks=range(len(factors)), xticks=range(r2.shape[1]))
        ax.tick_params(labelsize=7)
    axes[0].set_yticklabels(factors)
    fig.colorbar(image, ax=axes, shrink=0.8).set_label("adjusted R²", fontsize=7)
    return fig


# height of each value on its axis, 0 to 1; height and text of the axis' ends or kinds
def _positions(values: pd.Series) -> tuple[np.ndarray, dict[float, str]]:
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= 5:
        kinds = {
            kind: i / max(1, values.nunique() - 1) for i, kind in enumerate(sorted(values.unique()))
        }
        return values.map(kinds).to_numpy(float), {
            height: f"{kind:g}" if isinstance(kind, (int, float)) else str(kind)
            for kind, height in kinds.items()
        }
    low, high = values.min(), values.max()
    bend = np.log if low > 0 and high > 31 * low else lambda v: v
    return (bend(values.to_numpy(float)) - bend(low)) / (bend(high) - bend(low)), {
        0.0: f"{low:.3g}",
        1.0: f"{high:.3g}",
    }


def parallel_coordinates(
    table: pd.DataFrame,  # from `trials_table`
    columns: Sequence[str],  # the parameters to show, an axis each
    # a line a complete trial, dark for good ones, the best in orange; the last axis is the rank of
    # the value, best on top
) -> Figure:
    "Draw the trials of a search."
    table = table[table.state == "complete"].sort_values("value", ascending=False)
    axes = [_positions(table[c]) for c in columns] + [
        (
            np.linspace(0, 1, len(table)),
            {0.0: f"{table.value.max():.4g}", 1.0: f"{table.value.min():.4g}"},
        )
    ]
    fig, ax = plt.subplots(figsize=(6.5, 2.6), constrained_layout=True)
    heights = np.array([height for height, _ in axes])
    for i, line in enumerate(heights.T):
        best = i == len(table) - 1
        ax.plot(
            line,
            color="#D55E00" if best else plt.cm.Blues(0.15 + 0.75 * i / len(table)),
            lw=2.5 if best else 1,
        )
    for x, (_, ticks) in enumerate(axes):
        ax.axvline(x, color="black", lw=0.8)
        for y, text in ticks.items():
            ax.text(x + 0.04, y, text, fontsize=8, va="center")
    ax.set(
        xticks=range(len(axes)),
        xticklabels=[*columns, "value"],
        yticks=[],
        xlim=(-0.1, len(axes) - 0.6),
        ylim=(-0.08, 1.08),
    )
    ax.spines[:].set_visible(False)
    return fig
