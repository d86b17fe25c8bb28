"""Runs are trained once, known by their configuration, and outlive whatever befalls their neighbours."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from eccentric_core import spectrum
from eccentric_models import runs as module
from eccentric_models.data import Dataset, Split, load
from eccentric_models.log import FILE
from eccentric_models.runs import LATENTS, Runs, backend, fingerprint, in_parallel
from eccentric_models.safetensors_files import CheckpointError
from eccentric_models.settings import RunError, Settings
from eccentric_models.training import CHECKPOINT, train

QUICK = Settings(epochs=1, width=1 / 8, learning_rate=1e-2, dim=2)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run, not to be changed."""
    runs = Runs(tmp_path_factory.mktemp("runs"))
    runs.complete([QUICK])
    return runs


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to be changed at will."""
    folder = finished.folder(QUICK)
    (tmp_path / folder.name).mkdir()
    for file in folder.iterdir():
        (tmp_path / folder.name / file.name).write_bytes(file.read_bytes())
    return Runs(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2}, {"framework": "jax"}, {"lam": 2e-3}, {"mu": 2.0}, {"seed": 1}, {"dim": 3}, {"width": 0.25},
        {"objective": "wae"}, {"learning_rate": 1e-3}, {"scale": "exact"}, {"batch_size": 50}, {"dtype": "float64"},
    ],
)  # fmt: skip
def test_what_makes_another_run(change):
    runs = Runs(Path("somewhere"))
    assert runs.folder(dataclasses.replace(QUICK, **change)) != runs.folder(QUICK)


def test_where_it_happens_makes_no_other_run():
    runs = Runs(Path("somewhere"))
    elsewhere = dataclasses.replace(QUICK, folder=Path("data"), device="cpu")
    assert runs.folder(elsewhere) == runs.folder(QUICK)
    assert runs.folder(QUICK).parent == Path("somewhere")
    assert runs.folder(QUICK).name.startswith("digits-eccentric-d2-")


def test_a_finished_run(finished, digits):
    run = finished.open(QUICK)
    model = run.model()
    np.testing.assert_array_equal(run.train, model.encode(digits.train.images))
    np.testing.assert_array_equal(run.test, model.encode(digits.test.images))
    assert run.spectrum.trace == spectrum(run.train).trace
    covariance = np.cov(run.coordinates[0], rowvar=False, bias=True)
    np.testing.assert_allclose(covariance, np.diag(run.spectrum.eigenvalues), atol=1e-6)
    np.testing.assert_allclose(run.coordinates[1], run.spectrum.transform(run.test))
    assert run.versions["torch"]


def test_the_trace_in_training(copied):
    run = copied.open(QUICK)
    last = json.loads((run.folder / FILE).read_text().splitlines()[-1])
    assert run.training_trace == last["trace"]
    (run.folder / FILE).write_text("")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is missing or damaged .*train the run again"):
        _ = run.training_trace


def test_it_is_not_trained_again(finished, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    assert finished.missing([QUICK, QUICK]) == []
    finished.complete([QUICK])


def test_what_is_wanted_twice_is_trained_once(tmp_path, monkeypatch):
    seen = []

    def recorded(settings, out, **options):
        seen.append(settings.seed)
        return train(dataclasses.replace(settings, epochs=0), out, **options)

    monkeypatch.setattr(module, "train", recorded)
    other = dataclasses.replace(QUICK, seed=1)
    Runs(tmp_path).complete([QUICK, other, QUICK])
    assert seen == [0, 1]


def test_an_interrupted_run_goes_on(finished, tmp_path, outcome):
    """Stopped after its first checkpoint, it ends in the same bits."""
    runs = Runs(tmp_path)
    train(dataclasses.replace(QUICK, epochs=0), runs.folder(QUICK))
    assert runs.missing([QUICK]) == [QUICK]
    runs.complete([QUICK])
    assert outcome(runs.folder(QUICK)) == outcome(finished.folder(QUICK))
    np.testing.assert_array_equal(runs.open(QUICK).test, finished.open(QUICK).test)


def test_processes(tmp_path):
    """Two runs in two processes are what they are in one; in float64, where another number of threads hardly rounds."""
    wanted = [dataclasses.replace(QUICK, dtype="float64", seed=seed) for seed in (0, 1)]
    here, there = Runs(tmp_path / "here"), Runs(tmp_path / "there")
    here.complete(wanted)
    with backend("loky", 2):
        there.complete(wanted)
    for settings in wanted:
        np.testing.assert_allclose(there.open(settings).test, here.open(settings).test, atol=1e-8)


def identify(number):
    return number, os.getpid()


def test_dask():
    with backend("dask", 2):
        results = in_parallel(identify, [(number,) for number in range(6)], "numbers", [1] * 6)
    assert [number for number, _ in results] == list(range(6))
    assert os.getpid() not in {process for _, process in results}


def test_results_are_in_order():
    with backend("loky", 2):
        results = in_parallel(identify, ((number,) for number in range(20)), "numbers", [1] * 20)
    assert [number for number, _ in results] == list(range(20))


def test_a_failure_leaves_the_others(tmp_path):
    """One run diverges at once, the next one is trained all the same."""
    runs = Runs(tmp_path)
    bad = dataclasses.replace(QUICK, learning_rate=1e30)
    with pytest.raises(
        RunError, match=r"1 of 2 runs could not be finished, the others are kept: .*no longer finite"
    ) as caught:
        runs.complete([bad, QUICK])
    assert str(runs.folder(bad)) in str(caught.value)
    assert runs.missing([bad, QUICK]) == [bad]


def test_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"latents\.safetensors is missing; the run is not finished"):
        Runs(tmp_path).open(QUICK)


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda _: b"", lambda content: b"x" + content[1:]])
def test_damaged_latents(copied, damage):
    file = copied.folder(QUICK) / LATENTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"is damaged.*remove it, and it is computed again") as caught:
        copied.open(QUICK)
    assert str(file) in str(caught.value)


def test_the_remedy_works(copied, finished):
    """Without training: the checkpoint has all epochs."""
    (copied.folder(QUICK) / LATENTS).unlink()
    before = (copied.folder(QUICK) / CHECKPOINT).read_bytes()
    copied.complete([QUICK])
    assert (copied.folder(QUICK) / CHECKPOINT).read_bytes() == before
    np.testing.assert_array_equal(copied.open(QUICK).test, finished.open(QUICK).test)


def test_changed_latents(copied):
    file = copied.folder(QUICK) / LATENTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        copied.open(QUICK)


def test_another_version(copied, monkeypatch):
    monkeypatch.setattr(module, "_FORMAT", dataclasses.replace(module._FORMAT, name="eccentric-latents 2"))
    with pytest.raises(CheckpointError, match=r"not a file of latents of this version.*remove it") as caught:
        copied.open(QUICK)
    assert "'eccentric-latents 1', not 'eccentric-latents 2'" in str(caught.value)


def test_a_damaged_checkpoint(copied):
    """Of a run that is to go on; the message says which file and what to do."""
    folder = copied.folder(QUICK)
    (folder / LATENTS).unlink()
    (folder / CHECKPOINT).write_bytes(b"nothing of use")
    with pytest.raises(RunError, match=r"is damaged.*restore a copy of it, or train again") as caught:
        copied.complete([QUICK])
    assert str(folder / CHECKPOINT) in str(caught.value)


def test_a_folder_of_another_run(copied):
    """As after renaming it by hand."""
    other = dataclasses.replace(QUICK, seed=5, mu=2.0)
    copied.folder(QUICK).rename(copied.folder(other))
    with pytest.raises(RunError, match="is of another run, with another mu, seed; remove it"):
        copied.open(other)


def test_other_data(finished, digits, monkeypatch):
    changed = digits.train.images.copy()
    changed[0, 14, 14] ^= 1
    other = Dataset("digits", Split(changed, digits.train.labels), digits.test)
    monkeypatch.setattr(module, "_dataset", lambda *_: other)
    with pytest.raises(RunError, match="is of other images or labels than those of digits now"):
        finished.open(QUICK)


def test_fingerprints(rng):
    images = rng.integers(256, size=(2500, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(2500) % 3
    data = Dataset("toy", Split(images, labels), Split(images[:20], None))
    assert fingerprint(data) == fingerprint(Dataset("x", Split(images.copy(), labels), Split(images[:20], None)))
    others = (
        Dataset("toy", Split(images, (labels + 1) % 3), data.test),
        Dataset("toy", Split(images[:-1], labels), data.test),
        Dataset("toy", data.train, Split(images[1:21], None)),
    )
    assert len({fingerprint(one) for one in (data, *others)}) == 4


@pytest.mark.parametrize(("name", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_without_its_package(name, package, monkeypatch):
    monkeypatch.setitem(module.sys.modules, package, None)
    with pytest.raises(RunError, match=f"backend {name} needs a package .*; install {package}"), backend(name, 2):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"), [(("loky", 0), "jobs"), (("loky", -2), "jobs"), (("loky", 2, "tcp://x"), "address")]
)
def test_bad_backends(arguments, message):
    with pytest.raises(ValueError, match=message), backend(*arguments):
        pass
