"""What every loader returns, and the one error that it raises about files."""

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
    """A file or a download is not what it should be; the message is one line, names it and says the remedy."""


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one side of the train/test split, and what is known of them.

    images: uint8 (n, height, width, channels), an array or a memory map, possibly read-only.
    labels: int64 (n,) classes, bool (n, a) attributes, or None.
    """

    images: Bytes
    labels: Classes | Attributes | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set by its name, split once and for all.

    label_names: what the classes or the attributes are called, or () if their numbers say all.
    """

    name: str
    train: Split
    test: Split
    label_names: tuple[str, ...] = ()
