"""Eccentric regularization for PyTorch: the functions of `eccentric_core`, and modules.

Given tensors, these functions have autograd to any order, torch.func, torch.compile and torch.distributed (`group=`).

eccentric_loss, eccentric_loss_and_grad         the loss of a batch of latent vectors
EccentricLoss                                   the same as a module
pair_sum, pair_sum_and_grad, pair_sum_hvp       the sum over pairs that it is made of, for any kernel
hyperspherical_energy, uniformity               the energy of directions, of MHE, for weights and features
compressive_energy                              the energy of projected neurons, of CoMHE; init_projection,
                                                update_projection; CompressiveEnergy, the module that learns
HypersphericalRegularizer                       what MHE or CoMHE adds to the loss of a network
inverse_multiquadric_mmd                        the discrepancy between a batch and a sample of a prior, of WAE-MMD

>>> import torch
>>> z = torch.randn(100, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
>>> loss = eccentric_loss(z)
>>> loss.backward()
>>> round(loss.item(), 3), z.grad.shape
(-2.624, torch.Size([100, 8]))
"""

import eccentric_torch.backend  # noqa: F401  registers the operators of exported programs
from eccentric_core import energies, engine
from eccentric_core.energies import *  # noqa: F403
from eccentric_core.engine import *  # noqa: F403
from eccentric_torch.modules import CompressiveEnergy, EccentricLoss, HypersphericalRegularizer

__all__ = ["CompressiveEnergy", "EccentricLoss", "HypersphericalRegularizer"]
__all__ += energies.__all__
__all__ += engine.__all__
