"""How directions of optax scale the gradient: what a proximal step in their metric must know."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from l1jax._node import node, static


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

    It is that of its relatives too: Nesterov's (`nesterov=True`), `optax.scale_by_yogi`, `optax.scale_by_amsgrad`, and
    `optax.scale_by_belief(eps=..., eps_root=...)` as `AdamMetric(eps=...)` (its eps_root is in its state already).
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
        nu, count, largest = (optax.tree.get(state, name) for name in ("nu", "count", "nu_max"))
        if nu is None or count is None:
            raise ValueError("AdamMetric: the direction's state holds no second moment; is it optax.scale_by_adam?")
        # Written as optax writes it, so that the compiler sees one square root and not two.
        v_hat = optax.tree.bias_correction(nu, self.b2, count) if largest is None else largest
        return jax.tree.map(lambda v: 1 / (jnp.sqrt(v + self.eps_root) + self.eps), v_hat)


@node
class RmsMetric(Metric):
    """1 / sqrt(v + eps), or 1 / (sqrt(v) + eps): the metric of `optax.scale_by_rms`, whose arguments it repeats.

    Args:
      decay, eps, eps_in_sqrt, bias_correction: as given to `optax.scale_by_rms` (or `optax.rmsprop`).

    Raises ValueError if the direction's state holds no average of squares.

    >>> import jax.numpy as jnp, optax
    >>> params = jnp.array([1.0, 2.0])
    >>> _, state = optax.scale_by_rms(decay=0.75).update(params, optax.scale_by_rms().init(params))
    >>> print([f"{a:.3f}" for a in RmsMetric(decay=0.75).scale(state, params)])
    ['2.000', '1.000']
    """

    decay: Any = 0.9
    eps: Any = 1e-8
    eps_in_sqrt: bool = static(default=True)
    bias_correction: bool = static(default=False)

    def scale(self, state: Any, params: Any) -> Any:
        nu = optax.tree.get(state, "nu")
        if nu is None:
            raise ValueError("RmsMetric: the direction's state holds no average of squares; is it optax.scale_by_rms?")
        if self.bias_correction:
            count = optax.tree.get(state, "count")
            nu = optax.tree.bias_correction(nu, self.decay, count)
        if self.eps_in_sqrt:
            return jax.tree.map(lambda v: jax.lax.rsqrt(v + self.eps), nu)
        return jax.tree.map(lambda v: 1 / (jnp.sqrt(v) + self.eps), nu)


@node
class AdagradMetric(Metric):
    """1 / sqrt(sum of squares + eps), 0 where the sum is 0: the metric of `optax.scale_by_rss`.

    Args:
      eps: as given to `optax.scale_by_rss` (or `optax.adagrad`).

    Raises ValueError if the direction's state holds no sum of squares.

    Source: Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12.

    >>> import jax.numpy as jnp, optax
    >>> params, tx = jnp.array([1.0, 2.0]), optax.scale_by_rss(initial_accumulator_value=0.0)
    >>> _, state = tx.update(params, tx.init(params))
    >>> print([f"{a:.3f}" for a in AdagradMetric().scale(state, params)])
    ['1.000', '0.500']
    """

    eps: Any = 1e-7

    def scale(self, state: Any, params: Any) -> Any:
        squares = optax.tree.get(state, "sum_of_squares")
        if squares is None:
            raise ValueError("AdagradMetric: the direction's state holds no sum of squares; is it optax.scale_by_rss?")
        return jax.tree.map(lambda t: jnp.where(t > 0, jax.lax.rsqrt(t + self.eps), 0.0), squares)


def check_euclidean(state: Any) -> None:
    """Refuse the state of a direction that is known to scale the gradient."""
    kinds: dict[str, str] = {
        "TraceState": "TraceMetric(decay)",
        "ScaleByAdamState": "AdamMetric()",
        "ScaleByAmsgradState": "AdamMetric()",
        "ScaleByBeliefState": "AdamMetric(eps=1e-16)",
        "ScaleByRmsState": "RmsMetric()",
        "ScaleByRmsWithCountState": "RmsMetric()",
        "ScaleByRssState": "AdagradMetric()",
    }
    for found in _named_states(state):
        if found in kinds:
            raise ValueError(
                f"metric: this direction scales the gradient, so the penalty would have another strength than its lam; "
                f"want metric=l1jax.{kinds[found]}, with the direction's own arguments (or decoupled=True)"
            )


def check_direction(state: Any) -> None:
    """Refuse the state of a direction whose averages no zero survives."""
    if "ScheduleFreeState" in _named_states(state):
        raise ValueError(
            "direction: schedule_free moves params to an average of iterates, in which no zero survives; want the "
            "direction alone, such as optax.scale_by_adam(), and a schedule for learning_rate"
        )


def _named_states(state: Any) -> set[str]:
    names: set[str] = set()

    def look(node: Any) -> bool:
        names.add(type(node).__name__)
        return False

    jax.tree.leaves(state, is_leaf=look)
    return names
