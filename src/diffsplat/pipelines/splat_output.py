"""What a pipeline returns."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffsplat.core import Cameras, Rendering, Splats
from diffsplat.render import Backend, render


@dataclass(frozen=True)
class SplatOutput:
    """Generated objects.

    Args:
        splats: ``[B, N]``, one set an object.
        cameras: ``[B, V]`` the views that the splats were generated in.
        prompts: prompt of each object.
        seeds: seed of each object.
    """

    splats: Splats
    cameras: Cameras
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompts)

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
        """
        views = self.cameras if cameras is None else cameras
        if len(views.batch_shape) == 1:
            views = views.for_objects(len(self))
        if size is not None:
            views = views.resized(size, size)
        return render(
            self.splats, views.to(self.splats.device), background=background, backend=backend, normals=False
        )
