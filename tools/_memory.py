"""The peak memory of one call in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

_CODE = """
import json, sys, time
from pathlib import Path
import numpy as np
from eccentric_core import eccentric_loss_and_grad

def peak():
    # Not ru_maxrss: a new process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

rows, dim, mu = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
z = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
eccentric_loss_and_grad(z[:1000], mu)  # what is loaded once does not count
before, start = peak(), time.perf_counter()
eccentric_loss_and_grad(z, mu)
print(json.dumps({"seconds": time.perf_counter() - start, "extra_bytes": peak() - before}))
"""


def extra_memory(rows: int, dim: int, mu: float) -> dict[str, float]:
    """Seconds and bytes above the input that loss and gradient of a float32 batch take. Linux only."""
    command = [sys.executable, "-c", _CODE, str(rows), str(dim), str(mu)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured
