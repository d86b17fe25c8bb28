"""The tiled form: one tile of a sum over pairs, p rows of x and q rows of y, and what it adds to the derivatives.

    t_ij = D_ij + e_i + e_j    one matrix product
    sum of phi(t)              the value
    w_ij = phi'(t_ij)          the slopes, and two more matrix products for sum_j w_ij [y_j, 1] and sum_i w_ij [x_i, 1],
                               the moments, which make the gradients: dS/dx_i = 2 sum_j w_ij (x_i - y_j)

A second derivative in the direction (u, v) of (x, y) needs, per pair, how t changes and how w changes with it:

    s_ij = <x_i - y_j, u_i - v_j> + (e_i' + e_j')/2,   q_ij = 2 phi''(t_ij) s_ij
    2 sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)]

The gradient is a difference of large sums, so rounding of the sums is what limits it. A constant part of the slopes w
makes up most of them, and what it adds to the gradient is known in closed form: the tiles work with w - c, where c is
phi' at the mean of t, the mean slope.

What a tile has made itself it may overwrite, by operators that make a new array where arrays cannot be changed. Values
and second derivatives are computed without that, so that automatic differentiation can go through their lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eccentric_core.engine.kernels import value_and_slope, value_of_pairs, vanishes_at_zero

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel


class Rows(NamedTuple):
    """The operands that a tile multiplies: left times right makes t, columns times slopes make moments.

    As columns, because the product then is as wide as the tile, which every BLAS likes better than d + 1.
    """

    left: Array  # [-2 x, |x|^2 + e, 1], shape (..., n, d + 2)
    right: Array  # [x, 1, |x|^2 + e], shape (..., n, d + 2)
    columns: Array  # [x, 1] as columns, shape (..., d + 1, n), in the dtype of the moments


class Tangents(NamedTuple):
    """Rows with a direction u for each."""

    left: Array
    right: Array
    columns: Array
    product: Array  # [-u, <x, u> + e'/2], shape (..., n, d + 1), e' the direction of e
    minus_u: Array  # -u as columns, shape (..., d, n), in the dtype of the moments


# Which axis of each of these holds the rows.
ROW_AXES = (-2, -2, -1)
TANGENT_AXES = (*ROW_AXES, -2, -1)


def prepare(x: Array, e: Array | None, xp: Any, *, dtype: Any = None) -> Rows:
    """Make the operands of tiles from rows near the origin, of shape (..., n, d).

    Args:
        x: the rows; moments have their dtype.
        e: shape (..., n, 1), added to the squared norms; None for 0.
        xp: the array namespace.
        dtype: that of the distances; None for that of the rows.
    """
    columns = x
    if dtype is not None:
        x, e = xp.astype(x, dtype, copy=False), None if e is None else xp.astype(e, dtype, copy=False)
    square = xp.squares_of_rows(x)
    square = square if e is None else square + e
    one = xp.ones_like(square)
    right = xp.concat([x, one, square], axis=-1)
    columns = right[..., :-1] if dtype is None else xp.concat([columns, xp.ones_like(columns[..., :1])], axis=-1)
    return Rows(xp.concat([x * -2.0, square, one], axis=-1), right, xp.matrix_transpose(columns))


def prepare_direction(rows: Rows, u: Array, e: Array | None, xp: Any) -> Tangents:
    """Add to rows their directions u, of shape (..., n, d), and those of e."""
    near = xp.astype(u, rows.right.dtype, copy=False)
    product = xp.sum(rows.right[..., :-2] * near, axis=-1, keepdims=True)
    if e is not None:
        product = product + xp.astype(e, near.dtype, copy=False) * 0.5
    return Tangents(*rows, xp.concat([-near, product], axis=-1), xp.matrix_transpose(-u))


def mean_slope(x: Rows | Tangents, y: Rows | Tangents, kernel: PairKernel, xp: Any) -> Array:
    """The constant c: phi' at the mean of t over all pairs of x and y, of shape (..., 1, 1)."""
    # The first set has its own mean as the origin, so that its products with the other cancel in the mean of t.
    t = xp.mean(x.left[..., -2:-1], axis=-2, keepdims=True) + xp.mean(y.right[..., -1:], axis=-2, keepdims=True)
    slope = kernel.slope(t, xp)
    if not vanishes_at_zero(kernel):  # it may be infinite where all rows coincide, and any constant is right
        slope = xp.where(xp.isfinite(slope), slope, xp.zeros_like(slope))
    return xp.astype(slope, x.columns.dtype, copy=False)


def tile_value(x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, diagonal: bool) -> Array:
    """The sum of phi over the pairs of a tile, of shape (...). On the diagonal a row is no pair with itself."""
    return xp.total(value_of_pairs(kernel, _distances(x, y, xp), xp, diagonal=diagonal))


def tile_value_and_moments(
    x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, slope: Array, diagonal: bool, with_e: bool
) -> tuple[Array, ...]:
    """The sum of phi, and what the pairs of a tile add to the gradient.

    Args:
        x: p rows.
        y: q rows.
        kernel: phi.
        xp: the array namespace.
        slope: the mean slope, of shape (..., 1, 1), which is taken out of every slope.
        diagonal: both are the same rows, and a row is no pair with itself.
        with_e: the rows have e, whose derivatives are wanted.

    Returns:
        (total, moment of x, moment of y), on the diagonal (total, moment of x), which holds all there is. A moment has
        shape (..., d + 1, p or q): the sum over the other rows of (w - c) times [row, 1], as columns.
        `gradient_of_moments` turns the sum of all moments of a row into its gradient.
    """
    value, w = value_and_slope(kernel, _distances(x, y, xp), xp, diagonal=diagonal, with_e=with_e)
    total = xp.total(value)
    w = xp.astype(w, slope.dtype, copy=False)
    w -= slope  # in place where arrays can be changed
    if diagonal:  # w is symmetric
        return total, xp.matmul(y.columns, w)
    return total, xp.matmul(y.columns, xp.matrix_transpose(w)), xp.matmul(x.columns, w)


def tile_second_moments(
    x: Tangents, y: Tangents, kernel: PairKernel, xp: Any, *, slope: Array, diagonal: bool
) -> tuple[tuple[Array, ...], ...]:
    """What the pairs of a tile add to the derivative of the gradient along a direction.

    Every result is linear in the directions or independent of them, so that a framework can transpose it.

    Args:
        x: p rows and their directions.
        y: q rows and their directions.
        kernel, xp, slope, diagonal: as in `tile_value_and_moments`.

    Returns:
        (moments of x, moments of y), on the diagonal (moments of x,). Moments are the sums of w - c, of (w - c) times
        -u, and of q times [row, 1], of shapes (..., 1 or d or d + 1, p or q).
    """
    t = _distances(x, y, xp)
    t = xp.zero_diagonal(t) if diagonal else t
    w, second = kernel.slope(t, xp), kernel.second_derivative(t, xp)
    if diagonal:  # before they are multiplied: infinity times 0 would be NaN in further derivatives
        w, second = xp.zero_diagonal(w), xp.zero_diagonal(second)
    w = xp.astype(w, slope.dtype, copy=False) - slope
    s = xp.matmul(x.right[..., :-1], xp.matrix_transpose(y.product))
    s = s + xp.matmul(x.product, xp.matrix_transpose(y.right[..., :-1]))
    q = xp.astype(second * 2.0 * s, slope.dtype, copy=False)
    w_t, q_t = xp.matrix_transpose(w), xp.matrix_transpose(q)
    moments_x = (xp.sum(w, axis=-1)[..., None, :], xp.matmul(y.minus_u, w_t), xp.matmul(y.columns, q_t))
    if diagonal:
        return (moments_x,)
    return moments_x, (xp.sum(w, axis=-2)[..., None, :], xp.matmul(x.minus_u, w), xp.matmul(x.columns, q))


def gradient_of_moments(
    x: Rows | Tangents, y: Rows | Tangents, moment: Array, slope: Array, xp: Any
) -> tuple[Array, Array]:
    """sum_j w_ij (x_i - y_j) and sum_j w_ij, of shapes (..., n, d) and (..., n, 1), from the moments of x."""
    # What the constant part of w adds to the moments is a sum over all rows of y. The moments are not changed, and no
    # result is a view of them: they are as large as the rows.
    constant = slope * xp.sum(y.columns, axis=-1, keepdims=True)
    weight = moment[..., -1:, :] + constant[..., -1:, :]
    gradient = x.columns[..., :-1, :] * weight
    gradient -= moment[..., :-1, :]  # in place where arrays can be changed
    gradient -= constant[..., :-1, :]
    return xp.matrix_transpose(gradient), xp.matrix_transpose(weight)


def derivative_of_moments(
    x: Tangents, y: Tangents, moments: Sequence[Array], slope: Array, xp: Any
) -> tuple[Array, Array]:
    """sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)] and sum_j q_ij from the sums of the second moments of x."""
    sum_w, sum_w_u, moment_q = moments
    sum_w = sum_w + slope * xp.sum(y.columns[..., -1:, :], axis=-1, keepdims=True)
    sum_w_u = sum_w_u + slope * xp.sum(y.minus_u, axis=-1, keepdims=True)
    grad_q, weight_q = gradient_of_moments(x, y, moment_q, xp.zeros_like(slope), xp)
    return xp.matrix_transpose(sum_w_u - x.minus_u * sum_w) + grad_q, weight_q


def _distances(x: Rows | Tangents, y: Rows | Tangents, xp: Any) -> Array:
    # Rounding makes the distance of close pairs negative.
    return xp.clamp_at_zero(xp.matmul(x.left, xp.matrix_transpose(y.right)))
