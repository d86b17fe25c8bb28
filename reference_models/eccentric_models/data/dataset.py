"""The result of every loader, and the error that it raises about files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]
    Classes: TypeAlias = NDArray[np.int64]
    Attributes: TypeAlias = NDArray[np.bool_]


class DataError(Exception):
    """A file or a download is wrong; the message is one line with its name and the remedy."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images and labels of one part of the train/test split.

    images: uint8 (n, height, width, channels), an array or a memory map, possibly read-only.
    labels: int64 (n,) classes, bool (n, a) attributes, or None.
    """

    images: Bytes
    labels: Classes | Attributes | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its name and its train/test split.

    label_names: the names of the classes or the attributes, or () if they have none.
    """

    name: str
    train: Split
    test: Split
    label_names: tuple[str, ...] = ()
