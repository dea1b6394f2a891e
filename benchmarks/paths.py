"""Time to a certified lambda path: l1jax against scikit-learn, alternating in one process.

    python benchmarks/paths.py [--rounds 5] [--target 1e-6] [--write]

Each library runs at the loosest of its tolerances whose whole path (100 lambdas, lambda_max to lambda_max/100) has
every relative duality gap, computed outside in NumPy float64, at most the target. l1jax's compile time is apart.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import sklearn
from sklearn.linear_model import lasso_path

import l1jax

jax.config.update("jax_enable_x64", True)
HERE = Path(__file__).parent
SHAPES = [(10000, 500), (200, 2000)]
TOLERANCES = [1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 5e-7, 2e-7, 1e-7]


def autoregressive(n, p, rho=0.5, nonzeros=20, seed=0):
    """Columns with correlation rho^|i-j|, a sparse truth, and noise at half the signal's size."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    coef = np.zeros(p)
    coef[rng.choice(p, nonzeros, replace=False)] = rng.standard_normal(nonzeros)
    signal = X @ coef
    return X, signal + 0.5 * signal.std() * rng.standard_normal(n)


def largest_gap(X, y, lams, coefs):
    """The largest relative duality gap of lasso solutions, the intercept fitted: NumPy float64 throughout."""
    X, y, n = X - X.mean(axis=0), y - y.mean(), len(y)
    null = y @ y / (2 * n)
    residuals = y - coefs @ X.T
    correlations = np.abs(residuals @ X / n).max(axis=1)
    scale = np.minimum(1, lams / correlations)
    primal = (residuals**2).sum(axis=1) / (2 * n) + lams * np.abs(coefs).sum(axis=1)
    dual = scale * (residuals @ y) / n - scale**2 * (residuals**2).sum(axis=1) / (2 * n)
    return float(((primal - dual) / null).max())


def runners(X, y, lams):
    """For each library, a function of its tolerance that gives the path's coefficients, (L, p)."""
    problem = l1jax.Problem(X, y, penalty=l1jax.L1(1.0))
    ordered = np.asfortranarray(X)

    def ours(tol):
        return np.asarray(l1jax.path(problem, lams=lams, tol=tol).coef)

    def theirs(tol):
        centred, target = ordered - ordered.mean(axis=0), y - y.mean()
        return lasso_path(centred, target, alphas=lams, tol=tol, max_iter=100_000)[1].T

    return {"l1jax": ours, "scikit-learn": theirs}


def measure(n, p, target, rounds):
    X, y = autoregressive(n, p)
    start = float(l1jax.lambda_max(l1jax.Problem(X, y, penalty=l1jax.L1(1.0))))
    lams = np.geomspace(start, start / 100, 100)
    row = {"n": n, "p": p, "target": target, "libraries": {}}
    run = runners(X, y, lams)
    for name, path in run.items():
        begin = time.perf_counter()
        path(TOLERANCES[0])
        first = time.perf_counter() - begin
        for tol in TOLERANCES:
            gap = largest_gap(X, y, lams, path(tol))
            if gap <= target:
                break
        row["libraries"][name] = {"tol": tol, "gap": gap, "met": gap <= target, "first_call_s": first, "times_s": []}
    for _ in range(rounds):
        for name, path in run.items():
            begin = time.perf_counter()
            path(row["libraries"][name]["tol"])
            row["libraries"][name]["times_s"].append(time.perf_counter() - begin)
    for library in row["libraries"].values():
        library["median_s"] = statistics.median(library["times_s"])
    row["ratio"] = row["libraries"]["l1jax"]["median_s"] / row["libraries"]["scikit-learn"]["median_s"]
    return row


def table(report):
    lines = [
        "| n x p | library | median, s | first call, s | its tol | largest certified gap | l1jax / peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        for name, library in row["libraries"].items():
            ratio = f"{row['ratio']:.1f}" if name != "l1jax" else ""
            lines.append(
                f"| {row['n']} x {row['p']} | {name} | {library['median_s']:.3f} | {library['first_call_s']:.1f} "
                f"| {library['tol']:.0e} | {library['gap']:.1e}{'' if library['met'] else ' (missed)'} | {ratio} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each library, alternating")
    parser.add_argument("--target", type=float, default=1e-6, help="the largest relative gap allowed on the path")
    parser.add_argument("--write", action="store_true", help="write paths.json and the table in README.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [measure(n, p, args.target, args.rounds) for n, p in SHAPES]
    versions = {"l1jax": l1jax.__version__, "jax": jax.__version__, "scikit-learn": sklearn.__version__}
    report = {"versions": versions, "python": platform.python_version(), "rows": rows}
    print(table(report))
    if args.write:
        (HERE / "paths.json").write_text(json.dumps(report, indent=1) + "\n")
        readme = HERE / "README.md"
        head, _, rest = readme.read_text().partition("<!-- paths -->")
        _, _, tail = rest.partition("<!-- /paths -->")
        shown = ", ".join(f"{name} {version}" for name, version in versions.items())
        readme.write_text(f"{head}<!-- paths -->\n\n{table(report)}\n\n({shown}; 2 cores)\n\n<!-- /paths -->{tail}")


if __name__ == "__main__":
    main()
