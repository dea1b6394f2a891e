"""The article's gradient: the penalty's slope added to the loss's, and the stop at zero that makes zeros of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty
from l1jax.transforms.base import Step, as_dtype, at, check_params, needed, wide
from l1jax.transforms.masks import chosen, within
from l1jax.transforms.states import ProximalState


def add_subgradient(penalty: Penalty, strength: Step = 1.0, mask: Any = None) -> optax.GradientTransformationExtraArgs:
    """g <- g + strength * s, s the penalty's subgradient of least norm at w: for L1, lam * sign(w).

    Args:
      penalty: the penalty of all parameters that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule of the step count, or a traced scalar.
      mask: which parameters are penalised, as in optax: a tree of truth values, a prefix of it, or a function to one.

    The L1 sibling of `optax.add_decayed_weights`: put it first in a chain. Training with it steps over zero, back and
    forth: small parameters, none exactly zero. `stop_at_zero` at the end of the chain, or `proximal`, makes zeros.

    Source: Shor (1985), "Minimization methods for non-differentiable functions", Springer.

    >>> import jax.numpy as jnp, optax
    >>> tx = optax.chain(add_subgradient(L1(0.5)), optax.sgd(1.0))
    >>> params = jnp.array([2.0, 0.0, -2.0])
    >>> updates, _ = tx.update(jnp.zeros(3), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([ 1.5,  0. , -1.5], dtype=float32)
    """
    check_penalty(penalty)

    def init(params: Any) -> ProximalState:
        check_params(params, mask)
        return ProximalState(None, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: ProximalState, params: Any = None, **extra: Any) -> tuple[Any, ProximalState]:
        params, weight = needed(params, "add_subgradient"), at(strength, state.steps)

        def add(grads: Any, params: Any) -> Any:
            slopes = penalty.subgradient(jax.tree.map(wide, params))
            return jax.tree.map(lambda g, s: (wide(g) + as_dtype(weight, g) * as_dtype(s, g)).astype(g.dtype),
                                grads, slopes)  # fmt: skip

        grads = within(chosen(mask, params), add, grads, params)
        return grads, ProximalState(None, optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(init, update)


def stop_at_zero(mask: Any = None) -> optax.GradientTransformationExtraArgs:
    """u <- -w where w and w + u have opposite signs: a step that would cross zero ends there.

    Args:
      mask: which parameters may stop, as in optax: a tree of truth values, a prefix of it, or a function to one.

    The tail of a chain with `add_subgradient`, after the learning rate. A parameter at zero is free to leave it, so
    that noise moves it off and on; `proximal` holds it there while the gradient is smaller than lam.

    Source: Andrew and Gao (2007), "Scalable training of L1-regularized log-linear models", ICML: the projection onto
    the orthant of w.

    >>> import jax.numpy as jnp, optax
    >>> tx = optax.chain(add_subgradient(L1(0.5)), optax.sgd(1.0), stop_at_zero())
    >>> params = jnp.array([2.0, 0.3, -0.3])
    >>> updates, _ = tx.update(jnp.zeros(3), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([1.5, 0. , 0. ], dtype=float32)
    """

    def stop(u: Array, p: Array) -> Array:
        return jnp.where((p > 0) & (p + u < 0) | (p < 0) & (p + u > 0), -p, u)

    return tail("stop_at_zero", stop, mask)


def tail(name: str, act: Callable[[Array, Array], Array], mask: Any) -> optax.GradientTransformationExtraArgs:
    """The transformation u <- act(u, w) of each array that `mask` leaves it, without a state."""

    def init(params: Any) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Any, state: optax.EmptyState, params: Any = None, **extra: Any) -> tuple[Any, optax.EmptyState]:
        params = needed(params, name)
        return within(chosen(mask, params), lambda u, w: jax.tree.map(act, u, w), updates, params), state

    return optax.GradientTransformationExtraArgs(init, update)
