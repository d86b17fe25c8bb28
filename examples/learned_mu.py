"""Learn mu in JAX: which mu was a batch of latent vectors trained with?

    python examples/learned_mu.py

A batch at rest neither grows nor shrinks: the derivative of its loss with respect to its scale is 0. Gradient descent
on the square of that derivative finds mu. This takes a second derivative of the loss, with respect to the scale of the
batch and to mu, on which M depends, too.
"""

import jax
import jax.numpy as jnp

from eccentric_core import eccentric_loss

TRUE_MU, ROWS, DIM = 1.7, 100, 8


@jax.jit
def settle(z: jax.Array, mu: float) -> jax.Array:
    """The batch after 300 steps of gradient descent on the loss."""
    return jax.lax.fori_loop(0, 300, lambda _, z: z - 0.5 * ROWS * jax.grad(eccentric_loss)(z, mu), z)


def imbalance(raw: jax.Array, z: jax.Array) -> jax.Array:
    """The square of d loss(s z, mu) / ds at s = 1."""
    mu = 0.5 + jax.nn.softplus(raw)  # mu must stay above 1/2
    return jax.grad(lambda s: eccentric_loss(s * z, mu))(1.0) ** 2


@jax.jit
def learn(z: jax.Array) -> jax.Array:
    """The mu at which a batch is at rest, by gradient descent from mu = 1."""
    start = jnp.log(jnp.expm1(0.5))
    # The derivative is about 0.1 at mu = 1, and its square needs large steps.
    raw = jax.lax.fori_loop(0, 100, lambda _, raw: raw - 50.0 * jax.grad(imbalance)(raw, z), start)
    return 0.5 + jax.nn.softplus(raw)


z = settle(jax.random.normal(jax.random.key(0), (ROWS, DIM)), TRUE_MU)
print(f"trained with mu = {TRUE_MU}, learned mu = {learn(z):.3f}")
