"""Which form and which tiles the engine takes, and the memory of them."""

from __future__ import annotations

from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from _memory import extra_memory

from eccentric_core import InverseMultiquadricKernel, LogarithmicKernel, eccentric_loss_and_grad, pair_sum
from eccentric_core.backend import backend_of
from eccentric_core.engine import pairs
from eccentric_core.engine.pairs import PairSum, PlainSum
from eccentric_core.numpy_backend import BACKEND as NUMPY


def test_a_device_that_is_no_cpu(rng, tiles):
    """Larger tiles, and the arrays stay where they are."""
    values = rng.standard_normal((300, 4))
    z = array_api_strict.asarray(values, device=array_api_strict.Device("device1"))
    assert backend_of(z).tile_rows(z) > 500
    for mu in (1.0, 5.0):
        with tiles(100):
            loss, grad = eccentric_loss_and_grad(z, mu)
        assert loss.device == grad.device == z.device
        assert float(loss) == pytest.approx(float(eccentric_loss_and_grad(values, mu)[0]), rel=1e-13)


def test_tiles_are_smaller_for_wider_numbers():
    x = np.zeros((4, 3))
    assert NUMPY.tile_rows(x) < NUMPY.tile_rows(x.astype(np.float32))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("mu", [1.0, 64.5])
def test_memory_is_linear_in_the_batch(mu):
    """12,000 rows: an n x n matrix in float32 alone would take 576 MB. tools/benchmark.py measures 50,000."""
    assert extra_memory(12_000, 64, mu=mu)["extra_bytes"] < 60e6


@pytest.fixture
def forms(monkeypatch):
    """The numbers of rows of which the dense form computes a value from now on."""
    seen, dense_value = [], pairs.dense_value
    monkeypatch.setattr(pairs, "dense_value", lambda x, *rest: seen.append(len(x)) or dense_value(x, *rest))
    return seen


def test_a_backend_says_how_far_the_dense_form_goes(forms, monkeypatch, rng):
    monkeypatch.setattr(type(NUMPY), "dense_rows", lambda _, x, **_options: x.shape[-1] + 2)
    for n in (4, 5, 6):
        x = rng.standard_normal((n, 3))
        squares = np.sum((x[:, None] - x) ** 2, axis=-1)
        assert pair_sum(x, kernel=LogarithmicKernel()) == pytest.approx(np.sum(np.log1p(squares)), rel=1e-14)
    assert forms == [4, 5]


def test_the_dense_form_of_a_kernel_in_place_goes_further(forms, rng):
    """Of long rows, whose memory is O(n d) all the same. A kernel that makes many matrices has tiles there."""
    tile = NUMPY.tile_rows(np.zeros((1, 1)))
    for kernel in (LogarithmicKernel(), InverseMultiquadricKernel()):
        for n in (tile, tile + 1):
            pair_sum(rng.standard_normal((n, n)), kernel=kernel)
    assert forms == [tile, tile + 1, tile]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_sum_is_the_sum_over_pairs(dtype, rng):
    x, u = (rng.standard_normal((100, 4)).astype(dtype) for _ in range(2))
    f, numbers = PairSum(LogarithmicKernel()), (2.5, 0.3, -0.7)
    plain = PlainSum.of(f, NUMPY, x.shape, *numbers)
    arguments = (x, None, None, *numbers)
    assert plain.value(NUMPY, x) == f.value(NUMPY, *arguments)
    for found, expected in zip(
        plain.value_and_gradients(NUMPY, x), f.value_and_gradients(NUMPY, *arguments)[:2], strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    (found,) = plain.hvp(NUMPY, (x,), (u,))
    np.testing.assert_array_equal(found, f.hvp(NUMPY, arguments, (u, *[None] * 5))[0])


@pytest.mark.parametrize(
    ("f", "shape", "h"),
    [
        (PairSum(LogarithmicKernel()), (64, 4), 2.5),  # float64
        (PairSum(LogarithmicKernel()), (257, 4), 2.5),  # tiles of float64
        (PairSum(LogarithmicKernel()), (3, 100, 4), 2.5),
        (PairSum(LogarithmicKernel()), (100, 4), np.asarray(2.5)),
        (PairSum(LogarithmicKernel(), wide=True), (100, 4), 2.5),
        (PairSum(InverseMultiquadricKernel()), (100, 4), 2.5),
    ],
    ids=["few rows", "many rows", "batches", "a tensor", "wide sums", "a kernel of several arrays"],
)
def test_what_is_not_plain(f, shape, h):
    assert PlainSum.of(f, NUMPY, shape, h, 0.3, -0.7) is None
    assert PlainSum.of(PairSum(LogarithmicKernel()), NUMPY, (65, 4), 2.5, 0.3, -0.7) is not None
