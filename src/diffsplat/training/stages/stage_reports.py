"""Figures and images that the stages report."""

import torch

from diffsplat.core import Rendering, Views
from diffsplat.evaluation.image_metrics import psnr, ssim
from diffsplat.evaluation.model_evaluation import INPUT_VIEWS
from diffsplat.io.image_files import tile_images
from diffsplat.training.stages.stage import Report

TILED_OBJECTS = 4
"""Objects in the image of a report."""


def report_rendering(rendering: Rendering, views: Views) -> Report:
    """PSNR (dB) and SSIM of input and novel views, and the first objects: truth above, rendering below."""
    scalars: dict[str, float] = {}
    for name, figures in {"psnr": psnr, "ssim": ssim}.items():
        quality = figures(rendering.rgb, views.image)
        scalars[f"{name}_input"] = float(quality[:, :INPUT_VIEWS].mean())
        if views.count > INPUT_VIEWS:
            scalars[f"{name}_novel"] = float(quality[:, INPUT_VIEWS:].mean())
    rows = [row for pair in zip(views.image, rendering.rgb, strict=True) for row in pair]
    tiled = tile_images(torch.cat(rows[: 2 * TILED_OBJECTS]), columns=views.count)
    return Report(scalars, {"truth_and_rendering": tiled.clamp(0, 1)})
