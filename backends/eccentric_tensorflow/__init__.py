"""Eccentric regularization for TensorFlow and Keras: eager, in tf.function, compiled by XLA, under nested tapes.

eccentric_loss          the loss of a batch of latent vectors
pair_sum                the sum over pairs that it is made of, for any kernel of `eccentric_core`
EccentricRegularizer    the weighted loss as a Keras regularizer, for any layer's `activity_regularizer`
EccentricLoss           the weighted loss as a Keras layer that hands its input on

inverse_multiquadric_mmd    the discrepancy between a batch and a sample of a prior, that of WAE-MMD

The Keras classes serve every backend of Keras 3: the tensor that arrives decides which engine runs. TensorFlow itself
is imported when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccentric_tensorflow._keras import EccentricLoss, EccentricRegularizer

if TYPE_CHECKING:
    from eccentric_tensorflow._engine import eccentric_loss, inverse_multiquadric_mmd, pair_sum

__all__ = ["EccentricLoss", "EccentricRegularizer", "eccentric_loss", "inverse_multiquadric_mmd", "pair_sum"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eccentric_tensorflow import _engine

    return getattr(_engine, name)
