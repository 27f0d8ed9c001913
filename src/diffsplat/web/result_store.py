"""Finished jobs in a folder, so that their results outlive the server."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file, save_file

from diffsplat.core import Cameras, Splats
from diffsplat.core.splats import SPLAT_FIELDS
from diffsplat.errors import DiffSplatError, InvalidInputError
from diffsplat.io.file_access import STORAGE_ERRORS, atomic_path, explained_os_errors, make_folder
from diffsplat.io.json_files import read_json, write_json
from diffsplat.pipelines.generation_options import ResolvedGeneration
from diffsplat.pipelines.image_and_control_conditions import ConditionImages
from diffsplat.pipelines.pipeline_output import GeneratedObject
from diffsplat.web.job_queue import Job, JobKeeper

LOST = "the server ended before this job was done; try again"

_DESCRIPTION, _OBJECTS, _LOCK = "job.json", "objects.safetensors", ".lock"
_CAMERA_FIELDS = ("camera_to_world", "intrinsics")
_IMAGES = ("image", "control", "prompt")
_OBJECT_VALUES = ("elevation_deg", "prompt", "seed", "notice")

logger = logging.getLogger(__name__)


class ResultStore(JobKeeper):
    """Keeps jobs in a folder: one folder a job, with ``job.json`` and, when it is done, ``objects.safetensors``.

    Args:
        folder: made if need be, for its owner's eyes alone. One server at a time uses it.

    Raises:
        ValueError: when the folder cannot be made, or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        with explained_os_errors(f"cannot use the folder {str(folder)!r}"):
            self.folder.chmod(0o700)
        self._lock = _locked(self.folder)

    def begin(self, job: Job) -> None:
        """Keep a job that was taken.

        Raises:
            DiskError: when there is no room for it.
        """
        make_folder(self.folder / job.id)
        write_json(_described(job), self.folder / job.id / _DESCRIPTION)

    def finish(self, job: Job) -> None:
        """Keep a job that is done; others leave nothing to keep.

        Raises:
            DiskError: when there is no room for its results.
        """
        if job.state != "done":
            return self.forget(job.id)
        folder = self.folder / job.id
        with (
            explained_os_errors(f"cannot write {str(folder)!r}", STORAGE_ERRORS),
            atomic_path(folder / _OBJECTS, force=True) as temporary,
        ):
            save_file(dict(_tensors(job)), temporary)
        write_json(_described(job), folder / _DESCRIPTION)

    def forget(self, identity: str) -> None:
        """Remove a job's folder."""
        shutil.rmtree(self.folder / identity, ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Jobs of earlier servers; what cannot be read is left out, and logged."""
        found = []
        for description in self.folder.glob(f"*/{_DESCRIPTION}"):
            try:
                found.append(_read(description.parent))
            except (DiffSplatError, OSError, ValueError, TypeError, KeyError) as error:
                logger.warning("%s is left out: %s", description.parent, error)
        return sorted(found, key=lambda job: job.finished_s or 0.0)


def _locked(folder: Path) -> IO[bytes]:
    file = (folder / _LOCK).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise InvalidInputError(
            f"{str(folder)!r} is in use by another server, expected another --results or --ephemeral"
        ) from error
    return file


def _described(job: Job) -> dict[str, Any]:
    entry = {name: getattr(job, name) for name in ("id", "model", "state", "made_s", "finished_s")}
    objects = [
        {name: getattr(item, name) for name in _OBJECT_VALUES}
        | {"width": item.cameras.width, "height": item.cameras.height}
        for item in job.results
    ]
    return json.loads(json.dumps(entry | {"generation": asdict(job.generation), "objects": objects}))


def _tensors(job: Job) -> Iterator[tuple[str, torch.Tensor]]:
    for number, item in enumerate(job.results):
        for name in SPLAT_FIELDS:
            yield f"{number}.{name}", getattr(item.splats, name).contiguous()
        for name in _CAMERA_FIELDS:
            yield f"{number}.{name}", getattr(item.cameras, name).contiguous()
    for name in _IMAGES:
        image = getattr(job.images, name, None)
        if image is not None:
            yield name, image.contiguous()


def _read(folder: Path) -> Job:
    entry = read_json(folder / _DESCRIPTION)
    known = {field.name for field in fields(ResolvedGeneration)}
    options = {name: value for name, value in entry["generation"].items() if name in known}
    options["prompts"] = tuple(options["prompts"])
    job = Job(folder.name, entry["model"], ResolvedGeneration(**options), made_s=entry["made_s"])
    if entry["state"] != "done":
        return replace(job, state="failed", error=LOST, finished_s=entry["made_s"])
    tensors = load_file(folder / _OBJECTS)
    results = tuple(_object(tensors, number, values) for number, values in enumerate(entry["objects"]))
    images = ConditionImages(*(tensors.get(name) for name in _IMAGES))
    job = replace(job, state="done", images=images, results=results, finished_s=entry["finished_s"])
    return replace(job, steps_done=job.steps)


def _object(tensors: dict[str, torch.Tensor], number: int, values: dict[str, Any]) -> GeneratedObject:
    poses = (tensors[f"{number}.{name}"] for name in _CAMERA_FIELDS)
    return GeneratedObject(
        Splats(*(tensors[f"{number}.{name}"] for name in SPLAT_FIELDS)),
        Cameras(*poses, width=values["width"], height=values["height"]),
        **{name: values[name] for name in _OBJECT_VALUES},
    )
