"""Measuring reconstruction, and generation from images and control maps, against the views of held-out objects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from diffsplat.core import PixelGrid, SplatGrid, Splats, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.control_agreement import control_agreement, control_images
from diffsplat.evaluation.evaluation_result import Evaluation, measured_objects
from diffsplat.evaluation.image_metrics import image_metrics
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.render import render

INPUT_VIEWS = 4
"""The first views of a batch are what a reconstructor sees; the others are novel."""

Predict = Callable[[Views], Mapping[str, SplatGrid]]
"""``[B, 4]`` input views to splat grids of them, by the name that their figures begin with."""

Make = Callable[[Views], Splats]
"""``[1, V]`` views of an object to splats ``[1, N]`` in the world of the first view, the only one to be used."""

_SHEET_VIEWS = 4


@torch.no_grad()
def evaluate_grids(
    predict: Predict,
    objects: Iterable[tuple[str, Views]],
    pixel_grid: PixelGrid = "center",
    perceptual: VggDistance | None = None,
) -> Evaluation:
    """PSNR (dB), SSIM and perceptual distance of splat grids, rendered in their input views and in novel ones.

    Every figure is the mean over all views of all objects.

    Args:
        predict: the last of its grids is on the sheet.
        objects: identity and ``[1, 4 + novel]`` views, the inputs first.
        pixel_grid: that the grids are unprojected with.
        perceptual: measured where it is given.

    Raises:
        ValueError: for an object without novel views.
    """

    def measure(identity: str, views: Views) -> tuple[dict[str, float], Tensor]:
        if views.count <= INPUT_VIEWS:
            raise InvalidInputError(f"{identity} has {views.count} views, expected more than {INPUT_VIEWS}")
        inputs, figures, images = views.take(slice(0, INPUT_VIEWS)), dict[str, float](), views.image
        for name, grid in predict(inputs).items():
            images = _rendered(grid.to_splats(inputs.cameras, pixel_grid), views)
            figures |= _qualities(name, images, views, perceptual, "input", INPUT_VIEWS)
        return figures, torch.cat([views.image, images])

    return measured_objects(objects, measure)


@torch.no_grad()
def evaluate_images(
    makers: Mapping[str, Make], objects: Iterable[tuple[str, Views]], perceptual: VggDistance | None = None
) -> Evaluation:
    """PSNR (dB), SSIM and, where it is given, perceptual distance of what is made of one view.

    Those of that view are called ``seen``, those of the others ``novel``.

    Args:
        makers: by the name that their figures begin with; all are on the sheet, below the object itself.
        objects: identity and ``[1, V > 1]`` views.
        perceptual: distance.
    """

    def measure(_identity: str, views: Views) -> tuple[dict[str, float], Tensor]:
        figures, shown = dict[str, float](), [views.image]
        for name, make in makers.items():
            shown.append(_rendered(make(views), views))
            figures |= _qualities(name, shown[-1], views, perceptual, "seen", 1)
        return figures, torch.cat(shown)[:, :_SHEET_VIEWS]

    return measured_objects(objects, measure)


@torch.no_grad()
def evaluate_controls(
    makers: Mapping[str, Make], kind: ControlKind, objects: Iterable[tuple[str, Views]]
) -> Evaluation:
    """How well what is made of a control map of one view agrees with it, by :func:`.control_agreement`.

    Args:
        makers: by the name that their figures begin with.
        kind: of control map.
        objects: identity and ``[1, V]`` views.
    """

    def measure(_identity: str, views: Views) -> tuple[dict[str, float], Tensor]:
        figures, shown = dict[str, float](), [views.image[0, 0], control_images(views, kind)[0]]
        for name, make in makers.items():
            rendering = render(make(views), views.cameras[:, :1])
            found = control_agreement(rendering, views, kind)
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
            shown.append(rendering.rgb[0, 0].clamp(0, 1))
        return figures, torch.stack(shown)[None]

    return measured_objects(objects, measure)


def _rendered(splats: Splats, views: Views) -> Tensor:
    """Images of splats ``[1, N]`` in the views, where these are."""
    rendering = render(splats, views.cameras.to(splats.device), normals=False)
    return rendering.rgb.clamp(0, 1).to(views.image.device)


def _qualities(
    name: str, images: Tensor, views: Views, perceptual: VggDistance | None, given: str, count: int
) -> dict[str, float]:
    """Mean qualities of images ``[1, V, 3, H, W]`` in the first ``count`` views and in the others."""
    figures = {}
    for metric, function in image_metrics(perceptual).items():
        quality = function(images, views.image)[0]
        figures[f"{name}_{given}_{metric}"] = float(quality[:count].mean())
        figures[f"{name}_novel_{metric}"] = float(quality[count:].mean())
    return figures


@dataclass(frozen=True)
class NearestObject:
    """The training object that looks most like an image: what a model must beat that has learned more than by heart.

    Args:
        dataset: training objects.
        features: ``[3, H, W]`` images to features ``[N, F]``.
        make: ``[1, 4]`` views of an object to its splats.
        places: row and first view of each of ``known``.
        known: ``[M, F]`` features of unit length.
    """

    dataset: ObjectDataset
    features: Callable[[Sequence[Tensor]], Tensor]
    make: Make
    places: Sequence[tuple[int, int]]
    known: Tensor

    @classmethod
    def of(
        cls, dataset: ObjectDataset, features: Callable[[Sequence[Tensor]], Tensor], make: Make
    ) -> "NearestObject":
        """Look at every training object from the four sides of its first ring."""
        places: list[tuple[int, int]] = []
        known: list[Tensor] = []
        for row in tqdm(range(len(dataset)), unit="object", desc="features"):
            views = dataset.canonical(row)
            places += [(row, view) for view in dataset.rows[row].ring_views(0)]
            known.append(functional.normalize(features(list(views.image[0])), dim=-1))
        return cls(dataset, features, make, places, torch.cat(known))

    def __call__(self, views: Views) -> Splats:
        """Splats of the training object, seen from the side that is most like the first view."""
        feature = functional.normalize(self.features([views.image[0, 0]]), dim=-1)
        row, first = self.places[int((self.known @ feature[0]).argmax())]
        ring = self.dataset.rows[row].ring_views(0)
        start = ring.index(first)
        return self.make(self.dataset.load_views(row, ring[start:] + ring[:start]))
