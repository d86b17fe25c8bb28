"""The figures of the paper that show trained runs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DOTS = 1500
_LARGE = 190_000  # bytes
_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_DASHES = ("-", (0, (6, 2)), (2, (6, 6)), (4, (2, 6)))
_MARKS = {"EAE": "o", "VAE": "s", "WAE": "^", "AE": "*"}


def scatter(panels: Mapping[tuple[float, float], np.ndarray], classes: np.ndarray) -> Figure:
    """Figure 3: principal coordinates (n, 2) by lambda and mu, coloured by class."""
    lams, mus = (list(dict.fromkeys(key[i] for key in panels)) for i in range(2))
    figure = Figure(figsize=(3.1 * len(lams) + 1, 3.1 * len(mus) + 0.6), layout="constrained")
    grid = figure.subplots(len(mus), len(lams), squeeze=False, sharex=True, sharey=True)
    circle = np.linspace(0, 2 * np.pi, 200)
    for (lam, mu), points in panels.items():
        axes = grid[mus.index(mu), lams.index(lam)]
        dots = axes.scatter(*points[:_DOTS].T, s=2, c=classes[:_DOTS], cmap="tab10")
        axes.plot(np.sqrt(2) * np.cos(circle), np.sqrt(2) * np.sin(circle), color="black", linewidth=0.8, alpha=0.6)
        axes.set_title(rf"$\lambda$ = {lam:g}, $\mu$ = {mu:g}", fontsize="medium")
        axes.set_aspect("equal")
        axes.grid(visible=True, alpha=0.3)
    figure.supxlabel("first principal component", fontsize="medium")
    figure.supylabel("second principal component", fontsize="medium")
    handles, names = dots.legend_elements(num=None)
    figure.legend(handles, names, loc="outside right center", title="class", fontsize="small")
    return figure


def spectra(curves: Mapping[tuple[float, float], Sequence[np.ndarray]]) -> Figure:
    """Figure 5: the eigenvalues of several runs, superimposed, by lambda (panels) and mu (colours)."""
    lams, mus = (list(dict.fromkeys(key[i] for key in curves)) for i in range(2))
    figure = Figure(figsize=(4.6 * len(lams), 4), layout="constrained")
    grid = figure.subplots(1, len(lams), squeeze=False, sharey=True)[0]
    for (lam, mu), runs in curves.items():
        axes, color = grid[lams.index(lam)], _COLORS[mus.index(mu) % len(_COLORS)]
        for i, eigenvalues in enumerate(runs):
            label = rf"$\mu$ = {mu:g}" if i == 0 else None
            place = np.arange(1, len(eigenvalues) + 1)
            axes.plot(place, eigenvalues, color=color, linewidth=1, marker=".", markersize=4, alpha=0.8, label=label)
        axes.set_title(rf"$\lambda$ = {lam:g}")
        axes.set_xlabel("principal component")
    for axes in grid:
        axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(0)
    grid[0].set_ylabel("eigenvalue of the covariance")
    return figure


def pairs(strips: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> Figure:
    """Figures 6 and 7: strips of (title, names of the components, images (k, 2, h, w, c)), plus above minus."""
    most = max(images.shape[0] for _, _, images in strips)
    figure = Figure(figsize=(0.62 * most + 0.6, 1.85 * len(strips)), layout="constrained")
    for part, (title, names, images) in zip(_rows_of(figure, len(strips)), strips, strict=True):
        part.suptitle(title, fontsize="medium")
        grid = part.subplots(2, most, squeeze=False)
        for i, sign in enumerate("+−"):
            for k, axes in enumerate(grid[i]):
                if k >= len(images):
                    axes.set_axis_off()
                    continue
                _show(axes, images[k, i])
                if i == 0:
                    axes.set_title(names[k], fontsize="small", pad=2)
            grid[i, 0].set_ylabel(sign, rotation=0, ha="right", va="center")
    return figure


def combinations(
    images: np.ndarray,
    names: tuple[Sequence[str], Sequence[str]],
    signs: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]],
) -> Figure:
    """Figure 8: images (rows, columns, h, w, c) with the signs of the components of every row and column."""
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.72 * columns + 0.8, 0.72 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for i in range(rows):
        for j in range(columns):
            _show(grid[i, j], images[i, j])
        grid[i, 0].set_ylabel(_signed(names[0], signs[0][i]), rotation=0, ha="right", va="center", fontsize="small")
    for j in range(columns):
        grid[0, j].set_title(_signed(names[1], signs[1][j]), fontsize="small")
    return figure


def correlations(panels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Figure 9: correlations (d, d) between two runs before and after alignment, one row per title."""
    figure = Figure(figsize=(7.2, 3.5 * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), 2, squeeze=False)
    for axes_of_row, (title, matrices) in zip(grid, panels.items(), strict=True):
        for axes, matrix, when in zip(axes_of_row, matrices, ("before", "after"), strict=True):
            edge = len(matrix) + 0.5
            image = axes.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1, extent=(0.5, edge, edge, 0.5))
            axes.set_title(f"{title}, {when} alignment", fontsize="medium")
            axes.set_xlabel("component of the second run")
            axes.set_ylabel("component of the first run")
            for axis in (axes.xaxis, axes.yaxis):
                axis.get_major_locator().set_params(integer=True, min_n_ticks=3)
    figure.colorbar(image, ax=grid, label="correlation on the test set", shrink=0.6)
    return figure


def scores(points: Mapping[str, Sequence[tuple[float, float]]], name: str) -> Figure:
    """Figure 10: pairs of eccentricity and score for each algorithm, in the order of lambda."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for algorithm, values in points.items():
        axes.plot(*zip(*values, strict=True), marker=_MARKS.get(algorithm, "o"), linewidth=1, label=algorithm)
    axes.set_xlabel(r"eccentricity $\epsilon$")
    axes.set_ylabel(f"{name} (less is better)")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def courses(values: Mapping[str, Sequence[float]], label: str) -> Figure:
    """One curve for each name: a value before training and after every epoch."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, course) in enumerate(values.items()):  # some may coincide
        axes.plot(course, linewidth=1.4, linestyle=_DASHES[i % len(_DASHES)], label=name)
    axes.set_xlabel("epochs")
    axes.set_ylabel(label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right center", fontsize="small", handlelength=3)
    return figure


def png(figure: Figure) -> bytes:
    """The content of a PNG file, with 256 colours and a lower resolution if it would be large."""
    for dpi in (150, 120, 90, 70):
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.1)
        if content.tell() > _LARGE:
            image = Image.open(content).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            content = io.BytesIO()
            image.save(content, format="png", optimize=True)
        if content.tell() <= _LARGE:
            break
    return content.getvalue()


def _rows_of(figure: Figure, count: int) -> Sequence[Any]:
    return np.atleast_1d(figure.subfigures(count, 1))


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(np.clip(image, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _signed(names: Sequence[str], signs: tuple[int, ...]) -> str:
    return "\n".join(f"{'+' if sign > 0 else '−'}{name}" for name, sign in zip(names, signs, strict=True))
