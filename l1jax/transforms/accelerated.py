"""Accelerated proximal gradient, for full gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax._arrays import eps
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty
from l1jax.transforms.base import Step, as_dtype, at, check_params, frozen, needed, shrunk, wide, widest
from l1jax.transforms.masks import chosen
from l1jax.transforms.states import FistaState


def fista(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """x <- prox(y - t*g(y), t); y <- x + momentum * (x - x_before): accelerated proximal gradient, with restart.

    Args:
      learning_rate: the largest step t, 1/L for a gradient with Lipschitz constant L: a number, a schedule of the
        step count, or traced. The step is shortened for good when successive gradients show a larger L.
      penalty: the penalty of all parameters that `mask` leaves it, convex.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      mask, freeze_after: as for `proximal`; the support is that of x.

    `params` is the point y at which gradients are taken; the sparse iterate x is in the state:
    `l1jax.iterate(state, params)`. For full gradients: momentum without restart does not survive minibatch noise.

    Source: Beck and Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sci. 2(1),
    eqs. 4.1-4.3; restart of O'Donoghue and Candès (2015), Found. Comput. Math. 15, eq. 12 (gradient scheme).

    >>> import jax.numpy as jnp, optax
    >>> tx = fista(0.5, L1(1.0))
    >>> params = jnp.array([1.0, 0.05])
    >>> state = tx.init(params)
    >>> for _ in range(30):
    ...     updates, state = tx.update(params - jnp.array([3.0, 0.5]), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> iterate(state, params).round(3)
    Array([2., 0.], dtype=float32)
    """
    check_penalty(penalty)

    def init(params: Any) -> FistaState:
        check_params(params, mask)
        one = jnp.ones((), widest(params))
        zeros = jax.tree.map(jnp.zeros_like, params)
        return FistaState(params, one, one * 0, params, zeros, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: FistaState, params: Any = None, **extra: Any) -> tuple[Any, FistaState]:
        y, x = needed(params, "fista"), state.iterate
        dtype = state.momentum.dtype
        steepness = jnp.where(state.steps > 0, _curvature_seen(grads, y, state, dtype), 0.0)
        steepness = jnp.maximum(state.steepness, steepness)
        rate = at(learning_rate, state.steps, dtype)
        step = rate / jnp.maximum(1.0, rate * steepness)
        weight = at(strength, state.steps, dtype)
        ahead = jax.tree.map(lambda p, g: wide(p) - step.astype(wide(p).dtype) * wide(g), y, grads)
        amount = jax.tree.map(lambda p: as_dtype(step * weight, p), y)
        z = shrunk(penalty, chosen(mask, params), ahead, amount, frozen(freeze_after, state.steps), x)
        new = jax.tree.map(lambda a, p: a.astype(p.dtype), z, y)
        moved = jax.tree.map(jnp.subtract, new, x)
        uphill = _inner(jax.tree.map(jnp.subtract, y, new), moved, dtype) > 0
        t = jnp.where(uphill, 1.0, state.momentum)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        beta = jnp.where(uphill, 0.0, (t - 1) / t_next)
        updates = jax.tree.map(lambda a, m, p: a + beta.astype(m.dtype) * m - p, new, moved, y)
        return updates, FistaState(new, t_next, steepness, y, grads, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def _curvature_seen(grads: Any, y: Any, state: FistaState, dtype: Any) -> Array:
    """|dg|^2 / <dg, dy>: at most L, and above 1/step only if the step is too long. 0 where rounding rules."""
    dg = jax.tree.map(jnp.subtract, grads, state.gradient)
    dy = jax.tree.map(jnp.subtract, y, state.point)
    inner, size = _inner(dg, dy, dtype), _inner(dg, dg, dtype)
    noise = eps(dtype) * (_inner(grads, grads, dtype) + _inner(state.gradient, state.gradient, dtype))
    clear = (inner > 0) & (size > noise)
    return jnp.where(clear, size / jnp.where(clear, inner, 1.0), 0.0)


def _inner(a: Any, b: Any, dtype: Any) -> Array:
    parts = jax.tree.map(lambda x, y: jnp.sum(wide(x) * wide(y)).astype(dtype), a, b)
    return jax.tree.reduce(jnp.add, parts, jnp.zeros((), dtype))
