"""Checkpoints: safetensors files with the weights in the neutral layout, the moments of Adam, and all else as metadata.

A file is replaced as a whole or not at all, and carries a SHA-256 of everything in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eccentric_models.files import replacing
from eccentric_models.frameworks import PACKAGES, Framework, State
from eccentric_models.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FORMAT = "eccentric-models 1"

# The parts of a state, as the first part of the names of tensors.
_PARTS = {"weights": "weights", "means": "adam.mean", "squares": "adam.square"}


class CheckpointError(Exception):
    """A checkpoint that can't be read, written or used; the message is one line."""


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
            f"{prefix}.{name}": np.ascontiguousarray(value)
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
        metadata = {"format": _FORMAT} | {name: json.dumps(value) for name, value in content.items()}
        metadata["sha256"] = _digest(tensors, metadata)
        try:
            with replacing(path) as file:
                file.write(save(tensors, metadata))
        except OSError as error:
            raise CheckpointError(
                f"{path} can't be written ({error.strerror or error}); what was saved before is untouched: "
                f"make room and go on with --resume"
            ) from error

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file and check that it is what was written.

        Raises:
            CheckpointError: it is missing, damaged, changed, or not a checkpoint of this version.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                # Before the tensors, which may have dtypes that NumPy lacks.
                if (found := metadata.get("format")) != _FORMAT:
                    raise CheckpointError(
                        f"{path} is not a checkpoint of this version: its format is {found!r}, not {_FORMAT!r}"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing; a run has it from its first moment on") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); take a copy of it, or train anew") from error
        if metadata.pop("sha256", None) != _digest(tensors, metadata):
            raise CheckpointError(f"{path} was changed after it was written: its SHA-256 is another; take a copy of it")
        content = {name: json.loads(value) for name, value in metadata.items() if name != "format"}
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


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of all tensors and of the metadata."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
