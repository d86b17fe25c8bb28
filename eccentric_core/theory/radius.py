"""The radius of the stationary sphere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eccentric_core.checks import batch_size_array, dim_array, mu_array
from eccentric_core.theory.scale import resolve_scale
from eccentric_core.theory.sphere import solve_theorem1

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eccentric_core.checks import Floats, Scale


def stationary_radius(
    dim: ArrayLike,
    mu: ArrayLike = 1.0,
    *,
    scale: Scale | ArrayLike = "paper",
    batch_size: ArrayLike | None = None,
) -> np.float64 | Floats:
    """The radius rho at which the uniform distribution on a sphere is stationary for the loss (Theorem 1).

    It is the root of 2 mu F(d, x) = 1, where x = 4 rho^2 / M and F(d, x) = 2F1(1, (d+1)/2; d; -x) is half the left
    side of the theorem, and the only one.

    The paper's theorem is about infinitely many items. A batch of n leaves the pairs of an item with itself out of
    its mean: it is the same loss with mu n/(n-1) in the place of mu and the same M, and its sphere is a little
    larger. batch_size asks for that one.

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts against dim.
        scale: "paper", "exact", or M itself (a positive number, or an array that broadcasts).
        batch_size: None for infinitely many items, or the batch size n >= 2; any shape that broadcasts.

    Returns:
        rho in the units of the latents, float64, of the broadcast shape. Within 1e-14 (relative) of the true root
        for d up to 1,000,000 and mu from 0.5001 to 100,000.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Whether the sphere is also the minimum is another question: see `sphere_is_minimizer`.

    >>> float(stationary_radius(64))
    7.999886776744891
    >>> print(stationary_radius([2, 64], mu=[[1.0], [5.0]]).round(4))
    [[1.4689 7.9999]
     [1.354  7.9998]]
    """
    d, m = dim_array(dim), mu_array(mu)
    return np.sqrt(solve_theorem1(d, batch_excess(m, batch_size)) * resolve_scale(d, m, scale) / 4.0)[()]


def batch_excess(mu: Floats, batch_size: ArrayLike | None) -> Floats:
    """2 mu' - 1 without cancellation, where mu' = mu n/(n-1) for a batch of n and mu for an infinite one."""
    excess = 2.0 * mu - 1.0
    return excess if batch_size is None else excess + 2.0 * mu / (batch_size_array(batch_size) - 1.0)
