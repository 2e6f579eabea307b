"""Several processes that train one run together, each on its share of every batch (torchrun).

Gradients are averaged by torch's DistributedDataParallel: nccl on GPUs, gloo on CPUs. What processes have to agree on,
a stop, whether it is time to save, is agreed on the hosts, so that no GPU is waited for.
"""

import atexit
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from acn_cl.errors import UserError
from acn_cl.training.interrupt import StopRequest
from acn_cl.training.launch import Launch, launch
from acn_cl.training.parts import share_of

T = TypeVar("T")
PATIENCE = timedelta(hours=1)
"""How long the others wait for one: decoding a data set for the first time is the longest wait."""
_LOST = ("Connection closed", "Connection reset", "Broken pipe", "NCCL", "Gloo", "gloo")
"""What torch's errors say when another process is gone."""


class FirstFailed(Exception):
    """What the first process was to do for all has failed there, which says why."""


class World:
    """The processes that train together; alone, a process is a world of its own, and everything here is trivial.

    Args:
        here: which of them this is.
        hosts: the group for tensors on the CPU; ``None``: the default one takes them.
    """

    def __init__(self, here: Launch | None = None, hosts: "dist.ProcessGroup | None" = None) -> None:
        here = here or Launch()
        self.rank, self.size = here.rank, here.size
        self._hosts = hosts

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def shared(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def share(self, count: int) -> tuple[slice, float]:
        """Which of ``count`` images are this process's, and their weight in the mean over all."""
        return share_of(count, self.rank, self.size)

    def on_first(self, action: Callable[[], T]) -> T:
        """Have the first process do something; the others wait for it and get its result.

        Raises:
            UserError: the first process raised one.
            FirstFailed: it raised something else; in the first process itself, that.
        """
        if not self.shared:
            return action()
        if not self.first:
            return _taken(*self._told(None))  # type: ignore[no-any-return]
        try:
            result = action()
        except Exception as error:
            self._told((type(error) if isinstance(error, UserError) else FirstFailed, str(error)))
            raise
        self._told((None, result))
        return result

    def _told(self, outcome: Any) -> Any:
        """What the first process tells; the others' own is not looked at."""
        outcomes = [outcome]
        dist.broadcast_object_list(outcomes, group=self._hosts, device=torch.device("cpu"))
        return outcomes[0]

    def largest(self, value: int) -> int:
        """The largest of the processes' values; agreed on the hosts."""
        if not self.shared:
            return value
        values = torch.tensor(value)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._hosts)
        return int(values)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.shared:
            dist.all_reduce(tensor, group=self._hosts if tensor.device.type == "cpu" else None)
        return tensor

    def mean(self, tensors: Sequence[Tensor], weight: float) -> list[Tensor]:
        """The mean over all processes, each with its weight, in one exchange."""
        total = self.sum(torch.cat([tensor.flatten() for tensor in tensors]).mul_(weight))
        parts = torch.split(total, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def averaging(self, network: nn.Module) -> nn.Module:
        """The network for training steps: its gradients come out as the mean over processes."""
        return DistributedDataParallel(network, find_unused_parameters=True) if self.shared else network


def without_averaging(network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
    """Within it, gradients of ``World.averaging``'s network add up in each process and wait to be averaged."""
    return network.no_sync() if wanted and isinstance(network, DistributedDataParallel) else nullcontext()


def _taken(error: type[Exception] | None, value: Any) -> Any:
    if error is None:
        return value
    raised = error.__new__(error)  # whatever its constructor wants: the message is made already
    Exception.__init__(raised, value)
    raise raised


class SharedStop(StopRequest):
    """A stop that all processes make at the same step, whichever of them was asked.

    Args:
        own: what this process was asked.
        world: the others. :meth:`asked` has to be called by all of them alike.
    """

    def __init__(self, own: StopRequest, world: World) -> None:
        super().__init__()
        self._own, self._world = own, world

    def asked(self) -> int | None:
        if self.signal is None:
            self.signal = self._world.largest(self._own.asked() or 0) or None
        return self.signal


def join() -> World:
    """The world that torchrun has started this process in. It is left when the process ends.

    Not earlier: torchrun's store still knows the group that was left, and a second one would wait for it for ever.
    """
    here = launch()
    if here.size == 1:
        return World()
    if not dist.is_initialized():
        gpus = torch.cuda.is_available()
        if gpus:
            torch.cuda.set_device(here.local_rank % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    if "cpu:gloo" in dist.get_backend_config():
        return World(here)
    hosts = dist.new_group(backend="gloo")
    assert isinstance(hosts, dist.ProcessGroup)  # of all processes, so this one is in it
    return World(here, hosts)


def backend_of(device: torch.device) -> str:
    """What carries a device's gradients from process to process."""
    return "nccl" if device.type == "cuda" else "gloo"


def lost_another(error: BaseException) -> bool:
    """Whether an error says no more than that another process is gone."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
