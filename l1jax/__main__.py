"""python -m l1jax: a whole lambda path on real data, told so that a person can read it."""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from l1jax import analysis, report
from l1jax.datasets import Dataset, diabetes
from l1jax.folds import Folds
from l1jax.losses import Logistic, Squared
from l1jax.paths import path
from l1jax.penalties import L1
from l1jax.plot import coefficient_path
from l1jax.problem import Problem
from l1jax.result import Result
from l1jax.selection import cross_validate
from l1jax.tables import TableError, read_table, write_path
from l1jax.version import __version__

FOLDS = 10

DESCRIPTION = """\
Fit a linear model with an L1 penalty at many strengths lambda, from the one at which every coefficient is zero down
to almost none, and tell what that shows: the path, the order in which features enter, and a model chosen by 10-fold
cross-validation. Every solution comes with its duality gap: a proof of how close to the best possible it is.
Without DATA it runs on the diabetes study of Efron et al. (2004), 442 patients, which is part of the package.
"""

EPILOG = """\
DATA is a CSV file: numbers separated by commas, without gaps, under a line that names the columns. All columns but
the target are features. Each is scaled to unit standard deviation while fitting, so that one lambda weighs them all
alike and the order of entry means something; coefficients are told in the units of the file.

examples:
  python -m l1jax
  python -m l1jax houses.csv --target price
  python -m l1jax patients.csv --target ill --loss logistic --out results

writes DIR/path.csv (lambda, nonzeros, share explained, gap, intercept, coefficients: one line for each lambda) and
DIR/path.png (needs matplotlib: pip install "l1jax[plot]"). Exit status: 0, or 2 if the input is unfit.
"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, read and checked."""
    parser = argparse.ArgumentParser(
        prog="python -m l1jax",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="a CSV file (default: the diabetes data)")
    parser.add_argument("--target", metavar="NAME", help="the column of DATA to explain")
    parser.add_argument(
        "--loss",
        choices=("squared", "logistic"),
        default="squared",
        help="squared for a number, logistic for classes written 0 and 1 (or -1 and 1) (default: squared)",
    )
    parser.add_argument("--num", type=int, default=100, metavar="N", help="how many lambdas, >= 2 (default: 100)")
    parser.add_argument(
        "--out", type=Path, default=Path("l1jax-out"), metavar="DIR", help="where to write (default: l1jax-out)"
    )
    parser.add_argument("--version", action="version", version=f"l1jax {__version__}")
    args = parser.parse_args(argv)
    if args.num < 2:
        parser.error(f"--num: a path has at least 2 lambdas, got {args.num}")
    if args.data is None and (args.target is not None or args.loss != "squared"):
        parser.error("--target and --loss are about a file of yours: name it first, python -m l1jax DATA --target NAME")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments `argv` (those of the command line by default); the exit status."""
    args = arguments(argv)
    try:
        with jax.enable_x64(True):
            run(args)
    except BrokenPipeError:  # the reader has seen enough; Python would complain once more as it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except TableError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return 0


def _refuse(message: str) -> int:
    print(f"l1jax: {message}", file=sys.stderr)
    return 2


def run(args: argparse.Namespace) -> None:
    """Fit, tell, and write."""
    began = time.perf_counter()
    data = diabetes(scaled=False) if args.data is None else read_table(args.data, args.target)
    source = "the diabetes data (Efron et al. 2004)" if args.data is None else str(args.data)
    loss: Squared | Logistic = Squared() if args.loss == "squared" else Logistic()
    share, error = ("R2", "mean squared error") if args.loss == "squared" else ("D2", "mean deviance")
    n, p = data.X.shape
    print(f"l1jax {__version__}: {args.loss} loss + L1 on {source}: {n} rows, {p} features, target {data.target}")
    print("Features are scaled to unit standard deviation while fitting; coefficients are in the data's own units.")
    check_classes(data, args)
    args.out.mkdir(parents=True, exist_ok=True)

    # A lane that a file makes slow would hold up all others, so files leave the choice to the library.
    mode = "vmap" if args.data is None else "auto"
    print(f"\nSolving {args.num} lambdas{' in one vmap call' if mode == 'vmap' else ''} ...", flush=True)
    problem = Problem(
        data.X, data.y, loss=loss, penalty=L1(1.0), sample_weight=np.ones(n), standardize=True, names=data.names
    )
    result = fit(problem, args.num, mode)
    print(report.path_table(result, share))
    late = int(np.sum(~np.asarray(result.converged)))
    if late:
        print(f"{late} of {args.num} solutions did not reach the gap of {float(result.tol[0]):.0e} in time.")
    if args.loss == "logistic":
        print("(D2 is the share of the deviance explained, as R2 is that of the variance.)")

    print(flush=True)
    print(report.order_of_entry(analysis.support_changes(problem, result, mode), data.names))

    folds = min(FOLDS, n)
    print(f"\nA model by {folds}-fold cross-validation (random folds, seed 0)", flush=True)
    strata = data.y if args.loss == "logistic" else None
    dealt = Folds.of(n, folds, key=jax.random.key(0), strata=strata)
    exact = args.loss == "squared" and n > p  # elsewhere a gap of 1e-6 takes long, and says no more about new rows
    cv = cross_validate(problem, folds=dealt, lams=result.lams, mode=mode, tol=None if exact else 1e-4)
    scale = data.X.std(axis=0)
    print(report.model(result, cv, scale, share, error))

    print("\nWhy these zeros are exact: one weight, shrunk step by step by L1 and by L2")
    print(report.proof())
    print("L1 pulls with the same strength to the end and arrives; the pull of L2 fades with the weight.\n", flush=True)
    write_path(args.out / "path.csv", result, share)
    print(f"Wrote {args.out / 'path.csv'}")
    marks = {"lambda.min": float(cv.lam_min), "lambda.1se": float(cv.lam_1se)}
    draw(args.out / "path.png", result, scale, marks)
    print(f"Done in {time.perf_counter() - began:.1f} s")


def check_classes(data: Dataset, args: argparse.Namespace) -> None:
    """Refuse labels that are unfit for the logistic loss, or too few to hold some out."""
    if args.loss != "logistic":
        return
    complaint = Logistic().complaint(jax.numpy.asarray(data.y), jax.numpy.ones(len(data.y)))
    if complaint:
        raise TableError(f"column {data.target!r}: {complaint}")
    labels, counts = np.unique(data.y, return_counts=True)
    if counts.min() < 2:
        label = labels[counts.argmin()]
        raise TableError(f"column {data.target!r}: only one row is {label:g}; cross-validation wants two of each class")


def fit(problem: Problem, num: int, mode: str) -> Result:
    """The path; what the library refuses is refused in its words."""
    try:
        result = path(problem, num=num, mode=mode)
    except ValueError as error:
        raise TableError(str(error)) from error
    if not np.all(np.isfinite(np.asarray(result.gap))):
        raise TableError("some columns are too large or too small to compute with; change their units")
    return result


def draw(file: Path, result: Result, scale: np.ndarray, marks: dict[str, float]) -> None:
    """Draw the path, of coefficients per standard deviation of their columns, if matplotlib is there."""
    try:
        ax = coefficient_path(dataclasses.replace(result, coef=np.asarray(result.coef) * scale), mark=marks)
    except ImportError as error:
        print(f"No picture: {error}")
        return
    ax.set_ylabel("coefficient × standard deviation of its column")
    ax.figure.savefig(file, dpi=150)
    print(f"Wrote {file}")


if __name__ == "__main__":
    sys.exit(main())
