"""Proximal updates as optax transformations. The prox step lives here, once; `solve` and training share it.

Each emits `-p` where the new parameter is 0, so that `optax.apply_updates` gives exact zeros.
"""

import warnings
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax._arrays import compute_dtype
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty
from l1jax.transforms.masks import chosen, select, within
from l1jax.transforms.metrics import Euclidean, Metric, check_direction, check_euclidean
from l1jax.transforms.states import ProximalState

Step: TypeAlias = float | Array | optax.Schedule


def proximal(
    direction: optax.GradientTransformation,
    penalty: Penalty,
    learning_rate: Step,
    *,
    strength: Step = 1.0,
    metric: Metric = Euclidean(),
    decoupled: bool = False,
    exact: bool = False,
    weight_decay: Step | None = None,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate * d, learning_rate * strength * D): a direction d = D g, then the prox in its metric.

    Args:
      direction: a transformation that gives the unscaled direction, such as `optax.scale_by_adam()`,
        `optax.trace(0.9)` or `optax.identity()`: it must not hold a learning rate of its own.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      strength: multiplies the penalty; a number, a schedule (a warm-up, say) or a traced scalar.
      metric: how `direction` scales the gradient: `Euclidean()`, `TraceMetric(decay)`, `AdamMetric()`, `RmsMetric()`
        or `AdagradMetric()`. Its fixed point minimises loss + strength * penalty only if this is right.
      decoupled: leave D out of the prox, as AdamW leaves it out of weight decay. That is another problem, in which lam
        is compared with the gradient's signal-to-noise ratio: lam near 0.01 to 0.5, whatever the loss.
      exact: penalties of groups in the direction's own metric, by Newton's method on a scalar equation per group. By
        default the entries of a group share one scale in d and in the prox: that of their mean second moment.
      weight_decay: adds weight_decay * w to d, before the prox and outside the metric; a number, schedule or traced.
      mask: which parameters are penalised, as in optax: truth values in a tree like them, or a prefix of it, or a
        function from them to that, such as `weights_only`. The others are trained without penalty.
      freeze_after: a step count from which zeros stay zero and the others are trained without penalty (bounds kept).

    Updates have the dtypes of the parameters; the prox is taken in float32 at least. Whatever moves parameters after
    the prox loses its zeros: a transformation chained behind it, `schedule_free` or an average of iterates around it
    (of 14 optimisers under three such wrappers, at most 31 % of the zeros were left, mostly none: then `apply_prox`).
    Raises ValueError where the direction is seen to have another metric than the one told, or to be schedule-free;
    TypeError for complex parameters; warns of penalised parameters below float32.

    Source: Yun, Lozano, Yang (2021), "Adaptive proximal gradient methods for structured neural networks", NeurIPS,
    algorithm 1.

    >>> import jax.numpy as jnp, optax
    >>> tx = proximal(optax.identity(), L1(1.0), learning_rate=0.1)
    >>> params = jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([0.7, 0. ], dtype=float32)
    """
    check_penalty(penalty)
    inner = optax.with_extra_args_support(direction)

    def init(params: Any) -> ProximalState:
        check_params(params, mask)
        state = inner.init(params)
        check_direction(state)
        if isinstance(metric, Euclidean) and not decoupled:
            check_euclidean(state)
        return ProximalState(state, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: ProximalState, params: Any = None, **extra: Any) -> tuple[Any, ProximalState]:
        params, penalised = needed(params, "proximal"), chosen(mask, params)
        d, direction_state = inner.update(grads, state.direction, params, **extra)
        rate, weight = at(learning_rate, state.steps), at(strength, state.steps)

        def scales(state: Any) -> Any:
            return spread(1.0 if decoupled else metric.scale(state, params), params)

        scale = scales(direction_state)
        if not exact:
            # Behind a barrier: a metric that the direction and a group's mean both use would be written to memory.
            fresh = scales(jax.lax.optimization_barrier(direction_state))  # type: ignore[no-untyped-call]
            shared = within(penalised, penalty.blockwise, fresh)
            scale, own = jax.tree.map(lambda a, b, c: c if a is b else a, shared, fresh, scale), scale
            d = jax.tree.map(_rescaled, d, own, scale)
        if weight_decay is not None:
            decay = at(weight_decay, state.steps)
            d = jax.tree.map(lambda a, p: wide(a) + as_dtype(decay, p) * wide(p), d, params)
        v = jax.tree.map(lambda p, a: wide(p) - as_dtype(rate, p) * wide(a), params, d)
        step = jax.tree.map(lambda a, p: as_dtype(rate, p) * as_dtype(weight, p) * as_dtype(a, p), scale, params)
        z = shrunk(penalty, penalised, v, step, frozen(freeze_after, state.steps), params)
        return to_reach(z, params), ProximalState(direction_state, optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(init, update)


def prox_update(
    penalty: Penalty,
    learning_rate: Step,
    *,
    strength: Step = 1.0,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w + update, learning_rate * strength): the tail of a chain of plain gradient steps.

    Args:
      penalty: the penalty of all parameters that `mask` leaves it.
      learning_rate: that of the chain before it, told again: a number, a schedule of the step count, or traced. If
        the two differ, so do the penalty's strength and the one meant: `proximal` says it once.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      mask, freeze_after: as for `proximal`.

    It must come last, after `optax.sgd` without momentum: after momentum or Adam the metric would be wrong, and with
    it the strength of the penalty. `proximal` knows theirs.

    Source: Beck and Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sci. 2(1),
    eq. 2.3.

    >>> import jax.numpy as jnp, optax
    >>> tx = optax.chain(optax.sgd(0.1), prox_update(L1(1.0), learning_rate=0.1))
    >>> params = jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([0.7, 0. ], dtype=float32)
    """
    check_penalty(penalty)

    def init(params: Any) -> ProximalState:
        check_params(params, mask)
        return ProximalState(None, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: ProximalState, params: Any = None, **extra: Any) -> tuple[Any, ProximalState]:
        params = needed(params, "prox_update")
        rate, weight = at(learning_rate, state.steps), at(strength, state.steps)
        step = jax.tree.map(lambda p: as_dtype(rate, p) * as_dtype(weight, p), params)
        v = jax.tree.map(lambda p, a: wide(p) + wide(a), params, updates)
        z = shrunk(penalty, chosen(mask, params), v, step, frozen(freeze_after, state.steps), params)
        return to_reach(z, params), ProximalState(None, optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(init, update)


def frozen(freeze_after: Any, steps: Array) -> Any:
    """Whether the support is fixed at this step; None if it never will be."""
    return None if freeze_after is None else steps >= freeze_after


def shrunk(penalty: Penalty, penalised: Any, v: Any, step: Any, fixed: Any, w: Any, plain: Any = None) -> Any:
    """prox(v, step); once the support is `fixed`, `plain` (by default v) where w is alive and 0 elsewhere."""
    z = within(penalised, penalty.prox, v, step)
    if fixed is None:
        return z

    def keep(v: Any, w: Any) -> Any:
        return penalty.project(jax.tree.map(lambda a, b: jnp.where(a, b, jnp.zeros_like(b)), penalty.alive(w), v))

    kept = within(penalised, keep, v if plain is None else plain, w)
    return jax.tree.map(lambda a, b: jnp.where(fixed, a, b), kept, z)


def to_reach(z: Any, params: Any) -> Any:
    """The update that takes `params` to z, in the dtypes of `params`; where z is 0 it is -params, exactly."""
    return jax.tree.map(lambda a, p: (a - wide(p)).astype(p.dtype), z, params)


def check_params(params: Any, mask: Any) -> None:
    """Refuse complex parameters, and warn of those in which the penalty's small steps are lost."""
    leaves = jax.tree_util.tree_leaves_with_path(select(chosen(mask, params), params))
    for path, leaf in leaves:
        dtype, name = getattr(leaf, "dtype", None), jax.tree_util.keystr(path)
        if dtype is None:
            continue
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(
                f"params{name}: complex parameters have no proximal map here, got {dtype}; want their real and "
                f"imaginary parts (optax.contrib.split_real_and_imaginary), or a mask that leaves them out"
            )
        if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
            warnings.warn(
                f"params{name}: {dtype} rounds small shrinkages away, and with them most zeros; keep the parameters "
                f"in float32 and cast them to {dtype} for the forward pass",
                stacklevel=3,
            )
            return


def needed(params: Any, name: str) -> Any:
    """The parameters, without which no proximal step can be taken."""
    if params is None:
        raise ValueError(f"{name}: update needs params; call tx.update(grads, state, params)")
    return params


def spread(scale: Any, params: Any) -> Any:
    """A scale as a tree like `params`, also if it is one number."""
    if isinstance(scale, int | float) or (isinstance(scale, Array) and scale.ndim == 0):
        return jax.tree.map(lambda _: scale, params)
    return scale


def wide(a: Array) -> Array:
    """In a dtype in which to compute: float32 for half precision."""
    return a.astype(compute_dtype(a.dtype))


def widest(params: Any) -> Any:
    """The widest dtype in which to compute with a leaf."""
    found = (wide(p).dtype for p in jax.tree.leaves(params))
    return max(found, key=lambda dtype: dtype.itemsize, default=jnp.dtype(jnp.float32))


def as_dtype(number: Any, like: Array) -> Array:
    """A number or an array in the dtype in which to compute with `like`."""
    return jnp.asarray(number).astype(compute_dtype(like.dtype))


def at(value: Any, count: Array, dtype: Any = None) -> Any:
    """The value of a schedule, or a number, at a step; as an array if a dtype is given."""
    value = value(count) if callable(value) else value
    return value if dtype is None else jnp.asarray(value).astype(dtype)


def _rescaled(d: Array, own: Any, shared: Any) -> Array:
    if shared is own:
        return d
    some = own != 0  # where a direction scales by 0 it has no gradient yet
    return jnp.where(some, wide(d) * (shared / jnp.where(some, own, 1.0)), 0.0)
