"""Logistic and multinomial regression with an L1 penalty."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from l1jax.losses import Logistic, Loss, Multinomial
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.selection import cross_validate
from l1jax.sklearn.estimator import DTYPES, Linear, checked_alpha, grid_of, in_dtype_of, net, padded_problem, splits_of
from l1jax.solving import solve


class LogisticL1(ClassifierMixin, Linear):
    """min 1/(sum s) * sum_i s_i*log-loss(y_i, x_i'w + b) + alpha*|w|_1, of two classes or more.

    Args:
      alpha: the strength; scikit-learn's C of `LogisticRegression` is 1/(alpha*sum s).
      fit_intercept, max_iter, tol: as for `ElasticNet`.

    Of more than two classes the loss is the multinomial one, with a coefficient of each feature for each class.
    Attributes: classes_; coef_ (1, p) or (K, p); intercept_ (1,) or (K,); n_iter_; dual_gap_ in units of the mean
    log-loss, and `sparse_coef_`.

    >>> from l1jax.sklearn import LogisticL1
    >>> model = LogisticL1(alpha=0.01).fit([[1.0], [2.0], [3.0], [4.0]], ["no", "yes", "no", "yes"])
    >>> print(model.predict([[0.0], [5.0]]))
    ['no' 'yes']
    """

    def __init__(
        self,
        alpha: float = 0.01,
        *,
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X (n, p) and labels y (n,), weighted by sample_weight (n,)."""
        X, problem = self._problem(X, y, sample_weight)
        with in_dtype_of(X):
            self._set(X, problem, solve(problem(checked_alpha(self.alpha)), tol=self.tol, max_steps=self.max_iter))
        return self

    def _problem(self, X: Any, y: Any, sample_weight: Any) -> tuple[np.ndarray, Callable[[float], Problem]]:
        X, y = validate_data(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        weights = self._rows(X, sample_weight)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: want at least two classes, got one class only: {self.classes_[0]!r}")
        loss: Loss = Logistic() if len(self.classes_) == 2 else Multinomial(len(self.classes_))
        return X, lambda alpha: padded_problem(X, numbers, weights, loss, net(alpha, 1.0, False), self.fit_intercept)

    def _set(self, X: np.ndarray, problem: Callable[[float], Problem], fit: Result) -> None:
        self._warn(fit)
        self.coef_ = np.asarray(fit.coef)[: X.shape[1]].T.reshape(-1, X.shape[1])
        self.intercept_ = np.atleast_1d(np.asarray(fit.intercept))
        used = np.asarray(problem(1.0).weights())
        counts = np.bincount(np.asarray(problem(1.0).y, int), used)
        null = float(-np.sum(counts * np.log(counts))) if self.fit_intercept else float(np.log(len(counts)))
        self.dual_gap_ = float(fit.gap) * null
        self.n_iter_ = max(1, int(fit.steps))

    def decision_function(self, X: Any) -> np.ndarray:
        """The linear predictor, (n,) of two classes or (n, K)."""
        eta = self._eta(X)
        return eta[:, 0] if len(self.classes_) == 2 else eta

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class, (n,)."""
        eta = self.decision_function(X)
        return np.asarray(self.classes_[(eta > 0).astype(int) if eta.ndim == 1 else np.argmax(eta, axis=1)])

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        eta = self.decision_function(X)
        eta = np.stack([np.zeros_like(eta), eta], axis=1) if eta.ndim == 1 else eta
        eta = eta - np.max(eta, axis=1, keepdims=True)
        return np.asarray(eta - np.log(np.sum(np.exp(eta), axis=1, keepdims=True)))

    def predict_proba(self, X: Any) -> np.ndarray:
        """The classes' probabilities, (n, K), in the order of classes_."""
        return np.exp(self.predict_log_proba(X))


class LogisticL1CV(LogisticL1):
    """`LogisticL1` at the alpha with the best mean score on held-out rows.

    Args:
      eps: the smallest alpha over the largest, where `alphas` is a number.
      alphas: how many, or which.
      cv: a number of folds (5 by default, stratified), pairs of row numbers, or a splitter of scikit-learn's.
      scoring: "deviance", "accuracy", "mse", "mae", or, for two classes, "auc".
      fit_intercept, max_iter, tol: as for `LogisticL1`.

    Attributes: alpha_, alphas_ (L,), score_path_ (L, K), and those of `LogisticL1`.

    >>> from l1jax.sklearn import LogisticL1CV
    >>> data = datasets.diabetes()
    >>> print(LogisticL1CV(alphas=5, cv=3).fit(data.X, data.y > 150).score_path_.shape)
    (5, 3)
    """

    def __init__(
        self,
        *,
        eps: float = 1e-2,
        alphas: Any = 30,
        cv: Any = None,
        scoring: str = "deviance",
        fit_intercept: bool = True,
        max_iter: int | None = None,
        tol: float | None = None,
    ) -> None:
        self.eps = eps
        self.alphas = alphas
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose by cross-validation, and fit to all rows X (n, p), labels y (n,)."""
        X, problem = self._problem(X, y, sample_weight)
        with in_dtype_of(X):
            posed = problem(1.0)
            labels, weights = (np.asarray(a)[: len(X)] for a in (posed.y, posed.sample_weight))
            folds = splits_of(check_cv(self.cv, labels, classifier=True), X, labels, weights)
            grid = grid_of(posed, self.alphas, self.eps)
            found = cross_validate(posed, folds=folds, score=self.scoring, lams=grid, tol=self.tol,
                                   max_steps=self.max_iter)  # fmt: skip
            means = np.mean(found.scores, axis=0)
            k = int(np.argmax(means) if self.scoring in ("accuracy", "auc") else np.argmin(means))
            self._set(X, problem, found.path[k])
        self.alpha_, self.alphas_, self.score_path_ = float(grid[k]), grid, np.asarray(found.scores).T
        return self
