"""Predictions of anyone's: what is read and what is refused, what no score can be talked into, and
a benchmark in which nobody sees a truth.
"""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from running import cli

import cpvae as cp
from cpvae.errors import CpvaeError, JudgingError
from cpvae.judging.benchmark import (
    LEADERBOARD,
    Board,
    benchmark,
    board_page,
    kept_predictions,
    table_rows,
    tie_groups,
    tier_columns,
    tiers_of,
)
from cpvae.judging.predictions import as_predictions, folds_of, known_without, pair_called
from cpvae.judging.predictions import predict_apart, read_predictions, read_truth, truth_of
from cpvae.judging.score import judge, pair_results, reference_states, score, summary_row
from cpvae.lsa.learned import PREDICTORS, CalibratedSum
from cpvae.lsa.predictors import Sum, predict_folds
from cpvae.lsa.skill import frozen_folds, skill_gain, skill_of
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles


@pytest.fixture(scope="module")
def korkut():
    return read_truth("korkut")


@pytest.fixture(scope="module")
def guesses(korkut):
    return reference_states(korkut)


@pytest.fixture(scope="module")
def world():
    "A simulated truth of annotated compounds with replicate wells."
    profiles = simulate_profiles(seed=0)
    del profiles.uns["truth"]
    return truth_of(profiles)


def handed(states, truth):
    return read_predictions(as_predictions(states, truth), truth)


def table_of(effects, pairs, control=0.0, wells=1, seed=0):
    "A table of singles and pairs with given effects: `effects` maps a name, or 'A|B', to `[G]`."
    rng, rows = np.random.default_rng(seed), []
    for name, effect in effects.items():
        for _ in range(wells):
            rows.append((name.replace("|", "+"), name, effect + rng.normal(0, 0.01, len(effect))))
    for _ in range(4):
        rows.append(("DMSO", "", rng.normal(0, 0.01, len(effect)) + control))
    frame = pd.DataFrame([r[2] for r in rows]).rename(columns=lambda i: f"GENE{i}")
    frame.insert(0, "Metadata_moa", [r[1] for r in rows])
    frame.insert(0, "Metadata_compound", [r[0] for r in rows])
    assert all("|".join(p) in effects for p in pairs)
    return frame


@pytest.fixture(scope="module")
def made():
    "Seven drugs, all 21 pairs, 20 genes; doubles are 0.7 of the sum and something of their own."
    rng = np.random.default_rng(1)
    singles = {f"drug_{c}": rng.normal(size=20) for c in "abcdefg"}
    pairs = list(itertools.combinations(singles, 2))
    both = {
        "|".join(p): 0.7 * (singles[p[0]] + singles[p[1]]) + rng.normal(0, 0.3, 20) for p in pairs
    }
    return truth_of(read_profiles(table_of(singles | both, pairs)))


# ---- the truth -----------------------------------------------------------------------------------


def test_a_truth_is_in_the_unit_of_its_file_and_folds_follow_from_names(made):
    x = made.profiles.X
    moa = made.profiles.obs["moa"].astype(str).to_numpy()
    for i, pair in enumerate(made.pairs):
        np.testing.assert_allclose(made.states[i], x[moa == pair.moa].mean(0), atol=1e-5)
        np.testing.assert_allclose(made.parents[i, 0], x[moa == pair.a].mean(0), atol=1e-5)
        np.testing.assert_allclose(made.parents[i, 1], x[moa == pair.b].mean(0), atol=1e-5)
    np.testing.assert_array_equal(made.fold, frozen_folds(made.names))
    np.testing.assert_allclose(made.control, x[made.profiles.obs["is_control"]].mean(0), atol=1e-5)


def test_no_truth_has_a_part_in_the_scale(made):
    louder = made.profiles.copy()
    at = np.array(["|" in m for m in louder.obs["moa"].astype(str)])
    louder.X[at] *= 50
    del louder.layers["scaled"]
    again = truth_of(louder)
    np.testing.assert_array_equal(again.profiles.var["scale"], made.profiles.var["scale"])
    np.testing.assert_array_equal(again.profiles.var["center"], made.profiles.var["center"])
    assert again.digest != made.digest


def test_a_table_of_two_kinds_is_judged_on_the_larger(world):
    "A truth keeps to one kind of evidence, and says what it leaves aside."
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(14, 3)), columns=list("UVW"))
    frame.columns = ["GENE1", "GENE2", "GENE3"]
    names = "a b c d e a+b a+c a+d x".split()
    moa = "a b c d e a|b a|c a|d d|e".split()
    frame.insert(0, "Metadata_moa", [*moa, *[""] * 5])
    frame.insert(0, "Metadata_compound", [*names, *["DMSO"] * 5])
    truth = truth_of(read_profiles(frame))
    assert (truth.evidence, len(truth.pairs)) == ("measured", 3)
    assert truth.notes == ("Left aside: 1 pair annotated, since those measured are more.",)
    # a prediction of the pair left aside is no mistake
    told = as_predictions(truth.states, truth).drop(columns="fold")
    more = pd.concat([told, told[:1].assign(perturbation="d+e")])
    assert any("another kind" in note for note in read_predictions(more, truth).notes)
    assert world.evidence == "annotated"


@pytest.mark.parametrize("name", ["sum", "calibrated_sum", "regressed", "global_mean", "stronger"])
def test_rows_that_are_gone_change_nothing_for_the_honest(name, korkut):
    from sklearn.preprocessing import FunctionTransformer

    from cpvae.lsa.space import latent_space

    whole = latent_space(FunctionTransformer(), korkut.measured)
    folded = korkut.in_unit(predict_folds(PREDICTORS[name](), whole, korkut.fold))
    apart = predict_apart({name: PREDICTORS[name]()}, korkut)[name]
    np.testing.assert_allclose(apart, folded, atol=1e-5)


def reachable(thing, seen, depth=0):
    "Every array that can be got at from an object by its attributes and items."
    if id(thing) in seen or depth > 7:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield thing
        if thing.base is not None:
            yield from reachable(thing.base, seen, depth + 1)
    elif isinstance(thing, pd.DataFrame):
        for column in thing:
            yield thing[column].to_numpy()
    elif isinstance(thing, AnnData):
        yield from (np.asarray(part) for part in (thing.X, *thing.layers.values()))
        yield from reachable([thing.X, thing.obs, dict(thing.uns), *thing.layers.values()], seen, 0)
        yield from (np.asarray(part) for part in thing.obsm.values())
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from reachable(part, seen, depth + 1)
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from reachable(part, seen, depth + 1)
    elif hasattr(thing, "__dict__"):
        yield from reachable(vars(thing), seen, depth + 1)


@pytest.mark.parametrize("which", ["korkut", "world", "made"])
def test_no_truth_is_within_reach_of_a_predictor(which, request):
    truth = request.getfixturevalue(which)
    for fold in range(5):
        space, asked = known_without(truth, fold)
        held = {p.moa for p, f in zip(truth.pairs, truth.fold) if f == fold}
        assert {p.moa for p in asked} == held and not any(p.in_ab.any() for p in asked)
        assert {p.moa for p in space.pairs} >= set(truth.names) - held
        assert not {p.moa for p in space.pairs} & held
        rows = truth.profiles.obs["moa"].astype(str).isin(held).to_numpy()
        hidden = np.unique(truth.profiles.layers["scaled"][rows])
        hidden = np.setdiff1d(hidden, truth.profiles.layers["scaled"][~rows])
        assert len(hidden) > 50
        for found in reachable([space, asked], set()):
            if found.dtype.kind == "f":  # a value or two may be equal by chance
                assert np.isin(hidden, found.astype(np.float32)).mean() < 0.1


def test_a_compound_with_more_than_the_pair_is_gone_too():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), columns=["G1", "G2", "G3"])
    frame.insert(0, "Metadata_moa", ["a", "b", "c", "a|b", "a|c", "b|c", "a|b|c", *[""] * 5])
    frame.insert(0, "Metadata_compound", [*"rstuvwx", *["DMSO"] * 5])
    truth = truth_of(read_profiles(frame))
    for fold in np.unique(truth.fold):
        space, _ = known_without(truth, fold)
        assert "a|b|c" not in set(space.compounds["moa"])


# ---- predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["|", "+", " + ", "_"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_pair_has_many_names(mark, turned, made):
    table = as_predictions(made.states, made)
    order = -1 if turned else 1
    table["perturbation"] = [mark.join(p[::order]) for p in made.members]
    told = read_predictions(table.sample(frac=1, random_state=0), made)
    np.testing.assert_allclose(told.states, made.states)


def test_a_name_that_can_be_cut_in_two_ways_is_refused():
    known = ["a", "b_c", "a_b", "c"]
    with pytest.raises(JudgingError, match="a_b_c may mean a and b_c or a_b and c; write A|B"):
        pair_called("a_b_c", known)
    assert pair_called("a|b_c", known) == ("a", "b_c")
    assert pair_called("c_a", known) == ("c", "a")
    # a mark that fits goes before one that is ambiguous
    assert pair_called("a_b+c", known) == ("a_b", "c")
    # names that a drug with its dose may have
    assert pair_called("x+1_y", ["x+1", "y"]) == ("x+1", "y")
    assert pair_called("a+control", known) == pair_called("ctrl", known) == ()
    assert pair_called("a+a", known) is None


def test_states_and_effects_are_one_but_for_the_control(made):
    effects = as_predictions(made.states - made.control, made)
    by_word = AnnData(
        effects[made.features].to_numpy(),
        obs=effects[["perturbation"]].set_axis(list(map(str, range(21)))),
        var=pd.DataFrame(index=made.features),
        uns={"scale": "effect", "method_id": "mine", "dataset_id": made.name},
    )
    for told in (read_predictions(effects, made, scale="effect"), read_predictions(by_word, made)):
        np.testing.assert_allclose(told.states, made.states)
    assert told.name == "mine"
    with pytest.raises(JudgingError, match="holds effects .*you say `scale='state'`"):
        read_predictions(by_word, made, scale="state")
    s = [
        skill_of(x, made.states, made.parents, made.members).skill
        for x in (made.states * 0.5, made.states * 0.5 + 17)
    ]
    assert s[0] == pytest.approx(s[1], abs=1e-9)


def test_rows_of_a_pair_are_averaged_and_controls_are_not_looked_at(made):
    table = as_predictions(made.states, made)
    lie = table[:3].assign(perturbation=["control", "drug_a", "drug_a+ctrl"])
    lie[made.features] = [[np.nan] * 20, [1e9] * 20, [-1e9] * 20]
    up, down = (table.assign(**table[made.features] + d) for d in (1, -2))
    told = read_predictions(pd.concat([lie, up, down]).assign(context=1), made)
    np.testing.assert_allclose(told.states, made.states - 0.5)
    assert "42 rows of 21 pairs are averaged" in told.notes[0]
    assert "Not looked at: 3 rows" in told.notes[1]


REFUSED = {
    "nan": (lambda t, g: t.assign(**{g: [np.nan, *t[g][1:]]}), "GENE0 of drug_.* holds nothing"),
    "inf": (
        lambda t, g: t.assign(**{g: [*t[g][:-1], -np.inf]}),
        "holds '-inf', which is no finite",
    ),
    "text": (lambda t, g: t.assign(**{g: ["1,5", *t[g][1:]]}), "holds '1,5', which is no finite"),
    "pairs left out": (lambda t, g: t[2:], "lacks 2 of 21 pairs of"),
    "unknown": (
        lambda t, g: pd.concat([t, t[:1].assign(perturbation="drug_a+drug_z")]),
        r"1 name that .* has no pair for \(drug_a\+drug_z\); did you mean drug_a\+drug_",
    ),
    "features": (lambda t, g: t.drop(columns=g), r"lacks 1 of 20 features of .* \(GENE0\)"),
    "repeated feature": (
        lambda t, g: pd.concat([t, t[[g]]], axis=1),
        "column GENE0 is there twice",
    ),
    "folds": (lambda t, g: t.assign(fold=(t.fold + 1) % 5), "and its frozen fold is"),
    "one fold a pair": (lambda t, g: t.assign(fold=range(len(t))), "predict each fold from the"),
    "blank fold": (lambda t, g: t.assign(fold=None), "was predicted in fold None"),
    "empty": (lambda t, g: t[:0], "has no rows"),
    "singles alone": (lambda t, g: t.assign(perturbation="drug_a"), "no row names a pair"),
    "blank": (lambda t, g: t.assign(perturbation=None), "no row names a pair"),
    "no column": (lambda t, g: t.drop(columns="perturbation"), "has no column perturbation"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_judged_fairly_is_refused_in_a_line(what, made):
    change, told = REFUSED[what]
    with pytest.raises(CpvaeError, match=told) as error:
        read_predictions(change(as_predictions(made.states, made), "GENE0"), made)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_pair_under_two_names_is_refused(made):
    table = as_predictions(made.states, made)
    a, b = made.members[0]
    both = pd.concat([table, table[:1].assign(perturbation=f"{b}+{a}")])
    with pytest.raises(JudgingError, match=r"which are one pair; keep one"):
        read_predictions(both, made)


def test_negative_whole_and_constant_numbers_are_predictions(made):
    for value in (-3, 0, 7):
        table = as_predictions(np.full_like(made.states, value), made)
        table = table.astype(dict.fromkeys(made.features, int))
        np.testing.assert_array_equal(read_predictions(table, made).states, float(value))


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "feather", "h5ad"])
def test_every_kind_of_file_is_read_alike(kind, made, tmp_path):
    table, path = as_predictions(made.states, made), tmp_path / f"mine.{kind}"
    if kind in ("csv", "tsv"):
        table.to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "h5ad":
        AnnData(
            table[made.features].to_numpy(),
            obs=folds_of(made).set_axis(list(map(str, range(21)))),
            var=pd.DataFrame(index=made.features),
        ).write_h5ad(path)
    else:
        getattr(table, f"to_{kind}")(path)
    told = read_predictions(path, made)
    np.testing.assert_allclose(told.states, made.states, atol=1e-12)
    assert told.name == "mine" and told.notes == ()


# ---- scores --------------------------------------------------------------------------------------


def test_a_score_adds_up_from_its_pairs(made, world):
    for truth in (made, world):
        guess = truth.parents.mean(axis=1)
        found = judge(handed(guess, truth), truth, reference_states(truth))
        rows, own = found.results, found.summary.iloc[0]
        noise = rows["noise"].fillna(0)
        by_hand = 1 - (rows.apart_error**2 - noise).sum() / (rows.apart_length**2 - noise).sum()
        assert by_hand == pytest.approx(own.skill, abs=1e-9)
        assert rows.discrimination.mean() == pytest.approx(own.discrimination)
        np.testing.assert_allclose(rows.error, np.linalg.norm(guess - truth.states, axis=1))
        assert set(rows.nearest) == {"mean_ab"}
        away = guess - truth.control, truth.states - truth.control
        cosine = (away[0] * away[1]).sum(1) / np.prod(np.linalg.norm(away, axis=2), axis=0)
        np.testing.assert_allclose(rows.cosine, cosine)
        gain = skill_gain(
            guess,
            reference_states(truth)["calibrated_sum"],
            truth.states,
            truth.members,
            truth.noise["noise"],
        )
        np.testing.assert_allclose([own.gain, own.gain_low, own.gain_high], gain)
        assert own.members == len({m for p in truth.members for m in p})
    assert np.isnan(made.states).sum() == 0 and rows["noise"].notna().all()


def test_noise_is_that_of_the_truth_in_its_own_unit(world):
    "Predicting half 1 from half 2 of a truth's wells is off by its noise; a unit changes nothing."
    other = world.profiles.copy()
    del other.layers["scaled"]
    other.X = other.X * 100
    scaled = truth_of(other)
    np.testing.assert_allclose(scaled.noise["noise"], world.noise["noise"] * 1e4, rtol=1e-3)
    rows = [summary_row("sum", t.parents.sum(1) - t.control, t, t.states) for t in (world, scaled)]
    for name in ("skill", "low", "interaction", "slope", "noise"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3)


def test_blind_predictions_are_worth_nothing(korkut, guesses):
    y, fold = korkut.states, korkut.fold
    training = np.stack([y[fold != f].mean(0) for f in fold])
    rng = np.random.default_rng(0)
    for blind in (0 * y, 0 * y + 5, training, -100 * training, 0 * y + rng.normal(size=y.shape[1])):
        found = judge(handed(blind, korkut), korkut, guesses)
        own = found.summary.iloc[0]
        assert (own.skill, own.discrimination, found.leak) == (0, 0.5, "")
        assert "same for every pair" in found.verdict


def test_rows_features_names_and_controls_of_ones_own_change_nothing(korkut, guesses):
    table = as_predictions(guesses["stronger"], korkut)
    own = judge(read_predictions(table, korkut), korkut, guesses).summary.iloc[0]
    altered = {
        "rows": table.sample(frac=1, random_state=3),
        "names": table.assign(perturbation=["+".join(p[::-1]) for p in korkut.members]),
        "features": table[[*table.columns[::-1]]].assign(another=9.0),
        "controls": pd.concat([table, table[:5].assign(perturbation="ctrl")]),
        "cells": pd.concat([table, table[:20], table[:20]]),
    }
    for what, one in altered.items():
        same = judge(read_predictions(one, korkut), korkut, guesses).summary.iloc[0]
        pd.testing.assert_series_equal(own, same, check_exact=False, rtol=1e-9, obj=what)


def test_exaggeration_loses(korkut, guesses):
    effect = guesses["calibrated_sum"] - korkut.control
    s = [
        skill_of(korkut.control + k * effect, korkut.states, korkut.parents, korkut.members).skill
        for k in (1, 3, 100)
    ]
    assert s[0] > 0.7 > 0 > s[1] > s[2]


@pytest.mark.parametrize("how", ["truth", "half", "minus the others", "mean of the others"])
def test_a_file_made_from_the_truths_is_a_leak(how, korkut, guesses):
    y = korkut.states
    made_from = {
        "truth": y,
        "half": y / 2,
        "minus the others": y - y.sum(0),
        "mean of the others": (y.sum(0) - y) / (len(y) - 1),
    }[how]
    found = judge(handed(made_from, korkut), korkut, guesses)
    assert found.leak and found.verdict.startswith("A leak: ")


def test_closer_than_the_noise_allows_is_a_leak_and_the_true_states_are_none():
    rng = np.random.default_rng(0)
    singles = {f"d{i}": rng.normal(size=30) for i in range(7)}
    pairs = list(itertools.combinations(singles, 2))
    true = {"|".join(p): singles[p[0]] + singles[p[1]] + rng.normal(size=30) for p in pairs}
    noisy = pd.concat([table_of(singles | true, pairs, wells=1, seed=s) for s in range(3)])
    values = [c for c in noisy if c.startswith("GENE")]
    noisy[values] += rng.normal(0, 0.8, noisy[values].shape)
    truth = truth_of(read_profiles(noisy.reset_index(drop=True)))
    guesses = reference_states(truth)
    assert truth.noise["noise"] is not None
    copied = judge(handed(truth.states, truth), truth, guesses)
    assert copied.summary.skill[0] > 1 and "noise allows" in copied.leak
    honest = np.stack([true["|".join(p)] for p in truth.members])
    told = judge(handed(honest, truth), truth, guesses)
    assert told.leak == "" and 0.9 < told.summary.skill[0] < 1.1


def test_a_world_without_noise_may_follow_its_rule():
    rng = np.random.default_rng(0)
    singles = {f"d{i}": rng.normal(size=10) for i in range(7)}
    pairs = list(itertools.combinations(singles, 2))
    rows = singles | {"|".join(p): singles[p[0]] + singles[p[1]] for p in pairs}
    frame = pd.DataFrame(rows).T.rename(columns=lambda i: f"GENE{i}").reset_index(drop=True)
    frame.insert(0, "Metadata_moa", [*rows])
    frame.insert(0, "Metadata_compound", [name.replace("|", "+") for name in rows])
    truth = truth_of(read_profiles(frame, zero_control=True))
    found = score(as_predictions(truth.parents.sum(axis=1), truth), truth)
    assert found.leak == "" and found.summary.skill[0] == pytest.approx(1)


def test_few_pairs_tell_no_skill():
    truth = read_truth("u2os-small")
    found = score(as_predictions(truth.parents.mean(axis=1), truth), "u2os-small")
    assert len(found.results) == 5 and found.summary["skill"].isna().all()
    assert "fewer than 15" in found.verdict and found.leak == ""


@pytest.mark.parametrize(
    ("made_of", "words"),
    [
        (lambda y, g: g["calibrated_sum"], "level with the calibrated sum: 0.00 [0.00, 0.00]"),
        (lambda y, g: (g["calibrated_sum"] + 2 * y) / 3, "ahead of the calibrated sum"),
        (lambda y, g: g["a"], "behind the calibrated sum"),
        (lambda y, g: 4 * g["a"], "worse than a guess"),
        (lambda y, g: g["sum"] / 3, "holds back"),
    ],
    ids=["level", "ahead", "behind", "worse", "shy"],
)
def test_a_verdict_says_what_the_numbers_say(made_of, words, korkut, guesses):
    found = judge(handed(made_of(korkut.states, guesses), korkut), korkut, guesses)
    assert words in found.verdict
    assert "explains" in found.verdict or found.summary.skill[0] < 0


def test_the_front_door_scores(korkut, tmp_path):
    told = as_predictions(korkut.parents.mean(axis=1), korkut)
    found = cp.score(told, "korkut")
    found.save(tmp_path)
    assert pd.read_csv(tmp_path / "results.csv")["pair"].tolist() == korkut.names
    again = pd.read_csv(tmp_path / "agg_results.csv")
    assert again["predictor"][0] == "predictions" and "mean_ab" in set(again["predictor"])
    assert again["skill"][0] == pytest.approx(found.summary["skill"][0], abs=1e-5)


# ---- benchmark -----------------------------------------------------------------------------------


def test_groups_are_of_those_who_are_not_told_apart(korkut, guesses):
    rng, base = np.random.default_rng(0), guesses["calibrated_sum"]
    alike = base + rng.normal(0, 1e-3, base.shape)
    groups = tie_groups(guesses | {"alike": alike}, korkut)
    assert groups["alike"] == groups["calibrated_sum"] == 1
    skills = {
        k: skill_of(x, korkut.states, korkut.parents, korkut.members).skill
        for k, x in (guesses | {"alike": alike}).items()
    }
    in_order = sorted(groups, key=lambda k: -skills[k])
    assert [groups[k] for k in in_order] == sorted(groups.values())
    assert set(groups.values()) == set(range(1, max(groups.values()) + 1)) and groups["control"] > 1


def test_tiers_count_members_that_stand_elsewhere():
    truth = read_truth("norman")
    for (a, b), fold, tier in zip(truth.members, truth.fold, tiers_of(truth)):
        others = [p for p, f in zip(truth.members, truth.fold) if f != fold]
        assert tier == sum(any(m in p for p in others) for m in (a, b))


def test_skill_of_tiers_makes_that_of_all(korkut, guesses):
    told = tier_columns(guesses["a"], korkut, guesses["calibrated_sum"])
    own = summary_row("a", guesses["a"], korkut, guesses["calibrated_sum"])
    assert told["pairs_both"] == 66 and told["skill_both"] == pytest.approx(own["skill"])
    assert np.isnan(told["skill_one"]) and told["pairs_none"] == 0


class Counted(CalibratedSum):
    "Counts how often it is fitted."

    times = 0

    def fit(self, space, without=()):
        type(self).times += 1
        return super().fit(space, without)


def test_what_was_predicted_is_taken_up_if_nothing_changed(korkut, made, tmp_path, monkeypatch):
    Counted.times, ask = 0, lambda t, code: kept_predictions("c", Counted(), t, code, tmp_path)
    first = ask(korkut, "1")
    assert Counted.times == 5
    np.testing.assert_array_equal(ask(korkut, "1"), first)
    assert Counted.times == 5
    np.testing.assert_array_equal(
        read_predictions(tmp_path / "korkut/c.parquet", korkut).states, first
    )
    ask(korkut, "2")
    assert Counted.times == 10
    ask(korkut, "")  # nobody knows whether its code has changed
    assert Counted.times == 15
    ask(korkut, "2")
    monkeypatch.setattr("cpvae.judging.benchmark.SCORER", "another")
    before = Counted.times
    ask(korkut, "2")
    assert Counted.times == before + 5
    note = tmp_path / "korkut" / "c.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"table": "of another"}))
    ask(korkut, "2")
    assert Counted.times == before + 10


def test_an_unfinished_prediction_is_not_taken_up(korkut, tmp_path):
    Counted.times = 0
    kept_predictions("c", Counted(), korkut, "1", tmp_path)
    (tmp_path / "korkut" / "c.json").unlink()
    kept_predictions("c", Counted(), korkut, "1", tmp_path)
    path = tmp_path / "korkut" / "c.parquet"
    path.write_bytes(path.read_bytes()[:100])
    kept_predictions("c", Counted(), korkut, "1", tmp_path)
    assert Counted.times == 15


class Failing(Sum):
    "Fails where it can."

    def predict(self, pairs):
        raise KeyError("no such\ngene")


def test_a_predictor_that_fails_is_named_and_the_others_stay(tmp_path):
    own = {"good": Sum(), "bad": Failing()}
    with pytest.raises(
        JudgingError, match="bad fails on korkut, fold 0: KeyError: .*gene"
    ) as error:
        benchmark(own, ["korkut"], tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "predictions" / "korkut" / "good.parquet").is_file()


def test_a_leak_has_no_rank(korkut, guesses):
    states = {k: guesses[k] for k in ("calibrated_sum", "global_mean", "sum", "a")}
    rows = table_rows(korkut, states | {"leak": korkut.states / 2}).set_index("method")
    assert rows.loc["leak", "leak"] and pd.isna(rows.loc["leak", "tie"])
    assert rows.loc["calibrated_sum", "tie"] == 1
    page = board_page(Board(rows.reset_index()[LEADERBOARD]), "2026-01-31")
    assert (
        "Without a rank, since truths were known: leak." in page and page.count("2026-01-31") == 1
    )


def test_annotated_tables_say_so_and_have_a_ceiling(world, tmp_path):
    profiles = simulate_profiles(seed=0)
    del profiles.uns["truth"]
    board = benchmark(["mean_ab"], {"annotated": profiles})
    rows = board.rows.set_index("method")
    assert {"replicate", "ceiling"} <= set(rows.index) and rows["tie"].notna().sum() == 2
    assert rows.loc["replicate", "skill"] > rows.loc["calibrated_sum", "skill"]
    assert "annotations" in board.save(tmp_path).read_text(encoding="utf-8")


def test_a_page_says_if_nobody_beats_a_blind_guess(korkut, guesses):
    wrong = {k: 3 * guesses["sum"] for k in ("calibrated_sum", "sum")} | {
        "global_mean": guesses["a"] * 0
    }
    page = board_page(Board(table_rows(korkut, wrong)), "2026-01-31")
    assert "Nobody is told from a guess that is the same for every pair." in page
    page = board_page(Board(table_rows(korkut, {k: guesses[k] for k in wrong})), "2026-01-31")
    assert "Nobody is told from" not in page


def test_a_page_loads_nothing_and_escapes_names(korkut, guesses):
    rows = table_rows(korkut, {k: guesses[k] for k in ("calibrated_sum", "global_mean", "sum")})
    rows.loc[0, "method"] = "<script>x</script>"
    page = board_page(Board(rows, ("a <b> note",)), "2026-01-31")
    shown = page.partition("<script")[0]  # the page's own scripts stand at its end
    assert "&lt;script&gt;x" in shown and "<script>x" not in page and "a &lt;b&gt; note" in shown
    assert 'src="http' not in shown and shown.count("<img") == shown.count('alt="') == 1


# ---- commands ------------------------------------------------------------------------------------

MINE = """
import numpy as np


class Mine:
    "The mean of A and B, a little further out."

    def fit(self, space, without=()):
        self.space = space
        return self

    def predict(self, pairs):
        a, b = (self.space.group_mean([getattr(p, g) for p in pairs]) for g in ("in_a", "in_b"))
        return self.space.control + 0.6 * (a + b - 2 * self.space.control)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.mark.slow
def test_benchmark_and_score_agree(here, korkut):
    done = cli(
        "benchmark", "mine.py:Mine", "--tables", "korkut", "--predictors", "mean_ab", "--quiet"
    )
    assert done.exit_code == 0 and done.stderr == "", done.output
    board = pd.read_csv("results/benchmark/leaderboard.csv").set_index("method")
    assert set(board.index) == {"Mine", "mean_ab", "calibrated_sum", "sum", "global_mean"}
    assert len(board.loc["Mine", "code"]) == 64
    kept = "results/benchmark/predictions/korkut/Mine.parquet"
    done = cli("score", "-ap", kept, "-ar", "korkut")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    own = pd.read_csv("results/Mine-score/agg_results.csv").iloc[0]
    for name in ("skill", "low", "high", "gain", "discrimination", "slope"):
        assert own[name] == pytest.approx(board.loc["Mine", name], abs=1e-4)
    assert "Mine explains" in done.stdout and "mean_ab" in done.stdout
    # once more: nothing is asked again, though the file is gone but for its digest
    again = cli(
        "benchmark", "mine.py:Mine", "--tables", "korkut", "--predictors", "mean_ab", "--quiet"
    )
    assert again.stdout.splitlines()[:8] and again.exit_code == 0


def test_commands_refuse_in_a_line_and_write_nothing(here, korkut):
    table = as_predictions(korkut.states, korkut)
    table[3:].to_csv("short.csv", index=False)
    (here / "empty.csv").write_text("")
    (here / "bad.py").write_text("class Mine:\n    pass\n")
    before = sorted(p.name for p in here.iterdir())
    for words, said in {
        ("score", "-ap", "short.csv", "-ar", "korkut"): "lacks 3 of 66 pairs",
        ("score", "-ap", "empty.csv", "-ar", "korkut"): "empty.csv",
        ("score", "-ap", "short.csv", "-ar", "korkutt"): "did you mean 'korkut'",
        ("score", "-ap", "none.csv", "-ar", "korkut"): "no such file",
        ("score", "-ap", "short.csv", "-ar", "none.csv"): "no such file",
        ("score", "-ap", "short.csv", "-ar", "korkut", "--pert-col", "x"): "--pert-col",
        ("score", "-ap", "short.csv", "-ar", "korkut", "--scale", "counts"): "state",
        ("benchmark", "mine.py:Nine", "--tables", "korkut"): "did you mean 'Mine'",
        ("benchmark", "bad.py:Mine", "--tables", "korkut"): "has no fit",
        ("benchmark", "mine.txt"): "FILE.py:Name",
        ("benchmark", "gone.py:Mine"): "there is no file gone.py",
        ("benchmark", "--tables", "korkutt"): "did you mean 'korkut'",
        ("benchmark", "--predictors", "regresed"): "did you mean 'regressed'",
        ("benchmark", "--out", "mine.py"): "is a file",
    }.items():
        done = cli(*words)
        assert done.exit_code == 2 and said in done.stderr, (words, done.output)
        assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert sorted(p.name for p in here.iterdir()) == before


def test_nothing_of_anothers_is_written_over(here, korkut):
    table = as_predictions(korkut.parents.mean(axis=1), korkut)
    table.to_csv("mine.csv", index=False)
    (here / "kept").mkdir()
    for name in ("results.csv", "leaderboard.csv"):
        (here / "kept" / name).write_text("precious")
    for words in (
        ("score", "-ap", "mine.csv", "-ar", "korkut"),
        ("benchmark", "--tables", "korkut"),
    ):
        done = cli(*words, "--out", "kept")
        assert done.exit_code == 2 and "is there already" in done.stderr
    assert (here / "kept" / "results.csv").read_text() == "precious"


def test_pair_results_know_ties(made):
    "A prediction alike for all finds its truth by chance, whatever the order of names."
    guesses = {"calibrated_sum": made.parents.mean(axis=1)}
    rows = pair_results(np.tile(made.states[0], (21, 1)), made, guesses)
    assert (rows["discrimination"] == 0.5).all()
