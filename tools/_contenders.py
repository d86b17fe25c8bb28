"""Loss and gradient at mu = 1 in each library: a direct implementation, and that of this project.

A contender is a function without arguments that returns a loss and a gradient when both are computed. A framework is
imported when its contenders are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from eccentric_core import eccentric_loss_and_grad, kernel_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    Contender = Callable[[], tuple[Any, Any]]
    Prepare = Callable[[np.ndarray], dict[str, Contender]]

LOOP_STEPS = 100
_STEP = 1e-3


@dataclass(frozen=True)
class Contest:
    """What is compared in one library. Each ratio is the best time of some contenders over that of others.

    `prepare` makes the contenders for a float32 batch. `prepare_loops` makes those that take LOOP_STEPS gradient steps
    in one call; they return the last batch instead of a gradient.
    """

    prepare: Prepare
    ratios: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
    prepare_loops: Prepare | None = None


def naive_loss(z: Any, scale: float, product: Any, total: Any, clamp: Any, log1p: Any) -> Any:
    """The loss on the n x n matrix of distances, with these functions of a library."""
    n = z.shape[0]
    square = total(z * z, 1)
    t = clamp(square[:, None] + square[None, :] - 2 * product(z)) / scale
    return total(square) / n - scale * total(log1p(t)) / (n * (n - 1))


def naive_numpy(z: np.ndarray, scale: np.float32) -> tuple[np.float32, np.ndarray]:
    """The same with its gradient written out."""
    n = z.shape[0]
    gram = z @ z.T
    square = np.diag(gram)
    t = np.maximum(square[:, None] + square[None, :] - 2 * gram, 0) / scale
    loss = np.mean(square) - scale * np.sum(np.log1p(t)) / (n * (n - 1))
    weight = 1 / (1 + t)
    grad = 2 / n * z - 4 / (n * (n - 1)) * (np.sum(weight, axis=1)[:, None] * z - weight @ z)
    return loss, grad


def numpy_contenders(z: np.ndarray) -> dict[str, Contender]:
    return {
        "naive": partial(naive_numpy, z, np.float32(kernel_scale(z.shape[1]))),
        "core": partial(eccentric_loss_and_grad, z),
    }


def torch_contenders(z: np.ndarray) -> dict[str, Contender]:
    import torch

    from eccentric_torch import eccentric_loss

    torch.compiler.reset()  # each size is compiled by itself, and the limit on their number is not reached
    naive = partial(
        naive_loss,
        scale=float(kernel_scale(z.shape[1])),
        product=lambda x: x @ x.T,
        total=torch.sum,
        clamp=lambda t: t.clamp(min=0),
        log1p=torch.log1p,
    )
    losses = {
        "eager": naive,
        "compile": torch.compile(lambda x: naive(x), dynamic=False),
        "ours": eccentric_loss,
        "ours_compile": torch.compile(lambda x: eccentric_loss(x), dynamic=False),
    }
    return {name: torch_step(loss, z) for name, loss in losses.items()}


def torch_device() -> tuple[str, Callable[[], None]]:
    """Where PyTorch computes, and a function that waits until it has."""
    import torch

    return ("cuda", torch.cuda.synchronize) if torch.cuda.is_available() else ("cpu", lambda: None)


def torch_step(loss: Callable[[Any], Any], z: np.ndarray) -> Contender:
    """Forward and backward."""
    import torch

    device, finish = torch_device()
    batch = torch.from_numpy(z).to(device)

    def run() -> tuple[Any, Any]:
        leaf = batch.detach().requires_grad_()
        value = loss(leaf)
        value.backward()
        finish()
        return value.detach(), leaf.grad

    return run


def jax_contenders(z: np.ndarray) -> dict[str, Contender]:
    import jax

    batch = jax.numpy.asarray(z)

    def contender(loss: Callable[[Any], Any]) -> Contender:
        step = jax.jit(jax.value_and_grad(loss))
        return lambda: jax.block_until_ready(step(batch))

    return {name: contender(loss) for name, loss in _jax_losses(z.shape[1]).items()}


def jax_loops(z: np.ndarray) -> dict[str, Contender]:
    """Gradient steps in one compiled loop: for small n a call on a CPU is mostly dispatch, which a loop has not."""
    import jax

    batch = jax.numpy.asarray(z)

    def contender(loss: Callable[[Any], Any]) -> Contender:
        def step(x: Any, _: None) -> tuple[Any, Any]:
            value, grad = jax.value_and_grad(loss)(x)
            return x - _STEP * grad, value

        @jax.jit
        def loop(x: Any) -> tuple[Any, Any]:
            last, values = jax.lax.scan(step, x, length=LOOP_STEPS)
            return values[-1], last

        return lambda: jax.block_until_ready(loop(batch))

    return {f"{name}_in_a_loop": contender(loss) for name, loss in _jax_losses(z.shape[1]).items()}


def jax_compiled(loss: Callable[[Any], Any], rows: int, dim: int) -> Callable[[Any], tuple[Any, Any]]:
    """Loss and gradient compiled for one shape and not run."""
    import jax

    shape = jax.ShapeDtypeStruct((rows, dim), jax.numpy.float32)
    return jax.jit(jax.value_and_grad(loss)).lower(shape).compile()


def _jax_losses(dim: int) -> dict[str, Callable[[Any], Any]]:
    import jax.numpy as jnp

    from eccentric_jax import eccentric_loss

    naive = partial(
        naive_loss,
        scale=float(kernel_scale(dim)),
        product=lambda x: x @ x.T,
        total=jnp.sum,
        clamp=lambda t: jnp.maximum(t, 0),
        log1p=jnp.log1p,
    )
    return {"jit": naive, "ours": eccentric_loss}


def tensorflow_contenders(z: np.ndarray) -> dict[str, Contender]:
    import tensorflow as tf

    from eccentric_tensorflow import eccentric_loss

    batch = tf.constant(z)
    naive = partial(
        naive_loss,
        scale=float(kernel_scale(z.shape[1])),
        product=lambda x: tf.matmul(x, x, transpose_b=True),
        total=tf.reduce_sum,
        clamp=tf.nn.relu,
        log1p=tf.math.log1p,
    )

    def contender(step: Callable[[Any], tuple[Any, Any]]) -> Contender:
        return tensorflow_finished(lambda: step(batch))

    graph = partial(tf.function, autograph=False)  # there is no control flow to convert
    xla = partial(graph, jit_compile=True)
    naive, ours = tensorflow_step(naive), tensorflow_step(eccentric_loss)
    steps = {"graph": graph(naive), "xla": xla(naive), "ours": ours, "ours_graph": graph(ours), "ours_xla": xla(ours)}
    return {name: contender(step) for name, step in steps.items()}


def tensorflow_finished(step: Callable[[], tuple[Any, Any]]) -> Contender:
    """A step whose results are there when it returns."""
    import tensorflow as tf

    on_gpu = bool(tf.config.list_physical_devices("GPU"))

    def run() -> tuple[Any, Any]:
        value, grad = step()
        if on_gpu:
            tf.test.experimental.sync_devices()
        return value.numpy(), grad

    return run


def tensorflow_step(loss: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    """Loss and gradient by a tape."""
    import tensorflow as tf

    def step(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return value, tape.gradient(value, x)

    return step


CONTESTS = {
    "numpy": Contest(numpy_contenders, {"ratio": (("naive",), ("core",))}),
    "torch": Contest(
        torch_contenders,
        {
            "eager_over_ours": (("eager",), ("ours",)),
            "compile_over_ours": (("compile",), ("ours",)),
            "compile_over_ours_compile": (("compile",), ("ours_compile",)),
        },
    ),
    "jax": Contest(
        jax_contenders,
        {
            "jit_over_ours": (("jit",), ("ours",)),
            "jit_over_ours_in_a_loop": (("jit_in_a_loop",), ("ours_in_a_loop",)),
        },
        jax_loops,
    ),
    "tensorflow": Contest(
        tensorflow_contenders, {"best_over_ours_best": (("graph", "xla"), ("ours_graph", "ours_xla"))}
    ),
}
