"""Training samples of stored G-Objaverse views, as the recordings of the original have them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplat.core import Views
from diffsplat.data.gobjaverse.gobjaverse_files import StoredView
from diffsplat.data.gobjaverse.gobjaverse_views import resize, stored_cameras
from diffsplat.data.paper_training_views import paper_training_views
from diffsplat.images.depth_control_map import depth_control_map


def training_views(views: Sequence[StoredView], *, size: int) -> Views:
    """Views ``[1, V]`` as the original's training sees them; the first four are usually even."""
    return paper_training_views(*_stacked(views), stored_cameras(views), size=size)


def training_depth_maps(views: Sequence[StoredView], *, size: int) -> Tensor:
    """``[V, 3, size, size]`` depth control maps that go with :func:`training_views`."""
    rgba, _, depth = _stacked(views)
    return _on_white(resize(depth_control_map(depth), size), resize(rgba[:, 3:], size))


def _stacked(views: Sequence[StoredView]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.stack([view.rgba for view in views]),
        torch.stack([view.normal for view in views]),
        torch.stack([view.depth for view in views]),
    )


def _on_white(values: Tensor, alpha: Tensor) -> Tensor:
    return values * alpha + (1 - alpha)
