"""What keeps float32 accurate: products, sums, the slopes and the distances of the engine."""

from __future__ import annotations

from dataclasses import dataclass

import array_api_strict
import numpy as np
import pytest

from eccentric_core import LogarithmicKernel, eccentric_loss_and_grad, pair_sum_and_grad, pair_sum_hvp
from eccentric_core.backend import NAMESPACE
from eccentric_core.engine import pairs
from eccentric_core.engine.pairs import PairSum
from eccentric_core.engine.precision import full_product
from eccentric_core.numpy_backend import BACKEND as NUMPY


@pytest.mark.parametrize(("bits", "parts"), [(11, 2), (8, 3)])
def test_a_full_product_from_rounded_ones(bits, parts, rng):
    """Hardware that rounds what it multiplies to so many bits, as TF32 and bfloat16 do, is simulated."""

    def rounded(x):
        fraction, exponent = np.frexp(x.astype(np.float64))
        return np.ldexp(np.round(fraction * 2.0**bits), exponent - bits).astype(np.float32)

    def product(a, b):
        return rounded(a) @ rounded(b)

    a, b = rng.standard_normal((2, 60, 60)).astype(np.float32)
    a[0] *= 1e20
    true = a.astype(np.float64) @ b.astype(np.float64)
    size = np.linalg.norm(a.astype(float), axis=1, keepdims=True) * np.linalg.norm(b, axis=0)
    assert np.max(np.abs(full_product(product, a, b, np, parts=parts) - true) / size) < 4e-7
    assert np.max(np.abs(product(a, b) - true) / size) > 1e-5
    a[1, 2], a[3, 4] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        full = full_product(product, a, b, np, parts=parts)
    assert np.all(np.isnan(full[1]))
    assert not np.any(np.isfinite(full[3]))
    assert np.all(np.isfinite(full[4:]))


@pytest.mark.parametrize("tile_rows", [None, 100])
def test_wide_sums_pay_where_few_slopes_are_steep(tile_rows, rng, tolerance):
    """Those of coincident rows in float32; second derivatives are as good either way."""
    x = np.repeat(rng.standard_normal((10, 8)), 30, axis=0).astype(np.float32)
    u = rng.standard_normal(x.shape).astype(np.float32)
    true_grad = pair_sum_and_grad(x.astype(np.float64), kernel=LogarithmicKernel())[1]
    (true_change,) = pair_sum_hvp(x.astype(np.float64), u.astype(np.float64), kernel=LogarithmicKernel())
    error = {}
    for wide in (False, True):
        f = PairSum(LogarithmicKernel(), wide, tile_rows)
        grad = f.value_and_gradients(NUMPY, x, None, None, 1.0)[1]
        change = f.hvp(NUMPY, (x, None, None, 1.0, None, 1.0), (u, *[None] * 5))[0]
        assert grad.dtype == change.dtype == np.float32
        error[wide] = np.linalg.norm(grad - true_grad) / np.linalg.norm(true_grad)
        assert np.linalg.norm(change - true_change) <= tolerance["float32"] * np.linalg.norm(true_change)
    assert error[True] < 2e-7
    assert error[False] > 3 * error[True]


def test_without_float64_the_sums_stay_in_float32(offer, rng):
    """A namespace that does not say that it has float64 is taken at its word."""
    rows = {n: array_api_strict.asarray(rng.standard_normal((n, 4)).astype(np.float32)) for n in (50, 100)}
    expected = {n: eccentric_loss_and_grad(z, 5.0)[0] for n, z in rows.items()}
    offer([name for name in NAMESPACE if name != "float64"], float64=None)
    for n, z in rows.items():
        loss, grad = eccentric_loss_and_grad(z, 5.0)
        assert loss.dtype == grad.dtype == array_api_strict.float32
        assert float(loss) == pytest.approx(float(expected[n]), rel=1e-6)


def test_the_constant_part_of_the_slopes_pays(monkeypatch, rng):
    """Near the balance of forces float32 gradients gain from working with w - c; any c gives the same gradient."""
    z = rng.standard_normal((2000, 64))
    z = (z / np.linalg.norm(z, axis=1, keepdims=True) * 8).astype(np.float32)
    true_grad = eccentric_loss_and_grad(z.astype(np.float64))[1]

    def error():
        return np.linalg.norm(eccentric_loss_and_grad(z)[1] - true_grad) / np.linalg.norm(2 / 2000 * z)

    with_c = error()
    monkeypatch.setattr(pairs, "mean_slope", lambda *_: np.zeros((1, 1), np.float32))
    without_c = error()
    assert with_c < 3e-7
    assert without_c < 3e-6
    assert with_c < 0.8 * without_c


@pytest.mark.parametrize("tile_rows", [None, 150])
@pytest.mark.parametrize("dim", [2, 64, 384, 448, 512])  # up to 384 or 448 BLAS libraries sum up in one go
def test_rounding_of_the_distances(dim, tile_rows, rng):
    """The bound of docs/numerics.md: 32 eps max|z - mean|^2 / h on every t."""
    noise = rng.standard_normal((4, 300, dim))
    for x in (noise[0], *(0.1 * noise + 10 * (np.arange(300) % 2)[:, None])):
        rows, seen = x.astype(np.float32), []
        PairSum(Seen(seen), tile_rows=tile_rows).value(NUMPY, rows, None, None, 2.0)
        exact = np.sum((rows.astype(np.float64)[:, None] - rows.astype(np.float64)[None]) ** 2, axis=-1) / 2.0
        centred = rows.astype(np.float64) - np.mean(rows.astype(np.float64), axis=0)
        size = np.max(np.sum(centred**2, axis=1)) / 2.0
        first, last = slice(0, 150), slice(150, 300)
        parts = [(slice(None), slice(None))] if tile_rows is None else [(first, first), (last, last), (first, last)]
        for t, part in zip(seen, parts, strict=True):
            assert t.dtype == np.float32
            assert np.max(np.abs(t - exact[part])) <= 32 * np.finfo(np.float32).eps * size


@dataclass(frozen=True)
class Seen:
    """A kernel that keeps what it is asked for."""

    seen: list

    def value(self, t, xp):  # noqa: ARG002
        self.seen.append(t.copy())
        return t


@pytest.mark.parametrize("tile_rows", [None, 32])
def test_a_row_adds_nothing_with_itself_however_far_it_is(tile_rows, rng):
    # The distance of a row from itself would be rounding: eps times its squared norm, here about 1.
    x = (1000.0 * rng.standard_normal((100, 8))).astype(np.float32)
    f = PairSum(LogarithmicKernel(), tile_rows=tile_rows)
    expected = f.value(NUMPY, x.astype(np.float64), None, None, 1.0)
    assert f.value(NUMPY, x, None, None, 1.0) == pytest.approx(expected, rel=1e-6)
    assert f.value_and_gradients(NUMPY, x, None, None, 1.0)[0] == pytest.approx(expected, rel=1e-6)
