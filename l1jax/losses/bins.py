"""Sums over runs of bins in the log domain, without subtractions: log(sum exp) with `low` for the log of nothing."""

import jax
import jax.numpy as jnp
from jax import Array, lax


def pooled(a: Array, at: Array, size: int, low: float) -> Array:
    """Of each of `size` bins, the log of the sum of exp(a) over the entries that are `at` it; `size` is nowhere."""
    top = jnp.full(size + 1, low, a.dtype).at[at].max(lax.stop_gradient(a))
    total = jnp.zeros(size + 1, a.dtype).at[at].add(jnp.exp(a - top[at]))
    return (top + jnp.log(jnp.where(total > 0, total, 1.0)))[:size]


def spread(a: Array, last: Array, nodes: Array | None, size: int, low: float) -> Array:
    """Of each bin, the log of the sum of exp(a) over the rows whose run holds it: from 0 (or as `nodes` say) to `last`.

    A `last` of -1 is an empty run.
    """
    if nodes is None:
        return lax.cumlogsumexp(pooled(a, jnp.where(last < 0, size, last), size, low), reverse=True)
    top = _leaves(size)
    flat = jnp.where(nodes > 0, nodes, 2 * top).ravel()
    tree = pooled(jnp.broadcast_to(a, nodes.shape).ravel(), flat, 2 * top, low)
    total = tree[1:2]
    for level in range(1, top.bit_length()):
        total = jnp.logaddexp(jnp.repeat(total, 2), tree[2**level : 2 ** (level + 1)])
    return total[:size]


def gathered(a: Array, last: Array, nodes: Array | None, low: float) -> Array:
    """Of each row, the log of the sum of exp(a) over the bins of its run."""
    if nodes is None:
        return jnp.where(last < 0, low, lax.cumlogsumexp(a)[jnp.maximum(last, 0)])
    level = jnp.append(a, jnp.full(_leaves(len(a)) - len(a), low, a.dtype))
    tree = [level]
    while len(level) > 1:
        level = jnp.logaddexp(level[::2], level[1::2])
        tree.append(level)
    return jax.nn.logsumexp(jnp.concatenate([jnp.full(1, low, a.dtype), *tree[::-1]])[nodes], axis=0)


def cover(first: Array, last: Array, size: int) -> Array:
    """The nodes of a binary tree over the bins that together make up each run first ... last: (2 per level, n).

    Node 1 is the root, 2*i and 2*i + 1 stand below i; 0 is no node. Source: the iterative segment tree; Bentley
    (1977), "Solutions to Klee's rectangle problems".
    """
    top = _leaves(size)
    low, high = first + top, last + 1 + top
    nodes = []
    for _ in range(top.bit_length()):
        run = low < high
        nodes.append(jnp.where(run & (low % 2 == 1), low, 0))
        nodes.append(jnp.where(run & (high % 2 == 1), high - 1, 0))
        low, high = (low + 1) // 2, high // 2
    return jnp.stack(nodes)


def _leaves(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()
