"""The training loop of all frameworks. It imports none of them, and draws every random number itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from eccentric_core import spectrum
from eccentric_models.architecture import initial_weights
from eccentric_models.checkpoint import Checkpoint, versions
from eccentric_models.data import load
from eccentric_models.frameworks import State, create
from eccentric_models.log import Log
from eccentric_models.settings import RunError, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from eccentric_models.data import Dataset
    from eccentric_models.frameworks import Autoencoder

CHECKPOINT = "checkpoint.safetensors"

# Steps between two reads of their results: the device does not wait for the host in between.
_EVERY = 50


class Watcher(Protocol):
    """A callback that is told the progress of a run."""

    def __call__(self, step: int, steps: int, record: dict[str, Any]) -> None:
        """A step out of a number of steps is done; the record has the latest means."""


def train(
    settings: Settings, out: Path, *, resume: bool = False, dataset: Dataset | None = None, watch: Watcher | None = None
) -> tuple[Autoencoder, Dataset]:
    """Train a run to its last epoch, with a checkpoint at the start and after every epoch.

    Args:
        settings: of the run.
        out: its folder.
        resume: continue the run that is there, or start it.
        dataset: the data, if they are loaded already.
        watch: called every 50 steps and at the end of an epoch.

    Returns:
        The trained autoencoder and the data.

    Raises:
        RunError: there is a run already, or a run with other settings; there is less data than a batch; the loss is
            no longer finite.
        CheckpointError, DataError, FrameworkError: see their modules.

    A run that was interrupted at any moment and is resumed (same framework, same machine) ends in the same bits as one
    that was not.
    """
    path = out / CHECKPOINT
    if path.exists() and not resume:
        raise RunError(f"{out} has a run already; continue it with --resume, or give another --out")
    dataset = load(settings.data, settings.folder) if dataset is None else dataset
    images = dataset.train.images
    if len(images) < settings.batch_size:
        raise RunError(f"batch_size must be at most the {len(images)} training images, got {settings.batch_size}")
    checkpoint = _resumed(settings, path, images) if path.exists() else _started(settings, images.shape[1:])
    model = restore(checkpoint)
    if not path.exists():
        checkpoint.write(path)
    rng = np.random.default_rng()
    rng.bit_generator.state = checkpoint.generator
    batches = model.batches(images)
    with Log(out, checkpoint.state.step) as log:
        for epoch in range(checkpoint.epoch, settings.epochs):
            _epoch(model, batches, len(images), settings, rng, epoch, log, watch)
            state = model.state
            _check_finite(state, settings, epoch, path)
            generator = rng.bit_generator.state
            checkpoint = dataclasses.replace(checkpoint, state=state, epoch=epoch + 1, generator=generator)
            checkpoint.write(path)
    return model, dataset


def restore(checkpoint: Checkpoint, **changes: Any) -> Autoencoder:
    """The autoencoder of a checkpoint; `restore(c, framework="jax")` changes the framework, dtype or device.

    Raises:
        FrameworkError: the framework or the device is not available.
    """
    settings = dataclasses.replace(checkpoint.settings, **changes)
    state = checkpoint.state
    parts = ({name: value.astype(settings.dtype) for name, value in part.items()} for part in state[:3])
    return create(
        settings.framework,
        settings.architecture(checkpoint.image_shape),
        settings.penalty,
        settings.adam,
        state=State(*parts, state.step),
        dtype=settings.dtype,
        device=settings.device,
    )


def _started(settings: Settings, image_shape: tuple[int, ...]) -> Checkpoint:
    rng = np.random.default_rng(settings.seed)
    weights = initial_weights(settings.architecture(image_shape), rng)
    state = State.start({name: value.astype(settings.dtype) for name, value in weights.items()})
    return Checkpoint(settings, image_shape, state, 0, rng.bit_generator.state, versions(settings.framework))


def check_images(checkpoint: Checkpoint, images: np.ndarray) -> None:
    """Check that images have the size that a run was trained for; those of another folder may not.

    Raises:
        RunError: they have another size.
    """
    if images.shape[1:] != checkpoint.image_shape:
        raise RunError(
            f"the run is of images of {checkpoint.image_shape}, not {images.shape[1:]}; give its own data by --folder"
        )


def _resumed(settings: Settings, path: Path, images: np.ndarray) -> Checkpoint:
    checkpoint = Checkpoint.read(path)
    if names := settings.differences(checkpoint.settings):
        pairs = (f"{name} {getattr(checkpoint.settings, name)!r}, not {getattr(settings, name)!r}" for name in names)
        raise RunError(f"{path} is of another run: it has {', '.join(pairs)}; give its settings, or another --out")
    if checkpoint.epoch > settings.epochs:
        raise RunError(
            f"{path} has {checkpoint.epoch} epochs already; epochs must be as many or more, got {settings.epochs}"
        )
    check_images(checkpoint, images)
    return dataclasses.replace(checkpoint, settings=settings, versions=versions(settings.framework))


def _epoch(
    model: Autoencoder,
    batches: Any,
    count: int,
    settings: Settings,
    rng: np.random.Generator,
    epoch: int,
    log: Log,
    watch: Watcher | None,
) -> None:
    size = settings.batch_size
    order, steps = rng.permutation(count), count // size
    pending: list[Any] = []
    for i in range(steps):
        pending.append(model.step(batches(order[i * size : (i + 1) * size]), model.noise(rng, size)))
        if len(pending) == _EVERY or i + 1 == steps:
            record = _record(model, pending, settings, epoch, epoch * steps + i + 1)
            log.write(record)
            if watch is not None:
                watch(record["step"], settings.epochs * steps, record)
            pending = []


def _record(model: Autoencoder, results: Sequence[Any], settings: Settings, epoch: int, step: int) -> dict[str, Any]:
    """Means over some steps, and the spectrum of all their latents."""
    reconstruction, penalty, latents = model.fetch(results)
    if not all(np.all(np.isfinite(values)) for values in (reconstruction, penalty, latents)):
        raise RunError(_diverged(settings, f"between steps {step - len(results) + 1} and {step}", epoch))
    of_latents = spectrum(latents.reshape(-1, latents.shape[-1]))
    means = {"reconstruction": float(reconstruction.mean()), "penalty": float(penalty.mean())}
    loss = means["reconstruction"] + settings.lam * means["penalty"]
    covariance = {"trace": of_latents.trace, "eccentricity": of_latents.eccentricity}
    return {"step": step, "epoch": epoch + 1, "loss": loss, **means, **covariance}


def _check_finite(state: State, settings: Settings, epoch: int, path: Path) -> None:
    if not all(np.all(np.isfinite(value)) for part in state[:3] for value in part.values()):
        raise RunError(_diverged(settings, f"in the weights of {path.name}", epoch))


def _diverged(settings: Settings, where: str, epoch: int) -> str:
    return (
        f"the loss is no longer finite, {where}; the checkpoint after epoch {epoch} is unchanged: try a smaller lam "
        f"(now {settings.lam:g}) or learning_rate (now {settings.learning_rate:g})"
    )
