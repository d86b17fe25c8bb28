"""Rows that are spread over processes: two collectives with derivatives.

Every process has a copy of the same loss, and that copy counts once: the gradient of its rows is that of one loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def gather(z: Tensor, group: ProcessGroup) -> Tensor:
    """The rows of all processes, of shape (..., K n, d)."""
    return _Gather.apply(z, group)


def total(value: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over all processes."""
    return _Reduce.apply(value, group)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, z.contiguous(), group)
        return torch.cat(parts, dim=-2)

    @staticmethod
    def backward(ctx: Any, grad_all: Tensor) -> Any:
        return _Scatter.apply(grad_all, ctx.group), None


class _Scatter(torch.autograd.Function):
    """The transpose: of the sum over all processes, the rows of this one."""

    @staticmethod
    def forward(ctx: Any, grad_all: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        total = grad_all.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total.chunk(dist.get_world_size(group), dim=-2)[dist.get_rank(group)].contiguous()

    @staticmethod
    def backward(ctx: Any, grad_own: Tensor) -> Any:
        return _Gather.apply(grad_own, ctx.group), None


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: ProcessGroup) -> Tensor:  # noqa: ARG004
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> Any:  # noqa: ARG004
        return grad_total, None
