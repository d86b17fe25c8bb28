"""The peak memory of an energy and its gradient; as a script, `_memory.py LIBRARY ROWS DIM ENERGY OPTIONS`, as JSON."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _contenders import CONTESTS, jax_compiled, tensorflow_step, torch_step
from _device import gpu_of
from _process import run_alone

import eccentric_core

if TYPE_CHECKING:
    from collections.abc import Callable

_WARM_ROWS = 3000  # several tiles


def extra_memory(
    rows: int, dim: int, library: str = "numpy", energy: str = "eccentric_loss", **options: float
) -> dict[str, float]:
    """Seconds and bytes above the input, on its device, for an energy of a float32 batch and its gradient.

    Linux only.
    """
    measured: dict[str, float] = run_alone("_memory.py", library, rows, dim, energy, json.dumps(options))
    return measured


def prepare(library: str, z: np.ndarray, energy: str, options: dict[str, Any]) -> Callable[[], Any]:
    """A call that computes an energy of a batch and its gradient, with everything compiled beforehand."""
    if library not in CONTESTS:
        raise ValueError(f"library must be one of {', '.join(CONTESTS)}, got {library!r}")
    if library == "numpy":
        return partial(getattr(eccentric_core, f"{energy}_and_grad"), z, **options)
    function = partial(getattr(importlib.import_module(f"eccentric_{library}"), energy), **options)
    match library:
        case "torch":
            return torch_step(function, z)
        case "jax":
            import jax

            step = jax_compiled(function, *z.shape)
            batch = jax.numpy.asarray(z)
            return lambda: jax.block_until_ready(step(batch))
        case "tensorflow":
            import tensorflow as tf

            graph = tf.function(tensorflow_step(function), autograph=False)
            batch = tf.constant(z)
            step = graph.get_concrete_function(tf.TensorSpec(batch.shape, batch.dtype))
            return lambda: [part.numpy() for part in step(batch)]


def measure(library: str, rows: int, dim: int, energy: str, options: dict[str, Any]) -> dict[str, float]:
    z = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    prepare(library, z[:_WARM_ROWS], energy, options)()  # what is loaded once is not measured
    run = prepare(library, z, energy, options)
    on_gpu = gpu_of(library) is not None
    before = _gpu_memory(library)[0] if on_gpu else _in_use()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_bytes": (_gpu_memory(library)[1] if on_gpu else _peak()) - before}


def _in_use() -> int:
    """The memory in use. The peak is reset: memory that was freed before would hide the memory allocated next."""
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    # Not ru_maxrss: a new process inherits that of its parent.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _gpu_memory(library: str) -> tuple[int, int]:
    """The bytes in use on the GPU, and the most so far: the batch that is measured is the largest one."""
    match library:
        case "torch":
            import torch

            return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        case "jax":
            import jax

            found = jax.devices()[0].memory_stats()
            return found["bytes_in_use"], found["peak_bytes_in_use"]
    import tensorflow as tf

    found = tf.config.experimental.get_memory_info("GPU:0")
    return found["current"], found["peak"]


if __name__ == "__main__":
    name, rows, dim, energy, options = sys.argv[1:]
    print(json.dumps(measure(name, int(rows), int(dim), energy, json.loads(options))))
