"""What goes wrong around a run ends that run, with its reason, and no other."""

import contextlib
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avalanche.core import SupervisedPlugin

from acn_cl.errors import UserError
from acn_cl.recipe import Planned, Recipe
from acn_cl.runner import Quiet, run
from acn_cl.runs.folder import read_status
from acn_cl.spec import Experiment

SAME_SIZES = {"name": "split-digits", "stop_after": 2, "class_order": "fixed"}
"""Of every seed, so that runs can be stacked."""


class Fails(SupervisedPlugin):
    """Runs ``fault`` when it meets the second experience, in the first run only."""

    fault = None
    met = 0

    def before_training_epoch(self, strategy, **_):
        if strategy.experience.current_experience == 1:
            type(self).met += 1
            if self.met == 1:
                type(self).fault()


@pytest.fixture
def failing(tiny, monkeypatch):
    """An experiment of two seeds whose first run meets a fault."""
    monkeypatch.setitem(sys.modules, "test_faults_names", sys.modules[__name__])

    def make(fault):
        Fails.fault, Fails.met = staticmethod(fault), 0
        stream = {"name": "split-digits", "stop_after": 2}
        return Experiment(**tiny(strategy={"name": "test_faults_names:Fails"}, stream=stream, seeds=[0, 1]))

    return make


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "OutOfMemoryError: CUDA out of memory"),
        (MemoryError(), "MemoryError"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ZeroDivisionError("one\nof\nours"), "ZeroDivisionError: one of ours"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_in_one_run_is_its_reason_and_the_next_goes_on(failing, tmp_path, error, reason):
    outcomes = run(failing(lambda: raise_(error)), tmp_path)
    assert [o.state for o in outcomes] == ["failed", "done"]
    status = read_status(tmp_path / "experiment/seed-0")
    assert reason in status.error and "\n" not in status.error
    assert ("traceback" in status.raw) == isinstance(error, ZeroDivisionError), "only a fault of ours shows its insides"


class Once(Quiet):
    """Runs ``fault`` when the first experience is learned and saved: once, whatever trains, alone or in a stack."""

    def __init__(self, fault):
        self.fault, self.left = fault, 1

    def experience_done(self, experience, results):
        if self.left:
            self.left = 0
            self.fault()


@pytest.fixture(params=["avalanche", "stacked"])
def two_seeds(request, tiny):
    """An experiment of two seeds, by each engine."""
    return Experiment(**tiny(stream=SAME_SIZES, seeds=[0, 1], engine=request.param))


def test_a_folder_that_vanishes_ends_its_run(two_seeds, tmp_path):
    first = tmp_path / "experiment/seed-0"
    outcomes = run(two_seeds, tmp_path, Once(lambda: shutil.rmtree(first)))
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert "seed-0" in outcomes[0].error and "No such file or directory" in outcomes[0].error
    assert not first.exists(), "what somebody removed is not made again behind their back"
    assert [o.state for o in run(two_seeds, tmp_path)] == ["done", "skipped"]


@contextlib.contextmanager
def mounted(*arguments, at):
    """A mount of this test's own, which is gone afterwards whatever happens; skips where nobody may mount."""
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_a_folder_that_becomes_read_only_ends_its_run(two_seeds, tmp_path):
    """Root may write where the mode forbids it; through a read-only mount nobody can."""
    first = tmp_path / "experiment/seed-0"
    with contextlib.ExitStack() as mounts:

        def close():
            mounts.enter_context(mounted("--bind", str(first), at=first))
            subprocess.run(["mount", "-o", "remount,bind,ro", str(first)], check=True)

        outcomes = run(two_seeds, tmp_path, Once(close))
        assert [o.state for o in outcomes] == ["failed", "done"]
        assert "Read-only file system" in outcomes[0].error and "cannot be written" in outcomes[0].error
        assert read_status(first).state == "died", "its state could not be written any more"
        (again, _) = run(two_seeds, tmp_path)
        assert again.state == "failed" and "Read-only file system" in again.error
    assert [o.state for o in run(two_seeds, tmp_path)] == ["done", "skipped"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_an_error_of_the_file_system_ends_its_run(two_seeds, tmp_path, monkeypatch, number):
    """The same where nothing can be mounted: every write into one run's folder fails from some moment on."""
    broken = []

    def replace(self, target, original=Path.replace):
        if broken and "seed-0" in str(target):
            raise OSError(number, os.strerror(number), str(target))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    outcomes = run(two_seeds, tmp_path, Once(lambda: broken.append(True)))
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert os.strerror(number) in outcomes[0].error
    assert not list(tmp_path.rglob("*.part"))
    broken.clear()
    assert [o.state for o in run(two_seeds, tmp_path)] == ["done", "skipped"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", at=disk):
        yield disk


def fill_up(path):
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


def test_a_full_disk_ends_its_run_and_the_next_goes_on_when_there_is_room(failing, small_disk):
    class MakesRoom(Quiet):
        def run_ended(self, outcome):
            (small_disk / "filler").unlink(missing_ok=True)

    outcomes = run(failing(lambda: fill_up(small_disk / "filler")), small_disk / "runs", MakesRoom())
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert "No space left" in outcomes[0].error
    assert read_status(small_disk / "runs/experiment/seed-0").state in ("died", "failed")
    assert not list((small_disk / "runs").rglob("*.part")), "nothing half-written stays"
    json.loads((small_disk / "runs/experiment/seed-0/status.json").read_text())
    again = run(failing(lambda: None), small_disk / "runs")
    assert [o.state for o in again] == ["done", "skipped"]


def test_a_full_disk_ends_a_stack_which_goes_on_when_there_is_room(tiny, small_disk):
    """All runs of the stack write there, so all of them end; the last checkpoint was written before."""
    experiment = Experiment(**tiny(stream=SAME_SIZES, seeds=[0, 1], engine="stacked"))
    filler = small_disk / "filler"
    outcomes = run(experiment, small_disk / "runs", Once(lambda: fill_up(filler)))
    assert [o.state for o in outcomes] == ["failed", "failed"]
    assert all("No space left" in o.error for o in outcomes)
    filler.unlink()
    said = []
    display = Quiet()
    display.note = said.append
    assert [o.state for o in run(experiment, small_disk / "runs", display)] == ["done", "done"]
    assert sum("goes on from its checkpoint at experience 2" in line for line in said) == 2


def test_a_read_only_disk_is_told_before_anything_runs(tiny, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        run(Experiment(**tiny()), small_disk / "runs")


@pytest.mark.parametrize("engine", ["avalanche", "stacked"])
@pytest.mark.parametrize(("rate", "says"), [(1e30, "optimizer.lr"), (1e4, "optimizer.lr")], ids=["nan", "explodes"])
def test_a_loss_that_is_no_number_or_explodes_ends_its_run_alone(tiny, tmp_path, engine, rate, says):
    spec = tiny(seeds=[0, 1], engine=engine, optimizer={"name": "sgd", "lr": rate, "momentum": 0.9}, epochs=3)
    spec["stream"] = SAME_SIZES
    sane = Experiment(**spec | {"name": "sane", "optimizer": {"name": "sgd", "lr": 0.01}})
    wild = Experiment(**spec | {"name": "wild"})
    recipe = Recipe("two", "", tuple(Planned(one.name, {}, one) for one in (wild, sane)))
    outcomes = run(recipe, tmp_path)
    assert [(o.experiment, o.state) for o in outcomes] == [("wild", "failed")] * 2 + [("sane", "done")] * 2
    for outcome in outcomes[:2]:
        assert says in outcome.error and "experience 0" in outcome.error
        assert read_status(outcome.path).error == outcome.error


@pytest.mark.parametrize("engine", ["avalanche", "stacked"])
def test_a_screen_that_is_gone_costs_nothing(tiny, tmp_path, engine):
    """`acn-cl run … | head`, a terminal that was closed."""

    class Gone:
        def __getattr__(self, _):
            return lambda *_: raise_(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    outcomes = run(Experiment(**tiny(seeds=[0, 1], engine=engine)), tmp_path, Gone())
    assert [o.state for o in outcomes] == ["done", "done"]


def test_an_interruption_that_cannot_be_written_down_is_still_an_interruption(tiny, tmp_path, monkeypatch):
    """Ctrl-C on a full disk."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Interrupts(Quiet):
        def epoch_done(self, experience, epoch, loss):
            monkeypatch.setattr("acn_cl.runs.folder.write_json", full)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Experiment(**tiny()), tmp_path, Interrupts())
    assert read_status(tmp_path / "experiment/seed-0").state == "died"


def test_memory_that_runs_out_for_real(tmp_path):
    """A limit a little above what torch needs, and a batch that does not fit into it."""
    code = (
        "import resource, sys\n"
        "import acn_cl.runner\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000,) * 2)\n"
        "from acn_cl import Experiment, run\n"
        "stream = {'name': 'split-digits', 'experiences': 2, 'stop_after': 1}\n"
        "spec = dict(stream=stream, batch_size=700, epochs=1, precision='fp32')\n"
        "big = Experiment(**spec, name='big', backbone={'name': 'res_mixer', 'patch': 1, 'width': 512, 'depth': 12})\n"
        "small = Experiment(**spec, name='small', backbone={'name': 'res_mixer', 'patch': 4, 'width': 8, 'depth': 1})\n"
        "print([run(e, sys.argv[1])[0] for e in (big, small)])\n"
    )
    if not Path("/proc/self/statm").exists() or not hasattr(resource, "RLIMIT_AS"):
        pytest.skip("memory cannot be limited here")
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_status(tmp_path / "big/seed-0").state == "failed"
    assert (
        "alloc" in read_status(tmp_path / "big/seed-0").error or "Memory" in read_status(tmp_path / "big/seed-0").error
    )
    assert read_status(tmp_path / "small/seed-0").state == "done"
