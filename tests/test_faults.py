"""What goes wrong around a run ends that run, with its reason, and no other."""

import contextlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from avalanche.core import SupervisedPlugin

from acn_cl.errors import UserError
from acn_cl.runner import run
from acn_cl.runs.folder import read_status
from acn_cl.spec import Experiment


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


def test_a_folder_that_vanishes_ends_its_run(failing, tmp_path):
    outcomes = run(failing(lambda: shutil.rmtree(tmp_path / "experiment/seed-0")), tmp_path)
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert "seed-0" in outcomes[0].error


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=False)


def test_a_full_disk_ends_its_run_and_the_next_goes_on_when_there_is_room(failing, small_disk):
    def fill():
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    class MakesRoom:
        def run_ended(self, outcome):
            (small_disk / "filler").unlink(missing_ok=True)

        def __getattr__(self, _):
            return lambda *_: None

    outcomes = run(failing(fill), small_disk / "runs", MakesRoom())
    assert [o.state for o in outcomes] == ["failed", "done"]
    assert "No space left" in outcomes[0].error
    assert read_status(small_disk / "runs/experiment/seed-0").state in ("died", "failed")
    assert not list((small_disk / "runs").rglob("*.part")), "nothing half-written stays"
    json.loads((small_disk / "runs/experiment/seed-0/status.json").read_text())


def test_a_read_only_disk_is_told_before_anything_runs(tiny, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        run(Experiment(**tiny()), small_disk / "runs")


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
