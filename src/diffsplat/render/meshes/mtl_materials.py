"""Materials of OBJ files (MTL), as modelling programs write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from diffsplat.errors import DiffSplatError
from diffsplat.render.meshes.linked_files import read_linked
from diffsplat.render.meshes.mesh_text import decoded, numbers, statements
from diffsplat.render.meshes.texture_images import decode_texture
from diffsplat.render.meshes.triangle_mesh import FloatArray, LossList, Material, Texture

DIFFUSE_GAIN = 1.25
"""Modelling programs write Kd multiplied by a diffuse intensity whose default is 0.8."""
_OPTION_WORDS = {
    "-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-colorspace": 1,
    "-imfchan": 1, "-mm": 2, "-texres": 1, "-type": 1,
}  # fmt: skip
_OPTION_VECTORS = ("-o", "-s", "-t")
"""Options with one to three numbers."""


@dataclass(frozen=True)
class MtlMaterial:
    """A material and where its texture lies: ``uv * scale + offset``."""

    material: Material
    uv_scale: tuple[float, float] = (1.0, 1.0)
    uv_offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class TextureMap:
    """A ``map_`` statement: the file's name and the options before it."""

    name: str
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamped: bool = False


@dataclass
class MtlDescription:
    """The statements of one material that count here, the last of each kind.

    Args:
        folders: where its textures may lie.
        values: numbers of ``kd``, ``ke``, ``d`` and ``tr``.
        maps: ``map_kd``, ``map_ke`` and ``map_d``.
        swapped: whether ``tr`` means opacity.
    """

    folders: tuple[Path, ...]
    values: dict[str, list[float]] = field(default_factory=dict)
    maps: dict[str, TextureMap] = field(default_factory=dict)
    swapped: bool = False


def read_descriptions(data: bytes, *folders: Path) -> dict[str, MtlDescription]:
    """The materials of an MTL file whose textures lie in one of ``folders``, by name."""
    descriptions: dict[str, MtlDescription] = {}
    current = MtlDescription(folders)
    for keyword, rest in statements(data):
        text = decoded(rest)
        if keyword == b"newmtl":
            current = descriptions.setdefault(text, MtlDescription(folders))
        elif keyword in (b"kd", b"ke", b"d", b"tr"):
            words = [word for word in rest.split() if word != b"-halo"]
            current.values[keyword.decode()] = numbers(words)
        elif keyword in (b"map_kd", b"map_ke", b"map_d") and text:
            current.maps[keyword.decode()] = texture_map(text)
    # In a file where something has a transparency of 1, the word is used for opacity.
    swapped = any(d.values.get("tr") == [1.0] for d in descriptions.values() if "d" not in d.values)
    return {name: replace(description, swapped=swapped) for name, description in descriptions.items()}


def texture_map(text: str) -> TextureMap:
    """The options and the file name, which may hold blanks, of a ``map_`` statement."""
    text = text.replace("\t", " ")
    vectors: dict[str, tuple[float, float]] = {}
    clamped = False
    for option, arguments, rest in _options(text):
        text = rest
        if option in _OPTION_VECTORS:
            given = [float(word) for word in arguments]
            default = 1.0 if option == "-s" else 0.0
            vectors[option] = (given[0], given[1] if len(given) > 1 else default)
        elif option == "-clamp":
            clamped = arguments[0].lower() == "on"
    return TextureMap(text.strip(), vectors.get("-s", (1.0, 1.0)), vectors.get("-o", (0.0, 0.0)), clamped)


def _options(text: str) -> Iterator[tuple[str, list[str], str]]:
    """Each option with its arguments and the text behind them."""
    while True:
        option, _, rest = text.strip().partition(" ")
        option = option.lower()
        count = _OPTION_WORDS.get(option, 0)
        arguments: list[str] = []
        while len(arguments) < 3:
            word, _, behind = rest.strip().partition(" ")
            if len(arguments) >= count and not (option in _OPTION_VECTORS and _is_number(word)):
                break
            arguments.append(word)
            rest = behind
        if not arguments:
            return
        yield option, arguments, rest
        text = rest


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_material(description: MtlDescription, losses: LossList) -> MtlMaterial:
    """The material that is described, with its texture; one that cannot be read is noted."""
    values, opacity_map = description.values, description.maps.get("map_d")
    if not (np.isfinite(values.get("kd", [])).all() or "map_kd" in description.maps):
        losses.color("one of its colours (Kd) is not given as red, green and blue")
    color, emits = _color(values)
    color_map = description.maps.get("map_ke" if emits else "map_kd")
    color[3] = _opacity(values, description.swapped)
    pixels = None if color_map is None else _pixels(color_map, description.folders, losses)
    if pixels is not None:
        color[:3] = 1.0
    if opacity_map is not None and (opacity_map.name != getattr(color_map, "name", None) or pixels is None):
        pixels = _with_opacity(pixels, _pixels(opacity_map, description.folders, losses))
    if pixels is None:
        return MtlMaterial(Material(color))
    place = color_map or opacity_map or TextureMap("")
    wrap = "clamp" if place.clamped else "repeat"
    return MtlMaterial(Material(color, Texture(pixels, (wrap, wrap))), place.scale, place.offset)


def _color(values: Mapping[str, list[float]]) -> tuple[FloatArray, bool]:
    """sRGB and opacity 1: what the surface reflects, or what it gives off (True) where it reflects nothing."""
    diffuse, emitted = (
        np.nan_to_num(np.array(values.get(key) or missing, dtype=np.float64)).clip(0, 1)
        for key, missing in (("kd", [1.0]), ("ke", [0.0]))
    )
    emits = bool(not diffuse.any() and emitted.any())
    rgb = emitted if emits else diffuse * DIFFUSE_GAIN
    rgb = rgb if len(rgb) >= 3 else rgb[:1].repeat(3)
    return np.array([*np.minimum(rgb[:3], 1.0), 1.0], dtype=np.float32), emits


def _opacity(values: Mapping[str, list[float]], swapped: bool) -> float:
    """From ``d`` (dissolve) or ``Tr`` (its opposite, in some programs the same), 0..1."""
    dissolve, transparency = (
        next((value for value in reversed(values.get(key, [])) if np.isfinite(value)), None)
        for key in ("d", "tr")
    )
    if dissolve is None:
        if not transparency:  # in either meaning: nobody writes what cannot be seen
            return 1.0
        return float(np.clip(transparency if swapped else 1.0 - transparency, 0.0, 1.0))
    if dissolve == 0 and transparency == 0:
        return 1.0
    return float(np.clip(dissolve, 0.0, 1.0))


def _pixels(place: TextureMap, folders: tuple[Path, ...], losses: LossList) -> np.ndarray | None:
    try:
        pixels = decode_texture(read_linked(place.name, *folders))
    except DiffSplatError as error:
        losses.color(f"its texture {place.name!r} {error}")
        return None
    if not pixels[..., 3].any():
        pixels[..., 3] = 255  # nobody paints a texture to be invisible
    return pixels


def _with_opacity(pixels: np.ndarray | None, opacity: np.ndarray | None) -> np.ndarray | None:
    """An image whose opacity is the brightness of another, or that one's alpha where it has any."""
    if opacity is None:
        return pixels
    alpha = opacity[..., 3] if (opacity[..., 3] < 255).any() else opacity[..., :3].max(axis=-1)
    if pixels is None:
        pixels = np.full((*alpha.shape, 4), 255, dtype=np.uint8)
    rows = np.arange(pixels.shape[0]) * alpha.shape[0] // pixels.shape[0]
    columns = np.arange(pixels.shape[1]) * alpha.shape[1] // pixels.shape[1]
    return np.concatenate([pixels[..., :3], alpha[rows][:, columns, None]], axis=-1)
