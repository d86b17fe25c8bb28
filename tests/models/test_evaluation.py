"""The figures of a run, of latents for which they are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from eccentric_core import eccentric_loss, loss_floor, stationary_radius
from eccentric_models.data import Dataset, Split
from eccentric_models.evaluation import evaluate, neighbour_error, reconstruction_error
from eccentric_models.objectives import Objective


class Model:
    """Decodes a latent vector to an image of one grey, its first number."""

    def __init__(self, objective=None):
        self.objective = objective or Objective()
        self.decoded = []

    def decode(self, z):
        self.decoded.append(len(z))
        return np.broadcast_to(z[:, 0, None, None, None], (len(z), 4, 4, 1))


def split(rng, count):
    return Split(rng.integers(256, size=(count, 4, 4, 1), dtype=np.uint8), np.arange(count) % 2)


@pytest.mark.parametrize(("mu", "scale"), [(1.0, "paper"), (2.0, "exact"), (1.0, 3.0)])
def test_evaluate(rng, mu, scale):
    z = rng.standard_normal((50, 3))
    images = split(rng, 50)
    found = evaluate(Model(Objective(mu=mu, scale=scale)), images, z.astype(np.float32))
    z = z.astype(np.float32).astype(np.float64)
    assert found.count == 50
    assert found.loss == eccentric_loss(z, mu, scale=scale)
    assert found.floor == loss_floor(3, mu, batch_size=50, scale=scale)
    assert found.floor < found.loss
    assert found.radius == pytest.approx(np.mean([x @ x for x in z]) ** 0.5, rel=1e-14)
    assert found.stationary_radius == stationary_radius(3, mu, scale=scale)
    assert found.reconstruction == pytest.approx(np.mean((z[:, :1] - images.images.reshape(50, -1) / 255) ** 2))


def test_known_latents(rng):
    """A cross in the plane has the variances 8 and 2 of the population: a mean of 5, 3 away from both."""
    z = np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    found = evaluate(Model(), split(rng, 4), z)
    np.testing.assert_allclose(found.spectrum.eigenvalues, [8, 2], rtol=1e-14)
    assert found.spectrum.trace == pytest.approx(10, rel=1e-14)
    assert found.spectrum.eccentricity == pytest.approx(3 / 5, rel=1e-14)
    assert found.radius == pytest.approx(10**0.5, rel=1e-15)
    even = evaluate(Model(), split(rng, 4), z * [1, 2])
    assert even.spectrum.eccentricity == pytest.approx(0, abs=1e-14)
    assert f"loss {found.loss:.4f} (floor {found.floor:.4f}), radius 3.1623 (sqrt(d) 1.4142)" in found.line
    assert f"trace {found.spectrum.trace:.4f}, eccentricity {found.spectrum.eccentricity:.4f}" in found.line


def test_the_loss_is_of_the_first_rows(rng, monkeypatch):
    monkeypatch.setattr("eccentric_models.evaluation._MOST_ROWS", 20)
    z = rng.standard_normal((50, 3))
    found = evaluate(Model(), split(rng, 50), z)
    assert found.loss == eccentric_loss(z[:20])
    assert found.floor == loss_floor(3, batch_size=20)
    assert found.count == 50
    assert found.radius == pytest.approx(np.sqrt(np.mean(np.sum(z**2, 1))), rel=1e-14)


def test_reconstruction_error_in_chunks(rng):
    model, z, images = Model(), rng.random((23, 2)), split(rng, 23).images
    total = sum(
        (z[i, 0] - images[i, y, x, 0] / 255) ** 2 for i in range(23) for y in range(4) for x in range(4)
    )  # pixel by pixel
    assert reconstruction_error(model, images, z, chunk=10) == pytest.approx(total / images.size, rel=1e-13)
    assert model.decoded == [10, 10, 3]
    grey = np.full((5, 4, 4, 1), 51, np.uint8)
    assert reconstruction_error(model, grey, np.full((5, 2), 0.2)) == pytest.approx(0, abs=1e-30)
    assert reconstruction_error(model, grey, np.full((5, 2), 0.5)) == pytest.approx(0.09, rel=1e-14)


def dataset(train_labels, test_labels):
    return Dataset("toy", *(SimpleNamespace(images=None, labels=labels) for labels in (train_labels, test_labels)))


def test_neighbour_error(rng):
    """Three classes far apart."""
    classes = np.arange(60) % 3
    train, test = (10.0 * classes[:n, None] + rng.random((n, 2)) for n in (60, 12))
    right = classes[:12]
    assert neighbour_error(dataset(classes, right), train, test) == 0.0
    assert neighbour_error(dataset(classes, np.where(np.arange(12) < 3, (right + 1) % 3, right)), train, test) == 0.25


def test_how_many_neighbours_vote():
    """One of class 1 is nearest, two of class 0 come next."""
    train, test = np.array([[0.0], [1.0], [1.1]]), np.array([[0.1]])
    toy = dataset(np.array([1, 0, 0]), np.array([1]))
    assert neighbour_error(toy, train, test, k=1) == 0.0
    assert neighbour_error(toy, train, test, k=3) == 1.0
    assert neighbour_error(toy, train, test) == 1.0  # 15, of three


@pytest.mark.parametrize("labels", [None, np.zeros((5, 40), bool)])
def test_no_classes(labels):
    assert neighbour_error(dataset(labels, labels), np.zeros((5, 2)), np.zeros((5, 2))) is None
