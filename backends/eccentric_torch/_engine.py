"""The engine of `eccentric_core` in PyTorch: its namespace, its driver, its derivatives.

One function serves all: rows to an energy and its gradients. Its derivatives are those gradients and products with the
Hessian, so that it is closed under differentiation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from eccentric_core.engine.sweep import Driver, Namespace
from eccentric_core.engine.tiles import full_product

if TYPE_CHECKING:
    from eccentric_core.engine.pairs import Energy


def _zero_diagonal(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():  # autograd may need what stands there
        return x.diagonal_scatter(torch.zeros_like(x[..., 0]), dim1=-2, dim2=-1)
    x.diagonal(dim1=-2, dim2=-1).zero_()
    return x


def _clamp(x: Tensor) -> Tensor:
    return x.clamp_min(0) if torch.is_grad_enabled() else x.clamp_min_(0)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and (precision := torch.get_float32_matmul_precision()) != "highest":
        return full_product(torch.matmul, a, b, XP, parts=2 if precision == "high" else 3)
    return torch.matmul(a, b)


XP = Namespace(
    torch,
    astype=lambda x, dtype, copy=True: x.to(dtype),  # noqa: ARG005
    at_least=torch.clamp_min,
    clamp_at_zero=_clamp,
    concat=torch.cat,
    matmul=_matmul,
    matrix_transpose=lambda x: x.mT,
    take=lambda x, indices, axis: torch.index_select(x, axis, indices),
    zero_diagonal=_zero_diagonal,
)


class _Driver(Driver):
    # Each operation takes a while to start on all cores: tiles of 512 rows in float32.
    tile_bytes_cpu: ClassVar[int] = 1_050_000

    def has_float64(self, x: Tensor) -> bool:
        return x.device.type != "mps"

    def on_cpu(self, x: Tensor) -> bool:
        return x.device.type == "cpu"


DRIVER = _Driver(XP)


def apply(energy: Energy, x: Tensor, y: Tensor | None = None) -> Tensor:
    """The energy of x, or of x and y, with derivatives."""
    if torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad)):
        levels = [level.key() for level in retrieve_all_functorch_interpreters()]
        if not levels:
            return _Eager.apply(x, y, energy)[0]
        # Where forward mode is nested in itself, PyTorch loses the derivatives of a function's own rule for it.
        if levels.count(torch._C._functorch.TransformType.Jvp) < 2:
            return _Transformed.apply(x, y, energy)[0]
    # Plain operations, which forward mode can follow.
    return value(x, y, energy)


def value(x: Tensor, y: Tensor | None, energy: Energy) -> Tensor:
    with no_autocast(x):
        return energy.value(*_present(x, y))


def value_and_gradients(x: Tensor, y: Tensor | None, energy: Energy) -> tuple[Tensor, Tensor, Tensor]:
    with no_autocast(x):
        value, *gradients = energy.value_and_gradients(*_present(x, y))
    return value, gradients[0].contiguous(), gradients[1].contiguous() if y is not None else x.new_empty(0)


def _hvp(x: Tensor, u: Tensor | None, y: Tensor | None, v: Tensor | None, energy: Energy) -> list[Tensor | None]:
    """The derivatives of the gradients along (u, v), in plain operations, which have derivatives of their own."""
    sets = _present(x, y)
    directions = [torch.zeros_like(s) if w is None else w for s, w in zip(sets, (u, v), strict=False)]
    with no_autocast(x):
        return [*energy.hvp(sets, directions), None][:2]


def _present(x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
    return (x,) if y is None else (x, y)


def no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    active = torch.is_autocast_enabled(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if active else nullcontext()


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, y, ctx.energy = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, *output[1:])
    ctx.save_for_forward(x, y, *output[1:])


def _backward(ctx: Any, of_value: Tensor | None, u: Tensor | None, v: Tensor | None) -> Any:
    x, y, *gradients = ctx.saved_tensors
    first = second = [None, None]
    if of_value is not None:
        factor = of_value[..., None, None] if of_value.ndim else of_value
        first = [factor * g if g.ndim > 1 else None for g in gradients]
    if u is not None or v is not None:
        second = _hvp(x, u, y, v, ctx.energy)  # the Hessian is its own transpose
    return *(b if a is None else a if b is None else a + b for a, b in zip(first, second, strict=True)), None


def _jvp(ctx: Any, u: Tensor | None, v: Tensor | None, _: None) -> Any:
    x, y, *gradients = ctx.saved_tensors
    along = [(g * w).sum((-2, -1)) for g, w in zip(gradients, (u, v), strict=True) if w is not None]
    of_x, of_y = _hvp(x, u, y, v, ctx.energy)
    return sum(along), of_x, x.new_empty(0) if of_y is None else of_y


class _Eager(torch.autograd.Function):
    """Rows to (energy, gradient of x, gradient of y or nothing)."""

    backward = staticmethod(_backward)
    jvp = staticmethod(_jvp)

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, energy: Energy) -> tuple[Tensor, Tensor, Tensor]:
        output = value_and_gradients(x, y, energy)
        _save(ctx, (x, y, energy), output)
        return output


class _Transformed(torch.autograd.Function):
    """The same in the form that torch.func asks for, which takes longer to call."""

    forward = staticmethod(value_and_gradients)
    setup_context = staticmethod(_save)
    backward = staticmethod(_backward)
    jvp = staticmethod(_jvp)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor | None, energy: Energy) -> Any:
        x, y = (
            rows if rows is None else rows.expand(info.batch_size, *rows.shape) if dim is None else rows.movedim(dim, 0)
            for rows, dim in zip((x, y), in_dims, strict=False)
        )
        return _Transformed.apply(x, y, energy), (0, 0, None if y is None else 0)
