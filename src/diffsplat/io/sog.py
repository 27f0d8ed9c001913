"""The ``.sog`` format: ``meta.json`` and lossless WebP textures, one pixel per Gaussian, in a zip archive or a folder.

Positions are 16 bits of ``sign(x) ln(1 + |x|)`` between bounds, sigmas (as logarithms) and colours are
indices of tables with 256 entries, opacity is a byte and rotation three bytes and the index of the component
left out. The layout is described at
https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog/. Version 1, without a table, is
read too. As in the viewers of this format, -Y is up.
"""

import io
import json
import logging
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffsplat.errors import InvalidInputError, require
from diffsplat.io.file_access import read_bytes
from diffsplat.io.gaussian_arrays import SH_DEGREE_0, GaussianArrays
from diffsplat.io.parsing_limits import integer, mapping, numbers, parse_json, sequence, unpacked_limit
from diffsplat.io.splat_quantization import join_largest, morton_order, split_largest, to_codebook, to_unorm
from diffsplat.io.splat_suffixes import SOG_INDEX

logger = logging.getLogger(__name__)

_MAX_INDEX_BYTES = 1 << 20
_LARGEST_TAG = 252
"""Alpha of a pixel of rotations, less the index of the component left out."""


def encode_sog(gaussians: GaussianArrays) -> bytes:
    """The bytes of a ``.sog`` file of version 2, its Gaussians in Morton order.

    Raises:
        ValueError: for more Gaussians than a texture has pixels.
    """
    gaussians = gaussians.take(morton_order(gaussians.means))
    logs = np.sign(gaussians.means) * np.log1p(np.abs(gaussians.means))
    low, high = logs.min(axis=0), logs.max(axis=0)
    codes = to_unorm((logs - low) / np.where(high > low, high - low, 1), 16)
    scale_table, scale_codes = to_codebook(np.log(gaussians.scales))
    color_table, color_codes = to_codebook((gaussians.colors - 0.5) / SH_DEGREE_0)
    largest, others = split_largest(gaussians.quats)
    opaque = np.full(len(logs), 255)
    textures = {
        "means_l": (codes & 255, opaque),
        "means_u": (codes >> 8, opaque),
        "scales": (scale_codes, opaque),
        "quats": (to_unorm(others * 0.5**0.5 + 0.5, 8), largest + _LARGEST_TAG),
        "sh0": (color_codes, to_unorm(gaussians.opacities, 8)),
    }
    meta = {
        "version": 2,
        "asset": {"generator": "diffsplat"},
        "count": len(logs),
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_table.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_table.tolist(), "files": ["sh0.webp"]},
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as bundle:
        for name, (rgb, alpha) in textures.items():
            _add(bundle, f"{name}.webp", _webp(np.column_stack([rgb, alpha]).astype(np.uint8)))
        _add(bundle, "meta.json", json.dumps(meta).encode())
    return archive.getvalue()


def decode_sog(data: bytes) -> GaussianArrays:
    """The Gaussians of a ``.sog`` file.

    Raises:
        ValueError: when it is broken, of another version, or unpacks to far more than its size.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            archive = _Archive(bundle, unpacked_limit(len(data)))
            textures = _Textures(archive.read, archive.limit)
            return _decode(parse_json(archive.read(SOG_INDEX, _MAX_INDEX_BYTES)), textures)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InvalidInputError(f"it is not a readable archive ({error})") from error


def decode_sog_folder(folder: Path) -> GaussianArrays:
    """The Gaussians of a folder with the files of a ``.sog`` archive.

    Raises:
        ValueError: when a file is missing, or one is broken, of another version, or has far more pixels than its
            size suggests.
    """
    index = read_bytes(folder / SOG_INDEX)
    if len(index) > _MAX_INDEX_BYTES:
        raise InvalidInputError(f"its {SOG_INDEX!r} has {len(index)} bytes, expected a few thousand")

    def read(name: str) -> bytes:
        if Path(name).name != name:
            raise InvalidInputError(f"its texture {name[:80]!r} is elsewhere, expected it beside {SOG_INDEX}")
        return read_bytes(folder / name)

    meta = parse_json(index)
    size = sum(entry.stat().st_size for entry in folder.glob("*.webp"))
    return _decode(meta, _Textures(read, unpacked_limit(size)))


class _Archive:
    """The files of an archive, none of which unpacks to more than ``limit`` bytes."""

    def __init__(self, bundle: zipfile.ZipFile, limit: int) -> None:
        self._bundle = bundle
        self.limit = limit
        # Some programs put the files into a folder of the archive.
        paths = [name for name in bundle.namelist() if PurePosixPath(name).name == SOG_INDEX]
        self._prefix = min(paths, key=len, default=SOG_INDEX).removesuffix(SOG_INDEX)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """One file, of at most ``limit`` bytes."""
        most = self.limit if limit is None else limit
        try:
            entry = self._bundle.getinfo(self._prefix + name)
        except KeyError as error:
            raise InvalidInputError(f"its archive lacks {name!r}") from error
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidInputError(f"its {name!r} is packed in an unusual way")
        if entry.file_size > most:
            raise InvalidInputError(f"its {name!r} unpacks to {entry.file_size} bytes, more than {most}")
        with self._bundle.open(entry) as file:
            return file.read(most)


@dataclass(frozen=True)
class _Textures:
    """The textures that ``read`` finds by name, none of which has more than ``limit`` bytes of pixels."""

    read: Callable[[str], bytes]
    limit: int

    def pixels(self, meta: dict[str, Any], key: str, count: int, index: int = 0) -> NDArray[np.uint8]:
        """``[count, 4]`` of a texture."""
        names = sequence(mapping(meta, key), "files")
        if index >= len(names) or not isinstance(names[index], str):
            raise InvalidInputError(f"its JSON lacks the name of a file for {key!r}")
        packed = self.read(names[index])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(packed), formats=["WEBP"]) as image:
                    pixels = image.width * image.height
                    if pixels < count:
                        raise InvalidInputError(f"its {names[index]!r} has {pixels} pixels, expected {count}")
                    if pixels * 4 > self.limit:
                        raise InvalidInputError(
                            f"its {names[index]!r} has {pixels} pixels, too many for its size"
                        )
                    return np.asarray(image.convert("RGBA")).reshape(-1, 4)[:count]
        except (OSError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise InvalidInputError(f"its {names[index]!r} is a broken image") from error


def _decode(meta: dict[str, Any], textures: _Textures) -> GaussianArrays:
    version = meta.get("version", 1)
    require(version in (1, 2) and not isinstance(version, bool), "its version", repr(version), "1 or 2")
    bounds = mapping(meta, "means")
    if version == 1:
        shape = numbers(bounds, "shape")
        count = integer({"count": int(shape[0])}, "count")
    else:
        count = integer(meta, "count")
    if not count:
        raise InvalidInputError("it has no Gaussians")
    if "shN" in meta:
        logger.warning("spherical-harmonic coefficients beyond degree 0 are ignored")
    colors, opacities = _colors(meta, textures, count, version)
    log_scales = _looked_up(meta, "scales", textures.pixels(meta, "scales", count), version)
    return GaussianArrays(
        means=_means(meta, textures, count),
        scales=np.exp(np.minimum(log_scales, 80)),
        quats=_quats(textures.pixels(meta, "quats", count)),
        opacities=opacities,
        colors=colors,
    )


def _means(meta: dict[str, Any], textures: _Textures, count: int) -> NDArray[np.floating]:
    low, high = (_bounds(meta, "means", key) for key in ("mins", "maxs"))
    codes = textures.pixels(meta, "means", count, 1)[:, :3].astype(np.float32) * 256
    codes += textures.pixels(meta, "means", count, 0)[:, :3]
    codes *= (high - low) / 65535
    codes += low
    with np.errstate(over="ignore"):
        return np.sign(codes) * np.expm1(np.abs(codes))


def _colors(
    meta: dict[str, Any], textures: _Textures, count: int, version: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    pixels = textures.pixels(meta, "sh0", count)
    colors = _looked_up(meta, "sh0", pixels, version) * np.float32(SH_DEGREE_0) + np.float32(0.5)
    opacities = pixels[:, 3].astype(np.float32) / 255
    if version == 1:
        low, high = (_bounds(meta, "sh0", edge, 4)[3] for edge in ("mins", "maxs"))
        with np.errstate(over="ignore"):
            opacities = 1 / (1 + np.exp(-(low + (high - low) * opacities)))
    return colors, opacities


def _looked_up(
    meta: dict[str, Any], key: str, pixels: NDArray[np.uint8], version: int
) -> NDArray[np.floating]:
    """``[N, 3]`` from a table, or in version 1 from between bounds."""
    if version == 1:
        low, high = (_bounds(meta, key, edge) for edge in ("mins", "maxs"))
        return pixels[:, :3].astype(np.float32) * ((high - low) / 255) + low
    table = _codebook(meta, key)
    if int(pixels[:, :3].max()) >= len(table):
        raise InvalidInputError(f"its table of {key!r} has {len(table)} entries, fewer than its pixels name")
    return table[pixels[:, :3]]


def _codebook(meta: dict[str, Any], key: str) -> NDArray[np.float32]:
    """The table of a texture's values."""
    table = np.array(numbers(mapping(meta, key), "codebook", null=True), dtype=np.float32)
    if np.isnan(table[0]) and len(table) > 1:
        # Some versions of PlayCanvas' program write null for the first; its viewers extend the table to there.
        table[0] = table[1] + (table[1] - table[-1]) / 255
    return table


def _quats(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``[N, 4]``, NaN where the mark of the largest component is missing."""
    tags = pixels[:, 3]
    unmarked = tags < _LARGEST_TAG
    others = (pixels[:, :3].astype(np.float32) / 255 * 2 - 1) * np.float32(0.5**0.5)
    others[unmarked] = np.nan
    largest = np.where(unmarked, np.uint8(0), tags - np.uint8(_LARGEST_TAG))
    return join_largest(largest, others).astype(np.float32, copy=False)


def _bounds(meta: dict[str, Any], key: str, edge: str, length: int = 3) -> NDArray[np.float32]:
    values = numbers(mapping(meta, key), edge, null=True)
    if len(values) < length:
        raise InvalidInputError(f"its JSON has {len(values)} numbers {edge!r} of {key!r}, expected {length}")
    return np.array(values[:length], dtype=np.float32)


def _webp(rows: NDArray[np.uint8]) -> bytes:
    """``[N, 4]`` as a nearly square lossless image, its sides multiples of 4."""
    width = max(-(-int(np.ceil(np.sqrt(len(rows)))) // 4) * 4, 4)
    height = -(-len(rows) // (width * 4)) * 4
    if max(width, height) > 16383:
        raise InvalidInputError(f"{len(rows)} Gaussians do not fit into the textures of a .sog file")
    canvas = np.zeros((height * width, 4), dtype=np.uint8)
    canvas[: len(rows)] = rows
    target = io.BytesIO()
    Image.fromarray(canvas.reshape(height, width, 4)).save(
        target, format="WEBP", lossless=True, exact=True, quality=75, method=3
    )
    return target.getvalue()


def _add(bundle: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Store a file with a fixed date, so that equal splats give equal archives."""
    bundle.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
