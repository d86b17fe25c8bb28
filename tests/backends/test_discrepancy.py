"""The discrepancy of WAE-MMD in every framework and mode, against direct sums over pairs."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import oracle
import pytest
from frameworks import eager

from eccentric_core.energies.discrepancy import SCALES


@cache
def mmd(framework, **options):
    """The same function for the same arguments."""
    return partial(framework.module.inverse_multiquadric_mmd, **options)


@oracle.once
def mmd_and_grads(z, prior, scales=SCALES, variance=1.0):
    """The discrepancy and its gradients in float64, from all differences."""
    (n, d), m = z.shape, len(prior)
    value = lambda t: sum(s / (s + t) for s in scales)  # noqa: E731
    slope = lambda t: -sum(s / (s + t) ** 2 for s in scales)  # noqa: E731
    of_z, of_prior, across = (
        oracle.kernel_sum(*sets, value, slope, 2 * d * variance) for sets in ((z, z), (prior, prior), (z, prior))
    )
    return (
        (of_z[0] - n * len(scales)) / (n * (n - 1))
        + (of_prior[0] - m * len(scales)) / (m * (m - 1))
        - 2 * across[0] / (n * m),
        (of_z[1] + of_z[2]) / (n * (n - 1)) - 2 * across[1] / (n * m),
        (of_prior[1] + of_prior[2]) / (m * (m - 1)) - 2 * across[2] / (n * m),
    )


def agree(results, expected, tolerance, cotangent=1.0):
    """The norms of the accuracy contract; the value is a difference of means that are up to the number of scales."""
    assert abs(results[0] - expected[0]) <= tolerance * len(SCALES)
    for grad, true_grad in zip(results[1:], expected[1:], strict=True):
        assert np.linalg.norm(grad - cotangent * true_grad) <= tolerance * np.linalg.norm(cotangent * true_grad)


@pytest.mark.parametrize(
    ("n", "m", "dtype"),
    [
        (90, 90, "float32"),
        (1100, 80, "float64"),
        eager(2, 3, "float64"),
        eager(2, 3, "float32"),
        eager(90, 90, "float64"),
        eager(1100, 80, "float32"),
    ],
)
def test_value_and_gradients(differentiable, n, m, dtype, rng, tolerance):
    z = (1.5 * rng.standard_normal((n, 4)) + 0.5).astype(dtype)
    prior = rng.standard_normal((m, 4)).astype(dtype)
    results = differentiable.value_and_grad(mmd(differentiable), z, prior, cotangent=-2.5)
    assert all(result.dtype == dtype for result in results)
    agree(results, mmd_and_grads(z, prior), tolerance[dtype], -2.5)


def test_value_alone_and_other_parameters(framework, rng, tolerance):
    z, prior = 3 * rng.standard_normal((80, 5)), 2 * rng.standard_normal((70, 5))
    value = framework.value(mmd(framework, scales=(0.5, 3), prior_variance=4.0), z, prior)
    assert value.dtype == np.float64
    agree((value,), mmd_and_grads(z, prior, (0.5, 3), 4.0)[:1], tolerance["float64"])


def test_batches(differentiable, rng, tolerance):
    z, prior, c = rng.standard_normal((3, 70, 4)), rng.standard_normal((3, 20, 4)) + 1, rng.standard_normal(3)
    results = differentiable.value_and_grad(mmd(differentiable), z, prior, cotangent=c)
    assert results[0].shape == (3,)
    for i in range(3):
        agree([r[i] for r in results], mmd_and_grads(z[i], prior[i]), tolerance["float64"], c[i])


def test_gradient_with_respect_to_z_alone(differentiable, rng, tolerance):
    """As in training, where the prior is data; against central differences of the value, too."""
    z, prior = rng.standard_normal((70, 4)) + 0.5, rng.standard_normal((70, 4))
    with differentiable.context(double=True):
        sample = differentiable.array(prior, "float64")
    f = mmd(differentiable)
    results = differentiable.value_and_grad(lambda z: f(z, sample), z)
    agree(results, mmd_and_grads(z, prior)[:2], tolerance["float64"])
    u = rng.standard_normal(z.shape)
    step = 1e-5 * u
    slope = (mmd_and_grads(z + step, prior)[0] - mmd_and_grads(z - step, prior)[0]) / 2e-5
    assert np.sum(results[1] * u) == pytest.approx(slope, rel=1e-7)


def test_second_derivatives(twice, rng):
    if twice.plain:
        pytest.skip("its derivatives are those of `pair_sum`")
    z, prior, u, v = rng.standard_normal((4, 70, 4))
    products = twice.hvp(mmd(twice), (z, prior), (u, v))
    after, before = (mmd_and_grads(z + step * u, prior + step * v)[1:] for step in (1e-5, -1e-5))
    for product, a, b in zip(products, after, before, strict=True):
        np.testing.assert_allclose(product, (a - b) / 2e-5, rtol=0, atol=1e-7 * np.abs(product).max())


@pytest.mark.parametrize("dtype", [eager("float16"), "bfloat16"])
def test_half_precision(differentiable, dtype, rng):
    """Of 300 rows, whose pairs float16 cannot count."""
    z, prior = rng.standard_normal((300, 4)), rng.standard_normal((300, 4)) + 1
    results = differentiable.value_and_grad(mmd(differentiable), z, prior, dtype=dtype)
    rows = [differentiable.numpy(differentiable.array(a, dtype)).astype(np.float64) for a in (z, prior)]
    expected = mmd_and_grads(*rows)
    assert results[0].dtype == np.float32
    assert abs(results[0] - expected[0]) <= 1e-5
    for grad, true_grad in zip(results[1:], expected[1:], strict=True):
        assert grad.dtype.name == dtype
        assert np.linalg.norm(grad.astype(np.float64) - true_grad) <= 1e-2 * np.linalg.norm(true_grad)


@pytest.mark.eager
def test_a_collapsed_batch_far_away(differentiable, rng):
    """Its own pairs, whose slopes are the largest, must not drown in float32 what draws it to the prior."""
    if differentiable.name.startswith("jax"):
        pytest.skip("sums are wide there where float64 is enabled")
    z, prior = np.tile(rng.standard_normal((1, 16)) + 1000, (200, 1)), rng.standard_normal((200, 16))
    z, prior = z.astype(np.float32), prior.astype(np.float32)
    results = differentiable.value_and_grad(mmd(differentiable), z, prior)
    agree(results[:2], mmd_and_grads(z.astype(np.float64), prior)[:2], 1e-5)


@pytest.mark.eager
def test_nan_flows(differentiable, rng):
    z, prior = rng.standard_normal((2, 70, 4))
    z[3, 1] = np.nan
    value, of_z, _ = differentiable.value_and_grad(mmd(differentiable), z, prior)
    assert np.isnan(value)
    assert np.isnan(of_z).all()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 3), (4, 2)), {}, "prior must have the leading axes and the dimension of z"),
        (((1, 3), (4, 3)), {}, "z must hold at least 2 rows"),
        (((4, 3), (1, 3)), {}, "prior must hold at least 2 rows"),
        (((4, 3), (4, 3)), {"scales": (1.0, -1.0)}, "every one of scales must be from 1e-30 to 1e"),
        (((4, 3), (4, 3)), {"prior_variance": 0.0}, "prior_variance must be from 1e-30"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input(framework, shapes, options, message):
    if framework.name == "tensorflow-unknown" and "rows" in message:
        pytest.skip("the number of rows is not known before the graph runs")
    with pytest.raises(Exception, match=message) as caught:
        framework.value(mmd(framework, **options), *(np.zeros(shape, np.float32) for shape in shapes))
    assert framework.compiled or isinstance(caught.value, ValueError)
