"""One definition for every framework: the backend is found from the tensor, and what is no tensor is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from frameworks import eager

import eccentric_core
from eccentric_core import InverseMultiquadricKernel, LogarithmicKernel, eccentric_loss, pair_sum

COMPILE_FIRST = """
import torch
from eccentric_core import eccentric_loss
import sys
assert "eccentric_torch" not in sys.modules
z = torch.randn(70, 4)
value = torch.compile(eccentric_loss, fullgraph=True, backend="aot_eager")(z)
torch.testing.assert_close(value, eccentric_loss(z))
"""


def test_the_first_call_may_be_one_that_is_compiled(python):
    """The backend is imported while the graph is traced."""
    python(COMPILE_FIRST)


NO_FRAMEWORK = """
import sys, numpy as np, eccentric_core
eccentric_core.eccentric_loss(np.ones((3, 2)))
assert not {"torch", "jax", "tensorflow", "keras", "mlx"} & set(sys.modules)
"""


def test_no_framework_is_imported_for_numpy(python):
    python(NO_FRAMEWORK)


@pytest.mark.parametrize("name", ["eccentric_torch", "eccentric_jax", "eccentric_tensorflow"])
def test_adapters_have_the_same_functions(name, differentiable):
    module = __import__(name)
    for function in ("pair_sum", "hyperspherical_energy", "uniformity", "compressive_energy", "LogarithmicKernel"):
        assert getattr(module, function) is getattr(eccentric_core, function)
    assert set(eccentric_core.energies.__all__) | set(eccentric_core.engine.__all__) <= set(module.__all__)
    # And any function takes any library's arrays.
    z = np.random.default_rng(0).standard_normal((5, 3))
    with differentiable.context(double=True):
        value = module.eccentric_loss(differentiable.array(z, "float64"))
    assert float(differentiable.numpy(value)) == pytest.approx(float(eccentric_loss(z)), rel=1e-12)


def not_tensors():
    import jax
    import keras
    import scipy.sparse
    import tensorflow as tf
    import torch
    from jax.experimental import sparse

    class Frame:  # as of pandas
        shape, values = (4, 3), np.ones((4, 3))

    return {
        "list": [[1.0, 2.0], [3.0, 4.0]],
        "frame": Frame(),
        "scipy": scipy.sparse.eye_array(4),
        "torch sparse": torch.zeros(4, 3).to_sparse(),
        "torch meta of no layout": torch.zeros(4, 3).to_sparse_csr(),
        "jax sparse": sparse.BCOO.fromdense(jax.numpy.ones((4, 3))),
        "jax shape": jax.ShapeDtypeStruct((4, 3), "float32"),
        "tf ragged": tf.ragged.constant([[1.0, 2.0], [3.0]]),
        "tf sparse": tf.sparse.from_dense(tf.ones((4, 3))),
        "tf slices": tf.IndexedSlices(tf.ones((4, 3)), tf.range(4)),
        "tf spec": tf.TensorSpec((4, 3)),
        "keras symbol": keras.Input((3,)),
        "matrix": np.matrix([[1.0, 2.0], [3.0, 4.0]]),
        "masked": np.ma.masked_array(np.ones((4, 3))),
    }


KINDS = ["list", "frame", "scipy", "torch sparse", "torch meta of no layout", "jax sparse", "jax shape", "tf ragged"]
KINDS += ["tf sparse", "tf slices", "tf spec", "keras symbol", "matrix", "masked"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*:PendingDeprecationWarning", "ignore:Sparse CSR:UserWarning")
def test_what_is_no_tensor_is_refused(kind):
    """By the name of the argument, what came, and a remedy."""
    thing = not_tensors()[kind]
    words = re.compile(
        rf"must be a plain array of shape \(\.\.\., n, d\), got .*{type(thing).__name__}.*; (make|give) "
    )
    for name, f in {
        "z": eccentric_loss,
        "w": eccentric_core.hyperspherical_energy,
        "x": lambda x: pair_sum(x, kernel=LogarithmicKernel()),
        "y": lambda y: pair_sum(np.ones((4, 3)), y, kernel=LogarithmicKernel()),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name} " + words.pattern):
            f(thing)


def test_libraries_do_not_mix(differentiable):
    """Nor is one made of the other in silence."""
    good = np.ones((4, 3), np.float32)
    with differentiable.context(double=False):
        rows, mu = differentiable.array(good, "float32"), differentiable.array(np.float32(1.0), "float32")
        with pytest.raises(TypeError, match="y must be of the library of x, got ndarray beside"):
            pair_sum(rows, good, kernel=LogarithmicKernel())
        with pytest.raises(TypeError, match="prior must be of the library of z, got ndarray beside"):
            eccentric_core.inverse_multiquadric_mmd(rows, good)
        with pytest.raises(TypeError, match="mu must be a real number or a 0-d tensor of the framework of the rows"):
            eccentric_loss(good, mu)
        with pytest.raises(TypeError, match="group must be None for arrays of numpy"):
            eccentric_loss(good, group="x")


@pytest.mark.parametrize("value", [True, 1.0j, [1.5]], ids=["bool", "complex", "vector"])
def test_a_tensor_that_is_no_real_number(framework, value):
    """It is no mu, no M and no bandwidth: nothing is made of its real part, or of a 1."""
    with framework.context(double=False):
        rows = framework.array(np.ones((4, 3)), "float32")
        number = framework.tensor(value)
        for name, f in {
            "mu": lambda x: eccentric_loss(rows, x),
            "scale": lambda x: eccentric_loss(rows, scale=x),
            "bandwidth": lambda x: pair_sum(rows, kernel=LogarithmicKernel(), bandwidth=x),
        }.items():
            with pytest.raises(TypeError, match=f"^{name} must be a real number or a 0-d tensor"):
                f(number)


@pytest.mark.parametrize("kernel", [object(), "log", None], ids=["object", "text", "none"])
def test_no_kernel(differentiable, kernel):
    with differentiable.context(double=False):
        rows = differentiable.array(np.ones((4, 3)), "float32")
        with pytest.raises(TypeError, match="kernel must be a hashable object with the methods value and slope"):
            pair_sum(rows, kernel=kernel)


def test_an_unhashable_kernel(differentiable):
    """One error, with no other one behind it."""

    @dataclass
    class Changeable:
        def value(self, t, xp):  # noqa: ARG002
            return t

        def slope(self, t, xp):
            return xp.ones_like(t)

    with differentiable.context(double=False):
        rows = differentiable.array(np.ones((4, 3)), "float32")
        with pytest.raises(TypeError, match=r"kernel must be a hashable object .* got Changeable") as caught:
            pair_sum(rows, kernel=Changeable())
    assert caught.value.__context__ is None


@pytest.mark.parametrize("dtype", ["float32", eager("float64")])
def test_pairs_of_a_row_with_itself(framework, dtype, rng, tolerance):
    """As V-statistics have them: n phi(0) more, and the same gradient."""
    x = rng.standard_normal((2, 70, 4)).astype(dtype)
    kernel, options = InverseMultiquadricKernel(), {"bandwidth": 2.0}
    without = framework.value(framework.pair_sum(kernel, **options), x)
    with_them = framework.value(framework.pair_sum(kernel, **options, self_pairs=True), x)
    np.testing.assert_allclose(with_them, without + 70.0, rtol=tolerance[dtype])
    if not framework.plain:
        gradients = [
            framework.value_and_grad(framework.pair_sum(kernel, **options, self_pairs=flag), x)[1]
            for flag in (False, True)
        ]
        np.testing.assert_array_equal(*gradients)


def test_self_pairs_of_two_sets_are_refused():
    x = np.ones((3, 2))
    with pytest.raises(ValueError, match="self_pairs must be False for two sets"):
        pair_sum(x, x, kernel=LogarithmicKernel(), self_pairs=True)


def factory(factor):
    """Classes of one name and one repr, and of different numbers."""

    @dataclass(frozen=True)
    class Scaled:
        def value(self, t, xp):  # noqa: ARG002
            return factor * t

        def slope(self, t, xp):
            return factor * xp.ones_like(t)

    return Scaled()


@dataclass(frozen=True)
class Hidden:
    """A kernel whose repr and equality don't show its number."""

    factor: float = field(repr=False, compare=False)

    def value(self, t, xp):  # noqa: ARG002
        return self.factor * t

    def slope(self, t, xp):
        return self.factor * xp.ones_like(t)


class Plain:
    """A kernel that is no dataclass."""

    def __init__(self, factor):
        self.factor = factor

    value, slope = Hidden.value, Hidden.slope


@pytest.mark.parametrize("make", [factory, eager(Plain)])
def test_kernels_that_look_alike_stay_apart(framework, make, rng, tolerance):
    x = rng.standard_normal((70, 4))
    for factor in (1.0, 5.0, 1.0):
        kernel = make(factor)
        value = framework.value(lambda x, kernel=kernel: pair_sum(x, kernel=kernel), x)
        expected = factor * float(pair_sum(x, kernel=make(1.0)))
        assert value == pytest.approx(expected, rel=tolerance["float64"])


def test_one_compiled_function_of_many_kernels(rng):
    """In PyTorch a kernel is an argument of the compiled function: none stays in its graph."""
    import torch

    torch._dynamo.reset()
    f = torch.compile(lambda x, kernel: pair_sum(x, kernel=kernel), fullgraph=True, backend="aot_eager")
    x = torch.from_numpy(rng.standard_normal((70, 4)))
    one = float(pair_sum(x, kernel=Plain(1.0)))
    for make in (factory, Hidden, Plain):
        for factor in (1.0, 5.0, 1.0, 7.0):
            assert float(f(x, make(factor))) == pytest.approx(factor * one, rel=1e-12)
    inside = torch.compile(lambda x, s: pair_sum(x, kernel=Hidden(s)), fullgraph=True, backend="aot_eager")
    for factor in (1.0, 5.0, 7.0):
        assert float(inside(x, factor)) == pytest.approx(factor * one, rel=1e-12)


def test_an_exported_program_runs_in_another_process(python, tmp_path):
    """Its operators know the kernel by name."""
    import torch

    class Model(torch.nn.Module):
        def forward(self, z):
            return eccentric_loss(z, 1.5) + pair_sum(z, kernel=InverseMultiquadricKernel(), bandwidth=3.0)

    z = torch.linspace(-1.0, 2.0, 60, dtype=torch.float64).reshape(15, 4)
    program = torch.export.export(Model(), (z,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},))
    torch.export.save(program, tmp_path / "program.pt2")
    printed = python(
        f"import torch, eccentric_torch; z = torch.linspace(-1.0, 2.0, 100, dtype=torch.float64).reshape(25, 4);"
        f"print(torch.export.load({str(tmp_path / 'program.pt2')!r}).module()(z).item())"
    )
    z = torch.linspace(-1.0, 2.0, 100, dtype=torch.float64).reshape(25, 4)
    assert float(printed) == pytest.approx(Model()(z).item(), rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
def test_meta_tensors_and_symbolic_tracing(rng):
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    z = torch.zeros(5, 3, device="meta", requires_grad=True)
    eccentric_loss(z).backward()
    assert z.grad.device.type == "meta"
    assert eccentric_loss(torch.zeros(2, 2000, 3, device="meta")).shape == (2,)
    small, large = (torch.from_numpy(rng.standard_normal((n, 3))) for n in (7, 90))
    for f in (lambda z: eccentric_loss(z), torch.func.grad(lambda z: eccentric_loss(z))):
        graph = make_fx(f, tracing_mode="symbolic")(small)
        for rows in (small, large):
            torch.testing.assert_close(graph(rows), f(rows), rtol=1e-12, atol=1e-15)
    with pytest.raises(TypeError, match=r"got a tensor that torch\.jit\.trace follows; use torch\.compile or torch\.e"):
        torch.jit.trace(lambda z: eccentric_loss(z), small)


def test_jax_exports_a_symbolic_batch(rng):
    import jax
    from jax import export

    symbol = jax.ShapeDtypeStruct((export.symbolic_shape("n")[0], 4), "float32")
    program = export.export(jax.jit(jax.value_and_grad(eccentric_loss)))(symbol)
    for n in (2, 33, 90):
        z = jax.numpy.asarray(rng.standard_normal((n, 4)), "float32")
        for found, expected in zip(program.call(z), jax.value_and_grad(eccentric_loss)(z), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    value, grad = program.call(jax.numpy.ones((1, 4)))  # no pairs
    assert float(value) == 0.0
    assert not np.asarray(grad).any()


REPLICATED = """
import jax, numpy as np
from functools import partial
from jax.sharding import Mesh, PartitionSpec as P
from eccentric_jax import eccentric_loss
mesh = Mesh(np.asarray(jax.devices()), ("data",))
z = jax.random.normal(jax.random.key(0), (8, 3))
f = partial(eccentric_loss, axis_name="data")
spread = jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P())(z)
assert abs(spread - eccentric_loss(z)) < 1e-5
try:
    jax.shard_map(f, mesh=mesh, in_specs=P(), out_specs=P())(z)
except ValueError as error:
    assert "z must be spread over the axis 'data', got the same rows on every device" in str(error), error
else:
    raise AssertionError("rows that are everywhere were taken")
"""


def test_rows_that_are_on_every_device_are_refused(python):
    python(REPLICATED, XLA_FLAGS="--xla_force_host_platform_device_count=2")


def test_a_lone_infinity_is_no_nan_in_tensorflow():
    """XLA's sum of differences from a mean would make one of it."""
    import tensorflow as tf

    @dataclass(frozen=True)
    class Infinite:
        def value(self, t, xp):
            return xp.where(t > 100.0, xp.exp(t), xp.ones_like(t))

        def slope(self, t, xp):
            return xp.zeros_like(t)

    x = np.zeros((70, 2), np.float32)
    x[0] = 1000.0
    expected = pair_sum(x, kernel=Infinite())
    assert np.isposinf(expected)
    for compile_ in (lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)):
        assert np.isposinf(compile_(lambda x: pair_sum(x, kernel=Infinite()))(tf.constant(x)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which PyTorch itself uses
def test_what_pytorch_keeps_private_is_there():
    """Pinned down for PyTorch 2.13: what tells whether forward mode is nested in itself."""
    import torch
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

    levels = []

    def f(z):
        levels.append([level.key() for level in retrieve_all_functorch_interpreters()])
        return (z**2).sum()

    z = torch.ones(3)
    assert retrieve_all_functorch_interpreters() == []
    torch.func.jvp(lambda z: torch.func.jvp(f, (z,), (z,))[1], (z,), (z,))
    assert levels[0].count(torch._C._functorch.TransformType.Jvp) == 2
