"""The programs of a sweep: blocks of lanes, dealt over devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from l1jax._arrays import cast
from l1jax.block import Block
from l1jax.design import Design, second_moments
from l1jax.engines import Engine
from l1jax.grid import CORNER, critical, grid_from
from l1jax.minimum import Controls
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.rounds import by_rounds, minimise_in_rounds
from l1jax.standard_form import form_with
from l1jax.sweeping.blocks import WIDE, block_of, block_of_problems, descend_block, in_groups, moments_of, solve_block
from l1jax.sweeping.resampled import Products, resampled

# XLA takes half as much at once by default; of what a processor has not, it takes nothing.
VECTORS = {"xla_cpu_prefer_vector_width": "512"}
GROUP = 128  # lanes that are made from moments together, at most
GRAMS = 750_000  # numbers of the Gram matrices of lanes in a block or a group: they are to stay in the caches


def lanes_solved(engine: Engine, mode: str, equalities: bool, mesh: Mesh | None, *given: Any) -> Result:
    """The results of lanes of one problem, dealt over a mesh."""
    problem, design, controls, *lanes = given
    if by_rounds(mode, lanes[-1].shape, mesh, given):
        return _in_rounds(engine, equalities, _lanes_posed(problem, design, *lanes), controls, mesh)
    return _lanes_solved(engine, mode, equalities, mesh, *given)


def problems_solved(make: Any, engine: Engine, mode: str, mesh: Mesh | None, num: int, *given: Any) -> Result:
    """The same, a lane for each row of a tree."""
    ratio, lams, controls, rows = given
    shape = jax.tree.leaves(rows)[0].shape[0], num if lams is None else len(lams)
    if by_rounds(mode, shape, mesh, given):
        return _in_rounds(engine, True, _problems_posed(make, True, num, ratio, lams, rows), controls, mesh)
    return _problems_solved(make, engine, mode, mesh, num, *given)


def _in_rounds(engine: Engine, equalities: bool, posed: Any, controls: Controls, mesh: Mesh | None) -> Result:
    block, penalties, lams = posed
    start = block.over(lambda form: form.start)
    found = minimise_in_rounds(engine, equalities, block, penalties, lams, start, controls, mesh)
    return Result(**found.told, lams=lams)


@jax.jit
def _lanes_posed(
    problem: Problem,
    design: Design,
    weights: Array | None,
    targets: Array | None,
    penalties: Any,
    grids: Array,
) -> tuple[Block, Any, Array]:
    return block_of(problem, design, len(grids), weights, targets), penalties, grids


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _lanes_solved(engine: Engine, mode: str, equalities: bool, mesh: Mesh | None, *given: Any) -> Result:
    def program(problem: Problem, design: Design, controls: Controls, *lanes: Any) -> Result:
        block, penalties, grids = _lanes_posed(problem, design, *lanes)
        return solve_block(block, engine, mode, equalities, penalties, grids, controls)

    return _over_mesh(program, mesh, 3, given)(*given)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=VECTORS)
def lanes_in_step(mesh: Mesh | None, dtype: Any, *given: Any) -> Result:
    """The results of lanes of one problem in double precision, for data of a dtype, in step."""

    def program(
        problem: Problem, design: Design, table: Any, controls: Controls, folds: Array | None, *lanes: Any
    ) -> Result:
        def some(lanes: Any) -> Result:
            weights, targets, penalties, known, grids = lanes
            if isinstance(table, Products):
                block, known = resampled(form_with(problem, design), table, weights)
            else:
                block = block_of(problem, design, len(grids), weights, targets)
            return cast(descend_block(block, known, penalties, grids, controls, dtype), dtype)

        weights, targets, penalties, grids = lanes
        known = None if isinstance(table, Products) else table if table is None or folds is None else table[folds]
        own, p = (weights, targets, penalties, known, grids), problem.X.shape[1]
        return some(own) if weights is None or p > WIDE else in_groups(some, own, min(GROUP, max(8, GRAMS // p**2)))

    return _over_mesh(program, mesh, 4, given)(*given)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _problems_posed(
    make: Any, unpriced: bool, num: int, ratio: Any, lams: Array | None, rows: Any
) -> tuple[Block, Any, Array]:
    problems = jax.vmap(make)(rows)
    shape = problems.X.shape
    penalties = jax.tree.map(lambda a: a.astype(problems.X.dtype), problems.penalty)
    block = block_of_problems(problems)
    if lams is None:
        start = block.over(lambda form, penalty: critical(form, penalty, CORNER, unpriced), penalties)
        return block, penalties, jax.vmap(lambda start: grid_from(start, shape[1:], num, ratio))(start)
    return block, penalties, jnp.broadcast_to(lams[None], (shape[0], len(lams)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _problems_solved(make: Any, engine: Engine, mode: str, mesh: Mesh | None, num: int, *given: Any) -> Result:
    def program(ratio: Any, lams: Array | None, controls: Controls, rows: Any) -> Result:
        block, penalties, grids = _problems_posed(make, True, num, ratio, lams, rows)
        return solve_block(block, engine, mode, True, penalties, grids, controls)

    return _over_mesh(program, mesh, 3, given)(*given)


def problems_in_step(
    make: Any, mesh: Mesh | None, dtype: Any, exact: bool, unpriced: bool, num: int, *given: Any
) -> Result:
    """The results of problems of a dtype, one for each row of a tree, in double precision, in step.

    `exact` says whether products of columns have the digits for certificates, `unpriced` whether some coefficients may
    have no price.
    """
    if dtype == np.float64:
        return _problems_in_step(make, mesh, dtype, exact, unpriced, num, *given)
    *rest, rows = given
    problems = _made(make, mesh, rows)
    with jax.enable_x64(True):
        return _problems_in_step(_itself, mesh, dtype, exact, unpriced, num, *cast((*rest, problems), np.float64))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _problems_in_step(
    make: Any, mesh: Mesh | None, dtype: Any, exact: bool, unpriced: bool, num: int, *given: Any
) -> Result:
    def program(ratio: Any, lams: Array | None, controls: Controls, rows: Any) -> Result:
        block, penalties, grids = _problems_posed(make, unpriced, num, ratio, lams, rows)
        grids = grids.astype(dtype).astype(grids.dtype)
        known = moments_of(block) if exact else None
        return cast(descend_block(block, known, penalties, grids, controls, dtype), dtype)

    return _over_mesh(program, mesh, 3, given)(*given)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _made(make: Any, mesh: Mesh | None, rows: Any) -> Problem:
    problems: Any = _over_mesh(jax.vmap(make), mesh, 0, (rows,))(rows)
    return problems


def _itself(problem: Problem) -> Problem:
    return problem


def _over_mesh(program: Callable[..., Result], mesh: Mesh | None, shared: int, given: Any) -> Callable[..., Result]:
    """The program with the arguments after the first `shared` ones dealt over the mesh's first axis, and its result."""
    if mesh is None:
        return program
    lanes, all_ = PartitionSpec(mesh.axis_names[0]), PartitionSpec()  # type: ignore[no-untyped-call]
    specs = tuple(all_ if i < shared else lanes for i in range(len(given)))
    return jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=lanes, check_vma=False)


def training_moments(design: Design, train: np.ndarray, s: Array) -> Array:
    """X'SX of the rows that each fold fits, (K, p, p): the whole without the others, where these are fewer.

    `s` (n,) sums to 1; of each fold's rows its weights do.
    """
    whole = second_moments(design.XT, s)
    fewer = np.sum(train, axis=1) * 2 > train.shape[1]
    parts = np.where(fewer[:, None], ~train, train)
    order = np.argsort(~parts, axis=1, kind="stable")[:, : int(np.max(np.sum(parts, axis=1)))]

    def moments(rows: np.ndarray, part: np.ndarray, fewer: bool, train: np.ndarray) -> Array:
        own = second_moments(design.XT[:, rows], jnp.where(part[rows], s[rows], 0.0))
        return (whole - own if fewer else own) / jnp.sum(jnp.where(train, s, 0.0))

    return jnp.stack([moments(*fold) for fold in zip(order, parts, fewer, train, strict=True)])
