"""tools/reproduce.py mhe: hyperspherical energies in a small classifier, on very little data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import reproduce
import torch
from reproduction import classifier
from reproduction.classifier import error_rate, network, regularizer, train
from reproduction.diversity import NONE, trends
from reproduction.presets import PRESETS
from reproduction.trainings import ARMS, Arm, Outcome, Training, Trainings
from torch import nn

from eccentric_models.data import Dataset, Split, load
from eccentric_models.runs import backend
from eccentric_models.settings import RunError
from eccentric_torch import eccentric_loss, hyperspherical_energy

TINY = Training("digits", images=20, epochs=1, batch_size=10)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The command, on little, in this process."""
    folder = tmp_path_factory.mktemp("mhe")
    with pytest.MonkeyPatch.context() as patch:
        few(patch)
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        call(folder)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(threads)
    return folder


@pytest.fixture
def again(done, monkeypatch):
    """Where its runs are, with nothing that could be trained again."""
    few(monkeypatch)
    monkeypatch.setattr(classifier, "train", lambda *_: pytest.fail("trained again"))
    return done / "runs"


def few(patch):
    patch.setitem(PRESETS, "smoke", replace(PRESETS["smoke"], classifier=TINY, classifier_seeds=(0, 1)))


def call(folder, *names, runs=None):
    arguments = ("--runs", runs or folder / "runs", "--out", folder / "out")
    assert reproduce.main([*(names or ("mhe",)), *map(str, arguments)]) == 0
    return (folder / "out" / f"{'-'.join(names or ('mhe',))}.md").read_text()


def refuse(capsys, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(SystemExit) as caught:
        reproduce.main(list(map(str, arguments)))
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def outcomes(runs):
    """What is kept, by file, but for the time that it took."""
    found = {path.name: json.loads(path.read_bytes()) for path in runs.iterdir()}
    for content in found.values():
        content["outcome"].pop("seconds")
    return found


class TestCommand:
    def test_every_arm(self, done):
        page = (done / "out" / "mhe.md").read_text()
        assert page.startswith("# Hyperspherical energies in a classifier: preset `smoke`\n")
        assert "Li and Blair" not in page
        assert "16 training runs, by python" in page
        assert all(page.count(f"\n| {name} | ") == 2 for name in ARMS)
        assert page.count("](mhe.png)") == 1
        assert (done / "out" / "mhe.png").read_bytes().startswith(b"\x89PNG")
        assert "nan" not in page
        assert str(done) not in page

    def test_a_kept_run_is_only_read(self, done, again, tmp_path):
        assert call(tmp_path, runs=again) == (done / "out" / "mhe.md").read_text()

    def test_beside_the_paper(self, again, tmp_path):
        page = call(tmp_path, "figure2", "mhe", runs=again)
        assert page.startswith("# The paper's experiments, reproduced; Hyperspherical energies in a classifier: preset")
        assert "Li and Blair" in page
        assert "Liu et al." in page

    def test_processes_change_nothing(self, done, tmp_path):
        wanted = [replace(TINY, arm=arm) for arm in ARMS.values()]
        with backend("loky", 2):
            Trainings(tmp_path, load("digits")).complete(wanted)
        found = outcomes(tmp_path)
        assert len(found) == len(ARMS)
        assert found.items() <= outcomes(done / "runs").items()

    def test_not_in_all(self):
        assert [name for name in reproduce.EXPERIMENTS if name not in reproduce.ALL] == ["mhe"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--framework", "jax"), "mhe trains in PyTorch, got --framework jax"),
            (("--preset", "cpu", "--fashion-mnist", "no-such-folder"), "no-such-folder is not a folder"),
        ],
    )
    def test_bad_options(self, arguments, message, capsys, tmp_path):
        options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out")
        assert message in refuse(capsys, "mhe", *arguments, *options)
        assert not (tmp_path / "runs").exists()


class TestKeeping:
    @pytest.mark.parametrize("damage", [b"x", b"{}", b"[]", None], ids=["text", "empty", "list", "of-another"])
    def test_a_file_that_is_wrong(self, damage, again, tmp_path, capsys):
        for path in again.iterdir():
            (tmp_path / "runs").mkdir(exist_ok=True)
            (tmp_path / "runs" / path.name).write_bytes(path.read_bytes())
        first, second = sorted((tmp_path / "runs").iterdir())[:2]
        first.write_bytes(second.read_bytes() if damage is None else damage)
        error = refuse(capsys, "mhe", "--runs", tmp_path / "runs", "--out", tmp_path / "out")
        assert str(first) in error
        assert "remove it, and the run is trained again" in error

    def test_a_run_that_fails(self, tmp_path, monkeypatch):
        def fail(training, dataset):
            if training.seed == 1:
                raise ValueError("no")
            return train(training, dataset)

        monkeypatch.setattr(classifier, "train", fail)
        trainings = Trainings(tmp_path, load("digits"))
        wanted = [replace(TINY, seed=seed) for seed in (1, 0)]
        with pytest.raises(RunError, match="1 of 2 runs could not be finished, the others are kept: no"):
            trainings.complete(wanted)
        assert 0 <= trainings.open(wanted[1]).test_error <= 1
        with pytest.raises(RunError, match=trainings.file(wanted[0]).name):
            trainings.open(wanted[0])

    def test_what_identifies_a_run(self, tmp_path):
        trainings = Trainings(tmp_path, load("digits"))
        others = {
            "data": "mnist", "images": 41, "epochs": 2, "batch_size": 21, "learning_rate": 0.1, "momentum": 0.5,
            "weight_decay": 0.0, "seed": 1,
        }  # fmt: skip
        runs = [replace(TINY, **{name: value}) for name, value in others.items()]
        runs += [replace(TINY, arm=arm) for arm in (*ARMS.values(), Arm(weight=0.5))]
        assert len({trainings.file(run) for run in runs}) == len(runs)
        assert trainings.file(replace(TINY, folder=tmp_path, device="cpu")) == trainings.file(TINY)
        fewer = load("digits")
        fewer = replace(fewer, train=Split(fewer.train.images[1:], fewer.train.labels[1:]))
        assert Trainings(tmp_path, fewer).file(TINY) != trainings.file(TINY)


def noise():
    """Images without meaning."""
    rng = np.random.default_rng(0)
    splits = (Split(rng.integers(256, size=(n, 8, 8, 1), dtype=np.uint8), np.arange(n) % 3) for n in (50, 20))
    return Dataset("digits", *splits)


SHORT = Training("digits", images=40, epochs=3, batch_size=10, learning_rate=0.02)


class TestTraining:
    def test_the_same_start(self):
        """An energy of no weight changes nothing: images, weights and order are the same, whatever is drawn for it."""
        expected = train(SHORT, noise())
        del expected["seconds"]
        for arm in (Arm(weight=0.0), Arm(projection="random", weight=0.0), Arm("eccentric", weight=0.0)):
            found = train(replace(SHORT, arm=arm), noise())
            del found["seconds"]
            assert found == expected
        first = expected["energies"][0]
        for arm in ARMS.values():
            assert train(replace(SHORT, arm=arm, epochs=1), noise())["energies"][0] == first
        assert train(replace(SHORT, seed=1), noise())["energies"][0] != first

    @pytest.mark.parametrize("name", [name for name in ARMS if name != NONE])
    def test_the_energy_is_in_the_loss(self, name):
        without = train(SHORT, noise())["energies"][-1]
        found = train(replace(SHORT, arm=ARMS[name]), noise())["energies"][-1]
        assert np.all(np.not_equal(found, without))
        if ARMS[name].energy == "hyperspherical":
            assert np.mean(found) < np.mean(without)

    def test_projections_are_drawn_by_the_seed(self):
        first, second = (train(replace(SHORT, arm=ARMS["CoMHE, random"]), noise()) for _ in range(2))
        assert first["energies"] == second["energies"]

    def test_the_arms(self):
        model = network((1, 8, 8), 3, 0)
        layers = {name: layer.weight for name, layer in model.named_modules() if hasattr(layer, "weight")}
        *hidden, output = layers
        energies = {name: regularizer(model, arm, 0).energies() for name, arm in ARMS.items() if name != NONE}
        for name in hidden:
            assert energies["MHE"][name] == hyperspherical_energy(layers[name])
            assert energies["half-space MHE"][name] == hyperspherical_energy(layers[name], half_space=True)
            assert energies["eccentric loss"][name] == eccentric_loss(layers[name].flatten(1))
        assert energies["half-space MHE"][output] == hyperspherical_energy(layers[output])
        assert len({of[hidden[1]].item() for of in energies.values()}) == len(energies)
        for name in energies:
            gradients = torch.autograd.grad(regularizer(model, ARMS[name], 0)(), list(layers.values()))
            assert all(torch.any(gradient != 0) for gradient in gradients)
        assert regularizer(model, ARMS[NONE], 0) is None

    def test_error_rate(self):
        images = torch.eye(4).repeat(200, 1)
        labels = torch.arange(4).repeat(200)
        labels[:8] = 3
        assert error_rate(nn.Identity(), images, labels) == 6 / 800

    def test_it_learns(self):
        """Digits are told apart better than by chance, and better those that were seen."""
        found = train(replace(TINY, images=150, batch_size=10, epochs=4), load("digits"))
        assert found["training_error"] < found["test_error"] < 0.5
        assert (len(found["energies"]), len(found["seconds"])) == (5, 4)
        assert found["layers"] == [[32, 9], [32, 288], [64, 288], [64, 576], [128, 3136]]


def made_up(errors, energies=0.5, noises=(0.0, 0.001, -0.001)):
    """Outcomes of every arm; an error and an energy for those that are not named."""
    energies = energies if isinstance(energies, dict) else dict.fromkeys(ARMS, energies)
    return {
        name: [
            Outcome(errors.get(name, 0.2) + noise, 0.0, [[1, 2]], [[9.0], [energies[name]]], [1.0], {})
            for noise in (noises if name != NONE else (0.0,) * len(noises))
        ]
        for name in ARMS
    }


def holding(found):
    return [trend.text for trend in trends(found) if trend.holds]


class TestTrends:
    def test_as_in_the_papers(self):
        errors = {NONE: 0.2, "MHE": 0.19, "half-space MHE": 0.18} | {name: 0.17 for name in ARMS if "CoMHE" in name}
        energies = {name: 0.5 if name == NONE else 0.4 for name in ARMS}
        claims = trends(made_up(errors, energies))
        assert len(claims) == 13
        assert all(claim.holds for claim in claims)
        assert claims[0].measured == "difference -1.00 ± 0.06"

    def test_nothing_differs(self):
        assert holding(made_up({}, noises=(0.0, 0.0, 0.0))) == []

    def test_the_other_way(self):
        assert holding(made_up({NONE: 0.1})) == []

    def test_less_than_chance(self):
        """A mean difference of one point is 1.7 standard errors here, and 17 there."""
        assert "test error: MHE below none (MHE, 2018)" not in holding(made_up({"MHE": 0.19}, noises=(0, 0.01, -0.01)))
        assert "test error: MHE below none (MHE, 2018)" in holding(made_up({"MHE": 0.19}))

    def test_one_seed_says_nothing(self):
        assert holding(made_up({"MHE": 0.1}, noises=(0.0,))) == []

    def test_one_arm_spoils_the_energy(self):
        energies = {name: 0.5 if name in (NONE, "CoMHE, group") else 0.4 for name in ARMS}
        assert holding(made_up({}, energies)) == ["energy: so does the eccentric loss"]


def test_presets(tmp_path):
    preset = PRESETS["cpu"].everywhere({"fashion-mnist": tmp_path, "mnist": None}, framework="jax", device="cpu")
    assert (preset.classifier.data, preset.classifier.folder, preset.classifier.device) == (
        "fashion-mnist",
        tmp_path,
        "cpu",
    )
    groups = preset.by_arm()
    assert list(groups) == list(ARMS)
    assert {tuple(one.seed for one in of) for of in groups.values()} == {(0, 1, 2, 3, 4)}
    assert {name: of[0].arm for name, of in groups.items()} == ARMS
    assert PRESETS["paper"].classifier.images == 60_000
