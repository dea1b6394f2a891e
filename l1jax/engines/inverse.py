"""The inverse of a symmetric matrix whose rows come and go, kept current by block elimination."""

import dataclasses
from typing import Any

import numpy as np

from l1jax._threads import cores, in_parts, product
from l1jax.engines.kinks import Floats, Indices

SMALL = 256  # rows of an inverse that stays in the cache: changes are made at once
PENDING = 48  # rows that have come or gone, at most, before the changes are made
ROWS = 256  # that are changed at a time: what is added to them stays in the cache
LONG = 64  # rows of a matrix that is worth a Cholesky factor: its inverse takes half of the work then


@dataclasses.dataclass(frozen=True)
class Border:
    """Some rows B beside those of a matrix, and C, their own block: U = H B', S = C - B U."""

    U: Floats
    S: Floats
    diagonal: Floats
    """That of C."""
    held: tuple[Floats, Floats, Floats] | None
    """Where changes are pending: the last two of `Inverse._times`, and C less what the H that is held explains."""

    def __getitem__(self, ids: Any) -> "Border":
        held = None
        if self.held is not None:
            base, W, rest = self.held
            held = base[:, ids], W[:, ids], rest[ids][:, ids]
        return Border(self.U[:, ids], self.S[ids][:, ids], self.diagonal[ids], held)


class Inverse:
    """H, about the inverse of a symmetric positive definite matrix A (k, k), whose rows come and go at its end.

    Where it is large, changes wait until there are some, as each goes over all of H. Meanwhile A, with the H that is
    held, is bordered by columns C: those that have come, and unit vectors for those that have gone, whose multipliers
    hold them at 0. D is the block of C's own. Held are Y' = (H C)' and K, the inverse of D - C'Y.
    """

    def __init__(self, dtype: Any) -> None:
        self.k = self.size = self.pending = 0  # rows of A, of the H that is held, and of Y'
        self.H, self.Y, self.K = (np.empty((0, 0), dtype) for _ in range(3))
        self.at = self.gone = np.empty(0, np.intp)
        # Where the rows of A are: in H, or behind it in Y'; which row went with each one of Y', -1 if one came.

    def set(self, H: Floats) -> None:
        """Begin anew."""
        self.k = self.size = k = len(H)
        self.pending, self.H = 0, wider(self.H, k, 0)
        self.H[:k, :k] = H

    def times(self, v: Floats) -> Floats:
        """H v."""
        return self._times(v[:, None])[0][:, 0] if self.pending else self.H[: self.k, : self.k] @ v

    def border(self, B: Floats, C: Floats) -> Border:
        """That of rows B' (k, b), C (b, b) their own block."""
        U, base, W = self._times(B)
        held = (base, W, C - self._placed(B)[: self.size].T @ base) if self.pending else None
        return Border(U, C - B.T @ U, C.diagonal(), held)

    def _times(self, V: Floats) -> tuple[Floats, Floats, Floats]:
        """H V (k, b); of the H that is held (size, b); and what pending rows see of V, less C' times that."""
        if self.pending > PENDING:
            self.change()
        H = self.H[: self.size, : self.size]
        if not self.pending:
            U = product(H, V)
            return U, U, V[:0]
        placed, Y = self._placed(V), self.Y[: self.pending]
        base = product(H, placed[: self.size])
        W = placed[self.size :] - Y @ placed[: self.size]
        T = self.K[: self.pending, : self.pending] @ W
        return np.concatenate([base - Y.T @ T, T])[self.at], base, W

    def _placed(self, V: Floats) -> Floats:
        placed = np.zeros((self.size + self.pending, V.shape[1]), V.dtype)
        placed[self.at] = V
        return placed

    def enter(self, border: Border, own: Any) -> None:
        """Take in the rows of a border, at the end, with `own` added to the diagonal of their block.

        Between the two, rows may have gone, if that is `pending`.
        """
        b, start = len(border.S), self.k
        if self._waits():
            base, W, rest = border.held or (border.U, border.U[:0], border.S)
            gone = self.gone[len(W) :]
            inside = gone < self.size
            lost = np.zeros((len(gone), b), self.H.dtype)
            lost[inside] = -base[gone[inside]]
            self._extend(base.T, np.concatenate([W, lost]), rest, own, np.full(b, -1))
            self.at = np.append(self.at, self.size + self.pending - b + np.arange(b))
            self.k += b
            return
        S = border.S.copy()
        S.flat[:: b + 1] += own
        R, U, k = inverted(S), border.U, start + b
        V = U @ R
        H = self.H = wider(self.H, k, start)
        add(H, V, U.T)
        H[:start, start:k], H[start:k, :start], H[start:k, start:k] = -V, -V.T, R
        self.k = self.size = k

    def leave(self, to: Indices, source: Indices, count: int) -> None:
        """Bring rows and columns `source` to the places `to`; then take out the last ones."""
        k, start = self.k, self.k - count
        if self._waits():
            self.at[to] = self.at[source]
            slots, self.at, self.k = self.at[start:], self.at[:start], start
            held = slots < self.size
            inside = slots[held]
            Y = np.zeros((count, self.size), self.H.dtype)
            Y[held] = self.H[inside, : self.size]
            W = np.zeros((self.pending, count), self.H.dtype)
            W[:, held] = -self.Y[: self.pending, inside]
            W[slots[~held] - self.size, ~held] = 1
            rest = np.zeros((count, count), self.H.dtype)
            rest[np.ix_(held, held)] = -self.H[np.ix_(inside, inside)]
            self._extend(Y, W, rest, 0.0, slots)
            return
        H = self.H
        permute(H, to, source, k)
        if start:
            B = H[:start, start:k]
            add(H, -B, solved(H[start:k, start:k], B.T))
        self.k = self.size = start

    def _waits(self) -> bool:
        """Whether changes are to wait; there is room for them then."""
        if not self.pending and self.k >= SMALL:
            self.at, self.gone = np.arange(self.k), self.gone[:0]
            self.Y = np.empty((2 * PENDING, self.k), self.H.dtype)
        return bool(self.pending) or self.k >= SMALL

    def _extend(self, Y: Floats, W: Floats, rest: Floats, own: Any, gone: Indices) -> None:
        """Append rows to Y', and to K by block elimination."""
        r, b = self.pending, len(Y)
        T = self.K[:r, :r] @ W
        S = rest - W.T @ T
        S.flat[:: b + 1] += own
        R, m = inverted(S), r + b
        TR = T @ R
        K = self.K = wider(self.K, m, r)
        K[:r, :r] += TR @ T.T
        K[:r, r:m], K[r:m, :r], K[r:m, r:m] = -TR, -TR.T, R
        self.Y = longer(self.Y, m, r)
        self.Y[r:m], self.gone, self.pending = Y, np.append(self.gone, gone), m

    def change(self) -> Floats:
        """Make the changes that are pending: H (k, k)."""
        size, r, k = self.size, self.pending, self.k
        if r:
            m, Y = size + r, self.Y[:r]
            YK = Y.T @ self.K[:r, :r]
            H = self.H = wider(self.H, m, size)
            add(H, YK, Y)
            H[:size, size:m], H[size:m, :size], H[size:m, size:m] = -YK, -YK.T, self.K[:r, :r]
            to = np.flatnonzero(self.at != np.arange(k))
            permute(H, to, self.at[to], m)
            self.size, self.pending = k, 0
        return self.H[:k, :k]


def add(H: Floats, V: Floats, B: Floats) -> None:
    """H += V B for the leading block of H."""
    size = len(V)

    def change(at: slice) -> None:
        H[at, :size] += V[at] @ B

    if size <= ROWS:
        change(slice(0, size))
    elif cores(V.size * size) > 1:
        in_parts(change, size, ROWS)
    else:
        for i in range(0, size, ROWS):
            change(slice(i, min(i + ROWS, size)))


def permute(a: Floats, to: Indices, source: Indices, size: int) -> None:
    """Bring rows and columns `source` of the leading block of `a` to the places `to`."""
    a[to, :size] = a[source, :size]
    a[:size, to] = a[:size, source]


def longer(a: Any, size: int, used: int) -> Any:
    """`a`, or a longer copy, that has room for `size` rows; `used` of them are kept."""
    if len(a) >= size:
        return a
    new = np.empty((max(size, 2 * len(a)), *a.shape[1:]), a.dtype)
    new[:used] = a[:used]
    return new


def wider(a: Floats, size: int, used: int) -> Floats:
    """The same for a square matrix."""
    if len(a) >= size:
        return a
    new = np.empty((max(size, 2 * len(a)),) * 2, a.dtype)
    new[:used, :used] = a[:used, :used]
    return new


def solved(A: Floats, B: Floats) -> Floats:
    """A^-1 B; most often A has one row, of which LAPACK's call is the cost."""
    return B / A[0, 0] if len(A) == 1 else np.linalg.solve(A, B)


def inverted(A: Floats) -> Floats:
    """The inverse of a symmetric matrix."""
    if len(A) == 1:
        return 1 / A
    if len(A) >= LONG:
        from scipy.linalg.lapack import get_lapack_funcs

        factor, inverse = get_lapack_funcs(("potrf", "potri"), (A,))
        L, wrong = factor(A, lower=True)
        if not wrong:
            H: Floats = inverse(L, lower=True, overwrite_c=True)[0]
            H += H.T
            H.flat[:: len(H) + 1] /= 2
            return H.T
    H = np.linalg.inv(A)
    return (H + H.T) / 2
