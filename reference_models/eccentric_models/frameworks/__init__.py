"""The autoencoders in three frameworks: each builds the networks and has one training step; the rest is shared.

`create(framework, ...)` imports that framework, and no other.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from eccentric_models.architecture import is_statistic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eccentric_models.architecture import Architecture
    from eccentric_models.objectives import Objective, Terms

Framework = Literal["torch", "jax", "tensorflow"]
Device = Literal["auto", "cpu", "gpu"]
Dtype = Literal["float32", "float64"]

# The packages that each needs, and the extra of the project that installs them.
PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "tensorflow": ("tensorflow", "keras")}
_EXTRA = {"torch": "torch", "jax": "models-jax", "tensorflow": "tensorflow"}

# Images encoded and vectors decoded at a time.
_CHUNK = 1000


class FrameworkError(Exception):
    """A framework or a device is not available; the message is one line."""


class StateError(Exception):
    """Weights do not match the architecture; the message is one line."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015) with the L2 penalty in the gradient, in the convention of `torch.optim.Adam`.

    g += weight_decay w;  m, v = bias-corrected running means of g and of g^2;
    w -= learning_rate m / (sqrt(v) + epsilon)
    """

    learning_rate: float = 1e-4
    weight_decay: float = 1e-6
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class State(NamedTuple):
    """Weights and the two moments of Adam by name, in one layout, and the number of steps taken."""

    weights: dict[str, np.ndarray]
    means: dict[str, np.ndarray]
    squares: dict[str, np.ndarray]
    step: int

    @classmethod
    def start(cls, weights: Mapping[str, np.ndarray]) -> State:
        """Before the first step."""
        zeros = {name: np.zeros_like(value) for name, value in weights.items() if not is_statistic(name)}
        return cls(dict(weights), zeros, zeros, 0)


class Autoencoder(ABC):
    """An autoencoder and its optimiser on a device.

    Args:
        architecture, objective, adam: the network, the loss and the optimiser.
        dtype: the dtype of weights and latents.

    The classes of the frameworks also take `device`: "auto" chooses a GPU if there is one.

    Images come as uint8 (n, height, width, channels) and count as value/255.
    """

    # The permutation of the axes of a kernel from the neutral layout to the framework's own, by the type of the layer.
    LAYOUT: ClassVar[Mapping[type, tuple[int, ...]]] = {}

    def __init__(
        self, architecture: Architecture, objective: Objective, adam: Adam, *, dtype: Dtype = "float32"
    ) -> None:
        self.architecture, self.objective, self.adam, self.dtype = architecture, objective, adam, dtype
        self._axes = {
            f"{step.name}.kernel": self.LAYOUT[type(step.layer)]
            for step in architecture.all_steps
            if type(step.layer) in self.LAYOUT
        }

    @abstractmethod
    def place(self, array: np.ndarray) -> Any:
        """The array on the device."""

    @abstractmethod
    def select(self, placed: Any, rows: np.ndarray) -> Any:
        """Rows of an array on the device."""

    @abstractmethod
    def step(self, images: Any, noise: Any) -> Any:
        """One step of training on a batch that is on the device; its `Terms`, still on the device."""

    @abstractmethod
    def fetch(self, results: Sequence[Any]) -> Terms:
        """The results of k steps as arrays of shapes (k,), (k,) and (k, n, d)."""

    @abstractmethod
    def _encode(self, images: Any) -> np.ndarray: ...

    @abstractmethod
    def _decode(self, z: Any) -> np.ndarray: ...

    @abstractmethod
    def _read(self) -> State:
        """The state in the framework's own layout."""

    @abstractmethod
    def _write(self, state: State) -> None: ...

    def batches(self, images: np.ndarray) -> Any:
        """A function from row numbers to those images on the device.

        All images are moved there once, unless they are memory-mapped and may exceed its memory.
        """
        if isinstance(images, np.memmap):
            return lambda rows: self.place(images[rows])
        placed = self.place(images)
        return lambda rows: self.select(placed, rows)

    def noise(self, rng: np.random.Generator, count: int) -> Any:
        """The noise of one step, on the device."""
        numbers = self.objective.noise(rng, count, self.architecture.dim)
        return None if numbers is None else self.place(numbers.astype(self.dtype))

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The latent vectors (n, d) of images in evaluation mode; for a VAE the means of their posteriors."""
        codes = [self._encode(self.place(chunk)) for chunk in _chunks(images)]
        return np.concatenate(codes)[:, : self.architecture.dim]

    def decode(self, z: np.ndarray) -> np.ndarray:
        """The images (n, height, width, channels), from 0 to 1, of latent vectors (n, d) in evaluation mode."""
        return np.concatenate([self._decode(self.place(chunk)) for chunk in _chunks(z.astype(self.dtype))])

    @property
    def state(self) -> State:
        """All weights and moments, on the host and in the neutral layout."""
        state = self._read()
        return State(*(self._transposed(part, np.argsort) for part in state[:3]), state.step)

    @state.setter
    def state(self, state: State) -> None:
        expected = self.architecture.weights
        trained = {name: shape for name, shape in expected.items() if not is_statistic(name)}
        for found, shapes in zip(state[:3], (expected, trained, trained), strict=True):
            check_shapes({name: value.shape for name, value in found.items()}, shapes)
        self._write(State(*(self._transposed(part, tuple) for part in state[:3]), state.step))

    def _transposed(self, arrays: Mapping[str, np.ndarray], order: Any) -> dict[str, np.ndarray]:
        return {
            name: np.ascontiguousarray(value.transpose(order(self._axes[name])) if name in self._axes else value)
            for name, value in arrays.items()
        }


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that weights are those of an architecture.

    Raises:
        StateError: one is missing, unknown, or of another shape.
    """
    for name in {**expected, **found}:
        if found.get(name) != expected.get(name):
            raise StateError(
                f"{name} must have the shape {expected.get(name, '(there is no such weight)')}, got "
                f"{found.get(name, 'nothing')}; these weights are of another architecture, width or dimension"
            )


def missing_packages(framework: Framework) -> list[str]:
    """The packages of a framework that are not installed."""
    return [name for name in PACKAGES[framework] if importlib.util.find_spec(name) is None]


def create(framework: Framework, *args: Any, state: State, **options: Any) -> Autoencoder:
    """An `Autoencoder` of a framework, which is imported here, with a state.

    Raises:
        FrameworkError: it is not installed, or the device is not available.
        StateError: the state is that of another architecture.
    """
    if missing := missing_packages(framework):
        raise FrameworkError(
            f"framework {framework} needs {', '.join(missing)}: pip install 'eccentric[models,{_EXTRA[framework]}]', "
            f"or choose another framework"
        )
    model = importlib.import_module(f"eccentric_models.frameworks.{framework}_model").Model(*args, **options)
    model.state = state
    return model


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + _CHUNK] for start in range(0, len(array), _CHUNK))
