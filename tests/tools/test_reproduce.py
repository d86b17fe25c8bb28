"""tools/reproduce.py: all of it on little data, and that it says so where a trend does not come out."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import reproduce
from PIL import Image
from reproduction import figures, tables
from reproduction.page import machine
from reproduction.paper import Table1Row
from reproduction.presets import PRESETS, Preset, describe
from reproduction.sections import Section, Table, falls, mean_and_spread, trend_table

from eccentric_core import spectrum
from eccentric_models import runs as runs_module
from eccentric_models.data import Split, load
from eccentric_models.runs import LATENTS, Runs
from eccentric_models.training import CHECKPOINT

PICTURES = ("figure1", "figure2", "figure3", "figure5", "figure6", "figure7", "figure8", "figure9", "figure10")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """All runs of the preset, but shorter, of narrower networks and of a third of the images."""
    folder = tmp_path_factory.mktemp("smoke")
    digits = load("digits")
    train, test = (Split(s.images[::3], s.labels[::3]) for s in (digits.train, digits.test))
    few = replace(digits, train=train, test=test)
    options = ("--jobs", "1", "--runs", str(folder / "runs"), "--out", str(folder / "out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "smoke", PRESETS["smoke"].everywhere({}, epochs=1, width=0.1))
        patch.setattr(runs_module, "load", lambda *which: few if which[0] == "digits" else load(*which))
        assert reproduce.main(["all", *options]) == 0
        yield folder


@pytest.fixture
def again(smoke, tmp_path, monkeypatch):
    """Single commands on the runs that are there; give the page."""
    monkeypatch.setattr(runs_module, "train", lambda *_, **__: pytest.fail("trained again"))

    def call(*names):
        assert reproduce.main([*names, "--runs", str(smoke / "runs"), "--out", str(tmp_path)]) == 0
        return (tmp_path / f"{'-'.join(names)}.md").read_text()

    return call


def test_the_page_has_everything(smoke):
    page = (smoke / "out" / "report.md").read_text()
    titles = [
        *("Summary", "Figure 1:", "Figure 2:", "Section 3.3", "Figure 3", "Figure 5", "Figure 6", "Figure 7"),
        *("Figure 8", "Figure 9", "Table 1 and Figure 10", "Table 2", "Table 3", "Table 4"),
    ]
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert len(headings) == len(titles)
    assert all(heading.startswith(title) for heading, title in zip(headings, titles, strict=True))
    assert re.findall(r"^!\[.+\]\((.*)\.png\)$", page, re.MULTILINE) == list(PICTURES)
    assert "nan" not in page
    assert machine() in page
    assert "FCD" in page
    assert "It is not FID" in page
    came_out, of = map(int, re.search(r"^(\d+) of (\d+) trends", page, re.MULTILINE).groups())
    summary = page.partition("## Figure 1")[0]
    assert summary.count("| yes |") == came_out
    assert summary.count("| **no** |") == of - came_out > 0


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(smoke, name):
    path = smoke / "out" / f"{name}.png"
    assert path.stat().st_size < 200_000
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 300
    assert pixels.std() > 10
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):  # nothing is cut off
        assert np.all(edge == 255)


def test_runs_are_shared(again):
    page = again("figure6", "table4")
    assert page.count("## ") == 3  # with the trends
    assert "5 training runs" in page


def columns(page, heading):
    """The table under a heading, as a list of columns."""
    lines = page.partition(f"## {heading}")[2].splitlines()
    rows = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    table = rows[: next((i for i, row in enumerate(rows) if row[0] == "trend"), None)]
    return list(zip(*table, strict=True))


@pytest.mark.parametrize(("name", "heading"), [("table1", "Table 1"), ("table2", "Table 2"), ("table3", "Table 3")])
def test_the_papers_numbers_stand_in_its_columns_alone(again, monkeypatch, name, heading):
    before = columns(again(name), heading)
    changed = {
        "TABLE1": dict.fromkeys(tables.TABLE1, Table1Row(7.7, "7.7", "7.7", "7.7")),
        "TABLE2": {dim: dict.fromkeys(of, "7.7") for dim, of in tables.TABLE2.items()},
        "TABLE3": {key: dict.fromkeys(of, "7.7") for key, of in tables.TABLE3.items()},
    }
    for table, values in changed.items():
        monkeypatch.setattr(tables, table, values)
    after = columns(again(name), heading)
    assert [column[0] for column in before] == [column[0] for column in after]
    for old, new in zip(before, after, strict=True):
        if old[0].startswith("paper"):
            assert set(new[2:]) <= {"7.7", ""}
        else:
            assert old == new


class FakeLab:
    """A preset whose runs are what a function makes of their settings."""

    def __init__(self, latents, *, name="cpu"):
        self.preset, self.latents = PRESETS[name], latents

    def open(self, settings):
        train, test = self.latents(settings)
        fitted = spectrum(train)
        coordinates = fitted.transform(train), fitted.transform(test)
        return SimpleNamespace(
            settings=settings,
            spectrum=fitted,
            coordinates=coordinates,
            train=train,
            test=test,
            training_trace=fitted.trace,
        )

    def open_all(self, wanted):
        return [self.open(settings) for settings in wanted]

    def dataset(self, settings):  # noqa: ARG002
        split = SimpleNamespace(labels=np.arange(200) % 3)
        return SimpleNamespace(train=split, test=split)


def as_in_the_paper(settings):
    """The more even, the larger lambda and mu are, the same in every run but for some noise, of trace d."""
    rng = np.random.default_rng(0)
    noise = np.random.default_rng([settings.seed, 1])
    evenness = np.log10(settings.lam) + 6 + 0.1 * settings.mu
    scale = np.linspace(1, 0.2, settings.dim) ** (1 / evenness)
    z = rng.standard_normal((400, settings.dim)) * scale
    if settings.dim == 2:  # Figure 3
        z *= (1 - 1 / evenness) / np.linalg.norm(z, axis=1, keepdims=True) + 1 / evenness
        z = z @ np.diag(scale)
    z += 10 * settings.lam * noise.standard_normal(z.shape) + 0.01 * noise.standard_normal(z.shape)
    z *= np.sqrt(settings.dim / np.sum(np.var(z, axis=0)))
    return z[:200], z[200:]


def failing(section):
    return [trend.text for trend in section.trends if not trend.holds]


class TestTrends:
    def test_they_hold_where_they_should(self):
        lab = FakeLab(as_in_the_paper)
        for make in (figures.eigenvalues, figures.cross_correlation):
            section = make(lab)
            assert section.trends
            assert failing(section) == []

    def test_a_trace_far_from_d(self):
        def far(settings):
            train, test = as_in_the_paper(settings)
            factor = 1.2 if (settings.lam, settings.mu, settings.seed) == (1e-3, 2.5, 3) else 1.0
            return factor**0.5 * train, test

        texts = failing(figures.eigenvalues(FakeLab(far)))
        assert "the trace is within 10% of d" in texts

    def test_seeds_apart(self):
        def apart(settings):
            train, test = as_in_the_paper(settings)
            return (train * np.linspace(1.3, 0.8, settings.dim) if settings.seed == 2 else train), test

        assert any(
            text.startswith("spectra of different seeds") for text in failing(figures.eigenvalues(FakeLab(apart)))
        )

    def test_eccentricity_the_other_way(self):
        def other(settings):
            swapped = {1e-4: 1e-3, 1e-3: 1e-4}[settings.lam]
            return as_in_the_paper(SimpleNamespace(**{**vars(settings), "lam": swapped}))

        assert "eccentricity falls as λ grows" in failing(figures.eigenvalues(FakeLab(other)))

    def test_components_that_are_not_alike(self):
        def unlike(settings):
            rng = np.random.default_rng(settings.seed)
            return rng.standard_normal((200, settings.dim)), rng.standard_normal((200, settings.dim))

        assert failing(figures.cross_correlation(FakeLab(unlike)))

    def test_falls(self):
        rising = {"here": {1.0: 3.0, 2.0: 2.0}, "there": {2.0: 5.0, 1.0: 4.0}}
        assert not falls("", rising, "λ").holds
        claim = falls("x", {"here": {2.0: 1.0, 1.0: 3.0}}, "λ")
        assert (claim.holds, claim.measured) == (True, "3.000, 1.000 here (for λ = 1, 2)")
        assert not falls("", {"": {1.0: 1.0, 2.0: 1.0}}, "λ").holds
        assert not falls("", {"": {1.0: float("nan"), 2.0: 1.0}}, "λ").holds

    def test_angles(self):
        rows = {("eccentric", 1e-2): (80.0, 70.0), ("eccentric", 1e-6): (50.0, 40.0), ("vae", 1e-3): (60.0, 50.0)}
        angles = {key: np.array([pair, pair]) for key, pair in rows.items()}
        assert tables._alignment_lowers(angles).holds
        assert tables._small_lam_aligns(angles).holds
        angles["vae", 1e-3] = np.array([[50.0, 51.0]])
        assert not tables._alignment_lowers(angles).holds
        angles["eccentric", 1e-6] = np.array([[70.0, 61.0]])
        assert not tables._small_lam_aligns(angles).holds

    def test_the_best_score(self):
        def course(*scores):
            return {("wae", 10.0**-i): score for i, score in enumerate(scores)} | {("eccentric", 1e-9): 0.0}

        assert tables._best_between("wae", course(5.0, 3.0, 4.0)).holds
        assert not tables._best_between("wae", course(3.0, 4.0, 5.0)).holds
        assert not tables._best_between("wae", course(5.0, 4.0, 3.0)).holds

    def test_trees(self):
        means = {(lam, 1.0): {"DT(1)": 10 + 100 * lam, "DT(8)": 9 + 100 * lam} for lam in (1e-4, 1e-3)}
        assert tables._small_lam_helps_trees(means).holds
        means[1e-3, 1.0]["DT(8)"] = 1.0
        assert not tables._small_lam_helps_trees(means).holds


class TestTable2:
    """With neighbours that are told what to find."""

    def section(self, monkeypatch, errors):
        def told(train, test, labels, test_labels, neighbours, subsets):  # noqa: ARG001
            assert neighbours == {10: 1, 100: 1, 1000: 5, 10_000: 10, 60_000: 15}
            return {count: np.full(subsets, errors[train.shape[1]] + 1 / count) for count in neighbours}

        monkeypatch.setattr(tables, "few_label_errors", told)
        monkeypatch.setattr(tables, "in_parallel", lambda function, tasks, *_: [function(*task) for task in tasks])
        lab = FakeLab(as_in_the_paper)
        split = SimpleNamespace(images=range(60_000), labels=None)
        lab.dataset = lambda _: SimpleNamespace(train=split, test=split)
        return tables.table2(lab)

    def test_as_in_the_paper(self, monkeypatch):
        section = self.section(monkeypatch, {2: 0.1, 4: 0.05, 6: 0.04, 8: 0.03})
        assert failing(section) == []
        assert section.tables[0].rows[-1][-2:] == ("3.0 ± 0.0", "2.0 ± 0.1")

    def test_too_far(self, monkeypatch):
        section = self.section(monkeypatch, {2: 0.1, 4: 0.07, 6: 0.05, 8: 0.045})
        assert failing(section) == ["d = 8, 60,000 labels: within 2 points of the paper's 2 %"]

    def test_out_of_order(self, monkeypatch):
        section = self.section(monkeypatch, {2: 0.1, 4: 0.05, 6: 0.02, 8: 0.03})
        assert failing(section)[0].startswith("the error falls from d = 2 to 4 to 6 to 8")


class TestPresets:
    def test_the_papers_numbers(self):
        preset = PRESETS["paper"]
        for one in (one for of in preset.by_dim().values() for one in of):
            assert (one.data, one.epochs, one.lam, one.mu, one.width) == ("mnist", 1000, 1e-3, 1.0, 1.0)
            assert (one.learning_rate, one.weight_decay, one.batch_size) == (1e-4, 1e-6, 100)
        assert {dim: len(of) for dim, of in preset.by_dim().items()} == dict.fromkeys((2, 4, 6, 8), 3)
        assert {len(of) for of in preset.by_objective().values()} == {4}
        for one in (one for of in preset.by_objective().values() for one in of):
            assert (one.data, one.epochs, one.dim) == ("celeba", 100, 64)
        assert set(preset.by_mu()) == {(lam, mu) for lam in (1e-4, 1e-3) for mu in (1.0, 1.5, 4.5, 16.5, 64.5)}
        assert set(preset.by_extreme_mu()) == {(lam, mu) for lam in (1e-4, 1e-3) for mu in (1.0, 64.5)}
        assert set(preset.plane()) == {(lam, mu) for lam in (0.1, 0.01, 0.001) for mu in (1.0, 2.5)}
        assert {one.dim for one in preset.plane().values()} == {2}

    @pytest.mark.parametrize("name", PRESETS)
    def test_runs_are_shared(self, name):
        """Tables 3 and 4 need no run that Figure 5 lacks."""
        preset = PRESETS[name]
        of_figure5 = {one for of in preset.by_mu().values() for one in of}
        assert {one for of in preset.by_extreme_mu().values() for one in of} <= of_figure5
        assert preset.with_attributes() in of_figure5
        assert preset.by_objective()["eccentric", 1e-3] == preset.by_mu()[1e-3, 1.0]
        assert all(max(part) <= preset.faces.dim for part in preset.corners)

    def test_everywhere(self, tmp_path):
        preset = PRESETS["cpu"].everywhere({"mnist": tmp_path, "olivetti": None}, framework="jax")
        assert preset.digits.folder == tmp_path
        assert preset.faces.folder is None
        assert {base.framework for base in vars(preset).values() if hasattr(base, "framework")} == {"jax"}
        assert isinstance(preset, Preset)

    def test_in_words(self):
        preset = PRESETS["cpu"]
        text = describe(one for of in preset.by_mu().values() for one in of)
        assert text == (
            "Trained here: mnist, network 0.5 times as wide as the paper's, d = 8, λ = 0.0001, 0.001, μ = 1, 2.5, 8.5, "
            "2 epochs of batches of 100 at a learning rate of 0.003, seeds 0, 1, 2, 3, torch."
        )
        assert "network" not in describe([preset.digits])
        assert "λ" not in describe(one for of in preset.by_objective().values() for one in of)


def test_sections():
    table = Table(("a", "b"), [("1", "2")], "some")
    assert table.markdown() == "some:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    section = Section("Title", ["two\n        lines"], [table])
    assert section.markdown(".png") == "## Title\n\ntwo lines\n\nsome:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert trend_table([section]).rows == []
    assert mean_and_spread([1.0, 3.0], 1) == "2.0 ± 1.4"
    assert mean_and_spread([0.5], 1, 100) == "50.0"


def refuse(capsys, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(SystemExit) as caught:
        reproduce.main(list(map(str, arguments)))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("figure99",), "invalid choice"),
        ((), "required"),
        (("table2", "--preset", "cpu", "--mnist", "no-such-folder"), "no-such-folder is not a folder"),
        (("table1", "--preset", "paper"), "celeba can't be downloaded here"),
        (("figure3", "--jobs", "0"), "jobs must be 1 or more"),
        (("figure3", "--address", "tcp://x"), "address is of a cluster"),
        (("figure3", "--framework", "keras"), "invalid choice"),
    ],
)
def test_bad_options(arguments, message, capsys, tmp_path):
    options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out") if arguments else ()
    assert message in refuse(capsys, *arguments, *options)
    assert not (tmp_path / "runs").exists()


def copy_of_first(smoke, tmp_path):
    """A copy of the one run of Table 4."""
    needed = PRESETS["smoke"].with_attributes()
    source, target = Runs(smoke / "runs").folder(needed), Runs(tmp_path / "runs").folder(needed)
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_a_damaged_run(smoke, tmp_path, capsys):
    folder = copy_of_first(smoke, tmp_path)
    (folder / LATENTS).write_bytes((folder / LATENTS).read_bytes()[:-10])
    options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
    error = refuse(capsys, "table4", *options)
    assert str(folder / LATENTS) in error
    assert "remove it, and it is computed again" in error
    (folder / LATENTS).unlink()
    assert reproduce.main(["table4", *map(str, options)]) == 0


def test_a_damaged_checkpoint(smoke, tmp_path, capsys):
    """It shows when the model is needed; Table 4 needs the latents only."""
    folder = copy_of_first(smoke, tmp_path)
    (folder / CHECKPOINT).write_bytes(b"x")
    options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert reproduce.main(["table4", *map(str, options)]) == 0
    capsys.readouterr()
    assert str(folder / CHECKPOINT) in refuse(capsys, "figure8", *options)


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """An official folder of 90 images in colour; the first of two attributes is whether they are red."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, rng = tmp_path / "celeba", np.random.default_rng(0)
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 91)]
    red, other = rng.integers(2, size=(2, 90))
    for name, is_red in zip(names, red, strict=True):
        pixels = rng.integers(60, size=(218, 178, 3), dtype=np.uint8)
        pixels[..., 0] += 150 * is_red.astype(np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name)
    lines = [f"{name} {2 * a - 1} {2 * b - 1}\n" for name, a, b in zip(names, red, other, strict=True)]
    (folder / "list_attr_celeba.txt").write_text(f"90\nRed Other\n{''.join(lines)}")
    parts = "".join(f"{name} {2 if i % 3 == 0 else 0}\n" for i, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(parts)
    return folder


def test_celeba(celeba, tmp_path, monkeypatch, capsys):
    """The preset of the paper on few and small networks: colours, and attributes by their names."""
    preset = PRESETS["paper"]
    base = replace(preset.faces, width=1 / 64, dim=8, epochs=3, batch_size=20, learning_rate=1e-2)
    small = replace(preset, faces=base, spread=base, seeds=(0, 1), mus=(1.0, 8.5), corners=((1, 2), (3, 4)))
    monkeypatch.setitem(PRESETS, "paper", small)
    names = ("figure5", "figure7", "figure8", "figure9", "table3", "table4")
    options = ("--preset", "paper", "--celeba", celeba, "--runs", tmp_path / "runs", "--out", tmp_path / "out")
    assert reproduce.main([*names, *map(str, options)]) == 0
    page = (tmp_path / "out" / f"{'-'.join(names)}.md").read_text()
    assert page.count("2 attributes.") == 2
    assert "each against the rest" not in page
    assert columns(page, "Table 4")[0][:3] == ("attribute", "---", "Red")
    assert len(list((tmp_path / "runs").iterdir())) == 8  # Figures 7 to 9 have those of Figure 5
    with Image.open(tmp_path / "out" / "figure7.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert np.any(np.ptp(pixels, axis=2) > 30)  # colours

    (celeba / "list_attr_celeba.txt").write_text("1\nRed Other\n000001.jpg 1 -1\n")
    runs_module._dataset.cache_clear()  # as in another process
    capsys.readouterr()
    error = refuse(capsys, "table3", *options)
    assert str(celeba / "list_eval_partition.txt") in error
    assert "take both from one release" in error
