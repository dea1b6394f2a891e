"""What a path tells: in which order features enter."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from l1jax.paths import path
from l1jax.problem import Problem
from l1jax.result import Result

RESOLUTION = 1e-3  # changes closer than this, relative to lambda, count as one: a gap of 1e-6 tells no finer


class Change(NamedTuple):
    """Feature number `feature` enters the path, or leaves it, at `lam`; `tied` to the change before it or not."""

    lam: float
    feature: int
    enters: bool
    tied: bool


def support_changes(problem: Problem, result: Result, mode: str, most: int = 20) -> list[Change]:
    """Every change of the support along a path, from the largest lambda down.

    Args:
      problem: the problem of the path.
      result: its path, lambdas descending from lambda_max.
      mode: how to solve finer grids, as for `path`.
      most: how many of the changes are told apart where several fall between two lambdas of the path, by solving a
        finer grid between the two; later ones may stay tied.
    """
    lams = np.asarray(result.lams)
    support = np.asarray(result.coef) != 0

    def finer(high: float, low: float) -> tuple[np.ndarray, np.ndarray]:
        # As many lambdas as the path has: the shapes are the same, and so nothing is compiled again.
        inner = path(problem, lams=np.geomspace(high, low, len(lams) + 2)[1:-1], mode=mode)
        return np.asarray(inner.lams), np.asarray(inner.coef) != 0

    changes: list[Change] = []
    for k in range(1, len(lams)):
        resolve = finer if len(changes) < most else None
        changes += _between(lams[k - 1 : k + 1], support[k - 1 : k + 1], resolve)
    return changes


def _between(
    lams: np.ndarray, support: np.ndarray, finer: Callable[[float, float], tuple[np.ndarray, np.ndarray]] | None
) -> Iterator[Change]:
    """The changes between two neighbouring lambdas."""
    high, low = (float(lam) for lam in lams)
    moved = np.flatnonzero(support[0] != support[1])
    if len(moved) <= 1 or finer is None or high <= low * (1 + RESOLUTION):
        for i, feature in enumerate(moved):
            yield Change(low, int(feature), bool(support[1, feature]), i > 0)
        return
    inner_lams, inner_support = finer(high, low)
    lams = np.concatenate([lams[:1], inner_lams, lams[1:]])
    support = np.concatenate([support[:1], inner_support, support[1:]])
    for k in range(1, len(lams)):
        yield from _between(lams[k - 1 : k + 1], support[k - 1 : k + 1], finer)
