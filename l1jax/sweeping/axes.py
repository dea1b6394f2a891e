"""The axes of a sweep: what varies, in which order, and the problem at each place."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax._node import node
from l1jax.design import Design
from l1jax.folds import as_folds, weights_of
from l1jax.grid import CORNER, critical
from l1jax.penalties import with_ratio
from l1jax.problem import Problem, numeric, on_device
from l1jax.standard_form import form_with

NAMES = ("targets", "folds", "weights", "l1_ratios")


@node
class Axes:
    """What varies over the lanes of a sweep of one problem; None where nothing does.

    targets: (n, T). folds: rows to fit, truth values (K, n). weights: (W, n). ratios: (A,). A lane is one place in
    T x K x W x A, the last axis running fastest.
    """

    targets: Any = None
    folds: Any = None
    weights: Any = None
    ratios: Any = None

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """The length of each axis, None for those that are not given."""
        targets = None if self.targets is None else self.targets.shape[1]
        rest = (self.folds, self.weights, self.ratios)
        return targets, *(None if a is None else a.shape[0] for a in rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result without its axis of lambdas."""
        return tuple(size for size in self.sizes if size is not None)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def places(self, lanes: Any) -> dict[str, Any]:
        """Where on each axis that is given the lanes are."""
        sizes = self.sizes
        at = np.unravel_index(np.asarray(lanes), [size or 1 for size in sizes])
        return {name: a for name, a, size in zip(NAMES, at, sizes, strict=True) if size is not None}

    def rows_weighed(self, problem: Problem, at: dict[str, Any]) -> Array | None:
        """The weights of the rows at places, (..., n); None where all have the problem's."""
        if self.folds is None and self.weights is None:
            return None
        own = jnp.ones(problem.X.shape[:1], problem.dtype) if problem.sample_weight is None else problem.sample_weight
        if self.weights is not None:
            given = jnp.asarray(_rows(self.weights, at["weights"]), problem.dtype)
            own = given if problem.sample_weight is None else jnp.broadcast_to(own, given.shape) * given
        else:
            own = jnp.broadcast_to(own, (*np.shape(at["folds"]), *own.shape))
        return own if self.folds is None else weights_of(self.folds[at["folds"]], own)

    def posed(self, problem: Problem, lane: int) -> Problem:
        """The problem of one lane."""
        return self.at(problem, self.places(lane))

    def at(self, problem: Problem, at: dict[str, Any]) -> Problem:
        """The problem of one place, by the axes that are given here."""
        weights = self.rows_weighed(problem, at)
        if weights is not None:
            problem = dataclasses.replace(problem, sample_weight=weights)
        if "targets" in at:
            problem = dataclasses.replace(problem, y=jnp.asarray(self.targets[:, at["targets"]], problem.dtype))
        if "l1_ratios" in at:
            problem = dataclasses.replace(problem, penalty=with_ratio(problem.penalty, self.ratios[at["l1_ratios"]]))
        return problem


def _rows(a: Any, ids: Any) -> Any:
    """a[ids]; no copy of an array on the host where these follow each other."""
    if isinstance(a, np.ndarray) and np.ndim(ids) and np.all(np.diff(ids) == 1):
        return a[ids[0] : ids[-1] + 1]
    return a[ids]


def check_axes(problem: Problem, targets: Any, folds: Any, weights: Any, l1_ratios: Any) -> Axes:
    """The axes as arrays; ValueErrors for what does not match the problem."""
    n = problem.X.shape[0]
    given = {"targets": numeric(targets, "targets"), "weights": numeric(weights, "weights")}
    targets, weights = given["targets"], given["weights"]
    if targets is not None and problem.outputs:
        raise ValueError(f"targets: want a loss of one response, got {type(problem.loss).__name__}")
    if targets is not None and (targets.ndim != 2 or targets.shape[0] != n or not targets.size):
        raise ValueError(f"targets: want shape ({n}, T), a column for each response; got {targets.shape}")
    if weights is not None and (weights.ndim != 2 or weights.shape[1] != n or not weights.size):
        raise ValueError(f"weights: want shape (W, {n}), a row for each weighting; got {weights.shape}")
    if weights is not None and concrete(weights):
        values = np.asarray(weights)
        most = np.max(values, axis=1)  # NaN if one is
        wrong = ~((most > 0) & (most < np.inf))
        if np.any(wrong) or not np.min(values) >= 0:
            wrong |= ~(np.min(values, axis=1) >= 0)
            raise ValueError(f"weights: want numbers of at least 0, not all 0; row {np.argmax(wrong)} has others")
    if targets is not None and concrete(targets) and not np.all(np.isfinite(np.asarray(targets))):
        raise ValueError("targets: NaN or infinite values")
    train = None
    if folds is not None:
        train = np.asarray(as_folds(folds, n, None).train) if concrete(folds) else as_folds(folds, n, None).train
    return Axes(targets, train, weights, None if l1_ratios is None else check_ratios(l1_ratios, problem))


def check_ratios(l1_ratios: ArrayLike, problem: Problem) -> Array:
    """Ratios (A,) as an array of the problem's dtype."""
    ratios = on_device(numeric(l1_ratios, "l1_ratios"), problem.dtype)
    if ratios is None or ratios.ndim != 1 or not len(ratios):
        raise ValueError(f"l1_ratios: want numbers of shape (A,), A at least 1; got {l1_ratios}")
    with_ratio(problem.penalty, 0.5)
    return ratios


@functools.partial(jax.jit, static_argnums=(4,))
def starts(
    problem: Problem, targets: Array | None, ratios: Array | None, design: Design, unpriced: bool, tally: Array
) -> Array:
    """Where grids start, (L,), for targets (n, L) and ratios (L,): on all rows, whatever is held out or reweighted."""

    def lane(y: Array | None, ratio: Array | None, _: Array) -> Array:
        posed = problem if y is None else dataclasses.replace(problem, y=y)
        penalty = problem.penalty if ratio is None else with_ratio(problem.penalty, ratio)
        return critical(form_with(posed, design), penalty, CORNER, unpriced)

    axes = (None if targets is None else 1, None if ratios is None else 0, 0)
    return jax.vmap(lane, in_axes=axes)(targets, ratios, tally)
