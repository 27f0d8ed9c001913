"""``diffsplat models``: listing the models and downloading the released ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from diffsplat.cli.option_help import Flag, option
from diffsplat.errors import InvalidInputError
from diffsplat.pretrained.hub import download_sizes, fetch, look_up
from diffsplat.pretrained.model_folders import EMBEDDED_MODELS, find_model
from diffsplat.pretrained.release_catalogue import (
    BACKBONES,
    SINGLES,
    Component,
    ControlKind,
    every_component,
    find_backbone,
    model_components,
    training_components,
)
from diffsplat.pretrained.release_layout import default_weights, size_on_disk

_HERE, _PARTLY, _ABSENT = "here", "partly here", "-"

Row = tuple[str, str, str, str, str]


def list_models(weights: Annotated[Path | None, option("DIR")] = None, online: Flag = False) -> None:
    """List the models: what there is, how large, and what is here.

    Args:
        weights: Folder of the released weights.
        online: Ask the hub for the sizes of what is not here.
    """
    folder = weights or default_weights()
    names = (*BACKBONES, *SINGLES)
    everything = [component for name in names for component in every_component(name)]
    sizes = download_sizes(everything, folder) if online else {}
    rows: list[Row] = [("model", "part", "parameters", "size", "")]
    for name in EMBEDDED_MODELS:
        size = sum(path.stat().st_size for path in find_model(name).rglob("*") if path.is_file())
        rows.append((name, "comes with the package", "", _bytes(size), _HERE))
    for name in names:
        for label, group in _groups(every_component(name)).items():
            parameters = sum(component.parameters for component in group)
            rows.append((name, label, _count(parameters), *_state(group, folder, sizes)))
    print(_table(rows))
    print(f"\nThe released weights are in {str(folder)!r}.")


def download(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    image: Flag = False,
    control: Annotated[tuple[ControlKind, ...], tyro.conf.arg(help_behavior_hint="")] = (),
    for_training: Flag = False,
    weights: Annotated[Path | None, option("DIR")] = None,
    revision: Annotated[str | None, option("COMMIT")] = None,
) -> None:
    """Download a released model; run the same command again to go on after an interruption.

    Args:
        name: A model of 'diffsplat models'.
        image: The image-conditioned model and the elevation network, instead of the text model.
        control: Also the ControlNets of these kinds.
        for_training: What training starts from instead of what was released: the parts of the 2D model, its tiny
            autoencoder, or DINOv2.
        weights: Folder for the released weights.
        revision: Branch, tag or commit of the release; by default that of the first download.
    """
    components = training_components(name) if for_training else _wanted(name, image, control)
    if for_training and (image or control):
        raise InvalidInputError(
            "all variants are trained from the same networks, expected neither --image nor --control"
        )
    folder = weights or default_weights()
    selections = look_up(components, folder, revision=revision)
    for selection in selections:
        missing = sum(selection.absent.values())
        print(
            f"{selection.repository} at {selection.revision[:12]}: {_bytes(sum(selection.sizes.values()))}, "
            f"{_bytes(missing)} to fetch"
        )
    for selection in selections:
        fetch(selection, folder)
    print(f"{name} is in {str(folder)!r}.")


def words(name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME|FOLDER")] = "mini") -> None:
    """List the nouns that a model was trained on, with the number of objects of each.

    Args:
        name: mini, or a model folder.
    """
    from diffsplat.data.training_vocabulary import TrainingVocabulary

    known = TrainingVocabulary.from_folder(find_model(name))
    if known is None:
        raise InvalidInputError(f"the model {name!r} does not say what it was trained on")
    for noun, count in known.nouns.items():
        print(f"{count:5d}  {noun}")


COMMANDS: dict[str, Callable[..., None]] = {"list": list_models, "download": download, "words": words}
DEFAULT = "list"
"""What the subcommand does when none of its own is named."""


def _wanted(name: str, image: bool, controls: Sequence[ControlKind]) -> tuple[Component, ...]:
    if name in EMBEDDED_MODELS:
        raise InvalidInputError(
            f"the model {name!r} comes with the package, expected one of: {', '.join(BACKBONES)}"
        )
    if name in SINGLES:
        if image or controls:
            raise InvalidInputError(f"{name!r} has no variants, expected neither --image nor --control")
        return every_component(name)
    if name not in BACKBONES:
        raise InvalidInputError(
            f"unknown model {name!r}, expected one of: {', '.join((*BACKBONES, *SINGLES))}"
        )
    return model_components(find_backbone(name), image=image, controls=controls)


def _groups(components: Sequence[Component]) -> dict[str, list[Component]]:
    """Components by what a row of the list says; those of an image-diffusion model are one."""
    groups: dict[str, list[Component]] = {}
    for component in components:
        label = component.label if component.released else f"parts of {component.repository.split('/')[-1]}"
        groups.setdefault(label, []).append(component)
    return groups


def _state(group: Sequence[Component], folder: Path, online: Mapping[Component, int]) -> tuple[str, str]:
    """Size of a group, and whether it is here."""
    found = [size for component in group if (size := size_on_disk(folder, component)) is not None]
    state = _HERE if len(found) == len(group) else _PARTLY if found else _ABSENT
    size = sum(found) if state == _HERE else sum(online.get(component, 0) for component in group)
    return _bytes(size) if size else "", state


def _table(rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (2, 3)
    lines = (
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _count(parameters: float) -> str:
    if not parameters:
        return ""
    return f"{parameters / 1e9:.2f} B" if parameters >= 5e8 else f"{parameters / 1e6:.0f} M"
