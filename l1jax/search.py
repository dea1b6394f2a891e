"""An engine at work: until its gap is small enough, it stalls, or its steps are spent; and again, if its claim was."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import eps
from l1jax._node import node
from l1jax.certificate import Certificate
from l1jax.engines import Engine
from l1jax.minimum import Controls
from l1jax.standard_form import StandardForm

ATTEMPTS = 4  # how often an engine whose own estimate of the gap was too kind is sent back to work


@node
class Search:
    """Where an engine stands with one problem."""

    state: Any
    best: tuple[Array, Array]  # the best point seen
    least: Array  # the objective there, of penalties without a certificate
    gap: Array  # there
    steps: Array
    stale: Array  # looks at the gap since then


def begun(engine: Engine, form: StandardForm, work: Any, penalty: Any, z: Array, b: Array) -> Search:
    """A search that has not yet looked at its gap."""
    state = engine.init(form, work, penalty, z, b)
    zero, infinite = jnp.zeros((), jnp.int32), jnp.inf + 0 * jnp.sum(b)
    return Search(state, engine.point(state), infinite, infinite, zero, zero)


def going(engine: Engine, search: Search, goal: Array, limit: Array) -> Array:
    """Whether a search that has looked at its gap goes on."""
    return ~(search.gap <= goal) & (search.steps < limit) & (search.stale < engine.patience)


def advanced(
    engine: Engine, form: StandardForm, work: Any, penalty: Any, equalities: bool, first: Array, search: Search
) -> Search:
    """The search at its next look at the gap; the first look is at the start."""
    # One look in the program, not two, halves its compilation.
    state, more = jax.lax.cond(
        first,
        lambda state: (state, jnp.zeros((), jnp.int32)),
        lambda state: engine.advance(form, work, penalty, state),
        search.state,
    )
    gap = engine.gap(form, work, penalty, state, equalities)
    at, value, least = engine.point(state), search.least, search.least
    better = gap < search.gap
    newer = better | (search.gap == jnp.inf)  # no bound yet: the latest point is the best guess
    if not penalty.certified:
        # A stationary point may be a poor one (0 always is, for L0): a step is taken in any case, and what raises
        # the objective is no better.
        value = form.loss.value(form.eta(*at), form.y, form.s) + penalty.value(at[0])
        slack = 8 * eps(value.dtype) * jnp.abs(least)
        gap = jnp.where(first & ~jnp.isnan(gap), jnp.inf, gap)
        better = (value < least - slack) | ((value <= least + slack) & (gap < search.gap))
        newer = better | first
    best, least = jax.tree.map(lambda a, old: jnp.where(newer, a, old), (at, value), (search.best, least))
    stale = jnp.where(better, 0, jnp.where(jnp.isnan(gap), engine.patience, search.stale + 1))
    return Search(state, best, least, jnp.where(better, gap, search.gap), search.steps + more, stale)


def run(
    engine: Engine,
    form: StandardForm,
    work: Any,
    penalty: Any,
    equalities: bool,
    z: Array,
    b: Array,
    goal: Array,
    limit: Array,
) -> tuple[Array, Array, Array, Array]:
    """Run an engine until its gap is at most `goal`, or it stalls, or `limit` steps are done.

    The best point seen, the steps, and whether the engine claims the goal.
    """

    def unfinished(carry: Any) -> Array:
        looks, search = carry
        return (looks == 0) | going(engine, search, goal, limit)

    def body(carry: Any) -> Any:
        looks, search = carry
        return looks + 1, advanced(engine, form, work, penalty, equalities, looks == 0, search)

    start = jnp.zeros((), jnp.int32), begun(engine, form, work, penalty, z, b)
    _, search = jax.lax.while_loop(unfinished, body, start)
    return *search.best, search.steps, search.gap <= goal


Attempts = tuple[Any, Any, Array, Array, Array]  # how many, which searches go again, z, b, the steps


def started(z: Array, b: Array, steps: Array, equalities: bool) -> Attempts:
    """Before the first attempt, at points (z, b), with `steps` of 0.

    Unpenalised coefficients are fitted before it, by a look at the start: so those that are to be 0 at lambda_max never
    move.
    """
    return np.asarray(-1 if equalities else 0, np.int32), np.ones(steps.shape, bool), z, b, steps


def unfinished(attempts: Attempts) -> Array:
    """Whether some searches have to go again, and may."""
    count, again, *_ = attempts
    return jnp.any(again) & (count < ATTEMPTS)


def attempted(
    schedule: Callable[..., Any], certificates: Callable[[Array, Array], Any], controls: Controls, attempts: Attempts
) -> tuple[Attempts, Any]:
    """One more attempt, and the certificates of what it found.

    schedule(first, z, b, goals, limits) is (z, b, steps, claims).
    """
    count, again, z, b, steps = attempts
    first, goals, limits = _asked(count, again, z, steps, controls)
    z, b, more, claimed = schedule(first, z, b, goals, limits)
    checked = certificates(z, b)
    return _judged((count, again, z, b, steps), more, claimed, checked, controls), checked


@jax.jit
def _asked(count: Array, again: Array, z: Array, steps: Array, controls: Controls) -> tuple[Array, Array, Array]:
    tighter = controls.tol * 0.5 * 0.1 ** count.astype(z.dtype)
    return count == 0, jnp.where(again & (count >= 0), tighter, jnp.inf), controls.max_steps - steps


@jax.jit
def _judged(attempts: Attempts, more: Array, claimed: Array, checked: Certificate, controls: Controls) -> Attempts:
    count, again, z, b, steps = attempts
    steps = steps + more
    short = ~(checked.measure <= controls.tol) & ~jnp.isnan(checked.measure)
    again = again & claimed & short & (steps < controls.max_steps)
    z, b = jax.tree.map(lambda a, old: jnp.where(count < 0, a, old), (checked.z, checked.b), (z, b))
    return count + 1, again, z, b, steps
