"""Images that a rasterizer returns."""

from dataclasses import dataclass

from torch import Tensor

from diffsplat.core import tensor_checks


@dataclass(frozen=True)
class Rendering:
    """Images of splats: ``*B`` sets seen by ``V`` cameras each.

    Args:
        rgb: ``[*B, V, 3, H, W]`` sRGB composited on the background.
        alpha: ``[*B, V, 1, H, W]`` accumulated opacity, 0..1.
        depth: ``[*B, V, 1, H, W]`` expected camera z, world units; 0 where nothing was hit.
        normal: ``[*B, V, 3, H, W]`` blended world normals, not renormalised (zero where nothing was hit);
            None when the caller asked for none.
    """

    rgb: Tensor
    alpha: Tensor
    depth: Tensor
    normal: Tensor | None = None

    def __post_init__(self) -> None:
        size = tuple(self.rgb.shape[-2:])
        tensor_checks.require_shape("Rendering", "rgb", self.rgb, (3, *size))
        for name, channels in (("alpha", 1), ("depth", 1), ("normal", 3)):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                tensor_checks.require_shape("Rendering", name, tensor, (channels, *size))
                tensor_checks.require_batch("Rendering", name, tensor.shape[:-3], self.rgb.shape[:-3])
