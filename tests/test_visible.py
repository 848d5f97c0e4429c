"""Whether mechanism is visible, and whether decoys tell a right screen from a wrong one, in tables
whose truth is known.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from sklearn.metrics import average_precision_score

from cpvae.lsa.space import average_wells
from cpvae.lsa.states import unit
from cpvae.profiles.simulate import simulate_profiles
from cpvae.run.preset import RunConfig, prepare
from cpvae.screening.decoys import CHECKED, decoy_check
from cpvae.screening.screen import screen
from cpvae.screening.visible import candidates_table, visible_table
from cpvae.screening.votes import half_whiten, mechanism_members

WORLD = dict(n_mechanisms=10, per_mechanism=5, n_pairs=4, per_pair=2, n_features=40, n_controls=12)


def world(**more):
    return average_wells(prepare(simulate_profiles(**(WORLD | more)), RunConfig()))


def in_one_place(measured):
    "The same, as if no plate were recorded: a single dealing is left."
    profiles = measured.profiles.copy()
    profiles.obs["plate"] = ""
    return average_wells(profiles)


@pytest.mark.slow
def test_without_effect_recall_is_that_of_chance_and_p_is_uniform():
    told = [visible_table(in_one_place(world(effect=0, seed=s)), n_draws=199) for s in range(30)]
    gap = np.array([t["recall_at_1"][0] - t["recall_chance"][0] for t in told])
    assert abs(gap.mean()) < 3 * gap.std() / np.sqrt(len(gap))
    assert kstest([t["p"][0] for t in told], "uniform").pvalue > 0.01
    each = np.concatenate([t["p"][1:] for t in told])
    assert kstest(each, "uniform").pvalue > 0.001 and (each <= 0.05).mean() < 0.08
    lucky = np.array([t["n_known_first"][0] - t["n_first_chance"][0] for t in told], float)
    assert abs(lucky.mean()) < 3 * lucky.std() / np.sqrt(len(lucky))


def test_a_planted_mechanism_is_visible_and_the_others_are_not():
    rng, measured = np.random.default_rng(0), world(effect=0, seed=1)
    members = mechanism_members(measured.compounds["moa"])
    name = members.columns[3]
    x = measured.means.copy()
    x[members[name]] += 2 * x.std() * rng.normal(size=x.shape[1])
    told = visible_table(replace(measured, means=x)).set_index("mechanism")
    assert told.loc[name, "q"] < 0.05 and told.loc[name, "recall_at_1"] > 0.8
    others = told.drop(["all", name])
    assert (others["q"] > 0.05).mean() >= 0.8


@pytest.mark.parametrize("seed", [0, 1])
def test_map_is_that_of_scikit_learn_whatever_the_order_of_compounds(seed):
    measured = world(seed=seed)
    told = visible_table(measured, n_draws=9).set_index("mechanism")
    u = unit(half_whiten(measured.means - measured.control), centre=False)
    similarity, members = u @ u.T, mechanism_members(measured.compounds["moa"])
    weights, total = [], 0
    for name, one in members.items():
        one = one.to_numpy()
        if one.sum() < 2:
            continue
        each = [
            average_precision_score(np.delete(one, i), np.delete(similarity[i], i))
            for i in np.flatnonzero(one)
        ]
        np.testing.assert_allclose(told.loc[name, "map"], np.mean(each), atol=1e-9)
        total += sum(each)
        weights.append(len(each))
    np.testing.assert_allclose(told.loc["all", "map"], total / sum(weights), atol=1e-9)
    order = np.random.default_rng(seed).permutation(len(measured.means))
    mixed = replace(
        measured,
        compounds=measured.compounds.iloc[order],
        weights=measured.weights[order],
        means=measured.means[order],
    )
    again = visible_table(mixed, n_draws=9).set_index("mechanism")
    same = ["n_compounds", "recall_at_1", "first", "map", "n_known_first", "n_known"]
    pd.testing.assert_frame_equal(told[same], again[same])


def test_candidates_are_all_that_is_known_and_the_five_best_of_the_rest():
    singles = screen(world(), n_draws=1000)
    kept = candidates_table(singles)
    assert kept["known"].sum() == singles["known"].sum()
    assert set(kept[~kept["known"]].groupby("compound").size()) == {5}
    for name, rows in singles[~singles["known"]].groupby("compound"):
        own = kept[~kept["known"] & (kept["compound"] == name)]
        assert own["p"].max() <= rows["p"].nsmallest(6).iloc[-1]
    pd.testing.assert_frame_equal(
        kept, singles.merge(kept[["compound", "mechanism"]], on=["compound", "mechanism"])
    )


def test_the_check_holds_for_screen_and_knows_what_cannot_be_asked():
    check = decoy_check(world(seed=3))
    assert [*check["kind"]] == [*CHECKED] and check["holds"].all()
    assert (check["n_decoys"] >= 150).all() and (check["n_false"] <= check["n_found"]).all()
    assert ((check["low"] <= check["share"]) & (check["share"] <= check["high"])).all()
    pd.testing.assert_frame_equal(check, decoy_check(world(seed=3)))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_the_check_flags_a_rule_by_how_many_decoys_it_calls(share):
    "Whoever calls all compounds and some decoys is flagged if these are more than one in twenty."

    def rule(mixed, barred, n_draws, seed):
        decoy = mixed.compounds["decoy"].to_numpy()
        called = np.flatnonzero(~decoy)
        n = round(share * len(called) / (1 - share))
        called = np.r_[called, np.flatnonzero(decoy)[:n]]
        about = mixed.compounds["compound"].to_numpy()[called]
        return pd.DataFrame({"compound": about, "mechanism": "none", "p": 1e-9, "q": 0.01})

    check = decoy_check(world(seed=4), rule=rule)
    assert (check["holds"] == (share < 0.05)).all()
    np.testing.assert_allclose(check["share"], share, atol=0.02)
