"""How real simulated profiles are, and which features come back: what plausible wrong code would
get wrong.
"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, wasserstein_distance
from sklearn.decomposition import PCA

from cpvae.measure import features, fidelity as simulation
import lsa_figures as performance
from cpvae.errors import CpvaeError
from cpvae.profiles.simulate import simulate_profiles
from cpvae.measure.distances import fidelity
from cpvae.model.transformers import reconstruct
from cpvae.measure.features import authors_channel, distance_table, feature_clusters, feature_emd
from cpvae.measure.features import feature_table, group_contrast
from cpvae.model.vae import VAE
from cpvae.preparation.scale import scale_profiles
from cpvae.preparation.split import split_profiles
from cpvae.style import COLOURS
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
    for module in (simulation, features, performance):
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
