"""What a sweep has done so far, on disk: a folder of `manifest.json` and one `block-*.npz` for each finished block."""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from l1jax._arrays import numeric_leaf
from l1jax.result import Result, write_whole

FORMAT = "l1jax sweep 1"
TOGETHER = 256  # problems


class Store:
    """Blocks of lanes in a folder; None keeps nothing.

    The manifest says the format, the number of lanes and how many a block has, and a fingerprint of all that was asked
    for. Blocks are results as `Result.save` writes them. Both appear whole or not at all; nothing is pickled.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, asked: Any, lanes: int, block: int) -> None:
        self.folder = None if folder is None else Path(folder)
        self.block = block
        self.shape: tuple[int, ...] | None = None  # of a lane's coefficients, from the first that are seen
        if self.folder is None:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"store: want a folder; {self.folder} is a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = {"format": FORMAT, "fingerprint": fingerprint(asked), "lanes": lanes, "block": block}
        file = self.folder / "manifest.json"
        if not file.exists():
            if any(not other.name.startswith(file.name) for other in self.folder.iterdir()):
                raise ValueError(f"store: {self.folder} holds files, but no sweep; name a new or empty folder")
            write_whole(file, lambda stream: stream.write(json.dumps(manifest, indent=1).encode()))
            return
        try:
            found = json.loads(file.read_text())
            self.block = int(found["block"])  # a block is as large as it was, whatever the machine
            if self.block < 1:
                raise ValueError(f"blocks of {self.block} lanes")
            same = all(found[name] == manifest[name] for name in ("format", "fingerprint", "lanes"))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(f"store: {file} is no manifest of a sweep: {error}") from error
        if not same:
            raise ValueError(f"store: {self.folder} holds another sweep; name a new folder, or remove this one")

    def load(self, k: int, lanes: int) -> Result | None:
        """Block k, of so many lanes, if it was finished."""
        if self.folder is None or not (file := self._file(k)).exists():
            return None
        found = Result.load(file)
        shape = found.coef.shape if self.shape is None else (lanes, *self.shape)
        if found.gap.shape[:1] != (lanes,) or found.coef.shape != shape:
            raise ValueError(f"store: {file} holds results of shape {found.coef.shape}, want {shape}; remove it")
        self.shape = shape[1:]
        return found

    def save(self, k: int, result: Result) -> None:
        if self.folder is not None:
            self.shape = result.coef.shape[1:]
            result.save(self._file(k))

    def _file(self, k: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block-{k:07d}.npz"


@functools.partial(jax.jit, static_argnums=0)
def marks(make: Callable[[Any], Any], over: Any) -> Array:
    """A number for each array of each problem that is made, (B, ...): it changes with the data that `make` holds."""

    def mark(a: Array) -> Array:
        bits = jax.lax.bitcast_convert_type(a, np.uint32) if numeric_leaf(a) else a.astype(np.uint32)
        odd = 2 * jnp.arange(bits.size, dtype=np.uint32) + 1
        return jnp.sum(bits.ravel() * odd, dtype=np.uint32)

    def of_row(row: Any) -> Array:
        return jnp.stack([mark(jnp.asarray(a)) for a in jax.tree.leaves(make(row))])

    return jax.lax.map(of_row, over, batch_size=TOGETHER)


def fingerprint(asked: Any) -> str:
    """A digest of a tree's structure and of its leaves' bytes."""
    digest = hashlib.sha256(str(jax.tree.structure(asked)).encode())
    for leaf in jax.tree.leaves(asked):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
