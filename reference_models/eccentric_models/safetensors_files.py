"""The safetensors files of a run: arrays, with JSON and a SHA-256 of the whole as metadata.

A file is replaced as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eccentric_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class CheckpointError(Exception):
    """A file of a run cannot be read, written or used; the message is one line."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: the format and its version, as the file states it.
        noun: the name of such a file in messages.
        remedy: what to do about a damaged file, for messages.
        missing: what a missing file means, for messages.
    """

    name: str
    noun: str
    remedy: str
    missing: str

    def write(self, path: Path, tensors: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> None:
        """Replace the file by these arrays and this content, which must be JSON.

        Raises:
            CheckpointError: it cannot be written; the old file is unchanged.
        """
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        metadata = {"format": self.name} | {name: json.dumps(value) for name, value in content.items()}
        metadata["sha256"] = _digest(tensors, metadata)
        try:
            with replacing(path) as file:
                file.write(save(tensors, metadata))
        except OSError as error:
            raise CheckpointError(
                f"{path} can't be written ({error.strerror or error}); what was saved before is unchanged: "
                f"free some space and continue with --resume"
            ) from error

    def read(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Read a file and check that it was not changed.

        Raises:
            CheckpointError: it is missing, damaged, changed, or of another version.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                # Before the tensors, which may have dtypes that NumPy lacks.
                if (found := metadata.get("format")) != self.name:
                    raise CheckpointError(
                        f"{path} is not a {self.noun} of this version: its format is {found!r}, not {self.name!r}; "
                        f"{self.remedy}"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing; {self.missing}") from error
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); {self.remedy}") from error
        if metadata.pop("sha256", None) != _digest(tensors, metadata):
            raise CheckpointError(f"{path} was changed after it was written: its SHA-256 is another; {self.remedy}")
        return tensors, {name: json.loads(value) for name, value in metadata.items() if name != "format"}


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of all tensors and of the metadata."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
