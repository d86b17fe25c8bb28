"""Eccentric regularization: the loss, its gradient, and the theory behind it, for every framework.

The loss     eccentric_loss, eccentric_loss_and_grad, pair_kernel, repulsive_force
The latents  spectrum, LatentSpectrum, align, Alignment, mean_angle
Others       hyperspherical_energy, hyperspherical_energy_and_grad, uniformity, inverse_multiquadric_mmd
CoMHE        compressive_energy, RandomProjection, GroupProjection; learned: LearnedProjection, init_projection,
             update_projection, AnglePreservingProjection, AdversarialProjection
The engine   pair_sum, pair_sum_and_grad, pair_sum_hvp, PairKernel, LogarithmicKernel, InverseMultiquadricKernel,
             InverseMultiquadricMixture, GaussianKernel, RieszKernel, AngularKernel, AntipodalKernel
The theory   kernel_scale, stationary_radius, sphere_loss, loss_floor, critical_mu, sphere_is_minimizer
Proofs       enclose_radius, enclose_critical_mu, theorem1_integral

The type of an array decides who computes: NumPy, PyTorch, JAX, TensorFlow, MLX, or another library that follows the
array API standard. A framework is imported when the first of its arrays arrives.

"The paper" is Xuefeng Li and Alan Blair, Eccentric Regularization: Minimizing Hyperspherical Energy without explicit
projection, IJCNN 2022.
"""

from importlib.metadata import version

# A compiler that follows the first call cannot follow how an empty table of backends gets its first entry.
import eccentric_core.numpy_backend  # noqa: F401
from eccentric_core import energies, engine, theory
from eccentric_core.energies import *  # noqa: F403
from eccentric_core.engine import *  # noqa: F403
from eccentric_core.spectrum import Alignment, LatentSpectrum, align, mean_angle, spectrum
from eccentric_core.theory import *  # noqa: F403

__version__ = version("eccentric")

__all__ = ["Alignment", "LatentSpectrum", "align", "mean_angle", "spectrum"]
__all__ += energies.__all__
__all__ += engine.__all__
__all__ += theory.__all__
