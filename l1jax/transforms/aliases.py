"""optax's optimisers with the penalty inside: one learning rate, the prox in the optimiser's own metric."""

from typing import Any

import optax

from l1jax.penalties import Penalty
from l1jax.transforms.base import Step, proximal
from l1jax.transforms.metrics import AdagradMetric, AdamMetric, Euclidean, RmsMetric, TraceMetric


def prox_sgd(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    momentum: Any = None,
    nesterov: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate*m, learning_rate*strength/(1 - momentum)), m <- g + momentum*m: `optax.sgd`, sparse.

    Args:
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      momentum: the decay of `optax.trace`; None for plain gradients, with which full-batch training is ISTA.
      nesterov: whether the direction looks ahead.
      mask, freeze_after: as for `proximal`.

    Its fixed point minimises loss + strength * penalty, with momentum too: the trace sums gradients, so the prox takes
    as many.

    Source: Beck and Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sci. 2(1),
    eq. 2.3.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = prox_sgd(0.1, L1(1.0)), jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(params), params)
    >>> optax.apply_updates(params, updates)
    Array([0.7, 0. ], dtype=float32)
    """
    direction = optax.identity() if momentum is None else optax.trace(momentum, nesterov)
    metric = Euclidean() if momentum is None else TraceMetric(momentum)
    return proximal(
        direction, penalty, learning_rate, strength=strength, metric=metric, mask=mask, freeze_after=freeze_after
    )


def prox_adam(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
    exact: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate*m_hat*D, learning_rate*strength*D), D = 1/(sqrt(v_hat) + eps): `optax.adam`, sparse.

    Args:
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      b1, b2, eps, eps_root, nesterov: as for `optax.adam`. Under minibatch noise b1=0.99 keeps zeros from flickering.
      decoupled: threshold by learning_rate*lam, without D: another problem, as for `proximal`.
      exact, mask, freeze_after: as for `proximal`.

    Its fixed point minimises loss + strength * penalty, whatever the metric.

    Source: Yun, Lozano, Yang (2021), "Adaptive proximal gradient methods for structured neural networks", NeurIPS,
    algorithm 1.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = prox_adam(0.1, L1(1.0)), jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 1.0]), tx.init(params), params)
    >>> print([f"{a:.2f}" for a in optax.apply_updates(params, updates)])
    ['0.85', '0.00']
    """
    return prox_adamw(
        learning_rate,
        penalty,
        strength=strength,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        weight_decay=None,
        nesterov=nesterov,
        decoupled=decoupled,
        exact=exact,
        mask=mask,
        freeze_after=freeze_after,
    )


def prox_adamw(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    weight_decay: Step | None = 1e-4,
    nesterov: bool = False,
    decoupled: bool = False,
    exact: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate*(m_hat*D + weight_decay*w), learning_rate*strength*D): `optax.adamw`, sparse.

    Args:
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      b1, b2, eps, eps_root, nesterov: as for `optax.adamw`.
      weight_decay: as for `optax.adamw`, of all parameters; before the prox, as decay after it would undo no zero but
        shrink twice. A number, a schedule or a traced scalar; None for none.
      decoupled: threshold by learning_rate*lam, without D: another problem, as for `proximal`.
      exact, mask, freeze_after: as for `proximal`.

    Source: Loshchilov and Hutter (2019), "Decoupled weight decay regularization", ICLR, algorithm 2; the prox as in
    `prox_adam`.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = prox_adamw(0.1, L1(1.0), weight_decay=0.5), jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 1.0]), tx.init(params), params)
    >>> print([f"{a:.2f}" for a in optax.apply_updates(params, updates)])
    ['0.80', '0.00']
    """
    return proximal(
        optax.scale_by_adam(b1, b2, eps, eps_root, nesterov=nesterov),
        penalty,
        learning_rate,
        strength=strength,
        metric=AdamMetric(b2, eps, eps_root),
        decoupled=decoupled,
        exact=exact,
        weight_decay=weight_decay,
        mask=mask,
        freeze_after=freeze_after,
    )


def prox_rmsprop(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    decay: Any = 0.9,
    eps: Any = 1e-8,
    initial_scale: Any = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    decoupled: bool = False,
    exact: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate*D*g, learning_rate*strength*D), D = 1/sqrt(v + eps): `optax.rmsprop`, sparse.

    Args:
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      decay, eps, initial_scale, eps_in_sqrt, bias_correction: as for `optax.rmsprop`.
      decoupled: threshold by learning_rate*lam, without D: another problem, as for `proximal`.
      exact, mask, freeze_after: as for `proximal`.

    Source: the prox as in `prox_adam`, in the metric of Tieleman and Hinton (2012), "Lecture 6.5: rmsprop", Coursera.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = prox_rmsprop(0.1, L1(1.0), decay=0.75), jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 1.0]), tx.init(params), params)
    >>> print([f"{a:.2f}" for a in optax.apply_updates(params, updates)])
    ['0.70', '0.00']
    """
    return proximal(
        optax.scale_by_rms(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        penalty,
        learning_rate,
        strength=strength,
        metric=RmsMetric(decay, eps, eps_in_sqrt, bias_correction),
        decoupled=decoupled,
        exact=exact,
        mask=mask,
        freeze_after=freeze_after,
    )


def prox_adagrad(
    learning_rate: Step,
    penalty: Penalty,
    *,
    strength: Step = 1.0,
    initial_accumulator_value: Any = 0.1,
    eps: Any = 1e-7,
    decoupled: bool = False,
    exact: bool = False,
    mask: Any = None,
    freeze_after: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """w <- prox(w - learning_rate*D*g, learning_rate*strength*D), D = 1/sqrt(sum g^2 + eps): `optax.adagrad`, sparse.

    Args:
      learning_rate: a number, a schedule of the step count, or a traced scalar.
      penalty: the penalty of all parameters, biases included, that `mask` leaves it.
      strength: multiplies the penalty; a number, a schedule or a traced scalar.
      initial_accumulator_value, eps: as for `optax.adagrad`.
      decoupled: threshold by learning_rate*lam, without D: another problem, as for `proximal`.
      exact, mask, freeze_after: as for `proximal`.

    Source: Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12: composite mirror descent with a diagonal metric.

    >>> import jax.numpy as jnp, optax
    >>> tx, params = prox_adagrad(0.1, L1(1.0), initial_accumulator_value=0.0), jnp.array([1.0, 0.05])
    >>> updates, _ = tx.update(jnp.array([2.0, 1.0]), tx.init(params), params)
    >>> print([f"{a:.2f}" for a in optax.apply_updates(params, updates)])
    ['0.85', '0.00']
    """
    return proximal(
        optax.scale_by_rss(initial_accumulator_value, eps),
        penalty,
        learning_rate,
        strength=strength,
        metric=AdagradMetric(eps),
        decoupled=decoupled,
        exact=exact,
        mask=mask,
        freeze_after=freeze_after,
    )
