"""Make the tables of interpretation that nbs/05_interpretation reads: `python
nbs/paper/tables/interpretation.py DATA [SEEDS] [CHECKPOINTS]`.

DATA is a folder that holds the U2OS and the L1000 table. SEEDS, ten unless said, is how many times
each variant of either preset is fitted to U2OS; each recommended variant is fitted once to L1000.
CHECKPOINTS is a folder to keep fits in: what stands there is not fitted again, so that seeds can be
added later.

nbs/results/interpretation_latents.csv        a row a table, preset, model, seed and latent: KL,
    variance of posterior means, active, variance of draws around them (noise), mean |change|,
    correlation with the others
nbs/results/interpretation_entanglement.csv   a row a table, preset, model and seed: active units,
    mean |r|, total correlation
nbs/results/interpretation_contributions.csv  U2OS, seed 0: groups of features by latent, around the
    posterior; and the contribution around the prior
nbs/results/interpretation_distinct.csv       U2OS, every seed: of groups by compartment and
    channel, those cells with q < .05
nbs/results/interpretation_genes.csv          L1000, seed 0: the ten genes that each latent moves
    most
nbs/results/interpretation_association.csv    seed 0: what each latent follows
nbs/results/interpretation_stability.csv      U2OS: every ordered pair of fits of one kind; `pca`
    refitted to compounds drawn with replacement
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sources import TABLES, keep_fits
from provenance import write_table
from sklearn.decomposition import PCA

from cpvae.profiles.read import read_profiles
from cpvae.model.fits import fit_many
from cpvae.latents.associate import association_table
from cpvae.latents.stability import stability_table
from cpvae.latents.traverse import contribution_table, contributions, entanglement, feature_groups
from cpvae.latents.traverse import rank_features, traverse
from cpvae.model.vae import latent_means
from cpvae.model.codes import latent_units, posterior
from cpvae.model.presets import make_vae
from cpvae.run.preset import RunConfig, prepare

VAES = ("vanilla", "beta", "mmd")
PERMUTATIONS = 199  # of what a latent follows
MANY = ("latents", "entanglement", "distinct", "stability")  # tables of every seed


def drawn(x: np.ndarray, compounds: pd.Series, seed: int) -> np.ndarray:
    """Profiles of as many compounds, drawn with replacement; controls count as one compound and
    always stay.
    """
    rng = np.random.default_rng(seed)
    rows = compounds.reset_index(drop=True).groupby(compounds.to_numpy()).indices
    names = [name for name in rows if len(rows[name]) < len(x) / 4]
    kept = [rows[name] for name in rows if name not in names]
    return x[np.concatenate(kept + [rows[name] for name in rng.choice(names, len(names))])]


def latent_table(model, x: np.ndarray) -> pd.DataFrame:
    "What is known of each latent by itself, and its correlation with each of the others."
    codes, unit = latent_means(model, x), {"latent": range(len(traverse(model, x)))}
    if hasattr(model, "latent_units_"):
        units = latent_units(model, x)
        unit |= {name: units[name].to_numpy() for name in ("kl", "variance", "active")}
        unit["noise"] = posterior(model, x)[1].double().exp().mean(0).numpy()
    else:
        unit |= {"variance": codes.var(axis=0), "active": True}
    sizes = {
        f"change_{around}": np.abs(traverse(model, x, around)).mean(axis=1)
        for around in ("posterior", "prior")
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(codes, rowvar=False)
    return pd.DataFrame(unit | sizes).assign(**{f"r_{i}": r[:, i] for i in range(len(r))})


def grouped(model, x: np.ndarray, var: pd.DataFrame) -> pd.DataFrame:
    "Contributions by compartment and channel, and by kind of feature."
    tables = []
    for by in ("compartment_channel", "feature_group"):
        groups = feature_groups(var, by)
        prior = contributions(traverse(model, x, "prior"), groups).ravel()
        tables.append(contribution_table(model, x, groups).assign(by=by, contribution_prior=prior))
    return pd.concat(tables)


def measures(
    model: str, seed: int, fit, name: str, profiles
) -> list[tuple[str, dict, pd.DataFrame]]:
    "What one fit says: table, labels, rows."
    x, part = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
    train, label, one = x[part == "train"], dict(model=model, seed=seed), dict(model=model)
    found = [
        ("latents", label, latent_table(fit, train)),
        ("entanglement", label, pd.DataFrame([entanglement(fit, train)])),
    ]
    if seed == 0:
        found.append(
            ("association", one, association_table(latent_means(fit, x), profiles, PERMUTATIONS))
        )
        if name == "l1000":
            found.append(("genes", one, rank_features(traverse(fit, train), profiles.var_names)))
        else:
            found.append(("contributions", one, grouped(fit, train, profiles.var)))
    if name == "u2os":
        found.append(
            (
                "distinct",
                label,
                contribution_table(fit, train, feature_groups(profiles.var)).query("q < 0.05"),
            )
        )
    return found


def settings(key: str, seeds: int) -> dict:
    "What a table's provenance says of how it was made."
    found = {"variants": VAES, "latent units": 10, "seeds": {"u2os": seeds, "l1000": 1}}
    return found | ({"permutations": PERMUTATIONS} if key == "association" else {})


if __name__ == "__main__":
    keep_fits()
    folder, seeds, found = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10, {}
    kept = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    for name, preset, n in (
        ("u2os", "chow2022", seeds),
        ("l1000", "recommended", 1),
        ("u2os", "recommended", seeds),
    ):
        file, how = TABLES[name]
        profiles = prepare(read_profiles(folder / file, **how), RunConfig(preset=preset))
        x, part = profiles.layers["scaled"], profiles.obs["split"].to_numpy()
        train, valid = x[part == "train"], x[part == "valid"]

        def keep(key, table, name=name, preset=preset, **about):
            found.setdefault(key, []).append(table.assign(**about, table=name, preset=preset))

        fitted = fit_many(
            {(v, s): make_vae(v, preset, random_state=s) for v in VAES for s in range(n)}
            | {("pca", 0): PCA(10, random_state=0)},
            train,
            valid,
            checkpoints=kept and kept / f"{name}-{preset}",
            jobs=-1,
        )
        tasks = (
            delayed(measures)(model, seed, fit, name, profiles)
            for (model, seed), fit in fitted.items()
        )
        for key, labels, table in sum(Parallel(n_jobs=-1)(tasks), []):
            keep(key, table, **labels)
        if n > 1:
            groups = feature_groups(profiles.var)
            who = profiles.obs["compound"].astype(str)[part == "train"]
            pca = {s: PCA(10, random_state=0).fit(drawn(train, who, s)) for s in range(n)}
            families = {v: {s: fitted[v, s] for s in range(n)} for v in VAES} | {"pca": pca}
            tables = Parallel(n_jobs=-1)(
                delayed(stability_table)(fits, train, groups) for fits in families.values()
            )
            for model, table in zip(families, tables, strict=True):
                keep("stability", table, model=model)
        for key, tables in found.items():
            table = pd.concat(tables, ignore_index=True)
            first = ["table", "preset", "model", *(c for c in ("seed", "by") if c in table)]
            table = table[first + [c for c in table if c not in first]]
            read = [folder / TABLES[n][0] for n in table["table"].unique()]
            how = dict(settings=settings(key, seeds), seeds=range(seeds if key in MANY else 1))
            write_table(f"interpretation_{key}", table, sources=read, digits=4, **how)
        print(name, preset, "done", flush=True)
