"""Times of a training step of the MNIST network in one framework; as a script, `_models.py FRAMEWORK PAIRS`, as JSON.

Steps with the eccentric term and steps without take turns, each on a model of its own, so that their difference is what
the term costs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

from eccentric_models.architecture import initial_weights, mnist
from eccentric_models.data import load
from eccentric_models.frameworks import Adam, State, create
from eccentric_models.objectives import Objective

BATCH, DIM = 100, 8
_WARM_UP = 5


def measure(framework: str, pairs: int) -> dict[str, list[float]]:
    """Seconds of each step, with the term and without."""
    images = load("digits").train.images
    architecture = mnist(1, DIM, DIM)
    rng = np.random.default_rng(0)
    weights = {name: value.astype("float32") for name, value in initial_weights(architecture, rng).items()}
    models = {
        kind: create(framework, architecture, Objective(kind), Adam(), state=State.start(weights), device="auto")
        for kind in ("eccentric", "none")
    }
    batches = {kind: model.batches(images) for kind, model in models.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    for turn in range(_WARM_UP + pairs):
        rows = rng.permutation(len(images))[:BATCH]
        for kind in models if turn % 2 else reversed(models):
            start = time.perf_counter()
            models[kind].fetch([models[kind].step(batches[kind](rows), None)])
            if turn >= _WARM_UP:
                seconds[kind].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians: of a step with the term, and of what it adds to the step without that was its neighbour."""
    added = [with_term - without for with_term, without in zip(seconds["eccentric"], seconds["none"], strict=True)]
    step = statistics.median(seconds["eccentric"])
    return {"step": step, "term": statistics.median(added), "share": statistics.median(added) / step}


if __name__ == "__main__":
    framework, pairs = sys.argv[1:]
    print(json.dumps(measure(framework, int(pairs))))
