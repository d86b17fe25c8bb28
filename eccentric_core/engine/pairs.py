"""Sums over pairs of phi(D_ij / h) and their derivatives, for any kernel, in O(n d) memory.

    S = sum over pairs (i, j) of phi(D_ij / h),   D_ij = |x_i - y_j|^2,   h the bandwidth

    dS/dx_i = sum over j of (2/h) phi'(D_ij / h) (x_i - y_j),   dS/dh = -(1/(2h)) sum_i <x_i, dS/dx_i>

The pairs are those of one set with itself (i != j, in both orders) or of one set with another (all i and j). Any energy
of this form needs a small object with phi and its derivatives (`eccentric_core.engine.kernels`).

Here the rows are centred and scaled: phi(D/h) of rows x is phi(D) of rows x / sqrt(h). The batch mean is subtracted
first, as distances don't change, but what remains is small, and rounding with it. What follows is the dense form
(`eccentric_core.engine.dense`) of at most one tile, or a sweep (`eccentric_core.engine.sweep`) over tiles
(`eccentric_core.engine.tiles`). Tiles know no bandwidth. The dense form takes one that is a number into its product,
which saves a pass over the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_core.checks import is_number, is_tensor
from eccentric_core.derivatives import pushed_forward
from eccentric_core.engine.dense import dense_value, dense_value_and_gradients
from eccentric_core.engine.kernels import works_in_place
from eccentric_core.engine.precision import FEW_ROWS, few, robust_centre
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
    if is_number(number) or len(x.shape) == 2:
        return number
    return number + backend.xp.zeros_like(backend.xp.sum(x[..., :1, 0], axis=-1))  # there may be no rows


def mean_weights(n: Any, backend: Backend) -> tuple[Any, Any]:
    """1/n and 1/(n (n-1)): what makes a mean of a sum over n rows, and over their pairs.

    Both are 0 for a batch without pairs, which no check refuses where only the running graph knows the rows.
    """
    if isinstance(n, int) and n < 2:
        return 0.0, 0.0
    if isinstance(n, int) or is_number(n):
        return 1.0 / n, 1.0 / (n * (n - 1.0))
    some = backend.xp.astype(n > 1.5, n.dtype)
    n = backend.xp.clamp(n, 2.0)
    return some / n, some / (n * (n - 1.0))


@dataclass(frozen=True)
class PairSum:
    """A weighted sum over pairs, and one over rows, as a function to differentiate.

        F = a sum_i |x_i|^2 + b sum over pairs of phi(t_ij),   t_ij = (|x_i - y_j|^2 + e_i + e_j) / h

    Its arguments are rows x, rows y or None, e or None, a bandwidth h, and the weights a (or None for 0) and b. The
    rows have shapes (..., n, d) and (..., m, d), e has shape (..., n, 1) and is for one set alone: the squared norm of
    row i counts as |x_i|^2 + e_i. h, a and b are numbers, or tensors of shape (...). All have the dtype to compute in,
    float32 or float64, as have all results. One function and not several, as each operation that a framework
    differentiates by itself takes time in a small batch.

    Attributes:
        kernel: phi.
        wide: keep the sums that make gradients in float64 where the device has it.
        tile_rows: rows of a tile; None lets the backend choose.
    """

    kernel: PairKernel
    wide: bool = False
    tile_rows: int | None = None

    def value(
        self, backend: Backend, x: Array, y: Array | None, e: Array | None, h: Any, a: Any = None, b: Any = 1.0
    ) -> Array:
        """F, of shape (...)."""
        return self._computed(self._f, backend, (x, y, e, h, a, b), wide=False)[0]

    def value_and_gradients(
        self, backend: Backend, x: Array, y: Array | None, e: Array | None, h: Any, a: Any = None, b: Any = 1.0
    ) -> Sequence[Any]:
        """F, and its gradient with respect to each argument; None for what is None or a number."""
        return self._computed(self._f_and_gradients, backend, (x, y, e, h, a, b), wide=self.wide)

    def hvp(self, backend: Backend, arguments: Sequence[Any], directions: Sequence[Any]) -> Sequence[Any]:
        """The derivative of each gradient along the directions of all; a direction may be None for 0."""
        return self._computed(self._gradient_derivatives, backend, (*arguments, *directions), wide=self.wide)

    # These are computed in the dtype of their arguments, but for distances, which are in the dtype `near` if given.

    def _f(self, backend: Backend, near: Any, x: Array, y: Any, e: Any, h: Any, a: Any, b: Any) -> list[Array]:
        xp, dense = backend.xp, self._is_dense(backend, x, y)
        root, rest = _units(h, backend, dense=dense)
        rows = _scaled(x, y, e, root, near, backend)
        if dense:
            rows_x, rows_y, rows_e = rows if near is None else _as(near, rows, xp)
            total = dense_value(rows_x, rows_y, rows_e, rest, self.kernel, xp)
        else:
            total = self._sum(backend, near, *rows)
        return [_weighted(x, a, b, total, xp)]

    def _f_and_gradients(
        self, backend: Backend, near: Any, x: Array, y: Any, e: Any, h: Any, a: Any, b: Any
    ) -> list[Array | None]:
        xp, dense, fixed = backend.xp, self._is_dense(backend, x, y), is_number(h)
        root, rest = _units(h, backend, dense=dense)
        rows = _scaled(x, y, e, root, near, backend)
        times = _for_rows(b) * (_factor(y) * root / rest)
        linear = None if a is None else (x, _for_rows(2.0 * a))
        # The gradient of a bandwidth is made of the sum over pairs alone.
        some = {"times": times, "linear": linear if fixed else None}
        if dense:
            sums = dense_value_and_gradients(*rows, rest, self.kernel, xp, near=near, **some)
        else:
            sums = _scaled_sums(*self._row_sums(backend, near, *rows), xp=xp, **some)
        total, grad_x, grad_y, weight = sums
        # The value is that of `_f`, which is not widened.
        if near is None:
            value = _weighted(x, a, b, total, xp)
        else:
            narrow_x, narrow_a, narrow_b = _as(near, (x, a, b), xp)
            value = _weighted(narrow_x, narrow_a, narrow_b, total, xp)
            total = xp.astype(total, x.dtype, copy=False)
        grad_e = grad_h = None
        if e is not None:
            weight = weight * times
            grad_e = weight * (0.5 * root)
        if not fixed:
            grad_h = _inner(rows, (grad_x, grad_y, weight), xp) * (-0.5 / xp.sqrt(h))
            grad_x = grad_x if linear is None else grad_x + linear[0] * linear[1]
        grad_a = xp.square_norm(x) if is_tensor(a) else None
        grad_b = None if is_number(b) else total
        return [value, grad_x, grad_y, grad_e, grad_h, grad_a, grad_b]

    def _gradient_derivatives(self, backend: Backend, near: Any, *both: Any) -> list[Array | None]:
        xp, (x, y, e, h, a, b), (*moves, da, db) = backend.xp, both[:6], both[6:]
        changes: list[Any] = [_for(g, b) for g in self._sum_gradient_derivatives(backend, near, x, y, e, h, *moves)]
        change_a = change_b = None
        if not is_number(b):
            total, *gradients = self._f_and_gradients(backend, near, x, y, e, h, None, 1.0)[:5]
            change_b = pushed_forward(total, gradients, moves, xp)
            if db is not None:
                changes = [c if c is None else c + _for(g, db) for c, g in zip(changes, gradients, strict=True)]
        if a is not None:
            for direction, by in ((moves[0], a), (x, da)):
                if direction is not None and by is not None:
                    changes[0] = changes[0] + direction * _for_rows(2.0 * by)
            if not is_number(a):
                u = moves[0]
                change_a = xp.zeros_like(a) if u is None else xp.total(x * u) * 2.0
        return [*changes, change_a, change_b]

    def _sum_gradient_derivatives(
        self, backend: Backend, near: Any, x: Array, y: Any, e: Any, h: Any, u: Any, v: Any, de: Any, r: Any
    ) -> list[Array | None]:
        """The same of S.

        With X = x / sqrt(h), E = e / h and r the direction of h these move by X' = u / sqrt(h) - X r/(2h) and
        E' = e' / h - E r/h. With the row sums G and W, and c = 2 or 4 (`_factor`), the gradients are c G / sqrt(h),
        c W / (2h) and -c (<G, X> + <W, E>) / (2h).
        """
        xp = backend.xp
        root, _ = _units(h, backend, dense=False)
        rows = _scaled(x, y, e, root, near, backend)
        tangents: list[Any] = [
            a if a is None else xp.zeros_like(a) if given is None else given
            for given, a in zip((u, v, de), rows, strict=True)
        ]
        # The same constant is taken from all directions: their differences don't change, and rounding becomes less.
        centre = xp.mean(tangents[0], axis=-2, keepdims=True)
        tangents[:2] = (a if a is None else a - centre for a in tangents[:2])
        scales = root, root, root * root
        tangents, turn = _times(tangents, scales), None
        if is_number(h):
            changes = self._row_sum_derivatives(backend, near, *rows, *tangents)
        else:
            rate = xp.zeros_like(h) if r is None else r / h
            rates = [_for_rows(rate) * power for power in (0.5, 0.5, 1.0)]
            tangents = _minus(tangents, _times(rows, rates))
            row_sums = self._row_sums(backend, near, *rows)[1:]
            changes = self._row_sum_derivatives(backend, near, *rows, *tangents)
            turn = _inner(rows, changes, xp) + _inner(tangents, row_sums, xp) - _inner(rows, row_sums, xp) * rate
            turn = turn * (-0.5 * _factor(y) / h)
            changes = tuple(_minus(changes, _times(row_sums, rates)))
        powers = (_factor(y), _factor(y), 0.5 * _factor(y))
        return [*_times(changes, [scale * power for scale, power in zip(scales, powers, strict=True)]), turn]

    # By tiles, of rows near the origin in units of sqrt(h).

    def _sum(self, backend: Backend, near: Any, x: Array, y: Array | None, e: Array | None) -> Array:
        xp = backend.xp
        sets = [prepare(x, e, xp, dtype=near), *([] if y is None else [prepare(y, None, xp, dtype=near)])]

        def step(x: Operands, y: Operands, *, diagonal: bool) -> Any:
            total = tile_value(Rows(*x), Rows(*y), self.kernel, xp, diagonal=diagonal)
            # Off the diagonal of one set a pair counts in both orders.
            return (total if diagonal or len(sets) == 2 else total * 2.0,), (None,)

        def templates(x: Operands) -> tuple[Array, ...]:
            return (_total_like(x, xp),)

        (total,), *_ = sweep(sets, ROW_AXES, step, templates, backend, self._tile_rows(backend, x), totals=1)
        return total

    def _row_sums(
        self, backend: Backend, near: Any, x: Array, y: Array | None, e: Array | None
    ) -> tuple[Array | None, ...]:
        """The sum, and the sums of each row that make its gradients with respect to x, y and e."""
        xp = backend.xp
        sets = [prepare(x, e, xp, dtype=near), *([] if y is None else [prepare(y, None, xp, dtype=near)])]
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
        near: Any,
        x: Array,
        y: Array | None,
        e: Array | None,
        u: Array,
        v: Array | None,
        de: Array | None,
    ) -> tuple[Array | None, ...]:
        """The derivatives of these sums along u, v and de."""
        xp = backend.xp
        sets = [prepare_direction(prepare(x, e, xp, dtype=near), u, de, xp)]
        if y is not None:
            sets.append(prepare_direction(prepare(y, None, xp, dtype=near), v, None, xp))
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
        most = self.tile_rows or backend.dense_rows(x, in_place=works_in_place(self.kernel))
        return _at_most(x, most) and (y is None or _at_most(y, most))

    def _tile_rows(self, backend: Backend, x: Array) -> int:
        return self.tile_rows or backend.tile_rows(x)

    def _computed(
        self, function: Callable[..., list[Any]], backend: Backend, arguments: Sequence[Any], *, wide: bool
    ) -> Sequence[Any]:
        """The function of these arguments, of which the first two are rows, of some batches at a time."""
        x, y, *_ = arguments
        if len(x.shape) == 2 or not backend.splits_batches():
            return _widened(function, backend, arguments, wide=wide)
        # Leading axes become one, and the rows of many small batches share a tile.
        xp, lead, tile = backend.xp, backend.shape(x)[:-2], self._tile_rows(backend, x)
        batches = math.prod(lead)
        pairs_per_batch = math.prod([max(1, min(tile, rows.shape[-2])) for rows in (x, x if y is None else y)])
        step = max(1, tile * tile // pairs_per_batch)
        flat = [xp.reshape(a, (batches, *a.shape[len(lead) :])) if is_tensor(a) else a for a in arguments]
        parts = []
        for i in range(0, max(batches, 1), step):
            some = [a[i : min(i + step, batches), ...] if is_tensor(a) else a for a in flat]
            parts.append(_widened(function, backend, some, wide=wide))
        joined = [
            part[0] if len(part) == 1 or part[0] is None else xp.concat(part, axis=0)
            for part in zip(*parts, strict=True)
        ]
        return [a if a is None else xp.reshape(a, (*lead, *a.shape[1:])) for a in joined]


@dataclass(frozen=True)
class PlainSum:
    """F of one set of rows, as a function of them alone: a `PairSum` whose other arguments are numbers.

    Most batches are such ones, of few rows but not too few: that the dense form in the dtype of the rows is right for
    them is decided before, and not in every call.
    """

    f: PairSum
    h: float
    a: float
    b: float

    @staticmethod
    def of(f: PairSum, backend: Backend, shape: tuple[Any, ...], h: Any, a: Any, b: Any) -> PlainSum | None:
        """The function of rows of that shape; None where `PairSum` has more to decide."""
        numbers = all(type(number) is float for number in (h, a, b))
        plain = numbers and len(shape) == 2 and not f.wide and works_in_place(f.kernel)
        return PlainSum(f, h, a, b) if plain and FEW_ROWS < shape[0] <= backend.always_dense else None

    def value(self, backend: Backend, x: Array) -> Array:
        """F, 0-d."""
        return self.f.value(backend, *self._with(x))

    def value_and_gradients(self, backend: Backend, x: Array) -> Sequence[Array]:
        """F and its gradient, as `PairSum` has them."""
        xp, (h, a, b) = backend.xp, (self.h, self.a, self.b)
        rows = x - xp.mean(x, axis=-2, keepdims=True)
        sums = dense_value_and_gradients(
            rows, None, None, h, self.f.kernel, xp, times=b * (_factor(None) / h), linear=(x, 2.0 * a)
        )
        return [_weighted(x, a, b, sums[0], xp), sums[1]]

    def hvp(self, backend: Backend, arguments: Sequence[Array], directions: Sequence[Any]) -> Sequence[Any]:
        """The derivative of the gradient along a direction."""
        return self.f.hvp(backend, self._with(*arguments), (*directions, *[None] * 5))[:1]

    def _with(self, x: Array) -> tuple[Any, ...]:
        return x, None, None, self.h, self.a, self.b


def _at_most(rows: Array, most: int) -> bool:
    size = rows.shape[-2]
    return size <= most if isinstance(size, int) else size is not None


def _placed(row_sums: Sequence[tuple[Array, Array]], e: Array | None) -> tuple[Array | None, ...]:
    """What belongs to x, y and e."""
    (of_x, weight), *others = row_sums
    return of_x, others[0][0] if others else None, None if e is None else weight


def _scaled_sums(
    total: Any, grad_x: Any, grad_y: Any, weight: Any, *, xp: Any, times: Any, linear: Any
) -> tuple[Any, ...]:
    """What `dense_value_and_gradients` gives, from row sums."""
    grad_x = grad_x * times if linear is None else xp.add_scaled(linear[0] * linear[1], grad_x, times)
    return total, grad_x, None if grad_y is None else grad_y * times, weight


def _factor(y: Array | None) -> float:
    """2, the derivative of the square, and twice that of one set, where a row is at either end of its pairs."""
    return 4.0 if y is None else 2.0


def _weighted(x: Array, a: Any, b: Any, total: Array, xp: Any) -> Array:
    """F from S."""
    return total * b if a is None else xp.add_scaled(total * b, xp.square_norm(x), a)


def _for_rows(number: Any) -> Any:
    """What to multiply rows (..., n, d) by, from a number or one for each batch."""
    return number if is_number(number) else number[..., None, None]


def _for(gradient: Array | None, number: Any) -> Array | None:
    """A gradient, of rows or of a number, times a number or one for each batch."""
    if gradient is None:
        return None
    of_rows = not is_number(number) and len(gradient.shape) > len(number.shape)
    return gradient * (_for_rows(number) if of_rows else number)


def _widened(
    function: Callable[..., list[Any]], backend: Backend, arguments: Sequence[Any], *, wide: bool
) -> Sequence[Any]:
    """The function of these arguments, of which the first two are rows, in float64 where that is called for."""
    x, y, *_ = arguments
    xp, few_rows = backend.xp, few(x.shape[:-1]) and (y is None or few(y.shape[:-1]))
    if not (wide or few_rows) or x.dtype != xp.float32 or not backend.has_float64(x):
        return function(backend, None, *arguments)
    results = function(backend, None if few_rows else x.dtype, *_as(xp.float64, arguments, xp))
    return [None if r is None else xp.astype(r, x.dtype, copy=False) for r in results]


def _units(h: Any, backend: Backend, *, dense: bool) -> tuple[Any, float]:
    """1/sqrt(h) to multiply rows by, and 1 as the bandwidth that remains; the dense form takes a number h as it is."""
    if is_number(h):
        return (1.0, h) if dense else (1.0 / math.sqrt(h), 1.0)
    return _for_rows(backend.xp.reciprocal(backend.xp.sqrt(h))), 1.0


def _scaled(x: Array, y: Any, e: Any, root: Any, near: Any, backend: Backend) -> tuple[Array, Any, Any]:
    """Centred rows times the root, and their e times its square."""
    xp = backend.xp
    # That of the first set, which must be the same for both.
    if few(x.shape[-2:-1]) and (near is not None or x.dtype == xp.float32):
        centre = robust_centre(backend.constant(x), xp)
    else:
        centre = xp.mean(x, axis=-2, keepdims=True)
    x, y = x - centre, y if y is None else y - centre
    if type(root) is float and root == 1.0:
        return x, y, e
    x *= root  # in place where arrays can be changed
    return x, y if y is None else y * root, e if e is None else e * (root * root)


def _inner(rows: Sequence[Any], row_sums: Sequence[Any], xp: Any) -> Array:
    """<g, X> of all rows, and <w, E>."""
    products = [xp.total(g * x) for g, x in zip(row_sums, rows, strict=True) if g is not None]
    return sum(products[1:], start=products[0])


def _times(arrays: Sequence[Any], factors: Sequence[Any]) -> list[Any]:
    return [a if a is None else a * by for a, by in zip(arrays, factors, strict=True)]


def _minus(arrays: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    return [a if a is None else a - b for a, b in zip(arrays, others, strict=True)]


def _as(dtype: Any, arrays: Sequence[Any], xp: Any) -> list[Any]:
    return [xp.astype(a, dtype, copy=False) if is_tensor(a) else a for a in arrays]


def _total_like(operands: Operands, xp: Any) -> Array:
    return xp.total(Rows(*operands).left)
