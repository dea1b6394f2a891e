"""Many lassos that share a Gram matrix: coordinate descent by blocks of coordinates, as products of matrices."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax.penalties import Terms
from l1jax.sweeping.lanes import (
    MOVES,
    VECTOR,
    Moments,
    Point,
    combined,
    duality_gap,
    landed,
    made,
    price,
    shortest,
    slopes,
)

BLOCK = 20  # coordinates whose moves enter the others' slopes together
CYCLE = 4  # sweeps between looks
CYCLES = 625  # of a lane, at most, for one strength
OFTEN = 4  # looks for one that takes the slopes anew
TILES = 2  # at most
WIDTH = 128  # lanes of a tile, which are enough: what they carry is to stay in the cache
TIGHT = 1e9  # roundings: a goal below them has each look do so


def descend_shared(
    terms_of: Callable[[Array], Callable[[Array], Terms]],
    moments: Moments,
    lams: Array,
    goal: Array,
    plain: bool,
) -> tuple[Array, Array]:
    """As `lanes.descend_lanes`, for G (p, p): z (m, p, L), sweeps (m, L), at strengths (m, L).

    `terms_of(lanes)` is a function of these lanes' strengths.

    Lanes go in tiles, one after the other. Each lane goes on to its next strength as soon as it is done with one,
    whatever the others do; those that take longest of every tile go on together, as one more tile. A look, after some
    sweeps, brings the slopes up to date. Single precision does for what the moves since the last look change; every few
    looks, or at each where the goal is near to rounding, slopes are taken anew.
    What is extrapolated, from strength to strength and from sweep to sweep, is taken back if the next look finds
    neither the objective nor the gap lower.

    Source: as for `lanes.descend_lanes`.
    """
    (count, lanes), p = lams.shape, len(moments.c)
    tiles = max(1, min(TILES, -(-lanes // WIDTH)))
    width = -(-lanes // (tiles * VECTOR)) * VECTOR
    late = width // tiles if tiles > 1 else 0  # lanes of a tile that are left to the one more
    table, single = Table.of(moments.G), moments.G.astype(MOVES)
    often = jnp.where(goal < TIGHT * eps(moments.c.dtype), 1, OFTEN)

    def advanced(ids: Array, state: Any, found: Any, fewest: Array) -> Any:
        """These lanes further on, and what they found, when at most `fewest` still have strengths to go."""
        own = dataclasses.replace(moments, c=moments.c[:, ids], yy=moments.yy[ids], share=None)
        enough, strengths = goal * own.yy / 2, lams[:, ids]
        terms_at = terms_of(ids)

        def strength(i: Array) -> Array:
            return jnp.take_along_axis(strengths, jnp.clip(i, 0, count - 1)[None], axis=0)[0]

        def cycle(carry: Any) -> Any:
            ((z, q, height, least), (ahead, tried), before, i, k), (Z, sweeps), look = carry
            terms = terms_at(strength(i))
            moved = swept(table, terms, (z, q), ahead, plain)
            new = landed(z, moved[-1], terms, plain)
            new_q = jax.lax.cond(
                look % often == 0, lambda: slopes(own, new), lambda: q - jnp.matmul(single, moved[-1]).astype(q.dtype)
            )
            rest = -(jnp.sum(own.c * new, axis=0) + jnp.sum(new_q * new, axis=0)) / 2
            gap = duality_gap(own, terms, (new, new_q), plain)
            # The gap has digits where the objective has no more.
            better = (price(terms, new) + rest < price(terms, z) + height) | (gap < least)
            stuck = ~(better | tried)  # only rounding is left
            k = k + 1
            done = (i < count) & ((better & (gap <= enough)) | stuck | (k == CYCLES))
            better, done = made((better, done))
            z, q = jnp.where(better[None], new, z), jnp.where(better[None], new_q, q)
            height = jnp.where(better, rest, height)
            least = jnp.where(done, jnp.inf, jnp.minimum(least, gap))
            place = jnp.where(done, i, count)
            Z = Z.at[ids, place].set(z.T, mode="drop")
            sweeps = sweeps.at[place, ids].set(CYCLE * k, mode="drop")
            # Between two changes of the support solutions are linear in lambda.
            apart = strength(i) - strength(i - 1)
            t = jnp.where(apart != 0, (strength(i + 1) - strength(i)) / jnp.where(apart != 0, apart, 1.0), 0.0)
            ahead = jnp.where(better[None], combined(shortest(moved), [a - moved[-1] for a in moved[1:]]), 0.0)
            ahead = jnp.where(done[None], (t[None] * (z - before)).astype(MOVES), ahead)
            before = jnp.where(done[None], z, before)
            k, i = jnp.where(done, 0, k), i + jnp.where(done, 1, 0)
            return ((z, q, height, least), (ahead, better | done), before, i, k), (Z, sweeps), look + 1

        def unfinished(carry: Any) -> Array:
            return jnp.sum(going(carry[0]), dtype=jnp.int32) > fewest

        state, found, _ = jax.lax.while_loop(unfinished, cycle, (state, found, jnp.zeros((), jnp.int32)))
        return state, found

    def going(state: Any) -> Array:
        return state[3] < count

    def tile(carry: Any, t: Array) -> Any:
        left, found = carry
        ids = t * width + jnp.arange(width, dtype=jnp.int32)
        c, zero = moments.c[:, jnp.minimum(ids, lanes - 1)], jnp.zeros((p, width), moments.c.dtype)
        unknown, none = jnp.full_like(zero[0], jnp.inf), jnp.zeros_like(ids)
        base = (zero, c, unknown, unknown)  # with its objective but for the penalty, and the least gap
        guess = (zero.astype(MOVES), unknown < 0)  # whether there is one
        start = jnp.minimum(ids, lanes - 1), (base, guess, zero, jnp.where(ids < lanes, none, count), none)
        if not late:
            return (left, advanced(*start, found, none[0])[1]), None
        ids, state = jax.tree.map(lambda a, b: jnp.where(t < tiles, a, b), start, left)
        state, found = advanced(ids, state, found, jnp.where(t < tiles, late, 0))
        order = jnp.argsort(~going(state), stable=True)[:late]

        def put(into: Array, a: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(into, a[..., order], t * late, -1)

        return (jax.tree.map(put, left, (ids, state)), found), None

    none, empty = jnp.full(width, count, jnp.int32), jnp.zeros((p, width), moments.c.dtype)
    left: Any = none, ((empty, empty, empty[0], empty[0]), (empty.astype(MOVES), none < 0), empty, none, none)
    found = jnp.zeros((lanes, count, p), moments.c.dtype), jnp.zeros((count, lanes), jnp.int32)
    steps = jnp.arange(tiles + 1 if late else 1, dtype=jnp.int32)
    (_, (Z, sweeps)), _ = jax.lax.scan(tile, (left, found), steps)
    return Z.transpose(1, 2, 0), sweeps


class Table(NamedTuple):
    """A Gram matrix (p, p), in single precision and by blocks of coordinates."""

    diagonal: Array  # (p, 1), as given
    among: Array  # (blocks, size, size), without the diagonal
    others: Array  # (blocks, size, blocks * size), 0 among a block

    @classmethod
    def of(cls, G: Array) -> "Table":
        p = len(G)
        blocks = -(-p // BLOCK)
        size = -(-p // blocks)
        off = jnp.where(jnp.eye(p, dtype=bool), 0.0, G).astype(MOVES)
        parts = jnp.pad(off, ((0, -p % size),) * 2).reshape(blocks, size, blocks, size)
        i = jnp.arange(blocks)
        same = jnp.eye(blocks, dtype=bool)[:, None, :, None]
        return cls(jnp.diagonal(G)[:, None], parts[i, :, i], jnp.where(same, 0.0, parts).reshape(blocks, size, -1))


def swept(table: Table, terms: Terms, base: Point, ahead: Array, plain: bool) -> list[Array]:
    """How far from base (p, L) the point is after each of some sweeps from base + ahead, which is the first.

    The least of g/2 m^2 - (q - r) m + phi(z + m), for what the others' moves take from a slope, r, is
    m = (q - r - l2 z -+ l1)/(g + l2), or -z between the two: single precision of each does, whatever z and q are.
    """
    (z, q), p = base, ahead.shape[0]
    blocks, size, _ = table.among.shape
    places = jnp.arange(size, dtype=jnp.int32)

    def dealt(a: Array) -> Array:
        return jnp.pad(a.astype(MOVES), ((0, -p % size), (0, 0))).reshape(blocks, size, a.shape[1])

    g = table.diagonal + terms.l2
    pace = jnp.where(g > 0, 1 / jnp.where(g > 0, g, 1.0), 0.0)
    slope = q - terms.l2 * z
    bounds = (None, None) if plain else (dealt(terms.lower - z), dealt(terms.upper - z))
    fields = tuple(dealt(a) for a in (pace, slope - terms.l1, slope + terms.l1, -z))

    def block(moved: Array, given: Any) -> Any:
        k, others, among, *fields = given

        def step(own: Array, given: Any) -> Any:
            j, products, taken, (pace, low, high, to_zero), (least, most) = given
            r = taken + jnp.matmul(products, own)
            m = jnp.maximum(pace * (low - r), jnp.minimum(pace * (high - r), to_zero))
            m = jnp.where(pace > 0, m, to_zero)
            if least is not None:
                m = jnp.clip(m, least, most)
            return jax.lax.dynamic_update_index_in_dim(own, m, j, 0), None

        own = jax.lax.dynamic_slice_in_dim(moved, k * size, size)
        own, _ = jax.lax.scan(step, own, (places, among, jnp.matmul(others, moved), *fields))
        return jax.lax.dynamic_update_slice_in_dim(moved, own, k * size, 0), None

    each = (jnp.arange(blocks, dtype=jnp.int32), table.others, table.among, fields, bounds)

    def once(moved: Array, _: None) -> Any:
        moved = jax.lax.scan(block, moved, each)[0]
        return moved, moved

    moved = jax.lax.scan(once, jnp.pad(ahead, ((0, -p % size), (0, 0))), None, length=CYCLE)[1]
    return [ahead, *moved[:, :p]]
