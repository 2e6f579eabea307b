"""Recipes: YAML with lines, overrides, and the matrix."""

from pathlib import Path

import pytest

from acn_cl.errors import UserError
from acn_cl.recipe import load_recipe, recipe_files

BASE = """\
stream: {name: split-digits}
backbone:
  name: ac_mixer
  depth: 2
  patch: 4
epochs: 2
"""
GRID = (
    BASE
    + """\
matrix:
  backbone.name: [ac_mixer, res_mixer]
  backbone.depth: [2, 3]
  strategy: [naive, {name: si, lambda: 0.5}]
"""
)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", recipe_files())
def test_every_built_in_recipe_is_right_and_says_what_it_is(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about.strip()
    assert recipe.planned


def test_a_file_without_a_matrix_is_one_experiment_called_after_it(write):
    recipe = load_recipe(write(BASE))
    assert [p.id for p in recipe.planned] == ["mine"]
    assert recipe.planned[0].axes == {}


def test_a_matrix_is_every_combination_with_readable_ids(write):
    recipe = load_recipe(write(GRID))
    assert [p.id for p in recipe.planned] == [
        "ac_mixer-depth2-naive", "ac_mixer-depth2-si-lambda0.5", "ac_mixer-depth3-naive",
        "ac_mixer-depth3-si-lambda0.5", "res_mixer-depth2-naive", "res_mixer-depth2-si-lambda0.5",
        "res_mixer-depth3-naive", "res_mixer-depth3-si-lambda0.5",
    ]  # fmt: skip
    last = recipe.planned[-1]
    assert last.axes == {"backbone.name": "res_mixer", "backbone.depth": 3, "strategy": {"name": "si", "lambda": 0.5}}
    assert last.experiment.backbone.options()["wiring"] == "residual"
    assert last.experiment.strategy.options()["lambda_"] == 0.5


def test_overrides_change_keys_and_replace_axes(write):
    path = write(GRID)
    one = load_recipe(path, ["backbone.name=res_mixer", "strategy=naive", "epochs=7"])
    assert [p.id for p in one.planned] == ["depth2", "depth3"]
    assert {p.experiment.epochs for p in one.planned} == {7}
    assert {p.experiment.backbone.name for p in one.planned} == {"res_mixer"}
    other = load_recipe(path, ["backbone.depth=[4]"])
    assert {p.axes["backbone.depth"] for p in other.planned} == {4}


def test_an_override_reaches_the_strategies_that_know_it(write):
    recipe = load_recipe(write(GRID), ["strategy.lambda=9"])
    strengths = {p.experiment.strategy.options().get("lambda_") for p in recipe.planned}
    assert strengths == {None, 9.0}


@pytest.mark.parametrize(("text", "number"), [("1e6", 1e6), ("1.5e-3", 1.5e-3), ("2E+1", 20.0), (".5", 0.5)])
def test_numbers_are_those_of_yaml_1_2(write, text, number):
    assert load_recipe(write(BASE + f"matrix: {{optimizer.lr: [{text}]}}\n")).planned[0].axes["optimizer.lr"] == number


def test_choosing_another_strategy_drops_what_only_the_old_one_knew(write):
    text = BASE + "strategy: {name: si, lambda: 0.5}\n"
    assert load_recipe(write(text), ["strategy.name=ewc"]).planned[0].experiment.strategy.options()["lambda_"] == 1e4
    kept = load_recipe(write(text), ["backbone.name=res_mixer"]).planned[0].experiment.backbone.options()
    assert (kept["depth"], kept["patch"]) == (2, 4)


@pytest.mark.parametrize(
    ("section", "old", "new", "kept"),
    [
        ("backbone", "name: ac_mixer, tokens_hidden: 16, depth: 3", "res_mixer", {"tokens_hidden": 16, "depth": 3}),
        ("backbone", "name: ac_mixer, tokens_hidden: 16", "ac_mixer-projected", {"tokens_hidden": 16}),
        ("backbone", "name: ac_mixer, tokens_hidden: 16, width: 12", "ac_vit", {"width": 12, "heads": 3}),
        ("backbone", "name: highway_mixer, gate_bias: -1.0, channels_hidden: 9", "res_mixer", {"channels_hidden": 9}),
        ("strategy", "name: replay, memory: 70", "er-ace", {"memory": 70}),
        ("strategy", "name: si, lambda: 9", "mas", {"lambda": 1.0}),
    ],
)
def test_what_means_the_same_under_both_names_is_kept(write, section, old, new, kept):
    text = f"stream: {{name: split-digits}}\n{section}: {{{old}}}\nmatrix: {{{section}.name: [{new}]}}\n"
    (planned,) = load_recipe(write(text)).planned
    options = planned.experiment.as_dict()[section]
    assert options["name"] == new and options.items() >= kept.items()
    assert "gate_bias" not in options


def test_seeds_on_the_command_line_win(write):
    assert load_recipe(write(BASE + "seeds: 0-4\n"), seeds="7,9").planned[0].experiment.seeds == (7, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"mine\.yaml: the file is empty"),
        ("# only a comment\n", r"mine\.yaml: the file is empty"),
        ("- a\n- b\n", r"mine\.yaml:1: a spec is a mapping"),
        ("stream: {name: split-digits\n", r"mine\.yaml:2: not YAML"),
        ("stream:\n\tname: x\n", r"mine\.yaml:2: not YAML"),
        (BASE + "epochs: 3\n", r"mine\.yaml:7: the key 'epochs' stands twice"),
        (BASE + "a: &x [1]\nb: *x\n", r"mine\.yaml:8: YAML aliases"),
        (BASE + "a: !!python/object:os.system x\n", r"mine\.yaml:7: not YAML"),
        (BASE.replace("depth: 2", "dept: 2"), r"mine\.yaml:4: backbone\.dept: .*did you mean 'depth'"),
        (BASE.replace("depth: 2", "depth: -2"), r"mine\.yaml:4: backbone\.depth: .*greater than or equal to 1, not -2"),
        (BASE.replace("patch: 4", "patch: 3"), r"mine\.yaml:5: backbone\.patch: "),
        (BASE.replace("epochs: 2", "epochs: two"), r"mine\.yaml:6: epochs: .*integer, not 'two'"),
        (BASE.replace("epochs: 2", "epoch: 2"), r"mine\.yaml:6: epoch: there is no such key; did you mean 'epochs'"),
        (BASE.replace("split-digits", "split-digts"), r"mine\.yaml:1: stream.*did you mean 'split-digits'"),
        ("backbone: ac_mixer\n", r"mine\.yaml"),
        ("epochs: 2\n", r"mine\.yaml: stream: this key is needed"),
        (BASE + "matrix: {strategy: []}\n", r"mine\.yaml:7: matrix\.strategy: should be a list of at least one"),
        (BASE + "matrix: {seeds: [0]}\n", r"mine\.yaml:7: matrix\.seeds: there is no such axis"),
        (BASE + "matrix: [a]\n", r"mine\.yaml:7: matrix: should be a mapping"),
        (BASE + "matrix: {epochs: [1, 1]}\n", r"mine\.yaml:7: matrix: two experiments would be called 'epochs1'"),
        (BASE + "matrix: {epochs: [1, 0]}\n", r"mine\.yaml:7: epochs: .*greater than or equal to 1"),
        ("[" * 5000, r"mine\.yaml:1: nested more than 20 deep"),
        ("a: " + "x" * 2_000_000, r"too many for a spec"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(write(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "KEY=VALUE is wanted"),
        ("=3", "KEY=VALUE is wanted"),
        ("epochs=[", "not YAML"),
        ("epochs=0", r"--set epochs=0: epochs: .*greater than or equal to 1"),
        ("epoch=3", r"--set epoch=3: epoch: .*did you mean 'epochs'"),
        ("strategy.lamda=3", r"--set strategy\.lamda=3: .*did you mean 'lambda'"),
        ("epochs.x=3", r"--set epochs\.x=3"),
    ],
)
def test_a_wrong_override_is_named(write, override, message):
    with pytest.raises(UserError, match=message):
        load_recipe(write(GRID), [override])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="this is a folder"):
        load_recipe(f"{tmp_path}/")
    with pytest.raises(UserError, match="no such file"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match=r"no recipe and no file is called 'quik'; did you mean 'quick'"):
        load_recipe("quik")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00stream")
    with pytest.raises(UserError, match="not text"):
        load_recipe(str(tmp_path / "binary.yaml"))


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = Path(tmp_path / "bom.yaml")
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load_recipe(str(path)).planned
