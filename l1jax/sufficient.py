"""Moments of many rows, which say all that the squared loss asks of them; and few rows that have the same."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import eps, smallest
from l1jax._threads import square
from l1jax.design import Design, reweighted_by
from l1jax.engines.kinks import Floats
from l1jax.losses import Squared
from l1jax.standard_form import StandardForm

MOST = 1024  # features
TIMES = 2  # so many times as many rows as features at least


class Moments(NamedTuple):
    """X'SX (p, p), X'Sy (p,) and y'Sy; products of columns may be wrong by `share` of these columns' lengths."""

    G: Floats
    c: Floats
    yy: float
    share: float


def sufficient(form: StandardForm, tol: float) -> Moments | None:
    """The moments of the data, all that the squared loss asks of these; None if of no use.

    What rounding may make of the moments has to be small beside `tol`, a relative gap.
    """
    if not suits(form, tol) or type(form.design) is not Design or form.y.dtype != np.float64:
        return None
    XT, s, y = (np.asarray(a) for a in (form.design.XT, form.s, form.y))
    return Moments(moments(XT, s), XT @ (s * y), float(np.sum(s * y**2)), digits(form.shape))


def suits(form: StandardForm, tol: float) -> bool:
    """Whether moments, in double precision, would serve, and be worth while."""
    n, p = form.shape
    plain = isinstance(form.loss, Squared) and not form.null_intercept.ndim
    return plain and p <= MOST and n >= TIMES * (p + 2) and tol >= 100 * digits(form.shape)


def moments(XT: Floats, s: Floats) -> Floats:
    """X'SX, (p, p)."""
    equal = bool(np.all(s == s[:1]))
    root = XT if equal else XT * np.sqrt(s)
    products: Floats = square(root)
    if equal and len(s):
        products *= s[0]
    return products


def few_rows(form: StandardForm, known: Moments) -> StandardForm:
    """The form of p + 2 rows with these moments, for what asks for rows; all rows where they have no factor.

    The rows are those of the Cholesky factor, turned so that they sum to 0, as centred data do.
    """
    p = len(known.c)
    A = np.empty((p + 1, p + 1), known.G.dtype)
    A[:p, :p], A[p, :p], A[:p, p], A[p, p] = known.G, known.c, known.c, known.yy
    own = np.diagonal(A).copy()
    A.flat[:: p + 2] = np.where(own > 0, own * (1 + digits((p, p))), 1)  # so that dependent columns have a factor
    try:
        factor = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:  # not finite, or nearly not
        return form
    factor[own <= 0] = 0
    m = p + 2
    turn = -np.full(m, m**-0.5)
    turn[0] += 1  # what a reflection takes from the first axis to equal entries
    rows = np.pad(factor, ((0, 0), (1, 0))) * m**0.5
    rows -= np.outer(rows @ turn, turn * (2 / (turn @ turn)))
    design = Design(jnp.asarray(rows[:p]), form.design.center, form.design.scale, form.design.norm)
    y, s, offset = jnp.asarray(rows[p]), jnp.full(m, 1 / m), jnp.zeros(m)
    return dataclasses.replace(form, design=design, y=y, s=s, offset=offset)


def hidden(form: StandardForm, share: Array | float, z: Array) -> Array:
    """What errors of moments, such a share of them, may hide of the gaps of points (..., p)."""
    null = form.null_objective
    length = (2 * null) ** 0.5 + jnp.abs(z) @ form.design.norm
    return share * length**2 / jnp.where(null > 0, null, 1.0)


def under(
    form: StandardForm, ones: Array, ys: Array, squares: Array, sizes: Array
) -> tuple[StandardForm, Array, Array]:
    """A form under other weights, its X'Sy, and by how much rounding grew where means were taken off.

    Given are weighted means of products with 1, with y and with themselves, of the columns of X, 1 and y, (p + 2,);
    what rounding changes in these is a share of `sizes`. The form has zeros for rows.
    """
    own = reweighted_by(form.design, ones[:-2], squares[:-2], form.intercept, form.standardize)
    center = ones[-1] if form.intercept else jnp.zeros_like(ones[-1])
    c = (ys[:-2] - own.shift * center) / own.unit
    yy = jnp.maximum(squares[-1] - center**2, 0.0)
    left = jnp.append((own.norm * own.unit) ** 2, yy)
    whole = jnp.delete(sizes, -2, assume_unique_indices=True)
    lost = jnp.max(jnp.where(whole > 0, whole / left, 1.0))
    none, large_enough = jnp.zeros_like(form.s), yy > 2 * smallest(c.dtype) / eps(c.dtype)
    posed = dataclasses.replace(
        form,
        design=own,
        y=none,
        s=none,
        offset=none,
        null_intercept=form.null_intercept + center,
        null_objective=yy / 2,
        null_slope=jnp.max(jnp.abs(c) * own.scale if not form.standardize else jnp.abs(c)),
        fit=form.fit & (large_enough | (yy == 0)),
    )
    return posed, c, lost


def about(second: Array, shift: Array, unit: Array) -> Array:
    """Second moments (p, p) of columns, as those of `(column - shift) / unit` for their means; lanes may be last."""
    return (second - shift[:, None] * shift[None]) / (unit[:, None] * unit[None])


def digits(shape: tuple[int, int]) -> float:
    """The share by which rounding may change the products of columns."""
    return sum(shape) * eps(np.float64)
