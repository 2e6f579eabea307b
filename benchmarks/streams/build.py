"""Build a stream by name. Imports no torch; only :meth:`Stream.benchmark` does."""

import inspect
from typing import Any

from acn_cl.benchmarks.datasets.load import load_dataset
from acn_cl.benchmarks.streams.assemble import assemble
from acn_cl.benchmarks.streams.check import check_stream, dataset_of, plan_of
from acn_cl.benchmarks.streams.stream import Stream
from acn_cl.errors import UserError
from acn_cl.seeding import Seeds
from acn_cl.spec import StreamSection
from acn_cl.tables import entry, is_dotted, resolve

_ASSEMBLED = ("scenario", "labels", "images_per_class", "validation", "stop_after", "augment")


def build_stream(name: str, *, seeds: Seeds | int = 0, **keys: Any) -> Stream:
    """The stream called ``name``.

    >>> build_stream("split-digits", seeds=Seeds(0), experiences=2).experiences[1].train.load().shape[1:]
    (1, 8, 8)

    Args:
        name: a line of ``STREAMS``, or the dotted path of a function that returns a :class:`Stream`.
        seeds: the run's random streams, or its seed.
        keys: the keys of a spec's ``stream`` section.

    Raises:
        UserError: a key is wrong, or the data set is not found or is damaged.
    """
    seeds = Seeds(seeds) if isinstance(seeds, int) else seeds
    section = check_stream({"name": name, **keys})
    if is_dotted(name):
        return _build_own(name, seeds, section)
    dataset = load_dataset(dataset_of(section), section["download"])
    return assemble(
        name,
        dataset,
        plan_of(section, seeds),
        seeds=seeds,
        one_pass=entry("streams", name).fixed.get("one_pass", False),
        **{key: section[key] for key in _ASSEMBLED},
    )


def _build_own(name: str, seeds: Seeds, section: dict[str, Any]) -> Stream:
    """Call somebody's own function with the keys that it takes; a key that is set and not taken is an error."""
    function = resolve(name)
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    unset = {key: field.get_default() for key, field in StreamSection.model_fields.items()}
    keys = {}
    for key, value in section.items():
        if key == "name":
            continue
        if takes_all or key in parameters:
            keys[key] = value
        elif value != unset.get(key):
            raise UserError(f"stream.{key}: {name} takes no such key, only {', '.join(parameters)}")
    stream = function(seeds=seeds, **keys)
    if not isinstance(stream, Stream):
        raise UserError(f"{name} returned {type(stream).__name__}, not an acn_cl.benchmarks.streams.stream.Stream")
    return stream
