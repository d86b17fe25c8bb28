"""The autoencoders in JAX, with Flax NNX and Optax. The step is a pure function of a donated state."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial, reduce, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from eccentric_models.architecture import (
    BatchNorm,
    Convolution,
    Dense,
    LeakyReLU,
    Pad,
    Reshape,
    Sigmoid,
    Step,
    TransposedConvolution,
    is_statistic,
)
from eccentric_models.frameworks import Autoencoder, FrameworkError, State
from eccentric_models.frameworks._convolutions import convolve, convolve_transposed
from eccentric_models.objectives import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from eccentric_models.architecture import Architecture


def _precisely(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that runs with x64 enabled where the model computes in float64."""

    @wraps(method)
    def wrapper(self: Model, *args: Any) -> Any:
        with jax.enable_x64(True) if self.dtype == "float64" else nullcontext():
            return method(self, *args)

    return wrapper


class Model(Autoencoder):
    """The autoencoder as a function of arrays by their neutral names; tracing makes an `nnx.Module` of them."""

    def __init__(self, *args: Any, device: str = "auto", **options: Any) -> None:
        super().__init__(*args, **options)
        self._device = find_device(device)
        adam = self.adam
        self._optimizer = optax.chain(
            optax.add_decayed_weights(adam.weight_decay),
            optax.adam(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon),
        )
        self._arrays: _Arrays
        self._compiled_step = jax.jit(self._pure_step, donate_argnums=0)
        self._compiled_encode = jax.jit(lambda weights, images: self._network(weights).encode(self._scaled(images)))
        self._compiled_decode = jax.jit(lambda weights, z: self._network(weights).decode(z))

    @_precisely
    def place(self, array: np.ndarray) -> jax.Array:
        return jax.device_put(array, self._device)

    @_precisely
    def select(self, placed: jax.Array, rows: np.ndarray) -> jax.Array:
        return _take(placed, rows)

    @_precisely
    def step(self, images: jax.Array, noise: jax.Array | None) -> Terms:
        self._arrays, terms = self._compiled_step(self._arrays, images, noise)
        return terms

    def fetch(self, results: Sequence[Terms]) -> Terms:
        return Terms(*(np.stack(values) for values in zip(*jax.device_get(results), strict=True)))

    @_precisely
    def _encode(self, images: jax.Array) -> np.ndarray:
        return np.asarray(self._compiled_encode(self._arrays.weights, images))

    @_precisely
    def _decode(self, z: jax.Array) -> np.ndarray:
        return np.asarray(self._compiled_decode(self._arrays.weights, z))

    def _pure_step(self, arrays: _Arrays, images: jax.Array, noise: jax.Array | None) -> tuple[_Arrays, Terms]:
        weights, moments = arrays
        trained = {name: value for name, value in weights.items() if not is_statistic(name)}

        def loss(trained: dict[str, jax.Array]) -> Any:
            network = self._network(weights | trained)
            network.train()
            value, terms = self.objective.loss(network.encode, network.decode, self._scaled(images), noise)
            return value, (terms, {name: variable[...] for name, variable in network.weights()})

        gradients, (terms, weights) = jax.grad(loss, has_aux=True)(trained)
        updates, moments = self._optimizer.update(gradients, moments, trained)
        return _Arrays(weights | optax.apply_updates(trained, updates), moments), terms

    def _network(self, weights: Mapping[str, jax.Array]) -> _Network:
        network = _Network(self.architecture, on_cpu=self._device.platform == "cpu")
        for name, variable in network.weights():
            variable.set_value(weights[name])
        network.eval()
        return network

    def _scaled(self, images: jax.Array) -> jax.Array:
        return images.astype(self.dtype) / 255

    @_precisely
    def _read(self) -> State:
        means, squares, step = (optax.tree_utils.tree_get(self._arrays.moments, name) for name in ("mu", "nu", "count"))
        return State(*jax.device_get((self._arrays.weights, means, squares)), int(step))

    @_precisely
    def _write(self, state: State) -> None:
        weights, means, squares = (
            {name: jax.device_put(value.astype(self.dtype), self._device) for name, value in part.items()}
            for part in state[:3]
        )
        count = jax.device_put(np.int32(state.step), self._device)
        # Every tree in the state of the optimiser has the structure of the trained weights.
        moments = optax.tree_utils.tree_set(self._optimizer.init(means), mu=means, nu=squares, count=count)
        self._arrays = _Arrays(weights, moments)


class _Arrays(NamedTuple):
    """The state of training, which a step consumes and returns."""

    weights: dict[str, jax.Array]
    moments: Any


class _Network(nnx.Module):
    """Both parts, as lists of layers with their names."""

    def __init__(self, architecture: Architecture, *, on_cpu: bool) -> None:
        self.encoder, self.decoder = (
            nnx.List([_module(step, on_cpu) for step in architecture.steps(part)]) for part in ("encoder", "decoder")
        )
        self.names = {part: tuple(step.name for step in architecture.steps(part)) for part in ("encoder", "decoder")}

    def encode(self, x: jax.Array) -> jax.Array:
        return reduce(lambda x, layer: layer(x), self.encoder, x)

    def decode(self, x: jax.Array) -> jax.Array:
        return reduce(lambda x, layer: layer(x), self.decoder, x)

    def weights(self) -> Iterator[tuple[str, nnx.Variable]]:
        """The weights with their neutral names."""
        for part, names in self.names.items():
            for name, layer in zip(names, getattr(self, part), strict=True):
                for key, attribute in _WEIGHTS.get(type(layer), {}).items():
                    if (variable := getattr(layer, attribute)) is not None:
                        yield f"{name}.{key}", variable


class _Convolution(nnx.Module):
    """A convolution, or its transpose, by a function of (x, kernel)."""

    def __init__(self, function: Callable[..., jax.Array], shape: tuple[int, ...], bias: bool) -> None:
        self.function = function
        self.kernel = nnx.Param(jnp.zeros(shape))
        self.bias = nnx.Param(jnp.zeros(shape[-1])) if bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.function(x, self.kernel[...])
        return y if self.bias is None else y + self.bias[...]


class _Function(nnx.Module):
    """A layer without weights."""

    def __init__(self, function: Callable[[jax.Array], jax.Array]) -> None:
        self.function = function

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)


# Where the weights are, by the type of the module.
_WEIGHTS = {
    _Convolution: {"kernel": "kernel", "bias": "bias"},
    nnx.Linear: {"kernel": "kernel", "bias": "bias"},
    nnx.BatchNorm: {"scale": "scale", "bias": "bias", "mean": "mean", "variance": "var"},
}


def _module(step: Step, on_cpu: bool) -> nnx.Module:
    rngs = nnx.Rngs(0)  # required by Flax; its initial weights are overwritten
    match step.layer:
        case Pad(margin):
            return _Function(lambda x: jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0))))
        case Convolution(_, _, stride, padding, bias):
            function = partial(convolve, stride=stride, padding=padding, on_cpu=on_cpu)
            return _Convolution(function, step.weights[f"{step.name}.kernel"], bias)
        case TransposedConvolution(_, _, stride, crop, bias):
            function = partial(convolve_transposed, stride=stride, crop=crop, on_cpu=on_cpu)
            return _Convolution(function, step.weights[f"{step.name}.kernel"], bias)
        case Dense(features):
            return nnx.Linear(step.input_shape[0], features, rngs=rngs)
        case BatchNorm(momentum, epsilon):
            # The fast variance is a difference of two squares, which cancels.
            return nnx.BatchNorm(
                step.input_shape[2], momentum=1 - momentum, epsilon=epsilon, use_fast_variance=False, rngs=rngs
            )
        case LeakyReLU(slope):
            return _Function(partial(nnx.leaky_relu, negative_slope=slope))
        case Sigmoid():
            return _Function(nnx.sigmoid)
        case Reshape(shape):
            return _Function(lambda x: x.reshape(x.shape[0], *shape))


@jax.jit
def _take(placed: jax.Array, rows: jax.Array) -> jax.Array:
    return placed[rows]


def find_device(name: str) -> jax.Device:
    """The device of a name: "auto", "cpu" or "gpu".

    Raises:
        FrameworkError: there is no GPU.
    """
    if name == "cpu":
        return jax.devices("cpu")[0]
    device = jax.devices()[0]  # an accelerator where there is one
    if name == "gpu" and device.platform == "cpu":
        raise FrameworkError('device "gpu": JAX finds none; use "auto" or "cpu"')
    return device
