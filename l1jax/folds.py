"""Which rows are held out when, and the weights that say so."""

from collections.abc import Iterable
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax._node import node, static


@node
class Folds:
    """Fold k is fitted on the rows train[k] and scored on the rows test[k].

    Args:
      train, test: truth values, (K, n), each with some true in every fold; no row is in both for one k.
      repeats: how many complete rounds of folds there are, one after the other; K is a multiple of it.

    Made by `Folds.of` (dealt out: in order, shuffled, by group, by class, repeated), `Folds.from_ids`,
    `Folds.in_time` and `Folds.from_splits`. Raises ValueError for what is no such pair of tables.

    >>> Folds.of(5, 2).test.astype(int)
    array([[1, 0, 1, 0, 1],
           [0, 1, 0, 1, 0]])
    """

    train: Any
    test: Any
    repeats: int = static(default=1)

    def __post_init__(self) -> None:
        train, test = (a if isinstance(a, jax.Array) else np.asarray(a) for a in (self.train, self.test))
        if train.ndim != 2 or train.shape != test.shape or train.dtype != bool or test.dtype != bool:
            raise ValueError(
                f"train, test: want truth values of one shape (K, n); got {train.dtype} {train.shape} and "
                f"{test.dtype} {test.shape}"
            )
        if self.repeats < 1 or len(train) % self.repeats or len(train) // self.repeats < 1:
            raise ValueError(f"repeats: want a divisor of the number of folds, {len(train)}; got {self.repeats}")
        if concrete(train, test):
            for k, (fitted, scored) in enumerate(zip(np.asarray(train), np.asarray(test), strict=True)):
                if not fitted.any() or not scored.any() or np.any(fitted & scored):
                    raise ValueError(f"folds: fold {k} wants some rows to fit, and other rows to score")
        object.__setattr__(self, "train", train)
        object.__setattr__(self, "test", test)

    @classmethod
    def of(
        cls,
        n: int,
        folds: int,
        *,
        key: Array | None = None,
        groups: ArrayLike | None = None,
        strata: ArrayLike | None = None,
        repeats: int = 1,
    ) -> Self:
        """Deal n rows out to K folds.

        Args:
          n: the number of rows.
          folds: K, from 2 to n (to the number of groups).
          key: a JAX random key: rows are shuffled before they are dealt. Without one row i goes to fold i mod K.
          groups: labels, (n,): rows of one label stay together. The largest groups are dealt first, each to the
            fold with the fewest rows.
          strata: labels, (n,), classes say: each fold has its share of each, to within one row.
          repeats: how many rounds; more than one wants a key.
        """
        if groups is not None and strata is not None:
            raise ValueError("groups, strata: want one of the two at most")
        labels = np.arange(n) if groups is None else _labels(groups, n, "groups")
        of, count = np.unique(labels, return_inverse=True)[1], len(np.unique(labels))
        if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= count:
            raise ValueError(f"folds: want a whole number from 2 to {count}; got {folds!r}")
        if repeats != 1 and key is None:
            raise ValueError("repeats: want a key, as without one all rounds are the same")
        ids = []
        for r in range(repeats):
            order = np.arange(count) if key is None else permutation(jax.random.fold_in(key, r), count)
            if strata is not None:
                order = order[np.argsort(np.unique(_labels(strata, n, "strata"), return_inverse=True)[1][order],
                                         kind="stable")]  # fmt: skip
            dealt = np.empty(count, int)
            dealt[order] = np.arange(count) % folds
            ids.append(dealt if groups is None else _lightest(np.bincount(of), order, folds)[of])
        return cls.from_ids(np.stack(ids))

    @classmethod
    def from_ids(cls, ids: ArrayLike) -> Self:
        """One fold for each value that occurs in `ids`, (n,), or in each round (R, n): its rows are held out."""
        rounds = np.atleast_2d(np.asarray(ids))
        if rounds.ndim != 2 or rounds.dtype.kind not in "iuSU":
            raise ValueError(f"folds: want fold ids, whole numbers of shape (n,); got {rounds.dtype} {np.shape(ids)}")
        values = [np.unique(row) for row in rounds]
        if min(map(len, values)) < 2 or len({len(v) for v in values}) > 1:
            raise ValueError(f"folds: want at least two folds, as many in each round; got {[len(v) for v in values]}")
        test = np.concatenate([row[None] == v[:, None] for row, v in zip(rounds, values, strict=True)])
        return cls(~test, test, len(rounds))

    @classmethod
    def in_time(cls, times: ArrayLike, folds: int) -> Self:
        """K blocks of later rows, each scored by a fit to all rows of earlier times.

        Args:
          times: when each row was seen, (n,): numbers that grow. The first of K + 1 blocks is never scored.
          folds: K, at least 1.
        """
        at = np.asarray(times)
        if at.ndim != 1 or not 1 <= folds < len(at):
            raise ValueError(f"times, folds: want (n,) times and from 1 to n - 1 folds; got {at.shape}, {folds}")
        order = np.argsort(at, kind="stable")
        blocks = np.array_split(order, folds + 1)[1:]
        test = np.zeros((folds, len(at)), bool)
        for k, block in enumerate(blocks):
            test[k, block] = True
        return cls(np.stack([at < at[block].min() for block in blocks]), test)

    @classmethod
    def from_splits(cls, splits: Iterable[tuple[ArrayLike, ArrayLike]], n: int) -> Self:
        """From pairs of row numbers (train, test), as scikit-learn's splitters give them, of n rows."""
        pairs = list(splits)
        tables = np.zeros((2, len(pairs), n), bool)
        for k, pair in enumerate(pairs):
            for table, rows in zip(tables, pair, strict=True):
                table[k, np.asarray(rows)] = True
        return cls(*tables)

    def __len__(self) -> int:
        return int(self.test.shape[0])

    def __repr__(self) -> str:
        return f"Folds of {self.test.shape[1]} rows into {len(self)}"


def as_folds(given: Any, n: int, key: Array | None) -> Folds:
    """What `cross_validate` was given as folds."""
    if isinstance(given, int | np.integer):
        return Folds.of(n, int(given), key=key)
    if key is not None:
        raise ValueError("key: it shuffles a number of folds; these are given")
    folds = given if isinstance(given, Folds) else Folds.from_ids(given)
    if folds.test.shape[1] != n:
        raise ValueError(f"folds: want one for each of {n} rows, got {folds.test.shape[1]}")
    return folds


def permutation(key: Array, n: int) -> np.ndarray:
    """A random order of 0..n-1."""
    if not concrete(key):
        raise ValueError("key: folds are drawn on the host; make them outside of jit and vmap, and pass them in")
    with jax.ensure_compile_time_eval():
        return np.asarray(jax.random.permutation(key, n))


def _labels(given: ArrayLike, n: int, name: str) -> np.ndarray:
    labels = np.asarray(given)
    if labels.shape != (n,):
        raise ValueError(f"{name}: want one label for each of {n} rows, got shape {labels.shape}")
    return labels


def _lightest(sizes: np.ndarray, order: np.ndarray, folds: int) -> np.ndarray:
    """A fold for each group: the largest first, ties in the given order, each to the fold with the fewest rows."""
    chosen, load = np.empty(len(sizes), int), np.zeros(folds, int)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        chosen[group] = np.argmin(load)
        load[chosen[group]] += sizes[group]
    return chosen


def weights_of(rows: Any, sample_weight: Array) -> Array:
    """`sample_weight` on the rows, 0 elsewhere: fits of all parts of the data then have one shape."""
    return jnp.where(jnp.asarray(rows), sample_weight, 0.0)
