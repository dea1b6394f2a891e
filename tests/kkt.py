"""A checker written from the definitions, in NumPy: objective, optimality conditions and duality gap.

It never imports l1jax. Sums are taken in extended precision (`np.longdouble`), so that what it says of a float64
solution is not its own rounding.

    P(w, b) = sum_i s_i l(b + x_i'w + offset_i, y_i) + sum_j phi_j(w_j),   s = weights / sum(weights)
    phi(w)  = l1*|a*w| + l2/2*(a*w)^2 on [lower, upper];  a = the column's weighted standard deviation, or 1

For any theta (n,) with sum s*theta = 0 if there is an intercept, and u = X'(s*theta),
    D(theta) = -sum_i s_i l*(-theta_i) - sum_i s_i theta_i offset_i - sum_j phi_j*(u_j)  <=  min P.
"""

import numpy as np
from scipy.optimize import linprog, lsq_linear

LONG = np.longdouble


class Oracle:
    """One problem. l1, l2, lower, upper (p,) are what acts on each coefficient; `loss` "squared" or "logistic"."""

    def __init__(
        self,
        X,
        y,
        *,
        l1,
        l2=0.0,
        lower=-np.inf,
        upper=np.inf,
        weights=None,
        offset=None,
        fit_intercept=True,
        standardize=False,
        loss="squared",
        eps=np.finfo(float).eps,
    ):
        X, y = np.asarray(X).astype(LONG), np.asarray(y).astype(LONG)
        n, p = X.shape
        w = np.ones(n, LONG) if weights is None else np.asarray(weights).astype(LONG)
        keep = w > 0
        self.X, self.y, self.s = X[keep], y[keep], w[keep] / w[keep].sum()
        self.offset = np.zeros(n, LONG)[keep] if offset is None else np.asarray(offset).astype(LONG)[keep]
        self.fit_intercept, self.loss, self.eps = fit_intercept, loss, eps
        if loss == "logistic" and np.any(self.y == -1):
            self.y = (self.y + 1) / 2
        spread = self.X - self.X[:1]  # differences first: exact for a constant column
        centred = spread - self.s @ spread
        sd = np.sqrt(self.s @ centred**2)
        constant = sd <= eps * np.max(np.abs(self.X), axis=0)
        a = np.where(constant, 1, sd) if standardize else np.ones(p, LONG)
        l1, l2, self.lower, self.upper = (np.broadcast_to(v, p).astype(LONG) for v in (l1, l2, lower, upper))
        self.a, self.l1, self.l2 = a, l1 * a, l2 * a**2
        if standardize:
            self.lower, self.upper = np.where(constant, 0, self.lower), np.where(constant, 0, self.upper)
        self.scale = np.where(constant, 1, sd) if fit_intercept else np.sqrt(self.s @ self.X**2)
        self.scale = np.where(self.scale > 0, self.scale, 1)
        self.columns = np.where(constant, 0, centred) if fit_intercept else self.X
        self._reference = None

    # -- the loss

    def rows(self, eta):
        if self.loss == "squared":
            return (eta - self.y) ** 2 / 2
        return np.logaddexp(LONG(0), -(2 * self.y - 1) * eta)

    def theta(self, eta):
        """Minus the derivative of each row's loss."""
        if self.loss == "squared":
            return self.y - eta
        m = 2 * self.y - 1
        return m * np.exp(-np.logaddexp(LONG(0), m * eta))

    def curvature(self, eta):
        if self.loss == "squared":
            return np.ones_like(eta)
        return np.exp(-np.logaddexp(LONG(0), eta) - np.logaddexp(LONG(0), -eta))

    def conjugate_rows(self, v):
        if self.loss == "squared":
            return v * self.y + v**2 / 2
        a = -(2 * self.y - 1) * v
        inside = (a >= -1e-14) & (a <= 1 + 1e-14)  # a projection in float64 may push a saturated row over the edge
        a = np.clip(a, 0, 1)
        xlogx = a * np.log(np.where(a > 0, a, 1)) + (1 - a) * np.log(np.where(a < 1, 1 - a, 1))
        return np.where(inside, xlogx, np.inf)

    # -- the primal

    def feasible(self, coef):
        """coef with what rounding carried off a bound put back on it."""
        coef = np.asarray(coef).astype(LONG)
        for bound in (self.lower, self.upper):
            finite = np.where(np.isfinite(bound), bound, 0)
            close = np.isfinite(bound) & (np.abs(coef - finite) <= 4 * self.eps * np.abs(finite))
            coef = np.where(close, finite, coef)
        return coef

    def objective(self, coef, intercept=0.0):
        coef = self.feasible(coef)
        if np.any((coef < self.lower) | (coef > self.upper)) or not np.all(np.isfinite(coef)):
            return LONG(np.inf)
        return self.s @ self.rows(self.eta(coef, intercept)) + self.penalty(coef)

    def eta(self, coef, intercept):
        return self.offset + LONG(intercept) + self.X @ coef

    def penalty(self, coef):
        return np.sum(self.l1 * np.abs(coef)) + np.sum(self.l2 * coef**2) / 2

    def best_intercept(self, coef):
        """argmin_b of the loss at `coef`."""
        eta = self.offset + self.X @ np.asarray(coef).astype(LONG)
        if not self.fit_intercept:
            return LONG(0)
        if self.loss == "squared":
            rest = self.y - eta
            return rest[0] + self.s @ (rest - rest[0])
        low, high = -np.max(eta) - 100, -np.min(eta) + 100
        for _ in range(120):  # bisection on the slope, which grows with b
            b = (low + high) / 2
            low, high = (b, high) if self.s @ self.theta(eta + b) > 0 else (low, b)
        return (low + high) / 2

    @property
    def null_objective(self):
        """P0: all coefficients 0, the offset kept, the intercept fitted, no penalty."""
        zero = np.zeros(self.X.shape[1], LONG)
        return self.s @ self.rows(self.eta(zero, self.best_intercept(zero)))

    def residual(self, coef, intercept=0.0):
        """The largest distance from optimality over all coefficients and the intercept, without units.

        That of coefficient j is the distance of u_j from the subdifferential of phi_j, over the column's norm times
        that of the null model's residual.
        """
        coef = self.feasible(coef)
        zero = np.zeros_like(coef)
        theta0 = self.theta(self.eta(zero, self.best_intercept(zero)))
        size = np.sqrt(self.s @ theta0**2)
        theta = self.theta(self.eta(coef, intercept))
        u = self._tdot(theta)
        low = self.l2 * coef + np.where(coef > 0, self.l1, -self.l1)
        high = self.l2 * coef + np.where(coef < 0, -self.l1, self.l1)
        low = np.where(coef == self.lower, -np.inf, low)
        high = np.where(coef == self.upper, np.inf, high)
        distance = np.maximum(np.maximum(low - u, u - high), 0) / self.scale
        along = abs(self.s @ theta) if self.fit_intercept else LONG(0)
        worst = max(np.max(distance), along)
        return float(worst / size) if size > 0 else (0.0 if worst == 0 else np.inf)

    @property
    def attained(self):
        """Whether there is a minimiser: for logistic loss, no unpenalised direction separates the classes."""
        if self.loss == "squared":
            return True
        unpriced = (self.l1 == 0) & (self.l2 == 0)
        signs = (2 * self.y - 1)[:, None]
        A = (signs * self.columns / self.scale)[:, unpriced].astype(float)
        ends = [
            (None if low == -np.inf else 0, None if high == np.inf else 0)
            for low, high in zip(self.lower[unpriced], self.upper[unpriced], strict=True)
        ]
        if self.fit_intercept:
            A, ends = np.hstack([A, signs.astype(float)]), [*ends, (None, None)]
        return A.shape[1] == 0 or linprog(np.zeros(A.shape[1]), -A, -np.ones(len(A)), bounds=ends).status == 2

    # -- the dual

    def _tdot(self, theta):
        """X'(s*theta); the columns centred where theta sums to 0 anyway, which saves digits."""
        return self.columns.T @ (self.s * theta)

    def _conjugate(self, u):
        """sum_j phi_j*(u_j), infinite outside its domain."""
        excess = np.sign(u) * np.maximum(np.abs(u) - self.l1, 0)
        noise = 1e-16 * self.scale * self._size
        open_side = np.where(u > 0, np.isinf(self.upper), np.isinf(self.lower)) & (self.l2 == 0)
        excess = np.where(open_side & (np.abs(excess) <= noise), 0, excess)
        endless = np.where(excess > 0, np.inf, np.where(excess < 0, -np.inf, 0))
        w = np.where(self.l2 > 0, excess / np.where(self.l2 > 0, self.l2, 1), endless)
        w = np.clip(w, self.lower, self.upper)
        if np.any(np.isinf(w)):
            return LONG(np.inf)
        return np.sum(np.where(excess == 0, np.clip(u, -self.l1, self.l1), u) * w - self.l1 * np.abs(w)) - np.sum(
            self.l2 * w**2 / 2
        )

    def dual(self, theta):
        """D(theta) <= min P; minus infinity for a theta that bounds nothing."""
        self._size = np.sqrt(self.s @ theta**2)
        value = (
            -(self.s @ self.conjugate_rows(-theta))
            - self.s @ (theta * self.offset)
            - self._conjugate(self._tdot(theta))
        )
        return value if np.isfinite(value) else LONG(-np.inf)

    def bound_at(self, coef, intercept):
        """A lower bound of the minimum from the residual at a point, made feasible by projection and scaling."""
        theta = self._project(self.theta(self.eta(self.feasible(coef), intercept)))
        u = self._tdot(theta)
        ends = (self.l2 == 0) & np.where(u > 0, np.isinf(self.upper), np.isinf(self.lower))
        outside = ends & (np.abs(u) > self.l1) & (self.l1 > 0)
        c_max = np.min(np.where(outside, self.l1 / np.where(outside, np.abs(u), 1), 1))
        corner = np.where(u > 0, np.isinf(self.upper), np.isinf(self.lower)) & (np.abs(u) > self.l1)
        c_corner = np.min(np.where(corner, self.l1 / np.where(corner, np.abs(u), 1), 1))
        low, high = LONG(0), c_max
        best = max(self.dual(c * theta) for c in (LONG(0), c_corner, c_max))
        for _ in range(80):  # D is concave along the ray: golden section
            a, b = high - (high - low) * 0.618033988749895, low + (high - low) * 0.618033988749895
            fa, fb = self.dual(a * theta), self.dual(b * theta)
            best = max(best, fa, fb)
            low, high = (a, high) if fa < fb else (low, b)
        return max(best, LONG(0))  # loss and penalty are at least 0

    def _project(self, theta):
        """The nearest theta (norm of s) with u_j = 0, or of one sign, where the domain of phi_j* ends at 0."""
        at_zero = (self.l1 == 0) & (self.l2 == 0) & (self.lower < self.upper)
        two = at_zero & np.isinf(self.lower) & np.isinf(self.upper)
        one = at_zero & (np.isinf(self.lower) ^ np.isinf(self.upper))
        root = np.sqrt(self.s)
        sign = np.where(np.isinf(self.upper), 1, -1)
        X = self.columns * sign / self.scale
        ones = [np.ones(len(self.s), LONG)[:, None]] if self.fit_intercept else []
        columns = np.hstack([*ones, X[:, two], X[:, one]])
        if columns.shape[1] == 0:
            return theta
        A, size = (columns * root[:, None]).astype(float), np.max(np.abs(theta))
        if size == 0:
            return theta
        free = columns.shape[1] - int(one.sum())
        used = np.arange(columns.shape[1]) < free
        if one.any():
            limits = (np.where(used, -np.inf, 0), np.inf)
            fit = lsq_linear(A, (root * theta / size).astype(float), limits, method="bvls", tol=1e-15).x
            used = used | (fit > 0)
        for _ in range(20):  # the factorisation is in float64: a few rounds reach extended precision
            used = used | (np.arange(len(used)) >= free) & (columns.T @ (root**2 * theta) > 1e-17 * size)
            rest = columns[:, used].T @ (self.s * theta / size)
            _, values, V = np.linalg.svd(A[:, used], full_matrices=False)
            inverse = np.where(values > 1e-12 * values.max(initial=0), 1 / np.where(values > 0, values, 1), 0)
            fit = V.T @ (inverse**2 * (V @ rest.astype(float)))
            theta = theta - columns[:, used] @ fit.astype(LONG) * size
        return theta

    # -- the verdict

    def gap(self, coef, intercept=0.0, enough=-1.0):
        """(P - D)/P0, a proved bound of (P - min P)/P0.

        D is the best bound known: from the point itself, and, unless that gives at most `enough`, from this
        checker's own minimiser, which makes it the suboptimality itself up to rounding.
        """
        null, here = self.null_objective, self.objective(coef, intercept)
        if not np.isfinite(here):
            return np.inf
        largest = np.max(np.abs(self.y - self.offset), initial=0.0)
        if null <= (16 * np.finfo(LONG).eps * largest) ** 2:  # a constant y, met as well as its own rounding allows
            return 0.0 if here <= (16 * self.eps * largest) ** 2 else np.inf
        found = (here - self.bound_at(coef, intercept)) / null
        if found > enough:
            bound = self.bound_at(*self.minimiser(coef, intercept))
            found = min(found, (here - bound) / null)
        return float(found)

    def false_certificate(self, coef, intercept, tol, eps, proven=False):
        """Whether a claim `gap <= tol` of a solver that computes to `eps` is false.

        That is: this checker's best bound leaves a larger gap. Where its own minimiser comes no lower than the point
        and still proves nothing, it raises; with `proven`, for problems beyond its own arithmetic, a claim is false
        only if a better point is at hand.
        """
        allowed = float(tol) + 64 * float(eps)
        if self.null_objective > 0:  # what extended precision can't see: bounds may force an objective far above P0
            blur = 256 * np.finfo(LONG).eps * self.objective(coef, intercept) / self.null_objective
            allowed += float(blur) if np.isfinite(blur) else 0.0
        if self.gap(coef, intercept, enough=allowed) <= allowed:
            return False
        reached = self.objective(*self.minimiser(coef, intercept))
        if self.null_objective > 0 and (self.objective(coef, intercept) - reached) / self.null_objective <= allowed:
            if proven:
                return False
            raise RuntimeError("the checker's own minimiser is not good enough to decide")
        return True

    # -- an own minimiser: coordinate descent on quadratic models, with Newton steps on the support

    def minimiser(self, coef=None, intercept=0.0):
        """(coef, intercept) at the minimum, from a starting point, in float64; remembered."""
        if self._reference is None:
            self._reference = self._minimise(coef, intercept)
        return self._reference

    def _minimise(self, coef, intercept):
        p = self.X.shape[1]
        Z = (self.columns / self.scale).astype(float)
        l1, l2 = (self.l1 / self.scale).astype(float), (self.l2 / self.scale**2).astype(float)
        lower, upper = (self.lower * self.scale).astype(float), (self.upper * self.scale).astype(float)
        start = np.zeros(p, LONG) if coef is None or not np.isfinite(self.objective(coef, intercept)) else coef
        z = np.clip((np.asarray(start).astype(LONG) * self.scale).astype(float), lower, upper)
        best = None
        for _ in range(1 if self.loss == "squared" else 60):
            raw = z.astype(LONG) / self.scale
            b = self.best_intercept(raw)
            eta = self.eta(raw, b)
            value = self.objective(raw, b)
            if best is not None and not value < best[0]:
                break
            best = value, raw, b
            h = (self.s * np.maximum(self.curvature(eta), 1e-9)).astype(float)
            score = (self.s * self.theta(eta)).astype(float)
            center_h = (h @ Z) / h.sum() if self.fit_intercept else np.zeros(p)
            Zh = Z - center_h
            c0 = Zh.T @ (score - h * (score.sum() / h.sum() if self.fit_intercept else 0.0))
            G = (Zh * h[:, None]).T @ Zh
            new = _quadratic(G, c0 + G @ z, l1, l2, lower, upper, z)
            t = 1.0
            for _ in range(40):  # shorten until it decreases
                trial = (z + t * (new - z)).astype(LONG) / self.scale
                if self.objective(trial, self.best_intercept(trial)) < value:
                    break
                t /= 2
            z = z + t * (new - z)
        raw = self.feasible(z.astype(LONG) / self.scale)
        points = [(best[1], best[2]), (raw, self.best_intercept(raw))]
        return self._polish(*min(points, key=lambda point: float(self.objective(*point))))

    def _polish(self, coef, b):
        """Newton steps on the smooth coefficients, with slopes in extended precision."""
        moves = (coef > self.lower) & (coef < self.upper) & ((coef != 0) | ((self.l1 == 0) & (self.l2 == 0)))
        if not moves.any():
            return coef, b
        Z = (self.columns / self.scale)[:, moves]

        def slopes(coef):
            b = self.best_intercept(coef)
            theta = self.theta(self.eta(coef, b))
            bend = self.l2 * coef + self.l1 * np.sign(coef)
            return b, (bend / self.scale)[moves] - Z.T @ (self.s * theta)

        b, g = slopes(coef)
        for _ in range(10):
            h = self.s * self.curvature(self.eta(coef, b))
            Zh = Z - (h @ Z) / h.sum() if self.fit_intercept else Z
            H = ((Zh * h[:, None]).T @ Zh + np.diag((self.l2 / self.scale**2)[moves])).astype(float)
            size = np.max(np.abs(g))
            if size == 0 or not np.all(np.isfinite(H)):
                break
            step = np.linalg.lstsq(H, -(g / size).astype(float), rcond=1e-14)[0].astype(LONG) * size
            trial = coef.copy()
            trial[moves] += step / self.scale[moves]
            new_b, new_g = slopes(trial)
            same = np.all(np.sign(trial) * np.sign(coef) >= 0) and np.all((trial >= self.lower) & (trial <= self.upper))
            if not (same and np.max(np.abs(new_g)) < size):
                break
            coef, b, g = trial, new_b, new_g
        return coef, b


def _quadratic(G, c, l1, l2, lower, upper, z):
    """argmin z'Gz/2 - c'z + sum phi(z): sweeps, each followed by a Newton step on the smooth coordinates."""
    z = z.copy()
    p = len(z)

    def value(z):
        return z @ G @ z / 2 - c @ z + np.sum(l1 * np.abs(z)) + np.sum(l2 * z**2) / 2

    def slope(z):
        return G @ z - c + l2 * z

    size = np.max(np.abs(c)) + np.max(l1) + 1e-300
    for k in range(400):
        for _ in range(3):
            for j in range(p):
                curve = G[j, j] + l2[j]
                if curve <= 0:
                    z[j] = min(max(0.0, lower[j]), upper[j])
                    continue
                v = c[j] - G[j] @ z + G[j, j] * z[j]
                z[j] = min(max(np.sign(v) * max(abs(v) - l1[j], 0.0) / curve, lower[j]), upper[j])
        smooth = (z > lower) & (z < upper) & ((z != 0) | (l1 == 0)) & (np.diagonal(G) + l2 > 0)
        g = slope(z) + l1 * np.sign(z)
        right, left = slope(z) + np.where(z < 0, -l1, l1), slope(z) + np.where(z > 0, l1, -l1)  # derivatives
        violation = np.maximum(np.where(z >= upper, 0, -right), np.where(z <= lower, 0, left))
        if np.max(violation) <= 1e-15 * size and k > 2:
            break
        if smooth.any():
            H = G[np.ix_(smooth, smooth)] + np.diag(l2[smooth])
            step = np.zeros(p)
            step[smooth] = -np.linalg.lstsq(H, g[smooth], rcond=1e-13)[0]
            ends = np.where(step > 0, upper - z, z - lower)
            kinks = np.where((z * step < 0) & (l1 > 0), np.abs(z), np.inf)
            room = np.where(smooth & (step != 0), np.minimum(ends, kinks), np.inf)
            ratio = np.where(step != 0, room / np.where(step != 0, np.abs(step), 1), np.inf)
            j = int(np.argmin(ratio))
            t = min(1.0, ratio[j])
            trial = np.clip(z + t * step, lower, upper)
            if t == ratio[j]:
                trial[j] = 0.0 if kinks[j] <= ends[j] else (upper[j] if step[j] > 0 else lower[j])
            if value(trial) <= value(z) + 1e-15 * abs(value(z)):
                z = trial
    return z
