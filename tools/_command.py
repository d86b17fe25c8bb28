"""Shared by the commands: errors of one line, and files that are written as a whole or not at all."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Names of open descriptors, which may be redirected to files.
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr|fd/\d+)|/proc/[^/]+/fd/\d+")

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Claim:
    """A statement and whether it holds."""

    text: str
    holds: bool
    measured: str


class UsageError(Exception):
    """The arguments of the user are wrong; the message is one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose error is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


class Screen(Console):
    """Standard output, wide enough for the tables; a closed pipe is not an error."""

    def __init__(self, least: int = 80) -> None:
        super().__init__()
        self.width = max(self.width if self.is_terminal else 100, least)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit


def make_table(title: str, headings: Iterable[str], caption: str | None = None) -> Table:
    """An empty table of figures: right-aligned columns that are not truncated."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def run(main: Callable[[], int]) -> NoReturn:
    """Exit with the status of main, 2 where standard output cannot be written, 130 where the user interrupts."""
    try:
        if sys.stdout is None:  # closed by the caller
            sys.stdout = io.StringIO()
        status = main()
        sys.stdout.flush()
    except OSError as error:
        print(f"error: cannot write standard output: {error.strerror}", file=sys.stderr)
        os._exit(2)  # the flush at exit would fail again
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


class Output:
    """A file to write at the end. Whether it can be written is checked at once; a failed run leaves it unchanged."""

    def __init__(self, option: str, path: Path, suffixes: tuple[str, ...] = ()) -> None:
        self.option = option
        self.suffix = path.suffix.lower()
        if suffixes and self.suffix not in suffixes:
            raise UsageError(f"argument {option}: the file must end in {', '.join(suffixes)}, got {path}")
        try:
            # An open descriptor, a pipe or a device is a stream, which cannot be replaced.
            self.is_stream = bool(_DESCRIPTOR.fullmatch(str(path))) or (path.exists() and not path.is_file())
            self.path = path if self.is_stream else path.resolve()
            if path.is_dir() or not path.name:
                raise IsADirectoryError(21, os.strerror(21))
            if self.is_stream:
                if not os.access(path, os.W_OK):
                    raise OSError(13, os.strerror(13 if path.exists() else 2))
            elif self.path.exists():
                with self.path.open("ab"):
                    pass
            else:
                self.path.touch()  # the surest test of a name
                self.path.unlink()
            if not self.is_stream:
                with tempfile.TemporaryFile(dir=self.path.parent):
                    pass
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UsageError(f"argument {option}: cannot write {path}: {reason}") from error

    def write(self, content: bytes) -> None:
        """Write the content as a whole or not at all."""
        if self.is_stream:
            with self.path.open("ab") as stream:
                stream.write(content)
            return
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o666 & ~_umask()
            Path(name).chmod(mode)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def open_outputs(*requests: tuple[str, Path | None, tuple[str, ...]]) -> list[Output]:
    """Outputs for the options that were given; no two may be the same file."""
    outputs: list[Output] = []
    for option, path, suffixes in requests:
        if path is None:
            continue
        output = Output(option, path, suffixes)
        for other in outputs:
            if output.path == other.path and not output.is_stream:
                raise UsageError(f"arguments {other.option} and {option}: both name {path}")
        outputs.append(output)
    return outputs


def write_all(outputs: Iterable[Output], render: Callable[[Output], bytes]) -> bool:
    """Write every output that can be written, print an error for each other; return whether all were written."""
    complete = True
    for output in outputs:
        try:
            output.write(render(output))
        except OSError as error:
            print(f"error: argument {output.option}: cannot write {output.path}: {error.strerror}", file=sys.stderr)
            complete = False
    return complete


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
