"""Checks of arguments: every message names the argument, what was expected, what came, and the remedy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from eccentric_core.backend import Backend

    Floats: TypeAlias = NDArray[np.float64]

# Arrays of any library that the array API standard covers; the standard has no static type yet.
Array: TypeAlias = Any
# A Python or NumPy number, or a 0-d tensor of the framework of the rows.
Number: TypeAlias = Any
Scale: TypeAlias = Literal["paper", "exact"] | Number

# Small multiples of mu must not overflow.
_LARGEST_MU = 1e300
_MU_MESSAGE = (
    f"mu must be finite and greater than 1/2 (else large batches collapse to the origin) and at most "
    f"{_LARGEST_MU:g}, got "
)

_NUMBERS = (float, int)
_COMPUTED_IN = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}


def dtype_name(array: Array) -> str:
    """The bare name of an array's dtype ("float32"), whatever library the array is from."""
    dtype = array.dtype
    return str(dtype.name if hasattr(dtype, "name") else dtype).rpartition(".")[2]


def compute_dtype(array: Array, name: str) -> str:
    """The dtype to compute in: float64 for float64, float32 for every other real floating dtype."""
    dtype = dtype_name(array)
    if dtype not in _COMPUTED_IN:
        raise TypeError(
            f"{name} must be a real floating array (float64, float32, float16 or bfloat16), got {dtype}; "
            f"convert it first, for instance to float32"
        )
    return _COMPUTED_IN[dtype]


def is_number(value: Any) -> bool:
    """Whether a value is a number, of Python or a symbol of a compiler, and no tensor."""
    if isinstance(value, _NUMBERS):
        return True
    like_one = hasattr(value, "__float__") or hasattr(value, "__int__")  # a symbol of a whole number has the second
    return like_one and not hasattr(value, "dtype") and not isinstance(value, type)


def is_tensor(value: Any) -> bool:
    """Whether an argument that may be None, a number or a tensor is a tensor."""
    return value is not None and not is_number(value)


def is_real(array: Array) -> bool:
    """Whether the dtype is of real numbers, whole or floating."""
    return dtype_name(array).startswith(("float", "bfloat", "int", "uint"))


def check_batch(array: Array, name: str = "z", *, min_rows: int = 2, min_dim: int = 1) -> tuple[int, int]:
    """Check a batch of latent vectors of shape (..., n, d) by its static facts alone; return (n, d)."""
    shape = tuple(array.shape)
    if len(shape) < 2:
        raise ValueError(
            f"{name} must have at least two axes (..., n, d), got shape {shape}; "
            f"for one vector per item use {name}[:, None], for one item {name}[None, :]"
        )
    compute_dtype(array, name)
    rows, dim = shape[-2:]
    if dim is None:
        raise ValueError(f"{name} must have a known dimension d, got shape {shape}; set its last axis")
    dim = dim if isinstance(dim, int) else int(dim)  # a symbol of a compiler
    if isinstance(rows, int) and rows < min_rows:  # a framework may learn the rows later
        raise ValueError(
            f"{name} must hold at least {min_rows} row{'s' * (min_rows > 1)} (n of shape (..., n, d)), "
            f"got n={rows} in shape {shape}; drop the incomplete batch or make batches larger"
        )
    if dim < min_dim:
        remedy = "; give scale as a number for such a space" if dim == 1 else ""
        raise ValueError(
            f"{name} must have at least {min_dim} latent dimension{'s' * (min_dim > 1)} (d of shape (..., n, d)), "
            f"got d={dim} in shape {shape}{remedy}"
        )
    return rows, dim


def check_pair(x: Array, y: Array, x_dim: Any, y_dim: Any, names: tuple[str, str]) -> None:
    """Check by static facts that two sets have the same leading axes, dimension and dtype to compute in."""
    known = zip((*y.shape[:-2], y_dim), (*x.shape[:-2], x_dim), strict=False)
    if len(y.shape) != len(x.shape) or any(None not in pair and pair[0] != pair[1] for pair in known):
        raise ValueError(
            f"{names[1]} must have the leading axes and the dimension of {names[0]}, got {tuple(y.shape)} beside "
            f"{tuple(x.shape)}"
        )
    if compute_dtype(y, names[1]) != compute_dtype(x, names[0]):
        raise TypeError(
            f"{names[1]} must have the dtype of {names[0]}, got {y.dtype} beside {x.dtype}; convert one of them"
        )


def parameter(value: Any, name: str, backend: Backend, like: Array) -> Any:
    """A number as a Python float, or a 0-d tensor of the framework in the dtype that rows like these are computed in.

    The value of a tensor is not looked at, so that it may be traced.
    """
    if isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "dtype")):
        raise parameter_error(name, value)
    if isinstance(value, int | float):
        # A conversion would make a constant of a number that is traced.
        return 1.0 * value if backend.compiling() else as_float(value)
    # A compiler makes tensors of NumPy's numbers.
    if not backend.compiling() and isinstance(value, np.generic | np.ndarray):
        if value.shape != () or value.dtype.kind not in "iuf":
            raise parameter_error(name, value)
        return float(value)
    return backend.scalar(value, like, name)


def as_float(value: Any) -> float:
    """A number as a float; a whole number beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def static_float(value: Any) -> float:
    """A number as a float that is a constant of what is compiled, as one that selects a formula must be."""
    # By way of a text, which PyTorch's compiler makes of constants alone.
    return float(f"{float(value)}")


def parameter_error(name: str, value: Any) -> TypeError:
    """What to say of a parameter that is no number."""
    if isinstance(value, list | tuple):
        came = f"a {type(value).__name__} of {len(value)}; call once per {name}"
    elif tuple(getattr(value, "shape", ())):
        came = f"an array of shape {tuple(value.shape)}; call once per {name}"
    else:
        came = repr(value)
    return TypeError(f"{name} must be a real number or a 0-d tensor of the framework of the rows, got {came}")


def check_bandwidth(bandwidth: object, dtype: str, name: str) -> None:
    """Check that a number has an inverse and a square that the dtype can hold; a tensor's value is not looked at."""
    largest = 1e30 if dtype == "float32" else 1e290
    if isinstance(bandwidth, float) and not 1 / largest <= bandwidth <= largest:
        raise ValueError(f"{name} must be from {1 / largest:g} to {largest:g} in {dtype}, got {bandwidth!r}")


def check_mu(mu: object) -> None:
    """Check a mu that is a number."""
    if isinstance(mu, float) and not 0.5 < mu <= _LARGEST_MU:
        raise ValueError(_MU_MESSAGE + f"{mu!r}; the paper uses mu from 1 to d + 1/2")


def check_number(value: object, name: str, expected: str) -> None:
    """Check that a value is a finite number of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    if not -math.inf < as_float(value) < math.inf:  # not math.isfinite, which no compiler traces
        raise ValueError(f"{name} must be finite, got {value!r}")


def mu_array(mu: object) -> Floats:
    """Convert mu to float64: finite and above 1/2."""
    values = _real_array(mu, "mu")
    good = (values > 0.5) & (values <= _LARGEST_MU)
    if not np.all(good):
        raise ValueError(_MU_MESSAGE + f"{_worst(values, good)}; the paper uses mu from 1 to d + 1/2")
    return values


def dim_array(dim: object) -> Floats:
    """Convert dim to float64: whole numbers from 2 up."""
    return _whole_from_2(dim, "dim", "a sphere needs two dimensions")


def batch_size_array(batch_size: object) -> Floats:
    """Convert batch_size to float64: whole numbers from 2 up."""
    return _whole_from_2(batch_size, "batch_size", "a pair needs two rows; None stands for an infinite batch")


def nonnegative_array(value: object, name: str) -> Floats:
    """Convert a radius or a distance to float64; NaN passes through."""
    values = _real_array(value, name)
    if np.any(values < 0):
        raise ValueError(f"{name} must not be negative, got {_worst(values, ~(values < 0))}")
    return values


def _whole_from_2(value: object, name: str, reason: str) -> Floats:
    values = _real_array(value, name)
    # From 2^53 on float64 does not know every whole number.
    good = (values >= 2) & (values < 2.0**53) & (values == np.floor(values))
    if not np.all(good):
        raise ValueError(
            f"{name} must be a whole number, 2 or more ({reason}) and below 2^53, got {_worst(values, good)}"
        )
    return values


def _real_array(value: Any, name: str) -> Floats:
    try:
        array = np.asarray(value)
    except ValueError as error:  # a ragged list
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a real number or an array of real numbers, got {value!r} ({array.dtype})")
    return array.astype(np.float64, copy=False)


def _worst(values: ArrayLike, good: ArrayLike) -> str:
    """Describe the first value that is not good."""
    array = np.atleast_1d(np.asarray(values))
    bad = array[~np.atleast_1d(np.asarray(good))]
    value = float(bad.flat[0]) if bad.size else float(array.flat[0])
    text = repr(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
    return text if array.size == 1 else f"{text} among {array.size} values"
