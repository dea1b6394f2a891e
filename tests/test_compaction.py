"""Dead units taken out: the same outputs, smaller arrays, maps that say which units are left."""

import dataclasses
from itertools import pairwise

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import l1jax
from l1jax import Layer, chain_of, compact

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "gelu": jax.nn.gelu, "cos": jnp.cos}


def killed(kernel, rng, ways="io", share=0.5):
    """A kernel (..., in, out) some of whose units nothing feeds, and some of whose inputs feed nothing."""
    kernel = np.array(kernel)
    if "o" in ways:
        kernel[..., rng.permutation(kernel.shape[-1])[: int(share * kernel.shape[-1])]] = 0
    if "i" in ways:
        kernel[..., rng.permutation(kernel.shape[-2])[: int(share * kernel.shape[-2])], :] = 0
    return jnp.asarray(kernel)


def agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def is_cut(small, big, done, chain):
    """The kernels are the big ones' own numbers at the units kept, and no dead unit is left but where it must be."""
    before = done.inputs
    for layer in chain:
        kept = done.units[layer.kernel]
        np.testing.assert_array_equal(small[layer.kernel], np.asarray(big[layer.kernel])[..., before, :][..., kept])
        before = kept


# -- dense chains


def dense(params, x, activation):
    names = sorted(name for name in params if name.startswith("w"))
    for i, name in enumerate(names):
        x = x @ params[name]
        if f"b{name[1:]}" in params:
            x = x + params[f"b{name[1:]}"][None]
        x = activation(x) if i < len(names) - 1 else x
    return x


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_dense_chain_gives_the_same(activation, seed):
    rng = np.random.default_rng(seed)
    sizes = (5, 9, 8, 7, 3)
    params = {f"w{i}": killed(rng.standard_normal(pair), rng, "io" if i else "o", 0.3) for i, pair in
              enumerate(pairwise(sizes))}  # fmt: skip
    params |= {f"b{i}": jnp.asarray(rng.standard_normal(n)) for i, n in enumerate(sizes[1:])}
    params["w3"] = jnp.asarray(rng.standard_normal((7, 3)) * (np.arange(7) > 2)[:, None])
    chain = [Layer(f"w{i}", f"b{i}", ACTIVATIONS[activation]) for i in range(4)]
    done = compact(params, chain)
    x = jnp.asarray(rng.standard_normal((6, 5)))
    act = ACTIVATIONS[activation]
    agree(dense(done.params, x, act), dense(params, x, act))
    is_cut(done.params, params, done, chain)
    np.testing.assert_array_equal(done.inputs, np.arange(5))
    np.testing.assert_array_equal(done.units["w3"], np.arange(3))
    assert all(len(done.units[f"w{i}"]) < sizes[i + 1] for i in range(3))
    for i in range(3):  # no dead unit is left, unless it is the last of its layer
        fed = np.any(np.asarray(done.params[f"w{i}"]) != 0, axis=0)
        used = np.any(np.asarray(done.params[f"w{i + 1}"]) != 0, axis=1)
        assert np.all(fed & used) or len(fed) == 1
    again = compact(done.params, chain)
    assert again.sizes["parameters"][0] == again.sizes["parameters"][1] == sum(a.size for a in done.params.values())


def test_units_take_others_with_them():
    """By hand: unit 1 of the second layer is unused, so what only it used goes, and so back to the inputs."""
    params = {
        "w0": jnp.array([[1.0, 2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0], [0.0, 5.0, 0.0, 0.0]]),
        "b0": jnp.array([0.1, 0.2, 0.3, -0.4]),
        "w1": jnp.array([[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [2.0, 0.0, 0.0], [0.5, 0.0, 0.0]]),
        "b1": jnp.array([1.0, 2.0, 3.0]),
        "w2": jnp.array([[1.0], [0.0], [7.0]]),
        "b2": jnp.array([0.5]),
    }
    chain = [Layer("w0", "b0"), Layer("w1", "b1"), Layer("w2", "b2")]
    done = compact(params, chain, drop_inputs=True)
    np.testing.assert_array_equal(done.units["w0"], [0, 3])  # 1 fed only a dead unit, 2 was the constant 0.3
    np.testing.assert_array_equal(done.units["w1"], [0])  # 1 was unused, 2 the constant 3
    np.testing.assert_array_equal(done.inputs, [0, 1])
    np.testing.assert_allclose(done.params["b1"], [1 + 2 * 0.3])
    np.testing.assert_allclose(done.params["b2"], [0.5 + 7 * 3])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((9, 3)))
    agree(dense(done.params, x[:, done.inputs], jax.nn.relu), dense(params, x, jax.nn.relu))
    assert repr(done).splitlines() == [
        "inputs: 3 -> 2", "w0: 4 -> 2 units", "w1: 3 -> 1 units", "w2: 1 -> 1 units", "parameters: 35 -> 11",
    ]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_a_network_of_zeros_keeps_a_unit_of_each_layer(bias):
    params = {"w0": jnp.zeros((4, 3)), "w1": jnp.zeros((3, 5)), "w2": jnp.zeros((5, 2))}
    params |= {f"b{i}": jnp.ones(n) for i, n in enumerate((3, 5, 2))} if bias else {}
    chain = [Layer(f"w{i}", f"b{i}" if bias else None, jnp.cos) for i in range(3)]
    done = compact(params, chain, drop_inputs=True)
    assert jax.tree.map(jnp.shape, {k: v for k, v in done.params.items() if k[0] == "w"}) == {
        "w0": (1, 1), "w1": (1, 1), "w2": (1, 2)}  # fmt: skip
    x = jnp.ones((2, 4))
    agree(dense(done.params, x[:, done.inputs], jnp.cos), dense(params, x, jnp.cos))


def test_without_a_next_bias_only_constants_of_0_go():
    w = {"w0": jnp.array([[1.0, 0.0, 0.0]]), "b0": jnp.array([0.0, 2.0, -2.0]), "w1": jnp.ones((3, 2))}
    chain = [Layer("w0", "b0"), Layer("w1")]
    done = compact(w, chain)
    np.testing.assert_array_equal(done.units["w0"], [0, 1])  # relu(-2) = 0 goes, relu(2) = 2 has no bias to go to
    x = jnp.array([[3.0], [-1.0]])
    agree(dense(done.params, x, jax.nn.relu), dense(w, x, jax.nn.relu))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_and_kinds_of_arrays_are_kept(rng, dtype):
    params = {"w0": killed(rng.standard_normal((4, 6)), rng, "o").astype(dtype), "b0": jnp.ones(6, dtype),
              "w1": rng.standard_normal((6, 2)).astype(np.float32), "b1": jnp.zeros(2, dtype)}  # fmt: skip
    done = compact(params, [Layer("w0", "b0"), Layer("w1", "b1")])
    assert {k: v.dtype for k, v in done.params.items()} == {k: v.dtype for k, v in params.items()}
    assert isinstance(done.params["w1"], np.ndarray)
    assert done.params["w0"].shape == (4, 3)


# -- convolutions


def images(rng, shape):
    return jnp.asarray(rng.standard_normal(shape))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_a_conv_chain_gives_the_same(rng, padding, first):
    k0 = killed(rng.standard_normal((3, 3, 2, 6)), rng, "o")
    k1 = killed(rng.standard_normal((3, 3, 6, 5)), rng, "o", 0.4)
    side = 6 if padding == "SAME" else 2
    k2 = rng.standard_normal((side * side, 5, 4)) * (np.arange(5) != 2)[None, :, None]
    k2 = k2.transpose(1, 0, 2) if first else k2
    biases = {f"b{i}": jnp.asarray(rng.standard_normal(n)) for i, n in enumerate((6, 5, 4))}
    biases["b0"] = biases["b0"].at[:3].set(-1.0).at[3:].set(1.0)
    params = {"w0": k0, "w1": k1, "w2": jnp.asarray(k2.reshape(-1, 4)), **biases}
    order = "channels_first" if first else "channels_last"
    axes = {"in_axis": -2, "out_axis": -1}
    if first:
        params |= {name: params[name].transpose(3, 2, 0, 1) for name in ("w0", "w1")}
        params |= {name: params[name][:, None, None] for name in ("b0", "b1")}
        axes = {"in_axis": 1, "out_axis": 0}
    chain = [Layer("w0", "b0", padding=padding, **axes), Layer("w1", "b1", padding=padding, **axes),
             Layer("w2", "b2", flattened=order)]  # fmt: skip
    numbers = ("NCHW", "OIHW", "NCHW") if first else ("NHWC", "HWIO", "NHWC")

    def run(params, x):
        for i in range(2):
            bias = params[f"b{i}"][None] if first else params[f"b{i}"][None, None, None]
            x = jax.lax.conv_general_dilated(x, params[f"w{i}"], (1, 1), padding, dimension_numbers=numbers) + bias
            x = jax.nn.relu(x)
        return x.reshape(x.shape[0], -1) @ params["w2"] + params["b2"][None]

    done = compact(params, chain)
    x = images(rng, (3, 2, 6, 6) if first else (3, 6, 6, 2))
    agree(run(done.params, x), run(params, x))
    unfed = ~np.any(np.asarray(k0) != 0, axis=(0, 1, 2))
    kept = ~unfed | (np.asarray(biases["b0"]) > 0) if padding == "SAME" else ~unfed
    unused = ~np.any(np.asarray(k1) != 0, axis=(0, 1, 3))
    np.testing.assert_array_equal(done.units["w0"], np.flatnonzero(kept & ~unused))
    unfed = ~np.any(np.asarray(k1) != 0, axis=(0, 1, 2))
    np.testing.assert_array_equal(done.units["w1"], np.flatnonzero(~unfed & (np.arange(5) != 2)))
    assert done.params["w2"].shape == (side * side * len(done.units["w1"]), 4)
    assert done.params["b0"].shape == ((len(done.units["w0"]), 1, 1) if first else (len(done.units["w0"]),))


# -- libraries


def dead(tree, rng, axis):
    """Every kernel with half of its units unfed."""

    def kill(leaf):
        if not (eqx.is_inexact_array(leaf) and leaf.ndim > 1):
            return leaf + 0.3 if eqx.is_inexact_array(leaf) else leaf
        return jnp.moveaxis(killed(jnp.moveaxis(leaf, axis, -1), rng, "o"), -1, axis)

    return jax.tree.map(kill, tree)


def test_flax_nnx(rng):
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Conv(2, 6, (3, 3), padding="VALID", rngs=rngs), nnx.relu, nnx.Conv(6, 5, (3, 3), rngs=rngs), jnp.tanh,
        nnx.Dropout(0.5, deterministic=True, rngs=rngs), lambda x: x.reshape(x.shape[0], -1),
        nnx.Linear(80, 7, use_bias=False, rngs=rngs), nnx.relu, nnx.Linear(7, 3, rngs=rngs),
    )  # fmt: skip
    model = dead(model, rng, -1)
    chain = chain_of(model)
    assert [layer.kernel for layer in chain] == [f"layers/{i}/kernel" for i in (0, 2, 6, 8)]
    assert [layer.padding for layer in chain][:2] == ["VALID", "SAME"]
    assert chain[2].flattened == "channels_last"
    done = compact(model, chain)
    x = images(rng, (2, 6, 6, 2)).astype(jnp.float32)
    np.testing.assert_allclose(done.params(x), model(x), rtol=1e-5, atol=1e-6)
    assert (
        done.params.layers[2].kernel.shape[2] == done.params.layers[0].out_features == len(done.units[chain[0].kernel])
    )
    assert model.layers[0].out_features == 6
    state = compact(nnx.state(model, nnx.Param), chain)
    nnx.update(model, state.params)
    np.testing.assert_allclose(model(x), done.params(x), rtol=1e-6)
    assert state.sizes == done.sizes
    assert state.sizes["parameters"][1] < 0.8 * state.sizes["parameters"][0]


def test_flax_linen(rng):
    model = nn.Sequential([nn.Dense(8), nn.Sequential([nn.relu, nn.Dense(6), nn.tanh, nn.tanh]), nn.Dense(2)])
    x = images(rng, (5, 4)).astype(jnp.float32)
    variables = dead(model.init(jax.random.key(0), x), rng, -1)
    chain = chain_of(model)
    done = compact(variables, chain)
    sizes = [len(kept) for kept in done.units.values()]
    assert sizes[0] < 8
    assert sizes[1] == 3
    small = nn.Sequential([nn.Dense(sizes[0]), nn.Sequential([nn.relu, nn.Dense(sizes[1]), nn.tanh, nn.tanh]),
                           nn.Dense(2)])  # fmt: skip
    np.testing.assert_allclose(small.apply(done.params, x), model.apply(variables, x), rtol=1e-5, atol=1e-6)
    inner = compact(variables["params"], chain).params
    jax.tree.map(np.testing.assert_array_equal, inner, done.params["params"])


def test_equinox_mlp(rng):
    model = dead(eqx.nn.MLP(4, 2, 8, 3, jax.nn.gelu, key=jax.random.key(0)), rng, 0)
    done = compact(model, chain_of(model))
    around = chain_of(eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), model, eqx.nn.Lambda(jnp.tanh)]))
    assert [layer.kernel for layer in around] == [f"layers/1/layers/{i}/weight" for i in range(4)]
    assert around[0].flattened is None
    x = images(rng, (5, 4))
    np.testing.assert_allclose(jax.vmap(done.params)(x), jax.vmap(model)(x), rtol=1e-5, atol=1e-6)
    layer = done.params.layers[1]
    assert layer.weight.shape == (layer.out_features, layer.in_features) == (4, 4)
    assert model.layers[1].out_features == 8


def test_equinox_sequential(rng):
    keys = jax.random.split(jax.random.key(0), 4)
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(2, 6, 3, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2),
        eqx.nn.Conv2d(6, 4, 3, padding=1, use_bias=False, key=keys[1]), eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(36, 8, key=keys[2]), eqx.nn.Lambda(jnp.tanh),
        eqx.nn.Dropout(0.2, inference=True), eqx.nn.Linear(8, 2, key=keys[3]),
    ])  # fmt: skip
    model = dead(model, rng, 0)
    chain = chain_of(model)
    assert chain[2].flattened == "channels_first"
    assert [layer.padding for layer in chain[:2]] == ["VALID", "SAME"]
    done = compact(model, chain)
    x = images(rng, (3, 2, 8, 8))
    np.testing.assert_allclose(jax.vmap(done.params)(x), jax.vmap(model)(x), rtol=1e-5, atol=1e-6)
    assert done.params.layers[3].weight.shape == (2, done.params.layers[0].out_channels, 3, 3)
    assert done.sizes["parameters"][1] < done.sizes["parameters"][0] / 2


# -- what would be wrong is refused


@pytest.fixture
def two():
    return {"w0": jnp.ones((2, 3)), "b0": jnp.ones(3), "w1": jnp.ones((3, 4)), "b1": jnp.ones(4)}


CHAIN = (Layer("w0", "b0"), Layer("w1", "b1"))
WRONG = {
    "norm": (lambda p: {**p, "norm": {"scale": jnp.ones(3)}}, CHAIN, "norm/scale"),
    "residual": (lambda p: {**p, "skip": jnp.ones((2, 4))}, CHAIN, "residual"),
    "twice": (lambda p: {"w": jnp.ones((3, 3))}, [Layer("w"), Layer("w")], "w stands in it twice"),
    "missing": (lambda p: p, [Layer("w7"), CHAIN[1]], "no array 'w7'; they have"),
    "sizes": (lambda p: {**p, "w1": jnp.ones((6, 4))}, CHAIN, "takes 6 inputs.*3 units.*flattened"),
    "flat": (lambda p: p, [CHAIN[0], dataclasses.replace(CHAIN[1], flattened="channels_last", kernel="w9")], "w9"),
    "not flat": (lambda p: {**p, "w1": jnp.ones((5, 4))},
                 [CHAIN[0], dataclasses.replace(CHAIN[1], flattened="channels_last")], "divide"),
    "flat first": (lambda p: p, [dataclasses.replace(CHAIN[0], flattened="channels_last"), CHAIN[1]], "no units"),
    "bias": (lambda p: {**p, "b0": jnp.ones(2)}, CHAIN, "b0: want one number for each of 3 units"),
    "axes": (lambda p: p, [Layer("w0", "b0", out_axis=0), CHAIN[1]], "w0: want an array with axes"),
    "vector": (lambda p: {**p, "w0": jnp.ones(3)}, CHAIN, "w0: want an array"),
    "softmax": (lambda p: p, [Layer("w0", "b0", jax.nn.softmax), CHAIN[1]], "activation of 'w0'.*softmax"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_would_be_wrong_is_refused_by_name(two, case):
    change, chain, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        compact(change(two), chain)


def test_other_refusals(two):
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda p: compact(p, CHAIN).params)(two)
    for chain in ([], ["w0", "w1"]):
        with pytest.raises(TypeError, match="chain: want a list"):
            compact(two, chain)
    with pytest.raises(ValueError, match="flattened"):
        Layer("w", flattened="NHWC")
    with pytest.raises(ValueError, match="padding"):
        Layer("w", padding="full")
    with pytest.raises(TypeError, match="activation"):
        Layer("w", activation="relu")


def test_chains_of_models_that_mix_units_are_refused():
    rngs, key = nnx.Rngs(0), jax.random.key(0)
    linear = nnx.Linear(3, 4, rngs=rngs)
    mixing = {
        "layers/1' is a LayerNorm": nnx.Sequential(linear, nnx.LayerNorm(4, rngs=rngs)),
        "layers/1' is a BatchNorm": nnx.Sequential(linear, nnx.BatchNorm(4, rngs=rngs)),
        "layers_1' is a GroupNorm": nn.Sequential([nn.Dense(3), nn.GroupNorm(3)]),
        "layers/1' is a PReLU": eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=key), eqx.nn.PReLU()]),
        "layers/0' is a convolution in 2 groups": nnx.Sequential(nnx.Conv(2, 4, 3, feature_group_count=2, rngs=rngs)),
        "layers/1', softmax, neither": nnx.Sequential(linear, jax.nn.softmax),
        "is a AvgPool2d": eqx.nn.Sequential([eqx.nn.AvgPool2d(2, padding=1)]),
        "Sequential.*got Linear; only you know": linear,
        "no dense layer": nnx.Sequential(nnx.relu),
    }
    for words, model in mixing.items():
        with pytest.raises(TypeError, match=words):
            chain_of(model)


def test_training_that_kills_units_ends_in_a_smaller_network(rng, standard_promotion):
    """The whole way: a group lasso of neurons, a report, a compact network with the same outputs."""
    X = jnp.asarray(rng.standard_normal((200, 6)))
    y = jax.nn.relu(X[:, :1]) - jax.nn.relu(X[:, 1:2])
    params = {"w0": jnp.asarray(rng.standard_normal((6, 20))) / 3, "b0": jnp.zeros(20),
              "w1": jnp.asarray(rng.standard_normal((20, 1))) / 5, "b1": jnp.zeros(1)}  # fmt: skip
    units = l1jax.Units({"w0": ("hidden", 1), "b0": ("hidden", 0), "w1": ("hidden", 0)})
    tx = l1jax.prox_adam(0.02, l1jax.UnitLasso(0.01, units))

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda params: jnp.mean((dense(params, X, jax.nn.relu) - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=800))((params, tx.init(params)))
    alive = l1jax.sparsity_report(params, units).units[0].alive
    done = compact(params, CHAIN)
    assert len(done.units["w0"]) == alive < 15
    agree(dense(done.params, X, jax.nn.relu), dense(params, X, jax.nn.relu))
