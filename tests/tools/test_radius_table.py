"""The radius table as its user sees it: tables, claims, exit status, files, bad usage."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import radius_table
from _command import Output, UsageError, open_outputs
from _settle import Settled, judge_settled

from eccentric_core import loss_floor, stationary_radius

TOOL = Path(radius_table.__file__)


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def test_default_verifies_the_papers_claims():
    result = run()
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("PASS") == 6
    assert "FAIL" not in result.stdout
    assert "4.257289 %" in result.stdout  # the 4.3 % of d = 2, at mu = 5
    assert result.stderr == ""  # no progress bar where there is no terminal


def test_every_output(tmp_path):
    files = {name: tmp_path / name for name in ("t.csv", "t.json", "one.png", "two.svg")}
    arguments = ["--csv", files["t.csv"], "--json", files["t.json"], "--plot", files["one.png"]]
    arguments += ["--force-plot", files["two.svg"], "--dims", "2,12-14,64", "--digits", "20"]
    assert radius_table.main(list(map(str, arguments))) == 0
    rows = list(csv.DictReader(files["t.csv"].read_text().splitlines()))
    assert [row["dim"] for row in rows] == ["2", "12", "13", "14", "64"]
    assert float(rows[4]["radius_at_mu_1"]) == float(stationary_radius(64))
    report = json.loads(files["t.json"].read_text())
    assert report["rows"][0]["worst_error"] == pytest.approx(0.0425729, rel=1e-5)
    assert report["rows"][4]["critical_mu"] is None
    assert all(row["digits_agreed"] > 15 for row in report["rows"])
    assert len(report["figure1"]) == 299
    assert files["one.png"].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files["two.svg"].read_bytes()
    assert set(tmp_path.iterdir()) == set(files.values())  # nothing is left over


def test_exact_scale():
    result = run("--scale", "exact", "--dims", "2,64")
    assert result.returncode == 0
    assert "PASS  rho is sqrt(d) to 1e-14 for every d from 2 to 300" in result.stdout


def test_a_claim_that_fails_fails_the_run(capsys):
    """mu below 1 is outside the paper's range, and there the first claim does not hold."""
    assert radius_table.main(["--dims", "12", "--mu-start", "0.51", "--digits", "0"]) == 1
    assert "FAIL  rho is within 0.1 % of sqrt(d) for every d from 12 to 300" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [1.002, 0.998])
def test_wrong_radii_are_noticed(monkeypatch, capsys, wrong):
    monkeypatch.setattr(radius_table, "stationary_radius", lambda *a, **k: stationary_radius(*a, **k) * wrong)
    assert radius_table.main(["--dims", "12", "--mu-step", "1"]) == 1
    assert capsys.readouterr().out.count("FAIL") == 3


def test_radii_that_are_too_good_are_noticed(monkeypatch):
    """Each claim must also fail one dimension below."""
    monkeypatch.setattr(radius_table, "stationary_radius", lambda dim, *_, **__: np.sqrt(dim) * np.ones(3))
    errors = radius_table.worst_errors(list(range(2, 301)), radius_table.MuGrid(), "paper")
    assert [claim.holds for claim in radius_table.judge(errors, "paper")] == [True, False] * 3


def test_empirical(tmp_path):
    report_file = tmp_path / "report.json"
    result = run("--empirical", "--dims", "2,4,100", "--rows", 120, "--json", report_file)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("PASS") == 9
    assert "Left out: dimensions beyond 60" in result.stdout
    rows = json.loads(report_file.read_text())["empirical"]["rows"]
    assert [row["dim"] for row in rows] == [2, 4]
    for row in rows:
        assert row["floor"] == float(loss_floor(row["dim"], batch_size=120))
        assert row["floor"] <= row["loss"] <= 0.99 * row["floor"]
        assert row["mean_radius"] == pytest.approx(row["radius"], rel=5e-3)
        assert row["spread"] < 0.02


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, [True, True, True]),
        ({"loss": -1.00001}, [False, True, True]),
        ({"mean_radius": 2.03}, [True, False, True]),
        ({"loss": -0.98}, [True, True, False]),
        ({"loss": -0.98, "mean_radius": 2.5, "is_minimum": False}, [True]),
    ],
)
def test_each_empirical_claim_can_fail(change, holds):
    settled = Settled(
        dim=4, rows=100, mean_radius=2.0, radius=2.001, spread=0.01, loss=-0.999, floor=-1.0, is_minimum=True
    )
    assert [claim.holds for claim in judge_settled([replace(settled, **change)])] == holds


def test_empirical_beyond_the_boundary_says_so():
    result = run("--empirical", "--dims", "2", "--mu", "2.5", "--rows", "100")
    assert result.returncode == 0
    assert "the sphere is not the minimum" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--colour"], ["--colour"]),
        (["--dims", "5-2"], ["--dims", "'5-2'", "empty"]),
        (["--dims", ""], ["--dims", "no dimension"]),
        (["--dims", "2,x"], ["--dims", "'x'"]),
        (["--dims", "2-9:0"], ["--dims", "step", "positive"]),
        (["--dims", "1,2"], ["--dims", "2 or more", "got 1"]),
        (["--mu-start", "0.5"], ["--mu-start", "greater than 1/2", "0.5"]),
        (["--mu-start", "nan"], ["--mu-start", "greater than 1/2", "nan"]),
        (["--mu-start", "1e301", "--mu-stop", "1e301"], ["--mu-start", "at most", "1e+301"]),
        (["--mu-stop", "inf"], ["--mu-stop", "at most", "inf"]),
        (["--empirical", "--mu", "1e301"], ["--mu", "at most", "1e+301"]),
        (["--dims", "2-100000000000"], ["--dims", "more than 100,000"]),
        (["--csv", "{folder}/" + 260 * "n"], ["--csv", "too long"]),
        (["--csv", "{folder}/loop"], ["--csv", "cannot write"]),
        (["--csv", "{folder}/same", "--json", "{folder}/same"], ["--csv and --json", "both name"]),
        (["--csv", ""], ["--csv", "cannot write"]),
        (["--mu-start", "one"], ["--mu-start", "float", "'one'"]),
        (["--mu-step", "0"], ["--mu-step", "positive", "0"]),
        (["--mu-stop", "0.9"], ["empty", "0.9"]),
        (["--mu-start", "6"], ["empty", "from 6 to 5"]),
        (["--dims", "2000000"], ["1e8", "--mu-step"]),
        (["--scale", "papre"], ["--scale", "papre"]),
        (["--digits", "-1"], ["--digits", "negative", "-1"]),
        (["--empirical", "--dims", "100"], ["--dims", "60", "100"]),
        (["--empirical", "--rows", "5000"], ["--rows", "1797", "5000"]),
        (["--empirical", "--mu", "0.2"], ["--mu", "1/2", "0.2"]),
        (["--csv", "{missing}/t.csv"], ["--csv", "cannot write", "No such file"]),
        (["--json", "{folder}"], ["--json", "cannot write", "directory"]),
        (["--plot", "{folder}/figure.txt"], ["--plot", ".png"]),
        (["--force-plot", "/proc/figure.png"], ["--force-plot", "cannot write"]),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, words, tmp_path, capsys):
    places = {"missing": tmp_path / "missing", "folder": tmp_path}
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SystemExit) as caught:
        radius_table.main([argument.format(**places) for argument in arguments])
    assert caught.value.code == 2
    printed, error = capsys.readouterr()
    assert printed == ""  # nothing was computed
    assert error.count("\n") == 1
    for word in words:
        assert word in error


def test_what_is_there_stays_until_the_end(tmp_path):
    """An output that cannot be written stops the run before it touches the others."""
    kept = tmp_path / "kept.csv"
    kept.write_text("precious")
    assert run("--csv", kept, "--json", tmp_path / "missing" / "t.json").returncode == 2
    assert kept.read_text() == "precious"
    kept.chmod(0o640)
    assert run("--csv", kept, "--dims", "2").returncode == 0
    assert kept.read_text().startswith("dim,worst_error")
    assert kept.stat().st_mode & 0o777 == 0o640


def test_output_goes_through_links_and_into_devices(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    link.symlink_to(target)
    Output("--json", link).write(b"{}")
    assert link.is_symlink()
    assert target.read_bytes() == b"{}"
    Output("--json", Path(os.devnull)).write(b"{}")
    assert Path(os.devnull).is_char_device()


QUICK = ["--digits", "0", "--dims", "4", "--mu-step", "1"]


def shell(command, tmp_path):
    tool = f"{sys.executable} {TOOL} {' '.join(QUICK)}"
    command = command.replace("TOOL", tool)
    result = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
    )
    assert "Traceback" not in result.stderr
    return result


def test_standard_output_as_a_file_name_is_a_stream(tmp_path):
    """What stdout is redirected to is appended to, not replaced."""
    log = tmp_path / "log.txt"
    log.write_text("precious\n")
    shell("TOOL --csv /dev/stdout >> log.txt", tmp_path)
    text = log.read_text()
    assert text.startswith("precious\n")
    assert "dim,worst_error" in text
    assert "PASS" in text
    assert "dim,worst_error" in shell("TOOL --csv /dev/stdout | cat", tmp_path).stdout


def test_a_pipe_is_a_stream(tmp_path):
    shell("mkfifo pipe; cat pipe > copy & TOOL --csv pipe; wait", tmp_path)
    assert (tmp_path / "copy").read_text().startswith("dim,worst_error")


def test_files_are_written_whatever_becomes_of_the_screen(tmp_path):
    for k, screen in enumerate(("| head -1", "> /dev/full", ">&-")):
        shell(f"TOOL --csv {k}.csv {screen}", tmp_path)
        assert (tmp_path / f"{k}.csv").read_text().startswith("dim,worst_error")
    assert "cannot write standard output" in shell("TOOL > /dev/full", tmp_path).stderr
    assert shell("TOOL > /dev/full", tmp_path).returncode == 2


def test_one_file_that_fails_does_not_stop_the_others(tmp_path):
    result = shell("TOOL --csv /dev/full --json t.json", tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--csv: cannot write /dev/full: No space left" in result.stderr
    assert (tmp_path / "t.json").exists()
    assert "PASS" in result.stdout


def test_tables_fit_a_narrow_terminal(tmp_path):
    result = shell("COLUMNS=80 TOOL --empirical --rows 60", tmp_path)
    assert "2.003703" in result.stdout
    assert "…" not in result.stdout


def test_another_grid_is_named(tmp_path):
    assert "another grid of mu than the paper's: mu from 1 to 2d + 1 in steps of 1" in shell("TOOL", tmp_path).stdout


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    kept = tmp_path / "kept.json"
    kept.write_text("precious")
    output = Output("--json", kept)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        output.write(b"{}")
    assert kept.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [kept]


def test_outputs_that_were_not_asked_for():
    assert open_outputs(("--csv", None, ())) == []


def test_output_complains_early(tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        Output("--csv", tmp_path / "no" / "where.csv")
