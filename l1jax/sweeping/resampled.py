"""Lanes of one problem under weights of their own, from moments: products of matrices say all that they ask."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from l1jax._arrays import largest, smallest
from l1jax._node import node
from l1jax.block import Block, bare
from l1jax.design import HIGHEST
from l1jax.engines.coordinate import descend
from l1jax.standard_form import StandardForm
from l1jax.sufficient import digits, under
from l1jax.sweeping.lanes import Known, Moments, made

MOST = 8_000_000  # numbers of a table
ROUNDS = 3  # of sweeps, for a start


@node
class Products:
    """The products of the columns of a design (p), 1 and y: what the means of these under weights are asked for.

    `sides` are those with 1, with y, with themselves and with what is left of y at `start`, (4, p + 2, n); `pairs`
    those of the design's own columns, in the order of `triu_indices`, (k, n), in the precision that is asked of second
    moments. `start` (p,) is where lanes start from: about the solution of all rows.
    """

    sides: Array
    pairs: Array
    start: Array

    @classmethod
    def of(cls, form: StandardForm, penalty: Any, dtype: DTypeLike) -> "Products | None":
        """None where they are too many."""
        n, p = form.shape
        return _products(form, penalty, np.dtype(dtype)) if fits((p, n)) else None


@functools.partial(jax.jit, static_argnums=2)
def _products(form: StandardForm, penalty: Any, dtype: Any) -> Products:
    XT, y = form.design.XT, jnp.where(form.s > 0, form.y, 0.0)
    rows = jnp.concatenate([XT, jnp.ones_like(y)[None], y[None]])
    z, terms = form.start[0], form.units(penalty).terms(form.start[0])[0].full(form.start[0].shape)
    G, q = form.design.gram(form.s), form.design.tdot(form.s * form.y)
    for _ in range(ROUNDS):
        more = descend(G, terms, z, q, form.shape[0])[0]
        z, q = more, q - jnp.matmul(G, more - z, precision=HIGHEST)
    start = jnp.where(jnp.all(jnp.isfinite(z)), z, 0.0)
    left = y - jnp.matmul(start, XT, precision=HIGHEST)
    sides = jnp.stack([rows, rows * y[None], rows**2, rows * left[None]])
    return Products(sides, pairs(XT).astype(dtype), start)


def resampled(form: StandardForm, products: Products, weights: Array) -> tuple[Block, Known]:
    """Lanes of a form under weights (L, n), which are not all 0: without rows, which their moments replace."""
    XT, p = form.design.XT, form.shape[1]
    total = jnp.sum(weights, axis=1)
    sums = jnp.matmul(products.sides.reshape(-1, weights.shape[1]), weights.T, precision=HIGHEST)
    ones, ys, squares, lefts = made(sums / total[None]).reshape(4, p + 2, -1)
    posed, c, lost = jax.vmap(functools.partial(under, form), in_axes=1)(ones, ys, squares, squares)
    own: Any = posed.design
    shift, per = own.shift.T, 1 / own.unit.T
    sane = (total > smallest(total.dtype) ** 0.5) & (total < largest(total.dtype) ** 0.5)
    share = jnp.where(sane, digits(form.shape) * lost, jnp.nan)

    shares = made((weights / total[:, None]).T)
    X = made(XT.T)  # XLA's product of this is three times as fast
    center = ones[-1] if form.intercept else jnp.zeros_like(total)

    def slopes_of(z: Array) -> Array:
        w = z * per if form.standardize else z
        left = form.y[:, None] - (center - jnp.sum(shift * w, axis=0))[None] - jnp.matmul(X, w, precision=HIGHEST)
        q = jnp.matmul(XT, jnp.where(shares > 0, shares * left, 0.0), precision=HIGHEST)
        return made(q * per if form.standardize else q)

    G = _second_moments(products.pairs, weights, total, shift, per)
    q = (lefts[:p] - shift * lefts[p][None]) * per
    start = jnp.where(own.norm.T > 0, products.start[:, None] / per, 0.0), q
    moments = Moments(G, c.T, 2 * posed.null_objective, share)
    return Block(jax.vmap(bare)(posed), XT, shared=True), Known(moments, slopes_of, start)


def _second_moments(table: Array, weights: Array, total: Array, shift: Array, per: Array) -> Array:
    """Those of `(column - shift) * per` for their means: (p, p, L)."""
    weights, total, shift, per = (a.astype(table.dtype) for a in (weights, total, shift, per))
    i, j = np.triu_indices(len(shift))
    means = jnp.matmul(table, weights.T, precision=HIGHEST) / total[None]
    packed = (means - shift[i] * shift[j]) * (per[i] * per[j])
    return unpacked(packed, len(shift))


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a table of `pairs` of XT (p, n) is not too large."""
    p, n = shape
    return p * (p + 1) // 2 * n <= MOST


def pairs(XT: Array) -> Array:
    """The products of the columns, two by two, in the order of `triu_indices`: (k, n)."""
    i, j = np.triu_indices(len(XT))
    return XT[i] * XT[j]


def unpacked(upper: Array, p: int) -> Array:
    """Symmetric matrices (p, p, L) from what `triu_indices` takes of them, (k, L)."""
    i, j = np.triu_indices(p)
    place = np.zeros((p, p), np.int32)
    place[i, j] = place[j, i] = np.arange(len(i))
    return upper[place]
