"""Second derivatives in every mode that has them, against a closed form in float64."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from frameworks import eager

from eccentric_core import kernel_scale


@pytest.mark.parametrize(
    ("n", "dim", "mu", "dtype"),
    [
        (20, 4, 4.5, "float32"),
        (70, 4, 0.6, "float32"),
        eager(70, 4, 4.5, "float64"),
        eager(2200, 3, 0.6, "float32"),
        (2200, 3, 4.5, "float32"),
        eager(2200, 3, 4.5, "float64"),
    ],
)
def test_hessian_times_a_vector(twice, n, dim, mu, dtype, rng, tolerance):
    """Of few rows, of one tile, and of several with a rest. The closed form is for the rows as they are rounded."""
    z, u = rng.standard_normal((2, n, dim)).astype(dtype)
    z[-1] *= 10
    (product,) = twice.hvp(twice.loss(mu), (z,), (u,))
    expected = oracle.loss_hvp(z, u, mu, float(kernel_scale(dim, mu)))
    assert product.dtype == z.dtype
    assert np.linalg.norm(product - expected) <= tolerance[dtype] * np.linalg.norm(expected)


def test_of_batches(twice, rng, tolerance):
    """The sum over batches is what has a Hessian; it is block-diagonal."""
    z, u = rng.standard_normal((2, 3, 70, 4))
    f = twice.loss(1.5)
    if twice.plain:
        (product,) = twice.hvp(f, (z,), (u,))
    else:
        total = (lambda z: twice.tf.reduce_sum(f(z))) if hasattr(type(twice), "tf") else (lambda z: f(z).sum())
        (product,) = twice.hvp(total, (z,), (u,))
    for i in range(3):
        expected = oracle.loss_hvp(z[i], u[i], 1.5, float(kernel_scale(4, 1.5)))
        assert np.linalg.norm(product[i] - expected) <= tolerance["float64"] * np.linalg.norm(expected)


@pytest.mark.eager
def test_coincident_rows(twice, rng, tolerance):
    """Where the distance is 0 its square root would have no derivative; the loss has."""
    z, u = np.repeat(rng.standard_normal((20, 4)), 4, axis=0), rng.standard_normal((80, 4))
    (product,) = twice.hvp(twice.loss(1.5), (z,), (u,))
    expected = oracle.loss_hvp(z, u, 1.5, float(kernel_scale(4, 1.5)))
    assert np.linalg.norm(product - expected) <= tolerance["float64"] * np.linalg.norm(expected)


def test_of_a_function_of_the_loss(twice, rng, tolerance):
    """(3 l)^2 has the Hessian 18 (l H + g g^T)."""
    if twice.plain:
        pytest.skip("the library has no derivatives of functions")
    z, u = rng.standard_normal((2, 70, 4))
    scale = float(kernel_scale(4, 1.5))
    loss, grad = oracle.loss_and_grad(z, 1.5, scale)
    expected = 18 * (loss * oracle.loss_hvp(z, u, 1.5, scale) + np.sum(grad * u) * grad)
    f = twice.loss(1.5)
    (product,) = twice.hvp(lambda z: (3.0 * f(z)) ** 2, (z,), (u,))
    assert np.linalg.norm(product - expected) <= tolerance["float64"] * np.linalg.norm(expected)
