"""The engine: sums over pairs of a function of squared distances, with their first and second derivatives."""

from eccentric_core.engine.kernels import (
    AngularKernel,
    AntipodalKernel,
    GaussianKernel,
    InverseMultiquadricKernel,
    InverseMultiquadricMixture,
    LogarithmicKernel,
    PairKernel,
    RieszKernel,
)
from eccentric_core.engine.sums import pair_sum, pair_sum_and_grad, pair_sum_hvp

__all__ = [
    "AngularKernel",
    "AntipodalKernel",
    "GaussianKernel",
    "InverseMultiquadricKernel",
    "InverseMultiquadricMixture",
    "LogarithmicKernel",
    "PairKernel",
    "RieszKernel",
    "pair_sum",
    "pair_sum_and_grad",
    "pair_sum_hvp",
]
