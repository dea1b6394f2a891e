"""Losses of counts, with a log link."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlogy

from l1jax._arrays import set_hyperparameter
from l1jax._node import node
from l1jax.losses.base import Rowwise, fit, into, settled
from l1jax.losses.special import exp_less_line, line_less_log


class _Counts(Rowwise):
    """What losses of counts share."""

    attained = False  # a count of 0 wants eta = -inf

    def mean(self, eta: Array) -> Array:
        return jnp.exp(eta)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu)

    def encode(self, y: Array) -> Array:
        return jnp.where(y >= 0, y, jnp.nan)

    def complaint(self, y: Array, s: Array) -> str:
        name = type(self).__name__
        if not bool(jnp.all(y >= 0)):
            return f"{name} wants counts, numbers of at least 0, got {float(jnp.min(y)):g}"
        if not bool(self.answerable(y, s)):
            return f"{name} wants some counts above 0 (among the rows of positive weight), got only 0"
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        return jnp.all(jnp.isfinite(y)) & jnp.any((y > 0) & (s > 0))


@node
class Poisson(_Counts):
    """sum_i s_i * (y_i*log(y_i/mu_i) - y_i + mu_i), with mu_i = exp(eta_i): half the deviance of the Poisson law.

    y: numbers of at least 0, whole or not, some of them above 0. Gradient s*(mu - y), curvature s*mu, conjugate
    sum s*(u*log(u) - u - y*log(y) + y) with u = y + v/s >= 0, else infinite; log link. Rates of unequal exposure:
    y the counts and `offset` the log exposures.

    Source: McCullagh and Nelder (1989), "Generalized linear models", 2nd ed., chapter 6.

    >>> import jax.numpy as jnp
    >>> Poisson().value(jnp.log(jnp.array([2.0, 3.0])), jnp.array([2.0, 0.0]), jnp.array([0.5, 0.5]))  # 0 and 3
    Array(1.5, dtype=float32)
    """

    def row(self, eta: Array, y: Array) -> Array:
        d, near = _log_ratio(eta, y, 1.0)
        return jnp.where(near, y * exp_less_line(jnp.where(near, d, 0.0)), jnp.exp(eta) - y * (1 + d))

    def slope(self, eta: Array, y: Array) -> Array:
        d, near = _log_ratio(eta, y, 1.0)
        return jnp.where(near, y * jnp.expm1(d), jnp.exp(eta) - y)

    def bend(self, eta: Array, y: Array) -> Array:
        return jnp.exp(eta) + 0 * y

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        t, cost = into(t, -y, jnp.inf, y + scale)
        u = y + t
        near = jnp.abs(t) < y / 2
        share = jnp.where(near, t / jnp.where(y > 0, y, 1.0), 0.0)
        close = xlogy(t, jnp.where(y > 0, y, 1.0)) + u * jnp.log1p(share) - t
        return jnp.where(near, close, xlogy(u, u) - xlogy(y, y) - t) + cost


@node
class NegativeBinomial(_Counts):
    """sum_i s_i * (y_i*log(y_i/mu_i) - (y_i + theta)*log((y_i + theta)/(mu_i + theta))), with mu_i = exp(eta_i).

    Half the deviance of the negative binomial law of mean mu and variance mu + mu^2/theta; for theta to infinity,
    that of the Poisson law.

    Args:
      theta: the shape, above 0; the smaller, the more the counts are dispersed.

    y: numbers of at least 0, whole or not, some of them above 0. Gradient s*theta*(mu - y)/(mu + theta), curvature
    s*theta*mu*(y + theta)/(mu + theta)^2, log link. Conjugate, with a = v/s in [-y, theta], u = y + a, w = theta - a,
    m = y + theta: sum s*(a*log(theta) + u*log(u/m) + w*log(w/m) - y*log(y/m) - theta*log(theta/m)), else infinite.
    Raises ValueError for a theta that is not above 0.

    Source: Venables and Ripley (2002), "Modern applied statistics with S", 4th ed.

    >>> import jax.numpy as jnp
    >>> loss = NegativeBinomial(1.0)
    >>> loss.value(jnp.log(jnp.array([2.0, 3.0])), jnp.array([2.0, 0.0]), jnp.array([0.5, 0.5]))  # 0 and log 4
    Array(0.6931472, dtype=float32)
    """

    theta: Any

    def __post_init__(self) -> None:
        low, high = np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).max
        set_hyperparameter(self, "theta", float(low), float(high), "a finite number above 0")

    def row(self, eta: Array, y: Array) -> Array:
        k = fit(self.theta, eta, "theta")
        d, near = _log_ratio(eta, y, 0.5)
        tau, total = eta - jnp.log(k), y + k
        # The divergence of Bernoulli laws of shares y/total and mu/(mu + k), seen from the smaller share of the first.
        flip = y > k
        less, more = jnp.where(flip, k, y), jnp.where(flip, y, k)
        f, side = jnp.where(flip, -d, d), jnp.where(flip, -tau, tau)
        r, step = less / total, jnp.where(near, f, 0.0)
        close = r * exp_less_line(step) - line_less_log(r * jnp.expm1(step))
        far = total * (jax.nn.softplus(side) - jnp.log1p(less / more)) - less * f
        return jnp.where(near, total * close, far)

    def slope(self, eta: Array, y: Array) -> Array:
        k = fit(self.theta, eta, "theta")
        d, near = _log_ratio(eta, y, 0.5)
        tau = eta - jnp.log(k)
        close = y * jax.nn.sigmoid(-tau) * jnp.expm1(jnp.where(near, d, 0.0))
        share = (y + k) * jax.nn.sigmoid(jnp.where(tau > 0, -tau, tau))  # the smaller one: 1 - sigmoid loses digits
        return jnp.where(near, close, jnp.where(tau > 0, k - share, share - y))

    def bend(self, eta: Array, y: Array) -> Array:
        k = fit(self.theta, eta, "theta")
        tau = eta - jnp.log(k)
        return (y + k) * jax.nn.sigmoid(tau) * jax.nn.sigmoid(-tau)

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        k = fit(self.theta, t, "theta")
        t, cost = into(t, -y, k, jnp.where(t < 0, y, k) + scale)
        u, w = y + t, k - t
        return t * jnp.log(k) + _entropy(u, w, y + k) - _entropy(y, k, y + k) + cost


def _log_ratio(eta: Array, y: Array, limit: float) -> tuple[Array, Array]:
    """log(mu/y), and whether it is below `limit` in size; where y = 0, eta and False."""
    ly = jnp.log(jnp.where(y > 0, y, 1.0))
    d = settled(eta - ly, jnp.where(y > 0, 1 + jnp.abs(ly), 0.0))
    return d, (y > 0) & (jnp.abs(d) < limit)


def _entropy(a: Array, b: Array, total: Array) -> Array:
    """a*log(a/total) + b*log(b/total), where total = a + b."""

    def part(a: Array, b: Array) -> Array:
        most = a > b
        share = jnp.where(a > 0, a, 1.0) / total
        return a * jnp.where(most, jnp.log1p(-jnp.where(most, b / total, 0.0)), jnp.log(share))

    return part(a, b) + part(b, a)
