"""Few rows for many: data of p + 2 rows whose squared loss is that of the given ones."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from l1jax._arrays import eps
from l1jax.design import Design
from l1jax.engines.kinks import Floats
from l1jax.losses import Squared
from l1jax.standard_form import StandardForm

MOST = 1024  # features
TIMES = 2  # so many times as many rows as features at least


def sufficient(form: StandardForm, tol: float) -> StandardForm | None:
    """A form of p + 2 rows with the same second moments, all that the squared loss asks of data; None if of no use.

    The rows are those of the moments' Cholesky factor, turned so that they sum to 0, as centred data do. What rounding
    may make of them has to be small beside `tol`, a relative gap.
    """
    n, p = form.shape
    suits = isinstance(form.loss, Squared) and not form.start[1].ndim and type(form.design) is Design
    if not suits or p > MOST or n < TIMES * (p + 2) or form.y.dtype != np.float64 or tol < 100 * _digits(form):
        return None
    XT, weights, response = (np.asarray(a) for a in (form.design.XT, form.s, form.y))
    equal = bool(np.all(weights == weights[0]))
    root = XT if equal else XT * np.sqrt(weights)
    A = np.empty((p + 1, p + 1), XT.dtype)
    A[:p, :p] = root @ root.T  # NumPy sees the symmetry, and does half of the work
    A[:p, :p] *= weights[0] if equal else 1
    A[p, :p] = A[:p, p] = XT @ (weights * response)
    A[p, p] = np.sum(weights * response**2)
    own = np.diagonal(A).copy()
    A.flat[:: p + 2] = np.where(own > 0, own * (1 + _digits(form)), 1)  # so that dependent columns have a factor
    try:
        factor = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:  # not finite, or nearly not
        return None
    factor[own == 0] = 0
    m = p + 2
    turn = -np.full(m, m**-0.5)
    turn[0] += 1  # what a reflection takes from the first axis to equal entries
    rows = np.pad(factor, ((0, 0), (1, 0))) * m**0.5
    rows -= np.outer(rows @ turn, turn * (2 / (turn @ turn)))
    design = dataclasses.replace(form.design, XT=jnp.asarray(rows[:p]))
    y, s, offset = jnp.asarray(rows[p]), jnp.full(m, 1 / m), jnp.zeros(m)
    return dataclasses.replace(form, design=design, y=y, s=s, offset=offset)


def hidden(form: StandardForm, z: Floats) -> Floats:
    """What the rounding of its moments may hide of the gaps of points (L, p), over the null model's objective."""
    null = float(form.null_objective)
    length = (2 * null) ** 0.5 + np.abs(z) @ np.asarray(form.design.norm)
    share: Floats = _digits(form) * length**2 / (null if null > 0 else 1)
    return share


def _digits(form: StandardForm) -> float:
    """The rounding of products of columns, over their norms."""
    return sum(form.shape) * eps(form.y.dtype)
