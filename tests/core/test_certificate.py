"""The enclosures: narrow, true and tied to the theorem as the paper prints it; and the paper's lemma."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath.ctx_iv import MPIntervalContext

from eccentric_core import (
    critical_mu,
    enclose_critical_mu,
    enclose_radius,
    kernel_scale,
    stationary_radius,
    theorem1_integral,
)
from eccentric_core.theory import certificate as module
from eccentric_core.theory.certificate import theorem1_integrand


def width(lower, upper, digits):
    with mpmath.workdps(digits + 20):
        return (upper - lower) / lower


@pytest.mark.parametrize("digits", [1, 15, 50, 200])
@pytest.mark.parametrize(("dim", "mu"), [(2, 0.75), (3, 4.5), (64, 1.0), (64, 64.5), (300, 601.0), (10**6, 1.0)])
def test_width(dim, mu, digits):
    lower, upper = enclose_radius(dim, mu, digits=digits)
    assert lower < upper
    with mpmath.workdps(digits + 20):
        assert width(lower, upper, digits) < mpmath.mpf(10) ** -digits


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 500), st.floats(0.501, 600), st.integers(1, 60))
def test_the_digits_of_a_finer_enclosure_lie_in_a_coarser_one(dim, mu, digits):
    lower, upper = enclose_radius(dim, mu, digits=digits)
    finer_lower, finer_upper = enclose_radius(dim, mu, digits=digits + 25)
    assert lower < finer_lower < finer_upper < upper


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.floats(0.501, 1000), st.integers(5, 40))
def test_enclosure_holds_the_root_of_an_elementary_equation(half, mu, digits):
    """For even d F is elementary: an oracle that shares no formula with the continued fraction."""
    dim = 2 * half
    lower, upper = enclose_radius(dim, mu, digits=digits)

    def excess(radius):
        """2 mu F - 1, falling with the radius."""
        m = mpmath.mpf(mu)
        scale = 2 * mpmath.mpf(dim) * (1 + 1 / (2 * m * (dim - 1))) / (2 * m - 1)
        x = 4 * radius**2 / scale
        t = 1 + 2 / x
        mean = 1 / mpmath.sqrt(t * t - 1)
        for d in range(2, dim, 2):
            mean = mpmath.mpf(d) / (d - 1) * (t - (t * t - 1) * mean)
        return 4 * m * (1 - 2 * mean / x) / x - 1

    lost = int(dim * np.log10(1 + 1.2 / (mu - 0.5)))  # digits that the recurrence loses
    with mpmath.workdps(2 * digits + 40 + lost):
        assert excess(lower) > 0 > excess(upper)


@pytest.mark.parametrize(("dim", "mu"), [(2, 1.5), (3, 0.6), (4, 4.5), (7, 3.3), (64, 1.0), (64, 64.5), (150, 2.0)])
def test_theorem_1_as_the_paper_prints_it(dim, mu):
    """The printed integral at the enclosed radius is 1/mu."""
    lower, upper = enclose_radius(dim, mu, digits=40)
    with mpmath.workdps(40):
        m = mpmath.mpf(mu)
        scale = 2 * dim * (1 + 1 / (2 * m * (dim - 1))) / (2 * m - 1)
        integral = theorem1_integral(dim, (lower + upper) / 2, scale)
        assert abs(integral * m - 1) < mpmath.mpf(10) ** -28
        # And it is no accident: a slightly different radius does not satisfy the theorem.
        assert abs(theorem1_integral(dim, lower * (1 + mpmath.mpf(10) ** -10), scale) * m - 1) > 1e-12


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("dim", [3, 4, 5, 10, 64])
def test_lemma_a(dim, a):
    """int u f(u) du = 2 for d >= 3 and 0 < a < 2."""
    with mpmath.workdps(50):
        a = mpmath.mpf(a)
        points = mpmath.linspace(1, 1 + 2 / a, 9)
        integral = mpmath.quad(lambda u: u * theorem1_integrand(mpmath.mp, dim, a, u), points)
        assert abs(integral - 2) < mpmath.mpf(10) ** -24


@pytest.mark.parametrize("u_max", [1.2, 2.0, 7.5])
@pytest.mark.parametrize("dim", [4, 5, 10, 64])
def test_lemma_b(dim, u_max):
    """f has its maximum at u where a = (1 + 1/(u (d-3) + 1)) / (u - 1), for d >= 4."""
    with mpmath.workdps(50):
        u = mpmath.mpf(u_max)
        a = (1 + 1 / (u * (dim - 3) + 1)) / (u - 1)
        slope = mpmath.diff(lambda v: mpmath.log(theorem1_integrand(mpmath.mp, dim, a, v)), u)
        assert abs(slope) < mpmath.mpf(10) ** -15
        peak = theorem1_integrand(mpmath.mp, dim, a, u)
        grid = mpmath.linspace(1, 1 + 2 / a, 400)[1:-1]
        assert all(theorem1_integrand(mpmath.mp, dim, a, v) <= peak for v in grid)


def test_scale_of_every_kind():
    with mpmath.workdps(90):
        lower, upper = enclose_radius(5, 2.0, scale="exact", digits=50)
        assert lower <= mpmath.sqrt(5) <= upper
        assert upper - lower < mpmath.mpf(10) ** -50
        paper = enclose_radius(5, Fraction(2), digits=40)
        by_number = enclose_radius(5, 2, scale=2 * 5 * (1 + Fraction(1, 16)) / 3, digits=40)
        assert abs(by_number[0] - paper[0]) < mpmath.mpf(10) ** -39
    # The float64 scale of the exact method gives sqrt(d) to the digits of float64.
    lower, upper = enclose_radius(5, 2.0, scale=float(kernel_scale(5, 2.0, method="exact")))
    assert float(lower) == pytest.approx(5**0.5, rel=1e-15)


def test_mu_is_taken_exactly():
    """0.6 as a float is not 6/10."""
    written = enclose_radius(8, "0.6")
    assert written == enclose_radius(8, Fraction(6, 10)) == enclose_radius(8, Decimal("0.6"))
    with mpmath.workdps(40):
        assert written == enclose_radius(8, Fraction("0.6"))
        assert enclose_radius(8, 0.6) == enclose_radius(8, mpmath.mpf(0.6)) == enclose_radius(8, np.float64(0.6))
    assert written[1] < enclose_radius(8, 0.6)[0] or written[0] > enclose_radius(8, 0.6)[1]


def test_precision_of_mpmath_is_left_alone():
    before = mpmath.mp.dps, mpmath.iv.dps
    enclose_radius(8, 1.0, digits=70)
    enclose_critical_mu(2, digits=70)
    theorem1_integral(8, 2.8, 17.0)
    assert (mpmath.mp.dps, mpmath.iv.dps) == before


@pytest.mark.parametrize("dim", [2, 3, 8, 65])
@pytest.mark.parametrize("x", ["0.01", "1", "50"])
def test_every_truncation_of_the_continued_fraction_encloses(dim, x):
    iv = MPIntervalContext()
    iv.dps = 40
    with mpmath.workdps(60):
        true = 1 / mpmath.hyp2f1(1, mpmath.mpf(dim + 1) / 2, dim, -mpmath.mpf(x)) - 1
        widths = []
        for terms in range(12):
            lower, upper = module._ends(module._enclose_excess(iv, dim, iv.mpf(x), terms))
            assert lower < true < upper
            widths.append(upper - lower)
        assert all(finer < coarser for coarser, finer in pairwise(widths))


@pytest.mark.parametrize("wrong", [mpmath.mpf("1.001"), mpmath.mpf("0.999")])
def test_a_wrong_root_is_not_certified(wrong):
    """The proof looks at the signs at both ends, not at the solver: hand it another root and it refuses."""
    iv = MPIntervalContext()
    with pytest.raises(ArithmeticError, match="no proof"):
        module._certify(iv, wrong, 10, lambda end: end - 1)
    interval = module._certify(iv, mpmath.mpf(1), 10, lambda end: end - 1)
    assert interval.a < 1 < interval.b


def test_critical_mu_to_many_digits():
    for dim, digits in ((2, 1), (3, 1), (2, 60), (3, 60)):
        lower, upper = enclose_critical_mu(dim, digits=digits)
        with mpmath.workdps(digits + 20):
            assert 0 < width(lower, upper, digits) < mpmath.mpf(10) ** -digits
            fine_lower, fine_upper = enclose_critical_mu(dim, digits=digits + 20)
            assert lower < fine_lower < fine_upper < upper
    assert float(enclose_critical_mu(2)[0]) == critical_mu(2)


@pytest.mark.parametrize("dim", [2, 3])
def test_critical_mu_by_quadrature(dim):
    """The mu at which V(0) = V(rho), from integrals over the angle and not from the closed forms."""
    with mpmath.workdps(25):

        def mean(function):
            interval = [0, mpmath.pi / 2, mpmath.pi]
            weighted = mpmath.quad(lambda t: function(t) * mpmath.sin(t) ** (dim - 2), interval)
            return weighted / mpmath.quad(lambda t: mpmath.sin(t) ** (dim - 2), interval)

        def difference(x):
            """V(0) - V(rho) in units of M / F."""
            f = mean(lambda t: (1 + mpmath.cos(t)) / (1 + x * (1 + mpmath.cos(t)) / 2))
            log = mean(lambda t: mpmath.log(1 + x * (1 + mpmath.cos(t)) / 2))
            return log - mpmath.log(1 + x / 4) - x * f / 4

        x = mpmath.findroot(difference, (4, 6) if dim == 2 else (14, 20))
        mu = 1 / (2 * mean(lambda t: (1 + mpmath.cos(t)) / (1 + x * (1 + mpmath.cos(t)) / 2)))
        lower, upper = enclose_critical_mu(dim)
        assert abs(mu / lower - 1) < mpmath.mpf(10) ** -18
        assert lower < upper


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "words"),
    [
        (enclose_radius, (1, 1.0), {}, ValueError, ["dim", "2 or more"]),
        (enclose_radius, ([2, 3], 1.0), {}, TypeError, ["dim", "one integer"]),
        (enclose_radius, (2.5, 1.0), {}, ValueError, ["dim", "whole"]),
        (enclose_radius, (4, 0.5), {}, ValueError, ["mu", "1/2", "0.5"]),
        (enclose_radius, (4, float("nan")), {}, ValueError, ["mu", "finite", "nan"]),
        (enclose_radius, (4, mpmath.inf), {}, ValueError, ["mu", "finite", "inf"]),
        (enclose_radius, (4, "one"), {}, ValueError, ["mu", "finite", "one"]),
        (enclose_radius, (4, True), {}, ValueError, ["mu", "finite", "True"]),
        (enclose_radius, (4, 1.0), {"digits": 0}, ValueError, ["digits", "positive", "0"]),
        (enclose_radius, (4, 1.0), {"digits": 2.5}, ValueError, ["digits", "positive", "2.5"]),
        (enclose_radius, (4, 1.0), {"scale": "papre"}, ValueError, ["scale", "papre"]),
        (enclose_radius, (4, 1.0), {"scale": -2}, ValueError, ["scale", "positive", "-2"]),
        (enclose_radius, (2**53 + 1, 1.0), {}, ValueError, ["dim", "below 2^53"]),
        (enclose_radius, (4, 10**400), {}, ValueError, ["mu", "at most 1e300"]),
        (enclose_radius, (4, Fraction(1, 2) + Fraction(1, 10**400)), {}, ValueError, ["mu", "greater than 1/2"]),
        (enclose_radius, (64, 1e290), {}, ValueError, ["mu", "continued fraction", "fewer digits"]),
        (enclose_radius, (4, "1/0"), {}, ValueError, ["mu", "finite", "1/0"]),
        (enclose_radius, (4, 1.0), {"scale": None}, ValueError, ["scale", '"paper"', "None"]),
        (enclose_radius, (4, 1.0), {"scale": Fraction(-1, 10**400)}, ValueError, ["scale", "positive", "-1"]),
        (theorem1_integral, (8, 0, 1), {}, ValueError, ["radius", "positive", "0"]),
        (theorem1_integral, (8, 1, -1), {}, ValueError, ["scale", "positive", "-1"]),
        (enclose_critical_mu, (4,), {}, ValueError, ["dim", "2 or 3", "4"]),
        (enclose_critical_mu, (2,), {"digits": -1}, ValueError, ["digits", "-1"]),
    ],
)
def test_bad_input(function, arguments, options, error, words):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    for word in words:
        assert word in str(caught.value)


def test_digits_may_be_a_numpy_integer():
    assert enclose_radius(8, 1.0, digits=np.int64(20)) == enclose_radius(8, 1.0, digits=20)


def test_radius_and_enclosure_agree_far_from_the_papers_range():
    lower, upper = enclose_radius(2, 1e5, digits=17)
    assert float(lower) == pytest.approx(float(stationary_radius(2, 1e5)), rel=1e-15)
    assert lower < upper
