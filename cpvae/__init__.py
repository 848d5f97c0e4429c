"""Variational autoencoders and latent space arithmetic on cell profiles: `import cpvae as cp`.

The names below are what most work needs, from a table to a screen; everything else is in the sub-packages. A name is loaded
when it is first used, so that importing the package takes no time.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets as datasets
    from .errors import CpvaeError as CpvaeError
    from .io.write import write_profiles as write_profiles
    from .judging.score import score as score
    from .latents.associate import association_table as association_table
    from .latents.traverse import contribution_table as contribution_table
    from .latents.traverse import feature_groups as feature_groups
    from .latents.traverse import traverse as traverse
    from .lsa.table import arithmetic as arithmetic
    from .measure.reconstruction import reconstruction_table as reconstruction_table
    from .model.fits import fit_many as fit_many
    from .model.presets import make_vae as make_vae
    from .model.store import load_model as load_model
    from .model.store import save_model as save_model
    from .model.vae import VAE as VAE
    from .preparation.scale import scale_profiles as scale_profiles
    from .preparation.select import select_features as select_features
    from .preparation.split import split_profiles as split_profiles
    from .profiles.pairs import describe_profiles as describe_profiles
    from .profiles.read import read_profiles as read_profiles
    from .profiles.simulate import simulate_profiles as simulate_profiles
    from .run.ask import Run as Run
    from .run.pipeline import run_pipeline as run_pipeline
    from .run.preset import RunConfig as RunConfig
    from .run.preset import prepare as prepare
    from .screening.screen import screen as screen

__version__ = "0.1.0"

_HOMES = {
    "CpvaeError": "errors",
    "Run": "run.ask",
    "RunConfig": "run.preset",
    "VAE": "model.vae",
    "arithmetic": "lsa.table",
    "association_table": "latents.associate",
    "contribution_table": "latents.traverse",
    "describe_profiles": "profiles.pairs",
    "feature_groups": "latents.traverse",
    "fit_many": "model.fits",
    "load_model": "model.store",
    "make_vae": "model.presets",
    "prepare": "run.preset",
    "read_profiles": "profiles.read",
    "reconstruction_table": "measure.reconstruction",
    "run_pipeline": "run.pipeline",
    "save_model": "model.store",
    "scale_profiles": "preparation.scale",
    "score": "judging.score",
    "screen": "screening.screen",
    "select_features": "preparation.select",
    "simulate_profiles": "profiles.simulate",
    "split_profiles": "preparation.split",
    "traverse": "latents.traverse",
    "write_profiles": "io.write",
}
_FLOORS = frozenset(
    "cli datasets errors io judging latents lsa measure model preparation profiles progress report"
    " run screening style threads tune".split()
)
__all__ = [
    "datasets",
    "CpvaeError",
    "Run",
    "RunConfig",
    "VAE",
    "arithmetic",
    "association_table",
    "contribution_table",
    "describe_profiles",
    "feature_groups",
    "fit_many",
    "load_model",
    "make_vae",
    "prepare",
    "read_profiles",
    "reconstruction_table",
    "run_pipeline",
    "save_model",
    "scale_profiles",
    "score",
    "screen",
    "select_features",
    "simulate_profiles",
    "split_profiles",
    "traverse",
    "write_profiles",
]


def __getattr__(name: str) -> Any:
    "Load a name of the front door. Raises AttributeError for any other."
    if name in _FLOORS:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        near = get_close_matches(name, [*_HOMES, *_FLOORS], 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'cpvae' has no attribute {name!r}{meant}")
    found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
