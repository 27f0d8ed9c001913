"""Materials of glTF files: base colour, emission, alpha modes, texture transforms and samplers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb, srgb_to_linear
from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.render.meshes.gltf_asset import GltfAsset, extension
from diffsplat.render.meshes.texture_images import decode_texture
from diffsplat.render.meshes.triangle_mesh import Texture, Wrap

_WRAPS: dict[int, Wrap] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
_NEAREST = 9728
_IMAGE_EXTENSIONS = ("EXT_texture_webp", "EXT_texture_avif", "KHR_texture_basisu", "MSFT_texture_dds")


@dataclass(frozen=True)
class GltfMaterial:
    """How a surface looks.

    Args:
        factor: ``[4]`` linear colour and opacity that vertex colours are multiplied with.
        opaque: whether opacity is ignored.
        cutoff: see :class:`~diffsplat.render.meshes.triangle_mesh.Texture`.
        texture: None for none.
        uv_set: number of the texture coordinates.
        uv_matrix: ``[3, 3]`` applied to them as the file has them, v downwards.
    """

    factor: NDArray[np.float64]
    opaque: bool = True
    cutoff: float | None = None
    texture: Texture | None = None
    uv_set: int = 0
    uv_matrix: NDArray[np.float64] | None = None


class GltfMaterials:
    """The materials of a file, each read once."""

    def __init__(self, asset: GltfAsset) -> None:
        self._asset = asset
        self._known: dict[int | None, GltfMaterial] = {None: GltfMaterial(np.ones(4))}
        self._pixels: dict[tuple[int, bool], NDArray[np.uint8] | None] = {}

    def material(self, index: int | None) -> GltfMaterial:
        """The material of that number; None for the default, which is white."""
        if index not in self._known:
            try:
                self._known[index] = self._read(self._asset.entry("materials", index))
            except (ValueError, TypeError, AttributeError, LookupError) as error:
                reason = f": {error}" if isinstance(error, InvalidInputError) else ""
                self._asset.losses.color(f"a material is broken{reason}")
                self._known[index] = self._known[None]
        return self._known[index]

    def _read(self, entry: dict[str, Any]) -> GltfMaterial:
        mode = entry.get("alphaMode", "OPAQUE")
        opaque = mode not in ("MASK", "BLEND")
        cutoff = float(entry.get("alphaCutoff", 0.5)) if mode == "MASK" else None
        factor, reference = self._base(entry)
        if opaque:
            factor[3] = 1.0
        read = replace(self._textured(reference, opaque, cutoff), factor=factor, opaque=opaque, cutoff=cutoff)
        return self._glowing(entry, reference, read)

    def _base(self, entry: dict[str, Any]) -> tuple[NDArray[np.float64], dict[str, Any] | None]:
        """Linear colour ``[4]`` and the reference to its texture."""
        glossy = extension(entry, "KHR_materials_pbrSpecularGlossiness")
        glass = extension(entry, "KHR_materials_transmission")
        if glass is not None and glass.get("transmissionFactor", 0) > 0:
            self._asset.losses.color("its glass (KHR_materials_transmission) is drawn opaque")
        if glossy is None:
            rough = entry.get("pbrMetallicRoughness", {})
            return _numbers(rough, "baseColorFactor", 4), rough.get("baseColorTexture")
        factor, reference = _numbers(glossy, "diffuseFactor", 4), glossy.get("diffuseTexture")
        if factor[:3].max() < 0.04:  # a metal, whose colour is that of its reflections
            factor[:3] = _numbers(glossy, "specularFactor", 3)
            reference = glossy.get("specularGlossinessTexture")
        return factor, reference

    def _textured(self, reference: dict[str, Any] | None, opaque: bool, cutoff: float | None) -> GltfMaterial:
        """A white material with the texture of ``reference``."""
        if reference is None:
            return GltfMaterial(np.ones(4))
        try:
            entry = self._asset.entry("textures", reference.get("index"))
            sampler = self._asset.entry("samplers", entry["sampler"]) if "sampler" in entry else {}
        except InvalidInputError as error:
            self._asset.losses.color(f"a texture is broken: {error}")
            return GltfMaterial(np.ones(4))
        pixels = self._image(entry, opaque)
        if pixels is None:
            return GltfMaterial(np.ones(4))
        wrap = (
            _WRAPS.get(sampler.get("wrapS", 10497), "repeat"),
            _WRAPS.get(sampler.get("wrapT", 10497), "repeat"),
        )
        texture = Texture(pixels, wrap, sampler.get("magFilter") == _NEAREST, cutoff)
        transform = extension(reference, "KHR_texture_transform") or {}
        return GltfMaterial(
            np.ones(4),
            texture=texture,
            uv_set=transform.get("texCoord", reference.get("texCoord", 0)),
            uv_matrix=_uv_matrix(transform) if transform else None,
        )

    def _glowing(
        self, entry: dict[str, Any], base: dict[str, Any] | None, read: GltfMaterial
    ) -> GltfMaterial:
        """``read`` with what the surface gives off added to its colour."""
        strength = extension(entry, "KHR_materials_emissive_strength") or {}
        glow = _numbers(entry, "emissiveFactor", 3, 0.0) * float(strength.get("emissiveStrength", 1.0))
        if not glow.any() or extension(entry, "KHR_materials_unlit") is not None:
            return read
        reference = entry.get("emissiveTexture")
        source = self._textured(reference, True, None)
        if reference is not None and source.texture is None:
            return read  # lost, as was noted
        if source.texture is not None and not read.factor[:3].any():
            read = replace(read, texture=None)  # the base colour's texture is multiplied with black
        if source.texture is not None and read.texture is not None and _place(base) != _place(reference):
            self._asset.losses.color("its emissive texture has other coordinates than its base colour")
            return read
        place = source if read.texture is None else read
        if place.texture is None:
            return replace(read, factor=np.append((read.factor[:3] + glow).clip(0, 1), read.factor[3]))
        pixels = _added(read.texture, read.factor, source.texture, glow)
        return replace(
            read,
            factor=np.array([1, 1, 1, read.factor[3]]),
            texture=replace(place.texture, pixels=pixels, cutoff=read.cutoff),
            uv_set=place.uv_set,
            uv_matrix=place.uv_matrix,
        )

    def _image(self, texture: dict[str, Any], opaque: bool) -> NDArray[np.uint8] | None:
        """The first image of a texture that can be read; None, and a loss, where none can."""
        extensions = texture.get("extensions", {})
        holders = (*(extensions.get(name, {}) for name in _IMAGE_EXTENSIONS), texture)
        sources = [holder["source"] for holder in holders if "source" in holder]
        problems = []
        for source in sources:
            if (source, opaque) not in self._pixels:
                name = f"images[{source}]"
                try:
                    image = self._asset.entry("images", source)
                    name = _image_name(image, name)
                    self._pixels[source, opaque] = decode_texture(self._image_data(image), opaque=opaque)
                except DiffSplatError as error:
                    problems.append(f"its texture {name} {error}")
                    continue
            return self._pixels[source, opaque]
        self._asset.losses.color(problems[0] if problems else "its texture has no image")
        return None

    def _image_data(self, image: dict[str, Any]) -> bytes:
        if isinstance(image.get("uri"), str):
            return self._asset.content(image["uri"])
        if "bufferView" not in image:
            raise InvalidInputError("has neither data nor an address")
        return bytes(self._asset.view(image["bufferView"])[0])


def _image_name(image: dict[str, Any], unnamed: str) -> str:
    name = str(image.get("name") or image.get("uri", ""))[:80]
    return repr(name) if name and not name.startswith("data:") else unnamed


def _numbers(holder: dict[str, Any], key: str, count: int, default: float = 1.0) -> NDArray[np.float64]:
    values = np.full(count, default)
    given = np.nan_to_num(np.array(holder.get(key, values), dtype=np.float64)).ravel()[:count]
    values[: len(given)] = given
    return values.clip(0, None)


def _uv_matrix(transform: dict[str, Any]) -> NDArray[np.float64]:
    """Scale, then turn, then move (KHR_texture_transform)."""
    (x, y), (across, down) = transform.get("offset", (0, 0)), transform.get("scale", (1, 1))
    cos, sin = np.cos(transform.get("rotation", 0)), np.sin(transform.get("rotation", 0))
    turned = np.array([[cos, sin], [-sin, cos]]) * [across, down]
    return np.array([[*turned[0], x], [*turned[1], y], [0, 0, 1]], dtype=np.float64)


def _place(reference: dict[str, Any] | None) -> tuple[Any, str]:
    """What two references to textures on the same coordinates have in common."""
    reference = reference or {}
    return reference.get("texCoord", 0), str(reference.get("extensions", {}).get("KHR_texture_transform"))


def _added(
    base: Texture | None, factor: NDArray[np.float64], emitted: Texture | None, glow: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """``[H, W, 4]`` of base colour and emission added in linear light."""
    larger = max((t.pixels for t in (base, emitted) if t is not None), key=len)
    light = np.zeros((*larger.shape[:2], 3), dtype=np.float32)
    for texture, scale in ((base, factor[:3]), (emitted, glow)):
        light += scale if texture is None else srgb_to_linear(_like(texture.pixels, larger)[..., :3]) * scale
    alpha = np.ones(larger.shape[:2]) if base is None else _like(base.pixels, larger)[..., 3]
    srgb = linear_to_srgb(light.clip(0, 1))
    return (np.concatenate([srgb, alpha[..., None]], axis=-1) * 255 + 0.5).astype(np.uint8)


def _like(pixels: NDArray[np.uint8], model: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``pixels`` 0..1 at the size of ``model``, by the nearest texel."""
    rows, columns = (np.arange(model.shape[a]) * pixels.shape[a] // model.shape[a] for a in (0, 1))
    return pixels[rows][:, columns].astype(np.float32) / np.float32(255)
