"""Functions on files that the loaders share."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from eccentric_models.data.dataset import DataError
from eccentric_models.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder(cache: Path | None) -> Path:
    """The folder for downloads and decoded images: the given one, or the user's cache."""
    if cache is not None:
        return cache
    import pooch

    return Path(pooch.os_cache("eccentric"))


def reason(error: BaseException) -> str:
    """The message of an exception, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def read_lines(path: Path, remedy: str) -> list[str]:
    """The lines of a text file, without blank ones at its end.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read ({reason(error)}); {remedy}") from error


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces path if the block succeeds; otherwise path is unchanged and no other file remains.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} can't be written ({reason(error)}); free some space, or give another cache") from error
