"""Fits without a penalty on the supports that a path finds, and blends of the two."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax.certificate import refit
from l1jax.penalties import Elementwise
from l1jax.problem import Problem, check_values, numeric, on_device
from l1jax.result import Result
from l1jax.solving import starting_point
from l1jax.standard_form import StandardForm, prepared


def relax(problem: Problem, result: Result, *, gamma: ArrayLike = 0.0) -> Result:
    """gamma * coef + (1 - gamma) * argmin { loss : only the nonzeros of coef move }: the relaxed lasso.

    Args:
      problem: the problem of the result; its penalty plays no part.
      result: a path, with one leading axis of lambdas.
      gamma: 1 leaves the solution as it is, 0 takes the shrinkage from it; a number, or (G,): these are then a new
        leading axis of the answer, before that of the lambdas.

    Both fits and their blend have the same zeros. `objective`, `gap` and `stationarity` are NaN and `converged` False
    unless gamma is 1, as a blend minimises nothing. Where the unpenalised fit has no end (separable classes) it is
    that of at most 50 Newton steps. Raises ValueError for gammas outside [0, 1] and bounded coefficients.

    Source: Meinshausen (2007), "Relaxed lasso", Comput. Stat. Data Anal. 52(1); the blend: Hastie, Tibshirani,
    Tibshirani (2020), "Best subset, forward stepwise or lasso?", Statistical Science 35(4), section 2.

    >>> problem = Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(1.0))
    >>> print([f"{w:.2f}" for w in relax(problem, path(problem, lams=[1.0, 0.5]), gamma=0.5).coef[:, 0]])
    ['0.00', '1.12']
    """
    check_values(problem)
    gammas = check_gamma(gamma, problem)
    if result.gap.ndim != 1:
        raise ValueError(f"result: want a path, with one batch axis; got batch shape {result.gap.shape}")
    form, _ = prepared(problem)

    def start(coef: Array, intercept: Array) -> tuple[Array, Array]:
        return starting_point(problem, form, (coef, intercept))

    free = _unpenalised(form, *jax.vmap(start)(result.coef, result.intercept))
    return _blended(result, *free, gammas)


def check_gamma(gamma: ArrayLike, problem: Problem) -> Array:
    """Blends as an array; refused for bounded coefficients, which an unpenalised fit would not heed."""
    gammas = on_device(numeric(gamma, "gamma"), problem.dtype)
    if gammas is None or gammas.ndim > 1 or 0 in gammas.shape:
        raise ValueError(f"gamma: want a number, or numbers of shape (G,); got {gamma}")
    if concrete(gammas) and not np.all((np.asarray(gammas) >= 0) & (np.asarray(gammas) <= 1)):
        raise ValueError(f"gamma: want numbers from 0 to 1, got {gamma}")
    if isinstance(problem.penalty, Elementwise) and concrete(problem.penalty):
        with jax.ensure_compile_time_eval():  # the penalty may be a constant of a traced function
            coef = jnp.zeros((problem.X.shape[1], *problem.outputs), problem.dtype)
            (terms,) = problem.penalty.terms(coef)
            pinned = (np.asarray(terms.lower) == 0) & (np.asarray(terms.upper) == 0)
            if not np.all(pinned | (np.isinf(terms.lower) & np.isinf(terms.upper))):
                raise ValueError("gamma: relaxed fits know no bounds on coefficients, and the penalty has some")
    return gammas


@dataclasses.dataclass(frozen=True)
class _Support:
    """The part of a penalty that `refit` asks for: which coefficients are free."""

    mask: Array

    def free(self, w: Array) -> Array:
        return self.mask


@jax.jit
def _unpenalised(form: StandardForm, z: Array, b: Array) -> tuple[Array, Array, Array]:
    """Raw coefficients and intercepts, and the share of deviance explained, of the fits on the supports of z (L, p)."""

    def lane(z: Array, b: Array) -> Any:
        z, b, eta = refit(form, _Support(z != 0), z, b, equalities=True)
        null = jnp.where(form.null_objective > 0, form.null_objective, 1.0)
        return *form.to_raw(z, b), 1 - form.loss.value(eta, form.y, form.s) / null

    return jax.lax.map(lambda at: lane(*at), (z, b))


@jax.jit
def _blended(result: Result, coef: Array, intercept: Array, dev_ratio: Array, gammas: Array) -> Result:
    def at(gamma: Array) -> Result:
        def mix(own: Array, free: Array) -> Array:
            return jnp.where(gamma == 1, own, gamma * own + (1 - gamma) * free)

        def unless(own: Array, otherwise: Any) -> Array:
            return jnp.where(gamma == 1, own, otherwise)

        return dataclasses.replace(
            result,
            coef=mix(result.coef, jnp.where(result.coef == 0, 0.0, coef)),
            intercept=mix(result.intercept, intercept),
            dev_ratio=unless(result.dev_ratio, jnp.where(gamma == 0, dev_ratio, jnp.nan)),
            objective=unless(result.objective, jnp.nan),
            gap=unless(result.gap, jnp.nan),
            stationarity=unless(result.stationarity, jnp.nan),
            converged=unless(result.converged, False),
        )

    return jax.vmap(at)(gammas) if gammas.ndim else at(gammas)
