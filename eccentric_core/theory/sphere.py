"""Averages over the uniform distribution on a sphere, and the root of Theorem 1.

All of the theory rests on averages E[f(v)] where y is uniform on a sphere in R^d, t is the angle between y and a
fixed point of the sphere, and v = (1 + cos t)/2 is in [0, 1]. With x = 4 rho^2 / M (the squared diameter in units of
M; the paper's a is 2/x) the squared distance of -y to the fixed point is D = 4 rho^2 v, so that

    F(d, x) = E[2 v / (1 + x v)] = 2F1(1, (d+1)/2; d; -x)     Theorem 1 reads 2 mu F(d, x) = 1
    L(d, x) = E[log(1 + x v)]                                 the mean repulsive energy, dL/dx = F/2

Substituting cos t = tanh u turns the weight (1 - cos^2 t)^((d-3)/2) d cos t into sech^(d-1)(u) du on the whole line,
and moves the singularity of either integrand to Im u = +-pi/2 *for every x*. The trapezoidal rule then converges
geometrically, uniformly in x from 0 to infinity and in d from 2 to infinity: 27 nodes for large d, 367 at d = 2.
All terms are positive, so nothing cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import Chebyshev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Floats

# The rule leaves out what lies below exp(-39), a tenth of the rounding unit of float64, and its step keeps the aliasing
# error below exp(-38) for every d.
_EXPONENT = 39.0
# Elements per sweep of nodes, so that (chunk, nodes) stays in the cache.
_CHUNK = 512
# From so many values of mu per dimension on, a polynomial of this many terms is cheaper than Newton for each.
_MANY = 256
_POLYNOMIAL_SIZE = 24
# The numbers of the nodes that d = 2 needs.
_NODES = [float(k) for k in range(-183, 184)]


def sphere_rule(dim: Floats) -> tuple[Floats, Floats]:
    """Nodes v = (1 + cos t)/2 in (0, 1) and weights (their sum is 1) of the average over spheres in R^dim.

    dim: float64, shape (m,), at least 2. Returns two arrays of shape (m, nodes). The number of nodes is what the
    smallest dim asks for.
    """
    power = dim[:, None] - 1.0
    # The aliasing error is min over b < pi/2 of exp(-2 pi b / step) / cos(b)^(d-1). The largest step that keeps it at
    # exp(-39) tends to pi^2/39 for small d and to sqrt(2 pi^2 / (39 d)) for large d; this one lies just below between.
    step = 1.0 / np.sqrt(19.0 + 2.05 * power)
    # Beyond this u the weight sech^(d-1) u is below exp(-39).
    reach = np.arccosh(np.exp(_EXPONENT / power))
    half = int(np.max(np.ceil(reach / step)))
    u = step * np.arange(-half, half + 1)
    weight = np.exp(-0.5 * power * np.log1p(np.sinh(u) ** 2))
    return 1.0 / (1.0 + np.exp(-2.0 * u)), weight / np.sum(weight, axis=1, keepdims=True)


def mean_repulsion(dim: Floats, x: Floats) -> Floats:
    """F(d, x) for arrays that broadcast."""
    return _average(dim, x, lambda v, x: 2.0 * v / (1.0 + x * v))


def mean_log(dim: Floats, x: Floats) -> Floats:
    """L(d, x) for arrays that broadcast."""
    if dim.size == 1 and dim.item() == 2.0:  # in closed form: 2 log((1 + sqrt(1 + x)) / 2)
        circle: Floats = 2.0 * np.log1p(0.5 * x / (1.0 + np.sqrt(1.0 + x)))
        return np.broadcast_to(circle, np.broadcast_shapes(dim.shape, x.shape)).copy()
    return _average(dim, x, lambda v, x: np.log1p(x * v))


def _average(dim: Floats, x: Floats, function: Callable[[Floats, Floats], Floats]) -> Floats:
    shape = np.broadcast_shapes(dim.shape, x.shape)
    flat_dim = dim.ravel() if dim.size == 1 else np.broadcast_to(dim, shape).ravel()
    flat_x = np.broadcast_to(x, shape).ravel()
    out = np.empty(flat_x.size)
    for part, v, weight in _sweeps(flat_dim, flat_x.size):
        out[part] = np.sum(weight * function(v, flat_x[part, None]), axis=1)
    return out.reshape(shape)


def _sweeps(dim: Floats, size: int) -> Iterator[tuple[slice, Floats, Floats]]:
    """Parts of size elements, each with its rule; dim has shape (size,), or (1,) for one dimension and one rule."""
    rule = sphere_rule(dim) if dim.size == 1 else None
    for start in range(0, size, _CHUNK):
        part = slice(start, start + _CHUNK)
        yield part, *(rule or sphere_rule(dim[part]))


def solve_theorem1(dim: Floats, excess: Floats) -> Floats:
    """The x > 0 at which 2 mu F(d, x) = 1, that is 1/F(d, x) - 1 = excess, where excess = 2 mu - 1 > 0.

    Arrays broadcast. Exact to a few units of rounding for every d >= 2 and excess > 0. Raises ArithmeticError
    should it not converge.
    """
    shape = np.broadcast_shapes(dim.shape, excess.shape)
    dims, group = np.unique(dim, return_inverse=True)
    flat_excess = np.broadcast_to(excess, shape).ravel()
    if flat_excess.size == 0:
        return np.empty(shape)
    many = flat_excess.size >= _MANY * dims.size
    if dims.size == 1:
        return (_solve_by_polynomial if many else _solve_by_newton)(dims, flat_excess).reshape(shape)
    if not many:
        return _solve_by_newton(np.broadcast_to(dim, shape).ravel(), flat_excess).reshape(shape)
    out = np.empty(flat_excess.size)
    # Small integers, for which the stable sort is a radix sort.
    flat_group = np.broadcast_to(group.reshape(dim.shape).astype(np.min_scalar_type(dims.size)), shape).ravel()
    order = np.argsort(flat_group, kind="stable")
    ends = np.cumsum(np.bincount(flat_group))
    for k, members in enumerate(np.split(order, ends[:-1])):
        out[members] = _solve_by_polynomial(dims[k : k + 1], flat_excess[members])
    return out.reshape(shape)


def _first_guess(dim: Any, excess: Any) -> Any:
    """The x at which the paper's M puts the sphere of radius sqrt(d): 4 d / M."""
    return 2.0 * excess / (1.0 + 1.0 / ((1.0 + excess) * (dim - 1.0)))


def _solve_by_newton(dim: Floats, excess: Floats) -> Floats:
    """Newton for each element of excess, shape (m,); dim has shape (m,), or (1,) for one dimension."""
    out = np.empty(excess.shape)
    guess = _first_guess(dim, excess)
    for part, v, weight in _sweeps(dim, excess.size):
        weight = 2.0 * weight * v
        x = guess[part]
        # 1/F is increasing and concave (F is a Stieltjes function), so that from the second step on Newton approaches
        # the root from the left and cannot miss it.
        for _ in range(20):
            step = _newton_step(x, excess[part], v, weight, np)
            x = x + step
            if np.all(np.abs(step) <= 1e-8 * x):  # convergence is quadratic: the error is now about the square
                break
        else:
            raise ArithmeticError(f"Newton's method for Theorem 1 did not converge for dim {dim}")
        out[part] = x
    return out


def _newton_step(x: Any, excess: Any, v: Any, weight: Any, xp: Any) -> Any:
    """The step from x, of shape (...); v and the weights of F are of shape (..., nodes)."""
    kernel = 1.0 / (1.0 + x[..., None] * v)
    # Divided by its mean: squaring it can't underflow.
    kernel = kernel / xp.sum(weight * kernel, axis=-1, keepdims=True)
    moment = weight * v * kernel
    # 1/F - 1 as a sum of positive terms: no cancellation as mu falls to 1/2.
    return (excess - x * xp.sum(moment, axis=-1)) / xp.sum(moment * kernel, axis=-1)


def traced_root(dim: Any, excess: Any, backend: Backend) -> Any:
    """The root of Theorem 1 for a 0-d tensor of a framework, in its own operations, for compiled graphs.

    Newton's last steps carry the derivatives: the first of two gives the first derivative of the root, both the second.
    """
    xp, power = backend.xp, dim - 1.0
    # The rule of `sphere_rule` with the nodes that d = 2 needs, which serve every d.
    u = backend.beside(_NODES, excess) * (19.0 + 2.05 * power) ** -0.5
    growth = xp.exp(u)
    sinh = (growth - 1.0 / growth) * 0.5
    weight = xp.exp(xp.log1p(sinh * sinh) * (-0.5 * power))
    v = 1.0 / (1.0 + 1.0 / (growth * growth))
    weight = v * weight * (2.0 / xp.sum(weight, axis=-1))
    fixed = backend.constant(excess)
    x = _first_guess(dim, fixed)
    for _ in range(4):  # from a quarter of the root, at most, to its last digit
        x = x + _newton_step(x, fixed, v, weight, xp)
    x = backend.constant(x)
    for _ in range(2):
        x = x + _newton_step(x, excess, v, weight, xp)
    return x


def _solve_by_polynomial(dim: Floats, excess: Floats) -> Floats:
    """As Newton, for many values of mu in one dimension (dim has shape (1,)).

    The relative correction of the first guess is a smooth function of mu: a polynomial through Newton's roots at
    Chebyshev points in (1 + 16 mu)^(-1/2), the variable in which the root is rational for d = 2, reproduces it to
    rounding. That is verified at points between; where it fails (odd d over a very wide range of mu), Newton takes
    over.
    """

    def variable(excess: Floats) -> Floats:
        return 1.0 / np.sqrt(9.0 + 8.0 * excess)

    def correction(w: Floats) -> Floats:
        at = np.maximum((1.0 / (w * w) - 9.0) / 8.0, lowest)  # rounding must not leave the interval
        ratio: Floats = _solve_by_newton(dim, at) / _first_guess(dim, at)
        return ratio - 1.0

    lowest, highest = np.min(excess), np.max(excess)
    domain = variable(np.array([highest, lowest]))
    if domain[1] - domain[0] > 1e-9:
        polynomial = Chebyshev.interpolate(correction, _POLYNOMIAL_SIZE - 1, domain=domain)
        between = domain[0] + (domain[1] - domain[0]) * (0.5 - 0.5 * np.cos(np.pi * np.linspace(0, 1, 40)))
        if np.max(np.abs(polynomial(between) - correction(between))) < 2e-15:
            found: Floats = _first_guess(dim, excess) * (1.0 + polynomial(variable(excess)))
            return found
    return _solve_by_newton(dim, excess)
