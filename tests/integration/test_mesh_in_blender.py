"""Meshes of splats as Blender opens them.

``bpy`` (374 MB) has an environment of its own, whose Python the variable ``BLENDER_PYTHON`` names:
``python3.11 -m venv blender && blender/bin/pip install bpy``.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from diffsplat.meshing.mesh_writing import write_mesh
from diffsplat.meshing.splat_meshing import MeshOptions, mesh_from_splats
from support.splat_shapes import colored_sphere

pytestmark = pytest.mark.slow
OPTIONS = MeshOptions(faces=2000, texture_size=256, resolution=48, views=24, image_size=160)
SCRIPT = """
import json, sys
import bpy
import bmesh  # exists once bpy is there
bpy.ops.wm.read_factory_settings(use_empty=True)
path = sys.argv[-1]
{".glb": bpy.ops.import_scene.gltf, ".obj": bpy.ops.wm.obj_import}[path[-4:]](filepath=path)
(item,) = [item for item in bpy.context.scene.objects if item.type == "MESH"]
(slot,) = item.material_slots
nodes = slot.material.node_tree.nodes
(image,) = [node.image for node in nodes if node.type == "TEX_IMAGE"]
(shader,) = [node for node in nodes if node.type == "BSDF_PRINCIPLED"]
solid = bmesh.new()
solid.from_mesh(item.data)
bmesh.ops.remove_doubles(solid, verts=solid.verts, dist=1e-7)
pixels = image.pixels[:]
print("JSON", json.dumps({
    "dimensions": list(item.dimensions),
    "open_edges": sum(not edge.is_manifold for edge in solid.edges),
    "volume": solid.calc_volume(signed=True),
    "roughness": shader.inputs["Roughness"].default_value,
    "metallic": shader.inputs["Metallic"].default_value,
    "textured": shader.inputs["Base Color"].is_linked,
    "size": list(image.size),
    "mean": [sum(pixels[channel::4]) / len(pixels[channel::4]) for channel in range(4)],
}))
"""


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_blender_opens_a_closed_textured_mesh(suffix: str, tmp_path: Path) -> None:
    python = os.environ.get("BLENDER_PYTHON")
    if python is None:
        pytest.skip("the variable BLENDER_PYTHON names no Python with bpy")
    write_mesh(mesh_from_splats(colored_sphere(), OPTIONS), tmp_path / f"ball{suffix}")
    done = subprocess.run(
        [python, "-c", SCRIPT, str(tmp_path / f"ball{suffix}")], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    seen = json.loads(line[5:])
    assert seen["dimensions"] == pytest.approx([0.8] * 3, abs=0.04)
    assert (seen["open_edges"], seen["textured"], seen["size"]) == (0, True, [256, 256])
    assert seen["volume"] == pytest.approx(0.268, rel=0.1)  # of a ball of radius 0.4; negative inside out
    assert seen["mean"][0] == pytest.approx(0.5, abs=0.15)  # half red, half blue
    assert seen["mean"][1] == pytest.approx(0, abs=0.02)
    if suffix == ".glb":
        assert (seen["roughness"], seen["metallic"]) == (1, 0)
