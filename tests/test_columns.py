"""Which columns are features, and what the others mean, in tables of many makes."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from cpvae.errors import CpvaeError
from cpvae.io.columns import KNOWN_METADATA, Named, Wanted, bookkeeping, choose_features, plain
from cpvae.io.read import read_parts
from cpvae.io.tables import parts_from_table
from cpvae.io.write import write_profiles
from cpvae.profiles.pairs import describe_profiles, evaluable_pairs
from cpvae.profiles.read import profiles_from_table, read_profiles
from cpvae.run.preset import RunConfig, prepare

RNG = np.random.default_rng(0)
META = pd.DataFrame(
    {
        "Metadata_Plate": "p1",
        "Metadata_Well": [f"A{i:02d}" for i in range(24)],
        "Metadata_compound": ["DMSO"] * 6 + [f"c{i % 6}" for i in range(18)],
    }
)
FAMILIES = {
    "network": [f"dino.{i}" for i in range(20)],
    "bare numbers": [str(i) for i in range(20)],
    "CellProfiler": [
        f"{c}_{m}"
        for c in ("Cells", "Nuclei")
        for m in (
            "AreaShape_Area",
            "AreaShape_EulerNumber",
            "Intensity_Mean_DNA",
            "Texture_Gabor_ER",
            "Neighbors_NumberOfNeighbors_5",
        )
    ]
    * 1,
    "fourth compartment": [
        f"Nucleoli_{m}"
        for m in ("AreaShape_Area", "Intensity_Std_RNA", "Granularity_2_RNA", "Texture_Var_RNA")
    ]
    + [f"Lysosomes_Granularity_{i}_AGP" for i in range(6)],
    "symbols": "TP53 MYC EGFR CDK1 CDK2 C1orf112 HLA-DRA NKX2-1 MT-CO1 AURKB PLK1 KIF11".split(),
    "mouse symbols": "Trp53 Myc Egfr Cdk1 Cdk2 Actb Gapdh Nanog Sox2 Plk1 Kif11".split(),
    "Ensembl": [f"ENSG{i:011d}" for i in range(141510, 141525)],
    "probes": [f"{i}_at" for i in range(200000, 200015)],
    "prefix": [
        f"pathway:{name}" for name in "wnt notch hedgehog mtor mapk tgfb nfkb jakstat".split()
    ],
}
STRANGE = {  # a column that is no feature, and what it tells
    "Nuclei_Count": "a count of objects",
    "Count_Nuclei": "a count of objects",
    "Cells_Location_CenterMassIntensity_X_DNA": "the position",
    "Cytoplasm_AreaShape_BoundingBoxMinimum_Y": "the position",
    "Image_TableNumber": "the image",
    "Image_MD5Digest_DNA": "files",
    "Cells_Neighbors_SecondClosestObjectNumber_10": "numbers of objects",
    "Nuclei_Children_Cells_Count": "numbers of objects",
    "tSNE_2": "a coordinate of a map",
    "X_umap1": "a coordinate of a map",
    "level_0": "an index of rows",
    "num_cells": "a count of objects",
}


def table(features, **more):
    values = pd.DataFrame(
        np.random.default_rng(len(features)).normal(size=(len(META), len(features))),
        columns=features,
    )
    return pd.concat([META, values, pd.DataFrame(more, index=META.index)], axis=1)


def read_as(kind, frame, folder):
    "Parts of a table that comes as a file of some kind."
    path = folder / f"t.{kind}"
    if kind == "frame":
        return parts_from_table(frame, "t")
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "h5ad":
        meta = [c for c in frame if c in META]
        AnnData(
            frame.drop(columns=meta).astype(np.float32), obs=frame[meta].rename(index=str)
        ).write_h5ad(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return read_parts(path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["frame", "csv", "tsv", "parquet", "h5ad"])
def test_one_number_column_beside_a_family_is_no_feature(family, kind, tmp_path):
    names = FAMILIES[family]
    for strange, tells in list(STRANGE.items())[:: 1 if kind == "frame" else 5]:
        parts = read_as(kind, table(names, **{strange: RNG.normal(size=len(META))}), tmp_path)
        assert parts.features == names and parts.notes == [] and parts.aside[tells] == [strange]
        assert parts.metadata.filter(like=strange).shape[1] == 1
    parts = read_as(kind, table(names, purity_score=RNG.random(len(META))), tmp_path)
    assert (
        parts.features == names
        and "purity_score" in parts.notes[0]
        and "`features=`" in parts.notes[0]
    )


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "h5ad"])
def test_two_families_share_a_table_and_proteins_have_none(kind, tmp_path):
    both = FAMILIES["CellProfiler"] + FAMILIES["network"]
    assert read_as(kind, table(both, gain=1.5), tmp_path).features == both
    proteins = ["p-Akt(S473)", "cPARP", "Bim", "cyclinD1", "pS6", "4EBP1pT37", "caspase3", "viab"]
    parts = read_as(kind, table(proteins, dose=2.0, replicate=1), tmp_path)
    assert parts.features == proteins and parts.notes == [] and {"Bim", "pS"} <= set(parts.stems)


def test_patterns_decide_and_metadata_stays_metadata(tmp_path):
    frame = table(FAMILIES["network"], Cells_Count=RNG.normal(size=len(META)), Metadata_score=1.0)
    frame.to_csv(tmp_path / "t.csv", index=False)
    chosen = read_parts(tmp_path / "t.csv", features=["Cells_*", "dino.1?", "Metadata_*"])
    assert chosen.features == [*(f"dino.{i}" for i in range(10, 20)), "Cells_Count"]
    left = read_parts(tmp_path / "t.csv", not_features=["dino.?"])
    assert (
        left.features == [f"dino.{i}" for i in range(10, 20)]
        and len(left.aside["what `features=` or `not_features=` says"]) == 10
    )
    for wrong in (dict(features=["nothing*"]), dict(not_features=["*"])):
        with pytest.raises(
            CpvaeError, match="^t.csv: no feature is left by `features=` and `not_features=`"
        ):
            read_parts(tmp_path / "t.csv", **wrong)
    assert profiles_from_table(frame, "t", features=["Cells_*"]).n_vars == 1


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "h5ad"])
def test_what_holds_nothing_or_repeats_or_counts_is_set_aside(kind, tmp_path):
    names = FAMILIES["CellProfiler"]
    frame = table(names)
    frame["Cells_Texture_Empty_ER"], frame["Cells_AreaShape_Area.1"] = (
        np.nan,
        frame["Cells_AreaShape_Area"],
    )
    frame["Nuclei_Texture_Row_ER"] = np.arange(len(META)) + 1.0
    parts = read_as(kind, frame, tmp_path)
    assert parts.features == names
    assert parts.aside == {
        "nothing (empty)": ["Cells_Texture_Empty_ER"],
        "the same as another column": ["Cells_AreaShape_Area.1"],
        "an index of rows": ["Nuclei_Texture_Row_ER"],
    }
    other = read_as(
        kind, frame.assign(**{"Cells_AreaShape_Area.1": RNG.normal(size=len(META))}), tmp_path
    )
    # another measurement under a like name
    assert other.features == [*names, "Cells_AreaShape_Area.1"]
    if kind != "h5ad":
        free = read_as(kind, table(FAMILIES["network"], remark=None, lane=np.nan), tmp_path)
        assert free.features == FAMILIES["network"] and sorted(free.aside["nothing (empty)"]) == [
            "lane",
            "remark",
        ]


def test_bookkeeping_goes_by_words_not_by_parts_of_words():
    stay = [
        "Cells_AreaShape_EulerNumber",
        "Cells_AreaShape_CenterOfMass",
        "Cells_Intensity_LocationFree",
        "Countess",
        "Groups",
        "Nuclei_Texture_Count_ER",
        "COUNT",
    ]
    assert [bookkeeping(name) for name in stay] == [""] * len(stay)
    assert {name: bookkeeping(name) for name in STRANGE} == STRANGE


def test_text_among_measurements_is_an_error_and_among_others_metadata(tmp_path):
    frame = table(FAMILIES["CellProfiler"]).astype({"Cells_AreaShape_Area": object})
    frame.loc[3, "Cells_AreaShape_Area"] = "large"
    with pytest.raises(
        CpvaeError, match='Cells_AreaShape_Area, row 4 below the header holds "large"'
    ):
        parts_from_table(frame, "t")
    files = table(
        FAMILIES["CellProfiler"],
        Image_FileName_DNA="a.tif",
        Image_URL_ER="file:/a",
        Image_PathName_AGP="/x",
    )
    for kind in ("frame", "csv", "parquet"):
        parts = read_as(kind, files, tmp_path)
        assert parts.features == FAMILIES["CellProfiler"] and list(
            parts.metadata.Metadata_Image_FileName_DNA.unique()
        ) == ["a.tif"]


@pytest.mark.parametrize("output", ["csv", "parquet", "anndata_h5ad", "anndata_zarr"])
def test_what_pycytominer_writes_is_read_whichever_form_it_has(output, tmp_path):
    pycytominer = pytest.importorskip("pycytominer")
    frame = table(
        FAMILIES["CellProfiler"], Metadata_dose_uM=2.5, Metadata_Count_Cells=np.arange(24) % 7
    )
    plain_read = profiles_from_table(frame, "t")
    place = tmp_path / (
        "t.csv" if output == "csv" else "t.parquet" if output == "parquet" else f"t.{output[8:]}"
    )
    with pd.option_context("mode.copy_on_write", True):
        pycytominer.cyto_utils.output(
            frame, output_filename=str(place), output_type=output, compression_options=None
        )
    read = read_profiles(place)
    assert list(read.var_names) == list(plain_read.var_names)
    np.testing.assert_allclose(read.X, plain_read.X, rtol=1e-6)
    for name in ("compound", "dose", "cell_count", "is_control", "plate"):
        assert list(read.obs[name].fillna(-1)) == list(plain_read.obs[name].fillna(-1)), name


def test_the_authors_preset_takes_positions_back(tmp_path):
    many = pd.concat(
        [table(FAMILIES["CellProfiler"]).assign(Metadata_Plate=f"p{i}") for i in range(4)],
        ignore_index=True,
    )
    many[FAMILIES["CellProfiler"]] = RNG.normal(size=(len(many), len(FAMILIES["CellProfiler"])))
    many["Cells_AreaShape_Center_X"] = RNG.normal(size=len(many))
    many["Image_Group_Index"] = np.arange(len(many)) % 5
    profiles = profiles_from_table(many, "t")
    ours, authors = (
        prepare(profiles, RunConfig(preset=preset)) for preset in ("recommended", "chow2022")
    )
    assert set(authors.var_names) - set(ours.var_names) == {"Cells_AreaShape_Center_X"}
    facts = describe_profiles(profiles)
    assert facts["columns set aside"] == {
        "the position": "1 (Cells_AreaShape_Center_X)",
        "the processing": "1 (Image_Group_Index)",
    }


SPELLINGS = {  # standard column -> ways to call it
    "time": ["Time Point", "timepoint_hours", "PertTime", "Incubation_Time"],
    "cell": ["CellLine", "cell line", "Cell_Type", "cellName"],
    "plate": ["PlateBarcode", "plate name", "BARCODE", "Plate-ID"],
    "well": ["WellID", "well position", "Well_Name"],
    "dose": ["Concentration_uM", "conc (µM)", "CONC.UM", "Dose uM"],
    "moa": ["Mechanism of Action", "MOA", "mechanism"],
}


@pytest.mark.parametrize("prefix", ["", "Metadata_", "metadata_", "Image_Metadata_"])
@pytest.mark.parametrize("standard", SPELLINGS)
def test_a_name_is_known_in_any_spelling(standard, prefix):
    cells = {
        "time": 24.0,
        "cell": "A549",
        "plate": "p7",
        "well": META.Metadata_Well.to_numpy(),
        "dose": 3.0,
        "moa": "x",
    }[standard]
    for spelling in SPELLINGS[standard]:
        frame = table(FAMILIES["network"], **{prefix + spelling: cells}).drop(
            columns=["Metadata_Plate", "Metadata_Well"]
        )
        read = profiles_from_table(frame, "t")
        held = read.obs.loc[~read.obs["is_control"], standard]
        assert read.n_vars == 20 and list(held) == list(np.broadcast_to(cells, len(META))[6:]), (
            spelling
        )


def test_known_names_cover_every_synonym():
    assert all(plain(name) in KNOWN_METADATA for names in SPELLINGS.values() for name in names)
    assert (
        Named(["Metadata_x", "X"])["x"] == "X"
        and "y" not in Named(["x"])
        and Named(["a_b"]).first(["c", "AB"]) == "a_b"
    )


def test_what_looks_like_a_standard_column_and_is_not_read_is_named():
    for column, option in {
        "Metadata_hpi hours": "`time=`",
        "Metadata_drug dose level": "`dose=`",
        "Metadata_my cell line": "`cell=`",
        "Metadata_assay barcode": "`plate=`",
    }.items():
        frame = table(FAMILIES["network"], **{column: 5}).drop(columns="Metadata_Plate")
        notes = profiles_from_table(frame, "t").uns["cpvae"]["notes"]
        assert sum(column in note and option in note for note in notes) == 1
    assert not any(
        "Not read" in note
        for note in profiles_from_table(
            table(FAMILIES["network"], Metadata_time_unit="h", Metadata_Image_ExecutionTime_01=3),
            "t",
        ).uns["cpvae"]["notes"]
    )


def test_batches_that_name_things_differently_become_one(tmp_path):
    first = table(FAMILIES["network"], Metadata_conc_nM=500, Metadata_cell_line="A549")
    second = (
        table(FAMILIES["network"], Metadata_dose_uM=2.0, Metadata_CellType="U2OS")
        .rename(columns={"Metadata_Plate": "Metadata_plate_barcode"})
        .assign(Metadata_plate_barcode="p9")
    )
    for name, frame in (("a", first), ("b", second)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    read = read_profiles(tmp_path)
    treated = ~read.obs["is_control"]
    assert read.obs.groupby("plate").size().to_dict() == {"p1": 24, "p9": 24} and set(
        read.obs["cell"]
    ) == {"A549", "U2OS"}
    assert read.obs[treated].groupby("plate")["dose"].unique().map(list).to_dict() == {
        "p1": [0.5],
        "p9": [2.0],
    }
    assert sum("read as one column" in note for note in read.uns["cpvae"]["notes"]) == 3
    # filled in the same rows: two things
    both = profiles_from_table(first.assign(Metadata_plate_barcode="other"), "t")
    assert set(both.obs["plate"]) == {"p1"}


@pytest.mark.parametrize("unit, factor", [("log10M", 1e6), ("log10 uM", 1.0)])
def test_logarithms_of_doses_are_recognised_and_asked_for(unit, factor):
    logs = np.linspace(-9, -4, 24) if factor > 1 else np.linspace(-3, 2, 24)
    frame = table(FAMILIES["network"], Metadata_dose=logs)
    with pytest.raises(
        CpvaeError,
        match="as logarithms of doses do; say `dose_unit='log10M'` or `dose_unit='log10uM'`",
    ):
        profiles_from_table(frame, "t")
    read = profiles_from_table(frame, "t", dose_unit=unit.replace(" ", ""))
    np.testing.assert_allclose(read.obs["dose"][6:].astype(float), 10 ** logs[6:] * factor)
    with pytest.raises(CpvaeError, match="not negative"):
        profiles_from_table(
            table(FAMILIES["network"], Metadata_dose=[*np.linspace(1, 5, 23), -1.0]), "t"
        )


@pytest.mark.parametrize(
    "column, option",
    [*product(["Metadata_cell_line", "Metadata_Batch", "Metadata_time_h"], [4, 0.05])],
)
def test_pooled_controls_that_lie_apart_are_told(column, option):
    levels = np.array(["1", "2"])[np.arange(24) % 2]
    frame = table(FAMILIES["network"], **{column: levels})
    frame.loc[levels == "2", FAMILIES["network"]] += 10 * option
    notes = [
        note
        for note in profiles_from_table(frame, "t").uns["cpvae"]["notes"]
        if "what follows pools them" in note
    ]
    assert len(notes) == (option > 1) and all("`normalize=" in note for note in notes)


def test_genes_that_are_not_relative_to_controls_are_told():
    frame = table(FAMILIES["symbols"])
    assert not any(
        "`normalize=" in note for note in profiles_from_table(frame, "t").uns["cpvae"]["notes"]
    )
    frame[FAMILIES["symbols"]] += 8
    assert (
        sum(
            "relative to controls" in note
            for note in profiles_from_table(frame, "t").uns["cpvae"]["notes"]
        )
        == 1
    )


def test_columns_set_aside_survive_writing_and_reading(tmp_path):
    frame = table(
        FAMILIES["CellProfiler"],
        Cells_Location_Center_X=RNG.normal(size=24),
        Metadata_moa=["", "a", "b", "a|b"] * 6,
    )
    frame.loc[6:, "Metadata_moa"] = frame.Metadata_compound[6:].map(
        {f"c{i}": ["a", "b", "a|b"][i % 3] for i in range(6)}
    )
    profiles = profiles_from_table(frame, "t")
    write_profiles(profiles, tmp_path / "t.h5ad")
    again = read_profiles(tmp_path / "t.h5ad")
    assert describe_profiles(again) == describe_profiles(profiles) and evaluable_pairs(again) == [
        ("a", "b")
    ]


def test_a_choice_of_nothing_names_what_there_is():
    with pytest.raises(
        CpvaeError,
        match="no feature columns; .*`features=PATTERN` .its number columns are UMAP_1, UMAP_2",
    ):
        choose_features(["UMAP_1", "UMAP_2"])
    with pytest.raises(CpvaeError, match="it has no number column"):
        choose_features([])
    assert choose_features(["UMAP_1"], wanted=Wanted(("UMAP*",))).features == ["UMAP_1"]


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
@pytest.mark.parametrize("cell", ["<LOD", "12.3%", "1,234.5"])
def test_text_among_the_features_is_told_even_where_it_is_the_most(kind, cell, tmp_path):
    frame = table(FAMILIES["network"], comment="fine").astype({"dino.3": object})
    frame["dino.3"] = frame["dino.3"].map(str).where(frame.index < 4, cell)
    parts = read_as(kind, frame, tmp_path)
    assert (
        parts.aside["text"] == ["dino.3"]
        and "dino.3" in parts.notes[0]
        and "comment" not in str(parts.notes)
    )
    frame["dino.3"] = frame["dino.3"].where(frame.index < 11, "1.5")
    with pytest.raises(CpvaeError, match="dino.3, row 5 below the header holds"):
        read_as(kind, frame, tmp_path)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "h5ad"])
def test_raw_counts_are_told(kind, tmp_path):
    counts = table(FAMILIES["symbols"])
    counts[FAMILIES["symbols"]] = np.random.default_rng(0).negative_binomial(
        2, 0.02, size=(len(META), len(FAMILIES["symbols"]))
    )
    assert sum("raw counts" in note for note in read_as(kind, counts, tmp_path).notes) == 1
    counts[FAMILIES["symbols"]] += 0.5
    assert not any("raw counts" in note for note in read_as(kind, counts, tmp_path).notes)


def test_components_and_scores_are_no_genes():
    frame = table(FAMILIES["symbols"], RIN=8.1, AUC=0.5, PC1=1.5, PC2=2.5, GR50=1.0)
    assert parts_from_table(frame).features == FAMILIES["symbols"]


@pytest.mark.parametrize("spelling", ["Metadata_plate", "Metadata_PLATE", "Metadata_Plate_Barcode"])
def test_two_spellings_that_fill_each_other_are_one_column(spelling):
    frame = table(FAMILIES["network"])
    frame[spelling] = np.where(np.arange(24) % 2, "p2", None)
    frame["Metadata_Plate"] = np.where(np.arange(24) % 2, None, "p1")
    read = profiles_from_table(frame, "t")
    assert read.obs["plate"].tolist() == ["p1", "p2"] * 12


def test_a_time_in_minutes_is_one():
    read = profiles_from_table(
        table(FAMILIES["network"], Metadata_time_min=90), "t", time="time_min"
    )
    assert set(read.obs["time"]) == {1.5}


def test_number_columns_known_as_metadata_are_listed_too():
    parts = parts_from_table(table(FAMILIES["network"], AUC=0.5, rep=1, Metadata_rep2=1))
    assert parts.aside == {"what describes the profile": ["AUC", "rep"]} and parts.notes == []
    assert parts_from_table(
        table(["AUC", "IC50", "slope"]), wanted=Wanted(("AUC", "IC50"))
    ).features == ["AUC", "IC50"]


def test_names_that_only_marks_or_foreign_letters_tell_apart_are_two():
    frame = table(
        FAMILIES["network"],
        **{"Metadata_CD4+": "a", "Metadata_CD4-": "b", "Metadata_濃度": "c", "Metadata_温度": "d"},
    )
    read = profiles_from_table(frame, "t")
    assert {"Metadata_CD4+", "Metadata_CD4-", "Metadata_濃度", "Metadata_温度"} <= set(
        read.obs
    ) and read.uns["cpvae"]["notes"] == profiles_from_table(table(FAMILIES["network"]), "t").uns[
        "cpvae"
    ]["notes"]


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_name_that_ends_early_is_read(kind, tmp_path):
    names = [*FAMILIES["CellProfiler"], "Cells_AreaShape", "Cells_Neighbors"]
    assert read_as(kind, table(names), tmp_path).features == names
