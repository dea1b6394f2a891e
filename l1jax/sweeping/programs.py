"""The programs of a sweep: blocks of lanes, dealt over devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from l1jax.design import Design, second_moments
from l1jax.engines import Engine
from l1jax.grid import CORNER, critical, grid_from
from l1jax.minimum import Controls
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.sweeping.blocks import block_of, block_of_problems, descend_block, solve_block


def _solved(
    engine: Engine | None,
    mode: str,
    equalities: bool,
    problem: Problem,
    design: Design,
    table: Array | None,
    controls: Controls,
    weights: Array | None,
    targets: Array | None,
    penalties: Any,
    folds: Array | None,
    grids: Array,
) -> Result:
    """The lanes of one problem; without an engine, in step."""
    block = block_of(problem, design, len(grids), weights, targets)
    if engine is None:
        return descend_block(block, None if table is None else table[folds], penalties, grids, controls)
    return solve_block(block, engine, mode, equalities, penalties, grids, controls)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def lanes_solved(engine: Engine | None, mode: str, equalities: bool, mesh: Mesh | None, *given: Any) -> Result:
    """The same, the lanes dealt over a mesh."""
    program = functools.partial(_solved, engine, mode, equalities)
    return _over_mesh(program, mesh, 4, given)(*given)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def problems_solved(make: Any, engine: Engine | None, mode: str, mesh: Mesh | None, num: int, *given: Any) -> Result:
    """A lane for each row of a tree; without an engine, in step."""

    def program(ratio: Any, lams: Array | None, controls: Controls, rows: Any) -> Result:
        problems = jax.vmap(make)(rows)
        shape = problems.X.shape
        penalties = jax.tree.map(lambda a: a.astype(problems.X.dtype), problems.penalty)
        block = block_of_problems(problems)
        if lams is None:
            start = block.over(lambda form, penalty: critical(form, penalty, CORNER, engine is not None), penalties)
            grids = jax.vmap(lambda start: grid_from(start, shape[1:], num, ratio))(start)
        else:
            grids = jnp.broadcast_to(lams[None], (shape[0], len(lams)))
        if engine is None:
            return descend_block(block, None, penalties, grids, controls)
        return solve_block(block, engine, mode, True, penalties, grids, controls)

    return _over_mesh(program, mesh, 3, given)(*given)


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
