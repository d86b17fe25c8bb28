"""The command as its user has it: what it prints, what it writes, and one line for whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from eccentric_models import command
from eccentric_models.checkpoint import Checkpoint
from eccentric_models.command import main
from eccentric_models.data import load
from eccentric_models.training import CHECKPOINT, restore, train

TINY = ("--epochs", "1", "--width", "0.05", "--dim", "2")
# As the fixture `settings` has them, but for the epochs.
SHORT = ("--epochs", "2", "--batch-size", "20", "--dim", "2", "--width", "0.25", "--learning-rate", "0.01")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, torch):  # noqa: ARG001
    """Where the command is at work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def small_digits(toy, monkeypatch):
    """Some random images of 4 x 4 in place of the digits, and no pictures, which take seconds."""
    monkeypatch.setattr(command, "_save", lambda *_: None)
    for module in ("training", "command"):
        monkeypatch.setattr(f"eccentric_models.{module}.load", lambda *_: toy)
    return toy


@pytest.fixture
def run(small_digits, settings, folder):
    """A run that is done."""
    train(settings(epochs=2), folder / "run", dataset=small_digits)
    return folder / "run"


@pytest.fixture
def refuse(capsys):
    """Run the command and assert that it says one line, with all these parts in it, and nothing else."""

    def refuse(arguments, *parts, status=2):
        capsys.readouterr()
        assert main(arguments) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        for part in parts:
            assert str(part) in err

    return refuse


def test_bare(folder, capsys):
    """On the digits; the second run has a folder of its own."""
    assert main(["train", *TINY]) == 0
    out = folder / "runs" / "digits-torch-1"
    names = {path.name for path in out.iterdir() if not path.name.startswith("events.out.tfevents")}
    assert names == {CHECKPOINT, "metrics.jsonl", "reconstructions.png", "latents.png"}
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in names if name.endswith("png"))
    printed = capsys.readouterr()
    assert printed.err == ""
    epoch, files, last = printed.out.splitlines()
    assert epoch.startswith("epoch 1: error 0.")
    assert files == f"runs/digits-torch-1: {CHECKPOINT}, metrics.jsonl, reconstructions.png, latents.png"
    assert last.startswith("test images: loss ")
    model = restore(Checkpoint.read(out / CHECKPOINT))
    digits = load("digits")
    assert last == f"test images: {command.evaluate(model, digits.test, model.encode(digits.test.images)).line}"


@pytest.mark.usefixtures("small_digits")
def test_folders_are_new(folder):
    for _ in range(2):
        assert main(["train", *SHORT]) == 0
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["digits-torch-1", "digits-torch-2"]


@pytest.mark.usefixtures("small_digits")
def test_options_are_the_settings(folder):
    options = ("--objective", "vae", "--lam", "0.5", "--mu", "2", "--scale", "3.5", "--seed", "4", "--dtype", "float64")
    assert main(["train", *SHORT, *options, "--weight-decay", "0", "--out", "new/run"]) == 0
    chosen = Checkpoint.read(folder / "new" / "run" / CHECKPOINT).settings
    assert (chosen.objective, chosen.lam, chosen.mu, chosen.scale, chosen.seed) == ("vae", 0.5, 2.0, 3.5, 4)
    assert (chosen.dtype, chosen.learning_rate, chosen.weight_decay, chosen.batch_size) == ("float64", 0.01, 0.0, 20)


def test_resume(run, refuse, outcome, capsys):
    """In two commands, what was one run."""
    refuse(["train", *SHORT, "--out", "run"], "run has a run already", "--resume")
    assert main(["train", *SHORT, "--epochs", "1", "--out", "parts"]) == 0
    assert main(["train", *SHORT, "--out", "parts", "--resume"]) == 0
    assert "epoch 2:" in capsys.readouterr().out
    assert outcome(run.parent / "parts") == outcome(run)
    refuse(["train", *SHORT, "--out", "run", "--resume", "--dim", "3"], "dim 2, not 3")
    refuse(["train", *SHORT, "--out", "run", "--resume", "--epochs", "1"], "epochs must be as many or more, got 1")


@pytest.mark.usefixtures("small_digits")
def test_a_folder_with_brackets(capsys):
    """It is no markup."""
    assert main(["train", *SHORT, "--out", "a[b] [/c] :x:"]) == 0
    assert "\na[b] [/c] :x:: checkpoint" in capsys.readouterr().out
    assert main(["evaluate", "a[b] [/c] :x:"]) == 0
    assert "a[b] [/c] :x:: digits" in capsys.readouterr().out


def test_evaluate(run, small_digits, capsys):
    assert main(["evaluate", "run", "--json", "new/figures.json"]) == 0
    table = capsys.readouterr().out
    assert "run: digits, d = 2, eccentric, 2 epochs" in table
    figures = json.loads((run.parent / "new" / "figures.json").read_text())
    assert figures.keys() == {"training", "test", "neighbour_error"}
    model = restore(Checkpoint.read(run / CHECKPOINT))
    for name, split in (("training", small_digits.train), ("test", small_digits.test)):
        expected = command.evaluate(model, split, model.encode(split.images))
        found = figures[name]
        assert found.pop("eigenvalues") == expected.spectrum.eigenvalues.tolist()
        for figure in ("trace", "eccentricity"):
            assert found.pop(figure) == getattr(expected.spectrum, figure)
        assert found == {figure: getattr(expected, figure) for figure in found}
        assert found.keys() == {"count", "reconstruction", "loss", "floor", "radius", "stationary_radius"}
        assert found["floor"] < found["loss"]

    rows = {cells[0].strip(): cells[1:] for line in table.splitlines() if len(cells := line.strip("│").split("│")) == 3}
    assert [cell.strip() for cell in rows["images"]] == ["61", "20"]
    labels = {
        "eccentric loss": "loss",
        "its floor": "floor",
        "radius": "radius",
        "stationary radius": "stationary_radius",
    }
    for label, figure in labels.items():
        assert [cell.strip() for cell in rows[label]] == [
            f"{figures[side][figure]:.4f}" for side in ("training", "test")
        ]
    assert rows["error of 15 nearest neighbours"][1].strip() == f"{100 * figures['neighbour_error']:.2f} %"


@pytest.mark.parametrize("side", ["train", "test"])
def test_encode(run, small_digits, side, capsys):
    assert main(["encode", "run", "new/latents.npz", "--split", side]) == 0
    split = getattr(small_digits, side)
    with np.load("new/latents.npz") as arrays:
        assert {*arrays} == {"latents", "labels"}
        assert np.array_equal(arrays["latents"], restore(Checkpoint.read(run / CHECKPOINT)).encode(split.images))
        assert np.array_equal(arrays["labels"], split.labels)
    count = len(split.labels)
    assert capsys.readouterr().out == f"new/latents.npz: latents ({count}, 2), labels ({count},)\n"


@pytest.mark.usefixtures("run", "frameworks")
def test_encode_in_another_framework(small_digits):
    """Images of a file, which are those of the data."""
    np.save("images.npy", small_digits.test.images)
    assert main(["encode", "run", "here.npz"]) == 0
    assert main(["encode", "run", "there.npz", "--images", "images.npy", "--framework", "jax"]) == 0
    with np.load("here.npz") as here, np.load("there.npz") as there:
        assert {*there} == {"latents"}
        np.testing.assert_allclose(there["latents"], here["latents"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--epochs", "-1"], "error: epochs must be a whole number, 0 or more, got -1"),
        (["--dim", "1"], "dim must be a whole number, 2 or more, got 1"),
        (["--batch-size", "1"], "batch_size must be a whole number, 2 or more, got 1"),
        (["--batch-size", "1501"], "batch_size must be at most the 1500 training images, got 1501"),
        (["--seed", "-1"], "seed must be"),
        (["--width", "0"], "width must be a finite number above 0, got 0.0"),
        (["--width", "1e9"], "Unable to allocate"),
        (["--learning-rate", "inf"], "learning_rate must be a finite number above 0, got inf"),
        (["--weight-decay", "-1"], "weight_decay must be a finite number from 0 up, got -1.0"),
        (["--lam", "nan"], "lam must be a finite number, 0 or more, got nan"),
        (["--mu", "0.5"], "mu must be"),
        (["--scale", "-1"], "scale must be"),
        (["--scale", "1e40", "--width", "0.05"], "scale (M) must be from"),
        (["--network", "celeba"], "network celeba is not for images of (28, 28, 1)"),
        (["--folder", "none"], "folder must be None for digits"),
        (["--data", "mnist", "--folder", "none"], "none is not a folder"),
        (["--data", "celeba"], "celeba"),
        (["--resume"], "--resume needs --out"),
        (["--device", "gpu"], 'device "gpu": PyTorch finds none'),
        (["--out", "file"], "can't be written"),
        (["--out", "file/run"], "can't be written"),
    ],
)
def test_bad_options(refuse, folder, arguments, says):
    (folder / "file").touch()
    refuse(["train", *arguments], says)


@pytest.mark.parametrize(
    "arguments", [[], ["learn"], ["train", "--dim", "x"], ["train", "--objective", "gan"], ["encode"]]
)
def test_what_the_parser_refuses(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err


@pytest.mark.parametrize("arguments", [["evaluate", "run"], ["encode", "run", "latents.npz"]])
class TestNoRun:
    def test_missing(self, refuse, arguments):
        refuse(arguments, f"run/{CHECKPOINT} is missing")

    def test_damaged(self, refuse, run, arguments):
        content = (run / CHECKPOINT).read_bytes()
        (run / CHECKPOINT).write_bytes(content[:-1])
        refuse(arguments, f"run/{CHECKPOINT} is damaged")
        (run / CHECKPOINT).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refuse(arguments, f"run/{CHECKPOINT} was changed")

    @pytest.mark.usefixtures("run")
    def test_no_device(self, refuse, arguments):
        refuse([*arguments, "--device", "gpu"], 'device "gpu"')

    @pytest.mark.usefixtures("run")
    def test_other_images(self, refuse, arguments, toy28, monkeypatch):
        monkeypatch.setattr("eccentric_models.command.load", lambda *_: toy28)
        refuse(arguments, "the run is of images of (4, 4, 1), not (28, 28, 1)")

    @pytest.mark.usefixtures("run")
    def test_no_folder(self, refuse, arguments, monkeypatch):
        monkeypatch.setattr("eccentric_models.command.load", load)
        refuse([*arguments, "--folder", "none"], "folder must be None for digits")


@pytest.mark.parametrize("arguments", [["evaluate", "run", "--json", "file/x"], ["encode", "run", "file/x"]])
def test_a_target_that_cannot_be_written(run, arguments, capsys):
    (run.parent / "file").touch()
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: [Errno ")


def test_a_full_disk(refuse, run, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", no_room)
    refuse(["encode", "run", "latents.npz"], "No space left on device")
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((3, 4, 4, 1)), "must have uint8 images (n, 4, 4, 1), got float64 (3, 4, 4, 1)"),
        (np.zeros((3, 4, 4), np.uint8), "got uint8 (3, 4, 4)"),
        (np.zeros((0, 4, 4, 1), np.uint8), "got uint8 (0, 4, 4, 1)"),
        (np.uint8(3), "got uint8 ()"),
        (np.array([None]), "can't be read"),
        (None, "can't be read"),
        (b"", "can't be read"),
        (b"none", "can't be read"),
    ],
)
def test_other_images(refuse, folder, images, says):
    if isinstance(images, bytes):
        (folder / "images.npy").write_bytes(images)
    elif images is not None:
        np.save("images.npy", images)
    refuse(["encode", "run", "latents.npz", "--images", "images.npy"], "images.npy", says)
    assert not (folder / "latents.npz").exists()


@pytest.mark.usefixtures("run")
def test_an_archive_of_images(refuse):
    np.savez("images.npz", images=np.zeros((3, 4, 4, 1), np.uint8))
    refuse(["encode", "run", "latents.npz", "--images", "images.npz"], "images.npz must have uint8 images", "NpzFile")


@pytest.mark.usefixtures("run")
def test_interrupted(refuse, folder, outcome, monkeypatch):
    """At the end of the first epoch, before its checkpoint; and resumed."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command.Console, "print", interrupt)
        refuse(["train", *SHORT, "--out", "parts"], "interrupted; --resume continues", status=130)
    assert Checkpoint.read(folder / "parts" / CHECKPOINT).epoch == 0
    assert main(["train", *SHORT, "--out", "parts", "--resume"]) == 0
    assert outcome(folder / "parts") == outcome(folder / "run")
