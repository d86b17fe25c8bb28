"""Runs of several seeds in several frameworks, and whether frameworks differ by more than seeds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from _command import Claim, Screen, make_table

from eccentric_core import align, mean_angle, spectrum
from eccentric_models.evaluation import evaluate, neighbour_error
from eccentric_models.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from eccentric_models.data import Dataset
    from eccentric_models.settings import Settings

# The greatest relative difference of the trace from d. The paper: "approximately equal".
TRACE_BOUND = 0.1


@dataclass(frozen=True)
class Result:
    """One run: its figures on the test images, the spectrum of its training latents, and principal coordinates."""

    figures: dict[str, float]
    eigenvalues: np.ndarray
    train: np.ndarray
    test: np.ndarray


def train_all(
    settings: Settings, dataset: Dataset, frameworks: Sequence[str], seeds: Sequence[int], folder: Path, screen: Screen
) -> dict[tuple[str, int], Result]:
    """Train or continue one run for every framework and seed, and evaluate it."""
    results = {}
    for seed, framework in product(seeds, frameworks):
        of_run = dataclasses.replace(settings, framework=framework, seed=seed)
        model, _ = train(of_run, folder / f"{framework}-seed{seed}", resume=True, dataset=dataset)
        train_latents, test_latents = (model.encode(split.images) for split in (dataset.train, dataset.test))
        evaluation = evaluate(model, dataset.test, test_latents)
        fitted = spectrum(train_latents)
        figures = {
            "reconstruction": evaluation.reconstruction,
            "loss": evaluation.loss,
            "radius": evaluation.radius,
            "trace": fitted.trace,
            "eccentricity": fitted.eccentricity,
        }
        if (error := neighbour_error(dataset, train_latents, test_latents)) is not None:
            figures["neighbour_error"] = error
        coordinates = (fitted.transform(latents) for latents in (train_latents, test_latents))
        results[framework, seed] = Result(figures, fitted.eigenvalues, *coordinates)
        line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        screen.print(f"{framework}, seed {seed}: {line}", highlight=False, soft_wrap=True)
    return results


def agree(results: Mapping[tuple[str, int], Result], screen: Screen) -> tuple[dict[str, Any], list[Claim]]:
    """Print the figures of all runs; return them for JSON, and the claims."""
    frameworks = list(dict.fromkeys(framework for framework, _ in results))
    names = list(next(iter(results.values())).figures)
    headings = (name.replace("reconstruction", "error").replace("_", "\n") for name in names)
    table = make_table("3: runs of several seeds", ("framework", "seed", *headings))
    for (framework, seed), result in results.items():
        table.add_row(framework, str(seed), *(f"{value:.4f}" for value in result.figures.values()))
    screen.print(table)
    for (framework, seed), result in results.items():
        eigenvalues = " ".join(f"{value:.2f}" for value in result.eigenvalues)
        screen.print(f"{framework}, seed {seed}, eigenvalues: {eigenvalues}", highlight=False, soft_wrap=True)
    dim = next(iter(results.values())).eigenvalues.size
    worst = max(abs(result.figures["trace"] / dim - 1) for result in results.values())
    claims = [
        Claim(
            f"the trace is within {TRACE_BOUND:.0%} of d in every run", worst <= TRACE_BOUND, f"at most {worst:.1%} off"
        )
    ]
    for name in names:
        claims.append(_within_spread(name, _by_framework(results, lambda result, name=name: result.figures[name])))
    claims.append(_within_spread("eigenvalues", _by_framework(results, lambda result: result.eigenvalues)))
    angles, claim = _angles(results)
    screen.print(
        "aligned angle between runs (degrees): "
        + ", ".join(f"{kind} {np.mean(values):.1f} (of {len(values)})" for kind, values in angles.items() if values),
        highlight=False,
        soft_wrap=True,
    )
    report = [
        {"framework": framework, "seed": seed, **result.figures, "eigenvalues": result.eigenvalues.tolist()}
        for (framework, seed), result in results.items()
    ]
    return {"frameworks": frameworks, "results": report, "angles": angles}, [*claims, claim]


def _by_framework(
    results: Mapping[tuple[str, int], Result], figure: Callable[[Result], Any]
) -> dict[str, list[np.ndarray]]:
    values: dict[str, list[np.ndarray]] = {}
    for (framework, _), result in results.items():
        values.setdefault(framework, []).append(np.atleast_1d(figure(result)))
    return values


def _within_spread(name: str, values: Mapping[str, list[np.ndarray]]) -> Claim:
    """That means of two frameworks differ by no more than two seeds of one framework."""
    between = _largest_distance(np.mean(of_one, axis=0) for of_one in values.values())
    within = max(_largest_distance(of_one) for of_one in values.values())
    text = f"{name}: frameworks differ by no more than seeds"
    return Claim(text, bool(between <= within), f"{between:.2g} between frameworks, {within:.2g} between seeds")


def _largest_distance(points: Iterable[np.ndarray]) -> float:
    return max(float(np.max(np.abs(a - b))) for a, b in combinations(points, 2))


def _angles(results: Mapping[tuple[str, int], Result]) -> tuple[dict[str, list[float]], Claim]:
    """Mean angles between the test latents of two runs, aligned on the training latents."""
    kinds: dict[str, list[float]] = {"one framework": [], "two frameworks": [], "two frameworks, same seed": []}
    for ((framework, seed), a), ((other, other_seed), b) in combinations(results.items(), 2):
        kind = "one framework" if framework == other else "two frameworks"
        kind += ", same seed" if seed == other_seed else ""
        kinds[kind].append(mean_angle(a.test, align(a.train, b.train).apply(b.test)))
    of_one, of_two = kinds["one framework"], kinds["two frameworks"]
    distance, spread = abs(np.mean(of_one) - np.mean(of_two)), max(of_one) - min(of_one)
    text = "aligned angle: runs of two frameworks are as far apart as runs of one"
    return kinds, Claim(text, bool(distance <= spread), f"{distance:.2g} apart, {spread:.2g} between pairs of one")
