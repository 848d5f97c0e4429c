"""How real simulated profiles are, and which features come back: what plausible wrong code would
get wrong.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, wasserstein_distance
from sklearn.decomposition import PCA

import chapter_figures
import rebuilt
import lsa_figures as performance
from cpvae.errors import CpvaeError
from cpvae.profiles.simulate import simulate_profiles
from cpvae.measure.distances import fidelity, precision_recall
from cpvae.model.transformers import reconstruct
from rebuilt import authors_channel, distance_table, feature_clusters, feature_emd
from rebuilt import feature_table, group_contrast
from cpvae.model.vae import VAE
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles
from cpvae.style import COLOURS, display_name
from cpvae.measure.fidelity import code_density, direction_spread, fidelity_tables, simulate
from cpvae.measure.fidelity import simulations, two_sample_test
from cpvae.model.plan import shuffle_columns


@pytest.fixture(scope="module")
def profiles():
    "Scaled profiles of a small world, split by compound."
    return scale_profiles(
        split_profiles(simulate_profiles(n_features=40, n_maps=2), valid=0.2, test=0.3)
    )


def part(profiles, name):
    return np.asarray(profiles.layers["scaled"])[(profiles.obs["split"] == name).to_numpy()]


@pytest.fixture(scope="module")
def pca(profiles):
    return PCA(3).fit(part(profiles, "train"))


@pytest.fixture(scope="module")
def vae(profiles):
    return VAE(n_latent=3, hidden_layer_sizes=(20,), steps=100, random_state=0).fit(
        part(profiles, "train"), X_valid=part(profiles, "valid")
    )


def test_same_colours_as_the_report():
    for module in (chapter_figures, rebuilt, performance):
        assert module.COLOURS is COLOURS


def test_validation_codes_choose_the_density():
    rng = np.random.default_rng(0)
    two = lambda n: rng.normal(size=(n, 3)) + 8 * (rng.random((n, 1)) < 0.5)
    assert code_density(two(400), two(100)).n_components == 2
    # not the training codes: these lie between
    assert code_density(two(400), rng.normal(size=(100, 3)) + 4).n_components == 1
    # 11 codes of 3 units are too few for two Gaussians
    assert code_density(two(11), two(11)).n_components == 1
    with pytest.raises(CpvaeError, match="valid"):
        code_density(two(40), two(0))


def test_the_prior_is_each_models_own(vae, pca):
    np.testing.assert_allclose(simulate(vae, 7, seed=3), vae.sample(7, seed=3))
    z = np.random.default_rng(3).standard_normal((7, 3))
    np.testing.assert_allclose(
        simulate(pca, 7, seed=3),
        pca.mean_ + (z * np.sqrt(pca.explained_variance_)) @ pca.components_,
        rtol=1e-4,
        atol=1e-5,
    )


def test_draws_from_a_density_follow_weights_and_covariances(pca):
    rng = np.random.default_rng(1)
    mix = np.array([[2.0, 0, 0], [1.5, 0.3, 0], [0, 1, 0.1]])
    codes = np.r_[rng.normal(size=(900, 3)) @ mix, 30 + 0.5 * rng.normal(size=(300, 3))]
    density = code_density(codes, codes, sizes=(2,))
    drawn = pca.transform(simulate(pca, 20_000, density))
    far = drawn[:, 0] > 15
    assert far.mean() == pytest.approx(0.25, abs=0.015)
    np.testing.assert_allclose(np.cov(drawn[~far].T), np.cov(codes[:900].T), atol=0.25)
    # widened by a ten-thousandth of the codes' variance
    np.testing.assert_allclose(
        drawn[far].var(axis=0), 0.25 + 1e-4 * codes.var(axis=0).mean(), atol=0.05
    )


def test_residuals_are_those_of_validation_profiles(profiles, pca):
    train, valid = part(profiles, "train"), part(profiles, "valid")
    made, _ = simulations(pca, train, valid, 50)
    residual = made["density_noise"] - made["density"]
    own = valid - reconstruct(pca, valid)
    nearest = np.abs(residual[:, None] - own[None]).max(axis=2).min(axis=1)
    # each is one validation row's, and they differ
    assert nearest.max() < 1e-4 and len({tuple(r.round(3)) for r in residual}) > 20


def test_spread_is_measured_against_test_profiles_along_training_directions():
    rng = np.random.default_rng(0)
    train, real = (rng.normal(size=(3000, 4)) * [3, 2, 1, 1] for _ in range(2))
    other = rng.normal(size=(3000, 4)) * [3, 1, 1, 8]  # wide where the training profiles are not
    table = direction_spread(train, real, other, 2)
    assert table.direction.tolist() == [0, 1, 2]
    np.testing.assert_allclose(table.ratio, [(9 + 1 + 1 + 64) / 15, 1, 0.25], rtol=0.12)
    # half as wide is a quarter of the variance, wherever it lies
    np.testing.assert_allclose(
        direction_spread(train, real, 10 + real / 2, 4).ratio, 0.25, rtol=1e-5
    )


def test_classifier_does_not_recognise_compounds():
    rng = np.random.default_rng(0)
    compound = np.repeat(np.arange(30), 8)
    wells = rng.normal(size=(30, 10))[compound] + 0.2 * rng.normal(size=(240, 10))
    first = compound < 15
    by_compound = two_sample_test(wells[first], wells[~first], compound[first], compound[~first])
    leaky = two_sample_test(wells[first], wells[~first], np.arange(120))  # each well for itself
    assert leaky["auc"] > 0.95 and by_compound["low"] < 0.5 < by_compound["high"]
    assert by_compound["high"] - by_compound["low"] > 0.1  # thirty compounds, not 240 wells
    moved = two_sample_test(wells[first], wells[first] + 3, compound[first], compound[first])
    assert moved["low"] > 0.95 and moved["accuracy"] > 0.9
    # the same name on both sides is one compound
    copies = two_sample_test(wells, wells, compound, compound)
    assert copies["auc"] == pytest.approx(0.5, abs=0.02)
    assert np.isnan(
        two_sample_test(wells[compound < 4], wells, compound[compound < 4], compound)["auc"]
    )


@pytest.mark.slow
def test_tables_compare_every_cloud_with_the_same_test_profiles(profiles, pca):
    found, spread = fidelity_tables({"pca": pca}, profiles, most=60)
    found = found.set_index(["model", "draws"])
    assert list(found.index) == [
        ("real", "train"),
        *(("pca", d) for d in ("prior", "density", "density_noise", "reconstructed")),
    ]
    assert (found.n == 60).all() and found.components["real", "train"] == 0
    rng = np.random.default_rng(0)
    test = part(profiles, "test")[rng.permutation((profiles.obs["split"] == "test").sum())[:60]]
    expected = fidelity(test, reconstruct(pca, test), 0)
    assert {k: found[k]["pca", "reconstructed"] for k in expected} == pytest.approx(expected)
    expected = fidelity(test, simulate(pca, 60), 0)
    assert {k: found[k]["pca", "prior"] for k in expected} == pytest.approx(expected)
    assert spread.groupby(["model", "draws"]).size().nunique() == 1


def test_a_feature_is_scored_by_itself():
    x, x_hat = np.array([[0.0, 5, 1], [2, 5, 3]]), np.array([[0.0, 5, 3], [1, 6, 3]])
    var = pd.DataFrame(
        {"compartment": ["Cells"] * 3, "channel": ["DNA"] * 3}, index=["a", "b", "c"]
    )
    table = feature_table(x, x_hat, var)
    assert (
        table.variance.tolist() == [1, 0, 1]
        and table.mse.tolist() == [0.5, 0.5, 2]
        and table.absolute.tolist() == [0.5, 0.5, 1]
    )
    assert table.fvu[0] == 0.5 and np.isnan(table.fvu[1]) and table.fvu[2] == 2
    assert table.feature.tolist() == ["a", "b", "c"]


def test_contrast_by_hand_and_by_scipy():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 12))
    x_hat, a = x * np.linspace(0.1, 0.9, 12), np.arange(12) < 5
    who, clusters = np.repeat(np.arange(10), 6), np.arange(12) // 2
    table = group_contrast(x, x_hat, a, ~a, who, clusters, n_draws=200).set_index("measure")
    fvu = np.square(x - x_hat).mean(axis=0) / x.var(axis=0)
    absolute = np.abs(x - x_hat).mean(axis=0)
    for name, values in (("fvu", fvu), ("absolute", absolute)):
        test = ttest_ind(values[a], values[~a])
        row = table.loc[name]
        assert row.difference == pytest.approx(values[a].mean() - values[~a].mean())
        assert (row.t, row.p_half) == pytest.approx((test.statistic, test.pvalue / 2))
        # here a is worse: half of the two-sided p is not the one-sided one
        assert row.p_less == pytest.approx(1 - test.pvalue / 2)
        assert row.low_both < row.low < row.difference < row.high < row.high_both
    assert (
        table.n_a.tolist() == [5, 5]
        and table.n_b.tolist() == [7, 7]
        and table.clusters.tolist() == [6, 6]
        and table.compounds.tolist() == [10, 10]
    )


def test_more_wells_of_a_compound_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    state, lost = rng.normal(size=(12, 20)), rng.uniform(0, 1, size=(12, 20))
    a, clusters = np.arange(20) < 10, np.arange(20)
    width = {}
    for wells in (1, 10):
        who = np.repeat(np.arange(12), wells)
        row = (
            group_contrast(state[who], (state * lost)[who], a, ~a, who, clusters, n_draws=400)
            .set_index("measure")
            .loc["fvu"]
        )
        width[wells] = row.high - row.low
    assert width[10] == pytest.approx(width[1], rel=0.01)


def test_correlated_features_are_one_cluster_whatever_their_sign():
    rng = np.random.default_rng(0)
    x = np.c_[
        3 * np.repeat(rng.normal(size=(300, 3)), 4, axis=1) * np.tile([1, -1, 2, -2], 3)
        + rng.normal(size=(300, 12)),
        np.ones(300),
    ]
    found = feature_clusters(x)
    # the constant one stands alone
    assert len(set(found)) == 4 and [len(set(found[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]


def test_channels_as_the_authors_read_them():
    assert (
        authors_channel("Cells_Correlation_K_RNA_DNA") == "RNA"
        and authors_channel("Nuclei_Intensity_Mean_ER") == "ER"
    )
    assert authors_channel("Cells_Neighbors_DNA") == "" and authors_channel("TP53") == ""


def test_distance_of_features_and_the_table(profiles, pca):
    test = part(profiles, "test")
    fitted = {
        ("pca", False): pca,
        ("pca", True): PCA(3).fit(shuffle_columns(part(profiles, "train"), 0)),
    }
    table = distance_table(fitted, profiles).set_index(["model", "shuffled"])
    assert (table.split == "test").all() and list(table.index) == [
        *fitted,
        ("mean", False),
        ("mean", True),
    ]
    x_hat = reconstruct(pca, test)
    assert table.feature_emd["pca", False] == pytest.approx(
        np.mean([wasserstein_distance(a, b) for a, b in zip(test.T, x_hat.T)]), rel=1e-5
    )
    dealt = shuffle_columns(test, 0)
    assert table.feature_emd["pca", True] == pytest.approx(
        feature_emd(dealt, reconstruct(fitted["pca", True], dealt))
    )
    mean = part(profiles, "train").mean(axis=0)
    assert table.feature_emd["mean", False] == pytest.approx(np.abs(test - mean).mean(), rel=1e-5)
    assert table.sliced_wasserstein["pca", False] < table.sliced_wasserstein["mean", False]


def test_every_cloud_is_drawn_where_it_lies_on_the_map():
    "Each kind of each model has coordinates of its own, and no panel shows another's."
    place = {("data", "original"): 0.0}
    place |= {("pca", "reconstructed"): 1.0, ("pca", "simulated"): 2.0}
    place |= {("beta", "reconstructed"): 3.0, ("beta", "simulated"): 4.0}
    table = pd.DataFrame(
        [
            {"model": m, "kind": k, "umap1": at + i / 10, "umap2": -10 * at + i}
            for (m, k), at in place.items()
            for i in range(3)
        ]
    )
    found = {}
    for ax in chapter_figures.plot_clouds(table).axes:
        if ax.collections:
            points = [np.asarray(c.get_offsets()) for c in ax.collections]
            found[ax.get_title()] = points[-1]
            np.testing.assert_array_equal(points[0], [[0, 0], [0.1, 1], [0.2, 2]])
    own = lambda at: [[at + i / 10, -10 * at + i] for i in range(3)]
    expected = {"original test profiles, 3": own(0.0)} | {
        f"{display_name(m)}, {kind}": own(at) for (m, kind), at in place.items() if m != "data"
    }
    assert found.keys() == expected.keys()
    for title, points in expected.items():
        np.testing.assert_allclose(found[title], points)


def test_draws_are_neither_reconstructions_nor_each_other(profiles, pca):
    "Clouds of one model: decoded codes of the prior, of the density, and that with residuals."
    train, valid = part(profiles, "train"), part(profiles, "valid")
    made, _ = simulations(pca, train, valid, len(valid), seed=2)
    np.testing.assert_array_equal(made["prior"], simulate(pca, len(valid), seed=2))
    # decoded: all that a plane of three dimensions holds, and no residual
    for name, holds in (("prior", True), ("density", True), ("density_noise", False)):
        assert np.allclose(reconstruct(pca, made[name]), made[name], atol=1e-3) == holds
    rebuilt = reconstruct(pca, valid)
    for cloud in made.values():
        assert np.abs(cloud[:, None] - rebuilt[None]).max(axis=2).min() > 1e-3


def test_the_interval_of_a_contrast_is_binomial():
    """Two features are rebuilt but for half of a hundred compounds, others for all: 40 to 60 of 100
    compounds in 95 of 100 draws. And of a hundred features, each a cluster, half are rebuilt.
    """
    rng = np.random.default_rng(0)
    x, half = rng.normal(size=(100, 4)), (np.arange(100) % 2)[:, None]
    lost = half * [[1.01, 0.99, 0, 0]]
    a, who = np.array([True, True, False, False]), np.arange(100)
    table = group_contrast(x, x + lost, a, ~a, who, np.arange(4), n_draws=20_000)
    row = table.set_index("measure").loc["absolute"]
    assert (row.difference, row.low, row.high) == pytest.approx((0.5, 0.4, 0.6), abs=1e-6)
    x, a = rng.normal(size=(3, 101)), np.arange(101) > 0
    lost = a * (np.arange(101) % 2)
    table = group_contrast(x, x + lost, a, ~a, np.arange(3), np.arange(101), n_draws=20_000)
    row = table.set_index("measure").loc["absolute"]
    assert (row.low, row.high) == pytest.approx((0.5, 0.5))  # the same for every compound
    assert (row.low_both, row.high_both) == pytest.approx((0.4, 0.6), abs=0.008)


def test_the_interval_of_a_classifier_leaves_out_one_draw_in_forty_at_either_end():
    "One draw is both ends; of two, the first the same, the ends leave out 1/40 of their distance."
    x = np.random.default_rng(0).normal(size=(60, 3))
    ask = lambda n: two_sample_test(x, x + 1, np.arange(60), n_draws=n)
    one, two = ask(1), ask(2)
    assert one["low"] == one["high"]
    apart = abs(two["low"] + two["high"] - 2 * one["low"])  # the mean of both ends is that of both
    assert two["high"] - two["low"] == pytest.approx(0.95 * apart) and apart > 0


def test_five_compounds_on_either_side_are_the_least_a_classifier_is_asked_of():
    x = np.random.default_rng(0).normal(size=(20, 3))
    five, four = np.arange(20) % 5, np.arange(20) % 4
    assert np.isfinite(two_sample_test(x, x + 9, five, five + 10)["auc"])
    assert np.isnan(two_sample_test(x, x + 9, four, five + 10)["auc"])


def test_features_that_correlate_by_half_are_a_cluster():
    "Exact correlations, from columns without any: .52 joins, .48 does not."
    base = np.linalg.qr(np.c_[np.ones(50), np.random.default_rng(0).normal(size=(50, 4))])[0][:, 1:]
    mix = lambda r, i, j: r * base[:, i] + np.sqrt(1 - r**2) * base[:, j]
    found = feature_clusters(np.c_[base[:, 0], mix(0.52, 0, 1), base[:, 2], mix(0.48, 2, 3)])
    assert found[0] == found[1] and found[2] != found[3] and found.min() == 0


def test_a_ball_reaches_to_the_fifth_other():
    "Profiles on a line, 0 to 11: a simulated one far out reaches the last, at the fifth alone."
    real, out = np.arange(12.0)[:, None], np.arange(20.0, 32)[:, None]
    found = precision_recall(real, out - 4)  # from 16: five beyond 11
    assert found["precision"] == pytest.approx(1 / 12) and found["density"] == pytest.approx(1 / 60)
    assert precision_recall(real, out - 3.9)["precision"] == 0


def test_twenty_directions_are_looked_along(profiles):
    x = part(profiles, "train")
    assert direction_spread(x, x, x).direction.max() == 20
    assert direction_spread(x[:, :7], x[:, :7], x[:, :7]).direction.max() == 7


def test_codes_must_be_twice_as_many_as_the_numbers_of_a_mixture():
    "Two clouds in three dimensions: twelve codes may be two Gaussians, eleven may not."
    rng = np.random.default_rng(0)
    two = lambda n: 0.1 * rng.normal(size=(n, 3)) + 8 * (np.arange(n) % 2)[:, None]
    assert code_density(two(12), two(50), sizes=(1, 2)).n_components == 2
    assert code_density(two(11), two(50), sizes=(1, 2)).n_components == 1


def test_marks_are_means_over_seeds_between_their_ends_beside_the_band_of_real_profiles():
    seeds = [("real", "train", 0.5, 0.6)]
    seeds += [("pca", "prior", 0.9, 1.0), ("pca", "density", 0.7, 0.8), ("beta", "prior", 0.8, 0.8)]
    table = pd.DataFrame(
        [dict(model=m, draws=d, auc=v, recall=v / 2) for m, d, *both in seeds for v in both]
    )
    figure = chapter_figures.plot_fidelity(table, ("auc", "recall"))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [display_name("pca"), display_name("beta")]
    for ax, unit in zip(figure.axes, (1, 0.5)):
        (band,) = ax.patches
        np.testing.assert_allclose(
            band.get_extents().transformed(ax.transData.inverted()).x0, 0.5 * unit
        )
        assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([0.55 * unit])
        marks = [np.ravel(c.get_offsets()) for c in ax.collections[1::2]]
        found = {tuple(np.round(mark, 3)) for mark in marks if np.isfinite(mark).all()}
        # prior and density of the first model, prior of the second, each on a line of its own
        heights = {-0.285, -0.095, 0.715}
        assert {y for _, y in found} == heights
        assert {x for x, _ in found} == {round(x * unit, 3) for x in (0.95, 0.75, 0.8)}
        bars = [c.get_segments()[0][:, 0] for c in ax.collections[0:4:2]]
        np.testing.assert_allclose(bars, [[0.9 * unit, 1.0 * unit], [0.7 * unit, 0.8 * unit]])


def test_spread_is_drawn_along_directions_and_once_in_all():
    table = pd.DataFrame(
        [
            dict(model=m, draws=d, direction=k, ratio=at + k / 10)
            for m, d, at in [("real", "train", 1), ("pca", "prior", 2), ("pca", "density", 3)]
            for k in range(3)
        ]
    )
    for ax, at in zip(chapter_figures.plot_spread(table, ("prior", "density")).axes, (2, 3)):
        lines = [
            line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_label()[0] != "_"
        ]
        np.testing.assert_allclose(
            [line.get_ydata() for line in lines], [[1.1, 1.2], [at + 0.1, at + 0.2]]
        )
        np.testing.assert_allclose([line.get_xdata() for line in lines], [[1, 2]] * 2)
        points = [c.get_offsets()[0] for c in ax.collections]
        np.testing.assert_allclose(points, [[-2, 1], [-2, at]])
