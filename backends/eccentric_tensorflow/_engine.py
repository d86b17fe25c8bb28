"""The engine of `eccentric_core` in TensorFlow: a namespace, the loop, and the derivatives."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from eccentric_core.checks import compute_dtype
from eccentric_core.energies.discrepancy import SCALES, discrepancy, mixture
from eccentric_core.energies.eccentric import eccentric_energy
from eccentric_core.engine.pairs import FEW_ROWS, PairSum, check_sets
from eccentric_core.engine.sweep import Namespace, TracedDriver
from eccentric_core.engine.tiles import full_product

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core import PairKernel
    from eccentric_core.engine.pairs import Energy


def _moveaxis(x: tf.Tensor, source: int, target: int) -> tf.Tensor:
    order = list(range(len(x.shape)))
    axis = order.pop(source)
    order.insert(target % len(x.shape), axis)
    return tf.transpose(x, order)


def _matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    # GPUs multiply float32 in TF32 unless that is switched off.
    if a.dtype == tf.float32 and tf.config.experimental.tensor_float_32_execution_enabled() and _has_gpu():
        return full_product(tf.matmul, a, b, NAMESPACE, parts=2)
    return tf.matmul(a, b)


def _sum(x: tf.Tensor, axis: Any, keepdims: bool = False) -> tf.Tensor:
    if axis != (-2, -1):
        return tf.reduce_sum(x, axis, keepdims)
    # XLA makes one sum of two and adds a million numbers up one by one; of differences from a mean it can't.
    rows = tf.reduce_sum(x, -1)
    mean = tf.reduce_mean(rows, -1)
    return tf.reduce_sum(rows - mean[..., None], -1) + mean * tf.cast(tf.shape(rows)[-1], x.dtype)


@cache
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


# What is named or called otherwise in TensorFlow; kernels find the rest in tf.math.
NAMESPACE = Namespace(
    tf.math,
    argsort=tf.argsort,
    astype=lambda x, dtype, copy=True: tf.cast(x, dtype),  # noqa: ARG005
    at_least=lambda x, lower: tf.maximum(x, tf.constant(lower, x.dtype)),
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
    zeros=lambda shape, dtype, device=None: tf.zeros(shape, dtype),  # noqa: ARG005
    zeros_like=tf.zeros_like,
)


class _Driver(TracedDriver):
    def shape(self, x: tf.Tensor) -> tuple[Any, ...]:
        later = tf.shape(x)
        return tuple(later[axis] if size is None else size for axis, size in enumerate(x.shape))

    def smaller(self, a: Any, b: Any) -> Any:
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

    def rows(self, x: tf.Tensor) -> Any:
        return tf.cast(self.shape(x)[-2], x.dtype)


DRIVER = _Driver(NAMESPACE)


@tf.autograph.experimental.do_not_convert  # it holds no control flow for the graph
def eccentric_loss(z: tf.Tensor, mu: float = 1.0, *, scale: Any = "paper") -> tf.Tensor:
    """The eccentric loss of a batch of latent vectors, `eccentric_core.eccentric_loss` for TensorFlow.

    Args:
        z: latent vectors of shape (..., n, d), real floating; leading axes are separate batches. Every axis but the
            last may be unknown until the graph runs.
        mu: the parameter mu > 1/2, a Python number.
        scale: "paper", "exact", or M itself, a Python number.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    energy = eccentric_energy(z, mu, scale, DRIVER)
    return apply(energy, [tf.cast(z, compute_dtype(z, "z"))])


@tf.autograph.experimental.do_not_convert
def pair_sum(x: tf.Tensor, y: tf.Tensor | None = None, *, kernel: PairKernel, wide: bool = False) -> tf.Tensor:
    """The sum over pairs of phi(|x_i - y_j|^2 / h), `eccentric_core.pair_sum` for TensorFlow, with its derivatives.

    Args:
        x, y: rows of shapes (..., n, d) and (..., m, d), or y None for the pairs of x.
        kernel: phi with its derivatives and h; hashable.
        wide: keep the sums that make the gradients in float64.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32.
    """
    sets = [x] if y is None else [x, y]
    check_sets(sets, kernel)
    return apply(_pairs(kernel, wide), [tf.cast(rows, compute_dtype(rows, "x")) for rows in sets])


@tf.autograph.experimental.do_not_convert
def inverse_multiquadric_mmd(
    z: tf.Tensor, prior: tf.Tensor, *, scales: Sequence[float] = SCALES, prior_variance: float = 1.0
) -> tf.Tensor:
    """The discrepancy of WAE-MMD, `eccentric_core.inverse_multiquadric_mmd` for TensorFlow, with its derivatives.

    Args:
        z, prior: rows of shapes (..., n, d) and (..., m, d), n and m >= 2.
        scales: positive Python numbers.
        prior_variance: of one coordinate of the prior, a Python number.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    kernel = mixture((z, prior), scales, prior_variance)
    return discrepancy(z, prior, partial(pair_sum, kernel=kernel, wide=True), DRIVER)


@cache
def _pairs(kernel: PairKernel, wide: bool) -> PairSum:
    return PairSum(kernel, DRIVER, None, wide)


def apply(energy: Energy, sets: list[tf.Tensor]) -> tf.Tensor:
    """The energy of some sets as a function with derivatives."""

    @tf.custom_gradient
    def value(*sets: tf.Tensor) -> Any:
        # No tape need follow how the derivatives are made.
        result, *gradients = _run(energy.value_and_gradients, *map(tf.stop_gradient, sets))

        @tf.custom_gradient
        def gradients_of(*sets: tf.Tensor) -> Any:
            return gradients, lambda *directions: energy.hvp(sets, directions)

        def backward(upstream: tf.Tensor) -> list[tf.Tensor]:
            return [gradient * upstream[..., None, None] for gradient in gradients_of(*sets)]

        return result, backward

    return value(*sets)


def _run(function: Callable[..., Any], *sets: tf.Tensor) -> Any:
    """The function in the graph that is being built or, for eager code, where loops are slow, in one of its own."""
    if not tf.executing_eagerly():
        return function(*sets)
    # One graph for all sizes but the small ones, which are computed otherwise.
    sizes = tuple(rows.shape[-2] if rows.shape[-2] <= FEW_ROWS else None for rows in sets)
    return _graph(function, len(sets[0].shape), sizes)(*sets)


@cache
def _graph(function: Callable[..., Any], *_: Any) -> Callable[..., Any]:
    return tf.function(function, autograph=False, reduce_retracing=True)
