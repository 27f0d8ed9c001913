"""Interfaces of a training stage and of its batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from torch import Tensor, nn

from diffsplat.models.network_base_class import RELEASED_WEIGHTS_FILE, BaseNetwork
from diffsplat.training.released_layout_export import Release
from diffsplat.training.rendered_view_loss import ObjectLosses
from diffsplat.training.run_folders import Need, StageFolders, require_class

BatchT_co = TypeVar("BatchT_co", covariant=True)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Losses:
    """Result of one training pass.

    Args:
        total: scalar that is differentiated.
        parts: detached scalars for the log, by name.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def mean(cls, losses: ObjectLosses, **parts: Tensor) -> Self:
        """Mean of the losses of objects, and further parts."""
        return cls(losses.total.mean(), {n: term.mean() for n, term in losses.terms.items()} | parts)


@dataclass(frozen=True)
class Report:
    """Result of one evaluation pass.

    Args:
        scalars: figures by name, averaged over batches by the trainer.
        images: ``[3, H, W]`` images in 0..1 by name; those of the first batch are kept.
    """

    scalars: dict[str, float]
    images: dict[str, Tensor] = field(default_factory=dict)


class BatchSource(Protocol[BatchT_co]):
    """Batches by number: the same step gives the same batch, whatever came before."""

    def batch(self, step: int) -> BatchT_co:
        """The batch of one training step."""
        ...

    def evaluation(self) -> Sequence[BatchT_co]:
        """The fixed batches that figures are measured on."""
        ...


class Stage(nn.Module, ABC, Generic[NetworkT]):
    """Networks and the loss that one of them is trained with. The loop belongs to the trainer."""

    network: NetworkT
    """The one whose parameters are optimised and averaged."""

    shardable = False
    """Whether the trained network is called as a whole alone, as one that is split over processes must be."""

    released = False
    """Whether weights are written in float32, in a file named as in the release of the paper's networks."""

    @abstractmethod
    def forward(self, batch: Any, step: int, /) -> Losses:
        """Loss of one batch at a training step, counted from 1, under the trainer's autocast."""

    def start_from(self, folder: Path, /) -> None:
        """Take over the weights of an earlier run.

        Raises:
            ValueError: when they do not fit.
        """
        require_class(folder, "start_from", type(self.network).__name__)
        cast(BaseNetwork, self.network).load_weights(folder)

    @abstractmethod
    def evaluate(self, batch: Any) -> Report:
        """Figures and images of one batch, without gradients."""

    def save_pretrained(self, directory: Path, /) -> None:
        """Write the network with its configuration, one of our own in half precision or as a release has it."""
        match self.network:
            case BaseNetwork() as network if self.released:
                network.save_pretrained(directory, weights_file=RELEASED_WEIGHTS_FILE)
            case BaseNetwork() as network:
                network.save_pretrained(directory, half=True)
            case network:
                cast(Any, network).save_pretrained(directory)


@dataclass(frozen=True)
class OverfitGoal:
    """A figure that a stage must reach on a few objects that it is trained on alone.

    Args:
        figure: name of the figure in a report; greater is better.
        least: value that it must reach.
    """

    figure: str
    least: float


class StageConfig(ABC):
    """Configuration of the network and the loss of a stage."""

    overfit_goal: ClassVar[OverfitGoal | None] = None
    """What the evaluation of a few objects must reach that nothing else is trained on; None for half of the first
    training loss."""

    @property
    def needs(self) -> tuple[Need, ...]:
        """Trained networks that the stage or its batches are made from."""
        return ()

    @property
    def pretrained(self) -> str | None:
        """Repository of the hub, looked for under ``--pretrained``, whose networks it begins with; None for none."""
        return None

    @property
    def release(self) -> Release | None:
        """Place of the network among the released weights; None where it has none, such as a small one."""
        return None

    def check_packages(self) -> None:
        """Look for the optional packages that it needs.

        Raises:
            ModuleNotFoundError: when one is not installed.
        """
        return

    @property
    def image_patch(self) -> int:
        """Pixels per side of the patches that its network cuts views of any size into; 1 for none."""
        return 1

    def network_size(self, _folders: StageFolders, /) -> int | None:
        """Pixels per side of the images that its networks are made for, by their configurations; None for any."""
        return None

    @abstractmethod
    def build(self, folders: StageFolders, /) -> Stage:
        """The stage, its network with random weights."""


class SourceConfig(ABC):
    """Configuration of the batches of a stage."""

    def view_size(self, _data: Sequence[Path | str], /) -> int | None:
        """Pixels per side of its images; None where the networks bring them to their own size.

        Raises:
            ValueError: when the images of the data cannot be brought to it.
        """
        return None

    @abstractmethod
    def build(self, folders: StageFolders) -> BatchSource[Any]:
        """The source of batches."""
