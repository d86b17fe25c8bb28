"""The networks as the paper prints them."""

from __future__ import annotations

import numpy as np
import pytest

from eccentric_models.architecture import (
    NETWORKS,
    Architecture,
    BatchNorm,
    Convolution,
    Dense,
    Pad,
    Reshape,
    Sigmoid,
    TransposedConvolution,
    celeba,
    initial_weights,
    is_statistic,
    mnist,
)
from eccentric_models.settings import RunError, Settings


def shapes(architecture, part):
    """What each layer that changes the shape gives."""
    return [
        step.layer.output_shape(step.input_shape)
        for step in architecture.steps(part)
        if not (hasattr(step.layer, "slope") or isinstance(step.layer, BatchNorm | Sigmoid))
    ]


def slopes(architecture):
    return {layer.slope for layer in (*architecture.encoder, *architecture.decoder) if hasattr(layer, "slope")}


def squares(*pairs):
    return [(size, size, channels) for size, channels in pairs]


def test_mnist():
    network = mnist(1, 8, 8)
    encoder = squares((32, 1), (28, 16), (13, 24), (10, 32), (4, 48))
    assert shapes(network, "encoder") == [*encoder, (768,), (64,), (8,)]
    decoder = squares((1, 8), (3, 48), (8, 32), (11, 24), (24, 16), (28, 16), (28, 1))
    assert shapes(network, "decoder") == decoder
    assert {
        layer.slope for part in (network.encoder, network.decoder) for layer in part if hasattr(layer, "slope")
    } == {0.1}


def test_celeba():
    network = celeba(3, 64, 128)
    encoder = squares((32, 128), (16, 256), (8, 512), (4, 1024))
    assert shapes(network, "encoder") == [*encoder, (16384,), (128,)]
    decoder = squares((8, 1024), (16, 512), (32, 256), (64, 128), (64, 3))
    assert shapes(network, "decoder") == [(65536,), *decoder]
    assert {
        layer.slope for part in (network.encoder, network.decoder) for layer in part if hasattr(layer, "slope")
    } == {0}


KERNELS = {
    "mnist": {
        "encoder.convolution1": (5, 5, 3, 16),
        "encoder.convolution2": (4, 4, 16, 24),
        "encoder.convolution3": (4, 4, 24, 32),
        "encoder.convolution4": (4, 4, 32, 48),
        "encoder.dense1": (768, 64),
        "encoder.dense2": (64, 10),
        "decoder.transposedconvolution1": (3, 3, 5, 48),
        "decoder.transposedconvolution2": (4, 4, 48, 32),
        "decoder.transposedconvolution3": (4, 4, 32, 24),
        "decoder.transposedconvolution4": (4, 4, 24, 16),
        "decoder.transposedconvolution5": (5, 5, 16, 16),
        "decoder.transposedconvolution6": (1, 1, 16, 3),
    },
    "celeba": {
        "encoder.convolution1": (4, 4, 3, 128),
        "encoder.convolution2": (4, 4, 128, 256),
        "encoder.convolution3": (4, 4, 256, 512),
        "encoder.convolution4": (4, 4, 512, 1024),
        "encoder.dense1": (16384, 10),
        "decoder.dense1": (5, 65536),
        "decoder.transposedconvolution1": (4, 4, 1024, 512),
        "decoder.transposedconvolution2": (4, 4, 512, 256),
        "decoder.transposedconvolution3": (4, 4, 256, 128),
        "decoder.transposedconvolution4": (4, 4, 128, 3),
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights(name):
    """A convolution has a bias where no normalisation follows."""
    weights = NETWORKS[name](3, 5, 10).weights
    found = {weight.removesuffix(".kernel"): shape for weight, shape in weights.items() if weight.endswith(".kernel")}
    assert found == KERNELS[name]
    biased = {layer for layer in found if f"{layer}.bias" in weights}
    last = [layer for layer in found if layer.startswith("decoder.transposed")][-1]
    assert biased == {layer for layer in found if "dense" in layer} | {last}
    assert all(weights[f"{layer}.bias"] == found[layer][-1:] for layer in biased)
    # A normalisation for every convolution that has no bias, in their order.
    channels = {
        part: [s[-1] for layer, s in found.items() if layer.startswith(part) and layer not in biased]
        for part in ("encoder", "decoder")
    }
    norms = {f"{part}.batchnorm{i}": (size,) for part, sizes in channels.items() for i, size in enumerate(sizes, 1)}
    for weight in ("scale", "bias", "mean", "variance"):
        assert {norm: weights[f"{norm}.{weight}"] for norm in norms} == norms
    assert len(weights) == len(found) + len(biased) + 4 * len(norms)
    assert {weight.rpartition(".")[2] for weight in weights if is_statistic(weight)} == {"mean", "variance"}


@pytest.mark.parametrize("name", NETWORKS)
def test_width(name):
    """Multiplies the channels, of which one remains; what the data and the latents have stays."""
    whole, half, least = (NETWORKS[name](3, 5, 5, width) for width in (1.0, 0.5, 1e-9))
    for part in ("encoder", "decoder"):
        for a, b, c in zip(*(shapes(network, part) for network in (whole, half, least)), strict=True):
            if a == b == c:
                assert a[-1] in (3, 5)
            else:
                assert (*b[:-1], 2 * b[-1]) == a
                assert c[-1] in (1, 4 * 4, 8 * 8)  # one channel, or the flattened pixels of one
    assert NETWORKS[name](3, 5, 5, 2.0).weights["encoder.batchnorm1.scale"] == (
        2 * whole.weights["encoder.batchnorm1.scale"][0],
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_initial_weights(name):
    network = NETWORKS[name](1, 4, 4, 0.1)
    weights = initial_weights(network, np.random.default_rng(5))
    assert {name: value.shape for name, value in weights.items()} == network.weights
    assert {value.dtype.name for value in weights.values()} == {"float64"}
    for part in ("encoder", "decoder"):
        for step in network.steps(part):
            fan_in = getattr(step.layer, "fan_in", lambda _: None)(step.input_shape)
            for key in step.weights:
                value = weights[key]
                if fan_in is None:
                    assert np.all(value == (1 if key.endswith((".scale", ".variance")) else 0))
                else:
                    assert np.abs(value).max() <= fan_in**-0.5
                    if value.size > 100:  # and they fill that interval
                        assert np.abs(value).max() > 0.9 * fan_in**-0.5
                        assert value.std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.2)
    again = initial_weights(network, np.random.default_rng(5))
    assert all(np.array_equal(again[key], value) for key, value in weights.items())
    other = initial_weights(network, np.random.default_rng(6))
    assert not np.array_equal(other["encoder.dense1.kernel"], weights["encoder.dense1.kernel"])


def test_fan_in():
    """What reaches one output: of a stride, every so many of the kernel's numbers."""
    assert Convolution(7, 4, 2).fan_in((9, 9, 5)) == 80
    assert TransposedConvolution(7, 4, 2).fan_in((9, 9, 5)) == 20
    assert TransposedConvolution(7, 3).fan_in((9, 9, 5)) == 45
    assert Dense(7).fan_in((9,)) == 9


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Pad(2), (5, 6, 3), (9, 10, 3)),
        (Convolution(7, 4, 2), (9, 8, 3), (3, 3, 7)),
        (Convolution(7, 4, 2, padding=(1, 2)), (9, 8, 3), (5, 4, 7)),
        (TransposedConvolution(7, 4, 2), (3, 5, 2), (8, 12, 7)),
        (TransposedConvolution(7, 4, 2, crop=(1, 2)), (3, 5, 2), (5, 9, 7)),
        (Dense(7), (9,), (7,)),
        (Reshape((2, 3, 4)), (24,), (2, 3, 4)),
        (BatchNorm(), (2, 3, 4), (2, 3, 4)),
    ],
)
def test_output_shape(layer, shape, expected):
    assert layer.output_shape(shape) == expected


@pytest.mark.parametrize(
    ("encoder", "decoder", "says"),
    [
        (
            (Reshape((16,)), Dense(3)),
            (Dense(16), Reshape((4, 4, 1))),
            r"encoder must end in the shape \(2,\), got \(3,\)",
        ),
        ((Reshape((16,)), Dense(2)), (Dense(16),), r"decoder must end in the shape \(4, 4, 1\), got \(16,\)"),
        (
            (Reshape((15,)), Dense(2)),
            (Dense(16), Reshape((4, 4, 1))),
            r"keep the number .*, got \(4, 4, 1\) to \(15,\)",
        ),
    ],
)
def test_a_wrong_description(encoder, decoder, says):
    with pytest.raises(ValueError, match=says):
        Architecture((4, 4, 1), 2, 2, encoder, decoder)


def test_the_network_for_the_images():
    chosen = Settings(dim=5, width=0.5)
    assert chosen.architecture((28, 28, 1)) == mnist(1, 5, 5, 0.5)
    assert chosen.architecture((64, 64, 3)) == celeba(3, 5, 5, 0.5)
    assert Settings(dim=5, objective="vae").architecture((28, 28, 1)) == mnist(1, 5, 10)
    for network, shape in (("mnist", (64, 64, 3)), ("celeba", (28, 28, 1)), ("auto", (32, 32, 1))):
        with pytest.raises(RunError, match=rf"network {network} is not for images of \({shape[0]}, .*28 x 28, celeba"):
            Settings(network=network).architecture(shape)
