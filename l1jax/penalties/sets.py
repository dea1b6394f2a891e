"""Indicator functions of convex sets: 0 inside, infinite outside."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax import prox
from l1jax._arrays import ABOVE_0, LARGEST, eps, set_hyperparameter
from l1jax._node import node
from l1jax.penalties.base import Elementwise, Strengthless, stacked
from l1jax.penalties.combinators import Bounds
from l1jax.penalties.elementwise import NoPenalty
from l1jax.penalties.norms import Joint
from l1jax.penalties.terms import Terms


class _Set(Strengthless, Joint):
    """A set of radius `radius`; it has no strength."""

    radius: Any

    def inside(self, w: Array) -> Array:
        """Whether one array lies in the set, to rounding."""
        return jnp.max(jnp.abs(w - self.project_leaf(w)), initial=0.0) <= 16 * eps(w.dtype) * self._radius(w)

    @abc.abstractmethod
    def project_leaf(self, v: Array) -> Array:
        """The nearest point of the set."""

    def value(self, w: Any) -> Array:
        def indicator(leaf: Array) -> Array:
            kept = jax.lax.stop_gradient(self.inside(leaf))
            return jnp.where(kept, jnp.zeros((), leaf.dtype), jnp.inf)

        return jnp.sum(stacked(self._each(indicator, w)))

    def leaf_prox(self, v: Array, step: Array) -> Array:
        return self.project_leaf(v)

    def leaf_nearest(self, w: Array, u: Array) -> Array:
        return jnp.where(self.inside(w), self.normal(w, u), jnp.nan)

    @abc.abstractmethod
    def normal(self, w: Array, u: Array) -> Array:
        """The element of the normal cone at `w` that is nearest to `u`."""

    @abc.abstractmethod
    def support(self, u: Array) -> Array:
        """sup of <u, w> over the set."""

    def conjugate(self, u: Any) -> Array:
        return jnp.sum(stacked(self._each(self.support, u)))

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return jnp.zeros_like(self.conjugate(u))

    def scalings(self, u: Any) -> tuple[Array, Array]:
        conjugate = self.conjugate(u)
        return jnp.ones_like(conjugate)[None], conjugate[None]

    def valid(self, w: Any) -> Array:
        radius = jnp.asarray(self.radius)
        return jnp.all((radius > 0) & jnp.isfinite(radius))

    def _radius(self, leaf: Array) -> Array:
        return jnp.asarray(self.radius, leaf.dtype)


def _common(a: Array, on: Array) -> Array:
    """argmin_t of the sum over `on` of (a - t)^2 and over the rest of max(a - t, 0)^2: a mean, once known of whom."""

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        t = (low + high) / 2
        rising = jnp.sum(jnp.where(on, t - a, jnp.minimum(t - a, 0.0))) > 0
        return jnp.where(rising, low, t), jnp.where(rising, t, high)

    low, high = jax.lax.fori_loop(0, 60, halve, (jnp.min(a), jnp.max(a)))
    counted = on | (a > (low + high) / 2)
    return jnp.sum(jnp.where(counted, a, 0.0)) / jnp.maximum(jnp.sum(counted, dtype=a.dtype), 1.0)


@node
class L1Ball(_Set):
    """0 where sum |w| <= radius, else infinite.

    Args:
      radius: above 0, in the units of the coefficients.

    prox: the projection, soft-thresholding at the level that leaves `radius`, whatever the step. conjugate: radius *
    max |u|, finite everywhere. It has no strength, and so no lambda_max and no grid: pass several radii. Certificate:
    duality gap. Raises ValueError for a radius that is not above 0.

    Source: Duchi, Shalev-Shwartz, Singer, Chandra (2008), "Efficient projections onto the l1-ball for learning in high
    dimensions", ICML.

    >>> import jax.numpy as jnp
    >>> L1Ball(2.0).prox(jnp.array([3.0, -1.5, 0.2]), 1.0)
    Array([ 1.75, -0.25,  0.  ], dtype=float32)
    """

    radius: Any = 1.0

    def __post_init__(self) -> None:
        set_hyperparameter(self, "radius", ABOVE_0, LARGEST, "a number above 0")

    def project_leaf(self, v: Array) -> Array:
        return (v.ravel() - prox.clip_to_total(v.ravel(), self._radius(v))).reshape(v.shape)

    def normal(self, w: Array, u: Array) -> Array:
        t = jnp.maximum(_common(jnp.where(w == 0, jnp.abs(u), u * jnp.sign(w)), w != 0), 0.0)
        on_the_edge = jnp.sum(jnp.abs(w)) >= self._radius(w) * (1 - 64 * eps(w.dtype))
        cone = jnp.where(w == 0, jnp.clip(u, -t, t), t * jnp.sign(w))
        return jnp.where(on_the_edge, cone, jnp.zeros_like(u))

    def support(self, u: Array) -> Array:
        return self._radius(u) * jnp.max(jnp.abs(u), initial=0.0)


@node
class Simplex(_Set):
    """0 where w >= 0 and sum w = radius, else infinite.

    Args:
      radius: what the coefficients sum to, above 0; 1 for shares.

    prox: the projection, v less a level where that is positive, whatever the step. conjugate: radius * max u, finite
    everywhere. No strength, as `L1Ball`; 0 is no point of it. Certificate: duality gap.

    Source: Held, Wolfe, Crowder (1974), "Validation of subgradient optimization", Math. Programming 6.

    >>> import jax.numpy as jnp
    >>> Simplex().prox(jnp.array([0.75, 0.5, -0.5]), 1.0)
    Array([0.625, 0.375, 0.   ], dtype=float32)
    """

    radius: Any = 1.0

    def __post_init__(self) -> None:
        set_hyperparameter(self, "radius", ABOVE_0, LARGEST, "a number above 0")

    def project_leaf(self, v: Array) -> Array:
        least = prox.level(v.ravel(), self._radius(v))
        return jnp.where(v > least, v - least, jnp.zeros_like(v))

    def normal(self, w: Array, u: Array) -> Array:
        t = _common(u, w > 0)
        return jnp.where(w > 0, t, jnp.minimum(u, t))

    def support(self, u: Array) -> Array:
        return self._radius(u) * jnp.max(u, initial=-jnp.inf)

    def critical_lam(self, u: Any, corner: float = 0.0) -> Array:
        return jnp.full_like(self.conjugate(u), jnp.inf)


@node
class Box(Strengthless, Elementwise):
    """0 where lower <= w <= upper, else infinite.

    Args:
      lower, upper: numbers, or arrays that match the coefficients' leading axes; infinite for none.

    prox: clipping, whatever the step. conjugate: sum max(lower*u, upper*u). `Bounds(penalty, lower, upper)` adds a
    price. Raises ValueError where lower > upper. Certificate: duality gap.

    Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.

    >>> import jax.numpy as jnp
    >>> Box(0.0, 1.0).prox(jnp.array([-0.5, 0.3, 2.0]), 1.0)
    Array([0. , 0.3, 1. ], dtype=float32)
    """

    lower: Any = -jnp.inf
    upper: Any = jnp.inf

    def __post_init__(self) -> None:
        checked = self._bounds
        object.__setattr__(self, "lower", checked.lower)
        object.__setattr__(self, "upper", checked.upper)

    @property
    def _bounds(self) -> Bounds:
        return Bounds(NoPenalty(), self.lower, self.upper)

    def terms(self, w: Any) -> list[Terms]:
        return self._bounds.terms(w)
