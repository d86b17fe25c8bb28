"""Eccentric regularization for TensorFlow and Keras: eager, in tf.function, compiled by XLA, under nested tapes.

eccentric_loss          the loss of a batch of latent vectors
pair_sum                the sum over pairs that it is made of, for any kernel of `eccentric_core`
EccentricRegularizer    the weighted loss as a Keras regularizer, for any layer's `activity_regularizer`
EccentricLoss           the weighted loss as a Keras layer that hands its input on

inverse_multiquadric_mmd    the discrepancy between a batch and a sample of a prior, that of WAE-MMD

hyperspherical_energy       the energy of directions, of MHE, for weights and features; uniformity
compressive_energy          the energy of projected neurons, of CoMHE; init_projection, update_projection
HypersphericalRegularizer   MHE and CoMHE as a Keras regularizer, for any layer's `kernel_regularizer`
regularize                  gives one to every layer of a Keras model, as the papers do
CompressiveEnergy           CoMHE as a Keras layer, which keeps a projection that is learned

The Keras classes serve every backend of Keras 3: the tensor that arrives decides which engine runs. TensorFlow itself
is imported when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccentric_tensorflow._keras import EccentricLoss, EccentricRegularizer
from eccentric_tensorflow._keras_hyperspherical import CompressiveEnergy, HypersphericalRegularizer, regularize

if TYPE_CHECKING:
    from eccentric_tensorflow._engine import eccentric_loss, inverse_multiquadric_mmd, pair_sum
    from eccentric_tensorflow._hyperspherical import (
        compressive_energy,
        hyperspherical_energy,
        init_projection,
        uniformity,
        update_projection,
    )

__all__ = [
    "CompressiveEnergy",
    "EccentricLoss",
    "EccentricRegularizer",
    "HypersphericalRegularizer",
    "compressive_energy",
    "eccentric_loss",
    "hyperspherical_energy",
    "init_projection",
    "inverse_multiquadric_mmd",
    "pair_sum",
    "regularize",
    "uniformity",
    "update_projection",
]


def __getattr__(name: str) -> Any:
    if name in ("eccentric_loss", "inverse_multiquadric_mmd", "pair_sum"):
        from eccentric_tensorflow import _engine as module
    elif name in __all__:
        from eccentric_tensorflow import _hyperspherical as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
