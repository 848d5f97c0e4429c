"""Properties of the arithmetic and its tests that need many pairs, many permutations, or the real
tables.
"""

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from project import ROOT
from scipy.stats import kstest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, SplineTransformer

from cpvae.datasets import load_dataset
from cpvae.lsa.kinds import active_compounds
from cpvae.lsa.nulls import (
    NULLS,
    bootstrap_cosine,
    common_of,
    common_path,
    null_p_values,
    permutation_scores,
    permutation_tests,
    shuffled_scores,
    specificity,
    zscore_10_shuffles,
)
from cpvae.lsa.predictors import MechanismBlind, Sum, cell_count_match, global_mean
from cpvae.lsa.predictors import predict_pairs, trivial_baselines
from cpvae.lsa.relabel import compound_blocks, permuted_weights, strength_strata
from cpvae.lsa.scores import mismatch_r, paired_difference, score_states
from cpvae.lsa.space import latent_space, predict_states, average_wells
from cpvae.lsa.states import PROTOCOLS
from cpvae.lsa.table import COLUMNS, arithmetic
from cpvae.profiles.pairs import evaluable_pairs
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
                latent_space(
                    FunctionTransformer(),
                    average_wells(silent_world(shared, seed, 600 // len(tables))),
                ),
                199,
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
    found = pd.concat(
        [null_p_values(latent_space(FunctionTransformer(), average_wells(w)), 99) for w in worlds]
    )
    assert (found["matched"] <= 0.05).mean() > 0.5
    np.testing.assert_allclose(
        (found["matched"] <= 0.05).mean(), (found["strength"] <= 0.05).mean(), atol=0.05
    )


def test_additive_world_is_found_and_the_right_latent_space_wins():
    profiles = additive_world()
    bent = curved_model().fit(profiles.layers["scaled"])
    table, _ = arithmetic({"bent": bent}, profiles, n_permutations=2000)
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
    measured = average_wells(profiles)
    space, pair = latent_space(model, measured), measured.pairs[1]
    pool = (measured.compounds["moa"] != "").to_numpy() & ~pair.carriers
    weights = permuted_weights(pair, np.where(pool, 0, -1), 300, np.random.default_rng(0))
    truth = measured.group_mean([pair.in_ab])[0]
    common = global_mean(measured, pair)
    D = measured.control
    path = common_path(measured.means[pool], D)
    strength = np.linalg.norm(measured.means[pool] - D, axis=1)
    # spans what the path spans
    bent = np.linalg.lstsq(
        np.stack([strength, strength**2], 1), measured.means[pool] - D, rcond=None
    )[0].T
    l2, cosine = permutation_scores(space, weights, truth, common, path, block=64)
    for row in range(301):
        dense = weights[row].toarray()[0]
        z = sum(w * z for w, z in zip(dense, space.z_compounds, strict=True) if w)
        z = z - space.z_control
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
    measured = average_wells(profiles)
    _, null = permutation_tests({"pca": latent_space(model, measured)}, 5000)
    assert len(null) == 20 * 5001 and sum(decoded) == 4 * len(null), (
        "each relabelling of each null is decoded once"
    )
    assert len(decoded) == 4 * 20 * 2, "4,096 at a time"


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
    one, null = arithmetic({"pca": pca}, profiles, n_permutations=200)
    two, both = arithmetic({"bent": bent, "pca": pca}, profiles, n_permutations=200)
    pd.testing.assert_frame_equal(of(one), of(two))
    assert np.array_equal(
        null.loc[null["model"] == "pca", "cosine"], both.loc[both["model"] == "pca", "cosine"]
    )
    mixed = profiles[np.random.default_rng(1).permutation(profiles.n_obs)].copy()
    three, _ = arithmetic({"pca": pca}, mixed, n_permutations=200)
    pd.testing.assert_frame_equal(
        of(one).drop(columns="z10"), of(three).drop(columns="z10"), rtol=1e-4
    )


def test_predictions_do_not_see_the_truth():
    profiles = additive_world(n_pairs=5)
    model = PCA(5, random_state=0).fit(profiles.layers["scaled"])
    before = average_wells(profiles)
    changed, target = profiles.copy(), before.pairs[2]
    changed.layers["scaled"][(changed.obs["moa"] == target.moa).to_numpy()] *= -3
    after = average_wells(changed)
    assert np.abs(before.group_mean([target.in_ab]) - after.group_mean([target.in_ab])).max() > 1
    spaces = [latent_space(model, of) for of in (before, after)]
    old, new = (predict_states(space) for space in spaces)
    assert np.array_equal(old, new)
    for name, states in trivial_baselines(before).items():
        assert np.array_equal(states[2], trivial_baselines(after)[name][2]), name
    blind = [predict_pairs(MechanismBlind(Sum()), space)[0] for space in spaces]
    assert np.array_equal(*blind)


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
    table, null = arithmetic(
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
    measured, identity = average_wells(world), FunctionTransformer()
    z = zscore_10_shuffles(shuffled_scores(latent_space(identity, measured), seed=4)[0])
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
                for p in measured.pairs
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
    measured, identity, seen = average_wells(world), FunctionTransformer(), []
    real = permuted_weights
    monkeypatch.setattr(
        "cpvae.lsa.nulls.permuted_weights",
        lambda pair, strata, *rest: seen.append((pair, strata)) or real(pair, strata, *rest),
    )
    tests, _ = permutation_tests({"x": latent_space(identity, measured)}, 99)
    compounds = measured.compounds["compound"].to_numpy()
    pair = next(p for p, _ in seen if {p.a, p.b} == {"m0", "m1"})
    out = [set(compounds[strata < 0]) for p, strata in seen if p is pair]
    never = {"m5-0", "m6-0"} | set(compounds[pair.in_ab])
    kept = [set(compounds[one]) for one in (pair.in_b, pair.in_a)]  # by what is given
    assert out == [never, never, never | kept[0], never | kept[1]]
    assert (tests.p_floor >= 1 / 100).all() and tests.p_floor.min() == pytest.approx(0.01)


def test_an_undefined_pair_costs_the_others_no_q(monkeypatch):
    world = additive_world(n_pairs=3, n_features=12)
    real = permutation_tests

    def one_undefined(*arguments, **options):
        tests, null = real(*arguments, **options)
        tests.loc[0, "p_matched"] = np.nan
        return tests, null

    monkeypatch.setattr("cpvae.lsa.table.permutation_tests", one_undefined)
    table, _ = arithmetic({}, world, n_permutations=99)
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
        table, _ = arithmetic({"beta": model}, profiles, n_permutations=2000)
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


def a_plate(values, compounds, plate="p"):
    """Profiles of one plate and one feature: control wells of these values, and a well a compound,
    `{name: (moa, value)}`.
    """
    rows = [("DMSO", "", value, True) for value in values]
    rows += [(name, moa, value, False) for name, (moa, value) in compounds.items()]
    obs = [
        {"compound": c, "moa": m, "dose": 1.0, "plate": plate, "is_control": k}
        for c, m, _, k in rows
    ]
    return as_profiles(np.array([[row[2]] for row in rows]), obs, zero_control=False)


def test_active_is_what_lies_beyond_nineteen_of_twenty_control_means():
    "Controls at ±1, ±2, ... ±100, by how much a well varies more than one of their mean."
    spread = np.sqrt(201 / 199)
    controls = [sign * k for k in range(1, 101) for sign in (1, -1)]
    strengths = {str(s): ("m", s * spread) for s in (90.5, 94.5, 96.5, 99.5)}
    profiles = a_plate(controls, strengths)
    found = active_compounds(average_wells(profiles), n_draws=50_000)
    assert found.tolist() == [False, False, True, True]
    # four at ±1, about a mean that they are part of: as far as √(5/3) from that of others
    four = a_plate([1, -1, 1, -1], {"in": ("m", 1.28), "out": ("m", 1.30)})
    assert active_compounds(average_wells(four)).tolist() == [False, True]
    # of a plate apart from the others, about its own mean of 1: the fourth well is 4.9 away
    own = a_plate([0, 0, 0, 4], {"in": ("m", 4.0), "out": ("m", 5.0)})
    both = [own, a_plate([-1.0] * 4, {"other": ("m", 0.0)}, "q")]
    both = concat(both, index_unique=" ", uns_merge="first", merge="first")
    assert active_compounds(average_wells(both)).tolist()[::2] == [False, True]
    # where controls stay where they are, so does a compound that does nothing
    still = a_plate([2.0] * 8, {"none": ("m", 2.0), "some": ("m", 2.1)})
    assert active_compounds(average_wells(still)).tolist() == [False, True]


@pytest.mark.parametrize("n, known", [(3, False), (4, True)])
def test_four_control_wells_are_the_least_that_say_how_far_controls_stray(n, known):
    calm = a_plate([-0.1, 0.1, 0.2, -0.2][:n], {"some": ("m", 3.0)})
    assert active_compounds(average_wells(calm)).isna().tolist() == [not known]
    # so few on the own plate, and those of all plates are drawn from
    wild = a_plate(np.linspace(-50, 50, 40), {"other": ("m", 0.0)}, "q")
    both = concat([calm, wild], index_unique=" ", uns_merge="first", merge="first")
    some = average_wells(both).compounds["compound"].eq("some").to_numpy()
    assert active_compounds(average_wells(both))[some].tolist() == [known]


def stand(plates, moa="m", n=1):
    "Rows of `n` compounds, each with a well on each of these plates."
    for k in range(n):
        for plate in plates:
            name = f"{plates} {moa} {k}"
            yield {"compound": name, "moa": moa, "dose": 1.0, "plate": plate, "is_control": False}


def blocks_of(*kinds, smallest):
    "The block of each kind of compound, by the plates where it stands."
    rows = [row for plates, n in kinds for row in stand(plates, n=n)]
    profiles = as_profiles(np.ones((len(rows), 2)), rows, zero_control=True)
    measured = average_wells(profiles)
    found = pd.Series(compound_blocks(measured, **smallest))
    kind = measured.compounds["compound"].str.split(" ").str[0]
    assert found.groupby(kind).nunique().max() == 1
    return found.groupby(kind).first()


def test_plates_half_shared_make_one_block():
    "Jaccard: two plates of four in common are half, two of five are less."
    found = blocks_of(("abc", 1), ("abd", 1), ("wxy", 1), ("wxuv", 1), smallest={"smallest": 1})
    assert found["abc"] == found["abd"] and found["wxy"] != found["wxuv"]


def test_who_shares_half_of_its_plates_with_a_block_joins_it():
    "One plate of two is half; two of five, or one of three, are less."
    found = blocks_of(
        ("abcdefgh", 10), ("aq", 1), ("abrst", 1), ("ars", 1), smallest={"smallest": 10}
    )
    assert found["aq"] == found["abcdefgh"] > 0 and found["abrst"] == found["ars"] == 0


def in_places(column, *kinds):
    "The block of compounds that stand on plate p alone and in these values of a column, ten each."
    rows = [row | {column: at} for at in kinds for row in stand("p", moa=f"m{at}", n=10)]
    rows = [row | {column: one} for row in rows for one in row[column]]
    measured = average_wells(as_profiles(np.ones((len(rows), 2)), rows, zero_control=True))
    found = pd.Series(compound_blocks(measured)).groupby(measured.compounds["moa"])
    assert found.nunique().max() == 1
    return [found.first()[f"m{at}"] for at in kinds]


@pytest.mark.parametrize("column", ["cell", "Metadata_batch", "Metadata_Experiment_Name"])
def test_cell_lines_and_batches_part_compounds_of_one_plate(column):
    "Two of three in common are one block, one of three are not."
    one, other, three, two, single = in_places(column, "a", "b", "cde", "cd", "c")
    assert len({one, other, three}) == 3 and two == three and min(one, other, three) > 0
    # c and cd share half, and clusters are parted by means over their members
    assert single == two or single not in (one, other)


@pytest.mark.parametrize("column", ["cell", "Metadata_batch"])
def test_offsets_of_cell_lines_and_batches_are_matched_where_they_are_recorded(column):
    "No compound does anything; those of a pair stand in one cell line, or batch, of its own mean."
    rate = {}
    for recorded in (True, False):
        p = []
        for seed in (7, 8):
            world = silent_world("plates", seed)
            home, world.obs["plate"] = world.obs["plate"], ""
            world.obs[column] = home if recorded else ""
            space = latent_space(FunctionTransformer(), average_wells(world))
            p += [*permutation_tests({"x": space}, 99, nulls=("matched",))[0]["p_matched"]]
        rate[recorded] = (np.array(p) <= 0.05).mean()
    assert len(p) == 300 and rate[True] < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 300) < 0.5 < rate[False]


def test_labels_of_one_parent_are_dealt_while_those_of_the_other_stay():
    "All ways to draw A' beside B, and B' beside A, written down."
    rng = np.random.default_rng(3)
    moas = ["a", "a", "b", "a|b", *(f"c{k}" for k in range(7))]
    effect = {"a": rng.normal(size=8), "b": rng.normal(size=8)}
    rows = [("DMSO", "", 0.1 * rng.normal(size=8), True) for _ in range(9)]
    for k, moa in enumerate(moas):
        state = sum((effect.get(term, 0) for term in moa.split("|")), np.zeros(8))
        rows.append((f"{k:02d}", moa, state + 0.8 * rng.normal(size=8), False))
    obs = [
        {"compound": c, "moa": m, "dose": 1.0, "plate": "p", "is_control": k} for c, m, _, k in rows
    ]
    world = as_profiles(np.array([x for *_, x, _ in rows]), obs, zero_control=False)
    measured = average_wells(world)
    (pair,) = measured.pairs
    means, moa, control, common, free = by_hand(world, pair)
    of = lambda names: means.loc[list(names)].to_numpy().mean(axis=0)
    truth = free @ (of(["03"]) - common)

    def cosine(a, b):
        x = free @ (of(a) - control + of(b) - common)
        return x @ truth / np.sqrt((x @ x) * (truth @ truth))

    rest, real = [f"{k:02d}" for k in range(4, 11)], cosine(["00", "01"], ["02"])
    every_a = [cosine(a, ["02"]) for a in combinations(["00", "01", *rest], 2)]
    every_b = [cosine(["00", "01"], [b]) for b in ["02", *rest]]
    exact = [np.mean(np.array(one) >= real - 1e-6) for one in (every_a, every_b)]
    space = latent_space(FunctionTransformer(), measured)
    tests, null = permutation_tests({"x": space}, 20_000)
    found = tests.loc[0, ["p_a_given_b", "p_b_given_a"]].to_numpy(float)
    assert (len(every_a), len(every_b)) == (36, 8) and exact[0] != exact[1]
    np.testing.assert_allclose(found, exact, atol=0.015)
    assert tests.loc[0, "p_both_floor"] == pytest.approx(1 / 8)  # of B', the larger of the two
    few, _ = permutation_tests({"x": space}, 3)
    assert few.loc[0, "p_both_floor"] == pytest.approx(1 / 4)


def test_a_parent_that_does_nothing_is_told_from_one_that_does_all():
    "A|B is A: the labels of both are called, those of A given B too, those of B given A are not."
    rng, rows, x = np.random.default_rng(0), [], []
    for i in range(60):
        effect = rng.normal(size=30)
        for moa, size in ((f"a{i:02d}", 1), (f"b{i:02d}", 0), (f"a{i:02d}|b{i:02d}", 1)):
            for k in range(3):
                rows.append({"compound": f"{moa}-{k}", "moa": moa, "dose": 1.0, "plate": ""})
                x.append(size * effect + 0.5 * rng.normal(size=30))
    obs = pd.DataFrame(rows).assign(is_control=False)
    space = latent_space(FunctionTransformer(), average_wells(as_profiles(x, obs, True)))
    tests, _ = permutation_tests({"x": space}, 199)
    rate = (tests.filter(like="p_") <= 0.05).mean()
    assert rate["p_matched"] > 0.9 and rate["p_a_given_b"] > 0.9 and rate["p_b_given_a"] < 0.15


def cells_lost(rng, n, G=20):
    "States that follow a strength, bend with a cell count, and differ at random; the counts."
    strong, lost, bent = rng.normal(size=(3, G))
    count, s = rng.uniform(0, 1, n), rng.gamma(2, 1, n)
    states = (
        np.outer(s, strong) + np.outer(count, 3 * lost) + np.outer((count - 0.5) ** 2, 20 * bent)
    )
    return states + 0.05 * rng.normal(size=(n, G)), count, np.stack([strong, lost, bent])


def test_the_path_holds_where_states_move_as_cells_get_fewer():
    states, count, ways = cells_lost(np.random.default_rng(0), 120)
    control = np.zeros(20)
    path = common_path(states, control, count)
    ways = ways / np.linalg.norm(ways, axis=1, keepdims=True)
    outside = lambda path: np.linalg.norm(ways - ways @ path @ path.T, axis=1)
    np.testing.assert_allclose(path.T @ path, np.eye(5), atol=1e-9)
    assert outside(path).max() < 0.05 < 0.3 < outside(common_path(states, control)).max()
    # a compound without a count says nothing of counts, however far away it is
    extra = np.vstack([states, 50 * np.random.default_rng(1).normal(size=(1, 20))])
    strength = common_path(extra, control)
    some = common_path(extra, control, np.append(count, np.nan))
    np.testing.assert_allclose(some[:, :2], strength, atol=1e-12)
    left = states - states @ strength @ strength.T
    known = SplineTransformer(3, 2, knots="quantile").fit_transform(count[:, None])
    moves = left.T @ (known - known.mean(axis=0))
    assert np.abs(moves - some @ (some.T @ moves)).max() < 1e-6 * np.abs(moves).max()
    # twenty-nine counts are too few, and one value is none
    few = np.where(np.arange(120) < 29, count, np.nan)
    for unknown in (few, np.full(120, np.nan), np.ones(120), None):
        np.testing.assert_array_equal(
            common_path(states, control, unknown), common_path(states, control)
        )


def test_pairs_of_like_cell_count_are_not_called_for_it():
    "Strength and cell loss act, a bent path each; compounds of a pair lose as many cells."
    rng, rows = np.random.default_rng(5), [*groups(100, np.random.default_rng(4))]
    share = rng.uniform(0, 1, 100)[[i for i, *_ in rows]] + 0.02 * rng.normal(size=len(rows))
    strong, lost, bent = rng.normal(size=(3, 30))
    x = np.outer(rng.gamma(2, 3, len(rows)), strong) + np.outer(share, 6 * lost)
    x += np.outer((share - 0.5) ** 2, 20 * bent) + rng.normal(size=x.shape)
    obs = [dict(compound=c, moa=m, dose=1.0, plate="", is_control=False) for _, c, m in rows]
    rate = {}
    for known in (True, False):
        world = as_profiles(x, obs, zero_control=True)
        world.obs["cell_count"] = share if known else np.nan
        measured = average_wells(world)
        space = latent_space(FunctionTransformer(), measured)
        tests, _ = permutation_tests({"x": space}, 99, nulls=("anyone", "matched"))
        rate[known] = (tests["p"] <= 0.05).mean()
        pool, common, path = common_of(measured, measured.pairs[0])
        counts = measured.compounds["cell_count"].to_numpy()[pool] if known else None
        np.testing.assert_array_equal(
            path, common_path(measured.means[pool], measured.control, counts)
        )
        assert not pool[measured.pairs[0].carriers].any()
    assert rate[True] < 0.14 < 0.3 < rate[False]


def test_ten_compounds_are_a_block_and_nine_are_not():
    found = blocks_of(("ab", 10), ("cd", 9), smallest={})
    assert found["ab"] > 0 and found["cd"] == 0


def test_a_stratum_holds_ten_compounds_or_more():
    count = lambda n, **more: strength_strata(np.arange(n), np.ones(n, bool), **more).max() + 1
    assert [count(n) for n in (19, 20, 99, 100, 109, 1000)] == [1, 2, 9, 10, 10, 10]


def test_ten_compounds_of_like_cell_count_are_averaged():
    "Counts 1 to 12 of compounds at 2, 4, ... 2¹²; ten are nearest to a count of zero."
    singles = {f"c{k:02d}": ("c", 2.0**k) for k in range(1, 13)}
    profiles = a_plate([0.0] * 4, {"ab": ("a|b", 0.0), "a": ("a", 1.0), "b": ("b", 1.0)} | singles)
    counts = {"ab": 0.0, "a": 0.1, "b": 0.1} | {name: int(name[1:]) for name in singles}
    profiles.obs["cell_count"] = profiles.obs["compound"].map(counts).astype(float)
    measured = average_wells(profiles)
    found = cell_count_match(measured, measured.pairs[0])
    assert found == pytest.approx((2**11 - 2) / 10)


def test_the_interval_of_pairs_that_share_nothing_in_closed_form():
    """Ten pairs that share no mechanism: the variance is that of ten values, SS / (10 - 1)², and t
    with the 20 degrees of freedom of 20 mechanisms 2.086.
    """
    d = np.arange(10.0) ** 2
    pairs = [(f"a{i}", f"b{i}") for i in range(10)]
    half = 2.086 * np.sqrt(np.square(d - d.mean()).sum() / 81)
    assert paired_difference(d, pairs) == pytest.approx((28.5, 28.5 - half, 28.5 + half), abs=2e-3)
    mean, *ends = paired_difference(d[:9], pairs[:9])
    assert mean == pytest.approx(d[:9].mean()) and np.isnan(ends).all()  # nine are too few


def pairs_of(table):
    "The evaluable pairs of a public table."
    if table == "l1000":
        lsa = pd.read_csv(ROOT / "nbs/results/lsa_l1000.csv")
        return [tuple(name.split("|")) for name in lsa["pair"].unique()]
    return evaluable_pairs(load_dataset(table))


@pytest.mark.parametrize("share", [0.0, 0.7, 1.4])
@pytest.mark.parametrize(
    "table, n", [("l1000", 42), ("norman", 131), ("korkut", 66), ("ecoli", 43)]
)
def test_intervals_hold_the_mean_on_the_graphs_of_public_tables(table, n, share):
    "Differences vary with mechanisms by `share`, and by pair; a jackknife held .98 on L1000."
    rng, pairs = np.random.default_rng(0), pairs_of(table)
    code = pd.factorize(np.array(pairs).ravel())[0].reshape(-1, 2)
    held = []
    for _ in range(600):
        d = share * rng.normal(size=code.max() + 1)[code].sum(axis=1) + rng.normal(size=n)
        _, low, high = paired_difference(d, pairs)
        held.append(low <= 0 <= high)
    assert 0.91 < np.mean(held) < 0.99


def by_hand(profiles, pair):
    """Compound means, and what compounds have in common, without those of the pair: their mean, and
    a projection that takes their path of strength out.
    """
    treated = ~profiles.obs["is_control"].to_numpy()
    x = pd.DataFrame(profiles.layers["scaled"].astype(float)).set_axis(profiles.obs_names)
    means = x[treated].groupby(profiles.obs["compound"][treated]).mean()
    moa = profiles.obs["moa"][treated].groupby(profiles.obs["compound"][treated]).first()
    control = x[~treated].groupby(profiles.obs["plate"][~treated]).mean().mean().to_numpy()
    rest = [name for name in means.index if not {*pair.moa.split("|")} <= {*moa[name].split("|")}]
    away = means.loc[[name for name in rest if moa[name]]].to_numpy() - control
    strength = np.linalg.norm(away, axis=1)
    slopes = np.linalg.lstsq(np.stack([strength, strength**2], axis=1), away, rcond=None)[0]
    free = np.eye(len(control)) - np.linalg.pinv(slopes) @ slopes
    return means, moa, control, means.loc[rest].mean().to_numpy(), free


def mixed_world():
    "Pairs among others: a compound without annotation, and one with two mechanisms among three."
    world = additive_world(n_pairs=4, n_features=12)
    names = world.obs["compound"].astype(str)
    world.obs["moa"] = np.where(
        names == "m5-0", "", np.where(names == "m6-0", "m0|m1|m9", world.obs["moa"].astype(str))
    )
    return world


def test_no_truth_is_part_of_what_compounds_have_in_common():
    "The cosine of each pair, and of each prediction with each truth, from means by hand."
    world, identity = mixed_world(), FunctionTransformer()
    measured = average_wells(world)
    space = latent_space(identity, measured)
    tests, _ = permutation_tests({"x": space}, 9)
    cosine = lambda u, v: u @ v / np.sqrt((u @ u) * (v @ v))
    states = predict_states(space)
    for pair, found, state in zip(measured.pairs, tests["cosine"], states, strict=True):
        means, moa, control, common, free = by_hand(world, pair)
        of = lambda name, means=means, moa=moa: means[(moa == name).to_numpy()].mean().to_numpy()
        np.testing.assert_allclose(state, of(pair.a) - control + of(pair.b), atol=1e-5)
        truth = of(pair.moa)
        assert found == pytest.approx(
            cosine(free @ (state - common), free @ (truth - common)), 1e-4
        )
    # of the table as a whole, no compound that carries any of the pairs
    none = [not any({p.a, p.b} <= {*m.split("|")} for p in measured.pairs) for m in moa]
    rest, truths = means[none], np.stack([of(p.moa) for p in measured.pairs])
    scores = score_states(states, measured)["mismatch_r"]
    np.testing.assert_allclose(
        scores, mismatch_r(states, truths, rest.mean().to_numpy()), atol=1e-5
    )
    assert abs(scores - mismatch_r(states, truths, means.mean().to_numpy())).max() > 0.01
    away = rest.to_numpy() - control
    strength = np.linalg.norm(away, axis=1)
    slopes = np.linalg.lstsq(np.stack([strength, strength**2], axis=1), away, rcond=None)[0]
    free = np.eye(12) - np.linalg.pinv(slopes) @ slopes
    u, t = ((x - rest.mean().to_numpy()) @ free for x in (states, truths))
    every = np.array([[cosine(one, other) for other in t] for one in u])
    p, gain, _ = specificity(states, measured)
    own = np.diag(every)
    np.testing.assert_allclose(p, (every >= own - 1e-6).sum(axis=0) / len(own))
    assert gain == pytest.approx(own.mean() - every[~np.eye(len(own), dtype=bool)].mean(), abs=1e-5)


@pytest.mark.slow
def test_the_bootstrap_of_a_cosine_agrees_with_a_loop():
    "Ends in order, reflected at the real one, 95 in 100 draws between them; none above one."
    world, identity = mixed_world(), FunctionTransformer()
    world.obs["dose"] = 1.0
    compound = pd.factorize(world.obs["compound"])[0]
    differ = np.random.default_rng(2).normal(size=(compound.max() + 1, 12)).astype(np.float32)
    world.layers["scaled"] = world.layers["scaled"] + 8 * differ[compound]
    measured = average_wells(world)
    space, pair = latent_space(identity, measured), measured.pairs[0]
    means, moa, control, common, free = by_hand(world, pair)
    pool = (measured.compounds["moa"] != "").to_numpy() & ~pair.carriers
    path = common_path(measured.means[pool], measured.control)
    found = bootstrap_cosine(space, pair, path, 4000)
    x, rng = world.layers["scaled"].astype(float), np.random.default_rng(1)
    wells = {name: x[(world.obs["compound"] == name).to_numpy()] for name in means.index}

    def drawn(label, weigh):
        names = means.index[(moa == label).to_numpy()]
        return weigh(len(names)) @ [weigh(len(wells[n])) @ wells[n] for n in names]

    def cosine(weigh):
        a, b, ab = (drawn(label, weigh) for label in (pair.a, pair.b, pair.moa))
        u, v = free @ (a - control + b - common), free @ (ab - common)
        return u @ v / np.sqrt((u @ u) * (v @ v))

    real = cosine(lambda n: np.full(n, 1 / n))
    loop = [cosine(lambda n: rng.dirichlet(np.ones(n))) for _ in range(3000)]
    quantile = {q: 2 * real - np.quantile(loop, q) for q in (0.025, 0.05, 0.95, 0.975)}
    apart = min(abs(quantile[0.05] - quantile[0.025]), abs(quantile[0.95] - quantile[0.975]))
    assert found == pytest.approx((quantile[0.975], quantile[0.025]), abs=apart / 2)
    assert found[0] < real < found[1] < 1
    world.layers["scaled"] = world.layers["scaled"] - 8 * differ[compound]
    measured = average_wells(world)
    space = latent_space(identity, measured)
    assert bootstrap_cosine(space, pair, path, 400)[1] == 1


def test_a_run_gives_each_pair_the_interval_without_its_own_truth():
    world = mixed_world()
    measured, identity = average_wells(world), FunctionTransformer()
    table, _ = arithmetic({}, world, n_permutations=9)
    for pair, row in zip(measured.pairs, table[table["model"] == "additive_input"].itertuples()):
        pool = (measured.compounds["moa"] != "").to_numpy() & ~pair.carriers
        path = common_path(measured.means[pool], measured.control)
        space = latent_space(identity, measured)
        ends = bootstrap_cosine(space, pair, path, 400)
        assert (row.cosine_low, row.cosine_high) == pytest.approx(ends)


def test_the_real_assignment_is_one_of_those_counted():
    "Predictions that are the truths: no assignment of nine does as well, and p is a tenth."
    measured = average_wells(silent_world("nothing", n_pairs=30))
    truths = measured.group_mean([p.in_ab for p in measured.pairs])
    p, _, whole = specificity(truths, measured, n=9)
    assert whole == pytest.approx(0.1, abs=1e-12) and p == pytest.approx(np.full(30, 1 / 30))
    # one prediction for all: every assignment does as well
    p, _, whole = specificity(np.tile(truths[0], (30, 1)), measured, n=9)
    assert whole == 1 and (p == 1).all()


def test_real_labels_are_among_the_relabelled_in_every_null():
    "Nine relabellings: each p is a whole number of tenths, one at least."
    found = null_p_values(
        latent_space(FunctionTransformer(), average_wells(additive_world(n_pairs=6))), 9
    )
    tenths = 10 * found[["wells", *NULLS]].to_numpy()
    np.testing.assert_allclose(tenths, tenths.round(), atol=1e-9)
    assert tenths.min() == pytest.approx(1)


def test_weights_of_control_wells_sum_to_one_whatever_is_left_out():
    "Of one plate's controls half were measured at another time than most compounds were."
    world = additive_world(n_pairs=2, n_features=4)
    control = np.flatnonzero(world.obs["is_control"])
    world.obs["time"] = 24.0
    late = control[(world.obs["plate"] == "x").to_numpy()[control]][::2]
    world.obs.iloc[late, world.obs.columns.get_loc("time")] = 48.0
    for protocol in PROTOCOLS.values():
        weights = average_wells(world, protocol).control_weights
        assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert (average_wells(world).control_weights[late] == 0).all()
    world.uns["cpvae"]["zero_control"] = True  # there are control wells, and they are not asked
    assert not average_wells(world).control_weights.any() and not average_wells(world).control.any()
