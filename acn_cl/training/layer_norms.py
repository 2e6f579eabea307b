"""LayerNorm in bf16 runs: computed in fp32, on a CPU as autocast does on CUDA."""

from typing import Any

import torch
from torch import nn


def compute_in_fp32(network: nn.Module) -> None:
    """Let every LayerNorm of ``network`` take its bf16 input as fp32, and so return fp32.

    On a CPU autocast leaves LayerNorm in bf16, and torch then sums the gradients of its weight and bias over all tokens
    in bf16 as well, where a sum takes no more notice of what is 256 times smaller than it. Those of a Mixer's last norm
    come out wrong by a third to four fifths, other parameters' by a hundredth; optimiser steps follow, and such runs
    forgot a point more than fp32 ones (``docs/results``). None of torch's other norms does so.
    """
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(_widen)


def _widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16 else x for x in inputs)
