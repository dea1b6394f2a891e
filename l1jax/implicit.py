"""Derivatives of solutions, by the implicit function theorem where the penalty is smooth.

At a minimiser the directions that move it (the support away from kinks and bounds; tied coefficients together; the
matrices of one rank) satisfy smooth equations; differentiating them gives a symmetric system on those directions
alone, non-singular where the solution is unique. What does not move stays put.

Penalties that act on each coefficient alone say which of them move. For the others the proximal map does: z = prox(z -
g(z)), whose derivative J is symmetric, and 0 off the directions that move.

Source: Bertrand, Klopfenstein, Massias, Blondel, Vaiter, Gramfort, Salmon (2022), "Implicit differentiation for fast
hyperparameter selection in non-smooth convex learning", JMLR 23, theorem 9.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from l1jax._arrays import along, eps
from l1jax.penalties import Elementwise
from l1jax.standard_form import StandardForm

Pose = Callable[[Any], tuple[StandardForm, Any]]


class Motion(NamedTuple):
    """How a penalty lets z move: dz = drift + spread(y), for the y at which own(y) + spread(slope's motion) = 0."""

    spread: Callable[[Array], Array]
    own: Callable[[Array], Array]
    drift: Array
    force: Array


def solution_tangents(pose: Pose, given: Any, given_dot: Any, z: Array, b: Array) -> tuple[Array, Array, Array, Array]:
    """How (z, b) and (loss, objective) move when `given` moves by `given_dot`; `pose(given)` is the posed problem."""
    form, penalty = pose(given)

    def slopes(given: Any) -> tuple[Array, Array]:
        form, _ = pose(given)
        return _pull(form, form.loss.gradient(form.eta(z, b), form.y, form.s))

    (slope, _), (dslope, dsum) = jax.jvp(slopes, (given,), (given_dot,))
    motion = _alone if isinstance(penalty, Elementwise) else _together
    spread, own, drift, force = motion(pose, given, given_dot, z, slope)
    eta = form.eta(z, b)

    def bent(dz: Array, db: Array) -> tuple[Array, Array]:
        deta = form.design.dot(dz) + (db[None] if form.intercept else 0.0)
        return _pull(form, form.loss.bent(deta, eta, form.y, form.s))

    def system(unknown: Array) -> Array:
        y, db = parts(unknown)
        hz, hb = bent(spread(y), db)
        return ravel_pytree((own(y) + spread(hz), hb if form.intercept else db))[0]

    hz, hb = bent(drift, jnp.zeros_like(b))
    # One vector: custom_linear_solve can't be transposed where a part of its right-hand side is constant.
    target, parts = ravel_pytree((spread(drift - force - dslope - hz), -dsum - hb))
    y, db = parts(jax.lax.custom_linear_solve(system, target, solve=_conjugate_gradients, symmetric=True))
    dz = drift + spread(y)

    def values(given: Any, z: Array, b: Array) -> tuple[Array, Array]:
        form, penalty = pose(given)
        loss = form.loss.value(form.eta(z, b), form.y, form.s)
        return loss, loss + penalty.value(z)

    _, (dloss, dobjective) = jax.jvp(values, (given, z, b), (given_dot, dz, db))
    return dz, db, dloss, dobjective


def _pull(form: StandardForm, v: Array) -> tuple[Array, Array]:
    """What a derivative of the loss in eta, v, is in (z, b)."""
    total = jnp.sum(v, axis=0)
    return form.design.tdot(v), total if form.intercept else jnp.zeros_like(total)


def _alone(pose: Pose, given: Any, given_dot: Any, z: Array, slope: Array) -> Motion:
    """Each coefficient for itself: it moves if the penalty is smooth there."""
    form, penalty = pose(given)
    _, force = jax.jvp(lambda given: pose(given)[1].slope(z), (given,), (given_dot,))
    _, bend = jax.jvp(penalty.slope, (z,), (jnp.ones_like(z),))
    moves = penalty.smooth(z) & (along(jnp.any(form.design.XT != 0, axis=1), z) | (bend > 0))

    def spread(d: Array) -> Array:
        return jnp.where(moves, d, 0.0)

    def own(d: Array) -> Array:
        return jnp.where(moves, bend * d, d)

    return Motion(spread, own, jnp.zeros_like(z), force)


def _together(pose: Pose, given: Any, given_dot: Any, z: Array, slope: Array) -> Motion:
    """All coefficients by the proximal map: dz = J (dz - dslope) + drift."""
    v = z - slope

    def prox(given: Any, v: Array) -> Array:
        return pose(given)[1].prox(v, 1.0)

    _, drift = jax.jvp(lambda given: prox(given, v), (given,), (given_dot,))
    _, spread = jax.linearize(lambda v: prox(given, v), v)
    return Motion(spread, lambda y: spread(y - spread(y)), drift, jnp.zeros_like(z))


def _conjugate_gradients(matvec: Callable[[Array], Array], b: Array) -> Array:
    """A solution of matvec(x) = b, to rounding, for a symmetric matvec without negative eigenvalues.

    Directions whose curvature is rounding (next to the largest seen) are left alone: b has no part along them.

    (`jax.scipy.sparse.linalg.cg` ties its start to `b`, and can't be transposed then.)
    """

    def unfinished(carry: Any) -> Array:
        _, _, _, gamma, _, k = carry
        return (gamma > tiny) & (k < limit)

    def body(carry: Any) -> Any:
        x, r, d, gamma, top, k = carry
        h = matvec(d)
        curved, length = jnp.sum(d * h), jnp.sum(d**2)
        top = jnp.maximum(top, curved / length)
        sound = curved > 4 * eps(b.dtype) * top * length
        a = jnp.where(sound, gamma / jnp.where(sound, curved, 1.0), 0.0)
        x, r = x + a * d, r - a * h
        new = jnp.where(sound, jnp.sum(r**2), 0.0)
        return x, r, r + new / gamma * d, new, top, k + 1

    gamma = jnp.sum(b**2)
    tiny = eps(b.dtype) ** 2 * gamma
    limit = 10 * b.size + 20
    return jax.lax.while_loop(unfinished, body, (jnp.zeros_like(b), b, b, gamma, gamma * 0, jnp.zeros((), jnp.int32)))[
        0
    ]
