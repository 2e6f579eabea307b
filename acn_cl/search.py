"""A recipe's ``search:`` which settings are tried before the seeds are trained. Pure: what is drawn, and what wins.

The choice is made on the validation part alone, over the whole stream or its first K experiences (Chaudhry et al. 2019,
"Efficient Lifelong Learning with A-GEM", https://arxiv.org/abs/1812.00420, who choose on the first 3 tasks).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from acn_cl.errors import SpecError
from acn_cl.spec import Float, Int, Section, Seed, parse_seeds

Setting = dict[str, Any]
"""Dotted keys of a spec and the values that are tried together."""


class Range(Section):
    """Numbers between two bounds, of which each is as likely as another, on a plain or on a logarithmic scale."""

    uniform: tuple[Float, Float] | None = None
    loguniform: tuple[Float, Float] | None = None

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if (self.uniform is None) == (self.loguniform is None):
            raise ValueError("either uniform: [low, high] or loguniform: [low, high]")
        low, high = self.bounds
        if not low < high or (self.loguniform is not None and low <= 0):
            raise ValueError(f"[{low:g}, {high:g}] is no range of it: low < high, and of loguniform 0 < low")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high."""
        bounds = self.uniform or self.loguniform
        assert bounds is not None
        return bounds

    def at(self, share: float) -> float:
        """The number below which a ``share`` of all draws lies, to four figures.

        >>> Range(loguniform=(1e-4, 1e-2)).at(0.5)
        0.001
        """
        low, high = self.bounds
        if self.loguniform is not None:
            number = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            number = low + share * (high - low)
        return float(f"{number:.4g}")


def _values(value: object) -> object:
    if isinstance(value, Range) or (isinstance(value, list) and value):
        return value
    if isinstance(value, Mapping) and value.keys() & Range.model_fields.keys():
        return Range(**value)
    raise ValueError("a list of values is wanted, or {uniform: [low, high]}, or {loguniform: [low, high]}")


class SearchSection(Section):
    """Which settings are tried, and what they are judged by."""

    method: Literal["grid", "random", "adaptive"] = "grid"
    space: dict[str, Annotated[list[Any] | Range, BeforeValidator(_values)]] = Field(min_length=1)
    trials: Int | None = Field(None, ge=1, description="settings that are drawn; not of a grid")
    at_a_time: Int = Field(4, ge=1, description="trials of adaptive between two looks at their scores")
    seed: Seed = Field(0, description="of the drawing")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(parse_seeds), Field(min_length=1)] = (0,)
    evaluate_on: Annotated[int, Field(strict=True, ge=1)] | Literal["whole"] = Field(
        "whole", description="how many experiences, from the first, a trial learns and is judged on"
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.method != "grid" and self.trials is None:
            raise SpecError(("search", "trials"), f"{self.method} needs a number of trials")
        if self.method != "adaptive" and "at_a_time" in self.model_fields_set:
            raise SpecError(("search", "at_a_time"), f"{self.method} makes all its trials at once; leave it out")
        if self.method == "grid":
            if self.trials is not None:
                raise SpecError(("search", "trials"), "a grid tries all its settings; leave it out or choose random")
            for key, values in self.space.items():
                if isinstance(values, Range):
                    raise SpecError(("search", "space", key), "a grid needs a list of values; or choose random")
        return self

    def settings(self) -> list[Setting]:
        """What is tried, in order, each once; of an adaptive search, settings with each value that it may propose.

        A random search draws trial by trial and key by key, so that more trials add to those of fewer. Of the ranges of
        an adaptive search it is the ends.
        """
        if self.method == "adaptive":
            values = [list(each.bounds) if isinstance(each, Range) else each for each in self.space.values()]
            turns = range(max(map(len, values)))
            return [
                {key: each[turn % len(each)] for key, each in zip(self.space, values, strict=True)} for turn in turns
            ]
        if self.method == "grid":
            return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self._lists())]
        drawn = [self._drawn(trial) for trial in range(self.trials or 0)]
        return [setting for index, setting in enumerate(drawn) if setting not in drawn[:index]]

    def _lists(self) -> list[list[Any]]:
        return [values for values in self.space.values() if isinstance(values, list)]

    def _drawn(self, trial: int) -> Setting:
        shares = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(trial,))).random(len(self.space))
        return {
            key: values.at(float(share)) if isinstance(values, Range) else values[int(share * len(values))]
            for (key, values), share in zip(self.space.items(), shares, strict=True)
        }


def best(scores: Sequence[float | None]) -> int:
    """Index of the highest score, the first of equal ones; ``None`` is a trial that failed.

    Raises:
        ValueError: all of them failed.
    """
    known = [index for index, score in enumerate(scores) if score is not None]
    if not known:
        raise ValueError("every trial failed")
    return max(known, key=lambda index: (scores[index], -index))


def record(section: SearchSection, settings: Sequence[Mapping[str, Any]], scores: Sequence[float | None]) -> Setting:
    """What ``spec.json`` says of a choice: the search, every setting with its score, and the one that was chosen."""
    return {
        **section.model_dump(mode="json", exclude_none=True),
        "judged_by": "average accuracy on the validation part after the last experience",
        "tried": [{"setting": dict(s), "score": score} for s, score in zip(settings, scores, strict=True)],
        "chosen": dict(settings[best(scores)]),
    }
