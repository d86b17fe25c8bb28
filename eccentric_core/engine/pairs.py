"""Sums over pairs of phi(D_ij / h) and their derivatives, for any kernel, in O(n d) memory.

    S = sum over pairs (i, j) of phi(D_ij / h),   D_ij = |x_i - y_j|^2,   h the bandwidth

    dS/dx_i = sum over j of (2/h) phi'(D_ij / h) (x_i - y_j),   dS/dh = -(1/(2h)) sum_i <x_i, dS/dx_i>

The pairs are those of one set with itself (i != j, in both orders) or of one set with another (all i and j). Any energy
of this form needs a small object with phi and its derivatives (`eccentric_core.engine.kernels`).

Here the rows are centred and scaled: phi(D/h) of rows x is phi(D) of rows x / sqrt(h). The batch mean is subtracted
first, as distances don't change, but what remains is small, and rounding with it. What follows knows no bandwidth: the
dense form (`eccentric_core.engine.dense`) of at most one tile, or a sweep (`eccentric_core.engine.sweep`) over tiles
(`eccentric_core.engine.tiles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from eccentric_core.checks import dtype_name
from eccentric_core.engine.dense import dense_value, dense_value_and_row_sums
from eccentric_core.engine.precision import few
from eccentric_core.engine.sweep import sweep
from eccentric_core.engine.tiles import (
    ROW_AXES,
    TANGENT_AXES,
    Rows,
    Tangents,
    derivative_of_moments,
    gradient_of_moments,
    mean_slope,
    prepare,
    prepare_direction,
    tile_second_moments,
    tile_value,
    tile_value_and_moments,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel
    from eccentric_core.engine.sweep import Operands


def spread(number: Any, x: Array, backend: Backend) -> Any:
    """A 0-d tensor as one for each batch of rows, so that its derivative is summed over them; a number as it is."""
    if isinstance(number, float) or len(x.shape) == 2:
        return number
    return number + backend.xp.zeros_like(x[..., 0, 0])


class _Scaled(NamedTuple):
    """Centred rows in units of sqrt(h), and their e in units of h."""

    x: Array
    y: Array | None
    e: Array | None


@dataclass(frozen=True)
class PairSum:
    """A sum over pairs as a function to differentiate: of rows x, rows y or None, e or None, and a bandwidth h.

        t_ij = (|x_i - y_j|^2 + e_i + e_j) / h

    The rows have shapes (..., n, d) and (..., m, d), e has shape (..., n, 1) and is for one set alone: the squared
    norm of row i counts as |x_i|^2 + e_i. h is a number, or a tensor of shape (...). All have the dtype to compute in,
    float32 or float64, as have all results.

    Attributes:
        kernel: phi.
        wide: keep the sums that make gradients in float64 where the device has it.
        tile_rows: rows of a tile; None lets the backend choose.
    """

    kernel: PairKernel
    wide: bool = False
    tile_rows: int | None = None

    def value(self, backend: Backend, x: Array, y: Array | None, e: Array | None, h: Any) -> Array:
        """The sum, of shape (...)."""
        scaled, _, dtype = self._scaled(backend, x, y, e, h, wide=False)
        (total,) = self._by_batches(self._value, backend, dtype, scaled)
        return backend.xp.astype(total, x.dtype, copy=False)

    def value_and_gradients(
        self, backend: Backend, x: Array, y: Array | None, e: Array | None, h: Any
    ) -> tuple[Any, ...]:
        """The sum, and its gradient with respect to each of x, y, e and h; None for what is None or a number."""
        scaled, scales, dtype = self._scaled(backend, x, y, e, h, wide=self.wide)
        total, *row_sums = self._by_batches(self._row_sums, backend, dtype, scaled)
        factor = _factor(y)
        grad_h = None
        if not isinstance(h, float):
            by_h = -0.5 * factor / backend.xp.astype(h, scaled.x.dtype, copy=False)
            grad_h = _inner(scaled, row_sums, backend.xp) * by_h
        return _as(x.dtype, (total, *_gradients(row_sums, scales, factor), grad_h), backend.xp)

    def hvp(self, backend: Backend, arrays: Sequence[Any], directions: Sequence[Any]) -> tuple[Any, ...]:
        """The derivative of each gradient along the directions of all; a direction may be None for 0.

        With X = x / sqrt(h), E = e / h and r the direction of h these move by X' = u / sqrt(h) - X r/(2h) and
        E' = e' / h - E r/h. With the row sums G and W, and c = 2 or 4 (`_factor`), the gradients are c G / sqrt(h),
        c W / (2h) and -c (<G, X> + <W, E>) / (2h).
        """
        xp, (x, y, e, h), (u, v, de, r) = backend.xp, arrays, directions
        scaled, scales, dtype = self._scaled(backend, x, y, e, h, wide=self.wide)
        factor = _factor(y)
        tangents = [
            a if a is None else xp.zeros_like(a) if given is None else xp.astype(given, a.dtype, copy=False)
            for given, a in zip((u, v, de), scaled, strict=True)
        ]
        # The same constant is taken from all directions: their differences don't change, and rounding becomes less.
        centre = xp.mean(tangents[0], axis=-2, keepdims=True)
        tangents[:2] = (a if a is None else a - centre for a in tangents[:2])
        tangents = _times(tangents, scales)
        if isinstance(h, float):
            changes = self._by_batches(self._row_sum_derivatives, backend, dtype, (*scaled, *tangents))
            return _as(x.dtype, (*_gradients(changes, scales, factor), None), xp)
        h = xp.astype(h, scaled.x.dtype, copy=False)
        rate = xp.zeros_like(h) if r is None else xp.astype(r, h.dtype, copy=False) / h
        rates = [rate[..., None, None] * power for power in (0.5, 0.5, 1.0)]
        tangents = [a if a is None else a - b for a, b in zip(tangents, _times(scaled, rates), strict=True)]
        row_sums = self._by_batches(self._row_sums, backend, dtype, scaled)[1:]
        changes = self._by_batches(self._row_sum_derivatives, backend, dtype, (*scaled, *tangents))
        turn = _inner(scaled, changes, xp) + _inner(tangents, row_sums, xp) - _inner(scaled, row_sums, xp) * rate
        turned = [a if a is None else a - b for a, b in zip(changes, _times(row_sums, rates), strict=True)]
        return _as(x.dtype, (*_gradients(turned, scales, factor), turn * (-0.5 * factor / h)), xp)

    def _scaled(
        self, backend: Backend, x: Array, y: Array | None, e: Array | None, h: Any, *, wide: bool
    ) -> tuple[_Scaled, tuple[Any, Any, Any], Any]:
        """The rows to sum over, how they and e were scaled, and the dtype of distances if it is not theirs."""
        xp, dtype = backend.xp, None
        few_rows = few(x.shape[-2], *(() if y is None else (y.shape[-2],)))
        if (wide or few_rows) and dtype_name(x) == "float32" and backend.has_float64(x):
            dtype = None if few_rows else x.dtype
            x, y, e = _as(xp.float64, (x, y, e), xp)
        # The mean of the first set, which must be the same for both.
        centre = xp.mean(x, axis=-2, keepdims=True)
        x, y = x - centre, None if y is None else y - centre
        if not isinstance(h, float):
            root = xp.reciprocal(xp.sqrt(xp.astype(h, x.dtype, copy=False)))[..., None, None]
        elif h == 1.0:
            return _Scaled(x, y, e), (1.0, 1.0, 1.0), dtype
        else:
            root = 1.0 / math.sqrt(h)
        scales = root, root, root * root
        return _Scaled(*_times((x, y, e), scales)), scales, dtype

    def _value(self, backend: Backend, dtype: Any, x: Array, y: Array | None, e: Array | None) -> tuple[Array]:
        xp = backend.xp
        if self._is_dense(backend, x, y):
            x, y, e = (x, y, e) if dtype is None else _as(dtype, (x, y, e), xp)
            return (dense_value(x, y, e, self.kernel, xp),)
        sets = [prepare(x, e, xp, dtype=dtype), *([] if y is None else [prepare(y, None, xp, dtype=dtype)])]

        def step(x: Operands, y: Operands, *, diagonal: bool) -> Any:
            total = tile_value(Rows(*x), Rows(*y), self.kernel, xp, diagonal=diagonal)
            # Off the diagonal of one set a pair counts in both orders.
            return (total if diagonal or len(sets) == 2 else total * 2.0,), (None,)

        def templates(x: Operands) -> tuple[Array, ...]:
            return (_total_like(x, xp),)

        return (sweep(sets, ROW_AXES, step, templates, backend, self._tile_rows(backend, x), totals=1)[0][0],)

    def _row_sums(
        self, backend: Backend, dtype: Any, x: Array, y: Array | None, e: Array | None
    ) -> tuple[Array | None, ...]:
        """The sum, and the sums of each row that make its gradients with respect to x, y and e (`_gradients`)."""
        xp = backend.xp
        if self._is_dense(backend, x, y):
            return dense_value_and_row_sums(x, y, e, self.kernel, xp, dtype=dtype)
        sets = [prepare(x, e, xp, dtype=dtype), *([] if y is None else [prepare(y, None, xp, dtype=dtype)])]
        slope = mean_slope(sets[0], sets[-1], self.kernel, xp)

        def step(x: Operands, y: Operands, *, diagonal: bool) -> Any:
            options = {"slope": slope, "diagonal": diagonal, "with_e": e is not None}
            total, moment_x, *moment_y = tile_value_and_moments(Rows(*x), Rows(*y), self.kernel, xp, **options)
            return (total if diagonal or len(sets) == 2 else total * 2.0, moment_x), (None, *moment_y)

        def templates(x: Operands) -> tuple[Array, ...]:
            return _total_like(x, xp), Rows(*x).columns

        sums = sweep(sets, ROW_AXES, step, templates, backend, self._tile_rows(backend, x), totals=1)
        moments = (moment for _, moment in sums)
        row_sums = [
            gradient_of_moments(rows, other, moment, slope, xp)
            for rows, other, moment in zip(sets, reversed(sets), moments, strict=True)
        ]
        return sums[0][0], *_placed(row_sums, e)

    def _row_sum_derivatives(
        self,
        backend: Backend,
        dtype: Any,
        x: Array,
        y: Array | None,
        e: Array | None,
        u: Array,
        v: Array | None,
        de: Array | None,
    ) -> tuple[Array | None, ...]:
        """The derivatives of these sums along u, v and de."""
        xp = backend.xp
        sets = [prepare_direction(prepare(x, e, xp, dtype=dtype), u, de, xp)]
        if y is not None:
            sets.append(prepare_direction(prepare(y, None, xp, dtype=dtype), v, None, xp))
        slope = mean_slope(sets[0], sets[-1], self.kernel, xp)

        def step(x: Operands, y: Operands, *, diagonal: bool) -> Any:
            return tile_second_moments(Tangents(*x), Tangents(*y), self.kernel, xp, slope=slope, diagonal=diagonal)

        def templates(x: Operands) -> tuple[Array, ...]:
            columns = Tangents(*x).columns
            return columns[..., :1, :], columns[..., 1:, :], columns

        sums = sweep(sets, TANGENT_AXES, step, templates, backend, self._tile_rows(backend, x), totals=0)
        changes = [
            derivative_of_moments(rows, other, moments, slope, xp)
            for rows, other, moments in zip(sets, reversed(sets), sums, strict=True)
        ]
        return _placed(changes, e)

    def _is_dense(self, backend: Backend, x: Array, y: Array | None) -> bool:
        """Whether the dense form is the faster one, or the loop cannot count rows that are a symbol."""
        most = self.tile_rows or backend.dense_rows(x)
        sizes = [rows.shape[-2] for rows in (x, y) if rows is not None]
        return all(size <= most if isinstance(size, int) else size is not None for size in sizes)

    def _tile_rows(self, backend: Backend, x: Array) -> int:
        return self.tile_rows or backend.tile_rows(x)

    def _by_batches(
        self, function: Callable[..., tuple[Any, ...]], backend: Backend, dtype: Any, arrays: Sequence[Any]
    ) -> tuple[Any, ...]:
        """The function of these arrays, of some batches at a time."""
        x, y = arrays[:2]
        lead = backend.shape(x)[:-2]
        if not lead or not backend.splits_batches:
            return function(backend, dtype, *arrays)
        # Leading axes become one, and the rows of many small batches share a tile.
        xp, batches, tile = backend.xp, math.prod(lead), self._tile_rows(backend, x)
        pairs_per_batch = math.prod(max(1, min(tile, rows.shape[-2])) for rows in (x, x if y is None else y))
        step = max(1, tile * tile // pairs_per_batch)
        flat = [a if a is None else xp.reshape(a, (batches, *a.shape[-2:])) for a in arrays]
        starts = range(0, max(batches, 1), step)
        parts = [
            function(backend, dtype, *(a if a is None else a[i : min(i + step, batches), ...] for a in flat))
            for i in starts
        ]
        joined = [
            part[0] if len(part) == 1 or part[0] is None else xp.concat(part, axis=0)
            for part in zip(*parts, strict=True)
        ]
        return tuple(a if a is None else xp.reshape(a, (*lead, *a.shape[1:])) for a in joined)


def _placed(row_sums: Sequence[tuple[Array, Array]], e: Array | None) -> tuple[Array | None, ...]:
    """What belongs to x, y and e."""
    (of_x, weight), *others = row_sums
    return of_x, others[0][0] if others else None, None if e is None else weight


def _factor(y: Array | None) -> float:
    """2, the derivative of the square, and twice that of one set, where a row is at either end of its pairs."""
    return 4.0 if y is None else 2.0


def _gradients(row_sums: Sequence[Array | None], scales: Sequence[Any], factor: float) -> list[Array | None]:
    """The gradients with respect to x, y and e from sums over the pairs of each row."""
    factors = (factor, factor, 0.5 * factor)
    return [a if a is None else a * (scale * by) for a, scale, by in zip(row_sums, scales, factors, strict=True)]


def _inner(rows: Sequence[Any], row_sums: Sequence[Any], xp: Any) -> Array:
    """<g, X> of all rows, and <w, E>."""
    products = [xp.sum(g * x, axis=(-2, -1)) for g, x in zip(row_sums, rows, strict=True) if g is not None]
    return sum(products[1:], start=products[0])


def _times(arrays: Sequence[Any], factors: Sequence[Any]) -> list[Any]:
    return [a if a is None else a * by for a, by in zip(arrays, factors, strict=True)]


def _as(dtype: Any, arrays: Sequence[Any], xp: Any) -> tuple[Any, ...]:
    return tuple(a if a is None else xp.astype(a, dtype, copy=False) for a in arrays)


def _total_like(operands: Operands, xp: Any) -> Array:
    return xp.sum(Rows(*operands).left, axis=(-2, -1))
