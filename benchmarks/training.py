"""How fast models train: cpvae beside its bare matrix products and beside pythae, and how time and
memory grow with rows.

`make bench` makes an environment that also holds pythae 0.1.2 and runs this; about ten minutes on
two cores.

epoch   one epoch of one VAE at the shape of LINCS level 5 (8,294 x 588, 250 hidden, 10 latents,
    batches of 96) and of L1000 (94,440 x 978, 500,
        65, 512): the matrix products alone, cpvae and pythae (the same layers, squared error + KL),
        taking turns in one process
family  the six VAEs of a run (three variants, real and shuffled) and six with the squared error +
    KL that pythae has, cpvae on two processes
        of one thread; pythae one after another with one and with two threads, and on two processes
together  whole fits of several VAEs as one computation, beside the same fits one after another, one
    thread
growth  fitting and encoding 10,000 to 1,000,000 x 600 profiles, each in a process of its own

Profiles are random numbers, whose values do not change the work. The tables go to
benchmarks/training.csv and benchmarks/training.png, where they come from to
benchmarks/provenance.json.
"""

import argparse
import contextlib
import io
import json
import logging
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from torch import nn

from cpvae.model.fits import fit_many
from cpvae.model.network import Network, Objective, _Trainable
from cpvae.model.presets import make_vae
from cpvae.model.vae import VAE, fit_together
from cpvae.model.plan import Plan
from cpvae.model.train import Standing, train_epoch
from cpvae.threads import one_thread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "nbs/paper/tables"))
from provenance import machine, write_table  # noqa: E402

HERE = Path(__file__).resolve().parent
# rows, features, hidden, latents, batch
SHAPES = {"level 5": (8294, 588, 250, 10, 96), "L1000": (94_440, 978, 500, 65, 512)}
# features, hidden, models
TOGETHER = (
    (60, (32,), 6),
    (300, (64,), 6),
    (300, (128,), 6),
    (344, (250,), 3),
    (588, (250,), 3),
    (344, (500, 250), 3),
    (978, (500, 250), 3),
)
ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)


# ---- the contenders: functions of a shape and a matrix that give a function that trains for one ep


def products(shape, x):
    "The matrix products of an epoch: forward, and backward but for the gradient of the input."
    n, g, h, latent, b = shape
    batch, hidden, code = x[:b].clone(), torch.randn(b, h), torch.randn(b, latent)
    encoder = torch.randn(h, g)
    mu = torch.randn(latent, h)
    logvar = torch.randn(latent, h)
    expand = torch.randn(h, latent)
    decoder = torch.randn(g, h)
    error, slope, pull = torch.randn(b, g), torch.randn(b, h), torch.randn(b, latent)

    def epoch():
        for _ in range(math.ceil(n / b)):
            batch @ encoder.T, hidden @ mu.T, hidden @ logvar.T, code @ expand.T, hidden @ decoder.T
            error.T @ hidden, error @ decoder, slope.T @ code, slope @ expand
            pull.T @ hidden, pull @ mu, pull.T @ hidden, pull @ logvar, slope.T @ batch

    return epoch


def ours(shape, x, preset="plain"):
    """cpvae's own training step; plain: squared error and KL, constant learning rate, no clipping,
    which is what pythae does.
    """
    n, g, h, latent, b = shape
    likelihood = "squared_error" if preset == "plain" else "shared"
    network = Network(g, (h,), latent, shared=True, generator=torch.Generator().manual_seed(0))
    module = _Trainable(network, Objective(1.0, 0.0, likelihood, "gaussian"))
    plan = Plan(
        10_000, batch_size=b, **({"schedule": "constant"} if preset == "plain" else {"clip": 0.3})
    )
    standing = Standing.new(module, plan, n)

    def epoch():
        train_epoch(standing, x, plan)
        standing.history.append({})

    return epoch


def pythaes(shape, x):
    "pythae's trainer on the same layers."
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as Theirs
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    n, g, h, latent, b = shape
    logging.disable(logging.CRITICAL)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden, self.mu, self.logvar = (
                nn.Sequential(nn.Linear(g, h), nn.LeakyReLU(0.3)),
                nn.Linear(h, latent),
                nn.Linear(h, latent),
            )

        def forward(self, x):
            hidden = self.hidden(x)
            return ModelOutput(embedding=self.mu(hidden), log_covariance=self.logvar(hidden))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(latent, h), nn.LeakyReLU(0.3), nn.Linear(h, g))

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    model = Theirs(
        VAEConfig(input_dim=(g,), latent_dim=latent, reconstruction_loss="mse"),
        Encoder(),
        Decoder(),
    )
    config = BaseTrainerConfig(
        output_dir=os.path.join(os.environ.get("TMPDIR", "/tmp"), "pythae"),
        num_epochs=1,
        learning_rate=1e-3,
        per_device_train_batch_size=b,
        no_cuda=True,
    )
    trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(n)), training_config=config)
    trainer.prepare_training()
    count = iter(range(1, 10_000))

    def epoch():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_step(next(count))

    return epoch


# ---- measuring -----------------------------------------------------------------------------------


def turns(contenders, repeats):
    "Seconds of every contender at every turn, after one turn that does not count."
    found = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if turn:
                found[name].append(time.perf_counter() - start)
    return found


def rows_of(what, contender, seconds, base, note=""):
    "A line of the table: the ratio is the median over turns of a turn's own ratio."
    ratio = statistics.median(s / b for s, b in zip(seconds, base, strict=True))
    return dict(
        what=what,
        contender=contender,
        seconds=round(statistics.median(seconds), 4),
        least=round(min(seconds), 4),
        ratio=round(ratio, 2),
        note=note,
    )


def threads(n, work):
    "Work done with so many threads."

    def wrapped():
        torch.set_num_threads(n)
        work()

    return wrapped


def epoch(repeats):
    "One epoch of one model."
    table = []
    for name, shape in SHAPES.items():
        x = torch.randn(shape[0], shape[1], generator=torch.Generator().manual_seed(0))
        contenders = {
            "products": threads(1, products(shape, x)),
            "cpvae": threads(1, ours(shape, x)),
            "cpvae, recommended loss": threads(1, ours(shape, x, "recommended")),
        }
        contenders |= {
            "pythae": threads(1, pythaes(shape, x)),
            "pythae, 2 threads": threads(2, pythaes(shape, x)),
        }
        found = turns(contenders, repeats if name == "level 5" else max(3, repeats // 4))
        table += [
            rows_of(f"epoch, {name}", c, s, found["products"], "ratio to the products")
            for c, s in found.items()
        ]
    return table


def family(repeats, epochs=12):
    "The six VAEs of a run."
    shape = SHAPES["level 5"]
    n, g, h, latent, b = shape
    x = np.random.default_rng(0).standard_normal((n, g), dtype=np.float32)
    plain = dict(
        hidden_layer_sizes=(h,), n_latent=latent, batch_size=b, epochs=epochs, random_state=0
    )
    models = {
        (variant, shuffled): make_vae(variant, **plain)
        for variant in ("vanilla", "beta", "mmd")
        for shuffled in (False, True)
    }
    same = {
        key: make_vae(
            "vanilla", **plain, likelihood="squared_error", schedule="constant", clip=None
        )
        for key in models
    }

    def cpvae(family):
        fit_many(family, x, shuffled=[key for key in family if key[1]], jobs=2)

    def theirs():
        work = pythaes(shape, torch.from_numpy(x))
        for _ in range(epochs):
            work()

    def side_by_side():
        Parallel(n_jobs=2)(delayed(one_pythae)(shape, x, epochs) for _ in models)

    contenders = {
        "cpvae, 2 processes": lambda: cpvae(models),
        "cpvae, 2 processes, pythae's loss": lambda: cpvae(same),
    }
    contenders |= {
        f"pythae, {t} thread{'s' * (t > 1)}": threads(t, lambda: [theirs() for _ in models])
        for t in (1, 2)
    }
    found = turns(contenders | {"pythae, 2 processes": side_by_side}, max(2, repeats // 4))
    note = f"six fits of {epochs} epochs; ratio to cpvae with the same loss"
    return [
        rows_of("family, level 5", c, s, found["cpvae, 2 processes, pythae's loss"], note)
        for c, s in found.items()
    ]


def one_pythae(shape, x, epochs):
    "A fit by pythae on one thread."
    torch.set_num_threads(1)
    work = pythaes(shape, torch.from_numpy(x.copy()))  # a worker may only read its own
    for _ in range(epochs):
        work()


def together(repeats, steps=60):
    """Whole fits, with noise, clipping and Adam, as one computation and one after another; from
    small networks to the preset's.
    """
    table = []
    for g, hidden, k in TOGETHER:
        x = np.random.default_rng(0).standard_normal((1000, g), dtype=np.float32)
        models = [
            VAE(random_state=i, hidden_layer_sizes=hidden, steps=steps, device="cpu")
            for i in range(k)
        ]

        def apart(models=models, x=x):
            for model in models:
                clone(model).fit(x)

        def at_once(models=models, x=x):
            fit_together([clone(model) for model in models], [x] * len(models))

        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = turns({"one after another": apart, "one computation": at_once}, repeats)
        what = f"together, {g} features, {'-'.join(map(str, hidden))} hidden"
        note = f"{k} fits of {steps} steps; ratio to one after another"
        table += [rows_of(what, c, s, found["one after another"], note) for c, s in found.items()]
    return table


def growth():
    "Fits of more and more rows, each in a process of its own."
    table = []
    for n in ROWS:
        done = subprocess.run(
            [sys.executable, __file__, "--grow", str(n)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        for what in ("2,000 steps", "one epoch", "encoding"):
            table.append(
                dict(
                    what="growth",
                    contender=f"{n:,} x 600, {what}",
                    seconds=round(found[what], 2),
                    least=None,
                    ratio=None,
                    note=f"peak {found['peak']:,.0f} MiB",
                )
            )
    return table


def grow(n):
    "Fit and encode so many rows; print seconds and the process's peak memory."
    x = np.random.default_rng(0).standard_normal((n, 600), dtype=np.float32)
    found = {}
    for what, settings in (("2,000 steps", {}), ("one epoch", dict(epochs=1))):
        start = time.perf_counter()
        model = VAE(random_state=0, **settings).fit(x)
        found[what] = time.perf_counter() - start
    start = time.perf_counter()
    model.transform(x)
    found["encoding"] = time.perf_counter() - start
    print(json.dumps(found | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


# ---- results -------------------------------------------------------------------------------------


def draw(table, path):
    "Ratios on the left, growth on the right."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    bars = [r for r in table if r["what"] == "epoch, level 5"]
    left.barh(
        [r["contender"] for r in bars],
        [r["ratio"] for r in bars],
        color=["#7F7F7F", "#0072B2", "#56B4E9", "#D55E00", "#E69F00"],
    )
    left.axvline(1, color="black", lw=1, ls=":")
    left.set(xlabel="time of an epoch / of its matrix products")
    left.invert_yaxis()
    for what, colour in (
        ("2,000 steps", "#0072B2"),
        ("one epoch", "#D55E00"),
        ("encoding", "#009E73"),
    ):
        seconds = [
            r["seconds"] for r in table if r["what"] == "growth" and r["contender"].endswith(what)
        ]
        right.loglog(ROWS, seconds, "o-", color=colour, label=what)
    right.set(xlabel="profiles of 600 features", ylabel="seconds, one thread")
    right.legend()
    fig.savefig(path, dpi=100)


def main():
    "Measure, print and write."
    parser = argparse.ArgumentParser(
        description="How fast models train, beside matrix products and pythae."
    )
    parser.add_argument("--repeats", type=int, default=12, help="turns of each contender")
    parser.add_argument("--out", type=Path, default=HERE / "training.csv")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.grow:
        return grow(given.grow)
    table = []
    for part in (
        lambda: epoch(given.repeats),
        lambda: family(given.repeats),
        lambda: together(max(4, given.repeats // 2)),
        growth,
    ):
        table += (new := part())
        for row in new:
            print(*row.values(), sep="  ", flush=True)
    settings = machine() | {"turns": f"{given.repeats}, taken in one process"}
    write_table(
        given.out.stem,
        pd.DataFrame(table),
        settings=settings,
        digits=6,
        packages=["pythae"],
        folder=given.out.parent,
    )
    draw(table, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
