"""tune: hyperparameters by gradient descent on what a solution is worth."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import concrete
from l1jax.folds import weights_of
from l1jax.losses import Squared
from l1jax.problem import Problem, check_values
from l1jax.progress import progress_bar
from l1jax.result import Result, predict
from l1jax.solving import solve

Make = Callable[[dict[str, Array]], Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Tuned:
    """The best hyperparameters seen, the solution there, the criterion at every step, and the number of solves."""

    values: dict[str, Array]
    penalty: Any
    result: Result
    criterion: float
    history: np.ndarray[Any, np.dtype[np.floating[Any]]]
    solves: int

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name} {a.shape}" if a.ndim else f"{name} {float(a):.4g}" for name, a in self.values.items()
        )
        return f"Tuned({sizes}: criterion {self.history[0]:.4g} -> {self.criterion:.4g}, {self.solves} solves)"


def tune(
    problem: Problem,
    make: Make,
    start: dict[str, ArrayLike],
    *,
    criterion: str = "held-out",
    held_out: tuple[ArrayLike, ArrayLike] | Problem | None = None,
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
      start: where to start, numbers or arrays above 0: one strength, or one for each feature or group; below
        `lambda_max`, as nothing moves where all coefficients are 0. Those called "l1_ratio" lie between 0 and 1 and
        move in their logits.
      criterion: "held-out", the mean deviance of `held_out`; "folds", the mean over `folds` of that of the rows left
        out, by their weight as in `cross_validate`; "sure", Stein's unbiased estimate of the prediction error, for
        squared loss and noise of known size.
      held_out: (X, y), rows that no solution sees; or a `Problem` of them, where they have weights, offsets or a loss
        with values of their own, such as the events of `Cox`. Its penalty plays no part.
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
    >>> problem = Problem(X[:30], y[:30], penalty=L1(1.0))
    >>> found = tune(problem, lambda at: L1(at["lam"]), {"lam": 0.2}, held_out=(X[30:], y[30:]), max_steps=20)
    >>> bool(found.criterion < 0.5 * found.history[0])
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
    slope = jax.value_and_grad(lambda free, inits: measure(make(_values(free)), inits), has_aux=True)
    state = optimizer.init(free)
    best, least, mark, stale = free, np.inf, np.inf, 0
    history: list[float] = []
    inits: Any = None
    with progress_bar(progress, max_steps, "step", "tune") as advance:
        for _ in range(max_steps):
            (value, inits), grads = slope(free, inits)
            history.append(float(value))
            if history[-1] < least:
                best, least = free, history[-1]
            fell = not np.isfinite(mark) or least < mark - 1e-3 * abs(mark)
            mark, stale = (least, 0) if fell else (mark, stale + 1)
            advance(1, functools.partial(_told, least))
            if stale >= patience or not np.isfinite(history[-1]):
                break
            with jax.numpy_dtype_promotion("standard"):
                updates, state = optimizer.update(grads, state, free)
                free = jax.tree.map(jnp.clip, optax.apply_updates(free, updates), low, high)
    if not np.isfinite(least):
        raise ValueError(f"tune: the criterion is {history[0]} at the start")
    values = _values(best)
    result = solve(dataclasses.replace(problem, penalty=make(values)), tol=tol)
    return Tuned(values, make(values), result, least, np.asarray(history), each * len(history) + 1)


def _told(least: float) -> dict[str, object]:
    return {"criterion": f"{least:.4g}"}


def _free(name: str, a: Array) -> Array:
    return jnp.log(a) - (jnp.log1p(-a) if name == "l1_ratio" else 0.0)


def _values(free: dict[str, Array]) -> dict[str, Array]:
    return {name: jax.nn.sigmoid(a) if name == "l1_ratio" else jnp.exp(a) for name, a in free.items()}


def _criterion(
    problem: Problem, name: str, held_out: Any, folds: Any, noise: Any, tol: float | None
) -> tuple[Callable[[Any, Any], tuple[Array, Any]], int]:
    """The criterion of a penalty, with where to start from and to start next; how many solves it takes."""
    needs = {"held-out": ("held_out", held_out), "folds": ("folds", folds), "sure": ("noise", noise)}
    if name not in needs:
        raise ValueError(f'criterion: want "held-out", "folds" or "sure", got {name!r}')
    what, given = needs[name]
    if given is None:
        raise ValueError(f'criterion: "{name}" wants {what}=')
    n = problem.X.shape[0]
    if name == "held-out":
        out = _other_rows(problem, given)
        return (lambda penalty, init: _deviance(problem, penalty, tol, init, out)), 1
    if name == "folds":
        of = np.asarray(given)
        labels = np.unique(of)
        if of.shape != (n,) or len(labels) < 2:
            raise ValueError(f"folds: want a number of at least 2 folds for each of {n} rows, got shape {of.shape}")
        w = problem.weights()
        parts = [(weights_of(of != label, w), weights_of(of == label, w)) for label in labels]
        share = [float(jnp.sum(out)) for _, out in parts]
        if not all(0 < a < 1 for a in share):
            raise ValueError("folds: want rows of positive weight in each fold, and outside of it")

        def mean(penalty: Any, inits: Any) -> tuple[Array, Any]:
            starts = [None] * len(parts) if inits is None else inits
            each = []
            for (kept, out), init in zip(parts, starts, strict=True):
                inside, outside = (dataclasses.replace(problem, sample_weight=w) for w in (kept, out))
                each.append(_deviance(inside, penalty, tol, init, outside))
            total = sum((a * value for a, (value, _) in zip(share, each, strict=True)), jnp.zeros((), problem.dtype))
            return total, [init for _, init in each]

        return mean, len(labels)
    if not isinstance(problem.loss, Squared) or problem.loss.several or problem.sample_weight is not None:
        raise ValueError('criterion: "sure" wants squared loss of one response, and rows of one weight')
    if not float(given) > 0:
        raise ValueError(f"noise: want a number above 0, got {given}")
    variance = jnp.asarray(given, problem.dtype) ** 2
    probe = jax.random.rademacher(jax.random.key(0), (n,), problem.dtype)

    def sure(penalty: Any, init: Any) -> tuple[Array, Any]:
        """|y - fit|^2/n - noise^2 + 2*noise^2*df/n, df the trace of d fit/d y, along one random direction."""

        def fit(y: Array) -> Array:
            found = solve(dataclasses.replace(problem, y=y, penalty=penalty), tol=tol)
            return predict(found, problem.X, offset=problem.offset)

        fitted, moved = jax.jvp(fit, (problem.y,), (probe,))
        return jnp.mean((problem.y - fitted) ** 2) - variance + 2 * variance * jnp.mean(probe * moved), None

    return sure, 1


def _other_rows(problem: Problem, given: Any) -> Problem:
    """The held-out rows, which are to be of the same kind."""
    loss = type(problem.loss).__name__
    if isinstance(given, Problem):
        given = dataclasses.replace(given, penalty=problem.penalty)
    elif problem.loss.holds_rows:
        raise ValueError(f"held_out: want a Problem of these rows, as {loss} holds values of rows; got (X, y)")
    else:
        X, y = (jnp.asarray(a, problem.dtype) for a in given)
        given = dataclasses.replace(problem, X=X, y=y, sample_weight=None, offset=None, names=None)
    p, dtype = problem.X.shape[1], problem.dtype
    if given.X.shape[1] != p or given.dtype != dtype or not isinstance(given.loss, type(problem.loss)):
        other = f"{given.X.shape[1]}, {given.dtype}, {type(given.loss).__name__}"
        raise ValueError(f"held_out: want {p} columns, {dtype} and the loss {loss}, like the problem's; got {other}")
    check_values(given)
    return given


def _deviance(problem: Problem, penalty: Any, tol: float | None, init: Any, out: Problem) -> tuple[Array, Any]:
    """The mean deviance of the rows `out` at the solution; where to start the next one."""
    found = solve(dataclasses.replace(problem, penalty=penalty), tol=tol, init=init)
    eta = predict(found, out.X, offset=out.offset)
    value = 2 * out.loss.value(eta, out.loss.encode(out.y), out.weights())
    return value, jax.lax.stop_gradient((found.coef, found.intercept))
