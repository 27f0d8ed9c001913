"""Benchmarks of generation from an image: rendered objects, and which of their views are compared.

They lie as the rendering script of Zero-1-to-3 (Liu et al. 2023) writes them, which published renderings of Google
Scanned Objects were made with: a folder for each object holds ``000.png`` and ``000.npy``, ``001.png`` and so on. The
array ``[3, 4]`` takes points of a world with Z up to Blender's camera axes: x right, y up, z backward.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from diffsplat.core import DEFAULT_FOCAL, DEFAULT_RADIUS, Cameras, Views
from diffsplat.errors import InvalidInputError, MissingFileError, explained_errors
from diffsplat.evaluation.evaluation_objects import evenly_spread
from diffsplat.geometry.blender_poses import from_blender
from diffsplat.images.image_cutout_and_framing import square_on_white
from diffsplat.io.image_files import read_image
from diffsplat.io.json_files import read_json
from diffsplat.io.numpy_files import read_array


@dataclass(frozen=True)
class ImageBenchmark:
    """Which renderings are compared, and how.

    Args:
        objects: names of the objects' folders; every folder when empty.
        views: folder of the renderings in the folder of an object.
        seen_view: number of the rendering that is given.
        novel_views: numbers of the others that are compared; all of them when empty.
        field_of_view_deg: of every camera.
        size: pixels per side that renderings are brought to and compared at.
        background: of splats and of renderings that are transparent.

    Raises:
        ValueError: for a value of another kind or out of bounds.
    """

    objects: tuple[str, ...] = ()
    views: str = "."
    seen_view: int = 0
    novel_views: tuple[int, ...] = ()
    field_of_view_deg: float = math.degrees(2 * math.atan(16 / 35))
    size: int = 256
    background: Literal["white"] = "white"

    def __post_init__(self) -> None:
        numbers = (self.size - 16, self.seen_view, *self.novel_views)
        if (
            not all(isinstance(name, str) for name in (*self.objects, self.views))
            or not all(isinstance(number, int) and number >= 0 for number in numbers)
            or not 0 < self.field_of_view_deg < 180
            or self.background != "white"
        ):
            raise InvalidInputError(
                f"the protocol is {self}, expected names, numbers of views from 0, an angle below 180 degrees, "
                "at least 16 pixels and the background white"
            )

    @classmethod
    def open(cls, source: str) -> Self:
        """The protocol of a JSON file, or by name one that comes with the package, such as ``gso30``.

        Raises:
            FileNotFoundError: there is no such protocol.
            ValueError: an entry is unknown or out of bounds.
        """
        packaged = Path(str(files("diffsplat.evaluation"))) / f"image_benchmark_{source}.json"
        path = packaged if packaged.is_file() else Path(source)
        content = read_json(path, "expected the name or file of a protocol")
        entries: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        entries.pop("about", None)
        with explained_errors(f"{str(path)!r} is not a protocol", TypeError):
            return cls(**entries)

    def read(self, data: Path, limit: int | None = None) -> Iterator[tuple[str, Views]]:
        """Identity and ``[1, 1 + novel]`` views of the objects in a folder, the given view first.

        At most ``limit`` objects, spread evenly.

        Raises:
            FileNotFoundError: an object or a view is missing.
            ValueError: a file is damaged.
        """
        if not data.is_dir():
            raise MissingFileError(f"no such folder of rendered objects: {data}")
        names = self.objects or sorted(path.name for path in data.iterdir() if path.is_dir())
        for name in (names[place] for place in evenly_spread(len(names), limit)):
            yield name, self._views(data / name / self.views)

    def _views(self, folder: Path) -> Views:
        """The views of an object, in the world that a generation from the given one has."""
        novel = self.novel_views or [
            number
            for path in sorted(folder.glob("*.png"))
            if path.stem.isdigit() and (number := int(path.stem)) != self.seen_view
        ]
        if not novel:
            raise MissingFileError(f"{str(folder)!r} holds no renderings, expected 000.png, 000.npy and more")
        numbers = (self.seen_view, *novel)
        placed = [
            square_on_white(read_image(folder / f"{number:03}.png"), size=self.size) for number in numbers
        ]
        image = torch.stack([each.image for each in placed])[None]
        poses = torch.stack([read_pose(folder / f"{number:03}.npy") for number in numbers])[None]
        cameras = self._cameras(poses)
        white = torch.ones_like(image)
        mask = torch.stack([each.alpha for each in placed])[None]
        return Views(image, mask, white, white, torch.zeros_like(mask), cameras, ("",))

    def _cameras(self, poses: Tensor) -> Cameras:
        """Cameras in a world of such a scale that the given view shows as much around the origin as a generated one."""
        focal = 0.5 / math.tan(math.radians(self.field_of_view_deg) / 2)
        intrinsics = torch.tensor([focal, focal, 0.5, 0.5]).expand(*poses.shape[:2], 4)
        cameras = Cameras(poses, intrinsics, width=self.size, height=self.size)
        return cameras.relative_to_first(DEFAULT_RADIUS * focal / DEFAULT_FOCAL)


def read_pose(path: Path) -> Tensor:
    """``[4, 4]`` camera-to-world pose of a file, OpenCV axes, Y up.

    Raises:
        ValueError: when the file cannot be read, or holds no rigid pose ``[3, 4]``.
    """
    stored = read_array(path, 2)
    rotation = stored[:, :3]
    if stored.shape != (3, 4) or float((rotation @ rotation.mT - torch.eye(3)).abs().max()) > 1e-3:
        raise InvalidInputError(f"{str(path)!r} holds no rigid pose [3, 4]")
    return from_blender(torch.linalg.inv(torch.cat([stored, torch.tensor([[0.0, 0, 0, 1]])])))
