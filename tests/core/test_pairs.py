"""The engine, for any kernel and for two sets."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import array_api_strict
import numpy as np
import oracle
import pytest

from eccentric_core import (
    InverseMultiquadricKernel,
    LogarithmicKernel,
    RieszKernel,
    eccentric_loss_and_grad,
    kernel_scale,
    pair_sum,
    pair_sum_and_grad,
    pair_sum_hvp,
)
from eccentric_core.backend import NAMESPACE, backend_of
from eccentric_core.engine import pairs, sums
from eccentric_core.engine.pairs import PairSum


@dataclass(frozen=True)
class Coulomb:
    """A kernel that is infinite where two rows coincide: the engine must leave a row and itself alone."""

    def value(self, t, xp):  # noqa: ARG002
        return 1.0 / t

    def slope(self, t, xp):  # noqa: ARG002
        return -1.0 / (t * t)


# A kernel and its bandwidth, and the kernel and its slope again.
KERNELS = {
    "logarithmic": (LogarithmicKernel(), 3.0, np.log1p, lambda t: 1 / (1 + t)),
    "inverse multiquadric": (InverseMultiquadricKernel(), 2.0, lambda t: 1 / (1 + t), lambda t: -1 / (1 + t) ** 2),
    "quadratic": (oracle.Quadratic(), 5.0, lambda t: t + t**2, lambda t: 1 + 2 * t),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tile_rows", [None, 8, 1])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("n", "m"), [(30, 21), (1, 9), (5, 64)])
def test_two_sets(library, n, m, name, tile_rows, dtype, rng, tolerance, tiles):
    kernel, bandwidth, value, slope = KERNELS[name]
    x = rng.standard_normal((n, 4)).astype(dtype)
    y = (rng.standard_normal((m, 4)) + 1).astype(dtype)
    sets = library.array(x, dtype), library.array(y, dtype)
    with tiles(tile_rows):
        total, of_x, of_y = pair_sum_and_grad(*sets, kernel=kernel, bandwidth=bandwidth)
        only = pair_sum(*sets, kernel=kernel, bandwidth=bandwidth)
    true_total, true_of_x, true_of_y = oracle.kernel_sum(x, y, value, slope, bandwidth)
    assert float(total) == pytest.approx(true_total, rel=tolerance[dtype])
    for grad, true_grad in ((of_x, true_of_x), (of_y, true_of_y)):
        assert np.linalg.norm(library.numpy(grad) - true_grad) <= tolerance[dtype] * np.linalg.norm(true_grad)
    assert float(only) == float(total)


@pytest.mark.parametrize("tile_rows", [None, 8, 1])
@pytest.mark.parametrize("name", KERNELS)
def test_one_set(library, name, tile_rows, rng, tiles):
    kernel, bandwidth, value, slope = KERNELS[name]
    x = rng.standard_normal((30, 4))
    with tiles(tile_rows):
        total, grad = pair_sum_and_grad(library.array(x), kernel=kernel, bandwidth=bandwidth)
    both, of_x, of_y = oracle.kernel_sum(x, x, value, slope, bandwidth)
    assert float(total) == pytest.approx(both - 30 * value(0.0), rel=1e-12)
    np.testing.assert_allclose(library.numpy(grad), of_x + of_y, rtol=0, atol=1e-12 * np.abs(of_x).max())


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("tile_rows", [None, 4])
def test_a_row_is_no_pair_with_itself(tile_rows, rng, tiles):
    x = rng.standard_normal((10, 3))
    with tiles(tile_rows):
        total, grad = pair_sum_and_grad(x, kernel=Coulomb())
    distance = np.sum((x[:, None] - x[None]) ** 2, axis=-1)[~np.eye(10, dtype=bool)]
    assert float(total) == pytest.approx(np.sum(1 / distance), rel=1e-10)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("tile_rows", [None, 4])
def test_nan_reaches_the_sum(tile_rows, rng, tiles):
    """The clamp at 0 must not swallow it; in the loss the attraction would still show it."""
    x = rng.standard_normal((10, 3))
    x[3, 1] = np.nan
    with tiles(tile_rows):
        total, grad = pair_sum_and_grad(x, kernel=LogarithmicKernel())
        of_two = pair_sum(x[:5], x[5:], kernel=LogarithmicKernel())
    assert np.isnan(total)
    assert np.all(np.isnan(grad))
    assert np.isnan(of_two)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("kernel", [LogarithmicKernel(), Coulomb()])
def test_one_row_has_no_pairs(kernel):
    total, grad = pair_sum_and_grad(np.ones((1, 3)), kernel=kernel)
    assert total == 0
    np.testing.assert_array_equal(grad, np.zeros((1, 3)))


def test_batches_of_two_sets(library, rng, tiles):
    x, y = rng.standard_normal((3, 2, 20, 4)), rng.standard_normal((3, 2, 11, 4))
    options = {"kernel": InverseMultiquadricKernel(), "bandwidth": 2.0}
    with tiles(8):
        total, of_x, of_y = pair_sum_and_grad(library.array(x), library.array(y), **options)
    assert tuple(total.shape) == (3, 2)
    one = pair_sum_and_grad(x[2, 1], y[2, 1], **options)
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
def test_hessian_times_a_vector(library, lead, name, tile_rows, rng, tiles):
    """Against central differences of the closed-form gradient, whose error falls with the square of the step."""
    options = dict(zip(("kernel", "bandwidth"), KERNELS[name], strict=False))
    x, u = rng.standard_normal((2, *lead, 20, 4))
    y, v = rng.standard_normal((2, *lead, 13, 4)) + 1

    def gradients(step, *moving):
        return pair_sum_and_grad(*(rows + step * along for rows, along in moving), **options)[1:]

    for moving in (((x, u),), ((x, u), (y, v))):
        arguments = [library.array(a) for pair in moving for a in pair]
        with tiles(tile_rows):
            change = pair_sum_hvp(*arguments, **options)
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
    (of_u,), (of_v,) = (pair_sum_hvp(x, along, kernel=LogarithmicKernel(), bandwidth=2.0) for along in (u, v))
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
            pair_sum_hvp(x, u, y, v, kernel=LogarithmicKernel())


def test_bad_input():
    x = np.zeros((4, 3))
    kernel = LogarithmicKernel()
    with pytest.raises(ValueError, match=r"y must have the leading axes and the dimension of x.*\(4, 2\)"):
        pair_sum(x, x[:, :2], kernel=kernel)
    with pytest.raises(ValueError, match="leading axes"):
        pair_sum(x, x[None], kernel=kernel)
    with pytest.raises(TypeError, match="y must have the dtype of x, got float32 beside float64"):
        pair_sum(x, x.astype(np.float32), kernel=kernel)
    with pytest.raises(TypeError, match="y must be a real floating array"):
        pair_sum(x, x.astype(int), kernel=kernel)
    with pytest.raises(TypeError, match="y must be of the library of x, got Array beside ndarray"):
        pair_sum(x, array_api_strict.asarray(x), kernel=kernel)
    with pytest.raises(TypeError, match=r"y must be a plain array of shape .*, got list; make it an array first"):
        pair_sum(x, x.tolist(), kernel=kernel)


@pytest.mark.parametrize("kernel", [None, "logarithmic", np.log1p, SimpleNamespace(value=1, slope=1)])
def test_bad_kernels(kernel):
    came = type(kernel).__name__
    for call in CALLS:
        with pytest.raises(TypeError, match=f"kernel must be a hashable object with the methods .*, got {came}"):
            call(np.zeros((4, 3)), kernel, 1.0)
        with pytest.raises(TypeError, match=r"got the class LogarithmicKernel; call it: LogarithmicKernel\(\)"):
            call(np.zeros((4, 3)), LogarithmicKernel, 1.0)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.inf, np.nan, 1e-300, 10**400])
def test_bad_bandwidth(bandwidth):
    x = np.zeros((4, 3))
    for call in CALLS:
        came = np.inf if bandwidth == 10**400 else bandwidth
        with pytest.raises(ValueError, match=f"bandwidth must be from 1e-290 to 1e\\+290 in float64, got {came}"):
            call(x, LogarithmicKernel(), bandwidth)
        with pytest.raises(ValueError, match=r"bandwidth must be from 1e-30 to 1e\+30 in float32, got 1e-31"):
            call(x.astype(np.float32), LogarithmicKernel(), 1e-31)


@pytest.mark.parametrize(
    ("bandwidth", "came"),
    [
        ("1", "'1'"),
        (None, "None"),
        (True, "True"),
        (1j, "1j"),
        ([2.0], "a list of 1; call once per bandwidth"),
        (np.asarray(1j), r"array\(0.\+1.j\)"),
        (np.asarray([1.0, 2.0]), r"an array of shape \(2,\); call once per bandwidth"),
        (array_api_strict.asarray(2.0), r"Array\(2., dtype=array_api_strict.float64\)"),
    ],
    ids=repr,
)
def test_a_bandwidth_that_is_no_number(bandwidth, came):
    message = f"bandwidth must be a real number or a 0-d tensor of the framework of the rows, got {came}"
    for call in CALLS:
        with pytest.raises(TypeError, match=message):
            call(np.zeros((4, 3)), LogarithmicKernel(), bandwidth)


# The functions of a kernel and a bandwidth.
CALLS = [
    lambda x, kernel, h: (pair_sum(x, kernel=kernel, bandwidth=h),),
    lambda x, kernel, h: pair_sum_and_grad(x, kernel=kernel, bandwidth=h),
    lambda x, kernel, h: pair_sum_hvp(x, x, kernel=kernel, bandwidth=h),
    lambda x, kernel, h: pair_sum_and_grad(x, x, kernel=kernel, bandwidth=h),
    lambda x, kernel, h: pair_sum_hvp(x, x, x, x, kernel=kernel, bandwidth=h),
]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_any_number_and_a_tensor_as_bandwidth(library, lead, dtype, rng):
    x = rng.standard_normal((*lead, 70, 4)).astype(dtype)
    rows = library.array(x, dtype)
    # No tensor of NumPy: its arrays stand for numbers.
    tensors = [library.xp.asarray(2.0, dtype=getattr(library.xp, name)) for name in ("float32", "float64")]
    for call in CALLS:
        expected = [library.numpy(one) for one in call(rows, LogarithmicKernel(), 2.0)]
        for h in (2, np.float32(2.0), np.float64(2.0), np.int64(2), np.asarray(2.0), np.asarray(2), *tensors):
            results = call(rows, LogarithmicKernel(), h)
            for one, other in zip(results, expected, strict=True):
                assert one.dtype == rows.dtype
                tolerance = {"rtol": 1e-13, "atol": 1e-13} if dtype == "float64" else {"rtol": 2e-6, "atol": 2e-5}
                np.testing.assert_allclose(library.numpy(one), other, **tolerance)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_a_tensor_is_spread_over_batches(library, lead):
    """Each has its own, so that a framework sums their derivatives; a number stays."""
    x, h = library.array(np.zeros((*lead, 5, 2))), library.array(2.5)
    backend = backend_of(x)
    assert pairs.spread(2.5, x, backend) == 2.5
    spread = pairs.spread(h, x, backend)
    assert tuple(spread.shape) == lead
    np.testing.assert_array_equal(library.numpy(spread), np.full(lead, 2.5))


@pytest.mark.parametrize("tile_rows", [None, 8])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_pairs_of_a_row_with_itself(library, lead, dtype, tile_rows, rng, tolerance, tiles):
    """Each adds phi(0), whatever the bandwidth."""
    x = rng.standard_normal((*lead, 70, 4)).astype(dtype)
    for kernel, at_zero in (
        (LogarithmicKernel(), 0.0),
        (InverseMultiquadricKernel(), 1.0),
        (RieszKernel(2.0, 0.25), 8.0),
        (oracle.Quadratic(), 0.0),
    ):
        options = {"kernel": kernel, "bandwidth": 3.0}
        with tiles(tile_rows):
            total = pair_sum(library.array(x, dtype), self_pairs=True, **options)
            others = pair_sum(library.array(x, dtype), **options)
        assert tuple(total.shape) == lead
        assert total.dtype == getattr(library.xp, dtype)
        np.testing.assert_allclose(
            library.numpy(total), library.numpy(others) + 70 * at_zero, rtol=1e-15 if dtype == "float64" else 2e-7
        )
    # All i and j of two sets that are the same.
    same = pair_sum(library.array(x, dtype), library.array(x, dtype), kernel=InverseMultiquadricKernel())
    total = pair_sum(library.array(x, dtype), kernel=InverseMultiquadricKernel(), self_pairs=True)
    np.testing.assert_allclose(library.numpy(total), library.numpy(same), rtol=tolerance[dtype])
    with pytest.raises(ValueError, match="self_pairs must be False for two sets, whose pairs i = j count anyway"):
        pair_sum(x, x, kernel=LogarithmicKernel(), self_pairs=True)


def test_wide_is_an_argument_of_all(monkeypatch):
    seen = []
    monkeypatch.setattr(sums, "PairSum", lambda *arguments: seen.append(arguments) or PairSum(*arguments))
    x = np.zeros((4, 3))
    for wide in (False, True):
        pair_sum(x, kernel=LogarithmicKernel(), wide=wide)
        pair_sum_and_grad(x, kernel=LogarithmicKernel(), wide=wide)
        pair_sum_hvp(x, x, kernel=LogarithmicKernel(), wide=wide)
        assert seen == [(LogarithmicKernel(), wide)] * 3
        seen.clear()


def test_no_more_of_the_namespace_than_declared(offer, rng, tiles):
    """What `NAMESPACE` lists is enough, so that an adapter for a library without the standard knows what to offer."""
    z = array_api_strict.asarray(rng.standard_normal((20, 4)))
    u = array_api_strict.asarray(rng.standard_normal((20, 4)))
    h = array_api_strict.asarray(2.0)

    def results():
        with tiles(8):
            return [
                *eccentric_loss_and_grad(z, 5.0),
                *eccentric_loss_and_grad(z, h, scale="exact"),
                *pair_sum_and_grad(z, u, kernel=LogarithmicKernel(), bandwidth=h),
                *pair_sum_hvp(z, u, u, z, kernel=LogarithmicKernel(), bandwidth=h),
            ]

    expected = results()
    offer()
    for one, other in zip(results(), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    with pytest.raises(AttributeError, match="concat"):
        offer([name for name in NAMESPACE if name != "concat"])


@pytest.mark.parametrize("tile_rows", [None, 2])
def test_an_infinite_slope_at_0_neither_spreads_nor_warns(tile_rows, tiles):
    x, u = np.asarray([[0.0], [3.0], [7.0]]), np.asarray([[1.0], [0.0], [0.0]])
    with tiles(tile_rows):
        assert pair_sum(x, kernel=oracle.Root()) == pytest.approx(28.0, rel=1e-14)
        value, grad = pair_sum_and_grad(x, kernel=oracle.Root())
        (change,) = pair_sum_hvp(x, u, kernel=oracle.Root())
    assert value == pytest.approx(28.0, rel=1e-14)
    np.testing.assert_allclose(grad, [[-4.0], [0.0], [4.0]], atol=1e-14)
    np.testing.assert_allclose(change, np.zeros((3, 1)), atol=1e-14)  # on a line, distances are linear
