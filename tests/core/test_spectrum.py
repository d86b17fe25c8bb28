"""The spectrum of a batch, its principal components, and the alignment of two runs."""

from __future__ import annotations

import math
import pickle

import array_api_strict
import numpy as np
import pytest

from eccentric_core import align, mean_angle, spectrum


@pytest.fixture
def z(rng):
    return rng.standard_normal((200, 5)) * [1.0, 5.0, 3.0, 0.5, 2.0] @ rng.standard_normal((5, 5)) + 10.0


def test_the_covariance_is_what_it_is_made_of(z):
    s = spectrum(z)
    np.testing.assert_allclose(s.mean, z.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose((s.axes.T * s.eigenvalues) @ s.axes, np.cov(z.T, bias=True), rtol=0, atol=1e-12)
    np.testing.assert_allclose(s.axes @ s.axes.T, np.eye(5), rtol=0, atol=1e-14)
    assert np.all(np.diff(s.eigenvalues) < 0)
    assert s.trace == pytest.approx(np.mean(np.sum((z - z.mean(axis=0)) ** 2, axis=1)), rel=1e-14)
    singular = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(s.eigenvalues, singular**2 / 200, rtol=1e-12)


def test_eccentricity():
    """Known spectra: equal ones, one alone, and 4.5 and 0.5, whose population deviation is 2."""
    corners = np.vstack([np.eye(4), -np.eye(4)])
    assert spectrum(corners).eccentricity == pytest.approx(0.0, abs=1e-15)
    assert spectrum(corners * [1.0, 0.0, 0.0, 0.0]).eccentricity == pytest.approx(math.sqrt(3), rel=1e-14)
    assert spectrum(np.vstack([np.diag([3.0, 1.0]), -np.diag([3.0, 1.0])])).eccentricity == pytest.approx(0.8)


def test_signs_and_order_do_not_depend_on_the_batch(z):
    """A mirrored batch has the same axes, and each has a positive entry of largest magnitude."""
    s, mirrored = spectrum(z), spectrum(-z[::-1])
    np.testing.assert_allclose(mirrored.axes, s.axes, rtol=0, atol=1e-12)
    assert np.all(s.axes[np.arange(5), np.argmax(np.abs(s.axes), axis=1)] > 0)


def test_coordinates(z):
    s = spectrum(z)
    p = s.transform(z)
    np.testing.assert_allclose(p.mean(axis=0), 0.0, atol=1e-13)
    np.testing.assert_allclose(np.cov(p.T, bias=True), np.diag(s.eigenvalues), rtol=0, atol=1e-12)
    np.testing.assert_allclose(s.inverse_transform(p), z, rtol=0, atol=1e-12)
    np.testing.assert_allclose(s.transform(s.mean + 2.0 * s.axes[1]), [0, 2, 0, 0, 0], atol=1e-13)
    assert s.transform(z.reshape(2, 100, 5)).shape == (2, 100, 5)
    p[3, 1] = np.nan
    assert np.isnan(s.inverse_transform(p)).any(axis=1).nonzero()[0].tolist() == [3]


def test_a_sample_has_the_mean_and_the_covariance(z):
    s, count = spectrum(z), 200_000
    draws = s.sample(count, np.random.default_rng(1))
    assert draws.shape == (count, 5)
    # In units of their deviations, coordinates are independent standard normal numbers.
    standard = s.transform(draws) / np.sqrt(s.eigenvalues)
    assert np.abs(standard.mean(axis=0)).max() < 5 / math.sqrt(count)
    assert np.abs(np.cov(standard.T) - np.eye(5)).max() < 5 * math.sqrt(2 / count)
    np.testing.assert_array_equal(draws[:7], s.sample(7, np.random.default_rng(1)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 / 3])
def test_equal_rows(value):
    s = spectrum(np.full((7, 3), value))
    np.testing.assert_array_equal(s.eigenvalues, np.zeros(3))
    np.testing.assert_array_equal(s.mean, np.full(3, value))
    assert s.trace == 0
    assert math.isnan(s.eccentricity)
    np.testing.assert_array_equal(s.sample(4, np.random.default_rng(0)), np.full((4, 3), value))


def test_fewer_rows_than_dimensions(rng):
    """Rounding makes some eigenvalues negative; they have no square root."""
    s = spectrum(rng.standard_normal((4, 30)))
    assert np.all(s.eigenvalues >= 0)
    assert np.all(s.eigenvalues[3:] < 1e-14)
    assert np.all(np.isfinite(s.sample(5, rng)))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_library_and_dtype(z, dtype):
    rows = z.astype(dtype)
    s = spectrum(rows)
    assert s.eigenvalues.dtype == s.mean.dtype == s.axes.dtype == np.float64
    np.testing.assert_array_equal(s.eigenvalues, spectrum(rows.astype(np.float64)).eigenvalues)
    if dtype == "float32":
        np.testing.assert_array_equal(s.eigenvalues, spectrum(array_api_strict.asarray(rows)).eigenvalues)
    np.testing.assert_array_equal(spectrum(z.tolist()).axes, spectrum(z).axes)
    assert z.flags.writeable


def test_it_can_be_stored(z):
    s, alignment = pickle.loads(pickle.dumps((spectrum(z), align(z, z))))
    np.testing.assert_array_equal(s.axes, spectrum(z).axes)
    np.testing.assert_array_equal(alignment.permutation, np.arange(5))


def test_align_undoes_a_permutation_and_signs(z, rng):
    """Up to noise; found on the training set, applied to others."""
    a = spectrum(z).transform(z)
    permutation, signs = rng.permutation(5), rng.choice([-1.0, 1.0], 5)
    b = (a + 0.01 * rng.standard_normal(a.shape))[:, permutation] * signs
    offset = 100.0 * np.arange(5)  # it would match every component with itself
    alignment = align(a[:150] + offset, b[:150] + offset)
    np.testing.assert_array_equal(permutation[alignment.permutation], np.arange(5))
    assert set(alignment.signs.tolist()) == {-1.0, 1.0}
    np.testing.assert_allclose(alignment.apply(b[150:]), a[150:], rtol=0, atol=0.06)


def test_align_is_best_among_all_permutations_not_greedy():
    """The largest entry of the cross-covariance, 10, is not taken: 9 + 9 is more than 10 + 1."""
    a = np.vstack([np.eye(2), -np.eye(2)])
    b = a @ np.asarray([[10.0, -9.0], [9.0, 1.0]])
    alignment = align(a, b)
    assert alignment.permutation.tolist() == [1, 0]
    assert alignment.signs.tolist() == [-1.0, 1.0]


def test_the_sign_of_zero_is_positive():
    alignment = align(np.asarray([[1.0, 2.0], [-1.0, 2.0]]), np.asarray([[3.0, 1.0], [-3.0, 1.0]]))
    assert alignment.permutation.tolist() == [0, 1]
    assert alignment.signs.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 1e-5, 30.0, 90.0, 179.0, 180.0 - 1e-9, 180.0])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_mean_angle(degrees, size):
    a = np.tile([size, 0.0, 0.0], (4, 1))
    turned = np.asarray([math.cos(math.radians(degrees)), 0.0, math.sin(math.radians(degrees))])
    assert mean_angle(a, 3.0 * np.tile(turned, (4, 1))) == pytest.approx(degrees, rel=1e-14, abs=1e-13)


def test_mean_angle_of_independent_rows(rng):
    assert mean_angle(*rng.standard_normal((2, 100_000, 8))) == pytest.approx(90.0, abs=0.3)
    assert mean_angle([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 2.0]]) == pytest.approx(45.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite(bad):
    rows = np.ones((3, 2))
    rows[1] = bad
    assert math.isnan(mean_angle(rows, np.ones((3, 2))))


def test_a_row_without_direction():
    good, bad = np.ones((4, 2)), np.ones((4, 2))
    bad[[1, 3]] = 0.0
    for arguments, name in (((bad, good), "a"), ((good, bad), "b")):
        with pytest.raises(ValueError, match=rf"^{name} must have no row of zeros.*got 2 of 4, the first at index 1;"):
            mean_angle(*arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_what_is_not_finite_has_no_spectrum(z, bad):
    z = z.copy()
    good, z[3, 2] = z.copy(), bad
    with pytest.raises(ValueError, match="z must be finite, with squares that float64 can hold"):
        spectrum(z)
    with pytest.raises(ValueError, match="a and b must be finite"):
        align(z, good * 1e150)


def test_bad_input(z):
    s = spectrum(z)

    class Tensor:
        def __array__(self, *_, **__):
            raise RuntimeError("call detach")

    for value, error, message in (
        (z[0], ValueError, "z must have at least two axes"),
        (z[None], ValueError, r"z must have shape \(n, d\), got \(1, 200, 5\)"),
        (z[:1], ValueError, "z must hold at least 2 rows"),
        (z[:, :0], ValueError, "z must have at least 1 latent dimension"),
        (z.astype(int), TypeError, "z must be a real floating array .*, got int64"),
        (z + 0j, TypeError, "z must be a real floating array"),
        (None, TypeError, "z must be a real floating array .*, got object"),
        ([[1.0], [1.0, 2.0]], TypeError, "z must be an array that NumPy can convert, got list"),
        (Tensor(), TypeError, r"z must be an array that NumPy can convert, got Tensor: call detach; .*\.detach\(\)"),
        (np.ma.masked_array(z), TypeError, "z must be a plain array, got MaskedArray"),
    ):
        with pytest.raises(error, match=message):
            spectrum(value)
    with pytest.raises(ValueError, match=r"z must have shape \(\.\.\., 5\), the dimension of this spectrum"):
        s.transform(z[:, :4])
    with pytest.raises(ValueError, match=r"p must have shape \(\.\.\., 5\)"):
        s.inverse_transform(z[:, :1])
    with pytest.raises(ValueError, match=r"b must have shape \(\.\.\., 5\), the dimension of this alignment"):
        align(z, z).apply(z[:, :1])
    with pytest.raises(ValueError, match="b must have the shape of a, one row per item"):
        align(z, z[:-1])
    with pytest.raises(ValueError, match="a must hold at least 1 row "):
        mean_angle(z[:0], z[:0])
    with pytest.raises(
        TypeError, match=r"rng must be a numpy\.random\.Generator, got 0; use numpy\.random\.default_rng"
    ):
        s.sample(3, 0)
    for count in (-1, 2.0, True):
        with pytest.raises(ValueError, match="count must be a whole number, 0 or more"):
            s.sample(count, np.random.default_rng(0))
