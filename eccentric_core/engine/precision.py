"""In which dtype what is computed, and matrix products in full float32 on hardware that rounds what it multiplies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from eccentric_core.checks import Array

# A single outlier drags the mean of few rows far away from the others. Up to this many rows in all everything is
# computed in float64 where the device has it, which costs nothing; many batches of so few rows have a robust centre.
FEW_ROWS = 64

# The distance from 1 to the next number.
ROUNDOFF = {"float32": 2.0**-23, "float64": 2.0**-52}


def few(sizes: tuple[Any, ...]) -> bool:
    """Whether these sizes, (..., n), are known, and the product is that of few rows."""
    rows = sizes[-1]
    if not isinstance(rows, int) or rows > FEW_ROWS:
        return False
    return all(isinstance(size, int) for size in sizes) and math.prod(sizes) <= FEW_ROWS


def robust_centre(x: Array, xp: Any) -> Array:
    """A centre of rows of shape (..., n, d) that few outliers do not drag away, of shape (..., 1, d).

    From the mean a step to a mean with weights of about 1 / |x_i - centre|^2 (Weiszfeld's method, for a loss that grows
    as a logarithm), and a second one for so few rows that the first goes half of the way. Any point is a right one: the
    nearer it is to most rows, the less rounding there is.
    """
    centre = xp.mean(x, axis=-2, keepdims=True)
    for _ in range(2 if x.shape[-2] < 4 else 1):
        c = x - centre
        square = xp.squares_of_rows(c)
        weight = xp.reciprocal(square + (1e-3 * xp.mean(square, axis=-2, keepdims=True) + 1e-30))
        step = xp.matmul(xp.matrix_transpose(weight), c) / xp.sum(weight, axis=-2, keepdims=True)
        centre = centre + xp.where(xp.isfinite(step), step, xp.zeros_like(step))  # squares may overflow
    return centre


def full_product(matmul: Callable[[Array, Array], Array], a: Array, b: Array, xp: Any, *, parts: int) -> Array:
    """A matrix product in full float32 where the hardware rounds what it multiplies.

    Args:
        matmul: a product of float32 arrays that are rounded to TF32 (11 bits) or to bfloat16 (8 bits) and summed in
            float32.
        a, b: float32 arrays.
        xp: the array namespace.
        parts: 2 for TF32, 3 for bfloat16. Each number becomes a sum of so many that rounding leaves as they are, and of
            the products of these, parts (parts + 1) / 2 count.
    """
    # Veltkamp's splitting: 24 bits into 11 and the rest, or into 8, 8 and the rest.
    factor = 2.0**13 + 1.0 if parts == 2 else 2.0**16 + 1.0

    def split(x: Array) -> list[Array]:
        pieces = []
        for _ in range(parts - 1):
            scaled = x * factor
            high = scaled - (scaled - x)
            # What is too large to scale, and what is not finite, stays whole.
            high = xp.where(xp.isfinite(high), high, x)
            pieces.append(high)
            x = xp.where(xp.isfinite(x), x - high, xp.zeros_like(x))
        return [*pieces, x]

    rights = split(b)
    products = [matmul(left, right) for i, left in enumerate(split(a)) for right in rights[: parts - i]]
    # The smallest first.
    return sum(reversed(products[:-1]), start=products[-1])
