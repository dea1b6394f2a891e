"""Bad input: a clear error where values can be seen; under jit NaN and converged=False, never a plausible number."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

import l1jax

N, P = 12, 5
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, P))
Y = X[:, 0] + RNG.normal(size=N)
LABELS = (np.median(Y) < Y).astype(float)
W = RNG.uniform(0.5, 2, size=N)


def spoiled(array, value, index=0):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


def problem(loss="squared", **given):
    parts = {"X": X, "y": LABELS if loss == "logistic" else Y, "penalty": l1jax.L1(0.1), **given}
    losses = {"squared": l1jax.Squared(), "logistic": l1jax.Logistic()}
    return l1jax.Problem(parts.pop("X"), parts.pop("y"), loss=losses[loss], **parts)


def sparse_x():
    return scipy.sparse.csr_matrix(X)


def solved(**given):
    return lambda: l1jax.solve(problem(**given))


CONSTRUCTED = {  # name: (what is done, the error, words of its message)
    "y too short": (lambda: problem(y=Y[:-1]), ValueError, [r"\(12, 5\)", r"\(11,\)"]),
    "y of two axes": (lambda: problem(y=Y[:, None]), ValueError, [r"\(12,\)", r"\(12, 1\)"]),
    "X of one axis": (lambda: problem(X=X[:, 0]), ValueError, [r"\(n, p\)", r"\(12,\)"]),
    "X of three axes": (lambda: problem(X=X[None]), ValueError, [r"\(n, p\)", r"\(1, 12, 5\)"]),
    "weights too short": (lambda: problem(sample_weight=W[1:]), ValueError, [r"\(12,\)", r"\(11,\)"]),
    "offset too long": (lambda: problem(offset=np.zeros(13)), ValueError, [r"\(12,\)", r"\(13,\)"]),
    "names too few": (lambda: problem(names=("a", "b")), ValueError, ["5 names", "2"]),
    "no rows": (lambda: problem(X=X[:0], y=Y[:0]), ValueError, [r"\(0, 5\)"]),
    "no columns": (lambda: problem(X=X[:, :0]), ValueError, [r"\(12, 0\)"]),
    "text in X": (lambda: problem(X=np.array([["a"] * P] * N)), TypeError, ["X", "text"]),
    "text in y": (lambda: problem(y=["yes", "no"] * 6), TypeError, ["y", "text"]),
    "text in a frame": (lambda: problem(X=pd.DataFrame({"a": ["u"] * N, "b": Y})), TypeError, ["X", "text"]),
    "text in weights": (lambda: problem(sample_weight=["1"] * N), TypeError, ["sample_weight", "text"]),
    "complex X": (lambda: problem(X=X + 1j), TypeError, ["X", "complex"]),
    "ragged X": (lambda: problem(X=[[1.0, 2.0], [3.0]]), (TypeError, ValueError), ["X|inhomogeneous"]),
    "sparse X": (lambda: problem(X=sparse_x()), TypeError, ["X", "sparse", "toarray"]),
    "a loss that is none": (lambda: l1jax.Problem(X, Y, loss="squared", penalty=l1jax.L1(0.1)), TypeError, ["loss"]),
    "a loss's class": (lambda: l1jax.Problem(X, Y, loss=l1jax.Squared, penalty=l1jax.L1(1)), TypeError, ["loss"]),
    "no penalty": (lambda: l1jax.Problem(X, Y), TypeError, ["penalty"]),
    "a number for a penalty": (lambda: problem(penalty=0.1), TypeError, ["penalty", "0.1"]),
    "a flag that is none": (lambda: problem(fit_intercept="yes"), TypeError, ["fit_intercept", "yes"]),
    "standardize 2": (lambda: problem(standardize=2), TypeError, ["standardize", "2"]),
    "negative lam": (lambda: l1jax.L1(-0.1), ValueError, ["lam", "-0.1"]),
    "NaN lam": (lambda: l1jax.L1(np.nan), ValueError, ["lam", "nan"]),
    "infinite lam": (lambda: l1jax.L1(np.inf), ValueError, ["lam", "inf"]),
    "text lam": (lambda: l1jax.L1("0.1"), TypeError, ["lam", "0.1"]),
    "l1_ratio above 1": (lambda: l1jax.ElasticNet(0.1, 1.5), ValueError, ["l1_ratio", "1.5"]),
    "negative factor": (lambda: l1jax.Factors(l1jax.L1(0.1), [-1.0, 1.0]), ValueError, ["factors"]),
    "NaN factor": (lambda: l1jax.Factors(l1jax.L1(0.1), [np.nan, 1.0]), ValueError, ["factors"]),
    "crossed bounds": (lambda: l1jax.Bounds(l1jax.L1(0.1), 1.0, -1.0), ValueError, ["lower", "upper"]),
}

VALUES = {
    "NaN in X": ({"X": spoiled(X, np.nan, (2, 1))}, ["X", "NaN"]),
    "infinity in X": ({"X": spoiled(X, np.inf, (2, 1))}, ["X", "infinite"]),
    "NaN in y": ({"y": spoiled(Y, np.nan)}, ["y", "NaN"]),
    "infinity in y": ({"y": spoiled(Y, -np.inf)}, ["y", "infinite"]),
    "NaN in weights": ({"sample_weight": spoiled(W, np.nan)}, ["sample_weight", "NaN"]),
    "infinity in weights": ({"sample_weight": spoiled(W, np.inf)}, ["sample_weight", "infinite"]),
    "negative weight": ({"sample_weight": spoiled(W, -0.1)}, ["sample_weight", "negative"]),
    "weights all zero": ({"sample_weight": np.zeros(N)}, ["sample_weight", "all are 0"]),
    "NaN in the offset": ({"offset": spoiled(W, np.nan)}, ["offset", "NaN"]),
    "one class": ({"loss": "logistic", "y": np.ones(N)}, ["both classes", "1"]),
    "one class of weight": ({"loss": "logistic", "sample_weight": LABELS}, ["both classes"]),
    "labels 0, 1, 2": ({"loss": "logistic", "y": np.arange(N) % 3}, ["labels 0 and 1", "0, 1, 2"]),
    "labels 1, 2": ({"loss": "logistic", "y": LABELS + 1}, ["labels 0 and 1", "1, 2"]),
    "labels -1, 0, 1": ({"loss": "logistic", "y": np.arange(N) % 3 - 1}, ["labels 0 and 1", "-1, 0, 1"]),
    "fractions": ({"loss": "logistic", "y": np.linspace(0, 1, N)}, ["labels 0 and 1"]),
}

VERBS = {
    "solve": l1jax.solve,
    "path": lambda p: l1jax.path(p, lams=[0.2, 0.1]),
    "lambda_max": l1jax.lambda_max,
    "lambda_grid": l1jax.lambda_grid,
    "duality_gap": lambda p: l1jax.duality_gap(p, np.zeros(P), 0.0),
}

ARGUMENTS = {
    "negative tol": (lambda: l1jax.solve(problem(), tol=-1e-6), ValueError, ["tol", "-1e-06"]),
    "NaN tol": (lambda: l1jax.solve(problem(), tol=np.nan), ValueError, ["tol", "nan"]),
    "negative max_steps": (lambda: l1jax.solve(problem(), max_steps=-1), ValueError, ["max_steps", "-1"]),
    "fractional max_steps": (lambda: l1jax.solve(problem(), max_steps=1.5), ValueError, ["max_steps", "1.5"]),
    "unknown solver": (lambda: l1jax.solve(problem(), solver="simplex"), ValueError, ["solver", '"cd"', "simplex"]),
    "solver 3": (lambda: l1jax.solve(problem(), solver=3), ValueError, ["solver", "3"]),
    "cd for logistic": (lambda: l1jax.solve(problem("logistic"), solver="cd"), ValueError, ["solver", "Logistic"]),
    "a transformation with its own penalty": (
        lambda: l1jax.solve(problem(), solver=l1jax.fista(0.1, l1jax.L1(0.3))),
        ValueError,
        ["solver", "penalty of its own"],
    ),
    "momentum whose decay is not known": (
        lambda: l1jax.solve(problem(), solver=optax.trace(0.9)),
        ValueError,
        ["solver", "decay", "TraceMetric"],
    ),
    "unknown mode": (lambda: l1jax.path(problem(), lams=[0.1], mode="cold"), ValueError, ["mode", "cold"]),
    "num 0": (lambda: l1jax.path(problem(), num=0), ValueError, ["num", "0"]),
    "num 2.5": (lambda: l1jax.lambda_grid(problem(), num=2.5), ValueError, ["num", "2.5"]),
    "num True": (lambda: l1jax.lambda_grid(problem(), num=True), ValueError, ["num", "True"]),
    "ratio 0": (lambda: l1jax.lambda_grid(problem(), ratio=0.0), ValueError, ["ratio", "0"]),
    "ratio 1": (lambda: l1jax.lambda_grid(problem(), ratio=1.0), ValueError, ["ratio", "1"]),
    "ratio 2": (lambda: l1jax.path(problem(), ratio=2.0), ValueError, ["ratio", "2"]),
    "ratio NaN": (lambda: l1jax.path(problem(), ratio=np.nan), ValueError, ["ratio", "nan"]),
    "negative lams": (lambda: l1jax.path(problem(), lams=[0.1, -0.1]), ValueError, ["lams", "-0.1"]),
    "NaN lams": (lambda: l1jax.path(problem(), lams=[0.1, np.nan]), ValueError, ["lams", "nan"]),
    "infinite lams": (lambda: l1jax.path(problem(), lams=[np.inf, 0.1]), ValueError, ["lams", "inf"]),
    "no lams": (lambda: l1jax.path(problem(), lams=[]), ValueError, ["lams", r"\(0,\)"]),
    "scalar lams": (lambda: l1jax.path(problem(), lams=0.1), ValueError, ["lams", r"\(\)"]),
    "matrix of lams": (lambda: l1jax.path(problem(), lams=[[0.1]]), ValueError, ["lams", r"\(1, 1\)"]),
    "text lams": (lambda: l1jax.path(problem(), lams=["a"]), TypeError, ["lams", "text"]),
    "a strength for each in path": (
        lambda: l1jax.path(problem(penalty=l1jax.L1(np.full(P, 0.1)))),
        ValueError,
        ["Factors", r"\(5,\)"],
    ),
    "a strength of the wrong length": (
        lambda: l1jax.solve(problem(penalty=l1jax.L1(np.full(P + 1, 0.1)))),
        ValueError,
        [r"\(6,\)", r"\(5,\)"],
    ),
    "factors of the wrong length": (
        lambda: l1jax.solve(problem(penalty=l1jax.Factors(l1jax.L1(0.1), np.ones(P + 1)))),
        ValueError,
        [r"\(6,\)", r"\(5,\)"],
    ),
    "init of the wrong length": (
        lambda: l1jax.solve(problem(), init=(np.zeros(P + 1), 0.0)),
        ValueError,
        ["init", r"\(5,\)"],
    ),
    "init NaN": (lambda: l1jax.solve(problem(), init=(np.full(P, np.nan), 0.0)), ValueError, ["init", "NaN"]),
    "init a number": (lambda: l1jax.solve(problem(), init=0.0), TypeError, ["init"]),
    "coef of the wrong length": (
        lambda: l1jax.duality_gap(problem(), np.zeros(P + 1)),
        ValueError,
        [r"\(5,\)", r"\(6,\)|\[0. 0. 0. 0. 0. 0.\]"],
    ),
    "X for a problem": (lambda: l1jax.solve(X), TypeError, ["problem", "ndarray"]),
    "lambda_max of X": (lambda: l1jax.lambda_max(X), TypeError, ["problem"]),
    "path of X": (lambda: l1jax.path(X), TypeError, ["problem"]),
}


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_constructors_refuse(name):
    refused(*CONSTRUCTED[name])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_verbs_refuse_arguments(name):
    refused(*ARGUMENTS[name])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", VALUES)
def test_verbs_refuse_values(name, verb):
    given, words = VALUES[name]
    refused(lambda: VERBS[verb](problem(**given)), ValueError, words)


def refused(what, error, words):
    with pytest.raises(error) as caught:
        what()
    for word in words:
        assert caught.match(word)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_under_jit_bad_values_have_no_answer(loss):
    """NaN everywhere and converged=False; the same program answers good values."""
    base = problem(loss, sample_weight=W, offset=np.zeros(N))
    bad = {
        name: {k: v for k, v in given.items() if k != "loss"}
        for name, (given, _) in VALUES.items()
        if given.get("loss", loss) == loss or "X" in given
    }
    batch = [base] + [problem(loss, **{"sample_weight": W, "offset": np.zeros(N), **given}) for given in bad.values()]
    leaves = [(p.X, p.y, p.sample_weight, p.offset) for p in batch]
    lams = [0.1] * len(leaves)
    good = leaves[0]
    for lam in (-0.1, np.nan, np.inf):
        leaves, lams = [*leaves, good], [*lams, lam]
    names = ["good", *bad, "negative lam", "NaN lam", "infinite lam"]

    @jax.jit
    @jax.vmap
    def solve(parts, lam):
        X, y, weights, offset = parts
        parts = {"sample_weight": weights, "offset": offset, "penalty": l1jax.L1(lam)}
        posed = l1jax.Problem(X, y, loss=base.loss, **parts)
        return l1jax.solve(posed), l1jax.path(posed, lams=jnp.stack([lam, 0.1])), l1jax.lambda_max(posed)

    stacked = [jnp.stack(part) for part in zip(*leaves, strict=True)]
    single, both, largest = jax.device_get(solve(tuple(stacked), jnp.asarray(lams)))
    for k, name in enumerate(names):
        answers = {"solve": jax.tree.map(lambda a, k=k: a[k], single)}
        answers["path"] = jax.tree.map(lambda a, k=k: a[k, 0], both)
        for verb, found in answers.items():
            numbers = (found.coef, found.intercept, found.objective, found.gap, found.dev_ratio)
            if name == "good":
                assert found.converged
                assert all(np.all(np.isfinite(a)) for a in numbers)
            else:
                assert not found.converged, (name, verb)
                assert all(np.all(np.isnan(a)) for a in numbers), (name, verb)
        if not name.endswith("lam"):
            assert np.isfinite(largest[k]) == (name == "good"), name


def test_one_bad_lambda_leaves_the_others_alone_under_jit():
    run = jax.jit(lambda lams: l1jax.path(problem(), lams=lams))
    good, bad = run(jnp.array([0.2, 0.1, 0.05])), run(jnp.array([0.2, -0.1, 0.05]))
    np.testing.assert_array_equal(bad.converged, [True, False, True])
    assert np.all(np.isnan(bad.coef[1]))
    np.testing.assert_allclose(bad.coef[::2], good.coef[::2], atol=1e-3)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap], ids=["jit", "vmap"])
def test_progress_is_refused_under_tracing(transform):
    lams = jnp.array([0.2, 0.1]) if transform is jax.jit else jnp.array([[0.2, 0.1]])
    with pytest.raises(ValueError, match="progress"):
        transform(lambda lams: l1jax.path(problem(), lams=lams, progress=True))(lams)


def test_values_too_large_for_float32_are_refused_with_a_hint(float32):
    with pytest.raises(ValueError, match="x64 is off"):
        l1jax.solve(problem(X=spoiled(X, 1e300, (0, 0))))
