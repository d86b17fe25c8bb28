#!/usr/bin/env python3
"""Measure speed and memory: radii, the sum over pairs in every framework, and the autoencoders.

    radii         the whole grid of the paper's Figure 1 (9,030,099 roots) against the paper's quadrature and bisection
    engine        loss and gradient in NumPy float32 against a direct implementation on the n x n matrix
    torch         the same in PyTorch: eager with autograd, and both under torch.compile
    jax           the same in JAX: jit, also in a compiled loop of 100 gradient steps (seconds per step); compilation
    tensorflow    the same in TensorFlow: eager, tf.function, and compiled by XLA
    mhe           the energy of MHE and its gradient against the n x n form, in every framework, eager and compiled
    models        a training step of the MNIST autoencoder in every framework, and the share of the loss in it
    memory        the peak memory of one large batch in a fresh process, in every installed library

Contenders take turns within one run; quote medians and ratios. Each framework runs in a process of its own with its
default number of threads, on a GPU where it finds one. A framework that is not installed is skipped; naming one is an
error. Everything takes about half an hour.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from _command import Parser, Screen, UsageError, make_table, open_outputs, run, write_all
from _contenders import CONTESTS
from _device import FRAMEWORKS, OPTION, choose
from _memory import extra_memory
from _models import summary
from _process import MeasureError, run_alone
from _timing import measure_cells, take_turns
from scipy.integrate import quad
from scipy.optimize import bisect
from scipy.special import gammaln

from eccentric_core import kernel_scale, stationary_radius

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SECTIONS = ("radii", "engine", *FRAMEWORKS, "mhe", "models", "memory")

# Steps timed in one process, and the steps of an epoch of MNIST.
STEPS = 25
STEPS_OF_AN_EPOCH = 600


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="what to measure (default: everything)")
    parser.add_argument(
        "--repeat",
        type=int,
        default=7,
        metavar="N",
        help="timed turns of each contender at large sizes (default 7); 20 to 200 times as many at small ones",
    )
    parser.add_argument("--largest", type=int, default=16384, metavar="N", help="largest n of a batch (default 16384)")
    parser.add_argument(
        "--dims",
        type=int,
        nargs="+",
        default=[8, 64, 512],
        metavar="D",
        help="dimensions of a batch (default 8 64 512)",
    )
    parser.add_argument(
        "--device",
        **OPTION,
        help="where the frameworks compute: on a GPU where they find one (auto, the default), on a CPU, or on a GPU, "
        "without which a section fails; NumPy has none",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
    options = parser.parse_args(argv)
    try:
        check_sections(options.sections)
        if options.repeat < 1:
            raise UsageError(f"argument --repeat: must be 1 or more, got {options.repeat}")
        if options.largest < 100:
            raise UsageError(f"argument --largest: must be 100 or more, got {options.largest}")
        if min(options.dims) < 2:
            raise UsageError(f"argument --dims: must be 2 or more, got {min(options.dims)}")
        choose(options.device)
        if options.device == "gpu":
            check_gpus(options.sections or SECTIONS)
        outputs = open_outputs(("--json", options.json, ()))
    except UsageError as error:
        parser.error(str(error))
    console = Screen()
    report: dict[str, Any] = {"machine": machine()}
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), highlight=False)
    complete = True
    for section in options.sections or SECTIONS:
        try:
            match section:
                case "radii":
                    report[section] = measure_radii(console, options.repeat)
                case "engine":
                    report[section] = measure_engine(console, options.repeat, options.largest, options.dims)
                case "mhe":
                    report[section] = measure_hyperspherical(console, options.repeat, options.largest)
                case "models":
                    report[section] = measure_models(console, options.repeat)
                case "memory":
                    report[section] = measure_memory(console)
                case _ if is_installed(section):
                    result = measure_framework(console, section, options.repeat, options.largest, options.dims)
                    report["machine"][section] = result.pop("version")
                    report[section] = result
                case _:
                    console.print(f"{section}: not installed")
        except MeasureError as error:
            print(f"error: {section}: {error}", file=sys.stderr)
            complete = False
    written = write_all(outputs, lambda _: (json.dumps(report, indent=1) + "\n").encode())
    return 0 if written and complete else 2


def check_sections(names: Iterable[str]) -> None:
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f"argument SECTION: must be one of {', '.join(SECTIONS)}, got {name!r}")
        if name in FRAMEWORKS and not is_installed(name):
            raise UsageError(f"argument SECTION: {name} is not installed")


def check_gpus(sections: Sequence[str]) -> None:
    for name in filter(is_installed, FRAMEWORKS):
        if {name, "mhe", "models", "memory"} & {*sections} and run_alone("_device.py", name) is None:
            raise UsageError(f"argument --device: {name} finds no GPU; use auto or cpu, or leave its sections out")


def is_installed(framework: str) -> bool:
    return importlib.util.find_spec(framework) is not None


def machine() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
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


def measure_engine(console: Screen, repeat: int, largest: int, dims: Sequence[int]) -> list[dict[str, float]]:
    cells = measure_cells("numpy", repeat, largest, dims)
    print_times(console, "NumPy", "numpy", cells)
    return cells


def measure_framework(console: Screen, library: str, repeat: int, largest: int, dims: Sequence[int]) -> dict[str, Any]:
    result: dict[str, Any] = run_alone("_timing.py", library, repeat, largest, *dims)
    title = f"{library} {result['version']}, {result['gpu'] or 'CPU'}"
    print_times(console, title, library, result["times"])
    if floor := result.get("floor"):
        console.print(
            f"{library}, {result['threads']} threads, n = {floor['n']}, d = {floor['d']}: "
            f"{1e3 * floor['seconds']:.2f} ms, {floor['floor_ratio']:.2f} times what the products of the tiles take at "
            f"the rate of one large product ({floor['operations_per_second'] / 1e9:.0f} Gflop/s).",
            highlight=False,
        )
    for compiled in result.get("compilation", ()):
        console.print(
            f"{library}, n = {compiled['n']:,}, d = {compiled['d']}: compiled in {compiled['seconds']:.2f} s",
            highlight=False,
        )
    return result


def print_times(console: Screen, title: str, library: str, cells: list[dict[str, float]]) -> None:
    """A table of all cells: n and d, the times in milliseconds, the ratios."""
    names = list(cells[0])
    headings = [
        name.replace("_in_a_loop", "\nin a loop").replace("_over_", " /\n").replace("_", "\n") for name in names
    ]
    table = make_table(f"loss and gradient, {title}, float32, milliseconds", headings)
    ratios = CONTESTS[library].ratios
    for cell in cells:
        row = [f"{cell[name]}" for name in names[:2]]
        for name in names[2:]:
            row.append(f"{cell[name] * (1 if name in ratios else 1e3):.2f}" if name in cell else "")
        table.add_row(*row)
    console.print(table)


def measure_hyperspherical(console: Screen, repeat: int, largest: int) -> list[dict[str, Any]]:
    rows, dim = min(4096, largest), 512
    names = ("naive", "ours", "naive_compiled", "ours_compiled")
    headings = ("", "half\nspace", *(name.replace("_", "\n") for name in names), "naive /\nours", "compiled", "MB")
    table = make_table(f"energy of MHE and gradient, n = {rows}, D = {dim}, float32, milliseconds", headings)
    result = []
    for library in filter(is_installed, FRAMEWORKS):
        for half_space in (False, True):
            seconds = run_alone("_spherical.py", library, repeat, rows, dim, int(half_space))
            memory = extra_memory(rows, dim, library, "hyperspherical_energy", half_space=half_space)["extra_bytes"]
            eager, compiled = (seconds[f"naive{kind}"] / seconds[f"ours{kind}"] for kind in ("", "_compiled"))
            ratios = {"eager_over_ours": eager, "compiled_over_ours_compiled": compiled, "extra_bytes": memory}
            result.append({"library": library, "half_space": half_space, "n": rows, "d": dim, **seconds, **ratios})
            times = (f"{1e3 * seconds[name]:.2f}" for name in names)
            shown = (f"{eager:.2f}", f"{compiled:.2f}", f"{memory / 1e6:.0f}")
            table.add_row(library, "yes" if half_space else "", *times, *shown)
    console.print(table)
    return result


def measure_models(console: Screen, repeat: int) -> dict[str, dict[str, float]]:
    frameworks = [name for name in FRAMEWORKS if is_installed(name)]
    seconds: dict[str, dict[str, list[float]]] = {name: {"step": [], "term": []} for name in frameworks}
    for _ in range(repeat):
        for name in frameworks:  # in turns, as the speed of the machine varies
            for kind, values in run_alone("_models.py", name, STEPS).items():
                seconds[name][kind] += values
    result = {name: summary(of_framework) for name, of_framework in seconds.items()}
    headings = ("", "step\n(ms)", f"over\n{frameworks[0]}", "epoch\n(s)", "term\n(ms)", "part of\na step")
    table = make_table("training the MNIST autoencoder, batches of 100, d = 8, float32", headings)
    for name, row in result.items():
        row["ratio"] = row["step"] / result[frameworks[0]]["step"]
        row["epoch"] = row["step"] * STEPS_OF_AN_EPOCH
        table.add_row(
            name,
            f"{1e3 * row['step']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['epoch']:.1f}",
            f"{1e3 * row['term']:.2f}",
            f"{row['share']:.2%}",
        )
    console.print(table)
    return result


def measure_memory(console: Screen) -> list[dict[str, Any]]:
    # Above mu = 4 the sums of a float32 gradient are kept in float64.
    cases = [("numpy", 1.0), ("numpy", 64.5), *((name, 1.0) for name in FRAMEWORKS if is_installed(name))]
    result = []
    for library, mu in cases:
        measured = extra_memory(50_000, 64, library, mu=mu)
        result.append({"library": library, "n": 50_000, "d": 64, "mu": mu, **measured})
        console.print(
            f"memory: {library}, n = 50,000, d = 64, float32, mu = {mu:g}: "
            f"{measured['extra_bytes'] / 1e6:.0f} MB above the input, {measured['seconds']:.1f} s",
            highlight=False,
        )
    return result


if __name__ == "__main__":
    run(main)
