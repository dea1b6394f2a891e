"""Active sets: second-order steps on a growing working set, driven from the host, and one pass over X for the rest."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from l1jax._arrays import aligned_zeros
from l1jax.engines.base import Engine
from l1jax.engines.kinks import Floats, Indices, Kinks, together
from l1jax.engines.local import local_of
from l1jax.engines.passes import AT_ONCE
from l1jax.engines.sets import SmoothSet, SquaredSet
from l1jax.engines.working_set import TINY, Slack, WorkingSet
from l1jax.losses import Loss, Squared
from l1jax.penalties import Elementwise, GroupLasso, Penalty
from l1jax.standard_form import StandardForm

JUMP = 1.6  # how far a strength may lie below the last before others are put between them
RETURNS = 5  # how often a strength is taken up again because of what a pass shows
FARTHER = 1.05  # how far beyond its corner a slope is to be foreseen: it slows down as other features enter
NEW = 128  # features taken in hand at once, at least
WHOLE = 1024  # so many features, if they are fewer than the rows, are all in hand from the start
LARGE = 2048  # the most features without a corner, which are all in the support


class Strengths(Protocol):
    """Penalties in descending order."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class ActiveSet:
    """Newton's steps on the support, in which features enter and leave as their slopes and signs demand.

    A working set holds the features that the slopes' own slope in lambda foretells; its second derivative is all that
    is kept. After a few strengths one pass over X looks at all the others, and finds any that were overlooked. Of a
    group lasso it holds groups (`GroupSet`). A lasso of few features for its strengths goes knot by knot (`Homotopy`).

    Source: Osborne, Presnell, Turlach (2000), "A new approach to variable selection in least squares problems", IMA
    J. Numer. Anal. 20(3); Tibshirani et al. (2012), "Strong rules for discarding predictors in lasso-type problems",
    JRSS B 74(2); Larsson, Wallin (2022), "The Hessian screening rule", NeurIPS.
    """

    traced: Engine
    """The engine for problems whose values can't be seen."""

    steps = 500
    """The most Newton steps for one strength, within the limit that is asked for."""

    @property
    def max_steps(self) -> int:
        return self.traced.max_steps

    def refuses(self, loss: Loss, penalty: Penalty) -> str:
        if type(loss).bent is not Loss.bent or loss.several or not loss.curved:
            return f"active sets want a curved loss that is a sum over rows, got {type(loss).__name__}"
        if not isinstance(penalty, Elementwise | GroupLasso) or not penalty.certified:
            return f"active sets want a convex penalty of each coefficient alone, or a group lasso; got {penalty!r}"
        return ""

    def suits(self, kinks: Any) -> bool:
        """Whether supports are likely to be small: a penalty without corners has none."""
        return bool(kinks.smooth <= LARGE)


class Path:
    """A run over strengths in descending order: what it knows of the last point, and what it is asked for.

    `enough`, of a point (p,) and its loss, says where to stop: the rest then repeats that point. `known` are the rows'
    `Moments`, if they have been computed.

    For certificates: `forces` (L, n) are minus the loss's gradients at the points, NaN where none was found, and
    `reach` (p,) is how near each feature came to moving: the largest of its slopes over l1, infinite if it moved.
    """

    @np.errstate(all="ignore")  # what overflows is not certified
    def __init__(
        self,
        form: StandardForm,
        kinks: Strengths,
        start: tuple[Floats, Floats],
        tol: float,
        limit: int,
        enough: Callable[[Floats, float], bool] | None = None,
        known: Any = None,
    ) -> None:
        self.kinks, self.tol, self.limit, self.enough = kinks, tol, limit, enough
        n, p = form.shape
        double = form.y.dtype == np.float64  # slopes by the Gram matrix lose digits that single precision can't spare
        self.whole = isinstance(form.loss, Squared) and p <= min(n, WHOLE) and double
        self.work = work = working_set(form, self.whole, known)
        first = self.at(0)
        self.rest = np.clip(np.zeros(work.size, work.w.dtype), first.lower, first.upper)
        self.reach = np.zeros(p, work.w.dtype)
        self.forces = np.full((len(kinks), 0 if known else n), np.nan, work.w.dtype)
        s, force = np.asarray(form.s), None if known else work.force()
        size = float(np.sqrt(known.yy if force is None else np.sum(force[s > 0] ** 2 / s[s > 0])))
        norm = np.pad(np.asarray(form.design.norm), (0, work.size - p), constant_values=1)
        self.floor = work.eps * size * norm + TINY
        z = np.clip(np.concatenate([start[0], start[1][None]])[: work.size], first.lower, first.upper)
        moving = np.flatnonzero(z != self.rest)
        held = np.arange(p) if self.whole else np.flatnonzero((z != self.rest) | (self.rest != 0))
        if work.size > p:
            held, moving = np.union1d(held, [p]), np.union1d(moving, [p])
        work.include(held, z[held])
        work.sign[work.where[moving]] = np.where(z[moving] == 0, 1, np.sign(z[moving]))
        work.renew()
        work.enter(moving, first[moving].l2)

    def at(self, i: int) -> Kinks:
        """The penalty at a strength."""
        kinks: Kinks = self.kinks[i]
        return kinks

    @np.errstate(all="ignore")
    def run(self) -> tuple[Floats, Floats, Any]:
        """The minimisers (L, p), intercepts (L,) and steps (L,)."""
        work, count = self.work, len(self.kinks)
        Z: Floats = aligned_zeros((count, work.size), self.rest.dtype)
        steps = np.zeros(count, np.int32)
        u = self._slopes() if self.whole else work.slopes(work.force()[None])[0]
        z, slope, last = self._point(), np.zeros_like(u), np.inf
        i = returns = 0
        leap = np.inf
        while i < count:
            goals = self._next(i)
            far = goals[0].farness(z, u)
            between = JUMP < far < 0.9 * leap and returns < RETURNS  # as long as it brings the strength nearer
            leap = far if between else np.inf
            if between:
                goals = [goals[0].times(far / (0.95 * JUMP))]
            self._foresee(u, slope, last, goals[-1])
            try:
                points, forces, U, losses, taken = self._solve(goals, steps[i : i + len(goals)])
            except np.linalg.LinAlgError:  # certificates will tell how far the last point is
                Z[i:] = z
                break
            good = self._first_wrong(goals, points, U)
            steps[i : i + len(goals)] += taken
            returns += 1
            if not between:
                if good == 0 and returns > RETURNS:
                    good = 1  # as good as it gets; its certificate will tell
                Z[i : i + good] = points[:good]
                self._record(slice(i, i + good), forces[:good])
                for j in range(good):
                    if self.enough is not None and self.enough(points[j][: len(work.XT)], losses[j]):
                        Z[i + j :] = points[j]
                        self._record(slice(i + j, count), forces[j])
                        steps[i + j + 1 :] = 0
                        return self._answer(Z, steps)
            if good:
                strength = goals[good - 1].strength
                before, there = (goals[good - 2].strength, U[good - 2]) if good > 1 else (last, u)
                if before > strength and np.isfinite(before):
                    slope = (U[good - 1] - there) / (strength - before)
                z, u, last, returns = points[good - 1], U[good - 1], strength, 0
                i += 0 if between else good
        return self._answer(Z, steps)

    @np.errstate(all="ignore")  # what isn't finite is not good enough
    def inverse(self) -> tuple[Indices, Floats] | None:
        """`WorkingSet.inverse` at the last strength."""
        return self.work.inverse(self.at(-1))

    def _record(self, at: slice, forces: Floats) -> None:
        self.forces[at] = forces

    def _answer(self, Z: Floats, steps: Any) -> tuple[Floats, Floats, Any]:
        p = len(self.work.XT)
        return Z[:, :p], Z[:, p] if self.work.size > p else np.zeros(len(Z), Z.dtype), steps

    def _next(self, i: int) -> list[Kinks]:
        """The strengths to solve before the next pass: some that are near each other."""
        goals = [self.at(i)]
        for j in range(i + 1, min(i + AT_ONCE, len(self.kinks))):
            kinks = self.at(j)
            if kinks.strength * JUMP < goals[0].strength:
                break
            goals.append(kinks)
        return goals

    def _solve(self, goals: list[Kinks], before: Any) -> tuple[Floats, Floats, Floats, list[float], Any]:
        """Points optimal on the working set, forces and the slopes of all features there, losses, and steps."""
        work = self.work
        points, marks, slopes, losses, steps = [], [], [], [], []
        for kinks, taken in zip(goals, before, strict=True):
            steps.append(work.settle(kinks, self._slack(kinks), self.limit - int(taken)))
            points.append(self._point())
            if self.whole:
                if kinks is goals[-1]:
                    work.refresh()  # what many steps leave of rounding
                slopes.append(self._slopes())
            else:
                marks.append(work.mark())
            losses.append(work.value() if self.enough is not None else np.nan)
        if self.whole:  # forces are not asked for where all features are in hand
            return np.array(points), self.forces[: len(goals)], np.array(slopes), losses, np.array(steps)
        forces = work.forces(marks)
        return np.array(points), forces, work.slopes(forces), losses, np.array(steps)

    def _slopes(self) -> Floats:
        """Those of all features, where all are in hand."""
        u = np.empty_like(self.rest)
        u[self.work.ids] = self.work.u
        return u

    def _point(self) -> Floats:
        z, work = self.rest.copy(), self.work
        z[work.ids[: work.m]] = work.w[: work.m]
        return z

    def _first_wrong(self, goals: list[Kinks], points: Floats, U: Floats) -> int:
        """The first point that is not optimal, with what it lacks taken in hand; their number if all are."""
        work, strengths = self.work, np.array([[kinks.strength] for kinks in goals])
        held, every = work.ids[: work.m], together(goals)
        many = every[:, held]
        off: Any = many.pulls(points[:, held], U[:, held]) > 2 * self._room(many.l1, strengths, held)
        wrong = off.any(axis=1)
        near: Floats = np.abs(U)
        near /= every.l1
        near[:, held[(many.l1 == 0).any(axis=0)]] = np.inf  # free, and so always in hand
        outside: Any = near > 1  # others are right at rest
        outside[:, held] = False
        good = len(goals)
        for j in np.flatnonzero(wrong | outside.any(axis=1)):
            ids = outside[j].nonzero()[0]
            pull = goals[j][ids].pulls(self.rest[ids], U[j, ids])
            lacking = pull > 2 * self._room(every.l1[j, ids], strengths[j], ids)
            if wrong[j] or lacking.any():
                self._take(ids[lacking], pull[lacking])
                good = int(j)
                break
        if (good < len(goals) and not lacking.any()) or (good == len(goals) and not self.whole):
            work.refresh()
        seen, p = slice(max(good, 1)), len(self.reach)
        np.fmax(self.reach, np.fmax.reduce(near[seen, :p], axis=0), out=self.reach)
        moved = held[(points[seen, held] != 0).any(axis=0)]
        self.reach[moved[moved < p]] = np.inf
        return good

    def _foresee(self, u: Floats, slope: Floats, last: float, goal: Kinks) -> None:
        """Take in hand what will have moved at `goal`, if slopes go on as they did."""
        ahead = u + (goal.strength - last) * slope if np.isfinite(last) else u
        far = np.maximum(np.abs(u), np.abs(ahead)) >= FARTHER * goal.l1
        new = np.flatnonzero((self.work.where < 0) & far)
        at = goal[new]
        pull = np.maximum(at.pulls(self.rest[new], u[new]), at.pulls(self.rest[new], ahead[new]))
        free = np.isfinite(pull)
        self._take(new[free], pull[free])

    def _take(self, ids: Any, pull: Floats) -> None:
        """Take features in hand: those that are pulled most, if they are many."""
        most = max(NEW, self.work.m // 4)
        if len(ids) > most:
            ids = ids[np.argpartition(-pull, most)[:most]]
        self.work.include(ids, self.rest[ids])

    def _slack(self, kinks: Kinks) -> Slack:
        strength = kinks.strength
        return lambda l1, ids: self._room(l1, strength, ids)

    def _room(self, l1: Floats, strength: Any, ids: Any) -> Floats:
        """How far slopes may be outside the subdifferential: a share of l1, and what rounding makes of them."""
        room: Floats = 2 * self.tol * np.maximum(l1, 1e-2 * strength) + self.floor[ids]
        return room


def working_set(form: StandardForm, whole: bool, known: Any) -> WorkingSet:
    """An empty working set of a problem."""
    XT = np.asarray(form.design.XT)
    if isinstance(form.loss, Squared):
        return SquaredSet(XT, np.asarray(form.s), np.asarray(form.y), whole, known)
    local, intercept = local_of(form)
    return SmoothSet(XT, intercept, np.asarray(form.offset), local)
