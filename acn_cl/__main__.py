"""The console script and ``python -m acn_cl``: the command line, with signals seen to before it is imported."""

import signal
from typing import NoReturn

from acn_cl.training.interrupt import heed, leave


def main() -> NoReturn:
    """Import the command line and call it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        heed(number, leave)
    from acn_cl.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
