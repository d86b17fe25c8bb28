"""The radius, the scale and the averages over the sphere, against enclosures and mpmath."""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eccentric_core import enclose_radius, kernel_scale, stationary_radius
from eccentric_core.backend import backend_of
from eccentric_core.numpy_backend import BACKEND as NUMPY
from eccentric_core.theory.scale import traced_scale
from eccentric_core.theory.sphere import mean_log, mean_repulsion, solve_theorem1, sphere_rule

# 40 digits, stored by `python tests/core/make_references.py`.
REFERENCES = json.loads(Path(__file__).with_name("references.json").read_text())

DIMS = [2, 3, 4, 5, 8, 20, 64, 300, 1000, 10**6]


@pytest.mark.parametrize("scale", ["paper", "exact"])
def test_radius_against_40_digits(scale):
    rows = REFERENCES["radius"]
    dim, mu = (np.array([row[name] for row in rows]) for name in ("dim", "mu"))
    radius = stationary_radius(dim, mu, scale=scale)
    with mpmath.workdps(40):
        error = [abs(mpmath.mpf(float(r)) / mpmath.mpf(row[scale]) - 1) for r, row in zip(radius, rows, strict=True)]
    assert max(error) <= 1e-14


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 10**6), st.floats(0.5001, 1e4))
@example(2, 0.5001)
@example(10**6, 1e5)
def test_radius_lies_in_its_enclosure(dim, mu):
    lower, upper = enclose_radius(dim, mu, digits=18)
    radius = float(stationary_radius(dim, mu))
    assert float(lower) * (1 - 1e-14) <= radius <= float(upper) * (1 + 1e-14)


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 64, 300])
@pytest.mark.parametrize("top", [4.0, 601.0, 1e5])
def test_many_values_of_mu_agree_with_few(dim, top):
    """From a few hundred values of mu on, a polynomial takes the place of Newton."""
    mu = np.geomspace(0.5001, top, 2000)
    many = stationary_radius(dim, mu)
    few = np.concatenate([stationary_radius(dim, part) for part in np.split(mu, 20)])
    np.testing.assert_allclose(many, few, rtol=4e-15)


def test_broadcasting():
    dim, mu = np.array([[2], [5], [300]]), np.linspace(0.6, 9, 1000)
    radius = stationary_radius(dim, mu)
    assert radius.shape == (3, 1000)
    assert radius.dtype == np.float64
    for k in range(3):
        np.testing.assert_allclose(radius[k], [stationary_radius(int(dim[k, 0]), m) for m in mu], rtol=4e-15)
    # The same from flat arrays in any order, and from few values per dimension.
    order = np.random.default_rng(0).permutation(3000)
    flat = stationary_radius(np.repeat(dim, 1000)[order], np.tile(mu, 3)[order])
    np.testing.assert_allclose(flat, radius.ravel()[order], rtol=4e-15)
    few = stationary_radius(dim, mu[:4])
    np.testing.assert_allclose(few, radius[:, :4], rtol=4e-15)
    assert stationary_radius(np.arange(2, 1002).reshape(10, 1, 100), [[1.0], [2.0]]).shape == (10, 2, 100)
    assert stationary_radius([], 1.0).shape == (0,)
    assert isinstance(stationary_radius(5, 1.0), np.float64)


@pytest.mark.parametrize("dim", DIMS)
def test_exact_scale_puts_the_radius_at_the_root_of_d(dim):
    mu = np.array([0.5001, 0.6, 1.0, 2.5, 1000.0])
    np.testing.assert_allclose(stationary_radius(dim, mu, scale="exact"), np.sqrt(dim), rtol=1e-15)
    by_number = stationary_radius(dim, mu, scale=kernel_scale(dim, mu, method="exact"))
    np.testing.assert_allclose(by_number, np.sqrt(dim), rtol=1e-15)


def test_paper_scale_is_the_papers_formula():
    # M = 2d at mu -> infinity divided by (2 mu - 1); two values worked out by hand.
    assert kernel_scale(2, 1.0) == pytest.approx(4 * 1.5, rel=1e-15)
    assert kernel_scale(64, 64.5) == pytest.approx(128 * (1 + 1 / (129 * 63)) / 128, rel=1e-15)


@pytest.mark.parametrize("method", ["paper", "exact"])
@pytest.mark.parametrize("mu", [0.5001, 0.51, 0.6, 0.75, 1.0, 1.5, 2.5, 10.0, 64.5, 601.0, 1e5])
@pytest.mark.parametrize("dim", [2, 3, 4, 5, 7, 12, 37, 38, 64, 117, 300, 1000, 65536, 10**6])
def test_scale_of_a_mu_that_is_a_tensor(dim, mu, method):
    """In operations of the framework, here those of NumPy."""
    known = float(kernel_scale(dim, mu, method=method))
    # The rows tell the dimension and the dtype alone.
    m = traced_scale(np.broadcast_to(np.zeros(1), (2, dim)), np.asarray(mu), method, NUMPY)
    assert m.dtype == np.float64
    assert m == pytest.approx(known, rel=1e-14)
    # A number is allowed where a compiler makes a tensor of it.
    assert traced_scale(np.broadcast_to(np.zeros(1), (2, dim)), mu, method, NUMPY) == pytest.approx(known, rel=1e-14)
    mu32 = np.float32(mu)
    m = traced_scale(np.broadcast_to(np.zeros(1, np.float32), (2, dim)), np.asarray(mu32), method, NUMPY)
    assert m.dtype == np.float32
    known = float(kernel_scale(dim, float(mu32), method=method))
    # Of 2 mu - 1 float32 has fewer digits close to 1/2.
    assert float(m) == pytest.approx(known, rel=5e-7 * mu / (mu - 0.5))


@pytest.mark.parametrize("method", ["paper", "exact"])
def test_scale_of_a_mu_that_is_a_tensor_of_any_library(library, method):
    z = library.array(np.zeros((2, 5)))
    m = traced_scale(z, library.xp.asarray(1.5), method, backend_of(z))
    assert m.shape == ()
    assert float(m) == pytest.approx(float(kernel_scale(5, 1.5, method=method)), rel=1e-14)


def test_radius_grows_with_m_as_its_root():
    np.testing.assert_allclose(
        stationary_radius(7, 1.5, scale=np.array([1.0, 4.0, 9e6])) / stationary_radius(7, 1.5, scale=1.0),
        [1.0, 2.0, 3000.0],
        rtol=1e-15,
    )


def test_radius_of_a_batch():
    """A batch of n is the infinite batch with mu n/(n-1) and the same M."""
    n = np.array([2, 3, 100, 10**9])
    expected = stationary_radius(8, 1.5 * n / (n - 1), scale=float(kernel_scale(8, 1.5)))
    np.testing.assert_allclose(stationary_radius(8, 1.5, batch_size=n), expected, rtol=1e-14)
    assert stationary_radius(8, 1.5, batch_size=2**52) == pytest.approx(stationary_radius(8, 1.5), rel=1e-15)


@pytest.mark.parametrize("dim", [2, 3, 4, 9, 64, 1001])
@pytest.mark.parametrize("x", [1e-6, 0.3, 7.0, 900.0, 4e5])
def test_averages_against_hypergeometric_functions(dim, x):
    d, at = np.array([float(dim)]), np.array([x])
    with mpmath.workdps(30):
        f = mpmath.hyp2f1(1, mpmath.mpf(dim + 1) / 2, dim, -mpmath.mpf(x))
        log = mpmath.mpf(x) / 2 * mpmath.hyp3f2(1, 1, mpmath.mpf(dim + 1) / 2, 2, dim, -mpmath.mpf(x))
    assert mean_repulsion(d, at)[0] == pytest.approx(float(f), rel=2e-15)
    assert mean_log(d, at)[0] == pytest.approx(float(log), rel=2e-15)


@pytest.mark.parametrize("dim", DIMS)
def test_rule_has_the_moments_of_the_sphere(dim):
    """E[cos^2 t] = 1/d and E[cos^4 t] = 3/(d (d + 2)), odd moments vanish."""
    v, weight = sphere_rule(np.array([float(dim)]))
    cosine = 2 * v - 1
    assert np.sum(weight * cosine**2) == pytest.approx(1 / dim, rel=1e-14)
    assert np.sum(weight * cosine**4) == pytest.approx(3 / (dim * (dim + 2)), rel=1e-14)
    assert abs(np.sum(weight * cosine)) <= 1e-16


def test_root_of_dimension_2_in_closed_form():
    excess = np.geomspace(1e-12, 1e12, 200)
    below = 4 * excess / (np.sqrt(9 + 8 * excess) + 3)  # y - 1, without cancellation
    np.testing.assert_allclose(solve_theorem1(np.array([2.0]), excess), below * (below + 2), rtol=4e-15)


def test_extreme_arguments():
    assert stationary_radius(2, 1e300) == pytest.approx(np.sqrt(2), rel=1e-14)
    for dim, mu in ((10**15, 1.0), (10**15, 1e5), (64, np.nextafter(0.5, 1)), (2, np.nextafter(0.5, 1))):
        assert stationary_radius(dim, mu) == pytest.approx(float(enclose_radius(dim, mu)[0]), rel=1e-14)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((1,), {}, ValueError, ["dim", "2 or more", "1"]),
        ((2.5,), {}, ValueError, ["dim", "whole", "2.5"]),
        ((np.nan,), {}, ValueError, ["dim", "whole", "nan"]),
        (("64",), {}, TypeError, ["dim", "real number", "'64'"]),
        (([2, 1, 5],), {}, ValueError, ["dim", "1 among 3 values"]),
        ((64, 0.5), {}, ValueError, ["mu", "1/2", "0.5"]),
        ((64, [1.0, -3.0]), {}, ValueError, ["mu", "1/2", "-3 among 2 values"]),
        ((64, np.inf), {}, ValueError, ["mu", "finite", "inf"]),
        ((64, 1e308), {}, ValueError, ["mu", "finite", "1e+308"]),
        ((64, 1j), {}, TypeError, ["mu", "real number", "complex"]),
        ((64, 1.0), {"scale": "papre"}, ValueError, ["scale", "papre"]),
        ((64, 1.0), {"scale": [1.0, -1.0]}, ValueError, ["scale", "positive"]),
        ((64, 1.0), {"scale": 10**400}, ValueError, ["scale", "positive"]),
        ((64, 1.0), {"scale": None}, ValueError, ["scale", "positive", "None"]),
        ((64, 1.0), {"batch_size": 1}, ValueError, ["batch_size", "2 or more", "1"]),
        ((64, 1.0), {"batch_size": 2.5}, ValueError, ["batch_size", "whole", "2.5"]),
        ((True, 1.0), {}, TypeError, ["dim", "bool"]),
    ],
)
def test_bad_input(arguments, options, error, words):
    with pytest.raises(error) as caught:
        stationary_radius(*arguments, **options)
    for word in words:
        assert word in str(caught.value)


def test_bad_method():
    with pytest.raises(ValueError, match=r'method must be "paper" or "exact", got \'newton\''):
        kernel_scale(3, 1.0, method="newton")
