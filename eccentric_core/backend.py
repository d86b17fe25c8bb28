"""What a backend is, and which one an array has.

A backend lets one library compute what the core defines. It is a namespace of array functions, a loop over tiles, the
registration of derivatives, a source of normal numbers and a few facts about the device. It holds no mathematics.

The type of an array decides. A framework is imported only by its own backend, and that only when one of its arrays
arrives. `Backend` itself serves every library that follows the array API standard and differentiates nothing.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import array_api_compat
import numpy as np

from eccentric_core.checks import Array, compute_dtype, is_real, parameter_error
from eccentric_core.derivatives import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The functions and dtypes of the array API standard that the core uses. A backend whose library spells them otherwise
# gives its own. A user's kernel may use whatever else the library has.
NAMESPACE = (
    *("arange", "argsort", "asarray", "astype", "atan2", "concat", "exp", "float32", "float64", "isfinite", "log"),
    *("log1p", "matmul", "matrix_transpose", "mean", "moveaxis", "ones_like", "reciprocal", "reshape", "sqrt", "stack"),
    *("sum", "take", "where", "zeros_like"),
)

# An accelerator wants few large tiles.
_TILE_BYTES_ACCELERATOR = 64_000_000


class Namespace:
    """The functions that the core calls: overrides first, otherwise the library's.

    Those below are no part of the standard. `clamp_at_zero(t)`, `zero_diagonal(t)`, `inverse(t)`, `laplacian_product(w,
    ...)` and `add_product(c, ...)` may overwrite their first argument, `add_scaled(c, a, factor)` the first two.
    """

    # Whether the squared norms of rows are best read from the diagonal of their product.
    squares_from_product: bool = True

    def __init__(self, library: Any, **overrides: Any) -> None:
        self._library = library
        # Attributes of the object itself: no Python code runs when one is looked up.
        own = {*overrides, *dir(type(self))}
        self.__dict__.update({name: getattr(library, name) for name in NAMESPACE if name not in own})
        self.__dict__.update(overrides)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def clamp(self, t: Array, lower: float) -> Array:
        """The greater of t and a number, where NaN stays NaN."""
        return self.maximum(t, self.asarray(lower, dtype=t.dtype, device=array_api_compat.device(t)))

    def clamp_at_zero(self, t: Array) -> Array:
        """The greater of t and 0."""
        return self.clamp(t, 0.0)

    def zero_diagonal(self, t: Array) -> Array:
        """The matrices t with zeros on their diagonals, whatever stood there."""
        eye = self.eye(t.shape[-1], dtype=t.dtype, device=array_api_compat.device(t))
        return self.where(eye > 0.5, self.zeros_like(eye), t)

    def total(self, x: Array) -> Array:
        """The sum over the last two axes."""
        return self.sum(x, axis=(-2, -1))

    def square_norm(self, x: Array) -> Array:
        """The sum of squares over the last two axes."""
        return self.total(x * x)

    def sums_of_rows(self, x: Array) -> Array:
        """The sum of each row, of shape (..., n, 1)."""
        return self.sum(x, axis=-1, keepdims=True)

    def squares_of_rows(self, x: Array) -> Array:
        """The square norm of each row, of shape (..., n, 1)."""
        return self.sum(x * x, axis=-1, keepdims=True)

    def diagonal(self, t: Array) -> Array:
        """The diagonals of the matrices t."""
        n = t.shape[-1]
        return self.reshape(t, (*t.shape[:-2], n * n))[..., :: n + 1]

    def gram(self, x: Array, factor: float) -> Array:
        """The products of all rows with each other, times a factor."""
        return self.matmul(x * factor, self.matrix_transpose(x))

    def inverse(self, t: Array) -> Array:
        """1/t, number by number."""
        return self.reciprocal(t)

    def add_scaled(self, c: Array, a: Array, factor: Any) -> Array:
        """The sum c + factor a; the factor is a number or a tensor."""
        return c + a * factor

    def add_product(self, c: Array, a: Array, b: Array, *, alpha: Any, beta: Any) -> Array:
        """The matrices beta c + alpha a b."""
        return c * beta + self.matmul(a, b) * alpha

    def laplacian_product(
        self, w: Array, x: Array, factor: Any, linear: tuple[Array, Any] | None
    ) -> tuple[Array, Array]:
        """The rows f sum_j w_ij (x_i - x_j) + g c_i, and sum_j w_ij.

        The factor is f, and linear is (c, g), or None for 0. The first sum is L x, with L the Laplacian matrix of a
        graph with the weights w.
        """
        weight = self.sums_of_rows(w)
        product = self.add_product(weight * x, w, x, alpha=-factor, beta=factor)
        return product if linear is None else product + linear[0] * linear[1], weight


class Backend:
    """A library that follows the array API standard: the loop in Python, no derivatives."""

    # On a CPU a tile, its kernel values and its slopes should stay in the second-level cache of a core.
    tile_bytes_cpu: ClassVar[int] = 600_000
    # Up to so many rows the dense form is the faster one for a kernel in place, whatever the device and the dtype are;
    # 0 where a compiler asks anyway.
    always_dense: ClassVar[int] = 0

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    # What an argument is.

    def refusal(self, array: Array) -> str | None:  # noqa: ARG002
        """What is wrong with the kind of an array, and the remedy; None if nothing."""
        return None

    def beside(self, values: Any, like: Array) -> Array:
        """Values as an array in the dtype that an array like this one is computed in, and on its device."""
        dtype = getattr(self.xp, compute_dtype(like, "z"))
        return self.xp.asarray(values, dtype=dtype, device=like.device)

    def scalar(self, value: Any, like: Array, name: str) -> Array:
        """A 0-d tensor of the framework beside an array."""
        good = tuple(value.shape) == ()
        if good and not self.compiling():  # a compiler makes tensors of NumPy's numbers
            good = _backend_or_none(value) is self and is_real(value) and self.refusal(value) is None
        if not good:
            raise parameter_error(name, value)
        return self.beside(value, like)

    # Derivatives.

    # NaN and inf propagate to the result; warnings on the way would repeat it. As a decorator this takes a third of the
    # time of a block.
    @np.errstate(all="ignore")
    def run(self, formula: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        """formula(self, *arrays, **static), compiled or guarded as the library likes it."""
        return formula(self, *arrays, **static)

    def differentiable(self, f: Any, *arguments: Any) -> Array:
        """The value of f with its derivatives. An argument may be None or a number, which has none."""
        call, tensors = Call.of(f, arguments)
        return self.registered(call, *tensors)

    def value_and_gradients(self, f: Any, *arguments: Any) -> tuple[Any, ...]:
        """The value of f and its gradient with respect to each argument (None where it is no tensor).

        No derivatives go through them.
        """
        results: tuple[Any, ...] = f.value_and_gradients(self, *arguments)
        return results

    def registered(self, call: Call, *tensors: Array) -> Array:
        """The value of a call as a function that the library differentiates."""
        return call.value(self, *tensors)

    def compiling(self) -> bool:
        """Whether a compiler follows this very code, so that no NumPy can be called."""
        return False

    def constant(self, x: Array) -> Array:
        """x, through which no derivative goes."""
        return x

    # Batches that are spread over processes or devices.

    def gather(self, x: Array, group: Any) -> Array:
        """The rows of all processes."""
        raise TypeError(f"group must be None for arrays of {type(x).__module__.partition('.')[0]}, got {group!r}")

    def total(self, value: Array, group: Any) -> Array:
        """The sum over all processes."""
        raise NotImplementedError

    # Random numbers.

    def normal(self, like: Array, rng: Any) -> Callable[[tuple[int, ...]], Array]:
        """A source of standard normal numbers of a shape, in the dtype to compute in, on the device of an array."""
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator or None, got {rng!r}")
        generator = np.random.default_rng() if rng is None else rng
        dtype, device = getattr(self.xp, compute_dtype(like, "w")), array_api_compat.device(like)
        return lambda shape: self.xp.asarray(generator.standard_normal(shape), dtype=dtype, device=device)

    # Facts about arrays and the device.

    def shape(self, x: Array) -> tuple[Any, ...]:
        """The shape of x: integers, or scalars of the framework where only the device knows them."""
        return tuple(x.shape)

    def rows(self, x: Array) -> Any:
        """The number of rows of x, to calculate with."""
        return x.shape[-2]

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two sizes."""
        return min(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two sizes."""
        return max(a, b)

    def has_float64(self, x: Array) -> bool:
        """Whether the device of x has float64."""
        if not hasattr(self.xp, "__array_namespace_info__"):
            return False
        info = self.xp.__array_namespace_info__()
        return "float64" in info.dtypes(device=array_api_compat.device(x), kind="real floating")

    def on_cpu(self, x: Array) -> bool:
        """Whether x lives on a CPU."""
        # The standard does not name devices, but all libraries write "cpu" in theirs. One that does not gets tiles
        # that are larger than its cache, which costs time and nothing else.
        return "cpu" in str(array_api_compat.device(x)).lower()

    def tile_rows(self, x: Array) -> int:
        """The rows of one tile for the device and the dtype of x."""
        size = self.tile_bytes_cpu if self.on_cpu(x) else _TILE_BYTES_ACCELERATOR
        return max(math.isqrt(size // (8 if x.dtype == self.xp.float64 else 4)) // 64, 1) * 64

    def splits_batches(self) -> bool:
        """Whether many small batches are computed some at a time."""
        return True

    def dense_rows(self, x: Array, *, in_place: bool) -> int:  # noqa: ARG002
        """The rows up to which the dense form is the faster one: those of a tile, or more for a kernel in place."""
        return self.tile_rows(x)

    # The loop over tiles: blocks of rows, and sums by block.

    def blocks(self, array: Array, axis: int, start: Any, count: Any, size: Any) -> Any:
        """Count blocks of that size from one of the last two axes of an array."""
        parts = [slice(start + i * size, start + (i + 1) * size) for i in range(count)]
        return [array[..., part, :] if axis == -2 else array[..., part] for part in parts]

    def take(self, blocks: Any, i: Any) -> Array:
        """Block i."""
        return blocks[i]

    def zero_sums(self, templates: Callable[[Any], tuple[Array, ...]], blocks: Any, count: Any) -> tuple[Any, ...]:
        """Empty sums for every block of a group, of the shapes that templates(rows of a block) has."""
        return tuple([None] * count for _ in templates(tuple(self.take(operand, 0) for operand in blocks)))

    def add(self, sums: Any, i: Any, value: Array) -> Any:
        """The sums with a value added to that of block i."""
        sums[i] = value if sums[i] is None else sums[i] + value
        return sums

    def sum_of_blocks(self, sums: Any) -> Array:
        """The sum over blocks."""
        return sums[0] if len(sums) == 1 or sums[0] is None else self.xp.sum(self.xp.stack(sums), axis=0)

    def join_columns(self, groups: Sequence[Any]) -> Array:
        """The blocks of columns of all groups, side by side."""
        columns = [block for sums in groups for block in sums]
        return columns[0] if len(columns) == 1 else self.xp.concat(columns, axis=-1)

    def repeat(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Carry body(0, .), ..., body(count - 1, .) on."""
        for turn in range(count):
            carry = body(turn, carry)
        return carry


class TracedBackend(Backend):
    """The loop of a framework that traces a body once: blocks are stacked along a first axis.

    A backend gives `repeat`, `take` and `add`, which are the framework's loop, gather and scatter-add.
    """

    # Of a compiled body little but the matrix products is written to memory, and those want to be large.
    tile_bytes_cpu: ClassVar[int] = 4_200_000

    def splits_batches(self) -> bool:
        """They share one loop."""
        return False

    def tile_rows(self, x: Array) -> int:
        """The rows of one tile for all batches side by side."""
        batches = math.prod(size for size in x.shape[:-2] if isinstance(size, int))
        return max(math.isqrt(super().tile_rows(x) ** 2 // max(batches, 1)) // 64, 1) * 64

    def blocks(self, array: Array, axis: int, start: Any, count: Any, size: Any) -> Any:
        """Count blocks of that size, stacked along a first axis."""
        part = slice(start, start + count * size)
        array = array[..., part, :] if axis == -2 else array[..., part]
        *lead, rows, columns = self.shape(array)
        shape = (count, size, columns) if axis == -2 else (rows, count, size)
        return self.xp.moveaxis(self.xp.reshape(array, (*lead, *shape)), axis - 1, 0)

    def zero_sums(self, templates: Callable[[Any], tuple[Array, ...]], blocks: Any, count: Any) -> tuple[Any, ...]:  # noqa: ARG002
        """Zeros of these shapes."""
        return tuple(self.xp.zeros_like(array) for array in templates(blocks))

    def sum_of_blocks(self, sums: Any) -> Array:
        """The sum over blocks."""
        return self.xp.sum(sums, axis=0)

    def join_columns(self, groups: Sequence[Any]) -> Array:
        """The blocks of columns of all groups, side by side."""
        return super().join_columns([[self._side_by_side(sums) for sums in groups]])

    def _side_by_side(self, sums: Array) -> Array:
        count, *lead, width, size = self.shape(sums)
        return self.xp.reshape(self.xp.moveaxis(sums, 0, -2), (*lead, width, count * size))


# Types that are found at once, entered by their backends: a name and an import take a part of a small batch's time.
BACKENDS: dict[type, Backend] = {}


def backend_of(array: Array, name: str = "z") -> Backend:
    """The backend of an array, which is imported when the first array of its framework arrives.

    Args:
        array: an argument that must be an array or a tensor.
        name: of the argument, for the message.

    Raises:
        TypeError: it is neither, or of a kind without plain numbers (sparse, ragged, masked, symbolic).
    """
    backend = BACKENDS.get(type(array)) or _backend_or_none(array)
    refusal = f"{type(array).__name__}; make it an array first" if backend is None else backend.refusal(array)
    if refusal is not None:
        raise TypeError(f"{name} must be a plain array of shape (..., n, d), got {refusal}")
    return backend  # type: ignore[return-value]  # None is refused


def _backend_or_none(array: Any) -> Backend | None:
    return _backend_of_type(type(array)) or _standard_backend(array)


def _backend_of_type(kind: type) -> Backend | None:
    # Plain statements, as compilers follow those: no match, and no import by name.
    backend: Any = None
    package = kind.__module__.partition(".")[0]
    if package == "torch":
        from eccentric_torch.backend import BACKEND as backend  # noqa: N811
    elif package in ("jax", "jaxlib"):
        from eccentric_jax.backend import BACKEND as backend  # noqa: N811
    elif package == "tensorflow":
        from eccentric_tensorflow.backend import BACKEND as backend  # noqa: N811
    elif package == "mlx":
        from eccentric_mlx import BACKEND as backend  # noqa: N811
    elif package == "numpy":
        from eccentric_core.numpy_backend import BACKEND as backend  # noqa: N811
    elif package != "builtins":  # a subclass that somebody made
        for base in kind.__bases__:
            backend = _backend_of_type(base) if backend is None else backend
    found: Backend | None = backend
    return found


def _standard_backend(array: Any) -> Backend | None:
    """The backend of any other library that follows the array API standard."""
    if not array_api_compat.is_array_api_obj(array):
        return None
    return _backend_of_namespace(array_api_compat.array_namespace(array))


@cache
def _backend_of_namespace(library: Any) -> Backend:
    return Backend(Namespace(library))
