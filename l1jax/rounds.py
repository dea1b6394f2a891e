"""Many searches at once, driven from the host: what is done makes the others wait no longer.

All searches advance together until those that go on fit a quarter of their lanes, or a quarter of the strengths of
each; these are gathered, and go on where they stood. So nothing but the work changes, and each shape has a quarter of
the one before: few programs serve all.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from l1jax._arrays import along, concrete
from l1jax.block import Block
from l1jax.engines import Engine
from l1jax.minimum import Controls, Minimum, as_found, certify_all, over_lams
from l1jax.search import Search, advanced, attempted, begun, going, started, unfinished

SHARE = 4  # of the lanes, or of their strengths, one is left when searches are gathered
FEWEST = 16  # searches that are gathered: below, a program costs more than it saves

Shape = tuple[int, int]


def smaller(shape: Shape) -> Shape:
    """How many lanes, and how many strengths of each, may be left when searches are gathered; 0 for never."""
    lanes, width = (0 if size == 1 else -(-size // SHARE) for size in shape)
    return (lanes if lanes * shape[1] >= FEWEST else 0), (width if shape[0] * width >= FEWEST else 0)


def by_rounds(mode: str, shape: Shape, mesh: Mesh | None, given: Any) -> bool:
    """Whether `given` lanes and strengths are solved in rounds: all at once, where values can be seen, and if many."""
    return mode == "vmap" and concrete(given) and any(smaller((shape[0] // _devices(mesh), shape[1])))


def fitting(shape: Shape, lanes: int, width: int) -> Shape:
    """The least shape, by quarters from `shape`, that holds so many lanes and strengths of each."""
    fewer, narrower = smaller(shape)
    if lanes <= fewer:
        return fitting((fewer, shape[1]), lanes, width)
    return fitting((shape[0], narrower), lanes, width) if width <= narrower else shape


def minimise_in_rounds(
    engine: Engine,
    equalities: bool,
    block: Block,
    penalties: Any,
    lams: Array,
    start: tuple[Array, Array],
    controls: Controls,
    mesh: Mesh | None = None,
) -> Minimum:
    """The minimisers (N, L, ...) of lanes with penalties (N, ...) at strengths (N, L), from points (N, ...).

    The lanes are dealt over the mesh's first axis; each device gathers its own.
    """
    if mesh is not None:
        own, all_ = (NamedSharding(mesh, spec) for spec in _specs(mesh))
        XT = jax.device_put(block.XT, all_ if block.shared else own)
        forms, penalties, lams, start = jax.device_put((block.forms, penalties, lams, start), own)
        block = Block(forms, XT, block.shared)
    given = block, _work(engine, block), penalties, lams
    z, b, steps = _everywhere(start, lams)

    def schedule(_: Array, z: Array, b: Array, goals: Array, limits: Array) -> Any:
        search = _searched(engine, equalities, mesh, given, z, b, goals, limits)
        return *search.best, search.steps, search.gap <= goals

    def certificates(z: Array, b: Array) -> Any:
        return _certificates(equalities, block, penalties, lams, z, b)

    attempts, done = started(z, b, steps, equalities), None
    while unfinished(attempts):
        attempts, done = attempted(schedule, certificates, controls, attempts)
    return _as_found(block, penalties, lams, done, attempts[-1], controls)


def _searched(
    engine: Engine, equalities: bool, mesh: Mesh | None, given: Any, z: Array, b: Array, goals: Array, limits: Array
) -> Search:
    search, on, first = _begun(engine, given, z, b), np.ones(goals.shape, bool), np.asarray(True)
    at, devices = None, _devices(mesh)
    lanes, width = len(on) // devices, on.shape[1]
    while True:
        few = np.asarray(smaller((lanes, width)), np.int32)
        search, left = _round(engine, equalities, mesh, few, first, at, given, search, on, goals, limits)
        on, first = np.asarray(left), np.asarray(False)
        if not on.any():
            return search
        own = on.reshape(devices, -1, on.shape[1])
        left_of = np.sum(own, axis=2)
        lanes, width = fitting((lanes, width), int(np.max(np.sum(left_of > 0, axis=1))), int(np.max(left_of)))
        ids = np.argsort(left_of == 0, axis=1, kind="stable")[:, :lanes, None]
        places = np.argsort(~np.take_along_axis(own, ids, axis=1), axis=2, kind="stable")[:, :, :width]
        at = ids.reshape(-1, 1), places.reshape(-1, width)


def _devices(mesh: Mesh | None) -> int:
    return 1 if mesh is None else mesh.shape[mesh.axis_names[0]]


def _specs(mesh: Mesh) -> tuple[PartitionSpec, PartitionSpec]:
    """Of what lanes have of their own, and of what they share."""
    return PartitionSpec(mesh.axis_names[0]), PartitionSpec()  # type: ignore[no-untyped-call]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _round(
    engine: Engine, equalities: bool, mesh: Mesh | None, few: Array, first: Array, at: Any, given: Any, *whole: Any
) -> Any:
    """The searches after one more round, of each device's own lanes, and which of them go on."""
    program = functools.partial(_together, engine, equalities)
    if mesh is not None:
        own, all_ = _specs(mesh)
        block = Block(own, all_ if given[0].shared else own, given[0].shared)  # type: ignore[arg-type]
        specs = all_, all_, own, (block, own, own, own), own, own, own, own
        program = jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)
    return program(few, first, at, given, *whole)


def _together(engine: Engine, equalities: bool, few: Array, first: Array, at: Any, given: Any, *whole: Any) -> Any:
    """Searches `at` (lanes (M, 1), strengths (M, K)), None for all, until so few go on.

    `whole` is (search, on, goals, limits) of all of them.
    """
    search, on, goals, limits = whole
    if at is not None:
        block, work, penalties, lams = given
        work, penalties = jax.tree.map(lambda a: a[at[0][:, 0]], (work, penalties))
        given = block.at(at[0][:, 0]), work, penalties, lams[at]
        search, on, goals, limits = jax.tree.map(lambda a: a[at], whole)

    def unfinished(carry: Any) -> Array:
        return carry[0]

    def trip(carry: Any) -> Any:
        _, first, search, on = carry

        def look(form: Any, work: Any, penalty: Any, search: Search) -> Search:
            return advanced(engine, form, work, penalty, equalities, first, search)

        new = _over(look, given, search)
        search = jax.tree.map(lambda a, old: jnp.where(along(on, a), a, old), new, search)
        on = going(engine, search, goals, limits)
        width = jnp.sum(on, axis=1, dtype=jnp.int32)
        many = (jnp.sum(width > 0, dtype=jnp.int32) > few[0]) & (jnp.max(width) > few[1])
        return many, jnp.zeros_like(first), search, on

    _, _, *here = jax.lax.while_loop(unfinished, trip, (jnp.asarray(True), first, search, on))
    return here if at is None else jax.tree.map(lambda a, part: a.at[at].set(part), list(whole[:2]), here)


def _over(function: Callable[..., Any], given: Any, *own: Any) -> Any:
    """function(form, work, penalty, *own) of all lanes, at all strengths."""
    block, work, penalties, lams = given

    def lane(form: Any, work: Any, penalty: Any, lams: Array, *own: Any) -> Any:
        def at(penalty: Any, *own: Any) -> Any:
            return function(form, work, form.units(penalty), *own)

        return over_lams(at, penalty, lams, *own)

    return block.over(lane, work, penalties, lams, *own)


@jax.jit
def _everywhere(start: tuple[Array, Array], lams: Array) -> tuple[Array, Array, Array]:
    """Where each search starts, and its steps."""
    z, b = (jnp.broadcast_to(a[:, None], (*lams.shape, *a.shape[1:])) for a in start)
    return z, b, jnp.zeros(lams.shape, jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _work(engine: Engine, block: Block) -> Any:
    return block.over(engine.prepare)


@functools.partial(jax.jit, static_argnums=0)
def _begun(engine: Engine, given: Any, z: Array, b: Array) -> Search:
    return _over(functools.partial(begun, engine), given, z, b)


@functools.partial(jax.jit, static_argnums=0)
def _certificates(equalities: bool, block: Block, penalties: Any, lams: Array, z: Array, b: Array) -> Any:
    def lane(form: Any, penalty: Any, lams: Array, z: Array, b: Array) -> Any:
        return certify_all(form, penalty, lams, z, b, equalities)

    return block.over(lane, penalties, lams, z, b)


@jax.jit
def _as_found(block: Block, penalties: Any, lams: Array, done: Any, steps: Array, controls: Controls) -> Minimum:
    def lane(form: Any, penalty: Any, lams: Array, done: Any, steps: Array) -> Minimum:
        return as_found(form, penalty, lams, done, steps, controls)

    return block.over(lane, penalties, lams, done, steps)
