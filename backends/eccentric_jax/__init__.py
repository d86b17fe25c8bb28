"""Eccentric regularization for JAX: a pure function under jit, grad, jvp, vmap, hessian and scan.

eccentric_loss    the loss of a batch of latent vectors
pair_sum          the sum over pairs that it is made of, for any kernel of `eccentric_core`

inverse_multiquadric_mmd    the discrepancy between a batch and a sample of a prior, that of WAE-MMD

hyperspherical_energy       the energy of directions, of MHE, for weights and features; uniformity
compressive_energy          the energy of projected neurons, of CoMHE; init_projection, update_projection
hyperspherical_penalty      what MHE or CoMHE adds to the loss of a network, over a pytree; init_projections,
                            update_projections

Nothing is configured at import: float64 is there where the caller has enabled it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from jax import lax

from eccentric_core.checks import compute_dtype
from eccentric_core.energies.discrepancy import SCALES, discrepancy, mixture
from eccentric_core.energies.eccentric import eccentric_energy
from eccentric_core.engine.pairs import PairSum, check_sets
from eccentric_jax._engine import DRIVER, value
from eccentric_jax._hyperspherical import (
    compressive_energy,
    hyperspherical_energy,
    hyperspherical_penalty,
    init_projection,
    init_projections,
    uniformity,
    update_projection,
    update_projections,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from eccentric_core import PairKernel

__all__ = [
    "compressive_energy",
    "eccentric_loss",
    "hyperspherical_energy",
    "hyperspherical_penalty",
    "init_projection",
    "init_projections",
    "inverse_multiquadric_mmd",
    "pair_sum",
    "uniformity",
    "update_projection",
    "update_projections",
]


def eccentric_loss(
    z: jax.Array, mu: float = 1.0, *, scale: Any = "paper", axis_name: Hashable | None = None
) -> jax.Array:
    """The eccentric loss of a batch of latent vectors, `eccentric_core.eccentric_loss` for JAX.

    Args:
        z: latent vectors of shape (..., n, d), real floating; leading axes are separate batches.
        mu: the parameter mu > 1/2, a Python number.
        scale: "paper", "exact", or M itself, a Python number.
        axis_name: the axis of `jax.shard_map` over which the rows of a batch are spread: every device then has the
            loss, and its rows their gradient, of the whole batch. (Under pmap, vmap or check_vma=False take the
            gradient outside of the mapped function: inside, JAX adds up the cotangents of all devices.)

    Returns:
        An array of shape (...): float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    # Of a batch that is spread over devices one row may be here.
    energy = eccentric_energy(z, mu, scale, DRIVER, min_rows=2 if axis_name is None else 1)
    z = z.astype(compute_dtype(z, "z"))
    if axis_name is None:
        return value(energy, (z,))
    everyone = lax.all_gather(z, axis_name, axis=-2, tiled=True)
    return lax.psum(energy.combined(z, value(energy.pairs, (z, everyone)), everyone.shape[-2]), axis_name)


def pair_sum(x: jax.Array, y: jax.Array | None = None, *, kernel: PairKernel, wide: bool = False) -> jax.Array:
    """The sum over pairs of phi(|x_i - y_j|^2 / h), `eccentric_core.pair_sum` for JAX, with its derivatives.

    Args:
        x, y: rows of shapes (..., n, d) and (..., m, d), or y None for the pairs of x.
        kernel: phi with its derivatives and h; hashable.
        wide: keep the sums that make the gradients in float64 where that is enabled.

    Returns:
        An array of shape (...): float64 for float64, otherwise float32.
    """
    sets = (x,) if y is None else (x, y)
    check_sets(sets, kernel)
    return value(PairSum(kernel, DRIVER, None, wide), tuple(rows.astype(compute_dtype(rows, "x")) for rows in sets))


def inverse_multiquadric_mmd(
    z: jax.Array, prior: jax.Array, *, scales: Sequence[float] = SCALES, prior_variance: float = 1.0
) -> jax.Array:
    """The discrepancy of WAE-MMD, `eccentric_core.inverse_multiquadric_mmd` for JAX, with its derivatives.

    Args:
        z, prior: rows of shapes (..., n, d) and (..., m, d), n and m >= 2.
        scales: positive Python numbers.
        prior_variance: of one coordinate of the prior, a Python number.

    Returns:
        An array of shape (...): float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    kernel = mixture((z, prior), scales, prior_variance)
    return discrepancy(z, prior, partial(pair_sum, kernel=kernel, wide=True), DRIVER)
