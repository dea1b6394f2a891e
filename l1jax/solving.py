"""solve: the choice of an engine, its run, and the result in the units of the data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from l1jax._arrays import as_dtype, concrete
from l1jax.certificate import certify, may_have_equalities
from l1jax.engines import ActiveSet, Engine, by_name, from_transformation
from l1jax.loop import minimise
from l1jax.minimum import Controls, Stop
from l1jax.problem import Problem, check_values, numeric, on_device
from l1jax.result import Result
from l1jax.standard_form import StandardForm, prepared


def solve(
    problem: Problem,
    *,
    solver: Any = "auto",
    tol: float | None = None,
    max_steps: int | None = None,
    init: Result | tuple[ArrayLike, ArrayLike] | None = None,
) -> Result:
    """argmin over coef and intercept of the problem's objective, with a certificate.

    Args:
      problem: the problem. Traced leaves are welcome: `solve` may be jitted, batched and differentiated.
      solver: "auto"; "active" (second-order steps on the support, driven from the host: curved losses that are sums
        over rows, convex penalties that act on each coefficient alone, and `GroupLasso`; the default for these on
        CPUs, outside of tracing); "cd" (coordinate descent on the Gram matrix: squared loss, penalties that act on each
        coefficient alone); "newton" (proximal Newton around it: any smooth loss); "ssn" (semismooth Newton on proximal
        points, all matrix products and Cholesky factorisations: curved losses that are sums over rows, convex
        penalties that act on each coefficient alone; the default for these on GPU and TPU); "fista" (accelerated
        proximal gradient: any smooth loss and any penalty); a function from a penalty of {coef, intercept} to an optax
        transformation; or a plain optax direction such as `optax.scale_by_adam()`, which is wrapped in `proximal`
        with a step size that needs no tuning.
      tol: the relative duality gap at which to stop: (objective - bound)/(objective of the null model). By default
        1e-6 in float64 and 1e-5 in float32.
      max_steps: the limit of Newton steps ("active", at most 500; "ssn"), sweeps ("cd") or iterations (the others).
      init: where to start: an earlier Result, or (coef (p,), intercept ()), in the raw units of X ((p, k) and (k,)
        with k outputs).

    `converged` is exactly `gap <= tol`; for nonconvex penalties, and losses or penalties without a known dual, gap is
    NaN and it is `stationarity <= tol`. Raises ValueError or TypeError for bad values; under `jit` or `vmap` these give
    NaN and `converged=False`.

    Derivatives of coef, intercept and objective, of any order, are those of the exact minimiser in every leaf of the
    problem, by the implicit function theorem on what moves: with H the second derivative there and s the signs,
    d coef/d lam = -H^{-1} s for L1. A coefficient that is 0 with its slope at the threshold stays 0; where solutions
    are not unique (equal columns, ties, more coefficients than rows) the derivative is the least one. Nonconvex
    penalties have the derivative of the stationary point that was found. What counts is the support at `tol`: where
    derivatives matter, let that be small.

    Source of the certificate: Fercoq, Gramfort, Salmon (2015), "Mind the duality gap", ICML, eq. 2.

    >>> print(f"{solve(Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.5))).coef[0]:.3f}")
    0.750
    """
    check_values(problem)
    engine = choose_engine(problem, solver)
    controls = make_controls(problem, engine, tol, max_steps)
    form, penalty = prepared(problem)
    z, b = starting_point(problem, form, init)
    found = minimise(engine, "warm", form, penalty, None, (z[None], b[None]), controls)
    return Result(**found.told, lams=as_dtype(penalty.lam, problem.dtype), names=problem.names)


def choose_engine(problem: Problem, solver: Any) -> Engine | ActiveSet:
    """The engine for a solver's name or transformation.

    "auto" is, on CPUs, active sets where they apply, driven from the host; under tracing coordinate descent or, for
    other losses than the squared one, proximal Newton, where these apply and their Gram matrices are small, as CPUs
    run their scalar loop well. On GPU and TPU, also under tracing, it is semismooth Newton where that applies and its
    factorisations, of min(n, p), are no larger than 8192: all matrix products. What is left is FISTA's. The platform
    is JAX's default backend, as a program that held an engine for each platform would take twice as long to compile.
    """
    if isinstance(solver, optax.GradientTransformation) or callable(solver):
        return from_transformation(solver)
    if solver in ("auto", "active"):
        traced = _choose_traced(problem)
        engine: Engine | ActiveSet = ActiveSet(traced)
        if solver == "auto" and (jax.default_backend() != "cpu" or engine.refuses(problem.loss, problem.penalty)):
            return traced
    elif not isinstance(solver, str) or solver not in by_name:
        names = ", ".join(f'"{name}"' for name in ("auto", "active", *by_name))
        raise ValueError(f"solver: want {names}, or an optax transformation; got {solver!r}")
    else:
        engine = by_name[solver]
    refusal = engine.refuses(problem.loss, problem.penalty)
    if refusal:
        raise ValueError(f"solver: {refusal}")
    return engine


def _choose_traced(problem: Problem) -> Engine:
    n, p = problem.X.shape
    if jax.default_backend() == "cpu":
        fits = {"cd": p <= max(2 * n, 4096), "newton": p <= 1024}
    else:
        fits = {"ssn": min(n, p) <= 8192}
    for name, fit in fits.items():
        if fit and problem.loss.curved and not by_name[name].refuses(problem.loss, problem.penalty):
            return by_name[name]
    return by_name["fista"]


def make_controls(
    problem: Problem, engine: Engine | ActiveSet, tol: Any, max_steps: Any, stop: tuple[Any, Any] | None = None
) -> Controls:
    """Check and convert what says how to run."""
    if tol is None:
        tol = 1e-6 if problem.dtype == jnp.float64 else 1e-5
    if concrete(tol) and not float(tol) >= 0:
        raise ValueError(f"tol: want a number of at least 0, got {tol}")
    if max_steps is None:
        max_steps = engine.max_steps
    if concrete(max_steps) and not (float(max_steps) >= 0 and int(max_steps) == max_steps):
        raise ValueError(f"max_steps: want a whole number of at least 0, got {max_steps}")
    limits = None
    if stop is not None and any(limit is not None for limit in stop):
        limits = Stop(*(jnp.asarray(jnp.inf if limit is None else limit, problem.dtype) for limit in stop))
    return Controls(_number(tol, problem.dtype), _number(max_steps, jnp.int32), limits)


def _number(x: Any, dtype: DTypeLike) -> Any:
    """As an array; NumPy's, which takes no operation, where it is not JAX's already."""
    return as_dtype(x, dtype) if isinstance(x, jax.Array) else np.asarray(x, dtype)


def starting_point(problem: Problem, form: StandardForm, init: Any) -> tuple[Any, Any]:
    """(z, b) at `init`; zero by default."""
    if init is None:  # NumPy's, which take no operation
        shape = problem.outputs
        return np.zeros((problem.X.shape[1], *shape), problem.dtype), np.zeros(shape, problem.dtype)
    given = (init.coef, init.intercept) if isinstance(init, Result) else init
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"init: want a Result or (coef, intercept), got {type(init).__name__}")
    coef, intercept = (on_device(numeric(a, "init"), problem.dtype) for a in given)
    shapes = [a.shape for a in form.start]
    if coef is None or intercept is None or [coef.shape, intercept.shape] != shapes:
        raise ValueError(f"init: want coef and intercept of shapes {shapes}, got {coef} and {intercept}")
    if concrete(coef, intercept) and not (np.all(np.isfinite(coef)) and np.all(np.isfinite(intercept))):
        raise ValueError("init: NaN or infinite values")
    z, b = form.from_raw(coef, intercept)
    return jax.lax.stop_gradient((z, b if problem.fit_intercept else b * 0))


def duality_gap(problem: Problem, coef: ArrayLike, intercept: ArrayLike | None = None) -> Array:
    """(objective at (coef, intercept) - a lower bound of the minimum) / (objective of the null model).

    Args:
      problem: the problem.
      coef: the coefficients, (p,), in the raw units of X, from whatever solver.
      intercept: the intercept, a scalar; by default the best one at `coef` (0 without an intercept).

    A certificate: (objective - minimum)/(objective of the null model) is at most this. The bound is that of the point
    with its unpenalised directions fitted anew. Infinite where no finite bound is known (unpenalised coefficients of
    separable classes; coefficients outside their bounds), NaN where loss or penalty have no known dual. Scalar; may be
    jitted and batched.

    Source: Fercoq, Gramfort, Salmon (2015), "Mind the duality gap: safer rules for the lasso", ICML, eq. 2.

    >>> problem = Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(0.5))
    >>> print(f"{duality_gap(problem, [0.75]):.3f} {duality_gap(problem, [0.5]):.3f}")
    0.000 0.029
    """
    check_values(problem)
    form, penalty = prepared(problem)
    given = form.start[1] if intercept is None else intercept
    z, b = starting_point(problem, form, (coef, given))
    equalities = may_have_equalities(penalty, form)
    return _gap_at(equalities, intercept is None, form, penalty, z, b)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gap_at(equalities: bool, fit_intercept: bool, form: StandardForm, penalty: Any, z: Array, b: Array) -> Array:
    posed = form.units(penalty)
    certificate = certify(form, posed, z, b, equalities)
    eta = form.eta(z, b)
    if fit_intercept and form.intercept:
        eta = eta + form.loss.shift(eta, form.y, form.s)[None]
    here = form.loss.value(eta, form.y, form.s) + posed.value(z)
    more = (here - certificate.objective) / jnp.where(form.null_objective > 0, form.null_objective, 1.0)
    answer = form.fit & penalty.valid(z)
    gap = jnp.where(jnp.isinf(certificate.objective), jnp.inf, certificate.gap + jnp.maximum(more, 0.0))
    return jnp.where(answer, gap, jnp.nan)
