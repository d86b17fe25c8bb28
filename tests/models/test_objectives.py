"""What is minimised, against the formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import eccentric_core
from eccentric_models.objectives import Objective

N, DIM, PIXELS = 30, 3, 7


@pytest.fixture
def batch(rng):
    """Images, a linear encoder to 2 DIM numbers, a linear decoder, and noise."""
    images = rng.random((N, PIXELS))
    encode, decode = rng.standard_normal((PIXELS, 2 * DIM)), rng.standard_normal((DIM, PIXELS))
    return images, encode, decode, rng.standard_normal((N, DIM))


def evaluated(objective, batch):
    """The loss, its terms, and the codes and images that belong to them."""
    images, encode, decode, noise = batch
    encode = encode[:, : objective.codes_per_dim * DIM]
    loss, terms = objective.loss(lambda x: x @ encode, lambda z: z @ decode, images, noise)
    assert np.ndim(loss) == np.ndim(terms.reconstruction) == np.ndim(terms.penalty) == 0
    # The mean over all pixels of all images.
    expected = sum((terms.latents[i] @ decode - images[i]) @ (terms.latents[i] @ decode - images[i]) for i in range(N))
    assert terms.reconstruction == pytest.approx(expected / (N * PIXELS), rel=1e-13)
    assert loss == pytest.approx(terms.reconstruction + objective.lam * terms.penalty, rel=1e-15)
    return terms, images @ encode


@pytest.mark.parametrize("lam", [0.0, 1e-3, 2.5])
@pytest.mark.parametrize(("mu", "scale"), [(1.0, "paper"), (2.0, "exact"), (1.5, 4.0)])
def test_eccentric(batch, lam, mu, scale):
    """The mean of K(x, y) = (|x|^2 + |y|^2)/2 - mu M log(1 + |x - y|^2/M) over pairs."""
    terms, code = evaluated(Objective("eccentric", lam, mu, scale), batch)
    assert np.array_equal(terms.latents, code)
    M = scale if isinstance(scale, float) else eccentric_core.kernel_scale(DIM, mu, method=scale)
    energies = [
        (x @ x + y @ y) / 2 - mu * M * np.log(1 + (x - y) @ (x - y) / M)
        for i, x in enumerate(code)
        for y in code[i + 1 :]
    ]
    assert terms.penalty == pytest.approx(np.mean(energies), rel=1e-12)


def test_wae(batch):
    """The discrepancy of the latents from the noise, as Tolstikhin et al. have it, with their seven scales."""
    terms, code = evaluated(Objective("wae", 10.0), batch)
    noise, total = batch[3], 0.0
    assert np.array_equal(terms.latents, code)
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2 * DIM * scale

        def mean(x, y, c=c):
            return (c / (c + np.sum((x[:, None] - y) ** 2, axis=-1))).mean()

        total += sum((N * mean(x, x) - 1) / (N - 1) for x in (code, noise)) - 2 * mean(code, noise)
    assert terms.penalty == pytest.approx(total, rel=1e-12)


def test_vae(batch):
    """The divergence of the normal distributions, by the general formula, and a draw from them."""
    terms, code = evaluated(Objective("vae", 0.1), batch)
    mean, variance = code[:, :DIM], np.exp(code[:, DIM:])
    np.testing.assert_allclose(terms.latents, mean + np.sqrt(variance) * batch[3], rtol=1e-14)
    divergence = [
        0.5 * (np.trace(np.diag(v)) + m @ m - DIM - np.linalg.slogdet(np.diag(v))[1])
        for m, v in zip(mean, variance, strict=True)
    ]
    assert terms.penalty == pytest.approx(np.mean(divergence), rel=1e-12)
    at_prior = Objective("vae").loss(lambda _: np.zeros((N, 6)), lambda _: batch[0], *batch[::3])
    assert at_prior[0] == 0


def test_none(batch):
    terms, code = evaluated(Objective("none", 5.0), batch)
    assert np.array_equal(terms.latents, code)
    assert terms.penalty == 0


@pytest.mark.parametrize("kind", ["eccentric", "none"])
def test_no_noise_where_none_is_needed(kind, batch, rng):
    """Nor a number from the generator."""
    before = rng.bit_generator.state
    assert Objective(kind).noise(rng, N, DIM) is None
    assert rng.bit_generator.state == before
    evaluated(Objective(kind), (*batch[:3], None))


@pytest.mark.parametrize("kind", ["wae", "vae"])
def test_noise_is_of_the_generator(kind):
    noise = Objective(kind).noise(np.random.default_rng(3), N, DIM)
    assert np.array_equal(noise, np.random.default_rng(3).standard_normal((N, DIM)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "gan"}, "objective must be one of eccentric, wae, vae, none, got 'gan'"),
        ({"lam": -1e-9}, "lam must be a finite number, 0 or more, got -1e-09; it is the weight of the penalty"),
        ({"lam": np.inf}, "lam must be .*, got inf"),
        ({"lam": np.nan}, "lam must be .*, got nan"),
        ({"mu": 0.5}, "mu must be"),
        ({"scale": 0.0}, "scale must be"),
        ({"scale": "other"}, "scale must be"),
    ],
)
def test_bad_values(change, says):
    with pytest.raises(ValueError, match=says):
        Objective(**change)
