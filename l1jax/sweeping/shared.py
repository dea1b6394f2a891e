"""Many lassos that share a Gram matrix: coordinate descent by blocks of coordinates, as products of matrices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax.penalties import Terms
from l1jax.sweeping.lanes import Moments, Point, combined, duality_gap, price, shortest

BLOCK = 16  # coordinates whose moves enter the others' slopes together
CYCLE = 5  # sweeps between looks
CYCLES = 500  # of a lane, at most, for one strength
MOVES = jnp.float32  # the dtype of moves


def descend_shared(
    terms_of: Callable[[Array], Terms],
    moments: Moments,
    lams: Array,
    goal: Array,
    slopes_of: Callable[[Array], Array],
) -> tuple[Array, Array]:
    """As `lanes.descend_lanes`, for G (p, p): z (m, p, L), sweeps (m, L), at strengths (m, L).

    `slopes_of` gives q = c - G z, from wherever it has its digits.

    Each lane goes on to its next strength as soon as it is done with one, whatever the others do. A look, after some
    sweeps, takes the slopes anew; between looks single precision does for what the moves since the last one change.
    What is extrapolated, from strength to strength and from sweep to sweep, is taken back if the next look finds
    neither the objective nor the gap lower.

    Source: as for `lanes.descend_lanes`.
    """
    count, lanes = lams.shape
    lane, enough = jnp.arange(lanes, dtype=jnp.int32), goal * moments.yy / 2

    def strength(i: Array) -> Array:
        return jnp.take_along_axis(lams, jnp.clip(i, 0, count - 1)[None], axis=0)[0]

    def cycle(carry: Any) -> Any:
        (z, q, height, least), ahead, last, i, k, Z, sweeps = carry
        terms = terms_of(strength(i))
        new, moved = swept(moments.G, terms, (z, q), ahead)
        slopes = slopes_of(new)
        rest = -(jnp.sum(moments.c * new, axis=0) + jnp.sum(slopes * new, axis=0)) / 2
        gap = duality_gap(moments, terms, (new, slopes))
        # The gap has digits where the objective has no more.
        better = (price(terms, new) + rest < price(terms, z) + height) | (gap < least)
        stuck = ~(better | jnp.any(ahead != 0, axis=0))  # only rounding is left
        z, q = jnp.where(better[None], new, z), jnp.where(better[None], slopes, q)
        height, k = jnp.where(better, rest, height), k + 1
        done = (i < count) & ((better & (gap <= enough)) | stuck | (k == CYCLES))
        least = jnp.where(done, jnp.inf, jnp.minimum(least, gap))
        place = jnp.where(done, i, count)
        Z = Z.at[lane, place].set(z.T, mode="drop")
        sweeps = sweeps.at[place, lane].set(CYCLE * k, mode="drop")
        # Between two changes of the support solutions are linear in lambda.
        apart = strength(i) - strength(i - 1)
        t = jnp.where(apart != 0, (strength(i + 1) - strength(i)) / jnp.where(apart != 0, apart, 1.0), 0.0)
        ahead = jnp.where(better[None], combined(shortest(moved), moved[1:] - moved[-1:]), 0.0)
        ahead = jnp.where(done[None], (t[None] * (z - last)).astype(ahead.dtype), ahead)
        last = jnp.where(done[None], z, last)
        return (z, q, height, least), ahead, last, i + jnp.where(done, 1, 0), jnp.where(done, 0, k), Z, sweeps

    zero, none = jnp.zeros_like(moments.c), jnp.zeros(lanes, jnp.int32)
    Z = jnp.zeros((lanes, count, zero.shape[0]), zero.dtype)
    sweeps = jnp.zeros((count, lanes), jnp.int32)
    unknown = jnp.full_like(zero[0], jnp.inf)
    base = (zero, moments.c, unknown, unknown)  # with its objective but for the penalty, and the least gap
    carry = (base, zero.astype(MOVES), zero, none, none, Z, sweeps)
    *_, Z, sweeps = jax.lax.while_loop(lambda carry: jnp.any(carry[3] < count), cycle, carry)
    return Z.transpose(1, 2, 0), sweeps


def swept(G: Array, terms: Terms, base: Point, ahead: Array) -> tuple[Array, Array]:
    """The point (p, L) after sweeps from base + ahead, and how far from base each was: (CYCLE + 1, p, L)."""
    (z, q), p = base, ahead.shape[0]
    blocks = -(-p // BLOCK)
    size = -(-p // blocks)
    places, g = jnp.arange(size, dtype=jnp.int32), jnp.diagonal(G)
    pace = jnp.where(g > 0, 1 / jnp.where(g > 0, g, 1.0), 0.0)
    single = G.astype(MOVES)

    def row(a: Array, j: Array) -> Array:
        return a[0] if a.shape[0] == 1 else jax.lax.dynamic_index_in_dim(a, j, 0, keepdims=False)

    def block(carry: tuple[Array, Array], first: Array) -> Any:
        z, moved = carry

        def cut(a: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(a, first, size)

        rows = cut(single)
        slopes = cut(q) - jnp.matmul(rows, moved).astype(q.dtype)
        among = jax.lax.dynamic_slice_in_dim(rows, first, size, axis=1)

        def step(moves: Array, own: Any) -> Any:
            j, products, slope = own
            slope = slope - jnp.matmul(products, moves).astype(slope.dtype)
            here, old, pace_j = jax.tree.map(lambda a: row(a, first + j), (terms, z, pace))
            new = jnp.where(pace_j > 0, here.prox(old + pace_j * slope, pace_j), 0.0)
            return jax.lax.dynamic_update_index_in_dim(moves, (new - old).astype(MOVES), j, 0), new

        moves, new = jax.lax.scan(step, jnp.zeros_like(moved[:size]), (places, among, slopes))
        put = jax.lax.dynamic_update_slice_in_dim
        return (put(z, new, first, 0), put(moved, cut(moved) + moves, first, 0)), None

    # The last block may overlap the one before.
    firsts = jnp.minimum(jnp.arange(blocks, dtype=jnp.int32) * size, p - size)

    def sweep(carry: tuple[Array, Array], _: None) -> Any:
        carry, _ = jax.lax.scan(block, carry, firsts)
        return carry, carry[1]

    (z, _), moved = jax.lax.scan(sweep, (z + ahead.astype(z.dtype), ahead), length=CYCLE)
    return z, jnp.concatenate([ahead[None], moved])
