"""Proximal updates as optax transformations. The prox step lives here, once; `solve` and training share it.

Each emits `-p` where the new parameter is 0, so that `optax.apply_updates` gives exact zeros.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax._arrays import compute_dtype, eps
from l1jax._node import node
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty

Step: TypeAlias = float | Array | optax.Schedule


class Metric:
    """How a direction scales the gradient, entry by entry; its proximal step must be taken on the same scale."""

    def scale(self, state: Any, params: Any) -> Any:
        """What the direction multiplies each entry of the gradient by: a number, or a tree like `params`."""
        raise TypeError(f"{type(self).__name__} says no scale")


@node
class Euclidean(Metric):
    """The metric of plain gradients, and of averages of them (`optax.ema`): every entry is scaled by 1.

    >>> Euclidean().scale(None, None)
    1.0
    """

    def scale(self, state: Any, params: Any) -> Any:
        return 1.0


@node
class TraceMetric(Metric):
    """1 / (1 - decay): the metric of momentum, `optax.trace(decay)`, which sums gradients rather than averaging them.

    Args:
      decay: as given to `optax.trace` (or as `momentum` to `optax.sgd`), whose state does not hold it; from 0 to 1.

    At rest the trace is g/(1 - decay): with any other metric lam would silently be lam*(1 - decay).

    >>> print(f"{TraceMetric(0.9).scale(None, None):.1f}")
    10.0
    """

    decay: Any

    def scale(self, state: Any, params: Any) -> Any:
        return 1 / (1 - self.decay)


@node
class AdamMetric(Metric):
    """1 / (sqrt(v_hat + eps_root) + eps): the metric of `optax.scale_by_adam`, whose arguments it repeats.

    Args:
      b2, eps, eps_root: as given to `optax.scale_by_adam`, whose state does not hold them.

    Raises ValueError if the direction's state holds no second moment of Adam's.

    Source: Yun, Lozano, Yang (2021), "Adaptive proximal gradient methods for structured neural networks", NeurIPS,
    algorithm 1.

    >>> import jax.numpy as jnp, optax
    >>> params = jnp.array([1.0, 2.0])
    >>> _, state = optax.scale_by_adam().update(params, optax.scale_by_adam().init(params))
    >>> print([f"{a:.3f}" for a in AdamMetric().scale(state, params)])
    ['1.000', '0.500']
    """

    b2: Any = 0.999
    eps: Any = 1e-8
    eps_root: Any = 0.0

    def scale(self, state: Any, params: Any) -> Any:
        nu, count = optax.tree.get(state, "nu"), optax.tree.get(state, "count")
        if nu is None or count is None:
            raise ValueError("AdamMetric: the direction's state holds no second moment; is it optax.scale_by_adam?")

        def scale(v: Array) -> Array:
            v_hat = v / (1 - jnp.asarray(self.b2, v.dtype) ** count.astype(v.dtype))
            return 1 / (jnp.sqrt(v_hat + self.eps_root) + self.eps)

        return jax.tree.map(scale, nu)


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


def prox_step(penalty: Penalty, v: Any, params: Any, step: Any) -> Any:
    """The update that takes `params` to prox(v, step), in the dtypes of `params`, exactly 0 where that is 0."""
    z = penalty.prox(jax.tree.map(lambda a: a.astype(compute_dtype(a.dtype)), v), step)
    return jax.tree.map(lambda a, p: jnp.where(a == 0, -p, (a - _wide(p)).astype(p.dtype)), z, params)


def proximal(
    direction: optax.GradientTransformation,
    penalty: Penalty,
    learning_rate: Step,
    *,
    strength: Step = 1.0,
    metric: Metric = Euclidean(),
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate * d, learning_rate * strength * D): a direction d = D g, then the prox in its metric.

    Args:
      direction: a transformation that gives the unscaled direction, such as `optax.scale_by_adam()`,
        `optax.trace(0.9)` or `optax.identity()`: it must not hold a learning rate of its own.
      penalty: the penalty of all parameters (`Masked` for some).
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      metric: how `direction` scales the gradient: `Euclidean()`, `TraceMetric(decay)` or `AdamMetric()`. Its fixed
        point minimises loss + strength * penalty only if this is right.

    Raises ValueError where the direction is seen to have another metric than the one told.

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
        state = inner.init(params)
        if isinstance(metric, Euclidean):
            check_euclidean(state)
        return ProximalState(state, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: ProximalState, params: Any = None, **extra: Any) -> tuple[Any, ProximalState]:
        if params is None:
            raise ValueError("proximal: update needs params; call tx.update(grads, state, params)")
        d, direction_state = inner.update(grads, state.direction, params, **extra)
        rate, weight = _at(learning_rate, state.steps), _at(strength, state.steps)
        wide = jax.tree.map(lambda p, a: _wide(p) - rate * _wide(a), params, d)
        scale = metric.scale(direction_state, params)
        step = jax.tree.map(lambda a: rate * weight * a, scale)
        updates = prox_step(penalty, wide, params, step)
        return updates, ProximalState(direction_state, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def prox_update(
    penalty: Penalty, learning_rate: Step, *, strength: Step = 1.0
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w + update, learning_rate * strength): the tail of a chain of plain gradient steps.

    Args:
      penalty: the penalty of all parameters (`Masked` for some).
      learning_rate: that of the chain before it, told again: a number, a schedule of the step count, or traced. If
        the two differ, so do the penalty's strength and the one meant: `proximal` says it once.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.

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
        return ProximalState(None, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: ProximalState, params: Any = None, **extra: Any) -> tuple[Any, ProximalState]:
        if params is None:
            raise ValueError("prox_update: update needs params; call tx.update(grads, state, params)")
        step = _at(learning_rate, state.steps) * _at(strength, state.steps)
        wide = jax.tree.map(lambda p, a: _wide(p) + _wide(a), params, updates)
        return prox_step(penalty, wide, params, step), ProximalState(None, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def fista(learning_rate: Step, penalty: Penalty, *, strength: Step = 1.0) -> optax.GradientTransformationExtraArgs:
    """x <- prox(y - t*g(y), t); y <- x + momentum * (x - x_before): accelerated proximal gradient, with restart.

    Args:
      learning_rate: the largest step t, 1/L for a gradient with Lipschitz constant L: a number, a schedule of the
        step count, or traced. The step is shortened for good when successive gradients show a larger L.
      penalty: the penalty of all parameters (`Masked` for some), convex.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.

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
        one = jnp.ones((), jnp.result_type(*[compute_dtype(p.dtype) for p in jax.tree.leaves(params)]))
        zeros = jax.tree.map(jnp.zeros_like, params)
        return FistaState(params, one, one * 0, params, zeros, jnp.zeros((), jnp.int32))

    def update(grads: Any, state: FistaState, params: Any = None, **extra: Any) -> tuple[Any, FistaState]:
        if params is None:
            raise ValueError("fista: update needs params; call tx.update(grads, state, params)")
        y, x = params, state.iterate
        dtype = state.momentum.dtype
        steepness = jnp.where(state.steps > 0, _curvature_seen(grads, y, state, dtype), 0.0)
        steepness = jnp.maximum(state.steepness, steepness)
        rate = jnp.asarray(_at(learning_rate, state.steps), dtype)
        step = rate / jnp.maximum(1.0, rate * steepness)
        weight = jnp.asarray(_at(strength, state.steps), dtype)
        ahead = jax.tree.map(lambda p, g: _wide(p) - step.astype(_wide(p).dtype) * _wide(g), y, grads)
        new = jax.tree.map(lambda a, p: a.astype(p.dtype), penalty.prox(ahead, step * weight), y)
        moved = jax.tree.map(jnp.subtract, new, x)
        uphill = _inner(jax.tree.map(jnp.subtract, y, new), moved, dtype) > 0
        t = jnp.where(uphill, 1.0, state.momentum)
        t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        beta = jnp.where(uphill, 0.0, (t - 1) / t_next)
        updates = jax.tree.map(lambda a, m, p: a + beta.astype(m.dtype) * m - p, new, moved, y)
        return updates, FistaState(new, t_next, steepness, y, grads, state.steps + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def iterate(state: Any, params: Any) -> Any:
    """The point that a transformation stands for: the sparse iterate of `fista`, `params` for all others.

    Args:
      state: the transformation's state (a chain's too).
      params: the parameters that belong to it.

    >>> import jax.numpy as jnp, optax
    >>> params = jnp.array([1.0, 0.0])
    >>> iterate(optax.adam(0.1).init(params), params)
    Array([1., 0.], dtype=float32)
    """
    found = [s for s in _own_states(state) if isinstance(s, FistaState)]
    return found[0].iterate if found else params


def check_euclidean(state: Any) -> None:
    """Refuse the state of a direction that is known to scale the gradient."""
    kinds: dict[type, str] = {optax.TraceState: "TraceMetric(decay)", optax.ScaleByAdamState: "AdamMetric()"}
    for leaf in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, tuple(kinds))):
        if type(leaf) in kinds:
            raise ValueError(
                f"metric: this direction scales the gradient, so the penalty would have another strength than its lam; "
                f"want metric=l1jax.{kinds[type(leaf)]}"
            )


def carries_penalty(state: Any) -> bool:
    """Whether a transformation with this state holds a penalty of its own."""
    return bool(_own_states(state))


def _own_states(state: Any) -> list[Any]:
    kinds = (ProximalState, FistaState)
    return [s for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, kinds)) if isinstance(s, kinds)]


def _curvature_seen(grads: Any, y: Any, state: FistaState, dtype: Any) -> Array:
    """|dg|^2 / <dg, dy>: at most L, and above 1/step only if the step is too long. 0 where rounding rules."""
    dg = jax.tree.map(jnp.subtract, grads, state.gradient)
    dy = jax.tree.map(jnp.subtract, y, state.point)
    inner, size = _inner(dg, dy, dtype), _inner(dg, dg, dtype)
    noise = eps(dtype) * (_inner(grads, grads, dtype) + _inner(state.gradient, state.gradient, dtype))
    clear = (inner > 0) & (size > noise)
    return jnp.where(clear, size / jnp.where(clear, inner, 1.0), 0.0)


def _inner(a: Any, b: Any, dtype: Any) -> Array:
    parts = jax.tree.map(lambda x, y: jnp.sum(_wide(x) * _wide(y)).astype(dtype), a, b)
    return jax.tree.reduce(jnp.add, parts, jnp.zeros((), dtype))


def _wide(a: Array) -> Array:
    return a.astype(compute_dtype(a.dtype))


def _at(value: Any, count: Array) -> Any:
    return value(count) if callable(value) else value
