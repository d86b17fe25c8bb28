"""What PyTorch's and JAX's networks are regularised by, against the published formulas, layer by layer."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
from torch import nn

import eccentric_jax
from eccentric_core import AdversarialProjection, AnglePreservingProjection, GroupProjection, kernel_scale
from eccentric_jax import hyperspherical_penalty, init_projections, update_projections
from eccentric_torch import (
    CompressiveEnergy,
    HypersphericalRegularizer,
    compressive_energy,
    eccentric_loss,
    init_projection,
    update_projection,
)

# The arguments of an energy, and the weight of a hidden layer that they stand for.
ENERGIES = [
    ({}, 1.0),
    ({"s": 0.0}, 1.0),
    ({"s": 1.0, "angular": True}, 0.1),
    ({"s": 0.0, "angular": True}, 1.0),
    ({"normalization": "official"}, 1.0),
    ({"half_space": False}, 1.0),
    ({"weight": 0.25, "output_weight": 3.0}, 0.25),
    ({"s": 2.0, "angular": True, "weight": 2.0}, 2.0),
]


def summed(rows, options, hidden, output):
    """The weighted sum of the energies of rows by the names of their layers."""
    which = {name: options[name] for name in ("s", "angular", "normalization") if name in options}
    half_space, of_output = options.get("half_space", True), hidden * options.get("output_weight", 10.0)
    return sum(
        of_output * oracle.hyperspherical(w, **which)
        if name == output
        else hidden * oracle.hyperspherical(w, half_space=half_space, **which)
        for name, w in rows.items()
    )


def close(value, expected, tolerance=1e-12):
    return abs(value.item() - expected.item()) <= tolerance * abs(expected.item())


class Network(nn.Module):
    """An image to five classes, by layers of all kinds. The head comes first in the order of modules."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(36, 5)
        self.gate = nn.Linear(36, 1)  # one neuron
        self.conv = nn.Conv2d(3, 6, 4)  # of an image
        self.body = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3))
        self.up = nn.ConvTranspose2d(8, 6, 2, groups=2)
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        x = self.up(self.body(self.conv(x)).relu()).mean(-1).flatten(1)
        return self.last(self.head(x) * self.gate(x))


SHAPES = {"head": (1, 36), "conv": (1, 3, 4, 4), "body.1": (1, 6, 3, 3), "up": (1, 8, 2, 2), "last": (1, 5)}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


@pytest.fixture
def network():
    return Network().double()


def neurons(layer, shape):
    """The weights that each output depends on, by autograd."""
    y = layer(torch.randn(shape, dtype=torch.float64))
    found = []
    for channel in y.unbind(1):
        (slope,) = torch.autograd.grad(channel.sum(), layer.weight, retain_graph=True)
        found.append(layer.weight[slope != 0].detach().numpy())
    return np.asarray(found)


def neurons_of(network, *names):
    return {name: neurons(network.get_submodule(name), SHAPES[name]) for name in names or SHAPES}


@pytest.mark.parametrize(("options", "hidden"), ENERGIES, ids=repr)
@pytest.mark.parametrize("output", [None, "head", "body.1"])
def test_the_weighted_sum_over_layers(options, hidden, output, network):
    regularizer = HypersphericalRegularizer(network, output=output, **options)
    assert close(regularizer(), summed(neurons_of(network), options, hidden, output or "last"))
    assert set(regularizer.energies()) == set(SHAPES)  # and not that of one neuron


@pytest.mark.parametrize("exclude", [("conv",), ("body.1", "head"), ("last",)])
def test_excluded_layers(exclude, network):
    """Without the output layer no hidden one takes its place."""
    regularizer = HypersphericalRegularizer(network, exclude=exclude)
    kept = [name for name in SHAPES if name not in exclude]
    assert close(regularizer(), summed(neurons_of(network, *kept), {}, 1.0, "last"))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ConvTranspose1d(6, 4, 3), (1, 6, 2)),
        (nn.ConvTranspose2d(6, 4, (3, 2)), (1, 6, 2, 2)),
        (nn.ConvTranspose2d(6, 9, 2, groups=3), (1, 6, 2, 2)),
        (nn.ConvTranspose3d(4, 6, 2, groups=2), (1, 4, 2, 2, 2)),
        (nn.Conv2d(6, 4, 2, groups=2), (1, 6, 2, 2)),
        (nn.Conv3d(4, 6, 2), (1, 4, 2, 2, 2)),
    ],
    ids=repr,
)
def test_a_neuron_of_a_convolution_is_what_an_output_depends_on(layer, shape):
    layer = copy.deepcopy(layer).double()
    (energy,) = HypersphericalRegularizer(nn.Sequential(layer)).energies().values()
    assert close(energy, oracle.hyperspherical(neurons(layer, shape)))


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_images_and_layers_of_few_inputs_are_not_projected(channels):
    """Of 4 channels or fewer, and of no more inputs than the projection has dimensions."""
    model = nn.Sequential(nn.Conv2d(channels, 6, 4), nn.Linear(12, 6), nn.Linear(13, 6), nn.Linear(12, 3)).double()
    regularizer = HypersphericalRegularizer(model, projection=AdversarialProjection(dim=12)).eval()
    assert set(regularizer.compressive) == ({"of_0", "of_2"} if channels > 4 else {"of_2"})
    for i, (name, energy) in enumerate(regularizer.energies().items()):
        w = model[i].weight.detach().flatten(1)
        w = w @ regularizer.compressive[f"of_{name}"].matrix.T if f"of_{name}" in regularizer.compressive else w
        assert close(energy, oracle.hyperspherical(w.numpy(), half_space=i < 3))


def test_another_energy_of_the_rows(network):
    regularizer = HypersphericalRegularizer(network, energy=eccentric_loss, weight=0.1, output_weight=2.0)
    of_layers = {
        name: oracle.loss_and_grad(w, 1.0, float(kernel_scale(w.shape[1], 1.0)))[0]
        for name, w in neurons_of(network).items()
    }
    assert close(regularizer(), sum(0.1 * value for value in of_layers.values()) + 0.1 * of_layers["last"])


@pytest.mark.parametrize("projection", [None, "random", "adversarial"])
def test_the_network_is_no_part_of_the_regularizer(projection, network):
    regularizer = HypersphericalRegularizer(network, projection=projection)
    assert list(regularizer.parameters()) == []
    learned = ["body/1", "head"] if projection == "adversarial" else []
    assert sorted(regularizer.state_dict()) == [f"compressive.of_{name}.matrix" for name in learned]
    regularizer.to(torch.float32)
    assert all(weight.dtype == torch.float64 for weight in network.parameters())
    both, copied = copy.deepcopy((network, regularizer))
    with torch.no_grad():
        both.conv.weight[0] = both.conv.weight[1]
    assert copied.energies()["conv"] > 1e3 > regularizer.energies()["conv"]  # each has its own network


@pytest.mark.parametrize("projection", [None, "random", "group", "angle-preserving", "adversarial"])
def test_a_step_down_the_gradient_lowers_it(projection, network):
    """Every weight has a part in it, and the rest of the network none."""

    def value():
        torch.manual_seed(5)  # the same draws
        return regularizer()

    regularizer = HypersphericalRegularizer(network, projection=projection).eval()
    before = value()
    before.backward()
    for name, parameter in network.named_parameters():
        counts = name.removesuffix(".weight") in SHAPES
        assert (parameter.grad is not None and torch.linalg.norm(parameter.grad) > 1e-3) == counts, name
    torch.optim.SGD(network.parameters(), 0.001).step()
    assert value() < before


@pytest.mark.parametrize("rule", ["angle-preserving", "adversarial"])
def test_projections_learn_in_training_and_are_saved(rule, network):
    regularizer = HypersphericalRegularizer(network, projection=rule)
    before = copy.deepcopy(regularizer.state_dict())
    regularizer.eval()()
    assert all(torch.equal(matrix, before[name]) for name, matrix in regularizer.state_dict().items())
    regularizer.train()()
    assert all(not torch.equal(matrix, before[name]) for name, matrix in regularizer.state_dict().items())
    other = HypersphericalRegularizer(network, projection=rule).eval()
    assert other() != regularizer.eval()()
    other.load_state_dict(regularizer.state_dict())
    assert torch.equal(other(), regularizer())


class Doubled(nn.Module):
    def forward(self, weight):
        return weight + weight.flip(1).sin()


def test_weights_are_looked_up_at_every_call(network):
    """Those that are replaced, and those that are computed from others, whose gradient they hand on."""
    regularizer = HypersphericalRegularizer(network)
    network.head.weight = nn.Parameter(torch.randn(5, 36, dtype=torch.float64))
    nn.utils.parametrize.register_parametrization(network.last, "weight", Doubled())
    assert close(
        regularizer(),
        summed({name: layer.weight.detach() for name, layer in regularizer._layers if name != "up"}, {}, 1.0, "last")
        + oracle.hyperspherical(neurons(network.up, SHAPES["up"]), half_space=True),
    )
    regularizer().backward()
    assert torch.linalg.norm(network.last.parametrizations.weight.original.grad) > 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's compiler warns of its own use of PyTorch
@pytest.mark.parametrize("projection", [None, "adversarial"])
def test_a_training_step_compiles_as_one_graph(projection, network):
    torch._dynamo.reset()
    regularizer = HypersphericalRegularizer(network, projection=projection)
    x = torch.randn(4, 3, 10, 10, dtype=torch.float64)

    def gradients(f):
        network.zero_grad()
        loss = f(x)
        loss.backward()
        return [loss, *(parameter.grad.clone() for parameter in network.parameters())]

    def step(x):
        return (network(x) ** 2).mean() + regularizer()

    state = copy.deepcopy(regularizer.state_dict())
    expected, learned = gradients(step), copy.deepcopy(regularizer.state_dict())
    regularizer.load_state_dict(state)
    found = gradients(torch.compile(step, backend="aot_eager", fullgraph=True))
    for one, other in zip([*found, *regularizer.state_dict().values()], [*expected, *learned.values()], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "tail"}, "there is no layer 'tail' .*; there are head, conv, body.1, up, last"),
        ({"output": "gate"}, "there is no layer 'gate' of two neurons or more"),
        ({"exclude": ("body",)}, "there is no layer 'body'"),
        ({"exclude": tuple(SHAPES)}, "model must have a linear layer or a convolution"),
        ({"weight": -1.0}, "weight must be a finite number, 0 or more, got -1.0"),
        ({"weight": True}, "weight must be .* got True"),
        ({"output_weight": float("inf")}, "output_weight must be .* got inf"),
        ({"output_weight": None}, "output_weight must be .* got None"),
        ({"projection": "rnadom"}, "projection must be .random., .* got 'rnadom'"),
        ({"energy": 1.0}, "energy must be a function of rows, without a projection, got 1.0"),
        ({"energy": abs, "projection": "random"}, "energy must be .* without a projection"),
        ({"s": -1.0}, "s must be from 0 to 100, got -1.0"),
    ],
    ids=str,
)
def test_a_regularizer_names_what_is_wrong(options, words, network):
    with pytest.raises(ValueError, match=words):
        HypersphericalRegularizer(network, **options)


def test_a_model_without_neurons():
    with pytest.raises(ValueError, match=r"model must have a linear layer or a convolution .*, got none"):
        HypersphericalRegularizer(nn.Sequential(nn.Linear(8, 1), nn.ReLU()))


def test_a_regularizer_can_be_pickled(network):
    network, regularizer = pickle.loads(pickle.dumps((network, HypersphericalRegularizer(network))))
    assert close(regularizer(), summed(neurons_of(network), {}, 1.0, "last"))


@pytest.mark.parametrize("name", ["", "keys"])
def test_any_name_of_a_projected_layer(name):
    layer = nn.Linear(50, 5)
    model = nn.Module() if name else layer
    if name:
        model.add_module(name, layer)
    regularizer = HypersphericalRegularizer(model, projection="adversarial").eval()
    assert set(regularizer.energies()) == {name}


def weight(n=12, dim=50, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, dim))).to(dtype).requires_grad_()


@pytest.mark.parametrize("projection", ["random", "group", GroupProjection(2, of="neurons", dim=8)], ids=repr)
def test_draws_differ_from_call_to_call_and_repeat_with_a_generator(projection):
    generator, w = torch.Generator().manual_seed(7), weight()
    module = CompressiveEnergy(50, projection, rng=generator)
    first, second = module(w), module(w)
    assert first != second
    generator.manual_seed(7)
    assert torch.equal(module(w), first)
    other = CompressiveEnergy(50, projection)
    assert other(w) != other(w)


def test_a_random_projection_is_the_mean_over_draws():
    generator, w = torch.Generator().manual_seed(7), weight()
    found = CompressiveEnergy(50, s=1.0, half_space=True, rng=generator)(w)
    drawn = torch.randn((20, 40, 50), generator=generator.manual_seed(7), dtype=torch.float64)
    rows = (w.detach() @ drawn.mT).numpy()
    assert close(found, np.mean([oracle.hyperspherical(one, 1.0, half_space=True) for one in rows]))


def cosines(w):
    u = w / torch.linalg.norm(w, dim=1, keepdim=True)
    return u @ u.T


def stepped(matrix, w, rule):
    """P after one training step of its rule, from matrices of all pairs and by autograd."""
    x = w / torch.linalg.norm(w, dim=1, keepdim=True)
    n, matrix = len(w), matrix.detach().requires_grad_()
    for _ in range(rule.steps):
        c = cosines(x @ matrix.T)
        if isinstance(rule, AnglePreservingProjection):
            goal = -torch.sqrt(((c - cosines(w)) ** 2).sum()) / n
        else:
            goal = (1 / (2 - 2 * c[~torch.eye(n, dtype=torch.bool)])).mean()
        (slope,) = torch.autograd.grad(goal, matrix, create_graph=True)
        matrix = matrix * (1 - rule.rate * rule.decay) + rule.rate * slope
    return matrix


RULES = [AnglePreservingProjection(dim=8, rate=0.5, decay=0.02), AdversarialProjection(dim=8, rate=0.05, steps=3)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_call_in_training_is_a_step_of_the_projection_and_its_energy(rule):
    """That of P or, where it learns to keep angles, of P after one step more, through which the gradient goes."""
    w, module = weight(), CompressiveEnergy(50, rule, dtype=torch.float64)
    before = module.matrix.clone()
    value = module(w)
    after = stepped(before, w, rule).detach()
    torch.testing.assert_close(module.matrix, after, rtol=1e-11, atol=1e-13)
    used = stepped(after, w, rule) if isinstance(rule, AnglePreservingProjection) else after
    c = cosines(w @ used.T)
    expected = (1 / (2 - 2 * c[~torch.eye(12, dtype=torch.bool)])).mean()
    assert close(value, expected, 1e-11)
    (found,), (slope,) = torch.autograd.grad(value, w), torch.autograd.grad(expected, w)
    torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("start", [0, 1])
def test_the_functions_of_a_projection_do_what_the_module_does(rule, start):
    w, generator = weight(), torch.Generator().manual_seed(start)
    module = CompressiveEnergy(50, rule, 1.0, half_space=True, rng=generator, dtype=torch.float64)
    projection = init_projection(w, rule, rng=generator.manual_seed(start))
    assert torch.equal(projection.matrix, module.matrix)
    projection = update_projection(projection, w, 1.0, half_space=True)
    assert not projection.matrix.requires_grad
    assert torch.equal(module(w), compressive_energy(w, projection, 1.0, half_space=True))
    assert torch.equal(module.matrix, projection.matrix)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_two_calls_before_one_way_back(rule):
    w, module = weight(), CompressiveEnergy(50, rule, dtype=torch.float64)
    again = copy.deepcopy(module)
    (found,) = torch.autograd.grad(module(w) + 2 * module(w), w)
    first, second = (torch.autograd.grad(again(w), w)[0] for _ in range(2))
    torch.testing.assert_close(found, first + 2 * second, rtol=1e-12, atol=1e-14)
    assert not torch.equal(first, second)


def test_a_module_moves_to_another_dtype_and_shows_its_arguments(tolerance):
    module = CompressiveEnergy(50, "adversarial", half_space=True).eval()
    assert module.matrix.dtype == torch.float32
    assert module.to(torch.float64).matrix.dtype == torch.float64
    for dtype in (torch.float32, torch.float64):  # of weights
        w = weight(dtype=dtype)
        value = module(w)
        known = oracle.hyperspherical((w.double() @ module.matrix.T).detach().numpy(), half_space=True)
        assert value.dtype == dtype
        assert close(value, known, tolerance[str(dtype).removeprefix("torch.")])
    assert repr(module) == (
        "CompressiveEnergy(AdversarialProjection(dim=30, rate=0.001, steps=10, decay=0.001), "
        "s=2.0, half_space=True, angular=False, normalization=paper, eps=None)"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: CompressiveEnergy(50, "rnadom"), "projection must be .random., .* got 'rnadom'"),
        (lambda: CompressiveEnergy(50, s=-1.0), "s must be from 0 to 100, got -1.0"),
        (lambda: CompressiveEnergy(7, "adversarial")(weight()), r"projection must .* D = 50, .* got \(30, 7\)"),
        (lambda: init_projection(weight(), "random"), "rule must be \"angle-preserving\", .* got 'random'"),
    ],
    ids=["name", "s", "inputs", "rule"],
)
def test_a_module_names_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.fixture
def x64():
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # JAX before 0.8
        from jax.experimental import enable_x64 as enable
    with enable(True):
        yield


def tree(axis=-1):
    """Parameters as Flax has them or, with neurons in the first axis, Equinox; and the neurons of every layer."""
    rng = np.random.default_rng(4)
    rows = {"conv": (6, 3, 4, 4), "body": (8, 6, 3, 3), "small": (7, 12), "hidden": (7, 50), "head": (5, 50)}
    rows = {name: rng.standard_normal(shape) for name, shape in rows.items()}
    # (height, width, channels, neurons) of (neurons, channels, height, width)
    of_flax = {name: w.transpose(*range(2, w.ndim), 1, 0) for name, w in rows.items()}
    params = {name: {"kernel": w, "bias": np.ones(5)} for name, w in (of_flax if axis == -1 else rows).items()}
    params["gate"] = {"kernel": rng.standard_normal((1, 9) if axis == 0 else (9, 1))}  # one neuron
    return jax.tree.map(jnp.asarray, {"params": params}), rows


def path(name):
    return f"['params']['{name}']['kernel']"


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("options", "hidden", "axis"), [({}, 1.0, 0), *((*energy, -1) for energy in ENERGIES)], ids=repr
)
def test_the_penalty_is_the_weighted_sum_over_leaves(options, hidden, axis):
    params, rows = tree(axis)
    expected = summed(rows, options, hidden, "head")
    assert close(hyperspherical_penalty(params, output="head", axis=axis, **options), expected)


@pytest.mark.usefixtures("x64")
def test_the_penalty_with_another_energy_of_the_rows():
    params, rows = tree()
    values = [
        oracle.loss_and_grad(w, 1.0, float(kernel_scale(w.shape[1], 1.0)))[0] * (2.0 if name == "head" else 1.0)
        for name, w in ((name, w.reshape(len(w), -1)) for name, w in rows.items())
    ]
    found = hyperspherical_penalty(params, output="head", energy=eccentric_jax.eccentric_loss, output_weight=2.0)
    assert close(found, sum(values))


@pytest.mark.usefixtures("x64")
def test_the_gradient_of_the_penalty_under_jit():
    """Of every kernel and of nothing else, along a random direction."""
    params, rows = tree()
    gradient = jax.jit(jax.grad(lambda params: hyperspherical_penalty(params, output="head")))(params)["params"]
    for name, w in rows.items():
        u = np.random.default_rng(0).standard_normal(w.shape)
        slope = oracle.along(lambda w, name=name: summed({name: w}, {}, 1.0, "head"), w, u)
        found = jnp.sum(jnp.moveaxis(gradient[name]["kernel"], (-1, -2), (0, 1)) * u)
        assert close(found, slope, 1e-8)
        assert not jnp.any(gradient[name]["bias"])
    assert not jnp.any(gradient["gate"]["kernel"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "tail"}, r"output must be part of the path of one layer, got 'tail', of 0 of .*'body'.*'small'"),
        ({"output": "gate"}, "output must be .* got 'gate', of 0 of"),
        ({"output": "kernel"}, "output must be .* got 'kernel', of 5 of"),
        ({"axis": 1}, "axis must be 0 or -1, .* got 1"),
        ({"weight": -1.0}, "weight must be a finite number, 0 or more, got -1.0"),
        ({"projection": "rnadom"}, "projection must be .random., .* got 'rnadom'"),
        ({"projection": "adversarial"}, "projection is learned .* init_projections"),
        ({"projection": "random"}, "rng must be a key for a projection that is drawn, got None"),
        ({"projection": "random", "projections": {}}, "projections must not be given together with projection"),
        ({"energy": abs, "projections": {}}, "projections must not be given together with"),
        ({"energy": 1.0}, "energy must be a function of rows"),
    ],
    ids=str,
)
def test_the_penalty_names_what_is_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        hyperspherical_penalty(tree()[0], **{"output": "head", **options})


def test_draws_follow_the_key_and_differ_from_layer_to_layer():
    w = jnp.asarray(np.random.default_rng(0).standard_normal((50, 12)), jnp.float32)
    key, other = jax.random.split(jax.random.key(0))

    def penalty(key, *names):
        params = {**dict.fromkeys(names, w), "last": w}
        return hyperspherical_penalty(params, output="last", output_weight=0.0, projection="random", rng=key)

    assert penalty(key, "a") == penalty(key, "a")
    assert penalty(key, "a") != penalty(other, "a")
    one, two = float(penalty(key, "a")), float(penalty(key, "a", "b"))
    assert 1e-4 < abs(two - 2 * one) < 0.2 * one


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axis", [-1, 0])
def test_learned_projections_of_a_tree(axis):
    """Not of images and layers of few inputs; as arguments and results of compiled functions."""
    params, rows = tree(axis)
    key, rule = jax.random.key(1), AdversarialProjection(dim=12, rate=0.05, steps=2)
    first = jax.jit(lambda key, params: init_projections(params, rule, output="head", axis=axis, rng=key))(key, params)
    assert sorted(first) == [path(name) for name in ("body", "head", "hidden")]
    assert not jnp.array_equal(first[path("hidden")].matrix, first[path("head")].matrix)
    next_of = jax.jit(lambda p, params: update_projections(p, params, output="head", axis=axis))
    second = next_of(first, params)
    assert {one.rule for one in second.values()} == {rule}
    of_head = [torch.from_numpy(np.array(x)) for x in (first[path("head")].matrix, rows["head"])]
    np.testing.assert_allclose(second[path("head")].matrix, stepped(*of_head, rule).detach(), rtol=1e-11, atol=1e-13)

    penalty = jax.jit(lambda p, params: hyperspherical_penalty(params, output="head", axis=axis, projections=p))
    for name in ("body", "head", "hidden"):
        w = np.moveaxis(params["params"][name]["kernel"], axis, 0)
        rows[name] = w.reshape(len(w), -1) @ second[path(name)].matrix.T
    assert close(penalty(second, params), summed(rows, {}, 1.0, "head"))
    # The matrices are no parameters, though leaves of the tree.
    of_matrices = jax.grad(penalty)(second, params)
    assert jax.tree.structure(of_matrices) == jax.tree.structure(second)
    assert not any(map(jnp.any, jax.tree.leaves(of_matrices)))


def test_a_learned_projection_is_a_tree_of_its_matrix():
    projection = eccentric_jax.init_projection(jnp.ones((4, 50)), "adversarial", rng=jax.random.key(0))
    half = jax.tree.map(lambda x: x / 2, projection)
    assert type(half) is type(projection)
    assert half.rule == projection.rule
    np.testing.assert_array_equal(half.matrix, projection.matrix / 2)
    assert [x.shape for x in jax.tree.leaves(projection)] == [(30, 50)]
