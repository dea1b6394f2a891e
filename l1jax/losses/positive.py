"""A loss of positive amounts."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlog1py

from l1jax._node import node
from l1jax.losses.base import Rowwise, into, settled
from l1jax.losses.special import exp_less_line


@node
class Gamma(Rowwise):
    """sum_i s_i * (y_i/mu_i - 1 - log(y_i/mu_i)), with mu_i = exp(eta_i): half the deviance of the gamma law.

    y: numbers above 0. Gradient s*(1 - y/mu), curvature s*y/mu, conjugate sum v*log(y) + v + s*(1-a)*log(1-a) with
    a = v/s <= 1, else infinite; log link.

    Source: McCullagh and Nelder (1989), "Generalized linear models", 2nd ed., chapter 8.

    >>> import jax.numpy as jnp
    >>> value = Gamma().value(jnp.log(jnp.array([2.0, 4.0])), jnp.array([2.0, 1.0]), jnp.array([0.5, 0.5]))
    >>> print(f"{value:.5f}")  # the mean of 0 and 1/4 - 1 + log(4)
    0.31815
    """

    def row(self, eta: Array, y: Array) -> Array:
        f = _log_ratio(eta, y)
        near = jnp.abs(f) < 1
        return jnp.where(near, exp_less_line(jnp.where(near, f, 0.0)), jnp.expm1(f) - f)

    def slope(self, eta: Array, y: Array) -> Array:
        return -jnp.expm1(_log_ratio(eta, y))

    def bend(self, eta: Array, y: Array) -> Array:
        return jnp.exp(_log_ratio(eta, y))

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        t, cost = into(t, -jnp.inf, 1.0, 1.0)
        return t * jnp.log(y) + xlog1py(1 - t, -t) + t + cost

    def mean(self, eta: Array) -> Array:
        return jnp.exp(eta)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu)

    def encode(self, y: Array) -> Array:
        return jnp.where(y > 0, y, jnp.nan)

    def complaint(self, y: Array, s: Array) -> str:
        return "" if bool(jnp.all(y > 0)) else f"Gamma wants numbers above 0, got {float(jnp.min(y)):g}"


def _log_ratio(eta: Array, y: Array) -> Array:
    """log(y/mu)."""
    ly = jnp.log(y)
    return settled(ly - eta, 1 + jnp.abs(ly))
