"""Tables of unusual shape: rows in another order, few features, few controls, one mechanism
everywhere, and more features than compounds.
"""

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control
from sklearn.covariance import LedoitWolf
from running import cli

from cpvae.errors import CpvaeError
from cpvae.profiles.read import profiles_from_table, read_profiles
from invented import example_run
from cpvae.report.summary import advantages
from cpvae.report.words import baseline_findings, blind_findings, findings, no_interval
from cpvae.report.words import reconstruction_findings, reference_findings, shuffled_findings
from cpvae.report.words import significance_findings
from cpvae.style import number
from cpvae.lsa.space import Measured, average_wells
from cpvae.lsa.states import unit
from cpvae.lsa.relabel import draw_disjoint
from cpvae.profiles.worlds import silent_world
from cpvae.run.ask import Run
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig, prepare
from cpvae.preparation.clean import sort_rows
from cpvae.preparation.split import split_profiles
from cpvae.lsa.kinds import active_compounds
from cpvae.screening.screen import screen, screen_pairs
from cpvae.screening.votes import half_whiten


def table(
    n_mechanisms=5,
    n_features=12,
    controls=12,
    wells=2,
    seed=0,
    pairs=((0, 1), (1, 2), (2, 3), (3, 4), (0, 4)),
):
    "Mechanisms that add, three compounds each and two a pair; control wells on two plates."
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(n_mechanisms)]
    effect = dict(zip(names, rng.normal(size=(n_mechanisms, n_features))))
    moa = [m for m in names for _ in range(3)] + [
        f"{names[a]}|{names[b]}" for a, b in pairs for _ in range(2)
    ]
    rows, x = [], []
    for k, m in enumerate(moa):
        for w in range(wells):
            rows.append((f"c{k:03d}", m, f"P{w % 2}"))
            x.append(sum(effect[t] for t in m.split("|")) + 0.4 * rng.normal(size=n_features))
    for k in range(controls):
        rows.append(("DMSO", "", f"P{k % 2}"))
        x.append(0.4 * rng.normal(size=n_features))
    about = pd.DataFrame(rows, columns=["Metadata_compound", "Metadata_moa", "Metadata_Plate"])
    return pd.concat(
        [about, pd.DataFrame(x, columns=[f"g{j}x" for j in range(n_features)])], axis=1
    )


def mixed(frame, seed=1):
    return frame.iloc[np.random.default_rng(seed).permutation(len(frame))].reset_index(drop=True)


def with_words_both_ways(frame):
    "Pairs written A|B in one row and B|A in another, numbers and gaps among the metadata."
    flip = (np.arange(len(frame)) % 2 == 0) & frame["Metadata_moa"].str.contains("|", regex=False)
    turned = [
        "|".join(reversed(text.split("|"))) if yes else text
        for text, yes in zip(frame["Metadata_moa"], flip)
    ]
    count = np.where(np.arange(len(frame)) % 5, np.arange(len(frame)) * 7.5, np.nan)
    return frame.assign(
        Metadata_moa=turned,
        Metadata_cell_count=count,
        Metadata_note=[None, "b"] * (len(frame) // 2),
    )


def without_plates(frame):
    """No plate, so that only the features tell two wells of a compound apart; a well repeated under
    another name.
    """
    again = frame.iloc[[0, 4]].assign(Metadata_compound=["z1", "a0"], Metadata_moa=["", "m1"])
    return pd.concat(
        [frame.drop(columns="Metadata_Plate"), again.drop(columns="Metadata_Plate")],
        ignore_index=True,
    )


SHAPES = {
    "plain": lambda frame: frame,
    "both ways": with_words_both_ways,
    "no plates": without_plates,
}
TINY = dict(n_permutations=99, n_latent=3, vae=dict(steps=60, hidden_layer_sizes=(8,)))


def in_places(path):
    "Bytes of a table; rows of the file, of which a profile has its name, are places in the run."
    if path.name not in ("map.csv", "umap.csv"):
        return path.read_bytes()
    names = read_h5ad(path.parent.parent / "latents.h5ad").obs_names
    drawn = pd.read_csv(path, dtype={"row": str}, keep_default_na=False)
    place = dict(zip(names, range(len(names)))) | {"": -1}
    return drawn.assign(row=drawn["row"].map(place).astype(int)).to_csv().encode()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("models", [("pca",), ("beta",)])
def test_the_order_of_rows_changes_no_table(shape, models, tmp_path, no_figures):
    frame, config = SHAPES[shape](table()), RunConfig(models=models, **TINY)
    runs = []
    for name, rows in (("file", frame), ("mixed", mixed(frame))):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        runs.append(
            run_pipeline(read_profiles(tmp_path / f"{name}.csv"), tmp_path / name, config, jobs=1)
        )
    one, two = ({p.name: in_places(p) for p in sorted((run / "tables").iterdir())} for run in runs)
    assert one == two and len(one) == 15


@pytest.mark.parametrize(
    "settings",
    [
        dict(consensus="median"),
        dict(preset="chow2022"),
        dict(normalize="standardize"),
        dict(leave_out=("m0|m1",)),
    ],
)
def test_the_order_of_rows_changes_no_preparation(settings):
    frame = table(seed=3)
    one, two = (
        prepare(profiles_from_table(rows, "t"), RunConfig(**settings))
        for rows in (frame, mixed(frame, 4))
    )
    assert np.array_equal(one.layers["scaled"], two.layers["scaled"])
    assert one.obs.astype(str).to_numpy().tolist() == two.obs.astype(str).to_numpy().tolist()


def test_sorted_rows_keep_their_names_and_a_sorted_table_is_left_alone():
    profiles = profiles_from_table(mixed(table()), "t")
    ordered = sort_rows(profiles)
    assert sort_rows(ordered) is ordered
    assert np.array_equal(ordered.X, profiles[ordered.obs_names].X) and set(
        ordered.obs_names
    ) == set(profiles.obs_names)
    assert (
        ordered.obs[["plate", "compound"]].astype(str).agg(" ".join, axis=1).is_monotonic_increasing
    )
    equal = AnnData(
        np.ones((3, 2), np.float32) * [[3], [1], [2]],
        obs=ordered.obs.iloc[[0, 0, 0]].reset_index(drop=True).rename(index=str),
    )
    found = {
        tuple(sort_rows(equal[list(turn)]).X[:, 0]) for turn in ((0, 1, 2), (2, 1, 0), (1, 2, 0))
    }
    assert len(found) == 1 and sorted(*found) == [1, 2, 3]


@pytest.mark.parametrize("n,width", [(40, 7), (7, 40), (12, 12), (5, 300), (300, 5)])
@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_whitening_is_that_of_the_shrunk_covariance(n, width, power):
    x = np.random.default_rng(n).normal(size=(n, width)) * np.linspace(0.5, 6, width) + 3
    spread, turn = np.linalg.eigh(LedoitWolf().fit(x).covariance_)
    plain = (x - x.mean(0)) @ turn / np.maximum(spread, 1e-12) ** (power / 2)
    found = half_whiten(x, power)
    assert found.shape == (n, min(n, width))
    np.testing.assert_allclose(
        found @ found.T, plain @ plain.T, rtol=1e-7, atol=1e-7 * np.square(plain).sum(1).max()
    )


def test_whitening_of_equal_or_opposite_states():
    assert not half_whiten(np.ones((4, 9))).any()
    two = half_whiten(np.array([[1.0, 2, 3, 4], [-1, -2, -3, -4]]))
    assert np.isfinite(two).all() and unit(two, centre=False)[0] @ unit(two, centre=False)[
        1
    ] == pytest.approx(-1)


def test_whitening_holds_no_matrix_of_features_by_features(monkeypatch):
    sizes, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: sizes.append(a.shape) or eigh(a))
    half_whiten(np.random.default_rng(0).normal(size=(6, 30_000)))
    assert sizes == [(6, 6)]


def test_disjoint_draws_of_any_size_repeat_nothing_and_are_fair():
    for k, pool in ((1, 3), (2, 9), (5, 40), (9, 200), (12, 100), (6, 6)):
        drawn = draw_disjoint(np.random.default_rng(k), pool, k, 3000)
        assert all(len(set(row)) == k for row in drawn) and drawn.shape == (3000, k)
        assert np.abs(np.bincount(drawn[:, -1], minlength=pool) / 3000 - 1 / pool).max() < 0.04


def of_states(x, moa):
    about = pd.DataFrame(
        {
            "compound": [f"c{i:03d}" for i in range(len(x))],
            "moa": moa,
            "n_wells": 1,
            "strength": np.linalg.norm(x, axis=1),
        }
    )
    none = csr_matrix((len(x), len(x)))
    profiles = AnnData(x, obs=about.set_index(about["compound"].to_numpy()))
    return Measured(profiles, about, none, np.zeros(len(x)), x, np.zeros(x.shape[1]), ())


@pytest.mark.parametrize("seed", [0, 1])
def test_q_of_pairs_is_that_of_all_pairs_written_down(seed):
    rng = np.random.default_rng(seed)
    moa = [
        f"m{i % 4}" if i < 20 else f"m{i % 4}|m{(i + 1) % 4}" if i < 26 else "" for i in range(40)
    ]
    singles = screen(of_states(rng.normal(size=(40, 5)), moa), n_draws=999, seed=seed)
    every = screen_pairs(singles, 3, keep=1)
    assert len(every) == 40 * 6 and every["known"].sum() == 6
    p = singles.pivot(index="compound", columns="mechanism", values="p")
    assert (
        every["p"]
        == np.maximum(
            *(
                p.to_numpy()[
                    p.index.get_indexer(every["compound"]), p.columns.get_indexer(every[side])
                ]
                for side in "ab"
            )
        )
    ).all()
    np.testing.assert_allclose(
        every["q"][~every["known"]], false_discovery_control(every["p"][~every["known"]])
    )
    assert every["q"][every["known"]].isna().all()
    few = screen_pairs(singles, 3, keep=0.3)
    pd.testing.assert_frame_equal(few, every[every["p"] <= 0.3].reset_index(drop=True))


def scored(works=True, n_pairs=20):
    run, tables = example_run(works, n_pairs)
    return run, tables["reconstruction"], tables["lsa"]


def unsaid(paragraphs):
    "Numbers that are none, as Python prints them."
    return [text for text in paragraphs if re.search(r"\b(nan|inf|NaN|NA|None)\b|nan%", text)]


@pytest.mark.parametrize(
    "lost",
    [
        ["delta_pearson"],
        ["delta_pearson", "mismatch_r"],
        ["mismatch_r", "p_matched", "q"],
        ["delta_pearson", "p_matched", "q", "replicate_r", "split_half_r"],
        ["l2"],
    ],
)
@pytest.mark.parametrize("n_pairs", [1, 4, 20])
def test_a_score_that_is_undefined_is_not_printed(lost, n_pairs):
    run, reconstruction, lsa = scored(n_pairs=n_pairs)
    lsa[lost] = np.nan
    if "l2" not in lost:
        assert unsaid(findings(run, reconstruction, lsa)) == []
    some = scored(n_pairs=n_pairs)[2]
    some.loc[some["model"].eq("pca"), lost] = np.nan
    assert unsaid(findings(run, reconstruction, some)) == []
    assert number(np.inf) == number(-np.inf) == number(np.nan) == "–"


def in_one(lsa, name="everywhere"):
    "The same scores, with one mechanism in every pair."
    other = lsa["b"].to_numpy()
    return lsa.assign(a=name, pair=[f"{name}|{b}" for b in other])


@pytest.mark.parametrize("works", [True, False])
def test_no_interval_is_claimed_where_one_mechanism_is_in_every_pair(works):
    run, reconstruction, lsa = scored(works)
    lsa = in_one(lsa)
    table = advantages(lsa)
    assert (
        table["low"].isna().all()
        and "one mechanism" in no_interval(table)
        and not no_interval(advantages(scored(works)[2]))
    )
    words = [*baseline_findings(lsa), *blind_findings(lsa)]
    assert unsaid(words) == [] and "95 % interval" not in words[0] and "[" not in words[1]
    assert "can be told from another: one mechanism is in every pair" in words[0]
    assert "beats" not in words[0] and words[1].startswith("It cannot be said")
    assert "95 % interval" in baseline_findings(scored(works)[2])[0]
    assert "too few pairs" in no_interval(advantages(in_one(scored(works, 5)[2])))


def test_a_test_that_was_run_is_not_said_to_be_missing():
    lsa = scored()[2].assign(p_matched=np.nan, q=np.nan)
    assert (
        "undefined" in significance_findings(lsa)[0]
        and "was run" not in significance_findings(lsa)[0]
    )
    assert (
        "no permutation test of compounds was run"
        in significance_findings(lsa.assign(p_floor=np.nan))[0]
    )
    assert "undefined" in reference_findings(lsa.assign(delta_pearson=np.nan))[0]
    assert "r = " in reference_findings(lsa)[0]


def rebuilt(**fvu):
    rows = [
        (m, s, "test", 20, v)
        for m, (real, control) in fvu.items()
        for s, v in ((False, real), (True, control))
    ]
    return pd.DataFrame(rows, columns=["model", "shuffled", "split", "n", "fvu"])


@pytest.mark.parametrize("tiny", [0.0, 3e-32, 8e-17, 2e-12])
def test_no_ratio_is_formed_of_rounding(tiny):
    words = reconstruction_findings(
        rebuilt(pca=(tiny, tiny), vanilla=(0.04, 0.5), beta=(0.02, 0.5))
    )[0]
    assert "to rounding" in words and "%" not in words and not re.search(r"\d{4}", words)
    control = shuffled_findings(rebuilt(pca=(tiny, tiny), vanilla=(0.04, 0.99)))[0]
    assert "Of PCA the control says nothing" in control and "not clean" not in control
    assert "could not be judged" in shuffled_findings(rebuilt(pca=(tiny, tiny)))[0]


def test_large_ratios_are_times_and_unscored_reconstructions_are_said():
    assert (
        "5,000 times as much"
        in reconstruction_findings(rebuilt(pca=(1e-5, 0.9), vanilla=(0.06, 0.9), beta=(0.05, 0.9)))[
            0
        ]
    )
    assert (
        "100 % more"
        in reconstruction_findings(rebuilt(pca=(0.2, 0.9), vanilla=(0.5, 0.9), beta=(0.4, 0.9)))[0]
    )
    none = rebuilt(pca=(np.nan, np.nan), vanilla=(np.nan, np.nan))
    assert (
        unsaid(reconstruction_findings(none) + shuffled_findings(none)) == []
        and shuffled_findings(none) == []
    )


def asked(run, *arguments):
    result = cli(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        dict(n_features=1),
        dict(n_features=2),
        dict(n_features=3, wells=1),
        dict(controls=1),
        dict(controls=2, wells=1),
        dict(pairs=((0, 1), (0, 2), (0, 3), (0, 4))),
        dict(pairs=((0, 1),)),
    ],
    ids=str,
)
def test_nothing_that_a_user_reads_holds_a_number_that_is_none(shape, tmp_path):
    frame = table(**shape)
    run = run_pipeline(
        profiles_from_table(frame, "t"),
        tmp_path / "run",
        RunConfig(models=("pca",), n_permutations=99),
        jobs=1,
    )
    page = re.sub(
        r"<[^>]*>",
        " ",
        re.sub(
            r"data:image[^\"]*|<style>.*?</style>|<script.*</script>",
            "",
            (run / "report.html").read_text(encoding="utf-8"),
            flags=re.S,
        ),
    )
    texts = [
        page,
        asked(run, "info", run),
        asked(run, "predict", run, "--a", "m0", "--b", "m1"),
        asked(run, "screen", run, "--quiet"),
    ]
    assert [re.search(r".{30}\b(nan|inf|NaN|−inf|<NA>)\b.{30}", text, re.S) for text in texts] == [
        None
    ] * 4
    controls = frame["Metadata_compound"].eq("DMSO").sum()
    assert ("Every change is measured from" in page) == (controls < 10)
    assert ("takes two control wells" in texts[2]) == (controls == 1)


def test_a_single_well_bears_no_interval(tmp_path):
    frame = table(wells=1).drop(index=[1, 2])  # m0 keeps one compound of one well
    run = run_pipeline(
        profiles_from_table(frame, "t"),
        tmp_path / "run",
        RunConfig(models=("pca",), n_permutations=99),
        jobs=1,
    )
    assert Run(run).predict("m0", "m1").nearest["low"].isna().all()
    said = asked(run, "predict", run, "--a", "m0", "--b", "m1")
    assert (
        "no interval" in said
        and not re.search(r"\blow\b", said)
        and "low" in asked(run, "predict", run, "--a", "m1", "--b", "m2")
    )


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_few_control_wells_do_not_make_compounds_active(n):
    world = silent_world("nothing", n_pairs=12, n_features=20)
    controls = np.flatnonzero(world.obs["is_control"])[n:]
    world = world[np.setdiff1d(np.arange(world.n_obs), controls)].copy()
    active = active_compounds(average_wells(world))
    assert active.isna().all() if n < 4 else not active.isna().any()


@pytest.mark.parametrize("shape", [dict(n_mechanisms=2, pairs=((0, 1),))])
def test_one_training_profile_is_refused_with_a_way_on(shape):
    few = table(controls=0, wells=1, **shape).iloc[[0, 3, 6]]
    with pytest.raises(CpvaeError, match="1 profile would be left for training.*; add compounds"):
        prepare(profiles_from_table(few, "t", zero_control=True), RunConfig())
    with pytest.raises(CpvaeError, match="`preset='chow2022'`"):
        split_profiles(
            profiles_from_table(few.iloc[:2], "t", zero_control=True), valid=0.4, test=0.4
        )
