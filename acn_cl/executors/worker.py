"""A worker process: it takes tasks from a pipe until the pipe is closed."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection

from acn_cl.training.interrupt import StopRequest


def work(connection: Connection, card: str) -> None:
    """Train what comes through ``connection`` and send back how each task ended.

    SIGTERM, and the end of the parent process, have the task at hand saved and end it. SIGINT is the parent's to hear:
    a terminal sends it to all processes alike.

    Args:
        connection: the parent's.
        card: the GPU to use, as ``CUDA_VISIBLE_DEVICES`` names it; empty: none.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = card  # before CUDA is looked for
    stop = StopRequest()

    def ask(*_: object) -> None:
        stop.signal = signal.SIGTERM

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, ask)
    threading.Thread(target=_when_orphaned, args=(ask,), daemon=True).start()

    from acn_cl.executors.perform import end_of  # torch, after the handlers are in place

    with suppress(EOFError, OSError):  # the parent is done with us, or gone
        while stop.signal is None:
            connection.send(end_of(connection.recv(), stop))


def _when_orphaned(ask: Callable[[], None]) -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        ask()
