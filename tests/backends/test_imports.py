"""An adapter imports its own framework alone, and changes nothing by being imported."""

from __future__ import annotations

import doctest
import importlib
import json

import pytest

FRAMEWORKS = ("torch", "jax", "tensorflow", "keras")

IMPORT = """
import json, sys, {module}
print(json.dumps([name for name in {frameworks} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("module", "backend", "framework"),
    [
        ("eccentric_core", "", "json"),
        ("eccentric_torch", "", "torch"),
        ("eccentric_jax", "", "jax"),
        ("eccentric_tensorflow", "tensorflow", "keras"),
        ("eccentric_tensorflow", "torch", "keras"),
    ],
)
def test_an_adapter_imports_its_own_framework_alone(module, backend, framework, python):
    """And what that imports itself: Keras its backend, and JAX where it finds it."""
    environment = {"KERAS_BACKEND": backend} if backend else {}

    def imported(name):
        lines = python(IMPORT.format(module=name, frameworks=FRAMEWORKS), **environment).splitlines()
        return json.loads(lines[-1])

    found = imported(module)
    assert found == imported(framework)
    assert not {"torch", "tensorflow"} & set(found) - {framework, backend}


STATE = {
    "torch": """
import torch
def state():
    return [str(x) for x in (
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),
        torch.get_float32_matmul_precision(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.allow_tf32 if hasattr(torch.backends.mkldnn, "allow_tf32") else None,
        torch.are_deterministic_algorithms_enabled(), torch.initial_seed(), torch._dynamo.config.recompile_limit,
    )]
""",
    "jax": """
import jax
def state():
    return {name: repr(value) for name, value in jax.config.values.items()}
""",
    "tensorflow": """
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
""",
}

USE = {
    "torch": """
z = torch.zeros(5, 3, requires_grad=True)
eccentric_torch.eccentric_loss(z).backward()
""",
    "jax": """
import jax.numpy as jnp
jax.grad(eccentric_jax.eccentric_loss)(jnp.ones((5, 3)))
""",
    "tensorflow": """
with tf.GradientTape() as tape:
    z = tf.Variable(tf.ones((5, 3)))
    value = eccentric_tensorflow.eccentric_loss(z)
tape.gradient(value, z)
""",
}

COMPARE = """
{state}
import logging, os, sys, warnings
def everything():
    # NumPy's state of errors is a matter of each thread
    import numpy as np
    return [state(), list(warnings.filters), dict(os.environ), np.geterr(), logging.getLogger().level]
before = everything()
import eccentric_{name}
imported = everything()
{use}
used = everything()
for a, b, c in zip(before, imported, used):
    assert a == b, (a, b)
    assert a == c, (a, c)
"""


@pytest.mark.parametrize("name", STATE)
def test_import_and_use_change_no_global_state(name, python):
    """SciPy, which the engine needs, is imported first: it has filters for warnings of its own."""
    program = "import scipy.integrate, scipy.optimize, scipy.special, mpmath, array_api_compat.numpy\n" + COMPARE
    python(program.format(state=STATE[name], name=name, use=USE[name]), KERAS_BACKEND="tensorflow")


def test_jax_has_no_float64_after_the_import(python):
    program = "import eccentric_jax, jax, jax.numpy as jnp; print(jax.config.jax_enable_x64, jnp.ones(2).dtype)"
    assert python(program) == "False float32\n"


def test_jax_starts_no_backend_at_import(python):
    """Options such as those of `jax.distributed.initialize` must be set before."""
    program = "import eccentric_jax; from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    assert python(program) == "False\n"


@pytest.mark.parametrize("name", ["torch", "jax", "tensorflow", "keras", "mlx"])
def test_the_example_of_a_package(name):
    result = doctest.testmod(importlib.import_module(f"eccentric_{name}"))
    assert result.attempted > 0
    assert result.failed == 0
