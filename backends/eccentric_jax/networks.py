"""What MHE and CoMHE add to the loss of a network, as pure functions over a pytree of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from eccentric_core import compressive_energy, hyperspherical_energy, init_projection, update_projection
from eccentric_core.energies.hyperspherical import EnergyOptions
from eccentric_core.energies.projections import LearnedProjection, learned_rule
from eccentric_core.networks import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eccentric_core.energies.hyperspherical import Normalization


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
    rng: jax.Array | None = None,
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
        rng: the key that a projection is drawn from; a new one for every step.

    Raises:
        TypeError, ValueError: an argument is not as described, or there is no such layer.
    """
    options = EnergyOptions(s, half_space, angular, normalization, eps)
    if projections is not None and (projection is not None or energy is not None):
        raise ValueError("projections must not be given together with projection or energy; they are learned ones")
    policy = Policy(options, weight, output_weight, projection, energy)
    if policy.learns:
        raise ValueError("projection is learned and has a state: give that of init_projections as projections")
    total = jnp.zeros(())
    for i, (path, rows, place) in enumerate(_layers(params, output, axis)):
        layer_weight, layer_options, rule = policy.for_layer(rows.shape[1], **place)
        if policy.energy is not None:
            one = policy.energy(rows)
        elif projections is not None and path in projections:
            one = compressive_energy(rows, projections[path], **layer_options._asdict())
        elif rule is not None:
            drawn = None if rng is None else jax.random.fold_in(rng, i)
            one = compressive_energy(rows, rule, **layer_options._asdict(), rng=drawn)
        else:
            one = hyperspherical_energy(rows, **layer_options._asdict())
        total = total + layer_weight * one
    return total


def init_projections(
    params: Any, rule: Any = "angle-preserving", *, output: str, axis: int = -1, rng: jax.Array
) -> dict[str, LearnedProjection]:
    """Projections to learn for the layers of a network, by their paths: a pytree.

    Args:
        params, output, axis: as in `hyperspherical_penalty`.
        rule: "angle-preserving" or "adversarial", or such a rule.
        rng: the key that they are drawn from.
    """
    policy = Policy(EnergyOptions(), projection=learned_rule(rule))
    return {
        path: init_projection(rows, policy.projection, rng=jax.random.fold_in(rng, i))
        for i, (path, rows, place) in enumerate(_layers(params, output, axis))
        if policy.for_layer(rows.shape[1], **place)[2] is not None
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
    policy = Policy(EnergyOptions(s, half_space, angular, normalization, eps))
    rows_and_places = {path: rest for path, *rest in _layers(params, output, axis)}
    return {
        path: update_projection(projection, rows, **policy.for_layer(rows.shape[1], **place)[1]._asdict())
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
