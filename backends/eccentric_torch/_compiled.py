"""The engine for `torch.compile`: operators, which it leaves whole for every size of batch.

An operator takes tensors, numbers and texts. It returns the gradients beside the energy; rules for forward mode and
second derivatives are left out, as compiled graphs have no use for them.
"""

from __future__ import annotations

import math
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eccentric_core.checks import check_batch, check_mu, check_scale, compute_dtype
from eccentric_core.energies.discrepancy import mixture
from eccentric_core.energies.eccentric import eccentric_energy
from eccentric_core.energies.hyperspherical import Riesz, gaussian_energy, riesz_energy
from eccentric_core.engine.pairs import PairSum, check_sets
from eccentric_core.engine.sweep import Namespace
from eccentric_torch import _engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core import PairKernel
    from eccentric_core.energies.projections import LearnedProjection
    from eccentric_core.engine.pairs import Energy


def _riesz(sets: Sequence[Tensor], numbers: list[float], **flags: Any) -> Energy:
    check_batch(sets[0], "w")
    s, eps = numbers
    return riesz_energy(
        compute_dtype(sets[0], "w"), Riesz(s, eps=None if math.isnan(eps) else eps, **flags), _engine.DRIVER
    )


def _riesz_name(half_space: bool, angular: bool, normalization: str) -> str:
    return f"hyperspherical{' half-space' * half_space}{' angular' * angular} {normalization}"


# For what surrounds an operator: no graph may ask for the precision of products.
XP = Namespace(_engine.XP, matmul=torch.matmul)

# Energies by the names that operators know them by: functions of the sets, which they check, and of numbers.
_SUMS: dict[str, Callable[..., Energy]] = {
    "mmd": lambda sets, numbers: PairSum(mixture(sets, numbers[1:], numbers[0]), _engine.DRIVER, wide=True),
    "uniformity": lambda sets, numbers: gaussian_energy(sets[0], numbers[0], _engine.DRIVER),
    **{
        _riesz_name(*flags): partial(_riesz, half_space=flags[0], angular=flags[1], normalization=flags[2])
        for flags in product((False, True), (False, True), ("paper", "official"))
    },
}


def loss(z: Tensor, mu: float, scale: Any) -> Tensor:
    """The loss, in a graph that is being compiled."""
    # What is neither a text nor a number becomes one that the check refuses.
    number = float(scale) if type(scale) in (int, float) else math.nan
    method, number = (scale, 0.0) if isinstance(scale, str) else ("", number)
    if torch.is_grad_enabled() and z.requires_grad:
        return _differentiable_loss(z, mu, method, number)[0]
    return _loss(z, mu, method, number)


def pair_sum(x: Tensor, y: Tensor | None, kernel: PairKernel, wide: bool) -> Tensor:
    """The sum over pairs, in a graph that is being compiled."""
    return _named_sum(x, y, _name_of(kernel, wide), [])


def mmd_sums(scales: Any, prior_variance: float) -> Callable[..., Tensor]:
    """The sums over pairs of `inverse_multiquadric_mmd`, whose kernel depends on a dimension that may be a symbol."""
    # Multiplied here, numbers that are symbols belong to the whole graph and not to the first operator alone.
    numbers = [1.0 * number for number in (prior_variance, *scales)]
    return lambda x, y=None: _named_sum(x, y, "mmd", numbers)


def hyperspherical(w: Tensor, which: Riesz) -> Tensor:
    """The hyperspherical energy of rows."""
    return _named_sum(w, None, *_named_riesz(which))


def _named_riesz(which: Riesz) -> tuple[str, list[float]]:
    """The name of an energy and its numbers."""
    name = _riesz_name(which.half_space, which.angular, which.normalization)
    if name not in _SUMS:
        _refuse(which.half_space, which.angular, which.normalization)
    return name, [1.0 * which.s, math.nan if which.eps is None else 1.0 * which.eps]


def next_matrix(projection: LearnedProjection, w: Tensor, which: Riesz) -> Tensor:
    """P after its gradient steps for one step of training, in a graph that is being compiled."""
    matrix, rule = projection.matrix.to(w.dtype), projection.rule
    for _ in range(rule.steps):
        matrix = rule.step(matrix, w, _Named(*_named_riesz(which)), XP)
    return matrix.to(projection.matrix.dtype)


class _Named:
    """An energy by its name, with its gradient from one operator."""

    def __init__(self, name: str, numbers: list[float]) -> None:
        self.name, self.numbers = name, numbers

    def value_and_gradients(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.eccentric.pair_sum_and_grad(x, None, self.name, self.numbers)


def gaussian(z: Tensor, t: float) -> Tensor:
    """The mean of which uniformity is the log."""
    return _named_sum(z, None, "uniformity", [1.0 * t])


def _named_sum(x: Tensor, y: Tensor | None, name: str, numbers: list[float]) -> Tensor:
    y = y.clone() if y is x else y  # a compiled function takes every tensor once
    if torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad)):
        return _differentiable_sum(x, y, name, numbers)[0]
    return _sum(x, y, name, numbers)


@torch.compiler.assume_constant_result
def _refuse(*flags: Any) -> None:
    riesz_energy("float64", Riesz(2.0, *flags), _engine.DRIVER)


@torch.compiler.assume_constant_result
def _name_of(kernel: PairKernel, wide: bool) -> str:
    return _registered(kernel, wide)


@cache
def _registered(kernel: PairKernel, wide: bool) -> str:
    name = f"{type(kernel).__module__}.{kernel!r}, wide={wide}"
    energy = PairSum(kernel, _engine.DRIVER, None, wide)

    def checked(sets: Sequence[Tensor], _: list[float]) -> PairSum:
        check_sets(sets, kernel)
        return energy

    _SUMS[name] = checked
    return name


def _evaluate_loss(z: Tensor, mu: float, method: str, number: float) -> Tensor:
    energy = eccentric_energy(z, mu, method or number, _engine.DRIVER)
    return _engine.value(z, None, energy)


def _evaluate_loss_and_grad(z: Tensor, mu: float, method: str, number: float) -> tuple[Tensor, Tensor]:
    energy = eccentric_energy(z, mu, method or number, _engine.DRIVER)
    value, gradient, _ = _engine.value_and_gradients(z, None, energy)
    return value, gradient.to(z.dtype)


def _evaluate_sum(x: Tensor, y: Tensor | None, name: str, numbers: list[float]) -> Tensor:
    return _engine.value(x, y, _named(x, y, name, numbers))


def _evaluate_sum_and_gradients(
    x: Tensor, y: Tensor | None, name: str, numbers: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    return _engine.value_and_gradients(x, y, _named(x, y, name, numbers))


def _named(x: Tensor, y: Tensor | None, name: str, numbers: list[float]) -> Energy:
    return _SUMS[name]((x,) if y is None else (x, y), numbers)


def _shape_of_loss(z: Tensor, mu: float, method: str, number: float) -> Tensor:
    check_batch(z, min_dim=2 if method else 1)
    check_mu(mu)
    check_scale(method or number)
    return z.new_empty(z.shape[:-2], dtype=getattr(torch, compute_dtype(z, "z")))


def _shape_of_sum(x: Tensor, y: Tensor | None, name: str, numbers: list[float]) -> Tensor:
    _named(x, y, name, numbers)
    return x.new_empty(x.shape[:-2])


def _shape_of_sum_and_gradients(
    x: Tensor, y: Tensor | None, name: str, numbers: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    of_y = x.new_empty(0) if y is None else y.new_empty(y.shape)
    return _shape_of_sum(x, y, name, numbers), x.new_empty(x.shape), of_y


def _operator(name: str, function: Callable[..., Any], shape_of: Callable[..., Any]) -> Any:
    operator = torch.library.custom_op(f"eccentric::{name}", function, mutates_args=())
    operator.register_fake(shape_of)
    return getattr(torch.ops.eccentric, name).default


def _differentiable(operator: Any, count: int) -> Any:
    """An operator of that many arguments that returns a value and its gradients with respect to the first of them."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return operator(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004
            ctx.save_for_backward(*output[1:])

        @staticmethod
        def backward(ctx: Any, of_value: Tensor, *_: Any) -> Any:
            gradients = ctx.saved_tensors
            products = [(of_value[..., None, None] * g).to(g.dtype) if g.ndim > 1 else None for g in gradients]
            return *products, *[None] * (count - len(products))

    return Function.apply


_loss = _operator("loss", _evaluate_loss, _shape_of_loss)
_sum = _operator("pair_sum", _evaluate_sum, _shape_of_sum)
_differentiable_loss = _differentiable(
    _operator(
        "loss_and_grad", _evaluate_loss_and_grad, lambda z, *args: (_shape_of_loss(z, *args), z.new_empty(z.shape))
    ),
    4,
)
_differentiable_sum = _differentiable(
    _operator("pair_sum_and_grad", _evaluate_sum_and_gradients, _shape_of_sum_and_gradients), 4
)
