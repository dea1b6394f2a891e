"""Serves timed runs of the peers to `peers.py`; runs in their environment, which has no l1jax.

Each function below gives the coefficients, (L, p) or their transpose, of a whole path. What a library needs to be
given (an ordered copy of X) is made before the clock starts; what it has to do itself (centring for those without an
intercept, a Gram matrix) is timed.
"""

import importlib.metadata
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

warnings.simplefilter("ignore")
MANY = 10**9


class Data:
    """X in columns, y, lams, kind and the size of a group."""

    def __init__(self, folder):
        n, p, _, self.kind, group = Path(folder, "meta").read_text().split()
        self.X = np.fromfile(os.path.join(folder, "X")).reshape(int(p), int(n)).T
        self.y, self.lams = (np.fromfile(os.path.join(folder, name)) for name in ("y", "lams"))
        self.group = int(group)
        self.ones = np.asfortranarray(np.column_stack([self.X, np.ones(int(n))])) if self.kind == "logistic" else None

    def centred(self):
        X = self.X - self.X.mean(axis=0)
        assert X.flags.f_contiguous
        return X, self.y - self.y.mean()


def scikit_learn(d, tol):
    if d.kind == "logistic":
        return liblinear(d, tol)
    from sklearn.linear_model import lasso_path

    return lasso_path(*d.centred(), alphas=d.lams, tol=tol, max_iter=MANY, precompute=False, copy_X=False)[1]


def scikit_learn_gram(d, tol):
    from sklearn.linear_model import lasso_path

    X, y = d.centred()
    return lasso_path(X, y, alphas=d.lams, tol=tol, max_iter=MANY, precompute=gram(X), Xy=X.T @ y, copy_X=False)[1]


def gram(X):
    with threadpool_limits(os.cpu_count()):  # a large product gains by threads whatever the path does
        return X.T @ X


def liblinear(d, tol):
    """It penalises the intercept; its scale of 1e4 makes that 1e-4 as strong."""
    from sklearn.linear_model import LogisticRegression

    def coef(lam):
        model = LogisticRegression(
            l1_ratio=1, C=1 / (len(d.y) * lam), solver="liblinear", tol=tol, intercept_scaling=1e4, max_iter=10_000
        )
        return model.fit(d.X, d.y).coef_[0]

    return np.stack([coef(lam) for lam in d.lams])


def celer(d, tol):
    """With the settings of its estimators. Its logistic loss has no intercept: a column of ones, hardly penalised."""
    from celer import celer_path

    settings = {"tol": tol, "max_iter": 100, "max_epochs": 50_000, "prune": True}
    if d.kind == "gaussian":
        return celer_path(*d.centred(), "lasso", alphas=d.lams, **settings)[1]
    if d.kind == "group":
        weights = np.full(d.X.shape[1] // d.group, d.group**0.5)
        return celer_path(*d.centred(), "grouplasso", alphas=d.lams, groups=d.group, weights=weights, **settings)[1]
    weights = np.append(np.ones(d.X.shape[1]), 1e-4)
    lams = d.lams * len(d.y)
    return celer_path(d.ones, 2 * d.y - 1, "logreg", alphas=lams, weights=weights, **settings)[1][:-1]


def skglm(d, tol):
    """Warm starts down the path, of its solvers with working sets; their tolerance is on the subgradient."""
    from skglm import datafits, penalties, solvers
    from skglm.utils.data import grp_converter

    tol = tol * d.lams[0]
    if d.kind == "logistic":
        X, y = d.X, 2 * d.y - 1
        solver = solvers.ProxNewton(tol=tol, fit_intercept=True, max_iter=1000)
        datafit, penalty = datafits.Logistic(), penalties.L1
    else:
        X, y = d.centred()
        if d.kind == "gaussian":
            solver = solvers.AndersonCD(tol=tol, fit_intercept=False, max_iter=1000)
            datafit, penalty = datafits.Quadratic(), penalties.L1
        else:
            indices, pointers = grp_converter(d.group, X.shape[1])
            solver = solvers.GroupBCD(tol=tol, fit_intercept=False, max_iter=1000, max_epochs=50_000)
            datafit = datafits.QuadraticGroup(pointers, indices)

            def penalty(lam):
                weights = np.full(len(pointers) - 1, d.group**0.5)
                return penalties.WeightedGroupL2(lam, weights, pointers, indices)

    p = X.shape[1]
    w, Xw, path = np.zeros(p + solver.fit_intercept), np.zeros(len(y)), []
    for lam in d.lams:
        solver.p0 = max(10, np.count_nonzero(w))
        w = solver.solve(X, y, datafit, penalty(lam), w, Xw)[0]  # Xw is updated in place
        path.append(w[:p].copy())
    return np.stack(path)


def adelie(d, tol):
    import adelie as ad

    glm = ad.glm.binomial(d.y) if d.kind == "logistic" else ad.glm.gaussian(d.y)
    groups = np.arange(0, d.X.shape[1], d.group)
    return ad.grpnet(d.X, glm, groups=groups, irls_tol=tol, **whole_path(d, tol)).betas.toarray()


def adelie_gram(d, tol):
    import adelie as ad

    X, y = d.centred()
    A, v = np.asfortranarray(gram(X) / len(y)), X.T @ y / len(y)
    return ad.gaussian_cov(A, v, rdev_tol=0, **whole_path(d, tol)).betas.toarray()


def whole_path(d, tol):
    """adelie's settings: all of the path, whatever it explains."""
    run = {"early_exit": False, "progress_bar": False, "max_iters": MANY, "n_threads": d.threads}
    return {"lmda_path": d.lams, "tol": tol, **run}


def glmnet(d, tol):
    """Given lambdas, its Fortran skips the early stops; p <= n takes its Gram form."""
    import glmnet

    model = glmnet.LogitNet if d.kind == "logistic" else glmnet.ElasticNet
    fit = model(lambda_path=d.lams, standardize=False, n_splits=0, tol=tol, max_iter=MANY)._fit
    weights = np.ones(len(d.y))
    model = fit(d.X, d.y, weights, None)
    return model.coef_path_


PATHS = {
    "scikit-learn": scikit_learn,
    "scikit-learn, Gram": scikit_learn_gram,
    "celer": celer,
    "skglm": skglm,
    "adelie": adelie,
    "adelie, Gram": adelie_gram,
    "python-glmnet": glmnet,
}


def answer(words, state):
    if words[0] == "load":
        state["data"] = Data(words[1])
        return "loaded"
    data = state["data"]
    data.threads = int(words[4])
    with threadpool_limits(data.threads):
        begin = time.perf_counter()
        coefs = PATHS[words[1]](data, float(words[2]))
        seconds = time.perf_counter() - begin
    shape = len(data.lams), data.X.shape[1]
    coefs = np.squeeze(coefs)
    coefs = coefs if coefs.shape == shape else coefs.T
    if coefs.shape != shape:
        return f"error gave coefficients of shape {coefs.shape}"
    np.ascontiguousarray(coefs, dtype=np.float64).tofile(words[3])
    return repr(seconds)


def serve(answer):
    """Answers requests, a line each, until there are no more; "version" is the same for all workers."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    state = {}
    for line in sys.stdin:
        try:
            words = line.rstrip("\n").split("\t")
            reply = version(words[1]) if words[0] == "version" else answer(words, state)
        except Exception as error:
            reply = f"error {type(error).__name__}: {error}".replace("\n", " ")
        print(reply, file=out, flush=True)


def version(library):
    return importlib.metadata.version(library.split(",")[0])


if __name__ == "__main__":
    serve(answer)
