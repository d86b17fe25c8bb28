"""Times of a training step of the MNIST network in one framework; as a script, `_models.py FRAMEWORK TURNS`, as JSON.

The eccentric term, value and gradient of a batch, is timed by itself in turns with the step, so that the caches are in
the state that they have within a step. The difference of steps with and without it would be lost in their variation.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from _contenders import CONTESTS

from eccentric_models.architecture import initial_weights, mnist
from eccentric_models.data import load
from eccentric_models.frameworks import Adam, State, create
from eccentric_models.objectives import Objective

BATCH, DIM = 100, 8
_WARM_UP = 5


def measure(framework: str, turns: int) -> dict[str, list[float]]:
    """Seconds of each step, and of the term alone."""
    images = load("digits").train.images
    rng = np.random.default_rng(0)
    architecture = mnist(1, DIM, DIM)
    weights = {name: value.astype("float32") for name, value in initial_weights(architecture, rng).items()}
    model = create(framework, architecture, Objective(), Adam(), state=State.start(weights), device="auto")
    batches = model.batches(images)
    latents = rng.standard_normal((BATCH, DIM)).astype("float32")
    term = CONTESTS[framework].prepare(latents)["ours_graph" if framework == "tensorflow" else "ours"]
    contenders = {
        "step": lambda: model.fetch([model.step(batches(rng.permutation(len(images))[:BATCH]), None)]),
        "term": term,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(_WARM_UP + turns):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if turn >= _WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians, and the share of the term in a step."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "share": medians["term"] / medians["step"]}


if __name__ == "__main__":
    framework, turns = sys.argv[1:]
    print(json.dumps(measure(framework, int(turns))))
