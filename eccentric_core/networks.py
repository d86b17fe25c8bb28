"""How a network is regularised by hyperspherical energies: what the papers do with options layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_core.energies.projections import AdversarialProjection, AnglePreservingProjection, network_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.energies.hyperspherical import EnergyOptions

# Images have one to four channels.
_CHANNELS_OF_IMAGES = 4


@dataclass(frozen=True)
class Policy:
    """What is done with the layers of a network, as in the papers.

    Args:
        options: the energy of hidden layers; the output layer never has the half-space.
        weight: of a hidden layer; None for 1, or 0.1 for angular energies of s > 0.
        output_weight: that of the output layer in units of it.
        projection: of CoMHE; None for MHE. A layer of images, and one whose neurons have no more inputs than a
            projection has dimensions, is not projected.
        energy: a function of rows (n, D) in the place of all this.
    """

    options: EnergyOptions
    weight: float | None = None
    output_weight: float = 10.0
    projection: Any = None
    energy: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        network_rule(self.projection)
        for name, value in (("weight", self.weight), ("output_weight", self.output_weight)):
            if value is None and name == "weight":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}")
        if self.energy is not None and (not callable(self.energy) or self.projection is not None):
            raise ValueError(f"energy must be a function of rows, without a projection, got {self.energy!r}")

    @property
    def learns(self) -> bool:
        """Whether the projection is one that is learned."""
        return isinstance(network_rule(self.projection), AnglePreservingProjection | AdversarialProjection)

    def for_layer(self, inputs: int, *, output: bool, channels: int | None = None) -> tuple[float, EnergyOptions, Any]:
        """The weight, the energy and the projection, if any, of a layer.

        Args:
            inputs: of a neuron.
            output: it is the last layer.
            channels: of what a convolution sees.
        """
        weight = (0.1 if self.options.angular and self.options.s > 0 else 1.0) if self.weight is None else self.weight
        options = self.options._replace(half_space=self.options.half_space and not output)
        projection = network_rule(self.projection)
        seen = channels is not None and channels <= _CHANNELS_OF_IMAGES
        if seen or inputs <= getattr(projection, "dim", 0):
            projection = None
        return weight * (self.output_weight if output else 1.0), options, projection
