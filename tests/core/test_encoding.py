"""A function to differentiate as a text and numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest

from eccentric_core import (
    AngularKernel,
    AntipodalKernel,
    GaussianKernel,
    InverseMultiquadricKernel,
    InverseMultiquadricMixture,
    LogarithmicKernel,
    RieszKernel,
    pair_sum,
)
from eccentric_core.derivatives import Call
from eccentric_core.engine.encoding import decode, encode, text_of
from eccentric_core.engine.pairs import PairSum
from eccentric_core.numpy_backend import BACKEND as NUMPY

KERNELS = [
    LogarithmicKernel(),
    InverseMultiquadricKernel(),
    InverseMultiquadricMixture((0.1, 1.0, 10.0)),
    GaussianKernel(),
    RieszKernel(1.5, 1e-9),
    AngularKernel(2.0, 1e-9, 2.0**-52, 1 / np.pi, 1e-4),
    AntipodalKernel(RieszKernel(0.0, 1e-300)),
    AntipodalKernel(AngularKernel(1.0, 1e-9, 1e-16)),
    oracle.Quadratic(),
]


@dataclass(frozen=True)
class Held:
    """A kernel that may hold anything."""

    what: Any
    hidden: float = field(default=1.0, repr=False, compare=False)

    def value(self, t, xp):  # noqa: ARG002
        return t * self.hidden

    def slope(self, t, xp):
        return xp.ones_like(t) * self.hidden


def encoded(value):
    numbers = []
    return text_of(encode(value, numbers)), numbers


def round_trip(value):
    text, numbers = encoded(value)
    return decode(text, numbers)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("tile_rows", [None, 30])
def test_sums_of_every_kernel(kernel, wide, tile_rows, rng):
    x = rng.uniform(0, 1, (20, 4))
    f = PairSum(kernel, wide, tile_rows)
    again = round_trip(f)
    assert again == f
    assert hash(again) == hash(f)
    assert type(again) is PairSum
    assert type(again.kernel) is type(kernel)
    assert again.value(NUMPY, x, None, None, 2.0) == f.value(NUMPY, x, None, None, 2.0)


def test_a_call_with_its_arguments():
    call, _ = Call.of(PairSum(LogarithmicKernel()), (np.zeros((4, 3)), None, None, 2.5))
    text, numbers = encoded(call)
    assert numbers == [2.5]
    assert decode(text, numbers) == call
    assert decode(text, [3.5]).given == ("tensor", None, None, 3.5)


def test_other_numbers_are_the_same_text():
    """So that a compiler compiles nothing anew; other whole numbers, of which loops may depend, are another one."""
    one, other = (encoded(PairSum(RieszKernel(s, eps), True)) for s, eps in ((1.0, 1e-3), (2.5, 1e-9)))
    assert one[0] == other[0]
    assert (one[1], other[1]) == ([1.0, 1e-3], [2.5, 1e-9])
    assert encoded(PairSum(Held(2)))[0] != encoded(PairSum(Held(3)))[0]
    assert encoded(PairSum(LogarithmicKernel(), True))[0] != encoded(PairSum(LogarithmicKernel(), False))[0]
    json.loads(one[0])


@pytest.mark.parametrize(
    "what",
    [
        *(1.5, -0.0, np.inf, -1e308, 5e-324, 7, 10**30, True, None, 'a "text" with #:[]é', ()),
        (1.0, (2, ("x", None)), 3.0),
        Held(Held((1.0, Held(2.0)))),
    ],
    ids=repr,
)
def test_what_a_kernel_may_hold(what):
    again = round_trip(Held(what)).what
    assert again == what
    assert type(again) is type(what)
    assert str(again) == str(what)  # the sign of 0, too


def test_a_state_that_is_not_in_the_repr():
    """Nor in comparisons."""
    kernel = Held(1.0, hidden=4.0)
    assert repr(kernel) == repr(Held(1.0))
    assert kernel == Held(1.0)
    assert round_trip(kernel).hidden == 4.0

    class Plain:
        """No dataclass at all."""

        def __init__(self):
            self.factor = 3.0
            self._name = "plain"

    again = round_trip(Plain())
    assert vars(again) == {"factor": 3.0, "_name": "plain"}
    assert type(again) is Plain


def made(factor):
    """A kernel of a class of its own."""

    @dataclass(frozen=True)
    class Local:
        bandwidth: float = 2.0

        def value(self, t, xp):  # noqa: ARG002
            return factor * t

        def slope(self, t, xp):
            return factor * xp.ones_like(t)

    return Local()


def test_two_classes_of_equal_repr_stay_apart(rng):
    x = rng.standard_normal((10, 3))
    one, other = made(1.0), made(3.0)
    assert repr(one) == repr(other)
    texts = [encoded(PairSum(kernel)) for kernel in (one, other)]
    assert texts[0] != texts[1]
    for kernel, (text, numbers) in zip((one, other), texts, strict=True):
        again = decode(text, numbers)
        assert type(again.kernel) is type(kernel)
        assert encoded(PairSum(kernel)) == (text, numbers)  # the same one every time
        assert again.value(NUMPY, x, None, None, 1.0) == pair_sum(x, kernel=kernel)


def test_a_class_whose_name_means_another(monkeypatch):
    """One that was defined anew, as in a notebook, and one whose module cannot be imported."""
    old = Held(1.0)

    @dataclass(frozen=True)
    class New:
        what: float

    monkeypatch.setattr(sys.modules[__name__], "Held", New)
    assert type(round_trip(old)) is type(old)
    module = ModuleType("nowhere_to_be_found")
    exec("class Kernel:\n    pass", module.__dict__)
    assert module.Kernel.__module__ == "nowhere_to_be_found"
    assert type(round_trip(module.Kernel())) is module.Kernel


def test_another_process_knows_the_text():
    """Of a kernel whose module it has not imported yet."""
    text, numbers = encoded(PairSum(AntipodalKernel(RieszKernel(1.0, 0.25))))
    code = "import sys; from eccentric_core.engine.encoding import decode; print(decode(sys.argv[1], [1.0, 0.25]))"
    output = subprocess.run([sys.executable, "-c", code, text], check=True, capture_output=True, text=True).stdout
    assert numbers == [1.0, 0.25]
    assert output.strip() == repr(PairSum(AntipodalKernel(RieszKernel(1.0, 0.25))))


class Pair(NamedTuple):
    one: float
    other: float


@dataclass(frozen=True, slots=True)
class Slots:
    factor: float


class Array(np.ndarray):
    """It has a dict, but its numbers are not there."""


@pytest.mark.parametrize(
    "what",
    [
        *([1.0], {"a": 1.0}, {1.0}, 1j, b"x", np.zeros(2), np.float32(1.0), np.int64(1), np.zeros(2).view(Array)),
        *(np.log1p, float, Held, lambda t: t, Pair(1.0, 2.0), Slots(1.0), object(), np),
    ],
    ids=lambda what: type(what).__name__,
)
def test_what_a_kernel_may_not_hold(what):
    """What would not be the same when it is read."""
    for value in (what, Held(what), PairSum(AntipodalKernel(Held((1.0, what))))):
        with pytest.raises(TypeError, match="a kernel must be a plain object that holds numbers, texts, tuples and"):
            encoded(value)
