"""Proximal maps as plain functions: `prox(v) = argmin_w 1/2 (w - v)^2 + f(w)`, coefficient by coefficient.

Arguments broadcast, scalars against arrays. All maps can be jitted, batched and differentiated (where a map has
a kink, the derivative is that of the side on which the answer is constant), and none returns -0.0.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import floating, unsigned_zero


def soft_threshold(v: ArrayLike, t: ArrayLike) -> Array:
    """sign(v) * max(|v| - t, 0): the proximal map of t*|w|.

    Args:
      v: the points, of any shape.
      t: the thresholds, at least 0, in the units of `v`; infinity gives 0.

    Source: Donoho (1995), "De-noising by soft-thresholding", IEEE Trans. Inf. Theory 41(3), eq. 5.

    >>> import jax.numpy as jnp
    >>> soft_threshold(jnp.array([-3.0, -0.5, 2.0]), 1.0)
    Array([-2.,  0.,  1.], dtype=float32)
    """
    v = floating(v)
    t = jnp.asarray(t, v.dtype)
    inside = (jnp.abs(v) <= t) & (t > 0)  # without a threshold there is no kink at 0
    return jnp.where(inside, jnp.zeros_like(v), v - jnp.copysign(t, v))


def shrink(v: ArrayLike, t: ArrayLike) -> Array:
    """v / (1 + t): the proximal map of t/2 * w^2 (never exactly zero unless v is).

    Args:
      v: the points, of any shape.
      t: the curvatures, at least 0, without unit.

    Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.1.1.

    >>> import jax.numpy as jnp
    >>> shrink(jnp.array([-3.0, 1.0]), 1.0)
    Array([-1.5,  0.5], dtype=float32)
    """
    v = floating(v)
    return unsigned_zero(v / (1 + jnp.asarray(t, v.dtype)))


def elastic_net(v: ArrayLike, t1: ArrayLike, t2: ArrayLike) -> Array:
    """soft_threshold(v, t1) / (1 + t2): the proximal map of t1*|w| + t2/2 * w^2.

    Args:
      v: the points, of any shape.
      t1: the thresholds, at least 0, in the units of `v`.
      t2: the curvatures, at least 0, without unit.

    Source: Zou and Hastie (2005), "Regularization and variable selection via the elastic net", eq. 12 without
    their rescaling.

    >>> import jax.numpy as jnp
    >>> elastic_net(jnp.array([-3.0, 0.5]), 1.0, 1.0)
    Array([-1.,  0.], dtype=float32)
    """
    return shrink(soft_threshold(v, t1), t2)


def clip_to_bounds(v: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
    """min(max(v, lower), upper): the proximal map of the indicator of [lower, upper], whatever the step.

    Args:
      v: the points, of any shape.
      lower: the least values, in the units of `v`; -infinity for none.
      upper: the greatest values; infinity for none.

    After the proximal map of any convex function of one coefficient it gives the map of that function plus the
    bounds. Source: Parikh and Boyd (2014), "Proximal Algorithms", section 6.2.4.

    >>> import jax.numpy as jnp
    >>> clip_to_bounds(jnp.array([-3.0, 0.5]), 0.0, jnp.inf)
    Array([0. , 0.5], dtype=float32)
    """
    v = floating(v)
    lower, upper = jnp.asarray(lower, v.dtype), jnp.asarray(upper, v.dtype)
    return unsigned_zero(jnp.where(v <= lower, lower, jnp.where(v >= upper, upper, v)))
