"""A block of lanes as one program: standard forms that share a matrix, an engine, certificates, raw units."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l1jax._arrays import eps, rounded
from l1jax.block import Block, bare
from l1jax.certificate import Certificate, certify, certify_by_moments
from l1jax.design import HIGHEST, Design, Reweighted, reweighted, second_moments
from l1jax.engines import Engine
from l1jax.engines.homotopy import KNOTS_PER_STRENGTH
from l1jax.loop import minimise
from l1jax.minimum import Controls, as_found
from l1jax.penalties import L1, Terms, straight
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.standard_form import InUnits, StandardForm, form_with, standard_form
from l1jax.sufficient import digits, hidden
from l1jax.sweeping.knots import walk_lanes
from l1jax.sweeping.lanes import VECTOR, Known, Moments, descend_lanes, slopes
from l1jax.sweeping.resampled import fits, pairs, unpacked
from l1jax.sweeping.shared import descend_shared
from l1jax.sweeping.wide import certified_near, walk_near

WIDE = 256  # columns of Gram matrices of the lanes' own; beyond, each lane has some of the columns only
CACHED = 150_000  # numbers of the lanes that are certified together
FAINT = 1e-6  # a variance that other weights leave so small has lost its digits
STILL = 64  # roundings by which strengths may be below the largest, in the dtype of the data


def block_of(problem: Problem, design: Design, count: int, weights: Array | None, targets: Array | None) -> Block:
    """Lanes of one problem: weights of the rows (L, n), responses (L, n), or the problem's; its design is prepared."""
    tally = jnp.zeros(count, bool)

    def form(_: Array, weights: Array | None, targets: Array | None) -> StandardForm:
        posed = problem if targets is None else dataclasses.replace(problem, y=targets)
        if weights is None:
            return bare(form_with(posed, design))
        posed = dataclasses.replace(posed, sample_weight=weights)
        return bare(form_with(posed, reweighted(design, posed.weights(), problem.fit_intercept, problem.standardize)))

    return Block(jax.vmap(form)(tally, weights, targets), design.XT, shared=True)


def block_of_problems(problems: Problem) -> Block:
    """A lane for each of several problems, (L, ...)."""
    forms = jax.vmap(standard_form)(problems)
    return Block(bare(forms), forms.design.XT, shared=False)


def solve_block(
    block: Block, engine: Engine, mode: str, equalities: bool, penalties: Any, lams: Array, controls: Controls
) -> Result:
    """The lanes' results at strengths (L, m), largest first, by an engine of single lanes; penalties are (L, ...)."""

    def lane(form: StandardForm, penalty: Any, lams: Array) -> Result:
        start = jax.tree.map(lambda a: a[None], form.start)
        found = minimise(engine, mode, form, penalty, lams, start, controls, equalities)
        return Result(**found.told, lams=lams)

    return block.over(lane, penalties, lams)


def descend_block(
    block: Block, known: Known | Moments | Array | None, penalties: Any, lams: Array, controls: Controls, dtype: Any
) -> Result:
    """The same for the squared loss, in step: knot by knot or by coordinate descent; NaN where Gram matrices can't say.

    All is in double precision; answers are rounded to `dtype`, that of the data, before they are certified.

    known: X'SX of the shared matrix under each lane's weights, (L, p, p); or, with digits for certificates as well,
    that of all lanes, (p, p), moments of the lanes' own matrices, or all that a descent asks.
    """
    scale = block.forms.design.scale
    strength = jnp.ones_like(scale) if block.forms.standardize else 1 / scale
    own = not block.shared or isinstance(block.forms.design, Reweighted)
    plain = isinstance(penalties, L1)

    def terms(lam: Array, strength: Array, scale: Array, penalty: Any) -> Terms:
        units: Any = InUnits(penalty.with_lam(lam), strength, scale)
        return units.terms(scale)[0].full(scale.shape)

    whole = strength, scale, penalties

    def terms_of(lam: Array, own: Any = whole) -> Terms:
        if not plain:
            return jax.vmap(terms, out_axes=1)(lam, *own)
        # One number for all lanes and one for all coefficients are cheaper to read than a table.
        if block.shared and not isinstance(block.forms.design, Reweighted):
            base = terms(jnp.ones_like(lam[0]), *jax.tree.map(lambda a: a[0], own)).l1[:, None] * lam[None]
        else:
            base = jax.vmap(terms, out_axes=1)(lam, *own).l1
        return Terms(base, *jnp.array([0.0, -jnp.inf, jnp.inf], base.dtype)[:, None, None])

    def terms_at(lanes: Array) -> Callable[[Array], Terms]:
        return functools.partial(terms_of, own=jax.tree.map(lambda a: a[lanes], whole))

    def finished(form: StandardForm, penalty: Any, lams: Array, done: Certificate, steps: Array) -> Result:
        return Result(**as_found(form, penalty, lams, done, steps, controls).told, lams=lams)

    given, known = (known, known.moments) if isinstance(known, Known) else (None, known)
    yy = known.yy if isinstance(known, Moments) else jnp.sum(block.forms.s * block.forms.y**2, axis=1)
    p, base = scale.shape[1], terms_of(jnp.ones_like(yy)).l1
    low, high = terms_of(lams[:, -1]).domain()
    free = jnp.any((low == 0) | (high == 0), axis=0)  # what is free has to be fitted first
    exact = dtype == yy.dtype
    goals = lams if exact else _lifted(block, known, base, lams, dtype)
    tol = (0.9 if exact else 0.7) * controls.tol  # the rest is for rounding
    walks, q = straight(penalties) and own, None
    if walks and p > WIDE:
        ids, z, sweeps = walk_near(block, base.T, yy, goals)
        z = rounded(z, jnp.take_along_axis(scale, ids, axis=1).T[None], dtype)
        z = jnp.where(free | ~_has_digits(block), jnp.nan, z)
        done = certified_near(block, penalties, base.T, lams, ids, z)
        return block.over(finished, penalties, lams, done, sweeps.T)
    if walks and by_knots(penalties, p, lams.shape[1]):
        z, sweeps = walk_lanes(base, moments_of(block, known), goals.T)
    elif own:
        if given is None:
            moments = moments_of(block, known)
            given = Known(moments, functools.partial(slopes, moments), (jnp.zeros_like(moments.c), moments.c))
        moments = given.moments
        z, q, sweeps = descend_lanes(terms_of, given, goals.T, tol, plain)
    else:
        moments = moments_of(block, known)
        z, sweeps = descend_shared(terms_at, moments, goals.T, tol, plain)
        known = known if known is None else moments
    if not exact:
        z, exact_z = rounded(z, scale.T[None], dtype), z
        if q is not None:
            q = jax.lax.map(functools.partial(_moved, moments.G), (q, z - exact_z))
    sound = ~free if isinstance(known, Moments) else _has_digits(block) & ~free

    def certified(form: StandardForm, penalty: Any, lam: Array, z: Array) -> Certificate:
        return certify(form, form.units(penalty.with_lam(lam)), z, form.start[1], False)

    def by_rows(at: tuple[Array, Array, Array | None]) -> Certificate:
        return block.over(certified, penalties, at[0], at[1].T)

    def measured(form: StandardForm, penalty: Any, lam: Array, share: Array, z: Array, *at: Array) -> Certificate:
        done = certify_by_moments(form, form.units(penalty.with_lam(lam)), z, *at)
        gap = done.gap + hidden(form, share, z)
        return dataclasses.replace(done, gap=gap, measure=gap)

    def by_moments(moments: Moments, at: tuple[Array, Array, Array | None]) -> Certificate:
        lam, z, q = at
        q = slopes(moments, z) if q is None else q
        return block.over(measured, penalties, lam, moments.share, z.T, q.T, moments.c.T, yy)

    def some(G: Array, given: Any) -> Result:
        own, forms, penalties, lams, sweeps, sound, z, c, *rest = given
        z = jnp.where(sound[:, None, None], z, jnp.nan)
        q = c[:, None] - jnp.matmul(z, G if own is None else own, precision=HIGHEST)
        lanes = Block(forms, block.XT if block.shared else block.XT[0], shared=True)  # rows play no part
        along = jax.vmap(measured, in_axes=(None, None, 0, None, 0, 0, None, None))
        done = lanes.over(along, penalties, lams, rest[0], z, q, c, rest[1])
        return lanes.over(finished, penalties, lams, done, sweeps)

    if isinstance(known, Moments) and (known.G.ndim == 2 or not block.shared):
        # Some lanes at a time, all strengths: in the cache.
        G = None if known.G.ndim == 2 else known.G.transpose(2, 0, 1)
        lanes = G, block.forms, penalties, lams, sweeps.T, sound, z.transpose(2, 0, 1), known.c.T, known.share, yy
        return in_groups(functools.partial(some, known.G), lanes, max(1, CACHED // z[..., 0].size))
    z = jnp.where(sound[None, None], z, jnp.nan)
    if block.shared:  # a strength at a time, all lanes: products of matrices
        each: Any = functools.partial(by_moments, known) if isinstance(known, Moments) else by_rows
        done = jax.lax.map(each, (lams.T, z, q))
        done = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), done)
    else:  # a lane at a time, all strengths
        along = jax.vmap(certified, in_axes=(None, None, 0, 0))
        done = block.over(along, penalties, lams, z.transpose(2, 0, 1))
    return block.over(finished, penalties, lams, done, sweeps.T)


def in_groups(function: Callable[[Any], Any], lanes: Any, size: int) -> Any:
    """function(lanes) for some lanes (L, ...) at a time, so that what it makes of them stays in the cache."""
    count = jax.tree.leaves(lanes)[0].shape[0]
    size = -(-count // -(-count // size))
    size = min(count, -(-size // VECTOR) * VECTOR)
    groups = -(-count // size)

    def some(first: Array) -> Any:
        return function(jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, first, size), lanes))

    # The last group may overlap the one before: nothing is padded, or copied.
    found = jax.lax.map(some, jnp.minimum(jnp.arange(groups, dtype=jnp.int32) * size, count - size))

    def joined(a: Array) -> Array:
        rest = a[-1, groups * size - count :]
        return jnp.concatenate([a[:-1].reshape(-1, *a.shape[2:]), rest])

    return jax.tree.map(joined, found)


def _lifted(block: Block, known: Moments | Array | None, base: Array, lams: Array, dtype: Any) -> Array:
    """Strengths (L, m), brought to where the first coefficient moves if only rounding to a dtype is between."""
    c = known.c if isinstance(known, Moments) else block.over(_slopes).T
    first = jnp.max(jnp.abs(c) / base, axis=0)[:, None] * (1 + 8 * eps(c.dtype))
    near = (lams < first) & (lams > first * (1 - STILL * eps(dtype)))
    return jnp.where(near, first, lams)


def _moved(G: Array, at: tuple[Array, Array]) -> Array:
    """The slopes (p, L) after small moves, by lanes' matrices that may be in single precision."""
    q, moves = at
    return q - jnp.sum(G * moves[:, None].astype(G.dtype), axis=0).astype(q.dtype)


def by_knots(penalty: Any, p: int, strengths: int) -> bool:
    """Whether strengths are so many that lanes of their own matrices go from knot to knot."""
    return straight(penalty) and p <= KNOTS_PER_STRENGTH * strengths


def moments_of(block: Block, known: Moments | Array | None = None) -> Moments:
    """What a descent asks of lanes, if not all of it is known: from their rows."""
    if isinstance(known, Moments):
        return known
    forms, design = block.forms, block.forms.design
    c = block.over(_slopes)
    if not block.shared:
        G = block.over(lambda form: form.design.gram(form.s)).transpose(1, 2, 0)
    elif isinstance(design, Reweighted):
        raw = _second_moments(block.XT, forms.s) if known is None else known.transpose(1, 2, 0)
        G = jax.vmap(_about, in_axes=(0, 2, 0, None), out_axes=2)(design, raw, forms.s, block.XT)
    else:
        G = second_moments(block.XT, forms.s[0]) if known is None else known
    yy = jnp.sum(forms.s * forms.y**2, axis=1)
    return Moments(G, c.T, yy, jnp.full_like(yy, digits((block.XT.shape[-2], block.XT.shape[-1]))))


def _slopes(form: StandardForm) -> Array:
    return form.design.tdot(form.s * form.y)


def _has_digits(block: Block) -> Array:
    """Whether products of a lane's columns, taken from those of the shared ones, have their digits: (L,)."""
    design = block.forms.design
    if not (block.shared and isinstance(design, Reweighted)):
        return jnp.ones(block.forms.s.shape[0], bool)
    whole = jnp.mean(block.XT**2, axis=1)
    left = (design.norm * design.unit) ** 2 > FAINT * whole[None]
    return jnp.all(left | (whole == 0)[None], axis=1)


def _about(design: Reweighted, moments: Array, s: Array, XT: Array) -> Array:
    return dataclasses.replace(design, XT=XT).gram_from(moments, s)


def _second_moments(XT: Array, s: Array) -> Array:
    """X' diag(s) X for weights (L, n): (p, p, L). One product for all where a table of the columns' products fits."""
    if not fits(XT.shape):
        return jax.lax.map(functools.partial(second_moments, XT), s).transpose(1, 2, 0)
    return unpacked(jnp.matmul(pairs(XT), s.T, precision=HIGHEST), len(XT))
