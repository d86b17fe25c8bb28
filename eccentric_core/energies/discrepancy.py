"""The discrepancy between a batch and a sample of a prior: the regularizer of WAE-MMD, on the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eccentric_core.backend import Backend, backend_of
from eccentric_core.checks import check_bandwidth, check_batch, check_number, check_pair, compute_dtype, is_number
from eccentric_core.engine.kernels import InverseMultiquadricMixture
from eccentric_core.engine.pairs import PairSum, mean_weights, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core.checks import Array

# Those of the official code.
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def inverse_multiquadric_mmd(
    z: Array, prior: Array, *, scales: Sequence[float] = SCALES, prior_variance: float = 1.0
) -> Array:
    """The squared maximum mean discrepancy between two samples, estimated without bias, as in WAE-MMD.

        1/(n(n-1)) sum_{i != j} k(z_i, z_j) + 1/(m(m-1)) sum_{i != j} k(p_i, p_j) - 2/(n m) sum_{i,j} k(z_i, p_j)

        k(x, y) = sum_s C_s / (C_s + |x - y|^2),   C_s = 2 s d sigma^2

    It draws a batch to a prior: `loss = reconstruction + lam * inverse_multiquadric_mmd(z, prior)`. It is about 0 for
    samples of one distribution, and then as often negative as positive.

    Args:
        z: latent vectors of shape (..., n, d) with n >= 2, of any library. Leading axes are separate batches.
        prior: a sample of the prior, drawn anew for every batch, of shape (..., m, d) with m >= 2; leading axes, dtype
            and library are those of z.
        scales: s, positive numbers.
        prior_variance: sigma^2, the variance of one coordinate of the prior, a number.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, float32 for float32, float16 and bfloat16. It
        has the derivatives of its framework with respect to both samples.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: NaN and inf in the rows
            propagate to the result.

    It is a difference of means that are at most the number of scales: the error is eps times that, not eps times the
    result. Time is O((n + m)^2 d), memory O((n + m) d).

    Source: I. Tolstikhin, O. Bousquet, S. Gelly and B. Schoelkopf, Wasserstein Auto-Encoders, ICLR 2018, algorithm 2,
    with the scales of its official code. The cross term has i = j too.

    >>> rng = np.random.default_rng(0)
    >>> z, prior = 1.5 * rng.standard_normal((100, 8)), rng.standard_normal((100, 8))
    >>> [float(inverse_multiquadric_mmd(rows, prior).round(4)) for rows in (z, z / 1.5)]
    [0.2047, -0.0116]
    """
    backend = backend_of(z)
    if backend_of(prior, "prior") is not backend:
        raise TypeError(f"prior must be of the library of z, got {type(prior).__name__} beside {type(z).__name__}")
    d = check_batch(z)[1]
    check_pair(z, prior, d, check_batch(prior, "prior")[1], ("z", "prior"))
    dtype = compute_dtype(z, "z")
    if not isinstance(scales, list | tuple):
        if not np.iterable(scales):
            raise TypeError(
                f"scales must be a sequence of positive numbers, got {scales!r}; for one scale give ({scales},)"
            )
        scales = tuple(scales)
    if not scales:
        raise ValueError("scales must be some positive numbers, got none; the default has those of WAE-MMD")
    for number, name in (*((s, "every one of scales") for s in scales), (prior_variance, "prior_variance")):
        check_number(number, name, "a number")
        check_bandwidth(float(number), dtype, name)
    bandwidth = 2.0 * d * float(prior_variance)
    check_bandwidth(bandwidth, dtype, "prior_variance times 2 d")
    # Wide, as the slopes of close pairs are up to 1/s, far above those of z and a far prior, and cancel.
    f = PairSum(InverseMultiquadricMixture(tuple(float(s) for s in scales)), wide=True)
    return backend.run(_discrepancy, z, prior, bandwidth, f=f)


def _discrepancy(backend: Backend, z: Array, prior: Array, bandwidth: Any, *, f: PairSum) -> Array:
    dtype = getattr(backend.xp, compute_dtype(z, "z"))
    z, prior = (backend.xp.astype(rows, dtype, copy=False) for rows in (z, prior))
    (by_n, by_z), (by_m, by_prior) = (mean_weights(backend.rows(rows), backend) for rows in (z, prior))

    def mean(x: Array, y: Array | None, weight: Any) -> Array:
        return backend.differentiable(f, x, y, None, bandwidth, None, spread(weight, z, backend))

    across = by_n * by_m
    if not is_number(across):  # where one set has no pairs, nothing is left of the other
        both = backend.xp.astype(across > 0.0, across.dtype)
        by_z, by_prior = by_z * both, by_prior * both
    return mean(z, None, by_z) + mean(prior, None, by_prior) + mean(z, prior, -2.0 * across)
