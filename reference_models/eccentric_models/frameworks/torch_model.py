"""The autoencoders in PyTorch. Images are NHWC outside and channels-last inside, which is the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

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
from eccentric_models.objectives import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np


class Model(Autoencoder):
    """The autoencoder as two `nn.Sequential`s."""

    LAYOUT: ClassVar[Mapping[type, tuple[int, ...]]] = {
        Convolution: (3, 2, 0, 1),
        TransposedConvolution: (2, 3, 0, 1),
        Dense: (1, 0),
    }

    def __init__(self, *args: Any, device: str = "auto", **options: Any) -> None:
        super().__init__(*args, **options)
        self._device = find_device(device)
        self._weights: dict[str, Tensor] = {}
        self._encoder, self._decoder = (self._network(part) for part in ("encoder", "decoder"))
        self._trained = {name: weight for name, weight in self._weights.items() if not is_statistic(name)}
        adam = self.adam
        self._optimizer = torch.optim.Adam(
            self._trained.values(),
            lr=adam.learning_rate,
            betas=(adam.beta1, adam.beta2),
            eps=adam.epsilon,
            weight_decay=adam.weight_decay,
            fused=True,
        )

    def place(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self._device)  # a copy, as memory-mapped arrays are read-only

    def select(self, placed: Tensor, rows: np.ndarray) -> Tensor:
        return placed[self.place(rows)]

    def step(self, images: Tensor, noise: Tensor | None) -> Terms:
        for network in (self._encoder, self._decoder):
            network.train()
        self._optimizer.zero_grad()
        loss, terms = self.objective.loss(self._encoder, self._decoder, self._scaled(images), noise)
        loss.backward()
        self._optimizer.step()
        return Terms(*(value.detach() for value in terms))

    def fetch(self, results: Sequence[Terms]) -> Terms:
        return Terms(*(torch.stack(values).numpy(force=True) for values in zip(*results, strict=True)))

    def _encode(self, images: Tensor) -> np.ndarray:
        return _evaluate(self._encoder, self._scaled(images)).numpy(force=True)

    def _decode(self, z: Tensor) -> np.ndarray:
        return _evaluate(self._decoder, z).permute(0, 2, 3, 1).numpy(force=True)

    def _scaled(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).to(getattr(torch, self.dtype)) / 255

    def _network(self, part: str) -> nn.Sequential:
        # Built on the meta device, without random numbers: the weights are overwritten before they are read.
        network, named = nn.Sequential(), []
        for step in self.architecture.steps(part):
            modules = _modules(step)
            network.extend(modules)
            named += [(step.name, module) for module in modules]
        network.to_empty(device=self._device)
        network.to(dtype=getattr(torch, self.dtype), memory_format=torch.channels_last)
        for name, module in named:
            self._weights |= {f"{name}.{key}": weight for key, weight in _weights(module).items()}
        return network

    def _read(self) -> State:
        moments = {name: self._optimizer.state[weight] for name, weight in self._trained.items()}
        return State(
            {name: _numpy(weight) for name, weight in self._weights.items()},
            {name: _numpy(moment["exp_avg"]) for name, moment in moments.items()},
            {name: _numpy(moment["exp_avg_sq"]) for name, moment in moments.items()},
            int(next(iter(moments.values()))["step"]),
        )

    def _write(self, state: State) -> None:
        for name, weight in self._weights.items():
            _copy(weight, state.weights[name])
        for name, weight in self._trained.items():
            self._optimizer.state[weight] = {
                "step": torch.tensor(float(state.step), device=self._device),
                "exp_avg": _copy(torch.empty_like(weight), state.means[name]),
                "exp_avg_sq": _copy(torch.empty_like(weight), state.squares[name]),
            }


class _BatchNorm(nn.BatchNorm2d):
    """With the running variance of the population, where PyTorch has that of a sample, and with exact moments.

    On a CPU PyTorch adds up the float32 pixels of a channels-last image one after the other, which leaves four digits.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        mean, variance = _moments(x.detach())
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, self.eps)


class _Normalise(torch.autograd.Function):
    """Batch normalisation with given moments of the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, scale, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return nn.functional.batch_norm(x, mean, variance, scale, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, *moments = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            upstream, x, scale, None, None, *moments, True, ctx.eps, [True, True, True]
        )
        return *gradients, None, None, None


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel."""
    mean = x.mean((0, 2, 3))
    return mean, (x - mean[:, None, None]).square_().mean((0, 2, 3))


class _Reshape(nn.Module):
    """`Reshape`, in the order of axes of the description."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        x = (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(x.shape[0], *self.shape)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _modules(step: Step) -> list[nn.Module]:
    """A layer as modules of which at most one has weights."""
    meta = {"device": "meta"}
    match step.layer:
        case Pad(margin):
            return [nn.ZeroPad2d(margin)]
        case Convolution(channels, kernel, stride, (before, after), bias):
            both = min(before, after)
            module = nn.Conv2d(step.input_shape[2], channels, kernel, stride, both, bias=bias, **meta)
            return [*_margin(before - both, after - both), module]
        case TransposedConvolution(channels, kernel, stride, (before, after), bias):
            both = min(before, after)
            module = nn.ConvTranspose2d(step.input_shape[2], channels, kernel, stride, both, bias=bias, **meta)
            return [module, *_margin(both - before, both - after)]  # a negative padding crops
        case Dense(features):
            return [nn.Linear(step.input_shape[0], features, **meta)]
        case BatchNorm(momentum, epsilon):
            return [_BatchNorm(step.input_shape[2], epsilon, momentum, **meta)]
        case LeakyReLU(slope):
            return [nn.LeakyReLU(slope)]
        case Sigmoid():
            return [nn.Sigmoid()]
        case Reshape(shape):
            return [_Reshape(shape)]


def _margin(before: int, after: int) -> list[nn.Module]:
    """The rest of a padding, where PyTorch's own is the same on both sides."""
    return [nn.ZeroPad2d((before, after, before, after))] if before or after else []


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a module by their neutral names."""
    if isinstance(module, nn.BatchNorm2d):
        running = {"mean": module.running_mean, "variance": module.running_var}
        return {"scale": module.weight, "bias": module.bias, **running}
    names = {"kernel": "weight", "bias": "bias"}
    return {key: weight for key, name in names.items() if (weight := getattr(module, name, None)) is not None}


@torch.no_grad()
def _evaluate(network: nn.Module, x: Tensor) -> Tensor:
    return network.eval()(x)


@torch.no_grad()
def _copy(target: Tensor, values: np.ndarray) -> Tensor:
    return target.copy_(torch.from_numpy(values))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def find_device(name: str) -> torch.device:
    """The device of a name: "auto", "cpu" or "gpu".

    Raises:
        FrameworkError: there is no GPU.
    """
    if name == "cpu" or not (torch.cuda.is_available() or name == "gpu"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise FrameworkError('device "gpu": PyTorch finds none; use "auto" or "cpu"')
    return torch.device("cuda")
