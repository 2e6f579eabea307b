"""Executors with workers of their own: the numbers of ``local``, whatever happens to a worker or to the driver."""

import json
import os
import signal
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import psutil
import pytest
import torch

from acn_cl.errors import UserError
from acn_cl.executors.drive import RETRIES, drive
from acn_cl.executors.local import Local
from acn_cl.executors.planning import tasks_of, together
from acn_cl.executors.processes import Processes, ProcessPool
from acn_cl.executors.table import build_executor
from acn_cl.executors.task import Died, Ended, Job, Task
from acn_cl.recipe import Planned, Recipe
from acn_cl.runner import Quiet, run
from acn_cl.runs.folder import RunFolder, read_status
from acn_cl.share import Share
from acn_cl.spec import Experiment
from acn_cl.training.interrupt import Interrupted, StopRequest

helpers = SimpleNamespace(**run_path(str(Path(__file__).with_name("sweeps.py"))))
LONG, Listens, same_runs, until, is_saved = (
    getattr(helpers, name) for name in ("LONG", "Listens", "same_runs", "until", "is_saved")
)


def two_kinds(tiny, **changes):
    """A recipe of single runs through Avalanche's call-backs and of a stack."""
    alone = {"name": "alone", "strategy": {"name": "replay", "memory": 50}, "resources": {"cpus": 2}}
    stack = {"name": "stack", "engine": "stacked", "stream": {"name": "split-digits", "class_order": "fixed"}}
    experiments = [Experiment(**tiny(**(kind | changes))) for kind in (alone, stack)]
    return Recipe("two", "", tuple(Planned(one.name, {}, one) for one in experiments))


def test_processes_give_the_numbers_of_local_though_a_worker_is_killed(tiny, tmp_path):
    """The run that it had goes on from its checkpoint; nothing is lost, and nothing is done twice."""
    recipe = two_kinds(tiny, seeds=[0, 1], epochs=2, checkpoint={"every_seconds": 0})
    killer = helpers.Kills()
    outcomes = run(recipe, tmp_path / "processes", killer, executor=Processes(2))
    ids = [("alone", 0), ("alone", 1), ("stack", 0), ("stack", 1)]
    assert [(o.experiment, o.seed, o.state) for o in outcomes] == [(*one, "done") for one in ids]
    assert sorted((o.experiment, o.seed) for o in killer.ended) == ids
    assert any("signal 9; it goes on elsewhere" in line for line in killer.notes), killer.notes
    assert any("goes on from its checkpoint" in line for line in killer.notes), killer.notes
    assert killer.victim not in {read_status(o.path).raw["pid"] for o in outcomes}
    run(recipe, tmp_path / "local")
    same_runs(tmp_path / "local", tmp_path / "processes")
    alone, stack = (json.loads((tmp_path / f"local/{n}/seed-0/spec.json").read_text()) for n in ("alone", "stack"))
    assert (alone["threads"], alone["stack"], stack["stack"]) == (2, 1, 2)
    assert stack["threads"] == torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"]), "as it was"


class DeadlyPool:
    """A pool whose workers die of every task of one seed."""

    most = 2

    def __init__(self, deadly):
        self.deadly, self.tasks, self.sent = deadly, [], []

    def send(self, task):
        assert len(self.tasks) < self.most
        self.tasks.append(task)
        self.sent.append(task.jobs[0].seed)

    def wait(self, seconds):
        tasks, self.tasks = self.tasks, []
        return [(task, Died("signal 9") if task.jobs[0].seed == self.deadly else self.ended(task)) for task in tasks]

    def ended(self, task):
        return Ended(tuple(job.failed("stands for an end") for job in task.jobs))

    def stop(self):
        raise AssertionError("nobody asked")


def test_a_task_that_kills_every_worker_fails_and_the_others_go_on(tiny, tmp_path):
    planned = Planned("experiment", {}, Experiment(**tiny()))
    units = together([Job(planned, seed, tmp_path / str(seed)) for seed in range(5)])
    pool = DeadlyPool(deadly=1)
    ends = list(drive(pool, tasks_of(units, 0), Listens(), StopRequest()))
    assert pool.sent.count(1) == RETRIES + 1 and len(pool.sent) == RETRIES + 5
    errors = {outcome.seed: outcome.error for end in ends for outcome in end.outcomes}
    assert errors[1] == "its worker died 4 times; the last time: signal 9"
    assert sorted(errors) == [0, 1, 2, 3, 4] and len(ends) == 5


def test_a_stop_has_every_worker_save_and_any_executor_takes_up_what_is_left(tiny, tmp_path):
    experiment = Experiment(**tiny(seeds=[0, 1], epochs=8))
    stopper = helpers.Stops()
    with pytest.raises(Interrupted):
        run(experiment, tmp_path / "processes", stopper, stopper.stop, Processes(1))
    status = read_status(tmp_path / "processes/experiment/seed-0")
    assert status.state == "failed" and "interrupted" in status.error
    assert list((tmp_path / "processes/experiment/seed-0/checkpoints").iterdir()), "what it had is saved"
    assert not (tmp_path / "processes/experiment/seed-1").exists()
    assert [(o.state, o.error) for o in run(experiment, tmp_path / "processes")] == [("done", None)] * 2
    run(experiment, tmp_path / "local")
    same_runs(tmp_path / "local", tmp_path / "processes")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_driver_that_is_ended_leaves_nobody_behind_and_is_started_again(tmp_path, number, code):
    """SIGINT as a terminal sends it, to the whole group of processes."""
    arguments = helpers.sweep(tmp_path)
    by_workers = [*arguments, "--executor", "processes", "--workers", "1"]
    driver = subprocess.Popen(by_workers, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    first, second = (tmp_path / f"runs/sweep/seed-{seed}" for seed in (0, 1))
    until(lambda: is_saved(first))
    worker = psutil.Process(read_status(first).raw["pid"])
    if number == signal.SIGINT:
        os.killpg(driver.pid, number)
    else:
        driver.send_signal(number)
    _, errors = driver.communicate(timeout=LONG)
    assert driver.returncode == code
    if code > 0:
        assert b"interrupted; the same command goes on from here" in errors
        assert not worker.is_running()
        assert "interrupted" in read_status(first).error
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=4 * LONG)
    assert done.returncode == 0, done.stderr
    assert "seed 0: goes on from its checkpoint" in done.stdout
    assert (read_status(first).state, read_status(second).state) == ("done", "done")
    assert psutil.wait_procs([worker], timeout=LONG)[1] == []


def test_a_run_that_another_process_works_on_is_refused_before_anything_begins(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("acn_cl.folders.WAIT_AT_START", 0.2)
    held = RunFolder(tmp_path / "experiment/seed-1", "experiment", 1)
    held.hold()
    held.write_status("running", {})
    with pytest.raises(UserError, match=rf"seed-1 is being written by another process \(pid {os.getpid()} on "):
        run(Experiment(**tiny(seeds=[0, 1])), tmp_path, executor=Processes(1))
    assert not (tmp_path / "experiment/seed-0").exists()


def test_a_run_that_is_taken_later_fails_alone_and_is_not_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("acn_cl.folders.WAIT_FOR_LOCK", 0.2)
    held = RunFolder(tmp_path / "experiment/seed-1", "experiment", 1)

    class Takes(Quiet):
        def run_started(self, *_):
            if not held.is_begun():
                held.hold()

    outcomes = run(Experiment(**tiny(seeds=[0, 1, 2])), tmp_path, Takes())
    assert [o.state for o in outcomes] == ["done", "failed", "done"]
    assert "is being written by another process" in outcomes[1].error
    assert not (tmp_path / "experiment/seed-1/status.json").exists()


def test_a_share_trains_its_runs_alone(tiny, tmp_path):
    experiment = Experiment(**tiny(seeds=[0, 1, 2]))
    assert [o.seed for o in run(experiment, tmp_path, only=Share(1, 2))] == [0, 2]
    assert not (tmp_path / "experiment/seed-1").exists()
    assert [(o.seed, o.state) for o in run(experiment, tmp_path, only=Share(2, 2))] == [(1, "done")]
    assert run(experiment, tmp_path, only=Share(4, 4)) == []


def test_workers_are_given_a_card_each_or_share_it(monkeypatch):
    """No process is started: what a worker is told to use."""
    told = []
    monkeypatch.setattr("acn_cl.executors.processes._Worker._start", lambda worker: told.append(worker._card))
    for count, cards, gpus in ((4, ["0", "1"], 0.5), (2, ["3", "5"], 1.0), (3, ["0", "1"], 1.0), (2, [], 0.0)):
        told.append(ProcessPool(count, cards, gpus) and "-")
    assert told == [*"0011", "-", *"35", "-", *"010", "-", "", "", "-"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("processes", {"workers": 0}, "--workers 0: at least 1 is wanted"),
        ("local", {"workers": 2}, "--workers: executor local does not take it"),
        ("processes", {"address": "auto"}, "--address: executor processes does not take it"),
        ("process", {}, "did you mean 'processes'"),
    ],
)
def test_what_an_executor_cannot_be_asked_for(name, options, message):
    with pytest.raises(UserError, match=message):
        build_executor(name, **options)


@pytest.mark.parametrize("executor", [Local(), Processes(1)])
def test_several_processes_for_a_run_are_refused_by_whoever_cannot_start_them(tiny, tmp_path, executor):
    with pytest.raises(UserError, match=r"2 processes train a run together with --executor ray, or under torchrun"):
        run(Experiment(**tiny(resources={"processes": 2})), tmp_path, executor=executor)
    assert not list(tmp_path.glob("experiment/*"))


def test_what_does_not_go_with_several_processes_is_refused_before_they_are_started(tiny, tmp_path):
    with pytest.raises(UserError, match="replay"):
        run(Experiment(**tiny(strategy={"name": "replay"}, resources={"processes": 2})), tmp_path)


def test_one_card_by_its_number_is_refused(tiny, tmp_path):
    """No GPU is needed to see that every worker would want the same one."""
    planned = Planned("experiment", {}, Experiment(**tiny(device="cuda:1")))
    task = Task((Job(planned, 0, tmp_path),), (1, 1), 1, 1.0, 1.0)
    with pytest.raises(UserError, match="cuda:1 is one card, and every worker has its own; use cuda or auto"):
        next(Processes(1).run([task], Quiet(), StopRequest()))
