"""The benchmark runs, and what it compares is the same thing."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import _spherical
import benchmark
import numpy as np
import pytest
from _contenders import CONTESTS, LOOP_STEPS
from _device import HIDDEN
from _memory import extra_memory
from _models import summary
from _process import MeasureError, run_alone
from _timing import measure_cells

from eccentric_core import eccentric_loss_and_grad, hyperspherical_energy_and_grad, stationary_radius

FIELDS = {
    "torch": {"eager", "compile", "ours", "ours_compile", "eager_over_ours", "compile_over_ours"},
    "jax": {"jit", "ours", "jit_over_ours", "jit_in_a_loop", "ours_in_a_loop", "jit_over_ours_in_a_loop"},
    "tensorflow": {"graph", "xla", "ours", "ours_graph", "ours_xla", "best_over_ours_best"},
}


@pytest.fixture(params=CONTESTS)
def installed(request):
    return request.param if request.param == "numpy" else framework(request.param)


@pytest.fixture(params=FIELDS)
def section(request):
    return framework(request.param)


def framework(name):
    if not benchmark.is_installed(name):
        pytest.skip(f"{name} is not installed")
    return name


def assert_close(actual, expected):
    assert np.linalg.norm(np.asarray(actual) - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # frameworks warn of themselves
def test_contenders_agree(rng, installed):
    z = rng.standard_normal((100, 8)).astype(np.float32)  # a cell of the section, whose kernels are compiled once
    loss, grad = eccentric_loss_and_grad(z.astype(np.float64))
    for contender in CONTESTS[installed].prepare(z).values():
        for _ in range(2):  # a second call starts from the same batch and adds to nothing
            value, gradient = contender()
            assert float(value) == pytest.approx(loss, rel=1e-5)
            assert_close(gradient, grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_loops_take_gradient_steps(rng):
    framework("jax")
    z = rng.standard_normal((70, 8)).astype(np.float32)
    last = z.astype(np.float64)
    for _ in range(LOOP_STEPS):
        value, grad = eccentric_loss_and_grad(last)
        last = last - 1e-3 * grad
    for loop in CONTESTS["jax"].prepare_loops(z).values():
        loss, reached = loop()
        assert float(loss) == pytest.approx(value, rel=1e-5)
        assert_close(reached, last)


def test_radius_by_bisection():
    for dim, mu in ((2, 3.0), (64, 1.0), (300, 601.0)):
        assert benchmark.radius_by_bisection(dim, mu) == pytest.approx(float(stationary_radius(dim, mu)), rel=1e-10)


def measure(section, tmp_path):
    path = tmp_path / "report.json"
    options = ("--largest", "100", "--dims", "8", "--repeat", "1", "--json", str(path))
    assert benchmark.main([section, *options]) == 0
    return json.loads(path.read_text())


def test_engine_section(tmp_path, capsys):
    rows = measure("engine", tmp_path)["engine"]
    assert [(row["n"], row["d"]) for row in rows] == [(100, 8)]
    assert all(row["ratio"] == pytest.approx(row["naive"] / row["core"]) for row in rows)
    assert "core" in capsys.readouterr().out


def test_framework_sections(section, tmp_path, capsys):
    report = measure(section, tmp_path)
    assert report["machine"][section]
    result = report[section]
    (cell,) = result["times"]
    assert (cell["n"], cell["d"]) == (100, 8)
    assert cell.keys() >= FIELDS[section]
    if section == "torch":
        floor = result["floor"]
        assert floor["floor_ratio"] == pytest.approx(floor["seconds"] / floor["floor_seconds"])
    if section == "jax":
        assert [row["n"] for row in result["compilation"]] == [512, 65_536]
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)


def test_models_section(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "FRAMEWORKS", ("torch",))
    monkeypatch.setattr(benchmark, "STEPS", 2)
    row = measure("models", tmp_path)["models"]["torch"]
    assert row["ratio"] == 1
    assert row["epoch"] == pytest.approx(600 * row["step"])
    assert row["share"] == pytest.approx(row["term"] / row["step"])
    assert "torch" in capsys.readouterr().out


def test_cost_of_the_term():
    seconds = {"step": [1.0, 30.0, 2.0], "term": [0.01, 0.02, 0.5]}
    assert summary(seconds) == pytest.approx({"step": 2.0, "term": 0.02, "share": 0.01})


def test_ratios(monkeypatch):
    times = {"graph": 4.0, "xla": 6.0, "ours": 9.0, "ours_graph": 8.0, "ours_xla": 2.0}
    monkeypatch.setattr("_timing.take_turns", lambda *_: times)
    monkeypatch.setitem(CONTESTS, "tensorflow", replace(CONTESTS["tensorflow"], prepare=lambda _: {}))
    (cell,) = measure_cells("tensorflow", 1, 100, (8,))
    assert cell == {"n": 100, "d": 8, **times, "best_over_ours_best": 2.0}


@pytest.fixture
def optimised(monkeypatch):
    """What XLA makes for users, and not what the tests elsewhere do with."""
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)


@pytest.mark.usefixtures("optimised")
def test_memory_of_each_library(installed):
    measured = extra_memory(6000, 64, installed, mu=1.0)
    assert 6000 * 64 * 4 <= measured["extra_bytes"] < 6000**2 * 4  # the gradient, and no matrix of all pairs


@pytest.mark.usefixtures("optimised")
def test_memory_of_hyperspherical_energies(installed):
    rows = 10_000  # at 6000 TensorFlow's peak varies around the size of such a matrix, 144 MB
    measured = extra_memory(rows, 64, installed, "hyperspherical_energy", half_space=True)
    assert rows * 64 * 4 <= measured["extra_bytes"] < rows**2 * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_contenders_for_mhe_agree(rng, section):
    w = rng.standard_normal((70, 8)).astype(np.float32)
    energy, grad = hyperspherical_energy_and_grad(w.astype(np.float64), half_space=True)
    contenders = _spherical.contenders(section, w, half_space=True)
    assert set(contenders) == {"naive", "ours", "naive_compiled", "ours_compiled"}
    for contender in contenders.values():
        for _ in range(2):
            value, gradient = contender()
            assert float(value) == pytest.approx(energy, rel=1e-5)
            assert_close(gradient, grad)


def test_mhe_section(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "FRAMEWORKS", (framework("jax"),))
    rows = measure("mhe", tmp_path)["mhe"]
    assert [row["half_space"] for row in rows] == [False, True]
    for row in rows:
        assert row["eager_over_ours"] == pytest.approx(row["naive"] / row["ours"])
        assert row["compiled_over_ours_compiled"] == pytest.approx(row["naive_compiled"] / row["ours_compiled"])
        assert isinstance(row["extra_bytes"], int)
    assert "half" in capsys.readouterr().out


def test_missing_framework(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["torch"])
    assert caught.value.code == 2
    assert "argument SECTION: torch is not installed" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "SECTIONS", ("torch",))  # all that is measured by default
    assert benchmark.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "torch: not installed"


def test_device(monkeypatch, capsys):
    """A GPU is hidden from the processes that measure, or must be found by those that are asked for."""
    framework("jax")
    for name in HIDDEN:
        monkeypatch.setenv(name, "")
    found = []

    def look(*_):
        found.append((run_alone("_device.py", "jax"), {name: os.environ[name] for name in HIDDEN}))
        return {"version": "1.0"}

    monkeypatch.setattr(benchmark, "measure_framework", look)
    assert benchmark.main(["jax", "--device", "cpu"]) == 0
    assert found == [(None, HIDDEN)]
    with pytest.raises(SystemExit):
        benchmark.main(["jax", "--device", "gpu"])  # they are hidden still
    assert "argument --device: jax finds no GPU; use auto or cpu" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "run_alone", lambda *_: "a card")
    benchmark.check_gpus(["jax"])


def test_failed_process(monkeypatch, capsys):
    def fail(*_):
        raise MeasureError("ended with status -9")

    monkeypatch.setattr(benchmark, "run_alone", fail)
    monkeypatch.setattr(benchmark, "is_installed", lambda _: True)
    assert benchmark.main(["jax"]) == 2
    assert capsys.readouterr().err == "error: jax: ended with status -9\n"
    with pytest.raises(MeasureError, match="library must be one of"):
        extra_memory(100, 8, "wheels")


def test_bad_usage(capsys):
    for arguments in (
        ["wheels"],
        ["--repeat", "0"],
        ["--largest", "99"],
        ["--dims", "8", "1"],
        ["--json", "/no/where.json"],
    ):
        with pytest.raises(SystemExit) as caught:
            benchmark.main(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
