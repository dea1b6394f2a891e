"""Strengths tuned by gradient against the best single strength, the adaptive and the relaxed lasso.

200 features in 10 groups of 20. Features are seen through noise, of another size in each group, and the groups differ
in how many of their features matter. 150 rows to fit, 150 to choose hyperparameters, 2000 to test, seen once; 20 seeds,
each the same for all methods. `python benchmarks/tuning.py --write` keeps the figures and writes the table of
benchmarks/README.md.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from measuring import write_section
from tqdm import tqdm

import l1jax

jax.config.update("jax_enable_x64", True)

HERE = Path(__file__).parent
GROUPS = np.repeat(np.arange(10), 20)
HAZE = np.array([0, 0.3, 0.6, 1, 1.5, 2, 0, 0.3, 1, 2])  # standard deviations of what is added to a group's features
MATTER = np.array([12, 6, 6, 3, 1, 1, 0, 0, 0, 0])  # features of a group that matter
ROWS = (150, 150, 2000)
SEEDS = 20
RELAXED = (0.0, 0.25, 0.5, 0.75, 1.0)


def data(seed):
    """Three splits (X, y)."""
    rng = np.random.default_rng(seed)
    coef = np.zeros(200)
    for group, count in enumerate(MATTER):
        coef[rng.choice(np.flatnonzero(group == GROUPS), count, replace=False)] = rng.choice([-1, 1], count)
    Z = rng.standard_normal((sum(ROWS), 200))
    y = Z @ coef + 2 * rng.standard_normal(len(Z))
    X = Z + HAZE[GROUPS] * rng.standard_normal(Z.shape)
    ends = np.cumsum(ROWS)[:-1]
    return list(zip(np.split(X, ends), np.split(y, ends), strict=True))


def errors(coefs, intercepts, rows):
    X, y = rows
    return np.mean((np.atleast_2d(coefs) @ X.T + np.atleast_1d(intercepts)[:, None] - y) ** 2, axis=1)


def best(path, rows):
    """The place of the path's best solution on these rows."""
    return int(np.argmin(errors(path.coef, path.intercept, rows)))


def run(seed):
    """{method: (test error, solves, nonzeros)}."""
    fit, choose, test = data(seed)
    found = {}

    def problem(penalty):
        return l1jax.Problem(*fit, penalty=penalty)

    def keep(name, coef, intercept, solves):
        found[name] = (float(errors(coef, intercept, test)[0]), solves, int(np.count_nonzero(coef)))

    path = l1jax.path(problem(l1jax.L1(1.0)), num=100)
    at = best(path, choose)
    keep("one strength, of 100", path.coef[at], path.intercept[at], 100)
    rows = [np.concatenate(parts) for parts in zip(fit, choose, strict=True)]
    again = l1jax.path(l1jax.Problem(*rows, penalty=l1jax.L1(1.0)), lams=path.lams)
    keep("the same, refitted to 300 rows", again.coef[at], again.intercept[at], 200)

    ridge = l1jax.path(problem(l1jax.L2(1.0)), lams=np.geomspace(30, 0.03, 30))
    weights = 1 / np.abs(np.asarray(ridge.coef[best(ridge, choose)]))
    weights = weights / np.median(weights)
    adaptive = l1jax.path(problem(l1jax.Factors(l1jax.L1(1.0), weights)), num=100)
    k = best(adaptive, choose)
    keep("adaptive lasso", adaptive.coef[k], adaptive.intercept[k], 130)

    relaxed = []
    X, y = fit
    for coef, intercept in zip(np.asarray(path.coef), np.asarray(path.intercept), strict=True):
        on = np.flatnonzero(coef)
        if len(on) >= len(y) - 1:
            break
        free, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(y)), X[:, on]]), y, rcond=None)
        whole = np.zeros_like(coef)
        whole[on] = free[1:]
        relaxed += [(a * coef + (1 - a) * whole, a * intercept + (1 - a) * free[0]) for a in RELAXED]
    coefs, intercepts = map(np.array, zip(*relaxed, strict=True))
    k = int(np.argmin(errors(coefs, intercepts, choose)))
    keep("relaxed lasso", coefs[k], intercepts[k], 100)

    start = float(path.lams[at])
    many = {
        "one for each group": (np.full(10, start), GROUPS),
        "one for each feature": (np.full(200, start), slice(None)),
    }
    for name, (lams, spread) in many.items():
        tuned = l1jax.tune(
            problem(l1jax.L1(1.0)),
            lambda at, spread=spread: l1jax.L1(at["lam"][spread]),
            {"lam": lams},
            held_out=choose,
            max_steps=100,
        )
        keep(f"tuned, {name}", tuned.result.coef, tuned.result.intercept, 100 + tuned.solves)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the figures and the table")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    runs = [run(seed) for seed in tqdm(range(args.seeds))]
    first = "one strength, of 100"
    table = ["| | test error | paired difference | wins | solves | nonzeros |", "|" + " --- |" * 6]
    for name in runs[0]:
        error, solves, nonzeros = np.array([one[name] for one in runs]).T
        off = error - [one[first][0] for one in runs]
        told = (
            f"{off.mean():+.2f} ± {off.std(ddof=1) / np.sqrt(len(off)):.2f} | {np.sum(off < 0)}"
            if name != first
            else "|"
        )
        table.append(f"| {name} | {error.mean():.2f} | {told} | {solves.mean():.0f} | {nonzeros.mean():.0f} |")
    text = "\n".join(table)
    print(text)
    if args.write:
        (HERE / "tuning.json").write_text(json.dumps(runs, indent=1) + "\n")
        write_section("tuning", text)


if __name__ == "__main__":
    main()
