"""Hyperspherical energies: the published formulas, known minima, and the edges."""

from __future__ import annotations

import itertools
from functools import partial

import array_api_strict
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from eccentric_core import (
    AngularKernel,
    AntipodalKernel,
    GaussianKernel,
    RieszKernel,
    hyperspherical_energy,
    hyperspherical_energy_and_grad,
    uniformity,
)
from eccentric_core.backend import backend_of
from eccentric_core.energies.hyperspherical import EnergyOptions, energy_of, mean_energy, mean_energy_and_grad
from eccentric_core.numpy_backend import BACKEND as NUMPY

VARIANTS = [
    {"half_space": half_space, "angular": angular, "normalization": normalization}
    for half_space, angular, normalization in itertools.product((False, True), (False, True), ("paper", "official"))
]


def name_of(variant):
    return f"{'half ' * variant['half_space']}{'angular ' * variant['angular']}{variant['normalization']}"


def neurons(rng, n, dim):
    """Rows of lengths from 0.5 to 3."""
    w = rng.standard_normal((n, dim))
    return w / np.linalg.norm(w, axis=1, keepdims=True) * rng.uniform(0.5, 3, (n, 1))


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@pytest.mark.parametrize("s", [0, 1, 2, 3.5])
def test_published_formulas(library, s, variant, rng, tolerance):
    w = neurons(rng, 60, 8)
    value, grad = hyperspherical_energy_and_grad(library.array(w), s, **variant)
    expected = oracle.hyperspherical(w, s, **variant)
    assert tuple(value.shape) == ()
    assert abs(float(value) - expected) <= tolerance["float64"] * abs(expected)
    assert float(hyperspherical_energy(library.array(w), s, **variant)) == pytest.approx(float(value), rel=1e-14)
    u = rng.standard_normal(w.shape)
    slope = oracle.along(lambda w: oracle.hyperspherical(w, s, **variant), w, u)
    grad = library.numpy(grad)
    assert abs(np.sum(grad * u) - slope) <= 1e-8 * np.linalg.norm(grad)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@pytest.mark.parametrize("s", [0, 2])
def test_several_tiles(s, variant, rng, tolerance, tiles):
    """With a rest, value and gradient."""
    w = neurons(rng, 110, 5)
    one = hyperspherical_energy_and_grad(w, s, **variant)
    with tiles(30):
        other, value = hyperspherical_energy_and_grad(w, s, **variant), hyperspherical_energy(w, s, **variant)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-13 * np.abs(a).max())
    assert abs(value - oracle.hyperspherical(w, s, **variant)) <= tolerance["float64"] * abs(one[0])


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@pytest.mark.parametrize("tile_rows", [None, 7])
def test_batches_of_the_mean_energy(library, tile_rows, variant, rng, tiles):
    """Compressive energies have one for every projection."""
    w = rng.standard_normal((2, 3, 20, 5))
    energy, backend = energy_of("float64", EnergyOptions(1.0, **variant)), backend_of(library.array(w))
    with tiles(tile_rows):
        alone = library.numpy(mean_energy(backend, library.array(w), energy=energy))
        value, grad = map(library.numpy, mean_energy_and_grad(backend, library.array(w), energy=energy))
    assert alone.shape == value.shape == (2, 3)
    for i in np.ndindex(2, 3):
        one, of_one = mean_energy_and_grad(NUMPY, w[i], energy=energy)
        assert alone[i] == pytest.approx(one, rel=1e-13)
        assert value[i] == pytest.approx(one, rel=1e-13)
        np.testing.assert_allclose(grad[i], of_one, rtol=0, atol=1e-13 * np.abs(of_one).max())


def lowest(n, dim, s, starts, **variant):
    """The lowest energy that descent from some random starts reaches."""

    def f(x):
        value, grad = hyperspherical_energy_and_grad(x.reshape(n, dim), s, **variant)
        return float(value), grad.ravel()

    runs = [np.random.default_rng(seed).standard_normal(n * dim) for seed in range(starts)]
    options = {"maxiter": 5000, "ftol": 0, "gtol": 1e-10, "maxcor": 30}
    return min(minimize(f, x, jac=True, method="L-BFGS-B", options=options).fun for x in runs)


@pytest.mark.parametrize(
    ("n", "known"), [(4, 3.674234614), (5, 6.474691495), (6, 9.985281374), (12, 49.165253058), (32, 412.261274651)]
)
def test_thomson_problem(n, known):
    """Electrons on a sphere: the known minima of the sum over pairs of 1/distance."""
    assert lowest(n, 3, 1, starts=6) * n * (n - 1) / 2 == pytest.approx(known, abs=1e-8)


@pytest.mark.parametrize("s", [0, 1, 2])
@pytest.mark.parametrize(("n", "dim"), [(2, 3), (4, 4), (3, 7)])
def test_orthogonal_rows_are_the_minimum_of_the_half_space(n, dim, s):
    """Of n <= D. Every row is 2 away from its mirror image and sqrt(2) from the others."""
    far, near = (-np.log(2), -np.log(2) / 2) if s == 0 else (2.0**-s, 2.0 ** (-s / 2))
    known = (far + (2 * n - 2) * near) / (2 * n - 1)
    assert hyperspherical_energy(3 * np.eye(dim)[:n], s, half_space=True) == pytest.approx(known, rel=1e-14)
    assert lowest(n, dim, s, starts=3, half_space=True) == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize("s", [0, 1, 2])
@pytest.mark.parametrize(("n", "dim"), [(3, 2), (6, 5), (4, 8)])
def test_the_simplex_is_the_minimum_of_few_rows(n, dim, s):
    """Of n <= D + 1: all squared distances are 2 n/(n - 1)."""
    square = 2 * n / (n - 1)
    known = -0.5 * np.log(square) if s == 0 else square ** (-s / 2)
    simplex = np.eye(n) - 1 / n
    assert hyperspherical_energy(simplex, s) == pytest.approx(known, rel=1e-14)
    assert lowest(n, dim, s, starts=3) == pytest.approx(known, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2, 3.5]), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=30)
def test_invariances(seed, s, half_space, angular):
    """Lengths of rows, their order and rotations don't count; in half-space nor do signs."""
    rng = np.random.default_rng(seed)
    w = neurons(rng, 12, 6)
    f = partial(hyperspherical_energy, s=s, half_space=half_space, angular=angular)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    others = [w * rng.uniform(0.1, 10, (12, 1)), rng.permutation(w), w @ rotation]
    if half_space:
        others.append(w * rng.choice([-1, 1], (12, 1)))
    for other in others:
        assert f(other) == pytest.approx(f(w), rel=1e-11)


@pytest.mark.parametrize("s", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("n", [2, 30, 500])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coincident_rows_have_the_documented_value(n, s, dtype, rng):
    """And no force beyond what a typical pair has."""
    w = np.tile(rng.standard_normal((1, 7)), (n, 1)).astype(dtype)
    eps = np.finfo(dtype).eps ** (2 / (s + 2))
    known = 0.5 - 0.5 * np.log(eps) if s == 0 else (1 + s / 2) * eps ** (-s / 2)
    value, grad = hyperspherical_energy_and_grad(w, s)
    assert value == pytest.approx(known, rel=1e-3)  # the distance is 0 up to rounding
    assert np.linalg.norm(grad) <= 1.0
    assert hyperspherical_energy(w, s, eps=0.25) == pytest.approx(
        0.5 - 0.5 * np.log(0.25) if s == 0 else (1 + s / 2) * 0.25 ** (-s / 2), rel=1e-3
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@pytest.mark.parametrize("s", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coincident_and_opposite_rows_are_finite(s, variant, dtype, rng):
    """A pair of each among others, whose own forces are not lost."""
    w = neurons(rng, 70, 7)
    w[1], w[2] = w[0], -w[0]
    value, grad = hyperspherical_energy_and_grad(w.astype(dtype), s, **variant)
    assert np.isfinite(value)
    assert np.all(np.isfinite(grad))
    assert np.linalg.norm(grad) < 1000
    assert np.linalg.norm(grad[3:]) > 0.001


def test_opposite_rows_are_no_singularity_of_the_full_space(rng):
    w = neurons(rng, 20, 5)
    w[1] = -2 * w[0]
    for variant in VARIANTS:
        if not variant["half_space"]:
            value = hyperspherical_energy(w, 2, **variant)
            # Next to -1 the arc cosine of the oracle loses half of its digits.
            assert value == pytest.approx(float(oracle.hyperspherical(w, 2, **variant)), rel=1e-10)


def test_a_row_of_zeros_is_orthogonal_to_all(rng):
    w = neurons(rng, 10, 5)
    w[3] = 0
    value, grad = hyperspherical_energy_and_grad(w, 2)
    u = np.where(w == 0, 0, w) / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)
    i, j = np.triu_indices(10, 1)
    assert value == pytest.approx(np.mean(1 / (2 - 2 * np.sum(u[i] * u[j], axis=1))), rel=1e-13)
    assert np.all(grad[3] == 0)
    assert np.all(np.isfinite(grad))
    value, grad = hyperspherical_energy_and_grad(w, 2, normalization="official")
    assert value == pytest.approx(float(oracle.hyperspherical(w, 2, normalization="official")), rel=1e-13)
    assert np.linalg.norm(grad[3]) > 0


def test_eps_of_the_official_norm(rng):
    w = neurons(rng, 10, 5)
    u = w / np.sqrt(np.sum(w * w, axis=1, keepdims=True) + 0.3)
    i, j = np.triu_indices(10, 1)
    known = np.mean(1 / (2 - 2 * np.sum(u[i] * u[j], axis=1)))
    assert hyperspherical_energy(w, 2, normalization="official", eps=0.3) == pytest.approx(known, rel=1e-13)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_float32(variant, rng, tolerance):
    w = neurons(rng, 300, 16).astype(np.float32)
    value, grad = hyperspherical_energy_and_grad(w, 2, **variant)
    assert value.dtype == grad.dtype == np.float32
    true_value, true_grad = hyperspherical_energy_and_grad(w.astype(np.float64), 2, **variant)
    assert abs(value - true_value) <= tolerance["float32"] * abs(true_value)
    assert np.linalg.norm(grad - true_grad) <= tolerance["float32"] * np.linalg.norm(true_grad)


def test_neighbours_in_a_narrow_cone_in_float32(rng):
    """Where 2 - 2 cos has no digits left: the mean is taken out of directions, too."""
    w = (rng.standard_normal((200, 16)) * 1e-3 + np.eye(16)[0]).astype(np.float32)
    value, true_value = (hyperspherical_energy(w.astype(dtype), 0) for dtype in ("float32", "float64"))
    assert abs(value - true_value) <= 1e-3 * abs(true_value)


def test_half_precision_and_kernels_of_convolutions(rng):
    w = rng.standard_normal((16, 4, 3, 3)).astype(np.float16)
    value, grad = hyperspherical_energy_and_grad(w, 2, half_space=True)
    assert (value.dtype, grad.dtype, grad.shape) == (np.float32, np.float16, w.shape)
    assert value == pytest.approx(float(oracle.hyperspherical(w, 2, half_space=True)), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_flows(bad, rng):
    w = rng.standard_normal((70, 4))
    w[3, 1] = bad
    for variant in VARIANTS:
        value, grad = hyperspherical_energy_and_grad(w, 2, **variant)
        assert np.isnan(value)
        assert np.isnan(grad[3]).all()
    assert np.isnan(uniformity(w))


def test_an_overflowing_norm_is_not_hidden(rng):
    w = rng.standard_normal((70, 4)).astype(np.float32)
    w[3] *= 1e25
    assert np.isnan(hyperspherical_energy(w))


def test_no_more_of_the_namespace_than_declared(offer, rng):
    w = rng.standard_normal((20, 4))
    offer()
    for variant, s in itertools.product(VARIANTS, (0, 1, 2.5)):
        value, _ = hyperspherical_energy_and_grad(array_api_strict.asarray(w), s, **variant)
        assert float(value) == pytest.approx(float(hyperspherical_energy(w, s, **variant)), rel=1e-14)
    assert float(uniformity(array_api_strict.asarray(w))) == pytest.approx(float(uniformity(w)), rel=1e-14)


KERNELS = [
    *(RieszKernel(s, 1e-3) for s in (0, 1, 2, 3.5)),
    *(AngularKernel(s, 1e-3, 1e-16, *scale) for s in (0, 1, 2.5) for scale in ((1.0, 0.0), (1 / np.pi, 1e-4))),
    *(AntipodalKernel(kernel) for kernel in (RieszKernel(2, 1e-3), AngularKernel(1, 1e-3, 1e-16))),
    GaussianKernel(),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_kernels_and_their_derivatives(library, kernel):
    """Against central differences, also on the tangent below eps."""
    t, h = np.concatenate([np.linspace(0.05, 3.95, 40), [0.0, 2e-4, 9e-4, 1.2e-3]]), 1e-7
    xp = backend_of(library.array(t)).xp
    value, slope, second = (
        library.numpy(f(library.array(t), xp)) for f in (kernel.value, kernel.slope, kernel.second_derivative)
    )
    kept = (t > 0.01) | (not isinstance(kernel, AntipodalKernel))  # of angles a mirror image has its singularity there
    for f, df in ((kernel.value, slope), (kernel.slope, second)):
        numeric = (f(t + h, NUMPY.xp) - f(t - h, NUMPY.xp)) / (2 * h)
        np.testing.assert_allclose(df[kept], numeric[kept], rtol=2e-5, atol=1e-5 * np.median(np.abs(df)))
    both = kernel.value_and_slope(library.array(t), xp)
    for one, other in zip(both, (value, slope), strict=True):
        np.testing.assert_allclose(library.numpy(one), other, rtol=1e-15)
    assert hash(kernel) == hash(eval(repr(kernel)))


@pytest.mark.parametrize("t", [0.5, 2, 20])
def test_uniformity(library, t, rng, tolerance):
    z = rng.standard_normal((2, 40, 5))
    u = z / np.linalg.norm(z, axis=-1, keepdims=True)
    i, j = np.triu_indices(40, 1)
    known = np.log(np.mean(np.exp(-t * np.sum((u[:, i] - u[:, j]) ** 2, axis=-1)), axis=-1))
    value = library.numpy(uniformity(library.array(z), t))
    assert value.shape == (2,)
    np.testing.assert_allclose(value, known, rtol=0, atol=t * tolerance["float64"])
    assert uniformity(np.ones((9, 5)), t) == pytest.approx(0, abs=1e-14)
    assert uniformity(np.asarray([[1.0, 0], [-3, 0]]), t) == pytest.approx(-4 * t, rel=1e-14)


W = np.ones((4, 3))


@pytest.mark.parametrize(
    ("w", "options", "error", "message"),
    [
        (W[:1], {}, ValueError, "w must hold at least 2 rows"),
        (W[0], {}, ValueError, "w must have at least two axes"),
        (W.tolist(), {}, TypeError, "w must be a plain array"),
        (W.astype(int), {}, TypeError, "w must be a real floating array"),
        (np.ones((1, 3, 3)), {}, ValueError, "w must hold at least 2 rows"),
        (np.ones((4, 0, 3)), {}, ValueError, "w must have at least 1 latent dimension"),
        (W, {"s": -1}, ValueError, "s must be from 0 to 100, got -1"),
        (W, {"s": np.nan}, ValueError, "s must be finite, got nan"),
        (W, {"s": "2"}, TypeError, "s must be a number, 0 or more, got '2'"),
        (W, {"s": [2]}, TypeError, r"s must be a number, 0 or more, got \[2\]"),
        (W, {"s": True}, TypeError, "s must be a number, 0 or more, got True"),
        (W, {"half_space": 1}, TypeError, "half_space must be True or False, got 1"),
        (W, {"angular": "no"}, TypeError, "angular must be True or False, got 'no'"),
        (W, {"normalization": "mean"}, ValueError, 'normalization must be "paper" or "official", got \'mean\''),
        (W, {"eps": 0.0}, ValueError, "eps must be from 1e-30 to 1, got 0.0"),
        (W, {"eps": "1"}, TypeError, "eps must be None or a positive number, got '1'"),
        (W.astype(np.float32), {"s": 10, "eps": 1e-20}, ValueError, "eps must not be so small that .* overflows"),
    ],
)
def test_bad_input(w, options, error, message):
    with pytest.raises(error, match=message):
        hyperspherical_energy(w, **options)


@pytest.mark.parametrize(
    ("z", "t", "error", "message"),
    [
        (W[:1], 2, ValueError, "z must hold at least 2 rows"),
        (W, 0, ValueError, "t must be from 1e-06 to 175 in float64, got 0"),
        (W.astype(np.float32), 30, ValueError, "t must be from 1e-06 to 20 in float32, got 30"),
        (W, "2", TypeError, "t must be a positive number, got '2'"),
        (W, np.inf, ValueError, "t must be finite"),
    ],
)
def test_bad_input_of_uniformity(z, t, error, message):
    with pytest.raises(error, match=message):
        uniformity(z, t)


def test_other_numbers(rng):
    w = rng.standard_normal((10, 4))
    for s in (2, 2.0, np.float64(2), np.int64(2)):
        assert hyperspherical_energy(w, s, half_space=np.bool_(True)) == hyperspherical_energy(w, half_space=True)
