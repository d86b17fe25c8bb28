#!/usr/bin/env python3
"""Verify that the reference autoencoders behave identically in every framework.

    1. The same weights encode the same images to the same latents, in evaluation and in training mode.
    2. From the same weights, on the same batches, in float64, training gives the same weights and latents.
    3. With --full: over several seeds, in float32, spectra, traces, eccentricities, errors of nearest neighbours and
       aligned angles differ between frameworks by no more than between the seeds of one framework.

The first two take less than three minutes on 2 cores, on scikit-learn's bundled digits. --full trains one run for every
framework and seed, stores it under --runs, and continues where it was interrupted. The exit status is 0 if all hold and
1 if one fails.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _parity
from _agreement import agree, train_all
from _command import Claim, Parser, Screen, UsageError, make_table, open_outputs, run, write_all

from eccentric_models.checkpoint import CheckpointError
from eccentric_models.data import NAMES, DataError, load
from eccentric_models.frameworks import PACKAGES, FrameworkError, missing_packages
from eccentric_models.settings import RunError, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frameworks", nargs="+", choices=PACKAGES, help="two or more (default: all that are installed)"
    )
    parser.add_argument("--full", action="store_true", help="also compare runs of several seeds")
    parser.add_argument("--data", choices=NAMES, default="digits", help="the data of --full (default digits)")
    parser.add_argument("--folder", type=Path, help="the folder of the data")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of --full (default 50)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of --full (default 0 1 2)")
    parser.add_argument("--runs", type=Path, default=Path("runs/verify"), help="where --full stores its runs")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures as JSON")
    options = parser.parse_args(argv)
    try:
        frameworks = chosen(options.frameworks)
        settings = Settings(data=options.data, folder=options.folder, epochs=options.epochs)
        if options.full and len(set(options.seeds)) < 2:
            raise UsageError("argument --seeds: must be two or more different ones, or there is no spread to compare")
        outputs = open_outputs(("--json", options.json, ()))
        dataset = load(settings.data, settings.folder) if options.full else None
    except (UsageError, ValueError, DataError) as error:
        parser.error(str(error))
    screen = Screen()
    differences = list(_parity.compare(_parity.CASES, frameworks))
    print_differences(screen, differences)
    claims = claims_of(differences)
    report: dict[str, Any] = {"parity": [as_json(difference) for difference in differences]}
    if dataset is not None:
        try:
            results = train_all(settings, dataset, frameworks, sorted(set(options.seeds)), options.runs, screen)
        except (RunError, CheckpointError, FrameworkError) as error:
            parser.error(str(error))
        report["runs"], found = agree(results, screen)
        claims += found
    for claim in claims:
        line = f"{'PASS' if claim.holds else 'FAIL'}  {claim.text}: {claim.measured}"
        screen.print(line, highlight=False, soft_wrap=True)
    report["claims"] = [vars(claim) for claim in claims]
    written = write_all(outputs, lambda _: (json.dumps(report, indent=1) + "\n").encode())
    return 2 if not written else 0 if all(claim.holds for claim in claims) else 1


def chosen(names: Sequence[str] | None) -> list[str]:
    installed = [name for name in PACKAGES if not missing_packages(name)]
    frameworks = list(dict.fromkeys(names or installed))
    if missing := set(frameworks) - set(installed):
        raise UsageError(f"argument --frameworks: not installed: {', '.join(sorted(missing))}")
    if len(frameworks) < 2:
        raise UsageError(f"two frameworks are needed to compare, got {', '.join(frameworks) or 'none'}")
    return frameworks


def print_differences(screen: Screen, differences: Sequence[_parity.Difference]) -> None:
    headings = ("network, objective", "pair", "evaluation", "training", "latents,\ntrained", "weights,\ntrained")
    table = make_table("1, 2: the same weights and batches; greatest differences", headings)
    for difference in differences:
        values = [difference.evaluation, difference.training]
        values += [difference.trained, difference.weights] if difference.case.dtype == "float64" else []
        pair = "/".join(difference.pair).replace("tensorflow", "tf")
        table.add_row(str(difference.case), pair, *(f"{value:.1e}" for value in values))
    screen.print(table)


def claims_of(differences: Sequence[_parity.Difference]) -> list[Claim]:
    claims = []
    for dtype in ("float32", "float64"):
        of_dtype = [difference for difference in differences if difference.case.dtype == dtype]
        for mode in ("evaluation", "training"):
            values = [getattr(difference, mode) for difference in of_dtype]
            claims += [claim(f"same weights, {mode} mode, {dtype}", values, of_dtype[0].case.bound)] if values else []
    trained = [difference for difference in differences if difference.case.dtype == "float64"]
    steps = min((difference.case.steps for difference in trained), default=0)
    for name, what in (("trained", "latents"), ("weights", "weights")) if trained else ():
        values = [getattr(difference, name) for difference in trained]
        claims.append(claim(f"{what} after {steps} steps in float64", values, _parity.TRAINED_BOUND))
    return claims


def claim(text: str, values: Sequence[float], bound: float) -> Claim:
    # Written so that NaN does not hold.
    holds = all(value <= bound for value in values)
    return Claim(f"{text} within {bound:.0e}", holds, f"at most {max(values):.1e}" if holds else f"{values}")


def as_json(difference: _parity.Difference) -> dict[str, Any]:
    return {**difference._asdict(), "case": str(difference.case)}


if __name__ == "__main__":
    run(main)
