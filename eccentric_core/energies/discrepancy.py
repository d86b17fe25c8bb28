"""The discrepancy between a batch and a sample of a prior: the regularizer of WAE-MMD, on the engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from eccentric_core.checks import check_bandwidth, check_batch, compute_dtype
from eccentric_core.engine.kernels import InverseMultiquadricMixture
from eccentric_core.engine.pairs import flowing, pair_sum
from eccentric_core.engine.sweep import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core.checks import Array

# Those of the official code.
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@flowing
def inverse_multiquadric_mmd(
    z: Array, prior: Array, *, scales: Sequence[float] = SCALES, prior_variance: float = 1.0, xp: Any = None
) -> Array:
    """The squared maximum mean discrepancy between two samples, estimated without bias, as in WAE-MMD.

        1/(n(n-1)) sum_{i != j} k(z_i, z_j) + 1/(m(m-1)) sum_{i != j} k(p_i, p_j) - 2/(n m) sum_{i,j} k(z_i, p_j)

        k(x, y) = sum_s C_s / (C_s + |x - y|^2),   C_s = 2 s d sigma^2

    It draws a batch to a prior: `loss = reconstruction + lam * inverse_multiquadric_mmd(z, prior)`. It is about 0 for
    samples of one distribution, and then as often negative as positive.

    Args:
        z: latent vectors of shape (..., n, d) with n >= 2, of any library that follows the array API standard. Leading
            axes are separate batches.
        prior: a sample of the prior, drawn anew for every batch, of shape (..., m, d) with m >= 2; leading axes, dtype
            and library are those of z.
        scales: s, positive numbers.
        prior_variance: sigma^2, the variance of one coordinate of the prior.
        xp: the array namespace; None takes it from z.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, float32 for float32, float16 and bfloat16.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: NaN and infinity in the
            rows are not errors and appear in the result.

    It is a difference of means that are at most the number of scales: the error is eps times that, not eps times the
    result. Time is O((n + m)^2 d), memory O((n + m) d).

    Source: I. Tolstikhin, O. Bousquet, S. Gelly and B. Schoelkopf, Wasserstein Auto-Encoders, ICLR 2018, algorithm 2,
    with the scales of its official code. The cross term has i = j too.

    >>> rng = np.random.default_rng(0)
    >>> z, prior = 1.5 * rng.standard_normal((100, 8)), rng.standard_normal((100, 8))
    >>> [float(inverse_multiquadric_mmd(rows, prior).round(4)) for rows in (z, z / 1.5)]
    [0.2047, -0.0116]
    """
    kernel = mixture((z, prior), scales, prior_variance)
    xp = array_api_compat.array_namespace(z, prior) if xp is None else xp
    return discrepancy(z, prior, partial(pair_sum, kernel=kernel, xp=xp), Driver(xp))


def discrepancy(z: Array, prior: Array, sums: Callable[..., Array], driver: Driver) -> Array:
    """The discrepancy from sums(x) and sums(x, y) over pairs, which bring their derivatives with them.

    Sums should be wide: the slopes of close pairs cancel, and are up to 1/s, far above those of z and a far prior.
    """
    dtype = getattr(driver.xp, compute_dtype(z, "z"))
    z, prior = (driver.xp.astype(rows, dtype, copy=False) for rows in (z, prior))
    n, m = driver.rows(z), driver.rows(prior)
    across = sums(z, prior) * (2.0 / (n * m))
    return sums(z) / (n * (n - 1.0)) + sums(prior) / (m * (m - 1.0)) - across


def mixture(sets: Sequence[Array], scales: Any, prior_variance: Any) -> InverseMultiquadricMixture:
    """Check the arguments of a discrepancy by their static facts; return the kernel of sets like these."""
    z, prior = sets[0], sets[-1]
    (_, d), (_, prior_d) = check_batch(z, "z"), check_batch(prior, "prior")
    dtype = compute_dtype(z, "z")
    known = zip((*z.shape[:-2], d), (*prior.shape[:-2], prior_d), strict=False)
    if len(z.shape) != len(prior.shape) or any(None not in pair and pair[0] != pair[1] for pair in known):
        raise ValueError(
            f"prior must have the leading axes and the dimension of z, "
            f"got {tuple(prior.shape)} beside {tuple(z.shape)}; draw it in the shape of z"
        )
    if compute_dtype(prior, "prior") != dtype:
        raise TypeError(f"prior must have the dtype of z, got {prior.dtype} beside {z.dtype}; convert one of them")
    if not np.iterable(scales):
        raise TypeError(
            f"scales must be a sequence of positive numbers, got {scales!r}; for one scale give ({scales},)"
        )
    scales = tuple(scales)
    if not scales:
        raise ValueError("scales must be some positive numbers, got none; the default has those of WAE-MMD")
    for s in scales:
        check_bandwidth(s, dtype, "every one of scales")
    check_bandwidth(prior_variance, dtype, "prior_variance")
    bandwidth = 2.0 * int(d) * float(prior_variance)  # compilers may have symbols for them
    check_bandwidth(bandwidth, dtype, "prior_variance times 2 d")
    return InverseMultiquadricMixture(bandwidth, tuple(float(s) for s in scales))
