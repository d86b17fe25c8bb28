"""The eccentric loss, its gradient, its kernel and its force."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from eccentric_core.checks import (
    check_bandwidth,
    check_batch,
    check_mu,
    check_scale,
    check_tile_rows,
    compute_dtype,
    dim_array,
    mu_array,
    nonnegative_array,
)
from eccentric_core.engine.kernels import LogarithmicKernel
from eccentric_core.engine.pairs import PairSum, flowing
from eccentric_core.engine.sweep import Driver
from eccentric_core.theory.scale import cached_scale, resolve_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from eccentric_core.checks import Array, Floats, Scale

# With a large mu the kernel is local: the slope of a coincident pair, 1, is far above that of a typical one, about
# 1/(2 mu). Rounding of the large one would then cost up to mu 1e-6 of a float32 gradient, so its sums are kept in
# float64 from this mu on.
_WIDE_ABOVE = 4.0


@flowing
def eccentric_loss(
    z: Array, mu: float = 1.0, *, scale: Scale = "paper", tile_rows: int | None = None, xp: Any = None
) -> Array:
    """The eccentric loss of a batch of latent vectors.

        l = mean_i |z_i|^2 - mu M / (n (n-1)) sum_{i != j} log(1 + |z_i - z_j|^2 / M)

    It draws every vector to the origin and makes every pair repel. Minimised alone it puts the batch on a sphere of
    radius about sqrt(d); add it to another loss with a weight: `loss = reconstruction + lam * eccentric_loss(z)`. It is
    negative when all goes well; `loss_floor` gives the value to read it against.

    Args:
        z: latent vectors of shape (..., n, d) with n >= 2, of any library that follows the array API standard. Leading
            axes are separate batches. d >= 2, or d >= 1 where scale is a number.
        mu: the parameter mu > 1/2. 1 spreads the batch on a global scale, d + 1/2 on a local scale too.
        scale: "paper" for the M of the paper, "exact" for the M at which the radius is sqrt(d), or M itself.
        tile_rows: rows of one tile of the sum over pairs; None chooses from the device and the dtype.
        xp: the array namespace; None takes it from z.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, float32 for float32, float16 and bfloat16.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: NaN and infinity in z
            are not errors and appear in the loss.

    Time is O(n^2 d), memory O(n d). Every |z_i - z_j|^2 / M is exact up to 16 eps max |z - mean|^2 / M, where eps is
    that of the dtype: within far clusters that costs digits (docs/numerics.md).

    Source: equation 1 of the paper.

    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> float(eccentric_loss(z).round(4))
    -2.8844
    """
    return _energy(z, mu, scale, tile_rows, xp).value(z)


@flowing
def eccentric_loss_and_grad(
    z: Array, mu: float = 1.0, *, scale: Scale = "paper", tile_rows: int | None = None, xp: Any = None
) -> tuple[Array, Array]:
    """The eccentric loss and its gradient with respect to z, from one sweep over the pairs.

        dl/dz_i = (2/n) z_i - 4 mu / (n (n-1)) sum_j (z_i - z_j) / (1 + |z_i - z_j|^2 / M)

    Args, Raises: as `eccentric_loss`.

    Returns:
        (loss, gradient): the loss as in `eccentric_loss`; the gradient of the shape and the dtype of z, of every batch
        for itself.

    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> loss, grad = eccentric_loss_and_grad(z)
    >>> bool(loss == eccentric_loss(z)), grad.shape
    (True, (100, 8))
    """
    energy = _energy(z, mu, scale, tile_rows, xp)
    loss, grad = energy.value_and_gradients(z)
    return loss, energy.pairs.driver.xp.astype(grad, z.dtype, copy=False)


def pair_kernel(x: Array, y: Array, mu: float = 1.0, *, scale: Scale = "paper", xp: Any = None) -> Array:
    """The kernel K of which the loss is the mean over pairs.

        K(x, y) = (|x|^2 + |y|^2) / 2 - mu M log(1 + |x - y|^2 / M)

    Args:
        x, y: vectors of shape (..., d) that broadcast against each other: x[:, None, :] and y[None, :, :] give the
            matrix of all pairs.
        mu, scale: as in `eccentric_loss`.
        xp: the array namespace; None takes it from x.

    Returns:
        An array of the broadcast shape without its last axis, float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: equation 1 of the paper.

    >>> float(pair_kernel(np.asarray([0.0, 1.0]), np.asarray([1.0, 0.0]), 1.0, scale=2.0).round(6))
    -0.386294
    """
    for name, rows in (("x", x), ("y", y)):
        if len(getattr(rows, "shape", ())) < 1 or not hasattr(rows, "dtype"):
            raise TypeError(f"{name} must be an array of shape (..., d), got {rows!r}; make it an array first")
    if x.shape[-1] != y.shape[-1] or compute_dtype(x, "x") != compute_dtype(y, "y"):
        raise ValueError(
            f"x and y must have the same dimension and dtype, "
            f"got {tuple(x.shape)} {x.dtype} and {tuple(y.shape)} {y.dtype}"
        )
    if x.shape[-1] < (2 if isinstance(scale, str) else 1):
        raise ValueError(
            f"x and y must have at least 2 dimensions, got d={x.shape[-1]}; with d=1 give scale as a number"
        )
    xp = array_api_compat.array_namespace(x, y) if xp is None else xp
    mu, bandwidth = _parameters(x.shape[-1], mu, scale, compute_dtype(x, "x"))
    dtype = getattr(xp, compute_dtype(x, "x"))
    x, y = xp.astype(x, dtype, copy=False), xp.astype(y, dtype, copy=False)
    squares = xp.sum(x * x, axis=-1) + xp.sum(y * y, axis=-1)
    difference = x - y
    distance = xp.sum(difference * difference, axis=-1)
    return squares * 0.5 - xp.log1p(distance / bandwidth) * (mu * bandwidth)


def repulsive_force(
    distance: ArrayLike, dim: ArrayLike, mu: ArrayLike = 1.0, *, scale: Scale | ArrayLike = "paper"
) -> np.float64 | Floats:
    """The magnitude of the repulsive force between two items at a distance r: 2 mu r / (1 + r^2 / M).

    It grows up to r = sqrt(M), where it is mu sqrt(M), and falls beyond.

    Args:
        distance: r >= 0 in the units of the latents; any shape. NaN passes through.
        dim, mu: the latent dimension d >= 2 and mu > 1/2; any shapes that broadcast.
        scale: "paper", "exact", or M itself.

    Returns:
        float64 of the broadcast shape, without overflow at any distance.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: section 2 and Figure 2 of the paper.

    >>> print(repulsive_force([0.0, 1.0, 1e200], 64).round(6))
    [0.       1.984617 0.      ]
    """
    r, d, m = nonnegative_array(distance, "distance"), dim_array(dim), mu_array(mu)
    r, d, m = np.broadcast_arrays(r, d, m)
    root = np.sqrt(resolve_scale(d, m, scale))
    with np.errstate(divide="ignore", over="ignore"):  # 0 and infinity are as good as any other distance
        s = r / root
        return (2.0 * m * root / (s + 1.0 / s))[()]


@dataclass(frozen=True)
class EccentricEnergy:
    """The loss as a function of a batch, with its derivatives, for a framework to bind.

    Results have the dtype to compute in: float64 for float64, otherwise float32.
    """

    mu: float
    pairs: PairSum  # the repulsion

    def value(self, z: Array) -> Array:
        """The loss, of shape (...)."""
        z, n = self._entered(z)
        return self.combined(z, self.pairs.value(z), n)

    def value_and_gradients(self, z: Array) -> tuple[Array, Array]:
        """The loss and its gradient."""
        z, n = self._entered(z)
        repulsion, grad = self.pairs.value_and_gradients(z)
        return self.combined(z, repulsion, n), z * (2.0 / n) - grad * self._weight(n)

    def hvp(self, sets: Sequence[Array], directions: Sequence[Array]) -> tuple[Array, ...]:
        """The Hessian times a vector: the derivative of the gradient of (z,) along (u,)."""
        z, n = self._entered(sets[0])
        u, _ = self._entered(directions[0])
        return (u * (2.0 / n) - self.pairs.hvp((z,), (u,))[0] * self._weight(n),)

    def combined(self, z: Array, repulsion: Array, n: Any) -> Array:
        """The loss of rows z among n in all from their sum over pairs."""
        return self.pairs.driver.xp.sum(z * z, axis=(-2, -1)) / n - repulsion * self._weight(n)

    def _weight(self, n: Any) -> Any:
        return self.mu * self.pairs.kernel.bandwidth / (n * (n - 1.0))

    def _entered(self, z: Array) -> tuple[Array, Any]:
        """The rows in the dtype to compute in, and how many they are."""
        xp, dtype = self.pairs.driver.xp, compute_dtype(z, "z")
        z = xp.astype(z, getattr(xp, dtype), copy=False)
        return z, self.pairs.driver.rows(z)


def eccentric_energy(
    z: Array, mu: float, scale: Scale, driver: Driver, tile_rows: int | None = None, *, min_rows: int = 2
) -> EccentricEnergy:
    """Check the arguments of a loss by their static facts; return the loss of batches like z."""
    _, d = check_batch(z, "z", min_rows=min_rows, min_dim=2 if isinstance(scale, str) else 1)
    try:
        return _cached_energy(d, compute_dtype(z, "z"), mu, scale, driver, tile_rows)
    except TypeError:  # an argument that cannot be remembered has a complaint of its own
        return _cached_energy.__wrapped__(d, compute_dtype(z, "z"), mu, scale, driver, tile_rows)


@lru_cache(maxsize=1024, typed=True)
def _cached_energy(
    dim: int, dtype: str, mu: float, scale: Scale, driver: Driver, tile_rows: int | None
) -> EccentricEnergy:
    """A training loop asks for the same at every step."""
    mu, bandwidth = _parameters(dim, mu, scale, dtype)
    check_tile_rows(tile_rows)
    return EccentricEnergy(mu, PairSum(LogarithmicKernel(bandwidth), driver, tile_rows, mu > _WIDE_ABOVE))


def _energy(z: Array, mu: float, scale: Scale, tile_rows: int | None, xp: Any) -> EccentricEnergy:
    """The loss of batches like z, in Python's own loop."""
    if xp is None and hasattr(z, "shape"):
        xp = array_api_compat.array_namespace(z)
    return eccentric_energy(z, mu, scale, Driver(xp), tile_rows)


def _parameters(dim: int, mu: float, scale: Scale, dtype: str) -> tuple[float, float]:
    """mu and M, checked for a dtype to compute in, as floats."""  # noqa: D403
    mu = check_mu(mu)
    check_scale(scale)
    if np.ndim(scale):
        raise TypeError(f"scale must be a single number here, got {scale!r}; call once per scale")
    bandwidth = cached_scale(dim, mu, scale) if isinstance(scale, str) else float(scale)
    check_bandwidth(bandwidth, dtype, "scale (M)")
    check_bandwidth(mu * bandwidth, dtype, "mu times scale (mu M)")
    return mu, bandwidth
