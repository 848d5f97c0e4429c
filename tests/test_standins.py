"""Every layout that people use is read with the right counts: files from a simulation whose truth
is known.
"""

import pandas as pd
import pytest
import standins

from cpvae.profiles.pairs import describe_profiles
from cpvae.profiles.read import read_profiles

COUNTS = (
    "profiles",
    "features",
    "compounds",
    "plates",
    "times (h)",
    "control rows",
    "annotated compounds",
    "compounds with exactly two mechanisms",
    "evaluable pairs",
)


def agrees(truth, path, columns=(), **options):
    "Read a stand-in and compare everything that `describe_profiles` counts with what is true."
    profiles = read_profiles(path, **options)
    facts = describe_profiles(profiles)
    aside = len(profiles.uns["cpvae"]["set_aside"].get("the position", []))
    facts["features"] += aside  # positions, in the files of CellProfiler
    assert {name: facts[name] for name in COUNTS} == {name: truth[name] for name in COUNTS}
    assert facts["dose levels (µM)"] == pytest.approx(truth["dose levels (µM)"], rel=0.05)
    guessed = {name: facts["columns"][name] for name in truth["columns"]}
    assert guessed == truth["columns"] | dict(columns)
    assert facts["exact copies"] == 0
    return facts


def with_mechanisms(truth, path, annotations, folder, **options):
    "The same once a table of mechanisms is joined."
    annotations.to_csv(folder / "moa.tsv", sep="\t", index=False)
    return agrees(truth | truth["with mechanisms"], path, moa_table=folder / "moa.tsv", **options)


@pytest.fixture
def known():
    return standins.made_up_map(32)


def test_the_simulation_holds_what_it_should(known):
    """Ten pairs at most, both orders of writing, unknown and triple annotations: otherwise the
    tests below prove little.
    """
    two = known.moa[known.moa.str.count(r"\|") == 1]
    assert (
        len(two) >= 3
        and any(a > b for a, b in two.str.split("|"))
        and any(a < b for a, b in two.str.split("|"))
    )
    assert (known.moa == "").any() and (known.moa.str.count(r"\|") == 2).any()
    truth = standins.mechanisms_of(known, known.broad_id)
    assert 0 < len(truth["evaluable pairs"]) <= len(two)


def test_feature_names_are_those_of_cellprofiler():
    names = standins.cellprofiler_names()
    assert len(set(names)) == 1789 and {name.split("_")[0] for name in names} == {
        "Cells",
        "Cytoplasm",
        "Nuclei",
    }
    assert {
        "Cells_Correlation_K_ER_DNA",
        "Nuclei_Granularity_16_RNA",
        "Cytoplasm_Texture_SumEntropy_DNA_20_0",
    } <= set(names)


def test_lincs_level_5(tmp_path, known):
    truth = standins.lincs_level5(tmp_path / "level5.csv.gz", annotations=known)
    facts = agrees(truth, tmp_path / "level5.csv.gz", drop_na=True)
    assert all(any(name in note for note in facts["notes"]) for name in truth["places"]["constant"])
    with_mechanisms(truth, tmp_path / "level5.csv.gz", known, tmp_path, drop_na=True)


def test_lincs_level_5_with_the_platemap_that_the_paper_leaves_out(tmp_path):
    truth = standins.lincs_level5(tmp_path / "level5.csv.gz", bad_map=True, spoiled=False)
    assert truth["plates"] == 3
    agrees(truth, tmp_path / "level5.csv.gz")


def test_lincs_level_4_plates(tmp_path):
    known = standins.made_up_map(20)
    truth = standins.lincs_level4(tmp_path / "plates", annotations=known)
    assert truth["features"] < min(each["features"] for each in truth["each"].values())
    for name, each in truth["each"].items():
        agrees(each, tmp_path / "plates" / name)
    agrees(truth, tmp_path / "plates")
    agrees(truth, sorted((tmp_path / "plates").iterdir()))
    with_mechanisms(truth, tmp_path / "plates", known, tmp_path)


@pytest.mark.parametrize("pert_type", [False, True])
def test_jump(tmp_path, pert_type):
    agrees(standins.jump(tmp_path / "jump.parquet", pert_type=pert_type), tmp_path / "jump.parquet")


@pytest.mark.parametrize("name", ["clue.gct", "clue.gct.gz", "clue.csv"])
def test_clue(tmp_path, name):
    known = standins.made_up_map(20)
    truth = standins.clue(tmp_path / name, annotations=known, n_genes=200)
    with_mechanisms(truth, tmp_path / name, known, tmp_path)


def test_clue_by_entrez_ids_and_without_vehicle(tmp_path):
    truth = standins.clue(tmp_path / "clue.csv", vehicle=0, by="entrez", n_genes=200)
    agrees(truth, tmp_path / "clue.csv", zero_control=True)


def test_gctx_of_geo(tmp_path):
    known = standins.made_up_map(20)
    truth = standins.gse70138(tmp_path / "geo", annotations=known, block=64)
    tables = {
        "profile_info": tmp_path / "geo" / "sig_info.txt.gz",
        "feature_info": tmp_path / "geo" / "gene_info.txt.gz",
    }
    with_mechanisms(truth, tmp_path / "geo" / "level5.gctx", known, tmp_path, **tables)
    agrees(
        truth | {"features": truth["all genes"]},
        tmp_path / "geo" / "level5.gctx",
        all_genes=True,
        **tables,
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_h5ad(tmp_path, sparse):
    agrees(standins.h5ad(tmp_path / "cells.h5ad", sparse=sparse), tmp_path / "cells.h5ad")


def test_a_large_parquet(tmp_path):
    agrees(
        standins.big_parquet(tmp_path / "cells.parquet", n=3000, n_features=120, block=1000),
        tmp_path / "cells.parquet",
    )


def test_the_tool_writes_every_layout(tmp_path):
    truth = standins.write_small(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*truth, "moa_map.tsv"}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        standins.lincs_level5(tmp_path / name, seed=3)
    assert pd.read_csv(tmp_path / "a.csv.gz").equals(pd.read_csv(tmp_path / "b.csv.gz"))
