"""Tables that must be refused, splits that must not leak, scales that must not see the test rows."""

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cpvae.data import (
    ProfileError,
    control_profile,
    describe_profiles,
    dose_levels,
    drop_copies,
    evaluable_pairs,
    mechanism_groups,
    mend_moa,
    parse_feature,
    read_profiles,
    read_table,
    scale_profiles,
    scale_values,
    split_profiles,
)

DATA = Path(os.environ.get("CPVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def make_table(n_compounds=12, n_plates=3, n_controls=4, n_features=5, seed=0):
    "A CellProfiler-like table: every compound once on every plate beside its control wells."
    rng = np.random.default_rng(seed)
    moas = ["A", "B", "A|B", None]
    rows = [
        dict(Metadata_Plate=f"p{p}", Metadata_Well=f"W{i:02}", Metadata_compound=c, Metadata_conc_uM=d, Metadata_moa=m)
        for p in range(n_plates)
        for i, (c, d, m) in enumerate(
            [("DMSO", np.nan, "DMSO")] * n_controls + [(f"c{k}", 1.0 + k % 3, moas[k % 4]) for k in range(n_compounds)]
        )
    ]
    values = rng.normal(size=(len(rows), n_features)).astype(np.float32)
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(values, columns=[f"Cells_Intensity_F{j}_DNA" for j in range(n_features)])], axis=1)


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
    "all rows longer": ("t.csv", CSV.splitlines()[0] + "\n" + CSV.split("\n", 1)[1].replace("\n", ",1\n").rstrip(), {}, "more cells"),
    "unclosed quote": ("t.csv", CSV + '"p9,W1,c1,1,A,1,2,3,4,5\n', {}, "different lengths"),
    "no header": ("t.csv", "c1,p1,.5,1.5\nc2,p1,1.0,2.5\n", {}, "header row"),
    "two header rows": ("t.csv", CSV.splitlines()[0] + "\n" + CSV, {}, f"column {F0}, row 1"),
    "metadata only": ("t.csv", TABLE.filter(like="Metadata_").to_csv(index=False), {}, "no feature columns"),
    "repeated feature": ("t.csv", CSV.replace("F1_DNA", "F0_DNA", 1), {}, f"{F0} appears twice"),
    "repeated metadata": ("t.csv", CSV.replace("Metadata_Well", "Metadata_Plate", 1), {}, "Metadata_Plate appears twice"),
    "prefix clash": ("t.csv", TABLE.assign(Plate="x").to_csv(index=False), {}, "Metadata_Plate"),
    "nameless column": ("t.csv", TABLE.assign(**{"": 1}).to_csv(index=False), {}, "has no name"),
    "text cell": ("t.csv", with_cell("high"), {}, f'column {F0}, row 5 holds "high"'),
    "commas in a tsv": ("t.tsv", CSV, {}, "no feature columns"),
    "decimal comma": ("t.tsv", TABLE.astype({F0: object}).assign(**{F0: "1,5"}).to_csv(index=False, sep="\t"), {}, 'row 1 holds "1,5"'),
    "text gene": ("t.csv", GENES.astype({"G0": object}).assign(G0=["x"] + [1] * (len(GENES) - 1)).to_csv(index=False), {}, "column G0, row 1"),
    "dates": ("t.parquet", parquet(TABLE.assign(**{F0: pd.Timestamp("2020-01-01")})), {}, f"column {F0}, row 1"),
    "nan": ("t.csv", with_cell(None), {}, f"column {F0}, row 5"),
    "inf": ("t.csv", with_cell("inf"), {}, "--drop-na"),
    "overflow": ("t.csv", with_cell("1e300"), {}, "infinite"),
    "empty column": ("t.csv", TABLE.assign(**{F0: np.nan}).to_csv(index=False), {"drop_na": True}, "no number in any row"),
    "nan in every row": (
        "t.csv",
        TABLE.mask(TABLE.columns.get_indexer(TABLE.columns)[None] == (5 + np.arange(len(TABLE)) % 5)[:, None]).to_csv(index=False),
        {"drop_na": True},
        "every row",
    ),
    "all constant": ("t.csv", TABLE.assign(**{c: 1 for c in TABLE if c.startswith("Cells")}).to_csv(index=False), {}, "no feature differs"),
    "one compound": ("t.csv", TABLE[TABLE.Metadata_compound.isin(["DMSO", "c1"])].to_csv(index=False), {}, "1 compound "),
    "controls only": ("t.csv", TABLE[TABLE.Metadata_compound == "DMSO"].to_csv(index=False), {}, "0 compounds"),
    "no controls": ("t.csv", TABLE[TABLE.Metadata_compound != "DMSO"].to_csv(index=False), {}, "--zero-control"),
    "no compound column": ("t.csv", TABLE.drop(columns="Metadata_compound").to_csv(index=False), {}, "--compound-column"),
    "absent override": ("t.csv", CSV, {"plate": "Metadata_Barcode"}, "no column Metadata_Barcode"),
    "absent control": ("t.csv", CSV, {"control": "water"}, 'no row says "water"'),
    "text dose": ("t.csv", with_cell("1 uM", column="Metadata_conc_uM"), {}, 'row 5 holds "1 uM"'),
    "long cell": ("t.csv", with_cell("x" * 10_000), {}, f"column {F0}, row 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name, tmp_path):
    file, content, options, says = BAD[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProfileError) as refusal:
        read_profiles(path, **options)
    message = str(refusal.value)
    assert says in message and file in message
    assert len(message.splitlines()) == 1 and len(message) < 500


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ProfileError, match="no such file"):
        read_profiles(tmp_path / "nowhere.csv")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(ProfileError, match="is a folder"):
        read_profiles(tmp_path / "folder.parquet")


def test_a_file_that_may_not_be_opened(tmp_path, monkeypatch):
    import cpvae.data

    def locked(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(cpvae.data.READERS, ".csv", locked)
    (tmp_path / "t.csv").write_text(CSV)
    with pytest.raises(ProfileError, match="permission"):
        read_table(tmp_path / "t.csv")


def test_a_refusal_needs_no_slow_import(tmp_path):
    (tmp_path / "t.csv").write_text(with_cell(None))
    code = (
        "import sys, cpvae.data\n"
        f"try: cpvae.data.read_profiles({str(tmp_path / 't.csv')!r})\n"
        "except cpvae.data.ProfileError: print(*[m for m in ('torch','anndata','sklearn','scipy','umap','nbdev','fastcore') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
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
    columns = ["compound", "dose", "time", "plate", "well", "moa", "is_control"]
    pd.testing.assert_frame_equal(read.obs[columns], profiles.obs[columns])
    assert read.uns["cpvae"]["columns"] == profiles.uns["cpvae"]["columns"]


def test_saved_index_byte_order_mark_and_bare_names(tmp_path, profiles):
    bare = TABLE.rename(columns=lambda c: c.removeprefix("Metadata_"))
    bare.to_csv(tmp_path / "t.csv", encoding="utf-8-sig")
    read = read_profiles(tmp_path / "t.csv")
    assert read.var_names.equals(profiles.var_names) and list(read.obs["compound"]) == list(profiles.obs["compound"])
    assert len(read.uns["cpvae"]["notes"]) == 2


def test_identifiers_keep_their_zeros(tmp_path):
    table = TABLE.assign(Metadata_Plate=TABLE.Metadata_Plate.str.replace("p", "00"), Metadata_compound=TABLE.Metadata_compound)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert set(read_profiles(tmp_path / "t.csv").obs["plate"]) == {"000", "001", "002"}
    TABLE.assign(Metadata_Plate=[7.0, np.nan] * (len(TABLE) // 2)).to_parquet(tmp_path / "t.parquet")
    assert set(read_profiles(tmp_path / "t.parquet").obs["plate"]) == {"7", ""}


@pytest.mark.parametrize(
    "columns, control, plate",
    [
        (dict(compound="broad_sample", conc_uM="mmoles_per_liter", Plate="Plate_Map_Name", Well="pert_well"), "broad_sample = DMSO", "p0"),
        (dict(compound="pert_iname"), "pert_iname = DMSO", "p0"),
    ],
)
def test_conventions(columns, control, plate, tmp_path, profiles):
    names = {f"Metadata_{old}": f"Metadata_{new}" for old, new in columns.items()}
    TABLE.rename(columns=names).to_parquet(tmp_path / "t.parquet")
    read = read_profiles(tmp_path / "t.parquet")
    assert read.uns["cpvae"]["columns"]["is_control"] == f"Metadata_{control}"
    pd.testing.assert_series_equal(read.obs["dose"], profiles.obs["dose"])
    assert read.obs["plate"].iloc[0] == plate and list(read.obs["compound"]) == list(profiles.obs["compound"])


def test_jump_negative_controls(tmp_path):
    table = TABLE.assign(
        Metadata_JCP2022=TABLE.Metadata_compound.replace("DMSO", "JCP2022_033924"),
        Metadata_pert_type=np.where(TABLE.Metadata_compound == "DMSO", "negcon", "trt"),
    ).drop(columns="Metadata_compound")
    for columns, rule in (([], "pert_type = negcon"), (["Metadata_pert_type"], "JCP2022 = JCP2022_033924")):
        table.drop(columns=columns).to_parquet(tmp_path / "t.parquet")
        read = read_profiles(tmp_path / "t.parquet")
        assert read.uns["cpvae"]["columns"]["is_control"] == f"Metadata_{rule}"
        assert read.obs["is_control"].sum() == 12


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


@pytest.mark.parametrize("seed", range(40))
def test_no_compound_in_two_parts(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 30))
    profiles = plain(make_table(n, int(rng.integers(1, 5)), int(rng.integers(0, 9)), seed=seed).sample(frac=rng.uniform(0.5, 1), random_state=seed))
    split_profiles(profiles, valid=0.1, test=0.2, seed=seed)
    treated = profiles.obs[~profiles.obs["is_control"]]
    assert set(treated["split"]) == {"train", "valid", "test"}
    assert treated.groupby("compound")["split"].nunique().max() == 1
    again = plain(profiles.obs.iloc[::-1])
    split_profiles(again, valid=0.1, test=0.2, seed=seed)
    part = treated.drop_duplicates("compound").set_index("compound")["split"]
    other = again.obs[~again.obs["is_control"]].drop_duplicates("compound").set_index("compound")["split"]
    assert part.sort_index().equals(other.sort_index()), "the order of rows must not matter"


def plain(table):
    from anndata import AnnData

    table = table.rename(columns=lambda c: c.removeprefix("Metadata_")).rename(columns={"Plate": "plate"})
    obs = table[["compound", "plate"]].assign(moa="", is_control=table["compound"] == "DMSO").reset_index(drop=True).rename(index=str)
    X = np.random.default_rng(0).normal(size=(len(obs), 4)).astype(np.float32)
    return AnnData(X=X, obs=obs, uns={"cpvae": dict(zero_control=False, notes=[], n_copies=0)})


def test_controls_are_dealt_in_proportion():
    profiles = plain(make_table(20, 50, 7))
    parts = []
    for seed in range(10):
        control = split_profiles(profiles, seed=seed).obs.query("is_control")
        per_plate = pd.crosstab(control["plate"], control["split"])
        assert per_plate["test"].between(1, 2).all() and per_plate["train"].between(4, 5).all()
        parts.append(control["split"].value_counts(normalize=True))
    mean = pd.concat(parts, axis=1).mean(axis=1)
    np.testing.assert_allclose(mean[["train", "valid", "test"]], [0.7, 0.1, 0.2], atol=0.02)


def test_unnamed_rows_are_trained_on_only():
    profiles = plain(make_table())
    profiles.obs.loc[profiles.obs["compound"] == "c3", "compound"] = ""
    split_profiles(profiles)
    assert set(profiles.obs.loc[profiles.obs["compound"] == "", "split"]) == {"train"}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("valid, test", [(0.1, 0.1), (0.1, 0.2), (0, 0.2), (0.2, 0)])
def test_split_by_plate(seed, valid, test):
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.choice([1, 2, 3, 9, 10, 11, 19, 21, 60], 6)] + [30]
    table = pd.DataFrame({"compound": "x", "plate": np.repeat([f"p{i}" for i in range(len(sizes))], sizes)})
    profiles = split_profiles(plain(table), by="plate", valid=valid, test=test, seed=seed)
    share = profiles.obs["split"].value_counts(normalize=True)
    assert abs(share.get("test", 0) - test) < 0.03 and abs(share.get("valid", 0) - valid) < 0.03
    large = profiles.obs[profiles.obs["plate"].map(table["plate"].value_counts()) >= 60]
    for _, plate in large.groupby("plate"):
        assert abs((plate["split"] == "test").mean() - test) < 0.05


def test_split_by_plate_is_scikit_learns():
    from sklearn.model_selection import train_test_split

    profiles = split_profiles(plain(make_table(20, 4, 4)), by="plate", valid=0.1, test=0.1, seed=9876)
    rows = np.arange(profiles.n_obs)
    train, held = train_test_split(rows, test_size=0.2, random_state=9876, stratify=profiles.obs["plate"])
    valid, test = train_test_split(held, test_size=0.5, random_state=9876, stratify=profiles.obs["plate"].iloc[held])
    for part, theirs in (("train", train), ("valid", valid), ("test", test)):
        assert set(np.flatnonzero(profiles.obs["split"] == part)) == set(theirs)


@pytest.mark.parametrize("ask", [dict(valid=0.5, test=0.5), dict(valid=-0.1), dict(valid=0, test=0), dict(by="plate", valid=1.0)])
def test_impossible_splits(ask):
    with pytest.raises(ProfileError):
        split_profiles(plain(make_table()), **ask)


@pytest.mark.parametrize("by", ["compound", "plate"])
def test_too_few_to_split(by):
    with pytest.raises(ProfileError, match="split"):
        split_profiles(plain(make_table(2, 1, 0)), by=by)


@pytest.mark.parametrize("method", ["median_sd", "minmax"])
@pytest.mark.parametrize("seed", range(10))
def test_the_scale_uses_no_test_row(method, seed):
    one = split_profiles(plain(make_table(seed=seed)), seed=seed)
    other = one.copy()
    held = (one.obs["split"] != "train").to_numpy()
    other.X[held] = np.random.default_rng(seed).normal(5, 100, other.X[held].shape)
    for profiles in (one, other):
        scale_profiles(profiles, method)
    pd.testing.assert_frame_equal(one.var[["center", "scale"]], other.var[["center", "scale"]])
    np.testing.assert_array_equal(one.layers["scaled"][~held], other.layers["scaled"][~held])
    everything = [scale_profiles(p.copy(), method, fit_on="all").var["scale"] for p in (one, other)]
    assert not np.allclose(*everything), "fitting on all rows would notice"


def test_a_feature_constant_in_training_keeps_its_unit():
    profiles = split_profiles(plain(make_table()))
    train = (profiles.obs["split"] == "train").to_numpy()
    profiles.X[train, 0] = 0.1  # its float64 standard deviation need not come out as exactly zero
    profiles.X[~train, 0] = 2.1
    scale_profiles(profiles)
    assert profiles.var["scale"].iloc[0] == 1
    np.testing.assert_allclose(profiles.layers["scaled"][~train, 0], 2.0, rtol=1e-6)
    np.testing.assert_array_equal(scale_values(profiles.X, profiles), profiles.layers["scaled"])


def test_limit_and_no_limit():
    profiles = split_profiles(plain(make_table()))
    profiles.X[0, 0] = 1e6
    assert np.abs(scale_profiles(profiles.copy(), clip=2.5).layers["scaled"]).max() == 2.5
    free = scale_profiles(profiles.copy(), clip=0)
    assert free.uns["cpvae"]["clip"] == 0 and np.abs(free.layers["scaled"]).max() > 2.5


def test_control_state_weighs_plates_equally(profiles):
    scale_profiles(profiles, fit_on="all")
    control = profiles.obs["is_control"].to_numpy()
    by_hand = np.mean([profiles.layers["scaled"][control & (profiles.obs["plate"] == p)].mean(0) for p in ("p0", "p1", "p2")], axis=0)
    np.testing.assert_allclose(control_profile(profiles), by_hand, atol=1e-6)


def test_copies_are_found_whatever_their_zero_sign(profiles):
    profiles.X[5], profiles.X[6] = 0.0, -0.0
    profiles.X[9] = profiles.X[20]
    once = drop_copies(profiles)
    assert once.n_obs == profiles.n_obs - 2 and once.uns["cpvae"]["n_copies"] == 2
    assert "20" not in once.obs_names and "9" in once.obs_names
    assert describe_profiles(profiles)["exact copies"] == describe_profiles(once)["exact copies"] == 2


@pytest.mark.parametrize("seed", range(5))
def test_dose_levels_are_idempotent_and_monotone(seed):
    dose = np.random.default_rng(seed).lognormal(0, 2, 200).round(2) + 0.01
    level = dose_levels(dose)
    np.testing.assert_array_equal(dose_levels(level), level)
    assert (np.diff(level[np.argsort(dose)]) >= 0).all()
    assert (np.maximum(level / dose, dose / level) <= 1.05).all()
    np.testing.assert_allclose(dose_levels(dose * 1024), level * 1024)


def test_mended_annotations_are_stable():
    for text in ("b|a", "a||a ", "x  y|x y", "serotonin\u00e2\u0080\u0093norepinephrine", "\u03b2-lactamase", None, ""):
        assert mend_moa(mend_moa(text)) == mend_moa(text)
    assert mend_moa("x  y|x y|") == "x y"


def test_feature_names_of_every_group():
    assert parse_feature("Nuclei_Correlation_Costes_AGP_Mito") == ("Nuclei", "AGP|Mito", "Correlation")
    assert parse_feature("Image_Count_Cells") == ("Image", "", "Count")
    assert parse_feature("Cells") == ("", "", "")
    assert parse_feature("DNAJB6") == ("", "", "")


@pytest.mark.skipif(not (DATA / "cell_injury_u2os_8298x346.parquet").is_file(), reason="CPVAE_DATA has no U2OS table")
def test_u2os_table_as_csv_is_the_same(tmp_path):
    table = pd.read_parquet(DATA / "cell_injury_u2os_8298x346.parquet").iloc[::20]
    table.to_csv(tmp_path / "t.csv.gz", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    csv, pq = (read_profiles(tmp_path / file) for file in ("t.csv.gz", "t.parquet"))
    np.testing.assert_allclose(csv.X, pq.X, rtol=1e-5, atol=1e-6)
    a, b = describe_profiles(csv), describe_profiles(pq)
    assert {k: v for k, v in a.items() if k != "source"} == {k: v for k, v in b.items() if k != "source"}
