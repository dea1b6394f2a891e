"""Penalties as the host sees them: `l1*|w| + l2/2*w^2` on `[lower, upper]`, feature by feature, in NumPy."""

import dataclasses
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Indices = np.ndarray[Any, np.dtype[np.intp]]


@dataclasses.dataclass(slots=True)
class Kinks:
    """The penalty l1*|w| + l2/2*w^2 on [lower, upper], feature by feature, as arrays of one shape.

    `plain` says that all l2 are 0 and no bound is finite, where there is less to compute.
    """

    l1: Floats
    l2: Floats
    lower: Floats
    upper: Floats
    plain: bool

    def parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.l1, self.l2, self.lower, self.upper

    def __getitem__(self, ids: Any) -> "Kinks":
        l1 = self.l1[ids]
        if self.plain:  # the others have only one value
            return Kinks(l1, self.l2[: len(l1)], self.lower[: len(l1)], self.upper[: len(l1)], True)
        return Kinks(l1, self.l2[ids], self.lower[ids], self.upper[ids], self.plain)

    @property
    def strength(self) -> float:
        return float(self.l1.max())

    @property
    def smooth(self) -> int:
        """How many coefficients have no kink."""
        return int(np.sum((self.l1 == 0) & (self.lower < self.upper)))

    def times(self, factor: float) -> "Kinks":
        """The same with another l1."""
        return dataclasses.replace(self, l1=self.l1 * factor)

    def farness(self, z: Floats, u: Floats) -> float:
        """The factor of l1 at which z would be optimal, about: how far away a strength is."""
        at = self.l1 > 0
        if np.all(at):
            return 1 + float((self.pulls(z, u) / self.l1).max(initial=0.0))
        return 1 + float((self[at].pulls(z[at], u[at]) / self.l1[at]).max(initial=0.0))

    def slope(self, w: Floats, sign: Floats) -> Floats:
        """The derivative at w on this side of 0."""
        return self.l1 * sign if self.plain else self.l2 * w + self.l1 * sign

    def rise(self, w: Floats, sign: Floats, step: Floats) -> float:
        """By how much the penalty grows along a step that stays on this side of 0."""
        rise = float((self.l1 * sign) @ step)
        return rise if self.plain else rise + float((self.l2 * step) @ (w + step / 2))

    def ends(self, sign: Floats, d: Floats) -> Floats:
        """Where the pieces on these sides of 0 end in the direction d."""
        if self.plain:
            return np.where(sign * d < 0, 0, np.copysign(np.inf, d))
        low = np.where(sign > 0, np.maximum(self.lower, 0), self.lower)
        high = np.where(sign < 0, np.minimum(self.upper, 0), self.upper)
        return np.where(d > 0, high, low)

    def pulls(self, w: Floats, u: Floats) -> Floats:
        """How far u lies outside the subdifferential at w; negative inside."""
        if self.plain:
            return np.where(w == 0, np.abs(u) - self.l1, np.abs(u - np.copysign(self.l1, w)))
        return np.maximum(*self.sides(w, u))

    def pushes(self, w: Floats, u: Floats) -> tuple[Floats, Floats]:
        """The same where w is at rest, and with the sign of the direction in which it is pulled."""
        if self.plain:
            pull = np.abs(u) - self.l1
            return pull, np.copysign(pull, u)
        above, below = self.sides(w, u)
        pull = np.maximum(above, below)
        return pull, np.where(above > below, pull, -pull)

    def sides(self, w: Floats, u: Floats) -> tuple[Floats, Floats]:
        """How far u lies above and below the subdifferential at w; negative inside."""
        slope = self.l2 * w
        above = u - slope - np.where(w < 0, -self.l1, self.l1)
        below = slope + np.where(w > 0, self.l1, -self.l1) - u
        above[w >= self.upper] = -np.inf
        below[w <= self.lower] = -np.inf
        return above, below


def together(several: list[Kinks], ids: Any) -> Kinks:
    """Some penalties of the features at `ids`, stacked."""
    l1, l2, lower, upper = (np.stack(a) for a in zip(*(kinks[ids].parts() for kinks in several), strict=True))
    return Kinks(l1, l2, lower, upper, all(kinks.plain for kinks in several))
