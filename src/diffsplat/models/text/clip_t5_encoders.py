"""Text encoders of the released backbones, CLIP and T5, through the pipelines of diffusers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast, get_args

import torch
from torch import nn

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.models.denoiser_families import Family
from diffsplat.models.network_base_class import CONFIG_FILE
from diffsplat.models.text.clip_skip import last_layers_left_out
from diffsplat.models.text.text_condition import TextCondition


class ClipT5Encoder(nn.Module):
    """Tokenizers and text encoders of an image-diffusion model.

    Args:
        family: whose pipeline in diffusers encodes: Stable Diffusion (CLIP), PixArt-Sigma (T5, 300 tokens) or
            Stable Diffusion 3 (two CLIPs and T5, 256 tokens).
        tokenizers: in the order of the model's folders ``tokenizer``, ``tokenizer_2``, ...
        encoders: in the same order; those of Stable Diffusion 3 without T5 are two.
        token_width: of Stable Diffusion 3 without T5, the width of its tokens.
    """

    def __init__(
        self,
        family: Family,
        tokenizers: Sequence[Any],
        encoders: Sequence[nn.Module],
        token_width: int | None = None,
    ) -> None:
        super().__init__()
        self.family: Family = family
        self.token_width = token_width
        self.encoders = nn.ModuleList(encoders).eval().requires_grad_(False)
        self._tokenizers = tuple(tokenizers)

    @property
    def most_clip_skip(self) -> int:
        """How many layers of CLIP may be left out: all but one."""
        if self.family == "pixart":
            return 0
        clips = self.encoders[:2] if self.family == "sd3" else self.encoders[:1]
        return min(cast(Any, clip).config.num_hidden_layers for clip in clips) - 1

    @torch.no_grad()
    def forward(self, texts: list[str], *, clip_skip: int | None = None) -> TextCondition:
        """Encode prompts.

        Args:
            texts: ``B`` prompts.
            clip_skip: layers of CLIP to leave out at its end; those of Stable Diffusion 3 count from the last but one,
                which it takes otherwise.

        Returns:
            Tokens ``[B, T, D]``; with PixArt a mask ``[B, T]``, with SD3 pooled vectors ``[B, P]``; all float32.
        """
        encoder: Any = self.encoders[0]
        pipeline = self._pipeline()
        match self.family:
            case "unet":
                with last_layers_left_out(encoder, clip_skip or 0):
                    tokens, _ = pipeline.encode_prompt(texts, encoder.device, 1, False)
                return TextCondition(tokens.float())
            case "pixart":
                tokens, mask, _, _ = pipeline.encode_prompt(texts, False, device=encoder.device)
                return TextCondition(tokens.float(), mask.bool())
            case "sd3":
                tokens, _, pooled, _ = pipeline.encode_prompt(
                    texts,
                    None,
                    None,
                    device=encoder.device,
                    do_classifier_free_guidance=False,
                    clip_skip=clip_skip,
                )
                return TextCondition(tokens.float(), pooled=pooled.float())

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype | None = None) -> Self:
        """What :meth:`save_pretrained` wrote; its weights as stored by default.

        Raises:
            OSError, ValueError: when a file is missing or damaged, or names no family.
        """
        path = Path(folder) / CONFIG_FILE
        family = next((name for name in get_args(Family) if name == read_json(path).get("family")), None)
        if family is None:
            raise InvalidInputError(
                f"{str(path)!r} names no family, expected one of: {', '.join(get_args(Family))}"
            )
        width = read_json(path).get("token_width")
        return cls(family, *_read_parts(family, Path(folder), dtype, t5=width is None), width)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizers and encoders in the folders of an image-diffusion model, and whose they are."""
        target = make_folder(folder)
        without_t5 = {} if self.token_width is None else {"token_width": self.token_width}
        write_json(
            {"_class_name": type(self).__name__, "family": self.family, **without_t5}, target / CONFIG_FILE
        )
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True)):
            for name, part in zip(_folders(number), (tokenizer, encoder), strict=True):
                cast(Any, part).save_pretrained(target / name)

    def _pipeline(self) -> Any:
        """The pipeline of diffusers with the encoders and none of its other components."""
        match self.family:
            case "unet":
                from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
                    StableDiffusionPipeline as Pipeline,
                )

                absent = ("vae", "unet", "scheduler", "safety_checker", "feature_extractor")
                extra: dict[str, Any] = {"requires_safety_checker": False}
            case "pixart":
                from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import (
                    PixArtSigmaPipeline as Pipeline,
                )

                absent, extra = ("vae", "transformer", "scheduler"), {}
            case "sd3":
                from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
                    StableDiffusion3Pipeline as Pipeline,
                )

                absent, extra = ("vae", "transformer", "scheduler"), {}
        present: dict[str, Any] = {}
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True)):
            present |= zip(_folders(number), (tokenizer, encoder), strict=True)
        if self.family == "sd3":
            present = {"tokenizer_3": None, "text_encoder_3": None, **present}
        kind: Any = Pipeline
        pipeline = kind(**dict.fromkeys(absent), **present, **extra)
        if self.token_width is not None:  # of the zeros in place of T5's tokens
            pipeline.transformer = SimpleNamespace(
                config=SimpleNamespace(joint_attention_dim=self.token_width)
            )
        return pipeline


def load_prompt_encoder(
    family: Family, folder: Path, *, dtype: torch.dtype | None = None, token_width: int | None = None
) -> ClipT5Encoder:
    """Tokenizers and text encoders of a folder in the layout of diffusers; safetensors only.

    Args:
        family: of the denoiser.
        folder: holds ``tokenizer``, ``text_encoder`` and, for SD3, ``tokenizer_2``, ...
        dtype: of the weights; as stored by default.
        token_width: of Stable Diffusion 3 leave out T5; the width of its tokens, which are zeros then.

    Raises:
        FileNotFoundError: when a subfolder is missing.
        OSError, ValueError: when a file is missing or damaged.
    """
    if token_width is not None and family != "sd3":
        raise InvalidInputError(f"T5 was left out of {family}, expected a model of the family sd3")
    parts = _read_parts(family, folder, dtype, t5=token_width is None)
    return ClipT5Encoder(family, *parts, token_width)


def _folders(number: int) -> tuple[str, str]:
    """Names of the folders of the tokenizers and encoders in order, from 0."""
    suffix = f"_{number + 1}" if number else ""
    return f"tokenizer{suffix}", f"text_encoder{suffix}"


def _read_parts(
    family: Family, folder: Path, dtype: torch.dtype | None, *, t5: bool
) -> tuple[list[Any], list[nn.Module]]:
    """Tokenizers and encoders of a folder, of Stable Diffusion 3 with or without T5."""
    from transformers import (
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5EncoderModel,
        T5Tokenizer,
    )

    kinds: Iterable[tuple[Any, Any]]
    match family:
        case "unet":
            kinds = [(CLIPTokenizer, CLIPTextModel)]
        case "pixart":
            kinds = [(T5Tokenizer, T5EncoderModel)]
        case "sd3":
            clip = (CLIPTokenizer, CLIPTextModelWithProjection)
            kinds = [clip, clip, *([(T5Tokenizer, T5EncoderModel)] if t5 else [])]
    tokenizers, encoders = [], []
    for number, (tokenizer, encoder) in enumerate(kinds):
        folders = _folders(number)
        for name in folders:
            if not (folder / name).is_dir():
                raise MissingFileError(
                    f"{str(folder)!r} lacks its folder {name}, download it with 'diffsplat models download'"
                )
        tokenizers.append(tokenizer.from_pretrained(folder / folders[0], local_files_only=True))
        encoders.append(
            encoder.from_pretrained(
                folder / folders[1],
                local_files_only=True,
                use_safetensors=True,
                dtype="auto" if dtype is None else dtype,
            )
        )
    return tokenizers, encoders
