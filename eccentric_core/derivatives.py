"""What a backend registers: a function of tensors alone, its gradients, and its Hessian times a vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_core.checks import is_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Array


@dataclass(frozen=True)
class Call:
    """A function whose arguments are given but for those that are tensors.

    Attributes:
        function: `eccentric_core.engine.pairs.PairSum`, or another with its methods.
        given: the arguments, None or a number, and "tensor" in the place of a tensor.
    """

    function: Any
    given: tuple[Any, ...]

    @staticmethod
    def of(function: Any, arguments: Sequence[Any]) -> tuple[Call, list[Array]]:
        """The call, and its tensors."""
        given: list[Any] = list(arguments)
        tensors = []
        for k, a in enumerate(arguments):
            if type(a) is not float and is_tensor(a):  # most are numbers
                given[k] = "tensor"
                tensors.append(a)
        return Call(function, tuple(given)), tensors

    def value(self, backend: Backend, *tensors: Array) -> Array:
        """The value, of shape (...)."""
        return self.function.value(backend, *self._placed(tensors))

    def value_and_gradients(self, backend: Backend, *tensors: Array) -> list[Array]:
        """The value, and its gradient with respect to each tensor, of shapes (..., of the tensor)."""
        value, *gradients = self.function.value_and_gradients(backend, *self._placed(tensors))
        return [value, *self._for_tensors(gradients)]

    def hvp(self, backend: Backend, tensors: Sequence[Array], directions: Sequence[Array | None]) -> list[Array]:
        """The derivative of each gradient along directions of all tensors; None stands for 0."""
        return self._for_tensors(self.function.hvp(backend, self._placed(tensors), self.for_arguments(directions)))

    def for_arguments(self, values: Sequence[Any]) -> list[Any]:
        """Values for tensors as one for each argument: None where it is no tensor."""
        rest = iter(values)
        return [next(rest) if isinstance(g, str) else None for g in self.given]

    def _placed(self, tensors: Sequence[Array | None]) -> list[Any]:
        rest = list(tensors)
        return [rest.pop(0) if isinstance(g, str) else g for g in self.given]

    def _for_tensors(self, values: Sequence[Any]) -> list[Array]:
        return [value for g, value in zip(self.given, values, strict=True) if isinstance(g, str)]


def pulled_back(cotangent: Array, gradients: Sequence[Any]) -> list[Any]:
    """The gradients, or None, times the cotangent of the value, which has their leading axes."""
    lead = len(cotangent.shape)
    return [
        g if g is None else g * (cotangent[(..., *[None] * (len(g.shape) - lead))] if lead else cotangent)
        for g in gradients
    ]


def pushed_forward(value: Array, gradients: Sequence[Any], directions: Sequence[Array | None], xp: Any) -> Array:
    """The derivative of a value along directions of its arguments; None stands for 0, and needs no gradient."""
    lead = len(value.shape)
    terms = [
        xp.sum(g * u, axis=tuple(range(lead - len(g.shape), 0))) if len(g.shape) > lead else g * u
        for g, u in zip(gradients, directions, strict=True)
        if u is not None
    ]
    return sum(terms[1:], start=terms[0]) if terms else xp.zeros_like(value)
