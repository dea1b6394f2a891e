"""Hard designs: the share of strengths that each library certifies, and its time.

    python benchmarks/hard.py --write

The designs of tests/test_active.py (duplicate columns, no noise, one column 1e8 times another, ...), some seeds of
each; 30 strengths from lambda_max to a thousandth of it. A strength counts if its relative gap, computed outside in
NumPy float64 (`certify.py`), is at most 1e-6. l1jax runs at its default tolerance, its peers at theirs and at 1e-12,
with as many iterations as they like within a minute a path.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
from certify import Certifier
from designs import Design, strengths
from measuring import OURS, write_section
from paths import Ours
from peers import PYTHON, Peers, python_command

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))
DATA = HERE / "hard.json"
TARGET, LIMIT, NUM, RATIO = 1e-6, 60.0, 30, 1e-3
RUNS = [(OURS, 1e-6), ("scikit-learn", 1e-4), ("scikit-learn", 1e-12), ("celer", 1e-4), ("celer", 1e-12)]


def problem(make, noise_free, seed):
    rng = np.random.default_rng(seed)
    X = make(rng)
    signal = X[:, : min(5, X.shape[1])].sum(axis=1) / np.abs(X).max()
    y = signal if noise_free else signal + 0.1 * np.std(signal) * rng.standard_normal(len(X))
    lams = strengths(X, y, NUM)
    return Design(X, y, "gaussian", lams[0] * np.geomspace(1, RATIO, NUM))


def measure(seeds):
    from test_active import DESIGNS

    jax.config.update("jax_enable_x64", True)
    ours, peers = Ours("float64", "auto"), Peers(python_command(), PYTHON, {"scikit-learn", "celer"}, LIMIT)
    records = []
    for name, make in DESIGNS.items():
        done = {run: [] for run in RUNS}
        for seed in range(seeds):
            design = problem(make, "noise-free" in name, seed)
            certifier = Certifier(design)
            ours.load(design)
            peers.load(design)
            for library, tol in RUNS:
                source = ours if library == OURS else peers
                source.run(library, tol)  # compilation
                coefs, seconds, _ = source.run(library, tol)
                sound = coefs is not None and np.isfinite(coefs).all()
                share = float(np.mean(certifier.each(coefs)[0] <= TARGET)) if sound else 0.0
                done[library, tol].append((share, seconds))
        for (library, tol), seen in done.items():
            shares, seconds = np.array(seen).T
            records.append({"design": name, "library": library, "tol": tol, "seeds": seeds,
                            "share": float(shares.mean()), "s": float(np.median(seconds))})  # fmt: skip
            print(records[-1], flush=True)
    peers.close()
    return records


def table(records):
    heads = [f"{library}, tol {tol:.0e}" for library, tol in RUNS]
    lines = [f"| design | {' | '.join(heads)} |", "|" + " --- |" * (1 + len(heads))]
    for name in dict.fromkeys(r["design"] for r in records):
        row = {(r["library"], r["tol"]): r for r in records if r["design"] == name}
        cells = [f"{100 * row[run]['share']:.0f} %, {row[run]['s']:.2g} s" for run in RUNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the results and write the table to README.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    records = measure(args.seeds)
    print(table(records))
    if args.write:
        DATA.write_text(json.dumps(records, indent=1) + "\n")
        write_section("hard", table(records))


if __name__ == "__main__":
    main()
