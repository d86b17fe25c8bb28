"""Training runs of the classifier of `classifier.py`: their identity, and the files of their results.

root/fashion-mnist-classifier-0123456789ab.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eccentric_core.energies.projections import rule_of
from eccentric_models.checkpoint import versions
from eccentric_models.data import DataError
from eccentric_models.files import replacing
from eccentric_models.frameworks import Device, FrameworkError
from eccentric_models.runs import Runs, fingerprint, in_parallel
from eccentric_models.settings import Data, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from eccentric_models.data import Dataset

_FORMAT = "eccentric-classifier 1"

# These settings change where a run is computed, not its identity.
_PLACES = ("folder", "device")

# Errors of one run; the others continue.
_EXPECTED = (RunError, DataError, FrameworkError, OSError, MemoryError, ValueError)


@dataclass(frozen=True)
class Arm:
    """The penalty that is added to the loss.

    Args:
        energy: the energy of the neurons of every layer.
        half_space, projection, weight: as in `eccentric_torch.HypersphericalRegularizer`.
    """

    energy: Literal["none", "hyperspherical", "eccentric"] = "hyperspherical"
    half_space: bool = True
    projection: str | None = None
    weight: float = 1.0


# The others are compared with the first. The weight of the last was chosen in a pilot: see docs/experiments.md.
ARMS = {
    "none": Arm("none"),
    "MHE": Arm(half_space=False),
    "half-space MHE": Arm(),
    "CoMHE, random": Arm(projection="random"),
    "CoMHE, angle-preserving": Arm(projection="angle-preserving"),
    "CoMHE, adversarial": Arm(projection="adversarial"),
    "CoMHE, group": Arm(projection="group"),
    "eccentric loss": Arm("eccentric", weight=0.1),
}


@dataclass(frozen=True)
class Training:
    """A training run.

    Args:
        data, folder: as in `eccentric_models.data.load`.
        images: the number of training images, chosen by the seed.
        epochs, batch_size: the number of passes over them, and of images in a batch.
        learning_rate, momentum, weight_decay: of stochastic gradient descent. The rate falls to 0 along a cosine.
        arm: the penalty.
        seed: of the choice of images, the initial weights and the order of images, which are the same for every arm.
        device: the device that trains.
    """

    data: Data
    folder: Path | None = None
    images: int = 3000
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    arm: Arm = ARMS["none"]
    seed: int = 0
    device: Device = "auto"


@dataclass(frozen=True)
class Outcome:
    """The result of a training run.

    Attributes:
        test_error, training_error: rates from 0 to 1, at the end.
        layers: neurons and inputs of a neuron of every hidden layer.
        energies: hyperspherical energies of these layers before training and after every epoch.
        seconds: of every epoch.
        versions: of the packages that trained it.
    """

    test_error: float
    training_error: float
    layers: list[list[int]]
    energies: list[list[float]]
    seconds: list[float]
    versions: dict[str, str]

    @property
    def course(self) -> np.ndarray:
        """The energy averaged over layers, before training and after every epoch."""
        return np.mean(self.energies, axis=1)


@dataclass(frozen=True)
class Trainings:
    """All training runs of the classifier on the same data in a folder.

    Args:
        root: the folder.
        dataset: the data.
    """

    root: Path
    dataset: Dataset

    @cached_property
    def data(self) -> str:
        """The fingerprint of the data."""
        return fingerprint(self.dataset)

    def file(self, training: Training) -> Path:
        """The file of the result of a run."""
        digest = hashlib.sha256(json.dumps(_identity(training, self.data), sort_keys=True).encode()).hexdigest()
        return self.root / f"{training.data}-classifier-{digest[:12]}.json"

    def complete(self, wanted: Sequence[Training]) -> None:
        """Train what is missing, in the processes of joblib's current backend.

        Raises:
            RunError: some runs failed; the others are finished and stored.
        """
        missing = [(one, self.data, file) for one in wanted if not (file := self.file(one)).exists()]
        found = in_parallel(_finish, missing, "training", [one.epochs for one, *_ in missing])
        if failures := [error for error in found if error]:
            raise RunError(
                f"{len(failures)} of {len(missing)} runs could not be finished, the others are kept: {failures[0]}"
            )

    def open(self, training: Training) -> Outcome:
        """The result of a finished run.

        Raises:
            RunError: its file is missing, damaged, or of another run.
        """
        path = self.file(training)
        try:
            content = json.loads(path.read_bytes())
            if content["identity"] != _identity(training, self.data):
                raise ValueError("it is of another run")
            return Outcome(**content["outcome"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{path} is not the result of a training run that it should be ({error}); remove it, and the run is "
                f"trained again"
            ) from error


def _finish(training: Training, data: str, path: Path) -> str | None:
    """Train a run and write its result; return the error, if any."""
    from reproduction.classifier import train

    try:
        dataset = Runs(path.parent).dataset(training)  # once in every process
        outcome = train(training, dataset) | {"versions": versions("torch")}
        content = {"identity": _identity(training, data), "outcome": outcome}
        with replacing(path) as file:
            file.write(json.dumps(content, indent=1).encode())
    except _EXPECTED as error:
        return f"{error} (for {path})"
    return None


def _identity(training: Training, data: str) -> dict[str, Any]:
    values = {name: value for name, value in dataclasses.asdict(training).items() if name not in _PLACES}
    # The constants behind a name may change in a later version.
    values["arm"]["projection"] = repr(rule_of(training.arm.projection))
    return {"format": _FORMAT, "fingerprint": data} | values
