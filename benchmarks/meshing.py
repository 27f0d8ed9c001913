"""Meshes of reconstructed objects against the meshes that the objects were rendered from.

    python benchmarks/meshing.py DATA MESHES [--objects 20] [--split train]

DATA is what 'diffsplat data render MESHES' wrote. Every n-th object is reconstructed from four views by the embedded
model and made into a mesh with the default options. Distances are means of both directions, in percent of the real
mesh's longest side: of its whole surface, with all that lies inside, and of what 64 cameras all around see.
The last line on stdout is a JSON object of the means.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from tqdm import tqdm

from diffsplat.core import Splats
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.evaluation.image_metrics import psnr
from diffsplat.geometry import orbit_cameras
from diffsplat.meshing.object_framing import surrounding_cameras
from diffsplat.meshing.splat_meshing import ColoredMesh, mesh_from_splats
from diffsplat.pretrained.reconstructor_and_autoencoder import model_reconstructor
from diffsplat.render import render
from diffsplat.render.meshes.mesh_files import load_mesh
from diffsplat.render.meshes.mesh_renderer import MeshRenderer
from diffsplat.render.meshes.triangle_mesh import Texture, TriangleMesh

SAMPLES = 120_000  # of a surface, of which NEAREST are looked at
QUERIES = 15_000
NEAREST = 5
DEPTH_SIZE = 256
TOLERANCE = 0.004  # of the size, by which a point may lie behind what a depth image shows

UNIT_CUBE_RADIUS = 0.5 * math.sqrt(3)

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """Points on triangles: ``corners [F, 3, 3]``, ``points [N, 3]`` in ``faces [N]``."""

    corners: Points
    points: Points
    faces: NDArray[np.int64]

    @classmethod
    def of(cls, corners: Points) -> "Surface":
        soup = trimesh.Trimesh(
            corners.reshape(-1, 3), np.arange(len(corners) * 3).reshape(-1, 3), process=False
        )
        points, faces = trimesh.sample.sample_surface(soup, SAMPLES, seed=3)
        return cls(corners, np.asarray(points), np.asarray(faces))

    def part(self, kept: NDArray[np.bool_]) -> "Surface":
        return Surface(self.corners, self.points[kept], self.faces[kept])

    def mean_distance(self, other: "Surface") -> float:
        """From points here to the triangles there that the nearest of its points lie in."""
        random = np.random.default_rng(0)
        points = self.points[random.choice(len(self.points), min(QUERIES, len(self.points)), replace=False)]
        found = cKDTree(other.points).query(points, k=NEAREST)[1]
        nearest = [
            np.linalg.norm(
                trimesh.triangles.closest_point(other.corners[other.faces[found[:, k]]], points) - points,
                axis=1,
            )
            for k in range(NEAREST)
        ]
        return float(np.min(nearest, axis=0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "meshes", type=Path, help="folder with the mesh files under the paths of the object ids"
    )
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    options = parser.parse_args()
    objects = ObjectDataset(options.data, split=options.split, variants=False)
    chosen = range(0, len(objects), max(1, len(objects) // options.objects))[: options.objects]
    results = [measured(objects, index, options.meshes) for index in tqdm(chosen, unit="object")]
    for row in results:
        tqdm.write(json.dumps(row))
    figures = [name for name in results[0] if name != "object"]
    print(json.dumps({name: round(statistics.mean(row[name] for row in results), 3) for name in figures}))


@torch.inference_mode()
def measured(objects: ObjectDataset, index: int, meshes: Path) -> dict[str, float]:
    """Figures of one object."""
    reconstructor = model_reconstructor("mini")
    views = objects.canonical(index)
    splats = reconstructor(views).to_splats(views.cameras, reconstructor.pixel_grid)[0].visible()
    identity = objects.rows[index].object_id
    file, _, node = identity.split("/", 1)[1].partition("#")
    truth = np.asarray(
        load_mesh(meshes / file, **({"nodes": node} if node else {})).normalized().corners, np.float64
    )
    started = time.process_time()
    mesh = mesh_from_splats(splats)
    seconds = time.process_time() - started
    real, made = Surface.of(truth), Surface.of(mesh.positions[mesh.faces].astype(np.float64))
    size = float(np.ptp(truth.reshape(-1, 3), axis=0).max())
    seen = [surface.part(visible(surface, size)) for surface in (real, made)]
    return {
        "object": identity,
        "db": image_agreement(mesh, splats),
        "distance_percent": 50 * (real.mean_distance(made) + made.mean_distance(real)) / size,
        "visible_percent": 50 * (seen[0].mean_distance(seen[1]) + seen[1].mean_distance(seen[0])) / size,
        "closed": float(is_closed(mesh)),
        "cpu_seconds": seconds,
    }


def visible(surface: Surface, size: float) -> NDArray[np.bool_]:
    """Which points of a surface lie in front of what is seen in a depth image from some side."""
    cameras = surrounding_cameras(64, DEPTH_SIZE, radius=UNIT_CUBE_RADIUS, lowest_deg=-90.0)
    matrices = cameras.world_to_camera.double().numpy()
    intrinsics = cameras.pixel_intrinsics.double().numpy()
    seen = np.zeros(len(surface.points), np.bool_)
    renderer = MeshRenderer(triangles_of(surface.corners), size=DEPTH_SIZE, supersampling=1)
    for image, matrix, (fx, fy, cx, cy) in zip(
        renderer.render(cameras), matrices, intrinsics[:, :4], strict=True
    ):
        x, y, z = matrix[:3, :3] @ surface.points.T + matrix[:3, 3:]
        column, row = (
            np.clip(place.astype(int), 0, DEPTH_SIZE - 1) for place in (x / z * fx + cx, y / z * fy + cy)
        )
        depth = np.asarray(image.depth, np.float64)[row, column]
        seen |= ~((depth > 0) & np.isfinite(depth) & (z > depth + TOLERANCE * size))
    return seen


def triangles_of(corners: Points, mesh: ColoredMesh | None = None) -> TriangleMesh:
    """Triangles for the renderer, with the texture of a mesh."""
    count = len(corners)
    normals = np.zeros((count, 3, 3), np.float32)
    uv, material, textures = np.zeros((count, 3, 2), np.float32), np.full(count, -1, np.int32), ()
    if mesh is not None and mesh.uv is not None and mesh.texture is not None:
        opaque = np.full((*mesh.texture.shape[:2], 1), 255, np.uint8)
        normals, material = mesh.normals[mesh.faces], np.zeros(count, np.int32)
        uv = (mesh.uv * [1, -1] + [0, 1])[mesh.faces].astype(np.float32)
        textures = (Texture(np.dstack([mesh.texture, opaque])),)
    white = np.ones((count, 3, 4), np.float32)
    return TriangleMesh(corners.astype(np.float32), normals, uv, white, material, textures)


def is_closed(mesh: ColoredMesh) -> bool:
    """Whether every edge has two triangles, once vertices at one place are joined."""
    joined = trimesh.Trimesh(mesh.positions, mesh.faces, process=False)
    joined.merge_vertices(merge_tex=True, merge_norm=True)
    return bool(joined.is_watertight and joined.is_winding_consistent)


def image_agreement(mesh: ColoredMesh, splats: Splats) -> float:
    """Mean PSNR of 8 renders of the mesh against those of the splats, 256 pixels on white."""
    cameras = orbit_cameras([45.0 * turn for turn in range(8)], [10.0, 25.0] * 4, width=256, height=256)
    truth = render(splats, cameras, normals=False).rgb
    samples = MeshRenderer(triangles_of(mesh.positions[mesh.faces], mesh), size=256).render(cameras)
    colors = torch.stack([torch.from_numpy(image.unlit_image()) for image in samples]).movedim(-1, 1) / 255
    shown = colors[:, :3] * colors[:, 3:] + 1 - colors[:, 3:]
    return float(psnr(shown, truth).mean())


if __name__ == "__main__":
    main()
