"""The array libraries that the conformance suite runs on, and the one table of tolerances."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from _device import OPTION, SHARED, choose
from frameworks import FRAMEWORKS

from eccentric_core import backend as backends
from eccentric_core.backend import NAMESPACE, Backend, Namespace

# pytest runs a process for each core. With more threads than that the processes wait for each other, in OpenMP at every
# small operation, and all of them, and the processes that they start, take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# For small arrays XLA takes longer to optimise than what it optimises takes. The mode jax-jit has it optimised.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# What one process does alone: what it has compiled or computed for one test it has for the next ones.
_MODES = "|".join(sorted(FRAMEWORKS, key=len, reverse=True))
_MODE = re.compile(rf"tests/backends/[^[]*\[({_MODES})[-\]]")
_FILES = (
    "tests/backends/test_distributed.py",
    "tests/backends/test_keras_backends.py",
    "tests/tools/test_reproduce.py",
    "tests/tools/test_verify_latents.py",
)


def scope_of(nodeid):
    """The tests of a mode, or of a file, or one test. Marks for xdist's own groups are lost under pytest 9.2."""
    if found := _MODE.match(nodeid):
        return found[1]
    path = nodeid.partition("::")[0]
    return path if path in _FILES else nodeid


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        **OPTION,
        help="where the suites of backends and models compute: on a GPU where a framework finds one (auto), on a CPU, "
        "or on a GPU, without which they fail",
    )


def pytest_configure(config):
    choose(config.getoption("--device"))
    for name, value in SHARED.items():
        os.environ.setdefault(name, value)


def pytest_collection_finish():
    """What was imported stays: to look for garbage in it, again and again, took a twentieth of the time."""
    gc.freeze()


def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    return ByScope(config, log)


# Relative tolerances of a loss and of a gradient (by norm), keyed by the dtype that was computed in.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


@dataclass(frozen=True)
class Library:
    """One array library as the tests see it."""

    name: str
    xp: Any
    read_only: bool = False

    def array(self, values, dtype="float64"):
        array = np.array(values, dtype=dtype)
        array.flags.writeable = not self.read_only
        return array if self.xp is np else self.xp.asarray(array)

    def numpy(self, array):
        return np.asarray(array)


# A library that is named here and cannot be imported is an error, not a skip.
LIBRARIES = {"numpy": "numpy", "numpy-read-only": "numpy", "array-api-strict": "array_api_strict"}


@pytest.fixture(params=LIBRARIES)
def library(request):
    name = request.param
    return Library(name, importlib.import_module(LIBRARIES[name]), read_only=name.endswith("read-only"))


@pytest.fixture
def rng():
    return np.random.default_rng(20220701)


@pytest.fixture
def tolerance():
    return TOLERANCE


@pytest.fixture(scope="session")
def tiles():
    """A context in which tiles have so many rows, in NumPy and in every library of the standard; None changes nothing.

    The public functions let the backend choose.
    """

    def of_rows(rows):
        if rows is None:
            return contextlib.nullcontext()
        return mock.patch.object(Backend, "tile_rows", return_value=rows)

    return of_rows


@pytest.fixture
def offer(monkeypatch):
    """A function that leaves the arrays of array-api-strict these functions of their namespace alone.

    As a backend for a library without the standard would: what `NAMESPACE` lists, and three that `Namespace` adds.
    """
    strict = importlib.import_module("array_api_strict")

    def clamp(t, lower):
        return strict.maximum(t, strict.asarray(lower, dtype=t.dtype))

    def zero_diagonal(t):
        return strict.where(strict.eye(t.shape[-1], dtype=strict.float64) > 0.5, strict.zeros_like(t), t)

    own = {"clamp": clamp, "clamp_at_zero": lambda t: clamp(t, 0.0), "zero_diagonal": zero_diagonal}

    def offered(names=NAMESPACE, **others):
        library = SimpleNamespace(**{name: getattr(strict, name) for name in names})
        backend = Backend(Namespace(library, **own, **others))
        monkeypatch.setattr(backends, "_standard_backend", lambda _: backend)

    return offered
