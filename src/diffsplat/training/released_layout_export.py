"""A trained network and what it was trained with, in the layout of the released weights."""

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from diffsplat.io.file_access import make_folder
from diffsplat.models.denoiser_families import Variant
from diffsplat.pretrained.release_catalogue import (
    BACKBONES,
    DENOISER_PARTS,
    ELEVATION_RELEASE,
    RECONSTRUCTOR_RELEASE,
    Backbone,
    ControlKind,
    Part,
)
from diffsplat.pretrained.release_layout import repository_folder
from diffsplat.training.run_folders import StageFolders
from diffsplat.training.run_outcome import atomic_folder

logger = logging.getLogger(__name__)

RELEASE_FOLDER = "release"
"""Folder in a run that is laid out like the released weights."""

_UNKNOWN_STEP = "000000"

VARIANT_BACKBONES: dict[Variant, Backbone] = {
    "sd": BACKBONES["sd15"],
    "sdxl": BACKBONES["pixart-sigma"],
    "sd3": BACKBONES["sd35m"],
}
"""Backbone that denoises the latents of an autoencoder."""


@dataclass(frozen=True)
class Release:
    """Place of a network among the released weights.

    Args:
        name: of the release.
        part: subfolder of the iteration; None where the files lie in the iteration itself.
        backbone: row that it belongs to; None for a reconstructor or an elevation network.
    """

    name: str
    part: Part | None = None
    backbone: Backbone | None = None

    @classmethod
    def of_autoencoder(cls, variant: Variant) -> "Release":
        """Place of a splat autoencoder and its tiny decoder."""
        row = VARIANT_BACKBONES[variant]
        return cls(row.autoencoder_release, backbone=row)

    @classmethod
    def of_denoiser(cls, row: Backbone, *, image: bool = False) -> "Release":
        """Place of a backbone's denoiser."""
        return cls(row.image_release if image else row.text_release, DENOISER_PARTS[row.family], row)

    @classmethod
    def of_controlnet(cls, row: Backbone, kind: ControlKind) -> "Release":
        """Place of a backbone's ControlNet."""
        return cls(row.control_releases[kind], "controlnet", row)


def lay_release(release: Release, folders: StageFolders, step: int) -> Path:
    """Link a run's weights, and the networks and 2D model that they belong to, from ``OUT/release``, which is replaced.

    ``diffsplat generate --weights OUT/release`` runs what lies there. Links are relative; where the file system has
    none, the files are copied. The iteration is named after the finished steps.
    """
    target = folders.out / RELEASE_FOLDER
    with atomic_folder(target) as folder:
        _link(folders.out / "weights", _iteration(folder, release.name, f"{step:06d}", release.part))
        for neighbour, source in _neighbours(release, folders):
            names = (source.name, source.parent.name)
            step_name = next((name for name in names if re.fullmatch(r"[0-9]{6}", name)), _UNKNOWN_STEP)
            _link(source, _iteration(folder, neighbour.name, step_name, neighbour.part))
        if release.backbone is not None:
            base = repository_folder(folders.pretrained, release.backbone.base_repository)
            if base.is_dir():
                _link(base, folder / base.name)
        if (folders.pretrained / ELEVATION_RELEASE).is_dir():
            _link(folders.pretrained / ELEVATION_RELEASE, folder / ELEVATION_RELEASE)
    if release.backbone is not None and release.part is not None:
        logger.info("'diffsplat generate --model %s --weights %s' runs it", release.backbone.name, target)
    return target


def _neighbours(release: Release, folders: StageFolders) -> list[tuple[Release, Path]]:
    """Places and folders of the trained networks that a network was trained with."""
    found: list[tuple[Release, Path]] = []
    if folders.reconstructor is not None:
        found.append((Release(RECONSTRUCTOR_RELEASE), folders.trained("reconstructor")))
    row = release.backbone
    if row is not None and folders.autoencoder is not None:
        found.append((Release(row.autoencoder_release, backbone=row), folders.trained("autoencoder")))
    if row is not None and folders.denoiser is not None:
        found.append((Release.of_denoiser(row), folders.trained("denoiser")))
    return [(neighbour, source) for neighbour, source in found if neighbour.name != release.name]


def _iteration(folder: Path, name: str, step: str, part: Part | None) -> Path:
    iteration = folder / name / "checkpoints" / step
    return iteration / part if part else iteration


def _link(source: Path, link: Path) -> None:
    make_folder(link.parent)
    # The unfinished folder is renamed in place, so that what is relative to it stays right.
    relative = os.path.relpath(source.resolve(), link.parent.resolve())
    try:
        link.symlink_to(relative, target_is_directory=True)
    except OSError:
        shutil.copytree(source, link)
