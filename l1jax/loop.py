"""The loop that all engines share, and the boundary at which solutions are differentiated."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import concrete, eps
from l1jax.engines import ActiveSet, Engine
from l1jax.hosted import Penalties, on_host
from l1jax.implicit import moving, solution_tangents
from l1jax.minimum import Controls, Minimum, as_found, certify_all, over_lams, saturated
from l1jax.standard_form import StandardForm

ATTEMPTS = 4  # how often an engine whose own estimate of the gap was too kind is sent back to work


def minimise(
    engine: Engine | ActiveSet,
    mode: str,
    equalities: bool,
    form: StandardForm,
    penalty: Any,
    lams: Array | None,
    start: tuple[Array, Array],
    controls: Controls,
) -> Minimum:
    """The minimisers at strengths `lams` (L,), in the order given; None for the penalty's own (L = 1).

    mode "warm" solves one after the other, each from the last; "vmap" all at once. Active sets are driven from the
    host where values can be seen, and leave traced problems to the engine that they carry for these.
    """
    return _boundary(engine, mode, equalities, False, form, penalty, lams, start, controls)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _boundary(
    engine: Engine | ActiveSet, mode: str, equalities: bool, derived: bool, *posed: Any
) -> tuple[Minimum, Array | None]:
    """The same, with what may move, for derivatives: a function of arrays, whose own is that of the exact minimiser."""
    found = _found(engine, mode, equalities, *posed)
    return found, moving(posed[:3], found.z) if derived else None


@functools.partial(_boundary.defjvp, symbolic_zeros=True)
def _boundary_jvp(
    engine: Engine | ActiveSet, mode: str, equalities: bool, derived: bool, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    found, may_move = _boundary(engine, mode, equalities, True, *primals)
    at = found.z, found.b, found.loss
    (dz, db, dloss), moves = solution_tangents(primals[:3], tangents[:3], at, may_move)
    may_move = may_move if derived else None
    still = jax.tree.map(_still, (found.told, may_move))
    return (found, may_move), (Minimum(dz, db, dloss, still[0] | moves), still[1])


def _still(a: Array) -> Any:
    """The tangent of what does not move."""
    return np.zeros(a.shape, a.dtype if jnp.issubdtype(a.dtype, jnp.floating) else jax.dtypes.float0)


def _found(engine: Engine | ActiveSet, mode: str, equalities: bool, *posed: Any) -> Minimum:
    if isinstance(engine, ActiveSet):
        if concrete(posed):
            form, penalty, lams, start, controls = posed
            penalties = Penalties(form, penalty, lams)
            if engine.suits(penalties[-1]):
                return on_host(engine, equalities, form, penalties, start, controls)
        engine = engine.traced
    return _minimise(engine, mode, equalities, *posed)


@functools.partial(jax.jit, static_argnames=("engine", "mode", "equalities"))
def _minimise(
    engine: Engine,
    mode: str,
    equalities: bool,
    form: StandardForm,
    penalty: Any,
    lams: Array | None,
    start: tuple[Array, Array],
    controls: Controls,
) -> Minimum:
    work = engine.prepare(form)
    count = 1 if lams is None else lams.shape[0]
    z, b = (jnp.broadcast_to(a, (count, *a.shape[1:])) for a in start)

    def lane(penalty: Any, z: Array, b: Array, goal: Array, limit: Array) -> Any:
        return _run(engine, form, work, form.units(penalty), equalities, z, b, goal, limit)

    def one_by_one(first: Array, *lanes: Array) -> Any:
        def step(carry: Any, lane_inputs: Any) -> Any:
            last, stopped = carry
            lam, z, b, goal, limit = lane_inputs
            z, b = jax.tree.map(lambda a, own: jnp.where(first, a, own), last, (z, b))
            at = penalty if lam is None else penalty.with_lam(lam)
            z, b, steps, claimed = lane(at, z, b, goal, jnp.where(stopped, 0, limit))
            if controls.stop is not None:
                loss = form.loss.value(form.eta(z, b), form.y, form.s)
                stopped = stopped | saturated(controls.stop, form, z, loss)
            return ((z, b), stopped), (z, b, steps, claimed)

        begin = (jax.tree.map(lambda a: a[0], lanes[:2]), first & ~first)
        return jax.lax.scan(step, begin, (lams, *lanes))[1]

    def all_at_once(first: Array, *lanes: Array) -> Any:
        return over_lams(lane, penalty, lams, *lanes)

    schedule = one_by_one if mode == "warm" else all_at_once

    def unfinished(carry: Any) -> Array:
        attempt, again, *_ = carry
        return jnp.any(again) & (attempt < ATTEMPTS)

    def attempt(carry: Any) -> Any:
        attempt, again, z, b, steps, _ = carry
        looking = attempt < 0
        tighter = controls.tol * 0.5 * 0.1 ** attempt.astype(z.dtype)
        goal = jnp.where(again & ~looking, tighter, jnp.inf)
        z, b, more, claimed = schedule(attempt == 0, z, b, goal, controls.max_steps - steps)
        steps = steps + more
        checked = certificates(z, b)
        short = ~(checked.measure <= controls.tol) & ~jnp.isnan(checked.measure)
        again = again & claimed & short & (steps < controls.max_steps)
        z, b = jax.tree.map(lambda a, old: jnp.where(looking, a, old), (checked.z, checked.b), (z, b))
        return attempt + 1, again, z, b, steps, checked

    def certificates(z: Array, b: Array) -> Any:
        return certify_all(form, penalty, lams, z, b, equalities)

    steps = jnp.zeros(count, jnp.int32)
    blank = jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), jax.eval_shape(certificates, z, b))
    # Unpenalised coefficients are fitted before the first attempt, by a look at the start: so those that are to be 0
    # at lambda_max never move.
    carry = (jnp.asarray(-1 if equalities else 0, jnp.int32), steps == 0, z, b, steps, blank)
    *_, steps, done = jax.lax.while_loop(unfinished, attempt, carry)
    return as_found(form, penalty, lams, done, steps, controls)


def _run(
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
        *_, gap, steps, stale, looks = carry
        return (looks == 0) | (~(gap <= goal) & (steps < limit) & (stale < engine.patience))

    def body(carry: Any) -> Any:
        state, best, least, best_gap, steps, stale, looks = carry
        # The first look is at the start; one look in the program, not two, halves its compilation.
        state, more = jax.lax.cond(
            looks == 0,
            lambda state: (state, jnp.zeros((), jnp.int32)),
            lambda state: engine.advance(form, work, penalty, state),
            state,
        )
        gap = engine.gap(form, work, penalty, state, equalities)
        at, value = engine.point(state), least
        better = gap < best_gap
        newer = better | (best_gap == jnp.inf)  # no bound yet: the latest point is the best guess
        if not penalty.certified:
            # A stationary point may be a poor one (0 always is, for L0): a step is taken in any case, and what raises
            # the objective is no better.
            value = form.loss.value(form.eta(*at), form.y, form.s) + penalty.value(at[0])
            slack = 8 * eps(value.dtype) * jnp.abs(least)
            gap = jnp.where((looks == 0) & ~jnp.isnan(gap), jnp.inf, gap)
            better = (value < least - slack) | ((value <= least + slack) & (gap < best_gap))
            newer = better | (looks == 0)
        best, least = jax.tree.map(lambda a, old: jnp.where(newer, a, old), (at, value), (best, least))
        stale = jnp.where(better, 0, jnp.where(jnp.isnan(gap), engine.patience, stale + 1))
        return state, best, least, jnp.where(better, gap, best_gap), steps + more, stale, looks + 1

    state = engine.init(form, work, penalty, z, b)
    zero, infinite = jnp.zeros((), jnp.int32), jnp.inf + 0 * jnp.sum(b)
    carry = (state, engine.point(state), infinite, infinite, zero, zero, zero)
    _, (z, b), _, gap, steps, *_ = jax.lax.while_loop(unfinished, body, carry)
    return z, b, steps, gap <= goal
