"""Make the tables that the package carries: `python nbs/paper/tables/packaged.py DATA RAW`.

RAW holds the files of three measured sets as their owners publish them (cpvae/data/README.md says
where); DATA the public U2OS table. Writes cpvae/data/norman.parquet, korkut.parquet, ecoli.parquet
and u2os-small.parquet.

A row is a state: the mean of what its source gives for one treatment. `Metadata_moa` names what was
done, `A|B` where two things were done together.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sources import ROOT, TABLES

PACKAGED = ROOT / "cpvae" / "data"


def as_states(names, x: np.ndarray, features, **about) -> pd.DataFrame:
    """Metadata and features of states. `names` say what was done, joined by a pipe; "" is the
    control.
    """
    names = pd.Series([*names])
    done = {"compound": names, "broad_sample": names.replace("", "DMSO")}
    done |= {"moa": names.where(names != "", None), **about}
    table = pd.DataFrame({f"Metadata_{name}": values for name, values in done.items()})
    return table.join(pd.DataFrame(x.astype(np.float32), columns=[*features]))


# --- CRISPRa in K562, Norman et al. 2019 ----------------------------------------------------------

AXES = 50


def scaled_to_axes(squared: np.ndarray, n: int = AXES) -> np.ndarray:
    """Coordinates `[N,n]` of points by their squared distances `[N,N]`: classical scaling
    (Torgerson 1952), the largest axes.
    """
    centre = np.eye(len(squared)) - 1 / len(squared)
    values, vectors = np.linalg.eigh(-centre @ squared @ centre / 2)
    most = np.argsort(values)[::-1][:n]
    return vectors[:, most] * np.sqrt(np.maximum(values[most], 0))


def norman(raw: Path) -> pd.DataFrame:
    """105 genes activated alone, 131 in pairs. The file holds squared E-distances with the N - 1
    correction, which are twice the squared distance of two means, free of sampling noise. Axes are
    turned at random, since each alone means nothing; the control is the origin.
    """
    found = pd.read_csv(raw / "pairwise_edist_NormanWeissman2019_filtered.csv", index_col=0)
    x = scaled_to_axes(found.to_numpy() / 2)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(AXES, AXES)))[0]
    x = (x - x[found.index == "control"]) @ turn
    names = ["" if name == "control" else name.replace("_", "|") for name in found.index]
    features = [f"R{i:02d}" for i in range(1, AXES + 1)]
    states = as_states(names, x, features, cell_line="K562")
    return states.assign(Metadata_compound=states["Metadata_compound"].replace("", "control"))


# --- drugs in SK-MEL-133, Korkut et al. 2015 ------------------------------------------------------

MEASURED = 87  # the nodes after them are the authors' model's, no measurement


def korkut(raw: Path) -> pd.DataFrame:
    """12 drugs alone and in pairs, each named with its dose: log2 ratios to untreated cells, so
    that the zero vector is the control, of 82 (phospho)proteins and 5 phenotypes.
    """
    given = pd.read_csv(raw / "cellbox_expr_index.txt", sep=r"\s+", header=None)[0]
    given = given.str.replace("|", "_", regex=False)  # 901_1.5,HN_6
    nodes = pd.read_csv(raw / "cellbox_node_Index.csv", header=None)[0]
    x = pd.read_csv(raw / "cellbox_expr.csv", header=None).to_numpy()[:, :MEASURED]
    states = as_states(given.str.replace(",", "|"), x, nodes[:MEASURED], cell_line="SKMEL133")
    return states.assign(
        Metadata_compound=given.str.replace(",", "_"),
        Metadata_broad_sample=given.str.replace(",", "+"),
    )


# --- E. coli, PRECISE-1K --------------------------------------------------------------------------

CONDITION = ["Base Media", "Carbon Source (g/L)", "Nitrogen Source (g/L)", "Electron Acceptor"] + [
    "Supplement",
    "Temperature (C)",
    "pH",
    "Culture Type",
]
# Of each group the strain, and the condition, that the others are set against: our choice.
GROUPS = {
    "DDB2/PD-003": ("PD-003 BW25113", "Batch_9h"),
    "DDB2/PD-005": ("PD-005 BW25113", "Batch_6h"),
    "cra_crp": ("K-12 MG1655", "M9; acetate(2); NH4Cl(1); O2; 37; 7.0; Batch"),
    "crp": ("K-12 MG1655", "M9; glycerol(2); NH4Cl(1); O2; 37; 7.0; Batch"),
    "fur": ("K-12 MG1655", "M9; glucose(2); NH4Cl(1); O2; FeCl2 (0.1mM); 37; 7.0; Batch"),
    "minicoli": ("K-12 W3110", "M9; 37; 7.0; Batch"),
    "nac_ntrc": ("K-12 MG1655", "W2; glucose(2); cytidine(2); O2; 37; 7.0; Batch"),
    "oxyR": ("K-12 MG1655", "M9; glucose(4); NH4Cl(1); O2; 37; 7.0; Batch"),
    "ros_tale": ("ERS.ALE4", "M9; glucose(4); NH4Cl(1); O2; 37; 7.0; Batch"),
    "rpoB": ("K-12 MG1655", "LB; O2; 37; 7.0; Batch"),
    "ssw": ("K-12 MG1655", "M9; xylose(4); NH4Cl(1); O2; 37; 7.0; Batch"),
    "tcs": ("K-12 MG1655", "LB; O2; 37; 7.0; Batch"),
    "ytf3": ("K-12 MG1655", "M9; glucose; NH4Cl(1); O2; 37; 7.0; Batch"),
}


def described(sample: pd.Series) -> tuple[str, str, str]:
    "Group, strain and condition of a sample, as its metadata tell."
    strain = sample["Strain Description"].removeprefix("Escherichia coli ")
    if sample["project"] == "DDB2":  # strains of two plasmids; the hour stands in the name only
        plasmid, *_, culture, hour = sample["condition"].split("_")
        return f"DDB2/{plasmid}", f"{plasmid} {strain}", f"{culture}_{hour}"
    said = [str(value) for value in sample[CONDITION] if pd.notna(value)]
    return sample["project"], strain, "; ".join(said)


def ecoli_samples(raw: Path) -> pd.DataFrame:
    """Samples of every group's factorial: `group`, `state` ("" for the control) by sample. A state
    counts where strain, condition and both together were measured.
    """
    about = pd.read_csv(raw / "precise1k_metadata_qc.csv", index_col=0, low_memory=False)
    told = pd.DataFrame(map(described, (row for _, row in about.iterrows())), about.index)
    told.columns = ["group", "strain", "condition"]
    parts = []
    for group, (strain, condition) in GROUPS.items():
        mine = told[told["group"] == group]
        there = set(zip(mine["strain"], mine["condition"], strict=True))
        other = lambda s, c, at=strain, of=condition: s != at and c != of
        pairs = {(s, c) for s, c in there if other(s, c) and {(s, condition), (strain, c)} <= there}
        used = {(strain, condition)} | {
            state for s, c in pairs for state in ((s, c), (s, condition), (strain, c))
        }
        mine = mine[[state in used for state in zip(mine["strain"], mine["condition"])]]
        names = [
            "|".join(
                f"{group}:{name}" for name, plain in ((s, strain), (c, condition)) if name != plain
            )
            for s, c in zip(mine["strain"], mine["condition"], strict=True)
        ]
        parts.append(mine.assign(state=names)[["group", "state"]])
    return pd.concat(parts)


def ecoli(raw: Path) -> pd.DataFrame:
    """43 pairs of a strain and a condition: activities of 201 iModulons, less the mean of the
    group's control, averaged over the samples of a state.
    """
    x = pd.read_csv(raw / "precise1k_A.csv", index_col=0).T
    samples = ecoli_samples(raw)
    means = x.loc[samples.index].groupby([samples["group"], samples["state"]], sort=False).mean()
    zero = means.xs("", level="state").loc[means.index.get_level_values("group")].to_numpy()
    group = means.index.get_level_values("group")
    names = means.index.get_level_values("state")
    states = as_states(names, means.to_numpy() - zero, [f"iM_{n}" for n in means], project=group)
    return states.assign(
        Metadata_compound=[n or f"{g}:control" for n, g in zip(names, group, strict=True)]
    )


# --- a slice of the public U2OS table -------------------------------------------------------------


def u2os_small(data: Path) -> pd.DataFrame:
    """The compounds of the five evaluable pairs, and DMSO, from as few plates as hold every
    compound: the fewest that a greedy cover finds.
    """
    table = pd.read_parquet(data / TABLES["u2os"][0])
    moa = table["Metadata_moa"].fillna("")
    known = set(moa)
    pairs = {m for m in known if m.count("|") == 1 and set(m.split("|")) <= known}
    wanted = moa.isin(pairs | {term for m in pairs for term in m.split("|")}).to_numpy()
    compound, plate = table["Metadata_compound"], table["Metadata_Plate"]
    plates, left = [], set(compound[wanted])
    on = {p: set(rows) for p, rows in compound[wanted].groupby(plate[wanted])}
    while left:
        plates.append(max(sorted(on), key=lambda p: len(on[p] & left)))
        left -= on[plates[-1]]
    control = (table["Metadata_broad_sample"] == "DMSO").to_numpy()
    return table[plate.isin(plates).to_numpy() & (wanted | control)].reset_index(drop=True)


if __name__ == "__main__":
    data, raw = map(Path, sys.argv[1:])
    made = {"norman": norman(raw), "korkut": korkut(raw), "ecoli": ecoli(raw)}
    for name, table in (made | {"u2os-small": u2os_small(data)}).items():
        table.to_parquet(PACKAGED / f"{name}.parquet", index=False, compression="zstd")
        print(name, table.shape, flush=True)
