"""What README shows works as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from acn_cl.recipe import load_recipe, recipe_files

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands():
    lines = re.findall(r"^    (acn-cl run .*?)(?:\s+#.*)?$", README, re.M)
    return [line for line in lines if "cifar100" not in line]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for text in (*blocks("yaml"), *blocks("python")):
        if match := re.match(r"# (\w+\.\w+)\n", text):
            (tmp_path / match[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_recipes_that_it_names_are_there():
    assert {*re.findall(r"acn-cl run ([a-z0-9-]+)\b(?!\.)", README)} <= {*recipe_files()}


@pytest.mark.parametrize("command", commands())
def test_its_commands(folder, command):
    """Each is started as it stands, with one seed and one short experience."""
    words = shlex.split(command.removeprefix("acn-cl "))
    extra = ["--seeds", "0", "--set", "epochs=1", "--set", "stream.stop_after=1"]
    done = subprocess.run(
        [sys.executable, "-m", "acn_cl.cli", *words, *extra], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    recipe = load_recipe(words[1], [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    assert len(list((folder / "runs").glob("*/*/seed-0/checkpoints"))) == len(recipe.planned)


def test_its_python(folder):
    (example,) = [text for text in blocks("python") if "load_runs" in text]
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    accuracy, forgetting = map(float, done.stdout.split())
    assert 0.5 < accuracy <= 1 and -1 <= forgetting <= 1


def test_what_it_links_to_is_there():
    root = Path(__file__).resolve().parents[1]
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links and all((root / link).exists() for link in links), links
