"""Figures and images that the stages report."""

import torch

from diffsplat.core import Rendering, Views
from diffsplat.evaluation.held_out_view_evaluation import INPUT_VIEWS
from diffsplat.evaluation.image_metrics import image_metrics
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.io.image_files import tile_images
from diffsplat.training.stages.stage_interface import Report

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
    for name, metric in image_metrics(perceptual).items():
        quality = metric(rendering.rgb, views.image)
        scalars[f"{name}_input"] = float(quality[:, :INPUT_VIEWS].mean())
        if views.count > INPUT_VIEWS:
            scalars[f"{name}_novel"] = float(quality[:, INPUT_VIEWS:].mean())
    rows = [row for pair in zip(views.image, rendering.rgb, strict=True) for row in pair]
    tiled = tile_images(torch.cat(rows[: 2 * TILED_OBJECTS]), columns=views.count)
    return Report(scalars, {"truth_and_rendering": tiled.clamp(0, 1)})
