"""The examples run as they stand, from another folder, and print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PRINTED = {
    "annealed_mu.py": r"mu from 8\.5 to 1\.0 in 300 steps, one compilation; trace [78]\.\d \(d = 8\)",
    "learned_mu.py": r"trained with mu = 1\.7, learned mu = 1\.(699|70[01])",
    "own_kernel.py": r"PyTorch 2891\.\d\d, JAX 2891\.\d\d; gradients within \de-(0[6-9]|1\d) of each other",
}


def test_every_example_is_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == PRINTED.keys()


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_runs(name, tmp_path):
    command = [sys.executable, EXAMPLES / name]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(PRINTED[name], result.stdout.strip())
    assert f"python examples/{name}" in (EXAMPLES / name).read_text()
