"""Reading G-Objaverse: rendered objects in their public layout.

An object is a folder or a .tar archive with ``campos_512_v4/NNNNN/NNNNN{.json,.png,_nd.exr}`` for each view
(``_albedo.png`` and ``_mr.png`` lie next to them and are not needed).

Files use a world with Z up and OpenCV cameras; normals have an X axis that points the other way. Here the
world has Y up.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffsplat.core import DEFAULT_FOCAL, Cameras
from diffsplat.errors import InvalidInputError, MissingFileError, one_line, optional_package, require
from diffsplat.io.image_decoding import IMAGE_DAMAGE, DecodingLimits

CAMERA_FOLDER = "campos_512_v4"
_DEPTH_RANGE = 5.0
_PARTS = {"pose": ".json", "image": ".png", "geometry": "_nd.exr"}


@dataclass(frozen=True)
class StoredView:
    """One view as it is stored, in the data set's own scale, Y up.

    Args:
        rgba: ``[4, H, W]`` sRGB 0..1 with straight alpha.
        normal: ``[3, H, W]`` world normals, zero outside the object.
        depth: ``[1, H, W]`` camera z, 0 outside the object.
        camera_to_world: ``[4, 4]`` OpenCV.
    """

    rgba: Tensor
    normal: Tensor
    depth: Tensor
    camera_to_world: Tensor


class BrokenViewError(ValueError):
    """A view that cannot be used; ``reason`` says why, without saying which view it is."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.reason = reason


class StoredObject:
    """One object of G-Objaverse: a folder or a .tar archive, read view by view."""

    def __init__(self, path: Path | str) -> None:
        """Find out what is there; no image is read.

        Raises:
            FileNotFoundError: there is no such folder or archive.
            ValueError: it is not a readable .tar archive, or holds no ``campos_512_v4``.
        """
        self.path = Path(path)
        if self.path.is_dir():
            self._files = _folder_files(self.path)
        elif self.path.is_file():
            self._files = _archive_files(self.path)
        else:
            raise MissingFileError(f"no such folder or archive of G-Objaverse: {path}")
        if not self._files:
            raise InvalidInputError(
                f"{path} holds no {CAMERA_FOLDER}/00000, expected an object of G-Objaverse"
            )

    @property
    def views(self) -> tuple[int, ...]:
        """Numbers of the views of which anything is there, ascending."""
        return tuple(sorted({number for number, _ in self._files}))

    def read(self, number: int) -> StoredView:
        """One view.

        Raises:
            BrokenViewError: a file of the view is missing or broken, or the view shows nothing.
        """
        try:
            parts = {part: self._bytes(number, ending) for part, ending in _PARTS.items()}
            pose = read_pose(parts["pose"])
            rgba = _image(parts["image"])
            normal, depth = _geometry(parts["geometry"])
            if rgba.shape[1:] != depth.shape[1:]:
                raise InvalidInputError(f"the image has {_size(rgba)} pixels, its depth {_size(depth)}")
            visible = rgba[3] > 0
            if not bool(visible.any()) or not bool((depth > 0).any()):
                raise InvalidInputError("nothing of the object is visible")
            if not bool(torch.isfinite(torch.cat([normal, depth]))[:, visible].all()):
                raise InvalidInputError("its normals or depths hold NaN or infinite values")
            inside = visible & torch.isfinite(depth[0])
            return StoredView(rgba, torch.where(inside, normal, 0.0), torch.where(inside, depth, 0.0), pose)
        except ValueError as error:
            raise BrokenViewError(f"view {number} of {self.path}", str(error)) from error

    def _bytes(self, number: int, ending: str) -> bytes:
        source = self._files.get((number, ending))
        if source is None:
            raise InvalidInputError(f"its {ending} file is missing")
        try:
            if isinstance(source, Path):
                return source.read_bytes()
            with self.path.open("rb") as archive:
                archive.seek(source[0])
                data = archive.read(source[1])
        except OSError as error:
            raise InvalidInputError(f"its {ending} file cannot be read: {error.strerror}") from error
        if len(data) < source[1]:
            raise InvalidInputError(f"its {ending} file is cut off")
        return data


def read_pose(data: bytes) -> Tensor:
    """``[4, 4]`` camera to world, OpenCV, Y up, of a view's .json file.

    Raises:
        ValueError: it is not a pose, or that of another camera than G-Objaverse's.
    """
    try:
        values = json.loads(data)
        columns = [[float(number) for number in values[name]] for name in ("x", "y", "z", "origin")]
        field_of_view = float(values.get("x_fov", 2 * math.atan(0.5 / DEFAULT_FOCAL)))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidInputError("its .json file is not a camera with x, y, z and origin") from error
    if [len(column) for column in columns] != [3, 3, 3, 3] or not np.isfinite(columns).all():
        raise InvalidInputError("its .json file holds a camera with NaN, infinite or missing numbers")
    near = 0 < field_of_view < math.pi and abs(0.5 / math.tan(field_of_view / 2) / DEFAULT_FOCAL - 1) <= 0.01
    require(near, "its field of view", f"{field_of_view:.4g} radians", "0.6911")
    x, y, z = np.array(columns).T
    pose = torch.eye(4)
    pose[:3] = torch.from_numpy(np.stack([x, z, -y])).float()
    if float(torch.linalg.vector_norm(pose[:3, 3])) < 1e-3:
        raise InvalidInputError("its camera is at the centre of the object")
    try:
        Cameras(pose, torch.tensor([1.0, 1.0, 0.5, 0.5]), width=1, height=1)
    except ValueError as error:
        raise InvalidInputError("its .json file holds a camera whose axes are not at right angles") from error
    return pose


def _image(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if not image.has_transparency_data:
                raise InvalidInputError("its image has no alpha channel")
            _require_few_pixels(image.width, image.height)
            pixels = np.array(image.convert("RGBA"))
    except InvalidInputError:
        raise
    except IMAGE_DAMAGE as error:
        raise InvalidInputError("its .png file is broken") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _geometry(data: bytes) -> tuple[Tensor, Tensor]:
    """Normals ``[3, H, W]`` with Y up and depth ``[1, H, W]`` of an .exr file, in steps of 16 bits.

    The original keeps both as 16-bit images, cut and not rounded, so what it learns from has these steps.
    """
    red, green, blue, alpha = np.stack(_exr_channels(data))
    normal = np.stack([red, green, blue])
    steps = np.floor((normal * np.float32(0.5) + np.float32(0.5)) * 65535)
    normal = (steps / np.float32(65535)) * 2 - 1
    depth = np.floor(alpha / _DEPTH_RANGE * 65535) / np.float32(65535) * _DEPTH_RANGE
    normal[0] = -normal[0]
    return torch.from_numpy(normal), torch.from_numpy(depth.clip(0, None)[None])


def _exr_channels(data: bytes) -> list[NDArray[np.float32]]:
    """R, G, B, A of an OpenEXR file, ``[H, W]`` each."""
    with optional_package("G-Objaverse", "OpenEXR", "data"):
        import OpenEXR
    try:
        # What is wrong with a file is printed, and not always raised.
        with contextlib.redirect_stdout(io.StringIO()):
            head = OpenEXR.File(io.BytesIO(data), separate_channels=True, header_only=True)
            low, high = head.header()["dataWindow"]
            _require_few_pixels(*(int(most) - int(least) + 1 for least, most in zip(low, high, strict=True)))
            file = OpenEXR.File(io.BytesIO(data), separate_channels=True)
        channels = file.channels() if file.parts else {}
        planes = [np.asarray(channels[name].pixels, dtype=np.float32) for name in "RGBA"]
    except InvalidInputError:
        raise
    except IMAGE_DAMAGE as error:
        raise InvalidInputError("its .exr file is broken or lacks a channel") from error
    if any(plane.ndim != 2 or plane.shape != planes[0].shape for plane in planes):
        raise InvalidInputError("its .exr file holds channels of different sizes")
    return planes


def _require_few_pixels(width: int, height: int) -> None:
    if not 0 < width * height <= DecodingLimits.max_pixels:
        raise InvalidInputError(
            f"it has {width} x {height} pixels, expected at most {DecodingLimits.max_pixels}"
        )


def _folder_files(folder: Path) -> dict[tuple[int, str], Path | tuple[int, int]]:
    root = folder / CAMERA_FOLDER
    files: dict[tuple[int, str], Path | tuple[int, int]] = {}
    for path in root.glob("[0-9]*/*") if root.is_dir() else ():
        key = _view_file(path.relative_to(folder).as_posix())
        if key is not None:
            files[key] = path
    return files


def _archive_files(path: Path) -> dict[tuple[int, str], Path | tuple[int, int]]:
    """Where in an uncompressed .tar archive the data of each file begins, and its length."""
    files: dict[tuple[int, str], Path | tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                key = _view_file(member.name)
                if key is not None and member.isfile():
                    files[key] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        if not files:
            raise InvalidInputError(f"{path} is not a readable .tar archive: {one_line(error)}") from error
    return files


def _view_file(name: str) -> tuple[int, str] | None:
    """Number and ending of a needed file, None for all others."""
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[-3] != CAMERA_FOLDER or not parts[-2].isdigit():
        return None
    ending = parts[-1].removeprefix(parts[-2])
    return (int(parts[-2]), ending) if ending in _PARTS.values() else None


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"
