"""Keras's layers and regularizers in training, on every backend of Keras, each in a process of its own."""

from __future__ import annotations

import pytest
from programs import CASE, outcomes

# In these {jit_compile} stands for an argument of compile.
TRAINING = """
import keras, numpy as np
from eccentric_tensorflow import EccentricLoss, EccentricRegularizer
from eccentric_core import eccentric_loss
keras.utils.set_random_seed(1)
x = np.random.default_rng(0).standard_normal((96, 8)).astype("float32")
regularized = keras.layers.Dense(4, activity_regularizer=EccentricRegularizer(0.3, 1.5))
model = keras.Sequential([keras.Input((8,)), regularized, EccentricLoss(0.2), keras.layers.Dense(8)])
model.compile("adam", "mse", jit_compile={jit_compile})
history = model.fit(x, x, batch_size=32, epochs=10, verbose=0).history["loss"]
assert history[-1] < history[0], history
z = keras.ops.convert_to_numpy(regularized(x))
expected = np.mean((keras.ops.convert_to_numpy(model(x)) - x) ** 2)
expected += 0.3 * eccentric_loss(z, 1.5) + 0.2 * eccentric_loss(z)
total = model.evaluate(x, x, batch_size=96, verbose=0)
assert abs(total - expected) <= 1e-5 * abs(expected), (total, expected)
layer = EccentricLoss(0.2)
layer(keras.ops.convert_to_tensor(z))
assert abs(float(sum(layer.losses)) - 0.2 * eccentric_loss(z)) <= 1e-5
"""

WITHOUT_PAIRS = """
import keras, numpy as np
from eccentric_keras import CompressiveEnergy, EccentricLoss, EccentricRegularizer, HypersphericalRegularizer
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).standard_normal((65, 10)).astype("float32")
regularized = keras.layers.Dense(4, activity_regularizer=EccentricRegularizer(0.1))
model = keras.Sequential([keras.Input((10,)), regularized, EccentricLoss(0.1), keras.layers.Dense(10)])
model.compile("adam", "mse", jit_compile={jit_compile})
model.fit(x, x, batch_size=64, epochs=2, verbose=0)  # the last batch has one row
assert all(np.isfinite(w).all() for w in model.get_weights())
assert np.isfinite(model.evaluate(x, x, batch_size=64, verbose=0))
one = model.predict(x[:1], verbose=0)
error = np.mean((one - x[:1]) ** 2)
assert abs(model.evaluate(x[:1], x[:1], verbose=0) - error) <= 1e-6 * error  # the terms add 0
for make in (EccentricRegularizer, EccentricLoss):
    for shape in ((1, 4), (0, 4), (3, 1, 4), (0, 5, 4)):
        made = make(0.1)
        value = made(keras.ops.ones(shape))
        assert float(value if make is EccentricRegularizer else made.losses[0]) == 0.0
for made in (HypersphericalRegularizer(), HypersphericalRegularizer(energy="eccentric"), CompressiveEnergy("random")):
    assert float(made(keras.ops.ones((7, 1)))) == 0.0  # a single neuron
"""

CHANGES = """
import keras, numpy as np
from eccentric_core import eccentric_loss
from eccentric_keras import EccentricLoss, EccentricRegularizer
x = np.random.default_rng(0).standard_normal((96, 8)).astype("float32")

def model_with(regularizer, layer):
    dense = keras.layers.Dense(4, kernel_initializer="ones", activity_regularizer=regularizer)
    model = keras.Sequential([keras.Input((8,)), dense, layer])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile={jit_compile})
    model.fit(x, x[:, :4], batch_size=96, verbose=0)
    return model

def check(model, *numbers):
    z = keras.ops.convert_to_numpy(keras.Model(model.inputs, model.layers[0].output)(x))
    expected = np.mean((z - x[:, :4]) ** 2) + sum(lam * eccentric_loss(z, mu) for lam, mu in numbers)
    for found in (model.evaluate(x, x[:, :4], batch_size=96, verbose=0),
                  model.fit(x, x[:, :4], batch_size=96, verbose=0).history["loss"][0]):
        assert abs(found - expected) <= 1e-5 * abs(expected), (numbers, found, expected)

things = EccentricRegularizer(np.float32(0.5), 1.5), EccentricLoss(0.5, np.float32(1.5))
numbers = [(0.5, 1.5), (0.5, 1.5)]
model = model_with(*things)
train_function = model.train_function
for k, thing in enumerate(things):
    for lam, mu in ((0.0, 1.5), (np.float32(2.0), 1.5), (2.0, np.float64(3.5)), (1, 5.0)):
        thing.lam, thing.mu = lam, mu
        numbers[k] = float(lam), float(mu)
        check(model, *numbers)
        assert (thing.lam, thing.mu) == numbers[k]
assert model.train_function is train_function
# Keras variables of the user's.
lams, mus = ([keras.Variable(value, trainable=False) for _ in things] for value in (0.25, 1.5))
model = model_with(EccentricRegularizer(lams[0], mus[0]), EccentricLoss(lams[1], mus[1]))
for numbers in (((0.25, 1.5), (0.25, 1.5)), ((1.0, 1.5), (0.0, 1.5)), ((0.5, 2.5), (0.25, 3.5))):
    for lam, mu, values in zip(lams, mus, numbers):
        lam.assign(values[0]); mu.assign(values[1])
    check(model, *numbers)
"""

SCHEDULE = """
import keras, numpy as np
from eccentric_keras import EccentricRegularizer, latents
calls, loss = [], latents.eccentric_loss
latents.eccentric_loss = lambda *args, **options: (calls.append(args), loss(*args, **options))[1]
regularizer = EccentricRegularizer(0.3, 1.5)
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activity_regularizer=regularizer)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).standard_normal((64, 8))
model.fit(x, x[:, :4], batch_size=64, verbose=0)
traced = len(calls)
assert traced
schedule = iter(np.linspace(0.6, 9.0, 40))
anneal = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: setattr(regularizer, "mu", next(schedule)))
model.fit(x, x[:, :4], batch_size=64, epochs=40, verbose=0, callbacks=[anneal])
assert regularizer.mu == 9.0
assert len(calls) == traced, (len(calls), traced)
latents.eccentric_loss = loss
"""

# Each with the backends, and whether to compile, that it runs on. PyTorch compiles nothing in fit.
BACKENDS = [("tensorflow", False), ("tensorflow", True), ("jax", False), ("jax", True), ("torch", False)]
CASES = {
    "the loss falls, and is that of the core": (TRAINING, BACKENDS),
    "a batch without pairs does no harm, in training, in evaluation and in prediction": (WITHOUT_PAIRS, BACKENDS),
    "a change of lam and mu takes effect in a compiled model": (CHANGES, BACKENDS),
    "fit with forty values of mu compiles once": (SCHEDULE, [("tensorflow", False), ("jax", True)]),
}


@pytest.fixture(scope="module")
def outcome(python):
    """The error of a case, "" if there was none; those of a backend share a process."""
    kept = {}

    def of(name, backend, jit_compile):
        if backend not in kept:
            lines = [
                f"outcome({f'{case}, {jit}'!r}, {program.replace('{jit_compile}', str(jit))!r})"
                for case, (program, places) in CASES.items()
                for place, jit in places
                if place == backend
            ]
            head = f"{CASE}import keras\nassert keras.backend.backend() == {backend!r}\n"
            kept[backend] = outcomes(python(head + "\n".join(lines), KERAS_BACKEND=backend))
        return kept[backend][f"{name}, {jit_compile}"]

    return of


@pytest.mark.parametrize(
    ("name", "backend", "jit_compile"), [(name, *place) for name, (_, places) in CASES.items() for place in places]
)
def test_in_training(name, backend, jit_compile, outcome):
    assert outcome(name, backend, jit_compile) == ""
