"""The evaluation of a trained autoencoder, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eccentric_core import eccentric_loss, loss_floor, spectrum, stationary_radius

if TYPE_CHECKING:
    from eccentric_core import LatentSpectrum
    from eccentric_models.data import Dataset, Split
    from eccentric_models.frameworks import Autoencoder

NEIGHBOURS = 15

# The rows whose loss is computed: all pairs of 60,000 would take seconds.
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class Evaluation:
    """One side of the train/test split.

    Attributes:
        count: the number of images.
        reconstruction: mean squared error per pixel, images from 0 to 1.
        loss, floor: the eccentric loss of the latents (of the first 10,000), and its lower bound for that batch size.
        radius, stationary_radius: the root mean square distance from the origin, and that of Theorem 1.
        spectrum: of the latents.
    """

    count: int
    reconstruction: float
    loss: float
    floor: float
    radius: float
    stationary_radius: float
    spectrum: LatentSpectrum

    @property
    def line(self) -> str:
        """A summary in one line."""
        return (
            f"loss {self.loss:.4f} (floor {self.floor:.4f}), radius {self.radius:.4f} "
            f"(sqrt(d) {np.sqrt(self.spectrum.mean.size):.4f}), trace {self.spectrum.trace:.4f}, "
            f"eccentricity {self.spectrum.eccentricity:.4f}"
        )


def evaluate(model: Autoencoder, split: Split, latents: np.ndarray) -> Evaluation:
    """Evaluate a model on images with these latents (n, d), as `model.encode` gives them."""
    objective, z = model.objective, latents.astype(np.float64)
    few, dim = z[:_MOST_ROWS], z.shape[1]
    options = {"mu": objective.mu, "scale": objective.scale}
    return Evaluation(
        count=len(z),
        reconstruction=reconstruction_error(model, split.images, latents),
        loss=float(eccentric_loss(few, **options)),
        floor=float(loss_floor(dim, batch_size=len(few), **options)),
        radius=float(np.sqrt(np.mean(np.sum(z * z, axis=1)))),
        stationary_radius=float(stationary_radius(dim, **options)),
        spectrum=spectrum(z),
    )


def reconstruction_error(model: Autoencoder, images: np.ndarray, latents: np.ndarray, chunk: int = 1000) -> float:
    """The mean squared error per pixel of the decoded latents."""
    total = 0.0
    for start in range(0, len(images), chunk):
        original = images[start : start + chunk].astype(np.float64) / 255
        total += float(np.sum((model.decode(latents[start : start + chunk]) - original) ** 2))
    return total / images.size


def neighbour_error(dataset: Dataset, train: np.ndarray, test: np.ndarray, k: int = NEIGHBOURS) -> float | None:
    """The error rate on test images of the k nearest neighbours among the training latents; None without classes."""
    labels = dataset.train.labels
    if labels is None or labels.ndim != 1:
        return None
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(min(k, len(train))).fit(train, labels)
    return float(np.mean(classifier.predict(test) != dataset.test.labels))
