"""Working sets of the squared loss, by its Gram matrix, and of any other smooth loss, by its rows."""

from collections.abc import Callable
from typing import Any

import numpy as np

from l1jax._threads import product, square
from l1jax.engines.inverse import longer, permute, wider
from l1jax.engines.kinks import Floats, Indices, Kinks
from l1jax.engines.local import Local
from l1jax.engines.passes import pass_over
from l1jax.engines.working_set import WorkingSet

OLD = 1e-4  # what may be left of a product that H is to undo
STRETCH = 4.0  # by how much the length of a step may be corrected


class SquaredSet(WorkingSet):
    """1/2*|y - X'w|^2 by its Gram matrix on the features in hand; `whole` takes all of them in hand at once."""

    def __init__(self, XT: Floats, s: Floats, y: Floats, whole: bool, known: Any = None) -> None:
        super().__init__(XT, len(XT))
        self.whole, self.known = whole, known
        equal = bool(np.all(s == s[0]))  # weights are a factor of products then, and else their roots one of rows
        self.factor = s[0] if equal else s.dtype.type(1)
        self.root = None if equal else np.sqrt(s)
        self.y = y if self.root is None else self.root * y
        if whole and known is None:
            self.X = self._rows(slice(None))  # of all features, in their own order
        self.c = np.empty(0, XT.dtype)
        self.G = np.empty((0, 0), XT.dtype)

    def _rows(self, ids: Any) -> Floats:
        return self.XT[ids] if self.root is None else self.XT[ids] * self.root

    def read(self, ids: Indices) -> None:
        m, start = self.m, self.m - len(ids)
        self.c, self.G = longer(self.c, m, start), wider(self.G, m, start)
        if self.known is not None:
            self.G[:], self.c[:], self.u[:] = self.known.G, self.known.c, self.known.c - self.known.G @ self.w[:m]
            return
        if self.whole:
            np.multiply(self.factor, square(self.X), out=self.G)
        else:
            self.X = longer(self.X, m, start)
            self.X[start:m] = self._rows(ids)
            self.G[:m, start:m] = self.factor * product(self.X[:m], self.X[start:m].T)
            self.G[start:m, :start] = self.G[:start, start:m].T
        self.c[start:m] = self.factor * (self.X[start:m] @ self.y)
        self.u[start:m] = self.c[start:m] - self.G[start:m, :m] @ self.w[:m]

    def rearrange(self, to: Indices, source: Indices) -> None:
        super().rearrange(to, source)
        permute(self.G, to, source, self.m)
        self.c[to] = self.c[source]
        if not self.whole:
            self.X[to] = self.X[source]

    def products(self, rows: Any, columns: Any) -> Floats:
        return self.G[rows, columns] if isinstance(rows, slice) else self.G[np.ix_(rows, columns)]

    def try_step(self, new: Indices, d: Floats) -> tuple[float, Any]:
        k, m = self.k, self.m
        change = self.G[:m, :k] @ d[:k]
        if len(new):
            change += self.G[:m, new] @ d[k:]
        slope = self.u[:m] - change / 2
        return float(slope[:k] @ d[:k] + slope[new] @ d[k:]), change

    def accept(self, step: Any) -> None:
        self.u[: self.m] -= step

    def inverse(self, kinks: Kinks) -> tuple[Indices, Floats] | None:
        k = self.k
        ids, H = self.ids[:k].copy(), self.H.change().copy()
        l2 = kinks[ids].l2
        probe = np.random.default_rng(0).standard_normal(k).astype(H.dtype)
        d: Floats = H @ probe
        left: Floats = self.G[:k, :k] @ d + l2 * d - probe
        return (ids, H) if float(np.abs(left).max(initial=0.0)) <= OLD else None

    def refresh(self) -> None:
        m = self.m
        if self.whole:
            self.u[:m] = self.c[:m] - self.G[:m, :m] @ self.w[:m]
        else:
            self.u[:m] = self.factor * (self.X[:m] @ self._residual())

    def force(self) -> Floats:
        return self._force(self._residual())

    def mark(self) -> Any:
        return self.ids[: self.m].copy(), self.w[: self.m].copy()

    def forces(self, marks: list[Any]) -> Floats:
        W = np.zeros((len(marks), self.m), self.w.dtype)
        for row, (ids, w) in zip(W, marks, strict=True):
            row[self.where[ids]] = w
        last = int(np.flatnonzero(W.any(axis=0)).max(initial=-1)) + 1
        return self._force(self.y - W[:, :last] @ self.X[:last])

    def _force(self, residual: Floats) -> Floats:
        return self.factor * (residual if self.root is None else self.root * residual)

    def slopes(self, forces: Floats) -> Floats:
        return pass_over(self.XT, forces)

    def value(self) -> float:
        if self.known is not None:
            return float(self.known.yy - self.w @ (self.c + self.u)) / 2
        return float(self.factor * np.sum(self._residual() ** 2)) / 2

    def _residual(self) -> Floats:
        if not self.whole:
            return self.y - self.predicted()
        w = np.zeros(self.size, self.w.dtype)
        w[self.ids] = self.w
        return self.y - w @ self.X


class SmoothSet(WorkingSet):
    """Any loss whose second derivative is diagonal, an unpenalised intercept as its last feature.

    H belongs to the curvature at the point where it was computed, and serves until its steps leave too much; their
    lengths follow the current one.
    """

    def __init__(self, XT: Floats, intercept: bool, offset: Floats, local: Callable[[Floats], Local]) -> None:
        super().__init__(XT, len(XT) + intercept)
        self.local, self.offset, self.eta = local, offset, offset
        self.here = local(self.eta)
        self.curvature = self.here.curvature
        self.ahead = offset, offset  # a step, and the change of the linear predictor along it

    def read(self, ids: Indices) -> None:
        m, start = self.m, self.m - len(ids)
        self.X = longer(self.X, m, start)
        data = ids < len(self.XT)
        self.X[start:m][data], self.X[start:m][~data] = self.XT[ids[data]], 1
        if np.any(self.w[start:m]):
            self.refresh()
        else:
            self.u[start:m] = self.X[start:m] @ self.here.force

    def rearrange(self, to: Indices, source: Indices) -> None:
        super().rearrange(to, source)
        self.X[to] = self.X[source]

    def products(self, rows: Any, columns: Any) -> Floats:
        if rows is columns:
            return square(self.X[rows] * np.sqrt(self.curvature))
        return product(self.X[rows], (self.X[columns] * self.curvature).T)

    def best(self, new: Indices, d: Floats, promised: float, l2: float) -> Floats:
        along = self._along(new, d)
        bent = float(self.here.curvature @ along**2) + l2
        t = min(max(promised / bent, 1 / STRETCH), STRETCH) if bent > 0 else 1.0
        self.ahead = d * t, along * t
        return self.ahead[0]

    def try_step(self, new: Indices, d: Floats) -> tuple[float, Any]:
        eta = self.eta + (self.ahead[1] if d is self.ahead[0] else self._along(new, d))
        there = self.local(eta)
        return self.here.value - there.value, (eta, there)

    def _along(self, new: Indices, d: Floats) -> Floats:
        """The change of the linear predictor."""
        along: Floats = d[: self.k] @ self.X[: self.k]
        return along + d[self.k :] @ self.X[new] if len(new) else along

    def accept(self, step: Any) -> None:
        self.eta, self.here = step
        np.matmul(self.X[: self.m], self.here.force, out=self.u[: self.m])

    def refresh(self) -> None:
        eta = self.offset + self.predicted()
        self.accept((eta, self.local(eta)))

    def force(self) -> Floats:
        return self.here.force

    def slopes(self, forces: Floats) -> Floats:
        u = pass_over(self.XT, forces)
        return u if self.size == len(self.XT) else np.concatenate([u, np.sum(forces, axis=1, keepdims=True)], axis=1)

    def value(self) -> float:
        return self.here.value

    def noise(self) -> float:
        return 8 * self.eps * abs(self.here.value)

    def renew(self) -> None:
        self.curvature = self.here.curvature
