"""The problem as it is solved: centred, scaled, weighted, with the null model's intercept folded in."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps, smallest
from l1jax._node import node, static
from l1jax.design import Design, prepare_design
from l1jax.losses import Loss
from l1jax.penalties import Elementwise, Penalty, Terms
from l1jax.penalties.base import Wrapper
from l1jax.problem import Problem


@node
class StandardForm:
    """minimise loss(offset + b + X z, y, s) + penalty(z) over z (p,) and, if there is an intercept, b ().

    X has centred, scaled columns (`Design`); s sums to 1; at z = 0 the best b is 0. What depends on the data only is
    here; `units` brings a penalty along.
    """

    design: Design
    y: Array
    s: Array
    offset: Array
    null_intercept: Array
    null_objective: Array
    null_slope: Array
    fit: Array  # whether the data have an answer at all: a scalar truth value
    loss: Loss
    intercept: bool = static()
    standardize: bool = static()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)"""
        p, n = self.design.XT.shape
        return n, p

    def eta(self, z: Array, b: Array) -> Array:
        return self.offset + b + self.design.dot(z)

    def units(self, penalty: Any) -> Any:
        """The penalty of raw coefficients as one of z."""
        if isinstance(penalty, Elementwise):
            return InUnits(penalty, self.strength, self.design.scale)
        return Rescaled(penalty, self.strength[0])

    @property
    def strength(self) -> Array:
        """What the penalty acts on, over z."""
        return jnp.ones_like(self.design.scale) if self.standardize else 1 / self.design.scale

    def to_raw(self, z: Array, b: Array) -> tuple[Array, Array]:
        """Coefficients (p,) and intercept () in the units of X."""
        coef = z / self.design.scale
        if not self.intercept:
            return coef, b * 0
        return coef, self.null_intercept + b - jnp.sum(coef * self.design.center)

    def from_raw(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """The point (z, b) at coefficients and an intercept in the units of X."""
        z = coef * self.design.scale
        if self.standardize:  # the coefficient of a constant column is 0
            z = jnp.where(self.design.norm > 0, z, 0.0)
        return z, intercept + jnp.sum(coef * self.design.center) - self.null_intercept


@node
class InUnits(Wrapper, Elementwise):
    """z -> penalty(strength * z), its bounds multiplied by `scale`."""

    penalty: Any
    strength: Array
    scale: Array

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return self.penalty.critical_lam(u / self.strength, corner)

    def terms(self, w: Any) -> list[Terms]:
        return [t.in_units(self.strength, self.scale) for t in self.penalty.terms(w)]


@node
class Rescaled(Wrapper):
    """z -> penalty(c * z), for a penalty that ties coefficients together: all columns have one scale."""

    penalty: Any
    c: Array

    def value(self, w: Array) -> Array:
        return self.penalty.value(self.c * w)

    def prox(self, v: Array, step: Any) -> Array:
        return self.penalty.prox(self.c * v, self.c**2 * step) / self.c

    def project(self, w: Array) -> Array:
        return self.penalty.project(self.c * w) / self.c

    def nearest_subgradient(self, w: Array, u: Array) -> Array:
        return self.c * self.penalty.nearest_subgradient(self.c * w, u / self.c)

    def conjugate(self, u: Array) -> Array:
        return self.penalty.conjugate(u / self.c)

    def critical_lam(self, u: Array, corner: float = 0.0) -> Array:
        return self.penalty.critical_lam(u / self.c, corner)

    def free(self, w: Array) -> Array:
        return self.penalty.free(w)

    def unpriced(self, w: Array) -> Array:
        return self.penalty.unpriced(w)

    def excess(self, u: Array) -> Array:
        return self.c * self.penalty.excess(u / self.c)

    def scalings(self, u: Array) -> tuple[Array, Array]:
        return self.penalty.scalings(u / self.c)

    def valid(self, w: Array) -> Array:
        return self.penalty.valid(w)


def prepared(problem: Problem) -> tuple["StandardForm", Penalty]:
    """The standard form, and the penalty with its leaves in the problem's dtype."""
    penalty = jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), problem.penalty)
    return standard_form(problem), penalty


@jax.jit
def standard_form(problem: Problem) -> StandardForm:
    """The standard form of a problem's data."""
    loss, s = problem.loss, problem.weights()
    flags = problem.flags()
    del flags["penalty"]
    one_scale = not isinstance(problem.penalty, Elementwise)
    design = prepare_design(problem.X, s, problem.fit_intercept, problem.standardize, one_scale)
    given = jnp.zeros_like(problem.y) if problem.offset is None else problem.offset
    y, offset = loss.encode(problem.y), jnp.zeros_like(given)
    intercept = jnp.zeros((), problem.dtype)
    # The null model's intercept comes off before the offset, while the difference is exact, and again after it; the
    # third pass wins back the digits that a large mean of y cost.
    for part in (given, jnp.zeros_like(given), jnp.zeros_like(given)):
        if problem.fit_intercept:
            more = shift(loss, offset, y, s)
            intercept = intercept + more
            y, offset = loss.absorb(y, offset + more)
        y, offset = loss.absorb(y, offset + part)
    slopes = loss.gradient(offset, y, s)
    null_objective = loss.value(offset, y, s)
    # Below this, squares lose digits to underflow and nothing could be certified.
    large_enough = null_objective > smallest(problem.dtype) / eps(problem.dtype)
    representable = jnp.isfinite(null_objective) & (large_enough | jnp.all(slopes == 0))
    form = StandardForm(
        design=design,
        y=y,
        s=s,
        offset=offset,
        null_intercept=intercept,
        null_objective=null_objective,
        null_slope=jnp.zeros((), problem.dtype),
        fit=jnp.all(jnp.stack([representable, *flags.values()])),
        loss=loss,
        intercept=problem.fit_intercept,
        standardize=problem.standardize,
    )
    slope = jnp.max(jnp.abs(design.tdot(slopes)) / form.strength)
    return dataclasses.replace(form, null_slope=slope)


def shift(loss: Loss, eta: Array, y: Array, s: Array) -> Array:
    """argmin_b loss(eta + b, y, s), by Newton steps within a bracket, which is halved where they lead astray.

    Taken as a constant in derivatives: it only chooses the point from which b is counted.
    Source: Press, Teukolsky, Vetterling, Flannery (2007), "Numerical Recipes", section 9.4 (rtsafe).
    """
    eta, y, s = jax.lax.stop_gradient((eta, y, s))
    loss = jax.lax.stop_gradient(loss)

    def slope(b: Array) -> tuple[Array, Array]:
        """And what counts as 0 there: far from the minimum gradients may be larger by any factor, so not elsewhere."""
        gradient = loss.gradient(eta + b, y, s)
        return jnp.sum(gradient), eps(eta.dtype) / 4 * jnp.sum(jnp.abs(gradient))

    def unfinished(carry: Any) -> Array:
        *_, going, k = carry
        return going & (k < 200)

    def body(carry: Any) -> Any:
        b, g, low, high, last, (best, least), _, k = carry
        low, high = jnp.where(g < 0, b, low), jnp.where(g > 0, b, high)
        h = jnp.sum(loss.curvature(eta + b, y, s))
        newton = -g / jnp.where(h > 0, h, 1.0)
        middle = low / 2 + high / 2
        bracketed = jnp.isfinite(middle)
        good = (h > 0) & (b + newton > low) & (b + newton < high) & (~bracketed | (jnp.abs(newton) <= last / 2))
        onward = b - jnp.sign(g) * 2 * jnp.where(jnp.isfinite(last), jnp.maximum(last, 1.0), 1.0)
        new = jnp.where(good, b + newton, jnp.where(bracketed, middle, onward))
        g, tiny = slope(new)
        better = jnp.abs(g) < jnp.abs(least)
        best, least = jnp.where(better, new, best), jnp.where(better, g, least)
        going = (jnp.abs(g) > tiny) & (new != b)
        return new, g, low, high, jnp.abs(new - b), (best, least), going, k + 1

    start = jnp.zeros_like(jnp.sum(eta))
    g, tiny = slope(start)
    far = jnp.inf + 0 * start
    carry = (start, g, -far, far, far, (start, g), jnp.abs(g) > tiny, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, body, carry)[5][0]
