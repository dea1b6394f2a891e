"""The peers of the path benchmark, each in a process that serves timed runs; this file needs NumPy alone.

Data go to a worker once, as files of raw doubles, columns first; a request is a line, and so is its answer.
"""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import venv
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HOME = HERE / ".peers"
PYTHON = {
    "gaussian": ("scikit-learn", "scikit-learn, Gram", "celer", "skglm", "adelie", "adelie, Gram", "python-glmnet"),
    "logistic": ("scikit-learn", "celer", "skglm", "adelie", "python-glmnet"),
    "group": ("celer", "skglm", "adelie"),
}
SWEEPERS = (
    "scikit-learn",
    "scikit-learn, Gram",
    "celer",
    "skglm",
    "scm2cpp-learn",
    "scm2cpp-learn, 5 sweeps",
)


def python_command(worker="peer_worker.py"):
    """The command of a Python worker; makes its environment at the first call."""
    python = HOME / "bin" / "python"
    if not python.exists():
        print(f"making {HOME.name}, the peers' environment", flush=True)
        venv.create(HOME, with_pip=True)
    marker = HOME / "peers.txt"
    if not marker.exists() or marker.read_text() != (HERE / "peers.txt").read_text():
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "peers.txt"], check=True)
        shutil.copy(HERE / "peers.txt", marker)
    return [str(python), str(HERE / worker)]


def sources(chosen, limit):
    """The workers that serve the libraries chosen (all of them where None)."""
    found = [Peers(python_command(), PYTHON, chosen, limit, tuple(sorted({1, os.cpu_count()})))]
    if chosen is None or "R glmnet" in chosen:
        if not has_glmnet():
            print("R glmnet is left out: there is no Rscript with glmnet here")
        else:
            libraries = {"gaussian": ("R glmnet",), "logistic": ("R glmnet",), "group": ()}
            found.append(Peers(["Rscript", str(HERE / "glmnet.R")], libraries, chosen, limit))
    return found


def has_glmnet():
    command = ["Rscript", "-e", "library(glmnet)"]
    return shutil.which("Rscript") is not None and subprocess.run(command, capture_output=True).returncode == 0


class Peers:
    """Libraries in a worker process, which is killed when a run takes longer than the limit, and started anew."""

    device = "cpu"

    def __init__(self, command, by_kind, chosen, limit, threads=(1,)):
        self.threads = threads  # how many a run may be given
        self.command, self.by_kind, self.chosen, self.limit = command, by_kind, chosen, limit
        self.folder = Path(tempfile.mkdtemp(prefix="paths-"))
        self.worker = None
        self.versions = {}

    def load(self, design):
        """Write the data where the worker finds them."""
        n, p = design.X.shape
        wide = {"scikit-learn, Gram", "adelie, Gram"} if p > n else set()  # at p > n a Gram matrix only costs time
        names = self.by_kind[design.kind]
        self.libraries = [m for m in names if m not in wide and (self.chosen is None or m in self.chosen)]
        self.shape = len(design.lams), p
        for name, array in (("X", design.X.T), ("y", design.y), ("lams", design.lams)):
            np.ascontiguousarray(array, dtype=np.float64).tofile(self.folder / name)
        (self.folder / "meta").write_text(f"{n} {p} {len(design.lams)} {design.kind} {design.group}\n")
        self._stop()  # a new process: the first call is a cold one

    def run(self, library, tol, threads=1):
        """(coefficients (L, p) or None, seconds, what else there is to say)."""
        out = self.folder / "coefs"
        seconds, said = self._timed(f"run\t{library}\t{tol!r}\t{out}\t{threads}")
        return (None if said else np.fromfile(out).reshape(self.shape)), seconds, said

    def _timed(self, request):
        """(seconds, {}), or (infinity, what failed)."""
        answer = self._ask(request)
        if answer is None:
            return float("inf"), {"failed": f"over {self.limit:.0f} s"}
        head, _, rest = answer.partition(" ")
        if head == "error":
            return float("inf"), {"failed": rest[:100]}
        return float(head), {}

    def version(self, library):
        return self._ask(f"version\t{library}")

    def close(self):
        self._stop()
        shutil.rmtree(self.folder)

    def _ask(self, line):
        """The worker's answer, or None where the limit passed first."""
        if self.worker is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self.worker = subprocess.Popen(self.command, **pipes, start_new_session=True)
            self.loaded = False
        if not self.loaded:
            self.loaded = True
            self._send(f"load\t{self.folder}")
        return self._send(line)

    def _send(self, line):
        self.worker.stdin.write((line + "\n").encode())
        self.worker.stdin.flush()
        ready, _, _ = select.select([self.worker.stdout], [], [], self.limit)
        answer = self.worker.stdout.readline().decode().strip() if ready else ""
        if not answer:
            died = bool(ready)
            self._stop()
            return "error the worker died" if died else None
        return answer

    def _stop(self):
        if self.worker is not None:
            os.killpg(self.worker.pid, signal.SIGKILL)  # and the processes that it started
            self.worker.wait()
            self.worker = None


class SweepPeers(Peers):
    """Libraries that sweep on one process or on as many as there are cores; long ones on a part, scaled."""

    def __init__(self, chosen, limit, part, device):
        jobs = tuple(sorted({1, os.cpu_count()}, reverse=True))
        super().__init__(python_command("peer_sweeps.py"), {}, chosen, limit, jobs)
        self.part, self.device = part, device  # seconds; the name of what it runs on

    def load(self, study):
        self.libraries = [m for m in SWEEPERS if self.chosen is None or m in self.chosen]
        self.counts, self.shape = {}, study.lams.shape
        for name in ("X", "y", "lams", "rows"):
            array, file = getattr(study, name), self.folder / f"{name}.npy"
            file.unlink(missing_ok=True)
            if array is not None:
                np.save(file, array)
        (self.folder / "axis").write_text(study.axis)
        self._stop()

    def run(self, library, tol, threads=None):
        """(coefficients (parts, L, p) or None, seconds for all parts, what else there is to say)."""
        jobs, out, parts = threads or self.threads[0], self.folder / "coefs.npy", self.shape[0]
        if library not in self.counts:
            few = max(1, min(parts, 4 * jobs, parts // 50))
            for _ in range(2):  # the first one imports and compiles
                seconds, _ = self._timed(f"run\t{library}\t{tol!r}\t{out}\t{jobs}\t{few}")
            self.counts[library] = max(few, min(parts, int(few * self.part / seconds)))
        count = self.counts[library]
        seconds, said = self._timed(f"run\t{library}\t{tol!r}\t{out}\t{jobs}\t{count}")
        if said:
            return None, seconds, said
        return np.load(out), seconds * parts / count, {"parts": count} if count < parts else {}
