"""Hyperspherical energies: how evenly directions are spread over the sphere. MHE and uniformity, on the engine.

    E_s = mean over pairs of f_s(|u_i - u_j|),   u = w / |w|,   f_s(r) = r^-s, or log(1/r) for s = 0

The rows are normalised, which is exact up to rounding, or as the official code of MHE does it, by sqrt(|w|^2 + 1e-4).
Its rows are shorter than 1, but what it calls their distance is 2 - 2 <u_i, u_j>, as if the squared norm of each were
1: the engine is told by how much, e = 1 - |u|^2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from eccentric_core.backend import Backend, backend_of
from eccentric_core.checks import check_batch, check_number, compute_dtype, is_number, static_float
from eccentric_core.engine.kernels import AngularKernel, AntipodalKernel, GaussianKernel, RieszKernel, default_eps
from eccentric_core.engine.pairs import PairSum, mean_weights, spread
from eccentric_core.engine.precision import ROUNDOFF

if TYPE_CHECKING:
    from eccentric_core.checks import Array

Normalization: TypeAlias = Literal["paper", "official"]

# Of the official code: what it adds to squared norms, and to angles in units of pi.
_ADDED_TO_SQUARES = 1e-4
_ADDED_TO_ANGLES = 1e-4

# exp(-4 t), the least that uniformity can meet, must be a normal number.
_LARGEST_T = {"float32": 20.0, "float64": 175.0}


class EnergyOptions(NamedTuple):
    """Which hyperspherical energy: the arguments of `hyperspherical_energy`."""

    s: float = 2.0
    half_space: bool = False
    angular: bool = False
    normalization: Normalization = "paper"
    eps: float | None = None


def hyperspherical_energy(
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> Array:
    """The hyperspherical energy of the neurons of a layer, or of any vectors: the mean over pairs of f_s.

        E_s = 1/(n(n-1)) sum_{i != j} f_s(d_ij),   d_ij^2 = 2 - 2 cos(w_i, w_j),   f_s(d) = d^-s, log(1/d) for s = 0

    The more evenly directions are spread, the lower it is; norms do not count. Use it as a loss on weights, with a
    weight of about 1 (`loss + hyperspherical_energy(weight)`), or as a measure of how uniform features are.

    Args:
        w: one row for each neuron, of shape (n, D) with n >= 2, or (n, ...), whose further axes are flattened (the
            kernels of a convolution), of any library.
        s: the exponent, 0 or more.
        half_space: a neuron and its mirror image count as one direction: w becomes [w, -w], 2n rows.
        angular: the angle arccos(cos(w_i, w_j)) takes the place of d_ij (A-MHE).
        normalization: "paper", or "official" for what the code of MHE's authors computes: w / sqrt(|w|^2 + 1e-4) for
            w / |w|; twice log(1/d) for s = 0; angles in units of pi, plus 1e-4.
        eps: with "paper" the d_ij^2 below which f_s is continued linearly, so that coincident rows (in half-space
            opposite ones, too) have the finite value (1 + s/2) eps^(-s/2); for s = 0 (1 - log eps)/2. None stands for
            r^(2/(s + 2)), r = 2^-52 in float64 and 2^-23 in float32. With "official" the number 1e-4 in the norm.

    Returns:
        A 0-d array: float64 for float64, otherwise float32. It has the derivatives of its framework.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: NaN and inf in w
            propagate to the result, as NaN.

    A row of zeros has no direction: its cosine with every other counts as 0, and its gradient is 0 (with "official" it
    has one). With "paper", norms should be from 1e-18 to 1e18 in float32.

    Time is O(n^2 D), memory O(n D), also in half-space, where the 2n rows cost as much as n.

    Source: W. Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018, equations 1 and 2.

    >>> w = np.asarray([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [0.0, -1.0]])
    >>> [float(hyperspherical_energy(w, s).round(4)) for s in (0, 1, 2)]
    [-0.4621, 0.6381, 0.4167]
    """
    backend = backend_of(w, "w")
    w = as_rows(w, backend)
    energy = energy_of(compute_dtype(w, "w"), EnergyOptions(s, half_space, angular, normalization, eps))
    return backend.run(mean_energy, w, energy=energy)


def hyperspherical_energy_and_grad(
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> tuple[Array, Array]:
    """The hyperspherical energy and its gradient with respect to w, from one sweep over the pairs.

    Args, Raises: as `hyperspherical_energy`.

    Returns:
        (energy, gradient): the energy as in `hyperspherical_energy`; the gradient of the shape and the dtype of w.

    >>> w = np.asarray([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
    >>> energy, grad = hyperspherical_energy_and_grad(w)
    >>> bool(energy == hyperspherical_energy(w)), bool(np.all(np.abs(np.sum(w * grad, axis=1)) < 1e-15))
    (True, True)
    """
    backend = backend_of(w, "w")
    rows = as_rows(w, backend)
    energy = energy_of(compute_dtype(w, "w"), EnergyOptions(s, half_space, angular, normalization, eps))
    value, grad = backend.run(mean_energy_and_grad, rows, energy=energy)
    xp = backend.xp
    return value, xp.astype(grad if grad.shape == w.shape else xp.reshape(grad, w.shape), w.dtype, copy=False)


def uniformity(z: Array, t: float = 2.0) -> Array:
    """The uniformity of features on the sphere: the log of the mean Gaussian potential of their pairs.

        log mean_{i < j} exp(-t |u_i - u_j|^2),   u = z / |z|

    The more uniform the features, the lower: 0 where all coincide; of a uniform distribution about -2 t in many
    dimensions (above by 2 t^2 / d).

    Args:
        z: features of shape (..., n, d) with n >= 2, of any library. Leading axes are separate batches.
        t: the inverse width of the Gaussian, positive and at most 20 (175 in float64), so that nothing underflows.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, otherwise float32. It has the derivatives of
        its framework.

    Raises:
        TypeError, ValueError: an argument is not as described. NaN and inf in z propagate to the result, as NaN.

    Source: T. Wang and P. Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere, ICML 2020, section 4.1.2.

    >>> z = np.random.default_rng(0).standard_normal((500, 64))
    >>> float(uniformity(z).round(3)), float(uniformity(z + 3.0).round(3))
    (-3.874, -0.39)
    """
    backend = backend_of(z)
    check_batch(z)
    dtype = compute_dtype(z, "z")
    check_number(t, "t", "a positive number")
    if not 1e-6 <= t <= _LARGEST_T[dtype]:
        raise ValueError(f"t must be from 1e-06 to {_LARGEST_T[dtype]:g} in {dtype}, got {t!r}; the paper takes 2")
    return backend.run(_uniformity, z, 1.0 / float(t), energy=MeanEnergy(PairSum(GaussianKernel())))


def _uniformity(backend: Backend, z: Array, bandwidth: Any, *, energy: MeanEnergy) -> Array:
    mean, n = mean_energy(backend, z, bandwidth, energy=energy), backend.rows(z)
    # The logarithm of 1, and not of 0, of a batch without pairs.
    mean = mean if is_number(n) else mean + backend.xp.astype(n < 1.5, mean.dtype)
    return backend.xp.log(mean)


class MeanEnergy(NamedTuple):
    """A mean over pairs of directions.

    Attributes:
        f: the sum over pairs.
        mirrored: in half-space the kernel of one pair, where that of f is of a vector and of its mirror image.
        constant: what is added to squared norms.
        factor: what the mean is multiplied by.
    """

    f: PairSum
    mirrored: RieszKernel | AngularKernel | None = None
    constant: float = 0.0
    factor: float = 1.0


def mean_energy(backend: Backend, w: Array, bandwidth: Any = 1.0, *, energy: MeanEnergy) -> Array:
    """The energy of rows of shape (..., n, D), of shape (...)."""
    u, e, _ = _directions(backend, w, energy.constant)
    weight = _weight(backend, u, energy)
    value = backend.differentiable(energy.f, u, None, e, bandwidth, None, spread(weight, u, backend))
    return value if energy.mirrored is None else value + _of_mirror_images(e, energy.mirrored, backend.xp) * weight


def mean_energy_and_grad(backend: Backend, w: Array, *, energy: MeanEnergy) -> tuple[Array, Array]:
    """The energy and its gradient, for libraries without derivatives and for steps of our own.

    With N = sqrt(|w|^2 + constant) it is (g - p u)/N, p = <u, g> + 2 e g_e, where (g, g_e) is that of (u, e).
    """
    xp = backend.xp
    u, e, scale = _directions(backend, w, energy.constant)
    weight = _weight(backend, u, energy)
    value, grad_u, _, grad_e, *_ = backend.value_and_gradients(
        energy.f, u, None, e, 1.0, None, spread(weight, u, backend)
    )
    if energy.mirrored is not None:
        value = value + _of_mirror_images(e, energy.mirrored, xp) * weight
        grad_e = grad_e - energy.mirrored.slope(4.0 - 2.0 * e, xp) * (2.0 * weight)
    product = xp.sum(u * grad_u, axis=-1, keepdims=True) + 2.0 * e * grad_e
    return value, (grad_u - u * product) * scale


def _directions(backend: Backend, w: Array, constant: float) -> tuple[Array, Array, Array]:
    """The rows u, what their squared norms lack to 1, and the 1/N that they were multiplied by."""
    xp = backend.xp
    w = xp.astype(w, getattr(xp, compute_dtype(w, "w")), copy=False)
    square, scale = _inverse_norms(w, constant, xp)
    if constant:
        return w * scale, constant * scale * scale, scale
    # A row of zeros has no direction; NaN where the square overflows.
    return w * scale, xp.where(square == 0.0, xp.ones_like(square), 0.0 * square), scale


def _of_mirror_images(e: Array, kernel: RieszKernel | AngularKernel, xp: Any) -> Array:
    """The sum over the pairs of a row and its own mirror image: 2 - 2 <u, -u>."""
    return xp.total(kernel.value(4.0 - 2.0 * e, xp))


def _weight(backend: Backend, rows: Array, energy: MeanEnergy) -> Any:
    n = backend.rows(rows)
    by_rows, by_pairs = mean_weights(n, backend)
    # Pairs of [u, -u]: (i, j) and (-i, -j), (i, -j) and (-i, j), and each row with its own mirror image.
    return energy.factor * (by_pairs if energy.mirrored is None else by_rows / (2.0 * n - 1.0))


def energy_of(dtype: str, options: EnergyOptions) -> MeanEnergy:
    """The energy of rows that are computed in a dtype, from arguments that are checked."""
    s, half_space, angular, normalization, eps = options
    check_number(s, "s", "a number, 0 or more")
    s = static_float(s)
    if not 0 <= s <= 100:
        raise ValueError(f"s must be from 0 to 100, got {s!r}; 0 is the logarithm, 1 and 2 are those of the papers")
    for name, flag in (("half_space", half_space), ("angular", angular)):
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {flag!r}")
    if not isinstance(normalization, str) or normalization not in ("paper", "official"):
        raise ValueError(f'normalization must be "paper" or "official", got {normalization!r}')
    if eps is not None:
        check_number(eps, "eps", "None or a positive number")
        eps = static_float(eps)
        if not 1e-30 <= eps <= 1.0:
            raise ValueError(f"eps must be from 1e-30 to 1, got {eps!r}; None chooses it")
    official, roundoff = normalization == "official", ROUNDOFF[dtype]
    linear_below = default_eps(s, roundoff) if eps is None or official else eps
    if linear_below ** (-0.5 * s - 2.0) > (1e30 if dtype == "float32" else 1e290):
        raise ValueError(f"eps must not be so small that eps^(-s/2 - 2) overflows in {dtype}, got {eps!r} at s = {s:g}")
    kernel: RieszKernel | AngularKernel
    if angular and official:
        kernel = AngularKernel(s, linear_below, roundoff, 1.0 / math.pi, _ADDED_TO_ANGLES)
    elif angular:
        kernel = AngularKernel(s, linear_below, roundoff)
    else:
        kernel = RieszKernel(s, linear_below)
    constant = (_ADDED_TO_SQUARES if eps is None else eps) if official else 0.0
    factor = 2.0 if official and s == 0 and not angular else 1.0
    return MeanEnergy(
        PairSum(AntipodalKernel(kernel) if half_space else kernel), kernel if half_space else None, constant, factor
    )


def unit_rows(w: Array, xp: Any) -> tuple[Array, Array]:
    """Rows of length 1, and what they were multiplied by; rows of zeros stay."""
    _, scale = _inverse_norms(w, 0.0, xp)
    return w * scale, scale


def as_rows(w: Array, backend: Backend) -> Array:
    """Rows (n, D) of weights (n, ...), which must be more than one and of known size.

    Raises:
        TypeError, ValueError: they are not.
    """
    shape = tuple(w.shape)
    if len(shape) > 2 and None not in shape[1:]:
        w = backend.xp.reshape(w, (-1 if shape[0] is None else shape[0], math.prod(shape[1:])))
    check_batch(w, "w")
    return w


def _inverse_norms(w: Array, constant: float, xp: Any) -> tuple[Array, Array]:
    """|w|^2 and 1/sqrt(|w|^2 + constant), of shape (..., n, 1); 0 for rows of zeros where the constant is 0."""
    square = xp.squares_of_rows(w)
    if constant:
        return square, xp.reciprocal(xp.sqrt(square + constant))
    nothing, one = square == 0.0, xp.ones_like(square)
    inverse = xp.reciprocal(xp.sqrt(xp.where(nothing, one, square)))
    return square, xp.where(nothing, xp.zeros_like(one), inverse)
