"""Properties of predictions and of the screen that need many labels, a stand-in for RDKit, or the
real tables.
"""

import os
import sys
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import binom, kstest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer

from cpvae.errors import CpvaeError
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from cpvae.lsa.space import latent_space, average_wells
from cpvae.lsa.states import unit
from cpvae.lsa.learned import PENALTIES, Regressed
from cpvae.preparation.clean import drop_copies
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles
from cpvae.run.preset import RunConfig, prepare
from cpvae.screening.predict import moved_features, nearest_compounds, predicted_draws
from cpvae.screening.predict import predicted_state, summarize_moves
from cpvae.screening.screen import decoy_p, hidden_second_mechanism, screen, screen_pairs
from cpvae.screening.screen import summarize_hidden, vote_shares
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
    return profiles, average_wells(profiles)


def test_a_simulated_pair_never_seen_together_is_predicted(simulated):
    "Compounds of the pair are taken out; the prediction still finds them among all."
    profiles, _ = simulated
    pair = sorted({moa for moa in profiles.obs["moa"] if "|" in moa})[0]
    without = profiles[(profiles.obs["moa"] != pair).to_numpy()].copy()
    measured, model = average_wells(without), PCA(10, random_state=0).fit(without.layers["scaled"])
    state = predicted_state(latent_space(model, measured), *pair.split("|"))
    listed = nearest_compounds(average_wells(profiles), state, None)
    assert np.flatnonzero(listed["moa"] == pair).max() < 10
    assert (listed["l2"].idxmin() < 10) and len(listed) == 104


def test_prediction_does_not_depend_on_the_order_of_mechanisms_or_rows(simulated):
    profiles, measured = simulated
    model = PCA(5, random_state=0).fit(profiles.layers["scaled"])
    a, b = sorted({moa for moa in profiles.obs["moa"] if moa and "|" not in moa})[:2]
    forth = predicted_state(latent_space(model, measured), a, b)
    mixed = profiles[np.random.default_rng(0).permutation(profiles.n_obs)].copy()
    other = average_wells(mixed)
    np.testing.assert_allclose(predicted_state(latent_space(model, other), b, a), forth, atol=1e-4)


def test_draws_centre_on_the_prediction_and_widen_with_spread():
    width = []
    for noise in (0.1, 1.0):
        profiles = world(noise=noise)
        measured, identity = average_wells(profiles), FunctionTransformer()
        space = latent_space(identity, measured)
        draws = predicted_draws(space, "m0", "m1", 4000)
        np.testing.assert_allclose(
            draws.mean(0),
            predicted_state(space, "m0", "m1"),
            atol=5 * draws.std(0).max() / np.sqrt(4000),
        )
        width.append(draws.std(0).mean())
        # sd of a Bayesian bootstrap mean of five is the population sd over sqrt(6), for each of two
        # groups
        if noise == 1.0:
            moa = measured.compounds["moa"]
            expected = np.sqrt(
                sum(measured.means[(moa == m).to_numpy()].var(0) / 6 for m in ("m0", "m1"))
            )
            np.testing.assert_allclose(draws.std(0), expected, rtol=0.1)
    assert width[1] > 1.3 * width[0]


def test_a_single_well_has_no_interval():
    profiles = as_profiles(np.eye(3, 5), ["a", "b", "b"])
    measured, identity = average_wells(profiles), FunctionTransformer()
    space = latent_space(identity, measured)
    draws = predicted_draws(space, "a", "b", 10)
    state = predicted_state(space, "a", "b")
    assert draws.shape == (10, 5) and np.isnan(draws).all()
    assert nearest_compounds(measured, state, draws=draws)[["low", "high"]].isna().all(axis=None)
    assert moved_features(measured, state, draws)[["low", "high"]].isna().all(axis=None)
    two = as_profiles(np.eye(4, 5), ["a", "a", "b", "b"])
    space = latent_space(identity, average_wells(two))
    assert np.isfinite(predicted_draws(space, "a", "b", 10)).all()


def test_moves_are_in_the_units_they_are_named_after(simulated):
    profiles, measured = simulated
    state = measured.control.copy()
    state[7] += 5
    moved = moved_features(measured, state, n=None)
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
    moved = moved_features(average_wells(profiles), np.arange(5.0), n=None)
    assert (
        moved["symbol"].tolist() == list("ZYXWV")
        and "compartment" not in moved
        and summarize_moves(moved).empty
    )
    assert moved_features(average_wells(profiles), np.arange(5.0), n=2)["symbol"].tolist() == list(
        "ZY"
    )


def test_a_ridge_of_codes_on_mechanisms_is_the_known_one():
    "Effects less the control, and of the penalties the one with the least leave-one-out error."
    profiles = world()
    measured = average_wells(profiles)
    identity = FunctionTransformer(inverse_func=None, func=None, check_inverse=False)
    space = latent_space(identity, measured)
    pool = np.arange(len(measured.compounds)) % 5 > 0
    terms = MultiLabelBinarizer().fit(measured.compounds["moa"].str.split("|"))
    x = terms.transform(measured.compounds["moa"].str.split("|"))[pool].astype(float)
    y = space.z_compounds[pool] - space.z_control

    def left_out(penalty):  # residuals of a linear smoother, each over what it leaves to itself
        hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T)
        return np.square((y - hat @ y) / (1 - np.diag(hat))[:, None]).sum()

    best = min(PENALTIES, key=left_out)
    assert PENALTIES[0] < best < PENALTIES[-1]
    ridge = Ridge(alpha=best, fit_intercept=False).fit(x, y)
    asked = terms.transform([(p.a, p.b) for p in measured.pairs])
    out = [SimpleNamespace(carriers=~pool)]
    found = Regressed().fit(space, out)
    assert found.penalty_ == best
    expected = space.z_control + ridge.predict(asked)
    assert np.allclose(found.predict(space.pairs), expected, atol=1e-4)


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


def test_the_three_most_similar_members_are_averaged():
    s = np.array([[1.0, 0.9, 0.5, 0.1, -0.7], *np.eye(5)[1:]])
    m = np.ones((5, 1), bool)
    found = {name: score(s, m, ~np.eye(5, dtype=bool))[0, 0] for name, score in SCORES.items()}
    assert (found["nearest"], found["top3"]) == pytest.approx((0.9, 0.5))


def test_strangers_do_not_hear_barred_members():
    profiles = world()
    profiles.obs["Metadata_inchikey"] = [
        f"{'SAME' if i < 5 else i:>014}-X" for i in range(profiles.n_obs)
    ]
    measured = average_wells(profiles)
    barred = analogues(measured)
    assert barred.sum() == 20 and not barred.diagonal().any()
    table = screen(measured, barred=barred, n_draws=999)
    first = table[table["compound"].isin([f"c{i:03d}" for i in range(5)])]
    assert not first["nearest"].isin([f"c{i:03d}" for i in range(5)]).any()
    everyone = np.zeros_like(barred)
    other = screen(measured, barred=everyone, n_draws=999).set_index(["compound", "mechanism"])
    lost = first.set_index(["compound", "mechanism"])["n_members"]
    assert (other.loc[lost.index, "n_members"] - lost).max() == 4
    # of profiles, analogues are barred
    pd.testing.assert_frame_equal(screen(profiles, n_draws=999), table)


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_half_whitening_knows_no_unit(shape):
    "Of states a hundredth as large, a tenth, since half of what whitening takes is taken."
    x = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    small, whole = (np.abs(half_whiten(unit * x)) for unit in (0.01, 1.0))
    np.testing.assert_allclose(small, whole / 10, rtol=1e-6, atol=1e-7)


def test_compounds_that_are_equally_near_stand_in_order_of_name():
    profiles = as_profiles(np.array([[0, 1.0], [1, 0], [1, 0], [-1, 0]]), list("abcd"))
    listed = nearest_compounds(
        average_wells(profiles), average_wells(profiles).control + [1.0, 0.0], None
    )
    assert listed["compound"].tolist()[:2] == ["c001", "c002"] and listed.index[0] == 0
    assert listed["compound"].tolist()[-1] == "c003" and listed.index.tolist() == [0, 1, 2, 3]


def test_unknown_structures_are_no_analogues():
    profiles = as_profiles(np.eye(4), ["a"] * 4, Metadata_InChIKey=["", "", None, "nan-like"])
    assert not analogues(average_wells(profiles)).any()


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
    assert np.argwhere(analogues(average_wells(profiles))).tolist() == [[0, 1], [1, 0]]
    assert not analogues(average_wells(profiles), tanimoto=0.9).any()
    # seven letters of ten, and of eleven
    profiles = as_profiles(
        np.eye(3), ["a"] * 3, Metadata_smiles=["ABCDEFGHIJ", "ABCDEFG", "ABCDEFGHIJK"]
    )
    assert np.argwhere(analogues(average_wells(profiles))).tolist() == [
        [0, 1],
        [0, 2],
        [1, 0],
        [2, 0],
    ]


def test_shares_are_of_all_votes_that_are_heard():
    """Likenesses 1, .9, .8 and .7: votes 1, e^-1.2, e^-2.4 and e^-3.6; the last may not speak."""
    votes_cast = [1, 0.301194, 0.090718]
    s, allowed = np.array([[1, 0.9, 0.8, 0.7]]), np.array([[True, True, True, False]])
    m = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0], [0, 1, 0]], bool)
    expected = np.array([votes_cast[0], votes_cast[1], sum(votes_cast[:2])]) / sum(votes_cast)
    np.testing.assert_allclose(vote_shares(s, m, allowed)[0], expected, atol=1e-6)
    assert (vote_shares(s, m, ~allowed) == [[0, 1, 0]]).all()
    assert (vote_shares(s, m, np.zeros((1, 4), bool)) == 0).all()


def listed_p(x, members, allowed, turning):
    "p by every reflection there is of every compound, one at a time."
    axes = np.linalg.svd(x[turning])[2]
    assert len(axes) == x.shape[1]
    direction = x / np.linalg.norm(x, axis=1, keepdims=True)

    def share(state, i):
        vote = [np.exp(12 * (state @ direction[j] - 1)) * allowed[i, j] for j in range(len(x))]
        return np.array([sum(np.array(vote)[one]) for one in members.T]) / sum(vote)

    drawn = [
        share(sum(sign * (direction[i] @ a) * a for sign, a in zip(signs, axes)), i)
        for i in range(len(x))
        for signs in product([-1, 1], repeat=len(axes))
    ]
    return np.array(
        [
            [
                np.mean([d[k] >= share(direction[i], i)[k] * (1 - 1e-5) for d in drawn])
                for k in range(members.shape[1])
            ]
            for i in range(len(x))
        ]
    )


@pytest.mark.slow
def test_p_agrees_with_every_reflection_there_is():
    """With axes few enough to list their signs, the p of random decoys is the share of all that do
    as well; of twelve compounds six have no mechanism, and two may not speak for each other.
    """
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 4)) * [3, 2, 1, 1]
    x[8:] += [0, 3, 3, 0]  # they would turn the axes
    m, allowed = np.zeros((12, 2), bool), ~np.eye(12, dtype=bool)
    m[[1, 3, 5], 0] = m[[0, 1, 2, 6], 1] = True
    allowed[1, 9] = allowed[9, 1] = False
    exact = listed_p(x, m, allowed, m.any(axis=1))
    found = decoy_p(x, m, allowed, 60_000)
    np.testing.assert_allclose(found, exact, atol=0.008)
    # axes of all compounds, or everyone heard, would be told apart
    for wrong in (
        listed_p(x, m, allowed, np.ones(12, bool)),
        listed_p(x, m, ~np.eye(12, dtype=bool), m.any(axis=1)),
    ):
        assert np.abs(wrong - exact).max() > 0.016
    least = decoy_p(x, m, allowed, 100).min()
    assert least >= 1 / 109  # nine decoys of each of twelve, and the compound itself


def test_p_of_decoys_is_uniform_however_much_members_resemble_each_other():
    "Ten members of one direction vote as one; members take part in the same way."
    stranger = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        spread = np.linspace(3, 1, 20)
        directions = rng.normal(size=(6, 20)) * spread
        x = np.repeat(directions, 10, axis=0) + 0.3 * rng.normal(size=(60, 20))
        axes = np.linalg.svd(x)[2]
        far = rng.permutation(60)
        decoys = (x[far] @ axes.T * rng.choice([-1, 1], (60, 20))) @ axes
        m = np.zeros((120, 6), bool)
        m[np.arange(60), np.repeat(range(6), 10)] = True
        p = decoy_p(np.vstack([x, decoys]), m, ~np.eye(120, dtype=bool), 3000, seed)
        stranger += p[rng.integers(60, 120, 6), range(6)].tolist()
        assert (p[m] < 0.05).mean() > 0.9
    stranger = np.array(stranger)
    assert 0.02 < np.mean(stranger <= 0.05) < 0.09 and np.mean(stranger <= 0.5) < 0.6
    assert kstest(stranger, "uniform").statistic < 0.15


def found_in(x, moa, **more):
    "compound:mechanism of all candidates with q < .05."
    measured = average_wells(as_profiles(x, moa))
    table = screen(measured, barred=np.zeros((len(x),) * 2, bool), **more)
    return set((table["compound"] + ":" + table["mechanism"])[table["q"] < 0.05])


def test_clear_clusters_give_their_hidden_members_and_nothing_else():
    "Where members vote as one, luck is not rarer: labels dealt anew would give thousands."
    rng = np.random.default_rng(0)
    effect = 5 * rng.normal(size=(20, 60))
    of = np.append(np.repeat(range(20), 8), range(3))
    x = effect[of] + 0.3 * rng.normal(size=(163, 60))
    moa = [f"m{k}" for k in of[:160]] + [""] * 3
    assert found_in(x, moa, n_draws=100_000) == {f"c{160 + k}:m{k}" for k in range(3)}


@pytest.mark.slow
def test_a_library_of_noise_and_plates_of_mechanisms_give_nothing():
    rng = np.random.default_rng(0)
    of = np.repeat(range(15), 5)
    x = np.vstack([rng.normal(size=(15, 60))[of], np.zeros((150, 60))])
    x += 0.4 * rng.normal(size=x.shape)
    assert not found_in(x, [f"m{k}" for k in of] + [""] * 150, n_draws=100_000)
    # compounds do nothing, those of a mechanism stand on one plate of eight, others anywhere
    plate = np.append(rng.integers(8, size=15)[of], rng.integers(8, size=75))
    x = rng.normal(size=(8, 60))[plate] + rng.normal(size=(150, 60))
    assert not found_in(x, [f"m{k}" for k in of] + [""] * 75, n_draws=100_000)


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA / "cell_injury_u2os_8298x346.parquet").exists(), reason="the U2OS table is not here"
)
def test_decoys_among_real_compounds_stay_below_a_twentieth_of_what_is_found():
    sys.path.insert(0, str(Path(__file__).parents[1] / "nbs" / "paper" / "tables"))
    from decoys import of_states

    from cpvae.screening.decoys import decoy_states

    table = read_profiles(DATA / "cell_injury_u2os_8298x346.parquet")
    measured = average_wells(prepare(table, RunConfig()))
    x, about, flagged, others = measured.means - measured.control, measured.compounds, 0, 0
    for seed, kind in enumerate(["reflected", "turned", "normal"]):
        decoys, _ = decoy_states(x, kind, len(x), np.random.default_rng(seed))
        names = [*about["compound"], *(f"decoy {i}" for i in range(len(x)))]
        mixed = of_states(np.vstack([x, decoys]), names, [*about["moa"], *[""] * len(x)])
        found = screen(mixed, barred=np.zeros((2 * len(x),) * 2, bool), n_draws=50_000, seed=seed)
        is_decoy = found["compound"].str.startswith("decoy ")
        flagged += (is_decoy & (found["q"] < 0.05)).sum()
        others += (~is_decoy & (found["q"] < 0.05)).sum()
    assert others > 15 and flagged < 0.05 * (flagged + others)


def test_screen_finds_labels_taken_away_and_leaves_strangers_alone():
    profiles = world(K=40, size=6, both=0, noise=0.6, G=120)
    truth = average_wells(profiles).compounds["moa"].to_numpy()
    lost = np.arange(0, 60, 6)
    profiles.obs["moa"] = np.where(
        np.isin(np.arange(profiles.n_obs), lost), "", profiles.obs["moa"]
    )
    table = screen(average_wells(profiles), n_draws=50_000)
    table["true"] = [
        truth[int(c[1:])] == mech for c, mech in zip(table["compound"], table["mechanism"])
    ]
    # the compound itself counts
    assert table["p"].min() >= 1 / 50_161
    new = table[~table["known"]]
    assert (
        new["true"].sum() == 10
        and (new[new["true"]]["q"] < 0.05).mean() >= 0.8
        and (new[new["true"]]["rank"] == 1).all()
    )
    assert (new[~new["true"]]["q"] < 0.05).sum() <= 1


def test_random_annotations_are_not_found():
    profiles = world(K=10, size=6, both=0)
    moa = np.append(
        np.random.default_rng(0).permutation(profiles.obs["moa"].to_numpy()[:60]), [""] * 8
    )
    profiles.obs["moa"] = moa
    table = screen(average_wells(profiles), n_draws=5000)
    assert (table["q"] < 0.05).sum() <= 2 and (table[table["known"]]["p"] < 0.05).mean() < 0.2


def test_screen_does_not_depend_on_the_order_of_rows():
    profiles = world()
    mixed = profiles[np.random.default_rng(1).permutation(profiles.n_obs)].copy()
    one, other = (screen(average_wells(p), n_draws=2000) for p in (profiles, mixed))
    pd.testing.assert_frame_equal(
        one.drop(columns=["p", "q"]).sort_values(["compound", "mechanism"], ignore_index=True),
        other.drop(columns=["p", "q"]).sort_values(["compound", "mechanism"], ignore_index=True),
        rtol=1e-3,
    )
    pd.testing.assert_frame_equal(screen(average_wells(profiles), n_draws=2000), one)


def test_pairs_are_as_sure_as_the_less_sure_of_two():
    table = screen(average_wells(world(both=0)), n_draws=5000)
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
    measured, identity = average_wells(profiles), FunctionTransformer()
    space = latent_space(identity, measured)
    for a, b, words in (
        ("m0", "m0", "two mechanisms"),
        ("m0", "m11", "annotated 'm11'"),
        ("m0", "m0|m1", "alone"),
    ):
        for predict in (predicted_state, predicted_draws):
            with pytest.raises(CpvaeError, match=words.replace("|", r"\|")):
                predict(space, a, b)
    with pytest.raises(CpvaeError, match="`moa_table=`"):
        mechanism_members(pd.Series(["", ""]))
    with pytest.raises(CpvaeError, match="`moa_table=`"):
        screen(measured, min_compounds=100)
    with pytest.raises(CpvaeError, match="compares compounds"):
        half_whiten(np.zeros((1, 4)))


@pytest.mark.skipif(
    not (DATA / "l1000_drugbank_1170x978.parquet").exists(), reason="the L1000 table is not here"
)
def test_l1000_second_mechanisms_are_found_again():
    "The table that nbs/paper/tables/screening.py wrote, for the space that needs no model."
    table = read_profiles(DATA / "l1000_drugbank_1170x978.parquet", zero_control=True)
    profiles = scale_profiles(
        split_profiles(drop_copies(table), by="compound", valid=0.1, test=0.2, seed=0),
        method="median_sd",
        fit_on="train",
    )
    measured = average_wells(profiles)
    members = mechanism_members(measured.compounds["moa"])
    u = unit(half_whiten(measured.means - measured.control), centre=False)
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


def test_intervals_hold_the_middle_95_of_100_draws():
    """Draws at 0, 1, ... 1000 thousandths: of a change in feature, and of a cosine, they leave 25
    out at either end.
    """
    profiles = as_profiles(np.eye(3), ["a", "b", "c"])
    profiles.layers["scaled"][3:] = 0
    measured, share = average_wells(profiles), np.linspace(0, 1, 1001)
    draws = np.stack([share, -3 * share, np.sqrt(1 - share**2)], axis=1)
    moved = moved_features(measured, np.array([0.5, -1.5, 0]), draws).set_index("feature")
    np.testing.assert_allclose(
        moved.loc[["f0", "f1"], ["low", "high"]], [[0.025, 0.975], [-2.925, -0.075]], atol=1e-9
    )
    draws[:, 1] = 0  # of unit length, and their cosine with the first compound is the share
    near = nearest_compounds(measured, np.array([0.5, 0, 0.5]), draws=draws)
    first = near.set_index("compound").loc["c000"]
    assert (first["low"], first["high"]) == pytest.approx((0.025, 0.975), abs=1e-9)


def test_the_interval_of_a_recall_is_binomial():
    "A hundred compounds of one label, half of them found: 40 to 60 of 100 in 95 of 100 draws."
    found = np.arange(100) % 2 == 0
    hidden = pd.DataFrame({"row": range(100), "rank": 2.0 - found, "n_ranked": 100, "found": found})
    nothing = hidden.assign(found=False)
    row = summarize_hidden(hidden, nothing, n=40_000)
    low, high = binom.ppf([0.025, 0.975], 100, 0.5) / 100
    assert (low, high) == (0.4, 0.6)
    assert (row["recall_1pct"], row["low"], row["high"]) == pytest.approx((0.5, low, high))
    assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx((0.5, low, high))
    # ranks of one and two: reciprocals of 1 and 0.5
    assert (row["mrr"], row["mrr_low"], row["mrr_high"]) == pytest.approx((0.75, 0.7, 0.8))


def test_pairs_are_listed_from_five_others_and_up_to_one_per_cent():
    singles = pd.DataFrame(
        [
            ("x", "a", 5, 0.01),
            ("x", "b", 9, 0.004),
            ("x", "c", 4, 0.001),
            ("x", "d", 9, 0.02),
        ],
        columns=["compound", "mechanism", "n_members", "p"],
    ).assign(share=0.0, known=False, moa="")
    pairs = screen_pairs(singles)
    assert pairs[["a", "b", "p"]].to_numpy().tolist() == [["a", "b", 0.01]]
    # three pairs, and three with p up to 0.02: that is less than 0.01 x 3 / 1
    assert pairs["q"].tolist() == pytest.approx([0.02])


def test_mechanisms_of_three_compounds_are_screened_and_of_two_are_not():
    profiles = as_profiles(np.random.default_rng(0).normal(size=(10, 4)), "aaabbccccc")
    assert set(screen(average_wells(profiles), n_draws=99)["mechanism"]) == {"a", "c"}


def test_where_all_look_alike_every_decoy_gives_as_much():
    "Along one axis there are two images, and each compound's own counts: p is one, and never more."
    m = np.zeros((12, 2), bool)
    m[[1, 5, 9], 0] = m[[2, 3], 1] = True
    x = np.ones((12, 1)) * np.linspace(1, 2, 12)[:, None]
    alone = np.zeros((12, 12), bool)
    alone[:, 1] = True  # one voice: every share is one
    p = decoy_p(x, m, alone, 99)
    assert (p[:, 0] == 1).all() and np.isnan(p[:, 1]).all()
