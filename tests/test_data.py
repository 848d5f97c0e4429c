"""Tables that must be refused, and what columns, units, controls and mechanisms of every project
must come to mean.
"""

import gzip
import io
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cpvae.io.write import write_profiles
from cpvae.errors import CpvaeError
from cpvae.profiles.dose import dose_levels, dose_unit_named, doses_in_micromolar
from cpvae.profiles.features import finite_part, parse_feature
from cpvae.profiles.mechanisms import join_mechanisms, mend_moa
from cpvae.profiles.pairs import describe_profiles, evaluable_pairs, mechanism_groups, row_digests
from cpvae.profiles.pairs import similar_mechanisms
from cpvae.profiles.read import profiles_from_table, read_profiles

DATA = Path(os.environ.get("CPVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def make_table(n_compounds=12, n_plates=3, n_controls=4, n_features=5, seed=0):
    "A CellProfiler-like table: every compound once on every plate beside its control wells."
    rng = np.random.default_rng(seed)
    moas = ["A", "B", "A|B", None]
    rows = [
        dict(
            Metadata_Plate=f"p{p}",
            Metadata_Well=f"W{i:02}",
            Metadata_compound=c,
            Metadata_conc_uM=d,
            Metadata_moa=m,
        )
        for p in range(n_plates)
        for i, (c, d, m) in enumerate(
            [("DMSO", np.nan, "DMSO")] * n_controls
            + [(f"c{k}", 1.0 + k % 3, moas[k % 4]) for k in range(n_compounds)]
        )
    ]
    values = rng.normal(size=(len(rows), n_features)).astype(np.float32)
    return pd.concat(
        [
            pd.DataFrame(rows),
            pd.DataFrame(values, columns=[f"Cells_Intensity_F{j}_DNA" for j in range(n_features)]),
        ],
        axis=1,
    )


TABLE = make_table()
CSV = TABLE.to_csv(index=False)
F0 = "Cells_Intensity_F0_DNA"


def parquet(table):
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


def with_cell(value, row=4, column=F0):
    table = TABLE.astype({column: object})
    table.loc[row, column] = value
    return table.to_csv(index=False)


def zipped(text):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("t.csv", text)
    return out.getvalue()


GENES = TABLE.rename(columns=lambda c: c.replace("Cells_Intensity_F", "G").replace("_DNA", ""))
BAD = {  # name: (file name, content, options, what the message must say)
    "empty file": ("t.csv", "", {}, "empty"),
    "empty gzip": ("t.csv.gz", gzip.compress(b""), {}, "empty"),
    "header only": ("t.csv", CSV.splitlines()[0] + "\n", {}, "no rows"),
    "unknown suffix": ("t.xlsx", CSV, {}, "unknown format"),
    "no suffix": ("t", CSV, {}, "unknown format"),
    "truncated gzip": ("t.csv.gz", gzip.compress(CSV.encode())[:-40], {}, "damaged"),
    "text renamed gzip": ("t.csv.gz", CSV, {}, "damaged"),
    "zip renamed gzip": ("t.csv.gz", zipped(CSV), {}, "damaged"),
    "truncated parquet": ("t.parquet", parquet(TABLE)[:-40], {}, "damaged"),
    "text renamed parquet": ("t.parquet", CSV, {}, "damaged"),
    "empty parquet file": ("t.parquet", "", {}, "damaged"),
    "utf-16": ("t.csv", CSV.encode("utf-16"), {}, "UTF-8"),
    "latin-1": ("t.csv", CSV.replace("c3", "caf\u00e9").encode("latin-1"), {}, "UTF-8"),
    "parquet renamed csv": ("t.csv", parquet(TABLE), {}, "t.csv"),
    "semicolons": ("t.csv", CSV.replace(",", ";"), {}, "commas"),
    "tabs in a csv": ("t.csv", CSV.replace(",", "\t"), {}, "commas"),
    "longer row": ("t.csv", CSV + "a,b,c,d,e,1,2,3,4,5,6,7\n", {}, "different lengths"),
    "all rows longer": (
        "t.csv",
        CSV.splitlines()[0] + "\n" + CSV.split("\n", 1)[1].replace("\n", ",1\n").rstrip(),
        {},
        "more cells",
    ),
    "unclosed quote": ("t.csv", CSV + '"p9,W1,c1,1,A,1,2,3,4,5\n', {}, "different lengths"),
    "no header": ("t.csv", "c1,p1,.5,1.5\nc2,p1,1.0,2.5\n", {}, "header row"),
    "two header rows": ("t.csv", CSV.splitlines()[0] + "\n" + CSV, {}, f"column {F0}, row 1"),
    "metadata only": (
        "t.csv",
        TABLE.filter(like="Metadata_").to_csv(index=False),
        {},
        "no feature columns",
    ),
    "repeated feature": ("t.csv", CSV.replace("F1_DNA", "F0_DNA", 1), {}, f"{F0} appears twice"),
    "repeated metadata": (
        "t.csv",
        CSV.replace("Metadata_Well", "Metadata_Plate", 1),
        {},
        "Metadata_Plate appears twice",
    ),
    "prefix clash": ("t.csv", TABLE.assign(Plate="x").to_csv(index=False), {}, "Metadata_Plate"),
    "nameless column": ("t.csv", TABLE.assign(**{"": 1}).to_csv(index=False), {}, "has no name"),
    "text cell": (
        "t.csv",
        with_cell("high"),
        {},
        f'column {F0}, row 5 below the header holds "high"',
    ),
    "commas in a tsv": ("t.tsv", CSV, {}, "separated by commas"),
    "decimal comma": (
        "t.tsv",
        TABLE.astype({F0: object}).assign(**{F0: "1,5"}).to_csv(index=False, sep="\t"),
        {},
        'row 1 below the header holds "1,5"',
    ),
    "text gene": (
        "t.csv",
        GENES.astype({"G0": object}).assign(G0=["x"] + [1] * (len(GENES) - 1)).to_csv(index=False),
        {},
        "column G0, row 1",
    ),
    "dates": (
        "t.parquet",
        parquet(TABLE.assign(**{F0: pd.Timestamp("2020-01-01")})),
        {},
        f"column {F0}, row 1",
    ),
    "nan": ("t.csv", with_cell(None), {}, f"column {F0}, row 5"),
    "inf": ("t.csv", with_cell("inf"), {}, "`drop_na=True`"),
    "overflow": ("t.csv", with_cell("1e300"), {}, "infinite"),
    "nan in every row": (
        "t.csv",
        TABLE.mask(
            TABLE.columns.get_indexer(TABLE.columns)[None]
            == (5 + np.arange(len(TABLE)) % 5)[:, None]
        ).to_csv(index=False),
        {"drop_na": True},
        "every row",
    ),
    "nan in every column": (
        "t.csv",
        TABLE.mask(
            (np.arange(len(TABLE)) % 9)[:, None]
            == TABLE.columns.str.startswith("Cells").cumsum() % 2
            + 2 * ~TABLE.columns.str.startswith("Cells") * 5
        ).to_csv(index=False),
        {"drop_na": True},
        "more than 5%",
    ),
    "all constant": (
        "t.csv",
        TABLE.assign(**{c: 1 for c in TABLE if c.startswith("Cells")}).to_csv(index=False),
        {},
        "no feature differs",
    ),
    "one compound": (
        "t.csv",
        TABLE[TABLE.Metadata_compound.isin(["DMSO", "c1"])].to_csv(index=False),
        {},
        "1 compound ",
    ),
    "controls only": (
        "t.csv",
        TABLE[TABLE.Metadata_compound == "DMSO"].to_csv(index=False),
        {},
        "0 compounds",
    ),
    "no controls": (
        "t.csv",
        TABLE[TABLE.Metadata_compound != "DMSO"].to_csv(index=False),
        {},
        "`zero_control=True`",
    ),
    "no compound column": (
        "t.csv",
        TABLE.drop(columns="Metadata_compound").to_csv(index=False),
        {},
        "`compound=`",
    ),
    "absent override": ("t.csv", CSV, {"plate": "Metadata_Barcode"}, "no column Metadata_Barcode"),
    "absent control": ("t.csv", CSV, {"control": "water"}, 'no row says "water"'),
    "text dose": (
        "t.csv",
        with_cell("high", column="Metadata_conc_uM"),
        {},
        'row 5 below the header holds "high"',
    ),
    "negative dose": (
        "t.csv",
        with_cell(-1.5, column="Metadata_conc_uM"),
        {},
        'row 5 below the header holds "-1.5"',
    ),
    "infinite dose": (
        "t.csv",
        with_cell("inf", column="Metadata_conc_uM"),
        {},
        'row 5 below the header holds "inf"',
    ),
    "dose in an unknown unit": (
        "t.csv",
        with_cell("3 stones", column="Metadata_conc_uM"),
        {},
        'row 5 below the header holds "3 stones"',
    ),
    "decimal comma in a dose": (
        "t.csv",
        with_cell("0,5", column="Metadata_conc_uM"),
        {},
        'row 5 below the header holds "0,5"',
    ),
    "text time": (
        "t.csv",
        TABLE.assign(Metadata_time_h="late").to_csv(index=False),
        {},
        'Metadata_time_h, row 1 below the header holds "late"',
    ),
    "long cell": ("t.csv", with_cell("x" * 10_000), {}, f"column {F0}, row 5"),
}


def test_an_unknown_unit_asked_for_is_refused_whatever_the_table(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    with pytest.raises(
        CpvaeError,
        match=(
            "^unknown dose unit 'pM'; did you mean 'M'[?] there are uM, M, mM, nM, log10M, log10uM$"
        ),
    ):
        read_profiles(tmp_path / "t.csv", dose_unit="pM")
    assert [dose_unit_named(text) for text in ("µM", "um", "MM", "nM")] == ["uM", "uM", "mM", "nM"]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name, tmp_path):
    file, content, options, says = BAD[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CpvaeError) as refusal:
        read_profiles(path, **options)
    message = str(refusal.value)
    assert says in message and file in message
    assert len(message.splitlines()) == 1 and len(message) < 300


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CpvaeError, match="no such file"):
        read_profiles(tmp_path / "nowhere.csv")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(CpvaeError, match="is a folder"):
        read_profiles(tmp_path / "folder.parquet")


def test_a_refusal_needs_no_slow_import(tmp_path):
    (tmp_path / "t.csv").write_text(with_cell(None))
    code = textwrap.dedent("""
        import sys, cpvae.profiles.read, cpvae.errors
        try: cpvae.profiles.read.read_profiles(sys.argv[1])
        except cpvae.errors.CpvaeError: pass
        heavy = {"torch", "anndata", "sklearn", "scipy", "umap", "nbdev", "fastcore"}
        print(*heavy & set(sys.modules))
    """)
    command = [sys.executable, "-c", code, str(tmp_path / "t.csv")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


@pytest.fixture
def profiles(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    return read_profiles(tmp_path / "t.csv")


@pytest.mark.parametrize("file", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "t.txt", "t.parquet"])
def test_formats_agree(file, tmp_path, profiles):
    if file.endswith("parquet"):
        TABLE.to_parquet(tmp_path / file)
    else:
        TABLE.to_csv(tmp_path / file, index=False, sep="," if "csv" in file else "\t")
    read = read_profiles(tmp_path / file)
    np.testing.assert_allclose(read.X, profiles.X, rtol=1e-6)
    columns = ["compound", "dose", "time", "cell", "plate", "well", "moa", "is_control"]
    pd.testing.assert_frame_equal(read.obs[columns], profiles.obs[columns])
    assert read.uns["cpvae"]["columns"] == profiles.uns["cpvae"]["columns"]


def test_saved_index_byte_order_mark_and_bare_names(tmp_path, profiles):
    bare = TABLE.rename(columns=lambda c: c.removeprefix("Metadata_"))
    bare.to_csv(tmp_path / "t.csv", encoding="utf-8-sig")
    read = read_profiles(tmp_path / "t.csv")
    assert read.var_names.equals(profiles.var_names) and list(read.obs["compound"]) == list(
        profiles.obs["compound"]
    )
    assert read.uns["cpvae"]["notes"] == [] and read.uns["cpvae"]["set_aside"] == {
        "an index of rows": ["(no name)"]
    }


def test_identifiers_keep_their_zeros(tmp_path):
    table = TABLE.assign(
        Metadata_Plate=TABLE.Metadata_Plate.str.replace("p", "00"),
        Metadata_compound=TABLE.Metadata_compound,
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    assert set(read_profiles(tmp_path / "t.csv").obs["plate"]) == {"000", "001", "002"}
    TABLE.assign(Metadata_Plate=[7.0, np.nan] * (len(TABLE) // 2)).to_parquet(
        tmp_path / "t.parquet"
    )
    assert set(read_profiles(tmp_path / "t.parquet").obs["plate"]) == {"7", ""}


DMSO = TABLE.Metadata_compound == "DMSO"
# plate, well and features
BARE = TABLE.drop(columns=["Metadata_compound", "Metadata_conc_uM", "Metadata_moa"])
BRD = ("BRD-K" + TABLE.Metadata_compound.str[1:].str.zfill(8).where(~DMSO)).where(~DMSO, "DMSO")
# every compound in several batches
BATCH = (BRD + "-001-0" + (1 + TABLE.index % 3).astype(str) + "-1").where(~DMSO, "DMSO")
C0, C1 = TABLE.Metadata_compound == "c0", TABLE.Metadata_compound == "c1"
# name: (columns beside plate, well and features; number of compounds; of nameless treated rows;
# rule for controls; a word of the notes)
LABS = {
    "LINCS consensus": (
        dict(
            Plate_Map_Name="C-7161",
            broad_sample=BATCH,
            pert_well="A01",
            mmoles_per_liter=TABLE.Metadata_conc_uM.fillna(-666),
            dose_recode=1,
        ),
        12,
        0,
        "broad_sample = DMSO",
        "read as µM as it stands",
    ),
    "LINCS level 4": (
        dict(
            broad_sample=BATCH,
            pert_id=BRD.where(~DMSO),
            mg_per_ml=7.5,
            mmoles_per_liter=TABLE.Metadata_conc_uM.fillna(0),
            solvent="DMSO",
            time_point="48H",
            cell_id="A549",
            broad_sample_type=np.where(DMSO | C0, "control", "trt"),
            pert_vehicle="DMSO",
            pert_type=np.where(DMSO | C0, "control", "trt"),
            cell_count=900,
        ),
        12,
        0,
        "broad_sample = DMSO",
        "13 characters",
    ),
    "JUMP": (
        dict(
            Source="source_4",
            JCP2022=TABLE.Metadata_compound.str.replace("c", "JCP2022_00000")
            .mask(DMSO, "JCP2022_033924")
            .mask(C1, "JCP2022_999999"),
            pert_type=np.select([DMSO, C0, C1], ["negcon", "poscon", "empty"], "trt"),
            dose_uM=TABLE.Metadata_conc_uM,
        ),
        11,
        3,
        "pert_type = negcon",
        "Neither control nor compound",
    ),
    "JUMP without types": (
        dict(
            JCP2022=TABLE.Metadata_compound.str.replace("c", "JCP2022_00000")
            .mask(DMSO, "JCP2022_033924")
            .mask(C1, "JCP2022_999999"),
            conc_uM=TABLE.Metadata_conc_uM,
        ),
        11,
        3,
        "JCP2022 = JCP2022_033924",
        "JCP2022_999999",
    ),
    "CPJUMP1": (
        dict(
            broad_sample=BATCH.mask(DMSO),
            pert_iname=TABLE.Metadata_compound,
            control_type=np.select([DMSO, C0], ["negcon", "poscon_diverse"], ""),
            dose_uM=TABLE.Metadata_conc_uM,
        ),
        12,
        0,
        "pert_iname = DMSO",
        "",
    ),
    "CLUE": (
        dict(
            sig_id="s" + TABLE.index.astype(str),
            pert_id=BRD.mask(C1, "CMAP-000"),
            cmap_name=TABLE.Metadata_compound.mask(C1, "UnTrt"),
            cell_iname="MCF7",
            pert_type=np.select([DMSO, C1], ["ctl_vehicle", "ctl_untrt"], "trt_cp"),
            pert_dose=TABLE.Metadata_conc_uM.fillna(-666) * 1000,
            pert_dose_unit=np.where(DMSO, "-666", "nM"),
            pert_idose="1 uM",
            pert_time=24,
            pert_time_unit="h",
            pert_itime="24 h",
        ),
        11,
        3,
        "cmap_name = DMSO",
        "in nM, divided by 1,000",
    ),
    "CLUE by id": (
        dict(
            pert_id=BATCH,
            cell_id="MCF7",
            pert_type=np.where(DMSO, "ctl_vehicle", "trt_cp"),
            pert_idose=(TABLE.Metadata_conc_uM.astype(str) + " um").where(~DMSO, "-666"),
            pert_itime="24 h",
        ),
        12,
        0,
        "pert_type = ctl_vehicle",
        "13 characters",
    ),
    "CellProfiler": (
        dict(
            Treatment=0,
            compound=TABLE.Metadata_compound,
            dose_nM=TABLE.Metadata_conc_uM * 1000,
            cell_line="U2OS",
        ),
        12,
        0,
        "compound = DMSO",
        "divided by 1,000",
    ),
}


@pytest.mark.parametrize("prefix", ["Metadata_", ""])
@pytest.mark.parametrize("lab", LABS)
def test_conventions(lab, prefix, tmp_path, profiles):
    columns, n_compounds, n_nameless, rule, words = LABS[lab]
    table = pd.concat(
        [
            pd.DataFrame(columns, TABLE.index).add_prefix(prefix),
            BARE.rename(columns=lambda c: c.replace("Metadata_", prefix)),
        ],
        axis=1,
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_profiles(tmp_path / "t.csv")
    obs, about = read.obs, read.uns["cpvae"]
    control, nameless = obs["is_control"].to_numpy(), (obs["compound"] == "").to_numpy()
    assert control.sum() == 12 and (nameless & ~control).sum() == n_nameless
    assert (
        obs["compound"][~control & ~nameless].nunique()
        == n_compounds
        == describe_profiles(read)["compounds"]
    )
    assert about["columns"]["is_control"].split("_", 1)[1].startswith(rule)
    assert words in " ".join(about["notes"])
    np.testing.assert_allclose(obs["dose"][~nameless], profiles.obs["dose"][~nameless])
    assert set(obs["plate"]) == {"p0", "p1", "p2"} and obs["well"].nunique() == 16
    cell = next(
        (str(v) for k, v in columns.items() if k.startswith("cell_") and k != "cell_count"), ""
    )
    time = {"LINCS level 4": 48, "CLUE": 24, "CLUE by id": 24}.get(lab)
    assert set(obs["cell"]) == {cell} and describe_profiles(read)["cell lines"] == [cell] * bool(
        cell
    )
    assert set(obs["time"].dropna()) == ({time} if time else set())


def test_an_untreated_well_is_a_control_only_on_demand(tmp_path):
    table = BARE.assign(
        Metadata_cmap_name=TABLE.Metadata_compound.mask(DMSO, "UnTrt"),
        Metadata_pert_type=np.where(DMSO, "ctl_untrt", "trt_cp"),
    )
    with pytest.raises(CpvaeError, match="no control wells found"):
        profiles_from_table(table, "t")
    read = profiles_from_table(table, "t", control="ctl_untrt")
    assert read.obs["is_control"].sum() == 12 and "Neither" not in " ".join(
        read.uns["cpvae"]["notes"]
    )


def test_batches_and_salts_are_one_compound():
    read = profiles_from_table(BARE.assign(Metadata_pert_id=BATCH), "t")
    assert set(read.obs["compound"]) == set(BRD)


UNITS = {  # name: (column, cells, unit column, option, what they mean in µM)
    "by name, uM": ("conc_uM", [1, 0.5], None, None, [1, 0.5]),
    "by name, nM": ("conc_nM", [1000, 500], None, None, [1, 0.5]),
    "by name, mM": ("dose_mM", [0.001, 0.0005], None, None, [1, 0.5]),
    "by name, M": ("Dose (M)", [1e-6, 5e-7], None, None, [1, 0.5]),
    "by name, µM": ("conc [µM]", [1, 0.5], None, None, [1, 0.5]),
    "by the end of the name": ("my_dose_m_nM", [1000, 500], None, None, [1, 0.5]),
    "not by name": ("time_from_m", ["1", "0.5"], None, "uM", [1, 0.5]),
    "by cell": ("conc_uM", ["1000 nM", "0.5"], None, None, [1, 0.5]),
    "by cell, mu": ("pert_idose", ["1 \u03bcM", "0.5\u00b5M"], None, None, [1, 0.5]),
    "by cell, mojibake": ("pert_idose", ["1 \u00c2\u00b5M", "5e-1 um"], None, None, [1, 0.5]),
    "cell before option": ("dose", ["1 uM", "500"], None, "nM", [1, 0.5]),
    "beside": ("pert_dose", [1, 500], ["uM", "nM"], None, [1, 0.5]),
    "beside, in part": ("conc_nM", [1, 500], ["uM", None], None, [1, 0.5]),
    "option before beside": ("pert_dose", [1000, 500], ["uM", "uM"], "nM", [1, 0.5]),
    "option before name": ("conc_uM", [1e-6, 5e-7], None, "M", [1, 0.5]),
    "micro in the option": ("dose", [1, 0.5], None, "\u00b5M", [1, 0.5]),
    "stock": ("mmoles_per_liter", [1, 0.5], None, None, [1, 0.5]),
    "stock, as written": ("mmoles_per_liter", [0.001, 0.0005], None, "mM", [1, 0.5]),
    "missing": ("pert_dose", [-666, 0.5], ["-666", "uM"], None, [np.nan, 0.5]),
    "mass": ("pert_dose", [1, 0.5], ["ng/mL", "uM"], None, [np.nan, 0.5]),
    "zero": ("conc_nM", [0, 500], None, None, [0, 0.5]),
}


@pytest.mark.parametrize("name", UNITS)
def test_units_of_doses(name):
    column, cells, unit, option, means = UNITS[name]
    sheet = pd.DataFrame(
        {f"Metadata_{column}": cells} | ({f"Metadata_{column}_unit": unit} if unit else {})
    )
    dose, notes = doses_in_micromolar(
        sheet, f"Metadata_{column}", np.ones(2, bool), dose_unit=option
    )
    np.testing.assert_allclose(dose, means)
    converted = [
        factor
        for factor in ("divided by 1,000", "multiplied by 1,000,000", "multiplied by 1,000")
        if factor in " ".join(notes)
    ]
    written = [str(c).split()[0] for c in cells]
    assert bool(converted) == (
        not np.allclose(
            pd.to_numeric(pd.Series(written).str.extract(r"([-\d.e]+)")[0]), means, equal_nan=True
        )
        and name not in ("missing", "mass")
    )
    assert ("taken as µM" in " ".join(notes)) == (column == "dose" and option is None)


@pytest.mark.parametrize(
    "column, cells",
    [
        ("time_h", ["24", "1.5"]),
        ("pert_itime", ["24 h", "90 min"]),
        ("time_point", ["1 day", "1.5HRS"]),
        ("time", [24, 1.5]),
    ],
)
def test_units_of_times(column, cells):
    times = profiles_from_table(
        TABLE.assign(**{f"Metadata_{column}": np.where(DMSO, *cells)}), "t"
    ).obs["time"]
    np.testing.assert_allclose(times, np.where(DMSO, 24, 1.5))


@pytest.mark.parametrize(
    "column, cells, standard", [("time", "12:30", "time"), ("dose", "high", "dose")]
)
def test_words_under_a_name_without_unit_are_no_amounts(column, cells, standard):
    table = TABLE.drop(columns="Metadata_conc_uM").assign(**{f"Metadata_{column}": cells})
    read = profiles_from_table(table, "t")
    assert read.uns["cpvae"]["columns"][standard] == "" and read.obs[standard].isna().all()
    with pytest.raises(
        CpvaeError,
        match=(
            f'row 5 below the header holds "{cells}"'
            if standard == "dose"
            else f'row 1 below the header holds "{cells}"'
        ),
    ):
        profiles_from_table(table, "t", **{standard: column})


def test_rows_without_any_number_say_nothing_of_the_features():
    empty = TABLE.mask(
        (np.arange(len(TABLE)) % 9 == 0)[:, None] & TABLE.columns.str.startswith("Cells")
    )
    read = profiles_from_table(empty, "t", drop_na=True)
    assert (
        read.n_vars == profiles_from_table(TABLE, "t").n_vars
        and read.n_obs == (np.arange(len(TABLE)) % 9 != 0).sum()
    )


def notes_of(table, **options):
    notes = profiles_from_table(table, "t", **options).uns["cpvae"]["notes"]
    assert all(len(note) < 300 for note in notes)
    return " ".join(notes)


def mirrored(column, values, first):
    "The table with a second spelling of a column, before or behind the first."
    return pd.concat(
        (
            [pd.DataFrame({column: values}, TABLE.index), TABLE]
            if first
            else [TABLE, pd.DataFrame({column: values}, TABLE.index)]
        ),
        axis=1,
    )


@pytest.mark.parametrize("first", [True, False])
def test_of_two_spellings_the_known_one_is_read_and_the_other_named(first):
    table = mirrored("Metadata_plate", "q", first)
    read = profiles_from_table(table, "t")
    assert (
        describe_profiles(read)["plates"] == 3
        and read.uns["cpvae"]["columns"]["plate"] == "Metadata_Plate"
        and "Metadata_plate" not in read.obs
    )
    says = (
        "Metadata_Plate is read; Metadata_plate, the same name but for its spelling, holds other"
        " values and is left out (`plate=` chooses)"
    )
    assert says in notes_of(table)
    for name in ("plate", "Metadata_plate"):
        other = profiles_from_table(table, "t", plate=name)
        assert (
            set(other.obs["plate"]) == {"q"}
            and other.uns["cpvae"]["columns"]["plate"] == "Metadata_plate"
            and "Metadata_Plate" not in other.obs
        )
    assert "Metadata_plate is read; Metadata_Plate, the same" in notes_of(table, plate="plate")
    assert set(profiles_from_table(table, "t", plate="PLATE").obs["plate"]) == {"p0", "p1", "p2"}


@pytest.mark.parametrize("first", [True, False])
def test_two_spellings_that_agree_are_no_matter(first):
    table = mirrored("Metadata_plate", TABLE.Metadata_Plate, first)
    assert describe_profiles(profiles_from_table(table, "t"))[
        "plates"
    ] == 3 and "but for case" not in notes_of(table)
    assert (
        profiles_from_table(table, "t", plate="plate").uns["cpvae"]["columns"]["plate"]
        == "Metadata_plate"
    )


def test_of_two_spellings_we_do_not_know_the_first_is_read():
    table = TABLE.drop(columns="Metadata_Plate").assign(
        Metadata_pLATE="q", Metadata_PLATE=TABLE.Metadata_Plate
    )
    assert set(profiles_from_table(table, "t").obs["plate"]) == {"q"}


@pytest.mark.parametrize("first", [True, False])
def test_the_spelling_chosen_tells_the_controls_too(first):
    table = mirrored(
        "Metadata_Compound",
        np.where(C0, "DMSO", TABLE.Metadata_compound.replace("DMSO", "water")),
        first,
    )
    assert profiles_from_table(table, "t").obs["is_control"].sum() == 12
    read = profiles_from_table(table, "t", compound="Metadata_Compound")
    assert read.obs["is_control"].sum() == 3 and set(read.obs["compound"]) == {
        "DMSO",
        "water",
        *(f"c{i}" for i in range(1, 12)),
    }


def test_a_name_without_an_option_is_to_be_renamed():
    assert "Metadata_Well is read; Metadata_well," in notes_of(
        mirrored("Metadata_well", "x", False)
    ) and "(rename the one to keep)" in notes_of(mirrored("Metadata_well", "x", True))


@pytest.mark.parametrize("cell, hours", [("2 days", 48), ("1d", 24), ("90 min", 1.5), ("36", 36)])
def test_a_bare_time_in_words_that_are_a_time_is_read(cell, hours):
    read = profiles_from_table(TABLE.assign(Metadata_time=np.where(C0, "6 h", cell)), "t")
    assert read.uns["cpvae"]["columns"]["time"] == "Metadata_time" and "Not read" not in " ".join(
        read.uns["cpvae"]["notes"]
    )
    np.testing.assert_allclose(read.obs["time"], np.where(C0, 6, hours))


def test_a_bare_dose_with_its_unit_is_read():
    read = profiles_from_table(
        TABLE.drop(columns="Metadata_conc_uM").assign(Metadata_dose=np.where(C0, "2 uM", "500 nM")),
        "t",
    )
    np.testing.assert_allclose(read.obs["dose"][~DMSO.to_numpy()], np.where(C0, 2, 0.5)[~DMSO])


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("name, cell", [("time", "12:30"), ("time", "5 ml"), ("dose", "high")])
def test_words_that_are_no_amount_are_noted(name, cell, beside):
    table = TABLE.drop(columns="Metadata_conc_uM").assign(
        **{f"Metadata_{name}": np.where(C0, cell, "1")}
    )
    table = (
        table.assign(**{f"Metadata_{ {'time': 'time_h', 'dose': 'dose_uM'}[name] }": 7.0})
        if beside
        else table
    )
    assert f'Not read as a {name}: Metadata_{name}, which holds "{cell}"' in notes_of(table)
    read = profiles_from_table(table, "t")
    assert set(read.obs[name].dropna()) == ({7.0} if beside else set())
    assert "Not read" not in notes_of(TABLE)


@pytest.mark.parametrize(
    "moas, noted",
    [
        (["a", "b", "a; b"], True),
        (["a", "b", "a;b|c"], True),
        (["a", "b", "a, b"], True),
        (["a", "b", "a, x|c"], False),
        (["a", "b", "a|b"], False),
    ],
)
def test_mechanisms_joined_by_other_marks_are_noted_and_not_split(moas, noted):
    table = TABLE.assign(
        Metadata_moa=TABLE.Metadata_compound.map({f"c{i}": moa for i, moa in enumerate(moas)})
    )
    assert ("join terms with '|'" in notes_of(table)) == noted
    assert mend_moa(moas[2]) in mechanism_groups(profiles_from_table(table, "t"))
    by_map = pd.DataFrame({"name": [f"c{i}" for i in range(3)], "moa": moas})
    assert (
        "join terms with '|'" in notes_of(TABLE.drop(columns="Metadata_moa"), moa_table=by_map)
    ) == noted


def test_one_name_with_a_semicolon_among_many_is_no_separator():
    moas = [f"m{i}" for i in range(20)] + ["a;b"]
    named = pd.DataFrame({"name": [f"c{i}" for i in range(21)], "moa": moas})
    assert "join terms" not in notes_of(
        make_table(21).drop(columns="Metadata_moa"), moa_table=named
    )
    assert "join terms" in notes_of(
        make_table(21).drop(columns="Metadata_moa"), moa_table=named[1:]
    )


def test_wells_in_several_rows_are_noted():
    again = pd.concat([TABLE, TABLE[5:8], TABLE[5:6]], ignore_index=True)
    again.loc[len(TABLE) :, F0] += 1
    assert (
        "In several rows: 3 wells (plate p0, well W05 and 2 more). Replicates with one name, or the"
        " same plate read twice?" in notes_of(again)
    )
    assert "In several rows: 48 wells" in notes_of(pd.concat([TABLE, TABLE], ignore_index=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:48],
        lambda t: t.assign(Metadata_time_h=np.repeat([24, 48], 48)),
        lambda t: t.assign(Metadata_cell_line=np.repeat(["A549", "MCF7"], 48)),
        lambda t: t.assign(Metadata_Well=t.Metadata_Well.where(t.index < 48, None)),
        lambda t: t.assign(Metadata_Plate=t.Metadata_Plate.where(t.index < 48, "")),
        lambda t: t.drop(columns="Metadata_Well"),
        lambda t: t.drop(columns="Metadata_Plate"),
        lambda t: t.rename(columns={"Metadata_Plate": "Metadata_Plate_Map_Name"}),
    ],
    ids=[
        "once",
        "times",
        "cells",
        "nameless wells",
        "nameless plates",
        "no wells",
        "no plates",
        "a layout",
    ],
)
def test_wells_that_may_well_repeat_are_not_noted(change):
    assert "In several rows" not in notes_of(
        change(pd.concat([TABLE, TABLE.assign(**{F0: 5})], ignore_index=True))
    )


def test_compounds_that_differ_only_in_case_stay_apart_and_are_noted():
    table = TABLE.assign(
        Metadata_compound=TABLE.Metadata_compound.replace(
            {"c0": "Taxol", "c1": "taxol", "c2": "TAXOL", "c3": "Torin", "c4": "torin"}
        ).mask(DMSO & (TABLE.Metadata_Plate == "p0"), "dmso")
    )
    assert "Compounds that only case tells apart: TAXOL/Taxol/taxol, Torin/torin." in notes_of(
        table
    )
    assert describe_profiles(profiles_from_table(table, "t"))["compounds"] == 12
    assert "only case" not in notes_of(TABLE)


def test_profiles_that_only_have_ids_need_a_table_that_describes_them(tmp_path):
    ids = (
        TABLE.filter(like="Cells_")
        .rename(columns=lambda name: name[16:18])
        .set_axis([f"s{i}" for i in range(len(TABLE))])
    )
    matrix = ids.T
    matrix.insert(0, "Description", "na")
    (tmp_path / "t.gct").write_text(
        f"#1.2\n{ids.shape[1]}\t{len(ids)}\n" + matrix.to_csv(sep="\t", index_label="NAME")
    )
    with pytest.raises(
        CpvaeError, match="tells only Metadata_id of its profiles.*`profile_info=TABLE`"
    ) as refusal:
        read_profiles(tmp_path / "t.gct")
    assert len(str(refusal.value)) < 300
    TABLE.filter(like="Metadata_").assign(sig_id=ids.index).to_csv(
        tmp_path / "info.tsv", sep="\t", index=False
    )
    assert read_profiles(tmp_path / "t.gct", profile_info=tmp_path / "info.tsv").shape == (48, 5)
    for names, says in (
        ({}, "`compound=`"),
        ({"Metadata_id": 1}, "`profile_info="),
        ({"Metadata_id": 1, "Metadata_agent": 2}, "`compound=`"),
    ):
        with pytest.raises(CpvaeError, match=says):
            profiles_from_table(
                TABLE.filter(like="Cells_").assign(Metadata_Plate="p", **names), "t"
            )


def test_a_given_dose_column_without_unit_is_noted(tmp_path):
    read = profiles_from_table(
        TABLE.rename(columns={"Metadata_conc_uM": "Metadata_strength"}), "t", dose="strength"
    )
    assert (
        "nothing tells the unit of Metadata_strength" in " ".join(read.uns["cpvae"]["notes"])
        and read.obs["dose"].max() == 3
    )


def test_doses_of_controls_do_not_matter():
    table = TABLE.astype({"Metadata_conc_uM": object})
    table.loc[DMSO, "Metadata_conc_uM"] = "vehicle"
    assert profiles_from_table(table, "t").obs["dose"].isna().sum() == 12
    bare = table.rename(columns={"Metadata_conc_uM": "Metadata_dose"})
    assert profiles_from_table(bare, "t", dose="dose").obs[
        "dose"
    ].isna().sum() == 12 and "Not read" not in notes_of(bare, dose="dose")


def test_zero_control_beside_control_rows():
    read = profiles_from_table(TABLE, "t", zero_control=True)
    assert read.uns["cpvae"]["zero_control"] and read.obs["is_control"].sum() == 12
    assert "12 control rows remain controls" in read.uns["cpvae"]["notes"][-1]
    assert "remain controls" not in " ".join(profiles_from_table(TABLE, "t").uns["cpvae"]["notes"])


def test_features_go_before_rows():
    table = TABLE.copy()
    table.loc[:4, "Cells_Intensity_F1_DNA"] = np.nan  # 5 of 48 rows: the feature goes
    table.loc[[5, 6], "Cells_Intensity_F2_DNA"] = [np.nan, np.inf]  # 2 of 48: the rows go
    read = profiles_from_table(table, "t", drop_na=True)
    assert read.shape == (46, 4) and read.uns["cpvae"]["dropped_features"] == [
        "Cells_Intensity_F1_DNA"
    ]
    assert profiles_from_table(table, "t", drop_na=True, na_cutoff=0.2).shape == (41, 5)
    assert profiles_from_table(table, "t", drop_na=True, na_cutoff=0).shape == (48, 3)
    np.testing.assert_array_equal(
        read.X, table.drop(index=[5, 6]).filter(regex="F[0234]_").to_numpy(np.float32)
    )
    assert read.X.flags.c_contiguous
    assert sorted(read.obs["well"][read.obs["plate"] == "p0"]) == [
        f"W{i:02}" for i in range(16) if i not in (5, 6)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_what_is_kept_is_finite_and_no_more_is_lost(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(60, 8)).astype(np.float32)
    values[rng.random(values.shape) < 0.04] = rng.choice([np.nan, np.inf, -np.inf])
    names, cutoff = list("abcdefgh"), rng.choice([0.02, 0.05, 0.2])
    rows, columns = finite_part(values, names, drop_na=True, na_cutoff=cutoff)
    frame = pd.DataFrame(np.where(np.isfinite(values), values, np.nan))
    expected = frame.loc[:, frame.isna().mean() <= cutoff].dropna()
    np.testing.assert_array_equal(values[rows][:, columns], expected.to_numpy())


def test_what_is_known_of_features_stays_with_them():
    from cpvae.io.parts import Parts
    from cpvae.profiles.read import profiles_from_parts

    metadata = TABLE.filter(like="Metadata_")
    values = np.random.default_rng(0).normal(size=(len(TABLE), 3)).astype(np.float32)
    values[:, 1] = 7
    parts = Parts(
        ["780", "5982", "7849"],
        values,
        metadata,
        [],
        pd.DataFrame({"id": ["780", "5982", "7849"], "pr_gene_symbol": ["DDR1", "RFC2", "PAX8"]}),
    )
    read = profiles_from_parts(parts, "t")
    assert (
        read.var["symbol"].to_dict() == {"780": "DDR1", "7849": "PAX8"}
        and read.uns["cpvae"]["kind"] == "genes"
    )


def test_values_are_not_copied_without_need():
    from cpvae.io.tables import parts_from_table
    from cpvae.profiles.read import profiles_from_parts

    parts = parts_from_table(TABLE, "t")
    assert np.shares_memory(profiles_from_parts(parts, "t").X, parts.values)


MAP = pd.DataFrame(
    {
        "broad_sample": [
            "BRD-K00000000-001-01-1",
            "BRD-K00000001-999-01-1",
            None,
            None,
            None,
            None,
            None,
        ],
        "InChIKey14": [None, None, "AAAAAAAAAAAAAA", None, None, None, None],
        "pert_iname": ["zero", "one", "two", "c-3", "C 4", "c4", "c5"],
        "moa": ["b|a", "c", "d", "e", "f", "g", None],
        "target": ["T2, T1", "T3", None, "T4|T5", None, None, "T6"],
    }
)


def test_each_key_finds_its_compound():
    key = TABLE.Metadata_compound.map(
        {"c2": "AAAAAAAAAAAAAA-BBBBBBBBBB-N", "c3": "CCCCCCCCCCCCCC-BBBBBBBBBB-N"}
    )
    table = BARE.assign(
        Metadata_broad_sample=BATCH.where(DMSO | C0 | C1),
        Metadata_compound=TABLE.Metadata_compound,
        Metadata_inchikey=key,
    )
    read = profiles_from_table(table, "t", moa_table=MAP)
    obs = read.obs.drop_duplicates("compound").set_index("compound")
    assert obs["moa"].to_dict() == {"DMSO": "", "c0": "a|b", "c1": "c", "c2": "d", "c3": "e"} | {
        f"c{i}": "" for i in range(4, 12)
    }
    assert obs["target"][["c0", "c1", "c3", "c5"]].tolist() == ["T1|T2", "T3", "T4|T5", ""]
    joined, notes = join_mechanisms(read.obs, MAP, "map.tsv")
    assert joined["key"].head(6).to_dict() == {
        "c0": "broad_sample",
        "c1": "broad_id",
        "c10": "",
        "c11": "",
        "c2": "InChIKey",
        "c3": "name",
    }
    assert "4 of 12 compounds, by broad_sample 1, broad_id 1, InChIKey 1, name 1" in notes[0]
    assert (
        "8 compounds" in notes[1]
        and "Not joined by name" in notes[2]
        and notes[2].endswith("1 compound, c4.")
    )
    assert read.uns["cpvae"]["moa_unmatched"] == ["c10", "c11", *(f"c{i}" for i in range(4, 10))]
    assert (
        read.uns["cpvae"]["pair_names"] == ["b|a"]
        and read.uns["cpvae"]["columns"]["moa"] == "moa of MOA table"
    )


def test_the_surest_key_wins():
    table = BARE.assign(Metadata_broad_sample=BATCH, Metadata_pert_iname=TABLE.Metadata_compound)
    other = pd.DataFrame(
        {
            "broad_id": ["BRD-K00000000", None, None],
            "pert_iname": [None, "c0", "c1"],
            "moa": ["by id", "by name", "by name"],
        }
    )
    obs = profiles_from_table(table, "t", moa_table=other).obs.groupby("compound")["moa"].first()
    assert (obs["c0"], obs["c1"]) == ("by id", "by name")


def test_batches_that_disagree_are_not_joined_by_sample():
    table = BARE.assign(Metadata_pert_iname=TABLE.Metadata_compound, Metadata_broad_sample=BATCH)
    other = pd.DataFrame(
        {
            "broad_sample": [f"BRD-K00000000-001-0{i}-1" for i in (1, 2)] * 2,
            "moa": ["x", "y", "x", "y"],
            "name": ["", "c1", "", "c2"],
        }
    )
    joined, notes = join_mechanisms(profiles_from_table(table, "t").obs, other)
    assert joined.loc["c0", "moa"] == "" and joined.loc["c1", "key"] == "name"
    assert "Not joined by broad_sample" in " ".join(notes)


@pytest.mark.parametrize("bare", [True, False])
def test_clue_ids_find_broad_samples(bare):
    table = BARE.assign(Metadata_pert_id=BRD if bare else BATCH)
    read = profiles_from_table(table, "t", moa_table=MAP[["broad_sample", "moa"]])
    found = read.obs[read.obs["moa"] != ""].drop_duplicates("compound")
    assert found.set_index("compound")["moa"].to_dict() == {
        "BRD-K00000000": "a|b",
        "BRD-K00000001": "c",
    }


def test_clue_names_and_ids_both_find_a_compound():
    table = BARE.assign(Metadata_cmap_name=TABLE.Metadata_compound, Metadata_pert_id=BRD)
    other = pd.DataFrame(
        {"pert_id": ["BRD-K00000002", None], "cmap_name": ["other", "C3"], "moa": ["x", "y"]}
    )
    joined, _ = join_mechanisms(profiles_from_table(table, "t").obs, other)
    assert joined[joined["key"] != ""][["moa", "key"]].to_dict("index") == {
        "c2": {"moa": "x", "key": "broad_id"},
        "c3": {"moa": "y", "key": "name"},
    }


def test_a_control_is_never_annotated():
    table = TABLE.assign(
        Metadata_pert_type=np.where(DMSO | (C0 & (TABLE.Metadata_Plate == "p0")), "negcon", "trt")
    )
    read = profiles_from_table(
        table, "t", moa_table=MAP.assign(pert_iname=[f"c{i}" for i in range(7)])
    )
    obs = read.obs[read.obs["compound"] == "c0"]
    assert (
        obs["moa"].tolist()
        == ["", "a|b", "a|b"]
        == profiles_from_table(table, "t").obs.loc[obs.index, "moa"].replace("A", "a|b").tolist()
    )


def test_mirror_images_are_not_one_name():
    table = BARE.assign(
        Metadata_compound=TABLE.Metadata_compound.replace({"c0": "(-)-JQ1", "c1": "(+)-JQ1"})
    )
    other = pd.DataFrame({"name": ["(+)-jq1", "c 2"], "moa": ["x", "y"]})
    joined, _ = join_mechanisms(profiles_from_table(table, "t").obs, other)
    assert joined[joined["key"] != ""]["moa"].to_dict() == {"(+)-JQ1": "x", "c2": "y"}


def test_a_map_in_a_file_replaces_what_the_table_says(tmp_path):
    MAP.assign(pert_iname=[f"c{i}" for i in range(7)]).to_csv(
        tmp_path / "map.tsv", sep="\t", index=False
    )
    read = profiles_from_table(TABLE, "t", moa_table=tmp_path / "map.tsv")
    assert mechanism_groups(read) == {
        "a|b": ["c0"],
        "c": ["c1"],
        "d": ["c2"],
        "e": ["c3"],
        "f": ["c4"],
        "g": ["c5"],
    }
    assert read.uns["cpvae"]["columns"]["moa"] == "moa of map.tsv"


@pytest.mark.parametrize(
    "table, says",
    [
        (MAP.drop(columns=["moa", "target"]), "no column called moa"),
        (MAP[["moa", "target"]], "broad_sample, broad_id, InChIKey14 or pert_iname"),
        (MAP[["pert_iname", "moa"]].iloc[:1], "knows none of the 12 compounds"),
    ],
)
def test_useless_maps(table, says):
    with pytest.raises(CpvaeError, match=says) as refusal:
        profiles_from_table(TABLE, "t", moa_table=table)
    assert "MOA table" in str(refusal.value) and len(str(refusal.value)) < 300


def test_targets_of_the_table_itself():
    read = profiles_from_table(
        TABLE.assign(Metadata_target=np.where(DMSO, "x", np.where(C0, "B, A", ""))), "t"
    )
    assert set(read.obs["target"]) == {"", "A|B"} and (read.obs["target"] != "").sum() == 3
    assert "target" not in profiles_from_table(TABLE, "t").obs


@pytest.mark.parametrize("seed", range(5))
def test_digests_tell_rows_apart_as_their_values_do(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.array([-1.5, -0.0, 0.0, 1e-30, 7], np.float32), (9000, 3))
    _, first = np.unique(values + 0.0, axis=0, return_inverse=True)
    assert (pd.factorize(row_digests(values))[0] == pd.factorize(first.ravel())[0]).all()
    assert row_digests(np.asfortranarray(values)).equals(row_digests(values))


def test_copies_are_counted_and_said(profiles):
    profiles.obs[["plate", "well", "dose", "time", "cell"]] = ["p", "", 1.0, 24.0, "c"]
    profiles.X[5], profiles.X[6] = profiles.X[7], profiles.X[7]
    profiles.X[5:8, 0] = 0.0, -0.0, 1.0
    holds = describe_profiles(profiles)
    assert (holds["profiles"], holds["exact copies"], holds["distinct profiles"]) == (48, 1, 47)


def test_the_fingerprint_of_several_files(tmp_path):
    import hashlib

    for plate, part in TABLE.groupby("Metadata_Plate"):
        part.to_csv(tmp_path / f"{plate}.csv", index=False)
    files = [tmp_path / f"p{i}.csv" for i in (2, 0, 1)]
    read = read_profiles(files)
    lines = sorted(f"{f.name} {hashlib.sha256(f.read_bytes()).hexdigest()}\n" for f in files)
    assert read.uns["cpvae"]["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert read.uns["cpvae"]["source"] == "p0.csv and 2 more"
    folder = read_profiles(tmp_path)
    assert (
        folder.uns["cpvae"]["source"] == tmp_path.name
        and folder.uns["cpvae"]["sha256"] == read.uns["cpvae"]["sha256"]
    )
    assert (
        read_profiles(files[:1]).uns["cpvae"]["sha256"]
        == hashlib.sha256(files[0].read_bytes()).hexdigest()
    )
    before = set()
    for names in (("a/1.csv", "b/2.csv"), ("a/2.csv", "b/1.csv"), ("a/1.csv", "b/1.csv")):
        paths = [tmp_path / "apart" / name for name in names]
        for path, file in zip(paths, files):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read_bytes())
        lines = sorted(f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in paths)
        code = read_profiles(paths).uns["cpvae"]["sha256"]
        assert code == hashlib.sha256("".join(lines).encode()).hexdigest() and code not in before
        before.add(code)


def test_what_cpvae_wrote_comes_back_as_it_was(tmp_path, profiles):
    from cpvae.io.write import write_profiles

    before = profiles.copy()
    write_profiles(profiles, tmp_path / "t.h5ad")
    back = read_profiles(tmp_path / "t.h5ad")
    np.testing.assert_array_equal(back.X, before.X)
    assert back.uns["cpvae"] == before.uns["cpvae"] and describe_profiles(
        back
    ) == describe_profiles(before)
    assert list(back.obs) == list(before.obs) and list(back.var) == list(before.var)
    for name in before.obs:
        assert back.obs[name].astype(str).tolist() == before.obs[name].astype(str).tolist(), name
    with pytest.raises(CpvaeError, match="leave out the choice of control"):
        read_profiles(tmp_path / "t.h5ad", control="c0")
    later = read_profiles(
        tmp_path / "t.h5ad", moa_table=pd.DataFrame({"name": ["c0"], "moa": ["z"]})
    )
    assert mechanism_groups(later) == {"z": ["c0"]}


@pytest.mark.parametrize("file", ["t.csv", "t.parquet"])
def test_tables_written_by_cpvae_can_be_read_again(file, tmp_path, profiles):
    from cpvae.io.write import write_profiles

    write_profiles(profiles, tmp_path / file)
    back = read_profiles(tmp_path / file)
    for name in ("compound", "dose", "plate", "well", "moa", "is_control"):
        assert back.obs[name].astype(str).tolist() == profiles.obs[name].astype(str).tolist(), name


def test_mechanisms_of_controls_and_unnamed_rows_do_not_count(tmp_path):
    table = TABLE.copy()
    table.loc[table.Metadata_compound == "c2", "Metadata_compound"] = None
    table.to_csv(tmp_path / "t.csv", index=False)
    groups = mechanism_groups(read_profiles(tmp_path / "t.csv"))
    assert groups == {"A": ["c0", "c4", "c8"], "B": ["c1", "c5", "c9"], "A|B": ["c10", "c6"]}


def test_pairs_need_all_three_groups(profiles):
    assert evaluable_pairs(profiles) == [("A", "B")]
    for gone in ("A", "B", "A|B"):
        assert evaluable_pairs(profiles[profiles.obs["moa"] != gone]) == []


@pytest.mark.parametrize("seed", range(5))
def test_dose_levels_are_idempotent_and_monotone(seed):
    dose = np.random.default_rng(seed).lognormal(0, 2, 200).round(2) + 0.01
    level = dose_levels(dose)
    np.testing.assert_array_equal(dose_levels(level), level)
    assert (np.diff(level[np.argsort(dose)]) >= 0).all()
    assert (np.maximum(level / dose, dose / level) <= 1.05).all()
    np.testing.assert_allclose(dose_levels(dose * 1024), level * 1024)


def test_mended_annotations_are_stable():
    for text in (
        "b|a",
        "a||a ",
        "x  y|x y",
        "serotonin\u00e2\u0080\u0093norepinephrine",
        "\u03b2-lactamase",
        None,
        "",
    ):
        assert mend_moa(mend_moa(text)) == mend_moa(text)
    assert mend_moa("x  y|x y|") == "x y"


def test_feature_names_of_every_group():
    assert parse_feature("Nuclei_Correlation_Costes_AGP_Mito") == (
        "Nuclei",
        "AGP|Mito",
        "Correlation",
    )
    assert parse_feature("Image_Count_Cells") == ("Image", "", "Count")
    assert parse_feature("Cells") == ("", "", "")
    assert parse_feature("DNAJB6") == ("", "", "")


@pytest.mark.skipif(
    not (DATA / "cell_injury_u2os_8298x346.parquet").is_file(),
    reason="CPVAE_DATA has no U2OS table",
)
def test_u2os_table_as_csv_is_the_same(tmp_path):
    table = pd.read_parquet(DATA / "cell_injury_u2os_8298x346.parquet").iloc[::20]
    table.to_csv(tmp_path / "t.csv.gz", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    csv, pq = (read_profiles(tmp_path / file) for file in ("t.csv.gz", "t.parquet"))
    np.testing.assert_allclose(csv.X, pq.X, rtol=1e-5, atol=1e-6)
    a, b = describe_profiles(csv), describe_profiles(pq)
    assert {k: v for k, v in a.items() if k != "source"} == {
        k: v for k, v in b.items() if k != "source"
    }


@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv", ".parquet", ".h5ad"])
def test_choices_of_the_user_survive_writing_and_reading(suffix, tmp_path):
    odd = TABLE.assign(
        Metadata_conc_nM=TABLE.Metadata_conc_uM * 500,
        Metadata_name=[f"x{c}" if c != "DMSO" else "water" for c in TABLE.Metadata_compound],
    )
    first = profiles_from_table(
        odd, "t", compound="Metadata_name", dose="Metadata_conc_nM", control="water"
    )
    assert (
        first.obs.query("not is_control").dose.tolist()
        == (TABLE.Metadata_conc_uM.dropna() / 2).tolist()
    )
    write_profiles(first, tmp_path / f"t{suffix}")
    again = read_profiles(tmp_path / f"t{suffix}")
    standard = ["compound", "dose", "time", "cell", "plate", "well", "moa", "is_control"]
    pd.testing.assert_frame_equal(again.obs[standard], first.obs[standard])
    np.testing.assert_array_equal(again.X, first.X)


def test_warnings_before_a_misleading_run():
    raw = TABLE.assign(**{c: TABLE[c] + 100 for c in TABLE if c.startswith("Cells")})
    assert "`normalize=" in notes_of(raw) and "`normalize=" not in notes_of(TABLE)
    assert "join a table of mechanisms with `moa_table=`" in notes_of(
        TABLE.drop(columns="Metadata_moa")
    )
    names = TABLE.Metadata_compound + np.where(DMSO, "", [str(i % 2) for i in range(len(TABLE))])
    assert "Mechanisms that only case tells apart: A/a." in notes_of(
        TABLE.assign(Metadata_moa=["a", "A"] * (len(TABLE) // 2), Metadata_compound=names)
    )
    renamed = TABLE.rename(columns={"Metadata_conc_uM": "Metadata_Dose of drug (uM)"})
    assert "Not read as a dose: Metadata_Dose of drug (uM)" in notes_of(
        renamed
    ) and "Not read as a dose" not in notes_of(TABLE)
    spelt = profiles_from_table(
        TABLE.rename(columns={"Metadata_conc_uM": "Metadata_Concentration (uM)"}), "t"
    )
    np.testing.assert_array_equal(spelt.obs["dose"], profiles_from_table(TABLE, "t").obs["dose"])
    with pytest.raises(CpvaeError, match="perhaps with `control='mock_0.1%'`"):
        profiles_from_table(TABLE.replace({"Metadata_compound": {"DMSO": "mock_0.1%"}}), "t")


@pytest.mark.parametrize("column", ["moa", "Mechanism of action", "Metadata_mechanism"])
def test_what_a_map_may_call_its_mechanisms(column):
    profiles = profiles_from_table(
        TABLE, "t", moa_table=pd.DataFrame({"name": ["c0", "c1"], column: ["x", "x|y"]})
    )
    assert mechanism_groups(profiles) == {"x": ["c0"], "x|y": ["c1"]} and not any(
        "Mended" in note for note in profiles.uns["cpvae"]["notes"]
    )


NAMES = [
    "ATPase inhibitor",
    "CDK inhibitor",
    "DNA synthesis inhibitor",
    "MEK inhibitor",
    "PI3K inhibitor",
    "adrenergic receptor agonist",
    "mTOR inhibitor",
    "mTOR inhibitor|PI3K inhibitor",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_mechanism_is_found_however_it_is_misspelled(name, order):
    known = NAMES[::order]
    swapped = name[:4] + name[5] + name[4] + name[6:]
    for written in (
        name.upper(),
        name.lower(),
        f" {name} ",
        name[:-3],
        swapped,
        name.replace("ib", "b"),
        name.replace(" ", ""),
    ):
        found = similar_mechanisms(written, known)
        assert found[0] == name and len(found) <= 3 and set(found) <= set(known), (written, found)


def test_three_mechanisms_at_most_and_none_that_only_looks_alike():
    assert similar_mechanisms("inhibitor", NAMES) == [
        "CDK inhibitor",
        "MEK inhibitor",
        "PI3K inhibitor",
    ]
    assert similar_mechanisms("MTOR INHIBITOR", NAMES) == [
        "mTOR inhibitor",
        "mTOR inhibitor|PI3K inhibitor",
    ]
    assert (
        similar_mechanisms("kinesin", NAMES)
        == similar_mechanisms(" ", NAMES)
        == similar_mechanisms("mTOR", [])
        == []
    )
    assert similar_mechanisms("mtor", iter(NAMES)) == [
        "mTOR inhibitor",
        "mTOR inhibitor|PI3K inhibitor",
    ]
