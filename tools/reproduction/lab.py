"""The input of every experiment: a preset, its finished runs, their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eccentric_models.data import Dataset
    from eccentric_models.runs import Run, Runs
    from eccentric_models.settings import Settings
    from reproduction.presets import Preset


@dataclass(frozen=True)
class Lab:
    """A preset and the runs that were trained for it."""

    preset: Preset
    runs: Runs

    def dataset(self, settings: Settings) -> Dataset:
        return self.runs.dataset(settings)

    def open(self, settings: Settings) -> Run:
        return self.runs.open(settings)

    def open_all(self, wanted: Iterable[Settings]) -> list[Run]:
        return [self.open(settings) for settings in wanted]
