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
from joblib import parallel_config
from project import ROOT
from sources import MAP, TABLES

from cpvae.io.write import write_profiles
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
    "A constant of a script with one seed, and a hundred relabellings."
    return re.sub(r"\b10?_000\b", "100", re.sub(r"\brange\(\d+\)", "range(1)", line))


# Scripts that take minutes even so are only read; of one, two of its four tables are made.
LONG = {"decoys.py", "nulls.py", "processing.py", "selection.py", "simulation.py"}
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
