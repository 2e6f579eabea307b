"""Fixtures that several test files share."""

import os
import signal
from pathlib import Path

import pytest

# The tests' networks are so small that a second thread costs more than it brings; set before torch is imported,
# and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whoever starts the tests in the background has them ignore Ctrl-C, and so would every process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = {
    "stream": {"name": "split-digits"},
    "backbone": {"name": "ac_mixer", "depth": 2, "width": 16, "patch": 4, "tokens_hidden": 8, "channels_hidden": 16},
    "epochs": 1,
    "batch_size": 64,
    "precision": "fp32",
    "device": "cpu",
}
"""A spec that trains in a second."""


@pytest.fixture(scope="session")
def tiny():
    """A fresh copy of the smallest useful spec, as plain values; ``tiny(epochs=2)`` changes a section."""

    def make(**changes):
        return {**{k: dict(v) if isinstance(v, dict) else v for k, v in TINY.items()}, **changes}

    return make


@pytest.fixture
def double(monkeypatch):
    """Everything in float64: what two ways to compute the same numbers differ by is then far below 1e-8."""
    import torch

    from acn_cl.benchmarks.streams.transforms import BatchTransform

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    plain = BatchTransform.evaluate
    monkeypatch.setattr(BatchTransform, "evaluate", lambda self, images: plain(self, images).double())
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data sets; a test that needs it is skipped where there is none."""
    folder = os.environ.get("ACN_CL_DATA")
    if not folder or not Path(folder.split(os.pathsep)[0]).is_dir():
        pytest.skip("ACN_CL_DATA names no folder of real data sets")
    return Path(folder.split(os.pathsep)[0])


@pytest.fixture
def stopped():
    """``stopped(experiment, out, epochs)``: a run that is interrupted after so many epochs, as a signal would do it."""
    from acn_cl.runner import Quiet, run
    from acn_cl.training.interrupt import Interrupted, StopRequest

    class Stopper(Quiet):
        def __init__(self, stop, epochs):
            self.stop, self.left = stop, epochs

        def epoch_done(self, experience, epoch, loss):
            self.left -= 1
            if self.left == 0:
                self.stop.signal = signal.SIGINT

    def stop(experiment, out, epochs):
        request = StopRequest()
        with pytest.raises(Interrupted):
            run(experiment, out, Stopper(request, epochs), request)

    return stop


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Call the console script in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACN_CL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def call(*arguments):
        from acn_cl.cli import main

        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call
