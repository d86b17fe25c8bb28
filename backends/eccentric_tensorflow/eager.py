"""Derivatives for tapes, and what eager code runs: a formula as one graph, as eager operations are slow."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import pulled_back
from eccentric_core.engine.precision import FEW_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.backend import Backend


def differentiated(value_and_gradients: Callable[..., Any], hvp: Callable[..., Any]) -> Callable[..., tf.Tensor]:
    """A function of tensors to a value, with its first two derivatives."""

    @tf.custom_gradient
    def value(*tensors: tf.Tensor) -> Any:
        # No tape need follow how the derivatives are made.
        result, *gradients = value_and_gradients(*map(tf.stop_gradient, tensors))

        @tf.custom_gradient
        def gradients_of(*tensors: tf.Tensor) -> Any:
            return gradients, lambda *directions: hvp(*tensors, *directions)

        return result, lambda cotangent: pulled_back(cotangent, gradients_of(*tensors))

    return value


def run(backend: Backend, formula: Callable[..., Any], arrays: list[Any], static: dict[str, Any]) -> Any:
    """A formula of rows (n, d) as one graph, with derivatives with respect to its tensors.

    Each dimension has a graph for all numbers of rows, and one for each small one, which is computed otherwise. Numbers
    are arguments.
    """
    present = tuple(k for k, a in enumerate(arrays) if isinstance(a, tf.Tensor | tf.Variable))
    shapes = [tuple(arrays[k].shape) for k in present if len(arrays[k].shape) > 1]
    sizes = tuple((min(shape[-2], FEW_ROWS + 1), shape[-1]) for shape in shapes)
    rest = [None if a is None or k in present else backend.beside(a, arrays[0]) for k, a in enumerate(arrays)]
    graph = _graph(backend, formula, tuple(static.items()), present, sizes)

    def placed(tensors: Any) -> list[Any]:
        found = dict(zip(present, tensors, strict=True))
        return [found.get(k, other) for k, other in enumerate(rest)]

    def hvp(*both: tf.Tensor) -> Any:
        tensors, directions = both[: len(present)], both[len(present) :]
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                value = formula(backend, *placed(tensors), **static)
            gradients = inner.gradient(value, tensors)
        return outer.gradient(gradients, tensors, output_gradients=directions)

    tensors = [tf.convert_to_tensor(arrays[k]) for k in present]
    if formula.__annotations__["return"].startswith("tuple"):
        return graph(*placed(tensors))  # it has no derivatives
    # A cotangent has the dtype of the value.
    tensors = [tf.cast(t, compute_dtype(t, "z")) for t in tensors]
    return differentiated(lambda *tensors: graph(*placed(tensors)), hvp)(*tensors)


@lru_cache(maxsize=256)
def _graph(backend: Backend, formula: Callable[..., Any], static: Any, present: Any, _: Any) -> Callable[..., Any]:
    def value_and_gradients(*arrays: Any) -> Any:
        tensors = [arrays[k] for k in present]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = formula(backend, *arrays, **dict(static))
        return value if isinstance(value, tuple) else (value, *tape.gradient(value, tensors))

    return tf.function(value_and_gradients, autograph=False, reduce_retracing=True)
