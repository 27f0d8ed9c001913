"""Reading and writing the weights of networks."""

import copy
from pathlib import Path
from typing import Any, TypeVar, cast

from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.constants import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import nn

import diffsplat
from diffsplat.errors import InvalidInputError

NetworkT = TypeVar("NetworkT", bound=ModelMixin)


def load_network(kind: type[NetworkT], folder: Path) -> NetworkT:
    """A network of a local folder, in evaluation mode and float32 on the CPU.

    Raises:
        OSError: when a file of the folder is missing.
        ValueError: when the file lacks weights of the network or has others.
    """
    configured: Any = kind
    network = configured.from_config(cast(dict[str, Any], configured.load_config(folder)))
    load_weights(network, folder)
    return network.eval()


def load_weights(network: ModelMixin, folder: Path) -> None:
    """Put the weights of a local folder into a network, in place.

    Raises:
        OSError: when the file of weights is missing.
        ValueError: when the file lacks weights of the network, has others, or has one of another shape.
    """
    state = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    module = cast(nn.Module, network)
    for name, tensor in module.state_dict().items():
        if name in state and state[name].shape != tensor.shape:
            raise InvalidInputError(
                f"the weight {name} in {str(folder)!r} has the shape {tuple(state[name].shape)}, expected "
                f"{tuple(tensor.shape)}"
            )
    missing, unknown = module.load_state_dict(state, strict=False)
    if missing or unknown:
        first = (missing or unknown)[0]
        raise InvalidInputError(
            f"{len(missing)} weights are missing and {len(unknown)} unknown, such as {first}, expected those of "
            f"diffsplat {diffsplat.__version__}"
        )


def save_half(network: ModelMixin, folder: Path) -> None:
    """Write a copy of a network in half precision, as safetensors with its configuration."""
    copy.deepcopy(network).half().save_pretrained(folder)
