"""Options that choose a model and load it. Needs no torch until something is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable
from diffsplat.pretrained.catalogue import BACKBONES, ControlKind
from diffsplat.pretrained.model_folders import SamplingDefaults, find_model, read_index

if TYPE_CHECKING:
    import torch

    from diffsplat.pipelines import DiffSplatPipeline
    from diffsplat.pretrained.released_models import ReleasedModel

Flag = tyro.conf.FlagCreatePairsOff[bool]


def option(metavar: str, hint: str = "", alias: str | None = None) -> Any:
    """How an option whose default is nothing looks in the help."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint, aliases=[alias] if alias else None)


@dataclass(frozen=True)
class ModelArguments:
    """Which model, and how it is loaded."""

    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = "mini"
    """mini (comes with the package), a released backbone (sd15, pixart-sigma, sd35m; 'diffsplat models' lists
    them), or a model folder."""
    weights: Annotated[Path | None, option("DIR")] = None
    """Folder of the released weights (default: where 'diffsplat models download' puts them)."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    low_memory: Annotated[Flag, tyro.conf.arg(help_behavior_hint="")] = False
    """Compute in bfloat16, and keep on the GPU only the layer that computes at the moment."""
    embeddings: Annotated[Path | None, option("FILE")] = None
    """Prompts encoded before by 'diffsplat encode'; no text encoder is loaded."""
    lora: Annotated[tuple[Path, ...], option("FILE ...")] = ()
    """LoRA files for the UNet of Stable Diffusion 1.5."""
    lora_scale: Annotated[float, tyro.conf.arg(metavar="SCALE")] = 1.0
    """Strength of the LoRA files."""

    @property
    def released(self) -> bool:
        """Whether it is one of the released backbones."""
        return self.model in BACKBONES

    def defaults(self, *, image: bool) -> SamplingDefaults:
        """Sampling defaults of the model; of a folder they are read, which checks that it is a model.

        Raises:
            ValueError, FileNotFoundError: when there is no such model.
        """
        if self.released:
            return self.released_model(image=image).defaults
        if image:
            raise InvalidInputError(
                f"the model {self.model!r} is shown no pictures, expected --model {_names()}"
            )
        return SamplingDefaults.from_index(read_index(find_model(self.model)))

    def check(self) -> None:
        """Refuse files that are not there, and options that belong to released models."""
        for path in (*self.lora, *([self.embeddings] if self.embeddings else [])):
            require_readable(path)
        if self.lora and self.model != "sd15":
            raise InvalidInputError(f"the model {self.model!r} takes no LoRA files, expected --model sd15")
        if self.weights is not None and not self.released:
            raise InvalidInputError(f"--weights belongs to released models, expected --model {_names()}")
        if self.weights is not None and not self.weights.is_dir():
            raise InvalidInputError(f"--weights {str(self.weights)!r} is no folder")

    def released_model(
        self, *, image: bool = False, control: ControlKind | None = None, dtype: torch.dtype | None = None
    ) -> ReleasedModel:
        """What is to be loaded of the released model."""
        from diffsplat.pretrained.released_models import ReleasedModel

        return ReleasedModel(
            BACKBONES[self.model], image=image, control=control, weights=self.weights, dtype=dtype
        )

    def load(self, texts: list[str], *, image: bool, control: ControlKind | None) -> DiffSplatPipeline:
        """The pipeline, on its device; prompts are encoded first, and the text encoder is gone by then.

        Args:
            texts: every prompt that will be asked for.
            image: with the denoiser that is shown a picture.
            control: with this ControlNet.
        """
        from diffsplat.cli.device_choice import choose_device
        from diffsplat.models.text.stock_prompt_encoders import StoredPrompts
        from diffsplat.pipelines import DiffSplatPipeline
        from diffsplat.pipelines.device_placement import released_dtype

        device = choose_device(self.device)
        parts: dict[str, Any] = {}
        if self.embeddings is not None:
            parts["text_encoder"] = stored = StoredPrompts.load(self.embeddings)
            if stored.model != self.model:
                raise InvalidInputError(
                    f"{str(self.embeddings)!r} was encoded for the model {stored.model!r}, expected {self.model!r}"
                )
            stored(texts)
        else:
            parts["text_encoder"] = encode_prompts(self, texts)
        if self.released:
            parts["dtype"] = released_dtype(device, low_memory=self.low_memory)
            parts |= {"weights": self.weights, "image": image, "control": control}
        pipe = DiffSplatPipeline.from_pretrained(self.model, **parts)
        for path in self.lora:
            pipe.load_lora(path, self.lora_scale)
        return pipe.place(device, low_memory=self.low_memory)


def encode_prompts(model: ModelArguments, texts: list[str]) -> Any:
    """Encode prompts with the model's text encoder alone, which is dropped afterwards."""
    from diffsplat.cli.device_choice import choose_device
    from diffsplat.models.text.stock_prompt_encoders import StoredPrompts

    device = choose_device(model.device)
    if model.released:
        import torch

        from diffsplat.pretrained.released_models import load_text_encoder

        dtype = torch.bfloat16 if device.type == "cuda" else None
        encoder = load_text_encoder(model.released_model(dtype=dtype)).to(device)
    else:
        from diffsplat.models.text.sentence_encoder import TextEncoder

        encoder = TextEncoder.from_pretrained(find_model(model.model) / "text_encoder").to(device)
    return StoredPrompts.encode(encoder, texts, model.model).to("cpu")


def _names() -> str:
    return " or ".join(BACKBONES)
