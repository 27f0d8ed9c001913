"""Access to recorded inputs and outputs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from diffsplat.models.text.text_condition import TextCondition

OFFICIAL = Path(__file__).parents[1] / "parity" / "official"


@dataclass(frozen=True)
class Recordings:
    """The recorded files. Asking for one that is absent skips the test."""

    folder: Path

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in {self.folder}")
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.path(f"{name}.safetensors"))

    def json(self, name: str) -> dict[str, Any]:
        return json.loads(self.path(name).read_text())


def recorded_text(io: dict[str, Tensor], prefix: str, sign: str = "") -> TextCondition:
    """Text of the recorded loops; the sign is ``negative_`` for what guidance steers away from."""
    mask = io.get(f"{prefix}{sign}prompt_attention_mask")
    return TextCondition(
        tokens=io[f"{prefix}{sign}prompt_embeds"],
        mask=None if mask is None else mask > 0.5,
        pooled=io.get(f"{prefix}{sign}pooled"),
    )


def relative_error(computed: Tensor, recorded: Tensor) -> float:
    """Norm of the difference over the norm of what was recorded."""
    assert computed.shape == recorded.shape
    return float(torch.linalg.vector_norm(computed.double() - recorded) / torch.linalg.vector_norm(recorded))
