"""One tile of a sum over pairs: p rows of x and q rows of y, their energies and what they add to the derivatives.

    t_ij = D_ij / h            one matrix product
    sum of phi(t)              the value
    w_ij = phi'(t_ij)          the slopes, and two more matrix products for sum_j w_ij [y_j, 1] and sum_i w_ij [x_i, 1],
                               which make the gradients: dS/dx_i = (2/h) sum_j w_ij (x_i - y_j)

A second derivative in the direction (u, v) of (x, y) needs, per pair, how t changes and how w changes with it:

    s_ij = <x_i - y_j, u_i - v_j>,   q_ij = (2/h) phi''(t_ij) s_ij
    (2/h) sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)]

Everything is written in the array API standard, with the functions of a namespace `xp`. Nothing that a caller or a
kernel has handed over is changed, so that libraries with immutable arrays go through the same lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import array_api_compat

if TYPE_CHECKING:
    from eccentric_core._checks import Array
    from eccentric_core.kernels import PairKernel


class Rows(NamedTuple):
    """Rows in the forms that a tile multiplies: left times right makes t (or s), slopes times ones make moments."""

    left: Array  # shape (..., n, c)
    right: Array  # shape (..., n, c)
    ones: Array  # the rows and a one, shape (..., n, d + 1), in the dtype of the moments


def prepare(x: Array, bandwidth: float, xp: Any, *, dtype: Any) -> Rows:
    """Bring centred rows of shape (..., n, d) into the forms of t; moments will be of that dtype.

    left is [-2 x/h, |x|^2/h, 1] and right [x, 1, |x|^2/h]: the rounding of t is that of one matrix product.
    """
    square = xp.sum(x * x, axis=-1, keepdims=True) * (1.0 / bandwidth)
    one = xp.ones_like(square)
    left, right = xp.concat([x * (-2.0 / bandwidth), square, one], axis=-1), xp.concat([x, one, square], axis=-1)
    return Rows(left, right, xp.astype(right[..., :-1], dtype, copy=False))


def prepare_direction(x: Array, u: Array, xp: Any, *, dtype: Any) -> Rows:
    """Bring centred rows x and their directions u into the forms of s; moments will be of that dtype."""
    product = xp.sum(x * u, axis=-1, keepdims=True)
    one = xp.ones_like(product)
    left, right = xp.concat([-x, -u, product, one], axis=-1), xp.concat([u, x, one, product], axis=-1)
    return Rows(left, right, xp.astype(xp.concat([u, one], axis=-1), dtype, copy=False))


def typical_slope(x: Rows, y: Rows, kernel: PairKernel, xp: Any) -> Array:
    """The constant c: phi' at the mean of t over all pairs of x and y, of shape (..., 1, 1)."""
    mean_left = xp.mean(x.left, axis=-2, keepdims=True)
    mean_right = xp.mean(y.right, axis=-2, keepdims=True)
    slope = kernel.slope(_clamped(xp.sum(mean_left * mean_right, axis=-1, keepdims=True), xp), xp)
    # Any constant is right; a kernel may be infinite where all rows coincide.
    return xp.astype(xp.where(xp.isfinite(slope), slope, xp.zeros_like(slope)), x.ones.dtype, copy=False)


def energy(x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, diagonal: bool) -> Array:
    """The sum of phi over the pairs of a tile, of shape (...). On a diagonal tile a row is no pair with itself."""
    return _energy(_distances(x, y, xp), kernel, xp, diagonal=diagonal)


def energy_and_moments(
    x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, shift: Array, diagonal: bool
) -> tuple[Array, ...]:
    """The sum of phi, and what the pairs of a tile add to the gradient.

    Args:
        x: p rows.
        y: q rows.
        kernel: phi and h.
        xp: the array namespace.
        shift: the constant c, of shape (..., 1, 1), that is taken out of every slope.
        diagonal: both are the same rows, and a row is no pair with itself.

    Returns:
        (total, moment of x, moment of y), on the diagonal (total, moment of x), which holds all there is. A moment has
        shape (..., d + 1, p or q): the sum over the other rows of (w - c) times [row, 1], as columns.
        `gradient_of_moments` turns the sum of all moments of a row into its gradient.
    """
    t = _distances(x, y, xp)
    total = _energy(t, kernel, xp, diagonal=diagonal)
    return total, *_moments(_off_diagonal(_slopes(t, kernel, y, shift, xp), xp, diagonal=diagonal), x, y, xp, diagonal)


def second_moments(
    x: tuple[Rows, Rows], y: tuple[Rows, Rows], kernel: PairKernel, xp: Any, *, shift: Array, diagonal: bool
) -> tuple[Array, ...]:
    """What the pairs of a tile add to the derivative of the gradient along a direction.

    Args:
        x: p rows and their directions.
        y: q rows and their directions.
        kernel, xp, shift, diagonal: as in `energy_and_moments`.

    Returns:
        (moment of x, moment of y), on the diagonal (moment of x,), of shape (..., 2 (d + 1), p or q): the sums of
        (w - c) times [direction, 1], and of q times [row, 1].
    """
    t = _distances(x[0], y[0], xp)
    s = xp.matmul(x[1].left, xp.matrix_transpose(y[1].right))
    w = _off_diagonal(_slopes(t, kernel, y[0], shift, xp), xp, diagonal=diagonal)
    q = xp.astype(kernel.curvature(t, xp) * s * (2.0 / kernel.bandwidth), w.dtype, copy=False)
    q = _off_diagonal(q, xp, diagonal=diagonal)
    first, second = _moments(w, x[1], y[1], xp, diagonal), _moments(q, x[0], y[0], xp, diagonal)
    return tuple(xp.concat([of_w, of_q], axis=-2) for of_w, of_q in zip(first, second, strict=True))


def gradient_of_moments(x: Rows, y: Rows, moment: Array, shift: Array, xp: Any) -> Array:
    """sum_j w_ij (x_i - y_j), of shape (..., n, d), from the sum of the moments of x, of shape (..., d + 1, n)."""
    moment = xp.matrix_transpose(moment)
    # What the constant part of w adds to the moments is a sum over all rows of y.
    moment = moment + shift * xp.sum(y.ones, axis=-2, keepdims=True)
    return x.ones[..., :-1] * moment[..., -1:] - moment[..., :-1]


def derivative_of_moments(x: tuple[Rows, Rows], y: tuple[Rows, Rows], moment: Array, shift: Array, xp: Any) -> Array:
    """sum_j [w_ij (u_i - v_j) + q_ij (x_i - y_j)], of shape (..., n, d), from the sum of the second moments of x."""
    width = x[0].ones.shape[-1]
    of_w = gradient_of_moments(x[1], y[1], moment[..., :width, :], shift, xp)
    return of_w + gradient_of_moments(x[0], y[0], moment[..., width:, :], xp.zeros_like(shift), xp)


def _distances(x: Rows, y: Rows, xp: Any) -> Array:
    return _clamped(xp.matmul(x.left, xp.matrix_transpose(y.right)), xp)


def _clamped(t: Array, xp: Any) -> Array:
    """Rounding makes the distance of close pairs negative. A NaN stays a NaN: `maximum` and not `where`."""
    return xp.maximum(t, xp.zeros((), dtype=t.dtype, device=array_api_compat.device(t)))


def _energy(t: Array, kernel: PairKernel, xp: Any, *, diagonal: bool) -> Array:
    return xp.sum(_off_diagonal(kernel.value(t, xp), xp, diagonal=diagonal), axis=(-2, -1))


def _slopes(t: Array, kernel: PairKernel, y: Rows, shift: Array, xp: Any) -> Array:
    return xp.astype(kernel.slope(t, xp), y.ones.dtype, copy=False) - shift


def _moments(w: Array, x: Rows, y: Rows, xp: Any, diagonal: bool) -> tuple[Array, ...]:
    # Rows as columns: the product then has as many columns as the tile, which every BLAS likes better than d + 1.
    of_x = xp.matmul(xp.matrix_transpose(y.ones), xp.matrix_transpose(w))
    return (of_x,) if diagonal else (of_x, xp.matmul(xp.matrix_transpose(x.ones), w))


def _off_diagonal(a: Array, xp: Any, *, diagonal: bool) -> Array:
    """The array with zeros on its diagonal, whatever stood there."""
    if not diagonal:
        return a
    one = xp.eye(a.shape[-1], dtype=a.dtype, device=array_api_compat.device(a))
    return xp.where(one > 0.5, xp.zeros_like(one), a)
