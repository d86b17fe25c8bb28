"""mu and M as numbers and as tensors: a schedule compiles nothing anew, and the loss has its derivatives for them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from frameworks import eager

from eccentric_core import (
    LogarithmicKernel,
    eccentric_loss,
    eccentric_loss_and_grad,
    kernel_scale,
    pair_sum,
    pair_sum_and_grad,
)

SCHEDULE = np.linspace(0.6, 9.0, 40)


def slope(f, x, step=2e-3):
    """The derivative of f by five points: to 1e-12 in float64."""
    return (8 * (f(x + step) - f(x - step)) - (f(x + 2 * step) - f(x - 2 * step))) / (12 * step)


class Counted:
    """A function of rows and of a 0-d tensor, its value and derivative by the latter, compiled as a mode does it."""

    def __init__(self, framework, f):
        self.framework, self.f, self.count = framework, f, lambda: 1
        kind = framework.name.partition("-")[0]
        self.step = getattr(self, kind)(framework.compiled)

    def traced(self, *args):
        self.traces = getattr(self, "traces", 0) + 1
        return self.f(*args)

    def jax(self, compiled):
        g = self.framework.jax.value_and_grad(self.traced, argnums=1)
        self.count = lambda: self.traces if compiled else 1
        return self.framework.jax.jit(g) if compiled else g

    def mlx(self, compiled):  # noqa: ARG002  compiled by test_compilers.py
        return self.framework.mx.value_and_grad(self.f, argnums=1)

    def torch(self, compiled):
        import torch._dynamo.testing

        f = self.f
        if compiled:
            torch._dynamo.reset()
            counter = torch._dynamo.testing.CompileCounter()
            f = torch.compile(f, backend=counter, fullgraph=True)
            self.count = lambda: counter.frame_count

        def step(z, x):
            x.requires_grad_()
            value = f(z, x)
            return value, torch.autograd.grad(value, x)[0]

        return step

    def tensorflow(self, compiled):
        tf = self.framework.tf

        def step(z, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = self.traced(z, x)
            return value, tape.gradient(value, x)

        self.count = lambda: self.traces if compiled else 1
        return tf.function(step, **self.framework.options) if compiled else step

    def __call__(self, z, x):
        framework = self.framework
        with framework.context(double=True):
            results = self.step(framework.array(z, "float64"), framework.array(np.asarray(x), "float64"))
            return tuple(float(framework.numpy(result)) for result in results)


MODES = [
    ("mu, paper", lambda z, x: eccentric_loss(z, x)),
    ("mu, exact", lambda z, x: eccentric_loss(z, x, scale="exact")),
    ("mu, M given", lambda z, x: eccentric_loss(z, x, scale=7.0)),
    ("M", lambda z, x: eccentric_loss(z, 1.5, scale=x)),
    ("bandwidth", lambda z, x: pair_sum(z, kernel=LogarithmicKernel(), bandwidth=x)),
]


@pytest.mark.parametrize(("name", "f"), MODES, ids=[name for name, _ in MODES])
def test_a_schedule_of_a_tensor(differentiable, name, f, rng):
    """Forty values: one compilation, and the derivative to 1e-10."""
    if differentiable.name == "tensorflow-unknown":
        pytest.skip("the same as tensorflow-function")
    z, counted = rng.standard_normal((70, 4)), Counted(differentiable, f)
    values = SCHEDULE if differentiable.compiled else SCHEDULE[::8]
    for x in values:
        value, derivative = counted(z, x)
        expected = float(f(z, float(x)))
        assert abs(value - expected) <= 1e-12 * max(abs(expected), np.mean(np.sum(z * z, axis=1)))
        expected = slope(lambda x: float(f(z, x)), float(x), step=1e-3)
        assert abs(derivative - expected) <= 1e-10 * max(1.0, abs(expected)), name
    assert counted.count() == 1


def of_halves(z, x):
    return pair_sum(z[:30], z[30:], kernel=LogarithmicKernel(), bandwidth=x)


def grad_of_halves(z, x):
    return np.concat(pair_sum_and_grad(z[:30], z[30:], kernel=LogarithmicKernel(), bandwidth=x)[1:])


@pytest.mark.parametrize(
    ("f", "grad"),
    [
        eager(MODES[2][1], lambda z, x: eccentric_loss_and_grad(z, x, scale=7.0)[1]),
        eager(MODES[4][1], lambda z, x: pair_sum_and_grad(z, kernel=LogarithmicKernel(), bandwidth=x)[1]),
        eager(of_halves, grad_of_halves),
    ],
    ids=["loss", "sum over pairs", "sum over pairs of two sets"],
)
def test_beside_a_tensor_rows_have_the_gradient_that_they_have_beside_a_number(differentiable, f, grad, rng):
    z = rng.standard_normal((70, 4))
    _, found, _ = differentiable.value_and_grad(f, z, np.asarray(2.5))
    expected = grad(z, 2.5)
    assert np.linalg.norm(found - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("lead", [eager((3,)), (2, 3)])
def test_one_mu_for_all_batches(differentiable, lead, rng):
    """Its derivative is that of the sum over batches."""
    if differentiable.name == "tensorflow-unknown":
        pytest.skip("the same as tensorflow-function")
    z = rng.standard_normal((*lead, 70, 4))

    def total(z, x):
        losses = eccentric_loss(z, x)
        return differentiable.tf.reduce_sum(losses) if hasattr(type(differentiable), "tf") else losses.sum()

    value, derivative = Counted(differentiable, total)(z, 1.5)
    assert value == pytest.approx(np.sum(eccentric_loss(z, 1.5)), rel=1e-12)
    assert derivative == pytest.approx(slope(lambda x: np.sum(eccentric_loss(z, x)), 1.5), rel=1e-9)


def test_a_schedule_of_numbers(differentiable, rng):
    """Another Python number compiles nothing anew where a framework takes numbers as arguments."""
    z = rng.standard_normal((70, 4))
    f = differentiable.module.eccentric_loss
    if differentiable.name == "torch-compile":
        import torch._dynamo.testing

        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounter()
        f = torch.compile(f, backend=counter, fullgraph=True)
    elif differentiable.compiled:
        pytest.skip("a number is a constant of the traced function")
    with differentiable.context(double=True):
        rows = differentiable.array(z, "float64")
        for mu in (*SCHEDULE.tolist(), *SCHEDULE, np.float32(2.5), np.int64(3), 3):
            for scale in ("paper", kernel_scale(4, float(mu), method="exact")):
                value = float(differentiable.numpy(f(rows, mu, scale=scale)))
                assert value == pytest.approx(float(eccentric_loss(z, float(mu), scale=scale)), rel=1e-12)
    if differentiable.name == "torch-compile":
        # A Python number is a constant at first; NumPy's numbers are tensors; above mu = 4 sums are in float64.
        assert counter.frame_count <= 16


def test_eager_jax_compiles_once_for_all_mu(rng):
    """And keeps nothing for each."""
    import jax

    z = jax.numpy.asarray(rng.standard_normal((70, 4)), "float32")
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compilations.append(name) if "backend_compile" in name else None
    )
    step = jax.value_and_grad(eccentric_loss)
    step(z, 1.0)
    assert compilations
    compilations.clear()
    for mu in np.linspace(0.6, 3.9, 40):
        step(z, float(mu))
    assert not compilations


def test_eager_tensorflow_makes_one_graph_for_all_mu(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
    from eccentric_tensorflow.eager import _graph

    z = tf.constant(rng.standard_normal((70, 4)))
    eccentric_loss(z, 1.0)
    before = _graph.cache_info().currsize
    for mu in np.linspace(0.6, 3.9, 40):
        eccentric_loss(z, float(mu))
    assert _graph.cache_info().currsize == before


def test_second_derivatives_with_respect_to_mu(rng):
    """Mixed ones too, as a gradient penalty with a learned mu takes them."""
    import torch

    z = torch.from_numpy(rng.standard_normal((6, 3))).requires_grad_()
    mu = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    for method in ("paper", "exact"):
        assert torch.autograd.gradgradcheck(lambda z, mu, method=method: eccentric_loss(z, mu, scale=method), (z, mu))
    assert torch.autograd.gradgradcheck(lambda z, mu, m: eccentric_loss(z, mu, scale=m), (z, mu, scale))


def test_a_learned_mu_in_a_compiled_module(rng):
    import torch

    from eccentric_torch import EccentricLoss

    torch._dynamo.reset()
    module = EccentricLoss(torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64)))
    assert [name for name, _ in module.named_parameters()] == ["mu"]
    z = torch.from_numpy(rng.standard_normal((70, 4)))
    torch.compile(module, fullgraph=True, backend="aot_eager")(z).backward()
    expected = slope(lambda mu: float(eccentric_loss(z.numpy(), mu)), 1.5)
    assert module.mu.grad.item() == pytest.approx(expected, rel=1e-10)
