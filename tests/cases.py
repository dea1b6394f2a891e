"""Seeded problems, each both as an l1jax.Problem and as the oracle of tests/kkt.py.

All share one penalty structure, `Bounds(Factors(ElasticNet))`, and always have weights and offsets: programs are
compiled by shape and structure, so that only values differ between cases.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from kkt import Oracle

import l1jax

LOSSES = {"squared": l1jax.Squared(), "logistic": l1jax.Logistic()}


@dataclasses.dataclass(frozen=True)
class Case:
    """The numbers of one problem, already rounded to `dtype`; lam*factors multiplies both parts of the penalty."""

    X: np.ndarray
    y: np.ndarray
    lam: float
    ratio: float = 1.0
    factors: np.ndarray | float = 1.0
    lower: np.ndarray | float = -np.inf
    upper: np.ndarray | float = np.inf
    weights: np.ndarray | None = None
    offset: np.ndarray | None = None
    loss: str = "squared"
    fit_intercept: bool = True
    standardize: bool = False
    dtype: type = np.float64

    def values(self):
        """The leaves as arrays of the problem's dtype, in a fixed order."""
        n, p = self.X.shape
        weights = np.ones(n) if self.weights is None else self.weights
        offset = np.zeros(n) if self.offset is None else self.offset
        coefs = [np.broadcast_to(a, p) for a in (self.factors, self.lower, self.upper)]
        parts = (self.X, self.y, self.lam, self.ratio, *coefs, weights, offset)
        return tuple(np.asarray(part).astype(self.dtype) for part in parts)

    def problem(self):
        return assemble(self.values(), self.loss, self.fit_intercept, self.standardize)

    def oracle(self, values=None):
        X, y, lam, ratio, factors, lower, upper, weights, offset = self.values() if values is None else values
        pinned = np.isinf(factors)
        strength = np.float64(lam) * np.where(pinned, 0, factors).astype(np.float64)
        return Oracle(
            X,
            y,
            l1=strength * np.float64(ratio),
            l2=strength * (1 - np.float64(ratio)),
            lower=np.where(pinned, 0, lower),
            upper=np.where(pinned, 0, upper),
            weights=weights,
            offset=offset,
            fit_intercept=self.fit_intercept,
            standardize=self.standardize,
            loss=self.loss,
            eps=np.finfo(self.dtype).eps,
        )


def assemble(values, loss, fit_intercept, standardize):
    """The l1jax.Problem of such values; they may be traced."""
    X, y, lam, ratio, factors, lower, upper, weights, offset = values
    penalty = l1jax.Bounds(l1jax.Factors(l1jax.ElasticNet(jnp.asarray(lam), jnp.asarray(ratio)), factors), lower, upper)
    return l1jax.Problem(
        X,
        y,
        loss=LOSSES[loss],
        penalty=penalty,
        sample_weight=weights,
        offset=offset,
        fit_intercept=fit_intercept,
        standardize=standardize,
    )


def response(rng, eta, loss):
    """A response to a linear predictor of about unit size; both classes occur if there are two rows."""
    if loss == "squared":
        return eta + rng.normal(size=eta.shape)
    y = (rng.uniform(size=eta.shape) < 1 / (1 + np.exp(-2 * eta))).astype(float)
    if len(y) > 1 and y.min() == y.max():
        y[0] = 1 - y[0]
    return y


def slope_at_zero(case):
    """max_j |x_j'(s*r)| with r the residual of the null model: lambda_max for L1 on raw (or standardised) columns."""
    oracle = dataclasses.replace(case, lam=0.0, factors=0.0, lower=-np.inf, upper=np.inf).oracle()
    theta = oracle.theta(oracle.eta(np.zeros(case.X.shape[1]), oracle.best_intercept(np.zeros(case.X.shape[1]))))
    u = oracle.X.T @ (oracle.s * theta)
    if case.standardize:
        spread = oracle.X - oracle.X[:1]
        sd = np.sqrt(oracle.s @ (spread - oracle.s @ spread) ** 2)
        u = np.where(sd > 0, u / np.where(sd > 0, sd, 1), 0)
    return float(np.max(np.abs(u)))
