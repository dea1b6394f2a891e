"""Working sets of groups, of the penalty sum_g radius_g * |z_g|: Newton's steps on the groups that are not 0."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from l1jax._arrays import eps
from l1jax.engines.inverse import longer
from l1jax.engines.kinks import Floats, Indices
from l1jax.engines.local import Local
from l1jax.engines.passes import pass_over
from l1jax.engines.working_set import STUCK, TINY

Room = Callable[[Floats, Floats, Indices], Floats]

FORCING = 0.1  # the share of the imbalance that a Newton step may leave
WITHIN = 0.5  # and of what its slopes may be off
SMALL = 64  # so many coefficients have their equations solved directly
DIRECT = 2048  # and so many where conjugate gradients are slow
MOST = 100  # conjugate gradients' iterations, at most
TRIES = 15  # of a step, each shorter, until one gains something
DAMPED = 0.9  # how much of its last change is foreseen of a coefficient


class Partition:
    """Which features make up which group: `of` (size,), numbers from 0, none left out."""

    def __init__(self, of: Indices) -> None:
        self.order = np.argsort(of, kind="stable")
        self.sizes = np.bincount(of)
        self.starts = np.cumsum(self.sizes) - self.sizes

    def features(self, groups: Indices) -> Indices:
        """The features of some groups, one group after the other."""
        sizes = self.sizes[groups]
        within = np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        features: Indices = self.order[np.repeat(self.starts[groups], sizes) + within]
        return features

    def lengths(self, a: Floats) -> Floats:
        """|a_g|, (G,)."""
        return lengths(a[self.order], self.starts)


def lengths(a: Floats, starts: Indices) -> Floats:
    """The lengths of consecutive parts of a, (p,), from their starts, (G,)."""
    largest = np.max(np.abs(a), initial=TINY)  # before anything is squared
    norms: Floats = largest * np.sqrt(np.add.reduceat((a / largest) ** 2, starts))
    return norms


@dataclasses.dataclass(frozen=True)
class Radii:
    """The penalty sum_g radius_g * |z_g|: 0 for a free group, infinite for one that is fixed at 0."""

    radii: Floats
    groups: Partition

    @property
    def strength(self) -> float:
        return float(np.max(self.radii, where=np.isfinite(self.radii), initial=0.0))

    @property
    def smooth(self) -> int:
        """How many coefficients have no kink."""
        return int(np.sum(self.groups.sizes[self.radii == 0]))

    def times(self, factor: float) -> "Radii":
        return Radii(self.radii * factor, self.groups)

    def pulls(self, z: Floats, u: Floats) -> Floats:
        """How far u_g lies outside the subdifferential at z_g, (G,); at most 0 inside."""
        sizes, radii = self.groups.lengths(z), self.radii
        alive = sizes > 0
        share = np.zeros_like(z)
        share[self.groups.order] = np.repeat(np.where(alive, radii / np.where(alive, sizes, 1), 0), self.groups.sizes)
        return self.groups.lengths(u - share * z) - np.where(alive, 0, radii)

    def farness(self, z: Floats, u: Floats) -> float:
        """The factor of the radii at which z would be optimal, about: how far away a strength is."""
        priced = (self.radii > 0) & np.isfinite(self.radii)
        return 1 + float(np.max(self.pulls(z, u)[priced] / self.radii[priced], initial=0.0))


@dataclasses.dataclass(frozen=True)
class Balance:
    """Groups in hand at one point."""

    sizes: Floats  # |z_g|
    alive: Any  # whether groups may be moved by Newton's step: not 0, or free
    unit: Floats  # z_g/|z_g|
    left: Floats  # of the slopes: 0 at the optimum, where z_g is not 0
    off: Floats  # how far the slopes are outside of the subdifferential


class GroupSet:
    """A smooth loss of the groups in hand, `ids`: their rows of X, one group after the other, and coefficients z (m,).

    Where z_g is not 0 the penalty is smooth. Newton's step d has (X C X' + D) d = what is left of the slopes, with
    D_g = radius_g/|z_g| * (I - z_g z_g'/|z_g|^2): by conjugate gradients, in single precision, as it need not be exact.
    Groups leave where their step takes them through 0. They enter, and those that a Newton step would change by half
    are corrected, by a proximal step of their own, one after the other. Every step lessens the objective.
    """

    whole = False

    def __init__(self, XT: Floats, groups: Partition, offset: Floats, local: Callable[[Floats], Local]) -> None:
        self.XT, self.groups, self.local, self.offset = XT, groups, local, np.asarray(offset, np.float64)
        self.size = len(groups.order)
        self.m = 0
        self.where = np.full(len(groups.sizes), -1)
        self.ids, self.starts, self.sizes, self.of = (np.empty(0, np.intp) for _ in range(4))
        self.z: Floats = np.empty(0)
        self.X, self.light = np.empty((0, XT.shape[1])), np.empty((0, XT.shape[1]), np.float32)
        self.rows: Floats = self.X
        self.squares = np.empty(0)
        self.loose = np.empty(0, bool)
        self.past: list[tuple[float, Floats]] = []
        self.eta: Floats = self.offset
        self.here = local(self.eta)

    def include(self, ids: Indices, z: Floats) -> None:
        """Take groups in hand, at coefficients z of their features; `refresh` where these are not 0."""
        if not len(ids):
            return
        start, features = self.m, self.groups.features(ids)
        self.m = end = start + len(features)
        self.X, self.light = longer(self.X, end, start), longer(self.light, end, start)
        data = features < len(self.XT)
        self.X[start:end][data], self.X[start:end][~data] = self.XT[features[data]], 1
        self.light[start:end] = self.X[start:end]
        self.squares = np.append(self.squares, np.einsum("ij,ij->i", self.X[start:end], self.X[start:end]))
        self.z = np.append(self.z, z)
        self.where[ids] = np.arange(len(self.ids), len(self.ids) + len(ids))
        self.ids = np.append(self.ids, ids)
        self.sizes = self.groups.sizes[self.ids]
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.of = np.repeat(np.arange(len(self.ids)), self.sizes)
        self.loose = np.append(self.loose, np.zeros(len(ids), bool))

    def refresh(self) -> None:
        """Compute the linear predictor anew."""
        self.eta = self._predictor(self.z)
        self.here = self.local(self.eta)

    def _predictor(self, z: Floats) -> Floats:
        return self.offset + z @ self.X[: self.m]

    def point(self) -> Floats:
        z = np.zeros(self.size)
        z[self.groups.features(self.ids)] = self.z
        return z

    def restart(self, z: Floats) -> None:
        """Go back to a point of the groups in hand."""
        self.z = z[self.groups.features(self.ids)]
        self.refresh()

    def force(self) -> Floats:
        return self.here.force

    def value(self) -> float:
        return self.here.value

    mark = force

    def forces(self, marks: list[Floats]) -> Floats:
        """Those at several points, (c, n)."""
        return np.array(marks)

    def slopes(self, forces: Floats) -> Floats:
        """One pass over the data: the slopes of all features, (c, size), at points of these forces (c, n)."""
        u = pass_over(self.XT, forces.astype(self.XT.dtype)).astype(np.float64)
        if self.size == len(self.XT):
            return u
        return np.concatenate([u, np.sum(forces, axis=1, keepdims=True)], axis=1)

    # -- the minimum over the groups in hand

    def settle(self, goal: Radii, room: Room, limit: int) -> int:
        """Steps until the slopes of all groups in hand are within `room` of the subdifferential; their number."""
        if not len(self.ids):
            return 0
        t = goal.radii[self.ids]
        self._foresee(goal.strength, t)
        self._choose_rows(room(t, self._lengths(self.z), self.ids))
        steps, stale = max(limit, 0), 0
        least = lowest = float(np.inf)
        for step in range(steps):
            at = self._balance(t)
            free = room(t, at.sizes, self.ids)
            most, objective = float(np.max(at.off / free)), self.here.value + float(t @ at.sizes)
            stale = 0 if most < 0.5 * least or objective < lowest - self._noise(objective) else stale + 1
            least, lowest = min(least, most), min(lowest, objective)
            if (step and most <= 1) or stale == STUCK:  # only rounding is left
                steps = step
                break
            loose = np.flatnonzero((at.off > free) & (~at.alive | self.loose | (stale > 0)))
            if len(loose):
                self._proximal_steps(loose[np.argsort(-at.off[loose])], at, t)
                at = self._balance(t)
            if np.any(at.alive):
                self._newton(at, t, free)
        self.past = [*self.past[-1:], (goal.strength, self.point())]
        return steps

    def _choose_rows(self, room: Floats) -> None:
        """Single precision, half of the memory to read, where its slopes are good enough."""
        f = self.here.force
        noise = eps(np.float32) / 2 * float(np.sqrt(f @ f * np.max(self.squares) * np.max(self.sizes)))
        self.rows = self.light if noise <= np.min(room) else self.X

    def _noise(self, objective: float) -> float:
        """What rounding may hide of a gain."""
        return 8 * eps(self.here.force.dtype) * abs(objective)

    def _foresee(self, strength: float, t: Floats) -> None:
        """Go on as between the last two points, if that lessens the objective."""
        if len(self.past) < 2 or not 0 < strength < self.past[1][0] < self.past[0][0]:
            return
        (s0, z0), (s1, z1) = ((s, z[self.groups.features(self.ids)]) for s, z in self.past)
        ahead = min(DAMPED * np.log(s1 / strength) / np.log(s0 / s1), 2.0)
        both = (self._lengths(z0) > 0) & (self._lengths(z1) > 0)
        z = z1 + ahead * (z1 - z0)
        both &= self._sums(z * z1) > 0.2 * self._sums(z1**2)
        z = np.where(both[self.of], z, z1)
        eta = self._predictor(z)
        there = self.local(eta)
        if there.value + t @ self._lengths(z) < self.here.value + t @ self._lengths(self.z):
            self.z, self.eta, self.here = z, eta, there

    def _lengths(self, a: Floats) -> Floats:
        return lengths(a, self.starts)

    def _sums(self, a: Floats) -> Floats:
        sums: Floats = np.add.reduceat(a, self.starts)
        return sums

    def _balance(self, t: Floats) -> Balance:
        rows, force = self.rows[: self.m], self.here.force
        unit = max(float(np.max(np.abs(force))), TINY)
        u = (rows @ (force / unit).astype(rows.dtype)).astype(np.float64) * unit
        sizes = self._lengths(self.z)
        some = sizes > 0
        direction = self.z / np.where(some, sizes, 1)[self.of]
        left = u - t[self.of] * direction
        off = np.where(some, self._lengths(left), self._lengths(u) - t)
        return Balance(sizes, some | (t == 0), direction, left, off)

    def _proximal_steps(self, groups: Indices, at: Balance, t: Floats) -> None:
        """A step of each of these groups, one after the other."""
        for g in groups:
            part = slice(self.starts[g], self.starts[g] + self.sizes[g])
            rows, z = self.X[part], self.z[part]
            slope = rows @ self.here.force
            length = float(slope @ slope)
            curvature = float(self.here.curvature @ (slope @ rows) ** 2) / max(length, TINY)
            for _ in range(TRIES if curvature > 0 else 0):
                v = z + slope / curvature
                far = float(np.sqrt(v @ v))
                new = v * max(0.0, 1 - t[g] / curvature / far) if far else v
                d = new - z
                if not np.any(d):
                    break
                eta = self.eta + d @ rows
                there = self.local(eta)
                gain = self.here.value - there.value + t[g] * (at.sizes[g] - float(np.sqrt(new @ new)))
                if gain >= curvature / 4 * float(d @ d):
                    self.z[part], self.eta, self.here = new, eta, there
                    break
                curvature *= 2
        self.loose[groups] = False

    def _newton(self, at: Balance, t: Floats, room: Floats) -> None:
        """A Newton step of the groups that are not 0."""
        d = self._direction(at, t, room)
        radial = self._sums(at.unit * d)
        rows, longest = self.rows[: self.m], max(float(np.max(np.abs(d))), TINY)
        change = ((d / longest).astype(rows.dtype) @ rows).astype(np.float64) * longest
        promised = float(d @ at.left)
        noise = self._noise(self.here.value + float(t @ at.sizes))
        through = at.alive & (t > 0) & (at.sizes + radial <= 0)
        part = 1.0
        for k in range(TRIES):
            z, eta = self.z + part * d, self.eta + part * change
            if k == 0 and np.any(through):
                dead = through[self.of]
                eta = eta - z[dead] @ self.X[: self.m][dead]
                z[dead] = 0
            there = self.local(eta)
            gain = self.here.value - there.value + t @ (at.sizes - self._lengths(z))
            if gain >= 1e-4 * part * promised - noise:
                self.z, self.eta, self.here = z, eta, there
                self.loose |= through | (self._lengths(d) > 0.5 * at.sizes) & (t > 0)
                return
            part /= 3

    def _direction(self, at: Balance, t: Floats, room: Floats) -> Floats:
        moving = at.alive[self.of]
        stiff = np.where(at.alive & (t > 0), t / np.where(at.sizes > 0, at.sizes, 1), 0)
        k = int(np.sum(moving))
        if k > SMALL:
            allowed = np.maximum(WITHIN * room, FORCING * np.max(at.off[at.alive]))
            d, reached = self._conjugate_gradients(at, stiff, allowed, min(k // 8, MOST))
            if reached or k > DIRECT:
                return d
        return self._solve(at, np.flatnonzero(moving), stiff)

    def _conjugate_gradients(self, at: Balance, stiff: Floats, allowed: Floats, limit: int) -> tuple[Floats, bool]:
        """The Newton step, about, and whether what it leaves is `allowed`.

        Preconditioned by the diagonal, and each group's direction apart.
        """
        light = np.float32
        rows, of, curvature = self.light[: self.m], self.of, self.here.curvature
        scale = float(np.max(np.abs(at.left[at.alive[of]]), initial=TINY))
        bend = float(np.mean(curvature))
        size = max(bend * float(np.max(self.squares)), TINY)  # units in which single precision serves
        C = (curvature / size).astype(light)
        moving, unit = at.alive[of].astype(light), at.unit.astype(light)
        mu = (stiff / size).astype(light)[of]
        diagonal = (self.squares * (bend / size)).astype(light)
        weight = 1 / (diagonal + mu + light(TINY))
        inner = self._sums(unit * unit * diagonal * weight)[of]  # 1 - mu * unit'/(diagonal + mu)*unit
        tilt = np.where(inner > 0, mu * weight * unit / np.where(inner > 0, inner, 1), 0)

        def apart(a: Floats) -> Floats:
            return self._sums(unit * a)[of]

        d = np.zeros(self.m, light)
        rest = (at.left / scale).astype(light) * moving
        p, fall = np.zeros_like(rest), light(1)
        for _ in range(limit):
            s = weight * rest
            s = (s + tilt * apart(s)) * moving
            was, fall = fall, rest @ s
            p = s + (fall / was) * p
            Ap = (rows @ ((p @ rows) * C) + mu * (p - unit * apart(p))) * moving
            bent = p @ Ap
            if not (bent > 0 and np.isfinite(bent)):
                break
            d = d + (fall / bent) * p
            rest = rest - (fall / bent) * Ap
            if np.all(scale * self._lengths(rest) <= allowed):
                return d.astype(np.float64) * (scale / size), True
        return np.where(np.isfinite(d), d, 0).astype(np.float64) * (scale / size), False

    def _solve(self, at: Balance, moving: Indices, stiff: Floats) -> Floats:
        """The Newton step by elimination."""
        rows, of, unit = self.X[moving], self.of[moving], at.unit[moving]
        A = (rows * self.here.curvature) @ rows.T
        same = of[:, None] == of
        A -= np.where(same, stiff[of][:, None] * unit[:, None] * unit, 0)
        diagonal = np.arange(len(moving))
        A[diagonal, diagonal] += stiff[of]
        A[diagonal, diagonal] *= 1 + eps(np.float64) ** 0.6
        A[diagonal, diagonal] += TINY
        d = np.zeros(self.m)
        d[moving] = np.linalg.solve(A, at.left[moving])
        return d
