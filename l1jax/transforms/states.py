"""What the transformations remember: plain arrays in named tuples, so that every checkpointer can keep them."""

from typing import Any, NamedTuple

import jax
from jax import Array


class ProximalState(NamedTuple):
    """The direction's state, and the number of steps taken."""

    direction: Any
    steps: Array


class FistaState(NamedTuple):
    """The sparse iterate, the momentum's number, and what the safe step has seen."""

    iterate: Any
    momentum: Array
    steepness: Array
    point: Any
    gradient: Any
    steps: Array


class FtrlState(NamedTuple):
    """Sums of gradients less the pull of past iterates, what they round off, sums of squares, the last rate, weight."""

    sums: Any
    lost: Any
    squares: Any
    rate: Array
    weight: Array
    steps: Array


class DualState(NamedTuple):
    """The start, weighted sums of gradients (and of their squares), the penalty's weight, the sparse iterate."""

    start: Any
    sums: Any
    squares: Any
    weight: Array
    iterate: Any
    steps: Array


KINDS = (ProximalState, FistaState, FtrlState, DualState)


def iterate(state: Any, params: Any) -> Any:
    """The point that a transformation stands for: the sparse iterate of `fista` and `ramda`, `params` for all others.

    Args:
      state: the transformation's state (a chain's too).
      params: the parameters that belong to it.

    >>> import jax.numpy as jnp, optax
    >>> params = jnp.array([1.0, 0.0])
    >>> iterate(optax.adam(0.1).init(params), params)
    Array([1., 0.], dtype=float32)
    """
    for own in _own_states(state):
        if getattr(own, "iterate", None) is not None:
            return own.iterate
    return params


def carries_penalty(state: Any) -> bool:
    """Whether a transformation with this state holds a penalty of its own."""
    return bool(_own_states(state))


def _own_states(state: Any) -> list[Any]:
    return [s for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, KINDS)) if isinstance(s, KINDS)]
