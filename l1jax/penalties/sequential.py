"""Sequential maps under `jit`: isotonic regression and the fused (total-variation) proximal map.

Both first find which entries share a value, by a loop that is no part of derivatives, and then give each block its
value by a formula that is: so they can be differentiated forward and backward, and batched.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def decreasing(v: Array, apart: Array | None = None) -> Array:
    """argmin_w |w - v|^2 over w_1 >= w_2 >= ... >= w_p: isotonic regression, by pooling adjacent violators.

    `apart` (p,): truth values; where true, entry j is not compared with the one before it. Source: Best and
    Chakravarti (1990), "Active set algorithms for isotonic regression", Math. Programming 47.
    """
    first = jnp.zeros(v.shape, bool) if apart is None else apart
    x = jax.lax.stop_gradient(v)

    def merging(carry: Any) -> Array:
        sums, counts, top, starts = carry
        below = jnp.maximum(top - 1, 0)
        return (top > 0) & (sums[below] / counts[below] < sums[top] / counts[top]) & ~first[starts[top]]

    def merge(carry: Any) -> Any:
        sums, counts, top, starts = carry
        below = top - 1
        sums = sums.at[below].add(sums[top])
        counts = counts.at[below].add(counts[top])
        return sums, counts, below, starts

    def push(j: Array, carry: Any) -> Any:
        sums, counts, top, starts = carry
        top = top + 1
        carry = sums.at[top].set(x[j]), counts.at[top].set(1.0), top, starts.at[top].set(j.astype(jnp.int32))
        return jax.lax.while_loop(merging, merge, carry)

    p = v.shape[0]
    zero = jnp.zeros_like(x)
    begin = (zero, zero + 1, jnp.full((), -1, jnp.int32), jnp.zeros(p, jnp.int32))
    _, _, top, starts = jax.lax.fori_loop(0, p, push, begin)
    places = jnp.where(jnp.arange(p, dtype=jnp.int32) <= top, starts, p)
    is_start = jnp.zeros(p, jnp.int32).at[places].set(1, mode="drop")
    return block_means(v, jnp.cumsum(is_start, dtype=jnp.int32) - 1)


def block_means(v: Array, block: Array) -> Array:
    """The mean of v over each block, at each of its entries; `block` (p,) numbers them from 0."""
    p = v.shape[0]
    sums = jax.ops.segment_sum(v, block, p)
    counts = jax.ops.segment_sum(jnp.ones_like(v), block, p)
    return (sums / jnp.maximum(counts, 1.0))[block]


def fused(v: Array, weights: Array) -> Array:
    """argmin_w |w - v|^2/2 + sum_i weights_i * |w_{i+1} - w_i|, exactly, in O(p) steps (mostly).

    Args: v (p,), weights (p - 1,), at least 0. Source: Johnson (2013), "A dynamic programming algorithm for the fused
    lasso and L0-segmentation", J. Comput. Graph. Stat. 22(2).
    """
    if v.shape[0] == 1:
        return v
    w = jax.lax.stop_gradient(_fused(jax.lax.stop_gradient(v), jax.lax.stop_gradient(weights)))
    jump = jnp.sign(w[1:] - w[:-1])
    block = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(jump != 0, dtype=jnp.int32)])
    pull = weights * jump  # from below on the entry after a jump, from above on that before it
    none = jnp.zeros(1, v.dtype)
    return block_means(v + jnp.concatenate([pull, none]) - jnp.concatenate([none, pull]), block)


def _fused(v: Array, weights: Array) -> Array:
    """The forward pass carries the derivative of the message, a piecewise linear function, as its knots."""
    n = v.shape[0]

    def forward(carry: Any, at: Any) -> Any:
        x, a, b, left, right, (a_low, b_low), (a_high, b_high) = carry
        lam, following = at

        lo, slope_low, offset_low = _until(x, a, b, left, right, (a_low, b_low), -lam)

        def high_inside(state: Any) -> Array:
            hi, slope, offset = state
            return (hi >= lo) & ~(-slope * x[hi] - offset < lam)

        def high_step(state: Any) -> Any:
            hi, slope, offset = state
            return hi - 1, slope + a[hi], offset + b[hi]

        hi, slope_high, offset_high = jax.lax.while_loop(high_inside, high_step, (right, a_high, b_high))
        low, high = (-lam - offset_low) / slope_low, (lam + offset_high) / -slope_high
        left, right = lo - 1, hi + 1
        x = x.at[left].set(low).at[right].set(high)
        a = a.at[left].set(slope_low).at[right].set(slope_high)
        b = b.at[left].set(offset_low + lam).at[right].set(offset_high + lam)
        one = jnp.ones_like(lam)
        return (x, a, b, left, right, (one, -lam - following), (-one, -lam + following)), (low, high)

    zero, one = jnp.zeros(2 * n + 2, v.dtype) + 0 * v[0], jnp.ones((), v.dtype) + 0 * v[0]
    lam = weights[0]
    left, right = n, n + 1
    x = zero.at[left].set(v[0] - lam).at[right].set(v[0] + lam)
    a, b = zero.at[left].set(1.0).at[right].set(-1.0), zero.at[left].set(lam - v[0]).at[right].set(lam + v[0])
    carry = (x, a, b, jnp.int32(left), jnp.int32(right), (one, -lam - v[1]), (-one, -lam + v[1]))
    ends = (x[left][None], x[right][None])
    if n > 2:
        carry, more = jax.lax.scan(forward, carry, (weights[1:], v[2:]))
        ends = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest]), ends, more)
    x, a, b, left, right, (slope, offset), _ = carry

    _, slope, offset = _until(x, a, b, left, right, (slope, offset), jnp.zeros_like(lam))
    last = -offset / slope

    def backward(following: Array, ends: Any) -> Any:
        low, high = ends
        w = jnp.where(following > high, high, jnp.where(following < low, low, following))
        return w, w

    _, rest = jax.lax.scan(backward, last, ends, reverse=True)
    return jnp.append(rest, last)


def _until(x: Array, a: Array, b: Array, lo: Array, end: Array, line: Any, level: Array) -> tuple[Array, Array, Array]:
    """The first knot, from `lo` on, at which the increasing function exceeds `level`, and its line before it."""

    def below(state: Any) -> Array:
        lo, slope, offset = state
        return (lo <= end) & ~(slope * x[lo] + offset > level)

    def step(state: Any) -> Any:
        lo, slope, offset = state
        return lo + 1, slope + a[lo], offset + b[lo]

    return jax.lax.while_loop(below, step, (lo, *line))
