"""Information criteria: how well a fit describes its own rows, and what its degrees of freedom cost."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from l1jax._arrays import along, concrete
from l1jax._node import node
from l1jax.losses import Loss, MultiSquared, Squared
from l1jax.penalties import Elementwise
from l1jax.problem import Problem, check_values
from l1jax.result import Result, predict
from l1jax.standard_form import StandardForm, possible, prepared

NAMES = ("aic", "aicc", "bic", "ebic", "gcv")


@node
class Criteria:
    """What `information_criteria` finds, an entry for each solution: the smaller the better.

    deviance: -2*log(likelihood), up to a constant of the data. df: `degrees_of_freedom`. aic = deviance + 2*d, with d
    = df + intercepts + 1 if the variance is estimated; aicc = aic + 2*d*(d + 1)/(N - d - 1); bic = deviance +
    log(N)*d; ebic = bic + 2*gamma*log(binomial(p, df)); gcv = mean deviance/(1 - (df + intercepts)/N)^2. Infinite
    where a denominator is not positive. N: the number of rows. lams: the strengths.

    Source: Akaike (1974), IEEE Trans. Autom. Control 19; Hurvich and Tsai (1989), Biometrika 76; Schwarz (1978), Ann.
    Statist. 6; Chen and Chen (2008), Biometrika 95(3); Golub, Heath, Wahba (1979), Technometrics 21(2).

    >>> problem = Problem([[1.0], [2.0], [3.0], [4.0]], [1.0, 2.0, 4.0, 3.0], penalty=L1(1.0))
    >>> information_criteria(problem, path(problem, lams=[1.0, 0.1])).df
    Array([0., 1.], dtype=float32)
    """

    deviance: Array
    df: Array
    aic: Array
    aicc: Array
    bic: Array
    ebic: Array
    gcv: Array
    N: Array
    lams: Array

    def best(self, name: str) -> Array:
        """The place of the least value of a path's criterion, "bic" say; of the largest lambda among equals."""
        if name not in NAMES:
            raise ValueError(f"name: want {', '.join(map(repr, NAMES))}; got {name!r}")
        values = getattr(self, name)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        return jnp.argmax(jnp.where(values <= jnp.min(values), self.lams, -jnp.inf))

    def __repr__(self) -> str:
        if not concrete(self.deviance) or np.ndim(self.deviance) != 1:
            return f"Criteria(df={self.df}, aic={self.aic}, bic={self.bic})"
        lines = [f"Criteria of {len(self.df)} solutions to {float(self.N):g} rows"]
        for name in NAMES:
            k = int(self.best(name))
            value, df = float(getattr(self, name)[k]), float(self.df[k])
            lines.append(f"  {name:4} least at lambda {float(self.lams[k]):.4g}: {value:.5g}, df {df:.4g}")
        return "\n".join(lines)


def information_criteria(
    problem: Problem,
    result: Result,
    *,
    dispersion: ArrayLike | None = None,
    weights: str = "importance",
    gamma: float = 1.0,
) -> Criteria:
    """-2*log(likelihood) + price * degrees of freedom, for each solution of a path.

    Args:
      problem: the problem of the result.
      result: a path, any batch, or one solution.
      dispersion: the variance of the errors, for the squared loss; None estimates it by maximum likelihood, in each
        solution. For other losses what twice the loss is to be divided by, None for 1 (Gamma's dispersion, say).
      weights: what sample weights mean. "importance": the rows are as many as have a positive weight, and weights
        matter by their ratios only. "frequency": a row of weight 3 stands for three, and the rows are sum(weights).
      gamma: EBIC's price of there being many features, from 0 (BIC) to 1.

    For the squared loss deviance = N*log(2*pi*variance) + sum of squares/variance, where that with an estimated
    variance is N*(log(2*pi*mean of squares) + 1); k responses count as N*k rows of one variance. For other losses it
    is 2*N*loss/dispersion. Raises ValueError for other words, and for a dispersion that is not above 0.

    Source: Zou, Hastie, Tibshirani (2007), "On the degrees of freedom of the lasso", Ann. Statist. 35(5), section 4.

    >>> data = datasets.diabetes()
    >>> problem = Problem(data.X, data.y, penalty=L1(1.0))
    >>> criteria = information_criteria(problem, path(problem, num=30))
    >>> print(criteria.df[criteria.best("bic")])
    7.0
    """
    check_values(problem)
    if weights not in ("importance", "frequency"):
        raise ValueError(f'weights: want "importance" or "frequency", got {weights!r}')
    if dispersion is not None and concrete(dispersion) and not np.all(np.asarray(dispersion) > 0):
        raise ValueError(f"dispersion: want a number above 0, got {dispersion}")
    df = degrees_of_freedom(problem, result)
    given = None if dispersion is None else jnp.asarray(dispersion, problem.dtype)
    return _criteria(weights == "frequency", problem, result, df, given, jnp.asarray(gamma, problem.dtype))


@functools.partial(jax.jit, static_argnums=0)
def _criteria(
    frequency: bool, problem: Problem, result: Result, df: Array, dispersion: Array | None, gamma: Array
) -> Criteria:
    loss, s, outputs = problem.loss, problem.weights(), problem.outputs
    y = loss.encode(problem.y)
    eta = predict(result, problem.X, offset=problem.offset)
    rows = eta.reshape(-1, *eta.shape[eta.ndim - 1 - len(outputs) :])
    mean = 2 * jax.vmap(lambda eta: loss.value(eta, y, s))(rows).reshape(result.gap.shape)
    N = jnp.sum(s > 0, dtype=problem.dtype)
    if frequency and problem.sample_weight is not None:
        N = jnp.sum(problem.sample_weight)
    several = int(np.prod(outputs, initial=1)) if isinstance(loss, MultiSquared) else 1
    count, mean = N * several, mean / several
    d = df + problem.fit_intercept * int(np.prod(outputs, initial=1))
    gcv = _over(mean, jnp.maximum(1 - d / count, 0.0) ** 2)
    if isinstance(loss, Squared | MultiSquared):
        d = d + float(dispersion is None)
        variance = mean if dispersion is None else dispersion
        deviance = count * (jnp.log(2 * jnp.pi * variance) + mean / variance)
    else:
        deviance = count * mean / (1.0 if dispersion is None else dispersion)
    aic = deviance + 2 * d
    bic = deviance + jnp.log(count) * d
    p = result.coef[(0,) * result.gap.ndim].size
    choices = gammaln(p + 1.0) - gammaln(df + 1) - gammaln(p - df + 1)
    aicc = aic + _over(2 * d * (d + 1), count - d - 1)
    return Criteria(deviance, df, aic, aicc, bic, bic + 2 * gamma * choices, gcv, N, result.lams)


def _over(a: Array, b: Array) -> Array:
    """a/b where b > 0, else infinite."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), jnp.where(jnp.isnan(b), jnp.nan, jnp.inf))


def degrees_of_freedom(problem: Problem, result: Result) -> Array:
    """trace of d(fit)/d(response): for L1 the number of nonzero coefficients. The intercept is not counted.

    Args:
      problem: the problem of the result.
      result: a path, any batch, or one solution, solved closely.

    Penalties with curvature count for less, by the trace of H (H + P)^-1, with H the loss's second derivative in the
    coefficients that move and P the penalty's: the elastic net's and ridge's formula, and for the group lasso the
    trace that for orthonormal columns is sum_g [1 + (p_g - 1)*|coef_g|/|least squares_g|] over the nonzero groups.
    It costs a system of the nonzero coefficients (for penalties that tie coefficients together, of all) for each
    solution. Coefficients at a bound do not count. For losses other than the squared one it is that of the fit's
    quadratic model.

    Source: Zou, Hastie, Tibshirani (2007), "On the degrees of freedom of the lasso", Ann. Statist. 35(5), theorem 1;
    Yuan and Lin (2006), "Model selection and estimation in regression with grouped variables", JRSS B 68(1), section
    5; Vaiter, Deledalle, Peyré, Fadili, Dossal (2012), "The degrees of freedom of the group lasso", ICML workshop.

    >>> problem = Problem([[1.0, 0.0], [2.0, 1.0], [4.0, 5.0]], [1.0, 2.0, 4.0], penalty=L1(0.1))
    >>> print(degrees_of_freedom(problem, solve(problem)))
    1.0
    """
    check_values(problem)
    form, penalty = prepared(problem)
    batch = result.gap.shape
    if result.lams.shape != batch:
        raise ValueError(
            f"result: want one strength a solution, got lams of shape {result.lams.shape}; "
            "give each coefficient its own with Factors(L1(lam), factors)"
        )
    flat = [a.reshape(-1, *a.shape[len(batch) :]) for a in (result.coef, result.intercept)]
    lams = result.lams.reshape(-1)
    alone = isinstance(penalty, Elementwise)
    size = flat[0][0].size
    if alone:
        moving = _moving(form, penalty, lams, *flat)
        if not possible(_bends, penalty, form):
            return moving.reshape(batch)
        if concrete(moving):  # a power of two, so that few programs are compiled
            size = min(size, 1 << max(3, int(np.max(np.nan_to_num(moving), initial=1)).bit_length()))
    return _traces(alone, size, form, penalty, lams, *flat).reshape(batch)


@jax.jit
def _bends(penalty: Any, zero: Array) -> Array:
    unit = penalty.with_lam(1.0)
    return jnp.any(jax.jvp(unit.slope, (zero,), (jnp.ones_like(zero),))[1] > 0)


def _moves(form: StandardForm, penalty: Any, z: Array) -> tuple[Array, Array]:
    """Which coefficients follow the data, and the penalty's second derivative there."""
    bend = jax.jvp(penalty.slope, (z,), (jnp.ones_like(z),))[1]
    return penalty.smooth(z) & (along(form.design.norm > 0, z) | (bend > 0)), bend


@jax.jit
def _moving(form: StandardForm, penalty: Any, lams: Array, coef: Array, intercept: Array) -> Array:
    def lane(lam: Array, coef: Array, intercept: Array) -> Array:
        z, _ = form.from_raw(coef, intercept)
        count = jnp.sum(_moves(form, form.units(penalty.with_lam(lam)), z)[0], dtype=z.dtype)
        return jnp.where(jnp.any(jnp.isnan(coef)), jnp.nan, count)

    return jax.vmap(lane)(lams, coef, intercept)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _traces(
    alone: bool, size: int, form: StandardForm, penalty: Any, lams: Array, coef: Array, intercept: Array
) -> Array:
    """With J the proximal map's derivative at a solution, and H the loss's second: trace of (I - J + J H)^-1 J H."""
    loss = form.loss

    def lane(at: tuple[Array, Array, Array]) -> Array:
        lam, coef, intercept = at
        posed = form.units(penalty.with_lam(lam))
        z, b = form.from_raw(coef, intercept)
        eta = form.eta(z, b)
        ends = b.size * form.intercept
        if alone:
            moves, bend = (a.ravel() for a in _moves(form, posed, z))
            ids = jnp.argsort(~moves, stable=True)[:size]
            J = jnp.diag(jnp.where(moves, 1 / (1 + bend), 0.0)[ids])
        else:
            ids = jnp.arange(z.size)
            v = z - form.design.tdot(loss.gradient(eta, form.y, form.s))
            _, spread = jax.linearize(lambda v: posed.prox(v, 1.0), v)
            J = jax.vmap(lambda d: spread(d.reshape(z.shape)).ravel())(jnp.eye(z.size, dtype=z.dtype))

        def bent(dz: Array, db: Array) -> Array:
            deta = form.design.dot(dz.reshape(z.shape)) + db.reshape(b.shape)[None]
            pull = loss.bent(deta, eta, form.y, form.s)
            return jnp.concatenate([form.design.tdot(pull).ravel()[ids], jnp.sum(pull, axis=0).ravel()[:ends]])

        units = jnp.eye(z.size, dtype=z.dtype)[ids]
        H = jax.vmap(bent)(units, jnp.zeros((size, b.size), z.dtype))
        if ends:  # intercepts are coefficients without a penalty, not to be counted
            own = jnp.eye(ends, dtype=z.dtype)
            H = jnp.concatenate([H, jax.vmap(bent)(jnp.zeros((ends, z.size), z.dtype), own)])
            J = jax.scipy.linalg.block_diag(J, own)
            if type(loss).centred is not Loss.centred:  # adding a constant to all of them changes nothing
                H = H.at[size:, size:].add(1 / ends)
        system = jnp.eye(size + ends, dtype=z.dtype) - J + J @ H
        return jnp.trace(jnp.linalg.solve(system, J @ H)) - ends

    return jax.lax.map(lane, (lams, coef, intercept))
