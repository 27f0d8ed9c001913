"""Where the files of released models are, and which of a folder's files count. Needs no torch.

A release is in ``DIR/<release>/checkpoints/<iteration>/<part>``, an image-diffusion model in ``DIR/<its name>``.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.json_files import read_json
from diffsplat.pretrained.release_catalogue import RELEASE_REPOSITORY, Component, Part

WEIGHTS_VARIABLE = "DIFFSPLAT_WEIGHTS"
"""Environment variable that names the folder of the release folders."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of files that run code when they are read; they never are."""

_WEIGHTS = re.compile(r"(?P<stem>.+?)(?P<variant>\.[^.]+?)?(?P<shard>-[0-9]+-of-[0-9]+)?\.safetensors")
_INDEX = re.compile(r"(?P<stem>.+?)\.safetensors\.index(?P<variant>\.[^.]+)?\.json")
_ITERATION = re.compile(r"[0-9]{6}")


def default_weights() -> Path:
    """The folder of release folders and base models: ``DIFFSPLAT_WEIGHTS`` or ``~/.cache/diffsplat/weights``.

    It need not exist.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "diffsplat" / "weights"


def newest_iteration(names: Collection[str]) -> str | None:
    """The highest six-digit iteration among the names of folders."""
    return max((name for name in names if _ITERATION.fullmatch(name)), default=None)


def latest_iteration(checkpoints: str | Path) -> Path:
    """The folder of the highest six-digit iteration in the folder ``checkpoints`` of a release.

    Raises:
        FileNotFoundError: when there is none.
    """
    folder = Path(checkpoints)
    found = folder.iterdir() if folder.is_dir() else ()
    newest = newest_iteration([path.name for path in found if path.is_dir()])
    if newest is None:
        raise MissingFileError(
            f"{str(folder)!r} holds no iteration such as '013020', download the release with 'diffsplat models "
            "download'"
        )
    return folder / newest


def find_release(weights: str | Path, release: str, part: Part | None = None) -> Path:
    """Folder of a released network, or of a part of its newest iteration.

    Raises:
        FileNotFoundError: when it is not there, with the command that downloads it.
    """
    iteration = latest_iteration(Path(weights) / release / "checkpoints")
    folder = iteration / part if part else iteration
    if not folder.is_dir():
        raise MissingFileError(
            f"the folder {str(folder)!r} is missing, download the release {release!r} again with 'diffsplat "
            "models download'"
        )
    return folder


def repository_folder(weights: str | Path, repository: str) -> Path:
    """The folder that files of a repository are put into, with their paths in the repository.

    That of an image-diffusion model is named like its repository, without the owner.
    """
    folder = Path(weights)
    return folder if repository == RELEASE_REPOSITORY else folder / repository.rsplit("/", 1)[-1]


def size_on_disk(weights: Path, component: Component) -> int | None:
    """Bytes of a component, or None unless all of its files are there."""
    try:
        folder = (
            find_release(weights, component.folder, component.part)
            if component.released
            else repository_folder(weights, component.repository) / component.folder
        )
    except FileNotFoundError:
        return None
    if not folder.is_dir() or not _is_complete(folder, with_weights=component.parameters > 0):
        return None
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def choose_weights(names: Collection[str], stem: str | None = None) -> list[str]:
    """The files of weights that count among those of a folder, safetensors only.

    In full precision where there is a choice, and whole rather than in shards; shards come with their index.

    Args:
        names: files of the folder.
        stem: what their names begin with, such as ``model``; anything when None.
    """
    weights = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
    indices = [match for name in names if (match := _INDEX.fullmatch(name))]
    found = [match for match in (*weights, *indices) if stem in (None, match["stem"])]
    if not found:
        return []
    variants = {match["variant"] or "" for match in found}
    variant = "" if "" in variants else ".fp16" if ".fp16" in variants else min(variants)
    same = [match for match in found if (match["variant"] or "") == variant]
    whole = [match[0] for match in same if match.re is _WEIGHTS and not match["shard"]]
    return sorted(whole or [match[0] for match in same])


def is_index(name: str) -> bool:
    """Whether a file names the shard of every weight."""
    return _INDEX.fullmatch(name) is not None


def shard_names(index: Path) -> dict[str, str]:
    """The file of every weight, by an index of shards.

    Raises:
        ValueError: when it is not such an index.
    """
    holders = read_json(index).get("weight_map")
    if not isinstance(holders, dict) or not all(isinstance(name, str) for name in holders.values()):
        raise InvalidInputError(f"{str(index)!r} has no weight_map that names files, download it again")
    return {weight: Path(name).name for weight, name in holders.items()}


def _is_complete(folder: Path, *, with_weights: bool) -> bool:
    """Whether a folder has files and every shard that an index of it names."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    try:
        named = {shard for name in names if is_index(name) for shard in shard_names(folder / name).values()}
    except ValueError:
        return False
    return bool(names) and named <= names and (not with_weights or bool(choose_weights(names)))
