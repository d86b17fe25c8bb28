"""Compressive hyperspherical energy (CoMHE): the energy of neurons that were projected to few dimensions.

What is learned for it, `init_projection` makes and `update_projection` takes one step on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from eccentric_core.checks import compute_dtype
from eccentric_core.energies.hyperspherical import HypersphericalEnergy, Riesz, as_rows, namespace_of, riesz_energy
from eccentric_core.energies.projections import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
    learned_rule,
    rule_of,
)
from eccentric_core.engine.pairs import flowing
from eccentric_core.engine.sweep import Driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.checks import Array
    from eccentric_core.energies.hyperspherical import Normalization
    from eccentric_core.energies.projections import Normal


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
    xp = namespace_of(w, xp)
    which = Riesz(s, half_space, angular, normalization, eps)
    return projected_energy(w, projection, which, HypersphericalEnergy.value, _normal(w, rng, xp), Driver(xp))


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
    xp = namespace_of(w, xp)
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
    return next_projection(
        projection, w, Riesz(s, half_space, angular, normalization, eps), Driver(namespace_of(w, xp))
    )


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


def _entered(w: Array, which: Riesz, driver: Driver) -> tuple[Array, HypersphericalEnergy]:
    """Rows in the dtype to compute in, and their energy."""
    w = as_rows(w, driver.xp)
    dtype = compute_dtype(w, "w")
    return driver.xp.astype(w, getattr(driver.xp, dtype), copy=False), riesz_energy(dtype, which, driver)


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
