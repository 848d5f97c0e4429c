"""A run's bytes do not depend on the threads of its process. (The other tests have one, so that
they can run side by side.)
"""

import pytest
import torch
from threadpoolctl import threadpool_limits

from cpvae.profiles.simulate import simulate_profiles
from cpvae.run.pipeline import run_pipeline
from cpvae.run.preset import RunConfig


@pytest.fixture
def threads():
    "Function that sets the number of threads for everything; they are put back at the end."
    before = torch.get_num_threads()
    with threadpool_limits():
        yield lambda n: (torch.set_num_threads(n), threadpool_limits(n))
    torch.set_num_threads(before)


@pytest.mark.slow
def test_threads_change_no_byte(tmp_path, no_figures, threads):
    world = simulate_profiles(seed=3, n_mechanisms=8, n_pairs=3, n_features=200, n_maps=3)
    config = RunConfig(models=("beta", "pca"), seed=3, n_permutations=200, vae=dict(steps=30))
    files = {}
    for n in (1, 2):
        threads(n)
        assert torch.get_num_threads() == n
        run = run_pipeline(world, tmp_path / str(n), config, jobs=1)
        files[n] = {
            p.relative_to(run): p.read_bytes()
            for p in run.rglob("*")
            if p.suffix in (".csv", ".safetensors", ".h5ad")
        }
    assert len(files[1]) >= 6 and files[1] == files[2]
