"""Many lassos of many features: each lane walks knot by knot among the few that are near to moving."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax.standard_form import StandardForm
from l1jax.sweeping.knots import walk_lanes
from l1jax.sweeping.lanes import Moments

NEAR = 128  # features of a lane
ROUNDS = 4  # after each but the last the lanes choose theirs anew
LOOKS = 8  # strengths at which they look at all features for that


def walk_near(block: Any, base: Array, yy: Array, lams: Array) -> tuple[Array, Array]:
    """As `knots.walk_lanes`, for lanes of a `Block`; base (L, p), y'Sy (L,), strengths (L, m): z (m, p, L), steps.

    Where more features move than a lane can hold, its points are not optimal: certificates tell.
    """
    lanes, p = base.shape
    looks = np.unique(np.linspace(0, lams.shape[1] - 1, LOOKS).round().astype(int))

    def slopes(form: StandardForm) -> Array:
        return form.design.tdot(form.s * form.y)

    def moments(form: StandardForm, ids: Array) -> tuple[Array, Array]:
        near = form.only(ids)
        return near.design.gram(near.s), slopes(near)

    def reaches(form: StandardForm, ids: Array, z: Array, lams: Array) -> Array:
        """How near each feature comes to moving: the largest of its slopes over lambda."""
        near = form.only(ids)
        forces = form.s[:, None] * (form.y[:, None] - near.design.dot(z.T))
        return jnp.max(jnp.abs(form.design.tdot(forces)) / lams[None], axis=1)

    reach = jnp.abs(block.over(slopes)) / base
    for last in (False,) * (ROUNDS - 1) + (True,):
        ids = jax.lax.top_k(reach, min(NEAR, p))[1]
        at = lams if last else lams[:, looks]
        G, c = block.over(moments, ids)
        own = jnp.take_along_axis(base, ids, axis=1)
        z, steps = walk_lanes(own.T, Moments(G.transpose(1, 2, 0), c.T, yy), at.T)
        if not last:
            moved = jnp.any(z != 0, axis=0).T
            reach = block.over(reaches, ids, z.transpose(2, 0, 1), at) / base
            reach = reach.at[jnp.arange(lanes)[:, None], ids].max(jnp.where(moved, jnp.inf, 0.0))
    whole = jnp.zeros((p, *z.shape[::2]), z.dtype)  # (p, m, L)
    whole = whole.at[ids.T, :, jnp.arange(lanes)[None]].set(z.transpose(1, 2, 0))
    return whole.transpose(1, 0, 2), steps
