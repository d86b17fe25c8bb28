"""The scale M of the loss: the paper's formula, and the exact root."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eccentric_core.checks import dim_array, mu_array
from eccentric_core.theory.sphere import solve_theorem1, traced_root

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Array, Floats, Scale


def kernel_scale(
    dim: ArrayLike, mu: ArrayLike = 1.0, *, method: Literal["paper", "exact"] = "paper"
) -> np.float64 | Floats:
    """The scale M that puts the stationary sphere at a radius of sqrt(d), nearly or exactly.

    The paper's formula (method="paper", section 2 and appendix A.2) is

        M = 2 d (1 + 1/(2 mu (d-1))) / (2 mu - 1)

    and, for mu from 1 to 2d + 1, leaves rho up to 4.3 % off at d = 2 and within 0.1 % from d = 12 on; closer to 1/2 it
    is further off. method="exact" solves Theorem 1 for the M at which rho = sqrt(d).

    Args:
        dim: latent dimension d, whole numbers from 2 up; any shape.
        mu: the parameter mu > 1/2; any shape that broadcasts against dim.
        method: "paper" or "exact".

    Returns:
        M in the squared units of the latents, float64, of the broadcast shape.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> float(kernel_scale(64, 1.0))
    129.015873015873
    >>> print(kernel_scale(64, [1.0, 2.0, 64.5], method="exact").round(4))
    [129.0195  42.8388   1.0001]
    """
    if method not in ("paper", "exact"):
        raise ValueError(f'method must be "paper" or "exact", got {method!r}')
    d, m = dim_array(dim), mu_array(mu)
    excess = 2.0 * m - 1.0
    if method == "paper":
        scale: Floats = paper_scale(d, m)
        return scale[()]
    return (4.0 * d / solve_theorem1(d, excess))[()]


def paper_scale(dim: Any, mu: Any) -> Any:
    """The paper's formula, of numbers, arrays or tensors."""
    return 2.0 * dim * (1.0 + 1.0 / (2.0 * mu * (dim - 1.0))) / (2.0 * mu - 1.0)


def traced_scale(z: Array, mu: Any, method: str, backend: Backend) -> Array:
    """M for rows like z and a mu that may be a tensor, in operations of its framework, which differentiate it twice."""
    # A product, as PyTorch's compiler would make a constant of a number that it makes a tensor of.
    mu = backend.beside(1.0, z) * mu if isinstance(mu, float) else mu
    if method == "paper":
        return paper_scale(z.shape[-1], mu)
    return 4.0 * z.shape[-1] / traced_root(z.shape[-1], 2.0 * mu - 1.0, backend)


def check_scale(scale: object) -> None:
    """Check that scale is "paper", "exact", a positive number or, for the theory, an array of them."""
    if isinstance(scale, str):
        good = scale in ("paper", "exact")
    elif isinstance(scale, int | float):
        good = not isinstance(scale, bool) and 0 < scale <= sys.float_info.max
    elif scale is None:
        good = False
    else:
        values = np.asarray(scale)
        good = values.dtype.kind in "iuf" and bool(np.all((values > 0) & np.isfinite(values)))
    if not good:
        raise ValueError(
            f'scale must be "paper", "exact" or a positive finite number (the M of the paper), got {scale!r}; '
            f'use "paper" unless you know the M you want'
        )


def resolve_scale(dim: ArrayLike, mu: ArrayLike, scale: Scale | ArrayLike) -> np.float64 | Floats:
    """M for a scale argument: "paper", "exact", or positive numbers, which are M itself."""
    check_scale(scale)
    if isinstance(scale, str):
        return kernel_scale(dim, mu, method=scale)  # type: ignore[arg-type]  # checked
    return np.asarray(scale, dtype=np.float64)[()]


@lru_cache(maxsize=1024)
def cached_scale(dim: int, mu: float, scale: Scale) -> float:
    """`resolve_scale` for one dimension and one mu, remembered: a training loop asks the same at every step."""
    return float(resolve_scale(dim, mu, scale))
