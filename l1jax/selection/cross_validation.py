"""cross_validate: each strength judged by rows that its fit has not seen."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import along, concrete
from l1jax._node import node, static
from l1jax.folds import Folds, as_folds, weights_of
from l1jax.grid import lambda_grid
from l1jax.paths import path
from l1jax.penalties import with_ratio
from l1jax.problem import Problem, check_values
from l1jax.progress import progress_bar
from l1jax.result import Result, predict
from l1jax.selection.relaxation import check_gamma, relax
from l1jax.selection.scores import GREATER, check_score, scores_of
from l1jax.sweeping import sweep
from l1jax.sweeping.axes import check_ratios


@node
class CrossValidation:
    """What `cross_validate` finds: the score of every fold at every strength, and the fits to all rows.

    scores: (K, ..., L), with axes of l1_ratios and gammas, where asked for, in the place of the dots. mean, se: their
    average over the folds, weighted by `weights` (K,), the sums of the scored rows' weights, and its standard error
    sqrt(sum_k W_k*(e_k - mean)^2 / sum_k W_k / (K - 1)), K those that have weight; of several rounds, the mean over the
    rounds of both.
    path: the fits to all rows, a Result of shape (..., L), as are lams. eta: (..., L, n), linear predictors of each row
    by fits that have not seen it (the mean over rounds; NaN for rows that are never held out). l1_ratios, gammas: as
    given, or None. score: its name.

    index_min is the place of the best mean score along (..., L), index_1se that of the largest lambda, with the same
    l1_ratio and gamma, whose mean is within one standard error of it; ties go to the larger lambda. lam_min, lam_1se:
    the strengths there; at_min, at_1se: the fits to all rows there.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), and its `cv.glmnet`.

    >>> cv = cross_validate(Problem([[1.0], [2.0], [3.0], [5.0]], [1.0, 2.1, 3.0, 5.2], penalty=L1(1.0)), folds=2)
    >>> print(cv.score, cv.scores.shape, cv.at_1se.df)
    deviance (2, 100) 1
    """

    scores: Array
    weights: Array
    mean: Array
    se: Array
    path: Result
    eta: Array
    l1_ratios: Array | None
    gammas: Array | None
    score: str = static()

    @property
    def lams(self) -> Array:
        return self.path.lams

    @property
    def index_min(self) -> tuple[Array, ...]:
        cost = self._cost
        best = jnp.argmax(jnp.where(cost <= jnp.min(cost), self.lams, -jnp.inf))
        return jnp.unravel_index(best, self.mean.shape)

    @property
    def index_1se(self) -> tuple[Array, ...]:
        *others, at = self.index_min
        row = tuple(others)
        cost = self._cost[row]
        se = self.se[row][at]
        within = cost <= cost[at] + jnp.where(jnp.isfinite(se), se, 0.0)  # one fold has no standard error
        return *row, jnp.argmax(jnp.where(within, self.lams[row], -jnp.inf))

    @property
    def lam_min(self) -> Array:
        return self.lams[self.index_min]

    @property
    def lam_1se(self) -> Array:
        return self.lams[self.index_1se]

    @property
    def at_min(self) -> Result:
        return self._at(self.index_min)

    @property
    def at_1se(self) -> Result:
        return self._at(self.index_1se)

    def _at(self, index: tuple[Array, ...]) -> Result:
        return jax.tree.map(lambda a: a[index], self.path)

    @property
    def _cost(self) -> Array:
        cost = -self.mean if self.score in GREATER else self.mean
        return jnp.where(jnp.isnan(cost), jnp.inf, cost)

    def __repr__(self) -> str:
        if not isinstance(self.mean, np.ndarray | jax.Array) or not concrete(self.mean):
            return f"CrossValidation(score={self.score!r}, mean={self.mean})"
        folds, *others = self.scores.shape
        lines = [f"Cross-validation: {self.score} of {folds} folds at {' x '.join(map(str, others))} strengths"]
        for label, index in (("lam_min", self.index_min), ("lam_1se", self.index_1se)):
            at = self._at(index)
            shape = "".join(
                f", {name} {float(values[i]):.4g}"
                for name, values, i in zip(
                    [n for n in ("l1_ratio", "gamma") if getattr(self, n + "s") is not None],
                    [a for a in (self.l1_ratios, self.gammas) if a is not None],
                    index[:-1],
                    strict=True,
                )
            )
            found = f"{float(self.mean[index]):.5g} (SE {float(self.se[index]):.2g})"
            lines.append(f"  {label} {float(at.lams):.4g}{shape}: {found}, {int(at.df)} nonzero")
        return "\n".join(lines)


def cross_validate(
    problem: Problem,
    *,
    folds: int | ArrayLike | Folds = 10,
    key: Array | None = None,
    score: str = "deviance",
    lams: ArrayLike | None = None,
    num: int = 100,
    ratio: float | None = None,
    l1_ratios: ArrayLike | None = None,
    gammas: ArrayLike | None = None,
    mode: str = "auto",
    solver: Any = "auto",
    tol: float | None = None,
    max_steps: int | None = None,
    progress: bool = False,
) -> CrossValidation:
    """(1/sum_k W_k) * sum_k W_k * score of fold k's rows by the path of all others, at every strength.

    Args:
      problem: the problem; its weights count in fits, in scores and in the W_k.
      folds: a number K; ids, (n,), one fold for each value; or `Folds` (groups, strata, time, rounds). With a number
        row i is in fold i mod K.
      key: a JAX random key: a number of folds is then dealt out in random order.
      score: "deviance", 2*(loss - saturated): squared errors for the squared loss; "mse" and "mae", of the predicted
        mean, outputs summed; for classes "accuracy", and for two "auc".
      lams: the strengths, (L,), for all folds and all rows; by default the grid of all rows,
        `lambda_grid(problem, num=num, ratio=ratio)`, one for each l1_ratio.
      num, ratio: as for `lambda_grid`.
      l1_ratios: ratios to try, (A,), of a penalty that has one.
      gammas: blends to try, (G,), of each fit with the unpenalised one on its support: the relaxed lasso (`relax`).
      mode, solver, tol, max_steps: as for `path`.
      progress: whether to show a progress bar (tqdm).

    Everything is fitted anew on each fold's rows: intercept, means, scales, unpenalised coefficients. Rows held out
    have weight 0, so that all fits have one shape. `cross_validate` may be jitted, batched and differentiated, with
    respect to strengths, data and weights; folds are then ids or `Folds`, or dealt in order.

    Raises ValueError for bad values, for folds without an answer (one class only), and for `progress` under tracing.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), section 5.

    >>> data = datasets.diabetes()
    >>> cv = cross_validate(Problem(data.X, data.y, penalty=L1(1.0)), folds=5, num=20, ratio=0.01)
    >>> print(f"{cv.lam_min:.2f} {cv.lam_1se:.2f}", cv.at_1se.df)
    0.03 0.39 4
    """
    check_values(problem)
    check_score(score, problem.loss)
    given = as_folds(folds, problem.X.shape[0], key)
    weight = jnp.ones(problem.X.shape[:1], problem.dtype) if problem.sample_weight is None else problem.sample_weight
    whole = dataclasses.replace(problem, sample_weight=weight)
    ratios = None if l1_ratios is None else check_ratios(l1_ratios, problem)
    blends = None if gammas is None else jnp.atleast_1d(check_gamma(gammas, problem))
    host = concrete(problem, given, lams, ratios, blends, tol)
    together = host and blends is None and mode == "auto"
    if progress and not host:
        raise ValueError("progress: folds can't be counted under jit, vmap or grad; pass False")
    for k in range(len(given) * host):
        try:
            check_values(dataclasses.replace(whole, sample_weight=weights_of(given.train[k], weight)))
        except ValueError as error:
            raise ValueError(f"fold {k}: {error}") from error

    how: dict[str, Any] = {"solver": solver, "tol": tol, "max_steps": max_steps}

    def fit(problem: Problem, grid: Any) -> Result:
        found = path(problem, lams=grid, mode=mode, **how)
        return found if blends is None else relax(problem, found, gamma=blends)

    def of_shape(shape: Any) -> tuple[Result, Array, Array]:
        """The fits to all rows, (..., L), scores (K, ..., L) and the sum of held-out predictors (..., L, n)."""
        posed = whole if shape is None else dataclasses.replace(whole, penalty=with_ratio(problem.penalty, shape))
        grid = lambda_grid(posed, num=num, ratio=ratio) if lams is None else lams
        result = fit(posed, grid)
        every = sweep(posed, folds=given, lams=grid, progress=progress, **how) if together else None

        def fold(total: Array, rows: tuple[Array, Array, Any]) -> tuple[Array, Array]:
            train, test = (weights_of(part, weight) for part in rows[:2])
            found = fit(dataclasses.replace(posed, sample_weight=train), grid) if rows[2] is None else rows[2]
            eta, scores = _scored(score, posed, found, test)
            return total + jnp.where(_rowwise(jnp.asarray(rows[1]), eta, problem), eta, 0.0), scores

        nothing = jnp.zeros((*result.gap.shape, problem.X.shape[0], *problem.outputs), problem.dtype)
        return result, *_each_fold(fold, nothing, given, every, host, advance)

    count = len(given) * (1 if ratios is None else len(ratios))
    with progress_bar(progress and not together, count, "fold", "cross-validation") as advance:
        result, total, scores = of_shape(None) if ratios is None else _over(of_shape, ratios, host)
    if ratios is not None:
        scores = jnp.moveaxis(scores, 0, 1)  # folds stand before ratios
    test = jnp.asarray(given.test)
    weights = jnp.sum(jnp.where(test, weight[None], 0.0), axis=1)
    mean, se = _summary(scores, weights, given.repeats)
    if host and not np.any(np.isfinite(np.asarray(mean))):
        raise ValueError(f"score: {score} is NaN at every strength; does each fold hold rows of both classes?")
    counts = _rowwise(jnp.sum(test, axis=0, dtype=problem.dtype), total, problem)
    return CrossValidation(scores, weights, mean, se, result, total / counts, ratios, blends, score)


def _rowwise(rows: Array, eta: Array, problem: Problem) -> Array:
    """Numbers of rows, (n,), against linear predictors (..., n[, k])."""
    ends = len(problem.outputs)
    return rows.reshape((1,) * (eta.ndim - 1 - ends) + rows.shape + (1,) * ends)


@functools.partial(jax.jit, static_argnums=0)
def _scored(score: str, problem: Problem, found: Result, test: Array) -> tuple[Array, Array]:
    """Linear predictors of all rows, (..., L, n), and the score of those of weight `test` (n,)."""
    eta = predict(found, problem.X, offset=problem.offset)
    share = test / jnp.sum(test)
    return eta, scores_of(score, problem.loss, eta, problem.loss.encode(problem.y), share)


@functools.partial(jax.jit, static_argnums=2)
def _summary(scores: Array, weights: Array, repeats: int) -> tuple[Array, Array]:
    """The mean score and its standard error, (..., L): over the folds of each round, then over the rounds."""
    scores = scores.reshape(repeats, -1, *scores.shape[1:])
    w = along(weights.reshape(repeats, -1), scores)
    scores = jnp.where(w > 0, scores, 0.0)  # a fold without weight has none
    total = jnp.sum(w, axis=1)
    mean = jnp.sum(w * scores, axis=1) / total
    others = jnp.sum(w > 0, axis=1, dtype=w.dtype) - 1
    variance = jnp.sum(w * (scores - mean[:, None]) ** 2, axis=1) / total / others
    return jnp.mean(mean, axis=0), jnp.mean(jnp.sqrt(variance), axis=0)


def _each_fold(
    fold: Callable[..., tuple[Array, Array]],
    total: Array,
    folds: Folds,
    fits: Result | None,
    host: bool,
    advance: Callable[..., None],
) -> tuple[Array, Array]:
    """total and scores (K, ..., L): fold after fold, driven from the host where values can be seen."""
    rows = (jnp.asarray(folds.train), jnp.asarray(folds.test), fits)
    if not host:
        return jax.lax.scan(fold, total, rows)
    scores = []
    for k in range(len(folds)):
        total, of_fold = fold(total, jax.tree.map(lambda a, k=k: a[k], rows))
        scores.append(of_fold)
        advance(1)
    return total, jnp.stack(scores)


def _over(each: Callable[[Array], Any], values: Array, host: bool) -> Any:
    """each(value), stacked; one program for all where they are traced."""
    if not host:
        return jax.lax.map(each, values)
    return jax.tree.map(lambda *parts: jnp.stack(parts), *(each(value) for value in values))
