"""Hyperspherical energies of weights and features, and a network's regularizer that is made of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eccentric_core.checks import check_batch, compute_dtype
from eccentric_core.energies.compressive import first_projection, next_projection, projected, projected_energy
from eccentric_core.energies.hyperspherical import Riesz, as_rows, gaussian_energy, riesz_energy
from eccentric_core.energies.projections import (
    AdversarialProjection,
    AnglePreservingProjection,
    LearnedProjection,
    network_rule,
)
from eccentric_core.networks import Policy
from eccentric_torch import _compiled, _engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.energies.hyperspherical import Normalization


def hyperspherical_energy(
    w: Tensor,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> Tensor:
    """The hyperspherical energy of neurons or features, `eccentric_core.hyperspherical_energy` for PyTorch.

    Args:
        w: one row for each neuron, (n, D) or (n, ...): the weight of a linear layer or a convolution as it is.
        s, half_space, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`; Python values.

    Returns:
        A 0-d tensor with derivatives: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    if torch.compiler.is_compiling():
        return _compiled.hyperspherical(_rows(w), which)
    w = as_rows(w, _engine.XP)
    dtype = compute_dtype(w, "w")
    return _engine.apply(riesz_energy(dtype, which, _engine.DRIVER), w.to(getattr(torch, dtype)))


def uniformity(z: Tensor, t: float = 2.0) -> Tensor:
    """The log of the mean Gaussian potential of features on the sphere, `eccentric_core.uniformity` for PyTorch.

    Args:
        z: features of shape (..., n, d); leading axes are separate batches.
        t: the inverse width of the Gaussian, a Python number.

    Returns:
        A tensor of shape (...) with derivatives: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    if torch.compiler.is_compiling():
        return _compiled.gaussian(z.to(getattr(torch, compute_dtype(z, "z"))), t).log()
    energy = gaussian_energy(z, t, _engine.DRIVER)
    return _engine.apply(energy, z.to(getattr(torch, compute_dtype(z, "z")))).log()


def compressive_energy(
    w: Tensor,
    projection: Any = "random",
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean hyperspherical energy of projected neurons, `eccentric_core.compressive_energy` for PyTorch.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        projection: "random" or "group", drawn anew at every call, or such a rule; matrices of shape (k, D) or
            (draws, k, D), through which derivatives go, too; a `LearnedProjection` (`CompressiveEnergy` keeps one).
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        generator: what a projection is drawn from, on the device of w; None is PyTorch's own.

    Returns:
        A 0-d tensor with derivatives.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    return energy_of_projected(w, projection, Riesz(s, half_space, angular, normalization, eps), _normal(w, generator))


def energy_of_projected(
    w: Tensor, projection: Any, which: Riesz, normal: Callable[[tuple[int, ...]], Tensor]
) -> Tensor:
    """The energy under projections that are drawn from a source of normal numbers."""
    with _engine.no_autocast(w):
        if torch.compiler.is_compiling():
            return _compiled.hyperspherical(projected(_rows(w), projection, normal, _compiled.XP), which).mean()
        return projected_energy(w, projection, which, _engine.apply, normal, _engine.DRIVER)


def init_projection(
    w: Tensor, rule: Any = "angle-preserving", *, generator: torch.Generator | None = None
) -> LearnedProjection:
    """A projection to learn, for weights like these; `CompressiveEnergy` is the module that keeps one.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        rule: "angle-preserving" or "adversarial", or such a rule.
        generator: what it is drawn from, on the device of w; None is PyTorch's own.
    """
    return first_projection(w, rule, _normal(w, generator), _engine.XP)


@torch.no_grad()
def update_projection(
    projection: LearnedProjection,
    w: Tensor,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> LearnedProjection:
    """The projection after its gradient steps for one step of training; no derivatives go through it.

    Args:
        projection: as it is.
        w: the weights as they are.
        s, half_space, angular, normalization, eps: of the energy that an adversarial projection raises.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    with _engine.no_autocast(w):
        if torch.compiler.is_compiling():
            return LearnedProjection(_compiled.next_matrix(projection, _rows(w), which), projection.rule)
        return next_projection(projection, w, which, _engine.DRIVER)


class CompressiveEnergy(nn.Module):
    """`compressive_energy` as a module, which keeps what is learned: P is a buffer.

    Args:
        in_features: D, the inputs of a neuron: of a convolution, channels times the size of its kernel.
        projection: "random", "group", "angle-preserving", "adversarial", or such a rule.
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        generator: what projections are drawn from; None is PyTorch's own.
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
        generator: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if projection is None:
            raise ValueError("projection must be one of those of CoMHE, got None; without one there is MHE")
        self.rule, self.which = network_rule(projection), Riesz(s, half_space, angular, normalization, eps)
        riesz_energy("float32", self.which, _engine.DRIVER)  # checks it
        self.generator = generator
        self.register_buffer("matrix", None)
        if isinstance(self.rule, AnglePreservingProjection | AdversarialProjection):
            like = torch.empty((2, in_features), device=device, dtype=dtype)
            self.matrix = first_projection(like, self.rule, _normal(like, generator), _engine.XP).matrix

    def forward(self, w: Tensor) -> Tensor:
        """The energy of weights (n, ...)."""
        if self.matrix is None:
            return energy_of_projected(w, self.rule, self.which, _normal(w, self.generator))
        if self.training:
            projection = LearnedProjection(self.matrix, self.rule)
            self.matrix.copy_(update_projection(projection, w, **self.which._asdict()).matrix)
        # A copy: the next step may come before the way back of this one.
        projection = LearnedProjection(self.matrix.clone(), self.rule)
        return energy_of_projected(w, projection, self.which, _normal(w, self.generator))

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.rule}, {', '.join(f'{name}={value}' for name, value in self.which._asdict().items())}"


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
        generator: what projections are drawn from; None is PyTorch's own.

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
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        which = Riesz(s, half_space, angular, normalization, eps)
        riesz_energy("float32", which, _engine.DRIVER)  # checks it
        policy = Policy(which, weight, output_weight, projection, energy)
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
            self.weights[name], of_layer, rule = policy.of_layer(
                rows.shape[1], output=name == output, channels=channels
            )
            if policy.energy is not None:
                self._energies[name] = policy.energy
            elif rule is None:
                self._energies[name] = partial(hyperspherical_energy, **of_layer._asdict())
            else:
                module = CompressiveEnergy(
                    rows.shape[1], rule, **of_layer._asdict(), generator=generator, device=rows.device, dtype=rows.dtype
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


def _rows(w: Tensor) -> Tensor:
    """The same as `as_rows`, in a graph that is being compiled, where an operator checks what comes."""
    w = w.flatten(1) if w.ndim > 2 else w
    return w.to(getattr(torch, compute_dtype(w, "w")))


def _normal(w: Tensor, generator: torch.Generator | None) -> Callable[[tuple[int, ...]], Tensor]:
    if not isinstance(w, Tensor):
        check_batch(w, "w")
    options = {"device": w.device, "dtype": getattr(torch, compute_dtype(w, "w"))}
    if generator is not None:  # which no compiled graph takes
        options["generator"] = generator
    return lambda shape: torch.randn(shape, **options)
