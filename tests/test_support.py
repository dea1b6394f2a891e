"""What became zero: counted, measured against the optimality conditions, polished, frozen."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import l1jax
from l1jax import L1, MCP, Bounds, GroupLasso, UnitLasso, Units


@functools.cache
def lasso():
    """A design (60, 12) whose columns have norm sqrt(60), a target, a strength, and the solution there."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 12))
    X /= np.sqrt(np.mean(X**2, axis=0))
    y = X[:, :4] @ [2.0, -1.0, 0.5, 0.2] + 0.3 * rng.standard_normal(60)
    solved = l1jax.solve(l1jax.Problem(X, y, penalty=L1(0.1), fit_intercept=False), tol=1e-14)
    return X, y, np.asarray(solved.coef)


def squared(w):
    X, y, _ = lasso()
    return jnp.sum((jnp.asarray(X, w.dtype) @ w - jnp.asarray(y, w.dtype)) ** 2) / 120


def network(params, X, y):
    hidden = jnp.tanh(X @ params["w1"] + params["b1"][None])
    return jnp.mean((hidden @ params["w2"] - y[:, None]) ** 2)


@pytest.fixture
def start(rng):
    shapes = {"w1": (12, 6), "b1": (6,), "w2": (6, 1)}
    return {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}


MASK = {"w1": True, "b1": False, "w2": True}


# -- counted


def test_support_and_report_count_as_numpy_does(rng):
    params = {
        "dense": {"kernel": jnp.asarray(rng.integers(0, 2, (5, 4)) * [1.0, 0.0, 1.0, 1.0]), "bias": jnp.zeros(4)},
        "query": {"kernel": np.repeat([1.0, 0.0], [4, 4])[None] * np.ones((3, 1))},
        "scale": 0.0,
        "name": "not an array",
    }
    kernel = np.asarray(params["dense"]["kernel"])
    np.testing.assert_array_equal(l1jax.support(params["dense"])["kernel"], kernel != 0)
    units = Units.neurons({"dense": params["dense"]}) | Units.heads({"query": params["query"]}, {"query/kernel": 1}, 2)
    report = l1jax.sparsity_report(params, units)
    assert [leaf.path for leaf in report.leaves] == ["dense/bias", "dense/kernel", "query/kernel", "scale"]
    assert [leaf.nonzeros for leaf in report.leaves] == [0, np.count_nonzero(kernel), 12, 0]
    assert report.size == 4 + 20 + 24 + 1
    assert report.nonzeros == np.count_nonzero(kernel) + 12
    assert report.zeros == 1 - report.nonzeros / report.size
    assert report.leaves[2].zeros == 0.5
    alive = {each.name: (each.alive, each.units) for each in report.units}
    assert alive == {"dense/kernel": (np.count_nonzero(kernel.any(axis=0)), 4), "heads/": (1, 2)}
    shown = repr(report).splitlines()
    assert len(shown) == 1 + 4 + 1 + 1 + 1 + 2
    assert shown[3].split() == ["query/kernel", "(3,", "8)", "12", "24", "50.0%"]


def test_a_report_of_nothing_and_of_tracers():
    assert l1jax.sparsity_report({}).zeros == 0.0
    assert repr(l1jax.sparsity_report(jnp.zeros(0))).splitlines()[1].split() == [".", "(0,)", "0", "0", "0.0%"]
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda w: l1jax.sparsity_report(w).nonzeros)(jnp.ones(2))


# -- measured


def test_kkt_residual_is_the_definition(rng):
    w = {"a": rng.standard_normal(6) * [1, 0, 1, 0, 0, 1], "b": rng.standard_normal(3)}
    g = {"a": 0.5 * rng.standard_normal(6), "b": 0.01 * rng.standard_normal(3)}
    lasso = np.where(w["a"] == 0, np.maximum(np.abs(g["a"]) - 0.4, 0), np.abs(g["a"] + 0.4 * np.sign(w["a"])))
    mask = {"a": True, "b": False}
    found = jax.jit(lambda w, g: l1jax.kkt_residual(w, g, L1(0.4), mask))(w, g)
    assert found.shape == ()
    np.testing.assert_allclose(found, max(lasso.max(), np.abs(g["b"]).max()), rtol=1e-12)
    np.testing.assert_allclose(l1jax.kkt_residual(w, {**g, "b": np.array([9.0, 0, 0])}, L1(0.4), lambda _: mask), 9)

    group = np.array([0, 0, 1, 1, 2, 2])
    v = np.array([0.0, 0.0, 3.0, 4.0, 0.0, 0.0])
    u = np.array([0.6, 0.8, -0.3, 0.1, 0.1, 0.1])
    t = 0.5 * np.sqrt(2)
    want = [(1 - t) * u[0], (1 - t) * u[1], abs(u[2] + t * 0.6), abs(u[3] + t * 0.8), 0.0]
    np.testing.assert_allclose(l1jax.kkt_residual(v, u, GroupLasso(0.5, group)), max(want), rtol=1e-12)
    units = UnitLasso(0.5, {"": ("rows", 0)})
    np.testing.assert_allclose(l1jax.kkt_residual(v.reshape(3, 2), u.reshape(3, 2), units), max(want), rtol=1e-12)


def test_kkt_residual_is_0_at_solutions_only():
    solution = jnp.asarray(lasso()[2])
    residual = jax.jit(lambda w: l1jax.kkt_residual(w, jax.grad(squared)(w), L1(0.1)))
    assert residual(solution) < 1e-7
    assert residual(solution + 1e-3) > 1e-4
    half = l1jax.kkt_residual(solution.astype(jnp.bfloat16), jax.grad(squared)(solution), L1(0.1))
    assert half < 0.02
    with pytest.raises(TypeError, match="penalty"):
        l1jax.kkt_residual(solution, solution, 0.1)


# -- averaged weights


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_apply_prox_gives_averages_their_zeros(dtype):
    params = {"w": jnp.asarray([1.0, 0.01, -0.01, -2.0], dtype), "b": jnp.asarray([0.01], dtype)}
    done = jax.jit(lambda params: l1jax.apply_prox(params, L1(0.5), 0.5, {"w": True, "b": False}))(params)
    assert done["w"].dtype == dtype
    np.testing.assert_array_equal(np.asarray(done["w"], float), [0.75, 0, 0, -1.75])
    np.testing.assert_array_equal(done["b"], params["b"])
    steps = {"w": 4.0, "b": 0.0}
    np.testing.assert_array_equal(np.asarray(l1jax.apply_prox(params, L1(0.5), steps)["w"], float), 0)
    with pytest.raises(ValueError, match="step"):
        l1jax.apply_prox(params, L1(0.5), -0.1)


# -- polished


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_polish_ends_where_solve_does(dtype):
    tol = 1e-8 if dtype == jnp.float64 else 2e-6
    start = jnp.asarray(lasso()[2] + 0.01, dtype)
    done = jax.jit(lambda w: l1jax.polish(squared, w, L1(jnp.asarray(0.1, dtype)), tol=tol))(start)
    assert done.params.dtype == done.objective.dtype == dtype
    np.testing.assert_allclose(done.params, lasso()[2], atol=20 * tol)
    np.testing.assert_array_equal(done.params == 0, lasso()[2] == 0)
    assert done.residual <= tol
    assert 1 < done.steps < 150
    np.testing.assert_allclose(done.objective, squared(done.params) + 0.1 * jnp.sum(jnp.abs(done.params)), rtol=1e-6)


def test_polish_ends_the_flicker_of_minibatch_zeros():
    X, y, solution = lasso()
    tx = l1jax.prox_sgd(0.05, L1(0.1))

    def step(carry, rows):
        w, state = carry
        updates, state = tx.update(
            jnp.asarray(X)[rows].T @ (jnp.asarray(X)[rows] @ w - jnp.asarray(y)[rows]) / 6, state, w
        )
        return (optax.apply_updates(w, updates), state), w

    rows = jax.random.randint(jax.random.key(0), (600, 6), 0, 60)
    (noisy, _), path = jax.lax.scan(step, (jnp.zeros(12), tx.init(jnp.zeros(12))), rows)
    assert np.any((np.asarray(path)[300:] != 0) != (solution != 0))
    done = l1jax.polish(squared, noisy, L1(0.1))
    np.testing.assert_array_equal(done.params != 0, solution != 0)


@pytest.mark.parametrize("penalty", [L1(0.02), UnitLasso(0.02, {"w1": ("hidden", -1), "w2": ("hidden", 0)}), MCP(0.02)],
                         ids=["l1", "units", "mcp"])  # fmt: skip
def test_polish_never_raises_the_objective_of_a_network(start, penalty):
    X, y = map(jnp.asarray, lasso()[:2])

    def price(params):
        return penalty.value({"w1": params["w1"], "w2": params["w2"]})

    def run(steps):
        return l1jax.polish(lambda params: network(params, X, y), start, penalty, steps=steps, tol=1e-5, mask=MASK)

    run = jax.jit(run)
    ends = [run(steps) for steps in (0, 1, 2, 3, 5, 8, 13, 50, 200, 1000)]
    objectives = np.array([end.objective for end in ends])
    np.testing.assert_allclose(objectives[0], network(start, X, y) + price(start), rtol=1e-12)
    assert np.all(np.diff(objectives) <= 1e-14 * objectives[0])
    assert objectives[-1] < 0.2 * objectives[0]
    last = ends[-1]
    grads = jax.grad(network)(last.params, X, y)
    np.testing.assert_allclose(l1jax.kkt_residual(last.params, grads, penalty, MASK), last.residual, atol=1e-12)
    assert last.residual < ends[0].residual / 30
    assert np.all(last.params["b1"] != 0)
    assert np.any(last.params["w1"] == 0)


def test_polish_batches_over_lambda_and_starts_anywhere():
    lams = jnp.array([0.03, 0.1, 0.3])
    many = jax.vmap(lambda lam: l1jax.polish(squared, jnp.zeros(12), L1(lam), tol=1e-8).params)(lams)
    np.testing.assert_allclose(many[1], lasso()[2], atol=1e-7)
    assert np.all(np.diff(np.count_nonzero(many, axis=1)) <= 0)
    bounded = l1jax.polish(
        squared, jnp.full(12, 5.0), Bounds(L1(0.1), 0.0, 1.0), tol=1e-8
    )  # the start is out of bounds
    assert np.all((bounded.params >= 0) & (bounded.params <= 1))
    assert bounded.residual <= 1e-8
    lost = l1jax.polish(squared, jnp.full(12, jnp.nan), L1(0.1))
    assert np.isnan(lost.objective)
    assert lost.steps == 0
    steep = l1jax.polish(lambda w: 1e8 * squared(w), jnp.zeros(12), L1(1e7), tol=1.0)
    np.testing.assert_allclose(steep.params, lasso()[2], atol=1e-7)
    with pytest.raises(TypeError, match="loss"):
        l1jax.polish(0.1, jnp.zeros(12), L1(0.1))


@pytest.mark.parametrize("library", ["equinox", "flax nnx"])
def test_polish_takes_whole_models(library):
    X, y = map(jnp.asarray, lasso()[:2])
    rngs = nnx.Rngs(0)
    if library == "equinox":
        model, run = eqx.nn.MLP(12, 1, 4, 1, jnp.tanh, key=jax.random.key(0)), jax.vmap
    else:
        run = lambda model: model  # noqa: E731
        layers = [nnx.Linear(a, b, param_dtype=jnp.float64, rngs=rngs) for a, b in ((12, 4), (4, 1))]
        model = nnx.Sequential(layers[0], jnp.tanh, nnx.Dropout(0.1, deterministic=True, rngs=rngs), layers[1])

    def loss(model):
        return jnp.mean((run(model)(X)[:, 0] - y) ** 2)

    before = loss(model)
    done = l1jax.polish(loss, model, L1(0.05), steps=30, mask=l1jax.weights_only)
    assert type(done.params) is type(model)
    assert loss(done.params) < before == loss(model)
    report = l1jax.sparsity_report(done.params)
    assert len(report.leaves) == 4
    assert 0 < report.zeros < 1


# -- frozen


@pytest.mark.usefixtures("standard_promotion")
def test_freeze_support_trains_the_survivors_to_least_squares():
    X, y, solution = lasso()
    tx = optax.chain(optax.adam(0.02), l1jax.freeze_support())
    params = jnp.asarray(solution)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(squared)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=2000)
    alive = solution != 0
    np.testing.assert_array_equal(np.asarray(params) != 0, alive)
    np.testing.assert_allclose(params[alive], np.linalg.lstsq(X[:, alive], y)[0], atol=1e-6)


def test_freeze_support_leaves_what_the_mask_leaves(start):
    params = {**start, "b1": jnp.zeros(6), "w1": jnp.zeros((12, 6))}
    ones = jax.tree.map(jnp.ones_like, params)
    tx = l1jax.freeze_support(mask=MASK)
    updates, _ = jax.jit(tx.update)(ones, tx.init(params), params)
    assert not np.any(updates["w1"])
    assert np.all(updates["b1"] == 1)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(ones, tx.init(params))
