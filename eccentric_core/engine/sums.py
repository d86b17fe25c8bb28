"""The sum over pairs of any kernel, its gradient and its Hessian times a vector, as public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eccentric_core.backend import Backend, backend_of
from eccentric_core.checks import check_bandwidth, check_batch, check_pair, compute_dtype, parameter
from eccentric_core.engine.pairs import PairSum, spread

if TYPE_CHECKING:
    from eccentric_core.checks import Array, Number
    from eccentric_core.engine.kernels import PairKernel


def pair_sum(
    x: Array,
    y: Array | None = None,
    *,
    kernel: PairKernel,
    bandwidth: Number = 1.0,
    self_pairs: bool = False,
    wide: bool = False,
) -> Array:
    """The sum over pairs of phi(|x_i - y_j|^2 / h).

    Args:
        x: rows of shape (..., n, d), real floating, of any library; leading axes are separate batches.
        y: rows of shape (..., m, d) with the same leading axes, dtype and library; None for the pairs of x.
        kernel: phi; see `PairKernel`.
        bandwidth: h, a positive number or 0-d tensor in the squared units of the rows.
        self_pairs: of one set, count the pairs i = j, too (V-statistics): they add n phi(0).
        wide: keep the sums that make the gradients in float64, whatever the dtype, on devices that have it. For kernels
            whose slopes at close pairs are far above all others.

    Returns:
        An array of shape (...): the sum over all ordered pairs i != j of x, or over all i and j of x and y. float64
        for float64, otherwise float32. It has the derivatives of its framework, with respect to the rows and to a
        bandwidth that is a tensor.

    Raises:
        TypeError, ValueError: an argument is not as described.

    NaN and inf in the rows propagate to the result. Time is O(n m d), memory O((n + m) d).

    >>> import numpy as np
    >>> from eccentric_core import InverseMultiquadricKernel
    >>> x = np.asarray([[0.0], [1.0], [3.0]])
    >>> float(pair_sum(x, kernel=InverseMultiquadricKernel()))
    1.6
    >>> float(pair_sum(x, kernel=InverseMultiquadricKernel(), self_pairs=True))
    4.6
    """
    backend, bandwidth = _checked(x, y, kernel, bandwidth)
    if self_pairs and y is not None:
        raise ValueError("self_pairs must be False for two sets, whose pairs i = j count anyway")
    return backend.run(_pair_sum, x, y, bandwidth, f=PairSum(kernel, wide), self_pairs=self_pairs)


def _pair_sum(backend: Backend, x: Array, y: Array | None, bandwidth: Any, *, f: PairSum, self_pairs: bool) -> Array:
    x, y, bandwidth = _entered(backend, x, y, bandwidth)
    total = backend.differentiable(f, x, y, None, bandwidth, None, 1.0)
    if self_pairs:
        at_zero = f.kernel.value(backend.xp.zeros_like(x[..., :1, :1]), backend.xp)[..., 0, 0]
        total = total + at_zero * backend.rows(x)
    return total


def pair_sum_and_grad(
    x: Array, y: Array | None = None, *, kernel: PairKernel, bandwidth: Number = 1.0, wide: bool = False
) -> tuple[Array, ...]:
    """`pair_sum` and its gradient with respect to x, and to y where there is one, from the same sweep.

    Args:
        x, y, kernel, bandwidth, wide: as in `pair_sum`.

    Returns:
        (sum, gradient of x) or (sum, gradient of x, gradient of y); a gradient has the shape of its rows and the
        dtype of the sum.

    Raises:
        TypeError, ValueError: an argument is not as described.
    """
    backend, bandwidth = _checked(x, y, kernel, bandwidth)
    results = backend.run(_pair_sum_and_grad, x, y, bandwidth, f=PairSum(kernel, wide))
    return tuple(results)


def _pair_sum_and_grad(backend: Backend, x: Array, y: Array | None, bandwidth: Any, *, f: PairSum) -> tuple[Array, ...]:
    x, y, bandwidth = _entered(backend, x, y, bandwidth)
    return backend.value_and_gradients(f, x, y, None, bandwidth, None, 1.0)[: 2 if y is None else 3]


def pair_sum_hvp(
    x: Array,
    u: Array,
    y: Array | None = None,
    v: Array | None = None,
    *,
    kernel: PairKernel,
    bandwidth: Number = 1.0,
    wide: bool = False,
) -> tuple[Array, ...]:
    """The Hessian of `pair_sum` times a vector: the derivative of its gradients along the directions u and v.

        sum over j of (2/h) [phi'(t_ij) (u_i - v_j) + (2/h) phi''(t_ij) <x_i - y_j, u_i - v_j> (x_i - y_j)]

    Args:
        x, y, kernel, bandwidth, wide: as in `pair_sum`.
        u, v: directions of the shapes and dtypes of x and y.

    Returns:
        (derivative of the gradient of x,) and, of two sets, also that of the gradient of y.

    Raises:
        TypeError, ValueError: an argument is not as described.

    >>> import numpy as np
    >>> from eccentric_core import LogarithmicKernel
    >>> x, u = np.asarray([[0.0], [1.0]]), np.asarray([[0.0], [1.0]])
    >>> print(pair_sum_hvp(x, u, kernel=LogarithmicKernel(), bandwidth=3.0)[0].round(3))
    [[-0.5]
     [ 0.5]]
    """
    backend, bandwidth = _checked(x, y, kernel, bandwidth)
    for name, rows, direction in (("u", x, u), ("v", y, v)):
        facts, expected = ((getattr(a, "shape", None), getattr(a, "dtype", None)) for a in (direction, rows))
        if facts != expected:
            raise ValueError(
                f"{name} must have the shape and dtype of what it is a direction of, {expected}, got {facts}"
            )
    results = backend.run(_pair_sum_hvp, x, u, y, v, bandwidth, f=PairSum(kernel, wide))
    return tuple(results)


def _pair_sum_hvp(
    backend: Backend, x: Array, u: Array, y: Array | None, v: Array | None, bandwidth: Any, *, f: PairSum
) -> tuple[Array, ...]:
    u, v, _ = _entered(backend, u, v, 1.0)
    x, y, bandwidth = _entered(backend, x, y, bandwidth)
    changes = f.hvp(backend, (x, y, None, bandwidth, None, 1.0), (u, v, None, None, None, None))
    return tuple(changes[: 1 if y is None else 2])


def _checked(x: Array, y: Array | None, kernel: Any, bandwidth: Any) -> tuple[Backend, Any]:
    """The backend, and h as a number or a tensor of it. Static facts alone are checked."""
    backend = backend_of(x, "x")
    if isinstance(kernel, type):
        raise TypeError(f"kernel must be an object, got the class {kernel.__name__}; call it: {kernel.__name__}()")
    if not hasattr(kernel, "value") or not hasattr(kernel, "slope") or type(kernel).__hash__ is None:
        raise TypeError(
            f"kernel must be a hashable object with the methods value and slope, got {type(kernel).__name__}; "
            f"make it a frozen dataclass"
        )
    d = check_batch(x, "x", min_rows=1)[1]
    if y is not None:
        if backend_of(y, "y") is not backend:
            raise TypeError(f"y must be of the library of x, got {type(y).__name__} beside {type(x).__name__}")
        check_pair(x, y, d, check_batch(y, "y", min_rows=1)[1], ("x", "y"))
    bandwidth = parameter(bandwidth, "bandwidth", backend, x)
    check_bandwidth(bandwidth, compute_dtype(x, "x"), "bandwidth")
    return backend, bandwidth


def _entered(backend: Backend, x: Array, y: Array | None, bandwidth: Any) -> tuple[Array, Array | None, Any]:
    """The rows in the dtype to compute in, and one bandwidth for each of their batches."""
    xp = backend.xp
    dtype = getattr(xp, compute_dtype(x, "x"))
    x, y = (None if rows is None else xp.astype(rows, dtype, copy=False) for rows in (x, y))
    return x, y, spread(bandwidth, x, backend)
