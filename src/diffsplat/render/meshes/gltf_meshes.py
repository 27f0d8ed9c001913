"""glTF 2.0 meshes: primitives of all kinds with morph targets, skins and Draco compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.core.srgb import linear_to_srgb
from diffsplat.errors import InvalidInputError, optional_package
from diffsplat.render.meshes.gltf_asset import GltfAsset, extension
from diffsplat.render.meshes.gltf_materials import GltfMaterial, GltfMaterials
from diffsplat.render.meshes.gltf_nodes import PlacedMesh, placed_meshes
from diffsplat.render.meshes.polygon_triangles import fan_triangles, strip_triangles, within
from diffsplat.render.meshes.triangle_mesh import (
    DoubleArray,
    LossList,
    Material,
    MeshPart,
    moved_points,
    normal_matrix,
)

MAX_TRIANGLES = 10_000_000
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"
_READ_EXTENSIONS = {
    *("KHR_mesh_quantization", "KHR_texture_transform", "KHR_node_visibility", "EXT_mesh_gpu_instancing"),
    *("EXT_meshopt_compression", "KHR_meshopt_compression", _DRACO),
    *("EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds", "KHR_texture_basisu"),
    *("KHR_materials_unlit", "KHR_materials_pbrSpecularGlossiness", "KHR_materials_emissive_strength"),
    *("KHR_materials_transmission", "KHR_materials_variants", "KHR_lights_punctual"),
    # Without a part in the colour or the shape:
    *("KHR_materials_clearcoat", "KHR_materials_ior", "KHR_materials_specular", "KHR_materials_anisotropy"),
    *("KHR_materials_volume", "KHR_materials_dispersion", "KHR_animation_pointer", "KHR_xmp_json_ld"),
    *(
        "KHR_materials_sheen",
        "KHR_materials_iridescence",
        "KHR_accessor_float64",
        "KHR_mesh_primitive_restart",
    ),
    *("EXT_mesh_features", "EXT_structural_metadata", "EXT_mesh_manifold", "CESIUM_RTC", "MSFT_lod"),
}
_READ_ATTRIBUTES = ("POSITION", "NORMAL", "COLOR_0", "TEXCOORD_", "JOINTS_", "WEIGHTS_")
Attributes = dict[str, NDArray[Any]]


def read_gltf(data: bytes, folder: Path, losses: LossList, *, nodes: str = "") -> list[MeshPart]:
    """The parts of a ``.glb`` or ``.gltf`` file in ``folder``, of nodes whose name starts with ``nodes``.

    Raises:
        ValueError: it is broken, or compressed in a way that is not read.
    """
    asset = GltfAsset(data, folder, losses)
    for name in asset.root.get("extensionsRequired", []):
        if name not in _READ_EXTENSIONS:
            losses.color(f"it requires the extension {str(name)[:60]}, which is not read")
    materials = GltfMaterials(asset)
    parts: list[MeshPart] = []
    triangles = 0
    for placed in placed_meshes(asset, nodes):
        for primitive in placed.mesh.get("primitives", []):
            part = _primitive(asset, primitive, placed, materials)
            if part is None:
                continue
            triangles += len(part.corners) * len(placed.places)
            if triangles > MAX_TRIANGLES:
                raise InvalidInputError(f"it has more than {MAX_TRIANGLES} triangles")
            parts += [_moved(part, matrix) for matrix in placed.places]
    return parts


def _moved(part: MeshPart, matrix: NDArray[np.float64]) -> MeshPart:
    normals = None if part.normals is None else part.normals @ normal_matrix(matrix)
    return MeshPart(moved_points(part.corners, matrix), part.material, normals, part.uv, part.colors)


def _primitive(
    asset: GltfAsset, primitive: dict[str, Any], placed: PlacedMesh, materials: GltfMaterials
) -> MeshPart | None:
    """The triangles of a primitive in its node, None for points and lines."""
    mode = primitive.get("mode", _TRIANGLES)
    if mode not in (_TRIANGLES, _STRIP, _FAN):
        splats = extension(primitive, "KHR_gaussian_splatting") is not None
        kind = "Gaussian splats" if splats else "points and lines"
        asset.losses.part(f"its {kind} are left out")
        return None
    if "POSITION" not in primitive["attributes"]:
        asset.losses.part("primitives without positions are left out")
        return None
    attributes, indices = _vertices(asset, primitive)
    if extension(primitive, _DRACO) is not None:
        mode = _TRIANGLES  # to which the library decodes strips as well
    places = _triangles(indices, mode)
    places = places[within(places, len(attributes["POSITION"]), asset.losses)]
    attributes |= _morphed(asset, primitive, placed, attributes)
    positions, normals = _shaped(placed, attributes)
    material = materials.material(primitive.get("material"))
    colors = _colors(attributes, material)
    uv = _uv(attributes, material)
    return MeshPart(
        positions[places],
        Material(_corner_color(material) if colors is None else Material().color, material.texture),
        *(None if values is None else values[places] for values in (normals, uv, colors)),
    )


def _vertices(asset: GltfAsset, primitive: dict[str, Any]) -> tuple[Attributes, NDArray[Any]]:
    """Attributes of the vertices ``[N, width]`` by name, and their numbers in drawing order."""
    compressed = extension(primitive, _DRACO)
    attributes: Attributes = {}
    indices: NDArray[Any] | None = None
    if compressed is not None:
        attributes, indices = _decompressed(asset, primitive, compressed)
    for name, index in primitive["attributes"].items():
        if name.startswith(_READ_ATTRIBUTES) and name not in attributes:
            attributes[name] = asset.values(index)
    count = len(attributes["POSITION"])
    if any(len(values) != count for values in attributes.values()):
        raise InvalidInputError("it has a primitive whose attributes differ in length")
    if indices is None:
        indices = asset.values(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(count)
    if indices.dtype.kind == "f":
        raise InvalidInputError("it has indices that are not whole numbers")
    return attributes, indices


def _decompressed(
    asset: GltfAsset, primitive: dict[str, Any], compressed: dict[str, Any]
) -> tuple[Attributes, NDArray[Any]]:
    with optional_package(f"reading {_DRACO}", "DracoPy", "data"):
        import DracoPy
    try:
        mesh: Any = DracoPy.decode(bytes(asset.view(compressed["bufferView"])[0]))
    except Exception as error:  # the library has exceptions of its own
        raise InvalidInputError(f"its {_DRACO} is broken ({error})") from error
    stored = {entry["unique_id"]: entry["data"] for entry in mesh.attributes}
    accessors = primitive["attributes"]
    attributes = {
        name: asset.normalized(asset.entry("accessors", accessors[name]), np.asarray(stored[place]))
        for name, place in compressed["attributes"].items()
        if place in stored and name in accessors
    }
    return attributes, np.asarray(mesh.faces).reshape(-1)


def _triangles(indices: NDArray[Any], mode: int) -> NDArray[np.int64]:
    restart = int(np.iinfo(indices.dtype).max)
    if mode == _STRIP:
        return strip_triangles(indices, restart)
    if mode == _FAN:
        return fan_triangles(indices, restart)
    return indices[: len(indices) // 3 * 3].astype(np.int64).reshape(-1, 3)


def _morphed(
    asset: GltfAsset, primitive: dict[str, Any], placed: PlacedMesh, attributes: Attributes
) -> Attributes:
    """The attributes that morph targets change, by the weights of the node or the mesh."""
    morphed: Attributes = {}
    weights = placed.node.get("weights", placed.mesh.get("weights", []))
    for target, weight in zip(primitive.get("targets", []), weights, strict=False):
        for name in attributes.keys() & target.keys() if weight else ():
            base = morphed.get(name, attributes[name])
            morphed[name] = base + np.float64(weight) * asset.values(target[name])
    return morphed


def _shaped(placed: PlacedMesh, attributes: Attributes) -> tuple[DoubleArray, DoubleArray | None]:
    """Positions and normals with the skin applied."""
    positions = attributes["POSITION"].astype(np.float64)
    normals = attributes["NORMAL"].astype(np.float64) if "NORMAL" in attributes else None
    if placed.joints is None or not {"JOINTS_0", "WEIGHTS_0"} <= attributes.keys():
        return positions, normals
    matrices = _blended_joints(attributes, placed.joints)
    positions = np.einsum("nij,nj->ni", matrices[:, :3, :3], positions) + matrices[:, :3, 3]
    if normals is not None:
        normals = np.einsum("nij,nj->ni", matrices[:, :3, :3], normals)
    return positions, normals


def _blended_joints(attributes: Attributes, joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[N, 4, 4]`` matrix of each vertex."""
    total = np.zeros((len(attributes["POSITION"]), 4, 4))
    first = attributes["JOINTS_0"][:, 0].astype(np.int64)
    sums = np.zeros(len(total))
    for index in range(len(attributes)):
        if f"JOINTS_{index}" not in attributes:
            break
        numbers, weights = attributes[f"JOINTS_{index}"].astype(np.int64), attributes[f"WEIGHTS_{index}"]
        if numbers.max(initial=0) >= len(joints):
            raise InvalidInputError("it has vertices on joints that its skin lacks")
        for column in range(numbers.shape[1]):
            total += weights[:, column, None, None] * joints[numbers[:, column]]
            sums += weights[:, column]
    weighted = (sums > 0)[:, None, None]
    return np.where(weighted, total, joints[first]) / np.where(weighted, sums[:, None, None], 1.0)


def _uv(attributes: Attributes, material: GltfMaterial) -> NDArray[np.float64] | None:
    """``[N, 2]`` texture coordinates, v upwards."""
    name = f"TEXCOORD_{material.uv_set}"
    if material.texture is None or name not in attributes:
        return None
    uv = attributes[name].astype(np.float64)
    if material.uv_matrix is not None:
        uv = uv @ material.uv_matrix[:2, :2].T + material.uv_matrix[:2, 2]
    return np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)


def _colors(attributes: Attributes, material: GltfMaterial) -> NDArray[Any] | None:
    """``[N, 4]`` the vertices' colours times the material's, as sRGB and opacity; None without any."""
    if "COLOR_0" not in attributes:
        return None
    stored = attributes["COLOR_0"]
    top = (
        np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1
    )  # also where "normalized" was forgotten
    linear = np.ones((len(stored), 4))
    linear[:, : stored.shape[1]] = np.nan_to_num(stored.astype(np.float64) / top).clip(0, 1)
    return _srgb(linear * material.factor, material)


def _corner_color(material: GltfMaterial) -> NDArray[np.float32]:
    return _srgb(material.factor[None], material)[0].astype(np.float32)


def _srgb(linear: NDArray[np.float64], material: GltfMaterial) -> NDArray[Any]:
    """sRGB and opacity of linear ``[N, 4]``; without a texture the cutoff decides here."""
    opacity = np.ones(len(linear)) if material.opaque else linear[:, 3].clip(0, 1)
    if material.cutoff is not None and material.texture is None:
        opacity = (opacity >= material.cutoff).astype(np.float64)
    return np.concatenate([linear_to_srgb(linear[:, :3].clip(0, 1)), opacity[:, None]], axis=1)
