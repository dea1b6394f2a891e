"""Pages that quote or describe the source say what it says."""

import ast
import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACES = ["l1jax/penalties/nonconvex.py", "l1jax/penalties/__init__.py", "tests/registry.py"]


def test_contributing_quotes_the_source():
    blocks = [part.split("```")[0] for part in (ROOT / "CONTRIBUTING.md").read_text().split("```python\n")[1:]]
    assert len(blocks) == len(PLACES)
    for block, place in zip(blocks, PLACES, strict=True):
        source = (ROOT / place).read_text()
        for piece in block.strip("\n").split("\n\n\n"):
            assert piece in source, place
    assert "    LogSum as LogSum,\n" in (ROOT / "l1jax/__init__.py").read_text()


def test_the_table_of_penalties_is_the_registrys():
    """Every public penalty that solves for coefficients (p,) has a row, and the page is what the script writes."""
    spec = importlib.util.spec_from_file_location("penalties_table", ROOT / "docs" / "penalties.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.table() == (ROOT / "docs" / "penalties.md").read_text()
    exported = ast.parse((ROOT / "l1jax/penalties/__init__.py").read_text())
    names = {alias.name for at in exported.body if isinstance(at, ast.ImportFrom) for alias in at.names}
    rest = {"Elementwise", "Penalty", "Terms", "majorizer", "straight", "with_ratio"}
    assert {f"`{name}`" for name in names - rest} <= set(script.table().split())
