"""IP-Adapter files with random weights, for the tiny UNet of a released model."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from support.release_folders import CLIP_WIDTH

FEATURES, HIDDEN = 12, 16


def build_ip_adapter(folder: Path, unet: Any, *, plus: bool = False) -> Path:
    """A file as they are published, and its image encoder, with random weights."""
    generator = torch.Generator().manual_seed(2)
    state = {}
    number = 1
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            for kind in ("to_k_ip", "to_v_ip"):
                shape = module.to_k.weight.shape
                state[f"ip_adapter.{number}.{kind}.weight"] = torch.randn(shape, generator=generator)
            number += 2
    if plus:
        state |= {
            f"image_proj.{key}": torch.randn(value.shape, generator=generator) * 0.3
            for key, value in _plus_projection().items()
        }
    else:
        projection = ImageProjection(FEATURES, CLIP_WIDTH, 4).state_dict()
        for key, value in projection.items():
            state[f"image_proj.{key.replace('image_embeds', 'proj')}"] = torch.randn(
                value.shape, generator=generator
            )
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "adapter.safetensors")
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        projection_dim=FEATURES,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    return folder / "adapter.safetensors"


def _plus_projection() -> dict[str, torch.Tensor]:
    """Names of the original code; diffusers expects four layers."""
    width, out = 64, CLIP_WIDTH
    sizes: dict[str, tuple[int, ...]] = {
        "latents": (1, 4, width),
        "proj_in.weight": (width, HIDDEN),
        "proj_in.bias": (width,),
        "proj_out.weight": (out, width),
        "proj_out.bias": (out,),
        "norm_out.weight": (out,),
        "norm_out.bias": (out,),
    }
    for layer in range(4):
        norms = [f"{part}.{kind}" for part in ("0.norm1", "0.norm2", "1.0") for kind in ("weight", "bias")]
        sizes |= {f"layers.{layer}.{name}": (width,) for name in norms}
        sizes |= {f"layers.{layer}.0.{name}.weight": (width, width) for name in ("to_q", "to_out")}
        sizes |= {
            f"layers.{layer}.0.to_kv.weight": (2 * width, width),
            f"layers.{layer}.1.1.weight": (4 * width, width),
            f"layers.{layer}.1.3.weight": (width, 4 * width),
        }
    return {name: torch.zeros(size) for name, size in sizes.items()}
