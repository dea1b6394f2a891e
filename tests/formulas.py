"""The checker of tests/kkt.py for every loss and penalty of the registry: formulas in NumPy, from the definitions.

It never imports l1jax. A claimed gap is *true* if a point of the dual problem, written out here, proves it; *false*
if a better point is at hand; *open* otherwise. Where there is no dual (Cox, total variation, nonconvex penalties) the
claim is of stationarity: the distance of minus the gradient from the subdifferential.
"""

import numpy as np
from kkt import LONG, Oracle
from scipy.optimize import linprog


def xlog(a, b):
    """a*log(b), 0 where a = 0."""
    return np.where(a > 0, a * np.log(np.where(a > 0, b, 1)), 0)


# Each loss: rows(eta, y, k), minus their derivative, their second derivative, and sup_eta v*eta - rows with the ends
# of its domain; k is the loss's hyperparameter (of Quantile (q, width)).


def _squared(y, k):
    return {
        "rows": lambda eta: (eta - y) ** 2 / 2,
        "theta": lambda eta: y - eta,
        "curvature": np.ones_like,
        "conjugate": lambda v: v * y + v**2 / 2,
        "ends": (-np.inf, np.inf),
    }


def _logistic(y, k):
    m = 2 * y - 1

    def conjugate(v):
        a = -m * v
        return xlog(a, a) + xlog(1 - a, 1 - a)

    return {
        "rows": lambda eta: np.logaddexp(LONG(0), -m * eta),
        "theta": lambda eta: m * np.exp(-np.logaddexp(LONG(0), m * eta)),
        "curvature": lambda eta: np.exp(-np.logaddexp(LONG(0), eta) - np.logaddexp(LONG(0), -eta)),
        "conjugate": conjugate,
        "ends": (np.minimum(-m, 0), np.maximum(-m, 0)),
    }


def _poisson(y, k):
    return {
        "rows": lambda eta: np.exp(eta) - y + xlog(y, y) - y * eta,
        "theta": lambda eta: y - np.exp(eta),
        "curvature": np.exp,
        "conjugate": lambda v: xlog(y + v, y + v) - (y + v) + y - xlog(y, y),
        "ends": (-y, np.inf),
    }


def _gamma(y, k):
    return {
        "rows": lambda eta: y * np.exp(-eta) - 1 - (np.log(y) - eta),
        "theta": lambda eta: y * np.exp(-eta) - 1,
        "curvature": lambda eta: y * np.exp(-eta),
        "conjugate": lambda v: v * np.log(y) + xlog(1 - v, 1 - v) + v,
        "ends": (-np.inf, 1),
    }


def _negative_binomial(y, k):
    def rows(eta):
        return xlog(y, y) - y * eta - (y + k) * (np.log(y + k) - np.logaddexp(eta, np.log(k)))

    return {
        "rows": rows,
        "theta": lambda eta: k * (y - np.exp(eta)) / (np.exp(eta) + k),
        "curvature": lambda eta: k * (y + k) * np.exp(eta) / (np.exp(eta) + k) ** 2,
        "conjugate": lambda v: xlog(y + v, k * (y + v)) + xlog(k - v, k - v) - (y + k) * np.log(k) - xlog(y, y),
        "ends": (-y, k),
    }


def _huber(y, k):
    return {
        "rows": lambda eta: np.where(np.abs(eta - y) <= k, (eta - y) ** 2 / 2, k * np.abs(eta - y) - k**2 / 2),
        "theta": lambda eta: np.clip(y - eta, -k, k),
        "curvature": lambda eta: (np.abs(eta - y) <= k).astype(LONG),
        "conjugate": lambda v: v * y + v**2 / 2,
        "ends": (-k, k),
    }


def _squared_hinge(y, k):
    m = 2 * y - 1
    return {
        "rows": lambda eta: np.maximum(0, 1 - m * eta) ** 2 / 2,
        "theta": lambda eta: m * np.maximum(0, 1 - m * eta),
        "curvature": lambda eta: (m * eta < 1).astype(LONG),
        "conjugate": lambda v: v**2 / 2 + m * v,
        "ends": (np.where(m > 0, -np.inf, 0), np.where(m > 0, 0, np.inf)),
    }


def _quantile(y, k):
    q, h = k

    def rows(eta):
        r = y - eta
        parabola = (r + h * (2 * q - 1)) ** 2 / (4 * h)
        return np.where(np.abs(r) >= h, np.maximum(q * r, (q - 1) * r) - h * q * (1 - q), parabola)

    return {
        "rows": rows,
        "theta": lambda eta: np.clip((y - eta + h * (2 * q - 1)) / (2 * h), q - 1, q),
        "curvature": lambda eta: (np.abs(y - eta) < h) / (2 * h),
        "conjugate": lambda v: v * y + h * v * (2 * q - 1 + v),
        "ends": (-q, 1 - q),
    }


FORMULAS = {
    "squared": _squared,
    "logistic": _logistic,
    "poisson": _poisson,
    "gamma": _gamma,
    "negative binomial": _negative_binomial,
    "huber": _huber,
    "squared hinge": _squared_hinge,
    "quantile": _quantile,
}


class Registered(Oracle):
    """One problem of a registered loss with factors, elastic nets and bounds; `k` is the loss's hyperparameter."""

    def __init__(self, X, y, *, weights, loss, k=None, **others):
        super().__init__(X, y, weights=weights, loss=loss, **others)
        keep = np.asarray(weights) > 0
        k = tuple(map(LONG, k)) if isinstance(k, tuple) else None if k is None else LONG(k)
        self.f = FORMULAS[loss](self.y, k) if loss in FORMULAS else None
        self.keep = keep

    def rows(self, eta):
        return self.f["rows"](eta)

    def theta(self, eta):
        return self.f["theta"](eta)

    def curvature(self, eta):
        return self.f["curvature"](eta)

    def conjugate_rows(self, v):
        low, high = self.f["ends"]
        clipped = np.clip(v, low, high)  # projections and sums carry digits over the edge
        size = np.abs(np.where(np.isfinite(low), low, 0)) + np.abs(np.where(np.isfinite(high), high, 0))
        near = np.abs(v - clipped) <= 1e-14 * (size + np.max(np.abs(v)))
        return np.where(near, self.f["conjugate"](clipped), np.inf)

    def best_intercept(self, coef):
        if not self.fit_intercept or self.loss == "squared":
            return super().best_intercept(coef)
        eta = self.offset + self.X @ np.asarray(coef).astype(LONG)
        reach = 100 + np.max(np.abs(self.y)) * (self.loss in ("huber", "quantile")) * 4
        low, high = -np.max(eta) - reach, -np.min(eta) + reach
        for _ in range(160):
            b = (low + high) / 2
            low, high = (b, high) if self.s @ self.theta(eta + b) > 0 else (low, b)
        return (low + high) / 2

    @property
    def attained(self):
        return True if self.loss != "logistic" else super().attained

    # -- stationarity

    def slopes(self, coef, intercept):
        """Minus the loss's gradient in what the penalty acts on, and a bound of what rounding may move it by."""
        coef = np.asarray(coef).astype(LONG)
        eta = self.eta(coef, intercept)
        theta = self.theta(eta)
        terms = np.abs(self.X) @ np.abs(coef) + np.abs(self.offset) + np.abs(LONG(intercept))
        blur = self.curvature(eta) * terms + np.abs(theta)
        noise = 16 * self.eps * (np.abs(self.columns).T @ (self.s * blur))
        return self._tdot(theta) / self.a, noise / self.a

    def null_slope(self):
        zero = np.zeros(self.X.shape[1], LONG)
        return np.max(np.abs(self.slopes(zero, self.best_intercept(zero))[0]))


class Jointly(Registered):
    """A problem whose penalty ties coefficients together: a norm, by its gauge of the dual, or a set, by its support.

    `shape` gives value(w), gauge(u) (the least t with u in t times the dual ball), or support(u) of a set.
    """

    def __init__(self, X, y, *, shape, lam, free=False, **others):
        p = np.shape(X)[1]
        super().__init__(X, y, l1=np.where(np.broadcast_to(free, p), 0.0, 1.0), **others)
        self.shape, self.lam = shape, LONG(lam)

    def feasible(self, coef):
        coef = np.asarray(coef).astype(LONG)
        return self.shape.get("feasible", lambda w, eps: w)(coef, self.eps)

    def penalty(self, coef):
        value = self.shape["value"](coef)
        return self.lam * value if "gauge" in self.shape else value

    def bound_at(self, coef, intercept):
        theta = self.theta(self.eta(self.feasible(coef), self.best_intercept(coef)))
        theta = self._project(theta)
        u = self._tdot(theta)
        top = LONG(1)
        if "gauge" in self.shape:
            gauge = self.shape["gauge"](u)
            top = min(LONG(1), self.lam / gauge) if gauge > 0 else top
        low, high, best = LONG(0), top, LONG(0)

        def dual(c):
            bound = -(self.s @ self.conjugate_rows(-c * theta)) - c * (self.s @ (theta * self.offset))
            bound = bound - (0 if "gauge" in self.shape else self.shape["support"](c * u))
            return bound if np.isfinite(bound) else LONG(-np.inf)

        best = max(best, dual(top))
        for _ in range(60):
            a, b = high - (high - low) * 0.618033988749895, low + (high - low) * 0.618033988749895
            fa, fb = dual(a), dual(b)
            best = max(best, fa, fb)
            low, high = (a, high) if fa < fb else (low, b)
        return best

    def verdict(self, coef, intercept, tol, candidate):
        """Of a claim `gap <= tol`: "true", "false" or "open"; `candidate()` gives another point if one is needed."""
        null, here = self.null_objective, self.objective(coef, intercept)
        allowed = (LONG(tol) + 64 * LONG(self.eps)) * null
        if not np.isfinite(here):
            return "false"
        if here - self.bound_at(coef, intercept) <= allowed:
            return "true"
        other = candidate()
        if here - self.bound_at(*other) <= allowed:
            return "true"
        return "false" if here - self.objective(*other) > allowed else "open"


def norms(labels, group_weights, ratio, lams, radius):
    """The shapes of the registry's joint penalties."""
    labels = np.asarray(labels)
    count = len(group_weights)
    weights = np.asarray(group_weights).astype(LONG)
    lams, ratio, radius = np.asarray(lams).astype(LONG), LONG(ratio), LONG(radius)

    def sizes(w):
        return np.sqrt(np.array([np.sum(w[labels == g] ** 2) for g in range(count)]))

    def group_gauge(u):
        priced = weights > 0
        return np.max(sizes(u)[priced] / weights[priced], initial=0)

    def sparse_gauge(u):
        low, high = LONG(0), np.max(np.abs(u)) / ratio
        for _ in range(90):
            t = (low + high) / 2
            rest = np.maximum(np.abs(u) - t * ratio, 0)
            low, high = (low, t) if np.all(sizes(rest) <= t * (1 - ratio) * weights) else (t, high)
        return high

    def descending(w):
        return np.sort(np.abs(w))[::-1]

    def in_ball(w, eps):
        total = np.abs(w).sum()
        return w * (radius / total) if radius < total <= radius * (1 + 64 * eps) else w

    def on_simplex(w, eps):
        return w * (radius / w.sum()) if abs(w.sum() - radius) <= 64 * eps * radius else w

    tight = 4 * np.finfo(LONG).eps * len(labels)
    return {
        "group lasso": {"value": lambda w: np.sum(weights * sizes(w)), "gauge": group_gauge},
        "sparse group lasso": {
            "value": lambda w: ratio * np.abs(w).sum() + (1 - ratio) * np.sum(weights * sizes(w)),
            "gauge": sparse_gauge,
        },
        "slope": {
            "value": lambda w: descending(w) @ lams,
            "gauge": lambda u: np.max(np.cumsum(descending(u)) / np.cumsum(lams)),
        },
        "linf": {"value": lambda w: np.max(np.abs(w)), "gauge": lambda u: np.abs(u).sum()},
        "l1 ball": {
            "value": lambda w: LONG(0) if np.abs(w).sum() <= radius * (1 + tight) else LONG(np.inf),
            "support": lambda u: radius * np.max(np.abs(u)),
            "feasible": in_ball,
        },
        "simplex": {
            "value": lambda w: LONG(0) if w.min() >= 0 and abs(w.sum() - radius) <= tight * radius else LONG(np.inf),
            "support": lambda u: radius * np.max(u),
            "feasible": on_simplex,
        },
        "total variation": {
            "value": lambda w: np.abs(np.diff(w)).sum(),
            "gauge": lambda u: np.max(np.abs(np.cumsum(u)[:-1]), initial=0),
        },
    }


def variation_distance(w, u, lam, unit):
    """The least t with |u - g| <= t*unit for a subgradient g of lam*sum|diff w|, by a linear program."""
    p = len(w)
    jump = np.sign(np.diff(w)).astype(float)
    lam, u = float(lam / unit), (u / unit).astype(float)
    D = np.zeros((p, p - 1))  # g = D y
    D[np.arange(1, p), np.arange(p - 1)] = 1
    D[np.arange(p - 1), np.arange(p - 1)] = -1
    A = np.block([[-D, -np.ones((p, 1))], [D, -np.ones((p, 1))]])
    ends = [(lam * j, lam * j) if j else (-lam, lam) for j in jump]
    found = linprog(np.append(np.zeros(p - 1), 1.0), A, np.concatenate([-u, u]), bounds=[*ends, (0, None)])
    return found.x[-1]


# Nonconvex penalties of |w| = a at strength lam, with their shape k: the price, and the slope from the right.
CURVES = {
    "mcp": (
        lambda a, lam, k: np.where(a <= k * lam, lam * a - a**2 / (2 * k), k * lam**2 / 2),
        lambda a, lam, k: np.maximum(lam - a / k, 0),
    ),
    "scad": (
        lambda a, lam, k: np.where(
            a <= lam,
            lam * a,
            np.where(a <= k * lam, (2 * k * lam * a - a**2 - lam**2) / (2 * (k - 1)), lam**2 * (k + 1) / 2),
        ),
        lambda a, lam, k: np.where(a <= lam, lam, np.maximum(k * lam - a, 0) / (k - 1)),
    ),
    "l0": (lambda a, lam, k: lam * (a > 0), lambda a, lam, k: np.where((a > 0) | (lam == 0), 0, np.inf)),
    "half": (
        lambda a, lam, k: lam * np.sqrt(a),
        lambda a, lam, k: np.where(a > 0, lam / (2 * np.sqrt(np.where(a > 0, a, 1))), np.where(lam > 0, np.inf, 0)),
    ),
    "log sum": (lambda a, lam, k: lam * np.log1p(a / k), lambda a, lam, k: lam / (a + k)),
}


class Bent(Registered):
    """A problem of a nonconvex penalty, with factors."""

    def __init__(self, X, y, *, curve, lam, factors, shape, **others):
        super().__init__(X, y, l1=0.0, **others)
        self.price, self.slope = CURVES[curve]
        self.pinned = np.isinf(factors)
        self.strengths, self.k = LONG(lam) * np.where(self.pinned, 0, factors).astype(LONG), LONG(shape)

    def penalty(self, coef):
        if np.any(self.pinned & (coef != 0)):
            return LONG(np.inf)
        return np.sum(self.price(np.abs(self.a * coef), self.strengths, self.k))

    def distance(self, coef, intercept):
        """From stationarity, coefficient by coefficient, less what rounding may add."""
        u, noise = self.slopes(coef, intercept)
        w = self.a * np.asarray(coef).astype(LONG)
        slope = self.slope(np.abs(w), self.strengths, self.k)
        off = np.where(w == 0, np.maximum(np.abs(u) - slope, 0), np.abs(u - np.sign(w) * slope))
        return np.where(self.pinned, 0, np.maximum(off - noise, 0))


class Survival(Registered):
    """Cox's partial likelihood with elastic nets, factors and bounds; by stationarity, as it has no known conjugate."""

    def __init__(self, X, y, *, event, ties, **others):
        super().__init__(X, y, loss="cox", fit_intercept=False, **others)
        self.event, self.ties = np.asarray(event)[self.keep] > 0, ties

    def _terms(self, eta):
        """Of each event: its weight, who is at risk with what share of their weight, and the log of the risk."""
        for t in np.unique(self.y[self.event]):
            died, at_risk = (self.y == t) & self.event, self.y >= t
            d, weight = int(died.sum()), self.s[died].sum()
            for k in range(d):
                spared = LONG(k) / d if self.ties == "efron" else LONG(0)
                part = self.s * (at_risk - spared * died)
                top = np.max(eta[part > 0])
                yield weight, d, spared, part, top + np.log(np.sum(part * np.exp(np.where(part > 0, eta - top, 0))))

    def loss_at(self, eta):
        total = -np.sum(self.s[self.event] * eta[self.event])
        for weight, d, spared, _, log_risk in self._terms(eta):
            total += weight / d * (log_risk - np.log(weight) - np.log(1 - spared))
        return total

    def rows(self, eta):
        return np.full(len(eta), self.loss_at(eta))  # the weights sum to 1

    def theta(self, eta):
        g = -self.s * self.event
        for weight, d, _, part, log_risk in self._terms(eta):
            g = g + weight / d * part * np.exp(np.where(part > 0, eta - log_risk, 0))
        return -g / self.s

    def curvature(self, eta):
        return self.theta(eta) * -1 + self.event

    def distance(self, coef, intercept):
        coef = self.feasible(coef)
        u, noise = self.slopes(coef, intercept)
        low = self.l2 / self.a * coef + np.where(coef > 0, self.l1, -self.l1) / self.a
        high = self.l2 / self.a * coef + np.where(coef < 0, -self.l1, self.l1) / self.a
        low, high = np.where(coef == self.lower, -np.inf, low), np.where(coef == self.upper, np.inf, high)
        off = np.maximum(np.maximum(low - u, u - high), 0)
        return np.maximum(off - noise, 0)
