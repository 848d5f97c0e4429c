"""Choosing settings: cases by hand, truths to recover, searches that several processes share."""

import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from scipy.stats import norm
from sklearn.base import clone

from cpvae.model.presets import make_vae
from cpvae.tune.curves import CRITERIA, choices, choose_weight, elbo, hausdorff_scores
from cpvae.tune.curves import held_out_scores, kept_epoch, loss_shares, simulation_scores
from chapter_figures import parallel_coordinates
from cpvae.tune.curves import unsteadiness, weight_advice, weight_curve
from cpvae.tune.search import importances, space_of, stopping_bounds, tell
from cpvae.tune.search import trial_value, trials_table, tune, vae_settings

SMALL = dict(hidden_layer_sizes=(16,), n_latent=4, steps=60)


def draw(n, seed, noise=0.3):
    """Profiles made by a known decoder from a unit normal prior in three dimensions, with known
    noise.
    """
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    hidden, out = world.standard_normal((3, 12)), world.standard_normal((12, 30)) / 2
    return (
        np.tanh(rng.standard_normal((n, 3)) @ hidden) @ out + noise * rng.standard_normal((n, 30))
    ).astype("float32")


X, VALID = draw(500, 1), draw(200, 2)


class Fake:
    "A model that makes up what it is told to, and rebuilds every profile a given distance off."

    beta = 0.5
    mmd_weight = 20.0
    likelihood = "squared_error"
    monitor = "sse"
    n_features_in_ = 2
    seed_ = 0

    def __init__(self, simulated=None, history=None):
        self.simulated, self.history_ = simulated, history
        self.latent_units_ = pd.DataFrame({"active": [True, False, True]})

    def sample(self, n, seed):
        return self.simulated[:n]

    def transform(self, x):
        return x

    def inverse_transform(self, z):
        return z + [1.0, 2.0]


HISTORY = pd.DataFrame(
    {
        "valid_loss": [9.0, 7.0, 8.0],
        "valid_reconstruction": [4.0, 3.0, 2.0],
        "valid_sse": [4.0, 3.0, 5.0],
        "valid_kl": [2.0, 4.0, 6.0],
        "valid_mmd": [0.1, 0.2, 0.05],
    }
)


def test_held_out_scores_by_hand():
    fake = Fake(history=HISTORY)
    x, valid = np.array([[0.0, 0.0], [2.0, 4.0]]), np.array([[1.0, 2.0], [1.0, 4.0], [5.0, 2.0]])
    scores = held_out_scores(fake, x, valid)
    assert scores["sse"] == pytest.approx(1 + 4)
    # against the mean of the training profiles, (1, 2)
    assert scores["fvu"] == pytest.approx(15 / (0 + 4 + 16))
    # of the epoch with the smallest SSE, the second
    assert (scores["kl"], scores["latent_mmd"], scores["active"]) == (4.0, 0.2, 2)
    # of the last epoch
    assert scores["kl_share"] == pytest.approx(3 / (2 + 3 + 1)) and scores[
        "mmd_share"
    ] == pytest.approx(1 / 6)
    assert scores["unsteadiness"] == pytest.approx(np.std([9, 7, 8]) / 8)


def test_the_epoch_that_was_kept():
    fake = Fake(history=HISTORY)
    picks = {}
    for fake.monitor in ("sse", "loss", "none"):
        picks[fake.monitor] = kept_epoch(fake).name
    assert picks == {"sse": 1, "loss": 1, "none": 2}


def test_elbo_of_a_squared_error_is_that_of_the_best_gaussian():
    fake, error = Fake(history=HISTORY), np.sqrt(3.0 / 2)  # an SSE of 3 in two features
    density = lambda sd: 2 * norm.logpdf(error, scale=sd)
    assert elbo(fake) == pytest.approx(density(error) - 4)
    # no other variance does better
    assert density(error) > max(density(0.99 * error), density(1.01 * error))
    fake.likelihood = "shared"
    # the decoder's own density, and the whole divergence whatever beta
    assert elbo(fake) == pytest.approx(-3 - 4)


def test_shares_need_a_positive_loss():
    negative = HISTORY.assign(valid_reconstruction=-5.0, valid_loss=-1.0)
    assert np.isnan(list(loss_shares(negative, 0.5, 20.0).values())).all() and np.isnan(
        unsteadiness(negative)
    )
    # what is not paid is not charged
    assert loss_shares(HISTORY.assign(valid_mmd=-0.1), 0.5, 0.0) == {
        "kl_share": 0.6,
        "mmd_share": 0.0,
    }


def test_hausdorff_by_hand():
    x = np.array([[0.0], [1.0], [2.0], [100.0]])
    scores = hausdorff_scores(x, np.array([[0.5], [7.0], [1.5], [98.0]]))
    assert scores == {
        "hausdorff": 5.0,
        "hausdorff_to_data": 5.0,
        "hausdorff_to_simulated": 2.0,
        "farthest": 3,
        "hausdorff_without": 96.0,
    }
    scores = hausdorff_scores(x, np.array([[0.5], [4.0], [1.5], [0.5]]))
    assert scores == {
        "hausdorff": 96.0,
        "hausdorff_to_data": 2.0,
        "hausdorff_to_simulated": 96.0,
        "farthest": 3,
        "hausdorff_without": 2.0,
    }


def test_simulated_profiles_meet_the_right_real_ones():
    rng = np.random.default_rng(0)
    x, valid = rng.standard_normal((40, 3)), rng.standard_normal((12, 3)) + 50
    scores = simulation_scores(Fake(simulated=np.concatenate([valid, x])), x, valid)
    # the first twelve are the validation profiles
    assert (scores["precision"], scores["recall"], scores["coverage"]) == (1, 1, 1)
    # some of the forty are far from the training profiles
    assert scores["average_hausdorff"] == 0 and scores["hausdorff"] > 50


def curve(**columns):
    "A curve of two weights and two seeds."
    return pd.DataFrame(
        {"weight": [1.0, 1.0, 2.0, 2.0], "seed": [0, 1, 0, 1], "diverged": False} | columns
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_has_its_direction(criterion):
    expected = {"smaller": 1.0, "larger": 2.0, "one": 1.0}[CRITERIA[criterion]]
    assert choose_weight(curve(**{criterion: [1.1, 1.2, 1.3, 1.4]}), criterion) == expected
    better = {"precision", "recall", "coverage", "elbo"}
    assert (CRITERIA[criterion] == "larger") == (criterion in better)


def test_a_choice_is_made_on_the_mean_and_says_how_sure_it_is():
    table = choices(
        curve(
            coverage=[0.1, 0.9, 0.4, 0.4], density=[0.9, 0.8, 1.05, 1.3], fvu=[0.5, 0.5, 0.5, 0.5]
        )
    )
    assert table.loc["coverage", ["weight", "agree", "lowest", "highest"]].tolist() == [
        1.0,
        0.5,
        1.0,
        2.0,
    ]
    # .9 and .8 are nearer to 1, on average, than 1.05 and 1.3
    assert table.loc["density", "weight"] == 1.0
    assert table.loc["fvu", ["weight", "agree"]].tolist() == [1.0, 1.0]  # of equals, the smallest
    assert list(table.index) == ["density", "coverage", "fvu"]


def test_seeds_tell_weights_apart_outside_a_95_per_cent_interval():
    "Four seeds: t with three degrees of freedom is 3.18, and half of it times the sd 1.837."
    behind = {0.5: 1.8, 1.0: 0.0, 2.0: 1.87}
    rows = [
        dict(weight=weight, seed=seed, diverged=False, fvu=0.5, elbo=-by - (by > 0) * stray)
        for weight, by in behind.items()
        for seed, stray in enumerate([-1, -1, 1, 1])
    ]
    advice = weight_advice(pd.DataFrame(rows))
    assert advice.params == {"beta": {"beta": 1.0}}
    assert "they cannot tell it from β = 0.5 (95 %" in advice.lines[1]


def test_a_weight_that_diverged_is_not_chosen():
    broken = curve(diverged=[False, True, False, False], fvu=[0.1, np.nan, 0.9, 0.9])
    assert choose_weight(broken, "fvu") == 2.0
    with pytest.raises(ValueError, match="no weight has a fvu"):
        choose_weight(broken.assign(fvu=np.nan), "fvu")
    with pytest.raises(ValueError, match="unknown criterion 'luck'; there are hausdorff"):
        choose_weight(broken, "luck")


@pytest.mark.slow
def test_the_curve_finds_the_truth():
    found = weight_curve(
        X,
        VALID,
        [0.1, 1, 10, 1000],
        preset="recommended",
        **SMALL | dict(steps=300, learning_rate=1e-2),
        seeds=[0, 1],
    )
    means = found.groupby("weight").mean()
    assert choose_weight(found, "elbo") == 1.0 and choices(found).loc["elbo", "agree"] == 1.0
    # all units collapsed
    assert means.active[1000.0] == 0 and means.kl[1000.0] < 0.01 and means.fvu[1000.0] > 0.95
    assert means.kl.is_monotonic_decreasing and choose_weight(found, "fvu") == 0.1


def test_a_curve_does_not_depend_on_jobs_and_survives_divergence():
    wild = X.copy()
    wild[0, 0] = 3e38
    ask = dict(preset="recommended", seeds=[0, 1], **SMALL)
    one, two = (weight_curve(X, VALID, [1, 10], "mmd_weight", jobs=jobs, **ask) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert (
        len(one) == 4
        and not one.diverged.any()
        and not one[one.seed == 0].equals(one[one.seed == 1])
    )
    assert weight_curve(wild, VALID, [1], **ask).diverged.all()
    # those that are trained together do not fall together
    mixed = weight_curve(X, VALID, [1, 3e38], "mmd_weight", **ask)
    assert (mixed.diverged == (mixed.weight > 1)).all() and mixed.elbo.notna().tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_curves_refuse_what_they_cannot_score():
    with pytest.raises(ValueError, match="5 validation profiles are too few"):
        weight_curve(X, VALID[:5], [1])
    with pytest.raises(ValueError, match="unknown weight 'gamma'; there are beta, mmd_weight"):
        weight_curve(X, VALID, [1], "gamma")
    with pytest.raises(ValueError, match="unknown preset 'best'; there are recommended"):
        weight_curve(X, VALID, [1], preset="best")


def test_the_papers_sweep_holds_what_the_paper_held():
    found = weight_curve(X[:60], VALID[:30], [0.3], seeds=[0], epochs=2)
    assert found.active[0] <= 50 and len(found) == 1
    from cpvae.tune.curves import weighted_vae

    params = weighted_vae("beta", 0.06, "chow2022-cp4").get_params()
    assert [
        params[k] for k in ("beta", "n_latent", "learning_rate", "batch_size", "epochs", "heads")
    ] == [0.06, 50, 1e-3, 128, 50, "chow2022"]
    params = weighted_vae("mmd_weight", 10.0, "recommended", n_latent=3).get_params()
    assert [params[k] for k in ("beta", "mmd_weight", "n_latent")] == [0.0, 10.0, 3]


# ---- the search


@pytest.mark.slow
def test_a_search_goes_on_as_if_it_had_not_stopped(tmp_path):
    ask = dict(hidden_layer_sizes=(16,), steps=20)
    path = tmp_path / "folder" / "search.journal"
    whole = trials_table(tune(X, VALID, trials=14, **ask))
    for trials in (5, 6, 3):
        parts = tune(X, VALID, trials=trials, storage=path, **ask)
    pd.testing.assert_frame_equal(trials_table(parts), whole, check_exact=True)
    assert whole.number.tolist() == list(range(14)) and set(whole.state) == {"complete", "stopped"}
    assert whole.learning_rate.nunique() == 14  # one seed, no two draws alike
    assert not trials_table(tune(X, VALID, trials=2, seed=1, **ask)).learning_rate.equals(
        whole.learning_rate[:2]
    )
    two = [trials_table(tune(X, VALID, trials=4, jobs=2, **ask)) for _ in range(2)]
    pd.testing.assert_frame_equal(*two, check_exact=True)  # two at a time are repeatable too


WORKER = textwrap.dedent("""
    import sys, numpy as np
    from cpvae.tune.search import tune
    with np.load(sys.argv[1]) as data:
        small = dict(trials=8, steps=20, hidden_layer_sizes=(16,))
        tune(data["x"], data["valid"], storage=sys.argv[2], **small)
""")


@pytest.mark.slow
def test_two_processes_share_one_search(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, valid=VALID)
    path = tmp_path / "search.journal"
    command = [
        sys.executable,
        "-W",
        "error::UserWarning:optuna",
        "-c",
        WORKER,
        str(tmp_path / "data.npz"),
        str(path),
    ]
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for _ in range(2)
    ]
    said = [p.communicate(timeout=300)[1].decode() for p in processes]
    assert [p.returncode for p in processes] == [0, 0] and said == ["", ""], said
    # and a third joins
    table = trials_table(tune(X, VALID, storage=path, trials=1, steps=20, hidden_layer_sizes=(16,)))
    assert table.number.tolist() == list(range(17)) and set(table.state) == {"complete", "stopped"}
    complete = table[table.state == "complete"]
    # same seed, no trial twice
    assert table.learning_rate.nunique() == 17 and complete.value.nunique() == len(complete)


def test_a_foreign_search_is_refused(tmp_path):
    path = tmp_path / "search.journal"
    ask = dict(storage=path, trials=1, steps=20, hidden_layer_sizes=(16,))
    tune(X, VALID, **ask)
    held = path.read_bytes()
    for change, said in [
        (dict(variant="beta"), "variant was vanilla, is beta"),
        (dict(preset="chow2022"), "preset was recommended"),
        (dict(steps=21), "'steps': '20'"),
    ]:
        with pytest.raises(ValueError, match=said):
            tune(X, VALID, **ask | change)
    for data in ((X[1:], VALID), (X, VALID + 1e-3)):
        with pytest.raises(ValueError, match="search.journal holds another search: data was"):
            tune(*data, **ask)
    with pytest.raises(ValueError, match="unknown variant 'gan'"):
        tune(X, VALID, **ask | dict(variant="gan"))
    assert path.read_bytes() == held
    path.unlink()
    optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="theirs")
    with pytest.raises(ValueError, match="it holds theirs, which cpvae did not make"):
        tune(X, VALID, **ask)
    path.write_text("compound,dose\n")
    with pytest.raises(ValueError, match="no usable search in search.journal"):
        tune(X, VALID, **ask)
    with pytest.raises(ValueError, match="no usable search"):
        tune(X, VALID, **ask | dict(storage=tmp_path))


def test_a_trial_that_diverges_counts_as_the_worst():
    wild = X.copy()
    wild[0, 0] = 3e38
    study = tune(wild, VALID, trials=2, steps=20)
    table = trials_table(study)
    assert (
        (table.state == "diverged").all()
        and table.value.isna().all()
        and table.diverged.str.contains("smaller learning rate").all()
    )


def test_the_bounds_are_medians_of_complete_trials():
    study = optuna.create_study()
    for i, rungs in enumerate([(5, 4, 3), (9, 8, 7), (1, 1, 1), (7,), (3, 2, 2)]):
        assert stopping_bounds(study) == []
        tell(study, study.ask(), float(i), rungs, {})
    tell(study, study.ask(), None, (100, 100, 100), {"stopped": "after epoch 3 of 4"})
    tell(study, study.ask(), None, (), {"diverged": "inf"})
    assert stopping_bounds(study) == [5, 3, 2.5] and stopping_bounds(study, least=6) == []
    assert trials_table(study).state.tolist() == ["complete"] * 5 + ["stopped", "diverged"]
    assert (
        trials_table(study).value.tolist()[:5] == [0, 1, 2, 3, 4]
        and trials_table(study).value[5:].isna().all()
    )


def test_a_trial_is_stopped_where_it_is_worse_than_allowed():
    vae = make_vae(
        "vanilla", hidden_layer_sizes=(16,), epochs=9, schedule="constant", random_state=0
    )
    history = clone(vae).fit(X, X_valid=VALID).history_
    value, rungs, scores = trial_value(vae, X, VALID, False)
    at = [history.valid_loss[history.valid_sse[:epochs].idxmin()] for epochs in (3, 5, 7, 9)]
    assert [*rungs, value] == at and "fvu" in scores  # 9/4, 9/2 and 27/4 epochs, rounded up
    assert trial_value(vae, X, VALID, False, at)[0] == value  # as good as the bound is good enough
    for rung, epoch in enumerate((3, 5, 7)):
        bounds = [at[i] - 1e-3 * (i == rung) for i in range(3)]
        assert trial_value(vae, X, VALID, False, bounds) == (
            None,
            at[: rung + 1],
            {"stopped": f"after epoch {epoch} of 9"},
        )
    of_bound = trial_value(vae, X, VALID, True)
    assert of_bound[0] == -of_bound[2]["elbo"] and len(of_bound[1]) == 3
    assert trial_value(clone(vae).set_params(epochs=1), X, VALID, False, [-1e9])[1] == []
    # until late in the cycle a trial says little of its end
    falling = clone(vae).set_params(schedule="onecycle")
    assert trial_value(falling, X, VALID, False, [-1e9])[2] == {"stopped": "after epoch 7 of 9"}


def test_an_interrupt_leaves_no_trial_behind(monkeypatch):
    from cpvae.tune import search

    studies, opened = [], search.open_study
    monkeypatch.setattr(search, "open_study", lambda *a: studies.append(opened(*a)) or studies[0])
    monkeypatch.setattr(search, "trial_value", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tune(X, VALID, trials=2, steps=20)
    assert [t.state.name for t in studies[0].trials] == ["FAIL"] and trials_table(studies[0]).empty


def test_spaces():
    paper = space_of("chow2022-l1000", "beta")
    assert (
        paper["n_latent"].low == 5 and paper["n_latent"].high == 150 and paper["n_latent"].step == 5
    )
    assert (
        paper["batch_size"].low == 32
        and paper["batch_size"].high == 512
        and paper["batch_size"].step == 32
    )
    assert paper["learning_rate"].choices == (1e-2, 1e-3, 1e-4, 1e-5) and "beta" not in paper
    assert "beta" in space_of("recommended", "beta") and "beta" not in space_of(
        "recommended", "vanilla"
    )
    assert {"width", "depth", "n_latent"}.isdisjoint(
        space_of("recommended", "beta", {"hidden_layer_sizes": (3,), "n_latent": 2})
    )
    assert vae_settings({"width": 256, "depth": 2, "n_latent": 5}) == {
        "n_latent": 5,
        "hidden_layer_sizes": (256, 128),
    }


def test_the_value_is_the_loss_where_weights_are_fixed_and_the_bound_where_they_are_not():
    for variant, preset in (
        ("vanilla", "recommended"),
        ("beta", "recommended"),
        ("mmd", "recommended"),
    ):
        table = trials_table(
            tune(
                X,
                VALID,
                variant=variant,
                preset=preset,
                trials=2,
                steps=40,
                hidden_layer_sizes=(16,),
            )
        )
        # at β = 1 the loss is the bound
        assert np.allclose(table.value, -table.elbo, rtol=1e-5) == (variant != "mmd")
    table = trials_table(tune(X, VALID, variant="beta", preset="chow2022", trials=2, epochs=3))
    assert not np.allclose(table.value, -table.elbo) and {"heads", "batch_size"} <= {*table}


def test_importance_knows_what_mattered_and_the_figure_has_a_line_a_trial():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = optuna.create_study()
        study.set_user_attr("about", {})
        for _ in range(30):
            trial = study.ask()
            matters = trial.suggest_float("matters", 0, 1)
            idle = trial.suggest_float("idle", 1e-4, 1, log=True)
            trial.suggest_categorical("kind", ("a", "b"))
            study.tell(trial, (matters - 0.3) ** 2 + 1e-4 * idle)
        assert importances(study).idxmax() == "matters" and importances(study)["matters"] > 0.8
        fig = parallel_coordinates(trials_table(study), ["matters", "idle", "kind"])
    lines = [line for line in fig.axes[0].lines if len(line.get_ydata()) == 4]
    assert len(lines) == 30 and lines[-1].get_color() == "#D55E00"
    best = study.best_params["idle"]
    low = min(t.params["idle"] for t in study.trials)
    high = max(t.params["idle"] for t in study.trials)
    assert (
        lines[-1].get_ydata()[1] == pytest.approx(np.log(best / low) / np.log(high / low))
        and lines[-1].get_ydata()[3] == 1
    )
