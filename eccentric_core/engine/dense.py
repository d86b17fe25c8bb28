"""The dense form: a sum over pairs and its gradient on one matrix of all distances, as one would write them on paper.

    t_ij = |x_i - y_j|^2 + e_i + e_j,   S = sum_ij phi(t_ij),   w_ij = phi'(t_ij)

    dS/dx_i = 2 sum_j w_ij (x_i - y_j),   dS/de_i = sum_j w_ij,   and twice as much of one set with itself

The factors 2 and 4 are left to the caller, who scales the gradients anyway.

It is the fast path of small batches, and what the tiled form (`eccentric_core.engine.tiles`) is tested against. The
rows must be near the origin: the squares of an offset would cost digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccentric_core.engine.kernels import value_and_slope, value_of_pairs

if TYPE_CHECKING:
    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel


def dense_value(x: Array, y: Array | None, e: Array | None, kernel: PairKernel, xp: Any) -> Array:
    """S, of shape (...).

    Args:
        x: rows of shape (..., n, d).
        y: rows of shape (..., m, d); None for the pairs of x with itself.
        e: shape (..., n, 1), added to the squared norms of x; None for 0. Of one set alone.
        kernel: phi.
        xp: the array namespace.
    """
    return xp.sum(value_of_pairs(kernel, _distances(x, y, e, xp), xp, diagonal=y is None), axis=(-2, -1))


def dense_value_and_row_sums(
    x: Array, y: Array | None, e: Array | None, kernel: PairKernel, xp: Any, *, dtype: Any = None
) -> tuple[Array, ...]:
    """S, then sum_j w_ij (x_i - y_j), sum_i w_ij (y_j - x_i) (or None) and sum_j w_ij (or None), with e.

    The distances are computed in the dtype given, and the sums in that of the rows.
    """
    near = (x, y, e)
    if dtype is not None:
        near = tuple([None if a is None else xp.astype(a, dtype, copy=False) for a in near])  # type: ignore[assignment]
    t = _distances(*near, xp)
    value, w = value_and_slope(kernel, t, xp, diagonal=y is None, with_e=e is not None)
    w = w if dtype is None else xp.astype(w, x.dtype, copy=False)
    total, weight = xp.sum(value, axis=(-2, -1)), xp.sum(w, axis=-1, keepdims=True)
    if y is None:
        return total, weight * x - xp.matmul(w, x), None, None if e is None else weight
    back = xp.matrix_transpose(w)
    grad_y = xp.sum(back, axis=-1, keepdims=True) * y - xp.matmul(back, x)
    return total, weight * x - xp.matmul(w, y), grad_y, None


def _distances(x: Array, y: Array | None, e: Array | None, xp: Any) -> Array:
    square = xp.sum(x * x, axis=-1, keepdims=True)
    square = square if e is None else square + e
    other = square if y is None else xp.sum(y * y, axis=-1, keepdims=True)
    product = xp.matmul(x * -2.0, xp.matrix_transpose(x if y is None else y))
    # Rounding makes the distance of close pairs negative.
    return xp.clamp_at_zero(product + square + xp.matrix_transpose(other))
