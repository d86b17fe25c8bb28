"""The loss as Keras objects, for every backend of Keras 3."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

import keras

from eccentric_core.checks import check_mu, check_scale

if TYPE_CHECKING:
    from types import FrameType

# Where the energies of a tensor are, by the package that its type comes from.
_ENGINES = {
    "tensorflow": "eccentric_tensorflow",
    "jax": "eccentric_jax",
    "jaxlib": "eccentric_jax",
    "torch": "eccentric_torch",
    "numpy": "eccentric_core",
}


def engine_of(z: Any) -> Any:
    """The module with the energies of a tensor."""
    package = type(z).__module__.partition(".")[0]
    if package not in _ENGINES:
        raise TypeError(f"z must be a tensor of {', '.join(sorted(_ENGINES))}, got {type(z).__name__} of {package}")
    return importlib.import_module(_ENGINES[package])


# From this version on Keras divides what an activity regularizer returns by the size of the batch.
_DIVIDING_VERSION = (3, 14)


class _Weighted:
    """lam times the loss: its arguments, and their way into a configuration and back."""

    def _set(self, lam: float, mu: float, scale: Any) -> None:
        if isinstance(lam, bool) or not isinstance(lam, int | float) or not 0 <= lam < float("inf"):
            raise ValueError(f"lam must be a finite number, 0 or more, got {lam!r}; it is the weight of the loss")
        check_scale(scale)
        self.lam, self.mu, self.scale = lam, check_mu(mu), scale

    def _weighted(self, z: Any) -> Any:
        return self.lam * keras.ops.mean(engine_of(z).eccentric_loss(z, self.mu, scale=self.scale))

    def _config(self) -> dict[str, Any]:
        return {"lam": self.lam, "mu": self.mu, "scale": self.scale}


@keras.saving.register_keras_serializable(package="eccentric")
class EccentricRegularizer(_Weighted, keras.regularizers.Regularizer):
    """lam times the eccentric loss of the outputs of a layer, for its `activity_regularizer`.

    Args:
        lam: the weight, 0 or more.
        mu, scale: as in `eccentric_core.eccentric_loss`.

    Called with outputs of shape (..., n, d) it returns a scalar; leading axes are separate batches, whose mean counts.
    As an `activity_regularizer` it adds lam times the loss to the losses of the model, whatever the size of the batch.
    That takes care: Keras from 3.14 on divides what an activity regularizer returns by the length of the first axis.
    For a mean, like this one, that would make the weight depend on the batch, and it is undone here. Earlier versions
    of Keras 3 do not divide.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    def __init__(self, lam: float, mu: float = 1.0, *, scale: Any = "paper") -> None:
        self._set(lam, mu, scale)

    def __call__(self, x: Any) -> Any:
        value = self._weighted(x)
        if _divided(sys._getframe(1)):
            value = value * keras.ops.cast(keras.ops.shape(x)[0], value.dtype)
        return value

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return self._config()


@keras.saving.register_keras_serializable(package="eccentric")
class EccentricLoss(_Weighted, keras.layers.Layer):
    """A layer that hands latent vectors on and adds lam times their eccentric loss to the losses of the model.

    Args:
        lam: the weight, 0 or more.
        mu, scale: as in `eccentric_core.eccentric_loss`.
        kwargs: of `keras.layers.Layer`.

    It does the same as `EccentricRegularizer`, as a step of its own.
    """

    def __init__(self, lam: float = 1.0, mu: float = 1.0, *, scale: Any = "paper", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set(lam, mu, scale)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """The inputs."""
        self.add_loss(self._weighted(inputs))
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), **self._config()}


def _divided(caller: FrameType) -> bool:
    """Whether the caller is a layer of a Keras that will divide the value by the size of the batch."""
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    return version >= _DIVIDING_VERSION and caller.f_code is inspect.unwrap(keras.layers.Layer.__call__).__code__
