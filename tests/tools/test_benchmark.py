"""The benchmark runs, and what it compares is the same thing."""

from __future__ import annotations

import json

import benchmark
import numpy as np
import pytest

from eccentric_core import eccentric_loss_and_grad, kernel_scale, stationary_radius


def test_contenders_agree(rng):
    z = rng.standard_normal((60, 8)).astype(np.float32)
    loss, grad = eccentric_loss_and_grad(z)
    naive_loss, naive_grad = benchmark.naive(z, np.float32(kernel_scale(8)))
    assert naive_loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(naive_grad, grad, rtol=0, atol=1e-5 * np.linalg.norm(grad))
    for dim, mu in ((2, 3.0), (64, 1.0), (300, 601.0)):
        assert benchmark.radius_by_bisection(dim, mu) == pytest.approx(float(stationary_radius(dim, mu)), rel=1e-10)


def test_engine_section(tmp_path, capsys):
    report = tmp_path / "report.json"
    arguments = ["engine", "--largest", "100", "--repeat", "1", "--json", str(report)]
    assert benchmark.main(arguments) == 0
    rows = json.loads(report.read_text())["engine"]
    assert [(row["n"], row["d"]) for row in rows] == [(100, 8), (100, 64), (100, 512)]
    assert all(row["ratio"] > 0 for row in rows)
    assert "eccentric_core" in capsys.readouterr().out


def test_bad_usage(capsys):
    for arguments in (["wheels"], ["--repeat", "0"], ["--json", "/no/where.json"]):
        with pytest.raises(SystemExit) as caught:
            benchmark.main(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
