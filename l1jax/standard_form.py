"""The problem as it is solved: centred, scaled, weighted, with the null model's intercept folded in."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import along, as_dtype, concrete, eps, smallest
from l1jax._node import node, static
from l1jax.design import Design
from l1jax.losses import Loss
from l1jax.penalties import Elementwise, Penalty, Terms
from l1jax.penalties.base import Wrapper
from l1jax.preparation import prepare_design, prepare_on_host
from l1jax.problem import Problem

LARGE = 2_000_000  # numbers of a design that NumPy prepares


@node
class StandardForm:
    """minimise loss(offset + b + X z, y, s) + penalty(z) over z (p,) and, if there is an intercept, b ().

    With k outputs, z is (p, k), b (k,) and the linear predictor (n, k).

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
    def start(self) -> tuple[Array, Array]:
        """The point (0, 0): the null model."""
        b = jnp.zeros_like(self.null_intercept)
        return jnp.zeros((self.shape[1], *b.shape), b.dtype), b

    @property
    def scale(self) -> Array:
        """The scale of the columns, over z."""
        return along(self.design.scale, self.start[0])

    @property
    def lengths(self) -> Array:
        """The norms of the columns, over z; 1 for a column of zeros."""
        return along(jnp.where(self.design.norm > 0, self.design.norm, 1.0), self.start[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)"""
        return self.s.shape[0], self.design.XT.shape[0]

    def eta(self, z: Array, b: Array) -> Array:
        return self.offset + b[None] + self.design.dot(z)

    def units(self, penalty: Any) -> Any:
        """The penalty of raw coefficients as one of z."""
        if isinstance(penalty, Elementwise):
            return InUnits(penalty, self.strength, self.scale)
        return Rescaled(penalty, self.strength.ravel()[0])

    def only(self, ids: Array) -> "StandardForm":
        """The same with these features alone; columns of zeros for places past the end."""
        return dataclasses.replace(self, design=self.design.only(ids))

    @property
    def strength(self) -> Array:
        """What the penalty acts on, over z."""
        return jnp.ones_like(self.scale) if self.standardize else 1 / self.scale

    def to_raw(self, z: Array, b: Array) -> tuple[Array, Array]:
        """Coefficients (p,) and intercept () in the units of X."""
        coef = z / self.scale
        if not self.intercept:
            return coef, b * 0
        return coef, self.loss.centred(self.null_intercept + b - self._at_center(coef))

    def from_raw(self, coef: Array, intercept: Array) -> tuple[Array, Array]:
        """The point (z, b) at coefficients and an intercept in the units of X."""
        z = coef * self.scale
        if self.standardize:  # the coefficient of a constant column is 0
            z = jnp.where(along(self.design.norm, z) > 0, z, 0.0)
        return z, intercept + self._at_center(coef) - self.null_intercept

    def _at_center(self, coef: Array) -> Array:
        return jnp.sum(coef * along(self.design.center, coef), axis=0)


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
class Only(Wrapper, Elementwise):
    """A penalty of `size` coefficients, of those at `ids` alone; places past the end are padding."""

    penalty: Any
    ids: Array
    size: int = static()

    def terms(self, w: Array) -> list[Terms]:
        whole = jnp.zeros((self.size, *w.shape[1:]), w.dtype)
        terms = self.penalty.terms(whole)[0].full(whole.shape)
        return [jax.tree.map(lambda field: field.at[self.ids].get(mode="clip"), terms)]


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


def in_raw_units(form: StandardForm, penalty: Any, z: Array, b: Array, loss: Array) -> tuple[Array, Array, Array]:
    """Coefficients, intercept and share of deviance explained, of a point and its loss."""
    coef, intercept = form.to_raw(z, b)
    null = form.null_objective
    share = 1 - loss / jnp.where(null > 0, null, 1.0)
    share = jnp.where(jnp.abs(share) <= 8 * eps(share.dtype), 0.0, share)  # at lambda_max
    share = jnp.where(null > 0, share, jnp.where(jnp.isnan(loss), jnp.nan, 0.0))
    return penalty.project(coef), intercept, share  # a change of units may miss a bound by its last digit


def possible(fact: Callable[[Any, Array], Array], penalty: Any, form: StandardForm) -> bool:
    """Whether fact(penalty, zero coefficients) holds; of a traced penalty, whatever it is may."""
    if not concrete(penalty):
        return True
    with jax.ensure_compile_time_eval():
        return bool(fact(penalty, form.start[0]))


def prepared(problem: Problem) -> tuple["StandardForm", Penalty]:
    """The standard form, and the penalty with its leaves in the problem's dtype."""
    penalty = jax.tree.map(lambda a: as_dtype(a, problem.dtype), problem.penalty)
    # Of the penalty it takes only whether it is valid: so that it isn't differentiated where the data are not.
    return standard_form(dataclasses.replace(problem, penalty=jax.lax.stop_gradient(penalty))), penalty


def standard_form(problem: Problem) -> StandardForm:
    """The standard form of a problem's data."""
    if not _on_host(problem.X, problem.sample_weight):
        return _traced(problem)
    with jax.ensure_compile_time_eval():  # the data may be constants of a function that is being traced
        design = _design(problem, prepare_on_host)
    return dataclasses.replace(_rest(problem, design), design=design)


def _on_host(X: Array, sample_weight: Array | None) -> bool:
    """Whether NumPy prepares the design: a large one whose values lie in this process's memory."""
    if X.size < LARGE or not concrete(X, sample_weight):
        return False
    devices = X.devices()
    return len(devices) == 1 and next(iter(devices)).platform == "cpu"


def _design(problem: Problem, prepare: Callable[..., Design]) -> Design:
    one_scale = not isinstance(problem.penalty, Elementwise)
    s = None if problem.sample_weight is None else problem.weights()
    return prepare(problem.X, s, problem.fit_intercept, problem.standardize, one_scale)


@jax.jit
def _traced(problem: Problem) -> StandardForm:
    return form_with(problem, _design(problem, prepare_design))


@jax.jit
def _rest(problem: Problem, design: Design) -> StandardForm:
    """All but the design, of which a jitted function would return a copy."""
    return dataclasses.replace(form_with(problem, design), design=None)  # type: ignore[arg-type]


def form_with(problem: Problem, design: Design) -> StandardForm:
    """The standard form whose design is known."""
    loss, s = problem.loss, problem.weights()
    flags = problem.flags()
    del flags["penalty"]
    outputs = problem.outputs
    y, offset = loss.encode(problem.y), jnp.zeros((s.shape[0], *outputs), problem.dtype)
    given = jnp.zeros_like(offset) if problem.offset is None else problem.offset
    intercept = jnp.zeros(outputs, problem.dtype)
    # The null model's intercept comes off before the offset, while the difference is exact, and again after it; the
    # third pass wins back the digits that a large mean of y cost.
    for part in (given, jnp.zeros_like(given), jnp.zeros_like(given)):
        if problem.fit_intercept:
            more = loss.shift(offset, y, s)
            intercept = intercept + more
            y, offset = loss.absorb(y, offset + more[None])
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
