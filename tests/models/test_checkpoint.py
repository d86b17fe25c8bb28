"""A checkpoint comes back as it was, or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from eccentric_models.architecture import initial_weights
from eccentric_models.checkpoint import Checkpoint, CheckpointError, versions
from eccentric_models.files import replacing
from eccentric_models.frameworks import State, StateError, check_shapes
from eccentric_models.settings import Settings
from eccentric_models.training import restore

SPECIAL = [-0.0, np.inf, -np.inf, np.nan, 1e-45, 5e-324, 0.1]


def some(settings, rng, shape=(4, 4, 1)):
    """A checkpoint in the midst of a run, of random numbers."""
    weights = initial_weights(settings.architecture(shape), rng)
    start = State.start({name: value.astype(settings.dtype) for name, value in weights.items()})
    means, squares = (
        {name: rng.standard_normal(value.shape).astype(settings.dtype) for name, value in start.means.items()}
        for _ in range(2)
    )
    state = State(start.weights, means, squares, 12)
    return Checkpoint(settings, shape, state, 3, rng.bit_generator.state, versions("torch"))


@pytest.fixture
def checkpoint(toy, settings, rng):  # noqa: ARG001
    return some(settings(), rng)


@pytest.fixture
def path(checkpoint, tmp_path):
    """Where it was written."""
    path = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write(path)
    return path


def refuse(path, *parts):
    """Assert that reading fails with one line that names the file and has all these parts in it."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.read(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (path, *parts):
        assert str(part) in message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("objective", ["eccentric", "vae"])
@pytest.mark.usefixtures("toy")
def test_round_trip(settings, rng, tmp_path, bits, dtype, objective):
    chosen = settings(dtype=dtype, objective=objective, folder=Path("any"), scale=3.5, lam=0.1, seed=2**70)
    written = some(chosen, rng)
    for part in written.state[:3]:
        with np.errstate(under="ignore"):
            part["encoder.dense1.kernel"].flat[: len(SPECIAL)] = SPECIAL
    written.write(tmp_path / "c")
    read = Checkpoint.read(tmp_path / "c")
    assert bits(read) == bits(written)
    assert read.settings == chosen
    assert isinstance(read.settings.folder, Path)
    assert {value.dtype.name for part in read.state[:3] for value in part.values()} == {dtype}
    again = np.random.default_rng()
    again.bit_generator.state = read.generator
    assert again.random() == rng.random()
    assert read.versions["torch"]
    assert {"python", "eccentric", "numpy"} < {*read.versions}


def test_versions_are_those_of_the_framework():
    common = {"python", "eccentric", "numpy"}
    assert versions("torch").keys() - common == {"torch"}
    assert versions("jax").keys() - common == {"jax", "flax", "optax"}
    assert versions("tensorflow").keys() - common == {"tensorflow", "keras"}


def test_only_changes_of_the_settings_make_another_run():
    here = Settings()
    free = Settings(framework="jax", device="cpu", folder=Path("x"), epochs=7)
    assert here.differences(free) == []
    assert here.differences(Settings(dim=3, lam=1.0, seed=4, dtype="float64")) == ["dim", "lam", "seed", "dtype"]
    assert Settings.from_dict(json.loads(json.dumps(free.as_dict()))) == free


def test_a_flipped_bit(path):
    """In the length of the header, in the header with the metadata, in the tensors."""
    content = path.read_bytes()
    rng = np.random.default_rng(3)
    for position in [*range(8), *rng.integers(8, len(content), 300).tolist()]:
        changed = bytearray(content)
        changed[position] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        refuse(path)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 500, 2500, -500, -4, -1])
def test_cut(path, length):
    path.write_bytes(path.read_bytes()[:length])
    refuse(path, "is damaged", "restore a copy of it, or train again")


def test_longer(path):
    path.write_bytes(path.read_bytes() + b"\0")
    refuse(path, "is damaged")


def test_another_value_in_the_metadata(path):
    """As long as it was, so that the file is whole."""
    content = path.read_bytes()
    assert content.count(rb"\"lam\": 0.001,") == 1
    path.write_bytes(content.replace(rb"\"lam\": 0.001,", rb"\"lam\": 0.002,"))
    refuse(path, "was changed after it was written", "SHA-256")


def half_precision():
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged"),
        (b"not safetensors at all, but long enough for a header", "is damaged"),
        (b"PK\x03\x04" + bytes(100), "is damaged"),
        (save({"x": np.zeros(3)}), "its format is None"),
        (save({"x": np.zeros(3)}, {"format": "pt"}), "its format is 'pt', not 'eccentric-models 1'"),
        (save({"x": np.zeros(3)}, {"format": "eccentric-models 2"}), "not a checkpoint of this version"),
        (save({"x": np.zeros(3)}, {"format": "eccentric-models 1"}), "was changed"),
        (half_precision(), "its format is None"),
    ],
)
def test_other_files(tmp_path, content, says):
    (tmp_path / "other").write_bytes(content)
    refuse(tmp_path / "other", says)


def test_no_file(tmp_path):
    refuse(tmp_path / "none", "is missing")
    refuse(tmp_path, "is damaged")


def no_room(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("function", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_what_was_there(checkpoint, path, bits, monkeypatch, function):
    with monkeypatch.context() as patch:
        patch.setattr(function, no_room)
        with pytest.raises(
            CheckpointError, match=r"can't be written \(No space left on device\).* unchanged"
        ) as caught:
            dataclasses.replace(checkpoint, epoch=4).write(path)
    assert str(path) in str(caught.value)
    assert bits(Checkpoint.read(path)) == bits(checkpoint)
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_is_full_in_the_midst(tmp_path):
    """The first bytes are written."""
    target = tmp_path / "new" / "file"
    with pytest.raises(OSError, match="No space"), replacing(target) as file:
        no_room(file.write(bytes(10**6)))
    assert list(target.parent.iterdir()) == []


def test_a_name_that_cannot_be_written(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file/c can't be written"):
        checkpoint.write(tmp_path / "file" / "c")


@pytest.mark.parametrize("change", [{"dim": 3}, {"width": 0.5}, {"objective": "vae"}])
@pytest.mark.usefixtures("torch")
def test_weights_of_another_network(checkpoint, change):
    """And the checkpoint of its own is taken, in another dtype too."""
    assert restore(checkpoint, dtype="float64").state.step == 12
    with pytest.raises(StateError, match=r"must have the shape \(.*\), got \(.*another architecture, width or dim"):
        restore(checkpoint, **change)


@pytest.mark.usefixtures("torch")
def test_a_checkpoint_for_images_of_another_size(checkpoint):
    with pytest.raises(StateError, match=r"encoder.convolution1.kernel must .*, got \(4, 4, 1, 1\)"):
        restore(dataclasses.replace(checkpoint, image_shape=(28, 28, 1)))


def test_check_shapes():
    check_shapes({"a": (1,), "b": (2, 3)}, {"b": (2, 3), "a": (1,)})
    for found, message in (
        ({"a": (1,)}, r"b must have the shape \(2, 3\), got nothing"),
        ({"a": (1,), "b": (3, 2)}, r"b must have the shape \(2, 3\), got \(3, 2\)"),
        ({"a": (1,), "b": (2, 3), "c": ()}, r"c must have the shape \(there is no such weight\), got \(\)"),
    ):
        with pytest.raises(StateError, match=message):
            check_shapes(found, {"a": (1,), "b": (2, 3)})
