"""What needs no GPU to be sure of: every random call and every new tensor says its device, and no
generator differs from its tensor.
"""

import subprocess
import sys

import device_check
import numpy as np
import pytest
import torch
from project import ROOT, settings
from torch.overrides import TorchFunctionMode

from cpvae.model import plan, train
from cpvae.run import preset
from cpvae.errors import CpvaeError
from cpvae.profiles.simulate import simulate_profiles
from cpvae.model.presets import PRESETS, make_vae
from cpvae.model.store import load_model, save_model
from cpvae.model.vae import VAE
from cpvae.model.plan import torch_device
from cpvae.model.train import CheckpointError

DRAWN = {"rand", "randn", "randint", "randperm", "normal"}
MADE = {
    "tensor",
    "as_tensor",
    "zeros",
    "ones",
    "empty",
    "full",
    "arange",
    "linspace",
    "logspace",
    "eye",
}
DRAWN_IN_PLACE = {
    "uniform_",
    "normal_",
    "bernoulli_",
    "exponential_",
    "random_",
    "log_normal_",
    "bernoulli",
    "multinomial",
    "poisson",
    "dropout",
}


class ExplicitDevices(TorchFunctionMode):
    """Refuses a tensor factory or a random call without a device, and a random call without a
    generator of the same device.
    """

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in DRAWN | MADE:
            assert kwargs.get("device") is not None, f"torch.{name} without a device"
            self.seen.add(name)
        if name in DRAWN | DRAWN_IN_PLACE:
            device = torch.device(kwargs.get("device") or (args or [*kwargs.values()])[0].device)
            if device.type == "meta":  # no number is drawn
                return func(*args, **kwargs)
            generator = kwargs.get("generator")
            assert generator is not None, f"{name} without a generator"
            assert generator.device.type == device.type, (
                f"{name} on {device} with a generator on {generator.device}"
            )
        return func(*args, **kwargs)


@pytest.fixture
def explicit(monkeypatch):
    "Every device has to be named, also that of a generator."

    class Generator(torch.Generator):
        def __new__(cls, *device, **kwargs):
            assert device or kwargs.get("device"), "torch.Generator without a device"
            return super().__new__(cls, *device, **kwargs)

    monkeypatch.setattr(torch, "Generator", Generator)
    with ExplicitDevices() as mode:
        yield mode


SMALL = dict(
    n_latent=2, hidden_layer_sizes=(8,), epochs=2, batch_size=16, random_state=0, device="cpu"
)
VARIANTS = [(preset, variant) for preset in PRESETS for variant in PRESETS[preset]]
X = np.random.default_rng(0).standard_normal((60, 5)).astype("float32")


@pytest.mark.parametrize(("preset", "variant"), VARIANTS)
def test_every_device_is_named(preset, variant, explicit, tmp_path):
    def one():
        return make_vae(variant, preset, **SMALL)

    vae = one().fit(X[:40], X_valid=X[40:], checkpoint=tmp_path / "cut")
    again = one().fit(X[:40], X_valid=X[40:], checkpoint=tmp_path / "cut")  # resumed: it had ended
    save_model(vae, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    codes = [v.transform(X) for v in (vae, again, loaded)]
    assert codes[0].tobytes() == codes[1].tobytes() == codes[2].tobytes()
    assert loaded.inverse_transform(codes[0]).tobytes() == vae.inverse_transform(codes[0]).tobytes()
    assert vae.sample(3).shape == (3, 5) if variant != "ae" else not hasattr(vae, "sample")
    # the mode has seen what it is there to see
    assert {"randperm"} | (
        {"randn"} if variant not in ("ae", "pca-mlp") else set()
    ) <= explicit.seen


def test_the_mode_refuses_what_it_is_there_to_refuse():
    with ExplicitDevices():
        for call in (
            lambda: torch.randperm(3, generator=torch.Generator()),
            lambda: torch.zeros(2),
            lambda: torch.randn(2, device="cpu"),
            lambda: torch.nn.Linear(2, 3, device="cpu"),
        ):
            with pytest.raises(AssertionError, match="without"):
                call()


def test_a_resumed_fit_draws_as_an_uninterrupted_one(explicit, tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def stop(vae):
        if len(vae.history_) == 3:
            raise Enough

    settings = SMALL | dict(epochs=6)
    whole = VAE(**settings).fit(X)
    monkeypatch.setitem(train.train.__kwdefaults__, "every", 1)
    with pytest.raises(Enough):
        VAE(**settings).fit(X, checkpoint=tmp_path / "cut", after_epoch=stop)
    resumed = VAE(**settings).fit(X, checkpoint=tmp_path / "cut")
    assert resumed.transform(X).tobytes() == whole.transform(X).tobytes()


@pytest.fixture
def gpu_of_another_kind(monkeypatch):
    "PyTorch says there is a GPU, which then cannot compute, as with an old card or driver."

    def unusable(kind):
        return {
            "cpu": "",
            "mps": "PyTorch finds none",
            "cuda": "no kernel image is available for execution on the device",
        }[kind]

    monkeypatch.setattr(plan, "_unusable", unusable)


def test_a_device_that_cannot_compute_is_passed_over_or_refused(gpu_of_another_kind):
    assert torch_device("auto").type == "cpu"
    with pytest.raises(CpvaeError, match="no device 'cuda' here: no kernel image.*choose 'cpu'"):
        VAE(**SMALL | dict(device="cuda")).fit(X)


def test_a_checkpoint_of_another_device_is_refused_by_name(tmp_path, monkeypatch):
    VAE(**SMALL | dict(device="auto")).fit(X, checkpoint=tmp_path / "here")
    if torch_device("auto").type == "cpu":
        VAE(**SMALL).fit(X, checkpoint=tmp_path / "here")  # "auto" was this device
    plain = train.write_checkpoint
    monkeypatch.setattr(
        train,
        "write_checkpoint",
        lambda path, standing, about: plain(path, standing, about | {"device": "mps"}),
    )
    VAE(**SMALL).fit(X, checkpoint=tmp_path / "there")
    with pytest.raises(CheckpointError, match="device was mps, is cpu"):
        VAE(**SMALL).fit(X, checkpoint=tmp_path / "there")


def test_a_full_gpu_is_the_users_to_mend(monkeypatch):
    def full(*_, **__):
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."
        )

    monkeypatch.setattr(preset, "fit_many", full)
    config = preset.RunConfig()
    profiles = preset.prepare(
        simulate_profiles(n_mechanisms=4, n_pairs=2, n_features=20, n_maps=1), config
    )
    with pytest.raises(CpvaeError, match="memory is full.*`device='cpu'`"):
        preset.fit_models(profiles, config)


# the last three come with scikit-learn
NEEDED = {
    "torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "safetensors",
    "scipy",
    "joblib",
    "threadpoolctl",
}
BARE = """
import sys

class Bare:  # an environment that has nothing else
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Bare())
sys.path.insert(0, "tools")
import device_check
"""


@pytest.mark.slow
def test_the_check_of_a_device_needs_little(tmp_path):
    names = {
        line.split(">")[0].split("<")[0] for line in settings()["requirements"].split()
    } - NEEDED
    assert {"tqdm", "anndata", "typer"} <= names
    missing = {name.replace("-learn", "").replace("-", "_") for name in names}
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(missing=missing)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_check_of_a_device_finds_nothing_wrong_here():
    assert {row[1]: row[3] for row in device_check.check("cpu") if not row[2]} == {}


def test_the_check_of_a_device_sees_what_is_wrong(monkeypatch):
    monkeypatch.setattr(device_check, "CHECKS", {"seeds": device_check.same_seed})
    assert [row[2] for row in device_check.check("cpu")] == [True]

    def unseeded(n, batch_size, generator):
        return torch.randperm(n).tensor_split(-(-n // batch_size))

    monkeypatch.setattr(train, "batches", unseeded)
    assert [row[2] for row in device_check.check("cpu")] == [False]
