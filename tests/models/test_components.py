"""Images along principal components, of a decoder that writes its latents into the picture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from eccentric_core import spectrum
from eccentric_models.components import combined_images, decode, paired_images

AXES = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
DEVIATIONS = np.array([3.0, 2.0, 0.5])


@pytest.fixture
def fitted(rng):
    """A spectrum with these axes, deviations, and a mean away from 0."""
    z = rng.standard_normal((400, 3))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False, bias=True))).T
    return spectrum(z * DEVIATIONS @ AXES + [1.0, 2.0, 3.0])


@pytest.fixture
def model():
    return SimpleNamespace(decode=lambda z: np.asarray(z)[:, None, :, None])


def coordinates(fitted, images):
    return fitted.transform(images[..., 0, :, 0])


def test_pairs(model, fitted):
    images = paired_images(model, fitted, 2.0)
    assert images.shape == (3, 2, 1, 3, 1)
    expected = np.stack([np.diag(2 * DEVIATIONS), -np.diag(2 * DEVIATIONS)], axis=1)
    np.testing.assert_allclose(coordinates(fitted, images), expected, atol=1e-12)


def test_combinations(model, fitted):
    images, rows, columns = combined_images(model, fitted, columns=[2, 0], rows=[1], deviations=1.5)
    assert images.shape == (2, 4, 1, 3, 1)
    assert rows == [(1,), (-1,)]
    assert columns == [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    found = coordinates(fitted, images) / (1.5 * DEVIATIONS)
    for i, (row,) in enumerate(rows):
        for j, (third, first) in enumerate(columns):
            np.testing.assert_allclose(found[i, j], [first, row, third], atol=1e-12)


def test_the_others_stay_at_the_mean(model, fitted):
    images, _, _ = combined_images(model, fitted, columns=[0], rows=[1], deviations=1.0)
    np.testing.assert_allclose(coordinates(fitted, images)[..., 2], 0, atol=1e-12)


def test_chunks(model, rng):
    z = rng.standard_normal((25, 2))
    np.testing.assert_array_equal(decode(model, z, chunk=10), model.decode(z))
