"""Passes over the data, of which the host-driven engines make one for several points."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax.design import HIGHEST
from l1jax.engines.kinks import Floats

AT_ONCE = 8  # points between two passes
LONG = 10_000_000  # products of a pass that is worth XLA's call: it takes all threads, which don't wait for each other


def pass_over(XT: Floats, forces: Floats) -> Floats:
    """X'force for each of the forces (c, n): (c, p)."""
    count = len(forces)
    if count * XT.size < LONG:
        return forces @ XT.T
    padded = np.pad(forces, ((0, -count % AT_ONCE), (0, 0)))  # one program serves any number of them
    return np.asarray(_products(XT, padded))[:count]


@jax.jit
def _products(XT: Array, forces: Array) -> Array:
    return jnp.matmul(forces, XT.T, precision=HIGHEST)
