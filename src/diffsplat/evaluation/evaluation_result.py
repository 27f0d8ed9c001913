"""The result of measuring a model: figures, an entry for each object, a contact sheet."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffsplat.core import Views
from diffsplat.errors import InvalidInputError
from diffsplat.io.image_files import tile_images

SHEET_OBJECTS = 12
"""Objects on a contact sheet."""

Measure = Callable[[str, Views], tuple[dict[str, float], Tensor]]
"""Identity and views of an object to its figures, and to the rows ``[R, N, 3, H, W]`` that it has on the sheet."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        figures: numbers by name.
        objects: one entry an object or prompt.
        sheet: ``[3, H, W]`` contact sheet.
    """

    figures: dict[str, float]
    objects: list[dict[str, Any]]
    sheet: Tensor = field(repr=False)


def measured_objects(objects: Iterable[tuple[str, Views]], measure: Measure) -> Evaluation:
    """The figures of every object and their means; those that no object has are left out.

    Raises:
        ValueError: without objects.
    """
    entries: list[dict[str, Any]] = []
    rows: list[Tensor] = []
    for identity, views in tqdm(objects, unit="object", desc="evaluate"):
        measured, shown = measure(identity, views)
        if len(entries) < SHEET_OBJECTS:
            rows += shown.unbind()
        entries.append({"object": identity, **measured})
    if not entries:
        raise InvalidInputError("got no objects to evaluate, expected at least one")
    names = dict.fromkeys(name for entry in entries for name in entry if name != "object")
    figures = {name: mean(entry[name] for entry in entries if name in entry) for name in names}
    return Evaluation(figures, entries, tile_images(torch.cat(rows), columns=len(rows[0]), gap=2))
