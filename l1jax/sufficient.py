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

    What rounding may make of the moments has to be small beside `tol`, a relative gap.
    """
    if not suits(form, tol) or type(form.design) is not Design:
        return None
    XT, s, y = (np.asarray(a) for a in (form.design.XT, form.s, form.y))
    return few_rows(form, moments(XT, s), XT @ (s * y), float(np.sum(s * y**2)))


def suits(form: StandardForm, tol: float) -> bool:
    """Whether a few rows would serve, and their making be worth while."""
    n, p = form.shape
    plain = isinstance(form.loss, Squared) and not form.null_intercept.ndim and form.y.dtype == np.float64
    return plain and p <= MOST and n >= TIMES * (p + 2) and tol >= 100 * digits(form.shape)


def moments(XT: Floats, s: Floats) -> Floats:
    """X'SX, (p, p)."""
    equal = bool(np.all(s == s[:1]))
    root = XT if equal else XT * np.sqrt(s)
    product: Floats = root @ root.T  # NumPy sees the symmetry, and does half of the work
    return product * s[:1] if equal and len(s) else product


def few_rows(form: StandardForm, G: Floats, c: Floats, yy: float) -> StandardForm | None:
    """The form of p + 2 rows with these moments: X'SX, X'Sy and y'Sy; None where they have no factor.

    The rows are those of the Cholesky factor, turned so that they sum to 0, as centred data do.
    """
    p = len(G)
    A = np.empty((p + 1, p + 1), G.dtype)
    A[:p, :p], A[p, :p], A[:p, p], A[p, p] = G, c, c, yy
    own = np.diagonal(A).copy()
    A.flat[:: p + 2] = np.where(own > 0, own * (1 + digits((p, p))), 1)  # so that dependent columns have a factor
    try:
        factor = np.linalg.cholesky(A)
    except np.linalg.LinAlgError:  # not finite, or nearly not
        return None
    factor[own <= 0] = 0
    m = p + 2
    turn = -np.full(m, m**-0.5)
    turn[0] += 1  # what a reflection takes from the first axis to equal entries
    rows = np.pad(factor, ((0, 0), (1, 0))) * m**0.5
    rows -= np.outer(rows @ turn, turn * (2 / (turn @ turn)))
    design = Design(jnp.asarray(rows[:p]), form.design.center, form.design.scale, form.design.norm)
    y, s, offset = jnp.asarray(rows[p]), jnp.full(m, 1 / m), jnp.zeros(m)
    return dataclasses.replace(form, design=design, y=y, s=s, offset=offset)


def hidden(few: StandardForm, share: float, z: Floats) -> Floats:
    """What moments that are wrong by a share of the columns' norms may hide of the gaps of points (L, p)."""
    null = float(few.null_objective)
    length = (2 * null) ** 0.5 + np.abs(z) @ np.asarray(few.design.norm)
    gaps: Floats = share * length**2 / (null if null > 0 else 1)
    return gaps


def digits(shape: tuple[int, int]) -> float:
    """The share by which rounding may change the products of columns."""
    return sum(shape) * eps(np.float64)
