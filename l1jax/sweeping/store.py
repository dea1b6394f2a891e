"""What a sweep has done so far, on disk: a folder of `manifest.json` and one `block-*.npz` for each finished block."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l1jax.result import Result, write_whole

FORMAT = "l1jax sweep 1"


class Store:
    """Blocks of lanes in a folder; None keeps nothing.

    The manifest says the format, the number of lanes and how many a block has, and a fingerprint of all that was asked
    for. Blocks are results as `Result.save` writes them. Both appear whole or not at all; nothing is pickled.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, asked: Any, lanes: int, block: int) -> None:
        self.folder = None if folder is None else Path(folder)
        self.block = block
        if self.folder is None:
            return
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
        if found.gap.shape[:1] != (lanes,):
            raise ValueError(f"store: {file} holds results of shape {found.gap.shape}, want ({lanes}, ...); remove it")
        return found

    def save(self, k: int, result: Result) -> None:
        if self.folder is not None:
            result.save(self._file(k))

    def _file(self, k: int) -> Path:
        assert self.folder is not None
        return self.folder / f"block-{k:07d}.npz"


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
