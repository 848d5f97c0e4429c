"""Performance drawn and tested from lsa.csv: what plausible wrong code would get wrong."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kruskal, spearmanr
from scipy.stats import norm as normal

from cpvae.errors import CpvaeError
from invented import example_run
from lsa_figures import class_test, compare_left_out, correlation, join_pairs, leverage
from lsa_figures import mean_l2, mechanism_class, minus_log_p, pair_key, plot_cell_count
from lsa_figures import plot_mean_l2, strength_table, with_and_without_synonyms
from lsa_figures import without_counts


@pytest.fixture
def table():
    "Three pairs, one model, the global mean; rows of the baseline in another order."
    about = {
        "a": ["x inhibitor", "x agonist", "y antagonist"],
        "b": ["z inhibitor", "w agonist", "v inhibitor"],
    }
    pairs = [f"{a}|{b}" for a, b in zip(*about.values())]
    own = pd.DataFrame(
        {
            "model": "mmd",
            "space": "mmd",
            "pair": pairs,
            **about,
            "l2": [1.0, 2.0, 9.0],
            "z10": [-3.0, 0.0, 3.0],
            "in_sample": [True, True, False],
        }
    )
    own = own.assign(
        cell_count_ab=[0.5, 1.0, np.nan],
        n_profiles=[4, 3, 2],
        target_overlap=[0.5, 0.0, np.nan],
        n_compounds_ab=[2, 1, 3],
        delta_pearson=0.5,
        pearson=0.5,
        mismatch_r=0.1,
    )
    base = own.assign(model="global_mean", space="input", l2=[4.0, 2.0, 3.0], z10=np.nan)[::-1]
    return pd.concat([own, base], ignore_index=True)


def test_p_is_one_sided_natural_and_does_not_underflow():
    assert minus_log_p(np.array([0.0]))[0] == pytest.approx(np.log(2))
    # not log10: 1.30; not two-sided: 2.30
    assert minus_log_p(np.array([-1.6449]))[0] == pytest.approx(-np.log(0.05), abs=1e-3)
    # the largest the paper's z can reach
    assert minus_log_p(np.array([-(10**0.5)]))[0] == pytest.approx(7.153, abs=1e-3)
    # a bad z is not a good one
    assert minus_log_p(np.array([1.6449]))[0] == pytest.approx(-np.log(0.95), abs=1e-3)
    assert minus_log_p(np.array([-2.0]))[0] == pytest.approx(-np.log(normal.cdf(-2)))
    assert np.isfinite(minus_log_p(np.array([-60.0]))).all()


def test_correlation_leaves_out_what_is_missing_and_gives_no_interval_for_few():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    x[3] = np.nan
    found, keep = correlation(x, y), np.isfinite(x)
    assert found["n"] == 39 and found["r"] == pytest.approx(spearmanr(x[keep], y[keep]).statistic)
    assert found["low"] < found["r"] < found["high"] and found == correlation(x, y)
    few = correlation(y[:9], x[10:19])
    assert few["n"] == 9 and np.isfinite(few["r"]) and np.isnan([few["low"], few["high"]]).all()
    assert np.isnan(correlation(np.ones(20), np.arange(20))["r"]) and np.isnan(
        correlation([1, 2], [1, 2])["r"]
    )


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(60):
        x = rng.normal(size=(60, 2)) @ np.array([[1, 0.6], [0, 0.8]])
        found = correlation(*x.T, "pearson", n_draws=300)
        hits += found["low"] < 0.6 < found["high"]
    assert 50 <= hits <= 60


def test_strength_is_joined_by_pair_and_not_by_row(table):
    found = strength_table(table, "mmd")
    assert found.strength.tolist() == [4, 2, 3] and found.gain.tolist() == [0.75, 0.0, -2.0]
    assert found.minus_log_p.tolist() == pytest.approx(-normal.logcdf([-3, 0, 3]))
    assert found.cells[:2].tolist() == [2.0, 3.0] and np.isnan(found.cells.iloc[2])
    shuffled = strength_table(table.sample(frac=1, random_state=3), "mmd")
    pd.testing.assert_frame_equal(shuffled.sort_index(), found.sort_index())
    with pytest.raises(CpvaeError, match="beta"):
        strength_table(table, "beta")


def test_no_cells_counted_is_refused(table):
    with pytest.raises(CpvaeError, match="cell_count"):
        plot_cell_count(table.assign(cell_count_ab=np.nan), "mmd")


def test_what_cell_count_explains_is_taken_away():
    count = np.arange(10.0)
    # ranks: any monotone tie
    assert without_counts(count**3, count) == pytest.approx(np.zeros(10), abs=1e-9)
    rest = without_counts(np.r_[np.nan, 3.0, 1.0, 2.0, 5.0], np.r_[1.0, 1.0, 2.0, 3.0, 4.0])
    assert np.isnan(rest[0]) and np.nansum(rest) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "name,kind",
    [
        ("dopamine receptor agonist", "agonist"),
        ("dopamine receptor antagonist", "antagonist"),
        ("Kinase Inhibitors", "inhibitor"),
        ("inhibitory signal enhancer", "other"),
        ("PPAR receptor partial agonist", "agonist"),
        ("calcium channel blocker", "other"),
        ("inhibitor of receptor antagonist", "antagonist"),
    ],
)
def test_classes_are_whole_words(name, kind):
    assert mechanism_class(name) == kind


def test_classes_of_pairs_and_their_test(table):
    groups, _, p = class_test(table, "mmd")
    assert {k: v.tolist() for k, v in groups.items()} == {
        "inhibitor": [-3.0],
        "agonist": [0.0],
        "mixed": [3.0],
    } and np.isnan(p)
    many = pd.concat(
        [table.assign(pair=table.pair + str(k), z10=table.z10 + 0.1 * k) for k in range(5)]
    )
    groups, H, p = class_test(many, "mmd")
    assert (H, p) == pytest.approx(tuple(kruskal(*groups.values()))) and p < 0.05


def test_a_pair_is_the_same_in_any_order_and_case():
    assert pair_key("mTOR inhibitor|PI3K inhibitor") == pair_key("PI3K inhibitor|MTOR INHIBITOR")
    one = pd.Series([1.0, 2.0, 3.0], ["A|B", "mTOR x|PI3K y", "C|D"])
    joined = join_pairs(one, pd.Series([7.0, 8.0], ["pi3k y|mtor x", "b|a"]))
    assert joined.to_dict("index") == {
        "A|B": {"first": 1.0, "second": 8.0},
        "mTOR x|PI3K y": {"first": 2.0, "second": 7.0},
    }
    with pytest.raises(CpvaeError, match="twice"):
        join_pairs(pd.Series([1.0, 2.0], ["A|B", "B|a"]), one)
    with pytest.raises(CpvaeError, match="None of the 3 pairs"):
        join_pairs(one, pd.Series([1.0], ["E|F"]))


def test_leading_pairs_are_the_best_and_their_removal_is_judged():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    x[:6] = [[-30, -30]] * 6 + rng.normal(size=(6, 2))  # six pairs carry it all
    joined = join_pairs(*(pd.Series(v, [f"a{k}|b{k}" for k in range(60)]) for v in x.T))
    assert set(joined.index[:6]) == {f"a{k}|b{k}" for k in range(6)}
    table = leverage(joined, 6, "pearson")
    assert (
        table.n.tolist() == list(range(60, 53, -1)) and table.r[0] > 0.9 and abs(table.r[6]) < 0.3
    )
    # no pair need be special for a fall, but not for this one
    assert table.expected_low[6] > table.r[6] and table.expected[6] > 0.8
    plain = rng.normal(size=(200, 2)) @ np.array([[1, 0.5], [0, 0.75**0.5]])
    table = leverage(
        join_pairs(*(pd.Series(v, [f"a{k}|b{k}" for k in range(200)]) for v in plain.T))
    )
    assert (table.r.diff()[1:] < 0).mean() > 0.5 and table.r.between(
        table.expected_low, table.expected_high
    ).all()


def test_synonyms_are_left_out_and_the_unknown_counted(table):
    found = with_and_without_synonyms(table).xs("mmd", level="method")
    assert found.n.to_dict() == {"all": 3, "no shared target": 2, "two A|B compounds": 2, "both": 1}
    assert found.l2.to_dict() == {
        "all": 4.0,
        "no shared target": 5.5,
        "two A|B compounds": 5.0,
        "both": 9.0,
    }
    assert found.overlap_unknown.to_dict() == {
        "all": 1,
        "no shared target": 1,
        "two A|B compounds": 1,
        "both": 1,
    }


def test_left_out_compares_only_pairs_seen_by_one_and_not_by_the_other(table):
    unseen = table.assign(in_sample=[False] * 6, z10=table.z10 + 1)
    found = compare_left_out(table, unseen.iloc[::-1], "mmd")
    # the third was not seen by the full model
    assert found.index.tolist() == ["x inhibitor|z inhibitor", "x agonist|w agonist"]
    assert found.difference.tolist() == pytest.approx(
        -normal.logcdf([-3, 0]) + normal.logcdf([-2, 1])
    )
    with pytest.raises(CpvaeError, match="leave-out"):
        compare_left_out(table, table, "mmd")


def test_relabelled_means_leave_out_the_real_labelling():
    _, tables = example_run(n_pairs=12)
    lsa, null = tables["lsa"], tables["lsa_null"]
    found = mean_l2(lsa, null)
    assert found.relabelled["mmd"] == pytest.approx(
        null[(null.model == "mmd") & (null.permutation > 0)].l2.mean()
    )
    assert (
        found.difference["global_mean"] == 0
        and found.low["mmd"] < found.difference["mmd"] < found.high["mmd"] < 0
    )
    assert found.difference["mmd"] == pytest.approx(found.real["mmd"] - found.real["global_mean"])
    twice = mean_l2(lsa.assign(l2=2 * lsa.l2 + 5), null.assign(l2=2 * null.l2 + 5))
    # 0 to 1 hides unit and origin
    assert twice.real_01.dropna().tolist() == pytest.approx(found.real_01.dropna().tolist())
    with pytest.raises(CpvaeError, match="pca"):
        mean_l2(lsa, null[null.model != "pca"])


@pytest.mark.parametrize("n_pairs", [1, 3, 20])
def test_labels_of_a_figure_do_not_overlap(n_pairs):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _, tables = example_run(n_pairs=n_pairs)
    fig = plot_mean_l2(tables["lsa"], tables["lsa_null"])
    FigureCanvasAgg(fig).draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    assert not boxes[0].overlaps(boxes[1]) and all(
        fig.bbox.x0 <= b.x0 and b.x1 <= fig.bbox.x1 for b in boxes
    )
