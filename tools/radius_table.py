#!/usr/bin/env python3
"""Verify that the stationary radius of the eccentric loss is about sqrt(d), as Figure 1 of the paper states it.

Prints a table over a choice of dimensions, then checks the paper's three claims over every dimension from 2 to 300 and
every mu of the grid. The exit status is 0 if all hold, 1 if one fails, 2 on bad usage.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
from _command import PLOT_SUFFIXES, Claim, Output, Parser, Screen, UsageError, make_table, open_outputs, run, write_all
from _figures import encode, figure1, figure2
from _settle import MOST_DIMS, MOST_ROWS, judge_settled, settle, settled_table
from rich.console import Console
from rich.progress import Progress, track

from eccentric_core import critical_mu, enclose_radius, stationary_radius

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

FIRST, LAST = 2, 300
TABLE_DIMS = (2, 3, 4, 6, 8, 11, 12, 16, 24, 32, 37, 38, 64, 100, 116, 117, 150, 200, 250, 300)
SETTLE_DIMS = (2, 4, 8, 16, 32)
# Section 2: "within 0.1% of sqrt(d) for d >= 12, within 0.01% for d >= 38, and within 0.001% for d >= 117".
CLAIMS = ((1e-3, 12), (1e-4, 38), (1e-5, 117))
EXACT_TOLERANCE = 1e-14
LARGEST_MU = 1e12
MOST_LISTED = 100_000


@dataclass(frozen=True)
class MuGrid:
    """The values of mu: from start to stop (None: 2d + 1, as in the paper) in equal steps."""

    start: float = 1.0
    step: float = 0.01
    stop: float | None = None

    def __call__(self, dim: int) -> np.ndarray:
        stop = 2 * dim + 1 if self.stop is None else self.stop
        # Whole multiples of the step, so that rounding does not add up; the last one may be stop itself.
        return self.start + self.step * np.arange(int((stop - self.start) / self.step + 1e-9) + 1)

    def describe(self) -> str:
        stop = "2d + 1" if self.stop is None else f"{self.stop:g}"
        return f"mu from {self.start:g} to {stop} in steps of {self.step:g}"


@dataclass(frozen=True)
class Row:
    """The results in one dimension."""

    dim: int
    worst_error: float  # max over mu of |rho/sqrt(d) - 1|
    worst_mu: float
    radius_at_mu_1: float
    digits_agreed: float | None  # of float64 with mpmath, at mu = 1 and at the worst mu; None: not computed
    critical_mu: float


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    dims = tuple(options.dims or TABLE_DIMS)
    settle_dims = [dim for dim in options.dims or SETTLE_DIMS if dim <= MOST_DIMS] if options.empirical else []
    grid = MuGrid(options.mu_start, options.mu_step, options.mu_stop)
    try:
        check(options, dims, settle_dims, grid)
        outputs = open_outputs(
            ("--csv", options.csv, ()),
            ("--json", options.json, ()),
            ("--plot", options.plot, PLOT_SUFFIXES),
            ("--force-plot", options.force_plot, PLOT_SUFFIXES),
        )
    except UsageError as error:
        parser.error(str(error))

    errors = worst_errors(sorted({*range(FIRST, LAST + 1), *dims}), grid, options.scale)
    rows = [make_row(dim, *errors[dim], options) for dim in dims]
    claims = judge(errors, options.scale)
    settled = [settle(dim, options.mu, options.scale, options.rows) for dim in with_progress(settle_dims)]
    settled_claims = judge_settled(settled) if settled else []

    # Files first: they are written even if printing fails.
    report: dict[str, Any] = {"scale": options.scale, "mu": grid.describe(), "rows": [asdict(row) for row in rows]}
    report["figure1"] = {dim: errors[dim][0] for dim in range(FIRST, LAST + 1)}
    if settled:
        report["empirical"] = {"mu": options.mu, "rows": [asdict(row) for row in settled]}
    report["claims"] = [asdict(claim) for claim in claims + settled_claims]
    written = write_all(outputs, lambda output: render(output, rows, report))

    screen = Screen()
    screen.print(radius_table(rows, grid, options))
    if grid != MuGrid():
        screen.print(f"The claims below are about another grid of mu than the paper's: {grid.describe()}.")
    show_claims(screen, claims)
    if settled:
        screen.print()
        screen.print(settled_table(settled, options.mu, options.scale))
        show_claims(screen, settled_claims)
        if options.dims and len(settled) < len(dims):
            screen.print(f"Left out: dimensions beyond {MOST_DIMS}, which the digits do not fill.")
    if not written:
        return 2
    return 0 if all(claim.holds for claim in claims + settled_claims) else 1


def make_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dims",
        type=parse_dims,
        metavar="LIST",
        help="dimensions of the tables, such as 2,8,64 or 2-20,64 or 10-100:10",
    )
    parser.add_argument("--mu-start", type=float, default=1.0, metavar="MU", help="the grid of mu: first (default 1)")
    parser.add_argument("--mu-stop", type=float, metavar="MU", help="last (default 2d + 1)")
    parser.add_argument("--mu-step", type=float, default=0.01, metavar="STEP", help="and step (default 0.01)")
    parser.add_argument("--scale", choices=("paper", "exact"), default="paper", help="the M to verify (default paper)")
    parser.add_argument(
        "--digits",
        type=int,
        default=30,
        metavar="N",
        help="digits of the enclosures to compare; 0: none (default 30)",
    )
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the table as CSV")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw Figure 1 (the format follows the suffix)")
    parser.add_argument("--force-plot", type=Path, metavar="PATH", help="draw Figure 2")
    parser.add_argument(
        "--empirical",
        action="store_true",
        help="also minimise the loss itself, from real digits projected to d dimensions, and compare with the theory",
    )
    parser.add_argument("--mu", type=float, default=1.0, help="mu of --empirical (default 1)")
    parser.add_argument("--rows", type=int, default=500, metavar="N", help="rows of --empirical (default 500)")
    return parser


def parse_dims(text: str) -> list[int]:
    """Dimensions from a list of numbers and of ranges first-last or first-last:step."""
    dims = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+)(?::(\d+))?)?\s*", part)
        if not match:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is no dimension and no range first-last[:step]")
        first, last, step = (int(group) if group else None for group in match.groups())
        if step == 0:
            raise argparse.ArgumentTypeError(f"the step of {part.strip()!r} must be positive")
        listed = range(first, (first if last is None else last) + 1, step or 1)
        if len(listed) > MOST_LISTED:
            raise argparse.ArgumentTypeError(f"the range {part.strip()!r} has more than {MOST_LISTED:,} dimensions")
        dims += listed
    if not dims:
        raise argparse.ArgumentTypeError(f"the range {text.strip()!r} is empty")
    return sorted(set(dims))


def check(options: argparse.Namespace, dims: tuple[int, ...], settle_dims: list[int], grid: MuGrid) -> None:
    """Check all arguments before anything is computed."""
    if dims[0] < 2:
        raise UsageError(f"argument --dims: a dimension must be 2 or more, got {dims[0]}")
    if not 0.5 < grid.start <= LARGEST_MU:
        raise UsageError(
            f"argument --mu-start: must be greater than 1/2 and at most {LARGEST_MU:g}, got {grid.start!r}"
        )
    if grid.stop is not None and not grid.stop <= LARGEST_MU:
        raise UsageError(f"argument --mu-stop: must be at most {LARGEST_MU:g}, got {grid.stop!r}")
    if not grid.step > 0 or not np.isfinite(grid.step):
        raise UsageError(f"argument --mu-step: the step must be positive, got {grid.step:g}")
    shortest = 2 * FIRST + 1 if grid.stop is None else grid.stop
    if not shortest >= grid.start or not np.isfinite(shortest):
        raise UsageError(f"the grid of mu from {grid.start:g} to {shortest:g} is empty")
    longest = (2 * max(*dims, LAST) + 1 if grid.stop is None else grid.stop) - grid.start
    if longest / grid.step > 1e8:
        raise UsageError(f"the grid of mu has {longest / grid.step:.0e} values, more than 1e8; take a larger --mu-step")
    if options.digits < 0:
        raise UsageError(f"argument --digits: must not be negative, got {options.digits}")
    if options.empirical:
        if not 0.5 < options.mu <= LARGEST_MU:
            raise UsageError(f"argument --mu: must be greater than 1/2 and at most {LARGEST_MU:g}, got {options.mu!r}")
        if not settle_dims:
            raise UsageError(f"argument --dims: the digits of --empirical fill {MOST_DIMS} dimensions, got {dims[0]}")
        fewest = settle_dims[-1] + 1
        if not fewest <= options.rows <= MOST_ROWS:
            raise UsageError(f"argument --rows: must be from {fewest} (d + 1) to {MOST_ROWS}, got {options.rows}")


def worst_errors(dims: list[int], grid: MuGrid, scale: str) -> dict[int, tuple[float, float]]:
    """For every dimension the greatest |rho/sqrt(d) - 1| over the grid of mu, and the mu at which it occurs."""
    errors = {}
    with Progress(console=Console(stderr=True), transient=True, disable=not_a_terminal()) as progress:
        task = progress.add_task("radii", total=sum(2 * dim + 1 for dim in dims))
        for dim in dims:
            mu = grid(dim)
            error = np.abs(stationary_radius(dim, mu, scale=scale) / np.sqrt(dim) - 1.0)
            worst = int(np.argmax(error))
            errors[dim] = float(error[worst]), float(mu[worst])
            progress.advance(task, 2 * dim + 1)
    return errors


def make_row(dim: int, error: float, mu: float, options: argparse.Namespace) -> Row:
    agreed = None
    if options.digits:
        agreed = min(digits_agreed(dim, m, options.scale, options.digits) for m in (1.0, mu))
    radius = float(stationary_radius(dim, 1.0, scale=options.scale))
    return Row(dim, error, mu, radius, agreed, float(critical_mu(dim)))


def digits_agreed(dim: int, mu: float, scale: str, digits: int) -> float:
    """The number of digits of the float64 radius that an enclosure confirms; at most those of the enclosure."""
    lower, upper = enclose_radius(dim, mu, scale=scale, digits=digits)
    with mpmath.workdps(digits + 20):
        radius = mpmath.mpf(float(stationary_radius(dim, mu, scale=scale)))
        error = max(abs(radius - lower), abs(radius - upper)) / lower
        return float(min(digits, -mpmath.log10(error)))


def judge(errors: dict[int, tuple[float, float]], scale: str) -> list[Claim]:
    """The claims of the paper, and that each fails one dimension below."""
    every = {dim: errors[dim][0] for dim in range(FIRST, LAST + 1)}
    if scale == "exact":
        worst = max(every, key=every.__getitem__)
        text = f"rho is sqrt(d) to {EXACT_TOLERANCE:g} for every d from {FIRST} to {LAST}"
        return [Claim(text, every[worst] <= EXACT_TOLERANCE, f"at most {every[worst]:.1e}, at d = {worst}")]
    claims = []
    for bound, first in CLAIMS:
        beyond = max((dim for dim in every if dim >= first), key=every.__getitem__)
        claims.append(
            Claim(
                f"rho is within {100 * bound:g} % of sqrt(d) for every d from {first} to {LAST}",
                every[beyond] <= bound,
                f"at most {100 * every[beyond]:.6f} %, at d = {beyond}",
            )
        )
        before = every[first - 1]
        claims.append(Claim(f"that bound fails at d = {first - 1}", before > bound, f"{100 * before:.6f} %"))
    return claims


def radius_table(rows: list[Row], grid: MuGrid, options: argparse.Namespace) -> Table:
    notes = ["critical mu: above it the sphere is stationary but not the minimum (docs/minimizer.md)."]
    if options.digits:
        digits = options.digits
        notes.insert(
            0, f"digits agreed: of float64 with an enclosure to {digits} digits, at mu = 1 and at the worst mu."
        )
    title = f"Radius rho of the stationary sphere, {options.scale} scale\n{grid.describe()}"
    headings = ["d", "worst of\n|rho/sqrt(d) - 1|", "at mu", "rho at\nmu = 1", "sqrt(d)", "digits\nagreed"]
    table = make_table(title, [*headings, "critical\nmu"], "\n".join(notes))
    for row in rows:
        table.add_row(
            f"{row.dim}",
            f"{100 * row.worst_error:.6f} %" if row.worst_error > 1e-12 else f"{100 * row.worst_error:.0e} %",
            f"{row.worst_mu:g}",
            f"{row.radius_at_mu_1:.6f}",
            f"{np.sqrt(row.dim):.6f}",
            "" if row.digits_agreed is None else f"{row.digits_agreed:.1f}",
            f"{row.critical_mu:.6f}" if np.isfinite(row.critical_mu) else "none",
        )
    return table


def show_claims(screen: Screen, claims: list[Claim]) -> None:
    for claim in claims:
        style = "green" if claim.holds else "bold red"
        screen.print(f"[{style}]{'PASS' if claim.holds else 'FAIL'}[/]  {claim.text}: {claim.measured}")


def with_progress(dims: list[int]) -> Iterable[int]:
    console = Console(stderr=True)
    return track(dims, "minimising", console=console, transient=True, disable=not_a_terminal())


def not_a_terminal() -> bool:
    return sys.stderr is None or not sys.stderr.isatty()


def render(output: Output, rows: list[Row], report: dict[str, Any]) -> bytes:
    """The content of an output file."""
    match output.option:
        case "--csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(asdict(rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
            return text.getvalue().encode()
        case "--plot":
            claims = CLAIMS if report["scale"] == "paper" else ()
            return encode(figure1(report["figure1"], report["scale"], claims), output.suffix)
        case "--force-plot":
            return encode(figure2(), output.suffix)
    # JSON has no infinity: a missing critical mu is null.
    return (json.dumps(without_infinity(report), indent=1, allow_nan=False) + "\n").encode()


def without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_infinity(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    run(main)
