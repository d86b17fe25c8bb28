"""The engine, for any kernel and for two sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import array_api_strict
import numpy as np
import oracle
import pytest
from _memory import extra_memory

from eccentric_core import (
    InverseMultiquadricKernel,
    LogarithmicKernel,
    kernel_scale,
    pair_sum,
    pair_sum_and_grad,
    pair_sum_hvp,
)
from eccentric_core.energies.eccentric import eccentric_loss_and_grad
from eccentric_core.engine import pairs
from eccentric_core.engine.sweep import NAMESPACE, Driver
from eccentric_core.engine.tiles import full_product


@dataclass(frozen=True)
class Coulomb:
    """A kernel that is infinite where two rows coincide: the engine must leave a row and itself alone."""

    bandwidth: float

    def value(self, t, xp):  # noqa: ARG002
        return 1.0 / t

    def slope(self, t, xp):  # noqa: ARG002
        return -1.0 / (t * t)


KERNELS = {
    "logarithmic": (LogarithmicKernel(3.0), np.log1p, lambda t: 1 / (1 + t)),
    "inverse multiquadric": (InverseMultiquadricKernel(2.0), lambda t: 1 / (1 + t), lambda t: -1 / (1 + t) ** 2),
    "quadratic": (oracle.Quadratic(5.0), lambda t: t + t**2, lambda t: 1 + 2 * t),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tile_rows", [None, 8, 1])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("n", "m"), [(30, 21), (1, 9), (5, 64)])
def test_two_sets(library, n, m, name, tile_rows, dtype, rng, tolerance):
    kernel, value, slope = KERNELS[name]
    x = rng.standard_normal((n, 4)).astype(dtype)
    y = (rng.standard_normal((m, 4)) + 1).astype(dtype)
    total, of_x, of_y = pair_sum_and_grad(
        library.array(x, dtype), library.array(y, dtype), kernel=kernel, tile_rows=tile_rows
    )
    true_total, true_of_x, true_of_y = oracle.kernel_sum(x, y, value, slope, kernel.bandwidth)
    assert float(total) == pytest.approx(true_total, rel=tolerance[dtype])
    for grad, true_grad in ((of_x, true_of_x), (of_y, true_of_y)):
        assert np.linalg.norm(library.numpy(grad) - true_grad) <= tolerance[dtype] * np.linalg.norm(true_grad)
    only = pair_sum(library.array(x, dtype), library.array(y, dtype), kernel=kernel, tile_rows=tile_rows)
    assert float(only) == float(total)


@pytest.mark.parametrize("tile_rows", [None, 8, 1])
@pytest.mark.parametrize("name", KERNELS)
def test_one_set(library, name, tile_rows, rng):
    kernel, value, slope = KERNELS[name]
    x = rng.standard_normal((30, 4))
    total, grad = pair_sum_and_grad(library.array(x), kernel=kernel, tile_rows=tile_rows)
    both, of_x, of_y = oracle.kernel_sum(x, x, value, slope, kernel.bandwidth)
    assert float(total) == pytest.approx(both - 30 * value(0.0), rel=1e-12)
    np.testing.assert_allclose(library.numpy(grad), of_x + of_y, rtol=0, atol=1e-12 * np.abs(of_x).max())


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("tile_rows", [None, 4])
def test_a_row_is_no_pair_with_itself(tile_rows, rng):
    x = rng.standard_normal((10, 3))
    total, grad = pair_sum_and_grad(x, kernel=Coulomb(1.0), tile_rows=tile_rows)
    distance = np.sum((x[:, None] - x[None]) ** 2, axis=-1)[~np.eye(10, dtype=bool)]
    assert float(total) == pytest.approx(np.sum(1 / distance), rel=1e-10)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("tile_rows", [None, 4])
def test_nan_reaches_the_sum(tile_rows, rng):
    """The clamp at 0 must not swallow it; in the loss the attraction would still show it."""
    x = rng.standard_normal((10, 3))
    x[3, 1] = np.nan
    total, grad = pair_sum_and_grad(x, kernel=LogarithmicKernel(1.0), tile_rows=tile_rows)
    assert np.isnan(total)
    assert np.all(np.isnan(grad))
    assert np.isnan(pair_sum(x[:5], x[5:], kernel=LogarithmicKernel(1.0), tile_rows=tile_rows))


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("kernel", [LogarithmicKernel(1.0), Coulomb(1.0)])
def test_one_row_has_no_pairs(kernel):
    total, grad = pair_sum_and_grad(np.ones((1, 3)), kernel=kernel)
    assert total == 0
    np.testing.assert_array_equal(grad, np.zeros((1, 3)))


def test_batches_of_two_sets(library, rng):
    x, y = rng.standard_normal((3, 2, 20, 4)), rng.standard_normal((3, 2, 11, 4))
    kernel = InverseMultiquadricKernel(2.0)
    total, of_x, of_y = pair_sum_and_grad(library.array(x), library.array(y), kernel=kernel, tile_rows=8)
    assert tuple(total.shape) == (3, 2)
    one = pair_sum_and_grad(x[2, 1], y[2, 1], kernel=kernel)
    for batch, single in zip((total, of_x, of_y), one, strict=True):
        np.testing.assert_allclose(library.numpy(batch)[2, 1], single, rtol=1e-12, atol=1e-13)


def test_the_repulsion_is_the_inverse_multiquadric_kernel_of_wae(rng):
    """The bridge of docs/mathematics.md: the repulsion is 2 mu k(z_i, z_j)(z_i - z_j), k that of WAE-MMD with C = M."""
    z = rng.standard_normal((20, 5))
    c = float(kernel_scale(5, 1.5))
    difference = z[:, None] - z[None]
    force = np.sum(2 * 1.5 * c / (c + np.sum(difference**2, axis=-1, keepdims=True)) * difference, axis=1)
    _, grad = eccentric_loss_and_grad(z, 1.5)
    np.testing.assert_allclose(grad, 2 / 20 * z - 2 / (20 * 19) * force, rtol=0, atol=1e-15)


@pytest.mark.parametrize("tile_rows", [None, 8])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_hessian_times_a_vector(library, lead, name, tile_rows, rng):
    """Against central differences of the closed-form gradient, whose error falls with the square of the step."""
    kernel = KERNELS[name][0]
    x, u = rng.standard_normal((2, *lead, 20, 4))
    y, v = rng.standard_normal((2, *lead, 13, 4)) + 1

    def gradients(step, *moving):
        return pair_sum_and_grad(*(rows + step * along for rows, along in moving), kernel=kernel)[1:]

    for moving in (((x, u),), ((x, u), (y, v))):
        arguments = [library.array(a) for pair in moving for a in pair]
        change = pair_sum_hvp(*arguments, kernel=kernel, tile_rows=tile_rows)
        error = []
        for step in (1e-3, 1e-4):
            both = gradients(step, *moving), gradients(-step, *moving)
            slopes = [(after - before) / (2 * step) for after, before in zip(*both, strict=True)]
            errors = [np.abs(library.numpy(c) - s).max() / np.abs(s).max() for c, s in zip(change, slopes, strict=True)]
            error.append(max(errors))
        assert error[1] < 1e-6
        assert error[1] < 0.02 * error[0] or error[1] < 1e-10  # a quadratic kernel has no such error


def test_hessian_is_symmetric(rng):
    x, u, v = rng.standard_normal((3, 30, 4))
    kernel = LogarithmicKernel(2.0)
    (of_u,), (of_v,) = pair_sum_hvp(x, u, kernel=kernel), pair_sum_hvp(x, v, kernel=kernel)
    assert np.sum(of_u * v) == pytest.approx(np.sum(of_v * u), rel=1e-12)


def test_bad_directions():
    x = np.zeros((4, 3))
    for u, y, v in (
        (x[:2], None, None),
        (x.astype(np.float32), None, None),
        (None, None, None),
        (x, x, None),
        (x, None, x),
    ):
        with pytest.raises(ValueError, match=r"[uv] must have the shape and dtype of what it is a direction of"):
            pair_sum_hvp(x, u, y, v, kernel=LogarithmicKernel(1.0))


@pytest.mark.parametrize(("bits", "parts"), [(11, 2), (8, 3)])
def test_a_full_product_from_rounded_ones(bits, parts, rng):
    """Hardware that rounds what it multiplies to so many bits, as TF32 and bfloat16 do, is simulated."""

    def rounded(x):
        fraction, exponent = np.frexp(x.astype(np.float64))
        return np.ldexp(np.round(fraction * 2.0**bits), exponent - bits).astype(np.float32)

    def product(a, b):
        return rounded(a) @ rounded(b)

    a, b = rng.standard_normal((2, 60, 60)).astype(np.float32)
    a[0] *= 1e20
    true = a.astype(np.float64) @ b.astype(np.float64)
    size = np.linalg.norm(a.astype(float), axis=1, keepdims=True) * np.linalg.norm(b, axis=0)
    assert np.max(np.abs(full_product(product, a, b, np, parts=parts) - true) / size) < 4e-7
    assert np.max(np.abs(product(a, b) - true) / size) > 1e-5
    a[1, 2], a[3, 4] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        full = full_product(product, a, b, np, parts=parts)
    assert np.all(np.isnan(full[1]))
    assert not np.any(np.isfinite(full[3]))
    assert np.all(np.isfinite(full[4:]))


def test_bad_input():
    x = np.zeros((4, 3))
    kernel = LogarithmicKernel(1.0)
    with pytest.raises(ValueError, match=r"y must have the leading axes and the dimension of x.*\(4, 2\)"):
        pair_sum(x, x[:, :2], kernel=kernel)
    with pytest.raises(ValueError, match="leading axes"):
        pair_sum(x, x[None], kernel=kernel)
    with pytest.raises(TypeError, match="y must have the dtype of x, got float32 beside float64"):
        pair_sum(x, x.astype(np.float32), kernel=kernel)
    with pytest.raises(TypeError, match="y must be a real floating array"):
        pair_sum(x, x.astype(int), kernel=kernel)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.inf, np.nan, 1e-300])
def test_bad_bandwidth(bandwidth):
    with pytest.raises(ValueError, match=f"bandwidth of the kernel must be from .*, got {bandwidth}"):
        pair_sum(np.zeros((4, 3)), kernel=LogarithmicKernel(bandwidth))
    with pytest.raises(TypeError, match="bandwidth of the kernel must be a number, got '1'"):
        pair_sum(np.zeros((4, 3)), kernel=LogarithmicKernel("1"))


def test_no_more_of_the_namespace_than_declared(rng):
    """What `NAMESPACE` lists is enough, so that an adapter for a library without the standard knows what to offer."""
    offered = {name: getattr(array_api_strict, name) for name in NAMESPACE}
    z = array_api_strict.asarray(rng.standard_normal((20, 4)))
    loss, _ = eccentric_loss_and_grad(z, 5.0, tile_rows=8, xp=SimpleNamespace(**offered))
    assert float(loss) == float(eccentric_loss_and_grad(z, 5.0, tile_rows=8)[0])
    del offered["concat"]
    with pytest.raises(AttributeError, match="concat"):
        eccentric_loss_and_grad(z, 5.0, tile_rows=8, xp=SimpleNamespace(**offered))


def test_a_device_that_is_no_cpu(rng):
    """Larger tiles, and the arrays stay where they are."""
    values = rng.standard_normal((300, 4))
    z = array_api_strict.asarray(values, device=array_api_strict.Device("device1"))
    assert Driver(array_api_strict).tile_rows(z) > 500
    for mu in (1.0, 5.0):
        loss, grad = eccentric_loss_and_grad(z, mu, tile_rows=100)
        assert loss.device == grad.device == z.device
        assert float(loss) == pytest.approx(float(eccentric_loss_and_grad(values, mu)[0]), rel=1e-13)


def test_without_float64_the_sums_stay_in_float32(rng):
    """A namespace that does not say that it has float64 is taken at its word."""
    offered = {name: getattr(array_api_strict, name) for name in NAMESPACE if name != "float64"}
    for n in (50, 100):
        z = array_api_strict.asarray(rng.standard_normal((n, 4)).astype(np.float32))
        loss, grad = eccentric_loss_and_grad(z, 5.0, xp=SimpleNamespace(**offered))
        assert loss.dtype == grad.dtype == array_api_strict.float32
        assert float(loss) == pytest.approx(float(eccentric_loss_and_grad(z, 5.0)[0]), rel=1e-6)


def test_the_constant_part_of_the_slopes_pays(monkeypatch, rng):
    """Near the balance of forces float32 gradients gain from working with w - c; any c gives the same gradient."""
    z = rng.standard_normal((2000, 64))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True) * 8).astype(np.float32)
    true_grad = eccentric_loss_and_grad(z.astype(np.float64))[1]

    def error():
        return np.linalg.norm(eccentric_loss_and_grad(z)[1] - true_grad) / np.linalg.norm(2 / 2000 * z)

    with_c = error()
    monkeypatch.setattr(pairs, "typical_slope", lambda *_: np.zeros((1, 1), np.float32))
    without_c = error()
    assert with_c < 3e-7
    assert without_c < 3e-6
    assert with_c < 0.8 * without_c


@pytest.mark.parametrize("dim", [2, 64, 512])
def test_rounding_of_the_distances(dim, rng):
    """The bound of docs/numerics.md: 16 eps max|z - mean|^2 / h on every t."""
    noise = rng.standard_normal((300, dim))
    for x in (noise, 0.1 * noise + 10 * (np.arange(300) % 2)[:, None]):
        rows = x.astype(np.float32)
        centre = np.mean(rows, axis=0, keepdims=True)
        form = pairs.prepare(rows - centre, 2.0, np, dtype=np.float32)
        t = form.left @ form.right.T
        exact = np.sum((rows.astype(np.float64)[:, None] - rows.astype(np.float64)[None]) ** 2, axis=-1) / 2.0
        size = np.max(np.sum((rows - centre).astype(np.float64) ** 2, axis=1)) / 2.0
        assert np.max(np.abs(t - exact)) <= 16 * np.finfo(np.float32).eps * size


def test_tiles_are_smaller_for_wider_numbers():
    x = np.zeros((4, 3))
    assert Driver(np).tile_rows(x) < Driver(np).tile_rows(x.astype(np.float32))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("mu", [1.0, 64.5])
def test_memory_is_linear_in_the_batch(mu):
    """12,000 rows: an n x n matrix in float32 alone would take 576 MB. tools/benchmark.py measures 50,000."""
    assert extra_memory(12_000, 64, mu=mu)["extra_bytes"] < 60e6
