"""Hyperspherical energies as Keras objects, for every backend of Keras 3."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

from eccentric_core import compressive_energy, eccentric_loss, hyperspherical_energy, update_projection
from eccentric_core.checks import compute_dtype
from eccentric_core.energies import projections
from eccentric_core.energies.compressive import projected_energy
from eccentric_core.energies.hyperspherical import EnergyOptions, energy_of
from eccentric_core.energies.projections import LearnedProjection, network_rule
from eccentric_core.networks import Policy
from eccentric_keras.latents import has_no_pairs, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eccentric_core.energies.hyperspherical import Normalization


class _Energy:
    """The arguments of an energy, and their way into a configuration and back."""

    def _set(self, options: EnergyOptions, projection: Any, axis: int) -> None:
        energy_of("float32", options)  # checks it
        if axis not in (0, -1, -2):
            raise ValueError(f"axis must be 0, -1 or -2, that of the neurons, got {axis!r}")
        if isinstance(projection, dict):
            projection = getattr(projections, projection["rule"])(**projection["arguments"])
        self.options, self.projection, self.axis = options, network_rule(projection), axis
        self.learns = Policy(options, projection=projection).learns

    def _rows(self, kernel: Any) -> Any:
        """The neurons of a kernel as rows."""
        kernel = keras.ops.moveaxis(keras.ops.convert_to_tensor(kernel), self.axis, 0)
        return keras.ops.reshape(kernel, (kernel.shape[0], -1))

    def _config(self) -> dict[str, Any]:
        rule = self.projection
        saved = None if rule is None else {"rule": type(rule).__name__, "arguments": asdict(rule)}
        return {**self.options._asdict(), "projection": saved, "axis": self.axis}


@keras.saving.register_keras_serializable(package="eccentric")
class HypersphericalRegularizer(_Energy, keras.regularizers.Regularizer):
    """The weighted hyperspherical energy of the neurons of a layer, for its `kernel_regularizer`.

    `Dense(64, kernel_regularizer=HypersphericalRegularizer())` in hidden layers, and in the output layer
    `HypersphericalRegularizer(10.0, half_space=False)`: so do the papers, and so does `regularize(model)`.

    Args:
        weight: of the energy, 0 or more. The official code takes 1, for angular energies of s > 0 0.1.
        s, half_space, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`.
        projection: None for MHE; for CoMHE "random" or "group", or such a rule, drawn anew in every step from the
            framework's own generator (in Keras on JAX, which has none, use `CompressiveEnergy`).
        energy: "hyperspherical", or "eccentric" for the eccentric loss of the neurons in its place.
        axis: of the neurons in a kernel; -2 in transposed convolutions.

    A single neuron has no pairs and adds 0.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """

    def __init__(
        self,
        weight: float = 1.0,
        s: float = 2.0,
        *,
        half_space: bool = True,
        angular: bool = False,
        normalization: Normalization = "paper",
        eps: float | None = None,
        projection: Any = None,
        energy: str = "hyperspherical",
        axis: int = -1,
    ) -> None:
        self._set(EnergyOptions(s, half_space, angular, normalization, eps), projection, axis)
        Policy(self.options, weight)  # checks it
        if energy not in ("hyperspherical", "eccentric"):
            raise ValueError(f'energy must be "hyperspherical" or "eccentric", got {energy!r}')
        if self.learns:
            raise ValueError(
                f"projection {self.projection} is learned and has a state: use the layer CompressiveEnergy"
            )
        self.weight, self.energy = weight, energy

    def __call__(self, x: Any) -> Any:
        rows = self._rows(x)
        if has_no_pairs(rows):
            return nothing(rows)
        if self.energy == "eccentric":
            return self.weight * eccentric_loss(rows)
        if self.projection is None:
            return self.weight * hyperspherical_energy(rows, **self.options._asdict())
        if keras.backend.backend() == "jax":
            raise ValueError("a regularizer has no random numbers in Keras on JAX: use the layer CompressiveEnergy")
        return self.weight * compressive_energy(rows, self.projection, **self.options._asdict())

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"weight": self.weight, "energy": self.energy, **self._config()}


@keras.saving.register_keras_serializable(package="eccentric")
class CompressiveEnergy(_Energy, keras.layers.Layer):
    """The energy of projected neurons, with a projection that is learned as a weight, or seeds to draw from.

    In a layer or model of yours: `self.comhe = CompressiveEnergy("adversarial")`, and in its `call`
    `self.add_loss(self.comhe(self.hidden.kernel, training=training))`.

    Args:
        projection: "random", "group", "angle-preserving", "adversarial", or such a rule.
        s, half_space, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`.
        axis: of the neurons in a kernel; -2 in transposed convolutions.
        seed: of what is drawn.
        kwargs: of `keras.layers.Layer`.

    In training every call takes the gradient steps of one step of training on the projection.
    """

    def __init__(
        self,
        projection: Any = "angle-preserving",
        s: float = 2.0,
        *,
        half_space: bool = True,
        angular: bool = False,
        normalization: Normalization = "paper",
        eps: float | None = None,
        axis: int = -1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if projection is None:
            raise ValueError("projection must be one of those of CoMHE, got None; without one there is MHE")
        self._set(EnergyOptions(s, half_space, angular, normalization, eps), projection, axis)
        self.seed = seed
        self.seeds = keras.random.SeedGenerator(seed)
        self.matrix = None

    def build(self, input_shape: Any) -> None:
        """Make the projection for kernels of a shape."""
        if self.learns:
            d = math.prod(input_shape) // input_shape[self.axis]
            start = keras.initializers.RandomNormal(stddev=d**-0.5, seed=self.seed)
            self.matrix = self.add_weight(shape=(self.projection.dim, d), initializer=start, trainable=False)
        super().build(input_shape)

    def call(self, kernel: Any, training: bool | None = None) -> Any:
        """The energy of a kernel, a scalar."""
        rows, projection = self._rows(kernel), self.projection
        if has_no_pairs(rows):
            return nothing(rows)
        if self.learns:
            projection = LearnedProjection(keras.ops.convert_to_tensor(self.matrix), projection)
            if training:
                projection = update_projection(projection, rows, **self.options._asdict())
                self.matrix.assign(projection.matrix)
        normal = partial(keras.random.normal, dtype=compute_dtype(rows, "kernel"), seed=self.seeds)
        return projected_energy(rows, projection, self.options, normal)

    def compute_output_shape(self, input_shape: Any) -> Any:  # noqa: ARG002
        """That of a scalar."""
        return ()

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), **self._config(), "seed": self.seed}


def regularize(
    model: keras.Model,
    s: float = 2.0,
    *,
    half_space: bool = True,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    weight: float | None = None,
    output_weight: float = 10.0,
    output: str | None = None,
    projection: Any = None,
    energy: str = "hyperspherical",
) -> dict[str, HypersphericalRegularizer]:
    """Regularise the kernels of a built model as MHE and CoMHE do: its loss has their weighted energies from now on.

    Every dense layer and every convolution of two neurons or more counts, but no depthwise one: hidden layers in the
    half-space, the output layer in the full space and with ten times the weight.

    Args:
        model: a Keras model; regularizers that its kernels have are replaced.
        s, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`.
        half_space: of hidden layers.
        weight: of a hidden layer; None for 1, or 0.1 for angular energies of s > 0, as in the official code.
        output_weight: that of the output layer in units of it.
        output: the output layer, by name or path like the result; None for the last of the model's layers.
        projection, energy: as in `HypersphericalRegularizer`. A convolution of images (4 channels or fewer) is not
            projected, nor a layer whose neurons have no more inputs than the projection has dimensions.

    Returns:
        What every layer has, by its name, or by its path where names repeat.

    Raises:
        TypeError, ValueError: an argument is not as described, the model is not built, or there is no such layer.
    """
    if not model.built:
        raise ValueError("model must be built before its kernels can be regularised; call it on data or build it")
    policy = Policy(EnergyOptions(s, half_space, angular, normalization, eps), weight, output_weight, projection)
    counting = [layer for layer in _walk(model, set()) if _counts(layer)]
    names = Counter(layer.name for layer in counting)
    layers = {layer.name if names[layer.name] == 1 else layer.path: layer for layer in counting}
    if not layers:
        raise ValueError("model must have a dense layer or a convolution of two neurons or more, got none")
    output = next(reversed(layers)) if output is None else output
    if output not in layers:
        raise ValueError(f"there is no layer {output!r} with a kernel of two neurons or more; there are {list(layers)}")
    found = {}
    for name, layer in layers.items():
        axis = _axis(layer)
        shape = layer.kernel.shape
        channels = shape[-3 - axis] * getattr(layer, "groups", 1) if len(shape) > 2 else None
        inputs = math.prod(shape) // shape[axis]
        layer_weight, options, rule = policy.for_layer(inputs, output=name == output, channels=channels)
        found[name] = HypersphericalRegularizer(
            layer_weight, **options._asdict(), projection=rule, energy=energy, axis=axis
        )
    for name, regularizer in found.items():
        layers[name].kernel_regularizer = regularizer  # for its configuration
        layers[name].kernel.regularizer = regularizer
    # What was compiled before knows nothing of them.
    model.train_function = model.test_function = None
    return found


def _walk(layer: Any, seen: set[int]) -> Iterator[Any]:
    """A layer and those within it, in the order in which they were made."""
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for inner in layer._layers:
            yield from _walk(inner, seen)


def _counts(layer: Any) -> bool:
    kinds = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    transposed = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
    return isinstance(layer, (*kinds, *transposed)) and layer.kernel.shape[_axis(layer)] > 1


def _axis(layer: Any) -> int:
    """The neurons' axis in the kernel of a layer."""
    return -2 if "Transpose" in type(layer).__name__ else -1
