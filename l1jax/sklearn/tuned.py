"""Lasso and elastic net, their strengths chosen by cross-validation."""

from typing import Any, Self

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils.validation import column_or_1d, validate_data

from l1jax.losses import Squared
from l1jax.selection import cross_validate
from l1jax.sklearn.estimator import DTYPES, grid_of, in_dtype_of, net, null_objective, padded_problem, splits_of
from l1jax.sklearn.regression import ElasticNet, Lasso


class ElasticNetCV(ElasticNet):
    """`ElasticNet` at the alpha, and the l1_ratio, of the least mean squared error on held-out rows.

    Args:
      l1_ratio: one, or several to choose from.
      eps: the smallest alpha over the largest, where `alphas` is a number.
      alphas: how many, or which.
      cv: a number of folds (5 by default), pairs of row numbers, or a splitter of scikit-learn's.
      fit_intercept, max_iter, tol, positive: as for `ElasticNet`.
      precompute, copy_X, verbose, n_jobs, random_state, selection: without effect, for scikit-learn's sake.

    Attributes: alpha_, l1_ratio_, alphas_ (L,) or (A, L), mse_path_ (L, K) or (A, L, K), and those of `ElasticNet`.
    As in scikit-learn the mean over folds is not weighted, and folds are consecutive unless `cv` says otherwise.

    >>> from l1jax.sklearn import ElasticNetCV
    >>> data = datasets.diabetes()
    >>> ElasticNetCV(l1_ratio=[0.5, 1.0], alphas=10).fit(data.X, data.y).mse_path_.shape
    (2, 10, 5)
    """

    def __init__(
        self,
        *,
        l1_ratio: Any = 0.5,
        eps: float = 1e-3,
        alphas: Any = 100,
        fit_intercept: bool = True,
        precompute: Any = "auto",
        max_iter: int | None = None,
        tol: float | None = None,
        cv: Any = None,
        copy_X: bool = True,
        verbose: Any = 0,
        n_jobs: Any = None,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.l1_ratio = l1_ratio
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.max_iter = max_iter
        self.tol = tol
        self.cv = cv
        self.copy_X = copy_X
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose by cross-validation, and fit to all rows X (n, p), y (n,)."""
        X, y = validate_data(self, X, y, dtype=DTYPES, y_numeric=True)
        y = column_or_1d(y, warn=True).astype(X.dtype)
        weights = self._rows(X, sample_weight)
        ratios = np.atleast_1d(getattr(self, "l1_ratio", 1.0))
        folds = splits_of(check_cv(self.cv), X, y, weights)
        grids, scores, fits = [], [], []
        with in_dtype_of(X):
            for ratio in ratios:
                problem = padded_problem(X, y, weights, Squared(), net(1.0, ratio, self.positive), self.fit_intercept)
                grids.append(grid_of(problem, self.alphas, self.eps))
                found = cross_validate(problem, folds=folds, score="mse", lams=grids[-1], tol=self.tol,
                                       max_steps=self.max_iter)  # fmt: skip
                scores.append(np.asarray(found.scores).T)
                fits.append(found.path)
            errors = np.mean(scores, axis=2)
            a, k = np.unravel_index(np.argmin(errors), errors.shape)
            fit = fits[a][int(k)]
            self._warn(fit)
        self.alpha_, self.mse_path_ = float(grids[a][k]), np.squeeze(np.stack(scores))
        self.alphas_ = np.stack(grids) if len(grids) > 1 and np.ndim(self.alphas) == 0 else grids[0]
        if hasattr(self, "l1_ratio"):
            self.l1_ratio_ = ratios[a]
        self.coef_ = np.asarray(fit.coef)[: X.shape[1]]
        self.intercept_ = np.asarray(fit.intercept)[()]
        self.dual_gap_ = float(fit.gap) * null_objective(y, weights, self.fit_intercept)
        self.n_iter_ = max(1, int(fit.steps))
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = False
        return tags


class LassoCV(ElasticNetCV):
    """`Lasso` at the alpha of the least mean squared error on held-out rows.

    Arguments and attributes are those of `ElasticNetCV`, without l1_ratio.

    >>> from l1jax.sklearn import LassoCV
    >>> data = datasets.diabetes()
    >>> print(f"{LassoCV(alphas=20, cv=5).fit(data.X, data.y).alpha_:.3f}")
    0.003
    """

    def __init__(
        self,
        *,
        eps: float = 1e-3,
        alphas: Any = 100,
        fit_intercept: bool = True,
        precompute: Any = "auto",
        max_iter: int | None = None,
        tol: float | None = None,
        copy_X: bool = True,
        cv: Any = None,
        verbose: Any = False,
        n_jobs: Any = None,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.max_iter = max_iter
        self.tol = tol
        self.copy_X = copy_X
        self.cv = cv
        self.verbose = verbose
        self.n_jobs = n_jobs
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    path = staticmethod(Lasso.path)
