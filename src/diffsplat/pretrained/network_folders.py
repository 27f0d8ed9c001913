"""A folder of one network: opened by the class that its ``config.json`` names or as a release, which has none.

Networks are opened in evaluation mode on the CPU. An ``OSError`` or ``ValueError`` says that a file is missing or
damaged, or describes another network.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.models.denoiser_families import Variant
from diffsplat.models.multiview_pixart import MultiViewPixArt
from diffsplat.models.network_base_class import CONFIG_FILE, WEIGHTS_FILE, BaseNetwork, stored_state
from diffsplat.models.splat_reconstructor import GSRecon
from diffsplat.pretrained.release_catalogue import RELEASED_IMAGE_SIZE
from diffsplat.pretrained.released_networks import (
    load_denoiser,
    load_elevation_network,
    load_reconstructor,
    load_splat_vae,
)

_PATH_ENTRY = "_name_or_path"
"""Entry of a configuration of diffusers that names a folder of the machine it was read on."""


def open_denoiser(folder: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """A denoiser: a ``MultiViewPixArt``, which always has float32, or a network of diffusers."""
    if stored_class(folder) == MultiViewPixArt.__name__:
        return MultiViewPixArt.from_pretrained(folder)
    return load_denoiser(folder, dtype=dtype)


def open_reconstructor(folder: Path) -> GSRecon:
    """A reconstructor in float32."""
    if (folder / CONFIG_FILE).is_file():
        return GSRecon.from_pretrained(folder)
    return load_reconstructor(folder, dtype=torch.float32)


def autoencoder_image_size(folder: Path) -> int:
    """Pixels per side of the images that an autoencoder is made for."""
    path = folder / CONFIG_FILE
    return int(read_json(path)["image_size"]) if path.is_file() else RELEASED_IMAGE_SIZE


def open_autoencoder(
    folder: Path, *, dtype: torch.dtype = torch.float32, variant: Variant | None = None
) -> Any:
    """A ``ComponentAutoencoder``, whose components always are float32, or a ``SplatVAE``.

    Args:
        folder: of its configuration and weights.
        dtype: of its weights.
        variant: latent space of a release, where its weights do not tell it.

    Raises:
        ValueError: the folder holds another kind of network, or damaged weights.
    """
    if not (folder / CONFIG_FILE).is_file():
        return load_splat_vae(folder, variant=variant, dtype=dtype)
    match stored_class(folder):
        case "ComponentAutoencoder":
            from diffsplat.models.principal_component_autoencoder import ComponentAutoencoder

            return ComponentAutoencoder.from_pretrained(folder)
        case "SplatVAE":
            from diffsplat.models.splat_vae import SplatVAE

            return SplatVAE.from_pretrained(folder).to(dtype)
        case other:
            raise InvalidInputError(f"its class is {other!r}, expected ComponentAutoencoder or SplatVAE")


def open_image_encoder(folder: Path, *, dtype: torch.dtype | None = None) -> Any:
    """The ``AutoencoderKL`` of an image-diffusion model, with weights as stored by default; safetensors only."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    vae = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, torch_dtype=dtype
    )
    return vae.eval()


def joined_controlnets(networks: Sequence[Any]) -> Any:
    """One ControlNet, or several that are followed at once."""
    return networks[0] if len(networks) == 1 else nn.ModuleList(networks)


def open_elevation_estimator(folder: Path) -> Any:
    """An elevation estimator in float32."""
    if stored_class(folder) == "MiniElevationEstimator":
        from diffsplat.models.mini_elevation_network import MiniElevationEstimator

        return MiniElevationEstimator.from_pretrained(folder)
    return load_elevation_network(folder)


def stored_class(folder: Path) -> str:
    """Name of the class of a folder's network."""
    return str(read_json(folder / CONFIG_FILE).get("_class_name"))


def save_network(network: Any, folder: Path) -> None:
    """Write the configuration and weights of a network, own or of diffusers, in half precision."""
    if isinstance(network, BaseNetwork):
        network.save_pretrained(folder, half=True)
        return
    target = make_folder(folder)
    config = json.loads(network.to_json_string())
    write_json({key: value for key, value in config.items() if key != _PATH_ENTRY}, target / CONFIG_FILE)
    save_file(stored_state(network.state_dict(), half=True), target / WEIGHTS_FILE, metadata={"format": "pt"})
