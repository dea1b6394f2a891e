"""path: the solutions at many strengths in one call."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from l1jax._arrays import as_dtype, concrete
from l1jax.engines import ActiveSet, Engine
from l1jax.grid import check_lams, check_one_strength, descending, grid_of
from l1jax.loop import minimise
from l1jax.minimum import Controls, Minimum
from l1jax.penalties import Penalty
from l1jax.problem import Problem, check_values
from l1jax.progress import progress_bar
from l1jax.result import Result
from l1jax.solving import choose_engine, make_controls, starting_point
from l1jax.standard_form import StandardForm, prepared

CHUNKS = 20  # how often a progress bar moves, at most


def path(
    problem: Problem,
    *,
    lams: ArrayLike | None = None,
    num: int = 100,
    ratio: float | None = None,
    mode: str = "auto",
    solver: Any = "auto",
    tol: float | None = None,
    max_steps: int | None = None,
    max_dev_ratio: float | None = None,
    max_nonzeros: int | None = None,
    progress: bool = False,
    partial: bool = False,
) -> Result:
    """argmin of the problem's objective at every strength lambda: a whole regularisation path in one call.

    Args:
      problem: the problem; `penalty.with_lam(lam)` takes the place of its penalty. Traced leaves are welcome.
      lams: the strengths, (L,), in any order; the answers come in the same order. By default
        `lambda_grid(problem, num=num, ratio=ratio)`.
      num, ratio: length of the default grid, and its last strength over its first.
      mode: "warm" solves from the largest strength down, each from the last solution; "vmap" solves all at once;
        "auto" is "warm" on CPUs, where lanes in step wait for the slowest, and "vmap" on GPU and TPU: there, outside
        of tracing, the strengths that are not done go on as a smaller batch. The answers agree to `tol`.
      solver, tol, max_steps: as for `solve`, for each strength.
      max_dev_ratio: stop after the first strength that explains this share of the deviance (glmnet stops at 0.999).
      max_nonzeros: stop after the first strength with at least so many nonzero coefficients. Neither is on by
        default, in any mode. Entries after the stop are NaN with `converged=False`; mode "vmap" solves them all the
        same, and so saves no time by stopping.
      progress: whether to show a progress bar (tqdm); the lambdas are then solved in chunks driven from the host.
      partial: whether an interrupt from the keyboard gives what was reached until then, the rest NaN with
        `converged=False`, rather than ending the call; in chunks too.

    Every array of the result has a leading axis of lambdas. Raises ValueError for bad values, for a strength that is
    an array (use `Factors`), and for `progress` or `partial` under tracing.

    Source: Friedman, Hastie, Tibshirani (2010), "Regularization paths for generalized linear models via coordinate
    descent", J. Stat. Software 33(1), section 2.5.

    >>> problem = Problem([[1.0], [2.0], [3.0]], [1.0, 2.0, 4.0], penalty=L1(1.0))
    >>> print([f"{w:.3f}" for w in path(problem, lams=[1.0, 0.5, 0.1]).coef[:, 0]])
    ['0.000', '0.750', '1.350']
    """
    check_values(problem)
    check_one_strength(problem.penalty)
    engine = choose_engine(problem, solver)
    if mode == "auto":
        mode = "warm" if jax.default_backend() == "cpu" else "vmap"
    if mode not in ("warm", "vmap"):
        raise ValueError(f'mode: want "auto", "warm" or "vmap", got {mode!r}')
    if mode == "vmap" and isinstance(engine, ActiveSet):
        engine = engine.traced
    form, penalty = prepared(problem)
    controls = make_controls(problem, engine, tol, max_steps, (max_dev_ratio, max_nonzeros))
    if lams is None:
        strengths = grid_of(problem.X.shape, form, penalty, num, ratio)
        ordered, back = strengths, None
    else:
        strengths = check_lams(lams, problem)
        ordered, back = descending(strengths)
    z, b = starting_point(problem, form, None)
    start = (z[None], b[None])
    if progress or partial:
        found = _in_chunks(engine, mode, form, penalty, ordered, start, controls, progress, partial)
    else:
        found = minimise(engine, mode, form, penalty, ordered, start, controls)
    if back is not None:
        found = jax.tree.map(lambda a: a[back], found)
    return Result(**found.told, lams=as_dtype(strengths, problem.dtype), names=problem.names)


def _in_chunks(
    engine: Engine | ActiveSet,
    mode: str,
    form: StandardForm,
    penalty: Penalty,
    lams: Array,
    start: tuple[Array, Array],
    controls: Controls,
    progress: bool,
    partial: bool,
) -> Minimum:
    """The same, a chunk of lambdas at a time, each from the last solution before it, with a progress bar."""
    if not concrete(form, penalty, lams, controls):
        raise ValueError("progress, partial: chunks can't be driven under jit, vmap or grad; pass False")
    size = -(-lams.shape[0] // CHUNKS)
    padded = jnp.pad(lams, (0, -lams.shape[0] % size), mode="edge")  # one shape, one compilation
    parts: list[Minimum] = []
    with progress_bar(progress, lams.shape[0], "lambda", "path") as advance:
        try:
            for k in range(0, lams.shape[0], size):
                part = minimise(engine, mode, form, penalty, padded[k : k + size], start, controls)
                jax.block_until_ready(part)  # type: ignore[no-untyped-call]
                parts.append(part)
                start = (part.z[-1:], part.b[-1:])
                advance(min(size, lams.shape[0] - k), functools.partial(_told, part))
        except KeyboardInterrupt:
            if not partial or not parts:
                raise
    missing = len(padded) // size - len(parts)
    unreached = jax.tree.map(_unknown, parts[-1])
    unreached.told["tol"] = parts[-1].told["tol"]
    return jax.tree.map(lambda *a: jnp.concatenate(a)[: lams.shape[0]], *parts, *[unreached] * missing)


def _unknown(a: Array) -> Array:
    return jnp.full_like(a, jnp.nan if jnp.issubdtype(a.dtype, jnp.floating) else 0)


def _told(part: Minimum) -> dict[str, object]:
    return {"nonzeros": int(part.told["df"][-1]), "gap": f"{float(jnp.max(part.told['gap'])):.0e}"}
