"""Losses of two classes: labels 0 and 1, or -1 and 1."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlog1py, xlogy

from l1jax._node import node
from l1jax.losses.base import Loss, Rowwise, into, listed, per_weight


class _Labels(Loss):
    """What losses of two classes ask of y."""

    def encode(self, y: Array) -> Array:
        zero_one = jnp.all((y == 0) | (y == 1))
        plus_minus = jnp.all(jnp.abs(y) == 1)
        return jnp.where(zero_one, y, jnp.where(plus_minus, (y + 1) / 2, jnp.nan))

    def complaint(self, y: Array, s: Array) -> str:
        name = type(self).__name__
        if not bool(jnp.all(jnp.isfinite(self.encode(y)))):
            return f"{name} wants labels 0 and 1 (or -1 and 1), got {listed(y, 5)}"
        if not bool(self.answerable(self.encode(y), s)):
            return f"{name} wants both classes (among the rows of positive weight), got only {listed(y[s > 0], 5)}"
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        return jnp.any((y == 0) & (s > 0)) & jnp.any((y == 1) & (s > 0)) & jnp.all(jnp.isfinite(y))


@node
class Logistic(_Labels):
    """sum_i s_i * log(1 + exp(-m_i*eta_i)), with m_i = 2*y_i - 1.

    y: 0 and 1; or -1 and 1, which are read as 0 and 1. Gradient s*(sigmoid(eta) - y), curvature
    s*sigmoid(eta)*sigmoid(-eta), conjugate sum s*(a*log(a) + (1-a)*log(1-a)) with a = -m*v/s in [0, 1], logit link.
    All are accurate for |eta| to 1e4 and beyond.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via
    coordinate descent", J. Stat. Software 33(1), section 3.

    >>> import jax.numpy as jnp
    >>> Logistic().value(jnp.array([0.0, 1e4]), jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5]))
    Array(0.3465736, dtype=float32)
    """

    smoothness = 0.25
    attained = False

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        return jnp.sum(s * jax.nn.softplus(_sign(y) * -eta))

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        return -s * _sign(y) * jax.nn.sigmoid(-_sign(y) * eta)

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        return s * jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta)

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        a = -_sign(y) * per_weight(v, s)
        size = jnp.where(a < 0, jnp.max(jnp.clip(a, 0, 1), initial=0.0), 1.0)
        a, outside = into(a, 0.0, 1.0, size)
        return jnp.sum(s * (xlogy(a, a) + xlog1py(1 - a, -a)) + outside)

    def mean(self, eta: Array) -> Array:
        return jax.nn.sigmoid(eta)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu) - jnp.log1p(-mu)


@node
class SquaredHinge(_Labels, Rowwise):
    """sum_i s_i * max(0, 1 - m_i*eta_i)^2 / 2, with m_i = 2*y_i - 1.

    y: 0 and 1; or -1 and 1, which are read as 0 and 1. Gradient -s*m*max(0, 1 - m*eta), curvature s where m*eta < 1
    and 0 elsewhere, conjugate sum s*(a^2/2 - a) with a = -m*v/s >= 0. The mean is (1 + eta)/2 within [0, 1]: the
    share of y = 1 of which eta is the best predictor. The link, 2*mu - 1, is its inverse for |eta| <= 1.

    Source: Chang, Hsieh, Lin (2008), "Coordinate descent method for large-scale L2-loss linear support vector
    machines", JMLR 9, the L2-SVM of section 1, halved; the mean: Zhang (2004), "Statistical behavior and consistency
    of classification methods based on convex risk minimization", Ann. Statist. 32(1).

    >>> import jax.numpy as jnp
    >>> SquaredHinge().value(jnp.array([0.0, 1e4]), jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5]))
    Array(0.25, dtype=float32)
    """

    smoothness = 1.0

    def row(self, eta: Array, y: Array) -> Array:
        return _short(eta, y) ** 2 / 2

    def slope(self, eta: Array, y: Array) -> Array:
        return -_sign(y) * _short(eta, y)

    def bend(self, eta: Array, y: Array) -> Array:
        return jnp.where(jnp.isnan(eta * y), jnp.nan, (_sign(y) * eta < 1).astype(eta.dtype))

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        a = -_sign(y) * t
        a, outside = into(a, 0.0, jnp.inf, jnp.max(a, initial=0.0))
        return outside + a * (a / 2 - 1)

    def mean(self, eta: Array) -> Array:
        return jnp.clip((1 + eta) / 2, 0, 1)

    def link(self, mu: Array) -> Array:
        return 2 * mu - 1


def _sign(y: Array) -> Array:
    return 2 * y - 1


def _short(eta: Array, y: Array) -> Array:
    """By how much the margin falls short of 1."""
    return jnp.maximum(1 - _sign(y) * eta, 0.0)
