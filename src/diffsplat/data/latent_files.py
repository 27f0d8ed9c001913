"""Files of splat latents: what a model's autoencoder makes of one object, with the cameras of its views."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffsplat.core import Cameras
from diffsplat.errors import InvalidInputError, explained_errors
from diffsplat.io.file_access import atomic_path, require_readable

_FORMAT = "diffsplat latents"


@dataclass(frozen=True)
class StoredLatents:
    """Latents of one object.

    Args:
        latents: ``[1, V, C, h, w]``.
        cameras: ``[1, V]`` of the views.
        model: name of the model whose autoencoder made them.
    """

    latents: Tensor
    cameras: Cameras
    model: str

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write a safetensors file, complete or not at all."""
        tensors = {
            "latents": self.latents,
            "camera_to_world": self.cameras.camera_to_world,
            "intrinsics": self.cameras.intrinsics,
        }
        stored = {name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}
        metadata = {"format": _FORMAT, "model": self.model, "size": str(self.cameras.width)}
        with atomic_path(path, force=force) as temporary:
            save_file(stored, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: there is no file, or it holds something else.
        """
        failure = f"{str(path)!r} holds no latents"
        with (
            explained_errors(failure, SafetensorError, KeyError),
            safe_open(require_readable(path), framework="pt") as file,
        ):
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise InvalidInputError(f"{failure}, expected a file of 'diffsplat reconstruct'")
            size = int(metadata["size"])
            cameras = Cameras(file.get_tensor("camera_to_world"), file.get_tensor("intrinsics"), size, size)
            return cls(file.get_tensor("latents"), cameras, metadata["model"])
