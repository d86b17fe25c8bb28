"""The command `eccentric`: train, evaluate, encode."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eccentric_models.checkpoint import Checkpoint, CheckpointError
from eccentric_models.data import DataError, load
from eccentric_models.evaluation import NEIGHBOURS, evaluate, neighbour_error
from eccentric_models.files import replacing
from eccentric_models.frameworks import Device, Framework, FrameworkError
from eccentric_models.settings import RunError, Settings
from eccentric_models.training import CHECKPOINT, check_images, restore, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from eccentric_models.data import Dataset
    from eccentric_models.frameworks import Autoencoder

# ValueError and MemoryError: values that only the engine or the data can check, such as a scale, a width or a folder.
_EXPECTED = (RunError, CheckpointError, DataError, FrameworkError, OSError, ValueError, MemoryError)


@dataclass(frozen=True)
class Train:
    """Train an autoencoder; by default on scikit-learn's bundled digits, in less than a minute."""

    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    out: Path | None = None
    """the folder of the run; by default a new one under runs/"""
    resume: bool = False
    """continue the run in --out, or start it"""

    def __call__(self, console: Console) -> None:
        """Train, then show the results."""
        settings, out = self.settings, self.out
        if out is None:
            if self.resume:
                raise RunError("--resume needs --out, the folder of the run to continue")
            out = _new_folder(settings)
        model, dataset = _train(console, settings, out, resume=self.resume)
        train_latents, test_latents = (model.encode(split.images) for split in (dataset.train, dataset.test))
        from eccentric_models import pictures

        _save(pictures.reconstructions(model, dataset, train_latents, test_latents), out / "reconstructions.png")
        _save(pictures.latents(dataset, train_latents, test_latents), out / "latents.png")
        console.print(f"{out}: {CHECKPOINT}, metrics.jsonl, reconstructions.png, latents.png", soft_wrap=True)
        console.print(f"test images: {evaluate(model, dataset.test, test_latents).line}", soft_wrap=True)


@dataclass(frozen=True)
class _OfRun:
    run: tyro.conf.Positional[Path]
    """the folder of a run"""
    framework: Framework | None = None
    """the framework that computes; by default the one that trained"""
    folder: Path | None = None
    """the folder of the data; by default that of training"""
    device: Device = "auto"
    """auto chooses a GPU if there is one"""

    def model(self) -> tuple[Autoencoder, Checkpoint]:
        """The autoencoder of the run, and its checkpoint."""
        checkpoint = Checkpoint.read(self.run / CHECKPOINT)
        framework = self.framework or checkpoint.settings.framework
        return restore(checkpoint, framework=framework, device=self.device), checkpoint

    def dataset(self, checkpoint: Checkpoint) -> Dataset:
        """The data of the run."""
        settings = checkpoint.settings
        dataset = load(settings.data, self.folder or settings.folder)
        check_images(checkpoint, dataset.train.images)
        return dataset


@dataclass(frozen=True)
class Evaluate(_OfRun):
    """Measure a trained autoencoder: reconstruction, the latent space, the error of nearest neighbours."""

    json: Path | None = None
    """also write the figures to this file"""

    def __call__(self, console: Console) -> None:
        """Print a table."""
        model, checkpoint = self.model()
        settings = checkpoint.settings
        dataset = self.dataset(checkpoint)
        splits = {"training": dataset.train, "test": dataset.test}
        latents = {name: model.encode(split.images) for name, split in splits.items()}
        results = {name: evaluate(model, split, latents[name]) for name, split in splits.items()}
        error = neighbour_error(dataset, latents["training"], latents["test"])
        title = f"{self.run}: {settings.data}, d = {settings.dim}, {settings.objective}, {checkpoint.epoch} epochs"
        table = Table(title=title, title_justify="left")
        table.add_column("")
        for name in splits:
            table.add_column(name, justify="right")
        for label, figure in _FIGURES.items():
            table.add_row(label, *(figure(result) for result in results.values()))
        if error is not None:
            table.add_row(f"error of {NEIGHBOURS} nearest neighbours", "", f"{100 * error:.2f} %")
        console.print(table)
        if self.json is not None:
            figures: dict[str, Any] = {name: _as_json(result) for name, result in results.items()}
            with replacing(self.json) as file:
                file.write((json.dumps(figures | {"neighbour_error": error}, indent=1) + "\n").encode())


_FIGURES = {
    "images": lambda e: f"{e.count:,}",
    "reconstruction error per pixel": lambda e: f"{e.reconstruction:.5f}",
    "eccentric loss": lambda e: f"{e.loss:.4f}",
    "its floor": lambda e: f"{e.floor:.4f}",
    "radius": lambda e: f"{e.radius:.4f}",
    "stationary radius": lambda e: f"{e.stationary_radius:.4f}",
    "trace of the covariance": lambda e: f"{e.spectrum.trace:.4f}",
    "eccentricity": lambda e: f"{e.spectrum.eccentricity:.4f}",
    "eigenvalues": lambda e: " ".join(f"{value:.2f}" for value in e.spectrum.eigenvalues[:8]),
}


@dataclass(frozen=True)
class Encode(_OfRun):
    """Write the latent vectors of images to a .npz file: latents (n, d), and labels if there are any."""

    to: tyro.conf.Positional[Path] = field(kw_only=True)
    """the file to write"""
    split: Literal["train", "test"] = "test"
    """the split to encode"""
    images: Path | None = None
    """encode these images instead: a .npy file, uint8 (n, height, width, channels)"""

    def __call__(self, console: Console) -> None:
        """Encode and write."""
        model, checkpoint = self.model()
        labels = None
        if self.images is not None:
            images = _read_images(self.images, checkpoint.image_shape)
        else:
            split = getattr(self.dataset(checkpoint), self.split)
            images, labels = split.images, split.labels
        arrays = {"latents": model.encode(images)} | ({} if labels is None else {"labels": labels})
        with replacing(self.to) as file:
            np.savez(file, **arrays)
        console.print(f"{self.to}: " + ", ".join(f"{name} {value.shape}" for name, value in arrays.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    commands = {"train": Train, "evaluate": Evaluate, "encode": Encode}
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="eccentric", description=__doc__, args=argv)
    except (TypeError, ValueError) as error:  # of the settings
        return _complain(f"error: {error}", 2)
    try:
        command(Console(markup=False, emoji=False))  # a path may look like either
    except KeyboardInterrupt:
        return _complain("interrupted; --resume continues from the last checkpoint", 130)
    except _EXPECTED as error:
        return _complain(f"error: {error}", 2)
    return 0


def _complain(message: str, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status


def _train(console: Console, settings: Settings, out: Path, *, resume: bool) -> tuple[Autoencoder, Dataset]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{settings.framework}, {settings.data}", total=None)

        def watch(step: int, steps: int, record: dict[str, Any]) -> None:
            text = (
                f"epoch {record['epoch']}: error {record['reconstruction']:.4f}, penalty {record['penalty']:.3f}, "
                f"eccentricity {record['eccentricity']:.3f}"
            )
            progress.update(task, completed=step, total=steps, description=text)
            if not console.is_terminal and step * settings.epochs % steps == 0:  # an epoch is done
                console.print(text)

        return train(settings, out, resume=resume, watch=watch)


def _new_folder(settings: Settings) -> Path:
    folders = (Path("runs") / f"{settings.data}-{settings.framework}-{i}" for i in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _as_json(result: Any) -> dict[str, Any]:
    values = {item.name: getattr(result, item.name) for item in dataclasses.fields(result)}
    of_latents = values.pop("spectrum")
    return values | {
        "trace": of_latents.trace,
        "eccentricity": of_latents.eccentricity,
        "eigenvalues": of_latents.eigenvalues.tolist(),
    }


def _read_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} can't be read ({error}); give a .npy file of uint8 images") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{path} must have uint8 images (n, {', '.join(map(str, shape))}), got {found}")
    return images
