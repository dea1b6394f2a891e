"""Named penalties and losses, each with its formula in NumPy, written from its docstring's first line."""

import dataclasses
from collections.abc import Callable

import numpy as np

from l1jax import (
    L1,
    L2,
    Bounds,
    ElasticNet,
    Factors,
    Logistic,
    Loss,
    Masked,
    NonNegative,
    NoPenalty,
    Penalty,
    Squared,
    Sum,
)

P = 4
INF = np.inf
FACTORS = np.array([0.0, 0.5, 2.0, INF])
MASK = np.array([True, False, True, False])


@dataclasses.dataclass(frozen=True)
class PenaltyCase:
    """A penalty of P coefficients; `shape(w)` is what each costs at strength 1, infinite where it is forbidden."""

    penalty: Penalty
    shape: Callable[[np.ndarray], np.ndarray]

    def cost(self, w, lam=None):
        """lam * shape(w), coefficient by coefficient; the penalty's own lam if none is given."""
        shape = self.shape(np.asarray(w, float))
        lam = np.asarray(self.penalty.lam if lam is None else lam, float)
        return np.where(np.isinf(shape), INF, lam * np.where(np.isinf(shape), 0, shape))


def net(ratio):
    return lambda w: ratio * np.abs(w) + (1 - ratio) / 2 * w**2


def square(w):
    return w**2


def nothing(w):
    return 0 * w


def weighted(factors, shape):
    finite = np.where(np.isinf(factors), 0, factors)
    return lambda w: np.where(np.isinf(factors), np.where(w == 0, 0, INF), finite * shape(w))


def within(lower, upper, shape):
    return lambda w: np.where((w >= lower) & (w <= upper), shape(w), INF)


def masked(mask, shape):
    return lambda w: np.where(mask, shape(w), 0)


def total(*parts):
    return lambda w: sum(c * shape(w) for c, shape in parts)


_LOWER, _UPPER = np.array([-1, 0, -INF, -2]), np.array([1, INF, 0, 2])

PENALTIES = {
    "l1": PenaltyCase(L1(0.7), np.abs),
    "l1 of an integer": PenaltyCase(L1(1), np.abs),
    "l1 of 0": PenaltyCase(L1(0.0), np.abs),
    "l1 of a list": PenaltyCase(L1([0, 0.5, 1, 2]), np.abs),
    "l2": PenaltyCase(L2(0.4), square),
    "l2 of an array": PenaltyCase(L2(np.array([0.1, 0.2, 0.4, 1.0])), square),
    "elastic net": PenaltyCase(ElasticNet(0.5, l1_ratio=0.3), net(0.3)),
    "elastic net of ratio 0": PenaltyCase(ElasticNet(0.5, l1_ratio=0), net(0)),
    "elastic net of ratio 1": PenaltyCase(ElasticNet(0.5, l1_ratio=1), net(1)),
    "elastic net of arrays": PenaltyCase(
        ElasticNet(np.array([0.5, 1.0, 1.5, 0.2]), l1_ratio=[0, 0.25, 0.5, 1]), net(np.array([0, 0.25, 0.5, 1]))
    ),
    "no penalty": PenaltyCase(NoPenalty(), nothing),
    "factors": PenaltyCase(Factors(L1(0.5), FACTORS), weighted(FACTORS, np.abs)),
    "factors of 0": PenaltyCase(Factors(L1(0.0), list(FACTORS)), weighted(FACTORS, np.abs)),
    "factors of an elastic net": PenaltyCase(Factors(ElasticNet(0.5, 0.3), FACTORS), weighted(FACTORS, net(0.3))),
    "one factor": PenaltyCase(Factors(L2(0.4), 2), weighted(2.0, square)),
    "box": PenaltyCase(Bounds(L1(0.5), lower=-1.0, upper=2.0), within(-1, 2, np.abs)),
    "box without a price": PenaltyCase(Bounds(NoPenalty(), -1, 2), within(-1, 2, nothing)),
    "lower bound": PenaltyCase(Bounds(L2(0.4), lower=-1.0), within(-1, INF, square)),
    "upper bound": PenaltyCase(Bounds(ElasticNet(0.5, 0.3), upper=0.5), within(-INF, 0.5, net(0.3))),
    "bounds that touch 0": PenaltyCase(
        Bounds(L1(0.5), [0, -1, -INF, -0.0], [1, 0, -0.0, 0]),
        within(np.array([0, -1, -INF, 0]), np.array([1, 0, 0, 0]), np.abs),
    ),
    "bounds that exclude 0": PenaltyCase(
        Bounds(L1(0.5), [0.5, -2, 1, -INF], [2, -0.5, 1, -1]),
        within(np.array([0.5, -2, 1, -INF]), np.array([2, -0.5, 1, -1]), np.abs),
    ),
    "nonnegative": PenaltyCase(NonNegative(L1(0.5)), within(0, INF, np.abs)),
    "nonnegative without a price": PenaltyCase(NonNegative(NoPenalty()), within(0, INF, nothing)),
    "masked": PenaltyCase(Masked(L1(0.5), MASK), masked(MASK, np.abs)),
    "masked elastic net": PenaltyCase(Masked(ElasticNet(0.5, 0.3), MASK.astype(int)), masked(MASK, net(0.3))),
    "sum": PenaltyCase(Sum((L1(0.3), L2(0.2))), total((0.3, np.abs), (0.2, square))),
    "sum at twice its strength": PenaltyCase(
        Sum((ElasticNet(0.4, 0.3), L1(0.2)), lam=2), total((0.4, net(0.3)), (0.2, np.abs))
    ),
    "sum with no penalty": PenaltyCase(Sum([NoPenalty(), L1(0.5)]), total((0.5, np.abs))),
    "sum of a sum": PenaltyCase(
        Sum((Sum((L1(0.3), L2(0.2)), lam=0.5), L1(0.1))), total((0.15, np.abs), (0.1, square), (0.1, np.abs))
    ),
    "sum of bounded ones": PenaltyCase(
        Sum((Bounds(L1(0.3), -1, 2), NonNegative(L2(0.1)))), within(0, 2, total((0.3, np.abs), (0.1, square)))
    ),
    "sum of factors": PenaltyCase(
        Sum((Factors(L1(0.5), FACTORS), ElasticNet(0.4, 0.3)), lam=1.5),
        lambda w: weighted(FACTORS, total((0.5, np.abs)))(w) + 0.4 * net(0.3)(w),
    ),
    "nonnegative sum": PenaltyCase(
        NonNegative(Sum((L1(0.3), L2(0.2)))), within(0, INF, total((0.3, np.abs), (0.2, square)))
    ),
    "factors of bounds": PenaltyCase(
        Factors(Bounds(L1(0.5), -1, 2), FACTORS), within(-1, 2, weighted(FACTORS, np.abs))
    ),
    "bounds of factors": PenaltyCase(
        Bounds(Factors(ElasticNet(0.5, 0.3), FACTORS), _LOWER, _UPPER),
        within(_LOWER, _UPPER, weighted(FACTORS, net(0.3))),
    ),
    "masked nonnegative": PenaltyCase(Masked(NonNegative(L1(0.5)), MASK), masked(MASK, within(0, INF, np.abs))),
    "masked factors": PenaltyCase(
        Masked(Factors(L2(0.4), FACTORS[::-1]), MASK), masked(MASK, weighted(FACTORS[::-1], square))
    ),
}


@dataclasses.dataclass(frozen=True)
class LossCase:
    """A loss, a response as a user gives it, and the formula of one row."""

    loss: Loss
    y: np.ndarray
    row: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _logistic(eta, y):
    sign = np.where(y > 0, 1, -1)
    return np.logaddexp(0, -sign * eta)


_Y = np.array([1, 0, 0, 1, 1, 0])

LOSSES = {
    "squared": LossCase(Squared(), np.array([0.3, -1.2, 0.0, 2.5, -0.7, 1.0]), lambda eta, y: (eta - y) ** 2 / 2),
    "logistic of 0 and 1": LossCase(Logistic(), _Y.astype(float), _logistic),
    "logistic of -1 and 1": LossCase(Logistic(), 2.0 * _Y - 1, _logistic),
}


def least(f, shape):
    """Blind zoom: the argmin of convex scalar functions on grids around 0, then around the best point so far."""
    k = np.arange(-640, 641).reshape(-1, *(1,) * len(shape))
    best = np.zeros(shape)
    for cells in (20, 20 * 320, 20 * 320**2):
        grid = best + k / cells
        best = np.take_along_axis(grid, np.argmin(f(grid), axis=0)[None], axis=0)[0]
    return best
