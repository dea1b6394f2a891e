"""Lanes of one problem under weights of their own, from moments: one product of matrices says all that they ask."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import eps, largest, smallest
from l1jax._node import node
from l1jax.block import Block, bare
from l1jax.design import HIGHEST, Reweighted, reweighted_by
from l1jax.problem import Problem
from l1jax.standard_form import StandardForm, form_with
from l1jax.sufficient import digits
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

    def under(self, weights: Array, size: int) -> tuple[Array, Array]:
        """Weighted means of all products, (size, size, L), and the sums of weights (L, n)."""
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


def resampled(problem: Problem, form: StandardForm, products: Products, weights: Array) -> tuple[Block, Moments]:
    """Lanes of a problem, and form, under weights (L, n), which are not all 0; forms without their rows."""
    p = form.shape[1]
    means, total = products.under(weights, p + 2)
    mean, square, cross = means[:p, p], means[jnp.arange(p), jnp.arange(p)], means[:p, p + 1]
    center, yy = means[p, p + 1], means[p + 1, p + 1]
    if not problem.fit_intercept:
        center = jnp.zeros_like(center)
    variance = yy - center**2

    def lane(mean: Array, square: Array, cross: Array, center: Array, variance: Array) -> tuple[StandardForm, Array]:
        own = reweighted_by(form.design, mean, square, problem.fit_intercept, problem.standardize)
        c = (cross - own.shift * center) / own.unit
        null, none = variance / 2, form.s[:0]
        fit = form.fit & ((null > smallest(c.dtype) / eps(c.dtype)) | (variance == 0))
        moved = dataclasses.replace(
            form,
            design=own,
            y=none,
            s=none,
            offset=none,
            null_intercept=form.null_intercept + center,
            null_objective=null,
            fit=fit,
        )
        return bare(dataclasses.replace(moved, null_slope=jnp.max(jnp.abs(c) / moved.strength))), c

    forms, c = jax.vmap(lane)(mean.T, square.T, cross.T, center, variance)
    own: Reweighted = forms.design
    shift, unit = own.shift.T, own.unit.T
    G = (means[:p, :p] - shift[:, None] * shift[None]) / (unit[:, None] * unit[None])
    lost = jnp.max(_over(square, (own.norm.T * unit) ** 2), axis=0)
    sane = (total > smallest(total.dtype) ** 0.5) & (total < largest(total.dtype) ** 0.5)
    share = digits(form.shape) * jnp.maximum(lost, _over(yy, variance))
    return Block(forms, form.design.XT, shared=True), Moments(G, c.T, variance, jnp.where(sane, share, jnp.nan))


def _over(whole: Array, part: Array) -> Array:
    """By how much rounding grew where means were taken off."""
    return jnp.where(whole > 0, whole / jnp.maximum(part, 0.0), 1.0)
