"""Rows that are spread over devices or processes: value, gradient and second derivative are those of one process."""

from __future__ import annotations

import pytest
from programs import CASE, outcomes

JAX = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from eccentric_core import eccentric_loss_and_grad
from eccentric_jax import eccentric_loss

jax.config.update("jax_enable_x64", True)
devices = np.array(jax.devices())
assert len(devices) == 4
z = jnp.asarray(np.random.default_rng(0).standard_normal((40, 4)))
parts = z.reshape(4, 10, 4)
loss, gradient = eccentric_loss_and_grad(np.asarray(z), 1.5)
single = lambda z: eccentric_loss(z, 1.5)
penalty = jax.grad(lambda z: jnp.sum(jax.grad(single)(z) ** 2))(z)
local = lambda z: eccentric_loss(z, 1.5, axis_name="i")


def sharded(f, out, **options):
    return jax.shard_map(f, mesh=Mesh(devices, ("i",)), in_specs=P("i"), out_specs=out, **options)


def same(value, expected):
    error = np.linalg.norm(np.ravel(value) - np.ravel(expected))
    assert error <= 1e-12 * np.linalg.norm(expected), (np.ravel(value)[:3], np.ravel(expected)[:3])
"""


JAX_CASES = {
    # By shard_map as it is by default a value that all devices share is known for one, and counts once.
    "shard_map": """
same(sharded(local, P())(z), loss)
same(jax.jit(sharded(local, P()))(z), loss)
same(jax.grad(sharded(local, P()))(z), gradient)
same(sharded(jax.grad(local), P("i"))(z), gradient)
squared = jax.grad(lambda z: (3 * local(z)) ** 2)
same(jax.jit(sharded(squared, P("i")))(z), 18 * loss * gradient)
same(sharded(lambda z: jax.jvp(local, (z,), (jnp.cos(z),))[1], P())(z), np.sum(gradient * np.cos(z)))
""",
    "shard_map, second derivatives": """
same(jax.grad(lambda z: jnp.sum(jax.grad(sharded(local, P()))(z) ** 2))(z), penalty)
inside = lambda z: jax.lax.psum(jnp.sum(jax.grad(local)(z) ** 2), "i")
same(sharded(jax.grad(inside), P("i"))(z), penalty)
""",
    # Parameters that all devices share get the whole gradient, as in data-parallel training.
    "shard_map, shared parameters": """
def f(w, z):
    return local(z * w)
expected = np.sum(gradient * np.asarray(z), 0)
share = lambda f, out: jax.shard_map(f, mesh=Mesh(devices, ("i",)), in_specs=(P(), P("i")), out_specs=out)
same(jax.grad(share(f, P()))(jnp.ones(4), z), expected)
same(share(jax.grad(f), P())(jnp.ones(4), z), expected)
""",
    # Where JAX does not know what devices share, a sum over them is transposed to a sum: outside nothing changes,
    # inside the gradient is that of the sum of the four copies of the loss.
    "without check_vma": """
same(sharded(local, P(), check_vma=False)(z), loss)
same(jax.grad(sharded(local, P(), check_vma=False))(z), gradient)
same(sharded(jax.grad(local), P("i"), check_vma=False)(z), 4 * gradient)
same(jax.grad(lambda z: jnp.sum(jax.grad(sharded(local, P(), check_vma=False))(z) ** 2))(z), penalty)
""",
    "vmap": """
same(jax.vmap(local, axis_name="i")(parts), np.full(4, loss))
same(jax.grad(jax.vmap(local, axis_name="i", out_axes=None))(parts), gradient)
same(jax.grad(lambda z: jnp.mean(jax.vmap(local, axis_name="i")(z)))(parts), gradient)
same(jax.vmap(jax.grad(local), axis_name="i")(parts), 4 * gradient)
""",
    "batches of batches": """
from functools import partial
stack = jnp.stack([z, 2 * z, jnp.cos(z)])
f = jax.shard_map(local, mesh=Mesh(devices, ("i",)), in_specs=P(None, "i"), out_specs=P())
losses, gradients = eccentric_loss_and_grad(np.asarray(stack), 1.5)
same(f(stack), losses)
same(jax.grad(lambda z: f(z) @ jnp.arange(1.0, 4.0))(stack), gradients * np.arange(1.0, 4.0)[:, None, None])
""",
    # Outside of shard_map nothing need be said: the compiler spreads the sweep as it likes.
    "sharded arrays": """
placed = jax.device_put(z, NamedSharding(Mesh(devices, ("i",)), P("i")))
same(jax.jit(jax.grad(single))(placed), gradient)
""",
    "float32": """
placed = z.astype(jnp.float32)
result = sharded(jax.grad(local), P("i"))(placed)
assert result.dtype == jnp.float32
assert np.linalg.norm(result - gradient) <= 1e-5 * np.linalg.norm(gradient)
""",
}


@pytest.fixture(scope="module")
def jax_outcomes(python):
    program = f"{CASE}{JAX}\nfor item in {JAX_CASES!r}.items():\n    outcome(*item)\n"
    return outcomes(python(program, XLA_FLAGS="--xla_force_host_platform_device_count=4", JAX_PLATFORMS="cpu"))


@pytest.mark.parametrize("name", JAX_CASES)
def test_jax(name, jax_outcomes):
    assert jax_outcomes[name] == ""


TORCH = """
import os
import sys
import numpy as np
import torch
import torch.distributed as dist
from eccentric_torch import eccentric_loss

PROCESSES = 3


def same(value, expected):
    error = torch.linalg.norm(value - expected)
    assert error <= 1e-12 * torch.linalg.norm(expected), (value, expected)


def run(cases):
    rank = int(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=PROCESSES)
    group = dist.group.WORLD
    whole = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 4)))
    own = slice(20 * rank, 20 * (rank + 1))
    single, spread = lambda z: eccentric_loss(z, 1.5), lambda z: eccentric_loss(z, 1.5, group=group)
    for item in cases.items():
        # Where one process fails the others lose their connection to it, and no case comes after it.
        if not outcome(*item, whole, own, single, spread, group):
            break
    dist.destroy_process_group()
    # Where a thread of Gloo still has a tensor, the end of the interpreter aborts the process (PyTorch issue 190489).
    sys.stdout.flush()
    os._exit(0)
"""

TORCH_CASES = {
    "value and gradient": """
def case(whole, own, single, spread, group):
    z, part = whole.clone().requires_grad_(), whole[own].clone().requires_grad_()
    expected, found = single(z), spread(part)
    same(found, expected)
    expected.backward()
    found.backward()
    same(part.grad, z.grad[own])
    with torch.no_grad():
        same(spread(part), expected)
""",
    "a function of the loss": """
def case(whole, own, single, spread, group):
    z, part = whole.clone().requires_grad_(), whole[own].clone().requires_grad_()
    ((3 * single(z)) ** 2).backward()
    ((3 * spread(part)) ** 2).backward()
    same(part.grad, z.grad[own])
""",
    # Every process adds the penalty of its own rows: the sum of all is what is differentiated.
    "gradient penalty": """
def case(whole, own, single, spread, group):
    z, part = whole.clone().requires_grad_(), whole[own].clone().requires_grad_()
    for f, rows in ((single, z), (spread, part)):
        (gradient,) = torch.autograd.grad(f(rows), rows, create_graph=True)
        (gradient**2).sum().backward()
    same(part.grad, z.grad[own])
""",
    # The sum of the gradients over processes, as one takes it for parameters of a single loss.
    "shared parameters": """
def case(whole, own, single, spread, group):
    gradients = []
    for f, rows in ((single, whole), (spread, whole[own])):
        w = torch.ones(4, dtype=torch.float64, requires_grad=True)
        f(rows * w).backward()
        gradients.append(w.grad)
    dist.all_reduce(gradients[1])
    same(gradients[1], gradients[0])
""",
    "batches of batches": """
def case(whole, own, single, spread, group):
    stack = torch.stack([whole, 2 * whole, whole.cos()])
    z, part = stack.clone().requires_grad_(), stack[:, own].clone().requires_grad_()
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    expected, found = single(z), spread(part)
    same(found, expected)
    (expected @ weights).backward()
    (found @ weights).backward()
    same(part.grad, z.grad[:, own])
""",
    "a group of some processes": """
def case(whole, own, single, spread, group):
    some = dist.new_group([0, 2])
    if dist.get_rank() != 1:
        z, part = torch.cat([whole[:20], whole[40:]]).requires_grad_(), whole[own].clone().requires_grad_()
        expected, found = single(z), eccentric_loss(part, 1.5, group=some)
        same(found, expected)
        expected.backward()
        found.backward()
        same(part.grad, z.grad[:20] if dist.get_rank() == 0 else z.grad[20:])
""",
    # One row in each is a batch of three.
    "few rows": """
def case(whole, own, single, spread, group):
    rank = dist.get_rank()
    z, part = whole[:3].clone().requires_grad_(), whole[rank : rank + 1].clone().requires_grad_()
    expected, found = single(z), spread(part)
    same(found, expected)
    expected.backward()
    found.backward()
    same(part.grad, z.grad[rank : rank + 1])
""",
    "strided rows and half precision": """
def case(whole, own, single, spread, group):
    for dtype in (torch.float64, torch.bfloat16):
        rows = whole.to(dtype)
        z, part = rows.clone().requires_grad_(), rows[own].mT.contiguous().mT.requires_grad_()
        expected, found = single(z), spread(part)
        assert found.dtype == expected.dtype
        assert abs(found - expected) <= (1e-12 if dtype == torch.float64 else 1e-5) * abs(expected)
        expected.backward()
        found.backward()
        assert part.grad.dtype == dtype
        difference = torch.linalg.norm((part.grad - z.grad[own]).double())
        # Half precision is rounded once: a unit of its last digit.
        assert difference <= (1e-12 if dtype == torch.float64 else 2**-8) * torch.linalg.norm(z.grad[own].double())
""",
}


@pytest.fixture(scope="module")
def torch_outcomes(processes):
    return [outcomes(printed) for printed in processes(f"{CASE}{TORCH}\nrun({TORCH_CASES!r})\n", 3)]


@pytest.mark.parametrize("name", TORCH_CASES)
def test_torch(name, torch_outcomes):
    assert [process.get(name, "not reached") for process in torch_outcomes] == ["", "", ""]
