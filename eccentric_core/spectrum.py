"""The spectrum of a batch: its covariance, deep principal components, and the alignment of two runs.

Everything is NumPy in float64, whatever library the rows come from. NaN and infinity have no spectrum: an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # which loads its parts when they are used

from eccentric_core.checks import check_batch, compute_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from eccentric_core.checks import Array, Floats

# NaN and inf propagate to the result; warnings on the way would repeat it.
_quiet = np.errstate(invalid="ignore", over="ignore")


@dataclass(frozen=True, eq=False)
class LatentSpectrum:
    """The mean and the covariance of a batch, the latter by its eigenvalues and axes; `spectrum` makes it.

    Attributes:
        mean: shape (d,).
        eigenvalues: shape (d,), those of the covariance, descending, none below 0.
        axes: shape (d, d); row k is the unit eigenvector of eigenvalue k. Its entry of largest magnitude is positive,
            so that the same batch has the same axes everywhere (but for equal eigenvalues or entries).
    """

    mean: Floats
    eigenvalues: Floats
    axes: Floats

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues: the mean squared distance from the mean, about d for a regularized batch."""
        return float(np.sum(self.eigenvalues))

    @property
    def eccentricity(self) -> float:
        """The (population) standard deviation of the eigenvalues over their mean; NaN where all rows are equal.

        0 for a sphere, up to sqrt(d - 1) for a line. Source: section 4.3 of the paper.
        """
        mean = np.mean(self.eigenvalues)
        return float(np.std(self.eigenvalues) / mean) if mean else float("nan")

    def transform(self, z: Array) -> Floats:
        """The principal coordinates <z - mean, axis k> of rows of shape (..., d); NaN in a row stays in it."""
        return (self._rows(z, "z") - self.mean) @ self.axes.T

    def inverse_transform(self, p: Array) -> Floats:
        """The rows that have the principal coordinates p, of shape (..., d)."""
        return self._rows(p, "p") @ self.axes + self.mean

    def sample(self, count: int, rng: np.random.Generator) -> Floats:
        """Draw rows, of shape (count, d), from the normal distribution with this mean and covariance.

        Source: section 4.3 of the paper, which decodes them to images.
        """
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}; use numpy.random.default_rng(seed)")
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 0:
            raise ValueError(f"count must be a whole number, 0 or more, got {count!r}")
        return self.inverse_transform(rng.standard_normal((count, self.mean.size)) * np.sqrt(self.eigenvalues))

    def _rows(self, rows: Array, name: str) -> Floats:
        array = _numpy(rows, name)
        if array.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"{name} must have shape (..., {self.mean.size}), the dimension of this spectrum, got {array.shape}"
            )
        return array


@dataclass(frozen=True, eq=False)
class Alignment:
    """Which component of one run goes with which of another; `align` makes it.

    Attributes:
        permutation: shape (d,); component k of the first run goes with component permutation[k] of the second.
        signs: shape (d,), 1 or -1; what to multiply the latter with.
    """

    permutation: NDArray[np.intp]
    signs: Floats

    def apply(self, b: Array) -> Floats:
        """Bring principal coordinates of the second run, of shape (..., d), into the order and signs of the first."""
        array = _numpy(b, "b")
        if array.shape[-1:] != self.signs.shape:
            raise ValueError(
                f"b must have shape (..., {self.signs.size}), the dimension of this alignment, got {array.shape}"
            )
        return array[..., self.permutation] * self.signs


@_quiet
def spectrum(z: Array) -> LatentSpectrum:
    """The spectrum of the covariance of a batch of latent vectors.

        1/n sum_i (z_i - mean)(z_i - mean)^T = sum_k eigenvalue_k axis_k axis_k^T

    Args:
        z: latent vectors of shape (n, d), n >= 2, real floating: any array that NumPy can convert, or nested lists.

    Returns:
        A `LatentSpectrum`, float64. The covariance is that of the population, with 1/n: its trace is the mean squared
        distance from the mean. Eigenvalues are exact up to about d eps times the largest.

    Raises:
        TypeError: z is no array or its numbers are not real floating.
        ValueError: its shape is another, or it holds NaN, infinity or numbers whose squares overflow float64.

    Source: sections 4.1 and 4.3 of the paper.

    >>> s = spectrum([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(s.eigenvalues, s.trace, round(s.eccentricity, 3))
    [4.5 0.5] 5.0 0.8
    """
    rows = _batch(z, "z")
    # Rounding must not give spread to a coordinate without.
    mean = np.where(np.all(rows == rows[0], axis=0), rows[0], np.mean(rows, axis=0))
    eigenvalues, vectors = np.linalg.eigh(_covariance(rows - mean, rows - mean, "z"))
    axes = vectors.T[::-1]
    largest = np.take_along_axis(axes, np.argmax(np.abs(axes), axis=1, keepdims=True), axis=1)
    return LatentSpectrum(mean, np.maximum(eigenvalues[::-1], 0.0), np.copysign(1.0, largest) * axes)


@_quiet
def align(a: Array, b: Array) -> Alignment:
    """Match the principal components of two runs on the same items.

    The permutation maximizes the trace of the absolute cross-covariance (the Hungarian algorithm); the signs then make
    its diagonal positive, where a 0 counts as positive.

    Args:
        a, b: principal coordinates of shape (n, d), n >= 2, of the same items in the same order: the training set.

    Returns:
        An `Alignment`, whose `apply` brings coordinates of b, also those of other items, into the order of a.

    Raises:
        TypeError, ValueError: as `spectrum`, or the shapes differ.

    Source: section 4.2 of the paper.

    >>> a = np.random.default_rng(0).standard_normal((50, 3))
    >>> b = a[:, [1, 2, 0]] * [1.0, -1.0, 1.0]
    >>> bool(np.all(align(a, b).apply(b) == a))
    True
    """
    a, b = _pair(a, b, min_rows=2)
    covariance = _covariance(a - np.mean(a, axis=0), b - np.mean(b, axis=0), "a and b")
    index, permutation = scipy.optimize.linear_sum_assignment(np.abs(covariance), maximize=True)
    return Alignment(permutation, np.where(covariance[index, permutation] < 0, -1.0, 1.0))


@_quiet
def mean_angle(a: Array, b: Array) -> float:
    """The mean angle between corresponding rows of two arrays, in degrees.

        angle(u, v) = 2 atan2(|u/|u| - v/|v||, |u/|u| + v/|v||)

    exact to rounding also near 0 and 180 degrees, where the arc cosine is not.

    Args:
        a, b: real floating, of the same shape (n, d), n >= 1; principal coordinates, or others with the mean at 0.

    Returns:
        Degrees from 0 to 180. NaN where a row is not finite.

    Raises:
        TypeError, ValueError: an argument is not as described, or has a row of zeros, which has no direction.

    Source: section 4.2 and Table 1 of the paper.

    >>> round(mean_angle([[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [3.0, 0.0]]), 10)
    45.0
    """
    u, v = (_directions(rows, name) for rows, name in zip(_pair(a, b, min_rows=1), "ab", strict=True))
    angles = 2.0 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))
    return float(np.degrees(np.mean(angles)))


def _directions(rows: Floats, name: str) -> Floats:
    """Unit vectors. The largest entry is taken out first: squares neither overflow nor vanish."""
    zeros = np.flatnonzero(~np.any(rows, axis=1))
    if zeros.size:
        raise ValueError(
            f"{name} must have no row of zeros, which has no direction, got {zeros.size} of {len(rows)}, the first at "
            f"index {zeros[0]}; leave these rows out of a and b"
        )
    rows = rows / np.max(np.abs(rows), axis=1, keepdims=True)
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _covariance(a: Floats, b: Floats, name: str) -> Floats:
    """The cross-covariance of centred rows, which tells of everything that is not finite."""
    covariance: Floats = a.T @ b / len(a)
    if not np.all(np.isfinite(covariance)):
        raise ValueError(
            f"{name} must be finite, with squares that float64 can hold, got NaN, infinity or more; "
            f"find the rows with numpy.isfinite"
        )
    return covariance


def _pair(a: Array, b: Array, *, min_rows: int) -> tuple[Floats, Floats]:
    a, b = _batch(a, "a", min_rows=min_rows), _batch(b, "b", min_rows=min_rows)
    if a.shape != b.shape:
        raise ValueError(f"b must have the shape of a, one row per item, got {b.shape} beside {a.shape}")
    return a, b


def _batch(rows: Array, name: str, *, min_rows: int = 2) -> Floats:
    """Rows of shape (n, d), checked, in float64."""
    array = _numpy(rows, name)
    if array.ndim > 2:
        raise ValueError(
            f"{name} must have shape (n, d), got {array.shape}; make one axis of the rows of all batches, "
            f"{name}.reshape(-1, d), or call once per batch"
        )
    check_batch(array, name, min_rows=min_rows)
    return array


def _numpy(rows: Any, name: str) -> Floats:
    """Real floating rows of any library in float64."""
    try:
        array = np.asanyarray(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be an array that NumPy can convert, got {type(rows).__name__}: {error}; "
            f"for a tensor of PyTorch give {name}.detach().cpu(), in bfloat16 with .float()"
        ) from error
    if isinstance(array, np.matrix | np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got {type(array).__name__}; make it an array first")
    compute_dtype(array, name)
    converted: Floats = array.astype(np.float64, copy=False)
    return converted
