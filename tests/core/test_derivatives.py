"""What a backend registers, with a function that shows where its arguments arrive, and with a sum over pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from eccentric_core import LogarithmicKernel
from eccentric_core.backend import backend_of
from eccentric_core.derivatives import Call, pulled_back, pushed_forward
from eccentric_core.engine.pairs import PairSum
from eccentric_core.numpy_backend import BACKEND as NUMPY


@dataclass(frozen=True)
class Places:
    """A function of four arguments that gives them back."""

    def value(self, backend, *arguments):
        return backend, arguments

    def value_and_gradients(self, backend, *arguments):
        return (backend, arguments), *(f"gradient of {a!r}" for a in arguments)

    def hvp(self, backend, arguments, directions):
        assert backend is NUMPY
        return [f"{a!r} along {u!r}" for a, u in zip(arguments, directions, strict=True)]


# "x" and "y" stand for tensors.
@pytest.mark.parametrize(
    ("arguments", "given", "tensors", "kept"),
    [
        (("x", None, None, 2.0), ("tensor", None, None, 2.0), ["x"], [0]),
        (("x", "y", None, np.float64(2.0)), ("tensor", "tensor", None, 2.0), ["x", "y"], [0, 1]),
        (("x", None, "y", "h"), ("tensor", None, "tensor", "tensor"), ["x", "y", "h"], [0, 2, 3]),
        ((None, 1.0, None, "h"), (None, 1.0, None, "tensor"), ["h"], [3]),
        ((None, 1.0, None, 2.0), (None, 1.0, None, 2.0), [], []),
    ],
)
def test_tensors_find_their_places(arguments, given, tensors, kept):
    call, found = Call.of(Places(), arguments)
    assert call == Call(Places(), given)
    assert hash(call) == hash(Call(Places(), given))
    assert found == tensors
    assert call.value(NUMPY, *tensors) == (NUMPY, arguments)
    value, *gradients = call.value_and_gradients(NUMPY, *tensors)
    assert value == (NUMPY, arguments)
    assert gradients == [f"gradient of {arguments[k]!r}" for k in kept]
    # Numbers and None have no direction.
    directions = [f"along {t}" for t in tensors]
    moved = dict(zip(kept, directions, strict=True))
    assert call.hvp(NUMPY, tensors, directions) == [f"{arguments[k]!r} along {moved[k]!r}" for k in kept]
    assert call.hvp(NUMPY, tensors, [None] * len(tensors)) == [f"{arguments[k]!r} along None" for k in kept]


def test_numbers_have_no_direction_of_their_own():
    seen = []

    class Seen(Places):
        def hvp(self, backend, arguments, directions):  # noqa: ARG002
            seen.extend(directions)
            return directions

    call, tensors = Call.of(Seen(), ("x", None, 3.0, "h"))
    assert call.hvp(NUMPY, tensors, ["u", "r"]) == ["u", "r"]
    assert seen == ["u", None, None, "r"]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_derivatives_of_a_sum(library, lead, rng):
    """A gradient times a cotangent is that of the sum times it, and the derivative along directions is the product."""
    x, u = rng.standard_normal((2, *lead, 20, 4))
    e, de = rng.uniform(0, 1, (2, *lead, 20, 1))
    h, r = rng.uniform(1, 2, (2, *lead))
    cotangent = rng.standard_normal(lead)
    backend = backend_of(library.array(x))
    call, tensors = Call.of(
        PairSum(LogarithmicKernel()), (library.array(x), None, library.array(e), library.array(h), 0.5, 2.0)
    )
    value, *gradients = call.value_and_gradients(backend, *tensors)
    exact = [library.numpy(grad) for grad in gradients]
    pulled = pulled_back(library.array(cotangent), gradients)
    for found, grad in zip(pulled, exact, strict=True):
        shape = (*lead, *(1,) * (grad.ndim - len(lead)))
        np.testing.assert_array_equal(library.numpy(found), cotangent.reshape(shape) * grad)
    directions = [u, de, r]
    for some in ([0], [1], [2], [0, 1], [0, 1, 2]):
        given = [library.array(one) if k in some else None for k, one in enumerate(directions)]
        moved = library.numpy(pushed_forward(value, gradients, given, backend.xp))
        assert moved.shape == lead
        expected = 0.0
        for k in some:
            expected = expected + np.sum(exact[k] * directions[k], axis=tuple(range(len(lead), exact[k].ndim)))
        np.testing.assert_allclose(moved, expected, rtol=1e-13, atol=1e-12)
    nothing = pushed_forward(value, gradients, [None] * 3, backend.xp)
    assert tuple(nothing.shape) == lead
    assert nothing.dtype == value.dtype
    np.testing.assert_array_equal(library.numpy(nothing), np.zeros(lead))


def test_a_backend_without_derivatives_has_values_and_gradients(rng):
    """`differentiable` is the value, `value_and_gradients` has None for what is no tensor."""
    x, h = rng.standard_normal((20, 4)), np.asarray(4.0)  # whose root is exact
    f = PairSum(LogarithmicKernel())
    expected = f.value_and_gradients(NUMPY, x, None, None, h)
    assert NUMPY.differentiable(f, x, None, None, h, None, 1.0) == expected[0]
    for given, last in ((h, expected[4]), (4.0, None)):
        value, grad, *rest = NUMPY.value_and_gradients(f, x, None, None, given, None, 1.0)
        assert value == expected[0]
        np.testing.assert_array_equal(grad, expected[1])
        assert rest == [None, None, last, None, None]
