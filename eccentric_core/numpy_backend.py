"""The backend of NumPy: its namespace, and the facts that need no question to the library."""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eccentric_core.backend import BACKENDS, Backend, Namespace

if TYPE_CHECKING:
    from eccentric_core.checks import Array


_REFUSED = np.matrix, np.ma.MaskedArray


class _NumPyBackend(Backend):
    always_dense: ClassVar[int] = 256

    def refusal(self, array: Array) -> str | None:
        if isinstance(array, _REFUSED):
            return f"{type(array).__name__}; make it an array first"
        return None

    def has_float64(self, x: Array) -> bool:  # noqa: ARG002
        return True

    def on_cpu(self, x: Array) -> bool:  # noqa: ARG002
        return True

    def dense_rows(self, x: Array, *, in_place: bool) -> int:
        # Of long rows the matrix products take the time, and one large one is the faster. Memory is still O(n d).
        return max(2 * int(x.shape[-1]), self.tile_rows(x)) if in_place else self.tile_rows(x)


@lru_cache(maxsize=16)
def _ones(size: int, dtype: Any) -> Any:
    """A column of ones: its products are sums, which BLAS adds up faster than NumPy does."""
    return np.ones((size, 1), dtype)


def _diagonal(t: Any) -> Any:
    """The diagonals of t as a view to write to."""
    n = t.shape[-1]
    if t.flags.c_contiguous:  # the fast way
        return t.reshape(*t.shape[:-2], n * n)[..., :: n + 1]
    return np.einsum("...ii->...i", t)


class _NumPyNamespace(Namespace):
    """NumPy's functions without the checks of arguments that come with them, and in place where that is allowed."""

    def astype(self, x: Any, dtype: Any, *, copy: bool = True) -> Any:
        return x.astype(dtype, copy=copy)

    def mean(self, x: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
        if axis != -2 or not keepdims:
            return np.mean(x, axis=axis, keepdims=keepdims)
        return np.matmul(_ones(x.shape[-2], x.dtype).T, x) * (1.0 / max(x.shape[-2], 1))

    def square_norm(self, x: Any) -> Any:
        # Short rows are the faster all at once.
        return self.total(x * x) if x.shape[-1] < 32 else np.add.reduce(np.vecdot(x, x), axis=-1)

    def sums_of_rows(self, x: Any) -> Any:
        return np.matmul(x, _ones(x.shape[-1], x.dtype))

    def squares_of_rows(self, x: Any) -> Any:
        return np.vecdot(x, x)[..., None]

    def diagonal(self, t: Any) -> Any:
        return t.diagonal(0, -2, -1)

    def clamp_at_zero(self, t: Any) -> Any:
        return np.maximum(t, 0.0, out=t)

    def zero_diagonal(self, t: Any) -> Any:
        _diagonal(t)[...] = 0.0
        return t

    def gram(self, x: Any, factor: float) -> Any:
        # Small matrices are multiplied the faster if none is transposed.
        small = x.shape[-2] * x.shape[-1] < 10_000
        return np.matmul(x, np.multiply(x.mT, factor, order="C" if small else "K"))

    def inverse(self, t: Any) -> Any:
        return np.divide(1.0, t, out=t)

    def add_scaled(self, c: Any, a: Any, factor: Any) -> Any:
        a *= factor
        c += a
        return c

    def add_product(self, c: Any, a: Any, b: Any, *, alpha: Any, beta: Any) -> Any:
        c *= beta
        c += np.matmul(a, b * alpha)
        return c

    def laplacian_product(self, w: Any, x: Any, factor: Any, linear: Any) -> Any:
        # The factor and the sums of rows, which belong to the diagonal, take no pass over x.
        weight = self.sums_of_rows(w)
        w *= -factor
        diagonal = _diagonal(w)
        diagonal += (weight * factor)[..., 0]
        product = np.matmul(w, x)
        if linear is not None:
            product += linear[0] * linear[1]
        return product, weight


BACKEND = _NumPyBackend(_NumPyNamespace(np, clamp=np.maximum, matrix_transpose=attrgetter("mT"), sum=np.add.reduce))
BACKENDS[np.ndarray] = BACKEND
