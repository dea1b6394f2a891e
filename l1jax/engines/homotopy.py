"""The lasso's path knot by knot: between two changes of the support solutions are linear in lambda."""

from collections.abc import Callable
from typing import Any

import numpy as np

from l1jax._arrays import eps
from l1jax.engines.kinks import Floats
from l1jax.losses import Squared
from l1jax.standard_form import StandardForm

DEPENDENT = 1e-10  # the share of a feature's variance that the support must leave, for it to enter
KNOTS = 20  # for each feature, at most: a path that has more is not worth its while
ROUNDING = 64  # units in the last place of a coefficient, which is 0 at a knot
ROWS = 4096  # taken in double precision at a time
LARGE = 512  # features, whose sweeps are short
KNOTS_PER_STRENGTH = 4  # that are likely, at most, where steps for each strength would be no less work


def knots_are_cheap(form: StandardForm, strengths: int) -> bool:
    """Whether a path of so many strengths takes less work knot by knot."""
    n, p = form.shape
    suits = isinstance(form.loss, Squared) and not form.null_intercept.ndim
    return suits and p <= min(n, LARGE, KNOTS_PER_STRENGTH * strengths)


class Homotopy:
    """A run over strengths lambda, in descending order, of the squared loss with the penalty lambda*sum base_j*|z_j|.

    M is the second derivative swept on the support, as it stands in linear regression: the inverse on the support,
    the others' products given the support outside of it; its last two rows are those of X'y and of the signs on the
    support, times base. All coefficients of the support, and all slopes outside of it, are `M[-2] - lambda*M[-1]`. A
    knot, where a coefficient reaches 0 or a slope its bound, costs one sweep.

    Points are exact but for the rounding of many sweeps, in float64 whatever the data; certificates tell. It stops at
    a strength that it can't reach, and repeats the last point from there on.

    Source: Osborne, Presnell, Turlach (2000), "A new approach to variable selection in least squares problems", IMA
    J. Numer. Anal. 20(3); Goodnight (1979), "A tutorial on the SWEEP operator", Amer. Statist. 33(3).
    """

    def __init__(
        self,
        form: StandardForm,
        base: Floats,
        strengths: Floats,
        limit: int,
        enough: Callable[[Floats, float], bool] | None = None,
        known: Any = None,
    ) -> None:
        self.base, self.strengths = np.asarray(base, np.float64), np.asarray(strengths, np.float64)
        self.limit, self.enough, self.dtype = limit, enough, form.y.dtype
        p = form.shape[1]
        self.M = np.zeros((p + 2, p))
        self.c: Floats
        self.total: float
        self.M[:p], self.c, self.total = known[:3] if known is not None else _moments(form)
        self.M[p] = self.c
        self.product = np.empty_like(self.M)
        self.sign, self.on = np.zeros(p), np.zeros(p, bool)
        self.own = np.diagonal(self.M).copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            self.faint = ROUNDING * eps(np.float64) * np.sqrt(self.total / self.own)

    @np.errstate(all="ignore")  # bounds that are never reached are infinitely far away
    def run(self) -> tuple[Floats, Floats, Any]:
        """The minimisers (L, p), intercepts (L,), which are 0, and steps (L,)."""
        on, count, p = self.on, len(self.strengths), len(self.c)
        Z, steps = np.zeros((count, p)), np.ones(count, np.int32)
        for free in np.flatnonzero((self.base == 0) & (self.own > 0)):
            if self.M[free, free] > DEPENDENT * self.own[free]:
                self._sweep(int(free))
        priced = ~on & (self.base > 0)
        first = float((np.abs(self.M[p, priced]) / self.base[priced]).max(initial=0.0))
        # Strengths that are the first knot but for the rounding of the data leave zeros.
        near = self.strengths > first * (1 - ROUNDING * eps(self.dtype))
        strengths = np.where(near, np.maximum(self.strengths, first), self.strengths)
        lam = max(float(strengths[0]), first)
        i, last, knots, sweeps = 0, -1, 0, 0
        while i < count and knots < self.limit and sweeps <= KNOTS * p:
            j, sign, fall = self._next(lam, last)
            k = i + int(np.searchsorted(-strengths[i:], fall - lam, side="right"))
            if k > i:
                at = np.flatnonzero(on)
                z = self.M[p, at] - strengths[i:k, None] * self.M[p + 1, at]
                Z[i:k, at] = np.where(np.abs(z) > self.faint[at], z, 0)
                steps[i] += knots
                if self._enough(Z, steps, i, k):
                    k = count
                i, knots = k, 0
                if i == count:
                    break
            lam, last = lam - fall, j
            knots, sweeps = knots + 1, sweeps + 1
            if not on[j]:
                self.sign[j] = sign
                self.M[p + 1, j] += sign * self.base[j]
            self._sweep(j)
            if not on[j]:
                self.M[p + 1, j] -= self.sign[j] * self.base[j]
        Z[i:] = np.where(on, self.M[p] - lam * self.M[p + 1], 0)
        return Z.astype(self.dtype), np.zeros(count, self.dtype), steps

    def _next(self, lam: float, last: int) -> tuple[int, float, float]:
        """The feature of the next knot below lam, the side on which it is, and how far away that is."""
        M, on, base = self.M, self.on, self.base
        at, slope = M[-2] - lam * M[-1], M[-1]
        up, down = base + slope, base - slope
        above = np.where(up > 0, (lam * base - at) / up, np.inf)
        below = np.where(down > 0, (lam * base + at) / down, np.inf)
        inwards = self.sign * slope
        fall = np.where(on, np.where(inwards < 0, self.sign * at / -inwards, np.inf), np.minimum(above, below))
        fall[~on & (np.diagonal(M) <= DEPENDENT * self.own)] = np.inf  # in the span of the support
        fall[last : last + 1] = np.inf  # it is at its bound, and leaves it
        fall[np.isnan(fall)] = np.inf
        j = int(fall.argmin())
        return j, 1.0 if above[j] < below[j] else -1.0, max(float(fall[j]), 0.0)

    def _sweep(self, j: int) -> None:
        """Take feature j into the support, or out of it."""
        M = self.M
        pivot, row, column = M[j, j], M[:, j] / M[j, j], M[j].copy()
        np.multiply(row[:, None], column, out=self.product)
        M -= self.product
        M[:, j], M[j] = row, -column / pivot
        M[j, j] = 1 / pivot
        self.on[j] = not self.on[j]

    def _enough(self, Z: Floats, steps: Any, i: int, k: int) -> bool:
        """Whether one of the points from i to k is where to stop; it is repeated then."""
        if self.enough is None:
            return False
        on = self.on
        for at in range(i, k):
            slopes = self.strengths[at] * self.base[on] * self.sign[on]
            loss = (self.total - float(Z[at, on] @ (self.c[on] + slopes))) / 2
            if self.enough(Z[at].astype(self.dtype), loss):
                Z[at:], steps[at + 1 :] = Z[at], 0
                return True
        return False


def _moments(form: StandardForm) -> tuple[Floats, Floats, float]:
    """X'SX, X'Sy and y'Sy in double precision."""
    XT, root = np.asarray(form.design.XT), np.sqrt(np.asarray(form.s, np.float64))
    y, p = root * np.asarray(form.y), len(XT)
    G, c = np.zeros((p, p)), np.zeros(p)
    for start in range(0, len(root), ROWS):
        rows = slice(start, start + ROWS)
        part = XT[:, rows] * root[rows]
        G += part @ part.T  # NumPy sees the symmetry, and does half of the work
        c += part @ y[rows]
    return G, c, float(y @ y)
