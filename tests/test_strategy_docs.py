"""What docs/strategies.md and `new_strategy` give a user works as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from acn_cl.errors import UserError
from acn_cl.strategies.scaffold import new_strategy
from acn_cl.strategies.table import STRATEGIES
from acn_cl.tables import resolve

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "strategies.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.S)


def in_process(folder, *words):
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_new_strategy_passes_its_own_test(tmp_path):
    plugin, test = new_strategy("slow-drift", tmp_path)
    assert (plugin.name, test.name) == ("slow_drift.py", "test_slow_drift.py")
    assert len([line for line in plugin.read_text().splitlines() if line.strip()]) <= 30
    done = in_process(tmp_path, "-m", "pytest", "-q", "-k", "inert or acts or resumes or heads or memory", test.name)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("torch", "installed module"),
        ("2-fast", "makes no name"),
        ("", "makes no name"),
        ("a/b", "makes no name"),
        ("lambda", "makes no name"),
        ("taken", "is there already"),
    ],
)
def test_a_name_that_will_not_do(tmp_path, name, wrong):
    (tmp_path / "test_taken.py").write_text("mine")
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=wrong):
        new_strategy(name, tmp_path)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("name", "title"), [("my-method", "MyMethod"), ("EWCPlus", "EWCPlus"), ("Si2", "Si2")])
def test_names(tmp_path, name, title):
    plugin, _ = new_strategy(name, tmp_path)
    assert f"class {title}(" in plugin.read_text()


def test_the_table_names_every_strategy_and_every_key():
    for name, entry in STRATEGIES.items():
        row, *_ = re.findall(rf"^\| `{name}` \|.*$", DOCS, re.M)
        for key, field in entry.settings.model_fields.items():
            assert f"`{field.alias or key}`" in row, f"{name}: {key} is missing"
        resolve(entry.target)
        source = Path(sys.modules[entry.target.split(":")[0]].__file__).read_text()
        if (link := re.search(r"arXiv (\d{4}\.\d{4,5})", source)) and name not in ("joint", "l2"):
            assert link[1] in row, f"{name}: {link[1]} is missing"


@pytest.fixture
def folder(tmp_path):
    """The files that the docs show, under the names that they give."""
    for text in (*blocks("python"), *blocks("yaml")):
        if match := re.match(r"# (\w+\.\w+)\n", text):
            (tmp_path / match[1]).write_text(text)
    return tmp_path


def test_the_whole_way_from_an_idea_to_a_report(folder):
    (session,) = [text for text in blocks("sh") if "acn-cl run" in text]
    for line in session.splitlines():
        words = shlex.split(line, comments=True)
        module = {"acn-cl": ["-m", "acn_cl.cli"], "python": []}[words[0]]
        done = in_process(folder, *module, *words[1:])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.slow
def test_its_python(folder):
    for text in blocks("python"):
        if not re.match(r"# \w+\.py\n", text):
            done = in_process(folder, "-c", text)
            assert done.returncode == 0, done.stderr
