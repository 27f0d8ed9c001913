"""Reading and writing the weights of networks."""

from pathlib import Path
from typing import TypeVar

from diffsplat.models.configured_network import ConfiguredNetwork

NetworkT = TypeVar("NetworkT", bound=ConfiguredNetwork)


def load_network(kind: type[NetworkT], folder: Path) -> NetworkT:
    """A network of a local folder; see :meth:`ConfiguredNetwork.from_pretrained`."""
    return kind.from_pretrained(folder)


def load_weights(network: ConfiguredNetwork, folder: Path) -> None:
    """Put the weights of a local folder into a network, in place."""
    network.load_weights(folder)


def save_half(network: ConfiguredNetwork, folder: Path) -> None:
    """Write a network in half precision."""
    network.save_pretrained(folder, half=True)
