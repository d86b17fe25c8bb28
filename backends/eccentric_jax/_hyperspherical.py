"""Hyperspherical energies of weights and features, and of the layers of a network, as pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from eccentric_core.checks import check_batch, compute_dtype
from eccentric_core.energies.compressive import first_projection, next_projection, projected_energy
from eccentric_core.energies.hyperspherical import Riesz, as_rows, gaussian_energy, riesz_energy
from eccentric_core.energies.projections import LearnedProjection, learned_rule
from eccentric_core.networks import Policy
from eccentric_jax._engine import DRIVER, value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eccentric_core.energies.hyperspherical import Normalization

# The matrix is what transforms see, and an optimiser's or a checkpoint's tree may hold.
jax.tree_util.register_dataclass(LearnedProjection, data_fields=["matrix"], meta_fields=["rule"])


def hyperspherical_energy(
    w: jax.Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> jax.Array:
    """The hyperspherical energy of neurons or features, `eccentric_core.hyperspherical_energy` for JAX.

    Args:
        w: one row for each neuron, (n, D) or (n, ...). The kernels of Flax have neurons in the last axis: give
            `jnp.moveaxis(kernel, -1, 0)`.
        s, half_space, angular, normalization, eps: as in `eccentric_core.hyperspherical_energy`; Python values.

    Returns:
        A 0-d array with derivatives of any order: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    w = as_rows(w, jnp)
    dtype = compute_dtype(w, "w")
    energy = riesz_energy(dtype, Riesz(s, half_space, angular, normalization, eps), DRIVER)
    return value(energy, (w.astype(dtype),))


def uniformity(z: jax.Array, t: float = 2.0) -> jax.Array:
    """The log of the mean Gaussian potential of features on the sphere, `eccentric_core.uniformity` for JAX.

    Args:
        z: features of shape (..., n, d); leading axes are separate batches.
        t: the inverse width of the Gaussian, a Python number.

    Returns:
        An array of shape (...) with derivatives: float64 for float64, otherwise float32.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    energy = gaussian_energy(z, t, DRIVER)
    return jnp.log(value(energy, (z.astype(compute_dtype(z, "z")),)))


def compressive_energy(
    w: jax.Array,
    projection: Any = "random",
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """The mean hyperspherical energy of projected neurons, `eccentric_core.compressive_energy` for JAX.

    Args:
        w: one row for each neuron, as in `hyperspherical_energy`.
        projection: "random" or "group", drawn from the key, or such a rule; matrices of shape (k, D) or (draws, k, D),
            through which derivatives go, too; a `LearnedProjection` of `init_projection`.
        s, half_space, angular, normalization, eps: as in `hyperspherical_energy`.
        key: what a projection is drawn from; a new one for every step.

    Returns:
        A 0-d array with derivatives.

    Raises:
        TypeError, ValueError: an argument is not as described, by its static facts alone.
    """
    return energy_of_projected(w, projection, Riesz(s, half_space, angular, normalization, eps), _normal(w, key))


def energy_of_projected(
    w: jax.Array, projection: Any, which: Riesz, normal: Callable[[tuple[int, ...]], jax.Array]
) -> jax.Array:
    """The energy under projections that are drawn from a source of normal numbers."""
    return projected_energy(w, _fixed(projection), which, _bind, normal, DRIVER)


def init_projection(key: jax.Array, w: jax.Array, rule: Any = "angle-preserving") -> LearnedProjection:
    """A projection to learn, for weights like these: a pytree of one matrix (dim, D).

    Args:
        key: what it is drawn from.
        w: one row for each neuron, as in `hyperspherical_energy`.
        rule: "angle-preserving" or "adversarial", or such a rule.
    """
    return first_projection(w, rule, _normal(w, key), DRIVER.xp)


def update_projection(
    projection: LearnedProjection,
    w: jax.Array,
    s: float = 2.0,
    *,
    half_space: bool = False,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
) -> LearnedProjection:
    """The projection after its gradient steps for one step of training; no derivatives go through it.

    Args:
        projection: as it is.
        w: the weights as they are.
        s, half_space, angular, normalization, eps: of the energy that an adversarial projection raises.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    return next_projection(_fixed(projection), lax.stop_gradient(w), which, DRIVER)


def hyperspherical_penalty(
    params: Any,
    s: float = 2.0,
    *,
    output: str,
    half_space: bool = True,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    weight: float | None = None,
    output_weight: float = 10.0,
    projection: Any = None,
    projections: Mapping[str, LearnedProjection] | None = None,
    energy: Callable[[jax.Array], jax.Array] | None = None,
    axis: int = -1,
    key: jax.Array | None = None,
) -> jax.Array:
    """What MHE and CoMHE add to the loss of a network: the weighted energies of its layers.

    `loss + hyperspherical_penalty(params, output="head")`

    Every leaf of two axes or more that holds two neurons or more counts: hidden layers in the half-space, the output
    layer in the full space and with ten times the weight.

    Args:
        params: a pytree. Leave embeddings, and whatever else has no neurons, out of it.
        s, angular, normalization, eps: as in `hyperspherical_energy`.
        output: a part of the path of the output layer's leaf, as `jax.tree_util.keystr` writes it ("['head']").
        half_space: of hidden layers.
        weight: of a hidden layer; None for 1, or 0.1 for angular energies of s > 0, as in the official code.
        output_weight: that of the output layer in units of it.
        projection: None for MHE; for CoMHE "random" or "group", or such a rule. A convolution of images (4 channels or
            fewer) is not projected, nor a layer whose neurons have no more inputs than the projection has dimensions.
        projections: for CoMHE with what is learned, those of `init_projections`.
        energy: a function of rows (n, D) in the place of the hyperspherical energy, for instance `eccentric_loss`.
        axis: of the neurons in a leaf: -1 in Flax, 0 in Equinox.
        key: what a projection is drawn from; a new one for every step.

    Raises:
        TypeError, ValueError: an argument is not as described, or there is no such layer.
    """
    which = Riesz(s, half_space, angular, normalization, eps)
    if projections is not None and (projection is not None or energy is not None):
        raise ValueError("projections must not be given together with projection or energy; they are learned ones")
    policy = Policy(which, weight, output_weight, projection, energy)
    if policy.learns:
        raise ValueError("projection is learned and has a state: give that of init_projections as projections")
    total = jnp.zeros(())
    for i, (path, rows, place) in enumerate(_layers(params, output, axis)):
        of_layer, options, rule = policy.of_layer(rows.shape[1], **place)
        if policy.energy is not None:
            one = policy.energy(rows)
        elif projections is not None and path in projections:
            one = compressive_energy(rows, projections[path], **options._asdict())
        elif rule is not None:
            drawn = None if key is None else jax.random.fold_in(key, i)
            one = compressive_energy(rows, rule, **options._asdict(), key=drawn)
        else:
            one = hyperspherical_energy(rows, **options._asdict())
        total = total + of_layer * one
    return total


def init_projections(
    key: jax.Array, params: Any, rule: Any = "angle-preserving", *, output: str, axis: int = -1
) -> dict[str, LearnedProjection]:
    """Projections to learn for the layers of a network, by their paths: a pytree.

    Args:
        key: what they are drawn from.
        params, output, axis: as in `hyperspherical_penalty`.
        rule: "angle-preserving" or "adversarial", or such a rule.
    """
    policy = Policy(Riesz(), projection=learned_rule(rule))
    return {
        path: init_projection(jax.random.fold_in(key, i), rows, policy.projection)
        for i, (path, rows, place) in enumerate(_layers(params, output, axis))
        if policy.of_layer(rows.shape[1], **place)[2] is not None
    }


def update_projections(
    projections: Mapping[str, LearnedProjection],
    params: Any,
    s: float = 2.0,
    *,
    output: str,
    half_space: bool = True,
    angular: bool = False,
    normalization: Normalization = "paper",
    eps: float | None = None,
    axis: int = -1,
) -> dict[str, LearnedProjection]:
    """The projections of a network after their gradient steps for one step of training.

    Args:
        projections: as they are.
        params: the weights as they are.
        s, output, half_space, angular, normalization, eps, axis: as in `hyperspherical_penalty`.
    """
    policy = Policy(Riesz(s, half_space, angular, normalization, eps))
    rows_and_places = {path: rest for path, *rest in _layers(params, output, axis)}
    return {
        path: update_projection(projection, rows, **policy.of_layer(rows.shape[1], **place)[1]._asdict())
        for path, projection in projections.items()
        for rows, place in [rows_and_places[path]]
    }


def _layers(params: Any, output: str, axis: int) -> list[tuple[str, jax.Array, dict[str, Any]]]:
    """Path, rows and place in the network of every leaf that counts."""
    if axis not in (0, -1):
        raise ValueError(f"axis must be 0 or -1, the first or the last of a leaf, got {axis!r}")
    found = []
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        shape = getattr(leaf, "shape", ())
        if len(shape) < 2 or shape[axis] < 2:
            continue
        # What a convolution sees stands beside the neurons' axis.
        channels = shape[-2 if axis == -1 else 1] if len(shape) > 2 else None
        found.append((jax.tree_util.keystr(keys), jnp.moveaxis(leaf, axis, 0).reshape(shape[axis], -1), channels))
    outputs = [path for path, *_ in found if output in path]
    if len(outputs) != 1:
        paths = ", ".join(path for path, *_ in found)
        raise ValueError(f"output must be part of the path of one layer, got {output!r}, of {len(outputs)} of {paths}")
    return [(path, rows, {"output": path == outputs[0], "channels": channels}) for path, rows, channels in found]


def _bind(energy: Any, rows: jax.Array) -> jax.Array:
    return value(energy, (rows,))


def _fixed(projection: Any) -> Any:
    """A learned matrix is no parameter of the energy."""
    if not isinstance(projection, LearnedProjection):
        return projection
    return LearnedProjection(lax.stop_gradient(projection.matrix), projection.rule)


def _normal(w: jax.Array, key: jax.Array | None) -> Callable[[tuple[int, ...]], jax.Array]:
    if not hasattr(w, "dtype") or not hasattr(w, "shape"):
        check_batch(w, "w")
    dtype, draws = compute_dtype(w, "w"), 0

    def normal(shape: tuple[int, ...]) -> jax.Array:
        nonlocal draws
        if key is None:
            raise ValueError("key must be given for a projection that is drawn, got None; split one for every step")
        draws += 1
        return jax.random.normal(jax.random.fold_in(key, draws), shape, dtype)

    return normal
