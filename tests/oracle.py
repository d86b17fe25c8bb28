"""What the engine is measured against: direct sums over pairs, in float64 and in mpmath."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps

import mpmath
import numpy as np


def once(function):
    """The function, computed once for the same arrays and numbers: every mode of a process is measured against it."""
    kept = {}

    @wraps(function)
    def remembered(*arguments, **options):
        arrays = [np.asarray(a) if hasattr(a, "shape") else a for a in (*arguments, *options.items())]
        key = tuple((a.tobytes(), a.shape, a.dtype.str) if isinstance(a, np.ndarray) else a for a in arrays)
        if key not in kept:
            kept[key] = function(*arguments, **options)
            for result in kept[key] if isinstance(kept[key], tuple) else (kept[key],):
                if isinstance(result, np.ndarray):
                    result.flags.writeable = False
        return kept[key]

    return remembered


@once
def loss_and_grad(z, mu, scale):
    """The loss and the gradient in float64 from the n x n x d array of differences: no cancellation anywhere."""
    z = np.asarray(z, dtype=np.float64)
    n = z.shape[0]
    difference = z[:, None, :] - z[None, :, :]
    t = np.sum(difference**2, axis=-1) / scale
    loss = np.sum(z**2) / n - mu * scale * np.sum(np.log1p(t)) / (n * (n - 1))
    pull = np.sum(difference / (1 + t)[:, :, None], axis=1)
    return loss, 2 / n * z - 4 * mu / (n * (n - 1)) * pull


@once
def loss_hvp(z, u, mu, scale):
    """The Hessian of the loss times u in float64, row by row.

    H u_i = 2/n u_i - 4 mu/(n(n-1)) sum_j [(u_i - u_j)/(1 + t) - (2/M) <z_i - z_j, u_i - u_j> (z_i - z_j)/(1 + t)^2]
    """
    z, u = np.asarray(z, np.float64), np.asarray(u, np.float64)
    n = z.shape[0]
    result = 2 / n * u
    for i in range(n):
        of_z, of_u = z[i] - z, u[i] - u
        w = 1 / (1 + np.sum(of_z**2, axis=1, keepdims=True) / scale)
        along = np.sum(of_z * of_u, axis=1, keepdims=True)
        result[i] -= 4 * mu / (n * (n - 1)) * np.sum(w * of_u - 2 / scale * along * w**2 * of_z, axis=0)
    return result


def contract_errors(loss, grad, z, mu, scale):
    """The errors of a loss and a gradient in the norms of the accuracy contract."""
    true_loss, true_grad = loss_and_grad(z, mu, scale)
    size = max(abs(true_loss), float(np.mean(np.sum(np.asarray(z, np.float64) ** 2, axis=1))))
    difference = np.linalg.norm(np.asarray(grad, np.float64) - true_grad)
    return (
        abs(float(loss) - true_loss) / size if size else abs(float(loss)),
        difference / np.linalg.norm(true_grad) if np.any(true_grad) else difference,
    )


@dataclass(frozen=True)
class Quadratic:
    """A kernel that the package does not know, phi(t) = t + t^2, as a user would write it."""

    def value(self, t, xp):  # noqa: ARG002
        return t + t * t

    def slope(self, t, xp):  # noqa: ARG002
        return 1.0 + 2.0 * t

    def second_derivative(self, t, xp):
        return 2.0 * xp.ones_like(t)


@dataclass(frozen=True)
class Root:
    """phi(t) = sqrt(t), the distance itself: its derivatives are infinite at 0."""

    def value(self, t, xp):
        return xp.sqrt(t)

    def slope(self, t, xp):
        return 0.5 / xp.sqrt(t)

    def second_derivative(self, t, xp):
        return -0.25 / (t * xp.sqrt(t))


@once
def loss_and_grad_mp(z, mu, scale, digits=40):
    """The same in mpmath, as exact Python objects of that many digits."""
    with mpmath.workdps(digits):
        z = [[mpmath.mpf(float(value)) for value in row] for row in z]
        mu, scale, n, d = mpmath.mpf(mu), mpmath.mpf(scale), len(z), len(z[0])
        loss = mpmath.fsum(value**2 for row in z for value in row) / n
        grad = [[2 * value / n for value in row] for row in z]
        for i in range(n):
            for j in range(n):
                t = mpmath.fsum((a - b) ** 2 for a, b in zip(z[i], z[j], strict=True)) / scale
                loss -= mu * scale * mpmath.log1p(t) / (n * (n - 1))
                for k in range(d):
                    grad[i][k] -= 4 * mu / (n * (n - 1)) * (z[i][k] - z[j][k]) / (1 + t)
        return loss, grad


def kernel_sum(x, y, value, slope, bandwidth):
    """The sum over all i and j of value(D_ij / bandwidth) and its gradients, in float64."""
    difference = np.asarray(x, np.float64)[:, None, :] - np.asarray(y, np.float64)[None, :, :]
    t = np.sum(difference**2, axis=-1) / bandwidth
    pull = 2 / bandwidth * slope(t)[:, :, None] * difference
    return np.sum(value(t)), np.sum(pull, axis=1), -np.sum(pull, axis=0)


@once
def kernel_sum_and_gradients(kernel, xp, x, y, e, h, a=None, b=1.0):
    """a times the sum over rows of |x_i|^2, and b times that over pairs of phi((|x_i - y_j|^2 + e_i + e_j) / h).

    With the gradients with respect to x, y, e, h, a and b, of which those of a None are None, in extended precision,
    pair by pair.

    One set has the pairs i != j in both orders, and alone may have e. The namespace is what the kernel computes with.
    """
    x, h = np.asarray(x, np.longdouble), np.asarray(h, np.longdouble)[..., None, None]
    b, confined = np.asarray(b, np.longdouble), np.asarray(0.0 if a is None else a, np.longdouble)
    other = x if y is None else np.asarray(y, np.longdouble)
    added = np.zeros_like(x[..., :1]) if e is None else np.asarray(e, np.longdouble)
    difference = x[..., :, None, :] - other[..., None, :, :]
    t = np.sum(difference**2, axis=-1)
    t = (t if y is not None else t + added + np.swapaxes(added, -1, -2)) / h
    pairs = np.ones(t.shape[-2:], bool) if y is not None else ~np.eye(t.shape[-1], dtype=bool)
    value, slope = (np.where(pairs, f(t.copy(), xp), 0) for f in (kernel.value, kernel.slope))
    w = slope / h
    pull = 2 * w[..., None] * difference
    total, square, rows = np.sum(value, axis=(-2, -1)), np.sum(x**2, axis=(-2, -1)), b[..., None, None]
    return (
        confined * square + b * total,
        rows * np.sum(pull, axis=-2) * (2 if y is None else 1) + 2 * confined[..., None, None] * x,
        None if y is None else -rows * np.sum(pull, axis=-3),
        None if e is None else 2 * rows * np.sum(w, axis=-1, keepdims=True),
        -b * np.sum(w * t, axis=(-2, -1)),
        None if a is None else square,
        total,
    )


def hard_cases(n=200, d=16, seed=0):
    """The batches of the accuracy contract, by name."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, d))
    cases = {f"scale {scale:g}": z * scale for scale in (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3)}
    cases["offset 1000"] = z + 1000.0
    cases["offset 1000, small"] = 1e-3 * (z + 1000.0)
    cases["offset in one coordinate"] = z + 1000.0 * np.eye(d)[0]
    cases["duplicates"] = np.repeat(z[: n // 4], 4, axis=0)
    cases["all equal"] = np.tile(z[:1], (n, 1))
    cases["all equal, far"] = np.tile(z[:1] + 1000.0, (n, 1))
    cases["all zero"] = np.zeros((n, d))
    cases["outlier"] = np.where(np.arange(n)[:, None] == 0, z + 1e4 * np.eye(d)[0], z)
    cases["outlier in every coordinate"] = np.where(np.arange(n)[:, None] == 0, z + 1e4, z)
    cases["on the sphere"] = z / np.linalg.norm(z, axis=1, keepdims=True) * np.sqrt(d)
    cases["two rows"] = z[:2]
    return cases


@once
def hyperspherical(w, s=2.0, *, half_space=False, angular=False, normalization="paper"):
    """The hyperspherical energy as it is published, pair by pair, in extended precision.

    Paper: the sum of f_s over i != j by n(n-1), f_s(d) = d^-s or log(1/d), d^2 = 2 - 2 cos, or the angle for d.
    Official code: rows by sqrt(|w|^2 + 1e-4); the mean over i < j of (2 - 2c)^(-s/2) or -log(2 - 2c); of the angle
    arccos(c)/pi + 1e-4.
    """
    w = np.asarray(w, np.longdouble).reshape(len(w), -1)
    official, n = normalization == "official", len(w)
    u = w / np.sqrt(np.sum(w * w, axis=1, keepdims=True) + (np.longdouble("1e-4") if official else 0))
    u = np.concatenate([u, -u]) if half_space else u
    i, j = np.triu_indices(len(u), 1)
    c = np.sum(u[i] * u[j], axis=1)
    if not official:
        c = np.where(half_space & (j == i + n), -1, c)  # of a row and its mirror image, where the arc cosine is steep
    if angular:
        angle = np.arccos(np.clip(c, -1, 1))
        angle = angle / np.arccos(np.longdouble(-1)) + np.longdouble("1e-4") if official else angle
        return np.mean(-np.log(angle) if s == 0 else angle ** -np.longdouble(s))
    if s == 0:
        return np.mean(-np.log(2 - 2 * c)) * (1 if official else np.longdouble(0.5))
    return np.mean((2 - 2 * c) ** (-np.longdouble(s) / 2))


def along(f, x, u, step=1e-6):
    """The derivative of a function of extended precision at x along u."""
    x, u = np.asarray(x, np.longdouble), np.asarray(u, np.longdouble)
    return (f(x + step * u) - f(x - step * u)) / (2 * step)


def slope_at_zero(f, step=3e-4):
    """The derivative of a smooth function of a number at 0, by the central difference of order 8."""
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(w * (f(k * step) - f(-k * step)) for k, w in enumerate(weights, 1)) / step
