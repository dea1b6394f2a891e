"""Certificates of a path from outside: NumPy float64, independent of every library measured.

A gap is relative to the objective of the null model (intercept only). The intercept is always fitted: the squared loss
is centred, and for the logistic loss the intercept is refitted by Newton's method at the coefficients given, so that
the residual sums to zero; scaled until X' residual meets the dual norm, it is a feasible dual point.
"""

import numpy as np


class Certifier:
    """largest(coefs): the largest relative gap of a path, and its largest KKT residual over lambda."""

    def __init__(self, design):
        self.kind, self.group, self.lams, self.n = design.kind, design.group, design.lams, len(design.y)
        if self.kind == "logistic":
            self.X, self.y = design.X, design.y
            mean = self.y.mean()
            self.null = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
        else:
            self.X, self.y = design.X - design.X.mean(axis=0), design.y - design.y.mean()
            self.null = self.y @ self.y / (2 * self.n)

    def largest(self, coefs):
        coefs = np.asarray(coefs, dtype=np.float64)
        if coefs.shape != (len(self.lams), self.X.shape[1]) or not np.isfinite(coefs).all():
            return float("inf"), float("inf")
        return tuple(float(a.max()) for a in self.each(coefs))

    def each(self, coefs):
        """The relative gaps (L,), and the KKT residuals over lambda."""
        eta = coefs @ self.X.T
        residuals, loss, entropy = self._logistic(eta) if self.kind == "logistic" else self._squared(eta)
        correlations = residuals @ self.X / self.n
        scale = np.minimum(1, self.lams / self._dual_norm(correlations))
        gaps = loss + self.lams * self._norm(coefs) - entropy(scale)
        return gaps / self.null, self._kkt(coefs, correlations).max(axis=1)

    def _squared(self, eta):
        residuals = self.y - eta
        squares, products = (residuals**2).sum(axis=1) / (2 * self.n), residuals @ self.y / self.n
        return residuals, squares, lambda scale: scale * products - scale**2 * squares

    def _logistic(self, eta):
        eta = eta + intercepts(eta, self.y)[:, None]
        chance = sigmoid(eta)
        loss = (np.logaddexp(0, eta) - self.y * eta).mean(axis=1)

        def entropy(scale):
            q = self.y + scale[:, None] * (chance - self.y)
            return -(xlogx(q) + xlogx(1 - q)).mean(axis=1)

        return self.y - chance, loss, entropy

    def _grouped(self, a):
        """Lengths of the groups' parts of a (L, p), (L, groups)."""
        return np.linalg.norm(a.reshape(len(a), -1, self.group), axis=2)

    def _norm(self, coefs):
        return np.sqrt(self.group) * self._grouped(coefs).sum(axis=1)

    def _dual_norm(self, u):
        return np.maximum(self._grouped(u).max(axis=1) / np.sqrt(self.group), 1e-300)

    def _kkt(self, coefs, correlations):
        """Distance of the correlations to lambda times the subdifferential, over lambda (and the group's weight)."""
        lams = self.lams[:, None] * np.sqrt(self.group)
        sizes = self._grouped(coefs)
        directions = coefs.reshape(*sizes.shape, self.group) / np.where(sizes > 0, sizes, 1)[..., None]
        inside = correlations - (lams[..., None] * directions).reshape(coefs.shape)
        outside = np.maximum(self._grouped(correlations) - lams, 0)
        return np.where(sizes > 0, self._grouped(inside), outside) / lams


def intercepts(eta, y):
    """The intercept of each row of eta (L, n), at which its probabilities have the mean of y."""
    b = np.zeros(len(eta))
    for _ in range(200):
        chance = sigmoid(eta + b[:, None])
        step = (y.mean() - chance.mean(axis=1)) / np.maximum((chance * (1 - chance)).mean(axis=1), 1e-12)
        b += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-14:
            break
    return b


def sigmoid(eta):
    return np.exp(-np.logaddexp(0, -eta))


def xlogx(q):
    q = np.clip(q, 0, 1)
    return q * np.log(np.where(q > 0, q, 1))
