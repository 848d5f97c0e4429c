"""Files as other programs leave them: spreadsheets, old AnnData, Zarr, feather, names and numbers
that were bent on the way.
"""

import functools
import http.server
import threading

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from running import cli

from cpvae.errors import CpvaeError
from cpvae.io.h5ad import parts_from_anndata
from cpvae.io.read import profile_files, read_parts, read_table
from cpvae.io.tables import parts_from_table
from cpvae.io.write import write_profiles
from cpvae.profiles.pairs import copy_groups, describe_profiles
from cpvae.profiles.read import read_profiles
from cpvae.datasets import fetch_address
from cpvae.profiles.simulate import simulate_profiles
from cpvae.preparation.clean import drop_copies

GENES = ["TP53", "MYC", "EGFR", "JUN", "FOS"]


def table(n=12, features=GENES, seed=0):
    "A plain table: four control wells, then two wells a compound."
    x = np.random.default_rng(seed).standard_normal((n, len(features))).round(4)
    names = ["DMSO"] * 4 + [f"c{i // 2}" for i in range(n - 4)]
    about = pd.DataFrame(
        {
            "Metadata_compound": names,
            "Metadata_moa": (["", "", "", "", "A", "A", "B", "B", "A|B", "A|B", "", ""] + [""] * n)[
                :n
            ],
        }
    )
    return pd.concat([about, pd.DataFrame(x, columns=features)], axis=1)


def anndata_of(t, **more):
    obs = t.filter(like="Metadata_").rename(index=str)
    return AnnData(
        t[[c for c in t if c not in obs]].to_numpy(np.float32),
        obs=obs,
        var=pd.DataFrame(index=[c for c in t if c not in obs]),
        **more,
    )


def written(t, path):
    "A table in the form that the path's ending names."
    if path.suffix in (".csv", ".txt", ".tsv"):
        t.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".zarr":
        anndata_of(t).write_zarr(path)
    else:
        {
            ".parquet": t.to_parquet,
            ".feather": t.to_feather,
            ".h5ad": lambda p: anndata_of(t).write_h5ad(p),
        }[path.suffix](path)
    return path


# --- forms


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather", "h5ad", "zarr"])
def test_every_form_gives_the_same_profiles(tmp_path, suffix):
    read = read_profiles(written(table(), tmp_path / f"t.{suffix}"))
    direct = read_profiles(table())
    assert list(read.var_names) == GENES and np.array_equal(read.X, direct.X)
    assert read.obs[["compound", "moa", "is_control"]].equals(
        direct.obs[["compound", "moa", "is_control"]]
    )
    assert len(read.uns["cpvae"]["sha256"]) == 64


def test_zarr_stores_of_a_folder_are_its_files(tmp_path):
    for name in ("p1", "p2"):
        written(table(), tmp_path / f"{name}.zarr")
    assert [path.name for path in profile_files(tmp_path)] == ["p1.zarr", "p2.zarr"]
    assert set(read_profiles(tmp_path).obs["plate"]) == {"p1", "p2"}


def test_a_fingerprint_of_a_zarr_store_follows_its_values(tmp_path):
    codes = [
        read_profiles(written(table(seed=seed), tmp_path / f"{i}" / "t.zarr")).uns["cpvae"][
            "sha256"
        ]
        for i, seed in enumerate((0, 0, 1))
        if (tmp_path / f"{i}").mkdir() is None
    ]
    assert codes[0] == codes[1] != codes[2]


def test_a_table_of_mechanisms_may_be_feather(tmp_path):
    pd.DataFrame({"compound": ["c0", "c1"], "moa": ["X", "Y"]}).to_feather(tmp_path / "m.feather")
    assert read_table(tmp_path / "m.feather")["moa"].tolist() == ["X", "Y"]


def legacy(path, names, sparse=False):
    "An h5ad as anndata 0.6 wrote it: obs and var are arrays of records, categories stand in uns."
    t = table()
    with h5py.File(path, "w") as file:
        file["X"] = t[GENES].to_numpy(np.float32)
        codes, kinds = pd.factorize(t["Metadata_compound"])
        obs = np.zeros(len(t), [("index", "S8"), (names, "i1"), ("dose_uM", "f8")])
        obs["index"] = [f"cell{i}".encode() for i in range(len(t))]
        obs[names] = codes
        obs["dose_uM"] = 1.0
        file["obs"] = obs
        file["var"] = np.array([(gene.encode(),) for gene in GENES], [("index", "S8")])
        file[f"uns/{names}_categories"] = np.array([kind.encode() for kind in kinds], "S8")
    return path


@pytest.mark.parametrize("names", ["compound", "drug"])
def test_an_h5ad_of_old(tmp_path, names):
    read = read_profiles(legacy(tmp_path / "old.h5ad", names), compound=names)
    assert list(read.var_names) == GENES and np.array_equal(
        read.X, table()[GENES].to_numpy(np.float32)
    )
    assert (
        read.obs["compound"].tolist() == table()["Metadata_compound"].tolist()
        and read.obs["is_control"].sum() == 4
    )


# --- layers and obsm


def held(**more):
    whole = anndata_of(table())
    empty = AnnData(obs=whole.obs, obsm={"X_scvi": whole.X, "X_pca": whole.X[:, :2]}, **more)
    return empty, whole.X


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_embedding_is_named(tmp_path, suffix):
    empty, x = held()
    getattr(empty, f"write_{suffix}")(tmp_path / f"e.{suffix}")
    with pytest.raises(
        CpvaeError,
        match=r"has no X.*X_pca, X_scvi in obsm \(`obsm='X_pca'`\)|has no X.*X_scvi, X_pca in obsm",
    ):
        read_profiles(tmp_path / f"e.{suffix}")
    read = read_profiles(tmp_path / f"e.{suffix}", obsm="X_pca")
    assert list(read.var_names) == ["X_pca_1", "X_pca_2"] and np.array_equal(read.X, x[:, :2])
    for wrong, says in (
        ({"obsm": "X_umap"}, "has no X_umap in obsm"),
        ({"layer": "z"}, "has no z in layers"),
        ({"layer": "z", "obsm": "X_pca"}, "has no z"),
    ):
        with pytest.raises(CpvaeError, match=says):
            read_profiles(tmp_path / f"e.{suffix}", **wrong)


def test_a_layer_is_named_and_offered_beside_counts(tmp_path):
    profiles = anndata_of(table())
    profiles.layers["lognorm"], profiles.X = profiles.X.copy(), np.abs(profiles.X * 30).round()
    profiles.write_h5ad(tmp_path / "t.h5ad")
    counts = read_profiles(tmp_path / "t.h5ad")
    chosen = read_profiles(tmp_path / "t.h5ad", layer="lognorm")
    assert any("`layer=` (lognorm)" in note for note in counts.uns["cpvae"]["notes"])
    assert chosen.uns["cpvae"]["notes"] == [] and np.array_equal(
        chosen.X, profiles.layers["lognorm"]
    )
    assert np.array_equal(read_profiles(profiles, layer="lognorm").X, chosen.X)
    said = cli("info", tmp_path / "t.h5ad", "--layer", "lognorm")
    assert said.exit_code == 0 and "raw counts" not in said.output


def test_a_named_table_of_obsm_names_its_columns():
    empty, x = held()
    empty.obsm["features"] = pd.DataFrame(
        x, index=empty.obs_names, columns=[f"area{i}" for i in range(5)]
    )
    assert parts_from_anndata(empty, obsm="features").features == [f"area{i}" for i in range(5)]


def test_other_forms_have_no_layers(tmp_path):
    with pytest.raises(CpvaeError, match="leave out `obsm=`"):
        read_parts(written(table(), tmp_path / "t.csv"), obsm="X_pca")


# --- in memory


def test_an_anndata_that_others_made():
    profiles = anndata_of(table())
    profiles.obs["batch"] = pd.Categorical(["x", "y"] * 6)
    before = profiles.copy()
    read = read_profiles(profiles, control="DMSO")
    assert (
        read.obs["is_control"].sum() == 4
        and "Metadata_batch" in read.obs
        and list(read.var_names) == GENES
    )
    assert profiles.obs.equals(before.obs) and np.array_equal(profiles.X, before.X)
    again = read_profiles(read)  # and one that cpvae made
    assert np.array_equal(again.X, read.X) and again.obs["compound"].equals(read.obs["compound"])


@pytest.mark.parametrize(
    "lists", [lambda terms: terms, tuple, lambda terms: np.array(terms, object), set]
)
def test_lists_of_words_are_joined(lists):
    t = table()
    t["Metadata_moa"] = [lists(text.split("|")) if text else None for text in t["Metadata_moa"]]
    assert read_profiles(t).obs["moa"].tolist() == [
        "",
        "",
        "",
        "",
        "A",
        "A",
        "B",
        "B",
        "A|B",
        "A|B",
        "",
        "",
    ]


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_lists_of_words_in_a_file_are_joined(tmp_path, suffix):
    t = table()
    t["Metadata_moa"] = [text.split("|") if text else None for text in t["Metadata_moa"]]
    assert "A|B" in set(read_profiles(written(t, tmp_path / f"t.{suffix}")).obs["moa"])


def test_lists_of_numbers_are_no_text():
    t = table().assign(latent=[[0.1, 0.2]] * 12)
    assert any("cells are lists: latent" in note for note in parts_from_table(t).notes)
    with pytest.raises(CpvaeError, match="holds a list in every row"):
        parts_from_table(t[["Metadata_compound", "latent"]])


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_bytes_are_text(tmp_path, suffix):
    t = table()
    for name in ("Metadata_compound", "Metadata_moa"):
        t[name] = t[name].str.encode("utf-8")
    read = read_profiles(written(t, tmp_path / f"t.{suffix}"))
    assert read.obs["is_control"].sum() == 4 and set(read.obs["moa"]) == {"", "A", "B", "A|B"}


# --- booleans


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
@pytest.mark.parametrize(
    "names",
    [[f"bit{i}" for i in range(5)], ["TP53_mut", "KRAS_mut", "EGFR_amp", "MYC_amp", "JUN_del"]],
)
def test_features_may_be_true_or_false(tmp_path, suffix, names):
    t = table(features=names)
    t[names] = t[names] > 0
    read = read_parts(written(t, tmp_path / f"t.{suffix}"))
    assert read.features == names and np.array_equal(read.values, t[names].to_numpy(np.float32))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_remark_of_true_or_false_is_no_feature(tmp_path, suffix):
    t = table().assign(is_edge=[True, False] * 6)
    assert read_parts(written(t, tmp_path / f"t.{suffix}")).features == GENES


# --- what spreadsheets write


@pytest.mark.parametrize("error", ["#REF!", "#NUM!", "#NULL!", "#WERT!", "#NOM?", "#SPILL!"])
def test_errors_of_spreadsheets_are_missing(tmp_path, error):
    t = table().astype(object)
    t.loc[6, "EGFR"] = error
    read = read_parts(written(t, tmp_path / "t.csv"))
    assert np.argwhere(np.isnan(read.values)).tolist() == [[6, 2]]
    with pytest.raises(CpvaeError, match="`drop_na=True`"):
        read_profiles(tmp_path / "t.csv")
    assert np.isnan(parts_from_table(t).values).sum() == 1


def gct(t, version="#1.3", promised=None, filler="na"):
    "Lines of a GCT file of a table, as lists of cells."
    about = [c for c in t if c.startswith("Metadata_")] if version == "#1.3" else []
    head = [
        [version],
        [str(len(GENES)), str(len(t))] + (["1", str(promised or len(about))] if about else []),
    ]
    head += [
        [
            "id" if about else "NAME",
            "pr_gene_symbol" if about else "Description",
            *(f"s{i}" for i in range(len(t))),
        ]
    ]
    head += [[c.removeprefix("Metadata_"), filler, *t[c]] for c in about]
    return head + [[f"{i}_at", gene, *t[gene].astype(str)] for i, gene in enumerate(GENES)]


@pytest.mark.parametrize("version", ["#1.2", "#1.3"])
@pytest.mark.parametrize("how", ["as wide as the matrix", "wider than the matrix", "quoted"])
def test_gct_saved_by_a_spreadsheet(tmp_path, version, how):
    lines = gct(table(), version)
    width = len(lines[-1]) + 2 * (how == "wider than the matrix")
    lines = [line + [""] * (width - len(line)) for line in lines]
    if how == "quoted":
        lines = [
            lines[0],
            lines[1],
            *([f'"{cell}"' if cell == "A|B" else cell for cell in line] for line in lines[2:]),
        ]
    (tmp_path / "t.gct").write_bytes("".join("\t".join(line) + "\r\n" for line in lines).encode())
    read = read_parts(tmp_path / "t.gct")
    assert np.array_equal(read.values, table()[GENES].to_numpy(np.float32)) and read.notes == []
    if version == "#1.3":
        assert read.metadata["Metadata_moa"].fillna("").tolist() == table()["Metadata_moa"].tolist()


@pytest.mark.parametrize("promised", [3, 5])
def test_gct_with_fewer_annotations_than_promised(tmp_path, promised):
    lines = gct(table(), promised=promised)
    (tmp_path / "t.gct").write_text("".join("\t".join(line) + "\n" for line in lines))
    read = read_parts(tmp_path / "t.gct")
    assert np.array_equal(read.values, table()[GENES].to_numpy(np.float32))
    assert read.notes == [
        f"Line 2 promises {promised} rows of annotations, 2 stand there; what follows is read as"
        " features."
    ]


def test_a_gct_that_is_cut_short_is_still_refused(tmp_path):
    t = table().assign(Metadata_dose=1.5)
    (tmp_path / "t.gct").write_text(
        "".join("\t".join(map(str, line)) + "\n" for line in gct(t)[:-1])
    )
    with pytest.raises(CpvaeError, match="cut short"):
        read_parts(tmp_path / "t.gct")


@pytest.mark.parametrize(
    "names",
    [
        ["3-Mar", "MYC", "EGFR", "JUN", "11-Sep"],
        ["Sep-09", "MYC", "1. Mrz", "JUN", "FOS"],
        ["TP53", "2022-03-04", "EGFR", "9.31E+15", "44621"],
        ["TP53", "3/1/2021", "EGFR", "JUN", "FOS"],
    ],
)
def test_bent_names_are_told(tmp_path, names):
    notes = read_profiles(written(table(features=names), tmp_path / "t.csv")).uns["cpvae"]["notes"]
    assert (
        len(notes) == 1
        and all(name in notes[0] for name in names if name not in GENES)
        and not any(name in notes[0].split(";")[0] for name in GENES)
    )


@pytest.mark.parametrize(
    "names",
    [
        ["dec-1", "mai-2", "sep-1", "JUN", "FOS"],
        ["7157", "4609", "1956", "44621", "2353"],
        ["SEPTIN1", "MARCHF1", "1007_s_at", "H2-K1", "E2F1"],
    ],
)
def test_names_that_only_look_bent(names):
    assert parts_from_table(table(features=names)).notes == []


# --- headers


@pytest.mark.parametrize(
    "levels",
    [
        ["Metadata", "Metadata", "Cells", "Cells", "Nuclei", "Nuclei", "Nuclei"],
        ["Metadata", "", "DNA", "", "RNA", "", ""],
    ],
)
def test_two_header_rows(tmp_path, levels):
    below = ["compound", "moa", "Area", "Perimeter", "Area", "Perimeter", "Extent"]
    rows = [
        ",".join(levels),
        ",".join(below),
        *(",".join(map(str, row)) for row in table().to_numpy()),
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(
        CpvaeError, match="header has two levels .*Area|header has two levels .*Extent"
    ):
        read_parts(tmp_path / "t.csv")


def test_two_levels_in_memory_and_parquet(tmp_path):
    t = table().set_axis(
        pd.MultiIndex.from_tuples(
            [("Metadata", "compound"), ("Metadata", "moa"), *(("Cells", gene) for gene in GENES)]
        ),
        axis=1,
    )
    t.set_axis(list(map(str, t.columns)), axis=1).to_parquet(tmp_path / "t.parquet")
    for read in (lambda: read_profiles(t), lambda: read_profiles(tmp_path / "t.parquet")):
        with pytest.raises(CpvaeError, match=r"two levels \(Cells above FOS\)"):
            read()


@pytest.mark.parametrize(
    "titles", ["Plate report\n", "Report of 2022\n\nBy,me\n", "a title,,,,,,\nby,me,,,,,\n"]
)
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_titles_above_the_header(tmp_path, titles, suffix):
    written(table(), path := tmp_path / f"t.{suffix}")
    sep = "," if suffix == "csv" else "\t"
    path.write_text(titles.replace(",", sep) + path.read_text())
    with pytest.raises(CpvaeError, match=f"line {titles.count(chr(10)) + 1} looks like the header"):
        read_parts(path)
    path.write_text(
        "".join(f"# {line}\n" for line in titles.replace(",", sep).splitlines())
        + "\n".join(path.read_text().splitlines()[titles.count("\n") :])
        + "\n"
    )
    assert read_parts(path).features == GENES


@pytest.mark.parametrize("first", ["gene_symbol", "", "ID_REF", "probe"])
@pytest.mark.parametrize(
    "columns",
    [
        [f"BR0011_{w}" for w in "ABCDEF"],
        ["GSM11", "GSM12", "GSM13"],
        ["P1:A01", "P1:A02", "P2:B01"],
        ["DMSO", "DMSO.1", "x.1"],
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "frame"])
def test_genes_in_rows(tmp_path, first, columns, suffix):
    columns = [f"{c}01" if c.startswith("BR") else c if c != "DMSO" else "DMSO.2" for c in columns]
    t = pd.DataFrame(np.random.default_rng(0).standard_normal((5, len(columns))), columns=columns)
    t.insert(0, first, GENES)
    with pytest.raises(
        CpvaeError, match=r"features stand in rows \(such as (TP53|BR|GSM).*transpose"
    ):
        read_profiles(t if suffix == "frame" else written(t, tmp_path / f"t.{suffix}"))


def test_a_gene_that_was_perturbed_is_no_feature_in_a_row():
    t = pd.DataFrame(
        np.random.default_rng(0).standard_normal((5, 4)), columns=[f"emb_{i}" for i in range(4)]
    )
    t.insert(0, "gene", ["EMPTY", *GENES[1:]])
    assert read_profiles(t, compound="gene", control="EMPTY").n_vars == 4


@pytest.mark.parametrize("line", ['!Series_title\t"x"', '!Sample_title\t"a"\t"b"'])
def test_a_geo_series_matrix(tmp_path, line):
    body = "\n".join(
        [
            line,
            "!series_matrix_table_begin",
            '"ID_REF"\t"GSM1"\t"GSM2"',
            '"1_at"\t1\t2',
            "!series_matrix_table_end",
        ]
    )
    (tmp_path / "GSE1_series_matrix.txt").write_text(body + "\n")
    with pytest.raises(CpvaeError, match="features stand in rows"):
        read_parts(tmp_path / "GSE1_series_matrix.txt")


# --- numbers


@pytest.mark.parametrize("suffix", ["csv", "parquet", "h5ad", "zarr", "frame", "gct"])
@pytest.mark.parametrize("offset, says", [(3e5, None), (3e6, "note"), (2e9, "refused")])
def test_values_far_from_zero(tmp_path, suffix, offset, says):
    t = table()
    t["EGFR"] += offset
    if suffix in ("h5ad", "zarr"):
        profiles = anndata_of(t)
        profiles.X = t[GENES].to_numpy()
        getattr(profiles, f"write_{suffix}")(tmp_path / f"t.{suffix}")
    elif suffix == "gct":
        (tmp_path / "t.gct").write_text("".join("\t".join(line) + "\n" for line in gct(t)))
    elif suffix != "frame":
        written(t, tmp_path / f"t.{suffix}")
    read = lambda: read_profiles(t if suffix == "frame" else tmp_path / f"t.{suffix}")
    if says == "refused":
        with pytest.raises(CpvaeError, match=r"32 bits round them away \((EGFR|2_at)\)"):
            read()
    else:
        notes = [note for note in read().uns["cpvae"]["notes"] if "32 bits" in note]
        assert [("EGFR" in note or "2_at" in note) and "1 feature " in note for note in notes] == [
            True
        ] * (says == "note")


def test_large_whole_numbers_are_not_rounded():
    assert parts_from_table(table().assign(EGFR=np.arange(12) + 8_000_000)).notes == []


@pytest.mark.parametrize("value", [1e30, -3e9])
@pytest.mark.parametrize("suffix", ["csv", "h5ad", "frame"])
def test_one_value_far_outside(tmp_path, suffix, value):
    t = table()
    t.loc[7, "JUN"] = value
    notes = read_profiles(t if suffix == "frame" else written(t, tmp_path / f"t.{suffix}")).uns[
        "cpvae"
    ]["notes"]
    assert len(notes) == 1 and f"JUN ({value:.3g} in row 8 below the header)" in notes[0]
    assert read_profiles(table()).uns["cpvae"]["notes"] == []


def test_the_schema_of_a_wide_parquet_is_made_once(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    asked, schema = [], pq.ParquetFile.schema_arrow
    monkeypatch.setattr(
        pq.ParquetFile, "schema_arrow", property(lambda file: asked.append(1) or schema.fget(file))
    )
    read_parts(written(table(features=[f"f{i}" for i in range(300)]), tmp_path / "t.parquet"))
    assert len(asked) <= 2


# --- copies


def wells(x, **about):
    about = {"compound": [f"c{i}" for i in range(len(x))], "moa": "", "is_control": False} | about
    obs = pd.DataFrame(about, index=[str(i) for i in range(len(x))])
    return AnnData(np.asarray(x, np.float32), obs=obs, uns={"cpvae": dict(n_copies=0, notes=[])})


def test_wells_that_agree_by_chance_are_no_copies():
    calls = wells(
        [[0, 0, 0], [0, 0, 0], [1, 0, -1], [1, 0, -1], [1, 1, 0], [0, 1, -1], [0.5, 1, 0]]
    )
    assert drop_copies(calls).n_obs == 7  # an unequal row holds each value of equal rows
    assert drop_copies(wells([[0, 0.3], [0, 0.3], [0, 0.1]])).n_obs == 2  # no other row holds 0.3
    assert drop_copies(wells([[0, 0], [0, 0], [2, 3]])).n_obs == 3  # nothing but zeros


@pytest.mark.parametrize(
    "column, values",
    [
        ("well", ["A01", "A02"]),
        ("dose", [1.0, 10.0]),
        ("time", [24.0, 48.0]),
        ("cell", ["A549", "U2OS"]),
        ("plate", ["p", "q"]),
    ],
)
def test_copies_agree_in_where_they_were_measured(column, values):
    assert (
        drop_copies(wells([[1.5, 2.5]] * 2 + [[3, 4]], **{column: [*values, values[0]]})).n_obs == 3
    )
    assert drop_copies(wells([[1.5, 2.5]] * 2 + [[3, 4]], **{column: [values[0]] * 3})).n_obs == 2


def test_a_well_given_twice_is_a_copy_even_of_zeros():
    twice = wells(
        [[0, 0], [0, 0], [1, 2]], plate="p", well=["A01", "A01", "A02"], compound=["x", "y", "z"]
    )
    assert copy_groups(twice).tolist() == [0, 0, 1]


def test_thresholded_wells_stay():
    t = table(60, features=[f"f{i}" for i in range(6)])
    features = t.filter(like="f").columns
    t.loc[:, features] = t[features].where(t[features].abs() > 1.5, 0.0)
    facts = describe_profiles(read_profiles(t))
    assert (
        facts["exact copies"] == 0
        and facts["profiles"] == 60
        and (t[features] == 0).all(axis=1).sum() > 10
    )


# --- the simulator, and addresses


def test_the_simulator_can_be_written(tmp_path):
    made = simulate_profiles(n_mechanisms=3, n_pairs=2, n_features=12, n_maps=1)
    made.write_h5ad(tmp_path / "s.h5ad")
    write_profiles(made, tmp_path / "t.h5ad")
    assert np.array_equal(read_profiles(tmp_path / "s.h5ad").X, made.X) and np.array_equal(
        read_profiles(tmp_path / "t.h5ad").X, made.X
    )


@pytest.mark.parametrize(
    "address, command",
    [
        (
            "s3://cellpainting-gallery/a/b.parquet",
            "aws s3 cp --no-sign-request s3://cellpainting-gallery/a/b.parquet b.parquet",
        ),
        ("gs://bucket/b.h5ad", "gsutil cp gs://bucket/b.h5ad b.h5ad"),
        ("s3://bucket/b.zarr", "aws s3 sync --no-sign-request s3://bucket/b.zarr b.zarr"),
    ],
)
def test_buckets_are_refused_with_the_command_that_copies(address, command):
    said = cli("info", address)
    assert said.exit_code == 2 and f"`{command}`" in said.output
    with pytest.raises(CpvaeError, match="is not on this machine"):
        read_profiles([address])


@pytest.fixture
def server(tmp_path):
    (tmp_path / "site").mkdir()
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    site = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "site")
    )
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{site.server_port}", asked
    site.shutdown()


def test_an_address_is_fetched_once(tmp_path, server, monkeypatch):
    folder, url, asked = server
    monkeypatch.setenv("CPVAE_CACHE", str(tmp_path / "cache"))
    written(table(), folder / "my table.csv")
    (folder / "other").mkdir()
    written(table(seed=1), folder / "other" / "my table.csv")
    first = read_profiles(fetch_address(f"{url}/my%20table.csv?raw=1"))
    other = read_profiles(fetch_address(f"{url}/other/my%20table.csv"))
    assert first.uns["cpvae"]["source"] == "my table.csv" and not np.array_equal(first.X, other.X)
    read_profiles(fetch_address(f"{url}/my%20table.csv?raw=1"))
    assert len(asked) == 2
    said = cli("info", f"{url}/other/my%20table.csv")
    assert said.exit_code == 0 and len(asked) == 2 and "my table.csv" in said.output


@pytest.mark.parametrize(
    "name, says",
    [
        ("absent.csv", "404"),
        ("files/123", "does not end in the name"),
        ("a.zarr", "does not end in the name"),
    ],
)
def test_addresses_that_give_no_file(tmp_path, server, name, says):
    with pytest.raises(CpvaeError, match=says) as refused:
        fetch_address(f"{server[1]}/{name}", cache=tmp_path / "cache")
    assert "base_url" not in str(refused.value)
