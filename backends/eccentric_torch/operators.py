"""What stands in a graph of torch.compile or torch.export: two operators, for every number of rows.

They take the function as a text, its numbers and its tensors. They have first derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eccentric_core.derivatives import pulled_back
from eccentric_core.engine.encoding import decode, encode, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from eccentric_core.derivatives import Call


def value(call: Call, tensors: Sequence[Tensor]) -> Tensor:
    """The value of a call, of which no derivative is wanted."""
    return torch.ops.eccentric.value(*_encoded(call, tensors))


def value_and_gradients(call: Call, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The value of a call, which autograd differentiates, and its gradients with respect to the tensors."""
    return torch.ops.eccentric.value_and_gradients(*_encoded(call, tensors))


def _encoded(call: Call, tensors: Sequence[Tensor]) -> tuple[str, Tensor, list[Tensor]]:
    numbers: list[float] = []
    text = _text(encode(call, numbers))
    one = torch.ones((), dtype=torch.float64)  # times it, a number becomes a tensor and not a constant of the graph
    # A graph takes each tensor once.
    tensors = [t.clone() if any(t is other for other in tensors[:k]) else t for k, t in enumerate(tensors)]
    return text, torch.stack([one * number for number in numbers]) if numbers else one, tensors


@torch.compiler.assume_constant_result
def _text(structure: Any) -> str:
    return text_of(structure)


@torch.library.custom_op("eccentric::value", mutates_args=())
def _value(text: str, numbers: Tensor, tensors: list[Tensor]) -> Tensor:
    from eccentric_torch.backend import BACKEND, no_autocast

    with no_autocast(tensors[0]):
        return decode(text, numbers.flatten().tolist()).value(BACKEND, *tensors)


@torch.library.custom_op("eccentric::value_and_gradients", mutates_args=())
def _value_and_gradients(text: str, numbers: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    from eccentric_torch.backend import computed

    return list(computed(decode(text, numbers.flatten().tolist()), *tensors))


@_value.register_fake
def _value_like(text: str, numbers: Tensor, tensors: list[Tensor]) -> Tensor:  # noqa: ARG001
    return tensors[0].new_empty(tensors[0].shape[:-2])


@_value_and_gradients.register_fake
def _(text: str, numbers: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return [_value_like(text, numbers, tensors), *(t.new_empty(t.shape) for t in tensors)]


_value_and_gradients.register_autograd(
    lambda ctx, cotangents: (None, None, pulled_back(cotangents[0], ctx.saved_tensors)),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*output[1:]),  # noqa: ARG005
)
