"""The data sets of the reference models, all as uint8 images split into training and test.

digits         1,797 handwritten digits bundled with scikit-learn, enlarged to 28 x 28
mnist          70,000 handwritten digits, 28 x 28
fashion-mnist  70,000 pieces of clothing, 28 x 28
olivetti       400 faces of 40 people, 64 x 64
celeba         202,599 faces in colour with 40 attributes, resized to 64 x 64; the user must provide it
"""

from __future__ import annotations

from pathlib import Path

from eccentric_models.data.dataset import DataError, Dataset, Split

__all__ = ["NAMES", "DataError", "Dataset", "Split", "load"]

NAMES = ("digits", "mnist", "fashion-mnist", "olivetti", "celeba")


def load(name: str, folder: Path | None = None, *, cache: Path | None = None) -> Dataset:
    """Load a data set by its name.

    Args:
        name: one of NAMES.
        folder: the folder of its files; None downloads them (mnist, fashion-mnist, olivetti). digits has no folder,
            celeba needs one.
        cache: the folder for downloads and decoded images; None for the user's cache. Olivetti faces are stored by
            scikit-learn, in its own data folder if cache is None.

    Returns:
        The data set: uint8 images (n, height, width, channels), with labels. CelebA's images are a memory map.

    Raises:
        ValueError: name is not one of NAMES, or a folder is given for digits.
        DataError: a file is missing, damaged or of another kind, or a download failed.

    >>> digits = load("digits")
    >>> digits.train.images.shape, digits.test.images.shape, digits.test.labels.dtype
    ((1500, 28, 28, 1), (297, 28, 28, 1), dtype('int64'))
    """
    folder = None if folder is None else Path(folder)
    cache = None if cache is None else Path(cache)
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if name == "digits" and folder is not None:
        raise ValueError(f"folder must be None for digits, which come with scikit-learn, got {str(folder)!r}")
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the one that holds the files of {name}")
    if name == "digits":
        from eccentric_models.data.small import load_digits

        return load_digits()
    if name == "olivetti":
        from eccentric_models.data.small import load_olivetti

        return load_olivetti(folder, cache)
    if name == "celeba":
        from eccentric_models.data.celeba import load_celeba

        return load_celeba(folder, cache)
    from eccentric_models.data.idx import load_idx

    return load_idx(name, folder, cache)
