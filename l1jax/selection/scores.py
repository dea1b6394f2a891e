"""How well linear predictors foretell responses: one number for rows with weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import along
from l1jax.losses import Logistic, Loss, Multinomial, SquaredHinge

Score = Callable[[Loss, Array, Array, Array], Array]


def deviance(loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """2*(loss - saturated): twice the loss, whose minimum over eta is 0."""
    return 2 * loss.value(eta, y, share)


def mse(loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """Squared errors of the predicted mean."""
    return _average((y - loss.mean(eta)) ** 2, share)


def mae(loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """Absolute errors of the predicted mean."""
    return _average(jnp.abs(y - loss.mean(eta)), share)


def accuracy(loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """The share of rows whose class is the likeliest."""
    if isinstance(loss, Multinomial):
        right = jnp.argmax(eta, axis=1) == jnp.argmax(y, axis=1)
    else:
        right = (eta > 0) == (y == 1)
    return _average(right.astype(share.dtype), share)


def auc(loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """The chance that a row of class 1 has a larger eta than one of class 0, ties counting half."""
    order = jnp.argsort(eta)
    eta, ones, zeros = eta[order], (share * y)[order], (share * (1 - y))[order]
    below = jnp.concatenate([jnp.zeros(1, share.dtype), jnp.cumsum(zeros)])
    left, right = (below[jnp.searchsorted(eta, eta, side=side)] for side in ("left", "right"))
    return jnp.sum(ones * (left + right) / 2) / (jnp.sum(ones) * jnp.sum(zeros))


def _average(rows: Array, share: Array) -> Array:
    """sum_i share_i * rows_i, outputs summed; rows of weight 0 may hold anything."""
    share = along(share, rows)
    return jnp.sum(jnp.where(share > 0, share * rows, 0.0))


SCORES: dict[str, Score] = {score.__name__: score for score in (deviance, mse, mae, accuracy, auc)}
GREATER = {"accuracy", "auc"}  # the greater the better


def check_score(name: str, loss: Loss) -> None:
    """Refuse scores that are unknown, or say nothing of the loss's predictions."""
    if name not in SCORES:
        raise ValueError(f"score: want {', '.join(map(repr, SCORES))}; got {name!r}")
    of_classes = (Logistic, SquaredHinge) if name == "auc" else (Logistic, SquaredHinge, Multinomial)
    if name in GREATER and not isinstance(loss, of_classes):
        names = " or ".join(c.__name__ for c in of_classes)
        raise ValueError(f"score: {name} wants {names} as loss, got {type(loss).__name__}")


def scores_of(name: str, loss: Loss, eta: Array, y: Array, share: Array) -> Array:
    """The score of each linear predictor in eta (..., n[, k]); `y` as the loss encodes it, `share` sums to 1."""
    rows = eta.reshape(-1, *eta.shape[eta.ndim - (2 if loss.several else 1) :])
    values = jax.vmap(lambda eta: SCORES[name](loss, eta, y, share))(rows)
    return values.reshape(eta.shape[: eta.ndim - (2 if loss.several else 1)])
