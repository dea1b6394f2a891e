"""Time to certified sweeps, many lassos in one call: l1jax against its peers in turn, one computing at a time.

    python benchmarks/sweeps.py --write                  # everything; the peers' environment is made once
    python benchmarks/sweeps.py --rows 10000 --only l1jax --dtype float32   # a row of l1jax alone; needs no peers
    python benchmarks/sweeps.py --gpu --write            # on a GPU: l1jax in both dtypes, and scikit-learn on its cores
    python benchmarks/sweeps.py --tiny                   # a smoke run, on small problems
    python benchmarks/sweeps.py --million                # a million lassos of 100 x 20, made from keys in chunks

Each library runs at the loosest of its tolerances whose every relative duality gap, computed outside in NumPy
float64 (`certify.py`), is at most 1e-6. The rows are in `studies.py`, the peers in `peer_sweeps.py`. With --write,
results go to sweeps.json after every row, and the tables made of them to README.md. A peer's run that would take over
20 seconds is done on as many of the row's parts as take that long, and scaled; the table says how many. What a peer's
tolerances give is searched once and kept there (--search does it again); l1jax's are searched every time.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from certify import Certifier
from designs import Design
from measuring import (
    OURS,
    Peak,
    best_peer,
    keep,
    kilobytes,
    load,
    markdown,
    measure,
    seconds,
    versions_line,
    write_section,
)
from peers import SWEEPERS, SweepPeers
from studies import BARS, ROWS, TINY

import l1jax

HERE = Path(__file__).parent
DATA, MILLION = HERE / "sweeps.json", HERE / "million.json"
GPU_AIM = 1 / 50  # of scikit-learn's time on the cores beside it
TARGET, COARSE = 1e-6, 1e-5  # the gap asked for, and where float32 doesn't get there
LIMIT, PART = 120.0, 20.0  # seconds: when a peer's run is given up, and from when on it is of a part of the row


class Ours:
    """l1jax in this process; the answers stay on the device until the clock has stopped."""

    threads = (None,)  # XLA's own pool
    libraries = (OURS,)

    def __init__(self, dtype):
        self.dtype, self.device = dtype, jax.devices()[0].device_kind

    def load(self, study):
        X, y, lams = (a.astype(self.dtype) for a in (study.X, study.y, study.lams))
        row = (X, y[0]) if study.axis == "targets" else (X, y)
        own = {"num": lams.shape[1], "ratio": study.ratio}
        given = {
            "lambdas": {"lams": lams[0]},
            "folds": {"lams": lams[0], "folds": study.folds},
            "weights": {"lams": lams[0], "weights": study.weights.astype(self.dtype) if study.rows is not None else 0},
            "targets": {"targets": y.T, **own},
            "problems": {"over": jax.device_put((X, y)), **own},
        }[study.axis]
        self.shape = *lams.shape, X.shape[-1]
        problem = _lasso if study.axis == "problems" else jax.block_until_ready(_lasso(row))
        self.sweep = functools.partial(l1jax.sweep, problem, **given)

    def run(self, library, tol, threads=None):
        """(coefficients (parts, L, p), seconds, what else there is to say)."""
        begin = time.perf_counter()
        result = jax.block_until_ready(self.sweep(tol=tol))
        passed = time.perf_counter() - begin
        return np.asarray(result.coef).reshape(self.shape), passed, {"converged": float(np.mean(result.converged))}

    def version(self, library):
        return f"{l1jax.__version__}, jax {jax.__version__}"


def _lasso(row):
    return l1jax.Problem(*row, penalty=l1jax.L1(1.0))


def million(count, chunk):
    """Lassos of 100 x 20 made from keys: three features of unit size, noise of unit size, lambda 0.1."""
    n, p, lam = 100, 20, 0.1

    def problem(key):
        X, noise = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key), [(n, p), (n,)], strict=True))
        return _lasso((X, X[:, :3].sum(axis=1) + noise))

    keys = jax.random.split(jax.random.key(0), count)
    begin = time.perf_counter()
    with Peak() as peak:
        settings = {} if chunk is None else {"chunk": chunk}
        result = jax.block_until_ready(l1jax.sweep(problem, over=keys, lams=[lam], progress=True, **settings))
    passed = time.perf_counter() - begin
    checked = np.random.default_rng(0).choice(count, min(count, 1000), replace=False)
    coefs, worst = np.asarray(result.coef).reshape(count, 1, p), 0.0
    for k in checked:
        made = problem(keys[k])
        design = Design(*(np.asarray(a, np.float64) for a in (made.X, made.y)), "gaussian", np.array([lam]))
        worst = max(worst, Certifier(design).largest(coefs[k])[0])
    answers = sum(a.nbytes for a in jax.tree.leaves(result) if hasattr(a, "nbytes"))
    return {
        "lassos": count,
        "dtype": str(result.coef.dtype),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "s": passed,
        "certified": float(np.mean(result.converged)),
        "tol": float(np.max(result.tol)),
        "largest_gap": float(np.max(result.gap)),
        "largest_gap_outside": worst,
        "checked_outside": len(checked),
        "peak_mb": round(kilobytes("VmHWM") / 1024),
        "grown_mb": peak.megabytes,
        "answers_mb": round(answers / 2**20),
    }


def tables(records):
    """The table of the bars, that of all libraries, and the versions."""
    lines = []
    for (row, name, device, dtype), record in records.items():
        if name != OURS:
            continue
        beside = {other: r for (at, other, where, _), r in records.items() if (at, where) == (row, host(device))}
        best, figures = best_peer(beside, label(TARGET)), reached(record)
        mine = f"{seconds(figures)} ({figures['gap']:.0e})" if figures else missed(record)
        theirs = "" if best is None else f"{best[0]} {seconds(best[1])}"
        ratio = "" if None in (best, figures) else f"{figures['median_s'] / best[1]['median_s']:.2f}"
        peak = "" if record["peak_mb"] is None or device != "cpu" else str(record["peak_mb"])
        bars = map(str, BARS[row]) if device == "cpu" else ("", str(GPU_AIM))
        lines.append([row, device, dtype, mine, f"{record['first_call_s']:.1f}", peak, theirs, ratio, *bars])
    head = ["sweep", "device", "dtype", "l1jax, s (gap)", "first call, s", "peak, + MB", "best peer, s", "ratio"]
    parts = [markdown([*head, "floor", "aim"], lines), peers_table(records), versions_line(records.values())]
    return "\n\n".join(part for part in parts if part)


def host(device):
    """Where the peers run beside l1jax on this device."""
    return device if device == "cpu" else f"cpu beside {device}"


def label(target):
    return f"{target:.0e}"


def reached(record):
    """The figures at the tightest target met; None where none is."""
    return next((record["targets"][t] for t in map(label, (TARGET, COARSE)) if t in record["targets"]), None)


def missed(record):
    return "not timed" if any(step["gap"] <= TARGET for step in record["ladder"].values()) else "missed"


def peers_table(records):
    lines = []
    for (row, name, device, _), record in records.items():
        figures = record["targets"].get(label(TARGET))
        if name == OURS:
            continue
        if figures is None:
            lines.append([row, device, name, missed(record), "", "", ""])
            continue
        parts = f"{figures['parts']}, scaled" if "parts" in figures else "all"
        said = [seconds(figures), f"{figures['gap']:.0e}, {figures['tol']:.0e}", str(figures["threads"]), parts]
        lines.append([row, device, name, *said])
    return markdown(["sweep", "device", "peer", "s", "gap, tol", "processes", "parts run"], lines)


def write(records, data):
    found = keep(records, data, ROWS)
    if data == DATA:
        report(found)


def report(found):
    lone = json.loads(MILLION.read_text()) if MILLION.exists() else None
    write_section("sweeps", "\n\n".join([tables(found), *([told(lone)] if lone else [])]))


def told(lone):
    outside = f"{lone['checked_outside']} of them checked outside: {lone['largest_gap_outside']:.0e}"
    certified = f"{100 * lone['certified']:.4g} % certified to {lone['tol']:.0e}"
    memory = (
        f"memory at most {lone['peak_mb']} MB, {lone['grown_mb']} MB more than before, {lone['answers_mb']} MB of it"
    )
    ran = f"{lone['lassos']:,} lassos of 100 x 20, {lone['dtype']}, {lone['cores']} cores: {lone['s']:.0f} s"
    return f"{ran}, {certified} (largest gap {lone['largest_gap']:.0e}; {outside}), {memory} the answers."


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"rows that contain one of these words: {list(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each library, alternating")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help=f"the peers to measure; all by default: {SWEEPERS}")
    parser.add_argument("--dtype", choices=["float64", "float32"], help="both by default; of the million float64")
    parser.add_argument("--only", choices=[OURS, "peers"], help="measure l1jax alone, or the peers alone")
    parser.add_argument("--gpu", action="store_true", help="beside l1jax, of the peers scikit-learn alone")
    parser.add_argument("--search", action="store_true", help="search the peers' tolerances anew")
    parser.add_argument("--write", action="store_true", help="keep results in sweeps.json, tables in README.md")
    parser.add_argument("--table", action="store_true", help="measure nothing: only print the tables of sweeps.json")
    parser.add_argument("--tiny", action="store_true", help="small problems in place of the rows")
    parser.add_argument("--million", action="store_true", help="the million lassos alone")
    parser.add_argument("--count", type=int, default=1_000_000, help="how many instead of a million")
    parser.add_argument("--chunk", type=int, help="lassos at a time; by default what fits in memory")
    args = parser.parse_args()
    if args.gpu:
        args.peers = ["scikit-learn", "scikit-learn, Gram"]
    return args


def each_dtype(args):
    """This command once for each dtype, in a process of its own: float32 is measured with x64 off, without peers."""
    for dtype in ("float64", "float32"):
        only = ["--only", OURS] if dtype == "float32" and args.only is None else []
        subprocess.run([sys.executable, __file__, *sys.argv[1:], *only, "--dtype", dtype], check=True)


def main():
    args = arguments()
    if args.table:
        return print(tables(load(DATA)))
    if args.million:
        jax.config.update("jax_enable_x64", args.dtype != "float32")
        found = million(args.count, args.chunk)
        print(told(found))
        if args.write:
            MILLION.write_text(json.dumps(found, indent=1) + "\n")
            report(load(DATA))
        return None
    if args.dtype is None and args.only != "peers":
        return each_dtype(args)
    args.targets = [TARGET, COARSE] if args.dtype == "float32" else [TARGET]
    jax.config.update("jax_enable_x64", args.dtype != "float32")
    warnings.simplefilter("ignore")
    sources = [] if args.only == "peers" else [Ours(args.dtype)]
    sources += [] if args.only == OURS else [SweepPeers(args.peers, LIMIT, PART, host(jax.devices()[0].device_kind))]
    kept = functools.partial(write, data=DATA) if args.write else len
    for row, make in (TINY if args.tiny else ROWS).items():
        if args.rows and not any(word in row for word in args.rows):
            continue
        print(row, flush=True)
        study = make()
        measure(row, study, study, sources, args, load(DATA), kept)
    for source in sources:
        if isinstance(source, SweepPeers):
            source.close()
    return None


if __name__ == "__main__":
    main()
