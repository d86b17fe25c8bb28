"""The backend of TensorFlow: its namespace, the loop, and derivatives for tapes, tf.function and XLA."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from eccentric_core.backend import Namespace, TracedBackend
from eccentric_core.checks import compute_dtype
from eccentric_core.engine.precision import full_product
from eccentric_tensorflow import eager

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.derivatives import Call


def _matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    # GPUs multiply float32 in TF32 unless that is switched off.
    if a.dtype == tf.float32 and tf.config.experimental.tensor_float_32_execution_enabled() and _has_gpu():
        return full_product(tf.matmul, a, b, BACKEND.xp, parts=2)
    return tf.matmul(a, b)


def _total(x: tf.Tensor) -> tf.Tensor:
    # XLA makes one sum of two, and adds a million numbers up one by one; of a product it can't.
    return tf.reduce_sum(_matmul(x, tf.ones((_size(x, -1), 1), x.dtype)), (-2, -1))


def _size(x: tf.Tensor, axis: int) -> Any:
    """The size of x along an axis, which may be known to the running graph alone."""
    return tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]


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
        if tf.executing_eagerly() and len(arrays[0].shape) == 2:
            return eager.run(self, formula, [tf.convert_to_tensor(arrays[0]), *arrays[1:]], static)
        return formula(self, *arrays, **static)

    def registered(self, call: Call, *tensors: tf.Tensor) -> tf.Tensor:
        def hvp(*both: tf.Tensor) -> list[tf.Tensor]:
            return call.hvp(self, both[: len(tensors)], both[len(tensors) :])

        return eager.differentiated(partial(call.value_and_gradients, self), hvp)(*tensors)

    def constant(self, x: Any) -> Any:
        return tf.stop_gradient(x)

    def normal(self, like: tf.Tensor, rng: tf.random.Generator | None) -> Callable[[tuple[int, ...]], tf.Tensor]:
        draw = tf.random.normal if rng is None else rng.normal
        return lambda shape: draw(shape, dtype=compute_dtype(like, "w"))

    def shape(self, x: tf.Tensor) -> tuple[Any, ...]:
        return tuple(_size(x, axis) for axis in range(len(x.shape)))

    def rows(self, x: tf.Tensor) -> Any:
        rows = _size(x, -2)
        return rows if isinstance(rows, int) else tf.cast(rows, x.dtype)

    def minimum(self, a: Any, b: Any) -> Any:
        return min(a, b) if isinstance(b, int) else tf.minimum(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return max(a, b) if isinstance(b, int) else tf.maximum(a, b)

    def has_float64(self, x: tf.Tensor) -> bool:  # noqa: ARG002
        return True

    def on_cpu(self, x: tf.Tensor) -> bool:
        return "GPU" not in x.device if x.device else not _has_gpu()  # a tensor of a graph has no device yet

    def dense_rows(self, x: tf.Tensor, *, in_place: bool) -> int:  # noqa: ARG002
        # A graph adds a row or a column to a matrix slowly. Tiles have both in the product: cheap where rows are short.
        short = x.shape[-1] is not None and x.shape[-1] < 32
        return min(512, self.tile_rows(x)) if short else self.tile_rows(x)

    def blocks(self, array: tf.Tensor, axis: int, start: Any, count: Any, size: Any) -> Any:
        if not isinstance(size, int):  # a batch without rows has one of zeros, so that there is a block
            paddings = [[0, 0]] * (len(array.shape) - 1)
            paddings.insert(axis % len(array.shape), [0, 1 - tf.minimum(1, tf.shape(array)[axis])])
            array = tf.pad(array, paddings)
        return super().blocks(array, axis, start, count, size)

    def take(self, blocks: tf.Tensor, i: Any) -> tf.Tensor:
        return tf.gather(blocks, i)

    def add(self, sums: tf.Tensor, i: Any, value: tf.Tensor) -> tf.Tensor:
        return tf.tensor_scatter_nd_add(sums, [[i]], tf.expand_dims(value, 0))

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
        diagonal=tf.linalg.diag_part,
        concat=lambda parts, axis: tf.concat(parts, axis),
        float32=tf.float32,
        float64=tf.float64,
        isfinite=tf.math.is_finite,
        matmul=_matmul,
        matrix_transpose=tf.linalg.matrix_transpose,
        mean=lambda x, axis, keepdims=False: tf.reduce_mean(x, axis, keepdims),
        moveaxis=tf.experimental.numpy.moveaxis,
        ones_like=tf.ones_like,
        reshape=tf.reshape,
        stack=tf.stack,
        sum=lambda x, axis, keepdims=False: tf.reduce_sum(x, axis, keepdims),
        take=lambda x, indices, axis: tf.gather(x, indices, axis=axis),
        total=_total,
        where=tf.where,
        zero_diagonal=lambda x: tf.linalg.set_diag(x, tf.zeros(tf.shape(x)[:-1], x.dtype)),
        zeros_like=tf.zeros_like,
    )
)
