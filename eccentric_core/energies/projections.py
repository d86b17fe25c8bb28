"""Projections of neurons to few dimensions, for the compressive hyperspherical energy.

A projection is drawn anew for every step (`RandomProjection`, `GroupProjection`), or it is a matrix P that is learned
beside the network (`AnglePreservingProjection`, `AdversarialProjection`): a `LearnedProjection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from eccentric_core.checks import dtype_name
from eccentric_core.energies.hyperspherical import MeanEnergy, mean_energy_and_grad, unit_rows
from eccentric_core.engine.precision import ROUNDOFF

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Array

    # Standard normal numbers of a shape, in the dtype and on the device of the rows that they are for.
    Normal: TypeAlias = Callable[[tuple[int, ...]], Array]


def _check_whole(value: object, name: str, least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value!r}")


def _check_learned(rule: Any) -> None:
    _check_whole(rule.dim, "dim", 2)
    for name in ("rate", "decay"):
        value = getattr(rule, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}")


@dataclass(frozen=True)
class RandomProjection:
    """Rows are multiplied by matrices of normal numbers, and the energy is the mean over these matrices.

    Args:
        dim: of the projected rows.
        num_projections: how many matrices are drawn for one energy. The default of both is that of the official code.
    """

    dim: int = 40
    num_projections: int = 20

    def __post_init__(self) -> None:
        _check_whole(self.dim, "dim", 2)
        _check_whole(self.num_projections, "num_projections", 1)

    def project(self, w: Array, normal: Normal, xp: Any) -> Array:
        """The rows (n, D) times each matrix, (num_projections, n, dim)."""
        return xp.matmul(w, xp.matrix_transpose(normal((self.num_projections, self.dim, w.shape[1]))))


@dataclass(frozen=True)
class GroupProjection:
    """What belongs together is drawn at random: groups of inputs or of neurons.

    Args:
        groups: how many.
        of: "inputs" splits the inputs of every neuron, so that a group is a projection onto some coordinates;
            "neurons" splits the neurons, and projects every group of them by a random matrix of its own.
        dim: of the rows that a random matrix projects.

    The energy is the mean over groups. What remains of a division into equal groups is left out of that draw.
    """

    groups: int = 4
    of: Literal["inputs", "neurons"] = "inputs"
    dim: int = 40

    def __post_init__(self) -> None:
        _check_whole(self.groups, "groups", 1)
        _check_whole(self.dim, "dim", 2)
        if self.of not in ("inputs", "neurons"):
            raise ValueError(f'of must be "inputs" or "neurons", got {self.of!r}')

    def project(self, w: Array, normal: Normal, xp: Any) -> Array:
        """The rows (n, D) as groups, (groups, n, D // groups) or (groups, n // groups, dim)."""
        axis = 1 if self.of == "inputs" else 0
        count = w.shape[axis]
        if count is None or count < 2 * self.groups:
            raise ValueError(
                f"groups must leave 2 {self.of} or more to each, got {self.groups} groups of {count} {self.of}"
            )
        size = count // self.groups
        order = xp.argsort(normal((count,)))
        some = xp.take(w, order[: self.groups * size], axis=axis)
        if axis == 1:
            return xp.moveaxis(xp.reshape(some, (-1, self.groups, size)), 1, 0)
        rows = xp.reshape(some, (self.groups, size, w.shape[1]))
        return xp.matmul(rows, normal((self.groups, w.shape[1], self.dim)))


@dataclass(frozen=True)
class AnglePreservingProjection:
    """P is learned to keep the angles between neurons: it minimises the root mean square of cos(P w) - cos(w).

    Every step of training takes one gradient step on P. The energy is that of P after one step more, through which the
    gradient with respect to the weights goes.

    Args:
        dim: of the projected rows.
        rate: of a gradient step.
        decay: L2 weight decay of P.
    """

    dim: int = 30
    rate: float = 1.0
    decay: float = 1e-3
    steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_learned(self)

    def step(self, backend: Backend, matrix: Array, w: Array, energy: Any) -> Array:  # noqa: ARG002
        """P after one step, in operations that a framework can differentiate.

        L = |C' - C|_F / n, C the cosines of the rows x of unit length, C' those of y = P x. These n x n matrices are
        never made: |C' - C|^2 = |Y'Y|^2 + |X'X|^2 - 2 |X'Y|^2.
        """
        xp = backend.xp
        x, _ = unit_rows(w, xp)
        y, scale = unit_rows(xp.matmul(x, xp.matrix_transpose(matrix)), xp)
        gram_y, across = xp.matmul(xp.matrix_transpose(y), y), xp.matmul(xp.matrix_transpose(x), y)
        thinner = x if x.shape[0] is not None and x.shape[0] < x.shape[1] else xp.matrix_transpose(x)
        gram_x = xp.matmul(thinner, xp.matrix_transpose(thinner))
        # Where all angles are kept there is no direction to go: what rounding leaves is not divided by 0.
        least = _square(gram_y, xp) * (4.0 * ROUNDOFF[dtype_name(w)])
        square = _square(gram_y, xp) + _square(gram_x, xp) - 2.0 * _square(across, xp)
        square = xp.clamp(square, 0.0) + least
        size = xp.sum(x * x, axis=None) * xp.sqrt(square)  # n |C' - C|
        slope = (xp.matmul(y, gram_y) - xp.matmul(x, across)) * (2.0 / size)
        slope = (slope - y * xp.sum(y * slope, axis=-1, keepdims=True)) * scale
        return matrix * (1.0 - self.rate * self.decay) - self.rate * xp.matmul(xp.matrix_transpose(slope), x)

    def used(self, backend: Backend, matrix: Array, w: Array) -> Array:
        """The matrix whose energy counts."""
        return self.step(backend, matrix, w, None)


@dataclass(frozen=True)
class AdversarialProjection:
    """P is learned to raise the energy, which the weights are trained to lower.

    Args:
        dim: of the projected rows.
        rate: of a gradient step.
        steps: gradient steps for every step of training.
        decay: L2 weight decay of P.
    """

    dim: int = 30
    rate: float = 1e-3
    steps: int = 10
    decay: float = 1e-3

    def __post_init__(self) -> None:
        _check_learned(self)
        _check_whole(self.steps, "steps", 1)

    def step(self, backend: Backend, matrix: Array, w: Array, energy: MeanEnergy) -> Array:
        """P after one step."""
        xp = backend.xp
        x, _ = unit_rows(w, xp)
        slope = mean_energy_and_grad(backend, xp.matmul(x, xp.matrix_transpose(matrix)), energy=energy)[1]
        return matrix * (1.0 - self.rate * self.decay) + self.rate * xp.matmul(xp.matrix_transpose(slope), x)

    def used(self, backend: Backend, matrix: Array, w: Array) -> Array:  # noqa: ARG002
        """The matrix whose energy counts."""
        return matrix


Drawn: TypeAlias = RandomProjection | GroupProjection
Learned: TypeAlias = AnglePreservingProjection | AdversarialProjection
DRAWN = {"random": RandomProjection(), "group": GroupProjection()}
LEARNED = {"angle-preserving": AnglePreservingProjection(), "adversarial": AdversarialProjection()}

_NAMES = ", ".join(f'"{name}"' for name in (*DRAWN, *LEARNED))


@dataclass(frozen=True)
class LearnedProjection:
    """A projection that is learned beside the network.

    Attributes:
        matrix: P, of shape (dim, D).
        rule: how it learns.
    """

    matrix: Array
    rule: Learned


def network_rule(projection: Any) -> Any:
    """The rule of a projection, drawn or learned, that serves neurons of any number of inputs; None stays.

    Raises:
        ValueError: it is not one.
    """
    rule = rule_of(projection)
    if rule is not None and not isinstance(rule, Drawn | Learned):
        raise ValueError(f"projection must be None, {_NAMES} or such a rule, got {projection!r}")
    return rule


def learned_rule(rule: Any) -> Learned:
    """The rule of a learned projection by its name, or itself."""
    learned = rule_of(rule)
    if not isinstance(learned, AnglePreservingProjection | AdversarialProjection):
        raise ValueError(f'rule must be "angle-preserving", "adversarial", or such a rule, got {rule!r}')
    return learned


def rule_of(projection: Any) -> Any:
    """The rule that a name stands for; anything else as it is.

    Raises:
        ValueError: nothing has that name.
    """
    rules = {**DRAWN, **LEARNED}
    if isinstance(projection, str) and projection not in rules:
        raise ValueError(f"projection must be {_NAMES}, such a rule or matrices, got {projection!r}")
    return rules[projection] if isinstance(projection, str) else projection


def _square(a: Array, xp: Any) -> Array:
    return xp.sum(a * a, axis=None)
