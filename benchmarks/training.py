"""How fast models train: cpvae beside its bare matrix products and beside pythae, and how time and memory grow with rows.

`make bench` makes an environment that also holds pythae 0.1.2 and runs this; about ten minutes on two cores.

epoch   one epoch of one VAE at the shape of LINCS level 5 (8,294 x 588, 250 hidden, 10 latents, batches of 96) and of L1000 (94,440 x 978, 500,
        65, 512): the matrix products alone, cpvae and pythae (the same layers, squared error + KL), taking turns in one process
family  the six VAEs of a run (three variants, real and shuffled) and six with the squared error + KL that pythae has, cpvae on two processes
        of one thread; pythae one after another with one and with two threads, and on two processes
stack   six VAEs in one computation of batched products, beside six computations
growth  fitting and encoding 10,000 to 1,000,000 x 600 profiles, each in a process of its own

Profiles are random numbers, whose values do not change the work. The tables go to benchmarks/training.csv and benchmarks/training.png.
"""

import argparse
import contextlib
import csv
import datetime
import io
import json
import logging
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import nn

from cpvae.fits import fit_many
from cpvae.models import VAE, Network, Objective, _Trainable, make_vae
from cpvae.training import Plan, Standing, train_epoch

HERE = Path(__file__).resolve().parent
SHAPES = {"level 5": (8294, 588, 250, 10, 96), "L1000": (94_440, 978, 500, 65, 512)}  # rows, features, hidden, latents, batch
ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000)


# ---- the contenders: functions of a shape and a matrix that give a function that trains for one epoch ---------------------


def products(shape, x):
    "The matrix products of an epoch: forward, and backward but for the gradient of the input."
    n, g, h, latent, b = shape
    batch, hidden, code = x[:b].clone(), torch.randn(b, h), torch.randn(b, latent)
    encoder, mu, logvar, expand, decoder = torch.randn(h, g), torch.randn(latent, h), torch.randn(latent, h), torch.randn(h, latent), torch.randn(g, h)
    error, slope, pull = torch.randn(b, g), torch.randn(b, h), torch.randn(b, latent)

    def epoch():
        for _ in range(math.ceil(n / b)):
            batch @ encoder.T, hidden @ mu.T, hidden @ logvar.T, code @ expand.T, hidden @ decoder.T
            error.T @ hidden, error @ decoder, slope.T @ code, slope @ expand
            pull.T @ hidden, pull @ mu, pull.T @ hidden, pull @ logvar, slope.T @ batch

    return epoch


def ours(shape, x, preset="plain"):
    "cpvae's own training step; plain: squared error and KL, constant learning rate, no clipping, which is what pythae does."
    n, g, h, latent, b = shape
    likelihood = "squared_error" if preset == "plain" else "shared"
    network = Network(g, (h,), latent, shared=True, generator=torch.Generator().manual_seed(0))
    module = _Trainable(network, Objective(1.0, 0.0, likelihood, "gaussian"))
    plan = Plan(10_000, batch_size=b, **({"schedule": "constant"} if preset == "plain" else {"clip": 0.3}))
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
            self.hidden, self.mu, self.logvar = nn.Sequential(nn.Linear(g, h), nn.LeakyReLU(0.3)), nn.Linear(h, latent), nn.Linear(h, latent)

        def forward(self, x):
            hidden = self.hidden(x)
            return ModelOutput(embedding=self.mu(hidden), log_covariance=self.logvar(hidden))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(latent, h), nn.LeakyReLU(0.3), nn.Linear(h, g))

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    model = Theirs(VAEConfig(input_dim=(g,), latent_dim=latent, reconstruction_loss="mse"), Encoder(), Decoder())
    config = BaseTrainerConfig(output_dir=os.path.join(os.environ.get("TMPDIR", "/tmp"), "pythae"), num_epochs=1, learning_rate=1e-3, per_device_train_batch_size=b, no_cuda=True)
    trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(n)), training_config=config)
    trainer.prepare_training()
    count = iter(range(1, 10_000))

    def epoch():
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_step(next(count))

    return epoch


# ---- measuring ------------------------------------------------------------------------------------------------------------


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
    return dict(what=what, contender=contender, seconds=round(statistics.median(seconds), 4), least=round(min(seconds), 4), ratio=round(ratio, 2), note=note)


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
        contenders = {"products": threads(1, products(shape, x)), "cpvae": threads(1, ours(shape, x)), "cpvae, recommended loss": threads(1, ours(shape, x, "recommended"))}
        contenders |= {"pythae": threads(1, pythaes(shape, x)), "pythae, 2 threads": threads(2, pythaes(shape, x))}
        found = turns(contenders, repeats if name == "level 5" else max(3, repeats // 4))
        table += [rows_of(f"epoch, {name}", c, s, found["products"], "ratio to the products") for c, s in found.items()]
    return table


def family(repeats, epochs=12):
    "The six VAEs of a run."
    shape = SHAPES["level 5"]
    n, g, h, latent, b = shape
    x = np.random.default_rng(0).standard_normal((n, g), dtype=np.float32)
    plain = dict(hidden_layer_sizes=(h,), n_latent=latent, batch_size=b, epochs=epochs, random_state=0)
    models = {(variant, shuffled): make_vae(variant, **plain) for variant in ("vanilla", "beta", "mmd") for shuffled in (False, True)}
    same = {key: make_vae("vanilla", **plain, likelihood="squared_error", schedule="constant", clip=None) for key in models}

    def cpvae(family):
        fit_many(family, x, shuffled=[key for key in family if key[1]], jobs=2)

    def theirs():
        work = pythaes(shape, torch.from_numpy(x))
        for _ in range(epochs):
            work()

    def side_by_side():
        Parallel(n_jobs=2)(delayed(one_pythae)(shape, x, epochs) for _ in models)

    contenders = {"cpvae, 2 processes": lambda: cpvae(models), "cpvae, 2 processes, pythae's loss": lambda: cpvae(same)}
    contenders |= {f"pythae, {t} thread{'s' * (t > 1)}": threads(t, lambda: [theirs() for _ in models]) for t in (1, 2)}
    found = turns(contenders | {"pythae, 2 processes": side_by_side}, max(2, repeats // 4))
    note = f"six fits of {epochs} epochs; ratio to cpvae with the same loss"
    return [rows_of("family, level 5", c, s, found["cpvae, 2 processes, pythae's loss"], note) for c, s in found.items()]


def one_pythae(shape, x, epochs):
    "A fit by pythae on one thread."
    torch.set_num_threads(1)
    work = pythaes(shape, torch.from_numpy(x.copy()))  # a worker may only read its own
    for _ in range(epochs):
        work()


def stacks(g, h, latent, b, k):
    "Functions that take 50 steps of k models, as one batched computation and one by one, after a check that they compute the same."

    def loss(x, w, noise, product):
        hidden = nn.functional.leaky_relu(product(x, w[0]), 0.3)
        mu, logvar = product(hidden, w[1]).chunk(2, -1)
        z = mu + (0.5 * logvar).exp() * noise
        x_hat = product(nn.functional.leaky_relu(product(z, w[2]), 0.3), w[3])
        return (x_hat - x).square().sum() + 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum()

    x, noise = torch.randn(k, b, g), torch.randn(k, b, latent)
    together = [(0.05 * torch.randn(k, *s)).requires_grad_() for s in ((g, h), (h, 2 * latent), (latent, h), (h, g))]
    apart = [[w[i].detach().clone().requires_grad_() for w in together] for i in range(k)]

    def stacked():
        for _ in range(50):
            found = torch.autograd.grad(loss(x, together, noise, torch.bmm), together)
        return found

    def separate():
        for _ in range(50):
            found = [torch.autograd.grad(loss(x[i], apart[i], noise[i], torch.mm), apart[i]) for i in range(k)]
        return found

    assert all(torch.allclose(all_[-1], one, rtol=1e-3, atol=1e-3) for all_, one in zip(stacked(), separate()[-1], strict=True))
    return separate, stacked


def stack(repeats, k=6):
    "Six models as one batched computation, and as six: forward and backward of squared error + KL, without the optimiser."
    table = []
    for name, sizes in {"level 5": SHAPES["level 5"][1:], "small (60 features, 32 hidden)": (60, 32, 10, 64)}.items():
        separate, stacked = stacks(*sizes, k)
        found = turns({"six computations": threads(1, separate), "one batched computation": threads(1, stacked)}, repeats)
        table += [rows_of(f"stack, {name}", c, s, found["six computations"], "50 steps of six models") for c, s in found.items()]
    return table


def growth():
    "Fits of more and more rows, each in a process of its own."
    table = []
    for n in ROWS:
        done = subprocess.run([sys.executable, __file__, "--grow", str(n)], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        for what in ("2,000 steps", "one epoch", "encoding"):
            table.append(dict(what="growth", contender=f"{n:,} x 600, {what}", seconds=round(found[what], 2), least="", ratio="", note=f"peak {found['peak']:,.0f} MiB"))
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


# ---- results --------------------------------------------------------------------------------------------------------------


def draw(table, path):
    "Ratios on the left, growth on the right."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    bars = [r for r in table if r["what"] == "epoch, level 5"]
    left.barh([r["contender"] for r in bars], [r["ratio"] for r in bars], color=["#7F7F7F", "#0072B2", "#56B4E9", "#D55E00", "#E69F00"])
    left.axvline(1, color="black", lw=1, ls=":")
    left.set(xlabel="time of an epoch / of its matrix products")
    left.invert_yaxis()
    for what, colour in (("2,000 steps", "#0072B2"), ("one epoch", "#D55E00"), ("encoding", "#009E73")):
        seconds = [r["seconds"] for r in table if r["what"] == "growth" and r["contender"].endswith(what)]
        right.loglog(ROWS, seconds, "o-", color=colour, label=what)
    right.set(xlabel="profiles of 600 features", ylabel="seconds, one thread")
    right.legend()
    fig.savefig(path, dpi=100)


def main():
    "Measure, print and write."
    parser = argparse.ArgumentParser(description="How fast models train, beside matrix products and pythae.")
    parser.add_argument("--repeats", type=int, default=12, help="turns of each contender")
    parser.add_argument("--out", type=Path, default=HERE / "training.csv")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.grow:
        return grow(given.grow)
    table = []
    for part in (lambda: epoch(given.repeats), lambda: family(given.repeats), lambda: stack(given.repeats), growth):
        table += (new := part())
        for row in new:
            print(*row.values(), sep="  ", flush=True)
    where = f"{datetime.date.today()}; {os.cpu_count()} cores ({platform.machine()}); {platform.system()}; Python {platform.python_version()}; " + ", ".join(f"{p} {version(p)}" for p in ("cpvae", "torch", "pythae", "numpy"))
    with given.out.open("w", encoding="utf-8", newline="") as file:
        print(f"# {where}; {given.repeats} turns, taken in one process; load at the end {os.getloadavg()[1]:.1f}", file=file)
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    draw(table, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
