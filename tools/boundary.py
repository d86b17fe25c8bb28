#!/usr/bin/env python3
"""Show both sides of the boundary at which the sphere stops being the minimum of the loss (docs/minimizer.md).

Points are moved by L-BFGS from a normal start, below and above the critical mu of d = 2 and 3, and for d = 4, which has
none. On the sphere all radii are equal, and the loss is that of the sphere; beyond the boundary the loss is lower.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _command import PLOT_SUFFIXES, Parser, Screen, UsageError, make_table, open_outputs, run, write_all
from _figures import encode
from _settle import minimise

from eccentric_core import critical_mu, kernel_scale, loss_floor, sphere_is_minimizer, sphere_loss, stationary_radius

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASES = ((2, 1.0), (2, 1.4), (2, 1.7), (2, 2.5), (3, 3.0), (3, 5.0), (4, 5.0), (4, 100.0))
DRAWN = ((2, 1.4), (2, 1.7), (2, 2.5))


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, metavar="N", help="points of each case (default 400)")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw the points of d = 2")
    options = parser.parse_args(argv)
    try:
        if options.rows < 50:
            raise UsageError(f"argument --rows: must be 50 or more, got {options.rows}")
        outputs = open_outputs(("--plot", options.plot, PLOT_SUFFIXES))
    except UsageError as error:
        parser.error(str(error))
    n = options.rows
    headings = ("d", "mu", "critical\nmu", "sphere is\nminimum", "radii / rho", "loss", "on the\nsphere", "floor")
    table = make_table(f"{n} points moved by L-BFGS", headings)
    drawn = {}
    for dim, mu in CASES:
        points, loss = minimise(np.random.default_rng(0).standard_normal((n, dim)), mu, "paper")
        radii = np.linalg.norm(points, axis=1) / stationary_radius(dim, mu, batch_size=n)
        drawn[dim, mu] = points
        # A batch of n is the infinite one with mu n/(n-1) and the same M.
        batch_mu = mu * n / (n - 1)
        table.add_row(
            f"{dim}",
            f"{mu:g}",
            f"{critical_mu(dim):.4f}" if dim < 4 else "none",
            "yes" if sphere_is_minimizer(dim, mu, batch_size=n) else "no",
            f"{np.min(radii):.3f} to {np.max(radii):.3f}",
            f"{loss:.6f}",
            f"{sphere_loss(dim, batch_mu, scale=float(kernel_scale(dim, mu))):.6f}",
            f"{loss_floor(dim, mu, batch_size=n):.6f}",
        )
    written = write_all(outputs, lambda output: encode(draw(drawn), output.suffix))
    Screen().print(table)
    return 0 if written else 2


def draw(drawn: dict[tuple[int, float], np.ndarray]) -> Figure:
    from matplotlib.figure import Figure  # half a second, which a table does not need

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    angle = np.linspace(0, 2 * np.pi, 200)
    for axes, case in zip(figure.subplots(1, len(DRAWN), sharex=True, sharey=True), DRAWN, strict=True):
        points = drawn[case]
        rho = stationary_radius(*case, batch_size=len(points))
        axes.plot(rho * np.cos(angle), rho * np.sin(angle), color="tab:red", linewidth=1, zorder=0)
        axes.plot(*points.T, "o", markersize=2.5, color="tab:blue")
        side = "below" if case[1] <= critical_mu(case[0]) else "above"
        axes.set_title(rf"d = {case[0]}, $\mu$ = {case[1]:g}, {side} {critical_mu(case[0]):.4f}")
        axes.set_aspect("equal")
    return figure


if __name__ == "__main__":
    run(main)
