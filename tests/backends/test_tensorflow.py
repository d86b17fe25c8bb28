"""What is TensorFlow's own: unknown shapes, tapes, graphs."""

from __future__ import annotations

import re
import warnings
from functools import partial

import numpy as np
import oracle
import pytest

with warnings.catch_warnings():  # of its own at import
    warnings.simplefilter("ignore")
    import tensorflow as tf

    from eccentric_tensorflow import eccentric_loss, pair_sum

import eccentric_core
from eccentric_core import InverseMultiquadricKernel, kernel_scale


def rows(*shape, dtype="float64"):
    return tf.constant(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def value_and_gradient(f, z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = f(z)
    return value, tape.gradient(value, z)


def test_one_graph_for_all_sizes(tolerance):
    """Also where a size is such that the rows are few, in one tile, in several, in tiles without a rest, or one."""
    traced = []

    @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float64)])
    def f(z):
        traced.append(z)
        return value_and_gradient(eccentric_loss, z)

    for n in (2, 3, 64, 70, 704, 705, 1408, 1500):
        z = rows(n, 3)
        loss, grad = f(z)
        true_loss, true_grad = eccentric_core.eccentric_loss_and_grad(z.numpy())
        assert abs(loss - true_loss) <= tolerance["float64"] * abs(true_loss)
        assert np.linalg.norm(grad - true_grad) <= tolerance["float64"] * np.linalg.norm(true_grad)
    assert len(traced) == 1


def mmd(z):
    return eccentric_core.inverse_multiquadric_mmd(z, tf.ones((*z.shape[:-2], 5, 3), z.dtype))


def of_both(z):
    return eccentric_core.inverse_multiquadric_mmd(z, 2.0 * z)


WITHOUT_PAIRS = {
    "loss": eccentric_loss,
    "wide sums": partial(eccentric_loss, mu=5.0),
    "sum over pairs": partial(pair_sum, kernel=InverseMultiquadricKernel()),
    "uniformity": eccentric_core.uniformity,
    "hyperspherical energy": eccentric_core.hyperspherical_energy,
    "logarithm": partial(eccentric_core.hyperspherical_energy, s=0.0),
    "half-space": partial(eccentric_core.hyperspherical_energy, half_space=True, angular=True),
    "discrepancy": mmd,
    "discrepancy of two": of_both,
}


# The first axis of weights holds the neurons: they have no leading ones.
OF_WEIGHTS = ("hyperspherical energy", "logarithm", "half-space")


# XLA, which takes a while, has one batch of every way in which a weight comes about: others have the same operations.
@pytest.mark.parametrize(
    ("name", "lead", "jit_compile"),
    [
        (name, lead, jit_compile)
        for names, jit_compile in ((WITHOUT_PAIRS, False), (("loss", "half-space", "discrepancy"), True))
        for name in names
        for lead in ((),) + ((2,),) * (name not in OF_WEIGHTS and not jit_compile)
    ],
)
def test_a_batch_without_pairs(name, lead, jit_compile):
    """Where only the running graph knows it, it adds exactly 0 with a zero gradient; other batches are as ever."""
    f = WITHOUT_PAIRS[name]

    @tf.function(input_signature=[tf.TensorSpec((*lead, None, 3), tf.float32)], jit_compile=jit_compile)
    def both(z):
        return value_and_gradient(f, z)

    for n in (0, 1):
        value, grad = both(10.0 * rows(*lead, n, 3, dtype="float32"))
        assert value.shape == lead
        assert grad.shape == (*lead, n, 3)
        np.testing.assert_array_equal(value, np.zeros(lead))
        np.testing.assert_array_equal(grad, np.zeros((*lead, n, 3)))
    z = rows(*lead, 3, 3, dtype="float32")
    for found, expected in zip(both(z), value_and_gradient(f, z), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(both(np.nan * z)[0]).all()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_leading_axes(jit_compile, tolerance):
    f = tf.function(
        eccentric_loss, input_signature=[tf.TensorSpec((None, None, None, 3), tf.float64)], jit_compile=jit_compile
    )
    z = rows(2, 3, 70, 3)
    loss = f(z)
    assert loss.shape == (2, 3)
    for index in np.ndindex(2, 3):
        true_loss, _ = oracle.loss_and_grad(z[index], 1.0, float(kernel_scale(3)))
        assert abs(loss[index] - true_loss) <= tolerance["float64"] * abs(true_loss)


@pytest.mark.parametrize("n", [20, 70, 1500])
def test_unknown_rows_compiled_by_xla(n, tolerance):
    """As a training step with `jit_compile=True` meets them: of few rows, of one tile, of several."""
    f = tf.function(eccentric_loss, input_signature=[tf.TensorSpec((None, 3), tf.float64)], jit_compile=True)
    z = rows(n, 3)
    expected = eccentric_core.eccentric_loss(z.numpy())
    assert abs(f(z) - expected) <= tolerance["float64"] * abs(expected)


@pytest.mark.parametrize("function", ["eccentric_loss", "pair_sum"])
def test_the_last_axis_must_be_known(function):
    f = {
        "eccentric_loss": eccentric_loss,
        "pair_sum": lambda z: pair_sum(z, kernel=InverseMultiquadricKernel()),
    }[function]
    compiled = tf.function(f, input_signature=[tf.TensorSpec((None, None), tf.float32)])
    message = "must have a known dimension d, got shape (None, None); set its last axis"
    with pytest.raises(ValueError, match=re.escape(message)):
        compiled(rows(4, 3, dtype="float32"))


def test_unknown_rank_is_refused():
    compiled = tf.function(eccentric_loss, input_signature=[tf.TensorSpec(None, tf.float32)])
    with pytest.raises(TypeError, match=r"got a tensor of unknown rank; set its shape"):
        compiled(rows(4, 3, dtype="float32"))


def test_sets_with_partly_unknown_shapes(tolerance):
    kernel = InverseMultiquadricKernel()
    f = tf.function(
        lambda x, y: pair_sum(x, y, kernel=kernel, bandwidth=2.0),
        input_signature=[tf.TensorSpec((None, 70, 3), tf.float64), tf.TensorSpec((2, None, 3), tf.float64)],
    )
    x, y = rows(2, 70, 3), rows(2, 9, 3)
    expected = eccentric_core.pair_sum(x.numpy(), y.numpy(), kernel=kernel, bandwidth=2.0)
    np.testing.assert_allclose(f(x, y), expected, rtol=tolerance["float64"])


@pytest.mark.parametrize("n", [20, 70, 1500])
@pytest.mark.parametrize("compile_", [lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)])
def test_hessian_times_a_vector_in_nested_tapes(compile_, n, tolerance):
    """Compiled as a whole, with a persistent outer tape."""
    z, u = rows(n, 3), tf.cos(rows(n, 3))

    @compile_
    def product(z, u):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(z)
            along = tf.reduce_sum(value_and_gradient(lambda z: eccentric_loss(z, 1.5), z)[1] * u)
        return outer.gradient(along, z)

    expected = oracle.loss_hvp(z, u, 1.5, float(kernel_scale(3, 1.5)))
    assert np.linalg.norm(product(z, u) - expected) <= tolerance["float64"] * np.linalg.norm(expected)


@pytest.mark.parametrize("compile_", [lambda f: f, tf.function])
def test_gradient_penalty_of_a_variable(compile_, tolerance):
    """By tapes that watch a variable by themselves, behind a layer."""
    z = tf.Variable(rows(70, 3))

    @compile_
    def step():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                value = eccentric_loss(2.0 * z, 1.5)
            penalty = tf.reduce_sum(inner.gradient(value, z) ** 2)
        return outer.gradient(penalty, z)

    scale = float(kernel_scale(3, 1.5))
    _, grad = oracle.loss_and_grad(2 * z.numpy(), 1.5, scale)
    expected = 16 * oracle.loss_hvp(2 * z.numpy(), grad, 1.5, scale)
    assert np.linalg.norm(step() - expected) <= tolerance["float64"] * np.linalg.norm(expected)


def test_jacobian(tolerance):
    """The loss under pfor and the Hessian row by row."""
    z = rows(5, 3)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(z)
        grad = value_and_gradient(lambda z: eccentric_loss(z, 1.5), z)[1]
    hessian = outer.jacobian(grad, z, experimental_use_pfor=False)
    for i, k in np.ndindex(5, 3):
        unit = np.zeros((5, 3))
        unit[i, k] = 1
        expected = oracle.loss_hvp(z, unit, 1.5, float(kernel_scale(3, 1.5)))
        assert np.linalg.norm(hessian[i, k] - expected) <= tolerance["float64"] * np.linalg.norm(expected)


def test_eager_code_makes_few_graphs():
    """One for all sizes of batch above the small ones; TensorFlow warns where it traces again and again."""
    from eccentric_tensorflow.eager import _graph

    eccentric_loss(rows(100, 6))
    before = _graph.cache_info().currsize
    for n in range(101, 110):
        eccentric_loss(rows(n, 6))
    assert _graph.cache_info().currsize == before


def test_numpy_behaviour_is_left_alone():
    with pytest.raises(AttributeError):
        _ = rows(2, 3).T


def test_indexed_slices_and_variables_are_taken(tolerance):
    z = tf.Variable(rows(70, 3))
    true_loss, _ = oracle.loss_and_grad(z.numpy(), 1.0, float(kernel_scale(3)))
    assert abs(eccentric_loss(z) - true_loss) <= tolerance["float64"] * abs(true_loss)


def test_an_eager_graph_knows_its_dimension(rng):
    """M follows from it and from a mu that is a tensor: a graph that serves several dimensions would not know it."""
    for d in (8, 5, 4, 7):
        z = rng.standard_normal((70, d))
        loss = eccentric_loss(tf.constant(z), tf.constant(1.5, tf.float64))
        assert float(loss) == pytest.approx(float(eccentric_core.eccentric_loss(z, 1.5)), rel=1e-12)
