"""Geometry: rotations, viewing rays, camera orbits, footprints of pixels."""

from diffsplat.geometry.camera_orbits import (
    BETWEEN_AZIMUTHS_DEG,
    RING_AZIMUTHS_DEG,
    TEXT_ELEVATION_DEG,
    elevation_deg,
    look_at,
    normals_to_first_view,
    orbit_cameras,
    orbit_positions,
    ring_cameras,
    turntable_cameras,
)
from diffsplat.geometry.pixel_footprints import pixel_footprints
from diffsplat.geometry.rays import plucker_rays, ray_directions
from diffsplat.geometry.rotations import matrix_to_quaternion, quaternion_to_matrix, rotation_onto

__all__ = [
    "BETWEEN_AZIMUTHS_DEG",
    "RING_AZIMUTHS_DEG",
    "TEXT_ELEVATION_DEG",
    "elevation_deg",
    "look_at",
    "matrix_to_quaternion",
    "normals_to_first_view",
    "orbit_cameras",
    "orbit_positions",
    "pixel_footprints",
    "plucker_rays",
    "quaternion_to_matrix",
    "ray_directions",
    "ring_cameras",
    "rotation_onto",
    "turntable_cameras",
]
