"""Searching tolerances, timing in alternating rounds, and keeping what was found: shared by the benchmarks."""

import json
import math
import os
import statistics
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 120.0  # seconds a peer's run may take
OURS = "l1jax"
DECADES = [10.0**-k for k in range(2, 21)]


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


def measure(row, design, certifier, sources, args, known, keep):
    """Records, one for each library: its first call, its searched ladder, and at each target tolerance and times.

    They are given to `keep` when a library's tolerances are searched, and again at the end.
    """
    records, timed = [], []
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
        self.short = seconds < 5
        self.rounds = rounds if self.short else min(rounds, 3) if seconds < 20 else 1

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
            if self.short:
                self._run(self.threads)  # untimed: the memory of a process that waited may have been taken away
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
            self.before = kilobytes("VmRSS")
        except OSError:
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is not None:
            self.megabytes = round((kilobytes("VmHWM") - self.before) / 1024)


def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


KEY = ("row", "library", "device", "dtype")


def load(data):
    """{key: record} of a file of results; JSON has no infinity, None stands for it."""
    records = json.loads(data.read_text())["records"] if data.exists() else []
    for record in records:
        for step in record["ladder"].values():
            for figures in (step, step.get("threads_s", {})):
                figures.update({k: math.inf for k, figure in figures.items() if figure is None})
    return {tuple(record[k] for k in KEY): record for record in records}


def save(records, data, rows):
    """Write {key: record} in the order of the rows."""
    order = {row: i for i, row in enumerate(rows)}
    ranked = sorted(records.values(), key=lambda r: (order.get(r["row"], 99), r["library"], r["device"], r["dtype"]))
    text = json.dumps({"records": _finite(ranked)}, indent=1, allow_nan=False)
    part = data.with_suffix(".part")
    part.write_text(text + "\n")
    os.replace(part, data)  # whole or not at all


def keep(records, data, rows):
    """Add records to a file of results; all of them."""
    found = load(data) | {tuple(record[k] for k in KEY): record for record in records}
    save(found, data, rows)
    return found


def write_section(name, text):
    """Put the text between the marks of this name in README.md."""
    page = HERE / "README.md"
    head, _, rest = page.read_text().partition(f"<!-- {name} -->")
    _, _, tail = rest.partition(f"<!-- /{name} -->")
    page.write_text(f"{head}<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->{tail}")


def _finite(a):
    if isinstance(a, dict):
        return {k: _finite(v) for k, v in a.items()}
    if isinstance(a, list):
        return [_finite(v) for v in a]
    return (float(f"{a:.5g}") if math.isfinite(a) else None) if isinstance(a, float) else a


def markdown(head, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]) if lines else ""


def best_peer(found, target):
    """(name, its figures) of the fastest peer that meets the target; None where none does."""
    met = {
        name: r["targets"][target] for name, r in found.items() if not name.startswith(OURS) and target in r["targets"]
    }
    return min(met.items(), key=lambda item: item[1]["median_s"], default=None)


def seconds(figures):
    return f"{figures['median_s']:.3f}" if figures["median_s"] < 10 else f"{figures['median_s']:.1f}"


def versions_line(cpu):
    versions = {r["library"].split(",")[0]: r["version"] for r in cpu}
    cores = {r["cores"] for r in cpu}
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"({shown}; {'/'.join(map(str, sorted(cores)))} cores)" if cpu else ""
