"""The engine in every framework and mode: any kernel, one set and two."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from frameworks import eager

from eccentric_core import InverseMultiquadricKernel, LogarithmicKernel

# kernel, bandwidth, phi, phi' and phi''
KERNELS = {
    "logarithmic": (LogarithmicKernel(), 3.0, np.log1p, lambda t: 1 / (1 + t), lambda t: -1 / (1 + t) ** 2),
    "inverse multiquadric": (
        InverseMultiquadricKernel(),
        2.0,
        lambda t: 1 / (1 + t),
        lambda t: -1 / (1 + t) ** 2,
        lambda t: 2 / (1 + t) ** 3,
    ),
    "user's own": (oracle.Quadratic(), 5.0, lambda t: t + t**2, lambda t: 1 + 2 * t, lambda t: 2 + 0 * t),
}


def close(value, expected, tolerance):
    return np.linalg.norm(value - expected) <= tolerance * np.linalg.norm(expected)


# Every kernel in both dtypes, of which compiled modes have some.
CASES = [
    ("logarithmic", "float32"),
    ("user's own", "float64"),
    eager("logarithmic", "float64"),
    eager("user's own", "float32"),
    eager("inverse multiquadric", "float32"),
    eager("inverse multiquadric", "float64"),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_two_sets(framework, name, dtype, rng, tolerance):
    kernel, h, value, slope, _ = KERNELS[name]
    x, y = rng.standard_normal((90, 4)).astype(dtype), (rng.standard_normal((71, 4)) + 1).astype(dtype)
    f = framework.pair_sum(kernel, bandwidth=h)
    total, of_x, of_y = framework.value_and_grad(f, x, y)
    for result, expected in zip((total, of_x, of_y), oracle.kernel_sum(x, y, value, slope, h), strict=True):
        assert result.dtype == x.dtype
        assert close(result, expected, tolerance[dtype])
    assert abs(framework.value(f, x, y) - total) <= tolerance[dtype] * total


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_one_set(framework, name, dtype, rng, tolerance):
    kernel, h, value, slope, _ = KERNELS[name]
    x = rng.standard_normal((90, 4)).astype(dtype)
    total, grad = framework.value_and_grad(framework.pair_sum(kernel, bandwidth=h), x)
    both, of_x, of_y = oracle.kernel_sum(x, x, value, slope, h)
    assert close(total, both - 90 * value(0.0), tolerance[dtype])
    assert close(grad, of_x + of_y, tolerance[dtype])


@pytest.mark.parametrize("name", [*(eager(name) for name in list(KERNELS)[:2]), "user's own"])
def test_second_derivatives(twice, name, rng, tolerance):
    """Of both sets along both: (2/h) sum_j [phi' (u_i - v_j) + (2/h) phi'' <x_i - y_j, u_i - v_j> (x_i - y_j)]."""
    kernel, h, _, slope, second = KERNELS[name]
    x, u = rng.standard_normal((2, 90, 4))
    y, v = rng.standard_normal((2, 71, 4)) + 1
    of_x, of_y = twice.hvp(twice.pair_sum(kernel, bandwidth=h), (x, y), (u, v))
    d, e = x[:, None] - y[None], u[:, None] - v[None]
    t = np.sum(d * d, axis=-1, keepdims=True) / h
    s = np.sum(d * e, axis=-1, keepdims=True)
    terms = 2 / h * (slope(t) * e + 2 / h * second(t) * s * d)
    assert close(of_x, np.sum(terms, axis=1), tolerance["float64"])
    assert close(of_y, -np.sum(terms, axis=0), tolerance["float64"])


@pytest.mark.parametrize(("n", "m"), [(1, 9), (40, 3), (1500, 90)])
def test_sets_of_any_size(framework, n, m, rng, tolerance):
    kernel, h, value, slope, _ = KERNELS["inverse multiquadric"]
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 1
    results = framework.value_and_grad(framework.pair_sum(kernel, bandwidth=h), x, y)
    for result, expected in zip(results, oracle.kernel_sum(x, y, value, slope, h), strict=True):
        assert close(result, expected, tolerance["float64"])


def test_batches_of_two_sets(framework, rng, tolerance):
    kernel, h, value, slope, _ = KERNELS["logarithmic"]
    x, y, c = rng.standard_normal((3, 2, 70, 4)), rng.standard_normal((3, 2, 11, 4)), rng.standard_normal((3, 2))
    total, of_x, of_y = framework.value_and_grad(framework.pair_sum(kernel, bandwidth=h), x, y, cotangent=c)
    for index in np.ndindex(3, 2):
        true_total, true_of_x, true_of_y = oracle.kernel_sum(x[index], y[index], value, slope, h)
        assert close(total[index], true_total, tolerance["float64"])
        assert close(of_x[index], c[index] * true_of_x, tolerance["float64"])
        assert close(of_y[index], c[index] * true_of_y, tolerance["float64"])


def test_a_set_with_itself(differentiable, rng, tolerance):
    """As x and as y: both gradients are due."""
    kernel, h, value, slope, _ = KERNELS["logarithmic"]
    x = rng.standard_normal((70, 4))
    f = differentiable.pair_sum(kernel, bandwidth=h)
    total, grad = differentiable.value_and_grad(lambda x: f(x, x), x)
    true_total, of_x, of_y = oracle.kernel_sum(x, x, value, slope, h)
    assert close(total, true_total, tolerance["float64"])
    assert close(grad, of_x + of_y, tolerance["float64"])


def test_wide_sums(differentiable, rng, tolerance):
    """Their dtype is a matter of the engine's alone."""
    kernel, h, value, slope, _ = KERNELS["logarithmic"]
    x = rng.standard_normal((90, 4)).astype(np.float32)
    total, grad = differentiable.value_and_grad(differentiable.pair_sum(kernel, bandwidth=h, wide=True), x)
    both, of_x, of_y = oracle.kernel_sum(x, x, value, slope, h)
    assert total.dtype == grad.dtype == np.float32
    assert close(total, both, tolerance["float32"])
    assert close(grad, of_x + of_y, tolerance["float32"])
