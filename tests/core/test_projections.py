"""Compressive energies: the four projections, drawn and learned."""

from __future__ import annotations

import array_api_strict
import numpy as np
import oracle
import pytest

from eccentric_core import (
    AdversarialProjection,
    AnglePreservingProjection,
    GroupProjection,
    LearnedProjection,
    RandomProjection,
    compressive_energy,
    hyperspherical_energy,
    init_projection,
    update_projection,
)
from eccentric_core.energies.hyperspherical import EnergyOptions
from eccentric_core.networks import Policy


def cosines(w):
    u = w / np.sqrt(np.sum(w * w, axis=1, keepdims=True))
    return u @ u.T


def angle_error(matrix, w):
    """The root mean square of cos(P w) - cos(w) over all pairs."""
    return np.sqrt(np.sum((cosines(w @ matrix.T) - cosines(w)) ** 2)) / len(w)


def test_random_projection_is_the_mean_over_draws(library, rng, tolerance):
    w = rng.standard_normal((25, 60))
    matrices = np.random.default_rng(3).standard_normal((5, 12, 60))
    known = np.mean([oracle.hyperspherical(w @ p.T, 1, half_space=True) for p in matrices])
    rule = RandomProjection(dim=12, num_projections=5)
    drawn = compressive_energy(library.array(w), rule, 1, half_space=True, rng=np.random.default_rng(3))
    given = compressive_energy(library.array(w), library.array(matrices), 1, half_space=True)
    for value in (drawn, given):
        assert tuple(value.shape) == ()
        assert abs(float(value) - known) <= tolerance["float64"] * known


def test_the_published_constants():
    assert RandomProjection() == RandomProjection(40, 20)
    assert (AnglePreservingProjection().dim, AnglePreservingProjection().steps) == (30, 1)
    assert AnglePreservingProjection().decay == 1e-3
    assert AdversarialProjection().steps == 10


def test_every_call_draws_anew(rng):
    w = rng.standard_normal((25, 60))
    for projection in ("random", "group", GroupProjection(3, of="neurons")):
        assert compressive_energy(w, projection) != compressive_energy(w, projection)
        one, other = (compressive_energy(w, projection, rng=np.random.default_rng(1)) for _ in range(2))
        assert one == other


def test_groups_of_inputs_part_them(library, rng, tolerance):
    """Every group keeps its coordinates of all neurons, and no input is in two groups."""
    w = rng.standard_normal((25, 14))
    value = compressive_energy(library.array(w), GroupProjection(3), rng=np.random.default_rng(5))
    order = np.argsort(np.random.default_rng(5).standard_normal(14))[:12]
    known = np.mean([oracle.hyperspherical(w[:, order[4 * k : 4 * k + 4]]) for k in range(3)])
    assert abs(float(value) - known) <= tolerance["float64"] * known


def test_groups_of_neurons_part_them(library, rng, tolerance):
    """Each has a projection of its own."""
    w = rng.standard_normal((25, 14))
    rule = GroupProjection(3, of="neurons", dim=6)
    value = compressive_energy(library.array(w), rule, rng=np.random.default_rng(5))
    draws = np.random.default_rng(5)
    order, matrices = np.argsort(draws.standard_normal(25))[:24], draws.standard_normal((3, 14, 6))
    known = np.mean([oracle.hyperspherical(w[order[8 * k : 8 * k + 8]] @ matrices[k]) for k in range(3)])
    assert abs(float(value) - known) <= tolerance["float64"] * known


@pytest.mark.parametrize(("n", "d"), [(20, 13), (9, 40)])
def test_angle_preserving_step_is_the_gradient(library, n, d, rng):
    """Of the published |cos(P w) - cos(w)|, by n, with decay."""
    w, u = rng.uniform(0.5, 2, (n, 1)) * rng.standard_normal((n, d)), rng.standard_normal((6, d))
    rule = AnglePreservingProjection(dim=6, rate=0.7, decay=0.2)
    before = LearnedProjection(library.array(rng.standard_normal((6, d))), rule)
    after = library.numpy(update_projection(before, library.array(w)).matrix)
    matrix = library.numpy(before.matrix)
    slope = oracle.along(lambda p: angle_error(p, np.asarray(w, np.longdouble)), matrix, u)
    step = (after - matrix * (1 - 0.7 * 0.2)) / -0.7
    assert np.sum(step * u) == pytest.approx(float(slope), rel=1e-8)
    # The energy is that of P after one step more.
    known = oracle.hyperspherical(w @ library.numpy(update_projection(before, library.array(w)).matrix).T)
    assert float(compressive_energy(library.array(w), before)) == pytest.approx(float(known), rel=1e-12)


def test_angles_are_learned(rng):
    w = rng.standard_normal((64, 200)) @ rng.standard_normal((200, 300)) / 10
    projection = init_projection(w, "angle-preserving", rng=rng)
    before = angle_error(projection.matrix, w)
    for _ in range(100):
        projection = update_projection(projection, w)
    assert angle_error(projection.matrix, w) < 0.7 * before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_angles_that_are_kept_leave_nothing_to_learn(dtype, rng):
    """No division by the 0 that is left, also where all rows are one."""
    matrix = np.linalg.qr(rng.standard_normal((8, 8)))[0].astype(dtype)
    projection = LearnedProjection(matrix, AnglePreservingProjection(dim=8, decay=0.0))
    for w in (rng.standard_normal((20, 8)), np.ones((20, 8))):
        after = update_projection(projection, w.astype(dtype)).matrix
        assert after.dtype == dtype
        assert np.max(np.abs(after - matrix)) < 0.1


def test_adversarial_steps_are_gradients_of_the_energy(library, rng):
    w, u = rng.standard_normal((20, 13)), rng.standard_normal((6, 13))
    rule = AdversarialProjection(dim=6, rate=0.7, steps=1, decay=0.2)
    before = LearnedProjection(library.array(rng.standard_normal((6, 13))), rule)
    after = library.numpy(update_projection(before, library.array(w), 1, half_space=True).matrix)
    matrix = library.numpy(before.matrix)
    slope = oracle.along(lambda p: oracle.hyperspherical(w @ p.T, 1, half_space=True), matrix, u)
    step = (after - matrix * (1 - 0.7 * 0.2)) / 0.7
    assert np.sum(step * u) == pytest.approx(float(slope), rel=1e-8)
    # The energy is that of P itself.
    known = oracle.hyperspherical(w @ matrix.T, 1, half_space=True)
    value = compressive_energy(library.array(w), before, 1, half_space=True)
    assert float(value) == pytest.approx(float(known), rel=1e-12)


def test_an_adversary_takes_its_steps_and_raises_the_energy(rng):
    w = rng.standard_normal((32, 100))
    projection = init_projection(w, AdversarialProjection(rate=0.05), rng=rng)
    single = LearnedProjection(projection.matrix, AdversarialProjection(rate=0.05, steps=1))
    for _ in range(10):
        single = update_projection(single, w)
    ten = update_projection(projection, w)
    np.testing.assert_allclose(ten.matrix, single.matrix, rtol=1e-12)
    assert compressive_energy(w, ten) > compressive_energy(w, projection)


def test_first_matrices():
    projection = init_projection(np.ones((5, 4, 3, 3)), "adversarial", rng=np.random.default_rng(1))
    assert projection.matrix.shape == (30, 36)
    assert np.mean(projection.matrix**2) * 36 == pytest.approx(1, rel=0.15)
    assert projection.rule == AdversarialProjection()
    half = init_projection(np.ones((5, 36), np.float16), rng=np.random.default_rng(1))
    assert half.matrix.dtype == np.float32


def test_kernels_of_convolutions_and_half_precision(rng):
    w = rng.standard_normal((12, 5, 3, 3)).astype(np.float16)
    matrix = rng.standard_normal((7, 45))
    value = compressive_energy(w, matrix)
    assert value.dtype == np.float32
    assert value == pytest.approx(float(oracle.hyperspherical(w.reshape(12, -1).astype(float) @ matrix.T)), rel=1e-5)


def test_no_more_of_the_namespace_than_declared(offer, rng):
    w = rng.standard_normal((20, 40))
    rows = array_api_strict.asarray(w)
    offer()
    for projection in ("random", "group", GroupProjection(2, of="neurons")):
        value = compressive_energy(rows, projection, rng=np.random.default_rng(0), half_space=True)
        known = compressive_energy(w, projection, rng=np.random.default_rng(0), half_space=True)
        assert float(value) == pytest.approx(float(known), rel=1e-12)
    for rule in ("angle-preserving", "adversarial"):
        learned, known = (
            update_projection(init_projection(one, rule, rng=np.random.default_rng(0)), one) for one in (rows, w)
        )
        np.testing.assert_allclose(np.asarray(learned.matrix), known.matrix, rtol=0, atol=1e-12)
        assert float(compressive_energy(rows, learned)) == pytest.approx(float(compressive_energy(w, known)), rel=1e-12)


def test_nan_flows(rng):
    w = rng.standard_normal((20, 40))
    w[3, 3] = np.nan
    assert np.isnan(compressive_energy(w))
    for rule in ("angle-preserving", "adversarial"):
        projection = init_projection(w, rule)
        assert np.isnan(update_projection(projection, w).matrix).any()


W = np.ones((6, 8))


@pytest.mark.parametrize(
    ("projection", "error", "message"),
    [
        (
            "randon",
            ValueError,
            "projection must be .random., .group., .angle-preserving., .adversarial., such a rule or",
        ),
        ("adversarial", TypeError, "is learned and has a state: make one by init_projection"),
        (AnglePreservingProjection(), TypeError, "is learned and has a state"),
        (np.ones((3, 7)), ValueError, r"projection must have shape \(k, D\) or .* D = 8, .* got \(3, 7\)"),
        (np.ones(8), ValueError, r"projection must have shape .* got \(8,\)"),
        (np.ones((3, 8), int), TypeError, "projection must be a real floating array"),
        (3, ValueError, "projection must have shape .* got 3"),
        (LearnedProjection(np.ones((3, 7)), AnglePreservingProjection()), ValueError, "projection must have shape"),
        (
            LearnedProjection(np.ones((2, 3, 8)), AdversarialProjection()),
            ValueError,
            r"projection must have shape \(k, D\) with D = 8",
        ),
        (GroupProjection(5), ValueError, "groups must leave 2 inputs or more to each, got 5 groups of 8 inputs"),
        (GroupProjection(4, of="neurons"), ValueError, "groups must leave 2 neurons or more .* 4 groups of 6 neurons"),
    ],
    ids=repr,
)
def test_bad_projections(projection, error, message):
    with pytest.raises(error, match=message):
        compressive_energy(W, projection)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomProjection(dim=1), "dim must be a whole number, 2 or more, got 1"),
        (lambda: RandomProjection(num_projections=0), "num_projections must be a whole number, 1 or more, got 0"),
        (lambda: RandomProjection(dim=2.0), "dim must be a whole number"),
        (lambda: GroupProjection(0), "groups must be a whole number, 1 or more, got 0"),
        (lambda: GroupProjection(of="rows"), 'of must be "inputs" or "neurons", got \'rows\''),
        (lambda: AnglePreservingProjection(rate=-1), "rate must be a finite number, 0 or more, got -1"),
        (lambda: AdversarialProjection(decay=np.inf), "decay must be a finite number"),
        (lambda: AdversarialProjection(steps=0), "steps must be a whole number, 1 or more, got 0"),
        (lambda: init_projection(W, "random"), 'rule must be "angle-preserving", "adversarial", or such a rule'),
        (lambda: init_projection(W, "x"), "projection must be"),
        (lambda: Policy(EnergyOptions(), weight=-1.0), "weight must be a finite number, 0 or more, got -1.0"),
        (lambda: Policy(EnergyOptions(), output_weight=np.nan), "output_weight must be a finite number"),
        (lambda: Policy(EnergyOptions(), projection=5), "projection must be None, .random., .* or such a rule, got 5"),
        (lambda: Policy(EnergyOptions(), energy="eccentric"), "energy must be a function of rows"),
        (
            lambda: Policy(EnergyOptions(), energy=abs, projection="random"),
            "energy must be a function of rows, without",
        ),
    ],
)
def test_bad_rules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_bad_input():
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator or None, got 3"):
        compressive_energy(W, rng=3)
    with pytest.raises(TypeError, match="projection must be a LearnedProjection, got 'adversarial'"):
        update_projection("adversarial", W)
    with pytest.raises(TypeError, match="w must be a plain array"):
        compressive_energy([[1.0, 2.0]])
    with pytest.raises(ValueError, match="w must hold at least 2 rows"):
        compressive_energy(W[:1])
    with pytest.raises(ValueError, match="s must be from 0 to 100"):
        compressive_energy(W, s=-2)


def test_what_the_papers_do_with_which_layer():
    policy = Policy(EnergyOptions(half_space=True), projection="random")
    hidden = policy.for_layer(288, output=False, channels=32)
    assert hidden == (1.0, EnergyOptions(half_space=True), RandomProjection())
    assert policy.for_layer(128, output=True) == (10.0, EnergyOptions(), RandomProjection())
    assert policy.for_layer(75, output=False, channels=3)[2] is None  # images
    assert policy.for_layer(40, output=False)[2] is None  # nothing to compress
    assert policy.for_layer(41, output=False)[2] == RandomProjection()
    assert Policy(EnergyOptions(s=1, angular=True)).for_layer(9, output=True)[0] == 1.0
    assert Policy(EnergyOptions(s=0, angular=True)).for_layer(9, output=False)[0] == 1.0
    assert Policy(EnergyOptions(), 0.5, 3.0).for_layer(9, output=True)[0] == 1.5


def test_a_projection_onto_everything_changes_nothing(rng):
    w = rng.standard_normal((10, 6))
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert compressive_energy(w, rotation) == pytest.approx(float(hyperspherical_energy(w)), rel=1e-12)
