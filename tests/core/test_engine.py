"""The engine alone: the tiled form against the dense one, and every derivative against direct sums over pairs."""

from __future__ import annotations

from dataclasses import dataclass

import array_api_strict
import numpy as np
import oracle
import pytest

from eccentric_core import (
    AngularKernel,
    AntipodalKernel,
    GaussianKernel,
    InverseMultiquadricKernel,
    InverseMultiquadricMixture,
    LogarithmicKernel,
    RieszKernel,
)
from eccentric_core.backend import backend_of
from eccentric_core.engine.dense import dense_value, dense_value_and_gradients
from eccentric_core.engine.pairs import PairSum
from eccentric_core.numpy_backend import BACKEND as NUMPY


def kernels_of(eps, roundoff):
    """Every kernel, continued linearly below eps where it would be infinite."""
    return [
        LogarithmicKernel(),
        InverseMultiquadricKernel(),
        InverseMultiquadricMixture((0.1, 1.0, 10.0)),
        GaussianKernel(),
        *(RieszKernel(s, eps) for s in (0.0, 1.0, 2.0, 3.5)),
        *(AngularKernel(s, eps, roundoff) for s in (0.0, 1.0, 2.5)),
        AngularKernel(2.0, eps, roundoff, 1 / np.pi, 1e-4),
        AntipodalKernel(RieszKernel(2.0, eps)),
        AntipodalKernel(AngularKernel(1.0, eps, roundoff)),
        oracle.Quadratic(),
    ]


# Rows of the first set and of the second, if there is one, and whether the squared norms of the first are added to.
SETS = {"one set": (36, None, False), "one set with e": (36, None, True), "two sets": (36, 24, False)}

kernels = pytest.mark.parametrize("kernel", kernels_of(1e-4, 1e-16), ids=repr)
sets = pytest.mark.parametrize("sets", SETS)
# The dense form, and tiles with a rest, without, and of one row.
TILE_SIZES = (None, 10, 12, 1)
leads = pytest.mark.parametrize("lead", [(), (2, 3)])


@dataclass(frozen=True)
class Arguments:
    """Of a sum over pairs, and as many directions of them."""

    x: np.ndarray
    y: np.ndarray | None
    e: np.ndarray | None
    h: float | np.ndarray
    a: float | np.ndarray
    b: float | np.ndarray
    directions: tuple

    @property
    def arrays(self):
        return self.x, self.y, self.e, self.h, self.a, self.b

    def moved(self, step):
        """The arguments so far along their directions, in extended precision."""
        pairs = zip(self.arrays, self.directions, strict=True)
        return [a if u is None else np.asarray(a, np.longdouble) + step * u for a, u in pairs]


def arguments(rng, sets, lead=(), kind="number", far=0.0):
    """Rows whose t are below 4 and no two of which are close; h, a and b are numbers, or arrays with directions."""
    n, m, with_e = SETS[sets]

    def rows(n):
        x = rng.standard_normal((*lead, n, 5))
        return 0.9 * x / np.linalg.norm(x, axis=-1, keepdims=True) + far, rng.standard_normal((*lead, n, 5))

    x, u = rows(n)
    y, v = (None, None) if m is None else rows(m)
    e, de = (rng.uniform(0.01, 0.1, (*lead, n, 1)), rng.standard_normal((*lead, n, 1))) if with_e else (None, None)
    h, a, b, *moves = 1.1, 0.7, -1.3, None, None, None
    if kind == "array":
        h, a, b = (rng.uniform(low, low + 0.3, lead) for low in (1.0, 0.7, -1.3))
        moves = rng.standard_normal((3, *lead))
    return Arguments(x, y, e, h, a, b, (u, v, de, *moves))


def close(found, expected, tolerance, size=0.0):
    """Up to a part of the largest number, or of what else is of its size."""
    if expected is None:
        assert found is None
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), size))


def of_dense(x, y, e, h, kernel):
    """The factors stand in the docstring of `eccentric_core.engine.dense`."""
    factor = (4.0 if y is None else 2.0) / h
    value, *gradients, weight = dense_value_and_gradients(x, y, e, h, kernel, NUMPY.xp, times=factor)
    return value, *gradients, weight if e is None else weight * (factor / 2.0)


@kernels
@sets
@pytest.mark.parametrize("tile_rows", [10, 12, 1])
@pytest.mark.parametrize("h", [1.0, 2.5])
def test_tiles_against_the_dense_form(kernel, sets, tile_rows, h, rng):
    a = arguments(rng, sets)
    x, y, e, *_ = a.arrays
    origin = np.mean(x, axis=0)
    dense = x - origin, None if y is None else y - origin, e
    tiled = PairSum(kernel, tile_rows=tile_rows)
    value, *gradients = of_dense(*dense, h, kernel)
    found, *others = tiled.value_and_gradients(NUMPY, x, y, e, h)
    assert found == pytest.approx(value, rel=1e-13)
    assert tiled.value(NUMPY, x, y, e, h) == pytest.approx(value, rel=1e-13)
    assert dense_value(*dense, h, kernel, NUMPY.xp) == pytest.approx(value, rel=1e-14)
    for one, other in zip(others, (*gradients, None, None, None), strict=True):
        close(one, other, 1e-13)


# A steep slope would multiply the rounding of a distance that is 0.
@pytest.mark.parametrize("kernel", kernels_of(0.1, 0.01), ids=repr)
@sets
def test_tiles_against_the_dense_form_where_rows_coincide(kernel, sets, rng):
    """Some of one set, and some of the two."""
    a = arguments(rng, sets)
    x, y, e, *_ = a.arrays
    x[20:24] = x[3]
    x -= np.mean(x, axis=0)
    if y is not None:
        y[5:9] = x[3]
    value, *gradients = of_dense(x, y, e, 1.0, kernel)
    found, *others = PairSum(kernel, tile_rows=10).value_and_gradients(NUMPY, x, y, e, 1.0)
    assert found == pytest.approx(value, rel=1e-11)
    for one, other in zip(others, (*gradients, None, None, None), strict=True):
        close(one, other, 1e-11)


@kernels
@sets
@leads
def test_value_and_gradients(kernel, sets, lead, rng):
    """With respect to rows, e and bandwidth, against sums pair by pair, for tiles of every size."""
    a = arguments(rng, sets, lead, "array", far=3.0)
    expected = oracle.kernel_sum_and_gradients(kernel, NUMPY.xp, *a.arrays)
    for tile_rows in TILE_SIZES:
        f = PairSum(kernel, tile_rows=tile_rows)
        found = f.value_and_gradients(NUMPY, *a.arrays)
        for one, other in zip(found, expected, strict=True):
            close(one, other, 2e-12)
        value = f.value(NUMPY, *a.arrays)
        close(value, expected[0], 1e-13, size=np.abs(expected[-1]).max())  # a difference of two sums
        # A number has no derivative, and is the same as an array.
        if not lead:
            numbers = (float(one) for one in a.arrays[3:])
            *same, no_h, no_a, no_b = f.value_and_gradients(NUMPY, *a.arrays[:3], *numbers)
            assert no_h is no_a is no_b is None
            for one, other in zip(same, found, strict=False):
                close(one, other, 1e-14)


@kernels
@sets
def test_gradients_are_the_derivatives_of_the_value(kernel, sets, rng):
    """Of the direct sums, by central differences."""
    a = arguments(rng, sets, kind="array")
    _, *gradients = PairSum(kernel).value_and_gradients(NUMPY, *a.arrays)
    for k, (grad, u) in enumerate(zip(gradients, a.directions, strict=True)):
        if u is None:
            assert grad is None
            continue
        alone = Arguments(*a.arrays, tuple(u if i == k else None for i in range(6)))
        slope = oracle.slope_at_zero(
            lambda step, alone=alone: oracle.kernel_sum_and_gradients(kernel, NUMPY.xp, *alone.moved(step))[0]
        )
        assert abs(np.sum(grad * u) - slope) <= 1e-12 * np.linalg.norm(grad) * np.linalg.norm(u)


@kernels
@sets
@leads
def test_hessian_times_a_vector(kernel, sets, lead, rng):
    """Along every argument alone and along all together, against central differences of the direct gradients."""
    a = arguments(rng, sets, lead, "array", far=3.0)
    gradients = PairSum(kernel).value_and_gradients(NUMPY, *a.arrays)[1:]
    given = [k for k, grad in enumerate(gradients) if grad is not None]
    ends = np.cumsum([np.size(gradients[k]) for k in given])
    for some in [*((k,) for k in given), given]:
        moving = Arguments(*a.arrays, tuple(u if k in some else None for k, u in enumerate(a.directions)))

        def direct(step, moving=moving):
            parts = oracle.kernel_sum_and_gradients(kernel, NUMPY.xp, *moving.moved(step))[1:]
            return np.concatenate([np.ravel(parts[k]) for k in given])

        expected = np.split(oracle.slope_at_zero(direct), ends[:-1])
        for tile_rows in (None, 10, 12):
            found = PairSum(kernel, tile_rows=tile_rows).hvp(NUMPY, a.arrays, moving.directions)
            assert [k for k, one in enumerate(found) if one is not None] == given
            for k, one in zip(given, expected, strict=True):
                size = np.abs(gradients[k]).max()
                close(found[k], one.reshape(gradients[k].shape), 1e-11, size=size)


@sets
@pytest.mark.parametrize("tile_rows", [None, 10])
def test_a_direction_that_is_none_is_zero(sets, tile_rows, rng):
    a = arguments(rng, sets, (2,), "array")
    f = PairSum(LogarithmicKernel(), tile_rows=tile_rows)
    for k, u in enumerate(a.directions):
        if u is not None:
            nothing, zeros = (
                tuple(one if i == k else rest(one) for i, one in enumerate(a.directions))
                for rest in (lambda _: None, lambda one: None if one is None else np.zeros_like(one))
            )
            for one, other in zip(f.hvp(NUMPY, a.arrays, nothing), f.hvp(NUMPY, a.arrays, zeros), strict=True):
                np.testing.assert_array_equal(one, other)


@sets
@pytest.mark.parametrize("tile_rows", [None, 10])
def test_hessian_is_symmetric(sets, tile_rows, rng):
    a = arguments(rng, sets, (), "array")
    f = PairSum(InverseMultiquadricKernel(), tile_rows=tile_rows)
    other = tuple(None if u is None else rng.standard_normal(np.shape(u)) for u in a.directions)

    def product(one, two):
        return sum(np.sum(p * u) for p, u in zip(f.hvp(NUMPY, a.arrays, one), two, strict=True) if u is not None)

    assert product(a.directions, other) == pytest.approx(product(other, a.directions), rel=1e-12)


@sets
@pytest.mark.parametrize("tile_rows", [None, 10])
def test_every_library(library, sets, tile_rows, rng):
    a = arguments(rng, sets, (3,), "array", far=3.0)

    def given(arrays):
        return tuple(None if one is None else library.array(one) for one in arrays)

    backend = backend_of(library.array(a.x))
    f = PairSum(LogarithmicKernel(), tile_rows=tile_rows)
    for found, expected in (
        (
            f.value_and_gradients(backend, *given(a.arrays)),
            oracle.kernel_sum_and_gradients(LogarithmicKernel(), NUMPY.xp, *a.arrays),
        ),
        (f.hvp(backend, given(a.arrays), given(a.directions)), f.hvp(NUMPY, a.arrays, a.directions)),
    ):
        for one, other in zip(found, expected, strict=True):
            close(None if one is None else library.numpy(one), other, 1e-12)


@kernels
@sets
def test_no_more_of_the_namespace_than_declared(kernel, sets, offer, rng):
    """Value, gradients and Hessian of every kernel, with tiles and without."""
    offer()
    a = arguments(rng, sets, (2,), "array")

    def given(arrays):
        return tuple(None if one is None else array_api_strict.asarray(one) for one in arrays)

    backend = backend_of(array_api_strict.asarray(a.x))
    for tile_rows in (None, 15):
        f = PairSum(kernel, tile_rows=tile_rows)
        for found, expected in (
            ((f.value(backend, *given(a.arrays)),), (f.value(NUMPY, *a.arrays),)),
            (f.value_and_gradients(backend, *given(a.arrays)), f.value_and_gradients(NUMPY, *a.arrays)),
            (f.hvp(backend, given(a.arrays), given(a.directions)), f.hvp(NUMPY, a.arrays, a.directions)),
        ):
            for one, other in zip(found, expected, strict=True):
                size = 0.0 if other is None else np.abs(expected[0]).max()
                close(None if one is None else np.asarray(one), other, 1e-12, size)


@sets
@pytest.mark.parametrize("tile_rows", [None, 30])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("kind", ["number", "array"])
def test_float32(sets, tile_rows, wide, kind, rng, monkeypatch, tolerance):
    """More rows than are computed in float64 anyway. Results have the dtype of the rows."""
    n, m, with_e = SETS[sets]
    monkeypatch.setitem(SETS, sets, (4 * n, m and 4 * m, with_e))
    a = arguments(rng, sets, (2,), kind)
    narrow = [one if one is None or isinstance(one, float) else one.astype(np.float32) for one in a.arrays]
    exact = [one if one is None or isinstance(one, float) else one.astype(np.float64) for one in narrow]
    directions = tuple(None if u is None else u.astype(np.float32) for u in a.directions)
    f, true = PairSum(LogarithmicKernel(), wide, tile_rows), PairSum(LogarithmicKernel())
    for found, expected in (
        (f.value_and_gradients(NUMPY, *narrow), true.value_and_gradients(NUMPY, *exact)),
        ((f.value(NUMPY, *narrow),), (true.value(NUMPY, *exact),)),
        (
            f.hvp(NUMPY, narrow, directions),
            true.hvp(NUMPY, exact, [u if u is None else u.astype(float) for u in directions]),
        ),
    ):
        for one, other in zip(found, expected, strict=True):
            if other is None:
                assert one is None
            else:
                assert one.dtype == np.float32
                assert np.linalg.norm(one - other) <= tolerance["float32"] * np.linalg.norm(other)


@sets
def test_few_rows_are_computed_in_float64(sets, rng):
    """Whatever their dtype: only the results are rounded."""
    a = arguments(rng, sets, (), "array", far=1000.0)
    narrow = [None if one is None else one.astype(np.float32) for one in a.arrays]
    exact = [None if one is None else one.astype(np.float64) for one in narrow]
    directions = tuple(None if u is None else u.astype(np.float32) for u in a.directions)
    wide = [u if u is None else u.astype(float) for u in directions]
    f = PairSum(LogarithmicKernel())
    for found, expected in (
        (f.value_and_gradients(NUMPY, *narrow), f.value_and_gradients(NUMPY, *exact)),
        (f.hvp(NUMPY, narrow, directions), f.hvp(NUMPY, exact, wide)),
    ):
        for one, other in zip(found, expected, strict=True):
            if other is not None:
                np.testing.assert_allclose(one, other, rtol=1.2e-7)


@dataclass(frozen=True)
class Seen:
    """A kernel that keeps the dtypes that it is asked for."""

    seen: set

    def value(self, t, xp):  # noqa: ARG002
        self.seen.add(t.dtype.name)
        return t

    def slope(self, t, xp):
        self.seen.add(t.dtype.name)
        return xp.ones_like(t)

    def second_derivative(self, t, xp):
        self.seen.add(t.dtype.name)
        return xp.zeros_like(t)


@sets
def test_many_batches_of_few_rows_are_computed_in_their_own_dtype(sets, rng):
    a = arguments(rng, sets, (50,), "array")
    f = PairSum(Seen(set()))
    narrow, moves = (
        [None if one is None else one.astype(np.float32) for one in some] for some in (a.arrays, a.directions)
    )
    f.value_and_gradients(NUMPY, *narrow)
    f.hvp(NUMPY, narrow, moves)
    assert f.kernel.seen == {"float32"}


@sets
@pytest.mark.parametrize("tile_rows", [None, 30])
def test_wide_sums_cost_no_wide_distances(sets, tile_rows, rng, monkeypatch):
    """Of many rows; the kernel is the costly part. Few rows are in float64 altogether."""
    for factor, expected in ((1, {"float64"}), (4, {"float32"})):
        n, m, with_e = SETS[sets]
        monkeypatch.setitem(SETS, sets, (factor * n, m and factor * m, with_e))
        a = arguments(rng, sets)
        narrow = [one if one is None or isinstance(one, float) else one.astype(np.float32) for one in a.arrays]
        f = PairSum(Seen(set()), True, tile_rows)
        f.value(NUMPY, *narrow)
        f.value_and_gradients(NUMPY, *narrow)
        f.hvp(NUMPY, narrow, (*narrow[:3], None, None, None))
        assert f.kernel.seen == expected
        monkeypatch.setitem(SETS, sets, (n, m, with_e))
