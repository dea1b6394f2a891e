"""Losses of a real response: they see eta and y only by the residual."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from l1jax._arrays import ABOVE_0, LARGEST, along, eps, set_hyperparameter
from l1jax._node import node
from l1jax.losses.base import Loss, Rowwise, fit, into, per_weight, settled


class _Residual(Loss):
    """What losses of eta - y share: the identity link, and offsets that move into y."""

    def mean(self, eta: Array) -> Array:
        return eta

    def link(self, mu: Array) -> Array:
        return mu

    def absorb(self, y: Array, offset: Array) -> tuple[Array, Array]:
        rest = y - offset
        constant = jnp.max(jnp.abs(rest)) <= 4 * eps(y.dtype) * jnp.max(jnp.abs(offset))
        return jnp.where(constant, 0.0, rest), jnp.zeros_like(offset)


@node
class Squared(_Residual):
    """sum_i s_i * (eta_i - y_i)^2 / 2.

    y: any real numbers. Gradient s*(eta - y), curvature s, conjugate sum v*y + v^2/(2*s), identity link.

    Source: Tibshirani (1996), "Regression shrinkage and selection via the lasso", JRSS B 58(1), halved.

    >>> import jax.numpy as jnp
    >>> Squared().value(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0]), jnp.array([0.5, 0.5]))
    Array(1.25, dtype=float32)
    """

    smoothness = 1.0

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        r = eta - y
        return jnp.sum(along(s, r) * r * r) / 2  # s first: a huge residual of weight 0 has no square

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        return along(s, eta) * (eta - y)

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        return jnp.broadcast_to(along(s, eta), eta.shape)

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        theta = per_weight(v, s)
        return jnp.sum(v * y) + jnp.sum(v * theta) / 2

    def shift(self, eta: Array, y: Array, s: Array) -> Array:
        """argmin_b value(eta + b, y, s): the mean residual."""
        return lax.stop_gradient(-jnp.sum(self.gradient(eta, y, s), axis=0) / jnp.sum(s))


@node
class MultiSquared(Squared):
    """sum_i s_i * sum_k (eta_ik - y_ik)^2 / 2, for k responses.

    y: any real numbers, (n, k). Coefficients are (p, k), one column for each response, and intercepts (k,). A penalty
    of rows, `GroupLasso(lam, range(p), weights=numpy.ones(p))`, makes this the multi-task lasso. Gradient s*(eta - y),
    curvature s, conjugate sum v*y + v^2/(2*s), identity link.

    Source: Obozinski, Taskar, Jordan (2010), "Joint covariate selection and joint subspace selection for multiple
    classification problems", Stat. Comput. 20.

    >>> y = [[1.0, 2.0], [2.0, 4.0], [4.0, 7.0]]
    >>> penalty = GroupLasso(0.5, [0], weights=[1.0])
    >>> coef = solve(Problem([[1.0], [2.0], [3.0]], y, loss=MultiSquared(), penalty=penalty)).coef
    >>> print([f"{w:.3f}" for w in coef[0]])
    ['1.114', '1.857']
    """

    several = True
    axes = 2

    def outputs(self, y: tuple[int, ...]) -> tuple[int, ...]:
        return y[1:]


@node
class Huber(_Residual, Rowwise):
    """sum_i s_i * h(eta_i - y_i), with h(r) = r^2/2 where |r| <= delta and delta*|r| - delta^2/2 beyond.

    Args:
      delta: the residual from which on a row pulls no harder, above 0, in the units of y.

    y: any real numbers. Gradient s*clip(eta - y, -delta, delta), curvature s where |eta - y| <= delta and 0 beyond,
    conjugate sum v*y + v^2/(2*s) for |v/s| <= delta, else infinite; identity link. Raises ValueError for a delta that
    is not above 0.

    Source: Huber (1964), "Robust estimation of a location parameter", Ann. Math. Statist. 35(1).

    >>> import jax.numpy as jnp
    >>> Huber(1.0).value(jnp.array([0.5, 10.0]), jnp.array([0.0, 0.0]), jnp.array([0.5, 0.5]))
    Array(4.8125, dtype=float32)
    """

    delta: Any

    smoothness = 1.0

    def __post_init__(self) -> None:
        set_hyperparameter(self, "delta", ABOVE_0, LARGEST, "a finite number above 0")

    def row(self, eta: Array, y: Array) -> Array:
        c = self.slope(eta, y)
        return c * (eta - y - c / 2)

    def slope(self, eta: Array, y: Array) -> Array:
        delta = fit(self.delta, eta, "delta")
        return jnp.clip(eta - y, -delta, delta)

    def bend(self, eta: Array, y: Array) -> Array:
        r = eta - y
        return jnp.where(jnp.isnan(r), r, (jnp.abs(r) <= fit(self.delta, eta, "delta")).astype(r.dtype))

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        delta = fit(self.delta, t, "delta")
        t, cost = into(t, -delta, delta, delta)
        return t * y + t * t / 2 + cost


@node
class Quantile(_Residual, Rowwise):
    """sum_i s_i * Q(y_i - eta_i), with Q(r) = max(q*r, (q-1)*r) - width*q*(1-q) where |r| >= width, a parabola between.

    The parabola is (r + width*(2*q - 1))^2 / (4*width): the pinball loss of the q-quantile averaged over residuals
    within `width` (convolved with a uniform kernel of that half-width), less a constant that makes its least value 0.
    It differs from the pinball loss by at most width/4, so that the fit is within width/4 of the best pinball
    objective; at a width below the distances of the y_i the two solutions practically agree. There few rows have any
    curvature, and proximal Newton may stall: solvers of first order are chosen for it.

    Args:
      q: the quantile, between 0 and 1: 0.5 is the median.
      width: the half-width of the smoothing, above 0, in the units of y.

    y: any real numbers. Gradient s*clip((eta - y - width*(2*q - 1))/(2*width), -q, 1 - q), curvature s/(2*width)
    within and 0 beyond, conjugate sum v*y + s*width*a*(2*q - 1 + a) with a = v/s in [-q, 1 - q], else infinite;
    identity link (the q-quantile in the place of the mean). Raises ValueError for q or width outside its range.

    Source: Koenker and Bassett (1978), "Regression quantiles", Econometrica 46(1); the smoothing: Fernandes,
    Guerre, Horta (2021), "Smoothing quantile regressions", J. Bus. Econ. Stat. 39(1), with a uniform kernel.

    >>> import jax.numpy as jnp
    >>> loss = Quantile(0.75, width=0.5)
    >>> loss.value(jnp.array([1.0, -3.0]), jnp.array([0.0, 0.0]), jnp.array([0.5, 0.5]))  # pinball 1.25, less 0.09375
    Array(1.15625, dtype=float32)
    """

    q: Any
    width: Any

    curved = False

    def __post_init__(self) -> None:
        set_hyperparameter(self, "q", ABOVE_0, float(np.nextafter(1.0, 0.0)), "numbers between 0 and 1")
        set_hyperparameter(self, "width", ABOVE_0, LARGEST, "a finite number above 0")

    @property
    def smoothness(self) -> Any:
        return 0.5 / self.width

    def row(self, eta: Array, y: Array) -> Array:
        _, width, z = self._parts(eta, y)
        c = self.slope(eta, y)
        return c * (z - width * c)

    def slope(self, eta: Array, y: Array) -> Array:
        q, width, z = self._parts(eta, y)
        return jnp.clip(z / (2 * width), -q, 1 - q)

    def bend(self, eta: Array, y: Array) -> Array:
        q, width, z = self._parts(eta, y)
        a = z / (2 * width)
        return jnp.where((a < -q) | (a > 1 - q), 0.0, 0.5 / width + 0 * a)

    def row_conjugate(self, t: Array, y: Array, scale: Array) -> Array:
        q, width = fit(self.q, t, "q"), fit(self.width, t, "width")
        a, cost = into(t, -q, 1 - q, 1.0)
        return a * y + width * a * (2 * q - 1 + a) + cost

    def _parts(self, eta: Array, y: Array) -> tuple[Array, Array, Array]:
        """q, width, and eta less its best value."""
        q, width = fit(self.q, eta, "q"), fit(self.width, eta, "width")
        r = eta - y
        return q, width, settled(r - width * (2 * q - 1), jnp.abs(r) + width)
