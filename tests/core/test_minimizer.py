"""The boundary between minimum and mere stationarity, from both sides; the floor."""

from __future__ import annotations

import subprocess
import sys

import mpmath
import numpy as np
import pytest
from _settle import minimise
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from eccentric_core import (
    critical_mu,
    eccentric_loss,
    enclose_critical_mu,
    kernel_scale,
    loss_floor,
    sphere_is_minimizer,
    sphere_loss,
    stationary_radius,
)
from eccentric_core.theory.floor import _least_potential, _radial_bound
from eccentric_core.theory.minimizer import mean_log_between, sphere_potential


def settle(n, dim, mu, seed=0, scale="paper"):
    """Points moved by L-BFGS to a minimum of the loss."""
    return minimise(np.random.default_rng(seed).standard_normal((n, dim)), mu, scale)


def test_critical_mu_is_correctly_rounded():
    for dim in (2, 3):
        lower, upper = enclose_critical_mu(dim, digits=40)
        assert float(lower) == float(upper) == critical_mu(dim)
    np.testing.assert_array_equal(critical_mu([[2, 4], [3, 300]]), [[critical_mu(2), np.inf], [critical_mu(3), np.inf]])


def test_critical_mu_whatever_the_precision_of_mpmath():
    code = "import mpmath; mpmath.mp.dps = 3; import eccentric_core; print(float(eccentric_core.critical_mu(2)).hex())"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == float(critical_mu(2)).hex()


def test_sphere_is_minimizer_broadcasts():
    np.testing.assert_array_equal(
        sphere_is_minimizer([[2], [3], [4]], [1.0, 2.5, 5.0]),
        [[True, False, False], [True, True, False], [True, True, True]],
    )
    boundary = float(critical_mu(2))
    assert sphere_is_minimizer(2, boundary)
    assert not sphere_is_minimizer(2, np.nextafter(boundary, 2))


def test_sphere_is_minimizer_of_a_batch():
    """A batch of n has the energy with mu n/(n-1); M changes nothing."""
    np.testing.assert_array_equal(
        sphere_is_minimizer(2, [[1.5], [1.55]], batch_size=[10, 30, 1000]), [[False, True, True], [False, False, True]]
    )
    for scale in ("paper", "exact", 0.1, [3.0, 4.0]):
        np.testing.assert_array_equal(sphere_is_minimizer(2, [1.5, 1.6], scale=scale), [True, False])
    assert sphere_is_minimizer(2, [1.5, 1.6], scale=np.ones((3, 1)), batch_size=np.full((4, 1, 1), 100)).shape == (
        4,
        3,
        2,
    )
    for options in ({"scale": "other"}, {"scale": -1.0}, {"batch_size": 1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            sphere_is_minimizer(2, 1.5, **options)


def worst_excess(dim, mu):
    """min over r of V(r) - V(rho), in units of M, on a fine grid; zero where the sphere is the minimiser."""
    dim, mu = np.asarray(dim), np.asarray(mu)
    rho = stationary_radius(dim, mu, scale=1.0)
    r = np.concatenate([np.linspace(0, 3, 301), np.geomspace(3, 1000, 40)]) * rho[..., None]
    potential = sphere_potential(dim[..., None], mu[..., None], r, scale=1.0)
    at_sphere = sphere_potential(dim, mu, rho, scale=1.0)
    return np.min(potential - at_sphere[..., None], axis=-1) / np.maximum(1.0, rho**2)


def test_potential_from_dimension_4_to_300():
    """V(r) >= V(rho) over all r, for every d from 4 to 300 and mu from just above 1/2 to far beyond the paper's."""
    for mu in (0.501, 0.6, 1.0, 2.5, 10.0, 100.0, 601.0, 1e5):
        excess = worst_excess(np.arange(4, 301), np.full(297, mu))
        assert np.min(excess) >= -1e-13


@pytest.mark.parametrize("dim", [2, 3])
def test_potential_on_both_sides_of_the_boundary(dim):
    boundary = float(critical_mu(dim))
    below = boundary - np.geomspace(1e-6, boundary - 0.51, 40)
    above = boundary + np.geomspace(1e-6, 1e3, 40)
    assert np.min(worst_excess(np.full(40, dim), below)) >= -1e-13
    assert np.max(worst_excess(np.full(40, dim), above)) < -1e-10
    # At the boundary the centre is level with the sphere.
    rho = stationary_radius(dim, boundary)
    assert sphere_potential(dim, boundary, 0.0) == pytest.approx(sphere_potential(dim, boundary, rho), rel=1e-14)


def test_the_step_of_the_proof_for_dimension_4():
    """U'(y) = (2P - beta)/(2P^2) with y = P(P-1)/(P-beta), and the potential is concave in y (docs/minimizer.md)."""
    with mpmath.workdps(30):
        for beta in ("0.1", "0.5", "0.9", "0.999"):
            beta = mpmath.mpf(beta)

            def mean_log(y, beta=beta):
                weight = mpmath.quad(lambda t: mpmath.sin(t) ** 2, [0, mpmath.pi])
                return (
                    mpmath.quad(
                        lambda t: mpmath.sin(t) ** 2 * mpmath.log(1 + y + 2 * mpmath.sqrt(beta * y) * mpmath.cos(t)),
                        [0, mpmath.pi / 2, mpmath.pi],
                    )
                    / weight
                )

            for p in ("1.01", "1.5", "4"):
                p = mpmath.mpf(p)
                y = p * (p - 1) / (p - beta)
                assert abs(mpmath.diff(mean_log, y) - (2 * p - beta) / (2 * p**2)) < 1e-12


@pytest.mark.parametrize("dim", [2, 3])
def test_the_gain_towards_the_sphere_first_grows_then_falls(dim):
    """dU/dy has one maximum in y for d = 2 and 3 (docs/minimizer.md, Theorem 3)."""
    y = np.geomspace(1e-2, 1e2, 200)
    for beta in (0.05, 0.3, 0.5, 0.6, 0.8, 0.95, 0.999):
        # In units where 1 + rho^2 = 1/(1 - beta): y = r^2 (1 - beta), rho^2 = beta/(1 - beta).
        radius = np.sqrt(y / (1 - beta))
        u = mean_log_between(np.asarray(float(dim)), radius, np.asarray(np.sqrt(beta / (1 - beta))))
        slope = np.diff(u) / np.diff(y)
        falling = np.diff(slope) < 0
        first = int(np.argmax(falling))
        assert np.all(falling[first:])


def test_points_below_the_boundary_settle_on_the_sphere():
    n, mu = 400, 1.3
    z, loss = settle(n, 2, mu)
    radii = np.linalg.norm(z, axis=1) / stationary_radius(2, mu, batch_size=n)
    assert radii.min() > 0.95
    assert radii.max() < 1.05
    floor = loss_floor(2, mu, batch_size=n)
    assert floor <= loss <= floor + 1e-3 * abs(floor)


def test_points_above_the_boundary_leave_the_sphere():
    n, mu = 400, 2.5
    z, loss = settle(n, 2, mu)
    radii = np.linalg.norm(z, axis=1) / np.sqrt(2)
    assert radii.min() < 0.5
    assert radii.max() > 1.0
    batch_mu, scale = mu * n / (n - 1), float(kernel_scale(2, mu))
    on_the_sphere = sphere_loss(2, batch_mu, scale=scale)
    floor = loss_floor(2, mu, batch_size=n)
    assert floor <= loss < on_the_sphere
    # The floor is tight there too, not only true.
    assert loss - floor < 0.2 * (on_the_sphere - floor)


def test_points_in_dimension_3_on_both_sides():
    inside = {}
    for mu in (3.3, 6.0):
        z, _ = settle(150, 3, mu, seed=1)
        inside[mu] = np.min(np.linalg.norm(z, axis=1)) / stationary_radius(3, mu, batch_size=150)
    assert inside[3.3] > 0.9
    assert inside[6.0] < 0.6


# The floor.


def test_floor_of_the_infinite_batch_is_the_loss_on_the_sphere():
    dim = np.array([2, 3, 8, 64, 300])
    np.testing.assert_allclose(loss_floor(dim), sphere_loss(dim), rtol=1e-15)
    assert loss_floor(64) / 64 == pytest.approx(-0.386, abs=1e-3)  # section 3.3 of the paper


def test_sphere_loss_against_mpmath():
    for dim, mu in ((2, 1.0), (3, 2.5), (64, 1.0), (301, 10.0)):
        with mpmath.workdps(30):
            scale = mpmath.mpf(float(kernel_scale(dim, mu)))
            r = mpmath.mpf(float(stationary_radius(dim, mu)))
            x = 4 * r**2 / scale
            log = x / 2 * mpmath.hyp3f2(1, 1, mpmath.mpf(dim + 1) / 2, 2, dim, -x)
            expected = float(r**2 - mu * scale * log)
        assert sphere_loss(dim, mu, scale=float(scale)) == pytest.approx(expected, rel=1e-13)
        assert sphere_loss(dim, mu, radius=float(r)) == pytest.approx(expected, rel=1e-13)


def test_sphere_loss_is_stationary_at_the_radius():
    rho = stationary_radius(7, 1.5)
    around = sphere_loss(7, 1.5, radius=rho * np.array([0.99, 1.0, 1.01]))
    assert around[0] > around[1] < around[2]
    h = 1e-5
    assert abs(sphere_loss(7, 1.5, radius=rho * (1 + h)) - sphere_loss(7, 1.5, radius=rho * (1 - h))) / h < 1e-8
    assert sphere_loss(7, 1.5, radius=0.0) == 0.0


def test_the_closed_form_of_the_circle_is_the_quadrature():
    radii = np.concatenate([[0.0], np.logspace(-8, 8, 50)])
    alone, beside_another = sphere_loss(2, radius=radii), sphere_loss([[2], [3]], radius=radii)[0]
    np.testing.assert_allclose(alone, beside_another, rtol=1e-14, atol=1e-30)


def test_a_curve_of_floors_beyond_the_boundary():
    """Each is below the loss on the sphere, and they are concave, as a minimum of functions that are linear in mu."""
    mu = np.linspace(1.6, 8.0, 200)
    floors = loss_floor(2, mu, scale=1.0)
    assert np.all(floors < sphere_loss(2, mu, scale=1.0))
    assert np.all(np.diff(floors, 2) < 0)


@pytest.mark.parametrize("dim", [2, 3, 64])
def test_loss_of_a_vast_sphere(dim):
    """Up to what float64 can hold, and then infinite, without a warning."""
    for radius in (1e50, 1e99, 1e101, 1e150, 1.3e154):
        assert sphere_loss(dim, 1.5, radius=radius, scale=radius) == pytest.approx(
            radius**2 - 1.5 * radius * (np.log(4.0 * radius) + _mean_log_of_height(dim)), rel=1e-13
        )
    assert sphere_loss(dim, radius=1e200) == np.inf
    # The repulsion shows where M is of the size of the radius squared.
    assert sphere_loss(dim, 1.0, radius=1e110, scale=1e-80) == pytest.approx(1e220, rel=1e-13)
    np.testing.assert_array_equal(sphere_loss(dim, radius=[0.0, 1e200]), [0.0, np.inf])


def _mean_log_of_height(dim):
    """E[log((1 + cos t) / 2)], by the moments of the beta distribution."""
    return float(mpmath.digamma((dim - 1) / 2) - mpmath.digamma(dim - 1))


def test_floor_of_a_simplex_is_attained():
    """A regular simplex of n <= d + 1 points at Jensen's radius scores the floor exactly."""
    for n, dim, mu in ((2, 2, 1.0), (5, 4, 0.7), (20, 128, 1.0), (9, 8, 6.0)):
        scale, k = float(kernel_scale(dim, mu)), 2 * n / (n - 1)
        simplex = np.eye(n) - 1 / n
        simplex *= np.sqrt(scale * (mu - 1 / k)) / np.linalg.norm(simplex[0])
        z = simplex @ np.linalg.svd(simplex)[2][: min(n, dim)].T  # in n - 1 dimensions, and zeros
        z = np.pad(z, ((0, 0), (0, dim - z.shape[1])))
        assert eccentric_loss(z, mu) == pytest.approx(float(loss_floor(dim, mu, batch_size=n)), rel=1e-12)


def test_jensens_bound_without_cancellation():
    """A few units of rounding of the mean square of the simplex, also where mu is close to 1/2."""
    for dim, mu, n in ((1000, 0.5001, 1000), (100, 0.5001, 50), (4, 0.500001, 3)):
        with mpmath.workdps(50):
            m, k = mpmath.mpf(mu), 2 * mpmath.mpf(n) / (n - 1)
            scale = mpmath.mpf(float(kernel_scale(dim, mu)))
            square = scale * (m - 1 / k)
            expected = float(square - m * scale * mpmath.log(m * k))
        floor = loss_floor(dim, mu, scale=float(scale), batch_size=n)
        assert abs(floor - expected) <= 5e-16 * float(square)


def test_known_minima_by_gradient_descent():
    z, loss = settle(100, 8, 1.0)
    floor = float(loss_floor(8, batch_size=100))
    assert floor == pytest.approx(-3.15462, abs=1e-5)
    assert floor < loss < floor + 1e-3
    radius = np.mean(np.linalg.norm(z, axis=1)) / stationary_radius(8, batch_size=100)
    assert radius == pytest.approx(1.0, abs=5e-4)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 30),
    st.integers(2, 9),
    st.floats(0.51, 12),
    st.floats(0.05, 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["paper", "exact", 1.0]),
)
def test_no_batch_scores_below_its_floor(n, dim, mu, size, seed, scale):
    z = size * np.random.default_rng(seed).standard_normal((n, dim))
    floor = float(loss_floor(dim, mu, scale=scale, batch_size=n))
    assert float(eccentric_loss(z, mu, scale=scale)) >= floor - 1e-12 * abs(floor)


@pytest.mark.parametrize("beyond", [1e-7, 1e-3, 1.0])
@pytest.mark.parametrize("dim", [2, 3])
def test_no_mixture_of_spheres_scores_below_the_radial_bound(dim, beyond):
    """The bound is one: not even the best mixtures of the centre and spheres cross it, just beyond the boundary too."""
    mu = float(critical_mu(dim)) * (1 + beyond)
    bound = _radial_bound(dim, mu)
    d, rho = np.asarray(float(dim)), float(stationary_radius(dim, mu, scale=1.0))

    def energy(parameters):
        radii, weights = np.abs(parameters[:3]), np.exp(parameters[3:])
        weights = weights / np.sum(weights)
        return weights @ radii**2 - mu * weights @ mean_log_between(d, radii[:, None], radii) @ weights

    for start in ([0, rho, rho, -4, 0, 0], [0, 0.3 * rho, rho, -3, -3, 0], [0, rho, 1.05 * rho, -8, 0, -1]):
        best = minimize(energy, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-15})
        assert best.fun >= bound - 1e-15 * abs(bound)
    # And it is tight: the best of them comes close.
    assert best.fun - bound < 1e-3 * abs(bound)
    assert energy(np.array([0, rho, rho, -40, 0, 0])) >= bound


@pytest.mark.parametrize(("dim", "mu"), [(2, 1.6), (2, 5.0), (3, 4.0), (3, 30.0)])
def test_the_least_potential_is_a_bound(dim, mu, rng):
    d = np.asarray(float(dim))
    for _ in range(2):
        radii = np.sort(rng.uniform(0, np.sqrt(mu), 4))
        weights = rng.dirichlet(np.ones(4))
        r = np.linspace(0, 4 * np.sqrt(mu), 100_001)
        potential = r**2 - 2 * mu * mean_log_between(d, r[:, None], radii) @ weights
        least = _least_potential(d, mu, radii, weights)
        assert least <= np.min(potential)
        assert np.min(potential) - least < 1e-8 * mu


@pytest.mark.parametrize(("dim", "mu"), [(2, 1.7), (2, 2.5), (2, 5.0), (3, 3.9), (3, 6.0)])
def test_the_radial_bound_is_attained_nearly(dim, mu):
    """Concentric rings of many points come close to the bound, which nothing may cross."""
    n = 300
    _, loss = settle(n, dim, mu * (n - 1) / n, seed=2, scale=1.0)
    bound = _radial_bound(dim, mu)
    sphere = float(sphere_loss(dim, mu, scale=1.0))
    assert bound < sphere
    assert loss >= bound
    assert loss - bound < 0.02 * abs(bound)


def test_floor_broadcasts():
    floor = loss_floor([[2], [8]], [1.0, 2.5, 5.0], batch_size=100)
    assert floor.shape == (2, 3)
    for i, dim in enumerate((2, 8)):
        for j, mu in enumerate((1.0, 2.5, 5.0)):
            assert floor[i, j] == pytest.approx(loss_floor(dim, mu, batch_size=100), rel=1e-14)
    sizes = loss_floor(8, batch_size=[10, 100, 1000, 10**9])
    assert np.all(np.diff(sizes) > 0)
    assert sizes[-1] == pytest.approx(loss_floor(8), rel=1e-7)


def test_bad_input():
    with pytest.raises(ValueError, match="radius must not be negative, got -1"):
        sphere_loss(3, radius=-1.0)
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        loss_floor(3, batch_size=1)
    with pytest.raises(ValueError, match="dim must be a whole number"):
        critical_mu(1)
    with pytest.raises(ValueError, match="mu must be finite"):
        sphere_is_minimizer(3, 0.5)
    with pytest.raises(ValueError, match="scale must be"):
        loss_floor(3, scale="exat")
