"""Where the time of a path goes: the parts of l1jax's host-driven engine, by wall time, on rows of the path benchmark.

    python benchmarks/profiling.py "1000x5000" "logistic 5000x300" --tol 3e-4

Medians of some runs, in milliseconds. Parts: the data prepared; the moments of many rows; features taken in hand (their
rows of X, and for the squared loss their Gram matrix); steps; passes over X for the slopes of all features;
certificates; and all else, which is mostly the calls of compiled programs.
"""

import argparse
import functools
import statistics
import time
from collections import defaultdict

import jax
from designs import ROWS

import l1jax
from l1jax import hosted, paths
from l1jax.engines.sets import SmoothSet, SquaredSet
from l1jax.engines.working_set import WorkingSet

PARTS = {
    "data": [(paths, "prepared")],
    "moments": [(hosted, "sufficient")],
    "in hand": [(SquaredSet, "read"), (SmoothSet, "read")],
    "steps": [(WorkingSet, "settle"), (hosted.Homotopy, "run")],
    "passes": [(SquaredSet, "slopes"), (SmoothSet, "slopes")],
    "certificates": [(hosted.Sight, "certified"), (hosted.Summary, "certified")],
}


def timed(owner, name, part, spent):
    function = getattr(owner, name)

    @functools.wraps(function)
    def call(*given, **named):
        begin = time.perf_counter()
        found = jax.block_until_ready(function(*given, **named))
        spent[part] += time.perf_counter() - begin
        return found

    setattr(owner, name, call)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=ROWS, metavar="ROW", help=f"some of {list(ROWS)}")
    parser.add_argument("--tol", type=float, default=3e-5)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    spent = defaultdict(float)
    for part, functions in PARTS.items():
        for owner, name in functions:
            timed(owner, name, part, spent)
    for row in args.rows:
        design, runs = ROWS[row](), []
        loss = l1jax.Logistic() if design.kind == "logistic" else l1jax.Squared()
        problem = jax.block_until_ready(l1jax.Problem(design.X, design.y, loss=loss, penalty=l1jax.L1(1.0)))
        for _ in range(args.runs + 1):
            spent.clear()
            begin = time.perf_counter()
            found = jax.block_until_ready(l1jax.path(problem, lams=design.lams, tol=args.tol))
            whole = time.perf_counter() - begin
            runs.append({"whole": whole, **spent, "else": whole - sum(spent.values())})
        told = {part: statistics.median(run.get(part, 0.0) for run in runs[1:]) for part in ["whole", *PARTS, "else"]}
        print(f"{row}: {int(found.steps.sum())} steps;", ", ".join(f"{k} {v * 1e3:.1f}" for k, v in told.items()))


if __name__ == "__main__":
    main()
