"""Layers in a row: what must be said of a network before units can be taken out of it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PADDINGS = ("SAME", "VALID")
LAYERS = ("Linear", "Dense", "Conv", "Conv1d", "Conv2d", "Conv3d")
ORDERS = (None, "channels_last", "channels_first")


@dataclasses.dataclass(frozen=True)
class Layer:
    """activation(x W + b): one dense or convolutional layer of a chain, by the paths of its arrays.

    Args:
      kernel: the path of W in the tree of parameters, such as "hidden/kernel".
      bias: the path of b; None without one.
      activation: what is applied to each output before the next layer, entry by entry (that of the last layer is of no
        account). Pooling may stand there too.
      in_axis, out_axis: the axes of the kernel that number its inputs and its outputs. By default as flax has them,
        (..., in, out); `in_axis=1, out_axis=0` for equinox and PyTorch, (out, in, ...). Two axes make a dense layer,
        more a convolution.
      flattened: for a dense layer behind a convolution whose output was flattened: "channels_last" (flax) or
        "channels_first" (equinox), as the axes lay before.
      padding: of a convolution: "VALID" for none, all else "SAME". A padded one sees the border of a constant channel,
        so that this can't be folded into its bias.

    Raises ValueError for an unknown `flattened` or `padding`, TypeError for an activation that can't be called.

    >>> Layer("hidden/kernel", "hidden/bias").padding
    'SAME'
    """

    kernel: str
    bias: str | None = None
    activation: Callable[..., Any] = jax.nn.relu
    in_axis: int = -2
    out_axis: int = -1
    flattened: str | None = None
    padding: str = "SAME"

    def __post_init__(self) -> None:
        if self.flattened not in ORDERS:
            raise ValueError(f"flattened: want one of {', '.join(map(repr, ORDERS))}; got {self.flattened!r}")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding: want one of {', '.join(map(repr, PADDINGS))}; got {self.padding!r}")
        if not callable(self.activation):
            raise TypeError(f"activation: want a function such as jax.nn.relu, got {self.activation!r}")


def chain_of(model: Any) -> list[Layer]:
    """layer after layer of a model that runs them in a row: a flax or equinox Sequential, or an equinox MLP.

    Args:
      model: `flax.nnx.Sequential`, `flax.linen.Sequential`, `equinox.nn.Sequential` or `equinox.nn.MLP`, of dense
        layers and convolutions with functions between them that act entry by entry, or flatten; dropout and pooling
        (of equinox) too. Sequentials may stand in each other.

    For `compact`. Raises TypeError for a layer that is none of these, such as a norm, which sees all units at once; and
    for modules of your own, whose order of layers only you know: list their `Layer`s.

    >>> import equinox as eqx
    >>> model = eqx.nn.MLP(in_size=4, out_size=2, width_size=8, depth=1, key=jax.random.key(0))
    >>> [layer.kernel for layer in chain_of(model)]
    ['layers/0/weight', 'layers/1/weight']
    """
    if not _is(model, "Sequential", "MLP"):
        raise TypeError(
            f"chain_of: want a flax or equinox Sequential, or an equinox MLP, got {type(model).__name__}; only you "
            f"know in which order other modules run their layers: [l1jax.Layer('hidden/kernel', 'hidden/bias'), ...]"
        )
    chain: list[Layer] = []
    flattened = None
    for part in _parts(model, ""):
        if isinstance(part, Layer):
            chain.append(dataclasses.replace(part, flattened=flattened))
            flattened = None
        elif isinstance(part, str):
            flattened = part if chain else None  # inputs that come flattened are inputs
        elif chain:
            before = chain[-1].activation
            both = part if before is _identity else functools.partial(_composed, before, part)
            chain[-1] = dataclasses.replace(chain[-1], activation=both)
    if not chain:
        raise TypeError("chain_of: this model has no dense layer or convolution")
    return chain


def check_elementwise(layer: Layer) -> None:
    """Refuse an activation in which units meet, such as a softmax."""
    if not _elementwise(layer.activation):
        raise ValueError(
            f"activation of {layer.kernel!r}: want a function that acts entry by entry, such as jax.nn.relu; "
            f"{_name(layer.activation)} does not, so that units can't be taken out before it"
        )


def tell_sizes(tree: Any) -> None:
    """Write the sizes of the kernels to the modules of a new tree, in place: equinox's and flax's keep both."""
    for module in jax.tree.leaves(tree, is_leaf=lambda node: _is(node, *LAYERS)):
        if not _is(module, *LAYERS):
            continue
        equinox = _library(module) == "equinox"
        shape = (module.weight if equinox else module.kernel).shape
        sizes = (shape[1], shape[0]) if equinox else shape[-2:]
        for name, size in zip(("in", "out"), sizes, strict=True):
            for kind in ("features", "channels"):
                if isinstance(getattr(module, f"{name}_{kind}", None), int):
                    object.__setattr__(module, f"{name}_{kind}", int(size))
        if hasattr(module, "kernel_shape"):
            object.__setattr__(module, "kernel_shape", tuple(shape))


def _parts(model: Any, path: str) -> Iterator[Any]:
    """The model's Layers, and between them its activations and, as a word, its flattenings."""
    sort = type(model).__name__
    if _is(model, "Sequential"):
        join = f"{path}layers_" if _library(model) == "linen" else f"{path}layers/"
        for i, each in enumerate(model.layers):
            yield from _parts(each, f"{join}{i}/")
    elif _is(model, "MLP"):
        for i, each in enumerate(model.layers):
            yield from _parts(each, f"{path}layers/{i}/")
            yield model.activation if i < len(model.layers) - 1 else model.final_activation
    elif _is(model, *LAYERS):
        yield _layer(model, path)
    elif _is(model, "Lambda"):
        yield from _parts(model.fn, path)
    elif _is(model, "Dropout", "Identity") or (_is(model, "MaxPool", "AvgPool") and _plain(model)):
        return
    elif _library(model) is None and callable(model):
        yield _function(model, path)
    else:
        raise TypeError(
            f"chain_of: {path.rstrip('/')!r} is a {sort}: units can only be taken out of dense layers and convolutions "
            f"with functions between them that act entry by entry. A norm across features sees all units at once"
        )


def _layer(module: Any, path: str) -> Layer:
    groups = getattr(module, "feature_group_count", getattr(module, "groups", 1))
    if groups != 1:
        raise TypeError(
            f"chain_of: {path.rstrip('/')!r} is a convolution in {groups} groups; want one in a single group"
        )
    equinox = _library(module) == "equinox"
    names = ("weight", "bias") if equinox else ("kernel", "bias")
    return Layer(
        path + names[0],
        path + names[1] if module.use_bias else None,
        _identity,
        in_axis=1 if equinox else -2,
        out_axis=0 if equinox else -1,
        padding="VALID" if _unpadded(module) else "SAME",
    )


def _function(act: Callable[..., Any], path: str) -> Any:
    """A function between layers: itself if it acts entry by entry, a word if it flattens."""
    if _elementwise(act):
        return act
    probe = np.arange(24.0).reshape(1, 2, 3, 4)
    for word, image in (("channels_last", probe), ("channels_first", probe[0])):
        try:
            flat = np.asarray(act(jnp.asarray(image)))
        except Exception:  # whatever it is, it does not flatten
            continue
        if flat.shape == image.reshape(*image.shape[:-3], -1).shape and np.array_equal(flat.ravel(), probe.ravel()):
            return word
    raise TypeError(
        f"chain_of: {path.rstrip('/')!r}, {_name(act)}, neither acts entry by entry nor flattens; list the layers "
        f"yourself, as l1jax.Layer, if it keeps channels apart"
    )


def _elementwise(act: Callable[..., Any]) -> bool:
    probe = jnp.linspace(-2.0, 3.0, 6)
    try:
        alone, together = jax.vmap(act)(probe), act(probe)
    except Exception:  # it wants an axis, so it is none
        return False
    return jnp.shape(together) == probe.shape and np.allclose(alone, together, rtol=1e-5, atol=1e-6, equal_nan=True)


def _is(module: Any, *names: str) -> bool:
    """Whether the module is one of these, of flax or equinox; a subclass may do other things."""
    sort = type(module).__name__
    pool = sort[:-2] if sort.endswith(("1d", "2d", "3d")) and "Pool" in sort else sort
    return _library(module) is not None and (sort in names or pool in names)


def _library(module: Any) -> str | None:
    """The library whose own module this is, asked without importing it."""
    home = type(module).__module__.split(".")
    if home[0] == "equinox":
        return "equinox"
    return home[1] if home[0] == "flax" and len(home) > 1 else None


def _unpadded(module: Any) -> bool:
    """Whether a constant channel stays one under the convolution: nothing is put around or between its entries."""
    spread = np.any(np.asarray(getattr(module, "input_dilation", 1)) != 1)
    padding = getattr(module, "padding", "VALID")
    if isinstance(padding, str):
        return bool(padding == "VALID" and not spread)
    return not (np.any(np.asarray(padding) != 0) or spread)


def _plain(pool: Any) -> bool:
    return _unpadded(pool) and not getattr(pool, "use_ceil", False)


def _identity(x: Any) -> Any:
    return x


def _composed(first: Callable[..., Any], then: Callable[..., Any], x: Any) -> Any:
    return then(first(x))


def _name(act: Callable[..., Any]) -> str:
    return getattr(act, "__name__", None) or repr(act)
