"""Scalar functions of |w|, concave on either side of 0: all that nonconvex separable penalties are made of."""

import abc
import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._node import node
from l1jax.penalties.terms import Scalar


class Curve(Scalar):
    """A scalar function phi of |w| at strength lam, concave on either side of 0; what `Terms` is to convex ones.

    Fields are arrays that broadcast against the coefficients; an infinite lam fixes a coefficient at 0.
    """

    lam: Array

    @abc.abstractmethod
    def at(self, size: Array, lam: Array) -> Array:
        """phi at |w| = size, for a finite lam."""

    @abc.abstractmethod
    def slope(self, size: Array, lam: Array) -> Array:
        """The derivative of phi at |w| = size, from the right; infinite where it is vertical."""

    @abc.abstractmethod
    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        """A global minimiser of (w - v)^2/2 + step*phi(w), the smaller of two."""

    def _parts(self) -> tuple[Array, Array]:
        pinned = jnp.isinf(self.lam)
        return jnp.where(pinned, 0.0, self.lam), pinned

    def value(self, w: Array) -> Array:
        lam, pinned = self._parts()
        size = w * jax.lax.stop_gradient(jnp.sign(w))  # its derivative at 0 is 0, the subgradient of least norm
        bent = jnp.where(size == 0, 0.0 * size, self.at(jnp.where(size == 0, 1.0, size), lam))
        return jnp.sum(jnp.where(pinned & (w != 0), jnp.inf, bent))

    def prox(self, v: Array, step: Array) -> Array:
        lam, pinned = self._parts()
        return jnp.where(pinned, jnp.zeros_like(v), self.threshold(v, lam, jnp.where(lam == 0, 0.0, step)))

    def interval(self, w: Array) -> tuple[Array, Array]:
        lam, pinned = self._parts()
        slope = jnp.where(lam == 0, 0.0, self.slope(jnp.abs(w), lam))
        slope = jnp.where(pinned, jnp.where(w == 0, jnp.inf, jnp.nan), slope)
        return jnp.where(w > 0, slope, -slope), jnp.where(w < 0, -slope, slope)

    def smooth(self, w: Array) -> Array:
        return ((w != 0) | (self.lam == 0)) & ~jnp.isinf(self.lam)

    def slope_at(self, w: Array) -> Array:
        lam, _ = self._parts()
        some = w != 0
        return jnp.where(some, jnp.sign(w) * self.slope(jnp.where(some, jnp.abs(w), 1.0), lam), 0.0)

    def project(self, w: Array) -> Array:
        return jnp.where(jnp.isinf(self.lam), jnp.zeros_like(w), w)

    def conjugate(self, u: Array) -> Array:
        return jnp.full_like(u, jnp.nan)

    def domain(self) -> tuple[Array, Array]:
        bound = jnp.where(self.lam == 0, 0.0, jnp.inf)
        return -bound, bound

    corners = domain

    def free(self, w: Array) -> Array:
        return jnp.broadcast_to(self.lam == 0, w.shape)

    unpriced = free

    def excess(self, u: Array) -> Array:
        return jnp.where(self.free(u), u, 0.0)

    def valid(self) -> Array:
        return jnp.all(self.lam >= 0)

    def critical(self, u: Array, corner: float) -> Array:
        """The least factor of lam from which 0 is stationary where minus the loss's gradient is `u`."""
        _, high = self.interval(jnp.zeros_like(u))
        return jnp.max(jnp.where(high > 0, jnp.abs(u) / jnp.where(high > 0, high, 1.0), 0.0), initial=0.0)

    # -- the algebra: what combinators and units need

    def times(self, factor: Array) -> Self:
        """The same at strength lam * factor; an infinite factor fixes the coefficient at 0 (also where lam = 0)."""
        lam = jnp.where(jnp.isinf(factor), jnp.inf, self.lam * jnp.where(jnp.isinf(factor), 1.0, factor))
        return dataclasses.replace(self, lam=lam)  # type: ignore[type-var]

    def where(self, mask: Array) -> Self:
        """The same where `mask`, the zero function elsewhere."""
        return dataclasses.replace(self, lam=jnp.where(mask, self.lam, 0.0))  # type: ignore[type-var]

    def in_units(self, strength: Array, scale: Array) -> "CurveInUnits":
        """z -> phi(strength * z)."""
        return CurveInUnits(self, strength)

    def clipped(self, lower: Array, upper: Array) -> Self:
        raise TypeError(f"{type(self).__name__}: bounds on a nonconvex penalty are not supported")

    def scaled(self, factor: Array) -> Self:
        raise TypeError(f"{type(self).__name__}: a sum with a nonconvex penalty has no exact proximal map")

    plus = scaled


@node
class CurveInUnits(Curve):
    """z -> inner(strength * z)."""

    inner: Any
    strength: Array

    @property
    def lam(self) -> Array:  # type: ignore[override]
        return self.inner.lam

    def at(self, size: Array, lam: Array) -> Array:
        return self.inner.at(self.strength * size, lam)

    def slope(self, size: Array, lam: Array) -> Array:
        return self.strength * self.inner.slope(self.strength * size, lam)

    def threshold(self, v: Array, lam: Array, step: Array) -> Array:
        return self.inner.threshold(self.strength * v, lam, self.strength**2 * step) / self.strength
