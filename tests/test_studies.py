"""The scripts that make the studies' tables still make them: run from end to end on two small
tables of the published layouts, with networks that are hardly trained, each gives tables with the
columns of those that are committed, and no others.
"""

import re
import runpy
import sys

import numpy as np
import pandas as pd
import provenance
import pytest
import vae
from joblib import parallel_config
from project import ROOT
from sources import MAP, TABLES

from cpvae.io.write import write_profiles
from cpvae.lsa.skill import frozen_folds, skill_of
from cpvae.measure.reconstruction import fvu
from cpvae.model import presets
from cpvae.profiles.simulate import simulate_profiles
from cpvae.run import preset as run_preset

FOLDER = ROOT / "nbs/paper/tables"
BY_SCRIPT = {}  # script -> the committed tables that it made
for table, entry in provenance.entries().items():
    BY_SCRIPT.setdefault(entry["command"].split()[1].rsplit("/", 1)[1], set()).add(table)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "A folder with two small tables and a map, called as the public ones are."
    folder = tmp_path_factory.mktemp("data")
    cells = simulate_profiles(n_mechanisms=20, n_pairs=5, n_features=120, n_maps=1)
    injury = np.array(["Control", "Cytoskeletal", "Genotoxin", "Ferroptosis", "Saponin", "Kinase"])
    at = pd.factorize(cells.obs["compound"])[0] % 5 + 1
    cells.obs["Metadata_injury_type"] = injury[np.where(cells.obs["is_control"], 0, at)]
    cells.obs["Metadata_rel_cell_count"] = np.linspace(0.5, 1, cells.n_obs)
    genes = cells[~cells.obs["is_control"]].copy()
    genes.var_names = [f"GENE{i}" for i in range(genes.n_vars)]
    for (file, _), table in zip(TABLES.values(), (cells, genes)):
        write_profiles(table, folder / file)
    known = cells.obs.drop_duplicates("compound").query("moa != ''")
    compounds = {"broad_id": known["compound"], "pert_iname": known["compound"]}
    compounds |= {"moa": known["moa"], "target": "EGFR"}
    pd.DataFrame(compounds).to_csv(folder / MAP, sep="\t", index=False)
    return folder


def ran(script, data, monkeypatch, *words):
    "The tables that a script writes, by name."
    made = {}
    make = presets.make_vae

    def hardly(variant, preset="recommended", **settings):
        short = {} if {"epochs", "steps"} & {*settings} else {"epochs": 2}
        small = {"hidden_layer_sizes": (4,)} if "hidden_layer_sizes" not in settings else {}
        return make(variant, preset, **settings | short | small)

    for module in (presets, run_preset):
        monkeypatch.setattr(module, "make_vae", hardly)
    keep = lambda name, table, **about: made.update({name: table})
    monkeypatch.setattr(provenance, "write_table", keep)
    monkeypatch.setenv("CPVAE_FITS", "")
    monkeypatch.setattr(sys, "argv", [script, str(data), *words])
    text = (FOLDER / script).read_text(encoding="utf-8")
    if script != "models.py":  # whose seeds are folds, too
        text = re.sub(r"(?m)^[A-Z][A-Z_, ]* = .*$", lambda line: fewer(line[0]), text)
    at = {"__name__": "__main__", "__file__": str(FOLDER / script)}
    with parallel_config("sequential"):  # no process has to start
        exec(compile(text, script, "exec"), at)
    return made


def fewer(line):
    "A constant of a script with one seed, a hundred relabellings, and draws of two."
    line = re.sub(r"\b10?_000\b", "100", re.sub(r"\brange\(\d+\)", "range(1)", line))
    return re.sub(r"(?<=DRAWS = )\d+$", "2", line)


# Scripts that take minutes even so are only read; of one, two of its four tables are made.
LONG = {"decoys.py", "nulls.py", "processing.py", "selection.py", "simulation.py", "vae.py"}
WORDS = {"models.py": ["codes", "classes"], "interpretation.py": ["2"]}  # of the latter, seeds


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted({*BY_SCRIPT} - LONG))
def test_a_script_makes_the_tables_that_are_committed(script, data, monkeypatch):
    made = ran(script, data, monkeypatch, *WORDS.get(script, []))
    some = WORDS[script] if script == "models.py" else BY_SCRIPT[script]
    assert {*made} == {*some}
    for name, table in made.items():
        committed = pd.read_csv(provenance.RESULTS / f"{name}.csv")
        assert list(table) == list(committed) and len(table)


@pytest.mark.parametrize("script", sorted(LONG))
def test_what_a_long_script_imports_is_there(script):
    assert runpy.run_path(str(FOLDER / script))["write_table"] is provenance.write_table


def test_a_difference_in_skill_is_that_of_two_skills_and_its_interval_knows_who_is_paired():
    rng, names = np.random.default_rng(0), [f"m{i}" for i in range(8)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    truths, parents = rng.normal(size=(28, 5)), rng.normal(size=(28, 2, 5))
    known = {"truths": truths, "parents": parents, "pairs": pairs}
    fold = frozen_folds(["|".join(pair) for pair in pairs])
    noisy = lambda scale: truths + scale * rng.normal(size=truths.shape)
    guesses = {
        ("calibrated_sum", "input", 0): [noisy(0.5)],
        ("sum", "vanilla", 5): [noisy(0.8), noisy(0.9)],
        ("sum", "ae", 5): [noisy(0.7)],
    }
    told = {
        (*key, seed): [(np.flatnonzero(fold == f), states[fold == f]) for f in np.unique(fold)]
        for key, each in guesses.items()
        for seed, states in enumerate(each)
    }
    rows = {(r["predictor"], r["model"], r["n_latent"]): r for r in vae.sums_of(told, known)}
    for key, each in guesses.items():
        skills = [skill_of(states, **known) for states in each]
        assert np.isclose(rows[key]["skill"], np.mean([s.skill for s in skills]))
        assert rows[key]["least"] == min(s.skill for s in skills)
        if len(each) == 1:
            assert np.allclose(
                [rows[key]["low"], rows[key]["high"]], [skills[0].low, skills[0].high]
            )
    own = rows["sum", "vanilla", 5]
    for rival, other in (("input", "calibrated_sum input 0"), ("ae", "sum ae 5")):
        predictor, name, size = other.split()
        gap = own["skill"] - rows[predictor, name, int(size)]["skill"]
        assert np.isclose(own[f"over_{rival}"], gap) and own[f"{rival}_low"] < gap
        assert own[f"{rival}_low"] + own[f"{rival}_high"] == pytest.approx(2 * gap)
    assert np.isnan(rows["sum", "ae", 5]["over_ae"]) and np.isnan(own["over_pca"])


def test_a_share_left_over_is_that_of_all_that_was_held_out():
    rng, seen = np.random.default_rng(0), []
    test, mean = {f: rng.normal(size=(24, 5)) for f in range(2)}, np.full(5, 0.1)
    left = {("ae", f): test[f] + 0.3 * rng.normal(size=(24, 5)) for f in range(2)}
    left |= {("pca", f): test[f] + 0.5 * rng.normal(size=(24, 5)) for f in range(2)}
    for (model, f), x_hat in left.items():
        sums = lambda gap: np.square(gap).sum(axis=1).reshape(12, 2).sum(axis=1)
        row = dict(model=model, n_latent=5, fold=f, seed=f, unit=[f"{f}:{i}" for i in range(12)])
        row |= dict(error=sums(test[f] - x_hat), total=sums(test[f] - mean), active=5, components=5)
        seen.append(row)
    rows = {row["model"]: row for row in vae.rebuilt_of(seen, False)}
    both = np.concatenate([*test.values()])
    for model, row in rows.items():
        x_hat = np.concatenate([left[model, f] for f in range(2)])
        assert np.isclose(row["fvu"], fvu(both, x_hat, mean)) and row["n_units"] == 24
        assert np.isclose(row["most"], max(fvu(test[f], left[model, f], mean) for f in range(2)))
    gap = rows["ae"]["fvu"] - rows["pca"]["fvu"]
    assert np.isclose(rows["ae"]["over_pca"], gap) and rows["ae"]["pca_high"] < 0
    assert np.isclose(rows["pca"]["over_ae"], -gap) and "over_input" not in rows["ae"]
