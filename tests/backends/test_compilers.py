"""Every function under the compilers that generate C++, PyTorch's Inductor and MLX's, once.

Each kernel takes such a compiler a second or two. The rest of the suite has the graphs that Inductor gets, without it,
and MLX without its compiler.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import oracle
import pytest

from eccentric_core import (
    LogarithmicKernel,
    compressive_energy,
    eccentric_loss,
    hyperspherical_energy,
    inverse_multiquadric_mmd,
    kernel_scale,
    pair_sum,
    uniformity,
)

ROWS = (90, 4)
# A function of arrays of these shapes.
CASES = {
    "loss": (partial(eccentric_loss, mu=1.5), ROWS),
    "loss with the exact M, and wide sums": (partial(eccentric_loss, mu=4.5, scale="exact"), ROWS),
    "loss of several tiles": (partial(eccentric_loss, mu=1.5), (1500, 3)),
    "sum over pairs": (partial(pair_sum, kernel=oracle.Quadratic(), bandwidth=3.0), ROWS),
    "sum over pairs of two sets": (partial(pair_sum, kernel=LogarithmicKernel(), bandwidth=3.0), ROWS, (71, 4)),
    "hyperspherical energy": (partial(hyperspherical_energy, s=0.0), ROWS),
    "hyperspherical energy of angles": (
        partial(hyperspherical_energy, s=2.5, half_space=True, angular=True, normalization="official"),
        ROWS,
    ),
    "uniformity": (uniformity, ROWS),
    "compressive energy": (partial(compressive_energy, s=1.0, half_space=True), (30, 50), (3, 8, 50)),
    "discrepancy": (inverse_multiquadric_mmd, ROWS, (71, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(compiler, name, rng):
    """In float64, against NumPy and its central differences."""
    f, *shapes = CASES[name]
    arrays, directions = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    value, *gradients = compiler.value_and_grad(f, *arrays, cotangent=np.ones(()))
    assert value == pytest.approx(f(*arrays), rel=1e-12)
    assert [g.shape for g in gradients] == shapes
    after, before = (f(*(x + step * u for x, u in zip(arrays, directions, strict=True))) for step in (1e-5, -1e-5))
    derivative = sum(np.sum(g * u) for g, u in zip(gradients, directions, strict=True))
    size = sum(np.linalg.norm(g) * np.linalg.norm(u) for g, u in zip(gradients, directions, strict=True))
    assert abs(derivative - (after - before) / 2e-5) <= 1e-7 * size


@pytest.mark.parametrize("mu", [0.6, 16.5])
def test_accuracy_contract(compiler, mu, tolerance):
    for name, z in oracle.hard_cases().items():
        rows = z.astype(np.float32)
        loss, grad = compiler.value_and_grad(compiler.loss(mu), rows)
        assert loss.dtype == grad.dtype == np.float32
        errors = oracle.contract_errors(loss, grad, rows, mu, float(kernel_scale(rows.shape[1], mu)))
        assert max(errors) <= tolerance["float32"], name


def test_batches_cotangents_and_nan(compiler, rng, tolerance):
    z, cotangent = rng.standard_normal((3, 2, 70, 4)), 100 * rng.standard_normal((3, 2))
    z[1, 1, 5, 0] = np.nan
    loss, grad = compiler.value_and_grad(compiler.loss(), z, cotangent=cotangent)
    for index in np.ndindex(3, 2):
        if index == (1, 1):
            assert np.isnan(loss[index])
            assert np.isnan(grad[index]).all()
            continue
        true_loss, true_grad = oracle.loss_and_grad(z[index], 1.0, float(kernel_scale(4)))
        assert abs(loss[index] - true_loss) <= tolerance["float64"] * abs(true_loss)
        difference = np.linalg.norm(grad[index] - cotangent[index] * true_grad)
        assert difference <= tolerance["float64"] * np.linalg.norm(cotangent[index] * true_grad)


@pytest.mark.parametrize("n", [70, 2200])
def test_hessian_times_a_vector(compiler, n, rng, tolerance):
    if compiler.name.startswith("torch"):
        pytest.skip("PyTorch's compiler has no second derivatives")
    z, u = rng.standard_normal((2, n, 3))
    (product,) = compiler.hvp(compiler.loss(1.5), (z,), (u,))
    expected = oracle.loss_hvp(z, u, 1.5, float(kernel_scale(3, 1.5)))
    assert np.linalg.norm(product - expected) <= tolerance["float64"] * np.linalg.norm(expected)


def test_forty_values_of_mu_compile_once(compiler, rng):
    """In MLX; test_parameters.py counts the graphs that Inductor gets."""
    if compiler.name.startswith("torch"):
        pytest.skip("counted by another test")
    z, traces = rng.standard_normal((70, 4)), []

    def traced(z, mu):
        traces.append(mu)
        return eccentric_loss(z, mu)

    step = compiler.mx.compile(compiler.mx.value_and_grad(traced, argnums=1))
    rows = compiler.array(z, "float64")
    for mu in np.linspace(0.6, 9.0, 40):
        value, derivative = step(rows, compiler.array(mu, "float64"))
        assert float(value) == pytest.approx(eccentric_loss(z, mu), rel=1e-12)
        expected = (eccentric_loss(z, mu + 1e-5) - eccentric_loss(z, mu - 1e-5)) / 2e-5
        assert float(derivative) == pytest.approx(expected, abs=1e-8)
    assert len(traces) == 1
