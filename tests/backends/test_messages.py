"""What is wrong with an argument is said in the same words in every framework and mode."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import eccentric_core
from eccentric_core import LogarithmicKernel

GOOD = np.zeros((4, 3), np.float32)


def words(error):
    """The message, without what a framework puts around the name of a dtype."""
    return re.sub(r"torch\.(?=\w*\d)|<dtype: '(\w+)'>", r"\1", str(error))


def check(framework, name, arrays, dtypes, options, error):
    """The function fails as that of `eccentric_core` does: in words and, where it is called as it is, in type."""
    with pytest.raises(error) as expected:
        getattr(eccentric_core, name)(*(a.astype(d) for a, d in zip(arrays, dtypes, strict=True)), **options)
    function = getattr(framework.module, name)
    with framework.context(double=False):
        rows = [framework.array(a, d) for a, d in zip(arrays, dtypes, strict=True)]
        f = framework.evaluated(lambda *rows: function(*rows, **options))
        with pytest.raises(Exception) as caught:  # noqa: PT011  compilers wrap it
            framework.compile(f, rows)(*rows)
    message = words(expected.value)
    if framework.name in ("tensorflow-unknown", "torch-compile"):  # a shape is written with names or None there
        message = message.partition(", got")[0]
    assert message in words(caught.value).replace("\\'", "'")
    assert isinstance(caught.value, error) or framework.compiled


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mu": 0.5}, ValueError),
        ({"mu": math.nan}, ValueError),
        ({"mu": "1"}, TypeError),
        ({"mu": [1.0, 2.0]}, TypeError),
        ({"mu": 1e35, "scale": 1.0}, ValueError),
        ({"scale": "papre"}, ValueError),
        ({"scale": -1.0}, ValueError),
        ({"scale": math.inf}, ValueError),
        ({"scale": None}, ValueError),
        ({"scale": True}, ValueError),
        ({"scale": [1.0, 2.0]}, TypeError),
        ({"scale": 1e-39}, ValueError),
    ],
    ids=repr,
)
def test_bad_parameter(differentiable, options, error):
    check(differentiable, "eccentric_loss", [GOOD], ["float32"], options, error)


@pytest.mark.parametrize(
    ("rows", "dtype", "options", "error"),
    [
        (GOOD[:, :1], "float32", {}, ValueError),
        (GOOD[:, :0], "float32", {"scale": 1.0}, ValueError),
        (GOOD[:1], "float32", {}, ValueError),
        (GOOD[:0], "float32", {}, ValueError),
        (GOOD[0], "float32", {}, ValueError),
        (GOOD[0, 0], "float32", {}, ValueError),
        (GOOD, "int32", {}, TypeError),
        (GOOD, "bool", {}, TypeError),
        (GOOD, "complex64", {}, TypeError),
    ],
    ids=lambda value: value.shape if isinstance(value, np.ndarray) else None,
)
def test_bad_rows(differentiable, rows, dtype, options, error):
    if differentiable.name == "tensorflow-unknown" and (rows.ndim == 0 or rows.shape[0] < 2):
        pytest.skip("the number of rows is not known before the graph runs")
    check(differentiable, "eccentric_loss", [rows], [dtype], options, error)


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "error"),
    [
        ((4, 2), "float32", {"kernel": LogarithmicKernel()}, ValueError),
        ((2, 4, 3), "float32", {"kernel": LogarithmicKernel()}, ValueError),
        ((0, 3), "float32", {"kernel": LogarithmicKernel()}, ValueError),
        ((4, 3), "int32", {"kernel": LogarithmicKernel()}, TypeError),
        ((4, 3), "float16", {"kernel": LogarithmicKernel(), "bandwidth": 0.0}, ValueError),
        ((4, 3), "float32", {"kernel": LogarithmicKernel(), "bandwidth": "1"}, TypeError),
    ],
    ids=repr,
)
def test_bad_sets(differentiable, shape, dtype, options, error):
    if differentiable.name == "tensorflow-unknown" and 0 in shape:
        pytest.skip("the number of rows is not known before the graph runs")
    check(differentiable, "pair_sum", [GOOD, np.zeros(shape)], ["float32", dtype], options, error)


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
def test_two_dtypes(differentiable, name):
    """Not in JAX, which has float64 in a context alone."""
    if differentiable.name != name:
        pytest.skip("one dtype in a mode")
    with pytest.raises(TypeError, match=r"y must have the dtype of x, got .*float64.* beside .*float32.*; convert one"):
        differentiable.module.pair_sum(
            differentiable.array(GOOD, "float32"), differentiable.array(GOOD, "float64"), kernel=LogarithmicKernel()
        )


@pytest.mark.parametrize("z", [GOOD.tolist(), None, 1.0, "z"], ids=repr)
def test_no_tensor(differentiable, z):
    if differentiable.compiled:
        pytest.skip("compilers make arrays of what they are given")
    with pytest.raises(TypeError) as expected:
        eccentric_core.eccentric_loss(z)
    with pytest.raises(TypeError, match=re.escape(str(expected.value))):
        differentiable.module.eccentric_loss(z)
