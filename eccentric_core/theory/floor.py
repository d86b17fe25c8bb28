"""The loss on the sphere, and lower bounds that hold for every batch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy  # which loads its parts when they are used

from eccentric_core.checks import dim_array, mu_array, nonnegative_array
from eccentric_core.theory.minimizer import critical_mu, mean_log_between
from eccentric_core.theory.radius import batch_excess, stationary_radius
from eccentric_core.theory.scale import resolve_scale
from eccentric_core.theory.sphere import mean_log

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eccentric_core.checks import Floats, Scale


# A radius in units of sqrt(M) whose sphere is as good as infinite.
_FAR = 1e100


def sphere_loss(
    dim: ArrayLike, mu: ArrayLike = 1.0, *, radius: ArrayLike | None = None, scale: Scale | ArrayLike = "paper"
) -> np.float64 | Floats:
    """The loss of infinitely many items spread uniformly over a sphere.

        r^2 - mu M E[log(1 + 2 r^2 (1 + cos t) / M)]

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts against dim.
        radius: the sphere's radius r >= 0 in the units of the latents; None for the stationary one.
        scale: "paper", "exact", or M itself (a positive number, or an array that broadcasts).

    Returns:
        float64 of the broadcast shape, to a few units of rounding of max(r^2, |loss|); infinite where that is more
        than float64 can hold.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: equation 1 of the paper, averaged.

    >>> round(float(sphere_loss(64)), 6)
    -24.666627
    """
    d, m = dim_array(dim), mu_array(mu)
    bandwidth = np.asarray(resolve_scale(d, m, scale))
    r = nonnegative_array(stationary_radius(d, m, scale=scale) if radius is None else radius, "radius")
    return _energy_of_sphere(d, m, bandwidth, r)[()]


def loss_floor(
    dim: ArrayLike,
    mu: ArrayLike = 1.0,
    *,
    scale: Scale | ArrayLike = "paper",
    batch_size: ArrayLike | None = None,
) -> np.float64 | Floats:
    """The greatest lower bound of the loss that is proved here: no batch of that size can score less.

    The loss is negative when all goes well (about -0.386 d at mu = 1), and a batch of n scores *less* than infinitely
    many items can, because it leaves out the pairs of an item with itself. Two bounds hold for every batch, and this
    is the greater:

    (a) the minimum over all distributions of the energy with mu' = mu n/(n-1) in the place of mu and the same M. It
        is the loss on the sphere wherever that is the minimiser (`sphere_is_minimizer`). Beyond (d = 2 or 3 only) it
        is bounded from below by convex duality from a nearly optimal distribution over concentric spheres.
    (b) by Jensen's inequality, with k = 2n/(n-1): s - mu M log(mu k) at s = M (mu - 1/k). A regular simplex attains
        it, so that it is exact for n <= d + 1.

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts against dim.
        scale: "paper", "exact", or M itself (a positive number, or an array that broadcasts).
        batch_size: the batch size n >= 2, any shape that broadcasts; None for infinitely many items.

    Returns:
        float64 of the broadcast shape, to a few units of rounding of max(rho^2, |floor|). Where the sphere is not the
        minimiser a value takes some hundredths of a second (d = 3: up to a few tenths); the last 256 are remembered.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: docs/mathematics.md. Not in the paper.

    >>> print(loss_floor(8, batch_size=[10, 100, 1000]).round(4), loss_floor(8).round(4))
    [-4.2601 -3.1546 -3.0534] -3.0423
    """
    d, m = dim_array(dim), mu_array(mu)
    bandwidth = np.asarray(resolve_scale(d, m, scale))
    excess = batch_excess(m, batch_size)
    batch_mu = 0.5 * (1.0 + excess)
    radius = np.asarray(stationary_radius(d, m, scale=scale, batch_size=batch_size))
    energy = _energy_of_sphere(d, batch_mu, bandwidth, radius)
    beyond = batch_mu > critical_mu(d)
    if np.any(beyond):
        d, batch_mu, bandwidth, energy, beyond = np.broadcast_arrays(d, batch_mu, bandwidth, energy, beyond)
        energy = energy.copy()
        energy[beyond] = bandwidth[beyond] * [
            _radial_bound(int(dim), float(mu)) for dim, mu in zip(d[beyond], batch_mu[beyond], strict=True)
        ]
    jensen = m * bandwidth * (excess / (1.0 + excess) - np.log1p(excess))  # mu k = 1 + excess
    return np.maximum(energy, jensen)[()]


def _energy_of_sphere(dim: Floats, mu: Floats, bandwidth: Floats, radius: Floats) -> Floats:
    ratio = radius / np.sqrt(bandwidth)
    # From here on E[log(1 + x v)] grows as log(x), so that x need not overflow.
    near = np.minimum(ratio, _FAR)
    repulsion = mean_log(dim, np.asarray(4.0 * near * near)) + 2.0 * np.log(np.maximum(ratio / _FAR, 1.0))
    with np.errstate(over="ignore"):  # infinite where float64 cannot hold it
        return np.asarray(radius * radius - mu * bandwidth * repulsion)


@lru_cache(maxsize=256)
def _radial_bound(dim: int, mu: float) -> float:
    """A lower bound of the energy with M = 1 over all distributions, tight where few spheres are the minimiser.

    The energy E is convex, so that for *any* distribution P with the potential V every other has at least the energy
    E(P) + min V - int V dP. P is a mixture of concentric spheres (the minimiser is rotation-symmetric), found by
    non-negative least squares over a grid of radii that is refined where P has its mass. How good P is decides only
    how tight the bound is: about 1e-8 of the energy for mu up to 5, 1e-5 at 100.
    """
    d, rho = np.asarray(float(dim)), float(stationary_radius(dim, mu, scale=1.0))
    radii, weights = np.array([rho]), np.ones(1)
    grid, spacing, bound = np.linspace(0.0, 1.5 * rho, 100), 0.015 * rho, -np.inf
    for _ in range(5):
        energy = weights @ radii**2 - mu * weights @ mean_log_between(d, radii[:, None], radii) @ weights
        mean_potential = 2.0 * energy - weights @ radii**2
        excess = max(0.0, mean_potential - _least_potential(d, mu, radii, weights))  # zero at the minimiser
        bound = max(bound, energy - excess)
        if excess < 1e-9 * abs(energy) or grid.size > 150:
            break
        try:
            weights = _radial_weights(d, mu, grid)
        except RuntimeError:  # too many iterations: the bound so far stands
            break
        kept = weights > 1e-7
        radii, weights = grid[kept], weights[kept] / np.sum(weights[kept])
        grid = np.unique(np.abs(radii[:, None] + spacing * np.linspace(-1.0, 1.0, 9)))
        spacing /= 8.0
    return float(bound)


def _least_potential(dim: Floats, mu: float, radii: Floats, weights: Floats) -> float:
    """A lower bound of V(r) over all r >= 0: cells are bisected until theirs are within 1e-11 of the least value."""

    def potential(r: Floats) -> Floats:
        return np.asarray(r**2 - 2.0 * mu * mean_log_between(dim, r[:, None], radii) @ weights)

    # Outside this radius V increases with r, and its second derivative is at most this: docs/minimizer.md.
    r = np.linspace(0.0, max(2.0 * np.max(radii), 2.0 * np.sqrt(3.0 * mu)), 501)
    curvature = 2.0 + 0.5 * mu
    left, right = np.stack([r[:-1], potential(r[:-1])]), np.stack([r[1:], potential(r[1:])])
    least, bound = np.inf, np.inf
    while left.size:
        least = min(least, np.min(left[1]), np.min(right[1]))
        # Between the ends of a cell V lies above its chord, less what the curvature allows.
        below = np.minimum(left[1], right[1]) - curvature * (right[0] - left[0]) ** 2 / 8.0
        split = below < least - 1e-11 * (abs(least) + mu)
        if np.count_nonzero(split) > 4000:  # a nearly flat potential: what the cells allow is still a bound
            split[:] = False
        bound = min(bound, np.min(below[~split], initial=np.inf))
        left, right = left[:, split], right[:, split]
        centre = 0.5 * (left[0] + right[0])
        middle = np.stack([centre, potential(centre)])
        left, right = np.concatenate([left, middle], axis=1), np.concatenate([middle, right], axis=1)
    return float(bound)


def _radial_weights(dim: Floats, mu: float, radii: Floats) -> Floats:
    """The weights w >= 0, sum(w) = 1, of spheres of these radii that minimise w.r^2 - mu w.log.w."""
    log = mean_log_between(dim, radii[:, None], radii)
    # -log is positive definite on vectors of sum 0. This matrix is so on all vectors, and as sum(w) = 1 the change
    # is in the linear term: the energy becomes a sum of squares.
    centre = mean_log_between(dim, radii, np.zeros(()))
    positive = mu * (centre[:, None] + centre - log)
    factor = scipy.linalg.cholesky(positive + 1e-12 * np.max(positive) * np.eye(radii.size), lower=True)
    target = scipy.linalg.solve_triangular(factor, mu * centre - 0.5 * radii**2, lower=True)
    unit = 1e4 * np.max(factor)  # so heavy that sum(w) = 1 holds
    weights, _ = scipy.optimize.nnls(np.vstack([factor.T, np.full(radii.size, unit)]), np.append(target, unit))
    return weights / np.sum(weights)
