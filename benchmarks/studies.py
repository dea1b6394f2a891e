"""The data of the sweep benchmark: one `Study` a row of its table, made in NumPy float64."""

import math
from dataclasses import dataclass

import numpy as np
from certify import Certifier
from designs import Design, autoregressive, strengths


@dataclass
class Study:
    """Lassos that share what they can: part k has X[k] or X, y[k] or y, of these its rows[k] or all, and lams[k]."""

    axis: str  # "lambdas", "folds", "weights", "problems" or "targets"
    X: np.ndarray  # (n, p), or (K, n, p) where each problem has its own
    y: np.ndarray  # (n,) or (K, n)
    lams: np.ndarray  # (K, L), descending
    rows: np.ndarray | None = None  # (K, m), drawn once or more
    ratio: float = 0.01  # of the least strength to the largest
    folds: np.ndarray | None = None  # (n,)

    def part(self, k):
        """The k-th path as a design of its own."""
        X, y = self.X if self.X.ndim == 2 else self.X[k], self.y if self.y.ndim == 1 else self.y[k]
        rows = slice(None) if self.rows is None else self.rows[k]
        return Design(X[rows], y[rows], "gaussian", self.lams[k])

    @property
    def weights(self):
        """How often each part draws each row, (K, n)."""
        return np.stack([np.bincount(rows, minlength=len(self.y)) for rows in self.rows])

    def largest(self, coefs):
        """The largest relative gap of the first parts, and their largest KKT residual over lambda."""
        if coefs.shape[2:] != self.X.shape[-1:] or coefs.shape[1] != self.lams.shape[1] or len(coefs) > len(self.lams):
            return math.inf, math.inf
        each = [Certifier(self.part(k)).largest(coef) for k, coef in enumerate(coefs)]
        return tuple(max(worst) for worst in zip(*each, strict=True))


def noisy(signal, rng):
    return signal + 0.5 * signal.std(axis=-1, keepdims=True) * rng.standard_normal(signal.shape)


def grid(n, p, num):
    X, signal, rng = autoregressive(n, p)
    y = noisy(signal, rng)
    return Study("lambdas", X, y, strengths(X, y, num)[None])


def cross_validation(n, p, folds, num):
    X, signal, rng = autoregressive(n, p)
    y = noisy(signal, rng)
    ids = rng.permutation(n) % folds
    rows = np.stack([np.flatnonzero(ids != k) for k in range(folds)])
    return Study("folds", X, y, np.tile(strengths(X, y, num), (folds, 1)), rows, folds=ids)


def bootstraps(n, p, count):
    """At a tenth of lambda_max."""
    X, signal, rng = autoregressive(n, p, nonzeros=10)
    y = noisy(signal, rng)
    lams = np.full((count, 1), strengths(X, y, 3)[1])
    return Study("weights", X, y, lams, rng.integers(n, size=(count, n)))


def problems(count, n, p, num):
    parts = [autoregressive(n, p, nonzeros=10, seed=seed) for seed in range(count)]
    X = np.stack([X for X, _, _ in parts])
    y = np.stack([noisy(signal, rng) for _, signal, rng in parts])
    lams = np.stack([strengths(*part, num) for part in zip(X, y, strict=True)])
    return Study("problems", X, y, lams)


def targets(count, n, p, num):
    """Each of ten features of its own."""
    X, _, rng = autoregressive(n, p)
    coef = np.zeros((count, p))
    for row in coef:
        row[rng.choice(p, 10, replace=False)] = rng.standard_normal(10)
    y = noisy(coef @ X.T, rng)
    return Study("targets", X, y, np.stack([strengths(X, each, num) for each in y]))


def stability(pairs, n, p, num):
    """Complementary halves, down to a tenth of lambda_max."""
    X, signal, rng = autoregressive(n, p)
    y = noisy(signal, rng)
    lams = strengths(X, y, 2 * num - 1)[:num]
    rows = np.concatenate([rng.permutation(n)[: n // 2 * 2].reshape(2, -1) for _ in range(pairs)])
    return Study("weights", X, y, np.tile(lams, (2 * pairs, 1)), rows, ratio=0.1)


ROWS = {
    "4096 lambdas, 1800x200": lambda: grid(1800, 200, 4096),
    "CV 10 folds x 100 lambdas, 5000x1000": lambda: cross_validation(5000, 1000, 10, 100),
    "10000 bootstraps, 200x30": lambda: bootstraps(200, 30, 10_000),
    "1000 problems x 50 lambdas, 200x100": lambda: problems(1000, 200, 100, 50),
    "2000 targets x 30 lambdas, 500x300": lambda: targets(2000, 500, 300, 30),
    "stability, 100 halves x 50 lambdas, 300x2000": lambda: stability(50, 300, 2000, 50),
}
TINY = {  # for a smoke run, of every kind
    "20 lambdas, 60x30": lambda: grid(60, 30, 20),
    "CV 4 folds x 10 lambdas, 60x30": lambda: cross_validation(60, 30, 4, 10),
    "12 bootstraps, 60x30": lambda: bootstraps(60, 30, 12),
    "6 problems x 5 lambdas, 40x25": lambda: problems(6, 40, 25, 5),
    "8 targets x 5 lambdas, 40x25": lambda: targets(8, 40, 25, 5),
    "stability, 6 halves x 5 lambdas, 40x60": lambda: stability(3, 40, 60, 5),
}
# l1jax's time over the best peer's: at most the floor, and what is aimed at.
BARS = dict(zip(ROWS, [(1.5, 0.7), (1.0, 0.5), (0.1, 0.05), (1.0, 0.5), (0.5, 0.2), (1.0, 0.5)], strict=True))
