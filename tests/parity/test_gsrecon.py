"""The reconstructor against outputs recorded from the original implementation (CPU, float32)."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffsplat.core import Cameras, Views
from diffsplat.core.splat_grid import DEPTH, OPACITY, RGB, ROTATION, SCALE
from diffsplat.pretrained.released_networks import load_reconstructor
from support.recordings import Recordings, relative_error

TOLERANCE = 1e-4
CHANNELS = {"rgb": RGB, "scale": SCALE, "rotation": ROTATION, "opacity": OPACITY, "depth": DEPTH}


@pytest.fixture(scope="module")
def recorded(recordings: Recordings) -> dict[str, Tensor]:
    return recordings.tensors("gsrecon_io")


@pytest.fixture(scope="module")
def folder(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gsrecon")
    (path / "model.safetensors").symlink_to(recordings.path("gsrecon_weights.safetensors").resolve())
    return path


def recorded_views(recorded: dict[str, Tensor]) -> Views:
    images = recorded["images"]
    batch, views, _, height, width = images.shape
    poses = recorded["c2w_opencv"].expand(batch, views, 4, 4)
    intrinsics = recorded["fxfycxcy"].expand(batch, views, 4)
    blank = torch.ones(batch, views, 1, height, width)
    return Views(
        image=images[:, :, 0:3],
        mask=blank,
        normal=images[:, :, 3:6],
        coord=images[:, :, 6:9],
        depth=blank,
        cameras=Cameras(poses, intrinsics, width=width, height=height),
        prompt=("",) * batch,
    )


@torch.no_grad()
def test_every_channel_for_one_number_of_heads(recorded: dict[str, Tensor], folder: Path):
    views = recorded_views(recorded)
    dim = load_reconstructor(folder).x_embedder.out_features
    errors: dict[int, float] = {}
    for heads in (count for count in range(1, dim + 1) if dim % count == 0):
        values = load_reconstructor(folder, heads=heads)(views).values
        errors[heads] = max(
            # Recorded after their activations, colour and opacity and the rest alike in [-1, 1].
            relative_error(values[:, :, channels], recorded[f"out_{name}"])
            for name, channels in CHANNELS.items()
        )
    best, second = sorted(errors.values())[:2]
    assert best < TOLERANCE
    assert second > 10 * best
