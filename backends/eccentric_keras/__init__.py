"""Eccentric regularization for Keras 3, on every backend that it has: TensorFlow, JAX and PyTorch.

EccentricRegularizer        the weighted loss, for any layer's `activity_regularizer`
EccentricLoss               the weighted loss as a layer that hands its input on
HypersphericalRegularizer   MHE and CoMHE, for any layer's `kernel_regularizer`
regularize                  gives one to every layer of a model, as the papers do
CompressiveEnergy           CoMHE as a layer, which keeps a projection that is learned

>>> import keras
>>> regularizer = EccentricRegularizer(lam=0.001)
>>> layer = keras.layers.Activation("linear", activity_regularizer=regularizer)
>>> z = layer(keras.random.normal((100, 8), seed=0))
>>> round(float(layer.losses[0]), 6)
-0.002858
"""

from eccentric_keras.latents import EccentricLoss, EccentricRegularizer
from eccentric_keras.networks import CompressiveEnergy, HypersphericalRegularizer, regularize

__all__ = ["CompressiveEnergy", "EccentricLoss", "EccentricRegularizer", "HypersphericalRegularizer", "regularize"]
