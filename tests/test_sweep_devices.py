"""A sweep on many devices, on several processes, and with more problems than fit in memory."""

import os
import socket
import subprocess
import sys

COMMON = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
import l1jax
from l1jax import L1, Problem, sweep
if len(sys.argv) > 1:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
rng = np.random.default_rng(0)
X = rng.normal(size=(48, 5))
y = X[:, 0] - 2 * X[:, 1] + 0.5 * rng.normal(size=48)
weights = rng.integers(0, 3, (11, 48)).astype(float)
problem = Problem(X, y, penalty=L1(1.0))
ask = {"weights": weights, "lams": [0.5, 0.1, 0.02], "tol": 1e-10}
"""

DEVICES = """
from jax.sharding import Mesh, NamedSharding, PartitionSpec
assert jax.device_count() == 8
one = sweep(problem, mesh=Mesh(np.array(jax.devices()[:1]), ("lanes",)), **ask)
for found in (sweep(problem, **ask), sweep(problem, chunk=3, **ask)):
    np.testing.assert_allclose(found.coef, one.coef, rtol=0, atol=1e-9)
    assert bool(jnp.all(found.converged))

def draw(key):
    X = jax.random.normal(key, (20, 3))
    return Problem(X, X[:, 0], penalty=L1(0.1))

keys = jax.random.split(jax.random.key(0), 13)
found = sweep(draw, over=keys, num=4, ratio=0.1)
alone = sweep(draw, over=keys, num=4, ratio=0.1, mesh=Mesh(np.array(jax.devices()[3:4]), ("lanes",)))
np.testing.assert_allclose(found.coef, alone.coef, rtol=0, atol=1e-9)

found = sweep(problem, solver="cd", **ask)
np.testing.assert_allclose(found.objective, one.objective, rtol=1e-8)

from l1jax import rounds
from l1jax.sweeping import study
one_round, shapes, rounds.FEWEST = rounds._round, [], 2
rounds._round = lambda *given: shapes.append(given[5] and given[5][1].shape) or one_round(*given)
mode, study.mode = study.mode, lambda: "vmap"  # as on GPU: each device gathers what goes on of its own lanes
found = sweep(problem, solver="cd", **ask)
np.testing.assert_allclose(found.objective, one.objective, rtol=1e-8)
assert shapes[0] is None and shapes[1][0] % 8 == 0
study.mode = mode

rows = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows", None))
spread = Problem(jax.device_put(X, rows), y, penalty=L1(1.0))
assert len(spread.X.sharding.device_set) == 8
found = sweep(spread, **ask)
np.testing.assert_allclose(found.coef, one.coef, rtol=0, atol=1e-9)

with jax.enable_x64(False):
    drawn = [sweep(draw, over=keys, num=4, ratio=0.1, mesh=mesh) for mesh in
             (None, Mesh(np.array(jax.devices()[3:4]), ("lanes",)))]
    lanes = [sweep(Problem(a, y, penalty=L1(1.0)), weights=weights, lams=ask["lams"]) for a in
             (X, jax.device_put(X.astype(np.float32), rows))]
for found, other in zip((drawn[0], *lanes), (drawn[1], one, one)):
    assert found.coef.dtype == np.float32 and bool(jnp.all(found.converged))
    np.testing.assert_allclose(found.coef, np.float32(other.coef), rtol=0, atol=1e-6)
"""

TELL = """
assert jax.process_count() == (2 if len(sys.argv) > 1 else 1)
found = sweep(problem, chunk=4, **ask)
few = sweep(problem, lams=ask["lams"])  # one block: a process has none of its own
assert bool(jnp.all(few.converged)) and few.coef.shape == (3, 5)
print("digest", repr(float(jnp.sum(found.coef * jnp.arange(5.0)))), bool(jnp.all(found.converged)))
"""

STREAMED = """
def draw(key):
    X = jax.random.normal(key, (100, 20))
    return Problem(X, X[:, 0] + jax.random.normal(jax.random.fold_in(key, 1), 100), penalty=L1(0.1))

keys = jax.random.split(jax.random.key(0), 20_000)
sweep(draw, over=keys[:1000], lams=[0.1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = sweep(draw, over=keys, lams=[0.1])
more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
assert bool(jnp.all(found.converged)) and found.coef.shape == (20_000, 1, 20)
print("more", more)
"""


def run(*jobs):
    """What the jobs, (script, XLA flags, arguments...), print; they run side by side."""
    running = []
    for script, flags, *args in jobs:
        flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, "-c", COMMON + script, *args]
        running.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True))
    told = []
    for process in running:
        with process:
            try:
                out, errors = process.communicate(timeout=280)
            finally:
                process.kill()
        assert process.returncode == 0, errors[-3000:]
        told.append(out)
    return told


def test_eight_devices_give_the_answers_of_one():
    run((DEVICES, "--xla_force_host_platform_device_count=8"))


def test_two_processes_each_get_the_answers_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    told = run(*((TELL, "", address, str(k)) for k in range(2)), (TELL, ""))
    (first, *_), *others = [line.split()[1:] for out in told for line in out.splitlines() if line.startswith("digest")]
    assert [end for _, end in others] == ["True", "True"]
    assert abs(float(others[0][0]) - float(first)) + abs(float(others[1][0]) - float(first)) < 1e-8


def test_problems_that_are_larger_than_memory_are_streamed():
    (told,) = run((STREAMED, ""))
    assert float(told.split()[-1]) < 0.25 * 20_000 * 100 * 20 * 8  # the designs alone are 320 MB
