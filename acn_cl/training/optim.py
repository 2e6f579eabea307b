"""The optimiser and the schedule that a spec names, from torch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from acn_cl.spec import OptimizerSection, ScheduleSection

CLIP_DAMPING = 1e-6  # what torch's clip_grad_norm_ adds to the norm


def make_optimizer(settings: OptimizerSection, parameters: Sequence[Tensor]) -> Optimizer:
    """A new optimiser for these parameters, with torch's defaults for what the spec does not name.

    ``fused`` updates all parameters in one kernel; on a CPU too that is the fastest of torch's implementations.
    """
    lr, decay = settings.lr, settings.weight_decay
    match settings.name:
        case "adamw":
            return AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        case "adam":
            return Adam(parameters, lr=lr, weight_decay=decay, fused=True)
        case "sgd":
            return SGD(parameters, lr=lr, weight_decay=decay, momentum=settings.momentum, fused=True)


def next_optimizer(settings: OptimizerSection, current: Optimizer | None, parameters: Sequence[Tensor]) -> Optimizer:
    """The optimiser of the next experience: new (``state: reset``), or the same with what parameters are new."""
    if current is None or settings.state == "reset":
        return make_optimizer(settings, parameters)
    group = current.param_groups[0]
    known = {id(parameter) for parameter in group["params"]}
    group["params"].extend(parameter for parameter in parameters if id(parameter) not in known)
    group["lr"] = settings.lr
    return current


def make_schedule(
    settings: ScheduleSection, optimizer: Optimizer, epochs: int, steps_per_epoch: int
) -> LRScheduler | None:
    """The learning rate of every step of one experience; ``None`` for a constant one without warm-up."""
    warmup = settings.warmup_epochs * steps_per_epoch
    steps = epochs * steps_per_epoch
    parts: list[LRScheduler] = []
    for group in optimizer.param_groups:  # a carried optimiser begins each experience's schedule at its own rate
        group.pop("initial_lr", None)
    if warmup:
        parts.append(LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup))
    if settings.name == "cosine":
        parts.append(CosineAnnealingLR(optimizer, T_max=max(1, steps - warmup), eta_min=settings.floor))
    if len(parts) < 2:
        return parts[0] if parts else None
    return SequentialLR(optimizer, parts, milestones=[warmup])


@torch.no_grad()
def clip(optimizer: Optimizer, largest: float) -> None:
    """Scale all gradients together so that their norm is at most ``largest``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, largest)


@torch.no_grad()
def clip_runs(gradients: Sequence[Tensor], largest: float) -> None:
    """As :func:`clip`, for every run of a stack by itself: gradients (R, ...), scaled in place."""
    norms_of_tensors = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    norms = torch.linalg.vector_norm(norms_of_tensors, dim=0)
    factors = (largest / (norms + CLIP_DAMPING)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
