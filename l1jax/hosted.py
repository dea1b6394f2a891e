"""Runs that are driven from the host: the engine works in NumPy, its points are certified like any others."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from l1jax._arrays import eps, rounded
from l1jax._threads import one_thread
from l1jax.certificate import Certificate, certify, certify_by_moments, certify_only, size
from l1jax.engines import ActiveSet
from l1jax.engines.active import Path
from l1jax.engines.group_path import GroupPath
from l1jax.engines.groups import Partition, Radii
from l1jax.engines.homotopy import Homotopy, knots_are_cheap
from l1jax.engines.kinks import Floats, Kinks
from l1jax.losses import Squared
from l1jax.minimum import Controls, Minimum, as_found, over_lams, saturated
from l1jax.penalties import Elementwise, GroupLasso, Terms, straight
from l1jax.standard_form import StandardForm
from l1jax.sufficient import Moments, few_rows, hidden, sufficient

ATTEMPTS = 3  # how often what its certificate finds short is taken up again
TOGETHER = 256  # strengths certified at a time: what they need stays in the cache
AT_ONCE = 1_000_000  # numbers of a penalty held at a time


class Penalties:
    """The penalties at strengths `lams` (L,), None for the penalty's own (L = 1): NumPy arrays, some at a time."""

    def __init__(self, form: StandardForm, penalty: Any, lams: Array | None) -> None:
        self.form, self.penalty, self.lams = form, penalty, lams
        self.strengths: Any = None if lams is None else np.asarray(lams)
        self.size = max(1, min(len(self), AT_ONCE // form.shape[1]))
        self.held: tuple[int, Any] = (-1, None)
        self.groups = Partition(penalty.groups.of) if isinstance(penalty, GroupLasso) else None
        self.free = form.intercept and not isinstance(form.loss, Squared)  # an intercept that the loss does not absorb

    def __len__(self) -> int:
        return 1 if self.lams is None else self.lams.shape[0]

    def __getitem__(self, i: int) -> Kinks | Radii:
        if self.groups is not None:
            lam = self.penalty.lam if self.strengths is None else self.strengths[i]
            return self._radii(float(lam), self.groups)
        if self.base is not None:
            l1, top = self.base
            lam = self.strengths[i]
            return Kinks(l1 * lam, 0.0, -np.inf, np.inf, True, top * float(lam))
        block, row = divmod(i % len(self), self.size)
        if self.held[0] != block:
            lams = self.lams
            if lams is not None:
                part = self.strengths[block * self.size : (block + 1) * self.size]
                lams = jnp.asarray(np.pad(part, (0, self.size - len(part)), mode="edge"))
            self.held = block, self._kinks(lams)
        kinks: Kinks = self.held[1][row]
        return kinks

    @functools.cached_property
    def base(self) -> tuple[Floats, float] | None:
        """l1 at the strength 1, and its maximum, of a penalty that is a multiple of that."""
        if self.lams is None or not straight(self.penalty):
            return None
        one = jnp.ones_like(self.lams[:1])
        l1, plain = (np.asarray(a)[0] for a in _corners(self.free, self.form, self.penalty, one))
        sound = plain and np.all((self.strengths > 0) & (self.strengths < np.inf))
        return (l1, float(l1.max())) if sound else None

    def _kinks(self, lams: Array | None) -> list[Kinks]:
        """Those at some strengths."""
        given = self.form, self.penalty, lams
        l1, plain = (np.asarray(a) for a in _corners(self.free, *given))
        strengths = l1.max(axis=1).tolist()
        if plain.all():
            return [Kinks(l1[i], 0.0, -np.inf, np.inf, True, at) for i, at in enumerate(strengths)]
        l1, l2, lower, upper = (np.asarray(a) for a in _terms(self.free, *given))
        return [Kinks(l1[i], l2[i], lower[i], upper[i], False, at) for i, at in enumerate(strengths)]

    def line(self) -> tuple[Floats, Floats] | None:
        """(base (p,), strengths (L,)) if the penalty is strength*sum base_j*|z_j| and nothing else."""
        if self.base is not None:
            l1, top = self.base
            return (l1 / top, self.strengths * top) if 0 < top < np.inf else None
        if self.lams is None or len(self) > self.size:
            return None
        kinks: Any = self[0]
        if not (kinks.plain and 0 < kinks.strength < np.inf):
            return None
        l1, strengths = (np.array([getattr(at, part) for at in self.held[1]]) for part in ("l1", "strength"))
        base = kinks.l1 / kinks.strength
        bent = np.abs(l1 - np.outer(strengths, base)) > 8 * eps(l1.dtype) * l1
        return None if np.any(bent) else (base, strengths)

    def _radii(self, lam: float, groups: Partition) -> Radii:
        unit = float(np.asarray(self.form.strength).ravel()[0])  # groups have one for all columns
        weights = np.asarray(self.penalty.weights, np.float64)
        return Radii(np.where(np.isinf(weights), np.inf, lam * unit * np.where(np.isinf(weights), 0, weights)), groups)


def on_host(
    engine: ActiveSet,
    equalities: bool,
    form: StandardForm,
    penalties: Penalties,
    start: tuple[Array, Array],
    controls: Controls,
    derived: bool = False,
) -> Minimum:
    """The minimisers at the penalties' strengths, in descending order; for derivatives with what the engine holds."""
    # Groups take long products.
    with one_thread() if penalties.groups is None else contextlib.nullcontext():
        known = sufficient(form, float(controls.tol)) if bool(form.fit) else None
        if known is not None:
            found = driven(engine, equalities, form, penalties, start, controls, known, derived)
            if not np.any(np.asarray(found.told["gap"]) > float(controls.tol)):
                return found
        return driven(engine, equalities, form, penalties, start, controls, None, derived)


def driven(
    engine: ActiveSet,
    equalities: bool,
    form: StandardForm,
    penalties: Penalties,
    start: tuple[Array, Array],
    controls: Controls,
    known: Moments | None = None,
    derived: bool = False,
    dtype: DTypeLike | None = None,
) -> Minimum:
    """The same by the form's rows, or by their moments where these are known: gaps pay for what moments lack.

    Coefficients are rounded to `dtype`, if one is given, before they are certified.
    """
    penalty, lams, count = penalties.penalty, penalties.lams, len(penalties)
    tol, limit = float(controls.tol), min(int(controls.max_steps), engine.steps)
    z, b = (np.asarray(a) for a in start)
    fit = bool(form.fit)
    kind = Path if penalties.groups is None else GroupPath

    def enough(z: Floats, loss: float) -> bool:
        return bool(_saturated(controls.stop, form, z, loss))

    sight: Sight | Summary
    if known is None or equalities or kind is GroupPath:
        form = form if known is None else few_rows(form, known)
        sight = Sight(equalities, form, penalty, lams)
    else:
        sight = Summary(form, penalty, lams, known)
    if fit:
        stop = None if controls.stop is None else enough
        line = penalties.line() if kind is Path and knots_are_cheap(form, count) else None
        if line is None:
            path = kind(form, penalties, (z[0], b[0]), tol / 2, limit, stop, known)
            z, b, steps = path.run()
            sight.add(slice(None), path)
        else:
            z, b, steps = Homotopy(form, *line, limit, stop, known).run()
    else:
        z, b = (np.broadcast_to(a, (count, *a.shape[1:])) for a in (z, b))
        steps = np.zeros(count, np.int32)
    for attempt in range(ATTEMPTS):
        z = z if dtype is None else rounded(z, np.asarray(form.scale), dtype)
        done = sight.certified(z, b)
        reached = (steps > 0) | (controls.stop is None)
        again = np.flatnonzero((np.asarray(done.measure) > tol) & (steps < limit) & reached)
        if not fit or not len(again) or attempt == ATTEMPTS - 1:
            break
        z, b = np.array(done.z), np.array(done.b)
        goal, first = tol * 0.05 * 0.1**attempt, again[0]
        part = [penalties[int(i)] for i in again]
        path = kind(form, part, (z[first], b[first]), goal, limit - int(np.max(steps[again])), None, known)
        z[again], b[again], more = path.run()
        sight.add(again, path)
        steps[again] += more
    if known is not None:
        gap = done.gap + _hidden(form, known.share, done.z)
        done = dataclasses.replace(done, gap=gap, measure=gap)
    found = _as_found(form, penalty, lams, done, jnp.asarray(steps), controls)
    return dataclasses.replace(found, inverse=path.inverse()) if derived and fit and lams is None else found


class Sight:
    """Certificates that look at the features near to moving only, where the engine's slopes prove that others rest.

    Features whose slopes stay inside their corners take no part in a certificate: their penalty is 0, and so is its
    conjugate. That they do is certain if the engine's slopes are inside by more than its forces can be wrong.
    """

    def __init__(self, equalities: bool, form: StandardForm, penalty: Any, lams: Array | None) -> None:
        self.equalities, self.form, self.penalty, self.lams = equalities, form, penalty, lams
        n, p = form.shape
        self.size = n + n // 2 + 256  # of the shape alone, so that programs are
        self.small = equalities or self.size > 0.8 * p or not isinstance(penalty, Elementwise)
        self.reach: Any = 0.0
        self.forces = np.full((1 if lams is None else len(lams), n), np.nan, form.y.dtype)

    def add(self, at: Any, path: Path) -> None:
        """Remember what a run at the strengths `at` saw."""
        if not self.small:
            self.forces[at] = path.forces
            self.reach = np.maximum(self.reach, path.reach)

    def certified(self, z: Floats, b: Floats) -> Certificate:
        """The certificates of points (L, p), (L,)."""
        at = jax.device_put(z), jnp.asarray(b)
        if not self.small and not np.any(np.isnan(self.forces)):
            order = np.argpartition(-self.reach, self.size)
            ids, room = order[: self.size], 1 - self.reach[order[self.size]]
            done, moved = _certified_near(self.form, self.penalty, self.lams, ids, self.forces, *at)
            if np.all(np.asarray(moved) < room / 2):
                return dataclasses.replace(done, z=at[0])
        return _certified(self.equalities, self.form, self.penalty, self.lams, *at)


class Summary:
    """Certificates from the moments of the data."""

    def __init__(self, form: StandardForm, penalty: Any, lams: Array | None, known: Moments) -> None:
        self.form, self.penalty, self.lams, self.known = form, penalty, lams, known

    def add(self, at: Any, path: Path) -> None:
        """All features are seen in any case."""

    def certified(self, z: Floats, b: Floats) -> Certificate:
        """The certificates of points (L, p)."""
        G, c, yy, _ = self.known
        given = jnp.asarray(z), jnp.asarray(c - z @ G)
        return _certified_by_moments(self.form, self.penalty, self.lams, jnp.asarray(c), jnp.asarray(yy), *given)


@jax.jit
def _certified_near(
    form: StandardForm, penalty: Any, lams: Array | None, ids: Array, forces: Array, z: Array, b: Array
) -> tuple[Certificate, Array]:
    """Certificates from the features at `ids`, and how far slopes may move from those of `forces`, over l1."""
    outside = jnp.ones(form.shape[1], bool).at[ids].set(False)

    def at(penalty: Any, force: Array, z: Array, b: Array) -> tuple[Certificate, Array]:
        posed = form.units(penalty)
        zero, _ = form.start
        done, v = certify_only(form, posed, ids, z, b)
        l1 = posed.terms(zero)[0].full(zero.shape).l1
        longest = jnp.max(jnp.where(outside, form.design.norm / l1, 0.0))
        wrong = size(v - force, form.s) + 64 * eps(v.dtype) * size(v, form.s)
        return done, wrong * longest

    return over_lams(at, penalty, lams, forces, z[:, ids], b)


@functools.partial(jax.jit, static_argnums=0)
def _corners(free: bool, form: StandardForm, penalty: Any, lams: Array | None) -> tuple[Array, Array]:
    """l1 of `Kinks`, with a 0 at the end for what is free, and whether there is nothing else."""

    def at(penalty: Any) -> tuple[Array, Array]:
        terms = _of_units(form, penalty)
        plain = jnp.all((terms.l2 == 0) & jnp.isinf(terms.lower) & jnp.isinf(terms.upper))
        return jnp.pad(terms.l1, (0, free)), plain

    return over_lams(at, penalty, lams)


@functools.partial(jax.jit, static_argnums=0)
def _terms(free: bool, form: StandardForm, penalty: Any, lams: Array | None) -> tuple[Array, ...]:
    """The parts of `Kinks`, with one more that is free, if asked for, at the end."""

    def at(penalty: Any) -> tuple[Array, ...]:
        parts, none = jax.tree.leaves(_of_units(form, penalty)), (0, 0, -jnp.inf, jnp.inf)
        return tuple(jnp.pad(a, (0, free), constant_values=x) for a, x in zip(parts, none, strict=True))

    return over_lams(at, penalty, lams)


def _of_units(form: StandardForm, penalty: Any) -> Terms:
    zero, _ = form.start
    terms: Terms = form.units(penalty).terms(zero)[0].full(zero.shape)
    return terms


@functools.partial(jax.jit, static_argnums=0)
def _certified(equalities: bool, form: StandardForm, penalty: Any, lams: Array | None, z: Array, b: Array) -> Any:
    def at(penalty: Any, z: Array, b: Array) -> Certificate:
        return certify(form, form.units(penalty), z, b, equalities)

    return _in_batches(at, penalty, lams, z, b)


@jax.jit
def _certified_by_moments(
    form: StandardForm, penalty: Any, lams: Array | None, c: Array, yy: Array, z: Array, q: Array
) -> Any:
    def at(penalty: Any, z: Array, q: Array) -> Certificate:
        return certify_by_moments(form, form.units(penalty), z, q, c, yy)

    return _in_batches(at, penalty, lams, z, q)


def _in_batches(function: Callable[..., Any], penalty: Any, lams: Array | None, *others: Array) -> Any:
    """function(penalty at lam, *others at lam) for all strengths, some at a time."""
    if lams is None or lams.shape[0] <= TOGETHER:
        return over_lams(function, penalty, lams, *others)

    def one(at: tuple[Array, ...]) -> Any:
        return function(penalty.with_lam(at[0]), *at[1:])

    return jax.lax.map(one, (lams, *others), batch_size=TOGETHER)


_as_found = jax.jit(as_found)
_hidden = jax.jit(hidden)
_saturated = jax.jit(saturated)
