"""Checkpoints: safetensors files with the weights in the neutral layout, the moments of Adam, and the rest as metadata.

A file is replaced as a whole or not at all, and has a SHA-256 of its content.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_models.frameworks import PACKAGES, Framework, State
from eccentric_models.safetensors_files import CheckpointError, Format
from eccentric_models.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpoint", "CheckpointError", "versions"]

_FORMAT = Format(
    "eccentric-models 1",
    "checkpoint",
    remedy="restore a copy of it, or train again",
    missing="a run writes it at its start",
)

# The parts of a state, and the prefixes of their names in the file.
_PARTS = {"weights": "weights", "means": "adam.mean", "squares": "adam.square"}


@dataclass(frozen=True)
class Checkpoint:
    """A run between two epochs.

    Attributes:
        settings: of the run.
        image_shape: (height, width, channels).
        state: weights and moments.
        epoch: the number of finished epochs.
        generator: the state of the NumPy generator.
        versions: of the packages that wrote it.
    """

    settings: Settings
    image_shape: tuple[int, ...]
    state: State
    epoch: int
    generator: dict[str, Any]
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Replace the file.

        Raises:
            CheckpointError: it cannot be written; the old file is unchanged.
        """
        tensors = {
            f"{prefix}.{name}": value
            for part, prefix in _PARTS.items()
            for name, value in getattr(self.state, part).items()
        }
        content = {
            "settings": self.settings.as_dict(),
            "image_shape": self.image_shape,
            "epoch": self.epoch,
            "step": self.state.step,
            "generator": self.generator,
            "versions": self.versions,
        }
        _FORMAT.write(path, tensors, content)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file and check that it was not changed.

        Raises:
            CheckpointError: it is missing, damaged, changed, or of another version.
        """
        tensors, content = _FORMAT.read(path)
        parts = {
            part: {
                name.removeprefix(f"{prefix}."): value
                for name, value in tensors.items()
                if name.startswith(f"{prefix}.")
            }
            for part, prefix in _PARTS.items()
        }
        return cls(
            Settings.from_dict(content["settings"]),
            tuple(content["image_shape"]),
            State(**parts, step=content["step"]),
            content["epoch"],
            content["generator"],
            content["versions"],
        )


def versions(framework: Framework) -> dict[str, str]:
    """The versions of the packages that a checkpoint depends on."""
    names = ("eccentric", "numpy", *PACKAGES[framework])
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
