"""Choosing a model and opening it on its device. Needs no torch until a model is opened."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from tyro.conf import FlagCreatePairsOff, arg

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import require_readable
from diffsplat.pretrained.model_folders import EMBEDDED_MODELS, ModelFolder, SamplingDefaults, find_model
from diffsplat.pretrained.release_catalogue import BACKBONES, ControlKind
from diffsplat.pretrained.release_layout import default_weights

if TYPE_CHECKING:
    import torch

    from diffsplat.models.text.stored_prompts import StoredPrompts
    from diffsplat.pipelines import DiffSplatPipeline
    from diffsplat.pretrained.released_model_opening import ReleasedModel

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class WeightsAndDevice:
    """Where the weights of a model are, and where it computes."""

    weights: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of the released weights (default: where 'diffsplat models download' puts them)."""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class OpeningOptions(WeightsAndDevice):
    """How a model is opened."""

    low_memory: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Compute in bfloat16, and keep on the GPU only the layer that computes at the moment."""
    embeddings: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Prompts encoded before by 'diffsplat encode'; no text encoder is loaded."""
    lora: Annotated[tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="")] = ()
    """LoRA files for the image-diffusion model that the denoiser was trained from; of few-step ones say the sampler
    too, such as --sampler lcm --steps 4 --guidance 1."""
    lora_scale: Annotated[tuple[float, ...], arg(metavar="SCALE ...")] = (1.0,)
    """Strength of the LoRA files: one for all, or one for each."""
    ip_adapter: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """IP-Adapter for sd15, plain or plus, next to the folder image_encoder; --ip-adapter-image is a prompt then."""
    ip_adapter_scale: Annotated[float, arg(metavar="SCALE")] = 1.0
    """Strength of the IP-Adapter."""
    dtype: Annotated[DtypeName, arg(help_behavior_hint="(default: auto)")] = "auto"
    """Type of the weights. auto, as in Python: text encoders as they are stored, all else fp32, computed in bf16
    where the device is faster in it; with --low-memory bf16."""
    quantize: Annotated[Literal["int8", "nf4"] | None, arg(metavar="int8|nf4", help_behavior_hint="")] = None
    """Store the weights of denoisers and text encoders in eight or four bits, with half or a third of the memory of
    bf16."""
    no_t5: Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")] = False
    """Leave out the T5 text encoder of sd35m, which takes most of its memory."""


@dataclass(frozen=True)
class ModelChoice:
    """A model and how it is opened.

    Args:
        model: name of an embedded model or a released backbone, or path of a model folder.
        image: the denoiser that is conditioned on an image.
        controls: with the ControlNets of these kinds.
        options: how it is opened.
    """

    model: str
    image: bool = False
    controls: tuple[ControlKind, ...] = ()
    options: OpeningOptions = field(default_factory=OpeningOptions)

    @classmethod
    def parse(cls, name: str, options: OpeningOptions) -> Self:
        """A model by name, with variants after colons: ``sd15:image``, ``sd15:depth``, ``FOLDER:image:depth``.

        Raises:
            ValueError: for an unknown variant of a released backbone.
        """
        known, model, variants = ("image", *get_args(ControlKind)), name, list[str]()
        while (parts := model.rpartition(":"))[0] and parts[2] in known:
            model, variants = parts[0], [parts[2], *variants]
        if parts[0] in BACKBONES:
            raise InvalidInputError(
                f"the model {name!r} has an unknown variant, expected one of: {', '.join(known)}"
            )
        controls: tuple[ControlKind, ...] = tuple(kind for kind in get_args(ControlKind) if kind in variants)
        return cls(model, "image" in variants, controls, options)

    def taking_images(self) -> Self:
        """The same model, opened so that it also generates from images where one denoiser takes text and images."""
        if self.released or self.image or self.controls:
            return self
        return replace(self, image=ModelFolder.find(self.model).takes_every_condition)

    def variants(self) -> dict[str, tuple[str, ...]]:
        """Names of the same model that take an image or follow a control map, by ``image`` and ``control``."""
        if self.released:
            backbone = BACKBONES[self.model]
            takes_image, kinds = bool(backbone.image_release), tuple(backbone.control_releases)
        else:
            folder = ModelFolder.find(self.model)
            takes_image, kinds = folder.takes_images, folder.controls
        plain = replace(self, image=False, controls=())
        return {
            "image": (replace(plain, image=True).label,) if takes_image else (),
            "control": tuple(replace(plain, controls=(kind,)).label for kind in kinds),
        }

    @property
    def label(self) -> str:
        """A short name: of a folder without its path; with the variant."""
        known = self.model in (*BACKBONES, *EMBEDDED_MODELS)
        name = self.model if known else Path(self.model).resolve().name
        return ":".join((name, *(("image",) if self.image else ()), *self.controls))

    @property
    def released(self) -> bool:
        """Whether it is one of the released backbones."""
        return self.model in BACKBONES

    def revision(self) -> str:
        """What tells the weights of a model folder from others: a hash of its settings, and of the size and the first
        megabyte of each file of weights; of a released backbone the folder of its weights."""
        if self.released:
            return f"released {self.options.weights or default_weights()}"
        digest = hashlib.sha256()
        folder = find_model(self.model)
        for path in sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors")):
            with path.open("rb") as file:
                digest.update(
                    f"{path.relative_to(folder)} {path.stat().st_size}".encode() + file.read(1 << 20)
                )
        return digest.hexdigest()[:16]

    def defaults(self) -> SamplingDefaults:
        """Sampling defaults; of a folder they are read, and refused when it lacks the model or its variant."""
        if self.released:
            return self._released_model().defaults
        stored = ModelFolder.find(self.model)
        parts = stored.parts(image=self.image, controls=self.controls)
        stored.require_files(parts.values())
        return stored.defaults(image=self.image)

    def check(self) -> None:
        """Refuse files that are not there, and options that belong to other models.

        Raises:
            ValueError: naming the first of them.
        """
        options = self.options
        for path in (*options.lora, options.embeddings, options.ip_adapter):
            if path is not None:
                require_readable(path)
        if options.ip_adapter is not None and self.model in EMBEDDED_MODELS:
            raise InvalidInputError(f"the model {self.model!r} takes no IP-Adapter, expected sd15")
        if options.lora and self.model in EMBEDDED_MODELS:
            raise InvalidInputError(f"the model {self.model!r} takes no LoRA files, expected {_backbones()}")
        if options.lora and len(options.lora_scale) not in (1, len(options.lora)):
            raise InvalidInputError(
                f"{len(options.lora_scale)} scales were given for {len(options.lora)} LoRA files, expected as many"
            )
        if options.no_t5 and self.model != "sd35m":
            raise InvalidInputError(f"--no-t5 was given for the model {self.model!r}, expected sd35m")
        if options.quantize == "nf4" and options.low_memory:
            raise InvalidInputError(
                "--quantize nf4 and --low-memory were given, expected one of them, or --quantize int8"
            )
        if options.weights is not None and not self.released:
            raise InvalidInputError(
                f"the model {self.model!r} has no released weights, expected {_backbones()} with a folder of them"
            )
        if options.weights is not None and not options.weights.is_dir():
            raise InvalidInputError(f"the weights {str(options.weights)!r} are not a folder")

    def open(self, texts: Sequence[str] | None = None, clip_skip: int | None = None) -> DiffSplatPipeline:
        """The pipeline, on its device.

        Texts, if all that will be needed are known, are encoded first, without the last ``clip_skip`` layers of CLIP,
        and the text encoder makes room for the denoiser.

        Raises:
            ValueError, FileNotFoundError: when the model cannot be opened.
        """
        from diffsplat.pipelines.device_placement import choose_device
        from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline

        self.check()
        options, components = self.options, dict[str, Any]()
        device = choose_device(options.device)
        if options.embeddings is not None:
            components["text_encoder"] = self._stored_prompts(options.embeddings, texts or ())
        elif texts is not None and not self._has_small_text_encoder():
            components["text_encoder"] = self.encode(texts, clip_skip)
        pipe = DiffSplatPipeline.from_pretrained(
            self.model,
            weights=options.weights,
            image=self.image,
            control=self.controls,
            dtype=self._dtype,
            t5=not options.no_t5,
            **components,
        )
        scales = options.lora_scale * (len(options.lora) if len(options.lora_scale) == 1 else 1)
        for path, scale in zip(options.lora, scales, strict=bool(options.lora)):
            name = re.sub(r"\W", "_", f"_{path.stem}" if path.stem[:1].isdigit() else path.stem)
            while name in pipe.lora_scales:
                name += "_"
            pipe.load_lora_weights(path, name, scale=scale)
        if options.ip_adapter is not None:
            pipe.load_ip_adapter(options.ip_adapter, scale=options.ip_adapter_scale)
        if options.quantize is not None:
            pipe.quantize(options.quantize)
        return pipe.place(device, low_memory=options.low_memory)

    def _has_small_text_encoder(self) -> bool:
        """Whether the text encoder may stay: it also tells how far a prompt is from what the model knows."""
        from diffsplat.models.text.quantized_sentence_encoder import TextEncoder
        from diffsplat.pretrained.network_folders import stored_class

        return (
            not self.released
            and stored_class(find_model(self.model) / "text_encoder") == TextEncoder.__name__
        )

    def encode(self, texts: Sequence[str], clip_skip: int | None = None) -> StoredPrompts:
        """Encode texts with the model's text encoder alone, which is dropped afterwards."""
        from diffsplat.models.text.clip_skip import with_clip_skip
        from diffsplat.models.text.stored_prompts import StoredPrompts
        from diffsplat.pipelines.device_placement import choose_device

        device = choose_device(self.options.device)
        dtype = self._dtype
        if self.released:
            from diffsplat.pretrained.released_model_opening import load_text_encoder

            encoder = load_text_encoder(self._released_model(dtype))
        else:
            from diffsplat.pipelines.pipeline_folders import load_text_encoder

            encoder = load_text_encoder(find_model(self.model) / "text_encoder", dtype=dtype)
        if self.options.quantize is not None:
            from diffsplat.pipelines.weight_quantization import quantize_components

            quantize_components({"text_encoder": encoder}, self.options.quantize)
        encoder = encoder.to(device)
        encoded = StoredPrompts.encode(with_clip_skip(encoder, clip_skip), texts)
        return StoredPrompts(encoded.conditions, self.model, clip_skip).to("cpu")

    def open_elevation_estimator(self) -> Any:
        """The elevation network alone, on the CPU.

        Raises:
            ValueError, FileNotFoundError: when the model has none, or it cannot be read.
        """
        if self.released:
            from diffsplat.pretrained.released_model_opening import load_elevation

            estimator = load_elevation(self._released_model())
        else:
            from diffsplat.pretrained.network_folders import open_elevation_estimator

            folder = find_model(self.model) / "elevation_estimator"
            estimator = open_elevation_estimator(folder) if folder.is_dir() else None
        if estimator is None:
            raise MissingFileError(
                f"the model {self.model!r} has no elevation network, expected another, or that of the release after "
                f"'diffsplat models download {next(iter(BACKBONES))}'"
            )
        return estimator.eval()

    def _stored_prompts(self, file: Path, texts: Sequence[str]) -> StoredPrompts:
        from diffsplat.models.text.stored_prompts import StoredPrompts

        stored = StoredPrompts.load(file)
        if stored.model != self.model:
            raise InvalidInputError(
                f"{str(file)!r} was encoded for the model {stored.model!r}, expected {self.model!r}"
            )
        if texts:
            stored(list(texts))
        return stored

    def _released_model(self, dtype: torch.dtype | None = None) -> ReleasedModel:
        from diffsplat.pretrained.released_model_opening import ReleasedModel

        return ReleasedModel(
            BACKBONES[self.model],
            self.image,
            self.controls,
            self.options.weights,
            dtype,
            t5=not self.options.no_t5,
        )

    @property
    def _dtype(self) -> torch.dtype | None:
        """Type of the weights; None for the default."""
        import torch

        automatic = torch.bfloat16 if self.options.low_memory else None
        types = {"auto": automatic, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return types[self.options.dtype]


def _backbones() -> str:
    return " or ".join(BACKBONES)
