"""Eccentric regularization for TensorFlow: the functions of `eccentric_core`, the Keras objects of `eccentric_keras`.

Given tensors, these functions run eagerly, in tf.function (the number of rows may be unknown), compiled by XLA, and
under nested tapes. TensorFlow itself is imported when the first tensor arrives.

eccentric_loss, eccentric_loss_and_grad         the loss of a batch of latent vectors
EccentricRegularizer, EccentricLoss             the weighted loss as a Keras regularizer and as a layer
pair_sum, pair_sum_and_grad, pair_sum_hvp       the sum over pairs that it is made of, for any kernel
hyperspherical_energy, uniformity               the energy of directions, of MHE, for weights and features
HypersphericalRegularizer, regularize           MHE and CoMHE as a Keras regularizer, and for a whole model
compressive_energy                              the energy of projected neurons, of CoMHE; init_projection,
                                                update_projection; CompressiveEnergy, the layer that learns
inverse_multiquadric_mmd                        the discrepancy between a batch and a sample of a prior, of WAE-MMD

>>> import tensorflow as tf
>>> z = tf.random.stateless_normal((100, 8), seed=(0, 0))
>>> with tf.GradientTape() as tape:
...     tape.watch(z)
...     loss = eccentric_loss(z)
>>> tape.gradient(loss, z).shape
TensorShape([100, 8])
"""

from eccentric_core import energies, engine
from eccentric_core.energies import *  # noqa: F403
from eccentric_core.engine import *  # noqa: F403
from eccentric_keras import (
    CompressiveEnergy,
    EccentricLoss,
    EccentricRegularizer,
    HypersphericalRegularizer,
    regularize,
)

__all__ = ["CompressiveEnergy", "EccentricLoss", "EccentricRegularizer", "HypersphericalRegularizer", "regularize"]
__all__ += energies.__all__
__all__ += engine.__all__
