"""The authors' recipe against plain numpy, written from the formulas alone; scikit-learn's
contract; what a saved model may be.
"""

from itertools import permutations
from types import SimpleNamespace

import pandas as pd
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from cpvae.model.losses import mmd
from cpvae.model.codes import collapse_note, latent_units, posterior
from cpvae.model.network import Network, Objective, _Trainable
from cpvae.model.presets import PRESETS, make_vae
from cpvae.model.store import load_model, save_model
from cpvae.model.vae import VAE
from cpvae.model.plan import Plan
from cpvae.model import store, train as train_module
from cpvae.model.train import Standing, evaluate, train_epoch

PAPER = [preset for preset in PRESETS if preset != "recommended"]


def leaky(a):
    return np.where(a > 0, a, 0.3 * a)


def head(a, weights, units):
    """Some of the heads' units: linear, batch normalisation by the batch's own mean and (biased)
    variance with Keras' epsilon, leaky rectifier.
    """
    weight, bias, scale, shift = (
        weights[f"heads.{name}"][units] for name in ("0.weight", "0.bias", "1.weight", "1.bias")
    )
    a = a @ weight.T + bias
    return leaky(scale * (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-3) + shift)


def forward(x, weights, noise):
    "One hidden layer on each side, two heads, a draw, linear output."
    hidden = leaky(x @ weights["encoder.0.weight"].T + weights["encoder.0.bias"])
    mu, logvar = head(hidden, weights, slice(None, 5)), head(hidden, weights, slice(5, None))
    z = mu + np.exp(logvar / 2) * noise
    return (
        mu,
        logvar,
        z,
        leaky(z @ weights["decoder.0.weight"].T + weights["decoder.0.bias"])
        @ weights["decoder.2.weight"].T
        + weights["decoder.2.bias"],
    )


def kernel_sum(u, v):
    "Mean over all pairs of exp(-mean over units of the squared difference / number of units)."
    d = u.shape[1]
    return np.mean([[np.exp(-np.mean((a - b) ** 2) / d) for b in v] for a in u])


@pytest.mark.parametrize("preset", PAPER)
@pytest.mark.parametrize("variant", ["vanilla", "beta", "mmd"])
def test_the_authors_loss_is_what_its_formula_says(preset, variant):
    vae = make_vae(variant, preset)
    network = Network(17, (12,), 5, vae.heads, generator=torch.Generator().manual_seed(1)).train()
    with torch.no_grad():
        for name, value in network.named_parameters():
            # biases, too, must matter
            value.add_(
                0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name)))
            )
    weights = {k: v.double().numpy() for k, v in network.state_dict().items()}
    x = np.random.default_rng(2).normal(0.5, 0.4, (23, 17))
    generator = torch.Generator().manual_seed(3)
    noise, prior = (torch.randn(23, 5, generator=generator).double().numpy() for _ in range(2))
    mu, logvar, z, x_hat = forward(x, weights, noise)
    squared = 17 * np.mean((x - x_hat) ** 2)  # features times the mean over features and profiles
    kl = np.mean(-0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1))
    mmd = kernel_sum(z, z) + kernel_sum(prior, prior) - 2 * kernel_sum(z, prior)
    objective = Objective(vae.beta, vae.mmd_weight, vae.likelihood, vae.kernel, vae.kl_warmup)
    parts = objective(
        network, torch.tensor(x, dtype=torch.float32), torch.Generator().manual_seed(3), 0.0
    )
    assert parts["sse"].item() == pytest.approx(squared, rel=1e-4)
    assert parts["kl"].item() == pytest.approx(kl, rel=1e-4)
    expected = squared + vae.beta * kl
    if variant == "mmd":
        assert parts["mmd"].item() == pytest.approx(mmd, rel=1e-3, abs=1e-6)
        expected = squared + vae.mmd_weight * parts["mmd"].item()
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_layers_begin_and_move_as_keras_has_it():
    network = Network(200, (100,), 20, "chow2022", generator=torch.Generator().manual_seed(0))
    mean, spread = network.heads[0].weight.chunk(2)  # one layer, two heads
    for weight in (
        network.encoder[0].weight,
        mean,
        spread,
        network.decoder[0].weight,
        network.decoder[2].weight,
    ):
        bound = np.sqrt(6 / sum(weight.shape))  # Glorot's
        assert 0.97 * bound < weight.abs().max().item() <= bound
    assert not any(
        p.any()
        for name, p in network.named_parameters()
        if name.endswith("bias") and not name.startswith("heads.1")
    )
    norm, x = network.heads[1], torch.randn(64, 200, generator=torch.Generator().manual_seed(1))
    network.train().encode(x)
    before = network.heads[0](network.encoder(x)).detach()
    # momentum .99 in Keras' words
    assert norm.running_mean.numpy() == pytest.approx(0.01 * before.mean(0).numpy(), abs=1e-6)
    assert norm.running_var.numpy() == pytest.approx(0.99 + 0.01 * before.var(0).numpy(), rel=1e-5)


def test_adam_moves_as_its_formula_says():
    class Bowl(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([3.0, -1.0, 1e-4]))

        def loss_parts(self, x, generator, done):
            return {"loss": (self.w**2 * torch.tensor([1.0, 10.0, 1.0])).sum()}

    bowl, plan = Bowl(), Plan(4, batch_size=8, schedule="constant", learning_rate=0.01)
    standing = Standing.new(bowl, plan, 8)
    for _ in range(4):
        train_epoch(standing, torch.zeros(8, 1), plan)
    w, m, v = np.array([3.0, -1.0, 1e-4]), np.zeros(3), np.zeros(3)
    for t in range(1, 5):
        g = 2 * w * [1, 10, 1]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    assert bowl.w.detach().numpy() == pytest.approx(w, abs=1e-6)


def test_of_epochs_that_are_equally_good_the_first_is_kept():
    module = torch.nn.Linear(2, 1, bias=False)
    one, two = (Standing(module, None, None, None) for _ in range(2))
    for losses, weight in (
        ([3.0, 1.0], 1.0),
        ([2.0, 1.0], 2.0),
        ([2.0, 0.5], 3.0),
        ([4.0, 0.5], 4.0),
    ):
        torch.nn.init.constant_(module.weight, weight)
        one.history.append({"valid_loss": losses[0]})
        one.keep_if_best("valid_loss")
    assert (one.best_epoch, one.best["weight"].tolist()) == (2, [[2.0, 2.0]])
    module.weight = torch.nn.Parameter(torch.zeros(2, 1))  # of two models
    for losses, weight in (
        ([3.0, 1.0], 1.0),
        ([2.0, 1.0], 2.0),
        ([2.0, 0.5], 3.0),
        ([4.0, 0.5], 4.0),
    ):
        torch.nn.init.constant_(module.weight, weight)
        two.history.append({"valid_loss": losses})
        two.keep_if_best("valid_loss")
    assert (two.best_epoch, two.best["weight"].tolist()) == ([2, 3], [[2.0], [3.0]])


def test_shuffled_heads_or_a_forgotten_rectifier_would_show():
    "The two checks above can fail: leaving out either part of a head changes the loss."
    x = torch.randn(23, 17, generator=torch.Generator().manual_seed(0))
    seeded = lambda: torch.Generator().manual_seed(3)
    losses = {}
    for heads in ("linear", "leaky", "chow2022"):
        network = Network(17, (12,), 5, heads, generator=seeded()).train()
        losses[heads] = Objective(1.0, 0.0, "squared_error", "chow2022")(network, x, seeded())[
            "kl"
        ].item()
    assert len({round(v, 3) for v in losses.values()}) == 3


@parametrize_with_checks(
    [
        VAE(n_latent=2, hidden_layer_sizes=(8,), epochs=2),
        make_vae("mmd", "chow2022", code="mean", n_latent=2, hidden_layer_sizes=(8,), epochs=2),
    ]
)
def test_check_estimator(estimator, check):
    check(estimator)


def test_sampled_codes_are_declared():
    """A draw depends on a profile's place in the table, which scikit-learn's checks would hold
    against a model that hides it.
    """
    assert (
        make_vae("beta", "chow2022").__sklearn_tags__().non_deterministic
        and not make_vae("beta").__sklearn_tags__().non_deterministic
    )


@pytest.mark.slow
def test_in_a_pipeline_and_a_search():
    r = np.random.default_rng(0)
    x = pd.DataFrame(
        r.standard_normal((90, 2)) @ r.standard_normal((2, 12)) + 0.1 * r.standard_normal((90, 12))
    ).add_prefix("Cells_Texture_")
    steps = Pipeline(
        [
            ("scale", StandardScaler()),
            ("vae", VAE(n_latent=2, hidden_layer_sizes=(16,), steps=150, random_state=0)),
        ]
    ).set_output(transform="pandas")
    z = steps.fit(x).transform(x)
    assert list(z) == list(steps[-1].get_feature_names_out()) == [
        "vae0",
        "vae1",
    ] and z.index.equals(x.index)

    def minus_error(model, x, y=None):
        return -np.mean((model.inverse_transform(model.transform(x)) - x.to_numpy()) ** 2)

    search = GridSearchCV(
        steps, {"vae__n_latent": [1, 2], "vae__beta": [1.0, 1e3]}, scoring=minus_error, cv=3
    ).fit(x)
    assert search.best_params_ == {"vae__n_latent": 2, "vae__beta": 1.0}
    with pytest.raises(TypeError):
        VAE().fit(x, sample_weight=np.ones(90))


def test_two_devices_are_one_where_there_is_only_a_processor():
    x = np.random.default_rng(0).standard_normal((60, 8)).astype("float32")
    small = dict(n_latent=2, hidden_layer_sizes=(8,), epochs=2, random_state=0)
    there = torch.cuda.is_available() or torch.backends.mps.is_available()
    if not there:
        assert (
            VAE(device="auto", **small).fit(x).transform(x).tobytes()
            == VAE(device="cpu", **small).fit(x).transform(x).tobytes()
        )
        with pytest.raises(ValueError, match="no device 'cuda' here: PyTorch finds none"):
            VAE(device="cuda", **small).fit(x)
    else:
        assert VAE(device="auto", **small).fit(x).transform(x) == pytest.approx(
            VAE(device="cpu", **small).fit(x).transform(x), abs=0.05
        )


def test_trainable_passes_on_what_is_done():
    network = Network(4, (3,), 2, generator=torch.Generator().manual_seed(0))
    module = _Trainable(network, Objective(2.0, 0.0, "squared_error", "gaussian", kl_warmup=0.5))
    loss = [
        module.loss_parts(torch.ones(5, 4), torch.Generator().manual_seed(1), done)
        for done in (0.0, 0.25, 1.0)
    ]
    assert [((p["loss"] - p["sse"]) / p["kl"]).item() for p in loss] == pytest.approx(
        [0, 1, 2], abs=1e-4
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(likelihood="gaussian"),
        dict(likelihood="squared_error"),
        dict(beta=0.0, mmd_weight=10.0),
        dict(beta=4.0),
        dict(encoder="point"),
    ],
    ids=["shared", "gaussian", "squared error", "mmd", "beta", "point"],
)
def test_the_mode_explains_a_profile_best(settings):
    """Beside scipy's own search, from the same guess, for what the decoder, the learned variances
    and the price of the code say.
    """
    rng = np.random.default_rng(3)
    x = (
        np.tanh(rng.normal(size=(400, 2)) @ rng.normal(0, 1.5, (2, 12)))
        + 0.2 * rng.standard_normal((400, 12))
    ).astype("float32")
    vae = VAE(n_latent=3, hidden_layer_sizes=(24,), steps=400, random_state=0, **settings).fit(
        x[:300], X_valid=x[300:]
    )
    guess, found = posterior(vae, x[300:])[0].numpy(), vae.transform(x[300:])
    precision = (
        2.0
        if vae.likelihood == "squared_error"
        else np.exp(-vae.network_.feature_logvar.detach().numpy().astype(float))
    )
    price = vae.beta if vae.encoder == "gaussian" else 0.0

    layers = [layer for layer in vae.network_.decoder if isinstance(layer, torch.nn.Linear)]
    layers = [
        (layer.weight.detach().numpy().astype(float), layer.bias.detach().numpy().astype(float))
        for layer in layers
    ]

    def cost(z, own):
        hidden = leaky(layers[0][0] @ z + layers[0][1])
        return float(
            (precision * (own - layers[1][0] @ hidden - layers[1][1]) ** 2).sum()
            + price * np.square(z).sum()
        )

    best, mine, first = [], [], []
    for own, start, code in zip(x[300:340].astype(float), guess.astype(float), found.astype(float)):
        best.append(
            minimize(
                cost,
                start,
                args=(own,),
                method="Nelder-Mead",
                options={"xatol": 1e-4, "fatol": 1e-6, "maxiter": 2000},
            ).fun
        )
        mine.append(cost(code, own))
        first.append(cost(start, own))
    best, mine, first = map(np.array, (best, mine, first))
    assert (mine <= first * (1 + 1e-5)).all()
    assert (first - mine).sum() > 0.8 * (first - best).sum() > 0  # most of what there is to gain
    assert np.median(mine / best) < 1.01


@pytest.mark.parametrize(
    "settings",
    [{}, dict(beta=0.0), dict(encoder="point"), dict(likelihood="gaussian", beta=0.0)],
    ids=["priced", "free", "point", "by feature"],
)
def test_a_decoder_that_says_nothing_leaves_codes_finite(settings):
    x = np.random.default_rng(0).standard_normal((150, 6)).astype("float32")
    vae = VAE(n_latent=2, hidden_layer_sizes=(8,), steps=10, random_state=0, **settings).fit(x)
    x[7] = 1e19  # a profile whose square no single-precision number can be
    assert np.isfinite(vae.transform(x)).all()
    with torch.no_grad():
        for weight in vae.network_.decoder.parameters():
            weight.zero_()
    assert np.isfinite(vae.transform(x)).all()  # no unit moves anything


def test_a_code_does_not_depend_on_its_company():
    x = np.random.default_rng(0).standard_normal((300, 12)).astype("float32")
    vae = VAE(n_latent=3, hidden_layer_sizes=(24,), steps=60, random_state=0).fit(x)
    whole = vae.transform(x)
    assert np.abs(whole - np.concatenate([vae.transform(x[[i]]) for i in range(300)])).max() < 1e-6
    order = np.random.default_rng(1).permutation(300)
    assert np.abs(vae.transform(x[order]) - whole[order]).max() < 1e-6
    assert len(vae.transform(x[:1])) == 1


@pytest.mark.parametrize("name", ["ae", "pca-mlp"])
def test_rivals_have_a_part_taken_away(name, tmp_path):
    rng = np.random.default_rng(0)
    x = (
        np.tanh(rng.normal(size=(500, 2)) @ rng.normal(0, 2, (2, 15)))
        + 0.1 * rng.standard_normal((500, 15))
    ).astype("float32")
    model = make_vae(name, n_latent=2, hidden_layer_sizes=(32,), steps=600, random_state=0).fit(
        x[:400], X_valid=x[400:]
    )
    assert (model.history_.train_kl == 0).all() and (model.latent_units_.kl == 0).all()
    pca = PCA(2).fit(x[:400])
    left = lambda m: float(np.square(x[400:] - m.inverse_transform(m.transform(x[400:]))).mean())
    assert left(model) < left(pca)
    other = make_vae(
        name, n_latent=2, hidden_layer_sizes=(32,), steps=600, random_state=0, beta=50.0
    ).fit(x[:400], X_valid=x[400:])
    assert np.array_equal(other.transform(x), model.transform(x))  # no code costs anything
    save_model(model, tmp_path)
    assert load_model(tmp_path).transform(x).tobytes() == model.transform(x).tobytes()
    if name == "pca-mlp":
        expected = pca.transform(x[400:]) / np.sqrt(pca.explained_variance_)
        np.testing.assert_allclose(model.transform(x[400:]), expected, atol=1e-3)
        assert not any(p.requires_grad for p in model.network_.heads.parameters())


def test_a_unit_is_active_above_a_hundredth_and_half_of_the_units_are_no_collapse():
    "Fixed codes whose variance is known: components of unit variance, made smaller."
    x = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    vae = VAE(n_latent=4, hidden_layer_sizes=(4,), encoder="pca", beta=0.0, code="mean", steps=1)
    vae.fit(x)
    small = torch.tensor([1, 1, 0.0102, 0.0098]).sqrt()
    with torch.no_grad():
        vae.network_.heads.weight.mul_(small[:, None])
        vae.network_.heads.bias.mul_(small)
    units = latent_units(vae, x)
    # the variance of a hundred profiles, not its estimate
    np.testing.assert_allclose(units["variance"], 0.99 * small.square().numpy(), rtol=1e-4)
    assert units["active"].tolist() == [True, True, True, False]
    for active, collapsed in ((1, True), (2, False), (3, False)):
        vae.latent_units_ = units.assign(active=np.arange(4) < active)
        assert bool(collapse_note(vae)) == collapsed


def test_a_sampled_code_strays_from_its_mean_as_far_as_the_posterior_says():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(2000, 8))
    vae = VAE(n_latent=2, hidden_layer_sizes=(16,), steps=200, random_state=0, code="sample")
    mu, logvar = (part.numpy() for part in posterior(vae.fit(x.astype(np.float32)), x))
    sd = np.exp(logvar / 2)
    assert sd.mean() < 0.6  # far from one, where a variance is a standard deviation
    assert ((vae.transform(x) - mu) / sd).std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "so_far, best, epochs, over",
    [(7, 4, 100, False), (8, 4, 100, True), (3, 1, 3, True), (5, 0, 100, False)],
)
def test_patience_counts_from_the_best_epoch(so_far, best, epochs, over):
    kept = {"weight": torch.ones(1)} if best else {}
    standing = SimpleNamespace(history=[{}] * so_far, best=kept, best_epoch=best)
    assert train_module.ended(standing, Plan(epochs, patience=4)) is over


def test_a_checkpoint_is_written_every_so_many_epochs_and_at_the_end(tmp_path, monkeypatch):
    at = []
    monkeypatch.setattr(
        train_module,
        "write_checkpoint",
        lambda path, standing, about: at.append(len(standing.history)),
    )
    network = Network(3, (3,), 2, generator=torch.Generator().manual_seed(0))
    module = _Trainable(network, Objective(0.0, 0.0, "squared_error", "gaussian"))
    train_module.train(module, torch.ones(40, 3), None, Plan(7), checkpoint=tmp_path / "c", every=3)
    assert at == [3, 6, 7]


def test_an_epoch_tells_the_mean_over_profiles_whatever_the_batches():
    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def loss_parts(self, x, generator, done):  # means over the batch
            return {"loss": x.mean() + 0 * self.w.sum(), "twice": 2 * x.mean()}

    plan, x = Plan(1, batch_size=4), torch.arange(10.0)[:, None]  # batches of 4, 4 and 2
    log = train_epoch(Standing.new(Told(), plan, 10), x, plan)
    assert log == pytest.approx({"loss": 4.5, "twice": 9.0})
    assert evaluate(Told(), x, seed=0, block=4) == pytest.approx({"loss": 4.5, "twice": 9.0})


def test_mmd_of_samples_of_unequal_size_is_a_mean_over_their_pairs():
    rng = np.random.default_rng(0)
    z, prior = rng.normal(size=(3, 2)), rng.normal(size=(6, 2))
    kernel = lambda u, v: np.exp(-np.square(u - v).sum() / (2 * 0.7**2))
    within = lambda x: np.mean([kernel(u, v) for u, v in permutations(x, 2)])
    between = np.mean([kernel(u, v) for u in z for v in prior])
    found = mmd(torch.tensor(z), torch.tensor(prior), 0.7)
    assert float(found) == pytest.approx(within(z) + within(prior) - 2 * between)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_vae_takes_two_profiles_and_no_fewer(rows):
    small = VAE(n_latent=1, hidden_layer_sizes=(2,), epochs=1, batch_size=2)
    x = np.arange(3.0 * rows).reshape(rows, 3)
    assert small.fit(x).transform(x).shape == (rows, 1)
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        small.fit(x[:1])


@pytest.mark.parametrize(
    "change, belongs",
    [
        ({}, True),
        ({"n_features": 4, "features": list("abcd")}, False),  # no tensor is so wide
        ({"features": list("ab")}, False),  # two names of three
        ({"params": {"n_latent": 3, "hidden_layer_sizes": [5]}}, False),  # no layer of five
    ],
)
def test_weights_and_their_config_belong_together(change, belongs):
    config = {"class": "VAE", "n_features": 3, "features": list("abc")}
    config |= {"params": {"n_latent": 2, "hidden_layer_sizes": [6]}} | change
    tensors = {"encoder": torch.zeros(6, 3), "heads": torch.zeros(2, 6)}
    if belongs:
        store._check_belonging(config, tensors)
    else:
        with pytest.raises(ValueError, match="do not belong together"):
            store._check_belonging(config, tensors)
