"""The price of exact zeros: a jitted step of l1jax's optimisers over optax's own, on 10 million parameters.

    python benchmarks/training.py [--rounds 15] [--million 10] [--only STEP ...] [--write]

The two run in turn in one process, parameters and state donated; a ratio is the median over rounds of l1jax's time over
optax's in the same round. Gradients are given: in training their cost is above either's.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from measuring import write_section

import l1jax

HERE = Path(__file__).parent


def parameters(million):
    """Five kernels and their biases, `million` million numbers in all, and gradients like them."""
    width = int((million * 1e6 / 5) ** 0.5)
    shapes = {f"layer{i}": {"kernel": (width, width), "bias": (width,)} for i in range(5)}
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda a: isinstance(a, tuple))
    keys = jax.random.split(jax.random.key(0), 2 * len(leaves))
    draws = [jax.random.normal(key, shape) for key, shape in zip(keys, leaves * 2, strict=True)]
    return tuple(jax.tree.unflatten(tree, part) for part in (draws[: len(leaves)], draws[len(leaves) :]))


def pairs(params):
    """name: (optax's optimiser, ours)."""
    units = l1jax.Units.neurons(params)
    sgd, adam, adamw = (optax.sgd(1e-3, 0.9), optax.adam(1e-3), optax.adamw(1e-3))
    return {
        "prox_adamw, L1": (adamw, l1jax.prox_adamw(1e-3, l1jax.L1(1e-4))),
        "prox_adamw, L1, decoupled": (adamw, l1jax.prox_adamw(1e-3, l1jax.L1(1e-4), decoupled=True)),
        "prox_adamw, L1, mask=weights_only": (adamw, l1jax.prox_adamw(1e-3, l1jax.L1(1e-4), mask=l1jax.weights_only)),
        "prox_adam, MCP": (adam, l1jax.prox_adam(1e-3, l1jax.MCP(1e-4))),
        "prox_sgd, L1": (sgd, l1jax.prox_sgd(1e-3, l1jax.L1(1e-4), momentum=0.9)),
        "prox_adam, UnitLasso": (adam, l1jax.prox_adam(1e-3, l1jax.UnitLasso(1e-4, units))),
        "prox_adam, UnitLasso, exact": (adam, l1jax.prox_adam(1e-3, l1jax.UnitLasso(1e-4, units), exact=True)),
    }


class Runner:
    """One optimiser's jitted step, its parameters and state kept on the device."""

    def __init__(self, tx, params):
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.params = jax.tree.map(jnp.copy, params)
        self.state = tx.init(self.params)

    def __call__(self, grads, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.params, self.state = self.step(self.params, self.state, grads)
        jax.block_until_ready(self.params)
        return (time.perf_counter() - start) / steps


def measure(theirs, ours, params, grads, rounds, steps):
    """(median of theirs, of ours, of the ratio), ours first in every other round."""
    runners = [Runner(theirs, params), Runner(ours, params)]
    for runner in runners:
        runner(grads, 2)
    times = []
    for k in range(rounds):
        order = (0, 1) if k % 2 else (1, 0)
        found = {i: runners[i](grads, steps) for i in order}
        times.append((found[0], found[1]))
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return *medians, statistics.median(b / a for a, b in times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="steps timed together")
    parser.add_argument("--million", type=float, default=10)
    parser.add_argument("--only", nargs="+", help="the steps to time; the others stay as the JSON has them")
    parser.add_argument("--write", action="store_true", help="write training.json and the README's table")
    args = parser.parse_args()
    params, grads = parameters(args.million)
    device = jax.devices()[0].device_kind
    rows = []
    for name, (theirs, ours) in pairs(params).items():
        if args.only and name not in args.only:
            continue
        base, own, ratio = measure(theirs, ours, params, grads, args.rounds, args.steps)
        rows.append({"step": name, "device": device, "optax_ms": 1e3 * base, "l1jax_ms": 1e3 * own, "ratio": ratio})
        print(f"{name:36s} optax {1e3 * base:8.3f} ms   l1jax {1e3 * own:8.3f} ms   ratio {ratio:.3f}", flush=True)
    if args.write:
        write(rows)


def write(rows):
    """Replace these steps' rows of this device in training.json, and the README's table."""
    data = HERE / "training.json"
    kept = json.loads(data.read_text()) if data.exists() else []
    kept = list({(row["device"], row["step"]): row for row in kept + rows}.values())
    data.write_text(json.dumps(kept, indent=1) + "\n")
    lines = ["| step | device | optax, ms | l1jax, ms | l1jax / optax |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['step']} | {r['device']} | {r['optax_ms']:.2f} | {r['l1jax_ms']:.2f} | {r['ratio']:.2f} |" for r in kept
    ]
    write_section("training", "\n".join(lines))


if __name__ == "__main__":
    main()
