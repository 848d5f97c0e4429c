"""Properties of the arithmetic and its tests that need many pairs, many permutations, or the real
tables.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import kstest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from cpvae.lsa.nulls import (
    common_path,
    null_p_values,
    permutation_scores,
    permutation_tests,
    shuffled_scores,
    zscore_10_shuffles,
)
from cpvae.lsa.predictors import global_mean, mechanism_blind, trivial_baselines
from cpvae.lsa.relabel import permuted_weights
from cpvae.lsa.space import latent_groups, predict_states, prepare
from cpvae.lsa.table import COLUMNS, lsa_table
from cpvae.profiles.worlds import WORLDS, silent_world
from cpvae.profiles.read import read_profiles
from cpvae.profiles.simulate import simulate_profiles
from cpvae.model.presets import make_vae
from cpvae.preparation.clean import drop_copies
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles

DATA = Path(os.environ.get("CPVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def as_profiles(x, obs, zero_control):
    x = np.asarray(x, np.float32)
    obs = pd.DataFrame(obs).assign(time=np.nan, well="")
    obs.index = [str(i) for i in range(len(obs))]
    about = {"zero_control": zero_control, "clip": 0.0}
    profiles = AnnData(
        x,
        obs=obs,
        var={"center": np.zeros(x.shape[1]), "scale": np.ones(x.shape[1])},
        uns={"cpvae": about},
    )
    profiles.layers["scaled"] = profiles.X.copy()
    return profiles


def groups(n_pairs, rng, largest=3):
    "Names and annotations of the compounds of `n_pairs` pairs, each with mechanisms of its own."
    for i in range(n_pairs):
        for moa, most in (
            (f"a{i:03d}", largest),
            (f"b{i:03d}", largest),
            (f"a{i:03d}|b{i:03d}", 2),
        ):
            for k in range(rng.integers(1, most + 1)):
                yield i, f"{moa}-{k}", moa


def additive_world(n_pairs=40, n_features=60, seed=0, curve=0.3):
    "Ten mechanisms add in five latent units; a curved map makes features of them."
    rng = np.random.default_rng(seed)
    effect, decode = 2.0 * rng.normal(size=(10, 5)), rng.normal(size=(5, n_features))
    moas = [f"m{i}" for i in range(10)] + [f"m{i}|m{j}" for i in range(10) for j in range(i)][
        :n_pairs
    ]
    rows, z = [], []
    for moa in moas:
        for k in range(4 if "|" not in moa else 2):
            for dose, share in ((1.0, 0.5), (10.0, 1.5)):
                for plate in "xy":
                    rows.append(
                        {
                            "compound": f"{moa}-{k}",
                            "moa": "|".join(sorted(moa.split("|"))),
                            "dose": dose,
                            "plate": plate,
                            "is_control": False,
                        }
                    )
                    z.append(
                        share * sum(effect[int(term[1:])] for term in moa.split("|"))
                        + 0.3 * rng.normal(size=5)
                    )
    for k in range(60):
        rows.append(
            {
                "compound": "DMSO",
                "moa": "",
                "dose": np.nan,
                "plate": "xy"[k % 2],
                "is_control": True,
            }
        )
        z.append(0.3 * rng.normal(size=5))
    return as_profiles(
        np.arcsinh(curve * np.array(z) @ decode) / curve
        + 0.1 * rng.normal(size=(len(z), n_features)),
        rows,
        zero_control=False,
    )


def curved_model(curve=0.3):
    "The inverse of the curved map, then PCA: the latent space in which mechanisms add."
    bend = FunctionTransformer(
        lambda x: np.sinh(curve * x) / curve,
        lambda y: np.arcsinh(curve * y) / curve,
        check_inverse=False,
    )
    return make_pipeline(bend, PCA(5, random_state=0))


@pytest.mark.slow
@pytest.mark.parametrize("shared", WORLDS)
def test_null_validity(shared):
    """Where mechanisms do nothing, the primary null is silent, whatever compounds share; 600 pairs
    a world, none of those of the committed table.
    """
    tables = range(300, 308) if shared == "reference" else range(300, 304)
    found = pd.concat(
        [
            null_p_values(
                silent_world(shared, seed, 600 // len(tables)), FunctionTransformer(), 199
            )
            for seed in tables
        ]
    )
    rate = (found.drop(columns="pair") <= 0.05).mean()
    at_most = 0.05 + 4 * np.sqrt(0.05 * 0.95 / 600)
    assert len(found) == 600
    assert 0.02 <= rate["matched"] <= at_most and kstest(found["matched"], "uniform").pvalue > 0.001
    # fooled by plates and by scaffolds, and by nothing else here
    for null in ("anyone", "strength"):
        assert (rate[null] > 0.5) == (shared in ("plates", "torn plates", "scaffold")), null
    assert kstest(found["wells"], "uniform").pvalue < 1e-6  # the paper's is a test in none of them


def test_unrecorded_plates_cannot_be_matched():
    "The primary null is as good as the record."
    worlds = [silent_world("plates", seed) for seed in (7, 8)]
    for world in worlds:
        world.obs["plate"] = ""
    found = pd.concat([null_p_values(w, FunctionTransformer(), 99) for w in worlds])
    assert (found["matched"] <= 0.05).mean() > 0.5
    np.testing.assert_allclose(
        (found["matched"] <= 0.05).mean(), (found["strength"] <= 0.05).mean(), atol=0.05
    )


def test_additive_world_is_found_and_the_right_latent_space_wins():
    profiles = additive_world()
    bent = curved_model().fit(profiles.layers["scaled"])
    table, _ = lsa_table({"bent": bent}, profiles, n_permutations=2000)
    mean = table.groupby(["model", "space"])[["l2", "mismatch_r", "delta_pearson"]].mean()
    assert (table.loc[table["model"] == "bent", "q"] < 0.05).mean() >= 0.9
    for other in set(mean.index) - {("bent", "bent")}:
        assert mean.loc[("bent", "bent"), "l2"] < mean.loc[other, "l2"], other
    assert table.loc[table["model"] == "bent", "beats_both_parents"].mean() > 0.8
    blind = table["model"].isin(["mechanism_blind", "global_mean", "control"])
    assert np.allclose(table[blind].groupby(["model", "space"])["mismatch_r"].mean(), 0, atol=1e-9)
    assert np.allclose(table[blind].groupby(["model", "space"])["rank"].mean(), 0.5)


def test_permutations_agree_with_a_loop():
    profiles = additive_world(n_pairs=3)
    model = curved_model().fit(profiles.layers["scaled"])
    arithmetic = prepare(profiles)
    latents, pair = latent_groups(model, arithmetic, profiles), arithmetic.pairs[1]
    pool = (arithmetic.compounds["moa"] != "").to_numpy() & ~pair.carriers
    weights = permuted_weights(pair, np.where(pool, 0, -1), 300, np.random.default_rng(0))
    truth = arithmetic.group_mean([pair.in_ab])[0]
    common = global_mean(arithmetic, pair)
    D = arithmetic.control
    path = common_path(arithmetic.means[pool], D)
    strength = np.linalg.norm(arithmetic.means[pool] - D, axis=1)
    # spans what the path spans
    bent = np.linalg.lstsq(
        np.stack([strength, strength**2], 1), arithmetic.means[pool] - D, rcond=None
    )[0].T
    l2, cosine = permutation_scores(model, latents, weights, truth, common, path, block=64)
    for row in range(301):
        dense = weights[row].toarray()[0]
        z = sum(w * z for w, z in zip(dense, latents.compounds, strict=True) if w) - latents.control
        x = model.inverse_transform(z[None])[0]
        u, v = (
            y - common - bent @ np.linalg.lstsq(bent, y - common, rcond=None)[0] for y in (x, truth)
        )
        assert abs(cosine[row] - u @ v / np.sqrt((u @ u) * (v @ v))) < 1e-5
        assert abs(l2[row] - np.sqrt(((x - truth) ** 2).sum())) < 1e-3


def test_permutations_are_decoded_in_blocks():
    "A loop would decode one by one; that is what makes it slow."
    rng = np.random.default_rng(0)
    rows = [
        {"compound": c, "moa": m, "dose": 1.0, "plate": "", "is_control": False}
        for _, c, m in groups(20, rng, 12)
    ]
    rows += [
        {"compound": f"u{k}", "moa": f"u{k}", "dose": 1.0, "plate": "", "is_control": False}
        for k in range(1000)
    ]
    profiles = as_profiles(rng.normal(size=(len(rows), 588)), rows, zero_control=True)
    decoded = []

    class Counting(PCA):
        def inverse_transform(self, z):
            decoded.append(len(z))
            return super().inverse_transform(z)

    model = Counting(10, random_state=0).fit(profiles.X)
    arithmetic = prepare(profiles)
    latents = {"pca": latent_groups(model, arithmetic, profiles)}
    _, null = permutation_tests({"pca": model}, latents, arithmetic, profiles, 5000)
    assert len(null) == 20 * 5001 and sum(decoded) == 2 * len(null), (
        "each relabelling of each null is decoded once"
    )
    assert len(decoded) == 2 * 20 * 2, "4,096 at a time"


def test_order_of_wells_and_company_of_models_change_nothing():
    profiles = additive_world(n_pairs=6)
    pca = PCA(5, random_state=0).fit(profiles.layers["scaled"])
    bent = curved_model().fit(profiles.layers["scaled"])
    columns = [
        "pair",
        "l2",
        "pearson",
        "delta_pearson",
        "mismatch_r",
        "rank",
        "beats_both_parents",
        "p",
        "p_matched",
        "p_floor",
        "q",
        "z10",
    ]
    of = lambda table: table.loc[table["model"] == "pca", columns].reset_index(drop=True)
    one, null = lsa_table({"pca": pca}, profiles, n_permutations=200)
    two, both = lsa_table({"bent": bent, "pca": pca}, profiles, n_permutations=200)
    pd.testing.assert_frame_equal(of(one), of(two))
    assert np.array_equal(
        null.loc[null["model"] == "pca", "cosine"], both.loc[both["model"] == "pca", "cosine"]
    )
    mixed = profiles[np.random.default_rng(1).permutation(profiles.n_obs)].copy()
    three, _ = lsa_table({"pca": pca}, mixed, n_permutations=200)
    pd.testing.assert_frame_equal(
        of(one).drop(columns="z10"), of(three).drop(columns="z10"), rtol=1e-4
    )


def test_predictions_do_not_see_the_truth():
    profiles = additive_world(n_pairs=5)
    model = PCA(5, random_state=0).fit(profiles.layers["scaled"])
    before = prepare(profiles)
    changed, target = profiles.copy(), before.pairs[2]
    changed.layers["scaled"][(changed.obs["moa"] == target.moa).to_numpy()] *= -3
    after = prepare(changed)
    assert np.abs(before.group_mean([target.in_ab]) - after.group_mean([target.in_ab])).max() > 1
    old, new = (
        predict_states(model, a, latent_groups(model, a, x))
        for a, x in ((before, profiles), (after, changed))
    )
    assert np.array_equal(old, new)
    for name, states in trivial_baselines(before).items():
        assert np.array_equal(states[2], trivial_baselines(after)[name][2]), name
    assert np.array_equal(mechanism_blind(old), mechanism_blind(new))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "zero_control", "n_pairs"),
    [("cell_injury_u2os_8298x346", False, 5), ("l1000_drugbank_1170x978", True, 42)],
)
def test_real_tables(name, zero_control, n_pairs):
    path = DATA / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{path.name} is not in CPVAE_DATA")
    profiles = scale_profiles(
        split_profiles(drop_copies(read_profiles(path, zero_control=zero_control)))
    )
    table, null = lsa_table(
        {"pca": PCA(10, random_state=0).fit(profiles.layers["scaled"])},
        profiles,
        n_permutations=300,
    )
    assert (
        table["pair"].nunique() == n_pairs
        and len(null) == 2 * n_pairs * 301
        and list(table.columns) == COLUMNS
    )
    assert table["active_a"].isna().all() == zero_control
    assert (table["z10"].dropna().abs() <= np.sqrt(10) + 1e-9).all()
    mean = table.groupby(["model", "space"])["l2"].mean()
    assert (
        mean["stronger" if not zero_control else "global_mean", "input"]
        < mean["additive_input", "additive_input"]
    )


def test_the_papers_z_by_hand():
    """Labels of annotated and control wells permuted ten times, plain means, z within eleven values
    (paper §5.6).
    """
    world = additive_world(n_pairs=3, n_features=12)
    arithmetic, identity = prepare(world), FunctionTransformer()
    z = zscore_10_shuffles(
        shuffled_scores(
            identity, arithmetic, latent_groups(identity, arithmetic, world), world, seed=4
        )[0]
    )
    label = np.where(world.obs["is_control"], "DMSO", world.obs["moa"])
    x = pd.DataFrame(world.layers["scaled"].astype(float))
    rng, distance, truth = np.random.default_rng(4), [], x.groupby(label).mean()
    for shuffle in range(11):
        means = x.groupby(rng.permutation(label) if shuffle else label).mean()
        distance.append(
            [
                np.linalg.norm(
                    means.loc[p.a] - means.loc["DMSO"] + means.loc[p.b] - truth.loc[p.moa]
                )
                for p in arithmetic.pairs
            ]
        )
    distance = np.array(distance)
    np.testing.assert_allclose(z, (distance[0] - distance.mean(0)) / distance.std(0), rtol=1e-5)


def test_only_exchangeable_compounds_are_relabelled(monkeypatch):
    """Neither compounds without annotation nor those that carry both mechanisms, among others, lend
    their states to the null.
    """
    world = additive_world(n_pairs=3, n_features=12)
    names = world.obs["compound"].astype(str)
    world.obs["moa"] = np.where(
        names == "m5-0", "", np.where(names == "m6-0", "m0|m1|m9", world.obs["moa"].astype(str))
    )
    arithmetic, identity, seen = prepare(world), FunctionTransformer(), []
    real = permuted_weights
    monkeypatch.setattr(
        "cpvae.lsa.nulls.permuted_weights",
        lambda pair, strata, *rest: seen.append((pair, strata)) or real(pair, strata, *rest),
    )
    tests, _ = permutation_tests(
        {"x": identity}, {"x": latent_groups(identity, arithmetic, world)}, arithmetic, world, 99
    )
    compounds = arithmetic.compounds["compound"].to_numpy()
    pair, strata = next((p, s) for p, s in seen if {p.a, p.b} == {"m0", "m1"})
    out = set(compounds[strata < 0])
    assert out == {"m5-0", "m6-0"} | set(compounds[pair.in_ab]) and len(seen) == 2 * len(
        arithmetic.pairs
    )
    assert (tests.p_floor >= 1 / 100).all() and tests.p_floor.min() == pytest.approx(0.01)


def test_an_undefined_pair_costs_the_others_no_q(monkeypatch):
    world = additive_world(n_pairs=3, n_features=12)
    real = permutation_tests

    def one_undefined(*arguments, **options):
        tests, null = real(*arguments, **options)
        tests.loc[0, "p_matched"] = np.nan
        return tests, null

    monkeypatch.setattr("cpvae.lsa.table.permutation_tests", one_undefined)
    table, _ = lsa_table({}, world, n_permutations=99)
    q = table.loc[table.model == "additive_input", "q"]
    assert q.isna().sum() == 1 and q.notna().sum() == 2


@pytest.mark.slow
def test_interaction_is_what_the_sum_cannot_know():
    """Simulated pairs: found and well predicted where mechanisms add, by latent more than by
    input-space arithmetic; the more they interact, the worse.
    """
    found = {}
    for interaction in (0.0, 1.0):
        world = simulate_profiles(interaction=interaction, seed=3, n_features=120, n_maps=4)
        profiles = scale_profiles(split_profiles(world))
        x = profiles.layers["scaled"]
        model = make_vae("beta", random_state=0, steps=800, hidden_layer_sizes=(128,)).fit(
            x[profiles.obs["split"] == "train"], X_valid=x[profiles.obs["split"] == "valid"]
        )
        table, _ = lsa_table({"beta": model}, profiles, n_permutations=2000)
        found[interaction] = (
            table[table["model"].isin(["beta", "additive_input"])]
            .groupby("model")[["l2_scaled", "l2", "mismatch_r", "cosine"]]
            .mean()
        )
        found[interaction]["found"] = table.groupby("model")["q"].agg(lambda q: (q < 0.05).mean())
    adds, interacts = found[0.0], found[1.0]
    assert (
        adds.found["beta"] >= 0.9
        and adds.l2["beta"] < adds.l2["additive_input"]
        and adds.mismatch_r["beta"] > adds.mismatch_r["additive_input"]
    )
    assert (
        interacts.cosine["beta"] < adds.cosine["beta"] - 0.1
        and interacts.l2_scaled["beta"] > 1.2 * adds.l2_scaled["beta"]
    )
