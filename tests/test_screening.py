"""Properties of predictions and of the screen that need many labels, a stand-in for RDKit, or the
real tables.
"""

import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import kstest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer

from cpvae.errors import CpvaeError
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from cpvae.lsa.space import latent_groups, prepare
from cpvae.lsa.states import unit
from cpvae.lsa.left_out import regressed_codes
from cpvae.preparation.clean import drop_copies
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles
from cpvae.screening.predict import moved_features, nearest_compounds, predicted_draws
from cpvae.screening.predict import predicted_state, summarize_moves
from cpvae.screening.screen import hidden_second_mechanism, random_groups, relabelled_p, screen
from cpvae.screening.screen import screen_pairs, summarize_hidden
from cpvae.screening.votes import SCORES, analogues, half_whiten, mechanism_members, votes

DATA = Path(os.environ.get("CPVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def as_profiles(x, moa, controls=8, **obs):
    "One well a compound, then control wells at zero."
    n = len(x)
    x = np.vstack([x, 0.1 * np.random.default_rng(9).normal(size=(controls, x.shape[1]))])
    table = pd.DataFrame(
        {
            "compound": [f"c{i:03d}" for i in range(n)] + ["DMSO"] * controls,
            "moa": list(moa) + [""] * controls,
        }
    )
    table = table.assign(
        dose=1.0,
        time=np.nan,
        plate="p",
        well="",
        is_control=table["compound"] == "DMSO",
        **{k: list(v) + [""] * controls for k, v in obs.items()},
    )
    table.index = [str(i) for i in range(len(table))]
    profiles = AnnData(
        x.astype(np.float32),
        obs=table,
        uns={"cpvae": {"zero_control": False, "clip": 0.0}},
        var=pd.DataFrame(
            {"center": np.zeros(x.shape[1]), "scale": 1.0}, [f"f{j}" for j in range(x.shape[1])]
        ),
    )
    profiles.layers["scaled"] = profiles.X.copy()
    return profiles


def world(seed=0, K=8, size=5, G=40, both=8, noise=0.6):
    "Mechanisms with directions of their own, compounds of one or two of them."
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(K, G))
    labels = [(k,) for k in range(K) for _ in range(size)] + [
        tuple(sorted(rng.choice(K, 2, replace=False))) for _ in range(both)
    ]
    x = np.array([sum(direction[k] for k in label) for label in labels]) * rng.uniform(
        0.7, 1.3, (len(labels), 1)
    ) + noise * rng.normal(size=(len(labels), G))
    return as_profiles(x, ["|".join(f"m{k}" for k in label) for label in labels])


@pytest.fixture(scope="module")
def simulated():
    profiles = scale_profiles(
        split_profiles(simulate_profiles(seed=3)), method="median_sd", fit_on="train"
    )
    return profiles, prepare(profiles)


def test_a_simulated_pair_never_seen_together_is_predicted(simulated):
    "Compounds of the pair are taken out; the prediction still finds them among all."
    profiles, _ = simulated
    pair = sorted({moa for moa in profiles.obs["moa"] if "|" in moa})[0]
    without = profiles[(profiles.obs["moa"] != pair).to_numpy()].copy()
    arithmetic, model = prepare(without), PCA(10, random_state=0).fit(without.layers["scaled"])
    state = predicted_state(
        model, arithmetic, latent_groups(model, arithmetic, without), *pair.split("|")
    )
    listed = nearest_compounds(prepare(profiles), state, None)
    assert np.flatnonzero(listed["moa"] == pair).max() < 10
    assert (listed["l2"].idxmin() < 10) and len(listed) == 104


def test_prediction_does_not_depend_on_the_order_of_mechanisms_or_rows(simulated):
    profiles, arithmetic = simulated
    model = PCA(5, random_state=0).fit(profiles.layers["scaled"])
    a, b = sorted({moa for moa in profiles.obs["moa"] if moa and "|" not in moa})[:2]
    forth = predicted_state(model, arithmetic, latent_groups(model, arithmetic, profiles), a, b)
    mixed = profiles[np.random.default_rng(0).permutation(profiles.n_obs)].copy()
    other = prepare(mixed)
    np.testing.assert_allclose(
        predicted_state(model, other, latent_groups(model, other, mixed), b, a), forth, atol=1e-4
    )


def test_draws_centre_on_the_prediction_and_widen_with_spread():
    width = []
    for noise in (0.1, 1.0):
        profiles = world(noise=noise)
        arithmetic, identity = prepare(profiles), FunctionTransformer()
        latents = latent_groups(identity, arithmetic, profiles)
        draws = predicted_draws(identity, arithmetic, latents, "m0", "m1", 4000)
        np.testing.assert_allclose(
            draws.mean(0),
            predicted_state(identity, arithmetic, latents, "m0", "m1"),
            atol=5 * draws.std(0).max() / np.sqrt(4000),
        )
        width.append(draws.std(0).mean())
        # sd of a Bayesian bootstrap mean of five is the population sd over sqrt(6), for each of two
        # groups
        if noise == 1.0:
            moa = arithmetic.compounds["moa"]
            expected = np.sqrt(
                sum(arithmetic.means[(moa == m).to_numpy()].var(0) / 6 for m in ("m0", "m1"))
            )
            np.testing.assert_allclose(draws.std(0), expected, rtol=0.1)
    assert width[1] > 1.3 * width[0]


def test_a_single_well_has_no_interval():
    profiles = as_profiles(np.eye(3, 5), ["a", "b", "b"])
    arithmetic, identity = prepare(profiles), FunctionTransformer()
    latents = latent_groups(identity, arithmetic, profiles)
    draws = predicted_draws(identity, arithmetic, latents, "a", "b", 10)
    state = predicted_state(identity, arithmetic, latents, "a", "b")
    assert draws.shape == (10, 5) and np.isnan(draws).all()
    assert nearest_compounds(arithmetic, state, draws=draws)[["low", "high"]].isna().all(axis=None)
    assert moved_features(profiles, arithmetic, state, draws)[["low", "high"]].isna().all(axis=None)


def test_moves_are_in_the_units_they_are_named_after(simulated):
    profiles, arithmetic = simulated
    state = arithmetic.control.copy()
    state[7] += 5
    moved = moved_features(profiles, arithmetic, state, n=None)
    controls = profiles.layers["scaled"][profiles.obs["is_control"].to_numpy(bool)]
    assert moved["feature"][0] == profiles.var_names[7] and moved["change"][0] == pytest.approx(5)
    assert moved["control_sds"][0] == pytest.approx(5 / controls[:, 7].std(), rel=1e-4)
    assert summarize_moves(moved)["mean_move"].gt(0).sum() == len(
        profiles.var["channel"].iloc[7].split("|")
    )


def test_genes_carry_symbols_and_have_no_compartments():
    profiles = as_profiles(np.eye(3, 5), ["a", "b", "a|b"])
    profiles.var = profiles.var.assign(
        symbol=list("VWXYZ"), compartment="", channel="", feature_group=""
    )
    moved = moved_features(profiles, prepare(profiles), np.arange(5.0), n=None)
    assert (
        moved["symbol"].tolist() == list("ZYXWV")
        and "compartment" not in moved
        and summarize_moves(moved).empty
    )
    assert moved_features(profiles, prepare(profiles), np.arange(5.0), n=2)[
        "symbol"
    ].tolist() == list("ZY")


def test_a_ridge_of_codes_on_mechanisms_is_the_known_one():
    profiles = world()
    arithmetic = prepare(profiles)
    identity = FunctionTransformer(inverse_func=None, func=None, check_inverse=False)
    latents = latent_groups(identity, arithmetic, profiles)
    pool = np.arange(len(arithmetic.compounds)) % 5 > 0
    terms = MultiLabelBinarizer().fit(arithmetic.compounds["moa"].str.split("|"))
    x = terms.transform(arithmetic.compounds["moa"].str.split("|"))
    common = latents.compounds[pool].mean(axis=0)
    ridge = Ridge(alpha=10, fit_intercept=False).fit(x[pool], latents.compounds[pool] - common)
    asked = terms.transform([(p.a, p.b) for p in arithmetic.pairs])
    assert np.allclose(
        regressed_codes(arithmetic, latents, pool), common + ridge.predict(asked), atol=1e-5
    )


@pytest.mark.parametrize("name", SCORES)
def test_a_compound_never_speaks_for_itself(name):
    """Whatever a member looks like, its score for a mechanism is that of a stranger of the same
    looks.
    """
    rng = np.random.default_rng(0)
    u, m = unit(rng.normal(size=(20, 6)), centre=False), rng.random((20, 4)) < 0.4
    score, allowed = SCORES[name], ~np.eye(20, dtype=bool)
    mine = score(u @ u.T, m, allowed)
    for i in range(20):
        stranger = m.copy()
        stranger[i] = False
        np.testing.assert_allclose(score(u @ u.T, stranger, allowed)[i], mine[i])
    changed = u.copy()
    changed[3] = unit(rng.normal(size=6), centre=False)
    rest, out = np.arange(20) != 3, ~m[3]
    np.testing.assert_allclose(
        score(changed @ changed.T, m, allowed)[np.ix_(rest, out)], mine[np.ix_(rest, out)]
    )
    assert not np.allclose(
        score(changed @ changed.T, m, allowed)[np.ix_(rest, ~out)], mine[np.ix_(rest, ~out)]
    )


def test_strangers_do_not_hear_barred_members():
    profiles = world()
    profiles.obs["Metadata_inchikey"] = [
        f"{'SAME' if i < 5 else i:>014}-X" for i in range(profiles.n_obs)
    ]
    arithmetic = prepare(profiles)
    barred = analogues(arithmetic, profiles)
    assert barred.sum() == 20 and not barred.diagonal().any()
    table = screen(arithmetic, barred=barred, n_draws=999)
    first = table[table["compound"].isin([f"c{i:03d}" for i in range(5)])]
    assert not first["nearest"].isin([f"c{i:03d}" for i in range(5)]).any()
    other = screen(arithmetic, n_draws=999).set_index(["compound", "mechanism"])
    lost = first.set_index(["compound", "mechanism"])["n_members"]
    assert (other.loc[lost.index, "n_members"] - lost).max() == 4
    # of profiles, analogues are barred
    pd.testing.assert_frame_equal(screen(profiles, n_draws=999), table)


def test_unknown_structures_are_no_analogues():
    profiles = as_profiles(np.eye(4), ["a"] * 4, Metadata_InChIKey=["", "", None, "nan-like"])
    assert not analogues(prepare(profiles), profiles).any()


def test_fingerprints_count_where_rdkit_is_installed(monkeypatch):
    "Against a stand-in: a molecule is its set of letters."
    rdkit, chem, maker, data = (
        ModuleType(n)
        for n in ("rdkit", "rdkit.Chem", "rdkit.Chem.rdFingerprintGenerator", "rdkit.DataStructs")
    )
    chem.MolFromSmiles = lambda text: None if text == "bad" else set(text)
    maker.GetMorganGenerator = lambda radius, fpSize: type(
        "Generator", (), {"GetFingerprint": staticmethod(lambda mol: mol)}
    )
    data.BulkTanimotoSimilarity = lambda one, others: [len(one & o) / len(one | o) for o in others]
    rdkit.Chem, rdkit.DataStructs = chem, data
    for module in (rdkit, chem, maker, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    profiles = as_profiles(
        np.eye(5), ["a"] * 5, Metadata_smiles=["CNOPS", "CNOP", "XYZ", "bad", ""]
    )
    assert np.argwhere(analogues(prepare(profiles), profiles)).tolist() == [[0, 1], [1, 0]]
    assert not analogues(prepare(profiles), profiles, tanimoto=0.9).any()


def test_random_groups_keep_size_and_strength():
    strata, group = np.repeat([0, 1, 2, -1], 10), np.array([0, 1, 10])
    drawn = random_groups(group, strata, 500, np.random.default_rng(0))
    assert drawn.shape == (500, 3) and (np.sort(strata[drawn], axis=1) == [0, 0, 1]).all()
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    assert set(drawn.ravel()) == set(range(20))


def test_p_agrees_with_every_group_there_is():
    """With groups few enough to list, the p of random draws is the share of all groups that vote as
    high.
    """
    from itertools import combinations

    rng = np.random.default_rng(4)
    u = unit(rng.normal(size=(12, 3)), centre=False)
    m = np.zeros((12, 1), bool)
    m[[1, 5, 9]] = True
    allowed, s = ~np.eye(12, dtype=bool), u @ u.T
    p = relabelled_p(s, m, allowed, np.zeros(12, int), 20_000)[:, 0]
    vote = np.exp(12 * (s - 1))
    for i in range(12):
        mine = [j for j in (1, 5, 9) if j != i]
        sums = [
            vote[i, list(g)].sum()
            for g in combinations([j for j in range(12) if j != i], len(mine))
        ]
        exact = np.mean(np.array(sums) >= vote[i, mine].sum() * (1 - 1e-6))
        assert abs(p[i] - exact) < 0.05 if exact > 0.02 else p[i] < 0.04, (i, p[i], exact)


def test_p_is_uniform_when_labels_are_random_members_included():
    member, stranger = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        u = unit(rng.normal(size=(80, 5)) + rng.gamma(1, 1, (80, 1)), centre=False)
        m = np.zeros((80, 6), bool)
        for k in range(6):
            m[rng.choice(80, 4, replace=False), k] = True
        p = relabelled_p(u @ u.T, m, ~np.eye(80, dtype=bool), np.zeros(80, int), 999, seed)
        for k in range(6):
            member.append(p[rng.choice(np.flatnonzero(m[:, k])), k])
            stranger.append(p[rng.choice(np.flatnonzero(~m[:, k])), k])
    for p in (member, stranger):
        assert 0.025 < np.mean(np.array(p) <= 0.05) < 0.08
        assert kstest(p, "uniform").pvalue > 0.01


def test_screen_finds_labels_taken_away_and_leaves_strangers_alone():
    profiles = world(K=10, size=6, both=0, noise=1.0)
    truth = prepare(profiles).compounds["moa"].to_numpy()
    lost = np.arange(0, 60, 6)
    profiles.obs["moa"] = np.where(
        np.isin(np.arange(profiles.n_obs), lost), "", profiles.obs["moa"]
    )
    table = screen(prepare(profiles), n_draws=20_000)
    table["true"] = [
        truth[int(c[1:])] == mech for c, mech in zip(table["compound"], table["mechanism"])
    ]
    # the real group counts
    assert table["p"].min() >= 1 / 20_001 and table.loc[table["known"], "p"].min() >= 1 / 1000
    new = table[~table["known"]]
    assert (
        new["true"].sum() == 10
        and (new[new["true"]]["q"] < 0.05).mean() >= 0.8
        and (new[new["true"]]["rank"] == 1).all()
    )
    assert (new[~new["true"]]["q"] < 0.05).sum() <= 3


def test_random_annotations_are_not_found():
    profiles = world(K=10, size=6, both=0)
    moa = np.append(
        np.random.default_rng(0).permutation(profiles.obs["moa"].to_numpy()[:60]), [""] * 8
    )
    profiles.obs["moa"] = moa
    table = screen(prepare(profiles), n_draws=5000)
    assert (table["q"] < 0.05).sum() <= 2 and (table[table["known"]]["p"] < 0.05).mean() < 0.2


def test_screen_does_not_depend_on_the_order_of_rows():
    profiles = world()
    mixed = profiles[np.random.default_rng(1).permutation(profiles.n_obs)].copy()
    one, other = (screen(prepare(p), n_draws=2000) for p in (profiles, mixed))
    pd.testing.assert_frame_equal(
        one.drop(columns=["p", "q"]).sort_values(["compound", "mechanism"], ignore_index=True),
        other.drop(columns=["p", "q"]).sort_values(["compound", "mechanism"], ignore_index=True),
        rtol=1e-3,
    )
    pd.testing.assert_frame_equal(screen(prepare(profiles), n_draws=2000), one)


def test_pairs_are_as_sure_as_the_less_sure_of_two():
    table = screen(prepare(world(both=0)), n_draws=5000)
    pairs = screen_pairs(table, min_compounds=4, keep=1)
    p = table.set_index(["compound", "mechanism"])["p"]
    known = table.set_index(["compound", "mechanism"])["known"]
    assert len(pairs) == 40 * 28
    for row in pairs.sample(30, random_state=0).itertuples():
        assert row.p == max(p[row.compound, row.a], p[row.compound, row.b]) and row.known == (
            known[row.compound, row.a] and known[row.compound, row.b]
        )
    # a member of five has four others that speak for it
    strict = screen_pairs(table, min_compounds=5, keep=1)
    assert len(strict) == 40 * 21


def test_hidden_labels_are_ranked_without_the_known_one_and_ties_share():
    members = pd.DataFrame(
        np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool),
        columns=list("abcd"),
    )
    score = np.full((5, 4), -np.inf)
    score[0] = [5, 3, 3, 9]
    found = hidden_second_mechanism(score, members).set_index("hidden")
    assert (
        found.loc["a", "rank"] == 2
        and found.loc["b", "rank"] == 2.5
        and (found["n_ranked"] == 3).all()
        and not found["found"].any()
    )
    score[0, 0] = -np.inf  # nobody else carries a
    assert hidden_second_mechanism(score, members)["hidden"].tolist() == ["b"]


def test_top_one_per_cent_is_rounded_down():
    members = pd.DataFrame(np.zeros((1, 320), bool)).rename(columns=str)
    members.loc[0, ["0", "1"]] = True
    for place, found in ((3, True), (4, False)):
        score = np.zeros((1, 320))
        score[0, :2], score[0, 2 : 1 + place] = 1, 2
        row = hidden_second_mechanism(score, members).iloc[0]
        assert (row["rank"], row["n_ranked"], row["found"]) == (place, 319, found)


def test_intervals_are_over_compounds_not_labels():
    hidden = pd.DataFrame(
        {
            "row": np.repeat(range(20), 10),
            "rank": 1.0,
            "n_ranked": 100,
            "found": np.repeat([True, False], 100),
        }
    )
    grouped, single = summarize_hidden(hidden), summarize_hidden(hidden.assign(row=range(200)))
    assert grouped["recall_1pct"] == single["recall_1pct"] == 0.5
    assert grouped["high"] - grouped["low"] > 2 * (single["high"] - single["low"])
    same = summarize_hidden(hidden, hidden)
    assert same["gain"] == same["gain_low"] == same["gain_high"] == 0


def test_refusals():
    profiles = world()
    arithmetic, identity = prepare(profiles), FunctionTransformer()
    latents = latent_groups(identity, arithmetic, profiles)
    for a, b, words in (
        ("m0", "m0", "two mechanisms"),
        ("m0", "m11", "annotated 'm11'"),
        ("m0", "m0|m1", "alone"),
    ):
        for predict in (predicted_state, predicted_draws):
            with pytest.raises(CpvaeError, match=words.replace("|", r"\|")):
                predict(identity, arithmetic, latents, a, b)
    with pytest.raises(CpvaeError, match="--moa"):
        mechanism_members(pd.Series(["", ""]))
    with pytest.raises(CpvaeError, match="--moa"):
        screen(arithmetic, min_compounds=100)
    with pytest.raises(CpvaeError, match="compares compounds"):
        half_whiten(np.zeros((1, 4)))


@pytest.mark.skipif(
    not (DATA / "l1000_drugbank_1170x978.parquet").exists(), reason="the L1000 table is not here"
)
def test_l1000_second_mechanisms_are_found_again():
    "The table that tools/screening.py wrote, for the space that needs no model."
    table = read_profiles(DATA / "l1000_drugbank_1170x978.parquet", zero_control=True)
    profiles = scale_profiles(
        split_profiles(drop_copies(table), by="compound", valid=0.1, test=0.2, seed=0),
        method="median_sd",
        fit_on="train",
    )
    arithmetic = prepare(profiles)
    members = mechanism_members(arithmetic.compounds["moa"])
    u = unit(half_whiten(arithmetic.means - arithmetic.control), centre=False)
    found = summarize_hidden(
        hidden_second_mechanism(
            votes(u @ u.T, members.to_numpy(), ~np.eye(len(u), dtype=bool)), members
        )
    )
    written = pd.read_csv(Path(__file__).parents[1] / "nbs" / "results" / "screening.csv")
    row = written.query(
        "table == 'l1000' and space == 'half-whitened' and method == 'votes' and hidden == 'second'"
        " and part == 'all' and analogues == 'kept'"
    ).iloc[0]
    assert found["n"] == row["n"] == 163 and found["recall_1pct"] == pytest.approx(
        row["recall_1pct"], abs=0.013
    )
