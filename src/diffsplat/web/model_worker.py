"""Models that are served, what clients order from them, and the objects that come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Self, get_args

import torch

from diffsplat.core import Cameras, Splats
from diffsplat.errors import InvalidInputError
from diffsplat.pipelines.device_placement import released_dtype
from diffsplat.pipelines.generation import GenerationRequest
from diffsplat.pipelines.splat_pipeline import DiffSplatPipeline, Pictures
from diffsplat.pretrained.catalogue import BACKBONES, ControlKind
from diffsplat.pretrained.model_folders import EMBEDDED_MODELS
from diffsplat.web.job_queue import Advance


@dataclass(frozen=True)
class ServedModel:
    """A model in memory.

    Args:
        name: what clients call it.
        pipe: on its device.
        control: kind of control map that it follows.
    """

    name: str
    pipe: DiffSplatPipeline
    control: ControlKind | None = None

    @property
    def reasons(self) -> dict[str, str]:
        """Why an input is not taken, by its name; those that are taken are absent."""
        refused: dict[str, str] = {}
        if not self.pipe.takes_image:
            refused["image"] = f"the model {self.name} generates from text alone"
        if self.pipe.controlnet is None:
            refused["control"] = f"the model {self.name} has no ControlNet"
        return refused


@dataclass(frozen=True)
class GenerationOrder:
    """One job.

    Args:
        model: by name.
        request: what to generate.
        pictures: at the model's size.
        estimate_elevation: find the elevation from the image instead of the request's.
    """

    model: str
    request: GenerationRequest
    pictures: Pictures | None = None
    estimate_elevation: bool = False

    @property
    def steps(self) -> int:
        """Denoising steps of all objects, computed one at a time."""
        return self.request.steps * len(self.request.objects)

    def without_pictures(self) -> Self:
        """The same, small enough to be kept."""
        return replace(self, pictures=None)


@dataclass(frozen=True)
class GeneratedObject:
    """One object, on the CPU.

    Args:
        splats: ``[N]``, those that can be seen.
        cameras: ``[V]``, the views that it was generated in.
        elevation_deg: degrees above the horizon of these views.
        prompt: its description.
        seed: its seed.
    """

    splats: Splats
    cameras: Cameras
    elevation_deg: float
    prompt: str
    seed: int

    @property
    def nbytes(self) -> int:
        """Memory of the splats."""
        tensors = (getattr(self.splats, entry.name) for entry in fields(self.splats))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class Generator:
    """Works on orders with the models in memory; only one thread may use it.

    Args:
        models: by name, at least one; the first is the default.
    """

    models: Mapping[str, ServedModel] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[ServedModel]) -> Self:
        """With models under their own names.

        Raises:
            ValueError: for two of one name, or none.
        """
        named = {model.name: model for model in models}
        if not models or len(named) < len(models):
            raise InvalidInputError("expected at least one model, and each name once")
        return cls(named)

    def __call__(self, order: GenerationOrder, advance: Advance) -> Sequence[GeneratedObject]:
        """Generate what an order asks for; what ``advance`` raises ends it."""
        pipe, request = self.models[order.model].pipe, order.request
        advance(0, order.steps)
        if order.estimate_elevation and order.pictures is not None:
            request = replace(request, elevation_deg=pipe.choose_elevation(order.pictures))
        output = pipe.generate(request, order.pictures, advance)
        splats, cameras = output.splats.to("cpu"), output.cameras.to("cpu")
        return tuple(
            GeneratedObject(
                splats=splats[number].visible(),
                cameras=cameras[number],
                elevation_deg=request.elevation_deg,
                prompt=output.prompts[number],
                seed=output.seeds[number],
            )
            for number in range(len(output))
        )


def load_models(
    names: Sequence[str], *, device: torch.device, weights: Path | None = None, low_memory: bool = False
) -> Generator:
    """Load models onto a device.

    Args:
        names: of a model or its folder; a released model's variant follows a colon: ``sd15:image``,
            ``sd15:depth``.
        device: what to compute on.
        weights: folder of the released weights.
        low_memory: keep on a GPU only the layer that computes at the moment.

    Raises:
        ValueError, FileNotFoundError: when there is no such model.
    """
    return Generator.of([_load(name, device, weights, low_memory) for name in names])


def _load(name: str, device: torch.device, weights: Path | None, low_memory: bool) -> ServedModel:
    backbone, _, variant = name.partition(":")
    if backbone not in BACKBONES:
        pipe = DiffSplatPipeline.from_pretrained(name)
        return ServedModel(name if name in EMBEDDED_MODELS else Path(name).resolve().name, pipe.to(device))
    kinds: tuple[ControlKind, ...] = get_args(ControlKind)
    control: ControlKind | None = kinds[kinds.index(variant)] if variant in kinds else None
    if variant not in ("", "image") and control is None:
        raise InvalidInputError(
            f"the model {name!r} has an unknown variant, expected one of: image, {', '.join(kinds)}"
        )
    pipe = DiffSplatPipeline.from_pretrained(
        backbone,
        weights=weights,
        image=variant == "image",
        control=control,
        dtype=released_dtype(device, low_memory=low_memory),
    )
    return ServedModel(name, pipe.place(device, low_memory=low_memory), control)
