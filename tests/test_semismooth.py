"""Semismooth Newton: hard designs, other engines' answers, and the program that GPUs and TPUs are given."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kkt import Oracle
from test_active import DESIGNS, LOSSES

import l1jax
from l1jax.engines import by_name
from l1jax.solving import choose_engine

WIDE, TALL = (30, 80), (80, 30)  # two shapes and one structure of penalty, so that few programs serve all
PENALTIES = {  # l1_ratio, factors, bounds
    "lasso": (1.0, 1.0, -np.inf, np.inf),
    "elastic net": (0.5, 1.0, -np.inf, np.inf),
    "nearly ridge": (0.01, 1.0, -np.inf, np.inf),
    "factors": (1.0, np.resize([0.5, 1.0, 2.0, 3.0, 1.0, 2.0, np.inf], 80), -np.inf, np.inf),
    "zero factors": (1.0, np.resize([0.0, 1.0, 2.0, 3.0, 1.0, 2.0, np.inf], 80), -np.inf, np.inf),
    "nonnegative": (1.0, 1.0, 0.0, np.inf),
    "bounds": (1.0, 1.0, -0.1, 0.05),
    "bounds without 0": (0.9, 1.0, 0.01, 1.0),
}


def posed(X, y, loss="squared", penalty="lasso"):
    p = X.shape[1]
    ratio, *others = PENALTIES[penalty]
    factors, lower, upper = (np.broadcast_to(a, 80)[:p].astype(X.dtype) for a in others)
    net = l1jax.ElasticNet(np.asarray(1.0, X.dtype), np.asarray(ratio, X.dtype))
    bounded = l1jax.Bounds(l1jax.Factors(net, factors), lower, upper)
    return l1jax.Problem(X, y, loss=LOSSES.get(loss, l1jax.Squared()), penalty=bounded)


def by_ssn(problem, ratio=0.01, **settings):
    top = l1jax.lambda_max(dataclasses.replace(problem, penalty=l1jax.L1(1.0)))
    lams = np.geomspace(1, ratio, 8, dtype=problem.dtype) * float(top)
    return l1jax.path(problem, lams=lams, solver="ssn", mode="vmap", **settings)


HARD = ["duplicate columns", "one column 1e8 times another", "degree-5 polynomials", "coherent, p >> n", "rank 5"]


def hard(name, rng, dtype=np.float64):
    X = DESIGNS[name](rng)[: WIDE[0]]
    X = np.resize(X.T, WIDE[::-1]).T.astype(dtype)  # columns are left out or repeated
    eta = X[:, :5] @ np.ones(5, dtype) / np.abs(X).max()
    y = eta + 0.1 * np.std(eta) * rng.standard_normal(len(X)).astype(dtype)
    return posed(X, y)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_hard_designs_end_in_a_certificate_that_holds(dtype, rng):
    tol = 1e-6 if dtype == np.float64 else 1e-5
    for name in HARD:
        problem = hard(name, rng, dtype)
        found = by_ssn(problem, tol=tol)
        assert np.all(np.isfinite(found.coef)), name
        assert np.all(found.converged), name
        assert np.max(found.steps) <= 200, name
        for k in (3, 7):
            oracle = Oracle(*(np.asarray(a, float) for a in (problem.X, problem.y)), l1=float(found.lams[k]))
            at = np.asarray(found.coef[k], float), float(found.intercept[k])
            assert oracle.gap(*at) <= tol + 64 * np.finfo(dtype).eps, name


def test_the_step_limit_ends_in_an_honest_no(rng):
    found = by_ssn(hard("coherent, p >> n", rng), tol=1e-6, max_steps=5)
    assert np.all(np.isfinite(found.coef))
    assert not found.converged[-1]
    assert found.steps[-1] == 5


@pytest.mark.parametrize(
    ("name", "loss", "shape"),
    [(name, "squared", WIDE) for name in PENALTIES if name != "zero factors"]
    + [("factors", "squared", TALL), ("bounds", "squared", TALL), ("zero factors", "logistic", TALL)],
)
def test_it_agrees_with_active_sets(name, loss, shape, rng):
    X = rng.standard_normal(shape)
    eta = X[:, :3] @ np.array([0.5, -0.4, 0.3])
    y = (eta > 0).astype(float) if loss == "logistic" else eta + 0.3 * rng.standard_normal(len(X))
    problem = posed(X, y, loss, name)
    found = by_ssn(problem, 0.05, tol=1e-10)
    other = l1jax.path(problem, lams=found.lams, tol=1e-10, solver="active")
    assert np.all(found.converged)
    np.testing.assert_allclose(found.objective, other.objective, rtol=1e-7)
    np.testing.assert_allclose(found.coef, other.coef, atol=2e-4)


def test_derivatives_are_those_of_the_closed_form(rng):
    """On the support A, with signs s: d coef/d lam = -(X_A'X_A/n)^-1 s, columns centred."""
    X, y, lam = rng.standard_normal(TALL), rng.standard_normal(80), 0.05

    def coef(lam):
        return l1jax.solve(l1jax.Problem(X, y, penalty=l1jax.L1(lam)), tol=1e-12, solver="ssn").coef

    found, slope = jax.jit(lambda lam: jax.jvp(coef, (lam,), (1.0,)))(lam)
    A = np.asarray(found) != 0
    C = (X - X.mean(axis=0))[:, A]
    want = -np.linalg.solve(C.T @ C / len(X), np.sign(found[A]))
    assert 5 < A.sum() < 30
    np.testing.assert_allclose(slope[A], want, rtol=1e-6)
    assert np.all(slope[~A] == 0)


def test_gpu_and_tpu_are_given_it_where_it_applies(monkeypatch, rng):
    X, y = rng.standard_normal((30, 8)), rng.standard_normal(30)
    grouped = l1jax.Problem(X, y, penalty=l1jax.GroupLasso(1.0, np.arange(8) // 4))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_engine(posed(X, y), "auto") == by_name["ssn"]
    assert choose_engine(posed(X, y > 0, "logistic"), "auto") == by_name["ssn"]
    assert choose_engine(grouped, "auto") == by_name["fista"]


# -- the exported program

ROWS, COLUMNS, LAMBDAS = 23, 37, 5  # primes, so that the axis of coordinates is known by its length


def exported(solver, loss):
    """The text of a path's program for CUDA and TPU."""

    def run(X, y, lams):
        problem = l1jax.Problem(X, y, loss=LOSSES.get(loss, l1jax.Squared()), penalty=l1jax.L1(1.0))
        found = l1jax.path(problem, lams=lams, solver=solver, mode="vmap")
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
