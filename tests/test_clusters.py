"""The scripts of docs/clusters.md, as far as a machine without Slurm and Kubernetes can run them."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from acn_cl.cli import main
from acn_cl.runs.folder import read_status

SCRIPTS = Path(__file__).resolve().parents[1] / "docs" / "cluster"
SPEC = (
    "stream: {name: split-digits, stop_after: 1}\nprecision: fp32\nepochs: 1\nseeds: 0-4\n"
    "backbone: {name: ac_mixer, depth: 1, width: 8, patch: 4, tokens_hidden: 4, channels_hidden: 8}\n"
)


@pytest.fixture
def batch_system(tmp_path):
    """What a batch system would give a script: its variables, and commands of its that run everything right here."""
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    folder = Path(sys.executable).parent
    (tools / "activate").write_text(f'PATH="{tools}:{folder}:$PATH"\n')
    programs = {
        "acn-cl": f'exec "{sys.executable}" -m acn_cl "$@"',
        "scontrol": 'printf "127.0.0.1\\n127.0.0.1\\n"',
        "srun": 'while [[ "$1" == -* ]]; do [[ "$1" == -w ]] && shift; shift; done; exec "$@"',
        "hostname": "echo 127.0.0.1",
    }
    for name, text in programs.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tools / name).chmod(0o755)
    spec = tmp_path / "recipe.yaml"
    spec.write_text(SPEC)
    variables = {
        "ACN_CL_VENV": str(tmp_path / "venv"),
        "SLURM_CPUS_PER_TASK": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def submit(script, **more):
        return subprocess.Popen(
            ["bash", str(SCRIPTS / script), str(spec), str(tmp_path / "runs")],
            env=os.environ | variables | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return submit


def states(runs):
    return {path.parent.name: read_status(path.parent).state for path in runs.rglob("status.json")}


def test_an_array_of_jobs_trains_every_run_once(batch_system, tmp_path):
    jobs = [
        batch_system("slurm-array.sbatch", SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT="2") for task in (1, 2)
    ]
    outputs = [job.communicate(timeout=240)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert states(tmp_path / "runs") == {f"seed-{seed}": "done" for seed in range(5)}
    trained = [[seed for seed in range(5) if f"seed {seed}: done" in output] for output in outputs]
    assert trained == [[0, 2, 4], [1, 3]]


def end_all_with(variable, value):
    """End the processes in whose environment a variable has a value."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == value:
                process.kill()


@pytest.mark.slow
def test_a_job_on_two_nodes_starts_ray_and_trains_everything(batch_system, tmp_path):
    """Two nodes that are this machine twice; what Slurm does at the end of a job is done here by hand."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    number = str(os.getpid())
    job = batch_system("slurm-ray.sbatch", SLURM_JOB_ID=number, SLURM_JOB_NODELIST="two")
    try:
        job.wait(timeout=600)  # not for the nodes, which hold its output open until Slurm would end them
    finally:
        end_all_with("RAY_TMPDIR", f"/tmp/ray-{number}")
        shutil.rmtree(f"/tmp/ray-{number}", ignore_errors=True)
    output = job.communicate(timeout=60)[0]
    assert job.returncode == 0, output
    assert states(tmp_path / "runs") == {f"seed-{seed}": "done" for seed in range(5)}


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sbatch")), ids=lambda path: path.name)
def test_the_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True).stderr == ""


def test_the_job_of_kuberay_is_what_the_operator_reads(monkeypatch):
    """By the fields of its RayJob (ray.io/v1), and by the command line that stands in it."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    job = yaml.safe_load((SCRIPTS / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1
    arguments = job["spec"]["entrypoint"].split()
    arguments[2] = "quick"
    with pytest.raises(SystemExit) as ended:
        main([*arguments[1:], "--dry-run"])
    assert ended.value.code == 0
