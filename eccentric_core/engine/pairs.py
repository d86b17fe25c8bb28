"""The engine: a sum over pairs of phi(D_ij) and its derivatives, in one sweep over tiles.

    S = sum over pairs (i, j) of phi(D_ij / h),   D_ij = |x_i - y_j|^2,   h the kernel's bandwidth

    dS/dx_i = sum over j of (2/h) phi'(D_ij / h) (x_i - y_j)

The pairs are those of one set with itself (i != j, in both orders) or of one set with another (all i and j). Any energy
of this form is a small object with phi and its derivatives (`eccentric_core.engine.kernels`). `eccentric_core.engine.tiles` is what
one tile computes, `eccentric_core.engine.sweep` the loop over tiles. Memory is O(n d) and one tile, never n x n.

The batch mean is subtracted first: distances don't change, but what remains is small, and rounding with it. The
gradient is a difference of large sums, so rounding of the sums is what limits it. A constant part of the slopes w makes
up most of them, and what it adds to the gradient is known in closed form: the tiles work with w - c, where c = phi' at
the mean of t. Where a few close pairs have slopes far above all others, the sums can be kept in float64 (`wide`).

A framework binds an `Energy`: a `PairSum` with a driver of its own, or what is made of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import array_api_compat
import numpy as np

from eccentric_core.checks import check_bandwidth, check_batch, check_tile_rows, compute_dtype
from eccentric_core.engine.sweep import Driver, slices, sweep
from eccentric_core.engine.tiles import (
    Moving,
    Rows,
    derivative_of_moments,
    energy,
    energy_and_gradient,
    energy_and_moments,
    gradient_of_moments,
    prepare,
    prepare_direction,
    second_moments,
    typical_slope,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel
    from eccentric_core.engine.sweep import Forms

# Up to this many rows a sweep is computed in float64 where the device has it, whatever the dtype.
FEW_ROWS = 64

# Where the rows are in the fields of `Rows` and of `Moving`.
_AXES = (-2, -2, -1)
_AXES_MOVING = (*_AXES, -2, -1)


# NaN and infinity flow through to the result, which tells of them; warnings on the way would only repeat it.
flowing = np.errstate(invalid="ignore", over="ignore")


@flowing
def pair_sum(
    x: Array, y: Array | None = None, *, kernel: PairKernel, tile_rows: int | None = None, xp: Any = None
) -> Array:
    """The sum over pairs of phi(|x_i - y_j|^2 / h).

    Args:
        x: rows of shape (..., n, d), real floating; leading axes are separate batches.
        y: rows of shape (..., m, d) with the same leading axes, dtype and library; None for the pairs of x.
        kernel: phi and h.
        tile_rows: rows of one tile; None chooses from the device and the dtype.
        xp: the array namespace; None takes it from x.

    Returns:
        An array of shape (...): the sum over all ordered pairs i != j of x, or over all i and j of x and y. float64
        for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described.

    NaN and infinity in the rows appear in the result.

    >>> from eccentric_core import InverseMultiquadricKernel
    >>> float(pair_sum(np.asarray([[0.0], [1.0], [3.0]]), kernel=InverseMultiquadricKernel(1.0)))
    1.6
    """
    return _bound(x, y, kernel, tile_rows, xp).value(*_sets(x, y))


@flowing
def pair_sum_and_grad(
    x: Array,
    y: Array | None = None,
    *,
    kernel: PairKernel,
    tile_rows: int | None = None,
    xp: Any = None,
    wide: bool = False,
) -> tuple[Array, ...]:
    """`pair_sum` and its gradient with respect to x, and to y where there is one, from the same sweep.

    Args:
        x, y, kernel, tile_rows, xp: as in `pair_sum`.
        wide: keep the sums that make the gradient in float64, whatever the dtype, on devices that have it.

    Returns:
        (sum, gradient of x) or (sum, gradient of x, gradient of y); a gradient has the shape of its rows and the
        dtype of the sum.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    return _bound(x, y, kernel, tile_rows, xp, wide=wide).value_and_gradients(*_sets(x, y))


@flowing
def pair_sum_hvp(
    x: Array,
    u: Array,
    y: Array | None = None,
    v: Array | None = None,
    *,
    kernel: PairKernel,
    tile_rows: int | None = None,
    xp: Any = None,
    wide: bool = False,
) -> tuple[Array, ...]:
    """The Hessian of `pair_sum` times a vector: the derivative of its gradients along the directions u and v.

        sum over j of (2/h) [phi'(t_ij) (u_i - v_j) + (2/h) phi''(t_ij) <x_i - y_j, u_i - v_j> (x_i - y_j)]

    Args:
        x, y, kernel, tile_rows, xp, wide: as in `pair_sum_and_grad`.
        u, v: directions of the shapes and dtypes of x and y.

    Returns:
        (derivative of the gradient of x,) and, of two sets, also that of the gradient of y.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> from eccentric_core import LogarithmicKernel
    >>> x, u = np.asarray([[0.0], [1.0]]), np.asarray([[0.0], [1.0]])
    >>> print(pair_sum_hvp(x, u, kernel=LogarithmicKernel(3.0))[0].round(3))
    [[-0.5]
     [ 0.5]]
    """
    for name, rows, direction in (("u", x, u), ("v", y, v)):
        facts, expected = ((getattr(a, "shape", None), getattr(a, "dtype", None)) for a in (direction, rows))
        if facts != expected:
            raise ValueError(
                f"{name} must have the shape and dtype of what it is a direction of, {expected}, got {facts}"
            )
    return _bound(x, y, kernel, tile_rows, xp, wide=wide).hvp(_sets(x, y), _sets(u, v))


class Energy(Protocol):
    """A number per batch of rows, with its derivatives: what a framework binds."""

    def value(self, *sets: Array) -> Array:
        """The energy, of shape (...)."""
        ...

    def value_and_gradients(self, *sets: Array) -> tuple[Array, ...]:
        """The energy and its gradient with respect to every set."""
        ...

    def hvp(self, sets: Sequence[Array], directions: Sequence[Array]) -> tuple[Array, ...]:
        """The derivative of the gradient of every set along the directions of all."""
        ...


@dataclass(frozen=True)
class PairSum:
    """A sum over pairs as a function of one set of rows or of two, for a framework to bind.

    The sets are arrays of shapes (..., n, d) and (..., m, d) that `check_sets` has seen. Results have the dtype to
    compute in: float64 for float64, otherwise float32. With offsets the last column of the rows is no coordinate but a
    number a_i, and D_ij is |x_i - y_j|^2 + a_i + a_j.
    """

    kernel: PairKernel
    driver: Driver
    tile_rows: int | None = None
    wide: bool = False
    offsets: bool = False

    def value(self, *sets: Array) -> Array:
        """The sum, of shape (...)."""
        return self._by_batches(self._value, sets)[0]

    def value_and_gradients(self, *sets: Array) -> tuple[Array, ...]:
        """The sum and its gradient with respect to every set."""
        return self._by_batches(self._value_and_gradients, sets)

    def hvp(self, sets: Sequence[Array], directions: Sequence[Array]) -> tuple[Array, ...]:
        """The derivative of the gradient of every set along the directions of all."""
        return self._by_batches(self._hvp, (*sets, *directions))

    def _value(self, sets: Sequence[Array]) -> tuple[Array, ...]:
        rows, xp = self._prepared(sets), self.driver.xp

        def step(x: Forms, y: Forms, *, diagonal: bool) -> Any:
            total = energy(Rows(*x), Rows(*y), self.kernel, xp, diagonal=diagonal)
            # Off the diagonal of one set a pair counts in both orders.
            return (total if diagonal or len(rows) == 2 else total * 2.0,), (None,)

        def outline(x: Forms) -> tuple[Array, ...]:
            return (_total_like(x, xp),)

        return (sweep(rows, _AXES, step, outline, self.driver, self._tile_rows(sets), totals=1)[0][0],)

    def _value_and_gradients(self, sets: Sequence[Array]) -> tuple[Array, ...]:
        xp, n = self.driver.xp, sets[0].shape[-2]
        if len(sets) == 1 and n is not None and n <= self._tile_rows(sets):
            (x,) = self._centred(sets)
            dtype = self._moment_dtype(sets)
            total, gradient = energy_and_gradient(x, self.kernel, xp, dtype=dtype, offsets=self.offsets)
            return total, gradient * self._factor(sets)
        rows = self._prepared(sets)
        shift = typical_slope(rows[0], rows[-1], self.kernel, xp)

        def step(x: Forms, y: Forms, *, diagonal: bool) -> Any:
            options = {"shift": shift, "diagonal": diagonal, "offsets": self.offsets}
            total, of_x, *of_y = energy_and_moments(Rows(*x), Rows(*y), self.kernel, xp, **options)
            return (total if diagonal or len(rows) == 2 else total * 2.0, of_x), (None, *of_y)

        def outline(x: Forms) -> tuple[Array, ...]:
            return _total_like(x, xp), Rows(*x).columns

        sums = sweep(rows, _AXES, step, outline, self.driver, self._tile_rows(sets), totals=1)
        gradients = (
            gradient_of_moments(x, y, of_x[1], shift, xp, offsets=self.offsets) * self._factor(sets)
            for x, y, of_x in zip(rows, reversed(rows), sums, strict=True)
        )
        return sums[0][0], *gradients

    def _hvp(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        sets, directions = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        xp = self.driver.xp
        # The same constant from all directions: their differences don't change, and rounding becomes less.
        along = zip(self._prepared(sets), self._centred(directions), strict=True)
        rows = [prepare_direction(x, u, xp, offsets=self.offsets) for x, u in along]
        shift = typical_slope(rows[0], rows[-1], self.kernel, xp)

        def step(x: Forms, y: Forms, *, diagonal: bool) -> Any:
            of_x, *of_y = second_moments(Moving(*x), Moving(*y), self.kernel, xp, shift=shift, diagonal=diagonal)
            return of_x, *of_y

        def outline(x: Forms) -> tuple[Array, ...]:
            columns = Moving(*x).columns
            return columns[..., :1, :], columns[..., 1:, :], columns

        sums = sweep(rows, _AXES_MOVING, step, outline, self.driver, self._tile_rows(sets), totals=0)
        return tuple(
            derivative_of_moments(x, y, of_x, shift, xp, offsets=self.offsets) * self._factor(sets)
            for x, y, of_x in zip(rows, reversed(rows), sums, strict=True)
        )

    def _factor(self, sets: Sequence[Array]) -> float:
        # Of one set a row is at either end of its pairs.
        return (4.0 if len(sets) == 1 else 2.0) / self.kernel.bandwidth

    def _prepared(self, sets: Sequence[Array]) -> list[Rows]:
        options = {"dtype": self._moment_dtype(sets), "offsets": self.offsets}
        return [prepare(rows, self.kernel.bandwidth, self.driver.xp, **options) for rows in self._centred(sets)]

    def _centred(self, sets: Sequence[Array]) -> list[Array]:
        """The sets without the mean of the first, which must be the same for both. An offset has no origin."""
        xp = self.driver.xp
        centre = xp.mean(sets[0], axis=-2, keepdims=True)
        if self.offsets:
            centre = xp.concat([centre[..., :-1], xp.zeros_like(centre[..., -1:])], axis=-1)
        return [rows - centre for rows in sets]

    def _moment_dtype(self, sets: Sequence[Array]) -> Any:
        return self.driver.xp.float64 if self.wide and self.driver.has_float64(sets[0]) else sets[0].dtype

    def _tile_rows(self, sets: Sequence[Array]) -> int:
        return self.tile_rows or self.driver.tile_rows(sets[0])

    def _by_batches(
        self, function: Callable[[Sequence[Array]], tuple[Array, ...]], arrays: Sequence[Array]
    ) -> tuple[Array, ...]:
        """The function of arrays in the dtype to compute in, of some batches at a time."""
        xp, driver = self.driver.xp, self.driver
        result_dtype = getattr(xp, compute_dtype(arrays[0], "x"))
        # A single outlier drags the mean of few rows far away from the others. For few rows float64 costs nothing.
        sizes = [rows.shape[-2] for rows in arrays]
        few = all(size is not None and size <= FEW_ROWS for size in sizes) and driver.has_float64(arrays[0])
        dtype = xp.float64 if few else result_dtype
        arrays = [xp.astype(rows, dtype, copy=False) for rows in arrays]
        lead = driver.shape(arrays[0])[:-2]
        if not lead or not driver.splits_batches:
            results = function(arrays)
        else:
            # Leading axes become one, and the rows of many small batches share a tile.
            batches, tile = math.prod(lead), self._tile_rows(arrays)
            step = max(1, tile * tile // math.prod(min(tile, size) for size in (sizes[0], sizes[-1])))
            flat = [xp.reshape(rows, (batches, *rows.shape[-2:])) for rows in arrays]
            parts = [function([rows[some, ...] for rows in flat]) for some in slices(batches, step)]
            joined = [part[0] if len(part) == 1 else xp.concat(part, axis=0) for part in zip(*parts, strict=True)]
            results = tuple(xp.reshape(result, (*lead, *result.shape[1:])) for result in joined)
        return tuple(xp.astype(result, result_dtype, copy=False) for result in results)


def check_sets(sets: Sequence[Array], kernel: PairKernel) -> None:
    """Check one set or two, and the bandwidth of a kernel for them, by static facts alone."""
    x = sets[0]
    d = check_batch(x, "x", min_rows=1)[1]
    for y in sets[1:]:
        m_d = check_batch(y, "y", min_rows=1)[1]
        known = zip((*y.shape[:-2], m_d), (*x.shape[:-2], d), strict=False)
        if len(y.shape) != len(x.shape) or any(None not in pair and pair[0] != pair[1] for pair in known):
            raise ValueError(
                f"y must have the leading axes and the dimension of x, got {tuple(y.shape)} beside {tuple(x.shape)}"
            )
        if compute_dtype(y, "y") != compute_dtype(x, "x"):
            raise TypeError(f"y must have the dtype of x, got {y.dtype} beside {x.dtype}; convert one of them")
    check_bandwidth(kernel.bandwidth, compute_dtype(x, "x"))


def _sets(x: Array, y: Array | None) -> tuple[Array, ...]:
    return (x,) if y is None else (x, y)


def _bound(
    x: Array, y: Array | None, kernel: PairKernel, tile_rows: int | None, xp: Any, *, wide: bool = False
) -> PairSum:
    """The sum over pairs in Python's own loop, its arguments checked."""
    check_sets(_sets(x, y), kernel)
    check_tile_rows(tile_rows)
    xp = array_api_compat.array_namespace(*_sets(x, y)) if xp is None else xp
    return PairSum(kernel, Driver(xp), tile_rows, wide)


def _total_like(forms: Forms, xp: Any) -> Array:
    return xp.sum(Rows(*forms).left, axis=(-2, -1))
