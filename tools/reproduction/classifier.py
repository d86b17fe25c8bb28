"""A small convolutional classifier, trained with an energy of its neurons in the loss."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from eccentric_models.frameworks.torch_model import find_device
from eccentric_torch import HypersphericalRegularizer, eccentric_loss, hyperspherical_energy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eccentric_models.data import Dataset, Split
    from reproduction.trainings import Arm, Training

_CHUNK = 500  # images that are tested at once


def train(training: Training, dataset: Dataset) -> dict[str, Any]:
    """Train a network and test it; return the fields of an outcome, except the versions."""
    device = find_device(training.device)
    rng = np.random.default_rng(training.seed)
    chosen = rng.permutation(len(dataset.train.images))[: training.images]
    images, labels = _tensors(dataset.train, chosen, device)
    with _one_thread():
        model = network(images.shape[1:], int(dataset.train.labels.max()) + 1, training.seed).to(device)
        added = regularizer(model, training.arm, training.seed)
        optimiser = torch.optim.SGD(
            model.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, training.epochs)
        energies, seconds = [hidden_energies(model)], []
        for _ in range(training.epochs):
            start = time.perf_counter()
            for batch in torch.as_tensor(rng.permutation(len(images)), device=device).split(training.batch_size):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
                (loss if added is None else loss + added()).backward()
                optimiser.step()
            schedule.step()
            seconds.append(time.perf_counter() - start)
            energies.append(hidden_energies(model))
        everything = _tensors(dataset.test, slice(None), device)
        return {
            "test_error": error_rate(model, *everything),
            "training_error": error_rate(model, images, labels),
            "layers": [[len(layer.weight), layer.weight[0].numel()] for layer in _layers(model)[:-1]],
            "energies": energies,
            "seconds": seconds,
        }


def network(shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
    """Two blocks of two convolutions, a hidden layer, an output layer.

    Args:
        shape: of an image, (channels, height, width).
        classes: their number.
        seed: of the initial weights, which are those of He et al. (2015).
    """
    channels, height, width = shape
    model = nn.Sequential(
        *_block(channels, 32),
        *_block(32, 64),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(model):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU


def regularizer(model: nn.Module, arm: Arm, seed: int) -> HypersphericalRegularizer | None:
    """The penalty of an arm, or None; the seed determines random projections."""
    if arm.energy == "none":
        return None
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    energy = eccentric_loss if arm.energy == "eccentric" else None
    return HypersphericalRegularizer(
        model,
        half_space=arm.half_space,
        projection=arm.projection,
        weight=arm.weight,
        energy=energy,
        rng=generator,
    )


@torch.no_grad()
def hidden_energies(model: nn.Module) -> list[float]:
    """The half-space energies, s = 2, of hidden layers, in float64: one measure for all arms."""
    return [float(hyperspherical_energy(layer.weight.double(), half_space=True)) for layer in _layers(model)[:-1]]


@torch.no_grad()
def error_rate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The rate of wrong answers, from 0 to 1."""
    answers = torch.cat([model(some).argmax(1) for some in images.split(_CHUNK)])
    return float((answers != labels).double().mean())


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]


def _layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _tensors(split: Split, which: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (n, channels, height, width) from 0 to 1, and classes."""
    images = torch.tensor(np.moveaxis(split.images[which], -1, 1), device=device) / 255
    return images.contiguous(memory_format=torch.channels_last), torch.tensor(split.labels[which], device=device)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, so that the order of sums, and with it the result, does not depend on the number of processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
