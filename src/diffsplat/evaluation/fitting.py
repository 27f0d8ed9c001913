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

from diffsplat.data.dataset import ObjectDataset, ObjectRow
from diffsplat.evaluation.judge import NounJudge, fit_noun_judge
from diffsplat.evaluation.real_pictures import FeatureStore, find_shards, open_objects
from diffsplat.io.files import atomic_path

MOST_THINGS = 10
"""Things of one noun that the judge is fitted on."""
_REPAINTED = 1
_SAVE_EVERY = 50
_FIT_RING = 1
_HELD_OUT_RING = 2
_FOLDS = 5


@dataclass(frozen=True)
class Seen:
    """A real object and the features of some of its views.

    Args:
        name: key of the thing; its versions and colours share it.
        noun: what it is.
        features: ``[V, F]``.
    """

    name: str
    noun: str
    features: Tensor


@dataclass(frozen=True)
class JudgeFigures:
    """How often the judge names real objects right at rank 1, 0..1.

    Args:
        held_out_objects: things of the data set's held-out split, four views each judged together.
        held_out_objects_per_view: the same, every view alone.
        held_out_count: number of those things; not every noun has some.
        held_out_views: training things from one direction that it was not fitted on.
        cross_validated: training things of nouns with several, each judged by a fit without it; mean over nouns.
        cross_validated_nouns: number of those nouns.
    """

    held_out_objects: float
    held_out_objects_per_view: float
    held_out_count: int
    held_out_views: float
    cross_validated: float
    cross_validated_nouns: int


def load_or_fit(
    data: Path, nouns: Sequence[str], store: FeatureStore, folder: Path
) -> tuple[NounJudge, JudgeFigures]:
    """:func:`fit_on_renders`, kept in ``folder`` for the next call with the same shards and nouns."""
    shards = [f"{shard.relative_to(data)} {shard.stat().st_size}" for shard in find_shards(data)]
    key = hashlib.sha256("\n".join([*shards, *sorted(set(nouns))]).encode()).hexdigest()[:16]
    judge_file, figures_file = folder / f"judge-{key}.safetensors", folder / f"judge-{key}.json"
    if judge_file.is_file() and figures_file.is_file():
        figures = json.loads(figures_file.read_text(encoding="utf-8"))
        return NounJudge.load(judge_file), JudgeFigures(**figures)
    judge, measured = fit_on_renders(data, nouns, store)
    folder.mkdir(parents=True, exist_ok=True)
    judge.save(judge_file)
    with atomic_path(figures_file, force=True) as temporary:
        temporary.write_text(json.dumps(asdict(measured)), encoding="utf-8")
    return judge, measured


def fit_on_renders(data: Path, nouns: Sequence[str], store: FeatureStore) -> tuple[NounJudge, JudgeFigures]:
    """Fit the judge of ``nouns`` on training objects and measure it on what it was not fitted on.

    Args:
        data: folder of rendered objects.
        nouns: the classes.
        store: of features; saved when done.

    Raises:
        ValueError: a noun has no training object.
    """
    train = open_objects(data, split="train")
    fitted = look_at_things(train, nouns, store, fitted_views, repainted=True)
    missing = sorted(set(nouns) - {seen.noun for seen in fitted})
    if missing:
        raise ValueError(f"no training object is a {missing[0]!r}, expected some of every noun")
    views = look_at_things(train, nouns, store, other_view)
    test = open_objects(data, split="test", variants=False)
    held_out = look_at_things(test, nouns, store, fitted_views)
    judge = _fit(fitted)
    by_noun = cross_validation(fitted)
    return judge, JudgeFigures(
        held_out_objects=_share([judge.rank(seen.features, seen.noun) == 1 for seen in held_out]),
        held_out_objects_per_view=_share(_view_by_view(judge, held_out)),
        held_out_count=len(held_out),
        held_out_views=_share(_view_by_view(judge, views)),
        cross_validated=_share(list(by_noun.values())),
        cross_validated_nouns=len(by_noun),
    )


def look_at_things(
    dataset: ObjectDataset,
    nouns: Sequence[str],
    store: FeatureStore,
    views: Callable[[ObjectRow], list[int]],
    *,
    repainted: bool = False,
) -> list[Seen]:
    """Features of the objects of some nouns, at most ten things of each noun, chosen by a hash.

    Args:
        dataset: the objects.
        nouns: which of them.
        store: of features; saved now and then, and when done.
        views: which views of an object.
        repainted: also take one repainted version of every object.
    """
    seen = []
    chosen = _chosen(dataset.rows, nouns, repainted)
    for count, index in enumerate(tqdm(chosen, unit="object", desc="judge", leave=False), start=1):
        row = dataset.rows[index]
        images = dataset.load_views(index, views(row)).image[0]
        seen.append(Seen(row.name, row.noun, store.features(list(images))))
        if count % _SAVE_EVERY == 0:
            store.save()
    store.save()
    return seen


def fitted_views(row: ObjectRow) -> list[int]:
    """A ring of four views of an original, half of it of a repainted version."""
    views = row.ring_views(_FIT_RING)
    return views[stable_hash(row.object_id) % 2 :: 2] if row.variant else views


def other_view(row: ObjectRow) -> list[int]:
    """One view from a direction that is not in :func:`fitted_views`."""
    views = row.ring_views(_HELD_OUT_RING)
    return [views[stable_hash(row.object_id) % len(views)]]


def _chosen(rows: Sequence[ObjectRow], nouns: Sequence[str], repainted: bool) -> list[int]:
    """Indices of rows, in an order that does not depend on that of the shards."""
    things: dict[str, set[str]] = {noun: set() for noun in nouns}
    versions: dict[str, int] = defaultdict(int)
    chosen = []
    for index in sorted(
        range(len(rows)), key=lambda index: (bool(rows[index].variant), stable_hash(rows[index].object_id))
    ):
        row = rows[index]
        if row.noun not in things:
            continue
        original = row.object_id.split("#", maxsplit=1)[0]
        if row.variant:
            if not repainted or original not in things[row.noun] or versions[original] == _REPAINTED:
                continue
            versions[original] += 1
        elif len(things[row.noun]) == MOST_THINGS:
            continue
        else:
            things[row.noun].add(original)
        chosen.append(index)
    return chosen


def cross_validation(seen: Sequence[Seen]) -> dict[str, float]:
    """Share of a noun's objects named right by fits without their thing, for the nouns that have several."""
    folds = {item.name: stable_hash(item.name) % _FOLDS for item in seen}
    names: dict[str, set[str]] = defaultdict(set)
    for item in seen:
        names[item.noun].add(item.name)
    right: dict[str, list[bool]] = defaultdict(list)
    for fold in range(_FOLDS):
        kept = [item for item in seen if folds[item.name] != fold]
        judge = _fit(kept)
        for item in seen:
            if folds[item.name] == fold and len(names[item.noun]) > 1 and item.noun in judge.nouns:
                right[item.noun].append(judge.rank(item.features, item.noun) == 1)
    return {noun: _share(results) for noun, results in sorted(right.items())}


def _fit(seen: Sequence[Seen]) -> NounJudge:
    labels = [item.noun for item in seen for _ in range(len(item.features))]
    return fit_noun_judge(torch.cat([item.features for item in seen]), labels)


def _view_by_view(judge: NounJudge, seen: Sequence[Seen]) -> list[bool]:
    return [judge.rank(view[None], item.noun) == 1 for item in seen for view in item.features]


def _share(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def stable_hash(text: str) -> int:
    """A number that a text has on every machine, to choose by."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
