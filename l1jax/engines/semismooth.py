"""Semismooth Newton: proximal points by Newton's method, as matrix products and Cholesky factorisations alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import along, eps
from l1jax._node import node
from l1jax.certificate import certify
from l1jax.design import HIGHEST
from l1jax.engines.base import Engine
from l1jax.losses import Loss, Squared
from l1jax.penalties import Elementwise, Penalty
from l1jax.problem import Problem
from l1jax.standard_form import StandardForm

CHUNK = 5  # Newton steps between two looks at the gap
LENGTHS = tuple(0.5**k for k in range(6))  # of a Newton step, tried at once
GROWTH = 3.0  # of sigma, from one proximal point to the next
LONG = 20  # Newton steps on one proximal point, after which sigma was too large
LOOSE, EARLY = 2.0, 20  # how inexact proximal points may be, and how many of them as much


@node
class Dual:
    """A predictor eta (n,) on its way to a proximal point, and the point (z, b) that its slopes lead to.

    z = prox(centre - sigma * X'u) for u the loss's gradient at eta. `residual` is eta - offset - b - X z, which is 0
    at the proximal point.
    """

    z: Array
    b: Array
    eta: Array
    residual: Array
    slopes: tuple[Array, Array]  # X'u and sum u
    centre: tuple[Array, Array]
    sigma: Array
    inner: Array  # Newton steps on this proximal point
    outer: Array  # proximal points so far


@dataclasses.dataclass(frozen=True)
class SemismoothNewton(Engine):
    """The proximal point method, its subproblems solved by semismooth Newton steps on the linear predictor.

    The points argmin loss + penalty + |z - centre|^2/(2 sigma), each the next one's centre, converge whatever the
    design, the faster the larger sigma. Each is the root in eta of eta - X prox(centre - sigma X'u(eta)), the gradient
    of a convex function of u, whose derivative is symmetric and positive definite: Newton's direction is one of
    descent, and the sign of the slope along it says how far to go.

    Fixed shapes, no loop over coordinates: for a batch of strengths a step is a few products with X, one batched
    product of min(n, p)^2 and one batched Cholesky factorisation of that size. The form for GPU and TPU.

    Source: Li, Sun, Toh (2018), "A highly efficient semismooth Newton augmented Lagrangian method for solving lasso
    problems", SIAM J. Optim. 28(1); Rockafellar (1976), "Monotone operators and the proximal point algorithm", SIAM J.
    Control Optim. 14(5).
    """

    max_steps = 1000
    patience = 40

    def refuses(self, loss: Loss, penalty: Penalty) -> str:
        if type(loss).bent is not Loss.bent or loss.several or not loss.curved:
            return f"semismooth Newton wants a curved loss that is a sum over rows, got {type(loss).__name__}"
        if not isinstance(penalty, Elementwise) or not penalty.certified:
            return f"semismooth Newton wants a convex penalty that acts on each coefficient alone, got {penalty!r}"
        return ""

    def numbers(self, problem: Problem) -> int:
        n, p = problem.X.shape
        columns = 0 if p <= n and isinstance(problem.loss, Squared) else n * min(p, 2 * n)
        return super().numbers(problem) + 2 * columns + 3 * min(n, p) ** 2

    def prepare(self, form: StandardForm) -> Array | None:
        """The Gram matrix, where it is small and the same at every point."""
        n, p = form.shape
        return form.design.gram(form.s) if isinstance(form.loss, Squared) and p <= n else None

    def init(self, form: StandardForm, work: Array | None, penalty: Any, z: Array, b: Array) -> Dual:
        eta, count = form.eta(z, b), jnp.zeros((), jnp.int32)
        return Dual(z, b, eta, 0 * eta, _slopes(form, eta), (z, b), 0.1 * _unit(form), count, count)

    def advance(self, form: StandardForm, work: Array | None, penalty: Any, state: Dual) -> tuple[Dual, Array]:
        def body(_: Any, state: Dual) -> Dual:
            return _step(form, work, penalty, state)

        return jax.lax.fori_loop(0, CHUNK, body, state), jnp.asarray(CHUNK, jnp.int32)

    def point(self, state: Dual) -> tuple[Array, Array]:
        return state.z, state.b

    def gap(self, form: StandardForm, work: Array | None, penalty: Any, state: Dual, equalities: bool) -> Array:
        return certify(form, penalty, state.z, state.b, equalities).measure


def _step(form: StandardForm, work: Array | None, penalty: Elementwise, state: Dual) -> Dual:
    """The next proximal point is begun if this one is near enough; then a Newton step."""
    terms = penalty.terms(state.z)[0].full(state.z.shape)
    near, long = _near(form, state), state.inner >= LONG
    largest = 10 / eps(state.z.dtype) ** 0.5 * _unit(form)
    grown = jnp.minimum(GROWTH * state.sigma, largest)
    sigma = jnp.where(near, grown, jnp.where(long, state.sigma / GROWTH, state.sigma))
    inner = jnp.where(near | long, 0, state.inner)
    centre = jax.tree.map(lambda a, old: jnp.where(near, a, old), (state.z, state.b), state.centre)

    def lead_to(eta: Array, slopes: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        z, b = terms.prox(centre[0] - sigma * slopes[0], sigma), centre[1] - sigma * slopes[1]
        return z, b, eta - form.eta(z, b)

    z, b, residual = lead_to(state.eta, state.slopes)
    share = jnp.where(terms.smooth(z), sigma / (1 + sigma * terms.l2), 0.0)
    curved = form.loss.curvature(state.eta, form.y, form.s)
    dz, db = _newton(form, work, curved, share, sigma, z, residual)
    move = form.design.dot(dz) + db - residual

    def ahead(length: Array) -> tuple[Array, Any]:
        """The slope of the subproblem along the way, and the state there."""
        eta = state.eta + length * move
        slopes = _slopes(form, eta)
        z, b, residual = lead_to(eta, slopes)
        bent = form.loss.curvature(eta, form.y, form.s) * move
        return jnp.sum(bent * residual), (z, b, eta, residual, slopes)

    slope, there = jax.vmap(ahead)(jnp.asarray(LENGTHS, z.dtype))
    fine = slope <= 0.5 * jnp.abs(jnp.sum(curved * move * residual))  # not too far past the minimum along the way
    first = fine & (jnp.cumsum(fine) == 1)

    def taken(a: Array, stay: Array) -> Array:
        return jnp.where(jnp.any(fine), jnp.sum(jnp.where(along(first, a), a, 0.0), axis=0), stay)

    here = (z, b, state.eta, residual, state.slopes)
    end_z, end_b, eta, residual, slopes = jax.tree.map(taken, there, here)
    # Newton's own step in z leads to the same point, if nothing bends in between; its rounding is not that of X'u,
    # sigma times. The better of the two is kept.
    straight = terms.smooth(z) & terms.smooth(end_z) & (z * end_z >= 0)
    step_z, step_b = jnp.where(straight, z + dz, end_z), b + db
    step_z = terms.project(jnp.where((step_z * end_z < 0) & (terms.l1 > 0), 0.0, step_z))
    rest = eta - form.eta(step_z, step_b)
    better = jnp.sum(form.s * rest**2) < jnp.sum(form.s * residual**2)
    z, b, residual = jax.tree.map(
        lambda a, other: jnp.where(better, a, other), (step_z, step_b, rest), (end_z, end_b, residual)
    )
    inner = jnp.where(jnp.any(fine), inner + 1, LONG)
    return Dual(z, b, eta, residual, slopes, centre, sigma, inner, state.outer + near.astype(jnp.int32))


def _near(form: StandardForm, state: Dual) -> Array:
    """Whether (z, b) is near enough to the proximal point: errors are summable shares of the moves."""
    reach = state.sigma * form.s
    error = jnp.sqrt(jnp.sum(reach * state.residual**2))
    moved = jnp.sqrt(jnp.sum((state.z - state.centre[0]) ** 2) + (state.b - state.centre[1]) ** 2)
    loose = LOOSE * jnp.minimum(1.0, (EARLY / (1.0 + state.outer.astype(error.dtype))) ** 2)
    return error <= jnp.maximum(loose * moved, 4 * eps(error.dtype) * jnp.sqrt(jnp.sum(reach * state.eta**2)))


def _unit(form: StandardForm) -> Array:
    """The natural size of sigma: one over the loss's curvature along a column."""
    curved = jnp.sum(form.loss.curvature(form.offset, form.y, form.s))
    return 1 / jnp.where(curved > 0, curved, 1.0)


def _intercept(form: StandardForm) -> bool:
    """Whether the intercept moves with z; that of the squared loss is 0, as columns are centred."""
    return form.intercept and not isinstance(form.loss, Squared)


def _slopes(form: StandardForm, eta: Array) -> tuple[Array, Array]:
    """The loss's gradient in z and in the intercept."""
    u = form.loss.gradient(eta, form.y, form.s)
    total = jnp.sum(u)
    return form.design.tdot(u), total if _intercept(form) else jnp.zeros_like(total)


def _newton(
    form: StandardForm, work: Array | None, curved: Array, share: Array, sigma: Array, z: Array, residual: Array
) -> tuple[Array, Array]:
    """(1/share + X' diag(curved) X)^-1 X' (curved * residual), 0 where `share` is; the intercept has a share of sigma.

    By a system of the columns or, where there are more of them, of the rows.
    """
    n, p = form.shape
    free, none = _intercept(form), jnp.zeros_like(sigma)
    if p <= n:
        G = form.design.gram(curved) if work is None else work
        pull = form.design.tdot(curved * residual)
        if free:
            edge, total = form.design.tdot(curved)[:, None], jnp.sum(curved)[None, None]
            G = jnp.concatenate([jnp.concatenate([G, edge], axis=1), jnp.concatenate([edge.T, total], axis=1)])
            pull, share = jnp.append(pull, jnp.sum(curved * residual)), jnp.append(share, sigma)
        moving = share > 0
        system = jnp.where(moving[:, None] & moving[None], G, 0.0)
        system = system + jnp.diag(1 / jnp.where(moving, share, 1.0))
        x = _solved(system, jnp.where(moving, pull, 0.0))
        return x[:p], x[p] if free else none
    # Of more than 2n columns those of the least coefficients are left out: a shorter step, still one of descent.
    _, ids = jax.lax.top_k(jnp.where(share > 0, jnp.abs(z), -1.0), min(p, 2 * n))
    columns, shares = form.design.columns(ids), share[ids]
    if free:
        columns, shares = jnp.concatenate([columns, jnp.ones((1, n), z.dtype)]), jnp.append(shares, sigma)
    half = jnp.sqrt(curved)
    columns = columns * half[None] * jnp.sqrt(shares)[:, None]
    system = jnp.matmul(columns.T, columns, precision=HIGHEST) + jnp.eye(n, dtype=z.dtype)
    x = jnp.sqrt(shares) * jnp.matmul(columns, _solved(system, half * residual), precision=HIGHEST)
    return jnp.zeros_like(z).at[ids].set(x[: len(ids)]), x[-1] if free else none


def _solved(system: Array, right: Array) -> Array:
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(system), True), right)
