"""Does a device do what cpvae promises? Prints a table: fits, seeds, resuming, saving, and what the
CPU says of the same.

    python tools/device_check.py            the CPU, and whatever accelerator PyTorch finds
    python tools/device_check.py cuda       one device by name, beside the CPU

Needs torch, numpy, pandas, scikit-learn and safetensors alone, and runs from a checkout that is not
installed. Exits with 1 if a check fails.
"""

import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA

sys.path.insert(0, str(Path(__file__).parents[1]))

from cpvae.model import plan
from cpvae.model.presets import PRESETS, make_vae
from cpvae.model.store import load_model, save_model
from cpvae.model.vae import VAE, fit_together

# largest difference of codes and reconstructions between devices, in standard deviations of a
# feature
SAME_WEIGHTS = 1e-3
# largest difference of the unexplained fraction between devices, means of three seeds
SAME_QUALITY = 0.02


def profiles(n: int = 800, n_features: int = 60) -> tuple[np.ndarray, np.ndarray]:
    "Training and held-out profiles on a bent surface of three dimensions, with noise."
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 3))
    bent = np.tanh(z @ rng.standard_normal((3, 24))) @ rng.standard_normal((24, n_features)) / 3
    x = (bent + 0.3 * rng.standard_normal(bent.shape)).astype(np.float32)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x[: n * 3 // 4], x[n * 3 // 4 :]


def small(device: str, **settings) -> VAE:
    "A VAE that trains in seconds."
    return VAE(
        **(
            dict(n_latent=3, hidden_layer_sizes=(64,), steps=400, random_state=0, device=device)
            | settings
        )
    )


def unexplained(model, x: np.ndarray, held_out: np.ndarray) -> float:
    "Fraction of the held-out variance about the training mean that a model leaves."
    rebuilt = model.inverse_transform(model.transform(held_out))
    return float(((held_out - rebuilt) ** 2).sum() / ((held_out - x.mean(axis=0)) ** 2).sum())


def every_variant(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    """Each preset and variant trains to the end, its loss falls, and it can encode, decode and
    sample, where it has a prior.
    """
    wrong, cases = [], [(preset, variant) for preset in PRESETS for variant in PRESETS[preset]]
    for preset, variant in cases:
        vae = make_vae(variant, preset, n_latent=3, epochs=8, random_state=0, device=device)
        vae.fit(x, X_valid=held_out)
        loss = vae.history_["train_loss"]
        shape = vae.inverse_transform(vae.transform(held_out)).shape
        drawn = vae.sample(5) if hasattr(vae, "sample") else np.zeros(1)
        if not (
            loss.iloc[-1] < loss.iloc[0] and shape == held_out.shape and np.isfinite(drawn).all()
        ):
            wrong.append(f"{preset} {variant}")
    return not wrong, ", ".join(wrong) or f"{len(cases)} of {len(cases)}"


def same_seed(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    "The same seed gives the same bytes, another seed others."
    for settings in (dict(), dict(beta=0.0, mmd_weight=100.0), dict(heads="chow2022")):
        one, two, other = (
            small(device, steps=100, random_state=s, **settings)
            .fit(x)
            .transform(held_out)
            .tobytes()
            for s in (1, 1, 2)
        )
        if one != two or one == other:
            return False, f"seeds with {settings or 'the defaults'}"
    return True, "equal; another seed differs"


def together(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    "Models that are trained in one computation end as they do alone, but for rounding."
    how = ({"beta": 1.0}, {"beta": 0.0, "mmd_weight": 100.0})
    models = [small(device, steps=20, random_state=i, **settings) for i, settings in enumerate(how)]
    alone = [clone(vae).fit(x, X_valid=held_out) for vae in models]
    both = fit_together([clone(vae) for vae in models], [x, x], [held_out, held_out])
    codes = (
        (a.transform(held_out), b.transform(held_out)) for a, b in zip(alone, both, strict=True)
    )
    apart = max(np.abs(a - b).max() / a.std() for a, b in codes)
    return bool(apart < 0.01), f"codes differ by {apart:.1e} of their spread at most"


def resume(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    """A fit that was stopped and goes on from its checkpoint ends with the weights of an
    undisturbed one.
    """

    class Stopped(Exception):
        pass

    def stop(vae):
        if len(vae.history_) == 25:
            raise Stopped

    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.safetensors"
        whole = small(device, epochs=40).fit(x, X_valid=held_out)
        try:
            small(device, epochs=40).fit(x, X_valid=held_out, checkpoint=cut, after_epoch=stop)
        except Stopped:
            pass
        kept = cut.exists()
        resumed = small(device, epochs=40).fit(x, X_valid=held_out, checkpoint=cut)
        same = resumed.transform(held_out).tobytes() == whole.transform(
            held_out
        ).tobytes() and resumed.history_.equals(whole.history_)
    return (
        kept and same,
        "equal after epoch 20 of 40" if kept and same else "differs" if kept else "no checkpoint",
    )


def save_and_load(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    "A model saved and loaded gives the same codes, and can be moved to the device to encode there."
    vae = small(device, steps=100).fit(x)
    with tempfile.TemporaryDirectory() as folder:
        save_model(vae, folder)
        again = load_model(folder)
    same = again.transform(held_out).tobytes() == vae.transform(held_out).tobytes()
    again.network_.to(device)
    gap = np.abs(again.transform(held_out) - vae.transform(held_out)).max()
    return (
        bool(same and gap < SAME_WEIGHTS),
        f"equal; moved there, codes differ by {gap:.1e} at most",
    )


def like_the_cpu(device: str, x: np.ndarray, held_out: np.ndarray) -> tuple[bool, str]:
    "The same weights compute the same there and here, and fits are of the same quality."
    vae = small("cpu").fit(x)
    codes, rebuilt = vae.transform(held_out), vae.inverse_transform(vae.transform(held_out))
    vae.network_.to(device)
    gap = max(
        np.abs(vae.transform(held_out) - codes).max(),
        np.abs(vae.inverse_transform(codes) - rebuilt).max(),
    )
    here, there = (
        np.mean(
            [
                unexplained(small(d, random_state=s).fit(x, X_valid=held_out), x, held_out)
                for s in range(3)
            ]
        )
        for d in ("cpu", device)
    )
    ok = (
        gap < SAME_WEIGHTS
        and abs(there - here) < SAME_QUALITY
        and there < unexplained(PCA(3).fit(x), x, held_out)
    )
    return (
        bool(ok),
        f"same weights: {gap:.1e} apart; unexplained {there:.3f}, on the CPU {here:.3f}",
    )


CHECKS = {
    "every preset and variant": every_variant,
    "same seed, same bytes": same_seed,
    "trained together": together,
    "resumed, same bytes": resume,
    "saved and loaded": save_and_load,
    "like the CPU": like_the_cpu,
}


def check(device: str) -> list[tuple[str, str, bool, str, float]]:
    "A row a check: device, check, whether it holds, what was seen, seconds."
    x, held_out = profiles()
    rows = []
    for name, function in CHECKS.items():
        start = time.perf_counter()
        with warnings.catch_warnings():
            # of collapsed units, in fits that are too short on purpose
            warnings.simplefilter("ignore")
            try:
                ok, seen = function(device, x, held_out)
            except Exception as error:
                ok, seen = False, f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        rows.append((device, name, ok, seen, time.perf_counter() - start))
    return rows


def main() -> None:
    "Check the devices that are named, or all there are."
    devices = sys.argv[1:] or list(dict.fromkeys(["cpu", plan.torch_device("auto").type]))
    try:
        names = ", ".join(map(plan.device_name, devices))
    except ValueError as error:
        sys.exit(f"device_check: {error}")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__};"
        f" {names}"
    )
    rows = [row for device in devices for row in check(device)]
    for device, name, ok, seen, seconds in rows:
        print(f"{device:5} {name:25} {'ok' if ok else 'FAILED':7} {seen}  ({seconds:.1f} s)")
    if "cuda" not in devices:
        print("no GPU here: what concerns one was not checked")
    sys.exit(not all(row[2] for row in rows))


if __name__ == "__main__":
    main()
