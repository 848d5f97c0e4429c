"""How fast the permutation tests are, in one process: `python benchmarks/nulls.py` (`make
bench-nulls`) writes benchmarks/nulls.csv.

10,000 relabellings of 84 pairs within strata, 10,368 profiles of 588 features (the shape of LINCS
level 5: 1,570 compounds, six doses), decoded and scored, for each kind of model; beside a plain
loop that does the same one relabelling at a time, timed on so many relabellings as take about ten
seconds and scaled up.
"""

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer

from cpvae.lsa.predictors import global_mean
from cpvae.lsa.space import latent_space, average_wells
from cpvae.lsa.states import correlate
from cpvae.model.presets import make_vae
from cpvae.lsa.nulls import common_path, null_strata, permutation_tests, remove_common
from cpvae.lsa.relabel import compound_blocks

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "nbs" / "paper" / "tables"))
from provenance import machine, write_table  # noqa: E402


def table(n_compounds=1570, n_doses=6, n_features=588, n_pairs=84, n_controls=948, seed=0):
    "Random profiles with the shape, the groups and the plates of LINCS level 5."
    rng = np.random.default_rng(seed)
    moa = [f"m{i % 260}" for i in range(1400)]
    pairs = rng.permutation([(i, j) for i in range(260) for j in range(i)])[:n_pairs]
    moa = [*moa, *("|".join(sorted((f"m{i}", f"m{j}"))) for i, j in pairs)]
    moa += [""] * (n_compounds - len(moa))
    row = np.repeat(np.arange(n_compounds), n_doses)
    obs = pd.DataFrame(
        {
            "compound": [f"c{i}" for i in row],
            "moa": np.array(moa)[row],
            "dose": np.tile(np.arange(1.0, n_doses + 1), n_compounds),
            "plate": [f"map{i % 25}" for i in row],
            "is_control": False,
        }
    )
    controls = pd.DataFrame(
        {
            "compound": "DMSO",
            "moa": "",
            "dose": np.nan,
            "plate": [f"map{i % 25}" for i in range(n_controls)],
            "is_control": True,
        }
    )
    obs = (
        pd.concat([obs, controls], ignore_index=True)
        .assign(time=np.nan, well="")
        .set_axis([str(i) for i in range(len(row) + n_controls)])
    )
    x = rng.standard_normal((len(obs), n_features), dtype=np.float32)
    x[: len(row)] += (
        rng.gamma(2, 0.5, n_compounds)[:, None]
        * rng.standard_normal((n_compounds, 10))
        @ rng.standard_normal((10, n_features))
        / 3
    )[row]
    profiles = AnnData(
        x,
        obs=obs,
        uns={"cpvae": {"zero_control": False, "clip": 0.0}},
        var=pd.DataFrame(
            {"center": np.zeros(n_features), "scale": 1.0}, [f"f{j}" for j in range(n_features)]
        ),
    )
    profiles.layers["scaled"] = profiles.X
    return profiles


def loop(model, space, measured, blocks, seconds=10):
    "Seconds for one relabelling, one at a time: draw within strata, average, decode, score."
    rng = np.random.default_rng(0)
    compounds = measured.compounds
    done = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        pair = measured.pairs[done % len(measured.pairs)]
        if done < len(measured.pairs):  # what a loop would also do once a pair
            pool = (compounds["moa"] != "").to_numpy() & ~pair.carriers
            strata = null_strata("matched", pair, compounds["strength"].to_numpy(), pool, blocks)
            kept = globals().setdefault("_kept", {})
            kept[pair.name] = (
                strata,
                measured.group_mean([pair.in_ab])[0],
                global_mean(measured, pair),
                common_path(measured.means[pool], measured.control),
            )
        strata, truth, common, path = kept[pair.name]
        a, b = [], []
        for s in np.unique(strata[pair.in_a | pair.in_b]):
            members = rng.permutation(np.flatnonzero(strata == s))
            n_a, n_b = (pair.in_a & (strata == s)).sum(), (pair.in_b & (strata == s)).sum()
            a += [*members[:n_a]]
            b += [*members[n_a : n_a + n_b]]
        z = space.z_compounds[a].mean(0) - space.z_control + space.z_compounds[b].mean(0)
        x = np.asarray(model.inverse_transform(z[None].astype(space.z_wells.dtype)))[0]
        np.linalg.norm(x - truth)
        correlate(remove_common(x, common, path), remove_common(truth, common, path), centre=False)
        done += 1
    return (time.perf_counter() - start) / done


def main():
    "Measure, print and write."
    parser = argparse.ArgumentParser(description="How fast the permutation tests are.")
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=HERE / "nulls.csv")
    given = parser.parse_args()
    profiles = table()
    measured, x, rows = average_wells(profiles), profiles.layers["scaled"], []
    blocks, pairs = compound_blocks(measured), len(measured.pairs)
    warnings.simplefilter("ignore")
    models = {
        "PCA, 10": PCA(10, random_state=0).fit(x),
        "chow2022 VAE, one layer of 250": make_vae(
            "vanilla", "chow2022", epochs=1, random_state=0
        ).fit(x),
    }
    models |= {
        "recommended VAE, two layers": make_vae("vanilla", steps=50, random_state=0).fit(x),
        "features": FunctionTransformer(),
    }
    for name, model in models.items():
        space = latent_space(model, measured)
        for jobs in (1, 2):
            start = time.perf_counter()
            permutation_tests({name: space}, given.permutations, 0, ("matched",), jobs=jobs)
            seconds = time.perf_counter() - start
            if jobs == 1:
                one = loop(model, space, measured, blocks) * given.permutations * pairs
            peak = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                + (jobs > 1) * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            )
            rows.append(
                dict(
                    model=name,
                    jobs=jobs,
                    seconds=round(seconds, 1),
                    loop_seconds=round(one),
                    ratio=round(one / seconds),
                    peak_mib=round(peak / 1024),
                )
            )
            print(*rows[-1].values(), sep="  ", flush=True)
    settings = {
        "relabellings": given.permutations,
        "pairs": pairs,
        "profiles": f"{profiles.n_obs:,} x {profiles.n_vars}",
    }
    where = dict(folder=given.out.parent, settings=settings | machine())
    write_table(given.out.stem, pd.DataFrame(rows), **where)


if __name__ == "__main__":
    main()
