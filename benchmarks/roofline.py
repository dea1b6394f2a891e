"""What semismooth Newton must compute and move, over what this device was measured to do.

The counts are those of the algorithm, not of a profile: products with X are read from memory once for all strengths,
systems once for each. Lanes are in step, so a path is counted with the steps of its slowest strength, for all of
them; rounds, in which lanes that are done are left out, save a fifth to a quarter of that.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import l1jax
from l1jax.engines import by_name
from l1jax.engines.semismooth import CHUNK, LENGTHS
from l1jax.solving import choose_engine


def ceilings(dtype, size=None):
    """{"flops", "bytes"} a second: of one large matrix product in full precision, and of a copy."""
    size = size or (8192 if jax.default_backend() != "cpu" else 1024)
    a = jnp.ones((size, size), dtype)
    long = jnp.ones(32 * size * 1024 // a.dtype.itemsize, dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    seconds = best(product, a), best(jax.jit(lambda a: 2 * a), long)
    return {"flops": 2 * size**3 / seconds[0], "bytes": 2 * long.nbytes / seconds[1]}


def best(function, a, rounds=5):
    """The shortest of a few runs, in seconds."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        jax.block_until_ready(function(a))
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def counts(problem, lams, steps):
    """{"flops", "bytes"} of a path whose slowest strength took `steps`."""
    (n, p), size = problem.X.shape, problem.dtype.itemsize
    squared, d = isinstance(problem.loss, l1jax.Squared), min(n, p)
    products = 2 * len(LENGTHS) + 3 + 2 / CHUNK  # with X, for each strength and step; a certificate takes two
    if p > n:
        taken = min(p, 2 * n)
        system, moved = n * n * taken, 3 * n * taken  # half a symmetric product's 2 n^2 K
    else:
        system, moved = (0, 0) if squared else (n * p * p, 3 * n * p)
    once = n * p * p if squared and p <= n else 0
    flops = steps * lams * (2 * products * n * p + system + d**3 / 3) + once
    return {"flops": flops, "bytes": steps * size * (products * n * p + lams * (moved + 4 * d * d))}


def beside(problem, solver, steps, measured):
    """What stands beside a path's time: its counts, and the seconds that the two ceilings allow; none by other engines.

    Bytes are those of main memory: problems that fit into a cache may take less.
    """
    if choose_engine(problem, solver) != by_name["ssn"]:
        return {}
    steps = np.asarray(steps)
    need = counts(problem, len(steps), int(steps.max()))
    return {"longest": int(steps.max()), **need, "floor_s": max(need[k] / measured[k] for k in need)}
