"""Kernels: the energy of a pair as a function phi(t) of its squared distance t.

A kernel is phi with its first two derivatives, written with the functions of a namespace `xp`, so that one kernel
serves every library and every framework. It knows no bandwidth: the rows are scaled before their distances are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from eccentric_core.checks import Array


class PairKernel(Protocol):
    """phi(t) for t >= 0. Make it a frozen dataclass of numbers: compilers take those as arguments.

    Three more things may be there, for speed alone. `vanishes_at_zero = True` in its class says that phi(0) = 0 and
    that phi'(0) is finite: a row and itself then need not be told apart from other pairs. A method `value_and_slope(t,
    xp)` gives both at once, and may overwrite t where arrays can be changed. `in_place = True` says that this method
    makes one array and no more: more rows then have one matrix of all distances.
    """

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t), of the shape of t."""
        ...

    def slope(self, t: Array, xp: Any) -> Array:
        """phi'(t), of the shape of t."""
        ...

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """phi''(t), of the shape of t; only second derivatives of the sum ask for it."""
        ...


def value_of_pairs(kernel: PairKernel, t: Array, xp: Any, *, diagonal: bool) -> Array:
    """phi(t), with 0 on the diagonal, where a row meets itself.

    t is 0 there first: of an infinite slope at rounding's t, automatic differentiation would make NaN.
    """
    if not diagonal:
        return kernel.value(t, xp)
    value = kernel.value(xp.zero_diagonal(t), xp)
    return value if vanishes_at_zero(kernel) else xp.zero_diagonal(value)


def value_and_slope(
    kernel: PairKernel, t: Array, xp: Any, *, diagonal: bool = False, with_e: bool = False
) -> tuple[Array, Array]:
    """phi(t) and phi'(t); t may be overwritten.

    On the diagonal a row meets itself, which adds nothing. Where phi(0) = 0 it is enough that t is 0 there, in one pass
    and not two: a finite slope cancels in the gradient of the row, though not in that of its e.
    """
    if diagonal and vanishes_at_zero(kernel) and not with_e:
        t, diagonal = xp.zero_diagonal(t), False
    if hasattr(kernel, "value_and_slope"):
        value, slope = kernel.value_and_slope(t, xp)
    else:
        value, slope = kernel.value(t, xp), kernel.slope(t, xp)
    return (xp.zero_diagonal(value), xp.zero_diagonal(slope)) if diagonal else (value, slope)


def vanishes_at_zero(kernel: PairKernel) -> bool:
    """Whether the kernel says that phi(0) = 0 and that phi'(0) is finite."""
    return getattr(kernel, "vanishes_at_zero", False)


def works_in_place(kernel: PairKernel) -> bool:
    """Whether the kernel says that its `value_and_slope` makes one array and no more."""
    return getattr(kernel, "in_place", False)


@dataclass(frozen=True)
class LogarithmicKernel:
    """phi(t) = log(1 + t), the repulsion of the eccentric loss, whose bandwidth is M."""

    vanishes_at_zero: ClassVar[bool] = True
    in_place: ClassVar[bool] = True

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
        return value, xp.inverse(t)

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """-1/(1 + t)^2."""
        slope = self.slope(t, xp)
        return -slope * slope


@dataclass(frozen=True)
class InverseMultiquadricKernel:
    """phi(t) = 1/(1 + t), the kernel of WAE-MMD, whose bandwidth is C."""

    def value(self, t: Array, xp: Any) -> Array:
        """1/(1 + t)."""
        return xp.reciprocal(1.0 + t)

    def slope(self, t: Array, xp: Any) -> Array:
        """-1/(1 + t)^2."""
        value = self.value(t, xp)
        return -value * value

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """2/(1 + t)^3."""
        value = self.value(t, xp)
        return 2.0 * value * value * value


@dataclass(frozen=True)
class InverseMultiquadricMixture:
    """phi(t) = sum over s of s/(s + t): inverse multiquadric kernels of several bandwidths in one sweep."""

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

    def second_derivative(self, t: Array, xp: Any) -> Array:  # noqa: ARG002
        """The sum of 2 s/(s + t)^3."""
        return sum((s / (s + t)) ** 3 * (2.0 / (s * s)) for s in self.scales)


@dataclass(frozen=True)
class GaussianKernel:
    """phi(t) = exp(-t), of the uniformity loss."""

    def value(self, t: Array, xp: Any) -> Array:
        """exp(-t)."""
        return xp.exp(-t)

    def slope(self, t: Array, xp: Any) -> Array:
        """-exp(-t)."""
        return -xp.exp(-t)

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:
        """Both, from one exponential."""
        value = xp.exp(-t)
        return value, -value

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """exp(-t)."""
        return xp.exp(-t)


@dataclass(frozen=True)
class RieszKernel:
    """phi(t) = t^(-s/2), that is 1/|x - y|^s; -log(t)/2, that is log(1/|x - y|), for s = 0.

    Below eps it is continued linearly, so that a coincident pair has the value (1 + s/2) eps^(-s/2) (for s = 0
    (1 - log eps)/2) and a finite slope.
    """

    s: float
    eps: float

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t)."""
        return self.value_and_slope(t, xp)[0]

    def slope(self, t: Array, xp: Any) -> Array:
        """-(s/2) t^(-s/2 - 1), or -1/(2 t) for s = 0."""
        return self._power(xp.clamp(t, self.eps), xp)[1]

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:
        """Both, from one reciprocal."""
        clamped = xp.clamp(t, self.eps)
        value, slope = self._power(clamped, xp)
        return value + slope * (t - clamped), slope

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """(s/2) (s/2 + 1) t^(-s/2 - 2), or 1/(2 t^2) for s = 0; 0 below eps."""
        clamped = xp.clamp(t, self.eps)
        second = self._power(clamped, xp)[1] / clamped * -(0.5 * self.s + 1.0)
        return xp.where(t < self.eps, xp.zeros_like(t), second)

    def _power(self, t: Array, xp: Any) -> tuple[Array, Array]:
        inverse = xp.reciprocal(t)
        match self.s:
            case 0:
                return 0.5 * xp.log(inverse), -0.5 * inverse
            case 1:
                value = xp.sqrt(inverse)
            case 2:
                value = inverse
            case _:
                value = inverse ** (0.5 * self.s)
        return value, value * inverse * (-0.5 * self.s)


@dataclass(frozen=True)
class AngularKernel:
    """phi(t) = a^-s, or log(1/a) for s = 0, of the angle between unit vectors: a = factor * arccos(1 - t/2) + shift.

    Below eps it is continued linearly. The slope has another singularity at opposite vectors, t = 4, where the force
    has no direction: 4 - t counts as `roundoff`^2 or more.
    """

    s: float
    eps: float
    roundoff: float
    factor: float = 1.0
    shift: float = 0.0

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t)."""
        return self.value_and_slope(t, xp)[0]

    def slope(self, t: Array, xp: Any) -> Array:
        """phi'(t), by da/dt = factor / sqrt(t (4 - t))."""
        return self.value_and_slope(t, xp)[1]

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:
        """Both."""
        clamped, angle, rate = self._angle(t, xp)
        value, slope = self._power(angle, xp)
        slope = slope * rate
        return value + slope * (t - clamped), slope

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """phi''(t); 0 below eps."""
        clamped, angle, rate = self._angle(t, xp)
        slope = self._power(angle, xp)[1]
        plain = rate * (1.0 / self.factor)
        second = slope * rate * ((clamped - 2.0) * plain * plain - (self.s + 1.0) * rate / angle)
        return xp.where(t < self.eps, xp.zeros_like(t), second)

    def _angle(self, t: Array, xp: Any) -> tuple[Array, Array, Array]:
        """t, but eps where it is less, the angle a there, and da/dt."""
        clamped = xp.clamp(t, self.eps)
        near, far = xp.sqrt(clamped), xp.sqrt(xp.clamp(4.0 - clamped, self.roundoff**2))
        # Exact at both ends, unlike the arc cosine.
        angle = (2.0 * self.factor) * xp.atan2(near, far) + self.shift
        return clamped, angle, self.factor * xp.reciprocal(near * far)

    def _power(self, angle: Array, xp: Any) -> tuple[Array, Array]:
        """The energy of an angle and its derivative."""
        inverse = xp.reciprocal(angle)
        if self.s == 0:
            return xp.log(inverse), -inverse
        value = inverse if self.s == 1 else inverse**self.s
        return value, value * inverse * -self.s


@dataclass(frozen=True)
class AntipodalKernel:
    """phi(t) + phi(4 - t): a unit vector meets another one and its mirror image."""

    kernel: RieszKernel | AngularKernel

    def value(self, t: Array, xp: Any) -> Array:
        """phi(t) + phi(4 - t)."""
        return self.kernel.value(t, xp) + self.kernel.value(4.0 - t, xp)

    def slope(self, t: Array, xp: Any) -> Array:
        """phi'(t) - phi'(4 - t)."""
        return self.kernel.slope(t, xp) - self.kernel.slope(4.0 - t, xp)

    def value_and_slope(self, t: Array, xp: Any) -> tuple[Array, Array]:
        """Both."""
        value, slope = self.kernel.value_and_slope(t, xp)
        mirrored_value, mirrored_slope = self.kernel.value_and_slope(4.0 - t, xp)
        value += mirrored_value
        slope -= mirrored_slope
        return value, slope

    def second_derivative(self, t: Array, xp: Any) -> Array:
        """phi''(t) + phi''(4 - t)."""
        return self.kernel.second_derivative(t, xp) + self.kernel.second_derivative(4.0 - t, xp)


def default_eps(s: float, roundoff: float) -> float:
    """Below which t a kernel of exponent s is continued linearly: eps^(-s/2 - 1) times the roundoff is about 1.

    The force of a coincident pair is 0, and rounding then leaves no great one.
    """
    return math.pow(roundoff, 2.0 / (s + 2.0))
