"""Where the scene of a glTF file puts its meshes: node matrices, instances and skins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffsplat.io.gltf_document import is_visible, node_matrix
from diffsplat.render.meshes.gltf_asset import GltfAsset, extension


@dataclass(frozen=True)
class PlacedMesh:
    """A node's mesh.

    Args:
        node: the node.
        mesh: the mesh.
        places: ``[I, 4, 4]`` matrices of its instances in the scene.
        joints: ``[J, 4, 4]`` matrices of its skin in the scene, None for a stiff mesh.
    """

    node: dict[str, Any]
    mesh: dict[str, Any]
    places: NDArray[np.float64]
    joints: NDArray[np.float64] | None


def placed_meshes(asset: GltfAsset, prefix: str) -> Iterator[PlacedMesh]:
    """Meshes of the default scene's visible nodes whose name starts with ``prefix``."""
    matrices = _scene_matrices(asset)
    for index in _nodes_in_scene(asset):
        node = asset.entry("nodes", index)
        if index not in matrices:
            asset.losses.part("nodes that are their own ancestors are left out")
        elif "mesh" in node and str(node.get("name", "")).startswith(prefix):
            yield _placed(asset, index, matrices)


def _placed(asset: GltfAsset, index: int, matrices: dict[int, NDArray[np.float64]]) -> PlacedMesh:
    node = asset.entry("nodes", index)
    places = matrices[index] @ _instances(asset, node)
    joints = None
    if "skin" in node:
        joints = _joints(asset, node["skin"], matrices)
        places = np.eye(4)[None]
    return PlacedMesh(node, asset.entry("meshes", node["mesh"]), places, joints)


def _nodes_in_scene(asset: GltfAsset) -> list[int]:
    """Nodes in the order of the file's tree; all of them where it has no scene."""
    nodes = asset.root.get("nodes", [])
    waiting = list(range(len(nodes)))
    if asset.root.get("scenes"):
        waiting = asset.entry("scenes", asset.root.get("scene", 0)).get("nodes", [])[::-1]
    order: dict[int, None] = {}
    while waiting:
        index = waiting.pop()
        node = asset.entry("nodes", index)
        if index not in order and is_visible(node):
            order[index] = None
            waiting += node.get("children", [])[::-1]
    return list(order)


def _scene_matrices(asset: GltfAsset) -> dict[int, NDArray[np.float64]]:
    """``[4, 4]`` of every node in the scene; none for nodes that are their own ancestors."""
    nodes = asset.root.get("nodes", [])
    children = {child for node in nodes for child in node.get("children", [])}
    waiting = [(index, np.eye(4)) for index in range(len(nodes)) if index not in children]
    matrices: dict[int, NDArray[np.float64]] = {}
    while waiting:
        index, above = waiting.pop()
        if index in matrices:
            continue
        node = asset.entry("nodes", index)
        matrices[index] = above @ node_matrix(node)
        waiting += [(child, matrices[index]) for child in node.get("children", [])]
    return matrices


def _instances(asset: GltfAsset, node: dict[str, Any]) -> NDArray[np.float64]:
    """``[I, 4, 4]`` matrices in the node (EXT_mesh_gpu_instancing); the unit matrix without instances."""
    instancing = extension(node, "EXT_mesh_gpu_instancing")
    if instancing is None:
        return np.eye(4)[None]
    keys = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}
    tables = {
        keys[name]: asset.values(index).astype(np.float64)
        for name, index in instancing["attributes"].items()
        if name in keys
    }
    rows = min(map(len, tables.values()), default=0)
    instances = [
        node_matrix({key: table[row].tolist() for key, table in tables.items()}) for row in range(rows)
    ]
    return np.array(instances).reshape(-1, 4, 4)


def _joints(asset: GltfAsset, index: int, matrices: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
    skin = asset.entry("skins", index)
    joints = np.stack([matrices[joint] for joint in skin["joints"]])
    if "inverseBindMatrices" in skin:
        inverse = asset.values(skin["inverseBindMatrices"]).astype(np.float64)
        joints = joints @ inverse[: len(joints)].reshape(-1, 4, 4).swapaxes(1, 2)
    return joints
