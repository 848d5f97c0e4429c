"""Make the tables of the models' worth that nbs/03e_presets reads:
`python nbs/paper/tables/models.py DATA [rebuild|ablation|codes|classes]`.

DATA is a folder that holds the U2OS and the L1000 table. Every fit is on the training part of a
split by compound, every figure on its test part; five seeds, each of the split and of the weights.
Nothing here was chosen on these test parts.

nbs/results/rebuild.csv   FVU of each variant under both presets, and of PCA with 5, 10, 20, 50 (and
    65) components
nbs/results/ablation.csv  FVU of the vanilla VAE (of the MMD-VAE, where its kernel is in question)
    with one choice of the recommended preset changed
nbs/results/codes.csv     FVU of ten units, ten splits: variants and their rivals, by the encoder's
    guess and by the posterior's mode, and PCA
nbs/results/classes.csv   the same for U2OS with whole classes of injury held out: five folds, each
    class in one of them
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sources import TABLES, keep_fits
from provenance import write_table
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold

from cpvae.profiles.read import read_profiles
from cpvae.measure.reconstruction import fvu
from cpvae.model.fits import fit_one
from cpvae.model.presets import RIVALS, make_vae
from cpvae.run.preset import RUN_PRESETS, RunConfig, prepare
from cpvae.preparation.clean import drop_copies, sort_rows
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.select import select_features
from cpvae.preparation.split import split_profiles

SEEDS = range(5)
VARIANTS = ("vanilla", "beta", "mmd")
COMPONENTS = (5, 10, 20, 50, 65)  # of PCA

# One choice of the recommended preset changed at a time: name to variant and parameters.
ABLATION = {
    "recommended": ("vanilla", {}),
    "one hidden layer of 250": ("vanilla", dict(hidden_layer_sizes=(250,))),
    "a variance for each feature": ("vanilla", dict(likelihood="gaussian")),
    "squared error": ("vanilla", dict(likelihood="squared_error")),
    "KL warm-up": ("vanilla", dict(kl_warmup=0.1)),
    "constant learning rate": ("vanilla", dict(schedule="constant")),
    "learning rate 1e-3": ("vanilla", dict(learning_rate=1e-3)),
    "no clipping": ("vanilla", dict(clip=None)),
    "last epoch": ("vanilla", dict(monitor="none")),
    "epoch of the best loss": ("vanilla", dict(monitor="loss")),
    "sampled codes": ("vanilla", dict(code="sample")),
    "the authors' heads": ("vanilla", dict(heads="chow2022")),
    "MMD, recommended": ("mmd", {}),
    "MMD, the authors' kernel": ("mmd", dict(kernel="chow2022")),
}
SMALL = ("recommended", "one hidden layer of 250", "KL warm-up", "last epoch")
SETTINGS = {
    "rebuild": {"split": "compound", "variants": VARIANTS, "PCA": COMPONENTS},
    "ablation": {"split": "compound", "changed": ABLATION, "changed in l1000": SMALL},
    "codes": {"split": "compound", "models": (*VARIANTS, *RIVALS, "pca"), "n_latent": 10},
    "classes": {
        "split": "Metadata_injury_type in five folds",
        "models": (*VARIANTS, *RIVALS, "pca"),
        "n_latent": 10,
    },
}
SPLITS = range(10)  # of codes


def prepared(folder: Path, name: str, processing: str, seed: int):
    "A table processed as a preset does, but always split by compound."
    file, how = TABLES[name]
    table = read_profiles(folder / file, **how)
    if processing == "recommended":
        return prepare(table, RunConfig(seed=seed))
    steps = RUN_PRESETS[processing].preparation()
    return processed(
        split_profiles(drop_copies(table), **{"seed": seed} | RUN_PRESETS["recommended"].split),
        steps,
    )


def processed(table, steps: dict):
    "Features selected and scaled, on the part of a divided table that trains."
    table = select_features(table, **steps["select"])
    return scale_profiles(
        table, **steps["scale_genes" if table.uns["cpvae"]["kind"] == "genes" else "scale"]
    )


def without_classes(folder: Path, fold: int):
    """U2OS with a fold of the classes of injury as its test part; controls, which belong to none,
    and the other compounds are dealt into training and validation.
    """
    table = drop_copies(sort_rows(read_profiles(folder / TABLES["u2os"][0])))
    injury = table.obs["Metadata_injury_type"].astype(str)
    classes = sorted(set(injury) - {"Control"})
    _, held_out = [
        *GroupKFold(len(SEEDS), shuffle=True, random_state=0).split(classes, groups=classes)
    ][fold]
    test = injury.isin([classes[i] for i in held_out]).to_numpy()
    table = split_profiles(table, test=0, seed=fold)
    table.obs["split"] = np.where(test, "test", table.obs["split"].astype(str))
    return processed(table, RUN_PRESETS["recommended"].preparation())


def score(folder: Path, name: str, processing: str, seed: int, model, label: dict) -> dict:
    "Fit on the training part, score on the test part."
    profiles = prepared(folder, name, processing, seed)
    x, part = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    fitted = fit_one(model, x[part == "train"], x[part == "valid"])
    test = x[part == "test"]
    units = getattr(fitted, "latent_units_", None)
    return (
        dict(table=name, processing=processing, seed=seed)
        | label
        | dict(
            n_train=int((part == "train").sum()),
            n_test=len(test),
            fvu=fvu(
                test,
                np.asarray(fitted.inverse_transform(fitted.transform(test))),
                x[part == "train"].mean(0),
            ),
            active=None if units is None else int(units.active.sum()),
            kl=None if units is None else units.kl.sum(),
        )
    )


def rebuild(folder: Path) -> list[dict]:
    "Both presets, each under its own processing, and PCA under both."
    jobs = []
    for name, seed in [(n, s) for n in TABLES for s in SEEDS]:
        chow = "chow2022-l1000" if name == "l1000" else "chow2022"
        for n_latent in (10,) if name == "u2os" else (10, 65):
            for processing, preset in (
                ("recommended", "recommended"),
                ("recommended", chow),
                ("chow2022", chow),
            ):
                for variant in VARIANTS:
                    model = make_vae(variant, preset, n_latent=n_latent, random_state=seed)
                    jobs.append(
                        (
                            name,
                            processing,
                            seed,
                            model,
                            dict(preset=preset.split("-")[0], model=variant, n_latent=n_latent),
                        )
                    )
        for processing in ("recommended", "chow2022"):
            for k in COMPONENTS:
                label = dict(preset="", model="pca", n_latent=k)
                jobs.append((name, processing, seed, PCA(k), label))
    return [delayed(score)(folder, *job) for job in jobs]


def ablation(folder: Path) -> list[dict]:
    """One choice changed at a time, on U2OS; on L1000, a tenth of its size, what a small table may
    need.
    """
    return [
        delayed(score)(
            folder,
            name,
            "recommended",
            seed,
            make_vae(variant, random_state=seed, **changed),
            dict(changed=what),
        )
        for name, only in (("u2os", ABLATION), ("l1000", SMALL))
        for seed in SEEDS
        for what, (variant, changed) in ABLATION.items()
        if what in only
    ]


def both_codes(profiles, seed: int, /, **label) -> list[dict]:
    """Ten units of every model on one split: what the encoder's guess and the posterior's mode
    leave.
    """
    rows = []
    x, part = np.asarray(profiles.layers["scaled"]), profiles.obs["split"].to_numpy()
    train, test = x[part == "train"], x[part == "test"]
    for model in (*VARIANTS, *RIVALS, "pca"):
        asked = PCA(10) if model == "pca" else make_vae(model, random_state=seed)
        fitted = fit_one(asked, train, x[part == "valid"])
        for code in ("mean",) if model == "pca" else ("mean", "mode"):
            if model != "pca":
                fitted.set_params(code=code)
            rebuilt = np.asarray(fitted.inverse_transform(fitted.transform(test)))
            found = dict(model=model, code=code, fvu=fvu(test, rebuilt, train.mean(0)))
            rows.append(label | found)
    return rows


def one_split(folder: Path, name: str, seed: int) -> list[dict]:
    "A split by compound."
    return both_codes(prepared(folder, name, "recommended", seed), seed, table=name, seed=seed)


def one_fold(folder: Path, fold: int) -> list[dict]:
    "A fold of the classes of injury."
    profiles = without_classes(folder, fold)
    out = profiles.obs.loc[profiles.obs["split"] == "test", "Metadata_injury_type"].astype(str)
    return both_codes(
        profiles, fold, fold=fold, held_out="|".join(sorted(set(out))), n_test=len(out)
    )


def codes(folder: Path) -> list[dict]:
    "How much of a profile its code holds, by the encoder's guess and by the posterior's mode."
    return [delayed(one_split)(folder, name, seed) for name in TABLES for seed in SPLITS]


def classes(folder: Path) -> list[dict]:
    "The same for injuries of which no compound was seen."
    return [delayed(one_fold)(folder, fold) for fold in SEEDS]


if __name__ == "__main__":
    keep_fits()
    folder = Path(sys.argv[1])
    sources = {name: folder / file for name, (file, _) in TABLES.items()}
    for name in sys.argv[2:] or SETTINGS:
        rows = Parallel(n_jobs=-1, verbose=1)(globals()[name](folder))
        table = pd.DataFrame(rows if name in ("rebuild", "ablation") else sum(rows, []))
        seeds = SPLITS if name == "codes" else SEEDS
        write_table(
            name,
            table,
            sources=[sources["u2os"]] if name == "classes" else sources.values(),
            settings=SETTINGS[name],
            seeds=seeds,
        )
        print(
            table.groupby(
                [
                    c
                    for c in (
                        "table",
                        "fold",
                        "processing",
                        "preset",
                        "model",
                        "code",
                        "n_latent",
                        "changed",
                    )
                    if c in table
                ]
            )
            .fvu.agg(["mean", "std"])
            .round(3)
            .to_string()
        )
