"""LayerNorm in bf16 runs: computed in fp32, on a CPU as autocast does on CUDA."""

from typing import Any

import torch
from torch import nn


def compute_in_fp32(network: nn.Module) -> None:
    """Let every LayerNorm of ``network`` take its bf16 input as fp32, and so return fp32.

    On a CPU autocast leaves LayerNorm in bf16, and torch then sums the gradients of its weight and bias over all tokens
    in bf16 as well, whose additions stop counting once the sum is 256 times as large as they: those of the last norm of
    a Mixer come out wrong by a third to four fifths, those of other parameters by a hundredth. Optimiser steps follow it, and bf16 runs forgot a point more than fp32 ones. Of torch's other norms none does so.
    """
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_pre_hook(_widen)


def _widen(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16 else x for x in inputs)
