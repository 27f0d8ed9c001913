"""The released network that estimates the elevation of the camera of an image.

A DINOv2 vision transformer with registers (Oquab et al., 2023; Darcet et al., 2023) reads the image. Two small
heads on its class token choose an interval of elevations and the offset inside it. The transformer is that of
``transformers``; its weights are read and written under the names of the released file.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from diffsplat.core import tensor_checks
from diffsplat.errors import InvalidInputError, MissingPackageError, require
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import write_json
from diffsplat.models.network_base_class import (
    CONFIG_FILE,
    RELEASED_WEIGHTS_FILE,
    require_names,
    require_shapes,
    stored_state,
)

INPUT_SIZE = 224
"""Pixels per side that the published networks resize every image to."""

HEAD_WIDTH = 64
"""Channels of an attention head in every published DINOv2."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HEADS = ("cls_head", "offset_head")

# Names of the attention's layers, as newer and older versions of transformers have them.
_ATTENTION_NAMES = (
    ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    (
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ),
)


@dataclass(frozen=True)
class ElevationConfig:
    """Sizes of the network; the defaults are those of the released weights.

    Args:
        width: channels of the transformer.
        depth: its blocks.
        heads: attention heads; they share the width.
        mlp_ratio: channels inside its MLPs over the width.
        patch: pixels per side of a patch.
        grid: patches per side of the trained position embeddings.
        registers: register tokens.
        head_width: channels inside the two heads.
        classes: intervals of elevations.

    Raises:
        ValueError: for sizes that are not positive, heads or patches that do not divide what they share.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    patch: int = 14
    grid: int = 37
    registers: int = 4
    head_width: int = 768
    classes: int = 25

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "registers" else 1
            require(value >= least, f"ElevationConfig.{name}", value, "a positive whole number")
        if self.width % self.heads:
            raise InvalidInputError(f"{self.heads} attention heads cannot share {self.width} channels")
        if INPUT_SIZE % self.patch:
            raise InvalidInputError(f"patches of {self.patch} pixels do not fill images of {INPUT_SIZE}")

    @classmethod
    def of_state_dict(
        cls,
        state: Mapping[str, Tensor],
        *,
        heads: int | None = None,
    ) -> Self:
        """The sizes that released weights have.

        Args:
            state: tensors under the released names.
            heads: attention heads, which no shape tells; by default each has :data:`HEAD_WIDTH` channels.

        Raises:
            ValueError: when a tensor is missing or no such network has its shape.
        """
        patches = _shape(state, "backbone.patch_embed.proj.weight", 4)
        positions = _shape(state, "backbone.pos_embed", 3)[1] - 1
        width, grid = patches[0], math.isqrt(max(positions, 0))
        if grid * grid != positions:
            raise InvalidInputError(
                f"the weights have {positions} position embeddings without the class token's, expected a square grid"
            )
        depth = 0
        while f"backbone.blocks.{depth}.norm1.weight" in state:
            depth += 1
        return cls(
            width=width,
            depth=depth,
            heads=heads if heads is not None else max(width // HEAD_WIDTH, 1),
            mlp_ratio=max(_shape(state, "backbone.blocks.0.mlp.fc1.weight", 2)[0] // width, 1),
            patch=patches[-1],
            grid=grid,
            registers=_shape(state, "backbone.register_tokens", 3)[1],
            head_width=_shape(state, "cls_head.0.weight", 2)[0],
            classes=_shape(state, "lower_bounds", 1)[0],
        )


class ElevationEstimator(nn.Module):
    """Estimates the elevation of the camera that sees the object of an image.

    Call it with ``images [B, 3, H, W]``, sRGB 0..1 on white, for ``[B]`` degrees in the sign of the released
    weights: *negative is above the horizon*. :meth:`degrees_above_horizon` turns the sign to that of users.
    """

    lower_bounds: Tensor
    """``[classes]`` degrees at which the intervals start, in the sign of the weights."""

    def __init__(self, config: ElevationConfig | None = None) -> None:
        """Build the network with random weights and intervals of 2 degrees from -40 on."""
        from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

        super().__init__()
        self.config = config = config or ElevationConfig()
        self.backbone = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(
                hidden_size=config.width,
                num_hidden_layers=config.depth,
                num_attention_heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                image_size=config.grid * config.patch,
                patch_size=config.patch,
                num_register_tokens=config.registers,
                layer_norm_eps=1e-6,
            )
        )
        self.cls_head = _head(config, config.classes)
        self.offset_head = _head(config, 1)
        self.register_buffer("lower_bounds", torch.arange(config.classes) * 2.0 - 40.0)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], config: ElevationConfig | None = None) -> Self:
        """The network of released weights, in evaluation mode; it keeps the given tensors, without a copy.

        Args:
            state: tensors under the released names.
            config: sizes; by default those of :meth:`ElevationConfig.of_state_dict`.

        Raises:
            ValueError: naming tensors that are missing, unknown or of another shape.
        """
        with torch.device("meta"):
            estimator = cls(config or ElevationConfig.of_state_dict(state))
        expected = estimator.released_state_dict()
        require_names(state, expected, "the elevation network")
        require_shapes(state, expected, "the elevation network")
        own: dict[str, Tensor] = {}
        for released, names in estimator._names():
            parts = state[released].chunk(len(names)) if len(names) > 1 else (state[released],)
            own.update(zip(names, parts, strict=True))
        estimator.load_state_dict(own, assign=True)
        return estimator.eval()

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write the sizes, and the weights under the released names, in half precision if asked."""
        target = make_folder(folder)
        write_json({"_class_name": ElevationEstimator.__name__, **asdict(self.config)}, target / CONFIG_FILE)
        state = stored_state(self.released_state_dict(), half=half)
        save_file(state, target / RELEASED_WEIGHTS_FILE, metadata={"format": "pt"})

    def released_state_dict(self) -> dict[str, Tensor]:
        """The weights under the names of the released file."""
        own = self.state_dict()
        return {
            released: torch.cat([own[first], *(own[name] for name in others)]) if others else own[first]
            for released, (first, *others) in self._names()
        }

    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, classes]`` of the intervals, and degrees ``[B]`` above the bound of one, of ``[B, 3, H, W]``."""
        weight = self.backbone.layernorm.weight
        pixels = elevation_input(images, INPUT_SIZE, weight.device)
        mean, std = (pixels.new_tensor(value).view(3, 1, 1) for value in (_MEAN, _STD))
        tokens = self.backbone(((pixels - mean) / std).to(weight.dtype)).last_hidden_state
        return self.cls_head(tokens[:, 0]), self.offset_head(tokens[:, 0]).squeeze(-1)

    def forward(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``; negative is above the horizon."""
        logits, offsets = self.classify(images)
        return self.lower_bounds.float()[logits.argmax(dim=-1)] + offsets.float()

    @torch.inference_mode()
    def degrees_above_horizon(self, images: Tensor) -> Tensor:
        """``[B]`` degrees of ``images [B, 3, H, W]``, positive above the horizon, without gradients."""
        return -self(images)

    def _names(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Released names with those of this module; several own tensors stacked make one of ``qkv``."""
        embeddings = "backbone.embeddings."
        yield "backbone.cls_token", (embeddings + "cls_token",)
        yield "backbone.mask_token", (embeddings + "mask_token",)
        yield "backbone.pos_embed", (embeddings + "position_embeddings",)
        yield "backbone.register_tokens", (embeddings + "register_tokens",)
        yield from _layer("backbone.patch_embed.proj", embeddings + "patch_embeddings.projection")
        yield from _layer("backbone.norm", "backbone.layernorm")
        query, key, value, output = self._attention_names()
        for index in range(self.config.depth):
            block, layer = f"backbone.blocks.{index}.", f"backbone.encoder.layer.{index}."
            yield from _layer(block + "attn.qkv", layer + query, layer + key, layer + value)
            yield from _layer(block + "attn.proj", layer + output)
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                yield from _layer(block + name, layer + name)
            for number in (1, 2):
                yield f"{block}ls{number}.gamma", (f"{layer}layer_scale{number}.lambda1",)
        for head in _HEADS:
            for place in (0, 2):
                yield from _layer(f"{head}.{place}", f"{head}.{place}")
        yield "lower_bounds", ("lower_bounds",)

    def _attention_names(self) -> tuple[str, str, str, str]:
        first = self.backbone.encoder.layer[0]
        modules = {name for name, _ in first.named_modules()}
        for names in _ATTENTION_NAMES:
            if modules.issuperset(names):
                return names
        raise MissingPackageError("the installed transformers names DINOv2's layers in an unknown way")


def elevation_input(images: Tensor, size: int, device: torch.device) -> Tensor:
    """Images ``[B, 3, H, W]`` resized to ``[B, 3, size, size]`` with antialiasing, in float32 on a device.

    Raises:
        ValueError: for another shape, or pixels that are not floating-point numbers.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InvalidInputError(f"images have the shape {tuple(images.shape)}, expected [B, 3, H, W]")
    tensor_checks.require_floating("elevation_input", "images", images)
    return functional.interpolate(
        images.to(device, torch.float32), (size, size), mode="bilinear", align_corners=False, antialias=True
    )


def _head(config: ElevationConfig, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.width, config.head_width), nn.GELU(), nn.Linear(config.head_width, outputs)
    )


def _layer(released: str, *own: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in ("weight", "bias"):
        yield f"{released}.{kind}", tuple(f"{name}.{kind}" for name in own)


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state:
        raise InvalidInputError(f"the weights lack {name}, expected those of the elevation network")
    shape = tuple(state[name].shape)
    if len(shape) != dimensions:
        raise InvalidInputError(f"the weight {name} has the shape {shape}, expected {dimensions} dimensions")
    return shape
