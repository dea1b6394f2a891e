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

ROWS, COLUMNS, LAMBDAS = 23, 37, 5  # no other size in the program is one of these


def exported(solver, loss, n=ROWS, p=COLUMNS):
    """The text of a path's program for CUDA and TPU."""

    def run(X, y, lams):
        found = l1jax.path(posed(X, y, loss), lams=lams, solver=solver, mode="vmap")
        return found.coef, found.gap

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, p), (n,), (LAMBDAS,))]
    return jax.export.export(jax.jit(run), platforms=("cuda", "tpu"))(*shapes).mlir_module()


def loops(text):
    """The bodies and conditions of a program's loops, with all that they call."""
    functions = dict(re.findall(r"func\.func (?:\w+ )?@(\w+)\((.*?)\n  }\n", text, re.DOTALL))
    found, lines = [], text.splitlines()
    for i, line in enumerate(lines):
        if "stablehlo.while" in line:
            indent = len(line) - len(line.lstrip())
            end = next(j for j in range(i + 1, len(lines)) if re.match(rf" {{{indent}}}}}(?! do)", lines[j]))
            body, seen = "\n".join(lines[i : end + 1]), set()
            while called := set(re.findall(r"call @(\w+)", body)) - seen:
                seen |= called
                body += "\n".join(functions[name] for name in called)
            found.append(body)
    return found


def coordinate_loops(text, sizes):
    """What in a program's loops counts to the number of coordinates, or takes them one by one."""
    sizes = "|".join(map(str, sizes))
    tuple_of = rf"tensor<(?:\d+x)*(?:{sizes})(?:x\d+)*xf32>"
    one_by_one = rf"stablehlo\.dynamic_(?:update_)?slice .*: \({tuple_of}"
    single = rf"stablehlo\.gather.*slice_sizes = array<i64: 1(?:, 1)*>.*\({tuple_of}"
    counts = rf"stablehlo\.constant dense<(?:{sizes})> : tensor<i32>"
    return [hit for body in loops(text) for hit in re.findall(f"{one_by_one}|{single}|{counts}", body)]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("solver", ["ssn", "fista"])
def test_programs_for_gpu_and_tpu_have_no_loop_over_coordinates(solver, loss):
    text = exported(solver, loss)
    assert "stablehlo.while" in text
    assert not coordinate_loops(text, (COLUMNS,))
