"""MNIST, Fashion-MNIST, and other data in four IDX files of the same names."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from eccentric_models.data.dataset import DataError, Dataset, Split
from eccentric_models.data.files import cache_folder, reason, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eccentric_models.data.dataset import Bytes, Classes

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
}

# Of the decompressed files: a mirror may compress them differently.
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}

_LABEL_NAMES = {
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip

_UNREADABLE = (OSError, EOFError, zlib.error)


def load_idx(name: str, folder: Path | None, cache: Path | None) -> Dataset:
    """Load the IDX files of a folder, whatever their content, or download the public ones; see `load`.

    Raises:
        DataError: a file is missing or malformed, two files do not match, or every mirror failed.
    """
    read = partial(_download, name, cache_folder(cache)) if folder is None else partial(_read, folder)
    (images, labels), (test_images, test_labels) = (_load_split(read, part) for part in ("train", "t10k"))
    if images.shape[1:] != test_images.shape[1:]:
        sizes = [" x ".join(map(str, array.shape[1:3])) for array in (images, test_images)]
        raise DataError(
            f"{folder}: train-images-idx3-ubyte has images of {sizes[0]} and t10k-images-idx3-ubyte of {sizes[1]}; "
            f"take all four files from one data set"
        )
    names = _LABEL_NAMES.get(name, ())
    if max(labels.max(), test_labels.max()) >= len(names):  # a user's files may have other classes
        names = ()
    return Dataset(name, Split(images, labels), Split(test_images, test_labels), names)


def parse_idx(data: bytes, path: Path, axes: int) -> Bytes:
    """Parse an IDX file of unsigned bytes, compressed or not, with that many axes; a read-only array.

    Raises:
        DataError: the data is anything else; path names it.
    """
    try:
        data = _decompress(data)
    except _UNREADABLE as error:
        raise DataError(f"{path} is damaged ({reason(error)}); fetch it again") from error
    magic, start = bytes((0, 0, 8, axes)), 4 + 4 * axes
    if data[:4] != magic or len(data) < start:
        raise DataError(
            f"{path} must be an IDX file of unsigned bytes with {axes} axes (first bytes {magic.hex(' ')} and the "
            f"sizes), got {len(data)} bytes from {data[:4].hex(' ') or 'nothing'}; give the right file"
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", axes, offset=4))
    expected = start + math.prod(shape)
    if 0 in shape or len(data) != expected:
        raise DataError(
            f"{path} must hold one or more items and, by its sizes {shape}, {expected} bytes, got {len(data)}; "
            f"fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _load_split(read: Callable[[str], tuple[Path, bytes]], part: str) -> tuple[Bytes, Classes]:
    path, data = read(f"{part}-images-idx3-ubyte")
    images = parse_idx(data, path, 3)
    path, data = read(f"{part}-labels-idx1-ubyte")
    labels = parse_idx(data, path, 1)
    if len(labels) != len(images):
        raise DataError(
            f"{path} must hold a label for each of the {len(images)} images beside it, got {len(labels)} labels; "
            f"take all four files from one data set"
        )
    return images[..., None], labels.astype(np.int64)


def _read(folder: Path, file: str) -> tuple[Path, bytes]:
    for path in (folder / file, folder / f"{file}.gz"):
        try:
            return path, path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{path} can't be read ({reason(error)}); make it readable") from error
    raise DataError(
        f"{folder / file} is missing, and so is {file}.gz; give a folder with the four files "
        f"{', '.join(SHA256['mnist'])}, each compressed or not"
    )


def _download(name: str, cache: Path, file: str) -> tuple[Path, bytes]:
    path, digest = cache / name / file, SHA256[name][file]
    with suppress(OSError):
        data = path.read_bytes()
        if _sha256(data) == digest:
            return path, data
    failures = []
    for mirror in MIRRORS[name]:
        url = f"{mirror}{file}.gz"
        try:
            data = _decompress(_get(url))
        except _UNREADABLE as error:
            failures.append(f"{url}: {reason(error)}")
            continue
        if _sha256(data) == digest:
            with replace_file(path) as out:
                out.write(data)
            return path, data
        failures.append(f"{url}: other bytes than the published ones (by their SHA-256)")
    raise DataError(
        f"{file} of {name} can't be downloaded; fetch the four IDX files elsewhere and give their folder. "
        f"What was tried: {'; '.join(failures)}"
    )


def _get(url: str) -> bytes:
    import pooch

    body = io.BytesIO()
    pooch.HTTPDownloader(timeout=30)(url, body, None)
    return body.getvalue()


def _decompress(data: bytes) -> bytes:
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
