import math

import numpy as np
import pytest
import torch

from diffsplat.evaluation.image_metrics import psnr, ssim

# scikit-image 0.26.0: structural_similarity(channel_axis=0, gaussian_weights=True, sigma=1.5,
# use_sample_covariance=False, data_range=1) and peak_signal_noise_ratio(data_range=1) of pattern_pair.
SCIKIT_IMAGE = [
    (1, 64, 64, 0.6386538182, 21.4689600219),
    (2, 48, 80, 0.6989135093, 21.4746377795),
    (3, 11, 11, 0.6196599421, 20.9535621412),
    (4, 12, 33, 0.8175969722, 21.6381919756),
]


def pattern_pair(seed: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.stack([0.5 + 0.4 * np.sin(0.11 * (c + 1) * x + 0.07 * y * seed + c) for c in range(3)])
    noise = np.random.RandomState(seed).standard_normal(image.shape)  # its stream is frozen by numpy
    return torch.tensor(image), torch.tensor(np.clip(0.9 * image + 0.05 + 0.08 * noise, 0, 1))


@pytest.mark.parametrize(("seed", "height", "width", "similarity", "ratio"), SCIKIT_IMAGE)
def test_agrees_with_scikit_image(seed, height, width, similarity, ratio):
    image, other = pattern_pair(seed, height, width)
    assert float(ssim(image, other)) == pytest.approx(similarity, abs=1e-9)
    assert float(psnr(image, other)) == pytest.approx(ratio, abs=1e-9)
    assert float(ssim(image.float(), other.float())) == pytest.approx(similarity, abs=5e-6)
    assert float(psnr(image.float(), other.float())) == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize("offset", [0.1, -0.01, 0.5])
def test_psnr_of_a_constant_offset(offset):
    image = torch.full((3, 9, 7), 0.5, dtype=torch.float64)
    assert float(psnr(image + offset, image)) == pytest.approx(-20 * math.log10(abs(offset)), abs=1e-9)


def test_psnr_of_noise_is_its_deviation():
    noise = 0.05 * torch.randn(3, 512, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(psnr(0.5 + noise, torch.full_like(noise, 0.5))) == pytest.approx(
        -20 * math.log10(0.05), abs=0.02
    )


def test_one_wrong_channel_counts_a_third():
    reference = torch.zeros(3, 16, 16, dtype=torch.float64)
    image = reference.clone()
    image[1] = 0.2
    assert float(psnr(image, reference)) == pytest.approx(-10 * math.log10(0.04 / 3), abs=1e-9)


def test_equal_images():
    image, _ = pattern_pair(5, 20, 20)
    assert math.isinf(float(psnr(image, image)))
    assert float(ssim(image, image)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.8), (0.0, 1.0), (0.5, 0.6)])
def test_ssim_of_flat_images_is_the_luminance_term(a, b):
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    flat = torch.ones(3, 15, 13, dtype=torch.float64)
    assert float(ssim(flat * a, flat * b)) == pytest.approx(expected, abs=1e-9)


def test_batches_equal_single_images():
    pairs = [pattern_pair(seed, 24, 20) for seed in range(6)]
    images = torch.stack([a for a, _ in pairs]).reshape(2, 3, 3, 24, 20)
    others = torch.stack([b for _, b in pairs]).reshape(2, 3, 3, 24, 20)
    for metric in (psnr, ssim):
        batched = metric(images, others)
        assert batched.shape == (2, 3)
        torch.testing.assert_close(batched.flatten(), torch.stack([metric(a, b) for a, b in pairs]))


def test_ssim_has_a_gradient_towards_the_reference():
    image, reference = pattern_pair(7, 16, 16)
    image.requires_grad_(True)
    before = ssim(image, reference)
    (gradient,) = torch.autograd.grad(before, image)
    assert float(ssim((image + 0.5 * gradient).detach(), reference)) > float(before.detach())


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_bad_input_is_refused(metric):
    image = torch.zeros(3, 16, 16)
    with pytest.raises(ValueError, match="same shape"):
        metric(image, torch.zeros(3, 16, 17))
    with pytest.raises(ValueError, match="shape"):
        metric(torch.zeros(1, 16, 16), torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match="floating"):
        metric(image.to(torch.uint8), image.to(torch.uint8))


def test_ssim_refuses_images_below_its_window():
    with pytest.raises(ValueError, match=r"10 x 20 pixels"):
        ssim(torch.zeros(3, 20, 10), torch.zeros(3, 20, 10))


def test_autocast_does_not_round_ssim():
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim(noise, noise.roll(1, -1) * 0.1 + noise * 0.9)
    assert float(inside) == float(ssim(noise, noise.roll(1, -1) * 0.1 + noise * 0.9))
