"""Penalties as the host sees them: `l1*|w| + l2/2*w^2` on `[lower, upper]`, feature by feature, in NumPy."""

import dataclasses
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
Indices = np.ndarray[Any, np.dtype[np.intp]]


@dataclasses.dataclass(slots=True)
class Kinks:
    """The penalty l1*|w| + l2/2*w^2 on [lower, upper], feature by feature, as arrays of one shape.

    `plain` says that all l2 are 0 and no bound is finite, where there is less to compute: these are numbers then.
    `strength` is the largest l1 of all features, whichever these are.
    """

    l1: Floats
    l2: Any
    lower: Any
    upper: Any
    plain: bool
    strength: float

    def __getitem__(self, at: Any) -> "Kinks":
        if self.plain:
            return Kinks(self.l1[at], self.l2, self.lower, self.upper, True, self.strength)
        return Kinks(self.l1[at], self.l2[at], self.lower[at], self.upper[at], False, self.strength)

    @property
    def smooth(self) -> int:
        """How many coefficients have no kink."""
        return int(np.sum((self.l1 == 0) & (self.lower < self.upper)))

    def times(self, factor: float) -> "Kinks":
        """The same with another l1."""
        return dataclasses.replace(self, l1=self.l1 * factor, strength=self.strength * factor)

    def farness(self, z: Floats, u: Floats) -> float:
        """The factor of l1 at which z would be optimal, about: how far away a strength is."""
        at = self.l1 > 0
        if at.all():
            return 1 + float((self.pulls(z, u) / self.l1).max(initial=0.0))
        return 1 + float((self[at].pulls(z[at], u[at]) / self.l1[at]).max(initial=0.0))

    def slope(self, w: Floats, sign: Floats) -> Floats:
        """The derivative at w on this side of 0."""
        return self.l1 * sign if self.plain else self.l2 * w + self.l1 * sign

    def rise(self, w: Floats, sign: Floats, step: Floats) -> float:
        """By how much the penalty grows along a step that stays on this side of 0."""
        rise = float((self.l1 * sign) @ step)
        return rise if self.plain else rise + float((self.l2 * step) @ (w + step / 2))

    def nearest(self, w: Floats, sign: Floats) -> Floats:
        """The nearest points of the pieces on these sides of 0."""
        if self.plain:
            return np.where(sign * w < 0, 0, w)
        low = np.where(sign > 0, np.maximum(self.lower, 0), self.lower)
        high = np.where(sign < 0, np.minimum(self.upper, 0), self.upper)
        return np.minimum(np.maximum(w, low), high)

    def pulls(self, w: Floats, u: Floats) -> Floats:
        """How far u lies outside the subdifferential at w; negative inside."""
        if self.plain:
            return np.where(w == 0, np.abs(u) - self.l1, np.abs(u - np.copysign(self.l1, w)))
        return np.maximum(*self.sides(w, u))

    def pulls_at_rest(self, w: Floats, u: Floats) -> Floats:
        """The same where w is at rest."""
        return np.abs(u) - self.l1 if self.plain else self.pulls(w, u)

    def sides(self, w: Floats, u: Floats) -> tuple[Floats, Floats]:
        """How far u lies above and below the subdifferential at w; negative inside."""
        slope = self.l2 * w
        above = u - slope - np.where(w < 0, -self.l1, self.l1)
        below = slope + np.where(w > 0, self.l1, -self.l1) - u
        above[w >= self.upper] = -np.inf
        below[w <= self.lower] = -np.inf
        return above, below


def together(several: list[Kinks]) -> Kinks:
    """Some penalties of the same features, stacked."""
    l1, first = np.array([kinks.l1 for kinks in several]), several[0]
    if all(kinks.plain for kinks in several):
        return dataclasses.replace(first, l1=l1)

    def stacked(part: str) -> Floats:
        return np.array([np.broadcast_to(getattr(kinks, part), kinks.l1.shape) for kinks in several])

    return Kinks(l1, stacked("l2"), stacked("lower"), stacked("upper"), False, first.strength)
