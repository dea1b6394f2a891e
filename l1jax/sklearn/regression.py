"""Lasso, elastic net, and the lasso of several targets."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_X_y, validate_data

from l1jax.losses import MultiSquared, Squared
from l1jax.paths import path
from l1jax.penalties import Penalty
from l1jax.sklearn.estimator import (
    COLUMNS,
    DTYPES,
    Linear,
    checked_alpha,
    grid_of,
    in_dtype_of,
    net,
    null_objective,
    padded_problem,
    rounded,
    rowwise,
)
from l1jax.solving import solve


class ElasticNet(RegressorMixin, Linear):
    """min 1/(2*sum s) * sum_i s_i*(y_i - x_i'w - b)^2 + alpha*(l1_ratio*|w|_1 + (1 - l1_ratio)/2*|w|_2^2).

    Args:
      alpha, l1_ratio: the strength, and the share of L1.
      fit_intercept: whether b is fitted.
      max_iter, tol: limits of `l1jax.solve`, None for its own.
      warm_start: whether `fit` starts at the last solution.
      positive: whether coefficients are at least 0.
      precompute, copy_X, random_state, selection: without effect, for scikit-learn's sake.

    Attributes: coef_ (p,), or (T, p) for y (n, T), each target for itself; intercept_; n_iter_; dual_gap_;
    sparse_coef_; `path` as scikit-learn's `enet_path`.

    >>> from l1jax.sklearn import ElasticNet
    >>> print(ElasticNet(alpha=0.5, l1_ratio=1.0).fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0]).coef_.round(3))
    [0.75]
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        precompute: Any = False,
        max_iter: int | None = None,
        copy_X: bool = True,
        tol: float | None = None,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.max_iter = max_iter
        self.copy_X = copy_X
        self.tol = tol
        self.warm_start = warm_start
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X (n, p) and targets y (n,) or (n, T), weighted by sample_weight (n,)."""
        X, y = validate_data(self, X, y, dtype=DTYPES, y_numeric=True, multi_output=True)
        weights, penalty = self._rows(X, sample_weight), self._penalty()
        targets = y.reshape(len(y), -1).astype(X.dtype)
        starts = self._starts(targets.shape[1], X.shape[1])
        with in_dtype_of(X):
            fits = [
                solve(
                    padded_problem(X, target, weights, Squared(), penalty, self.fit_intercept),
                    tol=self.tol,
                    max_steps=self.max_iter,
                    init=start,
                )
                for target, start in zip(targets.T, starts, strict=True)
            ]
            for fit in fits:
                self._warn(fit)
        coef = np.stack([np.asarray(fit.coef)[: X.shape[1]] for fit in fits])
        intercept = np.stack([np.asarray(fit.intercept) for fit in fits])
        gaps = [float(f.gap) * null_objective(t, weights, self.fit_intercept)
                for f, t in zip(fits, targets.T, strict=True)]  # fmt: skip
        steps = [max(1, int(fit.steps)) for fit in fits]
        one = y.ndim == 1
        self.coef_ = coef[0] if one or len(coef) == 1 else coef
        self.intercept_ = intercept[0] if one else intercept
        self.dual_gap_: Any = gaps[0] if len(fits) == 1 else np.array(gaps)
        self.n_iter_: Any = steps[0] if len(fits) == 1 else steps
        return self

    def _penalty(self) -> Callable[[int], Penalty]:
        return net(checked_alpha(self.alpha), getattr(self, "l1_ratio", 1.0), self.positive)

    def _starts(self, targets: int, p: int) -> list[Any]:
        if not self.warm_start or not hasattr(self, "coef_") or np.shape(self.coef_)[-1] != p:
            return [None] * targets
        padded = np.pad(np.reshape(self.coef_, (-1, p)), ((0, 0), (0, rounded(p, COLUMNS) - p)))
        return list(zip(padded, np.atleast_1d(self.intercept_), strict=True))

    def predict(self, X: Any) -> np.ndarray:
        """X coef_ + intercept_, (n,) or (n, T)."""
        return self._eta(X)

    @staticmethod
    def path(
        X: Any,
        y: Any,
        *,
        l1_ratio: float = 0.5,
        eps: float = 1e-3,
        n_alphas: int = 100,
        alphas: Any = None,
        precompute: Any = "auto",
        Xy: Any = None,
        copy_X: bool = True,
        coef_init: Any = None,
        verbose: Any = False,
        return_n_iter: bool = False,
        positive: bool = False,
        check_input: bool = True,
        tol: float | None = None,
        max_iter: int | None = None,
        sample_weight: Any = None,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> tuple[Any, ...]:
        """alphas (L,), coefs (p, L) and dual gaps (L,) without an intercept, as scikit-learn's `enet_path`.

        `alphas` says how many (None: `n_alphas`), down to eps times the largest, or which. Several targets, y (n, T),
        are solved together, as `MultiTaskLasso`: coefs (T, p, L). return_n_iter adds the numbers of steps. Without
        effect: precompute, Xy, copy_X, coef_init, verbose, check_input, random_state, selection. Raises ValueError
        for several targets with l1_ratio < 1 or positive.
        """
        X, y = check_X_y(X, y, dtype=DTYPES, multi_output=True, y_numeric=True)
        weights = Linear._rows(X, sample_weight)
        if y.ndim == 1:
            loss, penalty = Squared(), net(1.0, l1_ratio, positive)
        elif l1_ratio == 1 and not positive:
            loss, penalty = MultiSquared(), rowwise(1.0)
        else:
            raise ValueError(
                "l1_ratio, positive: several targets, y (n, T), have the lasso's path only, l1_ratio=1 and "
                f"positive=False; got {l1_ratio} and {positive}"
            )
        with in_dtype_of(X):
            problem = padded_problem(X, y, weights, loss, penalty, False)
            grid = grid_of(problem, n_alphas if alphas is None else alphas, eps)
            found = path(problem, lams=grid, tol=tol, max_steps=max_iter)
        Linear._warn(found)
        gaps = np.asarray(found.gap, np.float64) * null_objective(y, weights, False)
        told = grid, np.asarray(found.coef)[:, : X.shape[1]].T, gaps
        return (*told, np.asarray(found.steps).tolist()) if return_n_iter else told

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class Lasso(ElasticNet):
    """min 1/(2*sum s) * sum_i s_i*(y_i - x_i'w - b)^2 + alpha*|w|_1.

    Arguments and attributes are those of `ElasticNet`, without l1_ratio.

    >>> from l1jax.sklearn import Lasso
    >>> print(Lasso(alpha=0.5).fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0]).predict([[4.0]]).round(3))
    [3.833]
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        precompute: Any = False,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float | None = None,
        warm_start: bool = False,
        positive: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.precompute = precompute
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.positive = positive
        self.random_state = random_state
        self.selection = selection

    @staticmethod
    def path(X: Any, y: Any, **settings: Any) -> tuple[Any, ...]:
        """As scikit-learn's `lasso_path`: `ElasticNet.path` with l1_ratio 1 (in scikit-learn `Lasso.path` has 0.5)."""
        return ElasticNet.path(X, y, **{"l1_ratio": 1.0, **settings})


class MultiTaskLasso(RegressorMixin, Linear):
    """min 1/(2*sum s) * sum_i s_i*|y_i - W x_i - b|_2^2 + alpha*sum_j |W_:j|_2.

    Args:
      alpha: the strength.
      fit_intercept, max_iter, tol: as for `ElasticNet`.
      copy_X, warm_start, random_state, selection: without effect, for scikit-learn's sake.

    Attributes: coef_ (T, p), whose columns vanish together; intercept_ (T,); n_iter_; dual_gap_; sparse_coef_;
    `path` as that of `Lasso`.

    >>> from l1jax.sklearn import MultiTaskLasso
    >>> print(MultiTaskLasso(alpha=0.1).fit([[1.0], [2.0], [3.0]], [[1.0, 0.0], [2.0, 1.0], [4.0, 2.0]]).coef_.shape)
    (2, 1)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.selection = selection

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to rows X (n, p) and targets y (n, T), weighted by sample_weight (n,)."""
        X, y = validate_data(self, X, y, dtype=DTYPES, y_numeric=True, multi_output=True)
        if y.ndim == 1:
            raise ValueError("y: want several targets, (n, T); for one, (n,), use Lasso")
        weights = self._rows(X, sample_weight)
        with in_dtype_of(X):
            problem = padded_problem(
                X, y, weights, MultiSquared(), rowwise(checked_alpha(self.alpha)), self.fit_intercept
            )
            fit = solve(problem, tol=self.tol, max_steps=self.max_iter)
            self._warn(fit)
        self.coef_ = np.ascontiguousarray(np.asarray(fit.coef)[: X.shape[1]].T)
        self.intercept_ = np.asarray(fit.intercept)
        self.dual_gap_ = float(fit.gap) * null_objective(y, weights, self.fit_intercept)
        self.n_iter_ = max(1, int(fit.steps))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """X coef_' + intercept_, (n, T)."""
        return self._eta(X)

    path = staticmethod(Lasso.path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
