"""A network that compiles at once, images for it, and what is compared of a run."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
from frameworks import require_gpu

from eccentric_models.architecture import (
    NETWORKS,
    Architecture,
    BatchNorm,
    Convolution,
    Dense,
    LeakyReLU,
    Pad,
    Reshape,
    Sigmoid,
    TransposedConvolution,
)
from eccentric_models.checkpoint import Checkpoint
from eccentric_models.data import Dataset, Split
from eccentric_models.log import FILE
from eccentric_models.settings import Settings
from eccentric_models.training import CHECKPOINT

# What TensorFlow prints about its build.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def small(channels, dim, code_size, width=1.0):
    """Every kind of layer, for images of 4 x 4."""
    w = max(1, round(4 * width))
    encoder = (Pad(1), Convolution(w, 4, 2), BatchNorm(), LeakyReLU(0.1), Reshape((4 * w,)), Dense(code_size))
    decoder = (
        *(Dense(4 * w), Reshape((2, 2, w)), BatchNorm(), LeakyReLU(0.1)),
        *(TransposedConvolution(channels, 2, 2, bias=True), Sigmoid()),
    )
    return Architecture((4, 4, channels), dim, code_size, encoder, decoder)


@cache
def imported(framework):
    with warnings.catch_warnings():  # frameworks warn of each other and of Python at import
        warnings.simplefilter("ignore")
        importlib.import_module(f"eccentric_models.frameworks.{framework}_model")
    return framework


@pytest.fixture(params=["torch", "jax", "tensorflow"])
def framework(request):
    """Every framework, by its name."""
    require_gpu(request.config, request.param)
    return imported(request.param)


@pytest.fixture
def frameworks():
    """All of them at once."""
    return [imported(name) for name in ("torch", "jax", "tensorflow")]


@pytest.fixture
def torch():
    return imported("torch")


def images(rng, count, size):
    return rng.integers(256, size=(count, size, size, 1), dtype=np.uint8)


def splits(size):
    rng = np.random.default_rng(7)
    # One image more than fills its batches of 20.
    return Dataset("toy", *(Split(images(rng, count, size), np.arange(count) % 3) for count in (61, 20)))


@pytest.fixture
def toy(monkeypatch):
    """61 and 20 random images of 4 x 4, and a network for them."""
    monkeypatch.setitem(NETWORKS, "small", small)
    return splits(4)


@pytest.fixture
def toy28():
    """The same for the network of MNIST."""
    return splits(28)


@pytest.fixture
def settings():
    """Settings of a run that is over soon."""
    return lambda **changes: Settings(
        **{"epochs": 3, "batch_size": 20, "dim": 2, "width": 0.25, "learning_rate": 1e-2} | changes
    )


def bits(checkpoint):
    """All of a checkpoint in a form that is equal where every bit is."""
    state = [
        {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in part.items()}
        for part in checkpoint.state[:3]
    ]
    return {**vars(checkpoint), "state": (*state, checkpoint.state.step)}


@pytest.fixture(name="bits")
def _bits():
    return bits


@pytest.fixture
def outcome():
    """The checkpoint and the metrics of a run in a form that is equal where every bit is."""
    return lambda folder: (bits(Checkpoint.read(folder / CHECKPOINT)), (folder / FILE).read_bytes())


@pytest.fixture
def python():
    """Run a program in a fresh interpreter; give what it prints."""

    def run(program, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run
