"""The intercept alone: where a loss is least along a shift of all linear predictors."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps


def shift(loss: Any, eta: Array, y: Array, s: Array) -> Array:
    """argmin_b loss(eta + b, y, s), by Newton steps within a bracket, which is halved where they lead astray.

    For eta (n, k) there is one b for each output, all found side by side: none may have a bearing on another. Taken
    as a constant in derivatives: it only chooses the point from which b is counted.
    Source: Press, Teukolsky, Vetterling, Flannery (2007), "Numerical Recipes", section 9.4 (rtsafe).
    """
    eta, y, s = jax.lax.stop_gradient((eta, y, s))
    loss = jax.lax.stop_gradient(loss)

    def slope(b: Array) -> tuple[Array, Array]:
        """And its natural size there: far from the minimum gradients may be larger by any factor, so not elsewhere."""
        gradient = loss.gradient(eta + b[None], y, s)
        whole = jnp.sum(jnp.abs(gradient), axis=0)
        return jnp.sum(gradient, axis=0), jnp.where(jnp.isfinite(whole), whole, 0.0)

    def unfinished(carry: Any) -> Array:
        *_, going, k = carry
        return jnp.any(going) & (k < 200)

    def body(carry: Any) -> Any:
        b, g, low, high, last, (best, least), _, k = carry
        low, high = jnp.where(g < 0, b, low), jnp.where(g > 0, b, high)
        h = jnp.sum(loss.curvature(eta + b[None], y, s), axis=0)
        newton = -g / jnp.where(h > 0, h, 1.0)
        middle = low / 2 + high / 2
        bracketed = jnp.isfinite(middle)
        good = (h > 0) & (b + newton > low) & (b + newton < high) & (~bracketed | (jnp.abs(newton) <= last / 2))
        onward = b - jnp.sign(g) * 2 * jnp.where(jnp.isfinite(last), jnp.maximum(last, 1.0), 1.0)
        new = jnp.where(good, b + newton, jnp.where(bracketed, middle, onward))
        g, whole = slope(new)
        better = jnp.abs(g) < jnp.abs(least)
        best, least = jnp.where(better, new, best), jnp.where(better, g, least)
        # Near the end a step is Newton's and gains many digits, unless only rounding is left.
        rounding = jnp.where(better, eps(eta.dtype) / 4, eps(eta.dtype) ** 0.75)
        going = (jnp.abs(g) > rounding * whole) & (new != b)
        return new, g, low, high, jnp.abs(new - b), (best, least), going, k + 1

    start = jnp.zeros_like(jnp.sum(eta, axis=0))
    g, whole = slope(start)
    far = jnp.inf + 0 * start
    carry = (start, g, -far, far, far, (start, g), jnp.abs(g) > eps(eta.dtype) / 4 * whole, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, body, carry)[5][0]
