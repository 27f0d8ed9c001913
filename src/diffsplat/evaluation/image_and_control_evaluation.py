"""Measuring generation from images and control maps, against the views of held-out objects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from diffsplat.core import Splats, Views
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.control_agreement import control_agreement, control_images
from diffsplat.evaluation.image_metrics import image_metrics
from diffsplat.evaluation.perceptual_distance import VggDistance
from diffsplat.evaluation.reconstruction_and_text_evaluation import Evaluation
from diffsplat.io.image_files import tile_images
from diffsplat.pretrained.release_catalogue import ControlKind
from diffsplat.render import render

Make = Callable[[Views], Splats]
"""``[1, V]`` views of an object to splats ``[1, N]`` in the world of the first view, the only one to be used."""

_SHEET_OBJECTS = 12
_SHEET_VIEWS = 4


@torch.no_grad()
def evaluate_images(
    makers: Mapping[str, Make], objects: Iterable[tuple[str, Views]], perceptual: VggDistance | None = None
) -> Evaluation:
    """PSNR (dB), SSIM and perceptual distance of what is made of one view: of that view, ``seen``, and of the others,
    ``novel``.

    Args:
        makers: by the name that their figures begin with; all are pictured below the object itself.
        objects: identity and ``[1, V > 1]`` views.
        perceptual: measured where it is given.

    Raises:
        ValueError: there is no object.
    """

    def measure(views: Views) -> tuple[dict[str, float], Tensor]:
        figures: dict[str, float] = {}
        shown = [views.image[0, :_SHEET_VIEWS]]
        for name, make in makers.items():
            splats = make(views)
            cameras = views.cameras.to(splats.device)
            images = render(splats, cameras, normals=False).rgb.clamp(0, 1).to(views.image.device)
            for metric, function in image_metrics(perceptual).items():
                quality = function(images, views.image)[0]
                figures[f"{name}_seen_{metric}"] = float(quality[0])
                figures[f"{name}_novel_{metric}"] = float(quality[1:].mean())
            shown.append(images[0, :_SHEET_VIEWS])
        return figures, torch.stack(shown)

    return _evaluated(objects, measure)


@torch.no_grad()
def evaluate_controls(
    makers: Mapping[str, Make], kind: ControlKind, objects: Iterable[tuple[str, Views]]
) -> Evaluation:
    """How well what is made of a control map of one view agrees with it.

    Args:
        makers: by the name that their figures begin with.
        kind: of control map; the figures are those of
            :func:`~diffsplat.evaluation.control_agreement.control_agreement`.
        objects: identity and ``[1, V]`` views.

    Raises:
        ValueError: there is no object.
    """

    def measure(views: Views) -> tuple[dict[str, float], Tensor]:
        figures: dict[str, float] = {}
        shown = [views.image[0, 0], control_images(views, kind)[0]]
        for name, make in makers.items():
            rendering = render(make(views), views.cameras[:, :1])
            found = control_agreement(rendering, views, kind)
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
            shown.append(rendering.rgb[0, 0].clamp(0, 1))
        return figures, torch.stack(shown)[None]

    return _evaluated(objects, measure)


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


def _evaluated(
    objects: Iterable[tuple[str, Views]], measure: Callable[[Views], tuple[dict[str, float], Tensor]]
) -> Evaluation:
    """Figures of every object, their means, and a sheet of the rows ``[R, N, 3, H, W]`` that the first ones have."""
    entries: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for identity, views in tqdm(objects, unit="object", desc="evaluate"):
        measured, shown = measure(views)
        if len(entries) < _SHEET_OBJECTS:
            rows += shown.unbind()
        entries.append({"object": identity, **measured})
    if not entries:
        raise InvalidInputError("got no objects to evaluate, expected at least one")
    names = dict.fromkeys(name for entry in entries for name in entry if name != "object")
    figures = {name: mean(entry[name] for entry in entries if name in entry) for name in names}
    return Evaluation(figures, entries, tile_images(torch.cat(rows), columns=len(rows[0]), gap=2))
