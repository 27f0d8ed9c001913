"""How stages write the networks of models and of releases."""

from pathlib import Path
from typing import Literal, assert_never

from diffsplat.models.configured_network import RELEASED_WEIGHTS_FILE, ConfiguredNetwork

WeightFiles = Literal["model", "release"]
"""Weights in half precision as in the small models, or in float32 in a file named as in the release of the paper's
networks."""


def save_network(network: ConfiguredNetwork, folder: Path, files: WeightFiles) -> None:
    """Write a network and its configuration."""
    match files:
        case "model":
            network.save_pretrained(folder, half=True)
        case "release":
            network.save_pretrained(folder, weights_file=RELEASED_WEIGHTS_FILE)
        case _:
            assert_never(files)
