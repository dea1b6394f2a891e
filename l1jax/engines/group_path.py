"""Paths of the group lasso: working sets of groups."""

from collections.abc import Callable
from typing import Any

import numpy as np

from l1jax.engines.active import NEW, Path, Strengths
from l1jax.engines.groups import GroupSet, Partition, Radii, Room
from l1jax.engines.kinks import Floats
from l1jax.engines.local import local_of
from l1jax.engines.working_set import TINY
from l1jax.standard_form import StandardForm

LOOSE = 0.03  # how far from optimal a point may be, relative to the radii, whatever the tolerance


class GroupPath(Path):
    """The same over groups. An intercept that a loss does not absorb is a free group at the end.

    A group's slopes may be off by a share of its radius: of the sum of radius_g * |z_g| it is then the gap, about.
    """

    @np.errstate(all="ignore")
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
        self.kinks, self.tol, self.limit, self.enough, self.whole = kinks, tol, limit, enough, False
        local, intercept = local_of(form)
        groups = kinks[0].groups
        p, free = form.shape[1], len(groups.sizes)
        if intercept:
            of = np.empty(p + 1, np.intp)
            of[groups.order], of[p] = np.repeat(np.arange(free), groups.sizes), free
            groups = Partition(of)
        self.groups = groups
        self.work: Any = GroupSet(np.asarray(form.design.XT), groups, np.asarray(form.offset), local)
        work, s = self.work, np.asarray(form.s)
        self.null = float(form.null_objective)
        self.rest = np.zeros(work.size, form.y.dtype)
        self.forces, self.reach = np.zeros((0, len(s))), np.zeros(0)  # certificates look at all groups
        force = work.force()
        size = float(np.sqrt(np.sum(force[s > 0] ** 2 / s[s > 0])))
        norm = np.append(np.asarray(form.design.norm, np.float64), np.ones(int(intercept)))
        self.floor = float(np.finfo(form.y.dtype).eps) * size * groups.lengths(norm) + TINY
        z = np.concatenate([start[0], start[1][None]])[: work.size].astype(np.float64)
        z[groups.features(np.flatnonzero(np.isinf(self.at(0).radii)))] = 0
        held = np.flatnonzero((groups.lengths(z) > 0) | (self.at(0).radii == 0))
        work.include(held, z[groups.features(held)])
        work.refresh()

    def at(self, i: int) -> Any:
        radii = self.kinks[i].radii
        return Radii(np.append(radii, np.zeros(len(self.groups.sizes) - len(radii))), self.groups)

    def _point(self) -> Floats:
        point: Floats = self.work.point()
        return point

    def inverse(self) -> None:
        """None: steps are by conjugate gradients."""

    def _record(self, *seen: Any) -> None:
        """Nothing: see `forces`."""

    def _first_wrong(self, goals: list[Any], points: Floats, U: Floats) -> int:
        for j, goal in enumerate(goals):
            pull, radii = goal.pulls(points[j], U[j]), goal.radii
            every = np.arange(len(radii))
            sizes = self.groups.lengths(points[j])
            held = np.where(self.work.where >= 0, 2, 1)  # what was settled may differ in rounding
            wrong = np.flatnonzero(pull > held * self._slack(goal)(radii, sizes, every))
            if len(wrong):
                self._take(wrong[self.work.where[wrong] < 0], pull)
                self.work.restart(points[j])
                return j
        self.work.refresh()
        return len(goals)

    def _foresee(self, u: Floats, slope: Floats, last: float, goal: Any) -> None:
        ahead = u + (goal.strength - last) * slope if np.isfinite(last) else u
        far = np.maximum(self.groups.lengths(u), self.groups.lengths(ahead))
        new = np.flatnonzero((self.work.where < 0) & (far >= 0.98 * goal.radii))
        self._take(new, far - goal.radii)

    def _take(self, ids: Any, pull: Floats) -> None:
        most = max(NEW, len(self.work.ids) // 4)
        if len(ids) > most:
            ids = ids[np.argpartition(-pull[ids], most)[:most]]
        self.work.include(ids, np.zeros(len(self.groups.features(ids))))

    def _slack(self, goal: Any) -> Room:  # type: ignore[override]
        least = 1e-2 * goal.strength

        def room(radii: Floats, sizes: Floats, ids: Any) -> Floats:
            penalty = float(np.sum(np.where(sizes > 0, radii, 0) * sizes))
            share = 1.6 * self.tol * self.null / max(penalty, TINY * self.null, TINY**2)
            return min(share, LOOSE) * np.maximum(radii, least) + self.floor[ids]

        return room
