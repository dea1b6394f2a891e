"""Second-order steps on the support: the features in hand, and the inverse of their second derivative, kept current.

This is NumPy, driven from the host: sizes follow the support, nothing is padded, nothing is compiled.
"""

import abc
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from l1jax._arrays import eps, smallest
from l1jax.engines.inverse import Border, Inverse, inverted, longer, solved
from l1jax.engines.kinks import Floats, Indices, Kinks

Slack = Callable[[Floats, Indices], Floats]

TOGETHER = 32  # how many features may enter the support in one step
PATIENT = 8  # steps at one strength after which they enter one at a time, from points optimal on their support
TINY = smallest(np.float32)
HALVINGS = 15  # of a step, twice each, until one gains something
SPARE = 256  # features in hand beyond the number of rows, for which there is room from the start
FRESH = 0.5  # the share of the imbalance that may be left by a step before H is computed anew
STUCK = 3  # steps that hardly lessen the imbalance, after which only rounding is left


class WorkingSet(abc.ABC):
    """A smooth loss of the features in hand: `ids` (m,), their coefficients `w`, minus the loss's slopes `u`.

    The first `k` are the support: free to move, each on its side of zero, `sign`; the others rest at a kink of their
    penalty. H is about the inverse of the second derivative on the support. Features enter and leave it by block
    elimination, so that no factorisation is made anew; steps are corrected by their true slopes, so that H need not
    be exact.
    """

    def __init__(self, XT: Floats, size: int) -> None:
        self.XT, self.size = XT, size
        self.k = self.m = self.rebuilds = 0
        self.eps = eps(XT.dtype)
        self.ridge = self.eps**0.6  # what diagonals are raised by, so that dependent features have a finite inverse
        self.where = np.full(size, -1)  # the position of each feature
        self.ids = np.empty(0, np.intp)
        self.w, self.u, self.sign = (np.empty(0, XT.dtype) for _ in range(3))
        self.H = Inverse(XT.dtype)
        # The features in hand, by position; memory is taken as it is written.
        self.X = np.empty((min(size, XT.shape[1] + SPARE), XT.shape[1]), XT.dtype)

    # -- what a loss says

    @abc.abstractmethod
    def read(self, ids: Indices) -> None:
        """Take in the data of new features, at the end of `ids` already, and their slopes."""

    @abc.abstractmethod
    def products(self, rows: Any, columns: Any) -> Floats:
        """A block of the second derivative at the current point, by positions."""

    @abc.abstractmethod
    def try_step(self, new: Indices, d: Floats) -> tuple[float, Any]:
        """What the loss loses by moving the support and the features at `new` by d, and what `accept` then needs."""

    @abc.abstractmethod
    def accept(self, step: Any) -> None:
        """Bring the loss to where `try_step` was: the slopes `u` of all features in hand."""

    @abc.abstractmethod
    def refresh(self) -> None:
        """Compute the slopes anew, from the data."""

    @abc.abstractmethod
    def force(self) -> Floats:
        """Minus the gradient in the linear predictor, (n,)."""

    @abc.abstractmethod
    def slopes(self, forces: Floats) -> Floats:
        """One pass over the data: the slopes of all features, (c, size), at points of these forces (c, n)."""

    @abc.abstractmethod
    def value(self) -> float:
        """The loss."""

    def mark(self) -> Any:
        """What `forces` asks of the current point."""
        return self.force()

    def forces(self, marks: list[Any]) -> Floats:
        """`force` at several points, (c, n)."""
        return np.array(marks)

    def renew(self) -> None:  # noqa: B027
        """Bring the second derivative to the current point, where it is not constant."""

    def best(self, new: Indices, d: Floats, promised: float, l2: float) -> Floats:
        """The multiple of a step at which its gain is largest, by the second derivative at the current point.

        `promised` is the slope along it, l2 what the penalty adds to the second derivative.
        """
        return d

    def predicted(self) -> Floats:
        """w'X of the features in hand."""
        last = self.m if self.w[self.k : self.m].any() else self.k
        predicted: Floats = self.w[:last] @ self.X[:last]
        return predicted

    # -- the set

    def include(self, ids: Indices, w: Floats) -> None:
        """Take features in hand, at rest at w."""
        if not len(ids):
            return
        start, self.m = self.m, self.m + len(ids)
        for name in ("ids", "w", "u", "sign"):
            setattr(self, name, longer(getattr(self, name), self.m, start))
        self.ids[start : self.m], self.w[start : self.m], self.sign[start : self.m] = ids, w, 0
        self.where[ids] = np.arange(start, self.m)
        self.read(ids)

    def rearrange(self, to: Indices, source: Indices) -> None:
        """Bring what is at the positions `source` to the positions `to`: the same ones in another order."""
        for a in (self.ids, self.w, self.u, self.sign):
            a[to] = a[source]
        self.where[self.ids[to]] = to

    def leave(self, positions: Indices) -> None:
        """Take features out of the support, and out of H."""
        k = self.k
        self.k = start = k - len(positions)
        order = exchanged(positions, range(start, k))
        self.rearrange(*order)
        self.H.leave(*order, len(positions))

    def enter(self, ids: Indices, l2: Any, border: Border | None = None) -> None:
        """Take features in hand into the support, and into H; l2 is theirs."""
        new = self.where[ids]
        border = border or self.border(new, self.products(slice(0, self.k), new))
        start, self.k = self.k, self.k + len(ids)
        self.rearrange(*exchanged(new, range(start, self.k)))
        self.H.enter(border, l2 + self.ridge * border.diagonal + TINY)

    def border(self, new: Indices, B: Floats) -> Border:
        """What the second derivative says of features, at these positions, beside the support; B is its block there."""
        return self.H.border(B, self.products(new, new))

    def inverse(self, kinks: Kinks) -> tuple[Indices, Floats] | None:
        """The support and the inverse of its second derivative, for a penalty; None where it is not at hand."""
        return None

    def rebuild(self, l2: Any) -> None:
        """Compute H anew, for the l2 of the support."""
        self.renew()
        k = self.k
        support, at = slice(0, k), np.arange(k)
        A = self.products(support, support).copy()
        diagonal = A[at, at]
        self.rebuilds += 1
        for ridge in (self.ridge, 1e3 * self.ridge):
            A[at, at] = diagonal * (1 + ridge) + l2 + TINY
            H = inverted(A)
            if np.all(np.isfinite(H)) and np.all(H[at, at] > 0):
                break
        self.H.set(H)

    # -- the minimum over the features in hand

    def settle(self, kinks: Kinks, slack: Slack, limit: int) -> int:
        """Steps until the slopes of all features in hand are within `slack` of the subdifferential; their number."""
        rebuilt, stuck, shifted = False, 0, True
        before: float | None = None  # the imbalance before the last step, if that tells how good H is
        whole = True
        m = self.m
        ids, w, u, sign = self.ids[:m], self.w[:m], self.u[:m], self.sign[:m]
        for step in range(limit):
            k = self.k
            if shifted:
                here, shifted = kinks[ids], False
                room, support, rest = slack(here.l1, ids), here[:k], here[k:]
            e: Floats = u[:k] - support.slope(w[:k], sign[:k])  # what is left: 0 at the support's optimum
            off = float((np.abs(e) / room[:k]).max(initial=0.0))
            if before is not None:
                stuck = stuck + 1 if off > 0.5 * before and whole else 0
                if rebuilt := not whole or off > max(1.0, FRESH * before):  # H is too old, or drifted
                    self.rebuild(support.l2)
                before = None
            pull = rest.pulls_at_rest(w[k:], u[k:])
            waiting = (pull > room[k:]).nonzero()[0]
            if (step and off <= 1 and not len(waiting)) or stuck == STUCK:
                return step
            # Many at once at first; later one at a time, from points optimal on their support: so no cycle lasts.
            late = step >= PATIENT
            if late and off > max(1.0, 1e-3 * float(np.max(pull, initial=0.0) / np.min(room))):
                waiting = waiting[:0]
            most = 1 if late else TOGETHER
            if len(waiting) > most:
                waiting = waiting[np.argpartition(-pull[waiting], most - 1)[:most]]
            d: Floats = self.H.times(e)
            new, border, moving, moved = waiting, None, support, cast(Any, slice(0, k))
            if len(new):
                new = new + k
                at = here[new]
                push = np.copysign(pull[waiting], u[new] - at.slope(w[new], np.sign(w[new])))
                new, border, d, push = self._with_entrants(at.l2, new, push, d)
            if len(new):
                moved = np.concatenate([np.arange(k), new])
                moving, e = here[moved], np.concatenate([e, push])
                sign[new] = np.sign(np.where(w[new] == 0, push, w[new]))
            taken = self._move(moving, moved, new, d, e)
            if taken is None:  # nothing is gained by it: H is too old, or only rounding is left
                sign[new] = 0
                stuck = STUCK if rebuilt or not k else stuck + 1
                if stuck < STUCK:
                    self.rebuild(support.l2)
                    rebuilt = True
                continue
            gone, whole = taken
            if shifted := bool(len(gone) or len(new)):
                sign[gone] = 0
                entered = len(new)
                if border is not None and len(gone):
                    stay = ~np.isin(new, gone)
                    new, border = new[stay], border[stay]
                new = ids[new]
                if len(out := gone[gone < k]):
                    self.leave(out)
                    border = border if self.H.pending else None
                if len(new):
                    self.enter(new, kinks[new].l2, border)
                if len(gone) or (entered and whole) or not self.k:
                    rebuilt, stuck = False, 0
                    continue
            before = off
        return max(limit, 0)

    def _with_entrants(
        self, l2: Any, new: Indices, push: Floats, d: Floats
    ) -> tuple[Indices, Border | None, Floats, Floats]:
        """The step of the support (d) and of new features, all of which move inwards: others are left out."""
        B = self.products(slice(0, self.k), new)
        b = push - d @ B  # the pull that the support's step leaves
        l2 = np.broadcast_to(l2, len(new))
        kept = b * push > 0
        if not kept.any():
            return new[:0], None, d, push[:0]
        if not kept.all():
            l2, new, push, b, B = l2[kept], new[kept], push[kept], b[kept], B[:, kept]
        border: Border = self.border(new, B)
        diagonal = border.S.diagonal() + l2
        size = border.diagonal + l2 + TINY
        # A feature in the span of the support moves along a null direction, to the first kink: alone.
        apart = diagonal > self.eps**0.5 * size
        S = border.S.copy()
        S.flat[:: len(new) + 1] = np.maximum(diagonal, 0) + self.eps**0.75 * size
        left = np.arange(len(new))
        if not apart.all():
            left = apart.nonzero()[0] if apart.any() else left[np.argmax(np.abs(push)), None]
            border, S, b = border[left], S[left][:, left], b[left]
        while len(left):
            dnew = solved(S, b)
            inwards = dnew * push[left] > 0
            if inwards.all():
                return new[left], border, np.concatenate([d - border.U @ dnew, dnew]), push[left]
            left, border, S, b = left[inwards], border[inwards], S[inwards][:, inwards], b[inwards]
        return new[:0], None, d, push[:0]

    def _move(self, here: Kinks, moved: Any, new: Indices, d: Floats, e: Floats) -> tuple[Indices, bool] | None:
        """Go along d, to the end of each feature's piece at most: (the positions that came to rest, whether all of d).

        The step is projected onto the pieces if that gains enough, else it ends where the first feature comes to
        rest. None if no step gains anything.
        """
        w, sign = self.w[moved], self.sign[moved]
        d = self.best(new, d, float(e @ d), 0.0 if here.plain else float(here.l2 @ d**2))
        promised = float(e @ d)
        ends = here.nearest(w + d, sign)
        out = ends != w + d
        crossing = bool(out.any())

        def attempt(step: Floats) -> tuple[float, Any]:
            gain, outcome = self.try_step(new, step)
            return gain - here.rise(w, sign, step), outcome

        def rest(ended: Any, step: Floats, outcome: Any) -> Indices:
            self.w[moved] = w + step
            at = ended.nonzero()[0]
            gone: Indices = at if isinstance(moved, slice) else moved[at]
            self.w[gone] = ends[at]
            self.accept(outcome)
            return gone

        none = np.zeros(len(d), bool)
        t, ended = 1.0, none
        if crossing:
            step = np.where(out, ends - w, d)
            gain, outcome = attempt(step)
            if gain >= 0.05 * promised:
                return rest(out, step, outcome), False
            times = np.where(out, (ends - w) / np.where(out, d, 1), np.inf)
            t = float(times.min())
            ended = times <= t
        noise = self.noise()
        for _ in range(HALVINGS):
            step = np.where(ended, ends - w, t * d) if t < 1 or crossing else d
            gain, outcome = attempt(step)
            if gain >= 1e-4 * t * promised - noise:
                return rest(ended, step, outcome), t == 1
            t, ended = t / 4, none
        return None

    def noise(self) -> float:
        """What rounding may hide of a gain."""
        return 0.0


def exchanged(positions: Indices, place: range) -> tuple[Indices, Indices]:
    """(to, source), by which what is at `positions` comes to `place`, in their order, and what was there to theirs."""
    chosen = positions.tolist()
    freed = [i for i in chosen if i not in place]
    others = set(place).difference(chosen)
    return np.array([*place, *freed], np.intp), np.array([*chosen, *others], np.intp)
