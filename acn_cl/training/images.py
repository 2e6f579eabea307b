"""Images on the device, or on the host where they do not fit: both are indexed alike, and give the same numbers.

On the device they are one tensor. From the host, be it memory, a mapped file or encoded files, rows are gathered and
decoded by threads, a few batches ahead of the one in use, and copied from pinned memory where the device is a GPU.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acn_cl.training.launch import launch

Rows = slice | Tensor
"""Which images: a slice, or (n,) int64, on the host unless the images are a tensor."""
AHEAD = 2
"""Batches that are made ready beyond the one in use, with one thread; each more thread makes one more."""
MOST_THREADS = 16


class HostImages:
    """Images that stay on the host. Indexed like a tensor, they give a tensor on the device.

    Args:
        source: an array-like of (N, C, H, W), indexed by an integer array: numpy's own, mapped from a file, or one
            that decodes what it is asked for. Several threads read it at once.
        device: where what is asked for goes.
    """

    def __init__(self, source: Any, device: torch.device) -> None:
        self.source, self.device = source, device
        self.shape: tuple[int, ...] = tuple(source.shape)
        self._threads = _threads(device)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Tensor:
        return self._sent(self._gathered(rows))

    def ahead(self, chunks: Iterable[Rows]) -> Iterator[Tensor]:
        """The images of every chunk, in order, each made ready while earlier ones are in use."""
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(self._threads, "images") as pool:
            try:
                for chunk in chunks:
                    waiting.append(pool.submit(self._gathered, chunk))
                    if len(waiting) >= self._threads + AHEAD:
                        yield self._sent(waiting.popleft().result())
                while waiting:
                    yield self._sent(waiting.popleft().result())
            finally:  # whoever reads may have stopped
                for future in waiting:
                    future.cancel()

    def _gathered(self, rows: Rows) -> Tensor:
        """A copy of the rows in host memory, pinned where that lets the GPU fetch it by itself."""
        index = np.arange(len(self))[rows] if isinstance(rows, slice) else rows.cpu().numpy()
        images = torch.from_numpy(np.ascontiguousarray(self.source[index]))
        if self.device.type != "cuda":
            return images
        with torch.cuda.device(self.device):  # a new thread would take the first GPU into use
            return images.pin_memory()

    def _sent(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True)


Images = Tensor | HostImages
"""(N, C, H, W), uint8, or float in [0, 1] where they were corrupted."""


def placed(source: Any, device: torch.device, streamed: bool) -> Images:
    """An array-like of (N, C, H, W) as images for ``device``, left where it is if it is to be streamed."""
    return HostImages(source, device) if streamed else torch.as_tensor(source).to(device)


def ahead(images: Images, chunks: Sequence[Rows]) -> Iterator[Tensor]:
    """The images of every chunk, on the device."""
    if isinstance(images, HostImages):
        return images.ahead(chunks)
    return (images[chunk] for chunk in chunks)


def slices(count: int, size: int, share: slice = slice(None)) -> list[Rows]:
    """``count`` rows, or the ``share`` from one to another of them, in order, ``size`` at a time."""
    first, last, _ = share.indices(count)
    return [slice(start, min(start + size, last)) for start in range(first, last, size)]


def joined(parts: Sequence[Images]) -> Images:
    """One after the other; on the host if any of them is."""
    on_host = [part for part in parts if isinstance(part, HostImages)]
    if on_host:
        return HostImages(_Joined(parts), on_host[0].device)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


class _Joined:
    """Several array-likes of (N, C, H, W) as one."""

    def __init__(self, parts: Sequence[Images]) -> None:
        self._parts = [part.source if isinstance(part, HostImages) else part.cpu().numpy() for part in parts]
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])

    def __getitem__(self, rows: Any) -> Any:
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        found = None
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            images = self._parts[number][rows[places] - self._starts[number]]
            found = np.empty((len(rows), *self.shape[1:]), images.dtype) if found is None else found
            found[places] = images
        return found


def _threads(device: torch.device) -> int:
    """For reading and decoding: the cores that this process has; one where they are busy training."""
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // launch().local_size))
