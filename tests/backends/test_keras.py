"""The regularizer and the layer for Keras, in every backend of Keras 3."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():  # of TensorFlow's own at import
    warnings.simplefilter("ignore")
    import keras
    import tensorflow as tf

    from eccentric_tensorflow import EccentricLoss, EccentricRegularizer

from eccentric_core import eccentric_loss, eccentric_loss_and_grad

pytestmark = [
    # What Keras and TensorFlow do between themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow"),
]


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def model_with(kind, lam=0.3, mu=1.5):
    """An autoencoder with the loss on its latent vectors, as a regularizer or as a layer."""
    keras.utils.set_random_seed(1)
    regularizer = EccentricRegularizer(lam, mu) if kind == "regularizer" else None
    latent = keras.layers.Dense(4, activity_regularizer=regularizer)
    steps = [keras.Input((8,)), keras.layers.Dense(16, activation="tanh"), latent]
    steps += [EccentricLoss(lam, mu)] if kind == "layer" else []
    return keras.Sequential([*steps, keras.layers.Dense(8)])


@pytest.mark.parametrize("n", [2, 7, 100])
@pytest.mark.parametrize("lam", [0, 0.3, 2])
def test_a_layer_adds_lam_times_the_loss_whatever_the_size_of_the_batch(n, lam, tolerance):
    x = rows(n, 8)
    regularized = keras.layers.Dense(4, activity_regularizer=EccentricRegularizer(lam, 1.5, scale="exact"))
    z = regularized(x).numpy()
    layer = EccentricLoss(lam, 1.5, scale="exact")
    handed_on = layer(z)
    expected = lam * float(eccentric_loss(z, 1.5, scale="exact"))
    np.testing.assert_array_equal(handed_on, z)
    for losses in (regularized.losses, layer.losses):
        assert float(sum(losses)) == pytest.approx(expected, rel=tolerance["float32"])
    assert float(EccentricRegularizer(lam, 1.5, scale="exact")(tf.constant(z))) == pytest.approx(
        expected, rel=tolerance["float32"]
    )


def test_in_a_graph_and_with_an_unknown_size_of_batch(tolerance):
    layer = keras.layers.Dense(4, activity_regularizer=EccentricRegularizer(0.3))
    layer.build((None, 8))

    @tf.function(input_signature=[tf.TensorSpec((None, 8))])
    def losses(x):
        z = layer(x)
        return z, sum(layer.losses)

    for n in (5, 80):
        z, added = losses(rows(n, 8))
        assert float(added) == pytest.approx(0.3 * float(eccentric_loss(z.numpy())), rel=tolerance["float32"])


def test_of_a_subclass_and_of_a_layer_in_a_layer(tolerance):
    """Whoever calls the layer, it is Keras that divides."""

    class Encoder(keras.layers.Layer):
        def __init__(self):
            super().__init__(activity_regularizer=EccentricRegularizer(0.5))
            self.inner = keras.layers.Dense(4, activity_regularizer=EccentricRegularizer(0.25, 2.0))

        def call(self, x):
            return 2 * self.inner(x)

    encoder = Encoder()
    z = encoder(rows(70, 8)).numpy()
    expected = 0.5 * eccentric_loss(z) + 0.25 * eccentric_loss(z / 2, 2.0)
    assert float(sum(encoder.losses)) == pytest.approx(float(expected), rel=tolerance["float32"])


def test_batches_of_batches_count_by_their_mean(tolerance):
    """Also where it is Keras that calls."""
    z = rows(3, 70, 4)
    expected = 0.5 * float(np.mean(eccentric_loss(z)))
    assert float(EccentricRegularizer(0.5)(tf.constant(z))) == pytest.approx(expected, rel=tolerance["float32"])
    layer = keras.layers.Activation("linear", activity_regularizer=EccentricRegularizer(0.5))
    layer(z)
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=tolerance["float32"])


@pytest.mark.parametrize("kind", ["regularizer", "layer"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_lowers_the_loss_and_the_model_is_saved_with_it(kind, jit_compile, tmp_path, tolerance):
    x = rows(256, 8)
    model = model_with(kind)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit_compile)
    before = model.evaluate(x, x, batch_size=64, verbose=0)
    history = model.fit(x, x, batch_size=64, epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0] < before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (model, loaded):
        z = keras.Model(other.inputs[0], other.layers[1].output)(x).numpy()
        reconstruction = other(x).numpy()
        expected = np.mean((reconstruction - x) ** 2) + 0.3 * eccentric_loss(z, 1.5)
        assert other.evaluate(x, x, batch_size=256, verbose=0) == pytest.approx(
            float(expected), rel=tolerance["float32"]
        )


def test_the_gradient_of_a_weight(tolerance):
    """lam X^T g: nothing is lost, and nothing is divided, on the way back."""
    x = rows(70, 8)
    layer = keras.layers.Dense(4, use_bias=False, activity_regularizer=EccentricRegularizer(0.3, 1.5))
    with tf.GradientTape() as tape:
        z = layer(x)
        added = sum(layer.losses)
    found = tape.gradient(added, layer.kernel)
    expected = 0.3 * x.T @ eccentric_loss_and_grad(z.numpy(), 1.5)[1]
    assert np.linalg.norm(found - expected) <= tolerance["float32"] * np.linalg.norm(expected)


@pytest.mark.parametrize("scale", ["exact", 3.5])
def test_configurations(scale):
    regularizer = EccentricRegularizer(0.3, 1.5, scale=scale)
    assert regularizer.get_config() == {"lam": 0.3, "mu": 1.5, "scale": scale}
    again = EccentricRegularizer.from_config(regularizer.get_config())
    assert again.get_config() == regularizer.get_config()
    layer = EccentricLoss(0.3, 1.5, scale=scale, name="spread")
    again = EccentricLoss.from_config(layer.get_config())
    assert (again.name, again.lam, again.mu, again.scale) == ("spread", 0.3, 1.5, scale)
    for thing in (regularizer, layer):
        copied = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))
        assert type(copied) is type(thing)
        assert copied.get_config() == thing.get_config()


def test_the_layer_keeps_shapes_and_masks():
    layer = EccentricLoss(1.0)
    assert layer(keras.Input((5, 8))).shape == (None, 5, 8)
    assert layer.compute_output_shape((None, 8)) == (None, 8)
    assert layer.count_params() == 0
    masked = keras.layers.Masking()(rows(2, 5, 8))
    assert keras.src.backend.get_keras_mask(layer(masked)) is not None


def test_mixed_precision(tolerance):
    """The outputs are float16, the loss is float32."""
    layer = keras.layers.Dense(4, dtype="mixed_float16", activity_regularizer=EccentricRegularizer(0.3))
    z = layer(rows(70, 8))
    assert z.dtype == tf.float16
    (added,) = layer.losses
    assert added.dtype == tf.float32
    assert float(added) == pytest.approx(0.3 * float(eccentric_loss(z.numpy())), rel=tolerance["float32"])


@pytest.mark.parametrize("make", [EccentricRegularizer, EccentricLoss])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lam": -1.0}, "lam must be a finite number, 0 or more, got -1.0"),
        ({"lam": float("nan")}, "lam must be .* got nan"),
        ({"lam": float("inf")}, "lam must be .* got inf"),
        ({"lam": "1"}, "lam must be a number, a Keras variable or a 0-d tensor, got '1'"),
        ({"lam": True}, "lam must be .* got True"),
        ({"lam": None}, "lam must be .* got None"),
        ({"lam": 1.0, "mu": 0.5}, "mu must be finite and greater than 1/2"),
        ({"lam": 1.0, "scale": "papre"}, "scale must be"),
    ],
    ids=repr,
)
def test_bad_arguments(make, arguments, words):
    with pytest.raises(ValueError, match=words):
        make(**arguments)


def test_a_numpy_number_as_weight(tolerance):
    """As one comes from np.logspace."""
    regularizer = EccentricRegularizer(np.float64(0.3))
    z = rows(70, 4)
    assert float(regularizer(z)) == pytest.approx(0.3 * float(eccentric_loss(z)), rel=tolerance["float32"])
    keras.saving.serialize_keras_object(regularizer)


def test_not_a_tensor():
    with pytest.raises(TypeError, match=r"z must be a plain array of shape .*, got list; make it an array first"):
        EccentricRegularizer(1.0)([[1.0, 2.0], [3.0, 4.0]])


def test_the_caller_that_divides_is_found():
    """By the frame that calls, which is no public way: pinned down for Keras 3.5 to 3.15.

    A Keras that calls or divides in another way fails here, and in the tests of the size of the batch.
    """
    assert (3, 5) <= tuple(map(int, keras.__version__.split(".")[:2])) <= (3, 15)
    import inspect

    source = inspect.getsource(inspect.unwrap(keras.layers.Layer.__call__))
    assert "self.activity_regularizer(output)" in source


def test_a_model_is_exported_with_its_loss(tmp_path):
    """As a SavedModel of TensorFlow."""
    x = rows(64, 8)
    for kind in ("regularizer", "layer"):
        model = model_with(kind)
        model.compile("sgd", "mse")
        model.fit(x, x, verbose=0)
        model.export(tmp_path / kind, verbose=False)
        served = tf.saved_model.load(tmp_path / kind)
        np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), atol=1e-6)
