"""Hyperspherical and compressive energies in every framework and mode, against the published formulas."""

from __future__ import annotations

import itertools
from functools import cache, partial

import numpy as np
import oracle
import pytest
from frameworks import eager

from eccentric_core import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
    compressive_energy,
    hyperspherical_energy,
    hyperspherical_energy_and_grad,
    update_projection,
)

VARIANTS = [
    {"half_space": half_space, "angular": angular, "normalization": normalization}
    for half_space, angular, normalization in itertools.product((False, True), (False, True), ("paper", "official"))
]


def cases(indices, compiled, s=None):
    """Some of the variants, each with its s; those of compiled modes have each option once with and once without."""
    return [(pytest.param if k in compiled else eager)(*(() if s is None else (s[k],)), VARIANTS[k]) for k in indices]


# Every kind of formula, and every s with and without angles. The formulas are defined once: the tests of the core have
# all of them with every s.
CASES = cases(range(8), (2, 5), s=(0, 1, 3.5, 2, 2, 0, 1, 1))
# Half of them, each option with and without each other one.
HALF = cases((0, 3, 5, 6), (6,))


def name_of(variant):
    return f"{'half ' * variant['half_space']}{'angular ' * variant['angular']}{variant['normalization']}"


@cache
def _function(framework, name, options):
    return partial(getattr(framework.module, name), **dict(options))


def function(framework, name, **options):
    """The same function for the same arguments."""
    return _function(framework, name, tuple(options.items()))


def energy(framework, s, **variant):
    return function(framework, "hyperspherical_energy", s=s, **variant)


def neurons(rng, n, dim):
    """Rows of lengths from 0.5 to 3."""
    w = rng.standard_normal((n, dim))
    return w / np.linalg.norm(w, axis=1, keepdims=True) * rng.uniform(0.5, 3, (n, 1))


def agree(results, expected, tolerance, cotangent=1.0):
    assert abs(results[0] - expected[0]) <= tolerance * abs(expected[0])
    difference = np.linalg.norm(results[1].astype(np.float64) - cotangent * expected[1])
    assert difference <= tolerance * np.linalg.norm(cotangent * expected[1])


@pytest.mark.parametrize(("s", "variant"), CASES, ids=lambda value: name_of(value) if isinstance(value, dict) else None)
def test_official_and_paper_formulas(framework, s, variant, rng, tolerance):
    """To 1e-12 in float64; the gradient is that of the core, which has met central differences, and meets them here."""
    w, u = neurons(rng, 40, 6), rng.standard_normal((40, 6))
    value, grad = framework.value_and_grad(energy(framework, s, **variant), w, cotangent=-2.5)
    expected = oracle.hyperspherical(w, s, **variant)
    agree((value, grad), (expected, hyperspherical_energy_and_grad(w, s, **variant)[1]), tolerance["float64"], -2.5)
    slope = oracle.along(lambda w: oracle.hyperspherical(w, s, **variant), w, u)
    assert abs(np.sum(grad * u) + 2.5 * slope) <= 1e-8 * np.linalg.norm(grad)
    if s == 0:
        alone = framework.value(energy(framework, s, **variant), w)
        assert abs(alone - expected) <= tolerance["float64"] * abs(expected)


@pytest.mark.parametrize(
    ("dtype", "variant"),
    [eager("float64", VARIANTS[5]), ("float32", VARIANTS[6])],
    ids=["float64, half official", "float32, half angular paper"],
)
def test_several_tiles(framework, dtype, variant, rng, tolerance):
    w = neurons(rng, 1300, 9).astype(dtype)
    results = framework.value_and_grad(energy(framework, 1, **variant), w)
    assert all(result.dtype == dtype for result in results)
    agree(results, hyperspherical_energy_and_grad(w.astype(np.float64), 1, **variant), tolerance[dtype])


@pytest.mark.parametrize("dtype", [*(eager(name) for name in ("float16", "float32")), "bfloat16"])
def test_kernels_of_convolutions_in_every_dtype(framework, dtype, rng):
    # The inputs of a neuron must be known.
    shape = (70, 24) if framework.name == "tensorflow-unknown" else (70, 4, 3, 2)
    w = rng.standard_normal(shape)
    value, grad = framework.value_and_grad(energy(framework, 2), w, dtype=dtype, cotangent=1.0)
    rows = framework.numpy(framework.array(w, dtype)).astype(np.float64)
    true_value, true_grad = hyperspherical_energy_and_grad(rows, 2)
    assert (value.dtype, grad.dtype.name, grad.shape) == (np.float32, dtype, shape)
    assert abs(value - true_value) <= 1e-5 * true_value
    assert np.linalg.norm(grad.astype(np.float64) - true_grad) <= 1e-2 * np.linalg.norm(true_grad)


@pytest.mark.parametrize("variant", HALF, ids=name_of)
def test_second_derivatives(twice, variant, rng):
    if twice.plain:
        pytest.skip("the normalisation is differentiated by a framework")
    w, u = neurons(rng, 70, 6), rng.standard_normal((70, 6))
    (product,) = twice.hvp(energy(twice, 1.5, **variant), (w,), (u,))
    after, before = (hyperspherical_energy_and_grad(w + step * u, 1.5, **variant)[1] for step in (1e-6, -1e-6))
    np.testing.assert_allclose(product, (after - before) / 2e-6, rtol=0, atol=1e-6 * np.abs(product).max())


@pytest.mark.parametrize("variant", HALF, ids=name_of)
def test_coincident_and_opposite_rows_are_finite(framework, variant, rng):
    w = neurons(rng, 70, 7).astype(np.float32)
    w[1], w[2] = w[0], -w[0]
    value, grad = framework.value_and_grad(energy(framework, 2, **variant), w)
    true_value, _ = hyperspherical_energy_and_grad(w, 2, **variant)
    assert abs(value - true_value) <= 0.01 * true_value  # the distance of the pair is 0 up to rounding
    assert np.all(np.isfinite(grad))
    assert np.linalg.norm(grad) < 1000


@pytest.mark.eager
def test_a_row_of_zeros(framework, rng, tolerance):
    w = neurons(rng, 70, 7)
    w[3] = 0
    results = framework.value_and_grad(energy(framework, 2), w)
    agree(results, hyperspherical_energy_and_grad(w, 2), tolerance["float64"])
    assert np.all(results[1][3] == 0)


@pytest.mark.eager
def test_nan_flows(framework, rng):
    w = rng.standard_normal((70, 7))
    w[3, 2] = np.nan
    value, grad = framework.value_and_grad(energy(framework, 2, half_space=True), w)
    assert np.isnan(value)
    assert np.isnan(grad[3]).all()


@pytest.mark.parametrize(("t", "dtype"), [(2, "float64"), eager(0.5, "float32")])
def test_uniformity(differentiable, t, dtype, rng, tolerance):
    z, u = rng.standard_normal((2, 3, 70, 5)).astype(dtype)

    def known(z):
        x = z / np.sqrt(np.sum(z * z, axis=-1, keepdims=True))
        i, j = np.triu_indices(70, 1)
        return np.log(np.mean(np.exp(-t * np.sum((x[:, i] - x[:, j]) ** 2, axis=-1)), axis=-1))

    c = np.asarray([1.0, -2.0, 0.5])
    value, grad = differentiable.value_and_grad(function(differentiable, "uniformity", t=t), z, cotangent=c)
    assert value.dtype == grad.dtype == dtype
    np.testing.assert_allclose(value, known(z.astype(np.float64)), rtol=0, atol=2 * t * tolerance[dtype])
    slope = oracle.along(known, z, u)
    for k in range(3):
        limit = max(1e-9, tolerance[dtype]) * np.linalg.norm(grad[k]) * np.linalg.norm(u[k])
        assert abs(np.sum(grad[k] * u[k], dtype=np.float64) - c[k] * slope[k]) <= limit


@pytest.mark.parametrize("dtype", ["float64", eager("float32")])
def test_given_projections(differentiable, dtype, rng, tolerance):
    """The mean over matrices, with derivatives with respect to both."""
    w, matrices = neurons(rng, 30, 50).astype(dtype), rng.standard_normal((3, 8, 50)).astype(dtype)
    f = function(differentiable, "compressive_energy", s=1, half_space=True)
    value, of_w, of_matrices = differentiable.value_and_grad(f, w, matrices, cotangent=np.ones(()))
    parts = [hyperspherical_energy_and_grad(w.astype(float) @ p.T.astype(float), 1, half_space=True) for p in matrices]
    agree(
        (value, of_w),
        (np.mean([v for v, _ in parts]), sum(g @ p for (_, g), p in zip(parts, matrices, strict=True)) / 3),
        tolerance[dtype],
    )
    expected = np.stack([g.T @ w.astype(float) / 3 for _, g in parts])
    assert np.linalg.norm(of_matrices - expected) <= tolerance[dtype] * np.linalg.norm(expected)


def drawing(framework, projection):
    """The energy of rows and of a seed, as each framework draws: from a key, from a generator, or in its own way."""
    module = framework.module
    if framework.name.startswith("jax"):
        key = framework.jax.random.key
        return lambda w, seed: module.compressive_energy(w, projection, half_space=True, rng=key(seed))
    if framework.name.startswith("tensorflow"):

        def seeded(w, seed):
            framework.tf.random.set_seed(seed)
            return module.compressive_energy(w, projection, half_space=True)

        return seeded
    if framework.name.startswith("mlx"):
        key = framework.mx.random.key
        return lambda w, seed: module.compressive_energy(w, projection, half_space=True, rng=key(seed))
    if framework.plain:
        rng = np.random.default_rng
        return lambda w, seed: module.compressive_energy(w, projection, half_space=True, rng=rng(seed))

    def f(w, seed):
        framework.torch.manual_seed(seed)
        return module.compressive_energy(w, projection, half_space=True)

    return f


@pytest.mark.parametrize(
    "projection", ["random", "group", RandomProjection(60, 400), GroupProjection(3, of="neurons")], ids=str
)
def test_projections_are_drawn_anew_and_by_seed(framework, projection, rng):
    if framework.compiled and framework.name != "jax-jit":
        pytest.skip("a seed is set outside of what is compiled")
    w = neurons(rng, 30, 50)
    f = drawing(framework, projection)
    with framework.context(double=True):
        w = framework.array(w, "float64")
        one, again, other = (float(framework.numpy(f(w, seed))) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    rows = framework.numpy(w)
    typical = [compressive_energy(rows, projection, half_space=True, rng=rng) for _ in range(20)]
    assert abs(one - np.mean(typical)) <= 10 * np.std(typical)


@pytest.mark.parametrize("name", ["torch-compile", "tensorflow-function", "tensorflow-xla"])
@pytest.mark.parametrize("projection", ["random", "group"])
def test_compiled_calls_draw_anew(differentiable, name, projection, rng):
    if differentiable.name != name:
        pytest.skip("for compiled graphs with a generator inside")
    f = function(differentiable, "compressive_energy", projection=projection)
    w = neurons(rng, 30, 50)
    one, other = (differentiable.value(f, w) for _ in range(2))
    assert one != other
    assert abs(one - other) < 0.1


LEARNED = [AnglePreservingProjection(dim=6, rate=0.7, decay=0.1), AdversarialProjection(dim=6, rate=0.1, steps=3)]


@pytest.mark.parametrize(("rule", "dtype"), [(LEARNED[0], "float64"), (LEARNED[1], "float32")], ids=["kept", "raised"])
def test_learned_projections(differentiable, dtype, rule, rng, tolerance):
    """Steps as in the core, and derivatives with respect to the weights through the unrolled step."""
    w, u, matrix = neurons(rng, 30, 20).astype(dtype), rng.standard_normal((30, 20)), rng.standard_normal((6, 20))
    matrix = matrix.astype(dtype)
    module = differentiable.module
    step = _stepped(module, rule)
    after = differentiable.value(step, matrix, w)
    known = update_projection(LearnedProjection(matrix.astype(float), rule), w.astype(float), 1, half_space=True)
    assert after.dtype == dtype
    assert np.linalg.norm(after - known.matrix) <= tolerance[dtype] * np.linalg.norm(known.matrix)

    def reference(w):
        projection = LearnedProjection(matrix.astype(float), rule)
        return compressive_energy(w, projection, 1, half_space=True)

    value, of_w = differentiable.value_and_grad(_energy_of(differentiable, rule, matrix.tobytes(), dtype), w)
    assert abs(value - reference(w.astype(float))) <= tolerance[dtype] * abs(value)
    slope = (reference(w + 1e-6 * u) - reference(w - 1e-6 * u)) / 2e-6
    limit = max(1e-8, tolerance[dtype]) * np.linalg.norm(of_w) * np.linalg.norm(u)
    assert abs(np.sum(of_w * u) - slope) <= limit


@cache
def _stepped(module, rule):
    return lambda p, w: module.update_projection(LearnedProjection(p, rule), w, 1, half_space=True).matrix


@cache
def _energy_of(framework, rule, matrix, dtype):
    with framework.context(dtype == "float64"):
        matrix = framework.array(np.frombuffer(matrix, dtype).reshape(rule.dim, -1), dtype)
    energy = framework.module.compressive_energy
    return lambda w: energy(w, LearnedProjection(matrix, rule), 1, half_space=True)


@pytest.mark.parametrize("name", ["torch", "jax", "tensorflow"])
def test_no_derivative_with_respect_to_what_is_learned(differentiable, name, rng):
    """P has steps of its own; the loss of a network does not train it."""
    if differentiable.name != name:
        pytest.skip("eager modes are enough")
    module = differentiable.module
    w, matrix = neurons(rng, 30, 20), rng.standard_normal((6, 20))

    def f(w, p):
        projection = module.update_projection(LearnedProjection(p, LEARNED[1]), w)
        zero = 0.0 * p[0, 0]  # a framework wants what it differentiates to appear
        return module.compressive_energy(w, projection) + zero

    _, of_w, of_matrix = differentiable.value_and_grad(f, w, matrix, cotangent=np.ones(()))
    assert np.any(of_w)
    assert not np.any(of_matrix)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3), {}, "w must hold at least 2 rows"),
        ((4, 3), {"s": -1}, "s must be from 0 to 100, got -1"),
        ((4, 3), {"normalization": "mean"}, r"normalization must be .paper. or .official., got \\?'mean\\?'"),
        ((4, 3), {"eps": 3.0}, "eps must be from 1e-30 to 1, got 3.0"),
        ((4, 3), {"eps": 0.0}, "eps must be from 1e-30 to 1, got 0.0"),
    ],
    ids=str,
)
def test_bad_input(framework, shape, options, message):
    if framework.name == "tensorflow-unknown" and "rows" in message:
        pytest.skip("the number of rows is not known before the graph runs")
    f = function(framework, "hyperspherical_energy", **options)
    with pytest.raises(Exception, match=message) as caught:
        framework.value(f, np.ones(shape, np.float32))
    assert framework.compiled or isinstance(caught.value, ValueError)


def test_no_tensor(differentiable):
    for name in ("hyperspherical_energy", "compressive_energy"):
        with pytest.raises(TypeError, match="w must be a plain array"):
            getattr(differentiable.module, name)([[1.0, 2.0], [3.0, 4.0]])


def test_the_core_and_its_gradient_agree(rng):
    w = rng.standard_normal((20, 5))
    assert hyperspherical_energy(w) == hyperspherical_energy_and_grad(w)[0]
