"""The engine of `eccentric_core` in JAX: its namespace, the loop, and the derivatives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from eccentric_core.engine.sweep import Namespace, TracedDriver

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.engine.pairs import Energy

# By default accelerators multiply in bfloat16 or TF32, which ruins differences of distances.
XP = Namespace(jnp, matmul=partial(jnp.matmul, precision=lax.Precision.HIGHEST), at_least=jnp.maximum)


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


DRIVER = _Driver(XP)


# Compiled, so that a call outside of jit is one as well.
@partial(jax.custom_jvp, nondiff_argnums=(0,))
@partial(jax.jit, static_argnums=0)
def value(energy: Energy, sets: tuple[jax.Array, ...]) -> jax.Array:
    return energy.value(*sets)


@value.defjvp
def _(energy: Energy, primals: Any, tangents: Any) -> Any:
    result, *gradients = _value_and_gradients(energy, *primals)
    return result, _along(gradients, *tangents)


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
