"""The same weights and batches in several frameworks: the differences of latents and weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eccentric_models.architecture import NETWORKS, initial_weights
from eccentric_models.data import load
from eccentric_models.frameworks import Adam, State, create
from eccentric_models.objectives import Objective

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DIM = 8
_BATCH = 50
_SEED = 20220701


@dataclass(frozen=True)
class Case:
    """One network to compare, and the number of training steps."""

    network: str
    objective: str
    dtype: str
    steps: int = 1
    width: float = 1.0

    def __str__(self) -> str:
        return f"{self.network} x {self.width:g}, {self.objective}, {self.dtype}"

    @property
    def bound(self) -> float:
        """The bound of the difference of latents under the same weights."""
        return {"float32": 1e-5, "float64": 1e-12}[self.dtype]


# The bound for weights and latents after training in float64. In float32 trajectories diverge after some steps.
TRAINED_BOUND = 1e-9

# The whole network for MNIST, a narrow one for CelebA; every objective.
CASES = (
    Case("mnist", "eccentric", "float32"),
    Case("celeba", "eccentric", "float32", width=1 / 16),
    Case("mnist", "eccentric", "float64", steps=50),
    Case("celeba", "eccentric", "float64", steps=50, width=1 / 16),
    *(Case("mnist", objective, "float64", steps=50, width=1 / 4) for objective in ("wae", "vae", "none")),
)


class Course(NamedTuple):
    """The results of one framework: latents (n, d) in evaluation mode, at the first step, after training; weights."""

    evaluation: np.ndarray
    training: np.ndarray
    trained: np.ndarray
    weights: dict[str, np.ndarray]


class Difference(NamedTuple):
    """The differences between two courses: of latents relative to the largest coordinate, of weights absolute."""

    case: Case
    pair: tuple[str, str]
    evaluation: float
    training: float
    trained: float
    weights: float

    @property
    def holds(self) -> bool:
        """Whether every difference is within its bound; NaN fails."""
        same = all(value <= self.case.bound for value in (self.evaluation, self.training))
        trained = all(value <= TRAINED_BOUND for value in (self.trained, self.weights))
        return same and (trained or self.case.dtype == "float32")


def compare(cases: Sequence[Case], frameworks: Sequence[str]) -> Iterator[Difference]:
    """The differences of every case and every pair of frameworks."""
    for case in cases:
        courses = {framework: follow(case, framework) for framework in frameworks}
        for pair in combinations(frameworks, 2):
            a, b = (courses[framework] for framework in pair)
            latents = (_relative(getattr(a, name), getattr(b, name)) for name in ("evaluation", "training", "trained"))
            weights = max(float(np.max(np.abs(a.weights[name] - b.weights[name]))) for name in a.weights)
            yield Difference(case, pair, *latents, weights)


def follow(case: Case, framework: str) -> Course:
    """Train a network on the digits in one framework; all random numbers are drawn here."""
    images = load("digits").train.images
    if case.network == "celeba":  # 28 x 28 to 64 x 64
        images = np.pad(images.repeat(2, axis=1).repeat(2, axis=2), ((0, 0), (4, 4), (4, 4), (0, 0)))
    objective = Objective(case.objective)
    architecture = NETWORKS[case.network](1, _DIM, _DIM * objective.codes_per_dim, case.width)
    rng = np.random.default_rng(_SEED)
    weights = {name: value.astype(case.dtype) for name, value in initial_weights(architecture, rng).items()}
    model = create(
        framework, architecture, objective, Adam(), state=State.start(weights), dtype=case.dtype, device="auto"
    )
    shown = images[: 2 * _BATCH]
    evaluation = model.encode(shown)
    batches, results = model.batches(images), []
    for _ in range(case.steps):
        rows = rng.permutation(len(images))[:_BATCH]
        results.append(model.step(batches(rows), model.noise(rng, _BATCH)))
    first: Any = model.fetch(results[:1])
    return Course(evaluation, first.latents[0], model.encode(shown), model.state.weights)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a)))
