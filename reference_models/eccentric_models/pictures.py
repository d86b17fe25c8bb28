"""Pictures of a run: reconstructions and samples, and the latent vectors in their principal axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from eccentric_core import spectrum

if TYPE_CHECKING:
    from eccentric_models.data import Dataset
    from eccentric_models.frameworks import Autoencoder

_COLUMNS = 12
_DOTS = 5000


def reconstructions(model: Autoencoder, dataset: Dataset, train: np.ndarray, test: np.ndarray) -> Figure:
    """Test images, their reconstructions, and images of latents sampled from the normal fitted to the training set.

    Args:
        model, dataset: the trained autoencoder and its data.
        train, test: latents (n, d) of both sides of the data.
    """
    count = min(_COLUMNS, len(test))
    drawn = spectrum(train.astype(np.float64)).sample(count, np.random.default_rng(0))
    rows = {
        "test image": dataset.test.images[:count] / 255,
        "reconstruction": model.decode(test[:count]),
        "sample": model.decode(drawn),
    }
    figure = Figure(figsize=(0.75 * count + 1.4, 0.75 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    for axes_of_row, (title, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(axes_of_row, images, strict=True):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_of_row[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return figure


def latents(dataset: Dataset, train: np.ndarray, test: np.ndarray) -> Figure:
    """The latents of test images in the two largest principal axes of the training set, coloured by class."""
    fitted = spectrum(train.astype(np.float64))
    points = fitted.transform(test[:_DOTS].astype(np.float64))
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    labels = dataset.test.labels
    if labels is None or labels.ndim != 1:
        axes.scatter(points[:, 0], points[:, 1], s=6, alpha=0.6)
    else:
        classes = np.unique(labels)
        dots = axes.scatter(
            points[:, 0], points[:, 1], s=6, c=labels[:_DOTS], cmap="tab10" if len(classes) <= 10 else "viridis"
        )
        if len(classes) <= 10:
            names = dataset.label_names or [str(value) for value in classes]
            axes.legend(
                dots.legend_elements(num=None)[0], names, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5)
            )
        else:
            figure.colorbar(dots, label="class")
    for axis, value, name in zip((axes.xaxis, axes.yaxis), fitted.eigenvalues, ("first", "second"), strict=False):
        axis.set_label_text(f"{name} principal component (variance {value:.2f})")
    axes.set_aspect("equal")
    axes.set_title(f"Latent vectors of {len(points):,} test images ({dataset.name}, d = {points.shape[1]})")
    axes.grid(visible=True, alpha=0.3)
    return figure
