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

    lambda_: float = Field(
        1e4,
        alias="lambda",
        ge=0,
        description="strength of the penalty (no unit); 0 is naive; the default is for `fisher: batch`",
    )
    mode: Literal["separate", "online"] = Field("separate", description="one penalty an experience, or one in all")
    decay: float = Field(1.0, ge=0, le=1, description="what is kept of the old Fisher at each experience (online only)")
    fisher: Literal["batch", "empirical", "sampled"] = Field(
        "batch", description="squared gradients of mini-batches, or of images with their own or with sampled labels"
    )
    augmented: bool = Field(False, description="whether the Fisher information is of augmented images")


class MASSettings(Settings):
    """Keys of ``mas``."""

    lambda_: float = Field(1.0, alias="lambda", ge=0, description="strength of the penalty (no unit); 0 is naive")
    keep: float = Field(0.5, ge=0, le=1, description="share of the old importance at each experience")
    each: Literal["batch", "image"] = Field("batch", description="what one gradient is taken of")


class L2Settings(Settings):
    """Keys of ``l2``."""

    lambda_: float = Field(
        0.01, alias="lambda", ge=0, description="strength of the penalty, per squared parameter unit; 0 is naive"
    )


class LwFSettings(Settings):
    """Keys of ``lwf``."""

    alpha: float = Field(1.0, ge=0, description="weight of the distillation beside the loss (no unit); 0 is naive")
    temperature: float = Field(2.0, gt=0, description="what logits are divided by before the softmax (no unit)")


class MemorySettings(Settings):
    """Keys of every strategy with a memory that may be empty."""

    memory: int = Field(2000, ge=0, strict=True, description="images kept, at most; 0 is naive")
    batch: int | None = Field(None, ge=1, strict=True, description="images drawn at a step; null: the batch size")


class ReplaySettings(MemorySettings):
    """Keys of ``replay`` and ``er-ace``."""

    balance: Literal["reservoir", "class"] = Field(
        "class", description="a uniform sample of all images, or as many of each class"
    )


class DERSettings(MemorySettings):
    """Keys of ``der``."""

    balance: Literal["reservoir", "class"] = Field(
        "reservoir", description="a uniform sample of all images, or as many of each class"
    )
    alpha: float = Field(0.1, ge=0, description="weight of the distance to the old logits, per squared logit")
    beta: float = Field(0.5, ge=0, description="weight of the loss on old images (no unit); 0: DER, more: DER++")


class GEMSettings(Settings):
    """Keys of ``gem``."""

    memory: int = Field(1000, ge=0, strict=True, description="images kept, at most; a step reads all; 0 is naive")
    strength: float = Field(
        0.5, ge=0, description="least weight of an old gradient where the step is changed (no unit)"
    )


class FullMemorySettings(Settings):
    """Keys of ``gdumb`` and ``icarl``."""

    memory: int = Field(2000, ge=1, strict=True, description="images kept, at most, as many of each class")


_HERE = "acn_cl.strategies"

STRATEGIES: dict[str, Entry] = {
    "naive": Entry(
        target=f"{_HERE}.naive:Naive",
        about="fine-tune on each experience; forgets most: the lower anchor of every report",
    ),
    "joint": Entry(
        target=f"{_HERE}.joint:Joint",
        about="from new weights on all experiences so far: the upper anchor of every report",
    ),
    "cumulative": Entry(
        target=f"{_HERE}.cumulative:Cumulative",
        about="go on training on all experiences so far",
    ),
    "si": Entry(
        target=f"{_HERE}.si:SynapticIntelligence",
        about="Synaptic Intelligence (Zenke et al. 2017): importance from the path of the weights",
        settings=SynapticIntelligenceSettings,
    ),
    "ewc": Entry(
        target=f"{_HERE}.ewc:EWC",
        about="Elastic Weight Consolidation (Kirkpatrick et al. 2017): importance from the Fisher information",
        settings=EWCSettings,
    ),
    "mas": Entry(
        target=f"{_HERE}.mas:MAS",
        about="Memory Aware Synapses (Aljundi et al. 2018): importance from the sensitivity of the logits",
        settings=MASSettings,
    ),
    "l2": Entry(
        target=f"{_HERE}.l2:L2",
        about="hold every weight alike: what importance is to be compared with",
        settings=L2Settings,
    ),
    "lwf": Entry(
        target=f"{_HERE}.lwf:LwF",
        about="Learning without Forgetting (Li & Hoiem 2016): distil the old network on new images",
        settings=LwFSettings,
    ),
    "replay": Entry(
        target=f"{_HERE}.replay:Replay",
        about="experience replay (Chaudhry et al. 2019): a batch of old images beside each new one",
        settings=ReplaySettings,
    ),
    "a-gem": Entry(
        target=f"{_HERE}.agem:AGEM",
        about="Averaged GEM (Chaudhry et al. 2019): no step against the gradient on old images",
        settings=MemorySettings,
    ),
    "gem": Entry(
        target=f"{_HERE}.gem:GEM",
        about="Gradient Episodic Memory (Lopez-Paz & Ranzato 2017): no step against any old experience; slow",
        settings=GEMSettings,
    ),
    "der": Entry(
        target=f"{_HERE}.der:DER",
        about="Dark Experience Replay, DER++ (Buzzega et al. 2020): old images with the logits they had",
        settings=DERSettings,
    ),
    "er-ace": Entry(
        target=f"{_HERE}.er_ace:ERACE",
        about="replay with asymmetric cross-entropy (Caccia et al. 2022): new classes do not push old ones away",
        settings=ReplaySettings,
    ),
    "gdumb": Entry(
        target=f"{_HERE}.gdumb:GDumb",
        about="GDumb (Prabhu et al. 2020): from new weights on a class-balanced memory alone",
        settings=FullMemorySettings,
    ),
    "icarl": Entry(
        target=f"{_HERE}.icarl:ICaRL",
        about="iCaRL (Rebuffi et al. 2017): exemplars by herding, answers by the nearest mean",
        settings=FullMemorySettings,
    ),
}
