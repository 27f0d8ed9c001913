"""Complete folders of released models, made of tiny real networks that were never trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from diffsplat.models.elevation_network import ElevationConfig, ElevationEstimator
from diffsplat.models.splat_vae import SplatVAE
from diffsplat.pretrained.release_catalogue import BACKBONES, DENOISER_PARTS, ELEVATION_RELEASE

ITERATION = "013020"
CLIP_WIDTH = 32
T5_WIDTH = 24
SENTENCES = ("a red chair with four legs", "a wooden barrel", "the quick brown fox jumps over lazy dogs")

VAE: dict[str, Any] = {
    "block_out_channels": (4, 4, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 256,
}
LATENT_SPACES: dict[str, dict[str, Any]] = {
    "sd15": {"latent_channels": 4, "scaling_factor": 0.18215},
    "pixart-sigma": {"latent_channels": 4, "scaling_factor": 0.13025},
    "sd35m": {
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "sd15": {
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
    "pixart-sigma": {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
    },
    "sd35m": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0},
}


def build_release(weights: Path, name: str) -> Path:
    """Everything of one backbone below ``weights``."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    base = weights / backbone.base_repository.rsplit("/", 1)[-1]
    AutoencoderKL(**VAE, **LATENT_SPACES[name]).save_pretrained(base / "vae")
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[name]))
    _text_encoders(base, name)
    _state(weights, backbone.autoencoder_release, _splat_vae(name))
    part = DENOISER_PARTS[backbone.family]
    for release, extra in ((backbone.text_release, 6), (backbone.image_release, 7)):
        network = DENOISERS[name](backbone.latent_channels + extra)
        save_denoiser(network, weights / release / "checkpoints" / ITERATION / part)
        if extra == 6:
            for control in backbone.control_releases.values():
                _control(network, weights / control / "checkpoints" / ITERATION / "controlnet")
    return weights


def build_elevation(weights: Path) -> None:
    torch.manual_seed(0)
    estimator = ElevationEstimator(ElevationConfig(width=64, depth=1, heads=1, grid=5, head_width=64))
    _state(weights, ELEVATION_RELEASE, estimator.released_state_dict())


def save_denoiser(network: Any, folder: Path) -> None:
    """As released: class names that no longer exist, and what the original noted about the inputs."""
    network.save_pretrained(folder)
    path = folder / "config.json"
    text = path.read_text()
    for kind in ("UNet2DConditionModel", "PixArtTransformer2DModel", "SD3Transformer2DModel"):
        text = text.replace(kind, kind.replace("2D", "MV2D"))
    for kind in ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "UNetMidBlock2DCrossAttn"):
        text = text.replace(kind, kind.replace("2D", "MV2D"))
    config = json.loads(text)
    config |= {"view_concat_condition": False, "input_concat_plucker": True, "optimization_step": 5}
    path.write_text(json.dumps(config))


def _splat_vae(name: str) -> dict[str, torch.Tensor]:
    network = SplatVAE({**VAE, **LATENT_SPACES[name]}, tiny_widths=(4, 4, 4, 4), tiny_blocks=(1, 1, 1, 1))
    return network.state_dict()


def _state(weights: Path, release: str, state: dict[str, torch.Tensor]) -> None:
    folder = weights / release / "checkpoints" / ITERATION
    folder.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")


def _unet(channels: int) -> nn.Module:
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=CLIP_WIDTH,
    )


def _pixart(channels: int) -> nn.Module:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=channels,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=32,
        patch_size=2,
        caption_channels=T5_WIDTH,
        use_additional_conditions=False,
    )


def _sd3(channels: int) -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=channels,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * CLIP_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * CLIP_WIDTH,
        pos_embed_max_size=24,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


DENOISERS: dict[str, Callable[[int], nn.Module]] = {"sd15": _unet, "pixart-sigma": _pixart, "sd35m": _sd3}


def _control(unet: Any, folder: Path) -> None:
    network = ControlNetModel.from_unet(unet, conditioning_channels=3)
    for parameter in network.parameters():  # the zero convolutions would hide the control map
        nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # The released configuration holds class defaults.
    config |= {
        "_class_name": "MVControlNetModel",
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
    }
    (folder / "config.json").write_text(json.dumps(config))


def _text_encoders(base: Path, name: str) -> None:
    match name:
        case "sd15":
            _clip(base, "", CLIPTextModel)
        case "pixart-sigma":
            _t5(base, "", T5_WIDTH)
        case _:
            _clip(base, "", CLIPTextModelWithProjection)
            _clip(base, "_2", CLIPTextModelWithProjection)
            _t5(base, "_3", 3 * CLIP_WIDTH)


def _clip(base: Path, suffix: str, kind: Any) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz,."
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder = base / f"tokenizer{suffix}"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=CLIP_WIDTH,
        intermediate_size=CLIP_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=CLIP_WIDTH,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    kind(config).save_pretrained(base / f"text_encoder{suffix}")


def _t5(base: Path, suffix: str, width: int) -> None:
    folder = base / f"tokenizer{suffix}"
    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=32,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    (folder / "spiece.vocab").unlink()
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = T5Config(
        vocab_size=64,
        d_model=width,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    T5EncoderModel(config).save_pretrained(base / f"text_encoder{suffix}")
