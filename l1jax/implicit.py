"""Derivatives of solutions, by the implicit function theorem on the support.

At a minimiser the support A (coefficients away from kinks and bounds) satisfies smooth equations; differentiating
them gives a symmetric system on A alone, non-singular where the solution is unique. Off the support it is the
identity: those coefficients stay put.

Source: Bertrand, Klopfenstein, Massias, Blondel, Vaiter, Gramfort, Salmon (2022), "Implicit differentiation for fast
hyperparameter selection in non-smooth convex learning", JMLR 23, theorem 9.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from l1jax._arrays import along, eps
from l1jax.penalties import Elementwise, Terms
from l1jax.standard_form import StandardForm


def solution_tangents(
    pose: Callable[[Any], tuple[StandardForm, Any]], given: Any, given_dot: Any, z: Array, b: Array
) -> tuple[Array, Array, Array, Array]:
    """How (z, b) and (loss, objective) move when `given` moves by `given_dot`; `pose(given)` is the posed problem."""
    form, penalty = pose(given)
    if not (isinstance(penalty, Elementwise) and isinstance(penalty.terms(z)[0], Terms)):
        raise TypeError(f"derivatives of solutions are not known yet for {type(penalty.penalty).__name__}")
    terms = penalty.terms(z)[0]
    moves = (z > terms.lower) & (z < terms.upper) & ((z != 0) | (terms.l1 == 0))
    moves = moves & (along(jnp.any(form.design.XT != 0, axis=1), z) | (terms.l2 > 0))
    sign = jnp.sign(z)

    def slopes(given: Any, z: Array, b: Array) -> tuple[Array, Array]:
        form, penalty = pose(given)
        terms = penalty.terms(z)[0]
        v = form.loss.gradient(form.eta(z, b), form.y, form.s)
        pull = jnp.where(moves, form.design.tdot(v) + terms.l1 * sign + terms.l2 * z, 0.0)
        return pull, jnp.sum(v, axis=0) if form.intercept else jnp.zeros_like(b)

    eta = form.eta(z, b)

    def curvature(d: Array) -> Array:
        whole, db = parts(d)
        dz = jnp.where(moves, whole, 0.0)
        deta = form.design.dot(dz) + (db[None] if form.intercept else 0.0)
        dv = form.loss.bent(deta, eta, form.y, form.s)
        hz = jnp.where(moves, form.design.tdot(dv) + terms.l2 * dz, whole)
        return ravel_pytree((hz, jnp.sum(dv, axis=0) if form.intercept else db))[0]

    _, force = jax.jvp(lambda g: slopes(g, z, b), (given,), (given_dot,))
    # One vector: custom_linear_solve can't be transposed where a part of its right-hand side is constant.
    force, parts = ravel_pytree(force)
    dz, db = parts(-jax.lax.custom_linear_solve(curvature, force, solve=_conjugate_gradients, symmetric=True))

    def values(given: Any, z: Array, b: Array) -> tuple[Array, Array]:
        form, penalty = pose(given)
        loss = form.loss.value(form.eta(z, b), form.y, form.s)
        return loss, loss + penalty.value(z)

    _, (dloss, dobjective) = jax.jvp(values, (given, z, b), (given_dot, dz, db))
    return dz, db, dloss, dobjective


def _conjugate_gradients(matvec: Callable[[Array], Array], b: Array) -> Array:
    """The solution of matvec(x) = b, to rounding, for a symmetric positive definite matvec.

    (`jax.scipy.sparse.linalg.cg` ties its start to `b`, and can't be transposed then.)
    """

    def unfinished(carry: Any) -> Array:
        _, _, _, gamma, k = carry
        return (gamma > tiny) & (k < limit)

    def body(carry: Any) -> Any:
        x, r, d, gamma, k = carry
        h = matvec(d)
        curved = jnp.sum(d * h)
        a = jnp.where(curved > 0, gamma / jnp.where(curved > 0, curved, 1.0), 0.0)
        x, r = x + a * d, r - a * h
        new = jnp.where(curved > 0, jnp.sum(r**2), 0.0)
        return x, r, r + new / gamma * d, new, k + 1

    gamma = jnp.sum(b**2)
    tiny = eps(b.dtype) ** 2 * gamma
    limit = 10 * b.size + 20
    return jax.lax.while_loop(unfinished, body, (jnp.zeros_like(b), b, b, gamma, jnp.zeros((), jnp.int32)))[0]
