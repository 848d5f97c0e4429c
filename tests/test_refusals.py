"""What cannot be used is refused: exit code 2, one line that names the file and says what to do,
and nothing written.

Each case below makes its bad input in an empty folder and gives the command; `says` are words that
the line must hold. Good input of every format goes through the same command first, so that a
refusal is due to what was spoilt.
"""

import bz2
import ctypes
import gzip
import hashlib
import http.server
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from running import cli

from cpvae.profiles.pairs import describe_profiles
from cpvae.profiles.read import read_profiles
from cpvae.datasets import DATASETS

# name -> (function of a folder that gives the command's arguments, words of the message)
CASES = {}


def bad(*says):
    "Register a bad input."
    return lambda make: CASES.setdefault(make.__name__, (make, says)) and make


def good(n_doses=3):
    "A small table of profiles with nothing wrong: 8 compounds at 3 doses, 6 controls, on 2 plates."
    rng, n = np.random.default_rng(1), 6 + 8 * n_doses
    compound = ["DMSO"] * 6 + [f"cpd{i}" for i in range(8) for _ in range(n_doses)]
    moa = [""] * 6 + [
        m for m in ("a", "a", "b", "b", "a|b", "a|b", "c", "") for _ in range(n_doses)
    ]
    dose = [0.0] * 6 + [0.1, 1.0, 10.0] * 8
    table = pd.DataFrame(
        {
            "Metadata_compound": compound,
            "Metadata_dose_uM": dose[:n],
            "Metadata_Plate": [f"P{i % 2}" for i in range(n)],
        }
    )
    table = table.assign(
        Metadata_Well=[f"{chr(65 + i // 12)}{i % 12 + 1:02d}" for i in range(n)], Metadata_moa=moa
    )
    features = [
        f"{c}_{f}"
        for c in ("Cells", "Nuclei")
        for f in (
            "AreaShape_Area",
            "Intensity_MeanIntensity_DNA",
            "Texture_Contrast_ER_5_0",
            "Granularity_1_RNA",
        )
    ]
    return pd.concat(
        [table, pd.DataFrame(rng.standard_normal((n, 8)).round(4), columns=features)], axis=1
    )


AREA = "Cells_AreaShape_Area"


def csv(folder, table=None, name="bad.csv", **options):
    "Write a table as CSV and give the command that reads it."
    (good() if table is None else table).to_csv(folder / name, index=False, **options)
    return ["run", name]


def text(folder, content, name="bad.csv"):
    "Write text or bytes and give the command that reads it."
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return ["run", name]


def good_csv():
    return good().to_csv(index=False)


def adata(table=None, **changes):
    "The good table as AnnData."
    from anndata import AnnData

    table = good() if table is None else table
    x = table.filter(regex="^(Cells|Nuclei)_")
    obs = table.drop(columns=x.columns).set_axis(table.index.astype(str))
    return AnnData(
        **{"X": x.to_numpy(np.float32), "obs": obs, "var": pd.DataFrame(index=x.columns)} | changes
    )


def h5ad(folder, data, name="bad.h5ad"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.write_h5ad(folder / name)
    return ["run", name]


def gct(folder, change=lambda text: text, name="bad.gct"):
    "The good table as GCT 1.3: features as rows."
    table = good()
    x = table.filter(regex="^(Cells|Nuclei)_")
    about = {
        "pert_iname": table.Metadata_compound,
        "pert_dose": table.Metadata_dose_uM,
        "pert_dose_unit": ["um"] * len(table),
    }
    rows = [
        "#1.3",
        f"{x.shape[1]}\t{len(x)}\t1\t{len(about)}",
        "\t".join(["id", "description", *(f"s{i}" for i in range(len(x)))]),
    ]
    rows += ["\t".join([name, "na", *map(str, column)]) for name, column in about.items()]
    rows += ["\t".join([name, "what", *map(str, x[name])]) for name in x]
    return text(folder, change("\n".join(rows) + "\n"), name)


def gctx(folder, name="bad.gctx", signatures=None):
    "The good table as GCTX, with sig_info and gene_info beside it."
    import h5py

    table = good()
    x = table.filter(regex="^(Cells|Nuclei)_").to_numpy(np.float32)
    ids = [f"sig{i}" for i in range(len(x))]
    with h5py.File(folder / name, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file["0/DATA/0/matrix"] = x
        file["0/META/COL/id"] = np.array(ids, "S")
        file["0/META/ROW/id"] = np.array([str(780 + i) for i in range(8)], "S")
    dose = [f"{d} um" for d in table.Metadata_dose_uM]
    info = pd.DataFrame(
        {
            "sig_id": signatures or ids,
            "pert_iname": table.Metadata_compound,
            "pert_type": "trt_cp",
            "pert_idose": dose,
            "pert_itime": "24 h",
            "cell_id": "A549",
        }
    )
    info.to_csv(folder / "sig_info.txt", sep="\t", index=False)
    genes = pd.DataFrame(
        {
            "pr_gene_id": range(780, 788),
            "pr_gene_symbol": ["DDR1", "RFC2", "HSPA6", "PAX8", "GUCA1A", "UBA7", "THRA", "PTPN21"],
            "pr_is_lm": [1] * 6 + [0] * 2,
        }
    )
    genes.to_csv(folder / "gene_info.txt", sep="\t", index=False)
    return [
        "run",
        name,
        "--profile-info",
        "sig_info.txt",
        "--feature-info",
        "gene_info.txt",
        "--control",
        "DMSO",
    ]


def truncated(folder, name, share=0.5):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    return ["run", name]


def shell(*arguments, cwd, **options):
    "Run the command in a process of its own."
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(
        [Path(sys.executable).parent / "cpvae", *map(str, arguments)],
        cwd=cwd,
        check=False,
        **options,
    )


def refused(done, *says):
    "One line on stderr, exit code 2, and the words that must be there."
    code = getattr(done, "returncode", getattr(done, "exit_code", None))
    assert "Traceback" not in done.stderr, done.stderr
    assert (code, done.stdout) == (2, ""), (
        code,
        done.stdout,
        done.stderr,
        getattr(done, "exception", None),
    )
    assert done.stderr.startswith("cpvae: ") and len(done.stderr.splitlines()) == 1, done.stderr
    # a path or an address is as long as it is
    assert len(re.sub(r"\S*/\S+", "PLACE", done.stderr)) < 400, done.stderr
    for word in says:
        assert word.casefold() in done.stderr.casefold(), f"{word!r} is not in: {done.stderr}"


def contents(folder):
    "Every file below a folder, with its bytes."
    return {
        p.relative_to(folder).as_posix(): (
            hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
        )
        for p in sorted(folder.rglob("*"))
    }


# ---- good input, so that each refusal below is due to what was spoilt ----------------------------


def all_formats(folder):
    "The good table in every format: the commands that read it."
    import pyarrow as pa

    for name in ("a.csv", "a.csv.gz", "a.csv.bz2"):
        yield csv(folder, name=name)
    (folder / "a.csv.zst").write_bytes(pa.compress(good_csv().encode(), "zstd", asbytes=True))
    yield ["run", "a.csv.zst"]
    yield csv(folder, name="a.tsv", sep="\t")
    good().to_parquet(folder / "a.parquet")
    yield ["run", "a.parquet"]
    yield h5ad(folder, adata(), "a.h5ad")
    yield gct(folder, name="a.gct")
    yield gctx(folder, "a.gctx")
    (folder / "plates").mkdir()
    csv(folder, good()[lambda t: t.Metadata_Plate == "P0"], "plates/p0.csv")
    csv(folder, good()[lambda t: t.Metadata_Plate == "P1"], "plates/p1.csv")
    yield ["run", "plates"]
    yield ["run", "plates/p0.csv", "plates/p1.csv"]


def test_good_input_of_every_format_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in all_formats(tmp_path):
        done = cli("info", *command[1:])
        assert done.exit_code == 0, (command, done.stderr, done.exception)
        facts = dict(
            line.split(maxsplit=1)
            for line in done.stdout.splitlines()
            if line[:1] != " " and len(line.split()) == 2
        )
        assert facts["profiles"] == "30" and facts["compounds"] == "8", (command, done.stdout)
        assert facts["features"] == ("6" if "a.gctx" in command else "8"), (command, done.stdout)


def test_names_in_any_script_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "cpd0": "α-amanitin",
        "cpd1": "ドキソルビシン",
        "cpd2": '1,1\'-azo, "quoted"',
        "cpd3": "café ☕",
        "cpd4": "N\u0303 combined",
    }
    table = good().replace({"Metadata_compound": names})
    table.Metadata_moa = table.Metadata_moa.replace({"a": "β-Hemmer", "a|b": "β-Hemmer|b"})
    csv(tmp_path, table, "größe 表.csv")
    h5ad(tmp_path, adata(table), "größe 表.h5ad")
    for name in ("größe 表.csv", "größe 表.h5ad"):
        done = cli("info", name)
        assert done.exit_code == 0, done.stderr
        assert "β-Hemmer|b" in done.stdout and "größe 表" in done.stdout


def lines_of(change):
    "The good table as text, its lines changed one by one."
    return lambda folder: text(
        folder,
        "".join(change(i, line) for i, line in enumerate(good_csv().splitlines())),
        "odd.csv",
    )


def parquet(change):
    "The good table as parquet, changed."
    return lambda folder: (
        change(good()).to_parquet(folder / "odd.parquet") or ["run", "odd.parquet"]
    )


def numbers(change):
    "A change of every feature column."
    return lambda table: table.assign(**{name: change(table[name]) for name in table.columns[5:]})


def categories(folder):
    data = adata()
    for name in ("Metadata_compound", "Metadata_moa", "Metadata_Plate"):
        data.obs[name] = (
            data.obs[name].replace("", None).astype("category").cat.add_categories(["unused"])
        )
    return h5ad(folder, data, "odd.h5ad")


def extras(folder):
    data = adata()
    data.layers["complex"], data.obsm["X_pca"], data.uns["colours"] = (
        data.X.astype(np.complex64),
        data.X[:, :2],
        {"a": [1, 2]},
    )
    data.raw, data.obs_names = data.copy(), ["same"] * len(data)
    return h5ad(folder, data, "odd.h5ad")


def sparse(folder):
    from scipy.sparse import csc_matrix

    return h5ad(folder, adata(X=csc_matrix(adata().X)), "odd.h5ad")


ODD = {
    "byte order mark": lambda folder: text(folder, "\ufeff" + good_csv(), "odd.csv"),
    "mixed line endings": lines_of(lambda i, line: line + ("\r\n" if i % 2 else "\n")),
    "carriage returns": lines_of(lambda i, line: line + "\r"),
    "no newline at the end": lambda folder: text(folder, good_csv().rstrip(), "odd.csv"),
    "everything quoted": lambda folder: csv(folder, name="odd.csv", quoting=1),
    "spaces in the header": lambda folder: csv(
        folder, good().rename(columns=lambda name: f" {name} "), "odd.csv"
    ),
    "spaces in cells": lambda folder: csv(
        folder,
        good().assign(
            Metadata_compound=[
                f" {c}" if i % 2 else f"{c} " for i, c in enumerate(good().Metadata_compound)
            ]
        ),
        "odd.csv",
    ),
    "newline in a cell": lambda folder: csv(
        folder, good().replace({"Metadata_compound": {"cpd1": "c\npd1"}}), "odd.csv"
    ),
    "saved row index": lambda folder: good().to_csv(folder / "odd.csv") or ["run", "odd.csv"],
    "suffix in capitals": lambda folder: csv(folder, name="ODD.CSV"),
    "gzip in two members": lambda folder: text(
        folder,
        b"".join(
            gzip.compress(good_csv().encode()[part]) for part in (slice(700), slice(700, None))
        ),
        "odd.csv.gz",
    ),
    "doses with their unit": lambda folder: csv(
        folder,
        good().assign(Metadata_dose_uM=[f"{d:g} µM" for d in good().Metadata_dose_uM]),
        "odd.csv",
    ),
    "doses in nM": lambda folder: csv(
        folder,
        good()
        .assign(Metadata_conc_nM=good().Metadata_dose_uM * 1000)
        .drop(columns="Metadata_dose_uM"),
        "odd.csv",
    ),
    "dmso in small letters": lambda folder: csv(
        folder, good().replace({"Metadata_compound": {"DMSO": "dmso"}}), "odd.csv"
    ),
    "parquet with metadata in its index": parquet(
        lambda table: table.set_index(["Metadata_compound", "Metadata_Plate"])
    ),
    "parquet of numbers as text": parquet(numbers(lambda column: column.map(str))),
    "parquet of half precision": parquet(numbers(lambda column: column.astype("float16"))),
    "parquet of nullable types": parquet(lambda table: table.convert_dtypes()),
    "parquet of categories": parquet(
        lambda table: table.astype({name: "category" for name in table.columns[:5]})
    ),
    "h5ad of categories, some unused": categories,
    "h5ad with layers, raw and repeated row names": extras,
    "h5ad of sparse columns": sparse,
    "comments above the header": lambda folder: text(
        folder, "# by a script, today\n" + good_csv(), "odd.csv"
    ),
    "the first line of Excel": lambda folder: text(folder, "sep=,\n" + good_csv(), "odd.csv"),
    "a comma at the end of each line": lines_of(lambda i, line: f"{line},\n"),
    "blank rows of a spreadsheet": lambda folder: text(
        folder, good_csv() + ("," * 12 + "\n") * 5, "odd.csv"
    ),
    "prefix in small letters": lambda folder: csv(
        folder,
        good().rename(columns=lambda name: name.replace("Metadata_", "metadata_")),
        "odd.csv",
    ),
    "gct with carriage returns": lambda folder: gct(
        folder, lambda t: t.replace("\n", "\r\n"), "odd.gct"
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_good_files_are_read_alike(name, tmp_path):
    _, *paths = ODD[name](tmp_path)
    facts = describe_profiles(read_profiles(tmp_path / paths[0]))
    values = read_profiles(tmp_path / paths[0]).to_df()
    assert (
        facts["profiles"],
        facts["compounds"],
        facts["control rows"],
        facts["exact copies"],
    ) == (30, 8, 6, 0)
    assert facts["dose levels (µM)"] == pytest.approx([0.1, 1, 10])
    assert facts["evaluable pairs"] == ([] if "gct" in name else ["a|b"])
    np.testing.assert_allclose(values, good().iloc[:, 5:], atol=2e-3 if "half" in name else 1e-6)


# ---- files that are cut short, damaged, or not what they are called ------------------------------


@bad("bad.csv.gz", "again")
def truncated_gzip(folder):
    csv(folder, name="bad.csv.gz")
    return truncated(folder, "bad.csv.gz")


@bad("bad.csv.gz", "again")
def truncated_gzip_of_its_last_byte(folder):
    csv(folder, name="bad.csv.gz")
    return truncated(folder, "bad.csv.gz", 0.999)


@bad("bad.csv.gz", "again")
def gzip_with_a_flipped_bit(folder):
    whole = bytearray(gzip.compress(good_csv().encode()))
    whole[len(whole) // 2] ^= 16
    return text(folder, bytes(whole), "bad.csv.gz")


@bad("bad.csv.bz2", "again")
def truncated_bz2(folder):
    return text(folder, bz2.compress(good_csv().encode())[:-40], "bad.csv.bz2")


@bad("bad.csv.zst", "again")
def truncated_zst(folder):
    import pyarrow as pa

    return text(folder, pa.compress(good_csv().encode(), "zstd", asbytes=True)[:-40], "bad.csv.zst")


@bad("bad.parquet", "again")
def truncated_parquet(folder):
    good().to_parquet(folder / "bad.parquet")
    return truncated(folder, "bad.parquet")


@bad("bad.parquet", "again")
def parquet_damaged_in_the_middle(folder):
    good().to_parquet(folder / "bad.parquet")
    whole = bytearray((folder / "bad.parquet").read_bytes())
    whole[4:400] = bytes(396)
    return text(folder, bytes(whole), "bad.parquet")


@bad("bad.h5ad", "again")
def truncated_h5ad(folder):
    h5ad(folder, adata())
    return truncated(folder, "bad.h5ad")


@bad("bad.gctx", "again")
def truncated_gctx(folder):
    command = gctx(folder)
    truncated(folder, "bad.gctx")
    return command


@bad("bad.csv", "row")
def csv_cut_in_the_middle_of_a_row(folder):
    return text(folder, good_csv()[:-25])


@bad("bad.csv.gz")
def zip_called_csv_gz(folder):
    with zipfile.ZipFile(folder / "bad.csv.gz", "w") as archive:
        archive.writestr("a.csv", good_csv())
        archive.writestr("b.csv", good_csv())
    return ["run", "bad.csv.gz"]


@bad("bad.parquet")
def pickle_called_parquet(folder):
    return text(folder, pickle.dumps(good()), "bad.parquet")


@bad("bad.h5ad")
def csv_called_h5ad(folder):
    return csv(folder, name="bad.h5ad")


def workbook(folder, name):
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return ["run", name]


@bad("bad.xlsx", "csv")
def excel_workbook(folder):
    return workbook(folder, "bad.xlsx")


@bad("bad.csv", "csv")
def excel_workbook_called_csv(folder):
    return workbook(folder, "bad.csv")


LFS = (
    "version https://git-lfs.github.com/spec/v1\noid"
    " sha256:8b65f4825f9eefac30be2ccdf88c8c3dcbd3c4128144190267f300d9aa77906d\nsize 69381403\n"
)


@bad("bad.csv.gz", "git lfs")
def lfs_pointer(folder):
    return text(folder, LFS, "bad.csv.gz")


@bad("bad.csv", "git lfs")
def lfs_pointer_as_csv(folder):
    return text(folder, LFS, "bad.csv")


@bad("bad.parquet", "git lfs")
def lfs_pointer_as_parquet(folder):
    return text(folder, LFS, "bad.parquet")


@bad("bad.gctx", "git lfs")
def lfs_pointer_as_gctx(folder):
    return text(folder, LFS, "bad.gctx")


PAGE = (
    "<!DOCTYPE html>\n<html><head><title>404: Not Found</title></head><body>no, such,"
    " page</body></html>\n"
)


@bad("bad.csv", "web page")
def html_page(folder):
    return text(folder, PAGE)


@bad("bad.csv.gz", "web page")
def html_page_called_csv_gz(folder):
    return text(folder, PAGE, "bad.csv.gz")


@bad("bad.h5ad")
def hdf5_that_is_no_h5ad(folder):
    import h5py

    with h5py.File(folder / "bad.h5ad", "w") as file:
        file["numbers"] = np.arange(10)
    return ["run", "bad.h5ad"]


@bad("bad.gctx")
def hdf5_that_is_no_gctx(folder):
    import h5py

    with h5py.File(folder / "bad.gctx", "w") as file:
        file["numbers"] = np.arange(10)
    return ["run", "bad.gctx"]


@bad("bad.csv", "utf-8")
def latin_1_text(folder):
    return text(folder, good_csv().replace("cpd1", "caf\xe9").encode("latin-1"))


@bad("bad.csv", "utf-8")
def utf_16_text(folder):
    return text(folder, good_csv().encode("utf-16"))


@bad("bad.csv")
def random_bytes(folder):
    return text(folder, np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())


# ---- tables of the wrong shape -------------------------------------------------------------------


@bad("bad.csv", "empty")
def empty_file(folder):
    return text(folder, "")


@bad("bad.csv.gz", "nothing")
def empty_file_called_gz(folder):
    return text(folder, b"", "bad.csv.gz")


@bad("bad.csv", "empty")
def only_blank_lines(folder):
    return text(folder, "\n\n  \n")


@bad("bad.csv", "no rows")
def header_only(folder):
    return csv(folder, good().head(0))


@bad("bad.parquet", "no rows")
def parquet_without_rows(folder):
    good().head(0).to_parquet(folder / "bad.parquet")
    return ["run", "bad.parquet"]


@bad("bad.csv", "row 1", AREA)
def two_header_rows(folder):
    head, rest = good_csv().split("\n", 1)
    return text(folder, f"{head}\n{head}\n{rest}")


@bad("bad.csv", "row 31", AREA)
def two_tables_below_each_other(folder):
    return text(folder, good_csv() * 2)


@bad("bad.csv", "header")
def no_header(folder):
    return csv(folder, header=False)


@bad("bad.csv", "comma")
def semicolons(folder):
    return csv(folder, sep=";")


@bad("bad.csv", "comma")
def semicolons_and_decimal_commas(folder):
    return csv(folder, sep=";", decimal=",")


@bad("bad.csv", "comma")
def bars(folder):
    return csv(folder, sep="|")


@bad("bad.csv", "transpose")
def features_in_rows(folder):
    good().set_index("Metadata_Well").T.to_csv(folder / "bad.csv")
    return ["run", "bad.csv"]


@bad("bad.csv", "NUL")
def a_nul_byte(folder):
    return text(folder, good_csv().replace("cpd3", "cp\0d3"))


@bad("bad.csv", AREA, "row 1")
def decimal_commas(folder):
    return csv(folder, decimal=",")


@bad("bad.csv", AREA, "twice")
def repeated_column(folder):
    return csv(folder, pd.concat([good(), good()[[AREA]]], axis=1))


@bad("bad.h5ad", AREA, "twice")
def repeated_feature_in_h5ad(folder):
    data = adata()
    data.var_names = [AREA, AREA, *data.var_names[2:]]
    return h5ad(folder, data)


@bad("bad.csv", "no name")
def unnamed_column(folder):
    return csv(folder, good().rename(columns={AREA: ""}))


@bad("bad.csv", AREA, "row 4", "too high")
def text_among_numbers(folder):
    table = good().astype({AREA: object})
    table.loc[3, AREA] = "too high"
    return csv(folder, table)


@bad("bad.parquet", AREA, "row 4", "too high")
def text_among_numbers_in_parquet(folder):
    table = good()
    values = table[AREA].map(str).tolist()
    table[AREA] = [*values[:3], "too high", *values[4:]]
    table.to_parquet(folder / "bad.parquet")
    return ["run", "bad.parquet"]


@bad("bad.csv", AREA, "row 2")
def a_cell_of_ten_thousand_characters(folder):
    table = good().astype({AREA: object})
    table.loc[1, AREA] = "x" * 10_000
    return csv(folder, table)


@bad("bad.csv")
def a_name_of_ten_thousand_characters(folder):
    return csv(
        folder,
        good()
        .rename(columns={AREA: "Cells_" + "x" * 10_000})
        .assign(**{"Cells_" + "x" * 10_000: "y"}),
    )


@bad("bad.csv", AREA, "row 4", "--drop-na")
def infinity(folder):
    table = good()
    table.loc[3, AREA] = np.inf
    return csv(folder, table)


@bad("bad.csv", AREA, "row 4")
def a_number_beyond_float32(folder):
    table = good()
    table.loc[3, AREA] = 1e300
    return csv(folder, table)


@bad("bad.csv", AREA, "row 4", "--drop-na")
def a_missing_cell(folder):
    table = good()
    table.loc[3, AREA] = np.nan
    return csv(folder, table)


@bad("bad.csv", "every row")
def a_missing_cell_in_every_row(folder):
    table = good()
    x = table.filter(regex="^(Cells|Nuclei)_").to_numpy(copy=True)
    x[np.arange(len(x)), np.arange(len(x)) % 8] = np.nan
    return [*csv(folder, table.assign(**dict(zip(table.columns[5:], x.T)))), "--drop-na"]


@bad("bad.csv", "no feature")
def nothing_differs(folder):
    return csv(folder, good().assign(**dict.fromkeys(good().columns[5:], 1.5)))


@bad("bad.csv", "no feature")
def only_metadata(folder):
    return csv(folder, good().iloc[:, :5])


@bad("bad.csv", "compound")
def only_features(folder):
    return csv(folder, good().iloc[:, 5:])


@bad("bad.csv", "two")
def one_compound(folder):
    return csv(folder, good()[lambda t: t.Metadata_compound.isin(["DMSO", "cpd1"])])


@bad("bad.csv", "two")
def controls_only(folder):
    return csv(folder, good()[lambda t: t.Metadata_compound == "DMSO"])


@bad("bad.csv", "--control", "--zero-control")
def no_controls(folder):
    return csv(folder, good()[lambda t: t.Metadata_compound != "DMSO"])


@bad("bad.csv")
def rows_longer_than_the_header(folder):
    return text(
        folder,
        "\n".join(line + ",9" if i else line for i, line in enumerate(good_csv().splitlines())),
    )


@bad("bad.csv")
def one_row_longer_than_the_header(folder):
    lines = good_csv().splitlines()
    return text(folder, "\n".join([*lines[:6], lines[6] + ",1,2", *lines[7:]]))


@bad("bad.parquet", AREA)
def lists_in_cells(folder):
    good().assign(**{AREA: [[1.0, 2.0]] * 30}).to_parquet(folder / "bad.parquet")
    return ["run", "bad.parquet"]


# ---- AnnData, GCT and GCTX -----------------------------------------------------------------------


@bad("bad.h5ad", "--drop-na")
def sparse_h5ad_with_a_missing_cell(folder):
    from scipy.sparse import csr_matrix

    x = adata().X.copy()
    x[x < 0] = 0
    x[3, 2] = np.nan
    return h5ad(folder, adata(X=csr_matrix(x)))


@bad("bad.h5ad", "X")
def h5ad_without_x(folder):
    return h5ad(folder, adata(X=None))


@bad("bad.h5ad", "compound")
def h5ad_without_obs_columns(folder):
    return h5ad(folder, adata(obs=pd.DataFrame(index=good().index.astype(str))))


@bad("bad.h5ad")
def h5ad_without_rows(folder):
    return h5ad(folder, adata()[:0].copy())


@bad("bad.h5ad")
def h5ad_of_complex_numbers(folder):
    import h5py

    h5ad(folder, adata())
    with h5py.File(folder / "bad.h5ad", "r+") as file:
        about = dict(file["X"].attrs)
        del file["X"]
        file["X"] = np.ones((30, 8), complex)
        file["X"].attrs.update(about)
    return ["run", "bad.h5ad"]


@bad("bad.gct", "9")
def gct_with_a_wrong_count_of_rows(folder):
    return gct(folder, lambda t: t.replace("8\t30\t1\t3", "9\t30\t1\t3"))


@bad("bad.gct", "line 3", "export it again")
def gct_with_a_wrong_count_of_columns(folder):
    return gct(folder, lambda t: t.replace("8\t30\t1\t3", "8\t31\t1\t3"))


@bad("bad.gct")
def gct_with_a_wrong_count_of_descriptions(folder):
    return gct(folder, lambda t: t.replace("8\t30\t1\t3", "8\t30\t1\t2"))


@bad("bad.gct", "#1.3")
def gct_of_an_unknown_version(folder):
    return gct(folder, lambda t: t.replace("#1.3", "#1.9"))


@bad("bad.gct")
def gct_without_its_first_lines(folder):
    return gct(folder, lambda t: t.split("\n", 2)[2])


@bad("bad.gct", "much0.3456")
def gct_with_text_among_numbers(folder):
    return gct(folder, lambda t: t.replace(f"{AREA}\twhat\t", f"{AREA}\twhat\tmuch"))


@bad("bad.gct")
def gct_cut_short(folder):
    return gct(folder, lambda t: t[: len(t) // 2])


@bad("gene_info.txt")
def empty_gene_info(folder):
    command = gctx(folder)
    (folder / "gene_info.txt").write_text("")
    return command


@bad("gene_info.txt")
def gene_info_of_other_genes(folder):
    command = gctx(folder)
    table = pd.read_csv(folder / "gene_info.txt", sep="\t")
    table.assign(pr_gene_id=table.pr_gene_id + 1_000_000).to_csv(
        folder / "gene_info.txt", sep="\t", index=False
    )
    return command


@bad("sig_info.txt")
def sig_info_of_other_signatures(folder):
    return gctx(folder, signatures=[f"other{i}" for i in range(30)])


@bad("nowhere.txt", "no such file")
def sig_info_that_is_missing(folder):
    return ["nowhere.txt" if a == "sig_info.txt" else a for a in gctx(folder)]


@bad("bad.gctx")
def gctx_whose_ids_do_not_fit(folder):
    import h5py

    command = gctx(folder)
    with h5py.File(folder / "bad.gctx", "r+") as file:
        del file["0/META/COL/id"]
        file["0/META/COL/id"] = np.array([f"sig{i}" for i in range(29)], "S")
    return command


# ---- folders, several files, places --------------------------------------------------------------


@bad("nowhere.csv", "no such file")
def missing_file(folder):
    return ["run", "nowhere.csv"]


@bad("nowhere.csv", "no such file")
def one_of_two_files_missing(folder):
    csv(folder, name="good.csv")
    return ["run", "good.csv", "nowhere.csv"]


@bad("link.csv", "no such file")
def a_link_to_nothing(folder):
    (folder / "link.csv").symlink_to("nowhere.csv")
    return ["run", "link.csv"]


@bad("bad.docx", ".csv")
def unknown_format(folder):
    return csv(folder, name="bad.docx")


@bad("profiles", ".csv")
def no_suffix(folder):
    return csv(folder, name="profiles")


@bad("nothing", ".csv")
def folder_without_tables(folder):
    (folder / "nothing").mkdir()
    (folder / "nothing" / "README.md").write_text("plates to come")
    return ["run", "nothing"]


@bad("nothing", ".csv")
def empty_folder(folder):
    (folder / "nothing").mkdir()
    return ["run", "nothing"]


@bad("p1.csv")
def folder_whose_files_share_no_feature(folder):
    (folder / "plates").mkdir()
    csv(folder, name="plates/p0.csv")
    csv(
        folder,
        good().rename(
            columns=lambda c: c.replace("Cells_", "Cytoplasm_").replace("Nuclei_", "Image_")
        ),
        "plates/p1.csv",
    )
    return ["run", "plates"]


@bad("p1.csv", AREA)
def folder_with_a_bad_file(folder):
    (folder / "plates").mkdir()
    csv(folder, name="plates/p0.csv")
    csv(
        folder,
        good().astype({AREA: object}).replace({AREA: {good()[AREA][0]: "?"}}),
        "plates/p1.csv",
    )
    return ["run", "plates"]


@bad("README.txt", "elsewhere")
def folder_with_a_text_beside_the_plates(folder):
    (folder / "plates").mkdir()
    csv(folder, name="plates/p0.csv")
    text(folder, "Two plates.\n\nAsk Ada.\n", "plates/README.txt")
    return ["run", "plates"]


@bad("good.csv", "twice")
def one_file_twice(folder):
    return [*csv(folder, name="good.csv"), "./good.csv"]


@bad("out.txt")
def results_into_a_file(folder):
    (folder / "out.txt").write_text("precious")
    return [*csv(folder, name="good.csv"), "--out", "out.txt"]


@bad("thesis", "not a run")
def results_into_a_folder_that_is_no_run(folder):
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("precious")
    return [*csv(folder, name="good.csv"), "--out", "thesis"]


@bad("out.txt")
def results_below_a_file(folder):
    (folder / "out.txt").write_text("precious")
    return [*csv(folder, name="good.csv"), "--out", "out.txt/run"]


# ---- options -------------------------------------------------------------------------------------


@bad("gan", "vanilla")
def unknown_model(folder):
    return [*csv(folder, name="good.csv"), "--models", "pca,gan"]


@bad("fast", "recommended")
def unknown_preset(folder):
    return [*csv(folder, name="good.csv"), "--preset", "fast"]


@bad("quantile", "mad_robustize")
def unknown_normalisation(folder):
    return [*csv(folder, name="good.csv"), "--normalize", "quantile"]


@bad("mode", "modz")
def unknown_consensus(folder):
    return [*csv(folder, name="good.csv"), "--consensus", "mode"]


@bad("lincs-cp6", "no such file")
def unknown_dataset(folder):
    return ["run", "lincs-cp6"]


@bad("lincs-cp6", "lincs-cp5")
def unknown_dataset_to_fetch(folder):
    return ["fetch", "lincs-cp6"]


def option(name, value, *says):
    "A bad value of an option of a good table."
    CASES[f"wrong_{name.strip('-').replace('-', '_')}"] = (
        lambda folder: [*csv(folder, name="good.csv"), name, value],
        says,
    )


for column in ("compound", "dose", "time", "cell", "plate", "moa"):
    option(
        f"--{column}-column", "Metadata_nowhere", "good.csv", "Metadata_nowhere", "Metadata_Plate"
    )
option("--control", "vehicle", "good.csv", "vehicle", "cpd0")
option("--dose-unit", "mg/ml", "mg/ml", "uM")


@bad("bad.csv", "row 8", "Metadata_dose_uM")
def negative_dose(folder):
    return csv(folder, good().assign(Metadata_dose_uM=[*[0.0] * 7, -3.0, *[1.0] * 22]))


@bad("bad.csv", "row 8", "Metadata_dose_uM", "high")
def dose_in_words(folder):
    return csv(folder, good().assign(Metadata_dose_uM=[*["0"] * 7, "high", *["1.0"] * 22]))


@bad("bad.csv", "Metadata_moa")
def dose_column_of_words(folder):
    return [*csv(folder), "--dose-column", "Metadata_moa"]


@bad("bad.csv", "row 8", "Metadata_time_h", "late")
def time_in_words(folder):
    return csv(folder, good().assign(Metadata_time_h=[*["24"] * 7, "late", *["48"] * 22]))


@bad("bad.csv", "furlong")
def unknown_unit_in_the_table(folder):
    table = (
        good()
        .rename(columns={"Metadata_dose_uM": "Metadata_pert_dose"})
        .assign(Metadata_pert_dose_unit="furlong")
    )
    return csv(folder, table)


@bad("moa.tsv", "compound")
def mechanisms_without_a_key(folder):
    pd.DataFrame({"drug colour": ["red"], "moa": ["a"]}).to_csv(
        folder / "moa.tsv", sep="\t", index=False
    )
    return [*csv(folder, name="good.csv"), "--moa", "moa.tsv"]


@bad("moa.tsv", "moa")
def mechanisms_without_mechanisms(folder):
    pd.DataFrame({"pert_iname": ["cpd0"], "target": ["EGFR"]}).to_csv(
        folder / "moa.tsv", sep="\t", index=False
    )
    return [*csv(folder, name="good.csv"), "--moa", "moa.tsv"]


@bad("moa.tsv")
def mechanisms_of_other_compounds(folder):
    pd.DataFrame({"pert_iname": ["aspirin", "water"], "moa": ["a", "b"]}).to_csv(
        folder / "moa.tsv", sep="\t", index=False
    )
    return [*csv(folder, name="good.csv"), "--moa", "moa.tsv"]


@bad("moa.tsv", "empty")
def empty_mechanisms(folder):
    (folder / "moa.tsv").write_text("")
    return [*csv(folder, name="good.csv"), "--moa", "moa.tsv"]


@bad("nowhere.tsv", "no such file")
def missing_mechanisms(folder):
    return [*csv(folder, name="good.csv"), "--moa", "nowhere.tsv"]


@bad("not a run", "cpvae run")
def predict_from_a_folder_that_is_no_run(folder):
    (folder / "thesis").mkdir()
    return ["predict", "thesis", "--a", "a", "--b", "b"]


# ---- the promises --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(name, tmp_path, monkeypatch):
    make, says = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))
    command = make(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "keep.txt").write_text("precious")
    before = contents(tmp_path)
    if command[0] == "run" and "--out" not in command:
        command = [*command, "--out", "results/run"]
    refused(cli(*command), *says)
    assert contents(tmp_path) == before


def test_there_are_enough_cases():
    assert len(CASES) >= 60


AND_WHAT_IT_LOADED = """
import sys
from cpvae.cli.commands import main

try:
    main()
finally:
    print(*{"torch", "anndata", "umap", "sklearn", "matplotlib"} & set(sys.modules))
"""


@pytest.mark.parametrize("name", ["truncated_gzip", "text_among_numbers"])
def test_a_refusal_is_quick_because_nothing_heavy_is_imported(name, tmp_path):
    make, says = CASES[name]
    command = make(tmp_path)
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", AND_WHAT_IT_LOADED, *map(str, command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "\n", done.stdout
    done.stdout = ""
    refused(done, *says)
    assert contents(tmp_path) == before


# ---- no permission, a full disk, which only a process of its own can show; a wrong download ------


def without_privilege():
    "Let root obey file permissions, as everyone else does, in the process to be started."
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
            raise OSError("capability stays")


def obeys_permissions(folder):
    "Options for a process that obeys permissions; skips where there is no way to have one."
    if sys.platform == "win32":
        pytest.skip("other permissions")
    (folder / "secret").touch(mode=0)
    options = {"preexec_fn": without_privilege} if os.geteuid() == 0 else {}
    try:
        probe = subprocess.run(
            ["cat", folder / "secret"], capture_output=True, check=False, **options
        )
    except (OSError, subprocess.SubprocessError):
        pytest.skip("this process cannot give up its privileges")
    (folder / "secret").unlink()
    if probe.returncode == 0:
        pytest.skip("file permissions do not count here")
    return options


def test_a_file_that_may_not_be_read(tmp_path):
    options = obeys_permissions(tmp_path)
    csv(tmp_path, name="good.csv")
    (tmp_path / "good.csv").chmod(0)
    refused(shell("run", "good.csv", cwd=tmp_path, **options), "good.csv", "permi")
    assert [p.name for p in tmp_path.iterdir()] == ["good.csv"]


def test_a_folder_that_may_not_be_listed(tmp_path):
    options = obeys_permissions(tmp_path)
    (tmp_path / "plates").mkdir()
    csv(tmp_path, name="plates/p0.csv")
    (tmp_path / "plates").chmod(0)
    done = shell("run", "plates", cwd=tmp_path, **options)
    (tmp_path / "plates").chmod(0o700)
    refused(done, "plates", "permi")
    assert contents(tmp_path).keys() == {"plates", "plates/p0.csv"}


@pytest.mark.slow
def test_results_where_nothing_may_be_written(tmp_path):
    options = obeys_permissions(tmp_path)
    (tmp_path / "results").mkdir(mode=0o500)
    csv(tmp_path, name="good.csv")
    done = shell(
        "run",
        "good.csv",
        "--out",
        "results/run",
        "--models",
        "pca",
        "--permutations",
        100,
        "--jobs",
        1,
        cwd=tmp_path,
        **options,
    )
    refused(done, "results", "permi")  # before the fits: stdout tells of nothing
    assert contents(tmp_path).keys() == {"good.csv", "results"}


def small_disk(limit):
    "Limit the size of every file the process writes, so that writing more fails as on a full disk."
    import signal

    resource = pytest.importorskip("resource")  # not on Windows

    def limit_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return {"preexec_fn": limit_files}


@pytest.mark.slow
# bytes: the first table, and AnnData written by HDF5
@pytest.mark.parametrize("limit", [2_000, 60_000])
def test_a_disk_that_fills_up_while_a_run_is_written(limit, tmp_path, no_figures):
    csv(tmp_path, name="good.csv")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "keep.txt").write_text("precious")
    before = contents(tmp_path)
    command = [
        "run",
        "good.csv",
        "--out",
        "results/run",
        "--models",
        "pca",
        "--permutations",
        100,
        "--jobs",
        1,
        "--quiet",
    ]
    refused(shell(*command, cwd=tmp_path, **small_disk(limit)), "too large")
    assert contents(tmp_path) == before


class Served(http.server.BaseHTTPRequestHandler):
    "Answers every request with the same bytes, or with an error."

    body, status = b"", 200

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    "A server on this machine: function of body and status that gives its address."
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Served,), {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(body=b"", status=200):
        server.RequestHandlerClass.body, server.RequestHandlerClass.status = body, status
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    server.shutdown()


def files_in(folder):
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


def test_a_download_with_the_wrong_hash(tmp_path, served, monkeypatch):
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))
    size = DATASETS["moa-map"].files["moa_table"].size
    done = cli("fetch", "moa-map", "--base-url", served(bytes(size)), "--quiet")
    refused(done, "repurposing_info", "SHA-256", "--base-url")
    assert not files_in(tmp_path / "cache")


def test_a_download_of_the_wrong_size(tmp_path, served, monkeypatch):
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))
    done = cli("fetch", "moa-map", "--base-url", served(b"broad_sample\tmoa\n"))
    refused(done, "repurposing_info", "--base-url")
    assert not files_in(tmp_path / "cache")


def test_a_download_that_is_not_there(tmp_path, served, monkeypatch):
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))
    done = cli("fetch", "moa-map", "--base-url", served(b"gone", 404))
    refused(done, "repurposing_info", "404")
    assert not files_in(tmp_path / "cache")


def test_a_server_that_does_not_answer(tmp_path):
    done = shell(
        "fetch",
        "moa-map",
        "--base-url",
        "http://127.0.0.1:9",
        cwd=tmp_path,
        env={**os.environ, "CPVAE_CACHE": str(tmp_path / "cache")},
    )
    refused(done, "127.0.0.1")
    assert not files_in(tmp_path / "cache")


def test_a_disk_that_fills_up_while_a_download_is_written(tmp_path, served):
    done = shell(
        "fetch",
        "moa-map",
        "--base-url",
        served(bytes(DATASETS["moa-map"].files["moa_table"].size)),
        "--quiet",
        cwd=tmp_path,
        env={**os.environ, "CPVAE_CACHE": str(tmp_path / "cache")},
        **small_disk(50_000),
    )
    refused(done, "large")
    assert not [p for p in files_in(tmp_path / "cache") if p.suffix == ".tsv"]
