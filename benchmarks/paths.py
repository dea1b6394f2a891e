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
import math
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from certify import Certifier
from designs import ALONE, BARS, ROWS, TINY
from measuring import LIMIT, OURS, best_peer, keep, load, markdown, measure, seconds, versions_line, write_section
from peers import sources as peer_sources
from roofline import beside, ceilings

import l1jax

HERE = Path(__file__).parent
DATA = HERE / "paths.json"
SMOKE = HERE / ".data" / "tiny.json"  # what --tiny writes


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


def write(records, data):
    found = keep(records, data, ROWS)
    if data == DATA:
        write_section("paths", tables(found))


def tables(records):
    """The table of the bars, that of all libraries, that of rows without peers, and that of other devices."""
    cpu = [r for r in records.values() if r["device"] == "cpu"]
    by_row = {row: {r["library"]: r for r in cpu if r["row"] == row and r["dtype"] == "float64"} for row in ROWS}
    parts = [bars_table(by_row), libraries_table(by_row), lone_table(records), versions_line(cpu)]
    return "\n\n".join(part for part in parts if part)


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
        return print(tables(load(DATA)))
    if args.gpu:
        return both_dtypes()
    data = SMOKE if args.tiny else DATA
    data.parent.mkdir(exist_ok=True)
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    warnings.simplefilter("ignore")
    ours = [] if args.only == "peers" else [Ours(args.dtype, args.solver)]
    peers = [] if args.only == OURS or args.dtype == "float32" else peer_sources(args.peers, LIMIT)
    kept = functools.partial(write, data=data) if args.write else len
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
        measure(row, design, Certifier(design), ours if row in ALONE else ours + peers, args, load(data), kept)
    for peer in peers:
        peer.close()
    if args.tiny and args.write:
        print(lone_table(load(data)))


if __name__ == "__main__":
    main()
