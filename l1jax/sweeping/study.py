"""sweep: the solutions of a whole study in one call."""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from l1jax._arrays import cast, concrete
from l1jax._threads import one_thread, threads_are_set
from l1jax.certificate import may_have_equalities
from l1jax.design import second_moments
from l1jax.engines import ActiveSet, Engine
from l1jax.folds import Folds
from l1jax.grid import check_lams, check_one_strength, descending, grid_from, has_unpriced
from l1jax.losses import Squared
from l1jax.minimum import Controls
from l1jax.paths import path
from l1jax.penalties import Elementwise, straight, with_ratio
from l1jax.problem import Problem, check_problem, check_values
from l1jax.result import Result
from l1jax.solving import choose_engine, make_controls
from l1jax.standard_form import StandardForm, form_with, standard_form
from l1jax.sufficient import digits, suits
from l1jax.sweeping.axes import Axes, check_axes, starts
from l1jax.sweeping.blocks import WIDE, by_knots
from l1jax.sweeping.driving import Drive
from l1jax.sweeping.lanes import MOVES
from l1jax.sweeping.programs import lanes_in_step, lanes_solved, problems_in_step, problems_solved, training_moments
from l1jax.sweeping.resampled import Products
from l1jax.sweeping.training import Training

WIDEST = 1024  # columns of a Gram matrix that lanes share
SHORT = 0.05  # the least strength of a short grid, over the largest
GRAMS = 6_000_000  # bytes of Gram matrices in a block: they are to stay in the cache
LANES = 256  # of a block, at most
SHARING = 256  # of a block whose lanes share a Gram matrix: their solutions are to stay in the third cache
MOST = 8192  # where the program itself takes them by groups
FEWEST = 16  # lanes that share a Gram matrix, for vectors of them
FEW = 64  # lanes, by engines that are compiled
MANY = 1_000_000  # numbers of X, for each strength and output, that such a lane reads at every step
NUMBERS = 30_000_000  # of a block of lanes that an engine solves one by one


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


@dataclasses.dataclass
class Study:
    """A sweep over one problem."""

    problem: Problem
    axes: Axes
    engine: Engine | ActiveSet
    controls: Controls
    asked: dict[str, Any]
    training: tuple[int | None, Training] | None = None
    """The folds of one target, or of y: the last that was asked for."""
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    @functools.cached_property
    def form(self) -> StandardForm:
        """The standard form of all rows, which lanes share or are made from."""
        return standard_form(self.problem)

    def grids(self, host: bool) -> Array:
        """The strengths of each lane, (N, L), by default."""
        problem, axes = self.problem, self.axes
        at = axes.places(np.arange(len(axes)))
        first = dataclasses.replace(axes, folds=None, weights=None)  # grids are those of all rows
        here, tally = first.places(np.arange(len(first))), jnp.zeros(len(first), bool)
        targets = None if axes.targets is None else jnp.asarray(axes.targets, problem.dtype)[:, here["targets"]]
        ratios = None if axes.ratios is None else axes.ratios[here["l1_ratios"]]
        unpriced = has_unpriced(problem.penalty, self.form)
        start = starts(problem, targets, ratios, self.form.design, unpriced, tally)
        if host and not np.all(np.isfinite(np.asarray(start))):
            raise ValueError("sweep: no lambda gives zero coefficients with this penalty. Pass lams=[...] instead.")
        if host and not np.any(np.asarray(start) > 0):
            raise ValueError("sweep: there is no grid, as lambda_max is 0 everywhere. Pass lams=[...] instead.")
        start = jnp.where(start > 0, start, jnp.max(start))  # of a constant response, which all strengths leave at 0
        which = np.zeros(len(axes), int)
        for name, size in (("targets", axes.sizes[0]), ("l1_ratios", axes.sizes[3])):
            if size is not None:
                which = which * size + at[name]
        num, ratio = self.asked["num"], self.asked["ratio"]
        return jax.vmap(lambda start: grid_from(start, problem.X.shape, num, ratio))(start)[which]

    def traced(self, grids: Array, drive: Drive) -> Result:
        drive.refuse_tracing()
        engine = self.engine.traced if isinstance(self.engine, ActiveSet) else self.engine
        lanes = self._lanes(np.arange(len(self.axes)), grids)
        return lanes_solved(engine, _mode(), True, None, self.problem, self.form.design, self.controls, *lanes)

    def on_host(self, grids: Array, drive: Drive) -> Result:
        axes, asked = self.axes, (self.problem, self.axes, grids, self.controls, str(self.asked))
        if self._goes_in_step(grids, drive):
            with jax.enable_x64(True):
                found = self.double._in_step(cast(grids, np.float64), grids.dtype, drive, asked)
            return repaired(found, functools.partial(axes.posed, self.problem), self._how)
        if isinstance(self.engine, ActiveSet) or (drive.mesh is None and self._apart(grids)):
            # Lanes side by side gain nothing where each of them takes all cores for its products.
            threads = self.by_moments and axes.targets is None and threads_are_set()
            with one_thread() if threads else contextlib.nullcontext():
                return drive.one_by_one(functools.partial(self._alone, grids), len(axes), asked, threads=threads)
        return self._side_by_side(self.engine, grids, drive, asked)

    def _goes_in_step(self, grids: Array, drive: Drive) -> bool:
        axes = self.axes
        short = self._own and bool(jnp.min(grids[:, -1] / grids[:, 0]) > SHORT)
        if not self._own and drive.mesh is None and (len(axes) < FEWEST or grids.shape[1] >= self.problem.X.shape[1]):
            return False  # too few for vectors, or strengths so close that paths go knot by knot
        return _suits_steps(self.problem, self.asked["solver"], self._own, short) and not self._equalities(grids)

    @functools.cached_property
    def double(self) -> "Study":
        """The same in double precision, for which JAX has to be set."""
        if self.problem.dtype == np.float64:
            return self
        problem, ratios, controls = cast((self.problem, self.axes.ratios, self.controls), np.float64)
        return Study(problem, dataclasses.replace(self.axes, ratios=ratios), self.engine, controls, self.asked)

    def _in_step(self, grids: Array, dtype: Any, drive: Drive, asked: Any) -> Result:
        """The results, numbers of the data's dtype, of lanes that walk down their grids in step."""
        problem, axes, (n, p) = self.problem, self.axes, self.problem.X.shape
        table, strengths = self._shared(grids[0]), np.asarray(grids)
        floats = GRAMS // problem.dtype.itemsize
        each = p * p if p <= WIDE else p * grids.shape[1]
        size = min(LANES, max(8, floats // each)) if self._own else SHARING
        if axes.weights is not None and p <= WIDE and (table is None or isinstance(table, Products)):
            size = max(size, min(MOST, NUMBERS // n))

        def block(ids: np.ndarray) -> Result:
            shared, folds = (problem, self.form.design, table, self.controls), axes.places(ids).get("folds")
            return lanes_in_step(self._over(drive), dtype, *shared, folds, *self._lanes(ids, strengths[ids]))

        return drive.in_blocks(block, len(axes), size, asked, threads=True)

    def _side_by_side(self, engine: Engine, grids: Array, drive: Drive, asked: Any) -> Result:
        """The same, by an engine that is one program with its lanes."""
        problem, (n, p), strengths = self.problem, self.problem.X.shape, np.asarray(grids)
        size = max(1, NUMBERS // (grids.shape[1] * (n + p)))
        size = _fitting(size, drive, problem, n + p + grids.shape[1] * engine.numbers(problem))
        equalities = self._equalities(grids)

        def block(ids: np.ndarray) -> Result:
            shared = (problem, self.form.design, self.controls)
            return lanes_solved(
                engine, _mode(), equalities, self._over(drive), *shared, *self._lanes(ids, strengths[ids])
            )

        return drive.in_blocks(block, len(self.axes), size, asked, threads=False)

    def _over(self, drive: Drive) -> Mesh | None:
        """The devices that lanes are dealt over."""
        # Rows that are spread over devices stay so: their products are summed over these.
        return drive.mesh if len(self.problem.X.sharding.device_set) == 1 else None

    @property
    def _own(self) -> bool:
        """Whether lanes have weights of their own."""
        return self.axes.folds is not None or self.axes.weights is not None

    def _apart(self, grids: Array) -> bool:
        """Whether lanes are so few that `path`'s own program does, or so large that none is to wait for the slowest."""
        numbers = self.problem.X.size * int(np.prod(self.problem.outputs)) * grids.shape[1]
        return self.asked["solver"] == "auto" and _mode() == "warm" and (len(self.axes) < FEW or numbers > MANY)

    def _lanes(self, ids: np.ndarray, grids: Any) -> tuple[Any, ...]:
        """What is the lanes' own: weights, responses, penalties, strengths."""
        problem, at = self.problem, self.axes.places(ids)
        weights = self.axes.rows_weighed(problem, at)
        targets = self.axes.targets
        if targets is not None:
            targets = jnp.asarray(targets, problem.dtype)[:, at["targets"]].T
        if self.axes.ratios is None:
            penalties = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (len(ids), *a.shape)), problem.penalty)
        else:
            penalties = jax.vmap(functools.partial(with_ratio, problem.penalty))(self.axes.ratios[at["l1_ratios"]])
        return weights, targets, penalties, grids

    def _equalities(self, grids: Array) -> bool:
        return may_have_equalities(self.problem.penalty.with_lam(jnp.min(grids)), self.form)

    def _shared(self, lams: Array) -> Products | Array | None:
        """What lanes that go in step share.

        X'SX (p, p), or under weights the products of columns, if such moments say all that is asked; or X'SX of each
        fold's training rows, (K, p, p), from those of its other rows.
        """
        axes, folds = self.axes, self.axes.folds
        exact = self.controls.tol >= 100 * digits(self.form.shape)
        if axes.weights is None and folds is None:
            return second_moments(self.form.design.XT, self.form.s) if exact else None
        if self.problem.X.shape[1] > WIDE:
            return None
        if axes.weights is not None:
            if not exact or axes.targets is not None:
                return None
            penalty = self.problem.penalty
            walk = by_knots(penalty, self.problem.X.shape[1], len(lams))
            return Products.of(self.form, penalty.with_lam(lams[0]), np.float64 if walk else MOVES)
        return training_moments(self.form.design, np.asarray(folds), self.problem.weights())

    def _alone(self, grids: Array, lane: int) -> Result:
        found = self._trained(grids[lane], lane)
        if found is None or not bool(jnp.all(found.converged)):
            found = path(self.axes.posed(self.problem, lane), lams=grids[lane], **self._how)
        return dataclasses.replace(found, names=None)

    def _trained(self, lams: Array, lane: int) -> Result | None:
        """The same from the moments of a fold's rows; None where these can't say."""
        if not self.by_moments or not isinstance(self.engine, ActiveSet) or self._equalities(lams):
            return None
        with jax.enable_x64(True):
            with self.lock:
                double = self.double
            training, k, penalty = double._training(lane)
            return training.solve(self.engine, k, penalty, cast(lams, np.float64), double.controls, lams.dtype)

    def _training(self, lane: int) -> tuple[Training, int, Any]:
        """The folds of a lane's target, which of them is the lane's, and its penalty."""
        at = self.axes.places(lane)
        problem, target = dataclasses.replace(self.axes, folds=None).at(self.problem, at), at.get("targets")
        with self.lock:
            if self.training is None or self.training[0] != target:
                form = self.form if target is None else form_with(problem, self.form.design)
                self.training = target, Training(form, np.asarray(self.axes.folds))
            return self.training[1], int(at["folds"]), problem.penalty

    @functools.cached_property
    def by_moments(self) -> bool:
        """Whether the moments of folds say all that is asked."""
        axes, plain = self.axes, isinstance(self.problem.penalty, Elementwise)
        return axes.folds is not None and axes.weights is None and plain and suits(self.form, float(self.controls.tol))

    @property
    def _how(self) -> dict[str, Any]:
        return {name: self.asked[name] for name in ("solver", "tol", "max_steps")}


def repaired(found: Result, posed: Callable[[int], Problem], how: dict[str, Any]) -> Result:
    """The same with entries that have not converged solved again, lane by lane."""
    short = ~np.asarray(found.converged)
    if not short.any():
        return found
    arrays = jax.tree.map(np.array, found)
    for lane in np.flatnonzero(short.any(axis=1)):
        at = np.flatnonzero(short[lane])
        try:
            again = path(posed(int(lane)), lams=arrays.lams[lane, at], **how)
        except ValueError:  # data without an answer: NaN says so
            continue
        for part, more in zip(jax.tree.leaves(arrays), jax.tree.leaves(again), strict=True):
            part[lane, at] = more
    return jax.tree.map(jnp.asarray, arrays)


def _mode() -> str:
    return "warm" if jax.default_backend() == "cpu" else "vmap"


def _over_problems(
    make: Callable[[Any], Problem], over: Any, along: dict[str, Any], lams: Any, asked: dict[str, Any], drive: Drive
) -> Result:
    leaves = jax.tree.leaves(over)
    if not leaves or any(not getattr(a, "ndim", 0) or a.shape[0] != leaves[0].shape[0] for a in leaves):
        raise ValueError("over: want a tree of arrays (B, ...), a row for each problem")
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
    in_step = _suits_steps(first, asked["solver"], own=True)
    same = (first, over, along, lams, str(asked))
    if several or (not in_step and isinstance(engine, ActiveSet)):

        def alone(i: int) -> Result:
            return dataclasses.replace(sweep(make(row(i)), lams=lams, **along, **asked), names=None)

        return dataclasses.replace(drive.one_by_one(alone, count, same), names=first.names)
    controls = make_controls(first, engine, asked["tol"], asked["max_steps"])
    given, back = (None, None) if lams is None else descending(check_lams(lams, first))
    size = GRAMS // (p * max(p, n) * 8) if in_step else NUMBERS // (n * p)
    size = min(LANES, max(8, size))
    if isinstance(engine, Engine) and not in_step:
        strengths = asked["num"] if given is None else len(given)
        size = _fitting(size, drive, first, 3 * n * p + strengths * engine.numbers(first))

    def block(ids: np.ndarray) -> Result:
        num, lanes = asked["num"], (ratio, given, controls, row(ids))
        if in_step:
            return problems_in_step(make, drive.mesh, first.dtype, num, *lanes)
        assert isinstance(engine, Engine)
        return problems_solved(make, engine, _mode(), drive.mesh, num, *lanes)

    found = drive.in_blocks(block, count, size, same, threads=in_step)
    if in_step:
        found = repaired(found, lambda i: make(row(i)), how)
    if back is not None:
        found = jax.tree.map(lambda a: a[:, back], found)
    return dataclasses.replace(found, names=first.names)


def _fitting(size: int, drive: Drive, problem: Problem, numbers: int) -> int:
    """How many lanes of so many numbers fit in the devices' memory; `size` where these don't tell."""
    return size if drive.room is None else max(1, drive.room // (problem.dtype.itemsize * numbers))


def _suits_steps(problem: Problem, solver: Any, own: bool, short: bool = False) -> bool:
    """Whether lanes are solved in step: by Gram matrices, where their sweeps are cheap.

    Of more columns than that, those that move at `short` grids of strengths are few.
    """
    n, p = problem.X.shape
    fits = isinstance(problem.loss, Squared) and not problem.outputs and isinstance(problem.penalty, Elementwise)
    small = p <= min(n, WIDE if own else WIDEST)
    few = short and straight(problem.penalty)
    certified = fits and bool(problem.penalty.certified)
    return solver == "auto" and certified and (small or few) and jax.default_backend() == "cpu"
