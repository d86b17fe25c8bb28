"""The experiments that are figures, and section 3.3."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from _agreement import TRACE_BOUND
from _command import Claim
from _figures import figure1, figure2
from _settle import minimise
from radius_table import CLAIMS, FIRST, LAST, MuGrid, judge, worst_errors

from eccentric_core import align, loss_floor, sphere_loss
from eccentric_models.components import combined_images, paired_images
from reproduction.drawing import combinations, correlations, pairs, scatter, spectra
from reproduction.paper import FIGURE5_RANGE, MINIMUM_PER_DIM
from reproduction.presets import describe
from reproduction.sections import Section, Table, falls, mean_and_spread

if TYPE_CHECKING:
    from reproduction.lab import Lab

# The greatest standard deviation between seeds of an eigenvalue, about 1 on average. The paper: "almost exactly".
SEED_BOUND = 0.1

_PAIR_DEVIATIONS, _CORNER_DEVIATIONS = 2.0, 1.0
_MOST_COMPONENTS = 10


def radius_error(_: Lab) -> Section:
    errors = worst_errors(list(range(FIRST, LAST + 1)), MuGrid(), "paper")
    figure = figure1({dim: error for dim, (error, _) in errors.items()}, "paper", CLAIMS)
    section = Section("Figure 1: radius of the stationary sphere", [
        """The greatest difference between ρ and √d over μ from 1 to 2d + 1 in steps of 0.01, for every d from 2 to
        300. `tools/radius_table.py` has the table.""",
    ])  # fmt: skip
    section.pictures["figure1"] = figure, "Greatest percentage difference between ρ and √d, over d"
    section.trends = judge(errors, "paper")
    return section


def force(_: Lab) -> Section:
    section = Section("Figure 2: repulsive force", ["It rises up to a distance of √M and falls beyond."])
    section.pictures["figure2"] = figure2(), "Repulsive force between two items over their distance, d = 64"
    return section


def minimum(lab: Lab) -> Section:
    """Section 3.3: the loss that descent reaches from a normal sample."""
    rows, above, off = [], [], []
    for dim in lab.preset.minima[0]:
        for count in lab.preset.minima[1]:
            _, loss = minimise(np.random.default_rng(0).standard_normal((count, dim)), 1.0, "paper")
            floor, limit = float(loss_floor(dim, batch_size=count)), float(sphere_loss(dim))
            above.append((loss - floor) / abs(floor))
            if count == max(lab.preset.minima[1]):
                off.append(abs(loss / (MINIMUM_PER_DIM * dim) - 1))
            figures = (loss, floor, limit, MINIMUM_PER_DIM * dim)
            rows.append((str(dim), str(count), *(f"{value:.4f}" for value in figures), f"{loss / dim:.4f}"))
    headings = ("d", "n", "reached", "floor of n", "infinite batch", "paper: −0.386 d", "reached / d")
    section = Section("Section 3.3: the least loss", [
        """The loss (μ = 1, the paper's M) that L-BFGS reaches from n normal vectors in d dimensions, beside the proved
        floor of a batch of n, the loss on the sphere (an infinite batch), and the paper's approximation. The loss
        leaves out the pairs of an item with itself, so that of a batch can be below that of the infinite one.""",
    ])  # fmt: skip
    section.tables = [Table(headings, rows)]
    section.trends = [
        Claim("no batch goes below its floor", min(above) >= -1e-10, f"at least {min(above):.1e} above, relatively"),
        Claim("descent reaches the floor within 1 %", max(above) <= 0.01, f"at most {100 * max(above):.2f} % above"),
        Claim(
            f"the least loss is about −0.386 d (within 5 %, n = {max(lab.preset.minima[1])})",
            max(off) <= 0.05,
            f"from {100 * min(off):.1f} % to {100 * max(off):.1f} % off",
        ),
    ]
    return section


def plane(lab: Lab) -> Section:
    """Figure 3."""
    runs = {key: lab.open(settings) for key, settings in lab.preset.plane().items()}
    any_run = next(iter(runs.values()))
    classes = lab.dataset(any_run.settings).test.labels
    radii = {key: np.linalg.norm(run.test.astype(np.float64), axis=1) for key, run in runs.items()}
    spread = {key: float(np.std(values) / np.mean(values)) for key, values in radii.items()}
    rows = [
        (f"{lam:g}", f"{mu:g}", f"{np.mean(radii[lam, mu]):.3f}", f"{100 * spread[lam, mu]:.0f} %",
         f"{run.spectrum.trace:.3f}", f"{run.spectrum.eccentricity:.3f}")
        for (lam, mu), run in runs.items()
    ]  # fmt: skip
    section = Section("Figure 3: two latent dimensions", [describe(lab.preset.plane().values())])
    section.tables = [Table(("λ", "μ", "mean radius (√d = 1.414)", "spread of radii", "trace", "eccentricity"), rows)]
    section.pictures["figure3"] = (
        scatter({key: run.coordinates[1] for key, run in runs.items()}, classes),
        "Test items in the principal axes of the training latents, coloured by class; the circle has radius √2",
    )
    # The paper claims this for the last step alone.
    least = sorted({lam for lam, _ in runs})[:2]
    to_the_right = {key: run.spectrum.eccentricity for key, run in runs.items() if key[0] in least}
    section.trends = [
        falls("the larger λ, the closer to a circle: the spread of radii falls as λ grows", _by_mu(spread), "λ"),
        falls("eccentricity grows as λ falls from the middle to the right column", _by_mu(to_the_right), "λ"),
    ]
    return section


def eigenvalues(lab: Lab) -> Section:
    """Figure 5."""
    runs = {key: lab.open_all(seeds) for key, seeds in lab.preset.by_mu().items()}
    curves = {key: np.array([run.spectrum.eigenvalues for run in seeds]) for key, seeds in runs.items()}
    dim = next(iter(curves.values())).shape[1]
    eccentricity = {key: float(np.mean([run.spectrum.eccentricity for run in seeds])) for key, seeds in runs.items()}
    spread = {key: np.std(values, axis=0, ddof=1) for key, values in curves.items()}
    traces = [run.spectrum.trace for seeds in runs.values() for run in seeds]
    least, greatest = (f(float(f(values.mean(axis=0))) for values in curves.values()) for f in (min, max))
    worst = max(float(np.max(values)) for values in spread.values())
    off = [abs(trace / dim - 1) for trace in traces]
    training = {key: [run.training_trace for run in seeds] for key, seeds in runs.items()}
    training_off = max(abs(trace / dim - 1) for values in training.values() for trace in values)
    rows = [
        (f"{lam:g}", f"{mu:g}", mean_and_spread(np.sum(values, axis=1), 2), mean_and_spread(training[lam, mu], 2),
         f"{eccentricity[lam, mu]:.3f}",
         f"{np.mean(values[:, 0]):.2f}", f"{np.mean(values[:, -1]):.2f}", f"{np.mean(spread[lam, mu]):.3f}",
         f"{np.max(spread[lam, mu]):.3f}")
        for (lam, mu), values in curves.items()
    ]  # fmt: skip
    section = Section("Figure 5: spectra", [
        describe(chain.from_iterable(lab.preset.by_mu().values())),
        f"""Eigenvalues go from {least:.2f} to {greatest:.2f} here; in the paper (CelebA, d = 64) from
        {FIGURE5_RANGE[0]} to {FIGURE5_RANGE[1]}.""",
    ])  # fmt: skip
    of_runs = ("λ", "μ", "trace", "trace in training", "eccentricity")
    headings = (*of_runs, "largest", "least", "spread between seeds, mean", "at most")
    section.tables = [Table(headings, rows)]
    seeds = len(lab.preset.seeds)
    section.pictures["figure5"] = (
        spectra(curves),
        f"Eigenvalues of the covariance of the training latents, {seeds} seeds superimposed",
    )
    section.trends = [
        Claim(
            f"the trace is within {TRACE_BOUND:.0%} of d",
            max(off) <= TRACE_BOUND,
            f"at most {100 * max(off):.1f} % off, more than the bound in {sum(one > TRACE_BOUND for one in off)} of "
            f"{len(off)} runs; at most {100 * training_off:.1f} % in the last steps of training",
        ),
        falls("eccentricity falls as λ grows", _by_mu(eccentricity), "λ"),
        falls("and, to a lesser extent, as μ grows", _by_lam(eccentricity), "μ"),
        Claim(
            f"spectra of different seeds coincide (standard deviation at most {SEED_BOUND})",
            worst <= SEED_BOUND,
            f"at most {worst:.3f}, of eigenvalues around 1",
        ),
    ]
    return section


def eigen_digits(lab: Lab) -> Section:
    """Figure 6."""
    needed = lab.preset.first_by_dim()
    strips = []
    for run in lab.open_all(needed):
        images = paired_images(run.model(), run.spectrum, _PAIR_DEVIATIONS)
        strips.append((f"d = {run.settings.dim}", _names("p", run.settings.dim), images))
    section = Section("Figure 6: paired eigen-digits", [describe(needed)])
    section.pictures["figure6"] = (
        pairs(strips),
        f"Decoded images at the mean plus and minus {_PAIR_DEVIATIONS:g} standard deviations along each component",
    )
    return section


def eigen_faces(lab: Lab) -> Section:
    """Figure 7."""
    needed = lab.preset.face_pairs()[1e-4]
    first, second = lab.open_all(needed)
    matched = align(first.coordinates[0], second.coordinates[0])
    a, b = first.coordinates[1], second.coordinates[1]
    diagonal = np.diag(_correlation(a, matched.apply(b)))
    count = min(_MOST_COMPONENTS, needed[0].dim)
    images = [paired_images(run.model(), run.spectrum, _PAIR_DEVIATIONS)[:count] for run in (first, second)]
    names = _names("p", count)
    strips = [("first run", names, images[0]), ("second run", _names("q", count), images[1])]
    partners = [
        f"{name} with {'−' if sign < 0 else ''}q{k + 1} ({value:.2f})"
        for name, k, sign, value in zip(names, matched.permutation, matched.signs, diagonal, strict=False)
    ]
    listed = ", ".join(partners)
    section = Section("Figure 7: paired eigen-faces of two runs", [
        describe(needed),
        f"""Aligned on the training images, component by component, with the correlation on the test images:
        {listed}.""",
    ])  # fmt: skip
    section.pictures["figure7"] = (
        pairs(strips),
        f"The first {count} components of two runs from different initial weights, at the mean plus and minus "
        f"{_PAIR_DEVIATIONS:g} standard deviations",
    )
    mean = float(np.mean(diagonal[:count]))
    section.trends = [
        Claim(
            "the components of two runs are very similar (mean correlation of partners at least 0.5)",
            mean >= 0.5,
            f"{mean:.2f} over the first {count}",
        )
    ]
    return section


def corners(lab: Lab) -> Section:
    """Figure 8."""
    needed = lab.preset.face_pairs()[1e-4][0]
    run = lab.open(needed)
    columns, rows = lab.preset.corners
    images, *signs = combined_images(
        run.model(), run.spectrum, [k - 1 for k in columns], [k - 1 for k in rows], _CORNER_DEVIATIONS
    )
    names = [f"p{k}" for k in rows], [f"p{k}" for k in columns]
    section = Section("Figure 8: combinations of six components", [describe([needed])])
    section.pictures["figure8"] = (
        combinations(images, names, (signs[0], signs[1])),
        f"{', '.join(names[1])} (horizontally) and {', '.join(names[0])} (vertically) at plus and minus "
        f"{_CORNER_DEVIATIONS:g} standard deviation, the others at the mean",
    )
    return section


def cross_correlation(lab: Lab) -> Section:
    """Figure 9."""
    panels, rows, diagonals = {}, [], {}
    for lam, needed in lab.preset.face_pairs().items():
        first, second = lab.open_all(needed)
        matched = align(first.coordinates[0], second.coordinates[0])
        a, b = first.coordinates[1], second.coordinates[1]
        before, after = _correlation(a, b), _correlation(a, matched.apply(b))
        panels[f"λ = {lam:g}"] = before, after
        diagonals[lam] = [float(np.mean(np.diag(matrix))) for matrix in (before, after)]
        off = [float(np.mean(np.abs(matrix[~np.eye(len(matrix), dtype=bool)]))) for matrix in (before, after)]
        rows.append((f"{lam:g}", *(f"{value:.3f}" for pair in (diagonals[lam], off) for value in pair)))
    section = Section("Figure 9: two runs before and after alignment", [
        describe(chain.from_iterable(lab.preset.face_pairs().values())),
    ])  # fmt: skip
    headings = ("λ", "mean of the diagonal, before", "after", "mean size off the diagonal, before", "after")
    section.tables = [Table(headings, rows)]
    section.pictures["figure9"] = (
        correlations(panels),
        "Correlation on the test images between the components of two runs, blue positive and red negative",
    )
    gains = ", ".join(f"{before:.2f} to {after:.2f} at λ = {lam:g}" for lam, (before, after) in diagonals.items())
    section.trends = [
        Claim(
            "alignment brings the correlation to the diagonal and makes it positive",
            all(after >= before and after > 0 for before, after in diagonals.values()),
            gains,
        ),
        Claim(
            "it is more concentrated on the diagonal for λ = 1e-4 than for λ = 1e-3",
            diagonals[1e-4][1] > diagonals[1e-3][1],
            f"mean of the diagonal {diagonals[1e-4][1]:.2f} and {diagonals[1e-3][1]:.2f}",
        ),
    ]
    return section


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between the columns of a and those of b."""
    return np.corrcoef(a, b, rowvar=False)[: a.shape[1], a.shape[1] :]


def _names(letter: str, count: int) -> list[str]:
    return [f"{letter}{k + 1}" for k in range(count)]


def _by_mu(values: dict[tuple[float, float], float]) -> dict[str, dict[float, float]]:
    """Courses over lambda."""
    mus = dict.fromkeys(mu for _, mu in values)
    return {f"at μ = {one:g}": {lam: value for (lam, mu), value in values.items() if mu == one} for one in mus}


def _by_lam(values: dict[tuple[float, float], float]) -> dict[str, dict[float, float]]:
    """Courses over mu."""
    lams = dict.fromkeys(lam for lam, _ in values)
    return {f"at λ = {one:g}": {mu: value for (lam, mu), value in values.items() if lam == one} for one in lams}
