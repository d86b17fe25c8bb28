"""The backend of TensorFlow: its namespace, the loop, and derivatives for tapes, tf.function and XLA."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from eccentric_core.backend import Namespace, TracedBackend
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pulled_back
from eccentric_core.engine.precision import FEW_ROWS, full_product

if TYPE_CHECKING:
    from collections.abc import Callable


def _moveaxis(x: tf.Tensor, source: int, target: int) -> tf.Tensor:
    order = list(range(len(x.shape)))
    axis = order.pop(source)
    order.insert(target % len(x.shape), axis)
    return tf.transpose(x, order)


def _matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    # GPUs multiply float32 in TF32 unless that is switched off.
    if a.dtype == tf.float32 and tf.config.experimental.tensor_float_32_execution_enabled() and _has_gpu():
        return full_product(tf.matmul, a, b, BACKEND.xp, parts=2)
    return tf.matmul(a, b)


def _sum(x: tf.Tensor, axis: Any, keepdims: bool = False) -> tf.Tensor:
    if axis != (-2, -1):
        return tf.reduce_sum(x, axis, keepdims)
    # XLA makes one sum of two and adds a million numbers up one by one; of differences from a mean it can't.
    rows = tf.reduce_sum(x, -1)
    mean = tf.reduce_mean(rows, -1, keepdims=True)
    mean = tf.where(tf.math.is_finite(mean), mean, tf.zeros_like(mean))  # inf minus inf would be NaN
    return tf.reduce_sum(rows - mean, -1) + mean[..., 0] * tf.cast(tf.shape(rows)[-1], x.dtype)


@cache
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


class _TensorFlowBackend(TracedBackend):
    def refusal(self, array: Any) -> str | None:
        if not isinstance(array, tf.Tensor | tf.Variable):
            return f"{type(array).__name__}; give a tf.Tensor"
        return "a tensor of unknown rank; set its shape" if array.shape.rank is None else None

    def beside(self, values: Any, like: tf.Tensor) -> tf.Tensor:
        dtype = compute_dtype(like, "z")
        return tf.cast(values, dtype) if isinstance(values, tf.Tensor | tf.Variable) else tf.constant(values, dtype)

    @tf.autograph.experimental.do_not_convert  # it holds no control flow for the graph
    def run(self, formula: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        if not tf.executing_eagerly() or len(arrays[0].shape) != 2:
            return formula(self, *arrays, **static)
        return _eager(formula, static, [tf.convert_to_tensor(arrays[0]), *arrays[1:]])

    def registered(self, call: Call, *tensors: tf.Tensor) -> tf.Tensor:
        return _with_derivatives(
            partial(call.value_and_gradients, self),
            lambda *both: call.hvp(self, both[: len(tensors)], both[len(tensors) :]),
        )(*tensors)

    def constant(self, x: Any) -> Any:
        return tf.stop_gradient(x)

    def normal(self, like: tf.Tensor, rng: tf.random.Generator | None) -> Callable[[tuple[int, ...]], tf.Tensor]:
        draw = tf.random.normal if rng is None else rng.normal
        return lambda shape: draw(shape, dtype=compute_dtype(like, "w"))

    def shape(self, x: tf.Tensor) -> tuple[Any, ...]:
        later = tf.shape(x)
        return tuple(later[axis] if size is None else size for axis, size in enumerate(x.shape))

    def rows(self, x: tf.Tensor) -> Any:
        return tf.cast(self.shape(x)[-2], x.dtype)

    def minimum(self, a: Any, b: Any) -> Any:
        return min(a, b) if isinstance(b, int) else tf.minimum(a, b)

    def has_float64(self, x: tf.Tensor) -> bool:  # noqa: ARG002
        return True

    def on_cpu(self, x: tf.Tensor) -> bool:
        return "GPU" not in x.device if x.device else not _has_gpu()  # a tensor of a graph has no device yet

    def take(self, blocks: tf.Tensor, i: Any) -> tf.Tensor:
        return tf.gather(blocks, i)

    def add(self, sums: tf.Tensor, i: Any, value: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_add(sums, [[i]], value[None])

    def repeat(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        if isinstance(count, int) and count < 2:
            return body(0, carry) if count else carry
        return tf.while_loop(lambda i, _: i < count, lambda i, carry: (i + 1, body(i, carry)), (0, carry))[1]


BACKEND = _TensorFlowBackend(
    Namespace(
        tf.math,
        arange=tf.range,
        argsort=tf.argsort,
        asarray=tf.convert_to_tensor,
        astype=lambda x, dtype, copy=True: tf.cast(x, dtype),  # noqa: ARG005
        clamp=lambda x, lower: tf.maximum(x, tf.constant(lower, x.dtype)),
        clamp_at_zero=lambda x: tf.maximum(x, tf.constant(0.0, x.dtype)),
        concat=lambda parts, axis: tf.concat(parts, axis),
        float32=tf.float32,
        float64=tf.float64,
        isfinite=tf.math.is_finite,
        matmul=_matmul,
        matrix_transpose=tf.linalg.matrix_transpose,
        mean=lambda x, axis, keepdims=False: tf.reduce_mean(x, axis, keepdims),
        moveaxis=_moveaxis,
        ones_like=tf.ones_like,
        reshape=tf.reshape,
        stack=tf.stack,
        sum=_sum,
        take=lambda x, indices, axis: tf.gather(x, indices, axis=axis),
        where=tf.where,
        zero_diagonal=lambda x: tf.linalg.set_diag(x, tf.zeros(tf.shape(x)[:-1], x.dtype)),
        zeros_like=tf.zeros_like,
    )
)


def _with_derivatives(value_and_gradients: Callable[..., Any], hvp: Callable[..., Any]) -> Callable[..., tf.Tensor]:
    """A function of tensors with its first two derivatives."""

    @tf.custom_gradient
    def value(*tensors: tf.Tensor) -> Any:
        # No tape need follow how the derivatives are made.
        result, *gradients = value_and_gradients(*map(tf.stop_gradient, tensors))

        @tf.custom_gradient
        def gradients_of(*tensors: tf.Tensor) -> Any:
            return gradients, lambda *directions: hvp(*tensors, *directions)

        return result, lambda cotangent: pulled_back(cotangent, gradients_of(*tensors))

    return value


def _eager(formula: Callable[..., Any], static: dict[str, Any], arrays: list[Any]) -> Any:
    """A formula as one graph, as eager operations are slow, and loops of them more so.

    There is one for all numbers of rows but the small ones, which are computed otherwise; numbers are its arguments.
    """
    present = tuple(k for k, a in enumerate(arrays) if isinstance(a, tf.Tensor | tf.Variable))
    few = tuple(min(arrays[k].shape[-2], FEW_ROWS + 1) for k in present if len(arrays[k].shape) > 1)
    rest = [None if a is None or k in present else BACKEND.beside(a, arrays[0]) for k, a in enumerate(arrays)]
    graph = _graph(formula, tuple(static.items()), present, few)

    def placed(tensors: Any) -> list[Any]:
        found = dict(zip(present, tensors, strict=True))
        return [found.get(k, other) for k, other in enumerate(rest)]

    def hvp(*both: tf.Tensor) -> Any:
        tensors, directions = both[: len(present)], both[len(present) :]
        with tf.GradientTape() as outer:
            outer.watch(tensors)
            with tf.GradientTape() as inner:
                inner.watch(tensors)
                value = formula(BACKEND, *placed(tensors), **static)
            gradients = inner.gradient(value, tensors)
        return outer.gradient(gradients, tensors, output_gradients=directions)

    tensors = [arrays[k] for k in present]
    if formula.__annotations__.get("return", "").startswith("tuple"):
        return graph(*placed(tensors))
    return _with_derivatives(lambda *tensors: graph(*placed(tensors)), hvp)(*tensors)


@lru_cache(maxsize=256)
def _graph(formula: Callable[..., Any], static: Any, present: tuple[int, ...], *_: Any) -> Callable[..., Any]:
    def value_and_gradients(*arrays: Any) -> Any:
        tensors = [arrays[k] for k in present]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = formula(BACKEND, *arrays, **dict(static))
        return value if isinstance(value, tuple) else (value, *tape.gradient(value, tensors))

    return tf.function(value_and_gradients, autograph=False, reduce_retracing=True)
