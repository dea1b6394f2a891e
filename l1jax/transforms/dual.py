"""Dual averaging: each point minimises the sum of all gradients so far, the penalty as often, and a pull to the start.

The penalty acts on sums, not on single steps, so that zeros do not flicker under noise. The sums hold the penalty's
past, so from `freeze_after` on they are left, for plain gradient steps of the same lengths from where the run stands.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty
from l1jax.transforms.base import Step, as_dtype, at, check_params, frozen, needed, shrunk, to_reach, wide, widest
from l1jax.transforms.masks import chosen, within
from l1jax.transforms.states import DualState, FtrlState


def ftrl(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    beta: Any = 1.0,
    total: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- argmin z*w + S/2 w^2 + t*strength*penalty(w), S = (beta + sqrt(sum g^2))/learning_rate: FTRL-Proximal.

    Args:
      learning_rate: alpha of the source, a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters that `mask` leaves it. One of groups takes one S per group.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      beta: what keeps the first steps short, above 0.
      total: the source's own l1 and l2, which stand for the whole run: no t. Their pull fades as 1/t, so that the limit
        is the unpenalised fit; by default the limit minimises loss + strength * penalty.
      mask, freeze_after: as for `proximal`; once frozen, w <- w - g/S: Adagrad on the loss alone.

    It starts from the parameters at hand (the source from 0). Zeros are exact.

    Source: McMahan et al. (2013), "Ad click prediction: a view from the trenches", KDD, algorithm 1.

    >>> import jax.numpy as jnp, optax
    >>> tx = ftrl(1.0, L1(0.5))
    >>> params = jnp.array([0.0, 0.0])
    >>> updates, _ = tx.update(jnp.array([-2.5, 0.3]), tx.init(params), params)
    >>> print(optax.apply_updates(params, updates).round(4))
    [0.5714 0.    ]
    """
    check_penalty(penalty)

    def steps(squares: Any, rate: Any, penalised: Any) -> Any:
        own = jax.tree.map(lambda n: as_dtype(rate, n) / (as_dtype(beta, n) + jnp.sqrt(n)), squares)
        return within(penalised, penalty.blockwise, own)

    def init(params: Any) -> FtrlState:
        check_params(params, mask)
        count, dtype = jnp.zeros((), jnp.int32), widest(params)
        rate = at(learning_rate, count, dtype)
        squares = jax.tree.map(lambda p: jnp.zeros_like(wide(p)), params)
        first = steps(squares, rate, chosen(mask, params))
        sums = jax.tree.map(lambda p, s: -wide(p) / s, params, first)
        return FtrlState(sums, jax.tree.map(jnp.zeros_like, sums), squares, rate, jnp.zeros((), dtype), count)

    def update(grads: Any, state: FtrlState, params: Any = None, **extra: Any) -> tuple[Any, FtrlState]:
        params, penalised = needed(params, "ftrl"), chosen(mask, params)
        rate, now = (at(a, state.steps, state.rate.dtype) for a in (learning_rate, strength))
        squares = jax.tree.map(lambda n, g: n + wide(g) ** 2, state.squares, grads)
        before, after = steps(state.squares, state.rate, penalised), steps(squares, rate, penalised)
        # The sums grow with t while steps depend on differences of them: what each addition rounds off is carried on.
        more = jax.tree.map(
            lambda g, p, old, new, lost: wide(g) - (1 / new - 1 / old) * wide(p) - lost,
            grads, params, before, after, state.lost,
        )  # fmt: skip
        sums = jax.tree.map(jnp.add, state.sums, more)
        lost = jax.tree.map(lambda z, old, a: (z - old) - a, sums, state.sums, more)
        weight = state.weight + now
        v = jax.tree.map(lambda z, s: -s * z, sums, after)
        step = jax.tree.map(lambda s: s * as_dtype(now if total else weight, s), after)
        plain = jax.tree.map(lambda p, s, g: wide(p) - s * wide(g), params, after, grads)
        w = shrunk(penalty, penalised, v, step, frozen(freeze_after, state.steps), params, plain)
        return to_reach(w, params), FtrlState(sums, lost, squares, rate, weight, optax.safe_increment(state.steps))

    return optax.GradientTransformationExtraArgs(init, update)


def rda(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w0 - r*mean(g), r*mean(strength)), r = learning_rate * sqrt(t): regularised dual averaging.

    Args:
      learning_rate: 1/gamma of the source; a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      mask, freeze_after: as for `proximal`; once frozen, w <- w - learning_rate/sqrt(t) * g.

    The source starts from 0; here the pull is to the parameters at the start, w0. The support settles under noise
    that makes that of stochastic proximal steps flicker; the objective converges slowly, as 1/sqrt(t).

    Source: Xiao (2010), "Dual averaging methods for regularized stochastic learning and online optimization", JMLR 11,
    algorithm 1 with beta_t = gamma*sqrt(t).

    >>> import jax.numpy as jnp, optax
    >>> tx = rda(1.0, L1(0.5))
    >>> params = jnp.array([0.0, 0.0])
    >>> updates, _ = tx.update(jnp.array([-2.5, 0.3]), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([2., 0.], dtype=float32)
    """
    check_penalty(penalty)

    def init(params: Any) -> DualState:
        return _start(params, mask)

    def update(grads: Any, state: DualState, params: Any = None, **extra: Any) -> tuple[Any, DualState]:
        params, steps = needed(params, "rda"), optax.safe_increment(state.steps)
        rate, now, root = _now(learning_rate, strength, state)
        rate, weight = rate / root, state.weight + now
        sums = jax.tree.map(lambda z, g: z + wide(g), state.sums, grads)
        v = jax.tree.map(lambda a, z: a - as_dtype(rate, a) * z, state.start, sums)
        step = jax.tree.map(lambda a: as_dtype(rate, a) * as_dtype(weight, a), v)
        plain = jax.tree.map(lambda p, g: wide(p) - as_dtype(rate, p) * wide(g), params, grads)
        w = shrunk(penalty, chosen(mask, params), v, step, frozen(freeze_after, state.steps), params, plain)
        return to_reach(w, params), DualState(state.start, sums, None, weight, None, steps)

    return optax.GradientTransformationExtraArgs(init, update)


def ramda(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    momentum: Step = 0.9,
    eps: Any = 1e-6,
    adaptive: bool = True,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- momentum*w + (1 - momentum)*x, x = prox(w0 - V/P, a/P): dual averaging with momentum.

    Args:
      learning_rate: of step t, s_t = learning_rate*sqrt(t); a number, a schedule of the step count, or traced. Under
        noise the error falls with it: want a schedule.
      penalty: the penalty of all parameters that `mask` leaves it. One of groups takes one P per group.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      momentum: the share of w that is kept (1 - c_t of the sources); a number, a schedule or a traced scalar.
      eps: added to P.
      adaptive: P = cbrt(sum s_t g^2) + eps (RAMDA); False is RMDA, P = sqrt(t).
      mask, freeze_after: as for `proximal`; the support is that of x, once frozen x <- x - s_t*g/P.

    V = sum s_t*g, a = sum s_t*strength. The sparse point is x, `l1jax.iterate(state, params)`; `params` have exact
    zeros only where momentum has come down to 0, by a schedule. After finitely many steps x has the zeros of its limit.

    Source: Huang and Lee (2022), "Training structured neural networks through manifold identification and variance
    reduction", ICLR (RMDA); the same (2024), "Regularized adaptive momentum dual averaging with an efficient inexact
    subproblem solver for training structured neural network", NeurIPS (RAMDA).

    >>> import jax.numpy as jnp, optax
    >>> tx = ramda(1.0, L1(0.5), momentum=0.5, adaptive=False)
    >>> params = jnp.array([0.0, 0.0])
    >>> updates, state = tx.update(jnp.array([-2.5, 0.3]), tx.init(params), params)
    >>> optax.apply_updates(params, updates), iterate(state, params)
    (Array([1., 0.], dtype=float32), Array([2., 0.], dtype=float32))
    """
    check_penalty(penalty)

    def init(params: Any) -> DualState:
        start = _start(params, mask)
        return start._replace(squares=start.sums if adaptive else None, iterate=params)

    def update(grads: Any, state: DualState, params: Any = None, **extra: Any) -> tuple[Any, DualState]:
        params, steps, penalised = needed(params, "ramda"), optax.safe_increment(state.steps), chosen(mask, params)
        rate, now, root = _now(learning_rate, strength, state)
        rate = rate * root
        weight = state.weight + rate * now
        more = jax.tree.map(lambda g: as_dtype(rate, g) * wide(g), grads)
        sums = jax.tree.map(jnp.add, state.sums, more)
        squares = state.squares
        if adaptive:
            squares = jax.tree.map(lambda u, g: u + as_dtype(rate, g) * wide(g) ** 2, squares, grads)
            own = jax.tree.map(lambda u: 1 / (jnp.cbrt(u) + as_dtype(eps, u)), squares)
            scale = within(penalised, penalty.blockwise, own)
        else:
            scale = jax.tree.map(lambda z: as_dtype(1 / root, z), sums)
        v = jax.tree.map(lambda a, s, z: a - s * z, state.start, scale, sums)
        step = jax.tree.map(lambda s: s * as_dtype(weight, s), scale)
        plain = jax.tree.map(lambda a, s, g: wide(a) - s * g, state.iterate, scale, more)
        x = shrunk(penalty, penalised, v, step, frozen(freeze_after, state.steps), state.iterate, plain)
        kept = at(momentum, state.steps)
        w = jax.tree.map(lambda a, p: as_dtype(kept, p) * wide(p) + (1 - as_dtype(kept, p)) * a, x, params)
        iterate = jax.tree.map(lambda a, p: a.astype(p.dtype), x, params)
        return to_reach(w, params), DualState(state.start, sums, squares, weight, iterate, steps)

    return optax.GradientTransformationExtraArgs(init, update)


def _now(learning_rate: Step, strength: Step, state: DualState) -> tuple[Array, Array, Array]:
    """Learning rate and strength at this step, and the root of its number t, in the dtype of the state's sums."""
    dtype = state.weight.dtype
    root = jnp.sqrt(optax.safe_increment(state.steps).astype(dtype))
    return at(learning_rate, state.steps, dtype), at(strength, state.steps, dtype), root


def _start(params: Any, mask: Any) -> DualState:
    check_params(params, mask)
    start = jax.tree.map(wide, params)
    zeros = jax.tree.map(jnp.zeros_like, start)
    return DualState(start, zeros, None, jnp.zeros((), widest(params)), None, jnp.zeros((), jnp.int32))
