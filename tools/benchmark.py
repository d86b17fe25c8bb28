#!/usr/bin/env python3
"""Measure what the numerical core costs: radii, the sum over pairs, and memory.

    radii     the whole grid of the paper's Figure 1 (9,030,099 roots) against the paper's quadrature and bisection
    engine    loss and gradient in NumPy float32 against the n x n form that one would write
    memory    the peak memory of one large batch in a fresh process

Contenders take turns within one run; medians and ratios are what to quote.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from _command import Parser, Screen, UsageError, make_table, open_outputs, run, write_all
from _memory import extra_memory
from scipy.integrate import quad
from scipy.optimize import bisect
from scipy.special import gammaln

from eccentric_core import eccentric_loss_and_grad, kernel_scale, stationary_radius

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE_ROWS = (100, 1000, 4096, 16384)
ENGINE_DIMS = (8, 64, 512)
SECTIONS = ("radii", "engine", "memory")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure (default: everything)")
    parser.add_argument("--repeat", type=int, default=7, metavar="N", help="timed turns of each contender (default 7)")
    parser.add_argument("--largest", type=int, default=16384, metavar="N", help="largest n of engine (default 16384)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
    options = parser.parse_args(argv)
    try:
        for section in options.sections:
            if section not in SECTIONS:
                raise UsageError(f"argument SECTION: must be one of {', '.join(SECTIONS)}, got {section!r}")
        if options.repeat < 1:
            raise UsageError(f"argument --repeat: must be 1 or more, got {options.repeat}")
        outputs = open_outputs(("--json", options.json, ()))
    except UsageError as error:
        parser.error(str(error))
    console = Screen()
    report: dict[str, Any] = {"machine": machine()}
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for section in options.sections or SECTIONS:
        match section:
            case "radii":
                report[section] = measure_radii(console, options.repeat)
            case "engine":
                report[section] = measure_engine(console, options.repeat, options.largest)
            case "memory":
                report[section] = measure_memory(console)
    written = write_all(outputs, lambda _: (json.dumps(report, indent=1) + "\n").encode())
    return 0 if written else 2


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def take_turns(contenders: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """The median time of each contender in seconds, after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeat + 1):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_radii(console: Screen, repeat: int) -> dict[str, float]:
    dims = range(2, 301)
    grids = {dim: np.arange(100, 200 * dim + 101) / 100.0 for dim in dims}
    roots = sum(grid.size for grid in grids.values())
    rng = np.random.default_rng(0)
    sample = [(int(dim), float(rng.choice(grids[dim]))) for dim in rng.integers(2, 301, size=10)]

    def whole_grid() -> None:
        for dim, mu in grids.items():
            stationary_radius(dim, mu)

    def paper_sample() -> None:
        for dim, mu in sample:
            radius_by_bisection(dim, mu)

    worst = max(abs(radius_by_bisection(dim, mu) / float(stationary_radius(dim, mu)) - 1) for dim, mu in sample)
    seconds = take_turns({"grid": whole_grid, "paper": paper_sample}, repeat)
    rate = roots / seconds["grid"]
    paper_rate = len(sample) / seconds["paper"]
    result = {
        "roots": roots,
        "grid_seconds": seconds["grid"],
        "roots_per_second": rate,
        "paper_roots_per_second": paper_rate,
        "ratio": rate / paper_rate,
        "worst_disagreement": worst,
    }
    console.print(
        f"radii: {roots:,} roots in {seconds['grid']:.2f} s, {rate:,.0f} a second. "
        f"Quadrature and bisection: {paper_rate:,.1f} a second, {rate / paper_rate:,.0f} times fewer. "
        f"They agree to {worst:.0e}.",
        highlight=False,
    )
    return result


def radius_by_bisection(dim: int, mu: float) -> float:
    """The method of the paper's section 2: the integral of Theorem 1 by quadrature, its root by bisection."""
    scale = float(kernel_scale(dim, mu))
    log_constant = gammaln(dim / 2) - gammaln((dim - 1) / 2) - 0.5 * np.log(np.pi)

    def excess(radius: float) -> float:
        a = scale / (2 * radius**2)

        def integrand(u: float) -> float:
            height = a * (u - 1)
            return height ** ((dim - 1) / 2) * max(2 - height, 1e-300) ** ((dim - 3) / 2) / u

        integral = quad(integrand, 1, 1 + 2 / a, epsabs=0, epsrel=1e-11, limit=500)[0]
        return 2 * a * np.exp(log_constant) * integral - 1 / mu

    return float(bisect(excess, 0.8 * np.sqrt(dim), 1.2 * np.sqrt(dim), xtol=1e-13, rtol=1e-13))


def measure_engine(console: Screen, repeat: int, largest: int) -> list[dict[str, float]]:
    headings = ("n", "d", "n x n form", "eccentric_core", "ratio")
    table = make_table("loss and gradient, NumPy float32, milliseconds", headings)
    result = []
    for dim in ENGINE_DIMS:
        for rows in ENGINE_ROWS:
            if rows > largest:
                continue
            z = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
            scale = np.float32(kernel_scale(dim, 1.0))
            turns = repeat if rows > 1000 else 20 * repeat
            if rows > 10_000:
                turns = min(repeat, 3)
            seconds = take_turns(
                {"naive": lambda z=z, s=scale: naive(z, s), "core": lambda z=z: eccentric_loss_and_grad(z)}, turns
            )
            ratio = seconds["naive"] / seconds["core"]
            result.append({"n": rows, "d": dim, **seconds, "ratio": ratio})
            table.add_row(
                f"{rows}", f"{dim}", f"{1e3 * seconds['naive']:.2f}", f"{1e3 * seconds['core']:.2f}", f"{ratio:.2f}"
            )
    console.print(table)
    return result


def naive(z: np.ndarray, scale: np.float32) -> tuple[np.float32, np.ndarray]:
    """The same closed forms at mu = 1, on the n x n matrix of distances."""
    n = z.shape[0]
    gram = z @ z.T
    square = np.diag(gram)
    t = np.maximum(square[:, None] + square[None, :] - 2 * gram, 0) / scale
    loss = np.mean(square) - scale * np.sum(np.log1p(t)) / (n * (n - 1))
    weight = 1 / (1 + t)
    grad = 2 / n * z - 4 / (n * (n - 1)) * (np.sum(weight, axis=1)[:, None] * z - weight @ z)
    return loss, grad


def measure_memory(console: Screen) -> list[dict[str, float]]:
    result = []
    for mu in (1.0, 64.5):  # above mu = 4 the sums of a float32 gradient are kept in float64
        measured = extra_memory(50_000, 64, mu)
        result.append({"n": 50_000, "d": 64, "mu": mu, **measured})
        console.print(
            f"memory: n = 50,000, d = 64, float32, mu = {mu:g}: "
            f"{measured['extra_bytes'] / 1e6:.0f} MB above the input, {measured['seconds']:.1f} s",
            highlight=False,
        )
    return result


if __name__ == "__main__":
    run(main)
