"""Images along deep principal components: decoded points on the axes, or in corners between them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core import LatentSpectrum
    from eccentric_models.frameworks import Autoencoder


def paired_images(model: Autoencoder, spectrum: LatentSpectrum, deviations: float) -> np.ndarray:
    """The eigen-images of Figures 6 and 7: the mean plus and minus a number of standard deviations along each axis.

    Returns:
        Images from 0 to 1 of shape (d, 2, height, width, channels): component, then plus and minus.
    """
    scaled = deviations * np.diag(np.sqrt(spectrum.eigenvalues))
    points = spectrum.inverse_transform(np.stack([scaled, -scaled], axis=1).reshape(-1, len(scaled)))
    images = decode(model, points)
    return images.reshape(len(scaled), 2, *images.shape[1:])


def combined_images(
    model: Autoencoder,
    spectrum: LatentSpectrum,
    columns: Sequence[int],
    rows: Sequence[int],
    deviations: float,
) -> tuple[np.ndarray, list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The images of Figure 8: every combination of signs of some components, the others at the mean.

    Args:
        model, spectrum: a trained autoencoder and the spectrum of its training latents.
        columns, rows: components, from 0, whose signs change from column to column and from row to row.
        deviations: the distance from the mean, in standard deviations of each component.

    Returns:
        Images of shape (2^rows, 2^columns, height, width, channels); the signs (1 or -1) of each row; of each column.
    """
    row_signs, column_signs = (list(product((1, -1), repeat=len(part))) for part in (rows, columns))
    coordinates = np.zeros((len(row_signs), len(column_signs), spectrum.mean.size))
    coordinates[:, :, list(rows)] = np.array(row_signs)[:, None]
    coordinates[:, :, list(columns)] = np.array(column_signs)[None]
    flat = coordinates.reshape(-1, spectrum.mean.size) * deviations * np.sqrt(spectrum.eigenvalues)
    images = decode(model, spectrum.inverse_transform(flat))
    return images.reshape(len(row_signs), len(column_signs), *images.shape[1:]), row_signs, column_signs


def decode(model: Autoencoder, latents: np.ndarray, chunk: int = 1000) -> np.ndarray:
    """The images (n, height, width, channels), from 0 to 1, of many latents."""
    return np.concatenate([model.decode(latents[start : start + chunk]) for start in range(0, len(latents), chunk)])
