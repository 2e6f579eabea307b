"""Runs of a stack that a kill has left at different checkpoints go back to the last one that all of them have.

Their checkpoints are written one after the other, so a kill in between leaves some a checkpoint ahead; one that is
damaged leaves all others so. Trained on apart, they would be stacks of other widths, and a run's last bits depend on
the width.
"""

from collections.abc import Mapping, Sequence

from acn_cl.bookkeeping import Bookkeeper
from acn_cl.runs.checkpoint import BEGINNING, Checkpoint, has_saved_once, load_checkpoint_at, position_of

Starts = Mapping[int, Checkpoint | None]
"""By a run's number among the keepers: where it goes on; ``None``: it begins."""


def in_step(keepers: Sequence[Bookkeeper], starts: Starts) -> dict[int, Checkpoint | None]:
    """Where the runs go on: at one position if they were one stack and still have one in common, else as they are."""
    first = min(map(position_of, starts.values()), default=BEGINNING)
    ahead = [number for number, start in starts.items() if position_of(start) != first]
    if not ahead or any(_width(keepers[number]) != len(starts) for number in starts):
        return dict(starts)
    back = {number: load_checkpoint_at(keepers[number].folder.path, first) for number in ahead}
    if first == BEGINNING:
        reached = all(has_saved_once(keepers[number].folder.path) for number in ahead)
    else:
        reached = None not in back.values()
    if not reached:
        return dict(starts)
    for number in ahead:
        keepers[number].goes_back(back[number])
    return {**starts, **back}


def _width(keeper: Bookkeeper) -> int:
    """How many runs trained together when this one was last at work; 0: it was not."""
    written = keeper.folder.written_spec()
    return 0 if written is None else int(written.get("stack", 1))
