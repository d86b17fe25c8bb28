"""What Keras's networks are regularised by, on every backend of Keras, against the published formulas."""

from __future__ import annotations

import json
import warnings

import numpy as np
import oracle
import pytest

with warnings.catch_warnings():  # of TensorFlow's own at import
    warnings.simplefilter("ignore")
    import keras
    from keras import layers, ops

    from eccentric_tensorflow import CompressiveEnergy, HypersphericalRegularizer, regularize

from eccentric_core import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
    hyperspherical_energy,
    kernel_scale,
    update_projection,
)
from eccentric_core.numpy_backend import BACKEND as NUMPY

BACKEND = keras.backend.backend()

pytestmark = [
    # What Keras and its backends do between themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_on_the_other_backends_of_keras(backend, python):
    """All of this file, each in a process of its own."""
    python(PROGRAM.format(file=__file__), KERAS_BACKEND=backend)


PROGRAM = """
import sys, pytest
sys.stdout = sys.stderr  # which a failure shows
sys.exit(pytest.main([{file!r}, "-q", "-n0", "-p", "no:cacheprovider", "-k", "not other_backends"]))
"""


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1)


def numpy(x):
    return np.array(ops.convert_to_numpy(x))  # a copy, which does not follow the variable


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def neurons(layer):
    """The weights that each output depends on."""
    transposed = "Transpose" in type(layer).__name__
    w = np.moveaxis(numpy(layer.kernel), -2 if transposed else -1, 0)
    return w.reshape(len(w), -1)


def network():
    """An image to five classes, by layers of all kinds."""
    image = keras.Input((9, 9, 3))
    x = layers.BatchNormalization()(layers.Conv2D(6, 4, name="image")(image))
    x = layers.Conv2D(8, 3, groups=2, activation="relu", name="grouped")(layers.DepthwiseConv2D(2)(x))
    x = layers.Flatten()(layers.Conv2DTranspose(6, 2, name="up")(x))
    x = layers.Dense(7, activation="tanh", name="hidden")(x) * layers.Dense(1, name="gate")(x)
    return keras.Model(image, layers.Dense(5, name="head")(x))


NAMES = ("image", "grouped", "up", "hidden", "head")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("dense", {}),
        ("dense", {"weight": 0.3, "s": 0.0}),
        ("dense", {"s": 1.0, "angular": True}),
        ("dense", {"normalization": "official"}),
        ("convolution", {"weight": 10.0, "half_space": False}),
    ],
    ids=repr,
)
def test_a_kernel_regularizer_adds_the_weighted_energy(kind, options, tolerance):
    regularizer = HypersphericalRegularizer(**options)
    if kind == "dense":
        layer, shape = layers.Dense(6, kernel_regularizer=regularizer), (None, 20)
    else:
        layer, shape = layers.Conv2D(6, 3, kernel_regularizer=regularizer), (None, 8, 8, 4)
    layer.build(shape)
    which = {"half_space": True, **options}
    weight = which.pop("weight", 1.0)
    (added,) = layer.losses
    known = float(oracle.hyperspherical(neurons(layer), **which))
    assert float(numpy(added)) == pytest.approx(weight * known, rel=tolerance["float32"])
    core = hyperspherical_energy(np.moveaxis(numpy(layer.kernel), -1, 0), **which)
    assert float(numpy(added)) == pytest.approx(weight * float(core), rel=tolerance["float32"])


def test_a_kernel_regularizer_with_the_eccentric_loss(tolerance):
    layer = layers.Dense(6, kernel_regularizer=HypersphericalRegularizer(0.3, energy="eccentric"))
    layer.build((None, 20))
    known = 0.3 * oracle.loss_and_grad(neurons(layer), 1.0, float(kernel_scale(20, 1.0)))[0]
    assert float(numpy(layer.losses[0])) == pytest.approx(known, rel=tolerance["float32"])


@pytest.mark.parametrize(
    ("options", "hidden", "output_weight"),
    [
        ({}, 1.0, 10.0),
        ({"s": 1.0, "angular": True}, 0.1, 10.0),
        ({"half_space": False, "output": "up", "weight": 0.25, "output_weight": 3.0}, 0.25, 3.0),
    ],
    ids=repr,
)
def test_regularize_does_to_every_layer_what_the_papers_do(options, hidden, output_weight, tolerance):
    model, output = network(), options.get("output", "head")
    found = regularize(model, **options)
    assert tuple(found) == NAMES
    total = 0.0
    for name, regularizer in found.items():
        layer, last = model.get_layer(name), name == output
        assert layer.kernel_regularizer is regularizer
        weight = hidden * output_weight if last else hidden
        half_space = options.get("half_space", True) and not last
        assert (regularizer.weight, regularizer.options.half_space) == (pytest.approx(weight), half_space)
        which = {key: options[key] for key in ("s", "angular") if key in options}
        known = weight * float(oracle.hyperspherical(neurons(layer), half_space=half_space, **which))
        assert float(numpy(layer.losses[0])) == pytest.approx(known, rel=tolerance["float32"])
        total += known
    assert float(numpy(sum(model.losses))) == pytest.approx(total, rel=tolerance["float32"])


def test_images_and_layers_of_few_inputs_are_not_projected():
    """Nor is a transposed convolution of 8 channels and 4 places."""
    found = regularize(network(), projection=RandomProjection(dim=32, num_projections=3))
    assert {name: regularizer.projection for name, regularizer in found.items() if regularizer.projection} == {
        "hidden": RandomProjection(dim=32, num_projections=3)
    }


def test_fit_lowers_the_energies_and_the_model_is_saved_with_them(tmp_path, tolerance):
    model, x, y = network(), rows(24, 9, 9, 3), rows(24, 5)
    regularize(model, output_weight=5.0)
    before = float(numpy(sum(model.losses)))
    model.compile(keras.optimizers.SGD(0.002), "mse")
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    after = float(numpy(sum(model.losses)))
    assert after < before
    expected = np.mean((numpy(model(x)) - y) ** 2) + after
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in NAMES:
        one, other = (m.get_layer(name).kernel_regularizer for m in (model, loaded))
        assert other.get_config() == one.get_config()
    assert float(numpy(sum(loaded.losses))) == pytest.approx(after, rel=tolerance["float32"])
    for one in (model, loaded):
        assert one.evaluate(x, y, batch_size=24, verbose=0) == pytest.approx(expected, rel=tolerance["float32"])


def built(*steps):
    return keras.Sequential([keras.Input((80,)), *steps])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: regularize(keras.Sequential([layers.Dense(3)])), "model must be built before"),
        (lambda: regularize(built(layers.Dense(3, name="d")), output="tail"), r"no layer 'tail' .*; there are \['d'\]"),
        (
            lambda: regularize(built(layers.Dense(1), layers.ReLU())),
            "model must have a dense layer or a convolution of two neurons or more",
        ),
        (lambda: regularize(built(layers.Dense(3)), weight=-1.0), "weight must be a finite number, 0 or more, got -1"),
        (lambda: regularize(built(layers.Dense(3)), projection="adversarial"), "has a state: .* CompressiveEnergy"),
        (lambda: HypersphericalRegularizer(projection="adversarial"), "has a state: use the layer CompressiveEnergy"),
        (lambda: HypersphericalRegularizer(projection="rnadom"), "projection must be .random., .* got 'rnadom'"),
        (lambda: HypersphericalRegularizer(-1.0), "weight must be a finite number, 0 or more, got -1.0"),
        (lambda: HypersphericalRegularizer(s=-1.0), "s must be from 0 to 100, got -1.0"),
        (lambda: HypersphericalRegularizer(axis=1), "axis must be 0, -1 or -2, .* got 1"),
        (lambda: HypersphericalRegularizer(energy="kinetic"), "energy must be .* got 'kinetic'"),
        (lambda: CompressiveEnergy(axis=-3), "axis must be 0, -1 or -2, .* got -3"),
        (lambda: CompressiveEnergy(None), "projection must be one of those of CoMHE, got None"),
        (lambda: CompressiveEnergy("rnadom"), "projection must be .random., .* got 'rnadom'"),
    ],
    ids=lambda words: words if isinstance(words, str) else "",
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_an_error_leaves_the_model_as_it_was():
    model = built(layers.Dense(3, kernel_regularizer="l2"))
    with pytest.raises(ValueError, match="energy must be"):
        regularize(model, energy="kinetic")
    assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L2)


def test_a_drawn_projection_in_a_regularizer():
    """Anew in every call; Keras on JAX has nothing to draw from."""
    regularizer, kernel = HypersphericalRegularizer(projection="random"), ops.convert_to_tensor(rows(100, 12))
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="no random numbers in Keras on JAX: use the layer CompressiveEnergy"):
            regularizer(kernel)
    else:
        values = [float(regularizer(kernel)) for _ in range(2)]
        assert 0 < abs(values[0] - values[1]) < 0.2 * values[0]
        assert values[0] == pytest.approx(hyperspherical_energy(rows(100, 12).T, half_space=True), rel=0.2)


@pytest.mark.parametrize("projection", ["random", GroupProjection(3)], ids=repr)
def test_draws_of_a_layer_differ_from_call_to_call_and_repeat_with_a_seed(projection):
    kernel, layer = rows(100, 12), CompressiveEnergy(projection, seed=3)
    values = [float(layer(kernel)) for _ in range(2)]
    again = CompressiveEnergy(projection, seed=3)
    assert values[0] != values[1]
    assert [float(again(kernel)) for _ in range(2)] == values
    assert float(CompressiveEnergy(projection, seed=1000)(kernel)) not in values


RULES = [AnglePreservingProjection(dim=8, rate=0.5), AdversarialProjection(dim=8, rate=0.01, steps=3)]


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_call_in_training_is_a_step_of_the_projection_and_its_energy(rule, axis, tolerance):
    layer, kernel = CompressiveEnergy(rule, s=1.0, axis=axis), rows(3, 4, 10, 9)
    layer.build(kernel.shape)
    w = np.moveaxis(kernel, axis, 0)
    assert layer.matrix.shape == (8, w[0].size)
    projection = LearnedProjection(numpy(layer.matrix), rule)
    for training in (False, True, False):
        if training:
            projection = update_projection(projection, w, 1.0, half_space=True)
        value = layer(kernel, training=training)
        np.testing.assert_allclose(numpy(layer.matrix), projection.matrix, rtol=0, atol=2e-5)
        used = projection.rule.used(NUMPY, projection.matrix, w.reshape(len(w), -1))
        known = oracle.hyperspherical(w.reshape(len(w), -1) @ used.T, 1.0, half_space=True)
        assert float(value) == pytest.approx(float(known), rel=tolerance["float32"])
    assert layer.compute_output_shape(kernel.shape) == ()


@keras.saving.register_keras_serializable(package="test")
class Compressed(keras.Model):
    """A network of one's own, with the energy of its hidden layer."""

    def __init__(self, projection, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(12, activation="tanh"), layers.Dense(3)
        self.comhe = CompressiveEnergy(projection, seed=2)

    def call(self, x, training=None):
        y = self.head(self.hidden(x))
        self.add_loss(0.1 * self.comhe(self.hidden.kernel, training=training))
        return y


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_projection_learns_in_fit_and_stays_in_evaluate(rule, tmp_path, tolerance):
    model, x, y = Compressed(rule), rows(16, 20), rows(16, 3, seed=1)
    model.compile(keras.optimizers.SGD(0.0), "mse")  # so that only the projection changes
    model(x)
    (kernel, projection) = numpy(model.hidden.kernel).T, LearnedProjection(numpy(model.comhe.matrix), rule)
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    for _ in range(2):
        projection = update_projection(projection, kernel, half_space=True)
    learned = numpy(model.comhe.matrix)
    np.testing.assert_allclose(learned, projection.matrix, rtol=0, atol=2e-5)
    value = model.evaluate(x, y, batch_size=16, verbose=0)
    np.testing.assert_array_equal(numpy(model.comhe.matrix), learned)
    known = oracle.hyperspherical(kernel @ rule.used(NUMPY, learned, kernel).T, half_space=True)
    assert value == pytest.approx(np.mean((numpy(model(x)) - y) ** 2) + 0.1 * float(known), rel=tolerance["float32"])
    assert [weight.path for weight in model.non_trainable_weights if weight is model.comhe.matrix]
    model.save_weights(tmp_path / "model.weights.h5")
    other = Compressed(rule)
    other(x)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(numpy(other.comhe.matrix), learned)


@pytest.mark.parametrize("projection", ["random", "angle-preserving", "adversarial"])
def test_fit_lowers_a_compressed_energy(projection):
    model, x = Compressed(projection), rows(64, 50)
    model.compile(keras.optimizers.SGD(0.5), loss=lambda _, z: ops.mean(0.0 * z))  # of the energy alone
    model(x)
    before = hyperspherical_energy(numpy(model.hidden.kernel).T, half_space=True)
    history = model.fit(x, rows(64, 3), batch_size=8, epochs=5, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert hyperspherical_energy(numpy(model.hidden.kernel).T, half_space=True) < before


def test_the_output_layer_of_a_network_of_networks():
    encoder = keras.Sequential([keras.Input((80,)), layers.Dense(9, name="first"), layers.Dense(4, name="second")])
    decoder = keras.Sequential([keras.Input((4,)), layers.Dense(9, name="third"), layers.Dense(8, name="fourth")])
    found = regularize(keras.Sequential([keras.Input((80,)), encoder, decoder]))
    assert {name: regularizer.weight for name, regularizer in found.items()} == {
        "first": 1.0, "second": 1.0, "third": 1.0, "fourth": 10.0
    }  # fmt: skip


def test_layers_of_the_same_name_in_different_parts():
    parts = [keras.Sequential([layers.Dense(9, name="hidden")], name=name) for name in ("one", "two")]
    model = built(*parts, layers.Dense(3))
    regularize(model)
    assert len(model.losses) == 3


def test_a_network_that_was_trained_before(tolerance):
    model, x = built(layers.Dense(5), layers.Dense(80)), rows(8, 80)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(x, x, verbose=0)
    before = model.evaluate(x, x, verbose=0)
    regularize(model)
    expected = before + float(numpy(sum(model.losses)))
    assert model.fit(x, x, verbose=0).history["loss"] == pytest.approx([expected], rel=tolerance["float32"])
    assert model.evaluate(x, x, verbose=0) == pytest.approx(expected, rel=tolerance["float32"])


@pytest.mark.parametrize("projection", ["random", "group", "adversarial"])
def test_mixed_precision(projection):
    """The energy is float32."""
    value = CompressiveEnergy(projection, dtype="mixed_float16")(rows(100, 12), training=True)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(hyperspherical_energy(rows(100, 12).T, half_space=True), rel=0.2)


@pytest.mark.parametrize(
    "thing",
    [
        HypersphericalRegularizer(0.3, 1.0, half_space=False, angular=True, normalization="official", eps=1e-3),
        HypersphericalRegularizer(energy="eccentric", axis=-2),
        HypersphericalRegularizer(projection=GroupProjection(3, of="neurons", dim=9)),
        HypersphericalRegularizer(projection="random"),
        CompressiveEnergy("random", seed=5, name="draws"),
        CompressiveEnergy(AdversarialProjection(dim=3, rate=0.1, steps=2), 1.0, half_space=False, axis=0, name="own"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_configurations(thing):
    config = json.loads(json.dumps(thing.get_config()))
    again = type(thing).from_config(config)
    copied = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))
    for other in (again, copied):
        assert type(other) is type(thing)
        assert other.get_config() == thing.get_config()
        assert (other.options, other.projection, other.axis) == (thing.options, thing.projection, thing.axis)


def test_a_configuration_has_every_argument():
    rule = AdversarialProjection(dim=3, rate=0.1, steps=2)
    layer = CompressiveEnergy(rule, 1.0, half_space=False, angular=True, normalization="official", axis=0, seed=5)
    config = layer.get_config()
    assert {name: config[name] for name in ("s", "half_space", "angular", "normalization", "eps", "axis", "seed")} == {
        "s": 1.0, "half_space": False, "angular": True, "normalization": "official", "eps": None, "axis": 0, "seed": 5
    }  # fmt: skip
    assert layer.projection == rule
    regularizer = HypersphericalRegularizer(0.3, 1.0, half_space=False, energy="eccentric", axis=-2)
    assert regularizer.get_config() == {
        "weight": 0.3, "s": 1.0, "half_space": False, "angular": False, "normalization": "paper", "eps": None,
        "projection": None, "energy": "eccentric", "axis": -2,
    }  # fmt: skip
