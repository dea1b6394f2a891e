"""How selection varies: complementary pairs of subsamples, bootstraps, permutations."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax._node import node, static
from l1jax.grid import lambda_grid, lambda_max
from l1jax.problem import Problem, check_values
from l1jax.selection.false_selections import false_selections
from l1jax.sweeping import sweep

HELD = 20_000_000  # numbers of coefficients held at a time


@node
class Stability:
    """Shares of fits to resampled rows in which coefficients are nonzero.

    frequencies: (L, p), at each strength. entered: (L, p), at that strength or a larger one: on the path down to it.
    average: (L,), the mean number of coefficients that have entered. lams: (L,), descending. samples: how many fits.
    pairs: whether they are of complementary halves.

    >>> data = datasets.diabetes()
    >>> found = stability_selection(Problem(data.X, data.y, penalty=L1(1.0)), key=jax.random.key(0), pairs=5, num=10)
    >>> found.frequencies.shape, found.samples
    ((10, 10), 10)
    """

    frequencies: Array
    entered: Array
    average: Array
    lams: Array
    samples: int = static()
    pairs: bool = static()
    names: tuple[str, ...] | None = static(default=None)

    def bound(self, threshold: float, *, shape: str = "unimodal") -> Array:
        """At most so many false selections are expected, (L,), among coefficients with `entered` >= threshold.

        False are those whose chance to be selected in a half is at most theta = average/p. What is taken for granted
        of the shares in which they are selected, and the bound, the smallest that is known:

        - shape="any", nothing: theta^2*p/(2*threshold - 1).
        - "unimodal", the share of pairs of which both halves select: C*theta^2*p, where C is
          1/(2*(2*threshold - 1 - 1/(2B))) up to threshold 3/4 and 4*(1 - threshold + 1/(2B))/(1 + 1/B) above, for B
          pairs, where theta <= 1/sqrt(3) and threshold > min(1/2 + theta^2, 1/2 + 1/(2B) + 3/4*theta^2).
        - "r-concave", its probabilities to the power -1/2 are convex, and those of the share of halves to the power
          -1/4: p times the greatest chance that such a share, of mean theta^2 or theta, is at least 2*threshold - 1 or
          threshold. Often several times smaller.

        Raises ValueError for a threshold outside (1/2, 1], an unknown shape, and where the samples are no complementary
        pairs.

        Source: Shah and Samworth (2013), "Variable selection with error control: another look at stability
        selection", JRSS B 75(1), theorems 1 and 2, equation 8.
        """
        if not self.pairs:
            raise ValueError("bound: it is known for complementary pairs only, not for bootstraps")
        if not 0.5 < threshold <= 1:
            raise ValueError(f"threshold: want a number above 1/2, at most 1; got {threshold}")
        return false_selections(self.average, self.entered.shape[-1], self.samples // 2, threshold, shape)

    def stable(self, threshold: float = 0.9, most: float = 1.0, *, shape: str = "unimodal") -> Array:
        """Truth values (p,): `entered` is at least `threshold`, at the least strength whose bound is at most `most`."""
        fine = self.bound(threshold, shape=shape) <= most
        last = jnp.max(jnp.where(fine, jnp.arange(fine.shape[0]), -1))
        return (self.entered[last] >= threshold) & (last >= 0)

    def __repr__(self) -> str:
        if not isinstance(self.entered, np.ndarray | jax.Array) or not concrete(self.entered):
            return f"Stability(entered={self.entered})"
        share = np.asarray(self.entered[-1])
        names = self.names or tuple(f"coef[{j}]" for j in range(len(share)))
        shown = ", ".join(f"{names[j]} {share[j]:.2f}" for j in np.argsort(-share, kind="stable")[:8] if share[j])
        kind = "halves, in complementary pairs" if self.pairs else "bootstraps"
        span = f"lambda {float(self.lams[0]):.4g} to {float(self.lams[-1]):.4g}"
        return f"Stability of {self.samples} {kind}, {span}: {shown}{', ...' if np.sum(share > 0) > 8 else ''}"


def stability_selection(
    problem: Problem,
    *,
    key: Array,
    pairs: int = 50,
    lams: ArrayLike | None = None,
    num: int = 50,
    ratio: float | None = 0.1,
    **settings: Any,
) -> Stability:
    """The share of 2B halves of the rows, B complementary pairs, in whose paths each coefficient is nonzero.

    Args:
      problem: the problem, of coefficients (p,).
      key: a JAX random key. Pair b is drawn from `fold_in(key, b)`: more pairs add to fewer, and order is no matter.
      pairs: B. Each pair is two disjoint halves, floor(n/2) rows each, drawn at random.
      lams: strengths, (L,); by default `lambda_grid(problem, num=num, ratio=ratio)`, of all rows. The largest come
        first in the answer.
      num, ratio: as for `lambda_grid`; small strengths select too much to say anything.
      settings: `solver`, `tol`, `max_steps`, as for `path`.

    Rows outside a half have weight 0, so that all fits have one shape. May be jitted and batched.

    Source: Meinshausen and Bühlmann (2010), "Stability selection", JRSS B 72(4); the pairs and the bound: Shah and
    Samworth (2013), "Variable selection with error control: another look at stability selection", JRSS B 75(1).

    >>> data = datasets.diabetes()
    >>> found = stability_selection(Problem(data.X, data.y, penalty=L1(1.0)), key=jax.random.key(0), pairs=10, num=10)
    >>> [name for name, stable in zip(data.names, found.stable(0.9, most=1.0)) if stable]
    ['bmi', 'bp', 's3', 's5']
    """
    n = problem.X.shape[0]
    _check_count(pairs, "pairs")
    if n < 4:
        raise ValueError(f"X: want at least 4 rows to halve, got {n}")

    def half(k: Array) -> Array:
        place = jax.random.permutation(jax.random.fold_in(key, k // 2), n) - (k % 2) * (n // 2)
        return (place >= 0) & (place < n // 2)

    return _resampled(problem, half, 2 * pairs, True, lams, num, ratio, settings)


def bootstrap_support(
    problem: Problem,
    *,
    key: Array,
    count: int = 100,
    lams: ArrayLike | None = None,
    num: int = 50,
    ratio: float | None = None,
    **settings: Any,
) -> Stability:
    """The share of bootstrap samples, n rows drawn with replacement, in whose paths each coefficient is nonzero.

    Args:
      problem: the problem, of coefficients (p,).
      key: a JAX random key. Sample k is drawn from `fold_in(key, k)`.
      count: how many samples.
      lams, num, ratio, settings: as for `stability_selection`.

    Rows are weighted by how often they were drawn, times their own weight.

    Source: Bach (2008), "Bolasso: model consistent lasso estimation through the bootstrap", ICML.

    >>> data = datasets.diabetes()
    >>> found = bootstrap_support(Problem(data.X, data.y, penalty=L1(1.0)), key=jax.random.key(0), count=10, lams=[1.0])
    >>> dict(zip(data.names, found.frequencies[0].tolist()))["bmi"]
    1.0
    """
    n = problem.X.shape[0]
    _check_count(count, "count")

    def draws(k: Array) -> Array:
        rows = jax.random.randint(jax.random.fold_in(key, k), (n,), 0, n)
        return jnp.zeros(n, jnp.int32).at[rows].add(1)

    return _resampled(problem, draws, count, False, lams, num, ratio, settings)


def permuted_lambda_max(problem: Problem, *, key: Array, count: int = 100) -> Array:
    """lambda_max where y tells nothing of X: the rows of y, their weights and offsets in random order, (count,).

    Args:
      problem: the problem.
      key: a JAX random key. Permutation k is drawn from `fold_in(key, k)`.
      count: how many.

    Above most of these strengths a path of pure noise is still empty. Raises ValueError for a loss that holds values
    of rows (Cox), which would stay behind.

    Source: Sabourin, Valdar, Nobel (2015), "A permutation approach for selecting the penalty parameter in penalized
    model selection", Biometrics 71(4).

    >>> data = datasets.diabetes()
    >>> problem = Problem(data.X, data.y, penalty=L1(1.0))
    >>> print(jnp.max(permuted_lambda_max(problem, key=jax.random.key(0), count=20)) < lambda_max(problem))
    True
    """
    check_values(problem)
    _check_count(count, "count")
    if problem.loss.holds_rows:
        raise ValueError(f"loss: {type(problem.loss).__name__} holds values of rows, which a permutation of y leaves")
    return _permuted(problem, key, count)


@functools.partial(jax.jit, static_argnums=2)
def _permuted(problem: Problem, key: Array, count: int) -> Array:
    def one(k: Array) -> Array:
        order = jax.random.permutation(jax.random.fold_in(key, k), problem.X.shape[0])
        y, weight, offset = (
            None if a is None else a[order] for a in (problem.y, problem.sample_weight, problem.offset)
        )
        return lambda_max(dataclasses.replace(problem, y=y, sample_weight=weight, offset=offset))

    return jax.lax.map(one, jnp.arange(count))


def _resampled(
    problem: Problem,
    draw: Callable[[Array], Array],
    count: int,
    pairs: bool,
    lams: ArrayLike | None,
    num: int,
    ratio: float | None,
    settings: dict[str, Any],
) -> Stability:
    """Paths on rows weighted by draw(k), k < count, and how often each coefficient is nonzero, or has been."""
    check_values(problem)
    if problem.outputs:
        raise ValueError(f"loss: want coefficients (p,), one for each column; {type(problem.loss).__name__} has more")
    grid = lambda_grid(problem, num=num, ratio=ratio) if lams is None else jnp.asarray(lams, problem.dtype)
    grid = jnp.sort(jnp.atleast_1d(grid), descending=True)

    def some(totals: tuple[Array, Array], rows: Array) -> tuple[tuple[Array, Array], None]:
        return _counted(totals, sweep(problem, weights=rows, lams=grid, **settings).coef), None

    nothing = jnp.zeros((grid.shape[0], problem.X.shape[1]), problem.dtype)
    totals = (nothing, nothing)
    rows = jax.vmap(draw)(jnp.arange(count)).astype(problem.dtype)
    if concrete(problem, rows, grid, settings):
        size = max(1, HELD // nothing.size)
        for k in range(0, count, size):
            totals, _ = some(totals, rows[k : k + size])
    else:
        totals, _ = jax.lax.scan(some, totals, rows[:, None])
    frequencies, entered = (total / count for total in totals)
    return Stability(frequencies, entered, jnp.sum(entered, axis=1), grid, count, pairs, problem.names)


@jax.jit
def _counted(totals: tuple[Array, Array], coef: Array) -> tuple[Array, Array]:
    on = (coef != 0).astype(coef.dtype)
    return totals[0] + jnp.sum(on, axis=0), totals[1] + jnp.sum(jax.lax.cummax(on, axis=1), axis=0)


def _check_count(count: int, name: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"{name}: want a whole number of at least 1, got {count!r}")
