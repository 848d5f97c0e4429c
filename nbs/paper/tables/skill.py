"""What predictions without a model explain of what tells pairs apart, on every table, in either
unit, and in worlds of known rule: `python nbs/paper/tables/skill.py DATA`.

Writes nbs/results/skill.csv, a row a table, unit, predictor and kind of evidence, which 08c_skill
reads. Half a minute.
"""

import sys
from pathlib import Path

import pandas as pd
from sources import TABLES
from provenance import write_table

from cpvae.datasets import load_dataset
from cpvae.lsa.skill import pair_skill
from cpvae.preparation.scale import scale_profiles
from cpvae.profiles.read import read_profiles
from cpvae.run.preset import RunConfig, prepare

COMBINED = ("norman", "korkut", "ecoli")  # in the package
# scaling that a run chooses, and one standard deviation for all features
UNITS = {"each by its own": None, "one for all": dict(method="one_sd", fit_on="train")}


def tables(data: Path):
    "Name and profiles, one table after another."
    for name in COMBINED:
        yield name, load_dataset(name)
    for name, (file, how) in TABLES.items():
        yield name, read_profiles(data / file, **how)


if __name__ == "__main__":
    data, rows = Path(sys.argv[1]), []
    for name, profiles in tables(data):
        ready = prepare(profiles, RunConfig())
        for unit, scaling in UNITS.items():
            scaled = scale_profiles(ready, **scaling) if scaling else ready
            found = pair_skill({}, scaled).drop(columns="space")
            rows.append(found.assign(table=name, unit=unit))
            print(name, unit, flush=True)
    table = pd.concat(rows, ignore_index=True)
    table.insert(0, "table", table.pop("table"))
    table.insert(1, "unit", table.pop("unit"))
    files = [data / file for file, _ in TABLES.values()]
    settings = {"tables": [*COMBINED, *TABLES], "units": [*UNITS]}
    write_table("skill", table, settings=settings, sources=files, seeds=[0])
