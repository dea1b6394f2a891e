"""The training loops of the README run as they stand there, and end sparse."""

from pathlib import Path

import jax
import numpy as np
import pytest

import l1jax

README = (Path(__file__).parent.parent / "README.md").read_text()
LOOPS = README.split("## Sparse networks")[1].split("\n## ")[0]
SNIPPETS = {
    part.rpartition("With ")[2].partition(":")[0]: code.partition("```")[0]
    for part, code in zip(LOOPS.split("```python\n"), LOOPS.split("```python\n")[1:], strict=False)
}


def test_there_is_a_loop_for_each_library():
    assert list(SNIPPETS) == ["plain optax", "flax nnx", "equinox"]


@pytest.mark.usefixtures("float32", "standard_promotion")
@pytest.mark.parametrize("library", SNIPPETS)
def test_a_training_loop_runs_as_it_stands_and_ends_sparse(library, capsys):
    found = {}
    with jax.numpy_rank_promotion("allow"):
        exec(compile(SNIPPETS[library], f"README.md, {library}", "exec"), found)
        assert "zeros" in capsys.readouterr().out.splitlines()[0]
        if library == "plain optax":
            big, small, kernel = found["params"], found["small"].params, lambda params: params["hidden"]["kernel"].T
            errors = [found["loss"](params) for params in (big, small)]
        else:
            big, small, kernel = found["model"], found["small"], dense
            run = jax.vmap if library == "equinox" else lambda model: model
            errors = [np.mean((np.asarray(run(model)(found["X"])) - found["y"]) ** 2) for model in (big, small)]
    np.testing.assert_allclose(*errors, rtol=1e-4)
    assert errors[0] < 0.1 * np.var(found["y"])
    assert l1jax.sparsity_report(big).zeros > 0.8
    assert len(kernel(small)) < len(kernel(big)) == 32


def dense(model):
    """The first kernel, units first."""
    layer = model.layers[0]
    return layer.weight if hasattr(layer, "weight") else layer.kernel[...].T
