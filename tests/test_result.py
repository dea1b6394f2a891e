"""Result: indexing, lookup by lambda, printing, and files that are whole or not there."""

import itertools
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import l1jax

RNG = np.random.default_rng(4)
FRAME = pd.DataFrame(RNG.normal(size=(12, 5)), columns=["age", "größe", "bmi", "bp", "s 1"])
Y = 2 * FRAME["bmi"].to_numpy() - FRAME["age"].to_numpy() + RNG.normal(size=12)
LAMS = np.array([0.5, 0.25, 0.1, 0.05])
FIELDS = [
    "coef",
    "intercept",
    "objective",
    "gap",
    "stationarity",
    "steps",
    "converged",
    "tol",
    "lams",
    "df",
    "dev_ratio",
]


@pytest.fixture(scope="module")
def problem():
    return l1jax.Problem(FRAME, Y, penalty=l1jax.L1(0.1))


@pytest.fixture(scope="module")
def single(problem):
    return l1jax.solve(problem)


@pytest.fixture(scope="module")
def path(problem):
    return l1jax.path(problem, lams=LAMS)


def assert_same(a, b):
    assert a.names == b.names
    for field in FIELDS:
        x, y = getattr(a, field), getattr(b, field)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# -- its parts


def test_fields_mean_what_they_say(path):
    assert path.names == tuple(FRAME.columns)
    residual = Y - np.asarray(l1jax.predict(path, FRAME))
    loss, null = np.mean(residual**2, axis=1) / 2, np.var(Y) / 2
    np.testing.assert_allclose(path.objective, loss + LAMS * np.abs(np.asarray(path.coef)).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(path.dev_ratio, 1 - loss / null, rtol=1e-10)
    np.testing.assert_array_equal(path.df, (np.asarray(path.coef) != 0).sum(axis=1))
    np.testing.assert_array_equal(path.converged, np.asarray(path.gap) <= np.asarray(path.tol))
    np.testing.assert_array_equal(path.lams, LAMS)
    assert path.tol.shape == LAMS.shape
    np.testing.assert_array_equal(path.tol, 1e-6)


def test_stationarity_is_the_largest_violation_over_lambda_max(problem):
    centred = FRAME.to_numpy() - FRAME.to_numpy().mean(axis=0)
    largest = np.max(np.abs(centred.T @ (Y - Y.mean()))) / len(Y)
    early = l1jax.solve(problem, solver="cd", max_steps=1, tol=0.0)
    u = centred.T @ (Y - l1jax.predict(early, FRAME)) / len(Y)
    coef = np.asarray(early.coef)
    violation = np.where(coef == 0, np.maximum(np.abs(u) - 0.1, 0), np.abs(u - 0.1 * np.sign(coef)))
    assert np.max(violation) > 1e-8
    np.testing.assert_allclose(early.stationarity, np.max(violation) / largest, rtol=1e-6)


@pytest.mark.parametrize("index", [0, -1, slice(1, 3), np.array([2, 0])], ids=["first", "last", "slice", "list"])
def test_indexing_takes_the_leading_axis_of_each_field(path, index):
    part = path[index]
    assert part.names == path.names
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(part, field), np.asarray(getattr(path, field))[index])


def test_length_and_iteration(path, single):
    assert len(path) == 4
    assert [float(part.lams) for part in itertools.islice(path, 10)] == LAMS.tolist()
    with pytest.raises(TypeError, match="single"):
        len(single)
    with pytest.raises(IndexError, match="single"):
        single[0]
    with pytest.raises(IndexError):
        path[4]


def test_a_batch_of_paths(problem):
    scales = jnp.array([1.0, 2.0])

    def scaled(scale):
        posed = l1jax.Problem(problem.X, problem.y * scale, penalty=l1jax.L1(0.1))
        return l1jax.path(posed, lams=LAMS)

    both = jax.vmap(scaled)(scales)
    assert isinstance(both, l1jax.Result)
    assert both.coef.shape == (2, 4, 5)
    assert len(both) == 2
    np.testing.assert_allclose(both[1][0].objective, scaled(2.0)[0].objective, rtol=1e-6)
    assert l1jax.predict(both, problem.X).shape == (2, 4, 12)
    assert "(2, 4)" in repr(both)
    with pytest.raises(ValueError, match="one batch axis"):
        both.at(0.1)


# -- at


@pytest.mark.parametrize(("lam", "k"), [(0.5, 0), (0.49, 0), (0.26, 1), (0.05, 3), (0.0500000001, 3)])
def test_at_gives_the_nearest(path, lam, k):
    assert_same(path.at(lam), path[k])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]], ids=str)
def test_at_interpolates_linearly_between_neighbours(path, order):
    mixed = path[np.array(order)].at(0.1 + 0.25 * 0.15, interpolate=True)
    np.testing.assert_allclose(mixed.coef, 0.75 * path.coef[2] + 0.25 * path.coef[1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(mixed.intercept, 0.75 * path.intercept[2] + 0.25 * path.intercept[1], rtol=1e-12)
    np.testing.assert_allclose(mixed.lams, 0.1375, rtol=1e-12)
    assert np.isnan(mixed.gap)
    assert not mixed.converged
    assert int(mixed.df) == np.count_nonzero(mixed.coef)


def test_interpolation_is_exact_where_the_support_stays(problem):
    ends = l1jax.path(problem, lams=[0.011, 0.009], tol=1e-13)
    between = l1jax.solve(l1jax.Problem(FRAME, Y, penalty=l1jax.L1(0.01)), tol=1e-13)
    assert np.array_equal(ends.coef[0] != 0, ends.coef[1] != 0)
    np.testing.assert_allclose(ends.at(0.01, interpolate=True).coef, between.coef, atol=1e-6)


def test_at_an_own_lambda_keeps_the_certificate(path):
    assert_same(path.at(0.25, interpolate=True), path[1])


@pytest.mark.parametrize("lam", [0.6, 0.04, 0.0, -1.0, np.nan, np.inf])
def test_at_refuses_a_lambda_beyond_the_path(path, lam):
    with pytest.raises(ValueError, match=r"0\.05 to 0\.5"):
        path.at(lam)


def test_at_refuses_a_single_solution(single):
    with pytest.raises(ValueError, match="path"):
        single.at(0.1)


# -- printing


def test_a_solution_prints_for_a_person(single):
    text = repr(single)
    assert "bmi" in text
    assert "converged" in text
    assert "not converged" not in text
    assert f"{int(single.df)} of 5 nonzero" in text
    assert len(text) < 400


def test_a_path_prints_for_a_person(path):
    text = repr(path)
    assert "0.5" in text
    assert "0.05" in text
    assert "4 of 4 converged" in text
    assert len(text) < 400


def test_what_has_no_answer_prints(problem):
    early = l1jax.path(problem, lams=LAMS, max_nonzeros=1)
    assert "of 4 converged" in repr(early)
    assert "Result" in repr(jax.eval_shape(lambda: l1jax.solve(problem)))
    assert "not converged" in repr(l1jax.solve(problem, tol=0.0, max_steps=0))


# -- files


@pytest.mark.parametrize("which", ["single", "path"])
def test_what_is_saved_is_loaded(which, request, tmp_path):
    result = request.getfixturevalue(which)
    result.save(tmp_path / "result.npz")
    assert_same(l1jax.Result.load(tmp_path / "result.npz"), result)
    assert [f.name for f in tmp_path.iterdir()] == ["result.npz"]


def test_names_are_optional(problem, tmp_path):
    nameless = l1jax.solve(l1jax.Problem(problem.X, problem.y, penalty=l1jax.L1(0.1)))
    assert nameless.names is None
    nameless.save(str(tmp_path / "r"))
    assert l1jax.Result.load(str(tmp_path / "r")).names is None
    assert "coef[2]" in repr(nameless)


def test_nothing_is_pickled(path, tmp_path):
    path.save(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {*FIELDS, "names"}
        assert all(stored[name].dtype.kind in "fibU" for name in stored.files)


@pytest.mark.parametrize("existing", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("step", ["savez", "replace"])
def test_a_failed_save_leaves_no_trace(path, single, tmp_path, monkeypatch, step, existing):
    file = tmp_path / "r.npz"
    if existing:
        single.save(file)

    def fail(*args, **kwargs):
        if step == "savez":
            args[0].write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr("numpy.savez" if step == "savez" else "os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        path.save(file)
    monkeypatch.undo()
    assert [f.name for f in tmp_path.iterdir()] == (["r.npz"] if existing else [])
    if existing:
        assert_same(l1jax.Result.load(file), single)


def test_saving_into_a_missing_folder_says_so(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        path.save(tmp_path / "missing" / "r.npz")


def _foreign_npz(file):
    with open(file, "wb") as stream:
        np.savez(stream, coef=np.zeros(3))


def _npy(file):
    with open(file, "wb") as stream:
        np.save(stream, np.zeros(3))


def _pickled_arrays(file):
    with open(file, "wb") as stream:
        np.savez(stream, **dict.fromkeys(FIELDS, np.array([object()])))


FOREIGN = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("lambda,coef\n0.1,2\n"),
    "another npz": _foreign_npz,
    "an npy": _npy,
    "a pickle": lambda file: file.write_bytes(pickle.dumps({"coef": [1.0]})),
    "an npz of pickles": _pickled_arrays,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused(kind, tmp_path):
    file = tmp_path / "foreign.npz"
    FOREIGN[kind](file)
    with pytest.raises(ValueError, match="no saved l1jax result"):
        l1jax.Result.load(file)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_torn_file_is_refused(path, tmp_path, share):
    file = tmp_path / "torn.npz"
    path.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="no saved l1jax result"):
        l1jax.Result.load(file)


def test_a_damaged_file_is_refused(path, tmp_path):
    file = tmp_path / "damaged.npz"
    path.save(file)
    whole = bytearray(file.read_bytes())
    at = whole.index(b"NUMPY") + 200  # inside the first array's data
    whole[at] ^= 0xFF
    file.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="no saved l1jax result"):
        l1jax.Result.load(file)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        l1jax.Result.load(tmp_path / "nowhere.npz")


def test_float64_is_read_as_float32_when_x64_is_off(path, tmp_path, float32):
    path.save(tmp_path / "r.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = l1jax.Result.load(tmp_path / "r.npz")
    assert loaded.coef.dtype == jnp.float32
    np.testing.assert_allclose(loaded.coef, path.coef, rtol=1e-6)


# -- predict


def test_predict_is_the_linear_predictor(single, path):
    new = RNG.normal(size=(7, 5))
    offset = RNG.normal(size=7)
    want = new @ np.asarray(single.coef) + float(single.intercept)
    np.testing.assert_allclose(l1jax.predict(single, new), want, rtol=1e-12)
    np.testing.assert_allclose(l1jax.predict(single, new, offset=offset), want + offset, rtol=1e-12)
    of_path = l1jax.predict(path, new, offset=offset)
    assert of_path.shape == (4, 7)
    np.testing.assert_allclose(of_path[2], new @ path.coef[2] + path.intercept[2] + offset, rtol=1e-12)
    probability = l1jax.predict(single, new, offset=offset, loss=l1jax.Logistic())
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-(want + offset))), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda X: X.rename(columns={"bmi": "BMI"}), "bmi.*BMI"),
        (lambda X: X[X.columns[::-1]], "columns of the fit"),
        (lambda X: X.drop(columns="bp"), "columns of the fit"),
        (lambda X: X.assign(extra=1.0), "extra"),
        (lambda X: X.to_numpy()[:, :4], r"\(m, 5\).*\(12, 4\)"),
        (lambda X: X.to_numpy()[0], r"\(m, 5\).*\(5,\)"),
    ],
    ids=["renamed", "reordered", "dropped", "added", "narrow array", "one row"],
)
def test_predict_refuses_other_columns(single, change, words):
    with pytest.raises(ValueError, match=words):
        l1jax.predict(single, change(FRAME))


def test_predict_takes_the_columns_of_the_fit_as_frame_or_array(single):
    np.testing.assert_array_equal(l1jax.predict(single, FRAME), l1jax.predict(single, FRAME.to_numpy()))


def test_predict_refuses_an_offset_of_another_length(single):
    with pytest.raises(ValueError, match=r"\(12,\).*\(5,\)"):
        l1jax.predict(single, FRAME, offset=np.zeros(5))
