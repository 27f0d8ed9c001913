"""Times of the ``cpu`` rasterizer, whole operator, medians, next to plain PyTorch in the same run.

    python benchmarks/rasterizer.py [--quick] [--threads N] [--no-reference]

The scenes imitate a splat grid: one Gaussian for every pixel of four views around an object. In ``trained`` the
Gaussians lie on the object's surface, with scales about a pixel wide, and those of background pixels are
near-transparent; in ``untrained`` depths, scales and opacities are random, as from a network before training.
Nothing else should run on the machine.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from diffsplat.core import DEFAULT_FOCAL, DEFAULT_RADIUS, Cameras, Splats
from diffsplat.geometry import orbit_cameras
from diffsplat.render import Backend, render, warmup

TURNTABLE_FRAMES = 120
FRAMES_AT_ONCE = 8
BALLS = ((0.0, -0.06, 0.0, 0.36), (0.05, 0.3, 0.05, 0.15), (-0.28, 0.05, 0.2, 0.14))  # x, y, z, radius


@dataclass(frozen=True)
class Load:
    """One row of the table."""

    name: str
    grid: int  # pixels of the four input views, which give 4 * grid^2 Gaussians
    trained: bool
    size: int  # pixels of the rendered views
    views: int
    training: bool  # forward and backward
    limit_ms: float


LOADS = (
    Load("trained, forward", 256, True, 256, 1, False, 20),
    Load("trained, forward", 256, True, 512, 1, False, 28),
    Load("untrained, forward", 256, False, 256, 1, False, 35),
    Load("untrained, forward", 256, False, 512, 1, False, 65),
    Load("trained, forward + backward", 64, True, 64, 8, True, 22),
    Load("trained, forward + backward", 128, True, 128, 8, True, 75),
    Load(f"turntable, {TURNTABLE_FRAMES} frames", 256, True, 256, TURNTABLE_FRAMES, False, 2500),
    Load(f"turntable, {TURNTABLE_FRAMES} frames", 256, True, 512, TURNTABLE_FRAMES, False, 4000),
)


def surface_depth(origin: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """Camera z where rays (with z = 1) first meet one of the balls; infinity where they miss."""
    nearest = torch.full(rays.shape[:1], float("inf"))
    for *center, radius in BALLS:
        offset = origin - torch.tensor(center)
        a, b = rays.square().sum(dim=1), (rays * offset).sum(dim=1)
        discriminant = b.square() - a * (offset.square().sum() - radius**2)
        depth = (-b - discriminant.clamp(min=0).sqrt()) / a
        nearest = torch.where((discriminant > 0) & (depth < nearest), depth, nearest)
    return nearest


def splat_grid(grid: int, trained: bool) -> Splats:
    """One Gaussian for every pixel of four views."""
    generator = torch.Generator().manual_seed(0)
    cameras = orbit_cameras([0.0, 90.0, 180.0, 270.0], [15.0] * 4, width=grid, height=grid)
    directions = cameras.camera_directions(cameras.pixel_coordinates())
    means, scales, opacities = [], [], []
    for view in range(4):
        rays = directions[view].reshape(-1, 3) @ cameras.camera_to_world[view, :3, :3].mT
        count = len(rays)
        if trained:
            depth = surface_depth(cameras.centers[view], rays)
            hit = depth.isfinite()
            depth = torch.where(hit, depth, DEFAULT_RADIUS) + 0.004 * torch.randn(count, generator=generator)
            pixel = depth / (DEFAULT_FOCAL * grid)
            spread = 0.45 * torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.0, -0.4])
            scale = (0.9 * pixel[:, None] * spread.exp()).clamp(0.0005, 0.02)
            opacity = torch.sigmoid(2 + 1.5 * torch.randn(count, generator=generator))
            opacity = torch.where(hit, opacity, 0.003 * torch.rand(count, generator=generator))
        else:
            depth = DEFAULT_RADIUS + 0.25 * torch.randn(count, generator=generator)
            scale = 0.0005 + 0.0195 * torch.sigmoid(torch.randn(count, 3, generator=generator))
            opacity = torch.sigmoid(torch.randn(count, generator=generator))
        means.append(cameras.centers[view] + rays * depth[:, None])
        scales.append(scale)
        opacities.append(opacity)
    positions = torch.cat(means)
    return Splats(
        means=positions,
        scales=torch.cat(scales),
        quats=functional.normalize(torch.randn(len(positions), 4, generator=generator), dim=-1),
        opacities=torch.cat(opacities),
        colors=(0.5 + 0.5 * torch.sin(7 * positions + torch.tensor([0.0, 2.0, 4.0]))),
    )


def orbit(views: int, size: int) -> Cameras:
    """Cameras around the object, none of them an input view."""
    azimuths = [17.0 + 360 * i / max(views, 3) for i in range(views)]
    return orbit_cameras(azimuths, [15.0] * views, width=size, height=size)


def measured(load: Load, splats: Splats, backend: Backend, normals: bool) -> Iterator[float]:
    """Times of one load in milliseconds, without end; only the rendering is timed."""
    frames = orbit(load.views, load.size)
    while True:
        if load.training:
            leaves = splats.map(lambda field: field.clone().requires_grad_())
            start = time.perf_counter()
            image = render(leaves, frames, backend=backend, normals=normals)
            (image.rgb.sum() + image.alpha.sum() + image.depth.sum()).backward()
        else:
            start = time.perf_counter()
            with torch.no_grad():
                for first in range(0, load.views, FRAMES_AT_ONCE):
                    render(splats, frames[first : first + FRAMES_AT_ONCE], backend=backend, normals=normals)
        yield (time.perf_counter() - start) * 1e3


def reference_ms(load: Load, splats: Splats) -> float:
    """Time of plain PyTorch, once; of a turntable a single frame is timed and multiplied."""
    frames = min(load.views, TURNTABLE_FRAMES if load.training else 1)
    part = Load(load.name, load.grid, load.trained, load.size, frames, load.training, load.limit_ms)
    return next(measured(part, splats, "reference", False)) * load.views / frames


def medians(contenders: list[Iterator[float]], repeats: int) -> list[float]:
    """Median time of each contender, taken in turns, after one turn that does not count."""
    for contender in contenders:
        next(contender)
    rounds = [[next(contender) for contender in contenders] for _ in range(repeats)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def table(loads: tuple[Load, ...], repeats: Callable[[Load], int], with_reference: bool) -> bool:
    """Print a row per load; returns whether all of them are within their limits."""
    head = f"{'load':30}{'Gaussians':>10}{'views':>12}{'limit':>9}{'cpu':>10}{'normals':>10}"
    print(head + (f"{'PyTorch':>11}{'ratio':>8}" if with_reference else ""))
    within = True
    for load in loads:
        splats = splat_grid(load.grid, load.trained)
        contenders = [measured(load, splats, "cpu", normals) for normals in (False, True)]
        plain, normals = medians(contenders, repeats(load))
        within &= plain <= load.limit_ms
        view = f"{load.views} x {load.size}^2"
        row = f"{load.name:30}{splats.count:10}{view:>12}{load.limit_ms:9.0f}{plain:10.1f}{normals:10.1f}"
        if with_reference:
            slow = reference_ms(load, splats)
            row += f"{slow:11.0f}{slow / plain:7.0f}x"
        print(row + ("" if plain <= load.limit_ms else "  above the limit"), flush=True)
    return within


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the cpu rasterizer (times in ms, medians).")
    parser.add_argument("--quick", action="store_true", help="few repeats; plain PyTorch on small loads only")
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--no-reference", action="store_true", help="leave plain PyTorch out")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    start = time.perf_counter()
    warmup()
    busy = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {busy}")
    print(f"warm-up {time.perf_counter() - start:.1f} s; times in ms, the limit is for the column cpu")
    full, few = (5, 1) if options.quick else (31, 5)
    small = tuple(load for load in LOADS if load.training)
    large = tuple(load for load in LOADS if not load.training)

    def repeats(load: Load) -> int:
        return few if load.views == TURNTABLE_FRAMES else full

    reference = not options.no_reference
    groups = [(small, reference), (large, reference and not options.quick)]
    results = [table(loads, repeats, with_reference) for loads, with_reference in groups]
    print("all within the limits" if all(results) else "some above the limits")


if __name__ == "__main__":
    main()
