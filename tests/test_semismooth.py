"""Semismooth Newton: hard designs, other engines' answers, and the program that GPUs and TPUs are given."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kkt import Oracle
from test_active import DESIGNS, LOSSES, PENALTIES

import l1jax

TOL = 1e-6
SETTINGS = {"solver": "ssn", "mode": "vmap"}


def posed(X, y, loss="squared", penalty=None):
    return l1jax.Problem(X, y, loss=LOSSES.get(loss, l1jax.Squared()), penalty=penalty or l1jax.L1(1.0))


def response(X, loss, rng):
    eta = X[:, :5] @ np.ones(X[:, :5].shape[1]) / np.abs(X).max()
    y = eta + 0.1 * np.std(eta) * rng.standard_normal(len(X))
    return (y > np.median(y)).astype(float) if loss == "logistic" else y


HARD = ["duplicate columns", "one column 1e8 times another", "degree-5 polynomials", "coherent, p >> n", "rank 5"]
SHAPE = 30, 80  # of all, so that one program serves them


def hard(name, rng):
    X = DESIGNS[name](rng)[: SHAPE[0]]
    return np.resize(X.T, (SHAPE[1], SHAPE[0])).T  # columns are left out or repeated


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_hard_designs_end_in_a_certificate_that_holds(loss, dtype, rng):
    for name in HARD:
        X = hard(name, rng).astype(dtype)
        y = response(X, loss, rng).astype(dtype)
        tol = TOL if dtype == np.float64 else 1e-5
        found = l1jax.path(posed(X, y, loss), num=8, ratio=1e-2, tol=tol, **SETTINGS)
        assert np.all(np.isfinite(found.coef)), name
        assert np.all(found.converged), name
        for k in (3, 7):
            oracle = Oracle(X.astype(float), y.astype(float), l1=float(found.lams[k]), loss=loss)
            at = np.asarray(found.coef[k], float), float(found.intercept[k])
            assert oracle.gap(*at) <= tol + 64 * np.finfo(dtype).eps, name
            assert found.steps[k] < 500, name


@pytest.mark.parametrize(
    ("name", "loss", "n"),
    [(name, "squared", 25) for name in PENALTIES]
    + [("factors", "logistic", 25), ("bounds", "logistic", 60), ("factors", "poisson", 60), ("bounds", "squared", 60)],
)
def test_it_agrees_with_active_sets(name, loss, n, rng):
    X = rng.standard_normal((n, 40))
    eta = X[:, :3] @ np.array([0.5, -0.4, 0.3])
    y = {"logistic": eta > 0, "poisson": rng.poisson(np.exp(eta))}.get(loss, eta + 0.3 * rng.standard_normal(n))
    problem = posed(X, np.asarray(y, float), loss, PENALTIES[name](40))
    lams = np.geomspace(0.2, 0.02, 4)
    found = l1jax.path(problem, lams=lams, tol=1e-10, **SETTINGS)
    other = l1jax.path(problem, lams=lams, tol=1e-10, solver="active")
    assert np.all(found.converged)
    assert np.max(found.steps) <= 50
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-8)
    np.testing.assert_allclose(found.coef, other.coef, atol=2e-4)


def test_derivatives_are_those_of_other_engines(rng):
    X, y = rng.standard_normal((30, 8)), rng.standard_normal(30)

    def total(lam, solver):
        return jnp.sum(l1jax.solve(posed(X, y, penalty=l1jax.L1(lam)), tol=1e-12, solver=solver).coef ** 2)

    found, other = (jax.jit(jax.value_and_grad(total), static_argnums=1)(0.05, solver) for solver in ("ssn", "cd"))
    np.testing.assert_allclose(found, other, rtol=1e-6)


def test_the_step_limit_ends_in_an_honest_no(rng):
    X = hard("coherent, p >> n", rng)
    found = l1jax.path(posed(X, response(X, "squared", rng)), num=8, ratio=1e-2, tol=TOL, max_steps=5, **SETTINGS)
    assert np.all(np.isfinite(found.coef))
    assert not found.converged[-1]
    assert found.steps[-1] == 5


def test_gpu_and_tpu_are_given_it_where_it_applies(monkeypatch, rng):
    X, y = rng.standard_normal((30, 8)), rng.standard_normal(30)
    choose = l1jax.solving.choose_engine
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert type(choose(posed(X, y), "auto")).__name__ == "SemismoothNewton"
    assert type(choose(posed(X, y > 0, "logistic"), "auto")).__name__ == "SemismoothNewton"
    assert type(choose(posed(X, y, penalty=l1jax.GroupLasso(1.0, [0, 0, 0, 0, 1, 1, 1, 1])), "auto")).__name__ == "Fista"


# -- the exported program

ROWS, COLUMNS, LAMBDAS = 23, 37, 5  # primes, so that the axis of coordinates is known by its length


def exported(solver, loss):
    """The text of a path's program for CUDA and TPU."""

    def run(X, y, lams):
        found = l1jax.path(posed(X, y, loss), lams=lams, solver=solver, mode="vmap")
        return found.coef, found.gap

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((ROWS, COLUMNS), (ROWS,), (LAMBDAS,))]
    text = jax.export.export(jax.jit(run), platforms=("cuda", "tpu"))(*shapes).mlir_module()
    return re.sub(r" loc\(.*\)$", "", text, flags=re.MULTILINE)


def loops(text):
    """The loops of a program, each with all functions that it calls."""
    functions = dict(re.findall(r"^  func\.func \w+ @([\w.]+)(.*?)^  }$", text, re.MULTILINE | re.DOTALL))
    for name, function in functions.items():
        lines = function.splitlines()
        for i, line in enumerate(lines):
            if "stablehlo.while" in line:
                indent = re.match(" *", line)[0]
                end = next(j for j in range(i + 1, len(lines)) if lines[j] == indent + "}")
                body, seen = "\n".join(lines[i:end]), {name}
                while called := set(re.findall(r"(?<!custom_)call @([\w.]+)", body)) - seen:
                    seen |= called
                    body += "".join(functions[name] for name in called)
                yield function, body


def loops_over_coordinates(text):
    """What loops do with single coordinates: slices and updates of length 1, gathers of one, a trip for each."""
    ways, found = rf"tensor<(?:\d+x)*{COLUMNS}(?:x\d+)*xf32>", []
    for function, body in loops(text):
        found += re.findall(rf"stablehlo\.dynamic_(?:update_)?slice .*\({ways}.*", body)
        for indices in re.findall(rf'"stablehlo\.gather".*\({ways}, tensor<([\dx]+)xi\d+>\)', body):
            *counts, _ = map(int, indices.split("x"))
            if np.prod(counts) <= LAMBDAS:
                found.append(f"gather of {indices}")
        for bound in re.findall(r"stablehlo\.compare +L[TE], %\w+, %(\w+),", body.partition("} do {")[0]):
            trips = re.search(rf"%{bound} = stablehlo\.constant dense<(\d+)>", function)
            if trips and abs(int(trips[1]) - COLUMNS) <= 1:
                found.append(f"{trips[1]} trips")
    return found


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("solver", ["ssn", "fista"])
def test_programs_for_gpu_and_tpu_have_no_loop_over_coordinates(solver, loss):
    text = exported(solver, loss)
    assert len(list(loops(text))) >= 3
    assert loops_over_coordinates(text) == []


def test_a_loop_over_coordinates_would_be_seen():
    assert loops_over_coordinates(exported("cd", "squared"))
