"""The results of a command of `reproduce.py`: text, tables, pictures and trends, on the screen and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from _command import Claim, Screen, make_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        """The table for a page."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        caption = f"{self.title}:\n\n" if self.title else ""
        return caption + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


@dataclass
class Section:
    """The outcome of one experiment.

    Attributes:
        title: its heading.
        text: paragraphs; line breaks within them are ignored.
        tables: after the text.
        pictures: the figure and its caption, by the name of the file without suffix.
        trends: the statements of the paper, whether they are reproduced, and the numbers.
        versions: of the packages that made each training run of this section alone.
    """

    title: str
    text: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: dict[str, tuple[Figure, str]] = field(default_factory=dict)
    trends: list[Claim] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)

    def show(self, screen: Screen) -> None:
        """Print everything but the pictures."""
        screen.rule(self.title, align="left")
        for paragraph in self._paragraphs():
            screen.print(paragraph, highlight=False, markup=False)
        for table in self.tables:
            shown = make_table(table.title, table.headings)
            for row in table.rows:
                shown.add_row(*row)
            screen.print(shown, markup=False)
        for trend in self.trends:
            line = f"{'yes' if trend.holds else 'NO '}  {trend.text}: {trend.measured}"
            screen.print(line, highlight=False, markup=False, soft_wrap=True)

    def markdown(self, suffix: str) -> str:
        """The section for a page beside its pictures."""
        parts = [f"## {self.title}", *self._paragraphs()]
        parts += [table.markdown().rstrip() for table in self.tables]
        for name, (_, caption) in self.pictures.items():
            parts.append(f"![{caption}]({name}{suffix})\n\n*{caption}*")
        if self.trends:
            parts.append(trend_table([self]).markdown().rstrip())
        return "\n\n".join(parts) + "\n"

    def _paragraphs(self) -> list[str]:
        return [" ".join(paragraph.split()) for paragraph in self.text]


def trend_table(sections: Iterable[Section]) -> Table:
    """The trends of some sections and whether they are reproduced."""
    rows = [
        (trend.text, "yes" if trend.holds else "**no**", trend.measured)
        for section in sections
        for trend in section.trends
    ]
    return Table(("trend", "here", "measured"), rows)


def falls(text: str, courses: Mapping[str, Mapping[float, float]], symbol: str) -> Claim:
    """Whether the values of each course fall as their keys, named by a symbol, grow."""
    ordered = {name: [course[key] for key in sorted(course)] for name, course in courses.items()}
    holds = all(a > b for values in ordered.values() for a, b in pairwise(values))
    keys = ", ".join(f"{key:g}" for key in sorted(next(iter(courses.values()))))
    parts = [f"{', '.join(f'{value:.3f}' for value in values)} {name}".rstrip() for name, values in ordered.items()]
    return Claim(text, holds, f"{'; '.join(parts)} (for {symbol} = {keys})")


def mean_and_spread(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """A mean and a standard deviation in the notation of the paper; of one value the mean alone."""
    mean = f"{factor * np.mean(values):.{digits}f}"
    return f"{mean} ± {factor * np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean
