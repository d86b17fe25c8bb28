"""The sweep over tiles: which tiles there are, and who drives the loop over them.

A set of n rows is cut into k blocks of p rows and a rest of fewer. Of one set only the tiles on and above the diagonal
are visited: every block with itself, and every unordered pair of blocks once, which integer arithmetic finds from a
single counter. So the loop can be Python's own (`Driver`), or that of a framework which traces a body once and runs it
on the device (`TracedDriver`), there also for sizes that are not known before.

Sums are kept by block and replaced, not changed, as not every library can update a slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import array_api_compat

from eccentric_core.checks import dtype_name

# What `xp` must offer, beside operators and indexing: the functions and the dtypes of the standard that are used in
# the engine, in its kernels and in the energies that are made of it.
NAMESPACE = (
    *("argsort", "astype", "atan2", "concat", "exp", "eye", "float32", "float64", "isfinite", "log", "log1p"),
    *("matmul", "matrix_transpose", "maximum", "mean", "moveaxis", "ones_like", "reciprocal", "reshape", "sqrt"),
    *("stack", "sum", "take", "where", "zeros", "zeros_like"),
)

# An accelerator wants few large tiles.
_TILE_BYTES_ACCELERATOR = 64_000_000

Array: TypeAlias = Any
# Arrays that hold the same rows: of shape (..., n, c), or as columns of shape (..., c, n).
Forms: TypeAlias = tuple[Array, ...]
# What a tile adds to each block: a tuple of arrays or Nones. Of a block with itself, what it adds to that block.
Step: TypeAlias = Callable[..., tuple[tuple[Array | None, ...], tuple[Array | None, ...]]]
Outline: TypeAlias = Callable[[Forms], tuple[Array, ...]]


class Namespace:
    """A namespace that an adapter makes of a library: functions of its own, and for the rest the library's.

    Beside those of `NAMESPACE` it may have `at_least(t, number)`, and `clamp_at_zero(t)` and `zero_diagonal(a)`, which
    may overwrite what they are given.
    """

    def __init__(self, library: Any, **functions: Any) -> None:
        self._library = library
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


@dataclass(frozen=True)
class Driver:
    """The loop in Python for any array library, and what must be known of the library.

    A framework's adapter overrides what the framework knows better.
    """

    xp: Any

    # On a CPU a tile, its kernel values and its slopes should stay in the second-level cache of a core.
    tile_bytes_cpu: ClassVar[int] = 600_000
    # Whether many small batches are taken some at a time.
    splits_batches: ClassVar[bool] = True

    def shape(self, x: Array) -> tuple[Any, ...]:
        """The shape of x: integers, or scalars of the framework where only the device knows them."""
        return tuple(x.shape)

    def rows(self, x: Array) -> Any:
        """The number of rows of x, to calculate with."""
        return x.shape[-2]

    def smaller(self, a: Any, b: Any) -> Any:
        """The smaller of two sizes."""
        return min(a, b)

    def has_float64(self, x: Array) -> bool:
        """Whether the device of x has float64."""
        if not hasattr(self.xp, "__array_namespace_info__"):
            return False
        info = self.xp.__array_namespace_info__()
        return "float64" in info.dtypes(device=array_api_compat.device(x), kind="real floating")

    def on_cpu(self, x: Array) -> bool:
        """Whether x lives on a CPU."""
        # The standard does not name devices. NumPy, PyTorch, JAX and array-api-strict all write "cpu" in theirs; a
        # library that does not gets tiles that are larger than its cache, which costs time and nothing else.
        return "cpu" in str(array_api_compat.device(x)).lower()

    def tile_rows(self, x: Array) -> int:
        """The rows of one tile for the device and the dtype of x."""
        size = self.tile_bytes_cpu if self.on_cpu(x) else _TILE_BYTES_ACCELERATOR
        return max(math.isqrt(size // (8 if dtype_name(x) == "float64" else 4)) // 64, 1) * 64

    def cut(self, form: Array, axis: int, start: Any, count: Any, size: Any) -> Any:
        """Count blocks of that size from one of the last two axes of a form."""
        parts = [slice(start + i * size, start + (i + 1) * size) for i in range(count)]
        return [form[..., part, :] if axis == -2 else form[..., part] for part in parts]

    def take(self, blocks: Any, i: Any) -> Array:
        """Block i."""
        return blocks[i]

    def start(self, blocks: Forms, count: Any, outline: Outline) -> tuple[Any, ...]:
        """Empty sums for every block of a group; the outline tells their shapes."""
        kinds = len(outline(tuple(self.take(form, 0) for form in blocks)))
        return tuple([None] * count for _ in range(kinds))

    def add(self, sums: Any, i: Any, value: Array) -> Any:
        """The sums with a value added to that of block i."""
        sums[i] = value if sums[i] is None else sums[i] + value
        return sums

    def total(self, sums: Any) -> Array:
        """The sum over blocks."""
        return sums[0] if len(sums) == 1 or sums[0] is None else self.xp.sum(self.xp.stack(sums), axis=0)

    def columns(self, sums: Any) -> Array:
        """Blocks of columns, side by side."""
        return sums[0] if len(sums) == 1 else self.xp.concat(sums, axis=-1)

    def repeat(self, count: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
        """Carry body(0, .), ..., body(count - 1, .) on."""
        for turn in range(count):
            carry = body(turn, carry)
        return carry


class TracedDriver(Driver):
    """The loop of a framework that traces a body once: blocks are stacked along a first axis.

    An adapter gives `repeat`, `take` and `add`, which are the framework's loop, gather and scatter-add.
    """

    # Of a compiled body little but the matrix products is written to memory, and those want to be large.
    tile_bytes_cpu: ClassVar[int] = 4_200_000
    splits_batches: ClassVar[bool] = False

    def tile_rows(self, x: Array) -> int:
        """The rows of one tile for all batches side by side."""
        batches = math.prod(size for size in x.shape[:-2] if size is not None)
        return max(math.isqrt(super().tile_rows(x) ** 2 // max(batches, 1)) // 64, 1) * 64

    def cut(self, form: Array, axis: int, start: Any, count: Any, size: Any) -> Any:
        """Count blocks of that size, stacked along a first axis."""
        some = slice(start, start + count * size)
        form = form[..., some, :] if axis == -2 else form[..., some]
        *lead, rows, columns = self.shape(form)
        shape = (count, size, columns) if axis == -2 else (rows, count, size)
        return self.xp.moveaxis(self.xp.reshape(form, (*lead, *shape)), axis - 1, 0)

    def start(self, blocks: Forms, count: Any, outline: Outline) -> tuple[Any, ...]:  # noqa: ARG002
        """Zeros of the shapes of the outline."""
        return tuple(self.xp.zeros_like(form) for form in outline(blocks))

    def total(self, sums: Any) -> Array:
        """The sum over blocks."""
        return self.xp.sum(sums, axis=0)

    def columns(self, sums: Any) -> Array:
        """Blocks of columns, side by side."""
        count, *lead, width, size = self.shape(sums)
        return self.xp.reshape(self.xp.moveaxis(sums, 0, -2), (*lead, width, count * size))


class _Group(NamedTuple):
    """Blocks of one size."""

    count: Any
    blocks: Forms


def sweep(
    sets: Sequence[Forms],
    axes: Sequence[int],
    step: Step,
    outline: Outline,
    driver: Driver,
    tile_rows: int,
    *,
    totals: int,
) -> list[list[Array]]:
    """Visit every tile of one set with itself or of one set with another, and sum what they add.

    Args:
        sets: the forms of one set or of two; all have the same leading axes.
        axes: the axis of the rows in each form, -2 or -1.
        step: step(rows, others, diagonal=...) gives what a tile adds to its rows and to the others.
        outline: maps the forms of some rows to arrays of the shapes of what a tile can add to them: totals of shape
            (...), then columns of shape (..., w, p).
        driver: the loop.
        tile_rows: rows of a tile, p.
        totals: how many of these are totals. Of two sets the first keeps them.

    Returns:
        For every set what the outline lists, of all its rows: shapes (...) and (..., w, n).
    """
    sizes = [driver.shape(forms[0])[axes[0]] for forms in sets]
    if len(sets) == 1 and isinstance(sizes[0], int) and sizes[0] <= tile_rows:
        return [list(step(sets[0], sets[0], diagonal=True)[0])]
    groups = [_groups(forms, axes, n, driver, tile_rows) for n, forms in zip(sizes, sets, strict=True)]
    sums = [[driver.start(group.blocks, group.count, outline) for group in some] for some in groups]
    loops = _Loops(step, driver)
    if len(sets) == 1:
        for a, group in enumerate(groups[0]):
            sums[0][a] = loops.within(group, sums[0][a])
            for b, other in enumerate(groups[0][:a]):
                sums[0][b], sums[0][a] = loops.between(other, group, sums[0][b], sums[0][a])
    else:
        for a, group in enumerate(groups[0]):
            for b, other in enumerate(groups[1]):
                sums[0][a], sums[1][b] = loops.between(group, other, sums[0][a], sums[1][b])
    return [
        [_joined(kind, n, driver, is_total=k < totals) for k, kind in enumerate(zip(*some, strict=True))]
        for n, some in zip(sizes, sums, strict=True)
    ]


def _joined(of_groups: Sequence[Any], n: Any, driver: Driver, *, is_total: bool) -> Array:
    """One kind of sums over all groups of n rows."""
    if not is_total:
        columns = [driver.columns(sums) for sums in of_groups]
        return columns[0] if len(columns) == 1 else driver.xp.concat(columns, axis=-1)[..., :n]
    present = [total for sums in of_groups if (total := driver.total(sums)) is not None]
    return sum(present[1:], start=present[0]) if present else None


class _Loops(NamedTuple):
    step: Step
    driver: Driver

    def within(self, group: _Group, sums: Any) -> Any:
        """The tiles of a group with itself."""
        k = group.count

        def diagonal(i: Any, sums: Any) -> Any:
            rows = self._take(group, i)
            return self._add(sums, i, self.step(rows, rows, diagonal=True)[0])

        def upper(turn: Any, sums: Any) -> Any:
            # i and j = i + 1, i + 2, ... around a circle of k: after k (k - 1) / 2 turns every unordered pair has
            # come once.
            i = turn % k
            j = (i + turn // k + 1) % k
            of_i, of_j = self.step(self._take(group, i), self._take(group, j), diagonal=False)
            return self._add(self._add(sums, i, of_i), j, of_j)

        sums = self.driver.repeat(k, diagonal, sums)
        return self.driver.repeat(k * (k - 1) // 2, upper, sums)

    def between(self, group: _Group, other: _Group, sums: Any, of_other: Any) -> tuple[Any, Any]:
        """The tiles of a group with another."""

        def body(turn: Any, carry: Any) -> Any:
            i, j = turn // other.count, turn % other.count
            of_i, of_j = self.step(self._take(group, i), self._take(other, j), diagonal=False)
            return self._add(carry[0], i, of_i), self._add(carry[1], j, of_j)

        carry: tuple[Any, Any] = self.driver.repeat(group.count * other.count, body, (sums, of_other))
        return carry

    def _take(self, group: _Group, i: Any) -> Forms:
        return tuple(self.driver.take(form, i) for form in group.blocks)

    def _add(self, sums: Any, i: Any, values: tuple[Array | None, ...]) -> Any:
        pairs = zip(sums, values, strict=True)
        return tuple(old if value is None else self.driver.add(old, i, value) for old, value in pairs)


def _groups(forms: Forms, axes: Sequence[int], n: Any, driver: Driver, tile_rows: int) -> list[_Group]:
    """The blocks of p of n rows, and the rest as one smaller block."""
    size = driver.smaller(tile_rows, n)
    count = n // size

    def group(start: Any, count: Any, size: Any) -> _Group:
        parts = zip(forms, axes, strict=True)
        return _Group(count, tuple(driver.cut(form, axis, start, count, size) for form, axis in parts))

    rest = n - count * size
    groups = [group(0, count, size)]
    if not isinstance(rest, int):
        # A loop of no turns is traced all the same, over arrays that may not be empty: there is always one row to cut.
        cut = group(n - (some := rest + 1 - driver.smaller(1, rest)), 1, some)
        return [*groups, cut._replace(count=driver.smaller(1, rest))]
    return [*groups, group(count * size, 1, rest)] if rest else groups


def slices(length: int, size: int) -> list[slice]:
    """Slices of at most size elements; an empty one where there is nothing."""
    return [slice(start, min(start + size, length)) for start in range(0, max(length, 1), size)]
