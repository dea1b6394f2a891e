"""Derivatives of solutions in every leaf, for every loss with every penalty, against central differences.

Second ones too, along all leaves at once, for one program of each kind: coefficients, intercept and objective together.

A program is compiled for each kind of penalty, with an intercept and without: in it the loss and the penalty are
chosen by number (`AnyLoss`, `Each`, `Together`), so that a combination costs its run alone. Solutions, and those of
moved data, are the oracle's: fixed points of the proximal map at the raw data, by Newton's method; `solve` starts
there.
"""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import l1jax
from l1jax._node import node
from l1jax.engines import Engine, by_name
from l1jax.losses import Loss
from l1jax.penalties import Elementwise, Penalty
from l1jax.penalties.base import Strengthless
from l1jax.penalties.curves import Curve
from l1jax.penalties.terms import Scalar, Terms
from l1jax.standard_form import InUnits

N, P, K = 24, 6, 3
H = 5e-5
RNG = np.random.default_rng(11)
X = RNG.normal(size=(N, P)) + 0.3
SIGNAL = np.array([1.0, 0.8, 0.0, 0.1, -0.9, -1.1])
ETA = X @ SIGNAL / 2 + 0.5 * RNG.normal(size=N)
EVENT = (RNG.uniform(size=N) < 0.7) * 1.0
GROUPS = [0, 0, 1, 1, 2, 2]

LABELS = ((np.median(ETA) < ETA) != (np.arange(N) % 4 == 0)) * 1.0
COUNTS = np.exp(0.5 * ETA) * RNG.uniform(0.5, 1.5, N)
LOSSES = {  # with the response, and whether answers move with it
    "squared": (l1jax.Squared(), ETA, True),
    "logistic": (l1jax.Logistic(), LABELS, False),
    "poisson": (l1jax.Poisson(), COUNTS, True),
    "gamma": (l1jax.Gamma(), COUNTS, True),
    "negative binomial": (l1jax.NegativeBinomial(2.0), COUNTS, True),
    "huber": (l1jax.Huber(0.7), ETA, True),
    "quantile": (l1jax.Quantile(0.6, width=2.0), ETA, True),
    "squared hinge": (l1jax.SquaredHinge(), LABELS, False),
}
COX = {"cox": (l1jax.Cox(EVENT), 10 - ETA, False)}  # alone, as it takes as long to compile as all of the above
MANY = np.stack([ETA, 0.5 * X @ SIGNAL[::-1], 0.3 * X[:, 0] - 0.4 * X[:, 1]], axis=1) + 0.7 * RNG.normal(size=(N, K))
SEVERAL = {
    "several squared": (l1jax.MultiSquared(), MANY, True),
    "multinomial": (l1jax.Multinomial(K), MANY, False),
}

FACTORS = np.array([1, 0.5, 1, 2, 0, 0.7])
EACH = {  # penalties at (lam (p,), the ratio, other hyperparameters (p,), about 1)
    "l1": lambda lam, ratio, more: l1jax.L1(lam),
    "l2": lambda lam, ratio, more: l1jax.L2(lam),
    "elastic net": lambda lam, ratio, more: l1jax.ElasticNet(lam, ratio),
    "factors": lambda lam, ratio, more: l1jax.Factors(l1jax.ElasticNet(lam, ratio), FACTORS * more),
    "bounds": lambda lam, ratio, more: l1jax.Bounds(l1jax.L1(lam), -0.15 * more, 0.2 * more),
    "nonnegative": lambda lam, ratio, more: l1jax.NonNegative(l1jax.ElasticNet(lam, ratio)),
    "masked": lambda lam, ratio, more: l1jax.Masked(l1jax.ElasticNet(lam, ratio), np.arange(P) < 4),
    "sum": lambda lam, ratio, more: l1jax.Sum((l1jax.L1(lam), l1jax.L2(more / 20)), lam=2 * ratio),
    "mcp": lambda lam, ratio, more: l1jax.MCP(lam, 30 * more),
    "scad": lambda lam, ratio, more: l1jax.SCAD(lam, 30 * more),
    "log sum": lambda lam, ratio, more: l1jax.LogSum(lam / 2, more),
    "half": lambda lam, ratio, more: l1jax.LHalf(lam / 8),
}
STEPS = np.linspace(1.5, 0.5, P)
TOGETHER = {
    "group lasso": lambda lam, ratio, more: l1jax.GroupLasso(lam[0], GROUPS, weights=more[:3]),
    "sparse group lasso": lambda lam, ratio, more: l1jax.SparseGroupLasso(lam[0], GROUPS, ratio, weights=more[:3]),
    "slope": lambda lam, ratio, more: l1jax.SLOPE(STEPS * more, lam[0]),
    "total variation": lambda lam, ratio, more: l1jax.TotalVariation(lam[0]),
    "linf": lambda lam, ratio, more: l1jax.LInf(3 * lam[0]),
    "l1 ball": lambda lam, ratio, more: l1jax.L1Ball(more[0]),
    "simplex": lambda lam, ratio, more: l1jax.Simplex(more[0]),
}
ROWS = {
    "group lasso of rows": lambda lam, ratio, more: l1jax.GroupLasso(lam[0], range(P), weights=more),
    "sparse group lasso of rows": lambda lam, ratio, more: l1jax.SparseGroupLasso(lam[0], range(P), ratio, more),
    "nuclear norm": lambda lam, ratio, more: l1jax.NuclearNorm(lam[0]),
}


@functools.partial(jax.jit, static_argnums=0)
def chosen(name, number, members, *args):
    """That method of the member of that number; traced once."""
    return jax.lax.switch(number.astype(jnp.int32), [getattr(member, name) for member in members], *args)


@node
class AnyLoss(Loss):
    """The loss of that number among some."""

    number: jax.Array
    losses: tuple

    @property
    def several(self):
        return self.losses[0].several

    @property
    def axes(self):
        return 2 if self.several else 1

    def outputs(self, y):
        return y[1:]

    def _chosen(self, name, *args):
        return chosen(name, self.number, self.losses, *args)

    value = functools.partialmethod(_chosen, "value")
    gradient = functools.partialmethod(_chosen, "gradient")
    curvature = functools.partialmethod(_chosen, "curvature")
    bent = functools.partialmethod(_chosen, "bent")
    absorb = functools.partialmethod(_chosen, "absorb")
    centred = functools.partialmethod(_chosen, "centred")

    def encode(self, y):
        return y if self.several else self._chosen("encode", y)

    def mean(self, eta):
        raise NotImplementedError

    link = mean


@node
class AnyCurve(Curve):
    """The curve of that number among some."""

    number: jax.Array
    curves: tuple

    @property
    def lam(self):
        return jnp.stack([curve.lam for curve in self.curves])[self.number.astype(jnp.int32)]

    def at(self, size, lam):
        return chosen("at", self.number, self.curves, size, lam)

    def slope(self, size, lam):
        return chosen("slope", self.number, self.curves, size, lam)

    def threshold(self, v, lam, step):
        return chosen("threshold", self.number, self.curves, v, lam, step)


@node
class Either(Scalar):
    """Convex terms, or curves."""

    bends: jax.Array
    terms: Terms
    curve: Curve

    def _chosen(self, name, *args):
        answers = [getattr(part, name)(*args) for part in (self.terms, self.curve)]
        return jax.tree.map(lambda a, b: jnp.where(self.bends > 0, b, a), *answers)

    interval = functools.partialmethod(_chosen, "interval")
    smooth = functools.partialmethod(_chosen, "smooth")
    slope_at = functools.partialmethod(_chosen, "slope_at")
    value = functools.partialmethod(_chosen, "value")
    prox = functools.partialmethod(_chosen, "prox")
    project = functools.partialmethod(_chosen, "project")
    free = functools.partialmethod(_chosen, "free")
    excess = functools.partialmethod(_chosen, "excess")
    valid = functools.partialmethod(_chosen, "valid")

    def in_units(self, strength, scale):
        return Either(self.bends, self.terms.in_units(strength, scale), self.curve.in_units(strength, scale))


@node
class Each(Strengthless, Elementwise):
    """The penalty of that number among EACH: convex ones first."""

    number: jax.Array
    hyperparameters: tuple
    certified = False

    def terms(self, w):
        parts = [make(*self.hyperparameters).terms(w)[0] for make in EACH.values()]
        bent = [part for part in parts if isinstance(part, Curve)]
        straight = [part.full(w.shape) for part in parts if isinstance(part, Terms)]
        at = jnp.minimum(self.number, len(straight) - 1).astype(jnp.int32)
        terms = jax.tree.map(lambda *fields: jnp.stack(fields)[at], *straight)
        over = self.number - len(straight)
        return [Either(jnp.where(over >= 0, 1.0, 0.0), terms, AnyCurve(jnp.maximum(over, 0.0), tuple(bent)))]


@node
class Together(Strengthless, Penalty):
    """The penalty of that number among TOGETHER or ROWS, told by its value and its proximal map."""

    number: jax.Array
    hyperparameters: tuple
    certified = False

    def _chosen(self, name, w, *args):
        makes = TOGETHER if w.ndim == 1 else ROWS
        members = tuple(make(*self.hyperparameters) for make in makes.values())
        return chosen(name, self.number, members, w, *args)

    def value(self, w):
        return self._chosen("value", w)

    def prox(self, v, step):
        return self._chosen("prox", v, jnp.asarray(step, v.dtype))

    def nearest_subgradient(self, w, u):
        return w + u - self.prox(w + u, 1.0)

    def free(self, w):
        return jnp.zeros(w.shape, bool)

    def excess(self, u):
        return jnp.zeros_like(u)

    def valid(self, w):
        return jnp.ones((), bool)

    def conjugate(self, u):
        raise NotImplementedError

    critical_lam = scalings = conjugate


GIVEN = {
    "X": X,
    "sample_weight": RNG.uniform(0.5, 1.5, N),
    "lam": 0.12 * RNG.uniform(0.8, 1.2, P),
    "ratio": np.array(0.6),
    "more": RNG.uniform(0.95, 1.05, P),
}
DIRECTIONS = ("lam", "each lam", "ratio", "more", "X", "y", "sample_weight", "offset")
NOISE = 64e-14 / (12 * H**2)  # what 1e-14 in the points is in second differences
FAR = 4  # how much longer the direction along all of these is, for second differences


def directions(given, moves):
    """One tree of directions, with a leading axis: along each leaf alone, `lam` also as one number, and along all."""
    still = {name: np.zeros((len(DIRECTIONS) + 1, *np.shape(a))) for name, a in given.items()}
    for i, name in enumerate(DIRECTIONS):
        leaf = name.removeprefix("each ")
        d = np.cos(3.0 * np.arange(np.size(given[leaf]))).reshape(np.shape(given[leaf])) * np.mean(np.abs(given[leaf]))
        still[leaf][i] = np.mean(given[leaf]) if name == "lam" else d
        still[leaf][-1] += FAR / 4 * d
    still["y"] = still["y"] * moves
    return still


def posed(numbers, losses, kind, intercept, standardize, given):
    """The problem of the loss and the penalty of these numbers."""
    loss, penalty = numbers
    hyperparameters = tuple(given[name] for name in ("lam", "ratio", "more"))
    data = {name: given[name] for name in ("X", "y", "sample_weight", "offset")}
    flags = {"fit_intercept": intercept, "standardize": standardize}
    return l1jax.Problem(**data, loss=AnyLoss(loss, losses), penalty=kind(penalty, hyperparameters), **flags)


STEP, PROXIMAL = 0.2, 200


def scaled(problem):
    """The columns in units of their deviations, where they are standardised, and these."""
    s = problem.weights()
    mean = s @ problem.X
    sd = jnp.sqrt(s @ (problem.X - mean[None]) ** 2) if problem.standardize else jnp.ones(P)
    return problem.X / sd[None], sd


@jax.jit
def stepped(problem, point):
    """The point after a proximal step, and as a vector what it changes: 0 exactly at solutions."""
    w, b = point
    Z, scale = scaled(problem)
    s, loss = problem.weights(), problem.loss
    v = loss.gradient(problem.offset + b[None] + Z @ w, loss.encode(problem.y), s)
    penalty = problem.penalty
    if problem.standardize:  # bounds are in the units of X
        penalty = InUnits(penalty, jnp.ones(P), scale)
    new = penalty.prox(w - STEP * (Z.T @ v), STEP)
    slope = jnp.sum(v, axis=0) if problem.fit_intercept else b
    slope = slope + jnp.sum(b - loss.centred(b))  # one of them, where several are as good
    point = new, b - STEP * slope
    return point, jnp.append((w - new).ravel(), slope)


def solution(problem):
    """(coef, intercept, objective) by proximal steps, then Newton's on what they change; how little they do."""
    start = jnp.zeros((P, *problem.outputs)), jnp.zeros(problem.outputs)
    first, whole = jax.flatten_util.ravel_pytree(start)

    def off(flat):
        after, off = stepped(problem, whole(flat))
        return off, (jax.flatten_util.ravel_pytree(after)[0], off)

    def step(i, carry):
        flat, _ = carry
        J, (after, change) = jax.jacfwd(off, has_aux=True)(flat)
        newton = jnp.where(after == 0, 0.0, flat - jnp.linalg.solve(J, change))
        return jnp.where(i < PROXIMAL, after, newton), jnp.max(jnp.abs(change))

    at, change = jax.lax.fori_loop(0, PROXIMAL + 10, step, (first, 0.0))
    w, b = whole(at)
    Z, sd = scaled(problem)
    loss = problem.loss.value(problem.offset + b[None] + Z @ w, problem.loss.encode(problem.y), problem.weights())
    price = problem.penalty.value(w) if not problem.standardize else InUnits(problem.penalty, jnp.ones(P), sd).value(w)
    return (w / sd.reshape(-1, *(1,) * (w.ndim - 1)), problem.loss.centred(b), loss + price), change


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def run(cases, losses, kind, intercept, standardize, twice):
    """Of each case: the answer, the oracle's, how well they are solved, derivatives along each leaf, differences.

    And of a sum of the answer's numbers the second derivative along all leaves, if `twice`: "forward", or by the
    gradient of the first one, "reverse", which takes twice as long to compile; and by differences.
    """

    def one(case):
        given, along, *_ = case

        pose = functools.partial(posed, case[2:], losses, kind, intercept, standardize)

        def moved(d, t):
            (coef, *others), off = solution(pose(jax.tree.map(lambda a, d: a + t * d, given, d)))
            return (coef, *others), off

        steps = H * jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        points, off = jax.vmap(lambda d: jax.vmap(lambda t: moved(d, t))(steps))(along)
        init = jax.tree.map(lambda a: a[0, 2], points)[:2]

        def solved(given):
            found = l1jax.solve(pose(given), solver="stay", init=init, tol=1e-12)
            return flat((found.coef, found.intercept, found.objective)), found.stationarity

        (here, stationarity), push = jax.linearize(solved, given)
        slopes, _ = jax.vmap(push)(along)
        low2, low, middle, up, up2 = jnp.moveaxis(jax.vmap(jax.vmap(flat))(points), 1, 0)
        differences = (8 * (up - low) - (up2 - low2)) / (12 * H)
        same = jnp.all((points[0] == 0) == (init[0] == 0)[None, None])
        first = here, middle[0], stationarity, jnp.max(off), same, slopes, differences
        if not twice:
            return first, ()
        weights, d = jnp.cos(jnp.arange(here.size, dtype=float)), jax.tree.map(lambda a: a[-1], along)

        def slope(given):
            return jnp.sum(jax.jvp(lambda given: solved(given)[0], (given,), (d,))[1] * weights)

        if twice == "forward":
            bend = jax.jvp(slope, (given,), (d,))[1]
        else:
            bend = sum(jnp.sum(a * d[name]) for name, a in jax.grad(slope)(given).items())
        low2, low, middle, up, up2 = ((a[-1] * weights).sum() for a in (low2, low, middle, up, up2))
        return first, (bend, (16 * (low + up) - low2 - up2 - 30 * middle) / (12 * H**2))

    return jax.lax.map(one, cases)


def flat(point):
    return jnp.concatenate([jnp.ravel(a) for a in point])


class Stay(Engine):
    """The engine that stays where it starts, at what the certificate then finds to be a solution."""

    max_steps = 1
    patience = 1

    def refuses(self, loss, penalty):
        return ""

    def prepare(self, form):
        return None

    def init(self, form, work, penalty, z, b):
        return z, b

    def advance(self, form, work, penalty, state):
        return state, jnp.zeros((), jnp.int32)

    def point(self, state):
        return state

    def gap(self, form, work, penalty, state, equalities):
        return 0 * jnp.sum(state[0])


KINDS = {  # kinds of penalties, losses, penalties; whether there is an intercept, columns are standardised; twice
    "each": (Each, LOSSES, EACH, True, False, "reverse"),
    "each, standardised, without an intercept": (Each, LOSSES, EACH, False, True, ""),
    "each, cox": (Each, COX, EACH, False, False, ""),
    "together": (Together, LOSSES, TOGETHER, True, False, "forward"),
    "together, without an intercept": (Together, LOSSES, TOGETHER, False, False, ""),
    "together, cox": (Together, COX, TOGETHER, False, False, ""),
    "rows": (Together, SEVERAL, ROWS, True, False, "reverse"),
    "rows, without an intercept": (Together, SEVERAL, ROWS, False, False, ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_of_solutions_are_those_of_differences(name, monkeypatch):
    monkeypatch.setitem(by_name, "stay", Stay())
    monkeypatch.setattr("l1jax.loop.may_have_equalities", lambda penalty, form: False)  # nothing is left to fit
    kind, losses, penalties, *flags = KINDS[name]
    names, cases = [], []
    for i, (loss, (member, y, moves)) in enumerate(losses.items()):
        if isinstance(member, l1jax.Multinomial):
            y = np.eye(K)[np.argmax(y, axis=1)]
        given = GIVEN | {"y": y, "offset": 0.1 * np.sin(np.arange(y.size)).reshape(y.shape)}
        for j, penalty in enumerate(penalties):
            names.append(f"{loss}, {penalty}")
            cases.append((given, directions(given, moves), np.float64(i), np.float64(j)))
    cases = jax.tree.map(lambda *parts: np.stack(parts), *cases)
    members = tuple(member for member, _, _ in losses.values())
    first, second = jax.device_get(run(cases, members, kind, *flags))
    here, oracle, stationarity, off, same, slopes, numeric = first
    for k, case in enumerate(names):
        assert stationarity[k] <= 1e-12, case
        assert off[k] <= 1e-14, case
        assert same[k], case  # no change of support within a step
        np.testing.assert_allclose(here[k], oracle[k], rtol=1e-12, atol=1e-13, err_msg=case)
        for leaf, found, expected in zip((*DIRECTIONS, "all"), slopes[k], numeric[k], strict=True):
            size = max(np.max(np.abs(expected)), 1e-3)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * size, err_msg=f"{case}: {leaf}")
        if second:
            assert second[0][k] == pytest.approx(second[1][k], rel=1e-5, abs=NOISE), case


@jax.jit
def bends(w, rows):
    """Second derivatives of values along all leaves and w, where they are smooth, and their second differences."""
    hyperparameters = tuple(GIVEN[name] for name in ("lam", "ratio", "more"))

    def of(make, w):
        def moved(t):
            return make(*(a * (1 + t * d) for a, d in zip(hyperparameters, (1.0, -0.5, slant), strict=True))).value(
                w * (1 + 0.3 * t) + t * jnp.cos(w)
            )

        low2, low, here, up, up2 = jax.vmap(moved)(1e-3 * jnp.arange(-2.0, 3.0))
        numeric = (16 * (low + up) - low2 - up2 - 30 * here) / 12e-6
        return jax.jvp(lambda t: jax.jvp(moved, (t,), (1.0,))[1], (0.0,), (1.0,))[1], numeric

    slant = jnp.cos(jnp.arange(P))
    return {name: of(make, at) for makes, at in ((TOGETHER, w), (ROWS, rows)) for name, make in makes.items()}


def test_second_derivatives_of_values_are_those_of_differences():
    """Weights of a norm and coefficients moved together, and singular vectors that turn."""
    found = bends(jnp.asarray(SIGNAL + 0.07 * np.arange(P)), jnp.asarray(np.cos(np.arange(P * K) ** 2).reshape(P, K)))
    for name, (here, numeric) in jax.device_get(found).items():
        if name not in ("l1 ball", "simplex"):  # which are 0, or infinite
            assert here == pytest.approx(numeric, rel=1e-6, abs=1e-6), name
            assert abs(numeric) > 0.01 or name in ("linf", "total variation"), name
