"""An adapter imports its own framework alone, and changes nothing by being imported or used."""

from __future__ import annotations

import doctest
import importlib
import json

import pytest

CORE = """
import numpy as np
def state():
    return np.get_printoptions()
def use():
    eccentric_core.eccentric_loss_and_grad(np.zeros((5, 3)))
"""

TORCH = """
import torch
def state():
    return [str(x) for x in (
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),
        torch.get_float32_matmul_precision(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.allow_tf32 if hasattr(torch.backends.mkldnn, "allow_tf32") else None,
        torch.are_deterministic_algorithms_enabled(), torch.initial_seed(), torch._dynamo.config.recompile_limit,
    )]
def use():
    z = torch.zeros(5, 3, requires_grad=True)
    eccentric_torch.eccentric_loss(z).backward()
"""

JAX = """
import jax
from jax._src import xla_bridge
def state():
    return {name: repr(value) for name, value in jax.config.values.items()}
def use():
    # Options such as those of `jax.distributed.initialize` must be set before a backend starts.
    assert not xla_bridge.backends_are_initialized()
    value = jax.grad(eccentric_jax.eccentric_loss)(jax.numpy.ones((5, 3)))
    assert value.dtype == "float32"
"""

TENSORFLOW = """
import keras
import tensorflow as tf
def state():
    return [str(x) for x in (
        hasattr(tf.constant(0.0), "T"), tf.config.threading.get_intra_op_parallelism_threads(),
        tf.config.threading.get_inter_op_parallelism_threads(), tf.executing_eagerly(),
        tf.config.functions_run_eagerly(), tf.config.optimizer.get_jit(), keras.config.floatx(),
        keras.config.dtype_policy().name, keras.config.image_data_format(), keras.config.epsilon(),
        tf.config.experimental.tensor_float_32_execution_enabled(),
    )]
def use():
    with tf.GradientTape() as tape:
        z = tf.Variable(tf.ones((5, 3)))
        value = eccentric_tensorflow.eccentric_loss(z)
    tape.gradient(value, z)
"""

KERAS = """
import keras
def state():
    return [keras.config.floatx(), keras.config.backend()]
def use():
    eccentric_tensorflow.EccentricLoss(0.1)(keras.ops.ones((5, 3)))
"""

COMPARE = """
import json, logging, os, sys, warnings
def frameworks():
    return [name for name in ("torch", "jax", "tensorflow", "keras") if name in sys.modules]
def everything():
    import numpy as np
    return [state(), frameworks(), list(warnings.filters), dict(os.environ), np.geterr(), logging.getLogger().level]
before = everything()
import {module}
imported = everything()
use()
used = everything()
for a, b, c in zip(before, imported, used, strict=True):
    assert a == b, (a, b)
    assert a == c, (a, c)
print(json.dumps(frameworks()))
"""


@pytest.mark.parametrize(
    ("module", "framework", "backend"),
    [
        ("eccentric_core", CORE, ""),
        ("eccentric_torch", TORCH, "torch"),
        ("eccentric_jax", JAX, "jax"),
        ("eccentric_tensorflow", TENSORFLOW, "tensorflow"),
        ("eccentric_tensorflow", KERAS, "torch"),
    ],
    ids=["core", "torch", "jax", "tensorflow", "keras on torch"],
)
def test_import_and_use_change_no_global_state(module, framework, backend, python):
    """And import no framework but their own, and what that imports itself: Keras its backend, and JAX where it is."""
    printed = python(framework + COMPARE.format(module=module), **({"KERAS_BACKEND": backend} if backend else {}))
    assert not {"torch", "tensorflow"} & set(json.loads(printed.splitlines()[-1])) - {backend}


@pytest.mark.parametrize("name", ["torch", "jax", "tensorflow", "keras", "mlx"])
def test_the_example_of_a_package(name):
    result = doctest.testmod(importlib.import_module(f"eccentric_{name}"))
    assert result.attempted > 0
    assert result.failed == 0
