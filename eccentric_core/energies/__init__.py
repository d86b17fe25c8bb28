"""The energies, one file each: every public function is defined once, for every framework."""

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

__all__ = [
    "AdversarialProjection",
    "AnglePreservingProjection",
    "GroupProjection",
    "LearnedProjection",
    "RandomProjection",
    "compressive_energy",
    "eccentric_loss",
    "eccentric_loss_and_grad",
    "hyperspherical_energy",
    "hyperspherical_energy_and_grad",
    "init_projection",
    "inverse_multiquadric_mmd",
    "pair_kernel",
    "repulsive_force",
    "uniformity",
    "update_projection",
]
