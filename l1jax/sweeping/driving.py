"""Blocks of lanes, one after the other or several at once: what a sweep does on the host."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from l1jax._arrays import aligned_zeros
from l1jax.progress import progress_bar
from l1jax.result import Result
from l1jax.sweeping.store import Store

FEWEST = 16  # lanes for which another thread is worth while
SHARE = 0.5  # of a device's free memory, for a block


@dataclasses.dataclass
class Drive:
    """How to run: a progress bar, a folder to keep results in, lanes at a time, devices."""

    progress: bool
    store: str | os.PathLike[str] | None
    chunk: int | None
    given_mesh: Mesh | None

    def __post_init__(self) -> None:
        whole = isinstance(self.chunk, int | np.integer) and not isinstance(self.chunk, bool)
        if self.chunk is not None and not (whole and self.chunk >= 1):
            raise ValueError(f"chunk: want a whole number of lanes, at least 1; got {self.chunk!r}")

    @property
    def mesh(self) -> Mesh | None:
        """The devices given, or all of this process if there are several."""
        if self.given_mesh is not None or jax.local_device_count() == 1:
            return self.given_mesh
        return Mesh(np.array(jax.local_devices()), ("lanes",))

    @property
    def room(self) -> int | None:
        """The bytes that a block may take on all devices together; None where these don't tell of their memory."""
        mesh = self.mesh
        devices = jax.local_devices()[:1] if mesh is None else list(mesh.local_devices)
        told = [device.memory_stats() for device in devices]
        if not all(stats and "bytes_limit" in stats for stats in told):
            return None
        # Several processes have to come to the same number.
        used = [stats["bytes_in_use"] if jax.process_count() == 1 else 0 for stats in told]
        free = min(stats["bytes_limit"] - taken for stats, taken in zip(told, used, strict=True))
        return int(SHARE * free * len(devices))

    def refuse_tracing(self) -> None:
        if self.progress or self.store is not None or self.chunk is not None:
            raise ValueError("progress, store, chunk: want None under jit, vmap or grad, where chunks can't be driven")

    def one_by_one(self, lane: Callable[[int], Result], lanes: int, asked: Any) -> Result:
        """lane(i) for all lanes, their results stacked."""

        def block(ids: np.ndarray) -> Result:
            return jax.tree.map(lambda a: a[None], lane(int(ids[0])))

        return self._run(block, lanes, 1, asked, 1)

    def in_blocks(
        self, block: Callable[[np.ndarray], Result], lanes: int, size: int, asked: Any, *, threads: bool
    ) -> Result:
        """block(ids) for all lanes, in blocks of one size, at most `size` if that is not given."""
        devices, workers = self._devices, self._workers(threads)
        if self.chunk is None:
            shares = workers if jax.process_count() == 1 else jax.process_count()  # each process has to see the same
            blocks = max(-(-lanes // size), min(shares, lanes // FEWEST))
            size = -(-lanes // (-(-blocks // shares) * shares))
        else:
            size = self.chunk
        return self._run(block, lanes, -(-size // devices) * devices, asked, workers)

    @property
    def _devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape[self.mesh.axis_names[0]]

    def _workers(self, threads: bool) -> int:
        return (os.cpu_count() or 1) if threads and self._devices == 1 else 1

    def _run(self, block: Callable[[np.ndarray], Result], lanes: int, size: int, asked: Any, workers: int) -> Result:
        """The blocks' results put together. Several processes share the blocks; each gets all results."""
        store = Store(self.store, asked, lanes, size)
        size = store.block
        count = -(-lanes // size)
        mine = range(jax.process_index(), count, jax.process_count()) or range(count - 1, count)
        whole: dict[str, np.ndarray] = {}

        def put(k: int, found: Result) -> None:
            for field in dataclasses.fields(Result):
                if field.name != "names":
                    part = np.asarray(getattr(found, field.name))
                    into = whole.setdefault(field.name, aligned_zeros((lanes, *part.shape[1:]), part.dtype))
                    into[k * size : (k + 1) * size] = part

        def work(k: int) -> None:
            ids = np.arange(k * size, (k + 1) * size)
            inside = int(np.sum(ids < lanes))
            found = store.load(k, inside)
            if found is None:
                found = jax.tree.map(lambda a: np.asarray(a)[:inside], block(np.minimum(ids, lanes - 1)))
                store.save(k, found)
            put(k, found)

        with progress_bar(self.progress, lanes, "lane", "sweep") as advance:
            if workers == 1 or len(mine) == 1:
                for k in mine:
                    work(k)
                    advance(min(size, lanes - k * size))
            else:
                with ThreadPoolExecutor(workers) as pool:
                    try:
                        for k, _ in zip(mine, pool.map(_as_here(work), mine), strict=True):
                            advance(min(size, lanes - k * size))
                    except BaseException:
                        pool.shutdown(wait=True, cancel_futures=True)
                        raise
        if jax.process_count() > 1:
            whole = _gathered(whole, np.arange(lanes) // size % jax.process_count())
        arrays: dict[str, Any] = {name: jax.device_put(a, may_alias=True) for name, a in whole.items()}
        return Result(**arrays)


def _as_here(work: Callable[[int], None]) -> Callable[[int], None]:
    """The same in another thread, under this one's settings of JAX."""
    x64, device = jax.numpy.result_type(float) == np.float64, jax.config.values["jax_default_device"]

    def there(k: int) -> None:
        with jax.enable_x64(x64), jax.default_device(device):
            work(k)

    return there


def _gathered(whole: dict[str, np.ndarray], owner: np.ndarray) -> dict[str, np.ndarray]:
    """Each lane's results, from the process that has them."""
    from jax.experimental import multihost_utils

    every: Any = multihost_utils.process_allgather(whole)
    return {name: np.asarray(a)[owner, np.arange(len(owner))] for name, a in every.items()}
