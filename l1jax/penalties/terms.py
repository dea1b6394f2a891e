"""Scalar functions `l1*|w| + l2/2*w^2` on `[lower, upper]`: all that convex separable penalties are made of."""

import abc
from typing import Self

import jax
import jax.numpy as jnp
from jax import Array

from l1jax import prox
from l1jax._arrays import largest
from l1jax._node import node


class Scalar(abc.ABC):
    """Scalar functions of coefficients, kept as arrays of their parameters."""

    @abc.abstractmethod
    def interval(self, w: Array) -> tuple[Array, Array]:
        """The subdifferential [low, high] at `w`; NaN where it is empty."""

    @abc.abstractmethod
    def smooth(self, w: Array) -> Array:
        """Whether the function has a derivative at `w`."""

    @abc.abstractmethod
    def slope_at(self, w: Array) -> Array:
        """That derivative."""

    def nearest(self, w: Array, u: Array) -> Array:
        """The element of the subdifferential at `w` that is nearest to `u`."""
        low, high = self.interval(w)
        # Where low = high = u the answer is low, which has phi's second derivative.
        return jnp.where(u <= low, low, jnp.where(u >= high, high, jnp.where(jnp.isnan(low), low, u)))

    def full(self, shape: tuple[int, ...]) -> Self:
        """The same with each field an array of `shape`, so that one coefficient's function can be indexed out."""
        return jax.tree.map(lambda field: jnp.broadcast_to(field, shape), self)


@node
class Terms(Scalar):
    """phi(w) = l1*|w| + l2/2 * w^2 where lower <= w <= upper, infinite elsewhere.

    The family is closed under all that the library does to a separable penalty: factors, bounds, masks, sums, a
    change of the coefficients' units. Its facts therefore stand here once. Each field is an array that broadcasts
    against the coefficients (scalars, mostly).
    """

    l1: Array
    l2: Array
    lower: Array
    upper: Array

    @classmethod
    def of(cls, like: Array, l1: object = 0.0, l2: object = 0.0) -> Self:
        """Unbounded terms in the dtype of `like`; arrays of fewer axes are matched to its leading ones."""
        return cls(fit(l1, like), fit(l2, like), jnp.asarray(-jnp.inf, like.dtype), jnp.asarray(jnp.inf, like.dtype))

    # -- the algebra

    def scaled(self, factor: Array) -> Self:
        """factor * phi for a finite factor, its bounds unchanged."""
        return type(self)(self.l1 * factor, self.l2 * factor, self.lower, self.upper)

    def times(self, factor: Array) -> Self:
        """factor * phi, its bounds unchanged; an infinite factor pins the coefficient to 0 (also where phi = 0)."""
        pinned = jnp.isposinf(factor)
        finite = jnp.where(pinned, 0.0, factor)
        pin = jnp.where(pinned, 0.0, jnp.inf).astype(factor.dtype)
        return self.scaled(finite).clipped(-pin, pin)

    def clipped(self, lower: Array, upper: Array) -> Self:
        """phi restricted to [lower, upper] as well."""
        return type(self)(self.l1, self.l2, jnp.maximum(self.lower, lower), jnp.minimum(self.upper, upper))

    def plus(self, other: "Terms") -> Self:
        """phi + other."""
        return type(self)(self.l1 + other.l1, self.l2 + other.l2, self.lower, self.upper).clipped(
            other.lower, other.upper
        )

    def where(self, mask: Array) -> Self:
        """phi where `mask`, the zero function elsewhere."""
        zero = jnp.zeros((), self.l1.dtype)
        return type(self)(
            jnp.where(mask, self.l1, zero),
            jnp.where(mask, self.l2, zero),
            jnp.where(mask, self.lower, zero - jnp.inf),
            jnp.where(mask, self.upper, zero + jnp.inf),
        )

    def in_units(self, strength: Array, scale: Array) -> Self:
        """z -> phi(strength * z), its bounds multiplied by `scale` (both positive).

        A product, as XLA rounds quotients differently from one place to the next, and z may sit on a bound.
        """
        big = largest(self.l2.dtype) / 8  # an overflow to infinity would give inf * 0 at w = 0
        l2 = jnp.minimum(self.l2 * strength, big)
        l2 = jnp.minimum(l2 * strength, big)
        lower, upper = (_scaled(bound, scale) for bound in (self.lower, self.upper))
        return type(self)(jnp.minimum(self.l1 * strength, big), l2, lower, upper)

    def valid(self) -> Array:
        """Whether strengths are finite and at least 0, and some w lies within the bounds."""
        strengths = [(a >= 0) & jnp.isfinite(a) for a in (self.l1, self.l2)]
        return jnp.all(strengths[0]) & jnp.all(strengths[1]) & jnp.all(self.lower <= self.upper)

    # -- the facts

    def value(self, w: Array) -> Array:
        """sum phi(w); its derivative in `w` is the subgradient of least norm."""
        return jnp.sum(_value(w, self.l1, self.l2, self.lower, self.upper))

    def prox(self, v: Array, step: Array) -> Array:
        """argmin_w 1/2 (w - v)^2 + step * phi(w)."""
        t1, t2 = _total(step, self.l1), _total(step, self.l2)
        w = prox.soft_threshold(v, t1) / (1 + t2)
        return jnp.where(w <= self.lower, self.lower, jnp.where(w >= self.upper, self.upper, w))

    def project(self, w: Array) -> Array:
        """The nearest point within the bounds."""
        return prox.clip_to_bounds(w, self.lower, self.upper)

    def interval(self, w: Array) -> tuple[Array, Array]:
        """The subdifferential [low, high] at `w`; NaN outside the bounds, where it is empty."""
        slope = self.l2 * w
        low = slope + jnp.where(w > 0, self.l1, -self.l1)
        high = slope + jnp.where(w < 0, -self.l1, self.l1)
        low = jnp.where(w == self.lower, -jnp.inf, low)
        high = jnp.where(w == self.upper, jnp.inf, high)
        outside = (w < self.lower) | (w > self.upper)
        return jnp.where(outside, jnp.nan, low), jnp.where(outside, jnp.nan, high)

    def smooth(self, w: Array) -> Array:
        return (w > self.lower) & (w < self.upper) & ((w != 0) | (self.l1 == 0))

    def slope_at(self, w: Array) -> Array:
        return self.l1 * jnp.sign(w) + self.l2 * w

    def conjugate(self, u: Array) -> Array:
        """phi*(u) = sup_w u*w - phi(w), coefficient by coefficient."""
        excess = prox.soft_threshold(u, jnp.broadcast_to(self.l1, u.shape))
        curved = self.l2 > 0
        w = excess / jnp.where(curved, self.l2, 1.0)
        w = jnp.where(curved | (excess == 0), w, jnp.copysign(jnp.inf, excess))
        w = prox.clip_to_bounds(w, self.lower, self.upper)
        at = jnp.where(jnp.isfinite(w), w, 0.0)
        return jnp.where(jnp.isfinite(w), at * (u - self.l1 * jnp.sign(at) - self.l2 / 2 * at), jnp.inf)

    def domain(self) -> tuple[Array, Array]:
        """The interval on which the conjugate is finite: the slopes of phi at -infinity and infinity."""
        low = jnp.where((self.l2 > 0) | jnp.isfinite(self.lower), -jnp.inf, -self.l1)
        high = jnp.where((self.l2 > 0) | jnp.isfinite(self.upper), jnp.inf, self.l1)
        return low, high

    def corners(self) -> tuple[Array, Array]:
        """The interval on which the conjugate is 0 or finite without the help of the curvature l2."""
        low = jnp.where(jnp.isfinite(self.lower), -jnp.inf, -self.l1)
        high = jnp.where(jnp.isfinite(self.upper), jnp.inf, self.l1)
        return low, high

    def free(self, w: Array) -> Array:
        """Where phi is the zero function, without bounds."""
        low, high = self.domain()
        return jnp.broadcast_to((low == 0) & (high == 0), w.shape)

    def unpriced(self, w: Array) -> Array:
        """Where phi is 0 at more than one point."""
        return jnp.broadcast_to((self.l1 == 0) & (self.l2 == 0) & (self.lower < self.upper), w.shape)

    def critical(self, u: Array, corner: float) -> Array:
        """The least lam with u in lam * [low, high], the interval at 0; unpenalised coefficients don't count."""
        low, high = self.interval(jnp.zeros_like(u))
        floor = corner * (self.l1 + self.l2)
        low = jnp.where(jnp.isfinite(low), jnp.minimum(low, -floor), low)
        high = jnp.where(jnp.isfinite(high), jnp.maximum(high, floor), high)
        side = jnp.where(u > 0, high, -low)
        free = (self.l1 == 0) & (self.l2 == 0) & jnp.isfinite(side)
        needed = jnp.where((u == 0) | free, 0.0, jnp.abs(u) / jnp.where(side > 0, side, 1.0))
        needed = jnp.where((side > 0) | (u == 0) | free, needed, jnp.inf)
        return jnp.max(jnp.where(jnp.isnan(low) | jnp.isnan(high), jnp.inf, needed), initial=0.0)

    def excess(self, u: Array) -> Array:
        """The part of `u` on sides where the conjugate's domain ends at 0."""
        low, high = self.domain()
        return jnp.where((high == 0) & (u > 0) | (low == 0) & (u < 0), u, 0.0)


def _scaled(bound: Array, scale: Array) -> Array:
    """bound * scale; no derivative where it is infinite, in which 0 * infinity would stand."""
    open_ = jnp.isinf(bound)
    return jnp.where(open_, bound, jnp.where(open_, 0.0, bound) * scale)


def fit(leaf: object, like: Array) -> Array:
    """A hyperparameter in the dtype of `like`, its axes matched to the leading axes of `like`."""
    a = jnp.asarray(leaf, like.dtype)
    if a.ndim and a.shape != like.shape:
        if a.ndim > like.ndim or any(m not in (1, n) for m, n in zip(a.shape, like.shape, strict=False)):
            raise ValueError(f"a hyperparameter of shape {a.shape} does not match coefficients of shape {like.shape}")
        a = a.reshape(a.shape + (1,) * (like.ndim - a.ndim))
    return a


@jax.custom_jvp
def _total(step: Array, a: Array) -> Array:
    """step * a, 0 for a = 0 whatever the step; compilers see through it where `a` is a constant 0."""
    return jnp.where(a == 0, jnp.zeros_like(step), step * a)


@_total.defjvp
def _total_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    step, a = primals
    finite = jnp.where((a == 0) & jnp.isinf(step), jnp.zeros_like(step), step)
    return _total(step, a), a * tangents[0] + finite * tangents[1]


@jax.custom_jvp
def _value(w: Array, l1: Array, l2: Array, lower: Array, upper: Array) -> Array:
    outside = (w < lower) | (w > upper)
    return jnp.where(outside, jnp.inf, l1 * jnp.abs(w) + l2 / 2 * w * w)  # l2 first: 0 of a huge w is 0


@_value.defjvp
def _value_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    w, l1, l2, lower, upper = primals
    dw, dl1, dl2, _, _ = tangents
    subgradient = Terms(l1, l2, lower, upper).nearest(w, jnp.zeros_like(w))
    magnitude = jnp.where(w < 0, -w, w)
    return _value(*primals), subgradient * dw + magnitude * dl1 + dl2 / 2 * w * w
