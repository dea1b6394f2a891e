"""Every transformation in every wrapper: the share of exact zeros that survives, and optax's own contract."""

import pickle
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import l1jax
from l1jax import L1

pytestmark = pytest.mark.usefixtures("standard_promotion")

RATE = 0.1
MAKERS = {
    "add_subgradient": lambda p, **k: optax.chain(l1jax.add_subgradient(p, **k), optax.sgd(RATE)),
    "stop_at_zero": lambda p, **k: optax.chain(l1jax.add_subgradient(p, **k), optax.sgd(RATE), l1jax.stop_at_zero()),
    "proximal": lambda p, **k: l1jax.proximal(optax.identity(), p, RATE, **k),
    "prox_update": lambda p, **k: optax.chain(optax.sgd(RATE), l1jax.prox_update(p, RATE, **k)),
    "fista": lambda p, **k: l1jax.fista(RATE, p, **k),
    "prox_sgd": lambda p, **k: l1jax.prox_sgd(RATE, p, **k),
    "prox_sgd momentum": lambda p, **k: l1jax.prox_sgd(RATE, p, momentum=0.8, **k),
    "prox_adam": lambda p, **k: l1jax.prox_adam(RATE, p, **k),
    "prox_adamw": lambda p, **k: l1jax.prox_adamw(RATE, p, **k),
    "prox_rmsprop": lambda p, **k: l1jax.prox_rmsprop(RATE, p, **k),
    "prox_adagrad": lambda p, **k: l1jax.prox_adagrad(1.0, p, **k),
    "ftrl": lambda p, **k: l1jax.ftrl(1.0, p, **k),
    "rda": lambda p, **k: l1jax.rda(4.0, p, **k),
    "ramda": lambda p, **k: l1jax.ramda(RATE, p, **k),
}
WRAPPERS = {
    "nothing": lambda tx: tx,
    "clipped before": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx),
    "masked": lambda tx: optax.masked(tx, {"w": True}),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.sgd(0.1)}, {"w": "a"}),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda size: optax.chain(optax.scale(size), tx))(1.0),
    "conditionally": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
    "decayed after": lambda tx: optax.chain(tx, optax.add_decayed_weights(-1e-3)),  # 0 decays to 0
    # Whatever else moves parameters after the prox loses its zeros.
    "clipped after": lambda tx: optax.chain(tx, optax.clip_by_global_norm(1e-3)),
    "averaged after": lambda tx: optax.chain(tx, optax.ema(0.9)),
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, RATE),
}
SHARES = {"none": (0.0, 0.0), "few": (0.0, 0.35), "half": (0.4, 0.7), "all": (1.0, 1.0)}


def expected(name, wrapper):
    """The word for a cell's share of zeros."""
    destroyed = wrapper in ("clipped after", "averaged after", "schedule_free")
    if name == "add_subgradient":
        return "none"
    if name == "stop_at_zero":
        return "none" if destroyed or wrapper == "decayed after" else "half"
    # `iterate` reads these two's sparse points from their states, which an average of updates leaves alone.
    if (name, wrapper) in {("fista", "averaged after"), ("fista", "schedule_free"), ("ramda", "averaged after")}:
        return "all"
    return "few" if destroyed else "all"


def problem():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((50, 20))
    X = X / np.sqrt(np.linalg.eigvalsh(X.T @ X / 50)[-1])
    return jnp.asarray(X), jnp.asarray(X[:, :4] @ [3.0, -2.0, 2.0, 1.0] + 0.1 * rng.standard_normal(50))


def trainer(tx, start, grad):
    """A function of the number of steps, compiled once."""

    def body(_, carry):
        params, state = carry
        updates, state = tx.update(grad(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(lambda steps: jax.lax.fori_loop(0, steps, body, (start, tx.init(start))))


def train(tx, start, grad, steps):
    return trainer(tx, start, grad)(steps)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_share_of_zeros_that_survives(wrapper):
    """Of a lasso's zeros, those that are exact zeros after 600 steps: every transformation in every wrapper."""
    X, y = problem()
    found = {}
    for name, make in MAKERS.items():
        tx = WRAPPERS[wrapper](make(L1(0.05)))
        params, state = train(tx, {"w": jnp.full(20, 0.3)}, lambda p: {"w": X.T @ (X @ p["w"] - y) / 50}, 600)
        share = float(np.mean(np.asarray(l1jax.iterate(state, params)["w"])[4:] == 0))
        low, high = SHARES[expected(name, wrapper)]
        found[name] = expected(name, wrapper) if low <= share <= high else share
    assert found == {name: expected(name, wrapper) for name in MAKERS}


def test_averages_of_parameters_lose_zeros_and_low_precision_loses_some(float32):
    """What is documented and cannot be seen from inside: measured."""
    X, y = (a.astype(jnp.float32) for a in problem())
    tx = l1jax.prox_adam(1e-2, L1(0.05))

    def zeros(dtype):
        start = {"w": jnp.full(20, 0.3, dtype)}
        params, _ = train(tx, start, lambda p: {"w": (X.T @ (X @ p["w"].astype(X.dtype) - y) / 50).astype(dtype)}, 600)
        return params["w"]

    full = zeros(jnp.float32)
    average = optax.incremental_update({"w": full}, {"w": jnp.full(20, 0.3)}, 0.1)["w"]
    assert np.mean(full == 0) == 0.8
    assert np.mean(average == 0) == 0
    with pytest.warns(UserWarning, match=r"\['w'\]: bfloat16 rounds small shrinkages away"):
        zeros(jnp.bfloat16)


# -- optax's contract

each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each
def test_state_is_plain_stable_arrays(make):
    """Under lax.cond, through pickle, with extra arguments, mapped by tree_map_params, None leaves in the tree."""
    params = {"w": jnp.array([1.0, -0.3, 0.0]), "none": None, "b": jnp.array(0.2)}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = optax.with_extra_args_support(make(L1(0.1)))
    state = tx.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))

    @jax.jit
    def maybe(on, state):
        return jax.lax.cond(on, lambda s: tx.update(grads, s, params, value=1.0), lambda s: (grads, s), state)

    updates, new = maybe(True, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    restored = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, new)))
    chex.assert_trees_all_equal(tx.update(grads, restored, params), tx.update(grads, new, params))
    optax.tree_map_params(tx, lambda leaf: leaf, new)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(grads, state)


@each
@pytest.mark.filterwarnings("ignore:params.*rounds small shrinkages away")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_kept(make, dtype, float32):
    params = {"w": jnp.asarray([1.0, 0.01, 0.0], dtype), "wide": jnp.ones(2, jnp.float32)}
    tx = make(L1(1.0), strength=jnp.float32(1.5))
    state = tx.init(params)
    updates, new = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)


@each
def test_strength_is_a_hyperparameter(make):
    """Changed in the state, no recompiling; a schedule is a warm-up; lam traced is the same as strength."""
    params = {"w": jnp.array([1.0, -0.3, 0.2])}
    grads = {"w": jnp.array([0.1, 0.2, -0.3])}
    tx = optax.inject_hyperparams(lambda strength: make(L1(0.2), strength=strength))(strength=1.0)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for strength in (1.0, 3.0):
        state.hyperparams["strength"] = jnp.asarray(strength)
        got, _ = update(grads, state, params)
        plain = make(L1(0.2 * strength))
        chex.assert_trees_all_close(got, plain.update(grads, plain.init(params), params)[0], rtol=1e-12, atol=1e-15)

        def traced(lam):
            tx = make(L1(lam))
            return tx.update(grads, tx.init(params), params)[0]

        chex.assert_trees_all_close(got, jax.jit(traced)(0.2 * strength), rtol=1e-12, atol=1e-15)
    assert update._cache_size() == 1
    warm = make(L1(0.2), strength=optax.linear_schedule(0.0, 1.0, 10))
    free = make(l1jax.NoPenalty())
    first = warm.update(grads, warm.init(params), params)[0]
    chex.assert_trees_all_close(first, free.update(grads, free.init(params), params)[0], atol=1e-12)


def test_all_of_an_optimiser_in_inject_hyperparams():
    params, grads = jnp.array([1.0, 0.05, -2.0]), jnp.array([2.0, 0.0, 1.0])
    for make in (l1jax.prox_sgd, l1jax.prox_adam, l1jax.prox_adamw, l1jax.prox_rmsprop, l1jax.prox_adagrad, l1jax.ftrl,
                 l1jax.rda, l1jax.ramda):  # fmt: skip
        tx = optax.inject_hyperparams(make)(optax.linear_schedule(0.1, 0.2, 2), L1(0.5), strength=1.0)
        state = tx.init(params)
        assert {"learning_rate", "strength"} <= set(state.hyperparams)
        update = jax.jit(tx.update)
        for rate in (0.1, 0.15, 0.2):
            updates, state = update(grads, state, params)
            np.testing.assert_allclose(state.hyperparams["learning_rate"], rate)
        assert update._cache_size() == 1
        assert jnp.all(jnp.isfinite(updates))


@each
def test_mask_leaves_the_others_to_the_optimiser(make):
    params = {
        "layer": {"kernel": jnp.full((2, 3), 0.01), "bias": jnp.full(3, 0.01)},
        "norm": {"scale": jnp.full(3, 0.01)},
    }
    grads = jax.tree.map(jnp.zeros_like, params)
    everything, nothing = make(L1(10.0)), make(l1jax.NoPenalty())
    for mask in (l1jax.weights_only, {"layer": {"kernel": True, "bias": False}, "norm": False}):
        tx = make(L1(10.0), mask=mask)
        got, _ = jax.jit(tx.update)(grads, tx.init(params), params)
        all_of, _ = everything.update(grads, everything.init(params), params)
        none_of, _ = nothing.update(grads, nothing.init(params), params)
        chex.assert_trees_all_equal(got["layer"]["kernel"], all_of["layer"]["kernel"])
        chex.assert_trees_all_equal((got["layer"]["bias"], got["norm"]), (none_of["layer"]["bias"], none_of["norm"]))
    with pytest.raises(ValueError, match="mask: want truth values in a tree"):
        make(L1(1.0), mask={"other": True}).init(params)


def test_weights_only():
    names = ["kernel", "bias", "b", "ln_1", "layer_norm", "scale", "w", "weight"]
    assert [k for k, v in l1jax.weights_only({n: jnp.ones((2, 2)) for n in names}).items() if v] == [
        "kernel", "w", "weight"]  # fmt: skip
    params = [(jnp.ones((2, 2)), jnp.ones(2)), {"embedder": {"table": jnp.ones((3, 2))}, "none": None}]
    assert l1jax.weights_only(params) == [(True, False), {"embedder": {"table": False}, "none": None}]
    assert l1jax.weights_only(params, embeddings=True)[1]["embedder"]["table"]


# -- networks


def network(rng, width=8):
    X = jnp.asarray(rng.standard_normal((64, 6)))
    y = jnp.tanh(X[:, 0] - X[:, 1]) + 0.1 * jnp.asarray(rng.standard_normal(64))
    params = {"in": {"kernel": jnp.asarray(rng.standard_normal((6, width))) / 2, "bias": jnp.zeros(width)},
              "out": {"kernel": jnp.asarray(rng.standard_normal((width, 1))) / 2, "bias": jnp.zeros(1)}}  # fmt: skip

    def loss(params):
        hidden = jnp.tanh(X @ params["in"]["kernel"] + params["in"]["bias"][None, :])
        return jnp.mean((hidden @ params["out"]["kernel"] + params["out"]["bias"][None, :] - y[:, None]) ** 2)

    return params, jax.grad(loss)


@pytest.mark.parametrize("kind", ["l1", "units"])
def test_a_path_of_networks_in_one_vmap_is_separate_runs(rng, kind):
    params, grad = network(rng)
    lams = jnp.geomspace(1e-3, 0.3, 16)
    units = l1jax.Units.neurons({"in": params["in"]})

    def fit(lam):
        penalty = L1(lam) if kind == "l1" else l1jax.UnitLasso(lam, units)
        tx = l1jax.prox_adam(1e-2, penalty, mask=l1jax.weights_only if kind == "l1" else None)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(grad(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, tx.init(params)), length=150)[0][0]

    together = jax.jit(jax.vmap(fit))(lams)
    alone = jax.jit(lambda lams: jax.lax.map(fit, lams))(lams)
    chex.assert_trees_all_close(together, alone, rtol=1e-9, atol=1e-12)
    dead = np.mean(np.asarray(together["in"]["kernel"]) == 0, axis=(1, 2))
    assert dead[0] < 0.1
    assert dead[-1] > 0.8
    assert np.all(np.asarray(together["out"]["bias"]) != 0)


def test_units_die_whole_and_freeze(rng):
    """Bias and incoming weights go together; from `freeze_after` on, survivors forget the penalty."""
    params, grad = network(rng)
    penalty = l1jax.UnitLasso(0.05, l1jax.Units.neurons({"in": params["in"]}))
    run = trainer(l1jax.prox_adam(1e-2, penalty, freeze_after=400), params, grad)
    before, _ = run(400)
    dead = np.all(np.asarray(before["in"]["kernel"]) == 0, axis=0)
    assert 0 < dead.sum() < 8
    np.testing.assert_array_equal(np.any(np.asarray(before["in"]["kernel"]) == 0, axis=0), dead)
    np.testing.assert_array_equal(np.asarray(before["in"]["bias"]) == 0, dead)
    after, _ = run(2000)
    np.testing.assert_array_equal(np.all(np.asarray(after["in"]["kernel"]) == 0, axis=0), dead)
    slope = jnp.abs(grad(after)["in"]["kernel"][:, ~dead]).max()
    assert slope < 0.1 * jnp.abs(grad(before)["in"]["kernel"][:, ~dead]).max()


def test_freezing_debiases_and_keeps_signs_bound():
    """After a traced step zeros stay zeros, and the others go to their least-squares fit: every transformation."""
    X, y = problem()
    grad = lambda w: X.T @ (X @ w - y) / 50  # noqa: E731
    makers = {name: make for name, make in MAKERS.items() if name not in ("add_subgradient", "stop_at_zero")}
    makers["prox_adamw"] = lambda p, **k: l1jax.prox_adamw(RATE, p, weight_decay=0.0, **k)
    makers["prox_rmsprop"] = lambda p, **k: l1jax.prox_rmsprop(RATE, p, eps=0.1, **k)  # else steps of 0.1 for ever
    makers["bounds"] = lambda p, **k: l1jax.prox_sgd(1.0, l1jax.NonNegative(p), **k)

    @jax.jit
    def run(freeze):
        txs = {name: make(L1(0.05), freeze_after=freeze) for name, make in makers.items()}

        def step(carry, _):
            for name, tx in txs.items():
                w, state = carry[name]
                updates, state = tx.update(grad(w), state, w)
                carry = {**carry, name: (optax.apply_updates(w, updates), state)}
            return carry, {name: l1jax.iterate(state, w) for name, (w, state) in carry.items()}

        start = jnp.full(20, 0.3)
        return jax.lax.scan(step, {name: (start, tx.init(start)) for name, tx in txs.items()}, length=4000)[1]

    off = {}
    paths = {name: np.asarray(path) for name, path in run(400).items()}
    assert np.all(paths.pop("bounds") >= 0)
    for name, path in paths.items():
        kept = path[399] != 0
        assert 1 <= kept.sum() <= 6, name
        np.testing.assert_array_equal(path[400:] != 0, np.tile(kept, (3600, 1)), err_msg=name)
        fit = np.linalg.lstsq(np.asarray(X)[:, kept], np.asarray(y))[0]
        off[name] = np.abs(path[-1, kept] - fit).max() / np.abs(fit).max()
    assert max(off.values()) < 1e-8, off


def test_partition_gives_layers_penalties_of_their_own(rng):
    params, grad = network(rng)
    tx = optax.partition(
        {"few": l1jax.prox_adam(1e-2, L1(0.2)), "many": l1jax.prox_adam(1e-2, L1(1e-4)), "free": optax.adam(1e-2)},
        {"in": {"kernel": "few", "bias": "free"}, "out": {"kernel": "many", "bias": "free"}},
    )
    params, _ = train(tx, params, grad, 300)
    assert np.mean(np.asarray(params["in"]["kernel"]) == 0) > 0.6
    assert np.all(np.asarray(params["in"]["bias"]) != 0)


def test_sharded_parameters_have_the_norms_of_the_whole():
    """Eight devices, the kernel split along either axis: group norms across shards."""
    code = """
        import os
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
        import jax, jax.numpy as jnp, numpy as np, optax, l1jax
        from jax.sharding import NamedSharding, PartitionSpec as P
        mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
        rng = np.random.default_rng(0)
        scale = np.geomspace(1e-3, 1, 16)
        params = {"kernel": jnp.asarray(rng.standard_normal((32, 16)) * scale, jnp.float32), "bias": jnp.zeros(16)}
        grads = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params)
        penalty = l1jax.UnitLasso(1.0, l1jax.Units.neurons(params), l1_ratio=0.2)
        for exact in (False, True):
            tx = l1jax.prox_adam(0.02, penalty, exact=exact)
            want, _ = jax.jit(tx.update)(grads, tx.init(params), params)
            assert 0 < np.sum(np.all(np.asarray(params["kernel"] + want["kernel"]) == 0, axis=0)) < 16
            for spec in (P("d", None), P(None, "d")):
                place = {"kernel": NamedSharding(mesh, spec), "bias": NamedSharding(mesh, P())}
                p, g = jax.device_put(params, place), jax.device_put(grads, place)
                state = jax.jit(tx.init)(p)
                got, _ = jax.jit(tx.update, out_shardings=(place, None))(g, state, p)
                assert len(got["kernel"].sharding.device_set) == 8
                for name in params:
                    np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-7)
                    np.testing.assert_array_equal(p[name] + got[name] == 0, params[name] + want[name] == 0)
        print("whole")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", done.stderr[-2000:]


# -- what is refused


def test_directions_that_lose_zeros_or_lam_are_refused():
    params = jnp.ones(2)
    free = optax.contrib.schedule_free(optax.sgd(1.0), 1.0)
    with pytest.raises(ValueError, match=r"no zero survives.*want the direction alone"):
        l1jax.proximal(optax.chain(optax.identity(), free), L1(0.1), 0.1).init(params)
    scaled = {
        "AdamMetric": [optax.scale_by_adam(), optax.scale_by_belief(), optax.scale_by_amsgrad()],
        "RmsMetric": [optax.scale_by_rms(), optax.scale_by_rms(bias_correction=True)],
        "AdagradMetric": [optax.scale_by_rss()],
        "TraceMetric": [optax.trace(0.9), optax.chain(optax.clip(1.0), optax.trace(0.5))],
    }
    for wanted, found in scaled.items():
        for direction in found:
            with pytest.raises(ValueError, match=rf"want metric=l1jax\.{wanted}"):
                l1jax.proximal(direction, L1(0.1), 0.1).init(params)
            l1jax.proximal(direction, L1(0.1), 0.1, decoupled=True).init(params)
    for metric in (l1jax.AdamMetric(), l1jax.RmsMetric(), l1jax.AdagradMetric()):
        tx = l1jax.proximal(optax.identity(), L1(0.1), 0.1, metric=metric)
        with pytest.raises(ValueError, match=type(metric).__name__):
            tx.update(params, tx.init(params), params)


@each
def test_complex_parameters_are_refused(make):
    params = {"w": jnp.ones(2, complex)}
    with pytest.raises(TypeError, match=r"params\['w'\]: complex"):
        make(L1(0.1)).init(params)


def test_decoupled_is_another_problem():
    """Named, and never mixed: the fixed point of the coupled step is the lasso's, the other's is not."""
    X, y = problem()
    grad = lambda w: X.T @ (X @ w - y) / 50  # noqa: E731
    violation = {}
    for decoupled in (False, True):
        tx = l1jax.prox_adam(5e-3, L1(0.05), decoupled=decoupled)
        w, _ = train(tx, jnp.zeros(20), grad, 4000)
        g = grad(w)
        off = jnp.where(w == 0, jnp.maximum(jnp.abs(g) - 0.05, 0.0), jnp.abs(g + 0.05 * jnp.sign(w)))
        violation[decoupled] = float(off.max())
    assert violation[False] < 1e-8
    assert violation[True] > 1e-3
