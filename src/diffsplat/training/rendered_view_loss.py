"""Loss of renderings against the views they should show, for every object of a batch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import PixelGrid, Rendering, SplatGrid, Views
from diffsplat.errors import InvalidInputError, require_at_least
from diffsplat.evaluation.perceptual_distance import DistanceKind, VggDistance, load_perceptual_distance
from diffsplat.render import Backend, render

Term = Literal["rgb", "mask", "absolute", "perceptual", "coord", "normal"]


@dataclass(frozen=True)
class RenderedViewWeights:
    """Weights of the terms; a term of weight 0 is not computed.

    Args:
        rgb: squared error of colour.
        mask: squared error of coverage.
        absolute: absolute error of colour.
        perceptual: perceptual distance of colour.
        coord: squared error of the surface's world coordinates, encoded in 0..1 on white.
        normal: one minus the cosine between world normals, encoded in 0..1 on white.
        warmup_start: step, counted from 1, below which the perceptual distance is measured but has no weight.
        warmup_end: step from which it has its full weight, after a linear rise.
        perceptual_size: edge in pixels of the images that the perceptual distance compares; 0 for those of the views.
    """

    rgb: float = 1.0
    mask: float = 1.0
    absolute: float = 0.0
    perceptual: float = 0.0
    coord: float = 0.0
    normal: float = 0.0
    warmup_start: int = 0
    warmup_end: int = 0
    perceptual_size: int = 256

    def __post_init__(self) -> None:
        require_at_least(0, self, *get_args(Term), "warmup_start", "warmup_end", "perceptual_size")

    def of(self, term: Term, step: int) -> float:
        """The weight of a term at a step, counted from 1."""
        weight: float = getattr(self, term)
        return weight * self._warmup(step) if term == "perceptual" else weight

    def _warmup(self, step: int) -> float:
        if step < self.warmup_start:
            return 0.0
        if step >= self.warmup_end:
            return 1.0
        return (step - self.warmup_start) / (self.warmup_end - self.warmup_start)


@dataclass(frozen=True)
class ObjectLosses:
    """Losses of ``B`` objects.

    Args:
        total: ``[B]`` weighted sum of the terms, with gradient.
        terms: ``[B]`` each, before their weights and without gradient.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedViewLoss:
    """Weighted errors of renderings, each the mean over an object's views, channels and pixels.

    Args:
        weights: of the terms.
        perceptual: needed where its weight is not zero.
        pixel_grid: pixel grid that rendered depths are unprojected with; the views' coordinates belong to it.
    """

    weights: RenderedViewWeights
    perceptual: VggDistance | None = None
    pixel_grid: PixelGrid = "center"

    def __post_init__(self) -> None:
        if self.weights.perceptual and self.perceptual is None:
            raise InvalidInputError(
                f"the perceptual loss has the weight {self.weights.perceptual} but no network, expected one with "
                "--perceptual, or the weight 0"
            )

    @property
    def needs_normals(self) -> bool:
        """Whether renderings have to come with normals."""
        return self.weights.normal > 0

    def render(
        self, grid: SplatGrid, views: Views, pixel_grid: PixelGrid, backend: Backend = "auto"
    ) -> Rendering:
        """Renderings of grids ``[B, V, 12, H, W]`` in views ``[B, V' >= V]``, whose first ``V`` are the grids'."""
        splats = grid.to_splats(views.cameras[:, : grid.views], pixel_grid)
        return render(splats, views.cameras, backend=backend, normals=self.needs_normals)

    def __call__(self, rendering: Rendering, views: Views, step: int = 1) -> ObjectLosses:
        """Losses of renderings ``[B, V]`` on white against views ``[B, V]`` at a training step, counted from 1."""
        total = torch.zeros(views.batch_size, device=rendering.rgb.device)
        terms: dict[str, Tensor] = {}
        for term in self._active():
            weight = self.weights.of(term, step)
            with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
                error = self._error(term, rendering, views)
            total = total + weight * error
            terms[term] = error.detach()
        return ObjectLosses(total, terms)

    def _active(self) -> list[Term]:
        return [name for name in get_args(Term) if getattr(self.weights, name) > 0]

    def _error(self, term: Term, rendering: Rendering, views: Views) -> Tensor:
        """``[B]`` error of one term."""
        match term:
            case "rgb":
                return _squared(rendering.rgb, views.image)
            case "mask":
                return _squared(rendering.alpha, views.mask)
            case "absolute":
                return (rendering.rgb - views.image).abs().flatten(1).mean(dim=1)
            case "perceptual":
                return self._distance(rendering.rgb, views.image)
            case "coord":
                return _squared(coordinate_image(rendering, views, self.pixel_grid), views.coord)
            case "normal":
                cosine = functional.cosine_similarity(views.normal, normal_image(rendering), dim=2)
                return 1 - cosine.flatten(1).mean(dim=1)

    def _distance(self, rendered: Tensor, images: Tensor) -> Tensor:
        """``[B]`` mean perceptual distance of the views ``[B, V, 3, H, W]``."""
        assert self.perceptual is not None
        pair = [
            _resized(part.flatten(0, 1) * 2 - 1, self.weights.perceptual_size) for part in (rendered, images)
        ]
        return self.perceptual(*pair).unflatten(0, images.shape[:2]).mean(dim=1)


@dataclass(frozen=True)
class RenderingLossOptions:
    """Rendering loss of a stage.

    Args:
        loss: weights of its terms.
        perceptual: network of the perceptual distance, LPIPS or its shift-tolerant variant; none on a CPU, where it
            would take most of the time.
        perceptual_weights: folder or file of that network's weights; by default they are downloaded or those of an
            installed package.
    """

    loss: RenderedViewWeights = field(default_factory=RenderedViewWeights)
    perceptual: DistanceKind = "none"
    perceptual_weights: Path | None = None

    def rendering_loss(self, pixel_grid: PixelGrid) -> RenderedViewLoss:
        """The loss of renderings of splats on a pixel grid.

        Raises:
            ValueError: for a weight of the perceptual distance without a network.
            FileNotFoundError: when the network's weights are missing.
        """
        return RenderedViewLoss(self.loss, self.distance(), pixel_grid)

    def distance(self) -> VggDistance | None:
        """The perceptual distance, which validations report too.

        Raises:
            FileNotFoundError: when the network's weights are missing.
        """
        return load_perceptual_distance(self.perceptual, self.perceptual_weights)


def coordinate_image(rendering: Rendering, views: Views, grid: PixelGrid) -> Tensor:
    """``[B, V, 3, H, W]`` world coordinates of rendered depths as ``p * 0.5 + 0.5``, composited on white."""
    points = views.cameras.unproject(rendering.depth, grid)
    return _on_white(points, rendering.alpha)


def normal_image(rendering: Rendering) -> Tensor:
    """``[B, V, 3, H, W]`` rendered world normals as ``n * 0.5 + 0.5``, composited on white.

    The blended normals already carry the coverage once, as in the original.

    Raises:
        ValueError: the rendering has no normals.
    """
    if rendering.normal is None:
        raise ValueError("the normal loss needs renderings with normals, got none")
    return _on_white(rendering.normal, rendering.alpha)


def _on_white(vectors: Tensor, alpha: Tensor) -> Tensor:
    return (vectors * 0.5 + 0.5) * alpha + (1 - alpha)


def _squared(rendered: Tensor, target: Tensor) -> Tensor:
    return (rendered - target).square().flatten(1).mean(dim=1)


def _resized(images: Tensor, size: int) -> Tensor:
    """``[N, 3, H, W]`` resized bilinearly to a square, without antialiasing; 0 leaves them as they are."""
    if size in (0, images.shape[-1]):
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
