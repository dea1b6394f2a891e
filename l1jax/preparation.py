"""A design made of X: columns centred, scaled and feature-major; by XLA, or by NumPy where values are at hand."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import aligned_zeros, eps
from l1jax._threads import in_parts, one_thread
from l1jax.design import Design

FAR = 8192  # columns, whose rows are so long that summing down a column fetches each number alone
BLOCK = 262_144  # numbers that stay in the cache


def prepare_design(X: Array, s: Array | None, center: bool, standardize: bool, one_scale: bool = False) -> Design:
    """The design of the rows X (n, p), weighted by s (n,) that sum to 1; None for equal weights.

    `standardize` divides each column by its weighted standard deviation (about its mean, whether or not it is
    centred, as glmnet does); otherwise by a power of two, which is exact, and with `one_scale` the same for all. A
    column whose standard deviation is at most eps times its largest entry is constant: it becomes 0 if columns are
    centred or standardised.
    """
    XT = jax.lax.optimization_barrier(X.T)  # type: ignore[no-untyped-call]  # XLA would transpose last, and copy twice
    # Sums run down the columns of X as it lies in memory, unless a column's numbers lie so far apart that each would be
    # fetched alone.
    wide = X.shape[1] > FAR
    data, rows = (XT, 1) if wide else (X, 0)
    if s is not None:  # rows of weight 0 may hold anything
        XT = jnp.where(s > 0, XT, 0.0)
        data = jnp.where(jnp.expand_dims(s > 0, 1 - rows), data, 0.0)

    def each(a: Array) -> Array:
        return jnp.expand_dims(a, rows)

    def averaged(a: Array) -> Array:
        return jnp.mean(a, axis=rows) if s is None else jnp.sum(a * jnp.expand_dims(s, 1 - rows), axis=rows)

    def of_all(a: Array) -> Array:  # what sets units only has no derivative
        return jax.lax.stop_gradient(jnp.full_like(a, jnp.max(a)) if one_scale else a)

    largest = jnp.max(jnp.abs(data), axis=rows)
    unit = _power_of_two(jnp, of_all(largest))  # before anything is squared: 1e20 squares to infinity in float32
    mean = averaged(data * each(1 / unit))
    apart = data * each(1 / unit) - each(mean)
    missed = averaged(apart)  # the mean's rounding
    mean, variance = mean + missed, averaged(apart**2) - missed**2
    shift, length, deviation, empty = _lengths(jnp, largest / unit, mean, variance, center, standardize)
    scale = deviation if standardize else _power_of_two(jnp, of_all(length))
    columns = jnp.where(empty[:, None], 0.0, (XT * (1 / unit)[:, None] - shift[:, None]) * (1 / scale)[:, None])
    return Design(columns, shift * unit, scale * unit, length / scale)


def prepare_on_host(X: Any, s: Any, center: bool, standardize: bool, one_scale: bool = False) -> Design:
    """The same of values, by NumPy: some columns at a time, which stay in the cache until they are done.

    XLA brings all of X from memory for each sum, and for its transposition: it takes two to four times as long.
    """
    X, s = np.asarray(X), None if s is None else np.asarray(s)
    n, p = X.shape
    XT = aligned_zeros((p, n), X.dtype)
    unit, shift, length, scale = (np.empty(p, X.dtype) for _ in range(4))
    dead = np.zeros(n, bool) if s is None else s == 0
    scaled_later = one_scale and not standardize
    if one_scale:
        alive = X[~dead] if dead.any() else X
        unit = _power_of_two(np, np.full_like(unit, max(alive.max(), -alive.min())))

    def averaged(rows: Any) -> Any:
        return rows.mean(axis=1) if s is None else rows @ s

    @np.errstate(all="ignore")
    def prepare(at: slice) -> None:
        rows = XT[at]
        rows[...] = X[:, at].T
        if dead.any():
            rows[:, dead] = 0
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        if not one_scale:
            unit[at] = _power_of_two(np, largest)
        rows *= (1 / unit[at])[:, None]
        mean = averaged(rows)
        apart = rows - mean[:, None]
        missed = averaged(apart)
        mean, variance = mean + missed, averaged(np.square(apart, out=apart)) - missed**2
        shift[at], length[at], deviation, empty = _lengths(np, largest / unit[at], mean, variance, center, standardize)
        scale[at] = deviation if standardize else _power_of_two(np, length[at])
        if center:
            rows -= shift[at, None]
        if not scaled_later:
            rows *= (1 / scale[at])[:, None]
        rows[empty] = 0

    with one_thread():
        in_parts(prepare, p, max(1, BLOCK // n))
    if scaled_later:
        scale = _power_of_two(np, np.full_like(length, np.max(length)))
        XT *= (1 / scale)[:, None]
    return Design(*(jax.device_put(a) for a in (XT, shift * unit, scale * unit, length / scale)))


def _lengths(
    xp: ModuleType, largest: Any, mean: Any, variance: Any, center: bool, standardize: bool
) -> tuple[Any, Any, Any, Any]:
    """What is taken off columns, how long they are then, their standard deviations, and which of them become 0."""
    constant = variance <= (eps(mean.dtype) * largest) ** 2  # a column's own matter, whatever the unit
    square = xp.where(constant, 0.0, variance) if center else xp.maximum(variance, 0.0) + mean**2
    length = xp.where(square > 0, xp.sqrt(xp.where(square > 0, square, 1.0)), 0.0)
    empty = constant & (center or standardize)
    shift = mean if center else xp.zeros_like(mean)
    return shift, xp.where(empty, 0.0, length), xp.sqrt(xp.where(constant, 1.0, variance)), empty


def _power_of_two(xp: ModuleType, x: Any) -> Any:
    """A power of two within a factor of two above |x|; 1 at 0."""
    _, exponent = xp.frexp(x)
    return xp.where(x == 0, 1.0, xp.ldexp(xp.ones_like(x), exponent))
