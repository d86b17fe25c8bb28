"""The backend of PyTorch: its namespace, derivatives for autograd and torch.func, operators for torch.compile."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from eccentric_core.backend import Backend, Namespace
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pulled_back, pushed_forward
from eccentric_core.engine.precision import full_product
from eccentric_torch import operators
from eccentric_torch.distributed import gather, total


class _TorchBackend(Backend):
    # Each operation takes a while to start on all cores: tiles of 512 rows in float32.
    tile_bytes_cpu: ClassVar[int] = 1_050_000
    gather, total = staticmethod(gather), staticmethod(total)
    compiling = staticmethod(torch.compiler.is_compiling)

    def refusal(self, array: Any) -> str | None:
        if not self.compiling() and torch.jit.is_tracing():
            return "a tensor that torch.jit.trace follows; use torch.compile or torch.export"
        if isinstance(array, Tensor) and array.layout is torch.strided and not array.is_nested:
            return None
        return f"{type(array).__name__} ({getattr(array, 'layout', 'no tensor')}); give a dense torch.Tensor"

    def run(self, formula: Any, *arrays: Any, **static: Any) -> Any:
        with no_autocast(arrays[0]):
            return formula(self, *arrays, **static)

    def registered(self, call: Call, *tensors: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if self.compiling():
            return operators.value_and_gradients(call, tensors)[0] if wanted else operators.value(call, tensors)
        # Where forward mode is nested in itself, PyTorch loses the derivatives of a function's own rule for it.
        if wanted and [k.key() for k in retrieve_all_functorch_interpreters()].count(_FORWARD_MODE) < 2:
            return _ValueAndGradients.apply(call, *tensors)[0]
        return call.value(self, *tensors)  # plain operations, which forward mode can follow

    def gradients(self, call: Call, *tensors: Tensor) -> Any:
        tensors = tuple(t.detach() for t in tensors)
        return operators.value_and_gradients(call, tensors) if self.compiling() else computed(call, *tensors)

    def constant(self, x: Any) -> Any:
        return x.detach() if isinstance(x, Tensor) else x

    def normal(self, like: Tensor, rng: torch.Generator | None) -> Any:
        options: dict[str, Any] = {} if rng is None else {"generator": rng}  # which no compiled graph takes
        dtype = getattr(torch, compute_dtype(like, "w"))
        return lambda shape: torch.randn(shape, dtype=dtype, device=like.device, **options)

    def has_float64(self, x: Tensor) -> bool:
        return x.device.type != "mps"

    def on_cpu(self, x: Tensor) -> bool:
        return x.device.type == "cpu"


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    # A graph that is being compiled cannot ask for the setting; its large products are within operators.
    precise = a.dtype != torch.float32 or torch.compiler.is_compiling()
    if precise or (setting := torch.get_float32_matmul_precision()) == "highest":
        return torch.matmul(a, b)
    return full_product(torch.matmul, a, b, BACKEND.xp, parts=2 if setting == "high" else 3)


def _zero_diagonal(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():  # autograd may need what stands there
        return x.diagonal_scatter(torch.zeros_like(x[..., 0]), dim1=-2, dim2=-1)
    x.diagonal(dim1=-2, dim2=-1).zero_()
    return x


BACKEND = _TorchBackend(
    Namespace(
        torch,
        asarray=torch.as_tensor,
        astype=lambda x, dtype, copy=True: x.to(dtype),  # noqa: ARG005
        clamp=torch.clamp_min,
        clamp_at_zero=lambda x: x.clamp_min(0) if torch.is_grad_enabled() else x.clamp_min_(0),
        concat=torch.cat,
        matmul=_matmul,
        matrix_transpose=lambda x: x.mT,
        take=lambda x, indices, axis: torch.index_select(x, axis, indices),
        zero_diagonal=_zero_diagonal,
    )
)
_FORWARD_MODE = torch._C._functorch.TransformType.Jvp


def no_autocast(x: Tensor) -> Any:
    """A context in which nothing is computed in half precision."""
    kind = x.device.type
    active = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def computed(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The value of a call and its gradients, contiguous as operators promise them."""
    with no_autocast(tensors[0]):
        return tuple(r.contiguous() for r in call.value_and_gradients(BACKEND, *tensors))


computed.__signature__ = inspect.signature(computed)  # autograd asks for it in every call


class _ValueAndGradients(torch.autograd.Function):
    """Its derivatives are the gradients and products with the Hessian: it is closed under differentiation."""

    generate_vmap_rule = True
    forward = staticmethod(computed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None, *directions: Tensor | None) -> Any:
        count = len(directions)
        tensors, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count + 1 :]
        first = [None] * count if cotangent is None else pulled_back(cotangent, gradients)
        if all(u is None for u in directions):
            return None, *first
        with no_autocast(tensors[0]):  # the Hessian is its own transpose
            second = ctx.call.hvp(BACKEND, tensors, directions)
        return None, *(b if a is None else a + b for a, b in zip(first, second, strict=True))

    @staticmethod
    def jvp(ctx: Any, _: None, *directions: Tensor | None) -> Any:
        count = len(directions)
        tensors, value, *gradients = ctx.saved_tensors[:count], *ctx.saved_tensors[count:]
        with no_autocast(value):
            change = pushed_forward(value, gradients, directions, BACKEND.xp)
            return change, *ctx.call.hvp(BACKEND, tensors, directions)
