"""Prompts as the released networks were told them, through the stock pipelines of diffusers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import atomic_path, require_readable
from diffsplat.models.network_families import Family
from diffsplat.models.text.text_condition import TextCondition

_FORMAT = "diffsplat-prompts-1"


class PromptEncoder(Protocol):
    """Anything that turns prompts into what a denoiser is told."""

    def __call__(self, texts: list[str], /) -> TextCondition:
        """Encode ``B`` prompts."""
        ...


class StockPromptEncoder(nn.Module):
    """Tokenizers and text encoders of an image-diffusion model.

    Args:
        family: which stock pipeline encodes: Stable Diffusion (CLIP), PixArt-Sigma (T5, 300 tokens) or Stable
            Diffusion 3 (two CLIPs and T5, 256 tokens).
        tokenizers: in the order of the model's folders ``tokenizer``, ``tokenizer_2``, ...
        encoders: in the same order.
    """

    def __init__(self, family: Family, tokenizers: Sequence[Any], encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.family: Family = family
        self.encoders = nn.ModuleList(encoders).eval().requires_grad_(False)
        self._tokenizers = tuple(tokenizers)

    @torch.no_grad()
    def forward(self, texts: list[str]) -> TextCondition:
        """Encode prompts.

        Returns:
            Tokens ``[B, T, D]``; with PixArt a mask ``[B, T]``, with SD3 pooled vectors ``[B, P]``; all float32.
        """
        encoder: Any = self.encoders[0]
        stock = self._stock_pipeline()
        match self.family:
            case "unet":
                tokens, _ = stock.encode_prompt(texts, encoder.device, 1, False)
                return TextCondition(tokens.float())
            case "pixart":
                tokens, mask, _, _ = stock.encode_prompt(texts, False, device=encoder.device)
                return TextCondition(tokens.float(), mask.bool())
            case "sd3":
                tokens, _, pooled, _ = stock.encode_prompt(
                    texts, None, None, device=encoder.device, do_classifier_free_guidance=False
                )
                return TextCondition(tokens.float(), pooled=pooled.float())

    def _stock_pipeline(self) -> Any:
        """The stock pipeline around the encoders, without its other components."""
        match self.family:
            case "unet":
                from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
                    StableDiffusionPipeline as Stock,
                )

                absent = ("vae", "unet", "scheduler", "safety_checker", "feature_extractor")
                extra: dict[str, Any] = {"requires_safety_checker": False}
            case "pixart":
                from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import (
                    PixArtSigmaPipeline as Stock,
                )

                absent, extra = ("vae", "transformer", "scheduler"), {}
            case "sd3":
                from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
                    StableDiffusion3Pipeline as Stock,
                )

                absent, extra = ("vae", "transformer", "scheduler"), {}
        present: dict[str, Any] = {}
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True)):
            suffix = f"_{number + 1}" if number else ""
            present[f"tokenizer{suffix}"] = tokenizer
            present[f"text_encoder{suffix}"] = encoder
        kind: Any = Stock
        return kind(**dict.fromkeys(absent), **present, **extra)


def load_prompt_encoder(
    family: Family, folder: Path, *, dtype: torch.dtype | None = None
) -> StockPromptEncoder:
    """Tokenizers and text encoders of a folder in the layout of diffusers; safetensors only.

    Args:
        family: of the denoiser.
        folder: holds ``tokenizer``, ``text_encoder`` and, for SD3, ``tokenizer_2``, ...
        dtype: of the weights; as stored by default.

    Raises:
        FileNotFoundError: when a subfolder is missing.
        OSError, ValueError: when a file is missing or damaged.
    """
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
            kinds = [clip, clip, (T5Tokenizer, T5EncoderModel)]
    tokenizers, encoders = [], []
    for number, (tokenizer, encoder) in enumerate(kinds):
        suffix = f"_{number + 1}" if number else ""
        for name in (f"tokenizer{suffix}", f"text_encoder{suffix}"):
            if not (folder / name).is_dir():
                raise MissingFileError(
                    f"{str(folder)!r} lacks its folder {name}, download it with 'diffsplat models download'"
                )
        tokenizers.append(tokenizer.from_pretrained(folder / f"tokenizer{suffix}", local_files_only=True))
        encoders.append(
            encoder.from_pretrained(
                folder / f"text_encoder{suffix}",
                local_files_only=True,
                use_safetensors=True,
                dtype="auto" if dtype is None else dtype,
            )
        )
    return StockPromptEncoder(family, tokenizers, encoders)


class StoredPrompts:
    """Prompts that were encoded before; a text encoder that needs no networks.

    Args:
        conditions: what the denoiser is told, by prompt.
        model: name of the model whose encoder it was.
    """

    def __init__(self, conditions: dict[str, TextCondition], model: str = "") -> None:
        self.conditions = dict(conditions)
        self.model = model

    @classmethod
    def encode(cls, encoder: PromptEncoder, texts: Iterable[str], model: str = "") -> Self:
        """Encode texts one at a time, so that none depends on the others through rounding."""
        return cls({text: encoder([text]) for text in dict.fromkeys(texts)}, model)

    def __call__(self, texts: list[str]) -> TextCondition:
        """What was stored for the texts, stacked.

        Raises:
            ValueError: for a text that was not encoded.
        """
        for text in texts:
            if text not in self.conditions:
                known = ", ".join(map(repr, self.conditions))
                raise InvalidInputError(f"the prompt {text!r} was not encoded, expected one of: {known}")
        return TextCondition.concatenate([self.conditions[text] for text in texts])

    def to(self, device: torch.device | str) -> Self:
        """Move to a device, in place."""
        self.conditions = {text: condition.to(device) for text, condition in self.conditions.items()}
        return self

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write a safetensors file, complete or not at all."""
        tensors: dict[str, Tensor] = {}
        metadata = {"format": _FORMAT, "model": self.model}
        for number, (text, condition) in enumerate(self.conditions.items()):
            metadata[f"prompt.{number}"] = text
            for name in ("tokens", "mask", "pooled"):
                value = getattr(condition, name)
                if value is not None:
                    tensors[f"{number}.{name}"] = value.cpu().contiguous()
        with atomic_path(path, force=force) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no file.
            ValueError: when it holds something else.
        """
        require_readable(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InvalidInputError(f"{str(path)!r} holds no encoded prompts: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise InvalidInputError(
                f"{str(path)!r} holds no encoded prompts, expected a file of 'diffsplat encode'"
            )
        prompts = [name for name in metadata if name.startswith("prompt.")]
        conditions = {
            metadata[name]: _condition(tensors, name.removeprefix("prompt."), path)
            for name in sorted(prompts, key=lambda name: int(name.removeprefix("prompt.")))
        }
        return cls(conditions, metadata.get("model", ""))


def _condition(tensors: dict[str, Tensor], number: str, path: Path) -> TextCondition:
    parts = {name: tensors.get(f"{number}.{name}") for name in ("mask", "pooled")}
    if f"{number}.tokens" not in tensors:
        raise InvalidInputError(f"{str(path)!r} lacks the tokens of its prompt {number}")
    return TextCondition(tokens=tensors[f"{number}.tokens"], **parts)
