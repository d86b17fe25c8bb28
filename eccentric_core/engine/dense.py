"""The dense form: a sum over pairs and its gradient on one matrix of all distances, as one would write them on paper.

    t_ij = (|x_i - y_j|^2 + e_i + e_j) / h,   S = sum_ij phi(t_ij),   w_ij = phi'(t_ij)

    dS/dx_i = (2/h) sum_j w_ij (x_i - y_j),   dS/de_i = (1/h) sum_j w_ij,   and twice as much of one set with itself

The factors 2/h and 4/h are left to the caller, who has others beside them.

It is the fast path of small batches, and what the tiled form (`eccentric_core.engine.tiles`) is tested against. The
rows must be near the origin: the squares of an offset would cost digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccentric_core.engine.kernels import value_and_slope, value_of_pairs, vanishes_at_zero

if TYPE_CHECKING:
    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel

# The squares of longer rows are summed by themselves: BLAS libraries sum up some 400 products in one go, and the
# rounding of the diagonal would count in every distance.
_SHORT = 256


def dense_value(x: Array, y: Array | None, e: Array | None, h: Any, kernel: PairKernel, xp: Any) -> Array:
    """S, of shape (...).

    Args:
        x: rows of shape (..., n, d).
        y: rows of shape (..., m, d); None for the pairs of x with itself.
        e: shape (..., n, 1), added to the squared norms of x; None for 0. Of one set alone.
        h: the bandwidth, a number or of shape (..., 1, 1).
        kernel: phi.
        xp: the array namespace.
    """
    t, masks = _distances(x, y, e, h, kernel, xp)
    return xp.total(value_of_pairs(kernel, t, xp, diagonal=masks))


def dense_value_and_gradients(
    x: Array,
    y: Array | None,
    e: Array | None,
    h: Any,
    kernel: PairKernel,
    xp: Any,
    *,
    near: Any = None,
    times: Any = 1.0,
    linear: tuple[Array, Any] | None = None,
) -> tuple[Array, ...]:
    """S, then f sum_j w_ij (x_i - y_j) + g c_i, f sum_i w_ij (y_j - x_i) (or None) and, with e, sum_j w_ij (or None).

    Args:
        x, y, e, h, kernel, xp: as in `dense_value`.
        near: the dtype of the distances; None for that of the rows. The sums have that of the rows.
        times: f, a number or of shape (..., 1, 1).
        linear: c, of the shape of x, and g, as f is; None for 0.
    """
    operands = (x, y, e)
    if near is not None:
        operands = tuple([None if a is None else xp.astype(a, near, copy=False) for a in operands])  # type: ignore[assignment]
    t, masks = _distances(*operands, h, kernel, xp)
    value, w = value_and_slope(kernel, t, xp, diagonal=masks, with_e=e is not None)
    total = xp.total(value)
    del value, t  # the fewer large arrays there are, the better they stay in a cache
    w = w if near is None else xp.astype(w, x.dtype, copy=False)
    if y is None:
        grad_x, weight = xp.laplacian_product(w, x, times, linear)
        return total, grad_x, None, None if e is None else weight
    back = xp.matrix_transpose(w)
    grad_x = xp.add_product(xp.sums_of_rows(w) * x, w, y, alpha=-times, beta=times)
    grad_y = xp.add_product(xp.sums_of_rows(back) * y, back, x, alpha=-times, beta=times)
    return total, grad_x if linear is None else grad_x + linear[0] * linear[1], grad_y, None


def _distances(x: Array, y: Array | None, e: Array | None, h: Any, kernel: PairKernel, xp: Any) -> tuple[Array, bool]:
    """t, and whether what stands on its diagonal must be taken out."""
    masks = y is None
    if y is None and e is None and xp.squares_from_product and x.shape[-1] <= _SHORT:
        # The squared norms are the diagonal of the product: what stands on that of t is exactly 0.
        t = xp.gram(x, -2.0 / h)
        square = xp.diagonal(t)[..., None] * -0.5
        t += square + xp.matrix_transpose(square)  # in place where arrays can be changed
        masks = not vanishes_at_zero(kernel)
    else:
        square = xp.squares_of_rows(x)
        square = square if e is None else square + e
        squares = square + xp.matrix_transpose(square if y is None else xp.squares_of_rows(y))
        t = xp.add_product(squares, x, xp.matrix_transpose(x if y is None else y), alpha=-2.0 / h, beta=1.0 / h)
    # Rounding makes the distance of close pairs negative.
    return xp.clamp_at_zero(t), masks
