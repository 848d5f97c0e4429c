"""Skill by an independent hand, worlds whose rule is known, coordinates, and the tables that come
with the package.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
import packaged
import pandas as pd
import pytest
from running import cli
from scipy.spatial.distance import pdist
from sklearn.preprocessing import FunctionTransformer

from cpvae.datasets import PACKAGED, load_dataset
from cpvae.errors import CpvaeError
from cpvae.lsa.kinds import evidence_of
from cpvae.lsa.learned import CalibratedSum
from cpvae.lsa.predictors import Sum, predict_folds
from cpvae.lsa.skill import SKILL_COLUMNS, frozen_folds, pair_skill, skill_of
from cpvae.lsa.space import average_wells, latent_space
from cpvae.lsa.table import OF_AXES, arithmetic
from cpvae.measure.reconstruction import reconstruction_table
from cpvae.profiles.pairs import evaluable_pairs
from cpvae.profiles.read import profiles_from_table
from cpvae.run.preset import RunConfig, prepare

DATA = Path(os.environ.get("CPVAE_DATA") or Path(__file__).parents[2] / "shared" / "data")
RAW = DATA / "measured" / "raw"
NAMES = ["norman", "korkut", "ecoli"]


def test_skill_is_one_less_the_ratio_of_errors_in_each_fold():
    rng = np.random.default_rng(0)
    pairs = [(f"m{i}", f"m{j}") for i in range(7) for j in range(i)]
    truths, predicted = rng.normal(size=(2, len(pairs), 5))
    noise = rng.random(len(pairs))
    by_name = {}
    for i, pair in enumerate(pairs):
        digest = hashlib.sha256("|".join(sorted(pair)).encode()).hexdigest()
        by_name[digest] = i
    ranked = [by_name[digest] for digest in sorted(by_name)]
    left = total = 0.0
    for f in range(5):
        mine = [i for rank, i in enumerate(ranked) if rank * 5 // len(pairs) == f]
        y = truths[mine] - truths[mine].mean(axis=0)
        guess = predicted[mine] - predicted[mine].mean(axis=0)
        off = (1 - 1 / len(mine)) * noise[mine].sum()
        left += ((guess - y) ** 2).sum() - off
        total += (y**2).sum() - off
    parents = np.zeros((len(pairs), 2, 5))
    assert skill_of(predicted, truths, parents, pairs, noise).skill == pytest.approx(
        1 - left / total
    )


def world(rule, seed=0, sd=0.2):
    "A table of treatments alone and together, whose pairs follow a rule."
    rng = np.random.default_rng(seed)
    names = [f"drug{i}" for i in range(9)]
    effect = dict(zip(names, rng.normal(size=(9, 30)) * rng.uniform(0.5, 2, size=(9, 1))))
    rows = {name: [effect[name]] * 2 for name in names}
    for i, a in enumerate(names):
        for b in names[:i]:
            rows[f"{a}|{b}"] = [rule(effect[a], effect[b], rng)] * 2
    rows["DMSO"] = [np.zeros(30)] * 8
    table = [(name, x + sd * rng.normal(size=30)) for name, some in rows.items() for x in some]
    known = pd.DataFrame([(n, "" if n == "DMSO" else n) for n, _ in table])
    known.columns = ["Metadata_compound", "Metadata_moa"]
    values = pd.DataFrame([x for _, x in table], columns=[f"f{i}" for i in range(30)])
    return profiles_from_table(known.join(values), "w", coordinates=True)


def _of_pairs(skill):  # without the worlds made from the same compounds
    return skill[~skill["evidence"].str.startswith("world: ")].set_index("predictor")


longer = lambda a, b: a if np.linalg.norm(a) > np.linalg.norm(b) else b
RULES = {
    "sum": lambda a, b, rng: a + b,
    "mean_ab": lambda a, b, rng: (a + b) / 2,
    "stronger": lambda a, b, rng: longer(a, b),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_that_made_a_world_has_all_the_skill_and_no_other_has(rule):
    table = _of_pairs(pair_skill({}, prepare(world(RULES[rule]), RunConfig())))
    assert set(table["evidence"]) == {"measured"} and set(table["n_pairs"]) == {36}
    skill = table["skill"].drop("calibrated_sum")
    assert skill.idxmax() == rule and skill[rule] == pytest.approx(1, abs=0.06)
    assert skill.drop(rule).max() < 0.9 and abs(skill[["global_mean", "control"]]).max() < 1e-6
    if rule != "stronger":  # a calibrated sum is a sum of any length
        assert table["skill"]["calibrated_sum"] == pytest.approx(1, abs=0.06)
    assert table["slope"]["sum"] == pytest.approx(
        {"sum": 1, "mean_ab": 0.5}.get(rule, 0.6), abs=0.15
    )


def test_a_fold_is_predicted_from_the_others_alone():
    ready = prepare(world(RULES["sum"]), RunConfig())
    space = _space(ready)
    fold = frozen_folds([p.name for p in space.pairs])
    told = predict_folds(CalibratedSum(), space, fold)
    spoiled = ready.copy()
    mine = {space.pairs[i].moa for i in np.flatnonzero(fold == 2)}
    rows = spoiled.obs["moa"].isin(["|".join(sorted(m.split("|"))) for m in mine]).to_numpy()
    assert rows.sum() == 2 * len(mine)
    spoiled.layers["scaled"] = spoiled.layers["scaled"] + 50 * rows[:, None].astype(np.float32)
    again = predict_folds(CalibratedSum(), _space(spoiled), fold)
    np.testing.assert_allclose(again[fold == 2], told[fold == 2], atol=1e-5)
    assert (np.abs(again - told)[fold != 2].max(axis=1) > 1e-3).all()
    plain = predict_folds(Sum(), space, fold)
    ratio = (told - space.control) / (plain - space.control)
    assert all(np.ptp(ratio[fold == f]) < 1e-3 for f in range(5))  # one length a fold


def _space(profiles):
    return latent_space(FunctionTransformer(), average_wells(profiles))


# ---- the tables that come with the package -------------------------------------------------------


@pytest.mark.skipif(not RAW.is_dir(), reason="what the owners publish is not in CPVAE_DATA")
@pytest.mark.parametrize("name", NAMES)
def test_a_measured_table_is_what_its_owners_publish(name):
    made = getattr(packaged, name)(RAW).set_index("Metadata_compound")
    kept = pd.read_parquet(PACKAGED / f"{name}.parquet").set_index("Metadata_compound")
    assert list(made) == list(kept) and set(made.index) == set(kept.index)
    made, features = made.loc[kept.index], [c for c in kept if not c.startswith("Metadata_")]
    np.testing.assert_allclose(pdist(made[features]), pdist(kept[features]), atol=1e-4)
    about = kept.columns.difference(features)
    pd.testing.assert_frame_equal(made[about].fillna(""), kept[about].fillna(""))


@pytest.mark.skipif(not DATA.is_dir(), reason="the public tables are not in CPVAE_DATA")
def test_the_slice_of_u2os_is_of_the_public_table():
    made = packaged.u2os_small(DATA)
    pd.testing.assert_frame_equal(made, pd.read_parquet(PACKAGED / "u2os-small.parquet"))
    profiles = load_dataset("u2os-small")
    assert len(evaluable_pairs(profiles)) == 5 and profiles.obs["plate"].nunique() == 7


@pytest.mark.parametrize("name, n", [("norman", 131), ("korkut", 66), ("ecoli", 43)])
def test_pairs_of_a_measured_table_are_measured(name, n):
    profiles = load_dataset(name)
    assert list(evidence_of(profiles, evaluable_pairs(profiles))) == ["measured"] * n
    annotated = load_dataset("u2os-small")
    assert set(evidence_of(annotated, evaluable_pairs(annotated))) == {"annotated"}


def test_coordinates_are_never_scaled_one_by_one():
    profiles = load_dataset("norman")
    ready = prepare(profiles, RunConfig())
    scale = ready.var["scale"].to_numpy()
    assert profiles.uns["cpvae"]["kind"] == "coordinates" and np.ptp(scale) == 0
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    turned = profiles.copy()
    turned.X = (profiles.X @ turn).astype(np.float32)
    other = prepare(turned, RunConfig())
    np.testing.assert_allclose(
        pdist(ready.layers["scaled"]), pdist(other.layers["scaled"]), rtol=1e-4
    )
    one, two = (_of_pairs(pair_skill({}, x)) for x in (ready, other))
    numbers = SKILL_COLUMNS[3:]
    np.testing.assert_allclose(one[numbers].astype(float), two[numbers].astype(float), atol=2e-3)


def test_no_score_that_is_told_of_coordinates_changes_with_the_turn_of_their_axes():
    profiles = load_dataset("norman")
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    turned = profiles.copy()
    turned.X = (profiles.X @ turn).astype(np.float32)
    one, two = (arithmetic({}, prepare(x, RunConfig()), 20)[0] for x in (profiles, turned))
    assert one[OF_AXES].isna().all(axis=None) and two[OF_AXES].isna().all(axis=None)
    same = [c for c in one.select_dtypes("number") if c not in OF_AXES]
    assert {"l2", "rank", "ap", "scale", "cosine", "effect", "p_matched", "z10"} <= set(same)
    np.testing.assert_allclose(
        one[same].astype(float), two[same].astype(float), rtol=1e-2, atol=2e-3
    )
    rebuilt = reconstruction_table(
        {("id", False): FunctionTransformer()}, prepare(profiles, RunConfig())
    )
    assert rebuilt[["emd_mean", "emd_p05", "emd_p95"]].isna().all(axis=None)
    assert rebuilt["fvu"].notna().all()


def test_features_called_like_axes_are_remarked(tmp_path):
    table = pd.read_parquet(PACKAGED / "norman.parquet")
    notes = profiles_from_table(table, "t").uns["cpvae"]["notes"]
    assert sum("called like coordinates (R01, R02" in note for note in notes) == 1
    told = profiles_from_table(table, "t", coordinates=True).uns["cpvae"]["notes"]
    assert [note for note in told if "coordinates" in note] == []
    table.to_csv(tmp_path / "t.csv", index=False)
    said = cli("info", tmp_path / "t.csv")
    assert "say --coordinates, and none is scaled" in " ".join(said.output.split())
    assert "--coordinates" not in cli("info", tmp_path / "t.csv", "--coordinates").output


def test_a_prediction_that_is_not_finite_is_refused():
    pairs = [(f"m{i}", f"m{j}") for i in range(7) for j in range(i)]
    with pytest.raises(CpvaeError, match="not finite"):
        skill_of(np.full((21, 3), np.nan), np.ones((21, 3)), np.ones((21, 2, 3)), pairs)
