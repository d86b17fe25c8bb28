"""The page of Markdown that a call of `reproduce.py` writes."""

from __future__ import annotations

import platform
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from joblib import cpu_count

from reproduction.sections import trend_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eccentric_models.settings import Settings
    from reproduction.lab import Lab
    from reproduction.sections import Section


class Source(NamedTuple):
    """The source of the experiments of a page: its heading and the text below it."""

    heading: str
    about: str


ECCENTRIC = Source(
    "The paper's experiments, reproduced",
    "Figures and tables of Li and Blair, *Eccentric Regularization* (IJCNN 2022), from training runs of this project. "
    "Columns headed *paper* are the paper's numbers; all others were measured.",
)
ENERGIES = Source(
    "Hyperspherical energies in a classifier",
    "An experiment after Liu et al., *Learning towards Minimum Hyperspherical Energy* (MHE, NeurIPS 2018), and Lin et "
    "al., *Regularizing Neural Networks via Minimizing Hyperspherical Energy* (CoMHE, CVPR 2020), with a smaller "
    "network and fewer images than theirs. All numbers were measured.",
)


def page(
    lab: Lab,
    command: Sequence[str],
    sources: Sequence[Source],
    sections: Sequence[Section],
    needed: Iterable[Settings],
) -> str:
    """The page, to be stored beside its pictures."""
    name, about = lab.preset.name, " ".join(source.about for source in sources)
    trends = list(chain.from_iterable(section.trends for section in sections))
    reproduced = sum(trend.holds for trend in trends)
    parts = [
        f"# {'; '.join(source.heading for source in sources)}: preset `{name}`",
        f"{about} Made by `tools/reproduce.py {' '.join(command)} --preset {name}`.",
        f"{_trained(lab, sections, needed)} Evaluated on {machine()}.",
    ]
    if trends:
        parts += [
            f"## Summary\n\n{reproduced} of {len(trends)} trends are reproduced.",
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


def _trained(lab: Lab, sections: Iterable[Section], needed: Iterable[Settings]) -> str:
    """The number of runs, and the versions that trained them."""
    runs = {lab.runs.folder(settings): settings for settings in needed}
    of_sections = chain.from_iterable(section.versions for section in sections)
    versions = [*(lab.open(settings).versions for settings in runs.values()), *of_sections]
    if not versions:
        return "No training runs."
    texts = dict.fromkeys(", ".join(f"{name} {version}" for name, version in of.items()) for of in versions)
    return f"{len(versions)} training runs, by {'; '.join(texts)}."
