"""The energy of MHE and its gradient: a direct implementation, and that of this project.

As a script, `_spherical.py LIBRARY REPEAT ROWS DIM HALF_SPACE`, the seconds of each as JSON.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from _contenders import tensorflow_finished, tensorflow_step, torch_step
from _timing import batch, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from _contenders import Contender


def naive_energy(w: Any, unit: Any, mirrored: Any, product: Any, total: Any, clamp: Any, eye: Any) -> Any:
    """The energy for s = 2 on the n x n matrix of distances, with these functions of a library."""
    u = mirrored(unit(w))
    n = u.shape[0]
    # A one on the diagonal, which adds n to the sum.
    return (total(1 / (clamp(2 - 2 * product(u)) + eye(n))) - n) / (n * (n - 1))


def contenders(library: str, w: np.ndarray, *, half_space: bool) -> dict[str, Contender]:
    """Energy and gradient of float32 rows: eager and compiled, naive and ours."""
    return {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[library](w, half_space)


def _torch(w: np.ndarray, half_space: bool) -> dict[str, Contender]:
    import torch

    from eccentric_torch import hyperspherical_energy

    torch.compiler.reset()
    naive = partial(
        naive_energy,
        unit=lambda w: torch.nn.functional.normalize(w, dim=1),
        mirrored=lambda u: torch.cat([u, -u]) if half_space else u,
        product=lambda u: u @ u.T,
        total=torch.sum,
        clamp=lambda t: t.clamp(min=0),
        eye=torch.eye,
    )
    ours = partial(hyperspherical_energy, half_space=half_space)
    compiled = partial(torch.compile, dynamic=False)
    losses = {"naive": naive, "ours": ours}
    losses |= {"naive_compiled": compiled(lambda w: naive(w)), "ours_compiled": compiled(lambda w: ours(w))}
    return {name: torch_step(loss, w) for name, loss in losses.items()}


def _jax(w: np.ndarray, half_space: bool) -> dict[str, Contender]:
    import jax
    import jax.numpy as jnp

    from eccentric_jax import hyperspherical_energy

    naive = partial(
        naive_energy,
        unit=lambda w: w / jnp.linalg.norm(w, axis=1, keepdims=True),
        mirrored=lambda u: jnp.concatenate([u, -u]) if half_space else u,
        product=lambda u: u @ u.T,
        total=jnp.sum,
        clamp=lambda t: jnp.maximum(t, 0),
        eye=jnp.eye,
    )
    ours, rows = partial(hyperspherical_energy, half_space=half_space), jnp.asarray(w)

    def contender(step: Callable[[Any], Any]) -> Contender:
        return lambda: jax.block_until_ready(step(rows))

    steps = {name: jax.value_and_grad(loss) for name, loss in (("naive", naive), ("ours", ours))}
    steps |= {f"{name}_compiled": jax.jit(step) for name, step in steps.items()}
    return {name: contender(step) for name, step in steps.items()}


def _tensorflow(w: np.ndarray, half_space: bool) -> dict[str, Contender]:
    import tensorflow as tf

    from eccentric_tensorflow import hyperspherical_energy

    naive = partial(
        naive_energy,
        unit=lambda w: tf.math.l2_normalize(w, axis=1),
        mirrored=lambda u: tf.concat([u, -u], 0) if half_space else u,
        product=lambda u: tf.matmul(u, u, transpose_b=True),
        total=tf.reduce_sum,
        clamp=tf.nn.relu,
        eye=tf.eye,
    )
    ours, rows = partial(hyperspherical_energy, half_space=half_space), tf.constant(w)

    def contender(step: Callable[[Any], Any]) -> Contender:
        return tensorflow_finished(lambda: step(rows))

    steps = {name: tensorflow_step(loss) for name, loss in (("naive", naive), ("ours", ours))}
    xla = partial(tf.function, autograph=False, jit_compile=True)
    steps |= {f"{name}_compiled": xla(step) for name, step in steps.items()}
    return {name: contender(step) for name, step in steps.items()}


if __name__ == "__main__":
    library, repeat, rows, dim, half_space = sys.argv[1], *map(int, sys.argv[2:])
    rivals = contenders(library, batch(rows, dim), half_space=bool(half_space))
    print(json.dumps(take_turns(rivals, repeat)))
