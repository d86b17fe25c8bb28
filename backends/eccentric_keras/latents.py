"""The eccentric loss as Keras objects, for every backend of Keras."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from eccentric_core import eccentric_loss
from eccentric_core.backend import backend_of
from eccentric_core.checks import check_mu, compute_dtype
from eccentric_core.theory.scale import check_scale

if TYPE_CHECKING:
    from types import FrameType

# From this version on Keras divides what an activity regularizer returns by the size of the batch.
_DIVIDING_VERSION = (3, 14)


class _Changing:
    """A number that may be changed after the model was compiled: lam, mu or M of an object."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if f"_{self.name}" not in vars(instance):  # Keras looks at all attributes before they are set
            raise AttributeError(self.name)
        return vars(instance)[f"_{self.name}"]

    def __set__(self, instance: Any, value: Any) -> None:
        numbers, name = vars(instance), f"_{self.name}"
        if not (isinstance(value, str) and self.name == "scale"):
            value = _checked(self.name, value)
        held = numbers.get(f"{name}_variable")
        if isinstance(value, float) and keras.backend.backend() == "tensorflow":
            # A graph reads a variable each time that it runs.
            if held is None:
                held = keras.Variable(value, trainable=False, dtype="float64", name=self.name)
            held.assign(value)
        numbers[f"{name}_variable"], numbers[name] = held, value

    def current(self, instance: Any, z: Any) -> Any:
        """The value for the step that runs or is compiled on rows z: a number or a 0-d tensor."""
        value = vars(instance)[f"_{self.name}"]
        if isinstance(value, str):
            return value
        if isinstance(value, float):
            held = vars(instance)[f"_{self.name}_variable"]
            value = value if held is None else held
        value = value.value if isinstance(value, keras.Variable) else value
        # What is exported keeps the value that it has now: its number of rows is a symbol.
        if keras.backend.backend() != "jax" or not all(isinstance(size, int) for size in z.shape):
            return value
        return _read_when_run(self, instance, value)

    def number(self, instance: Any) -> Any:
        """The value as a Python number, for a configuration."""
        value = vars(instance)[f"_{self.name}"]
        return value if isinstance(value, str | float) else float(keras.ops.convert_to_numpy(value))


def _read_when_run(number: _Changing, instance: Any, value: Any) -> Any:
    """A number that a program compiled by JAX asks for each time that it runs, where it would be a constant of it."""
    import jax

    if isinstance(value, jax.core.Tracer):  # a variable that the model knows
        return value
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    return jax.pure_callback(lambda: np.asarray(number.number(instance), dtype), jax.ShapeDtypeStruct((), dtype))


def _checked(name: str, value: Any) -> Any:
    """A number as a float; a variable or a 0-d tensor as it is."""
    if isinstance(value, int | float | np.number | np.ndarray) and not isinstance(value, bool) and np.ndim(value) == 0:
        value = float(value)
        if name == "lam" and not 0 <= value < float("inf"):
            raise ValueError(f"lam must be a finite number, 0 or more, got {value!r}; it is the weight of the loss")
        if name == "mu":
            check_mu(value)
        if name == "scale":
            check_scale(value)
        return value
    if not hasattr(value, "dtype") or tuple(value.shape) != ():
        raise ValueError(f"{name} must be a number, a Keras variable or a 0-d tensor, got {value!r}")
    return value


class _Weighted:
    """lam times the loss: its arguments, and their way into a configuration and back."""

    lam, mu, scale = _Changing(), _Changing(), _Changing()

    def _set(self, lam: Any, mu: Any, scale: Any) -> None:
        if isinstance(scale, str) or scale is None:
            check_scale(scale)
        self.lam, self.mu, self.scale = lam, mu, scale

    def _weighted(self, z: Any) -> Any:
        if keras.utils.is_keras_tensor(z):
            raise TypeError(f"z must be a tensor, got the symbolic {z!r}; put the layer EccentricLoss into the model")
        if isinstance(z, keras.Variable | np.ndarray):
            z = keras.ops.convert_to_tensor(z) if isinstance(z, np.ndarray) else z.value
        backend_of(z)  # refuses what is no tensor
        if has_no_pairs(z):
            return nothing(z)
        lam, mu, scale = (getattr(_Weighted, name).current(self, z) for name in ("lam", "mu", "scale"))
        losses = eccentric_loss(z, mu, scale=scale)
        # The mean, or 0 of no batches.
        value = keras.ops.divide_no_nan(keras.ops.sum(losses), keras.ops.sum(keras.ops.ones_like(losses)))
        return (lam if isinstance(lam, float) else keras.ops.cast(lam, value.dtype)) * value

    def _config(self) -> dict[str, Any]:
        return {name: getattr(_Weighted, name).number(self) for name in ("lam", "mu", "scale")}


@keras.saving.register_keras_serializable(package="eccentric")
class EccentricRegularizer(_Weighted, keras.regularizers.Regularizer):
    """lam times the eccentric loss of the outputs of a layer, for its `activity_regularizer`.

    Args:
        lam: the weight, 0 or more.
        mu, scale: as in `eccentric_core.eccentric_loss`.

    Each is a number of Python or NumPy, a Keras variable or a 0-d tensor, and an attribute: what is assigned to it (or
    to the variable) takes effect in the next step of a model that was compiled before, and compiles nothing anew.

    Called with outputs of shape (..., n, d) it returns a scalar; leading axes are separate batches, whose mean counts.
    A batch of one row or none has no pairs and adds 0, so that a last batch of one item or a prediction does no harm.
    As an `activity_regularizer` it adds lam times the loss to the losses of the model, whatever the size of the batch.
    That takes care: Keras from 3.14 on divides what an activity regularizer returns by the length of the first axis.
    For a mean, like this one, that would make the weight depend on the batch, and it is undone here. Earlier versions
    of Keras 3 do not divide.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    def __init__(self, lam: Any, mu: Any = 1.0, *, scale: Any = "paper") -> None:
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
        lam, mu, scale: as in `EccentricRegularizer`.
        kwargs: of `keras.layers.Layer`.

    It does the same as `EccentricRegularizer`, as a step of its own.
    """

    def __init__(self, lam: Any = 1.0, mu: Any = 1.0, *, scale: Any = "paper", **kwargs: Any) -> None:
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


def has_no_pairs(z: Any) -> bool:
    """Whether rows are known to be one or none: the last batch of an epoch, an item to predict, a single neuron."""
    shape = tuple(z.shape)
    return len(shape) > 1 and (0 in shape[:-1] or shape[-2] == 1)


def nothing(z: Any) -> Any:
    """0, with a gradient of zeros with respect to z."""
    return keras.ops.sum(keras.ops.cast(z[..., :0, :], compute_dtype(z, "z")))


def _divided(caller: FrameType) -> bool:
    """Whether the caller is a layer of a Keras that will divide the value by the size of the batch.

    Keras tells a regularizer in no public way who calls it. tests/backends/test_keras.py pins this down.
    """
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    return version >= _DIVIDING_VERSION and caller.f_code is inspect.unwrap(keras.layers.Layer.__call__).__code__
