"""The backend of PyTorch: its namespace, derivatives for autograd and torch.func, and operators for torch.compile.

One function serves all: arrays to a value and its gradients. Its derivatives are those gradients and products with the
Hessian, so that it is closed under differentiation. A compiled graph has an operator in its place, for every number of
rows, with first derivatives.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters

from eccentric_core.backend import Backend, Namespace
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pulled_back, pushed_forward
from eccentric_core.engine.encoding import decode, encode, text_of
from eccentric_core.engine.precision import full_product
from eccentric_torch.distributed import gather, total


def _zero_diagonal(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():  # autograd may need what stands there
        return x.diagonal_scatter(torch.zeros_like(x[..., 0]), dim1=-2, dim2=-1)
    x.diagonal(dim1=-2, dim2=-1).zero_()
    return x


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    # A graph that is being compiled cannot ask for the setting; the large products are within operators.
    precise = a.dtype != torch.float32 or torch.compiler.is_compiling()
    if precise or (setting := torch.get_float32_matmul_precision()) == "highest":
        return torch.matmul(a, b)
    return full_product(torch.matmul, a, b, BACKEND.xp, parts=2 if setting == "high" else 3)


class _TorchBackend(Backend):
    # Each operation takes a while to start on all cores: tiles of 512 rows in float32.
    tile_bytes_cpu: ClassVar[int] = 1_050_000
    gather = staticmethod(gather)
    total = staticmethod(total)
    compiling = staticmethod(torch.compiler.is_compiling)

    def refusal(self, array: Any) -> str | None:
        if isinstance(array, Tensor) and array.layout is torch.strided and not array.is_nested:
            return None
        return f"{type(array).__name__} ({getattr(array, 'layout', 'no tensor')}); give a dense torch.Tensor"

    def beside(self, values: Any, like: Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=getattr(torch, compute_dtype(like, "z")), device=like.device)

    def is_symbol(self, size: Any) -> bool:
        return isinstance(size, torch.SymInt)

    def run(self, formula: Any, *arrays: Any, **static: Any) -> Any:
        with _no_autocast(arrays[0]):
            return formula(self, *arrays, **static)

    def registered(self, call: Call, *tensors: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if self.compiling():
            text, numbers, tensors = _encoded(call, tensors)
            return _InGraph.apply(text, numbers, *tensors)[0] if wanted else _VALUE(text, numbers, tensors)
        if wanted:
            levels = [level.key() for level in retrieve_all_functorch_interpreters()]
            # Where forward mode is nested in itself, PyTorch loses the derivatives of a function's own rule for it.
            if levels.count(torch._C._functorch.TransformType.Jvp) < 2:
                return (_Transformed if levels else _Eager).apply(call, *tensors)[0]
        return call.value(self, *tensors)  # plain operations, which forward mode can follow

    def gradients(self, call: Call, *tensors: Tensor) -> Any:
        tensors = tuple(t.detach() for t in tensors)
        return _GRADIENTS(*_encoded(call, tensors)) if self.compiling() else _computed(call, *tensors)

    def constant(self, x: Any) -> Any:
        return x.detach() if isinstance(x, Tensor) else x

    def normal(self, like: Tensor, rng: torch.Generator | None) -> Any:
        options: dict[str, Any] = {"device": like.device, "dtype": getattr(torch, compute_dtype(like, "w"))}
        if rng is not None:  # which no compiled graph takes
            options["generator"] = rng
        return lambda shape: torch.randn(shape, **options)

    def has_float64(self, x: Tensor) -> bool:
        return x.device.type != "mps"

    def on_cpu(self, x: Tensor) -> bool:
        return x.device.type == "cpu"


BACKEND = _TorchBackend(
    Namespace(
        torch,
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


def _no_autocast(x: Tensor) -> Any:
    kind = x.device.type
    active = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def _computed(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(r.contiguous() for r in call.value_and_gradients(BACKEND, *tensors))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.call, *tensors = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)
    ctx.save_for_forward(*tensors, *output)


def _saved(ctx: Any) -> tuple[Any, Any, Any]:
    """The tensors, the value and the gradients."""
    saved, count = ctx.saved_tensors, len(ctx.saved_tensors) // 2
    return saved[:count], saved[count], saved[count + 1 :]


def _hvp(call: Call, tensors: Any, directions: Any) -> list[Tensor]:
    # In plain operations, which have derivatives of their own.
    with _no_autocast(tensors[0]):
        return call.hvp(BACKEND, tensors, directions)


def _backward(ctx: Any, cotangent: Tensor | None, *directions: Tensor | None) -> Any:
    tensors, _, gradients = _saved(ctx)
    first = [None] * len(tensors) if cotangent is None else pulled_back(cotangent, gradients)
    if all(u is None for u in directions):
        return None, *first
    second = _hvp(ctx.call, tensors, directions)  # the Hessian is its own transpose
    return None, *(b if a is None else a + b for a, b in zip(first, second, strict=True))


def _jvp(ctx: Any, _: None, *directions: Tensor | None) -> Any:
    tensors, value, gradients = _saved(ctx)
    return pushed_forward(value, gradients, directions, BACKEND.xp), *_hvp(ctx.call, tensors, directions)


class _Eager(torch.autograd.Function):
    """Tensors to (value, gradients)."""

    backward = staticmethod(_backward)
    jvp = staticmethod(_jvp)

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        output = _computed(call, *tensors)
        _save(ctx, (call, *tensors), output)
        return output


class _Transformed(torch.autograd.Function):
    """The same in the form that torch.func asks for, which takes longer to call."""

    forward = staticmethod(_computed)
    setup_context = staticmethod(_save)
    backward = staticmethod(_backward)
    jvp = staticmethod(_jvp)

    @staticmethod
    def vmap(info: Any, in_dims: Any, call: Call, *tensors: Tensor) -> Any:
        pairs = zip(tensors, in_dims[1:], strict=True)
        moved = [t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in pairs]
        return _Transformed.apply(call, *moved), (0,) * (1 + len(tensors))


def _encoded(call: Call, tensors: Any) -> tuple[str, Tensor, list[Tensor]]:
    numbers: list[float] = []
    text = _text(encode(call, numbers))
    one = torch.ones((), dtype=torch.float64)  # times it, a number becomes a tensor and not a constant of the graph
    # A graph takes each tensor once.
    tensors = [t.clone() if any(t is other for other in tensors[:k]) else t for k, t in enumerate(tensors)]
    return text, torch.stack([one * number for number in numbers]) if numbers else one, tensors


@torch.compiler.assume_constant_result
def _text(structure: Any) -> str:
    return text_of(structure)


def _decoded(text: str, numbers: Tensor) -> Call:
    return decode(text, numbers.flatten().tolist())


@torch.library.custom_op("eccentric::value", mutates_args=())
def _value(text: str, numbers: Tensor, tensors: list[Tensor]) -> Tensor:
    with _no_autocast(tensors[0]):
        return _decoded(text, numbers).value(BACKEND, *tensors)


@torch.library.custom_op("eccentric::value_and_gradients", mutates_args=())
def _value_and_gradients(text: str, numbers: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    with _no_autocast(tensors[0]):
        return list(_computed(_decoded(text, numbers), *tensors))


@_value.register_fake
def _(text: str, numbers: Tensor, tensors: list[Tensor]) -> Tensor:  # noqa: ARG001
    return tensors[0].new_empty(tensors[0].shape[:-2])


@_value_and_gradients.register_fake
def _(text: str, numbers: Tensor, tensors: list[Tensor]) -> list[Tensor]:  # noqa: ARG001
    return [tensors[0].new_empty(tensors[0].shape[:-2]), *(t.new_empty(t.shape) for t in tensors)]


_VALUE, _GRADIENTS = torch.ops.eccentric.value.default, torch.ops.eccentric.value_and_gradients.default


class _InGraph(torch.autograd.Function):
    """The operator with first derivatives."""

    @staticmethod
    def forward(text: str, numbers: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_GRADIENTS(text, numbers, list(tensors)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*output[1:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor, *_: Any) -> Any:
        return None, None, *pulled_back(cotangent, ctx.saved_tensors)
