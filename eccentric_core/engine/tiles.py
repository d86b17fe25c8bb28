"""One tile of a sum over pairs: p rows of x and q rows of y, their energies and what they add to the derivatives.

    t_ij = D_ij / h            one matrix product
    sum of phi(t)              the value
    w_ij = phi'(t_ij)          the slopes, and two more matrix products for sum_j w_ij [y_j, 1] and sum_i w_ij [x_i, 1],
                               which make the gradients: dS/dx_i = (2/h) sum_j w_ij (x_i - y_j)

A second derivative in the direction (u, v) of (x, y) needs, per pair, how t changes and how w changes with it:

    s_ij = <x_i - y_j, u_i - v_j>,   q_ij = (2/h) phi''(t_ij) s_ij
    (2/h) sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)]

Rows may bring offsets, a number a_i each that is added to every distance: t_ij = (D_ij + a_i + a_j) / h. They stand in
the last column of the rows, and their derivatives in that of the gradient. They take the place of |x_i|^2 in the
product, and sum_j w_ij, which is made anyway, is all that their derivatives need.

Everything is written in the array API standard, with the functions of a namespace `xp`. What a tile has made itself it
may overwrite, by operators that make a new array where arrays cannot be changed. Values and second derivatives are
computed without that, so that automatic differentiation can go through their lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import array_api_compat

from eccentric_core.engine.kernels import at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core.checks import Array
    from eccentric_core.engine.kernels import PairKernel


class Rows(NamedTuple):
    """Rows in the forms that a tile multiplies: left times right makes t, columns times slopes make moments.

    As columns, because the product then is as wide as the tile, which every BLAS likes better than d + 1.
    """

    left: Array  # [-2 x/h, (|x|^2 + a)/h, 1], shape (..., n, d + 2)
    right: Array  # [x, 1, (|x|^2 + a)/h], shape (..., n, d + 2)
    columns: Array  # [x, 1] as columns, shape (..., d + 1, n), in the dtype of the moments


class Moving(NamedTuple):
    """Rows with a direction u for each."""

    left: Array
    right: Array
    columns: Array
    along: Array  # [-u, <x, u> + u_a/2], shape (..., n, d + 1), u_a the direction of the offset
    minus_u: Array  # -u as columns, shape (..., d, n), in the dtype of the moments


def prepare(x: Array, bandwidth: float, xp: Any, *, dtype: Any, offsets: bool = False) -> Rows:
    """Bring centred rows of shape (..., n, d), or d + 1 with offsets, into the forms of t; moments will be of that
    dtype.
    """
    left, right = _factors(x, bandwidth, xp, offsets=offsets)
    return Rows(left, right, xp.astype(xp.matrix_transpose(right[..., :-1]), dtype, copy=False))


def prepare_direction(rows: Rows, u: Array, xp: Any, *, offsets: bool) -> Moving:
    """Add to rows their directions u, of shape (..., n, d), or d + 1 with those of the offsets."""
    u, of_offset = (u[..., :-1], 0.5 * u[..., -1:]) if offsets else (u, 0.0)
    along = xp.concat([-u, xp.sum(rows.right[..., :-2] * u, axis=-1, keepdims=True) + of_offset], axis=-1)
    return Moving(*rows, along, xp.astype(xp.matrix_transpose(-u), rows.columns.dtype, copy=False))


def typical_slope(x: Rows | Moving, y: Rows | Moving, kernel: PairKernel, xp: Any) -> Array:
    """The constant c: phi' at the mean of t over all pairs of x and y, of shape (..., 1, 1)."""
    return _typical_slope(x.left, y.right, kernel, xp, x.columns.dtype)


def energy(x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, diagonal: bool) -> Array:
    """The sum of phi over the pairs of a tile, of shape (...). On a diagonal tile a row is no pair with itself."""
    value = kernel.value(_distances(x.left, y.right, xp, diagonal=diagonal), xp)
    return xp.sum(_off_diagonal(value, xp, diagonal=diagonal and not _vanishes(kernel)), axis=(-2, -1))


def energy_and_moments(
    x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, shift: Array, diagonal: bool, offsets: bool
) -> tuple[Array, ...]:
    """The sum of phi, and what the pairs of a tile add to the gradient.

    Args:
        x: p rows.
        y: q rows.
        kernel: phi and h.
        xp: the array namespace.
        shift: the constant c, of shape (..., 1, 1), that is taken out of every slope.
        diagonal: both are the same rows, and a row is no pair with itself.
        offsets: they bring offsets.

    Returns:
        (total, moment of x, moment of y), on the diagonal (total, moment of x), which holds all there is. A moment has
        shape (..., d + 1, p or q): the sum over the other rows of (w - c) times [row, 1], as columns.
        `gradient_of_moments` turns the sum of all moments of a row into its gradient.
    """
    total, w = _energy_and_slopes(x.left, y.right, kernel, xp, shift=shift, diagonal=diagonal, offsets=offsets)
    if diagonal:  # w is symmetric
        return total, xp.matmul(y.columns, w)
    return total, xp.matmul(y.columns, xp.matrix_transpose(w)), xp.matmul(x.columns, w)


def energy_and_gradient(x: Array, kernel: PairKernel, xp: Any, *, dtype: Any, offsets: bool) -> tuple[Array, Array]:
    """The sum of phi over all pairs of one set and sum_j w_ij (x_i - x_j), where one tile holds them all.

    The centred rows x have shape (..., n, d), or d + 1 with offsets. The same as `energy_and_moments` makes of one
    tile, in fewer steps.
    """
    left, right = _factors(x, kernel.bandwidth, xp, offsets=offsets)
    ones = xp.astype(right[..., :-1], dtype, copy=False)
    shift = _typical_slope(left, right, kernel, xp, dtype)
    total, w = _energy_and_slopes(left, right, kernel, xp, shift=shift, diagonal=True, offsets=offsets)
    moment = xp.matmul(w, ones) + shift * xp.sum(ones, axis=-2, keepdims=True)
    gradient = ones[..., :-1] * moment[..., -1:] - moment[..., :-1]
    return total, xp.concat([gradient, 0.5 * moment[..., -1:]], axis=-1) if offsets else gradient


def second_moments(
    x: Moving, y: Moving, kernel: PairKernel, xp: Any, *, shift: Array, diagonal: bool
) -> tuple[tuple[Array, ...], ...]:
    """What the pairs of a tile add to the derivative of the gradient along a direction.

    Every result is linear in the directions or independent of them, so that a framework can transpose it.

    Args:
        x: p rows and their directions.
        y: q rows and their directions.
        kernel, xp, shift, diagonal: as in `energy_and_moments`.

    Returns:
        (moments of x, moments of y), on the diagonal (moments of x,). Moments are the sums of w - c, of (w - c) times
        -u, and of q times [row, 1], of shapes (..., 1 or d or d + 1, p or q).
    """
    t = _distances(x.left, y.right, xp, diagonal=diagonal)
    w = xp.astype(kernel.slope(t, xp), y.columns.dtype, copy=False)
    w = _off_diagonal(w, xp, diagonal=diagonal) - shift
    s = xp.matmul(x.right[..., :-1], xp.matrix_transpose(y.along))
    s = s + xp.matmul(x.along, xp.matrix_transpose(y.right[..., :-1]))
    q = kernel.curvature(t, xp) * (2.0 / kernel.bandwidth) * s
    q = _off_diagonal(xp.astype(q, w.dtype, copy=False), xp, diagonal=diagonal)
    w_t, q_t = xp.matrix_transpose(w), xp.matrix_transpose(q)
    of_x = (xp.sum(w, axis=-1)[..., None, :], xp.matmul(y.minus_u, w_t), xp.matmul(y.columns, q_t))
    if diagonal:
        return (of_x,)
    return of_x, (xp.sum(w, axis=-2)[..., None, :], xp.matmul(x.minus_u, w), xp.matmul(x.columns, q))


def gradient_of_moments(
    x: Rows | Moving, y: Rows | Moving, moment: Array, shift: Array, xp: Any, *, offsets: bool
) -> Array:
    """sum_j w_ij (x_i - y_j), of shape (..., n, d), from the sum of the moments of x, of shape (..., d + 1, n).

    With offsets sum_j w_ij / 2 follows as a last column.
    """
    # What the constant part of w adds to the moments is a sum over all rows of y.
    moment = moment + shift * xp.sum(y.columns, axis=-1, keepdims=True)
    gradient = x.columns[..., :-1, :] * moment[..., -1:, :] - moment[..., :-1, :]
    return xp.matrix_transpose(xp.concat([gradient, 0.5 * moment[..., -1:, :]], axis=-2) if offsets else gradient)


def derivative_of_moments(
    x: Moving, y: Moving, moments: Sequence[Array], shift: Array, xp: Any, *, offsets: bool
) -> Array:
    """sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)], of shape (..., n, d), from the sums of the second moments of x.

    With offsets sum_j q_ij / 2 follows as a last column.
    """
    of_one, of_minus_u, of_q = moments
    of_one = of_one + shift * xp.sum(y.columns[..., -1:, :], axis=-1, keepdims=True)
    of_minus_u = of_minus_u + shift * xp.sum(y.minus_u, axis=-1, keepdims=True)
    of_u = xp.matrix_transpose(of_minus_u - x.minus_u * of_one)
    of_x = gradient_of_moments(x, y, of_q, xp.zeros_like(shift), xp, offsets=offsets)
    return xp.concat([of_u + of_x[..., :-1], of_x[..., -1:]], axis=-1) if offsets else of_u + of_x


def full_product(matmul: Callable[[Array, Array], Array], a: Array, b: Array, xp: Any, *, parts: int) -> Array:
    """A matrix product in full float32 where the hardware rounds what it multiplies.

    Args:
        matmul: a product of float32 arrays that are rounded to TF32 (11 bits) or to bfloat16 (8 bits) and summed in
            float32.
        a, b: float32 arrays.
        xp: the array namespace.
        parts: 2 for TF32, 3 for bfloat16. Each number becomes a sum of so many that rounding leaves as they are, and of
            the products of these, parts (parts + 1) / 2 count.
    """
    # Veltkamp's splitting: 24 bits into 11 and the rest, or into 8, 8 and the rest.
    factor = 2.0**13 + 1.0 if parts == 2 else 2.0**16 + 1.0

    def split(x: Array) -> list[Array]:
        pieces = []
        for _ in range(parts - 1):
            scaled = x * factor
            high = scaled - (scaled - x)
            # What is too large to scale, and what is not finite, stays whole.
            high = xp.where(xp.isfinite(high), high, x)
            pieces.append(high)
            x = xp.where(xp.isfinite(x), x - high, xp.zeros_like(x))
        return [*pieces, x]

    rights = split(b)
    products = [matmul(left, right) for i, left in enumerate(split(a)) for right in rights[: parts - i]]
    # The smallest first.
    return sum(reversed(products[:-1]), start=products[-1])


def _factors(x: Array, bandwidth: float, xp: Any, *, offsets: bool) -> tuple[Array, Array]:
    """Left and right: the rounding of t is then that of one matrix product."""
    x, offset = (x[..., :-1], x[..., -1:]) if offsets else (x, 0.0)
    square = (xp.sum(x * x, axis=-1, keepdims=True) + offset) * (1.0 / bandwidth)
    one = xp.ones_like(square)
    return xp.concat([x * (-2.0 / bandwidth), square, one], axis=-1), xp.concat([x, one, square], axis=-1)


def _typical_slope(left: Array, right: Array, kernel: PairKernel, xp: Any, dtype: Any) -> Array:
    # The first set has its own mean as the origin, so that its products with the other cancel in the mean of t.
    t = xp.mean(left[..., -2:-1], axis=-2, keepdims=True) + xp.mean(right[..., -1:], axis=-2, keepdims=True)
    slope = kernel.slope(t, xp)
    if not _vanishes(kernel):  # it may be infinite where all rows coincide, and any constant is right
        slope = xp.where(xp.isfinite(slope), slope, xp.zeros_like(slope))
    return xp.astype(slope, dtype, copy=False)


def _distances(left: Array, right: Array, xp: Any, *, diagonal: bool) -> Array:
    t = xp.matmul(left, xp.matrix_transpose(right))
    # Rounding makes the distance of close pairs negative.
    t = xp.clamp_at_zero(t) if hasattr(xp, "clamp_at_zero") else at_least(t, 0.0, xp)
    return _off_diagonal(t, xp, diagonal=diagonal)


def _energy_and_slopes(
    left: Array, right: Array, kernel: PairKernel, xp: Any, *, shift: Array, diagonal: bool, offsets: bool
) -> tuple[Array, Array]:
    """The sum of phi, and w - c in the dtype of c."""
    # A finite slope of a row with itself cancels in the gradient of the row, but not in that of its offset.
    masked = diagonal and (offsets or not _vanishes(kernel))
    t = _distances(left, right, xp, diagonal=diagonal and not masked)
    if hasattr(kernel, "value_and_slope"):
        value, slope = kernel.value_and_slope(t, xp)
    else:
        value, slope = kernel.value(t, xp), kernel.slope(t, xp)
    total = xp.sum(_off_diagonal(value, xp, diagonal=masked), axis=(-2, -1))
    w = _off_diagonal(xp.astype(slope, shift.dtype, copy=False), xp, diagonal=masked)
    w -= shift  # in place where arrays can be changed
    return total, w


def _vanishes(kernel: PairKernel) -> bool:
    return getattr(kernel, "vanishes_at_zero", False)


def _off_diagonal(a: Array, xp: Any, *, diagonal: bool) -> Array:
    """The array with zeros on its diagonal, whatever stood there."""
    if not diagonal:
        return a
    if hasattr(xp, "zero_diagonal"):  # a framework may know better
        return xp.zero_diagonal(a)
    one = xp.eye(a.shape[-1], dtype=a.dtype, device=array_api_compat.device(a))
    return xp.where(one > 0.5, xp.zeros_like(one), a)
