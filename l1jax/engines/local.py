"""Losses as the host sees them: value, gradient and curvature at a point, in NumPy where a call would cost more."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax.engines.kinks import Floats
from l1jax.losses import Logistic, Loss, Squared
from l1jax.standard_form import StandardForm


@dataclasses.dataclass(frozen=True)
class Local:
    """A loss at one point: its value, minus its gradient and its curvature in the linear predictor."""

    value: float
    force: Floats
    curvature: Floats


def local_of(form: StandardForm) -> tuple[Callable[[Floats], Local], bool]:
    """The loss as a function of the linear predictor, and whether it has an intercept to be fitted."""
    if isinstance(form.loss, Squared):
        return squared(*(np.asarray(a, np.float64) for a in (form.y, form.s))), False
    if isinstance(form.loss, Logistic):
        return logistic(np.asarray(form.y), np.asarray(form.s)), form.intercept

    def local(eta: Floats) -> Local:
        n = len(eta)
        numbers = np.asarray(_local(form.loss, eta.astype(form.y.dtype), form.y, form.s))
        return Local(float(numbers[0]), numbers[1 : n + 1], numbers[n + 1 :])

    return local, form.intercept


def squared(y: Floats, s: Floats) -> Callable[[Floats], Local]:
    """The formulas of `Squared`."""

    def local(eta: Floats) -> Local:
        r = y - eta
        force = s * r
        return Local(float(force @ r) / 2, force, s)

    return local


def logistic(y: Floats, s: Floats) -> Callable[[Floats], Local]:
    """The formulas of `Logistic`, whose arithmetic takes a fraction of the time of calling a compiled program."""
    side = 2 * y - 1

    def local(eta: Floats) -> Local:
        margin = side * eta.astype(y.dtype, copy=False)
        a = np.exp(-np.abs(margin))
        likely = 1 / (1 + a)
        rare = a * likely
        value = float(s @ (np.log1p(a) - np.minimum(margin, 0)))
        return Local(value, side * s * np.where(margin > 0, rare, likely), s * rare * likely)

    return local


@jax.jit
def _local(loss: Loss, eta: Any, y: Array, s: Array) -> Array:
    """In one array, as the host waits for each."""
    return jnp.concatenate([loss.value(eta, y, s)[None], -loss.gradient(eta, y, s), loss.curvature(eta, y, s)])
