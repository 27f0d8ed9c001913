"""ImageReward (Xu et al. 2023), a learned human preference for images of a prompt, by its own package."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from diffsplat.errors import MissingPackageError
from diffsplat.io.image_files import to_pixels

Reward = Callable[[str, Tensor], Tensor]
"""A prompt and images ``[N, 3, H, W]`` in 0..1 to ``[N]`` rewards."""


def load_image_reward() -> Reward:
    """ImageReward-v1.0, whose weights its package downloads.

    Raises:
        ImportError: without the package ``image-reward``.
    """
    try:
        import ImageReward
    except ImportError as error:
        raise MissingPackageError(
            f"ImageReward needs the package image-reward, which cannot be imported ({error}): pip install image-reward"
        ) from error
    network = ImageReward.load("ImageReward-v1.0")

    def reward(prompt: str, images: Tensor) -> Tensor:
        return torch.tensor(
            [float(network.score(prompt, Image.fromarray(to_pixels(image)))) for image in images]
        )

    return reward
