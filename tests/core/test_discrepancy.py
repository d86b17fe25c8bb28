"""The discrepancy of WAE-MMD and its kernel."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest

from eccentric_core import InverseMultiquadricKernel, InverseMultiquadricMixture, inverse_multiquadric_mmd
from eccentric_core.backend import backend_of

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(z, prior, scales=SCALES, variance=1.0):
    """As the official code has it, pair by pair."""
    z, prior = z.astype(np.float64), prior.astype(np.float64)
    (n, d), m, total = z.shape, len(prior), 0.0
    for s in scales:
        c = 2 * s * d * variance
        k = lambda x, y, c=c: c / (c + np.sum((x - y) ** 2))  # noqa: E731
        for x, size in ((z, n), (prior, m)):
            total += sum(k(x[i], x[j]) for i in range(size) for j in range(size) if i != j) / (size * (size - 1))
        total -= 2 / (n * m) * sum(k(x, y) for x in z for y in prior)
    return total


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "m"), [(40, 40), (70, 3), (2, 2)])
def test_against_a_double_loop(library, n, m, dtype, rng, tolerance):
    z = (2 * rng.standard_normal((n, 3)) + 1).astype(dtype)
    prior = rng.standard_normal((m, 3)).astype(dtype)
    value = inverse_multiquadric_mmd(library.array(z, dtype), library.array(prior, dtype))
    assert value.dtype == getattr(library.xp, dtype)
    assert tuple(value.shape) == ()
    assert abs(float(value) - mmd(z, prior)) <= 7 * tolerance[dtype]


def test_scales_and_variance(rng):
    z, prior = rng.standard_normal((2, 30, 3))
    value = inverse_multiquadric_mmd(z, prior, scales=np.asarray([3, 0.25]), prior_variance=4)
    assert value == pytest.approx(mmd(z, prior, (3, 0.25), 4), abs=1e-14)
    assert value == inverse_multiquadric_mmd(z, prior, scales=[3, np.float32(0.25)], prior_variance=4.0)
    # The prior may be measured in any unit.
    scaled = inverse_multiquadric_mmd(10 * z, 10 * prior, prior_variance=100.0)
    assert scaled == pytest.approx(inverse_multiquadric_mmd(z, prior), abs=1e-13)


def test_batches(library, rng):
    z, prior = rng.standard_normal((2, 3, 20, 4)), rng.standard_normal((2, 3, 8, 4))
    value = library.numpy(inverse_multiquadric_mmd(library.array(z), library.array(prior)))
    assert value.shape == (2, 3)
    assert value[1, 2] == pytest.approx(mmd(z[1, 2], prior[1, 2]), abs=1e-13)


def test_no_bias(rng):
    """Of two samples of one distribution it is 0 in the mean: the pairs of a row with itself are left out."""
    values = inverse_multiquadric_mmd(rng.standard_normal((2000, 10, 2)), rng.standard_normal((2000, 10, 2)))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(2000)
    assert np.mean(values < 0) > 0.4
    assert inverse_multiquadric_mmd(rng.standard_normal((200, 2)) + 2, rng.standard_normal((200, 2))) > 0.5


def test_half_precision(rng):
    z, prior = rng.standard_normal((2, 30, 4)).astype(np.float16)
    value = inverse_multiquadric_mmd(z, prior)
    assert value.dtype == np.float32
    assert float(value) == pytest.approx(mmd(z, prior), abs=1e-5)


def test_a_common_offset(rng):
    z, prior = (rng.standard_normal((2, 100, 8)) + 1000).astype(np.float32)
    assert abs(inverse_multiquadric_mmd(z, prior) - mmd(z, prior)) < 1e-5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_flows(rng, bad):
    for which in (0, 1):
        sets = rng.standard_normal((2, 70, 4))
        sets[which, 3, 1] = bad
        assert np.isnan(inverse_multiquadric_mmd(*sets))


def test_no_more_of_the_namespace_than_declared(offer, rng):
    z, prior = (array_api_strict.asarray(rows) for rows in rng.standard_normal((2, 20, 4)))
    known = float(inverse_multiquadric_mmd(z, prior))
    offer()
    assert float(inverse_multiquadric_mmd(z, prior)) == known


def test_the_kernel_and_its_derivatives(library):
    """Against central differences, and one scale against the kernel of one."""
    kernel, h = InverseMultiquadricMixture(SCALES), 1e-6
    t = np.concatenate([np.linspace(0, 3, 40) + 1e-3, [50.0, 1e4]])
    xp = backend_of(library.array(t)).xp
    value, slope, second = (
        library.numpy(f(library.array(t), xp)) for f in (kernel.value, kernel.slope, kernel.second_derivative)
    )
    np.testing.assert_allclose(value, sum(s / (s + t) for s in SCALES), rtol=1e-14)
    np.testing.assert_allclose(slope, (kernel.value(t + h, np) - kernel.value(t - h, np)) / (2 * h), atol=1e-8)
    np.testing.assert_allclose(second, (kernel.slope(t + h, np) - kernel.slope(t - h, np)) / (2 * h), atol=1e-6)
    both = kernel.value_and_slope(library.array(t), xp)
    for one, other in zip(both, (value, slope), strict=True):
        np.testing.assert_array_equal(library.numpy(one), other)
    one, plain = InverseMultiquadricMixture((1.0,)), InverseMultiquadricKernel()
    for name in ("value", "slope", "second_derivative"):
        np.testing.assert_allclose(getattr(one, name)(t, np), getattr(plain, name)(t, np), rtol=1e-14)
    assert hash(kernel) == hash(InverseMultiquadricMixture(SCALES))


def test_bad_input():
    z = np.zeros((4, 3))
    for arguments, options, error, message in (
        ((z[:1], z), {}, ValueError, "z must hold at least 2 rows"),
        ((z, z[:1]), {}, ValueError, "prior must hold at least 2 rows"),
        ((z, z[0]), {}, ValueError, "prior must have at least two axes"),
        ((z.tolist(), z), {}, TypeError, "z must be a plain array"),
        ((z, None), {}, TypeError, "prior must be a plain array"),
        (
            (z, array_api_strict.asarray(z)),
            {},
            TypeError,
            "prior must be of the library of z, got Array beside ndarray",
        ),
        ((z, z.astype(int)), {}, TypeError, "prior must be a real floating array"),
        ((z, z.astype(np.float32)), {}, TypeError, "prior must have the dtype of z, got float32 beside float64"),
        ((z, z[:, :2]), {}, ValueError, r"prior must have the leading axes and .*, got \(4, 2\) beside \(4, 3\)"),
        ((z, z[None]), {}, ValueError, "prior must have the leading axes"),
        ((z, z), {"scales": ()}, ValueError, "scales must be some positive numbers, got none"),
        ((z, z), {"scales": 1.0}, TypeError, "scales must be a sequence of positive numbers, got 1.0"),
        ((z, z), {"scales": "12"}, TypeError, "every one of scales must be a number, got '1'"),
        ((z, z), {"scales": (1.0, 0.0)}, ValueError, "every one of scales must be from .*, got 0.0"),
        ((z, z), {"scales": (1.0, "1")}, TypeError, "every one of scales must be a number, got '1'"),
        ((z, z), {"prior_variance": -1.0}, ValueError, "prior_variance must be from .*, got -1.0"),
        ((z, z), {"prior_variance": np.nan}, ValueError, "prior_variance must be finite, got nan"),
        ((z, z), {"prior_variance": [1.0]}, TypeError, r"prior_variance must be a number, got \[1.0\]"),
        ((z, z), {"prior_variance": 10**400}, ValueError, "prior_variance must be finite"),
        ((z, z), {"prior_variance": 9e289}, ValueError, "prior_variance times 2 d must be from"),
    ):
        with pytest.raises(error, match=message):
            inverse_multiquadric_mmd(*arguments, **options)
