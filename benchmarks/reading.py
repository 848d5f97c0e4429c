"""Seconds and memory to read profiles: cpvae beside plain pandas and cmapPy, on stand-ins of known
size.

`python benchmarks/reading.py` takes files of a few megabytes; `--full` the published sizes: LINCS
level 5 (10,368 x 1,789, csv.gz), a million rows x 600 (parquet) and GSE70138 (118,050 x 12,328,
GCTX), which need 12 GB of disk and 8 GB of memory. Every measurement is a process of its own,
readers take turns, and all readers of a file must find the same numbers. cmapPy is measured where
it can be imported, or with the interpreter that BENCH_PYTHON names; it is no part of the project's
environment. The table goes to benchmarks/reading.csv.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# the paper's feature selection, level 5
PAPERS = ["variance_threshold", "blocklist", "drop_na_columns", "drop_outliers"]


# ---- what is measured: each function runs in a process of its own and returns the numbers read ---


def pandas_reads(path, _):
    "Plain pandas: the table as it comes."
    import pandas as pd

    return (
        pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    )


def pandas_reads_to_a_matrix(path, _):
    "What cpvae holds in the end: the feature columns as one matrix of float32."
    return pandas_reads(path, _).filter(regex="^(Cells|Cytoplasm|Nuclei)_").to_numpy("float32")


def cpvae_takes_apart(path, info):
    from cpvae.io.read import read_parts

    return read_parts(path, **info).values


def cpvae_reads(path, info):
    from cpvae.profiles.read import read_profiles

    return read_profiles(path, drop_na=True, **info).X


def cpvae_reads_all_genes(path, info):
    from cpvae.io.read import read_parts

    return read_parts(path, all_genes=True, **info).values


def cmappy_reads(path, _):
    from cmapPy.pandasGEXpress.parse import parse

    return parse(str(path)).data_df.T


def cmappy_reads_landmarks(path, info):
    import pandas as pd
    from cmapPy.pandasGEXpress.parse import parse

    genes = pd.read_csv(info["feature_info"], sep="\t", dtype=str)
    return parse(str(path), rid=genes.pr_gene_id[genes.pr_is_lm == "1"].tolist()).data_df.T


def pycytominer_selects(path, _):
    "The table read by pandas, then pycytominer's selection; only the selection is timed."
    import pandas as pd
    from pycytominer import feature_select

    table = pd.read_csv(path, low_memory=False)
    features = [name for name in table if not name.startswith("Metadata_")]
    start = time.perf_counter()
    kept = feature_select(
        table, features=features, operation=PAPERS, na_cutoff=0, freq_cut=0.05, unique_cut=0.1
    )
    return kept, time.perf_counter() - start


READERS = {
    "pandas": pandas_reads,
    "pandas, to a float32 matrix": pandas_reads_to_a_matrix,
    "cpvae.io.read.read_parts": cpvae_takes_apart,
    "cpvae.profiles.read.read_profiles": cpvae_reads,
    "cpvae.io.read.read_parts, all genes": cpvae_reads_all_genes,
    "cmapPy": cmappy_reads,
    "cmapPy, landmark genes": cmappy_reads_landmarks,
    "pycytominer.feature_select": pycytominer_selects,
}


def measure(reader: str, path: Path, info: dict) -> None:
    "Run one reader and print what it took. The imports count in the memory, not in the seconds."
    module = reader.split(",")[0].split(".feature")[0]
    for name in (
        ["cpvae.io.read", "cpvae.profiles.read", "anndata", "pyarrow.parquet", "h5py"]
        if module.startswith("cpvae")
        else [module]
    ):
        __import__(name if name != "cmapPy" else "cmapPy.pandasGEXpress.parse")
    start = time.perf_counter()
    values = READERS[reader](path, info)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if isinstance(values, tuple):
        values, seconds = values
    import numpy as np
    import pandas as pd

    if isinstance(values, pd.DataFrame):
        values = values[[name for name in values if not str(name).startswith("Metadata_")]]
        sums = [
            np.nansum(values.iloc[:, i : i + 50].to_numpy(), dtype=np.float64)
            for i in range(0, values.shape[1], 50)
        ]
    else:
        sums = [
            np.nansum(values[i : i + 10_000], dtype=np.float64)
            for i in range(0, len(values), 10_000)
        ]
    print(
        json.dumps(
            {"seconds": seconds, "peak": peak, "shape": values.shape, "sum": float(sum(sums))}
        )
    )


# ---- who measures --------------------------------------------------------------------------------


def version(python: str, package: str) -> str:
    "Version of a package under an interpreter; empty where it is not installed."
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False
    ).stdout.strip()


def stand_ins(folder: Path, full: bool) -> dict:
    """Write the files, where they are not yet there; what is to be read -> (file, tables beside it,
    readers that must agree).
    """
    small = dict(
        level5=dict(n_maps=4, per_map=30, n_features=400),
        cells=dict(n=20_000),
        clue=dict(n=1000),
        gse=dict(n=4000, n_genes=3000, landmarks=978),
    )
    wanted = dict(
        level5=dict(n_maps=27, per_map=60, n_controls=24, n_features=1789),
        cells=dict(n=1_000_000),
        clue=dict(n=10_000),
        gse=dict(n=118_050, n_genes=12_328, landmarks=978),
    )
    sizes = wanted if full else small
    folder = folder / ("full" if full else "reduced")
    code = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import"
        " standins as s\nsize, folder = json.loads(sys.argv[2]), Path(sys.argv[3]);"
        " folder.mkdir(parents=True, exist_ok=True); known = s.made_up_map(1570)\nlevel5, cells,"
        " clue, gse = folder / 'level5.csv.gz', folder / 'cells.parquet', folder / 'clue.gct',"
        " folder / 'gse70138'\nlevel5.exists() or s.lincs_level5(level5, annotations=known,"
        " **size['level5'])\ncells.exists() or s.big_parquet(cells, **size['cells'])\nclue.exists()"
        " or s.clue(clue, annotations=known, **size['clue'])\n(gse / 'gene_info.txt.gz').exists()"
        " or s.gse70138(gse, annotations=known, **size['gse'])\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(HERE.parent / "tests"), json.dumps(sizes), str(folder)],
        check=True,
    )
    info = {
        "profile_info": str(folder / "gse70138" / "sig_info.txt.gz"),
        "feature_info": str(folder / "gse70138" / "gene_info.txt.gz"),
    }
    name = lambda kind, rows, columns: f"{kind}, {rows:,} x {columns:,}"
    rows = sizes["level5"]["n_maps"] * (
        6 * sizes["level5"]["per_map"] + sizes["level5"].get("n_controls", 12)
    )
    return {
        name("LINCS level 5, csv.gz", rows, sizes["level5"]["n_features"]): (
            folder / "level5.csv.gz",
            {},
            [
                "pandas",
                "pandas, to a float32 matrix",
                "cpvae.io.read.read_parts",
                "cpvae.profiles.read.read_profiles",
                "pycytominer.feature_select",
            ],
        ),
        name("cells, parquet", sizes["cells"]["n"], 600): (
            folder / "cells.parquet",
            {},
            [
                "pandas",
                "pandas, to a float32 matrix",
                "cpvae.io.read.read_parts",
                "cpvae.profiles.read.read_profiles",
            ],
        ),
        name("CLUE, GCT 1.3", sizes["clue"]["n"], 978): (
            folder / "clue.gct",
            {},
            ["cmapPy", "cpvae.io.read.read_parts"],
        ),
        name("GSE70138, GCTX, landmark genes of", sizes["gse"]["n"], sizes["gse"]["n_genes"]): (
            folder / "gse70138" / "level5.gctx",
            info,
            [
                "cmapPy, landmark genes",
                "cpvae.io.read.read_parts",
                "cpvae.profiles.read.read_profiles",
            ],
        ),
        name("GSE70138, GCTX", sizes["gse"]["n"], sizes["gse"]["n_genes"]): (
            folder / "gse70138" / "level5.gctx",
            info,
            ["cmapPy", "cpvae.io.read.read_parts, all genes"],
        ),
    }


def one(python: str, reader: str, path: Path, info: dict) -> dict:
    "One measurement in its own process."
    done = subprocess.run(
        [python, __file__, "--measure", reader, str(path), json.dumps(info)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{reader} on {path.name}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def agree(what: str, found: dict) -> None:
    "Stop if two readers of the whole file found other numbers."
    whole = {
        reader: f
        for reader, f in found.items()
        if reader not in ("cpvae.profiles.read.read_profiles", "pycytominer.feature_select")
    }
    (first, truth), *others = whole.items()
    for reader, f in others:
        # float32 rounds; a lost cell shows
        if (
            f["shape"] != truth["shape"]
            or abs(f["sum"] - truth["sum"]) > 1e-5 * (f["shape"][0] * f["shape"][1]) ** 0.5
        ):
            sys.exit(
                f"{what}: {reader} reads {f['shape']} with sum {f['sum']:.3f}, {first}"
                f" {truth['shape']} with sum {truth['sum']:.3f}"
            )


def main() -> None:
    "Measure, compare, print and write."
    parser = argparse.ArgumentParser(
        description="Seconds and memory to read profiles, beside pandas and cmapPy."
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="the published sizes (minutes; 12 GB of disk, 15 GB of memory)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="times each reader has its turn; the median counts"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the stand-ins there, or use those of an earlier time"
    )
    parser.add_argument("--out", type=Path, default=HERE / "reading.csv")
    parser.add_argument(
        "--measure", nargs=3, metavar=("READER", "FILE", "INFO"), help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    if given.measure:
        return measure(given.measure[0], Path(given.measure[1]), json.loads(given.measure[2]))
    other = next(
        (p for p in (sys.executable, os.environ.get("BENCH_PYTHON")) if p and version(p, "cmapPy")),
        None,
    )
    if not other:
        print(
            "cmapPy is not measured: it is not installed, and BENCH_PYTHON names no interpreter"
            " that has it"
        )
    with tempfile.TemporaryDirectory() as scratch:
        table = []
        for what, (path, info, readers) in stand_ins(
            given.folder or Path(scratch), given.full
        ).items():
            readers = [reader for reader in readers if other or not reader.startswith("cmapPy")]
            found = {reader: [] for reader in readers}
            # into the page cache, for all alike
            subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
            for _ in range(given.repeats):
                for reader in readers:
                    found[reader].append(
                        one(
                            other if reader.startswith("cmapPy") else sys.executable,
                            reader,
                            path,
                            info,
                        )
                    )
            agree(what, {reader: runs[0] for reader, runs in found.items()})
            for reader, runs in found.items():
                seconds = [run["seconds"] for run in runs]
                table.append(
                    [
                        what,
                        reader,
                        "x".join(map(str, runs[0]["shape"])),
                        round(statistics.median(seconds), 2),
                        round(min(seconds), 2),
                        round(max(run["peak"] for run in runs)),
                    ]
                )
                print(*table[-1], sep="  ", flush=True)
    import pandas as pd

    sys.path.insert(0, str(HERE.parent / "nbs" / "paper" / "tables"))
    from provenance import machine, write_table

    settings = {
        "repeats": given.repeats,
        "seconds": "median and least",
        "each": "in a process of its own",
        "file": "in the page cache",
    }
    if other:
        settings["cmapPy"] = f"{version(other, 'cmapPy')} (pandas {version(other, 'pandas')})"
    columns = ["what", "reader", "read", "seconds", "least", "peak_MiB"]
    where = dict(folder=given.out.parent, settings=settings | machine())
    packages = ("pyarrow", "h5py", "anndata", "pycytominer")
    write_table(given.out.stem, pd.DataFrame(table, columns=columns), packages=packages, **where)
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
