"""Rigorous enclosures, at any number of digits.

*The radius.* With x = 4 rho^2 / M and F as in `eccentric_core.theory.sphere`, Gauss's continued fraction (DLMF 15.7.5)
gives

    1/F(d, x) - 1 = u_1 x / (1 + u_2 x / (1 + u_3 x / (1 + ...)))

    u_{2m+1} = (d + 1 + 2m)(d - 1 + m) / (2 (d - 1 + 2m)(d + 2m))
    u_{2m}   = m (d - 3 + 2m) / (2 (d + 2m - 2)(d + 2m - 1))

All u are positive for d >= 2, so for x > 0 the tail that starts at u_n x lies between 0 and u_n x. Put that interval
in the place of the tail and evaluate in interval arithmetic with outward rounding: the result contains 1/F - 1. (Its
two ends are two neighbouring convergents, which lie on either side of the value.) As 1/F - 1 increases with x, a sign
at either end of an interval proves that the interval holds the only root of Theorem 1.

*The critical mu* (see docs/minimizer.md). For d = 2 and 3 the sphere is the minimiser exactly up to the mu at which
the difference of potential between the centre and the sphere, psi(x) = L(x) - log(1 + x/4) - x F(x)/4, has its only
zero; psi is elementary and a sign at either end of an interval is again a proof.

Every function works in contexts of its own: the global precision of mpmath is neither read nor changed.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import mpmath
import numpy as np
from mpmath.ctx_iv import MPIntervalContext
from mpmath.ctx_mp import MPContext

from eccentric_core.checks import dim_array
from eccentric_core.theory.scale import check_scale
from eccentric_core.theory.sphere import solve_theorem1

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from eccentric_core.checks import Scale

    Exact: TypeAlias = int | float | str | Fraction | Decimal
    Interval: TypeAlias = Any  # an ivmpf of mpmath, which has no types
    MPFloat: TypeAlias = Any  # an mpf of mpmath

_GUARD_DIGITS = 15
_MOST_TERMS = 300_000  # some twenty seconds
_SMALLEST_EXCESS = Fraction(1, 10**300)  # of 2 mu over 1: float64 finds the root that is then refined


def enclose_radius(
    dim: int, mu: Exact, *, scale: Scale | Fraction = "paper", digits: int = 30
) -> tuple[MPFloat, MPFloat]:
    """Two numbers with the stationary radius rho of Theorem 1 between them, by proof.

    Args:
        dim: latent dimension d, an integer from 2 up.
        mu: the parameter mu > 1/2, taken exactly: a float stands for the binary fraction that it is, a string such
            as "0.6", a Fraction or a Decimal for the number written. An mpf is taken exactly too.
        scale: "paper" for the M of the paper, "exact" for the M at which rho is sqrt(d), or M itself.
        digits: the width of the enclosure is below 10^-digits times rho.

    Returns:
        (lower, upper), two mpmath.mpf with lower < rho < upper (lower <= rho <= upper where rho = sqrt(d) exactly).

    Raises:
        TypeError, ValueError: an argument is not as described.
        ArithmeticError: the enclosure could not be proved (it would be a defect; no case is known).

    The cost grows with digits * sqrt(mu) for small d: d = 64, mu = 1 at 50 digits takes ten milliseconds, d = 2,
    mu = 100,000 three seconds.

    Source: Theorem 1 of the paper; the proof is in this module's docstring.

    >>> from eccentric_core import enclose_radius
    >>> lower, upper = enclose_radius(64, 1.0, digits=20)
    >>> bool(lower < upper), float(lower), float(upper)
    (True, 7.999886776744891, 7.999886776744891)
    """
    d, exact_mu, digits = _check_dim(dim), _exact(mu, "mu"), _check_digits(digits)
    if not _SMALLEST_EXCESS <= 2 * exact_mu - 1 <= 1 / _SMALLEST_EXCESS:
        raise ValueError(
            f"mu must be greater than 1/2 (by 1e-300 or more, and at most 1e300), got {mu!r}; "
            f"the paper uses mu from 1 to d + 1/2"
        )
    if scale is None or isinstance(scale, str):
        check_scale(scale)
    else:
        exact_scale = _positive(scale, "scale")
    iv = MPIntervalContext()
    iv.dps = digits + _GUARD_DIGITS + len(str(d))
    if scale == "exact":
        squared = iv.mpf(d)
    else:
        x = _enclose_root(iv, d, 2 * exact_mu - 1, digits)
        if scale == "paper":
            exact_scale = 2 * d * (1 + 1 / (2 * exact_mu * (d - 1))) / (2 * exact_mu - 1)
        squared = x * _interval(iv, exact_scale) / 4
    return _ends(iv.sqrt(squared))


def enclose_critical_mu(dim: int, *, digits: int = 30) -> tuple[MPFloat, MPFloat]:
    """Two numbers with the critical mu of dimension 2 or 3 between them, by proof.

    Above it the sphere is not the minimum of the loss; from d = 4 on there is no such mu (docs/minimizer.md).

    Args:
        dim: 2 or 3.
        digits: the width of the enclosure is below 10^-digits times mu.

    Returns:
        (lower, upper), two mpmath.mpf with lower < critical mu < upper.

    Raises:
        TypeError, ValueError: an argument is not as described.
        ArithmeticError: the enclosure could not be proved (it would be a defect; no case is known).

    >>> from eccentric_core import enclose_critical_mu
    >>> [round(float(end), 10) for end in enclose_critical_mu(2)]
    [1.5535604299, 1.5535604299]
    """
    if _check_dim(dim) not in (2, 3):
        raise ValueError(f"dim must be 2 or 3, got {dim}; from 4 on the sphere is the minimum at every mu")
    digits = _check_digits(digits)
    iv, mp = MPIntervalContext(), MPContext()
    iv.dps = mp.dps = digits + _GUARD_DIGITS
    # The variable is y = sqrt(1 + x) for d = 2 and x itself for d = 3.
    potential, mu_at, start = (_psi_2, _mu_2, (2, 3)) if dim == 2 else (_psi_3, _mu_3, (5, 50))
    middle = mp.findroot(lambda at: potential(mp, at), start, solver="anderson", tol=mp.mpf(10) ** -(2 * digits + 20))
    # mpmath rounds an approximation of the logarithm outwards, good to some 20 bits more than the precision. A million
    # times that is allowed for, so that the proof does not hang on its last bits.
    slack = iv.mpf(10) ** -(iv.dps - 6) * iv.mpf([-1, 1])
    at = _certify(iv, middle, digits + 3, lambda end: slack - potential(iv, end))
    return _ends(mu_at(iv, at))


def theorem1_integral(dim: int, radius: MPFloat, scale: MPFloat, *, digits: int = 30) -> MPFloat:
    """The left side of Theorem 1 *as the paper prints it*, by numerical quadrature; it is 1/mu at the root.

        M / (rho^2 sqrt(pi)) Gamma(d/2) / Gamma((d-1)/2)
            * int_1^(1 + 4 rho^2/M) (M/(2 rho^2) (u-1))^((d-1)/2) (2 - M/(2 rho^2) (u-1))^((d-3)/2) / u  du

    Not rigorous, and slow: it is here to check the closed form 2 F(d, x) against the paper.

    Args:
        dim: latent dimension d, an integer from 2 up.
        radius: rho, a positive number.
        scale: M, a positive number.
        digits: decimal digits to work with.

    Returns:
        An mpmath.mpf.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    d, digits = _check_dim(dim), _check_digits(digits)
    _positive(radius, "radius")
    _positive(scale, "scale")
    mp = MPContext()
    mp.dps = 2 * digits + 10  # for d = 2 the integrand is singular at its upper end: rounding costs half the digits
    a = mp.convert(scale) / (2 * mp.convert(radius) ** 2)
    return _global(mp.quad(lambda u: theorem1_integrand(mp, d, a, u), mp.linspace(1, 1 + 2 / a, 9)))


def theorem1_integrand(mp: Any, dim: int, a: MPFloat, u: MPFloat) -> MPFloat:
    """f_{d,a}(u) of the paper's appendix A.2, evaluated with the functions of mp, an mpmath context."""
    d = mp.mpf(dim)
    height = a * (u - 1)
    if height >= 2:  # the upper end, or beyond it by rounding
        return mp.zero
    constant = 2 * a / mp.sqrt(mp.pi) * mp.gammaprod([d / 2], [(d - 1) / 2])
    return constant * height ** ((d - 1) / 2) * (2 - height) ** ((d - 3) / 2) / u


def _enclose_root(iv: Any, dim: int, excess: Fraction, digits: int) -> Interval:
    """An interval of relative width below 10^-(digits + 1) that holds the root x of 1/F - 1 = excess."""
    mp = MPContext()
    mp.dps = iv.dps
    target = mp.mpf(excess.numerator) / excess.denominator
    x = mp.mpf(float(solve_theorem1(np.asarray([float(dim)]), np.asarray([float(excess)]))[0]))
    terms = _number_of_terms(dim, float(x), iv.dps)
    # Newton doubles the digits of the float64 root, of which 7 are certain. F solves a differential equation of the
    # first order, so the derivative comes for free.
    for _ in range(math.ceil(math.log2(iv.dps / 7))):
        g = _continued_fraction(mp, dim, x, terms, mp.zero)
        slope = (1 + g) * ((dim + 1) * x / 2 - (dim - 1) * g) / (x * (1 + x))
        x += (target - g) / slope
    exact_target = _interval(iv, excess)

    return _certify(iv, x, digits + 2, lambda end: _enclose_excess(iv, dim, end, terms) - exact_target)


def _enclose_excess(iv: Any, dim: int, x: Interval, terms: int) -> Interval:
    """An interval that holds 1/F - 1 at x, from that many terms and bounds for the tail after them."""
    tail = iv.mpf([0, (_coefficient(iv, dim, terms + 1) * x).b])
    return _continued_fraction(iv, dim, x, terms, tail)


def _certify(iv: Any, middle: MPFloat, digits: int, enclose: Callable[[Interval], Interval]) -> Interval:
    """The interval middle (1 -+ 10^-digits), if a function with one zero that is negative below and positive above it
    is proved negative at the lower and positive at the upper end.
    """
    lower = iv.make_mpf((middle._mpf_, middle._mpf_)) * (1 - iv.mpf(10) ** -digits)
    upper = iv.make_mpf((middle._mpf_, middle._mpf_)) * (1 + iv.mpf(10) ** -digits)
    # Comparing intervals gives True only if it holds for every member of both.
    if (enclose(iv.mpf(lower.a)) < 0) is True and (enclose(iv.mpf(upper.b)) > 0) is True:
        return iv.mpf([lower.a, upper.b])
    raise ArithmeticError(f"no proof that a root lies within 10^-{digits} (relative) of {middle}")


def _continued_fraction(ctx: Any, dim: int, x: Any, terms: int, tail: Any) -> Any:
    """1/F - 1 from u_1 to u_terms, with the given tail after them, for a number or an interval x of ctx."""
    value = tail
    for k in range(terms, 0, -1):
        value = _coefficient(ctx, dim, k) * x / (1 + value)
    return value


def _coefficient(ctx: Any, dim: int, k: int) -> Any:
    return ctx.mpf(_numerator(dim, k)) / _denominator(dim, k)


def _numerator(d: int, k: int) -> int:
    m = k // 2
    return (d + 1 + 2 * m) * (d - 1 + m) if k % 2 else m * (d - 3 + 2 * m)


def _denominator(d: int, k: int) -> int:
    m = k // 2
    return 2 * (d - 1 + 2 * m) * (d + 2 * m) if k % 2 else 2 * (d + 2 * m - 2) * (d + 2 * m - 1)


def _number_of_terms(dim: int, x: float, digits: int) -> int:
    """How many terms bring two neighbouring convergents within 10^-digits of each other, relatively."""
    # Steed's algorithm: with D_k = 1/(1 + u_k x D_{k-1}) the k-th difference is the one before times D_k - 1.
    log_difference, d_k, k = 0.0, 1.0, 1
    while log_difference > -(digits + 2) * math.log(10.0):
        k += 1
        if k > _MOST_TERMS:
            raise ValueError(
                f"mu and digits must leave the continued fraction at most {_MOST_TERMS:,} terms, got more in dimension "
                f"{dim}; ask for fewer digits or a smaller mu"
            )
        ux = _numerator(dim, k) / _denominator(dim, k) * x
        log_difference += math.log(ux * d_k / (1.0 + ux * d_k))
        d_k = 1.0 / (1.0 + ux * d_k)
    return k


def _psi_2(ctx: Any, y: Any) -> Any:
    """The potential difference psi for d = 2, y = sqrt(1 + x): positive below its only zero and negative above."""
    return 2 * ctx.log((1 + y) / 2) - ctx.log((3 + y * y) / 4) - (1 - 1 / y) / 2


def _mu_2(ctx: Any, y: Any) -> Any:  # noqa: ARG001
    return y * (y + 1) / 4


def _psi_3(ctx: Any, x: Any) -> Any:
    """The potential difference psi for d = 3: positive below its only zero and negative above."""
    return ctx.log(1 + x) * (1 + 3 / (2 * x)) - ctx.mpf(3) / 2 - ctx.log(1 + x / 4)


def _mu_3(ctx: Any, x: Any) -> Any:
    return x / (4 * (1 - ctx.log(1 + x) / x))


def _interval(iv: Any, value: Fraction) -> Interval:
    return iv.mpf(value.numerator) / iv.mpf(value.denominator)


def _ends(interval: Interval) -> tuple[MPFloat, MPFloat]:
    lower, upper = interval._mpi_
    return mpmath.mp.make_mpf(lower), mpmath.mp.make_mpf(upper)


def _global(value: MPFloat) -> MPFloat:
    """The same number, with all its digits, as a number of mpmath's global context."""
    return mpmath.mp.make_mpf(value._mpf_)


def _exact(value: Any, name: str) -> Fraction:
    if hasattr(value, "_mpf_"):
        sign, mantissa, exponent, _ = value._mpf_
        if mantissa or not exponent:  # not one of the special values, which are inf and nan
            return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** int(exponent)
    elif not isinstance(value, bool | np.bool_):
        try:
            return Fraction(value.item() if isinstance(value, np.generic) else value)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            pass
    raise ValueError(f"{name} must be a finite number (int, float, Fraction, Decimal, mpf or digits), got {value!r}")


def _positive(value: Any, name: str) -> Fraction:
    exact = _exact(value, name)
    if exact <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return exact


def _check_dim(dim: int) -> int:
    if np.ndim(dim):
        raise TypeError(f"dim must be one integer here, got {dim!r}; call once per dimension")
    return int(dim_array(dim))


def _check_digits(digits: int) -> int:
    try:
        value = 0 if isinstance(digits, bool) else operator.index(digits)
    except TypeError:
        value = 0
    if value < 1:
        raise ValueError(f"digits must be a positive integer, got {digits!r}")
    return value
