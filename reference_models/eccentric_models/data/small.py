"""The small data sets: scikit-learn's digits and the Olivetti faces."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import numpy as np

from eccentric_models.data.dataset import DataError, Dataset, Split
from eccentric_models.data.files import reason

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from eccentric_models.data.dataset import Bytes, Classes

_TRAINING_DIGITS = 1500
_PEOPLE, _PICTURES, _TRAINING_PICTURES = 40, 10, 8

# scikit-learn divides the grey levels by the largest one, which is this.
_LARGEST_GREY = 242


def load_digits() -> Dataset:
    """Load scikit-learn's 1,797 digits of 8 x 8 pixels as 28 x 28: 1,500 for training, 297 for test.

    They are ordered by their 13 writers, so that a split without shuffling would test on other writers than it was
    trained on. Shuffled, both parts have every writer and every digit, like those of a common split of MNIST.
    """
    from sklearn.datasets import load_digits as load

    bunch = load()
    # The stream of RandomState will never change, that of a Generator may.
    order = np.random.RandomState(0).permutation(len(bunch.target))
    images, labels = _enlarge(bunch.images)[order, ..., None], bunch.target.astype(np.int64)[order]
    n = _TRAINING_DIGITS
    return Dataset("digits", Split(images[:n], labels[:n]), Split(images[n:], labels[n:]))


def load_olivetti(folder: Path | None, cache: Path | None) -> Dataset:
    """Load the 400 Olivetti faces, 64 x 64: the last two of each person's ten pictures are for test.

    Raises:
        DataError: folder/olivetti_64.npz is missing or has other data, or scikit-learn cannot download it.
    """
    images, person = _fetch_olivetti(cache) if folder is None else _read_olivetti(folder / "olivetti_64.npz")
    order = np.argsort(person, kind="stable").reshape(_PEOPLE, _PICTURES)
    train, test = (
        Split(images[rows, ..., None], person[rows])
        for rows in (order[:, :_TRAINING_PICTURES].ravel(), order[:, _TRAINING_PICTURES:].ravel())
    )
    return Dataset("olivetti", train, test)


def _enlarge(digits: NDArray[np.float64]) -> Bytes:
    """Enlarge digits (n, 8, 8) with grey levels from 0 to 16 to bytes (n, 28, 28), about the size of MNIST's.

    Bilinear to 24 x 24, with a margin of 2 into which the image fades out: many digits touch the edge, where a frame
    of zeros would cut them off.
    """
    place = (np.arange(28) - 1.5) / 3 - 0.5  # in pixels of the small digit
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(8)))
    return np.rint(weight @ digits @ weight.T * (255 / 16)).astype(np.uint8)


def _read_olivetti(path: Path) -> tuple[Bytes, Classes]:
    remedy = "give a folder with the faces, or none to let scikit-learn fetch them"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            images, person = arrays["images"], arrays["person"]
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {remedy}") from error
    except Exception as error:  # zip and npy readers raise various exceptions on damaged files
        raise DataError(f"{path} must hold the arrays images and person ({reason(error)}); {remedy}") from error
    if images.shape != (_PEOPLE * _PICTURES, 64, 64) or images.dtype != np.uint8:
        raise DataError(f"{path} must hold images of uint8 (400, 64, 64), got {images.dtype} {images.shape}; {remedy}")
    if person.dtype.kind not in "iu" or not np.array_equal(np.sort(person), np.repeat(range(_PEOPLE), _PICTURES)):
        raise DataError(
            f"{path} must hold person, the numbers 0 to 39 each ten times, got {person.dtype} {person.shape} with "
            f"other values; {remedy}"
        )
    return images, person.astype(np.int64)


def _fetch_olivetti(cache: Path | None) -> tuple[Bytes, Classes]:
    from sklearn.datasets import fetch_olivetti_faces

    try:
        with redirect_stdout(sys.stderr):  # it prints that it downloads
            bunch = fetch_olivetti_faces(data_home=cache)
    except Exception as error:  # errors of the network, and of unpickling a damaged copy
        raise DataError(
            f"scikit-learn can't fetch the Olivetti faces ({reason(error)}); give a folder with olivetti_64.npz, "
            f"or remove a damaged olivetti*.pkz from its data folder"
        ) from error
    return np.rint(bunch.images * _LARGEST_GREY).astype(np.uint8), bunch.target.astype(np.int64)
