"""Splits that must not leak, scales and selections that must not see the test rows, averages that
must not lose a group.
"""

import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import spearmanr
from sklearn.model_selection import train_test_split

from cpvae.preparation import scale as scaling
from cpvae.errors import CpvaeError
from cpvae.lsa.states import control_profile
from cpvae.preparation.clean import drop_copies
from cpvae.preparation.normalise import consensus_profiles, normalize_profiles
from cpvae.preparation.scale import scale_profiles, scale_values
from cpvae.preparation.select import SELECTION, select_features
from cpvae.preparation.split import split_profiles
from cpvae.profiles.read import profiles_from_table
from cpvae.profiles.schema import UNNORMALISED

MOAS = ["A", "B", "A|B", ""]


def make(n_compounds=12, n_plates=3, n_controls=4, n_features=5, seed=0, **obs):
    "Every compound once on every plate beside its control wells; `obs` sets columns."
    rows = [
        dict(plate=f"p{p}", compound=c, dose=d, moa=m)
        for p in range(n_plates)
        for c, d, m in [("DMSO", np.nan, "")] * n_controls
        + [(f"c{k}", 1.0 + k % 3, MOAS[k % 4]) for k in range(n_compounds)]
    ]
    table = pd.DataFrame(rows, columns=["plate", "compound", "dose", "moa"]).assign(
        time=np.nan, cell="", well=""
    )
    table = table.assign(is_control=table["compound"] == "DMSO", **obs).rename(index=str)
    X = np.random.default_rng(seed).normal(size=(len(table), n_features)).astype(np.float32)
    var = pd.DataFrame(index=[f"Cells_Intensity_F{j}_DNA" for j in range(n_features)])
    return AnnData(X=X, obs=table, var=var, uns={"cpvae": about()})


def about(kind="cell_painting"):
    return dict(zero_control=False, notes=[], n_copies=0, kind=kind, dropped_features=[])


def rows_of(obs, kind="cell_painting"):
    "A table of metadata alone."
    obs = pd.DataFrame(obs).assign(compound="x", moa="", is_control=False).rename(index=str)
    return AnnData(X=np.zeros((len(obs), 1), np.float32), obs=obs, uns={"cpvae": about(kind)})


def treated(profiles):
    return profiles.obs[~profiles.obs["is_control"]]


def random_profiles(seed):
    "Compounds with random mechanisms, doses, plates and gaps, in random order."
    rng = np.random.default_rng(seed)
    profiles = make(
        int(rng.integers(5, 60)), int(rng.integers(1, 5)), int(rng.integers(0, 9)), seed=seed
    )
    names = np.unique(treated(profiles)["compound"])
    moa = dict(
        zip(
            names,
            rng.choice(
                ["A", "B", "A|B", "C", "C|D", "E", ""],
                len(names),
                p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.1],
            ),
        )
    )
    profiles.obs["moa"] = profiles.obs["compound"].map(moa).fillna("")
    keep = rng.random(profiles.n_obs) < rng.uniform(0.6, 1)
    keep[[int(np.flatnonzero(profiles.obs["compound"] == name)[0]) for name in names]] = True
    return profiles[rng.permutation(np.flatnonzero(keep))].copy(), len(names), pd.Series(moa)


# --- splits


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("valid, test", [(0.1, 0.2), (0.1, 0.1), (0, 0.3), (0.2, 0)])
def test_split_by_compound(seed, valid, test):
    profiles, n, moa = random_profiles(seed)
    profiles = split_profiles(profiles, valid=valid, test=test, seed=seed)
    part = treated(profiles).groupby("compound")["split"].agg(["nunique", "first"])
    assert part["nunique"].max() == 1
    sizes = {
        name: max(1, round(share * n)) if share else 0
        for name, share in (("test", test), ("valid", valid))
    }
    counts = part["first"].value_counts()
    assert {name: counts.get(name, 0) for name in sizes} == sizes
    for _, compounds in moa.groupby(moa):
        k, found = len(compounds), part.loc[compounds.index, "first"].value_counts()
        share = k * sizes["test"] / n
        assert np.floor(share + 1e-9) <= found.get("test", 0) <= np.ceil(share - 1e-9)
        if k >= 6 and test:
            assert found.get("train", 0) >= 1 and (share < 1 or found.get("test", 0) >= 1)
    backwards = split_profiles(profiles[::-1].copy(), valid=valid, test=test, seed=seed)
    again = treated(backwards).groupby("compound")["split"].first()
    pd.testing.assert_series_equal(part["first"], again, check_names=False)


@pytest.mark.slow
def test_every_compound_has_the_same_chance():
    moa = dict(zip([f"c{k}" for k in range(20)], ["A"] * 9 + ["B"] * 6 + list("CDEFG")))
    profiles = make(20, 1, 0)
    profiles.obs["moa"] = profiles.obs["compound"].map(moa)
    tested = (
        sum(
            (split_profiles(profiles, seed=seed).obs["split"] == "test").to_numpy()
            for seed in range(800)
        )
        / 800
    )
    assert tested.min() > 0.14 and tested.max() < 0.26, (
        "four in twenty, whether the mechanism is common or rare"
    )


def test_a_tenth_chooses_and_a_fifth_is_scored():
    "Unless asked otherwise: of 40 compounds, and of 40 control wells."
    split = split_profiles(make(40, 4, 10)).obs
    for rows in (treated(AnnData(obs=split)).drop_duplicates("compound"), split[split.is_control]):
        assert rows["split"].value_counts().to_dict() == {"train": 28, "test": 8, "valid": 4}


def test_the_seed_matters():
    splits = {tuple(split_profiles(make(20, 1, 0), seed=seed).obs["split"]) for seed in range(10)}
    assert len(splits) == 10


def test_what_is_normalised_is_no_longer_told_to_be():
    rng = np.random.default_rng(0)
    raw = pd.DataFrame(
        9 + rng.normal(size=(24, 5)), columns=[f"Cells_Intensity_{c}" for c in "abcde"]
    )
    raw.insert(0, "Metadata_compound", ["DMSO"] * 12 + [*"abcdefabcdef"])
    profiles = profiles_from_table(raw, "t")
    said = lambda made: [n for n in made.uns["cpvae"]["notes"] if n.startswith(UNNORMALISED)]
    assert len(said(profiles)) == 1 and "mad_robustize" in said(profiles)[0]
    assert said(normalize_profiles(profiles)) == []


def test_a_large_mechanism_is_never_missed():
    profiles = make(20, 1, 0)
    profiles.obs["moa"] = ["A"] * 8 + [f"m{k}" for k in range(12)]
    for seed in range(100):
        assert "A" in set(split_profiles(profiles, seed=seed).obs.query("split == 'test'")["moa"])


def test_controls_are_dealt_in_proportion():
    profiles = make(20, 50, 7)
    parts = []
    for seed in range(10):
        control = split_profiles(profiles, seed=seed).obs.query("is_control")
        per_plate = pd.crosstab(control["plate"], control["split"])
        assert per_plate["test"].between(1, 2).all() and per_plate["valid"].between(0, 1).all()
        assert control["split"].value_counts().to_dict() == {"train": 245, "test": 70, "valid": 35}
        parts.append(control["split"].value_counts(normalize=True))
    mean = pd.concat(parts, axis=1).mean(axis=1)
    np.testing.assert_allclose(mean[["train", "valid", "test"]], [0.7, 0.1, 0.2], atol=0.02)


@pytest.mark.parametrize(
    "way", [dict(), dict(by="rows"), dict(by="plate"), dict(by="pair", pair=("A", "B"))]
)
@pytest.mark.parametrize("seed", range(10))
def test_unnamed_rows_are_trained_on_only(way, seed):
    profiles = make(n_plates=6)
    # a control without a name is still a control
    profiles.obs.loc[profiles.obs["compound"].isin(["DMSO", "c3"]), "compound"] = ""
    profiles = split_profiles(profiles, seed=seed, **way)
    unnamed = profiles.obs["compound"] == ""
    assert set(profiles.obs.loc[unnamed & ~profiles.obs["is_control"], "split"]) == {"train"}
    assert set(profiles.obs.loc[~unnamed, "split"]) >= {"train", "test"}
    assert len(set(profiles.obs.loc[profiles.obs["is_control"], "split"])) > 1, (
        "unnamed controls are dealt"
    )


def test_named_rows_are_split_as_if_the_unnamed_were_not_there():
    profiles = make(30, 6)
    profiles.obs.loc[profiles.obs["compound"].isin(["c3", "c4", "c5"]), "compound"] = ""
    named = profiles[(profiles.obs["compound"] != "").to_numpy()].copy()
    profiles, named = (split_profiles(table, by="rows", seed=4) for table in (profiles, named))
    pd.testing.assert_series_equal(profiles.obs.loc[named.obs_names, "split"], named.obs["split"])


def test_rows_without_any_name_cannot_be_split():
    profiles = make(4, 1, 0)
    profiles.obs["compound"] = ""
    with pytest.raises(CpvaeError, match="too few"):
        profiles = split_profiles(profiles, by="rows")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("valid, test", [(0.1, 0.1), (0.1, 0.2), (0, 0.2), (0.2, 0)])
def test_split_by_rows_with_tiny_strata(seed, valid, test):
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.choice([1, 2, 3, 9, 10, 11, 19, 21, 60], 6)] + [30]
    profiles = rows_of({"plate": np.repeat([f"p{i}" for i in range(len(sizes))], sizes)})
    profiles = split_profiles(profiles, by="rows", valid=valid, test=test, seed=seed)
    share = profiles.obs["split"].value_counts(normalize=True)
    assert abs(share.get("test", 0) - test) < 0.03 and abs(share.get("valid", 0) - valid) < 0.03
    large = profiles.obs[profiles.obs["plate"].map(profiles.obs["plate"].value_counts()) >= 60]
    for _, plate in large.groupby("plate"):
        assert abs((plate["split"] == "test").mean() - test) < 0.05


@pytest.mark.parametrize(
    "kind, column",
    [
        ("cell_painting", "Metadata_Plate_Map_Name"),
        ("cell_painting", "plate"),
        ("genes", "cell"),
        ("genes", None),
    ],
)
def test_split_by_rows_is_scikit_learns(kind, column):
    rng = np.random.default_rng(0)
    columns = {
        "plate": rng.integers(4, size=200).astype(str),
        "cell": rng.integers(3, size=200).astype(str),
    }
    columns["Metadata_Plate_Map_Name"] = rng.integers(5, size=200).astype(str)
    if column == "plate":
        del columns["Metadata_Plate_Map_Name"]
    if column is None:
        columns["cell"] = [""] * 200
    profiles = split_profiles(rows_of(columns, kind), by="rows", valid=0.1, test=0.1, seed=9876)
    rows, strata = np.arange(200), pd.Series(columns[column]) if column else None
    train, held = train_test_split(rows, test_size=0.2, random_state=9876, stratify=strata)
    valid, test = train_test_split(
        held, test_size=0.5, random_state=9876, stratify=strata.iloc[held] if column else None
    )
    if column:
        for part, theirs in (("train", train), ("valid", valid), ("test", test)):
            assert set(np.flatnonzero(profiles.obs["split"] == part)) == set(theirs)
    assert profiles.obs["split"].value_counts().to_dict() == {"train": 160, "valid": 20, "test": 20}


@pytest.mark.parametrize("n, train", [(10_368, 8_294), (50_303, 40_242), (118_050, 94_440)])
def test_the_papers_sizes(n, train):
    for strata in (
        np.repeat("p", n),
        np.random.default_rng(n).integers(100, size=n).astype(str),
        np.r_[np.repeat("p", n - 3), [*"abc"]],
    ):
        split = split_profiles(
            rows_of({"plate": strata}), by="rows", valid=0.1, test=0.1, seed=9876
        ).obs["split"]
        assert (split == "train").sum() == train and abs(
            (split == "test").sum() - (split == "valid").sum()
        ) <= 1


def test_row_counts_do_not_suffer_from_binary_fractions():
    split = split_profiles(rows_of({"plate": ["p"] * 10}), by="rows", valid=0.1, test=0.2).obs[
        "split"
    ]
    assert (split == "train").sum() == 7, ".1 + .2 is a hair above .3"


@pytest.mark.parametrize("seed", range(10))
def test_split_by_plate(seed):
    profiles = make(5, 10, 3)
    profiles = profiles[~((profiles.obs["plate"] == "p3") & ~profiles.obs["is_control"])].copy()
    profiles.obs.loc[profiles.obs["plate"] == "p3", "plate"] = ""  # controls of no plate
    profiles = split_profiles(profiles, by="plate", seed=seed)
    part = profiles.obs.groupby("plate")["split"].agg(["nunique", "first"])
    assert part["nunique"].max() == 1 and part.loc["", "first"] == "train"
    assert part["first"].drop("").value_counts().to_dict() == {"train": 6, "test": 2, "valid": 1}
    again = split_profiles(profiles[::-1].copy(), by="plate", seed=seed)
    pd.testing.assert_series_equal(again.obs["split"][::-1], profiles.obs["split"])


@pytest.mark.parametrize(
    "n, says",
    [
        (1, "1 treated row has no plate; split by compound"),
        (5, "5 treated rows have no plate; split by compound"),
    ],
)
def test_treatments_of_no_plate_are_not_split_by_plate(n, says):
    profiles = make(5, 10, 3)
    profiles.obs.loc[treated(profiles).index[:n], "plate"] = ""
    with pytest.raises(CpvaeError, match=says):
        profiles = split_profiles(profiles, by="plate")
    with pytest.raises(CpvaeError, match="before the consensus"):
        split_profiles(consensus_profiles(make(5, 10, 3), "mean"), by="plate")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("strict", [False, True])
def test_split_by_pair(seed, strict):
    profiles, n, moa = random_profiles(seed)
    extra = treated(profiles)["compound"].iloc[0]
    profiles.obs.loc[profiles.obs["compound"] == extra, "moa"] = "A|B|C"
    moa[extra] = "A|B|C"
    terms = moa.str.split("|").map(set)
    held = terms.map(lambda found: bool(found & {"A", "B"}) if strict else found >= {"A", "B"})
    if (~held).sum() < 2:
        return
    profiles = split_profiles(profiles, by="pair", pair=("B", "A"), strict=strict, seed=seed)
    part = treated(profiles).groupby("compound")["split"].agg(["nunique", "first"])
    assert part["nunique"].max() == 1
    assert set(part.index[part["first"] == "test"]) == set(held.index[held])
    assert (part["first"] == "valid").sum() == max(1, round(0.1 * (~held).sum()))


@pytest.mark.parametrize(
    "pair, says",
    [
        (("mTOR inhibitor", "PI3K inhibitor "), "near it: PI3K inhibitor"),
        (("mtor inhibitor", "PI3K inhibitor"), "near it: mTOR inhibitor"),
        (("PI3K", "mTOR inhibitor"), "near it: PI3K inhibitor"),
        (("xyz", "mTOR inhibitor"), "known are"),
        (("mTOR inhibitor", "proteasome inhibitor"), "nothing would be tested"),
        (("mTOR inhibitor", "mTOR inhibitor"), "two mechanisms"),
        (("mTOR inhibitor",), "two mechanisms"),
        ((), "two mechanisms"),
    ],
)
def test_pairs_that_cannot_be_left_out(pair, says):
    profiles = make(20)
    names = {
        "A": "mTOR inhibitor",
        "B": "PI3K inhibitor",
        "A|B": "PI3K inhibitor|mTOR inhibitor",
        "": "proteasome inhibitor",
    }
    profiles.obs["moa"] = profiles.obs["moa"].map(names)
    for strict in (False, True):
        with pytest.raises(CpvaeError, match=says) as refusal:
            profiles = split_profiles(profiles, by="pair", pair=pair, strict=strict)
        assert len(str(refusal.value)) < 300
    assert "split" not in profiles.obs


def test_a_term_within_another_is_not_that_term():
    profiles = make(20)
    other = (profiles.obs["moa"] == "") & ~profiles.obs["is_control"]
    profiles.obs.loc[other, "moa"] = "A2|B2"
    profiles = split_profiles(profiles, by="pair", pair=("A", "B"), strict=True)
    assert "test" not in set(profiles.obs.loc[other, "split"])


@pytest.mark.parametrize(
    "ask",
    [
        dict(valid=0.5, test=0.5),
        dict(valid=-0.1),
        dict(valid=0, test=0),
        dict(by="rows", valid=1.0),
    ],
)
def test_impossible_splits(ask):
    with pytest.raises(CpvaeError):
        split_profiles(make(), **ask)


@pytest.mark.parametrize("by", ["compound", "rows", "plate"])
def test_too_few_to_split(by):
    with pytest.raises(CpvaeError, match="split"):
        split_profiles(make(2, 1, 0), by=by)


def test_metadata_from_h5ad_is_categorical():
    profiles, _, _ = random_profiles(3)
    other = profiles.copy()
    for name in ("compound", "plate", "moa", "cell"):
        other.obs[name] = other.obs[name].astype("category")
    for way in (dict(), dict(by="rows"), dict(by="pair", pair=("A", "B"))):
        splits = [split_profiles(p, **way).obs["split"].tolist() for p in (profiles, other)]
        assert splits[0] == splits[1]
    np.testing.assert_array_equal(*(consensus_profiles(p, "median").X for p in (profiles, other)))


# --- copies


def test_copies_are_found_whatever_their_zero_sign():
    profiles = make(dose=1.0)
    profiles.obs["plate"] = "p"
    profiles.X[5] = profiles.X[6]
    profiles.X[5:7, 0] = 0.0, -0.0
    profiles.X[9] = profiles.X[20]
    once = drop_copies(profiles)
    assert once.n_obs == profiles.n_obs - 2 and once.uns["cpvae"]["n_copies"] == 2
    assert "20" not in once.obs_names and "9" in once.obs_names and "6" not in once.obs_names


def copies(rows):
    "Rows of (profile, compound, mechanism, is control)."
    values, compound, moa, control = zip(*rows, strict=True)
    obs = pd.DataFrame({"compound": compound, "moa": moa, "is_control": control}).rename(index=str)
    return AnnData(
        np.repeat(np.array(values, np.float32)[:, None], 3, axis=1), obs=obs, uns={"cpvae": about()}
    )


@pytest.mark.parametrize(
    "moas, kept, says",
    [
        (["", "A"], "A", "annotated from a copy: 1 compound."),
        (["A", ""], "A", "1 row."),
        (["A", "B"], "", "different mechanisms: 1 compound."),
        (["", "A", "B"], "", "2 rows."),
        (["", "A", "", "A"], "A", "annotated from a copy: 1 compound."),
        (["", ""], "", "1 row."),
    ],
)
def test_copies_share_their_mechanism(moas, kept, says):
    profiles = copies(
        [(1, f"c{k}", moa, False) for k, moa in enumerate(moas)] + [(2, "other", "C", False)]
    )
    once = drop_copies(profiles)
    assert once.obs[["compound", "moa"]].values.tolist() == [["c0", kept], ["other", "C"]]
    assert once.uns["cpvae"]["notes"][-1].endswith(says) and profiles.obs["moa"].tolist() == [
        *moas,
        "C",
    ]


def test_a_compound_keeps_one_mechanism_through_its_copies():
    rows = [
        (1, "x", "", False),
        (1, "y", "A", False),
        (2, "x", "", False),
        (3, "z", "B", False),
        (4, "z", "B", False),
        (4, "w", "C", False),
    ]
    rows += [
        (5, "DMSO", "", True),
        (5, "v", "A", False),
        (6, "DMSO", "", True),
        (7, "", "", False),
        (7, "u", "A", False),
        (8, "y", "A", False),
    ]
    once = drop_copies(copies(rows)).obs
    assert once["moa"].groupby(once["compound"]).unique().map(list).to_dict() == {
        "x": ["A"],
        "z": [""],
        "DMSO": [""],
        "": [""],
        "y": ["A"],
    }


# --- scale


@pytest.mark.parametrize("method", ["median_sd", "minmax"])
@pytest.mark.parametrize("seed", range(5))
def test_the_scale_uses_no_test_row(method, seed):
    one = split_profiles(make(seed=seed), seed=seed)
    other = one.copy()
    held = (one.obs["split"] != "train").to_numpy()
    other.X[held] = np.random.default_rng(seed).normal(5, 100, other.X[held].shape)
    one, other = (scale_profiles(profiles, method) for profiles in (one, other))
    pd.testing.assert_frame_equal(one.var[["center", "scale"]], other.var[["center", "scale"]])
    np.testing.assert_array_equal(one.layers["scaled"][~held], other.layers["scaled"][~held])
    everything = [scale_profiles(p, method, fit_on="all").var["scale"] for p in (one, other)]
    assert not np.allclose(*everything), "fitting on all rows would notice"


@pytest.mark.parametrize("block", [1, 7, 100, 2**24])
@pytest.mark.parametrize("method", ["median_sd", "minmax"])
@pytest.mark.parametrize("fit_on", ["train", "all"])
def test_scaling_in_blocks_is_the_formula(block, method, fit_on, monkeypatch):
    monkeypatch.setattr(scaling, "_BLOCK", block)
    profiles = split_profiles(make(n_features=9))
    profiles.X[:] = profiles.X * np.geomspace(1e-3, 1e3, 9) + 50
    profiles.X[:, 4] = 0.1
    fit = profiles.X[
        (profiles.obs["split"] == "train").to_numpy() if fit_on == "train" else slice(None)
    ].astype(float)
    center, scale = (
        (np.median(fit, 0), fit.std(0)) if method == "median_sd" else (fit.min(0), np.ptp(fit, 0))
    )
    scale[4] = 1
    expected = (profiles.X - center) / scale
    profiles = scale_profiles(profiles, method, clip=2, fit_on=fit_on)
    np.testing.assert_allclose(
        profiles.layers["scaled"],
        np.clip(expected, -2, 2) if method == "median_sd" else expected,
        atol=1e-5,
    )
    np.testing.assert_allclose(profiles.var["center"], center, rtol=1e-12)
    np.testing.assert_allclose(profiles.var["scale"], scale, rtol=1e-9)
    assert profiles.layers["scaled"].dtype == np.float32
    np.testing.assert_array_equal(
        scale_values(profiles.X[3], profiles), profiles.layers["scaled"][3]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told in other units, or not at all")
def test_scaling_keeps_no_float64_copy_of_the_table():
    code = textwrap.dedent("""
        import resource, numpy as np, pandas as pd
        from anndata import AnnData
        from cpvae.preparation import scale
        scale._BLOCK //= 8  # and a table smaller by as much
        X = np.random.default_rng(0).standard_normal((50_000, 200), np.float32)
        split = ["train"] * 37_500 + ["test"] * 12_500
        obs = pd.DataFrame({"split": split}, index=np.arange(50_000).astype(str))
        p = AnnData(X, obs=obs, uns={"cpvae": {}})
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        before = peak()
        scale.scale_profiles(p)
        print((peak() - before) / X.nbytes)
    """)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 3.2, (
        "the result is 1; a float64 copy of the table would add 2, and its temporaries 4 more"
    )


def test_a_feature_constant_in_training_keeps_its_unit():
    profiles = split_profiles(make())
    train = (profiles.obs["split"] == "train").to_numpy()
    profiles.X[train, 0] = 0.1  # its float64 standard deviation need not come out as exactly zero
    profiles.X[~train, 0] = 2.1
    profiles = scale_profiles(profiles)
    assert profiles.var["scale"].iloc[0] == 1
    np.testing.assert_allclose(profiles.layers["scaled"][~train, 0], 2.0, rtol=1e-6)
    np.testing.assert_array_equal(scale_values(profiles.X, profiles), profiles.layers["scaled"])


def test_limit_and_no_limit():
    profiles = split_profiles(make())
    profiles.X[0, 0] = 1e6
    assert np.abs(scale_profiles(profiles, clip=2.5).layers["scaled"]).max() == 2.5
    assert np.abs(scale_profiles(profiles).layers["scaled"]).max() == 10
    free = scale_profiles(profiles, clip=0)
    assert free.uns["cpvae"]["clip"] == 0 and np.abs(free.layers["scaled"]).max() > 2.5


def test_control_state_weighs_plates_equally():
    profiles = scale_profiles(make(), fit_on="all")
    profiles = profiles[
        ~((profiles.obs["plate"] == "p1") & (np.arange(profiles.n_obs) % 16 < 3))
    ].copy()
    control = profiles.obs["is_control"].to_numpy()
    assert profiles.obs.loc[control, "plate"].value_counts().to_dict() == {
        "p0": 4,
        "p1": 1,
        "p2": 4,
    }
    by_hand = np.mean(
        [
            profiles.layers["scaled"][control & (profiles.obs["plate"] == p)].mean(0)
            for p in ("p0", "p1", "p2")
        ],
        axis=0,
    )
    np.testing.assert_allclose(control_profile(profiles), by_hand, atol=1e-6)


# --- selection


def test_selection_uses_no_test_row():
    profiles = split_profiles(make(n_features=8))
    held = (profiles.obs["split"] == "test").to_numpy()
    profiles.X[held, 3] = 1e6
    assert select_features(profiles, ("drop_outliers",)).n_vars == 8
    kept = select_features(profiles, ("drop_outliers",), fit_on="all")
    assert (
        kept.uns["cpvae"]["dropped_features"] == ["Cells_Intensity_F3_DNA"]
        and profiles.uns["cpvae"]["dropped_features"] == []
    )
    np.testing.assert_array_equal(kept.X, np.delete(profiles.X, 3, axis=1))


def test_presets_name_what_the_authors_meant():
    """`variance_threshold` of 2021 is today's `frequency_threshold`; its `unique_cut` drops a
    feature of few values, however large their variance, and `drop_outliers` cuts at 15."""
    profiles = split_profiles(make(40, 10, 4, n_features=4))
    # a dozen values in 440 rows: below .1 of the rows, above .01
    profiles.X[:, 1] = np.round(profiles.X[:, 1] * 2)
    profiles.X[7, 2] = 20
    assert profiles.X[:, 1].std() > 1
    theirs, ours = (
        select_features(profiles, **SELECTION[name]) for name in ("chow2022", "recommended")
    )
    assert list(theirs.var_names) == ["Cells_Intensity_F0_DNA", "Cells_Intensity_F3_DNA"]
    assert ours.n_vars == 4
    assert (
        "frequency_threshold dropped 1 (Cells_Intensity_F1_DNA)" in theirs.uns["cpvae"]["notes"][-1]
    )


@pytest.mark.parametrize(
    "preset, values, largest", [("chow2022", 100, 15.0), ("recommended", 10, 500.0)]
)
def test_a_feature_is_dropped_on_one_side_of_each_cut(preset, values, largest):
    """Of a thousand rows: a second value a twentieth as frequent as the first, a tenth (or a
    hundredth) of values that differ, a largest value; and one that is missing.
    """
    profiles = make(95, 10, 5, n_features=7)
    frequent = lambda second: np.r_[
        np.zeros(100), np.ones(second), 2 + np.arange(900 - second) / 900
    ]
    spread = lambda n: np.arange(1000) % n / n
    columns = [frequent(4), frequent(6), spread(values - 1), spread(values + 1)]
    far = [np.r_[np.arange(999) / 999, end] for end in (0.99 * largest, 1.01 * largest)]
    profiles.X[:] = np.stack([*columns, *far, np.r_[np.arange(999.0) / 999, np.nan]], axis=1)
    kept = select_features(profiles, **SELECTION[preset] | {"fit_on": "all"})
    missing = [] if preset == "chow2022" else [6]
    assert list(kept.var_names) == [f"Cells_Intensity_F{j}_DNA" for j in [1, 3, 4, *missing]]


def test_selection_carries_everything_along():
    profiles = scale_profiles(split_profiles(make(n_features=6)))
    profiles.uns["cpvae"]["dropped_features"] = ["Cells_constant"]
    profiles.X[0, 2] = 1e6
    kept = select_features(profiles, ("drop_outliers",), fit_on="all")
    assert kept.uns["cpvae"]["dropped_features"] == ["Cells_constant", "Cells_Intensity_F2_DNA"]
    np.testing.assert_array_equal(
        kept.layers["scaled"], np.delete(profiles.layers["scaled"], 2, axis=1)
    )
    assert kept.obs.equals(profiles.obs) and profiles.n_vars == 6


@pytest.mark.parametrize("kind", ["genes", "other"])
def test_other_tables_are_not_selected(kind):
    profiles = make()
    profiles.uns["cpvae"]["kind"] = kind
    profiles.X[0, 0] = 1e9
    kept = select_features(profiles, ("drop_outliers",), fit_on="all")
    assert kept.shape == profiles.shape and kind in kept.uns["cpvae"]["notes"][-1]


def test_selection_refuses():
    with pytest.raises(CpvaeError, match="split"):
        select_features(make())
    profiles = make()
    profiles.X += 1000
    with pytest.raises(CpvaeError, match="normalise"):
        select_features(profiles, fit_on="all", outlier_cutoff=15)


# --- normalise


@pytest.mark.parametrize("on", ["controls", "all"])
def test_mad_by_hand(on):
    profiles = make(n_controls=7)
    plate, control = profiles.obs["plate"].to_numpy(), profiles.obs["is_control"].to_numpy()
    profiles.X *= pd.Series(plate).map({"p0": 1, "p1": 50, "p2": 1e-3}).to_numpy()[:, None]
    before = profiles.X.copy()
    normal = normalize_profiles(profiles, on=on)
    for name in np.unique(plate):
        fit = before[(plate == name) & (control if on == "controls" else True)].astype(float)
        mad = np.median(np.abs(fit - np.median(fit, 0)), 0)
        np.testing.assert_allclose(
            normal.X[plate == name],
            (before[plate == name] - np.median(fit, 0)) / (1.4826 * mad),
            rtol=1e-4,
            atol=1e-5,
        )
    np.testing.assert_array_equal(profiles.X, before)
    assert normal.X.dtype == np.float32 and normal.obs.equals(profiles.obs)


def test_a_spread_of_zero_drops_the_feature_and_says_so():
    profiles = scale_profiles(make(n_controls=5), fit_on="all")
    wells = (profiles.obs["is_control"] & (profiles.obs["plate"] == "p1")).to_numpy()
    profiles.X[np.flatnonzero(wells)[:3], 2] = 4.0  # three of five wells share the value
    normal = normalize_profiles(profiles)
    assert normal.uns["cpvae"]["dropped_features"] == ["Cells_Intensity_F2_DNA"]
    assert (
        "Cells_Intensity_F2_DNA" in normal.uns["cpvae"]["notes"][-1] and np.isfinite(normal.X).all()
    )
    assert "dropped for a spread of 0 on some plate: 1 feature" in normal.uns["cpvae"]["notes"][-1]
    assert normalize_profiles(profiles, "standardize").n_vars == 5
    assert "scaled" not in normal.layers and "scale" not in normal.var, (
        "an old scaling no longer holds"
    )


@pytest.mark.parametrize(
    "method, enough", [("mad_robustize", 5), ("robustize", 5), ("standardize", 9), ("spherize", 9)]
)
@pytest.mark.parametrize("on", ["controls", "all"])
def test_no_method_leaves_a_feature_in_its_raw_unit(method, enough, on):
    """Nine reference wells; `enough` of them sharing a value leave the method no spread on that
    plate.
    """
    for shared, kept in ((enough, 4), (enough - 1, 5)):
        profiles = make(3, 3, 9 if on == "controls" else 6)
        profiles.X[:, 2] = profiles.X[:, 2] * 1e4 + 5e5
        rows = (profiles.obs["plate"] == "p1") & (
            profiles.obs["is_control"] if on == "controls" else True
        )
        rows = np.flatnonzero(rows)
        rows = rows[np.argsort(profiles.X[rows, 2])]
        middle = (len(rows) - shared) // 2
        profiles.X[rows[middle : middle + shared], 2] = np.median(profiles.X[rows, 2])
        normal = normalize_profiles(profiles, method, on=on)
        assert normal.n_vars == kept and normal.uns["cpvae"]["dropped_features"] == [
            "Cells_Intensity_F2_DNA"
        ] * (5 - kept)
        np.testing.assert_array_equal(profiles[:, normal.var_names].X.shape, normal.X.shape)


def test_nothing_left_to_normalise():
    profiles = make(n_controls=6)
    profiles.X[
        profiles.obs["is_control"].to_numpy() & (profiles.obs["plate"] == "p2").to_numpy()
    ] = 1
    for method in ("mad_robustize", "standardize", "robustize", "spherize"):
        with pytest.raises(CpvaeError, match="every feature has spread 0"):
            normalize_profiles(profiles, method)


@pytest.mark.parametrize("on, rows", [("controls", 5), ("all", 17)])
def test_spherize_needs_more_rows_than_features(on, rows):
    for n_features, fits in ((rows - 1, True), (rows, False)):
        profiles = make(12, 3, 5, n_features=n_features)
        if fits:
            assert np.isfinite(normalize_profiles(profiles, "spherize", on=on).X).all()
            continue
        with pytest.raises(
            CpvaeError, match=f"rows than features: {rows} and {n_features}; use by='table', or mad"
        ):
            normalize_profiles(profiles, "spherize", on=on)
        assert normalize_profiles(profiles, "spherize", by="table", on=on).n_vars == n_features
    with pytest.raises(CpvaeError, match="15 and 15; use mad_robustize"):
        normalize_profiles(make(12, 3, 5, n_features=15), "spherize", by="table")


def test_two_control_wells_of_a_plate_are_enough_and_one_is_not():
    "By hand, of two wells: their middle, and half of their distance, times 1.4826."
    profiles = make(n_controls=2, n_plates=1)
    one, other = profiles.X[profiles.obs["is_control"].to_numpy()].astype(float)
    expected = (profiles.X - (one + other) / 2) / (1.4826 * np.abs(one - other) / 2)
    np.testing.assert_allclose(normalize_profiles(profiles).X, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CpvaeError, match="fewer than two control rows"):
        normalize_profiles(make(n_controls=1))


def test_plates_without_controls_are_named():
    profiles = make(n_plates=4)
    gone = profiles.obs["is_control"] & profiles.obs["plate"].isin(["p1", "p3"])
    with pytest.raises(CpvaeError, match="plates p1, p3 cannot"):
        normalize_profiles(profiles[~gone].copy())
    assert normalize_profiles(profiles[~gone].copy(), by="table").n_vars == 5
    assert normalize_profiles(profiles[~gone].copy(), on="all").n_vars == 5


# --- consensus


def by_hand(wells):
    "MODZ as the paper's tables define it, from SciPy's correlations."
    if len(wells) == 1:
        return wells[0]
    weight = np.array(
        [
            np.mean([max(spearmanr(a, b).statistic, 0) for j, b in enumerate(wells) if j != i])
            for i, a in enumerate(wells)
        ]
    )
    weight = np.maximum(weight, 0.01)
    return weight / weight.sum() @ wells


@pytest.mark.parametrize(
    "operation, expected",
    [("modz", by_hand), ("median", lambda w: np.median(w, 0)), ("mean", lambda w: np.mean(w, 0))],
)
def test_consensus_of_every_group(operation, expected):
    profiles = make(8, 4, 3, n_features=30)
    profiles.X[~profiles.obs["is_control"]] += np.tile(
        np.random.default_rng(1).normal(size=(8, 30)), (4, 1)
    ).astype(np.float32)
    profiles.X[profiles.obs["plate"] == "p3"] *= -1  # a plate that disagrees gets hardly any weight
    shuffled = profiles[np.random.default_rng(0).permutation(profiles.n_obs)].copy()
    level5 = consensus_profiles(shuffled, operation)
    assert level5.shape == (8 + 4, 30)
    for (_, row), x in zip(level5.obs.iterrows(), level5.X, strict=True):
        mine = (shuffled.obs["compound"] == row["compound"]) & (
            ~shuffled.obs["is_control"] | (shuffled.obs["plate"] == row["plate"])
        )
        assert row["n_profiles"] == mine.sum()
        np.testing.assert_allclose(
            x, expected(shuffled.X[mine.to_numpy()].astype(float)), atol=2e-3
        )


def test_what_makes_a_treatment():
    rows = pd.DataFrame(
        [
            ("a", 0.62, 24.0, "U2OS", "p0", False),
            ("a", 0.63, 24.0, "U2OS", "p1", False),  # the same dose, written differently
            ("a", 1.25, 24.0, "U2OS", "p0", False),
            ("a", 0.62, 48.0, "U2OS", "p0", False),
            ("a", 0.62, 24.0, "A549", "p0", False),
            # a dose nobody wrote down is a group, not a loss
            ("a", np.nan, 24.0, "U2OS", "p0", False),
            ("a", np.nan, np.nan, "U2OS", "p0", False),
            ("b", 0.62, 24.0, "U2OS", "p0", False),
            ("", 0.62, 24.0, "U2OS", "p0", False),
            ("DMSO", np.nan, 24.0, "U2OS", "p0", True),
            ("DMSO", np.nan, 24.0, "U2OS", "p0", True),
            ("DMSO", np.nan, 24.0, "U2OS", "p1", True),
        ],
        columns=["compound", "dose", "time", "cell", "plate", "is_control"],
    ).assign(
        moa="", well="w", Metadata_batch="x", Metadata_site=np.arange(12) % 2, Metadata_none=None
    )
    X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    profiles = AnnData(
        X,
        obs=rows.rename(index=str),
        var=pd.DataFrame(index=[f"G{i}" for i in range(6)]),
        uns={"cpvae": about("genes")},
    )
    for operation in ("median", "modz"):
        level5 = consensus_profiles(profiles, operation)
        assert sorted(level5.obs["n_profiles"]) == [1] * 7 + [2, 2]
        assert level5.obs["is_control"].dtype == bool and level5.obs["is_control"].sum() == 2
        two = level5.obs[(level5.obs["n_profiles"] == 2) & ~level5.obs["is_control"]].iloc[0]
        assert (two["compound"], two["dose"], two["plate"], two["well"]) == ("a", 0.62, "", "w")
        assert (
            "Metadata_site" not in level5.obs
            and "Metadata_batch" in level5.obs
            and "Metadata_none" in level5.obs
        )
        assert (
            "left out without a compound name: 1 row" in level5.uns["cpvae"]["notes"][-1]
            and profiles.uns["cpvae"]["notes"] == []
        )
    unknown = level5.obs.index[level5.obs["dose"].isna() & level5.obs["time"].isna()]
    np.testing.assert_allclose(level5[unknown].X[0], X[6])


def test_doses_are_levelled_within_a_compound():
    """Over the whole table another compound's .595 would end its level between .62 and .63."""
    profiles = make(2, 2, 0)
    profiles.obs["compound"], profiles.obs["dose"] = ["b", "a", "a", "b"], [0.595, 0.62, 0.63, 0.62]
    level5 = consensus_profiles(profiles, "mean").obs
    assert level5[["compound", "dose", "n_profiles"]].values.tolist() == [
        ["a", 0.62, 2],
        ["b", 0.595, 2],
    ]
    profiles.obs["compound"] = ["b", "a", "a", "c"]
    assert consensus_profiles(profiles, "mean").obs["n_profiles"].tolist() == [2, 1, 1]


# --- manners


def test_pycytominer_is_imported_late_and_leaves_pandas_alone():
    code = textwrap.dedent("""
        import sys, numpy as np, pandas as pd
        from cpvae.preparation import clean, normalise, scale, select, split
        assert not {"pycytominer", "sklearn", "anndata", "torch"} & set(sys.modules)
        from anndata import AnnData
        about = dict(kind="cell_painting", notes=[], dropped_features=[])
        a = AnnData(np.eye(4, dtype=np.float32), uns={"cpvae": about})
        select.select_features(a, ("drop_outliers",), fit_on="all")
        print("pycytominer" in sys.modules, pd.options.mode.copy_on_write)
    """)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # pandas 3 knows no other mode
    assert out.stdout.split() == ["True", str(pd.__version__ >= "3")]


def test_steps_work_under_copy_on_write():
    with pd.option_context("mode.copy_on_write", True):
        profiles = consensus_profiles(normalize_profiles(drop_copies(make(20, 6, 4))))
        for way in (dict(), dict(by="rows"), dict(by="plate"), dict(by="pair", pair=("A", "B"))):
            subject = make(20, 6, 4) if way.get("by") == "plate" else profiles
            control_profile(scale_profiles(select_features(split_profiles(subject, **way))))
