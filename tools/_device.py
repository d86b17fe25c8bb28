"""The device that a library computes on: the first GPU that it finds, unless GPUs are hidden before it is imported.

As a script, `_device.py LIBRARY`, the name of that GPU or null as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

FRAMEWORKS = ("torch", "jax", "tensorflow")
# The environment of a process that shall find no GPU.
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
# The environment of one that shares a GPU with others: memory is taken when it is needed.
SHARED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

# What the option --device is, beside its help.
OPTION: dict[str, Any] = {"choices": ("auto", "cpu", "gpu"), "default": "auto"}


def choose(device: str) -> None:
    """Hide GPUs from this process, before it imports a framework, and from those that it starts, if device is "cpu"."""
    if device == "cpu":
        os.environ.update(HIDDEN)


def gpu_of(library: str) -> str | None:
    """The name of the GPU that "torch", "jax" or "tensorflow" computes on; None for a CPU, and for other libraries."""
    match library:
        case "torch":
            import torch

            return torch.cuda.get_device_name() if torch.cuda.is_available() else None
        case "jax":
            import jax

            device = jax.devices()[0]
            return None if device.platform == "cpu" else device.device_kind
        case "tensorflow":
            import tensorflow as tf

            found = tf.config.list_physical_devices("GPU")
            return tf.config.experimental.get_device_details(found[0]).get("device_name", "GPU") if found else None
    return None


if __name__ == "__main__":
    print(json.dumps(gpu_of(sys.argv[1])))
