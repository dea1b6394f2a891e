"""Losses of more than two classes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlog1py, xlogy

from l1jax._arrays import along, eps
from l1jax._node import node, static
from l1jax.losses.base import Loss, into, listed, per_weight
from l1jax.losses.binary import Logistic
from l1jax.losses.shift import shift


@node
class Multinomial(Loss):
    """sum_i s_i * (log(sum_k exp(eta_ik)) - eta_i[y_i]): the softmax, or cross-entropy, of K classes.

    Args:
      num_classes: the number K of classes, at least 2; static.

    y: the classes' numbers, 0 to K - 1, each of them met. Coefficients are (p, K), one column for each class, and
    intercepts (K,), returned centred: adding a constant to all changes nothing. So it is with a row of coefficients
    that is unpenalised; and with L1, where the shift is one of several equally good ones. A penalty of rows,
    `GroupLasso(lam, range(p), weights=numpy.ones(p))`, gives a feature to all classes or to none.

    Gradient s*(softmax(eta) - onehot(y)); the curvature is a bound, 2*s*q*(1 - q) with q = softmax(eta), as classes
    are coupled; conjugate sum s*a*log(a) with a = onehot(y) + v/s on the simplex, else infinite. The mean gives
    probabilities, (n, K).

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), section 4.

    >>> import jax.numpy as jnp
    >>> Multinomial(3).mean(jnp.log(jnp.array([[1.0, 2.0, 1.0]])))
    Array([[0.25, 0.5 , 0.25]], dtype=float32)
    """

    num_classes: int = static()

    several = True
    attained = False
    smoothness = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.num_classes, bool) or not isinstance(self.num_classes, int) or self.num_classes < 2:
            raise ValueError(f"num_classes: want a whole number of classes, at least 2; got {self.num_classes!r}")

    def outputs(self, y: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_classes,)

    def encode(self, y: Array) -> Array:
        onehot = (y[:, None] == jnp.arange(self.num_classes, dtype=y.dtype)[None, :]).astype(y.dtype)
        return jnp.where(jnp.sum(onehot, axis=1, keepdims=True) > 0, onehot, jnp.nan)

    def answerable(self, y: Array, s: Array) -> Array:
        return jnp.all(jnp.any((y == 1) & (s > 0)[:, None], axis=0)) & jnp.all(jnp.isfinite(y))

    def complaint(self, y: Array, s: Array) -> str:
        shown = listed(y, 8)
        if not bool(jnp.all(jnp.isfinite(self.encode(y)))):
            return f"{self!r} wants classes 0 to {self.num_classes - 1}, got {shown}"
        if not bool(self.answerable(self.encode(y), s)):
            return f"{self!r} wants every class (among the rows of positive weight), got only {listed(y[s > 0], 8)}"
        return ""

    def value(self, eta: Array, y: Array, s: Array) -> Array:
        return jnp.sum(s * _ahead(*_counted(eta, y, s))[1])

    def gradient(self, eta: Array, y: Array, s: Array) -> Array:
        eta, y = _counted(eta, y, s)
        d, row = _ahead(eta, y)
        others = jnp.where(y == 1, 0.0, jnp.exp(d - row[:, None]))
        slopes = jnp.where(y == 1, -jnp.sum(others, axis=1, keepdims=True), others)  # no 1 - q, which cancels
        return along(s, eta) * slopes

    def curvature(self, eta: Array, y: Array, s: Array) -> Array:
        q = jax.nn.softmax(_counted(eta, y, s)[0], axis=1)
        return 2 * along(s, eta) * q * (1 - q)

    def bent(self, d: Array, eta: Array, y: Array, s: Array) -> Array:
        q = jax.nn.softmax(_counted(eta, y, s)[0], axis=1)
        return along(s, eta) * q * (d - jnp.sum(q * d, axis=1, keepdims=True))

    def conjugate(self, v: Array, y: Array, s: Array) -> Array:
        t = per_weight(v, s)
        size = jnp.max(jnp.abs(t), initial=0.0)
        others, outside = into(jnp.where(y == 1, 0.0, t), 0.0, 1.0, size)
        gone = jnp.clip(jnp.sum(others, axis=1), 0.0, 1.0)  # 1 - a of the row's own class
        entropy = jnp.sum(xlogy(others, others) + outside + 0 * y, axis=1) + xlog1py(1 - gone, -gone)
        balanced = jnp.abs(jnp.sum(t, axis=1)) <= 8 * self.num_classes * eps(v.dtype) * size
        return jnp.sum(jnp.where(balanced, s * entropy, jnp.where(jnp.isnan(t[:, 0]), jnp.nan, jnp.inf)))

    def shift(self, eta: Array, y: Array, s: Array) -> Array:
        """argmin_b value(eta + b, y, s): Newton steps where these halve the gradient, else the exact step of one class.

        That is a step of the logistic loss, of one class against the rest, which finds its way off any plateau.
        """
        s = jax.lax.stop_gradient(s)
        eta, y = jax.lax.stop_gradient(_counted(eta, y, s))
        weight = along(s, eta)

        def facts(b: Array) -> tuple[Array, Array]:
            at = eta + b[None]
            return jnp.sum(self.gradient(at, y, s), axis=0), self.value(at, y, s)

        def unfinished(carry: Any) -> Array:
            *_, going, k = carry
            return going & (k < 200)

        def body(carry: Any) -> Any:
            b, (g, value), _, k = carry
            at = eta + b[None]
            one = jnp.arange(b.size) == jnp.argmax(jnp.abs(g))
            rest = jax.nn.logsumexp(jnp.where(one[None], -jnp.inf, at), axis=1)
            own, met = (jnp.sum(jnp.where(one[None], a, 0.0), axis=1) for a in (at, y))
            single = b + jnp.where(one, shift(Logistic(), own - rest, met, s), 0.0)
            q = jax.nn.softmax(at, axis=1)
            H = jnp.diag(jnp.sum(weight * q, axis=0)) - (weight * q).T @ q
            H = H + jnp.max(jnp.diagonal(H))  # constants cost nothing: along them the gradient is 0
            newton = b - jnp.linalg.solve(H, g)
            ahead = facts(newton)
            good = jnp.max(jnp.abs(ahead[0])) <= jnp.max(jnp.abs(g)) / 2
            good = good & (ahead[1] <= value * (1 + 8 * eps(b.dtype)))
            new = jnp.where(good, newton, single)
            new = new - jnp.mean(new)
            now = facts(new)
            better = (jnp.max(jnp.abs(now[0])) < jnp.max(jnp.abs(g))) | (now[1] < value)
            going = (jnp.max(jnp.abs(now[0])) > tiny) & better
            kept = jax.tree.map(lambda a, old: jnp.where(better, a, old), (new, now), (b, (g, value)))
            return *kept, going, k + 1

        start = jnp.zeros_like(eta[0])
        first = facts(start)
        tiny = eps(eta.dtype) / 4 * jnp.max(jnp.sum(jnp.abs(self.gradient(eta, y, s)), axis=0))
        carry = (start, first, jnp.max(jnp.abs(first[0])) > tiny, jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(unfinished, body, carry)[0]

    def centred(self, intercept: Array) -> Array:
        return intercept - jnp.mean(intercept, axis=-1, keepdims=True)

    def mean(self, eta: Array) -> Array:
        return jax.nn.softmax(eta, axis=-1)

    def link(self, mu: Array) -> Array:
        return jnp.log(mu) - jnp.mean(jnp.log(mu), axis=-1, keepdims=True)


def _counted(eta: Array, y: Array, s: Array) -> tuple[Array, Array]:
    """(eta, y), rows of weight 0 replaced by harmless ones."""
    some = along(s, eta) > 0
    return jnp.where(some, eta, 0.0), jnp.where(some, y, jnp.eye(1, y.shape[1], dtype=y.dtype))


def _ahead(eta: Array, y: Array) -> tuple[Array, Array]:
    """By how much each class is ahead of the row's own, (n, K), and the row's loss, (n,), to rounding also near 0."""
    d = eta - jnp.sum(jnp.where(y == 0, 0.0, y * eta), axis=1, keepdims=True)
    others = jnp.where(y == 1, -jnp.inf, d)
    top = jnp.maximum(jnp.max(others, axis=1), 0.0)
    total = jnp.sum(jnp.exp(others - top[:, None]), axis=1)
    return d, jnp.where(top == 0, jnp.log1p(total), top + jnp.log(jnp.exp(-top) + total))
