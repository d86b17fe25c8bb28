"""The modes that a test of the backends runs in, and programs in processes of their own."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from frameworks import COMPILERS, FRAMEWORKS, MODES, PLAIN, require_gpu

# What TensorFlow prints about its build.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_MADE = {}
_USED = []


def _framework(request):
    """The mode of a test. What was compiled for the one before is forgotten, as all of it would take gigabytes."""
    name = request.param
    if name not in _USED:
        for other in _USED:
            _MADE[other].forget()
            gc.collect()
        _USED[:] = [name]
    if name not in _MADE:
        _MADE[name] = FRAMEWORKS[name](name)
        with warnings.catch_warnings():  # frameworks warn of each other and of Python at import
            warnings.simplefilter("ignore")
            _MADE[name].module.eccentric_loss  # noqa: B018  an import that fails is an error, not a skip
    require_gpu(request.config, _MADE[name].adapter.removeprefix("eccentric_"))
    return _MADE[name]


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """PyTorch compiles a function for a few kinds of arguments alone: those of a file are forgotten after it."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch"].compiler.reset()


@pytest.fixture(params=MODES)
def framework(request):
    """Every framework in every mode."""
    return _framework(request)


@pytest.fixture(params=[name for name in MODES if name not in PLAIN])
def differentiable(request):
    """The frameworks whose loss is differentiated by the framework, in every mode."""
    return _framework(request)


@pytest.fixture(params=COMPILERS)
def compiler(request):
    """The modes that compile C++."""
    return _framework(request)


@pytest.fixture(params=[name for name in MODES if name != "torch-compile"])
def twice(request):
    """The modes with second derivatives."""
    return _framework(request)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Modes in which something is compiled leave out the cases of `eager`: the formulas are defined once for all."""
    kept, left_out = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        modes = (parameters.get(fixture) for fixture in ("framework", "differentiable", "twice", "compiler"))
        kinds = [FRAMEWORKS[mode] for mode in modes if mode in FRAMEWORKS]
        compiled = any(kind.compiled or kind.compiles for kind in kinds)
        (left_out if compiled and item.get_closest_marker("eager") else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture(scope="session")
def python():
    """Run a program in a fresh interpreter; give what it prints."""

    def run(program, **environment):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """Run a program in some processes, each with its rank and a common file as arguments; give what each prints."""

    def run(program, count):
        meeting = tmp_path_factory.mktemp("processes") / "meeting"
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(rank), str(meeting)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]
        try:
            outputs, errors = zip(*(process.communicate(timeout=120) for process in running), strict=True)
        finally:
            for process in running:
                process.kill()
        for rank, process in enumerate(running):
            assert process.returncode == 0, f"process {rank}:\n{outputs[rank][-2000:]}\n{errors[rank][-2000:]}"
        return outputs

    return run
