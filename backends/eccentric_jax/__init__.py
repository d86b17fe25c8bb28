"""Eccentric regularization for JAX: a pure function under jit, grad, jvp, vmap, hessian and scan.

eccentric_loss    the loss of a batch of latent vectors
pair_sum          the sum over pairs that it is made of, for any kernel of `eccentric_core`

inverse_multiquadric_mmd    the discrepancy between a batch and a sample of a prior, that of WAE-MMD

Nothing is configured at import: float64 is there where the caller has enabled it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from eccentric_core._checks import compute_dtype
from eccentric_core.discrepancy import SCALES, discrepancy, mixture
from eccentric_core.loss import eccentric_energy
from eccentric_core.pairs import PairSum, check_sets
from eccentric_core.sweep import Namespace, TracedDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from eccentric_core import PairKernel
    from eccentric_core.pairs import Energy

__all__ = ["eccentric_loss", "inverse_multiquadric_mmd", "pair_sum"]

# By default accelerators multiply in bfloat16 or TF32, which ruins differences of distances.
_XP = Namespace(jnp, matmul=partial(jnp.matmul, precision=lax.Precision.HIGHEST))


class _Driver(TracedDriver):
    def has_float64(self, x: jax.Array) -> bool:  # noqa: ARG002
        return bool(jax.config.jax_enable_x64)

    def on_cpu(self, x: jax.Array) -> bool:  # noqa: ARG002
        return jax.default_backend() == "cpu"  # a tracer knows no device

    def take(self, blocks: jax.Array, i: Any) -> jax.Array:
        return lax.dynamic_index_in_dim(blocks, i, keepdims=False)

    def add(self, sums: jax.Array, i: Any, value: jax.Array) -> jax.Array:
        return sums.at[i].add(value)

    def repeat(self, count: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        if count < 2:
            return body(0, carry) if count else carry
        # Where the loop is transposed (reverse over reverse), a tile is computed anew and not kept.
        return lax.fori_loop(0, count, jax.checkpoint(body, prevent_cse=False), carry)


_DRIVER = _Driver(_XP)


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
    energy = eccentric_energy(z, mu, scale, _DRIVER, min_rows=2 if axis_name is None else 1)
    z = z.astype(compute_dtype(z, "z"))
    if axis_name is None:
        return _value(energy, (z,))
    everyone = lax.all_gather(z, axis_name, axis=-2, tiled=True)
    return lax.psum(energy.combined(z, _value(energy.pairs, (z, everyone)), everyone.shape[-2]), axis_name)


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
    return _value(PairSum(kernel, _DRIVER, None, wide), tuple(rows.astype(compute_dtype(rows, "x")) for rows in sets))


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
    return discrepancy(z, prior, partial(pair_sum, kernel=kernel, wide=True), _DRIVER)


# Compiled, so that a call outside of jit is one as well.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0)
def _value(energy: Energy, sets: tuple[jax.Array, ...]) -> jax.Array:
    return energy.value(*sets)


@_value.defjvp
def _(energy: Energy, primals: Any, tangents: Any) -> Any:
    value, *gradients = _value_and_gradients(energy, *primals)
    return value, _along(gradients, *tangents)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0)
def _value_and_gradients(energy: Energy, sets: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return energy.value_and_gradients(*sets)


@_value_and_gradients.defjvp
def _(energy: Energy, primals: Any, tangents: Any) -> Any:
    (sets,), (directions,) = primals, tangents
    result = _value_and_gradients(energy, sets)
    return result, (_along(result[1:], directions), *_hvp(energy, sets, directions))


@partial(jax.jit, static_argnums=0)
def _hvp(energy: Energy, sets: Any, directions: Any) -> tuple[jax.Array, ...]:
    return energy.hvp(sets, directions)


def _along(gradients: Any, directions: Any) -> jax.Array:
    return sum(jnp.sum(g * u, axis=(-2, -1)) for g, u in zip(gradients, directions, strict=True))
