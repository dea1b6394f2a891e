"""Many lassos in step: coordinate descent on their Gram matrices, the lanes side by side in memory."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node
from l1jax.design import HIGHEST
from l1jax.penalties import Terms
from l1jax.prox import soft_threshold

HISTORY = 5  # sweeps between extrapolations
ROUNDS = 500  # of that many sweeps, at most, for one strength


@node
class Moments:
    """X'SX, X'Sy and y'Sy of L lanes: G (p, p, L), or (p, p) if all share it; c (p, L); yy (L,).

    Products of columns may be wrong by `share` (L,) of these columns' lengths; None where rows are to be asked.
    """

    G: Array
    c: Array
    yy: Array
    share: Any = None


def descend_lanes(
    terms_of: Callable[[Array], Terms],
    moments: Moments,
    lams: Array,
    goal: Array,
    slopes_of: Callable[[Array], Array] | None = None,
) -> tuple[Array, Array]:
    """Minimisers of z'Gz/2 - c'z + penalty(z) at strengths (m, L), each from the last: z (m, p, L), sweeps (m, L).

    `terms_of` gives the penalties' terms at strengths (L,), fields of (p, L). A lane that does not get to a relative
    gap of `goal` is left where it stands still: certificates tell. `slopes_of` gives q = c - G z from the
    data, where Gram matrices have too few digits: then each strength is settled again from there.

    Sweeps walk over j, all lanes at once, so that a row of G is read once for all of them; the moves of j - 1 enter
    the slopes when j is due, which keeps the two apart in memory. Every few sweeps each lane tries the affine
    combination of its last points whose step would be the shortest, and keeps it if the objective is lower.

    Source: Bertrand and Massias (2021), "Anderson acceleration of coordinate descent", AISTATS, algorithm 2.
    """

    def strength(carry: Any, lam: Array) -> Any:
        at, before, lam_at, lam_before = carry
        terms = terms_of(lam)
        # Between two changes of the support solutions are linear in lambda.
        apart = lam_at - lam_before
        t = jnp.where(apart != 0, (lam - lam_at) / jnp.where(apart != 0, apart, 1.0), 0.0)
        guess = jax.tree.map(lambda a, b: a + t[None] * (a - b), at, before)
        guess = _better(moments, terms, guess, at)
        found, sweeps = _settle(moments, terms, guess, goal)
        if slopes_of is not None:
            found, more = _settle(moments, terms, (found[0], slopes_of(found[0])), goal)
            sweeps = sweeps + more
        return (found, at, lam, lam_at), (found[0], sweeps)

    still = (jnp.zeros_like(moments.c), moments.c)
    return jax.lax.scan(strength, (still, still, lams[0], lams[0]), lams)[1]


Point = tuple[Array, Array]  # z and q = c - G z


def _settle(moments: Moments, terms: Terms, start: Point, goal: Array) -> tuple[Point, Array]:
    def unfinished(carry: Any) -> Array:
        *_, going, k = carry
        return jnp.any(going) & (k < ROUNDS)

    def advanced(carry: Any, ahead: Point, count: int) -> Any:
        point, sweeps, going, k = carry
        new = sweep(moments.G, terms, ahead)  # at the end, as what is extrapolated may have wrong signs
        new = jax.tree.map(lambda a, b: jnp.where(going[None], a, b), new, point)  # whatever the others do
        length = jnp.sum(own * (new[0] - point[0]) ** 2, axis=0)
        moving = length > (16 * eps(length.dtype)) ** 2 * moments.yy  # else only rounding is left
        return new, sweeps + jnp.where(going, count, 0), going & moving & _open(moments, terms, new, goal), k + 1

    def several(point: Point) -> Point:
        after, points = jax.lax.scan(lambda at, _: (sweep(moments.G, terms, at),) * 2, point, length=HISTORY - 1)
        points = jax.tree.map(lambda a, rest: jnp.concatenate([a[None], rest]), point, points)
        weights = shortest(points[0])
        guess = jax.tree.map(lambda a: combined(weights, a[1:]), points)  # q is affine in z
        return _better(moments, terms, guess, after)

    own, sweeps = diagonal(moments.G), jnp.zeros(start[0].shape[1], jnp.int32)
    carry = (start, sweeps, jnp.ones_like(sweeps, bool), jnp.zeros((), jnp.int32))
    carry = advanced(carry, start, 1)  # the prediction may do
    point, sweeps, *_ = jax.lax.while_loop(unfinished, lambda at: advanced(at, several(at[0]), HISTORY), carry)
    return point, sweeps


def sweep(G: Array, terms: Terms, point: Point) -> Point:
    """Each coordinate to its own minimum, in turn."""
    z, q = point

    def moved(q: Array, j: Array, move: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(G, j, 0, keepdims=False)
        return q - row * move[None]

    def step(carry: tuple[Array, Array, Array], own: Any) -> Any:
        q, last, move = carry
        j, g, per, l1, lower, upper, z = own
        q = moved(q, last, move)
        pull = g * z + jax.lax.dynamic_index_in_dim(q, j, 0, keepdims=False)
        new = jnp.clip(soft_threshold(pull, l1) * per, lower, upper)
        return (q, j, new - z), new

    g, j = diagonal(G), jnp.arange(z.shape[0], dtype=jnp.int32)
    per = jnp.where(g > 0, 1 / jnp.where(g > 0, g + terms.l2, 1.0), 0.0)  # columns of zeros stay
    begin = (q, j[0], jnp.zeros_like(z[0]))
    (q, last, move), z = jax.lax.scan(step, begin, (j, g, per, terms.l1, terms.lower, terms.upper, z))
    return z, moved(q, last, move)


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


def _better(moments: Moments, terms: Terms, one: Point, other: Point) -> Point:
    lower = _objective(moments, terms, one) < _objective(moments, terms, other)
    return jax.tree.map(lambda a, b: jnp.where(lower[None], a, b), one, other)


def _objective(moments: Moments, terms: Terms, point: Point) -> Array:
    z, q = point
    outside = jnp.any((z < terms.lower) | (z > terms.upper), axis=0)
    return jnp.where(outside, jnp.inf, price(terms, z) - jnp.sum((moments.c + q) * z, axis=0) / 2)


def price(terms: Terms, z: Array) -> Array:
    """The penalty within its bounds, (L,)."""
    # Apart: one sum takes 4 % more of a sweep's time where l2 is one number, 0.
    return jnp.sum(terms.l1 * jnp.abs(z), axis=0) + jnp.sum(jnp.where(terms.l2 == 0, 0.0, terms.l2 / 2 * z**2), axis=0)


def _open(moments: Moments, terms: Terms, point: Point, goal: Array) -> Array:
    """Whether a lane's relative gap is above the goal."""
    return (duality_gap(moments, terms, point) > goal * moments.yy / 2) & (moments.yy > 0)


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
