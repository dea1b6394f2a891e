"""What a run is told, what it finds, and how that is certified."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._node import node
from l1jax.certificate import Certificate, certify
from l1jax.standard_form import StandardForm, in_raw_units


@node
class Stop:
    """When a path has said enough: the share of deviance explained, the number of nonzeros. Infinite for never."""

    dev_ratio: Array
    nonzeros: Array


@node
class Controls:
    """How to run: numbers only, so that none of them costs a compilation."""

    tol: Array
    max_steps: Array
    stop: Stop | None = None


@node
class Minimum:
    """Certified points in the units of the standard form, for each strength; without that axis for the own one."""

    z: Array
    b: Array
    loss: Array
    told: dict[str, Any]  # the fields of a `Result`, but for `lams` and `names`
    inverse: Any = None
    """Of engines that hold it: the support (k,), and the inverse of the second derivative there, (k, k)."""


def over_lams(function: Callable[..., Any], penalty: Any, lams: Array | None, *others: Array) -> Any:
    """function(penalty at lam, *others at lam) for all strengths at once; None is the penalty's own (L = 1)."""
    count = 1 if lams is None else lams.shape[0]

    def lane(lam: Array | None, *others: Array) -> Any:
        return function(penalty if lam is None else penalty.with_lam(lam), *others)

    axes = (None if lams is None else 0, *(0 for _ in others))
    return jax.vmap(lane, in_axes=axes, axis_size=count)(lams, *others)


def certify_all(form: StandardForm, penalty: Any, lams: Array | None, z: Array, b: Array, equalities: bool) -> Any:
    """The certificates of points (L, p), (L,)."""

    def at(penalty: Any, z: Array, b: Array) -> Certificate:
        return certify(form, form.units(penalty), z, b, equalities)

    return over_lams(at, penalty, lams, z, b)


def saturated(stop: Stop, form: StandardForm, z: Array, loss: Array) -> Array:
    """Whether a point is where a path is to stop."""
    dev_ratio = 1 - loss / jnp.where(form.null_objective > 0, form.null_objective, 1.0)
    return (dev_ratio >= stop.dev_ratio) | (jnp.sum(z != 0, dtype=z.dtype) >= stop.nonzeros)


def as_found(
    form: StandardForm, penalty: Any, lams: Array | None, done: Certificate, steps: Array, controls: Controls
) -> Minimum:
    """The minimum: NaN where the data or the penalty have no answer, and after the strength at which to stop."""
    zero, _ = form.start
    keep = form.fit & over_lams(lambda penalty: penalty.valid(zero), penalty, lams)
    if controls.stop is not None:
        at = jax.vmap(functools.partial(saturated, controls.stop, form))(done.z, done.loss)
        at = at.astype(jnp.int32)
        keep = keep & (jnp.cumsum(at) == at)  # none before it

    def masked(a: Array) -> Array:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return jnp.where(keep.reshape(keep.shape + (1,) * (a.ndim - 1)), a, jnp.nan)

    done = jax.tree.map(masked, done)
    coef, intercept, share = jax.vmap(functools.partial(in_raw_units, form, penalty))(done.z, done.b, done.loss)
    gap, stationarity = jax.lax.stop_gradient((done.gap, done.stationarity))
    told = {
        "coef": coef,
        "intercept": intercept,
        "objective": done.objective,
        "gap": gap,
        "stationarity": stationarity,
        "steps": steps,
        "converged": done.measure <= controls.tol,
        "tol": jnp.broadcast_to(controls.tol, gap.shape),
        "df": jnp.sum(coef != 0, axis=tuple(range(1, coef.ndim)), dtype=jnp.int32),
        "dev_ratio": share,
    }
    found = Minimum(done.z, done.b, done.loss, told)
    return jax.tree.map(lambda a: a[0], found) if lams is None else found
