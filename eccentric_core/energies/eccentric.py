"""The eccentric loss, its gradient, its kernel and its force."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eccentric_core.backend import Backend, backend_of
from eccentric_core.checks import (
    check_bandwidth,
    check_batch,
    check_mu,
    compute_dtype,
    dim_array,
    dtype_name,
    mu_array,
    nonnegative_array,
    parameter,
)
from eccentric_core.engine.kernels import LogarithmicKernel
from eccentric_core.engine.pairs import PairSum, PlainSum, mean_weights, spread
from eccentric_core.theory.scale import cached_scale, check_scale, paper_scale, resolve_scale, traced_scale

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from eccentric_core.checks import Array, Floats, Number, Scale

# With a large mu the kernel is local: the slope of a coincident pair, 1, is far above that of a typical one, about
# 1/(2 mu). Rounding of the large one would then cost up to mu 1e-6 of a float32 gradient, so its sums are kept in
# float64 from this mu on, and for a mu that is a tensor.
_WIDE_ABOVE = 4.0
# Types of mu and scale with which a check is remembered.
_PLAIN = (float, int, str)


def eccentric_loss(z: Array, mu: Number = 1.0, *, scale: Scale = "paper", group: Any = None) -> Array:
    """The eccentric loss of a batch of latent vectors.

        l = mean_i |z_i|^2 - mu M / (n (n-1)) sum_{i != j} log(1 + |z_i - z_j|^2 / M)

    It draws every vector to the origin and makes every pair repel. Minimised alone it puts the batch on a sphere of
    radius about sqrt(d); add it to another loss with a weight: `loss = reconstruction + lam * eccentric_loss(z)`. A
    well-spread batch has a negative loss; `loss_floor` is the lower bound for its size.

    Args:
        z: latent vectors of shape (..., n, d) with n >= 2: an array or tensor of NumPy, PyTorch, JAX, TensorFlow, MLX
            or another library that follows the array API standard. Leading axes are separate batches. d >= 2, or
            d >= 1 where scale is a number.
        mu: the parameter mu > 1/2, a number or a 0-d tensor. 1 spreads the batch on a global scale, d + 1/2 on a local
            scale too.
        scale: "paper" for the M of the paper, "exact" for the M at which the radius is sqrt(d), or M itself, a number
            or a 0-d tensor.
        group: what the rows of the batch are spread over: a `torch.distributed` process group, or the name of an axis
            of `jax.shard_map`, equally many rows in each. Every process then has the loss of the whole batch, and its
            rows their gradient. None: all rows are here.

    Returns:
        An array of shape (...), 0-d for one batch: float64 for float64, float32 for float32, float16 and bfloat16. It
        has the derivatives of its framework with respect to z, and to mu and M where they are tensors.

    Raises:
        TypeError, ValueError: an argument is not as described. Only static facts are checked: the values of tensors
            are not, and NaN and inf propagate to the result.

    Time is O(n^2 d), memory O(n d). Every |z_i - z_j|^2 / M is exact up to 32 eps max |z - mean|^2 / M, where eps is
    that of the dtype: within far clusters that costs digits (docs/numerics.md).

    Source: equation 1 of the paper.

    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> float(eccentric_loss(z).round(4))
    -2.8844
    """
    backend, mu, scale, static, plain = _checked(z, mu, scale, group)
    if plain is not None:
        return backend.run(_plain_loss, z, f=plain)
    return backend.run(_loss, z, mu, scale, static=static, group=group)


def _plain_loss(backend: Backend, z: Array, *, f: PlainSum) -> Array:
    return backend.differentiable(f, z)


def _loss(backend: Backend, z: Array, mu: Any, scale: Any, *, static: _Static, group: Any) -> Array:
    z, scale = _entered(backend, z, mu, scale, static)
    everyone = None if group is None else backend.gather(z, group)
    loss = backend.differentiable(static.f, *_arguments(backend, z, everyone, mu, scale))
    return loss if group is None else backend.total(loss, group)


def eccentric_loss_and_grad(z: Array, mu: Number = 1.0, *, scale: Scale = "paper") -> tuple[Array, Array]:
    """The eccentric loss and its gradient with respect to z, from one sweep over the pairs.

        dl/dz_i = (2/n) z_i - 4 mu / (n (n-1)) sum_j (z_i - z_j) / (1 + |z_i - z_j|^2 / M)

    Args, Raises: as `eccentric_loss`.

    Returns:
        (loss, gradient): the loss as in `eccentric_loss`; the gradient of the shape and the dtype of z, of every batch
        for itself. No derivatives go through them.

    >>> z = np.random.default_rng(0).standard_normal((100, 8))
    >>> loss, grad = eccentric_loss_and_grad(z)
    >>> bool(loss == eccentric_loss(z)), grad.shape
    (True, (100, 8))
    """
    backend, mu, scale, static, plain = _checked(z, mu, scale)
    if plain is None:
        loss, grad = backend.run(_loss_and_grad, z, mu, scale, static=static)
    else:
        loss, grad = backend.run(_plain_loss_and_grad, z, f=plain)
    return loss, grad


def _plain_loss_and_grad(backend: Backend, z: Array, *, f: PlainSum) -> tuple[Any, ...]:
    return backend.value_and_gradients(f, z)


def _loss_and_grad(backend: Backend, z: Array, mu: Any, scale: Any, *, static: _Static) -> tuple[Array, Array]:
    dtype = z.dtype
    z, scale = _entered(backend, z, mu, scale, static)
    loss, grad, *_ = backend.value_and_gradients(static.f, *_arguments(backend, z, None, mu, scale))
    return loss, backend.xp.astype(grad, dtype, copy=False)


def _arguments(backend: Backend, z: Array | _Facts, everyone: Array | None, mu: Any, scale: Any) -> tuple[Any, ...]:
    """Equation 1 as a `PairSum`: the pairs of z, or those of z and the rows of all processes."""
    by_rows, by_pairs = mean_weights(backend.rows(z if everyone is None else everyone), backend)
    numbers = scale, by_rows, mu * scale * -by_pairs
    if len(z.shape) > 2:
        numbers = tuple(spread(number, z, backend) for number in numbers)
    return z, everyone, None, *numbers


def pair_kernel(x: Array, y: Array, mu: Number = 1.0, *, scale: Scale = "paper") -> Array:
    """The kernel K of which the loss is the mean over pairs.

        K(x, y) = (|x|^2 + |y|^2) / 2 - mu M log(1 + |x - y|^2 / M)

    Args:
        x, y: vectors of shape (..., d) of one library that broadcast against each other: x[:, None, :] and
            y[None, :, :] give the matrix of all pairs.
        mu, scale: as in `eccentric_loss`.

    Returns:
        An array of the broadcast shape without its last axis, float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: equation 1 of the paper.

    >>> float(pair_kernel(np.asarray([0.0, 1.0]), np.asarray([1.0, 0.0]), 1.0, scale=2.0).round(6))
    -0.386294
    """
    backend = backend_of(x, "x")
    for name, rows in (("x", x), ("y", y)):
        if backend_of(rows, name) is not backend or len(rows.shape) < 1:
            raise TypeError(f"{name} must be an array of shape (..., d) of the library of x, got {rows!r}")
    if x.shape[-1] != y.shape[-1] or compute_dtype(x, "x") != compute_dtype(y, "y"):
        raise ValueError(
            f"x and y must have the same dimension and dtype, "
            f"got {tuple(x.shape)} {x.dtype} and {tuple(y.shape)} {y.dtype}"
        )
    if x.shape[-1] < (2 if isinstance(scale, str) else 1):
        raise ValueError(
            f"x and y must have at least 2 dimensions, got d={x.shape[-1]}; with d=1 give scale as a number"
        )
    mu, scale, method = _parameters(backend, x, x.shape[-1], mu, scale)
    return backend.run(_pair_kernel, x, y, mu, scale, method=method)


def _pair_kernel(backend: Backend, x: Array, y: Array, mu: Any, scale: Any, *, method: str | None) -> Array:
    x, y = (backend.xp.astype(rows, getattr(backend.xp, compute_dtype(rows, "x")), copy=False) for rows in (x, y))
    scale = scale if method is None else traced_scale(x, mu, method, backend)
    squares = backend.xp.sum(x * x, axis=-1) + backend.xp.sum(y * y, axis=-1)
    difference = x - y
    distance = backend.xp.sum(difference * difference, axis=-1)
    return squares * 0.5 - backend.xp.log1p(distance / scale) * (mu * scale)


def repulsive_force(
    distance: ArrayLike, dim: ArrayLike, mu: ArrayLike = 1.0, *, scale: Scale | ArrayLike = "paper"
) -> np.float64 | Floats:
    """The magnitude of the repulsive force between two items at a distance r: 2 mu r / (1 + r^2 / M).

    It grows up to r = sqrt(M), where it is mu sqrt(M), and falls beyond.

    Args:
        distance: r >= 0 in the units of the latents; any shape. NaN passes through.
        dim, mu: the latent dimension d >= 2 and mu > 1/2; any shapes that broadcast.
        scale: "paper", "exact", or M itself.

    Returns:
        float64 of the broadcast shape, without overflow at any distance.

    Raises:
        TypeError, ValueError: an argument is not as described.

    Source: section 2 and Figure 2 of the paper.

    >>> print(repulsive_force([0.0, 1.0, 1e200], 64).round(6))
    [0.       1.984617 0.      ]
    """
    r, d, m = nonnegative_array(distance, "distance"), dim_array(dim), mu_array(mu)
    r, d, m = np.broadcast_arrays(r, d, m)
    root = np.sqrt(resolve_scale(d, m, scale))
    with np.errstate(divide="ignore", over="ignore"):  # 0 and infinity are as good as any other distance
        s = r / root
        return (2.0 * m * root / (s + 1.0 / s))[()]


class _Static(NamedTuple):
    """What a compiled formula depends on beside arrays and numbers."""

    dtype: str | None  # to convert the rows to
    method: str | None  # by which M is computed from a mu that is a tensor
    f: PairSum


class _Facts(NamedTuple):
    """What is checked of an array."""

    shape: tuple[Any, ...]
    dtype: Any


def _checked(z: Array, mu: Any, scale: Any, group: Any = None) -> tuple[Backend, Any, Any, _Static, PlainSum | None]:
    """Mu, M, what is static, and the loss of a plain batch, from arguments that are checked by static facts alone."""
    backend = backend_of(z)
    # Of a batch that is spread over processes one row may be here.
    min_rows = 2 if group is None else 1
    if type(mu) in _PLAIN and type(scale) in _PLAIN and not backend.compiling():
        try:
            return _remembered(backend, tuple(z.shape), z.dtype, mu, scale, min_rows)
        except TypeError:  # a symbol cannot be remembered; another error comes again
            pass
    return *_checked_facts(backend, z, mu, scale, min_rows), None


def _checked_facts(
    backend: Backend, z: Array | _Facts, mu: Any, scale: Any, min_rows: int
) -> tuple[Backend, Any, Any, _Static]:
    _, d = check_batch(z, min_rows=min_rows, min_dim=2 if isinstance(scale, str) else 1)
    mu, scale, method = _parameters(backend, z, d, mu, scale)
    # Not a comparison's result: of a number that a compiler traces that would be no constant.
    wide = False if isinstance(mu, float) and mu <= _WIDE_ABOVE else True  # noqa: SIM211
    dtype = compute_dtype(z, "z")
    other = None if dtype == dtype_name(z) else dtype
    return backend, mu, scale, _Static(other, method, PairSum(LogarithmicKernel(), wide))


@lru_cache(maxsize=256)
def _remembered(
    backend: Backend, shape: tuple[int, ...], dtype: Any, mu: Any, scale: Any, min_rows: int
) -> tuple[Backend, Any, Any, _Static, PlainSum | None]:
    """The same: the same batch comes again and again in training, and checks are a part of the time of a small one."""
    facts = _Facts(shape, dtype)
    _, mu, scale, static = _checked_facts(backend, facts, mu, scale, min_rows)
    plain = None
    if backend.always_dense and min_rows == 2 and static.dtype is None:  # all rows are here and need no conversion
        _, _, _, *numbers = _arguments(backend, facts, None, mu, scale)
        plain = PlainSum.of(static.f, backend, shape, *numbers)
    return backend, mu, scale, static, plain


def _parameters(backend: Backend, z: Array, d: Any, mu: Any, scale: Any) -> tuple[Any, Any, str | None]:
    """Mu and M, each a number or a tensor; where M follows from a tensor it is None, and its method the third."""
    mu = parameter(mu, "mu", backend, z)
    check_mu(mu)
    dtype = compute_dtype(z, "z")
    if scale is None or isinstance(scale, bool):
        check_scale(scale)
    if isinstance(scale, str):
        check_scale(scale)
        if not isinstance(mu, float) or (scale == "exact" and backend.compiling()):
            return mu, None, scale
        scale = paper_scale(d, mu) if scale == "paper" else cached_scale(d, mu, scale)
    else:
        scale = parameter(scale, "scale", backend, z)
        if isinstance(scale, float):
            check_scale(scale)
    check_bandwidth(scale, dtype, "scale (M)")
    check_bandwidth(mu * scale if isinstance(mu, float) else scale, dtype, "mu times scale (mu M)")
    return mu, scale, None


def _entered(backend: Backend, z: Array, mu: Any, scale: Any, static: _Static) -> tuple[Array, Any]:
    """The rows in the dtype to compute in, and M."""
    if static.dtype is not None:
        z = backend.xp.astype(z, getattr(backend.xp, static.dtype))
    return z, scale if static.method is None else traced_scale(z, mu, static.method, backend)
