"""Compressive hyperspherical energy (CoMHE): the energy of neurons that were projected to few dimensions.

A projection is drawn anew for every step (`RandomProjection`, `GroupProjection`), or it is a matrix P that is learned
beside the network (`AnglePreservingProjection`, `AdversarialProjection`): a `LearnedProjection`, which
`init_projection` makes and `update_projection` takes one step on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import array_api_compat
import numpy as np

from eccentric_core._checks import check_batch, compute_dtype, dtype_name
from eccentric_core.hyperspherical import ROUNDOFF, HypersphericalEnergy, Riesz, as_rows, riesz_energy, unit_rows
from eccentric_core.kernels import at_least
from eccentric_core.pairs import flowing
from eccentric_core.sweep import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core._checks import Array
    from eccentric_core.hyperspherical import Normalization

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
    """Every draw multiplies the rows by a matrix of normal numbers; the energy is the mean over draws.

    Args:
        dim: of the projected rows.
        draws: matrices that are drawn for one energy. The default of both is that of the official code.
    """

    dim: int = 40
    draws: int = 20

    def __post_init__(self) -> None:
        _check_whole(self.dim, "dim", 2)
        _check_whole(self.draws, "draws", 1)

    def project(self, w: Array, normal: Normal, xp: Any) -> Array:
        """The rows (n, D) in every draw, (draws, n, dim)."""
        return xp.matmul(w, xp.matrix_transpose(normal((self.draws, self.dim, w.shape[1]))))


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

    def step(self, matrix: Array, w: Array, energy: Any, xp: Any) -> Array:  # noqa: ARG002
        """P after one step, in operations that a framework can differentiate.

        L = |C' - C|_F / n, C the cosines of the rows x of unit length, C' those of y = P x. These n x n matrices are
        never made: |C' - C|^2 = |Y'Y|^2 + |X'X|^2 - 2 |X'Y|^2.
        """
        x, _ = unit_rows(w, 0.0, xp)
        y, scale = unit_rows(xp.matmul(x, xp.matrix_transpose(matrix)), 0.0, xp)
        of_y, across = xp.matmul(xp.matrix_transpose(y), y), xp.matmul(xp.matrix_transpose(x), y)
        smaller = x if x.shape[0] is not None and x.shape[0] < x.shape[1] else xp.matrix_transpose(x)
        of_x = xp.matmul(smaller, xp.matrix_transpose(smaller))
        # Where all angles are kept there is no direction to go: what rounding leaves is not divided by 0.
        least = _square(of_y, xp) * (4.0 * ROUNDOFF[dtype_name(w)])
        square = at_least(_square(of_y, xp) + _square(of_x, xp) - 2.0 * _square(across, xp), 0.0, xp) + least
        size = xp.sum(x * x, axis=None) * xp.sqrt(square)  # n |C' - C|
        slope = (xp.matmul(y, of_y) - xp.matmul(x, across)) * (2.0 / size)
        slope = (slope - y * xp.sum(y * slope, axis=-1, keepdims=True)) * scale
        return matrix * (1.0 - self.rate * self.decay) - self.rate * xp.matmul(xp.matrix_transpose(slope), x)

    def used(self, matrix: Array, w: Array, xp: Any) -> Array:
        """The matrix whose energy counts."""
        return self.step(matrix, w, None, xp)


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

    def step(self, matrix: Array, w: Array, energy: HypersphericalEnergy, xp: Any) -> Array:
        """P after one step."""
        x, _ = unit_rows(w, 0.0, xp)
        slope = energy.value_and_gradients(xp.matmul(x, xp.matrix_transpose(matrix)))[1]
        return matrix * (1.0 - self.rate * self.decay) + self.rate * xp.matmul(xp.matrix_transpose(slope), x)

    def used(self, matrix: Array, w: Array, xp: Any) -> Array:  # noqa: ARG002
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


@flowing
def compressive_energy(
    w: Array,
    projection: Any = "random",
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    rng: np.random.Generator | None = None,
    xp: Any = None,
) -> Array:
    """The hyperspherical energy of projected neurons: the mean of E_s(P_k w) over projections P_k.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        projection: "random" or "group", drawn anew at every call, or one of `RandomProjection`, `GroupProjection`; a
            `LearnedProjection`; or matrices of your own, of shape (k, D) or (draws, k, D).
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        rng: what a projection is drawn from; None makes a generator that starts anywhere.
        xp: the array namespace; None takes it from w.

    Returns:
        A 0-d array: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: R. Lin et al., Regularizing Neural Networks via Minimizing Hyperspherical Energy, CVPR 2020.

    >>> w = np.random.default_rng(0).standard_normal((32, 100))
    >>> float(compressive_energy(w, rng=np.random.default_rng(0)).round(2))
    0.51
    """
    xp = _namespace(w, xp)
    which = Riesz(s, half_space, angular, normalization, eps)
    return projected_energy(w, projection, which, _value, _normal(w, rng, xp), Driver(xp))


def init_projection(w: Array, rule: Any = "angle-preserving", *, rng: Any = None, xp: Any = None) -> LearnedProjection:
    """A projection to learn, for weights like these, of normal numbers.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        rule: "angle-preserving" or "adversarial", `AnglePreservingProjection` or `AdversarialProjection`.
        rng: what it is drawn from; None makes a generator that starts anywhere.
        xp: the array namespace; None takes it from w.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> init_projection(np.ones((5, 12)), "adversarial", rng=np.random.default_rng(0)).matrix.shape
    (30, 12)
    """
    xp = _namespace(w, xp)
    return first_projection(w, rule, _normal(w, rng, xp), xp)


@flowing
def update_projection(
    projection: LearnedProjection,
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    xp: Any = None,
) -> LearnedProjection:
    """The projection after the gradient steps that it takes for every step of training.

    Args:
        projection: as it is.
        w: the weights as they are.
        s, half_space, angular, normalization, eps: of the energy that an adversarial projection raises.
        xp: the array namespace; None takes it from w.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    return next_projection(projection, w, Riesz(s, half_space, angular, normalization, eps), Driver(_namespace(w, xp)))


def projected_energy(
    w: Array, projection: Any, which: Riesz, bind: Callable[[Any, Array], Array], normal: Normal, driver: Driver
) -> Array:
    """The mean over projections of bind(energy, projected rows), which brings its derivatives with it."""
    w, energy = _entered(w, which, driver)
    return driver.xp.mean(bind(energy, projected(w, projection, normal, driver.xp)), axis=0)


def projected(w: Array, projection: Any, normal: Normal, xp: Any) -> Array:
    """The rows (n, D) under every projection, (draws, n, k)."""
    projection = rule_of(projection)
    if isinstance(projection, RandomProjection | GroupProjection):
        return projection.project(w, normal, xp)
    if isinstance(projection, LearnedProjection):
        _check_matrix(projection.matrix, w, axes=(2,))
        matrix = projection.rule.used(xp.astype(projection.matrix, w.dtype, copy=False), w, xp)
        return xp.matmul(w, xp.matrix_transpose(matrix))[None, ...]
    if isinstance(projection, AnglePreservingProjection | AdversarialProjection):
        raise TypeError(f"projection {projection} is learned and has a state: make one by init_projection(w, rule)")
    _check_matrix(projection, w)
    rows = xp.matmul(w, xp.matrix_transpose(xp.astype(projection, w.dtype, copy=False)))
    return rows if len(rows.shape) == 3 else rows[None, ...]


def first_projection(w: Array, rule: Any, normal: Normal, xp: Any) -> LearnedProjection:
    """A projection of normal numbers, of rows of length about 1."""
    d = as_rows(w, xp).shape[1]
    rule = learned_rule(rule)
    return LearnedProjection(normal((rule.dim, d)) * d**-0.5, rule)


def next_projection(projection: LearnedProjection, w: Array, which: Riesz, driver: Driver) -> LearnedProjection:
    """The projection after its steps for one step of training."""
    if not isinstance(projection, LearnedProjection):
        raise TypeError(f"projection must be a LearnedProjection, got {projection!r}; init_projection makes one")
    w, energy = _entered(w, which, driver)
    _check_matrix(projection.matrix, w, axes=(2,))
    xp, dtype = driver.xp, projection.matrix.dtype
    rule: Any = projection.rule
    matrix = xp.astype(projection.matrix, w.dtype, copy=False)

    def step(_: Any, matrix: Array) -> Array:
        return rule.step(matrix, w, energy, xp)

    matrix = driver.repeat(rule.steps, step, matrix)
    return replace(projection, matrix=xp.astype(matrix, dtype, copy=False))


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


def _value(energy: HypersphericalEnergy, rows: Array) -> Array:
    return energy.value(rows)


def _entered(w: Array, which: Riesz, driver: Driver) -> tuple[Array, HypersphericalEnergy]:
    """Rows in the dtype to compute in, and their energy."""
    w = as_rows(w, driver.xp)
    dtype = compute_dtype(w, "w")
    return driver.xp.astype(w, getattr(driver.xp, dtype), copy=False), riesz_energy(dtype, which, driver)


def _square(a: Array, xp: Any) -> Array:
    return xp.sum(a * a, axis=None)


def _namespace(w: Array, xp: Any) -> Any:
    if not hasattr(w, "dtype") or not hasattr(w, "shape"):
        check_batch(w, "w")
    return array_api_compat.array_namespace(w) if xp is None else xp


def _normal(w: Array, rng: np.random.Generator | None, xp: Any) -> Normal:
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator or None, got {rng!r}")
    generator = np.random.default_rng() if rng is None else rng
    dtype, device = getattr(xp, compute_dtype(w, "w")), array_api_compat.device(w)
    return lambda shape: xp.asarray(generator.standard_normal(shape), dtype=dtype, device=device)


def _check_matrix(matrix: Any, w: Array, axes: tuple[int, ...] = (2, 3)) -> None:
    shape = tuple(getattr(matrix, "shape", ()))
    if len(shape) not in axes or shape[-1] != w.shape[1]:
        raise ValueError(
            f"projection must have shape (k, D){' or (draws, k, D)' * (3 in axes)} with D = {w.shape[1]}, the inputs "
            f"of a neuron, "
            f"got {shape if shape else repr(matrix)}"
        )
    compute_dtype(matrix, "projection")
