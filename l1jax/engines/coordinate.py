"""Cyclic coordinate descent on the Gram matrix, for the squared loss and separable convex penalties."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._node import node
from l1jax.certificate import relative_distance, residual_and_bound
from l1jax.design import HIGHEST
from l1jax.engines.base import Engine
from l1jax.losses import Loss, Squared
from l1jax.penalties import Elementwise, Penalty, Terms
from l1jax.problem import Problem
from l1jax.standard_form import StandardForm


@node
class Gram:
    """G = X'SX, c = X'Sy and y'Sy: all that the squared loss needs to know of the data."""

    G: Array
    c: Array
    yy: Array


@node
class Sweep:
    """The point z, the correlations q = c - G z, and the number of sweeps in the last round."""

    z: Array
    q: Array
    b: Array


@dataclasses.dataclass(frozen=True)
class CoordinateDescent(Engine):
    """Full sweeps over all coefficients, each followed by sweeps over the nonzero ones until these have settled.

    After the Gram matrix the cost does not depend on n; a coefficient that stays put costs O(1).

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), section 2.2 (covariance updates) and 2.6 (active cycling).
    """

    max_steps = 100_000

    patience = 100

    def refuses(self, loss: Loss, penalty: Penalty) -> str:
        if not isinstance(loss, Squared) or loss.several:
            return f"coordinate descent wants the Squared loss, got {type(loss).__name__}"
        if not isinstance(penalty, Elementwise):
            return f"coordinate descent wants a penalty that acts on each coefficient alone, got {penalty!r}"
        return ""

    def numbers(self, problem: Problem) -> int:
        return super().numbers(problem) + problem.X.shape[1] ** 2

    def prepare(self, form: StandardForm) -> Gram:
        return Gram(form.design.gram(form.s), form.design.tdot(form.s * form.y), jnp.sum(form.s * form.y**2))

    def init(self, form: StandardForm, work: Gram, penalty: Any, z: Array, b: Array) -> Sweep:
        return Sweep(z, work.c - jnp.matmul(work.G, z, precision=HIGHEST), b * 0)

    def advance(self, form: StandardForm, work: Gram, penalty: Elementwise, state: Sweep) -> tuple[Sweep, Array]:
        terms = penalty.terms(state.z)[0].full(state.z.shape)
        z, sweeps, _ = descend(work.G, terms, state.z, state.q, form.shape[0])
        return Sweep(z, work.c - jnp.matmul(work.G, z, precision=HIGHEST), state.b), sweeps

    def point(self, state: Sweep) -> tuple[Array, Array]:
        return state.z, state.b

    def gap(self, form: StandardForm, work: Gram, penalty: Elementwise, state: Sweep, equalities: bool) -> Array:
        """The gap from the Gram matrix alone: O(p), and blind below about 10 eps."""
        z, q = state.z, state.q
        if not penalty.certified:
            return jnp.maximum(relative_distance(form, penalty, z, q), self._unsettled(form, work, penalty, state))
        residual, dual = residual_and_bound(penalty, z, q, work.c, work.yy)
        # At unpenalised coefficients: what the bound owes for not being feasible, and what a step on each would gain.
        excess = penalty.excess(q)
        gain = jnp.sum(excess**2 / jnp.where(excess != 0, jnp.diagonal(work.G), 1.0))
        short = residual / 2 + penalty.value(z) - dual + jnp.sum(jnp.abs(excess * z)) + gain
        scale = form.null_objective
        return jnp.where(scale > 0, jnp.maximum(short, 0.0) / jnp.where(scale > 0, scale, 1.0), 0.0)

    def _unsettled(self, form: StandardForm, work: Gram, penalty: Elementwise, state: Sweep) -> Array:
        """The largest pull of a coordinate towards its own minimum: a stationary point need not be at one."""
        curved = jnp.diagonal(work.G)
        step = jnp.where(curved > 0, 1 / jnp.where(curved > 0, curved, 1.0), 0.0)
        moves = jnp.abs(penalty.prox(state.z + step * state.q, step) - state.z) * curved / form.strength
        return jnp.max(moves) / jnp.where(form.null_slope > 0, form.null_slope, 1.0)


def descend(G: Array, terms: Terms, z: Array, q: Array, n: int) -> tuple[Array, Array, Array]:
    """A full sweep, then sweeps over the nonzero coefficients until these have settled.

    Minimises z'Gz/2 - c'z + terms(z) given q = c - G z; `n` bounds the rank of G. Gives z, the number of sweeps, and
    the largest decrease G_jj * dz_j^2 of the full sweep.
    """
    p = z.shape[0]
    capacity = min(p, n + 64)  # an L1 solution has at most n nonzeros
    every = jnp.arange(p, dtype=jnp.int32)
    z, q, full = _sweep(G, terms, z, q, every, jnp.asarray(p, jnp.int32))
    support = z != 0
    count = jnp.sum(support, dtype=jnp.int32)
    order = jnp.argsort(~support, stable=True).astype(jnp.int32)
    compact = capacity < p  # then the active coefficients' own problem, small enough for the cache
    active = order[:capacity]
    count = jnp.where(count <= capacity, count, 0)  # a larger support is left to the full sweeps
    own_G = G[active][:, active] if compact else G
    own_terms, own_z, own_q = jax.tree.map(lambda a: a[active] if compact else a, (terms, z, q))

    def unsettled(carry: Any) -> Array:
        _, _, change, k = carry
        return (change > 0.01 * full) & (k < 100)

    def body(carry: Any) -> Any:
        own_z, own_q, _, k = carry
        return *_sweep(own_G, own_terms, own_z, own_q, every[:capacity] if compact else order, count), k + 1

    begin = (own_z, own_q, full, jnp.ones((), jnp.int32))
    own_z, _, _, sweeps = jax.lax.while_loop(unsettled, body, begin)
    return z.at[active].set(own_z) if compact else own_z, sweeps, full


def _sweep(G: Array, terms: Terms, z: Array, q: Array, order: Array, count: Array) -> tuple[Array, Array, Array]:
    """One pass over the first `count` coefficients of `order`; also the largest decrease G_jj * dz_j^2 of the pass."""

    def body(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, q, largest = carry
        j = order[i]
        g = G[j, j]
        step = jnp.where(g > 0, 1 / jnp.where(g > 0, g, 1.0), 0.0)
        at: Terms = jax.tree.map(lambda field: field[j], terms)
        new = at.prox(z[j] + step * q[j], step)
        new = jnp.where(g > 0, new, at.prox(z[j] * 0, step))  # a column of zeros
        move = new - z[j]
        q = jax.lax.cond(move != 0, lambda: q - G[j] * move, lambda: q)
        return z.at[j].set(new), q, jnp.maximum(largest, g * move**2)

    return jax.lax.fori_loop(0, count, body, (z, q, jnp.zeros((), z.dtype)))
