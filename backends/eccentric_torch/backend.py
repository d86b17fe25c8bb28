"""The backend of PyTorch: its namespace, derivatives for autograd and torch.func, operators for torch.compile."""

from __future__ import annotations

import inspect
import math
from contextlib import nullcontext
from operator import attrgetter
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad
from torch.fx.experimental.symbolic_shapes import statically_known_true

from eccentric_core.backend import BACKENDS, Backend, Namespace
from eccentric_core.checks import compute_dtype
from eccentric_core.derivatives import Call, pulled_back, pushed_forward
from eccentric_core.engine.precision import full_product
from eccentric_torch import operators
from eccentric_torch.distributed import gather, total


class _TorchBackend(Backend):
    # Each operation takes a while to start on all cores: tiles of 512 rows in float32.
    tile_bytes_cpu: ClassVar[int] = 1_050_000
    always_dense: ClassVar[int] = 1024
    gather, total = staticmethod(gather), staticmethod(total)
    compiling = staticmethod(torch.compiler.is_compiling)

    def splits_batches(self) -> bool:
        return not self.compiling()

    def refusal(self, array: Any) -> str | None:
        if not isinstance(array, Tensor) or array.layout is not torch.strided or array.is_nested:
            return f"{type(array).__name__} ({getattr(array, 'layout', 'no tensor')}); give a dense torch.Tensor"
        if torch._C._get_tracing_state() is not None and not self.compiling():
            return "a tensor that torch.jit.trace follows; use torch.compile or torch.export"
        return None

    def run(self, formula: Any, *arrays: Any, **static: Any) -> Any:
        if self.compiling() or torch._C._is_any_autocast_enabled():
            with no_autocast(arrays[0]):
                return formula(self, *arrays, **static)
        return formula(self, *arrays, **static)

    def differentiable(self, f: Any, *arguments: Any) -> Tensor:
        if self.compiling():
            return self._compiled(f, *arguments)
        if not torch.is_grad_enabled():
            return f.value(_computing(), *arguments)
        if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
            return super().differentiable(f, *arguments)
        return _Value.apply(f, *arguments)

    def _compiled(self, f: Any, *arguments: Any) -> Tensor:
        if not _is_fused(arguments):
            if torch._C._are_functorch_transforms_active():  # forward mode would take the derivative for 0
                raise TypeError(_NO_TRANSFORM)
            return super().differentiable(f, *arguments)
        call, tensors = Call.of(f, arguments)
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        return _Value.apply(call, *tensors) if wanted else f.value(self, *arguments)

    def registered(self, call: Call, *tensors: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        if self.compiling():
            return operators.value_and_gradients(call, tensors)[0] if wanted else operators.value(call, tensors)
        # Where forward mode is nested in itself, PyTorch loses the derivatives of a function's own rule for it.
        if wanted and [k.key() for k in retrieve_all_functorch_interpreters()].count(_FORWARD_MODE) < 2:
            return _ValueAndGradients.apply(call, *tensors)[0]
        return call.value(self, *tensors)  # plain operations, which forward mode can follow

    def value_and_gradients(self, f: Any, *arguments: Any) -> Any:
        call, tensors = Call.of(f, [self.constant(a) for a in arguments])
        if self.compiling():
            value, *gradients = operators.value_and_gradients(call, tensors)
        else:
            with torch.no_grad():
                value, *gradients = computed(call, *tensors)
        return value, *call.for_arguments(gradients)

    def constant(self, x: Any) -> Any:
        return x.detach() if isinstance(x, Tensor) else x

    def normal(self, like: Tensor, rng: torch.Generator | None) -> Any:
        options: dict[str, Any] = {} if rng is None else {"generator": rng}  # which no compiled graph takes
        dtype = getattr(torch, compute_dtype(like, "w"))
        return lambda shape: torch.randn(shape, dtype=dtype, device=like.device, **options)

    def has_float64(self, x: Tensor) -> bool:
        return x.device.type != "mps"

    def on_cpu(self, x: Tensor) -> bool:
        return x.is_cpu

    def dense_rows(self, x: Tensor, *, in_place: bool) -> int:
        # The matrices that eager code makes one after the other should stay in a cache, as those of a tile do.
        few = in_place or self is not _IN_PLACE
        return self.always_dense if x.is_cpu and few else self.tile_rows(x)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    # A graph that is being compiled has products in full precision alone (`_is_fused`).
    precise = a.dtype != torch.float32 or torch.compiler.is_compiling()
    if precise or (setting := torch.get_float32_matmul_precision()) == "highest":
        return torch.matmul(a, b)
    return full_product(torch.matmul, a, b, BACKEND.xp, parts=2 if setting == "high" else 3)


def _zero_diagonal(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        index = torch.arange(x.shape[-1], device=x.device)
        return torch.where(index[:, None] == index, 0.0, x)
    return x.diagonal_scatter(torch.zeros_like(x[..., 0]), dim1=-2, dim2=-1)


def _zero_diagonal_(x: Tensor) -> Tensor:
    x.diagonal(dim1=-2, dim2=-1).zero_()
    return x


def _add_scaled(c: Tensor, a: Tensor, factor: Any) -> Tensor:
    return torch.add(c, a, alpha=factor) if isinstance(factor, float) else c + a * factor


def _add_product_(c: Tensor, a: Tensor, b: Tensor, *, alpha: Any, beta: Any) -> Tensor:
    if not isinstance(alpha, float):
        return c.mul_(beta).add_(torch.matmul(a, b).mul_(alpha))
    multiply_ = c.addmm_ if a.dim() == 2 else c.baddbmm_
    return multiply_(a, b, alpha=alpha, beta=beta)


def _laplacian_product_(w: Tensor, x: Tensor, factor: Any, linear: Any) -> tuple[Tensor, Tensor]:
    c, by = (x, 0.0) if linear is None else linear  # of a product with beta = 0.0 nothing is taken from c
    if not isinstance(factor, float) or not isinstance(by, float):
        return Namespace.laplacian_product(_IN_PLACE.xp, w, x, factor, linear)
    # On the diagonal, sums of rows take no pass over x.
    weight = w.sum(-1)
    w.diagonal(0, -2, -1).sub_(weight)
    multiply = torch.addmm if x.dim() == 2 else torch.baddbmm
    return multiply(c, w, x, beta=by, alpha=-factor), weight[..., None]


_SPELLED: dict[str, Any] = {
    "asarray": torch.as_tensor,
    "astype": lambda x, dtype, copy=True: x if x.dtype is dtype else x.to(dtype),  # noqa: ARG005
    "clamp": torch.clamp_min,
    "concat": torch.cat,
    "squares_from_product": False,  # which takes one operation more
    "take": lambda x, indices, axis: torch.index_select(x, axis, indices),
}
# For graphs, autograd and transforms, which need what stands in a tensor.
BACKEND = _TorchBackend(
    Namespace(
        torch,
        **_SPELLED,
        clamp_at_zero=torch.relu,
        matmul=_matmul,
        matrix_transpose=lambda x: x.mT,
        # In two steps the first one is fused with what makes x.
        total=lambda x: x.sum(-1).sum(-1) if torch.compiler.is_compiling() else x.sum((-2, -1)),
        zero_diagonal=_zero_diagonal,
    )
)
# For tensors that nobody else will see, of one leading axis at most: in place, with as little Python as possible.
_IN_PLACE = _TorchBackend(
    Namespace(
        torch,
        **_SPELLED,
        add_product=_add_product_,
        add_scaled=_add_scaled,
        clamp_at_zero=torch.relu_,
        inverse=torch.reciprocal_,
        laplacian_product=_laplacian_product_,
        matrix_transpose=attrgetter("mT"),
        total=lambda x: x.sum((-2, -1)),
        zero_diagonal=_zero_diagonal_,
    )
)
BACKENDS[Tensor] = BACKENDS[torch.nn.Parameter] = BACKEND


def _computing() -> _TorchBackend:
    """The backend to compute with, in a place where autograd records nothing."""
    if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling():
        return BACKEND
    return _IN_PLACE if torch.get_float32_matmul_precision() == "highest" else BACKEND


_NO_TRANSFORM = (
    "z must have a known number of rows, and few pairs, where torch.compile compiles a transform of torch.func, as an "
    "operator has none; compile what the transform is applied to, or leave this part to eager PyTorch"
)
_FORWARD_MODE = torch._C._functorch.TransformType.Jvp


def _is_fused(arguments: tuple[Any, ...]) -> bool:
    """Whether a compiler had better see operations, which it fuses: of few pairs, known to be so, in full precision."""
    x, y = arguments[:2]
    pairs = math.prod(x.shape[:-1]) * (x if y is None else y).shape[-2]
    return statically_known_true(pairs <= BACKEND.always_dense**2) and (
        x.dtype != torch.float32 or _multiplies_in_float32()
    )


@torch.compiler.assume_constant_result
def _multiplies_in_float32() -> bool:
    return torch.get_float32_matmul_precision() == "highest"


def no_autocast(x: Tensor) -> Any:
    """A context in which nothing is computed in half precision."""
    kind = x.device.type
    active = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()


def computed(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The value of a call and its gradients, contiguous as operators promise them."""
    with no_autocast(tensors[0]):
        return tuple(_own(r).contiguous() for r in call.value_and_gradients(_computing(), *tensors))


def _own(x: Tensor) -> Tensor:
    """No view: what a function returns to autograd may be changed, and may have a tangent."""
    return x.clone() if not torch.compiler.is_compiling() and x._is_view() else x


computed.__signature__ = inspect.signature(computed)  # autograd asks for it in every call


class _Value(torch.autograd.Function):
    """The value of a function. Its gradients are made with it and wait for backward: a small batch has no time to lose.

    Backward that is differentiated itself makes them anew, by a function that has derivatives of any order.
    """

    @staticmethod
    def forward(ctx: Any, f: Any, *arguments: Any) -> Any:
        if True not in ctx.needs_input_grad:
            return f.value(_computing(), *arguments)
        value, *gradients = f.value_and_gradients(_computing(), *arguments)
        ctx.f, ctx.numbers = f, [None if isinstance(a, Tensor) else a for a in arguments]
        ctx.save_for_backward(*[a if isinstance(a, Tensor) else None for a in arguments], *gradients)
        return _own(value) if value.dim() else value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        saved = ctx.saved_tensors
        tensors, gradients = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if torch.is_grad_enabled() and not BACKEND.compiling():
            arguments = [number if a is None else a for a, number in zip(tensors, ctx.numbers, strict=True)]
            call, tensors = Call.of(ctx.f, arguments)
            gradients = call.for_arguments(_ValueAndGradients.apply(call, *tensors)[1:])
        return None, *pulled_back(cotangent, gradients)


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
