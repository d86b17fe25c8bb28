"""Checkpoints: safetensors files with the weights in the neutral layout, the moments of Adam, and all else as metadata.

A file is replaced as a whole or not at all, and carries a SHA-256 of everything in it.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_models.frameworks import PACKAGES, Framework, State
from eccentric_models.settings import Settings
from eccentric_models.tensors import CheckpointError, Format

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Checkpoint", "CheckpointError", "versions"]

_FORMAT = Format(
    "eccentric-models 1",
    "checkpoint",
    remedy="take a copy of it, or train anew",
    missing="a run has it from its first moment on",
)

# The parts of a state, as the first part of the names of tensors.
_PARTS = {"weights": "weights", "means": "adam.mean", "squares": "adam.square"}


@dataclass(frozen=True)
class Checkpoint:
    """A run between two epochs.

    Attributes:
        settings: of the run.
        image_shape: (height, width, channels).
        state: weights and moments.
        epoch: how many epochs are done.
        generator: the state of the random generator, as NumPy gives it.
        versions: of what wrote it.
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
            CheckpointError: it can't be written; what was there is there still.
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
        """Read a file and check that it is what was written.

        Raises:
            CheckpointError: it is missing, damaged, changed, or not a checkpoint of this version.
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
    """The versions of what a checkpoint depends on."""
    names = ("eccentric", "numpy", *PACKAGES[framework])
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
