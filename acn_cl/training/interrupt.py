"""What a signal does: stop between two steps with everything saved, or leave at once where nothing has begun."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """A run was asked to stop, and what it has is saved. ``signal``: the number of the signal that asked."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__("interrupted; the same command goes on from here")


class Terminated(SystemExit):
    """SIGTERM came where nothing is to be saved, or came twice."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def heed(number: int, handler: Any) -> None:
    """Have a signal handled, unless whoever started the process has it ignored: ``nohup``, a script's ``&``."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, handler)


class StopRequest:
    """Whether somebody has asked to stop; looked at after every step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def asked(self) -> int | None:
        """The number of the signal that asked, if one has."""
        return self.signal

    def check(self) -> None:
        """Raise :class:`Interrupted` if so."""
        if (number := self.asked()) is not None:
            raise Interrupted(number)


@contextmanager
def stop_on_signals(patient: bool = False) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop; only in the main thread, as Python has it.

    Args:
        patient: a second signal says what the first did; otherwise it ends the process as if nobody had asked.
    """
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def ask(number: int, _: FrameType | None) -> None:
        request.signal = number
        if patient:
            return
        for each in numbers:
            heed(each, before[each])
        os.write(2, b"acn-cl: saving after this step; another signal stops at once\n")

    for number in numbers:
        heed(number, ask)
    try:
        yield request
    finally:
        for number in numbers:
            heed(number, before[number])


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """While modules are imported: end the process with a line and 130 or 143.

    An exception would surface anywhere in other people's import code, which may swallow it or show its insides.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        heed(number, leave)
    try:
        yield
    finally:
        for number in numbers:
            heed(number, before[number])


def leave(number: int, _: FrameType | None) -> None:
    """A signal's handler: nothing has begun, so nothing is tidied up."""
    os.write(2, b"acn-cl: interrupted before anything was begun; the same command starts it\n")
    os._exit(128 + number)
