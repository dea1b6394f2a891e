"""tune: hyperparameters by gradient descent on what a solution is worth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax.bars import bar
from l1jax.losses import Squared
from l1jax.problem import Problem, check_values
from l1jax.result import Result
from l1jax.solving import solve

Make = Callable[[dict[str, Array]], Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Tuned:
    """The best hyperparameters seen, the solution there, and the criterion at every solve."""

    values: dict[str, Array]
    penalty: Any
    result: Result
    criterion: Array
    history: Array
    solves: int

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {a.shape}" if a.ndim else f"{name} {float(a):.4g}" for name, a in self.values.items())
        return f"Tuned({sizes}: criterion {float(self.history[0]):.4g} -> {float(self.criterion):.4g}, {self.solves} solves)"


def tune(
    problem: Problem,
    make: Make,
    start: dict[str, ArrayLike],
    *,
    criterion: str = "held-out",
    held_out: tuple[ArrayLike, ArrayLike] | None = None,
    folds: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    optimizer: optax.GradientTransformation | None = None,
    max_steps: int = 100,
    patience: int = 10,
    span: float = 1e3,
    tol: float | None = None,
    progress: bool = False,
) -> Tuned:
    """Hyperparameters at which solutions are worth most, by gradient descent through `solve`, in their logarithms.

    Args:
      problem: the data; its penalty is replaced.
      make: a function from a dictionary of hyperparameters like `start` to a penalty: `lambda at: L1(at["lam"])`.
      start: where to start, numbers or arrays above 0: one strength, or one for each feature or group. Those called
        "l1_ratio" lie between 0 and 1 and move in their logits.
      criterion: "held-out", the mean deviance of `held_out`; "folds", the mean over `folds` of that of the rows left
        out; "sure", Stein's unbiased estimate of the prediction error, for squared loss and noise of known size.
      held_out: (X, y), rows that no solution sees.
      folds: a fold number for each row, (n,).
      noise: the standard deviation of the noise, above 0.
      optimizer: any optax transformation; by default `optax.adam(0.1)`.
      max_steps: the most steps, one gradient each: a solve, or one for each fold.
      patience: stop when so many steps have not lowered the least criterion by a thousandth of it.
      span: hyperparameters are kept within this factor of where they start.
      tol: as for `solve`.
      progress: whether to show a progress bar (tqdm).

    The least criterion seen counts, not the last: its hyperparameters, and the solution on all of the problem's rows.
    The criterion is piecewise smooth, so that steps may raise it; with many hyperparameters it is optimistic, and a
    third set of rows tells what was gained. Raises ValueError for what does not fit, and under tracing.

    Source: Bertrand et al. (2022), "Implicit differentiation for fast hyperparameter selection in non-smooth convex
    learning", JMLR 23; Deledalle, Vaiter, Fadili, Peyré (2014), "Stein Unbiased GrAdient estimator of the Risk
    (SUGAR) for multiple parameter selection", SIAM J. Imaging Sci. 7(4), whose finite differences are exact here.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> y = X @ [1.0, 0, 0, 0, 0]
    >>> problem = Problem(X[:30], y[:30] + 0.1 * X[:30, 4], penalty=L1(1.0))
    >>> found = tune(problem, lambda at: L1(at["lam"]), {"lam": 0.5}, held_out=(X[30:], y[30:]), max_steps=40)
    >>> bool(found.criterion < 0.1 * found.history[0])
    True
    """
    check_values(problem)
    if not concrete(problem, start):
        raise ValueError("tune: descends in steps driven from the host; it can't be jitted, batched or differentiated")
    measure, each = _criterion(problem, criterion, held_out, folds, noise, tol)
    first = {name: jnp.asarray(a, problem.dtype) for name, a in start.items()}
    for name, a in first.items():
        high = 1 if name == "l1_ratio" else np.inf
        if not np.all((np.asarray(a) > 0) & (np.asarray(a) < high)):
            raise ValueError(f"start: want {name} above 0{' and below 1' if high == 1 else ''}, got {a}")
    if not span > 1:
        raise ValueError(f"span: want a number above 1, got {span}")
    free = {name: _free(name, a) for name, a in first.items()}
    low, high = (jax.tree.map(lambda a, way=way: a + way * np.log(span), free) for way in (-1, 1))
    optimizer = optax.adam(0.1) if optimizer is None else optimizer
    slope = jax.value_and_grad(lambda free: measure(make(_values(free))))
    state = optimizer.init(free)
    best, least, mark, stale, history = free, np.inf, np.inf, 0, []
    with bar(progress, max_steps, "step", "tune") as advance:
        for _ in range(max_steps):
            value, grads = slope(free)
            history.append(float(value))
            if history[-1] < least:
                best, least = free, history[-1]
            stale = 0 if least < mark - 1e-3 * abs(mark) or not np.isfinite(mark) else stale + 1
            mark = least if stale == 0 else mark
            advance(1, criterion=f"{least:.4g}")
            if stale >= patience or not np.isfinite(history[-1]):
                break
            grads = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), grads)
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(grads, state, free)
                free = optax.apply_updates(free, updates)
            free = jax.tree.map(jnp.clip, free, low, high)
    if not np.isfinite(least):
        raise ValueError(f"tune: the criterion is {history[-1]} at the start")
    penalty = make(_values(best))
    result = solve(dataclasses.replace(problem, penalty=penalty), tol=tol)
    return Tuned(_values(best), penalty, result, jnp.asarray(least), jnp.asarray(history), each * len(history) + 1)


def _free(name: str, a: Array) -> Array:
    return jnp.log(a) - (jnp.log1p(-a) if name == "l1_ratio" else 0.0)


def _values(free: dict[str, Array]) -> dict[str, Array]:
    return {name: jax.nn.sigmoid(a) if name == "l1_ratio" else jnp.exp(a) for name, a in free.items()}


def _criterion(
    problem: Problem, name: str, held_out: Any, folds: Any, noise: Any, tol: float | None
) -> tuple[Callable[[Any], Array], int]:
    """The criterion as a function of the penalty, and how many solves it takes."""
    needs = {"held-out": ("held_out", held_out), "folds": ("folds", folds), "sure": ("noise", noise)}
    if name not in needs:
        raise ValueError(f'criterion: want "held-out", "folds" or "sure", got {name!r}')
    what, given = needs[name]
    if given is None:
        raise ValueError(f'criterion: "{name}" wants {what}=')
    if name == "held-out":
        X, y = (jnp.asarray(a, problem.dtype) for a in given)
        return lambda penalty: _deviance(problem, penalty, tol, X, y, None, None), 1
    n = problem.X.shape[0]
    if name == "folds":
        of = np.asarray(given)
        labels = np.unique(of)
        if of.shape != (n,) or len(labels) < 2:
            raise ValueError(f"folds: want a number of at least 2 folds for each of {n} rows, got shape {of.shape}")
        parts = [_split(problem, of == label) for label in labels]
        share = [float(np.mean(of == label)) for label in labels]
        return lambda penalty: sum(a * _deviance(p, penalty, tol, *out) for a, (p, *out) in zip(share, parts, strict=True)), len(labels)
    if not isinstance(problem.loss, Squared) or problem.sample_weight is not None:
        raise ValueError("criterion: \"sure\" wants squared loss and rows of one weight")
    if not float(given) > 0:
        raise ValueError(f"noise: want a number above 0, got {given}")
    variance = jnp.asarray(given, problem.dtype) ** 2
    probe = jax.random.rademacher(jax.random.key(0), (n,), problem.dtype)

    def sure(penalty: Any) -> Array:
        """|y - fit|^2/n - noise^2 + 2*noise^2*df/n, df the trace of d fit/d y, along one random direction."""

        def fit(y: Array) -> Array:
            found = solve(dataclasses.replace(problem, y=y, penalty=penalty), tol=tol)
            offset = 0.0 if problem.offset is None else problem.offset
            return problem.X @ found.coef + found.intercept + offset

        fitted, moved = jax.jvp(fit, (problem.y,), (probe,))
        return jnp.mean((problem.y - fitted) ** 2) - variance + 2 * variance * jnp.mean(probe * moved)

    return sure, 1
