"""Time to a certified lambda path: l1jax against its peers, in turn, each in its own process and environment.

    python benchmarks/paths.py --write                       # everything; the peers' environment is made once
    python benchmarks/paths.py --rows 200x5000 --only l1jax  # one row of l1jax alone; needs no peers
    python benchmarks/paths.py --gpu --write                 # on a GPU: l1jax, float64 and float32

Each library runs at the loosest of its tolerances whose whole path (lambda_max to lambda_max/100) has every relative
duality gap, computed outside in NumPy float64 (`certify.py`), at most the target. Rows: `designs.py`; peers: `peers.py`.
Results are kept in paths.json, each library's as soon as a row is done; a peer's tolerances are searched once.
"""

import argparse
import statistics
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from certify import Certifier
from designs import ROWS

import l1jax

HERE = Path(__file__).parent
DATA = HERE / "paths.json"
LIMIT = 120.0  # seconds a run may take
OURS = "l1jax"
DECADES = [10.0**-k for k in range(2, 13)]


class Ours:
    """l1jax in this process."""

    libraries = (OURS,)

    def __init__(self, dtype):
        self.dtype = dtype
        self.device = jax.devices()[0].device_kind

    def load(self, design):
        X, y = design.X.astype(self.dtype), design.y.astype(self.dtype)
        penalties = {"group": l1jax.GroupLasso(1.0, np.arange(X.shape[1]) // design.group)}
        loss = l1jax.Logistic() if design.kind == "logistic" else l1jax.Squared()
        penalty = penalties["group"] if design.kind == "group" else l1jax.L1(1.0)
        self.problem = jax.block_until_ready(l1jax.Problem(X, y, loss=loss, penalty=penalty))
        self.lams = design.lams

    def run(self, library, tol):
        """(coefficients (L, p), seconds, what else there is to say)."""
        begin = time.perf_counter()
        result = jax.block_until_ready(l1jax.path(self.problem, lams=self.lams, tol=tol))
        seconds = time.perf_counter() - begin
        return np.asarray(result.coef), seconds, {"steps": int(result.steps.sum())}


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

    def _meets(self, tol, target):
        key = f"{tol:.1e}"
        if key not in self.ladder:
            self.ladder[key] = attempt(self.source, self.library, tol, self.certifier)
        return self.ladder[key]["gap"] <= target

    def _hopeless(self, tol):
        """Out of time, or a slow run no better than the one before."""
        runs = [self.ladder[f"{t:.1e}"] for t in DECADES if t >= tol]
        stuck = len(runs) > 1 and runs[-1]["gap"] > 0.9 * runs[-2]["gap"] and runs[-1]["s"] > LIMIT / 4
        return runs[-1]["s"] > LIMIT or stuck


def attempt(source, library, tol, certifier):
    """One run: its time, its largest gap and KKT residual (infinite where it failed or took too long)."""
    coefs, seconds, said = source.run(library, tol)
    gap, kkt = certifier.largest(coefs) if coefs is not None else (float("inf"), float("inf"))
    print(f"    {library:22s} tol {tol:.1e}  {seconds:8.3f} s  gap {gap:.1e}  KKT {kkt:.1e}  {said or ''}", flush=True)
    return {"s": seconds, "gap": gap, "kkt": kkt, **said}


def measure(row, design, sources, targets, rounds, known):
    """A record for each library: {library: {..., "targets": {target: ...}}}; `known` has earlier records."""
    certifier, records, chosen = Certifier(design), {}, {}
    for source in sources:
        source.load(design)
        for library in source.libraries:
            old = known.get(library, {})
            record = records[library] = {"ladder": dict(old.get("ladder", {})), "targets": {}}
            with Peak() as peak:
                first = source.run(library, max(targets))[1]
            record["first_call_s"] = first
            if library == OURS:
                record["peak_mb"] = peak.megabytes
            search = Search(source, library, certifier, record["ladder"])
            chosen |= {(library, target): (source, search.find(target)) for target in targets}
    timed = {key: pair for key, pair in chosen.items() if pair[1] is not None}
    times = alternate(
        timed, rounds, {key: records[key[0]]["ladder"][f"{tol:.1e}"]["s"] for key, (_, tol) in timed.items()}
    )
    for (library, target), (source, tol) in timed.items():
        again = attempt(source, library, tol, certifier)
        records[library]["targets"][f"{target:.0e}"] = {
            "tol": tol,
            "median_s": statistics.median(times[library, target]),
            "times_s": times[library, target],
            **{k: v for k, v in again.items() if k != "s"},
        }
    return records


def alternate(timed, rounds, seconds):
    """{(library, target): times}, one run of each in turn in every round; long runs take part in fewer."""
    times = {key: [] for key in timed}
    wanted = {key: rounds if s < 5 else min(rounds, 3) if s < 20 else 1 for key, s in seconds.items()}
    for k in range(rounds):
        for (library, target), (source, tol) in timed.items():
            if k < wanted[library, target]:
                times[library, target].append(source.run(library, tol)[1])
    return times


class Peak:
    """Within `with`: by how much this process's memory grew at most, in MB (Linux; elsewhere None)."""

    megabytes = None

    def __enter__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        except OSError:
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is not None:
            self.megabytes = round((_status("VmHWM") - self.before) / 1024)


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=str(list(ROWS))
    )
    parser.add_argument("--targets", nargs="+", type=float, default=[1e-4, 1e-6], help="largest relative gaps allowed")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each library, alternating")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64", help="of l1jax's problem")
    parser.add_argument("--only", choices=[OURS], help="measure l1jax alone")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    warnings.simplefilter("ignore")
    for row in args.rows:
        print(row, flush=True)
        design = ROWS[row]()
        records = measure(row, design, [Ours(args.dtype)], args.targets, args.rounds, {})
        for library, record in records.items():
            print(f"  {library}: first call {record['first_call_s']:.2f} s, peak memory +{record['peak_mb']} MB")
            for target, found in record["targets"].items():
                print(
                    f"  {library} target {target}: {found['median_s']:.3f} s at tol {found['tol']:.1e}, "
                    f"gap {found['gap']:.1e}, KKT/lambda {found['kkt']:.1e}, {found.get('steps')} steps",
                    flush=True,
                )


if __name__ == "__main__":
    main()
