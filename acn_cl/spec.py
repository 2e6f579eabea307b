"""What to run: :class:`Experiment`, a pydantic model that is also the YAML format.

Checking a spec imports no torch, so a mistake shows at once. Keys that belong to one stream, backbone or strategy are
checked against its line in the tables (:mod:`acn_cl.tables`); whoever is named by a dotted path is checked when it is
imported, by ``run``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from acn_cl.errors import SpecError, UserError, suggest
from acn_cl.seeding import PURPOSES, Seeds
from acn_cl.tables import entry, is_dotted, resolve


def _no_bool(value: object) -> object:
    """YAML's ``yes`` and ``true`` are not numbers, whatever Python says."""
    if isinstance(value, bool):
        raise ValueError(f"a number is wanted, not {str(value).lower()}")
    return value


def parse_seeds(value: object) -> object:
    """``"0-4,7"`` as ``(0, 1, 2, 3, 4, 7)``; a single integer as a tuple of one; a list is left as it is.

    Raises:
        ValueError: a range that runs backwards, or text that is not numbers.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return value
    seeds: list[int] = []
    for part in value.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"{value!r} is not a list of seeds such as 0-4 or 0,2,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part.strip()!r} runs backwards; did you mean {last}-{first}?")
        seeds.extend(range(first, last + 1))
    return tuple(seeds)


Int = Annotated[int, Field(strict=True)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(strict=True, ge=0)]


class Section(BaseModel):
    """A part of a spec: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """A part of a spec that names a line of a table; the line's own keys are allowed beside the common ones."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def options(self) -> dict[str, Any]:
        """Every key but ``name``, as keyword arguments (``lambda`` becomes ``lambda_``)."""
        return {f"{key}_" if key == "lambda" else key: value for key, value in self if key != "name"}


class StreamSection(Named):
    """Which data comes when."""

    name: str
    experiences: Int | None = Field(None, ge=1)
    scenario: Literal["task-incremental", "class-incremental", "domain-incremental"] | None = None
    labels: Literal["per-experience", "seen-order", "global"] | None = None
    class_order: Literal["seeded", "fixed"] | tuple[Seed, ...] = "seeded"
    first: Int | None = Field(None, ge=1, description="classes of the first experience")
    images_per_class: Int | None = Field(None, ge=1)
    stop_after: Int | None = Field(None, ge=1, description="train only the first n experiences")
    validation: Float = Field(0.0, ge=0, lt=1, description="share of every experience held out of training")
    augment: bool = True
    download: bool = False


class BackboneSection(Named):
    """The network below the head: a preset and what to change in it, or ``block`` and ``wiring`` in full."""

    name: str | None = None


class StrategySection(Named):
    """How a learner takes one experience in."""

    name: str = "naive"


class OptimizerSection(Section):
    """The optimiser of every experience, as torch.optim defines it."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Float = Field(1e-3, gt=0)
    weight_decay: Float = Field(0.01, ge=0)
    momentum: Float = Field(0.0, ge=0, lt=1, description="SGD only")
    state: Literal["reset", "carry"] = Field("reset", description="the moments at each new experience")
    clip_norm: Float | None = Field(None, gt=0, description="largest norm of the whole gradient")

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Self:
        if self.momentum and self.name != "sgd":
            raise SpecError(("optimizer", "momentum"), f"{self.name} takes none; leave it out or choose sgd")
        return self


class ScheduleSection(Section):
    """The learning rate within one experience; it starts anew at each."""

    name: Literal["constant", "cosine"] = "constant"
    warmup_epochs: Int = Field(0, ge=0, description="epochs of linear rise from 0")
    floor: Float = Field(0.0, ge=0, description="the last learning rate of a cosine")

    @model_validator(mode="after")
    def _floor_is_for_cosine(self) -> Self:
        if self.floor and self.name != "cosine":
            raise SpecError(("schedule", "floor"), "a constant schedule has none; leave it out or choose cosine")
        return self


class LossSection(Section):
    """Cross-entropy, and what is done to its targets."""

    label_smoothing: Float = Field(0.0, ge=0, lt=1)
    cutmix: Float = Field(0.0, ge=0, le=1, description="probability of CutMix for a batch (beta 1)")


class EverySteps(Section):
    """Evaluate within experiences."""

    steps: Int = Field(ge=1)


class CheckpointSection(Section):
    """When a run is saved while it trains, and what stays of it when it is done."""

    every_seconds: Float = Field(60.0, ge=0, description="between saves within an experience; its end is always saved")

    keep: Literal["weights", "none"] = "weights"


class ResourcesSection(Section):
    """What one run (or one stack of runs) takes up of a machine, for executors that train several at a time."""

    cpus: Float | None = Field(None, gt=0, description="cores; torch's threads are as many, at least 1")
    gpus: Float | None = Field(None, ge=0, description="0.5: two at a time on a GPU")
    processes: Int = Field(1, ge=1, description="that train one run together, with cpus and gpus each (executor ray)")


class PinSection(Section):
    """Purposes whose random numbers come from a fixed seed whatever the run's seed is."""

    initialisation: Seed | None = None
    class_order: Seed | None = None
    data_order: Seed | None = None
    augmentation: Seed | None = None


class Experiment(Section):
    """One experiment: what to run, for every seed in ``seeds``.

    >>> Experiment(stream={"name": "split-digits"}, strategy={"name": "si", "lambda": 2}).strategy.options()["lambda_"]
    2.0

    Raises:
        pydantic.ValidationError: a key is unknown, missing or of the wrong type.
        SpecError: a value names nothing known, or values do not go together.
    """

    name: str = Field("experiment", pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", max_length=100)
    about: str = Field("", description="what a reader should know of it: a recipe's result card")
    stream: StreamSection
    backbone: BackboneSection = BackboneSection(name="ac_mixer")
    strategy: StrategySection = StrategySection(name="naive")
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    epochs: Int = Field(10, ge=1)
    batch_size: Int = Field(64, ge=1)
    accumulate: Int = Field(1, ge=1, description="parts that a batch is computed in, one after the other")
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(parse_seeds), Field(min_length=1)] = (0,)
    pin: PinSection = PinSection()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    tf32: bool = Field(False, description="on CUDA: may fp32 products be computed in TF32, of 10 bits?")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:1, mps")
    engine: Literal["auto", "avalanche", "stacked"] = "auto"
    deterministic: bool = False
    evaluate_every: Literal["experience"] | EverySteps = "experience"
    test_part: bool = Field(True, description="test the test part too; a search's trials do not look at it")
    corruptions: tuple[str, ...] = Field((), description="noise that the learned network is tested under as well")
    checkpoint: CheckpointSection = CheckpointSection()
    loggers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    resources: ResourcesSection = ResourcesSection()

    @model_validator(mode="after")
    def _resolve_sections(self) -> Self:
        stream = _resolved_stream(self.stream)
        defaults = _training_defaults(stream)
        for key, value in defaults.items():
            if key not in self.model_fields_set:
                object.__setattr__(self, key, value)
        if self.epochs > defaults.get("epochs", self.epochs):
            raise SpecError(("epochs",), f"{stream.name} is seen once; use 1, or a stream that is not online")
        backbone = _resolved_backbone(self.backbone, stream)
        strategy = _resolved_strategy(self.strategy)
        for key, section in (("stream", stream), ("backbone", backbone), ("strategy", strategy)):
            object.__setattr__(self, key, section)  # frozen for everyone else: the resolved spec is the spec
        with _checking("corruptions"):
            for name in self.corruptions:
                resolve("acn_cl.benchmarks.streams.corruptions:corruption")(name)
        if len(set(self.seeds)) < len(self.seeds):
            raise SpecError(("seeds",), f"a seed stands twice in {list(self.seeds)}")
        if self.accumulate > self.batch_size:
            raise SpecError(("accumulate",), f"a batch of {self.batch_size} images has no {self.accumulate} parts")
        if not self.test_part and not (self.stream.validation or is_dotted(self.stream.name)):
            raise SpecError(("test_part",), "without it, and with stream.validation 0, nothing would be measured")
        if not self.test_part and self.corruptions:
            raise SpecError(("corruptions",), "they are tested on the test part; leave them out, or test_part: true")
        if self.schedule.warmup_epochs > self.epochs:
            raise SpecError(
                ("schedule", "warmup_epochs"), f"{self.schedule.warmup_epochs} is more than epochs, {self.epochs}"
            )
        return self

    def seeds_of(self, seed: int) -> Seeds:
        """The random streams of the run with seed ``seed``, pins applied."""
        pins = {p: getattr(self.pin, p) for p in PURPOSES if getattr(self.pin, p) is not None}
        return Seeds(seed, pins)

    def as_dict(self) -> dict[str, Any]:
        """The resolved spec in plain values, as it stands in ``spec.json``; reading it back gives an equal one."""
        return self.model_dump(mode="json")


def with_later_keys(written: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as an earlier version wrote it, with keys that have joined since at their defaults; nothing is checked.

    A key that joins has the default that says what was done before it was there.
    """
    filled = dict(written)
    for name, field in Experiment.model_fields.items():
        if field.is_required() or name in ("backbone", "strategy"):  # whose keys depend on their names
            continue
        default = field.get_default()
        if isinstance(default, Section):
            default = default.model_dump(mode="json")
            if isinstance(there := filled.get(name), Mapping):
                filled[name] = {**default, **there}
        filled.setdefault(name, list(default) if isinstance(default, tuple) else default)
    return filled


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, as a spec and ``--set`` write them.

    >>> flatten({"backbone": {"name": "ac_mixer", "depth": 5}})
    {'backbone.name': 'ac_mixer', 'backbone.depth': 5}
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


INERT = ("name", "about", "seeds", "loggers", "checkpoint", "device", "engine", "resources", "stream.download")
"""Keys that say where and how a run is made, not what it is; of a section, all of its keys."""


def is_inert(key: str) -> bool:
    """Whether a dotted key may differ between two starts of one run, and between the seeds of one experiment."""
    return f"{key}.".startswith(tuple(f"{name}." for name in INERT))


def message_of(error: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """One of pydantic's errors in our words (no ``[type=...]``, no URL); ``known``: the keys that exist there."""
    kind, value = error["type"], error["input"]
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    match kind:
        case "missing":
            return "this key is needed"
        case "extra_forbidden":
            return f"there is no such key; {suggest(error['loc'][-1], known)}"
        case "value_error":
            return text
        case "literal_error":
            choices = re.findall(r"'([^']*)'", text)
            return f"{value!r} is not one of its values; {suggest(value, choices)}"
        case "model_type":
            return f"should be a mapping of keys to values, not {_shown(value)}"
        case _:
            return f"{text.removeprefix('String ')}, not {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def _checking(
    section: str, settings: type[BaseModel] | None = None, common: type[BaseModel] | None = None
) -> Iterator[None]:
    """Give whatever a section's own checker raises the section's place in the spec."""
    try:
        yield
    except SpecError as error:
        raise error if error.path[:1] == (section,) else SpecError((section, *error.path), error.message) from None
    except ValidationError as error:
        first = error.errors()[0]
        known = [field.alias or key for m in (settings, common) if m for key, field in m.model_fields.items()]
        raise SpecError((section, *first["loc"]), message_of(dict(first), known)) from None
    except UserError as error:
        raise SpecError((section,), str(error)) from None


def _resolved_stream(section: StreamSection) -> StreamSection:
    if is_dotted(section.name):
        return section
    with _checking("stream"):
        line = entry("streams", section.name)
    with _checking("stream", line.settings, StreamSection):
        check = resolve("acn_cl.benchmarks.streams.table:check_stream")
        return StreamSection(**check(section.model_dump(exclude_unset=True)))


def _training_defaults(stream: StreamSection) -> dict[str, Any]:
    """Defaults of the spec's other keys that follow from the stream (an online stream is seen once)."""
    defaults: dict[str, Any] = resolve("acn_cl.benchmarks.streams.table:training_defaults")(stream.model_dump())
    return defaults


def _resolved_backbone(section: BackboneSection, stream: StreamSection) -> BackboneSection:
    if section.name is not None and is_dotted(section.name):
        return section
    with _checking("backbone"):
        image_size = None
        if not is_dotted(stream.name):
            _, *image_size = resolve("acn_cl.benchmarks.streams.table:image_shape")(stream.model_dump())
        given = section.model_dump(exclude_none=True)
        if not given.keys() & {"name", "block", "wiring"}:
            given["name"] = "ac_mixer"
        check = resolve("acn_cl.backbones.presets:validate_backbone")
        return BackboneSection(**check(given, image_size and tuple(image_size)))


def _resolved_strategy(section: StrategySection) -> StrategySection:
    if is_dotted(section.name):
        return section
    with _checking("strategy"):
        line = entry("strategies", section.name)
    with _checking("strategy", line.settings, StrategySection):
        settings = line.settings(**{**line.defaults, **(section.model_extra or {})})
    return StrategySection(name=section.name, **settings.model_dump(by_alias=True))
