"""Fitting the noun judge on real renders, and measuring how far it can be trusted."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffsplat.core.stable_hash import stable_hash
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.shard_row import ObjectRow
from diffsplat.errors import InvalidInputError
from diffsplat.evaluation.evaluation_objects import find_shards, open_objects
from diffsplat.evaluation.image_feature_store import FeatureStore
from diffsplat.evaluation.noun_judge import NounJudge, fit_noun_judge
from diffsplat.evaluation.noun_judge_augmentation import DISTORTIONS
from diffsplat.io.file_access import make_folder
from diffsplat.io.json_files import write_json

MOST_OBJECTS = 10
"""Objects of one noun that the judge is fitted on."""
_REPAINTED = 1
_SAVE_EVERY = 50
_FIT_RING = 1
_HELD_OUT_RING = 2
_FOLDS = 5
_RECIPE = 2
"""Changes with what a judge is fitted on, so that an older one is not taken for it."""


@dataclass(frozen=True)
class ObjectFeatures:
    """A real object and the features of some of its views.

    Args:
        name: key of the object; its versions and colours share it.
        noun: what it is.
        features: ``[V, F]``.
        distorted: ``[D, V, F]`` of the same views in every distortion; ``D`` is 0 without distortions.
    """

    name: str
    noun: str
    features: Tensor
    distorted: Tensor

    @property
    def all_features(self) -> Tensor:
        """``[(1 + D) * V, F]`` features of clean and distorted views."""
        return torch.cat([self.features, self.distorted.flatten(0, 1)])


@dataclass(frozen=True)
class JudgeFigures:
    """How often the judge names real objects right at rank 1, 0..1.

    Args:
        held_out_objects: objects of the data set's held-out split, four views each judged together.
        held_out_objects_per_view: the same, every view alone.
        held_out_count: number of those objects; not every noun has some.
        held_out_views: training objects from one direction that it was not fitted on.
        cross_validated: training objects of nouns with several, each judged by a fit without it; mean over nouns.
        cross_validated_distorted: the same of their distorted images, mean over the distortions too.
        cross_validated_nouns: number of those nouns.
    """

    held_out_objects: float
    held_out_objects_per_view: float
    held_out_count: int
    held_out_views: float
    cross_validated: float
    cross_validated_distorted: float
    cross_validated_nouns: int


def load_or_fit(
    data: Path, nouns: Sequence[str], store: FeatureStore, folder: Path
) -> tuple[NounJudge, JudgeFigures]:
    """:func:`fit_on_renders`, kept in ``folder`` for the next call with the same arguments."""
    shards = [f"{shard.relative_to(data)} {shard.stat().st_size}" for shard in find_shards(data)]
    parts = [str(_RECIPE), *shards, *sorted(set(nouns))]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    judge_file, figures_file = folder / f"judge-{key}.safetensors", folder / f"judge-{key}.json"
    if judge_file.is_file() and figures_file.is_file():
        figures = json.loads(figures_file.read_text(encoding="utf-8"))
        return NounJudge.load(judge_file), JudgeFigures(**figures)
    judge, measured = fit_on_renders(data, nouns, store)
    make_folder(folder)
    judge.save(judge_file)
    write_json(asdict(measured), figures_file)
    return judge, measured


def fit_on_renders(data: Path, nouns: Sequence[str], store: FeatureStore) -> tuple[NounJudge, JudgeFigures]:
    """Fit the judge of ``nouns`` on training objects, some of each, and measure it on what it was not fitted on.

    Raises:
        ValueError: for a noun that no training object has.
    """
    train = open_objects(data, split="train")
    fitted = object_features(train, nouns, store, fitted_views, for_fitting=True)
    missing = sorted(set(nouns) - {seen.noun for seen in fitted})
    if missing:
        raise InvalidInputError(f"no training object is a {missing[0]!r}, expected some of every noun")
    views = object_features(train, nouns, store, unfitted_view)
    test = open_objects(data, split="test", variants=False)
    held_out = object_features(test, nouns, store, fitted_views)
    judge = _fit(fitted)
    by_noun, distorted = cross_validation(fitted)
    return judge, JudgeFigures(
        held_out_objects=_share([judge.rank(seen.features, seen.noun) == 1 for seen in held_out]),
        held_out_objects_per_view=_share(_view_by_view(judge, held_out)),
        held_out_count=len(held_out),
        held_out_views=_share(_view_by_view(judge, views)),
        cross_validated=_share(list(by_noun.values())),
        cross_validated_distorted=_share(list(distorted.values())),
        cross_validated_nouns=len(by_noun),
    )


def object_features(
    dataset: ObjectDataset,
    nouns: Sequence[str],
    store: FeatureStore,
    views: Callable[[ObjectRow], list[int]],
    *,
    for_fitting: bool = False,
) -> list[ObjectFeatures]:
    """Features of the objects of some nouns in some views, at most ten of each noun, chosen by a hash.

    For fitting also those of one repainted version of every object, and of all views distorted.
    """
    seen = []
    chosen = _chosen(dataset.rows, nouns, repainted=for_fitting)
    for count, index in enumerate(tqdm(chosen, unit="object", desc="judge", leave=False), start=1):
        row = dataset.rows[index]
        images = dataset.load_images(index, views(row))
        changed = _distorted(images, row.object_id) if for_fitting else images[:0]
        features = store.features([*images, *changed]).unflatten(0, (-1, len(images)))
        seen.append(ObjectFeatures(row.name, row.noun, features[0], features[1:]))
        if count % _SAVE_EVERY == 0:
            store.save()
    store.save()
    return seen


def fitted_views(row: ObjectRow) -> list[int]:
    """A ring of four views of an original, half of it of a repainted version."""
    views = row.ring_views(_FIT_RING)
    return views[stable_hash(row.object_id) % 2 :: 2] if row.variant else views


def unfitted_view(row: ObjectRow) -> list[int]:
    """One view from a direction that is not in :func:`fitted_views`."""
    views = row.ring_views(_HELD_OUT_RING)
    return [views[stable_hash(row.object_id) % len(views)]]


def _distorted(images: Tensor, identity: str) -> Tensor:
    """``[D * V, 3, H, W]`` versions of ``V`` images."""
    seed = stable_hash(identity) % 2**32
    return torch.cat([distortion(images, seed) for distortion in DISTORTIONS])


def _chosen(rows: Sequence[ObjectRow], nouns: Sequence[str], *, repainted: bool) -> list[int]:
    """Indices of rows, in an order that does not depend on that of the shards."""
    originals: dict[str, set[str]] = {noun: set() for noun in nouns}
    versions: dict[str, int] = defaultdict(int)
    chosen = []
    for index in sorted(
        range(len(rows)), key=lambda index: (bool(rows[index].variant), stable_hash(rows[index].object_id))
    ):
        row = rows[index]
        if row.noun not in originals:
            continue
        original = row.object_id.split("#", maxsplit=1)[0]
        if row.variant:
            if not repainted or original not in originals[row.noun] or versions[original] == _REPAINTED:
                continue
            versions[original] += 1
        elif len(originals[row.noun]) == MOST_OBJECTS:
            continue
        else:
            originals[row.noun].add(original)
        chosen.append(index)
    return chosen


def cross_validation(seen: Sequence[ObjectFeatures]) -> tuple[dict[str, float], dict[str, float]]:
    """Share of a noun's objects named right by fits without them, for the nouns that have several.

    Returns:
        The shares for clean images, and for distorted ones where there are some.
    """
    folds = {item.name: stable_hash(item.name) % _FOLDS for item in seen}
    names: dict[str, set[str]] = defaultdict(set)
    for item in seen:
        names[item.noun].add(item.name)
    clean: dict[str, list[bool]] = defaultdict(list)
    distorted: dict[str, list[bool]] = defaultdict(list)
    for fold in range(_FOLDS):
        judge = _fit([item for item in seen if folds[item.name] != fold])
        for item in seen:
            if folds[item.name] == fold and len(names[item.noun]) > 1 and item.noun in judge.nouns:
                clean[item.noun].append(judge.rank(item.features, item.noun) == 1)
                distorted[item.noun] += [judge.rank(views, item.noun) == 1 for views in item.distorted]
    return _shares(clean), _shares(distorted)


def _fit(seen: Sequence[ObjectFeatures]) -> NounJudge:
    labels = [item.noun for item in seen for _ in item.all_features]
    return fit_noun_judge(torch.cat([item.all_features for item in seen]), labels)


def _shares(results: dict[str, list[bool]]) -> dict[str, float]:
    return {noun: _share(right) for noun, right in sorted(results.items()) if right}


def _view_by_view(judge: NounJudge, seen: Sequence[ObjectFeatures]) -> list[bool]:
    return [judge.rank(view[None], item.noun) == 1 for item in seen for view in item.features]


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
