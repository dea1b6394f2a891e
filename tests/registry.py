"""Named penalties and losses, each with its formula in NumPy, written from its docstring's first line."""

import dataclasses
from collections.abc import Callable

import numpy as np

from l1jax import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    SLOPE,
    Bounds,
    Box,
    Cox,
    ElasticNet,
    Factors,
    Gamma,
    GroupLasso,
    Huber,
    L1Ball,
    LHalf,
    LInf,
    Logistic,
    LogSum,
    Loss,
    Masked,
    NegativeBinomial,
    NonNegative,
    NoPenalty,
    NuclearNorm,
    Penalty,
    Poisson,
    Quantile,
    Simplex,
    SparseGroupLasso,
    Squared,
    SquaredHinge,
    Sum,
    TotalVariation,
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
    "a box alone": PenaltyCase(Box([-1, 0, -INF, -2], [1, INF, 0, 2]), within(_LOWER, _UPPER, nothing)),
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
    """A loss, a response as a user gives it, and the formula of one row (or, if rows are coupled, of all).

    `best` is where the loss is least, or as good as; `low` and `high` bound the conjugate's domain, in units of v/s.
    """

    loss: Loss
    y: np.ndarray
    row: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    best: np.ndarray
    low: np.ndarray | float = -INF
    high: np.ndarray | float = INF
    coupled: Callable[[np.ndarray, np.ndarray, np.ndarray], float] | None = None
    predicts: float = 15.0  # eta in [-predicts, predicts] has a mean of its own

    def cost(self, eta, y, s):
        """The loss at eta (n,), or at each row of eta (m, n)."""
        eta = np.asarray(eta)
        if self.coupled is None:
            return np.sum(s * self.row(eta, y), axis=-1)
        return np.apply_along_axis(lambda eta: self.coupled(eta, y, s), -1, eta)


def _logistic(eta, y):
    sign = np.where(y > 0, 1, -1)
    return np.logaddexp(0, -sign * eta)


def _ylog(y, x):
    """y*log(y/x), 0 where y = 0."""
    return np.where(y > 0, y * np.log(np.where(y > 0, y / x, 1)), 0)


def _poisson(eta, y):
    return _ylog(y, np.exp(eta)) - y + np.exp(eta)


def _gamma(eta, y):
    return y / np.exp(eta) - 1 - np.log(y / np.exp(eta))


def negative_binomial(theta):
    return lambda eta, y: _ylog(y, np.exp(eta)) - (y + theta) * np.log((y + theta) / (np.exp(eta) + theta))


def _huber(delta):
    return lambda eta, y: np.where(np.abs(eta - y) <= delta, (eta - y) ** 2 / 2, delta * np.abs(eta - y) - delta**2 / 2)


def _squared_hinge(eta, y):
    return np.maximum(0, 1 - np.where(y > 0, 1, -1) * eta) ** 2 / 2


def _quantile(q, width):
    def row(eta, y):
        r = y - eta
        parabola = (r + width * (2 * q - 1)) ** 2 / (4 * width)
        return np.where(np.abs(r) >= width, np.maximum(q * r, (q - 1) * r) - width * q * (1 - q), parabola)

    return row


def partial_likelihood(eta, y, s, event, start=None, ties="breslow"):
    """Minus Cox's log partial likelihood less its infimum, one event at a time, each with its risk set."""
    start = np.full(len(y), -INF) if start is None else start
    total = 0
    for t in np.unique(y[(event > 0) & (s > 0)]):
        died = (y == t) & (event > 0) & (s > 0)
        at_risk = (y >= t) & (start < t) & (s > 0)
        d, weight = died.sum(), s[died].sum()
        for k in range(d):
            spared = k / d if ties == "efron" else 0
            risk = np.sum(s[at_risk] * np.exp(eta[at_risk])) - spared * np.sum(s[died] * np.exp(eta[died]))
            total += weight / d * (np.log(risk) - np.log(weight) - np.log(1 - spared))
        total -= np.sum(s[died] * eta[died])
    return total


def cox(y, event, start=None, ties="breslow"):
    y, event = np.array(y, float), np.array(event, float)
    start = None if start is None else np.array(start, float)
    return LossCase(
        Cox(event, start, ties),
        y,
        row=None,
        best=-50 * (2 * y - event),  # steeply falling, those that are censored last
        coupled=lambda eta, y, s: partial_likelihood(eta, y, s, event, start, ties),
    )


_Y = np.array([1, 0, 0, 1, 1, 0])
_REAL = np.array([0.3, -1.2, 0.0, 2.5, -0.7, 1.0])
_COUNTS = np.array([3.0, 0.0, 1.0, 12.0, 0.5, 0.0])
_AMOUNTS = np.array([3.0, 0.2, 1.0, 12.0, 0.5, 7.0])
_FAR = np.where(_Y > 0, 1e4, -1e4)
_LOG_COUNTS = np.where(_COUNTS > 0, np.log(np.where(_COUNTS > 0, _COUNTS, 1)), -1e4)


def _of_counts(theta):
    return LossCase(
        NegativeBinomial(theta), _COUNTS, negative_binomial(theta), _LOG_COUNTS, low=-_COUNTS, high=float(theta)
    )


LOSSES = {
    "squared": LossCase(Squared(), _REAL, lambda eta, y: (eta - y) ** 2 / 2, best=_REAL),
    "logistic of 0 and 1": LossCase(Logistic(), _Y.astype(float), _logistic, best=_FAR, low=-1.0 * _Y, high=1.0 - _Y),
    "logistic of -1 and 1": LossCase(Logistic(), 2.0 * _Y - 1, _logistic, best=_FAR, low=-1.0 * _Y, high=1.0 - _Y),
    "poisson": LossCase(Poisson(), _COUNTS, _poisson, best=_LOG_COUNTS, low=-_COUNTS),
    "gamma": LossCase(Gamma(), _AMOUNTS, _gamma, best=np.log(_AMOUNTS), high=1.0),
    "negative binomial": _of_counts(2),
    "negative binomial of large dispersion": _of_counts(0.03),
    "negative binomial of small dispersion": _of_counts(1e6),
    "huber": LossCase(Huber(0.8), _REAL, _huber(0.8), best=_REAL, low=-0.8, high=0.8),
    "huber of an integer": LossCase(Huber(2), _REAL, _huber(2.0), best=_REAL, low=-2.0, high=2.0),
    "squared hinge": LossCase(
        SquaredHinge(),
        2.0 * _Y - 1,
        _squared_hinge,
        best=2.0 * _Y - 1,
        low=np.where(_Y > 0, -INF, 0),
        high=np.where(_Y > 0, 0, INF),
        predicts=1.0,
    ),
    "median": LossCase(Quantile(0.5, width=0.3), _REAL, _quantile(0.5, 0.3), best=_REAL, low=-0.5, high=0.5),
    "quantile": LossCase(
        Quantile(np.float64(0.9), width=1),
        _REAL,
        _quantile(0.9, 1.0),
        best=_REAL + 1.0 * (2 * 0.9 - 1),
        low=-0.9,
        high=1 - 0.9,
    ),
    "cox": cox([4, 2, 5, 1, 3, 6], [1, 1, 1, 0, 1, 0]),
    "cox with ties": cox([1, 2, 2, 1, 3, 2], [1, 1, 1, 1, 1, 0]),
    "cox with ties after efron": cox([1, 2, 2, 1, 3, 2], [1, 1, 1, 1, 1, 0], ties="efron"),
    "cox of late entries": cox([1, 2, 2, 1, 3, 2], [1, 1, 1, 1, 1, 0], [0, 1.5, 0, -1, 1, 1], "efron"),
}


def least(f, shape):
    """Blind zoom: the argmin of convex scalar functions on grids around 0, then around the best point so far."""
    k = np.arange(-640, 641).reshape(-1, *(1,) * len(shape))
    best = np.zeros(shape)
    for cells in (20, 20 * 320, 20 * 320**2):
        grid = best + k / cells
        best = np.take_along_axis(grid, np.argmin(f(grid), axis=0)[None], axis=0)[0]
    return best


@dataclasses.dataclass(frozen=True)
class JointCase:
    """A convex penalty of Q coefficients together: its formula, and that of its conjugate, of one vector each."""

    penalty: Penalty
    cost: Callable[[np.ndarray], float]
    conjugate: Callable[[np.ndarray], float]


Q = 6
GROUPS = np.array([2, 2, 0, 0, 0, 1])
_SLOPE = np.array([2.0, 1.5, 1.5, 0.7, 0.2, 0.0])


def group_norm(weights, ratio=0.0, groups=GROUPS):
    """ratio*|w|_1 + (1 - ratio) * sum of weighted norms over groups, an infinite weight for those that must be 0."""

    def norm(w):
        parts = [np.linalg.norm(w[groups == g]) for g in range(len(weights))]
        if any(np.isinf(a) and size > 0 for a, size in zip(weights, parts, strict=True)):
            return INF
        sizes = sum(a * size for a, size in zip(weights, parts, strict=True) if np.isfinite(a))
        return ratio * np.abs(w).sum() + (1 - ratio) * sizes

    return norm


def in_group_ball(lam, weights, ratio=0.0, groups=GROUPS):
    """0 if what soft-thresholding by lam*ratio leaves of each group is at most lam*(1 - ratio)*weight long."""

    def conjugate(u):
        rest = np.sign(u) * np.maximum(np.abs(u) - lam * ratio, 0)
        inside = [np.linalg.norm(rest[groups == g]) <= lam * (1 - ratio) * a for g, a in enumerate(weights) if a < INF]
        return 0.0 if all(inside) else INF

    return conjugate


def dual_ball(holds):
    return lambda u: 0.0 if holds(u) else INF


def descending(w):
    return np.sort(np.abs(w))[::-1]


_ROOTS = np.sqrt([3, 1, 2])

JOINT = {
    "group lasso": JointCase(
        GroupLasso(0.7, GROUPS), lambda w: 0.7 * group_norm(_ROOTS)(w), in_group_ball(0.7, _ROOTS)
    ),
    "group lasso of text labels": JointCase(
        GroupLasso(0.7, ["c", "c", "a", "a", "a", "b"], weights=[1.0, 2.0, 0.5]),
        lambda w: 0.7 * group_norm([1, 2, 0.5])(w),
        in_group_ball(0.7, [1, 2, 0.5]),
    ),
    "group lasso, a free group and a fixed one": JointCase(
        GroupLasso(0.7, GROUPS, weights=[1.0, 0.0, INF]),
        lambda w: 0.7 * group_norm([1, 0, INF])(w) if w[0] == w[1] == 0 else INF,
        in_group_ball(0.7, [1, 0, INF]),
    ),
    "sparse group lasso": JointCase(
        SparseGroupLasso(0.8, GROUPS, l1_ratio=0.4),
        lambda w: 0.8 * group_norm(_ROOTS, 0.4)(w),
        in_group_ball(0.8, _ROOTS, 0.4),
    ),
    "sparse group lasso of ratio 0": JointCase(
        SparseGroupLasso(0.8, GROUPS, l1_ratio=0), lambda w: 0.8 * group_norm(_ROOTS)(w), in_group_ball(0.8, _ROOTS)
    ),
    "sparse group lasso of ratio 1": JointCase(
        SparseGroupLasso(0.8, GROUPS, l1_ratio=1),
        lambda w: 0.8 * np.abs(w).sum(),
        dual_ball(lambda u: np.all(np.abs(u) <= 0.8)),
    ),
    "linf": JointCase(LInf(1.2), lambda w: 1.2 * np.abs(w).max(), dual_ball(lambda u: np.abs(u).sum() <= 1.2)),
    "slope": JointCase(
        SLOPE(_SLOPE, lam=0.6),
        lambda w: 0.6 * descending(w) @ _SLOPE,
        dual_ball(lambda u: np.all(np.cumsum(descending(u)) <= 0.6 * np.cumsum(_SLOPE))),
    ),
    "total variation": JointCase(
        TotalVariation(0.9),
        lambda w: 0.9 * np.abs(np.diff(w)).sum(),
        dual_ball(lambda u: abs(u.sum()) <= 1e-6 and np.all(np.abs(np.cumsum(u)) <= 0.9 + 1e-9)),
    ),
    "l1 ball": JointCase(
        L1Ball(1.5),
        lambda w: 0.0 if np.abs(w).sum() <= 1.5 * (1 + 1e-9) else INF,
        lambda u: 1.5 * np.abs(u).max(),
    ),
    "simplex": JointCase(
        Simplex(2.0),
        lambda w: 0.0 if np.all(w >= 0) and abs(w.sum() - 2) <= 1e-9 else INF,
        lambda u: 2 * u.max(),
    ),
}


@dataclasses.dataclass(frozen=True)
class NonconvexCase:
    """A nonconvex penalty of P coefficients: what each costs, and its slope just right of 0."""

    penalty: Penalty
    cost: Callable[[np.ndarray], np.ndarray]
    slope: float


def _mcp(lam, gamma):
    return lambda w: np.where(np.abs(w) <= gamma * lam, lam * np.abs(w) - w**2 / (2 * gamma), gamma * lam**2 / 2)


def _scad(lam, gamma):
    def cost(w):
        a = np.abs(w)
        bent = (2 * gamma * lam * a - a**2 - lam**2) / (2 * (gamma - 1))
        return np.where(a <= lam, lam * a, np.where(a <= gamma * lam, bent, lam**2 * (gamma + 1) / 2))

    return cost


NONCONVEX = {
    "mcp": NonconvexCase(MCP(0.8, gamma=3.0), _mcp(0.8, 3.0), 0.8),
    "mcp that bends fast": NonconvexCase(MCP(1.1, gamma=0.7), _mcp(1.1, 0.7), 1.1),
    "mcp of arrays": NonconvexCase(
        MCP(np.array([0.5, 1.0, 0.0, 2.0]), gamma=[1.5, 3, 2, 9]),
        _mcp(np.array([0.5, 1.0, 0.0, 2.0]), np.array([1.5, 3, 2, 9])),
        np.array([0.5, 1.0, 0.0, 2.0]),
    ),
    "mcp, factors": NonconvexCase(
        Factors(MCP(0.8, gamma=3.0), FACTORS),
        lambda w: np.where(
            np.isinf(FACTORS), np.where(w == 0, 0, INF), _mcp(0.8 * np.where(np.isinf(FACTORS), 1, FACTORS), 3.0)(w)
        ),
        0.8 * FACTORS,
    ),
    "mcp, masked": NonconvexCase(
        Masked(MCP(0.8, gamma=3.0), MASK), masked(MASK, _mcp(0.8, 3.0)), np.where(MASK, 0.8, 0)
    ),
    "scad": NonconvexCase(SCAD(0.6, gamma=3.7), _scad(0.6, 3.7), 0.6),
    "scad that bends fast": NonconvexCase(SCAD(0.9, gamma=1.6), _scad(0.9, 1.6), 0.9),
    "l0": NonconvexCase(L0(0.7), lambda w: 0.7 * (w != 0), INF),
    "half": NonconvexCase(LHalf(0.9), lambda w: 0.9 * np.sqrt(np.abs(w)), INF),
    "log sum": NonconvexCase(LogSum(0.9, eps=0.4), lambda w: 0.9 * np.log1p(np.abs(w) / 0.4), 0.9 / 0.4),
}


MATRICES = {
    "nuclear norm": (
        NuclearNorm(0.7),
        lambda w: 0.7 * np.linalg.svd(w, compute_uv=False).sum(),
        dual_ball(lambda u: np.linalg.norm(u, 2) <= 0.7),
    )
}
"""Penalties of matrices only: each with its value and its conjugate."""
