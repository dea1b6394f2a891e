"""Around training: how far a point is from optimal, zeros for averaged weights, zeros made final, zeros frozen."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from l1jax._arrays import compute_dtype, concrete, eps, numeric_leaf
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty, stacked, widened
from l1jax.transforms.base import as_dtype, check_params, spread, wide
from l1jax.transforms.masks import chosen, select, within
from l1jax.transforms.subgradient import tail


def kkt_residual(params: Any, grads: Any, penalty: Penalty, mask: Any = None) -> Array:
    """max_j |g_j + s_j|, s the subgradient of the penalty at w that is nearest to -g: 0 exactly where w is optimal.

    Args:
      params: the point w, a tree of arrays.
      grads: the gradient g of the loss there, on all data, without the penalty's.
      penalty: the penalty of all parameters that `mask` leaves it; of the others |g_j| counts.
      mask: which parameters are penalised: truth values in a tree like them, or a prefix of it, or a function to that.

    A scalar, for L1 at most max(|g| - lam, 0) at zeros and |g + lam*sign(w)| elsewhere; for penalties that are not
    convex it tells how far w is from stationary. Works under `jit`, in float32 at least.

    >>> import jax.numpy as jnp
    >>> print(f"{kkt_residual(jnp.array([2.0, 0.0]), jnp.array([-1.0, 1.25]), L1(1.0)):.2f}")
    0.25
    """
    check_penalty(penalty)
    w = widened(params)
    u = jax.tree.map(lambda g, a: -jnp.asarray(g).astype(a.dtype), grads, w)
    off = within(chosen(mask, params), lambda u, w: penalty.distance(w, u), u, w)
    return jnp.max(stacked([jnp.max(jnp.abs(a), initial=0.0) for a in jax.tree.leaves(off)]), initial=0.0)


def apply_prox(params: Any, penalty: Penalty, step: Any, mask: Any = None) -> Any:
    """argmin_z 1/2 |z - w|^2 + step * penalty(z): one proximal step, which gives weights that were averaged zeros.

    Args:
      params: the weights w, such as an exponential moving average of iterates, in which no zero survives.
      penalty: the penalty of all parameters that `mask` leaves it.
      step: at least 0: the learning rate of the training will do, a larger one cuts more. L1(lam) sets to zero what is
        at most step*lam. A number, a traced scalar, or a tree like `params`.
      mask: which parameters are penalised, as for `kkt_residual`.

    Keeps the tree and its dtypes; zeros are exact. Raises ValueError for a negative step, where it can be seen.

    >>> import jax.numpy as jnp
    >>> apply_prox(jnp.array([1.0, 0.01, -0.02]), L1(0.5), step=0.5)
    Array([0.75, 0.  , 0.  ], dtype=float32)
    """
    check_penalty(penalty)
    if concrete(step) and any(np.any(np.asarray(leaf) < 0) for leaf in jax.tree.leaves(step)):
        raise ValueError(f"step: want numbers of at least 0, got {step}")
    return within(chosen(mask, params), penalty.prox, params, spread(step, params))


class Polished(NamedTuple):
    """Where `polish` ended: the parameters, loss + penalty, the KKT residual, and how many steps were tried."""

    params: Any
    objective: Array
    residual: Array
    steps: Array


def polish(
    loss: Callable[[Any], Array],
    params: Any,
    penalty: Penalty,
    *,
    steps: int = 1000,
    tol: Any = 1e-6,
    mask: Any = None,
) -> Polished:
    """w <- prox(w - t*g, t), on all data, t as long as the objective falls: makes the zeros of noisy training final.

    Args:
      loss: the loss as a function of the parameters alone, on all data (or a large batch): the same each time.
      params: where to start, what training ended with: a tree of arrays, or a model that is one (equinox, flax nnx),
        whose leaves that are no floating arrays stay as they are.
      penalty: the penalty of all parameters that `mask` leaves it, at the strength of the training.
      steps: the most steps to try; each takes one gradient of `loss`.
      tol: stop where `kkt_residual` is at most this; in the units of the gradient, so mind lam.
      mask: which parameters are penalised, as for `kkt_residual`.

    Gives (params, objective, residual, steps). Minibatch noise moves parameters off zero and back; these steps settle
    which are zero. The loss need be neither convex nor smooth everywhere: a step is taken only if it lowers
    loss + penalty, and the objective never ends higher than it began but for its own rounding. Steps are the spectral
    ones of Barzilai and Borwein, shortened until accepted. Works under `jit`; dtypes are kept.

    Source: Wright, Nowak, Figueiredo (2009), "Sparse reconstruction by separable approximation", IEEE Trans. Signal
    Process. 57(7), algorithm SpaRSA, monotone.

    >>> import jax.numpy as jnp
    >>> done = polish(lambda w: jnp.sum((w - jnp.array([3.0, 0.4])) ** 2) / 2, jnp.array([1.0, 1.0]), L1(0.5))
    >>> done.params, f"{done.objective:.3f}"
    (Array([2.5, 0. ], dtype=float32), '1.455')
    """
    check_penalty(penalty)
    if not callable(loss):
        raise TypeError(f"loss: want a function of the parameters, got {loss!r}")
    numbers = jax.tree.map(lambda leaf: leaf if numeric_leaf(leaf) else None, params)
    check_params(numbers, mask)
    where, slope = chosen(mask, numbers), jax.value_and_grad(lambda numbers: loss(whole(numbers)))

    def whole(numbers: Any) -> Any:
        return jax.tree.map(lambda a, b: b if a is None else a, numbers, params, is_leaf=lambda a: a is None)

    def look(params: Any) -> _Point:
        value, grads = slope(params)
        dtype = compute_dtype(value.dtype)
        objective = value.astype(dtype) + penalty.value(select(where, params)).astype(dtype)
        return _Point(params, grads, objective, kkt_residual(params, grads, penalty, where).astype(dtype))

    def open_(state: _Search) -> Array:
        return (state.tried < steps) & (state.at.residual > tol) & state.moving

    def advance(state: _Search) -> _Search:
        at, t = state.at, state.step
        v = jax.tree.map(lambda w, g: wide(w) - as_dtype(t, w) * wide(g), at.params, at.grads)
        z = within(where, penalty.prox, v, jax.tree.map(lambda w: as_dtype(t, w), at.params))
        new = look(jax.tree.map(lambda a, w: a.astype(w.dtype), z, at.params))
        moved = jax.tree.map(lambda a, w: wide(a) - wide(w), new.params, at.params)
        turned = jax.tree.map(lambda a, b: wide(a) - wide(b), new.grads, at.grads)
        length, bend = _dot(moved, moved).astype(t.dtype), _dot(moved, turned).astype(t.dtype)
        # Near the end the objective's fall is below its rounding: there the gradients tell whether t is too long.
        level = state.lowest + 16 * eps(t.dtype) * jnp.abs(state.lowest)
        falls = new.objective <= at.objective - 1e-4 * length / (2 * t)
        accept = falls | ((new.objective <= level) & (bend * t <= length))
        known = (bend > 0) & jnp.isfinite(length)
        spectral = jnp.where(known, length / jnp.where(known, bend, 1.0), jnp.inf)
        longer, shorter = jnp.clip(spectral, t / 100, 100 * t), jnp.clip(spectral, t / 100, t / 4)
        return _Search(
            jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, at),
            jnp.where(accept, longer, shorter),
            jnp.where(accept, jnp.minimum(state.lowest, new.objective), state.lowest),
            state.tried + 1,
            length != 0,
        )

    start = look(numbers)
    search = _Search(start, jnp.ones_like(start.objective), start.objective, jnp.zeros((), jnp.int32), jnp.array(True))
    end = jax.lax.while_loop(open_, advance, search)
    return Polished(whole(end.at.params), end.at.objective, end.at.residual, end.tried)


class _Point(NamedTuple):
    """A point of the search and what is known of it."""

    params: Any
    grads: Any
    objective: Array
    residual: Array


class _Search(NamedTuple):
    """The best point, the next step's length, the lowest objective, steps tried, whether the last one moved at all."""

    at: _Point
    step: Array
    lowest: Array
    tried: Array
    moving: Array


def freeze_support(mask: Any = None) -> optax.GradientTransformationExtraArgs:
    """u <- 0 where w = 0: zeros stay zero, and the others are trained on, without penalty if none is in the chain.

    Args:
      mask: which parameters keep their zeros: truth values in a tree like them, or a prefix of it, or a function to
        that. Without one all do, also biases that have not left the zero they were initialised with: `weights_only`
        spares them.

    The tail of a chain: `optax.chain(optax.adam(1e-3), l1jax.freeze_support())` after sparse training undoes the
    shrinkage of the survivors (debiasing). The optimisers' own `freeze_after` does so within one run.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = optax.chain(optax.sgd(0.1), freeze_support()), jnp.array([1.0, 0.0])
    >>> updates, _ = tx.update(jnp.array([-2.0, -2.0]), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([1.2, 0. ], dtype=float32)
    """
    return tail("freeze_support", lambda u, w: jnp.where(w == 0, jnp.zeros_like(u), u), mask)


def _dot(a: Any, b: Any) -> Array:
    return jnp.sum(stacked([jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]))
