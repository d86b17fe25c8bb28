"""The objectives, written once for every framework, with the functions of `eccentric_core`.

loss = mean squared error per pixel + lam * penalty

eccentric   the eccentric loss of the latent vectors (equation 1 of the paper)
wae         the inverse multiquadric discrepancy between the latent vectors and a normal sample (Tolstikhin et
            al., 2018)
vae         the divergence of the Gaussian posterior from the normal prior, summed over dimensions (Kingma and
            Welling, 2014); the decoder gets a sample of the posterior
none        no penalty: a plain autoencoder
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from eccentric_core import eccentric_loss, inverse_multiquadric_mmd
from eccentric_core.backend import backend_of
from eccentric_core.checks import check_mu
from eccentric_core.theory.scale import check_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

Kind = Literal["eccentric", "wae", "vae", "none"]


class Terms(NamedTuple):
    """The terms of the loss, scalars, and the latent vectors given to the decoder, (n, d)."""

    reconstruction: Any
    penalty: Any
    latents: Any


@dataclass(frozen=True)
class Objective:
    """The penalty on the latent space and its weight.

    Args:
        kind: the name of the penalty.
        lam: its weight.
        mu, scale: of the eccentric loss.
    """

    kind: Kind = "eccentric"
    lam: float = 1e-3
    mu: float = 1.0
    scale: str | float = "paper"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"objective must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if not 0 <= self.lam < float("inf"):
            raise ValueError(
                f"lam must be a finite number, 0 or more, got {self.lam!r}; it is the weight of the penalty"
            )
        check_mu(float(self.mu))
        check_scale(self.scale)

    @property
    def codes_per_dim(self) -> int:
        """The numbers in a code for each latent dimension."""
        return 2 if self.kind == "vae" else 1

    def noise(self, rng: np.random.Generator, count: int, dim: int) -> np.ndarray | None:
        """The standard normal numbers (count, dim) that a step needs: a sample of the prior, or of the posterior."""
        return rng.standard_normal((count, dim)) if self.kind in ("wae", "vae") else None

    def loss(
        self, encode: Callable[[Any], Any], decode: Callable[[Any], Any], images: Any, noise: Any
    ) -> tuple[Any, Terms]:
        """The loss of a batch, a scalar, and its terms."""
        code = encode(images)
        xp = backend_of(code, "code").xp
        z, penalty = self._penalty(code, noise, xp)
        error = decode(z) - images
        reconstruction = xp.mean(error * error, axis=None)
        return reconstruction + self.lam * penalty, Terms(reconstruction, penalty, z)

    def _penalty(self, code: Any, noise: Any, xp: Any) -> tuple[Any, Any]:
        """The latent vectors of a code, and their penalty."""
        match self.kind:
            case "eccentric":
                return code, eccentric_loss(code, self.mu, scale=self.scale)
            case "wae":
                return code, inverse_multiquadric_mmd(code, noise)
            case "vae":
                dim = code.shape[1] // 2
                mean, log_variance = code[:, :dim], code[:, dim:]
                divergence = 0.5 * (mean * mean + xp.exp(log_variance) - 1.0 - log_variance)
                z = mean + xp.exp(0.5 * log_variance) * noise
                return z, xp.mean(xp.sum(divergence, axis=1), axis=None)
            case "none":
                return code, 0.0 * xp.mean(code, axis=None)
