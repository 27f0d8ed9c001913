"""Figures and images that the stages report."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from diffsplat.core import Rendering, Views
from diffsplat.core.full_precision import full_precision
from diffsplat.evaluation.image_metrics import psnr, ssim
from diffsplat.evaluation.model_evaluation import INPUT_VIEWS
from diffsplat.io.image_files import tile_images
from diffsplat.training.perceptual_distance import VggDistance
from diffsplat.training.stages.stage import Report

TILED_OBJECTS = 4
"""Objects in the image of a report."""


def report_rendering(rendering: Rendering, views: Views, perceptual: VggDistance | None = None) -> Report:
    """Figures of input and novel views, and the first objects: truth above, rendering below.

    Args:
        rendering: ``[B, V]``.
        views: the truth.
        perceptual: measured besides PSNR (dB) and SSIM, at the size of the views.
    """
    scalars: dict[str, float] = {}
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}
    if perceptual is not None:
        measures[perceptual.name] = partial(_distances, perceptual)
    for name, figures in measures.items():
        quality = figures(rendering.rgb, views.image)
        scalars[f"{name}_input"] = float(quality[:, :INPUT_VIEWS].mean())
        if views.count > INPUT_VIEWS:
            scalars[f"{name}_novel"] = float(quality[:, INPUT_VIEWS:].mean())
    rows = [row for pair in zip(views.image, rendering.rgb, strict=True) for row in pair]
    tiled = tile_images(torch.cat(rows[: 2 * TILED_OBJECTS]), columns=views.count)
    return Report(scalars, {"truth_and_rendering": tiled.clamp(0, 1)})


@full_precision
def _distances(perceptual: VggDistance, rendered: Tensor, images: Tensor) -> Tensor:
    """``[B, V]`` distances of images ``[B, V, 3, H, W]`` in 0..1."""
    pair = (part.float().flatten(0, 1) * 2 - 1 for part in (rendered, images))
    return perceptual(*pair).unflatten(0, images.shape[:2])
