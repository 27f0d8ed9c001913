"""Image features of the network that judges rest on, stored by the content of the image."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffsplat.evaluation.noun_judge import image_features
from diffsplat.io.file_access import atomic_path, make_folder
from diffsplat.models.efficientnet import EfficientNetLite0


class FeatureStore:
    """Features by the content of the image, kept in one file so that none is computed twice.

    Args:
        network: gives the features.
        path: safetensors file to read first and to write in :meth:`save`; None keeps them in memory.
    """

    def __init__(self, network: EfficientNetLite0, path: Path | None = None) -> None:
        self._network = network
        self._path = path
        self._known: dict[str, Tensor] = load_file(path) if path is not None and path.is_file() else {}
        self._grown = False

    def features(self, images: Sequence[Tensor]) -> Tensor:
        """``[N, 1280]`` float32 features of ``[3, H, W]`` images (sRGB 0..1 on white)."""
        keys = [_content_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        if new:
            computed = image_features(self._network, torch.stack(list(new.values())))
            self._known.update(zip(new, computed.half().unbind(), strict=True))
            self._grown = True
        return torch.stack([self._known[key] for key in keys]).float()

    def save(self) -> None:
        """Write the file when there is something new."""
        if self._path is not None and self._grown:
            make_folder(self._path.parent)
            with atomic_path(self._path, force=True) as temporary:
                save_file({key: tensor.contiguous() for key, tensor in self._known.items()}, temporary)
            self._grown = False


def _content_key(image: Tensor) -> str:
    pixels = (image * 255).round().to(torch.uint8).contiguous()
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()
