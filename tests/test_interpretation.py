"""What latents say: traversal against algebra, nulls in worlds without an effect, and truths that
must be found again.
"""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import f_oneway, kstest, multivariate_normal, ortho_group
from sklearn.decomposition import PCA, FastICA
from sklearn.preprocessing import Normalizer

from cpvae.latents.associate import association_table, permuted_r2
from cpvae.latents.stability import match_latents, stability_table
from cpvae.latents.traverse import contribution_table, contributions, entanglement, feature_groups
from chapter_figures import plot_associations, plot_contributions
from cpvae.latents.traverse import rank_features, total_correlation
from cpvae.latents.traverse import traversal_table, traverse
from cpvae.model.vae import latent_means
from cpvae.model.codes import posterior
from cpvae.model.presets import make_vae

BLOCKS, SIZE, UNITS = 12, 15, 6
GROUPS = pd.DataFrame(
    np.repeat(np.eye(BLOCKS, dtype=bool), SIZE, axis=0), columns=[f"g{i}" for i in range(BLOCKS)]
)


class Linear:
    "A transformer whose latents are known: profiles are `codes @ loadings + shift`."

    def __init__(self, loadings, shift=0.0):
        self.loadings, self.shift = loadings, shift

    def transform(self, X):
        return (X - self.shift) @ np.linalg.pinv(self.loadings)

    def inverse_transform(self, Z):
        return Z @ self.loadings + self.shift


def correlated(rng, n=400, rho=0.6):
    """Profiles whose features are correlated inside groups, with latents of unequal strength that
    have nothing to do with the groups.
    """
    loadings = np.sqrt(rho) * np.repeat(
        rng.standard_normal((UNITS, BLOCKS)), SIZE, axis=1
    ) + np.sqrt(1 - rho) * rng.standard_normal((UNITS, BLOCKS * SIZE))
    return rng.standard_normal((n, UNITS)) * np.linspace(
        3, 1, UNITS
    ) @ loadings + 0.3 * rng.standard_normal((n, BLOCKS * SIZE))


def shuffled_labels(changes, rng, n=199):
    "The null that is not used: labels of features permuted."
    members = GROUPS.to_numpy(float) / SIZE
    drawn = np.stack(
        [np.abs(changes)[:, rng.permutation(BLOCKS * SIZE)] @ members for _ in range(n)]
    )
    return (1 + (drawn >= np.abs(changes) @ members).sum(axis=0)) / (1 + n)


@pytest.fixture(scope="module")
def collapsed():
    "A VAE with more units than the data have causes, and those data."
    rng = np.random.default_rng(0)
    x = (
        rng.standard_normal((400, 2)) @ rng.standard_normal((2, 30))
        + rng.standard_normal((400, 30))
    ).astype("float32")
    return make_vae(
        "beta", beta=4.0, n_latent=5, hidden_layer_sizes=(32,), steps=1000, random_state=0
    ).fit(x), x


def test_a_linear_model_moves_by_six_standard_deviations_of_its_codes():
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((3, 20))
    codes = rng.standard_normal((500, 3)) * [1, 2, 5] + [0, 7, -3]
    model = Linear(loadings, shift=4.0)
    found = traverse(model, model.inverse_transform(codes))
    # signed, and free of mean and shift
    np.testing.assert_allclose(found, 6 * codes.std(axis=0)[:, None] * loadings, atol=1e-8)
    direction = np.array([[0.6, 0.0, -0.8]])
    np.testing.assert_allclose(
        traverse(model, model.inverse_transform(codes), axes=direction),
        6 * (direction * codes.std(axis=0)) @ loadings,
        atol=1e-8,
    )


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_around_prior_and_posterior_agree_whether_whitened_or_not(whiten):
    x = np.random.default_rng(1).standard_normal((300, 12)) * np.arange(1, 13) + 5
    pca = PCA(4, whiten=whiten).fit(x)
    want = 6 * np.sqrt(pca.explained_variance_)[:, None] * pca.components_
    np.testing.assert_allclose(traverse(pca, around="prior"), want, rtol=1e-6)
    np.testing.assert_allclose(traverse(pca, x), want * np.sqrt(299 / 300), rtol=1e-6)


def test_a_vae_holds_other_units_at_their_mean_and_forgets_the_dead(collapsed):
    vae, x = collapsed
    codes = latent_means(vae, x)
    high, low = (
        np.tile(codes.mean(axis=0), (5, 1)) + sign * 3 * np.diag(codes.std(axis=0))
        for sign in (1, -1)
    )
    np.testing.assert_allclose(
        traverse(vae, x), vae.inverse_transform(high) - vae.inverse_transform(low), atol=1e-5
    )
    np.testing.assert_allclose(
        traverse(vae, around="prior"),
        vae.inverse_transform(3 * np.eye(5)) - vae.inverse_transform(-3 * np.eye(5)),
        atol=1e-5,
    )
    dead = ~vae.latent_units_.active.to_numpy()
    assert (
        1 <= dead.sum() <= 3
        and np.abs(traverse(vae, x))[dead].max() < 0.1 * np.abs(traverse(vae, x)).max()
    )


def test_codes_are_posterior_means_even_where_transform_samples(collapsed):
    _, x = collapsed
    vae = make_vae(
        "mmd", n_latent=3, hidden_layer_sizes=(16,), steps=60, code="sample", random_state=0
    ).fit(x)
    np.testing.assert_array_equal(latent_means(vae, x), posterior(vae, x)[0].numpy())
    assert np.abs(latent_means(vae, x) - vae.transform(x)).max() > 0.1


def test_models_that_cannot_be_traversed_are_refused():
    x = np.random.default_rng(2).standard_normal((50, 4))
    with pytest.raises(ValueError, match="no inverse_transform"):
        traverse(Normalizer().fit(x), x)
    with pytest.raises(ValueError, match="no prior"):
        traverse(FastICA(2, random_state=0).fit(x), around="prior")
    with pytest.raises(ValueError, match="unknown around 'middle'; there are posterior, prior"):
        traverse(PCA(2).fit(x), x, around="middle")


def test_a_correlation_feature_counts_in_both_channels_and_area_shape_in_none():
    var = pd.DataFrame(
        {
            "compartment": ["Cells", "Cells", "Nuclei", ""],
            "channel": ["DNA|ER", "", "DNA", ""],
            "feature_group": ["Correlation", "AreaShape", "Intensity", ""],
        }
    )
    groups = feature_groups(var)
    assert groups.columns.tolist() == ["Cells-AreaShape", "Cells-DNA", "Cells-ER", "Nuclei-DNA"]
    assert groups.astype(int).to_numpy().tolist() == [
        [0, 1, 1, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
    ]
    assert feature_groups(var, "feature_group").columns.tolist() == [
        "AreaShape",
        "Correlation",
        "Intensity",
    ]
    with pytest.raises(ValueError, match="rank_features"):
        feature_groups(var.assign(compartment="", feature_group=""))


def test_contribution_is_a_mean_of_sizes_not_a_sum_nor_a_size_of_means():
    groups = pd.DataFrame(
        {"small": [True, False, False, False], "large": [False, True, True, True]}
    )
    assert contributions(np.array([[-2.0, 3.0, -3.0, 0.0]]), groups).tolist() == [[2.0, 2.0]]


def test_p_is_uniform_where_features_are_correlated_and_shuffled_labels_are_not():
    ours, theirs = [], []
    for seed in range(60):
        x, rng = correlated(np.random.default_rng(seed)), np.random.default_rng(seed)
        pca = PCA(UNITS).fit(x)
        ours.append(contribution_table(pca, x, GROUPS, n_directions=499, seed=seed).p.to_numpy())
        theirs.append(shuffled_labels(traverse(pca, x), rng).ravel())
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)
    assert 0.005 < (ours <= 0.01).mean() < 0.018 and 0.035 < (ours <= 0.05).mean() < 0.075
    assert kstest(ours, "uniform").statistic < 0.03
    assert (theirs <= 0.01).mean() > 0.09


def test_latents_that_are_one_group_each_are_found():
    rng = np.random.default_rng(3)
    loadings = (
        np.kron(np.eye(BLOCKS), np.ones(SIZE))
        * rng.uniform(0.5, 1.5, (BLOCKS, BLOCKS * SIZE))
        * np.linspace(3, 1, BLOCKS)[:, None]
    )
    model, codes = Linear(loadings), rng.standard_normal((300, BLOCKS))
    table = contribution_table(model, model.inverse_transform(codes), GROUPS)
    own = table[table.group == [f"g{i}" for i in table.latent]]
    assert (own.q < 0.05).all() and len(own) == BLOCKS and (table.drop(own.index).q > 0.05).all()
    turned = Linear(
        ortho_group.rvs(BLOCKS, random_state=0) @ loadings / np.linspace(3, 1, BLOCKS)[:, None]
    )
    assert (
        contribution_table(turned, turned.inverse_transform(codes), GROUPS).q < 0.05
    ).mean() < 0.05


def test_a_dead_unit_has_no_p_and_does_not_enter_the_null():
    rng = np.random.default_rng(4)
    loadings = rng.standard_normal((3, BLOCKS * SIZE))
    model = Linear(loadings)
    dead = Linear(np.vstack([loadings, 1e-6 * rng.standard_normal((1, BLOCKS * SIZE))]))
    x = model.inverse_transform(rng.standard_normal((200, 3)))
    dead.transform = lambda X: np.hstack([model.transform(X), rng.standard_normal((len(X), 1))])
    table = contribution_table(dead, x, GROUPS, n_directions=199)
    assert (
        table[table.latent == 3][["p", "q"]].isna().all().all()
        and table[table.latent < 3].p.notna().all()
    )
    one = contribution_table(Linear(0 * loadings), x, GROUPS, n_directions=19)
    assert one.p.isna().all() and (one.contribution == 0).all()


def test_ranked_by_size_with_the_sign_kept():
    table = rank_features(np.array([[1.0, -5.0, 2.0]]), ["TP53", "EGFR", "MYC"], n=2)
    assert table.to_numpy().tolist() == [[0, 1, "EGFR", -5.0], [0, 2, "MYC", 2.0]]


def test_paper_form_is_scaled_in_each_latent_and_ours_marks_significant_cells():
    table = pd.DataFrame(
        {
            "latent": [0, 0, 0, 1, 1, 1],
            "group": list("abc") * 2,
            "contribution": [1.0, 2, 3, 10, 30, 20],
            "ratio": [0.5, 1, 2, 1, 2, 0.5],
            "q": [1, 1, 0.01, 1, 0.2, 1],
        }
    )
    paper, ratio = plot_contributions(table, "paper"), plot_contributions(table)
    values = [
        c.get_array()
        for ax in paper.axes
        for c in ax.collections
        if c.get_array() is not None and np.size(c.get_array()) == 6
    ]
    assert len(values) == 1 and sorted(np.ravel(values[0]).tolist()) == [0, 0, 0.5, 0.5, 1, 1]
    assert [t.get_text() for ax in ratio.axes for t in ax.texts].count("●") == 1


def test_total_correlation_of_gaussians_is_their_divergence_from_independence():
    rho = 0.8
    x = np.random.default_rng(5).multivariate_normal([0, 0], [[1, rho], [rho, 1]], 100_000)
    # mutual information, nats
    assert total_correlation(x) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.01)
    covariance = np.array([[4.0, 1.2, 0.3], [1.2, 1.0, -0.4], [0.3, -0.4, 2.0]])
    z = np.random.default_rng(6).multivariate_normal(np.ones(3), covariance, 200_000)
    joint = multivariate_normal(np.ones(3), covariance)
    apart = multivariate_normal(np.ones(3), np.diag(np.diag(covariance)))
    assert total_correlation(z) == pytest.approx(
        (joint.logpdf(z) - apart.logpdf(z)).mean(), abs=0.01
    )
    assert total_correlation(z * [1, -5, 0.1] + 3) == pytest.approx(total_correlation(z))
    with pytest.raises(ValueError, match="constant|same code"):
        total_correlation(np.ones((5, 2)))


def test_entanglement_counts_active_units_only(collapsed):
    vae, x = collapsed
    found, codes = entanglement(vae, x), latent_means(vae, x)
    active = vae.latent_units_.active.to_numpy()
    r = np.corrcoef(codes[:, active], rowvar=False)
    assert found["active"] == active.sum() < found["units"] == 5
    assert found["mean_abs_r"] == pytest.approx(np.abs(r[np.triu_indices(len(r), 1)]).mean())
    pca = entanglement(PCA(3).fit(x), x)
    assert pca["mean_abs_r"] < 1e-4 and pca["total_correlation"] < 1e-6
    assert np.isnan(entanglement(vae, x, [True, *[False] * 4])["mean_abs_r"])


def test_adjusted_r2_by_hand_and_unbiased():
    y = np.array([[0.0], [2.0], [4.0], [6.0]])
    assert permuted_r2(y, list("aabb"), n_permutations=4999)[0][0] == pytest.approx(
        1 - (4 / 2) / (20 / 3), abs=0.02
    )
    rng = np.random.default_rng(7)
    labels, noise = np.repeat(np.arange(40), 3), rng.standard_normal((120, 2000))
    # R² itself would be .33
    assert abs(permuted_r2(noise, labels, n_permutations=50)[0].mean()) < 0.01
    truth = np.repeat(rng.standard_normal((40, 2000)), 3, axis=0) + rng.standard_normal((120, 2000))
    assert permuted_r2(truth, labels, n_permutations=50)[0].mean() == pytest.approx(0.5, abs=0.03)
    strata = np.repeat(np.arange(20), 6)  # nested: of the variance inside strata
    nested = permuted_r2(truth + 9 * strata[:, None], labels, strata, 50)[0].mean()
    # two groups of three in a stratum: mean squares (3 + 5) / 5 in all, 1 of error
    assert nested == pytest.approx(1 - 1 / 1.6, abs=0.03)
    crossed = rng.integers(8, size=120)
    assert abs(permuted_r2(noise + 9 * strata[:, None], crossed, strata, 50)[0].mean()) < 0.01
    shifted = permuted_r2(
        noise + rng.standard_normal((8, 2000))[crossed] + 9 * strata[:, None], crossed, strata, 50
    )[0].mean()
    # where plates and strata are unbalanced, too little rather than too much
    assert 0.3 < shifted < 0.5
    with pytest.raises(ValueError, match="nothing to compare"):
        permuted_r2(y, list("abcd"))


def test_permutation_agrees_with_the_f_test_and_keeps_rows_in_their_stratum():
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(5), 12)
    y = rng.standard_normal((60, 6)) + np.repeat(np.arange(5), 12)[:, None] * [
        0,
        0,
        0,
        0.2,
        0.3,
        0.5,
    ]
    p = permuted_r2(y, labels, n_permutations=1999)[1]
    np.testing.assert_allclose(
        p, [f_oneway(*np.split(y[:, i], 5)).pvalue for i in range(6)], atol=0.03
    )
    stratum = np.repeat([0, 1], 30)
    # huge difference of strata, none of the groups inside
    shifted = rng.standard_normal((60, 200)) + 10 * stratum[:, None]
    p = permuted_r2(shifted, np.arange(60) // 10, stratum, n_permutations=99)[1]
    assert 0.02 < (p <= 0.05).mean() < 0.1


def screen(rng, batch=0.0, moa=0.0, dose=0.0):
    """40 compounds of 8 mechanisms at 3 doses, each condition on two of 8 plates, and 8 control
    wells a plate.
    """
    compound, replicate = np.divmod(np.arange(40 * 6), 6)
    treated = pd.DataFrame(
        {
            "compound": [f"c{i:02}" for i in compound],
            "moa": [f"m{i % 8}" for i in compound],
            "dose": 10.0 ** (replicate // 2),
            "plate": [f"p{i % 8}" for i in compound // 5 + replicate % 2],
            "is_control": False,
        }
    )
    control = pd.DataFrame(
        {
            "compound": "DMSO",
            "moa": "",
            "dose": np.nan,
            "plate": [f"p{i}" for i in np.repeat(range(8), 8)],
            "is_control": True,
        }
    )
    obs = (
        pd.concat([treated, control], ignore_index=True)
        .assign(time=24.0, well="A01")
        .set_index(pd.Index(map(str, range(304))))
    )
    code = lambda column: pd.factorize(obs[column])[0]
    levels = pd.factorize(obs["compound"] + obs["dose"].astype(str))[0]
    z = rng.standard_normal((304, 5)) + rng.standard_normal((41, 5))[code("compound")]
    for size, which in ((batch, code("plate")), (moa, code("moa")), (dose, levels)):
        z = z + size * rng.standard_normal((which.max() + 1, 5))[which]
    return z, AnnData(obs=obs, uns={"cpvae": {"zero_control": False}})


def test_association_sees_what_is_there_and_nothing_else():
    for factor, how in {
        "plate": dict(batch=3),
        "mechanism": dict(moa=3),
        "dose": dict(dose=3),
    }.items():
        table = association_table(*screen(np.random.default_rng(9), **how), n_permutations=199)
        mean = table.groupby("factor").r2.mean()
        # one time, no cell counts: no rows
        assert set(mean.index) == {"mechanism", "dose", "plate"}
        assert mean.idxmax() == factor and mean[factor] > 0.5
        assert table[table.factor == factor].q.max() < 0.05
    plate = association_table(*screen(np.random.default_rng(10), batch=1), n_permutations=19).query(
        "factor == 'plate'"
    )
    assert plate["n"].eq(240).all() and plate["k"].eq(8).all() and plate["rows"].eq("well").all()


def test_a_share_is_of_the_variance_of_all_wells_whatever_their_unit():
    z, profiles = screen(np.random.default_rng(3), moa=1)
    table, small = (association_table(x, profiles, n_permutations=19) for x in (z, z / 100))
    pd.testing.assert_frame_equal(table, small)
    treated = (~profiles.obs["is_control"]).to_numpy()
    obs = profiles.obs[treated].reset_index(drop=True)
    means = pd.DataFrame(z[treated]).groupby([obs["compound"], obs["dose"]]).mean()
    means = means.groupby("compound").mean()
    own = table[table["factor"] == "mechanism"]
    np.testing.assert_allclose(own["share"], own["r2"] * means.var() / z.var(axis=0, ddof=1))


def test_wells_of_one_compound_are_not_independent_evidence_of_mechanism():
    ours, wells = [], []
    for seed in range(25):
        z, profiles = screen(np.random.default_rng(seed))
        ours.append(association_table(z, profiles, 59).query("factor == 'mechanism'").p)
        treated = ~profiles.obs["is_control"].to_numpy()
        wells.append(permuted_r2(z[treated], profiles.obs["moa"].to_numpy()[treated], None, 59)[1])
    assert 0.02 < (np.concatenate(ours) <= 0.05).mean() < 0.09
    assert (np.concatenate(wells) <= 0.05).mean() > 0.4


def test_latents_are_matched_whatever_their_order_sign_and_size():
    rng = np.random.default_rng(11)
    a = rng.standard_normal((6, 50))
    order = rng.permutation(6)
    partner, cosine = match_latents(a, -3 * a[order])
    assert (order[partner] == np.arange(6)).all() and cosine == pytest.approx(np.ones(6))
    # both want b's first: one has to give way
    a, b = np.array([[1.0, 0.0], [0.9, 0.1]]), np.array([[1.0, 0.02], [0.1, 1.0]])
    assert sorted(match_latents(a, b)[0].tolist()) == [0, 1]
    assert match_latents(np.zeros((2, 3)), np.ones((2, 3)))[1].tolist() == [0, 0]


def test_stability_tells_the_same_axes_from_the_same_space():
    rng = np.random.default_rng(12)
    # a group of its own each, and six that all move
    loadings = np.hstack(
        [np.kron(np.eye(UNITS), np.ones(SIZE)), 0.5 * rng.standard_normal((UNITS, UNITS * SIZE))]
    )
    x = rng.standard_normal((300, UNITS)) @ loadings
    same = {
        s: Linear((rng.permutation(np.eye(UNITS)) * rng.choice([-1, 1], UNITS)) @ loadings)
        for s in range(4)
    }
    table = stability_table(same, x, GROUPS)
    assert (
        len(table) == 24
        and table.cosine.min() > 0.999
        and table.recurs.all()
        and (table.agree == 1).all()
    )
    assert (
        table.rotated.max() < 0.85
        and table.agree_by_luck.mean() == pytest.approx(1 / UNITS)
        and table.by_luck.max() == pytest.approx(1 / UNITS)
    )
    turned = stability_table(
        {s: Linear(ortho_group.rvs(UNITS, random_state=s) @ loadings) for s in range(4)}, x, GROUPS
    )
    assert abs((turned.cosine - turned.rotated).mean()) < 0.05


def test_the_table_of_a_run_is_the_traversal_of_training_profiles():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((40, 4))
    var = pd.DataFrame(
        {
            "compartment": ["Cells"] * 3 + ["Nuclei"],
            "channel": ["DNA", "ER", "", "DNA|ER"],
            "feature_group": ["Texture"] * 4,
        },
        index=list("abcd"),
    )
    profiles = AnnData(
        x,
        obs=pd.DataFrame({"split": ["train"] * 30 + ["test"] * 10}, index=map(str, range(40))),
        var=var,
        layers={"scaled": x},
    )
    pca = PCA(2).fit(x[:30])
    table = traversal_table({"pca": pca, "pca2": pca}, profiles)
    assert (
        list(table) == ["model", "latent", "feature", "compartment", "channel", "contribution"]
        and len(table) == 16
    )
    row = table.query("model == 'pca2' and latent == 1 and feature == 'd'").iloc[0]
    assert row.channel == "DNA|ER" and row.contribution == pytest.approx(
        traverse(pca, x[:30])[1, 3]
    )


def test_the_real_labels_are_one_of_the_relabellings():
    "Two groups apart: none of nine relabellings does as well. Where all do alike, p is one."
    groups = np.repeat([0, 1], 12)
    y = np.stack([10.0 * groups, np.tile([1.0, -1.0], 12)], axis=1)
    y += 1e-3 * np.random.default_rng(0).standard_normal(y.shape)
    p = permuted_r2(y, groups, n_permutations=9)[1]
    assert p[0] == pytest.approx(0.1, abs=1e-12) and p[1] > 0.1
    # one of four against three: whichever it is, its square is one and that of their mean a ninth
    r2, p = permuted_r2(np.array([[1.0], [-1], [1], [-1]]), list("abbb"), n_permutations=99)
    assert (r2[0], p[0]) == pytest.approx((0, 1))


def test_a_units_own_direction_is_one_of_the_directions():
    "A unit that moves one group alone, and another alone not at all: p is at its ends."
    loadings = np.kron(np.eye(3, BLOCKS), np.ones(SIZE))
    model, codes = Linear(loadings), np.random.default_rng(0).standard_normal((50, 3))
    with np.errstate(invalid="ignore"):  # a ratio to nothing
        table = contribution_table(model, codes @ loadings, GROUPS, n_directions=19)
    p = table.set_index(["latent", "group"])["p"]
    assert [p[k, f"g{k}"] for k in range(3)] == pytest.approx([1 / 20] * 3)
    # of groups that nothing moves every direction has as much: none
    assert (p[:, "g0"][1:] == 1).all() and (p[:, "g11"] == 1).all()


def test_a_ratio_is_to_what_a_random_direction_has():
    "Three units that move a group each: of a random direction a third, on average, is there."
    loadings = np.kron(np.eye(3), np.ones(SIZE))
    model, codes = Linear(loadings), np.random.default_rng(0).standard_normal((50, 3))
    table = contribution_table(model, codes @ loadings, GROUPS.iloc[: 3 * SIZE, :3])
    own = table[table["group"] == [f"g{k}" for k in table["latent"]]]
    np.testing.assert_allclose(own["ratio"], 3, rtol=0.02)
    np.testing.assert_allclose(own["contribution"], 6 * codes.std(axis=0))
    np.testing.assert_allclose(own["expected"], own["contribution"] / own["ratio"])
    assert (table.drop(own.index)["ratio"] == 0).all() and (table["n_features"] == SIZE).all()


def test_a_unit_counts_from_a_hundredth():
    "Of the variance of one, it is active; of the length of the largest, it is alive."
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((200, 4))
    codes = (codes - codes.mean(axis=0)) / codes.std(axis=0)
    model = Linear(np.eye(4, 8))
    sizes = np.sqrt([1, 0.5, 0.0102, 0.0098])
    assert entanglement(model, codes * sizes @ np.eye(4, 8))["active"] == 3
    # as much of each code, and loadings that are apart
    loadings = np.array([1, 0.5, 0.0102, 0.0098])[:, None] * rng.permuted(
        np.repeat([[1.0, -1.0]], BLOCKS * SIZE // 2, axis=0).ravel()[None].repeat(4, axis=0), axis=1
    )
    model.transform, model.loadings = lambda X: codes, loadings
    table = contribution_table(model, codes @ loadings, GROUPS, n_directions=9)
    assert table.groupby("latent")["p"].agg(lambda p: p.isna().all()).tolist() == [0, 0, 0, 1]


def test_cell_counts_fall_into_ten_classes():
    "A hundred compounds of a well each; the number of classes is said in the table."
    z = np.random.default_rng(0).standard_normal((100, 2))
    obs = pd.DataFrame(
        {"compound": [f"c{i}" for i in range(100)], "moa": "", "dose": 1.0, "plate": "p"}
    ).assign(time=24.0, well="", is_control=False, cell_count=np.arange(100.0))
    profiles = AnnData(obs=obs.rename(index=str), uns={"cpvae": {"zero_control": True}})
    table = association_table(z, profiles, n_permutations=9)
    assert table.loc[table["factor"] == "cell count", "k"].tolist() == [10, 10]


def test_crosses_and_dots_are_set_at_one_in_twenty():
    q = [0.049, 0.05, 0.051, 0.2]
    table = pd.DataFrame({"latent": range(4), "factor": "plate", "r2": 0.5, "q": q})
    crosses = [text.get_position()[0] for text in plot_associations({"t": table}).axes[0].texts]
    assert crosses == [1, 2, 3]  # not told from luck
    table = pd.DataFrame(
        {"latent": [0, 0, 1, 1], "group": list("abab"), "ratio": [1, 2, 3, 4.0], "q": q}
    )
    dots = plot_contributions(table).axes
    assert [t.get_text() for ax in dots for t in ax.texts].count("●") == 1
