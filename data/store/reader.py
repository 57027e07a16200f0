"""Reading batches of latents for training in shuffled order, from whichever memory the store fits into."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.latents import LatentStore, StoredLatents
from data.seeds import coins
from data.store.order import BalancedOrder, SampleOrder

ReadMode = Literal["auto", "device", "memory", "stream"]
_SHARE_OF_DEVICE = 0.4  # of its free memory; networks need the rest, with what they keep for the backward pass
_SHARE_OF_MEMORY = 0.5

type _Batch = tuple[Tensor, Tensor | None]  # numbers as stored, (n, C, H, W), and the scales of int8, (n, C)


class LatentReader:
    """Latents at positions of the endless shuffled sequence. Any may be read, and ascending ones are read fastest.

    The mode `device` holds the whole store there as one tensor, `memory` maps every shard once and keeps it, and
    `stream` maps the shards of the current window and, ahead of their use, those of the next one. Mapped shards are
    shared by the processes of a machine. `auto` takes the first mode that fits. All give the same batches.

    `mirror` turns latents into those of the mirrored images. Where it is given, a coin decides at each position whether
    the latent is mirrored. `balanced` (N,) is the class of each row where all classes are to be shown equally often.
    """

    def __init__(
        self,
        store: LatentStore,
        seed: int,
        device: str | torch.device = "cpu",
        mode: ReadMode = "auto",
        mirror: Callable[[Tensor], Tensor] | None = None,
        balanced: NDArray[np.int64] | None = None,
    ) -> None:
        self._store, self._device, self._mirror = store, torch.device(device), mirror
        self._order: SampleOrder | BalancedOrder = SampleOrder(len(store), seed, store.shard_rows)
        if balanced is not None:
            self._order = BalancedOrder(balanced, seed, store.shard_rows)
        self.mode = _fitting_mode(store, self._device) if mode == "auto" else mode
        self._pool = ThreadPoolExecutor(1, "latents")
        self._shards: dict[int, Future[StoredLatents]] = {}

    def rows(self, start: int, count: int) -> NDArray[np.int64]:
        """Rows of the store at positions start ... start + count - 1, (count,)."""
        return self._order.rows(start, count)

    def batch(self, start: int, count: int) -> Tensor:
        """Raw latents at these positions, (count, C, H, W) float32 on the device.

        Raises `CorruptError` naming a damaged shard.
        """
        rows = self.rows(start, count)
        if self.mode == "device":
            chosen = torch.from_numpy(rows).to(self._device, non_blocking=True)
            values, scales = self._resident
            values, scales = values[chosen], None if scales is None else scales[chosen]
        else:  # numbers are moved to the device as they are stored, which is half of the bytes or less
            values, scales = self._gather(self._at_hand(start, count), rows)
            values = values.to(self._device, non_blocking=True)
        latents = values.float()
        if scales is not None:
            latents = latents * scales.to(self._device, non_blocking=True)[:, :, None, None]
        if self._mirror:
            heads = np.flatnonzero(coins(self._order.seed, start, count))
            chosen = torch.from_numpy(heads).to(self._device, non_blocking=True)
            latents[chosen] = self._mirror(latents[chosen])
        return latents

    def _at_hand(self, start: int, count: int) -> dict[int, Future[StoredLatents]]:
        """The shards of these positions; those of the next window are requested while this one is consumed."""
        shards = self._order.shards(start, count)
        kept = self._shards if self.mode == "memory" else {s: self._shards[s] for s in shards if s in self._shards}
        for shard in shards:
            if shard not in kept:
                kept[shard] = self._pool.submit(self._store.load_shard, shard)
        self._shards = kept
        return kept

    def _gather(self, shards: dict[int, Future[StoredLatents]], rows: NDArray[np.int64]) -> _Batch:
        """Copy rows out of their shards."""
        values, scales = self._empty(len(rows), pin_memory=self._device.type == "cuda")
        out_values, out_scales = values.numpy(), None if scales is None else scales.numpy()
        for index, row in enumerate(rows.tolist()):
            shard, offset = divmod(row, self._store.shard_rows)
            stored = shards[shard].result()
            out_values[index] = stored.values[offset]
            if out_scales is not None and stored.scales is not None:
                out_scales[index] = stored.scales[offset]
        return values, scales

    def _empty(self, count: int, **options: Any) -> _Batch:
        shape, dtype = self._store.code_shape, self._store.seal["dtype"]
        values = torch.empty((count, *shape), dtype=getattr(torch, dtype), **options)
        return values, torch.empty((count, shape[0]), dtype=torch.float32, **options) if dtype == "int8" else None

    @cached_property
    def _resident(self) -> _Batch:
        """The whole store on the device."""
        values, scales = self._empty(len(self._store), device=self._device)
        for first in range(0, len(self._store), self._store.shard_rows):
            stored = self._store.load_shard(first // self._store.shard_rows)
            rows = slice(first, first + len(stored.values))
            values[rows] = torch.from_numpy(stored.values).to(self._device)
            if scales is not None and stored.scales is not None:
                scales[rows] = torch.from_numpy(stored.scales).to(self._device)
        return values, scales


def _fitting_mode(store: LatentStore, device: torch.device) -> ReadMode:
    needed = sum(entry["bytes"] for entry in store.seal["files"].values())
    copies = (
        1 if isinstance(store.path, Path) else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    )  # remote shards are not shared
    if device.type == "cuda" and needed <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]:
        return "device"
    return "memory" if copies * needed <= _SHARE_OF_MEMORY * psutil.virtual_memory().available else "stream"
