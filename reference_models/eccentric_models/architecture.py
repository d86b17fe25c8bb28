"""The networks of the paper (appendix A.4) as data, from which each framework builds them.

Images are (height, width, channels). A network is a tuple of layers; a convolution that a batch normalisation follows
has no bias, as the normalisation would cancel it.

Weights have one neutral layout, the same in every framework and in every checkpoint:

    convolution              (height, width, in, out): out[y] = sum over k of in[stride y + k] kernel[k]
    transposed convolution   (height, width, in, out): out[stride y + k] += in[y] kernel[k]
    dense                    (in, out), of images that are flattened in the order height, width, channel
    normalisation            scale, bias, and the running mean and variance, that of the population (divided by n)
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Shape: TypeAlias = tuple[int, ...]


class _ShapeKept:
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output."""
        return shape


@dataclass(frozen=True)
class Pad:
    """Zeros around an image."""

    margin: int

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output."""
        height, width, channels = shape
        return height + 2 * self.margin, width + 2 * self.margin, channels


@dataclass(frozen=True)
class Convolution:
    """A square convolution; padding is the number of zeros before and after each side."""

    channels: int
    kernel: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    bias: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output."""
        height, width = ((size + sum(self.padding) - self.kernel) // self.stride + 1 for size in shape[:2])
        return height, width, self.channels

    def weights(self, shape: Shape) -> dict[str, Shape]:
        """The names and shapes of its weights."""
        return {"kernel": (self.kernel, self.kernel, shape[2], self.channels)} | _bias(self.channels, self.bias)

    def fan_in(self, shape: Shape) -> float:
        """The number of inputs of an output."""
        return shape[2] * self.kernel**2


@dataclass(frozen=True)
class TransposedConvolution:
    """A square transposed convolution; crop is the number of pixels removed before and after each side."""

    channels: int
    kernel: int
    stride: int = 1
    crop: tuple[int, int] = (0, 0)
    bias: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output."""
        height, width = ((size - 1) * self.stride + self.kernel - sum(self.crop) for size in shape[:2])
        return height, width, self.channels

    def weights(self, shape: Shape) -> dict[str, Shape]:
        """The names and shapes of its weights."""
        return {"kernel": (self.kernel, self.kernel, shape[2], self.channels)} | _bias(self.channels, self.bias)

    def fan_in(self, shape: Shape) -> float:
        """The number of inputs of an output."""
        return shape[2] * (self.kernel / self.stride) ** 2


@dataclass(frozen=True)
class Dense:
    """A linear layer."""

    features: int

    def output_shape(self, shape: Shape) -> Shape:  # noqa: ARG002
        """The shape of the output."""
        return (self.features,)

    def weights(self, shape: Shape) -> dict[str, Shape]:
        """The names and shapes of its weights."""
        return {"kernel": (shape[0], self.features)} | _bias(self.features, True)

    def fan_in(self, shape: Shape) -> float:
        """The number of inputs of an output."""
        return shape[0]


@dataclass(frozen=True)
class BatchNorm(_ShapeKept):
    """Normalisation of each channel by the mean and the variance of the batch; in evaluation by the running ones.

    running = (1 - momentum) running + momentum batch; the variance is that of the population in both.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    def weights(self, shape: Shape) -> dict[str, Shape]:
        """The names and shapes of its weights."""
        return dict.fromkeys(("scale", "bias", *STATISTICS), (shape[-1],))


@dataclass(frozen=True)
class LeakyReLU(_ShapeKept):
    """max(x, slope x); a slope of 0 is ReLU."""

    slope: float = 0.0


@dataclass(frozen=True)
class Sigmoid(_ShapeKept):
    """1/(1 + exp(-x))."""


@dataclass(frozen=True)
class Reshape:
    """The same numbers in another shape, in the order height, width, channel."""

    shape: Shape

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"Reshape must keep the number of values, got {shape} to {self.shape}")
        return self.shape


Layer: TypeAlias = Pad | Convolution | TransposedConvolution | Dense | BatchNorm | LeakyReLU | Sigmoid | Reshape

# Weights that training updates without a gradient.
STATISTICS = ("mean", "variance")


@dataclass(frozen=True)
class Step:
    """One layer of a network at its place."""

    name: str
    layer: Layer
    input_shape: Shape

    @property
    def weights(self) -> dict[str, Shape]:
        """The full names and the shapes of its weights."""
        if not isinstance(self.layer, Convolution | TransposedConvolution | Dense | BatchNorm):
            return {}
        return {f"{self.name}.{key}": shape for key, shape in self.layer.weights(self.input_shape).items()}


@dataclass(frozen=True)
class Architecture:
    """An autoencoder: images of image_shape to codes of code_size numbers; latent vectors of dim numbers to images.

    A code is the latent vector, or its mean followed by the logarithm of its variance (code_size = 2 dim).
    """

    image_shape: Shape
    dim: int
    code_size: int
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]

    def __post_init__(self) -> None:
        for part, expected in (("encoder", (self.code_size,)), ("decoder", self.image_shape)):
            *_, last = self.steps(part)
            if (shape := last.layer.output_shape(last.input_shape)) != expected:
                raise ValueError(f"the {part} must end in the shape {expected}, got {shape}")

    def steps(self, part: str) -> Iterator[Step]:
        """The layers of "encoder" or "decoder" with their names and input shapes."""
        shape = self.image_shape if part == "encoder" else (self.dim,)
        counts: Counter[str] = Counter()
        for layer in getattr(self, part):
            kind = type(layer).__name__.lower()
            counts[kind] += 1
            yield Step(f"{part}.{kind}{counts[kind]}", layer, shape)
            shape = layer.output_shape(shape)

    @property
    def all_steps(self) -> Iterator[Step]:
        """The layers of both."""
        return chain(self.steps("encoder"), self.steps("decoder"))

    @property
    def weights(self) -> dict[str, Shape]:
        """The names and shapes of all weights, statistics included."""
        return {name: shape for step in self.all_steps for name, shape in step.weights.items()}


def is_statistic(name: str) -> bool:
    """Whether a weight of that name is a running statistic."""
    return name.rpartition(".")[2] in STATISTICS


def initial_weights(architecture: Architecture, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Initial weights in float64: uniform within 1/sqrt(fan in), as in PyTorch; normalisations have no effect yet."""
    weights = {}
    for step in architecture.all_steps:
        for name, shape in step.weights.items():
            if isinstance(step.layer, BatchNorm):
                weights[name] = np.ones(shape) if name.endswith((".scale", ".variance")) else np.zeros(shape)
            else:
                bound = step.layer.fan_in(step.input_shape) ** -0.5
                weights[name] = rng.uniform(-bound, bound, shape)
    return weights


def mnist(channels: int, dim: int, code_size: int, width: float = 1.0) -> Architecture:
    """The paper's network for MNIST: images of 28 x 28, padded by zeros to 32 x 32 in the encoder."""
    w = _widths(width)
    encoder: list[Layer] = [Pad(2)]
    for features, kernel, stride in ((16, 5, 1), (24, 4, 2), (32, 4, 1), (48, 4, 2)):
        encoder += [Convolution(w(features), kernel, stride), BatchNorm(), LeakyReLU(0.1)]
    encoder += [Reshape((4 * 4 * w(48),)), Dense(w(64)), Dense(code_size)]
    decoder: list[Layer] = [Reshape((1, 1, dim))]
    for features, kernel, stride in ((48, 3, 1), (32, 4, 2), (24, 4, 1), (16, 4, 2), (16, 5, 1)):
        decoder += [TransposedConvolution(w(features), kernel, stride), BatchNorm(), LeakyReLU(0.1)]
    decoder += [TransposedConvolution(channels, 1, bias=True), Sigmoid()]
    return Architecture((28, 28, channels), dim, code_size, tuple(encoder), tuple(decoder))


def celeba(channels: int, dim: int, code_size: int, width: float = 1.0) -> Architecture:
    """The paper's network for CelebA: images of 64 x 64.

    The last layer keeps 64 x 64: a kernel of 4 makes 67, of which 1 is removed before and 2 after.
    """
    w = _widths(width)
    encoder: list[Layer] = []
    for features in (128, 256, 512, 1024):
        encoder += [Convolution(w(features), 4, 2, padding=(1, 1)), BatchNorm(), LeakyReLU()]
    encoder += [Reshape((4 * 4 * w(1024),)), Dense(code_size)]
    decoder: list[Layer] = [Dense(8 * 8 * w(1024)), Reshape((8, 8, w(1024)))]
    for features in (512, 256, 128):
        decoder += [TransposedConvolution(w(features), 4, 2, crop=(1, 1)), BatchNorm(), LeakyReLU()]
    decoder += [TransposedConvolution(channels, 4, crop=(1, 2), bias=True), Sigmoid()]
    return Architecture((64, 64, channels), dim, code_size, tuple(encoder), tuple(decoder))


NETWORKS = {"mnist": mnist, "celeba": celeba}


def _bias(size: int, present: bool) -> dict[str, Shape]:
    return {"bias": (size,)} if present else {}


def _widths(width: float) -> Callable[[int], int]:
    return lambda features: max(1, round(features * width))
