"""The array libraries that the conformance suite runs on, and the one table of tolerances."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

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
