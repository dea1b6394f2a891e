"""Many lassos in step: coordinate descent on their Gram matrices, the lanes side by side in memory."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node
from l1jax.design import HIGHEST
from l1jax.penalties import Terms

CYCLE = 4, 1  # sweeps before and after an extrapolation, and then a look
LONE = 12, 8  # where each lane has one strength only, so that most would wait for the slowest
HISTORY = 4  # the last of the former, which are extrapolated
SWEEPS = 2500  # of a lane, for one strength: about so many at most
MOVES = jnp.float32  # the dtype of moves
VECTOR = 16  # of which a core takes so many at once, at most


@node
class Moments:
    """X'SX, X'Sy and y'Sy of L lanes: G (p, p, L), or (p, p) if all share it; c (p, L); yy (L,).

    Products of columns may be wrong by `share` (L,) of these columns' lengths; None where rows are to be asked.
    """

    G: Array
    c: Array
    yy: Array
    share: Any = None


Point = tuple[Array, Array]  # z and q = c - G z


class Known(NamedTuple):
    """The moments of lanes, what gives q = c - G z at points (p, L), from wherever it has its digits, and a start."""

    moments: Moments
    slopes_of: Callable[[Array], Array]
    start: Point


def descend_lanes(
    terms_of: Callable[[Array], Terms], known: Known, lams: Array, goal: Array, plain: bool
) -> tuple[Array, Array, Array]:
    """Minimisers of z'Gz/2 - c'z + penalty(z) at strengths (m, L), each from the last: z, q (m, p, L), sweeps (m, L).

    `terms_of` gives the penalties' terms at strengths (L,), fields of (p, L); `plain` if these are l1*|z| and no more.
    A lane that does not get to a relative gap of `goal` is left where it stands still: certificates tell.

    Each lane goes on to its next strength as soon as it is done with one, whatever the others do. A look, after some
    sweeps, takes the slopes anew; between looks single precision does for what the moves since the last one change.
    What a lane extrapolates, from strength to strength and from sweep to sweep, is taken back if the next look finds
    neither the objective nor the gap lower.

    Source: Bertrand and Massias (2021), "Anderson acceleration of coordinate descent", AISTATS, algorithm 2.
    """
    (moments, slopes_of, start), (count, lanes) = known, lams.shape
    lane, enough = jnp.arange(lanes, dtype=jnp.int32), goal * moments.yy / 2
    g, cycle = diagonal(moments.G).astype(MOVES), LONE if count == 1 else CYCLE
    G = moments.G.astype(MOVES)

    def strength(i: Array) -> Array:
        return jnp.take_along_axis(lams, jnp.clip(i, 0, count - 1)[None], axis=0)[0]

    def advanced(carry: Any) -> Any:
        (z, q, height, least), (ahead, cautious), last, i, k, points, sweeps = carry
        terms = terms_of(strength(i))
        new = swept(G, g, terms, (z, q), ahead, cautious, cycle, plain)
        slopes = slopes_of(new)
        rest = -jnp.sum((moments.c + slopes) * new, axis=0) / 2
        gap = duality_gap(moments, terms, (new, slopes), plain)
        # The gap has digits where the objective has no more.
        better = (price(terms, new) + rest < price(terms, z) + height) | (gap < least)
        stuck = ~better & cautious  # only rounding is left
        z, q = jnp.where(better[None], new, z), jnp.where(better[None], slopes, q)
        height, k = jnp.where(better, rest, height), k + 1
        done = (i < count) & ((better & (gap <= enough)) | stuck | (k * sum(cycle) >= SWEEPS))
        least = jnp.where(done, jnp.inf, jnp.minimum(least, gap))
        place = jnp.where(done, i, count)
        points = tuple(a.at[lane, place].set(b.T, mode="drop") for a, b in zip(points, (z, q), strict=True))
        sweeps = sweeps.at[place, lane].set(sum(cycle) * k, mode="drop")
        # Between two changes of the support solutions are linear in lambda.
        apart = strength(i) - strength(i - 1)
        t = jnp.where(done & (apart != 0), (strength(i + 1) - strength(i)) / jnp.where(apart != 0, apart, 1.0), 0.0)
        ahead = (t[None] * (z - last[0])).astype(MOVES), (t[None] * (last[1] - q)).astype(MOVES)
        last = jnp.where(done[None], z, last[0]), jnp.where(done[None], q, last[1])
        k, i = jnp.where(done, 0, k), i + jnp.where(done, 1, 0)
        return (z, q, height, least), (ahead, ~(better | done)), last, i, k, points, sweeps

    zero, none = jnp.zeros_like(moments.c), jnp.zeros(lanes, jnp.int32)
    points = (jnp.zeros((lanes, count, zero.shape[0]), zero.dtype),) * 2
    sweeps = jnp.zeros((count, lanes), jnp.int32)
    unknown = jnp.full_like(zero[0], jnp.inf)
    base = (*start, unknown, unknown)  # with its objective but for the penalty, and the least gap
    guess = ((zero.astype(MOVES),) * 2, unknown < 0)  # and whether the last one was of no use
    carry = (base, guess, start, none, none, points, sweeps)
    *_, points, sweeps = jax.lax.while_loop(lambda carry: jnp.any(carry[3] < count), advanced, carry)
    z, q = (a.transpose(1, 2, 0) for a in points)
    return z, q, sweeps


def swept(
    G: Array, g: Array, terms: Terms, base: Point, ahead: Point, cautious: Array, cycle: tuple[int, int], plain: bool
) -> Array:
    """The coefficients (p, L) after a cycle of sweeps from base + ahead, in which `cautious` lanes extrapolate nothing.

    `ahead`, as all points on the way: moves from base, which have digits of their own, and what these take from slopes.

    Sweeps walk over j, all lanes at once, so that a row of G is read once for all of them; the moves of j - 1 enter
    the slopes when j is due, which keeps the two apart in memory. The least of g/2 m^2 - (q - r) m + phi(z + m), for
    what the others' moves take from a slope, r, is m = (q - r - l2 z -+ l1)/(g + l2), or -z between the two.
    """
    z, q = base
    j = jnp.arange(z.shape[0], dtype=jnp.int32)
    curved = g + terms.l2.astype(MOVES)
    pace = jnp.where(g > 0, 1 / jnp.where(g > 0, curved, 1.0), 0.0)
    slope = q - terms.l2 * z
    fields = pace, g, *(a.astype(MOVES) for a in (slope - terms.l1, slope + terms.l1, -z))
    bounds = (None, None) if plain else tuple((a - z).astype(MOVES) for a in (terms.lower, terms.upper))

    def entered(taken: Array, j: Array, move: Array) -> Array:
        return taken + jax.lax.dynamic_index_in_dim(G, j, 0, keepdims=False) * move[None]

    def step(carry: tuple[Array, Array, Array], given: Any) -> Any:
        taken, last, move = carry
        j, old, (pace, g, low, high, to_zero), (least, most) = given
        taken = entered(taken, last, move)
        r = jax.lax.dynamic_index_in_dim(taken, j, 0, keepdims=False) - g * old
        m = jnp.maximum(pace * (low - r), jnp.minimum(pace * (high - r), to_zero))
        m = jnp.where(pace > 0, m, to_zero)  # columns of zeros
        if least is not None:
            m = jnp.clip(m, least, most)
        return (taken, j, m - old), m

    def sweep(at: Point) -> Point:
        moved, taken = at
        begin = (taken, j[0], jnp.zeros_like(taken[0]))
        (taken, last, move), moved = jax.lax.scan(step, begin, (j, moved, fields, bounds))
        return moved, entered(taken, last, move)

    before, after = cycle
    at = jax.lax.fori_loop(0, before - HISTORY, lambda _, at: sweep(at), ahead)
    on_the_way = [at]
    for _ in range(HISTORY):
        on_the_way.append(sweep(on_the_way[-1]))
    points = [[at[i] for at in on_the_way] for i in range(2)]
    weights = made(shortest(points[0]))
    at = tuple(jnp.where(cautious[None], a[-1], combined(weights, a[1:])) for a in points)
    moved, _ = jax.lax.fori_loop(0, after, lambda _, at: sweep(at), at)
    return landed(z, moved, terms, plain)


def landed(z: Array, moved: Array, terms: Terms, plain: bool) -> Array:
    """z + moved; a move in single precision tells that it ends at a kink or a bound, but not where that is."""
    new = z + moved.astype(z.dtype)
    for kink in (0.0,) if plain else (0.0, terms.lower, terms.upper):
        new = jnp.where(moved == (kink - z).astype(MOVES), kink, new)
    return new if plain else terms.project(new)


def made(value: Any) -> Any:
    """The same, once: XLA would compute what a lane has one of again for each of its coefficients, and each use."""
    return jax.lax.optimization_barrier(value)  # type: ignore[no-untyped-call]


def diagonal(G: Array) -> Array:
    """The diagonals of the lanes' matrices (p, p, L): (p, L)."""
    j = jnp.arange(G.shape[0])
    return G[j, j]


def shortest(z: Array | Sequence[Array]) -> Array:
    """Weights (h, L), of sum 1, of the points z[1:] of z (h + 1, p, L), whose steps to there then add up to least."""
    steps = [b - a for a, b in itertools.pairwise(z)]
    m = range(len(steps))
    # Two steps at a time: XLA takes three times as long for all at once.
    sums = {(i, j): jnp.sum(steps[i] * steps[j], axis=0) for i in m for j in range(i + 1)}
    inner = jnp.stack([jnp.stack([sums[max(i, j), min(i, j)] for j in m]) for i in m])
    size = jnp.trace(inner)
    ridge = max(1e-10, 4 * eps(z[0].dtype)) * jnp.eye(len(m), dtype=z[0].dtype)
    weights = _solved(inner / jnp.where(size > 0, size, 1.0)[None, None] + ridge[..., None])
    return weights / jnp.sum(weights, axis=0)[None]


def combined(weights: Array, points: Array | Sequence[Array]) -> Array:
    """The combinations of points (h, p, L) with weights (h, L)."""
    # One by one: XLA takes fifty times as long for all at once.
    return sum((w[None] * point for w, point in zip(weights, points, strict=True)), jnp.zeros_like(points[0]))


def _solved(A: Array) -> Array:
    """w with A w = 1, for small positive definite A (m, m, L), all lanes at once: (m, L)."""
    A = jnp.concatenate([A, jnp.ones_like(A[:, :1])], axis=1)
    for k in range(len(A)):
        row = A[k] / A[k, k][None]
        A = (A - A[:, k, None] * row[None]).at[k].set(row)
    return A[:, -1]


def price(terms: Terms, z: Array) -> Array:
    """The penalty within its bounds, (L,)."""
    # Apart: one sum takes 4 % more of a sweep's time where l2 is one number, 0.
    return jnp.sum(terms.l1 * jnp.abs(z), axis=0) + jnp.sum(jnp.where(terms.l2 == 0, 0.0, terms.l2 / 2 * z**2), axis=0)


def slopes(moments: Moments, z: Array) -> Array:
    """c - G z at points (p, L)."""
    if moments.G.ndim == 2:
        return moments.c - jnp.matmul(moments.G, z, precision=HIGHEST)
    return moments.c - jnp.sum(moments.G * z[:, None], axis=0)


def duality_gap(moments: Moments, terms: Terms, point: Point, plain: bool = False) -> Array:
    """The gaps (L,), by the dual point that is a share a of the residual; `plain` if terms are l1*|z| and no more.

    It is (1 - a)^2/2 of the residual's square, and phi(z) + phi*(a q) - a q z of each coefficient.
    """
    z, q = point
    pull = jnp.sum(q * z, axis=0)
    residual = jnp.maximum(moments.yy - jnp.sum(moments.c * z, axis=0) - pull, 0.0)
    low, high = (-terms.l1, terms.l1) if plain else terms.domain()
    room = jnp.where(q > 0, high, low) / jnp.where(q == 0, 1.0, q)
    a = jnp.minimum(1.0, jnp.min(jnp.where(q == 0, jnp.inf, room), axis=0))
    gap = (1 - a) ** 2 / 2 * residual + price(terms, z) - a * pull
    if plain:
        return gap
    scaled = jnp.clip(a[None] * q, low, high)  # it may miss the domain's edge by its last digit
    return gap + jnp.sum(terms.conjugate(scaled), axis=0)
