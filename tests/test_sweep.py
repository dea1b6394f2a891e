"""sweep is path at every place of its axes: in step, lane by lane, traced, in chunks, from disk."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import l1jax
from l1jax import L1, Bounds, ElasticNet, Factors, Folds, GroupLasso, Logistic, Poisson, Problem, path, sweep
from l1jax.sweeping import study, wide

N, P = 40, 6


def data(seed=0, n=N, p=P):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * np.geomspace(0.1, 10, p) + rng.normal(size=p)
    y = X @ np.where(np.arange(p) % 2, 0, 1 / np.geomspace(0.1, 10, p)) + 0.3 * rng.normal(size=n) + 2
    return X, y


X, Y = data()
TARGETS = np.stack([Y, Y[::-1], Y**2], axis=1)
WEIGHTS = np.random.default_rng(1).integers(0, 3, (2, N)).astype(float)
SIGNS = np.greater(TARGETS, np.median(TARGETS, axis=0)).astype(float)
LAMS = [0.3, 0.02, 0.1]  # in no order
CASES = {
    "plain": (Problem(X, Y, penalty=L1(1.0)), {}),
    "targets": (Problem(X, Y, penalty=L1(1.0), standardize=True), {"targets": TARGETS}),
    "targets in step": (Problem(X, Y, penalty=L1(1.0)), {"targets": np.stack([np.roll(Y, k) for k in range(16)], 1)}),
    "every axis": (
        Problem(X, Y, penalty=ElasticNet(1.0, l1_ratio=0.5), sample_weight=np.arange(1.0, N + 1), offset=X[:, 1]),
        {"targets": TARGETS, "folds": 3, "weights": WEIGHTS, "l1_ratios": [0.3, 1.0]},
    ),
    "folds in time": (
        Problem(X, Y, penalty=Bounds(L1(1.0), lower=-0.1), fit_intercept=False),
        {"folds": Folds.in_time(np.arange(N), 3)},
    ),
    "folds by moments": (
        Problem(X, Y, penalty=ElasticNet(1.0, l1_ratio=0.5), standardize=True, sample_weight=np.arange(N) % 4.0),
        {"targets": TARGETS, "folds": 3, "l1_ratios": [0.3, 1.0], "solver": "active"},
    ),
    "weights": (
        Problem(X, Y, penalty=ElasticNet(1.0), standardize=True, sample_weight=np.arange(N) % 4.0, offset=X[:, 1]),
        {"folds": 3, "weights": WEIGHTS, "l1_ratios": [0.3, 1.0]},
    ),
    "weights without intercept": (
        Problem(X, Y, penalty=Bounds(L1(1.0), lower=-0.1), fit_intercept=False),
        {"weights": WEIGHTS},
    ),
    "free coefficients": (Problem(X, Y, penalty=Factors(L1(1.0), [0, 1, 2, 1, 1, np.inf])), {"weights": WEIGHTS}),
    "logistic": (Problem(X, SIGNS[:, 0], loss=Logistic(), penalty=L1(1.0)), {"targets": SIGNS, "folds": 2}),
    "groups": (Problem(X, Y, penalty=GroupLasso(1.0, groups=[0, 0, 1, 1, 2, 2])), {"weights": WEIGHTS}),
}


def places(axes):
    """Each place of the axes, and the problem there."""
    folds = axes.get("folds")
    if isinstance(folds, int):
        folds = Folds.of(N, folds)
    counts = [
        [None] if axes.get(name) is None else range(count)
        for name, count in (
            ("targets", np.shape(axes.get("targets"))[-1:]),
            ("folds", (0 if folds is None else len(folds),)),
            ("weights", np.shape(axes.get("weights"))[:1]),
            ("l1_ratios", np.shape(axes.get("l1_ratios"))),
        )
        for count in [count[0] if count else 0]
    ]
    for t, k, w, r in itertools.product(*counts):

        def posed(problem, t=t, k=k, w=w, r=r):
            weight = np.ones(N) if problem.sample_weight is None else np.asarray(problem.sample_weight)
            weight = weight * (1 if w is None else axes["weights"][w]) * (1 if k is None else folds.train[k])
            problem = dataclasses.replace(problem, sample_weight=weight)
            if t is not None:
                problem = dataclasses.replace(problem, y=axes["targets"][:, t])
            if r is not None:
                problem = dataclasses.replace(
                    problem, penalty=dataclasses.replace(problem.penalty, l1_ratio=axes["l1_ratios"][r])
                )
            return problem

        yield tuple(i for i in (t, k, w, r) if i is not None), posed


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_is_a_path_at_every_place(name):
    problem, axes = CASES[name]
    found = sweep(problem, lams=LAMS, tol=1e-9, **axes)
    assert bool(jnp.all(found.converged))
    seen = 0
    for at, posed in places(axes):
        lane = jax.tree.map(lambda a, at=at: a[at], found)
        alone = path(posed(problem), lams=LAMS, tol=1e-12)
        np.testing.assert_allclose(lane.lams, LAMS)
        np.testing.assert_allclose(lane.objective, alone.objective, rtol=1e-7)
        np.testing.assert_allclose(lane.coef, alone.coef, atol=2e-4 * float(jnp.max(jnp.abs(alone.coef))))
        np.testing.assert_allclose(lane.intercept, alone.intercept, rtol=1e-3, atol=1e-3)
        for i in range(len(LAMS)):  # the certificate is that of the place's own problem
            here = dataclasses.replace(posed(problem), penalty=posed(problem).penalty.with_lam(LAMS[i]))
            gap = l1jax.duality_gap(here, lane.coef[i], lane.intercept[i])
            assert max(float(gap), float(lane.gap[i])) <= 1e-9
        seen += 1
    assert seen == found.gap.size // len(LAMS)


@pytest.mark.parametrize("lanes", [20, 150])
@pytest.mark.parametrize("penalty", [L1(1.0), Bounds(ElasticNet(1.0, l1_ratio=0.9), lower=-0.2, upper=0.5)])
def test_lanes_of_one_matrix_go_by_blocks_of_features(penalty, lanes, monkeypatch):
    """Of 37 features, blocks that don't fill; features that coincide, one that is constant, one that is pinned.

    150 lanes go in two tiles that they don't fill, and one more. None is left to be solved otherwise.
    """
    monkeypatch.setattr(study, "path", None)
    rng = np.random.default_rng(37)
    X = rng.normal(size=(60, 37))
    X[:, 5], X[:, 6] = X[:, 4], 2.0
    Y = X[:, :8] @ rng.normal(size=(8, lanes)) + rng.normal(size=(60, lanes))
    Y[:, 3] = 1.0
    penalty = Factors(penalty, np.r_[np.inf, 1 + np.arange(36) % 2]) if isinstance(penalty, Bounds) else penalty
    problem = Problem(X, Y[:, 0], penalty=penalty)
    found = sweep(problem, targets=Y, num=8, ratio=0.01, tol=1e-10, chunk=lanes)
    assert bool(jnp.all(found.converged))
    assert not np.any(np.asarray(found.coef[..., 6]))
    for lane in [*range(20), *range(lanes - 7, lanes)]:
        alone = path(dataclasses.replace(problem, y=Y[:, lane]), lams=found.lams[lane], tol=1e-13)
        np.testing.assert_allclose(found.objective[lane], alone.objective, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("features", [37, 1])
def test_lanes_of_one_matrix_end_at_their_bounds(features):
    """At them, and not a rounding short of them, whatever the tolerance."""
    rng = np.random.default_rng(features)
    X = rng.normal(size=(60, features))
    Y = X @ rng.normal(size=(features, 20)) + rng.normal(size=(60, 20))
    problem = Problem(X, Y[:, 0], penalty=Bounds(L1(1.0), -0.2, 0.5))
    coef = np.asarray(sweep(problem, targets=Y, lams=np.geomspace(1, 1e-2, 8), tol=1e-6).coef)
    for bound in (-0.2, 0.5):
        at = np.abs(coef - bound) < 1e-12
        assert np.any(at)
        assert np.all(coef[at] == bound)


@pytest.mark.parametrize("near", [128, 3])
def test_lanes_of_many_features_walk_among_few(near, monkeypatch):
    """Where these don't suffice, lanes are solved otherwise."""
    monkeypatch.setattr(wide, "NEAR", near)
    rng = np.random.default_rng(near)
    X = rng.normal(size=(24, 300 + near)) + 1
    problem = Problem(
        X, X[:, :4].sum(axis=1) + rng.normal(size=24), penalty=Factors(L1(1.0), 1 + np.arange(300 + near) % 2)
    )
    weights = rng.integers(0, 3, (5, 24)).astype(float)
    seen = []
    monkeypatch.setattr(study, "path", lambda *given, **more: seen.append(1) or path(*given, **more))
    found = sweep(problem, weights=weights, num=5, ratio=0.2, tol=1e-9)
    assert len(seen) == (5 if near == 3 else 0)
    assert bool(jnp.all(found.converged))
    for lane, weight in enumerate(weights):
        alone = path(dataclasses.replace(problem, sample_weight=weight), lams=found.lams[lane], tol=1e-12)
        np.testing.assert_allclose(found.objective[lane], alone.objective, rtol=1e-7)
        np.testing.assert_allclose(found.coef[lane], alone.coef, atol=1e-4)
        for i, lam in enumerate(found.lams[lane]):  # what the certificate leaves out rests indeed
            here = dataclasses.replace(problem, sample_weight=weight, penalty=problem.penalty.with_lam(lam))
            assert float(l1jax.duality_gap(here, found.coef[lane, i], found.intercept[lane, i])) <= 1e-9
    with jax.enable_x64(False):
        single = sweep(Problem(**vars(in_dtype(problem, np.float32))), weights=weights, num=5, ratio=0.2)
    assert single.coef.dtype == np.float32
    assert bool(jnp.all(single.converged))
    np.testing.assert_allclose(single.coef, np.float32(found.coef), atol=1e-4)


def test_problems_that_can_t_be_walked_knot_by_knot_are_solved_otherwise():
    """Columns that depend on each other, and one that is constant, among others that are sound."""
    Xs = np.stack([X, X, X])
    Xs[1, :, 4], Xs[1, :, 5] = X[:, 0] + X[:, 2], 7
    Xs[2, :, 3:] = X[:, :3]
    lams = np.geomspace(1, 1e-3, 6)
    found = sweep(lambda X: Problem(X, Y, penalty=L1(1.0)), over=jnp.asarray(Xs), lams=lams, tol=1e-9)
    assert bool(jnp.all(found.converged))
    for k in range(3):
        alone = path(Problem(Xs[k], Y, penalty=L1(1.0)), lams=lams, tol=1e-12, solver="cd")
        np.testing.assert_allclose(found.objective[k], alone.objective, rtol=1e-7)


def test_folds_come_from_moments_where_these_have_their_digits(monkeypatch):
    seen = []
    monkeypatch.setattr(study, "path", lambda *given, **more: seen.append(1) or path(*given, **more))
    problem, axes = CASES["folds by moments"]
    assert bool(jnp.all(sweep(problem, lams=LAMS, **axes).converged))
    assert not seen
    nothing = dataclasses.replace(PLAIN, sample_weight=np.arange(N) % 3 > 0)  # is left out by the first fold
    whole = path(nothing, lams=LAMS, tol=1e-12)
    found = sweep(nothing, folds=3, lams=LAMS, tol=1e-9, solver="active")
    np.testing.assert_allclose(found.objective[0], whole.objective, rtol=1e-7)
    assert not seen
    few = X.copy()
    few[:, 2] = 1e9 * (np.arange(N) == 0) + X[:, 2]  # hardly varies where the first row is left out
    found = sweep(Problem(few, Y, penalty=L1(1.0)), folds=4, lams=LAMS, solver="active")
    assert bool(jnp.all(found.converged))
    assert len(seen) == 1


def in_dtype(tree, dtype):
    return jax.tree.map(lambda a: np.asarray(a, dtype), tree)


@pytest.mark.parametrize("name", ["targets in step", "every axis", "folds in time", "folds by moments", "weights"])
def test_single_precision_is_solved_in_double(name, monkeypatch):
    """No lane is left to `path`; certificates are those of the rounded points."""
    monkeypatch.setattr(study, "path", None)
    double, axes = CASES[name]
    single = in_dtype(double, np.float32)
    numbers = ("targets", "weights", "l1_ratios")
    axes = {key: np.asarray(a, np.float32).astype(float) if key in numbers else a for key, a in axes.items()}
    with jax.enable_x64(False):
        found = sweep(Problem(**vars(single)), lams=LAMS, **axes)
    assert {a.dtype for a in jax.tree.leaves(found) if a.dtype.kind == "f"} == {np.dtype(np.float32)}
    assert bool(jnp.all(found.converged))
    found = in_dtype(found, np.float64)
    for at, posed in places(axes):
        for i, lam in enumerate(found.lams[at]):
            here = posed(in_dtype(single, np.float64))
            here = dataclasses.replace(here, penalty=here.penalty.with_lam(lam))
            gap = l1jax.duality_gap(here, found.coef[at][i], found.intercept[at][i])
            np.testing.assert_allclose(found.gap[at][i], gap, rtol=1e-3, atol=1e-11)


@pytest.mark.parametrize("penalty", [L1(1.0), ElasticNet(1.0, l1_ratio=0.9), Bounds(L1(1.0), lower=-0.1)])
def test_problems_in_single_precision_are_solved_in_double(penalty, monkeypatch):
    """They are made with JAX set as it was, and start at zeros."""
    monkeypatch.setattr(study, "path", None)

    def draw(key):
        X = jax.random.normal(key, (30, 5))
        assert X.dtype == np.float32
        return Problem(X, X[:, 0] + 0.1 * X[:, 1] ** 2 + 3, penalty=penalty)

    with jax.enable_x64(False):
        keys = jax.random.split(jax.random.key(0), 40)
        found = sweep(draw, over=keys, num=10, tol=3e-6)
        drawn = [draw(key) for key in keys]
    assert found.coef.dtype == found.lams.dtype == np.float32
    assert bool(jnp.all(found.converged))
    assert not np.any(found.coef[:, 0])
    for lane, problem in enumerate(drawn):
        exact = path(
            Problem(**vars(in_dtype(problem, np.float64))), lams=in_dtype(found.lams[lane], np.float64), tol=1e-12
        )
        np.testing.assert_allclose(found.objective[lane], exact.objective, rtol=5e-6)
        np.testing.assert_allclose(found.coef[lane], exact.coef, atol=5e-3)


def test_what_rounding_leaves_is_not_solved_again(monkeypatch):
    monkeypatch.setattr(study, "path", None)
    problem, axes = CASES["targets in step"]
    with jax.enable_x64(False):
        found = sweep(Problem(**vars(in_dtype(problem, np.float32))), lams=LAMS, tol=1e-12, **axes)
    assert not np.all(found.converged)
    assert np.max(found.gap) < 2e-6


def test_targets_in_single_precision_start_at_zeros():
    problem, axes = CASES["targets in step"]
    with jax.enable_x64(False):
        found = sweep(Problem(**vars(in_dtype(problem, np.float32))), num=5, **axes)
    assert bool(jnp.all(found.converged))
    assert not np.any(found.coef[:, 0])
    assert np.all(np.any(found.coef[:, 1], axis=1))


def test_lanes_of_weights_come_from_moments_where_these_have_their_digits(monkeypatch):
    seen = []
    monkeypatch.setattr(study, "path", lambda *given, **more: seen.append(1) or path(*given, **more))
    few = X.copy()
    few[:, 2] = 1e9 * (np.arange(N) == 0) + X[:, 2]  # hardly varies where the first row is left out
    problem = Problem(few, Y, penalty=L1(1.0), standardize=True)
    drawn = np.random.default_rng(3).integers(1, 3, (4, N)).astype(float)
    weights = drawn * [[1.0], [1.0], [1e-200], [1e200]]  # squares of the last two are beyond all numbers
    weights[1, 0] = 0
    found = sweep(problem, weights=weights, lams=LAMS, tol=1e-9)
    assert bool(jnp.all(found.converged))
    assert len(seen) == 3
    for lane, weight in enumerate(weights):
        alone = path(dataclasses.replace(problem, sample_weight=weight), lams=LAMS, tol=1e-12)
        np.testing.assert_allclose(found.objective[lane], alone.objective, rtol=1e-7)


def test_grids_are_those_of_all_rows():
    problem, axes = CASES["every axis"]
    found = sweep(problem, num=4, ratio=0.05, **axes)
    whole = {**axes, "folds": None, "weights": None}
    for at, posed in places(whole):
        t, r = at
        own = l1jax.lambda_grid(
            dataclasses.replace(posed(problem), sample_weight=problem.sample_weight), num=4, ratio=0.05
        )
        np.testing.assert_allclose(found.lams[t, :, :, r], np.broadcast_to(own, (3, 2, 4)), rtol=1e-12)


def test_a_constant_response_has_zeros():
    found = sweep(PLAIN, targets=np.stack([Y, Y * 0 + 3], axis=1), num=3)
    assert bool(jnp.all(found.converged))
    assert not np.any(found.coef[1])
    np.testing.assert_allclose(found.intercept[1], 3.0)


def make(own):
    return Problem(own[0], own[1], penalty=L1(0.05))


MANY = tuple(np.stack(parts) for parts in zip(*(data(seed, 20, 4) for seed in range(7)), strict=True))


@pytest.mark.parametrize("lams", [None, LAMS])
def test_many_problems(lams):
    found = sweep(make, over=MANY, lams=lams, num=3, ratio=0.1, chunk=3)
    for b in range(7):
        alone = path(make((MANY[0][b], MANY[1][b])), lams=lams, num=3, ratio=0.1, tol=1e-10)
        np.testing.assert_allclose(found.lams[b], alone.lams, rtol=1e-12)
        np.testing.assert_allclose(found.objective[b], alone.objective, rtol=1e-6, atol=1e-9)
    assert bool(jnp.all(found.converged))


def test_problems_drawn_from_keys_with_another_axis():
    def draw(key):
        X = jax.random.normal(key, (20, 4))
        return Problem(X, X[:, 0] - X[:, 1] ** 2, penalty=L1(1.0))

    keys = jax.random.split(jax.random.key(0), 3)
    found = sweep(draw, over=keys, folds=2, lams=LAMS)
    alone = sweep(draw(keys[2]), folds=2, lams=LAMS)
    assert found.coef.shape == (3, 2, 3, 4)
    np.testing.assert_allclose(found.coef[2], alone.coef)


@pytest.mark.parametrize("x64", [True, False])
def test_grids_of_many_problems_are_those_of_paths_where_some_coefficients_are_free(x64):
    def make(own):
        return Problem(own[0], own[1], penalty=Factors(L1(1.0), [0, 1, 1, np.inf]))

    with jax.enable_x64(x64):
        own = jax.tree.map(jnp.asarray, MANY)
        found = sweep(make, over=own, num=3)
        for b in range(7):
            alone = path(make((own[0][b], own[1][b])), num=3)
            np.testing.assert_allclose(found.lams[b], alone.lams, rtol=1e-9 if x64 else 1e-5)
        with pytest.raises(ValueError, match="no grid"):
            sweep(lambda own: Problem(*own, penalty=Factors(L1(1.0), [0, 0, 0, np.inf])), over=own, num=3)


def test_problems_without_an_answer_are_nan_and_spare_the_others():
    spoilt = MANY[1].copy()
    spoilt[2, 0] = np.nan
    found = sweep(make, over=(MANY[0], spoilt), lams=LAMS)
    good = np.arange(7) != 2
    np.testing.assert_array_equal(found.converged, np.broadcast_to(good[:, None], (7, 3)))
    assert np.all(np.isnan(found.gap[2]))


def test_what_weights_leave_constant_is_solved_all_the_same():
    only = np.zeros((2, N))
    only[0, :20], only[1] = 1, 1
    design = X.copy()
    design[:20, 3] = 1.0  # constant on the rows of the first weighting
    problem = Problem(design, Y, penalty=L1(1.0))
    found = sweep(problem, weights=only, lams=LAMS)
    assert bool(jnp.all(found.converged))
    assert np.all(np.asarray(found.coef)[0, :, 3] == 0)
    alone = path(dataclasses.replace(problem, sample_weight=only[0]), lams=LAMS, tol=1e-10)
    np.testing.assert_allclose(found.objective[0], alone.objective, rtol=1e-5)


@pytest.mark.parametrize("name", ["every axis", "logistic"])
def test_chunks_make_no_difference(name):
    problem, axes = CASES[name]
    one = sweep(problem, lams=LAMS, tol=1e-10, **axes)
    other = sweep(problem, lams=LAMS, tol=1e-10, chunk=7, **axes)
    np.testing.assert_allclose(one.coef, other.coef, atol=1e-6)


def test_traced():
    problem, axes = CASES["logistic"]
    found = jax.jit(lambda problem: sweep(problem, lams=LAMS, **axes))(problem)
    known = sweep(problem, lams=LAMS, **axes)
    assert bool(jnp.all(found.converged))
    np.testing.assert_allclose(found.objective, known.objective, rtol=1e-5, atol=1e-7)


def test_derivatives():
    axes = {"targets": TARGETS[:, :2], "weights": WEIGHTS}

    def swept(X, lam):
        return jnp.sum(sweep(Problem(X, Y, penalty=L1(1.0)), lams=lam[None], **axes).coef ** 2)

    def looped(X, lam):
        total = 0.0
        for t, w in itertools.product(range(2), range(2)):
            alone = Problem(X, TARGETS[:, t], penalty=L1(1.0), sample_weight=WEIGHTS[w])
            total += jnp.sum(path(alone, lams=lam[None], tol=1e-12).coef ** 2)
        return total

    at = (jnp.asarray(X), jnp.asarray(0.1))
    for ours, theirs in zip(jax.grad(swept, (0, 1))(*at), jax.grad(looped, (0, 1))(*at), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(theirs))))


def test_a_sweep_goes_on_from_what_is_on_disk(tmp_path, monkeypatch):
    problem, axes = CASES["every axis"]
    ask = {"lams": LAMS, "chunk": 10, **axes}
    whole = sweep(problem, **ask)
    calls = []
    from l1jax.sweeping import study

    original = study.lanes_in_step

    def counted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(study, "lanes_in_step", counted)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        sweep(problem, store=tmp_path, **ask)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["block-0000000.npz", "manifest.json"]
    found = sweep(problem, store=tmp_path, progress=True, **ask)
    assert len(calls) == 5  # one before, one torn off, three after
    np.testing.assert_array_equal(found.coef, whole.coef)
    again = sweep(problem, store=tmp_path, **{**ask, "chunk": 3})  # blocks keep their size
    np.testing.assert_array_equal(again.gap, whole.gap)
    assert len(calls) == 5

    with pytest.raises(ValueError, match="holds another sweep"):
        sweep(problem, store=tmp_path, **{**ask, "lams": [0.1]})
    with pytest.raises(ValueError, match="want a folder"):
        sweep(problem, store=tmp_path / "manifest.json", **ask)
    (tmp_path / "block-0000001.npz").unlink()
    path(problem, lams=[0.1]).save(tmp_path / "block-0000001.npz")
    with pytest.raises(ValueError, match="holds results of shape"):
        sweep(problem, store=tmp_path, **ask)
    block = tmp_path / "block-0000001.npz"
    block.write_bytes(block.read_bytes()[:100])
    with pytest.raises(ValueError, match="no saved l1jax result"):
        sweep(problem, store=tmp_path, **ask)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for torn in ([1], {**manifest, "block": 0}):
        (tmp_path / "manifest.json").write_text(json.dumps(torn))
        with pytest.raises(ValueError, match="no manifest"):
            sweep(problem, store=tmp_path, **ask)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds files"):
        sweep(problem, store=tmp_path, **ask)


PLAIN = CASES["plain"][0]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"targets": Y}, r"targets: want shape \(40, T\)"),
        ({"targets": TARGETS * np.nan}, "targets: NaN"),
        ({"weights": WEIGHTS.T}, r"weights: want shape \(W, 40\)"),
        ({"weights": -WEIGHTS}, "weights: .* row 0"),
        ({"weights": WEIGHTS * 0}, "weights: .* row 0"),
        ({"l1_ratios": [0.5]}, "l1_ratios: want a penalty that has an l1_ratio"),
        ({"lams": [-1.0]}, "lams: want finite"),
        ({"lams": 0.1}, r"lams: want strengths of shape \(L,\)"),
        ({"folds": [0, 1]}, "folds: want one for each of 40"),
        ({"chunk": 0}, "chunk: want a whole number"),
        ({"over": np.ones(3)}, "over: want a function"),
        ({"ratio": 2.0}, "ratio: want a number between"),
        ({"solver": "best"}, "solver: want"),
    ],
)
def test_bad_input(ask, message):
    with pytest.raises(ValueError, match=message):
        sweep(PLAIN, **ask)


def test_a_store_knows_what_its_problems_are_made_of(tmp_path):
    """Not only the first of them."""

    def asked(ys, **how):
        return sweep(
            lambda i: Problem(MANY[0][0], ys[i], penalty=L1(0.1)), over=jnp.arange(7), lams=[0.1], store=tmp_path, **how
        )

    ys = jnp.asarray(MANY[1])
    first, again = asked(ys), asked(ys + 0.0)
    np.testing.assert_array_equal(first.coef, again.coef)
    with pytest.raises(ValueError, match="holds another sweep"):
        asked(ys.at[3, 2].add(1.0))


def test_more_bad_input():
    for empty, name in (
        ({"targets": np.zeros((N, 0))}, "targets"),
        ({"weights": np.zeros((0, N))}, "weights"),
        ({"chunk": True}, "chunk"),
    ):
        with pytest.raises(ValueError, match=f"{name}: want"):
            sweep(PLAIN, lams=LAMS, **empty)
    with pytest.raises(ValueError, match="over: want at least one"):
        sweep(make, over=(np.zeros((0, 20, 4)), np.zeros((0, 20))))
    with jax.enable_x64(False), pytest.raises(ValueError, match="change their units"):
        sweep(Problem(X, Y * 1e-30, penalty=L1(1.0)), weights=WEIGHTS)
    with pytest.raises(ValueError, match="over: want a tree of arrays"):
        sweep(make)
    with pytest.raises(ValueError, match="progress, store, chunk"):
        jax.jit(lambda problem: sweep(problem, lams=LAMS, chunk=2))(PLAIN)
    with pytest.raises(ValueError, match="no grid"):
        sweep(Problem(X, Y * 0, penalty=L1(1.0)))
    with pytest.raises(TypeError, match="problem: want l1jax"):
        sweep(3.0)


def test_counts_are_responses_too():
    found = sweep(Problem(X / 10, SIGNS[:, 0], loss=Poisson(), penalty=L1(1.0)), targets=SIGNS, lams=[0.02])
    assert bool(jnp.all(found.converged))


@pytest.mark.usefixtures("float32")
def test_single_precision():
    problem = Problem(X, Y, penalty=L1(1.0))
    found = sweep(problem, weights=WEIGHTS, num=20, ratio=1e-3)
    assert found.coef.dtype == np.float32
    assert bool(jnp.all(found.converged))
    assert float(found.tol[0, 0]) == np.float32(1e-5)
    half = sweep(Problem(X.astype(np.float16), Y.astype(np.float16), penalty=L1(1.0)), weights=WEIGHTS, lams=LAMS)
    assert half.coef.dtype == np.float32
    assert bool(jnp.all(half.converged))
