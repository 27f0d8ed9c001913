"""The condition view: what its components keep of an image, and what says which kind it is."""

from typing import get_args

import numpy as np
import pytest
import torch

from diffsplat.models.condition_encoder import CONDITION_KINDS, ConditionEncoder
from diffsplat.pretrained.release_catalogue import ControlKind


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """``[8, 3, 16, 16]``, neighbouring pixels alike."""
    coarse = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")


def fitted(images: torch.Tensor, channels: int) -> ConditionEncoder:
    encoder = ConditionEncoder(image_size=16, patch=4, channels=channels)
    encoder.fit_components(images.split(3))
    return encoder


def test_all_components_lose_nothing(images: torch.Tensor):
    encoder = fitted(images, 48)
    latents = encoder.encode(images, "image")
    assert latents.shape == (8, 48 + 4, 4, 4)
    torch.testing.assert_close(encoder.decode(latents), images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [3, 12])
def test_few_components_lose_what_numpy_says_is_least(images: torch.Tensor, channels: int):
    encoder = fitted(images, channels)
    patches = (
        images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48).double().numpy()
    )
    singular = np.linalg.svd(patches - patches.mean(axis=0), compute_uv=False)
    lost = (encoder.decode(encoder.encode(images, "image")) - images).square().sum()
    assert float(lost) == pytest.approx(float((singular[channels:] ** 2).sum()), rel=1e-3)


def test_latents_have_deviation_1_over_what_they_were_fitted_to(images: torch.Tensor):
    latents = fitted(images, 6).encode(images, "image")[:, :6]
    torch.testing.assert_close(latents.std(dim=(0, 2, 3), correction=0), torch.ones(6), atol=1e-3, rtol=0)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4


@pytest.mark.parametrize(("place", "kind"), enumerate(("image", "depth", "normal", "canny")))
def test_one_channel_says_which_kind_it_is(images: torch.Tensor, place: int, kind):
    flags = fitted(images, 6).encode(images, kind)[:, 6:]
    expected = torch.zeros(4)
    expected[place] = 1
    assert torch.equal(flags, expected[None, :, None, None].expand(8, 4, 4, 4))


def test_kinds_are_an_image_and_every_control_map():
    assert ("image", *get_args(ControlKind)) == CONDITION_KINDS


def test_images_of_another_size_are_refused(images: torch.Tensor):
    with pytest.raises(ValueError, match=r"shape \(8, 3, 8, 8\), expected \[B, 3, 16, 16\]"):
        fitted(images, 6).encode(images[:, :, :8, :8], "image")
