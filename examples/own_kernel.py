"""A kernel of your own, in every framework: a frozen dataclass with phi and its first two derivatives.

    python examples/own_kernel.py

The sum over pairs of phi(|x_i - x_j|^2 / h) then has the derivatives of the framework, also second ones, in O(n d)
memory. A kernel knows no bandwidth: h is an argument of `pair_sum`, a number or a 0-d tensor.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch

from eccentric_core import pair_sum


@dataclass(frozen=True)
class RationalQuadraticKernel:
    """phi(t) = (1 + t/alpha)^(-alpha): a Gaussian for large alpha, an inverse multiquadric for alpha = 1."""

    alpha: float

    def value(self, t: Any, xp: Any) -> Any:
        """phi(t), by functions of the namespace xp of the framework."""
        return xp.exp(-self.alpha * xp.log1p(t / self.alpha))

    def slope(self, t: Any, xp: Any) -> Any:
        """phi'(t)."""
        return -self.value(t, xp) / (1.0 + t / self.alpha)

    def second_derivative(self, t: Any, xp: Any) -> Any:
        """phi''(t); only second derivatives of the sum ask for it."""
        return (1.0 + 1.0 / self.alpha) * self.value(t, xp) / (1.0 + t / self.alpha) ** 2


kernel = RationalQuadraticKernel(2.0)
rows = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)

x = torch.tensor(rows, requires_grad=True)
total = pair_sum(x, kernel=kernel, bandwidth=8.0)
total.backward()

value, grad = jax.value_and_grad(lambda x: pair_sum(x, kernel=kernel, bandwidth=8.0))(jax.numpy.asarray(rows))

difference = np.max(np.abs(x.grad.numpy() - np.asarray(grad))) / np.max(np.abs(grad))
print(f"PyTorch {total.item():.2f}, JAX {value:.2f}; gradients within {difference:.0e} of each other")
assert difference < 1e-5
