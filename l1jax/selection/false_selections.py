"""Bounds on the false selections of complementary pairs of subsamples."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

SHAPES = ("any", "unimodal", "r-concave")
HALVINGS = 40  # of an interval of logarithms 60 wide, to the last digits of float32
SHRINKINGS = 30  # of intervals, each to 0.62 of its width


def false_selections(average: Array, p: int, pairs: int, threshold: float, shape: str) -> Array:
    """The bound on the expected number of false selections, (L,): see `Stability.bound`."""
    if shape not in SHAPES:
        raise ValueError(f"shape: want {', '.join(map(repr, SHAPES))}; got {shape!r}")
    theta = jnp.asarray(average) / p
    bound = theta**2 / (2 * threshold - 1)
    if shape != "any":
        bound = jnp.minimum(bound, _unimodal(theta, pairs, threshold))
    if shape == "r-concave":
        both = concave_tail(theta**2, pairs, math.ceil(pairs * (2 * threshold - 1) - 1e-9), 2)
        bound = jnp.minimum(bound, both)
        bound = jnp.minimum(bound, concave_tail(theta, 2 * pairs, math.ceil(2 * pairs * threshold - 1e-9), 4))
    return bound * p


def _unimodal(theta: Array, pairs: int, threshold: float) -> Array:
    factor = 4 * (1 - threshold + 1 / (2 * pairs)) / (1 + 1 / pairs)
    if threshold <= 0.75:
        room = 2 * threshold - 1 - 1 / (2 * pairs)
        factor = 1 / (2 * room) if room > 0 else np.inf
    least = jnp.minimum(0.5 + theta**2, 0.5 + 1 / (2 * pairs) + 0.75 * theta**2)
    known = (theta <= 1 / np.sqrt(3)) & (threshold > least)
    return jnp.where(known, factor * theta**2, jnp.inf)


@functools.partial(jax.jit, static_argnums=(1, 3))
def concave_tail(mean: Array, count: int, least: ArrayLike, s: int) -> Array:
    """The greatest P(count*x >= least) of shares x on {0, 1/count, ..., 1} whose probabilities^(-1/s) are convex.

    `mean` (L,) is that of x; 1 where least < ceil(2*count*mean) + 1. The greatest is reached by probabilities
    proportional to (a + i)^-s, i = 0..k, and what the mean leaves for k + 1: a search over k, and over a between that
    which leaves 0 and that which continues them.

    Source: Shah and Samworth (2013), "Variable selection with error control: another look at stability selection",
    JRSS B 75(1), appendix A.4.
    """
    total = (count * mean)[:, None]
    ends = jnp.arange(count + 1, dtype=total.dtype)[None]
    i = ends[None]

    def sums(log_a: Array, k: Array) -> tuple[Array, Array, Array]:
        """Of the (unnormalised) probabilities at 0..k: all, times i, from `least` on."""
        w = jnp.where(i <= k[..., None], (1 + i * jnp.exp(-log_a)[..., None]) ** -s, 0)
        return w.sum(-1), (i * w).sum(-1), jnp.where(i >= least, w, 0).sum(-1)

    def halve(step: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = (low + high) / 2
        all_, times, _ = sums(middle, ends + 0 * middle)
        below = times < total * all_  # the mean grows with a
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = 0 * (total + ends)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (start - 45, start + 15))
    log_a, k = (low + high) / 2, ends[:, :-1]

    def tail(x: Array) -> Array:
        all_, times, beyond = sums(x, k + 0 * x)
        return ((k + 1 - total) * beyond + jnp.maximum(total * all_ - times, 0)) / ((k + 1) * all_ - times)

    def shrink(step: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        left, right = low + 0.381966 * (high - low), high - 0.381966 * (high - low)
        rises = tail(left) < tail(right)
        return jnp.where(rises, left, low), jnp.where(rises, high, right)

    low, high = jax.lax.fori_loop(0, SHRINKINGS, shrink, (log_a[:, 1:], log_a[:, :-1]))
    greatest = jnp.max(tail((low + high) / 2), axis=1, where=k >= least - 1, initial=0)
    return jnp.where(least < jnp.ceil(2 * total[:, 0]) + 1, 1, greatest)
