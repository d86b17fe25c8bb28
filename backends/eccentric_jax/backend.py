"""The backend of JAX: its namespace, the loop, and derivatives of any order."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from eccentric_core import LearnedProjection
from eccentric_core.backend import Namespace, TracedBackend
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pushed_forward

if TYPE_CHECKING:
    from collections.abc import Callable

# The matrix is what transforms see, and an optimiser's or a checkpoint's tree may hold.
jax.tree_util.register_dataclass(LearnedProjection, data_fields=["matrix"], meta_fields=["rule"])


class _JaxBackend(TracedBackend):
    def refusal(self, array: Any) -> str | None:
        return None if isinstance(array, jax.Array) else f"{type(array).__name__}; give a jax.Array"

    def beside(self, values: Any, like: jax.Array) -> jax.Array:
        return jnp.asarray(values, compute_dtype(like, "z"))

    def run(self, formula: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        # Compiled, so that a call outside of jit is one as well.
        return _compiled(formula, tuple(static))(self, *arrays, **static)

    def registered(self, call: Call, *tensors: jax.Array) -> jax.Array:
        return _value(call, *tensors)

    def constant(self, x: Any) -> Any:
        return lax.stop_gradient(x)

    def gather(self, x: jax.Array, group: Any) -> jax.Array:
        # The index of a device varies wherever JAX keeps track of that.
        if _varies(lax.axis_index(group), group) and not _varies(x, group):
            raise ValueError(
                f"z must be spread over the axis {group!r}, got the same rows on every device, which would count "
                f"{lax.axis_size(group)} times; give its in_specs, or leave axis_name out"
            )
        return lax.all_gather(x, group, axis=-2, tiled=True)

    def total(self, value: jax.Array, group: Any) -> jax.Array:
        return lax.psum(value, group)

    def normal(self, like: jax.Array, rng: jax.Array | None) -> Callable[[tuple[int, ...]], jax.Array]:
        dtype, draws = compute_dtype(like, "w"), 0

        def draw(shape: tuple[int, ...]) -> jax.Array:
            nonlocal draws
            if rng is None:
                raise ValueError("rng must be a key for a projection that is drawn, got None; split one for every step")
            draws += 1
            return jax.random.normal(jax.random.fold_in(rng, draws), shape, dtype)

        return draw

    def has_float64(self, x: jax.Array) -> bool:  # noqa: ARG002
        return bool(jax.config.jax_enable_x64)

    def on_cpu(self, x: jax.Array) -> bool:  # noqa: ARG002
        return jax.default_backend() == "cpu"  # a tracer knows no device

    def rows(self, x: jax.Array) -> Any:
        rows = x.shape[-2]
        return rows if isinstance(rows, int) else jnp.asarray(rows, x.dtype)  # a symbol of an exported program

    def take(self, blocks: jax.Array, i: Any) -> jax.Array:
        return lax.dynamic_index_in_dim(blocks, i, keepdims=False)

    def add(self, sums: jax.Array, i: Any, value: jax.Array) -> jax.Array:
        return sums.at[i].add(value)

    def repeat(self, count: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        if count < 2:
            return body(0, carry) if count else carry
        # Where the loop is transposed (reverse over reverse), a tile is computed anew and not kept.
        return lax.fori_loop(0, count, jax.checkpoint(body, prevent_cse=False), carry)


BACKEND = _JaxBackend(
    Namespace(
        jnp,
        clamp=jnp.maximum,
        diagonal=partial(jnp.diagonal, axis1=-2, axis2=-1),
        clamp_at_zero=lambda t: jnp.maximum(t, 0.0),
        # By default accelerators multiply in bfloat16 or TF32, which ruins differences of distances.
        matmul=partial(jnp.matmul, precision=lax.Precision.HIGHEST),
    )
)


def _varies(x: jax.Array, axis: Any) -> bool:
    """Whether JAX knows that devices along an axis have different values of x."""
    kind = jax.typeof(x)
    return axis in (kind.mat.varying if hasattr(kind, "mat") else getattr(kind, "vma", ()))


@lru_cache(maxsize=256)
def _compiled(formula: Callable[..., Any], static: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(formula, static_argnums=0, static_argnames=static)


def _mapped(method: Callable[..., Any], *tensors: jax.Array) -> Any:
    """The method of a call, whose tensors have another leading axis where `jax.vmap` maps it: its tiles are smaller."""

    @custom_vmap
    def function(*tensors: jax.Array) -> Any:
        return method(BACKEND, *tensors)

    @function.def_vmap
    def _(size: int, mapped: Any, *tensors: jax.Array) -> Any:
        pairs = zip(mapped, tensors, strict=True)
        result = _mapped(method, *(t if is_mapped else jnp.broadcast_to(t, (size, *t.shape)) for is_mapped, t in pairs))
        return result, jax.tree.map(lambda _: True, result)

    return function(*tensors)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(call: Call, *tensors: jax.Array) -> jax.Array:
    return _mapped(call.value, *tensors)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradients(call: Call, *tensors: jax.Array) -> list[jax.Array]:
    return _mapped(call.value_and_gradients, *tensors)


def _value_jvp(call: Call, tensors: Any, tangents: Any) -> Any:
    value, *gradients = _value_and_gradients(call, *tensors)
    return value, pushed_forward(value, gradients, _directions(tangents), jnp)


def _value_and_gradients_jvp(call: Call, tensors: Any, tangents: Any) -> Any:
    (value, *gradients), directions = _value_and_gradients(call, *tensors), _directions(tangents)
    change = pushed_forward(value, gradients, directions, jnp)
    return [value, *gradients], [change, *call.hvp(BACKEND, tensors, directions)]


_value.defjvp(_value_jvp, symbolic_zeros=True)
_value_and_gradients.defjvp(_value_and_gradients_jvp, symbolic_zeros=True)


def _directions(tangents: Any) -> list[Any]:
    return [None if isinstance(u, SymbolicZero) else u for u in tangents]
