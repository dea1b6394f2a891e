"""Lanes of one problem under weights of their own, from moments: one product of matrices says all that they ask."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import largest, smallest
from l1jax._node import node
from l1jax.block import Block, bare
from l1jax.design import HIGHEST
from l1jax.standard_form import StandardForm
from l1jax.sufficient import about, digits, under
from l1jax.sweeping.lanes import Moments

MOST = 8_000_000  # numbers of a table


@node
class Products:
    """The products, two by two, of the columns of a design (p), 1 and y: (k, n), in the order of `triu_indices`."""

    table: Array

    @classmethod
    def of(cls, form: StandardForm) -> "Products | None":
        """None where they are too many."""
        n, p = form.shape
        return cls(_products(form)) if (p + 2) * (p + 3) // 2 * n <= MOST else None

    def means(self, weights: Array, size: int) -> tuple[Array, Array]:
        """The products' means under weights (L, n), (size, size, L) for p + 2 columns, and the weights' sums (L,)."""
        i, j = np.triu_indices(size)
        place = np.zeros((size, size), int)
        place[i, j] = place[j, i] = np.arange(len(i))
        sums = jnp.matmul(self.table, weights.T, precision=HIGHEST)
        total = sums[place[-2, -2]]
        return (sums / total[None])[place], total


@jax.jit
def _products(form: StandardForm) -> Array:
    y = jnp.where(form.s > 0, form.y, 0.0)
    rows = jnp.concatenate([form.design.XT, jnp.ones_like(y)[None], y[None]])
    i, j = np.triu_indices(len(rows))
    return rows[i] * rows[j]


def resampled(form: StandardForm, products: Products, weights: Array) -> tuple[Block, Moments]:
    """Lanes of a form under weights (L, n), which are not all 0: without rows, which their moments replace."""
    p = form.shape[1]
    means, total = products.means(weights, p + 2)
    at = jnp.arange(p + 2)
    squares = means[at, at].T
    posed, c, lost = jax.vmap(functools.partial(under, form))(means[p].T, means[p + 1].T, squares, squares)
    own: Any = posed.design
    G = about(means[:p, :p], own.shift.T, own.unit.T)
    sane = (total > smallest(total.dtype) ** 0.5) & (total < largest(total.dtype) ** 0.5)
    share = jnp.where(sane, digits(form.shape) * lost, jnp.nan)
    return Block(jax.vmap(bare)(posed), form.design.XT, shared=True), Moments(G, c.T, 2 * posed.null_objective, share)
