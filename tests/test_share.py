"""``--only i/n``: the parts are disjoint, and together they are everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acn_cl.errors import UserError
from acn_cl.executors.planning import together
from acn_cl.executors.task import Job
from acn_cl.recipe import load_recipe
from acn_cl.share import Share, parse_share


@given(st.lists(st.integers(), unique=True, max_size=60), st.integers(1, 70))
def test_the_parts_of_a_list_are_a_partition_of_it(items, count):
    parts = [Share(number, count).of(items) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1, "as large as each other"
    assert all(part == sorted(part, key=items.index) for part in parts)


@pytest.mark.parametrize("engine", ["auto", "stacked"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_parts_of_a_recipe_hold_every_run_once_in_whole_stacks(engine, count, tmp_path):
    sets = [f"engine={engine}", "device=cpu", "stream.class_order=fixed"]
    planned = load_recipe("quick", sets, "0-4").planned
    jobs = [Job(one, seed, tmp_path / one.id / str(seed)) for one in planned for seed in one.experiment.seeds]
    units = together(jobs)
    assert [len(unit) for unit in units] == ([5] * 6 if engine == "stacked" else [1] * 30)
    parts = [Share(number, count).of(units) for number in range(1, count + 1)]
    paths = [job.path for part in parts for unit in part for job in unit]
    assert sorted(paths) == sorted(job.path for job in jobs)
    assert all(unit in units for part in parts for unit in part)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("0/3", 3), ("4/3", 3), ("3", 8), ("a/b", 8), ("1/0", 1), ("-1/3", 8), ("1/2/3", 8), ("", 8)],
)
def test_what_is_no_part_is_refused(text, parts):
    with pytest.raises(UserError, match=rf"a part of all parts is wanted, from 1/{parts} to {parts}/{parts}"):
        parse_share(text)
    assert parse_share(" 2 / 8") == Share(2, 8)
