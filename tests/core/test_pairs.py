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

from eccentric_core import InverseMultiquadricKernel, LogarithmicKernel, kernel_scale, pair_sum, pair_sum_and_grad
from eccentric_core.loss import eccentric_loss_and_grad
from eccentric_core.pairs import NAMESPACE, default_tile_rows


@dataclass(frozen=True)
class Quadratic:
    """A kernel that the package does not know: phi(t) = t + t^2, whose diagonal is no special case."""

    bandwidth: float

    def value(self, t, xp):  # noqa: ARG002
        return t + t * t

    def slope(self, t, xp):  # noqa: ARG002
        return 1.0 + 2.0 * t


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
    "quadratic": (Quadratic(5.0), lambda t: t + t**2, lambda t: 1 + 2 * t),
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


def test_one_row_has_no_pairs():
    total, grad = pair_sum_and_grad(np.ones((1, 3)), kernel=LogarithmicKernel(1.0))
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
    """The bridge of docs/mathematics.md: the slope of the logarithm is the kernel of WAE-MMD with C = M."""
    x = rng.standard_normal((20, 5))
    bandwidth = float(kernel_scale(5, 1.0))
    t = np.sum((x[:, None] - x[None]) ** 2, axis=-1) / bandwidth
    np.testing.assert_array_equal(
        LogarithmicKernel(bandwidth).slope(t, np), InverseMultiquadricKernel(bandwidth).value(t, np)
    )


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


def test_no_more_of_the_namespace_than_declared(rng):
    """What `NAMESPACE` lists is enough, so that an adapter for a library without the standard knows what to offer."""
    offered = {name: getattr(array_api_strict, name) for name in NAMESPACE}
    z = array_api_strict.asarray(rng.standard_normal((20, 4)))
    loss, _ = eccentric_loss_and_grad(z, 5.0, tile_rows=8, xp=SimpleNamespace(**offered))
    assert float(loss) == float(eccentric_loss_and_grad(z, 5.0, tile_rows=8)[0])
    del offered["concat"]
    with pytest.raises(AttributeError, match="concat"):
        eccentric_loss_and_grad(z, 5.0, tile_rows=8, xp=SimpleNamespace(**offered))


def test_tiles_are_smaller_for_wider_numbers():
    x = np.zeros((4, 3))
    assert default_tile_rows(x, 8) < default_tile_rows(x, 4)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("mu", [1.0, 64.5])
def test_memory_is_linear_in_the_batch(mu):
    """12,000 rows: an n x n matrix in float32 alone would take 576 MB. tools/benchmark.py measures 50,000."""
    assert extra_memory(12_000, 64, mu)["extra_bytes"] < 60e6
