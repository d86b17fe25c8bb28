"""Eccentric regularization: the loss, its gradient, and the theory behind it, for any array library.

The loss     eccentric_loss, eccentric_loss_and_grad, pair_kernel, repulsive_force
The engine   pair_sum, pair_sum_and_grad, pair_sum_hvp, PairKernel, LogarithmicKernel, InverseMultiquadricKernel
The theory   kernel_scale, stationary_radius, sphere_loss, loss_floor, critical_mu, sphere_is_minimizer
Proofs       enclose_radius, enclose_critical_mu, theorem1_integral

"The paper" is Xuefeng Li and Alan Blair, Eccentric Regularization: Minimizing Hyperspherical Energy without explicit
projection, IJCNN 2022.
"""

from importlib.metadata import version

from eccentric_core.certificate import enclose_critical_mu, enclose_radius, theorem1_integral
from eccentric_core.floor import loss_floor, sphere_loss
from eccentric_core.kernels import InverseMultiquadricKernel, LogarithmicKernel, PairKernel
from eccentric_core.loss import eccentric_loss, eccentric_loss_and_grad, pair_kernel, repulsive_force
from eccentric_core.minimizer import critical_mu, sphere_is_minimizer
from eccentric_core.pairs import pair_sum, pair_sum_and_grad, pair_sum_hvp
from eccentric_core.radius import stationary_radius
from eccentric_core.scale import kernel_scale

__version__ = version("eccentric")

__all__ = [
    "InverseMultiquadricKernel",
    "LogarithmicKernel",
    "PairKernel",
    "critical_mu",
    "eccentric_loss",
    "eccentric_loss_and_grad",
    "enclose_critical_mu",
    "enclose_radius",
    "kernel_scale",
    "loss_floor",
    "pair_kernel",
    "pair_sum",
    "pair_sum_and_grad",
    "pair_sum_hvp",
    "repulsive_force",
    "sphere_is_minimizer",
    "sphere_loss",
    "stationary_radius",
    "theorem1_integral",
]
