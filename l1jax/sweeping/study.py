"""A sweep over one problem: which way its lanes go."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from l1jax._arrays import cast, eps
from l1jax.certificate import may_have_equalities
from l1jax.design import second_moments
from l1jax.engines import ActiveSet, Engine
from l1jax.grid import check_fit, grid_from, has_unpriced
from l1jax.losses import Squared
from l1jax.minimum import Controls
from l1jax.paths import path
from l1jax.penalties import Elementwise, straight, with_ratio
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.standard_form import StandardForm, form_with, standard_form
from l1jax.sufficient import digits, suits
from l1jax.sweeping.axes import Axes, starts
from l1jax.sweeping.blocks import WIDE, by_knots
from l1jax.sweeping.driving import Drive
from l1jax.sweeping.lanes import MOVES
from l1jax.sweeping.programs import GRAMS, lanes_in_step, lanes_solved, training_moments
from l1jax.sweeping.resampled import Products
from l1jax.sweeping.training import Training

WIDEST = 1024  # columns of a Gram matrix that lanes share
SHORT = 0.05  # the least strength of a short grid, over the largest
LANES = 256  # of a block, at most
SHARING = 256  # of a block whose lanes share a Gram matrix: their solutions are to stay in the third cache
MOST = 8192  # where the program itself takes them by groups
FEWEST = 16  # lanes that share a Gram matrix, for vectors of them
FEW = 64  # lanes, by engines that are compiled
MANY = 1_000_000  # numbers of X, for each strength and output, that such a lane reads at every step
NUMBERS = 30_000_000  # of a block of lanes that an engine solves one by one
NO_GRID = "sweep: there is no grid, as lambda_max is 0 everywhere. Pass lams=[...] instead."
ROUNDED = 16  # units in the last place of 1: smaller gaps are those of answers' own rounding


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
        if host and targets is None:
            check_fit(self.form)
        if host and not np.all(np.isfinite(np.asarray(start))):
            raise ValueError("sweep: no lambda gives zero coefficients with this penalty. Pass lams=[...] instead.")
        if host and not np.any(np.asarray(start) > 0):
            raise ValueError(NO_GRID)
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
        return lanes_solved(engine, mode(), True, None, self.problem, self.form.design, self.controls, *lanes)

    def on_host(self, grids: Array, drive: Drive) -> Result:
        axes, asked = self.axes, (self.problem, self.axes, grids, self.controls, str(self.asked))
        if self._goes_in_step(grids, drive):
            with jax.enable_x64(True):
                found = self.double._in_step(cast(grids, np.float64), grids.dtype, drive, asked)
            return repaired(found, functools.partial(axes.posed, self.problem), self._how)
        if isinstance(self.engine, ActiveSet) or (drive.mesh is None and self._apart(grids)):
            return drive.one_by_one(functools.partial(self._alone, grids), len(axes), asked)
        return self._side_by_side(self.engine, grids, drive, asked)

    def _goes_in_step(self, grids: Array, drive: Drive) -> bool:
        axes = self.axes
        short = self._own and bool(jnp.min(grids[:, -1] / grids[:, 0]) > SHORT)
        if not self._own and drive.mesh is None and (len(axes) < FEWEST or grids.shape[1] >= self.problem.X.shape[1]):
            return False  # too few for vectors, or strengths so close that paths go knot by knot
        return suits_steps(self.problem, self.asked["solver"], self._own, short) and not self._equalities(grids)

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
        each = p * p if p <= WIDE else p * grids.shape[1]
        size = min(LANES, max(8, GRAMS // each)) if self._own else SHARING
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
        size = fitting(size, drive, problem, n + p + grids.shape[1] * engine.numbers(problem))
        equalities = self._equalities(grids)

        def block(ids: np.ndarray) -> Result:
            shared = (problem, self.form.design, self.controls)
            return lanes_solved(
                engine, mode(), equalities, self._over(drive), *shared, *self._lanes(ids, strengths[ids])
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
        return self.asked["solver"] == "auto" and mode() == "warm" and (len(self.axes) < FEW or numbers > MANY)

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
        exact = has_digits(self.controls, self.form.shape)
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
            training, k, penalty = self.double._training(lane)
            return training.solve(self.engine, k, penalty, cast(lams, np.float64), self.double.controls, lams.dtype)

    def _training(self, lane: int) -> tuple[Training, int, Any]:
        """The folds of a lane's target, which of them is the lane's, and its penalty."""
        at = self.axes.places(lane)
        problem, target = dataclasses.replace(self.axes, folds=None).at(self.problem, at), at.get("targets")
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
    """The same with entries that have not converged solved again, lane by lane, where more than rounding is left."""
    gap = np.asarray(found.gap)
    short = ~np.asarray(found.converged) & ~(gap <= ROUNDED * eps(gap.dtype))
    if not short.any():
        return found
    arrays = jax.tree.map(np.array, found)
    for lane in np.flatnonzero(short.any(axis=1)):
        at = np.flatnonzero(short[lane])
        try:
            again = path(posed(int(lane)), lams=arrays.lams[lane, at], **how)
        except ValueError:  # data without an answer: NaN says so
            continue
        better = ~(np.asarray(again.gap) >= gap[lane, at])
        for part, more in zip(jax.tree.leaves(arrays), jax.tree.leaves(again), strict=True):
            part[lane, at[better]] = more[better]
    return jax.tree.map(jnp.asarray, arrays)


def mode() -> str:
    """How engines take a lane's strengths: one after the other, or all at once."""
    return "warm" if jax.default_backend() == "cpu" else "vmap"


def fitting(size: int, drive: Drive, problem: Problem, numbers: int) -> int:
    """How many lanes of so many numbers fit in the devices' memory; `size` where these don't tell."""
    return size if drive.room is None else max(1, drive.room // (problem.dtype.itemsize * numbers))


def has_digits(controls: Controls, shape: tuple[int, int]) -> bool:
    """Whether products of columns have the digits for certificates."""
    return float(controls.tol) >= 100 * digits(shape)


def suits_steps(problem: Problem, solver: Any, own: bool, short: bool = False) -> bool:
    """Whether lanes are solved in step: by Gram matrices, where their sweeps are cheap.

    Of more columns than that, those that move at `short` grids of strengths are few.
    """
    n, p = problem.X.shape
    fits = isinstance(problem.loss, Squared) and not problem.outputs and isinstance(problem.penalty, Elementwise)
    small = p <= min(n, WIDE if own else WIDEST)
    few = short and straight(problem.penalty)
    certified = fits and bool(problem.penalty.certified)
    return solver == "auto" and certified and (small or few) and jax.default_backend() == "cpu"
