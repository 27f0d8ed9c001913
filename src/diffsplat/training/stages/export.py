"""Writing trained networks."""

import copy
from pathlib import Path

from diffusers.models.modeling_utils import ModelMixin


def save_half(network: ModelMixin, directory: Path) -> None:
    """Write a copy of a network in half precision, as safetensors with its configuration."""
    copy.deepcopy(network).half().save_pretrained(directory)
