"""The backend of MLX: its namespace and derivatives of any order. `eccentric_core` finds it from an array of MLX.

What MLX lacks: float64 on its GPUs (few rows and a large mu are computed in float32 there), an exponential of float64
with more than seven digits (made of others here), and a loop on the device: a graph that `mx.compile` traces grows with
the number of tiles.

>>> import mlx.core as mx
>>> from eccentric_core import eccentric_loss
>>> z = mx.random.normal((100, 8), key=mx.random.key(0))
>>> loss, grad = mx.value_and_grad(eccentric_loss)(z)
>>> grad.shape
(100, 8)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx

from eccentric_core.backend import Backend, Namespace
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pulled_back, pushed_forward

if TYPE_CHECKING:
    from collections.abc import Callable


class _MlxBackend(Backend):
    def refusal(self, array: Any) -> str | None:
        return None if isinstance(array, mx.array) else f"{type(array).__name__}; give an mlx.core.array"

    def beside(self, values: Any, like: mx.array) -> mx.array:
        return mx.array(values, getattr(mx, compute_dtype(like, "z")))

    def run(self, formula: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        return formula(self, *arrays, **static)

    def registered(self, call: Call, *tensors: mx.array) -> mx.array:
        @mx.custom_function
        def value(*tensors: mx.array) -> mx.array:
            return call.value(self, *tensors)

        @mx.custom_function
        def gradients(*tensors: mx.array) -> list[mx.array]:
            return call.value_and_gradients(self, *tensors)[1:]

        @value.vjp
        def _(tensors: Any, cotangent: mx.array, _: Any) -> Any:
            return _packed(pulled_back(cotangent, gradients(*_listed(tensors))))

        @value.jvp
        def _(tensors: Any, directions: Any) -> mx.array:
            tensors = _listed(tensors)
            return pushed_forward(value(*tensors), gradients(*tensors), _listed(directions), mx)

        @gradients.vjp
        def _(tensors: Any, cotangents: Any, _: Any) -> Any:
            return _packed(call.hvp(self, _listed(tensors), _listed(cotangents)))  # the Hessian is its own transpose

        @gradients.jvp
        def _(tensors: Any, directions: Any) -> list[mx.array]:
            return call.hvp(self, _listed(tensors), _listed(directions))

        return value(*tensors)

    def constant(self, x: Any) -> Any:
        return mx.stop_gradient(x) if isinstance(x, mx.array) else x

    def normal(self, like: mx.array, rng: mx.array | None) -> Callable[[tuple[int, ...]], mx.array]:
        dtype, keys = getattr(mx, compute_dtype(like, "w")), [rng]

        def draw(shape: tuple[int, ...]) -> mx.array:
            key = None
            if keys[0] is not None:
                keys[0], key = mx.random.split(keys[0])
            return mx.random.normal(shape, dtype=mx.float32, key=key).astype(dtype)

        return draw

    def has_float64(self, x: mx.array) -> bool:
        return self.on_cpu(x)

    def on_cpu(self, x: mx.array) -> bool:  # noqa: ARG002
        return mx.default_device().type == mx.cpu


def _exp(x: mx.array) -> mx.array:
    if x.dtype != mx.float64:
        return mx.exp(x)
    # MLX computes it to seven digits alone.
    large = mx.sinh(mx.abs(x)) + mx.cosh(x)
    return mx.where(x < 0, mx.reciprocal(large), large)


BACKEND = _MlxBackend(
    Namespace(
        mx,
        astype=lambda x, dtype, copy=True: x.astype(dtype),  # noqa: ARG005
        clamp=mx.maximum,
        clamp_at_zero=lambda x: mx.maximum(x, 0.0),
        diagonal=lambda t: mx.diagonal(t, axis1=-2, axis2=-1),
        exp=_exp,
        # MLX adds numbers up one by one on a CPU: first along one axis.
        total=lambda x: mx.sum(mx.sum(x, axis=-1), axis=-1),
        zero_diagonal=lambda x: mx.where(mx.eye(x.shape[-1], dtype=mx.bool_), mx.zeros_like(x), x),
    )
)


def _listed(tensors: Any) -> list[mx.array]:
    return [tensors] if isinstance(tensors, mx.array) else list(tensors)


def _packed(gradients: list[mx.array]) -> Any:
    return gradients[0] if len(gradients) == 1 else tuple(gradients)
