"""The ray executor, on a loopback cluster of two nodes with a CPU each, and on one that it starts itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch

from acn_cl.errors import UserError
from acn_cl.executors.on_ray import Most, check_reachable, lack
from acn_cl.executors.table import build_executor
from acn_cl.runner import run
from acn_cl.runs.folder import read_status
from acn_cl.runs.weights import load_weights
from acn_cl.spec import Experiment
from acn_cl.training.interrupt import Interrupted

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = [
    pytest.mark.xdist_group("ray"),  # one cluster for all of them
    pytest.mark.filterwarnings("ignore"),  # Ray's own, in threads of its own
]

helpers = SimpleNamespace(**run_path(str(Path(__file__).with_name("sweeps.py"))))
LONG, Listens, same_runs, until, is_saved = (
    getattr(helpers, name) for name in ("LONG", "Listens", "same_runs", "until", "is_saved")
)


@pytest.fixture(scope="module")
def short_folder():
    """Ray's sockets lie in here, and their paths must be shorter than 108 characters."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if Path("/tmp").is_dir() else None)
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    yield folder
    if before is None:
        del os.environ["RAY_TMPDIR"]
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(short_folder):
    """Two nodes; every port is one that was free."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")  # once: workers stay with a driver
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def on_ray(cluster):
    return build_executor("ray", address=cluster.address)


def test_two_nodes_train_one_sweep_with_the_numbers_of_local_though_a_worker_is_killed(tiny, tmp_path, on_ray):
    """Ray itself would set the number of threads: it is the driver's all the same."""
    experiment = Experiment(**tiny(seeds=[0, 1, 2, 3], epochs=4, checkpoint={"every_seconds": 0}))
    killer = helpers.Kills()
    outcomes = run(experiment, tmp_path / "ray", killer, executor=on_ray)
    assert [(o.seed, o.state) for o in outcomes] == [(seed, "done") for seed in range(4)]
    assert sorted(o.seed for o in killer.ended) == [0, 1, 2, 3]
    assert any("its worker died" in line and "it goes on elsewhere" in line for line in killer.notes), killer.notes
    assert any("goes on from its checkpoint" in line for line in killer.notes), killer.notes
    run(experiment, tmp_path / "local")
    same_runs(tmp_path / "local", tmp_path / "ray")
    workers = {read_status(outcome.path).raw["pid"] for outcome in outcomes}
    assert os.getpid() not in workers and killer.victim not in workers
    raylets = {psutil.Process(pid).ppid() for pid in workers}
    assert len(raylets) == 2, "each node's workers are children of its own raylet"


def test_a_stop_has_every_worker_save(tiny, tmp_path, on_ray):
    stopper = helpers.Stops()
    with pytest.raises(Interrupted):
        run(Experiment(**tiny(seeds=[0, 1, 2], epochs=500)), tmp_path, stopper, stopper.stop, on_ray)
    status = read_status(tmp_path / "experiment/seed-0")
    assert status.state == "failed" and "interrupted" in status.error
    assert list((tmp_path / "experiment/seed-0/checkpoints").iterdir()), "what it had is saved"


TOGETHER = {
    "optimizer": {"name": "sgd", "lr": 0.1},
    "checkpoint": {"every_seconds": 0},
    "resources": {"cpus": 1, "processes": 2},
}
"""Two processes for a run, one on each node."""


def test_two_processes_on_two_nodes_train_one_run_though_one_is_killed(tiny, tmp_path, on_ray):
    """In fp32, up to what two orders of summation make of two experiences of SGD."""
    experiment = Experiment(**tiny(epochs=4, **TOGETHER))
    killer = helpers.Kills()
    (outcome,) = run(experiment, tmp_path / "ray", killer, executor=on_ray)
    assert outcome.state == "done"
    assert any("workers died" in line and "it goes on elsewhere" in line for line in killer.notes), killer.notes
    assert any("goes on from its checkpoint" in line for line in killer.notes), killer.notes
    (alone,) = run(Experiment(**tiny(epochs=4, **TOGETHER | {"resources": {"cpus": 1}})), tmp_path / "local")
    weights, others = load_weights(alone.path), load_weights(outcome.path)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-4, atol=1e-4)
    told = json.loads((outcome.path / "spec.json").read_text())
    assert (told["processes"], told["backend"], told["threads"]) == (2, "gloo", 1)


@pytest.mark.slow
def test_processes_that_train_together_stop_together(tiny, tmp_path, on_ray):
    stopper = helpers.Stops()
    with pytest.raises(Interrupted):
        run(Experiment(**tiny(seeds=[0], epochs=2000, **TOGETHER)), tmp_path, stopper, stopper.stop, on_ray)
    status = read_status(tmp_path / "experiment/seed-0")
    assert status.state == "failed" and "interrupted" in status.error
    assert is_saved(tmp_path / "experiment/seed-0")


@pytest.mark.slow
def test_what_ends_one_of_them_ends_the_run_with_its_reason(tiny, tmp_path, on_ray, monkeypatch):
    (tmp_path / "own_of_ray.py").write_text(
        "import os\nfrom acn_cl.strategies.plugin import StrategyPlugin\n\n"
        "class Fails(StrategyPlugin):\n    in_parts = True\n\n"
        "    def before_training_epoch(self, strategy, **_):\n        if os.environ['RANK'] == '1':\n"
        "            raise OSError('the disk of this machine alone is gone')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (outcome,) = run(
        Experiment(**tiny(strategy={"name": "own_of_ray:Fails"}, **TOGETHER)), tmp_path / "runs", executor=on_ray
    )
    assert outcome.state == "failed" and "the disk of this machine alone is gone" in outcome.error
    assert "the disk of this machine alone is gone" in read_status(outcome.path).error


def test_room_for_a_run_is_counted_in_processes():
    most = Most(cpus=2, gpus=0.5, processes=3)
    assert most.room({"CPU": 8, "GPU": 1}) == 2 and most.room({"CPU": 3, "GPU": 4}) == 1 and most.room({"GPU": 4}) == 0
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 64}}]
    cluster = SimpleNamespace(nodes=lambda: nodes)
    assert lack(cluster, most) == "the cluster has 2 CPUs and 0.5 GPUs for 1 of a run's 3 processes"
    nodes.append({"Alive": True, "Resources": {"CPU": 5.0, "GPU": 1.0}})
    assert lack(cluster, most) is None
    assert lack(cluster, Most(cpus=6, gpus=0, processes=1)).startswith("no node of the cluster has 6 CPUs")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_driver_that_is_ended_is_started_again_and_takes_up_what_is_left(tmp_path, cluster, number, code):
    arguments = helpers.sweep(tmp_path)
    on_ray = [*arguments, "--executor", "ray", "--address", cluster.address, "--workers", "1"]
    driver = subprocess.Popen(on_ray, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    first, second = (tmp_path / f"runs/sweep/seed-{seed}" for seed in (0, 1))
    until(lambda: is_saved(first))
    os.killpg(driver.pid, number)
    _, errors = driver.communicate(timeout=LONG)
    assert driver.returncode == code, errors.decode()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=4 * LONG)
    assert done.returncode == 0, done.stderr
    assert "goes on from its checkpoint" in done.stdout
    assert (read_status(first).state, read_status(second).state) == ("done", "done")


@pytest.mark.slow
def test_a_node_that_is_lost_costs_a_checkpoints_worth(tiny, tmp_path, cluster, on_ray):
    """The second node goes away with its workers, in the middle of a sweep."""
    experiment = Experiment(**tiny(seeds=[0, 1, 2, 3], epochs=30, checkpoint={"every_seconds": 0}))
    lost = []

    class Loses(Listens):
        def run_ended(self, outcome):
            super().run_ended(outcome)
            if not lost:
                lost.append(cluster.remove_node(cluster.second, allow_graceful=False))

    listens = Loses()
    try:
        outcomes = run(experiment, tmp_path / "ray", listens, executor=on_ray)
    finally:
        cluster.second = cluster.add_node(num_cpus=1)
    assert [o.state for o in outcomes] == ["done"] * 4
    assert any("it goes on elsewhere" in line for line in listens.notes), listens.notes
    run(experiment, tmp_path / "local")
    same_runs(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_a_whole_recipe_on_a_cluster_of_its_own(tmp_path, short_folder):
    """24 runs: every strategy kind, stacks, and runs alone, against ``local``, from the command line."""
    spec = tmp_path / "sweep.yaml"
    spec.write_text(
        "stream: {name: split-digits, class_order: fixed}\nprecision: fp32\nepochs: 2\nseeds: 0-2\n"
        "backbone: {depth: 2, width: 16, patch: 4, tokens_hidden: 8, channels_hidden: 16}\n"
        "matrix:\n  backbone.name: [ac_mixer, res_mixer]\n"
        "  strategy: [naive, {name: si, lambda: 100}, {name: ewc, lambda: 1e6}, {name: replay, memory: 60}]\n"
    )
    for executor in ("local", "ray"):
        arguments = ["run", str(spec), "--executor", executor, "--out", str(tmp_path / executor)]
        done = subprocess.run([sys.executable, "-m", "acn_cl", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "ray").glob("*/seed-*"))) == 24
    same_runs(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ray", "processes"])
def test_a_thousand_tiny_runs_leave_the_driver_as_small_as_it_was(tiny, tmp_path, cluster, name, capsys):
    """Also prints what docs/clusters.md says of them: seconds of a run beyond its training, and of the driver a run."""
    backbone = {"name": "ac_mixer", "depth": 1, "width": 8, "patch": 4, "tokens_hidden": 4, "channels_hidden": 8}
    stream = {"name": "split-digits", "stop_after": 1}
    changes = {"stream": stream, "backbone": backbone, "checkpoint": {"keep": "none"}, "batch_size": 256}
    experiment = Experiment(**tiny(seeds=list(range(1000)), **changes))
    driver, sizes = psutil.Process(), []

    class Weighs(Listens):
        def run_ended(self, outcome):
            assert outcome.state == "done", outcome.error
            sizes.append((time.monotonic(), sum(driver.cpu_times()[:2]), driver.memory_info().rss))

    options = {"address": cluster.address} if name == "ray" else {"workers": 2}
    run(experiment, tmp_path, Weighs(), executor=build_executor(name, **options))
    (began, cpu_then, small), (ended, cpu_now, large) = sizes[99], sizes[-1]
    runs = len(sizes) - 100
    training = sum(pd.read_parquet(path).seconds.sum() for path in tmp_path.rglob("timing.parquet")) / len(sizes)
    beyond, driving = 2 * (ended - began) / runs - training, (cpu_now - cpu_then) / runs
    figures = f"a run trains {training:.3f} s and takes {beyond:.3f} s beyond it, {1000 * driving:.1f} ms of the driver"
    with capsys.disabled():
        print(f"\n{name}: {figures}; {small / 1e6:.0f} MB after 100 runs, {large / 1e6:.0f} MB after {len(sizes)}")
    assert len(sizes) == 1000
    assert large - small < 20e6, "flat: less than 20 kB a run"


def test_no_workers_are_refused():
    with pytest.raises(UserError, match=r"--workers 0: at least 1 is wanted"):
        build_executor("ray", workers=0)


def test_a_cluster_that_is_not_there_is_said_in_one_line():
    """Nobody listens at port 1."""
    with pytest.raises(UserError, match=r"no Ray cluster at 127\.0\.0\.1:1: Connection refused"):
        check_reachable("127.0.0.1:1")
    check_reachable("auto")
