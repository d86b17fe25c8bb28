"""When the sphere is not only stationary but the minimum (docs/minimizer.md has the proofs)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from eccentric_core.checks import dim_array, mu_array, nonnegative_array
from eccentric_core.theory.certificate import enclose_critical_mu
from eccentric_core.theory.radius import batch_excess, stationary_radius
from eccentric_core.theory.scale import resolve_scale
from eccentric_core.theory.sphere import mean_log

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eccentric_core.checks import Floats, Scale


def critical_mu(dim: ArrayLike) -> np.float64 | Floats:
    """The mu above which the sphere is no longer the minimum of the loss over all distributions.

    The energy int |x|^2 - mu M int int log(1 + |x-y|^2/M) of a probability distribution is strictly convex, so that
    it has one minimiser. That is the sphere of Theorem 1 for every mu > 1/2 if d >= 4; for d = 2 up to mu = 1.5535...
    and for d = 3 up to mu = 3.7446..., where the centre reaches the potential of the sphere and mass moves there.

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.

    Returns:
        float64 of the same shape, correctly rounded; inf from d = 4 on. See `enclose_critical_mu` for more digits.

    Raises:
        TypeError, ValueError: dim is not as described.

    Source: docs/minimizer.md, Theorems 2 and 3. Not in the paper.

    >>> print(critical_mu([2, 3, 4]))
    [1.55356043 3.74469931        inf]
    """
    d = dim_array(dim)
    return np.where(d == 2, _boundary(2), np.where(d == 3, _boundary(3), np.inf))[()]


def sphere_is_minimizer(
    dim: ArrayLike,
    mu: ArrayLike = 1.0,
    *,
    scale: Scale | ArrayLike = "paper",
    batch_size: ArrayLike | None = None,
) -> np.bool_ | np.ndarray:
    """Whether the sphere of Theorem 1 is the minimum of the loss over all distributions: mu' <= critical_mu(dim).

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts against dim.
        scale: "paper", "exact", or M itself. It is checked and changes nothing: M only sets the size.
        batch_size: the batch size n >= 2, any shape that broadcasts: mu' = mu n/(n-1), as a batch leaves out the pairs
            of an item with itself. None for infinitely many items, and mu' = mu.

    Returns:
        A boolean, or an array of the broadcast shape.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> bool(sphere_is_minimizer(2, 1.0)), bool(sphere_is_minimizer(2, 2.5)), bool(sphere_is_minimizer(64, 64.5))
    (True, False, True)
    """
    d, m = dim_array(dim), mu_array(mu)
    shape = np.broadcast_shapes(d.shape, m.shape, np.shape(resolve_scale(d, m, scale)))
    batch_mu = m if batch_size is None else 0.5 * (1.0 + batch_excess(m, batch_size))
    return np.broadcast_to(batch_mu <= critical_mu(d), np.broadcast_shapes(shape, np.shape(batch_mu)))[()]


def sphere_potential(
    dim: ArrayLike, mu: ArrayLike, distance: ArrayLike, *, scale: Scale | ArrayLike = "paper"
) -> np.float64 | Floats:
    """The potential V(r) that the stationary sphere and the origin make at a distance r from the centre.

        V(r) = r^2 - 2 mu M E[log(1 + (r^2 + rho^2 + 2 r rho cos t) / M)]

    The sphere is the minimiser if and only if V(r) >= V(rho) for every r >= 0.

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts.
        distance: r >= 0 in the units of the latents; any shape that broadcasts.
        scale: "paper", "exact", or M itself.

    Returns:
        V in the squared units of the latents, float64, of the broadcast shape.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> V = sphere_potential(2, 2.5, [0.0, stationary_radius(2, 2.5)])
    >>> bool(V[0] < V[1])  # d = 2, mu = 2.5 is beyond the boundary: the centre is the better place
    True
    """
    d, m, r = dim_array(dim), mu_array(mu), nonnegative_array(distance, "distance")
    root = np.sqrt(np.asarray(resolve_scale(d, m, scale)))
    rho = np.asarray(stationary_radius(d, m, scale=scale))
    return np.asarray(r * r - 2.0 * m * root**2 * mean_log_between(d, r / root, rho / root))[()]


def mean_log_between(dim: Floats, r: Floats, s: Floats) -> Floats:
    """E[log(1 + |y - z|^2)] for y and z uniform on the spheres of radius r and s; float64, broadcasting."""
    gap = (r - s) ** 2
    return np.log1p(gap) + mean_log(dim, 4.0 * r * s / (1.0 + gap))


@lru_cache
def _boundary(dim: int) -> float:
    lower, upper = map(float, enclose_critical_mu(dim, digits=25))
    if lower != upper:
        raise ArithmeticError(f"25 digits do not decide the float64 nearest to the critical mu of dimension {dim}")
    return lower
