"""The executors that ``--executor`` can name."""

from typing import Any

from pydantic import Field

from acn_cl.errors import UserError
from acn_cl.tables import Entry, Settings, entry, resolve


class WorkerSettings(Settings):
    """How many tasks are trained at a time."""

    workers: int | None = Field(None, description="at a time; left out: as many as fit")


class ClusterSettings(WorkerSettings):
    """Which cluster."""

    address: str | None = Field(None, description="auto, or host:port; left out: a cluster of this machine alone")


EXECUTORS = {
    "local": Entry(target="acn_cl.executors.local:Local", about="one task after the other, in this process"),
    "processes": Entry(
        target="acn_cl.executors.processes:Processes",
        about="several processes on this machine, a GPU each where there are several",
        settings=WorkerSettings,
    ),
    "ray": Entry(
        target="acn_cl.executors.on_ray:OnRay",
        about="a Ray cluster (pip install 'acn-cl[ray]'), of this machine alone or one at --address",
        settings=ClusterSettings,
    ),
}


def build_executor(name: str, **options: Any) -> Any:
    """The executor called ``name``; options that are ``None`` count as not given.

    Raises:
        UserError: there is none of that name, it does not take an option, or what it needs is not installed.
    """
    line = entry("executors", name)
    given = {key: value for key, value in options.items() if value is not None}
    for key in given.keys() - line.settings.model_fields.keys():
        raise UserError(f"--{key}: executor {name} does not take it")
    return resolve(line.target)(**given)
