"""The log of a run: one JSON line per record, and TensorBoard's event files where it is installed."""

from __future__ import annotations

import importlib.util
import json
import time
from typing import TYPE_CHECKING, Any

from eccentric_models.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

FILE = "metrics.jsonl"


class Log:
    """Appends records to a run's file.

    Args:
        folder: of the run.
        step: where the run starts or continues. Records of later steps, from an interrupted run, are removed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / FILE
        if path.exists():
            kept = [line + b"\n" for line in path.read_bytes().splitlines() if _step(line) <= step]
            with replacing(path) as file:
                file.writelines(kept)
        self._file = path.open("a", encoding="utf-8")
        self._events = _event_writer(folder)

    def write(self, record: dict[str, Any]) -> None:
        """Append a record, which must have a step."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(_event(step=record["step"], summary=_scalars(record)))
            self._events.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_record(folder: Path) -> dict[str, Any]:
    """The last record of a run: means over its last steps, in training mode."""
    return json.loads((folder / FILE).read_text(encoding="utf-8").splitlines()[-1])


def _step(line: bytes) -> float:
    """The step of a line; infinite if the line is incomplete."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _event_writer(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    # Its event writer would import TensorFlow where that is installed; its record writer does not.
    from tensorboard.summary.writer.record_writer import RecordWriter

    name = f"events.out.tfevents.{time.time():.6f}.eccentric"
    writer = RecordWriter((folder / name).open("wb"))
    writer.write(_event(file_version="brain.Event:2"))
    return writer


def _event(**values: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time.time(), **values).SerializeToString()


def _scalars(record: dict[str, Any]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in record.items()])
