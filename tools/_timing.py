"""Times of the contenders of one library; as a script, `_timing.py LIBRARY REPEAT LARGEST DIM...`, as JSON."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from _contenders import CONTESTS, LOOP_STEPS, jax_compiled, torch_device
from _device import gpu_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS = (100, 256, 1000, 4096, 16384)
_FEW_ROWS = 256
_SMALL_ROWS = 1000
_MANY_ROWS = 10_000
_PRODUCT_SIZE = 2048


def take_turns(contenders: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """The median time of each contender in seconds, after one turn as a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeat + 1):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def batch(rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)


def measure_cells(library: str, repeat: int, largest: int, dims: Sequence[int]) -> list[dict[str, float]]:
    """For every n and d the median seconds of each contender, and the ratios."""
    contest = CONTESTS[library]
    cells = []
    for dim in dims:
        for rows in ROWS:
            if rows > largest:
                continue
            z = batch(rows, dim)
            seconds = take_turns(contest.prepare(z), _turns(rows, repeat))
            if contest.prepare_loops and rows <= _SMALL_ROWS:
                loops = take_turns(contest.prepare_loops(z), repeat)
                seconds |= {name: value / LOOP_STEPS for name, value in loops.items()}
            ratios = {
                name: min(seconds[key] for key in theirs) / min(seconds[key] for key in ours)
                for name, (theirs, ours) in contest.ratios.items()
                if seconds.keys() >= {*theirs, *ours}
            }
            cells.append({"n": rows, "d": dim, **seconds, **ratios})
    return cells


def _turns(rows: int, repeat: int) -> int:
    """The shorter a turn is, the more of them a median needs."""
    if rows > _MANY_ROWS:
        return min(repeat, 3)
    return repeat * (200 if rows <= _FEW_ROWS else 20 if rows <= _SMALL_ROWS else 1)


def measure_floor(repeat: int, largest: int) -> dict[str, float]:
    """Our time in PyTorch over the time of the tiles' products at the rate of one large matrix product."""
    import torch

    rows, dim = min(4096, largest), 64
    device, finish = torch_device()
    square = torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, device=device)

    def product() -> None:
        square @ square
        finish()

    ours = CONTESTS["torch"].prepare(batch(rows, dim))["ours"]
    seconds = take_turns({"product": product, "ours": ours}, repeat)
    rate = 2 * _PRODUCT_SIZE**3 / seconds["product"]
    floor = 3 * rows**2 * dim / rate  # three products, half of the pairs, two operations each
    return {
        "n": rows,
        "d": dim,
        "seconds": seconds["ours"],
        "product_seconds": seconds["product"],
        "operations_per_second": rate,
        "floor_seconds": floor,
        "floor_ratio": seconds["ours"] / floor,
    }


def measure_compilation(repeat: int) -> list[dict[str, float]]:
    """Seconds that XLA takes to compile our loss and gradient, for few rows and for many."""
    import jax

    from eccentric_jax import eccentric_loss

    def compile_anew(rows: int, dim: int) -> None:
        jax.clear_caches()
        jax_compiled(eccentric_loss, rows, dim)

    sizes = [(512, 64), (65_536, 64)]
    contenders = {str(size): lambda size=size: compile_anew(*size) for size in sizes}
    seconds = take_turns(contenders, min(repeat, 3))
    return [{"n": n, "d": d, "seconds": value} for (n, d), value in zip(sizes, seconds.values(), strict=True)]


def measure_framework(library: str, repeat: int, largest: int, dims: Sequence[int]) -> dict[str, Any]:
    module = importlib.import_module(library)
    result: dict[str, Any] = {"version": module.__version__, "gpu": gpu_of(library)}
    result["times"] = measure_cells(library, repeat, largest, dims)
    match library:
        case "torch":
            result["threads"] = module.get_num_threads()
            result["floor"] = measure_floor(repeat, largest)
        case "jax":
            result["compilation"] = measure_compilation(repeat)
    return result


if __name__ == "__main__":
    repeat, largest, *dims = map(int, sys.argv[2:])
    print(json.dumps(measure_framework(sys.argv[1], repeat, largest, dims)))
