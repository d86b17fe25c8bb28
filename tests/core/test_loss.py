"""The loss and its gradient: the accuracy contract, the conformance of array libraries, the invariants, bad input."""

from __future__ import annotations

import itertools
import math

import array_api_strict
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccentric_core import (
    eccentric_loss,
    eccentric_loss_and_grad,
    kernel_scale,
    pair_kernel,
    repulsive_force,
)

HARD_CASES = oracle.hard_cases()


def errors(z, mu):
    """The errors of loss and gradient in the norms of the contract, against float64 sums over pairs."""
    loss, grad = eccentric_loss_and_grad(z, mu)
    return oracle.contract_errors(loss, grad, z, mu, float(kernel_scale(z.shape[1], mu)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mu", [0.6, 1.0, 2.5, 4.5, 16.5])
@pytest.mark.parametrize("name", HARD_CASES)
def test_accuracy_contract(name, mu, dtype, tolerance, tiles):
    z = HARD_CASES[name].astype(dtype)
    with tiles(64):
        loss_error, grad_error = errors(z, mu)
    assert loss_error <= tolerance[dtype]
    assert grad_error <= tolerance[dtype]


@pytest.mark.parametrize("mu", [1.0, 16.5, 64.5])
@pytest.mark.parametrize("copies", [2, 4, 25, 100])
@pytest.mark.parametrize("dim", [4, 64])
def test_many_duplicates_in_float32(dim, copies, mu, rng, tolerance):
    z = np.repeat(rng.standard_normal((200 // copies, dim)), copies, axis=0).astype(np.float32)
    assert max(errors(z, mu)) <= tolerance["float32"]


@pytest.mark.parametrize("mu", [1.0, 3.9])
def test_a_large_batch_in_float32(mu, rng, tolerance):
    """Many tiles. On the sphere the gradient tends to 0 as n grows, and the norm of 2z/n is the measure."""
    z = rng.standard_normal((8000, 32)).astype(np.float32)
    sphere = z / np.linalg.norm(z, axis=1, keepdims=True) * np.float32(np.sqrt(32))
    for batch, size in ((z, None), (sphere, np.linalg.norm(2 / 8000 * sphere))):
        loss, grad = eccentric_loss_and_grad(batch, mu)
        true_loss, true_grad = eccentric_loss_and_grad(batch.astype(np.float64), mu)
        assert abs(loss - true_loss) <= tolerance["float32"] * abs(true_loss)
        assert np.linalg.norm(grad - true_grad) <= tolerance["float32"] * (size or np.linalg.norm(true_grad))


@pytest.mark.parametrize("mu", [0.6, 1.0, 8.5])
def test_two_tight_clusters_far_apart_in_float32(mu, rng):
    z = 0.1 * rng.standard_normal((200, 8)) + 10.0 * (np.arange(200) % 2)[:, None]
    loss_error, grad_error = errors(z.astype(np.float32), mu)
    # The bound that the contract gives this case: eps max|z - mean|^2 / M is not small within a cluster.
    assert loss_error <= 5e-5
    assert grad_error <= 5e-5


@pytest.mark.parametrize("n", [2, 3, 5, 12, 64, 65, 200])
@pytest.mark.parametrize("dim", [2, 8, 64])
def test_an_outlier_among_few_rows_in_float32(dim, n, rng, tolerance):
    """It drags the mean away from all others."""
    for mu in (0.6, 1.0, 2.5, dim + 0.5):
        z = rng.standard_normal((n, dim))
        z[0] += 1e4 / np.sqrt(dim)
        assert max(errors(z.astype(np.float32), mu)) <= tolerance["float32"]


@pytest.mark.parametrize("mu", [0.6, 1.0, 3.5])
def test_float64_against_40_digits(mu, rng, tolerance):
    z = rng.standard_normal((6, 3))
    scale = float(kernel_scale(3, mu))
    loss, grad = eccentric_loss_and_grad(z, mu)
    true_loss, true_grad = oracle.loss_and_grad_mp(z, mu, scale)
    assert abs(loss - true_loss) <= tolerance["float64"] * abs(true_loss)
    np.testing.assert_allclose(grad, np.array(true_grad, dtype=np.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tile_rows", [None, 7, 1000])
@pytest.mark.parametrize("scale", ["paper", "exact", 3.0])
def test_every_library(library, scale, tile_rows, dtype, rng, tolerance, tiles):
    values = rng.standard_normal((50, 5)).astype(dtype)
    z = library.array(values, dtype)
    with tiles(tile_rows):
        loss, grad = eccentric_loss_and_grad(z, 1.5, scale=scale)
        alone = eccentric_loss(z, 1.5, scale=scale)
    number = scale if isinstance(scale, float) else float(kernel_scale(5, 1.5, method=scale))
    true_loss, true_grad = oracle.loss_and_grad(values, 1.5, number)
    assert type(grad) is type(z)
    assert loss.shape == ()
    assert loss.dtype == z.dtype
    assert grad.dtype == z.dtype
    assert grad.shape == z.shape
    assert float(loss) == pytest.approx(true_loss, rel=tolerance[dtype])
    error = np.linalg.norm(library.numpy(grad) - true_grad) / np.linalg.norm(true_grad)
    assert error <= tolerance[dtype]
    assert float(alone) == float(loss)


@pytest.mark.parametrize("scale", ["paper", "exact", 3.0])
@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_that_are_tensors(library, dtype, lead, scale, rng, tolerance):
    """Mu and M in any dtype, and numbers of NumPy: all as numbers of Python."""
    z = library.array(rng.standard_normal((*lead, 70, 5)), dtype)
    expected = [library.numpy(one) for one in eccentric_loss_and_grad(z, 1.5, scale=scale)]
    # Arrays of NumPy stand for numbers; those of array-api-strict are tensors.
    kinds = [np.float32, np.float64, np.asarray]
    kinds += [
        lambda number, to=to: library.xp.asarray(number, dtype=to) for to in (library.xp.float32, library.xp.float64)
    ]
    for kind, other in itertools.product(kinds, [*kinds, float]):
        number = scale if isinstance(scale, str) else other(scale)
        loss, grad = eccentric_loss_and_grad(z, kind(1.5), scale=number)
        assert loss.dtype == grad.dtype == z.dtype
        assert tuple(loss.shape) == lead
        assert library.numpy(eccentric_loss(z, kind(1.5), scale=number)) == pytest.approx(library.numpy(loss), rel=1e-6)
        np.testing.assert_allclose(library.numpy(loss), expected[0], rtol=tolerance[dtype])
        error = np.linalg.norm(library.numpy(grad) - expected[1])
        assert error <= tolerance[dtype] * np.linalg.norm(expected[1])
    assert eccentric_loss(z, 2, scale=3).dtype == z.dtype
    np.testing.assert_array_equal(
        library.numpy(eccentric_loss(z, np.int64(2), scale=np.int32(3))),
        library.numpy(eccentric_loss(z, 2.0, scale=3.0)),
    )


@pytest.mark.parametrize("lead", [(3,), (2, 3), (1, 1), (0,), (40,)])
def test_leading_axes_are_batches(library, lead, rng, tiles):
    values = rng.standard_normal((*lead, 20, 4))
    # With tiles of 25 rows a chunk holds one batch of 20 rows, so that chunking is at work too.
    with tiles(25):
        loss, grad = eccentric_loss_and_grad(library.array(values))
    assert tuple(loss.shape) == lead
    assert tuple(grad.shape) == values.shape
    for index in itertools.product(*map(range, lead)):
        one_loss, one_grad = eccentric_loss_and_grad(values[index])
        assert library.numpy(loss)[index] == pytest.approx(one_loss, rel=1e-13)
        np.testing.assert_allclose(library.numpy(grad)[index], one_grad, rtol=0, atol=1e-14)


def test_half_precision_is_computed_in_float32(rng):
    z = rng.standard_normal((40, 6)).astype(np.float16)
    loss, grad = eccentric_loss_and_grad(z)
    loss32, grad32 = eccentric_loss_and_grad(z.astype(np.float32))
    assert (loss.dtype, grad.dtype) == (np.float32, np.float16)
    assert loss == loss32
    np.testing.assert_array_equal(grad, grad32.astype(np.float16))


def test_gradient_is_the_derivative(rng):
    """The remainder of Taylor's first-order formula falls with the square of the step."""
    z, direction = rng.standard_normal((2, 30, 5))
    loss, grad = eccentric_loss_and_grad(z, 2.0)
    steps = np.array([1e-1, 1e-2, 1e-3])
    remainder = [abs(eccentric_loss(z + h * direction, 2.0) - loss - h * np.sum(grad * direction)) for h in steps]
    slopes = np.diff(np.log(remainder)) / np.diff(np.log(steps))
    np.testing.assert_allclose(slopes, 2.0, atol=0.1)


def test_loss_is_the_mean_of_the_kernel_over_pairs(library, rng):
    values = rng.standard_normal((12, 4))
    z = library.array(values)
    kernel = library.numpy(pair_kernel(z[:, None, :], z[None, :, :], 1.5))
    off_diagonal = kernel[~np.eye(12, dtype=bool)]
    assert float(eccentric_loss(z, 1.5)) == pytest.approx(np.mean(off_diagonal), rel=1e-13)


@pytest.mark.parametrize("scale", ["paper", "exact", 3.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_parameters_of_the_kernel_that_are_tensors(library, dtype, scale, rng, tolerance):
    x, y = (library.array(rows, dtype) for rows in rng.standard_normal((2, 6, 4)))
    m = scale if isinstance(scale, float) else float(kernel_scale(4, 1.5, method=scale))
    difference = library.numpy(x) - library.numpy(y)
    expected = np.sum(library.numpy(x) ** 2 + library.numpy(y) ** 2, axis=1) / 2
    expected = expected - 1.5 * m * np.log1p(np.sum(difference**2, axis=1) / m)
    for mu in (1.5, np.float32(1.5), np.asarray(1.5), library.xp.asarray(1.5)):
        for one in (scale, scale if isinstance(scale, str) else library.xp.asarray(scale)):
            value = pair_kernel(x, y, mu, scale=one)
            assert value.dtype == x.dtype
            np.testing.assert_allclose(library.numpy(value), expected, rtol=0, atol=5 * tolerance[dtype])


def test_force_is_the_derivative_of_the_kernel(rng):
    """The repulsive part of dK/dx, as in section 2: 2 mu (x - y)/(1 + |x - y|^2/M), and -x is the rest."""
    mu, dim = 2.0, 6
    x, y = rng.standard_normal((2, dim))
    h = 1e-6
    slope = [(pair_kernel(x + h * e, y, mu) - pair_kernel(x - h * e, y, mu)) / (2 * h) for e in np.eye(dim)]
    distance = np.linalg.norm(x - y)
    force = float(repulsive_force(distance, dim, mu))
    np.testing.assert_allclose(slope, x - force * (x - y) / distance, atol=1e-8)


def test_force_has_its_maximum_at_the_root_of_m():
    root = float(np.sqrt(kernel_scale(64, 1.0)))
    r = np.linspace(0, 50, 100_001)
    force = repulsive_force(r, 64, 1.0)
    assert r[np.argmax(force)] == pytest.approx(root, abs=1e-3)
    assert np.max(force) == pytest.approx(root, rel=1e-8)  # mu sqrt(M), with mu = 1
    assert repulsive_force(1e250, 64) == pytest.approx(2 * kernel_scale(64) / 1e250, rel=1e-14)
    np.testing.assert_array_equal(repulsive_force([0.0, np.inf, np.nan], 64), [0.0, 0.0, np.nan])
    assert repulsive_force(1e308, 4, scale=1e-300) == 0


# The invariants.

batches = st.tuples(st.integers(2, 40), st.integers(2, 9), st.integers(0, 2**32 - 1), st.floats(0.01, 100))


def make(batch):
    n, d, seed, size = batch
    rng = np.random.default_rng(seed)
    return size * rng.standard_normal((n, d)), rng


@settings(deadline=None, max_examples=50)
@given(batches, st.floats(0.55, 20), st.integers(1, 50))
def test_any_tile_gives_the_same(tiles, batch, mu, tile_rows):
    z, _ = make(batch)
    loss, grad = eccentric_loss_and_grad(z, mu)
    with tiles(tile_rows):
        other_loss, other_grad = eccentric_loss_and_grad(z, mu)
    size = max(abs(loss), np.mean(np.sum(z**2, axis=1)))
    assert abs(other_loss - loss) <= 1e-13 * size
    assert np.linalg.norm(other_grad - grad) <= 1e-12 * np.linalg.norm(z)


@settings(deadline=None, max_examples=50)
@given(batches, st.floats(0.55, 20))
def test_permutation_and_rotation(batch, mu):
    z, rng = make(batch)
    order = rng.permutation(z.shape[0])
    rotation = np.linalg.qr(rng.standard_normal((z.shape[1], z.shape[1])))[0]
    loss, grad = eccentric_loss_and_grad(z, mu)
    moved_loss, moved_grad = eccentric_loss_and_grad(z[order] @ rotation, mu)
    size = max(abs(loss), np.mean(np.sum(z**2, axis=1)))
    assert abs(moved_loss - loss) <= 1e-12 * size
    assert np.linalg.norm(moved_grad - grad[order] @ rotation) <= 1e-12 * np.linalg.norm(z)


@settings(deadline=None, max_examples=50)
@given(batches, st.floats(0.55, 20), st.floats(-50, 50))
def test_repulsion_ignores_a_translation(batch, mu, shift):
    """Moving the batch changes the attraction alone."""
    z, _ = make(batch)
    loss, grad = eccentric_loss_and_grad(z, mu)
    moved_loss, moved_grad = eccentric_loss_and_grad(z + shift, mu)
    attraction = np.mean(np.sum((z + shift) ** 2, axis=1)) - np.mean(np.sum(z**2, axis=1))
    size = max(abs(loss), np.mean(np.sum(z**2, axis=1)), np.mean(np.sum((z + shift) ** 2, axis=1)))
    assert abs(moved_loss - loss - attraction) <= 1e-11 * size
    assert np.linalg.norm(moved_grad - grad - 2 * shift / len(z)) <= 1e-11 * np.linalg.norm(np.abs(z) + abs(shift))


@settings(deadline=None, max_examples=50)
@given(batches, st.floats(0.55, 20))
def test_a_number_as_scale_is_m(batch, mu):
    z, _ = make(batch)
    assert eccentric_loss(z, mu, scale=float(kernel_scale(z.shape[1], mu))) == eccentric_loss(z, mu)


def test_one_dimension_with_a_number_as_scale():
    z = np.array([[0.0], [1.0]])
    assert float(eccentric_loss(z, 1.0, scale=1.0)) == pytest.approx(0.5 - math.log(2))


# NaN and infinity are never hidden.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tile_rows", [None, 8])
@pytest.mark.parametrize("row", [0, 17])
def test_nan_and_infinity_reach_the_loss(bad, row, tile_rows, rng, tiles):
    z = rng.standard_normal((30, 4))
    z[row, 2] = bad
    with tiles(tile_rows):
        loss, grad = eccentric_loss_and_grad(z)
        alone = eccentric_loss(z)
    assert not np.isfinite(loss)
    assert not np.isfinite(alone)
    assert not np.all(np.isfinite(grad[row]))


# Bad input: the argument, what was expected, what came.

GOOD = np.zeros((4, 3))


@pytest.mark.parametrize("function", [eccentric_loss, eccentric_loss_and_grad])
@pytest.mark.parametrize(
    ("z", "options", "error", "words"),
    [
        (GOOD, {"mu": 0.5}, ValueError, ["mu", "1/2", "0.5"]),
        (GOOD, {"mu": math.nan}, ValueError, ["mu", "finite", "nan"]),
        (GOOD, {"mu": math.inf}, ValueError, ["mu", "finite", "inf"]),
        (
            GOOD,
            {"mu": "1"},
            TypeError,
            ["mu must be a real number or a 0-d tensor of the framework of the rows, got '1'"],
        ),
        (GOOD, {"mu": [1.0, 2.0]}, TypeError, ["mu", "real number", "a list of 2; call once per mu"]),
        (GOOD, {"mu": np.ones(2)}, TypeError, ["mu", "real number", "an array of shape (2,); call once per mu"]),
        (GOOD, {"mu": None}, TypeError, ["mu", "real number", "None"]),
        (GOOD, {"mu": True}, TypeError, ["mu", "real number", "True"]),
        (GOOD, {"mu": np.True_}, TypeError, ["mu", "real number", "True"]),
        (GOOD, {"mu": array_api_strict.asarray(1.0)}, TypeError, ["mu", "framework of the rows", "Array(1."]),
        (GOOD, {"mu": 10**400}, ValueError, ["mu", "finite", "inf"]),
        (GOOD, {"mu": 1e301}, ValueError, ["mu", "at most 1e+300", "1e+301"]),
        (
            GOOD,
            {"scale": np.ones(2)},
            TypeError,
            ["scale", "real number", "an array of shape (2,); call once per scale"],
        ),
        (GOOD, {"scale": array_api_strict.asarray(1.0)}, TypeError, ["scale", "framework of the rows", "Array(1."]),
        (GOOD, {"scale": np.inf}, ValueError, ["scale", "positive", "inf"]),
        (GOOD, {"scale": "papre"}, ValueError, ["scale", '"paper"', "papre"]),
        (GOOD, {"scale": -1.0}, ValueError, ["scale", "positive", "-1.0"]),
        (GOOD, {"scale": 0}, ValueError, ["scale", "positive", "0"]),
        (GOOD, {"scale": math.nan}, ValueError, ["scale", "positive", "nan"]),
        (GOOD, {"scale": None}, ValueError, ["scale", "positive", "None"]),
        (GOOD, {"scale": True}, ValueError, ["scale", "positive", "True"]),
        (GOOD, {"scale": [1.0, 2.0]}, TypeError, ["scale", "real number", "a list of 2; call once per scale"]),
        (GOOD[:, :1], {}, ValueError, ["z", "2 latent dimensions", "(4, 1)"]),
        (GOOD[:1], {}, ValueError, ["z", "2 rows", "n=1"]),
        (GOOD[:0], {}, ValueError, ["z", "2 rows", "n=0"]),
        (GOOD[:, :0], {"scale": 1.0}, ValueError, ["z", "1 latent dimension", "(4, 0)"]),
        (GOOD[0], {}, ValueError, ["z", "two axes", "(3,)"]),
        (GOOD.astype(np.int64), {}, TypeError, ["z", "floating", "int64", "convert"]),
        (GOOD.astype(np.complex128), {}, TypeError, ["z", "floating", "complex128"]),
        (GOOD.astype(bool), {}, TypeError, ["z", "floating", "bool"]),
        (GOOD.tolist(), {}, TypeError, ["z", "array", "list"]),
        (np.ma.masked_array(GOOD), {}, TypeError, ["z", "plain array", "MaskedArray"]),
        (GOOD, {"scale": ["3"]}, TypeError, ["scale", "real number", "a list of 1"]),
        (GOOD, {"scale": 1j}, TypeError, ["scale", "real number", "1j"]),
        (GOOD, {"scale": 10**400}, ValueError, ["scale", "positive"]),
        (GOOD, {"scale": 1e300}, ValueError, ["scale", "1e+290", "float64", "1e+300"]),
        (GOOD.astype(np.float32), {"scale": 1e-39}, ValueError, ["scale", "1e-30", "float32", "1e-39"]),
        (GOOD.astype(np.float32), {"mu": 1e35, "scale": 1.0}, ValueError, ["mu times scale", "float32"]),
        (None, {}, TypeError, ["z", "array", "NoneType"]),
    ],
)
def test_bad_input(function, z, options, error, words):
    with pytest.raises(error) as caught:
        function(z, **options)
    for word in words:
        assert word in str(caught.value)


def test_bad_input_of_the_kernel():
    with pytest.raises(TypeError, match=r"x must be a plain array .*, got list; make it an array first"):
        pair_kernel([1.0, 2.0], GOOD[0])
    with pytest.raises(TypeError, match=r"y must be a plain array .*, got tuple; make it an array first"):
        pair_kernel(GOOD[0], (1.0, 2.0))
    with pytest.raises(TypeError, match=r"y must be an array of shape \(\.\.\., d\) of the library of x, got Array"):
        pair_kernel(GOOD[0], array_api_strict.asarray(GOOD[0]))
    with pytest.raises(TypeError, match=r"x must be an array of shape \(\.\.\., d\) .*, got array\(0\.\)"):
        pair_kernel(np.asarray(0.0), GOOD[0])
    with pytest.raises(ValueError, match=r"scale \(M\) must be from .* in float64, got 1e\+300"):
        pair_kernel(GOOD[0], GOOD[1], scale=1e300)
    with pytest.raises(ValueError, match="at least 2 dimensions, got d=1; with d=1 give scale as a number"):
        pair_kernel(GOOD[0, :1], GOOD[0, :1])
    with pytest.raises(ValueError, match=r"same dimension and dtype.*\(3,\).*\(2,\)"):
        pair_kernel(GOOD[0], GOOD[0, :2])
    for arguments, options, words in (
        ((-1.0, 4), {}, "distance must not be negative, got -1"),
        (([math.nan, -1.0], 4), {}, "distance must not be negative, got -1 among 2 values"),
        ((1.0, 1), {"scale": 3.0}, "dim must be a whole number, 2 or more"),
        ((1.0, 4, 0.2), {"scale": 3.0}, "mu must be finite and greater than 1/2"),
        ((1.0, 4), {"scale": "papre"}, "scale must be"),
        ((1.0, 4), {"scale": 10**400}, 'scale must be "paper", "exact" or a positive finite number'),
    ):
        with pytest.raises(ValueError, match=words):
            repulsive_force(*arguments, **options)
    with pytest.raises(TypeError, match="mu must be a real number"):
        repulsive_force(1.0, 4, "x", scale=3.0)
    assert repulsive_force(1.0, [3, 4], scale=3.0).shape == (2,)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 16, 64])
@pytest.mark.parametrize("mu", [0.6, 8.5])
def test_accuracy_of_many_batches_of_few_rows(n, mu, tolerance):
    """Which float64 would slow down: an outlier must not take the digits of the others."""
    for name, z in oracle.hard_cases(n=4 * n, d=8).items():
        batch = np.stack([z[:n]] * (64 // n + 1)).astype(np.float32)
        loss, grad = eccentric_loss_and_grad(batch, mu)
        errors = oracle.contract_errors(loss[-1], grad[-1], batch[-1], mu, float(kernel_scale(8, mu)))
        assert max(errors) <= tolerance["float32"], name
