"""The project as it is shipped: the public names, the imports, the wheel, the style."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import eccentric_core

ROOT = Path(__file__).resolve().parents[2]

PUBLIC = [
    "AdversarialProjection",
    "Alignment",
    "AnglePreservingProjection",
    "AngularKernel",
    "AntipodalKernel",
    "GaussianKernel",
    "GroupProjection",
    "InverseMultiquadricKernel",
    "InverseMultiquadricMixture",
    "LatentSpectrum",
    "LearnedProjection",
    "LogarithmicKernel",
    "PairKernel",
    "RandomProjection",
    "RieszKernel",
    "align",
    "compressive_energy",
    "critical_mu",
    "eccentric_loss",
    "eccentric_loss_and_grad",
    "enclose_critical_mu",
    "enclose_radius",
    "hyperspherical_energy",
    "hyperspherical_energy_and_grad",
    "init_projection",
    "inverse_multiquadric_mmd",
    "kernel_scale",
    "loss_floor",
    "mean_angle",
    "pair_kernel",
    "pair_sum",
    "pair_sum_and_grad",
    "pair_sum_hvp",
    "repulsive_force",
    "spectrum",
    "sphere_is_minimizer",
    "sphere_loss",
    "stationary_radius",
    "theorem1_integral",
    "uniformity",
    "update_projection",
]


def python(code, *, executable=sys.executable, **options):
    result = subprocess.run([executable, "-c", code], capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_public_names():
    assert sorted(eccentric_core.__all__) == PUBLIC
    assert all(getattr(eccentric_core, name).__doc__ for name in PUBLIC)
    assert eccentric_core.__version__ == importlib.metadata.version("eccentric")
    assert f"\nversion: {eccentric_core.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_core_imports_no_framework_and_leaves_global_state_alone():
    code = """
import sys, warnings
import array_api_compat, mpmath, numpy, scipy.linalg, scipy.optimize

def state():
    random = numpy.random.get_state()[1].tolist()
    return numpy.geterr(), numpy.get_printoptions(), mpmath.mp.dps, mpmath.iv.dps, warnings.filters[:], random

before = state()
import eccentric_core
eccentric_core.eccentric_loss_and_grad(numpy.ones((4, 3)))
eccentric_core.enclose_radius(4, 1.0)
eccentric_core.loss_floor(2, 2.0)
assert state() == before
frameworks = {"torch", "jax", "jaxlib", "tensorflow", "keras", "mlx", "cupy", "dask", "sklearn", "matplotlib", "rich"}
print(sorted({name.partition(".")[0] for name in sys.modules} & frameworks))
"""
    assert python(code).strip() == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the working tree, built without a network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = out.glob("*.whl")
    return path


def test_wheel_ships_only_our_names(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert all(top.startswith("eccentric_") or top.endswith(".dist-info") for top in tops)
    frameworks = ("torch", "jax", "tensorflow", "keras", "mlx")
    for package in ("core", *frameworks, "models"):
        assert {f"eccentric_{package}/__init__.py", f"eccentric_{package}/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("test" in name for name in names)


def test_wheel_in_an_empty_environment(wheel, tmp_path):
    """Installed beside its run-time dependencies alone, it works from another folder."""
    environment = tmp_path / "environment"
    venv.create(environment)
    bin_folder = environment / ("Scripts" if sys.platform == "win32" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", bin_folder / "python"]
    install = [*pip, "install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel]
    result = subprocess.run(list(map(str, install)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = """
import importlib.util, json, pathlib
import numpy as np
import eccentric_core
z = np.random.default_rng(0).standard_normal((100, 8))
loss, grad = eccentric_core.eccentric_loss_and_grad(z)
others = ("torch", "jax", "tensorflow", "keras", "mlx", "sklearn", "pytest")
frameworks = [name for name in others if importlib.util.find_spec(name)]
print(json.dumps([float(loss), float(eccentric_core.stationary_radius(64)), eccentric_core.__file__, frameworks]))
"""
    output = python(code, executable=str(bin_folder / "python"), cwd=elsewhere, env={"PATH": ""})
    loss, radius, place, frameworks = json.loads(output)
    assert loss == pytest.approx(-2.8844, abs=1e-4)
    assert radius == pytest.approx(7.999886776744891, rel=1e-14)
    assert Path(place).is_relative_to(environment)
    assert frameworks == []
    command = subprocess.run([str(bin_folder / "eccentric"), "train"], capture_output=True, text=True, check=False)
    assert command.returncode == 2
    assert command.stderr.startswith("error: the command eccentric needs ")
    assert command.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]],
    ids=lambda command: " ".join(command),
)
def test_style_and_types(command):
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ci_runs_the_command_of_the_readme():
    """The README has its two commands where .ci/run and a reader look for them."""
    readme = (ROOT / "README.md").read_text()
    for marker, tool in (("<!-- table -->", "tools/radius_table.py --empirical"), ("<!-- tests -->", "-m pytest")):
        assert readme.count(marker) == 1
        command = readme.partition(marker)[2].partition("```sh\n")[2].partition("\n```")[0]
        assert command.startswith("python3 -m venv .venv && ")
        assert command.endswith(tool)
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- tests -->" in script
    assert "install" not in script  # whatever must be installed, the README's command installs
