"""Measuring the shapes of generated objects by their silhouettes: loose bits, and how much seeds differ."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from diffsplat.core import Splats, Views
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt
from diffsplat.evaluation.evaluation_result import SHEET_OBJECTS, Evaluation
from diffsplat.geometry import BETWEEN_AZIMUTHS_DEG, RING_AZIMUTHS_DEG, TEXT_ELEVATION_DEG, orbit_cameras
from diffsplat.io.image_files import tile_images
from diffsplat.render import render

GenerateSeed = Callable[[str, int], Splats]
"""A prompt and a seed to splats ``[N]``."""

_SIZE = 128


@torch.no_grad()
def evaluate_shapes(
    generate: GenerateSeed,
    prompts: Sequence[JudgedPrompt],
    seeds: Sequence[int],
    real: Mapping[str, Sequence[Views]],
) -> Evaluation:
    """Loose bits of generated objects, and the distance between seeds, next to those of real objects.

    ``loose`` is the mean :func:`loose_share` of views half way between those that are generated, ``real_loose`` that
    of real objects of the prompts' nouns in their own views. ``seed_distance`` is the mean :func:`mean_distance` of
    the seeds of a prompt, seen from the sides that are generated, and ``real_distance`` that of the real objects of
    a noun, where there are several. The first four views of real objects are from the sides that are generated.

    Raises:
        ValueError: for a noun without real objects, fewer than two seeds, or no noun with several objects.
    """
    if len(seeds) < 2:
        raise InvalidInputError(f"got {len(seeds)} seeds, expected at least 2 to compare")
    several = [objects for objects in real.values() if len(objects) > 1]
    missing = sorted({prompt.noun for prompt in prompts} - real.keys())
    if missing or not several:
        what = f"{missing[0]!r}" if missing else "any noun with at least two"
        raise InvalidInputError(f"there are no real objects of {what}, expected some of every noun")
    cameras = orbit_cameras(
        (*RING_AZIMUTHS_DEG, *BETWEEN_AZIMUTHS_DEG), TEXT_ELEVATION_DEG, width=_SIZE, height=_SIZE
    )
    entries: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for prompt in tqdm(prompts, unit="prompt", desc="evaluate"):
        made = [render(generate(prompt.prompt, seed), cameras, normals=False) for seed in seeds]
        shapes = torch.stack([silhouettes(one.alpha) for one in made])
        loose = [loose_share(view) for view in shapes[:, 4:].flatten(0, 1)]
        distance = mean_distance(shapes[:, :4])
        entries.append({"prompt": prompt.prompt, "loose": mean(loose), "seed_distance": distance})
        if len(rows) < SHEET_OBJECTS:
            rows.append(torch.stack([one.rgb[4].clamp(0, 1) for one in made]))
    figures = {name: mean(entry[name] for entry in entries) for name in ("loose", "seed_distance")}
    figures |= _figures_of_real(real)
    return Evaluation(figures, entries, tile_images(torch.cat(rows), columns=len(seeds)))


def _figures_of_real(objects: Mapping[str, Sequence[Views]]) -> dict[str, float]:
    masks = [[silhouettes(views.mask[0]) for views in group] for group in objects.values()]
    return {
        "real_loose": mean(loose_share(view) for group in masks for one in group for view in one),
        "real_distance": mean(
            mean_distance(torch.stack([one[:4] for one in group])) for group in masks if len(group) > 1
        ),
    }


def silhouettes(alpha: Tensor) -> Tensor:
    """``[V, H, W]`` True where coverage ``[V, 1, H, W]`` is more than half."""
    return alpha[:, 0] > 0.5


def loose_share(silhouette: Tensor) -> float:
    """Share of the pixels of a silhouette ``[H, W]`` that do not hang together with its largest part; 0 without any.

    Pixels that touch at a corner hang together.
    """
    total = int(silhouette.sum())
    if not total:
        return 0.0
    _, counts = connected_parts(silhouette)[silhouette].unique(return_counts=True)
    return 1 - int(counts.max()) / total


def connected_parts(silhouette: Tensor) -> Tensor:
    """``[H, W]`` numbers that pixels of ``silhouette [H, W]`` share where they hang together, and 0 outside it.

    The largest number of a part spreads from pixel to pixel until nothing changes.
    """
    numbers = torch.arange(1.0, silhouette.numel() + 1, dtype=torch.float64).view(silhouette.shape)
    inside = silhouette.double()
    labels = numbers.to(inside) * inside
    while True:
        spread = functional.max_pool2d(labels[None, None], 3, stride=1, padding=1)[0, 0] * inside
        if torch.equal(spread, labels):
            return labels
        labels = spread


def mean_distance(shapes: Tensor) -> float:
    """Mean over the pairs of ``[N >= 2, V, H, W]`` silhouettes of 1 minus the intersection over the union.

    The views of an object count as one silhouette; two empty ones do not differ.

    Raises:
        ValueError: for fewer than two objects.
    """
    if len(shapes) < 2:
        raise ValueError(f"got {len(shapes)} objects, expected at least 2 to compare")
    distances = [
        1 - float((first & second).sum()) / max(1, int((first | second).sum()))
        if bool((first | second).any())
        else 0.0
        for first, second in combinations(shapes, 2)
    ]
    return sum(distances) / len(distances)
