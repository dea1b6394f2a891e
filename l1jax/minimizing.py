"""minimize: any smooth function of any tree of parameters plus a penalty, as a differentiable layer."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from l1jax._arrays import concrete, eps, floating
from l1jax.penalties import Penalty
from l1jax.penalties.base import check_penalty, stacked
from l1jax.systems import least_solution
from l1jax.transforms import fista, iterate
from l1jax.transforms.base import widest
from l1jax.transforms.masks import chosen, select, within

CHUNK = 10  # steps between two looks
PATIENCE = 100  # looks without a smaller residual, after which only rounding is left


class Minimized(NamedTuple):
    """A minimiser: its parameters, f + penalty, the residual of a proximal step, steps, whether residual <= tol."""

    params: Any
    objective: Array
    residual: Array
    steps: Array
    converged: Array


def minimize(
    f: Callable[..., Array],
    params: Any,
    penalty: Penalty,
    *,
    args: tuple[Any, ...] = (),
    mask: Any = None,
    tol: float | None = None,
    max_steps: int = 10_000,
) -> Minimized:
    """argmin over params of f(params, *args) + penalty(params), differentiable in `args` and in the penalty.

    Args:
      f: a smooth function to a scalar. Compiled programs are kept by it: define it once, outside of loops.
      params: where to start: an array, or a tree of arrays, of floating dtypes.
      penalty: the penalty of all parameters that `mask` leaves it, at its own strength.
      args: what else `f` depends on, trees of arrays. Solutions are differentiated in what is passed here, not in what
        `f` closes over (which raises an error).
      mask: which parameters are penalised: truth values in a tree like them, or a prefix of it, or a function to that.
      tol: stop where `residual` is at most this share of the largest entry of f's gradients at the start and there; by
        default 1e-8 in float64 and 1e-5 in float32.
      max_steps: the most steps, each one gradient of `f`; they are made ten at a time.

    `residual` is max |x - prox(x - t*g, t)|/t, in the units of the gradient g: 0 exactly at minimisers (where `f` or
    the penalty is not convex, at stationary points). Steps are those of `l1jax.fista`, taken back and halved where the
    objective rose. Derivatives of the minimiser, of any order, forward and reverse, are those of the equation
    x = prox(x - t*g(x), t); the second derivative of `f` enters by its products with vectors only. At kinks zeros
    stay; where the minimiser is not unique its least motion is taken. `jit` and `vmap` work.

    Source: Beck and Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sci. 2(1);
    derivatives as in Bertrand et al. (2022), "Implicit differentiation for fast hyperparameter selection in non-smooth
    convex learning", JMLR 23.

    >>> import jax, jax.numpy as jnp
    >>> def f(w, y):
    ...     return jnp.sum((w - y) ** 2) / 2
    >>> minimize(f, jnp.zeros(2), L1(1.0), args=(jnp.array([3.0, 0.5]),)).params.round(3)
    Array([2., 0.], dtype=float32)
    >>> slope = jax.grad(lambda lam: minimize(f, jnp.zeros(2), L1(lam), args=(jnp.array([3.0, 0.5]),)).params[0])
    >>> print(f"{slope(1.0):.3f}")
    -1.000
    """
    check_penalty(penalty)
    if not callable(f):
        raise TypeError(f"f: want a function of the parameters, got {f!r}")
    if not isinstance(args, tuple):
        raise TypeError(f"args: want a tuple of what f takes after the parameters, got {type(args).__name__}")
    start = jax.tree.map(lambda a: jax.lax.stop_gradient(floating(a)), params)
    if not jax.tree.leaves(start):
        raise ValueError("params: want at least one array")
    out = jax.eval_shape(f, start, *args)
    if getattr(out, "shape", None) != ():
        raise TypeError(f"f: want a function to a scalar, got {out}")
    dtype = widest(start)
    if tol is None:
        tol = 1e-8 if dtype == jnp.float64 else 1e-5
    if concrete(tol, max_steps) and not (float(tol) >= 0 and int(max_steps) >= 0):
        raise ValueError(f"tol, max_steps: want numbers of at least 0, got {tol} and {max_steps}")
    penalised = jax.tree.map(bool, chosen(mask, start))
    where = tuple(jax.tree.leaves(penalised)), jax.tree.structure(penalised)
    penalty = jax.tree.map(lambda a: jnp.asarray(a, dtype), penalty)
    limits = jnp.asarray(tol, dtype), jnp.asarray(max_steps, jnp.int32)
    return _minimized(f, where, start, penalty, args, *limits)[0]


def proximal_step(f: Callable[..., Array], step: Any) -> Callable[[Any, tuple[Penalty, Any]], Any]:
    """w -> prox(w - step * g(w), step), as a function of (params, (penalty, args)): minimisers are its fixed points.

    Args:
      f: a smooth function of (params, args) to a scalar, g its gradient.
      step: the step, at most 1/L for a gradient with Lipschitz constant L.

    What optimistix's `fixed_point` wants, which differentiates the fixed point: its minimisers and least-squares
    solvers differentiate g = 0 instead, which is not what a penalised minimiser satisfies.

    >>> import jax.numpy as jnp
    >>> step = proximal_step(lambda w, y: jnp.sum((w - y) ** 2) / 2, 1.0)
    >>> step(jnp.zeros(2), (L1(1.0), jnp.array([3.0, 0.5])))
    Array([2., 0.], dtype=float32)
    """

    def move(params: Any, given: tuple[Penalty, Any]) -> Any:
        penalty, args = given
        ahead = jax.tree.map(lambda w, g: w - step * g, params, jax.grad(f)(params, args))
        return penalty.prox(ahead, step)

    return move


class _Problem(NamedTuple):
    """f + penalty as functions of the parameters."""

    f: Callable[..., Array]
    where: Any
    penalty: Any
    args: Any

    @property
    def mask(self) -> Any:
        leaves, tree = self.where
        return jax.tree.unflatten(tree, leaves)

    def gradient(self, params: Any) -> Any:
        return jax.grad(self.f)(params, *self.args)

    def objective(self, params: Any) -> Array:
        value = self.f(params, *self.args)
        return value + self.penalty.value(select(self.mask, params)).astype(value.dtype)

    def prox(self, v: Any, step: Array) -> Any:
        return within(self.mask, self.penalty.prox, v, jax.tree.map(lambda a: step.astype(a.dtype), v))

    def bent(self, params: Any, along: Any) -> Any:
        """The second derivative of f times a vector."""
        return jax.jvp(self.gradient, (params,), (along,))[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _minimized(
    f: Any, where: Any, start: Any, penalty: Any, args: Any, tol: Array, max_steps: Array
) -> tuple[Minimized, Array]:
    return _search(f, where, start, penalty, args, tol, max_steps)


@functools.partial(_minimized.defjvp, symbolic_zeros=True)
def _minimized_jvp(f: Any, where: Any, primals: Any, tangents: Any) -> Any:
    found, step = _minimized(f, where, *primals)
    given = primals[1:3]
    dots = [None if isinstance(dot, SymbolicZero) else dot for dot in jax.tree.leaves(tangents[1:3])]
    dx, dobjective = _moved(f, where, given, dots, found.params, step)
    steps, converged = (np.zeros(a.shape, jax.dtypes.float0) for a in (found.steps, found.converged))
    moved = Minimized(dx, dobjective, jnp.zeros_like(step), steps, converged)  # type: ignore[arg-type]
    return (found, step), (moved, jnp.zeros_like(step))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _moved(f: Any, where: Any, given: Any, dots: list[Any], x: Any, step: Array) -> tuple[Any, Array]:
    """How the minimiser and the objective move with the leaves of (penalty, args) that have a tangent."""
    leaves, tree = jax.tree.flatten(given)
    at = [i for i, dot in enumerate(dots) if dot is not None]
    moving, along = [leaves[i] for i in at], [dots[i] for i in at]

    def posed(moved: list[Any]) -> _Problem:
        parts = dict(zip(at, moved, strict=True))
        return _Problem(f, where, *jax.tree.unflatten(tree, [parts.get(i, a) for i, a in enumerate(leaves)]))

    here = posed(moving)
    flat, whole = ravel_pytree(x)
    t = step.astype(flat.dtype)
    slope, turned = jax.jvp(lambda moved: ravel_pytree(posed(moved).gradient(x))[0], (moving,), (along,))
    v = flat - t * slope

    def prox(problem: _Problem, v: Array) -> Array:
        return ravel_pytree(problem.prox(whole(v), step))[0]

    _, drift = jax.jvp(lambda moved: prox(posed(moved), v), (moving,), (along,))
    _, spread = jax.linearize(lambda v: prox(here, v), v)

    def bent(d: Array) -> Array:
        return t * ravel_pytree(here.bent(x, whole(d)))[0]

    # dx = drift + J y, y = dx - bent(dx) - t * turned, J symmetric.
    def system(y: Array) -> Array:
        d = spread(y)
        return spread(y - d + bent(d))

    y = least_solution(system, spread(drift - bent(drift) - t * turned))
    dx = whole(drift + spread(y))
    _, dobjective = jax.jvp(lambda moved, x: posed(moved).objective(x), (moving, x), (along, dx))
    return dx, dobjective


class _State(NamedTuple):
    """Parameters and inner state of FISTA at a rate; the best point's objective and residual; steps and looks."""

    params: Any
    inner: Any
    rate: Array
    objective: Array
    residual: Array
    goal: Array
    least: Array
    steps: Array
    stale: Array
    going: Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(
    f: Any, where: Any, start: Any, penalty: Any, args: Any, tol: Array, max_steps: Array
) -> tuple[Minimized, Array]:
    problem = _Problem(f, where, penalty, args)
    dtype = tol.dtype

    def transformation(rate: Array) -> optax.GradientTransformationExtraArgs:
        return fista(rate, penalty, mask=problem.mask)

    def largest(tree: Any) -> Array:
        return jnp.max(stacked([jnp.max(jnp.abs(a), initial=0.0) for a in jax.tree.leaves(tree)])).astype(dtype)

    def look(x: Any, rate: Array) -> tuple[Array, Array, Array]:
        """The objective, the residual, and the gradient's largest entry."""
        slope = problem.gradient(x)
        ahead = jax.tree.map(lambda a, g: a - rate.astype(a.dtype) * g, x, slope)
        off = largest(jax.tree.map(jnp.subtract, x, problem.prox(ahead, rate))) / rate
        return problem.objective(x).astype(dtype), off, largest(slope)

    def body(state: _State) -> _State:
        tx = transformation(state.rate)

        def step(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            params, inner = carry
            updates, inner = tx.update(problem.gradient(params), inner, params)
            return optax.apply_updates(params, updates), inner

        params, inner = jax.lax.fori_loop(0, CHUNK, step, (state.params, state.inner))
        x, before = iterate(inner, params), iterate(state.inner, state.params)
        objective, off, slope = look(x, state.rate)
        better = objective <= state.objective + 8 * eps(dtype) * jnp.abs(state.objective)
        afresh = before, tx.init(before), state.rate / 2, state.objective, state.residual
        ahead = params, inner, state.rate, objective, off
        params, inner, rate, objective, off = jax.tree.map(lambda a, b: jnp.where(better, a, b), ahead, afresh)
        least = jnp.minimum(state.least, off)
        stale = jnp.where(least < state.least, 0, state.stale + 1)
        goal = jnp.where(better, jnp.maximum(first, tol * slope), state.goal)
        steps = state.steps + CHUNK
        going = ~(off <= goal) & (steps < max_steps) & (stale < PATIENCE)
        return _State(params, inner, rate, objective, off, goal, least, steps, stale, going)

    rate = 1 / _curvature(problem, start, dtype)
    objective, off, slope = look(start, rate)
    first = tol * slope
    none = jnp.zeros((), jnp.int32)
    objective = jnp.where(jnp.isnan(objective), jnp.inf, objective)
    inner = transformation(rate).init(start)
    going = ~(off <= first) & (max_steps > 0)
    end = jax.lax.while_loop(
        lambda state: state.going, body, _State(start, inner, rate, objective, off, first, off, none, none, going)
    )
    x = iterate(end.inner, end.params)
    converged = end.residual <= end.goal
    return Minimized(x, end.objective, end.residual, end.steps, converged), end.rate


def _curvature(problem: _Problem, at: Any, dtype: Any) -> Array:
    """The largest second derivative at a point, about, by power iteration; 1 where it is 0."""
    flat, whole = ravel_pytree(at)
    x = 1 + jax.random.uniform(jax.random.key(0), flat.shape, flat.dtype)

    def body(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        x, _ = carry
        y = ravel_pytree(problem.bent(at, whole(x / jnp.linalg.norm(x))))[0]
        size = jnp.linalg.norm(y)
        return jnp.where(size > 0, y, x), size

    _, size = jax.lax.fori_loop(0, 20, body, (x, jnp.zeros((), flat.dtype)))
    return jnp.where((size > 0) & jnp.isfinite(size), 1.1 * size, 1.0).astype(dtype)
