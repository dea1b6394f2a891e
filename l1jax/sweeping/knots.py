"""Many lassos knot by knot: each lane walks down its own path, by sweeps of its own second derivative."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax.engines.homotopy import DEPENDENT, KNOTS, ROUNDING
from l1jax.sweeping.lanes import Moments, diagonal

MATRICES = 320_000  # bytes of M of lanes that go in step


def walk_lanes(base: Array, moments: Moments, lams: Array) -> tuple[Array, Array]:
    """Minimisers of z'Gz/2 - c'z + lam*sum base_j*|z_j| at strengths (m, L), descending: z (m, p, L), steps (m, L).

    base: (p, L), above 0 and finite; a lane of which it is not is NaN, as is one that comes to dependent features, or
    to no end, from there on.

    Source: as for `engines.homotopy.Homotopy`.
    """
    p, lanes = moments.c.shape
    size = max(4, min(32, MATRICES // (p * p * base.dtype.itemsize) // 4 * 4))

    def dealt(a: Array) -> Array:
        """(..., L) in groups of lanes: (K, ..., size)."""
        a = jnp.pad(a, ((0, 0),) * (a.ndim - 1) + ((0, -lanes % size),), mode="edge")
        return jnp.moveaxis(a.reshape(*a.shape[:-1], -1, size), -2, 0)

    def gathered(a: Array) -> Array:
        a = jnp.moveaxis(a, 0, -2)
        return a.reshape(*a.shape[:-2], -1)[..., :lanes]

    groups = jax.tree.map(dealt, (base, moments, lams))
    z, steps = jax.lax.map(lambda group: _walk(*group), groups)
    return gathered(z), gathered(steps)


def _walk(base: Array, moments: Moments, lams: Array) -> tuple[Array, Array]:
    """The same for a group of lanes whose matrices the caches hold.

    M is G swept on the support, as in `engines.homotopy`: coefficients of the support, and slopes outside of it, are
    `a - lam*r`. Every step takes each lane to its next knot, past one strength at most.
    """
    (p, lanes), count = moments.c.shape, lams.shape[0]
    places, lane = jnp.arange(p, dtype=jnp.int32)[:, None], jnp.arange(lanes, dtype=jnp.int32)
    own = diagonal(moments.G)
    faint = ROUNDING * eps(own.dtype) * jnp.sqrt(moments.yy[None] / jnp.where(own > 0, own, 1.0))

    def step(carry: Any) -> Any:
        M, a, r, sign, lam, i, last, Z, steps, going, k = carry
        on, at = sign != 0, a - lam[None] * r
        up, down, inwards = base + r, base - r, -sign * r
        above = jnp.where(up > 0, (lam[None] * base - at) / jnp.where(up > 0, up, 1.0), jnp.inf)
        below = jnp.where(down > 0, (lam[None] * base + at) / jnp.where(down > 0, down, 1.0), jnp.inf)
        within = jnp.where(inwards > 0, sign * at / jnp.where(inwards > 0, inwards, 1.0), jnp.inf)
        fall = jnp.where(on, within, jnp.where(own > 0, jnp.minimum(above, below), jnp.inf))
        # The last one is at its bound, and leaves it.
        fall = jnp.maximum(jnp.where(places == last[None], jnp.inf, fall), 0.0)
        j = jnp.argmin(fall, axis=0).astype(jnp.int32)
        knot = lam - _at(fall, j)
        # The strength that lies before the knot, if one does; the sweep waits until none does.
        goal, after = (_at(lams, jnp.minimum(i + ahead, count - 1)) for ahead in (0, 1))
        going = going & ~jnp.isnan(knot)
        reached = going & (goal >= knot)
        z = a - goal[None] * r
        z = jnp.where(on & (jnp.abs(z) > faint), z, 0.0)
        Z = Z.at[lane, jnp.where(reached, i, count)].set(z.T, mode="drop")
        steps = steps.at[lane, i].add(jnp.where(going, 1, 0), mode="drop")
        i = i + jnp.where(reached, 1, 0)
        going = going & (i < count)
        sweeps = going & (~reached | (after < knot))
        column = jnp.take_along_axis(M, j[None, None], axis=0)[0]
        pivot, was_on, here = _at(column, j), _at(on, j), places == j[None]
        going = going & ~(sweeps & ~was_on & ~(pivot > DEPENDENT * _at(own, j)))
        sweeps = sweeps & going
        lam, last = jnp.where(sweeps, knot, lam), jnp.where(sweeps, j, last)
        side = jnp.where(_at(above, j) < _at(below, j), 1.0, -1.0)
        here, back = here & sweeps[None], was_on[None]
        pull = jnp.where(here, jnp.where(back, sign, side[None]) * base, 0.0)
        r = jnp.where(back, r, r + pull)
        # With these two entries, which are 1 and the pivot, one product sweeps all of M.
        per, from_a, from_r = (
            jnp.where(sweeps, x / pivot, 0.0)[None] for x in (jnp.ones_like(lam), _at(a, j), _at(r, j))
        )
        row = jnp.where(here, 1 + per, jnp.where(on == back, column, -column) * per)
        column = jnp.where(here, pivot[None] - 1, column)
        M, a, r = M - row[:, None] * column[None], a - column * from_a, r - column * from_r
        r = jnp.where(back, r - pull, r)
        sign = jnp.where(here, jnp.where(back, 0.0, side[None]), sign)
        return M, a, r, sign, lam, i, last, Z, steps, going, k + 1

    def unfinished(carry: Any) -> Array:
        *_, going, k = carry
        return jnp.any(going) & (k < KNOTS * p + count)

    zero = jnp.zeros_like(moments.c)
    lam = jnp.maximum(lams[0], jnp.max(jnp.abs(moments.c) / base, axis=0))
    none = jnp.zeros(lanes, jnp.int32)
    Z = jnp.full((lanes, count, p), jnp.nan, zero.dtype)
    steps = jnp.zeros((lanes, count), jnp.int32)
    going = jnp.isfinite(lam) & jnp.all(jnp.isfinite(base), axis=0)
    carry = (moments.G, moments.c, zero, zero, lam, none, none - 1, Z, steps, going, none[0])
    *_, Z, steps, _, _ = jax.lax.while_loop(unfinished, step, carry)
    return Z.transpose(1, 2, 0), steps.T


def _at(a: Array, j: Array) -> Array:
    """a[j] of each lane: (p, L) at (L,)."""
    return jnp.take_along_axis(a, j[None], axis=0)[0]
