"""Proximal Newton: a quadratic model of any smooth loss, minimised by coordinate descent, with a line search."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node
from l1jax.certificate import certify, shortened
from l1jax.design import HIGHEST
from l1jax.engines.base import Engine
from l1jax.engines.coordinate import descend
from l1jax.losses import Loss
from l1jax.penalties import Elementwise, Penalty
from l1jax.problem import Problem
from l1jax.standard_form import StandardForm

ROUNDS = 10  # of coordinate descent on one model, at most


@node
class Point:
    """The point (z, b) and its linear predictor."""

    z: Array
    b: Array
    eta: Array


@dataclasses.dataclass(frozen=True)
class ProximalNewton(Engine):
    """Steps to the minimum of the loss's second-order model plus the penalty, shortened until the objective falls.

    A model costs a Gram matrix of p x p; few are needed, also where the gradient's Lipschitz constant says little.

    Source: Lee, Sun, Saunders (2014), "Proximal Newton-type methods for minimizing composite functions", SIAM J.
    Optim. 24(3), algorithm 1; Friedman, Hastie, Tibshirani (2010), J. Stat. Software 33(1), section 3.
    """

    max_steps = 100_000
    patience = 20

    def refuses(self, loss: Loss, penalty: Penalty) -> str:
        if loss.several:
            return f"proximal Newton wants one linear predictor a row, got {type(loss).__name__}"
        if not isinstance(penalty, Elementwise):
            return f"proximal Newton wants a penalty that acts on each coefficient alone, got {penalty!r}"
        return ""

    def numbers(self, problem: Problem) -> int:
        n, p = problem.X.shape
        return super().numbers(problem) + p * (n + p)

    def prepare(self, form: StandardForm) -> None:
        return None

    def init(self, form: StandardForm, work: None, penalty: Any, z: Array, b: Array) -> Point:
        return Point(z, b, form.eta(z, b))

    def advance(self, form: StandardForm, work: None, penalty: Elementwise, state: Point) -> tuple[Point, Array]:
        terms = penalty.terms(state.z)[0].full(state.z.shape)
        v = -form.loss.gradient(state.eta, form.y, form.s)
        w = jnp.maximum(form.loss.curvature(state.eta, form.y, form.s), 1e-8 * form.s)  # saturated rows
        total = jnp.sum(w)
        mean, force = jnp.zeros_like(state.z), jnp.zeros_like(state.b)
        if form.intercept:  # eliminated from the model: columns are centred by the model's own weights
            mean, force = form.design.tdot(w) / total, jnp.sum(v)
        G = form.design.gram(w) - total * mean[:, None] * mean[None, :]
        u = form.design.tdot(v) - mean * force

        def unsettled(carry: Any) -> Array:
            _, _, first, last, k = carry
            return (last > 1e-4 * first) & (k < ROUNDS)

        def body(carry: Any) -> Any:
            z, sweeps, first, _, k = carry
            q = u - jnp.matmul(G, z - state.z, precision=HIGHEST)
            z, more, change = descend(G, terms, z, q, form.shape[0])
            return z, sweeps + more, jnp.maximum(first, change), change, k + 1

        none, count = jnp.zeros_like(state.b), jnp.zeros((), jnp.int32)
        z, sweeps, *_ = jax.lax.while_loop(unsettled, body, (state.z, count, none, none + jnp.inf, count))
        dz = z - state.z
        db = force / total - jnp.sum(mean * dz)
        deta = form.design.dot(dz) + db

        def objective(t: Array) -> Array:
            # A full step lands on the model's exact zeros; z + 1*(new - z) would miss them by a rounding.
            at = jnp.where(t == 1, z, state.z + t * dz)
            return form.loss.value(state.eta + t * deta, form.y, form.s) + penalty.value(at)

        # Near the end the objective's rounding hides its decrease, while full steps still gain digits.
        here = objective(jnp.zeros_like(state.b)) * (1 + 8 * eps(state.z.dtype))
        t = shortened(lambda t: objective(t) > here, 2.0, jnp.ones_like(state.b))
        new = jnp.where(t == 1, z, state.z + t * dz)
        return Point(new, state.b + t * db, state.eta + t * deta), sweeps

    def point(self, state: Point) -> tuple[Array, Array]:
        return state.z, state.b

    def gap(self, form: StandardForm, work: None, penalty: Any, state: Point, equalities: bool) -> Array:
        return certify(form, penalty, state.z, state.b, equalities).measure
