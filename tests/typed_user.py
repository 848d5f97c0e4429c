"""What a user's type checker sees: every name of the front door, used as in a script of one's own.

Nobody runs this file; `tests/test_front_door.py` has mypy read it.
"""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA

import cpvae as cp

# a table, read and described
profiles = cp.read_profiles("profiles.csv", zero_control=True)
assert_type(profiles, AnnData)
assert_type(cp.read_profiles([Path("a.csv"), Path("b.csv")]), AnnData)
assert_type(cp.read_profiles(pd.DataFrame()), AnnData)
assert_type(cp.simulate_profiles(seed=1), AnnData)
assert_type(cp.describe_profiles(profiles), dict[str, Any])
assert_type(cp.datasets.load_dataset("lincs-cp5"), AnnData)

# prepared in one step, or in three
ready = cp.prepare(profiles, cp.RunConfig(seed=1))
assert_type(ready, AnnData)
divided = cp.split_profiles(profiles, by="compound", valid=0.1, test=0.2)
assert_type(divided, AnnData)
assert_type(cp.scale_profiles(cp.select_features(divided)), AnnData)

# models
vae = cp.make_vae("beta", beta=3.0)
assert_type(vae, cp.VAE)
x = np.asarray(ready.layers["scaled"])
assert_type(vae.fit(x), cp.VAE)
assert_type(vae.transform(x), np.ndarray)
assert_type(vae.inverse_transform(vae.transform(x)), np.ndarray)
fitted = cp.fit_many({"beta": vae, "vanilla": cp.make_vae("vanilla")}, x)
assert_type(fitted, dict[str, cp.VAE])
cp.save_model(vae, "beta")
loaded = cp.load_model("beta")
assert_type(loaded, cp.VAE | PCA)

# what latent features encode, and how well models rebuild
var = ready.var
assert isinstance(var, pd.DataFrame)  # and no table that is read when it is needed
groups = cp.feature_groups(var)
assert_type(groups, pd.DataFrame)
assert_type(cp.traverse(vae, x), np.ndarray)
assert_type(cp.contribution_table(vae, x, groups), pd.DataFrame)
assert_type(cp.association_table(vae.transform(x), ready), pd.DataFrame)
assert_type(cp.reconstruction_table({("beta", False): vae}, ready), pd.DataFrame)

# pairs of mechanisms, and a screen
assert_type(cp.arithmetic(fitted, ready), tuple[pd.DataFrame, pd.DataFrame])
assert_type(cp.screen(ready), pd.DataFrame)
assert_type(cp.score("mine.csv", "norman").summary, pd.DataFrame)
assert_type(cp.score(pd.DataFrame(), profiles, scale="effect").verdict, str)

# a run, and what it can be asked
try:
    folder = cp.run_pipeline(profiles, "run", cp.RunConfig(models=("pca", "mine.py:AE")))
except cp.CpvaeError as error:
    raise SystemExit(str(error)) from error
assert_type(folder, Path)
run = cp.Run(folder)
assert_type(run.models, tuple[str, ...])
assert_type(run.predict("mTOR inhibitor", "PI3K inhibitor").state, pd.Series)
assert_type(run.predict("mTOR inhibitor", "PI3K inhibitor").nearest, pd.DataFrame)
assert_type(run.screen(), pd.DataFrame)
assert_type(run.transform("new.csv"), AnnData)
assert_type(run.table("lsa"), pd.DataFrame)
assert_type(run.report(), Path)
assert_type(run.describe(), dict[str, Any])
cp.write_profiles(ready, "ready.parquet")
