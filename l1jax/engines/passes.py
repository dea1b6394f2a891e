"""Passes over the data, of which the host-driven engines make one for several points."""

import numpy as np

from l1jax._threads import cores, in_parts
from l1jax.engines.kinks import Floats

AT_ONCE = 8  # points between two passes
BLOCK = 131_072  # numbers that are taken from memory at a time
ROWS = 64  # at least


def pass_over(XT: Floats, forces: Floats) -> Floats:
    """X'force for each of the forces (c, n): (c, p)."""
    p, n = XT.shape
    if cores(forces.size * p) == 1:
        return forces @ XT.T
    slopes = np.empty((len(forces), p), XT.dtype)

    def part(at: slice) -> None:
        np.matmul(forces, XT[at].T, out=slopes[:, at])

    in_parts(part, p, max(ROWS, BLOCK // n))
    return slopes
