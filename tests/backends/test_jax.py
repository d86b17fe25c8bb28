"""What is JAX's own: its transformations, float32 without float64, the program that is traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax

from eccentric_core import kernel_scale
from eccentric_jax import eccentric_loss, pair_sum

M = float(kernel_scale(3, 1.5))


def loss(z):
    return eccentric_loss(z, 1.5)


def full(z):
    """The same as one formula, for JAX to differentiate as often as it likes."""
    difference = z[:, None] - z[None]
    n = z.shape[0]
    return jnp.sum(z * z) / n - 1.5 * M * jnp.sum(jnp.log1p(jnp.sum(difference**2, -1) / M)) / (n * (n - 1))


@pytest.fixture
def x64():
    enable = getattr(jax, "enable_x64", None)
    if enable is None:
        from jax.experimental import enable_x64 as enable
    with enable(True):
        yield


def rows(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape))


def scanned(f):
    """Three steps of gradient descent, and the losses on the way."""

    def g(z):
        def step(z, _):
            value, gradient = jax.value_and_grad(f)(z)
            return z - 5.0 * gradient, value

        return lax.scan(step, z, None, length=3)

    return g


TRANSFORMS = {
    "grad": jax.grad,
    "vjp": lambda f: lambda z: jax.vjp(f, z)[1](2.5)[0],
    "jvp": lambda f: lambda z: jax.jvp(f, (z,), (jnp.cos(z),))[1],
    "linearize": lambda f: lambda z: jax.linearize(f, z)[1](jnp.cos(z)),
    "linear transpose": lambda f: lambda z: jax.linear_transpose(jax.linearize(f, z)[1], z)(2.5)[0],
    "forward over reverse": lambda f: lambda z: jax.jvp(jax.grad(f), (z,), (jnp.cos(z),))[1],
    "reverse over reverse": lambda f: jax.grad(lambda z: jnp.sum(jax.grad(f)(z) ** 2)),
    "reverse over forward": lambda f: jax.grad(lambda z: jax.jvp(f, (z,), (jnp.cos(z),))[1]),
    "forward over forward": lambda f: (
        lambda z: jax.jvp(lambda z: jax.jvp(f, (z,), (jnp.cos(z),))[1], (z,), (jnp.sin(z),))[1]
    ),
    "vmap": lambda f: lambda z: jax.vmap(f, in_axes=1)(jnp.stack([z, 2 * z], 1)),
    "vmap of grad": lambda f: lambda z: jax.vmap(jax.grad(f))(jnp.stack([z, 2 * z])),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "scan": scanned,
    "gradient through scan": lambda f: jax.grad(lambda z: jnp.sum(scanned(f)(z)[1])),
}
MATRICES = {
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "vmap of hessian": lambda f: lambda z: jax.vmap(jax.hessian(f))(jnp.stack([z, 2 * z])),
    "third, reverse": lambda f: jax.jacrev(jax.jacrev(jax.jacrev(f))),
    "third, forward": lambda f: jax.jacfwd(jax.hessian(f)),
}


def close(value, expected, tolerance):
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True)
    return all(jnp.linalg.norm(jnp.ravel(a - b)) <= tolerance * jnp.linalg.norm(jnp.ravel(b)) for a, b in pairs)


def check(transform, z, tolerance):
    """A transform gives of our loss what it gives of the loss on the n x n matrix."""
    assert close(jax.jit(transform(loss))(z), jax.jit(transform(full))(z), tolerance["float64"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, tolerance):
    check(TRANSFORMS[name], rows(70, 3), tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["linearize", "reverse over reverse", "forward over reverse"])
def test_transforms_of_several_tiles(name, tolerance):
    check(TRANSFORMS[name], rows(1600, 3), tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_of_derivatives(name, tolerance):
    """Up to the third."""
    check(MATRICES[name], rows(5, 3), tolerance)


@pytest.mark.usefixtures("x64")
def test_without_jit(tolerance):
    with jax.disable_jit():
        z = rows(5, 3)
        assert close(jax.value_and_grad(loss)(z), jax.value_and_grad(full)(z), tolerance["float64"])
        assert close(jax.hessian(loss)(z), jax.hessian(full)(z), tolerance["float64"])


def test_float32_stays_float32():
    """Nothing asks for a float64 that is not there, which would be a warning."""
    assert not jax.config.jax_enable_x64
    z = rows(70, 3)
    value, gradient = jax.value_and_grad(eccentric_loss)(z, 16.5)
    product = jax.jvp(jax.grad(loss), (z,), (z,))[1]
    assert {value.dtype, gradient.dtype, product.dtype} == {jnp.dtype("float32")}


def equations(jaxpr):
    """The equations of a program and of all programs within."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(getattr(inner, "jaxpr", inner))


def program(derivative, n, mu=16.5):
    """All equations of a derivative of the loss of n rows."""
    traced = jax.make_jaxpr(derivative(lambda z: eccentric_loss(z, mu)))(jax.ShapeDtypeStruct((n, 8), jnp.float32))
    return list(equations(traced.jaxpr))


DERIVATIVES = {
    "value": lambda f: f,
    "gradient": jax.grad,
    "gradient penalty": lambda f: jax.grad(lambda z: jnp.sum(jax.grad(f)(z) ** 2)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_the_program_does_not_grow_with_the_batch(name):
    few, many = (len(program(DERIVATIVES[name], n)) for n in (5000, 60_000))
    assert few == many
    assert few > 50  # the programs within are counted


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("n", [50, 5000])
def test_every_matrix_product_has_the_highest_precision(name, n):
    """By default accelerators multiply in fewer bits."""
    products = [e for e in program(DERIVATIVES[name], n) if e.primitive.name == "dot_general"]
    assert products
    for product in products:
        assert product.params["precision"] == (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def test_no_array_is_as_large_as_all_pairs():
    for name, derivative in DERIVATIVES.items():
        largest = max(np.prod(v.aval.shape) for e in program(derivative, 60_000) for v in e.outvars)
        assert largest < 60_000 * 100, name


def test_compiled_once_for_the_same_shape():
    """Arguments that are equal share what is compiled, as in a training loop."""
    traced = []
    f = jax.jit(lambda z: (traced.append(0), eccentric_loss(z, 1.5))[1])
    f(rows(70, 3))
    f(rows(70, 3) + 1)
    assert len(traced) == 1


def test_donated_and_committed_arrays():
    z = jax.device_put(rows(70, 3), jax.devices()[0])
    assert jax.grad(eccentric_loss)(z).devices() == z.devices()


def test_pair_sum_under_vmap(tolerance):
    from eccentric_core import InverseMultiquadricKernel

    kernel = InverseMultiquadricKernel()
    x, y = rows(70, 4), rows(3, 11, 4)
    totals, gradients = jax.vmap(jax.value_and_grad(lambda y: pair_sum(x, y, kernel=kernel, bandwidth=2.0)))(y)
    for i in range(3):
        total, _, of_y = oracle.kernel_sum(x, y[i], lambda t: 1 / (1 + t), lambda t: -1 / (1 + t) ** 2, 2.0)
        assert abs(totals[i] - total) <= tolerance["float32"] * total
        assert np.linalg.norm(gradients[i] - of_y) <= tolerance["float32"] * np.linalg.norm(of_y)


def test_vmap_takes_the_memory_of_leading_axes():
    """And gives the same numbers, whichever arguments and axes it maps."""
    z = jnp.asarray(np.random.default_rng(0).standard_normal((32, 700, 4)), jnp.float32)
    mapped = jax.jit(jax.vmap(jax.value_and_grad(eccentric_loss)))
    leading = jax.jit(jax.value_and_grad(lambda z: eccentric_loss(z).sum()))
    needs = [f.lower(z).compile().memory_analysis().temp_size_in_bytes for f in (mapped, leading)]
    assert needs[0] <= 1.1 * needs[1] < 4 * 700 * 700 * 32 / 4  # a quarter of all distances
    (values, grads), (total, grad) = mapped(z), leading(z)
    np.testing.assert_allclose(values.sum(), total, rtol=1e-6)
    np.testing.assert_allclose(grads, grad, rtol=0, atol=1e-7)
    twice = jax.vmap(jax.vmap(eccentric_loss, in_axes=1), in_axes=2)(z[:4].reshape(2, 2, 700, 4).transpose(2, 1, 0, 3))
    np.testing.assert_allclose(twice.ravel(), values[:4], rtol=1e-6)
    mus = jnp.asarray([0.75, 1.0, 4.5])
    of_mu = jax.vmap(jax.value_and_grad(lambda mu: eccentric_loss(z[0], mu)))(mus)
    for k, mu in enumerate(mus):
        for one, other in zip(of_mu, jax.value_and_grad(lambda mu: eccentric_loss(z[0], mu))(mu), strict=True):
            np.testing.assert_allclose(one[k], other, rtol=1e-5)
