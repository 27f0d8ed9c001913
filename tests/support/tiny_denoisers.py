"""Stock denoisers of 2D diffusion models, of the smallest sizes."""

from typing import Any

from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def tiny_denoiser(kind: str, width: int = 8) -> Any:
    """``unet``, ``pixart`` or ``sd3``, whose first layer has as many outputs as asked for."""
    match kind:
        case "unet":
            return UNet2DConditionModel(
                in_channels=4,
                block_out_channels=(width, width),
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                layers_per_block=1,
                cross_attention_dim=8,
                attention_head_dim=4,
                norm_num_groups=4,
            )
        case "pixart":
            return PixArtTransformer2DModel(
                in_channels=4,
                out_channels=8,
                num_attention_heads=1,
                attention_head_dim=width,
                num_layers=1,
                cross_attention_dim=width,
                caption_channels=8,
                sample_size=4,
                norm_num_groups=4,
                use_additional_conditions=False,
            )
        case _:
            return SD3Transformer2DModel(
                in_channels=16,
                num_attention_heads=1,
                attention_head_dim=width,
                num_layers=1,
                joint_attention_dim=8,
                caption_projection_dim=width,
                pooled_projection_dim=8,
                pos_embed_max_size=4,
                sample_size=4,
            )
