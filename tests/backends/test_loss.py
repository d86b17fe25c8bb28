"""The loss and its gradient in every framework and mode: accuracy, batches, cotangents, half precision, NaN."""

from __future__ import annotations

import itertools

import numpy as np
import oracle
import pytest
from frameworks import eager

from eccentric_core import eccentric_loss_and_grad, kernel_scale
from eccentric_core.backend import TracedBackend
from eccentric_core.engine.kernels import LogarithmicKernel
from eccentric_core.engine.pairs import PairSum
from eccentric_core.numpy_backend import BACKEND as NUMPY

HARD_CASES = oracle.hard_cases()


def errors(loss, grad, z, mu):
    """The errors of loss and gradient in the norms of the contract, against float64 sums over pairs."""
    return oracle.contract_errors(loss, grad, z, mu, float(kernel_scale(z.shape[1], mu)))


@pytest.mark.parametrize(
    ("mu", "dtype"),
    [
        (0.6, "float32"),
        (1.0, "float64"),
        (16.5, "float32"),
        *(eager(mu, "float32") for mu in (1.0, 2.5)),
        *(eager(mu, "float64") for mu in (0.6, 2.5, 16.5)),
    ],
)
def test_accuracy_contract(framework, mu, dtype, tolerance):
    f = framework.loss(mu)
    missed = {}
    for name, z in HARD_CASES.items():
        rows = z.astype(dtype)
        loss, grad = framework.value_and_grad(f, rows)
        assert loss.dtype == grad.dtype == rows.dtype
        error = max(errors(loss, grad, rows, mu))
        if not error <= tolerance[dtype]:
            missed[name] = error
        only = framework.value(f, rows)
        error = max(errors(only, oracle.loss_and_grad(rows, mu, float(kernel_scale(rows.shape[1], mu)))[1], rows, mu))
        if not error <= tolerance[dtype]:
            missed[f"{name}, value alone"] = error
    assert not missed


@pytest.mark.parametrize("mu", [eager(0.6), 3.5])
def test_float64_against_40_digits(framework, mu, rng, tolerance):
    z = rng.standard_normal((6, 3))
    true_loss, true_grad = oracle.loss_and_grad_mp(z, mu, float(kernel_scale(3, mu)))
    loss, grad = framework.value_and_grad(framework.loss(mu), z)
    assert abs(loss - true_loss) <= tolerance["float64"] * abs(true_loss)
    np.testing.assert_allclose(grad, np.array(true_grad, dtype=np.float64), rtol=0, atol=1e-14)


def large_batch(rng, dtype):
    """Rows for four tiles on a side and a rest, with whichever driver; the last row tells if the rest were lost."""
    z = rng.standard_normal((2200, 3)).astype(dtype)
    z[-1] *= 30
    return z


def tiled_loss_and_grad(z, mu):
    """In tiles of other sizes than any backend has."""
    n, scale = z.shape[0], float(kernel_scale(z.shape[1], mu))
    f = PairSum(LogarithmicKernel(), tile_rows=100)
    repulsion, grad, *_ = f.value_and_gradients(NUMPY, z, None, None, scale)
    weight = mu * scale / (n * (n - 1))
    return np.sum(z * z) / n - weight * repulsion, 2 / n * z - weight * grad


@pytest.mark.parametrize("dtype", [eager("float64"), "float32"])
def test_several_tiles_and_a_rest(framework, dtype, rng, tolerance):
    z = large_batch(rng, dtype)
    tile = TracedBackend(NUMPY.xp).tile_rows(z)
    assert 2200 // tile >= 2
    assert 2200 % tile > 0
    f = framework.loss(1.5)
    loss, grad = framework.value_and_grad(f, z)
    true_loss, true_grad = tiled_loss_and_grad(z.astype(np.float64), 1.5)
    assert abs(loss - true_loss) <= tolerance[dtype] * abs(true_loss)
    assert np.linalg.norm(grad - true_grad) <= tolerance[dtype] * np.linalg.norm(true_grad)
    assert abs(framework.value(f, z) - true_loss) <= tolerance[dtype] * abs(true_loss)


@pytest.mark.parametrize("lead", [eager(()), (3, 2)])
def test_the_gradient_is_multiplied_by_the_cotangent(framework, lead, rng, tolerance):
    """By that of its own batch, be it large, negative or 0."""
    z, cotangent = rng.standard_normal((*lead, 70, 4)), np.asarray(100 * rng.standard_normal(lead))
    if lead:
        cotangent[..., -1] = 0
    f = framework.loss()
    _, grad = framework.value_and_grad(f, z, cotangent=cotangent)
    for index in itertools.product(*map(range, lead)):
        true_grad = cotangent[index] * oracle.loss_and_grad(z[index], 1.0, float(kernel_scale(4)))[1]
        assert np.linalg.norm(grad[index] - true_grad) <= tolerance["float64"] * np.linalg.norm(true_grad)


def test_a_function_of_the_loss(differentiable, rng, tolerance):
    z = rng.standard_normal((70, 4))
    loss = differentiable.loss()
    value, grad = differentiable.value_and_grad(lambda z: (3.0 * loss(z)) ** 2, z)
    true_loss, true_grad = oracle.loss_and_grad(z, 1.0, float(kernel_scale(4)))
    assert abs(value - 9 * true_loss**2) <= 2 * tolerance["float64"] * value  # twice, as it is a square
    difference = np.linalg.norm(grad - 18 * true_loss * true_grad)
    assert difference <= 2 * tolerance["float64"] * np.linalg.norm(18 * true_loss * true_grad)


@pytest.mark.parametrize(
    "shape",
    [
        (3, 2, 70, 4),
        (2, 800, 3),
        eager((40, 5, 4)),
        eager((1, 1, 70, 4)),
    ],
)
def test_leading_axes_are_batches(framework, shape, rng, tolerance):
    """Also many small ones, and several of several tiles."""
    z = rng.standard_normal(shape)
    loss, grad = framework.value_and_grad(framework.loss(), z)
    assert loss.shape == shape[:-2]
    assert grad.shape == shape
    for index in itertools.product(*map(range, shape[:-2])):
        true_loss, true_grad = eccentric_loss_and_grad(z[index])
        assert abs(loss[index] - true_loss) <= tolerance["float64"] * abs(true_loss)
        assert np.linalg.norm(grad[index] - true_grad) <= tolerance["float64"] * np.linalg.norm(true_grad)


@pytest.mark.parametrize(("mu", "dtype"), [eager(1.0, "float16"), (4.5, "bfloat16")])
def test_half_precision_is_computed_in_float32(framework, mu, dtype, rng):
    """Exactly so: the loss is the same, and only the gradient is rounded once."""
    z = rng.standard_normal((70, 4)).astype(dtype)
    f = framework.loss(mu)
    loss, grad = framework.value_and_grad(f, z)
    true_loss, true_grad = framework.value_and_grad(f, z.astype(np.float32))
    assert (loss.dtype, grad.dtype) == (np.float32, z.dtype)
    assert loss == true_loss
    value = framework.value(f, z)
    assert value == framework.value(f, z.astype(np.float32))
    assert mu > 4 or value == loss  # above, the sums that make a gradient are wide, and the rows are centred in float64
    np.testing.assert_array_equal(grad, true_grad.astype(dtype))


@pytest.mark.parametrize("scale", ["exact", *(eager(scale) for scale in ("paper", 3.0, 2))])
def test_scale(framework, scale, rng, tolerance):
    z = rng.standard_normal((70, 4))
    number = float(kernel_scale(4, 1.5, method=scale)) if isinstance(scale, str) else float(scale)
    true_loss, _ = oracle.loss_and_grad(z, 1.5, number)
    assert abs(framework.value(framework.loss(1.5, scale), z) - true_loss) <= tolerance["float64"] * abs(true_loss)


@pytest.mark.parametrize(
    "mu",
    [
        np.float64(1.5),
        np.asarray(1.5),
        2,
        *(eager(mu) for mu in (np.float32(1.5), np.int64(2))),
    ],
    ids=repr,
)
def test_mu_as_another_number(framework, mu, rng, tolerance):
    z = rng.standard_normal((70, 4))
    f = framework.module.eccentric_loss
    true_loss, _ = oracle.loss_and_grad(z, float(mu), float(kernel_scale(4, float(mu))))
    assert abs(framework.value(lambda z: f(z, mu), z) - true_loss) <= tolerance["float64"] * abs(true_loss)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [30, 70])
def test_nan_and_infinity_reach_the_loss_and_the_gradient(framework, n, bad, rng):
    """In computing in float64 for few rows as in float32."""
    z = rng.standard_normal((n, 4)).astype(np.float32)
    z[17, 2] = bad
    f = framework.loss()
    loss, grad = framework.value_and_grad(f, z)
    assert not np.isfinite(loss)
    assert not np.isfinite(framework.value(f, z))
    assert not np.any(np.isfinite(grad[17]))


def test_nan_stays_in_its_batch(framework, rng):
    z = rng.standard_normal((3, 70, 4))
    z[1, 5, 0] = np.nan
    loss, grad = framework.value_and_grad(framework.loss(), z)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    np.testing.assert_array_equal(np.isnan(grad).all(axis=(1, 2)), [False, True, False])
    assert np.all(np.isfinite(grad[[0, 2]]))
