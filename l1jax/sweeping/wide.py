"""Many lassos of many features: each lane walks knot by knot among the few that are near to moving."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import eps
from l1jax.certificate import Certificate, certify_only
from l1jax.standard_form import StandardForm
from l1jax.sweeping.knots import walk_lanes
from l1jax.sweeping.lanes import Moments

NEAR = 128  # features of a lane
ROUNDS = 4  # after each but the last the lanes choose theirs anew
LOOKS = 8  # strengths at which they look at all features for that
GLANCE = jnp.float32  # the dtype of a look at all features


def walk_near(block: Any, base: Array, yy: Array, lams: Array) -> tuple[Array, Array, Array]:
    """As `knots.walk_lanes`, for lanes of a `Block`; base (L, p), y'Sy (L,), strengths (L, m).

    The features (L, k) of each, their coefficients (m, k, L), and steps. Where more features move than a lane can hold,
    its points are not optimal: certificates tell.
    """
    lanes, p = base.shape
    looks = np.unique(np.linspace(0, lams.shape[1] - 1, LOOKS).round().astype(int))

    def forces(form: StandardForm) -> Array:
        return form.s * form.y

    def moments(form: StandardForm, ids: Array) -> tuple[Array, Array]:
        near = form.only(ids)
        return near.design.gram(near.s), near.design.tdot(forces(near))

    def forces_at(form: StandardForm, ids: Array, z: Array) -> Array:
        near = form.only(ids)
        return (form.s[:, None] * (form.y[:, None] - near.design.dot(z.T))).T

    reach = jnp.abs(_slopes(block, block.over(forces)[:, None])[:, 0]) / base
    for last in (False,) * (ROUNDS - 1) + (True,):
        ids = jax.lax.top_k(reach, min(NEAR, p))[1]
        at = lams if last else lams[:, looks]
        G, c = block.over(moments, ids)
        own = jnp.take_along_axis(base, ids, axis=1)
        z, steps = walk_lanes(own.T, Moments(G.transpose(1, 2, 0), c.T, yy), at.T)
        if not last:
            moved = jnp.any(z != 0, axis=0).T
            slopes = _slopes(block, block.over(forces_at, ids, z.transpose(2, 0, 1)))
            # How near each feature comes to moving: the largest of its slopes over lambda.
            reach = jnp.max(jnp.abs(slopes) / at[:, :, None], axis=1) / base
            reach = reach.at[jnp.arange(lanes)[:, None], ids].max(jnp.where(moved, jnp.inf, 0.0))
    return ids, z, steps


def certified_near(block: Any, penalties: Any, base: Array, lams: Array, ids: Array, z: Array) -> Certificate:
    """The certificates (L, m) of points z (m, k, L), 0 elsewhere; NaN if a coefficient there may have to move.

    Single precision tells that a feature rests where its slope is within its bound by more than rounding.
    """
    (lanes, p), n = base.shape, block.XT.shape[1]

    def lane(form: StandardForm, penalty: Any, lams: Array, ids: Array, z: Array) -> tuple[Certificate, Array]:
        def at(lam: Array, z: Array) -> tuple[Certificate, Array]:
            return certify_only(form, form.units(penalty.with_lam(lam)), ids, z, form.start[1])

        return jax.vmap(at)(lams, z)

    done, v = block.over(lane, penalties, lams, ids, z.transpose(2, 0, 1))
    outside = jnp.ones((lanes, p), bool).at[jnp.arange(lanes)[:, None], ids].set(False)
    wrong = n * eps(GLANCE) * jnp.linalg.norm(v, axis=2)[:, :, None] * jnp.linalg.norm(block.XT, axis=1)[None, None]
    most = jnp.abs(_slopes(block, v)) + wrong / block.forms.design.unit[:, None]
    rests = jnp.all(jnp.where(outside[:, None], most <= lams[:, :, None] * base[:, None], True), axis=2)
    whole = jnp.zeros((lanes, lams.shape[1], p), z.dtype)
    whole = whole.at[jnp.arange(lanes)[:, None], :, ids].set(z.transpose(2, 1, 0))
    gap = jnp.where(rests, done.gap, jnp.nan)
    return dataclasses.replace(done, z=whole, gap=gap, measure=gap)


def _slopes(block: Any, v: Array) -> Array:
    """X'v of lanes (L, m, n), about: (L, m, p)."""
    design = block.forms.design
    raw = jnp.matmul(v.astype(GLANCE), block.XT.T.astype(GLANCE)).astype(v.dtype)
    return (raw - design.shift[:, None] * jnp.sum(v, axis=2, keepdims=True)) / design.unit[:, None]
