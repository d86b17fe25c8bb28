"""Eccentric regularization: the loss, its gradient, and the theory behind it, for any array library.

The loss     eccentric_loss, eccentric_loss_and_grad, pair_kernel, repulsive_force
The latents  spectrum, LatentSpectrum, align, Alignment, mean_angle
Others       hyperspherical_energy, hyperspherical_energy_and_grad, uniformity, inverse_multiquadric_mmd
CoMHE        compressive_energy, RandomProjection, GroupProjection; learned: LearnedProjection, init_projection,
             update_projection, AnglePreservingProjection, AdversarialProjection
The engine   pair_sum, pair_sum_and_grad, pair_sum_hvp, PairKernel, LogarithmicKernel, InverseMultiquadricKernel,
             InverseMultiquadricMixture, GaussianKernel, RieszKernel, AngularKernel, AntipodalKernel
The theory   kernel_scale, stationary_radius, sphere_loss, loss_floor, critical_mu, sphere_is_minimizer
Proofs       enclose_radius, enclose_critical_mu, theorem1_integral

"The paper" is Xuefeng Li and Alan Blair, Eccentric Regularization: Minimizing Hyperspherical Energy without explicit
projection, IJCNN 2022.
"""

from importlib.metadata import version

from eccentric_core.energies.compressive import compressive_energy, init_projection, update_projection
from eccentric_core.energies.discrepancy import inverse_multiquadric_mmd
from eccentric_core.energies.eccentric import eccentric_loss, eccentric_loss_and_grad, pair_kernel, repulsive_force
from eccentric_core.energies.hyperspherical import hyperspherical_energy, hyperspherical_energy_and_grad, uniformity
from eccentric_core.energies.projections import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
)
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
from eccentric_core.engine.pairs import pair_sum, pair_sum_and_grad, pair_sum_hvp
from eccentric_core.spectrum import Alignment, LatentSpectrum, align, mean_angle, spectrum
from eccentric_core.theory.certificate import enclose_critical_mu, enclose_radius, theorem1_integral
from eccentric_core.theory.floor import loss_floor, sphere_loss
from eccentric_core.theory.minimizer import critical_mu, sphere_is_minimizer
from eccentric_core.theory.radius import stationary_radius
from eccentric_core.theory.scale import kernel_scale

__version__ = version("eccentric")

__all__ = [
    "AdversarialProjection",
    "Alignment",
    "AnglePreservingProjection",
    "AngularKernel",
    "AntipodalKernel",
    "GaussianKernel",
    "GroupProjection",
    "InverseMultiquadricKernel",
    "InverseMultiquadricMixture",
    "LatentSpectrum",
    "LearnedProjection",
    "LogarithmicKernel",
    "PairKernel",
    "RandomProjection",
    "RieszKernel",
    "align",
    "compressive_energy",
    "critical_mu",
    "eccentric_loss",
    "eccentric_loss_and_grad",
    "enclose_critical_mu",
    "enclose_radius",
    "hyperspherical_energy",
    "hyperspherical_energy_and_grad",
    "init_projection",
    "inverse_multiquadric_mmd",
    "kernel_scale",
    "loss_floor",
    "mean_angle",
    "pair_kernel",
    "pair_sum",
    "pair_sum_and_grad",
    "pair_sum_hvp",
    "repulsive_force",
    "spectrum",
    "sphere_is_minimizer",
    "sphere_loss",
    "stationary_radius",
    "theorem1_integral",
    "uniformity",
    "update_projection",
]
