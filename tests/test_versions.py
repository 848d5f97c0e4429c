"""Results do not depend on how pandas keeps text: as objects and None (pandas 2), or as strings and
NaN (pandas 3).
"""

import h5py
import numpy as np
import pandas as pd
import pytest

from cpvae.io.write import to_frame, write_profiles
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig

CONFIG = RunConfig(
    models=("beta", "pca"), seed=3, n_permutations=50, vae=dict(steps=20, hidden_layer_sizes=(8,))
)


def holes():
    """A table with cells missing in every column of text that may have some, and in those of
    numbers.
    """
    world = simulate_profiles(seed=3, n_mechanisms=8, n_pairs=3, n_features=20, n_maps=3)
    table = to_frame(world).rename(
        columns=lambda name: name.replace("Metadata_time_h", "Metadata_time_point")
    )
    treated, rng = ~world.obs["is_control"].to_numpy(), np.random.default_rng(0)
    more = {
        f"Metadata_{name}": np.where(
            rng.random(len(table)) < 0.2, None, [f"{name} {i % 3}" for i in range(len(table))]
        )
        for name in ("scaffold", "target", "inchikey")
    }
    table = table.assign(**more)
    table.loc[treated & (rng.random(len(table)) < 0.05), ["Metadata_compound", "Metadata_moa"]] = (
        None
    )
    table.loc[~treated, "Metadata_time_point"] = np.nan
    return table


def everything(folder, table):
    """All that is written about a table: as read from each format, a run of it, and what is asked
    of the run.
    """
    folder.mkdir()
    table.to_csv(folder / "table.csv", index=False)
    profiles = read_profiles(folder / "table.csv")
    for name in ("a.h5ad", "a.csv", "a.parquet"):
        write_profiles(profiles, folder / name)
        write_profiles(read_profiles(folder / name), folder / f"again {name}")
    with h5py.File(folder / "a.h5ad") as file:  # the form that every version of anndata reads
        assert {file[f"{of}/_index"].attrs["encoding-type"] for of in ("obs", "var")} == {
            "string-array"
        }
    run = run_pipeline(profiles, folder / "run", CONFIG, jobs=1)
    Run(run).predict(*profiles.uns["cpvae"]["pair_names"][0].split("|"), None, None).nearest.to_csv(
        folder / "nearest.csv", index=False
    )
    Run(run).screen(False, 0).to_csv(folder / "screen.csv", index=False)
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("run.json", "report.html")
    }


@pytest.mark.slow
def test_every_byte_is_the_same_however_pandas_keeps_text(tmp_path, no_figures):
    table = holes()
    objects, strings = (
        pd.option_context("future.infer_string", kept, "mode.copy_on_write", kept)
        for kept in (False, True)
    )
    with objects:
        before = everything(tmp_path / "objects", table)
    with strings:
        after = everything(tmp_path / "strings", table)
    assert len(before) > 20 and before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
