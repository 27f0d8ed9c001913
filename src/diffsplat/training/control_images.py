"""Control images of training views, by kind: what a ControlNet is trained with."""

import torch
from torch import Tensor

from diffsplat.core import Views
from diffsplat.images.depth_control_map import depth_control_map
from diffsplat.pipelines.control_maps import canny_map
from diffsplat.pretrained.backbones import ControlKind


def control_images(views: Views, kind: ControlKind) -> Tensor:
    """``[B, 3, H, W]`` control images 0..1 of the first views, on white: depth, world normals, or black edges."""
    match kind:
        case "depth":
            return depth_control_map(views.depth[:, 0], views.mask[:, 0])
        case "normal":
            return views.normal[:, 0]
        case "canny":
            return torch.stack([canny_map(image) for image in views.image[:, 0]])
