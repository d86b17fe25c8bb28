"""What each framework contributes: its weights' layout, its step, its convolutions. What they agree on is verified by
`tools/verify_latents.py` and its tests.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from eccentric_models import frameworks
from eccentric_models.architecture import (
    Architecture,
    BatchNorm,
    Convolution,
    Dense,
    Reshape,
    TransposedConvolution,
    initial_weights,
    is_statistic,
)
from eccentric_models.frameworks import Adam, FrameworkError, State, StateError, create
from eccentric_models.frameworks._convolutions import convolve, convolve_transposed
from eccentric_models.frameworks.torch_model import _BatchNorm
from eccentric_models.objectives import Objective

# Every kind of layer, with uneven margins and no two sizes the same.
SMALL = Architecture(
    image_shape=(6, 5, 2),
    dim=2,
    code_size=2,
    encoder=(Convolution(3, 2, 2, padding=(1, 2)), BatchNorm(), Reshape((48,)), Dense(2)),
    decoder=(
        Reshape((1, 1, 2)),
        TransposedConvolution(4, 4, 3, crop=(0, 1)),
        Reshape((36,)),
        Dense(60),
        Reshape((6, 5, 2)),
    ),
)


def model_of(framework, architecture=SMALL, *, dtype="float64", **options):
    rng = np.random.default_rng(0)
    weights = {name: value.astype(dtype) for name, value in initial_weights(architecture, rng).items()}
    options = {"objective": Objective("none"), "adam": Adam(learning_rate=1e-2)} | options
    return create(framework, architecture, state=State.start(weights), dtype=dtype, **options)


def random_state(rng, architecture=SMALL):
    """A state in which no two numbers are the same."""

    def part(names):
        return {name: rng.uniform(0.5, 1, architecture.weights[name]) for name in names}

    trained = [name for name in architecture.weights if not is_statistic(name)]
    return State(part(architecture.weights), part(trained), part(trained), 17)


def assert_same(a, b):
    assert a.step == b.step
    for mine, theirs in zip(a[:3], b[:3], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_a_state_comes_back(framework, rng):
    model, state = model_of(framework), random_state(rng)
    model.state = state
    assert_same(model.state, state)
    images = rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8)
    before = model.encode(images)
    model.fetch([model.step(model.place(images), None)])
    assert model.state.step == 18
    assert np.max(np.abs(model.encode(images) - before)) > 1e-4
    model.state = state  # a step must not have kept or changed what was given
    np.testing.assert_array_equal(model.encode(images), before)


def numpy_encode(weights, images):
    """The encoder of SMALL in evaluation mode, written out."""
    x = np.pad(images / 255, ((0, 0), (1, 2), (1, 2), (0, 0)))
    kernel = weights["encoder.convolution1.kernel"]
    y = np.zeros((len(x), 4, 4, 3))
    for i in range(4):
        for j in range(4):
            y[:, i, j] = np.einsum("nhwc,hwco->no", x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], kernel)
    norm = {key: weights[f"encoder.batchnorm1.{key}"] for key in ("scale", "bias", "mean", "variance")}
    y = (y - norm["mean"]) / np.sqrt(norm["variance"] + 1e-5) * norm["scale"] + norm["bias"]
    return y.reshape(len(x), -1) @ weights["encoder.dense1.kernel"] + weights["encoder.dense1.bias"]


def numpy_decode(weights, z):
    """The decoder of SMALL, written out."""
    y = np.einsum("nc,hwco->nhwo", z, weights["decoder.transposedconvolution1.kernel"])[:, :3, :3]
    y = y.reshape(len(z), -1) @ weights["decoder.dense1.kernel"] + weights["decoder.dense1.bias"]
    return y.reshape(len(z), 6, 5, 2)


def test_networks_are_what_they_are_described_as(framework, rng):
    """Against NumPy: no framework can be right by agreeing with another."""
    model, state = model_of(framework), random_state(rng)
    model.state = state
    images = rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8)
    np.testing.assert_allclose(model.encode(images), numpy_encode(state.weights, images), rtol=1e-12)
    z = rng.standard_normal((4, 2))
    np.testing.assert_allclose(model.decode(z), numpy_decode(state.weights, z), rtol=1e-12)


def test_many_images_are_encoded_in_parts(framework, rng, monkeypatch):
    model = model_of(framework)
    images = rng.integers(0, 256, (7, 6, 5, 2), dtype=np.uint8)
    whole = model.encode(images)
    monkeypatch.setattr(frameworks, "_CHUNK", 3)
    np.testing.assert_allclose(model.encode(images), whole, rtol=1e-12)
    np.testing.assert_allclose(model.decode(whole), np.concatenate([model.decode(z[None]) for z in whole]), rtol=1e-12)


def test_images_are_placed_once_or_streamed(framework, rng, tmp_path):
    """From a file they come batch by batch: it may be larger than the memory of the device."""
    model = model_of(framework)
    images = rng.integers(0, 256, (9, 6, 5, 2), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = np.array([5, 0, 7])
    for source in (images, mapped):
        np.testing.assert_array_equal(np.asarray(model.batches(source)(rows)), images[rows])
    placed = []
    model.place = lambda array: placed.append(array)
    model.batches(mapped)
    assert placed == []
    model.batches(mapped)(rows)
    assert [array.shape for array in placed] == [(3, 6, 5, 2)]


def test_results_stay_on_the_device_until_they_are_fetched(framework, rng):
    model = model_of(framework)
    images = model.place(rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8))
    results = [model.step(images, None) for _ in range(3)]
    assert not any(isinstance(value, np.ndarray | float) for result in results for value in result)
    reconstruction, penalty, latents = model.fetch(results)
    assert (reconstruction.shape, penalty.shape, latents.shape) == ((3,), (3,), (3, 4, 2))
    assert reconstruction[2] < reconstruction[0]


def test_adam_by_hand(framework, rng):
    """Two steps of Adam with L2 in the gradient, on the last bias, whose gradient is known."""
    adam = Adam(learning_rate=1e-2, weight_decay=0.1, beta1=0.8, beta2=0.9, epsilon=1e-3)
    model, state = model_of(framework, adam=adam), State.start(random_state(rng).weights)
    model.state = state
    images = rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8)
    name, mean, square = "decoder.dense1.bias", 0.0, 0.0
    expected = state.weights[name]
    for step in (1, 2):
        before = model.state.weights
        # The mean squared error of what the decoder makes in this step, of latents in training mode.
        latents = model.fetch([model.step(model.place(images), None)]).latents[0]
        error = numpy_decode(before, latents) - images / 255
        gradient = 2 * error.reshape(4, -1).sum(0) / error.size + 0.1 * before[name]
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        root = np.sqrt(square / (1 - 0.9**step)) + 1e-3
        expected = expected - 1e-2 * (mean / (1 - 0.8**step)) / root
        np.testing.assert_allclose(model.state.weights[name], expected, rtol=1e-12)


def test_running_statistics_are_those_of_the_population(framework, rng):
    architecture = dataclasses.replace(SMALL, encoder=(BatchNorm(momentum=0.25), Reshape((60,)), Dense(2)))
    model = model_of(framework, architecture)
    images = rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8)
    model.fetch([model.step(model.place(images), None)])
    weights, pixels = model.state.weights, (images / 255).reshape(-1, 2)
    np.testing.assert_allclose(weights["encoder.batchnorm1.mean"], 0.25 * pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(weights["encoder.batchnorm1.variance"], 0.75 + 0.25 * pixels.var(0), rtol=1e-12)


def test_float32_moments_keep_their_digits(framework):
    """Sums of float32, one pixel after the other, get them wrong in the fourth digit."""
    architecture = Architecture(
        (64, 64, 1), 2, 2, (BatchNorm(momentum=1.0), Reshape((4096,)), Dense(2)), (Dense(4096), Reshape((64, 64, 1)))
    )
    model = model_of(framework, architecture, dtype="float32")
    images = np.random.default_rng(0).integers(200, 256, (100, 64, 64, 1), dtype=np.uint8)
    model.fetch([model.step(model.place(images), None)])
    pixels = images.astype(np.float64) / 255
    np.testing.assert_allclose(model.state.weights["encoder.batchnorm1.mean"], pixels.mean(), rtol=1e-6)
    np.testing.assert_allclose(model.state.weights["encoder.batchnorm1.variance"], pixels.var(), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.weights.pop("encoder.dense1.bias"), "encoder.dense1.bias must have the shape"),
        (lambda state: state.weights.update(other=np.zeros(2)), "other must have the shape"),
        (
            lambda state: state.means.update({"encoder.dense1.bias": np.zeros(3)}),
            r"got \(3,\); these weights are of an",
        ),
    ],
)
def test_a_state_of_another_architecture(framework, rng, change, message):
    model, state = model_of(framework), random_state(rng)
    before = model.state
    change(state)
    with pytest.raises(StateError, match=message):
        model.state = state
    assert_same(model.state, before)


class TestConvolutions:
    """JAX: matrix products against XLA's own."""

    @pytest.mark.parametrize(
        ("shape", "size", "stride", "margin"),
        [
            ((1, 28, 28, 1), 5, 1, (0, 0)),
            ((2, 7, 9, 3), 4, 2, (1, 1)),
            ((2, 5, 5, 70), 4, 2, (0, 0)),
            ((2, 7, 9, 3), 3, 3, (1, 0)),
        ],
    )
    def test_convolve(self, shape, size, stride, margin, rng):
        x, kernel = rng.standard_normal(shape), rng.standard_normal((size, size, shape[-1], 5))
        self.check(lambda x, k, on_cpu: convolve(x, k, stride=stride, padding=margin, on_cpu=on_cpu), x, kernel)

    @pytest.mark.parametrize(
        ("shape", "size", "stride", "margin"),
        [
            ((1, 1, 1, 8), 3, 1, (0, 0)),
            ((2, 3, 4, 3), 4, 2, (1, 1)),
            ((2, 5, 5, 70), 4, 1, (1, 2)),
            ((2, 3, 4, 3), 1, 1, (0, 0)),
            ((2, 5, 5, 70), 3, 2, (0, 1)),
        ],
    )
    def test_convolve_transposed(self, shape, size, stride, margin, rng):
        x, kernel = rng.standard_normal(shape), rng.standard_normal((size, size, shape[-1], 5))
        self.check(lambda x, k, on_cpu: convolve_transposed(x, k, stride=stride, crop=margin, on_cpu=on_cpu), x, kernel)

    def check(self, function, x, kernel):
        with jax.enable_x64(True):
            shape = jax.eval_shape(lambda *args: function(*args, False), x, kernel).shape
            weights = np.random.default_rng(1).standard_normal(shape)

            def both(on_cpu):
                total = jax.value_and_grad(lambda *args: jnp.sum(weights * function(*args, on_cpu)), (0, 1))
                return jax.jit(total)(x, kernel)

            for actual, expected in zip(jax.tree.leaves(both(True)), jax.tree.leaves(both(False)), strict=True):
                np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12 * np.max(np.abs(expected)))


def test_batch_norm_of_pytorch(rng):
    """The derivatives that are put together from PyTorch's parts are those of its own."""
    x, upstream = (torch.from_numpy(rng.standard_normal((3, 4, 5, 6))) for _ in range(2))
    results = []
    for norm in (_BatchNorm(4, dtype=torch.float64), torch.nn.BatchNorm2d(4, dtype=torch.float64)):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(upstream)
        results.append([y, leaf.grad, norm.weight.grad, norm.bias.grad])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_float64_leaves_jax_as_it_was(rng):
    model = model_of("jax")
    images = rng.integers(0, 256, (4, 6, 5, 2), dtype=np.uint8)
    result = model.step(model.place(images), None)
    assert result.latents.dtype == np.float64
    assert model.state.weights["encoder.dense1.bias"].dtype == np.float64
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == jnp.float32


def test_a_framework_or_a_device_that_is_not_there(framework, monkeypatch):
    module = importlib.import_module(f"eccentric_models.frameworks.{framework}_model")
    if module.find_device("auto") == module.find_device("cpu"):
        with pytest.raises(FrameworkError, match='device "gpu"'):
            module.find_device("gpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FrameworkError, match=f"framework {framework} needs .*pip install"):
        model_of(framework)


def test_keras_on_another_backend(monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(FrameworkError, match="KERAS_BACKEND=tensorflow"):
        model_of("tensorflow")
