"""The page of Markdown that a call of `reproduce.py` writes."""

from __future__ import annotations

import platform
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from joblib import cpu_count

from reproduction.sections import trend_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eccentric_models.settings import Settings
    from reproduction.lab import Lab
    from reproduction.sections import Section


def page(lab: Lab, command: Sequence[str], sections: Sequence[Section], needed: Iterable[Settings]) -> str:
    """The page, beside its pictures."""
    name = lab.preset.name
    trends = list(chain.from_iterable(section.trends for section in sections))
    came_out = sum(trend.holds for trend in trends)
    parts = [
        f"# The paper's experiments, remade: preset `{name}`",
        "Figures and tables of Li and Blair, *Eccentric Regularization* (IJCNN 2022), from training runs of this "
        "project. Columns headed *paper* are the paper's numbers; all others were measured. Made by "
        f"`tools/reproduce.py {' '.join(command)} --preset {name}`.",
        f"{_trained(lab, needed)} Evaluated on {machine()}.",
    ]
    if trends:
        parts += [
            f"## What comes out\n\n{came_out} of {len(trends)} trends.",
            trend_table(sections).markdown().rstrip(),
        ]
    return "\n\n".join([*parts, *(section.markdown(".png").rstrip() for section in sections)]) + "\n"


def machine() -> str:
    """The processor and the number of cores of this machine."""
    model = platform.processor() or platform.machine()
    try:
        if match := re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            model = match[1]
    except OSError:
        pass  # not Linux
    return f"{model}, {cpu_count()} core{'s' if cpu_count() > 1 else ''}, {platform.system()}"


def _trained(lab: Lab, needed: Iterable[Settings]) -> str:
    """How many runs there are, and with which versions they were made."""
    runs = {lab.runs.folder(settings): settings for settings in needed}
    if not runs:
        return "No training runs."
    versions = Counter(
        ", ".join(f"{name} {version}" for name, version in lab.open(settings).versions.items())
        for settings in runs.values()
    )
    return f"{len(runs)} training runs, by {'; '.join(versions)}."
