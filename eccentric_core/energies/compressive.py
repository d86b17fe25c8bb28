"""Compressive hyperspherical energy (CoMHE): the energy of neurons that were projected to few dimensions.

What is learned for it, `init_projection` makes and `update_projection` takes one step on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from eccentric_core.backend import Backend, backend_of
from eccentric_core.checks import compute_dtype
from eccentric_core.energies.hyperspherical import EnergyOptions, as_rows, energy_of, mean_energy
from eccentric_core.energies.projections import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
    learned_rule,
    rule_of,
)

if TYPE_CHECKING:
    from eccentric_core.checks import Array
    from eccentric_core.energies.hyperspherical import Normalization
    from eccentric_core.energies.projections import Normal


def compressive_energy(
    w: Array,
    projection: Any = "random",
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    rng: Any = None,
) -> Array:
    """The hyperspherical energy of projected neurons: the mean of E_s(P_k w) over projections P_k.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        projection: "random" or "group", drawn anew at every call, or one of `RandomProjection`, `GroupProjection`; a
            `LearnedProjection`; or matrices of your own, of shape (k, D) or (num_projections, k, D).
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        rng: what a projection is drawn from: a `numpy.random.Generator`, a `torch.Generator`, a key of JAX or MLX, a
            `tf.random.Generator`. None is the framework's own source; JAX has none and needs a key.

    Returns:
        A 0-d array: float64 for float64, otherwise float32. It has the derivatives of its framework, with respect to
        w and to matrices that are given, and none with respect to a learned projection.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: R. Lin et al., Regularizing Neural Networks via Minimizing Hyperspherical Energy, CVPR 2020.

    >>> import numpy as np
    >>> w = np.random.default_rng(0).standard_normal((32, 100))
    >>> float(compressive_energy(w, rng=np.random.default_rng(0)).round(2))
    0.51
    """
    backend = backend_of(w, "w")
    options = EnergyOptions(s, half_space, angular, normalization, eps)
    return projected_energy(w, projection, options, backend.normal(w, rng))


def init_projection(w: Array, rule: Any = "angle-preserving", *, rng: Any = None) -> LearnedProjection:
    """A projection to learn, for weights like these, of normal numbers.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        rule: "angle-preserving" or "adversarial", `AnglePreservingProjection` or `AdversarialProjection`.
        rng: what it is drawn from, as in `compressive_energy`.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> import numpy as np
    >>> init_projection(np.ones((5, 12)), "adversarial", rng=np.random.default_rng(0)).matrix.shape
    (30, 12)
    """
    backend = backend_of(w, "w")
    d = as_rows(w, backend).shape[1]
    rule = learned_rule(rule)
    return LearnedProjection(backend.normal(w, rng)((rule.dim, d)) * d**-0.5, rule)


def update_projection(
    projection: LearnedProjection,
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> LearnedProjection:
    """The projection after the gradient steps that it takes for every step of training. No derivatives go through it.

    Args:
        projection: as it is.
        w: the weights as they are.
        s, half_space, angular, normalization, eps: of the energy that an adversarial projection raises.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    backend = backend_of(w, "w")
    if not isinstance(projection, LearnedProjection):
        raise TypeError(f"projection must be a LearnedProjection, got {projection!r}; init_projection makes one")
    rows = backend.constant(_entered(w, backend))
    energy = energy_of(compute_dtype(rows, "w"), EnergyOptions(s, half_space, angular, normalization, eps))
    _check_matrix(projection.matrix, rows, axes=(2,))
    matrix = backend.run(_stepped, backend.constant(projection.matrix), rows, rule=projection.rule, energy=energy)
    return replace(projection, matrix=matrix)


def _stepped(backend: Backend, matrix: Array, w: Array, *, rule: Any, energy: Any) -> Array:
    dtype, matrix = matrix.dtype, backend.xp.astype(matrix, w.dtype, copy=False)
    matrix = backend.repeat(rule.steps, lambda _, matrix: rule.step(backend, matrix, w, energy), matrix)
    return backend.xp.astype(matrix, dtype, copy=False)


def projected_energy(w: Array, projection: Any, options: EnergyOptions, normal: Normal) -> Array:
    """The mean over projections of the energy of the projected rows, with a source of normal numbers to draw from."""
    backend = backend_of(w, "w")
    w = _entered(w, backend)
    energy = energy_of(compute_dtype(w, "w"), options)
    values = backend.run(mean_energy, _projected(w, projection, normal, backend), energy=energy)
    return backend.xp.mean(values, axis=0)


def _projected(w: Array, projection: Any, normal: Normal, backend: Backend) -> Array:
    """The rows (n, D) under every projection, (number of projections, n, k)."""
    xp, projection = backend.xp, rule_of(projection)
    if isinstance(projection, RandomProjection | GroupProjection):
        return projection.project(w, normal, xp)
    if isinstance(projection, LearnedProjection):
        _check_matrix(projection.matrix, w, axes=(2,))
        # A learned matrix is no parameter of the energy.
        matrix = xp.astype(backend.constant(projection.matrix), w.dtype, copy=False)
        return xp.matmul(w, xp.matrix_transpose(projection.rule.used(backend, matrix, w)))[None, ...]
    if isinstance(projection, AnglePreservingProjection | AdversarialProjection):
        raise TypeError(f"projection {projection} is learned and has a state: make one by init_projection(w, rule)")
    _check_matrix(projection, w)
    rows = xp.matmul(w, xp.matrix_transpose(xp.astype(projection, w.dtype, copy=False)))
    return rows if len(rows.shape) == 3 else rows[None, ...]


def _entered(w: Array, backend: Backend) -> Array:
    """Rows (n, D) in the dtype to compute in."""
    w = as_rows(w, backend)
    return backend.xp.astype(w, getattr(backend.xp, compute_dtype(w, "w")), copy=False)


def _check_matrix(matrix: Any, w: Array, axes: tuple[int, ...] = (2, 3)) -> None:
    shape = tuple(getattr(matrix, "shape", ()))
    if len(shape) not in axes or shape[-1] != w.shape[1]:
        raise ValueError(
            f"projection must have shape (k, D){' or (num_projections, k, D)' * (3 in axes)} with D = {w.shape[1]}, "
            f"the inputs of a neuron, got {shape if shape else repr(matrix)}"
        )
    compute_dtype(matrix, "projection")
