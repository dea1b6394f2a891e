"""Imports inside l1jax point one way; files stay short; public names are documented by example."""

import ast
import inspect
from pathlib import Path

import pytest

import l1jax

ORDER = [
    "version", "_node", "_arrays", "_threads", "progress", "prox", "penalties", "losses", "design", "preparation",
    "problem",
    "standard_form", "certificate", "result", "transforms", "zeros", "polishing", "chains", "compaction", "engines",
    "systems", "implicit", "minimizing", "minimum", "block", "search", "rounds", "sufficient", "hosted", "loop", "grid",
    "solving", "paths", "folds",
    "sweeping", "tuning", "selection", "sklearn", "datasets", "tables", "plot", "analysis", "report", "__init__",
    "__main__",
]  # fmt: skip
INSIDE = {"penalties": ["terms", "base", "elementwise", "combinators", "curves", "nonconvex", "sequential",
                        "norms", "radius", "groups", "sets", "units", "unit_lasso", "__init__"],
          "losses": ["shift", "base", "bins", "special", "binary", "classes", "continuous", "counts", "positive",
                     "survival", "__init__"],
          "transforms": ["states", "masks", "metrics", "base", "accelerated", "aliases", "dual", "subgradient",
                          "__init__"],
          "engines": ["base", "coordinate", "gradient", "newton", "semismooth", "kinks", "passes", "homotopy", "local",
                      "inverse", "working_set", "sets", "active", "groups", "group_path", "__init__"],
          "sweeping": ["axes", "lanes", "shared", "knots", "wide", "resampled", "blocks", "store", "programs",
                       "driving", "training", "study", "sweeps", "__init__"],
          "selection": ["scores", "relaxation", "cross_validation", "criteria", "false_selections",
                         "stability", "__init__"],
          "sklearn": ["estimator", "regression", "tuned", "classification", "__init__"]}  # fmt: skip
ABSTRACT = {"Elementwise", "Loss", "Penalty"}

ROOT = Path(l1jax.__file__).parent
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path for path in ROOT.rglob("*.py")}
PUBLIC = [name for name in vars(l1jax) if not name.startswith("_") and not inspect.ismodule(getattr(l1jax, name))]


def rank(module):
    """Where a module, "penalties.base" say, stands in the order."""
    top, _, inner = module.replace("/", ".").partition(".")
    return ORDER.index(top), INSIDE[top].index(inner or "__init__") if top in INSIDE else 0


def imports(path):
    """The modules of l1jax that a file imports from, anywhere in it."""
    for at in ast.walk(ast.parse(path.read_text())):
        if isinstance(at, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in at.names if alias.name.split(".")[0] == "l1jax")
        elif isinstance(at, ast.ImportFrom):
            assert at.level == 0, f"{path.name}: a relative import"
            if at.module == "l1jax":
                yield from (alias.name for alias in at.names)
            elif at.module.startswith("l1jax."):
                yield at.module.removeprefix("l1jax.")


@pytest.mark.parametrize("name", FILES)
def test_imports_point_up_the_list(name):
    for found in imports(FILES[name]):
        assert rank(found) < rank(name), f"{name} imports {found}"


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_above_400_lines(name):
    assert len(FILES[name].read_text().splitlines()) <= 400


def test_no_public_name_is_a_module_s():
    assert set(PUBLIC).isdisjoint(part for name in FILES for part in name.split("/"))


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - ABSTRACT))
def test_public_names_are_documented_by_example(name):
    assert ">>> " in (inspect.getdoc(getattr(l1jax, name)) or "")


@pytest.mark.parametrize("name", sorted(ABSTRACT))
def test_abstract_classes_are_documented(name):
    assert inspect.isabstract(getattr(l1jax, name))
    assert inspect.getdoc(getattr(l1jax, name))
