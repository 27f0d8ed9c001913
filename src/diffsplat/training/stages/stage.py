"""What the trainer knows of a stage."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True)
class Losses:
    """Result of one training pass.

    Args:
        total: scalar that is differentiated.
        parts: detached scalars for the log, by name.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Result of one evaluation pass.

    Args:
        scalars: figures by name, averaged over batches by the trainer.
        images: ``[3, H, W]`` pictures in 0..1 by name; those of the first batch are kept.
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


class Stage(nn.Module, ABC):
    """One thing to train: networks and the loss that fits them. The loop belongs to the trainer."""

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Loss of one batch, under the trainer's autocast."""

    @abstractmethod
    def trainable(self) -> nn.Module:
        """The network whose parameters are optimised and averaged."""

    @abstractmethod
    def evaluate(self, batch: Any) -> Report:
        """Figures and pictures of one batch, without gradients."""

    @abstractmethod
    def save_pretrained(self, directory: Path) -> None:
        """Write the trained network as fp16 safetensors with its configuration."""
