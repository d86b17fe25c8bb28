"""Hyperspherical energies of weights and features in TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from eccentric_core.checks import check_batch, compute_dtype
from eccentric_core.energies.compressive import first_projection, next_projection, projected_energy
from eccentric_core.energies.hyperspherical import Riesz, as_rows, gaussian_energy, riesz_energy
from eccentric_core.energies.projections import LearnedProjection
from eccentric_tensorflow._engine import DRIVER, NAMESPACE, apply

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.energies.hyperspherical import Normalization


@tf.autograph.experimental.do_not_convert
def hyperspherical_energy(
    w: tf.Tensor,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> tf.Tensor:
    """The hyperspherical energy of neurons or features, `eccentric_core.hyperspherical_energy` for TensorFlow.

    Args:
        w: one row for each neuron, (n, D) or (n, ...). Kernels of Keras have neurons in the last axis: there is
            `HypersphericalRegularizer`.
        s, half_space, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`; Python values.

    Returns:
        A 0-d tensor with derivatives: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    w = as_rows(w, NAMESPACE)
    dtype = compute_dtype(w, "w")
    energy = riesz_energy(dtype, Riesz(s, half_space, angular, normalization, eps), DRIVER)
    return apply(energy, [tf.cast(w, dtype)])


@tf.autograph.experimental.do_not_convert
def uniformity(z: tf.Tensor, t: float = 2.0) -> tf.Tensor:
    """The log of the mean Gaussian potential of features on the sphere, `eccentric_core.uniformity` for TensorFlow.

    Args:
        z: features of shape (..., n, d); leading axes are separate batches.
        t: the inverse width of the Gaussian, a Python number.

    Returns:
        A tensor of shape (...) with derivatives: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    energy = gaussian_energy(z, t, DRIVER)
    return tf.math.log(apply(energy, [tf.cast(z, compute_dtype(z, "z"))]))


@tf.autograph.experimental.do_not_convert
def compressive_energy(
    w: tf.Tensor,
    projection: Any = "random",
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    generator: tf.random.Generator | None = None,
) -> tf.Tensor:
    """The mean hyperspherical energy of projected neurons, `eccentric_core.compressive_energy` for TensorFlow.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        projection: "random" or "group", drawn anew at every call (of a graph, too), or such a rule; matrices of shape
            (k, D) or (draws, k, D), through which derivatives go, too; a `LearnedProjection` of `init_projection`.
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        generator: what a projection is drawn from; None is TensorFlow's own.

    Returns:
        A 0-d tensor with derivatives.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    return energy_of_projected(w, projection, which, _normal(w, generator))


def energy_of_projected(
    w: tf.Tensor, projection: Any, which: Riesz, normal: Callable[[tuple[int, ...]], tf.Tensor]
) -> tf.Tensor:
    """The energy under projections that are drawn from a source of normal numbers."""
    return projected_energy(w, _fixed(projection), which, lambda energy, y: apply(energy, [y]), normal, DRIVER)


def init_projection(
    w: tf.Tensor, rule: Any = "angle-preserving", *, generator: tf.random.Generator | None = None
) -> LearnedProjection:
    """A projection to learn, for weights like these; `CompressiveEnergy` is the Keras layer that keeps one.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        rule: "angle-preserving" or "adversarial", or such a rule.
        generator: what it is drawn from; None is TensorFlow's own.
    """
    return first_projection(w, rule, _normal(w, generator), NAMESPACE)


@tf.autograph.experimental.do_not_convert
def update_projection(
    projection: LearnedProjection,
    w: tf.Tensor,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> LearnedProjection:
    """The projection after its gradient steps for one step of training; no derivatives go through it.

    Args:
        projection: as it is.
        w: the weights as they are.
        s, half_space, angular, normalization, eps: of the energy that an adversarial projection raises.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    return next_projection(_fixed(projection), tf.stop_gradient(w), which, DRIVER)


def _fixed(projection: Any) -> Any:
    """A learned matrix is no parameter of the energy."""
    if not isinstance(projection, LearnedProjection):
        return projection
    return LearnedProjection(tf.stop_gradient(projection.matrix), projection.rule)


def _normal(w: tf.Tensor, generator: tf.random.Generator | None) -> Callable[[tuple[int, ...]], tf.Tensor]:
    if not hasattr(w, "dtype") or not hasattr(w, "shape"):
        check_batch(w, "w")
    draw = tf.random.normal if generator is None else generator.normal
    return lambda shape: draw(shape, dtype=compute_dtype(w, "w"))
