"""Time to a certified lambda path: l1jax against its peers in turn, one computing at a time.

    python benchmarks/paths.py --write                       # everything; the peers' environment is made once
    python benchmarks/paths.py --rows 200x5000 --only l1jax  # one row of l1jax alone; needs no peers
    python benchmarks/paths.py --gpu --write                 # on a GPU: l1jax in float64 and float32
    python benchmarks/paths.py --gpu --tiny --solver ssn     # a smoke run of that anywhere, on small problems

Each library runs at the loosest of its tolerances whose whole path (lambda_max to lambda_max/100) has every relative
duality gap, computed outside in NumPy float64 (`certify.py`), at most the target. The rows are in `designs.py`, the
peers in `peers.py`. With --write, results go to paths.json after every row, and the tables made of them to README.md.
Beside semismooth Newton stands its roofline (`roofline.py`): the least time for its products on this device.
What a peer's tolerances give is searched once and kept there (--search does it again); l1jax's are searched every time.
"""

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from certify import Certifier
from designs import ALONE, BARS, ROWS, TINY
from peers import sources as peer_sources
from roofline import beside, ceilings

import l1jax

HERE = Path(__file__).parent
DATA = HERE / "paths.json"
SMOKE = HERE / ".data" / "tiny.json"  # what --tiny writes
LIMIT = 120.0  # seconds a peer's run may take
OURS = "l1jax"
DECADES = [10.0**-k for k in range(2, 21)]
NO_GAP = {"s": math.inf, "gap": math.inf, "kkt": math.inf}


class Ours:
    """l1jax in this process; the answers stay on the device until the clock has stopped."""

    threads = (None,)  # XLA's own pool

    def __init__(self, dtype, solver):
        self.dtype, self.solver = dtype, solver
        self.libraries = (OURS if solver == "auto" else f"{OURS}, {solver}",)
        self.device = jax.devices()[0].device_kind
        self.ceilings = ceilings(dtype)
        rates = ", ".join(f"{rate / 1e9:.0f} G{unit}/s" for unit, rate in self.ceilings.items())
        print(f"{self.device}, {dtype}: {rates}", flush=True)

    def load(self, design):
        X, y = design.X.astype(self.dtype), design.y.astype(self.dtype)
        groups = np.arange(X.shape[1]) // design.group
        penalty = l1jax.GroupLasso(1.0, groups) if design.kind == "group" else l1jax.L1(1.0)
        loss = l1jax.Logistic() if design.kind == "logistic" else l1jax.Squared()
        self.problem = jax.block_until_ready(l1jax.Problem(X, y, loss=loss, penalty=penalty))
        self.lams = design.lams

    def run(self, library, tol, threads=None):
        """(coefficients (L, p), seconds, what else there is to say)."""
        begin = time.perf_counter()
        try:
            result = jax.block_until_ready(l1jax.path(self.problem, lams=self.lams, tol=tol, solver=self.solver))
        except jax.errors.JaxRuntimeError as error:  # out of memory
            return None, time.perf_counter() - begin, {"error": str(error).partition("\n")[0]}
        seconds = time.perf_counter() - begin
        roof = beside(self.problem, self.solver, result.steps, self.ceilings)
        return np.asarray(result.coef), seconds, {"steps": int(np.sum(result.steps)), **roof}

    def version(self, library):
        return f"{l1jax.__version__}, jax {jax.__version__}"


class Search:
    """The loosest tolerance of one library that meets a target; what was tried is remembered in `ladder`."""

    def __init__(self, source, library, certifier, ladder):
        self.source, self.library, self.certifier, self.ladder = source, library, certifier, ladder

    def find(self, target):
        """Decades from the loosest on, then half a decade back; None where no tolerance meets the target in time."""
        for tol in DECADES:
            if self._meets(tol, target):
                looser = 10**0.5 * tol
                return looser if tol != DECADES[0] and self._meets(looser, target) else tol
            if self._hopeless(tol):
                return None
        return None

    def seconds(self, tol):
        return self.ladder[label(tol)]["s"]

    def _meets(self, tol, target):
        if label(tol) not in self.ladder:
            self.ladder[label(tol)] = attempt(self.source, self.library, tol, self.certifier)
        return self.ladder[label(tol)]["gap"] <= target

    def _hopeless(self, tol):
        """Out of time, or no better than two decades before although it took long or the tolerance is tiny."""
        gaps = [self.ladder[label(t)]["gap"] for t in DECADES if t >= tol]
        stuck = len(gaps) > 2 and gaps[-1] > 0.9 * gaps[-3]
        return self.seconds(tol) > LIMIT or (stuck and (self.seconds(tol) > LIMIT / 12 or tol < 1e-11))


def label(tol):
    return f"{tol:.1e}"


def attempt(source, library, tol, certifier):
    """One run: its time, its largest gap and KKT residual (infinite where it failed or took too long)."""
    coefs, seconds, said = source.run(library, tol)
    gap, kkt = (math.inf, math.inf) if coefs is None else certifier.largest(coefs)
    print(
        f"    {library:20s} tol {label(tol)} {seconds:9.4f} s  gap {gap:.1e}  KKT {kkt:.1e}  {said or ''}", flush=True
    )
    return {"s": seconds, "gap": gap, "kkt": kkt, **said}


def measure(row, design, sources, args, known, keep):
    """Records, one for each library: its first call, its searched ladder, and at each target tolerance and times.

    They are given to `keep` when a library's tolerances are searched, and again at the end.
    """
    certifier, records, timed = Certifier(design), [], []
    for source in sources:
        source.load(design)
        for library in source.libraries:
            key = {"row": row, "library": library, "device": source.device, "dtype": dtype_of(source)}
            old = {} if args.search or library.startswith(OURS) else known.get(tuple(key.values()), {})
            with Peak() as peak:
                first = source.run(library, max(args.targets))[1]
            seen = {"version": source.version(library), "cores": os.cpu_count(), "first_call_s": first}
            record = {**key, **seen, "peak_mb": peak.megabytes if library.startswith(OURS) else None}
            records.append(record | {"ladder": dict(old.get("ladder", {})), "targets": dict(old.get("targets", {}))})
            search = Search(source, library, certifier, records[-1]["ladder"])
            for target in args.targets:
                tol = search.find(target)
                if tol is None:
                    records[-1]["targets"].pop(f"{target:.0e}", None)
                else:
                    timed.append(Timed(records[-1], search, target, tol, args.rounds))
            keep(records[-1:])
    for one in timed:
        one.warm()
    for k in range(args.rounds):
        for one in timed:
            one.round(k)
    for one in timed:
        one.finish()
    keep(records)


def dtype_of(source):
    return getattr(source, "dtype", "float64")


class Timed:
    """One library at one target: a run in each round, fewer where runs are long, the last one certified."""

    def __init__(self, record, search, target, tol, rounds):
        self.record, self.search, self.target, self.tol, self.times = record, search, target, tol, []
        seconds = search.seconds(tol)
        self.rounds = rounds if seconds < 5 else min(rounds, 3) if seconds < 20 else 1

    def warm(self):
        """A run with each number of threads (one or all): the faster number is used, and kept with the ladder."""
        step = self.search.ladder[label(self.tol)]
        known = step.get("threads_s", {})
        options = [str(m) for m in self.search.source.threads]
        if known or self.search.seconds(self.tol) > LIMIT / 3:
            options = [min(known, key=known.get, default=options[0])]
        tried = {m: self._run(m)[1] for m in options}
        step["threads_s"] = known or tried
        self.threads = min(tried, key=tried.get)

    def round(self, k):
        if k < self.rounds:
            self.run = self._run(self.threads)
            self.times.append(self.run[1])

    def _run(self, threads):
        return self.search.source.run(self.search.library, self.tol, None if threads == "None" else int(threads))

    def finish(self):
        coefs, _, said = self.run
        gap, kkt = (math.inf, math.inf) if coefs is None else self.search.certifier.largest(coefs)
        if gap > 1.01 * self.target:  # not what it was when its tolerances were searched
            self.record["targets"].pop(f"{self.target:.0e}", None)
            print(f"    {self.search.library} no longer meets {self.target:.0e} at {label(self.tol)}: run --search")
            return
        median = statistics.median(self.times)
        found = {"tol": self.tol, "gap": gap, "kkt": kkt, "median_s": median, "times_s": self.times, **said}
        if len(self.search.source.threads) > 1:
            found["threads"] = int(self.threads)
        self.record["targets"][f"{self.target:.0e}"] = found
        head = f"  {self.record['library']:20s} target {self.target:.0e}: {median:.4f} s at tol {label(self.tol)}"
        first = self.record["first_call_s"]
        print(f"{head}, gap {gap:.1e}, KKT/lambda {kkt:.1e}, first call {first:.2f} s {said or ''}", flush=True)


class Peak:
    """Within `with`: by how much this process's memory grew at most, in MB (Linux; elsewhere None)."""

    megabytes = None

    def __enter__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _kilobytes("VmRSS")
        except OSError:
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is not None:
            self.megabytes = round((_kilobytes("VmHWM") - self.before) / 1024)


def _kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


KEY = ("row", "library", "device", "dtype")


def load(data=DATA):
    """{key: record} of paths.json; JSON has no infinity, None stands for it."""
    records = json.loads(data.read_text())["records"] if data.exists() else []
    for record in records:
        for step in record["ladder"].values():
            step.update({k: math.inf for k in NO_GAP if step[k] is None})
    return {tuple(record[k] for k in KEY): record for record in records}


def save(records, data):
    order = {row: i for i, row in enumerate(ROWS)}
    rows = sorted(records.values(), key=lambda r: (order.get(r["row"], 99), r["library"], r["device"], r["dtype"]))
    text = json.dumps({"records": _finite(rows)}, indent=1, allow_nan=False)
    part = data.with_suffix(".part")
    part.write_text(text + "\n")
    os.replace(part, data)  # whole or not at all
    if data != DATA:
        return
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition("<!-- paths -->")
    _, _, tail = rest.partition("<!-- /paths -->")
    readme.write_text(f"{head}<!-- paths -->\n\n{tables(records)}\n\n<!-- /paths -->{tail}")


def keep(records, data=DATA):
    save(load(data) | {tuple(record[k] for k in KEY): record for record in records}, data)


def _finite(a):
    if isinstance(a, dict):
        return {k: _finite(v) for k, v in a.items()}
    if isinstance(a, list):
        return [_finite(v) for v in a]
    return (float(f"{a:.5g}") if math.isfinite(a) else None) if isinstance(a, float) else a


def tables(records):
    """The table of the bars, that of all libraries, that of rows without peers, and that of other devices."""
    cpu = [r for r in records.values() if r["device"] == "cpu"]
    by_row = {row: {r["library"]: r for r in cpu if r["row"] == row and r["dtype"] == "float64"} for row in ROWS}
    parts = [bars_table(by_row), libraries_table(by_row), lone_table(records), versions_line(cpu)]
    return "\n\n".join(part for part in parts if part)


def markdown(head, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]) if lines else ""


def best_peer(found, target):
    """(name, its figures) of the fastest peer that meets the target; None where none does."""
    met = {
        name: r["targets"][target] for name, r in found.items() if not name.startswith(OURS) and target in r["targets"]
    }
    return min(met.items(), key=lambda item: item[1]["median_s"], default=None)


def bars_table(by_row):
    lines = []
    for row, bars in BARS.items():
        for target, bar in zip(("1e-04", "1e-06"), bars, strict=True):
            found = by_row[row]
            best = best_peer(found, target)
            stand_in = best is None
            best = best or best_peer(found, "1e-04")
            ours = found.get(OURS, {"targets": {}})["targets"].get(target)
            if best is None and ours is None:
                continue
            mine = (
                ["missed" if OURS in found else "not run", ""]
                if ours is None
                else [seconds(ours), f"{ours['gap']:.0e}, {ours['kkt']:.0e}"]
            )
            theirs, ratio = "", ""
            if best is not None:
                name, figures = best
                theirs = (
                    f"{name} {seconds(figures)} ({figures['gap']:.0e}{', none met the target' if stand_in else ''})"
                )
                ratio = "" if ours is None else f"{ours['median_s'] / figures['median_s']:.2f}"
            lines.append([row, target, *mine, theirs, ratio, f"{bar}"])
    return markdown(["design", "target", "l1jax, s", "gap, KKT/lambda", "best peer, s (gap)", "ratio", "bar"], lines)


def seconds(figures):
    return f"{figures['median_s']:.3f}" if figures["median_s"] < 10 else f"{figures['median_s']:.1f}"


def libraries_table(by_row):
    lines = []
    for row, found in by_row.items():
        for name, record in sorted(found.items(), key=lambda item: (item[0] != OURS, item[0])):
            cells = [_cell(record, target) for target in ("1e-04", "1e-06")]
            lines.append([row, name, *cells, f"{record['first_call_s']:.2f}" if record["first_call_s"] else ""])
    return markdown(["design", "library", "1e-4: s (gap, tol)", "1e-6: s (gap, tol)", "first call, s"], lines)


def _cell(record, target):
    figures = record["targets"].get(target)
    if figures is not None:
        return f"{seconds(figures)} ({figures['gap']:.0e}, {figures['tol']:.0e})"
    runs = [step for step in record["ladder"].values() if math.isfinite(step["gap"])]
    best = min(runs, key=lambda step: step["gap"], default=None)
    if best is not None and best["gap"] <= float(target):
        return "not timed"
    return "missed" if best is None else f"missed: {best['gap']:.0e} in {best['s']:.1f} s"


def lone_table(records):
    """l1jax on other devices, in other dtypes and on the rows that have no peers."""
    lines = []
    for r in records.values():
        alone = r["row"] in ALONE or r["device"] != "cpu" or r["dtype"] != "float64" or r["library"] != OURS
        if r["library"].startswith(OURS) and alone:
            for target in sorted(r["targets"], reverse=True):
                f = r["targets"][target]
                peak = "" if r["peak_mb"] is None or r["device"] != "cpu" else f"{r['peak_mb']}"
                figures = [seconds(f), f"{f['gap']:.0e}, {f['kkt']:.0e}", f"{r['first_call_s']:.1f}", peak]
                roof = f"{f['floor_s']:.2g} ({f['longest']})" if "floor_s" in f else ""
                lines.append([r["row"], r["device"], r["dtype"], target, *figures, roof])
    head = ["design", "device", "dtype", "target", "l1jax, s", "gap, KKT/lambda", "first call, s", "peak, + MB"]
    head.append("roofline, s (steps)")
    return markdown(head, lines)


def versions_line(cpu):
    versions = {r["library"].split(",")[0]: r["version"] for r in cpu}
    cores = {r["cores"] for r in cpu}
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"({shown}; {'/'.join(map(str, sorted(cores)))} cores)" if cpu else ""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *TINY], metavar="ROW", help=f"some of {list(ROWS)}")
    parser.add_argument("--targets", nargs="+", type=float, help="largest relative gaps allowed (1e-4 and 1e-6)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each library, alternating")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="the peers to measure; all by default")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64", help="of l1jax's problem")
    parser.add_argument("--only", choices=[OURS, "peers"], help="measure l1jax alone, or the peers alone")
    parser.add_argument("--gpu", action="store_true", help="l1jax alone, in float64 and then in float32")
    parser.add_argument("--search", action="store_true", help="search the peers' tolerances anew")
    parser.add_argument("--write", action="store_true", help="keep results in paths.json, tables in README.md")
    parser.add_argument("--table", action="store_true", help="measure nothing: only print the tables of paths.json")
    parser.add_argument("--solver", default="auto", help="l1jax's engine")
    parser.add_argument("--tiny", action="store_true", help="small problems in place of the rows; tables are printed")
    args = parser.parse_args()
    args.targets = args.targets or ([1e-4] if args.dtype == "float32" else [1e-4, 1e-6])
    args.rows = args.rows or list(TINY if args.tiny else ROWS)
    return args


def both_dtypes():
    """This command once for each dtype, in a process of its own: float32 is measured with x64 off."""
    rest = [word for word in sys.argv[1:] if word != "--gpu"]
    for dtype in ("float64", "float32"):
        subprocess.run([sys.executable, __file__, *rest, "--only", OURS, "--dtype", dtype], check=True)


def main():
    args = arguments()
    if args.table:
        return print(tables(load()))
    if args.gpu:
        return both_dtypes()
    data = SMOKE if args.tiny else DATA
    data.parent.mkdir(exist_ok=True)
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    warnings.simplefilter("ignore")
    ours = [] if args.only == "peers" else [Ours(args.dtype, args.solver)]
    peers = [] if args.only == OURS or args.dtype == "float32" else peer_sources(args.peers, LIMIT)
    kept = functools.partial(keep, data=data) if args.write else len
    for row in args.rows:
        print(row, flush=True)
        try:
            design = (TINY if args.tiny else ROWS)[row]()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"  left out: its data can't be had here ({error})")
            continue
        if args.solver != "auto" and design.kind == "group":
            print(f"  left out: groups are not for {args.solver}")
            continue
        measure(row, design, ours if row in ALONE else ours + peers, args, load(data), kept)
    for peer in peers:
        peer.close()
    if args.tiny and args.write:
        print(lone_table(load(data)))


if __name__ == "__main__":
    main()
