"""tools/verify_latents.py: that it passes, and that it sees what it is there to see."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import _agreement
import _parity
import numpy as np
import pytest
import torch
import verify_latents
from _agreement import Result
from _parity import Case

from eccentric_models.architecture import BatchNorm, Convolution, TransposedConvolution
from eccentric_models.frameworks import torch_model
from eccentric_models.settings import Settings

SMALL = (Case("mnist", "eccentric", "float64", steps=3, width=1 / 8),)


def failed_claims(capsys, options):
    """The status of the command, and the claims that failed."""
    status = verify_latents.main(list(options))
    lines = capsys.readouterr().out.splitlines()
    return status, [line.removeprefix("FAIL").partition(" within")[0].strip() for line in lines if line[:4] == "FAIL"]


@pytest.fixture(scope="module")
def course():
    """What JAX makes of the small network."""
    return _parity.follow(SMALL[0], "jax")


@pytest.fixture
def verify(monkeypatch, capsys, course):
    """The command on one small network, in PyTorch, which a test breaks, and in JAX, which is as it was."""
    follow = _parity.follow
    monkeypatch.setattr(_parity, "CASES", SMALL)
    monkeypatch.setattr(_parity, "follow", lambda case, name: course if name == "jax" else follow(case, name))
    return lambda *options: failed_claims(capsys, ("--frameworks", "torch", "jax", *options))


SAME_WEIGHTS = [f"same weights, {mode} mode, float64" for mode in ("evaluation", "training")]
TRAINED = [f"{what} after 3 steps in float64" for what in ("latents", "weights")]


@pytest.mark.usefixtures("verify")
def test_it_passes_in_all_three(capsys, tmp_path):
    report = tmp_path / "report.json"
    assert failed_claims(capsys, ("--json", str(report))) == (0, [])
    content = json.loads(report.read_text())
    assert [claim["holds"] for claim in content["claims"]] == [True] * 4
    pairs = [["torch", "jax"], ["torch", "tensorflow"], ["jax", "tensorflow"]]
    assert [difference["pair"] for difference in content["parity"]] == pairs


def change_norm(monkeypatch, **changes):
    """Another batch normalisation, in PyTorch alone."""
    modules = torch_model._modules

    def changed(step):
        layer = replace(step.layer, **changes) if isinstance(step.layer, BatchNorm) else step.layer
        return modules(replace(step, layer=layer))

    monkeypatch.setattr(torch_model, "_modules", changed)


def test_it_sees_another_epsilon(verify, monkeypatch):
    """That of Keras, if one forgets to give it."""
    change_norm(monkeypatch, epsilon=1e-3)
    assert verify() == (1, SAME_WEIGHTS + TRAINED)


def test_it_sees_the_other_convention_of_momentum(verify, monkeypatch):
    """What Flax and Keras call 0.9 is 0.1 in PyTorch: the running statistics differ, and nothing else does."""
    change_norm(monkeypatch, momentum=0.9)
    assert verify() == (1, TRAINED)


def test_it_sees_the_variance_of_a_sample(verify, monkeypatch):
    """As PyTorch's own running variance is."""
    moments = torch_model._moments

    def sample(x):
        mean, variance = moments(x)
        count = x.numel() // x.shape[1]
        return mean, variance * (count / (count - 1))

    monkeypatch.setattr(torch_model, "_moments", sample)
    assert verify() == (1, [SAME_WEIGHTS[1], *TRAINED])


def test_it_sees_the_epsilon_of_adam(verify, monkeypatch):
    """Ten times as much; the convention of Keras makes thirty times of it in the first step."""
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, eps, **options: adam(*args, eps=10 * eps, **options))
    assert verify() == (1, TRAINED)


def test_it_sees_decay_that_is_decoupled(verify, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.AdamW)
    assert verify() == (1, TRAINED)


def test_it_sees_another_layout(verify, monkeypatch):
    """Height and width of a kernel exchanged: the shapes are the same."""
    monkeypatch.setitem(torch_model.Model.LAYOUT, Convolution, (3, 2, 1, 0))
    assert verify() == (1, SAME_WEIGHTS + TRAINED)


def test_it_sees_another_layout_of_the_decoder(verify, monkeypatch):
    monkeypatch.setitem(torch_model.Model.LAYOUT, TransposedConvolution, (2, 3, 1, 0))
    assert verify() == (1, TRAINED)


def test_it_sees_nan(verify, monkeypatch):
    follow = _parity.follow

    def with_nan(case, name):
        course = follow(case, name)
        return course._replace(training=np.full_like(course.training, np.nan)) if name == "torch" else course

    monkeypatch.setattr(_parity, "follow", with_nan)
    assert verify() == (1, SAME_WEIGHTS[1:])


def result(rng, *, trace=8.0, turn=0.0):
    """A run whose latents are a little noise away from the same ones."""
    z = np.random.default_rng(0).standard_normal((200, 8)) * np.linspace(2, 0.5, 8)
    z = z + 0.1 * rng.standard_normal(z.shape) + turn * np.roll(z, 1, axis=1)
    figures = {"trace": trace + 0.01 * rng.standard_normal(), "neighbour_error": 0.03 + 0.001 * rng.standard_normal()}
    return Result(figures, np.linspace(2, 0.5, 8) + 0.01 * rng.standard_normal(8), z, z)


class TestAgreement:
    """The statistical part on made-up runs."""

    def results(self, rng, **changes):
        return {
            (framework, seed): result(rng, **(changes if framework == "jax" else {}))
            for framework in ("torch", "jax", "tensorflow")
            for seed in range(3)
        }

    def claims(self, results):
        _, claims = _agreement.agree(results, verify_latents.Screen())
        return {claim.text.partition(":")[0]: claim.holds for claim in claims}

    def test_frameworks_that_agree(self, rng):
        claims = self.claims(self.results(rng))
        assert claims == dict.fromkeys(claims, True)
        assert set(claims) >= {"trace", "neighbour_error", "eigenvalues", "aligned angle"}

    def test_another_trace(self, rng):
        assert not self.claims(self.results(rng, trace=8.2))["trace"]

    def test_a_trace_far_from_d(self, rng):
        assert not self.claims(self.results(rng, trace=9.0))["the trace is within 10% of d in every run"]

    def test_other_directions(self, rng):
        assert not self.claims(self.results(rng, turn=0.5))["aligned angle"]

    def test_other_eigenvalues(self, rng):
        results = self.results(rng)
        for seed in range(3):
            changed = results["jax", seed]
            results["jax", seed] = replace(changed, eigenvalues=changed.eigenvalues + 0.2 * (np.arange(8) == 3))
        assert not self.claims(results)["eigenvalues"]


def test_full_trains_every_run_once(verify, tmp_path, monkeypatch):
    monkeypatch.setattr(verify_latents, "Settings", partial(Settings, width=1 / 8))
    options = (
        "--frameworks",
        "torch",
        "tensorflow",
        "--full",
        "--epochs",
        "0",
        "--seeds",
        "0",
        "1",
        "--runs",
        str(tmp_path / "runs"),
    )
    status, failed = verify(*options)
    assert status == 1  # nothing is trained: the trace is far from d
    assert failed[0] == "the trace is"
    checkpoints = sorted((tmp_path / "runs").rglob("*.safetensors"))
    assert [path.parent.name for path in checkpoints] == [
        "tensorflow-seed0",
        "tensorflow-seed1",
        "torch-seed0",
        "torch-seed1",
    ]
    before = [path.stat().st_mtime_ns for path in checkpoints]
    verify(*options)
    assert [path.stat().st_mtime_ns for path in checkpoints] == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frameworks", "torch"), "two frameworks are needed"),
        (("--frameworks", "numpy"), "invalid choice"),
        (("--full", "--seeds", "1", "1"), "--seeds"),
        (("--epochs", "-1"), "epochs must be"),
        (("--full", "--data", "mnist", "--folder", "no-such-folder"), "no-such-folder"),
    ],
)
def test_bad_options(options, message, monkeypatch, capsys):
    monkeypatch.setattr(_parity, "CASES", ())
    with pytest.raises(SystemExit) as caught:
        verify_latents.main(["--frameworks", "torch", "jax", *options])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
