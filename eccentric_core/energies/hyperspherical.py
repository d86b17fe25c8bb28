"""Hyperspherical energies: how evenly directions are spread over the sphere. MHE and uniformity, on the engine.

    E_s = mean over pairs of f_s(|u_i - u_j|),   u = w / |w|,   f_s(r) = r^-s, or log(1/r) for s = 0

The rows are normalised, which is exact up to rounding, or as the official code of MHE does it, by sqrt(|w|^2 + 1e-4).
Its rows are shorter than 1, but what it calls their distance, 2 - 2 <u_i, u_j>, is |u_i - u_j|^2 + a_i + a_j with
a = 1 - |u|^2: a sum over pairs with offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import array_api_compat
import numpy as np

from eccentric_core.checks import check_batch, compute_dtype
from eccentric_core.engine.kernels import AngularKernel, AntipodalKernel, GaussianKernel, RieszKernel, typical_eps
from eccentric_core.engine.pairs import PairSum, flowing
from eccentric_core.engine.sweep import Driver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core.checks import Array

Normalization: TypeAlias = Literal["paper", "official"]

# Of the official code: what it adds to squared norms, and to angles in units of pi.
_ADDED_TO_SQUARES = 1e-4
_ADDED_TO_ANGLES = 1e-4

ROUNDOFF = {"float32": 2.0**-23, "float64": 2.0**-52}

# exp(-4 t), the least that uniformity can meet, must be a normal number.
_LARGEST_T = {"float32": 20.0, "float64": 175.0}


class Riesz(NamedTuple):
    """Which hyperspherical energy: the arguments of `hyperspherical_energy`."""

    s: float = 2.0
    half_space: bool = False
    angular: bool = False
    normalization: Normalization = "paper"
    eps: float | None = None


@flowing
def hyperspherical_energy(
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    xp: Any = None,
) -> Array:
    """The hyperspherical energy of the neurons of a layer, or of any vectors: the mean over pairs of f_s.

        E_s = 1/(n(n-1)) sum_{i != j} f_s(d_ij),   d_ij^2 = 2 - 2 cos(w_i, w_j),   f_s(d) = d^-s, log(1/d) for s = 0

    The more evenly directions are spread, the lower it is; norms do not count. Use it as a loss on weights, with a
    weight of about 1 (`loss + hyperspherical_energy(weight)`), or as a measure of how uniform features are.

    Args:
        w: one row for each neuron, of shape (n, D) with n >= 2, or (n, ...), whose further axes are flattened (the
            kernels of a convolution), of any library that follows the array API standard.
        s: the exponent, 0 or more.
        half_space: a neuron and its mirror image count as one direction: w becomes [w, -w], 2n rows.
        angular: the angle arccos(cos(w_i, w_j)) takes the place of d_ij (A-MHE).
        normalization: "paper", or "official" for what the code of MHE's authors computes: w / sqrt(|w|^2 + 1e-4) for
            w / |w|; twice log(1/d) for s = 0; angles in units of pi, plus 1e-4.
        eps: with "paper" the d_ij^2 below which f_s goes on as its tangent, so that coincident rows (in half-space
            opposite ones, too) have the finite value (1 + s/2) eps^(-s/2); for s = 0 (1 - log eps)/2. None stands for
            r^(2/(s + 2)), r = 2^-52 in float64 and 2^-23 in float32. With "official" the number 1e-4 in the norm.
        xp: the array namespace; None takes it from w.

    Returns:
        A 0-d array: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: NaN and infinity in w are
            not errors and appear in the result, as NaN.

    A row of zeros has no direction: its cosine with every other counts as 0, and its gradient is 0 (with "official" it
    has one). With "paper", norms should be from 1e-18 to 1e18 in float32.

    Time is O(n^2 D), memory O(n D), also in half-space, where the 2n rows cost as much as n.

    Source: W. Liu et al., Learning towards Minimum Hyperspherical Energy, NeurIPS 2018, equations 1 and 2.

    >>> w = np.asarray([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0], [0.0, -1.0]])
    >>> [float(hyperspherical_energy(w, s).round(4)) for s in (0, 1, 2)]
    [-0.4621, 0.6381, 0.4167]
    """
    energy = _energy(w, Riesz(s, half_space, angular, normalization, eps), xp)
    return energy.value(as_rows(w, energy.pairs.driver.xp))


@flowing
def hyperspherical_energy_and_grad(
    w: Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    xp: Any = None,
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
    energy = _energy(w, Riesz(s, half_space, angular, normalization, eps), xp)
    xp = energy.pairs.driver.xp
    value, grad = energy.value_and_gradients(as_rows(w, xp))
    return value, xp.astype(xp.reshape(grad, w.shape), w.dtype, copy=False)


@flowing
def uniformity(z: Array, t: float = 2.0, *, xp: Any = None) -> Array:
    """The uniformity of features on the sphere: the log of the mean Gaussian potential of their pairs.

        log mean_{i < j} exp(-t |u_i - u_j|^2),   u = z / |z|

    The more uniform the features, the lower: 0 where all coincide; of a uniform distribution about -2 t in many
    dimensions (above by 2 t^2 / d).

    Args:
        z: features of shape (..., n, d) with n >= 2, of any library that follows the array API standard. Leading axes
            are separate batches.
        t: the inverse width of the Gaussian, positive and at most 20 (175 in float64), so that nothing underflows.
        xp: the array namespace; None takes it from z.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described. NaN and infinity in z appear in the result, as NaN.

    Source: T. Wang and P. Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere, ICML 2020, section 4.1.2.

    >>> z = np.random.default_rng(0).standard_normal((500, 64))
    >>> float(uniformity(z).round(3)), float(uniformity(z + 3.0).round(3))
    (-3.874, -0.39)
    """
    check_batch(z, "z")
    xp = array_api_compat.array_namespace(z) if xp is None else xp
    return xp.log(gaussian_energy(z, t, Driver(xp)).value(z))


@dataclass(frozen=True)
class HypersphericalEnergy:
    """The mean over pairs of an energy of directions, with its derivatives, for a framework to bind.

    Results have the dtype to compute in: float64 for float64, otherwise float32.

    Args:
        pairs: the sum over pairs of unit vectors, with offsets.
        half_space: the kernel of one pair, where that of `pairs` is of a vector and of its mirror image.
        constant: what is added to squared norms.
        factor: what the mean is multiplied by.
    """

    pairs: PairSum
    half_space: RieszKernel | AngularKernel | None = None
    constant: float = 0.0
    factor: float = 1.0

    def value(self, w: Array) -> Array:
        """The energy of rows of shape (..., n, D), of shape (...)."""
        rows, _ = self._directions(w)
        return self._mean(self.pairs.value(rows), rows)

    def value_and_gradients(self, w: Array) -> tuple[Array, Array]:
        """The energy and its gradient."""
        rows, scale = self._directions(w)
        total, of_rows = self.pairs.value_and_gradients(rows)
        return self._mean(total, rows), self._pulled_back(rows, scale, self._of_mean(of_rows, rows))[0]

    def hvp(self, sets: Sequence[Array], directions: Sequence[Array]) -> tuple[Array, ...]:
        """The Hessian times a vector: the derivative of the gradient of (w,) along (u,).

        With N = sqrt(|w|^2 + constant) the gradient is (g - p x)/N, p = <x, g> + 2 a g_a, where (g, g_a) is that of the
        rows (x, a), and these move by ((u - <x, u> x)/N, -2 a <x, u>/N).
        """
        xp = self.pairs.driver.xp
        rows, scale = self._directions(sets[0])
        x, a = rows[..., :-1], rows[..., -1:]
        u = xp.astype(directions[0], x.dtype, copy=False)
        along = xp.sum(x * u, axis=-1, keepdims=True) * scale
        of_x, of_a = u * scale - x * along, a * along * -2.0
        gradients = self._of_mean(self.pairs.value_and_gradients(rows)[1], rows)
        changes = self._of_mean(self.pairs.hvp((rows,), (xp.concat([of_x, of_a], axis=-1),))[0], rows, of_a)
        gradient, p = self._pulled_back(rows, scale, gradients)
        direct, _ = self._pulled_back(rows, scale, changes)
        g, g_a = gradients[..., :-1], gradients[..., -1:]
        of_p = xp.sum(of_x * g, axis=-1, keepdims=True) + 2.0 * of_a * g_a
        return (direct - (of_x * p + x * of_p) * scale - gradient * along,)

    def _directions(self, w: Array) -> tuple[Array, Array]:
        """The rows [x, a], and the 1/N that they were multiplied by."""
        xp = self.pairs.driver.xp
        w = xp.astype(w, getattr(xp, compute_dtype(w, "w")), copy=False)
        square, scale = _inverse_norms(w, self.constant, xp)
        if self.constant:
            offset = self.constant * scale * scale
        else:
            offset = xp.where(square == 0.0, xp.ones_like(square), 0.0 * square)  # NaN where the square overflows
        return xp.concat([w * scale, offset], axis=-1), scale

    def _mean(self, total: Array, rows: Array) -> Array:
        n = self.pairs.driver.rows(rows)
        if self.half_space is None:
            return total * (self.factor / (n * (n - 1.0)))
        # Pairs of [x, -x]: (i, j) and (-i, -j), (i, -j) and (-i, j), and every row with its own mirror image.
        xp = self.pairs.driver.xp
        opposite = xp.sum(self.half_space.value(self._far(rows), xp), axis=(-2, -1))
        return (total + opposite) * (self.factor / (n * (2.0 * n - 1.0)))

    def _of_mean(self, of_total: Array, rows: Array, along: Array | None = None) -> Array:
        """The gradient of the mean with respect to rows; with the direction of the offsets, its derivative."""
        n, xp = self.pairs.driver.rows(rows), self.pairs.driver.xp
        if self.half_space is None:
            return of_total * (self.factor / (n * (n - 1.0)))
        kernel, far = self.half_space, self._far(rows)
        of_offset = -2.0 * kernel.slope(far, xp) if along is None else 4.0 * kernel.curvature(far, xp) * along
        of_offset = xp.astype(of_offset, of_total.dtype, copy=False)
        of_total = xp.concat([of_total[..., :-1], of_total[..., -1:] + of_offset], axis=-1)
        return of_total * (self.factor / (n * (2.0 * n - 1.0)))

    def _far(self, rows: Array) -> Array:
        """2 - 2 <x, -x>, the distance of a row to its mirror image."""
        return 4.0 - 2.0 * rows[..., -1:]

    def _pulled_back(self, rows: Array, scale: Array, of_rows: Array) -> tuple[Array, Array]:
        """The gradient with respect to w from that with respect to rows, and p."""
        x, a, xp = rows[..., :-1], rows[..., -1:], self.pairs.driver.xp
        g, g_a = of_rows[..., :-1], of_rows[..., -1:]
        p = xp.sum(x * g, axis=-1, keepdims=True) + 2.0 * a * g_a
        return (g - x * p) * scale, p


def riesz_energy(dtype: str, which: Riesz, driver: Driver) -> HypersphericalEnergy:
    """Check the arguments of an energy; return that of rows that are computed in a dtype."""
    s, half_space, angular, normalization, eps = which
    _check_number(s, "s", "a number, 0 or more")
    if not 0 <= s <= 100:
        raise ValueError(f"s must be from 0 to 100, got {s!r}; 0 is the logarithm, 1 and 2 are those of the papers")
    for name, flag in (("half_space", half_space), ("angular", angular)):
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {flag!r}")
    if not isinstance(normalization, str) or normalization not in ("paper", "official"):
        raise ValueError(f'normalization must be "paper" or "official", got {normalization!r}')
    if eps is not None:
        _check_number(eps, "eps", "None or a positive number")
        if not 1e-30 <= eps <= 1.0:
            raise ValueError(f"eps must be from 1e-30 to 1, got {eps!r}; None chooses it")
    try:
        return _cached_riesz(dtype, which, driver)
    except TypeError:  # a namespace that cannot be remembered
        return _cached_riesz.__wrapped__(dtype, which, driver)


def gaussian_energy(z: Array, t: float, driver: Driver) -> HypersphericalEnergy:
    """The mean of which uniformity is the log, of batches like z, its arguments checked."""
    check_batch(z, "z")
    dtype = compute_dtype(z, "z")
    _check_number(t, "t", "a positive number")
    if not 1e-6 <= t <= _LARGEST_T[dtype]:
        raise ValueError(f"t must be from 1e-06 to {_LARGEST_T[dtype]:g} in {dtype}, got {t!r}; the paper takes 2")
    return HypersphericalEnergy(PairSum(GaussianKernel(1.0 / float(t)), driver, offsets=True))


def unit_rows(w: Array, xp: Any) -> tuple[Array, Array]:
    """Rows of length 1, and what they were multiplied by; rows of zeros stay."""
    _, scale = _inverse_norms(w, 0.0, xp)
    return w * scale, scale


def namespace_of(w: Array, xp: Any) -> Any:
    """The namespace that was given, or that of the weights, which must be an array."""
    if not hasattr(w, "dtype") or not hasattr(w, "shape"):
        check_batch(w, "w")
    return array_api_compat.array_namespace(w) if xp is None else xp


def as_rows(w: Array, xp: Any) -> Array:
    """Rows (n, D) of weights (n, ...), which must be more than one and of known size.

    Raises:
        TypeError, ValueError: they are not.
    """
    shape = tuple(getattr(w, "shape", ()))
    if len(shape) > 2 and None not in shape[1:]:
        if isinstance(w, np.matrix | np.ma.MaskedArray):
            check_batch(w, "w")
        w = xp.reshape(w, (-1 if shape[0] is None else shape[0], math.prod(shape[1:])))
    check_batch(w, "w")
    return w


@lru_cache(maxsize=1024)
def _cached_riesz(dtype: str, which: Riesz, driver: Driver) -> HypersphericalEnergy:
    s, half_space, angular, normalization, eps = which
    official, roundoff = normalization == "official", ROUNDOFF[dtype]
    tangent = typical_eps(s, roundoff) if eps is None or official else eps
    if tangent ** (-0.5 * s - 2.0) > (1e30 if dtype == "float32" else 1e290):
        raise ValueError(f"eps must not be so small that eps^(-s/2 - 2) overflows in {dtype}, got {eps!r} at s = {s:g}")
    kernel: RieszKernel | AngularKernel
    if angular and official:
        kernel = AngularKernel(float(s), tangent, roundoff, 1.0 / math.pi, _ADDED_TO_ANGLES)
    elif angular:
        kernel = AngularKernel(float(s), tangent, roundoff)
    else:
        kernel = RieszKernel(float(s), tangent)
    pairs = PairSum(AntipodalKernel(kernel) if half_space else kernel, driver, offsets=True)
    constant = (_ADDED_TO_SQUARES if eps is None else float(eps)) if official else 0.0
    single = kernel if half_space else None
    return HypersphericalEnergy(pairs, single, constant, 2.0 if official and s == 0 and not angular else 1.0)


def _inverse_norms(w: Array, constant: float, xp: Any) -> tuple[Array, Array]:
    """|w|^2 and 1/sqrt(|w|^2 + constant), of shape (..., n, 1); 0 for rows of zeros where the constant is 0."""
    square = xp.sum(w * w, axis=-1, keepdims=True)
    if constant:
        return square, xp.reciprocal(xp.sqrt(square + constant))
    nothing, one = square == 0.0, xp.ones_like(square)
    inverse = xp.reciprocal(xp.sqrt(xp.where(nothing, one, square)))
    return square, xp.where(nothing, xp.zeros_like(one), inverse)


def _check_number(value: object, name: str, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value!r}")


def _energy(w: Array, which: Riesz, xp: Any) -> HypersphericalEnergy:
    """The energy of weights like these, in Python's own loop."""
    xp = namespace_of(w, xp)
    return riesz_energy(compute_dtype(w, "w"), which, Driver(xp))
