"""Presets: the data, the length and the number of the training runs, by name. The code is the same for all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eccentric_models.settings import Settings
from reproduction.paper import TABLE1
from reproduction.trainings import ARMS, Training

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Preset:
    """A budget.

    Attributes:
        name: of the preset.
        digits: the runs of Table 2 and Figure 6, one for every dimension and seed.
        planar: those of Figure 3, with two latent dimensions.
        faces: those of Figures 7, 8 and 9, two for every lambda.
        spread: those of Table 1, Figures 5 and 10, Tables 3 and 4: objectives, lambda, mu and seeds vary.
        classifier: those of the experiment on hyperspherical energies: arms and seeds vary.
        dims: of Table 2.
        digit_seeds, seeds, classifier_seeds: of Table 2, of the runs of `spread`, of those of `classifier`.
        labels: numbers of training items with labels in Table 2.
        subsets: the number of random subsets of each size.
        mus: of Figure 5; the first and the last are those of Table 3.
        corners: the components of Figure 8 whose signs change from column to column, and from row to row.
        minima: pairs of dimensions and sizes of batches of section 3.3.
        remarks: reasons why results may differ from the paper's, by command.
    """

    name: str
    digits: Settings
    planar: Settings
    faces: Settings
    spread: Settings
    classifier: Training
    dims: tuple[int, ...] = (2, 4, 6, 8)
    digit_seeds: tuple[int, ...] = (0, 1, 2)
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    classifier_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    labels: tuple[int, ...] = (10, 100, 1000, 10_000, 60_000)
    subsets: int = 20
    mus: tuple[float, ...] = (1.0, 1.5, 4.5, 16.5, 64.5)
    corners: tuple[tuple[int, ...], tuple[int, ...]] = ((6, 11, 3), (2, 10, 9))
    minima: tuple[tuple[int, ...], tuple[int, ...]] = ((2, 4, 8, 16, 32, 64), (100, 1000))
    remarks: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def everywhere(self, folders: Mapping[str, Path | None], **changes: Any) -> Preset:
        """The preset with folders of the data, and with changed settings in all runs that have them."""
        bases = {
            name: dataclasses.replace(
                base,
                folder=folders.get(base.data),
                **{setting: value for setting, value in changes.items() if hasattr(base, setting)},
            )
            for name, base in vars(self).items()
            if isinstance(base, Settings | Training)
        }
        return dataclasses.replace(self, **bases)

    # Every figure and table takes its runs from one of these.

    def by_dim(self) -> dict[int, list[Settings]]:
        """Table 2: the seeds of every dimension."""
        return {
            dim: [dataclasses.replace(self.digits, dim=dim, seed=seed) for seed in self.digit_seeds]
            for dim in self.dims
        }

    def first_by_dim(self) -> list[Settings]:
        """Figure 6: one seed of every dimension."""
        return [seeds[0] for seeds in self.by_dim().values()]

    def plane(self) -> dict[tuple[float, float], Settings]:
        """Figure 3: by lambda and mu."""
        return {
            (lam, mu): dataclasses.replace(self.planar, dim=2, lam=lam, mu=mu)
            for mu in (1.0, 2.5)
            for lam in (0.1, 0.01, 0.001)
        }

    def face_pairs(self) -> dict[float, tuple[Settings, Settings]]:
        """Figures 7 to 9: two runs for every lambda."""
        return {
            lam: (dataclasses.replace(self.faces, lam=lam, seed=0), dataclasses.replace(self.faces, lam=lam, seed=1))
            for lam in (1e-4, 1e-3)
        }

    def by_objective(self) -> dict[tuple[str, float], list[Settings]]:
        """Table 1: the seeds of every objective and lambda."""
        return {(kind, lam): self._seeds(objective=kind, lam=lam) for kind, lam in TABLE1}

    def by_mu(self) -> dict[tuple[float, float], list[Settings]]:
        """Figure 5: the seeds of every lambda and mu."""
        return {(lam, mu): self._seeds(lam=lam, mu=mu) for lam in (1e-4, 1e-3) for mu in self.mus}

    def by_extreme_mu(self) -> dict[tuple[float, float], list[Settings]]:
        """Table 3: those of Figure 5 with the least and the greatest mu."""
        return {key: runs for key, runs in self.by_mu().items() if key[1] in (self.mus[0], self.mus[-1])}

    def with_attributes(self) -> Settings:
        """Table 4: one of the runs of Table 3."""
        return self.by_mu()[1e-4, self.mus[0]][0]

    def by_arm(self) -> dict[str, list[Training]]:
        """Hyperspherical energies: the seeds of every arm."""
        return {
            name: [dataclasses.replace(self.classifier, arm=arm, seed=seed) for seed in self.classifier_seeds]
            for name, arm in ARMS.items()
        }

    def _seeds(self, **changes: Any) -> list[Settings]:
        return [dataclasses.replace(self.spread, seed=seed, **changes) for seed in self.seeds]


_SMALL_DIGITS = Settings(data="digits", width=0.25, learning_rate=3e-3, epochs=3)
_MNIST = Settings(data="mnist", learning_rate=1e-3, epochs=10)
_HALF_MNIST = Settings(data="mnist", width=0.5, learning_rate=3e-3, epochs=2)
_PAPER_FACES = Settings(data="celeba", dim=64, epochs=100)
_PAPER_MNIST = Settings(data="mnist", epochs=1000)

# Reasons why results of the preset cpu may differ from the paper's. They do not depend on the results.
_CPU_REMARKS = {
    "minimum": """−0.386 d is the limit for large d. In two dimensions the loss on the sphere itself is lower than that,
        and the loss of a small batch is lower still; the floor is its bound.""",
    "figure5": """The output of an encoder is centred and scaled by running averages of batch normalisation. At a
        constant learning rate of 0.003 these differ from the averages of the final weights: the two columns of
        traces show by how much. This adds to the spread between seeds, too.""",
    "table1": """Expected differences from the paper: in eight dimensions aligned angles have less room to fall than
        in 64; two epochs are too few for a λ below 1e-4 to bring the trace to d; the signs of axes are arbitrary, so
        raw angles scatter around 90° (the paper's do not, and it does not state how it chose signs); images are
        blurred after two epochs, and rows whose scores differ by less than their spread between seeds cannot be
        distinguished.""",
    "table2": """These runs have a hundredth of the paper's epochs. With ten labels there is another reason for
        differences: ten random items miss 3.5 of ten classes on average, so the error of neighbours is at least 35 %.
        The paper's 33.7 % suggests that its ten labels were one of each class; here they are
        drawn at random.""",
    "table3": """Here the attributes are the classes of digits, in eight dimensions; in the paper they are attributes of
        faces, in 64.""",
}

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "smoke",
            digits=_SMALL_DIGITS,
            planar=_SMALL_DIGITS,
            faces=_SMALL_DIGITS,
            spread=_SMALL_DIGITS,
            classifier=Training("digits", images=300, epochs=2),
            classifier_seeds=(0, 1),
            digit_seeds=(0, 1),
            seeds=(0, 1),
            labels=(10, 100, 1000),
            subsets=3,
            mus=(1.0, 8.5),
            corners=((1, 2, 3), (4, 5, 6)),
            minima=((2, 8), (100,)),
        ),
        Preset(
            "cpu",
            digits=_MNIST,
            planar=_HALF_MNIST,
            faces=Settings(data="olivetti", dim=16, width=0.125, learning_rate=1e-3, epochs=100),
            spread=_HALF_MNIST,
            classifier=Training("fashion-mnist", images=3000, epochs=20),
            mus=(1.0, 2.5, 8.5),
            remarks=_CPU_REMARKS,
        ),
        Preset(
            "paper",
            digits=_PAPER_MNIST,
            planar=_PAPER_MNIST,
            faces=_PAPER_FACES,
            spread=_PAPER_FACES,
            classifier=Training("fashion-mnist", images=60_000, epochs=100),
        ),
    )
}


def describe(runs: Iterable[Settings]) -> str:
    """A description of training runs."""
    runs = list(runs)
    first = runs[0]

    def values(name: str, of: Iterable[Settings] = runs) -> str:
        return ", ".join(f"{value:g}" for value in sorted({getattr(run, name) for run in of}))

    width = f"network {first.width:g} times as wide as the paper's" if first.width != 1 else ""
    mus = f"μ = {values('mu')}" if any(run.objective == "eccentric" for run in runs) else ""
    lams = f"λ = {values('lam')}" if len({run.objective for run in runs}) == 1 else ""
    course = f"{first.epochs} epochs of batches of {first.batch_size} at a learning rate of {first.learning_rate:g}"
    seeds = f"seed{'s' if len({run.seed for run in runs}) > 1 else ''} {values('seed')}"
    parts = (first.data, width, f"d = {values('dim')}", lams, mus, course, seeds, first.framework)
    return f"Trained here: {', '.join(part for part in parts if part)}."
