"""Control images of views, and how well a result follows its control image."""

from math import isnan

import torch
from torch import Tensor
from torch.nn import functional

from diffsplat.core import Rendering, Views
from diffsplat.images.depth_control_map import depth_control_map
from diffsplat.images.mask_dilation import dilated
from diffsplat.models.condition_encoder import ConditionKind
from diffsplat.pipelines.control_maps import canny_map
from diffsplat.pretrained.release_catalogue import ControlKind

_EDGE_TOLERANCE = 2
"""Pixels that an edge may lie off and still count as found."""


def control_images(views: Views, kind: ControlKind) -> Tensor:
    """``[B, 3, H, W]`` control images 0..1 of the first views, on white: depth, world normals, or black edges."""
    match kind:
        case "depth":
            return depth_control_map(views.depth[:, 0], views.mask[:, 0])
        case "normal":
            return views.normal[:, 0]
        case "canny":
            return torch.stack([canny_map(image) for image in views.image[:, 0]])


def condition_images(views: Views, kind: ConditionKind) -> Tensor:
    """``[B, 3, H, W]`` of the first views: what they look like, or control images."""
    return views.image[:, 0] if kind == "image" else control_images(views, kind)


def control_agreement(rendering: Rendering, views: Views, kind: ControlKind) -> dict[str, float]:
    """How well renderings ``[B, 1]`` of results, with normals, agree with the control images of the first views.

    Returns:
        Means over the objects: ``silhouette_iou``, the intersection over the union of both silhouettes, and
        ``depth_error``, the mean difference of the two depth maps where both are covered; ``normal_cosine``, that of
        the angle between the normals there; or ``edge_f1``, the F1 score of edges that lie within 2 pixels. What
        no pixel tells is left out.

    Raises:
        ValueError: normals are compared, and the renderings have none.
    """
    found, wanted = rendering.alpha[:, 0] > 0.5, views.mask[:, 0] > 0.5
    both = found & wanted
    overlap = both.flatten(1).sum(dim=1) / (found | wanted).flatten(1).sum(dim=1).clamp_min(1)
    figures = {"silhouette_iou": float(overlap.mean())}
    match kind:
        case "depth":
            depth = torch.where(found, rendering.depth[:, 0], 0.0)
            maps = (depth_control_map(depth, found.to(depth)), control_images(views, kind))
            figures["depth_error"] = _mean_where((maps[0] - maps[1]).abs().mean(dim=1, keepdim=True), both)
        case "normal":
            normals = rendering.normal
            if normals is None:
                raise ValueError("the agreement of normals needs renderings with normals, got none")
            cosine = functional.cosine_similarity(normals[:, 0], views.normal[:, 0] * 2 - 1, dim=1)
            figures["normal_cosine"] = _mean_where(cosine[:, None], both)
        case "canny":
            edges = torch.stack([canny_map(image.clamp(0, 1)) for image in rendering.rgb[:, 0]])
            figures["edge_f1"] = edge_f1(edges[:, :1] < 0.5, control_images(views, kind)[:, :1] < 0.5)
    return {name: value for name, value in figures.items() if not isnan(value)}


def edge_f1(found: Tensor, wanted: Tensor) -> float:
    """Harmonic mean of precision and recall of edges ``[B, 1, H, W]``, averaged over the images."""
    near = [dilated(edges, _EDGE_TOLERANCE) for edges in (found, wanted)]
    precision = (found & near[1]).flatten(1).sum(dim=1) / found.flatten(1).sum(dim=1).clamp_min(1)
    recall = (wanted & near[0]).flatten(1).sum(dim=1) / wanted.flatten(1).sum(dim=1).clamp_min(1)
    return float((2 * precision * recall / (precision + recall).clamp_min(1e-9)).mean())


def _mean_where(values: Tensor, chosen: Tensor) -> float:
    """Mean of ``[B, 1, H, W]`` values over the chosen pixels of all objects."""
    return float(values[chosen].mean()) if bool(chosen.any()) else float("nan")
