"""The experiment on hyperspherical energies: test errors of a classifier, and the energies during training."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from _command import Claim
from scipy.stats import t as student

from eccentric_core import hyperspherical_energy
from reproduction.drawing import courses
from reproduction.sections import Section, Table, mean_and_spread
from reproduction.trainings import ARMS, Trainings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reproduction.lab import Lab
    from reproduction.trainings import Outcome, Training

# The number of standard errors above which a mean difference counts as more than chance.
ERRORS = 2.0

NONE = next(iter(ARMS))
_REGULAR = [name for name, arm in ARMS.items() if arm.energy == "hyperspherical"]
_COMPRESSED = [name for name, arm in ARMS.items() if arm.projection]

# Pairs of arms of which a paper claims that the first has the lower test error, and the paper.
_BETTER = [
    ("MHE", NONE, "MHE, 2018"),
    ("half-space MHE", NONE, "MHE, 2018"),
    ("half-space MHE", "MHE", "MHE, 2018"),
    *((name, reference, "CoMHE, 2020") for name in _COMPRESSED for reference in (NONE, "half-space MHE")),
]


def energies(lab: Lab) -> Section:
    """Train what is missing, and compare."""
    groups = lab.preset.by_arm()
    trainings = Trainings(lab.runs.root, lab.dataset(lab.preset.classifier))
    # Seed by seed over all arms, so that an interrupted experiment has complete comparisons.
    trainings.complete(list(chain.from_iterable(zip(*groups.values(), strict=True))))
    found = {name: [trainings.open(training) for training in of] for name, of in groups.items()}
    section = Section("MHE and CoMHE: test errors and energies", _text(groups))
    section.tables = [_table(found), _layer_table(found)]
    section.pictures["mhe"] = (
        courses(
            {name: np.mean([one.course for one in of], axis=0) for name, of in found.items()},
            "energy of hidden layers",
        ),
        "Half-space energy, s = 2, averaged over hidden layers and seeds, before training and after every epoch",
    )
    section.trends = trends(found)
    section.versions = [one.versions for of in found.values() for one in of]
    return section


def trends(found: Mapping[str, Sequence[Outcome]]) -> list[Claim]:
    """The claims of the papers, and whether the outcomes of the arms, in the order of seeds, confirm them."""
    errors = {name: [100 * one.test_error for one in of] for name, of in found.items()}
    final = {name: [one.course[-1] for one in of] for name, of in found.items()}
    return [
        *(
            _lower(f"test error: {name} below {reference} ({source})", [(errors[name], errors[reference])], 2)
            for name, reference, source in _BETTER
        ),
        _lower("energy: every arm of MHE and CoMHE ends below none", [(final[name], final[NONE]) for name in _REGULAR]),
        _lower("energy: so does the eccentric loss", [(final["eccentric loss"], final[NONE])]),
    ]


def _lower(text: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]], digits: int = 4) -> Claim:
    """Whether in each pair the first values are below the second ones, seed by seed, by more than chance."""
    differences = [np.subtract(*pair) for pair in pairs]
    means = [float(np.mean(values)) for values in differences]
    # With one seed the standard error is unknown: no difference counts.
    spreads = [
        float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.inf for values in differences
    ]
    holds = all(mean < 0 and -mean >= ERRORS * error for mean, error in zip(means, spreads, strict=True))
    parts = [f"{mean:+.{digits}f} ± {error:.{digits}f}" for mean, error in zip(means, spreads, strict=True)]
    return Claim(text, holds, f"difference {'; '.join(parts)}")


def _table(found: Mapping[str, Sequence[Outcome]]) -> Table:
    reference = found[NONE]
    rows = []
    for name, of in found.items():
        minus = [one.test_error - other.test_error for one, other in zip(of, reference, strict=True)]
        rows.append((
            name,
            mean_and_spread([one.test_error for one in of], 2, 100),
            "" if name == NONE else mean_and_spread(minus, 2, 100),
            mean_and_spread([one.training_error for one in of], 2, 100),
            mean_and_spread([one.course[-1] for one in of], 4),
            f"{_seconds(of) / _seconds(reference):.2f}",
        ))  # fmt: skip
    headings = ("", "test error in %", "minus none", "training error in %", "energy", "time")
    return Table(headings, rows)


def _layer_table(found: Mapping[str, Sequence[Outcome]]) -> Table:
    """Final energies by layer, and the minimum where neurons can be orthogonal."""
    layers = found[NONE][0].layers
    rows = [
        (name, *(f"{value:.4f}" for value in np.mean([one.energies[-1] for one in of], axis=0)))
        for name, of in found.items()
    ]
    least = [
        f"{float(hyperspherical_energy(np.eye(count), half_space=True)):.4f}" if count <= inputs else ""
        for count, inputs in layers
    ]
    headings = ("", *(f"{count} × {inputs:,}" for count, inputs in layers))
    return Table(
        headings,
        [*rows, ("orthogonal neurons", *least)],
        "Final energies by layer (neurons × inputs of a neuron), means over seeds",
    )


def _seconds(of: Sequence[Outcome]) -> float:
    """The median time of an epoch."""
    return float(np.median([second for one in of for second in one.seconds]))


def _text(groups: Mapping[str, Sequence[Training]]) -> list[str]:
    one = groups[NONE][0]
    seeds = [training.seed for training in groups[NONE]]
    chance = 100 * float(student.sf(ERRORS, len(seeds) - 1))
    weight, other = ARMS["half-space MHE"].weight, ARMS["eccentric loss"].weight
    return [
        f"""Trained here: {one.data}, {one.images:,} training images, chosen by the seed; convolutions of 32, 32, 64 and
        64 channels, a hidden layer of 128 and an output layer, with ReLU, two poolings and no normalisation;
        {one.epochs} epochs of batches of {one.batch_size}, stochastic gradient descent at a learning rate that falls
        from {one.learning_rate:g} along a cosine, momentum {one.momentum:g}, weight decay {one.weight_decay:g}; seeds
        {", ".join(map(str, seeds))}. With the same seed every arm has the same images in the same order and the same
        initial weights.""",
        f"""MHE and CoMHE have the weights of the official code: {weight:g} for a hidden layer, ten times that for the
        output layer, which is in the full space; s = 2. *MHE* uses the full space in hidden layers as well, all others
        the half-space. The last arm replaces the energy by the eccentric loss (μ = 1) of the neurons of every layer,
        with a weight of {other:g}, chosen in a pilot, and ten times that for the output layer. It acts on the weights
        themselves, not on their directions, and draws neurons of D inputs to a length of √D.""",
        f"""Errors, differences between runs of the same seed, and energies are means and standard deviations over
        {len(seeds)} seeds. The energy is the same measure for every arm, whatever its loss: half-space, s = 2, averaged
        over the hidden layers at the end. Time is the median of an epoch, relative to none, measured while other runs
        were active. A trend is reproduced if the mean difference between runs of the same seed has the right sign and
        is at least {ERRORS:g} standard errors, which follow each difference below; test errors are in %. Of differences
        by chance alone (and normal) {chance:.0f} % pass.""",
        """The half-space energy of neurons that are no more than their inputs is least where they are orthogonal, as a
        pair with the cosine c and its mirror images contribute in proportion to 1 / (1 − c²). The last row of the
        second table has this minimum. Random neurons of many inputs are nearly orthogonal, so the energy of an initial
        network can hardly be lowered there.""",
    ]
