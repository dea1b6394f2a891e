"""Networks made smaller: dead units are taken out of layers in a row."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l1jax._arrays import concrete, numeric_leaf
from l1jax.chains import Layer, check_elementwise, tell_sizes
from l1jax.penalties.units import paths

Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True, repr=False)
class Compacted:
    """A smaller network: its parameters, and which units of the large one each layer kept.

    params: the smaller parameters, in the tree they came in. inputs: the inputs that the smaller network takes, as
    indices: all, unless `drop_inputs` was asked for. units: for each layer, by its kernel's path, the indices of the
    units kept.
    """

    params: Any
    inputs: Numbers
    units: Mapping[str, Numbers]
    sizes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        count, before = len(self.inputs), self.sizes["inputs"][0]
        lines = [f"inputs: {before} -> {count}" if count < before else f"inputs: {count}"]
        lines += [f"{path}: {self.sizes[path][0]} -> {len(kept)} units" for path, kept in self.units.items()]
        total, now = self.sizes["parameters"]
        return "\n".join([*lines, f"parameters: {total} -> {now}"])


def compact(params: Any, chain: Sequence[Layer], *, drop_inputs: bool = False) -> Compacted:
    """f(x) with fewer units: takes out those that feed nothing, or that nothing feeds, whose constant joins the bias.

    Args:
      params: the parameters, concrete: a tree of arrays, or an equinox or flax nnx model, that holds the chain's and
        no others.
      chain: the layers, first to last, each one's output the input of the next and of nothing else: `Layer`s, or
        `chain_of(model)`.
      drop_inputs: also take out inputs whose weights are all 0; the smaller network is then fed `x[..., inputs]` (for
        convolutions as they come in flax: the channels).

    A unit is dead if all its outgoing weights are 0, or all its incoming ones: it then gives activation(bias), which is
    folded into the next bias. Dead units take others with them, so this is repeated until nothing changes. Kept all the
    same: a unit of which the next layer has no bias to take the constant, or pads it (unless `padding="VALID"`), and
    one unit of each layer. Outputs are the same to rounding.

    Raises ValueError, with their paths, for arrays that no layer of the chain names: a norm across features or a
    residual stream would see the units that are gone; for arrays named twice, sizes that do not fit, activations that
    mix units. TypeError for traced parameters. What stands between layers but has no parameters can't be seen: it must
    act on each unit alone, and keep a constant constant (pooling without padding does).

    >>> import jax.numpy as jnp
    >>> params = {"w1": jnp.array([[1.0, 0.0, 2.0]]), "b1": jnp.array([0.0, 3.0, 1.0]),
    ...           "w2": jnp.array([[1.0], [2.0], [0.0]]), "b2": jnp.array([0.5])}
    >>> small = compact(params, [Layer("w1", "b1"), Layer("w2", "b2")])
    >>> small
    inputs: 1
    w1: 3 -> 1 units
    w2: 1 -> 1 units
    parameters: 10 -> 4
    >>> small.params["b2"]
    Array([6.5], dtype=float32)
    """
    leaves, stages = _read(params, list(chain))
    alive = [np.ones(stages[0].inputs, bool), *(np.ones(stage.units, bool) for stage in stages)]
    while _sweep(stages, alive):
        pass
    if drop_inputs:
        used = np.any(stages[0].weights[:, :, alive[1]] != 0, axis=(0, 2))
        used[0] |= not used.any()
        alive[0] = used
    new = dict(leaves)
    for stage, before, after in zip(stages, alive, alive[1:], strict=False):
        new |= stage.cut(leaves, before, after)
    total, now = (sum(np.size(leaf) for leaf in arrays.values()) for arrays in (leaves, new))
    kept = {stage.layer.kernel: np.flatnonzero(after) for stage, after in zip(stages, alive[1:], strict=True)}
    sizes = {stage.layer.kernel: (stage.units, len(kept[stage.layer.kernel])) for stage in stages}
    sizes |= {"inputs": (alive[0].size, int(alive[0].sum())), "parameters": (total, now)}
    tree = jax.tree.unflatten(jax.tree.structure(params), [new.get(p, leaf) for p, leaf in paths(params).items()])
    tell_sizes(tree)
    return Compacted(tree, np.flatnonzero(alive[0]), kept, sizes)


@dataclasses.dataclass
class _Stage:
    """A layer as matrices: weights (taps, inputs, units), and the bias, in float64, that constants are added to."""

    layer: Layer
    kernel: str
    bias: str | None
    weights: Numbers
    offset: Numbers
    padded: bool

    @property
    def inputs(self) -> int:
        return int(self.weights.shape[1])

    @property
    def units(self) -> int:
        return int(self.weights.shape[2])

    def outputs(self) -> Numbers:
        """What a unit gives that nothing feeds."""
        return np.asarray(self.layer.activation(jnp.asarray(self.offset))).astype(np.float64)

    def takes(self, constants: Numbers) -> Numbers:
        """Which constant inputs can be left out, as part of the bias."""
        foldable = self.bias is not None and not self.padded
        return (constants == 0) | (np.isfinite(constants) & foldable)

    def cut(self, leaves: dict[str, Any], before: Numbers, after: Numbers) -> dict[str, Any]:
        """The layer's arrays with the inputs `before` and the units `after`."""
        kernel, layer = np.asarray(leaves[self.kernel]), self.layer
        length = kernel.shape[layer.in_axis]
        repeated = np.tile if layer.flattened == "channels_last" else np.repeat
        inputs = np.flatnonzero(repeated(before, length // before.size))
        kernel = kernel.take(inputs, layer.in_axis).take(np.flatnonzero(after), layer.out_axis)
        new = {self.kernel: _as_given(kernel, leaves[self.kernel])}
        if self.bias is not None:
            given = leaves[self.bias]
            lean = [int(after.sum()) if n == self.units else 1 for n in np.shape(given)]
            new[self.bias] = _as_given(self.offset[after].reshape(lean).astype(given.dtype), given)
        return new


def _sweep(stages: list[_Stage], alive: list[Numbers]) -> bool:
    """Take dead units out, first layer to last; whether any was."""
    changed = False
    for source, own, ahead, stage, after in zip(alive, alive[1:], alive[2:], stages, stages[1:], strict=False):
        unfed = ~np.any(stage.weights[:, source, :] != 0, axis=(0, 1))
        unused = ~np.any(after.weights[:, :, ahead] != 0, axis=(0, 2))
        constants = np.where(unfed, stage.outputs(), 0.0)
        dead = own & (unused | (unfed & after.takes(constants)))
        if np.array_equal(dead, own):
            dead[np.argmax(own)] = False
        folded = dead & ~unused
        after.offset += np.einsum("tiu,i->u", after.weights[:, folded, :].astype(np.float64), constants[folded])
        own &= ~dead
        changed |= bool(dead.any())
    return changed


def _read(params: Any, chain: list[Layer]) -> tuple[dict[str, Any], list[_Stage]]:
    """The arrays by their paths, and the chain's layers; refuses what does not fit."""
    if not chain or not all(isinstance(layer, Layer) for layer in chain):
        raise TypeError(f"chain: want a list of l1jax.Layer, first layer to last; got {chain!r}")
    leaves = {path: leaf for path, leaf in paths(params).items() if numeric_leaf(leaf)}
    if not concrete(leaves):
        raise TypeError("compact: want concrete parameters: sizes change, so it can't run under jit or vmap")
    stages: list[_Stage] = []
    for layer in chain:
        stages.append(_stage(layer, leaves, stages[-1].units if stages else None))
    named = [path for stage in stages for path in (stage.kernel, stage.bias) if path is not None]
    twice = sorted({path for path in named if named.count(path) > 1})
    if twice:
        raise ValueError(f"chain: {', '.join(twice)} stands in it twice; layers that share arrays can't be cut apart")
    left = [path for path in leaves if path not in named]
    if left:
        raise ValueError(
            f"params: no layer of the chain names {', '.join(map(repr, left))}. Norms across features, residual "
            f"streams and other layers beside the chain would see the units that are gone: want them out of the "
            f"network, or only the part of the tree that is the chain"
        )
    for layer in chain[:-1]:
        check_elementwise(layer)
    return leaves, stages


def _stage(layer: Layer, leaves: dict[str, Any], before: int | None) -> _Stage:
    path = _find(layer.kernel, leaves)
    kernel, shape = np.asarray(leaves[path]), np.shape(leaves[path])
    rank = len(shape)
    axes = (layer.in_axis, layer.out_axis)
    if rank < 2 or any(not -rank <= axis < rank for axis in axes) or axes[0] % rank == axes[1] % rank:
        raise ValueError(
            f"{layer.kernel}: want an array with axes {axes[0]} of inputs and {axes[1]} of units, got {shape}"
        )
    weights = np.moveaxis(kernel, axes, (-2, -1))
    weights = weights.reshape(-1, *weights.shape[-2:])
    if layer.flattened is not None:
        if before is None or rank != 2 or weights.shape[1] % before:
            raise ValueError(
                f"{layer.kernel}: flattened is said of a dense layer behind a convolution whose channels divide its "
                f"inputs; got shape {shape} behind {before or 'no'} units"
            )
        apart = (-1, before) if layer.flattened == "channels_last" else (before, -1)
        weights = weights.reshape(*apart, weights.shape[2])
        weights = weights if layer.flattened == "channels_last" else np.moveaxis(weights, 1, 0)
    if before is not None and weights.shape[1] != before:
        flat = "; say flattened= if a convolution's output was flattened" if rank == 2 else ""
        raise ValueError(
            f"{layer.kernel}: takes {weights.shape[1]} inputs, but the layer before it in the chain has {before} "
            f"units{flat}"
        )
    bias, offset = None, np.zeros(weights.shape[2])
    if layer.bias is not None:
        bias = _find(layer.bias, leaves)
        given = np.asarray(leaves[bias])
        if given.ndim == 0 or {given.size, max(given.shape)} != {offset.size}:
            raise ValueError(f"{layer.bias}: want one number for each of {offset.size} units, got shape {given.shape}")
        offset = given.astype(np.float64).reshape(offset.size)
    return _Stage(layer, path, bias, weights, offset, rank > 2 and layer.padding != "VALID")


def _find(path: str, leaves: dict[str, Any]) -> str:
    # flax's states end each path in "value", and its variables begin with their collection
    for found in (path, f"{path}/value", f"params/{path}"):
        if found in leaves:
            return found
    raise ValueError(f"chain: the parameters have no array {path!r}; they have {', '.join(map(repr, leaves))}")


def _as_given(array: Numbers, given: Any) -> Any:
    return jnp.asarray(array, given.dtype) if isinstance(given, jax.Array) else array
