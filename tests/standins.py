"""Write files in the layouts people use, at any size, from a seeded simulation whose counts are
known.

`python tests/standins.py FOLDER` writes a small file of every layout, with what is true of it in
FOLDER/truth.json; with `--full`, files of the published sizes too: LINCS level 5 (75 MB) and 4 (136
plates), GSE70138 (5.8 GB), and a million cells (2.4 GB). Each function returns the truth under the
names that `describe_profiles` uses, so that a test compares the two.
"""

import argparse
import gzip
import json
import os
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

CHANNELS = ("AGP", "DNA", "ER", "Mito", "RNA")
COMPARTMENTS = ("Cells", "Cytoplasm", "Nuclei")
DOSES = (0.041152, 0.12346, 0.37037, 1.1111, 3.3333, 10.0)  # µM: three-fold from 10
HARALICK = (
    "AngularSecondMoment Contrast Correlation DifferenceEntropy DifferenceVariance Entropy"
    " InfoMeas1 InfoMeas2 InverseDifferenceMoment SumAverage SumEntropy SumVariance Variance"
).split()
INTENSITY = (
    "IntegratedIntensityEdge IntegratedIntensity LowerQuartileIntensity MADIntensity"
    " MassDisplacement MaxIntensityEdge MaxIntensity MeanIntensityEdge MeanIntensity"
    " MedianIntensity MinIntensityEdge MinIntensity StdIntensityEdge StdIntensity"
    " UpperQuartileIntensity"
).split()
SHAPE = (
    "Area Center_X Center_Y Compactness Eccentricity EulerNumber Extent FormFactor MajorAxisLength"
    " MaxFeretDiameter MaximumRadius MeanRadius MedianRadius MinFeretDiameter MinorAxisLength"
    " Orientation Perimeter Solidity"
).split()
NEIGHBORS = (
    "AngleBetweenNeighbors FirstClosestDistance FirstClosestObjectNumber NumberOfNeighbors"
    " PercentTouching SecondClosestDistance".split()
)


def cellprofiler_names(n: int = 1789) -> list[str]:
    """`n` names as CellProfiler 2 and 3 write them, in a table's usual order; at least eight of
    more than 100 are on pycytominer's blocklist.
    """
    both = [f"{a}_{b}" for a in CHANNELS for b in CHANNELS if a < b]
    ordered = ["_".join(pair) for pair in permutations(CHANNELS, 2)]
    names = [f"AreaShape_{m}" for m in SHAPE] + [
        f"AreaShape_Zernike_{i}_{j}" for i in range(10) for j in range(i % 2, i + 1, 2)
    ]
    names += [
        f"Correlation_{m}_{c}"
        for m, pairs in (
            ("Correlation", both),
            ("K", ordered),
            ("Manders", ordered),
            ("Overlap", both),
            ("RWC", ordered),
        )
        for c in pairs
    ]
    names += [f"Granularity_{i}_{c}" for i in range(1, 17) for c in CHANNELS] + [
        f"Intensity_{m}_{c}" for m in INTENSITY for c in CHANNELS
    ]
    names += [
        f"Location_{m}_{axis}_{c}"
        for m in ("CenterMassIntensity", "MaxIntensity")
        for axis in "XY"
        for c in CHANNELS
    ] + ["Location_Center_X", "Location_Center_Y"]
    names += [f"Neighbors_{m}_{where}" for m in NEIGHBORS for where in ("5", "10", "Adjacent")]
    names += [
        f"RadialDistribution_{m}_{c}_{i}of4"
        for m in ("FracAtD", "MeanFrac", "RadialCV")
        for c in CHANNELS
        for i in range(1, 5)
    ]
    names += [
        f"Texture_{m}_{c}_{scale}_0" for m in HARALICK for c in CHANNELS for scale in (5, 10, 20)
    ]
    names += [f"Texture_Gabor_{c}_{scale}" for c in CHANNELS for scale in (3, 5, 10, 20)]
    names = [f"{compartment}_{name}" for compartment in COMPARTMENTS for name in sorted(names)]
    blocked = (
        [f"Nuclei_{m}_{c}" for m in ("Correlation_Manders", "Correlation_RWC") for c in ordered[:4]]
        if n > 100
        else []
    )
    rest = [name for name in names if name not in blocked]
    chosen = {
        rest[i] for i in np.linspace(0, len(rest) - 1, n - len(blocked)).round().astype(int)
    } | set(blocked)
    if len(chosen) != n:
        raise ValueError(f"{n} features asked for; there are names for {len(names)}")
    return [name for name in names if name in chosen]


def made_up_map(n: int, seed: int = 0) -> pd.DataFrame:
    """Compounds with mechanisms in the columns of the drug repurposing map: two a mechanism, pairs
    of neighbours, every eleventh unknown.
    """
    rng = np.random.default_rng(seed)
    n_mechanisms = max(3, n // 6)
    single = [
        f"{('receptor', 'channel', 'kinase')[i % 3]} {chr(97 + i % 26)}{i}"
        f" {('agonist', 'blocker', 'inhibitor')[i % 3]}"
        for i in range(n_mechanisms)
    ]
    pair = [
        f"{b}|{a}" if i % 2 else f"{a}|{b}"
        for i, (a, b) in enumerate(zip(single, single[1:], strict=False))
    ]
    moa = [
        (single * 2 + pair + ["|".join(single[:3])] + single * n)[i] if i % 11 != 10 else ""
        for i in range(n)
    ]
    number = rng.choice(90_000_000, n, replace=False) + 10_000_000
    return pd.DataFrame(
        {
            "broad_sample": [
                f"BRD-{'AK'[i % 2]}{k}-001-{i % 90 + 10:02d}-{i % 9 + 1}"
                for i, k in enumerate(number)
            ],
            "broad_id": [f"BRD-{'AK'[i % 2]}{k}" for i, k in enumerate(number)],
            "pert_iname": [f"made-up-{i + 1:04d}" for i in range(n)],
            "InChIKey14": [
                "".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 14)) for _ in range(n)
            ],
            "moa": moa,
            "target": ["" if i % 5 else f"GENE{i}|GENE{i + 1}" for i in range(n)],
            "clinical_phase": "Preclinical",
        }
    )


def real_map() -> pd.DataFrame | None:
    "The drug repurposing map under CPVAE_DATA, or None."
    path = (
        Path(os.environ.get("CPVAE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
        / "repurposing_info_external_moa_map_resolved.tsv"
    )
    return pd.read_csv(path, sep="\t", keep_default_na=False) if path.is_file() else None


def mechanisms_of(annotations: pd.DataFrame, used) -> dict:
    """What is true once mechanisms are known, of the compounds whose `broad_id` is used: by set
    logic on whole annotations.
    """
    moa = (
        annotations[annotations.broad_id.isin(set(used))]
        .drop_duplicates("broad_id")
        .set_index("broad_id")
        .moa
    )
    alone = {text for text in moa if text and "|" not in text}
    two = moa[moa.str.count(r"\|") == 1]
    return {
        "annotated compounds": int((moa != "").sum()),
        "compounds with exactly two mechanisms": len(two),
        "evaluable pairs": sorted(
            {text for text in two if set(text.split("|")) <= alone}, key=str.casefold
        ),
    }


def layout(annotations: pd.DataFrame, n_maps: int, per_map: int, n_controls: int) -> pd.DataFrame:
    """One row a well: `plate_map`, `well`, `compound` (row of the annotations, -1 for DMSO) and
    `dose` (µM, 0 for DMSO).
    """
    wells = [f"{chr(65 + i // 24)}{i % 24 + 1:02d}" for i in range(384)]
    tables = []
    for k in range(n_maps):
        slots = np.arange(k * per_map, (k + 1) * per_map) % len(annotations)
        compound = np.concatenate([np.full(n_controls, -1), np.repeat(slots, len(DOSES))])
        # dispensed doses differ a little
        dose = np.concatenate([np.zeros(n_controls), np.tile(DOSES, per_map)]) * (
            1 + 0.01 * (k % 3) / 2
        )
        tables.append(
            pd.DataFrame(
                {
                    "plate_map": f"C-7161-01-LM6-{k + 12:03d}",
                    "well": wells[: len(compound)],
                    "compound": compound,
                    "dose": dose,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def effects(
    annotations: pd.DataFrame, wells: pd.DataFrame, n_features: int, rng: np.random.Generator
) -> np.ndarray:
    """`[N,G]` float32: mechanisms add in a hidden state, which a bent map turns into features; plus
    noise.
    """
    terms = sorted({term for text in annotations.moa for term in text.split("|")})
    direction = dict(zip(terms, rng.standard_normal((len(terms), 12)), strict=True))
    full = np.array([sum(direction[term] for term in text.split("|")) for text in annotations.moa])
    full += 0.5 * rng.standard_normal(full.shape)
    state = full[wells.compound] * (wells.dose / (1 + wells.dose)).to_numpy()[
        :, None
    ] + 0.2 * rng.standard_normal((len(wells), 12))
    values = np.tanh(state).astype(np.float32) @ rng.standard_normal((12, n_features), np.float32)
    return values + 0.5 * rng.standard_normal(values.shape, np.float32)


def spoil(values: np.ndarray, rng: np.random.Generator) -> dict[str, list[int]]:
    """Put in place what real tables hold; where: `constant`, `gappy` (missing in 10 % of rows),
    `outlier` (beyond 15) and `wild` (beyond 500) features, `gappy_rows`.
    """
    n, g = values.shape
    places = {
        name: sorted(int(i) for i in part)
        for name, part in zip(
            ("constant", "gappy", "outlier", "wild"),
            rng.permutation(g)[:8].reshape(4, 2),
            strict=True,
        )
    }
    values[:, places["constant"]] = (0, 1)
    values[np.ix_(rng.choice(n, max(1, n // 10), replace=False), places["gappy"])] = np.nan
    values[rng.choice(n, 2, replace=False), places["outlier"]] = (18, -25)
    values[rng.choice(n, 2, replace=False), places["wild"]] = (900, -3000)
    whole = np.setdiff1d(np.arange(g), sum(places.values(), []))
    places["gappy_rows"] = (
        sorted(int(i) for i in rng.choice(n, 2, replace=False)) if n >= 60 else []
    )
    for row in places["gappy_rows"]:
        values[row, whole[0]] = np.nan
    return places


def truth_of(ids, dose, control, plates, n_features: int, columns: dict, times=()) -> dict:
    "The counts of a table, under the names of `describe_profiles`."
    ids, dose, control = np.asarray(ids, object), np.asarray(dose, float), np.asarray(control, bool)
    levels = sorted(
        {min(DOSES, key=lambda level: abs(np.log(level / d))) for d in dose[~control] if d > 0}
    )
    return {
        "profiles": len(ids),
        "features": n_features,
        "compounds": len(set(ids[~control])),
        "dose levels (µM)": levels,
        "plates": len(set(plates)),
        "times (h)": sorted(times),
        "control rows": int(control.sum()),
        "columns": columns,
        "annotated compounds": 0,
        "compounds with exactly two mechanisms": 0,
        "evaluable pairs": [],
    }


def write_text(table: pd.DataFrame, path: Path) -> None:
    "Write CSV (gzip by suffix) with five significant digits, as published tables have."
    table.to_csv(
        path,
        index=False,
        float_format="%.5g",
        compression=(
            {"method": "gzip", "compresslevel": 4, "mtime": 1} if path.suffix == ".gz" else None
        ),
    )


def frame(metadata: dict, values: np.ndarray, features: list[str]) -> pd.DataFrame:
    "Metadata and features side by side."
    return pd.concat([pd.DataFrame(metadata), pd.DataFrame(values, columns=features)], axis=1)


def lincs_level5(
    path,
    *,
    annotations=None,
    n_maps=2,
    per_map=16,
    n_controls=12,
    n_features=60,
    bad_map=False,
    spoiled=True,
    seed=0,
) -> dict:
    """Consensus profiles of LINCS: no plate, no mechanism, DMSO rows with dose 0.

    `bad_map` adds platemap C-7161-01-LM6-011, which the paper leaves out. With `spoiled`, the truth
    holds for `drop_na=True`.
    """
    rng = np.random.default_rng(seed)
    annotations = made_up_map(n_maps * per_map, seed) if annotations is None else annotations
    wells = layout(annotations, n_maps, per_map, n_controls)
    if bad_map:
        again = wells[wells.plate_map == wells.plate_map.iloc[0]].assign(
            plate_map="C-7161-01-LM6-011"
        )
        wells = pd.concat([again, wells], ignore_index=True)
    features, control = cellprofiler_names(n_features), (wells.compound < 0).to_numpy()
    values = effects(annotations, wells, n_features, rng)
    places = spoil(values, rng) if spoiled else {}
    metadata = {
        "Metadata_Plate_Map_Name": wells.plate_map,
        "Metadata_broad_sample": np.where(
            control, "DMSO", annotations.broad_sample.to_numpy()[wells.compound]
        ),
        "Metadata_pert_well": wells.well,
        "Metadata_mmoles_per_liter": wells.dose,
        "Metadata_dose_recode": np.where(
            control, 0, np.searchsorted(np.array(DOSES) * 0.99, wells.dose)
        ),
    }
    write_text(frame(metadata, values, features), Path(path))
    kept = np.setdiff1d(np.arange(len(wells)), places.get("gappy_rows", []))
    ids = annotations.broad_id.to_numpy()[wells.compound]
    columns = {
        "compound": "Metadata_broad_sample",
        "dose": "Metadata_mmoles_per_liter",
        "plate": "Metadata_Plate_Map_Name",
        "well": "Metadata_pert_well",
    }
    left = n_features - len(places.get("constant", [])) - len(places.get("gappy", []))
    truth = truth_of(
        ids[kept], wells.dose[kept], control[kept], wells.plate_map[kept], left, columns
    )
    names = {name: [features[i] for i in places[name]] for name in places if name != "gappy_rows"}
    return truth | {
        "in the file": [len(wells), n_features],
        "with mechanisms": mechanisms_of(annotations, ids[kept][~control[kept]]),
        "places": names,
    }


def lincs_level4(
    folder,
    *,
    annotations=None,
    n_maps=2,
    replicates=2,
    per_map=10,
    n_controls=12,
    n_features=40,
    ragged=True,
    seed=0,
) -> dict:
    """Normalised plates of LINCS, one file a plate; with `ragged`, the first plate has one feature
    more and every other lacks one.
    """
    rng, folder = np.random.default_rng(seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    annotations = made_up_map(n_maps * per_map, seed) if annotations is None else annotations
    wells = layout(annotations, n_maps, per_map, n_controls)
    features, each, parts = cellprofiler_names(n_features), {}, []
    lost = [features[3 + i] if ragged and i else None for i in range(n_maps * replicates)]
    for i, (name, a_map) in enumerate(
        (name, part)
        for name, part in wells.groupby("plate_map", sort=False)
        for _ in range(replicates)
    ):
        plate, control = f"SQ{15194 + i:08d}", (a_map.compound < 0).to_numpy()
        sample = np.where(control, "DMSO", annotations.broad_sample.to_numpy()[a_map.compound])
        metadata = {
            "Metadata_plate_map_name": name,
            "Metadata_broad_sample": sample,
            "Metadata_mg_per_ml": a_map.dose.to_numpy() * 0.4,
            "Metadata_mmoles_per_liter": a_map.dose.to_numpy(),
            "Metadata_solvent": "DMSO",
            "Metadata_pert_id": np.where(
                control, "", annotations.broad_id.to_numpy()[a_map.compound]
            ),
            "Metadata_pert_well": a_map.well.to_numpy(),
            "Metadata_cell_id": "A549",
            "Metadata_broad_sample_type": np.where(control, "control", "trt"),
            "Metadata_pert_vehicle": "DMSO",
            "Metadata_pert_type": np.where(control, "control", "trt"),
            "Metadata_Plate": plate,
            "Metadata_Well": a_map.well.to_numpy(),
        }
        extra = ["Cells_Texture_Extra_DNA_3_0"] if ragged and not i else []
        values = effects(annotations, a_map, n_features + len(extra), rng)
        write_text(
            frame(metadata, values, features + extra).drop(columns=[lost[i]] if lost[i] else []),
            folder / f"{plate}_normalized.csv.gz",
        )
        parts.append(a_map.assign(plate=plate))
        each[f"{plate}_normalized.csv.gz"] = _level4_truth(
            annotations, parts[-1], n_features + len(extra) - (lost[i] is not None)
        )
    common = n_features - sum(name is not None for name in lost)
    return _level4_truth(annotations, pd.concat(parts), common) | {"each": each}


def _level4_truth(annotations, wells, n_features):
    columns = {
        "compound": "Metadata_broad_sample",
        "dose": "Metadata_mmoles_per_liter",
        "cell": "Metadata_cell_id",
        "plate": "Metadata_Plate",
        "well": "Metadata_Well",
    }
    ids = annotations.broad_id.to_numpy()[wells.compound]
    control = (wells.compound < 0).to_numpy()
    return truth_of(ids, wells.dose, control, wells.plate, n_features, columns) | {
        "with mechanisms": mechanisms_of(annotations, ids[~control])
    }


def jump(
    path, *, pert_type=False, n_plates=3, per_plate=40, n_controls=16, n_features=50, seed=0
) -> dict:
    """JUMP's parquet: compounds by their JCP2022 id, one dose;
    DMSO is JCP2022_033924, with `pert_type` also called negcon.
    """
    rng = np.random.default_rng(seed)
    n = n_plates * (per_plate + n_controls)
    compound = np.concatenate(
        [
            np.r_[np.full(n_controls, 33924), 100 + rng.permutation(per_plate)]
            for _ in range(n_plates)
        ]
    )
    wells = pd.DataFrame(
        {
            "compound": np.where(compound == 33924, -1, compound - 100),
            "dose": np.where(compound == 33924, 0, 5.0),
        }
    )
    plates = np.repeat([f"GR0000{3301 + i}" for i in range(n_plates)], per_plate + n_controls)
    metadata = {
        "Metadata_Source": "source_1",
        "Metadata_Plate": plates,
        "Metadata_Well": (
            [f"{chr(65 + i // 24)}{i % 24 + 1:02d}" for i in range(per_plate + n_controls)]
            * n_plates
        ),
        "Metadata_JCP2022": [f"JCP2022_{k:06d}" for k in compound],
    }
    if pert_type:
        metadata["Metadata_pert_type"] = np.select(
            [compound == 33924, compound < 104], ["negcon", "poscon"], "trt"
        )
    frame(
        metadata,
        effects(made_up_map(per_plate, seed), wells, n_features, rng),
        cellprofiler_names(n_features),
    ).to_parquet(path, index=False)
    columns = {
        "compound": "Metadata_JCP2022",
        "dose": "",
        "plate": "Metadata_Plate",
        "well": "Metadata_Well",
    }
    return truth_of(compound, np.zeros(n), compound == 33924, plates, n_features, columns)


def genes(n: int = 978, landmarks: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Made-up genes in the columns of GEO's gene_info, the landmark ones (default: all) spread
    evenly.
    """
    rng, letters = np.random.default_rng(seed), list("ABCDEFGHIKLMNPRSTUVXZ")
    symbols = list(
        dict.fromkeys(
            "".join(rng.choice(letters, k)) + digit
            for k, digit in zip(rng.integers(3, 6, 2 * n), rng.choice(["", "1", "2", "7B"], 2 * n))
        )
    )[:n]
    marked = np.zeros(n, int)
    marked[np.linspace(0, n - 1, n if landmarks is None else landmarks).round().astype(int)] = 1
    return pd.DataFrame(
        {
            "pr_gene_id": [str(k) for k in np.sort(rng.choice(100_000, n, replace=False) + 2)],
            "pr_gene_symbol": symbols,
            "pr_gene_title": [f"made-up gene {i + 1}" if i % 7 else "-666" for i in range(n)],
            "pr_is_lm": marked,
            "pr_is_bing": np.maximum(marked, rng.integers(0, 2, n)),
        }
    )


def signatures(annotations: pd.DataFrame, n: int, vehicle: float, seed: int = 0) -> pd.DataFrame:
    """`n` signatures as CLUE describes them, a share of them of the vehicle; beside them `compound`
    and `dose` as in `layout`, and `plate`.
    """
    rng, k = np.random.default_rng(seed), np.arange(n)
    compound = np.where(k < round(vehicle * n), -1, k % len(annotations))
    control, cell = compound < 0, np.array(["A375", "MCF7"])[k // len(annotations) % 2]
    dose = np.where(control, 0, np.array(DOSES)[k // len(annotations) % len(DOSES)].round(2))
    hours = np.where(k % 4 == 3, 6, 24)
    ids = np.where(control, "DMSO", annotations.broad_id.to_numpy()[compound])
    plate = np.array([f"LJP{i % 9 + 1:03d}_{c}_{h}H" for i, c, h in zip(k, cell, hours)], object)
    return pd.DataFrame(
        {
            "sig_id": [
                f"{p}:{well}{i // 16:02d}"
                for i, (p, well) in enumerate(zip(plate, rng.choice(list("ABCDEFGHIJKLMNOP"), n)))
            ],
            "pert_id": ids,
            "pert_iname": np.where(control, "DMSO", annotations.pert_iname.to_numpy()[compound]),
            "pert_type": np.where(control, "ctl_vehicle", "trt_cp"),
            "pert_dose": np.where(control, -666, dose),
            "pert_dose_unit": np.where(control, "-666", "um"),
            "pert_idose": np.where(control, "-666", [f"{d} um" for d in dose]),
            "pert_time": hours,
            "pert_itime": [f"{h} h" for h in hours],
            "cell_id": cell,
            "compound": compound,
            "dose": dose,
            "plate": plate,
        }
    ).assign(sig_id=lambda t: t.sig_id + "_" + t.index.astype(str))


CLUE_COLUMNS = [
    "pert_id",
    "pert_iname",
    "pert_type",
    "pert_dose",
    "pert_dose_unit",
    "pert_idose",
    "pert_time",
    "pert_itime",
    "cell_id",
]


def _clue_truth(annotations, table, n_features, columns):
    control = (table.compound < 0).to_numpy()
    truth = truth_of(
        table.pert_iname,
        table.dose,
        control,
        [],
        n_features,
        columns,
        table.pert_time.unique().tolist(),
    )
    return truth | {"with mechanisms": mechanisms_of(annotations, table.pert_id[~control])}


def clue(path, *, annotations=None, n=120, vehicle=0.1, n_genes=978, by="symbol", seed=0) -> dict:
    """CLUE's level 5: GCT 1.3 (genes as rows) or CSV (signatures as rows), by suffix; missing
    metadata are -666.

    Without vehicle rows the zero vector is the control. In a CSV genes are called by `by`: "symbol"
    or "entrez".
    """
    rng, path = np.random.default_rng(seed), Path(path)
    annotations = made_up_map(20, seed) if annotations is None else annotations
    table, info = signatures(annotations, n, vehicle, seed), genes(n_genes, seed=seed)
    values = effects(annotations, table, n_genes, rng)
    if ".gct" in path.suffixes:
        with (gzip.open if path.suffix == ".gz" else open)(
            path, "wt", encoding="utf-8", newline=""
        ) as file:
            _write_gct(
                file,
                table[["sig_id", *CLUE_COLUMNS]],
                info[["pr_gene_id", "pr_gene_symbol", "pr_gene_title", "pr_is_lm"]],
                values,
            )
    else:
        names = info.pr_gene_symbol if by == "symbol" else info.pr_gene_id
        write_text(frame(table[["sig_id", *CLUE_COLUMNS]], values, list(names)), path)
    columns = {
        "compound": "Metadata_pert_iname",
        "dose": "Metadata_pert_dose",
        "time": "Metadata_pert_time",
        "cell": "Metadata_cell_id",
        "plate": "",
        "well": "",
    }
    return _clue_truth(annotations, table, n_genes, columns)


def _write_gct(file, cols, rows, values):
    "GCT 1.3: counts, then ids, then what is known of columns and, from column 2, of rows."
    named = [str(name) for name in rows.columns[1:]]
    print(
        "#1.3",
        "\t".join(map(str, (len(rows), len(cols), len(named), cols.shape[1] - 1))),
        "\t".join(["id", *named, *cols.iloc[:, 0]]),
        sep="\n",
        file=file,
    )
    for name in cols.columns[1:]:
        print(
            name,
            *["na"] * len(named),
            *(f"{v:g}" if isinstance(v, float) else v for v in cols[name].tolist()),
            sep="\t",
            file=file,
        )
    for about, row in zip(rows.itertuples(index=False), values.T, strict=True):
        print(*about, *(f"{v:.5g}" for v in row), sep="\t", file=file)


def gse70138(
    folder, *, annotations=None, n=150, n_genes=300, landmarks=60, vehicle=0.1, block=2000, seed=0
) -> dict:
    """GCTX as GEO serves it, with sig_info.txt.gz and gene_info.txt.gz beside it; written in blocks
    of rows. Genes: the landmark ones are to be read.
    """
    import h5py

    rng, folder = np.random.default_rng(seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    annotations = made_up_map(20, seed) if annotations is None else annotations
    table, info = signatures(annotations, n, vehicle, seed), genes(n_genes, landmarks, seed)
    with h5py.File(folder / "level5.gctx", "w") as file:
        file.attrs["version"], file.attrs["src"] = "GCTX1.0", "level5.gctx"
        matrix = file.create_dataset(
            "0/DATA/0/matrix", (n, n_genes), "f4", chunks=(min(n, 256), min(n_genes, 1000))
        )
        file["0/META/COL/id"] = table.sig_id.to_numpy("S")
        file["0/META/ROW/id"] = info.pr_gene_id.to_numpy("S")
        weights = rng.standard_normal((12, n_genes), np.float32)
        # the first rows' effects serve all blocks: the size matters here, not the biology
        for start in range(0, n, block):
            rows = table.iloc[start : start + block]
            state = effects(annotations, rows, 12, np.random.default_rng(seed))
            matrix[start : start + len(rows)] = np.tanh(
                state
            ) @ weights + 0.5 * rng.standard_normal((len(rows), n_genes), np.float32)
    sig_info = table[
        ["sig_id", "pert_id", "pert_iname", "pert_type", "cell_id", "pert_idose", "pert_itime"]
    ].assign(distil_id=table.sig_id)
    sig_info.sample(frac=1, random_state=seed).to_csv(
        folder / "sig_info.txt.gz", sep="\t", index=False
    )
    info.to_csv(folder / "gene_info.txt.gz", sep="\t", index=False)
    columns = {
        "compound": "Metadata_pert_iname",
        "dose": "Metadata_pert_idose",
        "time": "Metadata_pert_itime",
        "cell": "Metadata_cell_id",
        "plate": "",
        "well": "",
    }
    return _clue_truth(annotations, table, landmarks, columns) | {"all genes": n_genes}


def big_parquet(path, *, n=2000, n_features=600, block=50_000, seed=0) -> dict:
    """Single cells or wells by the million, written in blocks: `n` rows of float32 in one parquet
    file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    features = cellprofiler_names(n_features)
    writer = None
    tables = []
    for start in range(0, n, block):
        k = np.arange(start, min(start + block, n))
        compound = np.where(k % 20 == 0, -1, k % 300)
        metadata = {
            "Metadata_Plate": [f"P{i // 384 % 100:03d}" for i in k],
            "Metadata_Well": [f"{chr(65 + i // 24 % 16)}{i % 24 + 1:02d}" for i in k],
        }
        metadata["Metadata_compound"] = ["DMSO" if c < 0 else f"compound {c:03d}" for c in compound]
        values = rng.standard_normal((n_features, len(k)), np.float32)
        block_table = pa.table({**metadata, **dict(zip(features, values))})
        writer = writer or pq.ParquetWriter(path, block_table.schema, use_dictionary=list(metadata))
        writer.write_table(block_table)
        tables.append(pd.DataFrame({"compound": compound, "plate": metadata["Metadata_Plate"]}))
    writer.close()
    table = pd.concat(tables)
    columns = {
        "compound": "Metadata_compound",
        "dose": "",
        "plate": "Metadata_Plate",
        "well": "Metadata_Well",
    }
    return truth_of(
        table.compound, np.zeros(n), table.compound < 0, table.plate, n_features, columns
    )


def h5ad(
    path, *, sparse=False, annotations=None, n_maps=2, per_map=10, n_controls=12, n_genes=80, seed=0
) -> dict:
    """AnnData as scverse tools write it: cell barcodes, gene symbols with Ensembl ids, categorical
    obs without any prefix; sparse or dense.
    """
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    annotations = made_up_map(n_maps * per_map, seed) if annotations is None else annotations
    wells, info = layout(annotations, n_maps, per_map, n_controls), genes(n_genes, seed=seed)
    control, values = (wells.compound < 0).to_numpy(), effects(annotations, wells, n_genes, rng)
    if sparse:
        values = csr_matrix(np.where(np.abs(values) > 1, values, 0))
    name = np.where(control, "DMSO", annotations.pert_iname.to_numpy()[wells.compound])
    moa = np.where(control, "", annotations.moa.to_numpy()[wells.compound])
    obs = pd.DataFrame(
        {
            "compound": name,
            "dose_uM": wells.dose.to_numpy(),
            "plate": wells.plate_map.to_numpy(),
            "well": wells.well.to_numpy(),
            "cell_line": "A549",
            "moa": moa,
        }
    )
    obs = obs.astype(
        {name: "category" for name in ("compound", "plate", "cell_line", "moa")}
    ).set_index(pd.Index([f"AAAC{i:06d}-1" for i in range(len(obs))]))
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{int(k):011d}" for k in info.pr_gene_id]},
        index=info.pr_gene_symbol.tolist(),
    )
    AnnData(values, obs=obs, var=var).write_h5ad(path)
    columns = {
        "compound": "Metadata_compound",
        "dose": "Metadata_dose_uM",
        "cell": "Metadata_cell_line",
        "plate": "Metadata_plate",
        "well": "Metadata_well",
        "moa": "Metadata_moa",
    }
    truth = truth_of(
        annotations.broad_id.to_numpy()[wells.compound],
        wells.dose,
        control,
        wells.plate_map,
        n_genes,
        columns,
    )
    return truth | mechanisms_of(
        annotations, annotations.broad_id.to_numpy()[wells.compound[~control]]
    )


def write_small(folder: Path) -> dict[str, dict]:
    "One small file of every layout; name to truth."
    made_up_map(32).to_csv(folder / "moa_map.tsv", sep="\t", index=False)
    truth = {
        "level5.csv.gz": lincs_level5(folder / "level5.csv.gz"),
        "level4": lincs_level4(folder / "level4"),
        "gse70138": gse70138(folder / "gse70138"),
    }
    truth |= {
        f"jump{k}.parquet": jump(folder / f"jump{k}.parquet", pert_type=bool(k)) for k in (0, 1)
    }
    truth |= {name: clue(folder / name) for name in ("clue.gct", "clue.csv")}
    truth |= {
        name: h5ad(folder / name, sparse="sparse" in name) for name in ("dense.h5ad", "sparse.h5ad")
    }
    return truth | {"cells.parquet": big_parquet(folder / "cells.parquet")}


def write_full(folder: Path) -> dict[str, dict]:
    "Files of the published sizes; name to truth. Raises OSError if there is no room."
    if shutil.disk_usage(folder).free < 12e9:
        raise OSError(f"{folder}: the full sizes need 12 GB of free disk")
    known = real_map()
    known = made_up_map(1570) if known is None else known
    known.to_csv(folder / "moa_map_full.tsv", sep="\t", index=False)
    size = dict(annotations=known, per_map=60, n_controls=24)
    truth = {
        "level5_full.csv.gz": lincs_level5(
            folder / "level5_full.csv.gz", n_maps=27, n_features=1789, **size
        )
    }
    truth["level4_full"] = lincs_level4(
        folder / "level4_full", n_maps=27, replicates=5, n_features=1200, **size
    )
    truth["gse70138_full"] = gse70138(
        folder / "gse70138_full",
        annotations=known,
        n=118_050,
        n_genes=12_328,
        landmarks=978,
        vehicle=0.05,
    )
    return truth | {"cells_full.parquet": big_parquet(folder / "cells_full.parquet", n=1_000_000)}


def main() -> None:
    "Write the files, and what is true of them to truth.json."
    parser = argparse.ArgumentParser(
        description=(
            "Write files in the layouts people use, from a simulation whose counts are known."
        )
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--full", action="store_true", help="the published sizes too (minutes, 12 GB)"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    truth = write_small(given.folder) | (write_full(given.folder) if given.full else {})
    (given.folder / "truth.json").write_text(
        json.dumps(truth, indent=1, ensure_ascii=False, default=int), encoding="utf-8"
    )
    print(
        f"{len(truth)} stand-ins in {given.folder}; what is true of them:"
        f" {given.folder / 'truth.json'}"
    )


if __name__ == "__main__":
    main()
