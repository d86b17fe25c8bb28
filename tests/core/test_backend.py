"""Which backend an array has, what is refused, and how little a library must offer."""

from __future__ import annotations

import subprocess
import sys

import array_api_strict
import numpy as np
import pytest
import scipy.sparse

from eccentric_core import (
    AdversarialProjection,
    LearnedProjection,
    LogarithmicKernel,
    compressive_energy,
    eccentric_loss,
    eccentric_loss_and_grad,
    hyperspherical_energy,
    hyperspherical_energy_and_grad,
    init_projection,
    inverse_multiquadric_mmd,
    pair_kernel,
    pair_sum,
    pair_sum_and_grad,
    pair_sum_hvp,
    uniformity,
    update_projection,
)
from eccentric_core.backend import Backend, Namespace, TracedBackend, backend_of
from eccentric_core.engine.pairs import PairSum
from eccentric_core.numpy_backend import BACKEND as NUMPY


class Frame:
    """What pandas and others have: a shape and an axis of names, and no array API."""

    shape = (4, 3)
    dtype = np.dtype(np.float64)
    columns = ("a", "b", "c")

    def __array__(self, *_, **__):
        return np.zeros(self.shape)

    def __getitem__(self, _):
        return self


class Rows(np.ndarray):
    """A subclass that somebody made."""


Z = np.random.default_rng(0).standard_normal((4, 3))
NO_ARRAYS = {
    "list": Z.tolist(),
    "tuple": tuple(Z),
    "NoneType": None,
    "str": "z",
    "float": 1.0,
    "Frame": Frame(),
    "matrix": Z.view(np.matrix),
    "MaskedArray": np.ma.masked_array(Z),
    "memoryview": memoryview(Z),
    **{
        type(sparse).__name__: sparse
        for make in (scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.coo_array, scipy.sparse.lil_matrix)
        for sparse in [make(Z)]
    },
}


# Every function that takes arrays, by the name of an argument.
FUNCTIONS = [
    ("z", backend_of),
    ("prior", lambda array: backend_of(array, "prior")),
    ("z", eccentric_loss),
    ("z", eccentric_loss_and_grad),
    ("z", uniformity),
    ("z", lambda array: inverse_multiquadric_mmd(array, Z)),
    ("prior", lambda array: inverse_multiquadric_mmd(Z, array)),
    ("w", hyperspherical_energy),
    ("w", hyperspherical_energy_and_grad),
    ("w", compressive_energy),
    ("w", init_projection),
    ("w", lambda array: update_projection(LearnedProjection(Z, AdversarialProjection()), array)),
    ("x", lambda array: pair_sum(array, kernel=LogarithmicKernel())),
    ("x", lambda array: pair_sum_and_grad(array, kernel=LogarithmicKernel())),
    ("x", lambda array: pair_sum_hvp(array, Z, kernel=LogarithmicKernel())),
    ("y", lambda array: pair_sum(Z, array, kernel=LogarithmicKernel())),
    ("x", lambda array: pair_kernel(array, Z)),
    ("y", lambda array: pair_kernel(Z, array)),
]


@pytest.mark.parametrize("kind", NO_ARRAYS)
@pytest.mark.parametrize("case", range(len(FUNCTIONS)))
def test_what_is_no_plain_array_is_refused(case, kind):
    name, function = FUNCTIONS[case]
    if (case, kind) == (15, "NoneType"):
        assert function(None) == pair_sum(Z, kernel=LogarithmicKernel())  # one set
        return
    with pytest.raises(TypeError) as caught:
        function(NO_ARRAYS[kind])
    expected = f"{name} must be a plain array of shape (..., n, d), got {kind}; make it an array first"
    assert str(caught.value) == expected


def test_the_type_of_an_array_decides():
    assert backend_of(Z) is NUMPY
    assert backend_of(Z.view(Rows)) is NUMPY
    strict = array_api_strict.asarray(Z)
    assert type(backend_of(strict)) is Backend
    assert backend_of(strict) is backend_of(array_api_strict.asarray(Z))
    assert backend_of(strict) is not NUMPY
    assert eccentric_loss(Z.view(Rows)) == eccentric_loss(Z)


def test_a_class_of_several_bases_has_the_backend_of_one():
    class Named:
        name = "rows"

    class NamedRows(Named, np.ndarray):
        pass

    assert backend_of(Z.view(NamedRows)) is NUMPY


def test_no_framework_is_imported_for_another():
    code = (
        "import sys, numpy, eccentric_core, array_api_strict\n"
        "z = numpy.ones((4, 3))\n"
        "for rows in (z, array_api_strict.asarray(z)):\n"
        "    eccentric_core.eccentric_loss(rows, numpy.float32(2))\n"
        "print(sorted({'torch', 'jax', 'tensorflow', 'mlx', 'keras'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_what_a_namespace_adds(library):
    """The greater of t and a number, and matrices without their diagonal; NaN stays."""
    xp = backend_of(library.array(Z)).xp
    t = np.asarray([[[1.0, -2.0], [np.nan, 0.5]], [[-0.0, 3.0], [-1.0, np.inf]]])

    def own(array):
        """What may be overwritten."""
        return library.xp.asarray(array.copy())

    np.testing.assert_array_equal(library.numpy(xp.clamp(library.array(t), 0.75)), np.maximum(t, 0.75))
    np.testing.assert_array_equal(library.numpy(xp.clamp_at_zero(own(t))), np.maximum(t, 0.0))
    expected = t.copy()
    expected[:, [0, 1], [0, 1]] = 0.0
    np.testing.assert_array_equal(library.numpy(xp.zero_diagonal(own(t))), expected)
    assert xp.clamp(library.array(t, "float32"), 0.75).dtype == library.xp.float32


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_products_of_a_namespace(library, lead, rng):
    """beta c + alpha a b, and a graph's Laplacian times rows, of matrices in any order in memory."""
    w, a, x, c = (rng.standard_normal((*lead, *shape)) for shape in ((5, 5), (5, 5), (5, 2), (5, 2)))
    xp, numpy = backend_of(library.array(Z)).xp, library.numpy

    def own(array):
        return library.xp.asarray(array.copy(order="K"))

    expected = 3.0 * c + 0.5 * a @ x
    np.testing.assert_allclose(numpy(xp.add_product(own(c), own(a), own(x), alpha=0.5, beta=3.0)), expected, rtol=1e-13)
    for order in (w, w.mT):
        weight = order.sum(axis=-1, keepdims=True)
        expected = 0.5 * (weight * x - order @ x)
        for linear, more in ((None, 0.0), ((own(c), 3.0), 3.0 * c)):
            product, found = xp.laplacian_product(own(order), own(x), 0.5, linear)
            np.testing.assert_allclose(numpy(product), expected + more, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(numpy(found), weight, rtol=1e-13, atol=1e-14)
        expected = order.copy()
        expected[..., range(5), range(5)] = 0.0
        np.testing.assert_array_equal(numpy(xp.zero_diagonal(own(order))), expected)


def test_overrides_of_a_namespace_come_first():
    xp = Namespace(np, exp=lambda _: "mine")
    assert xp.exp(0.0) == "mine"
    assert xp.log1p is np.log1p
    assert xp.hypot is np.hypot  # nothing that the core uses
    with pytest.raises(AttributeError, match="nowhere"):
        _ = xp.nowhere


@pytest.mark.parametrize("rng", [3, np.random.RandomState(0), "seed"])
def test_a_source_of_random_numbers_that_is_none(rng):
    with pytest.raises(TypeError, match=r"rng must be a numpy\.random\.Generator or None, got"):
        NUMPY.normal(Z, rng)


def test_normal_numbers(library):
    """Of a shape, in the dtype to compute in, the same for the same source; without one they are drawn anew."""
    backend = backend_of(library.array(Z))
    for dtype, expected in (("float64", "float64"), ("float32", "float32")):
        like = library.array(Z, dtype)
        one, other = (backend.normal(like, np.random.default_rng(3))((2, 3)) for _ in range(2))
        assert one.dtype == getattr(library.xp, expected)
        known = np.random.default_rng(3).standard_normal((2, 3)).astype(expected)
        for array in (one, other):
            np.testing.assert_array_equal(library.numpy(array), known)
        draw = backend.normal(like, None)
        assert not np.array_equal(library.numpy(draw((4,))), library.numpy(draw((4,))))


def test_no_group_of_processes():
    for array in (Z, array_api_strict.asarray(Z)):
        package = type(array).__module__.partition(".")[0]
        with pytest.raises(TypeError, match=f"group must be None for arrays of {package}, got 'all'"):
            eccentric_loss(array, group="all")


class Stacked(TracedBackend):
    """A framework that traces a body once, simulated: blocks along a first axis, and indices that are arrays."""

    def has_float64(self, x):  # noqa: ARG002
        return True

    def on_cpu(self, x):  # noqa: ARG002
        return True

    def take(self, blocks, i):
        assert isinstance(i, np.integer)
        return blocks[i]

    def add(self, sums, i, value):
        sums = sums.copy()
        sums[i] += value
        return sums

    def repeat(self, count, body, carry):
        for turn in np.arange(count):
            carry = body(turn, carry)
        return carry


@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize("m", [None, 17, 50])
def test_the_loop_of_a_framework_that_traces(lead, m, rng):
    """Sums of blocks that are stacked are those of Python's own loop."""
    stacked = Stacked(NUMPY.xp)
    x, u = rng.standard_normal((2, *lead, 43, 4))
    y, v = (None, None) if m is None else rng.standard_normal((2, *lead, m, 4))
    e, de = rng.uniform(0, 1, (2, *lead, 43, 1)) if m is None else (None, None)
    (h, r), (a, da), (b, db) = rng.uniform(1, 2, (3, 2, *lead))
    arrays, directions = (x, y, e, h, a, b), (u, v, de, r, da, db)
    for tile_rows in (8, 43, 64):
        f = PairSum(LogarithmicKernel(), tile_rows=tile_rows)
        known = PairSum(LogarithmicKernel())
        for found, expected in (
            (f.value_and_gradients(stacked, *arrays), known.value_and_gradients(NUMPY, *arrays)),
            ((f.value(stacked, *arrays),), (known.value(NUMPY, *arrays),)),
            (f.hvp(stacked, arrays, directions), known.hvp(NUMPY, arrays, directions)),
        ):
            for one, other in zip(found, expected, strict=True):
                if other is None:
                    assert one is None
                else:
                    assert one.shape == other.shape
                    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * np.abs(other).max())


def test_traced_tiles_share_the_cache_among_batches():
    stacked = Stacked(NUMPY.xp)
    one, many = np.zeros((10, 3)), np.zeros((100, 10, 3))
    assert stacked.tile_rows(one) > NUMPY.tile_rows(one)
    assert stacked.tile_rows(many) <= stacked.tile_rows(one) // 8
    assert stacked.tile_rows(np.zeros((10**6, 1, 1))) == 64
