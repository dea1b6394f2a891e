"""Losses: one frozen pytree each, with its value, derivatives, conjugate and links.

A loss sees the whole vectors at once: `eta (n,)`, `y (n,)` and `s (n,)`, weights that sum to 1. It is convex and
smooth in eta and shifted so that its least value over eta is 0 (half the unit deviance).
"""

import abc

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlog1py, xlogy

from l1jax._arrays import eps
from l1jax._node import node


class Loss(abc.ABC):
    """What the rest may ask of a loss: sum_i s_i * l(eta_i, y_i), with l >= 0."""

    smoothness: float | None = None
    """An upper bound of l'' if there is one: the gradient's Lipschitz constant for s summing to 1."""

    attained: bool = True
    """Whether every row's least value 0 is taken at a finite eta, rather than approached as eta grows."""

    @abc.abstractmethod
    def value(self, eta: Array, y: Array, s: Array) -> Array:
        """sum_i s_i * l(eta_i, y_i), a scalar."""

    @abc.abstractmethod
    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        """The derivative of `value` in eta, (n,)."""

    @abc.abstractmethod
    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        """The diagonal of the second derivative in eta, (n,), at least 0."""

    @abc.abstractmethod
    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        """sup_eta <v, eta> - value(eta), a scalar; infinite outside its domain. `v` has the units of `gradient`."""

    @abc.abstractmethod
    def mean(self, eta: Array) -> Array:
        """The inverse link: the expected y at linear predictor eta."""

    @abc.abstractmethod
    def link(self, mu: Array) -> Array:
        """The link: the linear predictor at expected value mu."""

    def encode(self, y: Array) -> Array:
        """y as the formulas take it; NaN where it is no response of this loss."""
        return y

    def absorb(self, y: Array, offset: Array) -> tuple[Array, Array]:
        """An equivalent (y, offset), with the offset 0 where the loss allows it."""
        return y, offset

    def complaint(self, y: Array, s: Array) -> str:
        """What is wrong with a concrete, finite response, in words; empty if nothing is."""
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        """Whether an encoded response has a finite fit: a scalar truth value."""
        return jnp.all(jnp.isfinite(y))


@node
class Squared(Loss):
    """sum_i s_i * (eta_i - y_i)^2 / 2.

    y: any real numbers. Gradient s*(eta - y), curvature s, conjugate sum v*y + v^2/(2*s), identity link.

    Source: Tibshirani (1996), "Regression shrinkage and selection via the lasso", JRSS B 58(1), eq. 1, halved.

    >>> import jax.numpy as jnp
    >>> Squared().value(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]), jnp.array([0.5, 0.5]))
    Array(1.25, dtype=float32)
    """

    smoothness = 1.0

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        r = eta - y
        return jnp.sum(s * r * r) / 2  # s first: a huge residual of weight 0 has no square

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        return s * (eta - y)

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        return s

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        theta = per_weight(v, s)
        return jnp.sum(v * y) + jnp.sum(v * theta) / 2

    def mean(self, eta: Array) -> Array:
        return eta

    def link(self, mu: Array) -> Array:
        return mu

    def absorb(self, y: Array, offset: Array) -> tuple[Array, Array]:
        rest = y - offset
        constant = jnp.max(jnp.abs(rest)) <= 4 * eps(y.dtype) * jnp.max(jnp.abs(offset))
        return jnp.where(constant, 0.0, rest), jnp.zeros_like(offset)


@node
class Logistic(Loss):
    """sum_i s_i * log(1 + exp(-m_i*eta_i)), with m_i = 2*y_i - 1.

    y: 0 and 1; or -1 and 1, which are read as 0 and 1. Gradient s*(sigmoid(eta) - y), curvature
    s*sigmoid(eta)*sigmoid(-eta), conjugate sum s*(a*log(a) + (1-a)*log(1-a)) with a = -m*v/s in [0, 1], logit link.
    All are accurate for |eta| to 1e4 and beyond.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via
    coordinate descent", J. Stat. Software 33(1), eq. 13.

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
        clipped = jnp.clip(a, 0, 1)
        size = jnp.where(a < 0, jnp.max(clipped, initial=0.0), 1.0)
        slack = 8 * eps(v.dtype) * size  # what rounding may carry over the edge
        entropy = xlogy(clipped, clipped) + xlog1py(1 - clipped, -clipped)
        return jnp.sum(jnp.where(jnp.abs(a - clipped) <= slack, s * entropy, jnp.where(jnp.isnan(a), a, jnp.inf)))

    def mean(self, eta: Array) -> Array:
        return jax.nn.sigmoid(eta)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu) - jnp.log1p(-mu)

    def encode(self, y: Array) -> Array:
        zero_one = jnp.all((y == 0) | (y == 1))
        plus_minus = jnp.all(jnp.abs(y) == 1)
        return jnp.where(zero_one, y, jnp.where(plus_minus, (y + 1) / 2, jnp.nan))

    def complaint(self, y: Array, s: Array) -> str:
        labels = jnp.unique(y)
        shown = ", ".join(f"{label:g}" for label in labels[:5].tolist()) + (", ..." if labels.size > 5 else "")
        if not bool(jnp.all(jnp.isfinite(self.encode(y)))):
            return f"Logistic wants labels 0 and 1 (or -1 and 1), got {shown}"
        if not bool(self.answerable(self.encode(y), s)):
            return f"Logistic wants both classes (among the rows of positive weight), got only {shown}"
        return ""

    def answerable(self, y: Array, s: Array) -> Array:
        return jnp.any((y == 0) & (s > 0)) & jnp.any((y == 1) & (s > 0)) & jnp.all(jnp.isfinite(y))


def _sign(y: Array) -> Array:
    return 2 * y - 1


def per_weight(v: Array, s: Array) -> Array:
    """v / s, rows of weight 0 (in which v is 0) giving 0."""
    return jnp.where(s > 0, v / jnp.where(s > 0, s, 1.0), 0.0)
