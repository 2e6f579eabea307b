"""The strategies that a spec can name, with the keys that each takes. Imports neither torch nor Avalanche."""

from typing import Literal

from pydantic import Field

from acn_cl.tables import Entry, Settings


class SynapticIntelligenceSettings(Settings):
    """Keys of ``si``. The defaults are the paper's: Avalanche's form with λ = 1."""

    lambda_: float = Field(1.0, alias="lambda", ge=0, description="strength of the penalty (no unit); 0 is naive")
    dialect: Literal["avalanche", "zenke"] = Field("avalanche", description="whose Synaptic Intelligence")
    c: float = Field(1.0, gt=0, description="factor on an experience's importance (no unit)")
    eps: float = Field(1e-7, gt=0, description="damping of the importance, in squared parameter units")
    clip: float | None = Field(1e-3, gt=0, description="largest importance; null: no bound (avalanche only)")


class EWCSettings(Settings):
    """Keys of ``ewc``."""

    lambda_: float = Field(1.0, alias="lambda", ge=0, description="strength of the penalty (no unit); 0 is naive")
    mode: Literal["separate", "online"] = Field("separate", description="one penalty an experience, or one in all")
    decay: float = Field(1.0, ge=0, le=1, description="what is kept of the old Fisher at each experience (online only)")


STRATEGIES: dict[str, Entry] = {
    "naive": Entry(
        target="acn_cl.strategies.naive:Naive",
        about="fine-tune on each experience; forgets most: the lower anchor of every report",
    ),
    "si": Entry(
        target="acn_cl.strategies.si:SynapticIntelligence",
        about="Synaptic Intelligence (Zenke et al. 2017): importance from the path of the weights",
        settings=SynapticIntelligenceSettings,
    ),
    "ewc": Entry(
        target="acn_cl.strategies.ewc:EWC",
        about="Elastic Weight Consolidation (Kirkpatrick et al. 2017): importance from the Fisher information",
        settings=EWCSettings,
    ),
}
