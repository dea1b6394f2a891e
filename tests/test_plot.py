"""Pictures of paths: what is drawn is the path, and it can be read."""

import dataclasses
import sys

import jax
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from l1jax import L1, Problem, Stability, Units, cross_validate, datasets, path, sparsity_report
from l1jax.plot import coefficient_path, cross_validation_curve, sparsity, spread, stability_path


@pytest.fixture(scope="module")
def found():
    data = datasets.diabetes()
    return path(Problem(data.X, data.y, penalty=L1(1.0), names=data.names), num=40)


def curves(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines() if not line.get_label().startswith("_")}


def drawn(ax):
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("against", ["lambda", "norm", "deviance"])
def test_lines_are_the_coefficients(found, against):
    ax = coefficient_path(found, against=against)
    coef = np.asarray(found.coef)
    x = {"lambda": found.lams, "norm": np.abs(coef).sum(axis=1), "deviance": found.dev_ratio}[against]
    lines = curves(ax)
    assert set(lines) == set(found.names)
    for j, name in enumerate(found.names):
        np.testing.assert_array_equal(lines[name], np.column_stack([x, coef[:, j]]))
    left, right = ax.get_xlim()
    assert (left > right) == (against == "lambda")
    assert ax.get_xscale() == ("log" if against == "lambda" else "linear")
    drawn(ax)


def test_names_are_legible(found):
    """Names and marks overlap neither each other nor the edge of the Axes."""
    ax = coefficient_path(found, mark={"min": float(found.lams[20]), "1se": float(found.lams[19])})
    renderer = drawn(ax)
    boxes = [text.get_window_extent(renderer) for text in ax.texts]
    assert {text.get_text() for text in ax.texts} == {*found.names, "min", "1se"}
    frame = ax.get_window_extent(renderer)
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        for other in boxes[:i]:
            shared = min(box.y1, other.y1) - max(box.y0, other.y0)
            apart = box.x1 <= other.x0 or other.x1 <= box.x0
            assert apart or shared <= 0.1 * box.height


def test_marks_stand_at_the_nearest_lambda(found):
    lam = float(found.lams[7])
    ax = coefficient_path(found, mark={"here": lam * 1.01})
    (mark,) = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(mark.get_xdata(), lam)


def test_top_axis_counts_nonzeros(found):
    ax = coefficient_path(found)
    (top,) = ax.child_axes
    count = dict(zip(np.asarray(found.lams).tolist(), np.asarray(found.df).tolist(), strict=True))
    labels = [int(text.get_text()) for text in top.get_xticklabels()]
    assert labels == [count[float(lam)] for lam in top.get_xticks()]
    assert (labels[0], labels[-1]) == (0, 10)


def test_given_axes_and_names_are_used(found):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    names = [f"feature {j}" for j in range(10)]
    assert coefficient_path(found, ax=right, names=names) is right
    assert set(curves(right)) == set(names)
    assert not left.lines


def test_order_of_lambdas_and_unanswered_ones_do_not_matter(found):
    shuffled = found[np.random.default_rng(0).permutation(40)]
    coef = np.asarray(found.coef).copy()
    coef[30:] = np.nan
    for result, count in ((shuffled, 40), (dataclasses.replace(found, coef=coef), 30)):
        lines = curves(coefficient_path(result))
        np.testing.assert_array_equal(lines["bmi"], np.column_stack([found.lams, found.coef[:, 2]])[:count])


def test_only_the_largest_are_named(found):
    coef = np.linspace(0, 1, 40)[:, None] * np.arange(30.0) * np.resize([1, -1], 30)
    ax = coefficient_path(dataclasses.replace(found, coef=coef, names=None))
    assert set(curves(ax)) == {f"x{j}" for j in range(18, 30)}
    assert len(ax.get_lines()) == 1 + 29  # the line at 0, and all but that of x0


def test_empty_paths_are_drawn(found):
    for against in ("lambda", "norm", "deviance"):
        drawn(coefficient_path(dataclasses.replace(found, coef=found.coef * 0), against=against))


def test_no_figure_is_kept_by_pyplot(found):
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)
    coefficient_path(found)
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before


def test_wrong_arguments(found):
    with pytest.raises(ValueError, match=r"want a path.*coef of shape \(10,\)"):
        coefficient_path(found[3])
    with pytest.raises(ValueError, match="at least two lambdas"):
        coefficient_path(found[:1])
    with pytest.raises(ValueError, match="no place for lambda = 0"):
        coefficient_path(dataclasses.replace(found, lams=found.lams - found.lams[-1]))
    with pytest.raises(ValueError, match="want 'lambda', 'norm', 'deviance'; got 'x'"):
        coefficient_path(found, against="x")
    with pytest.raises(ValueError, match=r"names: want 10.*got 1"):
        coefficient_path(found, names=["a"])
    with pytest.raises(ValueError, match=r"mark: min = 99 is beyond the path"):
        coefficient_path(found, mark={"min": 99.0})


def test_without_matplotlib_it_says_how_to_get_it(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "l1jax\[plot\]"'):
        coefficient_path(found)


def test_spread_is_the_nearest_that_keeps_apart(rng):
    places = np.sort(rng.random(6))
    best = np.array(spread(places, 0.15))
    assert np.all(np.diff(best) >= 0.15 - 1e-12)
    for _ in range(2000):
        other = places + rng.standard_normal(6) * 0.1
        other = other[0] + np.concatenate([[0], np.cumsum(np.maximum(np.diff(other), 0.15))])
        assert np.sum((other - places) ** 2) >= np.sum((best - places) ** 2) - 1e-12
    assert spread([0.1, 0.5, 0.9], 0.2) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([], 0.1) == []


@pytest.fixture(scope="module")
def judged():
    data = datasets.diabetes()
    return cross_validate(Problem(data.X, data.y, penalty=L1(1.0), names=data.names), folds=4, num=20, ratio=0.01)


def test_cross_validation_is_drawn_as_it_is(judged):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert cross_validation_curve(judged, ax=right) is right
    assert not left.get_lines()
    points, _, (bars,) = right.containers[0]
    np.testing.assert_allclose(points.get_xydata(), np.column_stack([judged.lams, judged.mean]))
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends, np.column_stack([judged.mean - judged.se, judged.mean + judged.se]))
    marks = [float(line.get_xdata()[0]) for line in right.get_lines() if line.get_linestyle() == "--"]
    assert marks == [float(judged.lam_min), float(judged.lam_1se)]
    assert [text.get_text() for text in right.texts] == ["λ min", "λ 1se"]
    (top,) = right.child_axes
    count = dict(zip(np.asarray(judged.lams).tolist(), np.asarray(judged.path.df).tolist(), strict=True))
    assert [int(t.get_text()) for t in top.get_xticklabels()] == [count[float(lam)] for lam in top.get_xticks()]
    drawn(right)
    backwards = jax.tree.map(lambda a: a[..., ::-1], (judged.mean, judged.se))
    flipped = dataclasses.replace(judged, mean=backwards[0], se=backwards[1], path=judged.path[::-1])
    other = cross_validation_curve(flipped)
    np.testing.assert_allclose(other.containers[0][0].get_xydata(), points.get_xydata())


def test_stability_is_drawn_as_it_is():
    shares = np.array([[0.0, 0.1, 0.0], [0.95, 0.25, 0.0], [1.0, 0.5, 0.3]])
    found = Stability(shares, shares, shares.sum(axis=1), np.array([1.0, 0.5, 0.1]), 20, True)
    ax = stability_path(found, names=["a", "b", "c"], threshold=0.9)
    lines = curves(ax)
    assert list(lines) == ["a"]
    np.testing.assert_array_equal(lines["a"], np.column_stack([found.lams, shares[:, 0]]))
    assert [text.get_text() for text in ax.texts] == ["a"]
    assert any(np.allclose(line.get_ydata(), 0.9) for line in ax.get_lines())
    (top,) = ax.child_axes
    assert [t.get_text() for t in top.get_xticklabels()] == ["0.1", "1.2", "1.8"]
    drawn(ax)
    with pytest.raises(ValueError, match="threshold: want a share"):
        stability_path(found, threshold=2)
    with pytest.raises(ValueError, match="names: want 3"):
        stability_path(found, names=["a"])
    with pytest.raises(ValueError, match="at least two lambdas"):
        stability_path(dataclasses.replace(found, lams=found.lams * 0))


def test_sparsity_is_drawn_as_it_is():
    kernel = np.zeros((20, 100))
    kernel[:5, :30] = 1.0
    params = {"bias": np.ones(100), "kernel": kernel}
    report = sparsity_report(params, Units.slices(params, -2))
    left, right = Figure(figsize=(12, 3), layout="constrained").subplots(1, 2)
    assert sparsity(report, ax=right) is right
    assert not left.patches
    found = right.containers[1]
    np.testing.assert_allclose([bar.get_width() for bar in found], [1.0, 150 / 2000, 250 / 2100, 5 / 20])
    assert [text.get_text() for text in right.get_yticklabels()] == ["bias", "kernel", "all", "units of kernel"]
    assert [text.get_text() for text in right.texts] == ["100 of 100", "150 of 2,000", "250 of 2,100", "5 of 20"]
    renderer = drawn(right)
    boxes = [text.get_window_extent(renderer) for text in (*right.texts, *right.get_yticklabels())]
    page = right.figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
    assert [text.get_text() for text in sparsity(sparsity_report({"empty": np.zeros((0, 3))})).texts] == ["0 of 0"] * 2
    with pytest.raises(ValueError, match="at least one array, got none"):
        sparsity(sparsity_report({}))
