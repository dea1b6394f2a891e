"""What a gradient of a held-out loss in 1000 strengths costs, beside the solution it is taken of.

A lasso of 1000 x 1000 with one strength per feature, about 50 nonzeros; the loss on 500 other rows. l1jax outside of
tracing and under jit, jaxopt's implicit differentiation, and derivatives through an unrolled loop of FISTA, each run to
a duality gap of at most 1e-8 (computed outside); errors are those of the gradient against the support's own formula in
NumPy. `python benchmarks/gradients.py --write` keeps the figures and writes the table of benchmarks/README.md.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt's, that it is no longer maintained

import jaxopt  # noqa: E402
from measuring import write_section  # noqa: E402
from tqdm import tqdm  # noqa: E402

import l1jax  # noqa: E402

HERE = Path(__file__).parent
N = P = 1000
ROUNDS = 31
TOL = 1e-8


def data():
    rng = np.random.default_rng(0)
    X, Xv = rng.standard_normal((N, P)), rng.standard_normal((500, P))
    coef = np.zeros(P)
    coef[:50] = rng.choice([-1, 1], 50) * rng.uniform(0.5, 1.5, 50)
    y, yv = X @ coef + rng.standard_normal(N), Xv @ coef + rng.standard_normal(500)
    lams = 0.12 * np.exp(0.1 * rng.standard_normal(P))
    return tuple(map(jnp.asarray, (X, y, Xv, yv, lams)))


X, Y, XV, YV, LAMS = data()
DATA = LAMS, X, Y  # passed to programs, not closed over: XLA would do some of the work on constants once and for all
LIPSCHITZ = float(np.linalg.norm(X, 2) ** 2 / N)


@jax.jit
def half_squares(w, X, y):
    return jnp.mean((X @ w - y) ** 2) / 2


def by_l1jax(lams, X, y):
    return l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lams), fit_intercept=False), tol=TOL).coef


def by_jaxopt(tol):
    solver = jaxopt.ProximalGradient(half_squares, jaxopt.prox.prox_lasso, tol=tol, maxiter=2000)
    return lambda lams, X, y: solver.run(jnp.zeros(P), lams, X, y).params


def unrolled(steps):
    def run(lams, X, target):
        def step(carry, _):
            x, y, t = carry
            v = y - X.T @ (X @ y - target) / N / LIPSCHITZ
            new = jnp.sign(v) * jnp.maximum(jnp.abs(v) - lams / LIPSCHITZ, 0)
            t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
            return (new, new + (t - 1) / t_next * (new - x), t_next), None

        (x, _, _), _ = jax.lax.scan(step, (jnp.zeros(P), jnp.zeros(P), 1.0), None, length=steps)
        return x

    return run


def gap(coef):
    """The relative duality gap in NumPy."""
    coef = np.asarray(coef)
    r = np.asarray(Y - X @ coef)
    scale = min(1.0, float(np.min(LAMS / np.abs(X.T @ r / N))))
    primal, dual = r @ r / 2 / N + np.sum(LAMS * np.abs(coef)), (Y @ Y - np.sum((Y - scale * r) ** 2)) / 2 / N
    return float((primal - dual) / (Y @ Y / 2 / N))


def formula(coef):
    """The gradient of the held-out loss in the strengths, from the support alone."""
    on = np.flatnonzero(coef)
    A = np.asarray(X)[:, on]
    slope = np.asarray(XV)[:, on].T @ np.asarray(XV @ coef - YV) / len(YV)
    gradient = np.zeros(P)
    gradient[on] = -np.sign(coef[on]) * np.linalg.solve(A.T @ A / N, slope)
    return gradient


def timed(f):
    began = time.perf_counter()
    jax.block_until_ready(f(*DATA))
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the figures and the table")
    args = parser.parse_args()
    tol, steps = 1e-3, 50
    while gap(jax.jit(by_jaxopt(tol))(*DATA)) > TOL:
        tol /= 10
    while gap(jax.jit(unrolled(steps))(*DATA)) > TOL:
        steps *= 2
    ways = {"l1jax": by_l1jax, "l1jax, jit": jax.jit(by_l1jax), f"jaxopt, tol {tol:.0e}": jax.jit(by_jaxopt(tol))}
    ways[f"unrolled, {steps} steps"] = jax.jit(unrolled(steps))
    exact = np.asarray(l1jax.solve(l1jax.Problem(X, Y, penalty=l1jax.L1(LAMS), fit_intercept=False), tol=1e-14).coef)
    wanted, functions, rows = formula(exact), {}, []
    for name, coef in ways.items():
        both = jax.value_and_grad(lambda *data, coef=coef: half_squares(coef(*data), XV, YV))
        functions[name] = coef, both if name == "l1jax" else jax.jit(both)
        for f in functions[name]:
            timed(f), timed(f)
    times = {name: [] for name in ways}
    for _ in tqdm(range(ROUNDS)):
        for name, pair in functions.items():
            times[name].append([timed(f) for f in pair])
    for name, (coef, both) in functions.items():
        forward, whole = np.median(times[name], axis=0)
        extra = np.median([b - a for a, b in times[name]]) / forward
        error = np.max(np.abs(both(*DATA)[1] - wanted)) / np.max(np.abs(wanted))
        figures = {"solve": forward, "both": whole, "extra": extra, "error": float(error), "gap": gap(coef(*DATA))}
        rows.append({"way": name, **figures})
    table = ["| | solve, s | with gradient, s | gradient / solve | error | gap |", "|" + " --- |" * 6]
    for row in rows:
        table.append(
            f"| {row['way']} | {row['solve']:.3f} | {row['both']:.3f} | {row['extra']:.2f} | {row['error']:.0e} "
            f"| {max(row['gap'], 0):.0e} |"
        )
    text = "\n".join(table)
    print(f"{np.count_nonzero(exact)} nonzeros\n{text}")
    if args.write:
        found = {"nonzeros": int(np.count_nonzero(exact)), "rounds": ROUNDS, "rows": rows}
        (HERE / "gradients.json").write_text(json.dumps(found, indent=1) + "\n")
        write_section("gradients", text)


if __name__ == "__main__":
    main()
