"""sweep: the solutions of a whole study in one call."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax.engines import ActiveSet, Engine
from l1jax.folds import Folds
from l1jax.grid import check_lams, check_one_strength, descending, has_unpriced
from l1jax.problem import Problem, check_problem, check_values
from l1jax.result import Result
from l1jax.solving import choose_engine, make_controls
from l1jax.standard_form import standard_form
from l1jax.sweeping.axes import check_axes
from l1jax.sweeping.driving import Drive
from l1jax.sweeping.programs import GRAMS, problems_in_step, problems_solved
from l1jax.sweeping.store import marks
from l1jax.sweeping.study import (
    LANES,
    NO_GRID,
    NUMBERS,
    Study,
    fitting,
    has_digits,
    mode,
    repaired,
    suits_steps,
)


def sweep(
    problem: Problem | Callable[[Any], Problem],
    *,
    over: Any = None,
    targets: ArrayLike | None = None,
    folds: int | ArrayLike | Folds | None = None,
    weights: ArrayLike | None = None,
    l1_ratios: ArrayLike | None = None,
    lams: ArrayLike | None = None,
    num: int = 100,
    ratio: float | None = None,
    solver: Any = "auto",
    tol: float | None = None,
    max_steps: int | None = None,
    chunk: int | None = None,
    progress: bool = False,
    store: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> Result:
    """argmin of the objective at every place of problems x targets x folds x weights x l1_ratios x lambdas.

    Args:
      problem: the problem; or, with `over`, a function from a row of `over` to one, which JAX can trace.
      over: a tree of arrays (B, ...), such as `jax.random.split(key, B)` or (Xs, ys): a row for each problem. They are
        made in chunks, so that the problems together may be larger than memory.
      targets: responses (n, T) that take the place of y, one at a time.
      folds: a number, fold ids (n,) or `Folds`: fits to the rows of each fold's training part.
      weights: weights (W, n), which multiply the problem's own: bootstraps, subsamples.
      l1_ratios: (A,), of a penalty that has one.
      lams: strengths (L,) for all, in any order; by default each problem, target and ratio has the grid that
        `lambda_grid(num=num, ratio=ratio)` gives it on all rows.
      num, ratio: as for `lambda_grid`.
      solver, tol, max_steps: as for `path`.
      chunk: how many lanes (all but the lambdas) are solved at a time; by default as many as suit the caches, or, on
        devices that tell of their memory, as fit in half of what is free.
      progress: whether to show a progress bar (tqdm).
      store: a folder in which finished chunks are kept: an interrupted sweep, asked for again, goes on from there.
      mesh: devices over whose first axis the lanes are dealt, each with a loop of its own; by default all of this
        process. Several processes (`jax.distributed`) share the chunks among them and each get the whole result.

    Arrays of the result have the axes that were given, in the order above, outermost first. Every entry has its
    certificate. X is never copied: weights and folds are sums over the same matrix. With the squared loss and penalties
    of each coefficient alone, on CPUs, with at most 256 columns, no more than rows (1024 where all lanes have the same
    weights), lanes walk down their grids in step, on Gram matrices: one for all lambdas and targets, one product for
    all weights, differences for folds. They go by coordinate descent; lassos, from knot to knot where strengths are
    many. Of more columns, lassos whose grids are short (down to a twentieth) go in step among those near to moving, and
    folds of twice as many rows are solved from their moments. All this is done in double precision; answers are rounded
    to the dtype of the data, and certified as they then are. Entries whose certificate falls short are solved again by
    `path`. Other problems are solved by `path`'s engines, lane by lane on CPUs; on GPU and TPU all lanes and lambdas
    together, those that are not done gathered into ever smaller batches. The answers do not depend on the number of
    devices, but for rounding.

    Under jit, vmap and grad it is a fixed program (no chunks, progress or store). Raises ValueError for what does not
    match the problem, for bad values, and for a store that holds another sweep.

    >>> data = datasets.diabetes()
    >>> found = sweep(Problem(data.X, data.y, penalty=ElasticNet(1.0)), folds=5, l1_ratios=[0.5, 1.0], num=10)
    >>> print(found.coef.shape, found.converged.all())
    (5, 2, 10, 10) True
    """
    asked = {"num": num, "ratio": ratio, "solver": solver, "tol": tol, "max_steps": max_steps}
    along = {"targets": targets, "folds": folds, "weights": weights, "l1_ratios": l1_ratios}
    drive = Drive(progress, store, chunk, mesh)
    if not isinstance(problem, Problem) and callable(problem):
        return _over_problems(problem, over, along, lams, asked, drive)
    if over is not None:
        raise ValueError("over: want a function from its rows to a Problem, as `problem`; got a Problem")
    check_problem(problem)
    check_one_strength(problem.penalty)
    axes = check_axes(problem, **along)
    given, back = (None, None) if lams is None else descending(check_lams(lams, problem))
    engine = choose_engine(problem, solver)
    controls = make_controls(problem, engine, tol, max_steps)
    host = concrete(problem, axes, given, controls, ratio)
    check_values(problem)
    problem = dataclasses.replace(
        problem, penalty=jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), problem.penalty)
    )
    study = Study(problem, axes, engine, controls, asked)
    grids = study.grids(host) if given is None else jnp.broadcast_to(given[None], (len(axes), len(given)))
    found = study.on_host(grids, drive) if host else study.traced(grids, drive)
    if back is not None:
        found = jax.tree.map(lambda a: a[:, back], found)
    shape = (*axes.shape, grids.shape[-1])
    return dataclasses.replace(jax.tree.map(lambda a: a.reshape(*shape, *a.shape[2:]), found), names=problem.names)


def _over_problems(
    make: Callable[[Any], Problem], over: Any, along: dict[str, Any], lams: Any, asked: dict[str, Any], drive: Drive
) -> Result:
    leaves = jax.tree.leaves(over)
    if not leaves or any(not getattr(a, "ndim", 0) or a.shape[0] != leaves[0].shape[0] for a in leaves):
        raise ValueError("over: want a tree of arrays (B, ...), a row for each problem")
    if not leaves[0].shape[0]:
        raise ValueError("over: want at least one problem, got arrays of 0 rows")
    count = leaves[0].shape[0]

    def row(i: Any) -> Any:
        return jax.tree.map(lambda a: a[i], over)

    how = {name: asked[name] for name in ("solver", "tol", "max_steps")}
    if not concrete(over, lams, along):
        drive.refuse_tracing()
        return jax.vmap(lambda own: sweep(make(own), lams=lams, **along, **asked))(over)
    first = make(row(0))
    check_values(first)
    check_one_strength(first.penalty)
    several = any(value is not None for value in along.values())
    (n, p), ratio = first.X.shape, asked["ratio"]
    engine = choose_engine(first, asked["solver"])
    in_step = suits_steps(first, asked["solver"], own=True)
    told = None if drive.store is None else marks(make, over)
    same = (first, told, over, along, lams, str(asked))
    if several or (not in_step and isinstance(engine, ActiveSet)):

        def alone(i: int) -> Result:
            return dataclasses.replace(sweep(make(row(i)), lams=lams, **along, **asked), names=None)

        return dataclasses.replace(drive.one_by_one(alone, count, same), names=first.names)
    controls = make_controls(first, engine, asked["tol"], asked["max_steps"])
    given, back = (None, None) if lams is None else descending(check_lams(lams, first))
    size = GRAMS // (p * max(p, n)) if in_step else NUMBERS // (n * p)
    size = min(LANES, max(8, size))
    if isinstance(engine, Engine) and not in_step:
        strengths = asked["num"] if given is None else len(given)
        size = fitting(size, drive, first, 3 * n * p + strengths * engine.numbers(first))

    exact = has_digits(controls, (n, p))
    unpriced = in_step and lams is None and _may_be_unpriced(make, row(0))

    def block(ids: np.ndarray) -> Result:
        num, lanes = asked["num"], (ratio, given, controls, row(ids))
        if in_step:
            return problems_in_step(make, drive.mesh, first.dtype, exact, unpriced, num, *lanes)
        assert isinstance(engine, Engine)
        return problems_solved(make, engine, mode(), drive.mesh, num, *lanes)

    found = drive.in_blocks(block, count, size, same, threads=in_step)
    if lams is None and not np.any(np.asarray(found.lams) > 0):
        raise ValueError(NO_GRID)
    if in_step:
        found = repaired(found, lambda i: make(row(i)), how)
    if back is not None:
        found = jax.tree.map(lambda a: a[:, back], found)
    return dataclasses.replace(found, names=first.names)


def _may_be_unpriced(make: Callable[[Any], Problem], row: Any) -> bool:
    """Whether some coefficient of a problem may have no price, whichever its row."""
    seen = []

    def look(row: Any) -> None:
        problem = make(row)
        seen.append(has_unpriced(problem.penalty, standard_form(problem)))

    jax.eval_shape(look, row)
    return seen[0]
