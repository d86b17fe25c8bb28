"""Stored runs: each is identified by its configuration, trained once, and read from then on.

    root/mnist-eccentric-d8-0123456789ab/checkpoint.safetensors, metrics.jsonl, latents.safetensors

A run is finished when its latents are stored. An interrupted run continues from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from eccentric_core import spectrum
from eccentric_models.checkpoint import Checkpoint, versions
from eccentric_models.data import DataError, load
from eccentric_models.frameworks import FrameworkError
from eccentric_models.log import FILE, last_record
from eccentric_models.safetensors_files import CheckpointError, Format
from eccentric_models.settings import RunError, Settings
from eccentric_models.training import CHECKPOINT, restore, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from eccentric_core import LatentSpectrum
    from eccentric_models.data import Dataset
    from eccentric_models.frameworks import Autoencoder

LATENTS = "latents.safetensors"

_FORMAT = Format(
    "eccentric-latents 1",
    "file of latents",
    remedy="remove it, and it is computed again from the checkpoint beside it",
    missing="the run is not finished",
)

# These settings change where a run is computed, not its identity.
_PLACES = ("folder", "device")

# Errors of one run; the others continue.
_EXPECTED = (RunError, CheckpointError, DataError, FrameworkError, OSError, MemoryError, ValueError)

# The packages that joblib's backends need.
_PACKAGES = {"dask": "distributed", "ray": "ray"}

_DAY = 24 * 3600.0

_COMPARED = 1000


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        settings: its configuration.
        folder: its folder.
        train, test: latent vectors (n, d) of both sides of the data, from the trained encoder.
        versions: of the packages that trained it.
    """

    settings: Settings
    folder: Path
    train: np.ndarray
    test: np.ndarray
    versions: dict[str, str]

    @cached_property
    def spectrum(self) -> LatentSpectrum:
        """The spectrum of the training latents: the deep principal components."""
        return spectrum(self.train.astype(np.float64))

    @cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Principal coordinates of the training and of the test latents."""
        return self.spectrum.transform(self.train), self.spectrum.transform(self.test)

    @property
    def training_trace(self) -> float:
        """The trace of the latents in the last steps of training, where normalisation uses the moments of the batch.

        Raises:
            CheckpointError: the log of the run cannot be read.
        """
        try:
            return last_record(self.folder)["trace"]
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise CheckpointError(
                f"{self.folder / FILE} is missing or damaged ({error}); train the run again"
            ) from error

    def model(self) -> Autoencoder:
        """The trained autoencoder."""
        return restore(Checkpoint.read(self.folder / CHECKPOINT), device=self.settings.device)


@dataclass(frozen=True)
class Runs:
    """The runs in a folder, by their configuration.

    Args:
        root: the folder.
    """

    root: Path

    def folder(self, settings: Settings) -> Path:
        """The folder of a run; every setting counts, except the folder of the data and the device."""
        digest = hashlib.sha256(json.dumps(_identity(settings), sort_keys=True).encode()).hexdigest()
        return self.root / f"{settings.data}-{settings.objective}-d{settings.dim}-{digest[:12]}"

    def missing(self, wanted: Iterable[Settings]) -> list[Settings]:
        """The runs that are not finished, each once."""
        folders = {self.folder(settings): settings for settings in wanted}
        return [settings for folder, settings in folders.items() if not (folder / LATENTS).exists()]

    def complete(self, wanted: Iterable[Settings]) -> None:
        """Train the missing runs, in the processes of joblib's current backend (`joblib.parallel_config`).

        Raises:
            RunError: some runs failed; the others are finished and stored.
        """
        missing = self.missing(wanted)
        tasks = ((settings, self.folder(settings)) for settings in missing)
        weights = [1 + one.epochs * one.width * self.dataset(one).train.images.size for one in missing]
        failures = [error for error in in_parallel(_finish, tasks, "training", weights) if error]
        if failures:
            raise RunError(
                f"{len(failures)} of {len(missing)} runs could not be finished, the others are kept: {failures[0]}"
            )

    def dataset(self, settings: Settings) -> Dataset:
        """The data of a run, loaded once.

        Raises:
            DataError: see `eccentric_models.data.load`.
        """
        return _dataset(settings.data, settings.folder)

    def open(self, settings: Settings) -> Run:
        """A finished run.

        Raises:
            CheckpointError: it is missing, damaged, or of another version.
            RunError: it is of another configuration or of other data.
        """
        folder = self.folder(settings)
        tensors, content = _FORMAT.read(folder / LATENTS)
        wanted, found = _identity(settings), content["settings"]
        if names := [name for name, value in wanted.items() if found.get(name) != value]:
            raise RunError(f"{folder} is of another run, with another {', '.join(names)}; remove it to train this one")
        if content["data"] != fingerprint(self.dataset(settings)):
            raise RunError(
                f"{folder} is of other images or labels than those of {settings.data} now; give the data that it was "
                f"trained on, or another folder of runs"
            )
        return Run(settings, folder, tensors["train"], tensors["test"], content["versions"])


def in_parallel(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], title: str, weights: Sequence[float]
) -> list[Any]:
    """The results of a function for every task, in order, by joblib's current backend; a terminal gets a progress bar.

    Args:
        function: called with the items of a task; other processes must be able to import it.
        tasks: tuples of arguments, as many as there are weights.
        title: the label of the bar.
        weights: the expected times of the tasks, in any unit.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    results: list[Any] = [None] * len(weights)
    # Ray's backend cannot return results as they are computed: there the bar jumps at the end.
    as_they_come = get_active_backend()[0].supports_return_generator
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
        speed_estimate_period=_DAY,  # runs may take hours; the default would forget the last one
    )
    with progress:
        bar = progress.add_task(f"{title}: 0 of {len(weights)}", total=sum(weights))
        calls = (delayed(_numbered)(function, i, task) for i, task in enumerate(tasks))
        done = Parallel(return_as="generator_unordered" if as_they_come else "list")(calls)
        for count, (i, result) in enumerate(done, 1):
            results[i] = result
            progress.update(bar, advance=weights[i], description=f"{title}: {count} of {len(weights)}")
    return results


@contextmanager
def backend(name: str, jobs: int, address: str | None = None) -> Iterator[None]:
    """Run parallel tasks in a number of processes of one of joblib's backends.

    Args:
        name: loky (this machine), dask or ray.
        jobs: the number of processes; -1 for one per core.
        address: of a cluster of dask or ray; None starts one on this machine.

    Raises:
        RunError: the packages of the backend are not installed.
    """
    from joblib import cpu_count, parallel_config

    if jobs == 0 or jobs < -1:
        raise ValueError(f"jobs must be 1 or more, or -1 for all cores, got {jobs}")
    if address is not None and name == "loky":
        raise ValueError("address is of a cluster; give the backend dask or ray, too")
    jobs = cpu_count() if jobs == -1 and address is None else jobs
    with ExitStack() as stack:
        try:
            if name == "dask":
                from distributed import Client

                local = {"n_workers": jobs, "threads_per_worker": 1}
                stack.enter_context(Client(address) if address else Client(**local))
            elif name == "ray":
                import ray
                from ray.util.joblib import register_ray

                register_ray()
                stack.enter_context(ray.init(address=address) if address else ray.init(num_cpus=jobs))
        except ImportError as error:
            raise RunError(f"backend {name} needs a package ({error}); install {_PACKAGES[name]}") from error
        stack.enter_context(parallel_config(backend=name, n_jobs=jobs))
        yield


def fingerprint(dataset: Dataset) -> str:
    """A digest of a data set: of its sizes, its labels, and a thousand images of each split."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(repr(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images[:: -(-len(split.images) // _COMPARED)]).data)
        if split.labels is not None:
            digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def _numbered(function: Callable[..., Any], i: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return i, function(*task)


def _finish(settings: Settings, folder: Path) -> str | None:
    """Train a run to its end and write its latents; return the error, if any."""
    try:
        dataset = _dataset(settings.data, settings.folder)
        model, _ = train(settings, folder, resume=True, dataset=dataset)
        latents = {"train": model.encode(dataset.train.images), "test": model.encode(dataset.test.images)}
        content = {
            "settings": settings.as_dict(),
            "data": fingerprint(dataset),
            "versions": versions(settings.framework),
        }
        _FORMAT.write(folder / LATENTS, latents, content)
    except _EXPECTED as error:
        return f"{error} (in {folder})" if str(folder) not in str(error) else str(error)
    return None


@lru_cache(maxsize=2)
def _dataset(name: str, folder: Path | None) -> Dataset:
    return load(name, folder)


def _identity(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in settings.as_dict().items() if name not in _PLACES}
