"""Which parameters are penalised."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

_NOT_WEIGHTS = re.compile(r"bias|norm|scale|(^|[^a-z])(b|bn|ln|gamma|beta)[_\d]*$", re.IGNORECASE)
_EMBEDDING = re.compile("embed", re.IGNORECASE)


def weights_only(params: Any, *, embeddings: bool = False) -> Any:
    """True for leaves of two axes or more that are no bias, normalisation or embedding by their names: a mask.

    Args:
      params: the parameters, any tree.
      embeddings: whether leaves with "embed" in their path count as well.

    For `mask=`, here and in optax: `mask=l1jax.weights_only`, or `functools.partial(l1jax.weights_only,
    embeddings=True)`. Parameters stacked for `vmap` have an axis more than their model's: mask inside the `vmap`.

    >>> import jax.numpy as jnp
    >>> weights_only({"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "embedding": jnp.ones((5, 3))})
    {'dense': {'bias': False, 'kernel': True}, 'embedding': False}
    """

    def weight(path: Any, leaf: Any) -> bool:
        names = jax.tree_util.keystr(path, simple=True, separator="/")
        named = any(_NOT_WEIGHTS.search(part) for part in names.split("/"))
        return jnp.ndim(leaf) >= 2 and not named and (embeddings or not _EMBEDDING.search(names))

    return jax.tree_util.tree_map_with_path(weight, params)


def chosen(mask: Any, params: Any) -> Any:
    """The mask as a tree of truth values, or None."""
    # a model's tree of truth values (equinox, flax nnx) can be called as well, but it is no function
    function = callable(mask) and (jax.tree_util.all_leaves([mask]) or isinstance(mask, jax.tree_util.Partial))
    return mask(params) if function else mask


def select(mask: Any, tree: Any) -> Any:
    """The tree with `optax.MaskedNode()`, which has no leaves, where the mask is false."""
    if mask is None:
        return tree
    try:
        return jax.tree.map(lambda m, part: part if m else optax.MaskedNode(), mask, tree)
    except ValueError as error:
        raise ValueError(
            f"mask: want truth values in a tree like the parameters, or a prefix of it; got "
            f"{jax.tree.structure(mask)} for {jax.tree.structure(tree)}"
        ) from error


def within(mask: Any, act: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`act` on what is selected of trees alike; the first tree's own parts elsewhere."""
    if mask is None:
        return act(tree, *others)
    done = act(*(select(mask, t) for t in (tree, *others)))
    return jax.tree.map(lambda m, new, old: new if m else old, mask, done, tree)
