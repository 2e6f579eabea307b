"""Which device and which precision a run uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from acn_cl.errors import SpecError
from acn_cl.training.launch import Launch, launch


def choose_device(wanted: str) -> torch.device:
    """The device that a spec's ``device`` names; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Of several processes (torchrun) each takes a GPU of its own.

    Raises:
        SpecError: there is no such device here.
    """
    if (here := launch()).size > 1:
        return _own_device(wanted, here)
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise SpecError(("device",), f"{wanted} is not here ({count} CUDA devices); use auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SpecError(("device",), "mps is not here; use auto or cpu")
    return device


def _own_device(wanted: str, here: Launch) -> torch.device:
    """The device of one of several processes."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return torch.device("cpu")
    if wanted not in ("auto", "cuda"):
        raise SpecError(("device",), f"{here.size} processes cannot share {wanted}; use auto, cuda or cpu")
    if here.local_rank >= count:
        raise SpecError(
            ("device",),
            f"{here.local_size} processes for {count} CUDA devices; start as many, or use cpu",
        )
    return torch.device("cuda", here.local_rank)


def choose_precision(wanted: str, device: torch.device) -> str:
    """``bf16`` or ``fp32``; ``auto`` is bf16 where the hardware multiplies in it (CUDA, AVX-512 bf16, AMX).

    Raises:
        SpecError: bf16 is asked for on a CUDA device that has none.
    """
    if wanted == "fp32":
        return "fp32"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bf16" and not native:
            raise SpecError(("precision",), f"{torch.cuda.get_device_name(device)} has no bf16; use auto or fp32")
    elif device.type == "cpu":
        native = has_amx() or bool(_abilities().get("avx512_bf16"))
    else:
        native = False
    return "bf16" if wanted == "bf16" or native else "fp32"


def has_amx() -> bool:
    """Whether this CPU multiplies bf16 matrices in tiles, some 3.5 times as fast as AVX-512 bf16 does."""
    return bool(_abilities().get("amx_bf16"))


def _abilities() -> dict[str, Any]:
    """The CPU's, as torch calls them; of an older torch nothing is known."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which forward passes run."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def allow_determinism() -> None:
    """Let CUDA's matrix products be deterministic. Before the process' first one: cuBLAS looks only then."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Run a block with torch's deterministic algorithms on or off, and put them back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def fp32_products(tf32: bool) -> Iterator[None]:
    """Run a block whose fp32 products on CUDA are in TF32 (8 bits of exponent, 10 of mantissa), or are not.

    torch by itself lets convolutions be in TF32 and matrix products not, so that neither may be left to its default.
    """
    cudnn: Any = torch.backends.cudnn  # whose stubs do not know of ``conv``
    backends = torch.backends.cuda.matmul, cudnn.conv
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if tf32 else "ieee"
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
