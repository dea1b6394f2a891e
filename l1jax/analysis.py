"""What a path tells: in which order features enter, and which lambda predicts best."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l1jax.paths import path
from l1jax.problem import Problem
from l1jax.result import Result, predict

RESOLUTION = 1e-3  # changes closer than this, relative to lambda, count as one: a gap of 1e-6 tells no finer


class Change(NamedTuple):
    """Feature number `feature` enters the path, or leaves it, at `lam`; `tied` to the change before it or not."""

    lam: float
    feature: int
    enters: bool
    tied: bool


def support_changes(problem: Problem, result: Result, mode: str, most: int = 20) -> list[Change]:
    """Every change of the support along a path, from the largest lambda down.

    Args:
      problem: the problem of the path.
      result: its path, lambdas descending from lambda_max.
      mode: how to solve finer grids, as for `path`.
      most: how many of the changes are told apart where several fall between two lambdas of the path, by solving a
        finer grid between the two; later ones may stay tied.
    """
    lams = np.asarray(result.lams)
    support = np.asarray(result.coef) != 0

    def finer(high: float, low: float) -> tuple[np.ndarray, np.ndarray]:
        # As many lambdas as the path has: the shapes are the same, and so nothing is compiled again.
        inner = path(problem, lams=np.geomspace(high, low, len(lams) + 2)[1:-1], mode=mode)
        return np.asarray(inner.lams), np.asarray(inner.coef) != 0

    changes: list[Change] = []
    for k in range(1, len(lams)):
        resolve = finer if len(changes) < most else None
        changes += _between(lams[k - 1 : k + 1], support[k - 1 : k + 1], resolve)
    return changes


def _between(
    lams: np.ndarray, support: np.ndarray, finer: Callable[[float, float], tuple[np.ndarray, np.ndarray]] | None
) -> Iterator[Change]:
    """The changes between two neighbouring lambdas."""
    high, low = (float(lam) for lam in lams)
    moved = np.flatnonzero(support[0] != support[1])
    if len(moved) <= 1 or finer is None or high <= low * (1 + RESOLUTION):
        for i, feature in enumerate(moved):
            yield Change(low, int(feature), bool(support[1, feature]), i > 0)
        return
    inner_lams, inner_support = finer(high, low)
    lams = np.concatenate([lams[:1], inner_lams, lams[1:]])
    support = np.concatenate([support[:1], inner_support, support[1:]])
    for k in range(1, len(lams)):
        yield from _between(lams[k - 1 : k + 1], support[k - 1 : k + 1], finer)


class Validation(NamedTuple):
    """Mean error on held-out rows and its standard error, (L,) each; the places of lambda.min and lambda.1se."""

    error: np.ndarray
    se: np.ndarray
    best: int
    simplest: int


def fold_ids(y: np.ndarray, folds: int, by_class: bool, seed: int = 0) -> np.ndarray:
    """A fold 0..folds-1 for each row, (n,), of sizes that differ by at most one: dealt out in a random order.

    Args:
      y: the response, (n,).
      folds: how many, at most n.
      by_class: whether the rows are dealt out class by class, so that each fold has its share of each.
      seed: of the permutation.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    if by_class:
        order = order[np.argsort(y[order], kind="stable")]
    ids = np.empty(len(y), dtype=np.int64)
    ids[order] = np.arange(len(y)) % folds
    return ids


def validate(
    problem: Problem, lams: np.ndarray, ids: np.ndarray, mode: str, tol: float | None, done: Callable[[], None]
) -> Validation:
    """Twice the loss (squared error, or deviance) on rows held out, at each lambda, averaged over the folds.

    Args:
      problem: the problem, its rows equally weighted.
      lams: strengths, (L,), descending; the same for all folds.
      ids: each row's fold, (n,).
      mode, tol: as for `path`.
      done: called after each fold.

    A fold's rows get weight 0: all folds have the same shapes, and one compilation serves them all. The standard
    error is sqrt(sum_k W_k*(e_k - mean)^2 / sum W / (K - 1)) with W_k rows in fold k. lambda.min has the least error,
    lambda.1se is the largest with an error within one standard error of that; ties go to the larger lambda.

    Source: Friedman, Hastie, Tibshirani (2010), J. Stat. Software 33(1), and `cv.glmnet` of the R package.
    """
    errors, sizes = [], []
    for fold in range(int(ids.max()) + 1):
        held_out = (ids == fold).astype(np.float64)
        fit = path(dataclasses.replace(problem, sample_weight=1 - held_out), lams=lams, mode=mode, tol=tol)
        errors.append(np.asarray(_errors(problem, fit, jnp.asarray(held_out / held_out.sum()))))
        sizes.append(held_out.sum())
        done()
    e, w = np.array(errors), np.array(sizes)
    mean = np.average(e, axis=0, weights=w)
    se = np.sqrt(np.average((e - mean) ** 2, axis=0, weights=w) / (len(w) - 1))
    best = int(np.argmin(mean))
    simplest = int(np.flatnonzero(mean <= mean[best] + se[best])[0])
    return Validation(mean, se, best, simplest)


@jax.jit
def _errors(problem: Problem, fit: Result, share: jax.Array) -> jax.Array:
    loss, y = problem.loss, problem.loss.encode(problem.y)
    return 2 * jax.vmap(lambda eta: loss.value(eta, y, share))(predict(fit, problem.X))
