"""What is PyTorch's own: its checkers, torch.func, autocast, torch.compile, strides, modules."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from functools import partial

import numpy as np
import oracle
import pytest
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from eccentric_core import InverseMultiquadricKernel, LogarithmicKernel, kernel_scale
from eccentric_core import eccentric_loss_and_grad as core_loss_and_grad
from eccentric_core.derivatives import Call
from eccentric_core.engine.encoding import encode, text_of
from eccentric_core.engine.pairs import PairSum, PlainSum
from eccentric_torch import EccentricLoss, eccentric_loss, hyperspherical_energy, pair_sum

# PyTorch's compiler warns of its own use of PyTorch.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning"),  # from torch.func.linearize
]

M = float(kernel_scale(3, 1.5))


def batch(*shape, seed=0, **options):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(**options)


def loss(z):
    return eccentric_loss(z, 1.5)


def full(z):
    """The same as one formula, for PyTorch to differentiate as often as it likes."""
    t = ((z[:, None] - z[None]) ** 2).sum(-1) / M
    n = z.shape[0]
    return (z * z).sum() / n - 1.5 * M * torch.log1p(t).sum() / (n * (n - 1))


def close(value, expected, tolerance=1e-12):
    return torch.linalg.norm(value - expected) <= tolerance * torch.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (68, 2)])
def test_gradcheck(shape):
    z = batch(*shape).requires_grad_()
    assert torch.autograd.gradcheck(loss, z, check_batched_grad=True, check_forward_ad=True)
    if shape[-2] < 10:
        assert torch.autograd.gradgradcheck(loss, z, check_fwd_over_rev=True)


@pytest.mark.parametrize("kernel", [LogarithmicKernel(), InverseMultiquadricKernel()])
def test_gradcheck_of_two_sets(kernel):
    x, y = batch(4, 3).requires_grad_(), batch(5, 3, seed=1).requires_grad_()
    function = lambda x, y: pair_sum(x, y, kernel=kernel, bandwidth=2.5)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, y), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x, y), check_fwd_over_rev=True)
    assert torch.autograd.gradgradcheck(function, (x, y.detach()))
    assert torch.autograd.gradgradcheck(function, (x.detach(), y))


@pytest.mark.parametrize("n", [6, 70])
@pytest.mark.parametrize(
    "transform",
    [
        grad,
        lambda f: lambda z: vjp(f, z)[1](torch.tensor(2.5, dtype=z.dtype))[0],
        lambda f: lambda z: jvp(f, (z,), (torch.cos(z),))[1],
        lambda f: lambda z: torch.func.linearize(f, z)[1](torch.cos(z)),
        lambda f: lambda z: jvp(grad(f), (z,), (torch.cos(z),))[1],
        lambda f: lambda z: grad(lambda z: jvp(f, (z,), (torch.cos(z),))[1])(z),
        lambda f: lambda z: jvp(lambda z: jvp(f, (z,), (torch.cos(z),))[1], (z,), (torch.sin(z),))[1],
        lambda f: lambda z: grad(lambda z: (grad(f)(z) ** 2).sum())(z),
        lambda f: lambda z: vmap(grad(f))(torch.stack([z, 2 * z])),
        lambda f: lambda z: vmap(f, in_dims=1)(torch.stack([z, 2 * z], 1)),
    ],
    ids="grad vjp jvp linearize jvp-grad grad-jvp jvp-jvp grad-grad vmap-grad vmap".split(),  # noqa: SIM905
)
def test_transforms(n, transform):
    z = batch(n, 3)
    assert close(transform(loss)(z), transform(full)(z))


@pytest.mark.parametrize(
    "transform",
    [
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacfwd(jacfwd(f)),
        lambda f: jacrev(jacfwd(f)),
        lambda f: lambda z: vmap(hessian(f))(torch.stack([z, 2 * z])),
        lambda f: jacrev(hessian(f)),
        lambda f: jacfwd(hessian(f)),
        lambda f: jacrev(jacrev(jacrev(f))),
    ],
    ids="hessian jacrev-jacrev jacfwd-jacfwd jacrev-jacfwd vmap-hessian jacrev-hessian jacfwd-hessian jacrev3".split(),  # noqa: SIM905
)
def test_matrices_of_derivatives(transform):
    """Up to the third."""
    z = batch(5, 3)
    assert close(transform(loss)(z), transform(full)(z))


def test_third_derivative_by_autograd():
    z, u, v = batch(70, 3).requires_grad_(), batch(70, 3, seed=1), batch(70, 3, seed=2)

    def third(f):
        (first,) = torch.autograd.grad(f(z), z, create_graph=True)
        (second,) = torch.autograd.grad(first, z, u, create_graph=True)
        return torch.autograd.grad(second, z, v)[0]

    assert close(third(loss), third(full))


@pytest.mark.parametrize("n", [40, 600], ids=["dense", "tiles"])
def test_third_derivatives_leave_a_row_and_itself_out(n):
    """Those follow the lines of the value or of the second derivative, where a row at 0 from itself makes no NaN."""
    x, u = batch(n, 3).requires_grad_(), batch(n, 3, seed=1)

    def distances(x):
        i, j = torch.triu_indices(n, n, offset=1)
        difference = x[i] - x[j]
        return 2.0 * torch.sqrt((difference * difference).sum(-1)).sum()

    def backward_of_forward(f):
        return grad(lambda x: jvp(lambda x: jvp(f, (x,), (u,))[1], (x,), (u,))[1])(x)

    def backward(f):
        (first,) = torch.autograd.grad(f(x), x, create_graph=True)
        (second,) = torch.autograd.grad(first, x, u, create_graph=True)
        return torch.autograd.grad(second, x, u)[0]

    f = partial(pair_sum, kernel=oracle.Root())
    assert close(backward_of_forward(f), backward_of_forward(distances), 1e-10)
    assert close(backward(f), backward(distances), 1e-10)


def test_gradient_penalty_in_a_training_step():
    """Through a layer, with .backward()."""
    x, gradients = batch(70, 4), []
    for f in (loss, full):
        layer = nn.Linear(4, 3, bias=False, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(batch(3, 4, seed=1))
        z = layer(x)
        value = f(z)
        (first,) = torch.autograd.grad(value, z, create_graph=True)
        (value + 100 * (first**2).sum()).backward()
        gradients.append(layer.weight.grad)
    assert close(*gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_changes_nothing(dtype, compiled):
    f = torch.compile(eccentric_loss, fullgraph=True, backend="aot_eager") if compiled else eccentric_loss
    z = batch(70, 4, dtype=dtype).requires_grad_()
    u = batch(70, 4, seed=1, dtype=dtype)

    def results():
        value = f(z, 5.0)
        gradients = torch.autograd.grad(value, z, create_graph=not compiled)
        second = () if compiled else torch.autograd.grad(gradients, z, u)
        return (
            value,
            *gradients,
            *second,
            f(z.detach(), 5.0),
            *(() if compiled else [pair_sum(z, z, kernel=LogarithmicKernel(), bandwidth=2.0)]),
        )

    expected = results()
    with torch.autocast("cpu", torch.bfloat16):
        found = results()
        assert torch.is_autocast_enabled("cpu")
    assert expected[0].dtype == torch.float32
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    "view",
    [
        lambda z: z.mT.contiguous().mT,
        lambda z: z[::2],
        lambda z: z[:, ::2],
        lambda z: z[:1].expand(70, -1),
        lambda z: z.flip(0),
    ],
    ids=["transposed", "rows", "columns", "expanded", "flipped"],
)
def test_any_strides(view, create_graph, tolerance):
    z = view(batch(70, 8))
    z.requires_grad_()
    value = eccentric_loss(z)
    (gradient,) = torch.autograd.grad(value, z, create_graph=create_graph)
    true_loss, true_grad = core_loss_and_grad(z.detach().numpy().copy())
    assert abs(value.item() - true_loss) <= tolerance["float64"] * abs(true_loss)
    np.testing.assert_allclose(gradient.detach().numpy(), true_grad, rtol=0, atol=1e-14)


def test_no_gradient_is_computed_where_none_is_asked_for(monkeypatch):
    calls = []
    for kind, name in itertools.product((PairSum, PlainSum), ("value", "value_and_gradients")):
        method = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *args, m=method, n=name: (calls.append(n), m(self, *args))[1])
    eccentric_loss(batch(70, 4))
    with torch.no_grad():
        eccentric_loss(batch(70, 4).requires_grad_())
    with torch.inference_mode():
        eccentric_loss(batch(70, 4))
    assert set(calls) == {"value"}
    calls.clear()
    eccentric_loss(batch(70, 4).requires_grad_()).backward()
    assert set(calls) == {"value_and_gradients"}


def in_the_graph(z):
    """How many matrix products and how many of either operator the compiled loss of z has."""
    graphs = []

    def seen(graph, _):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    torch.compile(eccentric_loss, fullgraph=True, backend=aot_autograd(fw_compiler=seen))(z)
    names = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    return [sum(part in name for name in names) for part in ("mm", "eccentric.value.", "value_and_gradients")]


@pytest.mark.parametrize(("n", "value", "both"), [(70, [1, 0, 0], [2, 0, 0]), (1500, [0, 1, 0], [0, 0, 1])])
def test_no_gradient_is_computed_in_a_graph_where_none_is_asked_for(n, value, both):
    """A graph of few rows has one matrix product for the value and one more for the gradient; tiles are an operator."""
    assert in_the_graph(batch(n, 4)) == value
    with torch.no_grad():
        assert in_the_graph(batch(n, 4).requires_grad_()) == value
    assert in_the_graph(batch(n, 4).requires_grad_()) == both


def test_a_graph_whose_products_would_be_rounded_has_an_operator():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert in_the_graph(batch(70, 4, dtype=torch.float32).requires_grad_()) == [0, 0, 1]
        assert in_the_graph(batch(70, 4).requires_grad_()) == [2, 0, 0]
    finally:
        torch.set_float32_matmul_precision(before)


TRANSFORMS = {
    "grad": lambda f: grad(f),
    "jvp": lambda f: lambda z: jvp(f, (z,), (torch.cos(z),))[1],
    "vmap": lambda f: lambda z: vmap(f)(torch.stack([z, 2.0 * z])),
    "hessian": lambda f: lambda z: hessian(f)(z[:5]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_in_compiled_graphs(name):
    """Of few rows they are those of eager PyTorch. An operator has none: an error, and no derivative that is 0."""
    torch._dynamo.reset()
    f = TRANSFORMS[name](lambda z: eccentric_loss(z, 1.5))
    g, z = torch.compile(f, fullgraph=True, backend="aot_eager"), batch(20, 3)
    torch.testing.assert_close(g(z), f(z), rtol=1e-12, atol=1e-14)
    if name != "hessian":
        with pytest.raises(Exception, match="z must have a known number of rows, and few pairs"):
            g(batch(1500, 3))


def compiled(f, backend="aot_eager", **options):
    """The function compiled, and what counts how often it was."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    return torch.compile(f, backend=counter, fullgraph=True, **options), counter


def test_few_compilations_for_many_sizes_of_batch():
    """One for the first size and one for all others."""
    f, counter = compiled(eccentric_loss, dynamic=True)
    for n in (3, 70, 64, 65, 1000, 200, 999):
        z = batch(n, 4).requires_grad_()
        f(z).backward()
        np.testing.assert_allclose(z.grad.numpy(), core_loss_and_grad(z.detach().numpy())[1], rtol=0, atol=1e-13)
    assert counter.frame_count <= 2


def test_a_compiled_loss_follows_mu_and_the_dimension(tolerance):
    """What is computed from them must not stay in a graph that is used again."""
    f, _ = compiled(eccentric_loss, dynamic=True)
    for mu, d in ((1.25, 4), (1.25, 8), (2.5, 8), (0.75, 3), (7.5, 5), (1.25, 5)):
        z = batch(70, d).requires_grad_()
        value = f(z, mu)
        value.backward()
        true_loss, true_grad = core_loss_and_grad(z.detach().numpy(), mu)
        assert abs(value.item() - true_loss) <= tolerance["float64"] * abs(true_loss)
        np.testing.assert_allclose(z.grad.numpy(), true_grad, rtol=0, atol=1e-13)


def test_a_training_step_compiles_as_one_graph():
    """By default sizes become unknown when a second one comes: two compilations, and no more."""
    layer, module = nn.Linear(4, 3), EccentricLoss(1.5)
    f, counter = compiled(lambda x: (layer(x) ** 2).mean() + 0.1 * module(layer(x)), "inductor")
    for n in (70, 80, 90, 100):
        f(batch(n, 4, dtype=torch.float32)).backward()
        found, layer.weight.grad = layer.weight.grad, None
        z = layer(batch(n, 4, dtype=torch.float32))
        ((z**2).mean() + 0.1 * eccentric_loss(z, 1.5)).backward()
        assert close(found, layer.weight.grad, 1e-5)
        layer.weight.grad = None
    assert counter.frame_count == 2


def test_no_graph_break():
    torch._dynamo.reset()
    assert torch._dynamo.explain(eccentric_loss)(batch(70, 4)).graph_break_count == 0


def test_operators_are_well_formed():
    """By PyTorch's own checks of schema, shapes and tracing."""
    call, tensors = Call.of(PairSum(LogarithmicKernel()), (batch(70, 4), None, None, 2.5, 0.5, 2.0))
    numbers = []
    text = text_of(encode(call, numbers))
    for dtype in (torch.float32, torch.float64):
        for rows in (tensors[0].to(dtype), batch(3, 70, 4, dtype=dtype).mT.contiguous().mT):
            for operator in (torch.ops.eccentric.value, torch.ops.eccentric.value_and_gradients):
                arguments = (text, torch.tensor(numbers, dtype=torch.float64), [rows])
                tests = ("test_schema", "test_faketensor")
                torch.library.opcheck(operator.default, arguments, test_utils=tests)


def test_module(tolerance):
    module = EccentricLoss(2.5, scale="exact")
    assert repr(module) == "EccentricLoss(mu=2.5, scale='exact')"
    assert module.state_dict() == {}
    assert list(module.parameters()) == []
    z = batch(70, 4)
    expected = eccentric_loss(z, 2.5, scale="exact")
    true_loss, _ = oracle.loss_and_grad(z.numpy(), 2.5, float(kernel_scale(4, 2.5, method="exact")))
    assert abs(expected.item() - true_loss) <= tolerance["float64"] * abs(true_loss)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (
        module,
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
        module.to(torch.float32).eval(),
        nn.Sequential(nn.Identity(), module),
    ):
        assert torch.equal(other(z), expected)
    assert torch.equal(functional_call(module, {}, (z,)), expected)
    assert module(z.float()).dtype == torch.float32


@pytest.mark.parametrize(("options", "words"), [({"mu": 0.5}, "mu must be finite"), ({"scale": 0}, "scale must be")])
def test_a_module_checks_its_arguments_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        EccentricLoss(**options)


def test_parameters_stay_untouched_by_the_engine():
    """Nothing is written into the rows, of which views are made."""
    z = batch(70, 4)
    z -= z.mean(0)
    before = z.clone()
    eccentric_loss(z, 1.5)
    eccentric_loss(z.requires_grad_(), 1.5).backward()
    assert torch.equal(z, before)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_are_exact_whatever_the_setting(precision, tolerance):
    """Hardware that can, such as a CPU with AMX, then multiplies float32 in TF32 or bfloat16."""
    z = batch(200, 16, dtype=torch.float32).requires_grad_()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        value = eccentric_loss(z)
        value.backward()
    finally:
        torch.set_float32_matmul_precision(before)
    true_loss, true_grad = core_loss_and_grad(z.detach().numpy().astype(np.float64))
    assert abs(value.item() - true_loss) <= tolerance["float32"] * abs(true_loss)
    assert np.linalg.norm(z.grad.numpy() - true_grad) <= tolerance["float32"] * np.linalg.norm(true_grad)


def test_a_compiled_graph_of_another_exponent():
    """The exponent is a constant of a graph: Inductor refuses one that is traced in this energy."""
    torch._dynamo.reset()
    w = batch(30, 6).requires_grad_()
    options = {"half_space": True, "angular": True}
    for s in (2.5, 3.5):
        f = torch.compile(partial(hyperspherical_energy, s=s, **options), fullgraph=True, dynamic=True)
        f(w).backward()
        assert f(w).item() == pytest.approx(hyperspherical_energy(w, s, **options).item())
