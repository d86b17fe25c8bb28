"""The sweep over tiles: which tiles there are, and what they add to the sums of their rows.

A set of n rows is divided into k blocks of p rows and a rest of fewer. Of one set only the tiles on and above the
diagonal are visited: every block with itself, and every unordered pair of blocks once, which integer arithmetic finds
from a single counter. So the loop can be Python's own, or that of a framework which traces a body once and runs it on
the device, there also for sizes that are not known before (`eccentric_core.backend`).

Sums are kept by block and replaced, not changed, as not every library can update a slice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eccentric_core.backend import Backend
    from eccentric_core.checks import Array

# What a tile multiplies: arrays that hold the same rows, of shape (..., n, c), or as columns of shape (..., c, n).
Operands: TypeAlias = "tuple[Array, ...]"
# What a tile adds to each block: tuples of arrays or Nones. On the diagonal, one tuple.
Step: TypeAlias = "Callable[..., tuple[tuple[Array | None, ...], ...]]"
# Arrays of the shapes of what a tile can add to some rows: totals of shape (...), then columns of shape (..., w, p).
Templates: TypeAlias = "Callable[[Operands], tuple[Array, ...]]"


class _Group(NamedTuple):
    """Blocks of one size."""

    count: Any
    blocks: Operands


def sweep(
    sets: Sequence[Operands],
    axes: Sequence[int],
    step: Step,
    templates: Templates,
    backend: Backend,
    tile_rows: int,
    *,
    totals: int,
) -> list[list[Array]]:
    """Visit every tile of one set with itself or of one set with another, and sum what they add.

    Args:
        sets: the operands of one set or of two; all have the same leading axes.
        axes: the axis of the rows in each operand, -2 or -1.
        step: step(rows, others, diagonal=...) gives what a tile adds to its rows and to the others.
        templates: maps the operands of some rows to arrays of the shapes of what a tile can add to them.
        backend: the loop.
        tile_rows: rows of a tile, p.
        totals: how many of these are totals. Of two sets the first keeps them.

    Returns:
        For every set what the templates list, of all its rows: shapes (...) and (..., w, n).
    """
    sizes = [backend.shape(operands[0])[axes[0]] for operands in sets]
    if len(sets) == 1 and isinstance(sizes[0], int) and sizes[0] <= tile_rows:
        return [list(step(sets[0], sets[0], diagonal=True)[0])]
    groups = [_groups(operands, axes, n, backend, tile_rows) for n, operands in zip(sizes, sets, strict=True)]
    sums = [[backend.zero_sums(templates, group.blocks, group.count) for group in some] for some in groups]
    loops = _Loops(step, backend)
    if len(sets) == 1:
        for a, group in enumerate(groups[0]):
            sums[0][a] = loops.diagonal(group, sums[0][a])
            if a == 0:  # the rest is a single block
                sums[0][a] = loops.upper(group, sums[0][a])
            for b, other in enumerate(groups[0][:a]):
                sums[0][b], sums[0][a] = loops.between(other, group, sums[0][b], sums[0][a])
    else:
        for a, group in enumerate(groups[0]):
            for b, other in enumerate(groups[1]):
                sums[0][a], sums[1][b] = loops.between(group, other, sums[0][a], sums[1][b])
    return [
        [_joined(kind, n, backend, is_total=k < totals) for k, kind in enumerate(zip(*some, strict=True))]
        for n, some in zip(sizes, sums, strict=True)
    ]


def _joined(by_group: Sequence[Any], n: Any, backend: Backend, *, is_total: bool) -> Array:
    """One kind of sums over all groups of n rows."""
    if not is_total:
        return backend.join_columns(by_group)[..., :n]
    present = [total for sums in by_group if (total := backend.sum_of_blocks(sums)) is not None]
    return sum(present[1:], start=present[0]) if present else None


class _Loops(NamedTuple):
    step: Step
    backend: Backend

    def diagonal(self, group: _Group, sums: Any) -> Any:
        """The tiles of the blocks of a group with themselves."""

        def body(i: Any, sums: Any) -> Any:
            rows = self._take(group, i)
            return self._add(sums, i, self.step(rows, rows, diagonal=True)[0])

        return self.backend.repeat(group.count, body, sums)

    def upper(self, group: _Group, sums: Any) -> Any:
        """The tiles of the pairs of blocks of a group."""
        k = group.count

        def body(turn: Any, sums: Any) -> Any:
            # i and j = i + 1, i + 2, ... around a circle of k: after k (k - 1) / 2 turns every unordered pair has
            # come once.
            i = turn % k
            j = (i + turn // k + 1) % k
            sums_i, sums_j = self.step(self._take(group, i), self._take(group, j), diagonal=False)
            return self._add(self._add(sums, i, sums_i), j, sums_j)

        return self.backend.repeat(k * (k - 1) // 2, body, sums)

    def between(self, group: _Group, other: _Group, sums: Any, other_sums: Any) -> tuple[Any, Any]:
        """The tiles of a group with another."""

        def body(turn: Any, carry: Any) -> Any:
            i, j = turn // other.count, turn % other.count
            sums_i, sums_j = self.step(self._take(group, i), self._take(other, j), diagonal=False)
            return self._add(carry[0], i, sums_i), self._add(carry[1], j, sums_j)

        carry: tuple[Any, Any] = self.backend.repeat(group.count * other.count, body, (sums, other_sums))
        return carry

    def _take(self, group: _Group, i: Any) -> Operands:
        return tuple(self.backend.take(operand, i) for operand in group.blocks)

    def _add(self, sums: Any, i: Any, values: tuple[Array | None, ...]) -> Any:
        pairs = zip(sums, values, strict=True)
        return tuple(old if value is None else self.backend.add(old, i, value) for old, value in pairs)


def _groups(operands: Operands, axes: Sequence[int], n: Any, backend: Backend, tile_rows: int) -> list[_Group]:
    """The blocks of p of n rows, and the rest as one smaller block."""

    def group(start: Any, count: Any, size: Any) -> _Group:
        parts = zip(operands, axes, strict=True)
        return _Group(count, tuple(backend.blocks(operand, axis, start, count, size) for operand, axis in parts))

    size = backend.maximum(1, backend.minimum(tile_rows, n))
    count, rest = n // size, n % size
    if isinstance(n, int):
        return [group(0, count, size), *([group(count * size, 1, rest)] if rest else [])]
    # A loop of no turns is traced all the same, over arrays that may not be empty: each group has a block of one row at
    # least, though it may not come.
    whole, some = backend.maximum(1, count), backend.maximum(1, rest)
    remainder = group(backend.maximum(0, n - some), 1, some)
    return [group(0, whole, size)._replace(count=count), remainder._replace(count=backend.minimum(1, rest))]
