"""The Fréchet distance between two sets of images in some space of features.

The Fréchet inception distance (FID) is that in the features of one network, InceptionV3 with one set of weights.
Without these weights the features are those of a classifier that is trained on the same data. The distance in them is
called the Fréchet classifier distance (FCD) and is comparable only with others of the same data.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from eccentric_models.components import decode
from eccentric_models.runs import fingerprint
from eccentric_models.safetensors_files import Format

if TYPE_CHECKING:
    from eccentric_models.data import Dataset
    from eccentric_models.runs import Run

_FORMAT = Format("eccentric-classifier 1", "classifier", remedy="remove it to train it again", missing="train it")

_HIDDEN = (256, 64)
_EPOCHS = 10
_CHUNK = 1000
_MOST_NUMBERS = 250_000_000  # of training images, as float32 1 GB

_INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """The squared Fréchet (Wasserstein-2) distance between two normal distributions, which FID is.

        |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)  =  |mean_a - mean_b|^2 + min_U |A^1/2 - B^1/2 U|^2

    over orthogonal U (Procrustes). The right side is computed: a sum of squares, which is never negative nor complex,
    even for singular covariances, and 0 for equal ones.

    Args:
        mean_a, mean_b: shape (d,).
        covariance_a, covariance_b: shape (d, d), symmetric; eigenvalues below 0, due to rounding, count as 0.

    Raises:
        ValueError: the shapes do not match, or there is NaN or infinity.
    """
    means = [np.asarray(mean, np.float64) for mean in (mean_a, mean_b)]
    covariances = [np.asarray(covariance, np.float64) for covariance in (covariance_a, covariance_b)]
    dim = means[0].size
    for name, mean, covariance in zip("ab", means, covariances, strict=True):
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise ValueError(
                f"mean_{name} and covariance_{name} must have shapes ({dim},) and ({dim}, {dim}), "
                f"got {mean.shape} and {covariance.shape}"
            )
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
            raise ValueError(f"mean_{name} and covariance_{name} must be finite, got NaN or infinity")
    a, b = map(_root, covariances)
    left, _, right = np.linalg.svd(a @ b)
    shift = means[0] - means[1]
    difference = a - b @ (right.T @ left.T)
    return float(shift @ shift + np.sum(difference * difference))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,) and the covariance (d, d), with 1/(n - 1), of features (n, d), n >= 2."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must have shape (n, d) with n at least 2, got {features.shape}")
    return np.mean(features, axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def _root(covariance: np.ndarray) -> np.ndarray:
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T


class Features(Protocol):
    """A space of features: the name of its distance, and features (n, f) of uint8 images (n, h, w, c)."""

    name: str
    about: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of images."""
        ...


def frechet_score(run: Run, features: Features, reference: tuple[np.ndarray, np.ndarray]) -> float:
    """The Fréchet distance between images sampled from a run and the test images. Source: Table 1 of the paper.

    The latents are sampled from the normal fitted to the training latents, as many as there are test images.

    Args:
        run: a finished run.
        features: the space of features.
        reference: the `moments` of the features of the test images.
    """
    drawn = run.spectrum.sample(len(run.test), np.random.default_rng(run.settings.seed))
    images = np.rint(255 * np.clip(decode(run.model(), drawn), 0, 1)).astype(np.uint8)
    return frechet_distance(*moments(features(images)), *reference)


def features_for(dataset: Dataset, folder: Path) -> Features:
    """InceptionV3 if torch-fidelity has its weights; else a classifier, trained once and stored in folder."""
    weights = inception_weights()
    return Perceptron.of(dataset, folder) if weights is None else Inception(weights)


@dataclass(frozen=True, eq=False)
class Perceptron:
    """The last hidden layer of a scikit-learn perceptron that classifies the data.

    Attributes:
        weights: pairs of kernel and bias, of all layers.
        accuracy: the rate of right test labels.
    """

    weights: tuple[tuple[np.ndarray, np.ndarray], ...]
    accuracy: float
    name: str = "FCD"

    @property
    def about(self) -> str:
        """A description for reports."""
        return (
            f"FCD: the Fréchet distance in the {self.weights[-2][1].size} features of a perceptron trained here on the "
            f"same images (it gets {100 * self.accuracy:.1f} % of the test labels right). It is not FID and not "
            f"comparable with other scores"
        )

    @classmethod
    def of(cls, dataset: Dataset, folder: Path) -> Perceptron:
        """Read the classifier for the data from a folder, or train and store it.

        Raises:
            CheckpointError: it cannot be read or written.
            ValueError: the data has no labels.
        """
        path = folder / f"classifier-{dataset.name}-{fingerprint(dataset)[:12]}.safetensors"
        if not path.exists():
            _train(dataset, path)
        tensors, content = _FORMAT.read(path)
        pairs = ((tensors[f"kernel{i}"], tensors[f"bias{i}"]) for i in range(len(tensors) // 2))
        return cls(tuple(pairs), content["accuracy"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features (n, f) of uint8 images."""
        layers, (first_kernel, first_bias) = self.weights[1:-1], self.weights[0]
        chunks = []
        for start in range(0, len(images), _CHUNK):
            # In float64: in float32 features near 0 would depend on the size of a chunk.
            x = _pixels(images[start : start + _CHUNK]).astype(np.float64)
            x = np.maximum(x @ first_kernel + first_bias, 0)
            for kernel, bias in layers:
                x = np.maximum(x @ kernel + bias, 0)
            chunks.append(x)
        return np.concatenate(chunks)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _train(dataset: Dataset, path: Path) -> None:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    images, labels = dataset.train.images, dataset.train.labels
    if labels is None or dataset.test.labels is None:
        raise ValueError(f"dataset must have labels to train a classifier on, got {dataset.name} without")
    rows = min(len(images), _MOST_NUMBERS // images[0].size)
    network = MLPClassifier(_HIDDEN, max_iter=_EPOCHS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed on purpose
        network.fit(_pixels(images[:rows]), labels[:rows])
    answers = np.concatenate(
        [
            network.predict(_pixels(dataset.test.images[start : start + _CHUNK]))
            for start in range(0, len(dataset.test.images), _CHUNK)
        ]
    )
    pairs = enumerate(zip(network.coefs_, network.intercepts_, strict=True))
    tensors = {
        name: value for i, (kernel, bias) in pairs for name, value in ((f"kernel{i}", kernel), (f"bias{i}", bias))
    }
    _FORMAT.write(path, tensors, {"accuracy": float(np.mean(answers == dataset.test.labels))})


def inception_weights() -> Path | None:
    """The weights of InceptionV3 in the cache of torch-fidelity, if there are any; nothing is downloaded."""
    if importlib.util.find_spec("torch_fidelity") is None or importlib.util.find_spec("torch") is None:
        return None
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_WEIGHTS
    return path if path.exists() else None


class Inception:
    """The 2048 features of InceptionV3 by torch-fidelity, whose distance is FID.

    Args:
        weights: the file of its weights.
    """

    name = "FID"
    about = "FID: the Fréchet inception distance, in the features of torch-fidelity's InceptionV3"

    def __init__(self, weights: Path) -> None:
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )
        self._network = network.to(self._device)

    def __call__(self, images: np.ndarray, chunk: int = 50) -> np.ndarray:
        """The features (n, 2048) of uint8 images; a single channel becomes three."""
        import torch

        features = []
        for start in range(0, len(images), chunk):
            some = np.broadcast_to(images[start : start + chunk], (*images[start : start + chunk].shape[:3], 3))
            batch = torch.from_numpy(np.ascontiguousarray(some.transpose(0, 3, 1, 2))).to(self._device)
            features.append(self._network(batch)[0].cpu().numpy())
        return np.concatenate(features)
