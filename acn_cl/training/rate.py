"""How fast this machine multiplies matrices: what a network's step can at best reach."""

import time

import torch

REPETITIONS = 20


class MatrixProducts:
    """The matrix products of a Mixer's channel MLP: (rows, width) by (width, 4 width) and back.

    Args:
        device: where.
        precision: ``fp32`` or ``bf16``, of what is multiplied.
        rows: images times tokens.
        width: features of a token.
    """

    def __init__(self, device: torch.device, precision: str, rows: int = 64 * 64, width: int = 128) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        draws = torch.Generator().manual_seed(
            0
        )  # constants would be faster: a GPU saves power on bits that never change

        def matrix(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=draws).to(device, dtype)

        self._a, self._b, self._c = matrix(rows, width), matrix(width, 4 * width), matrix(4 * width, width)
        self._operations = REPETITIONS * 4 * rows * self._b.numel()

    def rate(self) -> float:
        """Operations a second, measured over a few milliseconds; a multiplication and an addition count as two."""
        wait(self._a.device)
        started = time.perf_counter()
        for _ in range(REPETITIONS):
            (self._a @ self._b) @ self._c
        wait(self._a.device)
        return self._operations / (time.perf_counter() - started)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
