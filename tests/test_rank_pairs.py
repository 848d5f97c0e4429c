"""Unmeasured pairs in worlds whose interactions are known, by hand, in any order of rows and names,
and from tables that hold nothing to rank.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from running import cli
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer

from cpvae.errors import CpvaeError
from cpvae.lsa.learned import BORROWED_C, PREDICTORS, CalibratedSum
from cpvae.lsa.nulls import permutation_tests
from cpvae.lsa.space import average_wells, latent_space
from cpvae.profiles.read import profiles_from_table
from cpvae.run.ask import Run
from cpvae.lsa.choice import known_pairs
from cpvae.screening.rank import BORROWED_CURVE, PairRanking, learning_curve
from cpvae.screening.rank import mean_ranks, rank_pairs, ranking_in_words

GROUPS = ("strength", "non_additivity", "novelty")


def scaled(effects, label="|"):
    """Scaled profiles, one well each; 'A+B' are combinations of treatments if joined so, annotated
    compounds if `label` is given.
    """
    names = [*effects, *["DMSO"] * 4]
    x = np.array([*effects.values()])
    x = np.vstack([x, np.zeros((4, x.shape[1]))])
    obs = pd.DataFrame({"Metadata_compound": names, "Metadata_moa": [*effects, *[""] * 4]})
    obs["Metadata_moa"] = obs["Metadata_moa"].str.replace("+", "|")
    if label == "annotated":
        own = [f"compound {i}" for i in range(len(obs))]
        obs["Metadata_compound"] = np.where(
            obs["Metadata_moa"].str.contains("|", regex=False), own, names
        )
    profiles = profiles_from_table(obs.join(pd.DataFrame(x).add_prefix("f")), "t")
    profiles.layers["scaled"] = np.asarray(profiles.X, float)
    return profiles


def space_of(effects, label="|", model=None):
    profiles = scaled(effects, label)
    return latent_space(model or FunctionTransformer(), average_wells(profiles))


def world(seed=0, n=12, G=30, c=0.7, odd=2, noise=0.02):
    """All pairs of n treatments of different strengths: c (A + B), and with the first `odd` of them
    something else, too.
    """
    rng = np.random.default_rng(seed)
    names = [f"t{i:02d}" for i in range(n)]
    alone = {t: rng.normal(size=G) * rng.uniform(0.5, 2) for t in names}
    extra = 8 * rng.normal(size=G) / np.sqrt(G)
    pairs = {}
    for a, b in combinations(names, 2):
        more = (a < f"t{odd:02d}") * extra  # and b, which is greater
        pairs[a, b] = c * (alone[a] + alone[b]) + more + noise * rng.normal(size=G)
    return alone, pairs


def some_of(pairs, share, seed=0):
    "A share of the pairs, as names 'A+B', and the others as pairs."
    order = np.random.default_rng(seed).permutation(len(pairs))
    keys = [[*pairs][i] for i in order]
    n = round(share * len(keys))
    return {"+".join(k): pairs[k] for k in keys[:n]}, keys[n:]


@pytest.mark.parametrize("seed", range(3))
def test_a_known_world_is_ranked_rightly(seed):
    alone, pairs = world(seed)
    known, hidden = some_of(pairs, 0.5, seed)
    told = rank_pairs(space_of(alone | known)).set_index(["a", "b"])
    assert set(told.index) == set(hidden)
    true = pd.Series({k: np.linalg.norm(pairs[k]) for k in hidden})[told.index]
    sums = rank_pairs(space_of(alone | known), CalibratedSum()).set_index(["a", "b"])
    agrees = lambda table: spearmanr(table["strength"][true.index], true)[0]
    assert agrees(told) > max(0.85, agrees(sums) + 0.1)
    # pairs that do something else are known from the others, and by far
    odd = np.array([a < "t02" for a, _ in told.index])
    assert told["non_additivity"][odd].min() > 2 * told["non_additivity"][~odd].max()
    first = np.array([a < "t02" for a, _ in told.index[: odd.sum()]])
    assert first.mean() > 0.7


def test_in_a_world_of_sums_nothing_is_no_sum():
    alone, pairs = world(odd=0, noise=0)
    known, hidden = some_of(pairs, 0.5)
    space = space_of(alone | known)
    assert len(known_pairs(space)) == 33
    told = rank_pairs(space)
    # nothing is left to learn, so that the sum stands
    assert told["non_additivity"].isna().all() or told["non_additivity"].max() < 1e-3
    exact = [0.7 * np.linalg.norm(alone[a] + alone[b]) for a, b in zip(told["a"], told["b"])]
    assert np.allclose(told["strength"], exact, rtol=1e-3)
    # novelty, with a loop and without the project's cosines
    real = [*alone.values(), *known.values()]
    for row in told.iloc[:5].itertuples():
        state = 0.7 * (alone[row.a] + alone[row.b])
        cosines = [state @ e / np.linalg.norm(state) / np.linalg.norm(e) for e in real]
        assert row.novelty == pytest.approx(1 - max(cosines), abs=2e-3)
        assert row.nearest == [*alone, *(k.replace("+", "|") for k in known)][np.argmax(cosines)]


def test_no_measured_pair_appears_whatever_order_names_and_rows_have():
    alone, pairs = world(n=8)
    known, hidden = some_of(pairs, 0.8)
    first = rank_pairs(space_of(alone | known))
    measured = {frozenset(name.split("+")) for name in known}
    assert not measured & {frozenset(two) for two in zip(first["a"], first["b"])}
    assert len(first) == len(hidden) == 28 - len(known)
    turned = {"+".join(reversed(name.split("+"))): x for name, x in known.items()}
    everything = [*(alone | turned).items()]
    mixed = dict(everything[i] for i in np.random.default_rng(5).permutation(len(everything)))
    again = rank_pairs(space_of(mixed))
    numbers = ["mean_rank", *GROUPS, "p_floor"]
    assert first[["a", "b"]].equals(again[["a", "b"]])
    assert np.allclose(first[numbers], again[numbers], rtol=1e-5)
    curves = [learning_curve(space_of(table), n_draws=2) for table in (alone | known, mixed)]
    assert np.allclose(*(c[["skill", "low", "high"]] for c in curves), atol=1e-4)


def test_annotated_pairs_are_not_learned_from():
    alone, pairs = world()
    known, _ = some_of(pairs, 0.5)
    tripled = {name: 3 * x for name, x in known.items()}
    space = space_of(alone | tripled, "annotated")
    assert len(space.pairs) == 33 and known_pairs(space) == ()
    told = rank_pairs(space)
    assert len(told) == 33 and told["non_additivity"].isna().all()
    exact = [BORROWED_C * np.linalg.norm(alone[a] + alone[b]) for a, b in zip(told.a, told.b)]
    assert np.allclose(told["strength"], exact, rtol=1e-5)
    assert learning_curve(space)["borrowed"].all()
    # who wants it otherwise says so
    asked = rank_pairs(space, known=space.pairs)
    assert asked["strength"].mean() > 2 * told["strength"].mean()


@pytest.mark.parametrize("n", [3, 5, 6, 7, 12, 25])
def test_the_least_p_is_that_of_the_test_once_the_pair_is_measured(n):
    rng = np.random.default_rng(n)
    alone = {f"t{i:02d}": rng.normal(size=9) for i in range(n)}
    told = rank_pairs(space_of(alone)).set_index(["a", "b"])["p_floor"]
    pair = told.index[len(told) // 2]
    space = space_of(alone | {"+".join(pair): rng.normal(size=9)})
    tested = permutation_tests({"input": space}, 9999, nulls=("matched",))[0]
    assert tested["p_floor"].iloc[0] == pytest.approx(max(told[pair], 1e-4))
    assert (told[pair] > 0.05) == (n < 7)


def test_what_has_to_be_repeated_is_enough_and_no_more_than_that():
    alone = {name: np.eye(4)[i] * (1 + i) for i, name in enumerate("ABCD")}
    told = rank_pairs(space_of(alone)).set_index(["a", "b"]).loc[("A", "B")]
    name, more = told["repeat"].removesuffix(" more").split(": ")

    def floor(extra):
        table = scaled(alone | {f"{name}-{i}": alone[name] for i in range(extra)})
        moa = table.obs["moa"].str.replace(r"-\d", "", regex=True)
        table.obs["moa"] = moa
        space = latent_space(FunctionTransformer(), average_wells(table))
        return rank_pairs(space).set_index(["a", "b"]).loc[("A", "B"), "p_floor"]

    assert floor(int(more)) <= 0.05 < floor(int(more) - 1)


def test_the_curve_of_sums_is_flat_and_that_of_noise_is_nothing():
    alone, pairs = world(odd=0)
    known, _ = some_of(pairs, 0.9)
    flat = learning_curve(space_of(alone | known), n_draws=5)
    assert (flat["skill"] > 0.99).all() and not flat["borrowed"].any()
    assert list(flat["n_pairs"].unique()) == [5, 10, 20, 40]
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(size=30) for name in known}
    nothing = learning_curve(space_of(alone | noise), n_draws=5)
    assert nothing["skill"].abs().max() < 0.25 and (nothing["low"] <= nothing["high"]).all()
    assert flat.equals(learning_curve(space_of(alone | known), n_draws=5))  # the same seed


def test_the_curve_is_one_less_the_share_of_error():
    alone, pairs = world()
    known, _ = some_of(pairs, 0.5)
    space = space_of(alone | known)
    curve = learning_curve(space, sizes=(7,), n_draws=1, seed=3).set_index("predictor")
    order = np.random.default_rng(3).permutation(33)
    test, learned = order[:8], order[8:15]
    names = {frozenset(k.split("+")): x for k, x in known.items()}
    effect = lambda i: names[frozenset((space.pairs[i].a, space.pairs[i].b))]
    plain = lambda i: alone[space.pairs[i].a] + alone[space.pairs[i].b]
    s, y = (np.concatenate([f(i) for i in learned]) for f in (plain, effect))
    c = (s @ y) / (s @ s)
    s, y = (np.array([f(i) for i in test]) for f in (plain, effect))
    s, y = c * (s - s.mean(0)), y - y.mean(0)
    exact = 1 - ((s - y) ** 2).sum() / (y**2).sum()
    assert curve.loc["calibrated_sum", "skill"] == pytest.approx(exact, abs=1e-5)
    assert curve.loc["process", "n_pairs"] == 7


def test_predictors_and_models_can_be_plugged_in():
    alone, pairs = world()
    known, _ = some_of(pairs, 0.5)
    space = space_of(alone | known)
    default, named = rank_pairs(space), rank_pairs(space, PREDICTORS["process"]())
    assert default.equals(named)
    sums = rank_pairs(space, CalibratedSum())
    assert sums["non_additivity"].isna().all() and sums["strength"].notna().all()
    model = PCA(5).fit(scaled(alone | known).X)
    assert len(rank_pairs(space_of(alone | known, model=model))) == 33


class Broken(CalibratedSum):
    def predict(self, pairs):
        return super().predict(pairs) * np.nan


class Short(CalibratedSum):
    def predict(self, pairs):
        return super().predict(pairs)[:, 1:]


@pytest.mark.parametrize("wrong", [Broken, Short])
def test_predictions_that_are_none_are_refused(wrong):
    alone, _ = world()
    with pytest.raises(CpvaeError, match=wrong.__name__):
        rank_pairs(space_of(alone), wrong())


@pytest.mark.parametrize(
    "effects",
    [
        {"A+B": [1.0, 2], "A+C": [2.0, 1]},
        {"A": [1.0, 0], "A+B": [1.0, 2]},
        {"A+B+C": [1.0, 2], "A": [2.0, 1]},
    ],
)
def test_fewer_than_two_single_mechanisms_are_told_in_a_line(effects):
    with pytest.raises(CpvaeError, match="two mechanisms") as caught:
        rank_pairs(space_of(effects))
    assert "\n" not in str(caught.value)


def test_hostile_tables_are_ranked_without_a_number_made_up():
    alone, _ = world(n=5)
    alone["nothing"] = np.zeros(30)
    alone["nothing either"] = np.zeros(30)
    alone["t00+t01+t02"] = alone["t00"] + alone["t01"]  # three are no measured pair
    told = rank_pairs(space_of(alone))
    assert len(told) == 7 * 6 // 2 and {"t00", "t01"} in [{a, b} for a, b in zip(told.a, told.b)]
    none = told.set_index(["a", "b"]).loc[("nothing", "nothing either")]
    assert none["strength"] == 0 and np.isnan(none["novelty"])
    assert told["strength"].notna().all() and np.isfinite(told["p_floor"]).all()
    assert told.iloc[-1][["a", "b"]].tolist() == ["nothing", "nothing either"]
    everything = {"A": [1.0, 0], "B": [0, 1.0], "A+B": [1.0, 1]}
    assert len(rank_pairs(space_of(everything))) == 0


def test_the_mean_rank_is_that_of_the_columns_that_say_something():
    columns = pd.DataFrame({"strength": [1.0, 2, 3, 4], "novelty": [4.0, 3, 1, 2]})
    columns["non_additivity"] = np.nan
    assert np.allclose(mean_ranks(columns), [(1 + 4) / 8, (2 + 3) / 8, (3 + 1) / 8, (4 + 2) / 8])


def test_pairs_in_words():
    alone, pairs = world()
    known, _ = some_of(pairs, 0.5)
    space = space_of(alone | known)
    found = PairRanking(rank_pairs(space), learning_curve(space, n_draws=2), "process", 33, 0, 0.7)
    text = "\n".join(ranking_in_words(found, 3))
    assert "33 measured pairs" in text and "borrowed" not in text and "repeat" not in text
    first = found.pairs.iloc[0]
    assert f"First: {first.a} + {first.b}" in text
    above = 100 * np.mean([first.strength > s for s in found.pairs.strength])
    assert f"from the control (more than {above:.0f} % of these pairs)" in text
    few = space_of({k: alone[k] for k in ("t00", "t01", "t02")})
    found = PairRanking(rank_pairs(few), learning_curve(few), "calibrated_sum", 0, 5, BORROWED_C)
    text = "\n".join(ranking_in_words(found, 3))
    assert "5 annotated pairs" in text and "borrowed" in text and "cannot reach p < 0.05" in text
    assert f"{100 * BORROWED_CURVE[0][2]:.0f} %" in text
    nothing = PairRanking(found.pairs[:0], found.curve, "process", 3, 0, 0.7)
    assert ranking_in_words(nothing) == ["All pairs of single mechanisms are measured."]


@pytest.mark.slow
def test_a_run_says_what_to_measure_next(tmp_path):
    alone, pairs = world()
    known, hidden = some_of(pairs, 0.4)
    names = [*alone, *known, *["DMSO"] * 4]
    x = np.vstack([*alone.values(), *known.values(), np.zeros((4, 30))])
    table = pd.DataFrame({"Metadata_compound": names}).join(pd.DataFrame(x).add_prefix("f"))
    table.to_csv(tmp_path / "drugs.csv", index=False)
    run, out = tmp_path / "run", tmp_path / "pairs.csv"
    asked = ["--models", "pca", "--group-by", "treatment", "--permutations", 100, "--jobs", 1]
    assert cli("run", tmp_path / "drugs.csv", *asked, "--out", run, "--quiet").exit_code == 0
    done = cli("rank-pairs", run, "--top", 3, "--out", out, "--quiet")
    assert done.exit_code == 0 and done.stderr == ""
    told = pd.read_csv(out, keep_default_na=False)
    assert {frozenset(two) for two in zip(told.a, told.b)} == {frozenset(two) for two in hidden}
    assert f"{told.a[0]} + {told.b[0]}" in done.stdout and str(out) in done.stdout
    assert "26 measured pairs" in done.stdout
    assert cli("rank-pairs", run, "--out", out, "--quiet").exit_code == 0  # its own file
    (tmp_path / "mine.csv").write_text("a,b,mine\n")
    refused = cli("rank-pairs", run, "--out", tmp_path / "mine.csv")
    assert (refused.exit_code, refused.stdout) == (2, "") and "mine.csv" in refused.stderr
    assert len(Run(run).rank_pairs("regressed").pairs) == len(hidden)
