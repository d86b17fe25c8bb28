"""The engine: a sum over pairs of phi(D_ij) and its gradient, in one sweep over tiles.

    S = sum over pairs (i, j) of phi(D_ij / h),   D_ij = |x_i - y_j|^2,   h the kernel's bandwidth

    dS/dx_i = sum over j of (2/h) phi'(D_ij / h) (x_i - y_j)

The pairs are those of one set with itself (i != j, in both orders) or of one set with another (all i and j). Any energy
of this form is a small object with phi and phi' (`PairKernel`).

One tile takes p rows of x and q rows of y: a matrix product makes t = D/h, the kernel makes the sum of phi(t) and the
slopes w = phi'(t), and two more matrix products make what the gradient needs, sum_j w_ij y_j and sum_i w_ij x_i, with
the row sums of w riding along as a column of ones. Of one set only the tiles on and above the diagonal are visited.
Memory is O(n d) and one tile, never n x n.

The gradient is a difference of large sums, so rounding of the sums is what limits it. A constant part of w makes up
most of them, and what it adds to the gradient is known in closed form: the tiles work with w - c, where c = phi' at the
mean of t. Where a few close pairs have slopes far above all others, the sums can be kept in float64 (`wide`).

Everything is written in the array API standard and takes its functions from the namespace `xp` (`NAMESPACE` lists
them). Nothing is updated in place, so that libraries with immutable arrays and automatic differentiation go through
the same lines. A framework that must drive the loop itself builds it from `prepare`, `typical_slope`, `tile` and
`pair_gradient`, as `_sweep_batches` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import array_api_compat
import numpy as np

from eccentric_core._checks import check_bandwidth, check_batch, check_tile_rows, compute_dtype

if TYPE_CHECKING:
    from eccentric_core._checks import Array

# What `xp` must offer, beside operators and indexing: the functions and the dtypes of the standard that are used here
# and in `eccentric_core.loss`.
NAMESPACE = (
    *("astype", "concat", "eye", "float32", "float64", "isfinite", "log1p", "matmul", "matrix_transpose"),
    *("maximum", "mean", "ones_like", "reshape", "stack", "sum", "where", "zeros", "zeros_like"),
)

# Bytes of one tile. On a CPU a tile, its kernel values and its slopes then stay in the second-level cache of a core;
# an accelerator wants few large tiles.
_TILE_BYTES_CPU = 600_000
_TILE_BYTES_ACCELERATOR = 64_000_000

# Up to this many rows a sweep is computed in float64 where the device has it, whatever the dtype.
_FEW_ROWS = 64


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
    return _sweep(x, y, kernel, tile_rows, xp, gradient=False, wide=False)[0]


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
    return _sweep(x, y, kernel, tile_rows, xp, gradient=True, wide=wide)


class Rows(NamedTuple):
    """Rows in the forms that a tile multiplies: left times right makes t = D/h, slopes times ones make moments."""

    left: Array  # [-2 x/h, |x|^2/h, 1], shape (..., n, d + 2)
    right: Array  # [x, 1, |x|^2/h], shape (..., n, d + 2)
    ones: Array  # [x, 1], shape (..., n, d + 1), in the dtype of the moments


def prepare(x: Array, centre: Array, bandwidth: float, xp: Any, *, wide: bool) -> Rows:
    """Bring rows of shape (..., n, d) into these forms.

    The centre, of shape (..., 1, d), is subtracted first: distances don't change, but what remains is small, and
    rounding with it. It must be the same for both sets.
    """
    x = x - centre
    square = xp.sum(x * x, axis=-1, keepdims=True) * (1.0 / bandwidth)
    one = xp.ones_like(square)
    left, right = xp.concat([x * (-2.0 / bandwidth), square, one], axis=-1), xp.concat([x, one, square], axis=-1)
    ones = right[..., :-1]
    return Rows(left, right, xp.astype(ones, xp.float64, copy=False) if wide else ones)


def typical_slope(x: Rows, y: Rows, kernel: PairKernel, xp: Any) -> Array:
    """The constant c: phi' at the mean of t over all pairs of x and y, of shape (..., 1, 1)."""
    mean_left = xp.mean(x.left, axis=-2, keepdims=True)
    mean_right = xp.mean(y.right, axis=-2, keepdims=True)
    t = xp.matmul(mean_left, xp.matrix_transpose(mean_right))
    zero = xp.zeros((), dtype=t.dtype, device=array_api_compat.device(t))
    slope = kernel.slope(xp.maximum(t, zero), xp)
    # Any constant is right; a kernel may be infinite where all rows coincide.
    return xp.astype(xp.where(xp.isfinite(slope), slope, zero), x.ones.dtype, copy=False)


def tile(x: Rows, y: Rows, kernel: PairKernel, xp: Any, *, diagonal: bool, shift: Array | None) -> tuple[Array, ...]:
    """One tile: the sum of phi and, where a shift is given, what its pairs add to the gradient.

    Args:
        x: p rows.
        y: q rows.
        kernel: phi and h.
        xp: the array namespace.
        diagonal: both are the same rows, and a row is no pair with itself.
        shift: the constant c, of shape (..., 1, 1), to ask for the gradient too.

    Returns:
        (total,) or (total, moment of x, moment of y). A moment has shape (..., p or q, d + 1): the sum over the other
        rows of (w - c) times the row, and of w - c. `pair_gradient` turns the sum of all moments of a row into its
        gradient. On the diagonal the moment of x holds all there is.
    """
    t = xp.matmul(x.left, xp.matrix_transpose(y.right))
    zero = xp.zeros((), dtype=t.dtype, device=array_api_compat.device(t))
    # Rounding makes the distance of close pairs negative. A NaN stays a NaN: `maximum` and not `where`.
    t = xp.maximum(t, zero)
    other = xp.eye(t.shape[-1], dtype=t.dtype, device=array_api_compat.device(t)) < 0.5 if diagonal else None
    value = kernel.value(t, xp)
    total = xp.sum(value if other is None else xp.where(other, value, zero), axis=(-2, -1))
    if shift is None:
        return (total,)
    slope = xp.astype(kernel.slope(t, xp), y.ones.dtype, copy=False) - shift
    if other is not None:
        return total, xp.matmul(xp.where(other, slope, xp.zeros_like(shift)), y.ones)
    return total, xp.matmul(slope, y.ones), xp.matmul(xp.matrix_transpose(slope), x.ones)


def pair_gradient(x: Rows, y: Rows, moment: Array, shift: Array, factor: float, xp: Any) -> Array:
    """The gradient factor * sum_j w_ij (x_i - y_j) from the sum of the moments of x, of shape (..., n, d + 1)."""
    # What the constant part of w adds to the moments is a sum over all rows of y.
    moment = (moment + shift * xp.sum(y.ones, axis=-2, keepdims=True)) * factor
    gradient = x.ones[..., :-1] * moment[..., -1:] - moment[..., :-1]
    return xp.astype(gradient, x.left.dtype, copy=False)


def default_tile_rows(x: Array, itemsize: int) -> int:
    """The rows of one tile for the device of x and a dtype of itemsize bytes."""
    # The standard does not name devices. NumPy, PyTorch, JAX and array-api-strict all write "cpu" in theirs; a library
    # that does not gets tiles that are larger than its cache, which costs time and nothing else.
    on_cpu = "cpu" in str(array_api_compat.device(x)).lower()
    rows = math.isqrt((_TILE_BYTES_CPU if on_cpu else _TILE_BYTES_ACCELERATOR) // itemsize)
    return max(rows // 64, 1) * 64


@np.errstate(invalid="ignore", over="ignore")  # NaN and infinity flow through to the result, which tells of them
def _sweep(
    x: Array, y: Array | None, kernel: PairKernel, tile_rows: int | None, xp: Any, *, gradient: bool, wide: bool
) -> tuple[Array, ...]:
    shapes = [check_batch(x, "x", min_rows=1)]
    if y is not None:
        shapes.append(_check_second(x, y))
    check_tile_rows(tile_rows)
    result_dtype, lead = compute_dtype(x, "x"), tuple(x.shape[:-2])
    check_bandwidth(kernel.bandwidth, result_dtype)
    xp = array_api_compat.array_namespace(*(rows for rows in (x, y) if rows is not None)) if xp is None else xp
    # A single outlier drags the mean of few rows far away from the others. For few rows float64 costs nothing.
    few = max(shapes[0][0], shapes[-1][0]) <= _FEW_ROWS
    dtype = "float64" if few and _has_float64(x, xp) else result_dtype
    # Leading axes become one, and the rows of many small batches share a tile.
    batches = math.prod(lead)
    flat = [
        xp.reshape(xp.astype(rows, getattr(xp, dtype), copy=False), (batches, *shape))
        for rows, shape in zip((x, y), shapes, strict=False)
    ]
    centre = xp.mean(flat[0], axis=-2, keepdims=True)
    wide = wide and _has_float64(x, xp)
    sets = [prepare(rows, centre, kernel.bandwidth, xp, wide=wide) for rows in flat]
    size = tile_rows or default_tile_rows(x, 8 if dtype == "float64" else 4)
    step = max(1, size * size // math.prod(min(size, n) for n in (shapes[0][0], shapes[-1][0])))
    parts = []
    for some in _slices(batches, step):
        chunk = [Rows(*(form[some, ...] for form in rows)) for rows in sets]
        parts.append(_sweep_batches(chunk, kernel, size, xp, gradient=gradient))
    results = [_joined(list(part), xp, axis=0) for part in zip(*parts, strict=True)]
    return tuple(
        xp.astype(xp.reshape(result, (*lead, *shape)), getattr(xp, result_dtype), copy=False)
        for result, shape in zip(results, [(), *shapes], strict=False)
    )


def _sweep_batches(sets: list[Rows], kernel: PairKernel, size: int, xp: Any, *, gradient: bool) -> tuple[Array, ...]:
    """The sums, shape (b,), and gradients of b batches of one set or two."""
    one_set, x, y = len(sets) == 1, sets[0], sets[-1]
    shift = typical_slope(x, y, kernel, xp) if gradient else None
    row_blocks, column_blocks = _blocks(x, size), _blocks(y, size)
    totals = []
    # Moments are kept by block and added as new arrays, as not every library can update a slice.
    of_rows: list[Array] = [None] * len(row_blocks)
    of_columns: list[Array] = of_rows if one_set else [None] * len(column_blocks)
    for i, rows in enumerate(row_blocks):
        for j in range(i if one_set else 0, len(column_blocks)):
            diagonal = one_set and i == j
            total, *moments = tile(rows, column_blocks[j], kernel, xp, diagonal=diagonal, shift=shift)
            # Off the diagonal of one set a pair counts in both orders.
            totals.append(total * 2.0 if one_set and not diagonal else total)
            for moment, (place, k) in zip(moments, ((of_rows, i), (of_columns, j)), strict=False):
                place[k] = moment if place[k] is None else place[k] + moment
    value = xp.sum(xp.stack(totals, axis=-1), axis=-1)
    if not gradient:
        return (value,)
    # Of one set a row is at either end of its pairs.
    factor = (4.0 if one_set else 2.0) / kernel.bandwidth
    of_x = pair_gradient(x, y, _joined(of_rows, xp), shift, factor, xp)
    if one_set:
        return value, of_x
    return value, of_x, pair_gradient(y, x, _joined(of_columns, xp), shift, factor, xp)


def _check_second(x: Array, y: Array) -> tuple[int, int]:
    """Check the second set, also against the first; return its shape."""
    m, d = check_batch(y, "y", min_rows=1)
    if y.shape[:-2] != x.shape[:-2] or d != x.shape[-1]:
        raise ValueError(
            f"y must have the leading axes and the dimension of x, got {tuple(y.shape)} beside {tuple(x.shape)}"
        )
    if compute_dtype(y, "y") != compute_dtype(x, "x"):
        raise TypeError(f"y must have the dtype of x, got {y.dtype} beside {x.dtype}; convert one of them")
    return m, d


def _has_float64(x: Array, xp: Any) -> bool:
    if not hasattr(xp, "__array_namespace_info__"):
        return False
    return "float64" in xp.__array_namespace_info__().dtypes(device=array_api_compat.device(x), kind="real floating")


def _joined(parts: list[Array], xp: Any, axis: int = -2) -> Array:
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=axis)


def _blocks(rows: Rows, size: int) -> list[Rows]:
    return [Rows(*(form[:, some, :] for form in rows)) for some in _slices(rows.left.shape[-2], size)]


def _slices(length: int, size: int) -> list[slice]:
    """Slices of at most size elements; an empty one where there is nothing."""
    return [slice(start, min(start + size, length)) for start in range(0, max(length, 1), size)]
