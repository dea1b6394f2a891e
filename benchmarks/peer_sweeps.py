"""Serves timed sweeps of the peers to `sweeps.py`; runs in their environment, which has no l1jax.

A sweep is cut into pieces, of parts or, of a single part, of its lambdas. One process computes them all, its matrix
products with all cores, or joblib's processes, one thread each, share them; they write to one file. Timed is what a
library computes or needs computed: resampled rows, centring, Gram matrices (of folds by subtraction where the
library's own cross-validation does so). Reading the data and starting processes is not.
"""

import contextlib
import functools
import itertools
import os
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from peer_worker import MANY, serve
from threadpoolctl import threadpool_limits

warnings.simplefilter("ignore")


class Part:
    """X and y, centred; Gram matrix and correlations, made when asked for unless given. `like` has the same X."""

    def __init__(self, X, y, lams, like=None, **given):
        self.X, self.y, self.lams, self.like = X, y, lams, like
        self.__dict__.update(given)

    @functools.cached_property
    def gram(self):
        return self.X.T @ self.X if self.like is None else self.like.gram

    @functools.cached_property
    def correlations(self):
        return self.X.T @ self.y


def scikit_learn(part, tol, **gram):
    from sklearn.linear_model import lasso_path

    settings = {"tol": tol, "max_iter": MANY, "copy_X": False, "check_input": False, "precompute": False, **gram}
    return lasso_path(part.X, part.y, alphas=part.lams, **settings)[1].T


def scikit_learn_gram(part, tol):
    return scikit_learn(part, tol, precompute=part.gram, Xy=part.correlations)


def celer(part, tol):
    from celer import celer_path

    settings = {"tol": tol, "max_iter": 100, "max_epochs": 50_000, "prune": True}
    return celer_path(part.X, part.y, "lasso", alphas=part.lams, **settings)[1].T


def skglm(part, tol):
    """Warm starts down the path; its tolerance is on the subgradient."""
    from skglm import datafits, penalties, solvers

    scale = np.max(np.abs(part.correlations)) / len(part.y)
    solver = solvers.AndersonCD(tol=tol * scale, fit_intercept=False, max_iter=1000)
    w, Xw, path = np.zeros(part.X.shape[1]), np.zeros(len(part.y)), []
    for lam in part.lams:
        solver.p0 = max(10, np.count_nonzero(w))
        w = solver.solve(part.X, part.y, datafits.Quadratic(), penalties.L1(lam), w, Xw)[0]  # Xw is updated in place
        path.append(w.copy())
    return path


def scm2cpp(part, tol, sweeps=20):
    from scm2cpp_learn import CovLasso

    model = CovLasso(gram=part.gram, corr=part.correlations, nobs=len(part.y))
    return model.fit_path(part.lams, tol=tol, chunk=sweeps, max_sweeps=10_000)


PATHS = {
    "scikit-learn": scikit_learn,
    "scikit-learn, Gram": scikit_learn_gram,
    "celer": celer,
    "skglm": skglm,
    "scm2cpp-learn": scm2cpp,
    "scm2cpp-learn, 5 sweeps": functools.partial(scm2cpp, sweeps=5),
}


class Study:
    """The files of a study, mapped to memory: X, y, lams, and rows where each part has its own."""

    def __init__(self, folder):
        self.folder = folder
        self.X, self.y, self.lams = (np.load(Path(folder, f"{name}.npy"), mmap_mode="r") for name in ("X", "y", "lams"))
        rows = Path(folder, "rows.npy")
        self.rows = np.load(rows, mmap_mode="r") if rows.exists() else None
        self.folds = Path(folder, "axis").read_text() == "folds"
        self.shape = *self.lams.shape, self.X.shape[-1]

    def parts(self, begin, end, some, whole):
        """Parts begin to end, at some of their lambdas; `whole` is None, or the moments of all rows."""
        first = None
        for k in range(begin, end):
            X, y = self.X if self.X.ndim == 2 else self.X[k], self.y if self.y.ndim == 1 else self.y[k]
            lams = np.ascontiguousarray(self.lams[k, some])
            if whole is not None:
                yield self.fold(k, lams, *whole)
            elif self.rows is None and self.X.ndim == 2:
                first = first or Part(centred(X), None, None)
                yield Part(first.X, y - y.mean(), lams, first)
            else:
                rows = slice(None) if self.rows is None else self.rows[k]
                yield Part(centred(X[rows]), y[rows] - y[rows].mean(), lams)

    def fold(self, k, lams, means, level, gram, correlations):
        """What all rows have, centred, less what the rows left out have."""
        kept = self.rows[k]
        out = np.setdiff1d(np.arange(len(self.y)), kept, assume_unique=True)
        A, b, m = self.X[out] - means, self.y[out] - level, len(kept)
        mean, rest = -A.sum(axis=0) / m, -b.sum() / m  # of the rows kept, as those of all rows are 0
        gram = gram - A.T @ A - m * np.outer(mean, mean)
        correlations = correlations - A.T @ b - m * rest * mean
        return Part(None, self.y[kept] - level - rest, lams, gram=gram, correlations=correlations)


def centred(X):
    """In columns, as all of these libraries want them."""
    return np.asfortranarray(X - X.mean(axis=0))


@functools.lru_cache(maxsize=1)
def study_of(folder):
    return Study(folder)


def piece(folder, out, library, tol, begin, end, some, whole):
    study = study_of(folder)
    coefs = np.load(out, mmap_mode="r+")
    for k, part in enumerate(study.parts(begin, end, some, whole), begin):
        coefs[k, some] = PATHS[library](part, tol)


def run(study, library, tol, out, jobs, count):
    """Seconds for the first `count` parts; their coefficients are written to `out`."""
    np.lib.format.open_memmap(out, mode="w+", dtype=np.float64, shape=(count, *study.shape[1:]))[:] = 0
    cuts = np.linspace(0, count, min(count, 8 * jobs) + 1).astype(int)
    everything = [(begin, end, slice(None)) for begin, end in itertools.pairwise(cuts)]
    if count == 1:
        cuts = np.unique(np.linspace(0, study.shape[1], jobs + 1).astype(int))
        everything = [(0, 1, slice(begin, end)) for begin, end in itertools.pairwise(cuts)]
    threads = contextlib.nullcontext() if jobs > 1 else threadpool_limits(os.cpu_count())
    with threads, parallel_config("loky", inner_max_num_threads=1) if jobs > 1 else contextlib.nullcontext():
        begin = time.perf_counter()
        whole = None
        if study.folds and library.startswith("scm2cpp"):
            means, level = study.X.mean(axis=0), study.y.mean()
            X = study.X - means
            with threadpool_limits(os.cpu_count()):
                whole = means, level, X.T @ X, X.T @ (study.y - level)
        calls = (delayed(piece)(study.folder, out, library, tol, *cut, whole) for cut in everything)
        if jobs > 1:
            Parallel(n_jobs=jobs, batch_size=1)(calls)
        else:
            for function, args, _ in calls:
                function(*args)
        return time.perf_counter() - begin


def answer(words, state):
    if words[0] == "load":
        state["study"] = Study(words[1])
        return "loaded"
    _, library, tol, out, jobs, count = words
    return repr(run(state["study"], library, float(tol), out, int(jobs), int(count)))


if __name__ == "__main__":
    from peer_sweeps import answer  # not as __main__: joblib's processes import it

    serve(answer)
