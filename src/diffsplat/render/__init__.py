"""Rendering of splats: :func:`render` chooses a rasterizer backend."""

import functools
import importlib.util
import logging
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from diffsplat.core import Cameras, Rendering, Splats
from diffsplat.core.without_autocast import without_autocast
from diffsplat.errors import InvalidInputError, MissingPackageError, require
from diffsplat.render.backend_input import RenderTask

logger = logging.getLogger(__name__)

Backend = Literal["auto", "cpu", "gsplat", "reference"]

__all__ = ["Backend", "render", "warmup"]


@without_autocast
def render(
    splats: Splats,
    cameras: Cameras,
    *,
    background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    backend: Backend = "auto",
    normals: bool = True,
) -> Rendering:
    """Render sets of Gaussians, each from its own cameras, as classic 3D Gaussian splatting does.

    The image model is that of :mod:`diffsplat.render.rasterization_constants`. Gradients reach every
    field of the splats, but not the cameras.

    Args:
        splats: sets of Gaussians, batch ``[*B]`` (none for a single set).
        cameras: ``V`` cameras for each set, batch ``[*B, V]``.
        background: three sRGB numbers that the colour is composited on.
        backend: ``cpu`` is compiled by numba at first use and computes in float32; ``gsplat`` needs CUDA and the
            package gsplat; ``reference`` is plain PyTorch, slow, in the type of the splats; ``auto`` takes
            ``gsplat`` for splats on a CUDA device, ``cpu`` for those on the CPU and ``reference`` for others.
        normals: False leaves the normal images out and saves their time.

    Returns:
        Images ``[*B, V, C, H, W]``. ``normal`` blends each splat's shortest axis, turned to the camera, in the world.

    Raises:
        ValueError: for batches that do not match, mixed devices, a background that is not three finite numbers,
            an unknown backend, or a backend that cannot work on the splats' device.
        ImportError: for ``gsplat`` when its package is not installed.
    """
    if cameras.batch_shape[:-1] != splats.batch_shape or not cameras.batch_shape:
        raise InvalidInputError(
            f"cameras have the batch {tuple(cameras.batch_shape)}, expected {(*splats.batch_shape, 'V')} "
            "for these splats"
        )
    if cameras.device != splats.device:
        raise InvalidInputError(f"cameras are on {cameras.device}, expected {splats.device} like the splats")
    rasterize = _backend(backend, splats.device)
    images = rasterize(RenderTask.of(splats, cameras, _background(background), normals))
    shape = splats.batch_shape

    def restored(image: Tensor) -> Tensor:
        return image.reshape(*shape, *image.shape[1:])

    return Rendering(
        rgb=restored(images.rgb),
        alpha=restored(images.alpha),
        depth=restored(images.depth),
        normal=None if images.normal is None else restored(images.normal),
    )


def warmup() -> None:
    """Compile everything that the ``cpu`` backend may need on this machine, and keep it on disk."""
    from diffsplat.render.cpu_backend import compile_all

    compile_all()


def _background(background: Sequence[float] | Tensor) -> Tensor:
    color = torch.as_tensor(background, dtype=torch.float64, device="cpu")
    valid = color.shape == (3,) and bool(torch.isfinite(color).all())
    require(valid, "background", repr(background), "three finite numbers")
    return color


def _backend(name: str, device: torch.device) -> Callable[[RenderTask], Rendering]:
    """The function behind a backend's name."""
    known = get_args(Backend)
    require(name in known, "backend", repr(name), f"one of {', '.join(known)}")
    if name == "auto":
        name = _default_backend(device.type)
    match name:
        case "cpu":
            from diffsplat.render import cpu_backend as module
        case "gsplat":
            if importlib.util.find_spec("gsplat") is None:
                raise MissingPackageError(
                    "backend 'gsplat' needs the package gsplat, which is not installed: pip install 'diffsplat[cuda]'"
                )
            from diffsplat.render import gsplat_backend as module
        case _:
            from diffsplat.render import reference_backend as module
    return module.rasterize


@functools.cache  # so that the warning comes once
def _default_backend(device_type: str) -> Backend:
    match device_type:
        case "cuda":
            return "gsplat"
        case "cpu":
            return "cpu"
        case _:
            logger.warning("no fast rasterizer works on %s: plain PyTorch renders, slowly", device_type)
            return "reference"
