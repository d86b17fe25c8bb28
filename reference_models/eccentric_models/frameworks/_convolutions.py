"""Convolutions in JAX: XLA's own, and as matrix products for CPUs.

On a CPU XLA computes the gradients of strided and transposed convolutions by loops that are ten times slower than a
product. The products compute several neighbouring outputs at once, as narrow matrix products are slow on a CPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# The target number of columns of a product.
_WIDTH = 64

_AXES = ("NHWC", "HWIO", "NHWC")


def _by_products(x: jax.Array, kernel: jax.Array, *, stride: int, padding: tuple[int, int]) -> jax.Array:
    """`convolve` as one matrix product.

    Each row of the product makes `t` neighbouring outputs of one image row from a strip of
    `blocks` blocks of `t * stride` columns: all strips are whole, contiguous pieces of `x`.
    """
    (n, h, w, c), (kh, kw, _, out), start = x.shape, kernel.shape, padding[0]
    oh, ow = (h + sum(padding) - kh) // stride + 1, (w + sum(padding) - kw) // stride + 1
    strips = -(-ow // max(1, min(ow, _WIDTH // out)))
    t = -(-ow // strips)
    strips = -(-ow // t)
    width = t * stride
    blocks = -(-((t - 1) * stride + kw) // width)
    rows, columns = -(-((oh - 1) * stride + kh) // stride) * stride, (strips + blocks - 1) * width
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), (start, rows - h - start, 0), (start, columns - w - start, 0), (0, 0, 0)])
    x = x.reshape(n, rows // stride, stride, strips + blocks - 1, width * c)
    patches = jnp.concatenate(
        [x[:, i // stride : i // stride + oh, i % stride, j : j + strips] for i in range(kh) for j in range(blocks)],
        axis=-1,
    )
    kernel = kernel.transpose(3, 0, 1, 2)
    shifts = [(stride * j, blocks * width - kw - stride * j, 0) for j in range(t)]
    none = (0, 0, 0)
    band = jnp.stack([lax.pad(kernel, jnp.zeros((), kernel.dtype), [none, none, s, none]) for s in shifts])
    y = patches.reshape(-1, patches.shape[-1]) @ band.reshape(t * out, -1).T
    return y.reshape(n, oh, strips * t, out)[:, :, :ow]


def _transposed_by_products(x: jax.Array, kernel: jax.Array, *, stride: int, crop: tuple[int, int]) -> jax.Array:
    """`convolve_transposed` as a convolution of stride 1 that makes stride x stride outputs, shuffled into place."""
    (n, h, w, _), (kh, kw, c, out), s = x.shape, kernel.shape, stride
    m = -(-max(kh, kw) // s)
    kernel = jnp.pad(kernel, [(0, m * s - kh), (0, m * s - kw), (0, 0), (0, 0)]).reshape(m, s, m, s, c, out)
    kernel = kernel[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5).reshape(m, m, c, s * s * out)
    y = _by_products(x, kernel, stride=1, padding=(m - 1, m - 1))
    y = y.reshape(n, h + m - 1, w + m - 1, s, s, out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(n, s * (h + m - 1), s * (w + m - 1), out)
    return y[:, crop[0] : s * (h - 1) + kh - crop[1], crop[0] : s * (w - 1) + kw - crop[1]]


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: tuple[int, int], on_cpu: bool) -> jax.Array:
    """Cross-correlation over both spatial axes: out[y] = sum over k of padded[stride y + k] kernel[k].

    Args:
        x: images (n, height, width, in).
        kernel: (height, width, in, out).
        stride: of both axes.
        padding: zeros before and after both axes.
        on_cpu: choose the formulation that is fast there.
    """
    if on_cpu:
        return _by_products(x, kernel, stride=stride, padding=padding)
    return lax.conv_general_dilated(x, kernel, (stride, stride), (padding, padding), dimension_numbers=_AXES)


def convolve_transposed(
    x: jax.Array, kernel: jax.Array, *, stride: int, crop: tuple[int, int], on_cpu: bool
) -> jax.Array:
    """The transpose over both spatial axes: full[stride y + k] += x[y] kernel[k].

    Args:
        x, kernel, stride, on_cpu: as in `convolve`.
        crop: the number of pixels removed before and after both axes.
    """
    if on_cpu:
        return _transposed_by_products(x, kernel, stride=stride, crop=crop)
    padding = [(size - 1 - crop[0], size - 1 - crop[1]) for size in kernel.shape[:2]]
    flipped, dilation = kernel[::-1, ::-1], (stride, stride)
    return lax.conv_general_dilated(x, flipped, (1, 1), padding, lhs_dilation=dilation, dimension_numbers=_AXES)
