"""A run ends in the same bits however often it is interrupted, and never leaves what can't be gone on with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from eccentric_core import spectrum
from eccentric_models import training
from eccentric_models.checkpoint import Checkpoint, CheckpointError
from eccentric_models.data import Dataset
from eccentric_models.frameworks import State
from eccentric_models.log import FILE
from eccentric_models.objectives import Terms
from eccentric_models.settings import RunError
from eccentric_models.training import CHECKPOINT, restore, train


def read(out):
    return Checkpoint.read(out / CHECKPOINT)


def records(out):
    return [json.loads(line) for line in (out / FILE).read_text().splitlines()]


def refuse(match, *arguments, **options):
    """Assert that training fails with one line like that."""
    with pytest.raises(RunError, match=match) as caught:
        train(*arguments, **options)
    assert "\n" not in str(caught.value)


class Model:
    """A model that counts: its weight is the sum of all it was given, so that the order of the batches counts, too."""

    def __init__(self, state=None):
        self.state = state
        self.asked = []
        self.fetched = []

    def batches(self, images):
        return lambda rows: images[rows]

    def noise(self, rng, count):
        return rng.standard_normal((count, 2))

    def step(self, images, noise):
        self.asked.append(len(images))
        weight = np.tanh(self.state.weights["w"] + noise.sum() * images.sum())
        self.state = State({"w": weight}, *self.state[1:3], self.state.step + 1)
        return Terms(float(len(self.asked)), 2.0, noise)

    def fetch(self, results):
        self.fetched.append(len(results))
        return Terms(*(np.asarray(values) for values in zip(*results, strict=True)))


@pytest.fixture
def stub(monkeypatch):
    """Train one of these in place of a framework's; tell of the last one."""
    last = SimpleNamespace(model=Model())

    def create(*_, state, **__):
        last.model.__init__(state)
        return last.model

    monkeypatch.setattr(training, "create", create)
    monkeypatch.setattr(training, "initial_weights", lambda _, rng: {"w": rng.standard_normal(1)})
    return last


def test_interrupted_at_any_record_in_every_framework(
    framework, frameworks, toy, settings, tmp_path, outcome, monkeypatch
):
    """What a run leaves at each record is what it would leave if it were killed there."""
    monkeypatch.setattr(training, "_EVERY", 2)
    whole, chosen = tmp_path / "whole", settings(framework=framework, objective="wae", epochs=2)

    def watch(step, steps, record):
        assert (steps, record["step"]) == (6, step)
        shutil.copytree(whole, tmp_path / str(step))

    train(chosen, whole, dataset=toy, watch=watch)
    steps = [2, 3, 5, 6]
    assert [record["step"] for record in records(whole)] == steps
    # A trace takes JAX and TensorFlow seconds: of their runs one goes on, from the midst of its second epoch.
    for step in steps if framework == "torch" else steps[2:3]:
        cut = tmp_path / str(step)
        assert (read(cut).epoch, len(records(cut))) == ((step - 1) // 3, steps.index(step) + 1)
        train(chosen, cut, resume=True, dataset=toy)
        assert outcome(cut) == outcome(whole)
    # The others have the same latents of what this one learned, and go on with it.
    codes = [restore(read(whole), framework=name).encode(toy.test.images) for name in frameworks]
    assert np.ptp(codes[0], axis=0).min() > 1e-2
    for code in codes:
        np.testing.assert_allclose(code, codes[frameworks.index(framework)], rtol=0, atol=1e-5)
    train(settings(framework="torch", objective="wae", epochs=3), whole, resume=True, dataset=toy)
    assert read(whole).state.step == 9


@pytest.mark.parametrize("objective", ["eccentric", "wae", "vae", "none"])
@pytest.mark.usefixtures("torch")
def test_resumed_after_each_epoch(objective, toy, settings, tmp_path, outcome):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(settings(objective=objective), whole, dataset=toy)
    for epochs in (0, 1, 2, 3, 3):
        train(settings(objective=objective, epochs=epochs), parts, resume=True, dataset=toy)
        assert read(parts).epoch == epochs
    assert outcome(parts) == outcome(whole)
    train(settings(objective=objective, seed=1), tmp_path / "seed", dataset=toy)
    other, same = read(tmp_path / "seed").state, read(whole).state
    assert not np.array_equal(other.weights["encoder.dense1.kernel"], same.weights["encoder.dense1.kernel"])


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import eccentric_models.frameworks.torch_model
from eccentric_models.data import load
from eccentric_models.settings import Settings
from eccentric_models.training import train

settings, dataset, folder = Settings(epochs=5, width=0.1, dim=2), load("digits"), Path(sys.argv[1])

def records(out):
    path = folder / out / "metrics.jsonl"
    return path.read_bytes().count(b"\\n") if path.exists() else 0

def run(out, epochs=None, seconds=0.0):
    child = os.fork()
    if not child:
        train(settings, folder / out, resume=True, dataset=dataset)
        os._exit(bool({"jax", "tensorflow", "keras"} & {*sys.modules}))
    if epochs is not None:
        while records(out) < epochs:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

statuses = [run("whole")]
assert statuses == [0]  # else the next would be waited for without end
draw = random.Random(5)
for epochs in (1, 2, 3):  # then, within about an epoch: by progress, for a clock could come after the end
    statuses.append(run("killed", epochs, draw.uniform(0, 0.05)))
statuses.append(run("killed"))
print(*statuses)
"""


def test_killed_at_random_moments(python, tmp_path, outcome):
    """Three times in a run, each a child of a process that has imported PyTorch; and no other framework is there."""
    assert python(KILLED, tmp_path) == "0 -9 -9 -9 0\n"
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    left = {path.name for path in (tmp_path / "killed").iterdir() if not path.name.startswith("events.")}
    assert {CHECKPOINT, FILE} <= left


@pytest.mark.usefixtures("stub")
class TestMetrics:
    def test_every_50_steps(self, stub, toy, settings, tmp_path):
        """The host looks at what came out no more often than that, and at the end of an epoch."""
        seen = []
        watch = lambda step, steps, record: seen.append((step, steps, record))  # noqa: E731
        # A batch of one remains of 61 images, and is left out.
        many = Dataset("many", dataclasses.replace(toy.train, images=np.repeat(toy.train.images, 4, 0)[:241]), toy.test)
        train(settings(batch_size=4, epochs=2), tmp_path, dataset=many, watch=watch)
        assert stub.model.fetched == [50, 10, 50, 10]
        assert stub.model.asked == [4] * 120
        assert [(step, steps) for step, steps, _ in seen] == [(50, 120), (60, 120), (110, 120), (120, 120)]
        assert [record for *_, record in seen] == records(tmp_path)
        assert read(tmp_path).state.step == 120

    def test_a_record(self, stub, toy, settings, tmp_path, monkeypatch):
        kept = []
        fetch = stub.model.fetch
        monkeypatch.setattr(stub.model, "fetch", lambda results: kept.append(fetch(results)) or kept[-1])
        train(settings(epochs=1, lam=0.5), tmp_path, dataset=toy)
        (record,) = records(tmp_path)
        of_latents = spectrum(kept[0].latents.reshape(60, 2))
        assert record == {
            "step": 3,
            "epoch": 1,
            "loss": 3.0,  # (1 + 2 + 3)/3 + 0.5 2
            "reconstruction": 2.0,
            "penalty": 2.0,
            "trace": of_latents.trace,
            "eccentricity": of_latents.eccentricity,
        }

    def test_events_for_tensorboard(self, toy, settings, tmp_path):
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        train(settings(), tmp_path, dataset=toy)
        (path,) = tmp_path.glob("events.out.tfevents.*")
        first, *events = EventFileLoader(str(path)).Load()
        assert first.file_version == "brain.Event:2"
        assert [event.step for event in events] == [3, 6, 9]
        for event, record in zip(events, records(tmp_path), strict=True):
            assert {value.tag for value in event.summary.value} == {*record}

    @pytest.mark.parametrize("end", [b'{"step": 7, "epo', b'{"step"', b"{", b"\xff\xfe", b"7", b"[]\n{}\n", b"\n"])
    def test_a_line_that_is_not_whole(self, toy, settings, tmp_path, end):
        train(settings(epochs=2), tmp_path, dataset=toy)
        before = (tmp_path / FILE).read_bytes()
        (tmp_path / FILE).write_bytes(before + end)
        train(settings(epochs=3), tmp_path, resume=True, dataset=toy)
        assert (tmp_path / FILE).read_bytes().startswith(before)
        assert [record["step"] for record in records(tmp_path)] == [3, 6, 9]

    def test_a_line_without_its_end(self, toy, settings, tmp_path):
        train(settings(epochs=2), tmp_path, dataset=toy)
        before = (tmp_path / FILE).read_bytes()
        (tmp_path / FILE).write_bytes(before[:-1])
        train(settings(epochs=3), tmp_path, resume=True, dataset=toy)
        assert [record["step"] for record in records(tmp_path)] == [3, 6, 9]

    def test_no_line_of_steps_that_come_again(self, toy, settings, tmp_path):
        train(settings(epochs=1), tmp_path, dataset=toy)
        early = (tmp_path / CHECKPOINT).read_bytes()
        train(settings(), tmp_path, resume=True, dataset=toy)
        late = (tmp_path / FILE).read_bytes()
        (tmp_path / CHECKPOINT).write_bytes(early)
        train(settings(), tmp_path, resume=True, dataset=toy)
        assert (tmp_path / FILE).read_bytes() == late


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.usefixtures("stub")
class TestRefused:
    @pytest.fixture
    def run(self, toy, settings, tmp_path):
        """A run of two epochs."""
        train(settings(epochs=2), tmp_path / "run", dataset=toy)
        return tmp_path / "run"

    @pytest.fixture
    def unchanged(self, run):
        before = contents(run)
        yield
        assert contents(run) == before

    @pytest.mark.usefixtures("unchanged")
    def test_a_run_that_is_there(self, run, toy, settings):
        refuse(rf"{run} has a run already; continue it with --resume", settings(), run, dataset=toy)

    @pytest.mark.usefixtures("unchanged")
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"dim": 3}, "dim 2, not 3"),
            ({"width": 0.5}, "width 0.25, not 0.5"),
            ({"lam": 0.5, "objective": "vae"}, "objective 'eccentric', not 'vae', lam 0.001, not 0.5"),
            ({"data": "mnist"}, "data 'digits', not 'mnist'"),
            ({"batch_size": 10}, "batch_size 20, not 10"),
            ({"seed": 1}, "seed 0, not 1"),
            ({"dtype": "float64"}, "dtype 'float32', not 'float64'"),
        ],
    )
    def test_other_settings(self, run, toy, settings, change, says):
        chosen = settings(epochs=2, **change)
        refuse(rf"is of another run: it has {says}; give its settings", chosen, run, resume=True, dataset=toy)

    @pytest.mark.usefixtures("unchanged")
    def test_fewer_epochs(self, run, toy, settings):
        refuse("has 2 epochs already; .* got 1", settings(epochs=1), run, resume=True, dataset=toy)

    @pytest.mark.usefixtures("unchanged")
    def test_images_of_another_size(self, run, toy28, settings):
        refuse(r"images of \(4, 4, 1\), not \(28, 28, 1\)", settings(), run, resume=True, dataset=toy28)

    def test_a_damaged_checkpoint(self, run, toy, settings):
        (run / CHECKPOINT).write_bytes(b"damaged")
        before = contents(run)
        with pytest.raises(CheckpointError, match=f"{CHECKPOINT} is damaged"):
            train(settings(), run, resume=True, dataset=toy)
        assert contents(run) == before

    def test_a_batch_of_more_than_there_are(self, toy, settings, tmp_path):
        refuse("batch_size must be at most the 61 .* got 62", settings(batch_size=62), tmp_path / "x", dataset=toy)
        assert not (tmp_path / "x").exists()
        train(settings(batch_size=61), tmp_path / "x", dataset=toy)
        assert read(tmp_path / "x").state.step == 3

    def test_no_network_for_the_images(self, toy28, settings, tmp_path):
        refuse("network celeba is not for .*28", settings(network="celeba"), tmp_path / "x", dataset=toy28)
        assert not (tmp_path / "x").exists()

    def test_a_folder_that_cannot_be(self, toy, settings, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match=r"file/checkpoint\.safetensors can't be written"):
            train(settings(), tmp_path / "file", dataset=toy)


class TestDiverged:
    @pytest.mark.usefixtures("torch")
    @pytest.mark.parametrize("change", [{"lam": 1e38}, {"lam": 1e300}, {"learning_rate": 1e30}])
    def test_the_checkpoint_is_untouched(self, toy, settings, tmp_path, bits, change):
        chosen = settings(objective="vae", **change)
        refuse("the loss is no longer finite, .* after epoch 0 .* smaller lam", chosen, tmp_path, dataset=toy)
        train(dataclasses.replace(chosen, epochs=0), tmp_path / "start", dataset=toy)
        start = dataclasses.replace(read(tmp_path / "start"), settings=chosen)
        assert bits(read(tmp_path)) == bits(start)
        # NaN is no number of JSON.
        assert all(np.isfinite([*record.values()]).all() for record in records(tmp_path))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("part", [0, 1, 2])
    def test_a_weight_alone(self, stub, toy, settings, tmp_path, monkeypatch, bits, bad, part):
        """That no loss has shown yet, in the last step of the second epoch."""
        train(settings(epochs=1), tmp_path, dataset=toy)
        saved = read(tmp_path)
        step = stub.model.step

        def spoil(images, noise):
            terms = step(images, noise)
            if stub.model.state.step == 6:
                parts = [dict(values) for values in stub.model.state[:3]]
                parts[part]["w"] = np.array([bad])
                stub.model.state = State(*parts, 6)
            return terms

        monkeypatch.setattr(stub.model, "step", spoil)
        refuse(f"in the weights of {CHECKPOINT}.* after epoch 1 is", settings(), tmp_path, resume=True, dataset=toy)
        assert bits(read(tmp_path)) == bits(dataclasses.replace(saved))

    @pytest.mark.parametrize("field", ["reconstruction", "penalty", "latents"])
    def test_a_term_alone(self, stub, toy, settings, tmp_path, monkeypatch, field):
        step = stub.model.step

        def spoil(images, noise):
            terms = step(images, noise)
            return terms._replace(**{field: getattr(terms, field) * np.nan}) if len(stub.model.asked) == 5 else terms

        monkeypatch.setattr(stub.model, "step", spoil)
        refuse("between steps 4 and 6; the checkpoint after epoch 1", settings(), tmp_path, dataset=toy)
        assert read(tmp_path).epoch == 1
        assert [record["step"] for record in records(tmp_path)] == [3]


def test_nothing_is_imported_that_is_not_needed(python):
    program = """
import sys
heavy = {"torch", "jax", "tensorflow", "keras", "flax", "optax", "tensorboard", "matplotlib", "sklearn"}
import eccentric_models
assert not heavy & {*sys.modules}
assert not {"numpy", "tyro"} & {*sys.modules}
import eccentric_models.command, eccentric_models.training, eccentric_models.evaluation
print(sorted(heavy & {*sys.modules}))
"""
    assert python(program) == "[]\n"
