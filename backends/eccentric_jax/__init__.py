"""Eccentric regularization for JAX: the functions of `eccentric_core`, spread over devices and over networks.

Given arrays of JAX, these are pure functions under jit, grad, jvp, vmap, hessian and scan, to any order. Nothing is
configured at import: float64 is there where the caller has enabled it.

eccentric_loss, eccentric_loss_and_grad         the loss of a batch of latent vectors; axis_name= of `jax.shard_map`
pair_sum, pair_sum_and_grad, pair_sum_hvp       the sum over pairs that it is made of, for any kernel
hyperspherical_energy, uniformity               the energy of directions, of MHE, for weights and features
compressive_energy                              the energy of projected neurons, of CoMHE; init_projection,
                                                update_projection; a projection is a pytree
hyperspherical_penalty                          what MHE or CoMHE adds to the loss of a network, over a pytree;
                                                init_projections, update_projections
inverse_multiquadric_mmd                        the discrepancy between a batch and a sample of a prior, of WAE-MMD

>>> import jax
>>> z = jax.random.normal(jax.random.key(0), (100, 8))
>>> loss, grad = jax.jit(jax.value_and_grad(eccentric_loss))(z)
>>> print(f"{loss:.3f}", grad.shape)
-2.833 (100, 8)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import eccentric_core
import eccentric_jax.backend  # noqa: F401  registers projections as pytrees
from eccentric_core import energies, engine
from eccentric_core.energies import *  # noqa: F403
from eccentric_core.engine import *  # noqa: F403
from eccentric_jax.networks import hyperspherical_penalty, init_projections, update_projections

if TYPE_CHECKING:
    from collections.abc import Hashable

    import jax

__all__ = ["hyperspherical_penalty", "init_projections", "update_projections"]
__all__ += energies.__all__
__all__ += engine.__all__


def eccentric_loss(
    z: jax.Array, mu: Any = 1.0, *, scale: Any = "paper", axis_name: Hashable | None = None
) -> jax.Array:
    """`eccentric_core.eccentric_loss`, whose group is the name of an axis.

    Args:
        z, mu, scale: as there.
        axis_name: the axis of `jax.shard_map` over which the rows of a batch are spread: every device then has the
            loss, and its rows their gradient, of the whole batch. (Under pmap, vmap or check_vma=False take the
            gradient outside of the mapped function: inside, JAX adds up the cotangents of all devices.)

    Raises:
        TypeError, ValueError: an argument is not as described, or the same rows are on every device.
    """
    return eccentric_core.eccentric_loss(z, mu, scale=scale, group=axis_name)
