"""Eccentric regularization for PyTorch: with autograd, torch.func, torch.compile and torch.distributed.

eccentric_loss    the loss of a batch of latent vectors
EccentricLoss     the same as a module
pair_sum          the sum over pairs that it is made of, for any kernel of `eccentric_core`

inverse_multiquadric_mmd    the discrepancy between a batch and a sample of a prior, that of WAE-MMD

hyperspherical_energy       the energy of directions, of MHE, for weights and features; uniformity
compressive_energy          the energy of projected neurons, of CoMHE; CompressiveEnergy, the module that learns,
                            init_projection and update_projection, its functions
HypersphericalRegularizer   what MHE or CoMHE adds to the loss of a network
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eccentric_core.checks import check_mu, check_scale, compute_dtype
from eccentric_core.energies.discrepancy import SCALES, discrepancy, mixture
from eccentric_core.energies.eccentric import eccentric_energy
from eccentric_core.engine.pairs import PairSum, check_sets
from eccentric_torch import _compiled, _engine
from eccentric_torch._hyperspherical import (
    CompressiveEnergy,
    HypersphericalRegularizer,
    compressive_energy,
    hyperspherical_energy,
    init_projection,
    uniformity,
    update_projection,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eccentric_core import PairKernel

__all__ = [
    "CompressiveEnergy",
    "EccentricLoss",
    "HypersphericalRegularizer",
    "compressive_energy",
    "eccentric_loss",
    "hyperspherical_energy",
    "init_projection",
    "inverse_multiquadric_mmd",
    "pair_sum",
    "uniformity",
    "update_projection",
]


def eccentric_loss(
    z: Tensor, mu: float = 1.0, *, scale: Any = "paper", group: torch.distributed.ProcessGroup | None = None
) -> Tensor:
    """The eccentric loss of a batch of latent vectors, `eccentric_core.eccentric_loss` for PyTorch.

    Args:
        z: latent vectors of shape (..., n, d), real floating, of any strides; leading axes are separate batches.
        mu: the parameter mu > 1/2, a Python number.
        scale: "paper", "exact", or M itself, a Python number.
        group: processes over which the rows of a batch are spread, as many in each: every process then has the loss,
            and its rows their gradient, of the whole batch.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32, under autocast too.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    if group is None and torch.compiler.is_compiling():
        return _compiled.loss(z, mu, scale)
    # Of a batch that is spread over processes one row may be here.
    shared = group is not None and torch.distributed.get_world_size(group) > 1
    energy = eccentric_energy(z, mu, scale, _engine.DRIVER, min_rows=1 if shared else 2)
    z = z.to(getattr(torch, compute_dtype(z, "z")))
    if not shared:
        return _engine.apply(energy, z)
    from eccentric_torch._distributed import gather, reduce

    everyone = gather(z, group)
    return reduce(energy.combined(z, _engine.apply(energy.pairs, z, everyone), everyone.shape[-2]), group)


def pair_sum(x: Tensor, y: Tensor | None = None, *, kernel: PairKernel, wide: bool = False) -> Tensor:
    """The sum over pairs of phi(|x_i - y_j|^2 / h), `eccentric_core.pair_sum` for PyTorch, with its derivatives.

    Args:
        x, y: rows of shapes (..., n, d) and (..., m, d), or y None for the pairs of x.
        kernel: phi with its derivatives and h; hashable, and its repr tells it from others.
        wide: keep the sums that make the gradients in float64 on devices that have it.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling:
        check_sets((x,) if y is None else (x, y), kernel)
    x, y = (
        rows if rows is None else rows.to(getattr(torch, compute_dtype(rows, name)))
        for name, rows in (("x", x), ("y", y))
    )
    if compiling:
        return _compiled.pair_sum(x, y, kernel, wide)
    return _engine.apply(PairSum(kernel, _engine.DRIVER, None, wide), x, y)


def inverse_multiquadric_mmd(
    z: Tensor, prior: Tensor, *, scales: Sequence[float] = SCALES, prior_variance: float = 1.0
) -> Tensor:
    """The discrepancy of WAE-MMD, `eccentric_core.inverse_multiquadric_mmd` for PyTorch, with its derivatives.

    Args:
        z, prior: rows of shapes (..., n, d) and (..., m, d), n and m >= 2.
        scales: positive numbers.
        prior_variance: of one coordinate of the prior.

    Returns:
        A tensor of shape (...): float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    if torch.compiler.is_compiling():
        return discrepancy(z, prior, _compiled.mmd_sums(scales, prior_variance), _engine.DRIVER)
    kernel = mixture((z, prior), scales, prior_variance)
    return discrepancy(z, prior, partial(pair_sum, kernel=kernel, wide=True), _engine.DRIVER)


class EccentricLoss(nn.Module):
    """`eccentric_loss` as a module without state.

    Args:
        mu, scale: as in `eccentric_loss`.
    """

    def __init__(self, mu: float = 1.0, scale: Any = "paper") -> None:
        super().__init__()
        check_scale(scale)
        self.mu, self.scale = check_mu(mu), scale

    def forward(self, z: Tensor) -> Tensor:
        """The loss of z."""
        return eccentric_loss(z, self.mu, scale=self.scale)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"mu={self.mu:g}, scale={self.scale!r}"
