"""Certificates: how far a point is from the minimum, proved by a point of the dual problem.

The dual of `min_{z,b} loss(offset + b + X z) + penalty(z)` is `max_v -loss*(-v) - <v, offset> - penalty*(X'v)` over
v (n,), with `sum v = 0` if there is an intercept: any such v bounds the minimum from below. Directions without any
penalty (the intercept, zero factors, lam = 0) are equalities in it. At an approximate solution they hold only
approximately, and scaling v cannot mend that: so those directions are fitted anew first, and what rounding leaves is
projected off.

Source: Fercoq, Gramfort, Salmon (2015), "Mind the duality gap: safer rules for the lasso", ICML, eqs. 2 and 11.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import along, eps
from l1jax._node import node
from l1jax.losses import Loss, per_weight
from l1jax.penalties import Penalty
from l1jax.standard_form import Only, StandardForm, possible


@node
class Certificate:
    """A point with its unpenalised directions fitted, and its bounds.

    `gap` is (objective - dual)/null_objective, at least 0; NaN where nothing can be said. `stationarity` is the
    largest distance of minus the loss's gradient from the penalty's subdifferential, over the largest entry of that
    gradient at the null model (which for L1 is lambda_max). `measure` is the one that `converged` speaks of: the
    gap, or the stationarity where loss or penalty have no dual.
    """

    z: Array
    b: Array
    loss: Array
    objective: Array
    gap: Array
    stationarity: Array
    measure: Array


def certify(form: StandardForm, penalty: Any, z: Array, b: Array, equalities: bool) -> Certificate:
    """Fit the unpenalised directions at (z, b) anew and certify that point.

    `equalities` says (statically) whether there may be any besides the intercept; without them a certificate costs
    two passes over X.
    """
    z, b, eta = refit(form, penalty, z, b, equalities)
    loss = form.loss.value(eta, form.y, form.s)
    objective = loss + penalty.value(z)
    v = downhill(form, eta)
    u = form.design.tdot(v)
    stationarity = relative_distance(form, penalty, z, u)
    if not certified(form, penalty):
        return Certificate(z, b, loss, objective, jnp.full_like(objective, jnp.nan), stationarity, stationarity)
    gap = relative_gap(form, objective, dual_bound(form, penalty, z, v, u, equalities), z, v)
    curved = jnp.sum(form.loss.curvature(eta, form.y, form.s), axis=0)
    gap = gap + _rounding(form, z, b, curved, size(v, form.s), objective)
    return Certificate(z, b, loss, objective, gap, stationarity, gap)


def certify_only(form: StandardForm, penalty: Any, ids: Array, z: Array, b: Array) -> tuple[Certificate, Array]:
    """The certificate, without equalities, of the features at `ids` alone, and minus the loss's gradient there.

    It holds if all others rest at 0, strictly inside their corners: their penalty is 0 then, and so is its conjugate.
    """
    near = form.only(ids)
    done = certify(near, Only(penalty, ids, form.shape[1]), z, b, False)
    return done, downhill(near, near.eta(z, done.b))


def certify_by_moments(form: StandardForm, penalty: Any, z: Array, q: Array, c: Array, yy: Array) -> Certificate:
    """The same for the squared loss without equalities, of q = c - G z, for X'SX = G, X'Sy = c and y'Sy = yy.

    What rounding does to these is the caller's to add.
    """
    residual, dual = residual_and_bound(penalty, z, q, c, yy)
    loss = residual / 2
    objective = loss + penalty.value(z)
    gap = relative_gap(form, objective, dual, z, q)
    b, ones = jnp.zeros_like(loss), jnp.ones_like(loss)
    gap = gap + _rounding(form, z, b, ones, jnp.sqrt(residual), objective)
    return Certificate(z, b, loss, objective, gap, relative_distance(form, penalty, z, q), gap)


def residual_and_bound(penalty: Any, z: Array, q: Array, c: Array, yy: Array) -> tuple[Array, Array]:
    """r'Sr at z, and the lower bound of the minimum that multiples of r give, from the same moments."""
    fitted = jnp.sum(c * z)
    residual = jnp.maximum(yy - fitted - jnp.sum(q * z), 0.0)
    scaled, conjugate = penalty.scalings(q)
    return residual, jnp.max(scaled * (yy - fitted) - scaled**2 / 2 * residual - conjugate)


def may_have_equalities(penalty: Penalty, form: StandardForm) -> bool:
    """Whether some coefficient may be unpenalised on a side, which certificates must know."""
    return possible(_sides_at_zero, penalty, form)


@jax.jit
def _sides_at_zero(penalty: Any, zero: Array) -> Array:
    ones = jnp.ones_like(zero)
    return jnp.any(penalty.excess(ones) != 0) | jnp.any(penalty.excess(-ones) != 0)


def downhill(form: StandardForm, eta: Array) -> Array:
    """Minus the loss's gradient at a minimum over the intercept; what rounding leaves of its sum, 0, is taken off."""
    v = -form.loss.gradient(eta, form.y, form.s)
    return v - along(form.s, v) * jnp.sum(v, axis=0)[None] if form.intercept else v


def size(v: Array, s: Array) -> Array:
    """The norm sqrt(sum v^2/s) of a gradient: that of the residuals, weighted."""
    return jnp.sqrt(jnp.sum(v * per_weight(v, s)))


def certified(form: StandardForm, penalty: Any) -> bool:
    """Whether loss and penalty have a dual that is known (statically)."""
    return bool(penalty.certified) and type(form.loss).conjugate is not Loss.conjugate


def relative_distance(form: StandardForm, penalty: Any, z: Array, u: Array) -> Array:
    """The largest distance of u from the penalty's subdifferential at z, over the null model's largest slope."""
    distance = jnp.max(penalty.distance(z, u) / form.strength)
    return jnp.where(form.null_slope > 0, distance / jnp.where(form.null_slope > 0, form.null_slope, 1.0), 0.0)


def relative_gap(form: StandardForm, objective: Array, dual: Array, z: Array, v: Array) -> Array:
    """(objective - dual)/null_objective; 0 at a perfect null model (a constant y), NaN if that was underflow."""
    excess = jnp.where(objective <= dual, 0.0, objective - dual)  # rounding may put the bound above the point
    excess = jnp.where(jnp.isnan(objective) | jnp.isnan(dual), jnp.nan, excess)
    perfect = (form.null_objective == 0) & (objective == 0) & jnp.all(v == 0) & jnp.all(z == 0)
    gap = excess / jnp.where(form.null_objective > 0, form.null_objective, jnp.nan)
    return jnp.where(perfect, 0.0, gap)


def _rounding(form: StandardForm, z: Array, b: Array, curved: Array, force: Array, objective: Array) -> Array:
    """What the arithmetic itself may hide, relative to the null objective.

    X z and X'v are sums of terms that may cancel: their rounding enters the bound by <v, X z>; `force` is the size of
    v. The intercept in raw units is a sum of large terms if columns or y have large means: its rounding moves eta, at a
    minimum over the intercept, where the loss has the second derivative `curved`. And an objective far above the null
    one (bounds that exclude 0) has no finer digits.
    """
    coarse = 8 * eps(z.dtype) * jnp.maximum(objective - form.null_objective, 0.0)
    length = jnp.sqrt(jnp.sum((z * along(form.design.norm, z)) ** 2))
    coarse = coarse + 4 * eps(z.dtype) * force * length
    if form.intercept:
        shifts = jnp.abs(z / form.scale * along(form.design.center, z))
        terms = jnp.abs(form.null_intercept) + jnp.abs(b) + 2 * jnp.sum(shifts, axis=0)
        coarse = coarse + jnp.sum(curved / 2 * (eps(z.dtype) * terms) ** 2)
    return jnp.where(
        form.null_objective > 0, coarse / jnp.where(form.null_objective > 0, form.null_objective, 1.0), 0.0
    )


def dual_bound(form: StandardForm, penalty: Any, z: Array, v: Array, u: Array, equalities: bool) -> Array:
    """A lower bound of the minimum, from v, minus the loss's gradient (summing to 0) at z, and u = X'v."""
    rounding = 64 * eps(u.dtype) * size(v, form.s) * along(form.design.norm, u)
    reach = jnp.abs(z)
    if equalities:
        v, u, moved = _project(form, penalty, v, u, rounding)
        reach = reach + jnp.abs(moved)
    c, conjugate = penalty.scalings(u)
    scaled = jax.vmap(lambda t: form.loss.conjugate(-t * v, form.y, form.s) + t * jnp.sum(v * form.offset))(c)
    excess = penalty.excess(u)
    # What rounding leaves of the equalities is paid for, with unpenalised coefficients up to twice those at hand and
    # those that the projection, a least-squares fit, would have liked to add.
    bound = jnp.max(-scaled - conjugate) - 2 * jnp.sum(jnp.abs(excess) * reach)
    if equalities and not form.loss.attained:  # nothing is left of v but the trivial bound 0: separable classes
        bound = jnp.where(jnp.all(v == 0) & jnp.any(penalty.free(z)), -jnp.inf, bound)
    feasible = jnp.all(jnp.abs(excess) <= rounding)
    return jnp.where(feasible, bound, jnp.where(jnp.isnan(bound), bound, -jnp.inf))


def _project(form: StandardForm, penalty: Any, v: Array, u: Array, rounding: Array) -> tuple[Array, Array, Array]:
    """Take from v its part along the columns j whose u_j must be 0 (or have a sign) and is not; with its coefs."""

    def unfinished(carry: Any) -> Array:
        _, u, _, _, k = carry
        return (k == 0) | (jnp.any(jnp.abs(penalty.excess(u)) > rounding / 8) & (k < 6))

    def body(carry: Any) -> Any:
        v, u, moved, mask, k = carry
        mask = mask | (penalty.excess(u) != 0)
        s = along(form.s, v)
        _, c, fitted = least_squares(form, mask, s, per_weight(v, form.s))
        v = v - s * fitted
        return v, form.design.tdot(v), moved + c, mask, k + 1

    none = jnp.zeros(u.shape, bool) & (u == u)
    start = (v, u, jnp.zeros_like(u), none, jnp.zeros((), jnp.int32))
    v, u, moved, _, _ = jax.lax.while_loop(unfinished, body, start)
    return v, u, moved


def refit(form: StandardForm, penalty: Any, z: Array, b: Array, equalities: bool) -> tuple[Array, Array, Array]:
    """Minimise over the intercept and the unpenalised coefficients, the others kept: (z, b, eta) there."""
    eta = form.eta(z, b)
    if not equalities:
        if form.intercept:
            move = form.loss.shift(eta, form.y, form.s)
            b, eta = b + move, eta + move[None]
        return z, b, eta
    mask = penalty.free(z)

    def slopes(eta: Array) -> tuple[Array, Array]:
        """The norm of the gradient along the block, and that of the residual, its natural size."""
        v = form.loss.gradient(eta, form.y, form.s)
        g = jnp.where(mask, form.design.tdot(v) / form.lengths, 0.0)
        sums = jnp.sum(v, axis=0) if form.intercept else jnp.zeros_like(b)
        return jnp.sqrt(jnp.sum(g**2) + jnp.sum(sums**2)), size(v, form.s)

    def uphill(eta: Array, loss: Array) -> Array:
        """Where columns nearly coincide, a step that rounding leads far away may still lessen the slopes."""
        return ~(form.loss.value(eta, form.y, form.s) <= loss * (1 + 8 * eps(loss.dtype)))

    def unfinished(carry: Any) -> Array:
        _, (g, whole), moving, k = carry
        return moving & (g > eps(g.dtype) * whole) & (k < 50)

    def body(carry: Any) -> Any:
        (z, b, eta), (g, whole), _, k = carry
        loss = form.loss.value(eta, form.y, form.s)
        db, dz, deta = newton_step(form, mask, eta)

        def too_long(t: Array) -> Array:
            return (slopes(eta + t * deta)[0] >= g) | uphill(eta + t * deta, loss)

        t = shortened(too_long, 4.0, jnp.ones_like(g))
        moved = (z + t * dz, b + t * db, eta + t * deta)
        new = slopes(moved[2])
        better = (new[0] < g) & ~uphill(moved[2], loss)
        keep = jax.tree.map(lambda a, old: jnp.where(better, a, old), (moved, new), ((z, b, eta), (g, whole)))
        return *keep, better, k + 1

    first = slopes(eta)
    start = ((z, b, eta), first, first[0] == first[0], jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, body, start)[0]


def newton_step(form: StandardForm, mask: Array, eta: Array) -> tuple[Array, Array, Array]:
    """The step (db, dz, deta) to the minimum of the loss's model over the intercept and the coefficients in `mask`."""
    v = -form.loss.gradient(eta, form.y, form.s)
    w = form.loss.curvature(eta, form.y, form.s)
    w = jnp.where(along(form.s, w) > 0, jnp.maximum(w, 1e-6 * jnp.max(w)), 0.0)  # saturated rows
    return least_squares(form, mask, w, per_weight(v, w))


def shortened(too_long: Callable[[Array], Array], by: float, t: Array) -> Array:
    """The first of t, t/by, t/by^2, ... that is not too long, or one below 1e-6.

    The test is carried, not made in the loop's condition: under vmap that is evaluated twice, and where XLA rounds the
    two differently the loop would never end.
    """

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        t = carry[0] / by
        return t, too_long(t) & (t > 1e-6)

    return jax.lax.while_loop(lambda carry: carry[1], body, (t, too_long(t)))[0]


def least_squares(form: StandardForm, mask: Array, w: Array, target: Array) -> tuple[Array, Array, Array]:
    """argmin_{b,c} sum w*(target - b - X c)^2 over the columns in `mask`: (b, c, fitted), by conjugate gradients.

    No factorisation: the block's size is data here, and where no column is masked the loop is not entered.
    Source: Björck (1996), "Numerical Methods for Least Squares Problems", algorithm 7.4.1 (CGLS).
    """
    total = jnp.sum(w, axis=0)

    def mean(x: Array) -> Array:
        return jnp.sum(w * x, axis=0) / total if form.intercept else jnp.zeros_like(total)

    def columns(c: Array) -> Array:
        fitted = form.design.dot(c / form.lengths)
        return fitted - mean(fitted)[None]

    def slopes(r: Array) -> Array:
        return jnp.where(mask, form.design.tdot(w * r) / form.lengths, 0.0)

    def unfinished(carry: Any) -> Array:
        *_, going, k = carry
        return going & (k < limit)

    def body(carry: Any) -> Any:
        c, r, g, d, gamma, rr, _, k = carry
        q = columns(d)
        curved = jnp.sum(w * q**2)
        a = jnp.where(curved > 0, gamma / jnp.where(curved > 0, curved, 1.0), 0.0)
        shorter = r - a * q
        left = jnp.sum(w * shorter**2)
        sound = (curved > 0) & (left <= rr * (1 + 16 * eps(w.dtype)))  # where only rounding is left, steps lead away
        c, r = jnp.where(sound, c + a * d, c), jnp.where(sound, shorter, r)
        g = slopes(r)
        new = jnp.sum(g**2)
        return c, r, g, g + new / gamma * d, new, left, sound & (new > tiny), k + 1

    limit = 4 * min(form.shape) + 20
    residual = target - mean(target)[None]
    rr = jnp.sum(w * residual**2)
    tiny = (eps(w.dtype) / 4) ** 2 * rr * jnp.max(total)
    g = slopes(residual)
    gamma = jnp.sum(g**2)
    start = (jnp.zeros_like(g), residual, g, g, gamma, rr, gamma > tiny, jnp.zeros((), jnp.int32))
    c = jax.lax.while_loop(unfinished, body, start)[0] / form.lengths
    fitted = form.design.dot(c)
    b = mean(target - fitted)
    return b, c, fitted + b[None]
