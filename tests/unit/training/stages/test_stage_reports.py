"""Figures of renderings in reports."""

import pytest
import torch

from diffsplat.core import Cameras, Rendering, Views
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.training.stages.stage_reports import report_rendering
from support.made_up_vgg import linear_weights, torchvision_weights

SIZE = 32


def views(image: torch.Tensor) -> Views:
    """Six views of one object, of which only the images count."""
    count = image.shape[1]
    cameras = Cameras(torch.eye(4).expand(1, count, 4, 4), torch.ones(1, count, 4), SIZE, SIZE)
    ones = torch.ones(1, count, 1, SIZE, SIZE)
    return Views(image, ones, image, image, ones, cameras, ("a box",))


def rendering(rgb: torch.Tensor) -> Rendering:
    ones = torch.ones(*rgb.shape[:2], 1, SIZE, SIZE)
    return Rendering(rgb, ones, ones)


@pytest.mark.parametrize("shift_tolerant", [False, True])
def test_perceptual_distances_are_means_over_input_and_novel_views(shift_tolerant: bool) -> None:
    torch.manual_seed(0)
    network = VggDistance.from_published(
        torchvision_weights(), linear_weights(), shift_tolerant=shift_tolerant
    )
    image, rgb = torch.rand(2, 1, 6, 3, SIZE, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        figures = report_rendering(rendering(rgb), views(image), network).scalars
    distances = network(rgb[0] * 2 - 1, image[0] * 2 - 1)
    name = "st_lpips" if shift_tolerant else "lpips"
    assert figures[f"{name}_input"] == pytest.approx(float(distances[:4].mean()), rel=1e-5)
    assert figures[f"{name}_novel"] == pytest.approx(float(distances[4:].mean()), rel=1e-5)
    assert figures["psnr_input"] == pytest.approx(
        float((-10 * (rgb - image).square().mean((0, 2, 3, 4)).log10())[:4].mean()), rel=1e-4
    )


def test_without_a_network_there_is_none() -> None:
    image = torch.rand(1, 4, 3, SIZE, SIZE)
    figures = report_rendering(rendering(image), views(image)).scalars
    assert figures.keys() == {"psnr_input", "ssim_input"}
