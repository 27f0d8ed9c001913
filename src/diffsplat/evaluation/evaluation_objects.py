"""The rendered objects that models and judges are measured with: training objects and held-out ones."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal

from diffsplat.core import Views
from diffsplat.core.stable_hash import stable_hash
from diffsplat.data.object_dataset import ObjectDataset
from diffsplat.data.shard_folders import SHARDS
from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.evaluation.evaluation_prompts import JudgedPrompt


def open_objects(
    data: Path, *, split: Literal["train", "test", "all"], variants: bool = True
) -> ObjectDataset:
    """The rendered objects in ``data`` and in the folders right below it; see :func:`find_shards`."""
    folders = sorted({shard.parent for shard in find_shards(data)})
    return ObjectDataset(folders, split=split, variants=variants)


def find_shards(data: Path) -> list[Path]:
    """Shards in ``data`` and in the folders right below it, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no shard in it.
    """
    if not data.is_dir():
        raise MissingFileError(f"no such folder of rendered objects: {data}")
    shards = sorted({shard for pattern in (SHARDS, f"*/{SHARDS}") for shard in data.glob(pattern)})
    if not shards:
        raise MissingFileError(f"{data} holds no {SHARDS}, expected the output of diffsplat data")
    return shards


def evenly_spread(total: int, limit: int | None = None) -> list[int]:
    """At most ``limit`` of the numbers below ``total``, spread evenly from 0 on; all of them without a limit."""
    count = total if limit is None else min(limit, total)
    return [place * total // count for place in range(count)]


def held_out_views(dataset: ObjectDataset, limit: int | None = None) -> Iterable[tuple[str, Views]]:
    """Four ring views and four novel views of the objects, at most ``limit`` of them spread evenly; repeatable."""
    for index in evenly_spread(len(dataset), limit):
        yield dataset.rows[index].object_id, dataset.sample(index, 0, novel_views=4)


def objects_of_prompts(dataset: ObjectDataset, prompts: Sequence[JudgedPrompt]) -> dict[str, Views]:
    """For each prompt the views of a real object that it describes, from the front, chosen by a hash.

    An object of the noun in the prompt's colour, or in another where there is none in that.

    Raises:
        ValueError: for a noun that no object has.
    """
    found = {}
    for prompt in prompts:
        named = [index for index, row in enumerate(dataset.rows) if row.noun == prompt.noun]
        if not named:
            raise InvalidInputError(f"no training object is a {prompt.noun!r}, expected some of every noun")
        colored = [index for index in named if dataset.rows[index].colors == (prompt.color,)]
        rank = {index: stable_hash(dataset.rows[index].object_id) for index in colored or named}
        found[prompt.prompt] = dataset.canonical(min(rank, key=rank.__getitem__))
    return found


def objects_of_nouns(dataset: ObjectDataset, nouns: Collection[str]) -> dict[str, list[Views]]:
    """For each noun four views of at most six real objects, chosen by a hash; the front comes first."""
    found: dict[str, list[int]] = {noun: [] for noun in nouns}
    for index in sorted(range(len(dataset)), key=lambda index: stable_hash(dataset.rows[index].object_id)):
        found.get(dataset.rows[index].noun, []).append(index)
    return {
        noun: [dataset.canonical(index) for index in indices[:6]]
        for noun, indices in found.items()
        if indices
    }
