"""The theory of the loss: its scale, the stationary sphere, lower bounds, and proofs in interval arithmetic."""

from eccentric_core.theory.certificate import enclose_critical_mu, enclose_radius, theorem1_integral
from eccentric_core.theory.floor import loss_floor, sphere_loss
from eccentric_core.theory.minimizer import critical_mu, sphere_is_minimizer
from eccentric_core.theory.radius import stationary_radius
from eccentric_core.theory.scale import kernel_scale

__all__ = [
    "critical_mu",
    "enclose_critical_mu",
    "enclose_radius",
    "kernel_scale",
    "loss_floor",
    "sphere_is_minimizer",
    "sphere_loss",
    "stationary_radius",
    "theorem1_integral",
]
