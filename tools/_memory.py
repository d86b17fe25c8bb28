"""The peak memory of one loss and gradient; as a script, `_memory.py LIBRARY ROWS DIM MU`, as JSON."""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _contenders import CONTESTS, jax_compiled, tensorflow_step, torch_step
from _process import run_alone

from eccentric_core import eccentric_loss_and_grad

if TYPE_CHECKING:
    from collections.abc import Callable

_WARM_ROWS = 3000  # several tiles


def extra_memory(rows: int, dim: int, mu: float, library: str = "numpy") -> dict[str, float]:
    """Seconds and bytes above the input that loss and gradient of a float32 batch take. Linux only."""
    measured: dict[str, float] = run_alone("_memory.py", library, rows, dim, mu)
    return measured


def prepare(library: str, z: np.ndarray, mu: float) -> Callable[[], Any]:
    """Loss and gradient of a batch as a call before which everything is compiled for it."""
    match library:
        case "torch":
            from eccentric_torch import eccentric_loss

            return torch_step(partial(eccentric_loss, mu=mu), z)
        case "jax":
            import jax

            from eccentric_jax import eccentric_loss

            step = jax_compiled(partial(eccentric_loss, mu=mu), *z.shape)
            batch = jax.numpy.asarray(z)
            return lambda: jax.block_until_ready(step(batch))
        case "tensorflow":
            import tensorflow as tf

            from eccentric_tensorflow import eccentric_loss

            function = tf.function(tensorflow_step(partial(eccentric_loss, mu=mu)), autograph=False)
            batch = tf.constant(z)
            step = function.get_concrete_function(tf.TensorSpec(batch.shape, batch.dtype))
            return lambda: [part.numpy() for part in step(batch)]
        case "numpy":
            return partial(eccentric_loss_and_grad, z, mu)
        case _:
            raise ValueError(f"library must be one of {', '.join(CONTESTS)}, got {library!r}")


def measure(library: str, rows: int, dim: int, mu: float) -> dict[str, float]:
    z = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    prepare(library, z[:_WARM_ROWS], mu)()  # what is loaded once does not count
    run = prepare(library, z, mu)
    _forget_peak()
    before, start = _peak(), time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "extra_bytes": _peak() - before}


def _forget_peak() -> None:
    """What was taken before and is free again would hide what is taken next."""
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    # Not ru_maxrss: a new process inherits that of the one that started it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
