"""The real command line, as a user meets it: exit codes, one clear line, nothing half made."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SPEC = """\
stream: {name: split-digits}
backbone: {name: ac_mixer, depth: 1, width: 8, patch: 4, tokens_hidden: 4, channels_hidden: 8}
epochs: 1
batch_size: 128
precision: fp32
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC)
    return path


def test_run_then_status_then_report(cli, spec, tmp_path):
    code, out, _ = cli("run", "mine.yaml", "--seeds", "0-1", "--out", "there", "--report")
    assert code == 0
    report = Path(re.search(r"report: (\S+report\.html)", out)[1])
    assert report.is_file()
    assert "mine" in out and "±" in out, "the table of results, over two seeds"
    code, out, _ = cli("status", "there")
    assert code == 0 and "2 done" in out
    code, out, _ = cli("run", "mine.yaml", "--seeds", "0-1", "--out", "there")
    assert code == 0 and "done before" in out
    code, out, _ = cli("report", "there", "--out", "elsewhere")
    assert code == 0
    assert {"report.html", "results.csv", "results.md"} <= {p.name for p in (tmp_path / "elsewhere").iterdir()}


def test_a_dry_run_says_what_would_run_and_makes_nothing(cli, spec, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, _ = cli("run", "mine.yaml", "--dry-run", "--set", "stream.stop_after=2")
    assert code == 0
    # 1442 training images of 10 classes: 288 in 2 classes, 3 batches of 128, 2 experiences, 1 epoch.
    assert re.search(r"mine\s+│ 0\s+│ 6\s+│ 368\s+│ [\d.]+ kB\s+│ [\d.]+ s", out), out
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_refuses_an_engine_that_the_run_would_refuse(cli, spec):
    code, _, error = cli("run", "mine.yaml", "--dry-run", "--set", "strategy=replay", "--engine", "stacked")
    assert code == 2
    assert "stacked is not possible" in error


def test_the_default_folder_is_named_after_the_recipe(cli, spec, tmp_path):
    assert cli("run", "mine.yaml")[0] == 0
    assert (tmp_path / "runs/mine/mine/seed-0/status.json").is_file()


def failing_folder():
    """A folder in which nobody, not even root, can make anything."""
    return "/proc/acn-cl/runs" if Path("/proc").is_dir() else "/dev/null/runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bad.yaml"], r"bad\.yaml:1: epoch: there is no such key; did you mean 'epochs'\?"),
        (["run", "mine.yaml", "--set", "backbone.depth=-1"], r"backbone\.depth: should be greater than or equal to 1"),
        (["run", "mine.yaml", "--set", "strategy=nave"], r"unknown strategy 'nave'; did you mean 'naive'\?"),
        (["run", "mine.yaml", "--set", "backbone.patch=3"], r"backbone\.patch: .*2 or 4"),
        (["run", "split-cifar100"], r"cifar100.*ACN_CL_DATA"),
        (["run", "mine.yaml", "--out", failing_folder()], r"cannot be written"),
        (["run", "broken.yaml"], r"broken\.yaml:\d: not YAML"),
        (["run", "empty.yaml"], r"empty\.yaml: the file is empty"),
        (["run", "folder.yaml"], r"folder\.yaml: this is a folder"),
        (["run", "mine.yaml", "--seeds", "3-1"], r"--seeds 3-1: seeds: .*backwards; did you mean 1-3\?"),
        (["run", "mine.yaml", "--set", "stream.experiences=3"], r"experiences: .*the nearest that do: 2 or 5"),
        (["run", "mine.yaml", "--device", "cuda:77"], r"device: cuda:77 is not here"),
        (["run", "none.yaml"], r"none\.yaml: no such file"),
        (["run", "mine.yaml", "--set", "strategy=nobody.methods:Best"], r"no module 'nobody\.methods'"),
        (["run", "mine.yaml", "--set", "strategy=json:Best"], r"json has no 'Best'"),
        (["run", "mine.yaml", "--set", "backbone.name=json:dumps"], r"backbone"),
        (["run"], r"(?i)missing argument 'recipe'"),
        (["run", "mine.yaml", "--sett", "a=1"], r"No such option"),
        (["rum"], r"No such command 'rum'"),
        (["report", "nowhere"], r"nowhere"),
        (["status", "nowhere"], r"nowhere: no such folder"),
        (["status", "."], r"no runs in there"),
        (["status", "mine.yaml"], r"mine\.yaml: this is a file"),
        (["list", "backbone"], r"there is no list of 'backbone'; did you mean 'backbones'\?"),
        (["data", "verify", "cifar1000"], r"cifar1000.*did you mean 'cifar100'"),
        (["data", "path", "cifar10"], r"cifar10"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_line_and_nothing_is_made(cli, spec, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "bad.yaml").write_text("epoch: 3\n" + SPEC)
    (tmp_path / "broken.yaml").write_text("stream: {name: [\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("ACN_CL_DATA", str(tmp_path / "data"))
    before = sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts)
    code, out, err = cli(*arguments)
    assert code == 2, out + err
    lines = [line for line in err.splitlines() if not line.startswith("importing ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("acn-cl: ")
    assert re.search(message, lines[0]), lines[0]
    assert sorted(p for p in tmp_path.rglob("*") if "cache" not in p.parts) == before


def test_a_failed_run_is_exit_code_3_and_the_table_still_shows_the_others(cli, spec, tmp_path):
    code, _, err = cli("run", "mine.yaml", "--set", "optimizer={name: sgd, lr: 1e30}", "--out", "there")
    assert code == 3
    assert "1 of 1 runs failed" in err
    assert "optimizer.lr" in cli("status", "there")[1].replace("\n", "")


def test_a_dotted_name_in_the_current_folder_is_found_and_said(cli, spec, tmp_path):
    (tmp_path / "my_lab_methods.py").write_text(
        "from avalanche.core import SupervisedPlugin\n\n\nclass Mine(SupervisedPlugin):\n"
        "    def __init__(self, strength=1.0):\n        super().__init__()\n"
    )
    code, _, err = cli("run", "mine.yaml", "--set", "strategy={name: 'my_lab_methods:Mine', strength: 2}")
    assert code == 0
    assert "importing my_lab_methods:Mine" in err
    code, _, err = cli("run", "mine.yaml", "--set", "strategy={name: 'my_lab_methods:Mine', strenth: 2}")
    assert code == 2 and "did you mean 'strength'" in err


@pytest.mark.parametrize("what", ["backbones", "blocks", "wirings", "strategies", "streams", "recipes", "executors"])
def test_lists(cli, what):
    code, out, _ = cli("list", what)
    assert code == 0 and len(out.splitlines()) > 4


def test_compare_pairs_the_seeds_of_two_folders(cli, spec):
    for folder, rate in (("slow", "1e-5"), ("fast", "1e-2")):
        assert cli("run", "mine.yaml", "--seeds", "0-2", "--set", f"optimizer.lr={rate}", "--out", folder)[0] == 0
    code, out, _ = cli("compare", "slow", "fast")
    assert code == 0
    assert "n = 3" in out and "slow" in out and "fast" in out
    assert cli("compare", "slow", "nowhere")[0] == 2


def test_new_strategy_writes_a_strategy_that_runs(cli, spec, tmp_path):
    code, out, _ = cli("new-strategy", "made-by-the-cli")
    assert code == 0 and "wrote" in out
    mine = ("strategy=made_by_the_cli:MadeByTheCli", "stream.stop_after=2")
    code, _, _ = cli("run", "mine.yaml", "--set", mine[0], "--set", mine[1])
    assert code == 0
    assert cli("new-strategy", "made-by-the-cli")[0] == 2, "what is there is not overwritten"


def test_doctor_looks_at_everything(cli):
    code, out, _ = cli("doctor")
    assert code == 0
    assert all(word in out for word in ("python", "torch", "cpu", "digits", "write"))


def test_data_commands(cli):
    assert "scikit-learn" in cli("data", "list")[1]
    code, out, _ = cli("data", "verify", "digits")
    assert code == 0 and "no image stands in both parts" in out
    assert Path(cli("data", "path", "digits")[1].strip()).is_dir()


def test_the_console_script_itself_and_the_debug_option(tmp_path):
    script = Path(sys.executable).with_name("acn-cl")
    plain, debug = (
        subprocess.run([script, *flag, "run", "nothing"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        for flag in ([], ["--debug"])
    )
    assert plain.returncode == debug.returncode == 2
    assert "Traceback" not in plain.stderr and "Traceback" in debug.stderr
    version = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"acn-cl \d+\.\d+\.\d+\n", version.stdout)


def test_a_closed_pipe_is_no_error(tmp_path):
    script = Path(sys.executable).with_name("acn-cl")
    shell = f"{script} list streams | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


def test_help_is_quick_to_load():
    """No torch, no Avalanche, no pandas for --help."""
    code = (
        "import sys\n"
        "from acn_cl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'avalanche', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60, env=os.environ)
