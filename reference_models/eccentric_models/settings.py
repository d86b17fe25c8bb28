"""The settings of a training run: the options of the command line, and metadata of a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from eccentric_models.architecture import NETWORKS, Architecture
from eccentric_models.frameworks import Adam, Device, Dtype, Framework
from eccentric_models.objectives import Kind, Objective

Data = Literal["digits", "mnist", "fashion-mnist", "olivetti", "celeba"]

# A run may be resumed with other values of these: they change the result by rounding only, or the length of the run.
_FREE = ("framework", "device", "folder", "epochs")


class RunError(Exception):
    """A run cannot be started, resumed or finished; the message is one line."""


@dataclass(frozen=True)
class Settings:
    """A training run: the data, the network, the objective and the optimiser, by default those of the paper."""

    framework: Framework = "torch"
    """the framework that trains"""
    data: Data = "digits"
    """digits are bundled with scikit-learn; the others are downloaded, or read from --folder"""
    folder: Path | None = None
    """the folder of the data"""
    network: Literal["auto", "mnist", "celeba"] = "auto"
    """auto chooses the network for the size of the images"""
    width: float = 1.0
    """multiplies the number of channels of every layer"""
    dim: int = 8
    """d, the dimension of the latent space"""
    objective: Kind = "eccentric"
    """the penalty on the latent space"""
    lam: float = 1e-3
    """lambda, the weight of the penalty"""
    mu: float = 1.0
    """mu of the eccentric loss"""
    scale: Literal["paper", "exact"] | float = "paper"
    """the scale of the eccentric loss, or M itself"""
    epochs: int = 50
    """passes over the training images; an incomplete last batch is skipped"""
    batch_size: int = 100
    """images in a batch"""
    learning_rate: float = 1e-4
    """learning rate of Adam"""
    weight_decay: float = 1e-6
    """weight decay of Adam: an L2 term in the gradient"""
    seed: int = 0
    """seed of the initial weights, the order of the images and all noise; the same in every framework"""
    dtype: Dtype = "float32"
    """dtype of weights and latents"""
    device: Device = "auto"
    """auto chooses a GPU if there is one"""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            choices = get_args(kind)
            value = getattr(self, name)
            if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        for name, least in (("dim", 2), ("epochs", 0), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")
        for name, positive in (("width", True), ("learning_rate", True), ("weight_decay", False)):
            value = getattr(self, name)
            if not 0 <= value < float("inf") or (positive and value == 0):
                raise ValueError(
                    f"{name} must be a finite number {'above 0' if positive else 'from 0 up'}, got {value!r}"
                )
        _ = self.penalty  # checks its arguments

    @property
    def penalty(self) -> Objective:
        """The objective."""
        return Objective(self.objective, self.lam, self.mu, self.scale)

    @property
    def adam(self) -> Adam:
        """The optimiser."""
        return Adam(self.learning_rate, self.weight_decay)

    def architecture(self, image_shape: tuple[int, ...]) -> Architecture:
        """The network for images of that shape.

        Raises:
            RunError: there is none, or the requested network is for another size.
        """
        names = NETWORKS if self.network == "auto" else (self.network,)
        for name in names:
            built = NETWORKS[name](image_shape[-1], self.dim, self.dim * self.penalty.codes_per_dim, self.width)
            if built.image_shape == tuple(image_shape):
                return built
        raise RunError(
            f"network {self.network} is not for images of {image_shape}; mnist takes 28 x 28, celeba 64 x 64"
        )

    def as_dict(self) -> dict[str, Any]:
        """The settings for JSON."""
        values = dataclasses.asdict(self)
        return values | {"folder": None if self.folder is None else str(self.folder)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `as_dict`."""
        return cls(**values | {"folder": None if values["folder"] is None else Path(values["folder"])})

    def differences(self, other: Settings) -> list[str]:
        """The names of the settings in which two runs differ, apart from those that may change on resuming."""
        pairs = (
            (field.name, getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        )
        return [name for name, mine, theirs in pairs if mine != theirs and name not in _FREE]
