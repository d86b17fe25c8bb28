"""The figures of the paper that need no training."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from eccentric_core import kernel_scale, repulsive_force

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORCE_DIM = 64
FORCE_MUS = (1.0, 1.5, 2.5, 4.5, 16.5, 64.5)


def figure1(errors: Mapping[int, float], scale: str, claims: Iterable[tuple[float, int]]) -> Figure:
    """The greatest percentage difference between rho and sqrt(d) over mu, for every dimension.

    claims: bounds of |rho/sqrt(d) - 1| and the dimensions from which they hold, drawn beside the curve.
    """
    figure, axes = _blank()
    dims = np.array(sorted(errors))
    axes.semilogy(dims, [100 * errors[dim] for dim in dims], color="tab:blue")
    axes.set_xlim(0, dims[-1])
    axes.set_xlabel("dimension d")
    axes.set_ylabel(r"max over $\mu$ of $|\rho/\sqrt{d} - 1|$ (%)")
    axes.set_title(f"Difference between the stationary radius and $\\sqrt{{d}}$, {scale} scale")
    axes.grid(visible=True, which="major", alpha=0.4)
    for bound, first in claims:
        percent = 100 * bound
        axes.plot([first, dims[-1]], [percent, percent], color="tab:red", linewidth=1, linestyle="--")
        axes.annotate(f"{percent:g} % from d = {first}", (first, percent), (6, 4), textcoords="offset points")
    return figure


def figure2() -> Figure:
    """The repulsive force between two items over their distance, for d = 64 and several mu."""
    figure, axes = _blank()
    distance = np.linspace(0, 25, 1001)
    for mu in FORCE_MUS:
        (line,) = axes.plot(distance, repulsive_force(distance, FORCE_DIM, mu), label=rf"$\mu$ = {mu:g}")
        root = float(np.sqrt(kernel_scale(FORCE_DIM, mu)))
        axes.plot(root, repulsive_force(root, FORCE_DIM, mu), "o", color=line.get_color(), markersize=4)
    axes.axvline(np.sqrt(2 * FORCE_DIM), color="grey", linewidth=1, linestyle=":")
    axes.annotate(r"$\sqrt{2d}$", (np.sqrt(2 * FORCE_DIM), 0), (4, 6), textcoords="offset points", color="grey")
    axes.set_xlim(0, distance[-1])
    axes.set_ylim(0)
    axes.set_xlabel("distance between two items")
    axes.set_ylabel("repulsive force")
    axes.set_title(rf"Repulsive force for d = {FORCE_DIM}; dots at $\sqrt{{M}}$, where it is greatest")
    axes.legend()
    axes.grid(visible=True, alpha=0.4)
    return figure


def _blank() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # half a second, which a table does not need

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.add_subplot()


def encode(figure: Figure, suffix: str) -> bytes:
    """The content of a picture file of the format of a suffix."""
    content = io.BytesIO()
    figure.savefig(content, format=suffix.removeprefix("."), dpi=150)
    return content.getvalue()
