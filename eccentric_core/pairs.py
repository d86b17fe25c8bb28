"""The engine: a sum over pairs of phi(D_ij) and its gradient, in one sweep over tiles.

    S = sum over pairs (i, j) of phi(D_ij / h),   D_ij = |x_i - y_j|^2,   h the kernel's bandwidth

    dS/dx_i = sum over j of (2/h) phi'(D_ij / h) (x_i - y_j)

Either of one set with itself (all ordered pairs i != j) or of one set against another (all i and j). Any energy of
this form is a small object with phi and phi' (`PairKernel`).

One tile takes p rows of x and q rows of y: a matrix product makes t = D/h, the kernel makes the sum of phi(t) and the
slopes w = phi'(t), and two more matrix products make what the gradient needs, sum_j w_ij y_j and sum_i w_ij x_i, with
the row sums of w riding along as a column of ones. Of one set only the tiles on and above the diagonal are visited.
Memory is O(n d) and one tile, never n x n.

Everything is written in the array API standard and takes its functions from the namespace `xp` (`NAMESPACE` lists
them). Nothing is updated in place, so that libraries with immutable arrays and automatic differentiation go through
the same lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import array_api_compat

from eccentric_core._checks import check_batch, check_tile_rows, compute_dtype

if TYPE_CHECKING:
    from eccentric_core._checks import Array

# What `xp` must offer, beside operators and indexing: the functions and the dtypes of the standard that are used here
# and in `eccentric_core.loss`.
NAMESPACE = (
    *("astype", "concat", "eye", "float32", "float64", "log1p", "matmul", "matrix_transpose"),
    *("maximum", "mean", "ones_like", "reshape", "stack", "sum", "where", "zeros"),
)

# Bytes of one tile. On a CPU a tile, its kernel values and its slopes then stay in the second-level cache of a core;
# an accelerator wants few large tiles.
_TILE_BYTES_CPU = 600_000
_TILE_BYTES_ACCELERATOR = 64_000_000


class PairKernel(Protocol):
    """An energy of a pair as a function of its squared distance in units of a bandwidth: phi(t), t = D/h >= 0."""

    @property
    def bandwidth(self) -> float:
        """h, a positive number in the squared units of the latents."""
        ...

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t), of the shape of t."""
        ...

    def slope(self, t: Array, xp: Any) -> Array:
        """phi'(t), of the shape of t."""
        ...


@dataclass(frozen=True)
class LogarithmicKernel:
    """phi(t) = log(1 + t), the repulsion of the eccentric loss, where the bandwidth is M."""

    bandwidth: float

    def value(self, t: Array, xp: Any) -> Array:
        """log(1 + t), exact also where 1 + t rounds to 1."""
        return xp.log1p(t)

    def slope(self, t: Array, xp: Any) -> Array:  # noqa: ARG002
        """1/(1 + t)."""
        return 1.0 / (1.0 + t)


@dataclass(frozen=True)
class InverseMultiquadricKernel:
    """phi(t) = 1/(1 + t), the kernel of WAE-MMD, where the bandwidth is C."""

    bandwidth: float

    def value(self, t: Array, xp: Any) -> Array:  # noqa: ARG002
        """1/(1 + t)."""
        return 1.0 / (1.0 + t)

    def slope(self, t: Array, xp: Any) -> Array:
        """-1/(1 + t)^2."""
        value = self.value(t, xp)
        return -value * value


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

    >>> import numpy as np
    >>> float(pair_sum(np.asarray([[0.0], [1.0], [3.0]]), kernel=InverseMultiquadricKernel(1.0)))
    1.6
    """
    return _sweep(x, y, kernel, tile_rows, xp, gradient=False)[0]


def pair_sum_and_grad(
    x: Array, y: Array | None = None, *, kernel: PairKernel, tile_rows: int | None = None, xp: Any = None
) -> tuple[Array, ...]:
    """`pair_sum` and its gradient with respect to x, and to y where there is one, from the same sweep.

    Returns:
        (sum, gradient of x) or (sum, gradient of x, gradient of y); a gradient has the shape of its rows and the
        dtype of the sum.
    """
    return _sweep(x, y, kernel, tile_rows, xp, gradient=True)


def prepare(x: Array, centre: Array, bandwidth: float, xp: Any) -> tuple[Array, Array]:
    """The two forms of rows in which one matrix product of both makes t = D/h.

    Args:
        x: rows of shape (..., n, d).
        centre: of shape (..., 1, d), subtracted first. Distances don't change, but what remains is small and rounding
            with it. Use the same for both sets.
        bandwidth: h.

    Returns:
        (left, right), both of shape (..., n, d + 2): [-2 x/h, |x|^2/h, 1] and [x, 1, |x|^2/h].
    """
    x = x - centre
    square = xp.sum(x * x, axis=-1, keepdims=True) * (1.0 / bandwidth)
    one = xp.ones_like(square)
    return xp.concat([x * (-2.0 / bandwidth), square, one], axis=-1), xp.concat([x, one, square], axis=-1)


def tile(
    left: Array, right: Array, kernel: PairKernel, xp: Any, *, diagonal: bool = False, rows: Array | None = None
) -> tuple[Array, ...]:
    """One tile: the sum of phi and, given rows, what its pairs add to the gradient.

    Args:
        left: p rows in the left form, shape (..., p, d + 2).
        right: q rows in the right form, shape (..., q, d + 2).
        kernel: phi and h.
        xp: the array namespace.
        diagonal: both are the same rows, and a row is no pair with itself.
        rows: the p rows in the right form, to ask for the gradient too.

    Returns:
        (total,) or (total, moment of left, moment of right). A moment has shape (..., p or q, d + 1): the sum over the
        other rows of w y, and of w. `pair_gradient` turns sums of moments into a gradient. On the diagonal the moment
        of left holds all there is.
    """
    t = xp.matmul(left, xp.matrix_transpose(right))
    zero = xp.zeros((), dtype=t.dtype, device=array_api_compat.device(t))
    # Rounding makes the distance of close pairs negative. A NaN stays a NaN: `maximum` and not `where`.
    t = xp.maximum(t, zero)
    value, slope = kernel.value(t, xp), None if rows is None else kernel.slope(t, xp)
    if diagonal:
        other = xp.eye(t.shape[-1], dtype=t.dtype, device=array_api_compat.device(t)) < 0.5
        value, slope = (of_all if of_all is None else xp.where(other, of_all, zero) for of_all in (value, slope))
    total = xp.sum(value, axis=(-2, -1))
    if rows is None:
        return (total,)
    of_left = xp.matmul(slope, right[..., :-1])
    if diagonal:
        return total, of_left
    return total, of_left, xp.matmul(xp.matrix_transpose(slope), rows[..., :-1])


def pair_gradient(right: Array, moment: Array, bandwidth: float) -> Array:
    """The gradient sum_j (2/h) w_ij (x_i - y_j), from rows in the right form and the sum of their moments."""
    return (right[..., :-2] * moment[..., -1:] - moment[..., :-1]) * (2.0 / bandwidth)


def default_tile_rows(x: Array, itemsize: int) -> int:
    """The rows of one tile for the device of x and a dtype of itemsize bytes."""
    on_cpu = "cpu" in str(array_api_compat.device(x)).lower()
    rows = math.isqrt((_TILE_BYTES_CPU if on_cpu else _TILE_BYTES_ACCELERATOR) // itemsize)
    return rows // 64 * 64


def _sweep(
    x: Array, y: Array | None, kernel: PairKernel, tile_rows: int | None, xp: Any, *, gradient: bool
) -> tuple[Array, ...]:
    n, d = check_batch(x, "x", min_rows=1)
    check_tile_rows(tile_rows)
    xp = array_api_compat.array_namespace(x) if xp is None else xp
    dtype = compute_dtype(x, "x")
    m = n
    if y is not None:
        m = _check_second(x, y)
    # Leading axes become one, and the rows of many small batches share a tile.
    lead = tuple(x.shape[:-2])
    sets = [
        xp.reshape(xp.astype(rows, getattr(xp, dtype)), (math.prod(lead), *rows.shape[-2:]))
        for rows in (x, y)
        if rows is not None
    ]
    centre = xp.mean(sets[0], axis=-2, keepdims=True)
    prepared = [prepare(rows, centre, kernel.bandwidth, xp) for rows in sets]
    size = tile_rows or default_tile_rows(x, 8 if dtype == "float64" else 4)
    step = max(1, size * size // (min(size, n) * min(size, m)))
    parts = []
    for start in range(0, sets[0].shape[0], step):
        some = [tuple(form[start : start + step, ...] for form in forms) for forms in prepared]
        parts.append(_sweep_batches(some, kernel, size, xp, gradient=gradient))
    if not parts:  # a leading axis of length 0
        parts = [_sweep_batches(prepared, kernel, size, xp, gradient=gradient)]
    results = [part[0] if len(part) == 1 else xp.concat(list(part), axis=0) for part in zip(*parts, strict=True)]
    shapes = [lead] + [(*lead, rows.shape[-2], d) for rows in sets]
    return tuple(xp.reshape(result, shape) for result, shape in zip(results, shapes, strict=False))


def _sweep_batches(
    prepared: list[tuple[Array, Array]], kernel: PairKernel, size: int, xp: Any, *, gradient: bool
) -> tuple[Array, ...]:
    """The sums, shape (b,), and gradients of b batches whose rows come in both forms."""
    one_set = len(prepared) == 1
    (left, right_of_x), (_, right) = prepared[0], prepared[-1]
    rows, columns = _blocks(left.shape[-2], size), _blocks(right.shape[-2], size)
    totals = []
    # Moments are kept by block and added as new arrays, as not every library can update a slice.
    of_rows: list[Array] = [None] * len(rows)
    of_columns: list[Array] = of_rows if one_set else [None] * len(columns)
    for i, block in enumerate(rows):
        for j in range(i, len(columns)) if one_set else range(len(columns)):
            diagonal = one_set and i == j
            total, *moments = tile(
                left[:, block, :],
                right[:, columns[j], :],
                kernel,
                xp,
                diagonal=diagonal,
                rows=right_of_x[:, block, :] if gradient else None,
            )
            totals.append(total * 2.0 if one_set and not diagonal else total)
            for moment, (place, k) in zip(moments, ((of_rows, i), (of_columns, j)), strict=False):
                place[k] = moment if place[k] is None else place[k] + moment
    value = xp.sum(xp.stack(totals, axis=-1), axis=-1)
    if not gradient:
        return (value,)
    moments = [xp.concat(of_rows, axis=-2)]
    if one_set:
        # Every pair counts in both orders.
        return value, 2.0 * pair_gradient(right, moments[0], kernel.bandwidth)
    moments.append(xp.concat(of_columns, axis=-2))
    return value, *(
        pair_gradient(form, moment, kernel.bandwidth) for form, moment in zip((right_of_x, right), moments, strict=True)
    )


def _check_second(x: Array, y: Array) -> int:
    """Check the second set against the first; return its number of rows."""
    m, d = check_batch(y, "y", min_rows=1)
    if y.shape[:-2] != x.shape[:-2] or d != x.shape[-1]:
        raise ValueError(
            f"y must have the leading axes and the dimension of x, got {tuple(y.shape)} beside {tuple(x.shape)}"
        )
    if compute_dtype(y, "y") != compute_dtype(x, "x"):
        raise TypeError(f"y must have the dtype of x, got {y.dtype} beside {x.dtype}; convert one of them")
    return m


def _blocks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
