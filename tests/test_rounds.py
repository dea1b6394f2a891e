"""Rounds of searches change nothing but the work; blocks of lanes are as large as the memory allows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_agreement import compilations

import l1jax
from l1jax import L1, Factors, Problem, loop, path, rounds, sweep
from l1jax.engines import by_name
from l1jax.sweeping import programs, study, sweeps

N, P, LAMBDAS = 30, 12, 24


def data(seed=0, shape=(N, P)):
    """Correlated columns: the least strengths take several times the steps of the largest."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=shape) + 2 * rng.normal(size=(shape[0], 1))
    return X, X[:, :3] @ [1.0, -2.0, 0.5] + rng.normal(size=shape[0])


X, Y = data()
PROBLEM = Problem(X, Y, penalty=L1(1.0))
FREE = dataclasses.replace(PROBLEM, penalty=Factors(L1(1.0), (np.arange(P) != 4) * 1.0))
LAMS = np.geomspace(1, 1e-3, LAMBDAS) * float(l1jax.lambda_max(PROBLEM))
WEIGHTS = np.random.default_rng(1).integers(0, 3, (16, N)).astype(float)
ASK = {"solver": "ssn", "mode": "vmap"}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Rounds of few searches; sweeps run as on GPU. The rounds' shapes, (lanes, strengths)."""
    shapes, one_round = [], rounds._round
    monkeypatch.setattr(rounds, "FEWEST", 4)
    for module in (study, sweeps):
        monkeypatch.setattr(module, "mode", lambda: "vmap")

    def seen(*given):
        at, on = given[5], given[8]
        shapes.append(on.shape if at is None else (len(at[0]), at[1].shape[1]))
        return one_round(*given)

    seen.lower = one_round.lower
    monkeypatch.setattr(rounds, "_round", seen)
    return shapes


@pytest.mark.parametrize("max_steps", [1000, 10])
def test_a_path_in_rounds_is_that_of_one_round(max_steps, few, monkeypatch):
    found, ran = path(FREE, lams=LAMS, max_steps=max_steps, **ASK), few.copy()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "by_rounds", lambda *_: True)
        patched.setattr(rounds, "smaller", lambda _: (0, 0))
        known = path(FREE, lams=LAMS, max_steps=max_steps, **ASK)
    np.testing.assert_array_equal(found.steps, known.steps)
    np.testing.assert_array_equal(found.converged, known.converged)
    np.testing.assert_allclose(found.coef, known.coef, atol=1e-10)
    if max_steps == 1000:
        assert ran == [(1, 24), (1, 24), (1, 6)]  # the first is a look at the start, which fits what is free
        assert bool(jnp.all(found.converged))
        other = path(FREE, lams=LAMS, tol=1e-12)
        np.testing.assert_allclose(found.objective, other.objective, rtol=1e-5)
        again = dataclasses.replace(FREE, y=jnp.asarray(Y + X[:, 4]))
        with compilations() as more:
            path(again, lams=LAMS, **ASK)
        assert few[-1] == (1, 6)
        assert more == []
    else:
        assert 0 < np.sum(~found.converged) < LAMBDAS
        assert set(found.steps[~found.converged].tolist()) == {10}


def test_derivatives_are_those_of_the_path(few):
    def total(t):
        return jnp.sum(path(FREE, lams=LAMS * (1 + t), tol=1e-13, **ASK).coef[:12] ** 2)

    _, slope = jax.jvp(total, (0.0,), (1.0,))
    assert len(few) > 1
    low2, low, up, up2 = (total(k * 1e-4) for k in (-2, -1, 1, 2))
    assert float(slope) == pytest.approx(float(8 * (up - low) - (up2 - low2)) / 12e-4, rel=1e-5)


# -- sweeps, in blocks as large as the memory allows


class Device:
    """One with room for so many numbers of 8 bytes, beside what is in use; half of it is taken."""

    def __init__(self, numbers):
        self.stats = {"bytes_limit": 1000 + 2 * 8 * numbers, "bytes_in_use": 1000}

    def memory_stats(self):
        return self.stats


@pytest.fixture
def blocks(monkeypatch):
    """The lengths of the blocks that sweeps are solved in."""
    seen = []
    for module, name in ((study, "lanes_solved"), (sweeps, "problems_solved")):
        solved = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, solved=solved: seen.append(len(jax.tree.leaves(given)[-1])) or solved(*given)
        )
    return seen


def test_a_sweep_in_rounds_is_a_path_at_every_place(few):
    lams = LAMS[::3]
    found = sweep(PROBLEM, weights=WEIGHTS[:8], lams=lams, solver="ssn", tol=1e-9)
    assert few[0] == (8, 8)
    assert len(few) > 1
    assert bool(jnp.all(found.converged))
    for lane in range(0, 8, 3):
        alone = path(dataclasses.replace(PROBLEM, sample_weight=WEIGHTS[lane]), lams=lams, tol=1e-12)
        np.testing.assert_allclose(found.objective[lane], alone.objective, rtol=1e-7)
        np.testing.assert_allclose(found.coef[lane], alone.coef, atol=1e-3)


def test_chunks_are_as_large_as_the_memory(blocks, monkeypatch):
    ask = {"weights": WEIGHTS, "lams": LAMS[::3], "solver": "ssn", "tol": 1e-9}
    each = N + P + 8 * by_name["ssn"].numbers(PROBLEM)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(8 * each + each // 2)])
    found = sweep(PROBLEM, **ask)
    assert blocks == [8, 8]
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(100 * each)])
    monkeypatch.setattr(rounds, "smaller", lambda _: (0, 0))  # one round, to save a compilation
    monkeypatch.setattr(programs, "by_rounds", lambda *_: True)
    whole = sweep(PROBLEM, **ask)
    assert blocks == [8, 8, 16]
    np.testing.assert_array_equal(found.steps, whole.steps)
    np.testing.assert_allclose(found.coef, whole.coef, atol=1e-9)


def test_problems_in_rounds_are_paths(few, blocks, monkeypatch):
    many = tuple(np.stack(parts) for parts in zip(*(data(seed) for seed in range(16)), strict=True))
    lams = LAMS[::3]
    each = 3 * N * P + len(lams) * by_name["ssn"].numbers(PROBLEM)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(8 * each)])
    found = sweep(make, over=many, lams=lams, solver="ssn", tol=1e-9)
    assert blocks == [8, 8]
    assert len(few) > 2
    assert bool(jnp.all(found.converged))
    for k in (0, 7, 15):
        alone = path(make((many[0][k], many[1][k])), lams=lams, tol=1e-12)
        np.testing.assert_allclose(found.objective[k], alone.objective, rtol=1e-7)


def make(own):
    return Problem(own[0], own[1], penalty=L1(1.0))


def test_numbers_are_those_that_a_search_holds(monkeypatch):
    """Within a factor of two of what the compiler says that a round takes."""
    seen, one_round = [], rounds._round

    def lowered(*given):
        seen.append(one_round.lower(*given).compile().memory_analysis())
        raise InterruptedError

    monkeypatch.setattr(rounds, "_round", lowered)
    problem = Problem(*data(shape=(60, 150)), penalty=L1(1.0))
    with pytest.raises(InterruptedError):
        path(problem, num=LAMBDAS, **ASK)
    held = (seen[0].temp_size_in_bytes + seen[0].output_size_in_bytes) / 8 / LAMBDAS
    assert held / 2 < by_name["ssn"].numbers(problem) < 2 * held
