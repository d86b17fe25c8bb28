"""Kernels: the energy of a pair as a function of its squared distance in units of a bandwidth.

An energy of the engine (`eccentric_core.pairs`) is the sum over pairs of phi(t), t = D/h. A kernel is phi with its
first two derivatives and h. They are written with the functions of the array API standard, from the namespace `xp`, so
that one kernel serves every library and every framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from eccentric_core._checks import Array


class PairKernel(Protocol):
    """phi(t) for t = D/h >= 0. Make it a frozen dataclass: frameworks compile a sweep once for every kernel.

    Two more things may be there, for speed alone. `vanishes_at_zero = True` in its class says that phi(0) = 0 and that
    phi'(0) is finite: a row and itself then need not be told apart from other pairs. A method `value_and_slope(t, xp)`
    gives both at once, and may overwrite t where arrays can be changed.
    """

    @property
    def bandwidth(self) -> float:
        """h, a positive number in the squared units of the latents."""
        ...

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t), of the shape of t."""
        ...

    def slope(self, t: Array, xp: Any) -> Array:
        """phi'(t), of the shape of t."""
        ...

    def curvature(self, t: Array, xp: Any) -> Array:
        """phi''(t), of the shape of t; only second derivatives of the sum ask for it."""
        ...


@dataclass(frozen=True)
class LogarithmicKernel:
    """phi(t) = log(1 + t), the repulsion of the eccentric loss, where the bandwidth is M."""

    bandwidth: float
    vanishes_at_zero: ClassVar[bool] = True

    def value(self, t: Array, xp: Any) -> Array:
        """log(1 + t), exact also where 1 + t rounds to 1."""
        return xp.log1p(t)

    def slope(self, t: Array, xp: Any) -> Array:
        """1/(1 + t)."""
        return xp.reciprocal(1.0 + t)

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:
        """Both; t may be overwritten."""
        value = xp.log1p(t)
        t += 1.0
        return value, xp.reciprocal(t)

    def curvature(self, t: Array, xp: Any) -> Array:
        """-1/(1 + t)^2."""
        slope = self.slope(t, xp)
        return -slope * slope


@dataclass(frozen=True)
class InverseMultiquadricKernel:
    """phi(t) = 1/(1 + t), the kernel of WAE-MMD, where the bandwidth is C."""

    bandwidth: float

    def value(self, t: Array, xp: Any) -> Array:
        """1/(1 + t)."""
        return xp.reciprocal(1.0 + t)

    def slope(self, t: Array, xp: Any) -> Array:
        """-1/(1 + t)^2."""
        value = self.value(t, xp)
        return -value * value

    def curvature(self, t: Array, xp: Any) -> Array:
        """2/(1 + t)^3."""
        value = self.value(t, xp)
        return 2.0 * value * value * value


@dataclass(frozen=True)
class InverseMultiquadricMixture:
    """phi(t) = sum over s of s/(s + t), inverse multiquadric kernels of the bandwidths s h, in one sweep."""

    bandwidth: float
    scales: tuple[float, ...]

    def value(self, t: Array, xp: Any) -> Array:  # noqa: ARG002
        """The sum of s/(s + t)."""
        return sum(s / (s + t) for s in self.scales)

    def slope(self, t: Array, xp: Any) -> Array:
        """The sum of -s/(s + t)^2."""
        return self.value_and_slope(t, xp)[1]

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:  # noqa: ARG002
        """Both, from the same quotients."""
        value, slope = 0.0, 0.0
        for s in self.scales:
            one = s / (s + t)
            value += one
            slope -= one * one * (1.0 / s)
        return value, slope

    def curvature(self, t: Array, xp: Any) -> Array:  # noqa: ARG002
        """The sum of 2 s/(s + t)^3."""
        return sum((s / (s + t)) ** 3 * (2.0 / (s * s)) for s in self.scales)
