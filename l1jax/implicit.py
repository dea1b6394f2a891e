"""Derivatives of solutions, by the implicit function theorem where the penalty is smooth.

At a minimiser the directions that move it (the support away from kinks and bounds; tied coefficients together; the
matrices of one rank) satisfy smooth equations; differentiating them gives a symmetric system on those directions
alone, non-singular where the solution is unique. What does not move stays put.

Penalties that act on each coefficient alone say which of them move: only their columns of X are read. For the others
the proximal map does: z = prox(z - g(z)), whose derivative J is symmetric, and 0 off the directions that move.

At kinks (a coefficient that is 0 though its slope is at the threshold) the derivative is that of the side on which the
zero stays. Where a solution is not unique (equal columns, more coefficients than rows), it is the least one: the
system's least-norm solution, its flat directions left alone.

Source: Bertrand, Klopfenstein, Massias, Blondel, Vaiter, Gramfort, Salmon (2022), "Implicit differentiation for fast
hyperparameter selection in non-smooth convex learning", JMLR 23, theorem 9.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree

from l1jax._arrays import along, concrete
from l1jax.design import HIGHEST
from l1jax.penalties import Elementwise
from l1jax.standard_form import Only, StandardForm, in_raw_units
from l1jax.systems import DENSE, least_inverse, least_solution, matrix_of

FEW = 128  # coefficients of which a traced system is made, where no more of them move
HELD = 2048  # the largest system whose inverse is taken from an engine that holds it

Point = tuple[Array, Array, Array]  # z, b and the loss there
Pose = Callable[[Any], tuple[StandardForm, Any]]


class Motion(NamedTuple):
    """How a penalty lets z move: dz = drift + spread(y), for the y at which own(y) + spread(slope's motion) = 0."""

    spread: Callable[[Array], Array]
    own: Callable[[Array], Array]
    drift: Array
    force: Array


class Outlook(NamedTuple):
    """What is known of how minimisers move before anything does: made with them, where values may be seen."""

    may_move: Array | None  # which coefficients are not 0 or move, at any strength, (p,), if that is for later to sort
    ids: Array | None  # the places of these, padded with p; None for all coefficients
    inverses: Array | None  # those of the systems at each strength, (L, m, m)


def outlook(given: Any, at: Point, inverse: Any) -> Outlook:
    """The outlook at minimisers: `given` and `at` are those of `solution_tangents`, `inverse` that of `Minimum`."""
    p = given[0].shape[1]
    if p <= FEW or not isinstance(given[1], Elementwise):  # it isn't worth to look at some alone
        return Outlook(None, None, _inverses(given, at, None))
    may_move = _moving(given, at[0])
    if not concrete(may_move):
        return Outlook(may_move, None, None)
    on = np.flatnonzero(np.asarray(may_move))
    size = 32
    while size < len(on):
        size *= 2
    ids = None if size >= p else jnp.asarray(np.pad(on, (0, size - len(on)), constant_values=p), jnp.int32)
    held = _held(inverse, on, p if ids is None else size, at)
    return Outlook(None, ids, _inverses(given, at, ids) if held is None else held)


def solution_tangents(given: Any, given_dot: list[Any], at: Point, known: Outlook) -> tuple[Point, dict[str, Array]]:
    """How minimisers and their losses, `at` = (z, b, loss), move when `given` moves by `given_dot`; and what they tell.

    `given` is (form, penalty, lams), lams (L,) or None for the penalty's own strength: then z is (p,), else (L, p).
    Of its leaves those that do not move have None or a `SymbolicZero` in `given_dot`, and cost nothing.
    """
    dots = [None if isinstance(dot, SymbolicZero) else dot for dot in given_dot]
    may_move, ids, inverses = known
    if may_move is None:
        tangents = _anew if concrete(given, at) else _tangents
        return tangents(given, dots, at, ids, inverses)
    return jax.lax.cond(
        jnp.sum(may_move, dtype=jnp.int32) <= FEW,
        lambda: _tangents(given, dots, at, _listed(may_move), None),
        lambda: _tangents(given, dots, at, None, None),
    )


@jax.jit
def _moving(given: Any, z: Array) -> Array:
    form, penalty, lams = given
    z = z if lams is not None else z[None]

    def at(lam: Array | None, z: Array) -> Array:
        return _smooth(*_posed(form, penalty, lam), z)[0] | (z != 0)

    at_all = jax.vmap(at, in_axes=(None if lams is None else 0, 0))(lams, z)
    return jnp.any(at_all, axis=(0, *range(2, at_all.ndim)))


def _listed(chosen: Array) -> Array:
    """The places of the first true entries of (p,), padded with p."""
    found, places = jax.lax.top_k(jax.lax.stop_gradient(chosen).astype(jnp.int32), FEW)
    return jnp.where(found > 0, places, chosen.shape[0])


@jax.jit
@jax.jit  # JAX looks through the outer program anew at each gradient: it is to hold one call
def _tangents(
    given: Any, dots: list[Any], point: Point, ids: Array | None, inverses: Array | None
) -> tuple[Point, dict[str, Array]]:
    """The same, of the coefficients `ids` alone; all others are 0 and stay 0."""
    leaves, tree = jax.tree.flatten(given)
    at = [i for i, dot in enumerate(dots) if dot is not None]
    primals, tangents = ([a[k] for k in at] for a in (leaves, dots))

    def whole(moved: list[Array]) -> Any:
        """(form, penalty, lams) of the leaves that move."""
        parts = dict(zip(at, moved, strict=True))
        return jax.tree.unflatten(tree, [parts.get(i, leaf) for i, leaf in enumerate(leaves)])

    def lane(i: Array, z: Array, b: Array, inverse: Array | None) -> tuple[Array, ...]:
        return _moved(lambda moved: _near(whole(moved), i, ids), primals, tangents, z, b, inverse)

    z, b, loss = _as_lanes(given, point)
    lanes = jnp.arange(len(z), dtype=jnp.int32)
    dz, db, dloss, dobjective = jax.vmap(lane)(lanes, _at(ids, z), b, inverses)
    if ids is not None:
        dz = jnp.zeros((len(dz), z.shape[1], *dz.shape[2:]), dz.dtype).at[:, ids].add(dz, mode="drop")

    def raw(moved: list[Array], *point: Array) -> tuple[Array, Array, Array]:
        form, penalty, _ = whole(moved)
        return jax.vmap(functools.partial(in_raw_units, form, penalty))(*point)

    _, (coef, intercept, share) = jax.jvp(raw, (primals, z, b, loss), (tangents, dz, db, dloss))
    told = {"coef": coef, "intercept": intercept, "objective": dobjective, "dev_ratio": share}
    moves = (dz, db, dloss), told
    return moves if given[2] is not None else jax.tree.map(lambda a: a[0], moves)


# For gradients outside of tracing: where nothing is kept between the ways there and back, JAX hands over less.
_anew = jax.jit(jax.checkpoint(_tangents))


def _held(inverse: Any, on: Any, size: int, at: Point) -> Any:
    """The inverse that an engine holds, if it is that of the coefficients `on`, as `_inverses` would have it."""
    if inverse is None or size > HELD or not np.array_equal(np.sort(inverse[0]), on):
        return None
    ids, H = inverse
    order, whole = np.argsort(ids), np.eye(size + at[1].size, dtype=H.dtype)
    places = on if size == at[0].size else np.arange(len(on))
    whole[np.ix_(places, places)] = H[np.ix_(order, order)]
    return jnp.asarray(whole[None])


def _inverses(given: Any, point: Point, ids: Any) -> Any:
    """The inverses of the systems, if small and values can be seen: by NumPy, like engines that are driven from there.

    JAX's own factorisations are SciPy's, whose threads, once called, take the processors from NumPy's for a while.
    """
    z, b, _ = point
    count, p = 1 if given[2] is None else len(given[2]), given[0].shape[1]
    size = (z.size // p * (p if ids is None else len(ids)) + b.size) // count
    if size > DENSE or not concrete(given, point):
        return None
    return jnp.asarray(np.stack([least_inverse(matrix) for matrix in np.asarray(_matrices(given, point, ids))]))


@jax.jit
def _matrices(given: Any, point: Point, ids: Array | None) -> Array:
    """The systems' matrices (L, m, m)."""

    def lane(i: Array, z: Array, b: Array) -> Array:
        equations = _equations(lambda _: _near(given, i, ids), [], [], z, b)
        return matrix_of(equations.system, equations.target.size, z.dtype)

    z, b, _ = _as_lanes(given, point)
    return jax.vmap(lane)(jnp.arange(len(z), dtype=jnp.int32), _at(ids, z), b)


def _as_lanes(given: Any, point: Point) -> Point:
    """The point with its axis of strengths."""
    return point if given[2] is not None else jax.tree.map(lambda a: a[None], point)


def _at(ids: Array | None, z: Array) -> Array:
    return z if ids is None else z.at[:, ids].get(mode="fill", fill_value=0)


def _near(given: Any, i: Array, ids: Array | None) -> tuple[StandardForm, Any]:
    """The problem posed at strength i, of the coefficients `ids` alone."""
    form, penalty, lams = given
    form, penalty = _posed(form, penalty, None if lams is None else lams[i])
    return (form, penalty) if ids is None else (form.only(ids), Only(penalty, ids, given[0].shape[1]))


def _posed(form: StandardForm, penalty: Any, lam: Array | None) -> tuple[StandardForm, Any]:
    return form, form.units(penalty if lam is None else penalty.with_lam(lam))


class Equations(NamedTuple):
    """system(unknown) = target, symmetric, and what an unknown says of how (z, b) move."""

    system: Callable[[Array], Array]
    target: Array
    moves: Callable[[Array], tuple[Array, Array]]


def _equations(pose: Pose, given: Any, given_dot: Any, z: Array, b: Array) -> Equations:
    """For how one minimiser moves; `pose(given)` is the problem posed, in the units of z."""
    form, penalty = pose(given)

    def slopes(given: Any) -> tuple[Array, Array]:
        form, _ = pose(given)
        return _pull(form, form.loss.gradient(form.eta(z, b), form.y, form.s))

    (slope, _), (dslope, dsum) = jax.jvp(slopes, (given,), (given_dot,))
    motion = _alone if isinstance(penalty, Elementwise) else _together
    spread, own, drift, force = motion(pose, given, given_dot, z, slope)
    eta = form.eta(z, b)

    def bent(dz: Array, db: Array) -> tuple[Array, Array]:
        deta = form.design.dot(dz) + (db[None] if form.intercept else 0.0)
        return _pull(form, form.loss.bent(deta, eta, form.y, form.s))

    def system(unknown: Array) -> Array:
        y, db = parts(unknown)
        hz, hb = bent(spread(y), db)
        return ravel_pytree((own(y) + spread(hz), hb if form.intercept else db))[0]

    def moves(unknown: Array) -> tuple[Array, Array]:
        y, db = parts(unknown)
        return drift + spread(y), db

    hz, hb = bent(drift, jnp.zeros_like(b))
    # One vector: custom_linear_solve can't be transposed where a part of its right-hand side is constant.
    target, parts = ravel_pytree((spread(drift - force - dslope - hz), -dsum - hb))
    return Equations(system, target, moves)


def _moved(
    pose: Pose, given: Any, given_dot: Any, z: Array, b: Array, inverse: Array | None
) -> tuple[Array, Array, Array, Array]:
    """How one minimiser, its loss and its objective move; `inverse` is that of its system, if known."""
    system, target, moves = _equations(pose, given, given_dot, z, b)
    dz, db = moves(least_solution(system, target, inverse))

    def values(given: Any, z: Array, b: Array) -> tuple[Array, Array]:
        form, penalty = pose(given)
        loss = form.loss.value(form.eta(z, b), form.y, form.s)
        return loss, loss + penalty.value(z)

    _, (dloss, dobjective) = jax.jvp(values, (given, z, b), (given_dot, dz, db))
    return dz, db, dloss, dobjective


def _pull(form: StandardForm, v: Array) -> tuple[Array, Array]:
    """What a derivative of the loss in eta, v, is in (z, b)."""
    total = jnp.sum(v, axis=0)
    return form.design.tdot(v), total if form.intercept else jnp.zeros_like(total)


def _smooth(form: StandardForm, penalty: Elementwise, z: Array) -> tuple[Array, Array]:
    """Which coefficients move, and the penalty's second derivative there."""
    _, bend = jax.jvp(penalty.slope, (z,), (jnp.ones_like(z),))
    return penalty.smooth(z) & (along(form.design.norm > 0, z) | (bend > 0)), bend


def _alone(pose: Pose, given: Any, given_dot: Any, z: Array, slope: Array) -> Motion:
    """Each coefficient for itself: it moves if the penalty is smooth there, or with the bound that it sits on."""
    _, force = jax.jvp(lambda given: pose(given)[1].slope(z), (given,), (given_dot,))
    _, carried = jax.jvp(lambda given: pose(given)[1].project(z), (given,), (given_dot,))
    moves, bend = _smooth(*pose(given), z)

    def spread(d: Array) -> Array:
        return jnp.where(moves, d, 0.0)

    def own(d: Array) -> Array:
        return jnp.where(moves, bend * d, d)

    return Motion(spread, own, jnp.where(moves | (z == 0), 0.0, carried), force)


def _together(pose: Pose, given: Any, given_dot: Any, z: Array, slope: Array) -> Motion:
    """All coefficients by the proximal map: dz = J (dz - dslope) + drift."""
    v = z - slope

    def prox(given: Any, v: Array) -> Array:
        return pose(given)[1].prox(v, 1.0)

    _, push = jax.linearize(prox, given, v)  # one proximal map in the program, not two
    drift, still = push(given_dot, jnp.zeros_like(v)), jax.tree.map(jnp.zeros_like, given)

    def spread(d: Array) -> Array:
        return push(still, d)

    if z.size <= DENSE:
        J = jax.vmap(lambda d: spread(d.reshape(z.shape)).ravel())(jnp.eye(z.size, dtype=z.dtype))

        def spread(d: Array) -> Array:
            return jnp.matmul(J, d.ravel(), precision=HIGHEST).reshape(z.shape)

    return Motion(spread, lambda y: spread(y - spread(y)), drift, jnp.zeros_like(z))
