"""What the commands share: complaints of one line, and files that are written as a whole or not at all."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Claim:
    """One statement and whether it held."""

    text: str
    holds: bool
    measured: str


class UsageError(Exception):
    """What the user asked for cannot be done; the message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


class Output:
    """A file to write at the end: that it can be written shows at once, and no run that fails touches what is there."""

    def __init__(self, path: Path, option: str, suffixes: tuple[str, ...] = ()) -> None:
        self.option = option
        self.path = path.resolve()
        self.suffix = path.suffix.lower()
        if suffixes and self.suffix not in suffixes:
            raise UsageError(f"argument {option}: the file must end in {', '.join(suffixes)}, got {path}")
        try:
            if self.path.is_dir():
                raise IsADirectoryError(21, os.strerror(21))
            if self.path.exists():
                with self.path.open("ab"):
                    pass
            if self._replaceable():
                with tempfile.TemporaryFile(dir=self.path.parent):
                    pass
        except OSError as error:
            raise UsageError(f"argument {option}: cannot write {path}: {error.strerror}") from error

    def write(self, content: bytes) -> None:
        """Put the content there as a whole or not at all."""
        if not self._replaceable():  # a pipe or a device
            self.path.write_bytes(content)
            return
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o666 & ~current_umask()
            Path(name).chmod(mode)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _replaceable(self) -> bool:
        return self.path.is_file() or not self.path.exists()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
