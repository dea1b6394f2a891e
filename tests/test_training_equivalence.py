"""Published updates, transcribed to NumPy, and group steps against roots found by scipy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq

import l1jax
from l1jax import L1, MCP, SCAD, GroupLasso, LHalf, SparseGroupLasso, UnitLasso, Units

pytestmark = pytest.mark.usefixtures("standard_promotion")


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


@pytest.fixture
def lasso(rng):
    X = rng.standard_normal((40, 12))
    y = X[:, :3] @ np.array([2.0, -1.0, 0.5]) + 0.1 * rng.standard_normal(40)
    return X, y, np.linalg.eigvalsh(X.T @ X / 40)[-1], 0.1


def path(tx, X, y, start, steps):
    """The iterates, and what `iterate` says of them."""
    params, state, found = jnp.asarray(start), tx.init(jnp.asarray(start)), []
    update = jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(jnp.asarray(X.T @ (X @ np.asarray(params) - y) / len(y)), state, params)
        params = optax.apply_updates(params, updates)
        found.append((np.asarray(params), np.asarray(l1jax.iterate(state, params))))
    return map(np.stack, zip(*found, strict=True))


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(ours) == 0, np.asarray(theirs) == 0)


def test_prox_adam_and_adamw_are_proxgen(lasso):
    """Yun, Lozano, Yang (2021), algorithm 1; decay before the prox."""
    X, y, _, lam = lasso
    lr, b1, b2, eps, decay = 0.05, 0.9, 0.99, 1e-6, 0.3
    for weight_decay in (0.0, decay):
        w, m, v, want = np.ones(12), np.zeros(12), np.zeros(12), []
        for k in range(1, 31):
            g = X.T @ (X @ w - y) / 40
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            scale = lr / (np.sqrt(v / (1 - b2**k)) + eps)
            w = soft(w - scale * m / (1 - b1**k) - lr * weight_decay * w, scale * lam)
            want.append(w)
        ours, _ = path(
            l1jax.prox_adamw(lr, L1(lam), b1=b1, b2=b2, eps=eps, weight_decay=weight_decay), X, y, np.ones(12), 30
        )
        agree(ours, want)
    ours, _ = path(l1jax.prox_adam(lr, L1(lam), b1=b1, b2=b2, eps=eps, decoupled=True), X, y, np.ones(12), 1)
    g = X.T @ (X @ np.ones(12) - y) / 40
    agree(ours[0], soft(1 - lr * g / (np.abs(g) + eps), lr * lam))


def test_prox_rmsprop_and_adagrad_are_theirs(lasso):
    X, y, _, lam = lasso
    lr, w, v, u, n = 0.05, np.ones(12), np.zeros(12), np.ones(12), np.full(12, 0.2)
    rms, ada = [], []
    for _ in range(20):
        g = X.T @ (X @ w - y) / 40
        v = 0.8 * v + 0.2 * g * g
        w = soft(w - lr * g / np.sqrt(v + 1e-8), lr * lam / np.sqrt(v + 1e-8))
        rms.append(w)
        g = X.T @ (X @ u - y) / 40
        n = n + g * g
        u = soft(u - lr * g / np.sqrt(n + 1e-7), lr * lam / np.sqrt(n + 1e-7))
        ada.append(u)
    agree(next(iter(path(l1jax.prox_rmsprop(lr, L1(lam), decay=0.8), X, y, np.ones(12), 20))), rms)
    tx = l1jax.prox_adagrad(lr, L1(lam), initial_accumulator_value=0.2)
    agree(next(iter(path(tx, X, y, np.ones(12), 20))), ada)


def test_prox_sgd_at_a_constant_step_is_the_ista_of_solve(lasso):
    X, y, _, lam = lasso
    X = 0.7 * X / np.sqrt(np.mean(X**2, axis=0))  # solve takes columns of such a size as they are
    L = np.linalg.eigvalsh(X.T @ X / 40)[-1]
    ours, _ = path(l1jax.prox_sgd(1 / L, L1(lam)), X, y, np.zeros(12), 20)
    problem = l1jax.Problem(X, y, penalty=L1(lam), fit_intercept=False)
    for k in (10, 20):  # solve looks at the gap every 10 steps
        ista = l1jax.solve(problem, solver=lambda p: l1jax.proximal(optax.identity(), p, 1 / L), tol=0.0, max_steps=k)
        np.testing.assert_allclose(ours[k - 1], ista.coef, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(ours[k - 1] == 0, ista.coef == 0)
    w = np.zeros(12)
    for k in range(20):
        w = soft(w - X.T @ (X @ w - y) / 40 / L, lam / L)
        agree(ours[k], w)


@pytest.mark.parametrize("total", [False, True])
def test_ftrl_is_the_published_algorithm(lasso, total):
    """McMahan et al. (2013), algorithm 1: weights from z, then z and n from the gradient there."""
    X, y, _, lam = lasso
    alpha, beta, z, n, w, want = 0.5, 1.0, np.zeros(12), np.zeros(12), np.zeros(12), []
    for t in range(1, 31):
        g = X.T @ (X @ w - y) / 40
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
        z, n = z + g - sigma * w, n + g * g
        l1 = lam if total else t * lam
        w = np.where(np.abs(z) <= l1, 0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha))
        want.append(w)
    agree(next(iter(path(l1jax.ftrl(alpha, L1(lam), total=total), X, y, np.zeros(12), 30))), want)


def test_ftrl_starts_where_the_parameters_are_and_a_total_lam_fades(lasso):
    X, y, _, lam = lasso
    ours, _ = path(l1jax.ftrl(0.5, L1(lam)), X, y, np.full(12, 0.5), 1)
    g = X.T @ (X @ np.full(12, 0.5) - y) / 40
    agree(ours[0], soft(0.5 - 0.5 * g / (1 + np.abs(g)), 0.5 * lam / (1 + np.abs(g))))
    w = next(iter(path(l1jax.ftrl(1.0, L1(lam), total=True), X, y, np.zeros(12), 2000)))[-1]
    assert np.abs(X.T @ (X @ w - y) / 40).max() < lam / 50


def test_rda_is_the_published_algorithm(lasso):
    """Xiao (2010), algorithm 1: -(sqrt(t)/gamma) * soft(mean of g, lam)."""
    X, y, _, lam = lasso
    gamma, w, total, want = 2.0, np.zeros(12), np.zeros(12), []
    for t in range(1, 31):
        total = total + X.T @ (X @ w - y) / 40
        w = -(np.sqrt(t) / gamma) * soft(total / t, lam)
        want.append(w)
    agree(next(iter(path(l1jax.rda(1 / gamma, L1(lam)), X, y, np.zeros(12), 30))), want)


@pytest.mark.parametrize("adaptive", [False, True])
def test_ramda_is_the_published_algorithm(lasso, adaptive):
    """Huang and Lee (2022; 2024): s_t = lr*sqrt(t), P = sqrt(t) or cbrt(sum s g^2) + eps, then momentum."""
    X, y, _, lam = lasso
    lr, c, start = 0.3, 0.4, np.ones(12)
    w, V, U, a, want, sparse = start, np.zeros(12), np.zeros(12), 0.0, [], []
    for t in range(1, 31):
        g, s = X.T @ (X @ w - y) / 40, lr * np.sqrt(t)
        V, U, a = V + s * g, U + s * g * g, a + s
        P = np.cbrt(U) + 1e-6 if adaptive else np.full(12, np.sqrt(t))
        x = soft(start - V / P, a * lam / P)
        w = (1 - c) * w + c * x
        want.append(w)
        sparse.append(x)
    dense, ours = path(l1jax.ramda(lr, L1(lam), momentum=1 - c, adaptive=adaptive), X, y, start, 30)
    np.testing.assert_allclose(dense, want, rtol=1e-9, atol=1e-12)
    agree(ours, sparse)


# -- groups in a diagonal metric


def group_prox(v, s, b):
    """argmin sum (w - v)^2/(2 s) + b |w|_2, by scipy's root of the scalar equation."""
    if np.sum((v / s) ** 2) <= b**2:
        return np.zeros_like(v)
    r = brentq(lambda r: np.sum((v / (r + s * b)) ** 2) - 1, 1e-300, np.linalg.norm(v), xtol=1e-300, rtol=1e-15)
    return v * r / (r + s * b)


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_group_prox_in_a_diagonal_metric_is_scipys(rng, spread, ratio):
    labels = np.repeat(np.arange(40), 3)
    penalty = SparseGroupLasso(0.7, labels, l1_ratio=ratio)
    v = rng.standard_normal(120) * np.repeat(10.0 ** rng.uniform(-3, 3, 40), 3)
    s = np.repeat(10.0 ** rng.uniform(-3, 3, 40), 3) * 10.0 ** rng.uniform(-spread, spread, 120)
    act = jax.jit(penalty.prox)
    ours = np.asarray(act(v, s))
    shrunk = soft(v, 0.7 * ratio * s)
    want = np.concatenate([group_prox(shrunk[labels == g], s[labels == g], 0.7 * (1 - ratio) * np.sqrt(3))
                           for g in range(40)])  # fmt: skip
    np.testing.assert_allclose(ours, want, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(ours == 0, want == 0)
    assert 5 < np.count_nonzero(ours == 0) < 118
    single = np.asarray(act(v.astype(np.float32), s.astype(np.float32)))
    np.testing.assert_allclose(single, want, rtol=2e-5, atol=1e-6 * np.abs(want).max())


def test_group_prox_of_steps_that_are_0_and_its_derivative(rng):
    penalty = GroupLasso(0.5, [0, 0, 1, 1])
    act = jax.jit(penalty.prox)
    np.testing.assert_array_equal(act(jnp.array([3.0, 0.2, 0.0, 0.0]), jnp.zeros(4)), [3, 0.2, 0, 0])
    held = act(jnp.array([3.0, 0.2, 0.1, 0.1]), jnp.array([0.0, 100.0, 100.0, 100.0]))
    assert held[0] == 3
    np.testing.assert_array_equal(held[2:], 0)
    v, s = rng.standard_normal(4) + 2, rng.uniform(0.2, 1, 4)
    chex.assert_numerical_grads(lambda v, s: act(v, s) @ jnp.arange(1.0, 5.0), (v, s), order=1)
    assert np.all(np.isfinite(jax.grad(lambda v: act(v, jnp.asarray(s)).sum())(jnp.zeros(4))))


def test_a_shared_scale_is_that_of_the_mean_second_moment(lasso):
    """The default group step: one second moment per group in the direction and in the prox."""
    X, y, _, lam = lasso
    labels, lr = np.repeat(np.arange(4), 3), 0.05
    w, m, v, want = np.ones(12), np.zeros(12), np.zeros(12), []
    for k in range(1, 21):
        g = X.T @ (X @ w - y) / 40
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        root = np.sqrt(v / (1 - 0.99**k)) + 1e-8
        scale = np.concatenate([np.full(3, 1 / np.sqrt(np.mean(root[labels == j] ** 2))) for j in range(4)])
        z = w - lr * scale * m / (1 - 0.9**k)
        w = np.concatenate([group_prox(z[labels == j], lr * scale[labels == j], lam * 3**0.5) for j in range(4)])
        want.append(w)
    tx = l1jax.prox_adam(lr, GroupLasso(lam, labels), b2=0.99)
    np.testing.assert_allclose(next(iter(path(tx, X, y, np.ones(12), 20))), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("penalty", [MCP(0.5), MCP(0.5, gamma=0.5), SCAD(0.5), l1jax.L0(0.3), LHalf(0.4)], ids=repr)
def test_nonconvex_prox_in_a_diagonal_metric_is_the_best_of_a_grid(rng, penalty):
    v, s = rng.uniform(-3, 3, 40), 10.0 ** rng.uniform(-1, 1, 40)
    w = np.asarray(penalty.prox(v, s))
    grid = np.linspace(-4, 4, 4001)
    cost = np.asarray(jax.vmap(lambda a: penalty.value(a[None]))(jnp.asarray(grid)))
    own = np.asarray(jax.vmap(lambda a: penalty.value(a[None]))(jnp.asarray(w)))
    best = np.min((grid - v[:, None]) ** 2 / (2 * s[:, None]) + cost, axis=1)
    assert np.all((w - v) ** 2 / (2 * s) + own <= best + 1e-9)


# -- units of networks


SHAPES = {"dense": {"kernel": (5, 4), "bias": (4,)}, "conv": {"kernel": (3, 2, 4), "bias": (4,)},
          "attention": {"query": {"kernel": (4, 2, 3)}, "out": {"kernel": (6, 4)}}, "embedding": (7, 3)}  # fmt: skip


@pytest.fixture
def params(rng):
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.standard_normal(shape)), SHAPES, is_leaf=lambda a: isinstance(a, tuple)
    )


def everything(params):
    return (
        Units.neurons(params, where=lambda path: path.startswith("dense"))
        | Units.slices(params, -2, where=lambda path: path.startswith("conv"))
        | Units.heads(params, {"query/kernel": 1, "out/kernel": 0}, 2)
        | Units.leaves(params, where=lambda path: path == "embedding")
    )


def groups_of(params):
    """Index lists into the flat parameters, written out by hand; -1 for none."""
    label = jax.tree.map(lambda a: np.full(a.shape, -1), params)
    label["dense"]["kernel"][:] = np.arange(4)
    label["dense"]["bias"][:] = np.arange(4)
    label["conv"]["kernel"][:] = (10 + np.arange(2))[:, None]
    label["attention"]["query"]["kernel"][:] = (20 + np.arange(2))[:, None]
    label["attention"]["out"]["kernel"][:] = np.repeat(20 + np.arange(2), 3)[:, None]
    label["embedding"][:] = 30
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(label)])


@pytest.mark.parametrize("ratio", [0.0, 0.3])
def test_units_are_the_groups_written_out_by_hand(rng, params, ratio):
    penalty, labels = UnitLasso(0.4, everything(params), l1_ratio=ratio), groups_of(params)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    weights = np.array([0.0 if g < 0 else np.sqrt(np.sum(labels == g)) for g in np.unique(labels)])
    by_hand = SparseGroupLasso(0.4, labels, l1_ratio=ratio, weights=weights)
    inside = labels >= 0
    steps = jnp.asarray(10.0 ** rng.uniform(-1, 0.5, flat.shape))
    flat = jnp.where(np.isin(labels, [1, 21, 10]), 0.05, 1.0) * flat
    u = 3 * jnp.asarray(rng.standard_normal(flat.shape))
    kept = jnp.where(inside, u, 0.0)

    def facts(penalty, tree, flatten):
        """What the penalty says, flat: where units are, and elsewhere."""
        whole = {
            "one step": penalty.prox(tree(flat), 0.5),
            "metric": penalty.prox(tree(flat), tree(steps)),
            "shared": jax.tree.map(
                lambda a, b: jnp.broadcast_to(a, b.shape), penalty.blockwise(tree(steps)), tree(flat)
            ),
        }
        at = tree(flatten(whole["metric"]))
        whole["nearest"] = penalty.nearest_subgradient(at, tree(u))
        whole["alive"] = penalty.alive(at)
        numbers = {
            "value": penalty.value(tree(jnp.where(inside, flatten(at), 0.0))),
            "critical": penalty.critical_lam(tree(kept)),
            "conjugate": jnp.stack([penalty.conjugate(tree(a)) for a in (kept, kept / 100)]),
            "scalings": penalty.scalings(tree(kept))[0],
        }
        return {name: flatten(a) for name, a in whole.items()}, numbers

    whole, numbers = jax.jit(lambda: facts(penalty, unravel, lambda t: jax.flatten_util.ravel_pytree(t)[0]))()
    want, want_numbers = jax.jit(lambda: facts(by_hand, lambda a: a, lambda a: a))()
    for name, ours in whole.items():
        np.testing.assert_allclose(ours[inside], want[name][inside], rtol=1e-11, atol=1e-14, err_msg=name)
    for name, ours in numbers.items():
        np.testing.assert_allclose(ours, want_numbers[name], rtol=1e-11, err_msg=name)
    outside = {"one step": flat, "metric": flat, "shared": steps, "nearest": 0 * flat, "alive": flat == flat}
    for name, unchanged in outside.items():
        np.testing.assert_array_equal(whole[name][~inside], unchanged[~inside], err_msg=name)
    assert np.any(whole["one step"] == 0)
    assert np.any(~whole["alive"])
    assert penalty.conjugate(unravel(u / 100)) == np.inf  # some of u has no price
    assert penalty.valid(params)


def test_makers_read_a_tree():
    shapes = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), SHAPES, is_leaf=lambda a: isinstance(a, tuple)
    )
    neurons = Units.neurons({"dense": shapes["dense"], "conv": shapes["conv"]})
    assert set(neurons.members) == {"dense/kernel", "dense/bias", "conv/kernel", "conv/bias"}
    assert neurons == Units(dict(neurons.members))
    assert hash(neurons) == hash(Units(dict(neurons.members)))
    assert eval(repr(neurons), {"Units": Units}) == neurons
    torch_like = [{"weight": jnp.ones((4, 3)), "bias": jnp.ones(4)}, {"weight": jnp.ones((2, 4)), "bias": jnp.ones(2)}]
    assert Units.neurons(torch_like, axis=0).members["1/bias"].name == "1/weight"
    flat = {"w1": jnp.ones((3, 3)), "w2": jnp.ones((3, 3)), "b1": jnp.ones(3)}
    assert "b1" not in Units.neurons(flat).members  # whose bias it is cannot be seen
    assert UnitLasso(1.0, {"w1": ("w1", 0)}).units == Units({"w1": ("w1", 0)})


def test_bad_units_say_what_is_wanted(params):
    with pytest.raises(ValueError, match=r"both sets have dense/bias"):
        Units.neurons(params["dense"] and {"dense": params["dense"]}) | Units({"dense/bias": ("b", 0)})
    with pytest.raises(ValueError, match="no axis 3"):
        UnitLasso(1.0, {"dense/kernel": ("a", 3)}).prox(params, 1.0)
    with pytest.raises(ValueError, match="3 blocks do not fit"):
        UnitLasso(1.0, {"dense/kernel": ("a", 1, 3)}).prox(params, 1.0)
    with pytest.raises(ValueError, match="different numbers of units"):
        UnitLasso(1.0, {"dense/kernel": ("a", 0), "dense/bias": ("a", 0)}).prox(params, 1.0)
    with pytest.raises(TypeError, match="units: want"):
        Units({"dense/kernel": 1})


def test_units_of_a_masked_tree_are_those_that_are_left(params):
    penalty = UnitLasso(0.4, everything(params))
    whole, part = jax.jit(lambda p: (penalty.prox(p, 0.3), penalty.prox({**p, "dense": optax.MaskedNode()}, 0.3)))(
        params
    )
    chex.assert_trees_all_close({**whole, "dense": optax.MaskedNode()}, part)
