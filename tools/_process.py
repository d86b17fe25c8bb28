"""Measurements in a separate process, without the threads and the allocator of other libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class MeasureError(Exception):
    """A measuring process failed; the message is one line."""


def run_alone(script: str, *arguments: object) -> Any:
    """The JSON in the last line that a script beside this one prints."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise MeasureError(f"{' '.join([script, *map(str, arguments)])}: {lines[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
