"""Every exit code, and every way to stop a process, through the real command line."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acn_cl.runs.folder import RunFolder, read_status

PATIENCE = 180
SPEC = """\
name: mine
stream: {name: split-digits, stop_after: 2}
backbone: {name: ac_mixer, depth: 1, width: 8, patch: 4, tokens_hidden: 4, channels_hidden: 8}
optimizer: {name: sgd, lr: 0.01}
epochs: 2
batch_size: 128
precision: fp32
device: cpu
"""
HOOKS = '''
import os, pathlib, sys, time

def here():
    """Say that the moment has come, and stay in it until told to go."""
    pathlib.Path("marker").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ.get("STAY_IN_IMPORT_OF"):
            here()

sys.meta_path.insert(0, Finder())
'''
LAB = """
import atexit, os
from avalanche.core import SupervisedPlugin
from sitecustomize import here

class Stays(SupervisedPlugin):
    def after_training_iteration(self, strategy, **_):
        if os.environ.get("STAY_IN") == "step" and strategy.clock.train_iterations == 4:
            here()
    def state(self):
        return {}
    def load_state(self, state):
        pass

if os.environ.get("STAY_IN") == "exit":
    atexit.register(here)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a spec, a lab's strategy, and hooks that every Python process started there loads."""
    (tmp_path / "mine.yaml").write_text(SPEC)
    (tmp_path / "staying.yaml").write_text(SPEC + "strategy: {name: 'lab:Stays'}\n")
    (tmp_path / "sitecustomize.py").write_text(HOOKS)
    (tmp_path / "lab.py").write_text(LAB)
    return tmp_path


def hear_interrupts():
    """However the tests themselves were started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(place, *words, before=None, **environment):
    paths = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "acn_cl", *words],
        cwd=place,
        preexec_fn=before or hear_interrupts,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err, err
    return process.returncode, out, [line for line in err.splitlines() if not line.startswith("importing ")]


def call(place, *words, **environment):
    return end(start(place, *words, **environment))


def wait_for(path, process):
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_wrong_input_is_2_and_one_line(place):
    code, out, err = call(place, "run", "mine.yaml", "--set", "strategy=nave")
    assert (code, out) == (2, "")
    assert err == ["acn-cl: --set strategy=nave: strategy: unknown strategy 'nave'; did you mean 'naive'?"]


def test_a_fault_of_ours_is_1_and_says_how_to_see_more(place):
    (place / "sitecustomize.py").write_text("import acn_cl.recipe\nacn_cl.recipe.load_recipe = lambda *_: 1 / 0\n")
    code, _, err = call(place, "run", "mine.yaml")
    assert code == 1 and len(err) == 1
    assert re.search(r"a fault of ours: ZeroDivisionError: division by zero \(acn-cl --debug", err[0])


def test_some_runs_failed_is_3_and_the_others_are_done(place):
    (place / "mine.yaml").write_text(SPEC + "matrix: {optimizer.lr: [1e30, 0.01]}\n")
    code, _, err = call(place, "run", "mine.yaml")
    assert code == 3
    assert err == ["1 of 2 runs failed; acn-cl status runs/mine says why"]
    states = sorted(read_status(path.parent).state for path in place.rglob("status.json"))
    assert states == ["done", "failed"]


def test_a_second_process_on_one_folder_is_2_with_the_first_ones_pid_and_host(place):
    """From the first moment on, when the first one has not yet written a state."""
    first = RunFolder(place / "runs/mine/seed-0", "mine", 0)
    first.hold()
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and "cache" not in str(path)}
    code, _, err = call(place, "run", "mine.yaml", "--out", "runs", PYTHONDONTWRITEBYTECODE="1")
    assert code == 2 and len(err) == 1
    assert re.search(rf"runs/mine/seed-0 is being written by another process \(pid {os.getpid()} on \S+\)", err[0])
    after = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and "cache" not in str(path)}
    assert after == before
    first.release()


def stop_within_a_step(place, number):
    """A process that has heard a first signal in the fifth of the first experience's six steps."""
    process = start(place, "run", "staying.yaml", "--out", "runs", STAY_IN="step")
    wait_for(place / "marker", process)
    process.send_signal(number)
    lines = iter(process.stderr.readline, "")
    assert "acn-cl: saving after this step; another signal stops at once\n" in lines
    return process


def test_terminated_within_a_step_it_saves_says_so_and_goes_on_to_0(place):
    process = stop_within_a_step(place, signal.SIGTERM)
    (place / "go").touch()
    ended, _, err = end(process)
    assert (ended, err) == (143, ["acn-cl: interrupted; the same command goes on from here"])
    folder = place / "runs/mine/seed-0"
    assert read_status(folder).state == "failed" and "interrupted" in read_status(folder).error
    ended, out, err = call(place, "run", "staying.yaml", "--out", "runs")
    assert (ended, err) == (0, [])
    assert "mine seed 0: goes on from its checkpoint at experience 1, epoch 2, batch 3" in " ".join(out.split())
    assert read_status(folder).state == "done"


def test_interrupted_within_a_step_it_is_130_and_at_a_second_signal_it_stops_at_once(place):
    """The step does not end; what was saved before it still is."""
    process = stop_within_a_step(place, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert end(process)[::2] == (130, ["acn-cl: interrupted; the same command takes up what is left"])
    assert read_status(place / "runs/mine/seed-0").state == "failed"


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [("typer", signal.SIGINT, 130), ("typer", signal.SIGTERM, 143), ("torch", signal.SIGINT, 130)],
)
def test_stopped_before_anything_has_begun(place, module, number, code):
    process = start(place, "run", "mine.yaml", STAY_IN_IMPORT_OF=module)
    wait_for(place / "marker", process)
    process.send_signal(number)
    assert end(process) == (code, "", ["acn-cl: interrupted before anything was begun; the same command starts it"])
    assert not (place / "runs").exists()


def test_a_signal_while_the_process_exits_shows_nothing(place):
    process = start(place, "run", "staying.yaml", "--out", "runs", STAY_IN="exit")
    wait_for(place / "marker", process)
    process.send_signal(signal.SIGINT)
    assert end(process)[::2] == (-signal.SIGINT, []), "what was to be done is done, and the shell sees the signal"
    assert read_status(place / "runs/mine/seed-0").state == "done"


def test_a_signal_that_is_to_be_ignored_is(place):
    """As `nohup` and a script's `&` have it."""
    process = start(place, "status", "nowhere", STAY_IN_IMPORT_OF="typer", before=ignore_interrupts)
    wait_for(place / "marker", process)
    process.send_signal(signal.SIGINT)
    (place / "go").touch()
    code, _, err = end(process)
    assert code == 2 and "no such folder" in err[0]


def ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_signal_to_a_report_is_130(place):
    """Commands without a state of their own end like any program, in a line."""
    process = start(place, "report", "nowhere", STAY_IN_IMPORT_OF="pandas")
    wait_for(place / "marker", process)
    process.send_signal(signal.SIGINT)
    assert end(process)[::2] == (130, ["acn-cl: interrupted; the same command takes up what is left"])


def test_the_installed_script_is_this_entry():
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
    assert 'acn-cl = "acn_cl.__main__:main"' in project
