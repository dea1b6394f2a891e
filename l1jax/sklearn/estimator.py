"""What the estimators share: data in, padded; coefficients out."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from l1jax import penalties
from l1jax.folds import Folds
from l1jax.grid import lambda_grid
from l1jax.losses import Loss
from l1jax.problem import Problem
from l1jax.result import Result

try:
    from scipy.sparse import csr_array
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError('l1jax.sklearn needs scikit-learn: pip install "l1jax[sklearn]"') from error

DTYPES = [np.float64, np.float32]
ROWS, COLUMNS = 512, 16  # what data are padded to, at least


class Linear(BaseEstimator):
    """What all of them share: data in, coefficients out."""

    @staticmethod
    def _rows(X: Any, sample_weight: Any) -> np.ndarray:
        return np.asarray(_check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True))

    def _eta(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        return np.asarray(X @ self.coef_.T + self.intercept_)

    @staticmethod
    def _warn(result: Result) -> None:
        gap, done = np.asarray(result.gap), np.asarray(result.converged)
        if not np.all(done):
            worst = np.max(gap[~done] if done.ndim else gap)
            warnings.warn(f"the relative duality gap is {worst:.1e}: raise max_iter or tol", ConvergenceWarning, 3)

    @property
    def sparse_coef_(self) -> Any:
        """The coefficients as a sparse array."""
        return csr_array(np.atleast_2d(self.coef_))


def padded_problem(
    X: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    loss: Loss,
    penalty: Callable[[int], penalties.Penalty],
    intercept: bool,
) -> Problem:
    """The problem, of rows and columns padded to round sizes; `penalty` of the number of columns."""
    n, p = rounded(len(X), ROWS), rounded(X.shape[1], COLUMNS)
    rows = n - len(X)
    padded = np.pad(X, ((0, rows), (0, p - X.shape[1])))
    y = np.pad(y, ((0, rows),) + ((0, 0),) * (y.ndim - 1)).astype(X.dtype)
    weights = np.pad(weights, (0, rows))
    return Problem(padded, y, loss=loss, penalty=penalty(p), sample_weight=weights, fit_intercept=intercept)


def rounded(m: int, least: int) -> int:
    """A size of few kinds: at least `least`, powers of two, and above 1024 multiples of an eighth of one."""
    power = 1 << (m - 1).bit_length()
    step = power if m <= 1024 else power // 16
    return max(least, -(-m // step) * step)


def net(alpha: float, l1_ratio: float, positive: bool) -> Callable[[int], penalties.Penalty]:
    """One structure for lasso and elastic net, positive or not: one program for all."""
    low = 0.0 if positive else -np.inf
    return lambda p: penalties.Bounds(penalties.ElasticNet(float(alpha), float(l1_ratio)), low, np.inf)


def rowwise(alpha: float) -> Callable[[int], penalties.Penalty]:
    """Features that vanish from all targets together."""
    return lambda p: penalties.GroupLasso(float(alpha), range(p), weights=np.ones(p))


def null_objective(y: np.ndarray, weights: np.ndarray, fit_intercept: bool) -> float:
    """The objective without coefficients, of which gaps are shares."""
    center = np.average(y, axis=0, weights=weights) if fit_intercept else 0.0
    return float(np.sum(np.average((y - center) ** 2, axis=0, weights=weights)) / 2)


def in_dtype_of(X: np.ndarray) -> Any:
    """JAX as it must be to compute in the dtype of X."""
    return jax.enable_x64(X.dtype == np.float64)


def checked_alpha(alpha: Any) -> float:
    """A strength that has an answer."""
    if not np.ndim(alpha) == 0 or not np.isfinite(alpha) or alpha < 0:
        raise ValueError(f"alpha: want a finite number of at least 0, got {alpha!r}")
    return float(alpha)


def grid_of(problem: Problem, alphas: Any, eps: float) -> np.ndarray:
    """Strengths in descending order: those given, or so many down to eps times the one at which all is zero."""
    if np.ndim(alphas):
        return np.sort(np.asarray([checked_alpha(alpha) for alpha in alphas]))[::-1]
    try:
        return np.asarray(lambda_grid(problem, num=alphas, ratio=eps), np.float64)
    except ValueError as error:
        if "lambda_max is 0" not in str(error):
            raise
        return np.full(alphas, np.finfo(problem.dtype).resolution)  # a constant y: as scikit-learn does


def splits_of(cv: Any, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Folds:
    """A splitter's folds, of the padded rows; those without rows of any weight are left out."""
    folds = Folds.from_splits(cv.split(X, y), len(X))
    some = [np.any(weights[rows] > 0) and np.any(weights[held] > 0)
            for rows, held in zip(folds.train, folds.test, strict=True)]  # fmt: skip
    rows = ((0, 0), (0, rounded(len(X), ROWS) - len(X)))
    return Folds(np.pad(folds.train[some], rows), np.pad(folds.test[some], rows))
