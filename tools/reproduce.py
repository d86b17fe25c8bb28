#!/usr/bin/env python3
"""Reproduce the figures and tables of the paper from training runs of this project, each number beside the paper's.

    figure1, figure2   radius error over d; repulsive force over distance
    minimum            the loss that descent reaches, section 3.3
    figure3            two latent dimensions
    figure5            spectra over lambda and mu
    figure6, figure7   paired eigen-digits; eigen-faces of two runs
    figure8            all sign combinations of six components
    figure9            correlation of two runs before and after alignment
    table1             eccentricity, angles between runs, Frechet score; with Figure 10
    table2             nearest neighbours with few labels
    table3, table4     binary attributes: classifiers, single components
    all                all of the above, on one page
    mhe                not of the paper and not part of all: hyperspherical energies in a small classifier (PyTorch)

Pictures and a page of Markdown go to --out, tables and the trends of the paper to the screen. A training run is stored
under --runs by its configuration: it is trained once, and an interrupted run continues.
Presets: smoke (scikit-learn's digits, minutes), cpu (MNIST and Olivetti faces, about two hours on 2 cores; for mhe
Fashion-MNIST, half an hour), paper (the epochs, seeds and data of the paper; needs CelebA and a GPU).
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from _command import Parser, Screen, UsageError, run
from reproduction import diversity, figures, tables
from reproduction.drawing import png
from reproduction.lab import Lab
from reproduction.page import ECCENTRIC, ENERGIES, Source, page
from reproduction.presets import PRESETS, Preset

from eccentric_models.data import DataError
from eccentric_models.files import replacing
from eccentric_models.frameworks import PACKAGES, FrameworkError
from eccentric_models.runs import Runs, backend
from eccentric_models.safetensors_files import CheckpointError
from eccentric_models.settings import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from reproduction.sections import Section

    from eccentric_models.settings import Settings


class Experiment(NamedTuple):
    """One command: the autoencoders that it needs, the function that makes its section, and its source."""

    needs: Callable[[Preset], Iterable[Settings]]
    make: Callable[[Lab], Section]
    source: Source = ECCENTRIC


def _all_of(groups: Callable[[Preset], dict[object, Sequence[Settings]]]) -> Callable[[Preset], Iterable[Settings]]:
    return lambda preset: chain.from_iterable(groups(preset).values())


EXPERIMENTS = {
    "figure1": Experiment(lambda _: (), figures.radius_error),
    "figure2": Experiment(lambda _: (), figures.force),
    "minimum": Experiment(lambda _: (), figures.minimum),
    "figure3": Experiment(lambda preset: preset.plane().values(), figures.plane),
    "figure5": Experiment(_all_of(Preset.by_mu), figures.eigenvalues),
    "figure6": Experiment(Preset.first_by_dim, figures.eigen_digits),
    "figure7": Experiment(lambda preset: preset.face_pairs()[1e-4], figures.eigen_faces),
    "figure8": Experiment(lambda preset: preset.face_pairs()[1e-4][:1], figures.corners),
    "figure9": Experiment(_all_of(Preset.face_pairs), figures.cross_correlation),
    "table1": Experiment(_all_of(Preset.by_objective), tables.table1),
    "table2": Experiment(_all_of(Preset.by_dim), tables.table2),
    "table3": Experiment(_all_of(Preset.by_extreme_mu), tables.table3),
    "table4": Experiment(lambda preset: [preset.with_attributes()], tables.table4),
    "mhe": Experiment(lambda _: (), diversity.energies, ENERGIES),
}
ALL = [name for name, experiment in EXPERIMENTS.items() if experiment.source is ECCENTRIC]

# Data sets that have an option for their folder.
DATA = ("mnist", "fashion-mnist", "olivetti", "celeba")

_EXPECTED = (UsageError, RunError, CheckpointError, DataError, FrameworkError, OSError, ValueError)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    names = list(dict.fromkeys(chain.from_iterable(ALL if name == "all" else [name] for name in options.command)))
    folders = {name: getattr(options, name.replace("-", "_")) for name in DATA}
    screen = Screen(least=140)  # for Table 1
    try:
        if "mhe" in names and options.framework != "torch":
            raise UsageError(f"mhe trains in PyTorch, got --framework {options.framework}; leave it out")
        preset = PRESETS[options.preset].everywhere(folders, framework=options.framework, device=options.device)
        out = options.out or Path("reports") / preset.name
        out.mkdir(parents=True, exist_ok=True)
        lab = Lab(preset, Runs(options.runs))
        needed = list(chain.from_iterable(EXPERIMENTS[name].needs(preset) for name in names))
        for settings in {settings.data: settings for settings in needed}.values():
            lab.dataset(settings)  # errors in the data appear before hours of training
        with backend(options.backend, options.jobs, options.address):
            lab.runs.complete(needed)
            sections = [make(screen, lab, name, out) for name in names]
        sources = list(dict.fromkeys(EXPERIMENTS[name].source for name in names))
        text = page(lab, options.command, sources, sections, needed)
        with replacing(out / ("report.md" if "all" in options.command else f"{'-'.join(names)}.md")) as file:
            file.write(text.encode())
    except _EXPECTED as error:
        parser.error(" ".join(str(error).split()))
    return 0


def make(screen: Screen, lab: Lab, name: str, out: Path) -> Section:
    """Evaluate one experiment on finished runs; show it and save its pictures."""
    section = EXPERIMENTS[name].make(lab)
    if remark := lab.preset.remarks.get(name):
        section.text.append(remark)
    for stem, (figure, _) in section.pictures.items():
        with replacing(out / f"{stem}.png") as file:
            file.write(png(figure))
    section.show(screen)
    return section


def make_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+", choices=[*EXPERIMENTS, "all"], help="one or more of the above")
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="the budget (default smoke)")
    parser.add_argument(
        "--framework", choices=PACKAGES, default="torch", help="the framework that trains (default torch)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="the device (default auto)")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="the folder of its four files (default: download)")
    parser.add_argument("--fashion-mnist", type=Path, metavar="DIR", help="the same for Fashion-MNIST, for mhe")
    parser.add_argument(
        "--olivetti", type=Path, metavar="DIR", help="the folder of olivetti_64.npz (default: download)"
    )
    parser.add_argument("--celeba", type=Path, metavar="DIR", help="the official folder, for --preset paper")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="where runs are stored"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for pictures and page (default reports/PRESET)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default 1; -1: all cores)")
    parser.add_argument(
        "--backend", choices=("loky", "dask", "ray"), default="loky", help="of joblib: this machine, or a cluster"
    )
    parser.add_argument("--address", metavar="URL", help="of a cluster of dask or ray (default: one on this machine)")
    return parser


if __name__ == "__main__":
    run(main)
