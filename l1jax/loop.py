"""The loop that all engines share, and the boundary at which solutions are differentiated."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import zero_from_primal

from l1jax._arrays import concrete
from l1jax.block import Block, bare
from l1jax.certificate import may_have_equalities
from l1jax.engines import ActiveSet, Engine
from l1jax.hosted import Penalties, on_host
from l1jax.implicit import outlook, solution_tangents
from l1jax.minimum import Controls, Minimum, as_found, certify_all, over_lams, saturated
from l1jax.rounds import by_rounds, minimise_in_rounds
from l1jax.search import attempted, run, started, unfinished
from l1jax.standard_form import StandardForm


def minimise(
    engine: Engine | ActiveSet,
    mode: str,
    form: StandardForm,
    penalty: Any,
    lams: Array | None,
    start: tuple[Array, Array],
    controls: Controls,
    equalities: bool | None = None,
) -> Minimum:
    """The minimisers at strengths `lams` (L,), in the order given; None for the penalty's own (L = 1).

    mode "warm" solves one after the other, each from the last; "vmap" all at once, in rounds where values can be seen:
    those at many strengths that are done make the others wait no longer. Active sets are driven from the host where
    values can be seen, and leave traced problems to the engine that they carry for these.

    `equalities` is what `may_have_equalities` says, at any strength; None to ask at the last.
    """
    leaves, tree = jax.tree.flatten((form, penalty, lams, start, controls))
    traced = tuple(i for i, leaf in enumerate(leaves) if not concrete(leaf))
    run = Run(engine, mode, equalities, tree, leaves, traced)
    return _boundary(run, False, *(leaves[i] for i in traced))[0] if traced else run.found([])


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What is asked, with the leaves of what is posed; those at `traced` come anew."""

    engine: Engine | ActiveSet
    mode: str
    equalities: bool | None
    tree: Any
    leaves: list[Any]
    traced: tuple[int, ...]

    def all(self, traced: Iterable[Any], others: Iterable[Any]) -> list[Any]:
        """The leaves, or what stands for them."""
        parts = dict(zip(self.traced, traced, strict=True))
        return [parts.get(i, other) for i, other in enumerate(others)]

    def posed(self, traced: Iterable[Any]) -> Any:
        """(form, penalty, lams, start, controls)"""
        return jax.tree.unflatten(self.tree, self.all(traced, self.leaves))

    def found(self, traced: Iterable[Any], derived: bool = False) -> Minimum:
        """The minimum; for derivatives, with what the engine holds."""
        return _found(self.engine, self.mode, self.equalities, derived, *self.posed(traced))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _boundary(run: Run, derived: bool, *traced: Any) -> tuple[Minimum, Any]:
    """The minimum, with the outlook for derivatives: a function of arrays, whose own is that of the exact minimiser.

    What isn't traced stays outside: each array that crosses costs time.
    """
    found = run.found(traced, derived)
    inverse, found = found.inverse, dataclasses.replace(found, inverse=None)
    return found, outlook(run.posed(traced)[:3], (found.z, found.b, found.loss), inverse) if derived else None


@functools.partial(_boundary.defjvp, symbolic_zeros=True)
def _boundary_jvp(run: Run, derived: bool, primals: Any, tangents: Any) -> tuple[Any, Any]:
    found, known = _boundary(run, True, *primals)
    given = run.posed(primals)[:3]
    dots = run.all(tangents, [None] * len(run.leaves))[: len(jax.tree.leaves(given))]
    (dz, db, dloss), moves = solution_tangents(given, dots, (found.z, found.b, found.loss), known)
    known = known if derived else None
    still = zero_from_primal((found.told, known), symbolic_zeros=True)  # type: ignore[no-untyped-call]
    return (found, known), (Minimum(dz, db, dloss, still[0] | moves), still[1])


def _found(engine: Engine | ActiveSet, mode: str, equalities: bool | None, derived: bool, *posed: Any) -> Minimum:
    form, penalty, lams, start, controls = posed
    if equalities is None:
        equalities = may_have_equalities(penalty if lams is None else penalty.with_lam(lams[-1]), form)
    if isinstance(engine, ActiveSet):
        if concrete(posed):
            penalties = Penalties(form, penalty, lams)
            if engine.suits(penalties[-1]):
                return on_host(engine, equalities, form, penalties, start, controls, derived)
        engine = engine.traced
    if lams is not None and by_rounds(mode, (1, len(lams)), None, posed):
        forms, penalties, strengths = _as_lane((bare(form), penalty, lams))
        block = Block(forms, form.design.XT, shared=True)
        return _of_lane(minimise_in_rounds(engine, equalities, block, penalties, strengths, start, controls))
    return _minimise(engine, mode, equalities, *posed)


@jax.jit
def _as_lane(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a)[None], tree)


@jax.jit
def _of_lane(tree: Any) -> Any:
    return jax.tree.map(lambda a: a[0], tree)


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
        return run(engine, form, work, form.units(penalty), equalities, z, b, goal, limit)

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

    def certificates(z: Array, b: Array) -> Any:
        return certify_all(form, penalty, lams, z, b, equalities)

    steps = jnp.zeros(count, jnp.int32)
    blank = jax.tree.map(lambda a: jnp.full(a.shape, jnp.nan, a.dtype), jax.eval_shape(certificates, z, b))
    (*_, steps), done = jax.lax.while_loop(
        lambda carry: unfinished(carry[0]),
        lambda carry: attempted(schedule, certificates, controls, carry[0]),
        (started(z, b, steps, equalities), blank),
    )
    return as_found(form, penalty, lams, done, steps, controls)
