"""The autoencoders in TensorFlow, with Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

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
from eccentric_models.frameworks import Adam, Autoencoder, FrameworkError, State
from eccentric_models.objectives import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Model(Autoencoder):
    """The autoencoder as two `keras.Sequential`s and a `tf.function`."""

    LAYOUT: ClassVar[Mapping[type, tuple[int, ...]]] = {TransposedConvolution: (0, 1, 3, 2)}

    def __init__(self, *args: Any, device: str = "auto", **options: Any) -> None:
        super().__init__(*args, **options)
        if keras.backend.backend() != "tensorflow":
            raise FrameworkError(
                f"framework tensorflow: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
            )
        self._device = find_device(device)
        self._weights: dict[str, keras.Variable] = {}
        with tf.device(self._device):
            self._encoder, self._decoder = (self._network(part) for part in ("encoder", "decoder"))
            self._trained = {name: weight for name, weight in self._weights.items() if not is_statistic(name)}
            self._optimizer = _TorchAdam(self.adam)
            self._optimizer.build(list(self._trained.values()))
        self._compiled_step = tf.function(self._pure_step, autograph=False)
        # One graph for every number of images.
        images = tf.TensorSpec((None, *self.architecture.image_shape), tf.uint8)
        latents = tf.TensorSpec((None, self.architecture.dim), self.dtype)
        self._compiled_encode = tf.function(
            lambda x: self._encoder(self._scaled(x), training=False), input_signature=[images], autograph=False
        )
        self._compiled_decode = tf.function(
            lambda z: self._decoder(z, training=False), input_signature=[latents], autograph=False
        )

    def place(self, array: np.ndarray) -> tf.Tensor:
        with tf.device(self._device):
            return tf.convert_to_tensor(array)

    def select(self, placed: tf.Tensor, rows: np.ndarray) -> tf.Tensor:
        with tf.device(self._device):
            return tf.gather(placed, rows)

    def step(self, images: tf.Tensor, noise: tf.Tensor | None) -> Terms:
        with tf.device(self._device):
            return self._compiled_step(images, noise)

    def fetch(self, results: Sequence[Terms]) -> Terms:
        return Terms(*(tf.stack(values).numpy() for values in zip(*results, strict=True)))

    def _encode(self, images: tf.Tensor) -> np.ndarray:
        with tf.device(self._device):
            return self._compiled_encode(images).numpy()

    def _decode(self, z: tf.Tensor) -> np.ndarray:
        with tf.device(self._device):
            return self._compiled_decode(z).numpy()

    def _pure_step(self, images: tf.Tensor, noise: tf.Tensor | None) -> Terms:
        def part(network: keras.Model) -> Any:
            return lambda x: network(x, training=True)

        with tf.GradientTape() as tape:
            loss, terms = self.objective.loss(part(self._encoder), part(self._decoder), self._scaled(images), noise)
        trained = list(self._trained.values())
        self._optimizer.apply(tape.gradient(loss, [variable.value for variable in trained]), trained)
        return terms

    def _scaled(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(images, self.dtype) / 255

    def _network(self, part: str) -> keras.Sequential:
        network = keras.Sequential([keras.Input(next(self.architecture.steps(part)).input_shape, dtype=self.dtype)])
        for step in self.architecture.steps(part):
            for layer in _layers(step, self.dtype):
                network.add(layer)
                self._weights |= {f"{step.name}.{name}": weight for name, weight in _weights(layer).items()}
        return network

    def _read(self) -> State:
        means, squares = (
            dict(zip(self._trained, map(np.asarray, moments), strict=True)) for moments in self._optimizer.moments
        )
        weights = {name: np.asarray(weight) for name, weight in self._weights.items()}
        return State(weights, means, squares, int(self._optimizer.iterations))

    def _write(self, state: State) -> None:
        for name, weight in self._weights.items():
            weight.assign(state.weights[name])
        for moments, values in zip(self._optimizer.moments, (state.means, state.squares), strict=True):
            for name, moment in zip(self._trained, moments, strict=True):
                moment.assign(values[name])
        self._optimizer.iterations.assign(state.step)


class _TorchAdam(keras.optimizers.Adam):
    """Adam in the convention of `Adam`: Keras adds epsilon before it corrects the root, and decouples weight decay."""

    def __init__(self, adam: Adam) -> None:
        super().__init__(adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon, name="adam")
        self.adam = adam

    @property
    def moments(self) -> tuple[list[keras.Variable], list[keras.Variable]]:
        """The running means of the gradients and of their squares."""
        return self._momentums, self._velocities

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: Any) -> None:  # noqa: ARG002
        adam, index = self.adam, self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        mean, square = (moments[index] for moments in self.moments)
        gradient = gradient + adam.weight_decay * variable
        mean.assign(adam.beta1 * mean + (1 - adam.beta1) * gradient)
        square.assign(adam.beta2 * square + (1 - adam.beta2) * gradient * gradient)
        root = tf.sqrt(square / (1 - adam.beta2**step)) + adam.epsilon
        # The learning rate that Keras passes is rounded to float32.
        variable.assign_sub(adam.learning_rate / (1 - adam.beta1**step) * mean / root)


class _BatchNorm(keras.layers.BatchNormalization):
    """With exact moments: TensorFlow adds up float32 pixels one after the other, which leaves four digits."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:  # noqa: ARG002
        scale, bias = (tf.convert_to_tensor(weight.value) for weight in (self.gamma, self.beta))
        if not training:
            moments = self.moving_mean.value, self.moving_variance.value
            return tf.nn.batch_normalization(inputs, *moments, bias, scale, self.epsilon)
        mean = _mean(inputs)
        variance = _mean(tf.math.squared_difference(inputs, mean))
        for running, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(self.momentum * running + (1 - self.momentum) * of_batch)
        return _normalise(inputs, scale, bias, mean, variance, self.epsilon)


def _normalise(
    x: tf.Tensor, scale: tf.Tensor, bias: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, epsilon: float
) -> tf.Tensor:
    """Batch normalisation with the moments of the batch; its gradient in closed form needs half the passes over x."""
    root = tf.math.rsqrt(variance + epsilon)

    @tf.custom_gradient
    def normalise(x: tf.Tensor, scale: tf.Tensor, bias: tf.Tensor) -> Any:
        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            normal = (x - mean) * root
            of_bias, of_scale = _mean(upstream), _mean(upstream * normal)
            count = tf.cast(tf.size(x) // tf.size(scale), x.dtype)
            return scale * root * (upstream - of_bias - normal * of_scale), count * of_scale, count * of_bias

        return tf.nn.batch_normalization(x, mean, variance, bias, scale, epsilon), backward

    return normalise(*(tf.convert_to_tensor(value) for value in (x, scale, bias)))


def _mean(images: tf.Tensor) -> tf.Tensor:
    """The mean of each channel, in two stages for accuracy."""
    return tf.reduce_mean(tf.reduce_mean(images, (1, 2)), 0)


def _leaky_relu(x: tf.Tensor, slope: float) -> tf.Tensor:
    # TensorFlow's own rounds the slope to float32, whatever the dtype of x.
    return tf.nn.leaky_relu(x, slope) if x.dtype == tf.float32 else tf.maximum(x, slope * x)


def _layers(step: Step, dtype: str) -> list[keras.Layer]:
    """A layer as layers of Keras, of which at most one has weights."""
    layers = keras.layers
    # No random numbers: the weights are overwritten before they are read.
    options = {"dtype": dtype, "kernel_initializer": "zeros"}
    match step.layer:
        case Pad(margin):
            return [layers.ZeroPadding2D(margin, dtype=dtype)]
        case Convolution(channels, kernel, stride, padding, bias):
            margin = [layers.ZeroPadding2D((padding, padding), dtype=dtype)] if any(padding) else []
            return [*margin, layers.Conv2D(channels, kernel, stride, use_bias=bias, **options)]
        case TransposedConvolution(channels, kernel, stride, crop, bias):
            margin = [layers.Cropping2D((crop, crop), dtype=dtype)] if any(crop) else []
            return [layers.Conv2DTranspose(channels, kernel, stride, use_bias=bias, **options), *margin]
        case Dense(features):
            return [layers.Dense(features, **options)]
        case BatchNorm(momentum, epsilon):
            return [_BatchNorm(momentum=1 - momentum, epsilon=epsilon, dtype=dtype)]
        case LeakyReLU(slope):
            return [layers.Activation(lambda x: _leaky_relu(x, slope), dtype=dtype)]
        case Sigmoid():
            return [layers.Activation("sigmoid", dtype=dtype)]
        case Reshape(shape):
            return [layers.Reshape(shape, dtype=dtype)]


def _weights(layer: keras.Layer) -> dict[str, keras.Variable]:
    """The weights of a layer by their neutral names."""
    if isinstance(layer, keras.layers.BatchNormalization):
        names = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"}
    else:
        names = {"kernel": "kernel", "bias": "bias"}
    return {key: weight for key, name in names.items() if (weight := getattr(layer, name, None)) is not None}


def find_device(name: str) -> str | None:
    """The device of a name: "auto", "cpu" or "gpu".

    Raises:
        FrameworkError: there is no GPU.
    """
    if name == "gpu" and not tf.config.list_logical_devices("GPU"):
        raise FrameworkError('device "gpu": TensorFlow finds none; use "auto" or "cpu"')
    return {"cpu": "/CPU:0", "gpu": "/GPU:0"}.get(name)
