"""Generated objects, as a pipeline returns them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from diffsplat.core import Cameras, Rendering, Splats
from diffsplat.core.splats import SPLAT_FIELDS
from diffsplat.errors import require
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.render import Backend, render


@dataclass(frozen=True)
class GeneratedObject:
    """One object, on the CPU.

    Args:
        splats: ``[N]``, those that are visible.
        cameras: ``[V]``, the views that it was generated in.
        elevation_deg: degrees above the horizon of these views.
        prompt: its description.
        seed: its random seed.
        notice: one sentence when the model reads the prompt as another, or was trained on nothing like it.
    """

    splats: Splats
    cameras: Cameras
    elevation_deg: float
    prompt: str
    seed: int
    notice: str | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the splats."""
        tensors = [getattr(self.splats, name) for name in SPLAT_FIELDS]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True)
class SplatOutput:
    """Generated objects.

    Args:
        splats: ``[B, N]``, one set an object.
        cameras: ``[B, V]`` the views that the splats were generated in.
        generation: the options, defaults and elevation filled in.
        notices: by prompt, one sentence when the model reads it as another, or was trained on nothing like it.
        latents: ``[B, V, C, h, w]`` that the splats were decoded from.
        elevations_deg: of each object, where they come from images with elevations of their own; the generation has
            none then.
    """

    splats: Splats
    cameras: Cameras
    generation: ResolvedGeneration
    notices: Mapping[str, str] = field(default_factory=dict)
    latents: Tensor | None = None
    elevations_deg: tuple[float, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The objects of several outputs with the same options, one after the other."""
        latents = [part.latents for part in parts if part.latents is not None]
        elevations = {part.generation.elevation for part in parts}
        generation = replace(
            parts[0].generation,
            prompts=tuple(prompt for part in parts for prompt in part.prompts),
            seeds=tuple(seed for part in parts for seed in part.seeds),
            count=1,
            elevation=elevations.pop() if len(elevations) == 1 else None,
        )
        return cls(
            Splats.concatenate([part.splats for part in parts]),
            Cameras.concatenate([part.cameras for part in parts]),
            generation,
            {prompt: notice for part in parts for prompt, notice in part.notices.items()},
            torch.cat(latents) if len(latents) == len(parts) else None,
            tuple(part.generation.elevation_deg for part in parts for _ in part.prompts),
        )

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompt of each object."""
        return tuple(prompt for prompt, _ in self.generation.objects)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Random seed of each object."""
        return tuple(seed for _, seed in self.generation.objects)

    def __len__(self) -> int:
        return len(self.generation.objects)

    def objects(self) -> tuple[GeneratedObject, ...]:
        """Every object by itself, ready to be written to files."""
        splats, cameras = self.splats.to("cpu"), self.cameras.to("cpu")
        return tuple(
            GeneratedObject(
                splats[index].visible(),
                cameras[index],
                self.elevations_deg[index] if self.elevations_deg else self.generation.elevation_deg,
                prompt,
                seed,
                self.notices.get(prompt),
            )
            for index, (prompt, seed) in enumerate(self.generation.objects)
        )

    def render(
        self,
        cameras: Cameras | None = None,
        *,
        size: int | None = None,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        backend: Backend = "auto",
    ) -> Rendering:
        """Images of every object.

        Args:
            cameras: ``[V]`` shared by all objects, or ``[B, V]``; the generated views by default.
            size: edge of the images in pixels; that of the cameras by default.
            background: sRGB 0..1.
            backend: rasterizer.

        Raises:
            ValueError: for a size below 1, or cameras of another number of objects.
        """
        views = self.cameras if cameras is None else cameras
        if len(views.batch_shape) == 1:
            views = views.for_objects(len(self))
        require(size is None or size >= 1, "size", size, "at least 1 pixel")
        if size is not None:
            views = views.resized(size, size)
        return render(
            self.splats, views.to(self.splats.device), background=background, backend=backend, normals=False
        )
