"""Differences that cancel, as series."""

import jax.numpy as jnp
from jax import Array


def exp_less_line(d: Array) -> Array:
    """exp(d) - 1 - d, to rounding, for |d| <= 1."""
    tail = jnp.ones_like(d)
    for k in range(20, 2, -1):
        tail = 1 + d / k * tail
    return d * d / 2 * tail


def line_less_log(u: Array) -> Array:
    """u - log(1 + u), to rounding, for |u| <= 1/3: log(1 + u) is 2*atanh(w) with w = u/(2 + u)."""
    w = u / (2 + u)
    tail = jnp.zeros_like(w)
    for k in range(21, 1, -2):
        tail = 1 / k + w * w * tail
    return u * w - 2 * w * w * w * tail
