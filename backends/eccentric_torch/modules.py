"""The energies as modules: one that keeps a projection, and regularizers of a batch and of a network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eccentric_core import (
    AdversarialProjection,
    AnglePreservingProjection,
    LearnedProjection,
    compressive_energy,
    eccentric_loss,
    hyperspherical_energy,
    init_projection,
    update_projection,
)
from eccentric_core.checks import check_mu
from eccentric_core.energies.hyperspherical import EnergyOptions, energy_of
from eccentric_core.energies.projections import network_rule
from eccentric_core.networks import Policy
from eccentric_core.theory.scale import check_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.energies.hyperspherical import Normalization


class EccentricLoss(nn.Module):
    """`eccentric_loss` as a module.

    Args:
        mu, scale: as in `eccentric_loss`. A `torch.nn.Parameter` is learned with the model, a tensor is a buffer.
        group: as in `eccentric_loss`.
    """

    def __init__(self, mu: Any = 1.0, scale: Any = "paper", group: Any = None) -> None:
        super().__init__()
        self.group = group
        for name, value in (("mu", mu), ("scale", scale)):
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)
        if not isinstance(mu, Tensor):
            self.mu = float(mu)
            check_mu(self.mu)
        check_scale(scale)

    def forward(self, z: Tensor) -> Tensor:
        """The loss of z."""
        return eccentric_loss(z, self.mu, scale=self.scale, group=self.group)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"mu={float(self.mu):g}, scale={self.scale!r}"


class CompressiveEnergy(nn.Module):
    """`compressive_energy` as a module, which keeps what is learned: P is a buffer.

    Args:
        in_features: D, the inputs of a neuron: of a convolution, channels times the size of its kernel.
        projection: "random", "group", "angle-preserving", "adversarial", or such a rule.
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        rng: the `torch.Generator` that projections are drawn from; None is PyTorch's own.
        device, dtype: of P.

    In training every call takes the gradient steps of one step of training on P; in evaluation P stays.
    """

    def __init__(
        self,
        in_features: int,
        projection: Any = "random",
        s: float = 2.0,
        *,
        half_space: bool = False,
        angular: bool = False,
        normalization: Normalization = "paper",
        eps: float | None = None,
        rng: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if projection is None:
            raise ValueError("projection must be one of those of CoMHE, got None; without one there is MHE")
        self.rule, self.options = network_rule(projection), EnergyOptions(s, half_space, angular, normalization, eps)
        energy_of("float32", self.options)  # checks it
        self.rng = rng
        self.register_buffer("matrix", None)
        if isinstance(self.rule, AnglePreservingProjection | AdversarialProjection):
            like = torch.empty((2, in_features), device=device, dtype=dtype)
            self.matrix = init_projection(like, self.rule, rng=rng).matrix

    def forward(self, w: Tensor) -> Tensor:
        """The energy of weights (n, ...)."""
        if self.matrix is None:
            return compressive_energy(w, self.rule, **self.options._asdict(), rng=self.rng)
        if self.training:
            projection = LearnedProjection(self.matrix, self.rule)
            self.matrix.copy_(update_projection(projection, w, **self.options._asdict()).matrix)
        # Cloned: it is updated in place, possibly before backward.
        projection = LearnedProjection(self.matrix.clone(), self.rule)
        return compressive_energy(w, projection, **self.options._asdict())

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.rule}, {', '.join(f'{name}={value}' for name, value in self.options._asdict().items())}"


class HypersphericalRegularizer(nn.Module):
    """What MHE and CoMHE add to the loss of a network: the weighted energies of its layers.

    `loss = criterion(model(x), y) + regularizer()`

    Every linear layer and every convolution of two neurons or more counts, but no depthwise one: hidden layers in the
    half-space, the output layer in the full space and with ten times the weight.

    Args:
        model: the network, whose weights are looked up at every call; it is no part of the regularizer's state.
        s, angular, normalization, eps: as in `hyperspherical_energy`.
        half_space: of hidden layers.
        weight: of a hidden layer; None for 1, or 0.1 for angular energies of s > 0, as in the official code.
        output_weight: that of the output layer in units of it.
        output: the name of the output layer; None for the last in the order of `model.named_modules()`.
        projection: None for MHE; for CoMHE as in `CompressiveEnergy`. A convolution of images (4 channels or fewer) is
            not projected, nor a layer whose neurons have no more inputs than the projection has dimensions.
        energy: a function of rows (n, D) in the place of the hyperspherical energy, for instance `eccentric_loss`.
        exclude: names of layers that do not count.
        rng: the `torch.Generator` that projections are drawn from; None is PyTorch's own.

    Learned projections are buffers: save the regularizer beside the network, and `train()` and `eval()` them together.

    Raises:
        ValueError: an argument is not as described, or there is no such layer.
    """

    def __init__(
        self,
        model: nn.Module,
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
        energy: Callable[[Tensor], Tensor] | None = None,
        exclude: tuple[str, ...] = (),
        rng: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        options = EnergyOptions(s, half_space, angular, normalization, eps)
        energy_of("float32", options)  # checks it
        policy = Policy(options, weight, output_weight, projection, energy)
        layers = {name: layer for name, layer in model.named_modules() if _counts(layer)}
        for name in (*exclude, *([] if output is None else [output])):
            if name not in layers:
                raise ValueError(f"there is no layer {name!r} of two neurons or more; there are {', '.join(layers)}")
        output = next(reversed(layers), None) if output is None else output
        layers = {name: layer for name, layer in layers.items() if name not in exclude}
        if not layers:
            raise ValueError("model must have a linear layer or a convolution of two neurons or more, got none")
        # Not as modules of its own: they belong to the network.
        self._layers = tuple(layers.items())
        self.weights, self._energies = {}, {}
        self.compressive = nn.ModuleDict()
        for name, layer in layers.items():
            rows = _neurons(layer)
            channels = getattr(layer, "in_channels", None)
            self.weights[name], layer_options, rule = policy.for_layer(
                rows.shape[1], output=name == output, channels=channels
            )
            if policy.energy is not None:
                self._energies[name] = policy.energy
            elif rule is None:
                self._energies[name] = partial(hyperspherical_energy, **layer_options._asdict())
            else:
                module = CompressiveEnergy(
                    rows.shape[1], rule, **layer_options._asdict(), rng=rng, device=rows.device, dtype=rows.dtype
                )
                self.compressive["of_" + name.replace(".", "/")] = module
                self._energies[name] = module

    def energies(self) -> dict[str, Tensor]:
        """The energy of every layer, by its name, without weights."""
        return {name: self._energies[name](_neurons(layer)) for name, layer in self._layers}

    def forward(self) -> Tensor:
        """The weighted sum over layers."""
        return torch.stack([self.weights[name] * energy for name, energy in self.energies().items()]).sum()


def _counts(layer: nn.Module) -> bool:
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    depthwise = getattr(layer, "groups", 1) > 1 and layer.groups == layer.in_channels
    return isinstance(layer, kinds) and not depthwise and len(_neurons(layer)) > 1


def _neurons(layer: nn.Module) -> Tensor:
    """The weight of a layer as rows, one for each output."""
    weight = layer.weight
    if getattr(layer, "transposed", False):  # (in, out / groups, ...)
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)
