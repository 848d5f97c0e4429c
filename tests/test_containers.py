"""One table, many files: every format gives the same parts, writing gives them back, and a wrong
file says what it is.
"""

import bz2
import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from anndata import AnnData
from pyarrow import csv as pc
from pyarrow import parquet as pq
from scipy.sparse import csc_matrix, csr_matrix

from cpvae.errors import CpvaeError, counted, listed
from cpvae.io.parts import Parts
from cpvae.io.read import profile_files, read_parts, read_table
from cpvae.io.tables import parts_from_table
from cpvae.io.write import to_frame, write_profiles


def make_table(n=40, n_features=6, seed=0, names="Cells_F{}"):
    "Metadata of every kind beside features with a gap."
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, n_features)).astype(np.float32)
    values[3, 2] = np.nan
    metadata = {
        "Metadata_Plate": [f"{i % 3:03d}" for i in range(n)],
        "Metadata_Well": [f"A{i:02d}" for i in range(n)],
        "Metadata_compound": [None if i % 9 == 8 else f'c, "{i % 7}"\nß' for i in range(n)],
        "Metadata_conc_uM": [np.nan if i % 5 == 0 else 0.1 * i for i in range(n)],
        "Metadata_whole": [float(i) for i in range(n)],
        "Metadata_count": range(n),
        "Metadata_batch": ["NA" if i == 1 else f"0{i}" for i in range(n)],
        "Metadata_qc": [i % 2 == 0 for i in range(n)],
        "Metadata_half_known": [None if i % 4 == 0 else i % 2 == 0 for i in range(n)],
        "Metadata_nothing": [None] * n,
    }
    return pd.concat(
        [
            pd.DataFrame(metadata),
            pd.DataFrame(values, columns=[names.format(i) for i in range(n_features)]),
        ],
        axis=1,
    )


TABLE = make_table()
GENES = make_table(names="GENE{}")


def as_anndata(parts, **about):
    "Profiles as the next module makes them, without any standard column."
    obs = parts.metadata.set_index(parts.metadata.index.astype(str))
    about = dict(
        source="t",
        columns={},
        notes=["a", "b"],
        dropped_features=[],
        zero_control=False,
        n_copies=0,
        **about,
    )
    return AnnData(
        parts.values, obs=obs, var=pd.DataFrame(index=parts.features), uns={"cpvae": about}
    )


def same(one, other, notes=False):
    assert one.features == other.features
    np.testing.assert_array_equal(one.values, other.values)
    assert (
        one.values.dtype == other.values.dtype == np.float32
        and one.values.flags.c_contiguous
        and other.values.flags.c_contiguous
    )
    pd.testing.assert_frame_equal(one.metadata, other.metadata)
    assert not notes or one.notes == other.notes


def write(table, path):
    "A table in the format of the suffix, by other means than the package's own."
    name = path.name
    if name.endswith(".parquet"):
        table.to_parquet(path)
    elif name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(table.to_csv(index=False).encode())
    else:
        table.to_csv(path, index=False, sep="," if ".csv" in name else "\t")
    return path


FILES = ["t.csv", "t.csv.gz", "t.csv.bz2", "t.csv.zst", "t.tsv", "T.TSV.GZ", "t.txt", "t.parquet"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("table", [TABLE, GENES], ids=["cells", "genes"])
def test_every_format_gives_the_same_parts(file, table, tmp_path):
    table = table.drop(columns="Metadata_batch")  # an unquoted NA is missing in text
    same(read_parts(write(table, tmp_path / file)), parts_from_table(table), notes=True)


@pytest.mark.parametrize(
    "file",
    ["t.csv", "t.csv.gz", "t.csv.bz2", "t.csv.zst", "t.tsv", "t.tsv.gz", "t.parquet", "t.h5ad"],
)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_read(file, seed, tmp_path):
    parts = parts_from_table(make_table(int(30 + 40 * seed), 3 + seed, seed))
    parts.values[0] = [np.float32(1) / 3, np.float32(1e-42), np.float32(3.4e38), -0.0, 16777217.0][
        : 3 + seed
    ]
    profiles = as_anndata(parts)
    write_profiles(profiles, tmp_path / file)
    read = read_parts(tmp_path / file)
    assert read.values.tobytes() == parts.values.tobytes()
    pd.testing.assert_frame_equal(read.metadata.reset_index(drop=True), parts.metadata)
    assert read.features == parts.features and os.listdir(tmp_path) == [file]
    if file == "t.h5ad":
        assert read.about == profiles.uns["cpvae"]
        pd.testing.assert_frame_equal(read.metadata, profiles.obs)
        assert list(read.feature_info.index) == parts.features
    else:
        pd.testing.assert_frame_equal(
            to_frame(profiles),
            pd.concat([parts.metadata, pd.DataFrame(parts.values, columns=parts.features)], axis=1),
        )


def test_writing_does_not_change_the_profiles(tmp_path):
    profiles = as_anndata(parts_from_table(TABLE))
    before = profiles.copy()
    for file in ("t.h5ad", "t.csv", "t.parquet"):
        write_profiles(profiles, tmp_path / file)
    pd.testing.assert_frame_equal(profiles.obs, before.obs)
    assert profiles.uns["cpvae"] == before.uns["cpvae"]


@pytest.mark.parametrize("file", ["t.csv", "t.parquet", "t.h5ad"])
def test_a_full_disk_leaves_nothing(file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / file).write_text("old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=rf"No space left.*{file}"):
        write_profiles(as_anndata(parts_from_table(TABLE)), tmp_path / file)
    assert os.listdir(tmp_path) == [file] and (tmp_path / file).read_text() == "old"


SMALL_DISK = """
import resource, signal, sys
import numpy as np, pandas as pd
from anndata import AnnData
from cpvae.io.write import write_profiles
values = np.random.default_rng(0).normal(size=(500, 100)).astype(np.float32)
obs = pd.DataFrame({"Metadata_a": ["x"] * 500})
profiles = AnnData(values, obs=obs, uns={"cpvae": {"columns": {}}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
for path in sys.argv[1:]:
    try:
        write_profiles(profiles, path)
    except OSError as error:
        print(error.filename, error.strerror, sep="|")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_fills_up(tmp_path):
    paths = [
        str(tmp_path / f"t.{ending}")
        for ending in ("csv", "tsv.gz", "csv.zst", "csv.bz2", "parquet", "h5ad")
    ]
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SMALL_DISK, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        out.stdout.splitlines() == [f"{path}|File too large" for path in paths]
        and os.listdir(tmp_path) == []
    )


def test_unknown_formats_are_not_written(tmp_path):
    for file in ("t.xlsx", "t.parquet.gz", "t.txt"):
        with pytest.raises(CpvaeError, match="unknown format"):
            write_profiles(as_anndata(parts_from_table(TABLE)), tmp_path / file)


def test_standard_columns_are_written_only_if_they_would_be_lost():
    profiles = as_anndata(parts_from_table(TABLE), given=["dose"])
    n = profiles.n_obs
    profiles.uns["cpvae"]["columns"] = {
        "compound": "Metadata_compound",
        "dose": "Metadata_count",
        "moa": "",
        "plate": "Metadata_Plate",
        "time": "",
    }
    profiles.obs = profiles.obs.assign(
        compound="x",
        dose=2.5,
        moa="A|B",
        plate="p",
        time=np.nan,
        is_control=np.arange(n) < 3,
        split="train",
    )
    frame = to_frame(profiles)
    assert (
        frame["Metadata_conc_uM"].eq(2.5).all()
        and frame["Metadata_moa"].eq("A|B").all()
        and frame["Metadata_split"].eq("train").all()
    )
    assert (
        not frame["Metadata_compound"].eq("x").any() and not frame["Metadata_Plate"].eq("p").any()
    )
    assert (
        "Metadata_time_h" not in frame
        and "Metadata_control_type" not in frame
        and sum(frame.columns.str.lower() == "metadata_conc_um") == 1
    )
    profiles.uns["cpvae"]["given"] = ["control"]
    assert (to_frame(profiles)["Metadata_control_type"] == "negcon").sum() == 3


# ---------------------------------------------------------------- text


def test_blocks_make_no_difference(tmp_path, monkeypatch):
    table = make_table(600, 8)
    write(table, tmp_path / "t.csv")
    large = read_parts(tmp_path / "t.csv")
    original = pc.ReadOptions
    monkeypatch.setattr(
        pc, "ReadOptions", lambda **options: original(**options | dict(block_size=4000))
    )
    small = read_parts(tmp_path / "t.csv")
    same(small, large)
    table.loc[500, "Cells_F3"] = np.nan
    text = table.astype({"Cells_F1": object, "Cells_F3": object})
    text.loc[500, "Cells_F3"], text.loc[570, "Cells_F1"] = "high", "low"
    write(text, tmp_path / "bad.csv")
    with pytest.raises(CpvaeError, match='column Cells_F1, row 571 below the header holds "low"'):
        read_parts(tmp_path / "bad.csv")
    (tmp_path / "ragged.csv").write_text(
        table.drop(columns="Metadata_compound").to_csv(index=False) + "1,2\n"
    )
    with pytest.raises(CpvaeError, match="row 601 below the header has 2 cells, the header 17"):
        read_parts(tmp_path / "ragged.csv")


def test_the_first_rows_may_mislead(tmp_path, monkeypatch):
    original = pc.ReadOptions
    monkeypatch.setattr(
        pc, "ReadOptions", lambda **options: original(**options | dict(block_size=200))
    )
    n = 100
    table = pd.DataFrame(
        {
            "compound": "c",
            "TP53": 0.5,
            "later_text": ["1"] * 10 + ["x"] * 90,
            "MYC": ["n"] * 10 + ["2"] * 90,
        }
    )
    with pytest.raises(CpvaeError, match='column MYC, row 1 below the header holds "n"'):
        read_parts(write(table, tmp_path / "t.csv"))
    parts = read_parts(write(table.assign(MYC=[None] * 50 + [1.5] * 50), tmp_path / "t.csv"))
    assert parts.features == ["TP53", "MYC"] and list(parts.metadata) == [
        "Metadata_compound",
        "Metadata_later_text",
    ]
    assert np.isnan(parts.values[:, 1]).sum() == 50 and len(parts.values) == n
    same(parts, parts_from_table(table.assign(MYC=[None] * 50 + [1.5] * 50)), notes=True)


@pytest.mark.parametrize(
    "cell, value",
    [
        (" 1.5 ", 1.5),
        ("1e300", np.inf),
        ("-inf", -np.inf),
        ("NA", np.nan),
        ('"NA"', np.nan),
        ('""', np.nan),
        ('"2"', 2),
        ("+3", 3),
        (".5", 0.5),
        ("1e-3", 1e-3),
        ("None", np.nan),
    ],
)
def test_cells_that_are_numbers(cell, value, tmp_path):
    (tmp_path / "t.csv").write_text(f"Metadata_compound,Cells_A\nx,0\ny,{cell}\n")
    np.testing.assert_array_equal(
        read_parts(tmp_path / "t.csv").values[:, 0], np.float32([0, value])
    )


@pytest.mark.parametrize("cell", ["high", "0x10", "1,5", "1_000", "True", "--1", "2020-01-01", "é"])
def test_cells_that_are_none(cell, tmp_path):
    (tmp_path / "t.tsv").write_text(
        f"Metadata_compound\tCells_A\nx\t0\ny\t{cell}\n", encoding="utf-8"
    )
    with pytest.raises(CpvaeError, match=f'column Cells_A, row 2 below the header holds "{cell}"'):
        read_parts(tmp_path / "t.tsv")


def test_header_extras(tmp_path):
    text = "\ufeff!a comment\r\n\r\n Metadata_Plate , Cells_A \r\n007,1\r\n\r\n008,2\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode())
    parts = read_parts(tmp_path / "t.csv")
    assert (
        parts.features,
        parts.metadata["Metadata_Plate"].tolist(),
        parts.values.ravel().tolist(),
    ) == (["Cells_A"], ["007", "008"], [1, 2])
    (tmp_path / "t.csv").write_text(",Plate,Cells_A\n0,7,1\n")
    assert list(read_parts(tmp_path / "t.csv").metadata) == ["Metadata_Plate"] and read_parts(
        tmp_path / "t.csv"
    ).aside == {"an index of rows": ["(no name)"]}


ABOVE = {  # what else may stand in a text file, and what is noted of it
    "comments": (lambda text: f"# made by, a script\n#\n#v1\n\n{text}", []),
    "comments with as many cells": (lambda text: f"# {blank(text)}# {blank(text)}{text}", []),
    "blank rows above": (lambda text: f"{blank(text)}\n{blank(text)}{text}", []),
    "excel's line": (lambda text: f"sep=,\r\n{text}", []),
    "excel's line, quoted": (lambda text: f'"sep=,"\n{text}', []),
    "separator at the end": (
        lambda text: text.replace("\n", ",\n"),
        ["1 column at the end without name and content left out: each line ends in a separator."],
    ),
    "separators at the end": (
        lambda text: text.replace("\n", ",,\n"),
        ["2 columns at the end without name and content left out: each line ends in a separator."],
    ),
    "blank rows": (
        lambda text: f"{text}{blank(text)}{blank(text)}",
        ["2 rows empty in every column left out."],
    ),
    "blank row in between": (
        lambda text: text.replace("\n", f"\n{blank(text)}", 1),
        ["1 row empty in every column left out."],
    ),
}


def blank(text):
    return "," * text.splitlines()[0].count(",") + "\n"


@pytest.mark.parametrize("name", ABOVE)
@pytest.mark.parametrize("table", [TABLE, GENES], ids=["cells", "genes"])
def test_what_spreadsheets_and_scripts_add(name, table, tmp_path):
    change, notes = ABOVE[name]
    table = table.drop(columns=["Metadata_batch", "Metadata_compound"])
    (tmp_path / "t.csv").write_bytes(change(table.to_csv(index=False)).encode())
    parts = read_parts(tmp_path / "t.csv")
    same(parts, parts_from_table(table))
    assert parts.notes == parts_from_table(table).notes + notes
    (tmp_path / "moa.csv").write_text(change("compound,moa\na,b|c\nd,\n"))
    assert read_table(tmp_path / "moa.csv").to_dict("list") == {
        "compound": ["a", "d"],
        "moa": ["b|c", None],
    }


def test_a_row_with_anything_in_it_stays(tmp_path):
    (tmp_path / "t.csv").write_text("Metadata_compound,Cells_A,Cells_B\nx,1,2\n,,2\ny,,\n,,\n")
    parts = read_parts(tmp_path / "t.csv")
    assert (
        parts.metadata["Metadata_compound"].tolist() == ["x", None, "y"]
        and np.isnan(parts.values).sum() == 3
    )


def test_a_header_may_begin_with_a_hash(tmp_path):
    (tmp_path / "t.csv").write_text("# a table\n#compound,Cells_A\nx,1\ny,2\n")
    parts = read_parts(tmp_path / "t.csv")
    assert (list(parts.metadata), parts.features, len(parts.values)) == (
        ["Metadata_#compound"],
        ["Cells_A"],
        2,
    )


def test_the_prefix_in_any_case(tmp_path):
    (tmp_path / "t.csv").write_text(
        "metadata_compound,METADATA_Plate,image_metadata_Well,Image_Metadata_site,Cells_A\nx,7,A1,1,0.5\n"
    )
    parts = read_parts(tmp_path / "t.csv")
    assert list(parts.metadata) == [
        "Metadata_compound",
        "Metadata_Plate",
        "Metadata_Well",
        "Metadata_site",
    ] and parts.features == ["Cells_A"]
    assert parts.metadata["Metadata_Plate"].tolist() == ["7"] and parts.notes == []
    with pytest.raises(CpvaeError, match="Metadata_dose stands there twice"):
        parts_from_table(
            pd.DataFrame([[1, 2, 3.0]], columns=["Metadata_dose", "metadata_dose", "Cells_A"])
        )


def test_numbers_unlike_genes_are_no_genes():
    genes = pd.DataFrame(
        np.ones((2, 8)),
        columns=[
            "TP53",
            "C1orf43",
            "5594",
            "1007_s_at",
            "HLA-A",
            "PTEN",
            "ENSG00000141510.18",
            "MYC",
        ],
    ).assign(compound=["a", "b"])
    parts = parts_from_table(genes.assign(score=1.5, lane=2))
    assert parts.features == list(genes.columns[:8]) and {"Metadata_score", "Metadata_lane"} < set(
        parts.metadata
    )
    assert parts.notes == [
        "Number columns taken as metadata, since 8 of 10 are called like TP53: score, lane;"
        " `features=` decides otherwise."
    ]
    assert (
        parts_from_table(genes).notes
        == parts_from_table(genes.assign(cell_count=3, passage=1)).notes
        == []
    )
    others = genes.drop(columns="compound")
    for prefix in ("f_", "Cells_"):
        parts = parts_from_table(others.add_prefix(prefix).assign(lane=1))
        assert "lane" not in parts.features and len(parts.features) == 8 and len(parts.notes) == 1


def test_upright_tables_are_not_taken_for_transposed(tmp_path):
    symbols = ["TP53", "MYC", "AKT1"]
    for text in (
        ",compound,F0,F1\n0,a,1,2\n1,b,3,4\n",
        ",A1,A2\nTP,1,2\nTP,3,4\n",  # a name twice is no feature
        "compound,C3,F2\nTORIN,1,2\nBRAF,1,2\n",  # genes called like wells
        "id,C3,TP53\nAB,1,2\nCD,1,2\n",
        # long, not transposed
        "variable,value\n" + "".join(f"Cells_{i % 2},{i}\n" for i in range(6)),
    ):
        (tmp_path / "t.csv").write_text(text)
        assert len(read_parts(tmp_path / "t.csv").values) > 1
    assert parts_from_table(pd.DataFrame(np.eye(3), columns=symbols)).features == symbols


def test_entrez_ids_are_names(tmp_path):
    (tmp_path / "t.csv").write_text("sig_id,pert_id,5594,207\nS1,BRD,0.5,1\nS2,BRD,1,2\n")
    assert read_parts(tmp_path / "t.csv").features == ["5594", "207"]


def test_several_gzip_members(tmp_path):
    text = TABLE.drop(columns="Metadata_batch").to_csv(index=False).encode()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text[:1000]) + gzip.compress(text[1000:]))
    same(read_parts(tmp_path / "t.csv.gz"), parts_from_table(TABLE.drop(columns="Metadata_batch")))


# ---------------------------------------------------------------- wrong files


def zipped(member):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr(member, "x" * 100)
    return out.getvalue()


PLAIN = TABLE.drop(columns="Metadata_compound")
CSV = PLAIN.to_csv(index=False)
PARQUET = PLAIN.to_parquet()


def tarred(member):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        t.addfile(tarfile.TarInfo(member))
    return out.getvalue()


def transposed():
    return PLAIN.set_index("Metadata_Well").T.to_csv()


GCT = "#1.3\n2\t2\t1\t1\nid\tsymbol\ts1\ts2\npert_id\tna\tA\tB\n10\tTP53\t1\t2\n20\tMYC\t3\t4\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
WRONG = {  # name: (file, content, what the message must say)
    "pointer": (
        "t.csv.gz",
        POINTER,
        "is a Git LFS pointer, not the data; fetch it with git lfs pull",
    ),
    "pointer to parquet": ("t.parquet", POINTER, "git lfs pull"),
    "login page": ("t.csv", "<!DOCTYPE html>\n<html><title>Sign in</title>", "web page"),
    "login page compressed": ("t.csv.gz", gzip.compress(b"\n<HTML>"), "web page"),
    "workbook as csv": ("t.csv", zipped("[Content_Types].xml"), "save the sheet as CSV"),
    "workbook": ("t.xlsx", zipped("[Content_Types].xml"), "save the sheet as CSV"),
    "old workbook": ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel workbook"),
    "gzip as csv": ("t.csv", gzip.compress(CSV.encode()), "rename it t.csv.gz"),
    "bzip2 as gzip": ("t.csv.gz", bz2.compress(CSV.encode()), "holds bzip2"),
    "csv as gzip": ("t.csv.gz", CSV, "rename it t.csv"),
    "csv as zst": ("t.csv.zst", CSV, "rename it t.csv"),
    "zip as gzip": ("t.csv.gz", zipped("t.csv"), "unzip it"),
    "pickle as parquet": ("t.parquet", pickle.dumps(PLAIN), "Python pickle"),
    "pickle as csv": ("t.csv", pickle.dumps(PLAIN), "Python pickle"),
    "csv as parquet": ("t.parquet", CSV, "rename it t.csv"),
    "parquet as csv": ("t.csv", PARQUET, "rename it t.parquet"),
    "parquet in gzip": ("t.parquet.gz", gzip.compress(PARQUET), "decompress it first"),
    "gctx in gzip": ("t.gctx.gz", gzip.compress(b"\x89HDF"), "decompress it first"),
    "csv as h5ad": ("t.h5ad", CSV, "rename it t.csv"),
    "gct as txt": ("t.txt", GCT, "rename it t.gct"),
    "semicolons": (
        "t.csv",
        CSV.replace(",", ";"),
        "columns are separated by ';'; save it with commas and decimal points",
    ),
    "tabs in a csv": (
        "t.csv.gz",
        gzip.compress(CSV.replace(",", "\t").encode()),
        "rename it t.tsv.gz",
    ),
    "commas in a tsv": ("t.tsv", CSV, "rename it t.csv"),
    "decimal commas": ("t.tsv", 'Metadata_compound\tCells_A\nx\t"1,5"\n', "decimal point"),
    "same header twice": (
        "t.csv",
        CSV.splitlines()[0] + "\n" + CSV,
        "row 1 below the header holds",
    ),
    "second header": (
        "t.csv",
        "Metadata_compound,Cells_A,Cells_B\ntext,um,um2\nx,1,2\ny,1,3\n",
        "second header",
    ),
    "no header": ("t.csv", "c1,p1,.5,1.5,\nc2,p1,1.0,2.5,\n", "header row"),
    "cut in a row": ("t.csv", CSV[:-20], "different lengths"),
    "header only": ("t.csv", CSV.splitlines()[0], "no rows"),
    "header only parquet": ("t.parquet", PLAIN[:0].to_parquet(), "no rows"),
    "gct of another version": ("t.gct", "#1.0\n", "no GCT 1.2 or 1.3"),
    "gct with wrong counts": (
        "t.gct",
        GCT.replace("2\t2\t1\t1", "2\t3\t1\t1"),
        "line 3 has 4 cells, but by line 2 it should have 5",
    ),
    "gct cut short": (
        "t.gct",
        GCT[: GCT.index("20\t")],
        "has 1 feature row, but line 2 promises 2",
    ),
    "gct with text": (
        "t.gct",
        GCT.replace("\t4\n", "\thigh\n"),
        'feature 20, profile s2 holds "high"',
    ),
    "bars": ("t.csv", CSV.replace(",", "|"), "columns are separated by '|'; save it with commas"),
    "bars in a tsv": (
        "t.tsv",
        CSV.replace(",", "|"),
        "columns are separated by '|'; save it with commas",
    ),
    "semicolons below Excel's line": (
        "t.csv",
        "sep=;\n" + CSV.replace(",", ";"),
        "columns are separated by ';'",
    ),
    "tar archive": ("t.csv.gz", gzip.compress(tarred("t.csv")), "is a tar archive; unpack it"),
    "tar archive as csv": ("t.csv", tarred("t.csv"), "is a tar archive; unpack it"),
    "NUL in the header": ("t.csv", CSV.replace("_Plate", "_Pla\0te"), "line 1 holds a NUL byte"),
    "NUL in text": ("t.csv", CSV.replace(",A07,", ",A\x0007,"), "column 2 holds a NUL byte"),
    "NUL in a number": (
        "t.csv",
        "Metadata_compound,Cells_A\nx,1\ny,2\0\n",
        "column 2 holds a NUL byte",
    ),
    "NUL in a gct": ("t.gct", GCT.replace("TP53", "TP\x0053"), "column 2 holds a NUL byte"),
    "content in a nameless last column": (
        "t.csv",
        "Metadata_compound,Cells_A,\nx,1,\ny,2,3\n",
        "a column at the end has no name but is not empty",
    ),
    "only blank rows": ("t.csv", "Metadata_compound,Cells_A\n,\n,\n", "has no rows"),
    "transposed": (
        "t.csv",
        transposed(),
        "features stand in rows (such as Cells_F0); transpose the table",
    ),
    "transposed parquet": (
        "t.parquet",
        PLAIN.set_index("Metadata_Well").astype(str).T.to_parquet(),
        "features stand in rows (such as Cells_F0)",
    ),
    "transposed parquet, index with a name": (
        "t.parquet",
        PLAIN.set_index("Metadata_Well").astype(str).T.rename_axis(index="f").to_parquet(),
        "features stand in rows (such as Cells_F0)",
    ),
    "transposed genes in parquet": (
        "t.parquet",
        pd.DataFrame({"A01": [1.0, 2], "A02": [3.0, 4]}, index=["TP53", "MYC"]).to_parquet(),
        "features stand in rows (such as TP53)",
    ),
    "transposed genes": (
        "t.tsv",
        "gene\tA01\tA02\nTP53\t1\t2\nMYC\t3\t4\nAKT1\t5\t6\n",
        "features stand in rows (such as TP53)",
    ),
    "transposed probes": (
        "t.csv",
        ",sample_1,GSM1234\n1007_s_at,1,2\n200_at,3,4\n",
        "features stand in rows (such as 1007_s_at)",
    ),
    "zip": ("t.zip", zipped("t.csv"), "unzip it first"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_says_what_it_is(name, tmp_path):
    file, content, says = WRONG[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CpvaeError) as refusal:
        read_parts(tmp_path / file)
    message = str(refusal.value)
    assert (
        says in message
        and file in message
        and len(message.splitlines()) == 1
        and len(message) < 300
    )


# ---------------------------------------------------------------- parquet


def test_types_of_parquet_columns(tmp_path):
    n = 5
    table = pa.table(
        {
            "Metadata_compound": pa.array(list("abcab")).dictionary_encode(),
            "A": pa.array(range(n), pa.int64()),
            "B": pa.array([1.5, None, 2, 3, 4], pa.float64()),
            "C": pa.array(["1", "2", None, "4", "5e-1"]),
            "D": pa.array([1, 2, 3, 4, 5]).cast(pa.decimal128(22, 2)),
            "E": pa.array(["1", "2", "1", "2", "1"]).dictionary_encode(),
            "F": pa.array([1, None, 3, 4, 5], pa.uint8()),
            "G": pa.array(np.arange(n, dtype=np.float16)),
            "qc": [True] * n,
            "when": pa.array([0] * n, pa.timestamp("s")),
            "lists": [[1, 2]] * n,
            "__index_level_0__": range(n),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    parts = read_parts(tmp_path / "t.parquet")
    nan = np.nan
    expected = [
        [0, 1, 2, 3, 4],
        [1.5, nan, 2, 3, 4],
        [1, 2, nan, 4, 0.5],
        [1, 2, 3, 4, 5],
        [1, 2, 1, 2, 1],
        [1, nan, 3, 4, 5],
        [0, 1, 2, 3, 4],
    ]
    assert parts.features == list("ABCDEFG") and list(parts.metadata) == [
        "Metadata_compound",
        "Metadata_qc",
        "Metadata_when",
    ]
    np.testing.assert_array_equal(parts.values, np.float32(expected).T)
    assert any("lists" in note for note in parts.notes)


def test_features_in_the_rows_of_an_h5ad(tmp_path):
    data = as_anndata(parts_from_table(TABLE))
    AnnData(
        data.X.T, obs=pd.DataFrame(index=data.var_names), var=pd.DataFrame(index=data.obs_names)
    ).write_h5ad(tmp_path / "t.h5ad")
    with pytest.raises(CpvaeError, match="features stand in rows"):
        read_parts(tmp_path / "t.h5ad")


def test_lists_instead_of_columns(tmp_path):
    pd.DataFrame({"Metadata_compound": ["a"], "embedding": [[1.0, 2.0]]}).to_parquet(
        tmp_path / "t.parquet"
    )
    with pytest.raises(CpvaeError, match="embedding holds a list in every row"):
        read_parts(tmp_path / "t.parquet")


def test_text_in_a_parquet_feature(tmp_path):
    write(
        TABLE.astype({"Cells_F1": object}).assign(Cells_F1=["1"] * 30 + ["high"] * 10),
        tmp_path / "t.parquet",
    )
    with pytest.raises(CpvaeError, match='column Cells_F1, row 31 below the header holds "high"'):
        read_parts(tmp_path / "t.parquet")


def test_identifiers_are_text_in_every_format(tmp_path):
    table = pd.DataFrame(
        {
            "Metadata_Plate": [7.0, np.nan],
            "Metadata_pert_id": [1, 2],
            "Metadata_dose": [1, -666],
            "Metadata_site": ["-666", "01"],
            "Cells_A": [1.0, 2.0],
        }
    )
    for file in ("t.csv", "t.parquet"):
        metadata = read_parts(write(table, tmp_path / file)).metadata
        assert metadata["Metadata_Plate"].tolist() == ["7", None] and metadata[
            "Metadata_pert_id"
        ].tolist() == ["1", "2"]
        assert metadata["Metadata_site"].tolist() == [None, "01"] and metadata[
            "Metadata_dose"
        ].isna().tolist() == [False, True]


# ---------------------------------------------------------------- h5ad


def genes_h5ad(path, X, **more):
    obs = pd.DataFrame(
        {"compound": pd.Categorical(["a", None, "b"]), "dose_uM": [1.0, 2.0, np.nan]},
        index=["AAA-1", "AAC-1", "AAG-1"],
    )
    var = pd.DataFrame(
        {"gene_symbol": ["TP53", "MYC", "MYC", None]}, index=["E1", "E2", "E3", "E4"]
    )
    AnnData(X, obs=obs, var=var, **more).write_h5ad(path)
    return path


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix, csc_matrix, np.float64, np.int32])
def test_h5ad_of_others(kind, tmp_path):
    X = np.float32([[0, 1, 0, -2], [3, 0, 0, 0], [0, 0, 5, 6]])
    parts = read_parts(genes_h5ad(tmp_path / "t.h5ad", kind(X), layers={"big": X}))
    np.testing.assert_array_equal(parts.values, X)
    assert parts.values.dtype == np.float32 and parts.about is None and parts.notes == []
    assert parts.features == ["TP53", "E2", "E3", "E4"] and list(parts.feature_info["id"]) == [
        "E1",
        "E2",
        "E3",
        "E4",
    ]
    assert parts.metadata["Metadata_compound"].tolist() == ["a", None, "b"] and parts.metadata[
        "Metadata_id"
    ].tolist() == ["AAA-1", "AAC-1", "AAG-1"]


def test_counts_in_an_h5ad_are_noticed(tmp_path):
    assert (
        "raw counts"
        in read_parts(
            genes_h5ad(tmp_path / "t.h5ad", np.float32(np.arange(12).reshape(3, 4) * 5))
        ).notes[0]
    )


def test_hdf5_of_another_kind(tmp_path):
    AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=["g"])).write_h5ad(
        tmp_path / "t.h5ad"
    )
    with pytest.raises(CpvaeError, match="has no X"):
        read_parts(tmp_path / "t.h5ad")
    os.replace(tmp_path / "t.h5ad", tmp_path / "t.gctx")
    with pytest.raises(CpvaeError, match="rename it .h5ad"):
        read_parts(tmp_path / "t.gctx")
    with pytest.raises(CpvaeError, match="rename it .gctx"):
        read_parts(gctx(tmp_path / "u.h5ad")[0])
    with h5py.File(tmp_path / "v.h5ad", "w") as file:
        file["model"] = [1]
    with pytest.raises(CpvaeError, match="holds no AnnData"):
        read_parts(tmp_path / "v.h5ad")


# ---------------------------------------------------------------- GCT and GCTX


def gctx(path, n=30, n_genes=20, chunks=(7, 6), dtype="f4", marked=True):
    "A GCTX file by hand; its values, and what is known of its genes."
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n, n_genes)).astype(dtype)
    info = pd.DataFrame(
        {
            "pr_gene_id": 100 + np.arange(n_genes),
            "pr_gene_symbol": [f"G{i}" for i in range(n_genes)],
            "pr_is_lm": (np.arange(n_genes) % 3 == 1).astype(int),
        }
    )
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file.create_dataset("0/DATA/0/matrix", data=values, chunks=chunks)
        file["0/META/COL/id"] = np.array([f"S:{i}" for i in range(n)], "S")
        file["0/META/COL/pert_dose"] = [-666.0 if i == 2 else 0.5 * i for i in range(n)]
        file["0/META/COL/pert_iname"] = np.array(
            ["-666" if i == 1 else f"drug β{i % 4}" for i in range(n)], object
        )
        file["0/META/ROW/id"] = info["pr_gene_id"].astype(str).to_numpy("S")
        if marked:
            file["0/META/ROW/pr_is_lm"] = info["pr_is_lm"]
            file["0/META/ROW/pr_gene_symbol"] = info["pr_gene_symbol"].to_numpy("S")
    return path, values, info


@pytest.mark.parametrize("chunks", [None, (7, 6), (30, 1), (1, 20), (30, 20)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_only_landmarks_are_read(chunks, dtype, tmp_path, monkeypatch):
    path, values, info = gctx(tmp_path / "t.gctx", chunks=chunks, dtype=dtype)
    is_landmark = info["pr_is_lm"] == 1
    parts = read_parts(path)
    np.testing.assert_array_equal(parts.values, values[:, is_landmark].astype(np.float32))
    assert parts.features == list(info.pr_gene_symbol[is_landmark]) and list(
        parts.feature_info["id"]
    ) == list(info.pr_gene_id[is_landmark].astype(str))
    assert parts.notes == [
        "7 landmark genes of 20 are read; the others are inferred from them."
        " `all_genes=True` reads all."
    ]
    everything = read_parts(path, all_genes=True)
    np.testing.assert_array_equal(everything.values, values.astype(np.float32))
    assert everything.notes == [] and everything.metadata["Metadata_id"].tolist() == [
        f"S:{i}" for i in range(30)
    ]
    assert everything.metadata["Metadata_pert_iname"][:4].tolist() == [
        "drug β0",
        None,
        "drug β2",
        "drug β3",
    ]
    assert everything.metadata["Metadata_pert_dose"].isna().tolist() == [i == 2 for i in range(30)]


@pytest.mark.parametrize("budget", [1, 10, 50, 10_000])
@pytest.mark.parametrize("chunks", [None, (7, 6), (30, 1), (1, 20)])
def test_blocks_of_hdf5(budget, chunks, tmp_path):
    from cpvae.io.gct import _pick_columns

    path, values, _ = gctx(tmp_path / "t.gctx", chunks=chunks)
    with h5py.File(path) as file:
        for places in (
            [0],
            [19, 3, 4],
            list(range(20)),
            list(range(19, -1, -1)),
            list(range(1, 20)),
            [5, 6, 12],
        ):
            np.testing.assert_array_equal(
                _pick_columns(file["0/DATA/0/matrix"], np.array(places), budget), values[:, places]
            )


def test_tables_beside_a_gctx(tmp_path):
    path, values, info = gctx(tmp_path / "t.gctx", marked=False)
    genes = info.sample(frac=1, random_state=1)
    genes.to_csv(tmp_path / "gene_info.txt.gz", sep="\t", index=False)
    sig = pd.DataFrame(
        {
            "pert_id": [f"BRD-{i % 3}" for i in range(30)],
            "sig_id": [f"S:{i}" for i in range(30)],
            "pert_idose": "-666",
            "rank": range(30),
        }
    )
    sig.sample(frac=1, random_state=2).drop(index=5).to_csv(
        tmp_path / "sig_info.txt", sep="\t", index=False
    )
    parts = read_parts(
        path, profile_info=tmp_path / "sig_info.txt", feature_info=tmp_path / "gene_info.txt.gz"
    )
    np.testing.assert_array_equal(parts.values, values[:, info.pr_is_lm == 1])
    assert parts.features == list(info.pr_gene_symbol[info.pr_is_lm == 1])
    assert parts.metadata["Metadata_pert_id"].tolist() == [
        None if i == 5 else f"BRD-{i % 3}" for i in range(30)
    ]
    assert parts.metadata["Metadata_pert_idose"].isna().all() and parts.metadata[
        "Metadata_rank"
    ].tolist()[:3] == [0, 1, 2]
    assert (
        "sig_info.txt describes 29 of 30 profiles, found by its sig_id; 1 profile not in it."
        in parts.notes
    )
    (tmp_path / "other.tsv").write_text("sig_id\tx\nnobody\t1\n")
    with pytest.raises(
        CpvaeError,
        match='other.tsv: none of its columns .* names the profiles of t.gctx such as "S:0"',
    ):
        read_parts(path, profile_info=tmp_path / "other.tsv")
    with pytest.raises(
        CpvaeError,
        match='other.tsv: none of its columns .* names the features of t.gctx such as "100"',
    ):
        read_parts(path, feature_info=tmp_path / "other.tsv")


def test_a_table_beside_a_csv_names_its_entrez_genes(tmp_path):
    pd.DataFrame({"pr_gene_id": [5594, 207], "pr_gene_symbol": ["MAPK1", "AKT1"]}).to_csv(
        tmp_path / "genes.csv", index=False
    )
    (tmp_path / "t.csv").write_text("Metadata_JCP2022,5594,207\nJ1,0.5,1\nJ1,1,2\nJ2,1,3\n")
    pd.DataFrame({"Metadata_JCP2022": ["J2", "J1"], "Metadata_InChIKey": ["K2", "K1"]}).to_parquet(
        tmp_path / "compounds.parquet"
    )
    parts = read_parts(
        tmp_path / "t.csv",
        feature_info=tmp_path / "genes.csv",
        profile_info=tmp_path / "compounds.parquet",
    )
    assert parts.features == ["MAPK1", "AKT1"] and list(parts.feature_info["id"]) == ["5594", "207"]
    assert parts.metadata["Metadata_InChIKey"].tolist() == ["K1", "K1", "K2"]


@pytest.mark.parametrize("all_genes", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_missing_values_of_clue(all_genes, dtype, tmp_path):
    path, values, info = gctx(tmp_path / "t.gctx", dtype=dtype)
    with h5py.File(path, "r+") as file:
        file["0/DATA/0/matrix"][3, [4, 5]] = -666
        file["0/DATA/0/matrix"][4, 4] = -66.6
    values[3, [4, 5]], values[4, 4] = np.nan, -66.6
    np.testing.assert_array_equal(
        read_parts(path, all_genes=all_genes).values,
        np.float32(values if all_genes else values[:, info.pr_is_lm == 1]),
    )
    (tmp_path / "t.gct").write_text(GCT.replace("\t3\t", "\t-666\t").replace("\t2\n", "\t-666.0\n"))
    np.testing.assert_array_equal(
        read_parts(tmp_path / "t.gct").values, np.float32([[1, np.nan], [np.nan, 4]])
    )


def test_two_rows_for_one_profile(tmp_path):
    path, *_ = gctx(tmp_path / "t.gctx")
    sig = pd.DataFrame(
        {"sig_id": [f"S:{i}" for i in range(29)], "pert_id": [f"BRD-{i % 3}" for i in range(29)]}
    )
    pd.concat(
        [
            sig,
            sig[3:5],
            sig[7:8].assign(pert_id="other"),
            sig[:1].assign(sig_id="elsewhere"),
            sig[1:2].assign(sig_id="elsewhere"),
        ]
    ).to_csv(tmp_path / "sig.csv", index=False)
    parts = read_parts(path, profile_info=tmp_path / "sig.csv")
    assert (
        parts.notes[-1]
        == "sig.csv describes 28 of 30 profiles, found by its sig_id; 1 profile not in it; left out"
        " because it has different rows for them: S:7."
    )
    assert parts.metadata["Metadata_pert_id"].tolist() == [
        None if i in (7, 29) else f"BRD-{i % 3}" for i in range(30)
    ]


@pytest.mark.parametrize("file", ["t.gct", "t.gct.gz"])
def test_gct(file, tmp_path):
    (tmp_path / file).write_bytes(
        gzip.compress(GCT.encode())
        if file.endswith("gz")
        else GCT.replace("\t3\t", "\tna\t").encode()
    )
    parts = read_parts(tmp_path / file)
    np.testing.assert_array_equal(
        parts.values, np.float32([[1, 3 if file.endswith("gz") else np.nan], [2, 4]])
    )
    assert (parts.features, list(parts.feature_info["id"]), parts.metadata.to_dict("list")) == (
        ["TP53", "MYC"],
        ["10", "20"],
        {"Metadata_id": ["s1", "s2"], "Metadata_pert_id": ["A", "B"]},
    )


def test_gct_12(tmp_path):
    (tmp_path / "t.gct").write_text(
        '#1.2\n1\t3\nName\tDescription\ts1\ts2\ts3\n10\ta "gene"\t1\t2\t3\n'
    )
    parts = read_parts(tmp_path / "t.gct")
    assert (parts.values.tolist(), parts.features, parts.feature_info["Description"].tolist()) == (
        [[1], [2], [3]],
        ["10"],
        ['a "gene"'],
    )


# ---------------------------------------------------------------- several files


def test_files_below_each_other(tmp_path):
    a, b = make_table(10, 6, 1), make_table(12, 6, 2)
    a = a.drop(columns="Cells_F1")[
        [*a.columns[:10], "Cells_F5", "Cells_F0", "Cells_F2", "Cells_F3"]
    ]
    b = b.drop(columns=["Cells_F3", "Metadata_nothing"]).assign(
        Metadata_count="x1", Metadata_more=1
    )
    (
        write(b, tmp_path / "b.csv.gz"),
        write(a, tmp_path / "a.csv.gz"),
        (tmp_path / "README.md").write_text("x"),
        (tmp_path / ".hidden.csv").write_text("x"),
    )
    folder = read_parts(tmp_path)
    listed_files = read_parts([tmp_path / "b.csv.gz", str(tmp_path / "a.csv.gz")])
    same(folder, listed_files, notes=True)
    assert folder.features == ["Cells_F5", "Cells_F0", "Cells_F2"] and len(folder.values) == 22
    np.testing.assert_array_equal(
        folder.values, pd.concat([a, b])[folder.features].to_numpy(np.float32)
    )
    assert folder.metadata["Metadata_count"].tolist() == [str(i) for i in range(10)] + ["x1"] * 12
    assert folder.metadata["Metadata_more"].isna().sum() == 10 and folder.metadata[
        "Metadata_Plate"
    ].tolist() == [*a.Metadata_Plate, *b.Metadata_Plate]
    assert folder.notes[:2] == [
        "2 files are read as one table: 3 features in all of them.",
        "Left out because not in every file: 3 features, Cells_F3, Cells_F1, Cells_F4.",
    ]


def test_a_file_is_a_plate_if_nothing_else_is(tmp_path):
    for name in ("SQ1.norm", "SQ2.norm"):
        write(TABLE.drop(columns="Metadata_Plate"), tmp_path / f"{name}.csv.gz")
    parts = read_parts(tmp_path)
    assert parts.metadata["Metadata_Plate"].tolist() == ["SQ1.norm"] * 40 + ["SQ2.norm"] * 40
    assert sum("taken for one plate" in note for note in parts.notes) == 1
    assert "Metadata_Plate" not in read_parts(tmp_path / "SQ1.norm.csv.gz").metadata


@pytest.mark.parametrize(
    "name, content, says",
    [
        (
            "README.txt",
            "Plates of one experiment.\n\nAsk Ada.\n",
            "README.txt: has no feature columns",
        ),
        ("README.txt", "One line", "has no rows"),
        ("notes.txt", "a\tb\nc\n", "different lengths"),
        (
            "platemap.csv",
            "well_position,broad_sample\nA01,BRD-1\n",
            "platemap.csv: has no feature columns",
        ),
        ("platemap.csv", "well_position,volume\nA01,1.5\n", "and platemap.csv share no feature"),
        ("latin.txt", b"caf\xe9\nx\n", "not UTF-8"),
    ],
)
def test_what_lies_beside_the_plates(name, content, says, tmp_path):
    write(TABLE, tmp_path / "P1.csv"), write(TABLE, tmp_path / "P2.csv")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CpvaeError, match="or name the files to read") as refusal:
        read_parts(tmp_path)
    assert (
        says in str(refusal.value)
        and "elsewhere" in str(refusal.value)
        and len(str(refusal.value)) < 300
    )
    assert len(read_parts([tmp_path / "P1.csv", tmp_path / "P2.csv"]).values) == 80
    if "no feature columns" in says:
        with pytest.raises(CpvaeError) as alone:
            read_parts(tmp_path / name)
        assert "elsewhere" not in str(alone.value)


def test_one_file_given_twice(tmp_path, monkeypatch):
    write(TABLE, tmp_path / "a.csv"), (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for paths in (["a.csv", "a.csv"], ["a.csv", tmp_path / "a.csv"], ["a.csv", "sub/../a.csv"]):
        with pytest.raises(CpvaeError, match="a.csv: is given twice; keep one"):
            profile_files(paths)
    write(TABLE, tmp_path / "a.csv.gz"), write(TABLE, tmp_path / "sub" / "a.csv")
    with pytest.raises(CpvaeError, match="a.csv.gz: is given twice, also as a.csv; keep one"):
        profile_files(tmp_path)
    assert len(profile_files(["a.csv", "sub/a.csv"])) == 2  # plates of one name in two folders
    (tmp_path / "a.csv.gz").unlink(), (tmp_path / "link.csv").symlink_to("a.csv")
    with pytest.raises(CpvaeError, match="link.csv: is given twice, also as a.csv"):
        profile_files(tmp_path)


def test_files_that_do_not_go_together(tmp_path):
    with pytest.raises(CpvaeError, match="is a folder without"):
        read_parts(tmp_path)
    with pytest.raises(CpvaeError, match="no file is given"):
        profile_files([])
    write(TABLE, tmp_path / "a.csv"), write(GENES, tmp_path / "b.csv")
    with pytest.raises(CpvaeError, match="a.csv and b.csv share no feature"):
        read_parts(tmp_path)
    write(TABLE, tmp_path / "b.parquet")
    with pytest.raises(CpvaeError, match="a.csv and b.parquet are files of different kinds"):
        read_parts([tmp_path / "a.csv", tmp_path / "b.parquet"])
    (
        write_profiles(as_anndata(parts_from_table(TABLE)), tmp_path / "c.h5ad"),
        write_profiles(as_anndata(parts_from_table(TABLE)), tmp_path / "d.h5ad"),
    )
    with pytest.raises(CpvaeError, match="c.h5ad: was written by cpvae"):
        read_parts([tmp_path / "c.h5ad", tmp_path / "d.h5ad"])


# ---------------------------------------------------------------- small tables, cost


def test_small_tables(tmp_path):
    table = pd.DataFrame(
        {
            "broad_id": ["B1", "B2"],
            "moa": ["a|b", None],
            "n": [1, 2],
            "well": ["01", "2"],
            "is": [True, False],
        },
        dtype=object,
    ).astype({"n": int, "is": bool})
    for file in ("t.csv", "t.tsv.gz", "t.parquet", "t.csv.zst"):
        pd.testing.assert_frame_equal(read_table(write(table, tmp_path / file)), table)
    (tmp_path / "hub.txt").write_text('!Citation\tx\n!Version\nbroad_id\tmoa\nB1\tA, "B"\n')
    assert read_table(tmp_path / "hub.txt").to_dict("list") == {
        "broad_id": ["B1"],
        "moa": ['A, "B"'],
    }
    with pytest.raises(CpvaeError, match="a table is expected"):
        (tmp_path / "t.gct").write_text(GCT)
        read_table(tmp_path / "t.gct")


def test_names_that_are_too_long(tmp_path):
    name = "Cells_" + "x" * 10_000
    for text in (
        f"Metadata_a,{name}\nb,high\n",
        f"{name},{name}\n1,2\n",
        f"Metadata_{name},{name[6:]}\nb,high\nc,1\nd,2\n",
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(CpvaeError) as refusal:
            read_parts(tmp_path / "t.csv")
        assert len(str(refusal.value)) < 400


def test_counting_and_listing():
    assert (
        counted(1, "row") == "1 row"
        and counted(1234, "row") == "1,234 rows"
        and listed(list("abcdef"), 2) == "a, b and 4 more"
    )
    assert Parts([], np.empty((0, 0), np.float32), pd.DataFrame()).notes == []


def test_a_refusal_needs_no_slow_import(tmp_path):
    code = textwrap.dedent("""
        import sys, cpvae.io.read as c
        try: c.read_parts("nowhere.csv")
        except c.CpvaeError: pass
        heavy = {"pyarrow.csv", "h5py", "torch", "anndata", "sklearn", "scipy"}
        print(*heavy & set(sys.modules))
    """)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_memory_grows_with_the_values_alone(tmp_path):
    """What 12,000 rows of parquet more cost at the peak, beside the 19 MB of their values; pandas
    takes 4 times as much.
    """
    values = (
        np.random.default_rng(0)
        .standard_normal((18_000, 400))
        .astype(np.float16)
        .astype(np.float32)
    )
    peak = {}
    code = textwrap.dedent("""
        import sys
        from cpvae.io.read import read_parts
        read_parts(sys.argv[1])
        # not ru_maxrss, which a child inherits from its parent
        print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
    """)
    for n in (6_000, 18_000):
        features = pd.DataFrame(values[:n], columns=[f"Cells_{i}" for i in range(400)])
        write_profiles(
            as_anndata(parts_from_table(features.assign(Metadata_compound="c"))),
            tmp_path / f"{n}.parquet",
        )
        out = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{n}.parquet")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peak[n] = int(out) * 1024
    assert peak[18_000] - peak[6_000] < 3 * values.nbytes * 2 / 3
