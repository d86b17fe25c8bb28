"""CelebA from its official folder, decoded once into a memory-mapped file."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from eccentric_models.data.dataset import DataError, Dataset, Split
from eccentric_models.data.files import cache_folder, read_lines, reason, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from eccentric_models.data.dataset import Attributes, Bytes

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"

# Tolstikhin et al., Wasserstein Auto-Encoders, ICLR 2018: 140 x 140 from the centre of 178 x 218, resized to 64 x 64.
CROP, WIDTH, SIZE = 140, 178, 64

CHUNK = 256

_REMEDY = (
    f"give the folder with {IMAGES}/, {ATTRIBUTES} and {PARTITION}, "
    f"from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
)


def load_celeba(folder: Path | None, cache: Path | None) -> Dataset:
    """Load CelebA: partition 0 for training, partition 2 for test; partition 1 (validation) is left out.

    The first time, the images are decoded on all cores into one file of 64 x 64 images in the cache, 2.2 GB for the
    official ones. Another folder, other lists or changed images lead to another file.

    Returns:
        Images uint8 (n, 64, 64, 3), read-only maps of the file in the order of the partition list; labels bool
        (n, a), True where the list has 1; the names of the a attributes.

    Raises:
        DataError: no folder is given, a list or an image is missing or malformed, the lists and the images do not
            match, or the cache cannot be written.
    """
    if folder is None:
        raise DataError(f"celeba can't be downloaded here, for you must agree to its terms yourself; {_REMEDY}")
    partition = _read_partition(folder / PARTITION)
    label_names, attributes = _read_attributes(folder / ATTRIBUTES)
    if odd := partition.keys() ^ attributes.keys():
        lists = (ATTRIBUTES, PARTITION) if min(odd) in attributes else (PARTITION, ATTRIBUTES)
        raise DataError(f"{folder / lists[0]} has {min(odd)}, which {lists[1]} has not; take both from one release")
    stats = _list_images(folder / IMAGES)
    if odd := partition.keys() ^ stats.keys():
        path = folder / IMAGES / min(odd)
        if min(odd) in stats:
            raise DataError(f"{path} is not in {PARTITION}; remove it, or complete the lists")
        raise DataError(f"{path} is missing, but {PARTITION} has it; unpack {IMAGES}.zip again")
    train, test = ([name for name, part in partition.items() if part == wanted] for wanted in "02")
    for names, wanted in ((train, "0 (training)"), (test, "2 (test)")):
        if not names:
            raise DataError(f"{folder / PARTITION} has no image in partition {wanted}; {_REMEDY}")
    images = _open_or_build(folder, train + test, stats, cache_folder(cache))
    return Dataset(
        "celeba",
        Split(images[: len(train)], np.stack([attributes[name] for name in train])),
        Split(images[len(train) :], np.stack([attributes[name] for name in test])),
        label_names,
    )


def crop_and_resize(image: Image) -> Image:
    """Crop the centre of an aligned face and resize it to 64 x 64, in colour.

    Images of 140 x 140 and more are cropped to their central 140 x 140, smaller ones to the same share of the width,
    140/178. They are resized by Pillow's LANCZOS, the antialiasing filter of the code of Tolstikhin et al.
    """
    from PIL.Image import Resampling

    width, height = image.size
    side = CROP if min(width, height) >= CROP else max(1, min(round(width * CROP / WIDTH), height))
    left, top = (width - side) // 2, (height - side) // 2
    face = image.crop((left, top, left + side, top + side)).convert("RGB")
    return face.resize((SIZE, SIZE), Resampling.LANCZOS)


def _read_partition(path: Path) -> dict[str, str]:
    partition: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, _REMEDY), 1):
        match line.split():
            case [name, "0" | "1" | "2" as part] if name not in partition:
                partition[name] = part
            case _:
                raise DataError(
                    f"{path}, line {number}, must be a new image name and 0, 1 or 2, got {line[:60]!r}; {_REMEDY}"
                )
    return partition


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, Attributes]]:
    lines = read_lines(path, _REMEDY)
    count, names, rows = lines[0] if lines else "", tuple("".join(lines[1:2]).split()), lines[2:]
    if count.strip() != str(len(rows)) or not names:
        raise DataError(
            f"{path} must begin with the number of its images (it has lines for {len(rows)}) and a line with the names "
            f"of the attributes, got {count[:60]!r} and {len(names)} names; {_REMEDY}"
        )
    attributes: dict[str, Attributes] = {}
    for number, line in enumerate(rows, 3):
        name, *values = line.split() or [""]
        if len(values) != len(names) or not {"1", "-1"}.issuperset(values) or name in attributes:
            raise DataError(
                f"{path}, line {number}, must be a new image name and {len(names)} times 1 or -1, "
                f"got {line[:60]!r}; {_REMEDY}"
            )
        attributes[name] = np.array([value == "1" for value in values])
    return names, attributes


def _list_images(path: Path) -> dict[str, tuple[int, int]]:
    """The size and the modification time of each image."""
    try:
        with os.scandir(path) as entries:
            images = [entry for entry in entries if entry.name.endswith(".jpg") and not entry.name.startswith(".")]
            return {entry.name: (entry.stat().st_size, entry.stat().st_mtime_ns) for entry in images}
    except OSError as error:
        raise DataError(f"{path} can't be read ({reason(error)}); {_REMEDY}") from error


def _open_or_build(folder: Path, names: list[str], stats: dict[str, tuple[int, int]], cache: Path) -> Bytes:
    facts = (str(folder.resolve()), CROP, WIDTH, SIZE, [(name, *stats[name]) for name in names])
    digest = hashlib.sha256(repr(facts).encode())
    for file in (ATTRIBUTES, PARTITION):
        digest.update((folder / file).read_bytes())
    path = cache / f"celeba-{digest.hexdigest()[:16]}.npy"
    header = _npy_header((len(names), SIZE, SIZE, 3))
    if not _is_complete(path, header, len(names) * SIZE * SIZE * 3):
        _build(folder / IMAGES, names, path, header)
    images: Bytes = np.load(path, mmap_mode="r")
    return images


def _npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _is_complete(path: Path, header: bytes, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(header)) == header and os.fstat(file.fileno()).st_size == len(header) + size
    except OSError:
        return False


def _build(images: Path, names: list[str], path: Path, header: bytes) -> None:
    from joblib import Parallel, cpu_count, delayed
    from rich.console import Console
    from rich.progress import Progress

    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    parallel = Parallel(n_jobs=min(cpu_count(), len(chunks)), return_as="generator")
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    # Written, not mapped: a full disk is an error to write to and kills a process that writes to a map.
    with replace_file(path) as file, progress, closing(parallel(delayed(_decode)(images, c) for c in chunks)) as done:
        task = progress.add_task("decoding CelebA", total=len(names))
        file.write(header)
        for faces in done:
            file.write(faces.data)
            progress.advance(task, len(faces))


def _decode(images: Path, names: list[str]) -> Bytes:
    from PIL import Image

    faces = np.empty((len(names), SIZE, SIZE, 3), np.uint8)
    for face, name in zip(faces, names, strict=True):
        try:
            with Image.open(images / name) as image:
                face[:] = np.asarray(crop_and_resize(image))
        except Exception as error:  # decoders raise various exceptions on damaged files
            raise DataError(f"{images / name} can't be decoded ({reason(error)}); unpack {IMAGES}.zip again") from error
    return faces
